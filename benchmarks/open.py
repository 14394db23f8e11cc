"""How soon a file that was just opened is completed in its middle, whatever its size and shape.

python -m benchmarks.open [--quick] [--json FILE] [--sizes BYTES,BYTES] [--runs N] [--model NAME] [--heldout DIR]
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from benchmarks.editor import retype, server_with, stretch_at
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
    naive_key,
    numbers,
    run,
    set_up,
    size_name,
)

SIZES: Final = (10_000, 100_000, 1_000_000, 5_000_000, 10_000_000)
FIRST_TARGET: Final = 60.0  # ms, of a file of TARGET_SIZE
REFINED_TARGET: Final = 1_000.0
TARGET_SIZE: Final = 1_000_000
KEYS: Final = 20  # typed into each file once it is open


@dataclass(frozen=True)
class File:
    """Something to open."""

    name: str
    path: str
    language: str
    data: bytes


@dataclass(frozen=True)
class Opened:
    """What was measured on one file."""

    file: File
    first: Times  # didOpen → the first completion's reply
    refined: Times  # didOpen → the state at that place is as good as it gets
    keys: Times  # of typing there afterwards
    naive: Naive


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    sizes: Annotated[str, typer.Option(help="Sizes of the Python files in bytes, with commas.")] = "",
    runs: Annotated[int | None, typer.Option(help="How often each file is opened.", min=1)] = None,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Open files of 10 kB to 10 MB and complete in their middle at once, through the real server over stdio.

    Measured are the time from didOpen to the reply of the first completion, the time until the state there is refined
    (read from further back than the short warm-up of the first answer), and keys typed there then. The same for a line
    of 1 MB, 100,000 short lines, and minified JavaScript. The baseline reads all before the cursor, for each key.
    """
    setup = set_up(quick, model, heldout)
    chosen = numbers(sizes) or (SIZES[:3] if quick else SIZES)
    files = [*python_files(setup, chosen), *odd_files(TARGET_SIZE if TARGET_SIZE in chosen else max(chosen))]
    opened = asyncio.run(measure(setup, files, runs or (3 if quick else 9)))
    data = {each.file.name: to_json(each) for each in opened}
    finish(setup, "Opening a file", rows_of(opened), json_path, measurements=data)


def python_files(setup: Setup, sizes: tuple[int, ...]) -> list[File]:
    """Return held-out Python of these sizes."""
    return [
        File(f"{size_name(size)} of Python", f"python_{size}.py", "python", setup.heldout.of_size(size))
        for size in sizes
    ]


def odd_files(size: int) -> list[File]:
    """Return files of `size` bytes that no one writes by hand, the same ones each time."""
    draw = random.Random(SEED)
    lines = size // 10
    return [
        File(
            f"one line of {size_name(size)}",
            "one_line.py",
            "python",
            filled(b"TABLE = [", lambda: b"%d, " % draw.randrange(100_000), size),
        ),
        File(
            f"{lines:,} short lines",
            "short_lines.py",
            "python",
            b"".join(b"x%d = %d\n" % (draw.randrange(100), draw.randrange(100)) for _ in range(lines)),
        ),
        File(
            f"{size_name(size)} of minified JavaScript",
            "bundle.min.js",
            "javascript",
            filled(b'"use strict";', lambda: minified(draw), size),
        ),
    ]


def filled(begin: bytes, piece: Callable[[], bytes], size: int) -> bytes:
    """Return `begin` and as many pieces as make `size` bytes."""
    pieces = [begin]
    left = size - len(begin)
    while left > 0:
        pieces.append(piece())
        left -= len(pieces[-1])
    return b"".join(pieces)


def minified(draw: random.Random) -> bytes:
    """Return a function as minifiers leave it."""
    name, argument, other = ("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(1, 2))) for _ in "123")
    method = draw.choice(("push", "slice", "concat", "map", "forEach", "indexOf", "call"))
    number = draw.randrange(1_000)
    text = draw.choice(
        (
            f"function {name}({argument},{other}){{return {argument}.{method}({other}[{number}])}}",
            f"var {name}={argument}&&{argument}.{method}?{argument}.{method}({number}):void 0,{other}=[{number}];",
            f'{name}.prototype.{method}=function({argument}){{if(!{argument})throw Error("{number}");return this}};',
        )
    )
    return text.encode()


async def measure(setup: Setup, files: list[File], runs: int) -> list[Opened]:
    """Open each file `runs` times and type into it, the files in turn; then let the naive server answer there."""
    first: dict[str, list[float]] = {file.name: [] for file in files}
    refined: dict[str, list[float]] = {file.name: [] for file in files}
    keys: dict[str, list[float]] = {file.name: [] for file in files}
    # The server gets the model by the setting `model`, so that JavaScript has one too.
    async with server_with(setup.directory) as editor:
        warm, _ = await editor.open_and_complete(b"import os\nimport s", 18, "warm.py")  # loads the model
        editor.close_text(warm)
        with console.status("") as status:
            for run in range(runs):
                for file in files:
                    status.update(f"{run + 1} of {runs}: {file.name}")
                    await editor.idle()
                    near = min(len(file.data) // 2 + 997 * run, len(file.data) * 3 // 4)  # another place each time
                    stretch = stretch_at(file.data, near, 5 if setup.quick else KEYS)
                    buffer, reply = await editor.open_and_complete(
                        file.data, stretch.start + 4, f"{run}_{file.path}", file.language
                    )
                    began = time.perf_counter() - reply.seconds
                    first[file.name].append(reply.seconds)
                    refined[file.name].append(await editor.refined(buffer) - began)
                    keys[file.name] += [each.seconds for each in await retype(editor, buffer, stretch)]
                    editor.close_text(buffer)
    opened = []
    with console.status("") as status:
        for file in files:
            status.update(f"the naive server: {file.name}")
            naive = naive_key(setup.model, file.data, len(file.data) // 2, limit=setup.naive_limit)
            name = file.name
            opened.append(Opened(file, Times(first[name]), Times(refined[name]), Times(keys[name]), naive))
    return opened


def rows_of(opened: list[Opened]) -> list[Row]:
    """Return the figures."""
    rows = []
    for each in opened:
        asked = len(each.file.data) == TARGET_SIZE and "of Python" in each.file.name
        first, refined = each.first.p(50), each.refined.p(50)
        rows.append(
            Row(
                f"{each.file.name}: first reply",
                f"{FIRST_TARGET:.0f} ms" if asked else "",
                str(each.first),
                first <= FIRST_TARGET if asked else None,
                f"from didOpen, {len(each.first)} times",
                str(each.naive),
            )
        )
        rows.append(
            Row(
                f"{each.file.name}: refined",
                f"{REFINED_TARGET:,.0f} ms" if asked else "",
                str(each.refined),
                refined <= REFINED_TARGET if asked else None,
                "from didOpen, asked every 20 ms",
            )
        )
        rows.append(
            Row(f"{each.file.name}: keys", "", str(each.keys), None, f"{len(each.keys)} keys there", str(each.naive))
        )
    return rows


def to_json(opened: Opened) -> dict[str, object]:
    """Return what was measured on one file as JSON data."""
    return {
        "bytes": len(opened.file.data),
        "first": opened.first.to_json(),
        "refined": opened.refined.to_json(),
        "keys": opened.keys.to_json(),
        **opened.naive.to_json(),
    }


if __name__ == "__main__":
    run(main)
