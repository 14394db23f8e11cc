"""What a coverage-guided fuzzer tries: functions of bytes that raise if the code disagrees with a plain account of it.

`guided` runs them under atheris; the test suite, on the inputs that are kept in `tests/fuzz/corpus`. Chunks are small
here, so that short texts have borders within them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import lsp_charrnn.text.document as document_module
from benchmarks.fuzz.oracle import ENCODINGS, ClientText, Json
from lsp_charrnn.server.documents import apply_changes
from lsp_charrnn.server.structure import content_change
from lsp_charrnn.server.transport import Framing, FramingError
from lsp_charrnn.text.document import Document
from lsp_charrnn.text.positions import PositionEncoding, offset_at, position_at

Target = Callable[[bytes], None]

_SMALL_CHUNK: Final = 16
_HUGE: Final = (2**31 - 1, 2**31, 2**32, 2**63)
_HEADER_ALONE: Final = re.compile(rb"content-length:[ \t]*([0-9]+)[ \t]*\r?", re.IGNORECASE)
_MAX_BODY: Final = 1 << 28
_MAX_HEADER: Final = 1 << 16


class Drawn:
    """Takes values off the front of some bytes: zeros, once there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """Take a byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def number(self) -> int:
        """Take a number: mostly a small one, at times one that is huge or negative."""
        byte = self.byte()
        if byte < 0xF0:
            return byte % 48
        return -1 - self.byte() if byte < 0xF8 else _HUGE[byte % len(_HUGE)]

    def text(self, most: int) -> str:
        """Take a text of at most so many bytes; what is no UTF-8 in it is left out."""
        size = self.byte() % (most + 1)
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece.decode("utf-8", errors="ignore")


@contextmanager
def small_chunks() -> Iterator[None]:
    """Let a document's chunks be so small that a line goes on from one to the next."""
    before = document_module.CHUNK
    document_module.CHUNK = _SMALL_CHUNK  # type: ignore[misc]
    try:
        yield
    finally:
        document_module.CHUNK = before  # type: ignore[misc]


def positions(data: bytes) -> None:
    """Any position finds the offset that a list of lines finds, and every offset its way back."""
    drawn = Drawn(data)
    encoding = ENCODINGS[drawn.byte() % 3]
    line, character, place = drawn.number(), drawn.number(), drawn.byte()
    text = drawn.text(255)
    with small_chunks():
        document = Document.from_text(text)
        plain = ClientText(text, encoding)
        found = offset_at(document, line, character, PositionEncoding(encoding))
        assert found == plain.offset({"line": line, "character": character})
        offset = document.character_start(place % (document.size + 1))
        back = position_at(document, offset, PositionEncoding(encoding))
        inside_line_end = document.slice(offset - 1, offset + 1) == b"\r\n"
        assert offset_at(document, *back, PositionEncoding(encoding)) == offset - inside_line_end


def edits(data: bytes) -> None:
    """Changes one after another give the text that a list of lines gives, and so do the edits that they amount to."""
    drawn = Drawn(data)
    encoding = ENCODINGS[drawn.byte() % 3]
    text = drawn.text(200)
    changes: list[Json] = []
    while drawn and len(changes) < 20:
        if drawn.byte() % 8 == 7:
            changes.append({"text": drawn.text(60)})
        else:
            ends = [{"line": drawn.number(), "character": drawn.number()} for _ in range(2)]
            changes.append({"range": {"start": ends[0], "end": ends[1]}, "text": drawn.text(30)})
    plain = ClientText(text, encoding)
    plain.change(changes)
    with small_chunks():
        before = Document.from_text(text)
        after, made = apply_changes(before, list(map(content_change, changes)), PositionEncoding(encoding))
        assert after.data.decode("utf-8") == plain.text
        assert after.line_count == plain.line_count
        assert before.apply(made).data == after.data


def framing(data: bytes) -> None:
    """However bytes arrive, the same messages are found in them, and the same end, if they are none."""
    drawn = Drawn(data)
    size = 1 + drawn.byte()
    stream = data[1:]
    whole = _framed([stream])
    assert whole == _framed([stream[at : at + size] for at in range(0, len(stream), size)])
    assert whole == _plainly_framed(stream)


def _framed(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """Return the bodies that were found, and whether it ended there."""
    reader, bodies = Framing(), []
    for piece in pieces:
        try:
            bodies += reader.feed(piece)
        except FramingError as error:
            return [*bodies, *error.before], True
    return bodies, False


def _plainly_framed(stream: bytes) -> tuple[list[bytes], bool]:
    bodies: list[bytes] = []
    while b"\r\n\r\n" in stream:
        header, _, rest = stream.partition(b"\r\n\r\n")
        if len(header) > _MAX_HEADER:
            return bodies, True
        found = [match for line in header.split(b"\n") if (match := _HEADER_ALONE.fullmatch(line))]
        digits = found[0][1].lstrip(b"0") if found else b""
        if not found or len(digits) > 12 or int(digits or b"0") > _MAX_BODY:
            return bodies, True
        length = int(digits or b"0")
        if len(rest) < length:
            return bodies, False
        bodies.append(rest[:length])
        stream = rest[length:]
    return bodies, len(stream) > _MAX_HEADER + 3


TARGETS: Final[dict[str, Target]] = {"positions": positions, "edits": edits, "framing": framing}
