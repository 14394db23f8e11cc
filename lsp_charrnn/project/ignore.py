"""What git would pass over, told without git: .gitignore files, .git/info/exclude, and the user's own list.

pathspec reads each pattern. In which order patterns and files have their say is kept here, as gitignore(5) has it: the
deepest file first, in a file the last pattern, and each pattern about the name at hand only, since a directory that
is ignored is never entered. (`?` is a character here, and a byte in git.) Where there is no .gitignore at all, what
tools leave behind is told by its name.

Which of the other files are worth reading is `files`' business, and so is asking git itself.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pathspec import GitIgnoreSpec

IGNORED: Final = "ignored"
VENDORED: Final = "not the project's own"
ELSEWHERE: Final = "in a repository of its own"

# Nobody writes in these by hand, tracked or not.
NEVER_ENTERED: Final = frozenset(
    {
        *(".hg", ".svn", ".bzr", ".jj", ".sl", "CVS"),
        *("node_modules", "bower_components", "site-packages", "dist-packages", "__pycache__"),
    }
)
VIRTUAL_ENVIRONMENT: Final = "pyvenv.cfg"  # a directory with this file holds other people's packages
# Made by tools, unless somebody who wrote a .gitignore left them out of it; so are directories with a leading dot.
_MADE_BY_TOOLS: Final = frozenset({"build", "dist", "target", "out", "coverage", "htmlcov", "venv"})

_LARGEST: Final = 1_000_000  # bytes of a .gitignore that are read: more is no list of patterns
# Python's regular expressions try all ways to share a name among the stars: with more than these, one name of 255
# characters, put there on purpose, could take hours.
_MOST_STARS: Final = 3  # in one part of a pattern
_MOST_DOUBLE_STARS: Final = 3  # in all of it


def made_by_tools(name: str) -> bool:
    """Say whether a directory of that name is left out where there is no .gitignore that could say so."""
    return name in _MADE_BY_TOOLS or name.startswith(".")


def is_repository(directory: str) -> bool:
    """Say whether `directory` is the top of a git work tree (also one that was added with `git worktree`)."""
    # Not by `Path`, which raises for a name that is too long.
    return os.path.isfile(f"{directory}/.git/HEAD") or os.path.isfile(f"{directory}/.git")  # noqa: PTH113


# --- one file of patterns ---


@dataclass(frozen=True)
class _Pattern:
    regex: re.Pattern[str]
    ignore: bool  # or, with a leading `!`, take back
    directories: bool  # says nothing about files
    inside: bool  # `a/**` speaks of what is in `a`, not of `a`


class Rules:
    """The patterns of one file, the last one first. They are relative to the file's directory."""

    def __init__(self, text: bytes) -> None:
        self._named: list[tuple[int, _Pattern]] = []  # without a slash: about a name at any depth
        self._placed: list[tuple[int, _Pattern]] = []
        lines = os.fsdecode(text.removeprefix(b"\xef\xbb\xbf")).split("\n")
        for number, line in enumerate(lines):
            self._add(number, re.sub(r"(?<!\\) +$", "", line.removesuffix("\r")))
        self._named.reverse()
        self._placed.reverse()

    def _add(self, number: int, line: str) -> None:
        if line.startswith("#"):
            return
        parts, negated = _bounded(line)
        if parts is None:
            return
        try:
            patterns = list(GitIgnoreSpec.from_lines([("!" if negated else "") + "/".join(parts)]).patterns)
        except ValueError:  # git passes over what is no pattern
            return
        if not patterns or patterns[0].include is None or patterns[0].regex is None:
            return
        directories = parts[-1] == "" and len(parts) > 1
        if directories:
            parts = parts[:-1]
        parts = [part for index, part in enumerate(parts) if part != "**" or parts[index - 1 : index] != ["**"]]
        if parts[:2] == ["", "**"]:  # at any depth, and so the leading slash says nothing
            parts = parts[1:]
        pattern = _Pattern(patterns[0].regex, not negated, directories, len(parts) > 1 and parts[-1] == "**")
        named = len(parts) == 1 or (len(parts) == 2 and parts[0] == "**" and not pattern.inside)
        (self._named if named else self._placed).append((number, pattern))

    def verdict(self, path: str, directory: bool) -> bool | None:
        """Say whether the patterns ignore `path`, which is relative to their file; None where none is about it."""
        # What a pattern may contain is anything but a line end; a name may contain that, too.
        path = path.replace("\n", "\x1f")
        name = path[path.rfind("/") + 1 :]
        slash = "/" if directory else ""
        best, ignore = -1, None
        for number, pattern in self._named:
            if (directory or not pattern.directories) and pattern.regex.search(name + slash):
                best, ignore = number, pattern.ignore
                break
        for number, pattern in self._placed:
            if number < best:
                break
            if pattern.directories and not directory:
                continue
            subject = path if pattern.inside else path + slash
            found = pattern.regex.search(subject)
            # pathspec's patterns match what lies below a directory, too; git's don't: `!/src` takes back no file in it.
            if found and (pattern.inside or found.end() == len(subject)):
                ignore = pattern.ignore
                break
        return ignore


def _bounded(line: str) -> tuple[list[str] | None, bool]:
    """Return the parts of a line's pattern and whether it is negated. One with too many stars ends where they begin.

    A pattern that is cut ignores more than it says, and so one that takes back must not be: it is passed over (None).
    """
    negated = line.startswith("!")
    parts = line.removeprefix("!").split("/")
    doubles = 0
    for index, part in enumerate(parts):
        doubles += part == "**"
        stars = list(re.finditer(r"\*+", part))
        if doubles > _MOST_DOUBLE_STARS or len(stars) > _MOST_STARS:
            part = part[: stars[_MOST_STARS - 1].end()] if len(stars) > _MOST_STARS else "*"
            return (None if negated else [*parts[:index], part]), negated
    return parts, negated


class RuleFiles:
    """Files of patterns, each read once and again when it changes."""

    def __init__(self) -> None:
        self._read: dict[str | Path, tuple[tuple[int, int, int], Rules | None]] = {}

    def get(self, path: str | Path, *, links: bool = False) -> Rules | None:
        """Return the patterns of the file at `path`; None if there are none. git follows no link to a .gitignore."""
        try:
            status = Path(path).stat() if links else os.lstat(path)
        except (OSError, ValueError):
            self._read.pop(path, None)
            return None
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._read.get(path)
        if known is None or known[0] != seen:
            known = seen, _read_rules(path) if stat.S_ISREG(status.st_mode) else None
            self._read[path] = known
        return known[1]


def _read_rules(path: str | Path) -> Rules | None:
    try:
        with Path(path).open("rb") as file:
            return Rules(file.read(_LARGEST))
    except OSError:
        return None


# --- the tree ---


@dataclass(frozen=True)
class Place:
    """A directory, and what holds for the names in it."""

    path: str
    rules: tuple[tuple[str, Rules], ...] = ()  # and the directory that they are relative to, the deepest last
    tended: bool = False  # there is a .gitignore here or above, whose author has said what tools make

    def ignores(self, name: str, directory: bool) -> bool:
        """Say whether git would ignore `name` in this directory."""
        for base, rules in reversed(self.rules):
            verdict = rules.verdict(f"{self.path}/{name}"[len(base) + 1 :], directory)
            if verdict is not None:
                return verdict
        return False


class Tree:
    """A project's directory, as git would see it. Paths are absolute, with `/` between names and none at the end.

    `user_rules` is the file with the user's own patterns (git's setting core.excludesFile).
    """

    def __init__(self, root: str, user_rules: str | None = None) -> None:
        self._root = root
        self._files = RuleFiles()
        self._top = next((path for path in _upwards(root) if is_repository(path)), None)
        configured = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        self._user_rules = Path(user_rules or f"{configured}/git/ignore").expanduser()
        if self._top is not None and self._ignores_root(self._top):
            # The user opened a directory that the repository around it ignores: a project of its own.
            self._top = None

    def root(self) -> Place:
        """Return the project's directory, by the rules as they are now."""
        if self._top is None:
            return self._with_own_rules(Place(self._root))
        place = self._top_of_repository(self._top)
        for name in self._root[len(self._top) :].split("/"):
            if name:
                place = self._with_own_rules(Place(f"{place.path}/{name}", place.rules, place.tended))
        return place

    def why_not(self, place: Place, name: str, directory: bool) -> str | None:
        """Return why `name` in `place` is passed over, None if it is not."""
        if name == ".git":  # a file, in a work tree that was added and in a submodule
            return IGNORED
        if directory:
            if name in NEVER_ENTERED:
                return VENDORED
            path = f"{place.path}/{name}"
            if is_repository(path):
                # To git a repository in a repository is one entry. In a plain directory it is a project like others.
                return ELSEWHERE if self._top is not None else None
            if Path(f"{path}/{VIRTUAL_ENVIRONMENT}").is_file() or (not place.tended and made_by_tools(name)):
                return VENDORED
        return IGNORED if place.ignores(name, directory) else None

    def enter(self, place: Place, name: str) -> Place:
        """Return the directory `name` in `place`, which `why_not` has nothing against."""
        path = f"{place.path}/{name}"
        if self._top is None and is_repository(path):
            return self._top_of_repository(path)
        return self._with_own_rules(Place(path, place.rules, place.tended))

    def _ignores_root(self, top: str) -> bool:
        place = self._top_of_repository(top)
        for name in self._root[len(top) :].split("/"):
            if name:
                if place.ignores(name, directory=True):
                    return True
                place = self._with_own_rules(Place(f"{place.path}/{name}", place.rules, place.tended))
        return False

    def _top_of_repository(self, path: str) -> Place:
        shared = [self._user_rules, _git_directory(Path(f"{path}/")) / "info" / "exclude"]
        rules = tuple((path, found) for file in shared if (found := self._files.get(file, links=True)))
        return self._with_own_rules(Place(path, rules))

    def _with_own_rules(self, place: Place) -> Place:
        own = self._files.get(f"{place.path}/.gitignore")
        return place if own is None else Place(place.path, (*place.rules, (place.path, own)), tended=True)


def _upwards(path: str) -> Iterable[str]:
    return (parent.as_posix().rstrip("/") for parent in (Path(path), *Path(path).parents))


def _git_directory(top: Path) -> Path:
    """Return where the repository of the work tree at `top` keeps what its work trees share (gitrepository-layout)."""
    directory = top / ".git"
    try:
        if directory.is_file():
            directory = top / _first_line(directory).removeprefix("gitdir:").strip()
        if (directory / "commondir").is_file():
            directory /= _first_line(directory / "commondir").strip()
    except (OSError, ValueError):
        pass
    return directory


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return os.fsdecode(file.readline(4096))
