"""Lanes, lengths and limits of decoding, against models whose probabilities are written down here."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_model import ScriptedModel, by_text, learned, random_weights, turns_true_after

from lsp_charrnn.engine import decode as decode_module
from lsp_charrnn.engine.decode import (
    DOUBT,
    GOES_ON,
    HORIZON,
    TOP_K,
    Candidate,
    DecodeOptions,
    Decoding,
    decode,
    distinct,
    keys_of,
)
from lsp_charrnn.engine.stream import Snapshot
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.symbols import UTF8_ALLOWED, header, to_symbols, utf8_start_state
from lsp_charrnn.train.export import build_onnx

WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") | frozenset(range(0x80, 0xF8))
UNHURRIED = 1e9  # milliseconds


def options(**changes: float | bool) -> DecodeOptions:
    return DecodeOptions(**{"budget_ms": UNHURRIED, **changes})  # type: ignore[arg-type]


def start_of(model: Model, before: bytes = b"") -> Snapshot:
    logits, state = model.read(to_symbols(header("a.py") + before)[:, None], model.initial_state())
    return Snapshot(len(before), state, logits[-1, 0])


def decoded(model: Model, *, seed: int = 0, before: bytes = b"", **changes: float | bool) -> list[Candidate]:
    start = start_of(model, before)
    if isinstance(model, ScriptedModel):
        model.steps.clear()
    return decode(model, start, options(**changes), seed=seed).candidates


def scattered(*, temperature: float = 1.5) -> ScriptedModel:
    """A model that may say anything: every byte, wrong UTF-8 and specials too, by the last two symbols."""
    return ScriptedModel(lambda text: _scattered(text[-2:], temperature), context=64)


@functools.cache
def _scattered(last: bytes, temperature: float) -> dict[int, float]:
    random = np.random.default_rng(list(last) or [0])
    weights = np.exp(random.normal(0, 3 / temperature, 256))
    weights[[*b" \n\r", 0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80]] *= 40
    return dict(enumerate(weights / weights.sum()))


@functools.cache
def tiny_model() -> Model:
    spec = ModelSpec(layers=2, hidden=16, embedding=16)
    return Model(build_onnx(random_weights(spec), spec, quantise=False), spec)


def log_softmax(logits: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits)


# --- lanes


@pytest.mark.parametrize("temperature", [0.0, 0.6, 3.0])
def test_lanes_are_never_the_same(temperature: float) -> None:
    model = scattered()
    for seed in range(5):
        decoded(model, seed=seed, lanes=6, temperature=temperature, max_chars=20)
        assert all(len(set(lanes)) == len(lanes) <= 6 for lanes in model.steps)
        assert any(len(lanes) == 6 for lanes in model.steps)


@pytest.mark.parametrize("temperature", [0.0, 0.6, 3.0])
def test_the_first_lane_is_greedy(temperature: float) -> None:
    model = scattered()
    decoded(model, lanes=4, temperature=temperature, max_chars=20)
    text = b""
    for lanes in model.steps:
        logits = model.logits(b"\xf8a.py\xf9" + text)
        allowed = UTF8_ALLOWED[utf8_start_state(text)].copy()
        allowed[ord("\r")] = False
        text += bytes((int(np.argmax(np.where(allowed, logits, -np.inf))),))
        assert lanes[0] == text


@pytest.fixture
def no_lane_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "HOPELESS", 0.0)


@pytest.mark.usefixtures("no_lane_is_given_up")
def test_at_temperature_0_it_is_beam_search() -> None:
    model = scattered()
    lanes, top_p = 5, 0.9
    decoded(model, lanes=lanes, temperature=0.0, top_p=top_p, max_chars=12)
    beam = [(0.0, b"")]
    assert len(model.steps) >= 5
    for step in model.steps:
        children: list[tuple[float, bytes]] = []
        for log_p, text in beam:
            log_q = log_softmax(model.logits(b"\xf8a.py\xf9" + text))
            allowed = UTF8_ALLOWED[utf8_start_state(text)]
            order = sorted((b for b in range(256) if allowed[b] and b != ord("\r")), key=lambda b: -log_q[b])
            total = sum(math.exp(log_q[b]) for b in order)
            mass = 0.0
            for byte in order:
                if mass > top_p * total:
                    break
                mass += math.exp(log_q[byte])
                children.append((log_p + log_q[byte], text + bytes((byte,))))
        greedy = children[0]  # the likeliest child of the likeliest child of ... the first
        beam = [greedy, *sorted(children[1:], key=lambda child: -child[0])[: lanes - 1]]
        assert step[0] == greedy[1]
        assert set(step) == {text for _, text in beam}


@pytest.mark.usefixtures("no_lane_is_given_up")
def test_a_temperature_next_to_0_is_0() -> None:
    model = scattered()
    beam = decoded(model, lanes=5, temperature=0.0, max_chars=12)
    assert decoded(model, lanes=5, temperature=1e-310, max_chars=12) == beam
    assert all(len(lanes) == 5 for lanes in model.steps)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_other_lanes_are_sampled_without_replacement(temperature: float) -> None:
    """Each text of two characters is among the lanes as often as drawing without putting back says."""
    first = {"(": 0.35, ")": 0.25, "[": 0.2, "]": 0.12, "{": 0.08}
    second = {"(": {"+": 0.6, "-": 0.3, "*": 0.1}, ")": {"+": 0.1, "-": 0.1, "*": 0.8}}
    other = {"+": 0.4, "-": 0.35, "*": 0.25}
    model = ScriptedModel(by_text({"": first, **second}, other))
    weights = {}
    for a, b in itertools.product(first, other):
        tempered_first = first[a] ** (1 / temperature) / sum(p ** (1 / temperature) for p in first.values())
        after = second.get(a, other)
        tempered_second = after[b] ** (1 / temperature) / sum(p ** (1 / temperature) for p in after.values())
        weights[(a + b).encode()] = tempered_first * tempered_second
    greedy = b"(+"
    rest = {text: weight / (1 - weights[greedy]) for text, weight in weights.items() if text != greedy}
    expected = {  # drawn first or, another having been drawn first, second
        text: p + sum(q * p / (1 - q) for u, q in rest.items() if u != text) for text, p in rest.items()
    }
    runs = 1500
    seen: Counter[bytes] = Counter()
    start = start_of(model)
    for seed in range(runs):
        model.steps.clear()
        decode(model, start, options(lanes=3, temperature=temperature, top_p=1.0, max_chars=2), seed=seed)
        lanes = model.steps[1]
        assert lanes[0] == greedy
        assert len(set(lanes)) == 3
        seen.update(lanes[1:])
    assert set(seen) <= set(rest)
    for text, probability in expected.items():
        deviation = math.sqrt(probability * (1 - probability) / runs)
        assert abs(seen[text] / runs - probability) < 4 * deviation, text


def test_a_lower_temperature_keeps_to_what_is_likely() -> None:
    model = ScriptedModel(by_text({}, {"(": 0.5, ")": 0.3, "[": 0.15, "]": 0.05}))

    def rare(temperature: float) -> int:
        count = 0
        for seed in range(300):
            decoded(model, seed=seed, lanes=2, temperature=temperature, top_p=1.0, max_chars=1)
            count += model.steps[0][1] == b"]"
        return count

    assert rare(0.3) < rare(1.0) / 3 < rare(5.0) / 3


def test_top_p_leaves_out_the_tail() -> None:
    model = ScriptedModel(by_text({}, {"(": 0.6, ")": 0.3, "[": 0.08, "]": 0.02}))
    for top_p, expected in ((0.85, b"()"), (0.95, b"()["), (0.5, b"(")):
        seen: set[int] = set()
        for seed in range(40):
            decoded(model, seed=seed, lanes=8, temperature=2.0, top_p=top_p, max_chars=3)
            seen.update(byte for lanes in model.steps for text in lanes for byte in text)
        assert seen == set(expected)


def test_as_many_symbols_as_lanes_are_not_all_that_is_sampled() -> None:
    flat = {chr(code): 1 / 20 for code in range(ord("!"), ord("!") + 20)}
    model = ScriptedModel(by_text({}, flat))
    seen = set()
    for seed in range(100):
        decoded(model, seed=seed, lanes=2, temperature=1.0, max_chars=1)
        seen.update(model.steps[0])
    assert len(seen) >= 18
    assert TOP_K >= 20


# --- texts


@pytest.mark.parametrize(
    "model", [scattered(), scattered(temperature=4.0), tiny_model()], ids=["sharp", "flat", "network"]
)
@pytest.mark.parametrize("seed", range(4))
def test_every_candidate_is_text_that_ends_well(model: Model, seed: int) -> None:
    start = start_of(model, b"x = ")
    found = decode(model, start, options(lanes=6, temperature=1.0, max_chars=24), seed=seed).candidates
    assert found
    for candidate in found:
        text = candidate.text.decode("utf-8")  # valid, or raises
        assert text.rstrip(" \t\n") == text.removesuffix(" ")  # of blanks one, after a token
        assert "\r" not in text
        assert 1 <= len(candidate.text) <= 24
        assert candidate.keys == keys_of(candidate.text)
        # The model's own sum along the text, symbol by symbol in one lane.
        log_p, logits, state = 0.0, start.logits, start.state
        for symbol in to_symbols(candidate.text):
            log_p += log_softmax(logits)[symbol]
            rows, state = model.step(np.array([symbol]), state)
            logits = rows[0]
        assert candidate.log_probability == pytest.approx(log_p, abs=1e-3)
        assert candidate.probability == pytest.approx(math.exp(log_p), rel=1e-3)
        if candidate.text[-1] in WORD:
            assert np.exp(log_softmax(logits))[sorted(WORD)].sum() <= GOES_ON + 1e-6
    for one, other in itertools.permutations(found, 2):
        assert not one.text.startswith(other.text)


def test_a_word_is_not_cut_where_it_goes_on() -> None:
    script = {"": {"f": 1.0}, "f": {"o": 0.97, "(": 0.03}, "fo": {"o": 0.97, "(": 0.03}, "foo": {"(": 0.52, "d": 0.48}}
    model = ScriptedModel(by_text(script, {"\n": 1.0}))
    texts = {candidate.text for candidate in decoded(model, lanes=4, temperature=0.0)}
    assert b"foo" in texts  # likelier to end there than not
    assert not texts & {b"f", b"fo"}


def test_a_single_line_holds_no_line_end() -> None:
    model = ScriptedModel(lambda _: {ord("\n"): 0.5, ord("\r"): 0.3, ord("x"): 0.1, ord("("): 0.1})
    found = decoded(model, lanes=4, temperature=1.0, single_line=True)
    assert found
    assert all(b"\n" not in text and b"\r" not in text for lanes in model.steps for text in lanes)
    decoded(model, lanes=4, temperature=1.0)
    assert any(b"\n" in text for lanes in model.steps for text in lanes)
    assert not any(b"\r" in text for lanes in model.steps for text in lanes)


@pytest.mark.parametrize("max_chars", [1, 2, 7])
def test_max_chars_is_never_passed(max_chars: int) -> None:
    model = ScriptedModel(by_text({}, {"é": 0.0, "+": 0.9, "(": 0.1}))
    found = decoded(model, max_chars=max_chars)
    assert len(model.steps) == max_chars
    assert max(len(candidate.text) for candidate in found) <= max_chars


def test_one_lane_is_enough() -> None:
    model = learned("print(value)\n")
    assert [c.text for c in decoded(model, lanes=1, before=b"print(")][:1] == [b"value)"]


# --- length


CHAIN = {  # "foo" at 0.9, then "(bar)" after it at half of that, then nothing known
    "": {"f": 0.9, "+": 0.1},
    "f": {"o": 1.0},
    "fo": {"o": 1.0},
    "foo": {"(": 0.5, " ": 0.25, "\n": 0.25},
    "foo(": {"b": 1.0},
    "foo(b": {"a": 1.0},
    "foo(ba": {"r": 1.0},
    "foo(bar": {")": 1.0},
}
NOISE = {chr(code): 1 / 60 for code in range(ord("A"), ord("A") + 60)}


@pytest.mark.parametrize(
    ("cost", "best"),
    # Doubted, 0.9 and 0.45 are 0.886 and 0.327. "foo": 0.886 * 2 - 0.114 * cost.  "foo(bar)": 0.327 * 7 - 0.673 * cost.
    # They meet at a cost of 0.925.
    [(0.0, b"foo(bar)"), (0.9, b"foo(bar)"), (0.95, b"foo"), (10.0, b"foo")],
)
def test_the_length_shown_has_the_largest_expected_benefit(cost: float, best: bytes) -> None:
    model = ScriptedModel(by_text(CHAIN, NOISE))
    found = decoded(model, cost=cost, lanes=4)
    assert found[0].text == best
    p, keys = (0.9, 3) if best == b"foo" else (0.45, 8)
    p **= 1 + DOUBT * keys
    assert found[0].benefit(cost) == pytest.approx(p * (keys - 1) - (1 - p) * cost, abs=1e-4)


def test_a_cost_makes_what_is_unlikely_not_worth_showing() -> None:
    model = ScriptedModel(by_text({"": {"f": 0.3, "+": 0.3, "-": 0.4}, "f": {"(": 1.0}}, NOISE))
    assert decoded(model, cost=0.0)[0].benefit(0.0) > 0
    assert max(candidate.benefit(3.0) for candidate in decoded(model, cost=3.0)) < 0  # and yet there for who asks
    assert len(model.steps) < 20  # and not looked for to the last


def test_lanes_without_hope_are_given_up_and_the_best_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ScriptedModel(by_text(CHAIN, NOISE))
    found = decoded(model, cost=0.0, lanes=4)
    lanes = sum(map(len, model.steps))
    monkeypatch.setattr(decode_module, "HOPELESS", 0.0)
    thorough = ScriptedModel(by_text(CHAIN, NOISE))
    assert decoded(thorough, cost=0.0, lanes=4)[0] == found[0]
    assert lanes < sum(map(len, thorough.steps))


@pytest.mark.parametrize("cost", [0.0, 3.0])
def test_it_stops_where_nothing_better_can_come(cost: float) -> None:
    model = ScriptedModel(by_text(CHAIN, NOISE))
    decoded(model, cost=cost, lanes=4)
    assert len(model.steps) < 20  # of 160


def test_a_far_end_is_still_looked_for() -> None:
    text = "abcdefghijklmnopqrstuvwxyz"[: HORIZON - 1] + "("
    assert decoded(learned("?\n" + text + "\n"), before=b"?\n")[0].text.startswith(text.encode())


def test_indentation_after_a_line_end_is_free() -> None:
    model = learned("if a:\n        go()\n    \tend\n")
    found = decoded(model, before=b"if a:", lanes=1, max_chars=13)
    assert [(c.text, c.keys) for c in found] == [(b"\n        go()", 5)]  # the line end and go()
    found = decoded(model, before=b"if a:\n    ", lanes=1, max_chars=8)
    assert [(c.text, c.keys) for c in found] == [(b"    go()", 8)]  # blanks of the cursor's own line are keys
    found = decoded(model, before=b"if a:", lanes=1, max_chars=22)
    assert [(c.text, c.keys) for c in found] == [(b"\n        go()\n    \tend", 9)]


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", 0), ("ab", 2), ("é", 1), ("中😀", 2), ("\n", 1), ("a\n\t  b c", 5), ("  a", 3), ("\n\n  \n", 3)],
)
def test_keys_of(text: str, keys: int) -> None:
    assert keys_of(text.encode()) == keys


@given(st.text(alphabet="ab \t\né😀(", max_size=20))
def test_keys_of_lines(text: str) -> None:
    first, *others = text.split("\n")
    assert keys_of(text.encode()) == len(first) + sum(1 + len(line.lstrip(" \t")) for line in others)


def test_characters_of_several_bytes_are_one_key() -> None:
    found = decoded(learned("# — né 😀!\n"), before=b"# ", lanes=1)
    assert found[0].text == "— né 😀!".encode()
    assert found[0].keys == 7


def test_distinct_keeps_the_better_of_two_on_one_path() -> None:
    ab, abc, x = (
        Candidate(b"ab", math.log(0.5), 2),
        Candidate(b"abc", math.log(0.4), 3),
        Candidate(b"x(", math.log(0.1), 2),
    )
    assert distinct([x, ab, abc], 0.0) == [abc, x]
    assert distinct([x, ab, abc], 5.0) == [ab, x]
    assert distinct([], 0.0) == []


# --- limits


def with_clock(model: ScriptedModel, *, step_ms: float, budget_ms: float) -> Decoding:
    now = 0.0

    def tick() -> None:
        nonlocal now
        now += step_ms / 1000

    start = start_of(model)
    model.steps.clear()
    model.on_run = tick
    try:
        return decode(model, start, options(budget_ms=budget_ms, lanes=2), clock=lambda: now)
    finally:
        model.on_run = lambda: None


@pytest.mark.parametrize(("budget_ms", "steps"), [(45, 5), (5, 1), (74, 8)])
def test_the_budget_ends_it_with_what_is_ready(budget_ms: float, steps: int) -> None:
    model = ScriptedModel(by_text({}, {"+": 0.99, "(": 0.01}))
    found = with_clock(model, step_ms=10, budget_ms=budget_ms).candidates
    assert len(model.steps) == steps
    assert found[0].text == b"+" * steps


def test_cancelling_ends_it_within_a_step() -> None:
    model = ScriptedModel(by_text({}, {"+": 0.99, "(": 0.01}))
    for looks in range(4):
        start = start_of(model)
        model.steps.clear()
        found = decode(model, start, options(lanes=2), cancelled=turns_true_after(looks)).candidates
        assert len(model.steps) == looks
        assert [c.text for c in found][:1] == ([b"+" * looks] if looks else [])


def test_equal_arguments_give_equal_answers() -> None:
    model = scattered()
    ask: Callable[[int], list[Candidate]] = lambda seed: decoded(model, seed=seed, temperature=1.0, max_chars=16)  # noqa: E731
    assert ask(7) == ask(7)
    assert len({tuple(c.text for c in ask(seed)) for seed in range(5)}) > 1


# --- what is looked up rather than computed


@pytest.mark.parametrize("single_line", [False, True])
def test_no_lane_holds_what_nobody_types(single_line: bool) -> None:
    """At a top-p of 1 nothing but the rules leaves a symbol out, however few may follow (16 after F4)."""
    model = ScriptedModel(lambda text: {0xF4: 0.2, 0xE0: 0.2, 0xC3: 0.1, 0x0D: 0.2, 0x07: 0.1, 0xF8: 0.1, 0x0A: 0.1})
    for temperature in (0.0, 1.0):
        decoded(model, lanes=40, temperature=temperature, top_p=1.0, max_chars=6, single_line=single_line)
        for text in (text for lanes in model.steps for text in lanes):
            text.decode("utf-8", errors="strict" if utf8_start_state(text) == 0 else "ignore")
            assert all(UTF8_ALLOWED[utf8_start_state(text[:at]), byte] for at, byte in enumerate(text))
            assert all(byte >= 0x20 or byte in b"\t\n\f" for byte in text)
            assert not (single_line and b"\n" in text)


@given(st.lists(st.sampled_from(["a", "_", " ", "  ", "\t", "\n", "\f", "é", "中", "😀", "(", "9"]), max_size=8))
def test_keys_and_ends_are_those_of_the_text(pieces: list[str]) -> None:
    text = "".join(pieces).encode()
    model = learned("?" + text.decode() + "(" * 20, order=64)  # so that all before decides what follows
    best: list[tuple[bytes, float]] = []  # so far: what is certain is the better the longer
    for length in range(1, len(text) + 1):
        made, following = text[:length], (text + b"(")[length]
        if (
            utf8_start_state(made) == 0
            and not made.endswith((b"\n", b"\t", b"\n ", b"\t ", b"  "))
            and not (made[-1] in WORD and following in WORD)
        ):
            best = [(made, keys_of(made))]
        found = decoded(model, before=b"?", lanes=1, max_chars=length)
        assert [(c.text, c.keys) for c in found] == best


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_forbidden_symbol_may_be_likelier_by_any_amount(temperature: float) -> None:
    """The end of the document, say, by more than a float32's exponential holds."""
    model = ScriptedModel(by_text({}, {"+": 0.9, "(": 0.1}))
    certain = model.logits

    def shifted(text: bytes) -> np.ndarray:  # type: ignore[type-arg]
        logits = certain(text).copy()
        logits[0xF8] = 300.0
        return logits

    model.logits = shifted  # type: ignore[method-assign]
    found = decoded(model, lanes=3, temperature=temperature, max_chars=4)
    assert len(model.steps) >= 1
    assert all(math.isfinite(c.log_probability) and c.probability < 1e-30 for c in found)


# --- paths


def along(model: Model, start: Snapshot, text: bytes) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """The states [layers, parts, len(text), hidden] and logits after each symbol, read one after another."""
    state, states, rows = start.state, [], []
    for symbol in to_symbols(text):
        logits, state = model.step(np.array([symbol]), state)
        states.append(state[:, :, 0])
        rows.append(logits[0])
    return np.stack(states, axis=2), np.stack(rows)


def assert_paths(model: Model, start: Snapshot, found: Decoding, *, tolerance: float = 0.0) -> None:
    """Every beginning of every candidate has the path that reading it gives."""
    for candidate in found.candidates:
        states, logits = along(model, start, candidate.text)
        for length in range(1, len(candidate.text) + 1):
            path = found.path(candidate.text[:length])
            assert path is not None
            assert path.states.dtype == path.logits.dtype == np.float32
            assert path.states.flags.c_contiguous
            assert path.states.flags.owndata
            assert path.logits.flags.c_contiguous
            assert path.logits.flags.owndata
            np.testing.assert_allclose(path.states, states[:, :, :length], rtol=0, atol=tolerance)
            np.testing.assert_allclose(path.logits, logits[:length], rtol=0, atol=tolerance)


@functools.cache
def int8_model() -> Model:
    spec = ModelSpec(layers=2, hidden=32, embedding=16)
    return Model(build_onnx(random_weights(spec), spec, quantise=True), spec)


@pytest.mark.parametrize("lanes", [1, 3, 8])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_path_is_what_reading_the_text_gives(lanes: int, temperature: float) -> None:
    for model, tolerance in ((tiny_model(), 1e-5), (int8_model(), 0.05)):
        start = start_of(model, b"x = ")
        found = decode(model, start, options(lanes=lanes, temperature=temperature, max_chars=24), seed=3)
        assert found.candidates
        assert_paths(model, start, found, tolerance=tolerance)


def test_a_path_of_a_scripted_model_is_exact() -> None:
    model = scattered()
    start = start_of(model)
    for seed in range(4):
        found = decode(model, start, options(lanes=6, temperature=1.0, max_chars=20), seed=seed)
        assert len(found.candidates) > 1
        assert_paths(model, start, found)


def test_a_text_that_no_lane_went_along_has_no_path() -> None:
    model = learned("print(value)\n")
    found = decode(model, start_of(model, b"print("), options(lanes=2, max_chars=6))
    assert found.path(b"value)") is not None
    assert found.path(b"value)\n") is None  # further than it was looked
    assert found.path(b"valve") is None
    assert found.path(b"alue)") is None
    nothing = found.path(b"")
    assert nothing is not None
    assert nothing.states.shape[2] == len(nothing.logits) == 0


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_a_decoding_cut_short_has_the_paths_it_went(looks: int) -> None:
    model = ScriptedModel(by_text({}, {"+": 0.99, "(": 0.01}))
    start = start_of(model)
    found = decode(model, start, options(lanes=2), cancelled=turns_true_after(looks))
    assert_paths(model, start, found)
    assert (found.path(b"+" * looks) is None) == (found.path(b"+" * (looks + 1)) is not None)
    assert found.path(b"+" * (looks + 1)) is None
    hurried = with_clock(model, step_ms=10, budget_ms=25)
    assert [c.text for c in hurried.candidates][:1] == [b"+++"]
    assert_paths(model, start, hurried)


def test_a_path_keeps_nothing_else_alive() -> None:
    model = tiny_model()
    found = decode(model, start_of(model), options(lanes=8, temperature=1.0, max_chars=24))
    path = found.path(found.candidates[0].text)
    assert path is not None
    assert path.states.base is None
    assert path.logits.base is None
