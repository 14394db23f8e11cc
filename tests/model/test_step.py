"""The fast path: stepping is reading, state is a value, lanes are separate; and what of this int8 keeps to the bit."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.spec import CELLS, Cell, ModelSpec
from lsp_charrnn.model.step import Model
from lsp_charrnn.train.export import build_onnx, build_step_onnx

INT8_CELLS: tuple[Cell, ...] = ("lstm", "peephole", "coupled")  # gru and rnn compute in float32


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, 0.5 if len(shape) == 1 else shape[-1] ** -0.5, shape).astype(np.float32)
        * (4 if name == "embedding.weight" else 1)
        for name, shape in spec.shapes().items()
    }


def network(cell: Cell = "lstm", *, quantise: bool, layers: int = 2, skip: bool = True, hidden: int = 64) -> Model:
    spec = ModelSpec(cell=cell, layers=layers, hidden=hidden, embedding=32, skip=skip)
    weights = random_weights(spec)
    step_graph = build_step_onnx(weights, spec) if quantise else None
    return Model(build_onnx(weights, spec, quantise=quantise), spec, step_graph=step_graph)


def random_symbols(steps: int, lanes: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(7).integers(0, 256, (steps, lanes))


def divergence(p: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """KL divergence in bits between the predictions of two arrays of logits, over their last axis."""
    log_p, log_q = (x.astype(np.float64) - np.logaddexp.reduce(x.astype(np.float64), -1, keepdims=True) for x in (p, q))
    bits: npt.NDArray[np.float64] = (np.exp(log_p) * (log_p - log_q)).sum(-1) / np.log(2)
    return bits


@pytest.mark.parametrize(("layers", "skip"), [(1, False), (3, True)])
@pytest.mark.parametrize("cell", CELLS)
def test_stepping_is_reading(cell: Cell, layers: int, skip: bool) -> None:
    model = network(cell, quantise=False, layers=layers, skip=skip)
    symbols = random_symbols(300, 2)  # more than one piece
    at_once, state_at_once = model.read(symbols, model.initial_state(2))
    state = model.initial_state(2)
    for time, row in enumerate(symbols):
        logits, state = model.step(row, state)
        np.testing.assert_allclose(logits, at_once[time], rtol=0, atol=1e-5)
    np.testing.assert_allclose(state, state_at_once, rtol=0, atol=1e-5)


def test_shapes_and_types() -> None:
    for cell in CELLS:
        model = network(cell, quantise=True, layers=3)
        state = model.initial_state(5)
        assert state.shape == (3, model.spec.parts, 5, 64)
        logits, after = model.step(np.arange(5), state)
        assert logits.shape == (5, 256)
        assert logits.dtype == np.float32
        assert after.shape == state.shape
        assert after.dtype == np.float32
        assert after.flags.c_contiguous
        logits, after = model.read(random_symbols(1, 5), state)
        assert logits.shape == (1, 5, 256)
        assert after.shape == state.shape


def test_state_is_a_value() -> None:
    model = network(quantise=True)
    _, state = model.read(random_symbols(50, 2), model.initial_state(2))
    kept = state.copy()
    first, after = model.step(np.array([65, 66]), state)
    model.step(np.array([1, 2]), after)
    again, after_again = model.step(np.array([65, 66]), np.frombuffer(kept.tobytes(), np.float32).reshape(kept.shape))
    np.testing.assert_array_equal(state, kept)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(after, after_again)


def test_strided_arrays_are_read_as_what_they_show() -> None:
    model = network(quantise=False)
    symbols = random_symbols(20, 6)
    _, state = model.read(symbols, model.initial_state(6))
    logits, after = model.read(symbols[::2, ::3], state[:, :, ::3])
    expected, expected_after = model.read(
        np.ascontiguousarray(symbols[::2, ::3]), np.ascontiguousarray(state[:, :, ::3])
    )
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(after, expected_after)


@pytest.mark.parametrize("cell", CELLS)
def test_lanes_do_not_influence_each_other_in_float32(cell: Cell) -> None:
    model = network(cell, quantise=False)
    symbols = random_symbols(100, 8)
    together, _ = model.read(symbols, model.initial_state(8))
    for lane in (0, 5):
        alone, _ = model.read(np.ascontiguousarray(symbols[:, lane : lane + 1]), model.initial_state(1))
        np.testing.assert_allclose(together[:, lane], alone[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("layers", "skip", "hidden"), [(1, False, 64), (2, True, 64), (3, False, 37), (3, True, 50)])
@pytest.mark.parametrize("cell", INT8_CELLS)
def test_lanes_do_not_influence_each_other_in_int8(cell: Cell, layers: int, skip: bool, hidden: int) -> None:
    """Not by one bit: int8 rounds what goes into a product on a grid that never moves."""
    model = network(cell, quantise=True, layers=layers, skip=skip, hidden=hidden)
    symbols = random_symbols(150, 19)
    together, state = model.read(symbols, model.initial_state(19))
    for lanes in ([3], [18, 3, 0, 7]):
        alone, own = model.read(np.ascontiguousarray(symbols[:, lanes]), model.initial_state(len(lanes)))
        np.testing.assert_array_equal(alone, together[:, lanes])
        np.testing.assert_array_equal(own, state[:, :, lanes])
    all_after, after = state, np.ascontiguousarray(state[:, :, [5, 3]])
    for row in random_symbols(20, 19):
        logits, all_after = model.step(row, all_after)
        own_logits, after = model.step(row[[5, 3]], after)
        np.testing.assert_array_equal(own_logits, logits[[5, 3]])
        np.testing.assert_array_equal(after, all_after[:, :, [5, 3]])


@pytest.mark.parametrize("cell", INT8_CELLS)
def test_however_a_text_is_cut_it_reads_the_same_in_int8(cell: Cell) -> None:
    """To the bit. So the state at a place of a document hangs on its text alone, not on how it came to be."""
    model = network(cell, quantise=True)
    symbols = random_symbols(400, 2)
    at_once, state_at_once = model.read(symbols, model.initial_state(2))
    state, start = model.initial_state(2), 0
    for end in (1, 2, 3, 50, 178, 179, 350, 400):
        logits, state = model.read(symbols[start:end], state)
        np.testing.assert_array_equal(logits, at_once[start:end])
        start = end
    np.testing.assert_array_equal(state, state_at_once)


def test_the_grid_holds_whatever_the_state() -> None:
    """Hidden states at their limits, cells far outside: what the anchors of the graph are there for."""
    model = network(quantise=True)
    wild = model.initial_state(2)
    wild[:, 0, 0], wild[:, 1, 0] = 1, 50
    symbols = random_symbols(60, 2)
    alone, _ = model.read(symbols[:, 1:], np.ascontiguousarray(wild[:, :, 1:]))
    together, _ = model.read(symbols, wild)
    np.testing.assert_array_equal(together[:, 1:], alone)


@pytest.mark.parametrize("quantise", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_advancing_is_reading(cell: Cell, quantise: bool) -> None:
    model = network(cell, quantise=quantise)
    for steps, lanes in ((1, 1), (300, 1), (40, 6)):
        symbols = random_symbols(steps, lanes)
        logits, state = model.advance(symbols, model.initial_state(lanes))
        expected, expected_state = model.read(symbols, model.initial_state(lanes))
        assert logits.shape == (lanes, 256)
        np.testing.assert_allclose(logits, expected[-1], rtol=0, atol=1e-5)
        np.testing.assert_allclose(state, expected_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_reading_and_stepping_hardly_differ_in_int8(cell: Cell) -> None:
    """They are two graphs, which round in another order: by no more than int8 and float32 differ."""
    model, exact = network(cell, quantise=True), network(cell, quantise=False)
    symbols = random_symbols(300, 1)
    at_once, _ = model.read(symbols, model.initial_state())
    truth, _ = exact.read(symbols, exact.initial_state())
    state, stepped = model.initial_state(), []
    for row in symbols:
        logits, state = model.step(row, state)
        stepped.append(logits)
    assert divergence(truth, np.array(stepped)).mean() < 1e-4
    assert divergence(at_once, np.array(stepped)).mean() < 1e-4
    assert divergence(at_once, np.array(stepped)).max() < 1e-3


@pytest.mark.parametrize("cell", CELLS)
def test_int8_is_near_float32(cell: Cell) -> None:
    quantised, exact = network(cell, quantise=True), network(cell, quantise=False)
    symbols = random_symbols(200, 4)
    served, _ = quantised.read(symbols, quantised.initial_state(4))
    expected, _ = exact.read(symbols, exact.initial_state(4))
    assert divergence(expected, served).mean() < 1e-4


def test_steps_in_many_lanes_keep_no_buffers() -> None:
    model = network(quantise=True)
    symbols = random_symbols(3, 40)
    state = model.initial_state(40)
    for row in symbols:
        logits, state = model.step(row, state)
    expected, _ = model.read(symbols, model.initial_state(40))
    assert divergence(expected[-1], logits).max() < 1e-3


def test_what_a_step_returned_stays_as_it_is() -> None:
    model = network(quantise=True)
    logits, state = model.step(np.array([65]), model.initial_state())
    kept = logits.copy(), state.copy()
    model.step(np.array([66]), state)
    np.testing.assert_array_equal(logits, kept[0])
    np.testing.assert_array_equal(state, kept[1])


def test_a_state_of_other_lanes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a state of shape \(2, 2, 1, 64\) is none for 3 lanes"):
        network(quantise=True).step(np.zeros(3, np.int64), np.zeros((2, 2, 1, 64), np.float32))


def test_threads_share_a_model() -> None:
    model = network(quantise=True)
    texts = [random_symbols(400, 1)[start:] for start in (0, 50, 100, 150)]
    alone = [model.read(text, model.initial_state()) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: model.read(text, model.initial_state()), texts))
    for (logits, state), (expected, expected_state) in zip(together, alone, strict=True):
        np.testing.assert_array_equal(logits, expected)
        np.testing.assert_array_equal(state, expected_state)


def test_threads_step_apart() -> None:
    model = network(quantise=True)
    texts = [random_symbols(400, 1)[start:] for start in (0, 50, 100, 150)]

    def stepped(text: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        state = model.initial_state()
        for row in text:
            _, state = model.step(row, state)
        return state

    alone = [stepped(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(stepped, texts))
    for state, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(state, expected)


def test_a_graph_that_is_none_is_refused() -> None:
    with pytest.raises(ModelError, match="re-export the model"):
        Model(b"not a graph", ModelSpec())


def test_a_graph_of_another_spec_is_refused() -> None:
    spec = ModelSpec(hidden=16, embedding=8)
    graph = build_onnx(random_weights(spec), spec, quantise=True)
    step_graph = build_step_onnx(random_weights(spec), spec)
    for other in (ModelSpec(hidden=32, embedding=8), ModelSpec(hidden=16, embedding=8, layers=1)):
        with pytest.raises(ModelError, match="not those of its spec"):
            Model(graph, other)
        with pytest.raises(ModelError, match="not those of its spec"):
            Model(build_onnx(random_weights(other), other, quantise=True), other, step_graph=step_graph)


def test_serving_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; import lsp_charrnn.model.files, lsp_charrnn.model.step; "
        "print(*({'torch', 'onnx', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
