"""The projects that clients have open: who counts them, when, and how the client is told.

`Projects` belongs to the process: two threads in the background, and one memory for each project, whoever has it open.
`Workspace` belongs to a client: which of its documents lies in which project, what it reports of files that were saved,
created, renamed or deleted, and the progress that it is shown. What a memory holds is `project.memory`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.progress import Progress
from pygls.uris import to_fs_path

from lsp_charrnn.project.cache import cache_file
from lsp_charrnn.project.memory import ProjectMemory
from lsp_charrnn.server.documents import uri_path
from lsp_charrnn.server.protocol import log_bug
from lsp_charrnn.server.worker import Job, Priority, Worker

logger = logging.getLogger(__name__)

GATHERED: Final = 0.5  # seconds in which the files that have changed are gathered, for they come in swarms
MOST_FILES: Final = 500  # of such a swarm; of more the whole project is looked through
SHOWN_AFTER: Final = 0.5  # seconds of work until its progress is shown: what is done sooner needs none
_IN_ORDER: Final = Priority.COMPLETION  # of the others the newest goes first: a release, before it was followed
_NICE: Final = 10  # these threads come after everything else that the user's machine does


class Projects:
    """The memories of all projects, and the threads that count: `counter` documents, `indexer` projects."""

    def __init__(self, caches: Path | None = None) -> None:
        self.counter = Worker("counter")
        self.indexer = Worker("indexer")
        self._caches = caches  # the folder of the caches; None: the user's
        self._memories: dict[str, ProjectMemory] = {}
        for worker in (self.counter, self.indexer):
            worker.submit(Priority.COMPLETION, lambda _: _be_nice())

    def memory(self, root: str, megabytes: float) -> tuple[ProjectMemory, bool]:
        """Return the memory of the project at `root`, and whether it is new. Event loop only."""
        known = self._memories.get(root)
        if known is not None:
            return known, False
        path = Path(root)
        memory = ProjectMemory(path, cache=cache_file(path, self._caches), cap=int(megabytes * 1e6))
        self._memories[root] = memory
        return memory, True

    def close(self) -> None:
        """End the threads; what they are at is given up."""
        for worker in (self.counter, self.indexer):
            worker.close(timeout=0.5)


class Workspace:
    """One client's share in the projects. Everything here is called on the event loop."""

    def __init__(self, projects: Projects, progress: Progress) -> None:
        self.shows_progress = False  # whether the client can
        self._projects = projects
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._roots: list[str] = []  # folders of the client
        self._memories: dict[str, ProjectMemory] = {}  # by root
        self._documents: dict[str, tuple[ProjectMemory, str]] = {}  # by URI: what leaves which path out
        self._changed: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def project_of(self, uri: str, roots: Iterable[str], megabytes: float) -> ProjectMemory | None:
        """Return the memory of the innermost of `roots` (URIs) that a document lies in, if it lies in one."""
        path = uri_path(uri)
        inside = [root for root in roots if path.startswith(uri_path(root).rstrip("/") + "/")]
        found = to_fs_path(max(inside, key=lambda one: len(uri_path(one)))) if inside else None
        if not found or not Path(found).is_dir():
            return None
        root = str(Path(found))  # some clients end it with a slash
        memory, new = self._projects.memory(root, megabytes)
        self._memories[root] = memory
        if new:
            self._refresh(memory)
        return memory

    def follow(self, uri: str, memory: ProjectMemory, path: str) -> None:
        """A document has been opened: its text is not the project's any more."""
        self.release(uri)
        self._documents[uri] = memory, path
        self._submit(lambda _: memory.follow(path), _IN_ORDER)

    def release(self, uri: str) -> None:
        """A document has been closed."""
        memory, path = self._documents.pop(uri, (None, ""))
        if memory is not None:
            self._submit(lambda _: memory.release(path), _IN_ORDER)

    def remember(self, count: Callable[[], None], key: Any) -> None:
        """Let a document be counted by `count`, in the background."""
        job = self._projects.counter.submit(Priority.PREFILL, lambda _: count(), key=key)
        job.future.add_done_callback(_looked_at)

    def changed(self, uris: Iterable[str]) -> None:
        """Files have been saved, created, renamed or deleted; or folders."""
        self._changed |= {path for uri in uris if (path := to_fs_path(uri))}
        if self._changed and self._timer is None:
            self._timer = self._loop.call_later(GATHERED, self._read_changed)

    def close(self) -> None:
        """The client has gone."""
        if self._timer is not None:
            self._timer.cancel()
        for uri in list(self._documents):
            self.release(uri)

    def to_json(self) -> list[dict[str, Any]]:
        """Return what is known of the projects as JSON data."""
        return [
            {"root": root, "ready": memory.ready, "files": memory.files, "characters": memory.characters}
            for root, memory in self._memories.items()
        ]

    def _read_changed(self) -> None:
        paths, self._changed, self._timer = self._changed, set(), None
        for root, memory in self._memories.items():
            inside = [path for path in paths if path.startswith(root + os.sep)]
            if len(inside) > MOST_FILES:
                self._refresh(memory)
            elif inside:
                self._submit(partial(self._take_in, memory, inside), Priority.PREFILL)

    def _take_in(self, memory: ProjectMemory, paths: list[str], _: Callable[[], bool]) -> None:
        if memory.changed(paths):
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._refresh, memory)

    def _refresh(self, memory: ProjectMemory) -> None:
        near = [path for known, path in self._documents.values() if known is memory]

        def refresh(cancelled: Callable[[], bool]) -> None:
            shown = _Shown(self, memory.root.name) if self.shows_progress else None
            try:
                memory.refresh(near=near, cancelled=cancelled, **({} if shown is None else {"progress": shown.tell}))
            finally:
                if shown is not None:
                    shown.end(memory.files)

        self._submit(refresh, Priority.INDEXING, key=("refresh", str(memory.root)))

    def _submit(self, run: Callable[[Callable[[], bool]], Any], priority: Priority, key: Any = None) -> None:
        job: Job[Any] = self._projects.indexer.submit(priority, run, key=key)
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
        self._told = now
        begin, self._shown = not self._shown, True
        self._later(self._report, what, round(100 * share), begin)

    def end(self, files: int) -> None:
        """Say that it is done."""
        if self._shown:
            self._later(self._end, f"{files:,} files")

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._workspace._loop.call_soon_threadsafe(call, *arguments)

    def _report(self, what: str, percentage: int, begin: bool) -> None:
        progress = self._workspace._progress
        if begin:
            task = asyncio.ensure_future(self._create())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._created = task
            return
        if self._token in progress.tokens:
            progress.report(self._token, types.WorkDoneProgressReport(message=what, percentage=percentage))

    async def _create(self) -> None:
        with suppress(JsonRpcException):
            await self._workspace._progress.create_async(self._token)
            title = f"Reading the project {self._name}"
            self._workspace._progress.begin(self._token, types.WorkDoneProgressBegin(title=title, percentage=0))

    def _end(self, message: str) -> None:
        async def end() -> None:
            with suppress(JsonRpcException, asyncio.CancelledError):
                await self._created
                if self._token in self._workspace._progress.tokens:
                    self._workspace._progress.end(self._token, types.WorkDoneProgressEnd(message=message))
                    del self._workspace._progress.tokens[self._token]

        self._ending = asyncio.ensure_future(end())


def _looked_at(future: Future[Any]) -> None:
    error = future.exception()
    if error is not None:
        log_bug("counting", error)


def _be_nice() -> None:
    """Let this thread come after all others; where that is a thing (on Linux each thread has its own)."""
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
