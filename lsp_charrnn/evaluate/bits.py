"""Bits per character on held-out files: how well a model predicts text that it has not seen.

A character is a UTF-8 byte of a file's text with its line ends read as `\\n`. How a file is read and what is
counted is `model.score`'s; which files, `heldout`'s; document and project memory are left to others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.heldout import heldout_files
from lsp_charrnn.model.files import find_model, load_model, model_for_language
from lsp_charrnn.model.score import LANES, Predictor, bits_of_documents
from lsp_charrnn.text.symbols import header
from lsp_charrnn.train.corpus import SourceFile, language_of


@dataclass(frozen=True)
class FileBits:
    """What one file cost."""

    project: str
    path: str
    characters: int
    bits: float

    @property
    def language(self) -> str:
        """Its language, by its name."""
        return language_of(self.path)


@dataclass(frozen=True)
class BitsReport:
    """Bits per character of one model, by file, by project, by language and in all.

    `compressors` are the same files by general compressors, each file alone, by their names.
    """

    model: str
    files: tuple[FileBits, ...]
    dropped: dict[str, int]  # files left out, by reason
    seconds: float
    compressors: dict[str, tuple[FileBits, ...]] = field(default_factory=dict)

    @property
    def characters(self) -> int:
        """Bytes of text predicted."""
        return sum(file.characters for file in self.files)

    @property
    def bits_per_char(self) -> float:
        """Bits per character over all files, each character counting the same."""
        return bits_per_char(self.files)

    def by_project(self) -> dict[str, tuple[FileBits, ...]]:
        """Return the files of each project, by name."""
        return grouped(self.files, lambda file: file.project)

    def by_language(self) -> dict[str, tuple[FileBits, ...]]:
        """Return the files of each language, by name."""
        return grouped(self.files, lambda file: file.language)

    def for_card(self) -> dict[str, Any]:
        """Return the figures that belong on a model's card, as JSON data."""
        facts: dict[str, Any] = {"characters": self.characters, "bits per char": round(self.bits_per_char, 3)}
        languages = self.by_language()
        if len(languages) > 1:
            facts |= {name: round(bits_per_char(files), 3) for name, files in languages.items()}
        facts |= {f"project {name}": round(bits_per_char(files), 3) for name, files in self.by_project().items()}
        return facts | {name: round(bits_per_char(files), 3) for name, files in self.compressors.items()}

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON data."""
        projects = {
            name: {
                "files": len(files),
                "characters": _characters(files),
                "bits_per_char": bits_per_char(files),
            }
            for name, files in self.by_project().items()
        }
        files = {
            f"{file.project}/{file.path}": {
                "characters": file.characters,
                "bits_per_char": bits_per_char([file]),
            }
            for file in self.files
        }
        return {
            "measured": "bits per character",
            "model": self.model,
            "characters": self.characters,
            "bits_per_char": self.bits_per_char,
            "seconds": round(self.seconds, 1),
            "languages": {name: bits_per_char(files) for name, files in self.by_language().items()},
            "compressors": {name: bits_per_char(files) for name, files in self.compressors.items()},
            "projects": projects,
            "files": files,
            "dropped": self.dropped,
        }

    def table(self) -> Table:
        """Return a row for each project, one for each language if there are several, and the total."""
        table = Table(title=f"Bits per character, model {self.model}", caption=self._caption())
        table.add_column("project")
        for name in ("files", "characters", "bits per character", *self.compressors):
            table.add_column(name, justify="right")

        def add(name: str, files: Sequence[FileBits]) -> None:
            chosen = {(file.project, file.path) for file in files}
            row = [name, f"{len(files):,}", f"{_characters(files):,}", f"{bits_per_char(files):.3f}"]
            for costs in self.compressors.values():
                row.append(f"{bits_per_char([cost for cost in costs if (cost.project, cost.path) in chosen]):.3f}")
            table.add_row(*row)

        for name, files in self.by_project().items():
            add(name, files)
        table.add_section()
        languages = self.by_language()
        if len(languages) > 1:
            for name, files in languages.items():
                add(name, files)
            table.add_section()
        add("all", self.files)
        return table

    def _caption(self) -> str:
        speed = f"{self.characters / max(self.seconds, 1e-9):,.0f} characters/s"
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{speed}; left out: {left_out or 'nothing'}"


def measure_bits(
    paths: Sequence[Path | str],
    *,
    model: str | Path = "",
    suffixes: Sequence[str] = (".py",),
    max_chars: int | None = None,
    projects: Collection[str] = (),
    compare: bool = False,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> BitsReport:
    """Measure a model, as it is served, on the source files under `paths` or on a fixed sample of them.

    If `projects` are named, on these only: their own directories need not be paths that git tracks. With `compare`
    compressors are measured on the same files, each alone; that raises `UserError` where PPMd is not installed.
    `model` is a name or a path, by default the files' language's own. `progress` is called with (characters
    read, characters in all). Raises `CorpusError` if nothing is found, `ModelError` if there is no such
    model.
    """
    heldout = heldout_files(paths, suffixes=suffixes, max_chars=max_chars, projects=projects)
    directory = find_model(model) if model else model_for_language(heldout.files[0].language)
    served = load_model(directory, threads)
    report = bits_of(served, heldout.files, name=served.name, progress=progress)
    if compare:
        from lsp_charrnn.evaluate.compress import measure_compressors  # which counts in `FileBits`

        rows = measure_compressors(heldout.files, projects=heldout.files, ways=("cold",))
        report = replace(report, compressors={f"{row.compressor}, {row.way}": row.files for row in rows})
    dropped = {reason: count for reason, count in heldout.dropped.dropped_files.items() if reason != "wrong suffix"}
    return replace(report, dropped=dropped)


def bits_of(
    model: Predictor,
    files: Sequence[SourceFile],
    *,
    name: str = "model",
    lanes: int = LANES,
    progress: Callable[[int, int], None] | None = None,
) -> BitsReport:
    """Measure `model` on `files`, several at once. Raises `CorpusError` if there is no text in them."""
    total = sum(len(file.text) for file in files)
    if total == 0:
        raise CorpusError("There is nothing to measure on: name a directory that holds source files.")

    def report(done: int) -> None:
        if progress is not None:
            progress(done, total)

    started = time.perf_counter()
    documents = [(header(file.path), file.text) for file in files]
    bits = bits_of_documents(model, documents, lanes=lanes, progress=report)
    seconds = time.perf_counter() - started
    costs = [FileBits(file.project, file.path, len(file.text), cost) for file, cost in zip(files, bits, strict=True)]
    costs.sort(key=lambda cost: (cost.project, cost.path))
    return BitsReport(name, tuple(costs), {}, seconds)


def grouped(files: Sequence[FileBits], name: Callable[[FileBits], str]) -> dict[str, tuple[FileBits, ...]]:
    """Return the files by what `name` calls them, the names in order."""
    groups: dict[str, list[FileBits]] = {}
    for file in files:
        groups.setdefault(name(file), []).append(file)
    return {group: tuple(groups[group]) for group in sorted(groups)}


def bits_per_char(files: Sequence[FileBits]) -> float:
    """Return the bits per character over all `files`, each character counting the same."""
    return sum(file.bits for file in files) / _characters(files)


def _characters(files: Sequence[FileBits]) -> int:
    return sum(file.characters for file in files)
