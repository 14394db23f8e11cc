"""What mkdocs.yml can't say: which page stands where in the site, and that nothing of it is loaded from elsewhere.

Pages are put into sections by name; those that are not named here yet come last, so that none is forgotten.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SECTIONS = {
    "Use it": ["docs/editors.md", "editors/*/README.md", "docs/settings.md", "docs/commands.md"],
    "Teach it": ["docs/training.md", "docs/scale-training.md", "models/*/README.md"],
    "See inside": ["docs/inside.md", "docs/seeds.md", "docs/minimal.md"],
    "How it works": ["docs/architecture.md", "docs/figures.md", "docs/experiments.md"],
    "Trust it": ["docs/security.md", "SECURITY.md", "docs/faults.md", "docs/fuzzing.md", "docs/scale.md"],
    "The project": ["CONTRIBUTING.md", "CHANGELOG.md"],
}  # fmt: skip
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*\bhref=["']?(?:https?:)?//"""
)


def on_config(config: Any) -> Any:
    """Make the navigation of the pages that are there."""
    pages = Path(config["docs_dir"])
    there = {path.relative_to(pages).as_posix() for path in pages.rglob("*.md")}
    nav: list[Any] = [{"lsp-charrnn": "README.md"}]
    left = there - {"README.md"}
    for title, names in SECTIONS.items():
        found = [path.relative_to(pages).as_posix() for name in names for path in sorted(pages.glob(name))]
        left -= set(found)
        if found:
            nav.append({title: found})
    if left:
        nav.append({"More": sorted(left)})
    config["nav"] = nav
    return config


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that loads anything from another host; links that a reader may follow are no loading."""
    found = [text for text in _LOADED.findall(output) if 'rel="canonical"' not in text]
    if found:
        raise SystemExit(f"{page.file.src_uri} would load from elsewhere: {found[0]}")
    return output
