"""Pairs of probability and truth: which are made, into which halves they go, and what is reported of them."""

import json

import pytest

from lsp_charrnn.errors import CorpusError, ModelError
from lsp_charrnn.evaluate import shown
from lsp_charrnn.evaluate.replay import Window
from lsp_charrnn.evaluate.shown import ShownReport, measure_reliability

TEXT = "import os\nimport sys\n"


class Scripted:
    """Suggests by the text before the cursor, from a table of texts and probabilities, and the rest typed along."""

    name = "scripted"

    def __init__(self, suggestions):
        self.suggestions = suggestions
        self.probability = 0.0

    async def open(self, window, before, after):
        self.before, self.text = before, ""

    async def suggest(self, typed):
        self.before += typed
        self.text = self.text[len(typed) :] if self.text.startswith(typed) else ""
        for end, suggestion in self.suggestions.items():
            if self.before.endswith(end):
                self.text, self.probability = suggestion
        return self.text

    async def close(self):
        pass


def a_window(project, text=TEXT):
    return Window(project, "a.py", "python", text, 0, len(text))


def test_a_pair_is_of_a_distinct_suggestion_when_it_is_first_shown():
    # "mport os" is right and taken, "mport osx" wrong and shown while "mport " is typed, "ys" right.
    suggester = Scripted({"i": ("mport os", 0.7), "\ni": ("mport osx", 0.4), "import s": ("ys", 0.9)})
    assert shown._pairs(a_window("p"), suggester) == ((0.7, True), (0.4, False), (0.9, True))


def test_what_goes_beyond_what_the_author_wrote_was_wrong():
    suggester = Scripted({"import sys": ("\nx", 0.9), "import os": ("\n", 0.8)})
    assert shown._pairs(a_window("p"), suggester) == ((0.8, True), (0.9, False))


def report_of(projects, pairs):
    return ShownReport("tiny", tuple(map(a_window, projects)), tuple(map(tuple, pairs)))


def test_the_files_of_a_project_are_in_one_half():
    assert report_of("abcabc", [[]] * 6).halves() == [0, 1, 0, 0, 1, 0]
    assert report_of("aaa", [[]] * 3).halves() == [0, 1, 0]


def test_corrections_are_scored_on_the_other_half():
    groups = [[(0.5, True)] * 30 + [(0.5, False)] * 10, [(0.5, True)] * 10 + [(0.5, False)] * 30]
    report = report_of("ab", groups)
    found = report.reliability
    assert found.count == 80
    assert found.temperature == pytest.approx(1.0)
    assert found.temperatures == pytest.approx((0.415, 2.0), abs=1e-3)
    assert found.tempered_scores.log_loss > found.scores.log_loss
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["model"] == "tiny"
    assert [window["half"] for window in data["windows"]] == [0, 1]
    assert data["windows"][0]["shown"][0] == [0.5, True]
    assert report.table().title == "Reliability of 80 suggestions, model tiny, typing at the end of 2 files"


def test_where_one_half_shows_nothing_there_is_no_other_to_score_on():
    found = report_of("ab", [[(0.5, True), (0.4, False)], []]).reliability
    assert (found.count, found.temperatures) == (2, ())


@pytest.fixture
def heldout(tmp_path):
    for project in ("one", "two"):
        (tmp_path / project).mkdir()
        lines = "".join(f"    v{i % 10} = quartz(x)\n    w = quart{i % 7}\n" for i in range(30))
        (tmp_path / project / "a.py").write_text(f"# {project}\ndef {project}():\n{lines}")
    return tmp_path


def test_held_out_files_are_typed_and_always_the_same(heldout, tiny_model):
    told = []
    paths = [heldout / "one", heldout / "two"]
    report = measure_reliability(paths, model=tiny_model, keys=60, progress=lambda *done: told.append(done))
    assert told == [(0, 2), (1, 2)]
    assert [window.project for window in report.windows] == ["one", "two"]
    assert all(report.pairs)
    assert all(0 < p <= 1 for of in report.pairs for p, _ in of)
    assert any(right for of in report.pairs for _, right in of)
    assert measure_reliability(paths, model=tiny_model, keys=60).pairs == report.pairs


def test_what_cannot_be_measured_is_one_sentence(heldout, tiny_model, monkeypatch):
    with pytest.raises(CorpusError, match="long enough"):
        measure_reliability([heldout], model=tiny_model, keys=100_000)
    with pytest.raises(ModelError, match="no-such-model"):
        measure_reliability([heldout], model="no-such-model", keys=60)
    monkeypatch.setattr(shown, "_pairs", lambda window, suggester: ())
    with pytest.raises(CorpusError, match="Nothing was shown in 2 files of 60 keys"):
        measure_reliability([heldout], model=tiny_model, keys=60)
