r"""The text as a client has it: LSP's changes applied to a list of lines, by Python's own codecs.

It shares no line of code with the server. Simple, and slow in long lines; no chunks, no tables. A lone surrogate, which
no UTF-8 holds, is a '?', as in the server.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

Json = dict[str, Any]

UTF8: Final = "utf-8"
UTF16: Final = "utf-16"
UTF32: Final = "utf-32"
ENCODINGS: Final = (UTF8, UTF16, UTF32)

_AFTER_END: Final = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")


class ClientText:
    """One document, in the position encoding that was agreed on."""

    def __init__(self, text: str, encoding: str = UTF16) -> None:
        self.encoding = encoding
        self._lines = _lines_of(_held(text))  # each with its line end; the last has none, and may be empty

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self._lines)

    @property
    def line_count(self) -> int:
        """Number of lines, at least 1."""
        return len(self._lines)

    def line(self, number: int) -> str:
        """Return a line without its end."""
        return self._lines[number].rstrip("\r\n")

    def offset(self, position: Json) -> int:
        """Return the byte of a position."""
        line, index = self._place(position)
        return len("".join([*self._lines[:line], self._lines[line][:index]]).encode("utf-8"))

    def digest(self) -> tuple[int, str]:
        """Return the bytes of the text in UTF-8, and their SHA-256."""
        data = self.text.encode("utf-8")
        return len(data), hashlib.sha256(data).hexdigest()

    def change(self, changes: Iterable[Json]) -> None:
        """Apply content changes, each relative to what the one before it left."""
        for change in changes:
            new = _held(change["text"])
            if change.get("range") is None:
                self._lines = _lines_of(new)
            else:
                start, end = sorted(self._place(change["range"][name]) for name in ("start", "end"))
                self._replace(start, end, new)

    def _replace(self, start: tuple[int, int], end: tuple[int, int], new: str) -> None:
        (first, before), (last, behind) = start, end
        # With a line more on either side: a \r and a \n may come together, or be parted.
        low, high = max(0, first - 1), min(len(self._lines), last + 2)
        head = "".join(self._lines[low:first]) + self._lines[first][:before]
        tail = self._lines[last][behind:] + "".join(self._lines[last + 1 : high])
        lines = _lines_of(head + new + tail)
        if high < len(self._lines) and lines[-1] == "":
            lines.pop()  # what follows is the last line's
        self._lines[low:high] = lines

    def _place(self, position: Json) -> tuple[int, int]:
        """Return the line, and the index in it, of a position: any is taken, and moved to where there is text."""
        line, character = position["line"], position["character"]
        if line < 0:
            return 0, 0
        if line >= len(self._lines):
            return len(self._lines) - 1, len(self._lines[-1])
        if character <= 0:
            return line, 0
        return line, index_of(self.line(line), character, self.encoding)


def index_of(line: str, character: int, encoding: str) -> int:
    """Return how many whole characters of `line` are no more than `character` units."""
    if character >= 4 * len(line):
        return len(line)
    if line.isascii() or encoding == UTF32:
        return min(character, len(line))
    if encoding == UTF8:
        return len(line.encode("utf-8")[:character].decode("utf-8", errors="ignore"))
    return len(line.encode("utf-16-le")[: 2 * character].decode("utf-16-le", errors="ignore"))


def units_of(line: str, encoding: str) -> int:
    """Return the length of `line` in units of `encoding`."""
    if encoding == UTF32 or line.isascii():
        return len(line)
    return len(line.encode("utf-8")) if encoding == UTF8 else len(line.encode("utf-16-le")) // 2


def _lines_of(text: str) -> list[str]:
    return _AFTER_END.split(text)


def _held(text: str) -> str:
    # JSON's escapes make one character of two surrogates that stand together.
    joined = text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="surrogatepass")
    return joined.encode("utf-8", errors="replace").decode("utf-8")
