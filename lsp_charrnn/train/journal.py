"""What a run leaves to look at: `log.jsonl`, and drawn from it `loss.png`, `samples.txt` and TensorBoard's events.

The log is the one source: a run that goes on from a checkpoint first cuts it back to that checkpoint's step and draws
the others anew, so that none of them holds a line twice or out of order. Checkpoints are written by `loop`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from lsp_charrnn.errors import OutputError
from lsp_charrnn.private import make_directory
from lsp_charrnn.train.loop import Progress
from lsp_charrnn.train.progress import visible

LOG_FILE: Final = "log.jsonl"  # a line for each point of the curve
SAMPLES_FILE: Final = "samples.txt"
PICTURE_FILE: Final = "loss.png"
EVENTS_DIR: Final = "tensorboard"

# A point's numbers, as TensorBoard shows them.
_SCALARS: Final = {
    "bits": "bits per character/training",
    "heldout_bits": "bits per character/held out",
    "averaged_bits": "bits per character/held out, averaged weights",
    "learning_rate": "learning rate",
    "characters_per_second": "characters per second",
}
_FIRST_SHOWN: Final = 5.0  # bits: the fall from 8 in the first steps would flatten all the rest

Point = dict[str, Any]  # a line of the log


class Journal:
    """Writes a run's log, picture, samples and events to `directory`, called with each `Progress`.

    `resumed_at` is the step of the checkpoint that the run goes on from; None: it begins, and what an earlier run left
    in `directory` is removed. Raises `OutputError` where something cannot be written.
    """

    def __init__(self, directory: Path, *, title: str, resumed_at: int | None = None) -> None:
        self._directory, self._title = directory, title
        with self._writing():
            make_directory(directory)
            shutil.rmtree(directory / EVENTS_DIR, ignore_errors=True)
            if resumed_at is None:
                for name in (LOG_FILE, SAMPLES_FILE, PICTURE_FILE):
                    (directory / name).unlink(missing_ok=True)
            self._points = [] if resumed_at is None else read_log(directory, up_to=resumed_at)
            if resumed_at is not None:
                _replace(directory / LOG_FILE, "".join(map(_line, self._points)).encode())
            minutes = self._points[-1]["minutes"] if self._points else 0.0
            self._began = time.time() - 60 * minutes  # as if it had never lain still
            self._events = SummaryWriter(str(directory / EVENTS_DIR))
            for point in self._points:
                self._to_events(point)
            self._draw()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._writing():
                self._events.close()
        except OutputError:
            if kind is None:  # else the first error says it
                raise

    def __call__(self, progress: Progress) -> None:
        """Add a point of the curve to the log, and to the pictures if it has been measured on held-out text."""
        if not progress.kept:
            return
        point = _point(progress)
        self._points.append(point)
        with self._writing():
            with (self._directory / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(_line(point))
                file.flush()
                os.fsync(file.fileno())  # the checkpoint that comes after it must not outlive it
            self._to_events(point)
            if progress.at_checkpoint or progress.sample is not None:
                self._draw()

    def _draw(self) -> None:
        _replace(self._directory / SAMPLES_FILE, samples(self._points).encode())
        if any(point["heldout_bits"] is not None for point in self._points) or len(self._points) > 1:
            partial = self._directory / f".{PICTURE_FILE}.partial"
            try:
                figure_of(self._points, self._title).savefig(partial, format="png", dpi=110)
                partial.replace(self._directory / PICTURE_FILE)
            finally:
                partial.unlink(missing_ok=True)

    def _to_events(self, point: Point) -> None:
        at = self._began + 60 * point["minutes"]
        for name, tag in _SCALARS.items():
            if point[name] is not None:
                self._events.add_scalar(tag, point[name], point["step"], walltime=at)
        if point["sample"] is not None:
            text = "".join(f"    {line}\n" for line in point["sample"].split("\n"))  # Markdown: as it stands
            self._events.add_text("sample", text, point["step"], walltime=at)
        self._events.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write to {self._directory} ({error.strerror}): free some space, then go on with --resume."
                if (self._directory / LOG_FILE).exists()
                else f"cannot write to {self._directory} ({error.strerror}): free some space, or choose another --out."
            ) from error


def read_log(directory: Path, *, up_to: int | None = None) -> list[Point]:
    """Return the points of a run's log, in their order, as far as step `up_to`.

    A last line that a killed process has left half written is none. Without a log there are no points.
    """
    try:
        lines = (directory / LOG_FILE).read_text("utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    points: list[Point] = []
    for line in lines[:-1]:  # what comes after the last line's end is not a line yet
        point = json.loads(line)
        if up_to is not None and point["step"] > up_to:
            break
        points.append(point)
    return points


def samples(points: Sequence[Point]) -> str:
    """Return the text of `samples.txt`: what the network wrote, at growing steps, always from the same start."""
    return "".join(
        f"--- step {point['step']}, {_or_nan(point['bits']):.3f} bits per character ---\n{point['sample']}\n\n"
        for point in points
        if point["sample"] is not None
    )


def figure_of(points: Sequence[Point], title: str) -> Figure:
    """Return the curves of training and of held-out text against the characters read."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    read = [point["characters"] for point in points]
    axes.plot(read, [_or_nan(point["bits"]) for point in points], color="0.6", linewidth=1.2, label="training")
    for name, label, colour in (
        ("heldout_bits", "held out", "tab:blue"),
        ("averaged_bits", "held out, averaged weights", "tab:orange"),
    ):
        judged = [point for point in points if point[name] is not None]
        if judged:
            along = [point["characters"] for point in judged]
            bits = [point[name] for point in judged]
            axes.plot(along, bits, color=colour, marker="o", markersize=3, linewidth=1.5, label=label)
    best = min((point for point in points if point["best_bits"] is not None), key=_best, default=None)
    if best is not None:
        axes.axhline(best["best_bits"], color="0.3", linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(
            f"best {best['best_bits']:.3f}",
            (0.01, best["best_bits"]),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            color="0.3",
            fontsize=9,
        )
    axes.set_xscale("log")
    _zoom(axes, points)
    axes.set_xlabel("characters read")
    axes.set_ylabel("bits per character")
    axes.set_title(title, fontsize=11)
    axes.grid(which="major", color="0.9")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _zoom(axes: Axes, points: Sequence[Point]) -> None:
    """Show what lies behind the first fall, if the curves have come that far."""
    measured = [
        (point["characters"], point[name])
        for point in points
        for name in ("bits", "heldout_bits", "averaged_bits")
        if point[name] is not None
    ]
    low = min((bits for _, bits in measured), default=math.inf)
    if low >= _FIRST_SHOWN:
        return
    shown = [(read, bits) for read, bits in measured if bits <= _FIRST_SHOWN]
    high = max(bits for _, bits in shown)
    margin = 0.07 * max(high - low, 0.1)
    axes.set_ylim(low - margin, high + margin)
    left, right = min(read for read, _ in shown), points[-1]["characters"]
    if left < right:
        axes.set_xlim(left / 1.1, right * 1.1)


def _point(progress: Progress) -> Point:
    return {
        "step": progress.step,
        "characters": progress.characters,
        "epochs": round(progress.epochs, 4),
        "bits": round(progress.bits, 6) if math.isfinite(progress.bits) else None,
        # Only where it was measured: between checkpoints the last figure is none of this step's.
        "heldout_bits": progress.heldout_bits if progress.at_checkpoint else None,
        "averaged_bits": progress.averaged_bits if progress.at_checkpoint else None,
        "best_bits": progress.best_bits if progress.at_checkpoint else None,
        "learning_rate": progress.learning_rate,
        "minutes": round(progress.minutes, 4),
        "minutes_left": None if progress.minutes_left is None else round(progress.minutes_left, 4),
        "characters_per_second": round(progress.characters_per_second),
        "sample": None if progress.sample is None else visible(progress.sample),
    }


def _line(point: Point) -> str:
    return json.dumps(point, ensure_ascii=False, allow_nan=False) + "\n"


def _best(point: Point) -> float:
    return float(point["best_bits"])


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
