"""Documents as lanes of windows for truncated backpropagation through time, with state carried between windows.

Each lane reads one document after another. A document starts on a window's border, so a lane's state is reset
between windows and never inside one, and torch's fused layers can be used; its last window is padded.
Where the documents come from and how they are split is left to `train.corpus`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.text.symbols import HEADER_END, START

IGNORED: Final = -100  # a target that does not count: padding, and the header (given, not predicted)

Document = npt.NDArray[np.uint8]  # START, header, HEADER_END, text


@dataclass(frozen=True)
class Window:
    """One step's input. Reading `symbols[t, lane]` should make the network expect `targets[t, lane]`."""

    symbols: npt.NDArray[np.int64]  # [time, lanes]
    targets: npt.NDArray[np.int64]  # [time, lanes], IGNORED where nothing is to be predicted
    fresh: npt.NDArray[np.bool_]  # [lanes], True where a document begins: the state before it is zero


class LaneBatches:
    """An endless, reproducible sequence of windows over `documents`, in a new order each epoch.

    Of the lanes only `own` are read (all, by default), and windows hold no others: so several processes together read
    what one would. `position` and `seek` make it resumable at a window's border, and are of all lanes in each process.
    Raises `CorpusError` for an empty list.
    """

    def __init__(
        self, documents: Sequence[Document], *, lanes: int, bptt: int, seed: int, own: range | None = None
    ) -> None:
        if not documents:
            raise CorpusError("there is no document to train on: give paths that hold source files.")
        self._documents = documents
        self._lanes, self._bptt, self._seed = lanes, bptt, seed
        self._own = range(lanes) if own is None else own
        self._epoch, self._taken = 0, 0  # documents of this epoch handed to lanes
        self._order = self._shuffled(0)
        self._at = np.full((lanes, 2), -1, dtype=np.int64)  # document, offset; -1: none yet

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._documents))

    @property
    def epochs(self) -> float:
        """How often the whole corpus has been read, by documents begun."""
        return self._epoch + self._taken / len(self._documents)

    @property
    def characters(self) -> int:
        """Symbols in one epoch."""
        return sum(len(document) for document in self._documents)

    def position(self) -> npt.NDArray[np.int64]:
        """Return where reading stands, for `seek`.  # [1 + lanes, 2]"""
        return np.concatenate(([[self._epoch, self._taken]], self._at)).astype(np.int64)

    def seek(self, position: npt.NDArray[np.int64]) -> None:
        """Go on from where `position` was taken. Raises `CorpusError` if it belongs to other lanes or documents."""
        if position.shape != (1 + self._lanes, 2) or int(position[1:, 0].max()) >= len(self._documents):
            raise CorpusError(
                "the checkpoint belongs to another corpus or batch: resume with the same paths and flags."
            )
        self._epoch, self._taken = int(position[0, 0]), int(position[0, 1])
        self._order = self._shuffled(self._epoch)
        self._at = position[1:].copy()

    def _next_document(self) -> int:
        if self._taken == len(self._order):
            self._epoch, self._taken = self._epoch + 1, 0
            self._order = self._shuffled(self._epoch)
        self._taken += 1
        return int(self._order[self._taken - 1])

    def next(self) -> Window:
        """Return the own lanes' next window, and move all lanes on by it."""
        time, width = self._bptt, len(self._own)
        symbols = np.zeros((time, width), dtype=np.int64)
        targets = np.full((time, width), IGNORED, dtype=np.int64)
        fresh = np.zeros(width, dtype=np.bool_)
        for lane in range(self._lanes):
            index, start = self._at[lane]
            begins = index < 0 or start >= len(self._documents[index])
            if begins:  # the others' lanes, too, take documents in their turn
                index, start = self._next_document(), 0
            if lane in self._own:
                column = lane - self._own.start
                fresh[column] = begins
                read, expected = window_of(self._documents[index], int(start), time)
                symbols[: len(read), column] = read
                targets[: len(read), column] = expected
            self._at[lane] = index, start + time
        return Window(symbols, targets, fresh)


def window_of(document: Document, start: int, time: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return up to `time` symbols from `start`, and what follows each: START (the end) after the last."""
    read = document[start : start + time].astype(np.int64)
    expected = document[start + 1 : start + time + 1].astype(np.int64)
    if len(expected) < len(read):
        expected = np.append(expected, START)
    header = np.flatnonzero(document[:256] == HEADER_END)  # the header is shorter than that
    text = int(header[0]) + 1 if len(header) else 0
    expected[: max(0, text - 1 - start)] = IGNORED
    return read, expected
