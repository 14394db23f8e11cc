"""How much memory the server takes, and keeps, and whether anything goes wrong, over an hour of typing.

python -m benchmarks.memory_growth [--quick] [--json FILE] [--keys N] [--documents N] [--model NAME] [--heldout DIR]
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from benchmarks.editor import PROJECT, retype, server_with, stretch_at
from benchmarks.workbench import (
    HELDOUT,
    HeldoutPath,
    JsonPath,
    ModelName,
    Quick,
    Row,
    Setup,
    Times,
    console,
    finish,
    resident_mb,
    run,
    set_up,
)
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.client import ServerSuggester
from lsp_charrnn.evaluate.replay import ACCEPTS, PLACES, Window, replay, window_of

DOCUMENTS: Final = 50  # opened, typed into and closed; and open at once
DOCUMENTS_TARGET: Final = 20.0  # MB
TYPED: Final = 50  # keys in each of them
KEYS: Final = 100_000  # about an hour of a fast typist: 28 a second
WINDOW: Final = 500  # keys in one file before the next is opened
WARM_UP: Final = 5_000  # keys before growth counts
GROWTH_TARGET: Final = 10.0  # MB
REST_AFTER: Final = 10  # documents: then one is left open until it has been read
SAMPLES: Final = 200  # of the resident memory, over the whole replay
BARS: Final = 20  # lines of the printed curve
MOST_ERRORS: Final = 100  # after so many nobody needs the rest


@dataclass(frozen=True)
class Documents:
    """Resident memory in MB around many documents."""

    started: float  # nothing open yet
    before: float  # the model loaded, one document opened, completed and closed
    closed: float  # after all had been opened, typed into and closed, one after another
    all_open: float  # all open at once, each read
    all_closed: float
    log: tuple[str, ...]


@dataclass
class Replayed:
    """What came of typing for very long."""

    keys: int = 0
    documents: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)  # (keys, MB)
    seconds: list[float] = field(default_factory=list)  # of each key
    errors: list[str] = field(default_factory=list)  # of the protocol, or shown to the user
    log: tuple[str, ...] = ()  # the last lines of it

    def growth(self, warm_up: int) -> float:
        """Return the MB from after the warm-up to the end; nan where there is nothing to tell it by."""
        after = [mb for keys, mb in self.curve if keys >= warm_up]
        return after[-1] - after[0] if len(after) > 1 else math.nan

    def peak(self, warm_up: int) -> float:
        """Return the MB from after the warm-up to the highest sample."""
        after = [mb for keys, mb in self.curve if keys >= warm_up]
        return max(after) - after[0] if after else math.nan


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    keys: Annotated[int | None, typer.Option(help="Keys to replay.", min=1)] = None,
    documents: Annotated[int | None, typer.Option(help="Documents to open.", min=1)] = None,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Watch the resident memory of the real server.

    After 50 held-out files have been opened, typed into and closed, against before; with 50 open at once, each read;
    and over an hour of typing without the pauses: 100,000 keys replayed back to back in one file after another, every
    key with its request, right suggestions taken. Errors are counted: of the protocol, shown to the user, or logged.
    """
    setup = set_up(quick, model, heldout)
    keys = keys or (6_000 if quick else KEYS)
    warm_up = min(WARM_UP, keys // 4)
    number = documents or (10 if quick else DOCUMENTS)
    opened = asyncio.run(measure_documents(setup, number))
    replayed = asyncio.run(measure_replay(setup, keys))
    rows = [*document_rows(opened, number), *replay_rows(replayed, keys, warm_up)]
    finish(setup, "Memory", rows, json_path, measurements=to_json(opened, replayed, warm_up))
    print_curve(replayed, warm_up)
    for error in dict.fromkeys([*replayed.errors, *replayed.log, *opened.log]):
        console.print(error, style="red", markup=False, highlight=False)


# --- what is done -------------------------------------------------------------------------------------------


async def measure_documents(setup: Setup, number: int) -> Documents:
    """Open, type into and close so many documents one by one; then open them all at once, and close them."""
    files = setup.heldout.files
    texts = [files[index % len(files)].text for index in range(number)]
    async with server_with(setup.directory) as editor:
        started = resident_mb(editor.pid)
        first, _ = await editor.open_and_complete(b"import os\nimport s", 18, "first.py")
        editor.close_text(first)
        await editor.idle()
        before = resident_mb(editor.pid)
        with console.status("") as status:
            for index, text in enumerate(texts):
                status.update(f"document {index + 1} of {number}")
                buffer = editor.open_text(text, f"one_{index}.py")
                await retype(editor, buffer, stretch_at(text, len(text) // 2, TYPED), pause=0)
                editor.close_text(buffer)
            await editor.idle()
            closed = resident_mb(editor.pid)
            buffers = []
            for index, text in enumerate(texts):
                status.update(f"document {index + 1} of {number}, all open")
                buffer, _ = await editor.open_and_complete(text, len(text), f"all_{index}.py")
                await editor.settled(buffer)
                buffers.append(buffer)
            all_open = resident_mb(editor.pid)
            for buffer in buffers:
                editor.close_text(buffer)
            await editor.idle()
            return Documents(started, before, closed, all_open, resident_mb(editor.pid), tuple(editor.log))


async def measure_replay(setup: Setup, keys: int) -> Replayed:
    """Type `keys` keys without a pause, file after file."""
    replayed = Replayed()
    every = max(1, keys // SAMPLES)
    windows = windows_of(setup, keys)
    async with server_with(setup.directory) as editor:
        with console.status("") as status:

            def typed(_: int) -> None:
                replayed.keys += 1
                if replayed.keys % every == 0:
                    replayed.curve.append((replayed.keys, resident_mb(editor.pid)))
                    status.update(
                        f"{replayed.keys:,} of {keys:,} keys, {replayed.documents} documents, "
                        f"{replayed.curve[-1][1]:.0f} MB, {len(replayed.errors)} errors"
                    )

            while replayed.keys < keys:
                window = next(windows)
                accept, place = ACCEPTS[replayed.documents % 2], PLACES[replayed.documents // 2 % 2]
                try:
                    one = await replay(window, editor, accept=accept, place=place, progress=typed)
                    replayed.seconds += one.latencies
                except UserError as error:
                    replayed.errors.append(str(error))
                    if len(replayed.errors) >= MOST_ERRORS or stopped(editor):
                        break
                replayed.documents += 1
                if replayed.documents % REST_AFTER == 0:  # else the server never comes to read in the background
                    text = setup.heldout.files[replayed.documents % len(setup.heldout.files)].text
                    buffer, _ = await editor.open_and_complete(text, len(text) // 2, f"rest_{replayed.documents}.py")
                    await editor.settled(buffer)
                    editor.close_text(buffer)
        replayed.log = tuple(editor.log)
    return replayed


def windows_of(setup: Setup, keys: int) -> Iterator[Window]:
    """Yield a stretch of each held-out file in turn, again and again; another stretch each time, under another name."""
    for round_ in count():
        for file in setup.heldout.files:
            length = file.text.count(b"\n")
            line = 1 + length * (round_ * 7 % 10) // 10
            window = window_of(file, min(WINDOW, keys, max(1, len(file.text) // 20)), line=line)
            if window is not None:
                yield Window(
                    PROJECT, f"{round_}/{file.project}/{file.path}", "python", window.text, window.start, window.end
                )


def stopped(server: ServerSuggester) -> bool:
    """Say whether the server's process is gone."""
    return not Path(f"/proc/{server.pid}").exists() and Path("/proc/self").exists()


# --- what came of it ----------------------------------------------------------------------------------------


def document_rows(opened: Documents, number: int) -> list[Row]:
    """Return the figures of many documents."""
    known = not math.isnan(opened.before)
    kept, all_open = opened.closed - opened.before, opened.all_open - opened.before
    return [
        Row(
            f"resident memory after {number} files opened, typed into and closed, against before",
            f"+{DOCUMENTS_TARGET:.0f} MB",
            f"{kept:+.1f} MB" if known else "not told by this system",
            kept <= DOCUMENTS_TARGET if known else None,
            f"{opened.before:.0f} → {opened.closed:.0f} MB, {TYPED} keys each; {opened.started:.0f} before the model",
        ),
        Row(
            f"{number} files open at once, each read",
            "",
            f"{all_open:+.1f} MB" if known else "not told by this system",
            None,
            f"{opened.all_open:.0f} MB, {all_open / number:.1f} MB each; {opened.all_closed:.0f} MB once closed",
        ),
    ]


def replay_rows(replayed: Replayed, keys: int, warm_up: int) -> list[Row]:
    """Return the figures of the long replay."""
    growth = replayed.growth(warm_up)
    errors, logged = len(replayed.errors), len(replayed.log)
    times = Times(replayed.seconds)
    return [
        Row(
            f"growth over {keys:,} keys replayed back to back",
            f"{GROWTH_TARGET:.0f} MB",
            f"{growth:+.1f} MB" if not math.isnan(growth) else "not told by this system",
            growth < GROWTH_TARGET if not math.isnan(growth) else None,
            f"from key {warm_up:,} on, at most {replayed.peak(warm_up):+.1f} MB; {replayed.documents} documents; "
            f"a key takes {times}",
        ),
        Row(
            "errors on the way",
            "none",
            f"{errors + logged}",
            errors + logged == 0 and replayed.keys >= keys,
            f"{replayed.keys:,} keys; {errors} of the protocol or shown to the user, {logged} lines in the log",
        ),
    ]


def to_json(opened: Documents, replayed: Replayed, warm_up: int) -> dict[str, Any]:
    """Return all that was measured as JSON data; of the keys' times only the percentiles, for they are many."""
    return {
        "documents_mb": {
            "started": opened.started,
            "before": opened.before,
            "closed": opened.closed,
            "all_open": opened.all_open,
            "all_closed": opened.all_closed,
        },
        "replay": {
            "keys": replayed.keys,
            "documents": replayed.documents,
            "warm_up": warm_up,
            "growth_mb": replayed.growth(warm_up),
            "peak_mb": replayed.peak(warm_up),
            "curve": replayed.curve,
            "errors": replayed.errors,
            "times_ms": Times(replayed.seconds).percentiles(),
        },
        "log": [*opened.log, *replayed.log],
    }


def print_curve(replayed: Replayed, warm_up: int) -> None:
    """Print the resident memory over the replay, a bar to the highest."""
    points = replayed.curve[:: max(1, len(replayed.curve) // BARS)]
    if not points or math.isnan(points[0][1]):
        return
    high = max(mb for _, mb in replayed.curve)
    table = Table(title="Resident memory of the server over the replay")
    for heading in ("keys", "MB", "against after the warm-up"):
        table.add_column(heading, justify="right")
    table.add_column("")
    base = next((mb for keys, mb in replayed.curve if keys >= warm_up), points[0][1])
    for keys, mb in points:
        against = f"{mb - base:+.1f}" if keys >= warm_up else "warming up"
        table.add_row(f"{keys:,}", f"{mb:.1f}", against, "█" * round(40 * mb / high))
    console.print(table)


if __name__ == "__main__":
    run(main)
