r"""A document as an immutable value, its UTF-8 bytes and where its lines start, and the edits between two.

A line ends after `\n`, `\r\n` or a lone `\r` and after nothing else (LSP's rule; `str.splitlines` breaks on
form feed and U+2028 too). Line ends stay as the client has them. Everything here speaks byte offsets:
positions in the client's encoding are left to `positions`, how the model reads the bytes to `symbols`, and
which documents are open to the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_CR = 0x0D
_LF = 0x0A


@dataclass(frozen=True)
class Edit:
    """Bytes [start, end) of the text before are replaced by `new`; `Edit(0, len(data), text)` changes all."""

    start: int
    end: int
    new: bytes

    def trimmed(self, before: bytes) -> Edit:
        """Return the same change of the text `before` without what it puts back as it was, at either end.

        Editors replace a word to complete it, and a whole file to format it. The result may part a character.
        """
        old = np.frombuffer(before, dtype=np.uint8)[self.start : self.end]
        new = np.frombuffer(self.new, dtype=np.uint8)
        same = _common(old, new)
        behind = _common(old[same:][::-1], new[same:][::-1])
        return Edit(self.start + same, self.end - behind, self.new[same : len(new) - behind])


def _common(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """Return how many values the two begin with alike."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length


@dataclass(frozen=True, eq=False)
class Document:
    r"""The text of one document at one version. Nothing in it changes, so any thread may hold it.

    Made by `from_text`, `replace` and `apply`, which keep these true: `data` is valid UTF-8; `line_starts`
    holds the offset of the first byte of every line, an empty last line's too (0 alone for an empty text).
    """

    # Both stay out of repr(), which may reach a log: the text is the user's, and may be megabytes.
    data: bytes = field(repr=False)
    line_starts: NDArray[np.int64] = field(repr=False)  # [lines], ascending, read-only
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
        first = np.zeros(1, dtype=np.int64)
        ends = _line_ends(np.frombuffer(data, dtype=np.uint8))
        return cls(data, _read_only(np.concatenate((first, ends))), version)

    def replace(self, edit: Edit, version: int | None = None) -> Document:
        """Return the document after `edit`. Costs a copy of the bytes and a scan of what the edit inserts.

        Raises ValueError for an edit that lies outside the text, begins or ends within a character, or
        inserts bytes that are not UTF-8: each is a bug of the caller.
        """
        data, start, end = self.data, edit.start, edit.end
        if not 0 <= start <= end <= len(data):
            raise ValueError(f"edit of bytes [{start}, {end}) lies outside the document of {len(data)} bytes")
        if _within_character(data, start) or _within_character(data, end):
            raise ValueError(f"edit of bytes [{start}, {end}) begins or ends within a character")
        _check_utf8(edit.new)

        # Joining views copies every byte once; adding slices would copy the text twice.
        view = memoryview(data)
        after = b"".join((view[:start], edit.new, view[end:]))

        # Whether a line starts at s depends on the bytes at s - 1 and s only. So the old starts hold before
        # the edit's start and after its end, and those from border to border (included: the edit may part or
        # join a \r\n there) follow from the inserted bytes with one neighbour on each side.
        new_end = start + len(edit.new)
        low = max(start - 1, 0)
        ends = low + _line_ends(np.frombuffer(after, dtype=np.uint8)[low : new_end + 1])
        # The right neighbour is there to be looked at only: the start behind it is an old one.
        between = ends[ends <= new_end]
        before = self.line_starts[: max(1, int(np.searchsorted(self.line_starts, start)))]
        behind = self.line_starts[int(np.searchsorted(self.line_starts, end, side="right")) :]
        line_starts = np.concatenate((before, between, behind + (new_end - end)))
        return Document(after, _read_only(line_starts), version)

    def apply(self, edits: Iterable[Edit], version: int | None = None) -> Document:
        """Return the document after all `edits`, each relative to the result of the one before it.

        Raises ValueError as `replace` does; this document is as it was then, as always.
        """
        document = Document(self.data, self.line_starts, version)
        for edit in edits:
            document = document.replace(edit, version)
        return document

    @property
    def line_count(self) -> int:
        """Number of lines, at least 1."""
        return len(self.line_starts)

    @property
    def newline(self) -> bytes:
        r"""The document's own line end, by its first one: `\n`, `\r\n` or `\r`; `\n` where it has none."""
        if self.line_count == 1:
            return b"\n"
        _, end = self.line_bounds(0)
        return self.data[end : int(self.line_starts[1])]

    def line_bounds(self, line: int) -> tuple[int, int]:
        """Return the byte offsets at which `line` (from 0) starts and ends, its line end left out.

        Raises IndexError for a line that the document does not have.
        """
        if not 0 <= line < self.line_count:
            raise IndexError(f"line {line} of a document of {self.line_count} lines")
        start = int(self.line_starts[line])
        if line + 1 == self.line_count:
            return start, len(self.data)
        end = int(self.line_starts[line + 1]) - 1
        if self.data[end] == _LF and end > start and self.data[end - 1] == _CR:
            end -= 1
        return start, end

    def line_at(self, offset: int) -> int:
        """Return the line that the byte at `offset` is in; the end of the text is in the last line.

        Raises ValueError for an offset outside [0, len(data)].
        """
        if not 0 <= offset <= len(self.data):
            raise ValueError(f"offset {offset} lies outside the document of {len(self.data)} bytes")
        return int(np.searchsorted(self.line_starts, offset, side="right")) - 1


def _line_ends(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the offset behind each line end in `codes`, whose last byte is taken for the text's last."""
    ends = codes == _LF
    returns = codes == _CR
    if returns.any():
        returns[:-1] &= ~ends[1:]  # a \r before a \n is no line end of its own
        ends |= returns
    return np.flatnonzero(ends).astype(np.int64, copy=False) + 1


def _within_character(data: bytes, offset: int) -> bool:
    """Return whether `offset` parts a character: the byte there is a continuation byte, 10xxxxxx."""
    return offset < len(data) and data[offset] & 0xC0 == 0x80


def _check_utf8(data: bytes) -> None:
    """Raise UnicodeDecodeError if `data` is not UTF-8."""
    if not data.isascii():
        data.decode("utf-8")


def _read_only(line_starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `line_starts`, closed to writing: documents share it between threads."""
    line_starts.flags.writeable = False
    return line_starts
