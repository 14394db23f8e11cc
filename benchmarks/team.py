"""How many people one core completes for, and what each of them takes of memory: what docs/scale.md computes from.

python -m benchmarks.team [--quick] [--json FILE] [--record] [--core N] [--most N] [--model NAME] [--heldout DIR]

Every typist has a server process of their own, as behind a load balancer, and all these are held to one core; this
client has the others. The typists are added to until the 99th percentile from key to reply is over 50 ms.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks.editor import PROJECT, Buffer, Editor, stretch_at
from benchmarks.workbench import (
    HELDOUT,
    ROOT,
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
    run,
    set_up,
    shown,
    write_between,
)
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.client import SERVER
from lsp_charrnn.text.document import Edit

LIMIT: Final = 50.0  # ms, of the 99th percentile
RATE: Final = 5.0  # keys a second of one who types without a pause, 60 words a minute; gaps are exponential
KEYS: Final = 300  # of each typist at each number of them: a minute
MOST: Final = 64  # typists
PAGE: Final = ROOT / "docs" / "scale.md"
BEGIN: Final = "<!-- team: written by benchmarks/team.py --record -->"
END: Final = "<!-- end of team -->"

# What the table assumes. Whoever knows better puts in their own, and goes on by the formulas beside it.
USERS: Final = (10, 1_000, 100_000)
TYPING: Final = 0.1  # of those who are connected, at the busiest moment
CORES: Final = 64  # of one machine
GIGABYTES: Final = 256.0


@dataclass(frozen=True)
class Level:
    """What so many typists got on one core."""

    typists: int
    keys_per_second: float  # of all together, as they were typed
    p50: float  # ms
    p99: float
    pss_mb: float  # of one server, the mean: shared pages count by their share
    private_mb: float  # of that, what no other process has


@dataclass(frozen=True)
class Plan:
    """What so many users need."""

    users: int
    keys_per_second: float
    cores: int
    gigabytes: float
    machines: int


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    record: Annotated[bool, typer.Option(help="Write the figures into docs/scale.md.")] = False,
    core: Annotated[int, typer.Option(help="The core that the servers are held to.", min=0)] = 0,
    most: Annotated[int, typer.Option(help="Typists at most.", min=1)] = MOST,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Add typists on one core until they wait too long; say how many keys a second that is, and how much memory."""
    if record and quick:
        raise UserError("--record writes figures to publish, and --quick makes rough ones: leave out one of them.")
    if shutil.which("taskset") is None:
        raise UserError("taskset, which holds the servers to one core, is not there: install util-linux.")
    if core not in os.sched_getaffinity(0) or len(os.sched_getaffinity(0)) < 2:
        raise UserError(f"core {core} is not among at least two that this process may use: name another by --core.")
    setup = set_up(quick, model, heldout)
    levels = asyncio.run(measure(setup, core, 4 if quick else most, 40 if quick else KEYS))
    good = best_of(levels)
    if good is None:
        raise UserError(f"one typist alone waits longer than {LIMIT:.0f} ms: measure on a machine that is not busy.")
    rows = rows_of(levels, good, most)
    plans = [plan(users, good) for users in USERS]
    finish(
        setup, "A team's server", rows, json_path, levels=[asdict(one) for one in levels], plans=[*map(asdict, plans)]
    )
    if record:
        write_between(PAGE, BEGIN, END, page_lines(levels, good, plans, machine_line(setup.machine)))
        console.print(f"written to {PAGE}", highlight=False)


# --- what is done -------------------------------------------------------------------------------------------


async def measure(setup: Setup, core: int, most: int, keys: int) -> list[Level]:
    """Double the typists until they wait too long, then look closer; return the levels by their number."""
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {core})
    levels: dict[int, Level] = {}

    async def enough(typists: int) -> bool:
        levels[typists] = one = await measure_level(setup, core, typists, keys)
        console.print(
            f"{typists} typists: {one.keys_per_second:.1f} keys/s, p50 / p99 {shown(one.p50)} / {shown(one.p99)} ms, "
            f"{one.pss_mb:.0f} MB each",
            highlight=False,
        )
        return one.p99 <= LIMIT

    low, high = 0, 1
    while high <= most and await enough(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 10) and high <= most:
        middle = (low + high) // 2
        low, high = (middle, high) if await enough(middle) else (low, middle)
    return [levels[number] for number in sorted(levels)]


async def measure_level(setup: Setup, core: int, typists: int, keys: int) -> Level:
    """Let so many type at once, each in a file and through a server of their own."""
    texts = [file.text for file in setup.heldout.files if 4_000 <= len(file.text) <= 100_000]
    if not texts:
        raise UserError("there is no held-out file of 4 to 100 kB: run `make heldout`.")
    async with AsyncExitStack() as stack:
        caches = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lsp-charrnn-team-")))
        editors: list[tuple[Editor, Buffer, bytes]] = []
        for number in range(typists):
            command = ("taskset", "--cpu-list", str(core), *SERVER, "--cache", str(caches / str(number)))
            editor = await stack.enter_async_context(
                Editor.started(model=setup.directory, projects={PROJECT}, command=command)
            )
            assert isinstance(editor, Editor)
            text = texts[number % len(texts)]
            buffer = editor.open_text(text, "module.py")
            await editor.settled(buffer)
            editors.append((editor, buffer, text))
        began = time.perf_counter()
        typed = await asyncio.gather(
            *(type_as_a_person(*one, keys, random.Random(SEED + number)) for number, one in enumerate(editors))
        )
        took = time.perf_counter() - began
        memory = [memory_mb(editor.pid) for editor, _, _ in editors]
    times = Times([seconds for one in typed for seconds in one])
    pss, private = (sum(values) / len(memory) for values in zip(*memory, strict=True))
    return Level(typists, len(times) / took, times.p(50), times.p(99), pss, private)


async def type_as_a_person(
    editor: Editor, buffer: Buffer, text: bytes, keys: int, chance: random.Random
) -> list[float]:
    """Type a stretch anew, in gaps as drawn; return for each key the seconds from when it was due to its reply.

    A key that is due while the reply to the one before is awaited counts from when it was due: nobody waits to type.
    """
    stretch = stretch_at(text, len(text) // 2, keys)
    editor.change(editor.edited(buffer, Edit(stretch.start, stretch.end, b"")))
    offset, seconds = stretch.start, []
    due = time.perf_counter()
    for key in stretch.keys:
        due += chance.expovariate(RATE)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        change = editor.edited(buffer, Edit(offset, offset, key))
        offset += len(key)
        reply = await editor.complete(buffer, offset, change)
        seconds.append(max(reply.came - due, reply.seconds))
    return seconds


def memory_mb(pid: int) -> tuple[float, float]:
    """Return a process's proportional set size and what of it is private, in MB. Raises `UserError` off Linux."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()[1:]
    except OSError:
        raise UserError("this system does not tell how much memory is shared (/proc/PID/smaps_rollup).") from None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}
    return sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


# --- what comes of it ---------------------------------------------------------------------------------------


def best_of(levels: Sequence[Level]) -> Level | None:
    """Return the level with the most typists of those below the limit, before the first that is over it."""
    best = None
    for one in sorted(levels, key=lambda level: level.typists):
        if one.p99 > LIMIT:
            break
        best = one
    return best


def plan(users: int, measured: Level) -> Plan:
    """Return what `users` need, by the measured level and the assumptions above."""
    keys = users * TYPING * RATE
    cores = math.ceil(keys / measured.keys_per_second)
    gigabytes = users * measured.pss_mb / 1e3
    machines = max(math.ceil(cores / CORES), math.ceil(gigabytes / GIGABYTES))
    return Plan(users, keys, cores, gigabytes, machines)


def rows_of(levels: Sequence[Level], good: Level, most: int) -> list[Row]:
    """Return the figures."""
    note = f"{good.typists} typists of {RATE:.0f} keys/s each, p50 / p99 {shown(good.p50)} / {shown(good.p99)} ms"
    if good.typists == most == levels[-1].typists:
        note += "; more were not tried"
    return [
        Row("keys per second per core at p99 ≤ 50 ms", "reported", shown(good.keys_per_second), None, note),
        Row(
            "memory per user",
            "reported",
            f"{good.pss_mb:.0f} MB",
            None,
            f"PSS; {good.private_mb:.0f} MB shared by none",
        ),
    ]


def page_lines(levels: Sequence[Level], good: Level, plans: Sequence[Plan], here: str) -> list[str]:
    """Return the lines of docs/scale.md that hold what was measured, and what follows from it."""
    lines = [
        "| typists on one core | keys a second | p50 / p99 | memory of each (PSS) | shared by none |",
        "|---|---|---|---|---|",
    ]
    for one in levels:
        mark = "**" if one is good else ""
        lines.append(
            f"| {mark}{one.typists}{mark} | {shown(one.keys_per_second)} | {shown(one.p50)} / {shown(one.p99)} ms | "
            f"{one.pss_mb:.0f} MB | {one.private_mb:.0f} MB |"
        )
    rate = shown(good.keys_per_second)
    lines += [
        "",
        f"Measured: **{rate} keys per second per core** at a 99th percentile of {shown(good.p99)} ms ({LIMIT:.0f} at "
        f"most), and **{good.pss_mb:.0f} MB per user**.",
        "",
        "| users connected | keys a second | cores | memory | machines |",
        "|---|---|---|---|---|",
    ]
    for each in plans:
        needs = f"{each.cores:,} | {each.gigabytes:,.1f} GB | {each.machines:,}"
        lines.append(f"| {each.users:,} | {each.keys_per_second:,.0f} | {needs} |")
    lines += [
        "",
        f"Assumed: {TYPING:.0%} of those connected type at the busiest moment, {RATE:.0f} keys a second each; "
        f"machines of {CORES} cores and {GIGABYTES:.0f} GB. Computed: keys = users × {TYPING:g} × {RATE:g}; "
        f"cores = keys / {rate}; memory = users × {good.pss_mb:.0f} MB; machines: the more of cores / {CORES} and "
        f"memory / {GIGABYTES:.0f} GB.",
        "",
        f"Measured on: {here}.",
    ]
    return lines


if __name__ == "__main__":
    run(main)
