"""The engine as a suggester: what is typed reaches it, and the file that is open is not its project's."""

import asyncio

import pytest

from lsp_charrnn.engine import session
from lsp_charrnn.evaluate.alone import MemoriesAlone, NoModel
from lsp_charrnn.evaluate.inprocess import PATIENT, InProcess
from lsp_charrnn.evaluate.replay import Window
from lsp_charrnn.model.files import load_model
from lsp_charrnn.train.corpus import SourceFile

LINE = "    zyxwombat_frobnicator(self)\n"
OTHER = SourceFile("p", "other.py", (LINE * 30).encode(), "python")


def a_window(text, start, *, path="here.py", project="p"):
    return Window(project, path, "python", text, start, len(text))


def shown_in(suggester, window, typed):
    """Return what is shown after each character of `typed`, and at which probability."""

    async def type_it():
        await suggester.open(window, window.text[: window.start], "")
        found = [(await suggester.suggest(character), suggester.probability) for character in typed]
        await suggester.close()
        return found

    return asyncio.run(type_it())


def test_it_completes_as_the_model_expects_and_says_how_likely_that_is(tiny_model):
    suggester = InProcess(load_model(tiny_model), settings=PATIENT)
    (nothing, at_first), (text, probability) = shown_in(suggester, a_window("import os\n", 10), ["#", "q"])
    assert (nothing, at_first) == ("", 0.0) or at_first > 0
    assert "uartz(x)".startswith(text)
    assert text
    assert 0 < probability <= 1


def test_the_project_is_remembered_and_the_open_file_is_left_out_of_it():
    """The same name, in another file of the project, in the open one's own saved text, in another project."""
    own = SourceFile("p", "here.py", OTHER.text, "python")
    elsewhere = SourceFile("q", "other.py", OTHER.text, "python")
    for files, known in (([OTHER], True), ([own], False), ([elsewhere], False), ([OTHER, own], True), ([], False)):
        suggester = InProcess(NoModel(), files, PATIENT)
        text, _ = shown_in(suggester, a_window("import os\n\n\n", 12), "zyxwo")[-1]
        assert text.startswith("mbat") is known, (files, text)


def test_the_document_is_remembered_on_either_side_of_the_cursor(monkeypatch):
    monkeypatch.setattr(session, "REMEMBERED", (64, 1 << 19))  # at once, hardly anything: the rest is `open`'s
    window = a_window(LINE * 3 + "# far from it\n" * 50, 3 * len(LINE) + 50 * 14)
    assert shown_in(InProcess(NoModel(), settings=PATIENT), window, "zyxwo")[-1][0].startswith("mbat")


def test_opening_shows_nothing(tiny_model):
    """What was completed before the first key would be typed along, and its probability that of more than is shown."""
    suggester = InProcess(load_model(tiny_model), settings=PATIENT)
    window = a_window("import os\nq", 11)
    (text, probability), *_ = shown_in(suggester, window, "u")
    again = shown_in(InProcess(load_model(tiny_model), settings=PATIENT), a_window("import os\nqu", 12), [""])
    assert again[0] == (text, pytest.approx(probability, abs=1e-3))


def test_the_memories_alone_are_the_same_without_a_model():
    alone, engine = MemoriesAlone([OTHER], PATIENT), InProcess(NoModel(), [OTHER], PATIENT)
    window = a_window("import os\n\n\n", 12)
    assert shown_in(alone, window, "zyxwo") == shown_in(engine, window, "zyxwo")
