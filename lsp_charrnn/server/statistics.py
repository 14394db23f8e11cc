"""Local counters of one client's session: shown, accepted, characters saved, latencies.

They live in memory, go nowhere but into the answer to `lspCharrnn.status`, and hold no text.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any, Final

_SHOWN_KEPT: Final = 512  # suggestions that can still be reported as accepted
_LATENCIES_KEPT: Final = 1_000


class Statistics:
    """Counts; called on the event loop only."""

    def __init__(self) -> None:
        self.requests = 0
        self.shown = 0
        self.accepted = 0
        self.characters_saved = 0
        self._last_id = 0
        self._characters: OrderedDict[str, int] = OrderedDict()  # opaque id of a suggestion → its characters
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)  # milliseconds

    def answered(self, milliseconds: float, *, shown: bool) -> None:
        """Count a request that was answered; `shown`: by a suggestion that was not on the screen before."""
        self.requests += 1
        self.shown += shown
        self._latencies.append(milliseconds)

    def register(self, characters: int) -> str:
        """Return an opaque id for a suggestion of so many characters, by which it may be reported as accepted."""
        self._last_id += 1
        name = f"{self._last_id:x}"
        self._characters[name] = characters
        if len(self._characters) > _SHOWN_KEPT:
            self._characters.popitem(last=False)
        return name

    def accept(self, name: str) -> bool:
        """Count the suggestion with that id as accepted, once; say whether it was known."""
        characters = self._characters.pop(name, None)
        if characters is None:
            return False
        self.accepted += 1
        self.characters_saved += characters
        return True

    def to_json(self) -> dict[str, Any]:
        """Return the counters as JSON data."""
        latencies = sorted(self._latencies)
        return {
            "requests": self.requests,
            "shown": self.shown,
            "accepted": self.accepted,
            "charactersSaved": self.characters_saved,
            "latencyMs": {f"p{p}": _percentile(latencies, p) for p in (50, 95, 99)},
        }


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that at least `percent` of all do not exceed; None of nothing."""
    if not ordered:
        return None
    return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 2)
