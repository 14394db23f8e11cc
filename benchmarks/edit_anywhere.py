"""How soon a completion comes after an edit anywhere in a large file that has been read.

python -m benchmarks.edit_anywhere [--quick] [--json FILE] [--size BYTES] [--runs N] [--model NAME] [--heldout DIR]
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from benchmarks.editor import Buffer, Editor, server_with
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
    run,
    set_up,
    size_name,
)
from lsp_charrnn.text.document import Edit

SIZE: Final = 1_000_000
TARGET: Final = 60.0  # ms, of the first reply at the end after an edit at the top
PAUSE: Final = 1.0  # seconds between the first reply and the next key
PLACES: Final = 1_000  # of a replace-all
PASTED: Final = 5_000  # lines
FORMATTED: Final = 3  # lines that a formatter changes
BRANCH: Final = 0.2  # of the lines that another branch has otherwise
READ: Final = (0.0, 1 / 3, 1 / 2, 1.0)  # where the cursor rests before, until the server has read what is around it
IMPORT: Final = b"import collections\n"
STATEMENT: Final = b"    for name, value in sorted(self.values.items()):\n        total += value\n"
KEY: Final = b"s"  # the next key, after the pause

_WORD: Final = re.compile(rb"\b[A-Za-z_]\w{3,}\b")


@dataclass(frozen=True)
class Step:
    """Something that is done to the text: `edits`, or `whole` in place of all of it; then a completion at `cursor`."""

    name: str  # the same in every run
    cursor: int
    detail: str = ""
    edits: tuple[Edit, ...] = ()
    whole: bytes | None = None


@dataclass
class Measured:
    """What was measured of one step, run by run in seconds."""

    first: list[float] = field(default_factory=list)  # the edit → the reply of the completion sent with it
    next: list[float] = field(default_factory=list)  # the same for a key after the pause
    busy: list[float] = field(default_factory=list)  # from then on until what is around the cursor has been read
    cursor: int = 0
    detail: str = ""


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    size: Annotated[int, typer.Option(help="Size of the file in bytes.", min=1_000)] = SIZE,
    runs: Annotated[int | None, typer.Option(help="How often all of it is done.", min=1)] = None,
    pause: Annotated[float, typer.Option(help="Seconds between the first reply and the next key.", min=0)] = PAUSE,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Edit a file of 1 MB that is open and read, and complete at once, through the real server over stdio.

    The edits: a line at the top and in the middle, then a jump to the end; undo; redo; a replace-all of 1,000 places; a
    paste of 5,000 lines; the whole text replaced by itself with 3 lines changed, as some formatters do, and with 20 %
    of the lines changed, as when a branch is switched. For each, the time from the first byte of didChange to the
    first reply, and the same for a key typed a second later. The baseline reads all before the cursor for each key.
    """
    setup = set_up(quick, model, heldout)
    measured, naive = asyncio.run(measure(setup, size, runs or (2 if quick else 5), pause))
    rows = rows_of(measured, naive, size, pause)
    data = {name: to_json(each, naive[name]) for name, each in measured.items()}
    finish(setup, f"Edits anywhere in {size_name(size)} of Python", rows, json_path, measurements=data)


# --- what is done -------------------------------------------------------------------------------------------


def steps(buffer: Buffer, draw: random.Random) -> Iterator[Step]:
    """Yield what is done to the text in `buffer`, one after another; each has been done when the next is asked for."""
    data = buffer.document.data
    lines = data.count(b"\n")
    scale = min(1.0, len(data) / SIZE)  # a smaller file has fewer places to change
    yield Step("an edit at the top, then at the end", len(data) + len(IMPORT), edits=(Edit(0, 0, IMPORT),))
    text = buffer.document.data
    middle = line_start(text, len(text) // 2 + draw.randrange(1_000))
    inserted = Edit(middle, middle, STATEMENT)
    behind = middle + len(STATEMENT)
    yield Step("an edit in the middle, then at the end", len(text) + len(STATEMENT), edits=(inserted,))
    yield Step("undo, there", middle, edits=(Edit(middle, behind, b""),))
    yield Step("redo, there", behind, edits=(inserted,))
    text = buffer.document.data
    edits, moved = replace_all(text, int(PLACES * scale))
    yield Step("replace-all, then at the end", len(text) + moved, f"{len(edits):,} places", edits)
    text = buffer.document.data
    third = line_start(text, len(text) // 3)
    pasted = b"".join(data.splitlines(keepends=True)[lines // 2 :][: int(PASTED * scale)])
    count = pasted.count(b"\n")
    yield Step("a paste, behind it", third + len(pasted), f"{count:,} lines", (Edit(third, third, pasted),))
    text = buffer.document.data
    formatted = changed(text, FORMATTED, draw)
    yield Step(
        "the whole text, formatted, then at the end", len(formatted), f"{FORMATTED} lines changed", whole=formatted
    )
    branch = changed(formatted, int(BRANCH * formatted.count(b"\n")), draw)
    yield Step(
        "the whole text, of another branch, then at the end",
        len(branch),
        f"{100 * BRANCH:.0f} % of the lines changed",
        whole=branch,
    )


def line_start(data: bytes, near: int) -> int:
    """Return where the line starts that `near` is in."""
    return data.rfind(b"\n", 0, near) + 1


def replace_all(data: bytes, places: int) -> tuple[tuple[Edit, ...], int]:
    """Return edits, the last first, that rename a word in `places` places, and by how much they move the end."""
    counts = Counter(_WORD.findall(data))
    # The rarest that is there often enough, so that its places are spread over all of the file.
    word = min((word for word in counts if counts[word] >= places), key=lambda word: (counts[word], word), default=b"")
    word = word or counts.most_common(1)[0][0]
    found = [match.start() for match in re.finditer(rb"\b%s\b" % re.escape(word), data)]
    kept = [found[index * len(found) // places] for index in range(places)] if len(found) > places else found
    return tuple(Edit(at, at + len(word), word + b"_new") for at in reversed(kept)), 4 * len(kept)


def changed(data: bytes, count: int, draw: random.Random) -> bytes:
    """Return `data` with `count` of its lines changed, here and there."""
    lines = data.split(b"\n")
    for index in draw.sample(range(len(lines) - 1), min(count, len(lines) - 1)):
        lines[index] += b"  # changed" if lines[index].strip() else b"# new"
    return b"\n".join(lines)


async def measure(setup: Setup, size: int, runs: int, pause: float) -> tuple[dict[str, Measured], dict[str, Naive]]:
    """Do all steps `runs` times in a file that was read before; then let the naive server answer at the same places."""
    data = setup.heldout.of_size(size)
    measured: dict[str, Measured] = {}
    draw = random.Random(SEED)
    async with server_with(setup.directory) as editor:
        with console.status("opening") as status:
            buffer, _ = await editor.open_and_complete(data, size, "edited.py")
            for run in range(runs):
                editor.change(editor.replaced(buffer, data))
                for part in READ:
                    await editor.complete(buffer, int(part * len(data)))
                    await editor.settled(buffer)
                for step in steps(buffer, draw):
                    status.update(f"run {run + 1} of {runs}: {step.name}")
                    await do(editor, buffer, step, measured.setdefault(step.name, Measured()), pause)
        with console.status("") as status:
            at: dict[float, Naive] = {}
            naive: dict[str, Naive] = {}
            for name, each in measured.items():
                # It reads up to the cursor, whatever was edited: near places cost it the same.
                near = round(each.cursor / size, 1)
                if near not in at:
                    status.update(f"the naive server: {name}")
                    cursor = min(each.cursor, len(data))
                    at[near] = naive_key(setup.model, data, cursor, limit=setup.naive_limit)
                naive[name] = at[near]
    return measured, naive


async def do(editor: Editor, buffer: Buffer, step: Step, measured: Measured, pause: float) -> None:
    """Do one step: complete at once, and again with a key `pause` seconds later. The key is taken back."""
    change = editor.edited(buffer, *step.edits) if step.whole is None else editor.replaced(buffer, step.whole)
    measured.cursor, measured.detail = step.cursor, step.detail
    measured.first.append((await editor.complete(buffer, step.cursor, change)).seconds)
    await asyncio.sleep(pause)
    key = editor.edited(buffer, Edit(step.cursor, step.cursor, KEY))
    measured.next.append((await editor.complete(buffer, step.cursor + len(KEY), key)).seconds)
    editor.change(editor.edited(buffer, Edit(step.cursor, step.cursor + len(KEY), b"")))
    begun = time.perf_counter()
    measured.busy.append(await editor.settled(buffer) - begun)


# --- what came of it ----------------------------------------------------------------------------------------


def rows_of(measured: dict[str, Measured], naive: dict[str, Naive], size: int, pause: float) -> list[Row]:
    """Return the figures, the one with a target first."""
    rows = []
    for index, (name, each) in enumerate(measured.items()):
        first, following, busy = Times(each.first), Times(each.next), Times(each.busy)
        after = f"a key {pause:g} s later {following}; all around read after {busy} more"
        asked = index == 0 and size == SIZE
        rows.append(
            Row(
                name,
                f"{TARGET:.0f} ms" if asked else "",
                str(first),
                first.p(50) <= TARGET if asked else None,
                "; ".join(filter(None, (each.detail, after))),
                str(naive[name]),
            )
        )
    return rows


def to_json(measured: Measured, naive: Naive) -> dict[str, Any]:
    """Return what was measured of one step as JSON data."""
    return {
        "cursor": measured.cursor,
        "first": Times(measured.first).to_json(),
        "next": Times(measured.next).to_json(),
        "busy": Times(measured.busy).to_json(),
        **naive.to_json(),
    }


if __name__ == "__main__":
    run(main)
