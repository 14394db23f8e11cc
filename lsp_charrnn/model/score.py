"""What documents cost a network in bits: the one measure that training, export and evaluation share.

Each document is read from START and its header with zero state; every byte of its text is predicted from all that
precede it, over the whole vocabulary, and costs -log2 of the probability it was given. The symbols of the header
are read and not counted, and neither is the end of the document. Which documents, and what is made of the figures,
is left to others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from lsp_charrnn.model.step import Logits, State, Symbols
from lsp_charrnn.text.symbols import to_symbols

LANES: Final = 16  # the more documents are read at once, the better the weights are used; past this it gains little
_PIECE: Final = 256  # symbols read in one call: bounds the logits' memory to _PIECE * LANES * 1 kB


class Predictor(Protocol):
    """What is measured: a `model.step.Model`, or anything that reads symbols and predicts the next one."""

    def initial_state(self, lanes: int = 1) -> State:
        """Return the state before anything is read.  # [layers, parts, lanes, hidden]"""

    def read(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        """Read `symbols`  # [time, lanes]; return logits  # [time, lanes, 256] and the state after."""


def bits_of_documents(
    model: Predictor,
    documents: Sequence[tuple[bytes, bytes]],
    *,
    lanes: int = LANES,
    progress: Callable[[int], None] | None = None,
) -> list[float]:
    """Return what the text of each (header, text) costs in bits, in their order.

    `progress` is called with the number of bytes of text that have been predicted so far.
    """
    # Longest first: the documents of a batch end at about the same time, and the lanes that end are the last ones.
    order = sorted(range(len(documents)), key=lambda index: -len(documents[index][0] + documents[index][1]))
    costs = [0.0] * len(documents)
    done = 0
    for first in range(0, len(order), lanes):
        batch = order[first : first + lanes]
        for index, cost in zip(batch, _read_batch(model, [documents[index] for index in batch]), strict=True):
            costs[index] = cost
            done += len(documents[index][1])
        if progress is not None:
            progress(done)
    return costs


def _read_batch(model: Predictor, documents: Sequence[tuple[bytes, bytes]]) -> list[float]:
    """Return the cost of each document; the longest comes first."""
    symbols = [to_symbols(head + text) for head, text in documents]
    costs = np.zeros(len(documents))
    state = model.initial_state(len(documents))
    for start in range(0, len(symbols[0]) - 1, _PIECE):
        alive = sum(len(line) - 1 > start for line in symbols)
        if alive < state.shape[2]:
            state = np.ascontiguousarray(state[:, :, :alive])
        steps = min(_PIECE, len(symbols[0]) - 1 - start)
        read = np.zeros((steps, alive), dtype=np.int64)
        expected = np.zeros_like(read)
        counted = np.zeros((steps, alive), dtype=bool)
        for lane in range(alive):
            piece = symbols[lane][start : start + steps + 1]
            read[: len(piece) - 1, lane] = piece[:-1]
            expected[: len(piece) - 1, lane] = piece[1:]
            text = len(documents[lane][0])  # where it begins
            counted[: len(piece) - 1, lane] = np.arange(start + 1, start + len(piece)) >= text
        logits, state = model.read(read, state)
        costs[:alive] += np.where(counted, _bits(logits, expected), 0.0).sum(axis=0)
    return [float(cost) for cost in costs]


def _bits(logits: Logits, expected: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return -log2 of the probability of each expected symbol.  # [time, lanes]"""
    shifted = logits - logits.max(axis=-1, keepdims=True)  # [time, lanes, 256]
    log_sum = np.log(np.exp(shifted).sum(axis=-1, dtype=np.float64))
    chosen = np.take_along_axis(shifted, expected[..., None], axis=-1)[..., 0]
    return np.asarray((log_sum - chosen) / np.log(2.0))
