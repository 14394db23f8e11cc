"""What a reader of code keeps in mind, byte by byte: how deep in brackets, in a string, in a comment, in parameters.

Each is a number that holds once the byte has been read, found by a real parser: Python's own `tokenize`, and for other
languages pygments, which rich brings along. What a network makes of it is `neurons`'.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float32]

BRACKETS: Final = "bracket depth"
INDENTATION: Final = "indentation"
STRING: Final = "inside a string"
COMMENT: Final = "inside a comment"
COLUMN: Final = "position in the line"
IDENTIFIER: Final = "inside an identifier"
PARAMETERS: Final = "inside a function's parameters"
PROPERTIES: Final = (BRACKETS, INDENTATION, STRING, COMMENT, COLUMN, IDENTIFIER, PARAMETERS)

_Token = tuple[str, int, int, str]  # kind, bytes [start, end), text
_OTHER, _NAME, _DEFINED, _OPERATOR = "other", "name", "defined", "operator"


class UnparsedError(ValueError):
    """The text is not of its language."""


def properties_of(text: bytes, language: str) -> dict[str, Numbers]:
    """Return each of `PROPERTIES` after every byte of `text`  # [bytes] each; line ends are `\\n`.

    Raises `UnparsedError` where no parser takes the text.
    """
    tokens = _python(text) if language == "python" else _by_pygments(text, language)
    found = {name: np.zeros(len(text), dtype=np.float32) for name in PROPERTIES}
    found[COLUMN], found[INDENTATION] = _of_lines(text)
    depth = parameters = 0  # the latter is the depth in the parameters that we are in; 0: in none
    defined = False  # the token before is the name of a function that is being defined
    changes = {name: np.zeros(len(text), dtype=np.float32) for name in (BRACKETS, PARAMETERS)}
    for kind, start, end, characters in tokens:
        if kind == STRING:
            found[STRING][start : end - 1] = 1  # the last quote ends it
        elif kind == COMMENT:
            found[COMMENT][start:end] = 1
        elif kind in (_NAME, _DEFINED):
            found[IDENTIFIER][start:end] = 1
        elif kind == _OPERATOR:
            for place, character in zip(range(start, end), characters, strict=False):
                if character in "([{":
                    depth += 1
                    changes[BRACKETS][place] = 1
                    if defined and character == "(" and not parameters:
                        parameters = depth
                        changes[PARAMETERS][place] = 1
                elif character in ")]}" and depth:
                    if parameters == depth:
                        parameters = 0
                        changes[PARAMETERS][place] = -1
                    depth -= 1
                    changes[BRACKETS][place] = -1
        if characters.strip():
            defined = kind == _DEFINED
    found |= {name: change.cumsum(dtype=np.float32) for name, change in changes.items()}
    return found


def _of_lines(text: bytes) -> tuple[Numbers, Numbers]:
    """Return how many bytes of its line have been read after each byte, and how many of them indent it."""
    symbols = np.frombuffer(text, dtype=np.uint8)
    places = np.arange(len(symbols))
    ends = symbols == ord("\n")
    starts = np.maximum.accumulate(np.where(np.concatenate((np.zeros(1, dtype=bool), ends[:-1])), places, 0))
    if not len(symbols):
        return np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32)
    column = places - starts + 1
    blank = (symbols == ord(" ")) | (symbols == ord("\t"))
    # As long as all of the line was blank: the number of others so far is that before the line.
    others = np.cumsum(~blank)
    leading = others == (others - ~blank)[starts]
    indentation = np.zeros(len(symbols), dtype=np.int64)
    np.add.at(indentation, starts[leading], 1)
    column[ends] = 0
    return column.astype(np.float32), np.minimum(column, indentation[starts]).astype(np.float32)


def _python(text: bytes) -> Iterator[_Token]:
    lines = text.split(b"\n")
    offsets = np.concatenate(([0], np.cumsum([len(line) + 1 for line in lines])))
    decoded = [line.decode("utf-8", errors="replace") for line in lines]

    def offset(place: tuple[int, int]) -> int:
        row, column = place
        if row > len(lines):
            return len(text)
        return min(len(text), int(offsets[row - 1]) + len(decoded[row - 1][:column].encode("utf-8")))

    previous = ""
    started: int | None = None  # where a string with fields began, which comes in pieces
    nested = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text.decode("utf-8"), newline="\n").readline):
            start, end = offset(token.start), offset(token.end)
            name = tokenize.tok_name[token.type]
            if name in ("FSTRING_START", "TSTRING_START"):
                started = start if nested == 0 else started
                nested += 1
            elif name in ("FSTRING_END", "TSTRING_END"):
                nested -= 1
                if nested == 0 and started is not None:
                    yield STRING, started, end, token.string
            elif nested:
                continue
            elif token.type == tokenize.STRING:
                yield STRING, start, end, token.string
            elif token.type == tokenize.COMMENT:
                yield COMMENT, start, end, token.string
            elif token.type == tokenize.NAME:
                kind = _OTHER if keyword.iskeyword(token.string) else _DEFINED if previous == "def" else _NAME
                yield kind, start, end, token.string
            elif token.type == tokenize.OP:
                yield _OPERATOR, start, end, token.string
            previous = token.string
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError) as error:
        raise UnparsedError(str(error)) from error


def _by_pygments(text: bytes, language: str) -> Iterable[_Token]:
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment, Name, Operator, Punctuation, String
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(_LEXERS.get(language, language), ensurenl=False, stripnl=False)
    except ClassNotFound as error:
        raise UnparsedError(f"there is no lexer for {language}") from error
    kinds = (
        (String, STRING), (Comment, COMMENT), (Name.Function, _DEFINED), (Name, _NAME), (Punctuation, _OPERATOR),
        (Operator, _OPERATOR),
    )  # fmt: skip
    tokens: list[_Token] = []
    end = 0
    for token, characters in lexer.get_tokens(text.decode("utf-8", errors="replace")):
        start, end = end, end + len(characters.encode("utf-8"))
        kind = next((kind for of, kind in kinds if token in of), _OTHER)
        if kind in (STRING, COMMENT) and tokens and tokens[-1][0] == kind and tokens[-1][2] == start:
            tokens[-1] = kind, tokens[-1][1], end, tokens[-1][3] + characters  # lexers cut strings at escapes
        else:
            tokens.append((kind, start, end, characters))
    if end != len(text):
        raise UnparsedError(f"the lexer for {language} changed the text")
    return tokens


# What pygments calls a language that LSP knows by another id.
_LEXERS: Final = {"shellscript": "bash", "javascriptreact": "jsx", "typescriptreact": "tsx", "objective-c": "objc"}
