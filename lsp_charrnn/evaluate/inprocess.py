"""The engine as a suggester of replayed typing, in this process: what the server shows, without protocol and threads.

What the server does in the background is done when a document is opened: the state before the cursor is final, and the
document and its project are counted. So the same windows always get the same answers, if there is time enough for them
(`PATIENT`). How long the server takes for a key is `client`'s to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.engine.session import Session
from lsp_charrnn.evaluate.replay import Window
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.train.corpus import SourceFile

PATIENT: Final = Settings(decode_budget_ms=10_000)  # no answer is cut short because the machine is busy
_URI: Final = "window"


class _Project:
    """A project whose files are given, as `engine.session.Project`: without the text of the file that is open."""

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


class InProcess:
    """The session as a `replay.Suggester`; `files` are those of the projects around the windows, if they have any.

    `model` may be replaced between two windows: to compare models, the projects need be counted once only.
    """

    name = "engine"

    def __init__(self, model: Model, files: Sequence[SourceFile] = (), settings: Settings | None = None) -> None:
        self.model = model
        self.probability = 0.0  # of what was suggested last, to be right as a whole
        names = {file.project for file in files}
        self._projects = {name: _Project([file for file in files if file.project == name]) for name in names}
        self._session = Session(lambda _: self.model, settings)
        self._document = Document.from_text("")
        self._cursor = 0  # a byte offset

    async def open(self, window: Window, before: str, after: str) -> None:
        """Open the window's file, read what stands before the cursor, and count what the document holds."""
        self._document = Document.from_text(before + after)
        self._cursor = len(before.encode("utf-8"))
        project = self._projects.get(window.project)
        self._session.open(_URI, self._document, path=window.path, language=window.language, project=project)
        self._type("")  # which tells where the cursor is, and unlike a completion shows nothing
        self._session.advance(_URI)
        self._session.remember(_URI)

    async def suggest(self, typed: str) -> str:
        """Return what is shown once `typed` went in."""
        self._type(typed)
        shown = self._session.complete(_URI, self._cursor).completions
        self.probability = shown[0].probability if shown else 0.0
        return shown[0].text if shown else ""

    async def close(self) -> None:
        """Close the document."""
        self._session.close(_URI)

    def _type(self, typed: str) -> None:
        edit = Edit(self._cursor, self._cursor, typed.encode("utf-8"))
        self._document = self._document.replace(edit)
        self._cursor += len(edit.new)
        self._session.edit(_URI, self._document, [edit])
