"""The central invariant: any history of edits gives the same prediction as reading the text from its start."""

from __future__ import annotations

import functools
import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from scripted_model import CountingModel, random_weights, turns_true_after

from lsp_charrnn.engine import stream as stream_module
from lsp_charrnn.engine.stream import DENSE, PIECE, SPACING, SPARSE, WARM_UP, Cancelled, Snapshot, Stream
from lsp_charrnn.model import reference
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.symbols import header
from lsp_charrnn.train.export import build_onnx

HEADER = header("src/a.py")
SPEC = ModelSpec(layers=2, hidden=24, embedding=16)
TOLERANCE = 1e-5  # float32 sums in another order: a few ulp of logits near 10, not growing with the text

PIECES = ["\n", "\r\n", "\r", "\n", "\r", "\f", "\u2028", "\x85", "é", "中", "😀", "a", "x = 1", "    ", "return self"]
texts = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
shares = st.floats(0, 1)


@functools.cache
def float_model() -> Model:
    return Model(build_onnx(random_weights(SPEC), SPEC, quantise=False), SPEC)


@functools.cache
def int8_model() -> Model:
    spec = ModelSpec(layers=2, hidden=32, embedding=16)
    return Model(build_onnx(random_weights(spec, seed=1), spec, quantise=True), spec)


def symbols_of(data: bytes) -> npt.NDArray[np.int64]:
    """What the model reads of a text, said again without `text.symbols`."""
    return np.array(list(re.sub(rb"\r\n|\r", b"\n", data)), dtype=np.int64)


def from_scratch(model: Model, data: bytes, *, head: bytes = HEADER) -> Snapshot:
    """The slow reference: one symbol after another from the header's first to the text's last."""
    state = model.initial_state()
    for symbol in [*head, *symbols_of(data)]:
        logits, state = model.step(np.array([symbol], dtype=np.int64), state)
    return Snapshot(len(data), state, logits[0])


def assert_same(found: Snapshot, expected: Snapshot) -> None:
    np.testing.assert_allclose(found.state, expected.state, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=TOLERANCE)


def boundaries(data: bytes) -> list[int]:
    """The offsets between two characters."""
    return [at for at in range(len(data) + 1) if at == len(data) or data[at] & 0xC0 != 0x80]


class Histories(RuleBasedStateMachine):
    """Random histories of edits, jumps, completions and backspaces, with few and near snapshots."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, value in {"DENSE": 5, "SPARSE": 6, "SPACING": 4, "PIECE": 3}.items():
            self.patch.setattr(stream_module, name, value)
        self.model = float_model()

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(text=texts)
    def open(self, text: str) -> None:
        self.document = Document.from_text(text)
        self.stream = Stream(self.model, HEADER, warm_up=None)
        self.cursor = 0

    def place(self, share: float) -> int:
        places = boundaries(self.document.data)
        return places[round(share * (len(places) - 1))]

    def edit(self, edit: Edit) -> None:
        self.document = self.document.replace(edit)
        self.stream.edit(edit)
        self.cursor = edit.start + len(edit.new)

    def check(self, offset: int) -> None:
        found = self.stream.at(self.document.data, offset)
        assert found.offset == offset
        assert_same(found, from_scratch(self.model, self.document.data[:offset]))
        assert len(self.stream) <= 1 + 5 + 6

    @rule(at=shares)
    def complete(self, at: float) -> None:
        self.cursor = self.place(at)
        self.check(self.cursor)

    @rule()
    def complete_at_cursor(self) -> None:
        self.check(self.cursor)

    @rule(at=shares, end=shares, text=texts)
    def replace(self, at: float, end: float, text: str) -> None:
        start, stop = sorted((self.place(at), self.place(end)))
        self.edit(Edit(start, stop, text.encode()))

    @rule(at=shares, text=st.sampled_from(PIECES))
    def insert(self, at: float, text: str) -> None:
        self.edit(Edit(self.place(at), self.place(at), text.encode()))

    @rule(text=texts)
    def type(self, text: str) -> None:
        """Key by key, each half of a CRLF by itself, completing after each."""
        for character in text[:8]:
            self.edit(Edit(self.cursor, self.cursor, character.encode()))
            self.check(self.cursor)

    @rule(keys=st.integers(1, 8))
    def backspace(self, keys: int) -> None:
        for _ in range(keys):
            before = [at for at in boundaries(self.document.data) if at < self.cursor]
            if before:
                self.edit(Edit(before[-1], self.cursor, b""))
                self.check(self.cursor)

    @rule(at=shares, looks=st.integers(0, 12))
    def cancel(self, at: float, looks: int) -> None:
        try:
            self.stream.at(self.document.data, self.place(at), turns_true_after(looks))
        except Cancelled:
            self.cursor = self.place(at)

    @rule()
    def reopen(self) -> None:
        self.stream = Stream(self.model, HEADER, warm_up=None)


Histories.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=20)
TestHistories = Histories.TestCase


def test_a_history_equals_the_numpy_reference() -> None:
    weights = random_weights(SPEC)
    stream = Stream(float_model(), HEADER, warm_up=None)
    document = Document.from_text("def f(x):\r\n    return x\r\n" * 20)
    stream.at(document.data, 300)
    for edit in (Edit(100, 110, "naïve 😀".encode()), Edit(11, 11, b"\n"), Edit(10, 12, b"\r")):
        document = document.replace(edit)
        stream.edit(edit)
        found = stream.at(document.data, 250)
        symbols = np.concatenate((np.frombuffer(HEADER, np.uint8).astype(np.int64), symbols_of(document.data[:250])))
        logits, state = reference.read(weights, SPEC, symbols[:, None], np.zeros(found.state.shape, np.float32))
        np.testing.assert_allclose(found.logits, logits[-1, 0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.state, state, rtol=0, atol=1e-4)


LONG = b"".join(b"    value_%d = function(%d)\r\n" % (n, n * n) for n in range(4000))  # some 140,000 bytes


def counted(warm_up: int | None = None) -> tuple[CountingModel, Stream]:
    model = CountingModel(float_model())
    stream = Stream(model, HEADER, warm_up=warm_up)
    model.calls = model.symbols_read = 0
    return model, stream


def read_by(model: CountingModel, stream: Stream, data: bytes, offset: int) -> int:
    """Return how many symbols are read to be at `offset`."""
    before = model.symbols_read
    stream.at(data, offset)
    return model.symbols_read - before


def test_snapshots_are_bounded_and_near() -> None:
    model, stream = counted()
    stream.at(LONG, len(LONG))
    assert SPARSE / 2 <= len(stream) <= 1 + SPARSE + DENSE
    for offset in range(len(LONG) - 300, len(LONG)):  # typing leaves its trace, and not for ever
        stream.at(LONG, offset)
    assert len(stream) <= 1 + SPARSE + DENSE
    spacing = 2 * len(LONG) // (SPARSE // 2)
    for offset in range(1000, len(LONG), 10_007):
        assert read_by(model, stream, LONG, offset) <= spacing


def test_asking_backwards_does_not_crowd_out_the_rest() -> None:
    model, stream = counted(warm_up=16)
    for offset in range(9000, 3000, -7):  # going up, and typing a little everywhere
        stream.at(LONG, offset)
        stream.at(LONG, offset + 2)
    assert len(stream) <= 1 + 6000 // SPACING + 1 + DENSE
    stream.edit(Edit(3000, 3000, b""))
    stream.at(LONG, 3000)
    model.symbols_read = 0
    for offset in range(3010, 7000, 10):
        stream.at(LONG, offset)
    # The spacing is what it was: reading on leaves a snapshot at least every so many characters.
    assert read_by(model, stream, LONG, 4000) <= 32


def test_backspace_does_no_model_work() -> None:
    model, stream = counted()
    data = LONG[:3000]
    for offset in range(2940, 3001):
        stream.at(data, offset)
    model.calls = 0
    for offset in range(2999, 2939, -1):
        stream.edit(Edit(offset, offset + 1, b""))
        data = data[:offset]
        stream.at(data, offset)
    assert model.calls == 0


def test_the_places_asked_for_last_are_kept_longest() -> None:
    model, stream = counted()
    stream.at(LONG, 100)
    for offset in range(200, 200 + 3 * DENSE):
        stream.at(LONG, offset)
        assert read_by(model, stream, LONG, 100) == 0
    assert read_by(model, stream, LONG, 200) > 0


def test_a_key_reads_one_character() -> None:
    model, stream = counted(WARM_UP)
    data = LONG[:50_000]
    stream.at(data, len(data))
    for key in b"x = 1":
        stream.edit(Edit(len(data), len(data), bytes((key,))))
        data += bytes((key,))
        assert read_by(model, stream, data, len(data)) == 1


def test_an_edit_drops_the_snapshots_past_its_start_and_no_others() -> None:
    for start in (20, 25, 30, 31):
        model, stream = counted()
        data = LONG[:60]
        for offset in range(10, 51, 10):
            stream.at(data, offset)
        stream.edit(Edit(start, start + 2, b"y"))
        data = data[:start] + b"y" + data[start + 2 :]
        for offset in range(10, 51, 10):
            nearest = offset - 10 if offset - 10 <= start or offset > 30 else (start // 10) * 10
            expected = 0 if offset <= start else len(symbols_of(data[:offset])) - len(symbols_of(data[:nearest]))
            assert read_by(model, stream, data, offset) == expected, (start, offset)


@pytest.mark.parametrize("warm_up", [None, WARM_UP])
def test_cancelling_keeps_what_was_read(warm_up: int | None) -> None:
    model, stream = counted(warm_up)
    offset = 1000 if warm_up is None else 50_000
    data = LONG[:offset].replace(b"\r\n", b"\n\n")
    whole = offset if warm_up is None else WARM_UP
    looks = 9
    with pytest.raises(Cancelled):
        stream.at(data, offset, turns_true_after(looks))
    assert model.symbols_read == looks * PIECE  # within a piece
    # The exact path keeps what lies at its spacing, the warm-up all of it; neither begins again.
    assert read_by(model, stream, data, offset) <= whole - SPACING
    with pytest.raises(Cancelled):
        Stream(model, HEADER).at(data, offset, lambda: True)


def test_a_cancelled_warm_up_is_forgotten_by_an_edit_before_its_end() -> None:
    model, stream = counted(WARM_UP)
    data = LONG
    with pytest.raises(Cancelled):
        stream.at(data, 50_000, turns_true_after(5))
    stream.edit(Edit(49_000, 49_001, "é".encode()))
    data = data[:49_000] + "é".encode() + data[49_001:]
    fresh_model, fresh = counted(WARM_UP)
    assert read_by(model, stream, data, 50_000) == read_by(fresh_model, fresh, data, 50_000)


def test_a_cancelled_warm_up_far_away_is_no_beginning() -> None:
    model, stream = counted(WARM_UP)
    with pytest.raises(Cancelled):
        stream.at(LONG, 50_000, turns_true_after(5))
    model.symbols_read = 0
    stream.at(LONG, 100_000)
    assert model.symbols_read <= WARM_UP + 3


@given(offset=st.integers(0, len(LONG)), other=st.integers(-3 * WARM_UP, 3 * WARM_UP))
@settings(deadline=None, max_examples=40)
def test_the_warm_up_bounds_what_is_read(offset: int, other: int) -> None:
    model, stream = counted(WARM_UP)
    assert read_by(model, stream, LONG, offset) <= 2 * WARM_UP
    assert read_by(model, stream, LONG, min(max(offset + other, 0), len(LONG))) <= 2 * WARM_UP


@pytest.mark.parametrize("text", ["ab\r\nc😀é\n\r\r\n中x\r\n" * 8, "\r\n" * 60, "\n\r" * 60])
def test_a_warm_up_begins_between_characters_and_between_lines(text: str) -> None:
    data = text.encode()
    places = [at for at in boundaries(data) if data[at - 1 : at + 1] != b"\r\n"]
    for offset in places:
        begin = 0 if offset <= 32 else max(at for at in places if at <= offset - 16)
        _, stream = counted(warm_up=16)
        assert_same(stream.at(data, offset), from_scratch(float_model(), data[begin:offset]))


def test_no_place_is_read_from_a_state_that_knows_less_than_the_warm_up() -> None:
    """What a warm-up passes through has read too little for others: a jump near it must not begin there."""
    for place in range(48_900, 50_000, 50):
        model, stream = counted(WARM_UP)
        stream.at(LONG, 50_000)
        fresh_model, fresh = counted(WARM_UP)
        # Counted, not compared: random weights forget much sooner than trained ones.
        assert read_by(model, stream, LONG, place) == read_by(fresh_model, fresh, LONG, place)


def kl(p_logits: npt.NDArray[np.float32], q_logits: npt.NDArray[np.float32]) -> float:
    """Return the bits by which `q` misses `p`."""
    p, q = (
        logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64)) for logits in (p_logits, q_logits)
    )
    return float((np.exp(p) * (p - q)).sum() / np.log(2))


def test_int8_histories_predict_what_reading_from_scratch_predicts() -> None:
    """int8 scales its activations once a call, so pieces differ from the whole, by no more than design, section 4."""
    model = int8_model()
    random = np.random.default_rng(2)
    document = Document.from_text(LONG[:6000])
    stream = Stream(model, HEADER)
    losses = []
    for _ in range(40):
        start = int(random.integers(0, len(document.data)))
        edit = Edit(start, min(start + int(random.integers(0, 9)), len(document.data)), b"x = f(1)"[: start % 9])
        document = document.replace(edit)
        stream.edit(edit)
        found = stream.at(document.data, start)
        symbols = np.concatenate((np.frombuffer(HEADER, np.uint8), symbols_of(document.data[:start])))
        logits, _ = model.read(symbols[:, None].astype(np.int64), model.initial_state())
        losses.append(kl(logits[-1, 0], found.logits))
    assert max(losses) < 0.01
    assert sum(losses) / len(losses) < 0.001
