"""The models of projects: what `train --install` has made of a user's own code, kept among the user's data.

A project's place is a directory named after where the project lies. `installed.json` says there which version counts,
and each version is a model directory beside it: another one takes effect all at once, whoever is loading the old one,
and no path ever means two models. A model can repeat what it has read, so nobody but the user may read it.

Training and judging a model are left to `train` and `evaluate`; when to look for a new one, to the server.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import platformdirs

from lsp_charrnn.config import language_id
from lsp_charrnn.errors import ModelError, OutputError
from lsp_charrnn.model.files import (
    CARD_FILE,
    CONFIG_FILE,
    GRAPH_FILE,
    STEP_FILE,
    WEIGHTS_FILE,
    ModelInfo,
    describe,
    read_config,
    verify_model,
)
from lsp_charrnn.private import create, is_trusted, make_directory, open_regular

FORMAT: Final = 1
POINTER_FILE: Final = "installed.json"
TUNED: Final = "tuned"  # where a model is made that is to be installed, if nobody has named another directory

_LOCK_FILE: Final = "lock"
_VERSION: Final = re.compile(r"[0-9]{19,}-[0-9a-f]{8}")  # when it was installed, so that later ones sort behind
_FILES: Final = (CONFIG_FILE, WEIGHTS_FILE, GRAPH_FILE, STEP_FILE, CARD_FILE)
_MAX_POINTER: Final = 1 << 16  # bytes


@dataclass(frozen=True)
class Installed:
    """A project that has a model of its own."""

    root: str  # the project's directory, without links
    model: ModelInfo


def project_key(root: str | os.PathLike[str]) -> str:
    """Return what the user's data of the project at `root` are named after: one name, whatever links lead there."""
    return hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]


def projects_directory() -> Path:
    """Return where the models of all projects are."""
    return Path(platformdirs.user_data_dir("lsp-charrnn", appauthor=False)) / "projects"


def place_of(root: str | os.PathLike[str]) -> Path:
    """Return where the models of the project at `root` are, whether there is one or not."""
    return projects_directory() / project_key(root)


def make_place(root: str | os.PathLike[str]) -> Path:
    """Make the place of a project, for the user alone, and return it. Raises `OutputError`."""
    place = place_of(root)
    try:
        for directory in (place.parent, place):
            make_directory(directory)
    except OSError as error:
        raise OutputError(f"cannot make {place} ({error.strerror}): make its parent writable.") from error
    return place


def pointer_of(root: str | os.PathLike[str]) -> bytes | None:
    """Return what changes when another model is installed for a project; None while it has none. Never raises."""
    try:
        with open_regular(place_of(root) / POINTER_FILE) as file:
            return file.read(_MAX_POINTER)
    except OSError:
        return None


def installed_model(root: str | os.PathLike[str]) -> Path | None:
    """Return the directory of the model that is installed for the project at `root`; None if there is none.

    Raises `ModelError` where it cannot be told which one it is.
    """
    pointer, place = pointer_of(root), place_of(root)
    if pointer is None:
        return None
    with suppress(OSError):
        if not is_trusted(place.stat()):
            raise ModelError(f"others can change the project's model: make {place} yours alone by `chmod 700`.")
    return _pointed(place, pointer)[1]


def model_of_project(root: str | os.PathLike[str], language: str) -> Path | None:
    """Return the project's own model if it has one that was trained for `language`. Raises `ModelError`."""
    path = installed_model(root)
    return path if path is not None and language_id(language) in read_config(path)[0]["languages"] else None


def list_installed() -> list[Installed]:
    """Return the projects that have a model of their own, by where they lie."""
    found = []
    for pointer in sorted(projects_directory().glob(f"*/{POINTER_FILE}")):
        try:
            with open_regular(pointer) as file:
                root, path = _pointed(pointer.parent, file.read(_MAX_POINTER))
            found.append(Installed(root, describe(path)))
        except ModelError as error:
            found.append(Installed("", ModelInfo(pointer.parent.name, pointer.parent, problem=str(error))))
        except OSError:
            continue
    return sorted(found, key=lambda one: (one.root, one.model.path))


def install(model_dir: str | os.PathLike[str], root: str | os.PathLike[str]) -> Path:
    """Make a copy of a model the one of the project at `root`, and return where it is now.

    It is verified first, and takes effect when it is whole on the disk. Raises `ModelError` where it is damaged,
    `OutputError` where it cannot be written; the project's model stays what it was then.
    """
    failed = [check.message for check in verify_model(model_dir) if not check.ok]
    if failed:
        raise ModelError(failed[0])
    place = make_place(root)
    version = f"{_next_number(root):019d}-{secrets.token_hex(4)}"
    partial = place / f".{version}.partial"
    facts = {"format": FORMAT, "root": os.path.realpath(root), "version": version}
    try:
        partial.mkdir(mode=0o700)
        for name in _FILES:
            source = Path(model_dir) / name
            if source.is_file():
                _write(partial / name, source.read_bytes())
        partial.rename(place / version)
        pointer = place / f".{POINTER_FILE}.{version}.partial"
        try:
            _write(pointer, json.dumps(facts).encode("ascii"))
            pointer.replace(place / POINTER_FILE)
        finally:
            pointer.unlink(missing_ok=True)
        _sync(place)
    except OSError as error:
        shutil.rmtree(place / version, ignore_errors=True)
        raise OutputError(f"cannot write to {place} ({error.strerror or error}): free some space there.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _forget_older(place, version)
    return place / version


def uninstall(root: str | os.PathLike[str]) -> bool:
    """Remove the model of the project at `root`, and what its trainings have left; say whether there was anything.

    Raises `OutputError` where it cannot be removed, and while it is being trained.
    """
    place = place_of(root)
    if not place.is_dir() or all(entry.name == _LOCK_FILE for entry in place.iterdir()):
        return False
    with alone(root):
        try:
            (place / POINTER_FILE).unlink(missing_ok=True)  # first, so that nobody looks for what is half there
            for entry in place.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != _LOCK_FILE:
                    entry.unlink()
        except OSError as error:
            raise OutputError(f"cannot remove {place} ({error.strerror}): remove it by hand.") from error
    shutil.rmtree(place, ignore_errors=True)
    return True


@contextmanager
def alone(root: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes from making this project's model meanwhile. Raises `OutputError` where one is at it."""
    path = make_place(root) / _LOCK_FILE
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror}): make it writable.") from error
    with file:
        if not _locked(file):
            raise OutputError(
                f"a model for {os.fspath(root)} is being trained already: wait for its end, or cancel it."
            )
        yield


def is_unfinished(root: str | os.PathLike[str]) -> bool:
    """Say whether a training for this project was stopped and can be gone on with."""
    # By these names `train` keeps its checkpoint beside the model that it makes; a test holds that.
    return (place_of(root) / f"{TUNED}.training" / "checkpoint.safetensors").is_file()


def _pointed(place: Path, pointer: bytes) -> tuple[str, Path]:
    """Return the project's root, and the directory of the version that counts. Raises `ModelError`."""
    try:
        facts: dict[str, Any] = json.loads(pointer)
        root, version, number = facts["root"], facts["version"], facts["format"]
        if number != FORMAT or not isinstance(root, str) or not _VERSION.fullmatch(version):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(
            f"{place / POINTER_FILE} does not say which model it is: train the project again with --install, or remove "
            f"{place}."
        ) from error
    return root, place / version


def _next_number(root: str | os.PathLike[str]) -> int:
    """Return the time in nanoseconds; or if the clock has been put back, what comes after the version that counts."""
    before = None
    with suppress(ModelError):
        before = installed_model(root)
    return max(time.time_ns(), 0 if before is None else int(before.name.partition("-")[0]) + 1)


def _forget_older(place: Path, version: str) -> None:
    """Remove the versions before `version`: another process may just be writing a later one."""
    for entry in place.iterdir():
        if _VERSION.fullmatch(entry.name) and entry.name < version:
            shutil.rmtree(entry, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with create(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Force a directory's entries to the disk, where a system can."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _locked(file: IO[bytes]) -> bool:
    """Lock an open file until it is closed, by the end of the process at the latest; False if another has."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nothing can be told
        pass
    return True
