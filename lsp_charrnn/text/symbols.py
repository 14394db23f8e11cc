"""The symbols that the model reads and writes: UTF-8 bytes, and a few specials that UTF-8 never uses.

A document is read as START, its header (the relative path, in UTF-8), HEADER_END, then its text with every
line end (`\\r\\n` and a lone `\\r` too) read as `\\n`. Nothing is ever out of vocabulary.

Which bytes may come next in UTF-8 is a small automaton, in tables that serve any number of lanes at once:
with `states` and `symbols` of shape [lanes], `UTF8_ALLOWED[states]` is the mask [lanes, 256] and
`UTF8_NEXT[states, symbols]` the next states. The tables know UTF-8 and nothing else: when a document may end
(START) is left to the decoder, and tokens to others.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

VOCABULARY: Final = 256
# Bytes from 0xF8 up never occur in UTF-8.
START: Final = 0xF8  # start of a document; predicted, it means "the document ends here"
HEADER_END: Final = 0xF9  # end of the header: the text follows
FIRST_SPECIAL: Final = 0xF8

MAX_HEADER: Final = 120  # bytes of path kept, from its end: what is nearest the file says most


def header(path: str) -> bytes:
    """Return what precedes a document's text: START, the last `MAX_HEADER` bytes of `path`, HEADER_END.

    `path` is relative to the project and uses forward slashes. A cut never leaves half a character.
    """
    name = path.replace("\\", "/").encode("utf-8", errors="replace")[-MAX_HEADER:]
    name = name.decode("utf-8", errors="ignore").encode("utf-8")
    return bytes([START]) + name + bytes([HEADER_END])


def normalise(text: bytes, *, after_cr: bool = False) -> bytes:
    r"""Return `text` with `\r\n` and a lone `\r` read as `\n`.

    `after_cr` says that the byte before `text` was a `\r`, so that a leading `\n` belongs to a line end
    that has been read already. This makes reading in pieces equal to reading at once.
    """
    if after_cr and text.startswith(b"\n"):
        text = text[1:]
    if b"\r" not in text:
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def to_symbols(data: bytes) -> npt.NDArray[np.int64]:
    """Return `data` as the model's input, one symbol a byte.  # [len(data)]"""
    return np.frombuffer(data, dtype=np.uint8).astype(np.int64)


# States of the UTF-8 automaton: what the rest of the character must be (RFC 3629, section 4).
UTF8_BOUNDARY: Final = 0  # nothing: a character begins here
_ONE, _TWO, _THREE = 1, 2, 3  # so many continuation bytes, 80 to BF
_AFTER_E0, _AFTER_ED, _AFTER_F0, _AFTER_F4 = 4, 5, 6, 7  # the second byte has a narrower range than 80 to BF

# (state, first byte, last byte) -> next state; whatever is not listed is forbidden.
_UTF8_TRANSITIONS: Final = {
    (UTF8_BOUNDARY, 0x00, 0x7F): UTF8_BOUNDARY,
    (UTF8_BOUNDARY, 0xC2, 0xDF): _ONE,  # C0 and C1 could only begin overlong forms of ASCII
    (UTF8_BOUNDARY, 0xE0, 0xE0): _AFTER_E0,
    (UTF8_BOUNDARY, 0xE1, 0xEC): _TWO,
    (UTF8_BOUNDARY, 0xED, 0xED): _AFTER_ED,
    (UTF8_BOUNDARY, 0xEE, 0xEF): _TWO,
    (UTF8_BOUNDARY, 0xF0, 0xF0): _AFTER_F0,
    (UTF8_BOUNDARY, 0xF1, 0xF3): _THREE,
    (UTF8_BOUNDARY, 0xF4, 0xF4): _AFTER_F4,
    (_ONE, 0x80, 0xBF): UTF8_BOUNDARY,
    (_TWO, 0x80, 0xBF): _ONE,
    (_THREE, 0x80, 0xBF): _TWO,
    (_AFTER_E0, 0xA0, 0xBF): _ONE,  # below: overlong
    (_AFTER_ED, 0x80, 0x9F): _ONE,  # above: surrogates
    (_AFTER_F0, 0x90, 0xBF): _TWO,  # below: overlong
    (_AFTER_F4, 0x80, 0x8F): _TWO,  # above: past U+10FFFF
}
UTF8_STATES: Final = 8


def _utf8_tables() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    allowed = np.zeros((UTF8_STATES, VOCABULARY), dtype=np.bool_)
    following = np.zeros((UTF8_STATES, VOCABULARY), dtype=np.uint8)
    for (state, first, last), to in _UTF8_TRANSITIONS.items():
        allowed[state, first : last + 1] = True
        following[state, first : last + 1] = to
    # A forbidden byte breaks the character off and is read as if one began there; where it cannot begin one
    # either (the specials cannot), the next byte may. So every state is a real one, with something allowed.
    following = np.where(allowed, following, following[UTF8_BOUNDARY])
    allowed.flags.writeable = following.flags.writeable = False
    return allowed, following


UTF8_ALLOWED, UTF8_NEXT = _utf8_tables()  # [states, 256] both: which bytes may come, and the state after each


def utf8_start_state(prefix: bytes) -> int:
    """Return the state of the UTF-8 automaton after `prefix`, which may hold specials and may begin anywhere.

    It is `UTF8_BOUNDARY` unless `prefix` ends within a character.
    """
    state = UTF8_BOUNDARY
    for byte in prefix[-3:]:  # an unfinished character has no more bytes than that
        state = int(UTF8_NEXT[state, byte])
    return state
