r"""The open documents and their completions: the façade that the server, the commands and the evaluation use.

`open`, `edit`, `close` and `configure` are cheap and may come from any thread; they take notes and do no model work.
`complete` and `advance` run the model, and belong to one thread. Text goes in and out as `Document` values and
bytes; the protocol, its positions and its threads are left to the server.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.decode import Candidate, DecodeOptions, decode, distinct, keys_of
from lsp_charrnn.engine.filters import Surroundings, filtered
from lsp_charrnn.engine.stream import WARM_UP, Cancelled, Stream, never
from lsp_charrnn.errors import DocumentNotOpenError
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.symbols import header, normalise

PENDING: Final = 16  # edits kept for a stream that nobody asks: of more, the one nearest the start drops as much
KEPT: Final = 5  # candidates kept of one decoding: what cycling through them can show
LEAST_BUDGET_MS: Final = 10.0  # left for decoding, however long reading the text took
LEAST_REST: Final = 2  # bytes: a shorter rest takes as many keys to accept as to type
CONTEXT: Final = 4096  # bytes on either side of the cursor that the filters see


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

    offset: int  # where they were made for
    candidates: tuple[Candidate, ...]
    worthwhile: int  # so many of them are worth showing unasked
    typed: bytes = b""  # since, along the first

    def after(self, edit: Edit) -> _Shown | None:
        """Return what is left after `edit`, or None where it left the first candidate's path."""
        cursor = self.offset + len(self.typed)
        if edit.end != cursor or edit.start < self.offset:
            return None
        typed = self.typed[: edit.start - self.offset] + edit.new
        if not self.candidates or not self.candidates[0].text.startswith(typed):
            return None
        return _Shown(self.offset, self.candidates, self.worthwhile, typed)

    def rest(self, cursor: int) -> tuple[list[Candidate], int] | None:
        """Return the remainders at `cursor` and how many are worthwhile; None where there are none to go on with."""
        if cursor != self.offset + len(self.typed):
            return None
        if self.typed and self.candidates and len(self.candidates[0].text) - len(self.typed) < LEAST_REST:
            return None  # accepted, or typed to where it saves no key any more
        left = [
            (index, Candidate(c.text[len(self.typed) :], c.log_probability, c.keys))
            for index, c in enumerate(self.candidates)
            if c.text.startswith(self.typed) and len(c.text) > len(self.typed)
        ]
        return [candidate for _, candidate in left], sum(index < self.worthwhile for index, _ in left)


@dataclass
class _Open:
    """One open document. `document`, `pending` and `shown` are guarded by the session's lock."""

    document: Document
    header: bytes
    language: str
    pending: list[Edit] = field(default_factory=list)  # not told to the stream yet
    shown: _Shown | None = None
    cursor: int = 0  # where the last edit ended
    stream: Stream | None = None  # touched by the model thread only

    def taken(self) -> tuple[Document, list[Edit]]:
        """Return the newest text, and the edits since the last call: together, or a stream would miss one."""
        pending, self.pending = self.pending, []
        return self.document, pending


class Session:
    """The documents that are open, and their streams.

    `models` returns the model for a language id; it may load it, and may raise `ModelError`. `warm_up` is
    `stream.Stream`'s: None reads every text from its start.
    """

    def __init__(
        self,
        models: Callable[[str], Model],
        settings: Settings | None = None,
        *,
        warm_up: int | None = WARM_UP,
    ) -> None:
        self._models = models
        self._settings = settings if settings is not None else Settings()
        self._warm_up = warm_up
        self._lock = threading.Lock()  # held for notes only, never across model work
        self._open: dict[str, _Open] = {}

    def open(self, uri: str, document: Document, *, path: str, language: str) -> None:
        """Take note of a document; `path` is relative to its project. A second `open` replaces the first."""
        with self._lock:
            self._open[uri] = _Open(document, header(path), language)

    def edit(self, uri: str, document: Document, edits: Sequence[Edit]) -> None:
        """Take note that `edits`, one after another, made the text into `document`.

        Raises `DocumentNotOpenError`.
        """
        with self._lock:
            entry = self._entry(uri)
            if len(edits) == 1:
                edits = [edits[0].trimmed(entry.document.data)]
            entry.document = document
            entry.pending.extend(edits)
            if len(entry.pending) > PENDING:
                entry.pending = [min(entry.pending, key=lambda edit: edit.start)]
            for edit in edits:
                entry.cursor = edit.start + len(edit.new)
                if entry.shown is not None:
                    entry.shown = entry.shown.after(edit)

    def close(self, uri: str) -> None:
        """Forget a document and its state. Closing what isn't open does nothing."""
        with self._lock:
            self._open.pop(uri, None)

    def configure(self, settings: Settings) -> None:
        """Use `settings` from now on; a changed model takes effect with the next completion."""
        with self._lock:
            changed = settings.model != self._settings.model
            self._settings = settings
            for entry in self._open.values():
                entry.shown = None
                if changed:
                    entry.stream = None

    def document(self, uri: str) -> Document:
        """Return the newest text of an open document. Raises `DocumentNotOpenError`."""
        with self._lock:
            return self._entry(uri).document

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
        model = self._models(entry.language)
        with self._lock:
            document, pending = entry.taken()
            settings, shown = self._settings, entry.shown
        stream = self._stream(entry, model, pending)
        offset = min(max(offset, 0), len(document.data))
        rest = shown.rest(offset) if shown is not None else None
        reused = rest is not None
        if rest is None:
            try:
                shown = _decoded(stream, document, settings, offset, began, cancelled)
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
        """Read on to where the last edit ended, so that the next completion finds the state there.

        Model thread only. A document that has been closed meanwhile is left alone.
        """
        with self._lock:
            entry = self._open.get(uri)
        if entry is None:
            return
        model = self._models(entry.language)
        with self._lock:
            document, pending = entry.taken()
            cursor = entry.cursor
        stream = self._stream(entry, model, pending)
        try:
            stream.at(document.data, min(cursor, len(document.data)), cancelled)
        except Cancelled:
            return

    def _entry(self, uri: str) -> _Open:
        try:
            return self._open[uri]
        except KeyError:
            raise DocumentNotOpenError(
                f"the document {uri} is not open: send textDocument/didOpen for it first."
            ) from None

    def _stream(self, entry: _Open, model: Model, pending: Sequence[Edit]) -> Stream:
        """Return the document's stream, told of `pending`: it stands for the text that was taken with them."""
        stream = entry.stream
        if stream is None or stream.model is not model:
            entry.stream = None  # the old one has missed `pending`: it must not be left, should the new one fail
            stream = entry.stream = Stream(model, entry.header, warm_up=self._warm_up)
        else:
            for edit in pending:
                stream.edit(edit)
        return stream


def _decoded(
    stream: Stream,
    document: Document,
    settings: Settings,
    offset: int,
    began: float,
    cancelled: Callable[[], bool],
) -> _Shown:
    """Decode at `offset` of `document`, which `stream` stands for. Raises `Cancelled`."""
    snapshot = stream.at(document.data, offset, cancelled)
    around = Surroundings(
        normalise(document.data[max(0, offset - CONTEXT) : offset]),
        normalise(document.data[offset : offset + CONTEXT]),
    )
    options = DecodeOptions(
        lanes=settings.decode_lanes,
        budget_ms=max(LEAST_BUDGET_MS, settings.decode_budget_ms - _since(began)),
        max_chars=settings.decode_max_chars,
        temperature=settings.decode_temperature,
        single_line=bool(around.line_after.strip()),
    )
    # Sampled, and yet the same for the same text: cycling through candidates must not shuffle them.
    seed = zlib.crc32(around.before[-256:])
    found = decode(stream.model, snapshot, options, seed=seed, cancelled=cancelled)
    if cancelled():
        raise Cancelled
    # What a filter cuts saves fewer keys: the order is made anew.
    left = [(filtered(candidate.text, around), candidate.log_probability) for candidate in found]
    kept = distinct([Candidate(text, log_p, keys_of(text)) for text, log_p in left if text], options.cost)[:KEPT]
    worthwhile = sum(candidate.benefit(options.cost) > 0 for candidate in kept)
    newline = document.newline
    if newline != b"\n":
        kept = [Candidate(c.text.replace(b"\n", newline), c.log_probability, c.keys) for c in kept]
    return _Shown(offset, tuple(kept), worthwhile)


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
