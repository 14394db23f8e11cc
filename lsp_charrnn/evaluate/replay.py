"""Replayed typing: a file is typed again, key by key, by an author who takes every suggestion that is right.

The rules, the same for the server and for the baseline:

- A window is a stretch of a file: some line up to the end of the line in which `keys` keys are reached, without
  the line end, which in the middle stands behind the cursor already. What stands before it is given. At the `end`
  of a file nothing follows the cursor; in the `middle`, the file's rest.
- Every character is one key, however many bytes it has. The white space that a line begins with costs none,
  with suggestions or without: it arrives together with the line end before it, as an editor's auto-indent
  would have it.
- After each key the suggester is asked once, at the cursor. What it answers is what the author sees.
- A suggestion is taken with one key if all of it is what the author wrote next and it saves more than one
  key. With `words`, if only its beginning is right, its next word is taken with one key, if that word is what
  the author wrote next and saves more than one key. Words are cut as VS Code's "accept next word" cuts them
  (`next_word`).
- saved = 1 - keys with suggestions / keys without.
- Suggestions are distinct: what is left of one after typing along, or after a word of it, is still the same
  one. acceptance = distinct ones of which something was taken / distinct ones shown.

The author neither looks ahead nor errs. Who suggests (the server: `client`; the baseline: `words`) and what
the figures are (`typing`) is left to others.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, Protocol, get_args

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.heldout import rank_of, take_in_turn
from lsp_charrnn.train.corpus import SourceFile

Place = Literal["end", "middle"]
Accept = Literal["all", "words"]
PLACES: Final[tuple[Place, ...]] = get_args(Place)
ACCEPTS: Final[tuple[Accept, ...]] = get_args(Accept)

WINDOWS: Final = 24  # enough for a standard error of 1.5 points; more take minutes
KEYS: Final = 400

_INDENT: Final = re.compile(r"^[ \t]+", re.MULTILINE)
_BLANK_LINES: Final = re.compile(r"(?:\n[ \t]*)+\Z")
_WORD: Final = re.compile(r"\w+")
_BLANKS: Final = re.compile(r"\s+")


@dataclass(frozen=True)
class Window:
    """The stretch text[start:end] of a file, to be typed."""

    project: str
    path: str
    language: str
    text: str
    start: int
    end: int

    @property
    def line(self) -> int:
        """The line at which typing starts, counted from 1."""
        return self.text.count("\n", 0, self.start) + 1


class Suggester(Protocol):
    """Something that suggests text at the cursor of one document at a time."""

    name: str

    async def open(self, window: Window, before: str, after: str) -> None:
        """The window's file is opened holding `before` and `after`, with the cursor between them."""

    async def suggest(self, typed: str) -> str:
        """Return what is suggested, or "", now that `typed` went in and the cursor stands behind it."""

    async def close(self) -> None:
        """The document is closed."""


@dataclass(frozen=True)
class Replay:
    """What happened while one window was typed."""

    window: Window
    keys_without: int
    keys_with: int
    shown: int  # requests that were answered by a suggestion
    distinct: int
    taken: int  # distinct suggestions of which something was taken
    latencies: tuple[float, ...]  # seconds, one a request


def key_costs(text: str) -> list[int]:
    """Return for each offset the keys that the text before it costs.  # [len(text) + 1]"""
    costs = [1] * len(text)
    for indent in _INDENT.finditer(text):
        costs[indent.start() : indent.end()] = [0] * (indent.end() - indent.start())
    return [0, *accumulate(costs)]


def next_word(text: str) -> str:
    """Return what one key of "accept next word" takes of a suggestion, by VS Code's rule.

    That is the word it begins with, or else all up to the next word or through the next blanks, whichever is
    shorter.
    """
    word = _WORD.search(text)
    end = len(text) if word is None else word.start() or word.end()
    blanks = _BLANKS.search(text)
    return text[: end if blanks is None else min(end, blanks.end())]


def draw_windows(files: Sequence[SourceFile], *, count: int = WINDOWS, keys: int = KEYS) -> list[Window]:
    """Return `count` windows of `keys` keys, one a file; fewer if there are not so many files.

    The projects come in turn, and within a project a file is as likely as it is long, for that is where the
    typing was done. A window starts at any line of its file that leaves enough to type. The same files always
    give the same windows. Raises `CorpusError` if no file is long enough.
    """
    if count < 1 or keys < 1:
        raise CorpusError("At least one file and one key must be typed.")
    windows: list[Window] = []
    for file in take_in_turn(files, _rank_by_size):
        window = window_of(file, keys)
        if window is not None:
            windows.append(window)
        if len(windows) == count:
            break
    if not windows:
        raise CorpusError(f"No file is long enough to type {keys} keys of it: name more files, or ask for fewer keys.")
    return windows


def _rank_by_size(file: SourceFile) -> float:
    # The smallest of these numbers is a file's with a chance in proportion to its size (an exponential race).
    return -math.log(rank_of(file)) / max(len(file.text), 1)


def window_of(file: SourceFile, keys: int, *, line: int | None = None) -> Window | None:
    """Return the window of `file` that starts at `line`, or None if too little follows.

    Lines count from 1; by default the file's name draws one of those that leave enough to type. Where a line end is
    the key that reaches `keys`, the window is shorter by it, and by blank lines before it: in the middle there is a
    line end behind the cursor already, and after another one the author would type in front of the next line.
    """
    text = file.text.decode("utf-8")
    costs = key_costs(text)
    starts = [0, *(match.end() for match in re.finditer(r"\n", text))]
    starts = [start for start in starts if costs[-1] - costs[start] >= keys]
    if line is None and starts:
        line = int(rank_of(file) * len(starts)) + 1
    if line is None or line > len(starts):
        return None
    start = _after_indent(text, starts[line - 1])
    target = costs[start] + keys
    end = next(offset for offset in range(start, len(text) + 1) if costs[offset] >= target)
    typed = text[: end - 1] + text[end - 1 :].partition("\n")[0]
    end = len(_BLANK_LINES.sub("", typed))
    return Window(file.project, file.path, file.language, text, start, end) if end > start else None


async def replay(
    window: Window,
    suggester: Suggester,
    *,
    accept: Accept = "all",
    place: Place = "end",
    progress: Callable[[int], None] | None = None,
    judged: Callable[[bool], None] | None = None,
) -> Replay:
    """Type `window` with `suggester` by the rules above. `progress` is called with the keys typed so far; `judged` when
    a distinct suggestion is first shown, with whether all of it is what the author wrote next."""
    text = window.text if place == "end" else window.text[: window.end]
    costs = key_costs(window.text)
    cursor, keys, shown_count, distinct, taken = window.start, 0, 0, 0, 0
    shown, used = "", False  # what the author sees, and whether some of it was taken before
    latencies: list[float] = []
    await suggester.open(window, text[:cursor], window.text[len(text) :])
    while cursor < window.end:
        accepted = _accepted(shown, text, cursor, costs, accept)
        if accepted and not used:
            taken, used = taken + 1, True
        after = _after_indent(text, cursor + (accepted or 1))
        typed = text[cursor:after]
        cursor, keys = after, keys + 1
        started = time.perf_counter()
        answer = await suggester.suggest(typed)
        latencies.append(time.perf_counter() - started)
        if answer:
            shown_count += 1
            if not (shown.startswith(typed) and shown[len(typed) :] == answer):
                distinct, used = distinct + 1, False
                if judged is not None:
                    judged(text.startswith(answer, cursor))
        shown = answer
        if progress is not None:
            progress(keys)
    await suggester.close()
    without = costs[cursor] - costs[window.start]
    return Replay(window, without, keys, shown_count, distinct, taken, tuple(latencies))


def _accepted(shown: str, text: str, cursor: int, costs: Sequence[int], accept: Accept) -> int:
    """Return how many characters of `shown` the author takes with the next key; 0 if they type a key
    instead."""

    def worth_it(part: str) -> bool:
        return text.startswith(part, cursor) and costs[cursor + len(part)] - costs[cursor] > 1

    if worth_it(shown):
        return len(shown)
    if accept == "words":
        word = next_word(shown)
        if worth_it(word):
            return len(word)
    return 0


def _after_indent(text: str, offset: int) -> int:
    """Return where the cursor stands once the line's indentation has come by itself."""
    line = text.rfind("\n", 0, offset) + 1
    indent = _INDENT.match(text, line)
    return max(offset, indent.end()) if indent is not None else offset
