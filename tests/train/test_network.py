"""The network in torch against the reference in numpy and the exported graph: one mathematics, three times."""

import numpy as np
import pytest
import torch

from lsp_charrnn.errors import ModelError
from lsp_charrnn.model import reference
from lsp_charrnn.model.spec import CELLS, ModelSpec
from lsp_charrnn.model.step import Model
from lsp_charrnn.train.export import build_onnx
from lsp_charrnn.train.network import CharRnn

SPECS = [ModelSpec(cell, layers=2, hidden=24, embedding=12, skip=skip) for cell in CELLS for skip in (True, False)]
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.cell}{'-skip' * spec.skip}")


def a_network(spec):
    """Every weight is random: the zeros of the initialisation (biases, peepholes) would hide a mix-up.

    The matrices are small enough that no cell is chaotic, or rounding alone would part two equal networks.
    """
    torch.manual_seed(1)
    network = CharRnn(spec)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.6 * spec.hidden**-0.5)
        for name, parameter in network.named_parameters():
            if "bias" in name or "peephole" in name or "embedding" in name:
                parameter.normal_(std=0.5)
    return network


def some_symbols(steps, lanes):
    return np.random.default_rng(2).integers(0, 256, (steps, lanes))


def a_state(spec, lanes):
    shape = (spec.layers, spec.parts, lanes, spec.hidden)
    return np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)


@every_spec
def test_torch_reference_and_onnx_agree_over_200_steps(spec):
    network, symbols, state = a_network(spec), some_symbols(200, 3), a_state(spec, 3)
    weights = network.to_weights()
    with torch.no_grad():
        logits, after = network(torch.from_numpy(symbols), torch.from_numpy(state))
    double = {name: value.astype(np.float64) for name, value in weights.items()}
    expected_logits, expected_state = reference.read(double, spec, symbols, state.astype(np.float64))
    np.testing.assert_allclose(logits.numpy(), expected_logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(after.numpy(), expected_state, atol=1e-4, rtol=0)
    served_logits, served_state = Model(build_onnx(weights, spec, quantise=False), spec).read(symbols, state)
    np.testing.assert_allclose(served_logits, expected_logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(served_state, expected_state, atol=1e-4, rtol=0)


@every_spec
def test_weights_leave_by_the_names_of_the_spec_and_come_back(spec):
    network, symbols = a_network(spec), torch.from_numpy(some_symbols(20, 2))
    weights = network.to_weights()
    assert {name: value.shape for name, value in weights.items()} == spec.shapes()
    assert list(weights) == list(spec.shapes())
    other = CharRnn(spec)
    other.load_weights(weights)
    with torch.no_grad():
        there, back = (net(symbols, net.initial_state(2))[0] for net in (network, other))
    torch.testing.assert_close(there, back, atol=1e-5, rtol=0)  # two biases of torch's have become one
    assert all((value == weights[name]).all() for name, value in other.to_weights().items())


@pytest.mark.parametrize("cell", CELLS)
def test_one_long_sequence_is_the_same_in_pieces(cell):
    spec = ModelSpec(cell, layers=2, hidden=24, embedding=12)
    network, symbols = a_network(spec), torch.from_numpy(some_symbols(120, 2))
    with torch.no_grad():
        whole, last = network(symbols, network.initial_state(2))
        pieces, state = [], network.initial_state(2)
        for piece in symbols.split([1, 1, 7, 31, 64, 16]):
            logits, state = network(piece, state)
            pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces), whole, atol=2e-6, rtol=0)
    torch.testing.assert_close(state, last, atol=2e-6, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_lanes_do_not_disturb_each_other(cell):
    spec = ModelSpec(cell, layers=2, hidden=24, embedding=12)
    network, symbols = a_network(spec), torch.from_numpy(some_symbols(50, 4))
    with torch.no_grad():
        together, _ = network(symbols, network.initial_state(4))
        alone, _ = network(symbols[:, 2:3], network.initial_state(1))
    torch.testing.assert_close(together[:, 2:3], alone, atol=2e-6, rtol=0)


@pytest.mark.parametrize("cell", ["peephole", "coupled"])
def test_the_unrolled_cells_have_the_gradients_of_finite_differences(cell):
    """`CharRnn` computes gates in float32, which is too coarse for differences: a few weights, a large step."""
    spec = ModelSpec(cell, layers=1, hidden=6, embedding=4)
    network, symbols = a_network(spec), torch.from_numpy(some_symbols(12, 2))

    def loss():
        logits, _ = network(symbols, network.initial_state(2))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), symbols.flatten())

    loss().backward()
    for name, parameter in network.layers[0].named_parameters():
        flat, at = parameter.data.view(-1), int(parameter.grad.abs().argmax())
        before = flat[at].item()
        with torch.no_grad():
            flat[at] = before + 1e-2
            above = loss().item()
            flat[at] = before - 1e-2
            below = loss().item()
            flat[at] = before
        assert (above - below) / 2e-2 == pytest.approx(parameter.grad.view(-1)[at].item(), rel=0.02, abs=2e-4), name


def test_forget_gates_begin_open():
    for cell, rows in (("lstm", slice(8, 16)), ("peephole", slice(8, 16))):
        weights = CharRnn(ModelSpec(cell, layers=1, hidden=8, embedding=4)).to_weights()
        assert (weights["layers.0.bias"][rows] == 1).all()
        assert (np.delete(weights["layers.0.bias"], np.r_[rows]) == 0).all()
    coupled = CharRnn(ModelSpec("coupled", layers=1, hidden=8, embedding=4)).to_weights()
    assert (coupled["layers.0.bias"][:8] == -1).all()


def test_weights_that_do_not_fit_are_refused_by_name():
    spec = ModelSpec("lstm", layers=1, hidden=8, embedding=4)
    weights = CharRnn(spec).to_weights()
    with pytest.raises(ModelError, match=r"'layers.0.bias' is missing"):
        CharRnn(spec).load_weights({name: value for name, value in weights.items() if name != "layers.0.bias"})
    with pytest.raises(ModelError, match=r"'output.bias' is of shape \[3\], the spec wants \[256\]"):
        CharRnn(spec).load_weights({**weights, "output.bias": np.zeros(3)})
