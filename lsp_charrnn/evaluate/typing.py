"""Keystrokes saved on held-out files, through the real server and by the baseline, under the rules of
`replay`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich import box
from rich.table import Table

from lsp_charrnn.config import parse_settings
from lsp_charrnn.evaluate.alone import MemoriesAlone
from lsp_charrnn.evaluate.client import ServerSuggester
from lsp_charrnn.evaluate.heldout import heldout_files
from lsp_charrnn.evaluate.picture import ASIDE, FAINT, OTHERS, OURS, blank, save
from lsp_charrnn.evaluate.replay import (
    ACCEPTS,
    KEYS,
    WINDOWS,
    Accept,
    Place,
    Replay,
    Suggester,
    Window,
    draw_windows,
    replay,
)
from lsp_charrnn.evaluate.words import DocumentWords
from lsp_charrnn.model.files import find_model, model_for_language, read_config

ALONE: Final = "LSTM alone"
# What is compared: which memories the server has.
_WAYS: Final = {
    ALONE: {"memory.document": False, "memory.project": False},
    "LSTM + document": {"memory.document": True, "memory.project": False},
    "LSTM + document + project": {"memory.document": True, "memory.project": True},
}
# The suggesters that are compared, and what people call them, ours last.
COMPARED: Final = {
    DocumentWords.name: "words of the document",
    MemoriesAlone.name: MemoriesAlone.name,
    **{name: name for name in _WAYS},
}


@dataclass(frozen=True)
class TypingRow:
    """The figures of one suggester and one way to accept, over all windows."""

    suggester: str
    accept: Accept
    replays: tuple[Replay, ...]

    @property
    def keys_without(self) -> int:
        """Keys that the text costs by itself."""
        return sum(replay.keys_without for replay in self.replays)

    @property
    def keys_with(self) -> int:
        """Keys that it cost with suggestions; also the number of requests."""
        return sum(replay.keys_with for replay in self.replays)

    @property
    def saved(self) -> float:
        """Share of the keys that was saved."""
        return 1.0 - self.keys_with / self.keys_without

    @property
    def saved_error(self) -> float:
        """Standard error of `saved`, from how much the windows differ; nan for a single window."""
        if len(self.replays) < 2:
            return math.nan
        ratio = self.keys_with / self.keys_without
        residuals = [replay.keys_with - ratio * replay.keys_without for replay in self.replays]
        count = len(residuals)
        return float(np.sqrt(count / (count - 1) * np.square(residuals).sum()) / self.keys_without)

    @property
    def acceptance(self) -> float:
        """Share of the distinct suggestions of which something was taken; nan if there was none."""
        distinct = sum(replay.distinct for replay in self.replays)
        return sum(replay.taken for replay in self.replays) / distinct if distinct else math.nan

    @property
    def shown(self) -> float:
        """Share of the keys after which something is shown."""
        return sum(replay.shown for replay in self.replays) / self.keys_with

    def latency_ms(self, percentile: float) -> float:
        """Return a percentile of the time from a key to its answer, in milliseconds."""
        return float(np.percentile([1e3 * t for replay in self.replays for t in replay.latencies], percentile))

    def to_json(self) -> dict[str, Any]:
        """Return the figures, over all and by window, as JSON data."""
        return {
            "suggester": self.suggester,
            "accept": self.accept,
            "saved": self.saved,
            "saved_error": None if math.isnan(self.saved_error) else self.saved_error,
            "acceptance": None if math.isnan(self.acceptance) else self.acceptance,
            "shown": self.shown,
            "keys_without": self.keys_without,
            "keys_with": self.keys_with,
            "latency_ms": {f"p{p}": self.latency_ms(p) for p in (50, 95, 99)},
            "windows": [
                {
                    "keys_without": r.keys_without,
                    "keys_with": r.keys_with,
                    "distinct": r.distinct,
                    "taken": r.taken,
                }
                for r in self.replays
            ],
        }


@dataclass(frozen=True)
class TypingReport:
    """What was typed, and what each suggester saved."""

    model: str
    place: Place
    windows: tuple[Window, ...]
    rows: tuple[TypingRow, ...]

    def row(self, suggester: str, accept: Accept) -> TypingRow:
        """Return the row of one suggester and one way to accept. Raises `KeyError` if there is none."""
        for row in self.rows:
            if (row.suggester, row.accept) == (suggester, accept):
                return row
        raise KeyError((suggester, accept))

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON data."""
        return {
            "measured": "keystrokes saved by replayed typing",
            "model": self.model,
            "place": self.place,
            "windows": [
                {"project": w.project, "path": w.path, "line": w.line, "characters": w.end - w.start}
                for w in self.windows
            ],
            "rows": [row.to_json() for row in self.rows],
        }

    def table(self) -> Table:
        """Return one row for each suggester and way to accept."""
        projects = sorted({window.project for window in self.windows})
        keys = max(row.keys_without for row in self.rows)
        table = Table(
            title=f"Keystrokes saved, model {self.model}, typing at the {self.place} of a file",
            caption=f"{keys:,} keys in {len(self.windows)} files of {', '.join(projects)}; ± standard error",
            box=box.SIMPLE_HEAD,
        )
        table.add_column("suggestions")
        table.add_column("taken")
        for name in ("saved", "accepted", "shown", "p50/95/99 ms"):
            table.add_column(name, justify="right")
        for row in self.rows:
            table.add_row(
                row.suggester,
                "whole" if row.accept == "all" else "+ next word",
                f"{100 * row.saved:.1f} ± {100 * row.saved_error:.1f} %",
                f"{100 * row.acceptance:.0f} %",
                f"{100 * row.shown:.0f} %",
                "/".join(f"{row.latency_ms(p):.1f}" for p in (50, 95, 99)),
            )
        return table

    def picture(self, path: Path) -> None:
        """Draw what each of `COMPARED` saved, as a PNG at `path`, which appears whole or not at all.

        Raises `KeyError` if these were not compared, `UserError` if matplotlib is not installed, `OutputError` if
        `path` can't be written.
        """
        figure, axes = blank(8, 3.8, "Keystrokes saved in held-out files")
        ways: tuple[tuple[Accept, str, float], ...] = (
            ("all", "whole suggestions", 1.0),
            ("words", "whole suggestions, or their next word", 0.5),
        )
        for place, suggester in enumerate(COMPARED):
            # A word of the document is taken whole or not at all: one bar, in the middle.
            there = [way for way in ways if suggester != DocumentWords.name or way[0] == "all"]
            for number, (accept, _, strength) in enumerate(there):
                row = self.row(suggester, accept)
                y = place + 0.4 * (number - (len(there) - 1) / 2)
                saved, error = 100 * row.saved, 100 * row.saved_error
                known = not math.isnan(error)
                axes.barh(y, saved, 0.36, color=OURS if suggester in _WAYS else OTHERS, alpha=strength, linewidth=0)
                if known:
                    axes.errorbar(saved, y, xerr=error, color="black", linewidth=0.8, capsize=2)
                text = f"{saved:.1f} ± {error:.1f} %" if known else f"{saved:.1f} %"
                axes.annotate(
                    text,
                    (saved + (error if known else 0), y),
                    (5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
        for _, name, strength in ways:
            axes.barh(0, 0, color=ASIDE, alpha=strength, label=f"taken: {name}")
        axes.set_yticks(range(len(COMPARED)), list(COMPARED.values()))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 100)
        keys, projects = max(row.keys_without for row in self.rows), {window.project for window in self.windows}
        axes.set_xlabel(
            f"% of {keys:,} keys in {len(self.windows)} files of {len(projects)} projects, typing at the {self.place}; "
            "± standard error",
            fontsize=9,
        )
        axes.legend(loc="upper right", fontsize=8, framealpha=1, edgecolor=FAINT)
        save(figure, path)


async def type_windows(
    windows: Sequence[Window],
    suggester: Suggester,
    *,
    accepts: Iterable[Accept] = ACCEPTS,
    place: Place = "end",
    progress: Callable[[str, int, int], None] | None = None,
) -> list[TypingRow]:
    """Type all windows with `suggester`, once for each way to accept.

    `progress` is called with (what is under way, windows done, windows in all).
    """
    rows = []
    for accept in accepts:
        replays = []
        for done, window in enumerate(windows):
            if progress is not None:
                progress(f"{suggester.name}, {accept}", done, len(windows))
            replays.append(await replay(window, suggester, accept=accept, place=place))
        rows.append(TypingRow(suggester.name, accept, tuple(replays)))
    return rows


async def measure_typing(
    paths: Sequence[Path | str],
    *,
    model: str | Path = "",
    settings: Mapping[str, Any] | None = None,
    suffixes: Sequence[str] = (".py",),
    files: int = WINDOWS,
    keys: int = KEYS,
    accepts: Iterable[Accept] = ACCEPTS,
    place: Place = "end",
    baseline: bool = True,
    compare: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> TypingReport:
    """Type `files` files of `keys` keys each, drawn from the source files under `paths`, and report what was
    saved.

    `model` is a name or a path, by default the files' language's own; `settings` go to the server by their
    names in `config.SETTING_NAMES`. With `compare` the model is measured without the memories, too, and they without
    it. Raises `CorpusError` if nothing is long enough, `ModelError` if there is
    no such model, `UserError` if the server fails.
    """
    heldout = heldout_files(paths, suffixes=suffixes).files
    windows = draw_windows(heldout, count=files, keys=keys)
    accepts = tuple(accepts)
    directory = find_model(model) if model else model_for_language(windows[0].language)
    name = str(read_config(directory)[0]["name"])
    rows: list[TypingRow] = []
    projects = {window.project for window in windows}
    around = [file for file in heldout if file.project in projects]
    ways: dict[str, Mapping[str, Any]] = {ServerSuggester.name: settings or {}}
    if compare:
        ways = {name: {**(settings or {}), **memories} for name, memories in _WAYS.items()}
    for name_of_way, options in ways.items():
        async with ServerSuggester.started(
            model=directory, settings=options, projects=projects, files=around
        ) as server:
            server.name = name_of_way
            await server.projects_known()
            rows += await type_windows(windows, server, accepts=accepts, place=place, progress=progress)
    if compare:
        alone = MemoriesAlone(around, parse_settings(dict(settings or {}))[0])
        rows += await type_windows(windows, alone, accepts=accepts, place=place, progress=progress)
    if baseline:
        # A word is taken whole or not at all, so the two ways to accept are one.
        rows += await type_windows(windows, DocumentWords(), accepts=("all",), place=place, progress=progress)
    return TypingReport(name, place, tuple(windows), tuple(rows))
