"""The commands that look inside, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "lsp_charrnn", *map(str, arguments)],
        capture_output=True,
        env={**os.environ, "COLUMNS": "200"},
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "some.py"
    file.write_bytes(b"quartz(x)\r\n" * 20 + b"quartz(y)\r\n")
    return file


def test_explore_writes_a_page(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, _ = run("explore", source, "--model", tiny_model, "-o", page, "--line", "21")
    assert (code, "page.html" in out) == (0, True)
    html = page.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert '"name":"tiny"' in html
    assert '"quartz(x)' not in html.partition('id="data"')[0]


def test_explore_refuses_before_it_works(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    for arguments in ([source, "-o", tmp_path], [tmp_path / "none.py", "-o", tmp_path / "page.html"]):
        code, _, err = run("explore", *arguments, "--model", tiny_model)
        assert code == 2
        assert len(err.strip().splitlines()) == 1


def test_surprise_tells_what_was_expected(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, _ = run("surprise", source, "--model", tiny_model, "--json", "--html", page)
    assert code == 0
    (place,) = [one for one in json.loads(out) if one["text"] == "y"]
    assert (place["line"], place["column"], place["instead"], place["whole_line"]) == (21, 8, "x", "quartz(y)")
    assert place["bits"] >= place["excess"] > 10
    html = page.read_text(encoding="utf-8")
    assert 'class="odd"' in html
    assert "expected: x" in html
    code, out, _ = run("surprise", source, "--model", tiny_model)
    assert ":21:8 " in out
    assert "expected x" in out


def test_neurons_makes_a_table(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("one.py", "two.py", "three.py"):
        lines = [f"def f{n}(a, b):\n    return g({n}, [a, '{name}'])  # {n}\n" for n in range(20)]
        (tmp_path / name).write_text("".join(lines))
    code, out, _ = run("neurons", tmp_path, "--model", tiny_model, "--json", "--characters", "2000")
    assert code == 0
    table = json.loads(out)
    assert len(table["properties"]) == 7
    code, out, _ = run("neurons", tmp_path, "--model", tiny_model, "--characters", "2000")
    assert (code, "bracket depth" in out) == (0, True)
    assert not (tiny_model / "neurons.json").exists()
