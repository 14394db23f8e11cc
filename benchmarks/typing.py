"""How long a key takes from the editor to its ghost text, wherever the cursor is and however large the file.

python -m benchmarks.typing [--quick] [--json FILE] [--picture FILE.png] [--model NAME] [--heldout DIR]
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from benchmarks.editor import PAUSE, Buffer, Burst, Editor, Reply, Stretch, retype, server_with, stretch_at
from benchmarks.workbench import (
    HELDOUT,
    SEED,
    HeldoutPath,
    JsonPath,
    ModelName,
    Naive,
    Quick,
    Row,
    Setup,
    Times,
    console,
    finish,
    machine_line,
    naive_key,
    numbers,
    run,
    set_up,
    shown,
    size_name,
    whole_characters,
)
from lsp_charrnn.evaluate.picture import ASIDE, FAINT, OTHERS, OURS, blank, check_drawing, save
from lsp_charrnn.text.document import Edit

LINES: Final = 2_000
P50_TARGET: Final = 10.0  # ms, in the file of so many lines
P99_TARGET: Final = 30.0
LARGE_TARGET: Final = 1.3  # times these, in the largest file
LARGE: Final = (1_000_000, 5_000_000)
CURVE: Final = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
BURST: Final = 200  # keys
CANCEL_AFTER: Final = 0.003  # seconds: by then the model is at work
CONTEXT: Final = 2_000  # bytes before what is typed that are the same in every file: all that the model remembers
LEAST_SUGGESTION: Final = 4  # bytes, to be typed along or accepted


@dataclass(frozen=True)
class Sample:
    """How much is measured."""

    places: int  # where the cursor goes in each file, start, middle and end among them
    keys: int  # at each of them
    curve_keys: int
    curve_rounds: int
    suggestions: int  # that are typed along, and that are accepted
    bursts: int
    cancels: int


FULL: Final = Sample(places=24, keys=40, curve_keys=40, curve_rounds=3, suggestions=30, bursts=7, cancels=30)
ROUGH: Final = Sample(places=5, keys=12, curve_keys=12, curve_rounds=1, suggestions=3, bursts=2, cancels=4)


@dataclass(frozen=True)
class Typed:
    """What was measured in one file that stood open."""

    name: str
    size: int
    keys: Times
    jumps: Times  # the first key at each place: these are among `keys`
    shown: float  # the part of the keys that got a suggestion
    naive: Times  # a key at each of some of these places
    naive_scaled: bool


@dataclass(frozen=True)
class Point:
    """One file size of the curve."""

    size: int
    keys: Times
    naive: Naive


@dataclass
class Along:
    """What happened to suggestions that came."""

    keys: list[float] = field(default_factory=list)  # seconds of each key that was typed along one
    kept: int = 0  # replies to those that were the rest of the suggestion, unchanged
    accepted: list[float] = field(default_factory=list)  # seconds of the completion right after acceptance
    bursts: list[Burst] = field(default_factory=list)
    cancels: list[float] = field(default_factory=list)  # seconds until a cancelled request came back
    cancelled: int = 0  # of them without a suggestion
    after_cancel: list[float] = field(default_factory=list)  # seconds of the next request


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw latency against file size into this PNG.", resolve_path=True)
    ] = None,
    large: Annotated[str, typer.Option(help="Sizes of the large files in bytes, with commas.")] = "",
    curve: Annotated[str, typer.Option(help="Sizes on the curve in bytes, with commas.")] = "",
    places: Annotated[
        int | None, typer.Option(help="Places in each file, start, middle and end among them.", min=3)
    ] = None,
    keys: Annotated[int | None, typer.Option(help="Keys at each place.", min=1)] = None,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Type into held-out Python that is open already, through the real server over stdio, 50 ms between keys.

    Measured is the time from the first byte of didChange to the reply of the request behind it, as p50 / p95 / p99: at
    the start, the middle, the end and random places of a file of 2,000 lines, and of 1 MB and 5 MB; against file size;
    along a suggestion; after accepting one; for a burst of 200 keys; and for a cancelled request. The baseline is a
    server that keeps no state and reads all before the cursor for each key.
    """
    if picture is not None:
        check_drawing(picture)
    setup = set_up(quick, model, heldout)
    sample = ROUGH if quick else FULL
    sample = replace(sample, places=places or sample.places, keys=keys or sample.keys)
    sizes = numbers(large) or (LARGE[:1] if quick else LARGE)
    points_at = numbers(curve) or (CURVE[::2] if quick else CURVE)
    typed, along, points = asyncio.run(measure(setup, sample, sizes, points_at))
    rows = [*typed_rows(typed), *along_rows(along, typed[0])]
    measurements = {
        "files": {each.name: typed_json(each) for each in typed},
        "suggestions": along_json(along),
        "curve": [{"bytes": point.size, "keys": point.keys.to_json(), **point.naive.to_json()} for point in points],
    }
    finish(setup, "Typing", rows, json_path, measurements=measurements)
    print_curve(points)
    if picture is not None:
        draw(points, machine_line(setup.machine), picture)
        console.print(f"drawn into {picture}", highlight=False)


# --- what is done -------------------------------------------------------------------------------------------


async def measure(
    setup: Setup, sample: Sample, large: tuple[int, ...], curve: tuple[int, ...]
) -> tuple[list[Typed], Along, list[Point]]:
    """Type into each file, and let the naive server answer there once ours has ended.

    Into every file the same is typed, with the same kilobytes before it, and the files come in turn: so that only their
    sizes differ, and a slow spell of the machine falls on all alike.
    """
    ordinary = setup.heldout.of_lines(LINES)
    stretches = [stretch_at(ordinary, place, sample.keys) for place in places_in(len(ordinary), sample)]
    passages = [passage_of(ordinary, stretch) for stretch in stretches]
    files = [(f"{LINES:,} lines", ordinary, stretches)]
    files += [(size_name(size), *planted(setup.heldout.of_size(size), passages, sample)) for size in large]
    middle = passage_of(ordinary, stretch_at(ordinary, len(ordinary) // 2, sample.curve_keys))
    curved = [around(setup.heldout.of_size(size), middle) for size in curve]
    async with server_with(setup.directory) as editor:
        with console.status("opening") as status:
            buffers = [await opened(editor, data, f"file_{index}.py") for index, (_, data, _) in enumerate(files)]
            replies: list[list[list[Reply]]] = [[] for _ in files]  # of each file, of each place, of each key
            for place in range(sample.places):
                for index, (name, _, stretches) in enumerate(files):
                    status.update(f"place {place + 1} of {sample.places}: {name}")
                    replies[index].append(await retype(editor, buffers[index], stretches[place]))
            status.update("suggestions, bursts and cancelled requests")
            along = await follow(editor, buffers[0], sample)
            for buffer in buffers:
                editor.close_text(buffer)

            status.update("the curve: opening")
            buffers = [await opened(editor, data, f"curve_{len(data)}.py") for data, _ in curved]
            seconds: list[list[float]] = [[] for _ in curved]
            for round_ in range(sample.curve_rounds):
                for index, (data, stretch) in enumerate(curved):
                    status.update(f"the curve, round {round_ + 1} of {sample.curve_rounds}: {size_name(len(data))}")
                    seconds[index] += [reply.seconds for reply in await retype(editor, buffers[index], stretch)]

    with console.status("") as status:

        def naive_at(data: bytes, offset: int) -> Naive:
            status.update(f"the naive server: {size_name(offset)} of {size_name(len(data))}")
            return naive_key(setup.model, data, offset, limit=setup.naive_limit)

        typed = []
        for index, (name, data, stretches) in enumerate(files):
            # Where it takes minutes, at the start, the middle and the end only.
            places = stretches if len(data) < 200_000 else stretches[:3]
            typed.append(typed_in(name, data, replies[index], [naive_at(data, place.end) for place in places]))
        points = [
            Point(size, Times(taken), naive_at(data, stretch.end))
            for size, taken, (data, stretch) in zip(curve, seconds, curved, strict=True)
        ]
    return typed, along, points


def typed_in(name: str, data: bytes, replies: list[list[Reply]], naive: list[Naive]) -> Typed:
    """Return what was measured in one file, place by place and key by key."""
    flat = [reply for place in replies for reply in place]
    return Typed(
        name,
        len(data),
        Times([reply.seconds for reply in flat]),
        Times([place[0].seconds for place in replies]),
        sum(bool(reply.text) for reply in flat) / len(flat),
        Times([each.seconds for each in naive]),
        any(each.scaled for each in naive),
    )


async def opened(editor: Editor, data: bytes, path: str) -> Buffer:
    """Open a file, complete in its middle, and wait until it has been read."""
    buffer, _ = await editor.open_and_complete(data, len(data) // 2, path)
    await editor.settled(buffer)
    return buffer


def places_in(size: int, sample: Sample) -> list[int]:
    """Return the start, the middle, the end of a text of that size, and places that are drawn, the same in any size."""
    draw_place = random.Random(SEED)
    parts = [0, 0.5, 1, *(draw_place.random() for _ in range(sample.places - 3))]
    return [int(size * part) for part in parts]


@dataclass(frozen=True)
class Passage:
    """Something to type, and what stands around it."""

    before: bytes
    keys: tuple[bytes, ...]
    after: bytes

    @property
    def typed(self) -> bytes:
        """What the keys make."""
        return b"".join(self.keys)


def passage_of(data: bytes, stretch: Stretch) -> Passage:
    """Return what a stretch types with the lines around it."""
    first = data.rfind(b"\n", 0, max(0, stretch.start - CONTEXT)) + 1
    last = data.find(b"\n", stretch.end) + 1 or len(data)
    return Passage(data[first : stretch.start], stretch.keys, data[stretch.end : last])


def planted(text: bytes, passages: list[Passage], sample: Sample) -> tuple[bytes, list[Stretch]]:
    """Return `text` with the passages spread over it, as long as before, and where each of them is typed."""
    text = text[: -sum(len(each.before + each.typed + each.after) for each in passages)]
    places = places_in(len(text), sample)
    pieces, size, done = [], 0, 0
    stretches: dict[int, Stretch] = {}
    for index in sorted(range(len(passages)), key=places.__getitem__):
        passage = passages[index]
        line = text.rfind(b"\n", 0, places[index]) + 1
        pieces += [text[done:line], passage.before, passage.typed, passage.after]
        start = size + line - done + len(passage.before)
        stretches[index] = Stretch(start, start + len(passage.typed), passage.keys)
        size, done = start + len(passage.typed) + len(passage.after), line
    return b"".join([*pieces, text[done:]]), [stretches[index] for index in range(len(passages))]


def around(text: bytes, passage: Passage) -> tuple[bytes, Stretch]:
    """Return a text as long as `text` with the passage in its middle, and where it is typed."""
    half = len(text) // 2
    before = whole_characters((text[:half] + passage.before)[-half:])
    after = whole_characters((passage.after + text)[: max(0, len(text) - half - len(passage.typed))])
    stretch = Stretch(len(before), len(before) + len(passage.typed), passage.keys)
    return before + passage.typed + after, stretch


async def follow(editor: Editor, buffer: Buffer, sample: Sample) -> Along:
    """Type along suggestions, accept some, send bursts of keys, and cancel requests."""
    along = Along()
    data = buffer.document.data
    draw_place = random.Random(SEED + 1)

    async def suggestion() -> tuple[int, str]:
        """Delete the rest of some line, and return the cursor there and what is suggested; "" if nothing is."""
        for _ in range(20):
            editor.change(editor.replaced(buffer, data))
            line = stretch_at(data, draw_place.randrange(len(data)), 12).start
            rest = data[line:].partition(b"\n")[0]
            code = rest.decode("utf-8")
            start = line + len(code[: draw_place.randrange(1, max(2, len(code)))].encode("utf-8"))
            change = editor.edited(buffer, Edit(start, line + len(rest), b""))
            reply = await editor.complete(buffer, start, change)
            if len(reply.text.encode()) >= LEAST_SUGGESTION:
                return start, reply.text
        return 0, ""

    for _ in range(sample.suggestions):
        offset, text = await suggestion()
        if not text:  # nor will there be any the next time
            break
        while len(text.encode()) >= LEAST_SUGGESTION:
            await asyncio.sleep(PAUSE)
            key, text = text[0].encode(), text[1:]
            change = editor.edited(buffer, Edit(offset, offset, key))
            offset += len(key)
            reply = await editor.complete(buffer, offset, change)
            along.keys.append(reply.seconds)
            along.kept += reply.text == text
    for _ in range(sample.suggestions):
        offset, text = await suggestion()
        if not text:
            break
        await asyncio.sleep(PAUSE)
        change = editor.edited(buffer, Edit(offset, offset, text.encode()))
        along.accepted.append((await editor.complete(buffer, offset + len(text.encode()), change)).seconds)
    for _ in range(sample.bursts):
        await restored(editor, buffer, data)
        stretch = stretch_at(data, draw_place.randrange(len(data)), BURST)
        editor.change(editor.edited(buffer, Edit(stretch.start, stretch.end, b"")))
        await editor.complete(buffer, stretch.start)
        along.bursts.append(await editor.burst(buffer, stretch.start, stretch.keys))
    await restored(editor, buffer, data)
    for _ in range(sample.cancels):
        await editor.settled(buffer)
        offset = stretch_at(data, draw_place.randrange(len(data)), 12).start + 4
        seconds, nothing = await editor.cancel(buffer, min(offset, len(data)), CANCEL_AFTER)
        along.cancels.append(seconds)
        along.cancelled += nothing
        along.after_cancel.append((await editor.complete(buffer, min(offset, len(data)))).seconds)
    return along


async def restored(editor: Editor, buffer: Buffer, data: bytes) -> None:
    """Make the text `data` again, and wait until the server has read what it wants of it."""
    editor.change(editor.replaced(buffer, data))
    await editor.settled(buffer)


# --- what came of it ----------------------------------------------------------------------------------------


def typed_rows(typed: list[Typed]) -> list[Row]:
    """Return the figures of typing anywhere, the ordinary file first."""
    ordinary = typed[0]
    rows = []
    for each in typed:
        p50, p99 = each.keys.p(50), each.keys.p(99)
        worse = max(p50 / ordinary.keys.p(50), p99 / ordinary.keys.p(99))
        if each is ordinary:
            target, enough = f"{P50_TARGET:.0f} / {P99_TARGET:.0f} ms", p50 <= P50_TARGET and p99 <= P99_TARGET
        elif each.size == max(LARGE):
            target, enough = f"{LARGE_TARGET} ×", worse <= LARGE_TARGET
        else:
            target, enough = "", None
        rows.append(
            Row(
                f"key → reply anywhere in a file of {each.name}, p50 / p99",
                target,
                f"{shown(p50)} / {shown(p99)} ms"
                + (
                    ""
                    if each is ordinary
                    else f" ({p50 / ordinary.keys.p(50):.2f} / {p99 / ordinary.keys.p(99):.2f} ×)"
                ),
                enough,
                f"{len(each.keys):,} keys at {len(each.jumps)} places, p95 {shown(each.keys.p(95))} ms; the first key "
                f"at each place {each.jumps}; {100 * each.shown:.0f} % get a suggestion",
                f"{'~' * each.naive_scaled}{each.naive}",
            )
        )
    return rows


def along_rows(along: Along, ordinary: Typed) -> list[Row]:
    """Return the figures of what else happens while one types, in the ordinary file."""
    keys, accepted = Times(along.keys), Times(along.accepted)
    cancels, after = Times(along.cancels), Times(along.after_cancel)
    bursts = Times([burst.seconds for burst in along.bursts])
    answered = sorted({burst.answered for burst in along.bursts})
    naive = f"{'~' * ordinary.naive_scaled}{shown(ordinary.naive.p(50))} ms"
    return [
        Row(
            "typing along a suggestion",
            "",
            str(keys),
            None,
            f"{len(keys)} keys, {along.kept} of which got the rest of the suggestion, unchanged",
            naive,
        ),
        Row("the next completion after accepting one", "", str(accepted), None, f"{len(accepted)} times", naive),
        Row(
            f"a burst of {BURST} keys: the last reply",
            "",
            str(bursts),
            None,
            f"all in one write; {' or '.join(map(str, answered))} of {BURST} replies hold a suggestion",
        ),
        Row(
            "a cancelled request comes back",
            "",
            str(cancels),
            None,
            f"cancelled after {1e3 * CANCEL_AFTER:.0f} ms; {along.cancelled} of {len(cancels)} without a suggestion; "
            f"asked again {after}",
        ),
    ]


def typed_json(typed: Typed) -> dict[str, Any]:
    """Return what was measured in one file as JSON data."""
    return {
        "bytes": typed.size,
        "keys": typed.keys.to_json(),
        "jumps": typed.jumps.to_json(),
        "shown": typed.shown,
        "naive": typed.naive.to_json(),
        "naive_scaled": typed.naive_scaled,
    }


def along_json(along: Along) -> dict[str, Any]:
    """Return what happened to suggestions as JSON data."""
    return {
        "along": Times(along.keys).to_json(),
        "along_unchanged": along.kept,
        "after_acceptance": Times(along.accepted).to_json(),
        "bursts": [{"ms": 1e3 * burst.seconds, "answered": burst.answered} for burst in along.bursts],
        "cancelled": Times(along.cancels).to_json(),
        "cancelled_empty": along.cancelled,
        "after_cancelled": Times(along.after_cancel).to_json(),
    }


def print_curve(points: list[Point]) -> None:
    """Print latency against file size."""
    table = Table(title="Key → reply with the cursor in the middle, against file size")
    for heading in ("file", "keys", "p50 / p95 / p99", "the naive server", "times ours"):
        table.add_column(heading, justify="right")
    for point in points:
        times = 1e3 * point.naive.seconds / point.keys.p(50)
        table.add_row(size_name(point.size), str(len(point.keys)), str(point.keys), str(point.naive), f"{times:,.0f} ×")
    console.print(table)


# --- the picture --------------------------------------------------------------------------------------------


def draw(points: list[Point], machine: str, path: Path) -> None:
    """Draw latency against file size, both axes logarithmic."""
    import textwrap

    from matplotlib.ticker import FuncFormatter

    sizes = [point.size for point in points]
    figure, axes = blank(8, 5, "From a key to its ghost text, against file size", dpi=150)
    measured = [point for point in points if not point.naive.scaled]
    scaled = [point for point in points if point.naive.scaled]
    axes.plot(
        [point.size for point in measured],
        [1e3 * point.naive.seconds for point in measured],
        "s-",
        color=OTHERS,
        label="naive: reads all before the cursor at each key",
    )
    if scaled:
        joined = measured[-1:] + scaled
        axes.plot([p.size for p in joined], [1e3 * p.naive.seconds for p in joined], "--", color=OTHERS, zorder=1)
        axes.plot(
            [point.size for point in scaled],
            [1e3 * point.naive.seconds for point in scaled],
            "s",
            color=OTHERS,
            markerfacecolor="white",
            label="naive, scaled up from reading a part",
        )
    axes.fill_between(
        sizes,
        [point.keys.p(5) for point in points],
        [point.keys.p(95) for point in points],
        color=OURS,
        alpha=0.18,
        linewidth=0,
        label="lsp-charrnn, p5 to p95",
    )
    axes.plot(sizes, [point.keys.p(50) for point in points], "o-", color=OURS, label="lsp-charrnn, median")
    axes.axhline(P50_TARGET, color=ASIDE, linewidth=0.8, linestyle=":")
    axes.text(
        1.005,
        P50_TARGET,
        f"aim:\n{P50_TARGET:.0f} ms",
        transform=axes.get_yaxis_transform(),
        va="center",
        color=ASIDE,
        fontsize=8,
    )

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1, None)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_name(value)))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / 1e3:g} s" if value >= 1e3 else f"{value:g} ms")
    )
    axes.set_xlabel("size of the open Python file, cursor in its middle")
    axes.set_ylabel("key → ghost text")
    axes.legend(loc="upper left", fontsize=9, framealpha=1, edgecolor=FAINT)
    figure.supxlabel("\n".join(textwrap.wrap(machine, 130)), x=0.01, ha="left", fontsize=7, color=ASIDE)
    save(figure, path)


if __name__ == "__main__":
    run(main)
