"""What a reader keeps in mind, told by parsers: each property beside the text, a digit a byte."""

from __future__ import annotations

import pytest

from lsp_charrnn.inside import syntax
from lsp_charrnn.inside.syntax import UnparsedError, properties_of


def digits(text: str, name: str, language: str = "python") -> str:
    return "".join(f"{value:.0f}" for value in properties_of(text.encode(), language)[name])


PYTHON = [
    (syntax.BRACKETS, "f((a), [1])\n", "012211122100"),
    (syntax.BRACKETS, "s = '(' # [\n", "000000000000"),
    (syntax.INDENTATION, "a:\n  bc\n\nd\n", "00012220000"),
    (syntax.COLUMN, "ab\n c\n", "120120"),
    (syntax.STRING, "x = 'ab' + \"\"\n", "00001110000100"),
    (syntax.STRING, "'''a\nb'''\n", "11111111" + "00"),
    (syntax.COMMENT, "a # b\nc\n", "00111000"),
    (syntax.IDENTIFIER, "if ab: c()\n", "00011001000"),
    (syntax.IDENTIFIER, "ü = 1\n", "1100000"),  # of two bytes
    (syntax.PARAMETERS, "def f(a, b=(1)):\n", "00000111111111000"),
    (syntax.PARAMETERS, "f(a)\n", "00000"),
]


@pytest.mark.parametrize(("name", "text", "expected"), PYTHON)
def test_python(name: str, text: str, expected: str) -> None:
    assert digits(text, name) == expected


def test_a_string_with_fields_is_a_string() -> None:
    assert digits('x = f"a{b}c"\n', syntax.STRING) == "0000" + "1" * 7 + "00"


OTHERS = [
    ("c", syntax.COMMENT, "a; /* b */ c\n", "0001111111000"),
    ("c", syntax.BRACKETS, "f(a[1]);\n", "011221000"),
    ("javascript", syntax.STRING, "x = 'ab';\n", "0000111000"),
    ("c", syntax.PARAMETERS, "int f(int a) {\n}\n", "00000111111" + "000000"),
]


@pytest.mark.parametrize(("language", "name", "text", "expected"), OTHERS)
def test_other_languages(language: str, name: str, text: str, expected: str) -> None:
    assert digits(text, name, language) == expected


@pytest.mark.parametrize("text", ["", "\n"])
def test_nothing_is_no_problem(text: str) -> None:
    assert {digits(text, name) for name in syntax.PROPERTIES} == {"0" * len(text)}


def test_what_is_no_python_is_refused() -> None:
    with pytest.raises(UnparsedError):
        properties_of(b"x = (\n", "python")
    with pytest.raises(UnparsedError):
        properties_of(b"x", "no such language")
