"""Which files of a project its memory reads, in which order, and their text.

What git would track is read: git is asked where it is installed and the project is in a work tree, else the tree is
walked (`ignore`). Of that, what people write: no links, no secrets, nothing large, no lock files, data or pictures.
Source comes first, and of that what is near the open documents, then what changed last, until `cap` bytes are full.

    project_files   all files, once
    ProjectFilter   one file, as often as the editor says that one was saved or created
    read_text       the text of one

Any repository may be opened here, also a hostile one: nothing in it is run, followed out of it, or waited for.
What is made of the text is the engine's, and when to look again is the server's.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from lsp_charrnn.project.ignore import (
    ELSEWHERE,
    IGNORED,
    NEVER_ENTERED,
    VENDORED,
    VIRTUAL_ENVIRONMENT,
    Place,
    Tree,
    made_by_tools,
)
from lsp_charrnn.project.secrets import is_secret
from lsp_charrnn.text.symbols import normalise

DEFAULT_CAP: Final = 8_000_000  # bytes of text
MAX_FILE_BYTES: Final = 200_000  # larger ones are data, or generated
MAX_ENTRIES: Final = 300_000  # looked at: somebody opens a home directory as a project, and that must end, too
_GIT_SECONDS: Final = 20.0
_GIT_CONFIGURATION: Final = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")  # the user's, for any one

# Why a file is left out; `ignore` has the reasons of directories.
SECRET: Final = "secret by its name"
LINK: Final = "a link"
SPECIAL: Final = "not a regular file"
EMPTY: Final = "empty"
LARGE: Final = f"larger than {MAX_FILE_BYTES // 1000} kB"
NOT_WRITTEN: Final = "a lock file, data, or binary"
GONE: Final = "not there, or unreadable"
OVER_CAP: Final = "over the cap"
TOO_MANY: Final = f"beyond the first {MAX_ENTRIES:,} entries"
SLOW: Final = "not tracked, and git took too long to tell which"

# What people write, documents too: all that models are trained on (a test holds that), and more.
SOURCE_SUFFIXES: Final = frozenset(
    {
        *(".py", ".pyi", ".pyx", ".pxd", ".bash", ".sh", ".zsh", ".fish", ".ps1", ".bat"),
        *(".c", ".h", ".cc", ".hh", ".cpp", ".hpp", ".cxx", ".hxx", ".inl", ".m", ".mm", ".cu", ".cuh", ".zig", ".d"),
        *(".cs", ".fs", ".fsx", ".vb", ".java", ".kt", ".kts", ".scala", ".groovy", ".gradle", ".clj", ".cljs"),
        *(".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts", ".vue", ".svelte", ".astro"),
        *(".html", ".htm", ".css", ".scss", ".sass", ".less", ".graphql", ".jinja", ".j2"),
        *(".go", ".rs", ".swift", ".dart", ".rb", ".erb", ".rake", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".tcl"),
        *(".hs", ".ml", ".mli", ".ex", ".exs", ".erl", ".hrl", ".elm", ".nim", ".cr", ".el", ".lisp", ".scm", ".rkt"),
        *(".f90", ".f95", ".f", ".pas", ".adb", ".ads", ".v", ".sv", ".vhd", ".vhdl", ".asm", ".s", ".sol", ".vim"),
        *(".sql", ".proto", ".thrift", ".tf", ".hcl", ".nix", ".bzl", ".cmake", ".mk", ".dockerfile"),
        *(".md", ".rst", ".adoc", ".tex", ".toml", ".yaml", ".yml", ".ini", ".cfg"),
    }
)
_SOURCE_NAMES: Final = frozenset(
    {
        *("makefile", "gnumakefile", "dockerfile", "containerfile", "justfile", "jenkinsfile", "vagrantfile"),
        *("rakefile", "gemfile", "cmakelists.txt", "build", "workspace", "go.mod", "pkgbuild", "meson.build"),
    }
)
# Written by people only now and then: they get what room is left.
_LAST_SUFFIXES: Final = frozenset({".json", ".jsonl", ".json5", ".xml", ".plist", ".po", ".pot", ".log", ".patch"})
# Copies of others' code. People do work in them (in Chromium nearly everything is in one), so they are not left out.
_COPIED: Final = frozenset(
    {
        *("_vendor", "vendor", "vendored", "_vendored", "third_party", "thirdparty", "third-party"),
        *("externals", "_externals", "extern", "_extern"),
    }
)
# Nobody types these, and nothing that is typed looks like them. Lock files: names and hashes that a tool wrote.
_NOT_WRITTEN_ENDINGS: Final = (
    *(".lock", "-lock.json", "-lock.yaml", ".lock.json", ".lock.hcl", "npm-shrinkwrap.json", "go.sum", ".lockfile"),
    *(".min.js", ".min.css", ".min.mjs", ".bundle.js", "package.resolved"),
)
_NOT_WRITTEN_SUFFIXES: Final = frozenset(
    {
        *(".map", ".svg", ".csv", ".tsv", ".ipynb", ".geojson", ".ndjson", ".snap", ".lockb", ".pbxproj"),
        # Binary: reading tells, too, but until then they would take the room of text.
        *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".ico", ".icns", ".tif", ".tiff", ".psd", ".avif"),
        *(".mp3", ".mp4", ".wav", ".ogg", ".flac", ".mov", ".avi", ".webm", ".ttf", ".otf", ".woff", ".woff2", ".eot"),
        *(".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar", ".jar", ".war", ".whl", ".egg", ".deb"),
        *(".pyc", ".pyo", ".pyd", ".so", ".dylib", ".dll", ".exe", ".o", ".obj", ".a", ".lib", ".class", ".wasm"),
        *(".bin", ".dat", ".db", ".sqlite", ".sqlite3", ".npy", ".npz", ".pt", ".pth", ".onnx", ".safetensors"),
        *(".h5", ".parquet", ".pkl", ".pickle", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".odt"),
    }
)

_LONGEST_LINE: Final = 5_000  # bytes
_MEAN_LINE: Final = 200
_DIGIT_SHARE: Final = 0.25  # of the visible bytes, as for training
_LEAST_VISIBLE: Final = 400  # bytes: a share of less than this says nothing
_DIGITS: Final = b"0123456789"
_NOT_VISIBLE: Final = bytes(range(33))


@dataclass(frozen=True)
class ProjectFile:
    """A file that is worth reading. `path` is relative to the project, with `/`; what is not UTF-8 in it is escaped."""

    path: str
    size: int  # bytes on the disk
    mtime_ns: int


@dataclass(frozen=True)
class ProjectFiles:
    """The files to read, the most telling first, and how many were left out for which reason.

    A directory that was not entered counts as one.
    """

    files: tuple[ProjectFile, ...]
    left_out: dict[str, int] = field(default_factory=dict)


def project_files(root: Path, *, near: Sequence[str] = (), cap: int = DEFAULT_CAP) -> ProjectFiles:
    """Return the files under `root` that the project's memory reads, the most telling first, `cap` bytes in all.

    `near` are the paths of the open documents, relative to `root`. Takes seconds in a large tree. A directory that
    is not there has no files.
    """
    top = _absolute(root)
    left_out: Counter[str] = Counter()
    found = _ask_git(top, left_out)
    if not found:  # also where the repository around `root` ignores it: who opens it means it
        left_out.clear()
        found = list(_walk(top, left_out))
    distance = _Distance(near)
    ranked = sorted(found, key=lambda file: (_rank(file.path), distance.to(file.path), -file.mtime_ns, file.path))
    files = []
    room = cap
    for file in ranked:
        if file.size > room:  # a smaller one may fit
            left_out[OVER_CAP] += 1
            continue
        if is_secret(f"{top}/{file.path}"):  # asked last: of all questions it takes longest
            left_out[SECRET] += 1
            continue
        room -= file.size
        files.append(file)
    return ProjectFiles(tuple(files), dict(left_out))


class ProjectFilter:
    """Says of one file whether the project's memory reads it, by the .gitignore files as they are at that moment.

    It agrees with `project_files`, but for files that git tracks although they are ignored: git's index is not read
    here. A file that was listed goes on being read. The cap is not looked at. For one thread at a time. The first look
    asks git for the user's settings, which may take a while; making the filter costs nothing.
    """

    def __init__(self, root: Path) -> None:
        self._top = _absolute(root)
        self._given = Path(os.path.abspath(root)).as_posix().rstrip("/")  # noqa: PTH100 (links must stay in it)

    @cached_property
    def _tree(self) -> Tree:
        return Tree(self._top, _user_rules(self._top))

    def look(self, path: str | Path) -> ProjectFile | None:
        """Return the file at `path` (absolute, or relative to the project) if it is one to read, else None."""
        relative = self.relative(path)
        if relative is None:
            return None
        *directories, name = relative.split("/")
        place = self._tree.root()
        try:
            for directory in directories:
                status = os.lstat(f"{place.path}/{directory}")
                if not stat.S_ISDIR(status.st_mode) or self._tree.why_not(place, directory, directory=True):
                    return None
                place = self._tree.enter(place, directory)
            status = os.lstat(f"{place.path}/{name}")
        except (OSError, ValueError):
            return None
        if _unfit(name, status) or is_secret(f"{place.path}/{name}") or self._tree.why_not(place, name, False):
            return None
        return ProjectFile(relative, status.st_size, status.st_mtime_ns)

    def relative(self, path: str | Path) -> str | None:
        """Return `path` as a file's path would be given here, whether there is one or not; None outside the project."""
        whole = Path(os.path.normpath(Path(f"{self._top}/", path))).as_posix()
        for top in (self._top, self._given):
            if whole.startswith(f"{top}/"):
                return whole[len(top) + 1 :]
        return None


def read_text(root: Path, file: ProjectFile) -> bytes | None:
    r"""Return the text of a file, with `\n` as line end and without byte order mark; None if it is none to learn from.

    That is: it is gone, unreadable, too large by now, not a file inside `root`, not UTF-8, blank, or no text that
    anybody wrote (binary, minified, tables of numbers). A generated file that reads like source is text: the names
    in it are those that the project calls.
    """
    try:
        descriptor = _open_inside(Path(root), file.path)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES or b"\0" in data:
        return None
    text = normalise(data.removeprefix(b"\xef\xbb\xbf"))
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if not text.strip() or _is_data(text) else text


# --- which files there are ---


def _absolute(root: Path) -> str:
    """Return where `root` is, with `/` (none at the end) and no link in it: git, too, looks around from there."""
    return Path(os.path.realpath(root)).as_posix().rstrip("/")


def _ask_git(top: str, left_out: Counter[str]) -> list[ProjectFile] | None:
    """Return the files that git tracks or would track; None if there is no git or it has nothing to say here."""
    tracked = _git(top, "ls-files", "-z", "--cached")
    if tracked is None:
        return None
    others = _git(top, "ls-files", "-z", "--others", "--exclude-standard")
    if others is None:
        left_out[SLOW] += 1
    # Of a conflict git names every side. What is tracked comes first, should there be too much.
    names = dict.fromkeys(name for name in tracked.split(b"\0") if name)
    known = len(names)
    names.update(dict.fromkeys(name for name in (others or b"").split(b"\0") if name))
    folders = _Folders(top)
    files = []
    for index, raw in enumerate(names):
        if index >= MAX_ENTRIES:
            left_out[TOO_MANY] += len(names) - index
            break
        path = os.fsdecode(raw)
        reason = folders.why_not(path, tracked=index < known)
        if reason is None:
            try:
                status = os.lstat(f"{top}/{path}")
            except (OSError, ValueError):
                left_out[GONE] += 1
                continue
            reason = _unfit(path[path.rfind("/") + 1 :], status)
        if reason is not None:
            left_out[reason] += 1
            continue
        files.append(ProjectFile(path, status.st_size, status.st_mtime_ns))
    return files


class _Folders:
    """What speaks against the directories that git names files of; each is looked at once."""

    def __init__(self, top: str) -> None:
        self._top = top
        # Path -> (why no file in it is read, why no untracked one is, whether there is a .gitignore for it).
        self._known: dict[str, tuple[str | None, str | None, bool]] = {"": (None, None, Tree(top).root().tended)}

    def why_not(self, path: str, tracked: bool) -> str | None:
        if path.endswith("/"):  # git names a repository in the repository so
            return ELSEWHERE
        always, untracked, _ = self._look(path.rpartition("/")[0])
        return always if tracked else untracked

    def _look(self, path: str) -> tuple[str | None, str | None, bool]:
        known = self._known.get(path)
        if known is None:
            above, _, name = path.rpartition("/")
            always, untracked, tended = self._look(above)
            whole = f"{self._top}/{path}"
            if always is None:
                # git goes by its index: what was a directory then may be a link to anywhere now.
                if Path(whole).is_symlink():
                    always = LINK
                elif name in NEVER_ENTERED or Path(whole, VIRTUAL_ENVIRONMENT).is_file():
                    always = VENDORED
            if untracked is None:
                untracked = always or (VENDORED if not tended and made_by_tools(name) else None)
            known = always, untracked, tended or _is_regular(f"{whole}/.gitignore")
            self._known[path] = known
        return known


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _git(top: str, *arguments: str) -> bytes | None:
    """Return what git says in the directory `top`, or None if it fails, takes too long, or is not installed.

    A repository can name programs in its settings that git then runs, and can make git fetch what it lacks: neither
    happens here.
    """
    program = shutil.which("git")
    # Not one that the project brought along, where the search path begins with the current directory.
    if program is None or _absolute(Path(program)).startswith(f"{top}/"):
        return None
    settings = (
        "core.fsmonitor=false",
        f"core.hooksPath={os.devnull}",
        "safe.bareRepository=explicit",
        "submodule.recurse=false",
    )
    # An editor that git started (`git commit`) hands on which repository and index that was about.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _GIT_CONFIGURATION
    }
    environment |= {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
    }
    options = [word for setting in settings for word in ("-c", setting)]
    try:
        done = subprocess.run(
            [program, "--no-pager", *options, *arguments],
            cwd=f"{top}/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _user_rules(top: str) -> str | None:
    """Return the file with the user's own patterns, if git was told one."""
    said = _git(top, "config", "-z", "--type=path", "--get", "core.excludesFile")
    return os.fsdecode(said.rstrip(b"\0")) if said else None


def _walk(top: str, left_out: Counter[str]) -> Iterator[ProjectFile]:
    """Yield the files that git would track. The deepest come last, should there be too much."""
    tree = Tree(top, _user_rules(top))
    waiting: deque[Place] = deque([tree.root()])
    seen = 0
    while waiting:
        place = waiting.popleft()
        if seen >= MAX_ENTRIES:
            left_out[TOO_MANY] += 1 + len(waiting)
            return
        try:
            with os.scandir(f"{place.path}/") as scan:
                entries = list(scan)
        except OSError:
            left_out[GONE] += 1
            continue
        seen += len(entries)
        for entry in entries:
            try:
                directory = entry.is_dir(follow_symlinks=False)
                status = None if directory else entry.stat(follow_symlinks=False)
            except OSError:
                left_out[GONE] += 1
                continue
            reason = tree.why_not(place, entry.name, directory) or (status and _unfit(entry.name, status))
            if reason == IGNORED:  # git doesn't say how many those are
                continue
            if reason:
                left_out[reason] += 1
            elif status is None:
                waiting.append(tree.enter(place, entry.name))
            else:
                path = f"{place.path}/{entry.name}"[len(top) + 1 :]
                yield ProjectFile(path, status.st_size, status.st_mtime_ns)


# --- which of them are worth reading ---


def _unfit(name: str, status: os.stat_result) -> str | None:
    """Return why a file of that name and status is not read, or None."""
    if not stat.S_ISREG(status.st_mode):
        if stat.S_ISDIR(status.st_mode):  # where git tracks a file: a submodule
            return ELSEWHERE
        return LINK if stat.S_ISLNK(status.st_mode) else SPECIAL
    if status.st_size == 0:
        return EMPTY
    if status.st_size > MAX_FILE_BYTES:
        return LARGE
    name = name.lower()
    if name.endswith(_NOT_WRITTEN_ENDINGS) or _suffix(name) in _NOT_WRITTEN_SUFFIXES:
        return NOT_WRITTEN
    return None


def _suffix(name: str) -> str:
    return name[name.rfind(".") :] if "." in name else ""


def _rank(path: str) -> int:
    """Return 0 for source and documents, 1 for other files, 2 for what gets the room that is left."""
    *directories, name = path.lower().split("/")
    suffix = _suffix(name)
    if suffix in _LAST_SUFFIXES or not _COPIED.isdisjoint(directories):
        return 2
    return 0 if suffix in SOURCE_SUFFIXES or name in _SOURCE_NAMES else 1


class _Distance:
    """How many directories one goes up and down from a file to the nearest of the open documents."""

    def __init__(self, near: Sequence[str]) -> None:
        self._near = {PurePosixPath(path).parent.parts for path in near}
        self._known: dict[str, int] = {}

    def to(self, path: str) -> int:
        directory = path.rpartition("/")[0]
        known = self._known.get(directory)
        if known is None:
            parts = tuple(directory.split("/")) if directory else ()
            known = min((_steps(parts, other) for other in self._near), default=0)
            self._known[directory] = known
        return known


def _steps(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    common = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        common += 1
    return len(one) + len(other) - 2 * common


# --- reading ---


def _open_inside(root: Path, path: str) -> int:
    """Open the file at `path` under `root` for reading, through no link, without waiting for a pipe's other end.

    Raises `OSError` where that can't be.
    """
    *directories, name = path.split("/")
    if not name or any(part in ("", ".", "..") for part in directories):
        raise OSError(f"{path!r} is not a path below a directory")
    flags = os.O_RDONLY
    for wanted in ("O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, wanted, 0)
    if os.open not in os.supports_dir_fd:
        whole = root / path
        if Path(os.path.realpath(whole)) != Path(os.path.realpath(root)) / path:
            raise OSError(f"{path!r} leads through a link")
        return os.open(whole, flags)
    enter = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
    here = os.open(root, enter)
    try:
        for directory in directories:
            there = os.open(directory, enter | flags & getattr(os, "O_NOFOLLOW", 0), dir_fd=here)
            os.close(here)
            here = there
        return os.open(name, flags, dir_fd=here)
    finally:
        os.close(here)


def _is_data(text: bytes) -> bool:
    """Say whether `text` looks written by a program: lines that nobody types, or mostly digits."""
    lines = text.removesuffix(b"\n").split(b"\n")
    if len(text) > _MEAN_LINE * len(lines) or max(map(len, lines)) > _LONGEST_LINE:
        return True
    visible = text.translate(None, _NOT_VISIBLE)
    digits = len(visible) - len(visible.translate(None, _DIGITS))
    return len(visible) >= _LEAST_VISIBLE and digits > _DIGIT_SHARE * len(visible)
