"""The fast path: stepping is reading, state is a value, lanes are separate; and what int8 makes only nearly so."""

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
from lsp_charrnn.train.export import build_onnx


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, 0.5 if len(shape) == 1 else shape[-1] ** -0.5, shape).astype(np.float32)
        * (4 if name == "embedding.weight" else 1)
        for name, shape in spec.shapes().items()
    }


def network(cell: Cell = "lstm", *, quantise: bool, layers: int = 2, skip: bool = True) -> Model:
    spec = ModelSpec(cell=cell, layers=layers, hidden=64, embedding=32, skip=skip)
    return Model(build_onnx(random_weights(spec), spec, quantise=quantise), spec)


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


def test_lanes_hardly_influence_each_other_in_int8() -> None:
    """They do, a little: ONNX Runtime rounds the activations of all lanes on one grid, whose step is theirs together.

    The effect is bounded by what rounding costs anyhow, which the second assertion states: lanes against a lane alone
    differ no more than int8 and float32 do.
    """
    model, exact = network(quantise=True), network(quantise=False)
    symbols = random_symbols(200, 8)
    together, alone, truth = [], [], []
    state, single, float_state = model.initial_state(8), model.initial_state(1), exact.initial_state(1)
    for row in symbols:
        logits, state = model.step(row, state)
        together.append(logits[0])
        logits, single = model.step(row[:1], single)
        alone.append(logits[0])
        logits, float_state = exact.step(row[:1], float_state)
        truth.append(logits[0])
    influence = divergence(np.array(alone), np.array(together))
    rounding = divergence(np.array(truth), np.array(alone))
    assert influence.mean() < 0.001
    assert influence.mean() < 2 * rounding.mean()
    assert influence.max() < 0.01


def test_reading_and_stepping_hardly_differ_in_int8() -> None:
    """As with lanes: a piece that is read at once shares one grid for its inputs and its outputs."""
    model = network(quantise=True)
    symbols = random_symbols(300, 1)
    at_once, _ = model.read(symbols, model.initial_state())
    state, stepped = model.initial_state(), []
    for row in symbols:
        logits, state = model.step(row, state)
        stepped.append(logits)
    difference = divergence(at_once, np.array(stepped))
    assert difference.mean() < 0.001
    assert difference.max() < 0.01


@pytest.mark.parametrize("cell", CELLS)
def test_int8_is_near_float32(cell: Cell) -> None:
    quantised, exact = network(cell, quantise=True), network(cell, quantise=False)
    symbols = random_symbols(200, 4)
    served, _ = quantised.read(symbols, quantised.initial_state(4))
    expected, _ = exact.read(symbols, exact.initial_state(4))
    assert divergence(expected, served).mean() < 0.005


def test_threads_share_a_model() -> None:
    model = network(quantise=True)
    texts = [random_symbols(400, 1)[start:] for start in (0, 50, 100, 150)]
    alone = [model.read(text, model.initial_state()) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: model.read(text, model.initial_state()), texts))
    for (logits, state), (expected, expected_state) in zip(together, alone, strict=True):
        np.testing.assert_array_equal(logits, expected)
        np.testing.assert_array_equal(state, expected_state)


def test_a_graph_that_is_none_is_refused() -> None:
    with pytest.raises(ModelError, match="re-export the model"):
        Model(b"not a graph", ModelSpec())


def test_a_graph_of_another_spec_is_refused() -> None:
    spec = ModelSpec(hidden=16, embedding=8)
    graph = build_onnx(random_weights(spec), spec, quantise=True)
    for other in (ModelSpec(hidden=32, embedding=8), ModelSpec(hidden=16, embedding=8, layers=1)):
        with pytest.raises(ModelError, match="not those of its spec"):
            Model(graph, other)


def test_serving_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; import lsp_charrnn.model.files, lsp_charrnn.model.step; "
        "print(*({'torch', 'onnx', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
