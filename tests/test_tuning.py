"""`train --base … --install`: from a user's project to the model that serves it, and all that must be refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lsp_charrnn import cli, tuning
from lsp_charrnn.errors import CorpusError, ModelError, OutputError, SettingError, UserError
from lsp_charrnn.evaluate import tuned
from lsp_charrnn.evaluate.inprocess import PATIENT
from lsp_charrnn.model.files import load_model
from lsp_charrnn.model.installed import alone, install, installed_model, is_unfinished, place_of
from lsp_charrnn.train import loop
from lsp_charrnn.train.progress import Display
from lsp_charrnn.train.run import work_dir
from lsp_charrnn.tuning import base_of

OPTIONS = ["--batch", "4", "--bptt", "32", "--checkpoint-every", "4", "--device", "cpu"]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has no data yet, and who won't wait long."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data"))
    draw = loop.draw
    monkeypatch.setattr(loop, "draw", lambda *arguments, **options: draw(*arguments, **{**options, "length": 8}))
    monkeypatch.setattr(tuned, "KEYS", (25,))
    monkeypatch.setattr(tuned, "WINDOWS", 2)
    compare = tuning.compare
    short = replace(PATIENT, decode_max_chars=12, decode_lanes=2)
    monkeypatch.setattr(tuning, "compare", lambda *arguments, **options: compare(*arguments, settings=short, **options))
    return tmp_path / "data"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    for number in range(12):
        lines = [f"def value_{number}_{i}(left, right):\n    return left * {number} - right\n" for i in range(6)]
        (root / f"module_{number}.py").write_text("\n".join(lines))
    return root


def train(project: Path, base: Path, *more: str | Path, steps: int = 12) -> Result:
    arguments = ["train", project, "--base", base, "--steps", steps, *OPTIONS, *more]
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def refused(result: Result, kind: type[UserError]) -> str:
    assert isinstance(result.exception, kind), result
    assert "\n" not in str(result.exception)
    return str(result.exception)


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def listed() -> list[dict[str, Any]]:
    return list(json.loads(CliRunner().invoke(cli.app, ["models", "list", "--json"]).stdout))


def test_what_was_gained_is_told_and_stands_on_the_card(project: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = train(project, tiny_model, "--out", tmp_path / "mine")
    assert result.exit_code == 0, result
    assert "bits per character" in result.stdout
    assert "keystrokes saved" in result.stdout
    figures = load_model(tmp_path / "mine").config["evaluation"]["tuned"]
    assert figures["bits_per_char_after"] < figures["bits_per_char_before"]
    assert figures["before"] == "tiny"
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "| tuned: bits per char before |" in card
    assert f"It has read python and nothing else, but for what {tiny_model} had read." in card
    assert installed_model(project) is None


def test_a_better_model_is_installed_and_listed_and_removed(project: Path, tiny_model: Path) -> None:
    result = train(project, tiny_model, "--install")
    assert result.exit_code == 0, result
    assert f"Installed for {project}: " in result.stdout
    path = installed_model(project)
    assert path is not None
    assert load_model(path).name == "shop"
    assert load_model(path).config["evaluation"]["tuned"]["bits_change"] < 0
    left = {entry.name for entry in place_of(project).iterdir()}
    assert left == {"installed.json", "lock", path.name, "tuned.training"}
    assert not is_unfinished(project)
    assert [row["path"] for row in listed() if row["project"] == str(project)] == [str(path)]
    shown = CliRunner().invoke(cli.app, ["models", "list"], env={"COLUMNS": "400"}).stdout
    assert str(project) in shown
    assert str(path) in CliRunner().invoke(cli.app, ["models", "verify"], env={"COLUMNS": "400"}).stdout
    assert train(project, tiny_model, "--install", steps=24).exit_code == 0  # there is room for the next one
    assert installed_model(project) != path
    assert CliRunner().invoke(cli.app, ["models", "uninstall", str(project)]).exit_code == 0
    assert installed_model(project) is None
    again = CliRunner().invoke(cli.app, ["models", "uninstall", str(project)])
    assert "no model is installed for" in refused(again, ModelError)


def test_what_is_read_and_from_where_it_starts_is_found_out(
    project: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    for name, languages in (("a-first", ["go"]), ("b-second", ["python"])):
        shutil.copytree(tiny_model, models / name)
        config = json.loads((models / name / "config.json").read_text())
        (models / name / "config.json").write_text(json.dumps({**config, "name": name, "languages": languages}))
    monkeypatch.setenv("LSP_CHARRNN_MODELS", str(models))
    (project / "tool.go").write_text("package main\n" + "func f() int { return 1 }\n" * 40)
    assert base_of("auto", [project]) == str(models / "b-second")
    assert base_of("tiny", [project]) == "tiny"
    result = train(project, Path("auto"), "--out", tmp_path / "mine")
    assert result.exit_code == 0, result
    config = load_model(tmp_path / "mine").config
    assert config["evaluation"]["tuned"]["before"] == "b-second"
    assert config["languages"] == ["python"]  # the base knows no Go
    for path in project.glob("*.py"):
        path.unlink()
    assert base_of("auto", [project]) == str(models / "a-first")
    (project / "tool.go").unlink()
    with pytest.raises(CorpusError, match="no file in a programming language"):
        base_of("auto", [project])


def test_where_the_user_wants_it_it_stays(project: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = train(project, tiny_model, "--install", "--out", tmp_path / "mine", "--json")
    assert result.exit_code == 0, result
    assert load_model(tmp_path / "mine").name == "mine"
    path = installed_model(project)
    assert path is not None
    assert {entry.name for entry in place_of(project).iterdir()} == {"installed.json", "lock", path.name}
    told = lines_of(result)
    assert told[0] == {"phase": "reading"}
    steps = [line["step"] for line in told if line["phase"] == "training"]
    assert steps == sorted(steps)
    assert {4, 8, 12} <= set(steps)
    assert told[-1]["phase"] == "done"
    assert told[-1]["installed"] is True
    assert told[-1]["model"] == str(path)
    assert told[-1]["report"]["bits_change"] < 0
    assert "fewer bits on" in told[-1]["sentence"]


def test_a_model_that_is_no_better_is_not_installed(project: Path, tiny_model: Path) -> None:
    assert train(project, tiny_model, "--install").exit_code == 0
    best = installed_model(project)
    assert best is not None
    # From the best one, with steps that only harm: what comes out is what went in.
    result = train(project, best, "--install", "--lr", "9", "--json")
    sentence = refused(result, ModelError)
    assert "no better than the one before" in sentence
    assert str(place_of(project) / "tuned") in sentence
    assert lines_of(result)[-1]["installed"] is False
    assert installed_model(project) == best
    assert load_model(place_of(project) / "tuned").spec == load_model(best).spec
    assert "--force" in refused(train(project, tiny_model, "--install"), OutputError)
    # Better than the base, and worse than what is installed.
    result = train(project, tiny_model, "--install", "--force", steps=5)
    assert "no better than the one installed" in refused(result, ModelError)
    assert installed_model(project) == best


def test_what_cannot_be_judged_is_refused_before_the_training(
    project: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop._Run, "update", lambda *_: pytest.fail("it trained"))
    alone_in = tmp_path / "single"
    alone_in.mkdir()
    shutil.copy(project / "module_1.py", alone_in)
    assert "two files at least" in refused(train(alone_in, tiny_model, "--install"), CorpusError)
    assert "no project's directory" in refused(train(project / "module_1.py", tiny_model, "--install"), SettingError)
    assert "give one PATH" in refused(train(project, tiny_model, alone_in, "--install"), SettingError)
    result = CliRunner().invoke(cli.app, ["train", str(project), "--install"])
    assert "--install needs --base" in refused(result, SettingError)
    assert "--out is missing" in refused(CliRunner().invoke(cli.app, ["train", str(project)]), SettingError)
    refused(train(project, tmp_path / "no model", "--install"), ModelError)
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert "for one process" in refused(train(project, tiny_model, "--install"), SettingError)
    with alone(project):
        assert "is being trained already" in refused(train(project, tiny_model, "--install"), OutputError)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.onnx").write_bytes(b"damaged")
    assert "model.onnx" in refused(train(project, broken, "--install"), ModelError)


def test_a_damaged_model_that_is_installed_is_no_rival(project: Path, tiny_model: Path) -> None:
    (install(tiny_model, project) / "model.onnx").write_bytes(b"damaged")
    assert train(project, tiny_model, "--install").exit_code == 0


def test_a_training_that_was_stopped_goes_on(project: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show = Display.__call__

    def pressing(display: Display, progress: loop.Progress) -> None:
        show(display, progress)
        if progress.step == 6:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Display, "__call__", pressing)
        result = train(project, tiny_model, "--install")
    assert result.exit_code == cli.INTERRUPTED
    assert is_unfinished(project)
    assert work_dir(place_of(project) / "tuned").exists()
    assert installed_model(project) is None
    assert "--resume" in refused(train(project, tiny_model, "--install"), OutputError)
    assert train(project, tiny_model, "--install", "--resume").exit_code == 0
    assert installed_model(project) is not None
    assert not is_unfinished(project)


def test_complete_uses_the_projects_own_model(project: Path, tiny_model: Path) -> None:
    (project / ".git").mkdir()
    place = str(project / "module_1.py")
    told = json.loads(CliRunner().invoke(cli.app, ["complete", place, "--json"]).stdout.splitlines()[-1])
    assert told["model"] != "tiny"
    install(tiny_model, project)
    told = json.loads(CliRunner().invoke(cli.app, ["complete", place, "--json"]).stdout.splitlines()[-1])
    assert told["model"] == "tiny"


def test_when_who_listened_has_gone_it_stops_with_a_checkpoint(project: Path, tiny_model: Path, data: Path) -> None:
    """A real process, deaf to Ctrl-C by inheritance, whose parent dies while it trains."""
    command = [sys.executable, "-m", "lsp_charrnn", "train", str(project), "--base", str(tiny_model), "--install"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*command, *OPTIONS, "--minutes", "30", "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "XDG_DATA_HOME": str(data.parent)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["phase"] == "training":
                break
        process.stdout.close()
        try:
            assert process.wait(timeout=60) == cli.INTERRUPTED
        finally:
            process.kill()
        errors.seek(0)
        assert b"this goes on from it" in errors.read()
