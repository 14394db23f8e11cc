"""The pages: the command reference is what the commands say of themselves, and every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "commands.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("editors/*/README.md")])
_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_the_command_reference_is_not_stale(tmp_path: Path) -> None:
    """It is written anew as `make commands` does it, and compared."""
    now = tmp_path / "commands.md"
    program = [sys.executable, "-m", "typer", "lsp_charrnn.cli", "utils", "docs"]
    subprocess.run(
        [*program, "--name", "lsp-charrnn", "--title", "Commands", "--output", str(now)],
        cwd=ROOT,
        check=True,
        env={**os.environ, "TERM": "dumb", "NO_COLOR": "1"},
        timeout=60,
    )
    assert "## `lsp-charrnn serve`" in now.read_text("utf-8")
    stale = REFERENCE.read_text("utf-8") != now.read_text("utf-8")
    assert not stale, "the commands have changed: `make commands` writes docs/commands.md"


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", _FENCED.sub("", page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower())
        found.add(slug.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = _CODE.sub("", _FENCED.sub("", page.read_text("utf-8")))
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text("utf-8")), f"{page.name} links to {link}: no such heading"


def test_every_page_is_to_be_found() -> None:
    """From the README, directly or by way of another page."""
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for link in _LINK.findall(_CODE.sub("", _FENCED.sub("", page.read_text("utf-8")))):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file():
                waiting.append(target)
    assert set(PAGES) <= seen, f"nothing links to {sorted(str(page) for page in set(PAGES) - seen)}"
