"""Bits per character with the memories: of the model alone, with the document's, and with the project's as well.

Every file is read from its beginning, the document's memory holding what came before in it, the project's all other
files of its project (`train.mixing`). And the fitting of the mixer that comes with the package, on projects that
neither the model nor this measurement has seen. How keystrokes are saved by it is `typing`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich import box
from rich.table import Table

from lsp_charrnn.engine.mixer import Mixer, shipped_mixer
from lsp_charrnn.evaluate.bits import FileBits
from lsp_charrnn.evaluate.compress import measure_compressors
from lsp_charrnn.evaluate.heldout import heldout_files, take_in_turn
from lsp_charrnn.evaluate.output import write_whole
from lsp_charrnn.model.files import find_model, load_model, model_for_language, read_config
from lsp_charrnn.train.corpus import SourceFile
from lsp_charrnn.train.mixing import Places, bits, fit, places_of_projects

ALONE: Final = "LSTM"
DOCUMENT: Final = "LSTM + document"
PROJECT: Final = "LSTM + document + project"
WAYS: Final = {ALONE: (False, False), DOCUMENT: (True, False), PROJECT: (True, True)}  # which memories there are

FILE_CHARS: Final = 25_000  # of one file, from its beginning, in a sample, so that no file outweighs the others
FITTED_CHARS: Final = 1_200_000  # of all files that one model reads


@dataclass(frozen=True)
class MemoryBits:
    """What each file cost in each way."""

    model: str
    ways: dict[str, tuple[FileBits, ...]]
    seconds: float

    def bits_per_char(self, way: str, project: str | None = None) -> float:
        """Return the bits per character of a way, over all files or one project's."""
        files = [file for file in self.ways[way] if project in (None, file.project)]
        return sum(file.bits for file in files) / sum(file.characters for file in files)

    @property
    def characters(self) -> int:
        """Bytes of text predicted."""
        return sum(file.characters for file in self.ways[ALONE])

    def projects(self) -> list[str]:
        """Return the names of the projects."""
        return sorted({file.project for file in self.ways[ALONE]})

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON data."""
        return {
            "measured": "bits per character with the memories",
            "model": self.model,
            "characters": self.characters,
            "seconds": round(self.seconds, 1),
            "ways": {
                way: {
                    "bits_per_char": self.bits_per_char(way),
                    "projects": {project: self.bits_per_char(way, project) for project in self.projects()},
                }
                for way in self.ways
            },
        }

    def table(self) -> Table:
        """Return a row for each project and all, and a column for each way."""
        table = Table(
            title=f"Bits per character, model {self.model}",
            caption=f"{self.characters:,} characters in {len(self.ways[ALONE])} files, {self.seconds:.0f} s",
            box=box.SIMPLE_HEAD,
        )
        table.add_column("project")
        for way in self.ways:
            table.add_column(way, justify="right")
        for project in self.projects():
            table.add_row(project, *(f"{self.bits_per_char(way, project):.3f}" for way in self.ways))
        table.add_section()
        alone = self.bits_per_char(ALONE)
        cells = [f"{self.bits_per_char(way):.3f} ({self.bits_per_char(way) / alone - 1:+.0%})" for way in self.ways]
        table.add_row("all", f"{alone:.3f}", *cells[1:])
        return table


def measure_memory(
    paths: Sequence[Path | str],
    *,
    model: str | Path = "",
    suffixes: Sequence[str] = (".py",),
    max_chars: int | None = None,
    threads: int = 1,
    mixer: Mixer | None = None,
    compare: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> MemoryBits:
    """Measure a model with the memories on the source files under `paths`, or on a fixed sample of them.

    The sample takes one file of each project in turn, and of each at most its first `FILE_CHARS` characters.

    With `compare` compressors are measured on the same files, given the rest of their projects first. Raises
    `CorpusError` if nothing is found, `ModelError` if there is no such model.
    """
    files = heldout_files(paths, suffixes=suffixes).files
    most = None if max_chars is None else FILE_CHARS
    chosen = files if max_chars is None else tuple(_in_turn(files, max_chars, FILE_CHARS))
    by_model = _by_model(chosen, model)
    mixer = shipped_mixer() if mixer is None else mixer
    started = time.perf_counter()
    ways: dict[str, list[FileBits]] = {way: [] for way in WAYS}
    cut = [replace(file, text=file.text[:most]) for file in chosen]
    total, done = sum(len(file.text) for file in cut), 0
    for path, group in by_model.items():
        for file, places in places_of_projects(load_model(path, threads), files, chosen=group, most=most):
            for way, (document, project) in WAYS.items():
                cost = _bits(mixer, places, document=document, project=project)
                ways[way].append(FileBits(file.project, file.path, len(places), cost))
            done += len(places)
            if progress is not None:
                progress(done, total)
    if compare:
        for row in measure_compressors(cut, projects=files):
            if row.way == "primed":
                ways[f"{row.compressor}, primed"] = list(row.files)
    names = ", ".join(read_config(path)[0]["name"] for path in by_model)
    return MemoryBits(names, {way: tuple(costs) for way, costs in ways.items()}, time.perf_counter() - started)


def fit_mixer(
    paths: Sequence[Path | str],
    out: Path,
    *,
    model: str | Path = "",
    suffixes: Sequence[str] = (".py",),
    max_chars: int = FITTED_CHARS,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[float, float]:
    """Fit a mixer to the projects under `paths`, and write it to `out`; return the bits of the LSTM and of the mixture.

    These are of the text that it was fitted to. Each file is read by `model`, or by its language's; neither must have
    been trained on it. Of the files of each model `max_chars` are taken, that none weighs more. Raises `CorpusError`,
    `ModelError`, `OutputError`.
    """
    files = heldout_files(paths, suffixes=suffixes).files
    chosen = {path: tuple(_in_turn(group, max_chars, FILE_CHARS)) for path, group in _by_model(files, model).items()}
    total = sum(map(len, chosen.values()))
    parts: list[Places] = []
    for path, group in chosen.items():
        for _, places in places_of_projects(load_model(path), files, chosen=group, most=FILE_CHARS):
            parts.append(places)
            if progress is not None:
                progress("reading", len(parts), total)
    mixer = fit(parts, progress=None if progress is None else lambda done, _: progress("fitting", done, 0))
    _write(mixer, out)
    characters = sum(map(len, parts))
    alone = sum(_bits(mixer, part, document=False, project=False) for part in parts)
    return alone / characters, sum(_bits(mixer, part) for part in parts) / characters


def _by_model(files: Sequence[SourceFile], model: str | Path) -> dict[Path, list[SourceFile]]:
    """Return the files that `model` reads, or else each language's own."""
    languages = {file.language for file in files}
    paths = {language: find_model(model) if model else model_for_language(language) for language in languages}
    found: dict[Path, list[SourceFile]] = {}
    for file in files:
        found.setdefault(paths[file.language], []).append(file)
    return found


def _bits(mixer: Mixer, places: Places, *, document: bool = True, project: bool = True) -> float:
    if not (document or project):
        return float(-np.log2(places.given[:, 0].clip(min=1e-12)).sum(dtype=np.float64))
    return float(bits(mixer, places, document=document, project=project).sum())


def _in_turn(files: Sequence[SourceFile], most: int, most_of_file: int | None = None) -> Iterator[SourceFile]:
    """Yield whole files, one of each project in turn, until they hold `most` characters."""
    left = most
    for file in take_in_turn(files):
        if left <= 0:
            return
        yield file
        left -= len(file.text) if most_of_file is None else min(len(file.text), most_of_file)


def _write(mixer: Mixer, out: Path) -> None:
    from safetensors.numpy import save

    # safetensors writes an array's memory as it lies, so a transposed one must be copied first.
    tensors = {name: np.ascontiguousarray(value) for name, value in vars(mixer).items()}
    write_whole(out, save(tensors))
