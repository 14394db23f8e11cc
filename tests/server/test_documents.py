"""The document store: changes against a plain string, paths, what is not open."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lsprotocol import types

from lsp_charrnn.errors import DocumentNotOpenError
from lsp_charrnn.server.documents import Documents, apply_changes, relative_path
from lsp_charrnn.text.document import Document
from lsp_charrnn.text.positions import PositionEncoding, offset_at

URI = "file:///project/a.py"
TEXTS = st.text(st.sampled_from("ab\n\ré😀\u2028\f\ud83d"), max_size=12)


def change(start: tuple[int, int], end: tuple[int, int], text: str) -> types.TextDocumentContentChangePartial:
    return types.TextDocumentContentChangePartial(types.Range(types.Position(*start), types.Position(*end)), text)


POSITIONS = st.tuples(st.integers(0, 5), st.integers(0, 8))
CHANGES = st.lists(
    st.one_of(
        st.builds(change, POSITIONS, POSITIONS, TEXTS),
        TEXTS.map(types.TextDocumentContentChangeWholeDocument),
    ),
    max_size=5,
)


@example(
    "\raaa", [change((1, 3), (2, 0), "a"), change((2, 0), (1, 3), "")], PositionEncoding.UTF8
)  # positions in the wrong order, one of them past the end
@given(TEXTS, CHANGES, st.sampled_from(PositionEncoding))
def test_changes_together_are_the_same_as_one_after_another(
    text: str, changes: list[types.TextDocumentContentChangeEvent], encoding: PositionEncoding
) -> None:
    start = Document.from_text(text)
    expected = start
    for one in changes:
        expected, _ = apply_changes(expected, [one], encoding)
    found, edits = apply_changes(start, changes, encoding)
    assert found.data == expected.data
    assert found.line_count == expected.line_count
    assert start.apply(edits).data == expected.data


@given(TEXTS, POSITIONS, POSITIONS, TEXTS, st.sampled_from(PositionEncoding))
def test_a_change_replaces_the_bytes_between_its_positions(
    text: str, first: tuple[int, int], last: tuple[int, int], new: str, encoding: PositionEncoding
) -> None:
    before = Document.from_text(text)
    low, high = sorted(offset_at(before, *place, encoding) for place in (first, last))
    after, _ = apply_changes(before, [change(first, last, new)], encoding)
    assert after.data == before.data[:low] + new.encode(errors="replace") + before.data[high:]


@pytest.mark.parametrize("order", [1, -1])  # editors send a replace-all from its end, formatters often from its start
def test_replacing_all_in_a_large_file_takes_no_copy_for_each(order: int) -> None:
    text = Document.from_text("one two one\n" * 100_000)
    changes = [
        one
        for line in range(1, 100_000, 20)[::order]
        for one in (change((line, 8), (line, 11), "three"), change((line, 0), (line, 3), "1"))
    ]
    began = time.perf_counter()
    after, edits = apply_changes(text, changes, PositionEncoding.UTF16)
    assert time.perf_counter() - began < 2  # a copy of 1.2 MB for each would take longer
    assert len(edits) == len(changes)
    assert after.data.count(b"1 two three") == len(changes) // 2


def test_all_of_the_text_sent_for_one_key_is_one_small_edit() -> None:
    text = Document.from_text("é = 1\n" * 10)
    after, edits = apply_changes(
        text,
        [types.TextDocumentContentChangeWholeDocument("é = 1\n" * 5 + "è = 1\n" + "é = 1\n" * 4)],
        PositionEncoding.UTF8,
    )
    assert [(edit.start, edit.end, edit.new.decode()) for edit in edits] == [(35, 37, "è")]
    assert after.data == text.apply(edits).data


def test_versions_replace_one_another_and_old_ones_stay_as_they_are() -> None:
    documents = Documents()
    first = documents.open(types.TextDocumentItem(URI, "python", 1, "a\nb"), "a.py")
    second, edits = documents.change(URI, 2, [change((1, 0), (1, 1), "c")])
    assert (first.text.data, second.text.data) == (b"a\nb", b"a\nc")
    assert (second.text.version, second.language, second.path) == (2, "python", "a.py")
    assert [(edit.start, edit.end, edit.new) for edit in edits] == [(2, 3, b"c")]
    assert documents.get(URI) is second
    assert documents.close(URI) is second
    assert documents.close(URI) is None
    assert list(documents) == []


def test_what_is_not_open_is_an_error_that_names_it() -> None:
    documents = Documents()
    with pytest.raises(DocumentNotOpenError, match=r"a\.py is not open"):
        documents.get(URI)
    with pytest.raises(DocumentNotOpenError):
        documents.change(URI, 1, [])


@pytest.mark.parametrize(
    ("uri", "roots", "path"),
    [
        ("file:///project/a/b.py", ["file:///project"], "a/b.py"),
        ("file:///project/a/b.py", ["file:///project/", "file:///project/a"], "b.py"),
        ("file:///project/a/b.py", ["file:///proj"], "b.py"),
        ("file:///project/a/b.py", [], "b.py"),
        ("file:///b.py", ["file:///"], "b.py"),
        ("file:///c%3A/Users/x/my%20file.py", ["file:///c:/Users"], "x/my file.py"),
        ("file://server/share/a.py", ["file://server/share"], "a.py"),
        ("untitled:Untitled-1", ["file:///project"], "Untitled-1"),
        ("vscode-notebook-cell:/project/a.ipynb#X10", ["file:///project"], "a.ipynb"),
        ("C:\\code\\a.py", ["C:\\code"], "a.py"),
        ("", [], ""),
    ],
)
def test_relative_path(uri: str, roots: list[str], path: str) -> None:
    assert relative_path(uri, roots) == path
