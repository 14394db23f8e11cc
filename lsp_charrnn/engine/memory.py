r"""How often which byte has followed which context, in the open document and in its project: counts, looked up for all
lanes at once.

`Counts` holds one number for each context (`contexts`) and byte that has followed it: a sorted array of 64-bit keys and
their counts, built by numpy and never changed. What has changed since it was built is another `Counts`, whose counts
may be negative, and looking up adds the two. So a document's memory is exact after every edit (`DocumentCounts`), and
the document's own saved text can be taken out of the project's (`Counts.sum`).

What is made of the counts is `mixer`'s; which files a project has is left to others, and so are threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.engine.contexts import NOTHING, REACH, SYMBOL, Keys, keys_in
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.symbols import normalise

Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Block:
    """A stretch of text whose bytes are counted, each with the contexts before it.

    Of `right`, which stays out otherwise, those are counted with the contexts that reach back to where it begins.
    """

    left: bytes  # at most `REACH` bytes before it; fewer, and the document begins there
    text: bytes
    right: bytes = b""  # at most `REACH` bytes behind it
    sign: int = 1
    cut: bool = False  # contexts that begin where `right` does don't count: they don't reach across


@dataclass(frozen=True, eq=False)
class Counts:
    """How often which byte has followed which context. A value: nothing changes it."""

    keys: Keys  # [n], ascending and distinct
    counts: Numbers  # [n], none of them 0

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def bytes_used(self) -> int:
        """What it takes in memory."""
        return self.keys.nbytes + self.counts.nbytes

    @staticmethod
    def of(blocks: Iterable[Block]) -> Counts:
        """Count what is in `blocks`."""
        chosen = [block for block in blocks if block.text or block.right]
        # A kind of context at a time, and none kept while the next is made, for less memory; one after another they are
        # in order, by the kind's mark.
        counted = list(starmap(_of_keys, _keys_of(chosen)))
        return Counts(
            np.concatenate([EMPTY.keys, *(one.keys for one in counted)]),
            np.concatenate([EMPTY.counts, *(one.counts for one in counted)]),
        )

    @staticmethod
    def of_texts(texts: Iterable[bytes]) -> Counts:
        """Count whole texts, each from its beginning."""
        return Counts.of(Block(b"", text) for text in texts)

    @staticmethod
    def sum(parts: Sequence[tuple[Counts, int]]) -> Counts:
        """Return the sum of counts, each with its sign."""
        keys = np.concatenate([EMPTY.keys, *(part.keys for part, _ in parts)])
        return _of_keys(keys, np.concatenate([EMPTY.counts, *(part.counts * np.int32(sign) for part, sign in parts)]))


EMPTY: Final = Counts(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int32))


def _of_keys(keys: Keys, numbers: Numbers | None) -> Counts:
    """Return the counts of keys, equal ones added up; each counts 1 where there are no numbers."""
    if len(keys) == 0:
        return EMPTY
    if numbers is None:
        keys.sort()
    else:
        order = keys.argsort(kind="stable")
        keys, numbers = keys.take(order), numbers.take(order)
    starts = _starts(keys)
    if numbers is None:
        counts = np.empty(len(starts), dtype=np.int32)
        np.subtract(starts[1:], starts[:-1], out=counts[:-1], casting="same_kind")
        counts[-1] = len(keys) - starts[-1]
        return Counts(keys.take(starts), counts)
    sums = np.add.reduceat(numbers, starts, dtype=np.int32)
    kept = sums != 0
    return Counts(keys.take(starts[kept]), sums[kept])


def _starts(ordered: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return where each number of some that are in order, at least one, stands first."""
    first = np.empty(len(ordered), dtype=np.bool_)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first.nonzero()[0]


def _keys_of(blocks: Sequence[Block]) -> Iterator[tuple[Keys, Numbers | None]]:
    """Yield for each kind of context a key for each byte counted in `blocks`, and the signs; None: all are 1."""
    if not blocks:
        return
    pieces: list[bytes] = []
    for block in blocks:
        pieces += (NOTHING[len(block.left) :], block.left, block.text, block.right)
    symbols = np.frombuffer(b"".join(pieces), dtype=np.uint8)
    following = symbols[REACH:]
    if len(blocks) == 1 and not blocks[0].right and blocks[0].sign == 1:
        for keys, _ in keys_in(symbols):
            keys |= following
            yield keys, None
        return
    # For each place: the block's sign, or 0 between two; and where a window must begin at the latest.
    signs = np.zeros(len(following), dtype=np.int32)
    latest = np.full(len(following), len(symbols), dtype=np.int32)
    end = 0
    for block in blocks:
        start, end = end + REACH, end + REACH + len(block.text) + len(block.right)
        middle = start + len(block.text)
        signs[start - REACH : end - REACH] = block.sign
        latest[middle - REACH : end - REACH] = middle - block.cut
    counted = signs != 0
    signed = any(block.sign != 1 for block in blocks)
    for keys, starts in keys_in(symbols):
        keys |= following
        chosen = counted & (starts <= latest)
        found = [(keys[chosen], signs[chosen] if signed else None)]
        del keys, starts, chosen  # else they would stay until all is counted
        yield found.pop()


# --- looking up


@dataclass(frozen=True, eq=False)
class Found:
    """What was found of some contexts: the bytes that have followed them, in the order of the contexts."""

    contexts: int  # so many were looked for, in each memory
    rows: npt.NDArray[np.int64]  # [found], ascending: the index of a context; in the second memory from `contexts` on
    symbols: npt.NDArray[np.int64]  # [found], a byte that has followed it
    counts: npt.NDArray[np.float64]  # [found], how often


def look_up(memories: Sequence[Sequence[Counts]], contexts: Keys) -> Found:
    """Return what has followed `contexts`  # [any], as `Lanes.keys` gives them, in each memory: the sum of its tables.

    All tables are gone through together, for a call of numpy takes as long as what it does to so few numbers.
    """
    count = len(contexts)
    # Where a context's keys begin and end, one after the other: the second search finds what the first one has fetched.
    edges = np.stack((contexts, contexts + _NEXT), axis=1).ravel()
    tables, rows, found = [], [], []
    for memory, parts in enumerate(memories):
        for table in parts:
            if len(table):
                tables.append(table)
                rows.append(np.arange(memory * count, (memory + 1) * count, dtype=np.int64))
                found.append(table.keys.searchsorted(edges))
    if not tables or not count:
        return _nothing(count)
    # Table by table, and in each context by context.
    first, end = np.concatenate(found).reshape(-1, 2).T
    numbers = end - first
    until = numbers.cumsum()
    places = (first - until + numbers).repeat(numbers)
    if not len(places):
        return _nothing(count)
    places += np.arange(len(places))
    keys, counts, start = [], [], 0
    for table, stop in zip(tables, until[count - 1 :: count].tolist(), strict=True):
        keys.append(table.keys.take(places[start:stop]))
        counts.append(table.counts.take(places[start:stop]))
        start = stop
    flat = np.concatenate(rows).repeat(numbers)
    flat <<= 8
    flat |= (np.concatenate(keys) & SYMBOL).view(np.int64)
    sums = np.concatenate(counts).astype(np.float64)
    if len(tables) > 1:
        order = flat.argsort(kind="stable")
        flat = flat.take(order)
        starts = _starts(flat)
        sums = np.add.reduceat(sums.take(order), starts)
        flat = flat.take(starts)
    there = sums > 0
    flat, sums = flat[there], sums[there]
    return Found(count, flat >> 8, flat & 0xFF, sums)


_NEXT: Final = SYMBOL + np.uint64(1)  # from a context to where the keys of the next one may begin


def _nothing(count: int) -> Found:
    none = np.empty(0, dtype=np.int64)
    return Found(count, none, none, np.empty(0))


# --- the open document


@dataclass
class _Change:
    """Bytes [start, end) of the text that was counted are `length` others now."""

    start: int
    end: int
    length: int


@dataclass(frozen=True, eq=False)
class Base:
    """A stretch of a document, counted."""

    document: Document
    start: int
    end: int
    counts: Counts


_CLOSE: Final = 2 * REACH + 2  # changes that are nearer become one: no context reaches from one into the other
_MOST_CHANGES: Final = 64
_MOST_CHANGED: Final = 1 << 14  # bytes; with more, the text is counted anew


class DocumentCounts:
    """The counts of one document's text around the cursor: exact after every edit, or not there.

    `build` counts, and may be called on any thread; everything else belongs to the thread that looks up.
    """

    def __init__(self) -> None:
        self._base: Base | None = None
        self._changes: list[_Change] = []  # ascending, `_CLOSE` apart
        self._size = 0  # of the text as it is now

    @staticmethod
    def build(document: Document, cursor: int, radius: int) -> Base:
        """Count the text within `radius` bytes of `cursor`."""
        start, end = _line(document, cursor - radius), _line(document, cursor + radius)
        text = normalise(document.slice(start, end))
        return Base(document, start, end, Counts.of([Block(_left_of(document, start), text)]))

    def install(self, base: Base, edits: Iterable[Edit]) -> None:
        """Use `base` from now on; `edits`, one after another, have come since its text."""
        self._base, self._changes = base, []
        self._size = base.document.size
        for edit in edits:
            self.edit(edit)

    def covers(self, cursor: int, radius: int) -> bool:
        """Say whether what lies within half of `radius` around `cursor` has been counted, with little changed since."""
        base = self._base
        if base is None or len(self._changes) > _MOST_CHANGES // 8 or self._changed > _MOST_CHANGED // 8:
            return False
        moved = self._size - base.document.size
        return (base.start == 0 or base.start <= cursor - radius // 2) and (
            base.end == base.document.size or base.end + moved >= cursor + radius // 2
        )

    @property
    def bytes_used(self) -> int:
        """What it takes in memory."""
        return self._base.counts.bytes_used if self._base is not None else 0

    @property
    def _changed(self) -> int:
        return sum(change.end - change.start + change.length for change in self._changes)

    def edit(self, edit: Edit) -> None:
        """Follow an edit of the text."""
        base = self._base
        if base is None or (edit.start == edit.end and not edit.new):
            return
        # In the text as it is now; and a byte more on either side, for what is put between \r and \n parts them.
        start, end = max(0, edit.start - 1), min(edit.end + 1, self._size)
        length = len(edit.new) + end - start - (edit.end - edit.start)
        before = moved = 0
        kept: list[_Change] = []
        merged: _Change | None = None
        behind: list[_Change] = []
        for change in self._changes:
            now = change.start + moved
            if now + change.length + _CLOSE < start:
                kept.append(change)
                before += change.length - (change.end - change.start)
            elif now > end + _CLOSE:
                behind.append(change)
            elif merged is None:
                merged = _Change(change.start, change.end, change.length)
            else:  # of the gap between them nothing has changed so far
                merged.length += change.start - merged.end + change.length
                merged.end = change.end
            moved += change.length - (change.end - change.start)
        first = start - before  # in the text that was counted, were nothing of it changed
        if merged is None:
            merged = _Change(first, end - before, length)
        else:
            low = merged.start + before
            high = low + merged.length
            # All between the edit and the changes that it is near to is taken in.
            more = max(0, end - high)
            less = max(0, low - start)
            merged = _Change(
                merged.start - less, merged.end + more, less + merged.length + more + length - (end - start)
            )
        self._size += length - (end - start)
        self._changes = [*kept, merged, *behind]
        # At an edge of what was counted it is no longer known what belongs to it.
        low_edge = base.start + _CLOSE if base.start else 0
        high_edge = base.end - _CLOSE if base.end < base.document.size else base.end
        if (
            merged.start < low_edge
            or merged.end > high_edge
            or len(self._changes) > _MOST_CHANGES
            or self._changed > _MOST_CHANGED
        ):
            self._base, self._changes = None, []

    def at(self, document: Document, cursor: int, inserted: bytes = b"") -> tuple[Counts, ...]:
        """Return counts whose sum is that of the text, parted at `cursor`; none where the text has not been counted.

        `inserted` is what will stand before the cursor, and is counted as if it did already.

        No context reaches across the cursor: what stands behind it would be the likeliest to come before it, too.
        """
        base = self._base
        if base is None:
            return ()
        end = base.end + self._size - base.document.size  # of what has been counted, as it is now
        if not base.start <= cursor <= end:
            return ()
        blocks = [*self._blocks(base, document)]
        left, right = _left_of(document, cursor), _right_of(document, cursor, end)
        if inserted:
            # As `edit` does, a byte more on either side: what is put between \r and \n parts them, or joins others.
            low, high = max(base.start, cursor - 1), min(cursor + 1, end)
            for new, sign in ((b"", -1), (inserted, 1)):
                text = document.slice(low, cursor) + new + document.slice(cursor, high)
                piece = normalise(text, after_cr=_is_cr(document, low))
                blocks.append(Block(_left_of(document, low), piece, _right_of(document, high, end), sign))
            before, behind = document.slice(max(0, cursor - 2 * REACH), cursor), min(cursor + 2 * REACH, end)
            left = normalise(before + inserted)[-REACH:]
            right = normalise(document.slice(cursor, behind), after_cr=inserted.endswith(b"\r"))[:REACH]
        return base.counts, Counts.of([*blocks, Block(left, b"", right, sign=-1, cut=True)])

    def _blocks(self, base: Base, document: Document) -> Iterator[Block]:
        moved = 0
        for change in self._changes:
            for text, start, end, sign in (
                (base.document, change.start, change.end, -1),
                (document, change.start + moved, change.start + moved + change.length, 1),
            ):
                piece = normalise(text.slice(start, end), after_cr=_is_cr(text, start))
                yield Block(_left_of(text, start), piece, _right_of(text, end, text.size), sign)
            moved += change.length - (change.end - change.start)


def _left_of(document: Document, offset: int) -> bytes:
    """Return the last `REACH` symbols before `offset`."""
    return normalise(document.slice(max(0, offset - 2 * REACH), offset))[-REACH:]


def _right_of(document: Document, offset: int, end: int) -> bytes:
    """Return the first `REACH` symbols from `offset` on; none from `end` on."""
    text = document.slice(offset, min(offset + 2 * REACH, end))
    return normalise(text, after_cr=_is_cr(document, offset))[:REACH]


def _is_cr(document: Document, offset: int) -> bool:
    """Say whether a `\\r` stands before `offset`."""
    return offset > 0 and document.slice(offset - 1, offset) == b"\r"


def _line(document: Document, offset: int) -> int:
    """Return `offset` where it lies within the text, or its nearer end; never within a `\\r\\n`."""
    offset = min(max(offset, 0), document.size)
    within = 0 < offset < document.size and document.slice(offset - 1, offset + 1) == b"\r\n"
    return offset - within
