"""Planted mistakes: one-token slips in Python, of the kinds that people make and compilers let pass.

What is planted is drawn by the file's name alone, always the same, and what is left is still Python. How well they are
found is `surprise`'s.
"""

from __future__ import annotations

import ast
import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

WRONG_NAME: Final = "wrong name"
SWAPPED: Final = "swapped argument"
OPERATOR: Final = "wrong operator"
MISSING_NOT: Final = "missing not"
RETURN: Final = "wrong return value"
KINDS: Final = (WRONG_NAME, SWAPPED, OPERATOR, MISSING_NOT, RETURN)

_APART: Final = 200  # bytes between two mistakes of a file, at least

_OTHER_OPERATOR: Final = {
    b"==": b"!=", b"!=": b"==", b"<": b">", b">": b"<", b"<=": b">=", b">=": b"<=", b"+": b"-", b"-": b"+", b"*": b"+",
    b"and": b"or", b"or": b"and", b"is": b"is not", b"in": b"not in",
}  # fmt: skip
_COMPARISONS: Final = {
    ast.Eq: b"==", ast.NotEq: b"!=", ast.Lt: b"<", ast.Gt: b">", ast.LtE: b"<=", ast.GtE: b">=", ast.Is: b"is",
    ast.In: b"in",
}  # fmt: skip
_ARITHMETIC: Final = {ast.Add: b"+", ast.Sub: b"-", ast.Mult: b"*"}


@dataclass(frozen=True)
class Replacement:
    """Bytes [start, end) of a text that are to be others; `told` are those of the new text that are the mistake."""

    start: int
    end: int
    new: bytes
    told: tuple[int, int]  # in `new` and what follows it


@dataclass(frozen=True)
class Mistake:
    """A mistake in a text, and the bytes of it that a reader would point at."""

    kind: str
    spans: tuple[tuple[int, int], ...]


def plant(text: bytes, name: str, most: int) -> tuple[bytes, list[Mistake]]:
    """Return the text with at most so many mistakes in it, of all kinds in turn; none where it is not Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text, []
    draw = random.Random(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest())
    source = _Source(text, tree)
    waiting = {kind: list(find(source, draw)) for kind, find in _FINDERS.items()}
    for found in waiting.values():
        draw.shuffle(found)
    chosen: list[tuple[str, tuple[Replacement, ...]]] = []
    while len(chosen) < most and any(waiting.values()):
        for kind, found in waiting.items():
            while found and len(chosen) < most:
                edits = found.pop()
                if _is_free(edits, chosen) and _is_python(_applied(text, edits)):
                    chosen.append((kind, edits))
                    break
    chosen.sort(key=lambda one: one[1][0].start)
    changed = _applied(text, [edit for _, edits in chosen for edit in edits])
    mistakes, moved = [], 0
    for kind, edits in chosen:
        spans = []
        for edit in edits:
            begin = edit.start + moved
            spans.append((begin + edit.told[0], begin + edit.told[1]))
            moved += len(edit.new) - (edit.end - edit.start)
        mistakes.append(Mistake(kind, tuple(spans)))
    return changed, mistakes


def _is_free(edits: tuple[Replacement, ...], chosen: list[tuple[str, tuple[Replacement, ...]]]) -> bool:
    low, high = edits[0].start, edits[-1].end
    return all(high + _APART < others[0].start or others[-1].end + _APART < low for _, others in chosen)


def _applied(text: bytes, edits: tuple[Replacement, ...] | list[Replacement]) -> bytes:
    pieces, end = [], 0
    for edit in edits:
        pieces += [text[end : edit.start], edit.new]
        end = edit.end
    return b"".join([*pieces, text[end:]])


def _is_python(text: bytes) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


class _Source:
    """A text, its syntax, and where a node lies in bytes."""

    def __init__(self, text: bytes, tree: ast.Module) -> None:
        self.text = text
        self.nodes = list(ast.walk(tree))
        self._lines = [0]
        for line in text.split(b"\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)
        self.names = sorted({node.id for node in self.nodes if isinstance(node, ast.Name) and len(node.id) > 1})

    def span(self, node: ast.expr) -> tuple[int, int]:
        """Return the bytes of a node."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.lineno - 1] + node.col_offset, self._lines[node.end_lineno - 1] + node.end_col_offset

    def operator_between(self, left: ast.expr, right: ast.expr, operator: bytes) -> tuple[int, int] | None:
        """Return the bytes of an operator between two nodes, if nothing but blanks and brackets stand beside it."""
        low, high = self.span(left)[1], self.span(right)[0]
        word = operator.isalpha()
        pattern = rb"[\s()\\]*(\b%s\b)[\s()\\]*" if word else rb"[\s()\\]*(%s)[\s()\\]*"
        match = re.fullmatch(pattern % re.escape(operator), self.text[low:high])
        return None if match is None else (low + match.start(1), low + match.end(1))

    def is_simple(self, node: ast.expr) -> bool:
        """Say whether a node is one token: a name or a constant on one line."""
        start, end = self.span(node)
        piece = self.text[start:end]
        return isinstance(node, (ast.Name, ast.Constant)) and re.fullmatch(rb"[\w.]+", piece) is not None


def _replaced(span: tuple[int, int], new: bytes) -> Replacement:
    return Replacement(*span, new, (0, len(new)))


def _wrong_names(source: _Source, draw: random.Random) -> Iterator[tuple[Replacement, ...]]:
    for node in source.nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and len(source.names) > 1:
            other = draw.choice(source.names)
            if other != node.id:
                yield (_replaced(source.span(node), other.encode()),)


def _swapped_arguments(source: _Source, _: random.Random) -> Iterator[tuple[Replacement, ...]]:
    for node in source.nodes:
        if isinstance(node, ast.Call) and len(node.args) > 1:
            one, other = node.args[:2]
            if source.is_simple(one) and source.is_simple(other):
                spans = source.span(one), source.span(other)
                first, second = (source.text[start:end] for start, end in spans)
                if first != second:
                    yield _replaced(spans[0], second), _replaced(spans[1], first)


def _wrong_operators(source: _Source, _: random.Random) -> Iterator[tuple[Replacement, ...]]:
    for node in source.nodes:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            operator = _COMPARISONS.get(type(node.ops[0]))
            sides = node.left, node.comparators[0]
        elif isinstance(node, ast.BinOp):
            operator, sides = _ARITHMETIC.get(type(node.op)), (node.left, node.right)
        elif isinstance(node, ast.BoolOp):
            operator, sides = b"and" if isinstance(node.op, ast.And) else b"or", (node.values[0], node.values[1])
        else:
            continue
        span = None if operator is None else source.operator_between(*sides, operator)
        if operator is not None and span is not None:
            new = _OTHER_OPERATOR[operator]
            # What was added or changed is pointed at: in `is not` the second word.
            told = (3, 6) if new == b"is not" else (0, 3) if new == b"not in" else (0, len(new))
            yield (Replacement(*span, new, told),)


def _missing_nots(source: _Source, _: random.Random) -> Iterator[tuple[Replacement, ...]]:
    for node in source.nodes:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            start, end = source.span(node)
            match = re.match(rb"not +(\w+)", source.text[start:end])
            if match is not None:  # the word behind it is what is odd now
                yield (Replacement(start, start + match.start(1), b"", (0, len(match[1]))),)
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            low, high = source.span(node.left)[1], source.span(node.comparators[0])[1]
            between = source.text[low:high]
            match = re.match(rb" is (not +)(\w+)", between) if isinstance(node.ops[0], ast.IsNot) else None
            if match is None and isinstance(node.ops[0], ast.NotIn):
                match = re.match(rb" (not +)(in)\b", between)
            if match is not None:
                yield (Replacement(low + match.start(1), low + match.end(1), b"", (0, len(match[2]))),)


def _wrong_returns(source: _Source, draw: random.Random) -> Iterator[tuple[Replacement, ...]]:
    for node in source.nodes:
        if isinstance(node, ast.Return) and node.value is not None and source.is_simple(node.value):
            span = source.span(node.value)
            before = source.text[span[0] : span[1]]
            names = [name.encode() for name in source.names]
            other = {b"True": b"False", b"False": b"True"}.get(before) or draw.choice([b"None", b"True", *names])
            if other != before:
                yield (_replaced(span, other),)


_FINDERS: Final[dict[str, Callable[[_Source, random.Random], Iterator[tuple[Replacement, ...]]]]] = {
    # The rarest first: names are everywhere, and would take the others' places.
    MISSING_NOT: _missing_nots,
    RETURN: _wrong_returns,
    SWAPPED: _swapped_arguments,
    OPERATOR: _wrong_operators,
    WRONG_NAME: _wrong_names,
}
