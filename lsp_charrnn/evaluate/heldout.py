"""Which files quality is measured on: the source and tests of projects the model has not seen, always the
same ones.

Files are found and filtered as training finds and filters them (vendored, generated, huge, duplicate ones are
left out and counted), except that no line is taken out of a file and no project is capped. Every sample
depends on names alone, never on the clock, the file system's order or a random generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.train.corpus import DropReport, SourceFile, read_corpus


@dataclass(frozen=True)
class Heldout:
    """Files to measure on, sorted by project and path, and what was left out and why."""

    files: tuple[SourceFile, ...]
    dropped: DropReport

    @property
    def characters(self) -> int:
        """Bytes of UTF-8 in all files, a line end counting as one."""
        return sum(len(file.text) for file in self.files)


def heldout_files(
    paths: Sequence[Path | str],
    *,
    suffixes: Sequence[str] = (".py",),
    max_chars: int | None = None,
    projects: Collection[str] = (),
) -> Heldout:
    """Return the source files under `paths`, or a fixed sample of `max_chars` characters of them; if `projects` are
    named, of these only.

    The sample takes one file of each project in turn, and cuts the last one short. A path is a directory, a
    git work tree, an archive, a file, or what `corpus fetch` wrote. Raises `CorpusError` if nothing is found.
    """
    if max_chars is not None and max_chars < 1:
        raise CorpusError(f"A sample of {max_chars} characters holds nothing; ask for 1 or more.")
    found, dropped = read_corpus(paths, suffixes=suffixes, max_project_share=1.0, drop_secrets=False)
    found = [file for file in found if not projects or file.project in projects]
    if not found:
        raise CorpusError(f"There are no files of {', '.join(sorted(projects))}: name projects that are there.")
    files = found if max_chars is None else list(_sampled(found, max_chars))
    return Heldout(tuple(sorted(files, key=name_of)), dropped)


def name_of(file: SourceFile) -> str:
    """Return the file's project and path: its name in reports, and what samples are drawn by."""
    return f"{file.project}/{file.path}"


def rank_of(file: SourceFile) -> float:
    """Return a number in (0, 1) that never changes for this file's name."""
    digest = hashlib.blake2b(name_of(file).encode("utf-8", "replace"), digest_size=6).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**48


def take_in_turn(files: Sequence[SourceFile], rank: Callable[[SourceFile], float] = rank_of) -> Iterator[SourceFile]:
    """Yield one file of each project in turn, each project's by ascending `rank`."""
    projects: dict[str, list[SourceFile]] = {}
    for file in sorted(files, key=rank):
        projects.setdefault(file.project, []).append(file)
    queues = [projects[project] for project in sorted(projects)]
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))


def _sampled(files: Sequence[SourceFile], max_chars: int) -> Iterator[SourceFile]:
    left = max_chars
    for file in take_in_turn(files):
        if left <= 0:
            return
        # A cut never leaves half a character.
        yield replace(file, text=file.text[:left].decode("utf-8", errors="ignore").encode("utf-8"))
        left -= len(file.text)
