r"""Sampling on from a state: lanes that explore the likeliest continuations, and the length that is worth showing.

The lanes are a stochastic beam (Kool, van Hoof & Welling 2019, "Stochastic beams and where to find them"):
samples without replacement from the model at the set temperature, so that no two lanes are ever the same text
and none is spent twice. At temperature 0 it is plain beam search. One lane always follows the likeliest text.

Length is a decision: of all prefixes of all lanes that end on a token's or a line's end, the best is the one
with the largest expected benefit P*(k - 1) - (1 - P)*cost, for a prefix of probability P that saves k keys and
takes one to accept, P being doubted the more the longer it is (`DOUBT`). A lane that cannot come near the best any more
is given up. What is expected after a lane is the model's, or a `Mixture` of it and the memories. Nothing here knows
documents or what stands behind the cursor: see `filters` and `session`.

A step of the model takes about 200 µs, and what is done around it must be little beside that. So the lanes lie side by
side in arrays, what depends on how a text ends is looked up in tables, and operations are few rather than obvious.
"""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lsp_charrnn.engine.mixer import Mixture
from lsp_charrnn.engine.snapshots import Snapshot
from lsp_charrnn.engine.stream import never
from lsp_charrnn.model.step import Logits, Model, State
from lsp_charrnn.text.symbols import FIRST_SPECIAL, UTF8_ALLOWED, UTF8_BOUNDARY, UTF8_NEXT, UTF8_STATES, VOCABULARY

# Keys that a wrong suggestion costs its reader: at 0 little more is saved, and far more is shown (docs/experiments.md).
COST: Final = 0.3
TOP_P: Final = 0.98  # of each lane's next symbols: what lies outside this mass is not sampled
TOP_K: Final = 32  # of each lane's next symbols: the most that are sampled from, in whatever mass
GOES_ON: Final = 0.7  # where a word goes on with a larger probability than this, no suggestion ends
# Lengths are compared as if a text of k keys had its probability to the power of 1 + k * this. The likeliest of many
# long texts is less likely than it looks, and a shorter one is followed by another suggestion for one key more.
DOUBT: Final = 0.05
HOPELESS: Final = 0.3  # share of the best's worth that a lane must be able to reach, or it is given up
HORIZON: Final = 24  # keys further on in which a lane may still become better than the best so far

_INDENTATION: Final = re.compile(rb"\n[ \t]+")
_BYTES: Final = [bytes((symbol,)) for symbol in range(VOCABULARY)]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Masses = npt.NDArray[np.float32]  # [lanes, endings + 2]


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode. `temperature` is that of the sampled lanes; 0, or next to it, makes them a beam."""

    lanes: int = 8
    budget_ms: float = 50.0
    max_chars: int = 160
    temperature: float = 0.6
    top_p: float = TOP_P
    cost: float = COST
    single_line: bool = False


@dataclass(frozen=True)
class Candidate:
    """A text that may follow, with its log-probability (at temperature 1) and the keys it saves if it is right."""

    text: bytes
    log_probability: float
    keys: float

    @property
    def probability(self) -> float:
        """The model's probability that exactly this follows."""
        return math.exp(self.log_probability)

    def benefit(self, cost: float) -> float:
        """Return the keys saved on average by showing it, when a wrong one costs `cost`."""
        right = math.exp(self.log_probability * (1 + DOUBT * self.keys))
        return right * (self.keys - 1) - (1 - right) * cost


@dataclass(frozen=True)
class Path:
    """What a stream can adopt when the text is accepted or typed along: what reading it would have given."""

    states: npt.NDArray[np.float32]  # [layers, parts, len(text), hidden], after each of the text's symbols
    logits: Logits  # [len(text), 256], the same


class Decoding:
    """What `decode` found: its candidates, distinct, best first, and the way to each of them."""

    def __init__(self, candidates: list[Candidate], trail: list[_Step]) -> None:
        self.candidates = candidates
        self._trail = trail  # by length of text, from the empty one

    def path(self, text: bytes) -> Path | None:
        """Return the states along `text`, a candidate's or the beginning of one; None if no lane went along it.

        They are copies: who keeps them doesn't keep those of all other lanes.
        """
        if len(text) >= len(self._trail) or text not in self._trail[len(text)].lanes.texts:
            return None
        layers, parts, _, hidden = self._trail[0].state.shape
        states = np.empty((layers, parts, len(text), hidden), dtype=np.float32)
        logits = np.empty((len(text), VOCABULARY), dtype=np.float32)
        lane = self._trail[len(text)].lanes.texts.index(text)
        for length in range(len(text), 0, -1):
            step = self._trail[length]
            states[:, :, length - 1] = step.state[:, :, lane]
            logits[length - 1] = step.logits[lane]
            lane = step.lanes.parents.item(lane)
        return Path(states, logits)


def keys_of(text: bytes) -> int:
    """Return the keys that typing `text` takes: its characters, less indentation after a line end, which editors do."""
    return sum(byte & 0xC0 != 0x80 for byte in _INDENTATION.sub(b"\n", text))


# --- how a text ends

# It decides what may follow, which keys that saves, and whether the text may end there. An automaton: between two
# characters in one of six states, and else in one of UTF-8's.
_EMPTY, _TOKEN, _WORD, _BLANK, _BLANKS, _INDENT, _WITHIN = range(7)
_ENDINGS: Final = _WITHIN + UTF8_STATES - 1  # UTF8_BOUNDARY is the first six
_BETWEEN: Final = slice(_EMPTY, _WITHIN)

# What a word is made of. An underscore parts words: `get_` is a place to stop where what follows is uncertain.
_IN_WORD: Final = np.zeros(VOCABULARY, dtype=np.bool_)
_IN_WORD[[*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"]] = True
_IN_WORD[0x80:FIRST_SPECIAL] = True  # a letter outside ASCII, as a rule

# A text may end where a word goes on with no larger probability than this. After a token it may anywhere, and after
# one blank behind it, for the next token can then be typed at once; in a word, where that has a fair chance to end;
# never where there is nothing yet, in several blanks, or within a character.
_MAY_GO_ON: Final = np.full(_ENDINGS, -1, dtype=np.float32)
_MAY_GO_ON[[_TOKEN, _BLANK]] = 2
_MAY_GO_ON[_WORD] = GOES_ON


def _automaton() -> tuple[Integers, Floats]:
    """Return how a text ends after each ending and symbol, and the keys that the symbol takes; [endings, 256] both."""
    after = np.empty((_ENDINGS, VOCABULARY), dtype=np.int64)
    after[_BETWEEN] = np.where(_IN_WORD, _WORD, _TOKEN)
    after[_BETWEEN, ord("\n")] = _INDENT
    after[_BETWEEN, ord("\t")] = _BLANKS
    after[[_EMPTY, _TOKEN, _WORD], ord(" ")] = _BLANK
    after[[_BLANK, _BLANKS], ord(" ")] = _BLANKS
    after[_INDENT, [*b" \t"]] = _INDENT
    into = UTF8_NEXT.astype(np.int64)  # [UTF-8 states, 256]
    begins = into[UTF8_BOUNDARY] != UTF8_BOUNDARY
    after[_BETWEEN, begins] = _WITHIN + into[UTF8_BOUNDARY, begins] - 1
    after[_WITHIN:] = np.where(into[1:] == UTF8_BOUNDARY, _WORD, _WITHIN + into[1:] - 1)
    keys = np.ones((_ENDINGS, VOCABULARY))
    keys[:, 0x80:0xC0] = 0  # a character is one key, its first byte's
    keys[_INDENT, [*b" \t"]] = 0  # editors do it
    return after, keys


_AFTER, _KEYS = _automaton()


class _Rules:
    """What may follow each ending, in tables for all lanes at once."""

    def __init__(self, *, single_line: bool) -> None:
        allowed = UTF8_ALLOWED[[UTF8_BOUNDARY] * _WITHIN + [*range(1, UTF8_STATES)]]  # [endings, 256]
        # What nobody types: control characters, and \r, for line ends are read and written as \n here. A form feed
        # parts the pages of some old sources.
        allowed[:, [byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\n\f"]] = False
        if single_line:
            allowed[:, ord("\n")] = False
        # Not infinity, in whose last bits there is no room for a symbol; but far from every logit.
        self.penalties = np.where(allowed, np.float32(0), np.float32(1e9))  # [endings, 256]
        # By a product with this, odds [lanes, 256] become masses: of what may follow each ending, words, and all.
        self.sums = np.vstack((allowed, _IN_WORD, np.ones(VOCABULARY))).T.astype(np.float32)  # [256, endings + 2]


_IN_LINES: Final = _Rules(single_line=False)
_IN_ONE_LINE: Final = _Rules(single_line=True)
_OF_WORDS, _OF_ALL = _ENDINGS, _ENDINGS + 1  # columns of `sums`


# --- lanes


class _Lanes(NamedTuple):
    """What the lanes hold, side by side. Lane 0 is the greedy one; the others follow in the order of arrival."""

    parents: Integers  # [lanes], the lanes that they go on from
    texts: list[bytes]
    ending: Integers  # [lanes]
    keys: Floats  # [lanes], `keys_of` the texts
    log_p: Floats  # [lanes], of the whole text at temperature 1
    share: Floats  # [lanes, 1], its probability at the sampling temperature, among what is not left out
    arrival: Floats  # [lanes, 1], when it was drawn: what lanes compete by

    def chosen(self, which: Integers) -> _Lanes:
        """Return some of the lanes."""
        return _Lanes(
            self.parents[which],
            [self.texts[lane] for lane in which.tolist()],
            self.ending[which],
            self.keys[which],
            self.log_p[which],
            self.share[which],
            self.arrival[which],
        )


class _Step(NamedTuple):
    """Lanes, and what the model gives after them: held by reference until somebody asks for a path."""

    lanes: _Lanes
    logits: Logits  # [lanes, 256]
    state: State  # [layers, parts, lanes, hidden]


_SYMBOLS: Final = np.arange(VOCABULARY, dtype=np.int64)
_AT_MOST: Final = np.float32(80)  # nats: the exponentials of 256 such still have a float32 sum
_COLDEST: Final = 0.02  # temperature: in less, the shares of good texts are too small for a float64
_LEAST_SHARE: Final = 1e-300  # what is less likely is drawn as if it were so likely, lest its time overflow
_DRAWN_AT_ONCE: Final = 2048  # numbers: those of eight steps in eight lanes


# What is left out, or next to impossible, has a weight of 0 or nearly so, and arrives at infinity.
@np.errstate(divide="ignore", over="ignore")
def decode(
    model: Model,
    start: Snapshot,
    options: DecodeOptions,
    *,
    mixture: Mixture | None = None,
    seed: int = 0,
    cancelled: Callable[[], bool] = never,
    clock: Callable[[], float] = time.perf_counter,
) -> Decoding:
    """Return candidates that may follow `start`, distinct, best first by expected benefit.

    The same arguments give the same answer, as long as the time budget does not run out; when it does, or when
    `cancelled` turns true, what is ready is returned (looked at between steps).
    """
    began = clock()
    if options.temperature < _COLDEST:
        options = replace(options, temperature=0.0)
    noise = _Noise(seed)
    rules = _IN_ONE_LINE if options.single_line else _IN_LINES
    lanes = _Lanes(
        parents=np.zeros(1, dtype=np.int64),
        texts=[b""],
        ending=np.full(1, _EMPTY, dtype=np.int64),
        keys=np.zeros(1),
        log_p=np.zeros(1),
        share=np.ones((1, 1)),
        arrival=np.zeros((1, 1)),
    )
    logits, state = start.logits[None, :], start.state
    trail: list[_Step] = []
    found: list[tuple[float, bytes, float, float]] = []  # -worth, and a candidate's fields: the best sorts first
    best = -math.inf
    for length in range(options.max_chars + 1):
        trail.append(_Step(lanes, logits, state))
        mixed = logits if mixture is None else mixture.expected(logits)
        likeliest, masses = _expected(lanes, mixed, rules, options)
        # The benefit is P*(k - 1 + cost) - cost, of which the last is the same for all.
        p = np.exp(lanes.log_p * (1 + DOUBT * lanes.keys))
        worth = p * (lanes.keys + (options.cost - 1))
        ends = masses[:, _OF_WORDS] <= masses[:, _OF_ALL] * _MAY_GO_ON.take(lanes.ending)
        for lane in ends.nonzero()[0].tolist():
            value = worth.item(lane)
            found.append((-value, lanes.texts[lane], lanes.log_p.item(lane), lanes.keys.item(lane)))
            best = max(best, value)
        reach = worth + HORIZON * p
        if length == options.max_chars or max(reach.tolist()) <= best:
            break
        if cancelled() or (clock() - began) * 1000 > options.budget_ms:
            break
        lanes, symbols = _extended(lanes, likeliest, masses, options, noise)
        hope = np.exp(lanes.log_p * (1 + DOUBT * lanes.keys)) * (lanes.keys + (options.cost - 1 + HORIZON))
        alive = (hope > best * HOPELESS).nonzero()[0]
        if 0 < len(alive) < len(hope):
            lanes, symbols = lanes.chosen(alive), symbols.take(alive)
        logits, state = model.step(symbols, state.take(lanes.parents, axis=2))
        if mixture is not None:
            mixture.go_on(lanes.parents, symbols)
    found.sort()
    candidates = [Candidate(*found[index][1:]) for index in _apart(text for _, text, _, _ in found)]
    return Decoding(candidates, trail)


def _expected(lanes: _Lanes, logits: Logits, rules: _Rules, options: DecodeOptions) -> tuple[Floats, Masses]:
    """Return what may follow each lane: the likeliest symbols [lanes, width], and the masses of `_Rules.sums`.

    A likely symbol is its negative logit, the likeliest first, whose last eight bits are the symbol: a float64 has
    room for both, and numbers are sorted in a third of the time that their indexes take.
    """
    # Of one lane no more children can survive than there are lanes: the likeliest in a beam, and when sampling
    # any of those that have a chance worth its noise.
    width = min(max(options.lanes, TOP_K if options.temperature > 0 else 0), VOCABULARY)
    scores = rules.penalties.take(lanes.ending, axis=0)
    scores -= logits
    sortable = scores.astype(np.float64)
    bits = sortable.view(np.int64)
    bits |= _SYMBOLS
    sortable.sort(axis=1)
    likeliest = sortable[:, :width].copy()
    # Odds against the likeliest symbol; one that is forbidden may be likelier by any amount.
    odds = logits + likeliest[:, :1].astype(np.float32)
    np.minimum(odds, _AT_MOST, out=odds)
    np.exp(odds, out=odds)
    return likeliest, odds.dot(rules.sums)


def _extended(
    lanes: _Lanes, likeliest: Floats, masses: Masses, options: DecodeOptions, noise: _Noise
) -> tuple[_Lanes, Integers]:
    """Return the next lanes, and the symbol that each has read more than its parent [lanes]."""
    count, width = likeliest.shape
    odds = likeliest[:, :1] - likeliest  # [lanes, width], logarithms, as the masses are: against the likeliest
    before = np.exp(odds).dot(_sums_before(width))  # [lanes, width], the mass of what is likelier
    limit = masses.take(_row_starts(count) + lanes.ending)
    limit *= options.top_p
    np.putmask(odds, before > limit[:, None], -np.inf)
    log_p = lanes.log_p - np.log(masses[:, _OF_ALL])  # [lanes], of each lane's likeliest child
    weight = np.exp(odds / (options.temperature or 1))
    pace = np.add.reduce(weight, axis=1, keepdims=True) / lanes.share  # [lanes, 1], the weight that a share of 1 has
    # In a beam the likeliest comes first.
    arrival = _drawn(weight, pace, lanes, noise) if options.temperature > 0 else -np.log(weight) - log_p[:, None]
    greedy = arrival.item(0)
    arrival[0, 0] = -np.inf  # the likeliest child of lane 0: the greedy lane lives on, as lane 0
    picked = arrival.ravel().argsort(kind="stable")[: options.lanes]
    arrival = arrival.take(picked)
    arrival[0] = greedy
    if arrival.item(-1) == math.inf:  # fewer children than lanes
        arrived = np.isfinite(arrival)
        picked, arrival = picked[arrived], arrival[arrived]
    parents = picked // width
    symbols = likeliest.view(np.int64).take(picked) & 0xFF
    transition = lanes.ending.take(parents) * VOCABULARY + symbols
    said = zip(parents.tolist(), symbols.tolist(), strict=True)
    return (
        _Lanes(
            parents=parents,
            texts=[lanes.texts[parent] + _BYTES[symbol] for parent, symbol in said],
            ending=_AFTER.take(transition),
            keys=lanes.keys.take(parents) + _KEYS.take(transition),
            log_p=log_p.take(parents) + odds.take(picked),
            share=np.maximum(weight.take(picked) / pace.take(parents), _LEAST_SHARE)[:, None],
            arrival=arrival[:, None],
        ),
        symbols,
    )


def _drawn(weight: Floats, pace: Floats, lanes: _Lanes, noise: _Noise) -> Floats:
    """Return when each child is drawn [lanes, width], the first of a lane's children when the lane was.

    Kool et al. compare Gumbel variables (section 4.2, appendix B.3), whose negatives are the logarithms of these times,
    exponential at the rate of a text's share. Their condition, that the largest among a lane's children be the
    lane's own, becomes a shift: an exponential time has no memory, and the others are as late after the first as ever.
    """
    arrival = noise.take(weight.size).reshape(weight.shape) / weight
    arrival -= np.minimum.reduce(arrival, axis=1, keepdims=True)
    arrival *= pace
    arrival += lanes.arrival
    return arrival


class _Noise:
    """Exponential random numbers, drawn many at a time."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._ready: Floats = np.empty(0)

    def take(self, count: int) -> Floats:
        """Return the next `count` of them. How many are drawn at once does not change which."""
        if len(self._ready) < count:
            more = -np.log(self._rng.uniform(1e-12, 1.0, size=max(count, _DRAWN_AT_ONCE)))
            self._ready = np.concatenate((self._ready, more))
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken


@functools.cache
def _row_starts(count: int) -> Integers:
    """Return where the rows of `Masses` begin.  # [count]"""
    return np.arange(count, dtype=np.int64) * (_ENDINGS + 2)


@functools.cache
def _sums_before(width: int) -> Floats:
    """Return the matrix by which numbers in a row become the sums of those before them.  # [width, width]"""
    return np.triu(np.ones((width, width)), 1)


def _apart(texts: Iterable[bytes]) -> list[int]:
    """Return the places of the texts that neither begin, nor go on from, one that is returned before."""
    kept: list[int] = []
    chosen: tuple[bytes, ...] = ()
    beginnings: set[bytes] = set()  # of the chosen
    for place, text in enumerate(texts):
        if text not in beginnings and not text.startswith(chosen):
            kept.append(place)
            chosen += (text,)
            beginnings.update(text[:length] for length in range(len(text) + 1))
    return kept


def distinct(candidates: Iterable[Candidate], cost: float) -> list[Candidate]:
    """Return the candidates best first, leaving out those that begin, or go on from, a better one."""
    ordered = sorted(candidates, key=lambda candidate: (-candidate.benefit(cost), candidate.text))
    return [ordered[place] for place in _apart(candidate.text for candidate in ordered)]
