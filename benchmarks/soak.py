"""Whether the server is after a working day as it was in the morning: memory, latency, errors, over a million keys.

python -m benchmarks.soak [--quick] [--keys N] [--documents N] [--share F] [--json FILE] [--picture FILE.png]
    [--model NAME] [--heldout DIR]

A million keys are eight hours of a very fast typist (35 a second), without the pauses. They go into 200 documents of
one project, a few of which are open at a time: a stretch of a file is deleted and typed again, with slips that are
corrected, and the file is saved. One key in five (`--share`) asks for a completion and waits for it, as if the others
had been typed too fast for an answer: with one each it would take three hours instead of one. What is measured is
written each twentieth of the way, so that it can be looked at meanwhile; Ctrl-C ends it with what there is.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import json
import math
import random
import tempfile
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.editor import Buffer, Editor, server_with, stretch_at
from benchmarks.memory_growth import stopped
from benchmarks.workbench import (
    HELDOUT,
    SEED,
    HeldoutPath,
    JsonPath,
    ModelName,
    Quick,
    Row,
    Setup,
    Times,
    console,
    finish,
    machine_line,
    resident_mb,
    run,
    set_up,
)
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.output import check_place, write_whole
from lsp_charrnn.evaluate.picture import ASIDE, OTHERS, OURS, blank, check_drawing, save
from lsp_charrnn.server.projects import GATHERED
from lsp_charrnn.text.document import Edit

KEYS: Final = 1_000_000
QUICK_KEYS: Final = 20_000
DOCUMENTS: Final = 200
OPEN: Final = 8  # documents at a time; of more, the one used longest ago is closed
VISIT: Final = 250  # keys in a document before another is turned to
SHARE: Final = 0.2  # of the keys, which ask and wait
SLIPS: Final = 0.02  # of the keys: another first, then backspace
REST_EVERY: Final = 20  # visits, after which the user rests until all around the cursor has been read
STAGES: Final = 20  # parts of the way; after each all documents are closed, and memory is looked at
SAMPLES: Final = 400  # of the memory, over the whole way
MOST_ERRORS: Final = 100  # after so many nobody needs the rest
GROWTH_TARGET: Final = 10.0  # MB
SLOWER_TARGET: Final = 1.1  # times


@dataclass(frozen=True)
class Sample:
    """The server's resident memory after so many keys.

    `mb` is its own; `mapped_mb` is of files, the project's counts and libraries, and as much of these as was looked at:
    the system takes it back where it needs it.
    """

    keys: int
    mb: float
    mapped_mb: float
    open: int  # documents


@dataclass
class Day:
    """What has been measured so far."""

    wanted: int  # keys
    keys: int = 0
    visits: int = 0
    opened: int = 0  # documents; each time counts
    slips: int = 0
    suggestions: int = 0  # answers that held one
    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    replies: list[tuple[int, float]] = field(default_factory=list)  # (keys before it, ms)
    errors: list[str] = field(default_factory=list)  # of the protocol, shown to the user, or logged

    def closed(self) -> list[Sample]:
        """Return the samples with no document open."""
        return [sample for sample in self.samples if not sample.open]

    def growth(self) -> float:
        """Return the MB from the end of the first twentieth to now, with no document open; nan before the second."""
        closed = self.closed()
        return closed[-1].mb - closed[0].mb if len(closed) > 1 else math.nan

    def tenth(self, last: bool) -> Times:
        """Return the times of the replies to the first, or last, tenth of the keys typed so far."""
        edge = 0.9 * self.keys if last else 0.1 * self.keys
        return Times([ms / 1e3 for keys, ms in self.replies if (keys >= edge if last else keys < edge)])

    def slower(self) -> float:
        """Return how many times as long the last tenth's p99 is as the first's."""
        first = self.tenth(last=False).p(99)
        return self.tenth(last=True).p(99) / first if first else math.nan


def main(
    quick: Quick = False,
    keys: Annotated[int | None, typer.Option(help="Keys to type.", min=100)] = None,
    documents: Annotated[int, typer.Option(help="Documents to type in.", min=1)] = DOCUMENTS,
    share: Annotated[float, typer.Option(help="Share of the keys that ask for a completion.", min=0, max=1)] = SHARE,
    json_path: JsonPath = None,
    picture: Annotated[Path | None, typer.Option(help="Draw memory and latency here.", resolve_path=True)] = None,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Type all day, and watch the server."""
    if picture is not None:
        check_drawing(picture)
    if json_path is not None:
        check_place(json_path)
    keys = keys or (QUICK_KEYS if quick else KEYS)
    setup = set_up(keys < KEYS, model, heldout)
    day = Day(keys)

    def keep() -> None:
        if json_path is not None:
            write_whole(json_path, (json.dumps(to_json(day), indent=1) + "\n").encode())
        if picture is not None:
            draw(day, machine_line(setup.machine), picture)
        console.print(f"{day.keys:9,} keys: {sentence(day)}", highlight=False)

    try:
        asyncio.run(live(setup, day, documents, share, keep))
    except KeyboardInterrupt:
        console.print("stopped: this is what there is so far", style="yellow")
    finish(setup, "A day's typing", rows(day, share), json_path, measurements=to_json(day))
    if picture is not None:
        draw(day, machine_line(setup.machine), picture)
        console.print(f"drawn into {picture}", highlight=False)
    for error in dict.fromkeys(day.errors):
        console.print(error, style="red", markup=False, highlight=False)
    if day.errors or day.keys < day.wanted:
        sys.exit(1)


# --- what is done -------------------------------------------------------------------------------------------


async def live(setup: Setup, day: Day, documents: int, share: float, keep: Any) -> None:
    """Type `day.wanted` keys into so many documents of a project, noting in `day` what is measured."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "project").resolve()
        root.mkdir()
        texts = {}
        for number in range(documents):
            file = setup.heldout.files[number % len(setup.heldout.files)]
            texts[f"part_{number // 20}/{number}_{Path(file.path).name}"] = file.text
        for path, text in texts.items():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_bytes(text)
        async with server_with(setup.directory, cache=Path(place, "cache")) as editor:
            editor.enter(root)
            desk = Desk(editor, root, texts, day, random.Random(SEED), share)
            began = time.monotonic()
            try:
                stages = max(2, min(STAGES, day.wanted // 50))
                for stage in range(1, stages + 1):
                    while day.keys < day.wanted * stage / stages:
                        await desk.visit()
                    await desk.clear()
                    day.seconds = time.monotonic() - began
                    keep()
            except UserError as error:
                day.errors.append(str(error))
            finally:
                day.errors += editor.log


@dataclass
class Desk:
    """A user with some documents open. They turn to one, type, save it, and turn to another."""

    editor: Editor
    root: Path
    texts: dict[str, bytes]
    day: Day
    randomly: random.Random
    share: float
    buffers: OrderedDict[str, Buffer] = field(default_factory=OrderedDict)

    async def visit(self) -> None:
        """Turn to a document, delete a stretch of it and type that again, and save."""
        day = self.day
        path = self.randomly.choice([*self.texts])
        text = self.texts[path]
        stretch = stretch_at(text, self.randomly.randrange(max(1, len(text))), min(VISIT, max(1, len(text) // 20)))
        try:
            buffer = self._turn_to(path)
            self.editor.change(self.editor.edited(buffer, Edit(stretch.start, stretch.end, b"")))
            offset = stretch.start
            for key in stretch.keys:
                if self.randomly.random() < SLIPS:
                    day.slips += 1
                    await self._press(buffer, Edit(offset, offset, b"#"))
                    await self._press(buffer, Edit(offset, offset + 1, b""))
                await self._press(buffer, Edit(offset, offset, key))
                offset += len(key)
            (self.root / path).write_bytes(text)  # the same text again, so that it stays as long as it is
            self.editor.saved(buffer)
            day.visits += 1
            if day.visits % REST_EVERY == 0:  # else the server never comes to read in the background
                await self.editor.settled(buffer)
        except UserError as error:
            day.errors.append(str(error))
            self.buffers.pop(path, None)
            if len(day.errors) >= MOST_ERRORS or stopped(self.editor):
                raise

    async def clear(self) -> None:
        """Close all documents, and note the memory once the server has come to rest."""
        for path in list(self.buffers):
            self.editor.close_text(self.buffers.pop(path))
        await asyncio.sleep(2 * GATHERED)  # then it looks at what has been saved
        await self.editor.idle()
        self._note()

    def _turn_to(self, path: str) -> Buffer:
        if path not in self.buffers:
            self.buffers[path] = self.editor.open_text(self.texts[path], path)
            self.day.opened += 1
        self.buffers.move_to_end(path)
        while len(self.buffers) > OPEN:
            self.editor.close_text(self.buffers.popitem(last=False)[1])
        return self.buffers[path]

    async def _press(self, buffer: Buffer, edit: Edit) -> None:
        day = self.day
        change = self.editor.edited(buffer, edit)
        if self.randomly.random() < self.share:
            reply = await self.editor.complete(buffer, edit.start + len(edit.new), change)
            day.replies.append((day.keys, 1e3 * reply.seconds))
            day.suggestions += bool(reply.text)
        else:
            self.editor.change(change)
        day.keys += 1
        if day.keys % max(1, day.wanted // SAMPLES) == 0:
            self._note()

    def _note(self) -> None:
        own, mapped = (resident_mb(self.editor.pid, kind) for kind in ("RssAnon", "RssFile"))
        self.day.samples.append(Sample(self.day.keys, own, mapped, len(self.buffers)))


# --- what came of it ----------------------------------------------------------------------------------------


def sentence(day: Day) -> str:
    """Return how it stands, in a line."""
    closed = day.closed()
    memory = f"{closed[-1].mb:.0f} MB with nothing open" if closed else "memory not measured yet"
    return (
        f"{memory}, {day.tenth(last=True).p(99):.1f} ms p99 in the last tenth, {len(day.errors)} errors, "
        f"{day.seconds / 60:.0f} minutes"
    )


def rows(day: Day, share: float) -> list[Row]:
    """Return the figures."""
    closed, opened = day.closed(), [sample.mb for sample in day.samples if sample.open]
    growth, slower = day.growth(), day.slower()
    part = max(1, len(opened) // 10)
    typed = f"{day.keys:,} keys, {100 * share:.0f} % of which asked; {day.opened:,} times a document was opened"
    with_open = sum(opened[-part:]) / part - sum(opened[part : 2 * part]) / part if len(opened) > 2 else math.nan
    return [
        Row(
            "memory growth, no document open",
            f"{GROWTH_TARGET:.0f} MB",
            f"{growth:+.1f} MB" if not math.isnan(growth) else "not told",
            growth <= GROWTH_TARGET if not math.isnan(growth) else None,
            f"{closed[0].mb:.0f} MB after a twentieth of the way → {closed[-1].mb:.0f} MB; {typed}"
            if closed
            else typed,
        ),
        Row(
            f"memory growth, up to {OPEN} documents open",
            "",
            f"{with_open:+.1f} MB" if not math.isnan(with_open) else "not told",
            None,
            f"mean of the last tenth against the second; at most {max(opened, default=math.nan):.0f} MB, and "
            f"{max((sample.mapped_mb for sample in day.samples), default=math.nan):.0f} MB mapped from files",
        ),
        Row(
            "p99 of the last tenth against the first",
            f"{SLOWER_TARGET} ×",
            f"{slower:.2f} ×" if not math.isnan(slower) else "not told",
            slower <= SLOWER_TARGET if not math.isnan(slower) else None,
            f"p50 / p95 / p99: {day.tenth(last=False)} → {day.tenth(last=True)}; {len(day.replies):,} answers, "
            f"{day.suggestions:,} with a suggestion",
        ),
        Row(
            "errors",
            "0",
            f"{len(day.errors)}",
            not day.errors and day.keys >= day.wanted,
            f"of the protocol, shown to the user, or logged; {day.keys:,} of {day.wanted:,} keys typed in "
            f"{day.seconds / 60:.0f} minutes",
        ),
    ]


def to_json(day: Day) -> dict[str, Any]:
    """Return all but the single times, of which there are too many, as JSON data."""
    data = {name: value for name, value in vars(day).items() if name != "replies"}
    data["samples"] = [asdict(sample) for sample in day.samples]
    curve = [{"keys": round(keys), **times.percentiles()} for keys, times in _stretches(day) if len(times)]
    return {**data, "latency": curve, "first_tenth": day.tenth(last=False).percentiles(),
            "last_tenth": day.tenth(last=True).percentiles()}  # fmt: skip


def _stretches(day: Day, parts: int = 100) -> list[tuple[float, Times]]:
    """Return the times of the replies in equal parts of the way, and where the middle of each is, in keys."""
    size = max(1, day.keys) / parts
    groups: list[list[float]] = [[] for _ in range(parts)]
    for keys, ms in day.replies:
        groups[min(parts - 1, int(keys / size))].append(ms / 1e3)
    return [((number + 0.5) * size, Times(group)) for number, group in enumerate(groups)]


def draw(day: Day, machine: str, path: Path) -> None:
    """Draw memory and latency against the keys typed."""
    import textwrap

    figure, axes = blank(8, 5, "Memory and latency over a day's typing", dpi=150)
    opened = [sample for sample in day.samples if sample.open]
    closed = day.closed()
    axes.plot([s.keys for s in opened], [s.mb for s in opened], color=OURS, alpha=0.5, linewidth=1,
              label=f"memory, up to {OPEN} documents open")  # fmt: skip
    axes.plot([s.keys for s in closed], [s.mb for s in closed], "o-", color=OURS, label="memory, none open")
    axes.set_ylim(0, 1.25 * max([sample.mb for sample in day.samples] or [1]))
    axes.set_xlabel("keys typed")
    axes.set_ylabel("the server's own resident memory, MB")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    beside = axes.twinx()
    stretches = [(keys, times) for keys, times in _stretches(day) if len(times)]
    for percent, style in ((50, "-"), (99, ":")):
        beside.plot([keys for keys, _ in stretches], [times.p(percent) for _, times in stretches], style,
                    color=OTHERS, linewidth=1.2, label=f"latency, p{percent}")  # fmt: skip
    beside.set_ylabel("from a key to its answer, ms")
    beside.set_ylim(0, 1.6 * max([times.p(99) for _, times in stretches] or [1]))
    beside.spines["top"].set_visible(False)
    lines = [*axes.get_lines(), *beside.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, ncols=2, loc="upper left", fontsize=9)
    figure.supxlabel("\n".join(textwrap.wrap(machine, 110)), fontsize=7, color=ASIDE)
    save(figure, path)


if __name__ == "__main__":
    run(main)
