r"""Golden cases: one file each in `cases/`, the cursor and what is shown written inline.

A file has sections, each headed by a line `-- name --`. Of a filter's case: `filter` (its name, or `filtered` for all
of them), `text` (with the cursor as `‸`), `candidate` and `shown`. Of a completion's case: `learned` (a text that the
model knows by heart; may come again), `text`, `count` (how many are asked for; 1 if it is left out), `typed` (after the
first answer; the second is what counts) and `shown`, once for each completion. `␍` stands for \r, `␣` for a blank at a
line's end, and `shown` with `(nothing)` for an empty answer.

`pytest tests/engine/test_filters.py --regenerate` writes what is shown now into the files: read the difference.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripted_model import learned

from lsp_charrnn.config import Settings
from lsp_charrnn.engine import filters
from lsp_charrnn.engine.filters import FILTERS, Surroundings, filtered
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
    return body.replace("␍", "\r").replace("␣", " ")


def encoded(body: str) -> str:
    return re.sub(r" (?=$|\r)", "␣", body, flags=re.MULTILINE).replace("\r", "␍")


def shown(sections: Sections) -> list[str]:
    """Return what the engine shows in this case."""
    case = dict(sections)
    before, cursor, after = case["text"].partition(CURSOR)
    assert cursor, "the text needs a cursor"
    if "filter" in case:
        look = getattr(filters, case["filter"])
        return [look(case["candidate"].encode(), Surroundings(before.encode(), after.encode())).decode()]

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
    cut: dict[str, set[bool]] = {look.__name__: set() for look in FILTERS}
    for path in CASES:
        case = dict(sections_of(path.read_text(encoding="utf-8")))
        if case.get("filter") in cut:
            cut[case["filter"]].add(case["shown"] != case["candidate"])
    assert all(seen == {True, False} for seen in cut.values()), cut


def test_nothing_is_looked_at_once_it_is_empty() -> None:
    assert filtered(b")", Surroundings(b"f(", b")")) == b""
    assert filtered(b"", Surroundings(b"", b"")) == b""


def test_surroundings_know_the_cursors_line() -> None:
    around = Surroundings(b"a\nbc", b"de\nf")
    assert (around.line_before, around.line_after) == (b"bc", b"de")
    assert (Surroundings(b"", b"").line_before, Surroundings(b"", b"").line_after) == (b"", b"")
