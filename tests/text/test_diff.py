"""Small edits against the large one that they stand for."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lsp_charrnn.text.diff as module
from lsp_charrnn.text.diff import changed_runs, smallest_edits
from lsp_charrnn.text.document import Document, Edit

LINES = ["\n", "\n", "\r\n", "\r", "}\n", "    é = 1\n", "    è = 1\n", "😀😁", "x", "def f():\n", "    return x\r\n"]
texts = st.lists(st.sampled_from(LINES) | st.text("ab\n", max_size=4), max_size=30).map("".join)


def source(lines: int, seed: int = 0) -> list[str]:
    """Lines as source code has them: most of them once, some again and again."""
    random_ = random.Random(seed)
    often = ["\n", "    return x\n", "        }\n", "    else:\n"]
    return [
        f"    name_{line} = call({line})\n" if random_.random() < 0.6 else random_.choice(often)
        for line in range(lines)
    ]


def size(edit: Edit) -> int:
    return len(edit.new) + edit.end - edit.start


def edits_between(old: str, new: str) -> list[Edit]:
    before = Document.from_text(old)
    edits = smallest_edits(before, Edit(0, before.size, new.encode()))
    assert before.apply(edits).data == new.encode()
    return edits


@settings(deadline=None)  # a busy machine is no failure
@given(texts, texts, texts, texts)
def test_small_edits_do_what_the_large_one_does(start: str, old: str, new: str, end: str) -> None:
    before = Document.from_text(start + old + end)
    edit = Edit(len(start.encode()), before.size - len(end.encode()), new.encode())
    edits = smallest_edits(before, edit)
    assert before.apply(edits).data == before.replace(edit).data
    # From the last to the first, apart from each other, none without a change, together no more than the one.
    assert all(edit.start < edit.end or edit.new for edit in edits)
    assert all(low.end < high.start for high, low in itertools.pairwise(edits))
    trimmed = edit.trimmed(before)
    assert sum(map(size, edits)) <= size(trimmed)


@settings(deadline=None)
@given(texts, texts, st.integers(0, 60))
def test_edits_nearer_than_asked_are_one(old: str, new: str, apart: int) -> None:
    before = Document.from_text(old)
    edits = smallest_edits(before, Edit(0, before.size, new.encode()), apart)
    assert before.apply(edits).data == new.encode()
    assert all(high.start - low.end >= apart for high, low in itertools.pairwise(edits))


@settings(deadline=None)
@given(texts, texts)
def test_a_text_is_no_different_from_itself(text: str, other: str) -> None:
    assert edits_between(text, text) == []
    assert (edits_between(text, other) == []) == (text == other)


@settings(deadline=None, max_examples=30)
@given(st.data(), st.integers(0, 99))
def test_a_formatter_that_changes_three_lines_costs_three_small_edits(data: st.DataObject, seed: int) -> None:
    old = source(2000, seed)
    new = list(old)
    for _ in range(3):
        line = data.draw(st.integers(0, len(old) - 1))
        change = data.draw(st.sampled_from(["indent", "rewrite", "blank line before", "remove"]))
        text = old[line]
        new[line] = {"indent": "    " + text, "rewrite": "z\n", "blank line before": "\n" + text, "remove": ""}[change]
    edits = edits_between("".join(old), "".join(new))
    # Where what stays near a change stands elsewhere, too, it may be taken for that: a line more each.
    assert len(edits) <= 2 * 3
    assert sum(map(size, edits)) <= 2 * 3 * 40


@pytest.mark.parametrize("line", ["\n", "x\n"])
def test_lines_changed_in_place_are_found_where_all_lines_are_the_same(line: str) -> None:
    new = [line] * 2000
    for place in (100, 1000, 1900):
        new[place] = "changed\n"
    edits = edits_between(line * 2000, "".join(new))
    assert len(edits) == 3
    assert all(len(edit.new) <= len("changed\n") for edit in edits)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a\nlong enough to part\nb\n", "x\nlong enough to part\ny\n", [(22, 23, "y"), (0, 1, "x")]),
        ("a\n\nb\n", "x\n\ny\n", [(0, 4, "x\n\ny")]),  # too near to each other
        ("f(a)\nlong enough to part\n", "f(b)\nlong enough to part\nc\n", [(25, 25, "c\n"), (2, 3, "b")]),
        ("é\nlong enough to part\nz", "è\nlong enough to part\nZ", [(23, 24, "Z"), (0, 2, "è")]),
        ("", "a\n", [(0, 0, "a\n")]),
        ("a\n", "", [(0, 2, "")]),
    ],
)
def test_worked_examples(old: str, new: str, expected: list[tuple[int, int, str]]) -> None:
    assert [(edit.start, edit.end, edit.new.decode()) for edit in edits_between(old, new)] == expected


class Line:
    """A line that counts how often any is looked at."""

    looks = 0

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        Line.looks += 1
        return isinstance(other, Line) and self.text == other.text

    def __hash__(self) -> int:
        Line.looks += 1
        return hash(self.text)


def shuffled(lines: list[str]) -> list[str]:
    return random.Random(0).sample(lines, len(lines))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (source(4000), source(4000, 1)),
        (source(4000), source(4000)[::-1]),
        (source(4000), shuffled(source(4000))),
        (source(4000), sorted(source(4000))),
        ([f"a{line}" for line in range(4000)], [f"b{line}" for line in range(4000)]),
        (["x"] * 4000, ["x"] * 3000),
        (["x", "y"] * 2000, ["y", "x", "x"] * 1500),
        (source(4000), [" " + line for line in source(4000)]),
        (source(4000), source(4000)[2000:] + source(4000)[:2000]),
        # At each depth one line only stays, near the start.
        ([f"{line}" for line in range(4000)], [f"{line}" for line in range(0, 4000, 2)][::-1]),
    ],
)
def test_work_grows_with_the_lines_and_no_faster(old: list[str], new: list[str]) -> None:
    Line.looks = 0
    runs = changed_runs([Line(text) for text in old], [Line(text) for text in new])
    assert Line.looks <= (module.DEPTH + 1) * 5 * (len(old) + len(new))
    after = list(old)
    for first, last, low, high in reversed(runs):
        after[first:last] = new[low:high]
    assert after == new


def test_more_lines_than_are_compared_are_one_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = "a\nlong enough to part\nb\n", "x\nlong enough to part\ny\n"
    monkeypatch.setattr(module, "MOST_LINES", 5)
    assert [(edit.start, edit.end) for edit in edits_between(old, new)] == [(0, 23)]
