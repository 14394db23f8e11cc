"""The projects that clients have open: who counts them, when, and how the client is told.

`Projects` belongs to the process: two threads in the background, and one memory for each project, whoever has it open.
`Workspace` belongs to a client: which of its documents lies in which project, what it reports of files that were saved,
created, renamed or deleted, and the progress that it is shown. What a memory holds is `project.memory`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.progress import Progress
from pygls.uris import to_fs_path

from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.project.cache import cache_file
from lsp_charrnn.project.ignore import NEVER_ENTERED, is_repository
from lsp_charrnn.project.memory import ProjectMemory
from lsp_charrnn.server.documents import uri_path
from lsp_charrnn.server.memory import memory_limit, room_for_text
from lsp_charrnn.server.protocol import log_bug
from lsp_charrnn.server.worker import Job, Priority, Worker

logger = logging.getLogger(__name__)

GATHERED: Final = 0.5  # seconds in which the files that have changed are gathered, for they come in swarms
MOST_FILES: Final = 500  # of such a swarm; of more the whole project is looked through
AFTER_SWARM: Final = 5.0  # seconds in which they are gathered then: somebody builds, or installs
# Files change unseen: few editors watch. So a project is looked through again when a document is opened or saved, but
# not before so many seconds, nor so many times as long as it took last time.
LOOKED_AGAIN: Final = 60.0
_REST: Final = 100.0
SHOWN_AFTER: Final = 0.5  # seconds of work until its progress is shown: what is done sooner needs none
_IN_ORDER: Final = Priority.COMPLETION  # of the others the newest goes first: a release, before it was followed
_NICE: Final = 10  # these threads come after everything else that the user's machine does


@dataclass(eq=False)
class Shared:
    """A project that clients have open."""

    root: str
    memory: ProjectMemory
    wishes: dict[Workspace, float] = field(default_factory=dict)  # megabytes, by client; the most is what it gets
    begun: float = -math.inf  # when somebody began to look through it last
    took: float = 0.0  # seconds
    stopped: bool = False  # by a user, who doesn't want it looked through
    tops: tuple[str, ...] = field(init=False)  # what its files' paths may begin with: the root, and without links

    def __post_init__(self) -> None:
        self.tops = tuple(one.rstrip(os.sep) + os.sep for one in (self.root, os.path.realpath(self.root)))

    def inside(self, path: str) -> str | None:
        """Return a path relative to the project, None if it is outside."""
        return next((path[len(top) :] for top in self.tops if path.startswith(top)), None)


@dataclass(frozen=True)
class Beside:
    """A project as one of its documents sees it: without that document's own text, whatever the document is called."""

    memory: ProjectMemory
    path: str  # of the document's file, in the project

    def tables(self, _: str) -> Sequence[Counts]:
        """Return the counts of all other files."""
        return self.memory.tables(self.path)


class Projects:
    """The memories of all projects, and the threads that count.

    `indexer` reads and counts projects; `counter`, documents, the saved text of those that are open, too.
    """

    def __init__(self, caches: Path | None = None) -> None:
        self.counter = Worker("counter")
        self.indexer = Worker("indexer")
        self.closing = threading.Event()
        self._caches = caches  # the folder of the caches; None: the user's
        self._room = room_for_text(memory_limit())  # bytes of a project's text; None: as much as is wished for
        self._shared: dict[str, Shared] = {}
        for worker in (self.counter, self.indexer):
            worker.submit(Priority.COMPLETION, lambda _: _be_nice())

    def join(self, root: str, client: Workspace, megabytes: float) -> Shared:
        """Return the project at `root`, of which a client wants so much to be counted. Event loop only."""
        project = self._shared.get(root)
        if project is None:
            memory = ProjectMemory(Path(root), cache=cache_file(Path(root), self._caches))
            project = self._shared[root] = Shared(root, memory)
        if project.wishes.get(client) != megabytes:
            project.stopped = False
            project.wishes[client] = megabytes
            cap = int(max(project.wishes.values()) * 1e6)
            if self._room is not None and cap > self._room:
                logger.warning(
                    "the memory that this process may take has room for %.1f MB of the project %s, not %.1f: raise its "
                    "limit, or lower memory.projectMegabytes.",
                    self._room / 1e6,
                    root,
                    cap / 1e6,
                )
                cap = self._room
            if project.memory.cap != cap:
                project.memory.cap = cap
                project.begun = -math.inf  # it is to be looked through at once
        return project

    def leave(self, project: Shared, client: Workspace) -> None:
        """A client no longer has a project open; that of nobody is forgotten, but for its cache. Event loop only."""
        project.wishes.pop(client, None)
        if not project.wishes and self._shared.get(project.root) is project:
            del self._shared[project.root]

    def close(self) -> None:
        """End the threads; what they are at is given up."""
        self.closing.set()
        for worker in (self.counter, self.indexer):
            worker.close(timeout=0.5)


class Workspace:
    """One client's share in the projects. Everything here is called on the event loop."""

    def __init__(self, projects: Projects, progress: Progress) -> None:
        self.shows_progress = False  # whether the client can
        self.closed = False
        self._projects = projects
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._joined: dict[str, Shared] = {}  # by root
        self._documents: dict[str, Beside] = {}  # by URI
        self._changed: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._gathered = GATHERED

    def follow(self, uri: str, roots: Iterable[str], megabytes: float) -> Beside | None:
        """Return the project of a document that is open, which is that of the innermost of `roots` (URIs) around it.

        None if it lies in none. What the document's file holds is not the project's from now on.
        """
        place = located(uri, roots)
        if place is None:
            self.release(uri)
            return None
        root, path = place
        project = self._joined[root] = self._projects.join(root, self, megabytes)
        beside = Beside(project.memory, path)
        if self._documents.get(uri) != beside:
            self.release(uri)
            self._documents[uri] = beside
            self._submit(self._projects.counter, lambda _: beside.memory.follow(path), _IN_ORDER)
        self._look(project)
        return self._documents[uri]

    def project_of(self, uri: str) -> Beside | None:
        """Return the project that a document is followed in."""
        return self._documents.get(uri)

    def release(self, uri: str) -> None:
        """A document has been closed."""
        beside = self._documents.pop(uri, None)
        if beside is not None:
            self._submit(self._projects.counter, lambda _: beside.memory.release(beside.path), _IN_ORDER)

    def remember(self, count: Callable[[], None], key: Any) -> None:
        """Let a document be counted by `count`, in the background."""
        self._submit(self._projects.counter, lambda _: count(), Priority.PREFILL, key)

    def changed(self, uris: Iterable[str]) -> None:
        """Files have been saved, created, renamed or deleted; or folders."""
        self._changed |= {path for uri in uris if (path := file_of(uri))}
        if self._changed and self._timer is None:
            self._timer = self._loop.call_later(self._gathered, self._read_changed)

    def forget(self) -> None:
        """Have no project any more: the client wants none, or has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._read_changed()  # others may have the project open
        for uri in list(self._documents):
            self.release(uri)
        for project in self._joined.values():
            self._projects.leave(project, self)
        self._joined.clear()

    def leave_unused(self) -> None:
        """Have those projects no more that none of the documents lies in."""
        used = {beside.memory for beside in self._documents.values()}
        for root, project in list(self._joined.items()):
            if project.memory not in used:
                del self._joined[root]
                self._projects.leave(project, self)

    def close(self) -> None:
        """The client has gone."""
        self.closed = True
        self.forget()

    def to_json(self) -> list[dict[str, Any]]:
        """Return what is known of the projects as JSON data."""
        return [
            {"root": root, "ready": memory.ready, "files": memory.files, "characters": memory.characters}
            for root, memory in ((root, project.memory) for root, project in self._joined.items())
        ]

    def _read_changed(self) -> None:
        paths, self._changed, self._timer = self._changed, set(), None
        self._gathered = GATHERED
        for project in self._joined.values():
            inside = [path for path in paths if (name := project.inside(path)) is not None and not _is_noise(name)]
            if len(inside) > MOST_FILES:
                self._gathered = AFTER_SWARM
                self._refresh(project)
            elif inside:
                take_in = partial(self._take_in, project, inside)
                self._submit(self._projects.indexer, take_in, Priority.PREFILL)
                if not self.closed:
                    self._look(project)

    def _take_in(self, project: Shared, paths: list[str], _: Callable[[], bool]) -> None:
        if project.memory.changed(paths):
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._refresh, project)

    def _look(self, project: Shared) -> None:
        """Look through a project if that has not been done for a while."""
        if time.monotonic() - project.begun >= max(LOOKED_AGAIN, _REST * project.took):
            self._refresh(project)

    def _refresh(self, project: Shared) -> None:
        if project.stopped or not project.wishes:
            return
        project.begun = time.monotonic()
        memory = project.memory
        near = [one.path for client in project.wishes for one in client._documents.values() if one.memory is memory]
        closing = self._projects.closing

        # The worker's own flag is not looked at: each document that is opened and each file that is saved would raise
        # it, and in a large project nothing would ever be counted. Who asks again meanwhile gets it done once more.
        def refresh(_: Callable[[], bool]) -> None:
            began = time.monotonic()
            shown = _Shown(self, memory.root.name)
            try:
                memory.refresh(
                    near=near, cancelled=lambda: closing.is_set() or shown.is_cancelled(), progress=shown.tell
                )
            finally:
                project.took = time.monotonic() - began
                project.stopped = project.stopped or shown.is_cancelled()
                shown.end(memory.files)

        self._submit(self._projects.indexer, refresh, Priority.INDEXING, key=("refresh", project.root))

    def _submit(
        self, worker: Worker, run: Callable[[Callable[[], bool]], Any], priority: Priority, key: Any = None
    ) -> None:
        job: Job[Any] = worker.submit(priority, run, key=key)
        job.future.add_done_callback(_looked_at)


class _Shown:
    """The progress of one piece of work, told from the thread that does it, shown if it takes long."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace = workspace
        self._name = name
        self._token = secrets.token_hex(8)
        self._began = time.monotonic()
        self._told = 0.0
        self._shown = False

    def tell(self, what: str, share: float) -> None:
        """Say what is being done, and which share of all is done."""
        now = time.monotonic()
        if (now - self._began < SHOWN_AFTER and share < 0.5) or now - self._told < 0.1:
            return
        if not self._workspace.shows_progress:
            return
        self._told = now
        begin, self._shown = not self._shown, True
        self._later(self._report, what, round(100 * share), begin)

    def is_cancelled(self) -> bool:
        """Whether the user has asked for an end."""
        token = self._workspace._progress.tokens.get(self._token)
        return token is not None and token.cancelled()

    def end(self, files: int) -> None:
        """Say that it is done."""
        if self._shown:
            self._later(self._end, f"{files:,} files")

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._workspace._loop.call_soon_threadsafe(call, *arguments)

    def _report(self, what: str, percentage: int, begin: bool) -> None:
        if begin:
            self._created = asyncio.ensure_future(self._create())
            self._created.add_done_callback(lambda done: done.cancelled() or done.exception())
            return
        progress = self._workspace._progress
        if self._token in progress.tokens:
            progress.report(self._token, types.WorkDoneProgressReport(message=what, percentage=percentage))

    async def _create(self) -> None:
        if self._workspace.closed:
            return
        progress = self._workspace._progress
        with suppress(JsonRpcException):
            await progress.create_async(self._token)
            title = f"Reading the project {self._name}"
            progress.begin(self._token, types.WorkDoneProgressBegin(title=title, percentage=0, cancellable=True))

    def _end(self, message: str) -> None:
        async def end() -> None:
            with suppress(JsonRpcException, asyncio.CancelledError):
                await self._created
                if self._token in self._workspace._progress.tokens:
                    self._workspace._progress.end(self._token, types.WorkDoneProgressEnd(message=message))
                    del self._workspace._progress.tokens[self._token]

        self._ending = asyncio.ensure_future(end())


def repository_around(uri: str) -> str | None:
    """Return the git work tree (a URI) that a file lies in: its project where the client has no folder open.

    Not the user's home, which some keep under git, too: it is no project.
    """
    path = file_of(uri)
    if not path or not Path(path).is_absolute():
        return None
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (as it is, where there is no home)
    for folder in Path(path).parents:
        if folder == home:
            return None
        if is_repository(folder.as_posix()):
            return folder.as_uri()
    return None


def located(uri: str, roots: Iterable[str]) -> tuple[str, str] | None:
    """Return the innermost of `roots` (URIs) that a document lies in, as a path, and the document's path in it."""
    path = uri_path(uri)
    inside = [root for root in roots if path.startswith(uri_path(root).rstrip("/") + "/")]
    if not inside:
        return None
    innermost = max(inside, key=lambda one: len(uri_path(one)))
    found = file_of(innermost)
    if not found or not os.path.isdir(found):  # noqa: PTH112 (`Path` raises for a name that is too long)
        return None
    file, root = file_of(uri), str(Path(found))  # some clients end it with a slash
    if file is not None:
        # The project's files are told by where they are, not by links that lead there.
        real, top = Path(os.path.realpath(file)), Path(os.path.realpath(root))
        if real.is_relative_to(top):
            return root, real.relative_to(top).as_posix()
    return root, path[len(uri_path(innermost).rstrip("/")) + 1 :]


def file_of(uri: str) -> str | None:
    """Return the path of the file that a URI names; None if it names none."""
    try:
        path = to_fs_path(uri)
        if path and os.name == "posix" and not urlsplit(uri).netloc:
            path = os.fsdecode(unquote_to_bytes(urlsplit(uri).path))  # a name may be no UTF-8
    except ValueError:  # no URI
        return None
    return None if path is None or "\0" in path else path


def _is_noise(name: str) -> bool:
    """Say whether a file lies where nothing is read, so that it needn't be looked at; by its path in the project."""
    parts = name.replace(os.sep, "/").split("/")
    return not NEVER_ENTERED.isdisjoint(parts) or (".git" in parts and parts[-3:] != [".git", "info", "exclude"])


def _looked_at(future: Future[Any]) -> None:
    error = future.exception()
    if error is not None:
        log_bug("counting", error)


def _be_nice() -> None:
    """Let this thread come after all others; where that is a thing (on Linux each thread has its own)."""
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
