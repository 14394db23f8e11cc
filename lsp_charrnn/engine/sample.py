"""Free text from a model, one character after another: what `lsp-charrnn sample` prints.

Plain sampling at a temperature, without lanes or any judgement: for those see `decode`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lsp_charrnn.errors import SettingError
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.symbols import START, UTF8_ALLOWED, UTF8_NEXT, header, normalise, to_symbols, utf8_start_state


def sample(model: Model, prompt: bytes, *, path: str, length: int, temperature: float, seed: int) -> Iterator[str]:
    r"""Yield up to `length` characters that go on from `prompt` in a document named `path`.

    `prompt` is UTF-8; its line ends are read as `\n`. At `temperature` 0 the likeliest character is taken each
    time. It ends early where the model ends the document. Raises `SettingError` for options out of range.
    """
    if length < 0:
        raise SettingError(f"the length is {length}: it must be 0 or more.")
    if not temperature >= 0:
        raise SettingError(f"the temperature is {temperature}: it must be 0 or more.")
    return _characters(model, prompt, path, length, temperature, np.random.default_rng(seed))


def _characters(
    model: Model, prompt: bytes, path: str, length: int, temperature: float, rng: np.random.Generator
) -> Iterator[str]:
    symbols = to_symbols(header(path) + normalise(prompt))
    logits, state = model.read(symbols[:, None], model.initial_state())
    utf8, character = utf8_start_state(prompt), b""
    row = logits[-1, 0]
    while length > 0:
        allowed = UTF8_ALLOWED[utf8].copy()
        allowed[START] = not character  # a document ends between two characters
        scores = np.where(allowed, row.astype(np.float64), -np.inf)
        if temperature > 0:
            # The largest of scores with Gumbel noise is a sample of their softmax (Gumbel 1954).
            scores = scores / temperature + rng.gumbel(size=scores.shape)
        symbol = int(scores.argmax())
        if symbol == START:
            return
        character += bytes((symbol,))
        utf8 = int(UTF8_NEXT[utf8, symbol])
        if utf8 == 0:
            yield character.decode("utf-8")
            character = b""
            length -= 1
        logits, state = model.step(np.array([symbol], dtype=np.int64), state)
        row = logits[0]
