"""The comparison of two models on held-out files: the same files, the same keys, and what is said of it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_WORD, tiny_weights
from rich.console import Console

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate import tuned
from lsp_charrnn.evaluate.bits import bits_of
from lsp_charrnn.evaluate.inprocess import PATIENT
from lsp_charrnn.evaluate.tuned import TunedReport, compare
from lsp_charrnn.model.files import load_model
from lsp_charrnn.model.step import Model
from lsp_charrnn.train.corpus import SourceFile
from lsp_charrnn.train.export import build_onnx, build_step_onnx

WORDS = TINY_WORD * 40


def file(path: str, text: str, project: str = "shop") -> SourceFile:
    return SourceFile(project, path, text.encode(), "python")


@pytest.fixture(scope="module")
def knowing(tiny_model: Path) -> Model:
    """It knows `TINY_WORD` by heart."""
    return load_model(tiny_model)


@pytest.fixture(scope="module")
def ignorant() -> Model:
    """It expects everything to be a line's end."""
    weights, spec = tiny_weights()
    weights["output.weight"][:] = 0
    graph, step = build_onnx(weights, spec, quantise=True), build_step_onnx(weights, spec)
    return Model(graph, spec, step_graph=step, name="ignorant")


@pytest.fixture(autouse=True)
def _few_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned, "KEYS", (25,))


def judged(*arguments: Any, **options: Any) -> TunedReport:
    """Compare with short suggestions, which are made in no time."""
    return compare(*arguments, settings=replace(PATIENT, decode_max_chars=12, decode_lanes=2), **options)


def printed(report: TunedReport) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(report.table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_better_model_is_told_from_a_worse_one(knowing: Model, ignorant: Model) -> None:
    judges = [file("a.py", WORDS), file("b.py", "x\n" + WORDS)]
    kept = [file("c.py", "import os\n" * 9)]
    shares: list[float] = []
    report = judged(ignorant, knowing, kept, judges, told=shares.append)
    assert report.is_better
    assert report.before.bits_per_char == bits_of(ignorant, judges).bits_per_char
    assert report.after.bits_per_char == bits_of(knowing, judges).bits_per_char
    assert report.bits_change == report.after.bits_per_char / report.before.bits_per_char - 1 < 0
    assert report.typed is not None
    before, after = report.typed
    assert [r.window for r in before.replays] == [r.window for r in after.replays]
    assert {r.window.path for r in after.replays} == {"a.py", "b.py"}
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1
    sentence = f"{-100 * report.bits_change:.1f} % fewer bits on 2 files it had not seen, {report.points:+.1f} points"
    assert report.sentence().startswith(sentence)
    for shown in ("On 2 files held out", f"{report.before.bits_per_char:.3f}", f"{100 * report.bits_change:+.1f} %"):
        assert shown in printed(report)
    assert report.to_json()["keys"] == after.keys_without
    worse = judged(knowing, ignorant, kept, judges)
    assert not worse.is_better
    assert "% more bits on 2 files" in worse.sentence()


def test_a_model_is_no_better_than_itself_nor_than_a_better_one_in_use(knowing: Model, ignorant: Model) -> None:
    judges = [file("a.py", WORDS)]
    assert not judged(knowing, knowing, [], judges).is_better
    report = judged(ignorant, knowing, [], judges, in_use=knowing)
    assert not report.is_better
    assert report.to_json()["bits_per_char_in_use"] == report.after.bits_per_char
    assert "of the model in use" in printed(report)
    assert judged(ignorant, knowing, [], judges, in_use=ignorant).is_better


def test_files_too_short_to_type_in_are_read_all_the_same(knowing: Model, ignorant: Model) -> None:
    report = judged(ignorant, knowing, [], [file("a.py", TINY_WORD)])
    assert report.typed is None
    assert report.points is None
    assert report.is_better
    assert "keystrokes" not in report.sentence() + printed(report)
    assert "keys" not in report.to_json()
    with pytest.raises(CorpusError):
        judged(ignorant, knowing, [], [])


def test_as_many_keys_as_the_files_let_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned, "KEYS", (400, 200, 100))
    short = [file(f"{n}.py", "some_words\n" * 12) for n in range(9)]
    assert len(tuned._windows([*short, file("long.py", "some_words\n" * 40)])) == 10  # of 100 keys; one has 400
    assert len(tuned._windows([short[0], file("long.py", "some_words\n" * 40)])) == 1


def test_when_the_time_is_up_both_have_typed_the_same(
    knowing: Model, ignorant: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges = [file(f"{n}.py", f"{n}\n" + WORDS) for n in range(3)]
    report = judged(ignorant, knowing, [], judges, seconds=0.0)
    assert report.typed is not None
    assert [len(row.replays) for row in report.typed] == [1, 1]
    monkeypatch.setattr(tuned, "CHARACTERS", 500)
    assert len(judged(ignorant, knowing, [], judges, seconds=0.0).after.files) == 1


def test_the_memories_hold_what_lies_around_and_no_more_than_the_server_counts() -> None:
    judges = [file("a.py", WORDS)]
    windows = tuned._windows(judges)
    large = file("large.py", "x = 1\n" * 900_000)
    kept = [large, file("b.py", "y = 2\n"), file("c.py", "z = 3\n", project="other")]
    assert [one.path for one in tuned._around(windows, kept, judges)] == ["a.py", "b.py"]
