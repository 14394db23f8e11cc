r"""Golden cases: one file each in `cases/`, the cursor and what is shown written inline.

A file has sections, each headed by a line `-- name --`. Of a filter's case: `filter` (its name, `all` for all of them,
or `agreement`, whose number is shown then), `language` (its id; may be left out), `text` (with the cursor as `‸`),
`candidate` and `shown`. Of a completion's case: `learned` (a text that the model knows by heart; may come again),
`text`, `count` (how many are asked for; 1 if it is left out), `typed` (after the first answer; the second is what
counts) and `shown`, once for each completion. `␍` stands for \r, `⇥` for a tab, `␣` for a blank at a line's end, and
`shown` with `(nothing)` for an empty answer.

`pytest tests/engine/test_filters.py --regenerate` writes what is shown now into the files: read the difference.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_model import learned

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.filters import FILTERS, Filter, Surroundings, agreement, cuts, filtered
from lsp_charrnn.engine.session import Session
from lsp_charrnn.text.document import Document, Edit

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))
CURSOR = "‸"
NOTHING = "(nothing)"
HEAD = re.compile(r"^-- (\w+) --\n", re.MULTILINE)

Sections = list[tuple[str, str]]


def sections_of(file: str) -> Sections:
    parts = HEAD.split(file)
    assert parts[0] == "", "a case begins with the head of a section"
    return [(name, decoded(body.removesuffix("\n"))) for name, body in zip(parts[1::2], parts[2::2], strict=True)]


def file_of(sections: Sections) -> str:
    return "".join(f"-- {name} --\n{encoded(body)}\n" for name, body in sections)


def decoded(body: str) -> str:
    return body.replace("␍", "\r").replace("␣", " ").replace("⇥", "\t")


def encoded(body: str) -> str:
    return re.sub(r" (?=$|\r)", "␣", body, flags=re.MULTILINE).replace("\r", "␍").replace("\t", "⇥")


def shown(sections: Sections) -> list[str]:
    """Return what the engine shows in this case."""
    case = dict(sections)
    before, cursor, after = case["text"].partition(CURSOR)
    assert cursor, "the text needs a cursor"
    if "filter" in case:
        around = Surroundings(before.encode(), after.encode(), case.get("language", ""))
        candidate = case["candidate"].encode()
        if case["filter"] == "agreement":
            return [f"{agreement(candidate, around):g}"]
        chosen = [each for each in FILTERS if case["filter"] in (each.name, "all")]
        assert chosen, f"there is no filter {case['filter']}"
        return [filtered(candidate, around, chosen).decode()]

    model = learned(*(body for name, body in sections if name == "learned"))
    session = Session(lambda _: model, Settings(decode_budget_ms=10_000, decode_max_chars=80))
    document = Document.from_text(before + after, version=1)
    offset, count = len(before.encode()), int(case.get("count", "1"))
    session.open("file:///a.py", document, path="a.py", language="python")
    answer = session.complete("file:///a.py", offset, count=count)
    if "typed" in case:
        edit = Edit(offset, offset, case["typed"].encode())
        document = document.replace(edit, version=2)
        session.edit("file:///a.py", document, [edit])
        answer = session.complete("file:///a.py", offset + len(edit.new), count=count)
        offset += len(edit.new)
        assert answer.reused
    assert answer.version == document.version
    assert all((completion.start, completion.end) == (offset, offset) for completion in answer.completions)
    return [completion.text for completion in answer.completions]


def check(path: Path, regenerate: bool) -> None:
    file = path.read_text(encoding="utf-8")
    sections = sections_of(file)
    now = [("shown", text or NOTHING) for text in shown(sections) or [NOTHING]]
    given = [section for section in sections if section[0] != "shown"]
    if regenerate:
        path.write_text(file_of(given + now), encoding="utf-8", newline="\n")
    else:
        assert now == [section for section in sections if section[0] == "shown"]
        assert file_of(sections) == file, "the file is not as --regenerate would write it"


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path, regenerate: bool) -> None:
    check(path, regenerate)


def test_every_filter_has_a_case_that_it_cuts_and_one_that_it_leaves() -> None:
    cut: dict[str, set[bool]] = {each.name: set() for each in FILTERS}
    for path in CASES:
        case = dict(sections_of(path.read_text(encoding="utf-8")))
        if case.get("filter") in cut:
            cut[case["filter"]].add(case["shown"] != case["candidate"])
    assert all(seen == {True, False} for seen in cut.values()), cut


def test_it_can_be_told_which_cut_and_left_out() -> None:
    around = Surroundings(b"def f():\n    print(", b")\n", "python")
    text = b"a, len(b) )) + c "
    assert list(cuts(text, around)) == [("closers", b"a, len(b) ")]
    assert list(cuts(b"a,  ) + b", around)) == [("closers", b"a,  "), ("blank", b"a,")]
    assert list(cuts(b" \t", around)) == [("blank", b"")]
    assert list(cuts(b"a, b", around)) == []
    others = [each for each in FILTERS if each.name != "closers"]
    assert filtered(text, around, others) == text
    assert filtered(text, around) == b"a, len(b) "
    assert len({each.name for each in FILTERS}) == len(FILTERS)


def test_nothing_is_looked_at_once_it_is_empty() -> None:
    seen: list[bytes] = []

    def look(text: bytes, around: Surroundings) -> bytes:
        seen.append(text)
        return b""

    assert filtered(b"x", Surroundings(b"", b""), [Filter("one", look), Filter("other", look)]) == b""
    assert seen == [b"x"]
    assert filtered(b")", Surroundings(b"f(", b")")) == b""
    assert filtered(b"", Surroundings(b"", b"")) == b""


PIECES = [
    *("(", ")", "[", "]", "{", "}", '"', "'", '"""', "`", "#", "//", "/*", "*/", "\\", ":", ",", ".", "=", "@", "-"),
    *("\n", "\n    ", "\n        ", "\n\t", " ", "\t", "x", "é", "ġ", "日本", "😀", "def f(", "class A:", "return x"),
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=30).map(lambda pieces: "".join(pieces).encode())
LANGUAGES = st.sampled_from(["", "python", "c", "javascript", "rust", "shellscript"])


@given(TEXT, TEXT, TEXT, LANGUAGES, st.integers(1, 6))
def test_whatever_stands_there_a_beginning_is_left(
    before: bytes, text: bytes, after: bytes, language: str, times: int
) -> None:
    around = Surroundings(before, after, language)
    left = text = text * times
    for _, now in cuts(text, around):
        assert left.startswith(now)
        assert left != now
        left = now
    assert left == filtered(text, around)
    left.decode("utf-8")  # no half characters
    assert 0 < agreement(text, around) <= 1


# --- what people wrote: this package's own lines, of which now and then one may look wrong

OWN = [path.read_text("utf-8") for path in sorted((Path(__file__).parents[2] / "lsp_charrnn").rglob("*.py"))]


def gap(text: str, start: int, end: int) -> Surroundings:
    return Surroundings(text[:start][-4096:].encode(), text[end:][:4096].encode(), "python")


def share(good: list[bool]) -> float:
    assert len(good) > 300
    return sum(good) / len(good)


def test_the_lines_that_authors_wrote_stay() -> None:
    good = []
    for text in OWN:
        for line in list(re.finditer(r"(?<=\n) *(\S.*)", text))[::7]:
            wrote = line[1].encode()
            good.append(filtered(wrote, gap(text, line.start(1), line.end())) == wrote)
    assert share(good) > 0.99


def test_what_authors_put_in_brackets_stays_and_no_more() -> None:
    good = []
    for text in OWN:
        for found in list(re.finditer(r"[(\[]([^()\[\]\n\"'#]{3,})[)\]].*", text))[::3]:
            around = gap(text, *found.span(1))
            for wrote in (found[1], text[found.start(1) : found.end()]):
                good.append(filtered(wrote.encode(), around) == found[1].rstrip().encode())
    assert share(good) > 0.99


def test_surroundings_know_the_cursors_line() -> None:
    around = Surroundings(b"a\nbc", b"de\nf")
    assert (around.line_before, around.line_after) == (b"bc", b"de")
    assert (Surroundings(b"", b"").line_before, Surroundings(b"", b"").line_after) == (b"", b"")
