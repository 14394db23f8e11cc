"""Memory that is free, given back to the system: glibc keeps what lies between blocks that are in use.

A document leaves thousands of small blocks when it closes. Without this the server would stay ten megabytes larger than
it is, and grow with each document (docs/experiments.md, "Memory"). Other systems' allocators do it themselves.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

_ARENA_MAX: Final = -8  # M_ARENA_MAX of malloc.h


def share_one_heap() -> bool:
    """Let all threads allocate from one heap, from now on; say whether that could be set.

    With a heap for each thread what one leaves free the others cannot use, and two that hardly ever run at the same
    time gain nothing by it.
    """
    mallopt = _libc("mallopt")
    return mallopt is not None and bool(mallopt(_ARENA_MAX, 1))


def give_back() -> bool:
    """Let the allocator return free pages to the system, in a few milliseconds; say whether it did."""
    trim = _libc("malloc_trim")
    return trim is not None and bool(trim(ctypes.c_size_t(0)))


def _libc(function: str) -> Any:
    """Return one of glibc's own functions, or None where there is none (musl, other systems)."""
    return getattr(ctypes.CDLL(None), function, None) if sys.platform.startswith("linux") else None
