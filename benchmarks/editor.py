"""The real server as an editor drives it: a subprocess, LSP over its stdin and stdout, and a clock.

A time runs from the first byte written into the server's input to the reply taken from its output. What the client does
before (encoding its messages) and after (drawing) is left out, for every editor does it differently. What is typed
where, and what is made of the times, is left to the benchmarks.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lsprotocol import types as lsp

from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.client import SERVER, ServerSuggester
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.positions import position_at

PROJECT: Final = "project"  # the one folder of the workspace
PAUSE: Final = 0.05  # seconds between keys: a fast typist, and caches as cold as theirs
STATUS: Final = "lspCharrnn.status"
INSIDE: Final = "lspCharrnn/inside"

_ASK: Final = 0.02  # seconds between two questions how far the server is: each costs it a millisecond or two
_PATIENCE: Final = 300.0  # seconds until it must be there
_LOOK: Final = 0.01  # seconds between two looks at whether the server is at work
_IDLE: Final = 0.15  # seconds without work that count as the end of it: the system counts in hundredths
_KEY: Final = re.compile(r"\n[ \t]*|.", re.DOTALL)  # indentation comes with the line end, as editors have it


@dataclass
class Buffer:
    """An open document, as the server has it."""

    uri: str
    document: Document
    language: str
    version: int = 1


@dataclass(frozen=True)
class Reply:
    """The ghost text that came, "" for none, and after how long."""

    text: str
    seconds: float
    came: float  # when, by `time.perf_counter`


@dataclass(frozen=True)
class Burst:
    """What became of requests sent without waiting."""

    seconds: float  # until the last reply
    answered: int  # replies that hold a suggestion


class Editor(ServerSuggester):
    """A client of the real server with any number of documents; `server_with` starts both."""

    def enter(self, root: Path) -> None:
        """Let the directory `root` be the one folder of the workspace from now on."""
        old, self._folders = self._folders, {PROJECT: root}
        added, removed = ([lsp.WorkspaceFolder(folders[PROJECT].as_uri(), PROJECT)] for folders in (self._folders, old))
        event = lsp.WorkspaceFoldersChangeEvent(added=added, removed=removed)
        self._client.workspace_did_change_workspace_folders(lsp.DidChangeWorkspaceFoldersParams(event))

    def open_text(self, data: bytes, path: str, language: str = "python") -> Buffer:
        """Open a document, and come back when that is sent."""
        buffer, message = self._opening(data, path, language)
        self._client.text_document_did_open(message)
        return buffer

    async def open_and_complete(
        self, data: bytes, offset: int, path: str, language: str = "python"
    ) -> tuple[Buffer, Reply]:
        """Open a document and complete at `offset` at once."""
        buffer, message = self._opening(data, path, language)
        with self._held_back() as held:
            self._client.text_document_did_open(message)
            future = self._request(buffer, offset)
        return buffer, await self._reply(buffer, offset, held, future)

    async def complete(
        self, buffer: Buffer, offset: int, change: lsp.DidChangeTextDocumentParams | None = None
    ) -> Reply:
        """Send `change`, which `buffer` has seen, ask for the ghost text at byte `offset`, and wait for it."""
        with self._held_back() as held:
            if change is not None:
                self._client.text_document_did_change(change)
            future = self._request(buffer, offset)
        return await self._reply(buffer, offset, held, future)

    def change(self, change: lsp.DidChangeTextDocumentParams) -> None:
        """Send a change, and ask for nothing."""
        self._client.text_document_did_change(change)

    def saved(self, buffer: Buffer) -> None:
        """Say that a document has been saved."""
        self._client.text_document_did_save(lsp.DidSaveTextDocumentParams(lsp.TextDocumentIdentifier(buffer.uri)))

    def close_text(self, buffer: Buffer) -> None:
        """Close a document."""
        self._client.text_document_did_close(lsp.DidCloseTextDocumentParams(lsp.TextDocumentIdentifier(buffer.uri)))

    def edited(self, buffer: Buffer, *edits: Edit) -> lsp.DidChangeTextDocumentParams:
        """Return the message for `edits` of `buffer`, which it has seen then; they go from the last place to the first.

        Editors send a replace-all so: none of the edits moves another.
        """
        changes: list[lsp.TextDocumentContentChangeEvent] = []
        for edit in edits:
            span = lsp.Range(self._position(buffer, edit.start), self._position(buffer, edit.end))
            changes.append(lsp.TextDocumentContentChangePartial(span, edit.new.decode("utf-8")))
        buffer.document = buffer.document.apply(edits)
        return self._change(buffer, changes)

    def replaced(self, buffer: Buffer, data: bytes) -> lsp.DidChangeTextDocumentParams:
        """Return the message that puts `data` in place of all of `buffer`, which has seen it then."""
        buffer.document = Document.from_text(data)
        return self._change(buffer, [lsp.TextDocumentContentChangeWholeDocument(data.decode("utf-8"))])

    async def burst(self, buffer: Buffer, offset: int, keys: Sequence[bytes]) -> Burst:
        """Type `keys` at `offset` as one queue of messages, a request after each key; wait for all replies."""
        futures = []
        with self._held_back() as held:
            for key in keys:
                self._client.text_document_did_change(self.edited(buffer, Edit(offset, offset, key)))
                offset += len(key)
                futures.append(self._request(buffer, offset))
        started = held.release()
        answers = [await self.answer(future) for future in futures]
        return Burst(time.perf_counter() - started, sum(bool(_items(answer)) for answer in answers))

    async def cancel(self, buffer: Buffer, offset: int, after: float) -> tuple[float, bool]:
        """Ask at `offset` and cancel after `after` seconds; return how long the cancelled request took to come back
        from then on, and whether it came back without a suggestion.
        """
        name = str(uuid.uuid4())
        future = asyncio.wrap_future(
            self._client.protocol.send_request(
                lsp.TEXT_DOCUMENT_INLINE_COMPLETION, self._completion(buffer, offset), msg_id=name
            )
        )
        await asyncio.sleep(after)
        started = time.perf_counter()
        self._client.cancel_request(lsp.CancelParams(id=name))
        found = (await asyncio.gather(future, return_exceptions=True))[0]
        seconds = time.perf_counter() - started
        return seconds, isinstance(found, BaseException) or not _items(found)

    def inside(self, buffer: Buffer, offset: int, lines: int, **wanted: Any) -> asyncio.Future[Any]:
        """Ask what the model does in the `lines` lines around byte `offset`, as an editor that shows it; None is said
        by whom an edit has overtaken.
        """
        line = buffer.document.line_at(offset)
        start = lsp.Position(max(0, line - lines // 2), 0)
        end = lsp.Position(start.line + lines, 0)
        parameters = {"textDocument": {"uri": buffer.uri}, "range": lsp.Range(start, end), **wanted}
        return asyncio.wrap_future(self._client.protocol.send_request(INSIDE, parameters))

    async def refined(self, buffer: Buffer) -> float:
        """Wait until the state at the cursor is as good as it gets; return when the server said so.

        `settled` says the same of what is around the cursor.
        """
        return await self._until(buffer, "refined", lambda status: status["refined"])

    async def settled(self, buffer: Buffer) -> float:
        """Wait until the server has read what is around the cursor; return when it said so."""
        return await self._until(buffer, "settled", lambda status: status["settled"])

    async def known(self, buffer: Buffer) -> tuple[float, int]:
        """Wait until the folder's files are known; return when the server said so, and how many bytes it has counted.

        `buffer` lies in that folder.
        """
        counted = 0

        def ready(status: Any) -> bool:
            nonlocal counted
            found = [one for one in status["projects"] if one["root"] == str(self._folders[PROJECT])]
            counted = found[0]["characters"] if found else 0
            return bool(found) and found[0]["ready"]

        return await self._until(buffer, "in a project that is known", ready), counted

    async def _until(self, buffer: Buffer, what: str, true_of: Callable[[Any], bool]) -> float:
        parameters = lsp.ExecuteCommandParams(command=STATUS, arguments=[buffer.uri])
        end = time.perf_counter() + _PATIENCE
        while (now := time.perf_counter()) < end:
            status: Any = await self.answer(self._client.workspace_execute_command_async(parameters))
            if true_of(status):
                return now
            await asyncio.sleep(_ASK)
        raise UserError(f"After {_PATIENCE:.0f} s the server still says that {buffer.uri} is not {what}.")

    async def idle(self) -> None:
        """Wait until the server does nothing any more."""
        last, spent = time.perf_counter(), self._cpu()
        if math.isnan(spent):  # no such system
            await asyncio.sleep(1)
            return
        while time.perf_counter() - last < _IDLE:
            await asyncio.sleep(_LOOK)
            if (now := self._cpu()) != spent or self._is_runnable():
                last, spent = time.perf_counter(), now

    @property
    def log(self) -> list[str]:
        """The last lines that the server wrote to its log."""
        return list(self._client.last_words)

    def _opening(self, data: bytes, path: str, language: str) -> tuple[Buffer, lsp.DidOpenTextDocumentParams]:
        buffer = Buffer((self._folders[PROJECT] / path).as_uri(), Document.from_text(data), language)
        item = lsp.TextDocumentItem(buffer.uri, language, buffer.version, data.decode("utf-8"))
        return buffer, lsp.DidOpenTextDocumentParams(item)

    def _change(
        self, buffer: Buffer, changes: list[lsp.TextDocumentContentChangeEvent]
    ) -> lsp.DidChangeTextDocumentParams:
        buffer.version += 1
        return lsp.DidChangeTextDocumentParams(lsp.VersionedTextDocumentIdentifier(buffer.version, buffer.uri), changes)

    def _completion(self, buffer: Buffer, offset: int) -> lsp.InlineCompletionParams:
        return lsp.InlineCompletionParams(
            lsp.InlineCompletionContext(lsp.InlineCompletionTriggerKind.Automatic),
            lsp.TextDocumentIdentifier(buffer.uri),
            self._position(buffer, offset),
        )

    def _request(self, buffer: Buffer, offset: int) -> asyncio.Future[Any]:
        # Not the coroutine of pygls's client, which would send nothing before it is awaited.
        return asyncio.wrap_future(self._client.text_document_inline_completion(self._completion(buffer, offset)))

    async def _reply(self, buffer: Buffer, offset: int, held: _HeldBack, future: asyncio.Future[Any]) -> Reply:
        started = held.release()
        answer = await self.answer(future)
        seconds = time.perf_counter() - started
        items = _items(answer)
        self._document, self._cursor = buffer.document, offset
        return Reply(self._ghost_text(items[0]) if items else "", seconds, started + seconds)

    @contextmanager
    def _held_back(self) -> Iterator[_HeldBack]:
        """Keep what is sent until `release`: so that the clock starts when all of it is encoded."""
        protocol = self._client.protocol
        held = _HeldBack(protocol.writer)
        protocol.set_writer(held)
        try:
            yield held
        finally:
            protocol.set_writer(held.writer)

    def _position(self, buffer: Buffer, offset: int) -> lsp.Position:
        return lsp.Position(*position_at(buffer.document, offset, self._encoding))

    def _cpu(self) -> float:
        """Return the processor time in ticks that the server has spent so far; nan where the system won't tell."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            return math.nan
        return float(fields[11]) + float(fields[12])

    def _is_runnable(self) -> bool:
        """Say whether a thread of the server works, or would if a core were free, as on a busy machine."""
        for file in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):  # the thread has ended meanwhile
                if file.read_text("utf-8").rpartition(")")[2].split()[0] == "R":
                    return True
        return False


@asynccontextmanager
async def server_with(
    model: Path, settings: Mapping[str, Any] | None = None, cache: Path | None = None
) -> AsyncIterator[Editor]:
    """Start the server, all documents with this model, and stop it at the end; its cache, too, if no other is given.

    Raises `UserError`.
    """
    command = SERVER if cache is None else (*SERVER, "--cache", str(cache))
    async with Editor.started(model=model, settings=settings, projects={PROJECT}, command=command) as editor:
        assert isinstance(editor, Editor)
        yield editor


class _HeldBack:
    """A writer that keeps what it is given until `release`."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        self._data: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep `data`."""
        self._data.append(data)

    def close(self) -> None:
        """Do nothing: what is kept is the other writer's to close."""

    def release(self) -> float:
        """Write all of it, and return when that began."""
        data = b"".join(self._data)
        started = time.perf_counter()
        self.writer.write(data)
        return started


def _items(answer: Any) -> list[lsp.InlineCompletionItem]:
    if answer is None:
        return []
    return list(answer.items if isinstance(answer, lsp.InlineCompletionList) else answer)


@dataclass(frozen=True)
class Stretch:
    """Bytes [start, end) of a text, and the keys that type them."""

    start: int
    end: int
    keys: tuple[bytes, ...]


def stretch_at(data: bytes, near: int, keys: int) -> Stretch:
    """Return what `keys` keys type of `data`, from the first code of a line at or after `near`, or before its end."""
    near = max(0, min(near, len(data) - 8 * keys))
    start = 0 if near == 0 else data.find(b"\n", near, near + 4 * keys) + 1 or near  # in a long line, in its midst
    while data[start : start + 1].isspace() or data[start : start + 1] >= b"\x80":
        start += 1
    text = data[start : start + 16 * keys].decode("utf-8", errors="ignore")
    typed = tuple(key.encode("utf-8") for key in _KEY.findall(text)[:keys])
    return Stretch(start, start + sum(map(len, typed)), typed)


def stretch_to_end(data: bytes, keys: int) -> Stretch:
    """Return what the last `keys` keys type of `data`."""
    text = data[-16 * keys :].decode("utf-8", errors="ignore")
    typed = tuple(key.encode("utf-8") for key in _KEY.findall(text)[-keys:])
    return Stretch(len(data) - sum(map(len, typed)), len(data), typed)


async def retype(
    editor: Editor,
    buffer: Buffer,
    stretch: Stretch,
    pause: float = PAUSE,
    after: Callable[[int], None] = lambda offset: None,
) -> list[Reply]:
    """Delete a stretch, then type it again, `pause` seconds between keys; return the replies.

    `after` is called when each has come, with the byte that the cursor is at.

    So the cursor jumps there, the first key comes soon after the jump, and the text is the same again at the end.
    """
    editor.change(editor.edited(buffer, Edit(stretch.start, stretch.end, b"")))
    offset = stretch.start
    replies = []
    for key in stretch.keys:
        await asyncio.sleep(pause)
        change = editor.edited(buffer, Edit(offset, offset, key))
        offset += len(key)
        replies.append(await editor.complete(buffer, offset, change))
        after(offset)
    return replies
