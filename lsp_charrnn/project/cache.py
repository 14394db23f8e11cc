r"""The counted text of a project on disk, so that the next start has it at once.

One file a project, named after the project's place, in the user's cache directory: the files' names, sizes and times,
their text, and its counts, as safetensors. It appears whole or not at all, is mapped into memory instead of read, and
what doesn't fit (another version, another order, damaged) is no cache: the project is counted anew. It holds the text
of the project, so nobody but the user may read it.

What is counted, and when, is `memory`'s.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from lsp_charrnn.engine.contexts import ORDERS, REACH
from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.errors import OutputError

logger = logging.getLogger(__name__)

VERSION: Final = 1
KEPT: Final = 16  # projects; of more, those used longest ago are forgotten
_SUFFIX: Final = ".counts"
_MAX_HEADER: Final = 64 << 20  # bytes
# What reading a file raises that holds something else than it should.
_DAMAGED: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_TYPES: Final = {"keys": ("U64", np.uint64), "counts": ("I32", np.int32), "texts": ("U8", np.uint8)}


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
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    return (cache_directory() if directory is None else directory) / (name + _SUFFIX)


def caches(directory: Path | None = None) -> Iterator[tuple[Path, str, int]]:
    """Yield of each cache its file, the project's place, and its size in bytes."""
    directory = cache_directory() if directory is None else directory
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        with suppress(OSError, *_DAMAGED):
            header, _ = _header(path)
            yield path, header["__metadata__"]["root"], path.stat().st_size


def clear(root: Path | None = None, directory: Path | None = None) -> int:
    """Remove the cache of the project at `root`, or all; return how many there were. Raises `OutputError`."""
    directory = cache_directory() if directory is None else directory
    found = list(directory.glob(f"*{_SUFFIX}*")) if root is None else [cache_file(root, directory)]
    removed = 0
    for path in found:
        try:
            path.unlink()
            removed += 1
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror}. Remove it by hand.") from error
    return removed


def read(path: Path, root: Path) -> Index | None:
    """Return what `write` has written for the project at `root`, mapped into memory; None if it is no use."""
    try:
        header, start = _header(path)
        facts = header["__metadata__"]
        if (facts["version"], facts["orders"], facts["root"]) != (str(VERSION), _orders(), _name(root)):
            return None
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        arrays = {}
        for name, (kind, dtype) in _TYPES.items():
            about = header[name]
            low, high = about["data_offsets"]
            if about["dtype"] != kind or not 0 <= low <= high <= len(mapped) - start:
                return None
            array = np.frombuffer(mapped, dtype=np.uint8, offset=start + low, count=high - low).view(dtype)
            arrays[name] = array
        if len(arrays["keys"]) != len(arrays["counts"]):
            return None
        texts = arrays["texts"]
        files = {path: Entry(*map(int, numbers)) for path, numbers in json.loads(facts["files"]).items()}
        if any(not 0 <= entry.start <= entry.end <= len(texts) for entry in files.values()):
            return None
        with suppress(OSError):
            os.utime(path)  # when it was used last
        return Index(files, texts, Counts(arrays["keys"], arrays["counts"]))
    except FileNotFoundError:
        return None
    except (OSError, *_DAMAGED) as error:
        logger.warning("the cache %s cannot be used, and is made anew: %s", path, error)
        return None


def write(path: Path, root: Path, index: Index) -> None:
    """Write `index`, and forget the projects used longest ago. Raises `OutputError`; what was there stays then."""
    from safetensors.numpy import save_file

    facts = {
        "version": str(VERSION),
        "orders": _orders(),
        "root": _name(root),
        "files": json.dumps({path: astuple(entry) for path, entry in index.files.items()}),
    }
    tensors = {"keys": index.counts.keys, "counts": index.counts.counts, "texts": index.texts}
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            save_file({name: np.ascontiguousarray(tensors[name]) for name in _TYPES}, partial, facts)
            partial.chmod(0o600)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the project's cache {path} ({error}): free or allow that folder.") from error
    for old in _oldest_first(path.parent)[:-KEPT]:
        with suppress(OSError):
            old.unlink()


def _oldest_first(directory: Path) -> list[Path]:
    """Return the files of caches by when they were used; of writes that never ended, too."""
    found = []
    for path in directory.glob(f"*{_SUFFIX}*"):
        with suppress(OSError):
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and where its values begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= _MAX_HEADER:
            raise ValueError("its header is damaged")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is damaged")
    return header, 8 + length


def _orders() -> str:
    return " ".join(map(str, (*ORDERS, REACH)))


def _name(root: Path) -> str:
    return os.fsencode(os.path.realpath(root)).decode("utf-8", "backslashreplace")
