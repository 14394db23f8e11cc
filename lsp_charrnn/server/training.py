"""Training on a project while an editor is open: `lsp-charrnn train --install` as a process of its own.

`Trainings` belongs to the server's process: no project is trained on twice at once, whoever asks. What a training does
is the child's business (`train`, `evaluate`, `tuning`): here it is started, behind everything else that the machine
does, its lines are read and shown, it is stopped, and its end is put into words. Which project is meant, and which
model to start from, is `commands`' to say; a new model is found by `app`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.progress import Progress

from lsp_charrnn.errors import UserError
from lsp_charrnn.model.installed import is_unfinished, make_place, project_key

logger = logging.getLogger(__name__)

PROGRAM: Final = (sys.executable, "-m", "lsp_charrnn")
GRACE: Final = 90.0  # seconds in which a training that was stopped may judge and write its checkpoint
_NICE: Final = 10
_ERROR: Final = "error: "  # how the one sentence begins by which a command fails


class TrainingError(UserError):
    """A training cannot be started, or there is none to cancel."""


@dataclass(frozen=True)
class Outcome:
    """How a training has ended."""

    root: Path
    installed: bool = False
    cancelled: bool = False
    problem: str | None = None  # why nothing was installed, in a sentence
    sentence: str | None = None  # what was gained
    report: dict[str, Any] | None = None  # the same in figures

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        return {
            "root": str(self.root),
            "installed": self.installed,
            "cancelled": self.cancelled,
            "problem": self.problem,
            "sentence": self.sentence,
            "report": self.report,
        }

    def in_words(self) -> str:
        """Return what the user is told."""
        name = self.root.name or str(self.root)
        if self.installed:
            return f"trained on {name}: {self.sentence or 'better than before'}; installed."
        if self.cancelled:
            again = "the next one goes on from there" if is_unfinished(self.root) else "nothing is left of it"
            return f"the training on {name} was stopped; {again}."
        return f"trained on {name}: {self.problem}"


@dataclass(eq=False)
class Training:
    """One training under way. All but `_read` on the event loop."""

    root: Path
    process: subprocess.Popen[bytes]
    errors: IO[bytes]  # what it writes there: a file, for a pipe that nobody empties would hold it up
    ended: Callable[[Training], None]
    phase: str = "starting"
    share: float = 0.0  # of what the phase has to do
    cancelled: bool = False
    _lines: asyncio.Queue[dict[str, Any] | None] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _said: str = ""  # by way of `errors`, once it has ended

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, name="training", daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with suppress(ValueError):
                    facts = json.loads(line)
                    if isinstance(facts, dict):
                        self._later(self._take, facts)
        self.process.wait()
        with self.errors as errors:
            errors.seek(0)
            said = errors.read().decode("utf-8", errors="replace")
        self._later(self._end, said)

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed; it is read on, so that the process isn't held up
            self._loop.call_soon_threadsafe(call, *arguments)

    def _take(self, facts: dict[str, Any]) -> None:
        self.phase, self.share = str(facts.get("phase")), float(facts.get("share", 0.0))
        self._lines.put_nowait(facts)

    def _end(self, said: str) -> None:
        self._said = said
        self.ended(self)
        self._lines.put_nowait(None)

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the process says, as it says it, until it has ended."""
        while (facts := await self._lines.get()) is not None:
            yield facts

    def cancel(self) -> None:
        """Let the process write a checkpoint and end; once, for the second time it would end without."""
        if self.cancelled or self.process.poll() is not None:
            return
        self.cancelled = True
        with suppress(OSError):
            if self.phase == "starting" or sys.platform == "win32":
                self.process.terminate()  # nothing is lost; and perhaps it does not hear SIGINT yet
            else:
                self.process.send_signal(signal.SIGINT)
        self._loop.call_later(GRACE, self._kill)

    def _kill(self) -> None:
        if self.process.poll() is None:
            logger.warning("the training on %s does not end, and is killed", self.root)
            self.process.kill()

    def error(self) -> str:
        """Return the sentence by which the process has failed, once it has ended."""
        found = [line.removeprefix(_ERROR) for line in self._said.splitlines() if line.startswith(_ERROR)]
        if found:
            return found[-1]
        logger.debug("the training on %s failed: %s", self.root, self._said)
        code = self.process.returncode
        return f"it failed (exit code {code}): the same with `lsp-charrnn train` in a terminal shows where."


class Trainings:
    """The trainings of all clients, by project. Everything here is called on the event loop."""

    def __init__(self) -> None:
        self._running: dict[str, Training] = {}

    def find(self, root: Path) -> Training | None:
        """Return the training on a project, if there is one, whatever way leads to the project."""
        return self._running.get(project_key(root))

    def start(self, root: Path, base: str, *, minutes: float | None, fresh: bool, suffixes: Sequence[str]) -> Training:
        """Start to train on the project at `root`, from the model at the path `base`, or from the one that fits: auto.

        It goes on from where an earlier one was stopped, unless `fresh`. Raises `TrainingError` where one is under way,
        `OutputError` where nothing can be written.
        """
        if self.find(root) is not None:
            raise TrainingError(f"{root} is being trained on already: wait for the end of that, or cancel it.")
        command = [*PROGRAM, "train", str(root), "--base", base, "--install", "--json", "--force"]
        if is_unfinished(root) and not fresh:
            command.append("--resume")
        if minutes is not None:
            command += ["--minutes", str(minutes)]
        for suffix in suffixes:
            command += ["--suffix", suffix]
        place = make_place(root)
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (the thread that reads closes it)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=place,  # in the project itself Python would take modules from there
                env={**os.environ, "OMP_NUM_THREADS": str(max(1, _cores() - 1))},
                start_new_session=True,  # Ctrl-C in the server's terminal is the server's
                creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),  # on Windows
            )
        except OSError as error:
            errors.close()
            raise TrainingError(f"cannot start {command[0]} ({error.strerror}): install lsp-charrnn again.") from error
        if sys.platform != "win32":
            with suppress(OSError):  # it is its only thread still, and those to come will be like it
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        training = self._running[project_key(root)] = Training(root, process, errors, self._forget)
        logger.info("training on %s, process %d", root, process.pid)
        return training

    def _forget(self, training: Training) -> None:
        self._running = {key: other for key, other in self._running.items() if other is not training}

    def to_json(self) -> list[dict[str, Any]]:
        """Return what is under way as JSON data."""
        return [
            {"root": str(training.root), "phase": training.phase, "share": training.share}
            for training in self._running.values()
        ]


async def outcome_of(training: Training, told: Callable[[str, float], None]) -> Outcome:
    """Return how a training ends; `told` is called with what it is at, and the share of all that is done."""
    done: dict[str, Any] = {}
    async for facts in training.lines():
        phase, share = facts.get("phase"), float(facts.get("share", 0.0))
        if phase == "done":
            done = facts
        elif phase == "training":
            told(_standing(facts), 0.95 * share)
        elif phase == "judging":
            told("comparing it with the model before", 0.95 + 0.05 * share)
        else:
            told("reading the project", 0.0)
    sentence, report = done.get("sentence"), done.get("report")
    if training.process.returncode == 0 and done:
        return Outcome(training.root, installed=bool(done.get("installed")), sentence=sentence, report=report)
    if training.cancelled:
        return Outcome(training.root, cancelled=True)
    return Outcome(training.root, problem=training.error(), sentence=sentence, report=report)


class Shown:
    """The progress of a training as the client shows it, from when the client has agreed; None: it can't."""

    def __init__(self, progress: Progress | None, training: Training) -> None:
        self._progress = progress
        self._token = secrets.token_hex(8)
        self._begun = None if progress is None else asyncio.ensure_future(self._begin(progress, training))

    async def _begin(self, progress: Progress, training: Training) -> None:
        with suppress(JsonRpcException):
            await progress.create_async(self._token)
            progress.tokens[self._token].add_done_callback(
                lambda asked: training.cancel() if asked.cancelled() else None
            )
            title = f"Training on {training.root.name}"
            progress.begin(self._token, types.WorkDoneProgressBegin(title=title, percentage=0, cancellable=True))

    def tell(self, what: str, share: float) -> None:
        """Say what is being done, and which share of all is done."""
        if self._progress is not None and self._token in self._progress.tokens:
            report = types.WorkDoneProgressReport(message=what, percentage=round(100 * share), cancellable=True)
            self._progress.report(self._token, report)

    def end(self) -> None:
        """Say that it is over."""
        if self._progress is not None and self._begun is not None:
            self._begun.cancel()
            if self._progress.tokens.pop(self._token, None) is not None:
                self._progress.end(self._token, types.WorkDoneProgressEnd())


def _standing(facts: dict[str, Any]) -> str:
    """Return where a training stands, in words."""
    left, bits = facts.get("minutes_left"), facts.get("best_bits")
    parts = [] if left is None else [f"{left:.0f} min left" if left >= 1 else f"{60 * left:.0f} s left"]
    if bits is not None:
        parts.append(f"{bits:.3f} bits per character on files held out")
    return ", ".join(parts) or "training"


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # what a container or taskset leaves us
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
