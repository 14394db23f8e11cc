"""The mixer is fitted to what serving will see: each byte costs in training what `engine.mixer.Mixture` gives it."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_charrnn.engine.contexts import KINDS, PLACE, keys_of_text
from lsp_charrnn.engine.memory import EMPTY, Counts, DocumentCounts, look_up
from lsp_charrnn.engine.mixer import CONTEXTS, EXPERTS, FEATURES, Mixer, Mixture, features
from lsp_charrnn.errors import CorpusError
from lsp_charrnn.model.files import load_model
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.model.step import Logits, Model, State, Symbols
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.text.symbols import header, to_symbols
from lsp_charrnn.train import mixing
from lsp_charrnn.train.corpus import SourceFile
from lsp_charrnn.train.mixing import Places, bits, fit, places_of, places_of_projects

Floats = npt.NDArray[np.float64]

SHIPPED = Path(__file__).parent.parent.parent / "models" / "python"

TEXT = """def area(width, height):
    \"\"\"The area, in m².\"\"\"
    return width * height


def größe(width):
    return area(width, width)


print(area(2, 3), area(4, 5))
"""
OTHERS = ("from shapes import area\n\nprint(area(1, 2))\n", "def height_of(box):\n    return box.height\n")
texts = st.lists(st.sampled_from(["wid", "th", "area(", "é", "\n", "    ", "return ", "x", "aaaa"]), max_size=25).map(
    "".join
)


class LastSymbol(Model):
    """What it expects depends on the last symbol alone; its state is that symbol."""

    def __init__(self, scale: float) -> None:
        self.spec, self.name = ModelSpec(cell="rnn", layers=1, hidden=1, embedding=1), "last symbol"
        self.logits = np.random.default_rng(0).normal(0, scale, (256, 256)).astype(np.float32)
        self.most_read = 0

    def read(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        assert state.shape == (1, 1, symbols.shape[1], 1)
        self.most_read = max(self.most_read, len(symbols))
        return self.logits[symbols], symbols[-1].reshape(1, 1, -1, 1).astype(np.float32)


class Remembering(LastSymbol):
    """What it expects depends on all it has read, so that a state that is lost between two calls is seen."""

    def read(self, symbols: Symbols, state: State) -> tuple[Logits, State]:
        logits, _ = super().read(symbols, state)
        sums = (np.cumsum(symbols, axis=0) + state[0, 0, :, 0].astype(np.int64)) % 997
        return logits * (1 + sums[:, :, None] / 997).astype(np.float32), sums[-1].reshape(1, 1, -1, 1).astype(
            np.float32
        )


MODELS = {"uniform": LastSymbol(0), "by the last symbol": LastSymbol(2), "by all symbols": Remembering(1)}


def random_mixer(seed: int = 0, units: int = 8) -> Mixer:
    rng = np.random.default_rng(seed)
    shapes = [(FEATURES, units), (units,), (units, EXPERTS), (FEATURES, EXPERTS), (EXPERTS,)]
    return Mixer(*(rng.normal(0, 0.2, shape).astype(np.float32) for shape in shapes))


def indifferent_mixer() -> Mixer:
    """A gate that trusts all alike."""
    return Mixer(*(np.zeros_like(getattr(random_mixer(), field.name)) for field in fields(Mixer)))


def source(text: str, path: str = "a.py", project: str = "p") -> SourceFile:
    return SourceFile(project, path, text.encode(), "python")


def logits_of(model: Model, file: SourceFile) -> Logits:
    """What the model expects at each byte of a file.  # [len(text), 256]"""
    head = header(file.path)
    logits, _ = model.read(to_symbols(head + file.text)[:, None], model.initial_state())
    return logits[len(head) - 1 : -1, 0]


@functools.cache
def project_counts(*texts_of_files: str) -> Counts:
    return Counts.of_texts(text.encode() for text in texts_of_files)


def cost(mixture: Mixture, logits: Logits, byte: int) -> float:
    """What a byte costs in bits, as serving has it."""
    return float(-mixture.expected(logits[None])[0, byte] / np.log(2))


# --- training is serving


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(("document", "project"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_byte_costs_what_serving_gives_it(model: Model, document: bool, project: bool) -> None:
    """Place by place: the model, the text before, and the other files."""
    file, mixer = source(TEXT, "src/a.py"), random_mixer()
    places = places_of(model, file, project_counts(TEXT, *OTHERS))
    found = bits(mixer, places, document=document, project=project)
    assert found.shape == (len(file.text),)
    of_project = [project_counts(*OTHERS)] if project else []
    for place, logits in enumerate(logits_of(model, file)):
        before = file.text[:place]
        of_document = [Counts.of_texts([before])] if document else []
        expected = cost(Mixture(mixer, of_document, of_project, before), logits, file.text[place])
        assert found[place] == pytest.approx(expected, abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(text=texts, others=st.lists(texts, max_size=2), seed=st.integers(0, 9))
def test_a_byte_of_any_text_costs_what_serving_gives_it(text: str, others: list[str], seed: int) -> None:
    model, file, mixer = MODELS["by the last symbol"], source(text), random_mixer(seed)
    found = bits(mixer, places_of(model, file, Counts.of_texts(other.encode() for other in [text, *others])))
    of_project = Counts.of_texts(other.encode() for other in others)
    expected = [
        cost(Mixture(mixer, [Counts.of_texts([before])], [of_project], before), logits, file.text[len(before)])
        for before, logits in zip(
            map(file.text.__getitem__, map(slice, range(len(file.text)))), logits_of(model, file), strict=True
        )
    ]
    assert np.allclose(found, expected, atol=1e-4)


def test_it_costs_the_same_when_it_is_typed_into_a_document() -> None:
    """With the document's memory as serving keeps it, and lanes that go on within a character."""
    model, file, mixer = MODELS["by all symbols"], source(TEXT), random_mixer()
    found = bits(mixer, places_of(model, file, project_counts(TEXT, *OTHERS)))
    logits = logits_of(model, file)
    document, memory = Document.from_text(""), DocumentCounts()
    memory.install(DocumentCounts.build(document, 0, 1 << 20), [])
    for character in TEXT:
        place, data = document.size, character.encode()
        mixture = Mixture(mixer, memory.at(document, place), [project_counts(*OTHERS)], file.text[:place])
        for index, byte in enumerate(data):
            assert found[place + index] == pytest.approx(cost(mixture, logits[place + index], byte), abs=1e-4)
            mixture.go_on(np.zeros(1, dtype=np.int64), np.array([byte]))
        edit = Edit(place, place, data)
        document = document.replace(edit)
        memory.edit(edit)


def test_the_experts_are_what_look_up_finds() -> None:
    file = source(TEXT)
    places = places_of(MODELS["uniform"], file, project_counts(TEXT, *OTHERS))
    assert (places.given[:, 0] == np.float32(1 / 256)).all()
    assert places.experts[:, 0].all()
    assert (places.given[~places.experts] == 0).all()
    for place in range(0, len(file.text), 7):
        contexts = keys_of_text(file.text)[:, place]
        for memory, table in enumerate((Counts.of_texts([file.text[:place]]), project_counts(*OTHERS))):
            found = look_up([[table]], contexts)
            for kind in range(KINDS):
                followed = dict(
                    zip(found.symbols[found.rows == kind].tolist(), found.counts[found.rows == kind], strict=True)
                )
                expert = 1 + memory * KINDS + kind
                assert places.experts[place, expert] == bool(followed)
                share = followed.get(file.text[place], 0) / max(1, sum(followed.values()))
                assert places.given[place, expert] == pytest.approx(share)


def check_causal(model: Model, data: bytes, cuts: Sequence[int]) -> None:
    """Change all from a place on, in the file and so in its project: before it nothing may change, to the bit."""
    mixer = random_mixer()

    def read(text: bytes) -> tuple[Places, list[npt.NDArray[np.float64]]]:
        project = Counts.of_texts([text, *map(str.encode, OTHERS)])
        places = places_of(model, SourceFile("p", "a.py", text, "python"), project)
        kept = itertools.product((True, False), repeat=2)
        return places, [bits(mixer, places, document=one, project=other) for one, other in kept]

    places, costs = read(data)
    for place in cuts:
        left = len(data) - place
        noise = np.random.default_rng(place).integers(0, 0xF8, left, dtype=np.uint8).tobytes()
        # Of the same length, for then the rows of a product are rounded alike.
        for tail in (noise, b"\n" * left, (data[: max(1, place)] * left)[:left], data[place:][::-1]):
            other, other_costs = read(data[:place] + tail)
            # What is known of a place before its byte comes: all but what was given to that byte.
            assert (other.seen[: place + 1] == places.seen[: place + 1]).all()
            assert (other.experts[: place + 1] == places.experts[: place + 1]).all()
            assert (other.given[:place] == places.given[:place]).all()
            for cost_now, cost_before in zip(other_costs, costs, strict=True):
                assert (cost_now[:place] == cost_before[:place]).all()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_comes_later_changes_nothing_to_the_bit(model: Model) -> None:
    """Neither what the gate sees nor what a byte costs depends on that byte or on what stands behind it."""
    data = TEXT.encode() * 4
    check_causal(model, data, (0, 1, 95, 96, 97, 255, 256, 300, len(data) - 2, len(data) - 1))


def test_what_comes_later_changes_nothing_that_the_shipped_model_gives() -> None:
    """It reads many symbols at once, and rounds them to int8: each by itself."""
    check_causal(load_model(SHIPPED), TEXT.encode() * 3, (1, 100, 253, 258, 400))


def test_what_all_bytes_are_given_is_one_together() -> None:
    """Whichever byte comes, its share is out of one: none is given away twice, and none is seen before it is given."""
    mixer, text = random_mixer(), TEXT[:60].encode()
    for place in (0, 7, 40, len(text)):
        total = 0.0
        for byte in range(256):
            longer = text[:place] + bytes((byte,))
            project = Counts.of_texts([longer, *map(str.encode, OTHERS)])
            places = places_of(MODELS["by the last symbol"], SourceFile("p", "a.py", longer, "python"), project)
            total += 2.0 ** -bits(mixer, places)[place]
        assert total == pytest.approx(1, abs=1e-4)


# --- counting for all places at once


def brute_so_far(text: bytes, kind: int) -> npt.NDArray[np.int64]:
    keys = keys_of_text(text)[kind].tolist()
    followed: dict[int, Counter[int]] = {}
    numbers = []
    for key, byte in zip(keys, text, strict=True):
        counts = followed.setdefault(key, Counter())
        numbers.append((counts.total(), len(counts), max(counts.values(), default=0), counts[byte]))
        counts[byte] += 1
    return np.array(numbers, dtype=np.int64).reshape(-1, 4).T


@settings(deadline=None)
@given(texts)
def test_what_came_before_in_the_same_context(text: str) -> None:
    data = text.encode()
    symbols = np.frombuffer(data, dtype=np.uint8).astype(np.uint64)
    for kind, contexts in enumerate(keys_of_text(data)):
        given_contexts = contexts.copy()
        assert (mixing._so_far(contexts, symbols) == brute_so_far(data, kind)).all()
        assert (contexts == given_contexts).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 255)), max_size=60))
def test_what_came_before_in_any_contexts(pairs: list[tuple[int, int]]) -> None:
    """Few contexts and any bytes: many that come again, in any order."""
    contexts = np.array([context << 8 for context, _ in pairs], dtype=np.uint64)
    symbols = np.array([byte for _, byte in pairs], dtype=np.uint64)
    followed: dict[int, Counter[int]] = {}
    for place, (context, byte) in enumerate(pairs):
        counts = followed.setdefault(context, Counter())
        expected = [counts.total(), len(counts), max(counts.values(), default=0), counts[byte]]
        assert mixing._so_far(contexts, symbols)[:, place].tolist() == expected
        counts[byte] += 1


@settings(deadline=None)
@given(text=texts, others=st.lists(texts, max_size=3))
def test_what_a_table_holds_of_each_place(text: str, others: list[str]) -> None:
    data = text.encode()
    symbols = np.frombuffer(data, dtype=np.uint8).astype(np.uint64)
    contexts = keys_of_text(data)
    table = Counts.of_texts(other.encode() for other in others)
    followed: dict[int, Counter[int]] = {}
    for key, number in zip(table.keys.tolist(), table.counts.tolist(), strict=True):
        followed.setdefault(key & ~0xFF, Counter())[key & 0xFF] = number
    found = mixing._in_table(table, contexts, symbols)
    assert found.shape == (4, KINDS, len(data))
    for kind in range(KINDS):
        for place in range(len(data)):
            counts = followed.get(contexts.item(kind, place), Counter())
            expected = [counts.total(), len(counts), max(counts.values(), default=0), counts[data[place]]]
            assert found[:, kind, place].tolist() == expected
    # And the same where more was in the table, and has been taken out.
    more = Counts.of_texts([data, *(other.encode() for other in others)])
    less = mixing._less(more, Counts.of_texts([data]))
    assert (mixing._in_table(less, contexts, symbols) == found).all()
    left = dict(zip(less.keys.tolist(), less.counts.tolist(), strict=True))
    assert {key: number for key, number in left.items() if number} == dict(
        zip(table.keys.tolist(), table.counts.tolist(), strict=True)
    )
    assert (more.counts > 0).all()  # it is the project's, and as it was


def test_nothing_is_in_an_empty_table() -> None:
    contexts = keys_of_text(b"abc")
    symbols = np.array([*b"abc"], dtype=np.uint64)
    assert not mixing._in_table(EMPTY, contexts, symbols).any()


# --- files and projects


def test_the_first_bytes_of_a_file_cost_the_same_without_the_rest() -> None:
    file, project = source(TEXT), project_counts(TEXT, *OTHERS)
    model = MODELS["by all symbols"]
    whole = places_of(model, file, project)
    for most in (0, 1, 50, len(file.text), 10_000):
        part = places_of(model, file, project, most=most)
        assert len(part) == min(most, len(whole))
        for field in fields(Places):
            assert np.allclose(getattr(part, field.name), getattr(whole, field.name)[:most], atol=1e-6)


def test_long_files_are_read_in_pieces() -> None:
    model = Remembering(1)
    file = source(TEXT * 6)
    places = places_of(model, file, Counts.of_texts([file.text]))
    assert model.most_read <= 256 < len(file.text)
    logits = logits_of(model, file).astype(np.float64)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert np.allclose(np.log(places.given[:, 0]), log_p[np.arange(len(file.text)), list(file.text)], atol=1e-4)


def test_each_file_is_predicted_with_the_others_of_its_project() -> None:
    model = MODELS["by the last symbol"]
    files = [
        source(TEXT, "a.py"),
        source(OTHERS[0], "b.py"),
        source(TEXT, "a.py", "q"),
        source("", "empty.py", "q"),
        source(OTHERS[1], "c.py", "q"),
    ]

    def same(found: Iterator[tuple[SourceFile, Places]], chosen: list[SourceFile]) -> bool:
        listed = list(found)
        assert [file for file, _ in listed] == chosen
        for file, places in listed:
            project = Counts.of_texts(one.text for one in files if one.project == file.project)
            expected = places_of(model, file, project)
            assert all((getattr(places, f.name) == getattr(expected, f.name)).all() for f in fields(Places))
        return True

    assert same(places_of_projects(model, files), files)
    chosen = [files[1], files[3]]
    assert same(places_of_projects(model, files, chosen=chosen), chosen)
    # The same text under the same name in another project has other neighbours.
    places = dict(enumerate(places for _, places in places_of_projects(model, files)))
    assert (places[0].given != places[2].given).any()
    first = next(iter(places_of_projects(model, files, most=10)))
    assert len(first[1]) == 10


# --- fitting


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "BATCH", 256)


def synthetic(count: int, *, memory_is_right: bool, seed: int = 0) -> Places:
    """The model knows nothing; in half of the places a context of the document was there, and says one byte."""
    rng = np.random.default_rng(seed)
    totals = np.zeros((CONTEXTS, count), dtype=np.int64)
    there = rng.random(count) < 0.5
    totals[2, there] = rng.integers(1, 9, there.sum())
    place = np.zeros((PLACE, count), dtype=np.float32)
    entropy, peak = np.full(count, 8, dtype=np.float32), np.full(count, 1 / 256, dtype=np.float32)
    given_bytes = np.zeros((count, EXPERTS), dtype=np.float32)
    given_bytes[:, 0] = 1 / 256
    given_bytes[there, 3] = memory_is_right
    experts = np.zeros((count, EXPERTS), dtype=np.bool_)
    experts[:, 0], experts[there, 3] = True, True
    return Places(features(place, entropy, peak, totals, np.sign(totals), totals), given_bytes, experts)


@pytest.mark.usefixtures("small_batches")
def test_a_memory_that_is_right_is_trusted() -> None:
    places = synthetic(2000, memory_is_right=True)
    known = places.experts[:, 3]
    before = bits(indifferent_mixer(), places)
    assert np.allclose(before[known], 1, atol=0.01)
    after = bits(fit([places], steps=200), places)
    assert after[known].mean() < 0.1
    assert np.allclose(after[~known], 8, atol=1e-4)
    # Where it isn't asked the model has all the weight.
    assert np.allclose(bits(fit([places], steps=20), places, document=False), 8, atol=1e-4)


@pytest.mark.usefixtures("small_batches")
def test_a_memory_that_is_wrong_is_not() -> None:
    places = synthetic(2000, memory_is_right=False)
    assert np.allclose(bits(indifferent_mixer(), places)[places.experts[:, 3]], 9, atol=0.01)
    assert bits(fit([places], steps=200), places).mean() < 8.1


@pytest.mark.usefixtures("small_batches")
def test_a_gate_learns_when_to_trust() -> None:
    """The same context is right where it was often there, and wrong where it was once."""
    right, wrong = (synthetic(2000, memory_is_right=is_right, seed=is_right) for is_right in (True, False))
    right.seen[:, -PLACE:] = 1  # whatever tells them apart
    found = fit([right, wrong], steps=300)
    known = [part.experts[:, 3] for part in (right, wrong)]
    assert bits(found, right)[known[0]].mean() < 0.5
    assert bits(found, wrong)[known[1]].mean() < 8.5


@pytest.mark.usefixtures("small_batches")
def test_real_text_costs_less_with_its_memories() -> None:
    model = MODELS["uniform"]
    files = [source(TEXT * 3, "a.py"), source("\n".join(OTHERS) + TEXT, "b.py")]
    places = [part for _, part in places_of_projects(model, files)]
    mixer = fit(places, steps=150)
    whole, without, alone = (
        np.concatenate([bits(mixer, part, document=kept, project=kept and other) for part in places]).mean()
        for kept, other in ((True, True), (True, False), (False, False))
    )
    assert whole < without < alone == pytest.approx(8, abs=1e-4)


@pytest.mark.usefixtures("small_batches")
def test_fitting_is_the_same_for_the_same_seed() -> None:
    places = [synthetic(300, memory_is_right=True), synthetic(200, memory_is_right=False, seed=1)]
    seen = [part.seen.copy() for part in places]
    told: list[tuple[int, float]] = []
    one = fit(places, steps=20, seed=3, progress=lambda *what: told.append(what))
    again, other = fit(places, steps=20, seed=3), fit(places, steps=20, seed=4)
    assert all((part.seen == before).all() for part, before in zip(places, seen, strict=True))
    for field in fields(Mixer):
        assert (getattr(one, field.name) == getattr(again, field.name)).all()
    assert (one.hidden != other.hidden).any()
    assert [step for step, _ in told] == list(range(1, 21))
    assert all(0 < bits_a_byte < 16 for _, bits_a_byte in told)
    # As `Mixer.of` takes them from a file.
    tensors = {field.name: getattr(one, field.name) for field in fields(Mixer)}
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    Mixer.of(tensors)


@pytest.mark.usefixtures("small_batches")
def test_an_expert_that_is_not_there_costs_nothing_while_fitting() -> None:
    places = synthetic(500, memory_is_right=True)
    alone = Places(places.seen, places.given, np.zeros_like(places.experts))
    alone.experts[:, 0] = True
    told: list[float] = []
    fit([alone], steps=5, progress=lambda _, bits_a_byte: told.append(bits_a_byte))
    assert told == pytest.approx([8] * 5, abs=1e-3)


def test_there_must_be_something_to_fit_it_to() -> None:
    empty = places_of(MODELS["uniform"], source(""), EMPTY)
    assert len(empty) == 0
    for nothing in ([], [empty], [empty, empty]):
        with pytest.raises(CorpusError, match="name a directory"):
            fit(nothing)
    for document, project in itertools.product((True, False), repeat=2):
        assert bits(random_mixer(), empty, document=document, project=project).shape == (0,)
