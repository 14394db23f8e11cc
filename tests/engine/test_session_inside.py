"""What a session tells of a document besides completions: what is unlikely in it, and what the model does along it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scripted_model import ScriptedModel, learned, text_of, turns_true_after

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.session import SEEN, SURPRISED, Session
from lsp_charrnn.engine.stream import never
from lsp_charrnn.errors import DocumentNotOpenError
from lsp_charrnn.text.document import Document, Edit

URI = "file:///a.py"
USUAL = "for item in items:\n    print(item)\n"
SLIP = USUAL * 6 + USUAL.replace("(item)", "(times)")


class Reader:
    """One document in a session."""

    def __init__(self, text: str, model: ScriptedModel | None = None, settings: Settings | None = None) -> None:
        self.session = Session(lambda _: model or learned(USUAL * 8), settings)
        self.document = Document.from_text(text, version=0)
        self.session.open(URI, self.document, path="a.py", language="python")

    def edit(self, start: int, end: int, new: str) -> None:
        edit = Edit(start, end, new.encode())
        self.document = self.document.replace(edit)
        self.session.edit(URI, self.document, [edit])

    def odd(self, cancelled: Callable[[], bool] = never) -> list[tuple[str, str]]:
        """Return the unlikely texts, and what was expected."""
        found = self.session.surprise(URI, cancelled=cancelled)
        assert found is not None
        assert found.document is self.document
        return [(self.document.slice(one.start, one.end).decode(), one.instead) for one in found.found]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_what_is_unlikely_is_told_in_bytes_of_the_document(newline: str) -> None:
    model = learned(USUAL * 8)
    reader = Reader("ü = '🙂'\n".replace("\n", newline) + SLIP.replace("\n", newline), model)
    assert ("times", "item") in reader.odd()


def test_an_edit_is_looked_at_anew() -> None:
    reader = Reader(SLIP)
    assert ("times", "item") in reader.odd()
    at = reader.document.data.index(b"times")
    reader.edit(at, at + 5, "item")
    assert "times" not in [text for text, _ in reader.odd()]


def test_the_same_text_is_looked_at_once() -> None:
    model = learned(USUAL * 8)
    reader = Reader(SLIP, model)
    found = reader.odd()
    before = model.symbols_read
    assert reader.odd() == found
    assert model.symbols_read == before


def test_a_look_that_was_given_up_goes_on() -> None:
    models = learned(USUAL * 8), learned(USUAL * 8)
    reader, whole = (Reader(SLIP, model) for model in models)
    for _ in range(3):
        assert reader.session.surprise(URI, cancelled=turns_true_after(2)) is None
    assert reader.odd() == whole.odd()
    assert models[0].symbols_read == models[1].symbols_read  # nothing was read twice


def test_only_what_is_near_the_cursor_is_looked_at() -> None:
    text = SLIP + "x = 1\n" * (2 * SURPRISED // 6)
    reader = Reader(text, learned(text))
    reader.edit(len(text), len(text), "y")
    assert "times" not in [found for found, _ in reader.odd()]


def test_a_document_that_is_closed_has_nothing() -> None:
    reader = Reader(SLIP)
    reader.session.close(URI)
    assert reader.session.surprise(URI) is None
    with pytest.raises(DocumentNotOpenError):
        reader.session.inside(URI, 0, 1)


@pytest.mark.parametrize("text", ["", "\n", "x"])
def test_short_texts(text: str) -> None:
    reader = Reader(text)
    assert isinstance(reader.odd(), list)
    found = reader.session.inside(URI, 0, 10)
    assert found is not None
    assert len(found.symbols) == len(text)


def test_inside_goes_symbol_by_symbol() -> None:
    model = learned(USUAL * 8)
    reader = Reader("a\r\nü🙂b\n", model)
    found = reader.session.inside(URI, 1, 9)
    assert found is not None
    assert found.symbols.tolist() == list("\nü🙂".encode())  # up to a character's start
    assert found.ends.tolist() == [2, 4, 5, 6, 7, 8, 9]
    assert found.states.shape == (1, 1, 8, model.spec.hidden)
    for place in range(8):
        text = text_of(found.states[0, 0, place])
        assert text.endswith("a\nü🙂".encode()[: 1 + place])
        np.testing.assert_array_equal(found.logits[place], model.logits(text))


def test_no_more_is_seen_at_once_than_can_be_answered() -> None:
    reader = Reader("x" * (SEEN + 500))
    found = reader.session.inside(URI, 0, SEEN + 500)
    assert found is not None
    assert len(found.symbols) == SEEN
    assert reader.session.inside(URI, 0, 400, cancelled=turns_true_after(30)) is None
