"""The network written out gate by gate in numpy: slow, obvious, and the oracle of every faster path.

It computes in the precision of the weights and the state that it is given. The tests hold torch (training) and ONNX
Runtime (serving) against it, and what shows a network from inside takes the gates from here. Nothing that completes
imports it: model.step is some ten times as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.model.spec import Cell, ModelSpec

Array = npt.NDArray[np.floating[Any]]
Weights = Mapping[str, Array]
Gates = dict[str, Array]  # by the names of the equations, each [lanes, hidden]

# What can be seen of a neuron, by the names of the equations; what it gives to others comes first.
SIGNALS: Final[dict[Cell, tuple[str, ...]]] = {
    "lstm": ("h", "c", "i", "f", "o", "g"),
    "peephole": ("h", "c", "i", "f", "o", "g"),
    "coupled": ("h", "c", "i", "f", "o", "g"),
    "gru": ("h", "z", "r", "n"),
    "rnn": ("h",),
}
GATES: Final = frozenset("ifozr")  # from 0 to 1; the cell is anything, and all else is from -1 to 1


def step(weights: Weights, spec: ModelSpec, symbols: npt.NDArray[np.integer[Any]], state: Array) -> tuple[Array, Array]:
    """Read one symbol in each lane.

    `symbols` is [lanes] and `state` [layers, parts, lanes, hidden]; returns the logits [lanes, 256] and the new state.
    """
    logits, after, _ = step_with_gates(weights, spec, symbols, state)
    return logits, after


def step_with_gates(
    weights: Weights, spec: ModelSpec, symbols: npt.NDArray[np.integer[Any]], state: Array
) -> tuple[Array, Array, list[Gates]]:
    """Do as `step` does, and return too what each gate of each layer let through."""
    x = weights["embedding.weight"][symbols]  # [lanes, embedding]
    after = np.empty_like(state)
    gates: list[Gates] = []
    outputs: list[Array] = []
    for layer in range(spec.layers):
        new_state, layer_gates = _CELLS[spec.cell](_of_layer(weights, layer), x, state[layer][0], state[layer])
        after[layer] = new_state
        gates.append(layer_gates)
        x = after[layer, 0]  # what goes up is the hidden state, in every cell
        outputs.append(x)
    features = np.concatenate(outputs, axis=1) if spec.skip else x  # [lanes, output_inputs]
    logits = features @ weights["output.weight"].T + weights["output.bias"]
    return logits, after, gates


def neurons_gates(weights: Weights, spec: ModelSpec, layer: int, neurons: slice, x: Array, state: Array) -> Gates:
    """Return what the gates of some neurons of a layer let through at one symbol in each lane, each [lanes, neurons].

    `x` [lanes, inputs] is what the layer reads, and `state` [parts, lanes, hidden] that of the whole layer before. A
    neuron hangs on its own rows of the weights alone: those of the others are not looked at.
    """
    own = {}
    for name, weight in _of_layer(weights, layer).items():
        if name == "peephole":
            own[name] = weight[:, neurons]
        else:  # rows [gates * hidden, …]
            rest = weight.shape[1:]
            own[name] = weight.reshape(-1, spec.hidden, *rest)[:, neurons].reshape(-1, *rest)
    return _CELLS[spec.cell](own, x, state[0], state[:, :, neurons])[1]


def signals(spec: ModelSpec, state: Array, gates: Sequence[Gates]) -> Array:
    """Return all `SIGNALS` of the cell after a step  # [signals, layers, lanes, hidden]."""
    of_state = {"h": 0, "c": 1}
    return np.stack(
        [
            state[:, of_state[name]] if name in of_state else np.stack([layer[name] for layer in gates])
            for name in SIGNALS[spec.cell]
        ]
    )


def read(weights: Weights, spec: ModelSpec, symbols: npt.NDArray[np.integer[Any]], state: Array) -> tuple[Array, Array]:
    """Read `symbols` [time, lanes] step by step; return the logits after each [time, lanes, 256] and the state."""
    logits = []
    for row in symbols:
        one, state = step(weights, spec, row, state)
        logits.append(one)
    return np.stack(logits), state


def _of_layer(weights: Weights, layer: int) -> dict[str, Array]:
    prefix = f"layers.{layer}."
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


# A cell takes the hidden states `h` of its whole layer, and the `state` [parts, lanes, neurons] of those neurons that
# its weights are of: all of them, or some.


def _lstm(weights: Weights, x: Array, h: Array, state: Array) -> tuple[Array, Gates]:
    """Long short-term memory (Hochreiter & Schmidhuber 1997), with the forget gate of Gers et al. 2000.

    i = σ(W_i x + R_i h + b_i)    f = σ(W_f x + R_f h + b_f)    g = tanh(W_g x + R_g h + b_g)
    o = σ(W_o x + R_o h + b_o)    c' = f * c + i * g            h' = o * tanh(c')
    """
    _, c = state
    z_i, z_f, z_g, z_o = _sums(weights, x, h, gates=4)
    i = _sigmoid(z_i)
    f = _sigmoid(z_f)
    g = np.tanh(z_g)
    o = _sigmoid(z_o)
    c = f * c + i * g
    h = o * np.tanh(c)
    return np.stack([h, c]), {"i": i, "f": f, "g": g, "o": o}


def _peephole(weights: Weights, x: Array, h: Array, state: Array) -> tuple[Array, Gates]:
    """LSTM whose gates see the cell (Gers & Schmidhuber 2000, "Recurrent nets that time and count").

    As the LSTM, but i and f add p_i * c and p_f * c to their sums, and o, which acts last, p_o * c'.
    """
    _, c = state
    p_i, p_f, p_o = weights["peephole"]
    z_i, z_f, z_g, z_o = _sums(weights, x, h, gates=4)
    i = _sigmoid(z_i + p_i * c)
    f = _sigmoid(z_f + p_f * c)
    g = np.tanh(z_g)
    c = f * c + i * g
    o = _sigmoid(z_o + p_o * c)
    h = o * np.tanh(c)
    return np.stack([h, c]), {"i": i, "f": f, "g": g, "o": o}


def _coupled(weights: Weights, x: Array, h: Array, state: Array) -> tuple[Array, Gates]:
    """LSTM that forgets as much as it takes in: f = 1 - i (CIFG in Greff et al. 2017, "A search space odyssey")."""
    _, c = state
    z_i, z_g, z_o = _sums(weights, x, h, gates=3)
    i = _sigmoid(z_i)
    f = 1 - i
    g = np.tanh(z_g)
    o = _sigmoid(z_o)
    c = f * c + i * g
    h = o * np.tanh(c)
    return np.stack([h, c]), {"i": i, "f": f, "g": g, "o": o}


def _gru(weights: Weights, x: Array, h: Array, state: Array) -> tuple[Array, Gates]:
    """Gated recurrent unit (Cho et al. 2014), with the reset after the product, as torch and cuDNN have it.

    r = σ(W_r x + b_r + R_r h + d_r)    n = tanh(W_n x + b_n + r * (R_n h + d_n))
    z = σ(W_z x + b_z + R_z h + d_z)    h' = (1 - z) * n + z * h
    """
    (before,) = state
    w_r, w_z, w_n = np.split(x @ weights["input_weight"].T + weights["bias"], 3, axis=1)
    u_r, u_z, u_n = np.split(h @ weights["recurrent_weight"].T + weights["recurrent_bias"], 3, axis=1)
    r = _sigmoid(w_r + u_r)
    z = _sigmoid(w_z + u_z)
    n = np.tanh(w_n + r * u_n)
    h = (1 - z) * n + z * before
    return h[None], {"r": r, "z": z, "n": n}


def _rnn(weights: Weights, x: Array, h: Array, state: Array) -> tuple[Array, Gates]:
    """The simple recurrent network (Elman 1990): h' = tanh(W x + R h + b). It has no gates."""
    (z,) = _sums(weights, x, h, gates=1)
    return np.tanh(z)[None], {}


_CELLS: Final[dict[Cell, Callable[[Weights, Array, Array, Array], tuple[Array, Gates]]]] = {
    "lstm": _lstm,
    "peephole": _peephole,
    "coupled": _coupled,
    "gru": _gru,
    "rnn": _rnn,
}


def _sums(weights: Weights, x: Array, h: Array, *, gates: int) -> list[Array]:
    """Return W x + R h + b of each gate, each [lanes, hidden]."""
    sums = x @ weights["input_weight"].T + h @ weights["recurrent_weight"].T + weights["bias"]
    return np.split(sums, gates, axis=1)


def _sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), written so that no large negative x overflows."""
    half: Array = np.tanh(x / 2)
    return (half + 1) / 2
