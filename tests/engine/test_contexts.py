"""A context's key says which window of the text it is, and nothing else: for whole texts and for lanes alike."""

from __future__ import annotations

import functools
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_charrnn.engine.contexts import (
    KINDS,
    LINES,
    NOTHING,
    ORDERS,
    PLACE,
    REACH,
    RUN,
    SYMBOL,
    WORDS,
    Lanes,
    keys_of_text,
    surroundings_in,
)

KIND_NAMES = [*(f"order {order}" for order in ORDERS), "run", "words", "lines"]
# What may stand in a text, line ends normalised: all that ends a word or a line, and runs longer than `REACH`.
PIECES = [
    *(
        "a",
        "b",
        "_",
        "7",
        " ",
        "\n",
        "(",
        "é",
        "中",
        "😀",
        "\f",
        "x = 1",
        "    ",
        "\n\n",
        "\n    ",
        "return self",
        "\0",
    ),
    *("ab" * 60, " " * 97, "-" * 95, "\n" * 100, "a b " * 30, "ä" * 50),
]
texts = st.lists(st.sampled_from(PIECES), max_size=30).map(lambda pieces: "".join(pieces).encode())

# --- the obvious definition

_IN_WORD = rb"[A-Za-z0-9_\x80-\xf7]"
_BETWEEN_WORDS = rb"[^A-Za-z0-9_\x80-\xf7]"
_IN_LINE, _LINE_ENDS = rb"[^\n]", rb"\n"


def _last_two(inside: bytes, outside: bytes) -> re.Pattern[bytes]:
    """From the last run that has ended, to the end of the text."""
    return re.compile(rb"(?:%b+%b+%b+|%b+%b+)\Z" % (inside, outside, inside, inside, outside))


_PATTERNS = {
    RUN: re.compile(rb"(?:%b+|%b+)\Z" % (_IN_WORD, _BETWEEN_WORDS)),
    WORDS: _last_two(_IN_WORD, _BETWEEN_WORDS),
    LINES: _last_two(_IN_LINE, _LINE_ENDS),
}


@functools.cache
def _window_of(last: bytes, kind: int) -> bytes:
    if kind < len(ORDERS):
        return last[-ORDERS[kind] :]
    found = _PATTERNS[kind].search(last)
    return found[0] if found else last


def window(before: bytes, kind: int) -> bytes:
    """The context of a kind at the end of a text. Before the text stands nothing, which is a symbol too."""
    return _window_of((NOTHING + before)[-REACH:], kind)


def brute_surroundings(before: bytes) -> list[float]:
    last = (NOTHING + before)[-REACH:]
    in_word, in_line = re.match(_IN_WORD, last[-1:]) is not None, last[-1:] != b"\n"
    run, column = len(window(before, RUN)), len(last.rpartition(b"\n")[2])
    return [in_word, in_word * math.log(run), (not in_word) * math.log(run), in_line, in_line * math.log1p(column)]


class Names:
    """Which window has which key, in all that a test has seen: each its own."""

    def __init__(self) -> None:
        self._keys: dict[tuple[int, bytes], int] = {}
        self._windows: dict[int, tuple[int, bytes]] = {}

    def check(self, kind: int, context: bytes, key: int) -> None:
        assert self._keys.setdefault((kind, context), key) == key, (KIND_NAMES[kind], context)
        assert self._windows.setdefault(key, (kind, context)) == (kind, context), "two contexts with one key"


NAMES = Names()


def check(text: bytes) -> None:
    keys = keys_of_text(text)
    assert keys.shape == (KINDS, len(text))
    assert keys.dtype == np.uint64
    for kind, place in itertools.product(range(KINDS), range(len(text))):
        NAMES.check(kind, window(text[:place], kind), keys.item(kind, place))


# --- whole texts


@pytest.mark.parametrize(
    ("before", "run", "words", "lines"),
    [
        (b"x = get_name(first_name", b"first_name", b"get_name(first_name", None),
        (b"x = get_name(first_name, ", b", ", b"first_name, ", None),
        (b"one\n\n  two\nthree", b"three", b"two\nthree", b"  two\nthree"),
        (b"one\n\n  two\n", b"\n", b"two\n", b"  two\n"),
        (b"one\n\n  two\n\n\n", b"\n\n\n", b"two\n\n\n", b"  two\n\n\n"),
        (b"(\xc3\xa9t\xc3\xa9", b"\xc3\xa9t\xc3\xa9", None, None),
    ],
)
def test_the_windows_are_what_the_module_says(
    before: bytes, run: bytes, words: bytes | None, lines: bytes | None
) -> None:
    assert [window(before, kind) for kind in range(len(ORDERS))] == [(NOTHING + before)[-order:] for order in ORDERS]
    assert window(before, RUN) == run
    # Where there is no word or line before, the window is as long as any.
    assert window(before, WORDS) == (words or (NOTHING + before)[-REACH:])
    if lines is None:
        assert window(before, LINES) == (NOTHING + before)[-REACH:]
    else:
        assert window(before, LINES) == lines
    check(before + b"x")


@settings(deadline=None)
@given(texts)
def test_a_text_has_the_keys_of_its_windows(text: bytes) -> None:
    check(text)


@settings(deadline=None)
@given(st.binary(max_size=150))
def test_any_bytes_have_the_keys_of_their_windows(text: bytes) -> None:
    check(text.replace(b"\r", b""))


@settings(deadline=None)
@given(texts)
def test_a_key_has_room_for_the_symbol_and_names_its_kind_first(text: bytes) -> None:
    keys = keys_of_text(text)
    assert not (keys & SYMBOL).any()
    assert (keys >> np.uint64(61) == np.arange(KINDS, dtype=np.uint64)[:, None]).all()


def test_a_text_that_is_long_has_the_keys_of_its_windows() -> None:
    """The sums overflow many times over: what is left of them is exact."""
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(PIECES[:16], size=250_000)).encode()
    assert len(text) > 500_000
    keys = keys_of_text(text)
    for place in [*range(5), *range(len(text) - 500, len(text))]:
        for kind in range(KINDS):
            NAMES.check(kind, window(text[:place], kind), keys.item(kind, place))


@settings(deadline=None)
@given(texts, texts, texts)
def test_an_edit_changes_no_key_that_is_further_behind_it_than_a_context_reaches(
    one: bytes, other: bytes, behind: bytes
) -> None:
    behind += b"the end of it (a b_c)\n" * 5
    keys, others = keys_of_text(one + behind), keys_of_text(other + behind)
    assert (keys[:, len(one) + REACH :] == others[:, len(other) + REACH :]).all()
    assert (
        surroundings_in(one + behind)[:, len(one) + REACH :] == surroundings_in(other + behind)[:, len(other) + REACH :]
    ).all()


@settings(deadline=None)
@given(texts, texts)
def test_what_comes_later_changes_no_key(text: bytes, behind: bytes) -> None:
    assert (keys_of_text(text + behind)[:, : len(text)] == keys_of_text(text)).all()
    assert (surroundings_in(text + behind)[:, : len(text)] == surroundings_in(text)).all()


@settings(deadline=None)
@given(texts)
def test_the_surroundings_are_what_stands_before(text: bytes) -> None:
    found = surroundings_in(text)
    assert found.shape == (PLACE, len(text))
    assert found.dtype == np.float32
    expected = [brute_surroundings(text[:place]) for place in range(len(text))]
    assert np.allclose(found, np.array(expected).reshape(len(text), PLACE).T, atol=1e-6)


# --- lanes


def keys_behind(text: bytes) -> list[int]:
    """The keys at the end of a text: those of the place where one more byte would stand."""
    found: list[int] = keys_of_text(text + b"?")[:, -1].tolist()
    return found


def check_lanes(lanes: Lanes, lane_texts: list[bytes]) -> None:
    assert lanes.keys().T.tolist() == [keys_behind(text) for text in lane_texts]
    places = np.stack([surroundings_in(text + b"?")[:, -1] for text in lane_texts], axis=1)
    assert lanes.surroundings().shape == (PLACE, len(lane_texts))
    assert np.allclose(lanes.surroundings(), places, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(texts, texts)
def test_a_lane_that_follows_a_text_has_its_keys(before: bytes, text: bytes) -> None:
    lanes = Lanes(before)
    whole = before + text
    keys, places = keys_of_text(whole + b"?"), surroundings_in(whole + b"?")
    for place in range(len(before), len(whole) + 1):
        assert (lanes.keys()[:, 0] == keys[:, place]).all()
        assert np.allclose(lanes.surroundings()[:, 0], places[:, place], atol=1e-6)
        if place < len(whole):
            lanes.go_on(np.zeros(1, dtype=np.int64), np.array([whole[place]]))


@settings(deadline=None, max_examples=40)
@given(before=texts, data=st.data())
def test_lanes_that_go_on_from_each_other_have_the_keys_of_their_texts(before: bytes, data: st.DataObject) -> None:
    """Lanes are parted, given up and put in another order, as decoding does."""
    lanes, lane_texts = Lanes(before), [before]
    check_lanes(lanes, lane_texts)
    for _ in range(data.draw(st.integers(1, 12))):
        parents = data.draw(st.lists(st.integers(0, len(lane_texts) - 1), min_size=1, max_size=5))
        symbols = data.draw(
            st.lists(st.sampled_from(b"ab_ \n\n(\xc3\xa9"), min_size=len(parents), max_size=len(parents))
        )
        lanes.go_on(np.array(parents), np.array(symbols))
        lane_texts = [lane_texts[parent] + bytes((symbol,)) for parent, symbol in zip(parents, symbols, strict=True)]
        check_lanes(lanes, lane_texts)


def test_lanes_that_go_on_for_long_still_have_the_keys_of_their_texts() -> None:
    rng = np.random.default_rng(0)
    lanes, lane_texts = Lanes(b"def f(x):\n    return x\n"), [b"def f(x):\n    return x\n"]
    for _ in range(300):
        parents = rng.integers(0, len(lane_texts), 4)
        symbols = np.frombuffer(b"abcdef   _(\n", dtype=np.uint8).astype(np.int64)[rng.integers(0, 12, 4)]
        lanes.go_on(parents, symbols)
        lane_texts = [lane_texts[p] + bytes((s,)) for p, s in zip(parents.tolist(), symbols.tolist(), strict=True)]
    check_lanes(lanes, lane_texts)
    NAMES.check(LINES, window(lane_texts[0], LINES), int(lanes.keys()[LINES, 0]))
