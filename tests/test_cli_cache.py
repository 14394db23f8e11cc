"""The command line's side of the projects' memories: what is kept is listed and cleared, and `complete` uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lsp_charrnn import cli
from lsp_charrnn.engine import session
from lsp_charrnn.project.cache import cache_directory, cache_file
from lsp_charrnn.project.memory import ProjectMemory

TEXT = "def quantity_of(basket):\n    return basket.quantity\n" * 20


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without settings, whose cache is empty."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    return home


def work_tree(root: Path) -> Path:
    """Make a work tree of three files."""
    for path in ("cart.py", "shop/basket.py", "shop/order.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(TEXT)
    (root / ".git").mkdir()
    return root


def run(*arguments: str | Path) -> str:
    """Run a command that succeeds; return what it prints."""
    done = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert done.exit_code == 0, done
    return done.stdout


def listed() -> list[dict[str, object]]:
    return list(json.loads(run("cache", "list", "--json")))


def suggested(place: Path) -> list[str]:
    # The last line: before it may stand what the terminal is told of the project's reading.
    answer = json.loads(run("complete", place, "--json").splitlines()[-1])
    return [completion["text"] for completion in answer["completions"]]


def test_an_empty_cache(home: Path, tmp_path: Path) -> None:
    assert "nothing is kept in " in run("cache", "list")
    assert listed() == []
    assert run("cache", "clear") == "removed what was kept of 0 projects\n"
    assert run("cache", "clear", tmp_path) == "removed what was kept of 0 projects\n"
    assert list(home.iterdir()) == []


def test_what_is_kept_is_listed_and_cleared(tmp_path: Path) -> None:
    roots = [work_tree(tmp_path / name) for name in ("some [bold]shop", "other")]
    for root in roots:
        ProjectMemory(root, cache=cache_file(root)).refresh()
    (cache_directory() / "broken.counts").write_bytes(b"broken")
    assert {row["project"] for row in listed()} == {str(root) for root in roots}
    for row in listed():
        assert Path(str(row["file"])).parent == cache_directory()
        assert row["bytes"] == Path(str(row["file"])).stat().st_size
    done = subprocess.run(
        [sys.executable, "-m", "lsp_charrnn", "cache", "list"],
        capture_output=True,
        env={**os.environ, "COLUMNS": "300"},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    for root in (cache_directory(), *roots):
        assert str(root) in done.stdout.decode()
    assert run("cache", "clear", roots[0]) == "removed what was kept of 1 projects\n"
    assert [row["project"] for row in listed()] == [str(roots[1])]
    assert run("cache", "clear") == "removed what was kept of 2 projects\n"
    assert list(cache_directory().iterdir()) == []


def test_complete_uses_the_project_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of another file is suggested in a work tree, and not outside of one."""
    monkeypatch.setattr(session, "LEAST_BUDGET_MS", 5000.0)  # whatever else this machine does
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for root in (inside, outside):
        (root / "src").mkdir(parents=True)
        (root / "src/other.py").write_text("    zyxwombat_frobnicator(self)\n" * 30)
        (root / "src/here.py").write_text("import os\n\n\ndef main():\n    zyxwo")
    (inside / ".git").mkdir()
    for _ in range(2):  # counted, and from the cache
        assert any(text.startswith("mbat_frob") for text in suggested(inside / "src/here.py"))
        assert [row["project"] for row in listed()] == [str(inside)]
    assert not any("frob" in text for text in suggested(outside / "src/here.py"))
    assert len(listed()) == 1


def test_a_file_is_no_part_of_its_project(tmp_path: Path) -> None:
    root = tmp_path / "work"
    root.mkdir()
    (root / ".git").mkdir()
    (root / "a.py").write_text("alpha = 1\n")
    assert cli._project_around(tmp_path / "nowhere.py") is None
    memory = cli._project_around(root / "a.py")
    assert memory is not None
    assert memory.files == 1
    assert memory.tables("a.py") != ()
    assert sum(int(table.counts.sum()) for table in memory.tables("a.py")) == 0
