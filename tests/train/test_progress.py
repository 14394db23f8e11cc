"""What a training run shows: a live display in a terminal, a line a checkpoint elsewhere."""

import io
import math

import pytest
from rich.console import Console

from lsp_charrnn.train.loop import Progress
from lsp_charrnn.train.progress import Display, plain_line, time_left, visible


def a_progress(**changes):
    facts = {
        "step": 1250,
        "fraction": 0.25,
        "minutes": 20.0,
        "epochs": 0.4,
        "bits": 1.8321,
        "characters_per_second": 19876.0,
        "learning_rate": 2e-3,
        "heldout_bits": 1.7014,
        "best_bits": 1.6987,
        "minutes_left": 60.0,
    }
    return Progress(**{**facts, **changes})


def a_console(**options):
    return Console(file=io.StringIO(), width=80, height=24, color_system=None, **options)


def test_elsewhere_one_plain_line_a_checkpoint():
    console = a_console(force_terminal=False)
    with Display(console, title="training python") as display:
        for step in range(1, 500):
            display(a_progress(step=step, at_checkpoint=step % 250 == 0, sample="x" if step == 30 else None))
    assert console.file.getvalue() == (
        "step 250, 25 %, 1 h 00 min left: bits per character 1.832 training, 1.701 held out (best 1.699); "
        "19,876 characters/s\n"
    )


def test_in_a_terminal_all_figures_and_the_sample_are_shown():
    console = a_console(force_terminal=True, _environ={"TERM": "xterm"})
    with Display(console, title="training python") as display:
        display(a_progress(sample="def f():\n\treturn [1]\n"))
        display(a_progress(step=1251))
    shown = console.file.getvalue()
    for text in (
        "training python", "25 %", "1 h 00 min left", "training 1.832", "held out 1.701", "best 1.699", "step 1,251",
        "epoch 0.40", "19,876 characters/s", "20 min 00 s so far", "sample at step 1,250", "    return [1]", "Ctrl-C",
    ):  # fmt: skip
        assert text in shown


def test_after_ctrl_c_the_display_says_what_comes():
    console = a_console(force_terminal=True, _environ={"TERM": "xterm"})
    with Display(console, title="t") as display:
        display(a_progress())
        display.stopping = True
    assert "Stopping after this step" in console.file.getvalue()


@pytest.mark.parametrize("height", [5, 12, 60])
def test_the_display_always_fits_the_terminal(height):
    console = Console(file=io.StringIO(), width=60, height=height, force_terminal=True, color_system=None)
    display = Display(console, title="training a-model-with-a-rather-long-name")
    display(a_progress(sample="long " * 100 + "\n" * 50))
    lines = console.render_lines(display)
    assert len(lines) <= max(height, 9)
    assert all(sum(segment.cell_length for segment in line) <= 60 for line in lines)


def test_noise_cannot_reach_the_terminal():
    assert visible("a\x1b[31mb\x07\r\x00\x9b\u202e\ufffdé\n\tü") == "a·[31mb·····\ufffdé\n    ü"


def test_before_anything_is_measured():
    line = plain_line(a_progress(fraction=0.0, bits=math.nan, heldout_bits=None, best_bits=None))
    assert "– training, – held out (best –)" in line


@pytest.mark.parametrize(
    ("minutes", "left"),
    [(None, "… left"), (0.5, "30 s left"), (3.0, "3 min 00 s left"), (90.0, "1 h 30 min left"), (0.0, "done")],
)
def test_time_left(minutes, left):
    assert time_left(a_progress(minutes_left=minutes)) == left
