"""Memory that is free, given back to the system: glibc keeps what lies between blocks that are in use.

A document leaves thousands of small blocks when it closes. Without this the server would stay ten megabytes larger than
it is, and grow a little with each document (docs/experiments.md, "Memory"). Other systems' allocators do it themselves.
"""

from __future__ import annotations

import ctypes
import sys


def give_back() -> bool:
    """Let the allocator return free pages to the system, in a few milliseconds; say whether it did."""
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    return trim is not None and bool(trim(ctypes.c_size_t(0)))
