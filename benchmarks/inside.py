"""Whether looking inside slows completions: a key's time with and without a client that asks `lspCharrnn/inside`.

python -m benchmarks.inside [--quick] [--json FILE] [--model NAME] [--heldout DIR]
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import random
import statistics
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from benchmarks.editor import Buffer, Editor, Reply, Stretch, retype, server_with, stretch_at
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
    run,
    set_up,
)

LINES: Final = 2_000
SEEN: Final = 60  # lines, as many as an editor's window shows
KEYS: Final = 25  # at each place
PLACES: Final = (16, 4)  # in all, and quickly: six minutes, and half a one
# Seconds between keys: with the first the next key comes while the model is still at it, with the second after it.
PAUSES: Final = (0.05, 0.4)
TARGET: Final = 1.1  # times the same without it
SIGNALS: Final = ("h", "i")  # the stream's own, and one that is computed


@dataclass
class Typed:
    """What was measured at one pause between keys."""

    without: list[float] = field(default_factory=list)  # seconds of each key
    asked: list[float] = field(default_factory=list)  # of the same keys, with a client that looks inside after each
    answers: int = 0  # requests to look inside that came back with something: the others were overtaken


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    every: Annotated[bool, typer.Option("--all", help="Ask for all neurons of the layer, too.")] = False,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Type into held-out Python through the real server over stdio, twice at each place: with and without a client
    that asks `lspCharrnn/inside` for the 60 lines around the cursor as soon as each completion has come.

    Measured is the time from the first byte of didChange to the reply of the completion behind it. Replies are of two
    kinds: what was shown goes on (2 ms), or is decoded (10 ms); the median of all lies somewhere in the gap between
    them, and may jump by a third. So each key is compared with itself: means, and the median of the differences.
    """
    setup = set_up(quick, model, heldout)
    typed = asyncio.run(measure(setup, PLACES[quick], every=every))
    rows = [row for pause, one in typed.items() for row in rows_of(pause, one)]
    measurements: dict[str, Any] = {
        f"{1e3 * pause:.0f} ms": {
            "without": Times(one.without).to_json(),
            "with": Times(one.asked).to_json(),
            "answers": one.answers,
        }
        for pause, one in typed.items()
    }
    finish(setup, "Looking inside while typing", rows, json_path, measurements=measurements)


async def measure(setup: Setup, places: int, *, every: bool) -> dict[float, Typed]:
    """Type at `places` random places, in turn with and without, so that a slow spell of the machine falls on both."""
    data = setup.heldout.of_lines(LINES)
    draw_place = random.Random(SEED)
    keys = 8 if setup.quick else KEYS
    stretches = [stretch_at(data, draw_place.randrange(len(data)), keys) for _ in range(places)]
    found = {pause: Typed() for pause in PAUSES}
    async with server_with(setup.directory) as editor:
        buffer, _ = await editor.open_and_complete(data, len(data) // 2, "file.py")
        await editor.settled(buffer)
        await editor.inside(buffer, len(data) // 2, SEEN, signal=SIGNALS[1])  # loads the weights
        with console.status("") as status:
            for pause, typed in found.items():
                for place, stretch in enumerate(stretches):
                    status.update(f"place {place + 1} of {places}, {1e3 * pause:.0f} ms between keys")
                    # What comes second finds the text read: so each comes second as often.
                    for asking in (place % 2 == 0, place % 2 == 1):
                        if asking:
                            replies, answers = await looking(editor, buffer, stretch, pause, every=every)
                            typed.asked += [reply.seconds for reply in replies]
                            typed.answers += answers
                        else:
                            replies = await retype(editor, buffer, stretch, pause)
                            typed.without += [reply.seconds for reply in replies]
    return found


async def looking(
    editor: Editor, buffer: Buffer, stretch: Stretch, pause: float, *, every: bool
) -> tuple[list[Reply], int]:
    """Retype a stretch, looking inside after each key; return the replies, and how often something was seen."""
    seen: list[asyncio.Future[Any]] = []

    def look(offset: int) -> None:
        seen.append(editor.inside(buffer, offset, SEEN, signal=SIGNALS[len(seen) % 2], all=every))

    replies = await retype(editor, buffer, stretch, pause, after=look)
    answers = [await editor.answer(future) for future in seen]
    return replies, sum(answer is not None for answer in answers)


def rows_of(pause: float, typed: Typed) -> list[Row]:
    """Return the figures: how long a key took without, and with."""
    without, asked = Times(typed.without), Times(typed.asked)
    longer = Times([ask - lone for ask, lone in zip(typed.asked, typed.without, strict=True)])
    ratios = [statistics.fmean(typed.asked) / statistics.fmean(typed.without), asked.p(99) / without.p(99)]
    name = f"{1e3 * pause:.0f} ms between keys"
    return [
        Row(f"a completion, {name}", "", str(without), None, f"{len(without)} keys; p50 / p95 / p99"),
        Row(
            "the same, looking inside after each",
            "",
            str(asked),
            None,
            f"{len(asked)} keys; {typed.answers} times something was seen before the next key",
        ),
        Row(
            "the same key, longer by",
            "",
            f"{longer.p(50):+.2f} ms ({longer.p(25):+.2f} to {longer.p(75):+.2f})",
            None,
            "median of the differences, and quartiles",
        ),
        Row(
            "times as long, mean and p99",
            f"{TARGET:.1f}",
            " / ".join(f"{ratio:.2f}" for ratio in ratios),
            max(ratios) <= TARGET,
            f"{SEEN} lines are asked for as soon as a completion has come",
        ),
    ]


if __name__ == "__main__":
    run(main)
