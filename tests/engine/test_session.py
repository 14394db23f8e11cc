"""The façade: what is shown stays while the user types along it; edits from other threads never disturb a reading."""

from __future__ import annotations

import functools
import gc
import re
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_model import CountingModel, ScriptedModel, by_text, learned, random_weights, turns_true_after

from lsp_charrnn.config import Settings
from lsp_charrnn.engine import session as session_module
from lsp_charrnn.engine.decode import DecodeOptions
from lsp_charrnn.engine.session import Answer, Session
from lsp_charrnn.engine.stream import SPACING, Stream
from lsp_charrnn.errors import DocumentNotOpenError, ModelError
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.model.step import Model
from lsp_charrnn.text.document import Document, Edit
from lsp_charrnn.train.export import build_onnx

URI = "file:///src/a.py"
OTHER = "file:///src/b.py"
TEXT = "def area(width, height):\n    return width * height\n\n\nprint(area(2, 3))\n"
SETTINGS = Settings(decode_budget_ms=10_000, decode_max_chars=60)
EXACT = replace(SETTINGS, stream_exact=True)
SPEC = ModelSpec(layers=2, hidden=16, embedding=8)
NETWORK = Model(build_onnx(random_weights(SPEC), SPEC, quantise=False), SPEC)


class Typist:
    """One document in a session, and the user who types in it."""

    def __init__(self, session: Session, text: str = "", uri: str = URI) -> None:
        self.session, self.uri = session, uri
        self.document = Document.from_text(text, version=0)
        self.cursor = len(self.document.data)
        session.open(uri, self.document, path=uri.rpartition("/")[2], language="python")

    def edit(self, start: int, end: int, new: str = "") -> None:
        edit = Edit(start, end, new.encode())
        self.document = self.document.replace(edit, version=(self.document.version or 0) + 1)
        self.session.edit(self.uri, self.document, [edit])
        self.cursor = start + len(edit.new)

    def type(self, text: str) -> None:
        self.edit(self.cursor, self.cursor, text)

    def backspace(self, count: int = 1) -> None:
        self.edit(self.cursor - count, self.cursor)

    def ask(self, count: int = 1) -> Answer:
        answer = self.session.complete(self.uri, self.cursor, count=count)
        assert answer.version == self.document.version
        assert all(c.start == c.end == self.cursor for c in answer.completions)
        return answer


def first(answer: Answer) -> str:
    return answer.completions[0].text


def texts(answer: Answer) -> list[str]:
    return [completion.text for completion in answer.completions]


def how_far(session: Session) -> tuple[bool, bool]:
    reading = session.reading(URI)
    return reading.refined, reading.settled


def scripted() -> tuple[ScriptedModel, Session]:
    model = learned(TEXT, "def area(radius):\n    return 3 * radius\n")
    return model, Session(lambda _: model, SETTINGS)


def same(answer: Answer, other: Answer) -> bool:
    """Whether two answers show the same; probabilities to float rounding, for pieces are not the whole."""
    return texts(answer) == texts(other) and bool(
        np.allclose(
            [c.log_probability for c in answer.completions], [c.log_probability for c in other.completions], atol=1e-3
        )
    )


# --- typing along


def test_typing_along_gives_the_remainder_without_work() -> None:
    model, session = scripted()
    user = Typist(session, "def area(w")
    answer = user.ask()
    assert not answer.reused
    shown = first(answer)
    assert shown.startswith("idth, height):\n    return width")
    model.steps.clear()
    model.symbols_read = 0
    for at, key in enumerate("idth, height):\n    ret", start=1):
        user.type(key)
        again = user.ask()
        assert again.reused
        assert texts(again) == [shown[at:]]
        assert again.completions[0].log_probability == answer.completions[0].log_probability
    assert model.steps == []
    assert model.symbols_read == 0


def test_backspace_along_it_and_asking_twice() -> None:
    _, session = scripted()
    user = Typist(session, "def area(w")
    shown = first(user.ask())
    assert (first(user.ask()), user.ask().reused) == (shown, True)
    user.type(shown[:8])
    user.backspace(3)
    assert (first(user.ask()), user.ask().reused) == (shown[5:], True)
    user.backspace(5)
    assert (first(user.ask()), user.ask().reused) == (shown, True)
    user.backspace(1)  # past where it was made
    assert not user.ask().reused


def test_an_edit_that_replaces_what_was_typed_along_is_typing_along() -> None:
    """As clients do that accept a word by replacing the one begun."""
    _, session = scripted()
    user = Typist(session, "def area(w")
    shown = first(user.ask())
    user.type(shown[:3])
    user.edit(user.cursor - 3, user.cursor, shown[:10])
    assert (first(user.ask()), user.ask().reused) == (shown[10:], True)


@pytest.mark.parametrize("other", ["x", "idth, x", "idth, height):\n    retX"])
def test_leaving_the_path_decodes_anew(other: str) -> None:
    _, session = scripted()
    user = Typist(session, "def area(w")
    user.ask()
    for key in other:
        user.type(key)
    answer = user.ask()
    assert not answer.reused
    fresh = Typist(scripted()[1], "def area(w" + other)
    assert same(answer, fresh.ask())


def test_coming_back_to_the_path_after_leaving_it_decodes_anew() -> None:
    _, session = scripted()
    user = Typist(session, "def area(w")
    shown = first(user.ask())
    user.type("x")
    user.backspace()
    answer = user.ask()
    assert not answer.reused
    assert first(answer) == shown


def test_an_edit_elsewhere_ends_it() -> None:
    _, session = scripted()
    user = Typist(session, "# note\ndef area(w")
    user.ask()
    cursor = user.cursor
    user.edit(2, 6, "toll")
    user.cursor = cursor
    assert not user.ask().reused
    user.edit(user.cursor, user.cursor, "idth")
    assert user.ask().reused
    user.edit(2, 2, "x")  # before it: the cursor is elsewhere now
    user.cursor = cursor + 4
    assert not user.ask().reused


@pytest.mark.parametrize(("start", "end", "kept", "cursor"), [(-1, 0, 2, 2), (2, 2, 1, 1), (0, 2, 1, 1)])
def test_an_edit_beside_it_ends_it(start: int, end: int, kept: int, cursor: int) -> None:
    """It puts in what was shown, but not from where it was shown to the cursor."""
    _, session = scripted()
    user = Typist(session, "def area(w    ")
    user.cursor = offset = user.cursor - 4
    shown = first(user.ask())
    user.edit(offset + start, offset + end, shown[:kept])
    user.cursor = offset + cursor
    assert not user.ask().reused


def test_moving_the_cursor_ends_it() -> None:
    _, session = scripted()
    user = Typist(session, "def area(w")
    user.ask()
    user.cursor -= 2
    assert not user.ask().reused


def test_accepted_to_its_end_decodes_anew_from_the_states_that_decoding_went_through() -> None:
    model, session = scripted()
    user = Typist(session, "def area(w")
    shown = first(user.ask())
    model.symbols_read = 0
    user.type(shown)
    answer = user.ask()
    assert not answer.reused
    assert model.symbols_read == 0
    assert same(answer, Typist(scripted()[1], "def area(w" + shown).ask())
    user.type("x")  # from there it goes on as from any other place
    assert same(user.ask(), Typist(scripted()[1], "def area(w" + shown + "x").ask())
    assert model.symbols_read == 1


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_is_typed_along_it_and_then_left_is_not_read_again(newline: str) -> None:
    model, session = scripted()
    user = Typist(session, f"# first{newline}def area(width, height):")
    shown = first(user.ask())
    assert shown.startswith(newline)
    model.symbols_read = 0
    user.type(shown[:9])
    user.ask()
    user.type("X")
    answer = user.ask()
    assert model.symbols_read == 1
    assert same(answer, Typist(scripted()[1], user.document.data.decode()).ask())


def test_what_follows_an_accepted_suggestion_is_decoded_ahead() -> None:
    short = replace(SETTINGS, decode_max_chars=14)
    model = scripted()[0]
    session = Session(lambda _: model, short)
    user = Typist(session, "def area(w")
    shown = first(user.ask())
    session.advance(URI)
    model.steps.clear()
    model.symbols_read = 0
    user.type(shown[:3])  # a few keys along it change nothing
    assert user.ask().reused
    user.type(shown[3:])
    answer = user.ask()
    assert (model.steps, model.symbols_read) == ([], 0)
    fresh = Typist(Session(lambda _: scripted()[0], short), "def area(w" + shown).ask()
    assert same(answer, fresh)
    assert fresh.completions
    assert user.ask().reused  # and is now what is shown
    user.type(first(answer)[:1])
    assert texts(user.ask()) == [first(answer)[1:]]


def test_what_was_decoded_ahead_is_used_nowhere_else() -> None:
    _, session = scripted()
    user = Typist(session, "def area(w")
    shown = first(user.ask())
    session.advance(URI)
    session.advance(URI)  # twice is no harm
    user.type(shown)
    user.backspace(len(shown))
    user.edit(0, 0, "# note\n")  # the text before it is another now
    user.cursor = user.document.size
    user.type(shown)
    assert not user.ask().reused

    _, session = scripted()
    user = Typist(session, "def area(w")
    shown = first(user.ask())
    session.advance(URI)
    session.configure(replace(SETTINGS, decode_max_chars=5))
    user.type(shown)
    answer = user.ask()
    assert not answer.reused
    assert all(len(text) <= 5 for text in texts(answer))


def test_decoding_ahead_can_be_cancelled_and_taken_up_again() -> None:
    for looks in range(0, 40, 3):
        model, session = scripted()
        user = Typist(session, "def area(w")
        shown = first(user.ask())
        session.advance(URI, cancelled=turns_true_after(looks))
        session.advance(URI)
        user.type(shown)
        model.steps.clear()
        assert same(user.ask(), Typist(scripted()[1], "def area(w" + shown).ask())
        assert model.steps == []


def test_several_begin_with_the_one() -> None:
    _, session = scripted()
    user = Typist(session, "def area(")
    several = user.ask(count=5)
    assert 2 <= len(several.completions) <= 5
    assert len({text[:1] for text in texts(several)}) > 1
    assert texts(user.ask(count=1)) == texts(several)[:1]
    assert texts(user.ask(count=2)) == texts(several)[:2]
    assert texts(Typist(scripted()[1], "def area(").ask(count=1)) == texts(several)[:1]
    # Typed along, those on another path go.
    shown = texts(several)
    user.type(shown[0][:1])
    assert texts(user.ask(count=5)) == [text[1:] for text in shown if text[0] == shown[0][0]]


def opened(model: Model, text: str, language: str, options: Settings = SETTINGS) -> tuple[Session, int]:
    """A document with the cursor at `|`, in a session with no memories, so that the model alone is asked."""
    session = Session(lambda _: model, replace(options, memory_document=False))
    before, _, after = text.partition("|")
    session.open(URI, Document.from_text(before + after), path="a", language=language)
    return session, len(before.encode())


def test_what_the_language_does_not_allow_is_cut() -> None:
    model = learned("if x:\n    y = 1\n        z = 2\n")
    shown = {}
    for language in ("python", "no-such-language"):
        session, cursor = opened(model, "if x:\n    y |", language)
        shown[language] = session.complete(URI, cursor, count=5).completions[0].text
    assert shown == {"python": "= 1", "no-such-language": "= 1\n        z = 2"}


def test_what_leads_into_the_text_behind_the_cursor_comes_first() -> None:
    # `sum(a` is the likelier by a little, and leaves a bracket open that nothing closes.
    script = {"print(": {"s": 0.52, "t": 0.48}, "print(s": {"u": 1.0}, "print(su": {"m": 1.0}, "print(sum": {"(": 1.0}}
    script |= {"print(sum(": {"a": 1.0}, "print(t": {"o": 1.0}, "print(to": {"t": 1.0}, "print(tot": {"a": 1.0}}
    script |= {"print(tota": {"l": 1.0}, "print(total": {")": 1.0}, "print(sum(a": {"\n": 1.0}}
    model = ScriptedModel(by_text(script, {"\n": 1.0}))
    session, cursor = opened(model, "print(|)\n", "python")
    (best, other, *_) = session.complete(URI, cursor, count=5).completions
    assert (best.text, other.text) == ("total", "sum(a")
    assert best.probability == pytest.approx(0.48, rel=1e-3)
    assert other.probability == pytest.approx(0.8 * 0.52, rel=1e-3)
    # Where nothing follows, nothing speaks against it.
    session, cursor = opened(model, "print(|", "python")
    likely = {c.text: c.probability for c in session.complete(URI, cursor, count=5).completions}
    assert likely["sum(a"] == pytest.approx(0.52, rel=1e-3)


def test_the_likeliest_to_help_comes_first_after_the_filters_too() -> None:
    """`value)` loses its `)`, and with it the lead over `other`."""
    model = learned("f(ab)c\n", "f(ab)c\n", "f(ab)c\n", "f(xyz w\n", "f(xyz w\n")
    session = Session(lambda _: model, SETTINGS)
    answer = Typist(session, "f(").ask(count=5)
    # ab)c and xyz w. With `)c` behind the cursor the first keeps 2 keys at 3/5, the other 5 keys at 2/5.
    assert texts(answer)[0] == "ab)c"
    user = Typist(session, "f()c", OTHER)
    user.cursor = 2
    assert texts(user.ask(count=5)) == ["xyz w", "ab"]


def test_within_a_line_nothing_goes_past_it() -> None:
    model = learned("x = [\n    one,\n]\nx = [\n    two,\n]\n")
    for behind, goes_on in (("]", False), ("  ", True)):
        user = Typist(Session(lambda _: model, SETTINGS), "x = [" + behind)
        user.cursor = 5
        assert any("\n" in text for text in texts(user.ask(count=5))) is goes_on


def test_documents_keep_their_own_line_ends() -> None:
    for newline in ("\n", "\r\n", "\r"):
        _, session = scripted()
        user = Typist(session, f"# first{newline}def area(width, height):")
        assert first(user.ask()).startswith(f"{newline}    return width * height{newline}{newline}{newline}print")
        user.type(f"{newline}    ret")
        assert user.ask().reused
        assert first(user.ask()).startswith("urn width")


def test_what_is_not_worth_it_comes_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "DecodeOptions", functools.partial(DecodeOptions, cost=3.0))
    model = learned(*(f"x = {letter}\n" for letter in "abcdefghij"))
    session = Session(lambda _: model, SETTINGS)
    user = Typist(session, "x = ")
    assert user.ask().completions == ()
    assert len(user.ask(count=5).completions) > 1
    user.type("a\n")
    assert not user.ask().reused


# --- limits


def test_cancelled_answers_are_empty_and_cost_nothing_later() -> None:
    for looks in range(12):
        _, session = scripted()
        user = Typist(session, TEXT * 3 + "def area(w")
        answer = session.complete(URI, user.cursor, cancelled=turns_true_after(looks))
        assert answer == replace(answer, completions=(), reused=False, version=0)
        again = user.ask()
        assert not again.reused
        assert same(again, Typist(scripted()[1], TEXT * 3 + "def area(w").ask())


def test_unknown_documents() -> None:
    _, session = scripted()
    for ask in (
        lambda: session.complete(URI, 0),
        lambda: session.edit(URI, Document.from_text(""), []),
        lambda: session.document(URI),
    ):
        with pytest.raises(DocumentNotOpenError, match=re.escape("src/a.py")):
            ask()
    session.close(URI)
    session.advance(URI)  # it may have been closed meanwhile


def test_offsets_outside_are_moved_inside() -> None:
    _, session = scripted()
    user = Typist(session, "def area(w")
    assert session.complete(URI, 10_000).completions == user.ask().completions
    session.open(URI, Document.from_text("\n\nx = 1\n"), path="a", language="python")
    outside, inside = (session.complete(URI, offset, count=5).completions for offset in (-3, 0))
    assert outside == inside
    assert [c.start for c in outside[:1]] == [0]


def test_document_is_the_newest() -> None:
    _, session = scripted()
    user = Typist(session, "a")
    user.type("b")
    assert session.document(URI) is user.document
    assert session.document(URI).data == b"ab"


def test_closing_frees_the_state() -> None:
    model, session = scripted()
    user = Typist(session, "def area(w")
    user.ask()
    streams = [weakref.ref(thing) for thing in gc.get_objects() if isinstance(thing, Stream) and thing.model is model]
    assert len(streams) == 1
    session.close(URI)
    gc.collect()
    assert streams[0]() is None
    with pytest.raises(DocumentNotOpenError):
        session.complete(URI, 0)
    session.close(URI)  # twice is no harm


def test_reopening_begins_anew() -> None:
    _, session = scripted()
    user = Typist(session, "def area(w")
    user.ask()
    user = Typist(session, "print(area(2")
    assert texts(user.ask()) == [", 3))"]


def test_edits_that_nobody_asks_about_are_not_hoarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "PENDING", 16)
    session = Session(lambda _: NETWORK, SETTINGS)
    user = Typist(session, TEXT * 3)
    user.cursor = 60
    user.ask()
    user.edit(57, 59, "zz")  # near: random weights forget soon
    for _ in range(10 * session_module.PENDING):
        user.edit(len(user.document.data) - 5, len(user.document.data), "def a")
        user.edit(len(user.document.data) - 5, len(user.document.data), "2, 3)")
    pending = session._open[URI].pending
    assert pending is not None
    assert len(pending) <= session_module.PENDING
    user.cursor = 60
    assert same(user.ask(5), _fresh(NETWORK, user, 5))


def test_a_document_whose_model_cannot_be_had_keeps_no_edits() -> None:
    missing = True

    def models(language: str) -> Model:
        if missing:
            raise ModelError("no model here: give one.")
        return NETWORK

    session = Session(models, SETTINGS)
    user = Typist(session, TEXT)
    for key in "def f(x): return x\r\n" * 5:
        user.type(key)
        with pytest.raises(ModelError):
            session.advance(URI)
    assert session._open[URI].pending is None
    missing = False
    assert same(user.ask(3), _fresh(NETWORK, user, 3))
    user.edit(10, 14, "ab")  # and from here on every edit counts
    user.cursor = user.document.size
    assert same(user.ask(3), _fresh(NETWORK, user, 3))


def _fresh(model: Model, user: Typist, count: int = 1) -> Answer:
    session = Session(lambda _: model, EXACT)
    session.open(URI, user.document, path=user.uri.rpartition("/")[2], language="python")
    return session.complete(URI, user.cursor, count=count)


# --- settings and models


def test_configure_takes_effect_at_once() -> None:
    model, session = scripted()
    user = Typist(session, "def area(w")
    long = first(user.ask())
    session.configure(replace(SETTINGS, decode_max_chars=5))
    answer = user.ask()
    assert not answer.reused
    assert len(first(answer)) <= 5 < len(long)
    session.configure(replace(SETTINGS, decode_lanes=1))
    model.steps.clear()
    user.ask()
    assert {len(lanes) for lanes in model.steps} == {1}


def test_configuring_during_a_completion_does_not_keep_its_answer() -> None:
    model, session = scripted()
    user = Typist(session, "def area(w")

    def configure() -> None:
        model.on_run = lambda: None
        session.configure(replace(SETTINGS, decode_max_chars=5))

    model.on_run = configure
    user.ask()
    answer = user.ask()
    assert not answer.reused
    assert len(first(answer)) <= 5


def test_exact_set_while_a_stream_is_being_made_takes_effect() -> None:
    model, session = interrupting(lambda: session.configure(EXACT), 0)
    user = Typist(session, TEXT * 30)
    user.ask()
    user.type("x")
    model.symbols_read = 0
    assert same(user.ask(3), _fresh(NETWORK, user, 3))
    assert model.symbols_read >= user.document.size


def test_another_model_begins_anew() -> None:
    models = {"one": learned("x = one\n"), "two": learned("x = two\n")}
    name = "one"
    session = Session(lambda _: models[name], SETTINGS)
    user = Typist(session, "x = ")
    assert texts(user.ask()) == ["one"]
    name = "two"
    session.configure(replace(SETTINGS, model="two"))
    assert texts(user.ask()) == ["two"]


@pytest.mark.parametrize("forgotten", [False, True])
def test_another_model_that_nobody_has_told_of_begins_anew(forgotten: bool) -> None:
    """What the one before has suggested is not gone on with, though it is typed along."""
    now = learned("x = once upon\n")
    session = Session(lambda _: now, SETTINGS)
    user = Typist(session, "x = ")
    assert texts(user.ask()) == ["once upon"]
    session.advance(URI)
    assert how_far(session) == (True, False)
    if forgotten:  # with its state, for other documents' sake
        session._open[URI].stream = None
    now = learned("x = only one\n")
    user.type("on")
    answer = user.ask()
    assert not answer.reused
    assert texts(answer) == ["ly one"]
    assert how_far(session) == (False, False)


def test_a_document_may_have_models_of_its_own() -> None:
    session = Session(lambda _: learned("x = one\n"), SETTINGS)
    own = learned("x = own\n")
    session.open("a", Document.from_text("x = "), path="x", language="python")
    session.open("b", Document.from_text("x = "), path="x", language="python", models=lambda _: own)
    assert [texts(session.complete(uri, 4)) for uri in ("a", "b")] == [["one"], ["own"]]


def test_each_language_has_its_model() -> None:
    models = {"python": learned("x = snake\n"), "ruby": learned("x = gem\n")}
    session = Session(models.__getitem__, SETTINGS)
    for language, expected in (("python", "snake"), ("ruby", "gem")):
        session.open(language, Document.from_text("x = "), path="x", language=language)
        assert texts(session.complete(language, 4)) == [expected]


def test_a_model_error_leaves_the_session_usable() -> None:
    model = learned(TEXT)
    broken = True

    def models(language: str) -> Model:
        if broken:
            raise ModelError("no model here: give one.")
        return model

    session = Session(models, SETTINGS)
    user = Typist(session, "def area(")
    with pytest.raises(ModelError):
        user.ask()
    with pytest.raises(ModelError):
        session.advance(URI)
    user.type("wi")
    broken = False
    assert first(user.ask()).startswith("dth, height)")
    user.type("dth, x")

    def fail() -> None:
        raise RuntimeError("out of memory")

    for when in range(4):  # in the middle of the work, too
        calls = iter([None] * when)
        model.on_run = lambda calls=calls: next(calls, fail) and fail()  # type: ignore[misc]
        with pytest.raises(RuntimeError):
            session.complete(URI, user.cursor)
        user.edit(12, 12, "y")
        model.on_run = lambda: None
    user.edit(12, 16)
    user.cursor = len(user.document.data)
    assert same(user.ask(3), _fresh(model, user, 3))


def test_a_stream_that_missed_edits_is_not_gone_back_to() -> None:
    broken = learned(TEXT)

    def fail() -> None:
        raise RuntimeError("out of memory")

    broken.on_run = fail
    now: Model = NETWORK
    session = Session(lambda _: now, SETTINGS)
    user = Typist(session, "# def area\ndef ar")
    user.ask()
    user.edit(user.cursor - 1, user.cursor, "y")
    now = broken
    with pytest.raises(RuntimeError):
        user.ask()
    now = NETWORK
    assert same(user.ask(3), _fresh(NETWORK, user, 3))


# --- reading on


def test_advance_reads_to_the_last_edit() -> None:
    model = CountingModel(NETWORK)
    session = Session(lambda _: model, SETTINGS)
    user = Typist(session, TEXT * 4)
    user.edit(100, 104, "changed")
    session.advance(URI)
    before = model.symbols_read
    answer = user.ask(3)
    assert model.symbols_read == before
    assert same(answer, _fresh(NETWORK, user, 3))
    session.advance(URI, cancelled=lambda: True)


def test_two_documents_never_disturb_each_other() -> None:
    session = Session(lambda _: NETWORK, SETTINGS)
    one, two = Typist(session, "import os\n"), Typist(session, "class B:\n", OTHER)
    for key in "def f(x):\r\n    return 😀":
        for user in (one, two):
            user.type(key)
            answer = user.ask(3)
            assert answer.reused or same(answer, _fresh(NETWORK, user, 3))
    session.close(OTHER)
    one.type("y")
    assert same(one.ask(3), _fresh(NETWORK, one, 3))


def test_reading_says_how_far_it_has_come() -> None:
    session = Session(lambda _: NETWORK, SETTINGS)
    user = Typist(session, TEXT * 1000)
    assert how_far(session) == (False, False)
    session.advance(URI)
    assert how_far(session) == (True, False)
    session.read_around(URI)
    assert how_far(session) == (True, True)
    session.complete(URI, 60_000)  # where nobody has read
    assert how_far(session) == (False, False)
    session.advance(URI, cancelled=turns_true_after(1))
    assert not session.reading(URI).refined
    session.advance(URI)
    session.read_around(URI, cancelled=turns_true_after(1))
    assert how_far(session) == (True, False)
    session.read_around(URI)
    assert how_far(session) == (True, True)
    user.edit(10, 10, "x")
    assert how_far(session) == (False, False)
    with pytest.raises(DocumentNotOpenError):
        session.reading(OTHER)


def test_nothing_is_claimed_of_a_stream_that_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(lambda _: NETWORK, SETTINGS)
    for uri in (URI, OTHER):
        Typist(session, TEXT * 200, uri).ask()
        session.advance(uri)

    def read_anew() -> None:
        session.advance(URI, cancelled=lambda: True)
        assert how_far(session) == (False, False)
        session.advance(URI)
        assert how_far(session) == (True, False)
        session.read_around(URI)
        assert how_far(session) == (True, True)

    session.read_around(URI)
    assert how_far(session) == (True, True)
    session.configure(EXACT)
    read_anew()
    session.configure(SETTINGS)
    read_anew()
    monkeypatch.setattr(session_module, "SNAPSHOTS", 1)
    session.read_around(OTHER)
    assert session._open[URI].stream is None
    read_anew()


def test_a_document_that_is_only_looked_at_is_read_at_its_beginning_only() -> None:
    model = CountingModel(NETWORK)
    session = Session(lambda _: model, SETTINGS)
    user = Typist(session, TEXT * 4000)
    session.read_around(URI)
    glance = model.symbols_read
    assert session_module.GLANCE <= glance < 2 * session_module.GLANCE
    user.edit(100, 100, "x")
    session.read_around(URI)
    assert session_module.AROUND - session_module.GLANCE <= model.symbols_read - glance < 2 * session_module.AROUND


def test_a_formatter_that_changed_three_lines_costs_three_lines() -> None:
    model = CountingModel(NETWORK)
    session = Session(lambda _: model, SETTINGS)
    lines = [f"value_{number} = function({number * number})\n" for number in range(2000)]
    user = Typist(session, "".join(lines))
    session.complete(URI, 0)
    session.read_around(URI)
    for place in (300, 900, 1700):
        lines[place] = "    " + lines[place]
    user.edit(0, user.document.size, "".join(lines))
    model.symbols_read = 0
    for line in (100, 600, 1200, 1900):
        before = model.symbols_read
        session.complete(URI, len("".join(lines[:line])))
        assert model.symbols_read - before <= 2 * SPACING
    session.read_around(URI)
    assert model.symbols_read < user.document.size / 4


def test_documents_used_long_ago_lose_their_states_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SNAPSHOTS", 100)
    session = Session(lambda _: NETWORK, SETTINGS)
    uris = [f"file:///src/{number}.py" for number in range(6)]
    users = [Typist(session, TEXT * 200, uri) for uri in uris]
    for uri in uris:
        session.read_around(uri)
        kept = [entry.stream is not None for entry in session._open.values()]
        assert sum(len(entry.stream) for entry in session._open.values() if entry.stream is not None) <= 100
        assert kept[uris.index(uri)]
    assert kept == [False, False, False, True, True, True]
    users[0].type("def a")
    assert same(users[0].ask(3), _fresh(NETWORK, users[0], 3))


def test_exact_reads_everything_and_borrows_nothing() -> None:
    model = CountingModel(NETWORK)
    session = Session(lambda _: model, EXACT)
    user = Typist(session, TEXT * 30)
    user.ask(3)
    assert model.symbols_read >= user.document.size
    session.advance(URI)
    session.read_around(URI)
    user.edit(100, 104, "zz")
    user.cursor = user.document.size
    model.symbols_read = 0
    found = session.complete(URI, user.cursor, count=3)
    assert model.symbols_read >= user.document.size - 100 - SPACING
    assert same(found, _fresh(NETWORK, user, 3))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=12))
def test_many_edits_become_one(steps: list[tuple[int, int, int]]) -> None:
    text = bytes(range(97, 117))
    after, edits = text, []
    for number, (start, length, new) in enumerate(steps):
        start = min(start, len(after))
        edits.append(Edit(start, min(start + length, len(after)), bytes([65 + number]) * new))
        after = after[:start] + edits[-1].new + after[edits[-1].end :]
    one = session_module._covering(edits)
    assert len(text) - (one.end - one.start) + len(one.new) == len(after)
    assert after[: one.start] == text[: one.start]
    assert after[one.start + len(one.new) :] == text[one.end :]
    # And no more than that: it begins where the first of them begins, wherever that is now.
    assert one.start == min(edit.start for edit in edits)


# --- threads


def interrupting(interrupt: Callable[[], None], at: int) -> tuple[CountingModel, Session]:
    """Return a session whose model calls `interrupt` once, before its call number `at`."""
    model = CountingModel(NETWORK)

    def on_run() -> None:
        if model.calls == at:
            model.on_run = lambda: None
            worker = threading.Thread(target=interrupt)  # another thread, while this one is at its work
            worker.start()
            worker.join(5)
            assert not worker.is_alive(), "the session held its lock during model work"

    model.on_run = on_run
    return model, Session(lambda _: model, SETTINGS)


@given(
    at=st.integers(0, 14),
    start=st.integers(0, 400),
    length=st.integers(0, 30),
    new=st.sampled_from(["", "x", "\n", "\r", "é = 1"]),
)
@settings(deadline=None, max_examples=60)
def test_edits_during_a_completion_never_corrupt_the_stream(at: int, start: int, length: int, new: str) -> None:
    user: Typist

    def interrupt() -> None:
        user.edit(start, start + length, new)

    model, session = interrupting(interrupt, at)
    user = Typist(session, (TEXT * 8)[:450])
    old = user.document
    answer = session.complete(URI, 400, count=3)
    model.on_run = lambda: None
    assert answer.version == old.version  # of the text that it was made for
    user.cursor = min(user.cursor, len(user.document.data))
    assert same(user.ask(3), _fresh(NETWORK, user, 3))
    user.cursor = len(user.document.data)
    assert same(user.ask(3), _fresh(NETWORK, user, 3))


def test_what_was_found_for_an_older_text_is_not_shown_for_the_newer() -> None:
    model, session = scripted()
    user = Typist(session, "def area(w")

    def insert() -> None:
        model.on_run = lambda: None
        user.edit(0, 0, "# note\n")

    model.on_run = insert
    session.complete(URI, 10)
    user.cursor = 10
    assert not user.ask().reused


def test_a_reading_goes_on_through_closing() -> None:
    user: Typist
    _, session = interrupting(lambda: user.session.close(URI), 3)
    user = Typist(session, TEXT * 8)
    user.ask()
    with pytest.raises(DocumentNotOpenError):
        user.ask()


@given(st.data())
@settings(deadline=None, max_examples=25)
def test_any_history_answers_like_a_fresh_session(data: st.DataObject) -> None:
    short = replace(EXACT, decode_max_chars=12)  # what the others may differ by is test_tolerance's to say
    user = Typist(Session(lambda _: NETWORK, short), TEXT)
    for _ in range(data.draw(st.integers(1, 8))):
        text = user.document.data.decode()
        places = [len(text[:at].encode()) for at in range(len(text) + 1)]
        at = data.draw(st.integers(0, len(text)))
        start, end = places[at], places[min(at + data.draw(st.integers(0, 8)), len(text))]
        user.edit(start, end, data.draw(st.sampled_from(["", "x", "\r\n", "\r", "\n", "é", "😀", "    y = 1"])))
        if data.draw(st.booleans()):
            answer = user.ask(3)
            fresh = Session(lambda _: NETWORK, short)
            fresh.open(URI, user.document, path="a.py", language="python")
            assert answer.reused or same(answer, fresh.complete(URI, user.cursor, count=3))
