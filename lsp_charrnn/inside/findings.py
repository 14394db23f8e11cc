"""What a small network has learned of a toy task, and which of its neurons know it.

By the numpy reference alone, on any weights: how many lines it ends rightly, by size; how well each neuron follows what
is to be kept in mind; how much is lost without that neuron. Learning is left to `learning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.inside.toys import Symbols, Text, Toy, padded, write
from lsp_charrnn.model import reference
from lsp_charrnn.model.reference import Array, Weights
from lsp_charrnn.model.spec import ModelSpec

_LINES: Final = 200  # that the sizes of training are judged by, together
_LINES_BEYOND: Final = 20  # of each size beyond


@dataclass(frozen=True)
class Neuron:
    """A neuron, and what it has to do with the task."""

    number: int  # from 0
    follows: str  # what of the task's tracks it follows best
    correlation: float  # with that (Pearson): of its cell, or of its hidden state in a network without cells
    without: float  # share of the lines that are right, in the range of training, with this neuron held at its mean
    gates: dict[str, dict[str, float]]  # by character, then gate: its mean after reading that character


@dataclass(frozen=True)
class Finding:
    """What a network does on a task."""

    task: str
    cell: str
    hidden: int
    right: dict[int, float]  # share of the lines that are right, by size
    in_range: float  # over the sizes of training
    exact_to: int  # the size up to which not one line is wrong, from the smallest on; 0: there is none
    neurons: tuple[Neuron, ...]  # the one that follows best, first

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Traces:
    """All that happens in a network of one layer while it reads."""

    states: Array  # [time, parts, lanes, hidden], after each symbol
    gates: dict[str, Array]  # by name, each [time, lanes, hidden]
    logits: Array  # [time, lanes, 256]

    @property
    def memory(self) -> Array:
        """What is handed on: the cell, or the hidden state in a network without cells.  # [time, lanes, hidden]"""
        return self.states[:, -1]


def traces(
    weights: Weights, spec: ModelSpec, symbols: Symbols, held: tuple[int, npt.NDArray[np.floating[Any]]] | None = None
) -> Traces:
    """Read `symbols` [time, lanes] from the beginning. `held` is a neuron and the values it is held at, [parts]."""
    lanes = symbols.shape[1]
    state = np.zeros((1, spec.parts, lanes, spec.hidden), dtype=weights["output.bias"].dtype)
    if held is not None:
        neuron, values = held
        # The output reads the hidden state as it comes out of the cell: there the neuron is a constant.
        output = weights["output.weight"].copy()
        bias = weights["output.bias"] + values[0] * output[:, neuron]
        output[:, neuron] = 0
        weights = {**weights, "output.weight": output, "output.bias": bias}
    states, all_gates, logits = [], [], []
    for row in symbols:
        if held is not None:
            state[0, :, :, neuron] = values[:, None]
        after, state, gates = reference.step_with_gates(weights, spec, row, state)
        states.append(state[0])
        all_gates.append(gates[0])
        logits.append(after)
    by_name = {name: np.stack([gates[name] for gates in all_gates]) for name in all_gates[0]}
    return Traces(np.stack(states), by_name, np.stack(logits))


def right(texts: Sequence[Text], logits: Array) -> npt.NDArray[np.bool_]:
    """Say which of the texts the network would end rightly by itself, always writing the likeliest.  # [lanes]

    `logits` are those after each symbol of the right text. If the likeliest is right at every place of the answer, it
    is the answer that would be written; if it is wrong anywhere, it is not.
    """
    likeliest = logits.argmax(axis=2)
    return np.array(
        [
            bytes(likeliest[text.answer - 1 : len(text.symbols) - 1, lane].astype(np.uint8)) == text.last.answer
            for lane, text in enumerate(texts)
        ]
    )


def judge(toy: Toy, weights: Weights, spec: ModelSpec, *, seed: int) -> Finding:
    """Look at a network of one layer that has learned a task.

    The lines are drawn by `seed`, half of them the first of their document and half the second. A text that was
    learned from may well be among them where there are few: ten lines are all that the counter has.
    """
    random = np.random.default_rng((seed, 1))
    each = _LINES // len(toy.trained)
    known = [write(toy, random, size, before=n % 2) for size in toy.trained for n in range(each)]
    far = [write(toy, random, size, before=n % 2) for size in toy.beyond for n in range(_LINES_BEYOND)]
    seen = traces(weights, spec, padded(known))
    inside = right(known, seen.logits)
    beyond = right(far, traces(weights, spec, padded(far)).logits)
    by_size = dict(zip(toy.trained, inside.reshape(-1, each).mean(axis=1), strict=True))
    by_size |= dict(zip(toy.beyond, beyond.reshape(-1, _LINES_BEYOND).mean(axis=1), strict=True))
    exact_to = 0
    for size, share in by_size.items():
        if share < 1:
            break
        exact_to = size
    return Finding(
        task=toy.name,
        cell=spec.cell,
        hidden=spec.hidden,
        right={size: round(float(share), 4) for size, share in by_size.items()},
        in_range=round(float(inside.mean()), 4),
        exact_to=exact_to,
        neurons=neurons_of(toy, weights, spec, known, seen),
    )


def neurons_of(toy: Toy, weights: Weights, spec: ModelSpec, texts: Sequence[Text], seen: Traces) -> tuple[Neuron, ...]:
    """Return a network's neurons, the one first that follows best what the task wants kept in mind.

    `seen` is what happened while it read `texts`.
    """
    places = [(text.line + place, lane) for lane, text in enumerate(texts) for place in range(len(text.last.text))]
    time, lane = np.array(places).T
    memory = seen.memory[time, lane]  # [places, hidden]
    gates = {name: values[time, lane] for name, values in seen.gates.items()}
    characters = np.array([text.symbols[at] for text, at in zip((texts[n] for n in lane), time, strict=True)])
    tracks = [toy.tracks(text.last) for text in texts]
    by_track = {name: correlations(memory, np.concatenate([track[name] for track in tracks])) for name in tracks[0]}
    means = seen.states[time, :, lane].mean(axis=0)  # [parts, hidden]
    found = []
    for number in range(spec.hidden):
        follows = max(by_track, key=lambda name: abs(by_track[name][number]))
        without = right(texts, traces(weights, spec, padded(texts), held=(number, means[:, number])).logits)
        found.append(
            Neuron(
                number=number,
                follows=follows,
                correlation=round(float(by_track[follows][number]), 3),
                without=round(float(without.mean()), 4),
                gates={
                    chr(character): {
                        name: round(float(values[characters == character, number].mean()), 3)
                        for name, values in gates.items()
                    }
                    for character in np.unique(characters)
                },
            )
        )
    return tuple(sorted(found, key=lambda neuron: -abs(neuron.correlation)))


def correlations(values: Array, track: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return Pearson's correlation of each column of `values` [places, hidden] with `track` [places], where it is set.

    A column that never changes follows nothing: 0.
    """
    there = ~np.isnan(track)
    columns = values[there].astype(np.float64)
    columns -= columns.mean(axis=0)
    wanted = track[there] - track[there].mean()
    norms = np.sqrt((columns**2).sum(axis=0) * (wanted**2).sum())
    together: npt.NDArray[np.float64] = np.divide(
        columns.T @ wanted, norms, out=np.zeros(columns.shape[1]), where=norms > 1e-12
    )
    return together
