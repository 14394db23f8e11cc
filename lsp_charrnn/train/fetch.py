"""Fetch the releases that a corpus list names, by the ordinary package client, and lay out their source text.

A list (TOML) pins each release's name, version, licence, file and SHA-256; `pip` knows where to get it, `npm` where it
is a package of npm's, and `apt-get` where it is a Debian package (`deb`) or the upstream tarball of a Debian source
package (`dsc`). What is already there and verified is not fetched again. Which files are worth training on is for
`corpus` to judge.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import posixpath
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, get_args

from rich.table import Table

from lsp_charrnn.errors import CorpusError, OutputError
from lsp_charrnn.train.archives import MAX_ARCHIVE_BYTES, archive_members
from lsp_charrnn.train.corpus import LANGUAGES, MANIFEST

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = Literal["sdist", "wheel", "stdlib", "deb", "dsc", "npm"]
Outcome = Literal["fetched", "already there", "differs", "skipped"]

LICENCES: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC"),
        *("MIT", "MIT-0", "PSF-2.0", "Unlicense", "Zlib"),
        *("PostgreSQL", "blessing", "curl"),  # a BSD's and an MIT's words, and SQLite's, which is public domain
    }
)
_STAMP: Final = ".lsp-charrnn-sha256"  # in a finished directory: the hash of the file that it came from
_LARGEST_MEMBER: Final = 5_000_000
_LICENCE_FILE: Final = re.compile(r"(?:licen[cs]e|copying|notice|copyright)", re.IGNORECASE)
_SECONDS_PER_RELEASE: Final = 600
_DOC: Final = "usr/share/doc/"
_NPM_TOP: Final = "package"  # what npm packs lies under this
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
        return re.sub(r"[-_.@/]+", "-", self.name).lower().strip("-")


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
    if release.kind not in get_args(Kind):
        raise CorpusError(f"{where}: kind is one of {', '.join(get_args(Kind))}, not {release.kind}.")
    scope = r"(?:@[a-z0-9][a-z0-9._-]*/)?" if release.kind == "npm" else ""
    if not re.fullmatch(scope + r"[A-Za-z0-9][A-Za-z0-9._+-]*", release.name):
        raise CorpusError(f"{where}: {release.name!r} is not a package name.")
    if not re.fullmatch(r"[0-9][A-Za-z0-9.!+:~-]*", release.version):
        raise CorpusError(f"{where}: {release.version!r} is not a version.")
    if release.kind == "dsc" and not release.file:
        raise CorpusError(f"{where}: file must name the tarball of the source package.")
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
            result = _fetch_one(release, out, sources)
        except (CorpusError, OSError, subprocess.SubprocessError) as error:
            result = Result(release, "skipped", " ".join(str(error).split()))
        if progress is not None:
            progress(result)
        return result

    with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as scratch, ThreadPoolExecutor(jobs) as pool:
        sources = _SourceIndex(Path(scratch).resolve())
        results = list(pool.map(one, releases))
    _write_manifest(out, releases)
    if all(result.outcome == "skipped" for result in results):
        raise CorpusError(f"Nothing of {list_path} could be fetched; the first reason: {results[0].reason}")
    return results


def known_releases(paths: Sequence[Path | str]) -> dict[str, dict[str, str]]:
    """Return version and licence of each project in the fetched directories among `paths`."""
    known: dict[str, dict[str, str]] = {}
    for path in paths:
        try:
            entries = json.loads((Path(path) / MANIFEST).read_text("utf-8"))["releases"]
            for release in (Release(**entry) for entry in entries):
                known[release.project] = {"version": release.version, "licence": release.licence}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not fetched from a list, so there is none to know them from
    return known


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
    present = [release for release in releases if _is_there(release, out)]
    manifest = {
        "projects": sorted({release.project for release in present}),
        "releases": [vars(release) for release in present],
    }
    partial = out / (MANIFEST + ".partial")
    try:
        partial.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
        partial.replace(out / MANIFEST)
    except OSError as error:
        with suppress(OSError):  # a disk that has become read-only keeps it
            partial.unlink()
        raise OutputError(f"cannot write to {out} ({error.strerror}): free some space, then fetch again.") from error


def _is_there(release: Release, out: Path) -> bool:
    """Say whether the text of this very release is there; of the standard library, any interpreter's."""
    try:
        digest = (out / release.project / _STAMP).read_text("utf-8").strip()
    except OSError:
        return False
    return digest == release.sha256 or release.kind == "stdlib"


def _fetch_one(release: Release, out: Path, sources: _SourceIndex) -> Result:
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
            archive = _download(release, Path(scratch, "download"), sources)
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            if digest != release.sha256:
                raise CorpusError(f"{archive.name} has SHA-256 {digest}, the list says {release.sha256}.")
            _extract(archive, tree, release.kind)
        (tree / _STAMP).write_text(digest + "\n", "utf-8")
        if target.exists():
            target.rename(Path(scratch, "old"))
        tree.rename(target)
    return Result(release, outcome, reason)


def _download(release: Release, directory: Path, sources: _SourceIndex) -> Path:
    directory.mkdir()
    if release.kind in ("deb", "dsc"):
        return _download_with_apt(release, directory, sources)
    if release.kind == "npm":
        return _download_with_npm(release, directory)
    return _download_with_pip(release, directory)


def _download_with_pip(release: Release, directory: Path) -> Path:
    """Let pip fetch the one file with the listed hash; it refuses any other."""
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
        lines = [line.strip() for line in done.stderr.splitlines()]
        errors = [line for line in lines if line.startswith("ERROR:")]  # of a build's own pip, too: further in
        said = (errors or lines or ["it said nothing"])[-1]
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


def _download_with_npm(release: Release, directory: Path) -> Path:
    """Let npm fetch the package's tarball; nothing in it is run."""
    command = ["npm", "pack", "--ignore-scripts", "--silent", "--pack-destination", str(directory.resolve())]
    try:
        done = subprocess.run(
            [*command, f"{release.name}@{release.version}"],
            cwd=directory,  # away from any package.json
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_PER_RELEASE,
            check=False,
        )
    except FileNotFoundError as error:
        raise CorpusError("npm is not on this machine; install it to fetch its packages.") from error
    files = list(directory.glob("*.tgz"))
    if done.returncode != 0 or len(files) != 1:
        said = (done.stderr.splitlines() or ["it said nothing"])[0]
        raise CorpusError(f"npm could not download {release.name} {release.version}: {said}")
    return files[0]


def _download_with_apt(release: Release, directory: Path, sources: _SourceIndex) -> Path:
    """Let apt-get fetch the binary package, or the listed tarball of the source package. Nothing is installed."""
    if release.kind == "deb":
        command = ["download"]
    else:
        command = [*sources.options(), "source", "--download-only", "--only-source", "--tar-only"]
    done = _apt_get(["-qq", *command, f"{release.name}={release.version}"], directory)
    files = [path for path in directory.iterdir() if path.suffix == ".deb" or path.name == release.file]
    if done.returncode != 0 or len(files) != 1:
        raise CorpusError(f"apt-get could not download {release.name} {release.version}: {_complaint(done)}")
    return files[0]


def _apt_get(arguments: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["apt-get", *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_PER_RELEASE,
            check=False,
        )
    except FileNotFoundError as error:
        raise CorpusError("apt-get is not on this machine; fetch Debian packages on Debian.") from error


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the first error that apt-get gave, else its last line: what follows the first only repeats it."""
    lines = done.stderr.splitlines()
    return next((line for line in lines if line.startswith("E:")), (lines or ["it said nothing"])[-1])


class _SourceIndex:
    """Where apt-get finds source packages: most machines are set up for binary packages alone.

    Then the sources that apt knows are asked for their source packages, too, with an index of our own beside
    the text, made once and only if it is needed: apt's own settings and lists stay as they are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._options: list[str] | None = None
        self._fault = ""

    def options(self) -> list[str]:
        """Return what to put before `source`. Raises `CorpusError` if there is no index, and why."""
        with self._lock:
            if self._options is None:
                self._options = self._make()
        if self._fault:
            raise CorpusError(f"apt-get has no index of source packages: {self._fault}")
        return self._options

    def _make(self) -> list[str]:
        if _apt_get(["indextargets", "Created-By: Sources"], self._directory).stdout.strip():
            return []
        parts, lists = self._directory / "parts", self._directory / "lists"
        parts.mkdir(exist_ok=True)
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        listed = _apt_get(["indextargets", "--format", "$(SOURCESENTRY)", "Created-By: Packages"], self._directory)
        entries = {line.rpartition(":")[0] for line in listed.stdout.splitlines()}  # file:number
        if not entries:
            self._fault = "it knows no packages at all; run `apt-get update`"
            return []
        for name in entries:
            text = Path(name).read_text("utf-8")
            text = re.sub(r"^Types:.*", "Types: deb-src", text, flags=re.MULTILINE)
            text = re.sub(r"^deb(?=\s)", "deb-src", text, flags=re.MULTILINE)
            (parts / Path(name).name).write_text(text, "utf-8")
        options = ["-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={parts}"]
        options += ["-o", f"Dir::State::Lists={lists}"]
        updated = _apt_get(["-qq", *options, "update"], self._directory)
        if not any(lists.glob("*_Sources*")):
            self._fault = _complaint(updated)
        return options


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in LANGUAGES or _LICENCE_FILE.match(path.name) is not None


def _extract(archive: Path, tree: Path, kind: Kind) -> None:
    if kind == "deb":
        archive = _installed_files(archive)
    top = _common_directory(archive) if kind in ("deb", "dsc") else _NPM_TOP if kind == "npm" else ""
    tree.mkdir()
    for name, size, read in archive_members(archive):
        if size <= _LARGEST_MEMBER and _is_wanted(name) and (kind != "npm" or name.startswith(_NPM_TOP + "/")):
            target = tree / _below(name, top)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(read())


def _installed_files(package: Path) -> Path:
    """Unwrap the tar of what a Debian package installs. Its scripts are in the other half, which stays shut."""
    tar = package.with_suffix(".tar")
    try:
        with tar.open("wb") as file, tempfile.TemporaryFile() as said:
            command = ["dpkg-deb", "--fsys-tarfile", str(package)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process:
                assert process.stdout is not None
                left = MAX_ARCHIVE_BYTES
                while piece := process.stdout.read(1 << 20):
                    left -= len(piece)
                    if left < 0:
                        process.kill()
                        raise CorpusError(f"{package.name} unpacks to more than an archive of source code should.")
                    file.write(piece)
            if process.returncode != 0:
                said.seek(0)
                why = said.read(1000).decode("utf-8", "replace")
                raise CorpusError(f"dpkg-deb could not unpack {package.name}: {why}")
    except FileNotFoundError as error:
        raise CorpusError("dpkg-deb is not on this machine; fetch Debian packages on Debian.") from error
    return tar


def _common_directory(archive: Path) -> str:
    """Return the directory that all the source text lies under: people work in a project, not in /usr/share."""
    names = [name for name, _, _ in archive_members(archive) if _is_wanted(name) and not name.startswith(_DOC)]
    return posixpath.commonpath([posixpath.dirname(name) for name in names]) if names else ""


def _below(name: str, top: str) -> str:
    """Return where a file goes: below `top`, or from Debian's directory of documents to the top of the project."""
    if name.startswith(_DOC):
        return name.removeprefix(_DOC).partition("/")[2] or name
    return PurePosixPath(name).relative_to(top).as_posix()


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
