"""The command line: what a newcomer sees, and one clear sentence with exit code 2 for everything that is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    "serve", "complete", "sample", "explore", "neurons", "surprise", "train",
    "evaluate", "evaluate bits", "evaluate typing",
    "evaluate memory", "evaluate reliability", "evaluate fit-mixer", "evaluate surprise",
    "corpus", "corpus fetch", "corpus build", "corpus show",
    "models", "models list", "models show", "models verify", "models renew", "models uninstall", "doctor",
    "lab", "lab counter", "lab selective-counter", "lab state", "lab copy", "lab all", "lab cells", "lab evolution",
    "lab minimal",
]  # fmt: skip


def run(*arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run the command line as a user does; return exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "lsp_charrnn", *map(str, arguments)],
        capture_output=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def refused(*arguments: str | Path, **options: object) -> str:
    """Run what must be refused; return the one sentence."""
    code, out, err = run(*arguments, **options)  # type: ignore[arg-type]
    assert code == 2, (out, err)
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err
    return err.strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "some.py"
    file.write_text("import os\nx = 'ü'\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert "Usage: " in out
    assert len(out.splitlines()) > 6


def test_version() -> None:
    from lsp_charrnn import __version__

    code, out, err = run("--version")
    assert (code, err) == (0, "")
    first, *models = out.splitlines()
    assert first == f"lsp-charrnn {__version__}"
    assert re.fullmatch(r"model python: \d{4}-\d\d-\d\d [0-9a-f]{8} \(format 2, lstm 2×512\)", models[-1])


def test_version_of_models_of_ones_own(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "mine")
    old = shutil.copytree(tiny_model, tmp_path / "old")
    config = json.loads((old / "config.json").read_text("utf-8"))
    digest = config["files"]["weights.safetensors"][:8]
    (old / "config.json").write_text(json.dumps({**config, "format": 1}), "utf-8")
    code, out, err = run("--version", env={"LSP_CHARRNN_MODELS": str(tmp_path)})
    assert (code, err) == (0, "")
    assert f"model mine: {digest} (format 2, lstm 1×32)" in out
    assert re.search(r"^model old: .*models renew", out, re.MULTILINE)


def test_complete_at_a_place(source: Path, tiny_model: Path) -> None:
    code, out, err = run("complete", f"{source}:1:3", "--model", tiny_model, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert (answer["line"], answer["column"]) == (1, 3)
    assert all(0 < completion["probability"] <= 1 for completion in answer["completions"])


def test_complete_counts_columns_in_characters(source: Path, tiny_model: Path) -> None:
    assert json.loads(run("complete", f"{source}:2:7", "--model", tiny_model, "--json")[1])["column"] == 7
    assert "column 9" in refused("complete", f"{source}:2:9", "--model", tiny_model)


def test_complete_shows_text_for_people(source: Path, tiny_model: Path) -> None:
    code, out, _ = run("complete", source, "--model", tiny_model)
    assert code == 0
    assert "ms" in out


@pytest.mark.parametrize(
    "place", ["nothing.py", "", ".", "some.py:4", "some.py:0", "some.py:-1", "some.py:1:0", "some.py:1:99"]
)
def test_complete_refuses_places_that_are_not_there(source: Path, tiny_model: Path, place: str) -> None:
    refused("complete", place, "--model", tiny_model, cwd=source.parent)


def test_complete_refuses_what_is_not_utf8(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "latin.py"
    file.write_bytes(b"x = '\xfc'\n")
    assert "not UTF-8" in refused("complete", file, "--model", tiny_model)


def test_sample_is_reproducible(tiny_model: Path) -> None:
    options = ["sample", "--prompt", "def ", "--length", "40", "--temperature", "5", "--model", str(tiny_model)]
    code, one, err = run(*options, "--seed", "3")
    assert (code, err) == (0, "")
    assert one == run(*options, "--seed", "3")[1]
    assert one != run(*options, "--seed", "4")[1]
    assert one.startswith("def ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["complete", "FILE", "--model", "no-such-model"], "no-such-model"),
        (["complete", "FILE", "--model", "/no/such/model"], "does not exist"),
        (["complete", "FILE", "--model", "EMPTY"], "model"),
        (["models", "show", "EMPTY"], "model"),
        (["models", "verify", "no-such-model"], "no-such-model"),
        (["evaluate", "bits", "/no/such/place"], "/no/such/place"),
        (["evaluate", "typing", "FILE", "--setting", "decode.lane=4"], "decode.lanes"),
        (["evaluate", "typing", "FILE", "--setting", "decode.lanes"], "NAME=VALUE"),
        (["evaluate", "typing", "FILE", "--picture", "OUT"], "--compare"),
        (["evaluate", "typing", "FILE", "--compare", "--picture", "EMPTY"], "is a directory"),
        (["evaluate", "reliability", "/no/such/place"], "/no/such/place"),
        (["evaluate", "reliability", "EMPTY"], "EMPTY"),
        (["evaluate", "reliability", "FILE", "--picture", "OUT"], "long enough"),
        (["evaluate", "reliability", "FILE", "--picture", "EMPTY"], "is a directory"),
        (["evaluate", "reliability", "FILE", "--keys", "5", "--model", "no-such-model"], "no-such-model"),
        (["serve", "--tcp", "nonsense"], "HOST:PORT"),
        (["serve", "--tcp", "1", "--ws", "2"], "exclude"),
        (["serve", "--no-token"], "needs no token"),
        (["serve", "--token-file", "FILE"], "needs no token"),
        (["serve", "--tcp", "1", "--token-file", "EMPTY"], "cannot be read"),
        (["serve", "--tcp", "1", "--token-file", "FILE", "--no-token"], "exclude"),
        (["serve", "--tcp", "0.0.0.0:1", "--no-token"], "reached from other machines"),
        (["train", "EMPTY", "--out", "OUT"], "EMPTY"),
        (["train", "/no/such/place", "--out", "OUT"], "/no/such/place"),
        (["train", "FILE", "--out", "EMPTY"], "--force"),
        (["train", "FILE", "--out", "OUT", "--minutes", "0"], "minutes"),
        (["train", "FILE", "--out", "OUT", "--cell", "elman"], "peephole"),
        (["train", "FILE", "--out", "OUT", "--device", "tpu"], "cuda"),
        (["train", "FILE", "--out", "OUT", "--resume"], "--resume"),
        (["corpus", "fetch", "/no/such/list.toml", "--out", "OUT"], "/no/such/list.toml"),
        (["corpus", "build", "/no/such/place", "--out", "OUT"], "/no/such/place"),
        (["corpus", "build", "EMPTY", "--out", "EMPTY"], "--out"),
        (["corpus", "show", "EMPTY"], "corpus build"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_sentence(source: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    places = {"FILE": str(source), "EMPTY": str(empty), "OUT": str(tmp_path / "out")}
    sentence = refused(*(places.get(argument, argument) for argument in arguments))
    assert places.get(says, says) in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "some.py"], "nothing may be left behind"
    assert not list(empty.iterdir())


@pytest.mark.parametrize("option", ["--tcp", "--ws"])
def test_a_port_in_use_is_named(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in refused("serve", option, f"127.0.0.1:{port}")


def test_models_lists_shows_and_verifies(tiny_model: Path) -> None:
    env = {"LSP_CHARRNN_MODELS": str(tiny_model.parent)}
    assert tiny_model.name in run("models", env=env)[1]
    names = [row["name"] for row in json.loads(run("models", "list", "--json", env=env)[1])]
    assert tiny_model.name in names
    assert run("models", "show", tiny_model.name, env=env)[0] == 0
    code, out, _ = run("models", "verify", tiny_model.name, env=env)
    assert code == 0
    assert "BAD" not in out


def test_models_verify_finds_damage(tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    with (broken / "model.onnx").open("r+b") as graph:
        graph.truncate(1000)
    code, out, _ = run("models", "verify", broken)
    assert code == 2
    assert "BAD" in out
    assert "model.onnx" in refused("complete", __file__, "--model", broken)


def test_models_renew_writes_the_graphs_anew(tiny_model: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(tiny_model, old)
    for name in ("model.onnx", "step.onnx"):
        (old / name).unlink()
    config = json.loads((old / "config.json").read_text("utf-8"))
    (old / "config.json").write_text(json.dumps({**config, "format": 1}), "utf-8")
    assert f"models renew {old}" in refused("complete", __file__, "--model", old)
    assert run("models", "renew", old)[0] == 0
    assert run("models", "verify", old)[0] == 0
    assert "no-such-model" in refused("models", "renew", "no-such-model")


def test_the_shipped_models_are_whole() -> None:
    code, out, err = run("models", "verify", env={"LSP_CHARRNN_MODELS": ""})
    assert code == 0, (out, err)
    assert "python" in out


def test_help_tells_the_defaults_that_hold() -> None:
    from lsp_charrnn.config import TrainOptions
    from lsp_charrnn.model.spec import ModelSpec

    out = " ".join(run("train", "--help")[1].split())
    assert f"Default: {ModelSpec.layers}." in out
    assert f"Default: 128 to {ModelSpec.hidden}, " in out
    assert f"Default: {TrainOptions.batch}, less in a short run." in out
    assert f"Default: {TrainOptions.lr:g}, less with --base." in out
    from lsp_charrnn.evaluate.replay import KEYS, WINDOWS

    for command in ("typing", "reliability"):
        out = run("evaluate", command, "--help")[1]
        assert f"Default: {WINDOWS}." in out
        assert f"Default: {KEYS}." in out


def test_reliability_is_printed_and_drawn(tiny_model: Path, tmp_path: Path) -> None:
    project, made = tmp_path / "project", tmp_path / "made"
    project.mkdir()
    for name in ("one", "two"):
        text = f"def {name}():\n" + "".join(f"    v{i % 10} = quartz(x)\n    w = quart{i % 7}\n" for i in range(30))
        (project / f"{name}.py").write_text(text, "utf-8")
    options = ["--model", tiny_model, "--keys", "60", "--picture", made / "a.png"]
    code, out, err = run("evaluate", "reliability", project, *options)
    assert code == 0, err
    assert "out of sample" in out
    assert "1/2 files" in err
    data = json.loads(run("evaluate", "reliability", project, *options, "--json")[1])
    assert f"Reliability of {data['count']:,} suggestions, model tiny" in out
    assert (made / "a.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in made.iterdir()) == ["a.png"]
