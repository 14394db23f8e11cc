r"""The model's state along one document: read on as text is typed, found again after an edit, read ahead in lanes.

The state at an offset is the state after START, the header, and the text before the offset. An LSTM forgets, so three
things are cheap that would otherwise cost a reading of the whole text:

- A place that nobody has read is answered from a *warm-up*: `WARM_UP` characters before it, from a cold start. Within
  a fraction of a second `refine` reads `ENOUGH` of them.
- After an edit the states behind it are kept. One that has read `ENOUGH` characters since is used as it is; and
  `read_around` *re-synchronises*: it reads on from before the edit until it finds the state that was there (`agree`),
  and from there on all is valid again.
- What is unread around the cursor is read in *lanes*: chunks side by side in one batch, each from a warm-up of its own.
  Where one ends and the next begins it is looked whether they agree, and read on until they do: that is the same
  re-synchronisation.

So what is settled predicts what reading the whole text from its start predicts, within 0.01 bits (KL) each and 0.001 in
the mean; the first answer at an unread place, 0.005 in the mean (tests/engine/test_tolerance.py; docs/experiments.md,
"The stream"). An `exact` stream does none of this: it reads on from the nearest state that no edit has touched.

Nothing here is urgent or lazy by itself: the session calls, the worker's flag cancels. Which text the document holds
is the session's business; sampling is `decode`'s; which states are known is `Snapshots`'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.engine.snapshots import EXACT, Snapshot, Snapshots, agree
from lsp_charrnn.model.step import Logits, Model, State
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.symbols import to_symbols

__all__ = ["Cancelled", "Snapshot", "Stream", "never", "symbols_of"]

WARM_UP: Final = 768  # characters read before a place that is far from any snapshot, for the first answer there
ENOUGH: Final = 4096  # characters after which a state has forgotten what it began with
CHUNK_WARM_UP: Final = 1024  # characters that a chunk of a lane is warmed on
CHUNK: Final = (2048, 8192)  # least and most characters of a chunk
LANES: Final = 16  # chunks read side by side: more are no faster (docs/experiments.md, "Reading ahead")
SPACING: Final = 512  # characters between two snapshots
DENSE: Final = 64  # snapshots of the places asked for last: a few dozen keys of backspace
SPARSE: Final = 1440  # other snapshots: 700 kB of text, about 13 MB of memory
PIECE: Final = 32  # characters read between two looks at `cancelled`: about a millisecond
_ROWS: Final = 128  # lanes times characters of a piece: the gates of a piece stay in the cache
_HEAD: Final = 1024  # a cold start begins with the state here: imports and style of this very file
_SLACK: Final = 64  # snapshots left where lanes run on past what was asked for
_LINE: Final = 128  # characters that a cold start may begin earlier, for a line's start


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The work was given up, because nobody waits for its result any more."""


def never() -> bool:
    """Nobody cancels."""
    return False


@dataclass
class _Lane:
    """A reading under way: it goes from stop to stop, and puts snapshots there, or looks at those that are there."""

    begin: int  # the offset where it began
    limit: int  # the offset where it ends at the latest
    state: State  # [layers, parts, 1, hidden]
    logits: Logits  # [256]
    since: int  # as in `Snapshot`
    symbols: npt.NDArray[np.int64]  # from `begin` to `limit`
    ends: npt.NDArray[np.int64]  # offset behind each symbol, less `begin`
    warm: int = 0  # the first stop, if it began cold: what it reads before is worth nothing
    follows: int | None = None  # the offset of the snapshot that it was at last
    left: State | None = None  # that snapshot's state: whether it is still the one that stands there
    read: int = field(default=0)  # symbols
    done: bool = field(default=False)

    @property
    def at(self) -> int:
        r"""The offset it has come to. A `\r\n` is read at the `\r`; a snapshot behind it says that it is past both."""
        at = self.begin + (int(self.ends[self.read - 1]) if self.read else 0)
        return at if self.follows is None else max(at, self.follows)

    def until(self, offset: int) -> int:
        """Return the number of symbols between here and `offset`."""
        return int(self.ends.searchsorted(offset - self.begin, side="right")) - self.read

    def edit(self, edit: Edit) -> None:
        """Follow an edit, or end where it changed what has been read."""
        moved = len(edit.new) - (edit.end - edit.start)
        if edit.start >= self.at:
            self.limit = min(self.limit, edit.start)
        elif edit.end <= (self.begin if self.follows is None else self.follows):
            self.begin += moved
            self.limit += moved
            self.since = self.since + moved if self.since >= edit.end else edit.start + len(edit.new)
            self.warm += moved
            self.follows = None if self.follows is None else self.follows + moved
        else:
            self.done = True


class Stream:
    """The states of `model` along one document whose header is `header`. Used by one thread at a time."""

    def __init__(self, model: Model, header: bytes, *, exact: bool = False) -> None:
        self.model = model
        self.exact = exact
        logits, state = model.advance(to_symbols(header)[:, None], model.initial_state())
        self._snapshots = Snapshots(Snapshot(0, state, logits[0]))
        self._refining: list[_Lane] = []  # at most one
        self._lanes: list[_Lane] = []

    def __len__(self) -> int:
        """Return the number of snapshots kept, the origin included."""
        return len(self._snapshots)

    def edit(self, edit: Edit) -> None:
        """Follow an edit of the text."""
        if edit.start == edit.end and not edit.new:
            return
        if self.exact:
            self._snapshots.drop_past(edit.start)
            return
        self._snapshots.edit(edit)
        for lane in (*self._refining, *self._lanes):
            lane.edit(edit)

    def at(self, document: Document, offset: int, cancelled: Callable[[], bool] = never) -> Snapshot:
        """Return the snapshot at byte `offset` of `document`, reading as far as needed; it is kept.

        Unless the stream is exact no more than `WARM_UP` characters are read. Raises `Cancelled` within a piece of
        `cancelled` turning true; what was read by then is kept.
        """
        while True:
            index = self._base(offset)
            if index is not None and self._snapshots.offsets[index] == offset:
                self._snapshots.touch(index)
                break
            lanes = [
                self._warm(document, offset, offset, WARM_UP) if index is None else self._on(document, index, offset)
            ]
            try:
                self._read(lanes, cancelled)
            except Cancelled:
                (lane,) = lanes
                if self._snapshots.find(lane.at) is None:
                    # Of a warm-up too: what it is worth can be told from its `since`.
                    self._put(lane, lane.at)
                raise
        snapshot = self._snapshots[index]
        self._thin(offset)
        return snapshot

    def adopt(self, start: Snapshot, offset: int, state: State, logits: Logits) -> None:
        """Keep a state at `offset` that decoding went through from `start`: its text has been typed.

        Unless something better than `start` is known there by now: what was decoded from it is no better.
        """
        first, last = self._snapshots.find(start.offset), self._snapshots.last(offset)
        follows = int(self._snapshots.offsets[last])
        if self.exact or first is None or not start.offset <= follows < offset:
            return
        if not agree(self._snapshots[first].state, start.state):
            return
        index = self._snapshots.put(Snapshot(offset, state, logits, self._snapshots.since(last)), follows=follows)
        self._snapshots.touch(index)
        self._thin(offset)

    def is_refined(self, offset: int) -> bool:
        """Return whether the state at `offset`, or the one nearest before it, has read enough to be final."""
        index = self._snapshots.last(offset)
        since = self._snapshots.since(index)
        return offset - self._snapshots.offsets[index] <= WARM_UP and (since == EXACT or offset - since >= ENOUGH)

    def refine(self, document: Document, offset: int, cancelled: Callable[[], bool] = never) -> None:
        """Read `ENOUGH` characters up to `offset`, if that has not been done.

        Raises `Cancelled`; called again, it goes on.
        """
        while not self.exact and not self.is_refined(offset):
            # One that was given up some keys ago is as good; one for another place is not.
            if not any(0 <= offset - lane.limit < WARM_UP for lane in self._refining):
                self._refining = [self._refinement(document, offset)]
            self._read(self._refining, cancelled)
            self._thin(offset)
        self._refining = []

    def read_around(self, document: Document, offset: int, radius: int, cancelled: Callable[[], bool] = never) -> None:
        """Read what is unread within `radius` of `offset`, and re-synchronise what edits have parted, nearest first.

        Raises `Cancelled`; called again, it goes on.
        """
        # Lanes that were given up where nobody is any more must not keep those here waiting.
        self._lanes = [lane for lane in self._lanes if lane.limit > offset - radius and lane.at < offset + radius]
        while not self.exact:
            if not self._lanes:
                self._lanes = self._planned(document, offset, radius)
            if not self._lanes:
                return
            self._read(self._lanes, cancelled)
            self._thin(offset)

    # --- where to read from -------------------------------------------------------------------------------------

    def _base(self, offset: int) -> int | None:
        """Return the index of the snapshot to read on from to `offset`; None for a cold start."""
        snapshots = self._snapshots
        index = snapshots.last(offset)
        if self.exact:
            return index
        best, best_since = None, offset - WARM_UP
        # Within a run all are as good, so the last is the nearest; the run before may know more.
        while index >= 0 and offset - snapshots.offsets[index] <= WARM_UP:
            since = snapshots.since(index)
            if since == EXACT or offset - since >= ENOUGH:
                return index
            if since <= best_since:
                best, best_since = index, since - 1
            index = snapshots.run(index) - 1
        return best

    def _on(self, document: Document, index: int, limit: int) -> _Lane:
        """Return a lane that goes on from a snapshot."""
        snapshot = self._snapshots[index]
        begin = snapshot.offset
        return _Lane(
            begin,
            limit,
            snapshot.state,
            snapshot.logits,
            snapshot.since,
            *symbols_of(document, begin, limit),
            follows=begin,
            left=snapshot.state,
        )

    def _warm(self, document: Document, warm: int, limit: int, warm_up: int) -> _Lane:
        """Return a lane that begins cold, `warm_up` characters before `warm` or at the line's start before that."""
        begin = max(0, warm - warm_up)
        line = document.slice(max(0, begin - _LINE), begin).rfind(b"\n")
        if line >= 0:
            begin = max(0, begin - _LINE) + line + 1
        begin = document.character_start(begin)
        if document.slice(begin - 1, begin + 1) == b"\r\n":
            begin -= 1
        head = self._snapshots[self._snapshots.last(min(_HEAD, begin))]
        return _Lane(begin, limit, head.state, head.logits, begin, *symbols_of(document, begin, limit), warm=warm)

    def _refinement(self, document: Document, offset: int) -> _Lane:
        """Return the lane that makes the state at `offset` final."""
        snapshots = self._snapshots
        index = snapshots.last(offset)
        while index >= 0 and offset - snapshots.offsets[index] <= ENOUGH:
            since = snapshots.since(index)
            if since == EXACT or offset - since >= ENOUGH:
                return self._on(document, index, offset)
            index = snapshots.run(index) - 1
        return self._warm(document, offset - WARM_UP, offset, ENOUGH - WARM_UP)

    def _planned(self, document: Document, offset: int, radius: int) -> list[_Lane]:
        """Return the next batch of lanes: what is unread and what is not linked within `radius`, nearest first."""
        snapshots = self._snapshots
        # `thin` leaves two in each `WARM_UP` at worst, and those nearest the cursor: what is farther might not stay.
        radius = min(radius, (SPARSE - _SLACK) * WARM_UP // 4)
        low, high = max(0, offset - radius), min(document.size, offset + radius)
        # From each snapshot to the next one, and from the last to the text's end.
        starts = snapshots.offsets
        ends = np.append(starts[1:], document.size)
        parted = np.zeros(len(starts), dtype=np.bool_)
        parted[snapshots.unlinked() - 1] = True
        unread = np.minimum(ends, high) - np.maximum(starts, low) > WARM_UP
        parted &= ends - starts <= WARM_UP
        wanted = np.flatnonzero((unread | parted) & (ends > low) & (starts < high))
        total = int((ends[wanted] - starts[wanted])[unread[wanted]].clip(max=high - low).sum())
        chunk = min(max(total // LANES, CHUNK[0]), CHUNK[1])
        found: list[tuple[int, int, int | None]] = []  # (where, up to where, the snapshot to go on from)
        for index in wanted:
            start, end = int(starts[index]), int(ends[index])
            if not unread[index]:
                found.append((start, start + ENOUGH, int(index)))
                continue
            first = start if start >= low - ENOUGH else low
            for where in range(first, min(end, high), chunk):
                found.append((where, min(where + chunk, end) + ENOUGH, int(index) if where == start else None))
        found.sort(key=lambda task: abs(task[0] - offset))
        return [
            self._warm(document, where, min(limit, document.size), CHUNK_WARM_UP)
            if index is None
            else self._on(document, index, min(limit, document.size))
            for where, limit, index in found[:LANES]
        ]

    # --- reading ------------------------------------------------------------------------------------------------

    def _read(self, lanes: list[_Lane], cancelled: Callable[[], bool]) -> None:
        """Read on in all `lanes` until each has found a state that agrees, or come to its limit, and left the list."""
        while True:
            for lane in lanes:
                lane.done = lane.done or self._is_overtaken(lane)
                while not lane.done and lane.until(stop := self._stop(lane)) <= 0:
                    self._arrive(lane, stop)
            lanes[:] = [lane for lane in lanes if not lane.done]
            if not lanes:
                return
            if cancelled():
                raise Cancelled
            piece = min(PIECE, max(1, _ROWS // len(lanes)))
            count = min(piece, *(lane.until(self._stop(lane)) for lane in lanes))
            if count <= 0:
                continue  # one of them has just left a snapshot where another is, or has been
            symbols = np.stack([lane.symbols[lane.read : lane.read + count] for lane in lanes], axis=1)
            state = np.concatenate([lane.state for lane in lanes], axis=2)
            logits, state = self.model.advance(symbols, state)
            for place, lane in enumerate(lanes):
                lane.read += count
                lane.state, lane.logits = state[:, :, place : place + 1], logits[place]

    def _is_overtaken(self, lane: _Lane) -> bool:
        """Return whether somebody has read meanwhile what `lane` is reading, or read its beginning better."""
        if lane.follows is None:
            return False
        last = self._snapshots[self._snapshots.last(max(lane.follows, lane.at - 1))]
        return last.offset != lane.follows or last.state is not lane.left

    def _stop(self, lane: _Lane) -> int:
        """Return the offset of the next snapshot that `lane` is to leave, or to compare itself with."""
        if lane.follows is None:
            return min(lane.warm, lane.limit)
        following = self._snapshots.next_offset(lane.follows)
        stop = min(lane.follows + SPACING, lane.limit)
        return stop if following is None else min(stop, following)

    def _arrive(self, lane: _Lane, offset: int) -> None:
        """Leave a snapshot of `lane` at `offset`, or find that the state there was known."""
        snapshots = self._snapshots
        index = snapshots.find(offset)
        if offset < lane.warm if lane.follows is None else offset == lane.follows:
            lane.done = True  # an edit cut it short
        elif index is None:
            self._put(lane, offset)
        elif lane.follows is None:
            if snapshots.since(index) <= lane.since:
                lane.done = True  # somebody has read better meanwhile
            else:
                self._put(lane, offset)
        elif agree(snapshots[index].state, lane.state):
            snapshots.link(index)
            lane.done = True
        else:
            self._put(lane, offset)
        lane.done = lane.done or offset >= lane.limit

    def _put(self, lane: _Lane, offset: int) -> None:
        """Leave a snapshot of `lane` at `offset`."""
        # Copies: a view would keep the states of all lanes alive.
        lane.left = lane.state.copy()
        self._snapshots.put(Snapshot(offset, lane.left, lane.logits.copy(), lane.since), follows=lane.follows)
        lane.follows = offset

    def _thin(self, cursor: int) -> None:
        self._snapshots.thin(DENSE, SPARSE, WARM_UP, cursor)


def symbols_of(document: Document, start: int, end: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    r"""Return the model's input for bytes [start, end), and the offset behind each symbol, less `start`.

    A line end is one symbol. Of a `\r\n` it is read at the `\r`, and nothing at the `\n`.
    """
    data = (document.slice(start - 1, start) or b"\n") + document.slice(start, end)
    codes = to_symbols(data)
    if b"\r" not in data:
        return codes[1:], np.arange(1, len(codes), dtype=np.int64)
    read = np.flatnonzero((codes[1:] != ord("\n")) | (codes[:-1] != ord("\r")))
    symbols = codes[1:][read]
    symbols[symbols == ord("\r")] = ord("\n")
    return symbols, read + 1
