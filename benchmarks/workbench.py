"""What every benchmark here stands on: the machine, times and their percentiles, held-out text, and the printed table.

And the naive server, which reads the file again up to the cursor at each key. The real one, as an editor drives it, is
in `editor`; what is measured, and what it should reach, in each benchmark.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from lsp_charrnn import doctor
from lsp_charrnn.engine.decode import DecodeOptions, decode
from lsp_charrnn.engine.snapshots import Snapshot
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.heldout import heldout_files, rank_of
from lsp_charrnn.model.files import find_model, load_model, model_for_language, read_config
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.symbols import header, normalise, to_symbols
from lsp_charrnn.train.corpus import SourceFile

ROOT: Final = Path(__file__).resolve().parent.parent
SEED: Final = 3  # of every choice that is drawn: the same places, files and keys on every machine

console: Final = Console(width=None if sys.stdout.isatty() else 120)

# The options that all benchmarks share.
Quick = Annotated[bool, typer.Option("--quick", help="Small samples: rough figures in about a minute.")]
JsonPath = Annotated[
    Path | None, typer.Option("--json", help="Write figures and measurements here too.", resolve_path=True)
]
ModelName = Annotated[str, typer.Option(help="Name or path of a model; by default Python's own.")]
HeldoutPath = Annotated[
    Path, typer.Option(help="Where the held-out projects are (`make heldout` fetches them).", resolve_path=True)
]
HELDOUT: Final = ROOT / "heldout"
NAIVE_LIMIT: Final = 100_000  # bytes, of which a naive server reads so many at most: four seconds, and it is linear
QUICK_NAIVE_LIMIT: Final = 20_000


# --- the machine, and what is measured on it ----------------------------------------------------------------


def machine_line(here: dict[str, Any]) -> str:
    """Return the machine in one line."""
    versions = here["versions"]
    return (
        f"{here['cpu']}, {here['cores']} core(s) ({', '.join(here['features'])}), {here['system']}, "
        f"Python {versions['python']}, ONNX Runtime {versions.get('onnxruntime')}, "
        f"{here['load_before']} processes wanted a core before"
    )


def resident_mb(pid: int, kind: str = "VmRSS") -> float:
    """Return a process's resident memory in MB; nan where the system does not tell it.

    `kind` is a line of proc(5)'s status: VmRSS for all of it, RssAnon for its own, without what is mapped from files.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return math.nan


@dataclass(frozen=True)
class Setup:
    """What a benchmark runs with."""

    quick: bool
    directory: Path  # the model's
    name: str
    examined: doctor.Report
    heldout: HeldoutText

    @property
    def machine(self) -> dict[str, Any]:
        """What the figures depend on beside the code."""
        report = self.examined
        return {
            "cpu": report.cpu,
            "features": list(report.features),
            "cores": report.cores,
            "system": report.system,
            "load_before": round(report.load, 2),
            "versions": report.versions,
        }

    @property
    def naive_limit(self) -> int:
        """How much the naive server reads at most, before its time is scaled."""
        return QUICK_NAIVE_LIMIT if self.quick else NAIVE_LIMIT

    @cached_property
    def model(self) -> Model:
        """The model in this process, for what is compared with the server."""
        return load_model(self.directory)


def model_directory(model: str) -> Path:
    """Return where the model of this name or path is, Python's own by default. Raises `ModelError`."""
    return (find_model(model) if model else model_for_language("python")).resolve()


def set_up(
    quick: bool, model: str, heldout: Path, *, seconds: float = 0.01, text_is: str = "held-out text from"
) -> Setup:
    """Find model and text, and print what the figures will depend on; `seconds` is how long a step is timed.

    Raises `UserError` where something is missing.
    """
    directory = model_directory(model)
    if not heldout.is_dir():
        raise UserError(f"There is no held-out text in {heldout}: run `make heldout`, or say --heldout DIRECTORY.")
    text = HeldoutText(heldout)
    # `python -m lsp_charrnn` looks for modules in the working directory first, and in this folder is a `typing`.
    os.chdir(ROOT)
    examined = doctor.examine(str(directory), seconds=seconds)
    if not examined.steps:  # the model cannot be used: the last problem says why
        raise UserError(f"{examined.problems[-1].wrong}: {examined.problems[-1].mend}.")
    setup = Setup(quick, directory, str(read_config(directory)[0]["name"]), examined, text)
    console.print(f"model {setup.name} ({directory}), {text_is} {heldout}", highlight=False)
    console.print(machine_line(setup.machine), highlight=False)
    for problem in examined.problems:
        console.print(f"{problem.wrong}: {problem.mend}", style="yellow", markup=False, highlight=False)
    return setup


def run(main: Callable[..., None]) -> None:
    """Run `main` by the command line; what is the user's to mend becomes a sentence and exit code 2."""
    try:
        typer.run(main)
    except UserError as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(2)


def numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers in a text with commas. Raises `UserError`."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UserError(f"{text!r} is no list of whole numbers: write them like 1000,1000000.") from None


# --- times and figures --------------------------------------------------------------------------------------


class Times:
    """How long something took, again and again."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.ms: list[float] = [1e3 * value for value in seconds]

    def __len__(self) -> int:
        return len(self.ms)

    def p(self, percent: float) -> float:
        """Return the percentile in milliseconds; nan of nothing."""
        return float(np.percentile(self.ms, percent)) if self.ms else math.nan

    def __str__(self) -> str:
        """Return p50 / p95 / p99; the median and the worst where there are too few for percentiles."""
        if len(self.ms) < 20:
            return f"{shown(self.p(50))} (worst {shown(self.p(100))}) ms"
        return f"{shown(self.p(50))} / {shown(self.p(95))} / {shown(self.p(99))} ms"

    def percentiles(self) -> dict[str, float]:
        """Return as JSON data how many there are, and their percentiles."""
        return {"count": len(self.ms), **{f"p{p}": round(self.p(p), 4) for p in (50, 95, 99, 100) if self.ms}}

    def to_json(self) -> dict[str, Any]:
        """Return the percentiles and every single time."""
        return {**self.percentiles(), "ms": [round(value, 3) for value in self.ms]}


def shown(value: float) -> str:
    """Return a number with as many digits as it is good for."""
    if math.isnan(value):
        return "?"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def size_name(size: float) -> str:
    """Return a number of bytes as people say it."""
    for unit, name in ((1_000_000, "MB"), (1_000, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:g} B"


@dataclass(frozen=True)
class Row:
    """One figure: what was asked, what was reached, and whether that is enough (None: nothing was asked)."""

    figure: str
    target: str
    reached: str
    enough: bool | None
    note: str = ""
    baseline: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON data; without a baseline where there is none."""
        return {name: value for name, value in asdict(self).items() if value != "" or name != "baseline"}


def figures_table(rows: Sequence[Row], here: dict[str, Any], title: str) -> Table:
    """Return the figures beside their targets, and beside the baseline where there is one."""
    table = Table(title=title, caption=machine_line(here), caption_justify="left")
    with_baseline = any(row.baseline for row in rows)
    table.add_column("figure")
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("reached", justify="right", no_wrap=True)
    table.add_column("")
    if with_baseline:
        table.add_column("baseline", justify="right")
    table.add_column("how", style="dim")
    for row in rows:
        mark = {True: "[green]yes[/]", False: "[red]no[/]", None: "?" if row.target else ""}[row.enough]
        baseline = [row.baseline] if with_baseline else []
        table.add_row(row.figure, row.target, row.reached, mark, *baseline, row.note)
    return table


def finish(setup: Setup, title: str, rows: Sequence[Row], json_path: Path | None, **measured: Any) -> None:
    """Print the figures, and write them with all that was measured to `json_path`."""
    console.print(figures_table(rows, setup.machine, f"{title}, roughly: small samples" if setup.quick else title))
    if json_path is not None:
        data = {
            "machine": setup.machine,
            "model": setup.name,
            "quick": setup.quick,
            "figures": [row.to_json() for row in rows],
            **measured,
        }
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
        console.print(f"written to {json_path}", highlight=False)


def write_between(page: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Put `lines` between two marks in a page, in place of what stands there. Raises `UserError` without the marks."""
    before, begins, rest = page.read_text("utf-8").partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise UserError(f"{page} has no place for the figures: put {begin} and {end} where they belong.")
    page.write_text("\n".join((before + begin, *lines, end)) + after, "utf-8")


# --- text that the model never saw --------------------------------------------------------------------------


class HeldoutText:
    """The Python files of the held-out projects, in an order that is the same on every machine."""

    def __init__(self, directory: Path) -> None:
        self.files: list[SourceFile] = sorted(heldout_files([directory]).files, key=rank_of)
        self._all = b"\n\n".join(file.text for file in self.files)

    def of_size(self, size: int) -> bytes:
        """Return files one after another, `size` bytes in all, ended in the middle of a line as when one is typed.

        Where there is less text it begins again: the model's state is no longer than a few lines.
        """
        return whole_characters((self._all * (size // len(self._all) + 1))[:size])

    def of_lines(self, lines: int) -> bytes:
        """Return the first `lines` lines of the shortest file that has so many; of all files together if none has."""
        enough = [file.text for file in self.files if file.text.count(b"\n") >= lines]
        text = min(enough, key=lambda text: text.count(b"\n")) if enough else self._all
        while text.count(b"\n") < lines:
            text += self._all
        return b"".join(text.splitlines(keepends=True)[:lines])


def whole_characters(data: bytes) -> bytes:
    """Return `data` without the parts of characters that a cut has left."""
    return data.decode("utf-8", errors="ignore").encode("utf-8")


# --- the baseline -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Naive:
    """How long a server that keeps no state takes for one key. `scaled`: computed from reading less of the file."""

    seconds: float
    scaled: bool

    def __str__(self) -> str:
        """Return the time in the unit that suits it, after a ~ where it was scaled."""
        text = f"{self.seconds:,.1f} s" if self.seconds >= 1 else f"{shown(1e3 * self.seconds)} ms"
        return "~" * self.scaled + text

    def to_json(self) -> dict[str, Any]:
        """Return the time as JSON data, to stand beside what ours took."""
        return {"naive_ms": 1e3 * self.seconds, "naive_scaled": self.scaled}


def naive_key(model: Model, data: bytes, offset: int, *, limit: int) -> Naive:
    """Return how long a server that reads the file again at each key takes for one at `offset` of `data`.

    It has every advantage: no protocol, no edit to apply, the text at hand as symbols, the model loaded and warm, and
    the same reading and decoding as ours. Of more than `limit` bytes only so many are read, and the time is scaled.
    """
    before = to_symbols(header("project/file.py") + normalise(data[:offset]))[:, None]  # [time, 1 lane]
    symbols = before[-limit:]
    line_after = data[offset : offset + 4096].partition(b"\n")[0]
    options = DecodeOptions(single_line=bool(line_after.strip()))
    started = time.perf_counter()
    state = model.initial_state()
    for begin in range(0, len(symbols), 4096):  # in pieces, for the memory's sake
        logits, state = model.advance(symbols[begin : begin + 4096], state)
    read = time.perf_counter()
    decode(model, Snapshot(offset, state, logits[0]), options)
    decoding = time.perf_counter() - read
    return Naive((read - started) * len(before) / len(symbols) + decoding, len(before) > len(symbols))
