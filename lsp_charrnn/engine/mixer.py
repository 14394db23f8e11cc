r"""One prediction from several: the model's, and what the open document and its project have held after this context.

Each kind of context of each memory is an expert: it expects what has followed the context, in proportion to the counts.
The mixture is a weighted mean of all experts and the model, and a small network, the gate, gives the weights. It sees
how sure each is, and hardly anything of the text: how often the context was there, how many different bytes have
followed, how large the commonest one's share is, how uncertain the model is, and whether a word or a line has just
begun. So one gate, fitted on a few projects (`train.mixing`), serves any; and where a context has never been seen, its
expert has no weight. A mixture of experts
with a gate is Jacobs et al. 1991; what the gate sees is the knowledge that escape estimation in PPM rests on.

What was counted is `memory`'s; how the lanes go on is `decode`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.engine.contexts import KINDS, PLACE, Keys, Lanes
from lsp_charrnn.engine.memory import Counts, look_up
from lsp_charrnn.model.step import Logits
from lsp_charrnn.text.symbols import VOCABULARY

MEMORIES: Final = 2  # the document's, and the project's
CONTEXTS: Final = MEMORIES * KINDS
EXPERTS: Final = 1 + CONTEXTS  # the model comes first
OF_MODEL: Final = 4 + PLACE  # features: of the model, and of the place
OF_CONTEXT: Final = 6
FEATURES: Final = OF_MODEL + OF_CONTEXT * CONTEXTS

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]

_NEVER: Final = np.float32(-1e9)
_LEAST: Final = np.float32(1e-12)


def features(
    place: Floats, entropy: Floats, peak: Floats, totals: Numbers, distinct: Numbers, largest: Numbers
) -> Floats:
    """Return what the gate sees.  # [places, FEATURES]

    Of the place `contexts.surroundings_in`  # [PLACE, places]; of the model's prediction the entropy in bits and the
    largest probability  # [places] each; of each context how
    many bytes have followed it, how many different ones, and how often the commonest  # [CONTEXTS, places] each.
    """
    seen = totals > 0
    share = largest / np.maximum(totals, 1)
    many = np.log1p(totals)
    numbers = np.empty((FEATURES, len(entropy)), dtype=np.float32)
    numbers[:PLACE] = place
    numbers[PLACE:OF_MODEL] = entropy, np.sqrt(entropy), np.log(peak), np.log(np.float32(1.0001) - peak)
    of_contexts = numbers[OF_MODEL:].reshape(OF_CONTEXT, *totals.shape)
    values = seen, many, np.log1p(distinct), share, (seen - share) * many, distinct == 1
    for number, value in zip(of_contexts, values, strict=True):
        number[:] = value
    return numbers.T


def probabilities(logits: Logits) -> Floats:
    """Return the probabilities that `logits` stand for.  # [places, 256] both"""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return np.asarray(odds, dtype=np.float32)


def entropy_of(p: Floats) -> Floats:
    """Return the entropy in bits  # [places] of probabilities  # [places, 256]."""
    return np.asarray(-np.einsum("ps,ps->p", p, np.log2(np.maximum(p, _LEAST))), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Mixer:
    """The gate's weights: one hidden layer of rectified units, and a linear path beside it."""

    hidden: Floats  # [FEATURES, units]
    hidden_bias: Floats  # [units]
    output: Floats  # [units, EXPERTS]
    direct: Floats  # [FEATURES, EXPERTS]
    bias: Floats  # [EXPERTS]

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[np.float32]]) -> Mixer:
        """Return the mixer with these weights, by name. Raises `ValueError` where their shapes don't fit."""
        units = tensors["hidden_bias"].shape[0]
        shapes = {
            "hidden": (FEATURES, units),
            "hidden_bias": (units,),
            "output": (units, EXPERTS),
            "direct": (FEATURES, EXPERTS),
            "bias": (EXPERTS,),
        }
        for name, shape in shapes.items():
            if tensors[name].shape != shape:
                raise ValueError(f"the mixer's {name} has shape {tensors[name].shape}, not {shape}")
        return cls(**{name: tensors[name].astype(np.float32) for name in shapes})

    def weights(self, seen: Floats, experts: npt.NDArray[np.bool_]) -> Floats:
        """Return the weight of each expert  # [places, EXPERTS]

        for what the gate sees  # [places, FEATURES]; those without `experts`  # [places, EXPERTS] get none.
        """
        hidden = seen @ self.hidden
        hidden += self.hidden_bias
        np.maximum(hidden, 0, out=hidden)
        scores = hidden @ self.output
        scores += seen @ self.direct
        scores += self.bias
        np.putmask(scores, ~experts, _NEVER)
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return np.asarray(scores, dtype=np.float32)


@functools.cache
def shipped_mixer() -> Mixer:
    """Return the mixer that comes with the package."""
    from safetensors.numpy import load

    return Mixer.of(load((resources.files(__package__) / "mixer.safetensors").read_bytes()))


def mixed(
    mixer: Mixer,
    memories: tuple[Sequence[Counts], Sequence[Counts]],
    keys: Keys,
    surroundings: Floats,
    logits: Logits,
    *,
    came: npt.NDArray[np.int64] | None = None,
) -> Logits:
    """Return the logarithms of the mixed probabilities at some places  # [places, 256].

    `memories` are the tables of the document's and the project's; `keys`  # [KINDS, places] and `surroundings`
    # [PLACE, places] as `contexts` gives them; the model expects `logits`  # [places, 256]. Where the document's memory
    has counted the places themselves, `came`  # [places] is what stands at each, and is left out there.
    """
    places = len(logits)
    found = look_up(memories, keys.ravel())
    rows, symbols, counts = found.rows, found.symbols, found.counts
    if came is not None:
        counts = counts - ((rows < KINDS * places) & (symbols == came.take(rows % places)))
        left = counts > 0
        rows, symbols, counts = rows[left], symbols[left], counts[left]
    p = probabilities(logits)
    if not len(rows):
        return np.log(np.maximum(p, _LEAST))
    size = CONTEXTS * places
    totals = np.bincount(rows, counts, minlength=size)
    distinct = np.bincount(rows, minlength=size)
    there = distinct > 0
    largest = np.zeros(size)
    largest[there] = np.maximum.reduceat(counts, (distinct.cumsum() - distinct)[there])
    seen = features(
        surroundings,
        entropy_of(p),
        p.max(axis=1),
        totals.reshape(CONTEXTS, places),
        distinct.reshape(CONTEXTS, places),
        largest.reshape(CONTEXTS, places),
    )
    experts = np.ones((EXPERTS, places), dtype=np.bool_)
    experts[1:] = there.reshape(CONTEXTS, places)
    weights = mixer.weights(seen, experts.T)  # [places, EXPERTS]
    p *= weights[:, :1]
    shares = (weights[:, 1:].T.ravel() / np.maximum(totals, 1)).take(rows) * counts
    p += np.bincount((rows % places) * VOCABULARY + symbols, shares, minlength=p.size).reshape(p.shape)
    return np.log(np.maximum(p, _LEAST))


class Mixture:
    """What is expected after the lanes of one decoding, memories included.

    `document` and `project` are the tables of the two memories (`memory.look_up`), `before` the text up to the place
    where decoding begins.
    """

    def __init__(self, mixer: Mixer, document: Sequence[Counts], project: Sequence[Counts], before: bytes) -> None:
        self._mixer = mixer
        self._tables = (document, project)
        self._lanes = Lanes(before)

    def go_on(self, parents: npt.NDArray[np.int64], symbols: npt.NDArray[np.int64]) -> None:
        """Follow the lanes: each goes on from one of the lanes before with a symbol  # [lanes] both."""
        self._lanes.go_on(parents, symbols)

    def expected(self, logits: Logits) -> Logits:
        """Return the logarithms of the mixed probabilities, where the model expects `logits`.  # [lanes, 256] both"""
        return mixed(self._mixer, self._tables, self._lanes.keys(), self._lanes.surroundings(), logits)
