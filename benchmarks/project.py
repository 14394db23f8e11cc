"""What the memories cost: a key in a project that is known, the counting of it, typing meanwhile, and their size.

python -m benchmarks.project [--quick] [--json FILE] [--megabytes N] [--files N] [--keys N] [--rounds N] ...
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import itertools
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.editor import Buffer, Editor, Reply, Stretch, retype, server_with, stretch_at, stretch_to_end
from benchmarks.workbench import (
    HELDOUT,
    HeldoutPath,
    HeldoutText,
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
    shown,
    size_name,
    whole_characters,
)
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.heldout import take_in_turn
from lsp_charrnn.project.cache import cache_file
from lsp_charrnn.train.corpus import SourceFile

MEGABYTES: Final = 5.0  # what the server counts of a project by default
P50_TARGET: Final = 15.0  # ms, with the memories
P99_TARGET: Final = 40.0
KNOWN_TARGET: Final = 10.0  # seconds
MEANWHILE_TARGET: Final = 1.5  # times the median of the same keys once the project is known
SIZE_TARGET: Final = 64.0  # bytes for each that is counted
LEAST_LINES: Final = 200  # of a file that is typed into
FEW: Final = 100  # keys: of fewer typed while the project was counted no ratio is judged
WITH: Final = "with both memories"  # the server as it is; the others have been told to do without
WITHOUT: Final = "memory.project off"
CONDITIONS: Final[dict[str, dict[str, bool]]] = {
    WITH: {},
    WITHOUT: {"memory.project": False},
    "both memories off": {"memory.project": False, "memory.document": False},
}

_LOOK: Final = 0.005  # seconds between two looks at whether the cache has been written: the server doesn't notice
_PATIENCE: Final = 300.0


@dataclass(frozen=True)
class Sample:
    """How much is measured."""

    files: int  # that are typed into, in their middle and at their end
    keys: int  # at each of these places
    starts: int  # without a cache, and as many with the one that was written
    rounds: int  # of typing while the project is counted


FULL: Final = Sample(files=12, keys=40, starts=5, rounds=16)
ROUGH: Final = Sample(files=2, keys=12, starts=1, rounds=2)


@dataclass(frozen=True)
class Project:
    """A project on the disk: every file as it was saved."""

    root: Path
    files: dict[str, bytes]  # by their paths in it
    typed: tuple[str, ...]  # those that are typed into

    @property
    def size(self) -> int:
        """Bytes of text."""
        return sum(map(len, self.files.values()))


@dataclass
class Started:
    """What the first document of a project costs, start by start."""

    counted: int = 0  # bytes of text
    cache: int = 0  # bytes on the disk
    known: list[float] = field(default_factory=list)  # seconds from didOpen until the project is known
    written: list[float] = field(default_factory=list)  # until its cache is written
    again: list[float] = field(default_factory=list)  # until it is known from the cache
    resident: list[float] = field(default_factory=list)  # MB of the server once it has counted
    peak: list[float] = field(default_factory=list)  # the most until then
    resident_again: list[float] = field(default_factory=list)  # from the cache
    without: list[float] = field(default_factory=list)  # with memory.project off


@dataclass(frozen=True)
class Key:
    """One key that was typed."""

    file: str
    place: str
    seconds: float
    text: str  # the ghost text


@dataclass
class Meanwhile:
    """Keys typed while the project was counted, and the same ones, in the same order, in servers not at it."""

    during: list[float] = field(default_factory=list)
    known: list[float] = field(default_factory=list)  # it knew the project from its start
    without: list[float] = field(default_factory=list)  # with memory.project off: the same suggestions as meanwhile
    counting: list[float] = field(default_factory=list)  # seconds from didOpen until the cache was written


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    megabytes: Annotated[float, typer.Option(help="Size of the project in MB.", min=0.001)] = MEGABYTES,
    files: Annotated[int | None, typer.Option(help="Files that are typed into.", min=1)] = None,
    keys: Annotated[int | None, typer.Option(help="Keys at each place, two in a file.", min=1)] = None,
    starts: Annotated[
        int | None, typer.Option(help="How often the project is counted, and known again.", min=1)
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="How often it is typed while counting.", min=1)] = None,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Type in a project of 5 MB of held-out Python, through the real server over stdio, 50 ms between keys.

    Measured are the time from the first byte of didChange to the reply of the request behind it, once the project is
    known, and of the same keys by servers that were told to do without the project's memory, or without both; how long
    the project takes to be counted, and to be known again from its cache; how much slower keys are while it is counted;
    and what its counts and its text take of memory and disk.
    """
    setup = set_up(quick, model, heldout)
    sample = ROUGH if quick else FULL
    sample = replace(
        sample,
        files=files or sample.files,
        keys=keys or sample.keys,
        starts=starts or sample.starts,
        rounds=rounds or sample.rounds,
    )
    with tempfile.TemporaryDirectory(prefix="lsp-charrnn-") as directory:
        # Resolved, for the server tells roots so.
        project = project_of(setup.heldout, Path(directory).resolve() / "project", int(1e6 * megabytes), sample.files)
        started, typed, meanwhile = asyncio.run(measure(setup, sample, project, megabytes))
    rows = [
        *typed_rows(typed, started, project),
        *started_rows(started, project),
        meanwhile_row(meanwhile),
        size_row(started),
    ]
    measurements = {
        "project": {"bytes": project.size, "files": len(project.files), "counted": started.counted},
        "keys": {condition: typed_json(keys) for condition, keys in typed.items()},
        "starts": started_json(started),
        "meanwhile": {
            "during": Times(meanwhile.during).to_json(),
            "known": Times(meanwhile.known).to_json(),
            "without": Times(meanwhile.without).to_json(),
            "counting_s": meanwhile.counting,
        },
    }
    finish(setup, "A project", rows, json_path, measurements=measurements)


# --- the project --------------------------------------------------------------------------------------------


def project_of(heldout: HeldoutText, root: Path, size: int, typed: int) -> Project:
    """Write held-out files into `root`, `size` bytes in all, and choose `typed` of them: one of each project in turn.

    Where there is less text, files come once more, capitals for small letters: twice the same text would be counted in
    no more room than once, and so hardly any context of the second is one of the first. Raises `UserError`.
    """
    originals = list(take_in_turn(heldout.files))
    if size > 2 * sum(len(file.text) for file in originals):
        most = 2 * sum(len(file.text) for file in originals)
        raise UserError(f"There is held-out text for a project of {size_name(most)} at most: say --megabytes less.")
    files: dict[str, bytes] = {}
    left = size
    for folder, file in [("first", file) for file in originals] + [("second", file) for file in originals]:
        text = file.text if folder == "first" else file.text.swapcase()
        if left < len(text):
            text = whole_characters(text[:left])
        if text:
            files[f"{folder}/{file.project}/{file.path}"] = text
            left -= len(text)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text)
    there = [file for file in originals if files.get(path_of(file)) == file.text]
    long = [file for file in there if file.text.count(b"\n") >= LEAST_LINES] or there
    chosen = itertools.islice(take_in_turn(long), typed)
    return Project(root, files, tuple(path_of(file) for file in chosen))


def path_of(file: SourceFile) -> str:
    """Return where a held-out file lies in the project."""
    return f"first/{file.project}/{file.path}"


def places_of(data: bytes, keys: int) -> dict[str, Stretch]:
    """Return what is typed of a file."""
    return {"end": stretch_to_end(data, keys), "middle": stretch_at(data, len(data) // 2, keys)}


# --- what is done -------------------------------------------------------------------------------------------


async def measure(
    setup: Setup, sample: Sample, project: Project, megabytes: float
) -> tuple[Started, dict[str, list[Key]], Meanwhile]:
    """Start, type meanwhile, and type afterwards, each time with a new cache beside the project."""
    bench = Bench(setup, project, megabytes)
    with console.status("") as status:
        started = Started()
        for number in range(sample.starts):
            status.update(f"start {number + 1} of {sample.starts}")
            with bench.cache() as cache:
                await measure_start(bench, started, cache)
        meanwhile = Meanwhile()
        for number in range(sample.rounds):
            status.update(f"typing while the project is counted: round {number + 1} of {sample.rounds}")
            path = project.typed[number % len(project.typed)]
            with bench.cache() as cache:
                await measure_meanwhile(bench, meanwhile, sample, path, cache)
        with bench.cache() as cache:
            typed = await measure_typing(bench, sample, cache, status.update)
    return started, typed, meanwhile


@dataclass(frozen=True)
class Bench:
    """Starts servers, and opens files of the project in them."""

    setup: Setup
    project: Project
    megabytes: float

    @asynccontextmanager
    async def server(self, cache: Path, condition: str = WITH, *, warm: bool = True) -> AsyncIterator[Editor]:
        """Start a server for the project, its model loaded if `warm`, and nothing of the project opened yet."""
        # All of the project, and not a byte less: a cap in the midst of it would be another project each time.
        settings = {"memory.projectMegabytes": self.megabytes, **CONDITIONS[condition]}
        async with server_with(self.setup.directory, settings, cache) as editor:
            if warm:
                first, _ = await editor.open_and_complete(b"import os\nimport s", 18, "warm.py")
                editor.close_text(first)
                await editor.idle()
            editor.enter(self.project.root)
            yield editor

    @contextmanager
    def cache(self) -> Iterator[Path]:
        """Make a directory for caches, and remove it: one takes more than a hundred megabytes."""
        with tempfile.TemporaryDirectory(dir=self.project.root.parent) as directory:
            yield Path(directory)

    def cache_file(self, cache: Path) -> Path:
        """Return the file that keeps the project."""
        return cache_file(self.project.root, cache)

    async def written(self, cache: Path) -> float:
        """Wait until the project's cache is written, without asking the server; return when it was."""
        end = time.perf_counter() + _PATIENCE
        while not self.cache_file(cache).exists():
            if time.perf_counter() > end:
                raise UserError(f"After {_PATIENCE:.0f} s the server has not written the cache of {self.project.root}.")
            await asyncio.sleep(_LOOK)
        return time.perf_counter()


async def measure_start(bench: Bench, started: Started, cache: Path) -> None:
    """Open a file of the project as an editor that has just been started does: without a cache, and with one."""
    path = bench.project.typed[0]
    data = bench.project.files[path]
    async with bench.server(cache, warm=False) as editor:
        writing = asyncio.create_task(bench.written(cache))
        began = time.perf_counter()
        buffer = editor.open_text(data, path)
        known, started.counted = await editor.known(buffer)
        started.known.append(known - began)
        started.written.append(await writing - began)
        started.cache = bench.cache_file(cache).stat().st_size
        started.resident.append(await resident_after(editor, buffer))
        started.peak.append(peak_mb(editor.pid))
    async with bench.server(cache, warm=False) as editor:
        began = time.perf_counter()
        buffer = editor.open_text(data, path)
        known, _ = await editor.known(buffer)
        started.again.append(known - began)
        started.resident_again.append(await resident_after(editor, buffer))
    async with bench.server(cache, WITHOUT, warm=False) as editor:
        started.without.append(await resident_after(editor, editor.open_text(data, path)))


async def resident_after(editor: Editor, buffer: Buffer) -> float:
    """Return the MB that the server takes once it has read what it wants of a document, and answered in it."""
    await editor.settled(buffer)
    await editor.complete(buffer, buffer.document.size // 2)
    await editor.idle()
    return resident_mb(editor.pid)


def peak_mb(pid: int) -> float:
    """Return the most resident memory in MB that a process has had; nan where the system does not tell it."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return math.nan


async def measure_meanwhile(bench: Bench, meanwhile: Meanwhile, sample: Sample, path: str, cache: Path) -> None:
    """Type into a file from when it is opened until the project is counted; then the same keys in other servers.

    Whether it is counted is told by the cache, which comes last: to be asked would cost the server time. All servers
    have their model loaded, and have seen the same keys before, so that nothing else differs.
    """
    data = bench.project.files[path]
    places = list(places_of(data, sample.keys).values())
    places += [stretch_at(data, len(data) * part // 8, sample.keys) for part in (2, 6, 1, 3, 5, 7)]
    replies: list[Reply] = []
    async with bench.server(cache) as editor:
        writing = asyncio.create_task(bench.written(cache))
        began = time.perf_counter()
        buffer, _ = await editor.open_and_complete(data, len(data) // 2, path)
        for number, place in enumerate(places):
            if writing.done():
                places = places[:number]
                break
            replies += await retype(editor, buffer, place)
        written = await writing
    keys = sum(reply.came < written for reply in replies)
    meanwhile.counting.append(written - began)
    meanwhile.during += [reply.seconds for reply in replies[:keys]]
    for condition, seconds in ((WITH, meanwhile.known), (WITHOUT, meanwhile.without)):
        async with bench.server(cache, condition) as editor:
            buffer, _ = await editor.open_and_complete(data, len(data) // 2, path)
            if condition == WITH:
                await editor.known(buffer)
            again = [reply.seconds for place in places for reply in await retype(editor, buffer, place)]
            seconds += again[:keys]


async def measure_typing(
    bench: Bench, sample: Sample, cache: Path, progress: Callable[[str], None]
) -> dict[str, list[Key]]:
    """Type at every place in all conditions, in turn: so that a slow spell of the machine falls on all alike."""
    project = bench.project
    typed: dict[str, list[Key]] = {condition: [] for condition in CONDITIONS}
    async with AsyncExitStack() as stack:
        editors: dict[str, Editor] = {}
        buffers: dict[tuple[str, str], Buffer] = {}
        for condition in CONDITIONS:
            progress(f"opening, {condition}")
            # Each with a cache of its own: none of them has what another has counted.
            editor = await stack.enter_async_context(bench.server(cache / condition.replace(" ", "-"), condition))
            editors[condition] = editor
            for path in project.typed:
                data = project.files[path]
                buffer, _ = await editor.open_and_complete(data, len(data) // 2, path)
                await editor.settled(buffer)
                buffers[condition, path] = buffer
            if condition == WITH:
                await editor.known(buffer)
            await editor.idle()
        for number, path in enumerate(project.typed):
            for place, stretch in places_of(project.files[path], sample.keys).items():
                for condition, editor in editors.items():
                    progress(f"file {number + 1} of {len(project.typed)}, {place}: {condition}")
                    replies = await retype(editor, buffers[condition, path], stretch)
                    typed[condition] += [Key(path, place, reply.seconds, reply.text) for reply in replies]
                    await editor.idle()  # what it reads once the user rests must not take time from the next one's keys
    return typed


# --- what came of it ----------------------------------------------------------------------------------------


def times_of(keys: Sequence[Key], place: str = "") -> Times:
    """Return how long keys took, all of them or those at one place of each file."""
    return Times([key.seconds for key in keys if place in ("", key.place)])


def ms_of(times: Times) -> str:
    """Return p50 and p99."""
    return f"{shown(times.p(50))} / {shown(times.p(99))} ms"


def typed_rows(typed: dict[str, list[Key]], started: Started, project: Project) -> list[Row]:
    """Return the figure of a key in a project that is known."""
    keys = times_of(typed[WITH])
    places = ", ".join(f"{place} {ms_of(times_of(typed[WITH], place))}" for place in ("end", "middle"))
    shares = 100 * sum(bool(key.text) for key in typed[WITH]) / len(keys)
    return [
        Row(
            f"key → reply in a project of {size_name(project.size)}, p50 / p99",
            f"{P50_TARGET:.0f} / {P99_TARGET:.0f} ms",
            ms_of(keys),
            keys.p(50) <= P50_TARGET and keys.p(99) <= P99_TARGET,
            f"{len(keys):,} keys in {len(project.typed)} files, p95 {shown(keys.p(95))} ms; {places}; "
            f"{shares:.0f} % get a suggestion",
            ", ".join(f"{name}: {times_of(keys)}" for name, keys in typed.items() if name != WITH),
        )
    ]


def started_rows(started: Started, project: Project) -> list[Row]:
    """Return the figures of a project that is opened for the first time, and the next."""
    size = size_name(project.size)
    known, again = (Times(seconds) for seconds in (started.known, started.again))
    return [
        Row(
            f"a project of {size} is known after its first document was opened",
            f"{KNOWN_TARGET:.0f} s",
            f"{shown(known.p(50) / 1e3)} (worst {shown(known.p(100) / 1e3)}) s",
            known.p(50) <= 1e3 * KNOWN_TARGET,
            f"{len(known)} starts without a cache, {len(project.files):,} files, {started.counted:,} bytes counted; "
            f"its cache is written after {shown(Times(started.written).p(50) / 1e3)} s",
        ),
        Row(
            "the same from its cache",
            "",
            f"{shown(again.p(50) / 1e3)} (worst {shown(again.p(100) / 1e3)}) s",
            None,
            f"{len(again)} starts, asked every 20 ms",
        ),
    ]


def meanwhile_row(meanwhile: Meanwhile) -> Row:
    """Return the figure of typing while the project is counted."""
    during, known, without = (Times(keys) for keys in (meanwhile.during, meanwhile.known, meanwhile.without))

    def times(p: float, others: Times) -> float:
        return during.p(p) / others.p(p) if others.p(p) else math.nan

    return Row(
        "key → reply while the project is counted, p50 against the same keys once it is known",
        f"{MEANWHILE_TARGET} ×",
        f"{shown(times(50, known))} × ({during})",
        times(50, known) <= MEANWHILE_TARGET if len(during) >= FEW else None,
        f"{len(during):,} keys, {len(meanwhile.counting)} rounds; p95 {shown(times(95, known))} ×, "
        f"p99 {shown(times(99, known))} ×; against memory.project off, which suggests the same as meanwhile, p50 "
        f"{shown(times(50, without))} ×, p99 {shown(times(99, without))} ×; counted and written after "
        f"{shown(Times(meanwhile.counting).p(50) / 1e3)} s",
        f"known: {known}, {WITHOUT}: {without}",
    )


def size_row(started: Started) -> Row:
    """Return the figure of what the project's memory takes."""
    # The cache is what the server holds, byte for byte, and a header with the files' names.
    each = started.cache / started.counted if started.counted else math.nan
    middle = {
        name: Times([mb / 1e3 for mb in values]).p(50)  # the median
        for name, values in (
            ("counted", started.resident),
            ("peak", started.peak),
            ("again", started.resident_again),
            ("without", started.without),
        )
    }
    more = {name: mb - middle["without"] for name, mb in middle.items()}
    resident = (
        f"resident {middle['counted']:.0f} MB once counted ({more['counted']:+.0f} MB against memory.project off, "
        f"{1e6 * more['counted'] / max(1, started.counted):.0f} B a byte), at most {middle['peak']:.0f} MB until then; "
        f"{middle['again']:.0f} MB ({more['again']:+.0f} MB) from the cache"
    )
    return Row(
        "a project's memory: counts and text, for each byte counted",
        f"{SIZE_TARGET:.0f} B",
        f"{shown(each)} B",
        each <= SIZE_TARGET,
        f"the cache is {size_name(started.cache)}"
        + ("; what is resident this system does not tell" if math.isnan(middle["without"]) else f"; {resident}"),
    )


def typed_json(keys: list[Key]) -> dict[str, Any]:
    """Return what was measured in one condition as JSON data: of all keys, and place by place."""
    return {
        **times_of(keys).to_json(),
        "shown": sum(bool(key.text) for key in keys) / len(keys),
        "places": {place: times_of(keys, place).percentiles() for place in ("end", "middle")},
    }


def started_json(started: Started) -> dict[str, Any]:
    """Return what starting costs as JSON data."""
    return {
        "cache_bytes": started.cache,
        "known_s": started.known,
        "written_s": started.written,
        "known_from_cache_s": started.again,
        "resident_mb": started.resident,
        "peak_mb": started.peak,
        "resident_from_cache_mb": started.resident_again,
        "resident_without_mb": started.without,
    }


if __name__ == "__main__":
    run(main)
