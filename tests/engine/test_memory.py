"""Counts are what counting byte by byte gives, and a document's are exact after any history of edits, or not there.

What a context is, is `contexts`' to say: `test_contexts` has the obvious definition, which serves here too.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_contexts import window

from lsp_charrnn.engine.contexts import KINDS, ORDERS, REACH, Lanes, keys_of_text
from lsp_charrnn.engine.memory import EMPTY, Block, Counts, DocumentCounts, look_up
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.symbols import normalise

ALL = 1 << 30  # a radius that reaches around any text
PIECES = [
    *("a", "b", "\n", "\r\n", "\r", "\r", "\n", " ", "é", "中", "😀", "_", "foo", "foo(x)", "    ", "\n\n", "x = 1"),
    "return self\r\n",
]
texts = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
sizes = st.sampled_from([0, 0, 1, 1, 3, 30, 100, 400])
shares = st.floats(0, 1)

# --- counting, byte by byte


def counted(text: bytes, *, first: int = 0, end: int | None = None) -> Counter[int]:
    """Count the symbols [first, end) of a text that has been read."""
    keys = (keys_of_text(text) | np.frombuffer(text, dtype=np.uint8))[:, first:end]
    return Counter(keys.ravel().tolist())


def across(text: bytes, cut: int, *, first: int = 0, end: int | None = None) -> Counter[int]:
    """Count those of the symbols [first, end) that stand behind `cut`, with the contexts that begin before it."""
    keys = keys_of_text(text)
    places = range(max(first, cut), min(len(text) if end is None else end, cut + REACH))
    return Counter(
        keys.item(kind, place) | text[place]
        for place, kind in itertools.product(places, range(KINDS))
        if place - len(window(text[max(0, place - REACH) : place], kind)) < cut
    )


def as_counter(counts: Counts) -> dict[int, int]:
    """What counts hold, once it is seen that they are as they should be."""
    assert (counts.keys[1:] > counts.keys[:-1]).all()
    assert (counts.counts != 0).all()
    assert counts.keys.dtype == np.uint64
    assert counts.counts.dtype == np.int32
    return dict(zip(counts.keys.tolist(), counts.counts.tolist(), strict=True))


def summed(tables: Sequence[Counts]) -> dict[int, int]:
    return as_counter(Counts.sum([(table, 1) for table in tables]))


def read(text: str) -> bytes:
    return normalise(text.encode())


@settings(deadline=None, max_examples=60)
@given(st.lists(texts, max_size=4))
def test_texts_are_counted_each_from_its_beginning(parts: list[str]) -> None:
    expected: Counter[int] = Counter()
    for part in parts:
        expected += counted(read(part))
    assert as_counter(Counts.of_texts(map(read, parts))) == expected
    assert as_counter(Counts.of_texts(iter(map(read, reversed(parts))))) == expected


@settings(deadline=None, max_examples=60)
@given(texts, shares)
def test_a_text_in_two_blocks_is_the_whole(text: str, share: float) -> None:
    data = read(text)
    at = round(share * len(data))
    parts = [Block(b"", data[:at]), Block(data[max(0, at - REACH) : at], data[at:])]
    assert as_counter(Counts.of(parts)) == counted(data)
    separately = Counts.sum([(Counts.of([part]), 1) for part in parts])
    assert as_counter(separately) == counted(data)


@settings(deadline=None, max_examples=60)
@given(texts, shares)
def test_what_is_to_the_right_counts_where_a_context_reaches_back_to_it(text: str, share: float) -> None:
    data = read(text) + b"a_b c = foo(x)\n" * 8
    at = round(share * len(data))
    left, right = data[max(0, at - REACH) : at], data[at : at + REACH]
    expected = across(data, at)
    assert as_counter(Counts.of([Block(left, b"", right, cut=True)])) == expected
    assert as_counter(Counts.of([Block(left, b"", right, sign=-1, cut=True)])) == {k: -n for k, n in expected.items()}


@settings(deadline=None, max_examples=60)
@given(texts, texts, texts, texts)
def test_blocks_say_what_an_edit_changes(before: str, old: str, new: str, behind: str) -> None:
    left, right = read(before), read(behind) + b"a_b c = foo(x)\n" * 8
    counts = [Counts.of_texts([left + read(middle) + right]) for middle in (old, new)]
    blocks = [Block(left[-REACH:], read(middle), right[:REACH], sign) for middle, sign in ((old, -1), (new, 1))]
    assert as_counter(Counts.sum([(counts[0], 1), (Counts.of(blocks), 1)])) == as_counter(counts[1])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(texts, st.sampled_from([1, 1, -1, 3, -2])), max_size=5))
def test_sums_have_signs(parts: list[tuple[str, int]]) -> None:
    expected: Counter[int] = Counter()
    for text, sign in parts:
        for key, number in counted(read(text)).items():
            expected[key] += sign * number
    found = Counts.sum([(Counts.of_texts([read(text)]), sign) for text, sign in parts])
    assert as_counter(found) == {key: number for key, number in expected.items() if number}


def test_nothing_counts_nothing() -> None:
    for counts in (
        Counts.of([]),
        Counts.of_texts([b""]),
        Counts.of_texts([]),
        Counts.sum([]),
        Counts.of([Block(b"ab", b"")]),
    ):
        assert as_counter(counts) == {}
        assert len(counts) == counts.bytes_used == 0
    some = Counts.of_texts([b"def f(x):\n"])
    assert as_counter(Counts.sum([(some, 1), (some, -1)])) == {}
    assert as_counter(Counts.of([Block(b"", b"abc"), Block(b"", b"abc", sign=-1)])) == {}
    assert some.bytes_used == 12 * len(some)


# --- looking up


def found_in(tables: Sequence[Counts], contexts: Sequence[int]) -> list[dict[int, int]]:
    """What has followed each context, once it is seen that it stands in order."""
    found = look_up([tables], np.array(contexts, dtype=np.uint64))
    assert found.contexts == len(contexts)
    assert len(found.rows) == len(found.symbols) == len(found.counts)
    places = list(zip(found.rows.tolist(), found.symbols.tolist(), strict=True))
    assert places == sorted(set(places))
    followed: list[dict[int, int]] = [{} for _ in contexts]
    for (row, symbol), number in zip(places, found.counts.tolist(), strict=True):
        followed[row][symbol] = number
    return followed


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(texts, st.booleans()), min_size=1, max_size=5), texts, st.data())
def test_what_is_found_is_what_the_tables_hold_together(
    parts: list[tuple[str, bool]], other: str, data: st.DataObject
) -> None:
    """Some of what the first table holds is taken out again by others, as an edit does."""
    tables = [Counts.of_texts([read(text) for text, _ in parts])]
    tables += [Counts.sum([(Counts.of_texts([read(text)]), -1)]) for text, gone in parts if gone]
    tables += [Counts.of_texts([read(other)]), EMPTY]
    tables = data.draw(st.permutations(tables))
    expected: Counter[int] = counted(read(other))
    for text, gone in parts:
        if not gone:
            expected += counted(read(text))
    asked = keys_of_text(read("".join(text for text, _ in parts)) + b"?").T.ravel().tolist()
    asked += Lanes(read(other)).keys().ravel().tolist()
    asked = data.draw(st.permutations(asked[:60])) + asked[-20:]  # in any order, and some twice
    for context, followed in zip(asked, found_in(tables, asked), strict=True):
        assert followed == {key & 0xFF: number for key, number in expected.items() if key & ~0xFF == context}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.tuples(texts, st.booleans()), max_size=3), max_size=3), texts)
def test_memories_are_looked_up_beside_each_other(parts: list[list[tuple[str, bool]]], asked: str) -> None:
    """What the second holds comes behind what the first does, and nothing is added across them."""
    memories = []
    for memory in parts:
        tables = [Counts.of_texts([read(text) for text, _ in memory])]
        memories.append(
            [*tables, *(Counts.sum([(Counts.of_texts([read(text)]), -1)]) for text, gone in memory if gone)]
        )
    contexts = keys_of_text(read(asked + "".join(text for memory in parts for text, _ in memory)) + b"?")[
        :, -40:
    ].ravel()
    found = look_up(memories, contexts)
    assert found.contexts == len(contexts)
    separately = [look_up([tables], contexts) for tables in memories]
    rows = [one.rows + index * len(contexts) for index, one in enumerate(separately)]
    assert found.rows.tolist() == [row for one in rows for row in one.tolist()]
    assert found.symbols.tolist() == [symbol for one in separately for symbol in one.symbols.tolist()]
    assert found.counts.tolist() == [number for one in separately for number in one.counts.tolist()]


def test_where_there_is_nothing_nothing_is_found() -> None:
    some = Counts.of_texts([b"abcabcabc"])
    unknown = Lanes(b"xyzxyz").keys().ravel().tolist()
    for tables in ([], [EMPTY], [some], [some, EMPTY], [some, Counts.sum([(some, -1)])]):
        assert found_in(tables, unknown) == [{}] * KINDS
        assert found_in(tables, []) == []
    known = Lanes(b"abcabc").keys()[:, 0].tolist()
    assert found_in([some], known)[0] == {ord("a"): 2}
    assert found_in([some, Counts.sum([(some, -1)])], known) == [{}] * KINDS


def test_all_bytes_may_follow_a_context() -> None:
    """The first and the last of them, too: a key's neighbours are other contexts'."""
    texts_of = [b"abcd" + bytes((byte,)) * (byte % 3 + 1) for byte in range(256)]
    table = Counts.of_texts(texts_of)
    followed = found_in([table], Lanes(b"abcd").keys()[:, 0].tolist())
    for kind in range(len(ORDERS)):
        assert followed[kind] == dict.fromkeys(range(256), 1)


# --- the open document


def expected_at(document: Document, cursors: Sequence[int], start: int, end: int) -> list[Counter[int]]:
    """Count the bytes [start, end) of a document for each of `cursors`, that it is parted at."""
    data = document.data
    text = normalise(data)
    first, last = len(normalise(data[:start])), len(normalise(data[:end]))
    whole = counted(text, first=first, end=last)
    return [whole - across(text, len(normalise(data[:cursor])), first=first, end=last) for cursor in cursors]


class Histories(RuleBasedStateMachine):
    """One document, and who follows it. `start` and `end` are what has been counted of it, as it stands now."""

    radius = ALL
    most = 700  # bytes: more are not typed, for the oracle is slow

    def __init__(self) -> None:
        super().__init__()
        self.document = Document.from_text("")
        self.counts = DocumentCounts()
        self.start = self.end = 0
        self.there = False
        self.cursor = 0

    @initialize(text=texts, share=shares)
    def open(self, text: str, share: float) -> None:
        assert self.counts.at(self.document, 0) == ()  # nothing has been counted
        assert not self.counts.covers(0, 0)
        self.document = Document.from_text(text)
        self.count(share, [])

    def offset(self, share: float) -> int:
        return self.document.character_start(round(share * self.document.size))

    def count(self, share: float, edits: list[tuple[float, int, str]]) -> None:
        """Count around a place while edits come in."""
        base = DocumentCounts.build(self.document, self.offset(share), self.radius)
        self.start, self.end, self.there = base.start, base.end, True
        # A line's end is not parted, and what is counted reaches as far as was asked for.
        assert self.document.slice(base.start - 1, base.start + 1) != b"\r\n" or base.start == 0
        assert self.document.slice(base.end - 1, base.end + 1) != b"\r\n"
        done = [self.apply(self.drawn(*edit)) for edit in edits]
        self.counts.install(base, done)

    def drawn(self, share: float, length: int, new: str) -> Edit:
        start = self.offset(share)
        end = self.document.character_start(min(start + length, self.document.size))
        return Edit(start, max(start, end), new.encode() if self.document.size < self.most else b"")

    def apply(self, edit: Edit) -> Edit:
        """Change the text, and what is known to have been counted of it."""
        self.document = self.document.replace(edit)
        moved = len(edit.new) - (edit.end - edit.start)
        if self.there and edit.start <= self.end and edit.end >= self.start:
            self.end += moved  # should part of it lie outside, then nothing must be said to be counted any more
        elif edit.end < self.start:
            self.start, self.end = self.start + moved, self.end + moved
        self.cursor = edit.start + len(edit.new)
        return edit

    @rule(share=shares, length=sizes, new=texts)
    def edit(self, share: float, length: int, new: str) -> None:
        self.counts.edit(self.apply(self.drawn(share, length, new)))

    @rule(length=sizes, new=texts)
    def edit_at_the_beginning(self, length: int, new: str) -> None:
        self.counts.edit(self.apply(self.drawn(0, length, new)))

    @rule(length=sizes, new=texts)
    def edit_at_the_end(self, length: int, new: str) -> None:
        start = self.document.character_start(max(0, self.document.size - length))
        self.counts.edit(self.apply(Edit(start, self.document.size, new.encode()[:200] if new.isascii() else b"")))

    @rule(text=texts)
    def type_on(self, text: str) -> None:
        for character in text[:10]:
            self.counts.edit(self.apply(Edit(self.cursor, self.cursor, character.encode())))

    @rule(length=st.integers(1, 5))
    def delete_backwards(self, length: int) -> None:
        for _ in range(length):
            if self.cursor:
                start = self.document.character_start(self.cursor - 1)
                self.counts.edit(self.apply(Edit(start, self.cursor, b"")))

    @rule(
        old=st.sampled_from([b"foo", b"\r\n", b"\r", b"a", b"\n", b"x = 1"]), new=st.sampled_from([b"", b"\r", b"b\n"])
    )
    def replace_all(self, old: bytes, new: bytes) -> None:
        """In many places with one key, each edit relative to the text that the one before it has made."""
        at = self.document.data.find(old)
        while at >= 0:
            self.counts.edit(self.apply(Edit(at, at + len(old), new)))
            at = self.document.data.find(old, at + len(new))

    @rule(new=texts)
    def replace_the_whole(self, new: str) -> None:
        self.counts.edit(self.apply(Edit(0, self.document.size, new.encode())))

    @rule(share=shares, edits=st.lists(st.tuples(shares, sizes, texts), max_size=3))
    def count_anew(self, share: float, edits: list[tuple[float, int, str]]) -> None:
        self.count(share, edits)

    # --- what must hold

    @precondition(lambda self: self.there)
    @invariant()
    def counts_the_text_parted_at_the_cursor_or_nothing(self) -> None:
        cursors = [self.cursor, self.offset(0.4), max(0, self.end - 20), *self.edges()]
        for cursor, expected in zip(cursors, expected_at(self.document, cursors, self.start, self.end), strict=True):
            found = self.counts.at(self.document, cursor)
            if found:
                assert summed(found) == expected, cursor
            else:
                assert not self.counts.covers(cursor, 0)
                assert self.may_be_nothing(cursor)

    def edges(self) -> list[int]:
        return [0, self.document.size]

    def may_be_nothing(self, cursor: int) -> bool:
        """Whether there is a reason not to know: none where the whole text was counted, and changed a little."""
        return False

    @precondition(lambda self: self.there)
    @invariant()
    def covers_no_more_than_was_counted(self) -> None:
        for cursor, radius in itertools.product((self.cursor, 0, self.document.size), (0, 60, 400)):
            if self.counts.covers(cursor, radius):
                assert self.counts.at(self.document, cursor) != ()
                assert self.start <= max(0, cursor - radius // 2)
                assert self.end >= min(self.document.size, cursor + radius // 2)


class PartlyCounted(Histories):
    """What is counted is less than the text: edits at its edges and outside of it make it unknown."""

    radius = 300
    most = 2500

    @initialize(text=texts, share=shares)
    def open(self, text: str, share: float) -> None:
        self.document = Document.from_text(("x = foo(a)\r\n" * 25 + text) * 3)
        self.count(share, [])

    def edges(self) -> list[int]:
        return [self.start, self.end, self.document.size]

    def may_be_nothing(self, cursor: int) -> bool:
        return True


Histories.TestCase.settings = settings(deadline=None, max_examples=30, stateful_step_count=12)
TestHistories = Histories.TestCase
PartlyCounted.TestCase.settings = settings(deadline=None, max_examples=25, stateful_step_count=8)
TestPartlyCounted = PartlyCounted.TestCase


def following(text: str, cursor: int = 0, radius: int = ALL) -> tuple[Document, DocumentCounts]:
    document, counts = Document.from_text(text), DocumentCounts()
    counts.install(DocumentCounts.build(document, cursor, radius), [])
    return document, counts


def follows(counts: DocumentCounts, document: Document, cursor: int, context: str) -> set[str]:
    """What has followed a word, by the context of the word itself."""
    found = found_in(counts.at(document, cursor), Lanes(read(context)).keys()[:, 0].tolist())
    return {chr(symbol) for symbol in found[len(ORDERS)]}


def test_what_stands_behind_the_cursor_is_counted_but_not_as_what_comes_next() -> None:
    document, counts = following("x = width\ny = height\n")
    assert follows(counts, document, 0, "x = wid") == {"t"}
    assert follows(counts, document, 7, "x = wid") == set()
    assert follows(counts, document, 7, "y = hei") == {"g"}
    assert follows(counts, document, document.size, "x = wid") == {"t"}


def test_a_place_near_the_end_of_what_was_counted_is_right() -> None:
    """The cut must take out no more than has been counted."""
    text = "name = value(name)\n" * 100
    document, counts = following(text, 950, 400)
    end = 1350
    for cursor in (550, 551, 950, end - 2 * REACH, end - REACH, end - 50, end - 1, end):
        assert counts.covers(cursor, 0)
        [expected] = expected_at(document, [cursor], 550, end)
        assert summed(counts.at(document, cursor)) == expected
        assert min(expected.values()) > 0
    for cursor in (0, 549, end + 1, document.size):
        assert not counts.covers(cursor, 0)
        assert counts.at(document, cursor) == ()


@pytest.mark.parametrize("radius", [0, 1, 50, 99, 100, 101, 400, 1000])
def test_half_of_what_was_counted_is_covered(radius: int) -> None:
    _, counts = following("x" * 1000, 500, 100)
    # Nothing is missing where the text ends.
    assert counts.covers(500, radius) == (radius // 2 <= 100)
    assert counts.covers(550, radius) == (radius // 2 <= 50)
    _, counts = following("x" * 1000, 0, 500)
    assert counts.covers(0, radius) == (radius // 2 <= 500)
    assert counts.covers(100, radius) == (radius // 2 <= 400)
    _, counts = following("x" * 1000, 1000, 500)
    assert counts.covers(1000, radius)
    assert counts.covers(999, radius) == (radius // 2 <= 499)
    _, counts = following("x" * 1000)
    assert counts.covers(500, radius)
    assert not DocumentCounts().covers(0, radius)


def test_what_was_counted_moves_with_the_text() -> None:
    document, counts = following("x = foo(a)\n" * 300, 1650, 1000)
    edit = Edit(1650, 1650, b"y\n" * 100)
    document = document.replace(edit)
    counts.edit(edit)
    assert counts.covers(2850, 0)
    assert not counts.covers(2851, 0)
    assert summed(counts.at(document, 1850)) == expected_at(document, [1850], 650, 2850)[0]


@pytest.mark.parametrize(
    ("start", "end", "kept"),
    [
        (1650, 1650, True),
        (900, 2400, True),
        (660, 660, False),  # at its edges it is no longer known what belongs to it
        (2640, 2640, False),
        (0, 0, False),  # outside of it
        (3000, 3010, False),
        (0, 3300, False),
    ],
)
def test_an_edit_that_does_not_lie_well_within_makes_the_counts_unknown(start: int, end: int, kept: bool) -> None:
    document, counts = following("x = foo(a)\n" * 300, 1650, 1000)
    edit = Edit(start, end, b"new")
    document = document.replace(edit)
    counts.edit(edit)
    assert (counts.at(document, 900) != ()) == kept
    assert counts.covers(900, 0) == kept
    assert (counts.bytes_used > 0) == kept
    counts.install(DocumentCounts.build(document, 0, ALL), [])  # and then it is counted anew
    assert summed(counts.at(document, document.size)) == counted(normalise(document.data))


def test_edits_of_nothing_are_none() -> None:
    document, counts = following("x = foo(a)\n" * 300, 1650, 1000)
    for offset in (0, 650, 1650, 2650, document.size):
        counts.edit(Edit(offset, offset, b""))
    assert counts.covers(1650, 0)
    assert len(counts.at(document, 1650)[1]) == len(across(document.data, 1650))


@pytest.mark.parametrize("line", ["\r\n", "a\r\n", "x = foo(a)\n", "x"])
def test_two_changes_at_any_distance_are_exact(line: str) -> None:
    """Near to each other they are one; else no context reaches from one into the other, whatever a line end takes."""
    old = Document.from_text(line * (700 // len(line)))
    base = DocumentCounts.build(old, 0, ALL)
    for apart in [*range(0, 300, 9 if len(line) < 9 else len(line))]:
        for first, second in ((200, 200 + apart), (200 + apart, 200)):
            counts = DocumentCounts()
            counts.install(base, [])
            document = old
            for at, new in ((first, b"yz"), (second, b"\r")):
                start = at - at % len(line)
                edit = Edit(start, start + len(line), new)
                document = document.replace(edit)
                counts.edit(edit)
            cursor = document.size // 2
            assert summed(counts.at(document, cursor)) == expected_at(document, [cursor], 0, document.size)[0], apart


@pytest.mark.parametrize("new", ["", "between(them)\n" * 6])
@pytest.mark.parametrize("moved", [-7, 400])
@pytest.mark.parametrize("start", [0, 120, 250, 560])
def test_changes_that_an_edit_reaches_are_one_with_it(start: int, moved: int, new: str) -> None:
    """However it lies to those that were there: within, across, around, beside one, or beside two.

    They may have moved each other by far more than lies between them.
    """
    old = Document.from_text("x = foo(a)\r\n" * 80)
    base = DocumentCounts.build(old, 0, ALL)
    for end in (start, start + 80, 330, 400, 600, 900):
        document, counts = old, DocumentCounts()
        counts.install(base, [])
        for edit in (
            *(
                Edit(330, 330, b"two\n" * 4),
                Edit(600, 640, b""),
                Edit(850, 850, b"\r"),
                Edit(100, 110, b"1" * (10 + moved)),
            ),
            Edit(start, max(start, end), new.encode()),
            Edit(min(start, 300), min(start, 300) + 1, b"last"),
        ):
            document = document.replace(edit)
            counts.edit(edit)
        cursor = min(345, document.size)
        found = counts.at(document, cursor)
        assert summed(found) == expected_at(document, [cursor], 0, document.size)[0], end


def test_changes_in_many_places_are_exact_until_they_are_too_many() -> None:
    document, counts = following("first_name = second_name\n" * 800)  # in several of a document's chunks
    exact = covered = 0
    for line in range(0, 800, 10):
        edit = Edit(line * 25, line * 25 + 5, b"other")
        document = document.replace(edit)
        counts.edit(edit)
        covered += counts.covers(0, 0)
        found = counts.at(document, 12_345)
        if found:
            exact += 1
            if exact in (1, 2, 30, 64):
                assert summed(found) == expected_at(document, [12_345], 0, document.size)[0]
    assert exact == 64
    assert covered == 8  # from then on it is better to count anew, in the background


def test_what_is_pasted_is_exact_until_it_is_too_much() -> None:
    document, counts = following("first_name = second_name\n" * 10)
    line = b"pasted = pasted + 1\r\n"
    for times, covered, known in ((50, True, True), (300, False, True), (600, False, False)):
        edit = Edit(25, 25, line * times)
        document = document.replace(edit)
        counts.edit(edit)
        assert counts.covers(25, 0) == covered
        found = counts.at(document, 25)
        assert (found != ()) == known
        if known:
            assert summed(found) == expected_at(document, [25], 0, document.size)[0]


@settings(deadline=None, max_examples=40)
@given(texts, texts, texts, st.sampled_from(["", "b", "x = foo", "(1)\r\nfoo"]))
def test_what_will_have_been_inserted_is_counted_as_if_it_were(
    before: str, changed: str, behind: str, inserted: str
) -> None:
    """Behind the end of a word, and up to one: where words begin behind the cursor stays as it is."""
    document, counts = following(before + "a" + behind)
    edit = Edit(0, 0, changed.encode())
    document = document.replace(edit)
    counts.edit(edit)
    cursor = len((changed + before).encode()) + 1
    after = document.replace(Edit(cursor, cursor, inserted.encode()))
    end = cursor + len(inserted.encode())
    assert summed(counts.at(document, cursor, inserted.encode())) == expected_at(after, [end], 0, after.size)[0]
    assert summed(counts.at(document, cursor)) == expected_at(document, [cursor], 0, document.size)[0]


@pytest.mark.parametrize(
    ("before", "behind", "inserted"),
    [
        ("a = 1\r", "\nb", "x"),  # within a line end, which is two then
        ("a = 1\r", "\nb", "x\r"),
        ("a = 1\r", "b", "\nfoo"),  # what makes one of a \r that stood alone
        ("a = 1", "\nb", "foo\r"),
        ("a = 1", "\n", "\r"),
        ("\r", "\n", "\r\n"),
        ("", "\n", "\r"),
        ("\r\n" * 120 + "\r", "\r\n" * 120, "\n"),
        ("\r\n" * 120 + "\r", "\n" + "\r\n" * 120, "😀" * 30),
        ("", "", "a\r"),
        ("a", "", "b"),
    ],
    ids=range(11),
)
@pytest.mark.parametrize("radius", [ALL, 150])
def test_what_will_have_been_inserted_into_line_ends_is_counted_as_if_it_were(
    before: str, behind: str, inserted: str, radius: int
) -> None:
    """Cursors that stand within one are no client's, but what is counted is exact or not there."""
    cursor, new = len(before.encode()), inserted.encode()
    document = Document.from_text(before + behind)
    base, counts = DocumentCounts.build(document, cursor, radius), DocumentCounts()
    counts.install(base, [])
    after = document.replace(Edit(cursor, cursor, new))
    [expected] = expected_at(after, [cursor + len(new)], base.start, base.end + len(new))
    assert summed(counts.at(document, cursor, new)) == expected


def test_typing_a_text_counts_it() -> None:
    """Key by key, from nothing: what every user does."""
    document, counts = following("")
    assert counts.at(document, 0) != ()  # nothing, and that is known
    for character in "def é(x):\r\n\treturn '😀' + x\r\n\r\né(é(x))\r\n" * 4:
        edit = Edit(document.size, document.size, character.encode())
        document = document.replace(edit)
        counts.edit(edit)
        assert summed(counts.at(document, document.size)) == counted(normalise(document.data))


def test_what_was_counted_of_an_older_text_is_good_with_the_edits_since() -> None:
    old = Document.from_text("x = foo(a)\r\n" * 300)
    base = DocumentCounts.build(old, 0, ALL)
    edits = [Edit(0, 0, b"# 1\r"), Edit(100, 200, b"\n"), Edit(50, 3000, b"bar"), Edit(4, 4, b"\n")]
    document = old.apply(edits)
    counts = DocumentCounts()
    counts.edit(Edit(0, 1, b"not heard of"))  # before anything was counted
    counts.install(base, edits)
    assert summed(counts.at(document, 20)) == expected_at(document, [20], 0, document.size)[0]
    assert base.document is old
    assert as_counter(base.counts) == counted(normalise(old.data))
