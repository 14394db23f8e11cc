"""All the figures that the project promises, printed beside the machine they were measured on.

    python benchmarks/bench.py [--quick] [--json FILE] [--record] [--model NAME] [--heldout DIRECTORY]

`make bench` runs it. The held-out projects are fetched the first time. Nothing here is part of the package,
and each figure is measured by the package's own commands' code. Run it on an idle machine.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from lsp_charrnn import doctor
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.bits import BitsReport, measure_bits
from lsp_charrnn.evaluate.client import ServerSuggester
from lsp_charrnn.evaluate.heldout import heldout_files, rank_of
from lsp_charrnn.evaluate.replay import KEYS, WINDOWS, Accept, Window, window_of
from lsp_charrnn.evaluate.typing import TypingReport, measure_typing
from lsp_charrnn.evaluate.words import DocumentWords
from lsp_charrnn.model.files import find_model, model_for_language, read_config
from lsp_charrnn.train.card import add_evaluation
from lsp_charrnn.train.fetch import fetch, read_list

ROOT: Final = Path(__file__).resolve().parent.parent
HELDOUT_LIST: Final = ROOT / "corpora" / "heldout-python.toml"
HEADLINE: Final = ("flask", "requests", "click", "attrs")  # whose bits per character are the figure
FIGURES_BEGIN: Final = "<!-- figures: written by benchmarks/bench.py --record -->"
FIGURES_END: Final = "<!-- end of figures -->"
FILE_LINES: Final = 300
PAUSE: Final = 0.05  # seconds between keys where latency is measured: a fast typist, and caches as cold as theirs

console = Console(width=None if sys.stdout.isatty() else 110)


@dataclass(frozen=True)
class Row:
    """One figure: what was asked, what was reached, and whether that is enough (None: cannot be said)."""

    figure: str
    target: str
    reached: str
    enough: bool | None
    note: str = ""


def main(
    quick: Annotated[bool, typer.Option(help="Small samples: rough figures in about a minute.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
    record: Annotated[bool, typer.Option(help="Write the figures into README.md and the model's card.")] = False,
    model: Annotated[str, typer.Option(help="Name or path of a model; by default Python's own.")] = "",
    heldout: Annotated[Path, typer.Option(help="Where the held-out projects are, or go.")] = ROOT / "heldout",
) -> None:
    """Measure and print every figure."""
    try:
        bench(quick, json_path, record, model, heldout)
    except UserError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from None


def bench(quick: bool, json_path: Path | None, record: bool, model: str, heldout: Path) -> None:
    """Measure and print every figure, the cheap ones first."""
    fetch_heldout(heldout)
    directory = find_model(model) if model else model_for_language("python")
    name = str(read_config(directory)[0]["name"])
    examined = doctor.examine(str(directory), seconds=0.5 if quick else 3.0)
    here = machine(examined)
    console.print(f"model {name} ({directory}), held-out projects in {heldout}", highlight=False)
    console.print(machine_line(here), highlight=False)
    for problem in examined.problems:
        console.print(f"{problem.wrong}: {problem.mend}", style="yellow", markup=False, highlight=False)

    with console.status("") as status:
        windows = windows_at_line(heldout, FILE_LINES + 1, keys=60 if quick else 150, count=4)
        status.update("server start")
        start = measure_start(directory, windows[0], runs=3 if quick else 7)
        status.update("latency")
        latency = asyncio.run(measure_latency(directory, windows))
        status.update("memory")
        memory = asyncio.run(measure_memory(directory, windows[:3]))
        typing = asyncio.run(
            measure_typing(
                [heldout],
                model=directory,
                files=6 if quick else WINDOWS,
                keys=100 if quick else KEYS,
                progress=lambda what, done, total: status.update(f"{what}: file {done + 1} of {total}"),
            )
        )
        bits = measure_bits(
            [heldout / project for project in HEADLINE],
            model=directory,
            max_chars=100_000 if quick else None,
            progress=lambda done, total: status.update(f"bits per character: {100 * done // total} %"),
        )
    rows = [
        *typing_rows(typing),
        latency_row(latency),
        step_row(examined),
        start_row(start),
        memory_row(memory),
        bits_row(bits),
    ]
    console.print(typing.table())
    console.print(figures_table(rows, here, quick))
    if json_path is not None:
        data = {
            "machine": here,
            "model": name,
            "quick": quick,
            "figures": [asdict(row) for row in rows],
            "typing": typing.to_json(),
            "latency_ms": latency,
            "start_s": start,
            "memory_mb": memory,
            "step": {
                "microseconds": {step.lanes: step.microseconds for step in examined.steps},
                "bound_microseconds": examined.bound_microseconds,
                "weight_bytes": examined.size_bytes,
                "gigabytes_per_second": examined.bandwidth,
            },
            "bits": bits.to_json(),
        }
        json_path.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
        console.print(f"written to {json_path}", highlight=False)
    if record:
        write_readme(rows, typing, here)
        by_project = {name: figures["bits_per_char"] for name, figures in bits.to_json()["projects"].items()}
        saved = {f"{row.suggester}, {row.accept}": round(row.saved, 4) for row in typing.rows}
        facts = {
            "machine": machine_line(here),
            "bits_per_char": round(bits.bits_per_char, 4),
            "characters": bits.characters,
            **{f"bits_per_char {name}": round(value, 4) for name, value in by_project.items()},
            **{f"keystrokes saved, {name}": value for name, value in saved.items()},
        }
        add_evaluation(directory, {"make bench": facts})
        console.print(f"written into README.md and the card of {name}", highlight=False)


# --- what it runs on ----------------------------------------------------------------------------------------


def machine(report: doctor.Report) -> dict[str, Any]:
    """Return what the figures depend on beside the code."""
    return {
        "cpu": report.cpu,
        "features": list(report.features),
        "cores": report.cores,
        "system": report.system,
        "load_before": round(report.load, 2),
        "versions": report.versions,
    }


def machine_line(here: dict[str, Any]) -> str:
    """Return the machine in one line."""
    versions = here["versions"]
    return (
        f"{here['cpu']}, {here['cores']} core(s) ({', '.join(here['features'])}), {here['system']}, "
        f"Python {versions['python']}, ONNX Runtime {versions.get('onnxruntime')}, "
        f"{here['load_before']} processes wanted a core before"
    )


def fetch_heldout(directory: Path) -> None:
    """Fetch the held-out projects that are not there."""
    projects = {release.project for release in read_list(HELDOUT_LIST)}
    if all((directory / project).is_dir() for project in projects):
        return
    console.print(f"fetching the held-out projects into {directory} ...", highlight=False)
    for result in fetch(HELDOUT_LIST, directory):
        if result.reason:
            console.print(f"{result.release.name}: {result.outcome}, {result.reason}", highlight=False)


# --- the figures --------------------------------------------------------------------------------------------


def windows_at_line(heldout: Path, line: int, *, keys: int, count: int) -> list[Window]:
    """Return windows of held-out files that start at `line`, the same ones on every machine."""
    windows = []
    for file in sorted(heldout_files([heldout]).files, key=rank_of):
        window = window_of(file, keys, line=line)
        if window is not None:
            windows.append(window)
        if len(windows) == count:
            break
    return windows


def measure_start(model: Path, window: Window, *, runs: int) -> list[float]:
    """Return the seconds from starting the server to its first suggestion, run by run; the disk is warm."""

    async def once() -> float:
        started = time.perf_counter()
        async with ServerSuggester.started(model=model, projects={window.project}) as server:
            await server.open(window, window.text[: window.start], "")
            for character in window.text[window.start :]:
                if await server.suggest(character):
                    break
            return time.perf_counter() - started

    asyncio.run(once())  # warms the disk
    return [asyncio.run(once()) for _ in range(runs)]


async def measure_latency(model: Path, windows: list[Window]) -> dict[str, float]:
    """Return percentiles of didChange -> reply in milliseconds, typing at the end of a file of 300 lines."""
    times: list[float] = []
    async with ServerSuggester.started(model=model, projects={w.project for w in windows}) as server:
        for window in windows:
            await server.open(window, window.text[: window.start], "")
            await server.suggest("")
            for character in window.text[window.start : window.end]:
                await asyncio.sleep(PAUSE)
                started = time.perf_counter()
                await server.suggest(character)
                times.append(1e3 * (time.perf_counter() - started))
            await server.close()
    return {"keys": len(times), **{f"p{p}": float(np.percentile(times, p)) for p in (50, 95, 99)}}


async def measure_memory(model: Path, windows: list[Window]) -> float:
    """Return the server's resident memory in MB, with these files open and typed into."""
    async with ServerSuggester.started(model=model, projects={w.project for w in windows}) as server:
        for window in windows:
            await server.open(window, window.text[: window.start], "")
            for character in window.text[window.start : window.start + 50]:
                await server.suggest(character)
        return resident_mb(server.pid)


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in MB; nan where the system does not tell it."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return math.nan


def typing_rows(report: TypingReport) -> list[Row]:
    """Return keystrokes saved by full acceptance and with accept-next-word."""
    words = report.row(DocumentWords.name, "all")
    rows = []
    targets: tuple[tuple[Accept, str, float], ...] = (
        ("all", "keystrokes saved by full acceptance, held-out Python, LSTM alone", 0.38),
        ("words", "keystrokes saved with accept-next-word", 0.42),
    )
    for accept, figure, target in targets:
        row = report.row(ServerSuggester.name, accept)
        note = (
            f"{row.keys_without:,} keys, ± {100 * row.saved_error:.1f}; accepted {100 * row.acceptance:.0f} % of "
            f"what is shown, at {100 * row.shown:.0f} % of the keys; document's words {100 * words.saved:.1f} %"
        )
        rows.append(Row(figure, f"{100 * target:.0f} %", f"{100 * row.saved:.1f} %", row.saved >= target, note))
    return rows


def latency_row(latency: dict[str, float]) -> Row:
    """Return the latency of a key."""
    return Row(
        f"latency didChange → reply over stdio, p50 / p95, end of a {FILE_LINES}-line file",
        "15 / 40 ms",
        f"{latency['p50']:.1f} / {latency['p95']:.1f} ms",
        latency["p50"] <= 15 and latency["p95"] <= 40,
        f"{latency['keys']:.0f} keys, {1e3 * PAUSE:.0f} ms between them; p99 {latency['p99']:.1f} ms",
    )


def step_row(report: doctor.Report) -> Row:
    """Return how far a step is from the time in which its weights can be read."""
    times = {step.lanes: step.microseconds for step in report.steps}
    figure, target = "one step, 1 lane / 8 lanes, against the weight-streaming bound", "1.6 / 2.2 ×"
    if not times:
        return Row(figure, target, "not measured", None, "see `lsp-charrnn doctor`")
    one, eight = times[1] / report.bound_microseconds, times[8] / report.bound_microseconds
    return Row(
        figure,
        target,
        f"{one:.2f} / {eight:.2f} ×",
        one <= 1.6 and eight <= 2.2,
        f"{times[1]:.0f} / {times[8]:.0f} µs; {report.size_bytes / 1e6:.2f} MB at {report.bandwidth:.1f} GB/s are "
        f"{report.bound_microseconds:.0f} µs",
    )


def start_row(seconds: list[float]) -> Row:
    """Return the time from the server's start to its first suggestion."""
    median = statistics.median(seconds)
    return Row(
        "server start to first completion, warm disk",
        "1.5 s",
        f"{median:.2f} s",
        median <= 1.5,
        f"median of {len(seconds)}, worst {max(seconds):.2f} s",
    )


def memory_row(megabytes: float) -> Row:
    """Return the server's resident memory."""
    known = not math.isnan(megabytes)
    return Row(
        "resident memory of the server, Python model, three open files",
        "200 MB",
        f"{megabytes:.0f} MB" if known else "not told by this system",
        megabytes <= 200 if known else None,
    )


def bits_row(report: BitsReport) -> Row:
    """Return bits per character, in all and for each project."""
    projects = report.to_json()["projects"]
    return Row(
        f"held-out bits per character, static LSTM ({', '.join(HEADLINE)})",
        "1.40",
        f"{report.bits_per_char:.3f}",
        report.bits_per_char <= 1.40,
        f"{report.characters:,} characters; "
        + ", ".join(f"{name} {figures['bits_per_char']:.3f}" for name, figures in projects.items()),
    )


def write_readme(rows: list[Row], typing: TypingReport, here: dict[str, Any]) -> None:
    """Put the figures between the marks in README.md."""
    lines = ["| figure | aim | reached | |", "|---|---|---|---|"]
    for row in rows:
        mark = {True: "✓", False: "not yet", None: "?"}[row.enough]
        lines.append(f"| {row.figure} | {row.target} | **{row.reached}** | {mark} |")
    lines += ["", *(f"- {row.figure}: {row.note}." for row in rows if row.note)]
    words = typing.row(DocumentWords.name, "all")
    lines += [
        f"- The baseline, completing words of the open document as editors do, under the same rules: "
        f"{100 * words.saved:.1f} % saved, accepted {100 * words.acceptance:.0f} % of what it showed.",
        "",
        f"Measured on: {machine_line(here)}.",
    ]
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(FIGURES_BEGIN)
    after = rest.partition(FIGURES_END)[2]
    readme.write_text("\n".join((before + FIGURES_BEGIN, *lines, FIGURES_END)) + after, "utf-8")


def figures_table(rows: list[Row], here: dict[str, Any], quick: bool) -> Table:
    """Return the figures beside their targets."""
    title = "Figures, roughly: small samples" if quick else "Figures"
    table = Table(title=title, caption=machine_line(here), caption_justify="left")
    table.add_column("figure")
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("reached", justify="right", no_wrap=True)
    table.add_column("")
    table.add_column("how", style="dim")
    for row in rows:
        mark = {True: "[green]yes[/]", False: "[red]no[/]", None: "?"}[row.enough]
        table.add_row(row.figure, row.target, row.reached, mark, row.note)
    return table


if __name__ == "__main__":
    typer.run(main)
