"""The language server: one `Server` for each client, and the ways to start serving.

All handlers run on the event loop and none waits there: texts are immutable values, and whatever runs the model is
queued for the one model thread, where a completion goes before reading ahead. What a message means to the user is
left to `inline`, `fallback` and `commands`; the protocol's edges to `protocol`; bytes to `transport`.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import math
import re
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lsprotocol import types
from pygls.capabilities import get_capability
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

from lsp_charrnn import __version__
from lsp_charrnn.config import Settings
from lsp_charrnn.engine.session import Answer, Oddities, Session
from lsp_charrnn.errors import NO_MEMORY, ModelError, SettingError, UserError
from lsp_charrnn.model.installed import pointer_of
from lsp_charrnn.model.step import Model
from lsp_charrnn.project.secrets import is_secret
from lsp_charrnn.server import checking, commands, fallback, inline, seeing
from lsp_charrnn.server.access import Access, checks_handshake, first_messages, is_loopback
from lsp_charrnn.server.documents import Documents, OpenDocument, not_open, relative_path, uri_path
from lsp_charrnn.server.memory import give_back, keep_heap_small
from lsp_charrnn.server.models import Models, NoModelError
from lsp_charrnn.server.projects import Beside, Projects, Workspace, located, repository_around
from lsp_charrnn.server.protocol import Protocol, answering, arrived_with, log_bug
from lsp_charrnn.server.scope import Scope
from lsp_charrnn.server.settings import SECTION, read_settings
from lsp_charrnn.server.statistics import Statistics
from lsp_charrnn.server.structure import converter
from lsp_charrnn.server.training import Training, Trainings
from lsp_charrnn.server.transport import (
    MAX_BODY,
    DescriptorWriter,
    Framing,
    FramingError,
    SocketWriter,
    WebSocketWriter,
    read_in_thread,
    read_stream,
    read_web_socket,
    take_stdio,
)
from lsp_charrnn.server.worker import Job, Priority, Worker
from lsp_charrnn.text.positions import PositionEncoding

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

logger = logging.getLogger(__name__)

NAME: Final = "lsp-charrnn"
ANSWERED: Final = 0.003  # seconds after an answer, when it has gone out, until what may be asked next is prepared
QUIET: Final = 0.4  # seconds without a key, after which the text around the cursor is read
FLUSHED: Final = 5.0  # seconds that a client has to read what is left for it, when its connection is closed
LOOKED_AGAIN: Final = 5.0  # seconds until it is looked again whether a project has another model
_MOST_TOLD: Final = 1_000  # sentences that are remembered, not to be told twice
LOG_LEVELS: Final = ("debug", "info", "warning", "error")

Result = TypeVar("Result")
MakeSession = Callable[[Callable[[str], Model], Settings], Session]
NewServer = Callable[[], "Server"]


class ListenError(UserError):
    """The server cannot listen where it was told to."""


@dataclass(frozen=True)
class Found:
    """The engine's answer to a request, and the document and place that it is for."""

    document: OpenDocument
    offset: int
    answer: Answer
    milliseconds: float  # since the request was taken up


class Server(LanguageServer):
    """What one client has open and has set. The model thread and the loaded models belong to the process."""

    protocol: Protocol

    def __init__(
        self,
        worker: Worker,
        models: Models,
        *,
        defaults: Settings | None = None,
        make_session: MakeSession = Session,
        projects: Projects | None = None,
        trainings: Trainings | None = None,
    ) -> None:
        super().__init__(NAME, __version__, protocol_cls=Protocol, converter_factory=converter)
        self.finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()  # gets the exit code
        self.documents = Documents()
        self.settings = defaults if defaults is not None else Settings()
        self.statistics = Statistics()
        self.enabled = True
        self.client_inline = False
        self.client_markup: tuple[types.MarkupKind, ...] = ()
        self.client_takes_as_is = False
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self.models = models
        self._session = make_session(partial(self._model, ""), self.settings)
        self._scope = Scope(self.settings)
        self.projects = None if projects is None else Workspace(projects, self.work_done_progress)
        self.trainings = trainings if trainings is not None else Trainings()  # of all clients of the process
        self.own_trainings: list[Training] = []
        self.shows_progress = False  # whether the client can
        self._base = self.settings  # what initializationOptions gave: settings that come later go over it
        self._problems: list[str] = []
        self._languages_off: set[str] = set()
        self._live: set[str] = set()  # URIs of the documents that the session knows
        self._lost: set[str] = set()  # and of those whose text is not known any more
        self._diagnosed: set[str] = set()  # and of those that the client shows diagnostics for
        self._timers: dict[
            str, asyncio.TimerHandle
        ] = {}  # what is to be done next for a document, if no key comes before
        # (setting, language, project's root) → its model, or the error; and of the projects that were asked for one,
        # what says which it is (`pointer_of`). Written on the model thread, replaced when settings change.
        self._resolved: dict[tuple[str, str, str], Model | ModelError] = {}
        self._pointers: dict[str, bytes | None] = {}
        self._looked = -math.inf  # when these were looked at
        self._told: set[str] = set()
        self._untold: list[tuple[str, types.MessageType]] = []  # until the client is ready for messages
        self._ready = False
        self._root: str | None = None  # a client's only folder, where it knows no more than one
        self._pulls = self._registers = self._watches = False
        self.is_neovim = False
        self._offer()

    def _offer(self) -> None:
        def feature(method: str, handle: Callable[..., Awaitable[Any]], options: Any = None) -> None:
            self.feature(method, options)(answering(method, partial(handle, self)))

        feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, inline.inline_completion, types.InlineCompletionOptions())
        feature(
            types.TEXT_DOCUMENT_COMPLETION,
            fallback.completion,
            types.CompletionOptions(trigger_characters=fallback.TRIGGERS),
        )
        feature(types.INITIALIZED, Server._initialized)
        feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION, Server._configuration_changed)
        feature(types.TEXT_DOCUMENT_DID_SAVE, Server._saved, types.SaveOptions(include_text=False))
        feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES, Server._files_changed)
        feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS, Server._folders_changed)
        everything = types.FileOperationRegistrationOptions(
            [types.FileOperationFilter(types.FileOperationPattern("**/*"), scheme="file")]
        )
        feature(types.WORKSPACE_DID_CREATE_FILES, Server._files_changed, everything)
        feature(types.WORKSPACE_DID_DELETE_FILES, Server._files_changed, everything)
        feature(types.WORKSPACE_DID_RENAME_FILES, Server._files_renamed, everything)
        feature(seeing.INSIDE, seeing.inside)
        feature(checking.DIGEST, checking.digest)
        for name, run in (
            (commands.ACCEPTED, commands.accepted),
            (commands.TOGGLE, commands.toggle),
            (commands.STATUS, commands.status),
            (commands.TRAIN, commands.train),
            (commands.CANCEL_TRAINING, commands.cancel_training),
        ):
            self.command(name)(answering(name, partial(run, self)))

    # --- the session's beginning and end --------------------------------------------------------------------

    def set_up(self, params: types.InitializeParams, capabilities: types.ServerCapabilities) -> None:
        """Take note of what the client can do, before the answer to `initialize` goes out."""
        client = params.capabilities
        encoding = capabilities.position_encoding or types.PositionEncodingKind.Utf16
        self.documents = Documents(PositionEncoding(encoding))
        self.client_inline = get_capability(client, "text_document.inline_completion") is not None
        item = "text_document.completion.completion_item"
        self.client_markup = tuple(get_capability(client, f"{item}.documentation_format") or ())
        modes = get_capability(client, f"{item}.insert_text_mode_support.value_set") or ()
        self.client_takes_as_is = types.InsertTextMode.AsIs in modes
        self._root = None if params.workspace_folders else self.workspace.root_uri
        self._pulls = bool(get_capability(client, "workspace.configuration"))
        self._registers = bool(get_capability(client, "workspace.did_change_configuration.dynamic_registration"))
        self._watches = bool(get_capability(client, "workspace.did_change_watched_files.dynamic_registration"))
        self.shows_progress = bool(get_capability(client, "window.work_done_progress"))
        if self.projects is not None:
            self.projects.shows_progress = self.shows_progress
        # Neovim splits an inline completion at \n, and would leave the \r of a \r\n in the line. And it draws an item
        # whose range is not empty over the text behind the cursor, instead of before it.
        self.is_neovim = params.client_info is not None and params.client_info.name == "Neovim"
        if self.client_inline:
            capabilities.completion_provider = None  # the same suggestions twice are once too many
        self._base, problems = read_settings(params.initialization_options, self.settings)
        self._use(self._base, problems)
        logger.info("a client has connected: %s", params.client_info)

    async def _initialized(self, _: types.InitializedParams) -> None:
        self._ready = True
        for sentence, kind in self._untold:
            self.tell(sentence, kind)
        self._untold.clear()
        gc.freeze()  # what is imported by now stays, and every full collection would look through it for tens of ms
        wanted = []
        if self._registers:
            wanted.append(
                types.Registration(
                    id=SECTION,
                    method=types.WORKSPACE_DID_CHANGE_CONFIGURATION,
                    register_options=types.DidChangeConfigurationRegistrationOptions(SECTION),
                )
            )
        if self._watches and self.projects is not None:
            wanted.append(
                types.Registration(
                    id=f"{SECTION}.files",
                    method=types.WORKSPACE_DID_CHANGE_WATCHED_FILES,
                    register_options=types.DidChangeWatchedFilesRegistrationOptions(
                        [types.FileSystemWatcher(glob_pattern="**/*")]
                    ),
                )
            )
        if wanted:
            with suppress(JsonRpcException):
                await self.client_register_capability_async(types.RegistrationParams(wanted))
        if self._pulls:
            await self._pull_settings()

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log what pygls came across; by default it would show it to the user, with whatever text is in it."""
        cause = sys.exc_info()[1] or error  # pygls makes another exception of it, and reports that
        if isinstance(cause, JsonRpcException):  # answered, and logged where it is a bug
            logger.info("%s: %s", type(cause).__name__, cause.message)
        else:
            log_bug("a message", cause)

    def finish(self, code: int) -> None:
        """End this client's session; `code` is the process's exit code, where the process is the client's alone."""
        if not self.finished.done():
            self.finished.set_result(code)

    def out_of_memory(self) -> None:
        """A message could not be taken in, and so a text may no longer be the client's: end, to be started anew."""
        if not self.finished.done():
            logger.error("%s", NO_MEMORY)
            self.say(NO_MEMORY, types.MessageType.Error)
            self.finish(1)

    def disconnected(self) -> None:
        """The client has gone: after `shutdown` as it should, before that by accident."""
        self.finish(0 if self.protocol.shut_down else 1)

    def close(self) -> None:
        """Give up all that is under way or open."""
        for (
            training
        ) in self.own_trainings:  # before its request is: a training that is asked twice writes no checkpoint
            training.cancel()
        self.protocol.abandon()
        for document in self.documents:
            self._leave(document.uri)
            self.documents.close(document.uri)
        if self.projects is not None:
            self.projects.close()

    # --- documents ------------------------------------------------------------------------------------------

    def did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Keep the text, and begin to load the model and to read."""
        item = params.text_document
        self._lost.discard(item.uri)
        roots = self._roots(item.uri)
        secret = is_secret(uri_path(item.uri))
        self._leave(item.uri)
        # A model that could not be had may be there by now.
        errors = [key for key, found in list(self._resolved.items()) if isinstance(found, ModelError)]
        for key in errors:
            self._resolved.pop(key, None)
        self.look_for_models()
        self._follow(self.documents.open(item, relative_path(item.uri, roots), secret=secret))

    def _roots(self, uri: str) -> list[str]:
        """Return the folders (URIs) that the client has open; if it has none, that of the project of a document."""
        folders = [folder.uri for folder in self.workspace.folders.values()]  # pygls's keys are decoded
        found = self._root if folders or self._root else repository_around(uri)
        return folders or ([found] if found else [])

    def roots(self) -> list[str]:
        """Return the projects (URIs) that are open: the client's folders, or where it has none, the documents' own."""
        return list(
            dict.fromkeys([*self._roots(""), *(root for one in self.documents for root in self._roots(one.uri))])
        )

    def did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Change the text; whatever was being computed for the text before is given up. Raises if it isn't open."""
        uri, changes = params.text_document.uri, params.content_changes
        if uri in self._lost:
            changes = _from_whole(changes)
            if not changes:
                return
            self._lost.discard(uri)
            self._follow(self.documents.get(uri))
        document, edits = self.documents.change(uri, params.text_document.version, changes)
        self._worker.cancel((self, "complete", uri))
        self._worker.cancel((self, "inside", uri))
        if uri in self._live:
            self._session.edit(uri, document.text, edits)
            self._read_ahead(uri)

    def did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Forget the text and everything that was computed from it."""
        uri = params.text_document.uri
        self._leave(uri)
        self._lost.discard(uri)
        if self.documents.close(uri) is None:
            logger.warning("didClose: %s is not open", uri)

    def lose_track(self, uri: str) -> None:
        """A change of a document could not be made: its text is not known until all of it comes again."""
        if self.documents.find(uri) is not None and uri not in self._lost:
            self._lost.add(uri)
            self._leave(uri)
            self.tell(f"a malformed change was sent for {uri}: open it again to have suggestions there.")

    def knows(self, uri: str) -> bool:
        """Say whether a document is open, and its text the client's."""
        return self.documents.find(uri) is not None and uri not in self._lost

    async def _saved(self, params: types.DidSaveTextDocumentParams) -> None:
        self.look_for_models()
        if self.projects is not None:
            self.projects.changed([params.text_document.uri])

    async def _files_changed(
        self, params: types.DidChangeWatchedFilesParams | types.CreateFilesParams | types.DeleteFilesParams
    ) -> None:
        if self.projects is not None:
            events = params.changes if isinstance(params, types.DidChangeWatchedFilesParams) else params.files
            self.projects.changed(event.uri for event in events)

    async def _files_renamed(self, params: types.RenameFilesParams) -> None:
        if self.projects is not None:
            self.projects.changed(uri for file in params.files for uri in (file.old_uri, file.new_uri))

    async def _folders_changed(self, _: types.DidChangeWorkspaceFoldersParams) -> None:
        for document in self.documents:
            path = relative_path(document.uri, self._roots(document.uri))
            if path != document.path:  # which the model reads first of all
                self._leave(document.uri)
                document = self.documents.move(document.uri, path)
            self._follow(document)
        if self.projects is not None:
            self.projects.leave_unused()

    def why_off(self, document: OpenDocument) -> str | None:
        """Return why a document is not completed, or None if it is."""
        if document.secret:
            return "files of this name hold keys or passwords: they are never read"
        if document.uri in self._lost:
            return "a malformed change was sent for it: its text is not known until it is opened again"
        if not self.enabled:
            return f"switched off by {commands.TOGGLE}"
        if document.language in self._languages_off:
            return f"switched off for {document.language} by {commands.TOGGLE}"
        return self._scope.why_off(document.language, document.path)

    def document_state(self, uri: str) -> dict[str, Any]:
        """Return why a document is off, if it is, and how far its reading has come. Raises `DocumentNotOpenError`."""
        document = self.documents.get(uri)
        state: dict[str, Any] = {"off": self.why_off(document)}
        if uri in self._live:
            reading = self._session.reading(uri)
            state |= {"refined": reading.refined, "settled": reading.settled, "remembered": reading.remembered}
        return state

    def toggle(self, language: str | None) -> bool:
        """Switch everything, or one language, off or on again; return whether it is on now."""
        if language is None:
            on = self.enabled = not self.enabled
        else:
            self._languages_off ^= {language}
            on = language not in self._languages_off
        for document in self.documents:
            self._follow(document)
        return on

    def _follow(self, document: OpenDocument) -> None:
        """Let the session know a document that is to be completed, and no other."""
        if self.why_off(document) is not None:
            self._leave(document.uri)
            return
        before = None if self.projects is None else self.projects.project_of(document.uri)
        project = self._project_of(document)
        if document.uri not in self._live:
            place = located(document.uri, self._roots(document.uri))
            models = partial(self._model, "" if place is None else place[0])
            self._session.open(
                document.uri,
                document.text,
                path=document.path,
                language=document.language,
                project=project,
                models=models,
            )
            self._live.add(document.uri)
        elif project != before:
            self._session.use_project(document.uri, project)
        self._read_ahead(document.uri)

    def _project_of(self, document: OpenDocument) -> Beside | None:
        """Return the project of a document that is completed, as the settings and the folders are now."""
        if self.projects is None or not self.settings.memory_project:
            return None
        return self.projects.follow(document.uri, self._roots(document.uri), self.settings.memory_project_megabytes)

    def _leave(self, uri: str) -> None:
        self._diagnose(uri, [])
        if uri in self._live:
            self._live.discard(uri)
            self._worker.cancel((self, "complete", uri))
            self._worker.cancel((self, "advance", uri))
            self._worker.cancel((self, "inside", uri))
            self._stop_reading_around(uri)
            self._session.close(uri)
            if self.projects is not None:
                self.projects.release(uri)
            # Last of all, and once for all documents that are closed together.
            self._worker.submit(Priority.INDEXING, lambda _: give_back(), key="give back")

    # --- the model ------------------------------------------------------------------------------------------

    async def complete(
        self, params: types.InlineCompletionParams | types.CompletionParams, *, count: int
    ) -> Found | None:
        """Return the engine's answer at a position, on the model thread's time.

        None: the document is not to be completed, or the request was overtaken by an edit or by a newer request.
        Raises `DocumentNotOpenError`.
        """
        began = time.perf_counter()
        uri = params.text_document.uri
        document = arrived_with.get()
        if document is None:
            raise not_open(uri)
        # In a burst of keys this is where all requests but the last end, before they cost anything.
        if self.documents.find(uri) is not document or uri not in self._live:
            return None
        offset = self.documents.offset(document, params.position)
        # Begun before, it would go on while the answer is on its way out: see `ANSWERED`.
        self._worker.cancel((self, "advance", uri))
        job: Job[Answer] = self._worker.submit(
            Priority.COMPLETION,
            lambda cancelled: self._session.complete(uri, offset, count=count, cancelled=cancelled),
            key=(self, "complete", uri),
        )
        try:
            answer = await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:  # $/cancelRequest
            if uri in self._live and not job.cancelled:  # else an edit or a newer request has seen to it
                self._read_ahead(uri)
            job.cancel()
            raise
        except ModelError as error:
            self._report(error)
            return None
        if answer is None or self.documents.find(uri) is not document:
            return None
        self._stop_reading_around(uri)
        self._timers[uri] = self._loop.call_later(ANSWERED, self._read_ahead, uri)
        return Found(document, offset, answer, 1e3 * (time.perf_counter() - began))

    def _read_ahead(self, uri: str) -> None:
        """Let the state at the cursor be made ready, and what is around it be read once the user rests."""
        self._stop_reading_around(uri)
        self._in_background(Priority.ADVANCE, self._session.advance, "advance", uri)
        self._timers[uri] = self._loop.call_later(QUIET, self._read_around, uri)

    def _read_around(self, uri: str) -> None:
        del self._timers[uri]
        self.look_for_models()
        self._in_background(Priority.PREFILL, self._session.read_around, "around", uri)
        if self.projects is not None:
            self.projects.remember(partial(self._session.remember, uri), (self, "remember", uri))
        if self.settings.diagnostics_surprise:
            job: Job[Oddities | None] = self._worker.submit(
                Priority.INDEXING,
                lambda cancelled: self._session.surprise(uri, cancelled=cancelled),
                key=(self, "surprise", uri),
            )
            job.future.add_done_callback(partial(self._looked_through, uri))

    def _looked_through(self, uri: str, future: Future[Oddities | None]) -> None:
        self._read(future)
        found = None if future.exception() is not None else future.result()
        if found is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._surprised, uri, found)

    def _surprised(self, uri: str, found: Oddities) -> None:
        if uri in self._live and self.settings.diagnostics_surprise:
            self._diagnose(uri, seeing.diagnostics(self, found, uri))

    def _diagnose(self, uri: str, found: list[types.Diagnostic]) -> None:
        """Let the client show these diagnostics for a document; none where it shows none already: say nothing."""
        if found or uri in self._diagnosed:
            self._diagnosed.discard(uri)
            if found:
                self._diagnosed.add(uri)
            self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, found))

    def on_model(
        self, priority: Priority, what: str, uri: str, work: Callable[[Callable[[], bool]], Result]
    ) -> Job[Result] | None:
        """Queue work on a document for the model thread, in place of work of that name; None if it is not completed."""
        return self._worker.submit(priority, work, key=(self, what, uri)) if uri in self._live else None

    @property
    def session(self) -> Session:
        """What is open for the engine. Model work on it belongs to the model thread."""
        return self._session

    def _stop_reading_around(self, uri: str) -> None:
        timer = self._timers.pop(uri, None)
        if timer is not None:
            timer.cancel()
        self._worker.cancel((self, "around", uri))
        self._worker.cancel((self, "surprise", uri))

    def _in_background(self, priority: Priority, work: Callable[..., None], what: str, uri: str) -> None:
        job = self._worker.submit(priority, lambda cancelled: work(uri, cancelled=cancelled), key=(self, what, uri))
        job.future.add_done_callback(self._read)

    def _read(self, future: Future[Any]) -> None:
        error = future.exception()
        if isinstance(error, ModelError):
            with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._report, error)
        elif error is not None:
            log_bug("reading ahead", error)

    def _model(self, root: str, language: str) -> Model:
        """Return the model for a language in the project at `root` ("": in none), as the settings have it.

        Model thread only; raises `ModelError`.
        """
        resolved, settings = self._resolved, self.settings
        key = (settings.model, language, root)
        found = resolved.get(key)
        if found is None:
            try:
                found = self._find_model(settings.model, language, root)
            except ModelError as error:
                found = error
            resolved[key] = found
        if isinstance(found, ModelError):
            raise type(found)(str(found))  # a new one: an exception that is raised again and again grows
        return found

    def _find_model(self, name: str, language: str, root: str) -> Model:
        if name:
            try:
                return self.models.by_name(name)
            except ModelError as error:
                self._tell_later(f"setting 'model': {error} Until then the model for {language} is used.")
        if root:
            self._pointers[root] = pointer_of(root)  # before it is used: what comes meanwhile is seen the next time
            try:
                own = self.models.of_project(root, language)
            except ModelError as error:
                self._tell_later(f"the model trained for {root}: {error} Until then the one for {language} is used.")
            else:
                if own is not None:
                    return own
        return self.models.by_language(language)

    def look_for_models(self, *, now: bool = False) -> None:
        """Let open documents have the model that has been installed for their project, or removed, since it was looked.

        Not more often than every `LOOKED_AGAIN` seconds, unless `now`.
        """
        if (now or time.monotonic() - self._looked >= LOOKED_AGAIN) and self._pointers:
            self._looked = time.monotonic()
            job = self._worker.submit(Priority.ADVANCE, lambda _: self._look_at_pointers(), key=(self, "pointers"))
            job.future.add_done_callback(self._read)

    def _look_at_pointers(self) -> None:
        """Forget which models the projects have whose own is another one now. Model thread only."""
        changed = [root for root, pointer in self._pointers.items() if pointer_of(root) != pointer]
        for key in list(self._resolved):
            if key[2] in changed:
                self._resolved.pop(key, None)
        for root in changed:
            del self._pointers[root]  # it is there again once a document of the project is read
        if changed:
            logger.info("another model is installed for %s", ", ".join(changed))
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._read_all_ahead)

    def _read_all_ahead(self) -> None:
        """Load models, and read with them, before the next key comes."""
        for uri in list(self._live):
            self._read_ahead(uri)

    def _tell_later(self, sentence: str) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(self.tell, sentence, types.MessageType.Error)

    def _report(self, error: ModelError) -> None:
        if isinstance(error, NoModelError):  # most projects have files that no model is for
            logger.info("%s", error)
        else:
            self.tell(str(error), types.MessageType.Error)

    def state(self) -> tuple[str, str | None]:
        """Return what the server is doing, in one word, and what is wrong, if anything is."""
        if not self.enabled:
            return "off", None
        # A copy: the model thread may add to it meanwhile.
        resolved = list(self._resolved.values())
        errors = [str(found) for found in resolved if isinstance(found, ModelError)]
        if any(not isinstance(found, ModelError) for found in resolved):
            return "ready", None
        if errors:
            return "error", errors[0]
        return ("loading" if self._live else "idle"), None

    def models_in_use(self) -> list[dict[str, Any]]:
        """Return name, size and language of the models that documents have been completed with."""
        resolved = list(self._resolved.items())
        in_use = {(key[1], id(found)): found for key, found in resolved if not isinstance(found, ModelError)}
        return [
            {"language": language, "name": found.name, "bytes": found.size_bytes}
            for (language, _), found in in_use.items()
        ]

    # --- settings and messages ------------------------------------------------------------------------------

    async def _configuration_changed(self, params: types.DidChangeConfigurationParams) -> None:
        if self._pulls:
            await self._pull_settings()
        else:
            self._use(*read_settings(params.settings, self._base))

    async def _pull_settings(self) -> None:
        try:
            answer = await self.workspace_configuration_async(
                types.ConfigurationParams([types.ConfigurationItem(section=SECTION)])
            )
        except JsonRpcException as error:
            logger.warning("the client did not answer workspace/configuration: %s", error)
            return
        self._use(*read_settings(answer[0] if answer else None, self._base))

    def _use(self, settings: Settings, problems: list[str]) -> None:
        scope = Scope(settings)
        if settings != self.settings:
            if settings.model != self.settings.model:
                self._told.clear()
            self.settings, self._scope = settings, scope
            self._resolved = {}
            self._session.configure(settings)
            for document in self.documents:
                self._follow(document)
            if self.projects is not None and not settings.memory_project:
                self.projects.forget()
            if not settings.diagnostics_surprise:
                for uri in list(self._diagnosed):
                    self._diagnose(uri, [])
        problems = problems + scope.problems
        for problem in problems:
            if problem not in self._problems:
                self.tell(problem)
        self._problems = problems

    def tell(self, sentence: str, kind: types.MessageType = types.MessageType.Warning) -> None:
        """Show the user a message, once."""
        if not self._ready:
            if len(self._untold) < _MOST_TOLD:
                self._untold.append((sentence, kind))
        elif sentence not in self._told:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told.add(sentence)
            logger.warning("%s", sentence)
            self.say(sentence, kind)

    def say(self, sentence: str, kind: types.MessageType) -> None:
        """Show the user a message that they have asked for."""
        self.window_show_message(types.ShowMessageParams(kind, f"{NAME}: {sentence}"))

    def for_client(self, text: str) -> str:
        """Return a suggestion's text with the line ends that this client inserts rightly."""
        return re.sub(r"\r\n?", "\n", text) if self.is_neovim else text


def _from_whole(
    changes: Sequence[types.TextDocumentContentChangeEvent],
) -> Sequence[types.TextDocumentContentChangeEvent]:
    """Return the changes from the last that holds all of the text on; none if none does."""
    for index in reversed(range(len(changes))):
        if isinstance(changes[index], types.TextDocumentContentChangeWholeDocument):
            return changes[index:]
    return ()


# --- serving ------------------------------------------------------------------------------------------------


def serve_stdio(
    settings: Settings | None = None,
    *,
    log_level: str = "warning",
    make_session: MakeSession = Session,
    caches: Path | None = None,
) -> int:
    """Serve one client over standard input and output; return the exit code: 0 after `shutdown`, else 1.

    `settings` are the defaults that the client's settings go over; `caches` is where projects' memories are kept, by
    default the user's own cache.
    """
    configure_logging(log_level)
    if sys.stdin.isatty():
        print(f"{NAME} waits for an editor's LSP client on its standard input; Ctrl-C ends it.", file=sys.stderr)
    source, sink = take_stdio()
    return _run(
        lambda new_server: _serve_stdio(new_server, source, sink), settings, make_session, caches, interrupted=1
    )


def serve_tcp(
    host: str,
    port: int,
    settings: Settings | None = None,
    *,
    access: Access,
    log_level: str = "warning",
    make_session: MakeSession = Session,
    caches: Path | None = None,
) -> int:
    """Serve any number of clients over TCP until interrupted. Each has its own documents and settings.

    They share the process, and so the model thread and the loaded models. `access` is what each must show first.
    Raises `ListenError`, also for an address that other machines reach where nothing is to be shown.
    """
    configure_logging(log_level)
    _check_reach(host, access)
    return _run(
        lambda new_server: _serve_tcp(new_server, host, port, access), settings, make_session, caches, interrupted=0
    )


def serve_ws(
    host: str,
    port: int,
    settings: Settings | None = None,
    *,
    access: Access,
    log_level: str = "warning",
    make_session: MakeSession = Session,
    caches: Path | None = None,
) -> int:
    """Serve any number of clients over WebSocket, as `serve_tcp` does. Raises `ListenError`.

    Web pages of other hosts are refused: any page that the user visits could connect otherwise.
    """
    configure_logging(log_level)
    _check_reach(host, access)
    return _run(
        lambda new_server: _serve_ws(new_server, host, port, access), settings, make_session, caches, interrupted=0
    )


def configure_logging(level: str) -> None:
    """Log to standard error. Raises `SettingError` for an unknown level.

    pygls writes whole messages, the user's text in them, so it is heard at debug only.
    """
    if level not in LOG_LEVELS:
        raise SettingError(f"log level {level!r} is none: choose one of {', '.join(LOG_LEVELS)}.")
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    for name in ("pygls", "websockets", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)


def _run(
    serve: Callable[[NewServer], Coroutine[Any, Any, int]],
    settings: Settings | None,
    make_session: MakeSession,
    caches: Path | None,
    *,
    interrupted: int,
) -> int:
    keep_heap_small()  # before there is a second thread
    worker = Worker()
    projects = Projects(caches)
    new_server = partial(
        Server,
        worker,
        Models(),
        defaults=settings,
        make_session=make_session,
        projects=projects,
        trainings=Trainings(),
    )
    try:
        return asyncio.run(serve(new_server))
    except KeyboardInterrupt:
        return interrupted
    finally:
        projects.close()
        worker.close()


async def _serve_stdio(new_server: NewServer, source: int, sink: int) -> int:
    server = new_server()
    writer = DescriptorWriter(sink, lost=server.disconnected)
    server.protocol.set_writer(writer)
    read_in_thread(source, asyncio.get_running_loop(), server.protocol.receive_all, server.disconnected)
    code = await server.finished
    server.close()
    writer.drain(FLUSHED)
    return code


async def _serve_tcp(new_server: NewServer, host: str, port: int, access: Access) -> int:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framing, sink = Framing(), SocketWriter(writer)
        try:
            first = await first_messages(reader, framing, access)
        except (FramingError, OSError, asyncio.TimeoutError) as error:
            logger.warning("a client was cut off before it had shown a token: %s", error or "it took too long")
            first = b""
        if isinstance(first, bytes):
            if first:
                sink.write(b"Content-Length: %d\r\n\r\n%b" % (len(first), first))
        else:
            server = new_server()
            server.protocol.set_writer(sink)
            server.protocol.receive_all(first)
            await _until_done(server, read_stream(reader, server.protocol.receive_all, framing))
        writer.close()
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), FLUSHED)
        writer.transport.abort()  # a client that does not read would keep it for ever

    try:
        listening = await asyncio.start_server(connected, host, port)
    except (OSError, OverflowError) as error:
        raise _cannot_listen(host, port, error) from error
    async with listening:
        address = listening.sockets[0].getsockname()
        with access.kept(address[1]) as token:
            _announce(address, token)
            await listening.serve_forever()
    return 0


async def _serve_ws(new_server: NewServer, host: str, port: int, access: Access) -> int:
    from websockets.asyncio.server import serve

    async def connected(socket: ServerConnection) -> None:
        server = new_server()
        writer = WebSocketWriter(socket)
        server.protocol.set_writer(writer, include_headers=False)
        await _until_done(server, read_web_socket(socket, server.protocol.receive_all))
        await writer.drain()
        writer.close()

    # No Origin: not a browser. Size: a document may be large. Compression would cost more than it saves, at home.
    own_pages = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
    try:
        listening = await serve(
            connected,
            host,
            port,
            process_request=checks_handshake(access),
            origins=[None, own_pages],
            max_size=MAX_BODY,
            compression=None,
        )
    except (OSError, OverflowError) as error:
        raise _cannot_listen(host, port, error) from error
    async with listening:
        address = next(iter(listening.sockets)).getsockname()
        with access.kept(address[1]) as token:
            _announce(address, token)
            await listening.serve_forever()
    return 0


async def _until_done(server: Server, reading: Coroutine[Any, Any, None]) -> None:
    """Serve one of several clients until it has gone, or has said `exit`."""
    task = asyncio.ensure_future(reading)
    try:
        await asyncio.wait((task, server.finished), return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        server.close()


def _announce(address: tuple[Any, ...], token: Path | None) -> None:
    host, port = address[:2]
    where = "" if token is None else f", token in {token}"
    print(f"listening on {f'[{host}]' if ':' in host else host}:{port}{where}", file=sys.stderr, flush=True)


def _check_reach(host: str, access: Access) -> None:
    """Raise `ListenError` for an address that others reach without a token; say what else to think of otherwise."""
    if is_loopback(host):
        return
    if access.token is None:
        raise ListenError(f"{host} is reached from other machines: leave out --no-token, or listen on 127.0.0.1.")
    logger.warning(
        "%s is reached from other machines, and nothing is encrypted: go through ssh, or a network of yours.", host
    )


def _cannot_listen(host: str, port: int, error: Exception) -> ListenError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return ListenError(f"port {port} of {host} is in use: choose another, or end what listens there.")
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return ListenError(f"port {port} of {host} needs other rights: choose one above 1023.")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ListenError(
        f"cannot listen on {host}:{port} ({reason}): choose an address of this machine, and a port up to 65535."
    )
