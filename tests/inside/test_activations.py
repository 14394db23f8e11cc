"""What is read of a network along a text is what the reference computes."""

from __future__ import annotations

import numpy as np
import pytest
from networks import random_network

from lsp_charrnn.inside.activations import read_activations, read_all, surprise
from lsp_charrnn.model import reference
from lsp_charrnn.model.reference import GATES, SIGNALS
from lsp_charrnn.model.spec import CELLS, Cell
from lsp_charrnn.text.symbols import header, to_symbols

HEAD = header("a.py")
TEXT = b"def f(x):\n    return x\n" * 30  # longer than a piece


@pytest.mark.parametrize("cell", CELLS)
def test_every_signal_is_the_references(cell: Cell) -> None:
    weights, spec = random_network(cell)
    found = read_all(weights, spec, HEAD, TEXT)
    assert found.signals.shape == (len(SIGNALS[cell]), 2, len(TEXT), spec.hidden)
    symbols = to_symbols(HEAD + TEXT)[:, None]
    logits, _ = reference.read(weights, spec, symbols, np.zeros((2, spec.parts, 1, spec.hidden), dtype=np.float32))
    odds = np.exp(logits[:, 0] - logits[:, 0].max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.expected, odds[len(HEAD) - 1 : -1], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.following, odds[len(HEAD) :], rtol=1e-4, atol=1e-7)
    assert surprise(found.expected, TEXT)[5] == pytest.approx(-np.log2(odds[len(HEAD) + 4, TEXT[5]]), rel=1e-3)


@pytest.mark.parametrize("cell", CELLS)
def test_the_gates_make_the_states(cell: Cell) -> None:
    weights, spec = random_network(cell)
    found = dict(zip(SIGNALS[cell], read_all(weights, spec, HEAD, TEXT).signals, strict=True))  # [layers, time, hidden]
    for name, values in found.items():
        assert values.min() >= (0 if name in GATES else -np.inf if name == "c" else -1)
        assert values.max() <= (np.inf if name == "c" else 1)
    if "c" in found:
        made = found["f"][:, 1:] * found["c"][:, :-1] + found["i"][:, 1:] * found["g"][:, 1:]
        np.testing.assert_allclose(found["c"][:, 1:], made, atol=1e-5)
        np.testing.assert_allclose(found["h"], found["o"] * np.tanh(found["c"]), atol=1e-5)
    if cell == "gru":
        made = (1 - found["z"][:, 1:]) * found["n"][:, 1:] + found["z"][:, 1:] * found["h"][:, :-1]
        np.testing.assert_allclose(found["h"][:, 1:], made, atol=1e-5)


def test_a_part_is_the_same_as_in_the_whole() -> None:
    weights, spec = random_network()
    whole = read_all(weights, spec, HEAD, TEXT)
    (part,) = read_activations(weights, spec, HEAD, TEXT[:300], first=200)
    assert part.start == 200
    np.testing.assert_array_equal(part.signals, whole.signals[:, :, 200:300])
    np.testing.assert_array_equal(part.expected, whole.expected[200:300])
