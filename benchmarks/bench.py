"""All the figures that the project promises, printed beside the machine they were measured on.

    python -m benchmarks.bench [--quick] [--json FILE] [--record] [--model NAME] [--heldout DIRECTORY]

`make bench` runs it. The held-out projects are fetched the first time. Nothing here is part of the package,
and each figure is measured by the package's own commands' code. Run it on an idle machine.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import math
import statistics
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.table import Table

from benchmarks.editor import PAUSE
from benchmarks.workbench import (
    HELDOUT,
    ROOT,
    HeldoutPath,
    JsonPath,
    ModelName,
    Quick,
    Row,
    console,
    finish,
    machine_line,
    resident_mb,
    run,
    set_up,
    write_between,
)
from lsp_charrnn import doctor
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.alone import MemoriesAlone
from lsp_charrnn.evaluate.bits import BitsReport, measure_bits
from lsp_charrnn.evaluate.client import ServerSuggester
from lsp_charrnn.evaluate.memory import ALONE, DOCUMENT, PROJECT, MemoryBits, measure_memory
from lsp_charrnn.evaluate.picture import check_drawing
from lsp_charrnn.evaluate.replay import KEYS, WINDOWS, Place, Window, window_of
from lsp_charrnn.evaluate.typing import ALONE as LSTM_ALONE
from lsp_charrnn.evaluate.typing import COMPARED, TypingReport, measure_typing
from lsp_charrnn.evaluate.words import DocumentWords
from lsp_charrnn.train.card import add_evaluation
from lsp_charrnn.train.corpus import SourceFile
from lsp_charrnn.train.fetch import fetch, read_list

HELDOUT_LIST: Final = ROOT / "corpora" / "heldout-python.toml"
HEADLINE: Final = ("flask", "requests", "click", "attrs")  # whose bits per character are the figure
FIGURES_BEGIN: Final = "<!-- figures: written by benchmarks/bench.py --record -->"
FIGURES_END: Final = "<!-- end of figures -->"
DETAILS_BEGIN: Final = "<!-- details: written by benchmarks/bench.py --record -->"
DETAILS_END: Final = "<!-- end of details -->"
PICTURE: Final = ROOT / "docs" / "images" / "keystrokes.png"
FILE_LINES: Final = 300
COMPARED_HOW: Final = (
    "The same files, typed under the same rules. Accepted: of the distinct suggestions shown, whole ones being taken; "
    "p50 / p99: from a key to its answer, back to back, through the server (words and memories alone: in process). "
    "Compressors have been given the rest of the project first."
)
EAGER: Final = 0.1  # decode.cost of "tuned for saving"
SAMPLE: Final = 600_000  # characters that the memories are measured on in bits: the compressors take minutes


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    record: Annotated[
        bool, typer.Option(help="Write the figures into README.md, docs/figures.md and the model's card.")
    ] = False,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Measure and print every figure."""
    if record:
        if quick:
            raise UserError(
                "--record publishes figures, and those of --quick are of small samples: leave out one of them."
            )
        check_drawing(PICTURE)
    fetch_heldout(heldout)
    setup = set_up(quick, model, heldout, seconds=0.5 if quick else 3.0, text_is="held-out projects in")
    directory, examined = setup.directory, setup.examined
    with console.status("") as status:  # the cheap ones first
        windows = windows_at_line(setup.heldout.files, FILE_LINES + 1, keys=60 if quick else 150, count=4)
        status.update("server start")
        start = measure_start(directory, windows[0], runs=3 if quick else 7)
        status.update("latency")
        latency = asyncio.run(measure_latency(directory, windows))
        status.update("memory")
        memory = asyncio.run(measure_resident(directory, windows[:3]))

        def typed(place: Place = "end", cost: float | None = None, *, compare: bool = False) -> TypingReport:
            return asyncio.run(
                measure_typing(
                    [heldout],
                    model=directory,
                    settings=None if cost is None else {"decode.cost": cost},
                    files=6 if quick else WINDOWS,
                    keys=100 if quick else KEYS,
                    place=place,
                    baseline=compare,
                    compare=compare,
                    progress=lambda what, done, total: status.update(f"{place}, {what}: file {done + 1} of {total}"),
                )
            )

        typing, eager, middle = typed(compare=True), typed(cost=EAGER), typed("middle")
        memory_bits = measure_memory(
            [heldout],
            model=directory,
            max_chars=60_000 if quick else SAMPLE,
            compare=True,
            progress=lambda done, total: status.update(f"bits with the memories: {100 * done // total} %"),
        )
        bits = measure_bits(
            [heldout],  # and not each project's directory: in this work tree git ignores all of them
            model=directory,
            max_chars=100_000 if quick else None,
            projects=HEADLINE,
            progress=lambda done, total: status.update(f"bits per character: {100 * done // total} %"),
        )
    rows = [
        *typing_rows(typing, eager, middle),
        *memory_bits_rows(memory_bits),
        latency_row(latency),
        step_row(examined),
        start_row(start),
        memory_row(memory),
        bits_row(bits),
    ]
    for report in (typing, eager, middle, memory_bits):
        console.print(report.table())
    compared = comparison(typing, memory_bits)
    console.print(comparison_table(compared))
    finish(
        setup,
        "Figures",
        rows,
        json_path,
        typing=typing.to_json(),
        typing_eager=eager.to_json(),
        typing_middle=middle.to_json(),
        memory_bits=memory_bits.to_json(),
        latency_ms=latency,
        start_s=start,
        memory_mb=memory,
        step={
            "microseconds": {step.lanes: step.microseconds for step in examined.steps},
            "bound_microseconds": examined.bound_microseconds,
            "weight_bytes": examined.size_bytes,
            "gigabytes_per_second": examined.bandwidth,
        },
        bits=bits.to_json(),
    )
    if record:
        measured_on = machine_line(setup.machine)
        typing.picture(PICTURE)
        write_pages(rows, compared, measured_on)
        by_project = {name: figures["bits_per_char"] for name, figures in bits.to_json()["projects"].items()}
        saved = {f"{row.suggester}, {row.accept}": round(row.saved, 4) for row in typing.rows}
        facts = {
            "machine": measured_on,
            "bits_per_char": round(bits.bits_per_char, 4),
            "characters": bits.characters,
            **{f"bits_per_char {name}": round(value, 4) for name, value in by_project.items()},
            **{f"keystrokes saved, {name}": value for name, value in saved.items()},
        }
        add_evaluation(directory, {"make bench": facts})
        console.print(
            f"written into README.md, docs/figures.md, {PICTURE.name} and the card of {setup.name}", highlight=False
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


def windows_at_line(files: Iterable[SourceFile], line: int, *, keys: int, count: int) -> list[Window]:
    """Return windows that start at `line`, of the first `count` files that are long enough."""
    windows = (window_of(file, keys, line=line) for file in files)
    return list(islice(filter(None, windows), count))


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


async def measure_resident(model: Path, windows: list[Window]) -> float:
    """Return the server's resident memory in MB, with these files open and typed into."""
    async with ServerSuggester.started(model=model, projects={w.project for w in windows}) as server:
        for window in windows:
            await server.open(window, window.text[: window.start], "")
            for character in window.text[window.start : window.start + 50]:
                await server.suggest(character)
        return resident_mb(server.pid)


def typing_rows(report: TypingReport, eager: TypingReport, middle: TypingReport) -> list[Row]:
    """Return keystrokes saved by full acceptance and with accept-next-word, and against the baselines."""
    words = report.row(DocumentWords.name, "all")
    both = "LSTM + document + project"
    rows = []
    for name, of, suggester, targets in (
        ("LSTM alone", report, "LSTM alone", (0.38, 0.42)),
        ("document and project memory", report, both, (0.49, 0.58)),
        (f"the same, tuned for saving (decode.cost {EAGER:g})", eager, ServerSuggester.name, (0.54, 0.64)),
    ):
        whole, next_word = of.row(suggester, "all"), of.row(suggester, "words")
        rows.append(
            Row(
                f"keystrokes saved, held-out Python, {name}: whole suggestions / and next words",
                " / ".join(f"{100 * target:.0f}" for target in targets) + " %",
                f"{100 * whole.saved:.1f} / {100 * next_word.saved:.1f} %",
                whole.saved >= targets[0] and next_word.saved >= targets[1],
                f"{whole.keys_without:,} keys, ± {100 * whole.saved_error:.1f}; accepted {100 * whole.acceptance:.0f} "
                f"and {100 * next_word.acceptance:.0f} % of what is shown, at {100 * whole.shown:.0f} and "
                f"{100 * next_word.shown:.0f} % of the keys",
            )
        )
    ours, inside = report.row(both, "all"), middle.row(ServerSuggester.name, "all")
    alone = report.row(MemoriesAlone.name, "all")
    rows += [
        Row(
            "of what is shown, accepted (whole suggestions)",
            "40 %",
            f"{100 * ours.acceptance:.0f} %",
            ours.acceptance >= 0.4,
        ),
        Row(
            "keystrokes saved, against words of the document as editors complete them",
            "2 ×",
            f"{ours.saved / words.saved:.2f} ×",
            ours.saved >= 2 * words.saved,
            f"words {100 * words.saved:.1f} %, accepted {100 * words.acceptance:.0f} %; the memories without the LSTM "
            f"{100 * alone.saved:.1f} %",
        ),
        Row(
            "keystrokes saved in the middle of a file, against its end",
            "-3 points",
            f"{100 * (inside.saved - ours.saved):+.1f} points",
            inside.saved >= ours.saved - 0.03,
            f"{100 * inside.saved:.1f} %",
        ),
    ]
    return rows


def memory_bits_rows(report: MemoryBits) -> list[Row]:
    """Return what the memories save in bits, of the LSTM's and against PPMd."""
    alone = report.bits_per_char(ALONE)
    document, project = report.bits_per_char(DOCUMENT), report.bits_per_char(PROJECT)
    ppmd = next(way for way in report.ways if way.lower().startswith("ppmd"))
    other = report.bits_per_char(ppmd)
    return [
        Row(
            "bits per character: LSTM → and document → and project",
            "-22 → -36 %",
            f"{alone:.3f} → {document:.3f} → {project:.3f} ({document / alone - 1:+.0%} → {project / alone - 1:+.0%})",
            document <= 0.78 * alone and project <= 0.64 * alone,
            f"{report.characters:,} characters of all held-out projects",
        ),
        Row(
            "the same against PPMd-16, given the rest of the project first",
            "-15 %",
            f"{project / other - 1:+.0%}",
            project <= 0.85 * other,
            f"{ppmd} {other:.3f}",
        ),
    ]


def latency_row(latency: dict[str, float]) -> Row:
    """Return the latency of a key."""
    return Row(
        f"latency didChange → reply over stdio, p50 / p95 / p99, end of a {FILE_LINES}-line file",
        "15 / 40 / – ms",
        f"{latency['p50']:.1f} / {latency['p95']:.1f} / {latency['p99']:.1f} ms",
        latency["p50"] <= 15 and latency["p95"] <= 40,
        f"{latency['keys']:.0f} keys, {1e3 * PAUSE:.0f} ms between them",
    )


def step_row(report: doctor.Report) -> Row:
    """Return how far a step is from the time in which its weights can be read."""
    times = {step.lanes: step.microseconds for step in report.steps}
    one, eight = times[1] / report.bound_microseconds, times[8] / report.bound_microseconds
    return Row(
        "one step, 1 lane / 8 lanes, against the weight-streaming bound",
        "1.3 / 1.6 ×",
        f"{one:.2f} / {eight:.2f} ×",
        one <= 1.3 and eight <= 1.6,
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
        "1.25",
        f"{report.bits_per_char:.3f}",
        report.bits_per_char <= 1.25,
        f"{report.characters:,} characters; "
        + ", ".join(f"{name} {figures['bits_per_char']:.3f}" for name, figures in projects.items()),
    )


def comparison(typing: TypingReport, bits: MemoryBits) -> list[tuple[str, ...]]:
    """Return what is compared, as the cells of a table whose first row is its head: suggesters, then compressors."""
    costs = {way: f"{bits.bits_per_char(way):.3f}" for way in bits.ways}
    head = ("", "saved, whole", "and next words", "accepted", "p50 / p99", "bits per character")
    rows: list[tuple[str, ...]] = [head]
    for suggester, name in COMPARED.items():
        whole = typing.row(suggester, "all")
        # A word of the document is taken whole or not at all.
        next_word = whole if suggester == DocumentWords.name else typing.row(suggester, "words")
        rows.append(
            (
                name,
                *(f"{100 * row.saved:.1f} ± {100 * row.saved_error:.1f} %" for row in (whole, next_word)),
                f"{100 * whole.acceptance:.0f} %",
                f"{whole.latency_ms(50):.1f} / {whole.latency_ms(99):.1f} ms",
                costs.get(ALONE if suggester == LSTM_ALONE else suggester, ""),
            )
        )
    others = [way for way in bits.ways if way not in (ALONE, DOCUMENT, PROJECT)]
    return [*rows, *((way, "", "", "", "", costs[way]) for way in others)]


def comparison_table(compared: list[tuple[str, ...]]) -> Table:
    """Return the comparison to be printed."""
    table = Table(title="Compared", caption=COMPARED_HOW, caption_justify="left")
    for heading, *_ in zip(*compared, strict=True):
        table.add_column(heading, justify="right" if heading else "left")
    for cells in compared[1:]:
        table.add_row(*cells)
    return table


def write_pages(rows: list[Row], compared: list[tuple[str, ...]], measured_on: str) -> None:
    """Put the figures between the marks in README.md, and how they were counted between those in docs/figures.md."""
    lines = ["| figure | aim | reached | |", "|---|---|---|---|"]
    for row in rows:
        mark = {True: "✓", False: "not yet", None: "?"}[row.enough]
        lines.append(f"| {row.figure} | {row.target} | **{row.reached}** | {mark} |")
    measured = ["", f"Measured on: {measured_on}."]
    write_between(ROOT / "README.md", FIGURES_BEGIN, FIGURES_END, [*lines, *measured])
    head, *body = (f"| {' | '.join(cells)} |" for cells in compared)
    details = [f"- {row.figure}: {row.note}." for row in rows if row.note]
    details += ["", head, "|---|" + "---|" * (len(compared[0]) - 1), *body, "", COMPARED_HOW]
    write_between(ROOT / "docs" / "figures.md", DETAILS_BEGIN, DETAILS_END, [*details, *measured])


if __name__ == "__main__":
    run(main)
