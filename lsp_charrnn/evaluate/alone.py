"""The memories without a model, as a baseline of replayed typing: what copying from the project can do by itself.

The engine is the real one, with a model that expects every byte alike. Its lanes, filters and judgement are the
server's; what is missing is the protocol, which costs no keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.engine.session import Session
from lsp_charrnn.evaluate.replay import Window
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.model.step import Logits, Model, State, Symbols
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.symbols import VOCABULARY
from lsp_charrnn.train.corpus import SourceFile

_URI = "window"


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


class _Project:
    """A project whose files are given, as `engine.session.Project`."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._texts = {file.path: file.text for file in files}
        self._counts = Counts.of_texts(self._texts.values())
        self._without: dict[str, Counts] = {}

    def tables(self, path: str) -> Sequence[Counts]:
        """Return the counts of all files but one."""
        if path not in self._without:
            own = Counts.of_texts([self._texts[path]] if path in self._texts else [])
            self._without[path] = Counts.sum([(own, -1)])
        return self._counts, self._without[path]


class MemoriesAlone:
    """The engine without a model, as a `replay.Suggester`; `files` are those of the projects around the windows."""

    name = "memories alone"

    def __init__(self, files: Sequence[SourceFile], settings: Settings | None = None) -> None:
        names = {file.project for file in files}
        self._projects = {name: _Project([file for file in files if file.project == name]) for name in names}
        model = NoModel()
        self._session = Session(lambda _: model, settings)
        self._document = Document.from_text("")
        self._cursor = 0

    async def open(self, window: Window, before: str, after: str) -> None:
        """Open the window's file."""
        self._document = Document.from_text(before + after)
        self._cursor = len(before.encode("utf-8"))
        project = self._projects.get(window.project)
        self._session.open(_URI, self._document, path=window.path, language=window.language, project=project)
        self._session.advance(_URI)
        self._session.remember(_URI)

    async def suggest(self, typed: str) -> str:
        """Return what is shown once `typed` went in."""
        new = typed.encode("utf-8")
        edit = Edit(self._cursor, self._cursor, new)
        self._document = self._document.replace(edit)
        self._cursor += len(new)
        self._session.edit(_URI, self._document, [edit])
        completions = self._session.complete(_URI, self._cursor).completions
        return completions[0].text if completions else ""

    async def close(self) -> None:
        """Close it."""
        self._session.close(_URI)
