"""The baseline of replayed typing: what an editor completes without any model."""

from __future__ import annotations

import re
from typing import Final

from lsp_charrnn.evaluate.replay import Window

_WORD: Final = re.compile(r"\w+")


class DocumentWords:
    """The baseline: the word before the cursor completed by the nearest word of the document that begins so.

    This is what editors do without a language server, when the first entry of the list is what one takes. It
    is asked from the first letter of a word on, which saves it most.
    """

    name = "document's words"

    def __init__(self, *, least_prefix: int = 1) -> None:
        self._least_prefix = least_prefix
        self._before = self._after = ""

    async def open(self, window: Window, before: str, after: str) -> None:
        """Take the document's text."""
        self._before, self._after = before, after

    async def suggest(self, typed: str) -> str:
        """Return the rest of the nearest word that begins with the one at the cursor."""
        self._before += typed
        start = len(self._before)
        while start and _is_word(self._before[start - 1]):
            start -= 1
        prefix = self._before[start:]
        if len(prefix) < self._least_prefix or prefix[0].isdigit():
            return ""
        above = _last_word(self._before[:start], prefix)
        below = _first_word(self._after, prefix)
        nearest = min((found for found in (above, below) if found is not None), default=(0, ""))
        return nearest[1]

    async def close(self) -> None:
        """Forget the document."""
        self._before = self._after = ""


def _is_word(character: str) -> bool:
    return character == "_" or character.isalnum()


def _last_word(text: str, prefix: str) -> tuple[int, str] | None:
    """Return (distance from the end, rest) of the last word in `text` that is longer than its `prefix`."""
    at = text.rfind(prefix)
    while at >= 0:
        rest = _WORD.match(text, at + len(prefix))
        if rest is not None and (at == 0 or not _is_word(text[at - 1])):
            return len(text) - at, rest[0]
        at = text.rfind(prefix, 0, at + len(prefix) - 1)
    return None


def _first_word(text: str, prefix: str) -> tuple[int, str] | None:
    """Return (distance from the start, rest) of the first word in `text` that is longer than its `prefix`."""
    at = text.find(prefix)
    while at >= 0:
        rest = _WORD.match(text, at + len(prefix))
        if rest is not None and (at == 0 or not _is_word(text[at - 1])):
            return at, rest[0]
        at = text.find(prefix, at + 1)
    return None
