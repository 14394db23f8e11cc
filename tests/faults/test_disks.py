"""Where nothing can be written, whatever command there is says so in a sentence, and leaves what was there as it was.

That single files appear whole or not at all, and in which state things are when a disk fills up midway, is tested
beside what writes them: `docs/faults.md` says where.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_tiny

from lsp_charrnn.errors import OutputError
from lsp_charrnn.train.card import add_evaluation

TRAIN = ("--steps", "2", "--layers", "1", "--hidden", "16", "--batch", "2", "--bptt", "16", "--device", "cpu")


def contents(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fault", ["read-only", "full"])
def test_every_command_that_writes(fault: str, tiny_model: Path, tmp_path: Path) -> None:
    place, project = tmp_path / "place", tmp_path / "project"
    project.mkdir()
    for number in range(8):
        lines = "".join(f"def name{number}_{row}(value):\n    return [value, {row}]\n" for row in range(40))
        (project / f"m{number}.py").write_text(lines)
    make_tiny(place / "tiny")
    config = json.loads((place / "tiny" / "config.json").read_text())
    (place / "tiny" / "config.json").write_text(json.dumps({**config, "format": 1}))
    listed = tmp_path / "list.toml"
    listed.write_text(
        '[[package]]\nname = "cpython-lib"\nversion = "3.11.7"\nlicence = "PSF-2.0"\nkind = "stdlib"\n'
        f'sha256 = "{"0" * 64}"\n'
    )
    file, tiny = str(project / "m1.py"), str(tiny_model)
    commands = [
        ["explore", file, "-m", tiny, "-o", str(place / "page.html")],
        ["surprise", file, "-m", tiny, "--html", str(place / "page.html")],
        ["neurons", str(project), "-m", str(place / "tiny"), "--save"],
        ["train", str(project), "--out", str(place / "model"), "--project-share", "1", *TRAIN],
        ["lab", "counter", "--out", str(place / "lab"), "--steps", "1"],
        ["corpus", "fetch", str(listed), "--out", str(place / "fetched")],
        ["models", "renew", str(place / "tiny")],
    ]
    if fault == "read-only":  # on a full disk it starts a cluster first: test_build has that
        commands.append(["corpus", "build", str(project), "--out", str(place / "corpus")])
    before = contents(place)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("on_a_bad_disk.py"), fault, str(place)],
        input=json.dumps(commands),
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path / "matplotlib"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for command, came in zip(commands, map(json.loads, done.stdout.splitlines()), strict=True):
        assert came["code"] == 2, (command, came)
        sentences = [line for line in came["said"].splitlines() if line.startswith("error: ")]
        assert len(sentences) == 1, (command, came)
        assert str(place) in sentences[0], (command, came)
        assert "Traceback" not in came["said"], (command, came)
    assert {name: data for name, data in contents(place).items() if name in before} == before


def test_figures_for_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_tiny(tmp_path / "tiny")
    before = contents(model)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot rewrite the card .*No space left"):
        add_evaluation(model, {"bits_per_char": 1.0})
    assert contents(model) == before


def test_a_full_disk_that_takes_what_is_printed(tiny_model: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lsp_charrnn", "models", "list", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "LSP_CHARRNN_MODELS": str(tiny_model.parent)},
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 2
    assert "cannot write what is printed (No space left on device)" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
