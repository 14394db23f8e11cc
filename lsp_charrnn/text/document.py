r"""A document as an immutable value, its UTF-8 bytes in chunks, and the edits between two.

A line ends after `\n`, `\r\n` or a lone `\r` and after nothing else (LSP's rule; `str.splitlines` breaks on
form feed and U+2028 too). Line ends stay as the client has them. Everything here speaks byte offsets and
counts units: positions in the client's encoding are left to `positions`, the smallest edits between two texts to
`diff`, how the model reads the bytes to `symbols`, and which documents are open to the engine.

An edit makes the chunks anew that it touches and shares all others with the document before, so that a key costs
the same in a file of ten megabytes, or in a line of one, as in a small file. Only the table of the chunks, four
numbers for each, is copied whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Bytes in a chunk, at most. Less makes the table longer, more makes the chunks that an edit reads anew longer.
CHUNK: Final = 16 * 1024
_LONGEST_CHARACTER: Final = 4  # bytes, in UTF-8
_COMPARED: Final = 64 * 1024  # bytes compared at once
_CR: Final = 0x0D
_LF: Final = 0x0A


class Unit(IntEnum):
    """What a document counts besides bytes and lines; the value is its row in a document's table."""

    UTF16 = 2
    UTF32 = 3


_BYTES: Final = 0
_LINE_ENDS: Final = 1


@dataclass(frozen=True)
class Edit:
    """Bytes [start, end) of the text before are replaced by `new`; `Edit(0, size, text)` changes all."""

    start: int
    end: int
    new: bytes

    def trimmed(self, before: Document) -> Edit:
        """Return the same change of the text `before` without what it puts back as it was, at either end.

        Editors replace a word to complete it, and a whole file to format it. No character is parted.
        """
        start, end, new = self.start, self.end, self.new
        room = min(end - start, len(new))
        same = 0
        while same < room:
            count = min(_COMPARED, room - same)
            alike = _alike(before.slice(start + same, start + same + count), new[same : same + count])
            same += alike
            if alike < count:
                break
        # What differs are two characters, which may begin alike.
        while same > 0 and (
            _continues(before.slice(start + same, min(start + same + 1, end))) or _continues(new[same : same + 1])
        ):
            same -= 1
        room -= same
        behind = 0
        while behind < room:
            count = min(_COMPARED, room - behind)
            old = before.slice(end - behind - count, end - behind)
            alike = _alike(old[::-1], new[len(new) - behind - count : len(new) - behind][::-1])
            behind += alike
            if alike < count:
                break
        while behind > 0 and _continues(new[len(new) - behind : len(new) - behind + 1]):
            behind -= 1
        return Edit(start + same, end - behind, new[same : len(new) - behind])


@dataclass(frozen=True, eq=False)
class Document:
    r"""The text of one document at one version. Nothing in it changes, so any thread may hold it.

    Made by `from_text`, `replace` and `apply`, which keep these true: the text is valid UTF-8; no chunk begins within a
    character or between `\r` and `\n`; each holds at most `CHUNK` bytes and, where there are several, about a quarter
    of that or more; an empty text is one empty chunk.
    """

    # Both stay out of repr(), which may reach a log: the text is the user's, and may be megabytes.
    _chunks: Sequence[_Chunk] = field(repr=False)
    # [4, chunks + 1], read-only: the bytes, line ends, UTF-16 units and characters before each chunk, and of all.
    _table: NDArray[np.int64] = field(repr=False)
    version: int | None = None

    @classmethod
    def from_text(cls, text: str | bytes, version: int | None = None) -> Document:
        """Return the document that holds `text`; lone surrogates, which UTF-8 cannot hold, become '?'.

        Raises UnicodeDecodeError (a ValueError) for bytes that are not UTF-8.
        """
        if isinstance(text, str):
            data = text.encode("utf-8", errors="replace")
        else:
            data = text
            _check_utf8(data)
        chunks = _split(data)
        first = np.zeros((4, 1), dtype=np.int64)
        return cls(chunks, _read_only(np.concatenate((first, _counted(chunks)), axis=1)), version)

    def replace(self, edit: Edit, version: int | None = None) -> Document:
        """Return the document after `edit`. Costs what the edit inserts, a chunk or two, and a copy of the table.

        Raises ValueError for an edit that lies outside the text, begins or ends within a character, or
        inserts bytes that are not UTF-8: each is a bug of the caller.
        """
        start, end, new = edit.start, edit.end, edit.new
        if not 0 <= start <= end <= self.size:
            raise ValueError(f"edit of bytes [{start}, {end}) lies outside the document of {self.size} bytes")
        low, at = self._place(start)
        high, to = (low, at) if start == end else self._place(end)
        left, right = self._chunks[low].data, self._chunks[high].data
        if _continues(left[at : at + 1]) or _continues(right[to : to + 1]):
            raise ValueError(f"edit of bytes [{start}, {end}) begins or ends within a character")
        _check_utf8(new)

        # The text between two old borders, and the chunks [low, high) that it takes the place of.
        text = b"".join((left[:at], new, right[to:]))
        high += 1
        while True:
            small = len(text) < CHUNK // 4
            if low > 0 and (small or (text[:1] == b"\n" and self._chunks[low - 1].data[-1:] == b"\r")):
                low -= 1
                text = self._chunks[low].data + text
            elif high < len(self._chunks) and (small or (text[-1:] == b"\r" and self._chunks[high].data[:1] == b"\n")):
                text += self._chunks[high].data
                high += 1
            else:
                break
        inserted = _split(text)
        chunks = list(self._chunks)
        chunks[low:high] = inserted
        between = _counted(inserted) + self._table[:, low, None]
        moved = between[:, -1:] - self._table[:, high, None]
        table = np.concatenate((self._table[:, : low + 1], between, self._table[:, high + 1 :] + moved), axis=1)
        return Document(chunks, _read_only(table), version)

    def apply(self, edits: Iterable[Edit], version: int | None = None) -> Document:
        """Return the document after all `edits`, each relative to the result of the one before it.

        Raises ValueError as `replace` does; this document is as it was then, as always.
        """
        document = Document(self._chunks, self._table, version)
        for edit in edits:
            document = document.replace(edit, version)
        return document

    @property
    def size(self) -> int:
        """Length of the text in bytes."""
        return int(self._table[_BYTES, -1])

    @property
    def data(self) -> bytes:
        """The whole text. Joins all chunks, so nothing that runs at each key may use it: `slice` is for that."""
        return b"".join([chunk.data for chunk in self._chunks])

    def slice(self, start: int, end: int) -> bytes:
        """Return the bytes [start, end), clamped as slicing clamps; `slice(a, a + 1)` is one byte."""
        start, end, _ = slice(start, end).indices(self.size)
        if start >= end:
            return b""
        first, at = self._place(start)
        data = self._chunks[first].data
        length = end - start
        if at + length <= len(data):
            return data[at : at + length]
        last, to = self._place(end)
        between = [chunk.data for chunk in self._chunks[first + 1 : last]]
        return b"".join([data[at:], *between, self._chunks[last].data[:to]])

    @property
    def line_count(self) -> int:
        """Number of lines, at least 1."""
        return int(self._table[_LINE_ENDS, -1]) + 1

    @property
    def newline(self) -> bytes:
        r"""The document's own line end, by its first one: `\n`, `\r\n` or `\r`; `\n` where it has none."""
        if self.line_count == 1:
            return b"\n"
        _, end = self.line_bounds(0)
        return self.slice(end, self._line_start(1))

    def line_bounds(self, line: int) -> tuple[int, int]:
        """Return the byte offsets at which `line` (from 0) starts and ends, its line end left out.

        Raises IndexError for a line that the document does not have.
        """
        if not 0 <= line < self.line_count:
            raise IndexError(f"line {line} of a document of {self.line_count} lines")
        start = self._line_start(line)
        if line + 1 == self.line_count:
            return start, self.size
        # A line end lies in one chunk.
        index, at = self._line_end(line)
        data = self._chunks[index].data
        end = int(self._table[_BYTES, index]) + at - 1
        return start, end - 1 if end > start and data[at - 2 : at] == b"\r\n" else end

    def line_at(self, offset: int) -> int:
        """Return the line that the byte at `offset` is in; the end of the text is in the last line.

        Raises ValueError for an offset outside [0, size].
        """
        if not 0 <= offset <= self.size:
            raise ValueError(f"offset {offset} lies outside the document of {self.size} bytes")
        index, at = self._place(offset)
        return int(self._table[_LINE_ENDS, index] + self._chunks[index].line_ends.searchsorted(at, side="right"))

    def character_start(self, offset: int) -> int:
        """Return the start of the character that the byte at `offset` is in; the end of the text is its own."""
        index, at = self._place(offset)
        data = self._chunks[index].data
        while _continues(data[at : at + 1]):
            at -= 1
            offset -= 1
        return offset

    def units(self, start: int, end: int, unit: Unit) -> int:
        """Return how many units stand in the bytes [start, end), which part no character. Reads two chunks at most."""
        first, at = self._place(start)
        chunk = self._chunks[first]
        if at + end - start <= len(chunk.data):
            return chunk.units(at, at + end - start, unit)
        last, to = self._place(end)
        between = int(self._table[unit, last] - self._table[unit, first + 1])
        return chunk.units(at, len(chunk.data), unit) + between + self._chunks[last].units(0, to, unit)

    def after_units(self, start: int, count: int, unit: Unit) -> int:
        """Return the offset `count` units after the byte `start`, where a character starts; at most `size`.

        Within a character it is the character's start. Reads two chunks at most.
        """
        index, at = self._place(start)
        chunk = self._chunks[index]
        if at + count * _LONGEST_CHARACTER > len(chunk.data):
            rest = chunk.units(at, len(chunk.data), unit)
            if count >= rest:  # else it lies in this chunk
                before = int(self._table[unit, index + 1]) + count - rest
                index = int(self._table[unit].searchsorted(before, side="right")) - 1
                if index == len(self._chunks):
                    return self.size
                chunk, at, count = self._chunks[index], 0, before - int(self._table[unit, index])
        return int(self._table[_BYTES, index]) + chunk.after_units(at, count, unit)

    def _place(self, offset: int) -> tuple[int, int]:
        """Return the chunk that the byte at `offset` is in, and where in it; the text's end is in the last chunk."""
        if len(self._chunks) == 1:
            return 0, offset
        index = min(int(self._table[_BYTES].searchsorted(offset, side="right")), len(self._chunks)) - 1
        return index, offset - int(self._table[_BYTES, index])

    def _line_start(self, line: int) -> int:
        """Return where a line that there is starts."""
        if line == 0:
            return 0
        index, at = self._line_end(line - 1)
        return int(self._table[_BYTES, index]) + at

    def _line_end(self, line: int) -> tuple[int, int]:
        """Return the chunk with the end of a line that isn't the last, and the place behind that end in it."""
        index = int(self._table[_LINE_ENDS].searchsorted(line, side="right")) - 1
        return index, int(self._chunks[index].line_ends[line - int(self._table[_LINE_ENDS, index])])


class _Chunk:
    """A piece of text, and what can be said of it whatever stands around it. Never changed."""

    __slots__ = ("counts", "data", "line_ends")

    def __init__(self, data: bytes) -> None:
        self.data = data
        codes = np.frombuffer(data, dtype=np.uint8)
        ends = codes == _LF
        if b"\r" in data:
            returns = codes == _CR
            returns[:-1] &= ~ends[1:]  # a \r before a \n is no line end of its own
            ends |= returns
        self.line_ends: NDArray[np.int64] = ends.nonzero()[0] + 1  # [line ends], the offset behind each
        # A column of the table, by its rows.
        size = len(data)
        self.counts = size, len(self.line_ends), self.units(0, size, Unit.UTF16), self.units(0, size, Unit.UTF32)

    def units(self, start: int, end: int, unit: Unit) -> int:
        """Return how many units stand in [start, end)."""
        data = self.data[start:end]
        return len(data) if data.isascii() else int(_units(data, unit).sum(dtype=np.int64))

    def after_units(self, start: int, count: int, unit: Unit) -> int:
        """Return the offset `count` units after `start`, or the start of the character that it would part."""
        data = self.data[start : start + count * _LONGEST_CHARACTER]
        if data.isascii():
            return start + min(count, len(data))
        # The first byte with which more than `count` units are begun begins the character to stand before.
        spent = np.cumsum(_units(data, unit), dtype=np.int32)
        return start + int(spent.searchsorted(count, side="right"))


def _units(data: bytes, unit: Unit) -> NDArray[np.uint8]:
    """Return the UTF-16 or UTF-32 units of each character in `data` at its first byte, 0 elsewhere."""
    codes = np.frombuffer(data, dtype=np.uint8)
    units: NDArray[np.uint8] = ((codes & 0xC0) != 0x80).view(np.uint8)  # [len(data)]
    if unit is Unit.UTF16:
        units += codes >= 0xF0  # a sequence of four bytes is a surrogate pair
    return units


def _split(data: bytes) -> list[_Chunk]:
    r"""Return `data` in one chunk if it fits, else in even chunks that leave room to type; none parts a `\r\n`."""
    size = len(data)
    if size <= CHUNK:
        return [_Chunk(data)]
    pieces = -(-size // (CHUNK * 3 // 4))
    borders = [0]
    for piece in range(1, pieces):
        border = size * piece // pieces
        while _continues(data[border : border + 1]) or data[border - 1 : border + 1] == b"\r\n":
            border -= 1
        borders.append(border)
    borders.append(size)
    return [_Chunk(data[start:end]) for start, end in pairwise(borders)]


def _counted(chunks: Sequence[_Chunk]) -> NDArray[np.int64]:
    """Return the columns [4, chunks] of a table in which nothing stands before `chunks`."""
    if len(chunks) == 1:
        return np.array(chunks[0].counts, dtype=np.int64)[:, None]
    return np.cumsum([chunk.counts for chunk in chunks], axis=0, dtype=np.int64).T


def _alike(one: bytes, other: bytes) -> int:
    """Return how many bytes the two, equally long, begin with alike."""
    if one == other:
        return len(one)
    differs = np.frombuffer(one, dtype=np.uint8) != np.frombuffer(other, dtype=np.uint8)
    return int(differs.argmax())


def _continues(data: bytes) -> bool:
    """Return whether `data` begins within a character: with a continuation byte, 10xxxxxx."""
    return bool(data) and data[0] & 0xC0 == 0x80


def _check_utf8(data: bytes) -> None:
    """Raise UnicodeDecodeError if `data` is not UTF-8."""
    if not data.isascii():
        data.decode("utf-8")


def _read_only(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `table`, closed to writing: threads share it."""
    table.flags.writeable = False
    return table
