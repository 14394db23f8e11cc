"""Model directories: each thing that can be wrong with one, and the sentence that says so."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lsp_charrnn.errors import ModelError
from lsp_charrnn.model import files
from lsp_charrnn.model.files import find_model, list_models, load_model, load_weights, model_for_language, verify_model
from lsp_charrnn.model.graph import read_graph
from lsp_charrnn.model.layout import is_same, reading_graph, stepping_graph
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.train.export import export_model, renew_model

SPEC = ModelSpec(hidden=16, embedding=8)
GRAPHS = ["model.onnx", "step.onnx"]


def write_model(out: Path, languages: tuple[str, ...] = ("python",), seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    weights = {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in SPEC.shapes().items()}
    facts: dict[str, Any] = {"training": {}, "evaluation": {}, "card": "# card\n"}
    return export_model(weights, SPEC, out, name=out.name, languages=languages, **facts)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


def change_config(directory: Path, **changes: object) -> None:
    config = json.loads((directory / "config.json").read_text("utf-8"))
    config.update(changes)
    (directory / "config.json").write_text(json.dumps(config), "utf-8")


def replace_file(directory: Path, name: str, data: bytes) -> None:
    """Put other bytes under a name, and their hash into the config: damage that no hash shows."""
    (directory / name).write_bytes(data)
    config = json.loads((directory / "config.json").read_text("utf-8"))
    change_config(directory, files={**config["files"], name: hashlib.sha256(data).hexdigest()})


def change_graph(directory: Path, name: str, change: Callable[[onnx.ModelProto], object]) -> None:
    graph = onnx.load_from_string((directory / name).read_bytes())
    change(graph)
    replace_file(directory, name, graph.SerializeToString())


def refused(directory: Path, message: str) -> None:
    """Loading must fail with that message: one sentence, with the fix behind its colon. Verifying must not raise."""
    with pytest.raises(ModelError, match=message) as caught:
        load_model(directory)
    text = str(caught.value)
    assert ": " in text
    assert text.endswith(".")
    assert "\n" not in text
    assert text in [check.message for check in verify_model(directory) if not check.ok]


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


# --- whole ---------------------------------------------------------------------------------------------------------


def test_load(model: Path) -> None:
    loaded = load_model(model)
    assert loaded.name == "tiny"
    assert loaded.spec == SPEC
    matrices = 64 * (16 + 16 + 16) + 256 * 32  # what layer 0 makes of its inputs is looked up
    assert matrices < loaded.size_bytes < matrices + 4 * (2 * 128 + 2 * 256) + 500  # biases, scales, zero points


def test_verify(model: Path) -> None:
    checks = verify_model(model)
    assert [check.name for check in checks] == ["config", "weights", "graph", "step"]
    assert all(check.ok for check in checks)
    assert "2×16 lstm" in checks[0].message


def test_load_with_more_threads(model: Path) -> None:
    assert load_model(model, threads=2).threads == 2


# --- not a model ---------------------------------------------------------------------------------------------------


def test_no_such_directory(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist: give the path")


def test_not_a_model_directory(tmp_path: Path) -> None:
    refused(tmp_path, "is not a model directory")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is not a model directory")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{} {}"])
def test_config_that_is_not_json(model: Path, data: bytes) -> None:
    (model / "config.json").write_bytes(data)
    refused(model, "is not JSON")


@pytest.mark.parametrize(
    "data", ["null", "[]", "{}", '"model"', '{"format": "1"}', '{"format": true}', '{"format": 0}']
)
def test_config_of_something_else(model: Path, data: str) -> None:
    (model / "config.json").write_text(data)
    refused(model, "no format number")


def test_config_that_is_endless(model: Path) -> None:
    (model / "config.json").write_bytes(b" " * (5 << 20))
    refused(model, "too large for a config")


def test_newer_format(model: Path) -> None:
    change_config(model, format=3)
    refused(model, "format 3, newer than the 2 that this version reads: upgrade lsp-charrnn")


def test_older_format(model: Path) -> None:
    """Its graph is refused, its weights are as good as ever, and from them the graphs can be written anew."""
    (model / "step.onnx").unlink()
    config = json.loads((model / "config.json").read_text("utf-8"))
    change_config(
        model, format=1, files={name: config["files"][name] for name in ("weights.safetensors", "model.onnx")}
    )
    refused(model, "format 1, whose graph this version no longer runs: write it anew from the weights with")
    weights, spec = load_weights(model)
    assert spec == SPEC
    assert {name: value.shape for name, value in weights.items()} == SPEC.shapes()
    renew_model(model)
    assert all(check.ok for check in verify_model(model))
    assert load_model(model).name == "tiny"
    assert (model / "README.md").read_text("utf-8") == "# card\n"


def test_other_symbols(model: Path) -> None:
    change_config(model, symbols="utf16-1")
    refused(model, "other symbols")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"languages": "python"}, "languages that are not a list"),
        ({"languages": [1]}, "languages that are not a list"),
        ({"name": None}, "has no name"),
        ({"files": None}, "has no SHA-256 for weights.safetensors"),
        ({"files": {"weights.safetensors": "ab", "model.onnx": "cd"}}, "has no SHA-256"),
        ({"spec": None}, "must have exactly the fields"),
        ({"spec": {**SPEC.to_json(), "cell": "lstn"}}, "unknown cell"),
        ({"spec": {**SPEC.to_json(), "cell": ["lstm"]}}, "unknown cell"),
    ],
)
def test_config_with_a_bad_entry(model: Path, changes: dict[str, object], message: str) -> None:
    change_config(model, **changes)
    refused(model, message)


# --- damaged -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.safetensors", "model.onnx", "step.onnx"])
def test_missing_file(model: Path, name: str) -> None:
    (model / name).unlink()
    refused(model, f"{name} is missing: copy or download the model again")


@pytest.mark.parametrize("name", ["weights.safetensors", "model.onnx", "step.onnx"])
def test_directory_in_place_of_a_file(model: Path, name: str) -> None:
    (model / name).unlink()
    (model / name).mkdir()
    refused(model, f"{name} cannot be read")


@pytest.mark.parametrize("size", [0, 4, 8, 100, 5000, -1])
def test_truncated_weights(model: Path, size: int) -> None:
    cut(model / "weights.safetensors", size)
    refused(model, r"weights.safetensors is (truncated|damaged)")


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("size", [0, 4, 100, 5000, -1])
def test_truncated_graph(model: Path, name: str, size: int) -> None:
    cut(model / name, size)
    refused(model, rf"{name} is truncated or not ONNX")


def test_weights_with_a_tail(model: Path) -> None:
    path = model / "weights.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    refused(model, "too long")


@pytest.mark.parametrize("name", ["weights.safetensors", "model.onnx", "step.onnx"])
def test_one_changed_bit(model: Path, name: str) -> None:
    data = bytearray((model / name).read_bytes())
    data[len(data) // 2] ^= 1
    (model / name).write_bytes(data)
    refused(model, rf"{name} is not the file that config.json describes \(SHA-256 differs\)")


def test_weights_that_are_something_else(model: Path) -> None:
    replace_file(model, "weights.safetensors", b"GIF89a" * 1000)
    refused(model, "truncated or not safetensors")
    for header in (b'{"a": [1, 2]}', b'{"a": {"shape": [1e999], "dtype": "F16", "data_offsets": [0, 2]}}', b"[]"):
        replace_file(model, "weights.safetensors", len(header).to_bytes(8, "little") + header)
        refused(model, "damaged or not safetensors")


def test_spec_of_other_sizes(model: Path) -> None:
    change_config(model, spec={**SPEC.to_json(), "hidden": 65536})
    refused(model, r"hold layers.0.input_weight as \[64, 8\], but a 2×65536 lstm has it as \[262144, 8\]")


def test_weights_of_another_type(model: Path) -> None:
    path = model / "weights.safetensors"
    replace_file(model, path.name, path.read_bytes().replace(b'"F16"', b'"I16"'))
    refused(model, "numbers of type I16")


@pytest.mark.parametrize("name", GRAPHS)
def test_model_of_another_spec(model: Path, tmp_path: Path, name: str) -> None:
    """The graph of one network under the weights of another, with hashes that fit."""
    other = ModelSpec(hidden=24, embedding=8)
    weights = {name: np.zeros(shape, np.float32) for name, shape in other.shapes().items()}
    facts: dict[str, Any] = {"training": {}, "evaluation": {}, "card": ""}
    path = export_model(weights, other, tmp_path / "other", name="other", languages=[], **facts)
    replace_file(model, name, (path / name).read_bytes())
    refused(model, f"{name} does not hold output.weight as a 2×16 lstm has it")


# --- graphs that ask for more than they may --------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_that_is_something_else(model: Path, name: str) -> None:
    replace_file(model, name, b"GIF89a" * 1000)
    refused(model, "truncated or not ONNX")


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_with_a_foreign_operator(model: Path, name: str) -> None:
    change_graph(
        model, name, lambda graph: graph.graph.node.append(helper.make_node("Run", ["a"], ["b"], domain="evil"))
    )
    refused(model, "uses evil.Run, which no model of ours does")


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_with_a_subgraph(model: Path, name: str) -> None:
    def add_body(graph: onnx.ModelProto) -> None:
        body = helper.make_graph([], "body", [], [])
        graph.graph.node.append(helper.make_node("Add", ["a", "b"], ["c"], body=body))

    change_graph(model, name, add_body)
    refused(model, "uses subgraphs")


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_with_external_weights(model: Path, name: str) -> None:
    def send_outside(graph: onnx.ModelProto) -> None:
        constant = graph.graph.initializer[0]
        constant.ClearField("raw_data")
        constant.data_location = TensorProto.EXTERNAL
        constant.external_data.add(key="location", value="/etc/passwd")

    change_graph(model, name, send_outside)
    refused(model, "refers to other files")


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_that_makes_no_sense(model: Path, name: str) -> None:
    change_graph(model, name, lambda graph: graph.graph.node.pop())
    refused(model, f"{name} is not the graph that this version writes for a 2×16 lstm: write it anew")


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_of_another_operator_set(model: Path, name: str) -> None:
    def raise_version(graph: onnx.ModelProto) -> None:
        graph.opset_import[0].version = 10_000

    change_graph(model, name, raise_version)
    refused(model, "ONNX Runtime .* refuses the graph")


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_is_read_as_onnx_reads_it(model: Path, name: str) -> None:
    data = (model / name).read_bytes()
    graph = onnx.load_from_string(data).graph
    contents = read_graph(data)
    assert {(node.domain, node.op_type) for node in graph.node} == contents.operators
    assert {constant.name: constant.shape for constant in contents.constants} == {
        tensor.name: tuple(tensor.dims) for tensor in graph.initializer
    }
    assert not contents.external
    assert not contents.foreign
    assert is_same(contents, (reading_graph if name == "model.onnx" else stepping_graph)(SPEC))


def test_noise_is_never_more_than_a_value_error(model: Path) -> None:
    random = np.random.default_rng(0)
    data = np.frombuffer((model / "model.onnx").read_bytes(), np.uint8)
    for _ in range(300):
        noisy = data[: random.integers(1, len(data))].copy()
        noisy[random.integers(0, min(len(noisy), 400), 3)] = random.integers(0, 256, 3)
        try:
            read_graph(noisy.tobytes())
        except ValueError:
            continue


# --- finding ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two directories of models, and none from this machine."""
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "user"))
    monkeypatch.setattr(files, "__file__", str(tmp_path / "checkout" / "lsp_charrnn" / "model" / "files.py"))
    monkeypatch.setenv("LSP_CHARRNN_MODELS", f"{first}{os.pathsep}{second}")
    return first, second


def test_search_order(places: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = places
    user, checkout = tmp_path / "user" / "models", tmp_path / "checkout" / "models"
    for place in (checkout, user, second, first):  # the last one written comes first
        write_model(place / "python")
        assert find_model("python") == place / "python"
        assert model_for_language("python") == place / "python"
    write_model(checkout / "rust", languages=("rust", "toml"))
    assert [info.path for info in list_models()] == [first / "python", checkout / "rust"]
    assert model_for_language("toml") == checkout / "rust"


def test_a_path_goes_before_names(places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = write_model(places[0] / "python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").mkdir()  # somebody's source directory, not a model
    assert find_model("python") == named
    assert find_model(str(named)) == named
    (tmp_path / "python").rmdir()
    write_model(tmp_path / "python")
    assert find_model("python").resolve() == tmp_path / "python"


def test_a_name_that_nothing_has(places: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match=r"there is no model 'python': .*set LSP_CHARRNN_MODELS"):
        find_model("python")
    write_model(places[0] / "python")
    with pytest.raises(ModelError, match=r"there is no model 'pyton': .*one of python"):
        find_model("pyton")
    for path in ("no/such/place", "../nowhere"):
        with pytest.raises(ModelError, match="does not exist"):
            find_model(path)
    with pytest.raises(ModelError, match="no model is named"):
        find_model("")


def test_a_language_that_no_model_knows(places: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="no model was found at all"):
        model_for_language("rust")
    path = write_model(places[0] / "python")
    with pytest.raises(ModelError, match=r"no model for 'markdown' \(the models found know python\)"):
        model_for_language("markdown")
    assert model_for_language("rust") == path  # the nearest: the memories know the rest


@pytest.mark.parametrize("called", ["shellscript", "shell", "sh", "bash", "zsh"])
def test_clients_call_a_language_by_several_names(places: tuple[Path, Path], called: str) -> None:
    write_model(places[0] / "python")
    path = write_model(places[0] / "scripts")
    change_config(path, languages=["shellscript"])
    assert model_for_language(called) == path


def test_a_broken_model_is_listed_with_its_problem(places: tuple[Path, Path]) -> None:
    path = write_model(places[0] / "python")
    change_config(path, format=3)
    (info,) = list_models()
    assert info.name == "python"
    assert "newer" in info.problem
    with pytest.raises(ModelError, match="no model was found at all"):
        model_for_language("python")


def test_an_older_format_is_listed_with_its_problem_and_hides_none_that_works(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    shipped = write_model(tmp_path / "checkout" / "models" / "python")
    old = [write_model(places[0] / name) for name in ("mine", "python")]
    for path in old:
        change_config(path, format=1)
    listed = list_models()
    assert [info.path for info in listed] == [*old, shipped]
    assert ["models renew" in info.problem for info in listed] == [True, True, False]
    assert model_for_language("python") == shipped
    renew_model(old[1])
    assert [info.path for info in list_models()] == old
    assert model_for_language("python") == old[1]


def test_load_weights(model: Path) -> None:
    weights, spec = load_weights(model)
    assert spec == SPEC
    assert {name: value.shape for name, value in weights.items()} == SPEC.shapes()
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float32)}
    cut(model / "weights.safetensors", 5000)
    with pytest.raises(ModelError, match="truncated"):
        load_weights(model)
