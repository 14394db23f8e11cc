"""How well surprise finds mistakes: some are planted in held-out files, and every token is ranked by its excess.

Precision at k is the share of the k most surprising tokens of a file that are planted mistakes, recall at k the share
of its mistakes that are among them; the area under the curve is the probability that a token of a mistake stands before
another one. Beside it stand chance, the model without memories, the memories without a model, and the mere cost in bits
instead of the excess. A file may have slips of its own, and odd names: what is found of these counts as wrong here, so
the precision is a lower bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table

from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.engine.surprise import Surprise, Token
from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.alone import NoModel
from lsp_charrnn.evaluate.heldout import heldout_files, name_of, take_in_turn
from lsp_charrnn.evaluate.mistakes import KINDS, Mistake, plant
from lsp_charrnn.model.files import find_model, load_model, model_for_language
from lsp_charrnn.train.corpus import SourceFile

FILES: Final = 24
FILE_CHARACTERS: Final = 8_000  # of a file, from its beginning, up to a line's end
MISTAKES: Final = 5  # in a file: as many as there are kinds
AT: Final = (1, 3, 5, 10, 20)  # k

MIXTURE: Final = "LSTM + document + project"
BITS: Final = f"{MIXTURE}, by bits alone"
ALONE: Final = "LSTM"
MEMORIES: Final = "memories alone"
CHANCE: Final = "chance"

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """The tokens of one file as a way ranks them, and which are mistakes."""

    scores: Scores  # [tokens]
    mistake: npt.NDArray[np.int64]  # [tokens], the index of the mistake that a token is of; -1: none
    kinds: tuple[str, ...]  # of the mistakes

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """The tokens, most surprising first."""
        return np.argsort(-self.scores, kind="stable")


@dataclass(frozen=True)
class SurpriseReport:
    """How well each way finds the mistakes."""

    model: str
    ways: dict[str, tuple[Ranked, ...]]
    seconds: float

    @property
    def mistakes(self) -> int:
        """How many there are."""
        return sum(len(one.kinds) for one in self._files)

    @property
    def tokens(self) -> int:
        """How many there are, of all files."""
        return sum(len(one.scores) for one in self._files)

    @property
    def _files(self) -> tuple[Ranked, ...]:
        return next(iter(self.ways.values()))

    def precision(self, way: str, k: int) -> float:
        """Return the share of the `k` most surprising tokens of each file that are of a mistake, in the mean."""
        if way == CHANCE:
            return float(np.mean([(one.mistake >= 0).mean() for one in self._files]))
        return float(np.mean([(one.mistake[one.order[:k]] >= 0).sum() / k for one in self.ways[way]]))

    def recall(self, way: str, k: int, kind: str = "") -> float:
        """Return the share of mistakes, of one kind or all, that are among the `k` most surprising tokens of theirs."""
        found = total = 0.0
        for one in self._files if way == CHANCE else self.ways[way]:
            seen = set(one.mistake[one.order[:k]].tolist())
            for index, own in enumerate(one.kinds):
                if kind in ("", own):
                    total += 1
                    # By chance: that none of its tokens is among k drawn.
                    size, all_tokens = int((one.mistake == index).sum()), len(one.scores)
                    found += 1 - (1 - k / all_tokens) ** size if way == CHANCE else index in seen
        return found / total if total else float("nan")

    def area(self, way: str) -> float:
        """Return the probability that a token of a mistake ranks before another one of its file, in the mean."""
        if way == CHANCE:
            return 0.5
        areas = []
        for one in self.ways[way]:
            ranks = np.empty(len(one.scores))
            ranks[np.argsort(one.scores, kind="stable")] = np.arange(len(one.scores))
            right = one.mistake >= 0
            n, m = int(right.sum()), int((~right).sum())
            areas.append((ranks[right].sum() - n * (n - 1) / 2) / (n * m))
        return float(np.mean(areas))

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON data."""
        ways = [*self.ways, CHANCE]
        return {
            "measured": "planted one-token mistakes found by surprise",
            "model": self.model,
            "files": len(self._files),
            "tokens": self.tokens,
            "mistakes": {kind: sum(one.kinds.count(kind) for one in self._files) for kind in KINDS},
            "seconds": round(self.seconds, 1),
            "ways": {
                way: {
                    "area": self.area(way),
                    "precision": {str(k): self.precision(way, k) for k in AT},
                    "recall": {str(k): self.recall(way, k) for k in AT},
                    "recall at 10 by kind": {kind: self.recall(way, 10, kind) for kind in KINDS},
                }
                for way in ways
            },
        }

    def table(self) -> Table:
        """Return a row for each way."""
        table = Table(
            title=f"Planted mistakes found by surprise, model {self.model}",
            caption=f"{self.mistakes} mistakes among {self.tokens:,} tokens of {len(self._files)} files, "
            f"{self.seconds:.0f} s. P: of the k most surprising tokens of a file, mistakes; R: of its mistakes, found",
            box=box.SIMPLE_HEAD,
        )
        table.add_column("ranked by")
        for heading in ("area", *(f"P@{k}" for k in AT), *(f"R@{k}" for k in AT)):
            table.add_column(heading, justify="right")
        for way in (*self.ways, CHANCE):
            figures = [self.precision(way, k) for k in AT] + [self.recall(way, k) for k in AT]
            table.add_row(way, f"{self.area(way):.3f}", *(f"{figure:.0%}" for figure in figures))
        table.add_section()
        for kind in KINDS:
            own = [f"{self.recall(MIXTURE, k, kind):.0%}" for k in AT]
            count = sum(one.kinds.count(kind) for one in self._files)
            table.add_row(f"{kind} ({count}), {MIXTURE}", "", *("",) * len(AT), *own)
        return table


def measure_surprise(
    paths: Sequence[Path | str],
    *,
    model: str | Path = "",
    files: int = FILES,
    progress: Callable[[int, int], None] | None = None,
) -> SurpriseReport:
    """Plant mistakes in some Python files under `paths`, projects in turn, and rank their tokens in every way.

    Raises `CorpusError` if no mistake can be planted, `ModelError` if there is no such model.
    """
    found = heldout_files(paths).files
    served = load_model(find_model(model) if model else model_for_language("python"))
    started = time.perf_counter()
    ways: dict[str, list[Ranked]] = {MIXTURE: [], BITS: [], ALONE: [], MEMORIES: []}
    done = 0
    projects: dict[str, Counts] = {}
    for file, changed, mistakes in _planted(found, files):
        if file.project not in projects:
            projects = {file.project: Counts.of_texts(one.text for one in found if one.project == file.project)}
        own = Counts.of_texts([file.text])
        project = projects[file.project], Counts(own.keys, -own.counts)
        document = (Counts.of_texts([changed]),)
        kinds = tuple(mistake.kind for mistake in mistakes)
        memories = {"document": document, "project": project}
        for way, reader, known in ((MIXTURE, served, memories), (ALONE, served, {}), (MEMORIES, NoModel(), memories)):
            tokens = list(Surprise.of_file(reader, file.path, changed, **known).tokens())
            mistake = np.array([_mistake_at(token, mistakes) for token in tokens])
            ways[way].append(Ranked(np.array([token.excess for token in tokens]), mistake, kinds))
            if way == MIXTURE:
                ways[BITS].append(Ranked(np.array([token.bits for token in tokens]), mistake, kinds))
        done += 1
        if progress is not None:
            progress(done, files)
    if not done:
        raise CorpusError("No mistake can be planted: name directories that hold Python.")
    ranked = {way: tuple(one) for way, one in ways.items()}
    return SurpriseReport(served.name, ranked, time.perf_counter() - started)


def _planted(files: Sequence[SourceFile], most: int) -> Iterator[tuple[SourceFile, bytes, list[Mistake]]]:
    """Yield the beginnings of files, one of each project in turn, and what they are with mistakes planted."""
    chosen: list[tuple[SourceFile, bytes, list[Mistake]]] = []
    for file in take_in_turn(files):
        if len(chosen) == most:
            break
        text = file.text
        if len(text) > FILE_CHARACTERS:
            text = _whole_statements(text)
        changed, mistakes = plant(text, name_of(file), MISTAKES)
        if mistakes:
            chosen.append((file, changed, mistakes))
    # A project's files after one another: its counts are made once.
    yield from sorted(chosen, key=lambda one: one[0].project)


def _whole_statements(text: bytes) -> bytes:
    """Return the beginning of a text, up to where a line at the margin begins: so much of it is Python by itself."""
    cut = text[:FILE_CHARACTERS]
    while cut:
        cut = cut[: cut.rstrip(b"\n").rfind(b"\n") + 1]
        behind = text[len(cut) : len(cut) + 1]
        if behind.isalpha() or behind in (b"@", b"_"):
            return cut
    return b""


def _mistake_at(token: Token, mistakes: Sequence[Mistake]) -> int:
    for index, mistake in enumerate(mistakes):
        if any(start < token.end and token.start < end for start, end in mistake.spans):
            return index
    return -1
