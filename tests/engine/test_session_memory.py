"""What a session suggests by what the document and its project have held, whatever is edited and counted meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scripted_model import ScriptedModel, turns_true_after

from lsp_charrnn.config import Settings
from lsp_charrnn.engine import session as session_module
from lsp_charrnn.engine.contexts import KINDS
from lsp_charrnn.engine.memory import Base, Counts, DocumentCounts
from lsp_charrnn.engine.mixer import EXPERTS, FEATURES, Mixer, shipped_mixer
from lsp_charrnn.engine.session import REMEMBERED, Answer, Project, Session
from lsp_charrnn.engine.stream import Stream
from lsp_charrnn.text.document import Document, Edit

URI = "file:///src/a.py"
SETTINGS = Settings(decode_budget_ms=10_000, decode_max_chars=30)
WITHOUT_DOCUMENT = replace(SETTINGS, memory_document=False)
WITHOUT_PROJECT = replace(SETTINGS, memory_project=False)

NAME = "def frobnicate_quux(a):\n    return a\n\n\n"
BEGUN = "x = frob"
REST = "nicate_quux"
FILLER = "y = y + 1\n"
BUILD = DocumentCounts.build


class Typist:
    """One document in a session, and the user who types in it."""

    def __init__(
        self,
        text: str,
        *,
        settings: Settings = SETTINGS,
        model: ScriptedModel | None = None,
        project: Project | None = None,
    ) -> None:
        self.model = ignorant() if model is None else model
        self.session = Session(lambda _: self.model, settings)
        self.document = Document.from_text(text, version=0)
        self.cursor = self.document.size
        self.session.open(URI, self.document, path="src/a.py", language="python", project=project)

    def edit(self, start: int, end: int, new: str = "") -> None:
        self.edits([Edit(start, end, new.encode())])

    def edits(self, edits: Sequence[Edit]) -> None:
        self.document = self.document.apply(edits, version=(self.document.version or 0) + 1)
        self.session.edit(URI, self.document, edits)
        self.cursor = edits[-1].start + len(edits[-1].new)

    def type(self, text: str) -> None:
        self.edit(self.cursor, self.cursor, text)

    def ask(self, count: int = 5) -> Answer:
        answer = self.session.complete(URI, self.cursor, count=count)
        assert answer.version == self.document.version
        return answer

    def suggested(self) -> str:
        """What is shown unasked; empty where nothing is."""
        completions = self.ask(1).completions
        return completions[0].text if completions else ""

    @property
    def remembered(self) -> bool:
        return self.session.reading(URI).remembered

    def settle(self) -> None:
        """Do what is done in the background, to its end."""
        for _ in range(3):
            self.session.advance(URI)
            self.session.remember(URI)
        self.session.advance(URI)
        assert self.remembered


def ignorant() -> ScriptedModel:
    """A model to which anything may come, wherever it stands."""
    return ScriptedModel(lambda _: dict.fromkeys(b"abcdefghijklmnopqrstuvwxyz_ ().=\n", 1 / 33), context=32)


def trusting() -> Mixer:
    """A gate that believes the longest context that it has seen."""
    zeros = [np.zeros(shape, dtype=np.float32) for shape in [(FEATURES, 1), (1,), (1, EXPERTS), (FEATURES, EXPERTS)]]
    of_memory = [4, 6, 8, 10, 5, 9, 9]
    assert len(of_memory) == KINDS
    return Mixer(*[*zeros, np.array([0, *of_memory, *of_memory], dtype=np.float32)])


@pytest.fixture(autouse=True)
def mixer(monkeypatch: pytest.MonkeyPatch) -> Mixer:
    """The one that comes with the package is fitted to real models, and to real text."""
    found = trusting()
    monkeypatch.setattr(session_module, "shipped_mixer", lambda: found)
    return found


def same(answer: Answer, other: Answer) -> bool:
    """Whether two answers show the same, to float rounding."""
    shown = [[(c.text, c.start, c.end) for c in one.completions] for one in (answer, other)]
    return shown[0] == shown[1] and bool(
        np.allclose(
            [c.log_probability for c in answer.completions], [c.log_probability for c in other.completions], atol=1e-5
        )
    )


def fresh(user: Typist) -> Typist:
    """Somebody who has the same text, the same cursor, and no history."""
    other = Typist(user.document.data.decode(), model=user.model)
    other.cursor = user.cursor
    return other


def while_counting(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Let the next `remember` be interrupted on either side of its counting."""

    def interrupted(document: Document, cursor: int, radius: int) -> Base:
        if radius != session_module.REMEMBERED[1]:  # it counts nearby, at once
            return BUILD(document, cursor, radius)
        monkeypatch.setattr(DocumentCounts, "build", staticmethod(BUILD))
        before()
        base = BUILD(document, cursor, radius)
        after()
        return base

    monkeypatch.setattr(DocumentCounts, "build", staticmethod(interrupted))


def nothing() -> None:
    pass


# --- the document


def test_a_name_that_the_document_holds_is_suggested() -> None:
    user = Typist(NAME + BEGUN)
    assert user.suggested().startswith(REST)
    assert user.ask().completions[0].probability > 0.5


def test_without_the_memory_it_is_not() -> None:
    user = Typist(NAME + BEGUN, settings=WITHOUT_DOCUMENT)
    assert user.suggested() == ""
    assert not any(c.text.startswith("nic") for c in user.ask().completions)
    user.session.configure(SETTINGS)
    assert user.suggested().startswith(REST)
    user.session.configure(WITHOUT_DOCUMENT)
    assert user.suggested() == ""


def test_it_is_suggested_wherever_it_stands() -> None:
    user = Typist(NAME + BEGUN + "\n" + FILLER)
    user.cursor = len(NAME + BEGUN)
    assert user.suggested().startswith(REST)
    below = Typist(BEGUN + "\n\n\n" + NAME)
    below.cursor = len(BEGUN)
    assert below.suggested().startswith(REST)


def test_what_stands_right_behind_the_cursor_is_not_expected_before_it() -> None:
    user = Typist(BEGUN + REST + "\n")
    user.cursor = len(BEGUN)
    assert not any(c.text.startswith("nic") for c in user.ask().completions)


def test_asked_again_it_gives_the_same() -> None:
    user = Typist(NAME + BEGUN)
    answer = user.ask()
    assert same(user.ask(), answer)
    user.session.configure(replace(SETTINGS))  # it decodes anew
    again = user.ask()
    assert not again.reused
    assert same(again, answer)
    user.settle()
    user.session.configure(replace(SETTINGS))
    assert same(user.ask(), answer)
    assert same(fresh(user).ask(), answer)


def test_line_ends_of_any_kind_are_read_as_one() -> None:
    answers = []
    for newline in ("\n", "\r\n", "\r"):
        user = Typist((NAME + NAME.upper() + BEGUN).replace("\n", newline))
        answers.append([c.text.replace(newline, "\n") for c in user.ask().completions])
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0].startswith(REST)


def test_a_name_is_known_as_soon_as_it_is_typed() -> None:
    user = Typist("")
    assert user.suggested() == ""
    for key in NAME + BEGUN:
        user.type(key)
        user.session.advance(URI)
    assert user.suggested().startswith(REST)


def test_a_name_that_was_deleted_is_suggested_no_more() -> None:
    user = Typist(NAME + FILLER * 30 + BEGUN)
    assert user.suggested().startswith(REST)
    user.edit(0, len(NAME))
    user.cursor = user.document.size
    assert not any(c.text.startswith("nic") for c in user.ask().completions)
    user.edit(0, 0, NAME)
    user.cursor = user.document.size
    assert user.suggested().startswith(REST)


def test_a_name_that_was_changed_everywhere_at_once_is_suggested_as_it_is_now() -> None:
    user = Typist((NAME + FILLER * 10) * 3 + BEGUN)
    assert user.suggested().startswith(REST)
    places = [at for at in range(user.document.size) if user.document.data.startswith(REST.encode(), at)]
    assert len(places) == 3
    user.edits([Edit(at, at + len(REST), b"bish_bash") for at in reversed(places)])
    user.cursor = user.document.size
    assert user.suggested().startswith("bish_bash")


def test_a_text_that_was_replaced_whole_is_counted_as_it_is_now() -> None:
    """As a formatter does it; what it leaves as it was is found again."""
    user = Typist((NAME + FILLER * 20) * 2 + BEGUN)
    assert user.suggested().startswith(REST)
    text = user.document.data.decode().replace(REST, "bish_bash").replace("y = y", "z =  z")
    user.edit(0, user.document.size, text)
    assert user.suggested().startswith("bish_bash")
    assert same(user.ask(), fresh(user).ask())


def test_what_follows_a_suggestion_is_decoded_with_the_memory() -> None:
    user = Typist("def frobnicate_quux(alpha):\n    return omega_squared(alpha)\n\n\ndef frob")
    first = user.suggested()
    assert first.startswith(REST)
    user.session.advance(URI)
    user.model.steps.clear()
    user.type(first)
    ahead = user.ask()
    assert ahead.reused
    assert user.model.steps == []
    # The suggestion itself has not been counted then, so they are as likely, or nearly.
    assert ahead.completions[0].text == fresh(user).ask().completions[0].text


def test_typing_along_gives_the_rest() -> None:
    user = Typist(NAME + BEGUN)
    shown = user.suggested()
    for at, key in enumerate(REST[:-2], start=1):
        user.type(key)
        answer = user.ask(1)
        assert answer.reused
        assert answer.completions[0].text == shown[at:]


# --- far from the cursor


def far() -> Typist:
    """A name that is further away than what is counted at once."""
    user = Typist(NAME + FILLER * 4000 + BEGUN)
    assert user.document.size > 2 * REMEMBERED[0]
    return user


def test_a_name_far_away_is_suggested_once_the_text_has_been_counted() -> None:
    user = far()
    assert user.suggested() == ""
    assert not user.remembered
    user.session.remember(URI)
    assert not user.remembered  # the model thread has not come for it
    user.session.advance(URI)
    assert user.remembered
    user.session.configure(replace(SETTINGS))
    assert user.suggested().startswith(REST)
    assert user.remembered
    user.type("x")
    assert not user.remembered
    user.edit(user.cursor - 1, user.cursor)
    assert user.suggested().startswith(REST)
    assert user.remembered


def test_counted_in_time_it_is_what_counting_all_at_once_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    user = far()
    user.ask()
    user.settle()
    user.session.configure(replace(SETTINGS))
    monkeypatch.setattr(session_module, "REMEMBERED", (1 << 19, 1 << 19))
    other = fresh(user)
    assert same(user.ask(), other.ask())
    assert other.remembered
    assert other.suggested().startswith(REST)


def test_edits_while_the_text_is_being_counted_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some that the model thread has heard of meanwhile, and some that it hasn't."""
    user = far()
    user.ask()

    def before() -> None:
        user.edit(3, 3, "\r")
        user.session.advance(URI)
        user.edits([Edit(500, 510, b""), Edit(100, 100, b"z = z - 1\n")])
        user.cursor = user.document.size
        user.ask()

    def after() -> None:
        user.session.advance(URI)
        user.edit(4, 20, "bish")  # of the name
        user.session.advance(URI)
        user.edit(8, 8, "_bash")

    while_counting(monkeypatch, before, after)
    user.session.remember(URI)
    user.edit(0, 0, "# note\n")
    user.cursor = user.document.size
    user.type("\nx = bis")
    user.session.advance(URI)
    assert user.remembered
    assert user.suggested().startswith("h_bash")
    other = fresh(user)
    other.settle()
    assert same(user.ask(), other.ask())


def test_a_count_that_ends_while_the_model_thread_takes_the_edits_misses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun before it has taken them, ended before it says so."""
    user = far()
    user.session.advance(URI)
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(10)

    while_counting(monkeypatch, wait, nothing)
    thread = threading.Thread(target=user.session.remember, args=(URI,))
    thread.start()
    assert begun.wait(10)
    follow = Stream.edit

    def ending(stream: Stream, edit: Edit) -> None:
        go_on.set()
        thread.join(10)
        assert not thread.is_alive()
        follow(stream, edit)

    monkeypatch.setattr(Stream, "edit", ending)
    user.edit(0, len(NAME))
    user.cursor = user.document.size
    user.session.advance(URI)
    assert user.remembered
    assert user.suggested() == ""
    other = fresh(user)
    other.settle()
    assert same(user.ask(), other.ask())


def test_a_count_that_begins_while_the_model_thread_takes_the_edits_misses_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may end meanwhile, too."""
    user = far()
    user.session.advance(URI)
    follow = Stream.edit

    def beginning(stream: Stream, edit: Edit) -> None:
        user.session.remember(URI)
        follow(stream, edit)

    monkeypatch.setattr(Stream, "edit", beginning)
    user.edit(0, len(NAME))
    monkeypatch.setattr(session_module, "_is_large", lambda _: False)
    user.cursor = user.document.size
    user.session.advance(URI)
    assert user.remembered
    assert user.suggested() == ""


def test_a_count_that_begins_with_edits_that_the_model_thread_has_not_heard_of_misses_none() -> None:
    user = far()
    user.ask()
    user.edit(0, len(NAME), FILLER)
    user.cursor = user.document.size
    user.session.remember(URI)
    user.session.advance(URI)
    assert user.remembered
    other = fresh(user)
    other.settle()
    assert same(user.ask(), other.ask())
    assert not any(c.text.startswith("nic") for c in user.ask().completions)


@pytest.mark.parametrize("dropped_before", [True, False])
def test_a_count_that_a_new_stream_overtakes_is_thrown_away(
    monkeypatch: pytest.MonkeyPatch, dropped_before: bool
) -> None:
    """The new stream begins with the newest text: nobody knows the edits since what was counted."""
    user, exact = far(), replace(SETTINGS, stream_exact=True)
    user.ask()

    def begin_anew() -> None:
        user.edit(0, len(NAME))
        user.session.configure(exact)
        user.cursor = user.document.size
        user.session.advance(URI)

    if dropped_before:  # it ends
        while_counting(monkeypatch, begin_anew, nothing)
    user.session.remember(URI)
    if not dropped_before:
        begin_anew()
    user.settle()
    other = fresh(user)
    other.session.configure(exact)
    other.settle()
    assert same(user.ask(), other.ask())
    assert not any(c.text.startswith("nic") for c in user.ask().completions)


def test_a_new_stream_counts_anew() -> None:
    user = Typist(NAME + FILLER * 30 + BEGUN)
    assert user.suggested().startswith(REST)
    user.edit(0, len(NAME))
    user.session.configure(replace(SETTINGS, stream_exact=True))
    user.session.advance(URI)
    assert not user.remembered  # it was of the other stream's text
    user.cursor = user.document.size
    assert user.suggested() == ""
    assert user.remembered


def test_remembering_takes_no_lock_while_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    user = far()
    user.ask()

    def type_and_ask() -> None:
        user.type(".")
        user.ask()

    def on_another_thread() -> None:
        thread = threading.Thread(target=type_and_ask)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "the session held its lock while it counted"

    while_counting(monkeypatch, on_another_thread, nothing)
    user.session.remember(URI)
    user.session.advance(URI)
    assert user.remembered


def test_remembering_what_was_closed_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    user = far()
    user.ask()
    user.session.close(URI)
    user.session.remember(URI)
    user.session.remember("file:///never/opened.py")
    user = far()
    user.ask()

    def opened_anew() -> None:
        user.session.close(URI)
        user.document = Document.from_text(NAME.upper() + "X = FROB", version=0)
        user.session.open(URI, user.document, path="src/a.py", language="python")
        user.cursor = user.document.size

    while_counting(monkeypatch, nothing, opened_anew)
    user.session.remember(URI)
    assert user.suggested().startswith(REST.upper())
    assert same(user.ask(), fresh(user).ask())


def test_nothing_is_counted_that_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    build = DocumentCounts.build

    def watched(document: Document, cursor: int, radius: int) -> Base:
        counted.append(radius)
        return build(document, cursor, radius)

    monkeypatch.setattr(DocumentCounts, "build", staticmethod(watched))
    user = far()
    user.session.remember(URI)  # before anybody has asked: no stream follows it
    assert counted == []
    user.ask()
    assert counted == [REMEMBERED[0]]
    user.session.remember(URI)
    user.session.advance(URI)
    user.session.remember(URI)  # once is enough
    assert counted == [*REMEMBERED]
    for _ in range(20):
        user.type("x")
        user.ask()
    assert counted == [*REMEMBERED]
    user.session.configure(WITHOUT_DOCUMENT)
    user.edit(0, user.document.size)
    user.type(NAME + FILLER * 4000)
    user.ask()
    user.session.remember(URI)
    assert counted == [*REMEMBERED]


def test_a_small_text_is_remembered_at_once() -> None:
    user = Typist(NAME + BEGUN)
    assert not user.remembered
    user.ask()
    assert user.remembered
    user.type("n")
    assert not user.remembered
    user.session.advance(URI)
    assert user.remembered
    user.session.remember(URI)
    assert user.suggested().startswith(REST[1:])


def test_what_was_counted_is_left_when_the_cursor_goes_far_away() -> None:
    """And counted around the new place, at once and in time."""
    user = Typist(FILLER * 150_000 + NAME + BEGUN)
    assert user.document.size > REMEMBERED[1] * 2
    assert user.suggested().startswith(REST)
    user.settle()
    user.session.complete(URI, 20)
    assert not user.remembered
    user.edit(0, 0, BEGUN)
    assert user.suggested() == ""
    user.settle()
    user.session.configure(replace(SETTINGS))
    assert user.suggested() == ""  # it is still too far


def test_a_document_is_counted_anew_when_its_stream_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    user = Typist(NAME + FILLER * 100 + BEGUN)
    assert user.suggested().startswith(REST)
    monkeypatch.setattr(session_module, "SNAPSHOTS", 1)
    other = "file:///src/b.py"
    user.session.open(other, Document.from_text(FILLER * 200), path="src/b.py", language="python")
    user.session.complete(other, 1500)
    user.session.read_around(other)
    assert user.session._open[URI].stream is None
    user.edit(0, len(NAME))  # nobody follows this
    user.cursor = user.document.size
    assert user.suggested() == ""
    assert same(user.ask(), fresh(user).ask())


def test_a_completion_that_is_given_up_leaves_the_counts_right() -> None:
    for calls in range(8):
        user = Typist(NAME + BEGUN)
        user.session.complete(URI, user.cursor, cancelled=turns_true_after(calls))
        user.edit(0, 0, "#\n")
        user.session.complete(URI, user.cursor, cancelled=turns_true_after(calls))
        user.cursor = user.document.size
        assert same(user.ask(), fresh(user).ask())


# --- the project


class Files:
    """A project that has been counted."""

    def __init__(self, *texts: str) -> None:
        self.counts = [Counts.of_texts([text.encode()]) for text in texts]
        self.asked: list[str] = []

    def tables(self, path: str) -> Sequence[Counts]:
        self.asked.append(path)
        return self.counts


def test_a_name_that_the_project_holds_is_suggested() -> None:
    project = Files(NAME)
    user = Typist(BEGUN, project=project)
    assert user.suggested().startswith(REST)
    assert project.asked == ["src/a.py"]
    user.session.configure(WITHOUT_PROJECT)
    assert user.suggested() == ""
    user.session.configure(WITHOUT_DOCUMENT)
    assert user.suggested().startswith(REST)
    assert project.asked == ["src/a.py"] * 2


def test_the_project_and_the_document_say_what_they_hold_together() -> None:
    project = Files("frobnicate_a\n", "frobnicate_b\n")
    settings = replace(SETTINGS, decode_max_chars=1)
    user = Typist("frobnicate_c = 1\ny = frobnicate_", project=project, settings=settings)
    assert {c.text for c in user.ask().completions} >= set("abc")


def test_a_project_that_is_not_known_yet_says_nothing() -> None:
    project = Files()
    user = Typist(NAME + BEGUN, project=project)
    assert same(user.ask(), fresh(user).ask())
    user = Typist(BEGUN, project=project, settings=WITHOUT_DOCUMENT)
    assert user.suggested() == ""
    project.counts = Files(NAME).counts
    user.type("n")
    assert user.suggested().startswith(REST[1:])


def test_the_mixer_that_comes_with_the_package_suggests_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "shipped_mixer", shipped_mixer)
    text = NAME + "print(frobnicate_quux(1))\nz = frobnicate_quux(2)\n"
    assert Typist(text + BEGUN).suggested().startswith("nicate")
    assert Typist(BEGUN, project=Files(text)).suggested().startswith("nicate")
    assert Typist(FILLER * 3 + BEGUN).suggested() == ""


# --- any history

PIECES = ["", "x", "\r\n", "\r", "\n", "é", "😀", "    y = 1", NAME, BEGUN, "frobnicate_quux(a)\r\n" * 4, FILLER * 30]
changes = st.tuples(st.floats(0, 1), st.sampled_from([0, 0, 1, 8, 60]), st.sampled_from(PIECES))
acts = st.one_of(
    changes,
    changes,
    st.sampled_from(["ask", "advance", "read around", "remember", "replace all", "format"]),
    st.tuples(st.just("remember"), st.lists(changes, max_size=2), st.lists(changes, max_size=2), st.booleans()),
)


@given(text=st.lists(st.sampled_from(PIECES), max_size=12).map("".join), history=st.lists(acts, max_size=12))
@hypothesis_settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_suggests_what_a_fresh_session_does(text: str, history: list[object]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(session_module, "REMEMBERED", (150, 1 << 19))
        monkeypatch.setattr(session_module, "PENDING", 6)
        monkeypatch.setattr(session_module, "DIFFED", 20)
        monkeypatch.setattr(session_module, "SPACING", 20)
        monkeypatch.setattr(session_module, "shipped_mixer", trusting)
        short = replace(SETTINGS, decode_max_chars=6, decode_lanes=3)
        user = Typist(text + "\n" + NAME)
        user.session.configure(replace(short))
        for act in history:
            _act(user, act, monkeypatch)
        user.settle()
        user.session.configure(replace(short))
        other = fresh(user)
        other.session.configure(short)
        other.settle()
        for cursor in (user.cursor, user.document.size, user.document.character_start(user.document.size // 2)):
            user.cursor = other.cursor = cursor
            assert same(user.ask(), other.ask())


def _act(user: Typist, act: object, monkeypatch: pytest.MonkeyPatch) -> None:
    data = user.document.data
    match act:
        case "ask":
            user.ask()
        case "advance":
            user.session.advance(URI)
        case "read around":
            user.session.read_around(URI)
        case "remember":
            user.session.remember(URI)
        case "replace all":
            places = [at for at in range(len(data)) if data.startswith(b"frob", at)]
            if places:
                user.edits([Edit(at, at + 4, b"b\r\nob") for at in reversed(places)])
        case "format":
            user.edit(0, len(data), data.decode().replace("    ", "\t").replace("(a)", "(b, c)"))
        case ("remember", before, after, advances):
            assert isinstance(before, list)
            assert isinstance(after, list)

            def change(edits: list[object]) -> None:
                for edit in edits:
                    _act(user, edit, monkeypatch)
                    if advances:
                        user.session.advance(URI)

            while_counting(monkeypatch, lambda: change(before), lambda: change(after))
            user.session.remember(URI)
            monkeypatch.setattr(DocumentCounts, "build", staticmethod(BUILD))  # should there be nothing to count
        case (float(share), int(length), str(new)):
            start = user.document.character_start(round(share * user.document.size))
            end = user.document.character_start(min(start + length, user.document.size))
            user.edit(start, max(start, end), new)
        case _:
            raise AssertionError(act)
