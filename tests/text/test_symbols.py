"""Headers, line ends as the model reads them, and the UTF-8 automaton against Python's strict decoder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lsp_charrnn.text.symbols import (
    FIRST_SPECIAL,
    HEADER_END,
    MAX_HEADER,
    START,
    UTF8_ALLOWED,
    UTF8_BOUNDARY,
    UTF8_NEXT,
    UTF8_STATES,
    VOCABULARY,
    header,
    normalise,
    to_symbols,
    utf8_start_state,
)

BYTES = [bytes([code]) for code in range(VOCABULARY)]


def python_says(data: bytes) -> str:
    """The oracle, Python's strict decoder: `data` is "whole" UTF-8, "unfinished", or "broken"."""
    try:
        data.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        return "unfinished" if error.reason == "unexpected end of data" else "broken"
    return "whole"


def test_header() -> None:
    assert header("src/app.py") == bytes([START]) + b"src/app.py" + bytes([HEADER_END])
    assert header("src\\app.py") == header("src/app.py")
    assert header("") == bytes([START, HEADER_END])


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(alphabet="a/é中😀", max_size=200))
def test_header_keeps_whole_characters_from_the_end(path: str) -> None:
    name = header(path)[1:-1]
    assert len(name) <= MAX_HEADER
    assert path.endswith(name.decode())
    assert len(name) > MAX_HEADER - 4 or name.decode() == path


def test_normalise_reads_every_line_end_as_a_line_feed() -> None:
    assert normalise(b"a\r\nb\rc\nd\r\r\n\n") == b"a\nb\nc\nd\n\n\n"
    assert normalise(b"a\x0c\xe2\x80\xa8b") == b"a\x0c\xe2\x80\xa8b"
    assert normalise(b"\na", after_cr=True) == b"a"


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(alphabet="a\r\n", max_size=12), st.integers(0, 12))
def test_normalise_in_pieces_is_normalise_at_once(text: str, at: int) -> None:
    data = text.encode()
    before, behind = data[:at], data[at:]
    assert normalise(before) + normalise(behind, after_cr=before.endswith(b"\r")) == normalise(data)


def test_to_symbols() -> None:
    symbols = to_symbols(b"a\xff")
    assert symbols.tolist() == [97, 255]
    assert symbols.dtype == np.int64


def test_automaton_on_all_of_up_to_two_bytes() -> None:
    """Longer characters follow in the next test."""
    beginnings = [b""]
    for _ in range(2):
        unfinished = []
        for prefix in beginnings:
            state = utf8_start_state(prefix)
            for code, byte in enumerate(BYTES):
                verdict = python_says(prefix + byte)
                assert UTF8_ALLOWED[state, code] == (verdict != "broken"), (prefix, byte)
                if verdict == "whole":
                    assert UTF8_NEXT[state, code] == UTF8_BOUNDARY, (prefix, byte)
                elif verdict == "unfinished":
                    assert UTF8_NEXT[state, code] != UTF8_BOUNDARY, (prefix, byte)
                    unfinished.append(prefix + byte)
        beginnings = unfinished


def test_automaton_takes_every_character_and_nothing_else() -> None:
    """Lanes walk all of Unicode; nothing else passes, as there are no more ways back to the boundary."""
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    encoded = "".join(every).encode()
    codes = np.frombuffer(encoded, dtype=np.uint8)
    firsts = np.flatnonzero((codes & 0xC0) != 0x80)
    lengths = np.diff(np.append(firsts, len(codes)))
    ways = np.zeros(UTF8_STATES, dtype=np.int64)
    ways[UTF8_BOUNDARY] = 1
    for length in range(1, 5):
        lanes = firsts[lengths == length]
        states: NDArray[np.uint8] = np.zeros(len(lanes), dtype=np.uint8)
        for place in range(length):
            symbols = codes[lanes + place]
            assert UTF8_ALLOWED[states, symbols].all()
            states = UTF8_NEXT[states, symbols]
            assert ((states == UTF8_BOUNDARY) == (place == length - 1)).all()

        onward = np.zeros_like(ways)
        for state, code in np.argwhere(UTF8_ALLOWED):
            onward[UTF8_NEXT[state, code]] += ways[state]
        assert onward[UTF8_BOUNDARY] == len(lanes)
        ways = onward
        ways[UTF8_BOUNDARY] = 0
    assert not ways.any()  # and none is longer than four bytes


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(st.sampled_from(["a", "é", "中", "\ud7ff", "\ue000", "😀", "\U0010ffff"])).map("".join),
    st.integers(0, 4),
)
def test_start_state_needs_only_the_end_of_the_prefix(text: str, cut: int) -> None:
    data = text.encode()
    prefix = data[: len(data) - cut]
    state = UTF8_BOUNDARY
    for code in prefix:
        assert UTF8_ALLOWED[state, code]
        state = int(UTF8_NEXT[state, code])
    assert utf8_start_state(prefix) == state
    assert utf8_start_state(prefix[-7:]) == state
    assert (state == UTF8_BOUNDARY) == (python_says(prefix) == "whole")


def test_start_state_after_specials_and_broken_characters() -> None:
    assert utf8_start_state(header("é.py")) == UTF8_BOUNDARY
    assert utf8_start_state(bytes([0xE4, START])) == UTF8_BOUNDARY
    assert utf8_start_state(b"\xe4\xc3") == utf8_start_state(b"\xc3") != UTF8_BOUNDARY
    assert utf8_start_state(b"\xe4\xc0") == UTF8_BOUNDARY


def test_every_state_allows_something_but_never_a_special() -> None:
    assert UTF8_ALLOWED.shape == UTF8_NEXT.shape == (UTF8_STATES, VOCABULARY)
    assert UTF8_ALLOWED.any(axis=1).all()
    assert not UTF8_ALLOWED[:, FIRST_SPECIAL:].any()
    assert int(UTF8_NEXT.max()) < UTF8_STATES
    with pytest.raises(ValueError, match="read-only"):
        UTF8_ALLOWED[0, START] = True


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6), st.integers(1, 8))
def test_lanes_sampled_under_the_mask_are_utf8(seeds: list[int], lanes: int) -> None:
    states: NDArray[np.uint8] = np.zeros(lanes, dtype=np.uint8)
    written = [bytearray() for _ in range(lanes)]
    for seed in seeds:
        scores = np.random.default_rng(seed).random((lanes, VOCABULARY))
        symbols = np.where(UTF8_ALLOWED[states], scores, -1.0).argmax(axis=1)  # [lanes]
        states = UTF8_NEXT[states, symbols]
        for lane, code in enumerate(symbols):
            written[lane].append(code)
    for lane, data in enumerate(written):
        assert python_says(bytes(data)) == ("whole" if states[lane] == UTF8_BOUNDARY else "unfinished")
