"""Memory that is free, given back to the system; and how much of it there may be, in a container or a control group.

glibc keeps what lies between blocks that are in use, and a document leaves thousands of small blocks when it closes.
Without this the server would stay ten megabytes larger than it is, and grow with each document (docs/experiments.md,
"Memory"). Other systems' allocators do it themselves.

Who takes more than a control group allows is killed by the kernel, without a word, and started again would be so again.
So what takes most, counting a project, is kept to what there is room for.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # M_ARENA_MAX and M_MMAP_THRESHOLD of malloc.h
_LARGE: Final = 1 << 18  # bytes: tables of a project's counts are, and of a document's

_BESIDE: Final = 170_000_000  # bytes: the server with its model and some documents, and room to work
_COUNTING: Final = 75  # bytes for each of a project's text, at most, until it has been counted (benchmarks.project)


def room_for_text(limit: int | None) -> int | None:
    """Return how many bytes of a project can be counted where `limit` are all that there may be; None: any number."""
    return None if limit is None else max(0, (limit - _BESIDE) // _COUNTING)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return how many bytes this process's control groups let it have; None where none has a limit, or nothing tells.

    `root` is where /proc and /sys are.
    """
    limits = []
    for file in _limit_files(root):
        with suppress(OSError, ValueError):  # "max" is no number
            limits.append(int(file.read_text("ascii")))
    smallest = min(limits, default=None)
    return None if smallest is None or smallest >= 1 << 60 else smallest  # so version 1 says that there is none


def _limit_files(root: Path) -> Iterator[Path]:
    """Yield the files that limits may be in: of the process's groups, and of those that these are in."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        kinds, _, group = line.partition(":")[2].partition(":")
        if not kinds:
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in kinds.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container what is outside of it is named, too, and the top is its own group.
        for place in (PurePosixPath(group), *PurePosixPath(group).parents):
            yield top / str(place).lstrip("/") / name


def keep_heap_small() -> bool:
    """Let all threads allocate from one heap from now on, and large blocks outside it; say whether that could be set.

    With a heap for each thread what one leaves free the others cannot use, and two that hardly ever run at the same
    time gain nothing by it. Among small blocks the gaps that a project's tables leave when they are counted anew stay
    resident, a hundred megabytes of them (docs/experiments.md, "Memory").
    """
    mallopt = _libc("mallopt")
    return mallopt is not None and all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_THRESHOLD, _LARGE)])


def give_back() -> bool:
    """Let the allocator return free pages to the system, in a few milliseconds; say whether it did."""
    trim = _libc("malloc_trim")
    return trim is not None and bool(trim(ctypes.c_size_t(0)))


def _libc(function: str) -> Any:
    """Return one of glibc's own functions, or None where there is none (musl, other systems)."""
    return getattr(ctypes.CDLL(None), function, None) if sys.platform.startswith("linux") else None
