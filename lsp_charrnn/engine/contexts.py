r"""The contexts that the memories count by: the last few bytes before a place, and the words and the line before it.

    orders     the last 3, 5, 8, 16 bytes
    RUN        the word that is being written, or what stands since the last one
    WORDS      that, and the word before it
    LINES      the line that is being written, and the one before it (an empty line is none)

Each is a window of text that ends at the place and is at most `REACH` bytes long, so an edit changes no context that
ends further behind it. A context's key is a hash of its window: a difference of two prefix sums, which makes it cheap
for all places of a text at once (`keys_in`), and for lanes that go on symbol by symbol (`Lanes`). Both give the same.

What is counted is `memory`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.text.symbols import FIRST_SPECIAL, START, VOCABULARY

ORDERS: Final = (3, 5, 8, 16)
RUN, WORDS, LINES = range(len(ORDERS), len(ORDERS) + 3)
KINDS: Final = len(ORDERS) + 3
REACH: Final = 96  # bytes of the longest context

Keys = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

# A key is the context's kind (3 bits), a hash of it (53 bits) and the byte that followed (8 bits): all that has
# followed a context lies side by side, and so do the contexts of a kind.
SYMBOL: Final = np.uint64(0xFF)
_SYMBOL_BITS: Final = np.uint64(8)
_HASH_BITS: Final = np.uint64(53)
_MARKS: Final = np.arange(KINDS, dtype=np.uint64) << (_HASH_BITS + _SYMBOL_BITS)
_STIR: Final = np.uint64(0xD6E8FEB86659FD93)

# The sum before place i is that before i - 1, times the base, plus the symbol and one. So the sum of a window is the
# one at its end less the one at its start, times the base to the power of its length.
_BASE: Final = 0x9E3779B97F4A7C15
_INVERSE: Final = np.uint64(pow(_BASE, -1, 1 << 64))
_POWERS: Final = np.array([pow(_BASE, length, 1 << 64) for length in range(REACH + 1)], dtype=np.uint64)
_ONE: Final = np.uint64(1)

_IN_WORD: Final = np.zeros(VOCABULARY, dtype=np.bool_)
_IN_WORD[[*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"]] = True
_IN_WORD[0x80:FIRST_SPECIAL] = True
_IN_LINE: Final = np.ones(VOCABULARY, dtype=np.bool_)
_IN_LINE[ord("\n")] = False

PLACE: Final = 5  # numbers that say where a place stands

NOTHING: Final = bytes((START,)) * REACH  # what stands before a text


def keys_in(symbols: npt.NDArray[np.uint8]) -> Iterator[tuple[Keys, npt.NDArray[np.int32]]]:
    """Yield for each kind the keys of all places from `REACH` on, and where their windows start.  # [len - REACH] both

    A key lacks the symbol that follows. Before the first place stand the `REACH` symbols that it can depend on.
    """
    places = np.arange(REACH, len(symbols), dtype=np.int32)
    sums = _prefix_sums(symbols)
    starts_of_words = _starts(_IN_WORD[symbols])
    for kind in range(KINDS):
        if kind < len(ORDERS):
            starts = places - np.int32(ORDERS[kind])
        elif kind == RUN:
            starts = _last(_changes(_IN_WORD[symbols]), places)
        elif kind == WORDS:
            starts = _one_before(starts_of_words, _IN_WORD[symbols], places)
        else:
            starts = _one_before(_starts(_IN_LINE[symbols]), _IN_LINE[symbols], places)
        np.maximum(starts, places - np.int32(REACH), out=starts)
        keys = sums.take(starts)
        keys *= _POWERS.take(places - starts)
        np.subtract(sums[REACH:-1], keys, out=keys)
        found = [(_stirred(keys, _MARKS[kind]), starts)]
        del keys, starts  # while this waits they belong to nobody but who asked
        yield found.pop()


def keys_of_text(text: bytes) -> Keys:
    """Return the keys of all places of a whole text, less the symbols that follow.  # [KINDS, len(text)]"""
    symbols = np.frombuffer(NOTHING + text, dtype=np.uint8)
    return np.stack([keys for keys, _ in keys_in(symbols)])


def surroundings_in(text: bytes) -> npt.NDArray[np.float32]:
    """Return what `Lanes.surroundings` gives for all places of a whole text.  # [PLACE, len(text)]"""
    symbols = np.frombuffer(NOTHING + text, dtype=np.uint8)
    places = np.arange(REACH, len(symbols), dtype=np.int32)
    word, line = _IN_WORD[symbols], _IN_LINE[symbols]
    back = [places - _last(starts, places) for starts in (_changes(word), _starts(line))]
    before = places - 1
    return _surroundings(word[before], line[before], *(np.minimum(one, REACH) for one in back))


def _surroundings(
    word: npt.NDArray[np.bool_], line: npt.NDArray[np.bool_], run: npt.NDArray[Any], column: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    length = np.log(run)
    numbers = np.empty((PLACE, len(run)), dtype=np.float32)
    values = word, word * length, ~word * length, line, line * np.log1p(column)
    for number, value in zip(numbers, values, strict=True):
        number[:] = value
    return numbers


class Lanes:
    """The contexts at the ends of texts that grow side by side. They begin as one, behind the text `before`."""

    def __init__(self, before: bytes) -> None:
        tail = (NOTHING + before[-REACH:])[-REACH:]
        symbols = np.frombuffer(tail, dtype=np.uint8)
        self._sums = _prefix_sums(symbols)[None, :]  # [lanes, REACH + 1], before and behind each of the last symbols
        self._word = _IN_WORD[symbols[-1:]]  # [lanes], whether the last symbol is of a word
        self._line = _IN_LINE[symbols[-1:]]
        # How far back the current run started, the last word, the word before it, and the same of lines.
        end = np.array([REACH])
        runs = _last(_changes(_IN_WORD[symbols]), end)
        words, lines = _starts(_IN_WORD[symbols]), _starts(_IN_LINE[symbols])
        starts = (runs, _last(words, end), _last(words[:-1], end), _last(lines, end), _last(lines[:-1], end))
        self._back = REACH - np.stack(starts)  # [5, lanes]

    def go_on(self, parents: Integers, symbols: Integers) -> None:
        """Let each lane go on from one of the lanes before with a symbol.  # [lanes] both"""
        count = len(parents)
        sums = np.empty((count, REACH + 1), dtype=np.uint64)
        before = self._sums.take(parents, axis=0)
        sums[:, :-1] = before[:, 1:]
        sums[:, -1] = before[:, -1] * _POWERS[1]
        sums[:, -1] += symbols.astype(np.uint64) + _ONE
        self._sums = sums
        word, line = _IN_WORD.take(symbols), _IN_LINE.take(symbols)
        was_word, was_line = self._word.take(parents), self._line.take(parents)
        back = self._back.take(parents, axis=1)
        back += 1
        new_word, new_line = word & ~was_word, line & ~was_line
        back[2] = np.where(new_word, back[1], back[2])
        back[4] = np.where(new_line, back[3], back[4])
        back[0][word != was_word] = 1
        back[1][new_word] = 1
        back[3][new_line] = 1
        self._back = np.minimum(back, REACH)
        self._word, self._line = word, line

    def keys(self) -> Keys:
        """Return the keys of all lanes' contexts, kind by kind, less the symbols that follow.  # [KINDS, lanes]"""
        back = self._back
        lengths = np.empty((KINDS, back.shape[1]), dtype=np.int64)
        lengths[: len(ORDERS)] = _ORDERS
        lengths[RUN] = back[0]
        lengths[WORDS] = np.where(self._word, back[2], back[1])
        lengths[LINES] = np.where(self._line, back[4], back[3])
        places = np.arange(REACH, self._sums.size, REACH + 1)  # of each lane's end, in all sums one after another
        starts = self._sums.take(places - lengths)
        starts *= _POWERS.take(lengths)
        return _stirred(self._sums[:, -1] - starts, _MARKS[:, None])

    def surroundings(self) -> npt.NDArray[np.float32]:
        """Return where each lane's end stands: in a word, how far; how far behind one; in a line, how far.

        # [PLACE, lanes]
        """
        return _surroundings(self._word, self._line, self._back[0], self._back[3])


_ORDERS: Final = np.array(ORDERS, dtype=np.int64)[:, None]


def _prefix_sums(symbols: npt.NDArray[np.uint8]) -> Keys:
    """Return the sums before each place of `symbols` and behind the last.  # [len + 1]"""
    powers = np.full(len(symbols) + 1, np.uint64(_BASE))
    powers[0] = 1
    np.cumprod(powers, out=powers)
    inverse = np.full(len(symbols), _INVERSE)
    np.cumprod(inverse, out=inverse)
    sums = np.zeros(len(symbols) + 1, dtype=np.uint64)
    inverse *= symbols.astype(np.uint64) + _ONE
    np.cumsum(inverse, out=sums[1:])
    sums *= powers
    return sums


def _changes(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return where a run begins, of what is `inside` or of what isn't."""
    return np.flatnonzero(np.diff(inside, prepend=~inside[:1])).astype(np.int32)


def _starts(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return where a run of what is `inside` begins."""
    return np.flatnonzero(inside & ~np.concatenate((np.zeros(1, dtype=np.bool_), inside[:-1]))).astype(np.int32)


def _last(starts: npt.NDArray[np.int32], places: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Return the last of `starts` before each place; 0 where there is none."""
    return np.concatenate((np.zeros(1, dtype=np.int32), starts)).take(starts.searchsorted(places))


def _one_before(
    starts: npt.NDArray[np.int32], inside: npt.NDArray[np.bool_], places: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return the last of `starts` before the run that each place is behind; before the place, if it is in none."""
    index = starts.searchsorted(places) - inside.take(places - 1)
    return np.concatenate((np.zeros(1, dtype=np.int32), starts)).take(np.maximum(index, 0))


def _stirred(sums: Keys, marks: Keys | np.uint64) -> Keys:
    """Return the keys of windows with these sums, of the kinds that `marks` say."""
    keys = sums >> np.uint64(32)
    keys ^= sums
    keys *= _STIR
    keys ^= keys >> np.uint64(29)
    keys *= _STIR
    keys >>= np.uint64(64) - _HASH_BITS
    keys <<= _SYMBOL_BITS
    keys |= marks
    return keys
