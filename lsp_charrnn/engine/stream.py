r"""The model's state along one document: it reads on as text is typed, and goes back to snapshots when text changes.

The state at an offset is the state after START, the header, and the text before the offset. Snapshots of it
are kept dense for the places completed last (so that backspace costs nothing) and sparse elsewhere, bounded
in number. An edit leaves every snapshot up to its start valid and drops the rest.

Reading is exact by default from the nearest snapshot. A place that lies further than `warm_up` characters past
the nearest one is read from `warm_up` characters before it, from a fresh state: an LSTM forgets, so that
predictions then differ from the exact ones by less than 0.001 bits (design, section 4). No snapshot is kept of
a state that has read less than that: one would be found later, by a place that deserves better. `warm_up=None`
reads everything. Which text the document holds is the session's business; sampling is `decode`'s.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.model.step import Model, State
from lsp_charrnn.text.document import Edit
from lsp_charrnn.text.symbols import normalise, to_symbols

DENSE: Final = 64  # snapshots of the places asked for last: a few dozen keys of backspace
SPARSE: Final = 128  # snapshots along the rest of the text
SPACING: Final = 512  # characters between those, doubled whenever there would be more of them
WARM_UP: Final = 1024  # characters read before a place that is far from any snapshot
PIECE: Final = 64  # characters read between two looks at `cancelled`: about two milliseconds


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The work was given up, because nobody waits for its result any more."""


@dataclass(frozen=True)
class Snapshot:
    """The state after the text before `offset`, and what the model expects next."""

    offset: int
    state: State  # [layers, parts, 1, hidden]
    logits: npt.NDArray[np.float32]  # [256]


def never() -> bool:
    """Nobody cancels."""
    return False


class Stream:
    """Snapshots of `model` along one document whose header is `header`. Used by one thread at a time."""

    def __init__(self, model: Model, header: bytes, *, warm_up: int | None = WARM_UP) -> None:
        self.model = model
        self._warm_up = warm_up
        logits, state = model.read(to_symbols(header)[:, None], model.initial_state())
        self._origin = Snapshot(0, state, logits[-1, 0].copy())
        self._dense: OrderedDict[int, Snapshot] = OrderedDict()  # by offset, least recently used first
        self._sparse: dict[int, Snapshot] = {}
        self._offsets: list[int] = []  # of all snapshots but the origin, ascending
        self._spacing = SPACING
        self._unfinished: tuple[int, Snapshot] | None = None  # a warm-up given up: where it began, how far it got

    def __len__(self) -> int:
        """Return the number of snapshots kept, the origin included."""
        return 1 + len(self._offsets)

    def edit(self, edit: Edit) -> None:
        """Drop what `edit` made untrue: every snapshot past its start."""
        kept = bisect_right(self._offsets, edit.start)
        for offset in self._offsets[kept:]:
            self._dense.pop(offset, None)
            self._sparse.pop(offset, None)
        del self._offsets[kept:]
        if self._unfinished is not None and self._unfinished[1].offset > edit.start:
            self._unfinished = None

    def at(self, data: bytes, offset: int, cancelled: Callable[[], bool] = never) -> Snapshot:
        """Return the snapshot at `offset` of the text `data`, reading as far as needed; it is kept.

        Raises `Cancelled` within a piece of `cancelled` turning true; what was read by then is kept.
        """
        snapshot = self._nearest(offset)
        if snapshot.offset == offset:
            if offset in self._dense:
                self._dense.move_to_end(offset)
            return snapshot
        if self._warm_up is not None and offset - snapshot.offset > 2 * self._warm_up:
            snapshot = self._warmed(data, offset, self._warm_up, cancelled)
        else:
            while snapshot.offset < offset:
                if cancelled():
                    raise Cancelled
                snapshot = self._read(data, snapshot, min(offset, snapshot.offset + PIECE))
                self._keep_sparse(snapshot)
        self._keep_dense(snapshot)
        return snapshot

    def _warmed(self, data: bytes, offset: int, warm_up: int, cancelled: Callable[[], bool]) -> Snapshot:
        """Return the snapshot at `offset`, read from `warm_up` characters before it or from a little further."""
        begin = offset - warm_up
        if self._unfinished is not None and self._unfinished[0] <= begin < self._unfinished[1].offset <= offset:
            begin, snapshot = self._unfinished
        else:
            # Begin between two characters, and never between \r and \n.
            while begin > 0 and (data[begin] & 0xC0 == 0x80 or data[begin - 1 : begin + 1] == b"\r\n"):
                begin -= 1
            snapshot = Snapshot(begin, self._origin.state, self._origin.logits)
        self._unfinished = None
        while snapshot.offset < offset:
            if cancelled():
                self._unfinished = begin, snapshot
                raise Cancelled
            snapshot = self._read(data, snapshot, min(offset, snapshot.offset + PIECE))
        return snapshot

    def _nearest(self, offset: int) -> Snapshot:
        index = bisect_right(self._offsets, offset)
        if index == 0:
            return self._origin
        found = self._offsets[index - 1]
        return self._dense.get(found) or self._sparse[found]

    def _read(self, data: bytes, snapshot: Snapshot, end: int) -> Snapshot:
        after_cr = data[snapshot.offset - 1 : snapshot.offset] == b"\r"
        symbols = to_symbols(normalise(data[snapshot.offset : end], after_cr=after_cr))
        if len(symbols) == 0:  # the \n of a \r\n: read already
            return Snapshot(end, snapshot.state, snapshot.logits)
        logits, state = self.model.read(symbols[:, None], snapshot.state)
        return Snapshot(end, state, logits[-1, 0].copy())

    def _keep_dense(self, snapshot: Snapshot) -> None:
        if snapshot.offset not in self._sparse:
            if snapshot.offset not in self._dense:
                insort(self._offsets, snapshot.offset)
            self._dense[snapshot.offset] = snapshot
            self._dense.move_to_end(snapshot.offset)
        while len(self._dense) > DENSE:
            dropped, _ = self._dense.popitem(last=False)
            self._offsets.remove(dropped)

    def _keep_sparse(self, snapshot: Snapshot) -> None:
        if snapshot.offset in self._dense:
            return
        # None nearer than the spacing on either side: or places asked for backwards would crowd out the rest.
        if any(abs(kept - snapshot.offset) < self._spacing for kept in (0, *self._sparse)):
            return
        self._sparse[snapshot.offset] = snapshot
        insort(self._offsets, snapshot.offset)
        if len(self._sparse) > SPARSE:
            self._spacing *= 2
            for dropped in sorted(self._sparse)[1::2]:
                del self._sparse[dropped]
                self._offsets.remove(dropped)
