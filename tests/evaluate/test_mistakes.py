"""Planted mistakes are of the kinds they say, at the bytes they say, and leave Python behind."""

from __future__ import annotations

import ast

from lsp_charrnn.evaluate.mistakes import KINDS, MISSING_NOT, OPERATOR, RETURN, SWAPPED, WRONG_NAME, plant

FILLER = "# " + "-" * 220 + "\n"
PARTS = [
    "def first(alpha, beta):\n    return alpha\n",
    "largest = max(alpha, beta)\n",
    "if alpha == beta:\n    pass\n",
    "if not gamma:\n    pass\n",
    "if alpha is not None:\n    pass\n",
    "print(delta)\n",
    "ä = 'ü' if alpha < beta else ''\n",
]
TEXT = FILLER.join(["", *PARTS, ""]).encode()


def test_there_is_one_of_each_kind() -> None:
    changed, mistakes = plant(TEXT, "a.py", 5)
    assert {mistake.kind for mistake in mistakes} == set(KINDS)
    ast.parse(changed)
    assert changed != TEXT
    told = {mistake.kind: [changed[start:end].decode() for start, end in mistake.spans] for mistake in mistakes}
    assert told[SWAPPED] == ["beta", "alpha"]
    assert told[OPERATOR][0] in ("!=", ">")
    assert told[MISSING_NOT][0] in ("gamma", "None")
    assert told[RETURN] != ["alpha"]
    assert len(told[WRONG_NAME]) == 1


def test_mistakes_of_a_file_are_always_the_same() -> None:
    assert plant(TEXT, "a.py", 3) == plant(TEXT, "a.py", 3)
    assert plant(TEXT, "a.py", 3) != plant(TEXT, "b.py", 3)


def test_what_is_no_python_stays_as_it_is() -> None:
    assert plant(b"def (:\n", "a.py", 5) == (b"def (:\n", [])
    assert plant(b"", "a.py", 5) == (b"", [])


def test_all_but_the_mistakes_stays() -> None:
    changed, mistakes = plant(TEXT, "a.py", 1)
    (mistake,) = mistakes
    kept = changed.decode().splitlines()
    assert sum(one != other for one, other in zip(TEXT.decode().splitlines(), kept, strict=True)) == 1
    assert mistake.spans[0][1] <= len(changed)
