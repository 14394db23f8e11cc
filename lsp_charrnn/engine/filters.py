r"""What must not be shown: texts that repeat what is there already, loop, or say nothing. And what to cut from others.

Each filter looks at one candidate and its surroundings and returns the text to show, shortened or empty (nothing).
Texts have `\n` line ends. Probabilities and lengths are left to `decode`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Surroundings:
    r"""The text before and after the cursor (enough of it), with `\n` line ends."""

    before: bytes
    after: bytes

    @property
    def line_before(self) -> bytes:
        """The cursor's line up to the cursor."""
        return self.before.rpartition(b"\n")[2]

    @property
    def line_after(self) -> bytes:
        """The cursor's line from the cursor on."""
        return self.after.partition(b"\n")[0]


_COPIES: Final = 4  # of the same words in a row: no text, but a model gone round in circles
_LONGEST_UNIT: Final = 60  # bytes
_LETTER: Final = re.compile(rb"\w")
_TELLING: Final = re.compile(rb"\w.*\w", re.DOTALL)  # a line worth calling a repetition: more than a bracket


def without_overlap(text: bytes, around: Surroundings) -> bytes:
    """Cut the end of `text` that the rest of the line already holds: `x)` before `)` becomes `x`."""
    rest = around.line_after.rstrip()
    if not rest:
        return text
    for made in (text, text.rstrip(b" ")):  # `x) ` too
        for length in range(min(len(made), len(rest)), 0, -1):
            if made.endswith(rest[:length]):
                return made[:-length]
    return text


def without_following_lines(text: bytes, around: Surroundings) -> bytes:
    """Cut `text` where its next line is the line that follows the cursor's already."""
    following = around.after.partition(b"\n")[2].partition(b"\n")[0]
    if not _TELLING.search(following):
        return text
    lines = text.split(b"\n")
    for index, line in enumerate(lines[1:], start=1):
        if line.rstrip() == following.rstrip():
            return b"\n".join(lines[:index])
    return text


def not_the_line_before(text: bytes, around: Surroundings) -> bytes:
    """Drop a text that makes the cursor's line a copy of the line before it."""
    lines = around.before.split(b"\n")
    if len(lines) < 2 or not _TELLING.search(lines[-2]):
        return text
    first, newline, _ = text.partition(b"\n")
    made = lines[-1] + first + (b"" if newline else around.line_after)
    return b"" if made.rstrip() == lines[-2].rstrip() else text


def not_a_loop(text: bytes, around: Surroundings) -> bytes:
    """Drop a text that, with what stands before it, ends in four copies of the same words."""
    tail = around.before[-_COPIES * _LONGEST_UNIT :] + text
    for length in range(2, _LONGEST_UNIT + 1):
        unit = tail[-length:]
        if tail.endswith(unit * _COPIES) and _LETTER.search(unit):
            return b""
    return text


def not_blank(text: bytes, around: Surroundings) -> bytes:
    """Cut blanks at the end but for one space after a token, and drop what holds nothing else."""
    words = text.rstrip()
    return words + b" " if words and text == words + b" " else words


FILTERS: Final[tuple[Callable[[bytes, Surroundings], bytes], ...]] = (
    without_overlap,
    without_following_lines,
    not_the_line_before,
    not_a_loop,
    not_blank,
)


def filtered(text: bytes, around: Surroundings) -> bytes:
    """Return what is left of `text` after all filters; empty: show nothing."""
    for look in FILTERS:
        text = look(text, around)
        if not text:
            break
    return text
