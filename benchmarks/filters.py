"""How often each filter cuts something off a suggestion, and how many keys that saves or costs.

python -m benchmarks.filters [--quick] [--json FILE] [--windows N] [--keys N] [--model NAME] [--heldout DIR]
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Final
from unittest.mock import patch

import typer

from benchmarks.workbench import (
    HELDOUT,
    SEED,
    HeldoutPath,
    JsonPath,
    ModelName,
    Quick,
    Row,
    Setup,
    console,
    finish,
    run,
    set_up,
    shown,
)
from lsp_charrnn.engine import session
from lsp_charrnn.engine.filters import FILTERS, Filter, Surroundings, filtered
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.inprocess import PATIENT, InProcess
from lsp_charrnn.evaluate.replay import KEYS, Place, Replay, Window, draw_windows, replay
from lsp_charrnn.model.step import Model

WINDOWS: Final = 16
LINES_KEYS: Final = 60  # two or three lines between others
SHORT: Final = 6  # times as many windows of the short kinds
AGREEMENT: Final = "agreement"
_BRACKETS: Final = re.compile(r"(?<=[(\[{])[^()\[\]{}\n]{8,}(?=[)\]}])")


@dataclass(frozen=True)
class Passage:
    """A kind of place to type at, and what is typed there."""

    name: str
    place: Place
    windows: tuple[Window, ...]


@dataclass
class Tally:
    """What filters did while one window was typed."""

    requests: int = 0
    fired: Counter[str] = field(default_factory=Counter)  # requests in which one cut something off a candidate
    calls: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    now: set[str] = field(default_factory=set)  # those that have fired in this request


@dataclass(frozen=True)
class Typed:
    """What came of typing a passage's windows in one way."""

    replays: tuple[Replay, ...]
    tallies: tuple[Tally, ...]

    @property
    def keys(self) -> int:
        """Keys that it took."""
        return sum(each.keys_with for each in self.replays)

    @property
    def keys_without(self) -> int:
        """Keys that it takes without suggestions."""
        return sum(each.keys_without for each in self.replays)

    @property
    def wrong(self) -> int:
        """Distinct suggestions of which nothing was taken."""
        return sum(each.distinct - each.taken for each in self.replays)

    @property
    def requests(self) -> int:
        """How often something was asked for."""
        return sum(tally.requests for tally in self.tallies)


class Filtering(InProcess):
    """The session with some of the filters, as a `replay.Suggester`; it knows no project."""

    def __init__(self, model: Model, left_out: Sequence[str]) -> None:
        super().__init__(model, settings=PATIENT)
        self.tally = Tally()
        self._filters = [watched(each, self.tally) for each in FILTERS if each.name not in left_out]
        self._agrees = AGREEMENT not in left_out

    async def suggest(self, typed: str) -> str:
        """Type, and complete by these filters."""
        with ExitStack() as changed:
            # No setting leaves out a filter, for nobody should: only here.
            changed.enter_context(patch.object(session, "filtered", lambda text, at: filtered(text, at, self._filters)))
            if not self._agrees:
                changed.enter_context(patch.object(session, AGREEMENT, lambda text, around: 1.0))
            answer = await super().suggest(typed)
        self.tally.requests += 1
        self.tally.fired.update(self.tally.now)
        self.tally.now.clear()
        return answer


def watched(each: Filter, tally: Tally) -> Filter:
    """Return the filter as one that keeps a tally."""

    def look(text: bytes, around: Surroundings) -> bytes:
        started = time.process_time()
        left = each.look(text, around)
        tally.seconds[each.name] += time.process_time() - started
        tally.calls[each.name] += 1
        if left != text:
            tally.now.add(each.name)
        return left

    return Filter(each.name, look)


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    windows: Annotated[
        int | None, typer.Option(help="Files typed in at length; short gaps are several times as many.", min=1)
    ] = None,
    keys: Annotated[int | None, typer.Option(help="Keys typed in each of them.", min=1)] = None,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Type held-out Python again, in this process, by the rules of `evaluate typing`, with and without each filter.

    At the end of a file; in its middle, with the rest of the file far behind the cursor; two or three lines between
    others; and between brackets, as editors close them. Fired: requests in which a filter cut something off one of the
    candidates or more. Saved: the keys that typing takes more without it, as points of those that it takes without
    suggestions; wrong: the same for distinct suggestions of which nothing was taken, of 1,000 requests.
    """
    setup = set_up(quick, model, heldout)
    passages = passages_of(setup, windows or (2 if quick else WINDOWS), keys or (100 if quick else KEYS))
    rows: list[Row] = []
    measurements: dict[str, object] = {}
    for passage in passages:
        with console.status("") as status:
            found = measure(passage, setup.model, status.update)
        rows += rows_of(passage, found)
        measurements[passage.name] = {name: to_json(typed) for name, typed in found.items()}
    finish(setup, "Filters", rows, json_path, measurements=measurements)


def passages_of(setup: Setup, count: int, keys: int) -> list[Passage]:
    """Return what is typed: `count` windows of `keys` keys, and more of the short kinds."""
    files = setup.heldout.files
    long = tuple(draw_windows(files, count=count, keys=keys))
    short = tuple(draw_windows(files, count=SHORT * count, keys=LINES_KEYS))
    brackets = tuple(window for window in map(in_brackets, short) if window is not None)
    if not brackets:
        raise UserError("There is nothing between brackets in the held-out text: give --heldout more of it.")
    return [
        Passage("at the end", "end", long),
        Passage("in the middle", "middle", long),
        Passage("between lines", "middle", short),
        Passage("between brackets", "middle", brackets),
    ]


def in_brackets(window: Window) -> Window | None:
    """Return a window of the same file that goes from a bracket to its end in the same line."""
    found = list(_BRACKETS.finditer(window.text))
    if not found:
        return None
    start, end = random.Random(f"{SEED} {window.path}").choice(found).span()
    return Window(window.project, window.path, window.language, window.text, start, end)


# --- what is done -------------------------------------------------------------------------------------------


def ways() -> tuple[str, ...]:
    """Return what can be left out by name: the filters, and the agreement if the session asks for it."""
    return (*(each.name for each in FILTERS), *((AGREEMENT,) if hasattr(session, AGREEMENT) else ()))


def measure(passage: Passage, model: Model, progress: Callable[[str], None]) -> dict[str, Typed]:
    """Type the windows with everything, without each, and with nothing; by what is left out, "" and "all" for these."""
    found = {"": typed(passage, model, (), progress)}
    for name in ways():
        found[name] = typed(passage, model, (name,), progress, found[""])
    found["all"] = typed(passage, model, ways(), progress)
    return found


def typed(
    passage: Passage, model: Model, left_out: Sequence[str], progress: Callable[[str], None], whole: Typed | None = None
) -> Typed:
    """Type the windows. What is `whole` stands where that which is left out has cut nothing: the same would come."""
    replays, tallies = [], []
    for index, window in enumerate(passage.windows):
        without = f" without {' and '.join(left_out)}" if left_out else ""
        progress(f"{passage.name}{without}, {index + 1} of {len(passage.windows)}")
        if whole is not None and left_out != (AGREEMENT,) and not whole.tallies[index].fired[left_out[0]]:
            replays.append(whole.replays[index])
            tallies.append(whole.tallies[index])
        else:
            suggester = Filtering(model, left_out)
            replays.append(asyncio.run(replay(window, suggester, place=passage.place)))
            tallies.append(suggester.tally)
    return Typed(tuple(replays), tuple(tallies))


# --- what is reported ---------------------------------------------------------------------------------------


def rows_of(passage: Passage, found: dict[str, Typed]) -> list[Row]:
    """Return the figures of one kind of place."""
    whole, nothing = found[""], found["all"]
    rows = [
        Row(
            f"{passage.name}: all of them",
            "",
            gained(whole, nothing),
            None,
            f"{100 * saved(whole):.1f} % of {whole.keys_without:,} keys saved, {100 * saved(nothing):.1f} % without; "
            f"{per_thousand(whole.wrong, whole)} wrong ones, {per_thousand(nothing.wrong, nothing)} without; "
            f"{whole.requests:,} requests in {len(passage.windows)} windows",
        )
    ]
    for name in ways():
        fired = sum(tally.fired[name] for tally in whole.tallies)
        if not fired and name != AGREEMENT:
            continue
        calls = sum(tally.calls[name] for tally in whole.tallies)
        seconds = sum(tally.seconds[name] for tally in whole.tallies)
        note = f"{per_thousand(found[name].wrong, found[name])} wrong ones without"
        if calls:
            note = f"fired {per_thousand(fired, whole)} times, {note}; {1e6 * seconds / calls:.0f} µs a candidate"
        rows.append(Row(f"{passage.name}: {name}", "", gained(whole, found[name]), None, note))
    return rows


def saved(typed: Typed) -> float:
    """Return the part of the keys that suggestions saved."""
    return 1 - typed.keys / typed.keys_without


def gained(whole: Typed, without: Typed) -> str:
    """Return how many more keys are saved than without something."""
    return f"{100 * (saved(whole) - saved(without)):+.2f} points"


def per_thousand(count: int, typed: Typed) -> str:
    """Return how many that are of a thousand requests."""
    return shown(1e3 * count / typed.requests) if count else "0"


def to_json(typed: Typed) -> dict[str, object]:
    """Return what came of it as JSON data."""
    names = sorted({name for tally in typed.tallies for name in tally.calls})
    return {
        "windows": len(typed.replays),
        "requests": typed.requests,
        "keys_without": typed.keys_without,
        "keys": typed.keys,
        "saved": saved(typed),
        "shown": sum(each.shown for each in typed.replays),
        "distinct": sum(each.distinct for each in typed.replays),
        "taken": sum(each.taken for each in typed.replays),
        "fired": {name: sum(tally.fired[name] for tally in typed.tallies) for name in names},
        "microseconds": {
            name: 1e6
            * sum(tally.seconds[name] for tally in typed.tallies)
            / sum(tally.calls[name] for tally in typed.tallies)
            for name in names
        },
    }


if __name__ == "__main__":
    run(main)
