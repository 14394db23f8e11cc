"""A built corpus on disk: packed documents in memory-mapped shards, and `corpus.json`, which says what they are.

A shard is two files: `NAME.symbols`, one document (START, header, HEADER_END, text) after another, one byte a symbol;
and `NAME.offsets`, where each begins and the last one ends, as 64-bit little-endian numbers. Making them is `build`'s.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.train.batches import Document

FORMAT: Final = 1
CORPUS_FILE: Final = "corpus.json"
SYMBOLS: Final = ".symbols"
OFFSETS: Final = ".offsets"

_AT_ONCE: Final = 1 << 22  # bytes hashed at a time


@dataclass(frozen=True)
class Shard:
    """What `corpus.json` says of a shard: its files' name, how much is in them, and their hashes."""

    name: str
    documents: int
    symbols: int
    sha256: str
    offsets_sha256: str


def write_shard(directory: Path, name: str, symbols: bytes | bytearray, offsets: npt.NDArray[np.int64]) -> Shard:
    """Write one shard; each of its files appears whole or not at all. `offsets` is [documents + 1]."""
    ends = offsets.astype("<i8").tobytes()
    write_whole(directory / (name + SYMBOLS), symbols)
    write_whole(directory / (name + OFFSETS), ends)
    hashes = hashlib.sha256(symbols).hexdigest(), hashlib.sha256(ends).hexdigest()
    return Shard(name, len(offsets) - 1, len(symbols), *hashes)


def write_whole(path: Path, data: bytes | bytearray) -> None:
    """Write a file that another process, or a later run, sees whole or not at all."""
    number, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


class MappedDocuments(Sequence[Document]):
    """The documents of some shards, as slices of mapped files: only what is read takes memory."""

    def __init__(self, directory: Path, shards: Sequence[Shard]) -> None:
        self._directory, self._shards = directory, shards
        # A plain array over the map: slicing `np.memmap` itself costs ten times as much.
        self._symbols = [np.asarray(_mapped(directory / (s.name + SYMBOLS), np.dtype(np.uint8))) for s in shards]
        self._offsets = [np.asarray(_mapped(directory / (s.name + OFFSETS), np.dtype("<i8"))) for s in shards]
        self._firsts = [0, *accumulate(shard.documents for shard in shards)]
        self.symbols = sum(shard.symbols for shard in shards)

    def __len__(self) -> int:
        return self._firsts[-1]

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self._shards)

    def share(self, rank: int, size: int) -> MappedDocuments:
        """Return the documents of every `size`-th shard from `rank` on."""
        return MappedDocuments(self._directory, self._shards[rank::size])

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        shard = bisect_right(self._firsts, at) - 1
        offsets, row = self._offsets[shard], at - self._firsts[shard]
        return self._symbols[shard][offsets[row] : offsets[row + 1]]


def _mapped(path: Path, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.memmap(path, dtype=kind, mode="r")


@dataclass(frozen=True)
class BuiltCorpus:
    """A corpus that `corpus build` has made: what to train on, what to judge by, and the facts about both."""

    train: MappedDocuments
    held_out: MappedDocuments
    facts: Mapping[str, Any]  # for the card, as `corpus.corpus_facts` makes them
    suffixes: tuple[str, ...]


def is_built(path: Path | str) -> bool:
    """Say whether `path` is a directory that a corpus was built in."""
    return (Path(path) / CORPUS_FILE).is_file()


def read_description(directory: Path | str) -> dict[str, Any]:
    """Return what `corpus.json` says. Raises `CorpusError` where there is none that this version can read."""
    path = Path(directory) / CORPUS_FILE
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CorpusError(
            f"{directory} holds no built corpus ({CORPUS_FILE} is missing): make one with `lsp-charrnn corpus build`, "
            "or start that again if it was interrupted."
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(data, dict) or not {"format", "rules", "lists", "shards", "corpus"} <= data.keys():
        raise _damaged(path, "it is not a description of a corpus")
    if data["format"] != FORMAT:
        raise CorpusError(
            f"{path} has format {data['format']}, this version of lsp-charrnn reads {FORMAT}: build the corpus again."
        )
    return data


def open_corpus(directory: Path | str, *, rank: int = 0, size: int = 1) -> BuiltCorpus:
    """Map a built corpus, after reading it once to verify its hashes.

    Of `size` processes each verifies the shards that it will read (`MappedDocuments.share`), rank 0 also those to judge
    by. Raises `CorpusError` that names the file at fault, if one is missing or is not what was built.
    """
    directory = Path(directory)
    data = read_description(directory)
    try:
        shards = {kind: [Shard(**entry) for entry in data["shards"][kind]] for kind in ("train", "held_out")}
        facts, suffixes = data["corpus"], tuple(data["rules"]["suffixes"])
        strange = [one.name for of_kind in shards.values() for one in of_kind if Path(one.name).name != one.name]
    except (KeyError, TypeError) as error:
        raise _damaged(directory / CORPUS_FILE, f"no {error}") from error
    if strange:
        raise _damaged(directory / CORPUS_FILE, f"the shard {strange[0]!r} is not in it")
    for shard in (*shards["train"][rank::size], *(shards["held_out"] if rank == 0 else ())):
        _verify(directory / (shard.name + SYMBOLS), shard.symbols, shard.sha256)
        _verify(directory / (shard.name + OFFSETS), 8 * (shard.documents + 1), shard.offsets_sha256)
    return BuiltCorpus(
        MappedDocuments(directory, shards["train"]), MappedDocuments(directory, shards["held_out"]), facts, suffixes
    )


def shards_to_json(shards: Iterable[Shard]) -> list[dict[str, Any]]:
    """Return what `corpus.json` holds of `shards`."""
    return [{field.name: getattr(shard, field.name) for field in fields(shard)} for shard in shards]


def _verify(path: Path, size: int, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != size:
            raise _damaged(path, f"{path.stat().st_size:,} bytes instead of {size:,}")
        with path.open("rb") as file:
            while piece := file.read(_AT_ONCE):
                digest.update(piece)
    except OSError as error:
        raise _damaged(path, (error.strerror or str(error)).lower()) from error
    if digest.hexdigest() != sha256:
        raise _damaged(path, "its SHA-256 is another")


def _damaged(path: Path, why: str) -> CorpusError:
    return CorpusError(f"{path} is damaged ({why}): build the corpus again, with the command that made it.")
