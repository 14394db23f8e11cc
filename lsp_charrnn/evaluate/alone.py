"""The memories without a model, as a baseline of replayed typing: what copying from the project can do by itself.

The engine is the real one, with a model that expects every byte alike. Its lanes, filters and judgement are the
server's; what is missing is the protocol, which costs no keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lsp_charrnn.config import Settings
from lsp_charrnn.evaluate.inprocess import InProcess
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.model.step import Logits, Model, State, Symbols
from lsp_charrnn.text.symbols import VOCABULARY
from lsp_charrnn.train.corpus import SourceFile


class NoModel(Model):
    """A model that knows nothing: every byte is as likely as any other."""

    def __init__(self) -> None:
        self.spec = ModelSpec(cell="rnn", layers=1, hidden=1, embedding=1)
        self.name = "none"

    def read(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        """Return logits  # [time, lanes, 256], all 0."""
        return np.zeros((*symbols.shape, VOCABULARY), dtype=np.float32), state

    def advance(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        """Return logits  # [lanes, 256], all 0."""
        return np.zeros((symbols.shape[1], VOCABULARY), dtype=np.float32), state

    def step(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        """Return logits  # [lanes, 256], all 0."""
        return np.zeros((len(symbols), VOCABULARY), dtype=np.float32), state


class MemoriesAlone(InProcess):
    """The engine without a model, as a `replay.Suggester`; `files` are those of the projects around the windows."""

    name = "memories alone"

    def __init__(self, files: Sequence[SourceFile], settings: Settings | None = None) -> None:
        super().__init__(NoModel(), files, settings)
