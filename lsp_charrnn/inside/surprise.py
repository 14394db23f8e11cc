"""What surprises a model in files: the tokens that are far less likely than their surroundings, and what was expected.

It is found by `engine.surprise`; here it becomes lines for people, JSON, and a page of its own. The model is the one
that is served, with the memories of the document and of the project around it.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.engine.surprise import Surprise, Token, Unlikely
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.symbols import normalise

_MOST: Final = 12.0  # bits of excess, where the colour is full


@dataclass(frozen=True)
class Place:
    """An unlikely token in a file; line and column are counted from 1, the column in characters."""

    file: str
    line: int
    column: int
    text: str
    instead: str  # the token that was expected; empty where only its end surprised
    bits: float  # what it cost
    excess: float  # more than was expected, where it begins or ends
    whole_line: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {**asdict(self), "bits": round(self.bits, 2), "excess": round(self.excess, 2)}


@dataclass(frozen=True)
class Read:
    """A file that was read: its text, what its tokens cost, and which of them are unlikely."""

    file: str
    text: bytes
    tokens: tuple[Token, ...]
    places: tuple[Place, ...]


def read_surprise(
    model: Model, file: str, text: bytes, *, path: str, memory: bool = True, project: Sequence[Counts] = ()
) -> Read:
    """Read the text of a `file`, whose model's header is `path`; `project` counts the other files of its project."""
    text = normalise(text)
    document = (Counts.of_texts([text]),) if memory else ()
    surprise = Surprise.of_file(model, path, text, document=document, project=project)
    places = tuple(_place(file, text, one) for one in surprise.unlikely())
    return Read(file, text, tuple(surprise.tokens()), places)


def _place(file: str, text: bytes, one: Unlikely) -> Place:
    start = text.rfind(b"\n", 0, one.token.start) + 1
    end = text.find(b"\n", start)
    line = text[start : len(text) if end < 0 else end].decode("utf-8", errors="replace")
    before = text[start : one.token.start].decode("utf-8", errors="replace")
    number = text.count(b"\n", 0, start) + 1
    return Place(file, number, len(before) + 1, one.text, one.instead, one.token.bits, one.token.excess, line)


def surprise_page(reads: Sequence[Read], model: str) -> str:
    """Return a page, one HTML file that loads nothing: the texts, their tokens shaded by excess."""
    parts = [_HEAD.replace("%TITLE%", html.escape(", ".join(read.file for read in reads)))]
    for read in reads:
        told = f"{len(read.places)} unlikely tokens" if len(read.places) != 1 else "one unlikely token"
        parts.append(
            f"<h1>{html.escape(read.file)} <small>{told}, by the model {html.escape(model)}</small></h1>\n<pre>"
        )
        starts = {(place.line, place.column): place for place in read.places}
        end, line, begin = 0, 1, 0
        for token in read.tokens:
            between = read.text[end : token.start]
            parts.append(html.escape(between.decode("utf-8", errors="replace")))
            if b"\n" in between:
                line += between.count(b"\n")
                begin = end + between.rfind(b"\n") + 1
            column = len(read.text[begin : token.start].decode("utf-8", errors="replace")) + 1
            parts.append(_shaded(read.text, token, starts.get((line, column))))
            end = token.end
        parts.append(html.escape(read.text[end:].decode("utf-8", errors="replace")) + "</pre>")
    return "".join(parts) + "\n</body>\n</html>\n"


def _shaded(text: bytes, token: Token, place: Place | None) -> str:
    characters = html.escape(text[token.start : token.end].decode("utf-8", errors="replace"))
    strength = min(1.0, max(0.0, token.excess) / _MOST)
    if place is None and strength < 0.05:
        return characters
    title = f"{token.bits:.1f} bits, {token.excess:.1f} more than was expected where it begins or ends"
    if place is not None and place.instead:
        title += f"; expected: {place.instead}"
    mark = ' class="odd"' if place is not None else ""
    return f'<span{mark} style="--s:{strength:.2f}" title="{html.escape(title)}">{characters}</span>'


_HEAD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<meta name="color-scheme" content="light dark">
<title>%TITLE% – surprise</title>
<style>
body { margin: 20px; font: 14px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; }
h1 { font-size: 16px; } small { font-weight: normal; opacity: .7; }
pre { font: 13px/1.55 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap; tab-size: 4; }
span { background: rgb(205 40 110 / calc(var(--s) * .65)); border-radius: 2px; }
span.odd { outline: 1.5px solid rgb(205 40 110); }
</style>
</head>
<body>
"""
