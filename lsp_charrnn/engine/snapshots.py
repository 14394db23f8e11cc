r"""Where along a document the model's state is known, and which of these states follow from which.

Snapshots stand in the order of their offsets. One is *linked* if reading on from the one before it gives it, to within
what `agree` allows. Else it begins a run of its own: it was read from a cold start, or text before it has changed
since. Of such a run it is only known since which offset its text has been read as it stands (`Snapshot.since`), which
is enough to be used, for an LSTM forgets; and once somebody reads up to its beginning and finds the same state, the run
is linked, and all of it is as good as what lies before it.

Reading is the stream's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.model.step import State
from lsp_charrnn.text.document import Edit

EXACT: Final = -1  # the `since` of a state that has read everything from START on
_LINKED: Final = -2
_NO_END: Final = np.iinfo(np.int64).max

# Two states are the same where their root mean square difference is below this. Of 800 pairs just as far apart, the
# predictions behind them differ by 0.005 bits (KL) at the worst place of the next 2,000 characters, in the mean, and
# 0.0001 on average (docs/experiments.md, "The stream").
AGREED: Final = 0.006


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state after the text before `offset`, and what the model expects next."""

    offset: int
    state: State  # [layers, parts, 1, hidden]
    logits: npt.NDArray[np.float32]  # [256]
    since: int = EXACT  # the text from here to `offset` is what the state has read last, with nothing between


def agree(one: State, other: State) -> bool:
    """Return whether two states [layers, parts, 1, hidden] are the same to within `AGREED`.

    Of an LSTM's cells what the gates let out is compared, tanh(c): c itself grows without bound where a unit counts.
    """
    cells = one.shape[1] == 2
    seen = np.tanh(one[:, 1]) - np.tanh(other[:, 1]) if cells else one[:, 0] - other[:, 0]
    return float(np.sqrt(np.mean(np.square(seen)))) <= AGREED


class Snapshots:
    """The snapshots of one document. The first is the origin, at offset 0, which nothing ever removes.

    Indices are positions in the order of offsets, and hold until the next change.
    """

    def __init__(self, origin: Snapshot) -> None:
        self.offsets: npt.NDArray[np.int64] = np.array([origin.offset], dtype=np.int64)  # ascending, distinct
        # _LINKED, or of a run's first: EXACT, or the offset since which it has read the text as it stands.
        self._since: npt.NDArray[np.int64] = np.array([EXACT], dtype=np.int64)
        self._used: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)  # when it was asked for; 0: never
        self._values = [(origin.state, origin.logits)]
        self._clock = 0

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> Snapshot:
        return Snapshot(int(self.offsets[index]), *self._values[index], self.since(index))

    def last(self, offset: int) -> int:
        """Return the index of the last snapshot at `offset` or before it."""
        return int(self.offsets.searchsorted(offset, side="right")) - 1

    def find(self, offset: int) -> int | None:
        """Return the index of the snapshot at exactly `offset`, or None."""
        index = self.last(offset)
        return index if self.offsets[index] == offset else None

    def next_offset(self, offset: int) -> int | None:
        """Return the offset of the first snapshot past `offset`, or None."""
        index = self.last(offset) + 1
        return int(self.offsets[index]) if index < len(self) else None

    def run(self, index: int) -> int:
        """Return the index of the first snapshot of the run that `index` is in."""
        return int(np.flatnonzero(self._since[: index + 1] != _LINKED)[-1])

    def since(self, index: int) -> int:
        """Return the offset since which the snapshot has read the text as it stands, or `EXACT`."""
        return int(self._since[self.run(index)])

    def unlinked(self) -> npt.NDArray[np.intp]:
        """Return the indices of those that begin a run, the origin left out."""
        return np.flatnonzero(self._since[1:] != _LINKED) + 1

    def put(self, snapshot: Snapshot, *, follows: int | None = None) -> int:
        """Add a snapshot, or replace the one at its offset; return its index.

        `follows` is the offset of the snapshot that it was read on from: if that is the one before it, the two are
        linked, and what was linked across its place lies on the same path. Otherwise, and where it replaces one, what
        comes behind begins a run.
        """
        index = self.last(snapshot.offset)
        value = snapshot.state, snapshot.logits
        replaced = bool(self.offsets[index] == snapshot.offset) and index > 0
        if replaced:
            index -= 1  # the one before it, as in the other case
            self.unlink(index + 2)
            self._values[index + 1] = value
        linked = follows is not None and follows == self.offsets[index]
        if not replaced:
            if not linked:
                self.unlink(index + 1)
            self.offsets = np.insert(self.offsets, index + 1, snapshot.offset)
            self._since = np.insert(self._since, index + 1, 0)
            self._used = np.insert(self._used, index + 1, 0)
            self._values.insert(index + 1, value)
        self._since[index + 1] = _LINKED if linked else snapshot.since
        return index + 1

    def link(self, index: int) -> None:
        """Note that reading on from the snapshot before `index` gives that one."""
        self._since[index] = _LINKED

    def unlink(self, index: int) -> None:
        """Let a run begin at `index`, if there is one: what it has read stays what it was."""
        if index < len(self) and self._since[index] == _LINKED:
            self._since[index] = self.since(index)

    def touch(self, index: int) -> None:
        """Note that somebody asked for this one just now."""
        self._clock += 1
        self._used[index] = self._clock

    def edit(self, edit: Edit) -> None:
        """Follow an edit: what lies in it is dropped; what lies behind it moves, and begins a run."""
        first, behind = self.last(edit.start) + 1, self.last(edit.end) + 1
        self.unlink(behind)
        self._drop(first, behind)
        new_end = edit.start + len(edit.new)
        moved = new_end - edit.end
        self.offsets[first:] += moved
        since = self._since[first:]
        # What began to read behind the edit has read the same; all others have read what it changed.
        since[:] = np.where(since == _LINKED, since, np.where(since >= edit.end, since + moved, new_end))

    def drop_past(self, offset: int) -> None:
        """Drop what lies past `offset`."""
        self._drop(self.last(offset) + 1, len(self))

    def thin(self, dense: int, sparse: int, gap: int, cursor: int) -> None:
        """Drop until at most `dense` of those are left that were asked for, and `sparse` others.

        Of the former the ones that were asked for longest ago go, or stay among the others where they would leave a
        gap of more than `gap`; of the latter first those that would leave none, then the ones farthest from `cursor`.
        """
        while np.count_nonzero(self._used) > dense:
            used = np.flatnonzero(self._used)
            oldest = int(used[self._used[used].argmin()])
            if oldest == 0 or self._gaps()[oldest - 1] > gap:
                self._used[oldest] = 0
            else:
                self._drop(oldest, oldest + 1)
        while len(others := np.flatnonzero(self._used[1:] == 0) + 1) > sparse:
            crowded = others[self._gaps()[others - 1] <= gap]
            others = crowded if len(crowded) else others
            farthest = int(others[np.abs(self.offsets[others] - cursor).argmax()])
            self._drop(farthest, farthest + 1)

    def _gaps(self) -> npt.NDArray[np.int64]:
        """Return the gap that each one but the origin would leave; the last one's has no end."""
        return np.append(self.offsets[2:] - self.offsets[:-2], _NO_END)[: len(self) - 1]

    def _drop(self, start: int, end: int) -> None:
        """Drop those with indices [start, end). What comes behind stays linked if all links across them held."""
        if start == end:
            return
        if (self._since[start:end] != _LINKED).any():
            self.unlink(end)
        kept = np.ones(len(self), dtype=np.bool_)
        kept[start:end] = False
        self.offsets, self._since, self._used = self.offsets[kept], self._since[kept], self._used[kept]
        del self._values[start:end]
