"""What is chosen for a run: by text and machine, the same for the same, and never against what was said."""

from dataclasses import replace

import pytest
import torch

from lsp_charrnn.config import TrainOptions
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.train.plan import OPEN_OPTIONS, kept_plan, make_plan, measured_speed

FREE = ("hidden", *OPEN_OPTIONS)
MEGABYTE = 1_000_000


def speed(spec, options):
    """A machine that trains 2x512 at 12,000 characters a second, and smaller ones the faster."""
    return 12_000 * (512 / spec.hidden) ** 1.7


def planned(
    minutes=30.0, megabytes=100.0, *, free=FREE, spec=None, judged=200_000, tuning=False, speed=speed, **changes
):
    return make_plan(
        spec or ModelSpec(),
        TrainOptions(minutes=minutes, **changes),
        free,
        characters=int(megabytes * MEGABYTE),
        judged=judged,
        tuning=tuning,
        speed=speed,
    )


def test_more_time_and_more_text_make_a_larger_network():
    by_time = [planned(minutes).spec.hidden for minutes in (0.5, 5, 30, 60, 600)]
    by_text = [planned(60.0, megabytes).spec.hidden for megabytes in (0.1, 1, 100)]
    by_machine = [planned(speed=lambda *run, f=factor: f * speed(*run)).spec.hidden for factor in (0.02, 0.1, 10)]
    for sizes in (by_time, by_text, by_machine):
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[-1] == 512


def test_nothing_is_timed_where_the_steps_are_given():
    plan = planned(None, steps=4000, speed=lambda *run: pytest.fail("it was timed"))
    assert (plan.options.steps, plan.options.minutes, plan.spec.hidden) == (4000, None, 512)
    assert plan == planned(None, steps=4000, speed=lambda *run: pytest.fail("it was timed"))
    assert plan.options.batch == 64  # a smaller one would read less in so many steps
    assert planned(None, steps=20).spec.hidden == 128


def test_what_was_said_stays():
    said = {"batch": 7, "lr": 0.1, "checkpoint_every": 3, "patience": 99}
    plan = planned(0.1, 0.1, free=(), spec=ModelSpec(hidden=700), **said)
    assert plan.sentence == ""
    assert plan.spec == ModelSpec(hidden=700)
    assert {name: getattr(plan.options, name) for name in said} == said
    for name, value in said.items():
        free = [other for other in FREE if other != name]
        assert getattr(planned(0.1, 0.1, free=free, **{name: value}).options, name) == value
    kept = planned(0.1, 0.1, free=OPEN_OPTIONS, spec=ModelSpec("gru", layers=3, hidden=700))
    assert kept.spec == ModelSpec("gru", layers=3, hidden=700)


def test_trained_weights_keep_their_size_and_are_trained_more_gently():
    scratch, tuned = planned(0.5, 0.5), planned(0.5, 0.5, tuning=True)
    assert scratch.spec.hidden < tuned.spec.hidden == 512
    assert tuned.options.lr < scratch.options.lr


def test_checkpoints_cost_a_tenth_at_most_and_are_never_far_apart():
    for minutes in (1.0, 5.0, 30.0, 600.0):
        options = planned(minutes).options
        a_step = options.batch * options.bptt
        assert 0.11 * options.checkpoint_every * a_step >= 0.8 * 200_000
        assert options.checkpoint_every * a_step <= max(0.03 * 60 * minutes * 12_000 * 11, 1.7e6)
    slow = planned(speed=lambda *run: 500.0, free=OPEN_OPTIONS).options
    assert slow.checkpoint_every * slow.batch * slow.bptt / 500 <= 11 * 60


def test_patience_is_for_texts_that_are_read_over_and_over():
    assert planned(30.0, 100.0).options.patience == 0
    options = planned(30.0, 0.5).options
    assert 3 <= options.patience <= 10
    assert planned(30.0, 0.5, judged=0).options.patience == 0  # nothing to judge by


def test_a_length_that_nobody_said_is_shorter_for_little_text():
    assert planned(None, 100.0).options.minutes == 30.0
    assert 1.0 <= planned(None, 0.3).options.minutes < 20.0
    assert planned(None, 0.01).options.minutes == 1.0
    assert planned(30.0, 0.3).options.minutes == 30.0
    assert planned(None, 0.3, steps=100).options.minutes is None
    # Trained weights would know the text by heart: they go through it four times at most.
    tuned = planned(15.0, 0.9, tuning=True).options
    assert 3.9 < 60 * tuned.minutes * speed(ModelSpec(), tuned) / (0.9 * MEGABYTE) < 4.1
    assert tuned.patience == 0
    assert planned(0.5, 0.01, tuning=True).options.minutes == 0.5
    assert planned(15.0, 0.01, tuning=True).options.patience > 0  # a minute is many times through so little
    assert planned(15.0, 0.9, tuning=True, steps=100).options.minutes == 15.0
    assert planned(None, 0.9, tuning=True).options.minutes < planned(None, 0.9, free=OPEN_OPTIONS).options.minutes


def test_a_short_run_has_a_smaller_batch():
    assert planned(1.0, free=OPEN_OPTIONS).options.batch == 16
    assert planned(60.0).options.batch == 64


def test_one_sentence_says_what_was_chosen_and_why():
    plan = planned(30.0, 2.0)
    for part in (
        "30 min at 19,569 characters a second and 2 MB of text", "2 layers of 384", f"batch {plan.options.batch}",
        f"learning rate {plan.options.lr:g}", f"a checkpoint every {plan.options.checkpoint_every} steps",
        f"the end after {plan.options.patience} checkpoints without a gain",
    ):  # fmt: skip
        assert part in plan.sentence
    assert plan.sentence.count(".") == 0 or plan.sentence.endswith(".")
    assert "characters a second" not in planned(None, steps=4000).sentence
    nothing_to_tell = planned(100.0, free=("patience",))  # it was left to choose, and the choice is to have none
    assert (nothing_to_tell.options.patience, nothing_to_tell.sentence) == (0, "")


def test_a_resumed_run_keeps_what_was_chosen():
    plan = planned(30.0, 0.9)
    facts = {"signature": {"network": plan.spec.to_json()}, "options": vars(plan.options)}
    again = kept_plan(facts, {}, TrainOptions(), FREE)
    assert (again.spec, again.options) == (plan.spec, plan.options)
    longer = kept_plan(facts, {}, TrainOptions(minutes=90.0), FREE)
    assert longer.options == replace(plan.options, minutes=90.0)
    said = kept_plan(facts, {"hidden": 64}, TrainOptions(lr=0.5), [name for name in FREE if name != "lr"])
    assert (said.spec.hidden, said.options.lr) == (64, 0.5)


def test_speed_is_measured():
    found = measured_speed(ModelSpec(layers=1, hidden=8), TrainOptions(batch=2, bptt=8), torch.device("cpu"))
    assert 1 < found < 1e9
