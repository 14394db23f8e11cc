"""The one place that converts positions: (line, character) in the client's encoding to byte offsets and back.

A character index counts units of the negotiated encoding: bytes, UTF-16 units or code points. One that points
into a character (half a surrogate pair, the middle of a UTF-8 sequence) is read as the character's start.
Plain ints come in and go out; LSP's types are left to the server, lines and the counting to `document`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from lsp_charrnn.text.document import Document, Unit


class PositionEncoding(str, Enum):
    """What a character index counts, by LSP's names."""

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF32 = "utf-32"


_UNITS: Final = {PositionEncoding.UTF16: Unit.UTF16, PositionEncoding.UTF32: Unit.UTF32}


def offset_at(document: Document, line: int, character: int, encoding: PositionEncoding) -> int:
    """Return the byte offset of a position: the start of a character, or the end of a line's text.

    Any position is taken: past a line's text means the end of that text (before its line end), past the last
    line the end of the document, before the first line its start; a negative `character` is read as 0.
    """
    if line < 0:
        return 0
    if line >= document.line_count:
        return document.size
    start, end = document.line_bounds(line)
    if character <= 0:
        return start
    if character >= end - start:  # no unit takes less than a byte
        return end
    if encoding is PositionEncoding.UTF8:
        return document.character_start(start + character)
    return min(document.after_units(start, character, _UNITS[encoding]), end)


def position_at(document: Document, offset: int, encoding: PositionEncoding) -> tuple[int, int]:
    r"""Return (line, character) of a byte offset; one inside a character or a `\r\n` is read as its start.

    Raises ValueError for an offset outside [0, document.size].
    """
    line = document.line_at(offset)
    start, end = document.line_bounds(line)
    offset = document.character_start(min(offset, end))
    if encoding is PositionEncoding.UTF8:
        return line, offset - start
    return line, document.units(start, offset, _UNITS[encoding])
