"""Model directories that are made to do harm: nothing else is read, nothing is run, and nothing grows past its size."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from test_files import GRAPHS, SPEC, change_config, change_graph, refused, replace_file, write_model

from lsp_charrnn.errors import ModelError
from lsp_charrnn.inside.neurons import FILE as NEURONS_FILE
from lsp_charrnn.model import files, step
from lsp_charrnn.model.files import load_weights, verify_model
from lsp_charrnn.model.graph import read_graph
from lsp_charrnn.model.layout import is_same, reading_graph, stepping_graph
from lsp_charrnn.model.neurons import kept
from lsp_charrnn.model.spec import CELLS, ModelSpec
from lsp_charrnn.train.export import build_onnx, build_step_onnx

WEIGHTS = "weights.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


@pytest.fixture(autouse=True)
def _nothing_reaches_the_runtime(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hostile graph may come as far as ONNX Runtime."""
    load, ours = step._load, {(original / name).read_bytes() for name in GRAPHS}

    def guarded(graph: bytes, threads: int) -> Any:
        return load(graph, threads) if graph in ours else pytest.fail("ONNX Runtime was given the graph")

    monkeypatch.setattr(step, "_load", guarded)


def header_of(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length]))


def with_header(directory: Path, change: Callable[[dict[str, Any]], object], tail: bytes | None = None) -> None:
    data = (directory / WEIGHTS).read_bytes()
    header = header_of(data)
    values = data[8 + int.from_bytes(data[:8], "little") :] if tail is None else tail
    change(header)
    raw = json.dumps(header).encode()
    replace_file(directory, WEIGHTS, len(raw).to_bytes(8, "little") + raw + values)


# --- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 7, (4 << 20) + 1, 1 << 40, (1 << 64) - 1])
def test_header_of_any_length(model: Path, length: int) -> None:
    data = (model / WEIGHTS).read_bytes()
    replace_file(model, WEIGHTS, length.to_bytes(8, "little") + data[8:])
    refused(model, "truncated or not safetensors|damaged or not safetensors")


@pytest.mark.parametrize("deep", [b"[", b'{"a":'])
def test_header_that_is_nested_without_end(model: Path, deep: bytes) -> None:
    raw = deep * 100_000
    replace_file(model, WEIGHTS, len(raw).to_bytes(8, "little") + raw)
    refused(model, "damaged or not safetensors")


def move(name: str, start: int, end: int) -> Callable[[dict[str, Any]], object]:
    def change(header: dict[str, Any]) -> None:
        low, high = header[name]["data_offsets"]
        header[name]["data_offsets"] = [low + start, high + end]

    return change


@pytest.mark.parametrize(("start", "end"), [(-2, -2), (2, 2), (0, -2), (-2, 0), (0, 1 << 40), (-(1 << 40), 0)])
@pytest.mark.parametrize("name", ["layers.1.bias", "output.weight"])
def test_values_that_overlap_or_lie_elsewhere(model: Path, name: str, start: int, end: int) -> None:
    with_header(model, move(name, start, end))
    refused(model, "does not hold .* where it says")
    with pytest.raises(ModelError):
        load_weights(model)


def test_two_names_for_the_same_values(model: Path) -> None:
    def share(header: dict[str, Any]) -> None:
        header["layers.1.bias"]["data_offsets"] = header["layers.0.bias"]["data_offsets"]

    with_header(model, share)
    refused(model, "does not hold .* where it says")


@pytest.mark.parametrize("extent", [64.0, "64", True, None, -64, 1 << 62, [64]])
def test_sizes_that_are_none(model: Path, extent: object) -> None:
    def change(header: dict[str, Any]) -> None:
        header["layers.0.bias"]["shape"] = [extent]

    with_header(model, change)
    refused(model, "damaged or not safetensors|hold layers.0.bias as")


def test_weights_that_are_promised_and_not_there(model: Path) -> None:
    """A network of 17 billion weights in a file of some hundred bytes: told before anything is reserved for it."""
    spec = ModelSpec(layers=1, hidden=65536, embedding=8)
    header: dict[str, Any] = {}
    at = 0
    for name, shape in spec.shapes().items():
        size = 2 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    change_config(model, spec=spec.to_json())
    raw = json.dumps(header).encode()
    replace_file(model, WEIGHTS, len(raw).to_bytes(8, "little") + raw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(model, "weights.safetensors is truncated")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (100 << 10)  # kB


@pytest.mark.parametrize("name", [WEIGHTS, *GRAPHS])
def test_files_that_are_all_holes_are_not_read(model: Path, name: str) -> None:
    """A terabyte that takes no room on the disk: to take its hash alone would take hours."""
    with (model / name).open("r+b") as file:
        file.truncate(1 << 40)
    refused(model, r"and 1,073,741,824 are the most|larger than the graph of")


# --- what stands under a file's name ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, *GRAPHS])
def test_a_pipe_never_keeps_it_waiting(model: Path, name: str) -> None:
    (model / name).unlink()
    os.mkfifo(model / name)
    refused(model, "cannot be read|is not a model directory")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, *GRAPHS])
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null", "/etc", "loop", "/etc/passwd"])
def test_links_to_what_is_no_part_of_a_model(model: Path, name: str, target: str) -> None:
    """What a link leads to is read as a file of the model, if it is a file, and never shown."""
    (model / name).unlink()
    (model / name).symlink_to(target if target != "loop" else name)
    refused(
        model, "cannot be read|is not a model directory|is not JSON|not safetensors|not ONNX|is truncated|is missing"
    )
    for check in verify_model(model):
        assert "root:" not in check.message


# --- config.json and neurons.json ------------------------------------------------------------------------------------

BOMBS = [
    pytest.param(b'{"a":' * 200_000, id="deep"),
    pytest.param(b"[" * 2_000_000, id="deeper"),
    pytest.param(b'{"format": ' + b"9" * 1_000_000 + b"}", id="a long number"),
    pytest.param(b'{"format": 1e999}', id="endless"),
    pytest.param(b"[" + b"{}," * 1_000_000 + b"{}]", id="a million objects"),
    pytest.param(b'"' + b"a" * (20 << 20), id="a long text"),
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_json_that_would_burst(model: Path, bomb: bytes) -> None:
    (model / "config.json").write_bytes(bomb)
    refused(model, "is not JSON|no format number|too large for a config")


@pytest.mark.parametrize("bomb", BOMBS)
def test_table_of_neurons_that_would_burst(model: Path, bomb: bytes) -> None:
    (model / NEURONS_FILE).write_bytes(bomb)
    with pytest.raises(ModelError, match="is no table of neurons"):
        kept(model)


@pytest.mark.parametrize(
    "neuron",
    [
        {"layer": "<img src=x onerror=alert(1)>"},
        {"neuron": "<img src=x onerror=alert(1)>"},
        {"signal": "<script>"},
        {"layer": 99},
        {"neuron": -1},
        {"held_out": "much"},
    ],
)
def test_table_of_neurons_with_markup_for_the_page(model: Path, neuron: dict[str, object]) -> None:
    right = {"layer": 0, "neuron": 0, "signal": "h", "found": 0.9, "held_out": 0.9}

    def write(one: dict[str, object]) -> None:
        tracked = {"name": "inside a string", "neurons": [one], "probe": 0, "shuffled_neuron": 0, "shuffled_probe": 0}
        weights = json.loads((model / "config.json").read_text())["files"][WEIGHTS]
        table = {"model": "m", "weights": weights, "language": "python", "characters": [1, 1], "files": [1, 1]}
        (model / NEURONS_FILE).write_text(json.dumps({**table, "left_out": 0, "properties": [tracked]}))

    write(right)
    assert kept(model) is not None
    write({**right, **neuron})
    with pytest.raises(ModelError, match="is no table of neurons"):
        kept(model)


@pytest.mark.parametrize("name", ["\x1b]0;owned\a", "a\nb", "\x9b31m", "x" * 101])
def test_names_that_a_terminal_must_not_be_given(model: Path, name: str) -> None:
    change_config(model, name=name)
    refused(model, "has no name")
    change_config(model, name="tiny", languages=["python", name])
    refused(model, "languages that are not a list")


# --- graphs ----------------------------------------------------------------------------------------------------------


def body() -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "body", [], [])


def outside() -> onnx.TensorProto:
    tensor = TensorProto(name="file", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return tensor


NODES = {
    "loop": lambda: helper.make_node("Loop", ["n", "c"], ["x"], body=body()),
    "if": lambda: helper.make_node("If", ["c"], ["x"], then_branch=body(), else_branch=body()),
    "scan": lambda: helper.make_node("Scan", ["x"], ["y"], body=body(), num_scan_inputs=1),
    "plugin": lambda: helper.make_node("Run", ["x"], ["y"], domain="org.evil"),
    "own domain": lambda: helper.make_node("Tanh", ["x"], ["y"], domain="org.evil"),
    "constant": lambda: helper.make_node("Constant", [], ["x"], value=outside()),
    "large": lambda: helper.make_node("ConstantOfShape", ["n"], ["x"]),
    "expand": lambda: helper.make_node("Expand", ["x", "n"], ["y"]),
    "body in ours": lambda: helper.make_node("Add", ["a", "b"], ["c"], body=body()),
    "tensor in ours": lambda: helper.make_node("Add", ["a", "b"], ["c"], value=outside()),
    "sparse in ours": lambda: helper.make_node("Add", ["a", "b"], ["c"], value=onnx.SparseTensorProto()),
    "text in ours": lambda: helper.make_node("Add", ["a", "b"], ["c"], path="/etc/passwd"),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("node", NODES)
def test_nodes_that_we_never_write(model: Path, name: str, node: str) -> None:
    change_graph(model, name, lambda graph: graph.graph.node.insert(0, NODES[node]()))
    refused(model, "which no model of ours does")


def outer_product(graph: onnx.ModelProto) -> None:
    """Two vectors of a megabyte, whose product takes 256 GB: and ONNX Runtime would make it while it loads."""
    long = np.zeros((1 << 18, 1), np.float32)
    graph.graph.initializer.append(numpy_helper.from_array(long, "long"))
    graph.graph.initializer.append(numpy_helper.from_array(long.T, "wide"))
    graph.graph.node.append(helper.make_node("MatMul", ["long", "wide"], ["huge"]))


def doubling(graph: onnx.ModelProto) -> None:
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1), np.float32), "x0"))
    for number in range(40):
        graph.graph.node.append(helper.make_node("Concat", [f"x{number}"] * 2, [f"x{number + 1}"], axis=0))


def padding(graph: onnx.ModelProto) -> None:
    widths = np.array([0, 0, 0, 0, 0, 1 << 40], np.int64)
    for tensor in graph.graph.initializer:
        if tensor.name == "anchor_padding":
            tensor.CopyFrom(numpy_helper.from_array(widths, tensor.name))
            return
    graph.graph.node.append(helper.make_node("Pad", ["logits"], ["wide"]))


def hidden_size(graph: onnx.ModelProto) -> None:
    for node in graph.graph.node:
        for attribute in node.attribute:
            attribute.i = 1 << 40


def other_inputs(graph: onnx.ModelProto) -> None:
    graph.graph.node[-1].input[0], graph.graph.node[-1].input[1] = graph.graph.node[-1].input[:2][::-1]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("change", [outer_product, doubling, padding, hidden_size, other_inputs])
def test_graphs_of_permitted_operators_that_ask_for_too_much(
    model: Path, name: str, change: Callable[[onnx.ModelProto], None]
) -> None:
    change_graph(model, name, change)
    refused(model, f"{name} is not the graph that this version writes")


def with_dims(tensor: onnx.TensorProto, *dims: int) -> None:
    del tensor.dims[:]
    tensor.dims.extend(dims)


CONSTANTS: dict[str, Callable[[onnx.TensorProto], object]] = {
    "giant shape": lambda tensor: with_dims(tensor, 1 << 62),
    "shape that overflows": lambda tensor: with_dims(tensor, 1 << 32, 1 << 32),
    "negative shape": lambda tensor: with_dims(tensor, -1),
    "no bytes": lambda tensor: tensor.ClearField("raw_data"),
    "numbers instead of bytes": lambda tensor: tensor.int64_data.append(1),
    "texts": lambda tensor: tensor.string_data.append(b"x"),
    "type that we never write": lambda tensor: setattr(tensor, "data_type", TensorProto.STRING),
    "segment": lambda tensor: setattr(tensor.segment, "begin", 1),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("change", CONSTANTS)
def test_constants_whose_bytes_are_not_those_of_their_shape(model: Path, name: str, change: str) -> None:
    change_graph(model, name, lambda graph: CONSTANTS[change](graph.graph.initializer[0]))
    refused(model, "has not the bytes that its type and shape ask for")


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", "weights.safetensors", "*/_ORT_MEM_ADDR_/*"])
def test_constants_in_other_files(model: Path, name: str, path: str) -> None:
    def send_outside(graph: onnx.ModelProto) -> None:
        constant = graph.graph.initializer[-1]
        constant.external_data.add(key="location", value=path)
        constant.data_location = TensorProto.EXTERNAL

    change_graph(model, name, send_outside)
    refused(model, "refers to other files")


def add_function(graph: onnx.ModelProto) -> None:
    node = helper.make_node("Tanh", ["x"], ["y"])
    graph.functions.append(helper.make_function("evil", "Add", ["x"], ["y"], [node], []))


def add_sparse(graph: onnx.ModelProto) -> None:
    graph.graph.sparse_initializer.add(dims=[1 << 40])


def add_metadata(graph: onnx.ModelProto) -> None:
    graph.metadata_props.add(key="ort_config", value="{}")


def add_training(graph: onnx.ModelProto) -> None:
    graph.training_info.add()


def add_value_info(graph: onnx.ModelProto) -> None:
    graph.graph.value_info.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1 << 40]))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("change", [add_function, add_sparse, add_metadata, add_training, add_value_info])
def test_parts_of_a_file_that_we_never_write(model: Path, name: str, change: Callable[[onnx.ModelProto], None]) -> None:
    change_graph(model, name, change)
    refused(model, "which no model of ours does")


@pytest.mark.parametrize("name", GRAPHS)
def test_a_second_graph_in_the_same_file(model: Path, name: str) -> None:
    """Protobuf would make one of both."""
    data = (model / name).read_bytes()
    replace_file(model, name, data + data)
    refused(model, "no graph in it")


@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", [WEIGHTS, *GRAPHS])
def test_any_changed_bytes_are_refused_or_change_numbers_alone(
    original: Path, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    """With a hash that fits. What passes has the nodes and shapes of a graph of ours, to the letter."""
    directory = Path(shutil.copytree(original, tmp_path / "noisy", dirs_exist_ok=True))
    noisy = bytearray((original / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, 2000), st.integers(0, len(noisy) - 1)))
        noisy[min(at, len(noisy) - 1)] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        noisy = noisy[: data.draw(st.integers(0, len(noisy)))]
    replace_file(directory, name, bytes(noisy))
    config, spec = files.read_config(directory)
    try:
        if name == WEIGHTS:
            assert {key: value.shape for key, value in load_weights(directory)[0].items()} == SPEC.shapes()
        else:
            files._graph_as_promised(directory / name, config, spec)
    except ModelError:
        return
    if name != WEIGHTS:
        found, before = read_graph(bytes(noisy)), read_graph((original / name).read_bytes())
        assert is_same(found, before)
        assert not found.external
        assert not found.foreign


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("layers", "skip"), [(1, True), (2, True), (3, False)])
def test_the_layout_is_what_is_exported(cell: Any, layers: int, skip: bool) -> None:
    spec = ModelSpec(cell=cell, layers=layers, hidden=6, embedding=4, skip=skip)
    weights = {name: np.full(shape, 0.1, np.float32) for name, shape in spec.shapes().items()}
    found = read_graph(build_onnx(weights, spec, quantise=True))
    assert not found.foreign
    assert is_same(found, reading_graph(spec))
    assert not is_same(found, reading_graph(ModelSpec(cell=cell, layers=layers, hidden=7, embedding=4, skip=skip)))
    stepping = build_step_onnx(weights, spec)
    assert (stepping is None) == (not spec.flat_step)
    if stepping is not None:
        assert is_same(read_graph(stepping), stepping_graph(spec))


def test_the_guard_of_these_tests_works() -> None:
    with pytest.raises(pytest.fail.Exception, match="was given the graph"):
        step._load(b"any", 1)
