"""The one place that converts positions: (line, character) in the client's encoding to byte offsets and back.

A character index counts units of the negotiated encoding: bytes, UTF-16 units or code points. One that points
into a character (half a surrogate pair, the middle of a UTF-8 sequence) is read as the character's start.
Plain ints come in and go out; LSP's types are left to the server, and lines to `document`.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lsp_charrnn.text.document import Document

_LONGEST_CHARACTER = 4  # bytes, in UTF-8


class PositionEncoding(str, Enum):
    """What a character index counts, by LSP's names."""

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF32 = "utf-32"


def offset_at(document: Document, line: int, character: int, encoding: PositionEncoding) -> int:
    """Return the byte offset of a position: the start of a character, or the end of a line's text.

    Any position is taken: past a line's text means the end of that text (before its line end), past the last
    line the end of the document, before the first line its start; a negative `character` is read as 0.
    """
    if line < 0:
        return 0
    if line >= document.line_count:
        return len(document.data)
    start, end = document.line_bounds(line)
    if character <= 0:
        return start
    # The first `character` units are never more bytes than this, so a long line is read no further.
    end = min(end, start + character * _LONGEST_CHARACTER)
    if encoding is PositionEncoding.UTF8 or document.data[start:end].isascii():
        return _character_start(document.data, start, min(start + character, end))
    # The first byte with which more than `character` units are spent begins the character to stand before.
    units = np.cumsum(_units(document.data, start, end, encoding), dtype=np.int32)
    return start + int(np.searchsorted(units, character, side="right"))


def position_at(document: Document, offset: int, encoding: PositionEncoding) -> tuple[int, int]:
    r"""Return (line, character) of a byte offset; one inside a character or a `\r\n` is read as its start.

    Raises ValueError for an offset outside [0, len(document.data)].
    """
    line = document.line_at(offset)
    start, end = document.line_bounds(line)
    offset = _character_start(document.data, start, min(offset, end))
    if encoding is PositionEncoding.UTF8 or document.data[start:offset].isascii():
        return line, offset - start
    return line, int(_units(document.data, start, offset, encoding).sum(dtype=np.int64))


def _character_start(data: bytes, start: int, offset: int) -> int:
    """Return the start of the character that `offset` lies in, at `start` or later."""
    while start < offset < len(data) and data[offset] & 0xC0 == 0x80:
        offset -= 1
    return offset


def _units(data: bytes, start: int, end: int, encoding: PositionEncoding) -> NDArray[np.uint8]:
    """Return the UTF-16 or UTF-32 units of each character in [start, end) at its first byte, 0 elsewhere."""
    codes = np.frombuffer(data, dtype=np.uint8)[start:end]
    first = (codes & 0xC0) != 0x80
    units: NDArray[np.uint8] = first.view(np.uint8)  # [end - start]
    if encoding is PositionEncoding.UTF16:
        units += codes >= 0xF0  # a sequence of four bytes is a surrogate pair
    return units
