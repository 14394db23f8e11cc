"""The central invariant: any history of edits gives the same prediction as reading the text from its start.

Exactly where the stream is exact. Else to within what `agree` allows, once it has read enough: the models here have
random weights, which forget in some 30 characters what a trained model forgets in hundreds, so that small constants
do. What a trained model predicts is left to test_tolerance.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from itertools import product
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scripted_model import CountingModel, random_weights, turns_true_after

from lsp_charrnn.engine import stream as stream_module
from lsp_charrnn.engine.snapshots import AGREED, EXACT, Snapshots
from lsp_charrnn.engine.stream import (
    CHUNK_WARM_UP,
    DENSE,
    ENOUGH,
    PIECE,
    SPACING,
    WARM_UP,
    Cancelled,
    Snapshot,
    Stream,
    never,
)
from lsp_charrnn.model import reference
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.model.step import Logits, Model, State, Symbols
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.symbols import header
from lsp_charrnn.train.export import build_onnx

HEADER = header("src/a.py")
SPEC = ModelSpec(layers=2, hidden=24, embedding=16)
TOLERANCE = 1e-5  # float32 sums in another order: a few ulp of logits near 10, not growing with the text
SLACK = stream_module._LINE + 4  # a warm-up begins at a line's start, and within no character

PIECES = ["\n", "\r\n", "\r", "\n", "\r", "\f", "\u2028", "\x85", "é", "中", "😀", "a", "x = 1", "    ", "return self"]
texts = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
long_texts = st.builds(
    lambda seed, size: "".join(np.random.default_rng(seed).choice(PIECES, size=size)),
    st.integers(0, 999),
    st.integers(30, 250),
)
shares = st.floats(0, 1)


@functools.cache
def float_model() -> Model:
    return Model(build_onnx(random_weights(SPEC), SPEC, quantise=False), SPEC)


@functools.cache
def int8_model() -> Model:
    spec = ModelSpec(layers=2, hidden=32, embedding=16)
    return Model(build_onnx(random_weights(spec, seed=1), spec, quantise=True), spec)


class Unforgetting(Model):
    """Its state is a number that all symbols read have made, in their order: no two texts ever give the same."""

    def __init__(self) -> None:
        self.spec, self.name = ModelSpec(cell="rnn", layers=1, hidden=1, embedding=1), "unforgetting"

    def step(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        after = (state * 31 + symbols[None, None, :, None].astype(np.float32) + 1) % 65_521
        return np.repeat(after[0, 0], 256, axis=1), after

    def read(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        logits = np.empty((*symbols.shape, 256), dtype=np.float32)
        for at, row in enumerate(symbols):
            logits[at], state = self.step(row, state)
        return logits, state

    def advance(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        logits, state = self.read(symbols, state)
        return logits[-1], state


def symbols_of(data: bytes) -> npt.NDArray[np.int64]:
    """What the model reads of a text, said again without `text.symbols`."""
    return np.array(list(re.sub(rb"\r\n|\r", b"\n", data)), dtype=np.int64)


def from_scratch(model: Model, data: bytes, *, head: bytes = HEADER) -> Snapshot:
    """The slow reference: one symbol after another from the header's first to the text's last."""
    state = model.initial_state()
    for symbol in [*head, *symbols_of(data)]:
        logits, state = model.step(np.array([symbol], dtype=np.int64), state)
    return Snapshot(len(data), state, logits[0])


def true_states(model: Model, data: bytes, offsets: npt.NDArray[np.int64]) -> list[State]:
    """The states that reading from scratch goes through at `offsets`, ascending."""
    symbols, read, state = symbols_of(data), 0, from_scratch(model, b"").state
    states = []
    for offset in offsets:
        until = len(symbols_of(data[:offset]))
        if until > read:
            _, state = model.advance(symbols[read:until, None], state)
        states.append(state)
        read = until
    return states


def assert_same(found: Snapshot, expected: Snapshot) -> None:
    np.testing.assert_allclose(found.state, expected.state, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=TOLERANCE)


def difference(one: State, other: State) -> float:
    """Return by how much two states differ, as `agree` has it."""
    seen = one[:, 0] - other[:, 0] if one.shape[1] == 1 else np.tanh(one[:, 1]) - np.tanh(other[:, 1])
    return float(np.sqrt(np.mean(np.square(seen))))


def boundaries(data: bytes) -> list[int]:
    """The offsets between two characters."""
    return [at for at in range(len(data) + 1) if at == len(data) or data[at] & 0xC0 != 0x80]


def snapshots_of(stream: Stream) -> Snapshots:
    return stream._snapshots


class Writer(RuleBasedStateMachine):
    """A document under the hands of somebody who edits it anywhere, and takes it back."""

    stream: Stream

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.document = Document.from_text("")
        self.cursor = 0
        self.done: list[Edit] = []  # what undoes each edit
        self.undone: list[Edit] = []

    def teardown(self) -> None:
        self.patch.undo()

    def place(self, share: float) -> int:
        places = boundaries(self.document.data)
        return places[round(share * (len(places) - 1))]

    def apply(self, edit: Edit) -> Edit:
        """Apply `edit`, and return what undoes it."""
        back = Edit(edit.start, edit.start + len(edit.new), self.document.slice(edit.start, edit.end))
        self.document = self.document.replace(edit)
        self.stream.edit(edit)
        self.cursor = edit.start + len(edit.new)
        return back

    def edit(self, edit: Edit) -> None:
        self.done.append(self.apply(edit))
        self.undone = []

    def complete_at(self, offset: int) -> None:
        raise NotImplementedError

    @rule(at=shares)
    def complete(self, at: float) -> None:
        self.cursor = self.place(at)
        self.complete_at(self.cursor)

    @rule()
    def complete_at_cursor(self) -> None:
        self.complete_at(self.cursor)

    @rule(at=shares, text=st.sampled_from(["", *PIECES]))
    def insert(self, at: float, text: str) -> None:
        self.edit(Edit(self.place(at), self.place(at), text.encode()))

    @rule(at=shares, end=shares, longest=st.sampled_from([0, 8, 40, 10_000]), text=texts)
    def replace(self, at: float, end: float, longest: int, text: str) -> None:
        start = self.place(at)
        places = [place for place in boundaries(self.document.data) if start <= place <= start + longest]
        self.edit(Edit(start, places[round(end * (len(places) - 1))], text.encode()))

    @rule(at=shares, end=shares)
    def delete(self, at: float, end: float) -> None:
        self.replace(at, end, 30, "")

    @rule(text=texts)
    def type(self, text: str) -> None:
        """Key by key, each half of a CRLF by itself, completing after each."""
        for character in text[:8]:
            self.edit(Edit(self.cursor, self.cursor, character.encode()))
            self.complete_at(self.cursor)

    @rule(keys=st.integers(1, 8))
    def backspace(self, keys: int) -> None:
        for _ in range(keys):
            before = [at for at in boundaries(self.document.data) if at < self.cursor]
            if before:
                self.edit(Edit(before[-1], self.cursor, b""))
                self.complete_at(self.cursor)

    @precondition(lambda self: self.done)
    @rule()
    def undo(self) -> None:
        self.undone.append(self.apply(self.done.pop()))

    @precondition(lambda self: self.undone)
    @rule()
    def redo(self) -> None:
        self.done.append(self.apply(self.undone.pop()))


# --- an exact stream


class ExactHistories(Writer):
    """Random histories of edits, jumps, completions and backspaces, with few and near snapshots."""

    model = staticmethod(float_model)

    def __init__(self) -> None:
        super().__init__()
        for name, value in {"DENSE": 5, "SPARSE": 6, "SPACING": 4, "WARM_UP": 6, "PIECE": 3}.items():
            self.patch.setattr(stream_module, name, value)

    @initialize(text=texts)
    def open(self, text: str) -> None:
        self.document = Document.from_text(text)
        self.reopen()

    @rule()
    def reopen(self) -> None:
        self.stream = Stream(self.model(), HEADER, exact=True)

    def check(self, found: Snapshot, expected: Snapshot) -> None:
        assert_same(found, expected)

    def complete_at(self, offset: int) -> None:
        found = self.stream.at(self.document, offset)
        assert found.offset == offset
        assert found.since == EXACT
        self.check(found, from_scratch(self.model(), self.document.slice(0, offset)))
        assert len(self.stream) <= 1 + 5 + 6

    @rule(at=shares, looks=st.integers(0, 12))
    def cancel(self, at: float, looks: int) -> None:
        try:
            self.stream.at(self.document, self.place(at), turns_true_after(looks))
        except Cancelled:
            self.cursor = self.place(at)

    @rule(at=shares)
    def read_ahead(self, at: float) -> None:
        """What the other mode does in the background this one does not."""
        start = self.stream.at(self.document, 0)
        before = len(self.stream)
        self.stream.refine(self.document, self.place(at))
        self.stream.read_around(self.document, self.place(at), 1 << 18)
        self.stream.adopt(
            start,
            self.place(at),
            self.model().initial_state(),
            np.zeros(256, dtype=np.float32),
        )
        assert len(self.stream) == before


class Int8Histories(ExactHistories):
    """int8 says the same to the bit, however the text is cut into calls."""

    model = staticmethod(int8_model)

    def check(self, found: Snapshot, expected: Snapshot) -> None:
        np.testing.assert_array_equal(found.state, expected.state)
        np.testing.assert_array_equal(found.logits, expected.logits)


ExactHistories.TestCase.settings = settings(deadline=None, max_examples=30, stateful_step_count=20)
TestExactHistories = ExactHistories.TestCase
Int8Histories.TestCase.settings = settings(deadline=None, max_examples=25, stateful_step_count=20)
TestInt8Histories = Int8Histories.TestCase


# --- the stream as it is


class StrictModel(CountingModel):
    """Takes what the real model's types ask for, and nothing else."""

    def advance(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        assert symbols.size
        assert symbols.dtype == np.int64
        assert state.flags.c_contiguous
        assert state.shape == (self.spec.layers, self.spec.parts, symbols.shape[1], self.spec.hidden)
        return super().advance(symbols, state)


class Histories(Writer):
    """Edits between readings that are cancelled, resumed, overtaken, and at last left to settle.

    Known is what reading `known` bytes has made certain, for these weights.
    """

    network: Callable[[], Model] = staticmethod(float_model)
    known = 64
    most_readings = 60  # of the whole text, until it has settled
    constants: ClassVar = {
        "WARM_UP": 24,
        "ENOUGH": 96,
        "CHUNK_WARM_UP": 64,
        "CHUNK": (48, 96),
        "LANES": 4,
        "SPACING": 16,
        "DENSE": 5,
        "SPARSE": 200,
        "PIECE": 5,
        "_ROWS": 12,
        "_HEAD": 24,
        "_LINE": 8,
        "_SLACK": 16,
    }

    def __init__(self) -> None:
        super().__init__()
        for name, value in self.constants.items():
            self.patch.setattr(stream_module, name, value)
        self.model = StrictModel(self.network())

    @initialize(text=long_texts)
    def open(self, text: str) -> None:
        self.document = Document.from_text(text)
        self.stream = Stream(self.model, HEADER)

    def complete_at(self, offset: int) -> None:
        before = self.model.symbols_read
        found = self.stream.at(self.document, offset)
        assert found.offset == offset
        assert self.model.symbols_read - before <= 24 + 8 + 4
        assert len(self.stream) <= 1 + self.constants["DENSE"] + self.constants["SPARSE"]
        # Asked again, nothing is read.
        before = self.model.symbols_read
        assert self.stream.at(self.document, offset).state is found.state
        assert self.model.symbols_read == before

    def cancellable(self, work: Callable[[Callable[[], bool]], object], looks: int | None) -> bool:
        """Do `work`, and give it up after so many looks; return whether it came to its end."""
        try:
            work(never if looks is None else turns_true_after(looks))
        except Cancelled:
            return False
        return True

    looks = st.one_of(st.none(), st.integers(0, 40))

    @rule(at=shares, looks=st.integers(0, 8))
    def cancel(self, at: float, looks: int) -> None:
        offset = self.place(at)
        self.cancellable(lambda cancelled: self.stream.at(self.document, offset, cancelled), looks)

    @rule(at=shares, looks=looks)
    def refine(self, at: float, looks: int | None) -> None:
        offset = self.place(at)
        if self.cancellable(lambda cancelled: self.stream.refine(self.document, offset, cancelled), looks):
            assert self.stream.is_refined(offset)
            found = self.stream.at(self.document, offset)
            (expected,) = true_states(self.network(), self.document.data, np.array([offset]))
            assert difference(found.state, expected) <= 2 * AGREED or offset - found.since < self.known

    @rule(at=shares, text=long_texts)
    def paste(self, at: float, text: str) -> None:
        self.edit(Edit(self.place(at), self.place(at), text.encode()))

    @rule(at=shares, radius=st.integers(0, 800), looks=looks)
    def read_around(self, at: float, radius: int, looks: int | None) -> None:
        offset = self.place(at)
        self.cancellable(lambda cancelled: self.stream.read_around(self.document, offset, radius, cancelled), looks)

    @rule(at=shares, radius=st.integers(0, 800), looks=st.lists(st.integers(1, 20), max_size=4))
    def read_around_between_keys(self, at: float, radius: int, looks: list[int]) -> None:
        self.complete(at)
        for count in looks:
            self.edit(Edit(self.cursor, self.cursor, b"k"))
            self.complete_at(self.cursor)
            self.cancellable(
                lambda cancelled: self.stream.read_around(self.document, self.cursor, radius, cancelled), count
            )

    @rule(at=shares, text=st.text("ab\n(é", min_size=1, max_size=6), keys=st.integers(1, 6))
    def adopt(self, at: float, text: str, keys: int) -> None:
        """Decode, and type along."""
        after = self.place(at)
        snapshot = self.stream.at(self.document, after)
        state = snapshot.state
        first = self.document.slice(after - 1, after) == b"\r" and text[0] == "\n"
        if first:
            return  # it would be the other half of a line end
        offset = after
        for character in text[:keys]:
            self.edit(Edit(offset, offset, character.encode()))
            for symbol in character.encode():
                logits, state = self.model.step(np.array([symbol], dtype=np.int64), state)
            offset += len(character.encode())
            kept = self.stream._snapshots.find(after) is not None  # memory is short here
            self.stream.adopt(snapshot, offset, state, logits[0])
            if not kept:
                return
            before = self.model.symbols_read
            assert self.stream.at(self.document, offset).state is state
            assert self.model.symbols_read == before

    @rule(at=shares, radius=st.sampled_from([100, 400, 1 << 20]))
    def settle(self, at: float, radius: int) -> None:
        offset = self.place(at)
        before = self.model.symbols_read
        watch = self.model.on_run

        def no_livelock() -> None:
            assert self.model.symbols_read - before < self.most_readings * (self.document.size + 200)

        self.model.on_run = no_livelock
        self.stream.read_around(self.document, offset, radius)
        self.model.on_run = watch
        self.assert_settled(offset, radius)
        calls = self.model.calls
        self.stream.read_around(self.document, offset, radius)
        assert self.model.calls == calls, "it was settled"

    def assert_settled(self, offset: int, radius: int) -> None:
        snapshots = snapshots_of(self.stream)
        assert len(snapshots) <= 1 + self.constants["DENSE"] + self.constants["SPARSE"]
        radius = min(radius, (self.constants["SPARSE"] - 16) * 24 // 4)
        low, high = max(0, offset - radius), min(self.document.size, offset + radius)
        stops = np.clip([*snapshots.offsets, self.document.size], low, high)
        assert np.diff([low, *stops, high]).max() <= 24
        first = snapshots.last(
            low + 24
        )  # what lies before the window is not its business, nor whether that leads into it
        last = snapshots.last(high)
        assert not [index for index in snapshots.unlinked() if first < index <= last]
        if low == 0:
            assert snapshots.since(last) == EXACT
            assert not [index for index in snapshots.unlinked() if index <= last]

    @invariant()
    def knows_what_it_claims_to_know(self) -> None:
        snapshots = snapshots_of(self.stream)
        assert (np.diff(snapshots.offsets) > 0).all()
        assert snapshots.offsets[-1] <= self.document.size
        states = true_states(self.network(), self.document.data, snapshots.offsets)
        for index, state in enumerate(states):
            found = snapshots[index]
            if found.since == EXACT or found.offset - found.since >= self.known:
                assert difference(found.state, state) <= 2 * AGREED, (found.offset, found.since, snapshots.run(index))


class TightHistories(Histories):
    """With memory for a part of the text only."""

    constants: ClassVar = Histories.constants | {"SPARSE": 40}


class StubbornHistories(Histories):
    """With a model that forgets nothing: no two readings ever agree but by being the same."""

    network = Unforgetting
    known = 1 << 30


Histories.TestCase.settings = settings(deadline=None, max_examples=50, stateful_step_count=25)
TestHistories = Histories.TestCase
TightHistories.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)
TestTightHistories = TightHistories.TestCase
StubbornHistories.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)
TestStubbornHistories = StubbornHistories.TestCase


# --- one thing at a time, with the constants as they are

LONG = b"".join(b"    value_%d = function(%d)\r\n" % (n, n * n) for n in range(4000))  # some 140,000 bytes
UNIX = LONG.replace(b"\r\n", b"\n")
ANYWHERE = 1 << 20


class Editor:
    """A document, its stream, and what has been read for it."""

    def __init__(self, data: bytes, *, exact: bool = False, model: Model | None = None) -> None:
        self.model = CountingModel(float_model() if model is None else model)
        self.document = Document.from_text(data)
        self.stream = Stream(self.model, HEADER, exact=exact)
        self.model.calls = self.model.symbols_read = 0

    @property
    def snapshots(self) -> Snapshots:
        return snapshots_of(self.stream)

    @property
    def parted(self) -> int:
        return len(self.snapshots.unlinked())

    def edit(self, start: int, end: int, new: bytes) -> None:
        edit = Edit(start, end, new)
        self.document = self.document.replace(edit)
        self.stream.edit(edit)

    def at(self, offset: int, looks: int | None = None) -> Snapshot:
        return self.stream.at(self.document, offset, never if looks is None else turns_true_after(looks))

    def read_by(self, work: Callable[..., object], *arguments: int) -> int:
        """Return how many symbols are read by `work`."""
        before = self.model.symbols_read
        work(*arguments)
        return self.model.symbols_read - before

    def cost(self, offset: int) -> int:
        """Return how many symbols are read to be at `offset`."""
        return self.read_by(self.at, offset)

    def settle(self, offset: int = 0, radius: int = ANYWHERE) -> None:
        self.stream.read_around(self.document, offset, radius)

    def settle_for(self, looks: int, offset: int = 0) -> None:
        with pytest.raises(Cancelled):
            self.stream.read_around(self.document, offset, ANYWHERE, turns_true_after(looks))

    def assert_true(self) -> None:
        """Each snapshot is what reading from scratch gives, and each follows from the one before."""
        assert self.parted == 0
        for index, state in enumerate(true_states(float_model(), self.document.data, self.snapshots.offsets)):
            assert self.snapshots.since(index) == EXACT
            assert difference(self.snapshots[index].state, state) <= 2 * AGREED
        assert np.diff([*self.snapshots.offsets, self.document.size]).max() <= WARM_UP


def settled(data: bytes) -> Editor:
    editor = Editor(data)
    editor.settle()
    editor.model.symbols_read = 0
    return editor


def test_a_history_equals_the_numpy_reference() -> None:
    weights = random_weights(SPEC)
    editor = Editor(b"def f(x):\r\n    return x\r\n" * 20, exact=True)
    editor.at(300)
    for start, end, new in ((100, 110, "naïve 😀".encode()), (11, 11, b"\n"), (10, 12, b"\r")):
        editor.edit(start, end, new)
        found = editor.at(250)
        read = symbols_of(editor.document.slice(0, 250))
        symbols = np.concatenate((np.frombuffer(HEADER, np.uint8).astype(np.int64), read))
        logits, state = reference.read(weights, SPEC, symbols[:, None], np.zeros(found.state.shape, np.float32))
        np.testing.assert_allclose(found.logits, logits[-1, 0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.state, state, rtol=0, atol=1e-4)


# what an exact stream costs


def test_an_exact_stream_keeps_what_an_edit_leaves_and_no_more() -> None:
    for start in (20, 25, 30, 31):
        editor = Editor(LONG[:60], exact=True)
        for offset in range(10, 51, 10):
            editor.at(offset)
        editor.edit(start, start + 2, b"y")
        data = editor.document.data
        for offset in range(10, 51, 10):
            nearest = offset - 10 if offset - 10 <= start or offset > 30 else (start // 10) * 10
            expected = 0 if offset <= start else len(symbols_of(data[:offset])) - len(symbols_of(data[:nearest]))
            assert editor.cost(offset) == expected, (start, offset)


def test_the_snapshots_of_an_exact_stream_are_bounded_and_near() -> None:
    editor = Editor(LONG[:40_000], exact=True)
    editor.at(40_000)
    for offset in range(39_700, 40_001):  # typing leaves its trace, and not for ever
        editor.at(offset)
    assert len(editor.stream) <= 1 + 40_000 // SPACING + DENSE + 2
    for offset in range(1000, 40_000, 5_007):
        assert editor.cost(offset) <= WARM_UP


def test_an_exact_stream_goes_on_where_it_was_given_up() -> None:
    editor = Editor(UNIX, exact=True)
    with pytest.raises(Cancelled):
        editor.at(1000, looks=9)
    assert editor.model.symbols_read == 9 * PIECE
    assert editor.cost(1000) == 1000 - 9 * PIECE


# typing


def test_a_key_reads_one_character() -> None:
    for editor, offset in ((Editor(LONG), 50_000), (Editor(LONG), len(LONG)), (settled(UNIX[:9_000]), 4_000)):
        editor.at(offset)
        for key in b"x = 1":
            editor.edit(offset, offset, bytes((key,)))
            offset += 1
            assert editor.cost(offset) == 1


def test_a_line_end_typed_in_halves_is_one_symbol() -> None:
    editor = settled(b"x = 1\r\n" * 200)
    editor.at(700)
    for half, symbols in ((b"\r", 1), (b"\n", 0), (b"\n", 1)):
        editor.edit(700, 700, half) if half == b"\r" else editor.edit(701, 701, half)
        assert editor.cost(701 if half == b"\r" else 702) == symbols
        if half == b"\n" and symbols == 0:
            assert_same(editor.at(702), from_scratch(float_model(), editor.document.slice(0, 702)))
            editor.edit(701, 702, b"")
            editor.edit(700, 701, b"x")
            editor.at(701)


def test_backspace_does_no_model_work() -> None:
    editor = Editor(LONG[:3000])
    for offset in range(2940, 3001):
        editor.at(offset)
    editor.model.calls = 0
    for offset in range(2999, 2939, -1):
        editor.edit(offset, offset + 1, b"")
        editor.at(offset)
    assert editor.model.calls == 0


def test_what_is_adopted_is_not_read() -> None:
    editor = settled(UNIX[:9_000])
    snapshot = editor.at(5_000)
    state = snapshot.state
    for place, key in enumerate(b"self.x", start=5_000):
        editor.edit(place, place, bytes((key,)))
        logits, state = float_model().step(np.array([key], dtype=np.int64), state)
        editor.stream.adopt(snapshot, place + 1, state, logits[0])
        editor.model.calls = 0
        assert editor.at(place + 1).state is state
        assert editor.model.calls == 0
    assert editor.at(5_006).since == EXACT
    assert_same(editor.at(5_006), from_scratch(float_model(), editor.document.slice(0, 5_006)))
    editor.settle(5_006)
    editor.assert_true()


def test_nothing_is_adopted_from_before_the_snapshot_it_came_from() -> None:
    editor = settled(UNIX[:2_000])
    snapshot = editor.at(620)
    editor.edit(600, 640, b"")  # the snapshot that decoding began with is gone
    editor.stream.adopt(snapshot, 700, editor.model.initial_state(), np.zeros(256, dtype=np.float32))
    assert editor.snapshots.find(700) is None


def test_nothing_is_adopted_that_began_with_less_than_is_known_by_now() -> None:
    """Decoded from a cold start, then refined, then typed along: the state that was gone through is the cold one's."""
    editor = Editor(LONG)
    snapshot = editor.at(50_000)
    shaken = Snapshot(snapshot.offset, snapshot.state + np.float32(0.05), snapshot.logits, snapshot.since)
    editor.edit(50_000, 50_000, b"x")
    logits, state = float_model().step(np.array([ord("x")], dtype=np.int64), shaken.state)
    editor.stream.adopt(shaken, 50_001, state, logits[0])
    assert editor.snapshots.find(50_001) is None
    editor.stream.adopt(snapshot, 50_001, state, logits[0])
    assert editor.snapshots.find(50_001) is not None


def test_the_places_asked_for_last_are_kept_longest() -> None:
    editor = Editor(LONG)
    editor.at(100)
    for offset in range(200, 200 + 3 * DENSE):
        editor.at(offset)
        assert editor.cost(100) == 0
    assert editor.cost(200) > 0


def test_asking_backwards_does_not_crowd_out_the_rest() -> None:
    editor = Editor(LONG)
    for offset in range(9000, 3000, -7):  # going up, and typing a little everywhere
        editor.at(offset)
        editor.at(offset + 2)
    assert len(editor.stream) <= 1 + 2 * 6000 // WARM_UP + 2 + DENSE
    editor.settle(6000, 3000)
    for offset in range(3500, 8500, 10):
        assert editor.cost(offset) <= WARM_UP


# places that have not been read


@given(offset=st.integers(0, len(LONG)), other=st.integers(-3 * WARM_UP, 3 * WARM_UP))
@settings(deadline=None, max_examples=40)
def test_the_warm_up_bounds_what_is_read(offset: int, other: int) -> None:
    editor = Editor(LONG)
    assert editor.cost(offset) <= WARM_UP + SLACK
    assert editor.cost(min(max(offset + other, 0), len(LONG))) <= WARM_UP + SLACK


@pytest.mark.parametrize(
    "text", ["ab\r\nc😀é\n\r\r\n中x\r\n" * 8, "\r\n" * 60, "\n\r" * 60, "中😀" * 30, "abcdef" * 30]
)
def test_a_warm_up_begins_between_characters_and_where_a_line_does(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "WARM_UP", 16)
    monkeypatch.setattr(stream_module, "_LINE", 8)
    data = text.encode()
    places = [at for at in boundaries(data) if data[at - 1 : at + 1] != b"\r\n"]
    for offset in places:
        begin = 0 if offset <= 16 else max(at for at in places if at <= offset - 16)
        lines = [at for at in places if begin - 7 <= at <= offset - 16 and at > 0 and data[at - 1 : at] == b"\n"]
        begin = max(lines) if lines and offset > 16 else begin
        assert_same(Editor(data).at(offset), from_scratch(float_model(), data[begin:offset]))


def test_a_warm_up_begins_with_the_state_behind_the_imports() -> None:
    editor = Editor(UNIX)
    editor.at(700)
    found = editor.at(50_000)
    assert found.since <= 50_000 - WARM_UP
    assert_same(found, from_scratch(float_model(), UNIX[:700] + UNIX[found.since : 50_000]))


def test_no_place_is_read_from_a_state_that_knows_less_than_the_warm_up() -> None:
    """What a warm-up passes through has read too little for others: a jump near it must not begin there."""
    for place in range(48_900, 50_000, 50):
        editor = Editor(LONG)
        editor.at(50_000)
        # Counted, not compared: random weights forget much sooner than trained ones.
        assert editor.cost(place) == Editor(LONG).cost(place)


def test_refining_reads_enough_once() -> None:
    for offset, expected in ((300, 300), (50_000, ENOUGH)):
        editor = Editor(UNIX)
        editor.at(offset)
        assert not editor.stream.is_refined(offset) or offset <= WARM_UP
        read = editor.read_by(lambda offset=offset, editor=editor: editor.stream.refine(editor.document, offset))
        assert read <= expected + SLACK
        assert editor.stream.is_refined(offset)
        assert editor.read_by(lambda offset=offset, editor=editor: editor.stream.refine(editor.document, offset)) == 0
        (true_state,) = true_states(float_model(), UNIX, np.array([offset]))
        assert difference(editor.at(offset).state, true_state) <= AGREED
        editor.edit(offset, offset, b"x")
        assert editor.cost(offset + 1) == 1
        assert editor.stream.is_refined(offset + 1)


def test_refining_goes_on_after_keys_at_its_end() -> None:
    editor = Editor(UNIX)
    offset = 50_000
    total = 0
    keys = 0
    while keys < 200:
        editor.at(offset)
        before = editor.model.symbols_read
        try:
            editor.stream.refine(editor.document, offset, turns_true_after(3))
        except Cancelled:
            total += editor.model.symbols_read - before
        else:
            break
        editor.edit(offset, offset, b"x")
        offset += 1
        keys += 1
    assert 40 <= keys < 200, "it was given up at each key, and came to its end"
    assert total <= ENOUGH + SLACK + keys


# re-synchronisation


def test_an_edit_is_found_again_and_far_places_need_no_reading() -> None:
    for place in (0, 12_000, 12_001, 30_000):
        editor = settled(UNIX[:30_000])
        far = [editor.snapshots[index].offset for index in range(0, len(editor.stream), 8)]
        far = [offset for offset in far if abs(offset - place) > ENOUGH]
        assert len(far) >= 2
        editor.edit(place, place, b"import numpy as np\n")
        moved = [offset + 19 if offset > place else offset for offset in far]
        assert sum(editor.cost(offset) for offset in moved) == 0
        assert editor.read_by(editor.settle) <= ENOUGH
        editor.assert_true()


def test_a_jump_to_the_end_after_an_edit_at_the_top() -> None:
    editor = settled(UNIX)
    editor.edit(0, 0, b"x")
    assert editor.cost(editor.document.size) <= WARM_UP
    assert editor.cost(editor.document.size - 20_000) <= WARM_UP
    assert editor.cost(1) == 1


def test_undo_and_redo_cost_no_more_than_edits() -> None:
    editor = settled(UNIX[:30_000])
    word = editor.document.slice(15_000, 15_008)
    for start, end, new in ((15_000, 15_008, b"other"), (15_000, 15_005, word), (15_000, 15_008, b"other")):
        editor.edit(start, end, new)
        assert editor.read_by(editor.settle, start) <= ENOUGH
        editor.assert_true()


def test_an_edit_that_changes_nothing_parts_nothing() -> None:
    editor = settled(UNIX[:9_000])
    editor.edit(4_000, 4_000, b"")
    assert editor.parted == 0
    assert editor.read_by(editor.settle) == 0


def test_two_hundred_places_replaced() -> None:
    editor = settled(UNIX)
    places = [found.start() for found in re.finditer(b"function", UNIX)][::20]
    assert len(places) == 200
    for place in reversed(places):
        editor.edit(place, place + 8, b"g")
    assert editor.cost(editor.document.size) <= WARM_UP + SLACK
    assert editor.read_by(editor.settle) <= 1.1 * editor.document.size
    editor.assert_true()


def test_five_thousand_lines_pasted() -> None:
    editor = settled(UNIX[:30_000])
    pasted = UNIX + UNIX[:40_000]
    assert pasted.count(b"\n") >= 5_000
    editor.edit(15_000, 15_000, pasted)
    assert editor.cost(15_000 + len(pasted)) <= WARM_UP + SLACK
    lanes = len(pasted) // 2048 + 1
    assert editor.read_by(editor.settle, 15_000) <= len(pasted) + lanes * (CHUNK_WARM_UP + SLACK + ENOUGH)
    assert editor.parted == 0
    assert np.diff(editor.snapshots.offsets).max() <= WARM_UP
    # What lies behind it is found again.
    assert editor.cost(editor.document.size) <= WARM_UP


def test_everything_replaced_and_taken_back() -> None:
    editor = settled(UNIX[:20_000])
    editor.edit(0, 20_000, b"")
    assert len(editor.stream) == 1
    assert editor.cost(0) == 0
    editor.settle()
    editor.edit(0, 0, UNIX[:20_000])
    editor.settle()
    editor.assert_true()


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r", b"\n\r"])
def test_every_line_end_settles(newline: bytes) -> None:
    editor = settled(UNIX[:12_000].replace(b"\n", newline))
    editor.assert_true()
    at = editor.document.data.index(newline, 6_000)
    for start, end, new in ((at, at + len(newline), b""), (at, at, b"\r"), (at + 1, at + 1, b"\n"), (at, at + 1, b"")):
        editor.edit(start, end, new)
        editor.at(min(start + 1, editor.document.size))
        editor.settle(start)
        editor.assert_true()


def test_line_ends_that_an_edit_joins_or_parts_at_a_snapshot() -> None:
    """The halves of a line end on either side of a snapshot, or of an edit."""
    edits = ((601, 601, b"x"), (601, 602, b""), (600, 601, b"\r"), (602, 602, b"\n"))
    for offset, text, (start, end, new) in product(range(599, 605), (b"a\r\nb", b"\r\n\r\n", b"\n\r\n\r"), edits):
        editor = settled(UNIX[:600] + text + UNIX[600:1_000])
        editor.at(offset)
        editor.edit(start, end, new)
        for place in (start, start + 1, start + 2, start + 100):
            (expected,) = true_states(float_model(), editor.document.data, np.array([place]))
            assert difference(editor.at(place).state, expected) <= AGREED
        editor.settle(start)
        editor.assert_true()


def test_one_line_of_a_megabyte() -> None:
    editor = Editor(b"".join(b"f(%d)+" % n for n in range(115_000)))
    assert editor.document.size > 1_000_000
    middle = editor.document.size // 2
    assert editor.cost(middle) <= WARM_UP + SLACK
    assert editor.read_by(editor.settle, middle, 20_000) <= 3 * 40_000
    editor.edit(0, 0, "é".encode())
    assert editor.cost(middle + 2) == 0
    assert editor.cost(editor.document.size) <= WARM_UP + SLACK


def test_no_text_at_all() -> None:
    editor = Editor(b"")
    for _ in range(2):
        assert editor.cost(0) == 0
        assert editor.stream.is_refined(0)
        editor.stream.refine(editor.document, 0)
        editor.settle()
        assert editor.model.calls == 0
        assert len(editor.stream) == 1
        editor.edit(0, 0, b"x = 1\r\n")
        assert editor.cost(7) == 6
        editor.edit(0, 7, b"")
        editor.model.calls = 0


# what is under way


def test_cancelling_keeps_what_was_read() -> None:
    editor = Editor(UNIX)
    with pytest.raises(Cancelled):
        editor.at(50_000, looks=9)
    assert editor.model.symbols_read == 9 * PIECE  # within a piece
    assert editor.cost(50_000) <= WARM_UP + SLACK - 9 * PIECE
    with pytest.raises(Cancelled):
        editor.at(90_000, looks=0)


def test_a_cancelled_warm_up_is_forgotten_by_an_edit_before_its_end() -> None:
    editor = Editor(LONG)
    with pytest.raises(Cancelled):
        editor.at(50_000, looks=5)
    editor.edit(49_300, 49_301, "é".encode())
    fresh = Editor(editor.document.data)
    assert editor.cost(50_000) == fresh.cost(50_000)


def test_a_cancelled_warm_up_far_away_is_no_beginning() -> None:
    editor = Editor(LONG)
    with pytest.raises(Cancelled):
        editor.at(50_000, looks=5)
    assert editor.cost(100_000) <= WARM_UP + SLACK


def test_reading_around_goes_on_where_it_was_given_up() -> None:
    whole = Editor(UNIX[:60_000])
    whole.settle()
    for looks in (1, 7):
        editor = Editor(UNIX[:60_000])
        while True:
            try:
                editor.stream.read_around(editor.document, 0, ANYWHERE, turns_true_after(looks))
                break
            except Cancelled:
                pass
        assert editor.model.symbols_read == whole.model.symbols_read
        np.testing.assert_array_equal(editor.snapshots.offsets, whole.snapshots.offsets)


def test_lanes_go_on_when_text_before_or_behind_them_changes() -> None:
    fresh = Editor(UNIX[:40_000])
    whole = fresh.read_by(fresh.settle, 20_000)
    for start, end, new in ((0, 0, b"import re\n"), (100, 200, b""), (39_990, 39_995, b"")):
        editor = Editor(UNIX[:40_000])
        editor.settle_for(200, 20_000)
        half = editor.model.symbols_read
        lanes = len(editor.stream._lanes)
        editor.edit(start, end, new)
        editor.settle(20_000)
        assert half > 10_000
        assert editor.model.symbols_read <= whole + ENOUGH + CHUNK_WARM_UP + SLACK
        assert lanes > 8
        editor.assert_true()


def test_lanes_in_their_warm_up_go_on_behind_a_paste() -> None:
    editor = Editor(UNIX[:40_000])
    editor.settle_for(5, 20_000)
    assert sum(lane.follows is None for lane in editor.stream._lanes) > 8
    editor.edit(0, 0, UNIX[:5_000])
    before = [(lane.begin, lane.at) for lane in editor.stream._lanes if not lane.done]
    assert len(before) > 8
    assert min(before)[0] >= 5_000
    assert all(lane.at <= lane.warm for lane in editor.stream._lanes if lane.follows is None)
    editor.settle(20_000)
    editor.assert_true()


def test_a_text_settles_though_nothing_is_forgotten() -> None:
    """Each lane is read over by the one before it, and the whole is as if it had been read from its start."""
    model = Unforgetting()
    editor = Editor(UNIX[:12_000], model=model)
    editor.settle(6_000)
    editor.edit(3_000, 3_000, b"x")
    editor.settle(11_000)
    assert editor.parted == 0
    for index, state in enumerate(true_states(model, editor.document.data, editor.snapshots.offsets)):
        np.testing.assert_array_equal(editor.snapshots[index].state, state)


def test_a_lane_ends_where_an_edit_changes_what_it_has_read() -> None:
    for looks in (40, 200, 400):
        editor = Editor(UNIX[:40_000])
        editor.settle_for(looks, 20_000)
        for lane in list(editor.stream._lanes):
            for place in (lane.at, lane.at - 3, (lane.begin + lane.at) // 2, lane.begin, lane.begin + 1):
                editor.edit(place, place + 1, b"yz")
        editor.settle(20_000)
        editor.assert_true()


def test_a_lane_gives_way_to_what_is_read_meanwhile() -> None:
    """At a place that it has passed since its last snapshot, at its last snapshot, and right where it is."""
    for behind in (0, 1, 7, 127, 128):
        editor = Editor(UNIX[:6_000])
        editor.settle_for(20)  # pieces of 32 symbols
        first = editor.stream._lanes[0]
        place = first.at - behind
        assert first.follows is not None
        editor.at(place)
        editor.settle()
        assert_same(editor.at(place), from_scratch(float_model(), UNIX[:place]))
        editor.assert_true()


@pytest.mark.parametrize("order", [1, -1])
def test_a_lane_gives_way_to_one_that_ends_where_it_has_been(order: int) -> None:
    editor = Editor(UNIX[:3_000])
    ahead = editor.stream._on(editor.document, 0, 2_000)
    with pytest.raises(Cancelled):
        editor.stream._read([ahead], turns_true_after(5))
    behind = editor.stream._on(editor.document, 0, 100)
    editor.stream._read([ahead, behind][::order], never)
    assert editor.snapshots.offsets.tolist() == [0, 100]
    assert_same(editor.snapshots[1], from_scratch(float_model(), UNIX[:100]))


def test_a_lane_that_began_where_somebody_types_vouches_for_nothing() -> None:
    editor = settled(UNIX[:3_000])
    editor.edit(700, 700, b"x")
    editor.at(701)
    editor.settle_for(1, 701)
    assert editor.stream._lanes[0].begin == 701
    editor.edit(701, 701, b"y")
    state = editor.at(702).state
    read = editor.read_by(editor.settle, 702)
    assert editor.snapshots[editor.snapshots.find(702) or 0].state is state
    assert read >= editor.snapshots.next_offset(702) - 702, "from the new state, not from the one before the key"
    editor.assert_true()


def test_a_lane_that_began_at_the_top_does_not_count_it_twice() -> None:
    editor = Editor(UNIX[:3_000])
    editor.settle_for(0)
    editor.edit(0, 0, b"x")
    editor.settle()
    editor.assert_true()
    assert editor.snapshots.offsets[1] > 0


def test_lanes_of_another_place_are_left_for_those_of_this_one() -> None:
    editor = Editor(LONG * 8)
    far = editor.document.size - 10_000
    with pytest.raises(Cancelled):
        editor.stream.read_around(editor.document, 0, 100_000, turns_true_after(30))
    assert editor.read_by(editor.settle, far, 8_000) <= 40_000


# memory


def test_a_window_that_memory_does_not_hold_settles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "SPARSE", 96)
    editor = Editor(UNIX)
    for offset in (0, 60_000, 61_000, 59_000, len(UNIX)):
        editor.settle(offset)
        assert len(editor.stream) <= 1 + 96 + DENSE
        assert editor.read_by(editor.settle, offset) == 0


def test_what_cancelled_readings_leave_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "SPARSE", 140)
    editor = Editor(UNIX[:40_000])
    for offset in range(1_000, 40_000, 130):
        with pytest.raises(Cancelled):
            editor.at(offset, looks=2)
    editor.settle(20_000)
    assert editor.read_by(editor.settle, 20_000) == 0
    assert len(editor.stream) <= 1 + 140 + DENSE


def kl(p_logits: npt.NDArray[np.float32], q_logits: npt.NDArray[np.float32]) -> float:
    """Return the bits by which `q` misses `p`."""
    p, q = (
        logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64)) for logits in (p_logits, q_logits)
    )
    return float((np.exp(p) * (p - q)).sum() / np.log(2))


def test_int8_lanes_predict_what_reading_from_scratch_predicts() -> None:
    model = int8_model()
    random = np.random.default_rng(2)
    editor = Editor(LONG[:12_000], model=model)
    losses = []
    for _ in range(40):
        start = int(random.integers(0, editor.document.size))
        end = min(start + int(random.integers(0, 9)), editor.document.size)
        editor.edit(start, end, b"x = f(1)"[: start % 9])
        editor.settle(start)
        found = editor.at(start)
        symbols = np.concatenate((np.frombuffer(HEADER, np.uint8), symbols_of(editor.document.slice(0, start))))
        logits, _ = model.read(symbols[:, None].astype(np.int64), model.initial_state())
        losses.append(kl(logits[-1, 0], found.logits))
    assert max(losses) < 0.01
    assert sum(losses) / len(losses) < 0.001
