r"""The memory of a project: how often which byte has followed which context in its files, but for the one that is open.

The files are listed, read and counted once (`Index`), and the index is kept on disk for the next start. Files that
have changed since are counted beside it, their old text with the opposite sign, until that is so much that the project
is counted anew. What `tables` returns leaves out the document that is open: its text, as it is at this moment, is the
document memory's, and what it was when it was saved is nothing to suggest.

`refresh` and `changed` read files and take up to some seconds: they belong to one thread in the background. `follow`
and `release` count one file, and may come from another: who opens a document needn't wait until a project has been
counted. `tables` takes no time, and may come from any thread. Which files there are is `files`' business, threads and
the protocol are the server's.
"""

from __future__ import annotations

import logging
import stat
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from lsp_charrnn.engine.memory import EMPTY, Counts
from lsp_charrnn.errors import OutputError
from lsp_charrnn.project.cache import Entry, Index, read, write
from lsp_charrnn.project.files import ProjectFile, ProjectFilter, project_files, read_text
from lsp_charrnn.project.ignore import NEVER_ENTERED

logger = logging.getLogger(__name__)

CAP: Final = 5_000_000  # bytes of text
MOST_CHANGED: Final = 500_000  # bytes of text that are counted beside the index
_LEAST_REBUILT: Final = 0.1  # share of the index that may change, too

Progress = Callable[[str, float], None]  # what is being done, and which share of all is done


def silent(what: str, share: float) -> None:
    """Tell nobody."""


def never() -> bool:
    """Nobody cancels."""
    return False


@dataclass(frozen=True, eq=False)
class _State:
    """What is known of a project at one moment. The open documents' tables are added and removed one by one."""

    index: Index
    changed: Mapping[str, tuple[ProjectFile, bytes] | None]  # since the index was made; None: gone
    delta: Counts  # of these
    own: dict[str, Counts] = field(default_factory=dict)  # the text of an open document, with the opposite sign

    def text(self, path: str) -> bytes | None:
        """Return the text of a file as it was when it was read last."""
        if path in self.changed:
            found = self.changed[path]
            return None if found is None else found[1]
        return self.index.text(path)

    def knows(self, file: ProjectFile) -> bool:
        """Whether this very version of a file has been read."""
        if file.path in self.changed:
            found = self.changed[file.path]
            return found is not None and found[0] == file
        entry = self.index.files.get(file.path)
        return entry is not None and (entry.size, entry.mtime_ns) == (file.size, file.mtime_ns)


class ProjectMemory:
    """The memory of the project at `root`; `cache` is the file that keeps it, if any.

    `cap` may be set anew: the next `refresh` goes by it.
    """

    def __init__(self, root: Path, *, cache: Path | None = None, cap: int = CAP) -> None:
        self.root = root
        self.cap = cap  # bytes of text
        self._cache = cache
        self._filter = ProjectFilter(root)
        self._lock = threading.Lock()  # held for notes only: which state holds, and what is open in it
        self._state: _State | None = None
        self._open: dict[str, int] = {}  # paths of documents that are open, and how often

    @property
    def ready(self) -> bool:
        """Whether its files are known."""
        return self._state is not None

    @property
    def files(self) -> int:
        """How many files it knows; 0 before the first `refresh`."""
        state = self._state
        if state is None:
            return 0
        gone = sum(found is None for found in state.changed.values())
        return len(state.index.files.keys() | state.changed.keys()) - gone

    @property
    def characters(self) -> int:
        """How many bytes of text it has counted."""
        state = self._state
        if state is None:
            return 0
        old = sum(entry.end - entry.start for path in state.changed if (entry := state.index.files.get(path)))
        return len(state.index.texts) - old + sum(len(f[1]) for f in state.changed.values() if f)

    def tables(self, path: str) -> Sequence[Counts]:
        """Return the counts of all files but the one at `path`; none before they are known."""
        state = self._state
        if state is None:
            return ()
        own = state.own.get(path)
        if own is not None:
            return state.index.counts, state.delta, own
        if state.text(path) is not None:
            return ()  # its own text is still among them
        return state.index.counts, state.delta

    def refresh(
        self, *, near: Sequence[str] = (), cancelled: Callable[[], bool] = never, progress: Progress = silent
    ) -> None:
        """Look which files there are, and count those that are new or have changed.

        What the cache has is used as it is, before the files are looked at. Cancelled, it changes nothing else.
        """
        if cancelled():
            return
        if self._state is None and self._cache is not None:
            kept = read(self._cache, self.root)
            if kept is not None:
                self._use(kept, {})
        progress("listing files", 0.0)
        files = project_files(self.root, near=near, cap=self.cap).files
        self._filter = ProjectFilter(self.root)  # the user's settings may be others by now, or the project a work tree
        state = self._state
        if state is not None:
            there = {file.path for file in files}
            changed = dict(state.changed)
            changed |= {path: None for path in state.index.files if path not in there}
            for path in [path for path in changed if path not in there and path not in state.index.files]:
                del changed[path]
            for file in files:
                if cancelled():
                    return
                if not state.knows(file):
                    text = read_text(self.root, file)
                    changed[file.path] = None if text is None else (file, text)
            if self._is_little(state.index, changed):
                if changed != state.changed:
                    self._use(state.index, changed)
                return
        index = self._counted(files, state, cancelled, progress)
        if index is None:
            return
        self._use(index, {})
        if self._cache is not None:
            try:
                write(self._cache, self.root, index)
            except OutputError as error:
                logger.warning("%s", error)
            else:
                self._use_kept(self._cache)

    def changed(self, paths: Iterable[Path | str]) -> bool:
        """Read the files at `paths` again, which may be new, or gone; say whether it is time for `refresh`."""
        state = self._state
        if state is None:
            return False
        changed = dict(state.changed)
        others = False  # that nobody may tell of
        for path in paths:
            others = others or self._is_folder(path) or self._has_rules(path)
            file = self._filter.look(path) or self._still_there(path, state)
            if file is None:
                for name in self._gone(path, state):
                    changed[name] = None
            elif not state.knows(file):
                text = read_text(self.root, file)
                changed[file.path] = None if text is None else (file, text)
        if changed != state.changed:
            self._use(state.index, changed)
        return others or not self._is_little(state.index, changed)

    def follow(self, path: str) -> None:
        """Leave the text of the document at `path` out from now on: it is open."""
        with self._lock:
            self._open[path] = self._open.get(path, 0) + 1
            state = self._state  # one that comes later takes care of it
        if state is None or path in state.own or (text := state.text(path)) is None:
            return
        own = _negative(text)
        with self._lock:
            if path in self._open:  # else it has been closed meanwhile
                state.own[path] = own

    def release(self, path: str) -> None:
        """The document at `path` has been closed."""
        with self._lock:
            left = self._open.pop(path, 1) - 1
            if left:
                self._open[path] = left
            elif self._state is not None:
                self._state.own.pop(path, None)

    def _still_there(self, path: Path | str, state: _State) -> ProjectFile | None:
        """Return a known file as it is now: git may track it although it is ignored, which only listing tells."""
        name = self._filter.relative(path)
        if name is None or state.text(name) is None:
            return None
        try:
            status = (self.root / name).lstat()
        except OSError:
            return None
        return ProjectFile(name, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def _is_folder(self, path: Path | str) -> bool:
        """Say whether there is a directory at `path`, whose files nobody may tell of: it has been moved there, say."""
        name = self._filter.relative(path)
        if name is None or not (NEVER_ENTERED | {".git"}).isdisjoint(name.split("/")):
            return False
        return (self.root / name).is_dir() and not (self.root / name).is_symlink()

    def _has_rules(self, path: Path | str) -> bool:
        """Say whether the file at `path` says what git ignores, and so which other files are to be read."""
        name = self._filter.relative(path)
        return name is not None and (name == ".git/info/exclude" or name.rpartition("/")[2] == ".gitignore")

    def _gone(self, path: Path | str, state: _State) -> list[str]:
        """Return the names of what was at `path`: a file, or all files of a directory, unless that is still there."""
        name = self._filter.relative(path)
        if name is None:
            return []
        if self._is_folder(path):
            return [name] if state.text(name) is not None else []
        known = state.index.files.keys() | state.changed.keys()
        return [one for one in known if one == name or one.startswith(name + "/")]

    def _is_little(self, index: Index, changed: Mapping[str, tuple[ProjectFile, bytes] | None]) -> bool:
        """Say whether what has changed may be counted beside the index."""
        size = sum(len(found[1]) for found in changed.values() if found is not None)
        for path in changed:
            entry = index.files.get(path)
            size += 0 if entry is None else entry.end - entry.start
        return size <= max(MOST_CHANGED, _LEAST_REBUILT * len(index.texts))

    def _use(self, index: Index, changed: Mapping[str, tuple[ProjectFile, bytes] | None]) -> None:
        """Take on what is known now."""
        before = self._state
        state = _State(index, changed, _delta(before, index, changed))
        while True:
            with self._lock:
                opened = set(self._open)
                texts = {path: text for path in opened - state.own.keys() if (text := state.text(path)) is not None}
                if not texts:
                    for path in state.own.keys() - opened:  # closed meanwhile
                        del state.own[path]
                    self._state = state
                    return
            for path, text in texts.items():
                own = None if before is None else before.own.get(path)
                if own is None or before is None or before.text(path) != text:
                    own = _negative(text)
                state.own[path] = own

    def _use_kept(self, cache: Path) -> None:
        """Use what has just been written instead of what was counted: it is mapped, so its memory can be had back."""
        kept = read(cache, self.root)
        with self._lock:
            state = self._state
            # Else another process has written meanwhile.
            if state is not None and kept is not None and kept.files == state.index.files:
                self._state = replace(state, index=kept)

    def _counted(
        self, files: Sequence[ProjectFile], state: _State | None, cancelled: Callable[[], bool], progress: Progress
    ) -> Index | None:
        """Read and count `files`; what `state` knows of them needn't be read again. None: cancelled."""
        texts: list[bytes] = []
        entries: dict[str, Entry] = {}
        start = 0
        for number, file in enumerate(files):
            if cancelled():
                return None
            if number % 16 == 0:
                progress("reading files", 0.5 * number / len(files))
            text = state.text(file.path) if state is not None and state.knows(file) else read_text(self.root, file)
            if text is None:
                continue
            texts.append(text)
            entries[file.path] = Entry(file.size, file.mtime_ns, start, start + len(text))
            start += len(text)
        progress("counting", 0.5)
        counts = Counts.of_texts(texts)
        if cancelled():
            return None
        return Index(entries, np.frombuffer(b"".join(texts), dtype=np.uint8), counts)


def _delta(before: _State | None, index: Index, changed: Mapping[str, tuple[ProjectFile, bytes] | None]) -> Counts:
    """Return what the changes add to the index's counts; counted are those since `before`, if it has that index."""
    known = _State(index, {}, EMPTY) if before is None or before.index is not index else before
    now = _State(index, changed, EMPTY)
    other = [path for path in changed.keys() | known.changed.keys() if known.text(path) != now.text(path)]
    if not other:
        return known.delta
    old, new = (
        Counts.of_texts(text for path in other if (text := state.text(path)) is not None) for state in (known, now)
    )
    return Counts.sum([(known.delta, 1), (new, 1), (old, -1)])


def _negative(text: bytes) -> Counts:
    return Counts.sum([(Counts.of_texts([text]), -1)])
