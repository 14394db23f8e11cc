r"""What must not be shown: texts that repeat what is there already, loop, or say nothing. And what to cut from others.

Each filter looks at one candidate and its surroundings and returns the text to show: a beginning of the candidate, or
nothing. They go by signs alone. A light scanner tells strings, comments and brackets apart; it knows some families of
languages, needs no complete code, and where it is in doubt the text stays as it is. `agreement` is no filter: it says
how well a text leads into what follows it.

Texts have `\n` line ends. Probabilities and lengths are left to `decode`, files that nobody may look at to the server.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, takewhile
from typing import Final, NamedTuple, TypeAlias

# --- strings, comments and brackets


class _Lexicon(NamedTuple):
    """How a family of languages writes strings and comments. The keys are their first bytes."""

    signs: re.Pattern[bytes]  # brackets, and what may begin a string or a comment
    wholes: dict[int, re.Pattern[bytes]]  # one that is complete
    openers: dict[int, re.Pattern[bytes]]  # the beginning of one that is not


def _lexicon(kinds: Mapping[bytes, tuple[bytes, bytes]]) -> _Lexicon:
    return _Lexicon(
        re.compile(rb"[()\[\]{}" + b"".join(kinds) + rb"]"),
        {ord(first): re.compile(whole, re.DOTALL) for first, (whole, _) in kinds.items()},
        {ord(first): re.compile(opener) for first, (_, opener) in kinds.items()},
    )


# In all patterns [\w\x80-\xff] is what words are made of: letters outside ASCII are such bytes.
_LAST_LINE: Final = rb"(?=[^\n]*\Z)"  # only there may a string of one line be without its end
_DOUBLE: Final = (rb'"[^"\\\n]*(?:\\.[^"\\\n]*)*"', rb'"' + _LAST_LINE)
_SINGLE: Final = (  # and no apostrophe
    rb"(?<![\w\x80-\xff])'[^'\\\n]*(?:\\.[^'\\\n]*)*'",
    rb"(?<![\w\x80-\xff])'" + _LAST_LINE,
)
_CHARACTER: Final = (rb"'(?:[^'\\\n]{1,4}|\\[^\n]{1,9}?)'", rb"(?!)")  # no lifetime of Rust's
_BACKTICK: Final = (rb"`[^`\\]*(?:\\.[^`\\]*)*`", rb"`")
_SLASHES: Final = (rb"(?<!:)//[^\n]*(?=\n)|/\*.*?\*/", rb"(?<!:)//|/\*")  # not those of an address
_HASH: Final = (rb"(?<!\S)#[^\n]*(?=\n)", rb"(?<!\S)#")
_PYTHON: Final = _lexicon(
    {
        b'"': (rb'""".*?"""|"(?!"")[^"\\\n]*(?:\\.[^"\\\n]*)*"', rb'"""|"' + _LAST_LINE),
        b"'": (rb"'''.*?'''|'(?!'')[^'\\\n]*(?:\\.[^'\\\n]*)*'", rb"'''|'" + _LAST_LINE),
        b"#": (rb"#[^\n]*(?=\n)", rb"#"),
    }
)
_C: Final = _lexicon({b'"': _DOUBLE, b"'": _CHARACTER, b"/": _SLASHES})
_SCRIPT: Final = _lexicon({b'"': _DOUBLE, b"'": _SINGLE, b"`": _BACKTICK, b"/": _SLASHES})
_SHELL: Final = _lexicon({b'"': _DOUBLE, b"'": _SINGLE, b"#": _HASH})
_UNKNOWN: Final = _lexicon({b'"': _DOUBLE, b"'": _SINGLE, b"/": _SLASHES, b"#": _HASH})
_FAMILIES: Final = (
    (_PYTHON, "python cython"),
    (_C, "c cpp csharp cuda-cpp java kotlin objective-c objective-cpp proto rust scala swift zig"),
    (_SCRIPT, "css dart go javascript javascriptreact json jsonc less php scss svelte typescript typescriptreact vue"),
    (_SHELL, "elixir julia perl powershell r ruby shell shellscript toml yaml"),
)
_LEXICONS: Final = {language: lexicon for lexicon, languages in _FAMILIES for language in languages.split()}

_CLOSER_OF: Final = {ord("("): ord(")"), ord("["): ord("]"), ord("{"): ord("}")}
_ENDS: Final = {b"#": b"\n", b"//": b"\n", b"/*": b"*/"}  # comments; a string ends with what it begins with
_LONG: Final = frozenset((b'"""', b"'''", b"`", b"/*"))  # these go over lines

# Where it begins and ends, the bracket (0: a string or comment, whole, begun or ended), and the beginning of the string
# or comment that goes on behind it (empty: code does).
_Mark: TypeAlias = tuple[int, int, int, bytes]


def _marks(text: bytes, lexicon: _Lexicon, quote: bytes = b"") -> Iterator[_Mark]:
    """Yield the brackets, strings and comments of a text that begins within `quote`, or in code."""
    signs, wholes, openers = lexicon
    at = 0
    while True:
        found = (_within(quote) if quote else signs).search(text, at)
        if found is None:
            return
        start, at = found.span()
        first = text[start]
        if quote:
            if first in b"()[]{}":
                yield start, at, first, quote
            elif first != ord("\\"):
                quote = b""
                yield start, at, 0, quote
        elif first not in wholes:
            yield start, at, first, quote
        elif found := wholes[first].match(text, start):
            at = found.end()
            yield start, at, 0, quote
        elif found := openers[first].match(text, start):
            at, quote = found.end(), found[0]
            yield start, at, 0, quote


@functools.cache
def _within(quote: bytes) -> re.Pattern[bytes]:
    """Return the pattern of what counts within a string or comment: brackets, its end, and what is escaped."""
    pattern = rb"[()\[\]{}]|" + re.escape(_ENDS.get(quote, quote))
    if quote not in _ENDS:
        pattern += rb"|\\."
    if quote not in _LONG:
        pattern += rb"|\n"
    return re.compile(pattern, re.DOTALL)


# What an open bracket wants: its closer, at the indentation of the line where the bracket's statement begins.
_Wanted: TypeAlias = tuple[int, int]
# What is there: a closer, its column, and whether it is in line with what stands before it. In the middle of a line it
# may close anything; where it begins one, only what wants it at this column, or in line with what is in the brackets.
_Closer: TypeAlias = tuple[int, int, bool]
_ANY: Final = 1 << 30
_DEEP: Final = 32  # open brackets that are looked at, from the innermost on


class _Place(NamedTuple):
    """What is open at a place in a text."""

    quote: bytes = b""  # what begins its string or comment
    code: tuple[_Wanted, ...] = ()  # of the open brackets, the innermost last
    within: tuple[_Wanted, ...] = ()  # of those in that string or comment


class _Held(NamedTuple):
    """What stands behind the cursor for what was opened before it, the innermost first."""

    quoted: bool  # the end of its string or comment
    code: tuple[_Closer, ...]
    within: tuple[_Closer, ...]


_Spans: TypeAlias = list[tuple[int, int]]  # of strings, comments and what stands in brackets: the outermost, in order


_CODE: Final = _Place()


def _read(text: bytes, lexicon: _Lexicon, place: _Place = _CODE) -> tuple[_Place, _Spans]:
    """Return what is open behind a text that begins at `place`, and its spans."""
    quote, code, within = place.quote, [*place.code], [*place.within]
    spans: _Spans = []
    begun = quoted = 0  # where the outermost bracket, and the string, were opened
    line, column = 0, _column(text)  # where the last line with a bracket begins, and the indentation of its statement
    for start, end, bracket, now in _marks(text, lexicon, quote):
        if not bracket:
            if not now:
                spans.append((quoted if quote else start, end))
            quote, quoted = now, start
            within.clear()
            continue
        closer = _CLOSER_OF.get(bracket)
        if now:
            if closer:
                within.append((closer, 0))
            else:
                _close(within, bracket)
            continue
        if (newline := text.rfind(b"\n", line, start)) >= 0:
            line = newline + 1
            column = _column(text, line)
        if closer:
            if not code:
                begun = start
            code.append((closer, column))
        elif wanted := _close(code, bracket):
            column = wanted[1]
            if not code:
                _enclose(spans, begun, end)
    if quote:
        spans.append((quoted, len(text)))
    if code:
        _enclose(spans, begun, len(text))
    return _Place(quote, tuple(code), tuple(within)), spans


def _enclose(spans: _Spans, start: int, end: int) -> None:
    """Add a span, and take out those within it."""
    while spans and spans[-1][0] > start:
        spans.pop()
    spans.append((start, end))


def _close(opened: list[_Wanted], bracket: int, column: int = _ANY, in_line: bool = True) -> _Wanted | None:
    """Take out of `opened`, and return, what a closer closes; and take out what was left open within that."""
    for index in range(len(opened) - 1, max(len(opened) - 1 - _DEEP, -1), -1):
        wanted = opened[index]
        if wanted[0] == bracket and (wanted[1] == column or (in_line and wanted[1] < column)):
            del opened[index:]
            return wanted
    return None


def _unmatched(marks: Iterable[_Mark], text: bytes, indentation: int, most: int) -> tuple[_Closer, ...]:
    """Return the first `most` closers of what was opened before `text`, of which the marks are.

    The line in which `text` begins has this indentation.
    """
    closers: list[_Closer] = []
    opened: list[_Wanted] = []
    for start, _, bracket, _ in marks if most else ():
        if closer := _CLOSER_OF.get(bracket):
            opened.append((closer, 0))
        elif bracket and not _close(opened, bracket) and not opened:
            line = text.rfind(b"\n", 0, start) + 1
            if line and not text[line:start].strip():
                column = _column(text, line)
                before = text.rfind(b"\n", 0, len(text[:line].rstrip())) + 1
                closers.append((bracket, column, column == (_column(text, before) if before else indentation)))
            else:
                closers.append((bracket, _ANY, True))
            if len(closers) == most:
                break
    return tuple(closers)


def _matched(opened: Sequence[_Wanted], closers: Sequence[_Closer]) -> int:
    """Return how many open brackets are closed by these closers."""
    left = [*opened]
    return sum(_close(left, *closer) is not None for closer in closers)


# --- the cursor's surroundings

_PRECEDING: Final = 6  # lines: three times two that take turns
_FOLLOWING: Final = 12  # lines: more than a suggestion has
_STATEMENT: Final = re.compile(rb"^[ \t]*(?:(?:async )?def \w+\(|class \w+[(:]|@[\w.]+[(\n])", re.MULTILINE)
_BLOCK: Final = re.compile(rb"[ \t]*(?:async|case|class|def|elif|else|except|finally|for|if|match|try|while|with)\b")
_NO_CODE: Final = re.compile(rb"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_INDENTATION: Final = re.compile(rb"[ \t]*")


@dataclass(frozen=True)
class Surroundings:
    r"""The text before and after the cursor (4 kB of each are enough), with `\n` line ends, and the language's id.

    What is found in them is found once for all candidates, and only if one of them makes a filter ask.
    """

    before: bytes
    after: bytes
    language: str = ""

    @property
    def line_before(self) -> bytes:
        """The cursor's line up to the cursor."""
        return self.before.rpartition(b"\n")[2]

    @property
    def line_after(self) -> bytes:
        """The cursor's line from the cursor on."""
        return self.after.partition(b"\n")[0]

    @cached_property
    def preceding(self) -> tuple[bytes, ...]:
        """The lines before the cursor's, without blanks at their ends."""
        return tuple(line.rstrip() for line in self.before.rsplit(b"\n", _PRECEDING + 1)[-_PRECEDING - 1 : -1])

    @cached_property
    def following(self) -> tuple[bytes, ...]:
        """The lines behind the cursor's that hold something, without blanks at their ends."""
        lines = self.after.split(b"\n", _FOLLOWING + 1)[1 : _FOLLOWING + 1]
        return tuple(line.rstrip() for line in lines if line.strip())

    @cached_property
    def lexicon(self) -> _Lexicon:
        """How the language writes strings and comments."""
        return _LEXICONS.get(self.language, _UNKNOWN)

    @cached_property
    def place(self) -> _Place:
        """What is open at the cursor."""
        quote, code, within = self._whole[1]
        return _Place(quote, code[-_DEEP:], within[-_DEEP:])

    @cached_property
    def held(self) -> _Held:
        """What of that is closed behind the cursor."""
        (quote, code, within), after = self.place, self.after
        if self.lexicon is _PYTHON and (statement := _STATEMENT.search(after)):
            after = after[: statement.start()]
        if quote == b"/*":
            quoted = b"*/" in after and b"/*" not in after.partition(b"*/")[0]
        elif quote in _ENDS or not quote:
            quoted = False
        else:  # it ends there if that leaves all other quotes in pairs
            rest = after if quote in _LONG else after.partition(b"\n")[0]
            quoted = _read(rest, self.lexicon, _Place(quote))[0].quote != quote
        inside = quoted or quote in _ENDS
        marks = _marks(after, self.lexicon, quote if inside else b"")
        inner = list(takewhile(lambda mark: mark[3], marks)) if inside else []
        column = _column(self.line_before)
        return _Held(quoted, _unmatched(marks, after, column, len(code)), _unmatched(inner, after, column, len(within)))

    @cached_property
    def statement(self) -> int:
        """Where Python's last statement begins: the first line of it, which may be the cursor's."""
        begin, _, spans = self._whole
        line = len(self.before) - len(self.line_before)
        while line > begin:
            if start := _around(spans, line - 1 - begin):
                line = self.before.rfind(b"\n", 0, begin + start[0]) + 1
            if not _NO_CODE.match(self.before, line) and not self.before.endswith(b"\\\n", 0, line):
                break
            line = self.before.rfind(b"\n", 0, max(line - 1, 0)) + 1
        return line

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """The columns of the blocks of Python's around that statement, the outermost first."""
        column = _column(self.before, self.statement)
        columns: list[int] = []
        for line in reversed(self.before[: self.statement].split(b"\n")):
            if column and _BLOCK.match(line) and _column(line) < column:
                column = _column(line)
                columns.append(column)
        return tuple(reversed(columns))

    @cached_property
    def _whole(self) -> tuple[int, _Place, _Spans]:
        """Whence `before` was read, what is open at its end, and its spans from there on."""
        begin = _statement_in(self.before) if self.lexicon is _PYTHON else 0
        return begin, *_read(self.before[begin:], self.lexicon)


def _around(spans: _Spans, at: int) -> tuple[int, int] | None:
    """Return the span in which the byte at `at` is."""
    index = bisect_right(spans, (at, _ANY)) - 1
    return spans[index] if index >= 0 and at < spans[index][1] else None


def _statement_in(text: bytes) -> int:
    """Return where the last line begins that surely stands in no bracket: that of a function or a class of Python's."""
    begin = 0
    for word in (b"def ", b"class "):
        at = text.rfind(word)
        while at >= 0:
            line = text.rfind(b"\n", 0, at) + 1
            if _STATEMENT.match(text, line):
                begin = max(begin, line)
                break
            at = text.rfind(word, 0, at)
    return begin


def _column(text: bytes, line: int = 0) -> int:
    """Return how far the line is indented that begins at `line`."""
    found = _INDENTATION.match(text, line)
    assert found is not None
    return len(found[0].expandtabs())


# --- filters

_LONGEST_OVERLAP: Final = 200  # bytes
_TRIED: Final = 8  # ends of a text, one of which may be its overlap
_COPIES: Final = 4  # of the same words in a row: no text, but a model gone round in circles
_LONGEST_UNIT: Final = 60  # bytes
_UNSURE: Final = 3000  # bytes without a function or a class of Python's: they may begin within a string
_MOST: Final = 0.6  # of a line
_BEGINNING: Final = re.compile(rb"\A\s*@|[:(\[{]\Z")  # what more follows in whatever case
_LETTER: Final = re.compile(rb"[\w\x80-\xff]")
_TELLING: Final = re.compile(rb"[\w\x80-\xff].*[\w\x80-\xff]", re.DOTALL)  # more than a bracket
_CLOSING: Final = re.compile(rb"[)\]}\"'`*]")
_LOOSE: Final = re.compile(rb"(?<![\w\x80-\xff])[ \t]+|[ \t]+(?![\w\x80-\xff])")  # blanks that part no words
_NEW_LINE: Final = re.compile(rb"(?:\A|\n)([ \t]+)(?=\S)")
_COMPLETE: Final = re.compile(rb"[\w\x80-\xff)\]}\"']\Z")  # as statements end; what ends like `a,` may be in brackets


def without_overlap(text: bytes, around: Surroundings) -> bytes:
    """Cut the end of `text` that the rest of the line already holds: `x)` before `)` becomes `x`.

    Blanks between signs don't matter. It is no overlap if it goes up to the middle of a word, or if a bracket or a
    string is complete only with it: `f(x)` stays before `)`.
    """
    rest = around.line_after.strip()
    if not rest:
        return text
    for at in islice(_overlaps(text, rest), _TRIED):
        if _unpaired(text[:at], around) <= _unpaired(text, around):
            text = text[:at]
            break
    return text.rstrip() if around.line_after[:1].isspace() else text


def _overlaps(text: bytes, rest: bytes) -> Iterator[int]:
    """Yield where those ends of `text` begin that `rest` begins with, the longest first."""
    packed = _LOOSE.sub(b"", rest)
    at = text.find(rest[:1], max(len(text) - _LONGEST_OVERLAP, 0))
    while at >= 0:
        end = _LOOSE.sub(b"", text[at:])
        in_word = _LETTER.match(end[-1:]) and _LETTER.match(packed, len(end))
        if packed.startswith(end) and not in_word:
            yield at
        at = text.find(rest[:1], at + 1)


def _unpaired(text: bytes, around: Surroundings) -> int:
    """Return how many brackets and strings are without their other end with `text` in its place."""
    place, held = around.place, around.held
    quote, code, within = _read(text, around.lexicon, place)[0]
    count = len(code) + len(held.code) - 2 * _matched(code, held.code)
    if quote and quote == place.quote:
        count += len(within) + len(held.within) - 2 * _matched(within, held.within)
    return count + (quote != place.quote if held.quoted else bool(quote) and quote not in _ENDS)


def without_closers(text: bytes, around: Surroundings) -> bytes:
    """Cut `text` before a closing bracket or quote whose like stands behind the cursor, for what was opened before it.

    It stays if that isn't closed there, or if the same is opened again in the same line: `} else {`.
    """
    if not _CLOSING.search(text):
        return text
    place, held = around.place, around.held
    inside = bool(place.quote)  # the string or comment that the cursor is in
    opened, closers = ([*place.within], held.within) if inside else ([*place.code], held.code)
    own = 0  # how many of the open brackets are the text's
    spare: list[tuple[int, int]] = []  # closers that are there already: the bracket, and where it comes in `text`
    for start, _, bracket, quote in _marks(text, around.lexicon, place.quote):
        if not bracket:
            if not inside:
                continue
            if held.quoted and _read(text, around.lexicon, place)[0].quote != place.quote:
                spare.append((0, start))
            if spare:
                break
            inside, opened, closers, own = False, [*place.code], held.code, 0
        elif quote and not inside:
            continue  # in a string of the text's
        elif closer := _CLOSER_OF.get(bracket):
            if spare and spare[-1][0] == closer and b"\n" not in text[spare[-1][1] : start]:
                spare.pop()
            else:
                own += 1
            opened.append((closer, 0))
        elif own:
            outer = len(opened) - own
            if any(wanted == bracket for wanted, _ in opened[outer:]):
                _close(opened, bracket)
                own = len(opened) - outer
        elif opened:
            if _matched(opened[:-1], closers) < _matched(opened, closers):
                spare.append((bracket, start))
            if opened.pop()[0] != bracket:
                break  # whatever it is to close
    return text[: spare[0][1]] if spare else text


def without_following_lines(text: bytes, around: Surroundings) -> bytes:
    """Cut `text` where it goes on, up to its end, as lines behind the cursor's do.

    The next line is enough by itself, even with more behind it, if it says something; or most of it, where the text
    ends. It takes two of those further down. But the cursor's line may well begin a block as the next one does.
    """
    following = around.following
    if not following or around.line_after.strip():
        return text
    lines = text.split(b"\n")
    told = _told(lines, around)
    for place, (index, line) in enumerate(told):
        mine = [line for _, line in told[place:]]
        telling = [bool(_TELLING.search(line)) for line in mine]
        if not index and _BEGINNING.search(line):
            telling[0] = False
        if line in following:
            first = following.index(line)
            theirs = following[first : first + len(mine)]
            same = 0
            while same < len(theirs) and mine[same] == theirs[same]:
                same += 1
            in_last = same == len(mine) - 1 < len(theirs) and theirs[same].startswith(mine[same])
            ends = same == len(mine) or in_last
            repeated = (not first and telling[0]) or (ends and sum(telling[:same]) > bool(first))
        else:
            most = len(line.lstrip()) >= _MOST * len(following[0].lstrip())
            repeated = len(mine) == 1 and index > 0 and telling[0] and most and following[0].startswith(line)
        if repeated:
            return b"\n".join(lines[:index])
    return text


def _told(lines: Sequence[bytes], around: Surroundings) -> list[tuple[int, bytes]]:
    """Return those of a text's lines that hold something, as they will stand there, and their indexes."""
    told = [(index, line.rstrip()) for index, line in enumerate(lines) if line.strip()]
    if told and not told[0][0]:
        told[0] = 0, (around.line_before + lines[0]).rstrip()
    return told


def without_wrong_indentation(text: bytes, around: Surroundings) -> bytes:
    """Cut `text` before a line whose indentation cannot be, in languages of which that is known.

    Tabs where the document has blanks only, or the other way round. In Python also a line deeper than the one before
    it, which opens no block; one that is no deeper though that does; and one at a column where no block around begins.
    """
    if around.lexicon not in (_PYTHON, _C, _SCRIPT):
        return text
    begins = not around.line_before.strip() and text[:1] in (b" ", b"\t")
    if b"\n" not in text and not begins:
        return text
    tabs, blanks = (sign in around.before or sign in around.after for sign in (b"\n\t", b"\n  "))
    for found in _NEW_LINE.finditer(text) if tabs != blanks else ():
        own_line = begins or found[0].startswith(b"\n")
        if own_line and (found[1].startswith(b"  ") if tabs else b"\t" in found[1]):
            text = text[: found.start()]
            break
    return _without_wrong_columns(text, around) if around.lexicon is _PYTHON else text


def _without_wrong_columns(text: bytes, around: Surroundings) -> bytes:
    """Cut `text` before a line at a column where Python would refuse it."""
    (quote, code, _), lexicon = around.place, around.lexicon
    if not around._whole[0] and len(around.before) >= _UNSURE:
        return text
    if quote in _LONG and quote not in text:
        return text
    if code and len(_unmatched(_marks(text, lexicon, quote), text, 0, len(code))) < len(code):
        return text  # it stays within the brackets
    begin, blocks = around.statement, [*around.blocks]
    cursor = len(around.before) - begin
    lowest = blocks[0] if blocks else _column(around.before, begin)  # of those further out nothing is known
    last, end = -1, b""  # column and end of the statement before
    for line, statement in _statements(around.before[begin:] + text, lexicon):
        column = _column(statement)
        if end and line + len(statement) - len(statement.lstrip()) > cursor:
            if end == b":":
                wrong = column <= last
            elif column > last:
                wrong = bool(_COMPLETE.match(end))
            else:
                wrong = column != last and column > lowest and column not in blocks
            if wrong:
                return text[: max(line - 1 - cursor, 0)]
        blocks = [block for block in blocks if block < column]
        if statement.endswith(b":"):
            blocks.append(column)
        last, end = column, statement[-1:]
    return text


def _statements(text: bytes, lexicon: _Lexicon) -> Iterator[tuple[int, bytes]]:
    """Yield where each statement of Python's begins, and what it is, without a comment behind it."""
    _, spans = _read(text, lexicon)
    line = 0
    for end in [*(found.start() for found in re.finditer(b"\n", text)), len(text)]:
        if end < len(text) and (_around(spans, end) or text.endswith(b"\\", 0, end)):
            continue
        last = _around(spans, end - 1)
        code = text[line : last[0] if last and text[last[0]] == ord("#") else end].rstrip()
        if code:
            yield line, code
        line = end + 1


def without_repeated_lines(text: bytes, around: Surroundings) -> bytes:
    """Cut `text` before a line that is a copy of the one before it, unless the author repeats lines, too."""
    before = [b"", b"", *around.preceding]
    lines = text.split(b"\n")
    made = [around.line_before + lines[0], *lines[1:]]
    made[-1] += around.line_after
    for index, line in enumerate(made):
        before.append(line.rstrip())
        if before[-1] == before[-2] != before[-3] and _TELLING.search(line) and lines[index].strip():
            return b"\n".join(lines[:index])
    return text


def without_loops(text: bytes, around: Surroundings) -> bytes:
    """Cut `text` where it begins to go round in circles: words at its end, a line, or two lines in turn.

    Of lines the first stay.
    """
    whole = around.before[-_COPIES * _LONGEST_UNIT :] + text
    end, cursor = len(whole), len(whole) - len(text)
    at = whole.rfind(whole[-2:], 0, end - 2)
    while at >= 0 and (length := end - 2 - at) <= _LONGEST_UNIT:
        unit = whole[-length:]
        if whole.endswith(unit * _COPIES) and _LETTER.search(unit):
            start = end - length * _COPIES
            while start and whole[start - 1] == whole[start - 1 + length]:
                start -= 1
            while whole[start] & 0xC0 == 0x80:  # within a character
                start += 1
            return text[: max(start - cursor, 0)]
        at = whole.rfind(whole[-2:], 0, at + 1)
    return _without_looping_lines(text, around)


def _without_looping_lines(text: bytes, around: Surroundings) -> bytes:
    """Cut `text` where a line comes for the second time of four, or two lines of three."""
    before = [line for line in around.preceding if line]
    lines = text.split(b"\n")
    told = _told(lines, around)
    all_ = before + [line for _, line in told]
    for end in range(len(before) + 1, len(all_) + 1):
        for length, copies in ((1, _COPIES), (2, _COPIES - 1)):
            unit = all_[end - length : end]
            start = end - length * copies
            if start >= 0 and all_[start:end] == unit * copies and any(map(_TELLING.search, unit)):
                return b"\n".join(lines[: told[max(start + length - len(before), 0)][0]])
    return text


def not_blank(text: bytes, around: Surroundings) -> bytes:
    """Cut blanks at the end but for one space after a token, and drop what holds nothing else."""
    words = text.rstrip()
    return words + b" " if words and text == words + b" " else words


# --- what the others use


class Filter(NamedTuple):
    """A filter, and the name that it is known by."""

    name: str
    look: Callable[[bytes, Surroundings], bytes]


FILTERS: Final = (
    Filter("overlap", without_overlap),
    Filter("closers", without_closers),
    Filter("following", without_following_lines),
    Filter("indentation", without_wrong_indentation),
    Filter("repeated-line", without_repeated_lines),
    Filter("loop", without_loops),
    Filter("blank", not_blank),
)


def cuts(text: bytes, around: Surroundings, filters: Iterable[Filter] = FILTERS) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each filter that cuts something off `text`, and what it leaves to the next."""
    for name, look in filters:
        left = look(text, around)
        if left != text:
            yield name, left
        if not left:
            return
        text = left


def filtered(text: bytes, around: Surroundings, filters: Iterable[Filter] = FILTERS) -> bytes:
    """Return what is left of `text` after all filters; empty: show nothing."""
    for _, left in cuts(text, around, filters):
        text = left
    return text


_DOUBT: Final = 0.8  # measured: less hides good texts, more shows bad ones
_ENDED: Final = re.compile(rb"[\w\x80-\xff)\]}\"'`]\Z")  # as what a closing bracket may follow


def agreement(text: bytes, around: Surroundings) -> float:
    """Return how well `text` leads into what follows the cursor, from 0 to 1: a factor of its probability.

    It is 1 if nothing follows, or nothing speaks against the text. In the rest of a line that is a bracket or a string
    left without its end, or an end like `a, ` before a closer: little is missing there. Over lines it is a first line
    that would lead into the next by itself, with its brackets closed and the indentation right: why go on past it?
    """
    rest = around.line_after.strip()
    if rest:
        left_open = _unpaired(text, around) - _unpaired(b"", around)
        if left_open > 0:
            return _DOUBT**left_open
        return _DOUBT if rest[0] in b")]}\"'" and not _ENDED.search(text) else 1.0
    first, newline, _ = text.partition(b"\n")
    line = (around.line_before + first).rstrip()
    if not newline or not line or not around.following or _unpaired(first, around):
        return 1.0
    if _read(first, around.lexicon, around.place)[0].quote in _LONG:
        return 1.0
    deeper = _column(around.following[0]) > _column(line)
    return _DOUBT if deeper == line.endswith((b":", b"(", b"[", b"{")) else 1.0
