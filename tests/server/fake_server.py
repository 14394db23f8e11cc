"""The real server around an engine whose answers a test can foretell. Run as a script, it serves over stdio.

The engine completes the word before the cursor to one of WORDS. Two words are orders to it: after `wait` it works
until it is cancelled, after `calls` it suggests how often it has been asked, and how often it was cancelled at it.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.session import Answer, Completion, Reading
from lsp_charrnn.errors import DocumentNotOpenError, ModelError
from lsp_charrnn.model.step import Model
from lsp_charrnn.server.access import EVERYBODY
from lsp_charrnn.server.app import serve_stdio, serve_tcp, serve_ws
from lsp_charrnn.text.document import Document, Edit

WORDS = ("print(value)", "prints", "printer.run(\n    now)", "été_😀_fin")
PATIENCE = 10.0  # seconds that `wait` works if nobody cancels it


def never() -> bool:
    return False


class FakeSession:
    """As `engine.session.Session`, with documents that it checks against the edits."""

    def __init__(self, models: Callable[[str], Model], settings: Settings) -> None:
        self.models = models
        self.settings = settings
        self.asked = 0
        self.cancelled = 0
        self.advanced = 0
        self.around: list[str] = []  # the documents whose surroundings were read
        self.lock = threading.Lock()
        self.documents: dict[str, tuple[Document, str, str]] = {}
        self.projects: dict[str, Any] = {}

    def open(
        self,
        uri: str,
        document: Document,
        *,
        path: str,
        language: str,
        project: object = None,
        models: Callable[[str], Model] | None = None,
    ) -> None:
        with self.lock:
            self.documents[uri] = (document, path, language)
            self.projects[uri] = project

    def use_project(self, uri: str, project: object) -> None:
        with self.lock:
            self._entry(uri)
            self.projects[uri] = project

    def edit(self, uri: str, document: Document, edits: Sequence[Edit]) -> None:
        with self.lock:
            before, path, language = self._entry(uri)
            assert len(document.data) > 1 << 20 or before.apply(edits).data == document.data
            self.documents[uri] = (document, path, language)

    def close(self, uri: str) -> None:
        with self.lock:
            self.documents.pop(uri, None)
            self.projects.pop(uri, None)

    def configure(self, settings: Settings) -> None:
        self.settings = settings

    def document(self, uri: str) -> Document:
        with self.lock:
            return self._entry(uri)[0]

    def complete(self, uri: str, offset: int, *, count: int = 1, cancelled: Callable[[], bool] = never) -> Answer:
        assert threading.current_thread().name == "model"
        began = time.perf_counter()
        self.asked += 1
        with self.lock:
            document, path, language = self._entry(uri)
        if language == "unmodelled":
            raise ModelError("there is no model: train one.")
        before = document.data[max(0, offset - 64) : offset].decode("utf-8", errors="ignore")
        word = re.findall(r"\w*$", before)[0]
        if word == "wait":
            while not cancelled() and time.perf_counter() - began < PATIENCE:
                time.sleep(0.001)
            if cancelled():
                self.cancelled += 1
                return Answer(document.version, (), False, 0.0)
        words: Sequence[str] = WORDS
        if word == "calls":
            words = [f"calls_{self.asked}_{self.cancelled}"]
        elif word == "path":
            words = [f"path:{path}"]
        newline = document.newline.decode()
        rests = [w[len(word) :].replace("\n", newline) for w in words if w.startswith(word) and word and w != word]
        return Answer(
            document.version,
            tuple(Completion(rest, offset, offset, -0.5, 0.6) for rest in rests[:count]),
            False,
            1e3 * (time.perf_counter() - began),
        )

    def advance(self, uri: str, *, cancelled: Callable[[], bool] = never) -> None:
        assert threading.current_thread().name == "model"
        self.advanced += 1

    def read_around(self, uri: str, *, cancelled: Callable[[], bool] = never) -> None:
        assert threading.current_thread().name == "model"
        self.around.append(uri)

    def remember(self, uri: str) -> None:
        assert threading.current_thread().name == "counter"

    def reading(self, uri: str) -> Reading:
        return Reading(refined=self.advanced > 0, settled=uri in self.around, remembered=True)

    def _entry(self, uri: str) -> tuple[Document, str, str]:
        if uri not in self.documents:
            raise DocumentNotOpenError(f"{uri} is not open")
        return self.documents[uri]


if __name__ == "__main__":
    make = FakeSession
    how = sys.argv[1:] or ["stdio"]
    if how[0] == "tcp":
        sys.exit(serve_tcp("127.0.0.1", int(how[1]), access=EVERYBODY, make_session=make))  # type: ignore[arg-type]
    if how[0] == "ws":
        sys.exit(serve_ws("127.0.0.1", int(how[1]), access=EVERYBODY, make_session=make))  # type: ignore[arg-type]
    sys.exit(serve_stdio(make_session=make))  # type: ignore[arg-type]
