"""Models whose predictions the tests write down: what `engine` asks of a `Model`, without a network.

The state of a lane is the last symbols it has read. So predictions may depend on them, and the states that are
passed to `step` tell which texts the lanes hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.model.step import Logits, Model, State, Symbols

FLOOR = 1e-13  # probability of a symbol that the script does not name
ORIGIN = b"\xf9"  # HEADER_END: the last symbol before the text


class ScriptedModel(Model):
    """Predicts by `predict(the last symbols read)`: a probability for each symbol that may come."""

    def __init__(self, predict: Callable[[bytes], Mapping[int, float]], *, context: int = 256) -> None:
        self.spec = ModelSpec(cell="rnn", layers=1, hidden=context, embedding=1)
        self.name = "scripted"
        self.predict = predict
        self.steps: list[list[bytes]] = []  # for each step, the texts of all lanes, from the header's end
        self.symbols_read = 0
        self.on_run: Callable[[], None] = lambda: None
        self._known: dict[bytes, npt.NDArray[np.float32]] = {}

    def step(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        logits, after = self._step(symbols, state)
        self.steps.append([text_of(lane).rpartition(ORIGIN)[2] for lane in after[0, 0]])
        return logits, after

    def read(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        self.symbols_read += symbols.size
        logits = np.empty((*symbols.shape, 256), dtype=np.float32)
        for at, row in enumerate(symbols):
            logits[at], state = self._step(row, state)
        return logits, state

    def advance(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        logits, state = self.read(symbols, state)
        return logits[-1], state

    def _step(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        self.on_run()
        assert state.dtype == np.float32  # what the real model asks for
        assert state.flags.c_contiguous
        assert symbols.dtype == np.int64
        assert state.shape == (1, 1, len(symbols), self.spec.hidden)
        after = np.concatenate((state[:, :, :, 1:], symbols[None, None, :, None].astype(np.float32)), axis=3)
        return np.stack([self.logits(text_of(lane)) for lane in after[0, 0]]), after

    def logits(self, text: bytes) -> npt.NDArray[np.float32]:
        """Return the logits after `text`.  # [256]"""
        if text not in self._known:
            p = np.full(256, FLOOR)
            for symbol, probability in self.predict(text).items():
                p[symbol] = max(probability, FLOOR)
            self._known[text] = np.log(p / p.sum()).astype(np.float32)
        return self._known[text]


def text_of(lane: npt.NDArray[np.float32]) -> bytes:
    """Return the symbols that a lane's state holds; what it has not read yet are zeros."""
    return lane.astype(np.uint8).tobytes().lstrip(b"\0")


def by_text(
    script: Mapping[str, Mapping[str, float]], rest: Mapping[str, float]
) -> Callable[[bytes], dict[int, float]]:
    """Predict by the whole text since the header: `script` gives the probabilities of the next character."""

    def predict(text: bytes) -> dict[int, float]:
        after = script.get(text.rpartition(ORIGIN)[2].decode("latin-1"), rest)
        return {ord(character): probability for character, probability in after.items()}

    return predict


def learned(*texts: str, order: int = 16) -> ScriptedModel:
    """Return a model that has learned `texts` by heart: it goes on as they did after the longest context known."""
    counts: dict[bytes, Counter[int]] = {}
    for text in texts:
        data = b"\xf8" + ORIGIN + re.sub("\r\n|\r", "\n", text).encode() + b"\xf8"
        for at in range(1, len(data)):
            for length in range(min(order, at) + 1):
                counts.setdefault(data[at - length : at], Counter())[data[at]] += 1

    def predict(text: bytes) -> dict[int, float]:
        text = b"\xf8" + ORIGIN + text.rpartition(ORIGIN)[2] if ORIGIN in text else text
        for length in range(min(order, len(text)), -1, -1):
            known = counts.get(text[len(text) - length :])
            if known:
                total = known.total()
                return {symbol: count / total for symbol, count in known.items()}
        return {ord("\n"): 1.0}

    return ScriptedModel(predict, context=4 * order)


class CountingModel(Model):
    """A real model that counts what it reads, and can be made to do something else first."""

    def __init__(self, model: Model) -> None:
        self.spec, self.name, self._model = model.spec, model.name, model
        self.calls = 0
        self.symbols_read = 0
        self.on_run: Callable[[], None] = lambda: None

    def step(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        self.on_run()
        self.calls += 1
        return self._model.step(symbols, state)

    def read(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        self.on_run()
        self.calls += 1
        self.symbols_read += symbols.size
        return self._model.read(symbols, state)

    def advance(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        self.on_run()
        self.calls += 1
        self.symbols_read += symbols.size
        return self._model.advance(symbols, state)


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Weights that drive the gates through their range, so that what was read long ago still matters."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, 0.5 if len(shape) == 1 else shape[-1] ** -0.5, shape).astype(np.float32)
        * (4 if name == "embedding.weight" else 1)
        for name, shape in spec.shapes().items()
    }


def turns_true_after(calls: int) -> Callable[[], bool]:
    """Return a `cancelled` that says no so many times."""
    answers: Iterator[bool] = iter([False] * calls)
    return lambda: next(answers, True)
