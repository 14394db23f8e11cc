"""The time left is right within a fifth, with a clock that the test turns."""

from dataclasses import replace

import pytest

from lsp_charrnn.config import TrainOptions
from lsp_charrnn.train.remaining import Remaining

OPTIONS = TrainOptions(steps=1000, batch=64, bptt=128, checkpoint_every=100)
JUDGED = 200_000


def replay(options, step_seconds, checkpoint_seconds):
    """Return, by each whole percent of the time, the estimate then over what was really left."""
    remaining = Remaining(options, judged=JUDGED)
    notes, elapsed, step = [], 0.0, 0
    while step < (options.steps or 1 << 60) and (options.minutes is None or elapsed < 60 * options.minutes):
        step += 1
        remaining.stepped(step_seconds(step))
        elapsed += step_seconds(step)
        over = step == options.steps or (options.minutes is not None and elapsed >= 60 * options.minutes)
        notes.append((elapsed, remaining.minutes(step, elapsed / 60)))
        if step % options.checkpoint_every == 0 or over:
            remaining.paused(checkpoint_seconds)
            elapsed += checkpoint_seconds
    return {
        percent: estimate * 60 / (elapsed - at)
        for percent in range(5, 96)
        for at, estimate in [min(notes, key=lambda note: abs(note[0] - elapsed * percent / 100))]
    }


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        replace(OPTIONS, checkpoint_every=250),
        replace(OPTIONS, checkpoint_every=333),
        replace(OPTIONS, steps=None, minutes=15.0),
        replace(OPTIONS, minutes=15.0),
        replace(OPTIONS, minutes=2.0),
    ],
)
@pytest.mark.parametrize("checkpoint_seconds", [8.0, 14.0])  # guessed, before the first: 0.6 * 0.8 * 200,000 / 8,192
@pytest.mark.parametrize(
    "step_seconds",
    [
        lambda step: 0.6,
        lambda step: 5.0 if step == 1 else 0.6,  # setting up
        lambda step: 0.6 * (0.5 + (step * 7919 % 101) / 100),  # noise
        lambda step: 0.4 if step % 10 else 2.4,  # a hiccup now and then
        lambda step: 0.6 * (1.15 if step % 60 < 20 else 0.9),  # somebody else comes and goes
    ],
)
def test_the_time_left_is_right_within_a_fifth(options, checkpoint_seconds, step_seconds):
    ratios = replay(options, step_seconds, checkpoint_seconds)
    assert {percent: ratio for percent, ratio in ratios.items() if not 0.8 <= ratio <= 1.2} == {}


def test_a_machine_that_becomes_slower_is_noticed():
    ratios = replay(OPTIONS, lambda step: 0.3 if step < 300 else 0.9, 10.0)
    assert all(0.8 <= ratio <= 1.2 for percent, ratio in ratios.items() if percent >= 50)


def test_nothing_is_known_before_the_first_step():
    remaining = Remaining(OPTIONS, judged=JUDGED)
    assert remaining.minutes(0, 0.0) is None
    remaining.stepped(0.6)
    assert remaining.minutes(1, 0.01) > 5


def test_without_held_out_text_checkpoints_are_guessed_to_cost_nothing():
    remaining = Remaining(OPTIONS, judged=0)
    remaining.stepped(0.6)
    assert remaining.minutes(1, 0.01) == pytest.approx(999 * 0.6 / 60)
