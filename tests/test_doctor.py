"""The doctor measures what is there, and says what is wrong without ever failing itself."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lsp_charrnn import doctor
from lsp_charrnn.doctor import Problem, Report, StepTime, examine, measure_bandwidths, render
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.train.export import export_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    spec = ModelSpec(hidden=16, embedding=8)
    weights = {name: np.full(shape, 0.1, np.float32) for name, shape in spec.shapes().items()}
    facts: dict[str, Any] = {"training": {}, "evaluation": {}, "card": ""}
    return export_model(weights, spec, tmp_path / "tiny", name="tiny", languages=["python"], **facts)


@pytest.fixture
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsp_charrnn.model.files.search_path", lambda: [tmp_path / "models"])


def shown(report: Report) -> str:
    out = io.StringIO()
    render(report, Console(file=out, width=200))
    return out.getvalue()


def test_a_model_that_is_well(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    report = examine(str(model), seconds=0.02)
    assert report.problems == []
    assert [check.ok for check in report.checks] == [True] * 4
    assert [step.lanes for step in report.steps] == [1, 8, 16]
    assert all(step.microseconds > 0 for step in report.steps)
    assert report.bound_microseconds == pytest.approx(report.size_bytes / max(report.bandwidths.values()) / 1e3)
    assert report.threads == 1
    assert report.cores >= 1
    assert report.cpu
    assert {"python", "onnxruntime", "numpy", "pygls"} <= set(report.versions)
    text = shown(report)
    assert "Nothing is wrong." in text
    assert "GB/s" in text
    assert report.cpu in text  # a figure without its machine says nothing
    json.dumps(asdict(report))


def test_bandwidth_is_that_of_a_cache_or_a_memory() -> None:
    for speed in measure_bandwidths(1 << 20, 0.05).values():
        assert 0.1 < speed < 2000


def test_products_are_those_of_a_core() -> None:
    assert 0.5 < doctor.measure_products(0.05) < 50_000


def test_a_broken_model_is_a_problem_with_a_fix(model: Path) -> None:
    (model / "model.onnx").unlink()
    report = examine(str(model), seconds=0.02)
    assert [check.name for check in report.checks if not check.ok] == ["graph"]
    (problem,) = report.problems
    assert "is missing" in problem.wrong
    assert problem.mend.startswith("copy or download the model again")
    assert report.steps == []
    assert "Nothing is wrong" not in shown(report)
    assert problem.mend in shown(report)


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("name", ["", "nosuch", "/no/such/path"])
def test_no_model(name: str) -> None:
    report = examine(name, seconds=0.02)
    assert len(report.problems) == 1
    assert report.problems[0].mend
    assert report.versions["python"]
    shown(report)


def test_the_first_model_found_is_the_default(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsp_charrnn.model.files.search_path", lambda: [model.parent])
    assert examine(seconds=0.02).model == "tiny"


def test_a_busy_machine_and_a_slow_step_are_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0), raising=False)
    monkeypatch.setattr(doctor, "measure_step", lambda *_: 5000.0)
    wrong = [problem.wrong for problem in examine(str(model), seconds=0.02).problems]
    assert any("busy (99.0" in text for text in wrong)
    assert any("takes 5.0 ms" in text for text in wrong)


def test_figures_follow_from_what_was_measured() -> None:
    report = Report(size_bytes=3_000_000, bandwidths={"slow": 10.0, "fast": 30.0})
    assert report.bound_microseconds == pytest.approx(100)
    report.steps = [StepTime(1, 120), StepTime(8, 200), StepTime(16, 280)]
    assert report.lane_microseconds == pytest.approx(10)
    assert "1.2 ×" in shown(report)
    assert report.bound(16) == pytest.approx(100)
    report.products = 200.0
    assert report.product_microseconds == pytest.approx(15)
    assert [report.bound(lanes) for lanes in (1, 8, 16)] == pytest.approx([100, 120, 240])
    assert "1.7 ×" in shown(report)
    assert Report().bound_microseconds == 0
    assert Report().product_microseconds == 0
    assert Report().lane_microseconds == 0


def test_brackets_in_a_message_are_no_markup() -> None:
    assert "[256]" in shown(Report(problems=[Problem("it holds [256]", "mend [/] it")]))
