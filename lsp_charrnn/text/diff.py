"""A large edit as the small ones that it amounts to: a formatter that changed three lines then costs three lines.

Patience diff (Bram Cohen): lines that stand once before and once after, in the same order, stay, and what lies
between two of them is looked at in the same way. It need not find the fewest lines; its work grows with the lines,
whatever they are, where a longest common subsequence may take their square. Only whole lines are found again: within a
run of changed ones what is the same at either end is left out, and no more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from lsp_charrnn.text.document import Document, Edit

MOST_LINES: Final = 1_000_000  # before and after together, about a second; more are not compared
DEPTH: Final = 4  # times that the lines between two which stay are looked at again: more found nothing more
FEW: Final = 10  # where one line in so many differs from the one in its place, lines were changed in place
APART: Final = 16  # bytes; two edits nearer to each other are one: a blank line or a bracket saves nobody work

Run = tuple[int, int, int, int]  # lines [start, end) before that lines [start, end) after stand in place of


def smallest_edits(before: Document, edit: Edit, apart: int = APART) -> list[Edit]:
    """Return edits that do together what `edit` does to `before`, from the last place to the first.

    Two with fewer than `apart` bytes between them are one. Applied one after another they give the same text; as each
    lies before the ones already made, each is right for `before` as it stands, too. None parts a character; there is
    none if nothing changes. Together they are never more bytes than `edit.trimmed(before)`, which an edit of more than
    `MOST_LINES` lines is left at.
    """
    trimmed = edit.trimmed(before)
    if _bytes(trimmed) == 0:
        return []
    old = before.slice(trimmed.start, trimmed.end).splitlines()
    new = trimmed.new.splitlines()
    if not old or not new or len(old) == len(new) == 1 or len(old) + len(new) > MOST_LINES:
        return [trimmed]
    # Whole lines are compared: trimmed, the last line before might lack the end that it has after.
    start, end = _whole_lines(before, trimmed)
    old = before.slice(start, end).splitlines(keepends=True)
    text = b"".join((before.slice(start, trimmed.start), trimmed.new, before.slice(trimmed.end, end)))
    new = text.splitlines(keepends=True)
    starts = list(accumulate(map(len, old), initial=start))
    joined: list[Run] = []
    for first, last, low, high in changed_runs(old, new):
        if joined and starts[first] - starts[joined[-1][1]] < apart:
            first, _, low, _ = joined.pop()
        joined.append((first, last, low, high))
    edits = [
        Edit(starts[first], starts[last], b"".join(new[low:high])).trimmed(before)
        for first, last, low, high in reversed(joined)
    ]
    # Runs that were joined may have been one line, taken out above its like and put in below. And where lines were
    # parted or joined, whole ones may be more than the bytes between the first change and the last.
    edits = [edit for edit in edits if _bytes(edit) > 0]
    return edits if sum(map(_bytes, edits)) <= _bytes(trimmed) else [trimmed]


def _bytes(edit: Edit) -> int:
    """Return how many bytes an edit takes out and puts in."""
    return edit.end - edit.start + len(edit.new)


def _whole_lines(document: Document, edit: Edit) -> tuple[int, int]:
    """Return where the first line that `edit` touches starts, and where the line behind its last one does."""
    last = document.line_at(edit.end)
    end = document.line_bounds(last + 1)[0] if last + 1 < document.line_count else document.size
    return document.line_bounds(document.line_at(edit.start))[0], end


def changed_runs(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[Run]:
    """Return what to put in place of which lines of `old` to get `new`, from the first line to the last."""
    return list(_runs(old, new, 0, 0, DEPTH))


def _runs(old: Sequence[Hashable], new: Sequence[Hashable], before: int, after: int, depth: int) -> Iterator[Run]:
    """Yield the runs between two pieces of text that begin with the lines `before` and `after` of the whole."""
    same, behind = 0, 0
    room = min(len(old), len(new))
    while same < room and old[same] == new[same]:
        same += 1
    while behind < room - same and old[-1 - behind] == new[-1 - behind]:
        behind += 1
    old, new = old[same : len(old) - behind], new[same : len(new) - behind]
    before, after = before + same, after + same
    kept: list[tuple[int, int]] = []
    if old and new:
        if len(old) == len(new):
            kept = [(line, line) for line, (one, other) in enumerate(zip(old, new, strict=True)) if one == other]
        if depth > 0 and (len(old) - len(kept)) * FEW > len(old):
            kept = _in_order(_once_in_both(old, new)) or kept
    if not kept:
        if old or new:
            yield before, before + len(old), after, after + len(new)
        return
    first, low = 0, 0
    for last, high in (*kept, (len(old), len(new))):
        if first < last or low < high:
            yield from _runs(old[first:last], new[low:high], before + first, after + low, depth - 1)
        first, low = last + 1, high + 1


def _once_in_both(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return where in `old` and in `new` each line stands that is in both, and once in each; by `old`'s order."""
    places = _once(new)
    return [(place, places[line]) for line, place in _once(old).items() if line in places]


def _once(lines: Sequence[Hashable]) -> dict[Hashable, int]:
    """Return the place of each line that stands once in `lines`, in order."""
    places: dict[Hashable, int] = {}
    for place, line in enumerate(lines):
        places[line] = place if line not in places else -1
    return {line: place for line, place in places.items() if place >= 0}


def _in_order(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return as many `pairs`, which ascend by the first, as also ascend by the second."""
    lowest: list[int] = []  # the least second value with which a chain of each length ends
    ends: list[int] = []  # the pair that does
    previous: list[int] = []  # the pair before each in its chain
    for index, (_, place) in enumerate(pairs):
        length = bisect_left(lowest, place)
        previous.append(ends[length - 1] if length else -1)
        lowest[length : length + 1] = [place]
        ends[length : length + 1] = [index]
    chain: list[tuple[int, int]] = []
    index = ends[-1] if ends else -1
    while index >= 0:
        chain.append(pairs[index])
        index = previous[index]
    return chain[::-1]
