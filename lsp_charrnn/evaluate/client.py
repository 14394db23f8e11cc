"""The real server, spoken to as an editor speaks to it: a subprocess, LSP over its stdin and stdout.

The documents it is shown lie in a directory of their own. It is empty, or holds the files of their projects; of the
document that is open, whose file is there as in real life, the server must make nothing (`project.memory`). What is
typed, and what is made of the suggestions, is left to `replay`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.replay import Window
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.positions import PositionEncoding, offset_at, position_at
from lsp_charrnn.train.corpus import SourceFile

SERVER: Final = (sys.executable, "-m", "lsp_charrnn", "serve")

_PATIENCE: Final = 60.0  # seconds for one answer: far more than any takes, so that a hang becomes a sentence
_LAST_WORDS: Final = 20  # lines of the server's log kept for the message when it dies

T = TypeVar("T")


class _Client(LanguageClient):
    """pygls's client that keeps the server's log from filling its pipe, and the errors it shows its user."""

    def __init__(self) -> None:
        super().__init__("lsp-charrnn-evaluate", "1")
        self.errors: list[str] = []
        self.last_words: deque[str] = deque(maxlen=_LAST_WORDS)

        self.feature(lsp.WINDOW_SHOW_MESSAGE)(lambda params: self._keep_error(params))
        for ignored in (lsp.WINDOW_LOG_MESSAGE, lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS, lsp.PROGRESS):
            self.feature(ignored)(lambda params: None)

    async def start_io(self, cmd: str, *args: str, **kwargs: Any) -> None:
        """Start the server, and read its log as it comes."""
        await super().start_io(cmd, *args, **kwargs)
        assert self._server is not None
        assert self._server.stderr is not None
        self._async_tasks.append(asyncio.create_task(self._read_log(self._server.stderr)))

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The server's process."""
        assert self._server is not None, "the server was not started"
        return self._server

    def _keep_error(self, params: lsp.ShowMessageParams) -> None:
        if params.type == lsp.MessageType.Error:
            self.errors.append(params.message)

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.last_words.append(line.decode("utf-8", "replace").rstrip())


class ServerSuggester:
    """The server as a `replay.Suggester`: for each key a didChange, then an `Automatic` inlineCompletion."""

    name = "lsp-charrnn"

    def __init__(self, client: _Client, encoding: PositionEncoding, folders: Mapping[str, Path]) -> None:
        self._client = client
        self._encoding = encoding
        self._folders = folders
        self._uri = ""
        self._document = Document.from_text("")
        self._version = 0
        self._cursor = 0  # a byte offset

    @classmethod
    @asynccontextmanager
    async def started(
        cls,
        *,
        model: str | Path = "",
        settings: Mapping[str, Any] | None = None,
        projects: Collection[str] = (),
        files: Iterable[SourceFile] = (),
        command: Sequence[str] = SERVER,
    ) -> AsyncIterator[ServerSuggester]:
        """Start a server with a workspace folder for each of `projects`, and stop it at the end.

        `model` is a name or a path, by default each document's language's own; `settings` go to it by their
        names in `config.SETTING_NAMES`; `files` are what lies in the folders. Raises `UserError` if it does not start.
        """
        client = _Client()
        with tempfile.TemporaryDirectory(prefix="lsp-charrnn-") as directory:
            folders = {project: Path(directory, project) for project in sorted(projects)}
            for folder in folders.values():
                folder.mkdir()
            for file in files:
                path = folders[file.project] / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.text)
            # What it keeps of these projects must not stay on the user's disk.
            cache = ("--cache", str(Path(directory, ".cache"))) if command == SERVER else ()
            try:
                await client.start_io(*command, *cache)
            except OSError as error:
                raise UserError(f"Cannot start the server with {' '.join(command)!r}: {error.strerror}.") from None
            options = {**(settings or {}), "model": str(model)}
            try:
                encoding = await _initialize(client, options, folders)
                yield cls(client, encoding, folders)
            finally:
                await _stop(client)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._client.process.pid

    async def open(self, window: Window, before: str, after: str) -> None:
        """Open the window's file in its project's folder."""
        self._uri = (self._folders[window.project] / window.path).as_uri()
        self._document = Document.from_text(before + after)
        self._cursor = len(before.encode("utf-8"))
        self._version = 1
        item = lsp.TextDocumentItem(self._uri, window.language, self._version, before + after)
        self._client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))

    async def suggest(self, typed: str) -> str:
        """Send what was typed, ask, and return the ghost text."""
        self._type(typed)
        line, character = position_at(self._document, self._cursor, self._encoding)
        params = lsp.InlineCompletionParams(
            lsp.InlineCompletionContext(lsp.InlineCompletionTriggerKind.Automatic),
            lsp.TextDocumentIdentifier(self._uri),
            lsp.Position(line, character),
        )
        answer = await self.answer(self._client.text_document_inline_completion_async(params))
        if answer is None:
            return ""
        items = answer.items if isinstance(answer, lsp.InlineCompletionList) else answer
        return self._ghost_text(items[0]) if items else ""

    async def projects_known(self, patience: float = 60.0) -> None:
        """Open a document in each folder, and wait until the server knows what else is there. Raises `UserError`."""
        status: Any = await self.answer(
            self._client.workspace_execute_command_async(lsp.ExecuteCommandParams("lspCharrnn.status"))
        )
        if not status["settings"]["memory.project"]:
            return
        for name, folder in self._folders.items():
            uri = (folder / ".lsp-charrnn-evaluate.py").as_uri()
            self._client.text_document_did_open(
                lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(uri, "python", 1, ""))
            )
            for _ in range(int(patience / 0.05)):
                status = await self.answer(
                    self._client.workspace_execute_command_async(lsp.ExecuteCommandParams("lspCharrnn.status"))
                )
                if any(project["ready"] and project["root"] == str(folder) for project in status["projects"]):
                    break
                await asyncio.sleep(0.05)
            else:
                raise UserError(f"The server did not count the project {name} within {patience:.0f} s.")
            self._client.text_document_did_close(lsp.DidCloseTextDocumentParams(lsp.TextDocumentIdentifier(uri)))

    async def close(self) -> None:
        """Close the document."""
        self._client.text_document_did_close(lsp.DidCloseTextDocumentParams(lsp.TextDocumentIdentifier(self._uri)))

    async def answer(self, request: Awaitable[T]) -> T:
        """Await the answer to a request. Raises `UserError`, in one sentence, for whatever goes wrong."""
        return await _answer(self._client, request)

    def _type(self, typed: str) -> None:
        if not typed:
            return
        at = lsp.Position(*position_at(self._document, self._cursor, self._encoding))
        new = typed.encode("utf-8")
        self._version += 1
        self._document = self._document.replace(Edit(self._cursor, self._cursor, new), self._version)
        self._cursor += len(new)
        self._client.text_document_did_change(
            lsp.DidChangeTextDocumentParams(
                lsp.VersionedTextDocumentIdentifier(self._version, self._uri),
                [lsp.TextDocumentContentChangePartial(lsp.Range(at, at), typed)],
            )
        )

    def _ghost_text(self, item: lsp.InlineCompletionItem) -> str:
        """Return what an editor would draw at the cursor for `item`, which may replace text around it."""
        text = item.insert_text if isinstance(item.insert_text, str) else item.insert_text.value
        if item.range is None:
            return text
        start, end = (
            offset_at(self._document, place.line, place.character, self._encoding)
            for place in (item.range.start, item.range.end)
        )
        if not start <= self._cursor <= end:
            return ""
        # Editors draw nothing where the item would change what stands around the cursor.
        before = self._document.slice(start, self._cursor).decode("utf-8")
        after = self._document.slice(self._cursor, end).decode("utf-8")
        fits = text.startswith(before) and text[len(before) :].endswith(after)
        return text[len(before) : len(text) - len(after)] if fits else ""


async def _initialize(client: _Client, settings: Mapping[str, Any], folders: Mapping[str, Path]) -> PositionEncoding:
    params = lsp.InitializeParams(
        capabilities=lsp.ClientCapabilities(
            general=lsp.GeneralClientCapabilities(
                position_encodings=[lsp.PositionEncodingKind.Utf8, lsp.PositionEncodingKind.Utf16]
            ),
            text_document=lsp.TextDocumentClientCapabilities(
                inline_completion=lsp.InlineCompletionClientCapabilities()
            ),
        ),
        process_id=os.getpid(),
        workspace_folders=[lsp.WorkspaceFolder(folder.as_uri(), name) for name, folder in folders.items()],
        initialization_options=dict(settings),
    )
    result = await _answer(client, client.initialize_async(params))
    client.initialized(lsp.InitializedParams())
    return PositionEncoding(result.capabilities.position_encoding or PositionEncoding.UTF16)


async def _answer(client: _Client, request: Awaitable[T]) -> T:
    """Await a request; whatever goes wrong with it becomes one sentence."""
    try:
        answer = await asyncio.wait_for(request, _PATIENCE)
    except asyncio.TimeoutError:
        raise UserError(f"The server did not answer within {_PATIENCE:.0f} s.") from None
    except JsonRpcException as error:
        raise UserError(f"The server answered with an error: {error.message}") from None
    except (RuntimeError, ConnectionError):
        # Its last lines may still be in the pipe.
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(client.process.wait(), 5)
        await asyncio.sleep(0.1)
        log = "\n".join(client.last_words) or "nothing"
        raise UserError(f"The server stopped, with exit code {client.process.returncode}; it said: {log}") from None
    if client.errors:
        raise UserError(client.errors[0])
    return answer


async def _stop(client: _Client) -> None:
    process = client.process
    if process.returncode is None:
        with suppress(Exception):  # a server that does not answer any more is ended all the same
            await asyncio.wait_for(client.shutdown_async(None), 5)
            client.exit(None)
        try:
            await asyncio.wait_for(process.wait(), 5)
        except asyncio.TimeoutError:
            process.kill()
    await client.stop()  # type: ignore[no-untyped-call]
