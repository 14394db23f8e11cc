"""Documents against a plain bytes object, and their line starts against a scan of the whole text."""

from __future__ import annotations

import io
import itertools
import random
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import lsp_charrnn.text.document as module
from lsp_charrnn.text.document import Document, Edit

# LSP's line ends; what only str.splitlines takes for one; characters of 2 to 4 bytes; plain code.
PIECES = [
    "\n",
    "\r\n",
    "\r",
    "\n",
    "\r",
    "\v",
    "\f",
    "\x1c",
    "\x85",
    "\u2028",
    "é",
    "中",
    "😀",
    "a",
    "b = 1",
    "    ",
]
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def scanned_line_starts(data: bytes) -> list[int]:
    """The slow reference: every line start of `data`, from scratch."""
    return [0] + [end.end() for end in re.finditer(rb"\r\n|\r|\n", data)]


def starts_of(document: Document) -> list[int]:
    return [document.line_bounds(line)[0] for line in range(document.line_count)]


def check(document: Document, data: bytes, version: int | None = None) -> None:
    """Everything that is true of a document which holds `data`."""
    assert document.data == data
    assert document.size == len(data)
    assert starts_of(document) == scanned_line_starts(data)
    assert document.version == version
    check_chunks(document)


def check_chunks(document: Document) -> None:
    """What keeps an edit as cheap after a long history as after the first key, and lets chunks be read alone."""
    pieces = [chunk.data for chunk in document._chunks]
    assert all(pieces) or pieces == [b""]
    assert max(map(len, pieces)) <= module.CHUNK
    for piece, following in itertools.pairwise(pieces):
        piece.decode()
        assert not (piece.endswith(b"\r") and following.startswith(b"\n"))
        assert min(len(piece), len(following)) >= module.CHUNK // 4 - 3  # borders move by a character at most
    text = document.data.decode()
    assert document._table[:, 0].tolist() == [0, 0, 0, 0]
    assert document._table[:, -1].tolist() == [
        document.size,
        len(scanned_line_starts(document.data)) - 1,
        len(text.encode("utf-16-le")) // 2,
        len(text),
    ]
    assert not document._table.flags.writeable


@pytest.fixture(scope="module", params=[16, 24, module.CHUNK], ids=lambda size: f"chunks of {size}")
def _chunk_size(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", request.param)
        yield


# With chunks so small that every edit meets their borders, and with those that are used.
any_chunks = pytest.mark.usefixtures("_chunk_size")


def positions_of(text: str) -> list[int]:
    """The byte offsets that edits of `text` may begin and end at."""
    return [len(text[:index].encode()) for index in range(len(text) + 1)]


@any_chunks
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("\n", ["", ""]),
        ("a", ["a"]),
        ("a\n", ["a", ""]),
        ("a\r\nb\rc\nd", ["a", "b", "c", "d"]),
        ("\r\r\n\n\n\r", ["", "", "", "", "", ""]),
        ("a\fb\vc\x1cd\x85e\u2028f\u2029g", ["a\fb\vc\x1cd\x85e\u2028f\u2029g"]),
    ],
)
def test_lines(text: str, lines: list[str]) -> None:
    document = Document.from_text(text, version=3)
    check(document, text.encode(), version=3)
    bounds = [document.line_bounds(line) for line in range(document.line_count)]
    assert [document.data[start:end].decode() for start, end in bounds] == lines


@any_chunks
@settings(deadline=None)  # a busy machine is no failure
@given(texts)
def test_lines_are_those_of_pythons_universal_newlines(text: str) -> None:
    with_ends = io.StringIO(text, newline="").readlines()
    if not with_ends or with_ends[-1][-1] in "\r\n":
        with_ends.append("")
    document = Document.from_text(text)
    for line, expected in enumerate(with_ends):
        start, end = document.line_bounds(line)
        assert start == starts_of(document)[line]
        assert document.data[start:end].decode() == expected.rstrip("\r\n")
    assert document.line_count == len(with_ends)


@any_chunks
@settings(deadline=None)  # a busy machine is no failure
@given(texts)
def test_line_at_finds_the_line_of_every_byte(text: str) -> None:
    document = Document.from_text(text)
    expected = [line for line, piece in enumerate(re.split(rb"(?<=\n)|(?<=\r)(?!\n)", text.encode())) for _ in piece]
    assert [document.line_at(offset) for offset in range(len(expected))] == expected
    assert document.line_at(len(document.data)) == document.line_count - 1


@any_chunks
def test_newline_is_the_first_line_end() -> None:
    assert Document.from_text("a\r\nb\nc").newline == b"\r\n"
    assert Document.from_text("a\rb\r\nc").newline == b"\r"
    assert Document.from_text("a\nb\r\nc").newline == b"\n"
    assert Document.from_text("\r\n").newline == b"\r\n"
    assert Document.from_text("a\f\u2028b").newline == b"\n"
    assert Document.from_text("").newline == b"\n"


def test_lone_surrogates_become_question_marks() -> None:
    assert Document.from_text("a\ud83d\nb\udc00").data == b"a?\nb?"


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        Document.from_text(b"caf\xe9")
    with pytest.raises(UnicodeDecodeError):
        Document.from_text("café").replace(Edit(0, 0, b"\xff"))


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (2, 1), (0, 7), (7, 7), (-3, -1)])
def test_edit_out_of_range(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="outside the document of 6 bytes"):
        Document.from_text("abc\r\n.").replace(Edit(start, end, b"x"))


@pytest.mark.parametrize(("start", "end"), [(1, 4), (0, 2), (2, 2), (0, 3)])
def test_edit_within_a_character(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="within a character"):
        Document.from_text("😀a").replace(Edit(start, end, b"x"))


def test_lines_and_offsets_out_of_range() -> None:
    document = Document.from_text("a\nb")
    for line in (-1, 2):
        with pytest.raises(IndexError):
            document.line_bounds(line)
    for offset in (-1, 4):
        with pytest.raises(ValueError, match="outside"):
            document.line_at(offset)


def test_repr_keeps_the_text_out_of_logs() -> None:
    assert repr(Document.from_text("secret", version=4)) == "Document(version=4)"


@any_chunks
@pytest.mark.parametrize(
    ("before", "edit", "after"),
    [
        ("a\r\nb", Edit(2, 3, b""), "a\rb"),  # the \n of a \r\n goes
        ("a\r\nb", Edit(1, 2, b""), "a\nb"),  # its \r goes
        ("a\r\nb", Edit(2, 2, b"x"), "a\rx\nb"),  # the two are parted
        ("a\rb", Edit(2, 2, b"\n"), "a\r\nb"),  # a \n joins the \r before it
        ("a\nb", Edit(1, 1, b"\r"), "a\r\nb"),  # a \r joins the \n behind it
        ("a\rx\nb", Edit(2, 3, b""), "a\r\nb"),  # what stood between them goes
        ("a\r", Edit(2, 2, b"\n"), "a\r\n"),
        ("\n", Edit(0, 0, b"\r"), "\r\n"),
    ],
)
def test_edits_at_the_borders_of_crlf(before: str, edit: Edit, after: str) -> None:
    check(Document.from_text(before).replace(edit, version=8), after.encode(), version=8)


@any_chunks
def test_every_edit_of_every_short_text() -> None:
    def strings(longest: int) -> list[bytes]:
        return [
            b"".join(pieces)
            for length in range(longest + 1)
            for pieces in itertools.product((b"a", b"\r", b"\n"), repeat=length)
        ]

    insertions = strings(2)
    starts = {data: scanned_line_starts(data) for data in strings(6)}
    for data in strings(4):
        document = Document.from_text(data)
        assert starts_of(document) == starts[data]
        for start, end in itertools.combinations_with_replacement(range(len(data) + 1), 2):
            for new in insertions:
                after = document.replace(Edit(start, end, new))
                assert after.data == data[:start] + new + data[end:]
                assert starts_of(after) == starts[after.data], (data, start, end, new)


@any_chunks
def test_apply_takes_each_edit_relative_to_the_one_before() -> None:
    document = Document.from_text("ab\r\ncd", version=1)
    edits = [
        Edit(0, 0, "é".encode()),
        Edit(2, 3, b""),
        Edit(4, 5, b""),
        Edit(0, 6, b"\n"),
        Edit(1, 1, b"end"),
    ]
    check(document.apply(edits, version=2), b"\nend", version=2)
    check(document.apply([], version=2), b"ab\r\ncd", version=2)
    with pytest.raises(ValueError, match="outside"):
        document.apply([Edit(0, 6, b""), Edit(1, 1, b"a")])
    check(document, b"ab\r\ncd", version=1)


@any_chunks
@settings(deadline=None)  # a busy machine is no failure
@given(texts.map(lambda text: text * 3), st.data())
def test_slices_are_those_of_the_bytes(text: str, data: st.DataObject) -> None:
    document, expected = Document.from_text(text), text.encode()
    places = st.integers(-len(expected) - 2, len(expected) + 2)
    for _ in range(8):
        start, end = data.draw(places), data.draw(places)
        assert document.slice(start, end) == expected[start:end]
    for offset in range(len(expected) + 1):
        assert document.slice(offset, offset + 1) == expected[offset : offset + 1]


class Edits(RuleBasedStateMachine):
    """Any history of edits gives the document of its final text and leaves those before as they were."""

    @initialize(text=texts, size=st.sampled_from([16, 24, 40]))
    def start(self, text: str, size: int) -> None:
        self.used = module.CHUNK
        module.CHUNK = size
        self.text = text
        self.document = Document.from_text(text)
        self.version: int | None = None
        self.history: list[tuple[Document, bytes, int | None]] = [(self.document, text.encode(), None)]

    def draw_edit(self, data: st.DataObject, text: str) -> tuple[Edit, str]:
        offsets = positions_of(text)
        first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        new = data.draw(texts)
        return Edit(offsets[first], offsets[last], new.encode()), text[:first] + new + text[last:]

    def moved_on(self, document: Document) -> None:
        self.document = document
        self.history.append((document, self.text.encode(), self.version))

    @rule(data=st.data(), version=st.none() | st.integers(0, 9))
    def replace(self, data: st.DataObject, version: int | None) -> None:
        edit, self.text = self.draw_edit(data, self.text)
        self.version = version
        self.moved_on(self.document.replace(edit, version))

    @rule(data=st.data(), count=st.integers(0, 4), version=st.integers(0, 9))
    def apply(self, data: st.DataObject, count: int, version: int) -> None:
        edits = []
        for _ in range(count):
            edit, self.text = self.draw_edit(data, self.text)
            edits.append(edit)
        self.version = version
        self.moved_on(self.document.apply(edits, version))

    @rule(data=st.data(), times=st.integers(2, 20))
    def paste(self, data: st.DataObject, times: int) -> None:
        new = data.draw(texts) * times
        at = data.draw(st.integers(0, len(self.text)))
        offset = positions_of(self.text)[at]
        self.text, self.version = self.text[:at] + new + self.text[at:], None
        self.moved_on(self.document.replace(Edit(offset, offset, new.encode())))

    @rule(text=texts)
    def replace_all(self, text: str) -> None:
        self.text, self.version = text, None
        self.moved_on(self.document.replace(Edit(0, self.document.size, text.encode())))

    @invariant()
    def equals_the_text_read_from_scratch(self) -> None:
        check(self.document, self.text.encode(), self.version)

    def teardown(self) -> None:
        for document, data, version in self.history:
            check(document, data, version)
        module.CHUNK = self.used


TestEdits = Edits.TestCase
TestEdits.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


@any_chunks
@pytest.mark.parametrize("alphabet", ["\r\n", "a\r\n", "abc\n", "aé中😀\r\n", "😀"])
def test_long_histories_of_growing_and_shrinking(alphabet: str) -> None:
    random_ = random.Random(alphabet)
    text, document = "", Document.from_text("")
    for step in range(1500):
        start = random_.randint(0, len(text))
        # Mostly keys; grows and shrinks in turns, so that chunks are parted and joined again.
        end = min(len(text), start + random_.choice([0, 1, 1, 40] if step // 150 % 2 else [0, 0, 0, 1]))
        new = "".join(random_.choices(alphabet, k=random_.choice([0, 1, 1, 30] if step % 4 == 0 else [0, 1, 2])))
        offset = len(text[:start].encode())
        edit = Edit(offset, offset + len(text[start:end].encode()), new.encode())
        text = text[:start] + new + text[end:]
        document = document.replace(edit)
        if step % 10 == 0:
            check(document, text.encode())
        else:
            check_chunks(document)
    check(document, text.encode())


def test_an_edit_of_a_large_document_shares_all_chunks_but_those_it_touches() -> None:
    line = b"    return some.value(of, the, usual, length)\r\n"
    document = Document.from_text(line * (2_000_000 // len(line)))
    after = document
    middle = len(line) * (document.line_count // 2)
    for key in range(10):
        after = after.replace(Edit(middle + key, middle + key, b"x"))
    old = {id(chunk) for chunk in document._chunks}
    assert len(old) > 100
    assert sum(id(chunk) not in old for chunk in after._chunks) <= 2
    assert after.size == document.size + 10


def test_one_long_line_is_in_many_chunks() -> None:
    document = Document.from_text(b"x = [" + b"0, " * 300_000 + b"]")
    assert len(document._chunks) > 50
    check(document.replace(Edit(500_000, 500_001, b"\n")), document.data[:500_000] + b"\n" + document.data[500_001:])


@pytest.mark.parametrize("compared", [1, 3, module._COMPARED])
@settings(deadline=None)  # a busy machine is no failure
@given(texts, texts, texts, texts, texts)
def test_trimmed_is_the_same_change_without_what_stays(
    compared: int, start: str, old: str, end: str, same: str, new: str
) -> None:
    before = Document.from_text(start + same + old + same + end)
    edit = Edit(len(start.encode()), before.size - len(end.encode()), (same + new + same).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_COMPARED", compared)
        trimmed = edit.trimmed(before)
    assert before.replace(trimmed).data == before.replace(edit).data
    left, put = before.slice(trimmed.start, trimmed.end).decode(), trimmed.new.decode()
    assert not (left and put and (left[0] == put[0] or left[-1] == put[-1]))
    if old == new:
        assert (left, put) == ("", "")


def test_trimmed_parts_no_character() -> None:
    before = Document.from_text("a中b")  # e4 b8 ad
    assert Edit(1, 4, "丰".encode()).trimmed(before) == Edit(1, 4, "丰".encode())  # e4 b8 b0
    assert Edit(1, 4, "䬭".encode()).trimmed(before) == Edit(1, 4, "䬭".encode())  # e4 ac ad
    assert Edit(0, 5, "a中xb".encode()).trimmed(before) == Edit(4, 4, b"x")
    assert Edit(0, 5, "a中b".encode()).trimmed(before).new == b""
