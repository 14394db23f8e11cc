"""Bits per character of general compressors on held-out files: what any text model has to beat, on the same bytes.

A file is compressed `cold`, alone, or `primed`, after the rest of its project: the one as a model that only reads
the file sees it, the other as one with a project memory does. A compressor learns from what it has read, and is given
neither Python nor the file's path. What belongs to a container and not to the prediction is not counted: headers,
chunk headers, the bytes that empty the range coder at the end. A size is in whole bytes, so a single file's figure is
a byte or two too low when cold, and as much off either way when primed. Which files, `heldout` says; the network's own
figure is `bits`'s.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from lsp_charrnn.errors import CorpusError, UserError
from lsp_charrnn.evaluate.bits import FileBits, bits_per_char, grouped
from lsp_charrnn.evaluate.heldout import name_of
from lsp_charrnn.train.corpus import SourceFile

Way = Literal["cold", "primed"]
WAYS: tuple[Way, ...] = ("cold", "primed")
ORDER = 16
# PPMd starts afresh when its memory is full. Python costs it 24 bytes a character.
_MEMORY, _MEMORY_PER_CHARACTER, _MEMORY_LIMIT = 256 << 20, 64, (1 << 32) - 64
_RANGE_CODER = 5  # bytes by which LZMA's range coder is longer than what it holds: a zero before, four behind


@dataclass(frozen=True)
class CompressorRow:
    """Bits per character of one compressor used in one way, by file, by project and in all."""

    compressor: str
    way: Way
    files: tuple[FileBits, ...]

    @property
    def characters(self) -> int:
        """Bytes of text compressed, without what the compressor was primed with."""
        return sum(file.characters for file in self.files)

    @property
    def bits_per_char(self) -> float:
        """Bits per character over all files, each character counting the same."""
        return bits_per_char(self.files)

    def by_project(self) -> dict[str, tuple[FileBits, ...]]:
        """Return the files of each project, by name."""
        return grouped(self.files, lambda file: file.project)

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON data."""
        return {
            "compressor": self.compressor,
            "way": self.way,
            "characters": self.characters,
            "bits_per_char": self.bits_per_char,
            "projects": {name: bits_per_char(files) for name, files in self.by_project().items()},
            "files": {f"{file.project}/{file.path}": bits_per_char([file]) for file in self.files},
        }


def measure_compressors(
    files: Sequence[SourceFile],
    *,
    projects: Sequence[SourceFile],
    ways: Sequence[Way] = WAYS,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[CompressorRow]:
    """Compress each of `files` in the `ways` by each compressor; the files are in order of their names.

    `projects` are the whole files of the projects that `files` are from; `files` may be a sample of them, cut
    short. `progress` is called with (characters done, characters in all). Raises `CorpusError` if there is no text in
    `files` or a file's project is not among `projects`, `UserError` if PPMd is not installed.
    """
    total = sum(len(file.text) for file in files)
    if total == 0:
        raise CorpusError("There is nothing to measure on: name a directory that holds source files.")
    by_project: dict[str, list[SourceFile]] = {}
    for other in projects:
        by_project.setdefault(other.project, []).append(other)
    for file in files:
        if file.project not in by_project:
            raise CorpusError(f"The project {file.project} of {file.path} is missing: give all files of its project.")
    compressors = {f"PPMd-{ORDER}": ppmd_bits, "xz -9e": xz_bits}
    ppmd_bits(b"")  # if it is missing, say so before the first file is read

    def bits(file: SourceFile) -> list[float]:
        before = {"cold": b""}
        if "primed" in ways:
            before["primed"] = b"".join(other.text for other in rest_of_project(file, by_project[file.project]))
        return [cost(file.text, before[way]) for cost in compressors.values() for way in ways]

    measured = sorted((file for file in files if file.text), key=lambda file: (file.project, file.path))
    costs, done = [], 0
    with ThreadPoolExecutor(threads) as pool:  # both libraries let other threads run
        for file, found in zip(measured, pool.map(bits, measured), strict=True):
            costs.append(found)
            done += len(file.text)
            if progress is not None:
                progress(done, total)
    rows = [(name, way) for name in compressors for way in ways]
    return [
        CompressorRow(
            name,
            way,
            tuple(
                FileBits(file.project, file.path, len(file.text), found[row])
                for file, found in zip(measured, costs, strict=True)
            ),
        )
        for row, (name, way) in enumerate(rows)
    ]


def rest_of_project(file: SourceFile, project: Sequence[SourceFile]) -> list[SourceFile]:
    """Return the project's files in the order of their paths, without `file` and without exact copies of it.

    `file` may be cut short: the project's file of its name is the whole of it, and is left out with its copies.
    """
    texts = {file.text, *(other.text for other in project if name_of(other) == name_of(file))}
    others = [other for other in project if other.project == file.project and other.text not in texts]
    return sorted(others, key=lambda other: other.path)


def ppmd_bits(text: bytes, after: bytes = b"") -> float:
    """Return what `text` costs, in bits, by PPMd variant I of order 16 that has read `after`.

    Its range coder hands out each byte as soon as it is certain, and only when it is emptied the four that are
    left; so the bytes that `text` brings forth are its cost. Nothing is forgotten: the memory grows with the text.
    Raises `UserError` if pyppmd is not installed.
    """
    try:
        from pyppmd import PPMD8_RESTORE_METHOD_RESTART, Ppmd8Encoder
    except ImportError:
        raise UserError("PPMd comes with pyppmd: pip install pyppmd (the extra `dev` has it).") from None
    memory = min(max(_MEMORY, _MEMORY_PER_CHARACTER * (len(after) + len(text))), _MEMORY_LIMIT)
    encoder = Ppmd8Encoder(ORDER, memory, PPMD8_RESTORE_METHOD_RESTART)
    encoder.encode(after)
    return 8.0 * len(encoder.encode(text))


def xz_bits(text: bytes, after: bytes = b"") -> float:
    """Return what `text` costs, in bits, by `xz -9e` that has read `after`: what both take less what `after` takes."""
    # The parse looks ahead, so that a few bytes more may now and then be cheaper as a whole.
    return 8.0 * max(_lzma_bytes(after + text) - _lzma_bytes(after), 0)


def _lzma_bytes(text: bytes) -> int:
    """Return how many bytes LZMA2 needs for `text`, without headers and without emptying its range coder."""
    # As large as the text, a dictionary forgets nothing; larger ones only take memory.
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": max(len(text), 4096)}
    stream = lzma.compress(text, format=lzma.FORMAT_RAW, filters=[lzma2])
    # The stream is chunks up to a zero byte: a control byte, the size before (2 bytes), the size after (2 bytes), from
    # 0xC0 on a byte of properties, then the data; or, below 0x80, control byte, size (2 bytes) and text as it is. Sizes
    # are less one. (liblzma, lzma2_encoder.c)
    needed = at = 0
    while control := stream[at]:
        if control < 0x80:
            size = int.from_bytes(stream[at + 1 : at + 3], "big") + 1
            needed += size
            at += 3 + size
        else:
            size = int.from_bytes(stream[at + 3 : at + 5], "big") + 1
            needed += size - _RANGE_CODER
            at += (6 if control >= 0xC0 else 5) + size
    return needed
