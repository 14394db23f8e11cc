"""Random edits as an editor might send them, and as none should: text of every kind, positions anywhere."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.fuzz.oracle import ClientText, units_of

Json = dict[str, Any]

# LSP's line ends, what others take for one, characters of one to four bytes and combining ones, lone surrogates, code.
PIECES: Final = (
    *("\n", "\r\n", "\r", "\n", "\n\r", "\r\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\x7f"),
    *(
        "é",
        "ß",
        "中",
        "€",
        "😀",
        "\U0010ffff",
        "e\u0301",
        "\U0001f469\u200d\U0001f467",
        "\ud83d",
        "\ude00",
        "\uffff",
        "\ufeff",
    ),
    *("a", "x", "_", " ", "    ", "\t", "(", ")", "'", '"', "def f(x):\n", "return x\n", "    value = function(a)\n"),
)
HUGE: Final = (2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63, 10**30)
NEGATIVE: Final = (-1, -2, -(2**31), -(2**63))
LONGEST: Final = 60_000  # characters of one insertion: several chunks


@dataclass
class Editing:
    """One document under edits; `most` is about how many characters it is kept at."""

    uri: str
    text: ClientText
    most: int
    language: str = "python"
    version: int = 1

    def changes(self, randomly: random.Random, count: int) -> list[Json]:
        """Return `count` changes, which the text has seen then."""
        made = []
        for _ in range(count):
            change = self._one(randomly)
            self.text.change([change])
            made.append(change)
        return made

    def whole(self, text: str) -> list[Json]:
        """Return the change that puts `text` in place of everything, which it has seen then."""
        change = {"text": text}
        self.text.change([change])
        return [change]

    def message(self, changes: list[Json]) -> Json:
        """Return the notification of `changes`."""
        self.version += 1
        return {
            "method": "textDocument/didChange",
            "params": {"textDocument": {"uri": self.uri, "version": self.version}, "contentChanges": changes},
        }

    def opening(self) -> Json:
        """Return the notification that opens the document."""
        item = {"uri": self.uri, "languageId": self.language, "version": self.version, "text": self.text.text}
        return {"method": "textDocument/didOpen", "params": {"textDocument": item}}

    def place(self, randomly: random.Random) -> Json:
        """Return a position: mostly in the text."""
        chance = randomly.random()
        if chance < 0.02:
            return {"line": randomly.choice(HUGE + NEGATIVE), "character": randomly.choice((0, 3, *HUGE, *NEGATIVE))}
        lines = self.text.line_count
        line = randomly.randrange(lines + 1) if chance < 0.5 else min(lines - 1, int(randomly.expovariate(0.2)))
        if chance > 0.97:
            return {"line": line, "character": randomly.choice(HUGE + NEGATIVE)}
        width = units_of(self.text.line(line), self.text.encoding) if line < lines else 0
        return {"line": line, "character": randomly.randint(0, width + 1)}

    def _one(self, randomly: random.Random) -> Json:
        size = len(self.text.text) if self.text.line_count < 50 or randomly.random() < 0.05 else 0
        chance = randomly.random()
        if chance < 0.0005 or size > 4 * self.most:
            return {"text": some_text(randomly, randomly.randint(0, self.most))}
        start = self.place(randomly)
        if chance < 0.55:  # typing
            end = start
        elif chance < 0.9 or size > self.most or self.text.line_count > self.most // 20:
            end = self.place(randomly)
            if chance < 0.8 and size <= self.most:  # near; else whatever lies between goes
                end = {**start, "character": start["character"] + randomly.randint(-3, 6)}
        else:
            end = {"line": start["line"] + randomly.randint(-2, 3), "character": randomly.randint(0, 40)}
        long = randomly.random() < 0.0005 and self.most > LONGEST
        new = some_text(randomly, LONGEST if long else randomly.choice((0, 1, 1, 1, 2, 4, 20)))
        return {"range": {"start": start, "end": end}, "text": new}


def some_text(randomly: random.Random, pieces: int) -> str:
    """Return a text of so many pieces, of few kinds if they are many."""
    if pieces > 1000:
        return "".join(randomly.choices(PIECES, k=1000)) * (pieces // 1000)
    return "".join(randomly.choices(PIECES, k=pieces))
