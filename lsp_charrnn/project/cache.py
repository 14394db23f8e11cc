r"""The counted text of a project on disk, so that the next start has it at once.

One file a project, named after the project's place, in the user's cache directory: the files' names, sizes and times,
their text, and its counts, as safetensors. It appears whole or not at all, is mapped into memory instead of read, and
what doesn't fit (another version, other contexts, damaged, another user's) is no cache: the project is counted anew. It
holds the text of the project, so nobody but the user may read it.

What is counted, and when, is `memory`'s.
"""

from __future__ import annotations

import functools
import json
import logging
import mmap
import os
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.errors import OutputError
from lsp_charrnn.model.installed import project_key
from lsp_charrnn.private import is_private, is_trusted, make_directory, open_regular

logger = logging.getLogger(__name__)

VERSION: Final = 2
KEPT: Final = 16  # projects; of more, those used longest ago are forgotten
LEFT: Final = 600.0  # seconds after which nobody writes any more what is still not whole: the writer was killed
_SUFFIX: Final = ".counts"
_PARTIAL: Final = ".partial"
_MAX_HEADER: Final = 64 << 20  # bytes
_PIECE: Final = 1 << 20  # bytes that are checked at a time
# What reading a file raises that holds something else than it should.
_DAMAGED: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
# Largest values first, one array behind the other: so all begin at a multiple of their size.
_TYPES: Final[dict[str, tuple[str, np.dtype[Any]]]] = {
    "keys": ("U64", np.dtype("<u8")),
    "counts": ("I32", np.dtype("<i4")),
    "texts": ("U8", np.dtype("u1")),
}


@dataclass(frozen=True)
class Entry:
    """A file as it was when it was counted, and where its text is in `Index.texts`."""

    size: int
    mtime_ns: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Index:
    """The text of a project's files, and its counts."""

    files: Mapping[str, Entry]
    texts: npt.NDArray[np.uint8]
    counts: Counts

    def text(self, path: str) -> bytes | None:
        """Return the text of a file, or None if it isn't in the index."""
        entry = self.files.get(path)
        return None if entry is None else self.texts[entry.start : entry.end].tobytes()


def cache_directory() -> Path:
    """Return where the caches of all projects are."""
    from platformdirs import user_cache_path

    return user_cache_path("lsp-charrnn") / "projects"


def cache_file(root: Path, directory: Path | None = None) -> Path:
    """Return the file of the project at `root`."""
    return (cache_directory() if directory is None else directory) / (project_key(root) + _SUFFIX)


def caches(directory: Path | None = None) -> Iterator[tuple[Path, str, int]]:
    """Yield of each cache its file, the project's place, and its size in bytes."""
    directory = cache_directory() if directory is None else directory
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        with suppress(OSError, *_DAMAGED):
            header, _ = _header(path)
            yield path, header["__metadata__"]["root"], path.stat().st_size


def clear(root: Path | None = None, directory: Path | None = None) -> int:
    """Remove the cache of the project at `root`, or all; return of how many projects. Raises `OutputError`."""
    directory = cache_directory() if directory is None else directory
    pattern = f"*{_SUFFIX}*" if root is None else f"{cache_file(root, directory).stem}.*"
    removed = set()
    for path in list(directory.glob(pattern)):
        try:
            path.unlink()
            removed.add(path.name.split(".")[0])
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(
                f"cannot remove {path}: {error.strerror}. End the editors that use it, or remove it by hand."
            ) from error
    return len(removed)


def read(path: Path, root: Path) -> Index | None:
    """Return what `write` has written for the project at `root`, mapped into memory; None if it is no use.

    All of it is checked, which takes some hundredths of a second for a project of five megabytes.
    """
    for place in _versions(path):
        try:
            index = _read(place, root)
        except FileNotFoundError:
            continue
        except (OSError, *_DAMAGED) as error:
            logger.warning("the cache %s cannot be used, and is made anew: %s", place, error)
            continue
        if index is not None:
            with suppress(OSError):
                os.utime(place)  # when it was used last
            return index
    return None


def _read(path: Path, root: Path) -> Index | None:
    """Return what is in the file at `path`; None if it is another's. Raises `OSError` and `_DAMAGED`."""
    header, start = _header(path)
    facts = header["__metadata__"]
    if [facts.get(name) for name in ("version", "contexts", "root")] != [str(VERSION), _contexts(), _name(root)]:
        return None
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        _check_owner(file.fileno())
        places = {}
        for name, (kind, _) in _TYPES.items():
            about = header[name]
            low, high = about["data_offsets"]
            if about["dtype"] != kind or not 0 <= low <= high <= status.st_size - start:
                raise ValueError("its header is damaged")
            places[name] = start + low, start + high
        # Read, not by way of the mapping: pages that were only checked would count as this process's memory.
        if _checked(file, places, facts["files"]) != int(facts["sum"]):
            raise ValueError("its sum is wrong")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = {}
    for name, (low, high) in places.items():
        array = np.frombuffer(mapped, dtype=np.uint8, offset=low if high > low else 0, count=high - low)
        arrays[name] = array.view(_TYPES[name][1])
    if len(arrays["keys"]) != len(arrays["counts"]):
        raise ValueError("it has not one number for each key")
    texts = arrays["texts"]
    files = {path: Entry(*map(int, numbers)) for path, numbers in json.loads(facts["files"]).items()}
    if any(not 0 <= entry.start <= entry.end <= len(texts) for entry in files.values()):
        raise ValueError("a file's text is not in it")
    return Index(files, texts, Counts(arrays["keys"], arrays["counts"]))


def _checked(file: BinaryIO, places: Mapping[str, tuple[int, int]], files: str) -> int:
    """Return the sum of all that counts in a cache. Raises `ValueError` where keys or counts cannot be any."""
    found = zlib.crc32(files.encode("ascii"))
    buffer = memoryview(bytearray(_PIECE))
    for name, (low, high) in places.items():
        file.seek(low)
        last = None
        while low < high:
            piece = buffer[: min(high - low, _PIECE)]
            if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]  # it can, and fills it
                raise ValueError("it ends too early")
            low += len(piece)
            found = zlib.crc32(piece, found)
            values = np.frombuffer(piece, dtype=_TYPES[name][1])
            if name == "keys":
                if not (values[1:] > values[:-1]).all() or (last is not None and values[0] <= last):
                    raise ValueError("its keys are not in order")
                last = values[-1].copy()
            elif name == "counts" and values.min() <= 0:
                raise ValueError("it has a count below 1")
    return found


def write(path: Path, root: Path, index: Index) -> None:
    """Write `index`, and forget the projects used longest ago. Raises `OutputError`; what was there stays then."""
    tensors = {"keys": index.counts.keys, "counts": index.counts.counts, "texts": index.texts}
    arrays = {name: np.ascontiguousarray(tensors[name], dtype=dtype) for name, (_, dtype) in _TYPES.items()}
    files = json.dumps({path: astuple(entry) for path, entry in index.files.items()})
    found = zlib.crc32(files.encode("ascii"))
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        found = zlib.crc32(array.data, found)
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _TYPES[name][0], "shape": [len(array)], "data_offsets": [start, end]}
    header["__metadata__"] = {
        "version": str(VERSION),
        "contexts": _contexts(),
        "root": _name(root),
        "sum": str(found),
        "files": files,
    }
    try:
        _make_private(path.parent)
        _put(path, header, arrays)
    except OSError as error:
        raise OutputError(f"cannot write the project's cache {path} ({error}): free or allow that folder.") from error
    for old in (*_left(path.parent), *_oldest_first(path.parent)[:-KEPT]):
        with suppress(OSError):
            old.unlink()


def _make_private(directory: Path) -> None:
    # A folder that the user has named may hold other things, and be meant for others: its files alone are private.
    if directory == cache_directory() or not directory.exists():
        make_directory(directory)


def _put(path: Path, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Let the file be at `path`, whole and for nobody else; or beside it, where what is there cannot be replaced."""
    token = secrets.token_hex(4)
    partial = path.with_name(f"{path.name}.{token}{_PARTIAL}")
    raw = json.dumps(header).encode("ascii")
    raw += b" " * (-len(raw) % 8)
    try:
        # Not by safetensors: from its first byte on it must be the user's alone.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for array in arrays.values():
                file.write(array.data)
        try:
            partial.replace(path)
        except PermissionError:  # Windows replaces no file that somebody has mapped: this process, maybe
            path = path.with_name(f"{path.stem}.{token}{_SUFFIX}")
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    for old in _versions(path.with_name(path.name.split(".")[0] + _SUFFIX)):
        if old != path:
            with suppress(OSError):  # mapped still: the next writing tries again
                old.unlink()


def _versions(path: Path) -> list[Path]:
    """Return the cache at `path` and those written while it could not be replaced, the newest first."""
    found = []
    for place in (path, *path.parent.glob(f"{path.stem}.*{_SUFFIX}")):
        with suppress(OSError):
            found.append((place.stat().st_mtime_ns, place))
    return [place for _, place in sorted(found, reverse=True)]


def _oldest_first(directory: Path) -> list[Path]:
    """Return the files of caches by when they were used."""
    found = []
    for path in directory.glob(f"*{_SUFFIX}"):
        with suppress(OSError):
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _left(directory: Path) -> list[Path]:
    """Return what killed writers have left. By the age alone, also from the future: clocks are put back, too."""
    found = []
    for path in directory.glob(f"*{_SUFFIX}*{_PARTIAL}"):
        with suppress(OSError):
            if abs(time.time() - path.stat().st_mtime) > LEFT:
                found.append(path)
    return found


def _check_owner(descriptor: int) -> None:
    """Raise `ValueError` for a file that others can have written; close it to them where they can read it."""
    if os.name != "posix":
        return
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise ValueError("it is another user's")
    if not is_trusted(status):
        raise ValueError("others can change it")
    if not is_private(status):
        with suppress(OSError):
            os.fchmod(descriptor, 0o600)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and where its values begin."""
    with open_regular(path) as file:
        _check_owner(file.fileno())
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= _MAX_HEADER:
            raise ValueError("its header is damaged")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is damaged")
    return header, 8 + length


@functools.cache
def _contexts() -> str:
    """Return what tells which contexts are counted and how their keys are made: the keys of some text."""
    some = bytes(range(256)) + b"one two\n\nthree four = five(six, seven)" * 9
    return f"{zlib.crc32(Counts.of_texts([some]).keys.data):x}"


def _name(root: Path) -> str:
    return os.fsencode(os.path.realpath(root)).decode("utf-8", "backslashreplace")
