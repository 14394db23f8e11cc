"""One mathematics, three ways: numpy gate by gate (the reference), torch (training), ONNX Runtime (serving)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lsp_charrnn.model import reference
from lsp_charrnn.model.spec import CELLS, Cell, ModelSpec
from lsp_charrnn.model.step import Model
from lsp_charrnn.train.export import build_onnx, build_step_onnx
from lsp_charrnn.train.network import CharRnn

LANES = 3
STEPS = 200
TOLERANCE = 1e-4  # in logits


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Weights large enough to drive every gate through its range, small enough that rounding does not grow."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, 0.5 if len(shape) == 1 else shape[-1] ** -0.5, shape).astype(np.float32)
        * (4 if name == "embedding.weight" else 1)
        for name, shape in spec.shapes().items()
    }


@pytest.mark.parametrize(("layers", "skip"), [(1, True), (1, False), (2, True), (3, False), (3, True)])
@pytest.mark.parametrize("cell", CELLS)
def test_torch_reference_and_onnx_agree(cell: Cell, layers: int, skip: bool) -> None:
    spec = ModelSpec(cell=cell, layers=layers, hidden=48, embedding=32, skip=skip)
    weights = random_weights(spec, seed=layers)
    random = np.random.default_rng(1)
    symbols = random.integers(0, 256, (STEPS, LANES))
    state = random.uniform(-0.9, 0.9, (layers, spec.parts, LANES, spec.hidden)).astype(np.float32)

    expected, expected_state = reference.read(weights, spec, symbols, state)
    assert expected.std() > 0.3  # the gates have something to do

    served, served_state = Model(build_onnx(weights, spec, quantise=False), spec).read(symbols, state)
    np.testing.assert_allclose(served, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(served_state, expected_state, rtol=0, atol=TOLERANCE)

    network = CharRnn(spec)
    network.load_weights(weights)
    with torch.no_grad():
        trained, trained_state = network(torch.from_numpy(symbols), torch.from_numpy(state))
    np.testing.assert_allclose(trained.numpy(), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(trained_state.numpy(), expected_state, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("layers", "skip"), [(1, True), (2, True), (3, False)])
@pytest.mark.parametrize("cell", ["lstm", "peephole", "coupled"])
def test_the_graph_that_steps_is_the_reference_with_rounded_numbers(cell: Cell, layers: int, skip: bool) -> None:
    spec = ModelSpec(cell=cell, layers=layers, hidden=48, embedding=32, skip=skip)
    random = np.random.default_rng(1)
    # Weights of -1, 0 and 1, and hidden states in steps of 1 / 127, are exact in int8: what is left to round, by half
    # of 1 / 127, is what the layers below give in this one step.
    weights = {
        name: random.integers(-1, 2, shape).astype(np.float32) if len(shape) == 2 and "peephole" not in name else value
        for (name, shape), value in zip(spec.shapes().items(), random_weights(spec).values(), strict=True)
    }
    for name in weights:
        if name.endswith("recurrent_weight") or name == "output.weight":
            weights[name] *= random.uniform(size=weights[name].shape) < 0.1  # or every gate would be shut or open
    state = random.uniform(-0.9, 0.9, (layers, spec.parts, LANES, spec.hidden)).astype(np.float32)
    state[:, 0] = np.rint(state[:, 0] * 127) / np.float32(127)
    symbols = random.integers(0, 256, LANES)

    expected, expected_state = reference.step(weights, spec, symbols, state)
    step_graph = build_step_onnx(weights, spec)
    served, served_state = Model(build_onnx(weights, spec, quantise=True), spec, step_graph=step_graph).step(
        symbols, state
    )
    np.testing.assert_allclose(served_state[0], expected_state[0], rtol=0, atol=TOLERANCE)  # nothing rounded below it
    np.testing.assert_allclose(served_state, expected_state, rtol=0, atol=0.05)
    np.testing.assert_allclose(served, expected, rtol=0, atol=0.1)
    assert expected_state.std() > 0.3


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("cell", ["lstm", "peephole", "coupled"])
def test_one_unit_by_hand(cell: Cell) -> None:
    """A network of one unit, against the equations on plain numbers."""
    spec = ModelSpec(cell=cell, layers=1, hidden=1, embedding=1)
    weights = random_weights(spec, seed=5)
    x, h, c = float(weights["embedding.weight"][65, 0]), 0.3, -0.7
    sums = [
        x * float(w) + h * float(r) + float(b)
        for w, r, b in zip(
            weights["layers.0.input_weight"][:, 0],
            weights["layers.0.recurrent_weight"][:, 0],
            weights["layers.0.bias"],
            strict=True,
        )
    ]
    p_i, p_f, p_o = weights["layers.0.peephole"][:, 0].tolist() if cell == "peephole" else (0.0, 0.0, 0.0)
    i = sigmoid(sums[0] + p_i * c)
    f = 1 - i if cell == "coupled" else sigmoid(sums[1] + p_f * c)
    g = math.tanh(sums[-2])
    c = f * c + i * g
    o = sigmoid(sums[-1] + p_o * c)
    h = o * math.tanh(c)

    before = np.array([0.3, -0.7]).reshape(1, 2, 1, 1)
    logits, after, gates = reference.step_with_gates(weights, spec, np.array([65]), before)
    np.testing.assert_allclose(after[0, :, 0, 0], [h, c], rtol=1e-6)
    assert {name: value.item() for name, value in gates[0].items()} == pytest.approx({"i": i, "f": f, "g": g, "o": o})
    np.testing.assert_allclose(logits[0], weights["output.weight"][:, 0] * h + weights["output.bias"], rtol=1e-5)


def test_gates_lie_where_gates_can_lie() -> None:
    for cell in CELLS:
        spec = ModelSpec(cell=cell, layers=2, hidden=8, embedding=4)
        weights = random_weights(spec)
        state = np.zeros((2, spec.parts, 1, 8))
        logits, after, gates = reference.step_with_gates(weights, spec, np.array([1]), state)
        plain, plain_after = reference.step(weights, spec, np.array([1]), state)
        np.testing.assert_array_equal(logits, plain)
        np.testing.assert_array_equal(after, plain_after)
        assert len(gates) == 2
        for name, value in gates[0].items():
            low = -1 if name in "gn" else 0
            assert value.shape == (1, 8)
            assert (value > low).all()
            assert (value < 1).all()


@pytest.mark.parametrize("cell", ["lstm", "coupled"])
def test_gates_are_those_that_torch_differentiates_by(cell: Cell) -> None:
    """∂c'/∂c is the forget gate, h' / tanh(c') the output gate, and what else is in c' has come in: i * g."""
    spec = ModelSpec(cell=cell, layers=1, hidden=48, embedding=32)
    weights = random_weights(spec)
    random = np.random.default_rng(3)
    symbols = random.integers(0, 256, LANES)
    start = random.uniform(-0.9, 0.9, (1, 2, LANES, spec.hidden)).astype(np.float32)
    _, _, (gates,) = reference.step_with_gates(weights, spec, symbols, start)
    network = CharRnn(spec)
    network.load_weights(weights)
    state = torch.from_numpy(start).requires_grad_()
    _, after = network(torch.from_numpy(symbols[None]), state)
    hidden, cell_after = after[0]
    (slope,) = torch.autograd.grad(cell_after.sum(), state)
    forget = slope[0, 1].numpy()
    came = cell_after.detach().numpy() - forget * start[0, 1]
    np.testing.assert_allclose(gates["f"], forget, rtol=0, atol=1e-5)
    np.testing.assert_allclose(gates["i"] * gates["g"], came, rtol=0, atol=1e-5)
    output = (hidden / torch.tanh(cell_after)).detach().numpy()
    np.testing.assert_allclose(gates["o"], output, rtol=0, atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_some_neurons_gates_are_those_of_the_whole_layer(cell: Cell) -> None:
    spec = ModelSpec(cell=cell, layers=2, hidden=48, embedding=32)
    weights = random_weights(spec)
    random = np.random.default_rng(2)
    symbols = random.integers(0, 256, LANES)
    state = random.uniform(-0.9, 0.9, (2, spec.parts, LANES, spec.hidden)).astype(np.float32)
    _, after, gates = reference.step_with_gates(weights, spec, symbols, state)
    for layer, x in enumerate((weights["embedding.weight"][symbols], after[0, 0])):
        for some in (slice(7, 8), slice(None)):
            found = reference.neurons_gates(weights, spec, layer, some, x, state[layer])
            assert found.keys() == gates[layer].keys()
            for name, values in found.items():
                np.testing.assert_allclose(values, gates[layer][name][:, some], rtol=0, atol=1e-6)


def test_a_large_sum_does_not_overflow() -> None:
    spec = ModelSpec(layers=1, hidden=4, embedding=4)
    weights = {name: value * 1e6 for name, value in random_weights(spec).items()}
    with np.errstate(all="raise", under="ignore"):
        logits, _ = reference.step(weights, spec, np.array([1]), np.zeros((1, 2, 1, 4), dtype=np.float32))
    assert np.isfinite(logits).all()
