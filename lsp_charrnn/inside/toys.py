"""The toy tasks: lines whose end follows from their beginning, so that what must be remembered is known.

After E. Chen, "Exploring LSTMs" (2017). Here stands what the lines look like, and what is to be kept in mind at each of
their places. Learning them is left to `learning`; how well they are learned, and by which neurons, to `findings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.text.symbols import header

Symbols = npt.NDArray[np.int64]
Track = npt.NDArray[np.float64]  # what is to be kept in mind after each byte of a line; NaN: nothing in particular

_NAME: Final = np.frombuffer(b"abcdefghijklmnopqrstuvwxyzABXY0123456789/_.-", dtype=np.uint8)  # of files
_LONGEST_NAME: Final = 12
_LETTERS: Final = np.frombuffer(b"abc", dtype=np.uint8)  # to be copied


@dataclass(frozen=True)
class Line:
    """An example: `prompt` is given, `answer` must follow. The answer ends with the line."""

    prompt: bytes
    answer: bytes

    @property
    def text(self) -> bytes:
        """The whole line."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class Toy:
    """A task: how its lines are drawn, by a size, and which sizes a network learns from."""

    name: str
    about: str
    size: str  # what the size counts
    trained: range
    beyond: range
    hidden: int  # neurons, in one layer
    draw: Callable[[np.random.Generator, int], Line]
    tracks: Callable[[Line], dict[str, Track]]  # by what is kept in mind


@dataclass(frozen=True)
class Text:
    """A document as the network reads it: a header, and lines, the last of which is looked at."""

    symbols: bytes
    text: int  # offset of the first line
    line: int  # offset of the last one
    last: Line

    @property
    def answer(self) -> int:
        """Offset of the last line's answer."""
        return self.line + len(self.last.prompt)


def write(toy: Toy, random: np.random.Generator, size: int, *, before: int) -> Text:
    """Return a document with a line of `size`, and `before` it some lines of sizes that are learned from.

    Its name is drawn, too: a network that learns from such documents ignores what they are called.
    """
    name = random.choice(_NAME, random.integers(1, _LONGEST_NAME, endpoint=True))
    start = header(name.tobytes().decode())
    others = b"".join(toy.draw(random, int(random.choice(toy.trained))).text for _ in range(before))
    last = toy.draw(random, size)
    return Text(start + others + last.text, len(start), len(start + others), last)


def padded(texts: Sequence[Text]) -> Symbols:
    """Return documents side by side, [time, lanes], with zeros behind those that end early."""
    symbols = np.zeros((max(len(text.symbols) for text in texts), len(texts)), dtype=np.int64)
    for lane, text in enumerate(texts):
        symbols[: len(text.symbols), lane] = np.frombuffer(text.symbols, dtype=np.uint8)
    return symbols


# --- the four tasks ------------------------------------------------------------------------------------------


def _count(random: np.random.Generator, size: int) -> Line:
    return Line(b"a" * size + b"X", b"b" * size + b"\n")


def _count_selectively(random: np.random.Generator, size: int) -> Line:
    distractors = random.choice(3, size, p=(0.6, 0.3, 0.1))  # X after each a
    return Line(b"".join(b"a" + b"X" * int(n) for n in distractors) + b"Y", b"b" * size + b"\n")


def _remember(random: np.random.Generator, size: int) -> Line:
    letter = b"AB"[int(random.integers(2)) :][:1]
    return Line(letter + b"x" * size + b"Y", letter.lower() + b"\n")


def _copy(random: np.random.Generator, size: int) -> Line:
    letters = random.choice(_LETTERS, size).tobytes()
    return Line(letters + b"X", letters + b"\n")


def _still_to_write(line: Line) -> dict[str, Track]:
    """The number of b's that the line will want: up with each a, down with each b."""
    steps = np.array([{b"a"[0]: 1.0, b"b"[0]: -1.0}.get(byte, 0.0) for byte in line.text])
    track = steps.cumsum()
    track[-1] = np.nan  # the line is over
    return {"b's still to write": track}


def _letter(line: Line) -> dict[str, Track]:
    track = np.full(len(line.text), np.nan)
    track[: len(line.prompt)] = 1.0 if line.text.startswith(b"A") else -1.0
    return {"A or B": track}


def _next_letter(line: Line) -> dict[str, Track]:
    """Which letter comes next, from the X on: 1 for that letter and 0 for the others."""
    tracks = {}
    for letter in b"abc":
        track = np.full(len(line.text), np.nan)
        for place in range(len(line.prompt) - 1, len(line.text) - 2):  # after the last letter comes the line's end
            track[place] = line.text[place + 1] == letter
        tracks[f"{chr(letter)} comes next"] = track
    return tracks


TOYS: Final = {
    toy.name: toy
    for toy in (
        Toy(
            name="counter",
            about="aaaXbbb: as many b's as a's",
            size="a's",
            trained=range(1, 11),
            beyond=range(11, 31),
            hidden=10,
            draw=_count,
            tracks=_still_to_write,
        ),
        Toy(
            name="selective-counter",
            about="aaXaXaYbbbb: as many b's as a's, whatever X's there are between",
            size="a's",
            trained=range(1, 11),
            beyond=range(11, 31),
            hidden=10,
            draw=_count_selectively,
            tracks=_still_to_write,
        ),
        Toy(
            name="state",
            about="AxxxxYa, BxxxxYb: which letter it began with",
            size="x's",
            trained=range(1, 11),
            beyond=range(20, 101, 10),
            hidden=10,
            draw=_remember,
            tracks=_letter,
        ),
        Toy(
            name="copy",
            about="cabXcab: the letters again",
            size="letters",
            trained=range(3, 4),
            beyond=range(4, 7),
            hidden=24,
            draw=_copy,
            tracks=_next_letter,
        ),
    )
}
