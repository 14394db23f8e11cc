"""Lines that look like keys or tokens, told by the detectors of the `detect-secrets` library.

Its detectors are asked for matches only, never to verify one: that would send the secret to its service.
The detectors for passwords by variable name and for public IP addresses are left out: both drop honest code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

# Asking two dozen pure-Python detectors about every line costs 0.5 s a megabyte. Each of them wants a run of
# characters that ordinary code seldom has, so only lines with such a run are shown to them: in a translated
# copy a run is a substring of one letter repeated, which is found at the speed of memory.
_RUN: Final = 20
_HEX_RUN: Final = 12  # the shortest that the hex entropy detector would call random, and a little


def _marking(characters: bytes) -> bytes:
    return bytes(ord("x") if byte in characters else ord(" ") for byte in range(256))


_DIGITS: Final = b"0123456789"
_MARK_HEX: Final = _marking(_DIGITS + b"abcdefABCDEF")
_MARK_TOKEN: Final = _marking(_DIGITS + b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_+/=-")
_HAS_DIGIT: Final = re.compile(rb"[0-9]")
_LONG_ENOUGH_WITHOUT_DIGITS: Final = 40
# One AWS key in thirty has no digit (its letters are those of base32), and is told by its beginning.
_BY_BEGINNING: Final = re.compile(rb"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[A-Z0-9]{16}|[rs]k_live_[A-Za-z0-9]{24}")
_USER_AND_PASSWORD: Final = re.compile(rb"://[^/\s:@]+:[^/\s:@]+@")
_LONGEST_KEY: Final = 8192  # bytes of a private key in PEM
_LEFT_OUT: Final = frozenset({"KeywordDetector", "IPPublicDetector"})


@cache
def _detectors() -> tuple[Any, ...]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    classes: dict[str, Any] = get_mapping_from_secret_type_to_class()
    return tuple(kind() for kind in classes.values() if kind.__name__ not in _LEFT_OUT)


def looks_secret(line: str) -> bool:
    """Say whether any detector finds a key or token in `line`."""
    for detector in _detectors():
        # The entropy detectors find every quoted string first, and weigh it after.
        limit = getattr(detector, "entropy_limit", None)
        for found in detector.analyze_string(line):
            if limit is None or detector.calculate_shannon_entropy(found) > limit:
                return True
    return False


def without_secrets(text: bytes) -> tuple[bytes, int]:
    """Return `text` without the lines that look like they hold a key, and how many those were."""
    lines = {text.rfind(b"\n", 0, at) + 1 for at in _suspects(text)}
    pieces, kept_from, dropped = [], 0, 0
    for start in sorted(lines):
        end = text.find(b"\n", start) + 1 or len(text)
        line = text[start:end]
        if start < kept_from or not looks_secret(line.decode("utf-8", "replace").rstrip()):
            continue
        if b"PRIVATE KEY" in line and b"-----END" not in line:  # the detector tells the first line of many
            last = text.find(b"-----END", end, end + _LONGEST_KEY)
            end = end if last < 0 else text.find(b"\n", last) + 1 or len(text)
        pieces.append(text[kept_from:start])
        dropped += text.count(b"\n", start, end) or 1
        kept_from = end
    pieces.append(text[kept_from:])
    return b"".join(pieces), dropped


def _suspects(text: bytes) -> Iterator[int]:
    """Yield a place on each line that is worth showing to the detectors."""
    for start, _ in _runs(text.translate(_MARK_HEX), _HEX_RUN):
        yield start
    for start, end in _runs(text.translate(_MARK_TOKEN), _RUN):
        if (
            end - start >= _LONG_ENOUGH_WITHOUT_DIGITS
            or _HAS_DIGIT.search(text, start, end)
            or _BY_BEGINNING.search(text, start, end)
        ):
            yield start
    for match in _USER_AND_PASSWORD.finditer(text):
        yield match.start()
    at = text.find(b"PRIVATE KEY")
    while at >= 0:
        yield at
        at = text.find(b"PRIVATE KEY", at + 1)


def _runs(marked: bytes, shortest: int) -> Iterator[tuple[int, int]]:
    wanted = b"x" * shortest
    start = marked.find(wanted)
    while start >= 0:
        end = marked.find(b" ", start)
        end = len(marked) if end < 0 else end
        yield start, end
        start = marked.find(wanted, end)
