"""Files that a measurement leaves: they appear whole under their names or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from lsp_charrnn.errors import OutputError


def check_place(path: Path) -> None:
    """Raise `OutputError` now, rather than when all has been measured, if `path` can't be written; leave no trace."""
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if path.is_dir():
        raise OutputError(f"cannot write {path}, which is a directory: name a file.")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}, for nothing can be put into {folder}: name another place.")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, and the directories that lead to it. Raises `OutputError`."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # else a power cut might leave an empty file under the name
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): name another place.") from error
