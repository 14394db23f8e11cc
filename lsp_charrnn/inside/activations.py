"""What a network does along a text: hidden and cell of every neuron, its gates, and what is expected next.

It is read by the numpy reference, symbol by symbol, from START and the header on: slow, and right for every cell. What
is served is the same network in int8; its states differ from these by what int8 rounds. What is made of the numbers is
left to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.engine.mixer import probabilities
from lsp_charrnn.model import reference
from lsp_charrnn.model.reference import SIGNALS
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import VOCABULARY, to_symbols

Floats = npt.NDArray[np.float32]
Weights = Mapping[str, npt.NDArray[np.float32]]

_PIECE: Final = 512  # symbols read between two pieces


@dataclass(frozen=True, eq=False)
class Piece:
    """Some places of a text, one after another."""

    start: int  # the first place's index in the text
    signals: Floats  # [signals, layers, places, hidden], after the symbol at each place was read
    expected: Floats  # [places, 256], the probabilities of the symbol at each place, before it was read
    following: Floats  # [places, 256], those of the symbol behind each place


def read_activations(weights: Weights, spec: ModelSpec, head: bytes, text: bytes, *, first: int = 0) -> Iterator[Piece]:
    """Yield the places of `text` from `first` on, read behind `head`, in pieces."""
    state = np.zeros((spec.layers, spec.parts, 1, spec.hidden), dtype=np.float32)
    expected: Floats = np.full(
        VOCABULARY, 1 / VOCABULARY, dtype=np.float32
    )  # of the very first symbol nothing is known
    for symbol in to_symbols(head + text[:first]):
        logits, state = reference.step(weights, spec, symbol[None], state)
        expected = probabilities(logits)[0]
    for start in range(first, len(text), _PIECE):
        symbols = to_symbols(text[start : start + _PIECE])
        signals = np.empty((len(SIGNALS[spec.cell]), spec.layers, len(symbols), spec.hidden), dtype=np.float32)
        before = np.empty((len(symbols), VOCABULARY), dtype=np.float32)
        behind = np.empty_like(before)
        for place, symbol in enumerate(symbols):
            logits, state, gates = reference.step_with_gates(weights, spec, symbol[None], state)
            before[place], expected = expected, probabilities(logits)[0]
            behind[place] = expected
            signals[:, :, place] = reference.signals(spec, state, gates)[:, :, 0]
        yield Piece(start, signals, before, behind)


def read_all(
    weights: Weights,
    spec: ModelSpec,
    head: bytes,
    text: bytes,
    *,
    progress: Callable[[int], None] | None = None,
    keep: npt.DTypeLike = np.float32,
) -> Piece:
    """Return all places of `text` as one piece, the signals as `keep`; `progress` gets the number of places read."""
    signals = np.empty((len(SIGNALS[spec.cell]), spec.layers, len(text), spec.hidden), dtype=keep)
    expected = np.empty((len(text), VOCABULARY), dtype=np.float32)
    following = np.empty_like(expected)
    for piece in read_activations(weights, spec, head, text):
        places = slice(piece.start, piece.start + len(piece.expected))
        signals[:, :, places] = piece.signals
        expected[places], following[places] = piece.expected, piece.following
        if progress is not None:
            progress(places.stop)
    return Piece(0, signals, expected, following)


def surprise(expected: Floats, text: bytes) -> npt.NDArray[np.float64]:
    """Return what each byte of `text` cost in bits  # [places], where `expected`  # [places, 256] were its odds."""
    given = expected[np.arange(len(text)), to_symbols(text)]
    return np.asarray(-np.log2(given.astype(np.float64).clip(min=1e-12)))
