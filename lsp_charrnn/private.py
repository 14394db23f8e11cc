"""Files and directories for the user alone: what is made of somebody's text must not be read by others.

Models repeat what they have learned from, caches hold it word for word, and a token opens the server. So their
directories are made for the user alone (0700) and their files (0600), and what is there already is looked at before it
is trusted. Where a system has no such permissions (Windows: a user's profile is the user's alone by inheritance),
nothing is checked.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def make_directory(path: Path) -> None:
    """Make a directory for the user alone; one that is there already, and the user's, is closed to others.

    Its parents are made, too, if they must be. Raises `OSError`.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix":
        status = path.stat()
        if status.st_mode & _OTHERS and status.st_uid == os.geteuid():
            with suppress(OSError):  # a file system that knows no permissions
                path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)


def create(path: Path) -> BinaryIO:
    """Make a new file that is the user's alone from its first byte on, and open it for writing. Raises `OSError`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, if it is one: a pipe would never begin, a device never end. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of a file of `most` bytes or fewer. Raises `OSError`; `ValueError` for a larger one."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path} is larger than {most:,} bytes")
    return data


def is_trusted(status: os.stat_result) -> bool:
    """Say whether nobody but the user (or root) can have written what has this status."""
    if os.name != "posix":
        return True
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & _OTHERS_WRITE


def is_private(status: os.stat_result) -> bool:
    """Say whether nobody but the user (or root) can have written or read what has this status."""
    return os.name != "posix" or (is_trusted(status) and not status.st_mode & _OTHERS)
