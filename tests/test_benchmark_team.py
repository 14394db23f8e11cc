"""What a team needs, computed from what was measured, and what an installation takes. No time is tested."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import install, team
from lsp_charrnn.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def level(typists: int, p99: float, rate: float = 4.8) -> team.Level:
    return team.Level(typists, rate * typists, 5.0, p99, 100.0, 80.0)


def test_the_best_is_the_last_before_the_limit() -> None:
    levels = [level(8, 49.0), level(1, 9.0), level(12, 49.9), level(10, 51.0)]
    assert team.best_of(levels) == levels[0]
    assert team.best_of([level(1, 60.0)]) is None


@pytest.mark.parametrize(
    ("users", "keys", "cores", "gigabytes", "machines"),
    [(10, 5.0, 1, 1.0, 1), (1_000, 500.0, 11, 100.0, 1), (100_000, 50_000.0, 1_042, 10_000.0, 40)],
)
def test_the_plan_is_computed(users: int, keys: float, cores: int, gigabytes: float, machines: int) -> None:
    assert team.plan(users, level(10, 40.0)) == team.Plan(users, keys, cores, gigabytes, machines)


def test_the_page_says_what_was_measured_and_what_was_assumed() -> None:
    levels = [level(8, 30.0), level(10, 40.0), level(12, 70.0)]
    lines = team.page_lines(levels, levels[1], [team.plan(users, levels[1]) for users in team.USERS], "a machine")
    assert "| **10** | 48.0 | 5.0 / 40.0 ms | 100 MB | 80 MB |" in lines
    assert "| 100,000 | 50,000 | 1,042 | 10,000.0 GB | 40 |" in lines
    text = "\n".join(lines)
    assert "**48.0 keys per second per core** at a 99th percentile of 40.0 ms (50 at most)" in text
    assert re.search(r"Assumed: 10% .* 5 keys a second each; machines of 64 cores and 256 GB\. .*48\.0;", text)
    page = team.PAGE.read_text("utf-8")
    assert page.index(team.BEGIN) < page.index(team.END)


def test_memory_is_told_by_the_system() -> None:
    pss, private = team.memory_mb(os.getpid())
    assert 0 < private <= pss * 1.01
    with pytest.raises(UserError, match="smaps_rollup"):
        team.memory_mb(2**22 + 1)


def test_packages_are_counted_once_and_without_pip(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "site-packages"
    for name, size in (
        ("ours/a.py", 1_000_000),
        ("ours/__pycache__/a.pyc", 7),
        ("pip/b.py", 9),
        ("single.py", 500_000),
    ):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(b"x" * size)
    (site / "pip-23.dist-info").mkdir()
    (site / "pip-23.dist-info" / "RECORD").write_bytes(b"x" * 10)
    os.link(site / "single.py", site / "again.py")
    assert install.packages_mb(tmp_path) == 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["no-such.whl"], "make dist"), ([str(ROOT / "LICENSE"), "--with", "conda"], "choose of venv, pipx, uvx")],
)
def test_install_says_what_is_wrong(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.install", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stdout
