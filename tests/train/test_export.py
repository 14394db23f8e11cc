"""Export: the graph is the network, and a directory appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from lsp_charrnn.errors import ModelError, OutputError
from lsp_charrnn.model.files import load_model, load_weights, verify_model
from lsp_charrnn.model.spec import CELLS, Cell, ModelSpec
from lsp_charrnn.train import export
from lsp_charrnn.train.export import build_onnx, build_step_onnx, export_model, renew_model

SPEC = ModelSpec(hidden=16, embedding=8)
FILES = ["README.md", "config.json", "model.onnx", "step.onnx", "weights.safetensors"]


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, 0.5 if len(shape) == 1 else shape[-1] ** -0.5, shape).astype(np.float32)
        for name, shape in spec.shapes().items()
    }


def write(out: Path, spec: ModelSpec = SPEC, **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "name": "tiny",
        "languages": ["python"],
        "training": {"steps": 3},
        "evaluation": {"bits_per_char": 1.5},
        "card": "# tiny\n",
    }
    weights = changes.pop("weights", None) or random_weights(spec)
    return export_model(weights, spec, out, **{**arguments, **changes})


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.mark.parametrize("quantise", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_the_graph_is_valid_onnx(cell: Cell, quantise: bool) -> None:
    spec = ModelSpec(cell=cell, hidden=16, embedding=8)
    model = onnx.load_from_string(build_onnx(random_weights(spec), spec, quantise=quantise))
    onnx.checker.check_model(model)
    operators = {node.op_type for node in model.graph.node}
    assert ("DynamicQuantizeLSTM" in operators) == (quantise and spec.parts == 2)
    stored = {constant.name: constant.data_type for constant in model.graph.initializer}
    expected = onnx.TensorProto.INT8 if quantise else onnx.TensorProto.FLOAT
    for name in ("layers.0.input_weight", "layers.1.recurrent_weight", "output.weight"):
        assert stored[name] == expected


@pytest.mark.parametrize("cell", CELLS)
def test_the_graph_that_steps_is_valid_onnx(cell: Cell) -> None:
    spec = ModelSpec(cell=cell, hidden=16, embedding=8)
    graph = build_step_onnx(random_weights(spec), spec)
    assert (graph is not None) == (cell in ("lstm", "peephole", "coupled"))
    if graph is not None:
        model = onnx.load_from_string(graph)
        onnx.checker.check_model(model)
        stored = {constant.name: constant.data_type for constant in model.graph.initializer}
        for name in ("layers.0.recurrent_weight", "layers.1.weight", "output.weight"):
            assert stored[name] == onnx.TensorProto.INT8


def test_the_graphs_are_the_same_every_time() -> None:
    first, second = random_weights(SPEC), random_weights(SPEC)
    assert build_onnx(first, SPEC, quantise=True) == build_onnx(second, SPEC, quantise=True)
    assert build_step_onnx(first, SPEC) == build_step_onnx(second, SPEC)


def test_int8_rounds_to_half_a_step() -> None:
    matrix = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    scale = export._scale_of_each(matrix, axis=0)
    stored = export._to_int8(matrix, scale)
    assert (np.abs(stored).max(axis=0) == 127).all()
    assert (np.abs(stored * scale - matrix) <= scale / 2 * 1.0001).all()
    assert export._scale_of_each(np.zeros((2, 3)), axis=0).tolist() == [1, 1, 1]


def test_one_scale_cuts_off_only_where_that_pays() -> None:
    def share(matrix: npt.NDArray[np.float32]) -> float:
        return float(export._one_scale(matrix)[0] * 127 / np.abs(matrix).max())

    random = np.random.default_rng(0)
    assert share(random.uniform(-1, 1, (100, 100)).astype(np.float32)) == pytest.approx(1)
    few_are_large = random.normal(0, 0.1, (500, 500)).astype(np.float32)
    few_are_large[3, 4] = 1
    assert share(few_are_large) == pytest.approx(0.8)
    assert export._one_scale(np.zeros((2, 2), np.float32)) == 1


@pytest.mark.parametrize("cell", CELLS)
def test_round_trip(tmp_path: Path, cell: Cell) -> None:
    spec = ModelSpec(cell=cell, layers=2, hidden=16, embedding=8, skip=cell != "rnn")
    weights = random_weights(spec)
    out = write(tmp_path / "models" / "tiny", spec, weights=weights)
    assert names(out) == [name for name in FILES if name != "step.onnx" or cell not in ("gru", "rnn")]
    assert all(check.ok for check in verify_model(out))

    config = json.loads((out / "config.json").read_text("utf-8"))
    assert config["name"] == "tiny"
    assert config["languages"] == ["python"]
    assert config["training"] == {"steps": 3}
    assert config["evaluation"] == {"bits_per_char": 1.5}
    assert set(config["files"]) == set(names(out)) - {"README.md", "config.json"}
    for name in config["files"]:
        assert config["files"][name] == hashlib.sha256((out / name).read_bytes()).hexdigest()
    assert (out / "README.md").read_text("utf-8") == "# tiny\n"

    loaded, loaded_spec = load_weights(out)
    assert loaded_spec == spec
    for name, value in weights.items():
        np.testing.assert_array_equal(loaded[name], value.astype(np.float16))
    model = load_model(out)
    assert (model.spec, model.name) == (spec, "tiny")
    logits, _ = model.step(np.array([65]), model.initial_state())
    assert np.isfinite(logits).all()


def test_an_existing_directory_is_never_overwritten_unasked(tmp_path: Path) -> None:
    out = write(tmp_path / "tiny")
    before = (out / "config.json").read_bytes()
    with pytest.raises(OutputError, match=r"exists already: .*--force"):
        write(out, name="other")
    assert (out / "config.json").read_bytes() == before


def test_force_replaces_a_model_and_keeps_what_lies_beside(tmp_path: Path) -> None:
    out = write(tmp_path / "tiny")
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "1").write_text("kept")
    write(out, name="other", force=True)
    assert load_model(out).name == "other"
    assert (out / "checkpoints" / "1").read_text() == "kept"
    assert names(tmp_path) == ["tiny"]


def test_force_takes_an_empty_directory(tmp_path: Path) -> None:
    write(tmp_path, force=True)
    assert load_model(tmp_path).name == "tiny"


def test_force_never_replaces_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not a model"):
        write(tmp_path, force=True)
    with pytest.raises(OutputError, match="not a directory"):
        write(tmp_path / "thesis.txt", force=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("card", [None, b"# mine\r\n\xff"])
def test_renewing_leaves_the_card_as_it_is(tmp_path: Path, card: bytes | None) -> None:
    out = write(tmp_path / "tiny")
    (out / "README.md").unlink()
    if card is not None:
        (out / "README.md").write_bytes(card)
    (out / "model.onnx").write_bytes(b"old")
    assert renew_model(out) == out
    assert all(check.ok for check in verify_model(out))
    assert names(out) == [name for name in FILES if name != "README.md" or card is not None]
    assert card is None or (out / "README.md").read_bytes() == card


def test_renewing_asks_for_no_facts_of_the_training(tmp_path: Path) -> None:
    out = write(tmp_path / "tiny")
    config = json.loads((out / "config.json").read_text("utf-8"))
    del config["training"], config["evaluation"]
    (out / "config.json").write_text(json.dumps(config), "utf-8")
    renew_model(out)
    assert all(check.ok for check in verify_model(out))


@pytest.mark.parametrize("there_before", [True, False])
def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool) -> None:
    out = tmp_path / "tiny"
    if there_before:
        write(out)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left on device.*free the space"):
        write(out, name="other", force=True)
    monkeypatch.undo()
    assert names(tmp_path) == (["tiny"] if there_before else [])
    if there_before:
        assert load_model(out).name == "tiny"


@pytest.mark.parametrize("died", ["before", "between", "after"])
def test_what_a_killed_process_has_left_is_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, died: str
) -> None:
    """It died before the renames, between them, or when the new model stood and the user's own files had not moved."""
    out = write(tmp_path / "tiny")
    (out / "notes.txt").write_text("mine")
    rename, renamed = Path.rename, []

    def die(self: Path, target: Path) -> Path:
        renamed.append(self)
        if len(renamed) > ["before", "between", "after"].index(died):
            raise SystemExit  # not an error that anybody mends
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        patch.setattr(export.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            write(out, name="second", force=True)
    assert len(names(tmp_path)) == 2
    other = tmp_path / f".{out.name}.new"  # somebody else's
    other.mkdir()
    write(out, name="third", force=True)
    assert names(tmp_path) == [other.name, "tiny"]
    assert load_model(out).name == "third"
    assert (out / "notes.txt").read_text() == "mine"


def test_a_failed_rename_puts_the_old_model_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write(tmp_path / "tiny")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        write(out, name="other", force=True)
    monkeypatch.undo()
    assert names(tmp_path) == ["tiny"]
    assert load_model(out).name == "tiny"


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write(tmp_path / "file" / "tiny")


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e5, "too large for fp16")]
)
def test_weights_that_no_model_can_have(tmp_path: Path, value: float, message: str) -> None:
    weights = random_weights(SPEC)
    weights["layers.1.bias"][3] = value
    with pytest.raises(ModelError, match=f"layers.1.bias is {message}"):
        write(tmp_path / "tiny", weights=weights)
    assert names(tmp_path) == []


def test_weights_that_do_not_fit_the_spec() -> None:
    weights = random_weights(SPEC)
    with pytest.raises(ModelError, match=r"no output.bias"):
        build_onnx({key: value for key, value in weights.items() if key != "output.bias"}, SPEC, quantise=False)
    with pytest.raises(ModelError, match=r"hold layers.2.bias"):
        build_onnx({**weights, "layers.2.bias": np.zeros(64, np.float32)}, SPEC, quantise=False)
    with pytest.raises(ModelError, match=r"output.bias as \[255\], but a 2×16 lstm has it as \[256\]"):
        build_onnx({**weights, "output.bias": np.zeros(255, np.float32)}, SPEC, quantise=False)
