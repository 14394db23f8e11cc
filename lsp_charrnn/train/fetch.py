"""Fetch the releases that a corpus list names, by the ordinary package client, and lay out their source text.

A list (TOML) pins each release's name, version, licence, file and SHA-256; `pip` knows where to get it. What
is already there and verified is not fetched again. Which files are worth training on is for `corpus` to judge.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from rich.table import Table

from lsp_charrnn.errors import CorpusError, OutputError
from lsp_charrnn.train.corpus import LANGUAGES, MANIFEST, archive_members

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = Literal["sdist", "wheel", "stdlib"]
Outcome = Literal["fetched", "already there", "differs", "skipped"]

LICENCES: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC"),
        *("MIT", "MIT-0", "PSF-2.0", "Unlicense", "Zlib"),
    }
)
_STAMP: Final = ".lsp-charrnn-sha256"  # in a finished directory: the hash of the file that it came from
_LARGEST_MEMBER: Final = 5_000_000
_LICENCE_FILE: Final = re.compile(r"(?:licen[cs]e|copying|notice)", re.IGNORECASE)
_SECONDS_PER_RELEASE: Final = 600
_STDLIB_LEFT_OUT: Final = frozenset(["site-packages", "dist-packages", "__pycache__", "data", "idlelib", "turtledemo"])


@dataclass(frozen=True)
class Release:
    """One entry of a list: which file of which version of which package, and under which licence."""

    name: str
    version: str
    licence: str
    kind: Kind
    sha256: str
    file: str = ""

    @property
    def project(self) -> str:
        """The name of the directory that its text goes to."""
        return re.sub(r"[-_.]+", "-", self.name).lower()


@dataclass(frozen=True)
class Result:
    """What became of one release, and why if it was not simply fetched."""

    release: Release
    outcome: Outcome
    reason: str = ""


def read_list(path: Path | str) -> list[Release]:
    """Read a corpus list. Raises `CorpusError` that names the entry at fault."""
    try:
        data = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CorpusError(f"{path} cannot be read as a corpus list ({error}); give a TOML file.") from error
    entries = data.get("package")
    if not isinstance(entries, list) or not entries:
        raise CorpusError(f"{path} lists no releases; a corpus list holds [[package]] entries.")
    return [_release(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1)]


def _release(entry: Any, where: str) -> Release:
    known = {field.name for field in fields(Release)}
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise CorpusError(f"{where}: every value must be a string.")
    unknown, missing = entry.keys() - known, known - {"file"} - entry.keys()
    if unknown or missing:
        which = f"unknown: {', '.join(sorted(unknown))}" if unknown else f"missing: {', '.join(sorted(missing))}"
        raise CorpusError(f"{where}: {which}; an entry has {', '.join(sorted(known))}.")
    release = Release(**entry)
    if release.kind not in ("sdist", "wheel", "stdlib"):
        raise CorpusError(f"{where}: kind is sdist, wheel or stdlib, not {release.kind}.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", release.name):
        raise CorpusError(f"{where}: {release.name!r} is not a package name.")
    if not re.fullmatch(r"[0-9][A-Za-z0-9.!+]*", release.version):
        raise CorpusError(f"{where}: {release.version!r} is not a version.")
    if not re.fullmatch(r"[0-9a-f]{64}", release.sha256):
        raise CorpusError(f"{where}: sha256 is 64 hexadecimal digits.")
    if not is_permissive(release.licence):
        raise CorpusError(f"{where}: {release.licence} is not a licence to train under; take the entry out.")
    return release


def is_permissive(expression: str) -> bool:
    """Say whether an SPDX expression (AND, OR, no brackets) can be met with permitted licences alone."""
    alternatives = expression.split(" OR ")
    return any(all(term.strip() in LICENCES for term in option.split(" AND ")) for option in alternatives)


def fetch(
    list_path: Path | str,
    out_dir: Path | str,
    *,
    jobs: int = 4,
    progress: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Bring `out_dir` up to the list: `<project>/<path inside the release>`, source text and licences alone.

    One release that cannot be had is skipped and reported, the others go on. A directory appears whole or not
    at all, so an interrupted run is simply started again. `progress` is called as each release is done.
    Raises `CorpusError` for a faulty list, or if nothing could be had; `OutputError` for the directory.
    """
    releases = read_list(list_path)
    out = Path(out_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made a directory ({error.strerror}); give another --out.") from error
    if any(out.iterdir()) and not (out / MANIFEST).exists():
        raise OutputError(f"{out} holds other files; give --out a new or empty directory.")
    for leftover in out.glob(".partial-*"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    _write_manifest(out, releases)

    def one(release: Release) -> Result:
        try:
            result = _fetch_one(release, out)
        except (CorpusError, OSError, subprocess.SubprocessError) as error:
            result = Result(release, "skipped", " ".join(str(error).split()))
        if progress is not None:
            progress(result)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(one, releases))
    _write_manifest(out, releases)
    if all(result.outcome == "skipped" for result in results):
        raise CorpusError(f"Nothing of {list_path} could be fetched; the first reason: {results[0].reason}")
    return results


def results_table(results: list[Result]) -> Table:
    """Return how many releases were had, and each one that was not, with the reason."""
    table = Table(title="Fetched")
    for name in ("release", "outcome", "reason"):
        table.add_column(name)
    for result in results:
        if result.outcome in ("skipped", "differs"):
            release = result.release
            table.add_row(f"{release.name} {release.version}", result.outcome, result.reason)
    counts = {outcome: sum(result.outcome == outcome for result in results) for outcome in ("fetched", "already there")}
    for outcome, count in counts.items():
        table.add_row(f"{count} release{'' if count == 1 else 's'}", outcome, "")
    return table


def _write_manifest(out: Path, releases: list[Release]) -> None:
    present = [release for release in releases if (out / release.project / _STAMP).is_file()]
    manifest = {
        "projects": sorted({release.project for release in present}),
        "releases": [vars(release) for release in present],
    }
    partial = out / (MANIFEST + ".partial")
    partial.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    partial.replace(out / MANIFEST)


def _fetch_one(release: Release, out: Path) -> Result:
    target = out / release.project
    stamp = target / _STAMP
    if stamp.is_file() and stamp.read_text("utf-8").strip() == release.sha256:
        return Result(release, "already there")
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as scratch:
        tree = Path(scratch, "tree")
        outcome: Outcome = "fetched"
        reason = ""
        if release.kind == "stdlib":
            digest = _copy_stdlib(tree)
            if digest != release.sha256:
                outcome = "differs"
                reason = f"the list is of Python {release.version}, this is {platform.python_version()}"
        else:
            archive = _download(release, Path(scratch, "download"))
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            if digest != release.sha256:
                raise CorpusError(f"{archive.name} has SHA-256 {digest}, the list says {release.sha256}.")
            _extract(archive, tree)
        (tree / _STAMP).write_text(digest + "\n", "utf-8")
        if target.exists():
            target.rename(Path(scratch, "old"))
        tree.rename(target)
    return Result(release, outcome, reason)


def _download(release: Release, directory: Path) -> Path:
    """Let pip fetch the one file with the listed hash; it refuses any other."""
    directory.mkdir()
    requirement = directory.with_suffix(".txt")
    requirement.write_text(f"{release.name}=={release.version} --hash=sha256:{release.sha256}\n", "utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "download",
        "--quiet",
    ]
    command += ["--no-deps", "--require-hashes", "--ignore-requires-python", "--dest", str(directory)]
    command += ["--only-binary", ":all:"] if release.kind == "wheel" else ["--no-binary", ":all:"]
    command += _wheel_tags(release.file) if release.kind == "wheel" else []
    done = subprocess.run(
        [*command, "--requirement", str(requirement)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS_PER_RELEASE,
        check=False,
    )
    files = [path for path in directory.iterdir() if path.is_file()]
    if done.returncode != 0 or len(files) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        said = (errors or done.stderr.splitlines() or ["it said nothing"])[-1]
        raise CorpusError(f"pip could not download {release.name} {release.version}: {said}")
    return files[0]


def _wheel_tags(file: str) -> list[str]:
    """Return the options that make pip consider this very wheel, whatever machine and Python it runs on."""
    tags = file.removesuffix(".whl").split("-")[-3:]
    if len(tags) < 3 or tags[2] == "any":
        return []
    python, abi, platforms = tags
    version = re.fullmatch(r"cp(\d)(\d+)", python.split(".")[0])
    if version is None:
        return []
    options = ["--implementation", "cp", "--python-version", f"{version[1]}.{version[2]}", "--abi", abi]
    for name in platforms.split("."):
        options += ["--platform", name]
    return options


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in LANGUAGES or _LICENCE_FILE.match(path.name) is not None


def _extract(archive: Path, tree: Path) -> None:
    tree.mkdir()
    for name, size, read in archive_members(archive):
        if size <= _LARGEST_MEMBER and _is_wanted(name):
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(read())


def _stdlib_files() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for parent, directories, names in os.walk(root):
        directories[:] = sorted(set(directories) - _STDLIB_LEFT_OUT)
        for name in sorted(names):
            if name.endswith(".py") or _LICENCE_FILE.match(name):
                path = Path(parent, name)
                yield path.relative_to(root).as_posix(), path


def _copy_stdlib(tree: Path) -> str:
    """Copy this interpreter's own library and return one hash over its names and contents."""
    digest = hashlib.sha256()
    tree.mkdir()
    for name, path in _stdlib_files():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
