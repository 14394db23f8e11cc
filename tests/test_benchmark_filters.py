"""The benchmark of the filters runs on little text, and what it finds is what was typed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import TINY_WORD

from lsp_charrnn.engine.filters import FILTERS, Filter, Surroundings
from lsp_charrnn.evaluate.replay import Window

ROOT = Path(__file__).parent.parent
AROUND = Surroundings(b"", b"")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the benchmark, whatever pytest was started by."""
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.filters")


@pytest.fixture(scope="session")
def heldout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two short files, in which the tiny model knows its way, also between brackets."""
    directory = tmp_path_factory.mktemp("heldout")
    for name in ("one", "two"):
        word = TINY_WORD.removesuffix("\n")
        lines = "".join(f"    v{i % 10} = {TINY_WORD}    w = [{word[:-3]}, quart{i % 7}]\n" for i in range(30))
        (directory / f"{name}.py").write_text(f"# {name} 😀\ndef {name}():\n{lines}", "utf-8")
    return directory


def test_it_measures(heldout: Path, tiny_model: Path, tmp_path: Path) -> None:
    json_path = tmp_path / "figures.json"
    options = ["--quick", "--windows", "1", "--keys", "20", "--heldout", heldout, "--model", tiny_model]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.filters", *map(str, options), "--json", str(json_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(json_path.read_text("utf-8"))
    assert list(data["measurements"]) == ["at the end", "in the middle", "between lines", "between brackets"]
    for found in data["measurements"].values():
        assert {"", "all", *(each.name for each in FILTERS)} <= set(found)
        whole = found[""]
        assert whole["requests"] == whole["keys"] > 0
        assert set(whole["fired"]) == {each.name for each in FILTERS}
        assert all(fired <= whole["requests"] for fired in whole["fired"].values())
        assert all(without["keys_without"] == whole["keys_without"] for without in found.values())
        assert not found["all"]["fired"]
        for name, fired in whole["fired"].items():
            assert fired or found[name] == whole
            assert not found[name]["fired"].get(name)
    assert all(row["reached"].endswith("points") for row in data["figures"])


def test_what_is_watched_keeps_a_tally(benchmark: ModuleType) -> None:
    tally = benchmark.Tally()
    watched = benchmark.watched(Filter("short", lambda text, around: text[:3]), tally)
    assert watched.look(b"abcd", AROUND) == b"abc"
    assert tally.now == {"short"}
    tally.now.clear()
    assert watched.look(b"abc", AROUND) == b"abc"
    assert tally.now == set()
    assert tally.calls["short"] == 2
    assert tally.seconds["short"] > 0


def test_windows_in_brackets_end_before_the_closing_one(benchmark: ModuleType) -> None:
    text = "x = f(first, second)\ny = [a]\n"
    between = benchmark.in_brackets(Window("p", "a.py", "python", text, 0, text.index("\n")))
    assert text[between.start : between.end] == "first, second"
    assert benchmark.in_brackets(Window("p", "a.py", "python", "y = [a]\n", 0, 7)) is None
