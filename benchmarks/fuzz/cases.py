"""Kept cases: what once broke the server, or might well have, as data: sent again, and judged by what must come of it.

A case is a JSON file with `about` (what went wrong), and `send`, a list of what is sent after `initialize`:

- `{"message": {...}}` a message, to which "jsonrpc" is added;
- `{"body": "..."}` a message's body as text, JSON or not; `{"bytes": "..."}` bytes as Latin-1 text, header and all;
- either with `"repeat": n`: the text between two `§` in it stands n times.

`answers` says what each id must be answered with: "result", or an error's code; "null" stands for an answer without id.
`closes` says that the server must close the connection. `text`, if given, is what the document `file:///fuzz/case.py`
must hold then, as the server's digest says; null: that the server says it does not know.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.fuzz.client import encoded, framed

Json = dict[str, Any]

URI: Final = "file:///fuzz/case.py"
_UNSAID: Final = object()


@dataclass(frozen=True)
class Case:
    """One kept case."""

    about: str
    data: bytes
    answers: dict[str, str | int]
    closes: bool
    text: Any = _UNSAID

    @property
    def says_text(self) -> bool:
        """Whether the document's text is to be compared."""
        return self.text is not _UNSAID

    def digest(self) -> tuple[int, str] | None:
        """Return size and SHA-256 of the text that must be there; None if it must not be known."""
        if self.text is None:
            return None
        data = str(self.text).encode("utf-8")
        return len(data), hashlib.sha256(data).hexdigest()

    def wrong(self, answers: Counter[tuple[str, str | int]]) -> list[str]:
        """Return which answers are missing, or are others than they must be."""
        expected = Counter(self.answers.items())
        return [f"{name}: {kind!r} is missing" for name, kind in (expected - answers).elements()] + [
            f"{name}: {kind!r} is too much" for name, kind in (answers - expected).elements()
        ]


def read_case(path: Path) -> Case:
    """Return the case in a file."""
    data = json.loads(path.read_text("utf-8"))
    sent = b"".join(_bytes_of(one) for one in data["send"])
    text = data.get("text", _UNSAID)
    return Case(data["about"], sent, data.get("answers", {}), data.get("closes", False), text)


def kind_of(answer: Json) -> tuple[str, str | int]:
    """Return the id of an answer, and "result" or the code of its error, as `Case.answers` has them."""
    error = answer.get("error")
    name = answer["id"] if isinstance(answer["id"], str) else json.dumps(answer["id"])
    return name, "result" if error is None else error["code"]


def _bytes_of(one: Json) -> bytes:
    if "message" in one:
        return encoded(one["message"])
    text, make = (one["body"], _framed_text) if "body" in one else (one["bytes"], _latin)
    return make(_repeated(text, one.get("repeat", 1)))


def _repeated(text: str, times: int) -> str:
    return re.sub("§([^§]*)§", lambda found: found[1] * times, text)


def _framed_text(text: str) -> bytes:
    return framed(text.encode("utf-8", errors="surrogatepass"))


def _latin(text: str) -> bytes:
    return text.encode("latin-1")
