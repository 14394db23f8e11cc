"""The threat model names tests and places: all of them are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "security.md").read_text("utf-8")
TESTS = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))


def test_every_test_that_it_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in TESTS} == set()


def test_every_place_that_it_names_exists() -> None:
    named = set(re.findall(r"`((?:tests|model|server|train|project|inside|editors|benchmarks)/[\w./]*)`", TEXT))
    named |= set(re.findall(r"`((?:private|config)\.py)`", TEXT))
    assert len(named) > 10
    assert {name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "lsp_charrnn"))} == set()


def test_every_command_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", TEXT)) <= targets
