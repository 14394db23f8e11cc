"""What is shown at which probability while held-out files are typed, and whether it was right: pairs for `reliability`.

The files are typed again by the rules of `replay`, whole suggestions being taken, with the memories of document and
project as they are shipped. A pair is made of each distinct suggestion when it is first shown: the probability that the
engine gave all of it, and whether all of it was what the author wrote next. What was considered and not shown has no
part in it, so the curve says nothing of how likely that was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.table import Table

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.heldout import heldout_files
from lsp_charrnn.evaluate.inprocess import PATIENT, InProcess
from lsp_charrnn.evaluate.reliability import Reliability, reliability
from lsp_charrnn.evaluate.replay import KEYS, WINDOWS, Window, draw_windows, replay
from lsp_charrnn.model.files import find_model, load_model, model_for_language


@dataclass(frozen=True)
class ShownReport:
    """What was shown in each window."""

    model: str
    windows: tuple[Window, ...]
    pairs: tuple[tuple[tuple[float, bool], ...], ...]  # by window: (probability, whether it was right)

    @cached_property
    def reliability(self) -> Reliability:
        """How far the probabilities can be believed; corrections are fitted to one half of the windows and scored
        on the other, unless nothing was shown in one of them."""
        pairs = [(p, right, half) for half, of in zip(self.halves(), self.pairs, strict=True) for p, right in of]
        predicted, right, halves = zip(*pairs, strict=True)
        return reliability(predicted, right, halves=halves if len(set(halves)) > 1 else None)

    def halves(self) -> list[int]:
        """Return for each window in which half it is, 0 or 1: a project's are in one, if there are several projects."""
        projects = sorted({window.project for window in self.windows})
        if len(projects) == 1:
            return [number % 2 for number in range(len(self.windows))]
        return [projects.index(window.project) % 2 for window in self.windows]

    def to_json(self) -> dict[str, Any]:
        """Return all figures, and every pair, as JSON data."""
        windows = [
            {"project": w.project, "path": w.path, "line": w.line, "half": half, "shown": [list(pair) for pair in of]}
            for w, half, of in zip(self.windows, self.halves(), self.pairs, strict=True)
        ]
        return {**self.reliability.to_json(), "model": self.model, "windows": windows}

    def table(self) -> Table:
        """Return the table of `reliability`, and what was typed."""
        table = self.reliability.table()
        table.title = f"{table.title}, model {self.model}, typing at the end of {len(self.windows)} files"
        return table


def measure_reliability(
    paths: Sequence[Path | str],
    *,
    model: str | Path = "",
    suffixes: Sequence[str] = (".py",),
    files: int = WINDOWS,
    keys: int = KEYS,
    progress: Callable[[int, int], None] | None = None,
) -> ShownReport:
    """Type `files` files of `keys` keys each, drawn from the source files under `paths`, and note what is shown.

    `model` is a name or a path, by default the files' language's own; `progress` is called with (windows done, windows
    in all). Raises `CorpusError` if nothing is long enough, or nothing was shown, and `ModelError` if there is no such
    model.
    """
    heldout = heldout_files(paths, suffixes=suffixes).files
    windows = draw_windows(heldout, count=files, keys=keys)
    served = load_model(find_model(model) if model else model_for_language(windows[0].language))
    projects = {window.project for window in windows}
    suggester = InProcess(served, [file for file in heldout if file.project in projects], PATIENT)
    pairs: list[tuple[tuple[float, bool], ...]] = []
    for window in windows:
        if progress is not None:
            progress(len(pairs), len(windows))
        pairs.append(_pairs(window, suggester))
    if not any(pairs):
        raise CorpusError(f"Nothing was shown in {len(windows)} files of {keys} keys: name more files, or type more.")
    return ShownReport(served.name, tuple(windows), tuple(pairs))


def _pairs(window: Window, suggester: InProcess) -> tuple[tuple[float, bool], ...]:
    found: list[tuple[float, bool]] = []
    asyncio.run(replay(window, suggester, judged=lambda right: found.append((suggester.probability, right))))
    return tuple(found)
