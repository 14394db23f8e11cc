"""Tokens that are far less likely than their surroundings, by the model and both memories, and what was expected.

A text is read once. What each byte cost in bits is held against what the prediction there expected it to cost, its
entropy: where anything may come nothing is odd, where the model was sure and another thing came, something is. A token
is odd where it begins, for another was expected, or where it ends, for it should have gone on; what it costs in between
counts for half, for that is mostly the rest of a name that is new. This *excess* finds more mistakes than what a token
costs in all (docs/experiments.md, "Surprise"). The document's memory knows the whole text, but for the very place that
is looked at: a name that stands there once and elsewhere otherwise is odd, whether the others come before it or after.

Which texts are read, and how it is shown, is left to others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.engine.contexts import REACH, keys_of_text, surroundings_in
from lsp_charrnn.engine.memory import Block, Counts
from lsp_charrnn.engine.mixer import Mixer, Mixture, mixed, shipped_mixer
from lsp_charrnn.engine.stream import Cancelled, never
from lsp_charrnn.model.step import Logits, Model, State
from lsp_charrnn.text.symbols import VOCABULARY, header, to_symbols

PIECE: Final = 32  # bytes read between two looks at `cancelled`: about a millisecond
WITHIN: Final = 0.5  # what a byte within a token counts beside its first one
LEAST: Final = 8.0  # bits of excess of a token that is told: eight or nine of a thousand
TIMES: Final = 4.0  # and so many times that of the tokens around it, as far as they have any
AROUND: Final = 50  # tokens on either side
LONGEST: Final = 32  # bytes of what was expected instead

Bits = npt.NDArray[np.float64]

# Names and numbers, operators of several characters, and whatever else stands alone; blanks cost nothing.
_TOKEN: Final = re.compile(rb"[\w\x80-\xf7]+|[-+*/%&|^!=<>~@]+|[^\w\s\x80-\xf7]")
_WORD: Final = np.zeros(VOCABULARY, dtype=np.bool_)
_WORD[[byte for byte in range(0xF8) if re.match(rb"[\w\x80-\xf7]", bytes((byte,)))]] = True


@dataclass(frozen=True)
class Token:
    """A token of a text, and what it cost."""

    start: int  # bytes [start, end) of the text that was read
    end: int
    bits: float
    excess: float  # bits more than was expected, where it begins or ends


@dataclass(frozen=True)
class Unlikely:
    """A token that is far less likely than its surroundings."""

    token: Token
    text: str
    instead: str  # what was expected: a token, or empty where it is the same one


class Surprise:
    """The reading of one text. Given up, it goes on where it was.

    `state` and `logits` are the model's before the text, `before` the last bytes in front of it. `document` are the
    counts of the whole document, the text among it, and `project` those of the other files.
    """

    def __init__(
        self,
        model: Model,
        mixer: Mixer,
        text: bytes,
        *,
        state: State,
        logits: Logits,
        before: bytes = b"",
        document: Sequence[Counts] = (),
        project: Sequence[Counts] = (),
    ) -> None:
        self.text = text
        self._model, self._mixer = model, mixer
        self._before = before[-REACH:]
        self._memories = (tuple(document), tuple(project))
        self._symbols = to_symbols(text)
        self._keys = keys_of_text(self._before + text)[:, len(self._before) :]
        self._surroundings = surroundings_in(self._before + text)[:, len(self._before) :]
        self._states = [(state, logits)]  # before each piece that has been read, and behind the last
        self._bits = np.empty(len(text))
        self._entropy = np.empty(len(text))
        self._ends = np.empty(len(text))  # bits for no word going on at each place
        self._known: dict[int, bytes] = {}  # what was expected at the tokens that were asked about, by their starts

    @classmethod
    def of_file(
        cls, model: Model, path: str, text: bytes, *, document: Sequence[Counts] = (), project: Sequence[Counts] = ()
    ) -> Surprise:
        """Return the reading of a whole file, done, by the mixer that comes with the package."""
        logits, state = model.advance(to_symbols(header(path))[:, None], model.initial_state())
        surprise = cls(model, shipped_mixer(), text, state=state, logits=logits[0], document=document, project=project)
        surprise.go_on()
        return surprise

    @property
    def read(self) -> int:
        """How many bytes have been read."""
        return min(len(self.text), (len(self._states) - 1) * PIECE)

    def go_on(self, cancelled: Callable[[], bool] = never) -> None:
        """Read to the end. Raises `Cancelled` within a piece of `cancelled` turning true."""
        while self.read < len(self.text):
            if cancelled():
                raise Cancelled
            piece = slice(self.read, min(self.read + PIECE, len(self.text)))
            state, before = self._states[-1]
            came = self._symbols[piece]
            logits, state = self._model.read(came[:, None], state)
            expected = mixed(
                self._mixer,
                self._memories,
                self._keys[:, piece],
                self._surroundings[:, piece],
                np.concatenate((before[None], logits[:-1, 0])),
                came=came,
            ).astype(np.float64)
            p = np.exp(expected)
            self._bits[piece] = -expected[np.arange(len(came)), came] / np.log(2)
            self._entropy[piece] = -(p * expected).sum(axis=1) / np.log(2)
            self._ends[piece] = -np.log2(p[:, ~_WORD].sum(axis=1).clip(min=1e-12))
            self._states.append((state, logits[-1, 0]))

    def tokens(self) -> Iterator[Token]:
        """Yield the tokens of the text, which must have been read."""
        costs = np.concatenate(([0.0], self._bits.cumsum()))
        excess = self._bits - self._entropy
        after = 0.0  # what the end of the word before has taken of this place's cost
        behind = -1
        for match in _TOKEN.finditer(self.text):
            start, end = match.span()
            taken = after if start == behind else 0.0
            after, behind = 0.0, -1
            # That a word ends is told by the byte behind it, and is the word's: another may be expected to go on.
            if end < len(self.text) and _WORD[self.text[end - 1]]:
                after, behind = float(self._ends[end]), end
            within = float(excess[start + 1 : end].max(initial=0.0))
            yield Token(
                start,
                end,
                float(costs[end] - costs[start]) + after - taken,
                max(float(excess[start]) - taken, after, WITHIN * within),
            )

    def unlikely(
        self, *, least: float = LEAST, times: float = TIMES, cancelled: Callable[[], bool] = never
    ) -> list[Unlikely]:
        """Return the tokens that are far less likely than their surroundings, in the text's order.

        Those with `least` bits of excess, and `times` what the tokens around have. Raises `Cancelled`.
        """
        tokens = list(self.tokens())
        excess = np.array([max(0.0, token.excess) for token in tokens])
        sums = np.concatenate(([0.0], excess.cumsum()))
        found = []
        for index, token in enumerate(tokens):
            low, high = max(0, index - AROUND), min(len(tokens), index + AROUND + 1)
            around = (sums[high] - sums[low] - excess[index]) / max(1, high - low - 1)
            if token.excess >= least and token.excess >= times * around:
                text = self.text[token.start : token.end].decode("utf-8", errors="replace")
                if token.start not in self._known:
                    self._known[token.start] = self._instead(token, cancelled)
                instead = self._known[token.start].decode("utf-8", errors="ignore")
                found.append(Unlikely(token, text, "" if instead == text else instead))
        return found

    def _instead(self, token: Token, cancelled: Callable[[], bool]) -> bytes:
        """Return the token that was likeliest where `token` stands, as if it did not."""
        (state, logits), at = self._states[token.start // PIECE], token.start // PIECE * PIECE
        if at < token.start:
            last, state = self._model.advance(self._symbols[at : token.start, None], state)
            logits = last[0]
        before = self._before + self.text[: token.start]
        own = Block(
            before[-REACH:],
            self.text[token.start : token.end],
            self.text[token.end : token.end + REACH],
            sign=-1,
        )
        document, project = self._memories
        without = (*document, Counts.of([own])) if document else ()
        mixture = Mixture(self._mixer, without, project, before)
        found = b""
        while len(found) < LONGEST:
            if cancelled():
                raise Cancelled
            symbol = mixture.expected(logits[None]).argmax(axis=1)
            grown = found + bytes((int(symbol[0]),))
            match = _TOKEN.match(grown)
            if match is None or match.end() < len(grown):
                break
            found = grown
            mixture.go_on(np.zeros(1, dtype=np.int64), symbol)
            stepped, state = self._model.step(symbol, state)
            logits = stepped[0]
        return found
