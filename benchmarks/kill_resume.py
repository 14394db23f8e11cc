"""Whether training killed at any moment, and resumed, ends as if nothing had happened: to the bit.

python -m benchmarks.kill_resume [--kills N] [--steps N] [--hidden N] [--seed N] [--text DIR]

A real `lsp-charrnn train` is killed by SIGKILL, at a random moment of its training, within the writing of a checkpoint,
or while it writes the model; `--resume` ends it. Compared with a run that nobody disturbed: the model's files, all
tensors of the last checkpoint (weights, average, optimiser, position, random state), the log but for its clocks,
samples.txt, and what TensorBoard shows.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.workbench import ROOT, console, run
from lsp_charrnn.errors import UserError
from lsp_charrnn.train.checkpoint import load_checkpoint
from lsp_charrnn.train.journal import EVENTS_DIR, LOG_FILE, SAMPLES_FILE, read_log
from lsp_charrnn.train.loop import CHECKPOINT_FILE
from lsp_charrnn.train.run import work_dir

KILLS: Final = 20
TEXT: Final = ROOT / "lsp_charrnn" / "engine"  # little: all that counts here is what is written
PATIENCE: Final = 300.0  # seconds for a process to come to where it is to be killed, or to end
MODEL_FILES: Final = ("weights.safetensors", "model.onnx", "step.onnx")
CLOCKS: Final = ("minutes", "minutes_left", "characters_per_second")  # of a log's line
CLOCK_TAG: Final = "characters per second"

Moment = Callable[[Path, random.Random], bool]  # whether a run, by its directory, is where it is to be killed


@dataclass
class Trainer:
    """How the runs are made: the same command for all, but for where they write to."""

    text: Path
    steps: int
    hidden: int
    checkpoint_every: int = 4
    program: Sequence[str] = (sys.executable, "-m", "lsp_charrnn")

    def start(self, out: Path, *, resume: bool) -> subprocess.Popen[bytes]:
        """Start the run that writes the model `out`."""
        command = [
            *(*self.program, "train", self.text, "--out", out, "--steps", self.steps),
            *("--layers", 1, "--hidden", self.hidden, "--batch", 4, "--bptt", 32, "--device", "cpu"),
            *("--checkpoint-every", self.checkpoint_every, "--project-share", 1),
            *(["--resume"] if resume else []),
        ]
        log = out.with_name(out.name + ".txt").open("ab")
        with log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment, stdout=log, stderr=log)

    def end(self, out: Path, *, resume: bool) -> None:
        """Run to the end. Raises `UserError` with what the run said, if that was not the model."""
        process = self.start(out, resume=resume)
        try:
            code = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
        if code != 0:
            said = out.with_name(out.name + ".txt").read_text("utf-8")
            raise UserError(f"training ended with {code}: {said[-2000:]}")

    def kill(self, out: Path, moment: Moment, randomly: random.Random, *, resume: bool) -> bool:
        """Run up to `moment` and kill; return False if the run ended before."""
        process = self.start(out, resume=resume)
        deadline = time.monotonic() + PATIENCE
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise UserError(f"the run never came to where it was to be killed: see {out}.txt")
                if moment(work_dir(out), randomly):
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return process.returncode == -signal.SIGKILL
            return False
        finally:
            process.kill()
            process.wait()


def at_step(step: int) -> Moment:
    """Return the moment at which the log has come to `step`, and a random part of a few steps more."""

    def come(directory: Path, randomly: random.Random) -> bool:
        time.sleep(0.001)
        points = read_log(directory)
        if not points or points[-1]["step"] < step:
            return False
        time.sleep(randomly.uniform(0, 0.3))
        return True

    return come


def in_checkpoint(step: int) -> Moment:
    """Return a moment within the writing of a checkpoint, that of `step` or a later one."""
    near = False

    def come(directory: Path, randomly: random.Random) -> bool:
        nonlocal near
        if not near:
            points = read_log(directory)
            near = bool(points) and points[-1]["step"] >= step  # its line comes before it
        return near and (directory / f"{CHECKPOINT_FILE}.partial").exists()  # looked at as often as can be

    return come


def kills_of(count: int, steps: int, checkpoint_every: int, randomly: random.Random) -> list[tuple[str, Moment]]:
    """Return moments to kill at: six of ten at any step, three within a checkpoint, one while the model is written."""
    moments: list[tuple[str, Moment]] = []
    for index in range(count):
        if index % 10 in (2, 5, 8):
            step = checkpoint_every * randomly.randint(1, max(1, steps // checkpoint_every - 1))
            moments.append((f"in the checkpoint of step {step}", in_checkpoint(step)))
        elif index % 10 == 9:
            moments.append(("after the last step", at_step(steps)))
        else:
            step = randomly.randint(1, steps - 1)
            moments.append((f"at step {step}", at_step(step)))
    return moments


def outcome(out: Path) -> dict[str, Any]:
    """Return all of a finished run that must be the same."""
    directory = work_dir(out)
    tensors, facts = load_checkpoint(directory / CHECKPOINT_FILE)
    events = EventAccumulator(str(directory / EVENTS_DIR)).Reload()
    return {
        "model": {name: (out / name).read_bytes() for name in MODEL_FILES},
        "checkpoint": tensors,
        "facts": {name: value for name, value in facts.items() if name != "minutes"},
        "curve": [
            {name: value for name, value in point.items() if name not in CLOCKS} for point in read_log(directory)
        ],
        "lines": (directory / LOG_FILE).read_text("utf-8").count("\n"),
        "samples": (directory / SAMPLES_FILE).read_text("utf-8"),
        "events": {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
            if tag != CLOCK_TAG
        },
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of what differs, by a single bit, between two outcomes."""
    found = [name for name in one if name != "checkpoint" and one[name] != other[name]]
    mine, yours = one["checkpoint"], other["checkpoint"]
    if mine.keys() != yours.keys() or not all(torch.equal(mine[name], yours[name]) for name in mine):
        found.append("checkpoint")
    return found


def kill_and_resume(trainer: Trainer, out: Path, moments: Sequence[Moment], randomly: random.Random) -> list[int]:
    """Kill a run at each of `moments`, resuming it in between, and end it; return the steps that were gone on from.

    There are fewer of them than moments where the run ended too soon to be killed. Where nothing had been written when
    it was killed it is started again, as `--resume` says then.
    """
    checkpoint = work_dir(out) / CHECKPOINT_FILE
    steps: list[int] = []
    for moment in moments:
        if not trainer.kill(out, moment, randomly, resume=checkpoint.exists()):
            break
        steps.append(load_checkpoint(checkpoint)[1]["step"] if checkpoint.exists() else 0)
    if not out.exists():  # else it was killed after the last thing it had to do
        trainer.end(out, resume=checkpoint.exists())
    return steps


def main(
    kills: Annotated[int, typer.Option(help="Runs that are killed.")] = KILLS,
    steps: Annotated[int, typer.Option(help="Updates of a run.")] = 40,
    hidden: Annotated[int, typer.Option(help="Neurons: the more, the longer a checkpoint takes to write.")] = 192,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    text: Annotated[Path, typer.Option(help="What is trained on.", resolve_path=True)] = ROOT
    / "lsp_charrnn"
    / "engine",
) -> None:
    """Kill training at random moments, resume it, and compare to the bit."""
    randomly = random.Random(seed)
    trainer = Trainer(text, steps, hidden)
    equal = 0
    with tempfile.TemporaryDirectory() as place:
        trainer.end(Path(place) / "undisturbed", resume=False)
        undisturbed = outcome(Path(place) / "undisturbed")
        for number, (name, moment) in enumerate(kills_of(kills, steps, trainer.checkpoint_every, randomly), 1):
            out = Path(place) / f"killed{number}"
            resumed = kill_and_resume(trainer, out, [moment], randomly)
            different = differences(undisturbed, outcome(out)) if resumed else ["it ended before it was killed"]
            equal += not different
            said = f"different: {', '.join(different)}" if different else "equal to the bit"
            console.print(f"{number:3} killed {name}, resumed at step {[*resumed, 0][0]}: {said}", highlight=False)
    console.print(f"{equal} of {kills} bit-equal: final weights, checkpoint, curve, samples and TensorBoard's events.")
    if equal < kills:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
