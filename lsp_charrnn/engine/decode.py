"""Sampling on from a state: lanes that explore the likeliest continuations, and the length that is worth showing.

The lanes are a stochastic beam (Kool, van Hoof & Welling 2019, "Stochastic beams and where to find them"):
samples without replacement from the model at the set temperature, so that no two lanes are ever the same text
and none is spent twice. At temperature 0 it is plain beam search. One lane always follows the likeliest text.

Length is a decision: of all prefixes of all lanes that end on a token's or a line's end, the best is the one
with the largest expected benefit P*(k - 1) - (1 - P)*cost, for a prefix of probability P that saves k keys and
takes one to accept. Nothing here knows documents or what stands behind the cursor: see `filters` and `session`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.engine.stream import Snapshot, never
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.symbols import FIRST_SPECIAL, UTF8_ALLOWED, UTF8_BOUNDARY, UTF8_NEXT, VOCABULARY

# Keys that a wrong suggestion costs its reader: few more are saved at 0, and far more is shown (docs/experiments.md).
COST: Final = 0.3
TOP_P: Final = 0.98  # of each lane's next symbols: what lies outside this mass is not sampled
TOP_K: Final = 32  # of each lane's next symbols: the most that are sampled from, in whatever mass
GOES_ON: Final = 0.7  # where a word goes on with a larger probability than this, no suggestion ends
HORIZON: Final = 24  # keys further on in which a lane may still become better than the best so far

# What a word is made of. An underscore parts words: `get_` is a place to stop where what follows is uncertain.
_WORD: Final = np.zeros(VOCABULARY, dtype=np.bool_)
_WORD[[*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"]] = True
_WORD[0x80:FIRST_SPECIAL] = True  # a letter outside ASCII, as a rule
_LOOSE_ENDS: Final = (b"\n", b"\t", b"\n ", b"\t ", b"  ")  # blanks that follow no token
_INDENT: Final = np.zeros(VOCABULARY, dtype=np.bool_)
_INDENT[[*b" \t"]] = True
_INDENTATION: Final = re.compile(rb"\n[ \t]+")
_NEWLINE: Final = ord("\n")
# What nobody types: control characters, and \r, for line ends are read and written as \n here.
_CONTROL: Final = np.zeros(VOCABULARY, dtype=np.bool_)
_CONTROL[[*range(0x20), 0x7F]] = True
_CONTROL[[*b"\t\n\f"]] = False  # a form feed parts the pages of some old sources

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode. `temperature` is that of the sampled lanes; 0 makes every lane greedy in turn (a beam)."""

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
        return self.probability * (self.keys - 1) - (1 - self.probability) * cost


def keys_of(text: bytes) -> int:
    """Return the keys that typing `text` takes: its characters, less indentation after a line end, which editors do."""
    return sum(byte & 0xC0 != 0x80 for byte in _INDENTATION.sub(b"\n", text))


@dataclass
class _Lanes:
    """What the lanes hold, side by side. Lane 0 is the greedy one."""

    texts: list[bytes]
    log_p: Floats  # [lanes], of the whole text at temperature 1
    phi: Floats  # [lanes], the same at the sampling temperature
    gumbel: Floats  # [lanes], phi with its noise: what lanes compete by
    keys: Floats  # [lanes], `keys_of` the texts
    utf8: npt.NDArray[np.uint8]  # [lanes]
    indenting: npt.NDArray[np.bool_]  # [lanes], only blanks since the last line end in the text
    last: npt.NDArray[np.int64]  # [lanes], last byte


def decode(
    model: Model,
    start: Snapshot,
    options: DecodeOptions,
    *,
    seed: int = 0,
    cancelled: Callable[[], bool] = never,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Candidate]:
    """Return candidates that may follow `start`, distinct, best first by expected benefit.

    The same arguments give the same answer, as long as the time budget does not run out; when it does, or when
    `cancelled` turns true, what is ready is returned (looked at between steps).
    """
    began = clock()
    rng = np.random.default_rng(seed)
    lanes = _Lanes(
        texts=[b""],
        log_p=np.zeros(1),
        phi=np.zeros(1),
        gumbel=np.zeros(1),
        keys=np.zeros(1),
        utf8=np.array([UTF8_BOUNDARY], dtype=np.uint8),
        indenting=np.zeros(1, dtype=np.bool_),
        last=np.array([_NEWLINE], dtype=np.int64),  # of no text: a place to stay, not to end
    )
    logits, state = start.logits[None, :], start.state
    found: dict[bytes, Candidate] = {}
    best = -math.inf
    for length in range(options.max_chars + 1):
        log_q = _log_softmax(logits)  # [lanes, 256]
        best = max(best, _collect(found, lanes, log_q, options))
        probability = np.exp(lanes.log_p)
        reach = probability * (lanes.keys + HORIZON - 1) - (1 - probability) * options.cost
        if length == options.max_chars or float(reach.max()) <= best:
            break
        if cancelled() or (clock() - began) * 1000 > options.budget_ms:
            break
        chosen = _extend(lanes, log_q, options, rng, single_line=options.single_line)
        if chosen is None:
            break
        lanes, parents, symbols = chosen
        logits, state = model.step(symbols, np.ascontiguousarray(state[:, :, parents]))
    return distinct(found.values(), options.cost)


def _log_softmax(logits: npt.NDArray[np.float32]) -> Floats:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _collect(found: dict[bytes, Candidate], lanes: _Lanes, log_q: Floats, options: DecodeOptions) -> float:
    """Note the lanes that may end where they are; return the best expected benefit among them.

    A lane may end between two characters, and not within a word: where it ends in a word's character, the word must
    have a fair chance to end there (`GOES_ON`). Of blanks it may end in one, after a token: the next token can then be
    typed at once.
    """
    goes_on = np.exp(log_q)[:, _WORD].sum(axis=1)
    ends = (lanes.utf8 == UTF8_BOUNDARY) & ~(_WORD[lanes.last] & (goes_on > GOES_ON))
    best = -math.inf
    for lane in np.flatnonzero(ends):
        text = lanes.texts[lane]
        if text and not text.endswith(_LOOSE_ENDS):
            candidate = Candidate(text, float(lanes.log_p[lane]), float(lanes.keys[lane]))
            found[text] = candidate
            best = max(best, candidate.benefit(options.cost))
    return best


def _extend(
    lanes: _Lanes, log_q: Floats, options: DecodeOptions, rng: np.random.Generator, *, single_line: bool
) -> tuple[_Lanes, npt.NDArray[np.intp], npt.NDArray[np.int64]] | None:
    """Return the next lanes, the lane that each goes on from, and its new symbol; None where nothing may follow."""
    allowed = UTF8_ALLOWED[lanes.utf8]
    allowed[:, _CONTROL] = False
    if single_line:
        allowed[:, _NEWLINE] = False
    # Of one lane no more children can survive than there are lanes: the likeliest in a beam, and when sampling
    # any of those that have a chance worth its noise.
    width = min(max(options.lanes, TOP_K if options.temperature > 0 else 0), VOCABULARY)
    masked = np.where(allowed, log_q, -np.inf)
    top = np.argpartition(-masked, width - 1, axis=1)[:, :width]  # [lanes, width]
    child = np.take_along_axis(masked, top, axis=1)
    order = np.argsort(-child, axis=1)
    top, child = np.take_along_axis(top, order, axis=1), np.take_along_axis(child, order, axis=1)
    mass = np.cumsum(np.exp(child), axis=1)
    outside = np.zeros_like(child, dtype=np.bool_)
    outside[:, 1:] = mass[:, :-1] > options.top_p * np.exp(np.logaddexp.reduce(masked, axis=1))[:, None]
    child = np.where(outside, -np.inf, child)
    total = np.where(np.isfinite(child), lanes.log_p[:, None] + child, -np.inf)
    if not np.isfinite(total).any():
        return None
    if options.temperature > 0:
        phi, gumbel = _perturbed(lanes, child, options.temperature, rng)
    else:
        phi = gumbel = total
    flat = gumbel.ravel().copy()
    if np.isfinite(child[0, 0]):
        flat[0] = np.inf  # the likeliest child of lane 0: the greedy lane lives on, as lane 0
    picked = np.argsort(-flat, kind="stable")[: options.lanes]
    picked = picked[np.isfinite(total.ravel()[picked])]
    parents, column = np.divmod(picked, top.shape[1])
    symbols = top.ravel()[picked].astype(np.int64)
    after_newline = symbols == _NEWLINE
    free = lanes.indenting[parents] & _INDENT[symbols]
    starts_character = (symbols & 0xC0) != 0x80
    return (
        _Lanes(
            texts=[lanes.texts[parent] + bytes((symbol,)) for parent, symbol in zip(parents, symbols, strict=True)],
            log_p=total[parents, column],
            phi=phi[parents, column],
            gumbel=gumbel[parents, column],
            keys=lanes.keys[parents] + (starts_character & ~free),
            utf8=UTF8_NEXT[lanes.utf8[parents], symbols],
            indenting=after_newline | free,
            last=symbols,
        ),
        parents,
        symbols,
    )


def _perturbed(lanes: _Lanes, child: Floats, temperature: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the children's log-probabilities at `temperature`, and the same with Gumbel noise whose maximum over
    a lane's children is the lane's own (Kool et al. 2019, section 4.2 and appendix B.3), both [lanes, width].
    """
    scaled = child / temperature
    scaled = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
    phi = lanes.phi[:, None] + scaled
    noise = phi - np.log(-np.log(rng.uniform(1e-12, 1.0, size=phi.shape)))
    largest = noise.max(axis=1, keepdims=True)
    target = lanes.gumbel[:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        v = target - noise + np.log1p(-np.exp(noise - largest))
        conditional = target - np.maximum(v, 0) - np.log1p(np.exp(-np.abs(v)))
    conditional = np.where(noise == largest, target, conditional)
    return phi, np.where(np.isfinite(phi), conditional, -np.inf)


def distinct(candidates: Iterable[Candidate], cost: float) -> list[Candidate]:
    """Return the candidates best first, leaving out those that begin, or go on from, a better one."""
    kept: list[Candidate] = []
    ordered = sorted(candidates, key=lambda candidate: (-candidate.benefit(cost), candidate.text))
    for candidate in ordered:
        if not any(candidate.text.startswith(k.text) or k.text.startswith(candidate.text) for k in kept):
            kept.append(candidate)
    return kept
