"""The loop learns, is reproducible, and loses nothing when it is stopped, killed or given nonsense."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lsp_charrnn.config import TrainOptions
from lsp_charrnn.errors import CorpusError, SettingError
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import header
from lsp_charrnn.train import loop
from lsp_charrnn.train.checkpoint import load_checkpoint
from lsp_charrnn.train.loop import CHECKPOINT_FILE, heldout_bits_of, judging, train
from lsp_charrnn.train.network import CharRnn

SPEC = ModelSpec("lstm", layers=1, hidden=16, embedding=8)
OPTIONS = TrainOptions(steps=20, batch=3, bptt=16, lr=1e-2, checkpoint_every=5, device="cpu")


def a_document(text, path="a.py"):
    return np.frombuffer(header(path) + text, dtype=np.uint8)


DOCUMENTS = [a_document(bytes(97 + (i * n) % 26 for i in range(40 + 7 * n)), f"{n}.py") for n in range(7)]
HELD_OUT = [a_document(b"abcabcabcabcabc", "held.py")]


class KilledError(Exception):
    pass


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch):
    """Nearly all the time of these tiny runs would go into samples."""
    draw = loop.draw
    monkeypatch.setattr(loop, "draw", lambda *arguments, **options: draw(*arguments, **{**options, "length": 8}))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_repeated_text_is_learned(tmp_path, cell):
    documents = [a_document(b"def f(x): return x\n" * 12)] * 8
    options = replace(OPTIONS, steps=300, batch=8, bptt=32, lr=2e-2, checkpoint_every=150)
    result = train(replace(SPEC, cell=cell, hidden=32), documents, documents[:1], options, tmp_path)
    assert result.finished
    assert result.facts["heldout_bits"] < 1.5  # untrained 8; without context, 3.4


def test_equal_seeds_give_equal_weights(tmp_path):
    one, other, third = (
        train(SPEC, DOCUMENTS, HELD_OUT, replace(OPTIONS, seed=seed), tmp_path / str(n)).weights
        for n, seed in enumerate((4, 4, 5))
    )
    assert same(one, other)
    assert not same(one, third)


@pytest.mark.parametrize("cell", ["lstm", "coupled", "gru"])
@pytest.mark.parametrize("stops", [(1,), (5,), (8, 9, 17)])
def test_stopped_and_resumed_is_as_undisturbed_to_the_bit(tmp_path, cell, stops):
    spec = replace(SPEC, cell=cell)
    undisturbed = train(spec, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "one")
    steps = []
    for number, stop_at in enumerate(stops):
        result = train(
            spec,
            DOCUMENTS,
            HELD_OUT,
            OPTIONS,
            tmp_path / "two",
            resume=number > 0,
            stop=lambda at=stop_at: len(steps) == at,
            show=lambda progress: steps.append(progress.step),
        )
        assert not result.finished
        assert load_checkpoint(tmp_path / "two" / CHECKPOINT_FILE)[1]["step"] == stop_at
    result = train(
        spec,
        DOCUMENTS,
        HELD_OUT,
        OPTIONS,
        tmp_path / "two",
        resume=True,
        show=lambda progress: steps.append(progress.step),
    )
    assert result.finished
    assert steps == list(range(1, 21))  # no step lost, none taken twice
    assert same(result.weights, undisturbed.weights)
    assert result.facts["heldout_bits"] == undisturbed.facts["heldout_bits"]
    last = [load_checkpoint(tmp_path / name / CHECKPOINT_FILE)[0] for name in ("one", "two")]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_killed_at_any_moment_the_last_checkpoint_is_gone_on_from(tmp_path):
    undisturbed = train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "one")
    steps = []

    def die_at_13(progress):
        steps.append(progress.step)
        if len(steps) == 13:
            raise KilledError

    with pytest.raises(KilledError):
        train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "two", show=die_at_13)
    result = train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "two", resume=True, show=die_at_13)
    assert steps[13] == 11  # the checkpoint was step 10's
    assert same(result.weights, undisturbed.weights)


def test_a_finished_run_resumed_is_finished_at_once(tmp_path):
    first = train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path)
    again = train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path, resume=True)
    assert again.finished
    assert same(first.weights, again.weights)
    assert again.facts["steps"] == 20


def test_the_weights_that_are_best_on_held_out_text_are_kept(tmp_path):
    documents = [a_document(b"a" * 300)]
    heldout = [a_document(b"zyxwvu" * 20)]  # the more it learns of the one, the less it expects the other
    measured = []
    result = train(
        SPEC,
        documents,
        heldout,
        replace(OPTIONS, steps=60, checkpoint_every=10, lr=3e-2),
        tmp_path,
        show=lambda progress: (
            measured.append(min(progress.heldout_bits, progress.averaged_bits)) if progress.at_checkpoint else None
        ),
    )
    assert min(measured) < measured[-1] - 0.5
    assert result.facts["heldout_bits"] == pytest.approx(min(measured), abs=1e-3)
    network = CharRnn(SPEC)
    network.load_weights(result.weights)
    assert heldout_bits_of(network, heldout) == pytest.approx(min(measured), abs=0.05)  # measured in bf16, maybe


def test_with_nothing_held_out_the_last_weights_are_taken(tmp_path):
    result = train(SPEC, DOCUMENTS, [], OPTIONS, tmp_path)
    assert result.facts["heldout_bits"] is None
    network = CharRnn(SPEC)
    tensors, _ = load_checkpoint(tmp_path / CHECKPOINT_FILE)
    network.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("network.")})
    assert same(result.weights, network.to_weights())


def test_a_base_is_where_training_starts_and_what_it_may_not_fall_behind(tmp_path):
    good = train(SPEC, HELD_OUT, HELD_OUT, replace(OPTIONS, steps=80, lr=2e-2), tmp_path / "base")
    result = train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "tuned", base=good.weights)
    assert result.facts["heldout_bits"] <= good.facts["heldout_bits"] + 1e-3
    still = train(SPEC, DOCUMENTS, HELD_OUT, replace(OPTIONS, steps=1, lr=1e-9), tmp_path / "s", base=good.weights)
    assert np.allclose(still.weights["output.weight"], good.weights["output.weight"], atol=1e-6)


def test_windows_of_headers_alone_do_no_harm(tmp_path):
    documents = [a_document(b"ab", "a/very/long/path/" * 5 + f"{n}.py") for n in range(3)]
    result = train(SPEC, documents, HELD_OUT, replace(OPTIONS, batch=1, bptt=4), tmp_path)
    assert all(np.isfinite(value).all() for value in result.weights.values())


def test_the_learning_rate_warms_up_in_a_tenth_of_a_short_run_and_falls_to_nothing(tmp_path):
    rates = []
    train(SPEC, DOCUMENTS, [], OPTIONS, tmp_path, show=lambda progress: rates.append(progress.learning_rate))
    assert rates[0] < 0.01 * OPTIONS.lr  # as in a long run
    assert rates[2] > 0.9 * OPTIONS.lr
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.01 * OPTIONS.lr


def test_minutes_are_wall_time_and_add_up_over_a_resumed_run(tmp_path, monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 1.0  # second
        return now[0]

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=clock))
    options = replace(OPTIONS, steps=None, minutes=1.0)
    shown = []
    first = train(SPEC, DOCUMENTS, [], options, tmp_path, stop=lambda: now[0] > 25, show=shown.append)
    assert not first.finished
    now[0] += 1000  # while it lay still
    second = train(SPEC, DOCUMENTS, [], options, tmp_path, resume=True, show=shown.append)
    assert second.finished
    assert second.facts["minutes"] == pytest.approx(1.0, abs=0.1)
    assert [progress.step for progress in shown] == list(range(1, len(shown) + 1))
    assert all(a.fraction <= b.fraction for a, b in pairwise(shown))
    assert 20 <= len(shown) <= 32  # the clock is looked at twice a step


def test_what_is_shown(tmp_path):
    shown = []
    train(SPEC, DOCUMENTS, HELD_OUT, replace(OPTIONS, checkpoint_every=8), tmp_path, show=shown.append)
    assert [progress.step for progress in shown if progress.at_checkpoint] == [8, 16, 20]
    assert [progress.step for progress in shown if progress.sample] == [8, 10, 16, 20]  # an early one too
    assert [progress.step for progress in shown if progress.kept] == [*range(1, 11), 12, 13, 15, 16, 18, 20]
    assert [progress.characters for progress in shown[:2]] == [48, 96]
    assert shown[6].heldout_bits is None
    assert 0 < shown[-1].best_bits <= shown[-1].heldout_bits
    assert shown[-1].fraction == 1
    assert all(progress.characters_per_second > 0 and 0 < progress.bits < 12 for progress in shown)
    assert shown[-1].minutes_left == 0 < shown[-2].minutes_left


def test_samples_are_drawn_at_growing_steps():
    assert [step for step in range(1, 5000) if loop._is_sampled(step)] == [10, 30, 100, 300, 1000, 3000]


def test_a_run_can_be_resumed_before_its_first_step(tmp_path):
    undisturbed = train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "one")

    def die(progress):
        raise KilledError

    with pytest.raises(KilledError):
        train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "two", show=die)
    assert load_checkpoint(tmp_path / "two" / CHECKPOINT_FILE)[1]["step"] == 0
    resumed = train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "two", resume=True)
    assert same(resumed.weights, undisturbed.weights)


def test_what_is_shown_of_a_checkpoint_comes_before_it_is_written(tmp_path):
    """Else a run killed between the two would go on behind a point that is in no log."""
    at = []

    def look(progress):
        if progress.at_checkpoint:
            at.append((progress.step, load_checkpoint(tmp_path / CHECKPOINT_FILE)[1]["step"]))

    train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path, show=look)
    assert at == [(5, 0), (10, 5), (15, 10), (20, 15)]


def test_random_numbers_go_on_where_they_were(tmp_path):
    train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path)
    wanted = torch.rand(3)  # after the last checkpoint nothing has drawn from them
    torch.manual_seed(99)
    train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path, resume=True)
    assert torch.equal(torch.rand(3), wanted)


def test_the_average_is_over_the_last_twentieth_of_the_steps():
    run = loop._Run(SPEC, DOCUMENTS, OPTIONS, torch.device("cpu"), None)
    parameter, average = run.network.output.bias, run._average.output.bias
    for step in range(1, 2001):
        run.step = step
        with torch.no_grad():
            parameter.fill_(float(step))
        run._follow()
        if step == 1:
            assert torch.equal(average, parameter)
    # The mean age of a polynomial average of decay n is t / (n + 1).
    assert 2000 - average[0].item() == pytest.approx(2000 / 21, rel=0.02)


def test_the_average_is_kept_where_held_out_text_likes_it_better(tmp_path):
    documents = [a_document(bytes(np.random.default_rng(n).integers(97, 105, 200, dtype=np.uint8))) for n in range(6)]
    options = replace(OPTIONS, steps=60, lr=0.1, checkpoint_every=20)  # so fast that the weights jump to and fro
    shown = []
    result = train(SPEC, documents, documents[:2], options, tmp_path, show=shown.append)
    at = [progress for progress in shown if progress.at_checkpoint]
    assert at[0].averaged_bits != at[0].heldout_bits
    best = min(at, key=lambda progress: min(progress.heldout_bits, progress.averaged_bits))
    assert result.facts["averaged"] == (best.averaged_bits < best.heldout_bits)
    assert result.facts["best_step"] == best.step
    network = CharRnn(SPEC)
    network.load_weights(result.weights)
    assert heldout_bits_of(network, documents[:2]) == pytest.approx(best.best_bits, abs=0.05)  # measured in bf16, maybe


# A run that expects its held-out text less and less.
STALLING = [a_document(b"a" * 300)], [a_document(b"zyxwvu" * 20)]
PATIENT = replace(OPTIONS, steps=200, checkpoint_every=10, lr=3e-2, patience=3)


def test_patience_ends_a_run_that_gains_nothing_more(tmp_path):
    shown, steps = [], []
    result = train(SPEC, *STALLING, PATIENT, tmp_path, show=shown.append)
    assert result.finished
    assert result.facts["steps"] == result.facts["best_step"] + 30 < 200
    assert result.facts["stopped_early"] == "the held-out figure was no better for 3 checkpoints"
    assert shown[-1].minutes_left == 0
    again = train(SPEC, *STALLING, PATIENT, tmp_path, resume=True, show=steps.append)
    assert steps == []
    assert same(again.weights, result.weights)
    further = train(SPEC, *STALLING, replace(PATIENT, patience=0), tmp_path, resume=True)
    assert (further.facts["steps"], further.facts["stopped_early"]) == (200, None)


def test_patience_survives_a_kill(tmp_path):
    undisturbed = train(SPEC, *STALLING, PATIENT, tmp_path / "one")
    last = undisturbed.facts["steps"]

    def die(progress):
        if progress.step == last - 5:
            raise KilledError

    with pytest.raises(KilledError):
        train(SPEC, *STALLING, PATIENT, tmp_path / "two", show=die)
    resumed = train(SPEC, *STALLING, PATIENT, tmp_path / "two", resume=True)
    assert resumed.facts["steps"] == last
    assert same(resumed.weights, undisturbed.weights)


def test_samples_do_not_change_the_training(tmp_path, monkeypatch):
    one = train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "one")
    monkeypatch.setattr(loop, "draw", lambda *arguments, **options: "")
    assert same(one.weights, train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path / "two").weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps is 0"),
        ({"minutes": -1.0}, "--minutes is -1.0"),
        ({"minutes": float("inf")}, "--minutes is inf"),
        ({"batch": 0}, "--batch is 0"),
        ({"bptt": 0}, "--bptt is 0"),
        ({"lr": float("nan")}, "--lr is nan"),
        ({"optimiser": "sgd"}, "unknown optimiser 'sgd': choose muon or adamw"),
        ({"checkpoint_every": 0}, "--checkpoint-every is 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"patience": -1}, "--patience is -1"),
        ({"device": "tpu"}, "unknown device 'tpu': choose auto, cpu or cuda"),
        ({"device": "cuda"}, "use --device cpu"),
    ],
)
def test_options_that_make_no_run_are_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=message):
        train(SPEC, DOCUMENTS, HELD_OUT, replace(OPTIONS, **options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_to_train_on_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="no document to train on"):
        train(SPEC, [], [], OPTIONS, tmp_path)


def test_a_run_that_diverges_says_so(tmp_path):
    with pytest.raises(SettingError, match="smaller --lr"):
        train(SPEC, DOCUMENTS, HELD_OUT, replace(OPTIONS, lr=1e38), tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch": 4}, r"another --batch \(3, not 4\)"),
        ({"bptt": 8}, r"another --bptt \(16, not 8\)"),
        ({"seed": 1}, r"another --seed \(0, not 1\)"),
        ({"optimiser": "adamw"}, r"another --optimiser \(muon, not adamw\)"),
    ],
)
def test_a_checkpoint_of_other_flags_is_refused(tmp_path, changed, message):
    train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path)
    with pytest.raises(CorpusError, match=message):
        train(SPEC, DOCUMENTS, HELD_OUT, replace(OPTIONS, **changed), tmp_path, resume=True)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path)
    with pytest.raises(CorpusError, match=r"another network \(cell lstm .* hidden 16 .*, not cell lstm .* hidden 24"):
        train(replace(SPEC, hidden=24), DOCUMENTS, HELD_OUT, OPTIONS, tmp_path, resume=True)


def test_a_corpus_that_changed_meanwhile_is_read_from_its_start(tmp_path):
    steps = []
    train(SPEC, DOCUMENTS, HELD_OUT, OPTIONS, tmp_path, stop=lambda: len(steps) == 12, show=steps.append)
    result = train(SPEC, DOCUMENTS[:-1], HELD_OUT, OPTIONS, tmp_path, resume=True, show=steps.append)
    assert result.finished
    assert [progress.step for progress in steps] == list(range(1, 21))
    assert steps[12].epochs == pytest.approx(3 / 6)  # three lanes begin a document each
    assert steps[12].best_bits is None  # of other text: measured anew


def test_held_out_bits_do_not_hang_on_how_documents_are_batched():
    torch.manual_seed(0)
    network = CharRnn(SPEC)
    documents = [a_document(bytes(97 + i % n for i in range(30 * n)), f"{n}.py") for n in range(1, 8)]
    together = heldout_bits_of(network, documents, lanes=3, time_steps=16)
    alone = [heldout_bits_of(network, [document], time_steps=1000) for document in documents]
    sizes = [30 * n for n in range(1, 8)]
    assert together == pytest.approx(np.average(alone, weights=sizes), rel=1e-5)


def test_judging_takes_an_equal_share_of_every_document(monkeypatch):
    monkeypatch.setattr(loop, "HELD_OUT_CHARACTERS", 10_000)
    documents = [a_document(b"x" * 9_000), a_document(b"y" * 100), a_document(b"z" * 9_000)]
    assert [len(document) for document in judging(documents)] == [3333, 106, 3333]
    assert sum(len(document) for document in judging(documents * 50)) <= 12_000
    assert judging([]) == []
