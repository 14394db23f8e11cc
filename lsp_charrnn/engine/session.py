r"""The open documents and their completions: the façade that the server, the commands and the evaluation use.

`open`, `edit`, `close`, `use_project` and `configure` are cheap and may come from any thread; they take notes and do
no model work.
`complete`, `advance`, `read_around`, `surprise` and `inside` run the model, and belong to one thread. Text goes in and
out as `Document` values and bytes; the protocol, its positions and its threads are left to the server.
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.contexts import REACH
from lsp_charrnn.engine.decode import Candidate, DecodeOptions, Path, decode, distinct, keys_of
from lsp_charrnn.engine.filters import Surroundings, agreement, filtered
from lsp_charrnn.engine.memory import Base, Counts, DocumentCounts
from lsp_charrnn.engine.mixer import Mixture, shipped_mixer
from lsp_charrnn.engine.snapshots import Snapshot
from lsp_charrnn.engine.stream import SPACING, Cancelled, Stream, never, symbols_of
from lsp_charrnn.engine.surprise import Surprise
from lsp_charrnn.errors import DocumentNotOpenError
from lsp_charrnn.model.step import Logits, Model, State
from lsp_charrnn.text.diff import smallest_edits
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.symbols import VOCABULARY, header, normalise

PENDING: Final = 20_000  # edits kept for a stream that nobody asks; more become one, from the first place to the last
DIFFED: Final = 256  # bytes; an edit that replaces more by more is looked at for what it leaves as it is
AROUND: Final = 1 << 18  # bytes on either side of the cursor that are read ahead in a document that is being worked on
GLANCE: Final = 1 << 15  # the same where nobody has typed or asked yet: most documents are only looked at
SNAPSHOTS: Final = 4000  # of all documents together, 9 kB each; those used longest ago lose theirs first
REMEMBERED: Final = (1 << 14, 1 << 19)  # bytes on either side of the cursor that are counted: at once, and in time
COUNTED: Final = 64 << 20  # bytes of memory for the counts of all documents together
KEPT: Final = 5  # candidates kept of one decoding: what cycling through them can show
LEAST_BUDGET_MS: Final = 10.0  # left for decoding, however long reading the text took
LEAST_REST: Final = 2  # bytes: a shorter rest takes as many keys to accept as to type
CONTEXT: Final = 4096  # bytes on either side of the cursor that the filters see
SURPRISED: Final = 1 << 13  # bytes on either side of the cursor that are looked through for what is unlikely there
SEEN: Final = 4096  # bytes that are seen from inside at once


Models = Callable[[str], Model]  # the model for a language id; it may be loaded for that, and `ModelError` be raised


class Project(Protocol):
    """What the project has held, as `engine.memory.look_up` takes it."""

    def tables(self, path: str) -> Sequence[Counts]:
        """Return the counts of all its files but `path`; none while they are not known. Any thread, at once."""


@dataclass(frozen=True)
class Completion:
    """A text to put in place of the document's bytes [start, end), in the document's own line ends."""

    text: str
    start: int
    end: int
    log_probability: float  # at temperature 1, of the text as decoded: with what a filter cut, or was typed since
    probability: float


@dataclass(frozen=True)
class Answer:
    """What `complete` found for the document at `version`, best first; empty where nothing is worth showing."""

    version: int | None
    completions: tuple[Completion, ...]
    reused: bool  # the rest of what was shown before, along which the user typed
    elapsed_ms: float


@dataclass(frozen=True)
class _Shown:
    r"""The candidates of one decoding. They stay good while the user types along the first of them.

    Texts are in the document's own line ends, so that what the editor inserts can be compared with them.
    """

    start: Snapshot  # where they were made for
    candidates: tuple[Candidate, ...]
    worthwhile: int  # so many of them are worth showing unasked
    path: Path | None = None  # the states along the first
    typed: bytes = b""  # since, along the first
    ahead: _Shown | None = None  # what is to be shown once the first is accepted

    @property
    def offset(self) -> int:
        """Where they were made for."""
        return self.start.offset

    @property
    def cursor(self) -> int:
        """Where the user has come to along the first."""
        return self.offset + len(self.typed)

    def after(self, edit: Edit) -> _Shown | None:
        """Return what is left after `edit`, or None where it left the first candidate's path."""
        if edit.end != self.cursor or edit.start < self.offset:
            return None
        typed = self.typed[: edit.start - self.offset] + edit.new
        if not self.candidates or not self.candidates[0].text.startswith(typed):
            return None
        return replace(self, typed=typed)

    def rest(self, cursor: int) -> tuple[list[Candidate], int] | None:
        """Return the remainders at `cursor` and how many are worthwhile; None where there are none to go on with."""
        if cursor != self.cursor:
            return None
        if self.typed and self.candidates and len(self.candidates[0].text) - len(self.typed) < LEAST_REST:
            return None  # accepted, or typed to where it saves no key any more
        left = [
            (index, Candidate(c.text[len(self.typed) :], c.log_probability, c.keys))
            for index, c in enumerate(self.candidates)
            if c.text.startswith(self.typed) and len(c.text) > len(self.typed)
        ]
        return [candidate for _, candidate in left], sum(index < self.worthwhile for index, _ in left)


@dataclass(frozen=True)
class Reading:
    """How far the reading of a document's newest text has come."""

    refined: bool  # what is expected at the cursor is what reading the whole text expects, to within the tolerance
    settled: bool  # and so it is around it
    remembered: bool  # the document's names have been counted, as far as they are


@dataclass(frozen=True)
class Odd:
    """Bytes [start, end) of a document that are far less likely than their surroundings."""

    start: int
    end: int
    bits: float  # what they cost
    instead: str  # what was expected; empty where nothing else was


@dataclass(frozen=True)
class Oddities:
    """What is unlikely in a document, around the cursor."""

    document: Document
    found: tuple[Odd, ...]


@dataclass(frozen=True, eq=False)
class Inside:
    """What the model did along a stretch of a document, symbol by symbol. A CRLF is one symbol."""

    document: Document
    model: Model
    ends: npt.NDArray[np.int64]  # [symbols], the byte behind each
    symbols: npt.NDArray[np.int64]  # [symbols]
    states: State  # [layers, parts, symbols + 1, hidden], before each and behind the last
    logits: Logits  # [symbols + 1, 256], likewise


@dataclass(eq=False)
class _Looking:
    """A look for what is unlikely, under way."""

    document: Document
    start: int  # bytes of the document
    end: int
    ends: npt.NDArray[np.int64]  # of each symbol
    surprise: Surprise | None  # None once it is done
    model: Model
    settings: Settings
    oddities: Oddities | None = None  # once it is done

    def is_of(self, document: Document, cursor: int, model: Model, settings: Settings) -> bool:
        """Whether it is the look that is wanted."""
        same = self.document is document and self.model is model and self.settings is settings
        return same and self.start <= cursor <= self.end


@dataclass
class _Open:
    """One open document. All but `stream` is guarded by the session's lock."""

    document: Document
    path: str
    language: str
    # Not told to the stream yet; None while no stream follows the text: it will begin with the newest. With the text
    # before, where the edit is so large that it is worth a closer look.
    pending: list[tuple[Edit, Document | None]] | None = None
    shown: _Shown | None = None
    cursor: int = 0  # where the last edit ended, or the last completion was asked for
    touched: bool = False  # somebody has typed or asked
    used: int = 0  # when the model last worked on it, by the session's clock
    refined: Document | None = None  # the text for which the reading has come so far
    settled: Document | None = None
    remembered: bool = False  # `counts` cover what they are to cover
    stream: Stream | None = None  # touched by the model thread only
    models: Models | None = None  # its own, instead of the session's
    model: Model | None = None  # that has read it last; touched by the model thread only
    project: Project | None = None
    counts: DocumentCounts = field(default_factory=DocumentCounts)  # touched by the model thread only
    told: Document | None = None  # the text that `stream` and `counts` stand for
    # While the text is being counted: the edits since. Then the counts, until the model thread comes for them.
    since: list[Edit] | None = None
    counted: tuple[Base, list[Edit]] | None = None
    looking: _Looking | None = None  # touched by the model thread only

    def forget(self) -> None:
        """Take note that no stream follows the text any more."""
        self.pending = self.refined = self.settled = self.told = self.since = self.counted = None
        self.remembered = False

    def taken(self) -> tuple[Document, list[tuple[Edit, Document | None]]]:
        """Return the newest text, and the edits since the last call: together, or a stream would miss one."""
        pending, self.pending = self.pending or [], []
        return self.document, pending


class Session:
    """The documents that are open, and their streams.

    `models` is asked for a document's model whenever it is needed: where it is another one from now on, what the one
    before has read is forgotten, and what it has suggested.
    """

    def __init__(self, models: Models, settings: Settings | None = None) -> None:
        self._models = models
        self._settings = settings if settings is not None else Settings()
        self._lock = threading.Lock()  # held for notes only, never across model work
        self._open: dict[str, _Open] = {}
        self._clock = 0

    def open(
        self,
        uri: str,
        document: Document,
        *,
        path: str,
        language: str,
        project: Project | None = None,
        models: Models | None = None,
    ) -> None:
        """Take note of a document; `path` is relative to its `project`, and `models` are asked for its model.

        By default the session's are. A second `open` replaces the first.
        """
        with self._lock:
            self._open[uri] = _Open(document, path, language, project=project, models=models)

    def use_project(self, uri: str, project: Project | None) -> None:
        """Let an open document have another project, or none, from now on. Raises `DocumentNotOpenError`."""
        with self._lock:
            entry = self._entry(uri)
            entry.project, entry.shown = project, None

    def edit(self, uri: str, document: Document, edits: Sequence[Edit]) -> None:
        """Take note that `edits`, one after another, made the text into `document`.

        Raises `DocumentNotOpenError`.
        """
        with self._lock:
            entry = self._entry(uri)
            before = entry.document
            if len(edits) == 1:
                edits = [edits[0].trimmed(before)]
            looked_at = entry.pending is not None and any(_is_large(edit) for edit in edits)
            for edit in edits:
                if entry.pending is not None:
                    entry.pending.append((edit, before if _is_large(edit) else None))
                entry.cursor = edit.start + len(edit.new)
                if entry.shown is not None:
                    entry.shown = entry.shown.after(edit)
                if looked_at and len(edits) > 1:
                    before = before.replace(edit)
            if entry.pending is not None and len(entry.pending) > PENDING:
                entry.pending = [(_covering([edit for edit, _ in entry.pending]), None)]
            entry.document = document
            entry.touched = True

    def close(self, uri: str) -> None:
        """Forget a document and its state. Closing what isn't open does nothing."""
        with self._lock:
            self._open.pop(uri, None)

    def configure(self, settings: Settings) -> None:
        """Use `settings` from now on; a changed model takes effect with the next completion."""
        with self._lock:
            changed = (settings.model, settings.stream_exact) != (self._settings.model, self._settings.stream_exact)
            self._settings = settings
            for entry in self._open.values():
                entry.shown = None
                if changed:
                    entry.refined = entry.settled = None

    def document(self, uri: str) -> Document:
        """Return the newest text of an open document. Raises `DocumentNotOpenError`."""
        with self._lock:
            return self._entry(uri).document

    def reading(self, uri: str) -> Reading:
        """Return how far the reading of an open document has come. Raises `DocumentNotOpenError`."""
        with self._lock:
            entry = self._entry(uri)
            remembered = entry.told is entry.document and entry.remembered
            return Reading(entry.refined is entry.document, entry.settled is entry.document, remembered)

    def complete(self, uri: str, offset: int, *, count: int = 1, cancelled: Callable[[], bool] = never) -> Answer:
        """Return up to `count` completions at byte `offset` of the newest text of `uri`.

        With `count` 1 nobody asked: nothing comes that is not worth showing. With more somebody did: the
        alternatives follow, worth it or not, the first being the one that `count` 1 gives. What was
        shown and is being typed along comes again, shortened and otherwise unchanged. Cancelled: an empty answer.
        Model thread only. Raises `DocumentNotOpenError`, and what `models` raises.
        """
        began = time.perf_counter()
        with self._lock:
            entry = self._entry(uri)
        document, settings, shown, stream = self._taken(entry)
        offset = min(max(offset, 0), document.size)
        with self._lock:
            entry.touched = True
            if entry.document is document and entry.cursor != offset:
                entry.cursor, entry.refined, entry.settled = offset, None, None
        rest = shown.rest(offset) if shown is not None else None
        if (
            rest is None
            and shown is not None
            and shown.ahead is not None
            and shown.cursor == shown.ahead.offset == offset
        ):
            shown = shown.ahead
            rest = shown.rest(offset)
        reused = rest is not None
        if rest is None:
            try:
                snapshot = stream.at(document, offset, cancelled)
                mixture = self._mixture(entry, document, offset, settings)
                shown = _decoded(stream.model, snapshot, document, entry.language, settings, began, cancelled, mixture)
            except Cancelled:
                return Answer(document.version, (), False, _since(began))
            rest = shown.rest(offset)
        assert shown is not None
        assert rest is not None  # nothing is typed yet
        candidates, worthwhile = rest
        candidates = candidates[: min(worthwhile, 1) if count == 1 else count]
        # What was not shown is no suggestion to hold on to; what was asked for stays, worth it or not.
        kept = replace(shown, worthwhile=max(shown.worthwhile, 1)) if candidates else None
        with self._lock:
            # Else an edit came between, which isn't along this text, or other settings, which ask for another.
            if entry.document is document and self._settings is settings:
                entry.shown = kept
        completions = tuple(
            Completion(c.text.decode("utf-8"), offset, offset, c.log_probability, c.probability) for c in candidates
        )
        return Answer(document.version, completions, reused, _since(began))

    def advance(self, uri: str, *, cancelled: Callable[[], bool] = never) -> None:
        """Make the next completion cheap and good: read on to the cursor, and decode what follows the suggestion shown.

        Then read enough before the cursor for the state there to be final. Called again after it was cancelled, it
        goes on. Model thread only. A document that has been closed meanwhile is left alone.
        """
        with self._lock:
            entry = self._open.get(uri)
        if entry is None:
            return
        document, settings, shown, stream = self._taken(entry)
        cursor = min(entry.cursor, document.size)
        try:
            stream.at(document, cursor, cancelled)
            if shown is not None:
                self._look_ahead(entry, document, settings, shown, stream.model, cancelled)
            stream.refine(document, cursor, cancelled)
        except Cancelled:
            return
        with self._lock:
            if entry.document is document and entry.cursor == cursor:
                entry.refined = document

    def read_around(self, uri: str, *, cancelled: Callable[[], bool] = never) -> None:
        """Read ahead what is around the cursor, and find again what edits have parted (`Stream.read_around`).

        Called again after it was cancelled, it goes on. Model thread only. A document that has been closed meanwhile is
        left alone.
        """
        with self._lock:
            entry = self._open.get(uri)
        if entry is None:
            return
        document, _, _, stream = self._taken(entry)
        cursor = min(entry.cursor, document.size)
        try:
            stream.read_around(document, cursor, AROUND if entry.touched else GLANCE, cancelled)
        except Cancelled:
            return
        finally:
            self._bound_memory(entry)
        with self._lock:
            if entry.document is document and entry.cursor == cursor:
                entry.settled = document

    def surprise(self, uri: str, *, cancelled: Callable[[], bool] = never) -> Oddities | None:
        """Return what is far less likely than its surroundings, within `SURPRISED` bytes of the cursor.

        None if it was cancelled: called again, it goes on. None, too, for a document that has been closed meanwhile.
        Model thread only.
        """
        with self._lock:
            entry = self._open.get(uri)
        if entry is None:
            return None
        document, settings, _, stream = self._taken(entry)
        cursor = min(entry.cursor, document.size)
        try:
            looking = entry.looking
            if looking is None or not looking.is_of(document, cursor, stream.model, settings):
                looking = entry.looking = self._look(entry, document, cursor, settings, stream, cancelled)
            if looking.surprise is not None:
                looking.surprise.go_on(cancelled)
                unlikely = looking.surprise.unlikely(cancelled=cancelled)
                ends = looking.ends
                found = tuple(
                    # A symbol is one byte, wherever the one before it ended.
                    Odd(int(ends[one.token.start]) - 1, int(ends[one.token.end - 1]), one.token.bits, one.instead)
                    for one in unlikely
                )
                looking.oddities = Oddities(document, found)
                looking.surprise = None  # it holds a state for every few bytes
        except Cancelled:
            return None
        return looking.oddities

    def _look(
        self,
        entry: _Open,
        document: Document,
        cursor: int,
        settings: Settings,
        stream: Stream,
        cancelled: Callable[[], bool],
    ) -> _Looking:
        """Begin to look around the cursor: at whole lines, as far as they are not too long. Raises `Cancelled`."""
        low, high = max(0, cursor - SURPRISED), min(document.size, cursor + SURPRISED)
        start, _ = document.line_bounds(document.line_at(low))
        _, end = document.line_bounds(document.line_at(high))
        start = start if low - start <= CONTEXT else document.character_start(low)
        end = end if end - high <= CONTEXT else document.character_start(high)
        snapshot = stream.at(document, start, cancelled)
        symbols, ends = symbols_of(document, start, end)
        of_document: Sequence[Counts] = ()
        of_project: Sequence[Counts] = ()
        if settings.memory_document:
            if entry.counts.covers(cursor, 2 * (SURPRISED + CONTEXT)):
                of_document = entry.counts.at(document, end)
            else:  # the counts that completion goes by are left as they are
                near, _ = REMEMBERED
                of_document = (DocumentCounts.build(document, cursor, near).counts,)
        project = entry.project
        if settings.memory_project and project is not None:
            of_project = project.tables(entry.path)
        surprise = Surprise(
            stream.model,
            shipped_mixer(),
            symbols.astype(np.uint8).tobytes(),
            state=snapshot.state,
            logits=snapshot.logits,
            before=normalise(document.slice(max(0, start - 2 * REACH), start)),
            document=of_document,
            project=of_project,
        )
        return _Looking(document, start, end, start + ends, surprise, stream.model, settings)

    def inside(self, uri: str, start: int, end: int, *, cancelled: Callable[[], bool] = never) -> Inside | None:
        """Return what the model does along bytes [start, end) of a document, or the first `SEEN` of them.

        It goes on from the stream's own state at `start`. None if it was cancelled. Model thread only. Raises
        `DocumentNotOpenError`, and what `models` raises.
        """
        with self._lock:
            entry = self._entry(uri)
        document, _, _, stream = self._taken(entry)
        start = document.character_start(min(max(start, 0), document.size))
        end = document.character_start(min(max(end, start), document.size, start + SEEN))
        symbols, ends = symbols_of(document, start, end)
        model = stream.model
        spec = model.spec
        states = np.empty((spec.layers, spec.parts, len(symbols) + 1, spec.hidden), dtype=np.float32)
        logits = np.empty((len(symbols) + 1, VOCABULARY), dtype=np.float32)
        try:
            snapshot = stream.at(document, start, cancelled)
        except Cancelled:
            return None
        state, logits[0] = snapshot.state, snapshot.logits
        states[:, :, :1] = state
        for place in range(len(symbols)):
            if cancelled():
                return None
            after, state = model.step(symbols[place : place + 1], state)
            states[:, :, place + 1 : place + 2], logits[place + 1] = state, after[0]
        return Inside(document, model, start + ends, symbols, states, logits)

    def _look_ahead(
        self,
        entry: _Open,
        document: Document,
        settings: Settings,
        shown: _Shown,
        model: Model,
        cancelled: Callable[[], bool],
    ) -> None:
        """Decode what is to be shown once the suggestion that is shown has been accepted."""
        if shown.ahead is not None or shown.path is None:
            return
        text = shown.candidates[0].text
        end = shown.offset + len(text)
        after = document.replace(Edit(shown.cursor, shown.cursor, text[len(shown.typed) :]))
        states, logits = shown.path.states[:, :, -1:].copy(), shown.path.logits[-1]
        mixture = self._mixture(entry, document, shown.cursor, settings, text[len(shown.typed) :])
        start, began = Snapshot(end, states, logits), time.perf_counter()
        ahead = _decoded(model, start, after, entry.language, settings, began, cancelled, mixture)
        with self._lock:
            now = entry.shown
            if now is not None and now.candidates is shown.candidates and self._settings is settings:
                entry.shown = replace(now, ahead=ahead)

    def _entry(self, uri: str) -> _Open:
        try:
            return self._open[uri]
        except KeyError:
            raise DocumentNotOpenError(
                f"the document {uri} is not open: send textDocument/didOpen for it first."
            ) from None

    def _taken(self, entry: _Open) -> tuple[Document, Settings, _Shown | None, Stream]:
        """Return the newest text, the settings, what is shown, and the stream: told of all edits, it stands for it."""
        model = (entry.models or self._models)(entry.language)
        with self._lock:
            if entry.model is not None and entry.model is not model:
                entry.shown = None  # its states would be another's
            document, pending = entry.taken()
            settings, shown = self._settings, entry.shown
            self._clock += 1
            entry.used = self._clock
        entry.model = model
        stream = entry.stream
        if stream is None or stream.model is not model or stream.exact != settings.stream_exact:
            entry.stream = None  # the old one has missed `pending`: it must not be left, should the new one fail
            entry.counts = DocumentCounts()
            with self._lock:
                newer = entry.pending  # edits that have come meanwhile
                entry.forget()
                entry.pending, entry.told = newer, document
            stream = entry.stream = Stream(model, header(entry.path), exact=settings.stream_exact)
        else:
            parts = [
                part
                for edit, before in pending
                for part in ([edit] if before is None else smallest_edits(before, edit, SPACING))
            ]
            for part in parts:
                stream.edit(part)
                entry.counts.edit(part)
            with self._lock:
                counted, entry.counted = entry.counted, None
                if entry.since is not None:
                    entry.since += parts
                entry.told = document
            if counted is not None:
                base, since = counted
                entry.counts.install(base, [*since, *parts])
                with self._lock:
                    entry.remembered = entry.counts.covers(entry.cursor, REMEMBERED[1])
        if shown is not None and shown.path is not None and shown.typed:
            symbols = len(normalise(shown.typed))
            state, logits = shown.path.states[:, :, symbols - 1 : symbols], shown.path.logits[symbols - 1]
            stream.adopt(shown.start, shown.cursor, state.copy(), logits.copy())
        return document, settings, shown, stream

    def _mixture(
        self, entry: _Open, document: Document, cursor: int, settings: Settings, inserted: bytes = b""
    ) -> Mixture | None:
        """Return what the memories say at `cursor`, or behind what will have been `inserted` there."""
        of_document: Sequence[Counts] = ()
        of_project: Sequence[Counts] = ()
        if settings.memory_document:
            if not entry.counts.covers(cursor, 0):
                near, _ = REMEMBERED
                entry.counts.install(DocumentCounts.build(document, cursor, near), [])
            of_document = entry.counts.at(document, cursor, inserted)
            with self._lock:
                entry.remembered = entry.counts.covers(cursor, REMEMBERED[1])
        project = entry.project  # the event loop may put another one there
        if settings.memory_project and project is not None:
            of_project = project.tables(entry.path)
        if not of_document and not of_project:
            return None
        before = document.slice(max(0, cursor - CONTEXT), cursor) + inserted
        return Mixture(shipped_mixer(), of_document, of_project, normalise(before))

    def remember(self, uri: str) -> None:
        """Count the names of a document around the cursor, if that has not been done.

        Takes up to a second, no lock, and no model: it may run beside the model thread, one at a time for a document.
        """
        with self._lock:
            entry = self._open.get(uri)
            if entry is None or entry.told is None or entry.remembered or not self._settings.memory_document:
                return
            document, cursor, entry.since = entry.told, entry.cursor, []
        base = DocumentCounts.build(document, cursor, REMEMBERED[1])
        with self._lock:
            if entry.since is not None:
                entry.counted, entry.since = (base, entry.since), None

    def _bound_memory(self, used: _Open) -> None:
        """Let the documents that were used longest ago lose their snapshots and counts, while all have too many."""
        with self._lock:
            others = sorted((e for e in self._open.values() if e is not used), key=lambda entry: entry.used)
        following = [entry for entry in (used, *others) if entry.stream is not None]
        snapshots = sum(len(entry.stream) for entry in following if entry.stream is not None)
        counted = sum(entry.counts.bytes_used for entry in following)
        for entry in others:
            if snapshots <= SNAPSHOTS and counted <= COUNTED:
                return
            if entry.stream is not None:
                snapshots -= len(entry.stream)
                counted -= entry.counts.bytes_used
                entry.stream, entry.counts = None, DocumentCounts()
                with self._lock:
                    entry.forget()


def _is_large(edit: Edit) -> bool:
    """Return whether what an edit leaves as it was may be worth looking for."""
    return min(edit.end - edit.start, len(edit.new)) > DIFFED


def _covering(edits: Sequence[Edit]) -> Edit:
    """Return one edit from the first place to the last that `edits`, one after another, have changed.

    Its new text has the right length, and nothing else: a stream needs no more.
    """
    start, end, new_end = edits[0].start, edits[0].end, edits[0].start + len(edits[0].new)
    for edit in edits[1:]:
        start = min(start, edit.start)
        end += max(0, edit.end - new_end)
        new_end = max(new_end, edit.end) + len(edit.new) - (edit.end - edit.start)
    return Edit(start, end, bytes(new_end - start))


def _decoded(
    model: Model,
    snapshot: Snapshot,
    document: Document,
    language: str,
    settings: Settings,
    began: float,
    cancelled: Callable[[], bool],
    mixture: Mixture | None,
) -> _Shown:
    """Decode at `snapshot` of `document`. Raises `Cancelled`."""
    offset = snapshot.offset
    around = Surroundings(
        normalise(document.slice(max(0, offset - CONTEXT), offset)),
        normalise(document.slice(offset, offset + CONTEXT)),
        language,
    )
    options = DecodeOptions(
        lanes=settings.decode_lanes,
        budget_ms=max(LEAST_BUDGET_MS, settings.decode_budget_ms - _since(began)),
        max_chars=settings.decode_max_chars,
        temperature=settings.decode_temperature,
        cost=settings.decode_cost,
        single_line=bool(around.line_after.strip()),
    )
    # Sampled, and yet the same for the same text: cycling through candidates must not shuffle them.
    seed = zlib.crc32(around.before[-256:])
    decoding = decode(model, snapshot, options, mixture=mixture, seed=seed, cancelled=cancelled)
    if cancelled():
        raise Cancelled
    # What a filter cuts saves fewer keys, and what doesn't lead into what follows is less likely than the model, which
    # hasn't seen that, thinks: the order is made anew.
    left = [(filtered(candidate.text, around), candidate.log_probability) for candidate in decoding.candidates]
    likely = [(text, log_p + math.log(agreement(text, around))) for text, log_p in left if text]
    kept = distinct([Candidate(text, log_p, keys_of(text)) for text, log_p in likely], options.cost)[:KEPT]
    worthwhile = sum(candidate.benefit(options.cost) > 0 for candidate in kept)
    path = decoding.path(kept[0].text) if worthwhile and not settings.stream_exact else None
    newline = document.newline
    if newline != b"\n":
        kept = [Candidate(c.text.replace(b"\n", newline), c.log_probability, c.keys) for c in kept]
    return _Shown(snapshot, tuple(kept), worthwhile, path)


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
