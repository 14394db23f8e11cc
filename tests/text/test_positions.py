"""Positions against Python's own codecs, one character at a time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lsp_charrnn.text.document as document_module
from lsp_charrnn.text.document import Document
from lsp_charrnn.text.positions import PositionEncoding, offset_at, position_at

PIECES = [
    "\n",
    "\r\n",
    "\r",
    "\f",
    "\x85",
    "\u2028",
    "é",
    "中",
    "😀",
    "\U0010ffff",
    "e\u0301",
    "a",
    "b = 1",
    "\t",
]
texts = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
encodings = pytest.mark.parametrize("encoding", PositionEncoding)


@pytest.fixture(scope="module", params=[16, document_module.CHUNK], ids=lambda size: f"chunks of {size}")
def _chunk_size(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document_module, "CHUNK", request.param)
        yield


# With chunks so small that lines go on from one to the next, and with those that are used.
any_chunks = pytest.mark.usefixtures("_chunk_size")


def units(text: str, encoding: PositionEncoding) -> int:
    """The oracle: how many units of `encoding` Python writes `text` in."""
    codec, width = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}[encoding.value]
    return len(text.encode(codec)) // width


def lines_of(text: str) -> list[tuple[int, str]]:
    """(offset, text without its line end) of each line."""
    parts = re.split(r"(\r\n|\r|\n)", text)
    return [(len("".join(parts[:index]).encode()), parts[index]) for index in range(0, len(parts), 2)]


@any_chunks
@encodings
@settings(deadline=None)  # a busy machine is no failure
@given(text=texts)
def test_positions_of_characters_go_there_and_back(encoding: PositionEncoding, text: str) -> None:
    document = Document.from_text(text)
    for line, (start, content) in enumerate(lines_of(text)):
        for index in range(len(content) + 1):
            offset = start + len(content[:index].encode())
            character = units(content[:index], encoding)
            assert position_at(document, offset, encoding) == (line, character)
            assert offset_at(document, line, character, encoding) == offset


@any_chunks
@encodings
@settings(deadline=None)  # a busy machine is no failure
@given(text=texts)
def test_every_character_index_finds_a_place(encoding: PositionEncoding, text: str) -> None:
    document = Document.from_text(text)
    for line, (start, content) in enumerate(lines_of(text)):
        width = units(content, encoding)
        for character in [*range(-2, width + 3), 2**31 - 1]:
            # The longest prefix of whole characters that is no more than `character` units.
            prefix = max(
                (content[:index] for index in range(len(content) + 1)),
                key=lambda prefix: (units(prefix, encoding) <= max(character, 0), len(prefix)),
            )
            if units(prefix, encoding) > max(character, 0):
                prefix = ""
            assert offset_at(document, line, character, encoding) == start + len(prefix.encode())


@any_chunks
@encodings
@settings(deadline=None)  # a busy machine is no failure
@given(text=texts)
def test_every_offset_finds_a_position(encoding: PositionEncoding, text: str) -> None:
    document = Document.from_text(text)
    expected: list[tuple[int, int]] = []
    for line, (_, content) in enumerate(lines_of(text)):
        for index, character in enumerate(content):
            expected += [(line, units(content[:index], encoding))] * len(character.encode())
        end = document.line_bounds(line + 1)[0] if line + 1 < document.line_count else len(document.data) + 1
        # Both bytes of a \r\n, and the end of the text, are read as the end of the line's text.
        expected += [(line, units(content, encoding))] * (int(end) - len(expected))
    assert [position_at(document, offset, encoding) for offset in range(len(document.data) + 1)] == expected


@pytest.mark.parametrize(
    ("encoding", "character", "offset"),
    [
        ("utf-8", 2, 1),  # the middle of é
        ("utf-8", 3, 3),
        ("utf-8", 5, 3),  # the middle of 😀
        ("utf-16", 2, 3),
        ("utf-16", 3, 3),  # between its surrogates
        ("utf-16", 4, 7),
        ("utf-16", 5, 8),
        ("utf-16", 6, 8),  # past the line's text: before its \r\n
        ("utf-32", 3, 7),
        ("utf-32", 99, 8),
    ],
)
def test_worked_example(encoding: str, character: int, offset: int) -> None:
    document = Document.from_text("xé😀y\r\nz")  # x at 0, é at 1, 😀 at 3, y at 7, \r at 8
    assert offset_at(document, 0, character, PositionEncoding(encoding)) == offset


@encodings
def test_positions_outside_the_document(encoding: PositionEncoding) -> None:
    document = Document.from_text("é\r\nb\n")
    assert offset_at(document, 2, 0, encoding) == 6  # the empty last line
    assert offset_at(document, 2, 5, encoding) == 6
    assert offset_at(document, 3, 0, encoding) == 6
    assert offset_at(document, -1, 5, encoding) == 0
    assert offset_at(document, 1, -1, encoding) == 4
    assert offset_at(Document.from_text(""), 0, 1, encoding) == 0
    assert position_at(Document.from_text(""), 0, encoding) == (0, 0)
    for offset in (-1, 7):
        with pytest.raises(ValueError, match="outside"):
            position_at(document, offset, encoding)


@encodings
@pytest.mark.parametrize("unit", ["a", "中", "ab é 中 😀 "])
def test_a_line_of_a_megabyte_takes_no_loop_over_its_characters(encoding: PositionEncoding, unit: str) -> None:
    line = unit * (1_000_000 // len(unit.encode()))
    document = Document.from_text("first\n" + line + "\nlast")
    character, offset = units(line, encoding), 6 + len(line.encode())
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        assert offset_at(document, 1, character, encoding) == offset
        assert position_at(document, offset, encoding) == (1, character)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.03  # well below a ms; the bound leaves room for a busy machine
