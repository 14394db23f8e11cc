"""The mixture is a weighted mean of those experts that there are, whatever the gate's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_model import ORIGIN, ScriptedModel, learned

from lsp_charrnn.engine.contexts import KINDS, ORDERS, PLACE, RUN, WORDS, keys_of_text, surroundings_in
from lsp_charrnn.engine.decode import DecodeOptions, decode
from lsp_charrnn.engine.memory import EMPTY, Counts
from lsp_charrnn.engine.mixer import (
    CONTEXTS,
    EXPERTS,
    FEATURES,
    OF_MODEL,
    Mixer,
    Mixture,
    entropy_of,
    features,
    probabilities,
    shipped_mixer,
)
from lsp_charrnn.engine.snapshots import Snapshot
from lsp_charrnn.model.step import Logits
from lsp_charrnn.text.symbols import header, to_symbols

Array = npt.NDArray[np.floating]

TEXT = b"def area(width, height):\n    return width * height\n\n\nprint(area(2, 3))\n"
OTHER = b"def width_of(box):\n    return box.width\n"
texts = st.lists(st.sampled_from(["wid", "th", "area(", "é", "\n", "    ", "return ", "x"]), max_size=12).map(
    lambda pieces: "".join(pieces).encode()
)


def random_mixer(seed: int = 0, units: int = 8) -> Mixer:
    """A gate whose weights say something, and mean nothing."""
    rng = np.random.default_rng(seed)
    shapes = [(FEATURES, units), (units,), (units, EXPERTS), (FEATURES, EXPERTS), (EXPERTS,)]
    return Mixer(*(rng.normal(0, 0.2, shape).astype(np.float32) for shape in shapes))


def biased_mixer(bias: Sequence[float]) -> Mixer:
    """A gate that sees nothing."""
    zeros = [np.zeros(shape, dtype=np.float32) for shape in [(FEATURES, 1), (1,), (1, EXPERTS), (FEATURES, EXPERTS)]]
    return Mixer(*[*zeros, np.array(bias, dtype=np.float32)])


def random_logits(lanes: int, seed: int = 0) -> Logits:
    return np.random.default_rng(seed).normal(0, 3, (lanes, 256)).astype(np.float32)


def log_softmax(logits: Logits) -> Array:
    wide = logits.astype(np.float64)
    return wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)


# --- weights


@settings(deadline=None)
@given(seed=st.integers(0, 999), places=st.integers(1, 6), scale=st.sampled_from([0.0, 1.0, 100.0]), data=st.data())
def test_weights_are_shares_of_the_experts_that_there_are(
    seed: int, places: int, scale: float, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    seen = (scale * rng.normal(size=(places, FEATURES))).astype(np.float32)
    experts = rng.random((places, EXPERTS)) < data.draw(st.floats(0, 1))
    experts[:, 0] = True  # the model always is
    weights = random_mixer(seed).weights(seen, experts)
    assert weights.shape == (places, EXPERTS)
    assert weights.dtype == np.float32
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert (weights >= 0).all()
    assert (weights[~experts] == 0).all()


def test_the_model_alone_has_all_the_weight() -> None:
    experts = np.zeros((3, EXPERTS), dtype=np.bool_)
    experts[:, 0] = True
    weights = random_mixer().weights(np.ones((3, FEATURES), dtype=np.float32), experts)
    assert weights.tolist() == experts.astype(float).tolist()


def test_the_gate_is_a_layer_of_rectified_units_with_a_linear_path_beside_it() -> None:
    mixer, rng = random_mixer(), np.random.default_rng(1)
    seen = rng.normal(size=(5, FEATURES)).astype(np.float32)
    there = rng.random((5, EXPERTS)) < 0.5
    there[:, 0] = True
    before = seen.copy()
    weights = mixer.weights(seen, there)
    assert (seen == before).all()
    for place in range(5):
        scores = mixer.bias + seen[place] @ mixer.direct
        for unit in range(len(mixer.hidden_bias)):
            scores = (
                scores + max(0.0, seen[place] @ mixer.hidden[:, unit] + mixer.hidden_bias[unit]) * mixer.output[unit]
            )
        odds = np.where(there[place], np.exp(scores), 0)
        assert np.allclose(weights[place], odds / odds.sum(), atol=1e-5)


# --- what the gate sees


def test_what_the_gate_sees_of_each_context() -> None:
    logits = random_logits(2)
    p = probabilities(logits)
    totals = np.zeros((CONTEXTS, 2), dtype=np.int64)
    distinct, largest = totals.copy(), totals.copy()
    totals[3, 0], distinct[3, 0], largest[3, 0] = 10, 3, 7
    totals[CONTEXTS - 1, 1], distinct[CONTEXTS - 1, 1], largest[CONTEXTS - 1, 1] = 4, 1, 4
    place = surroundings_in(b"a_b")[:, 1:]
    seen = features(place, entropy_of(p), p.max(axis=1), totals, distinct, largest)
    assert seen.shape == (2, FEATURES)
    assert seen.dtype == np.float32
    assert (seen[:, :PLACE] == place.T).all()
    of_contexts = seen[:, OF_MODEL:].reshape(2, -1, CONTEXTS)
    many = np.log1p(10)
    assert np.allclose(of_contexts[0, :, 3], [1, many, np.log1p(3), 0.7, 0.3 * many, 0])
    assert np.allclose(of_contexts[1, :, CONTEXTS - 1], [1, np.log1p(4), np.log(2), 1, 0, 1])
    # A context that was never seen has zeros throughout.
    of_contexts[0, :, 3] = of_contexts[1, :, CONTEXTS - 1] = 0
    assert not of_contexts.any()


def test_what_the_gate_sees_of_the_model_is_finite_however_sure_it_is() -> None:
    logits = np.full((3, 256), -100, dtype=np.float32)
    logits[0, 65] = 100
    logits[1] = 0
    logits[2, [65, 66]] = 0
    p = probabilities(logits)
    assert np.allclose(p.sum(axis=1), 1)
    entropy = entropy_of(p)
    assert np.allclose(entropy, [0, 8, 1], atol=1e-4)
    nothing = np.zeros((CONTEXTS, 3), dtype=np.int64)
    seen = features(surroundings_in(b"abc"), entropy, p.max(axis=1), nothing, nothing, nothing)
    assert np.isfinite(seen).all()
    # In all places the same memory stands for the same: nothing else depends on the place.
    assert (seen[:, OF_MODEL:] == 0).all()


# --- what is expected


def brute_mixture(mixer: Mixer, memories: Sequence[bytes], before: bytes, logits: Logits) -> Array:
    """Count by reading: what has followed each context wherever it stood in each memory's text.  # [256]"""
    p = np.exp(log_softmax(logits[None]))[0]
    contexts = keys_of_text(before + b"?")[:, -1]
    given = [p]
    numbers: list[tuple[int, int, int]] = []
    for text in memories:
        keys = keys_of_text(text)
        for kind in range(KINDS):
            followed = np.bincount(
                [text[place] for place in range(len(text)) if keys[kind, place] == contexts[kind]], minlength=256
            )
            numbers.append((int(followed.sum()), int((followed > 0).sum()), int(followed.max())))
            given.append(followed / max(1, followed.sum()))
    totals, distinct, largest = np.array(numbers).T[:, :, None]
    single = p[None].astype(np.float32)
    place = surroundings_in(before + b"?")[:, -1:]
    seen = features(place, entropy_of(single), single.max(axis=1), totals, distinct, largest)
    experts = np.concatenate(([[True]], totals.T > 0), axis=1)
    mixed: Array = mixer.weights(seen, experts)[0] @ np.array(given)
    return mixed


@settings(deadline=None, max_examples=40)
@given(before=texts, document=texts, project=texts, data=st.data())
def test_it_is_the_weighted_mean_of_what_has_followed(
    before: bytes, document: bytes, project: bytes, data: st.DataObject
) -> None:
    """Lane by lane, whatever lanes there are."""
    document, project = TEXT + document, OTHER + project
    mixer = random_mixer(data.draw(st.integers(0, 9)))
    mixture = Mixture(mixer, [Counts.of_texts([document])], [Counts.of_texts([project])], before)
    lanes = [before]
    for _ in range(data.draw(st.integers(1, 4))):
        logits = random_logits(len(lanes), data.draw(st.integers(0, 9)))
        given_logits = logits.copy()
        found = mixture.expected(logits)
        assert (logits == given_logits).all()  # they are the trail's
        assert found.dtype == np.float32
        assert found.shape == logits.shape
        p = np.exp(found.astype(np.float64))
        assert np.allclose(p.sum(axis=1), 1, atol=1e-5)
        for lane, text in enumerate(lanes):
            assert np.allclose(p[lane], brute_mixture(mixer, [document, project], text, logits[lane]), atol=1e-5)
        parents = data.draw(st.lists(st.integers(0, len(lanes) - 1), min_size=1, max_size=4))
        symbols = data.draw(st.lists(st.sampled_from(b"width(ar\n "), min_size=len(parents), max_size=len(parents)))
        mixture.go_on(np.array(parents), np.array(symbols))
        lanes = [lanes[parent] + bytes((symbol,)) for parent, symbol in zip(parents, symbols, strict=True)]


@pytest.mark.parametrize("tables", [(), (EMPTY,), (EMPTY, EMPTY), (Counts.of_texts([b"\x01\x02\x03\x04"]),)])
def test_without_anything_found_it_is_the_model(tables: Sequence[Counts]) -> None:
    for document, project in ((tables, ()), ((), tables), (tables, tables)):
        mixture = Mixture(biased_mixer([-50.0, *[50.0] * CONTEXTS]), document, project, b"x = ")
        logits = random_logits(3)
        mixture.go_on(np.zeros(3, dtype=np.int64), np.array([*b"abc"]))
        assert np.allclose(mixture.expected(logits), log_softmax(logits), atol=1e-5)


def test_a_memory_that_is_in_several_tables_is_their_sum() -> None:
    """As the document's is, after edits: what was counted, and what has changed."""
    now, gone = Counts.of_texts([TEXT]), Counts.of_texts([b"wid wid wid\n"])
    parts = (Counts.sum([(now, 1), (gone, 1)]), Counts.sum([(gone, -1)]))
    logits = random_logits(1)
    found = [
        Mixture(random_mixer(), tables, (), b"x = wid").expected(logits) for tables in ((now,), parts, parts[::-1])
    ]
    assert np.allclose(found[0], found[1], atol=1e-6)
    assert np.allclose(found[0], found[2], atol=1e-6)


@pytest.mark.parametrize("memory", [0, 1])
@pytest.mark.parametrize("kind", range(KINDS))
def test_the_order_of_the_experts(memory: int, kind: int) -> None:
    """The model, then the document's contexts, then the project's: who is trusted says what comes."""
    bias = np.zeros(EXPERTS)
    bias[1 + memory * KINDS + kind] = 50
    document, project = (Counts.of_texts([b"a_long_name = one_two(x)\n" + end]) for end in (b"!", b"?"))
    mixture = Mixture(biased_mixer(list(bias)), [document], [project], b"a_long_name = one_two(x)\n")
    found = mixture.expected(random_logits(1))
    assert np.argmax(found[0]) == b"!?"[memory]
    assert np.isclose(found[0].max(), 0, atol=1e-5)
    # Where only a part of the context was there, the shorter ones know it, and the model has the rest.
    mixture = Mixture(biased_mixer(list(bias)), [document], [project], b"\xc3\xa9(x)\n")
    known = kind in (*(index for index, order in enumerate(ORDERS) if order <= 4), RUN, WORDS)
    assert (np.exp(mixture.expected(random_logits(1)).max()) > 0.99) == known


# --- along the lanes of a decoding


class Watched(Mixture):
    """Keeps the contexts of all lanes whenever it is asked."""

    def __init__(self, mixer: Mixer, document: Sequence[Counts], project: Sequence[Counts], before: bytes) -> None:
        super().__init__(mixer, document, project, before)
        self.asked: list[list[list[int]]] = []

    def expected(self, logits: Logits) -> Logits:
        self.asked.append(self._lanes.keys().T.tolist())
        return super().expected(logits)


@pytest.mark.parametrize("temperature", [0.0, 0.6, 2.0])
def test_it_follows_the_lanes_of_a_decoding(temperature: float) -> None:
    model = ScriptedModel(learned(TEXT.decode(), OTHER.decode(), order=2).predict, context=128)
    before = b"def area(width):\n    return w"
    logits, state = model.read(to_symbols(header("a.py") + before)[:, None], model.initial_state())
    start = Snapshot(len(before), state, logits[-1, 0])
    mixture = Watched(random_mixer(), [Counts.of_texts([TEXT])], [Counts.of_texts([OTHER])], before)
    options = DecodeOptions(lanes=6, budget_ms=1e9, max_chars=25, temperature=temperature)
    decoding = decode(model, start, options, mixture=mixture, seed=1)
    lanes = [[before], *model.steps]
    assert len(mixture.asked) == len(lanes) > 5
    assert any(len(one) > 1 for one in lanes)
    for asked, texts_of_lanes in zip(mixture.asked, lanes, strict=True):
        assert asked == [keys_of_text(text.rpartition(ORIGIN)[2] + b"?")[:, -1].tolist() for text in texts_of_lanes]
    # What a candidate's probability is made of.
    for candidate in decoding.candidates[:3]:
        alone = Mixture(random_mixer(), [Counts.of_texts([TEXT])], [Counts.of_texts([OTHER])], before)
        log_p, text = 0.0, b"\xf8a.py\xf9" + before
        for symbol in candidate.text:
            log_p += log_softmax(alone.expected(model.logits(text)[None])).item(symbol)
            alone.go_on(np.zeros(1, dtype=np.int64), np.array([symbol]))
            text += bytes((symbol,))
        assert np.isclose(candidate.log_probability, log_p, atol=1e-3)


# --- weights in files


def tensors_of(mixer: Mixer) -> dict[str, npt.NDArray[np.float32]]:
    return {field.name: getattr(mixer, field.name) for field in fields(mixer)}


def test_weights_by_name_make_a_mixer() -> None:
    tensors = tensors_of(random_mixer())
    mixer = Mixer.of({name: tensor.astype(np.float16) for name, tensor in tensors.items()})
    for name, tensor in tensors_of(mixer).items():
        assert tensor.dtype == np.float32
        assert np.allclose(tensor, tensors[name], atol=1e-3)


@pytest.mark.parametrize("name", ["hidden", "hidden_bias", "output", "direct", "bias"])
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    tensors = tensors_of(random_mixer())
    for wrong in (tensors[name][:-1], tensors[name].T[:-1].T, tensors[name][None]):
        with pytest.raises(ValueError, match="has shape"):
            Mixer.of({**tensors, name: wrong})


def test_the_mixer_that_comes_with_the_package_has_the_right_shapes() -> None:
    mixer = shipped_mixer()
    assert mixer is shipped_mixer()
    assert mixer.hidden.shape == (FEATURES, len(mixer.hidden_bias))
    assert mixer.direct.shape == (FEATURES, EXPERTS)
    assert all(np.isfinite(tensor).all() for tensor in tensors_of(mixer).values())


def test_the_mixer_that_comes_with_the_package_trusts_a_long_context() -> None:
    mixture = Mixture(shipped_mixer(), [Counts.of_texts([TEXT * 3])], (), b"def area(width, hei")
    p = np.exp(mixture.expected(np.zeros((1, 256), dtype=np.float32)))[0]
    assert np.argmax(p) == ord("g")
    assert p.max() > 0.9
