"""Emacs' eglot, in batch, with the real server and the shipped model: the suggestions in the completion menu.

Not collected by itself: `make test-editors-emacs`, which needs an Emacs with eglot (29, or 28 and the package).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("emacs_eglot.el")
SERVER = [sys.executable, "-m", "lsp_charrnn", "serve"]
BLOCK = """def read_{name}(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    return text


"""
SOURCE = "".join(BLOCK.format(name=name) for name in ("settings", "inventory", "customers", "orders"))
NEW = "def read_invoices(path):\n"
BRACED = """void read_{name}(path) {{
    text = read(file, everything);
    close(file);
    return text;
}}

"""
OTHER = "".join(BRACED.format(name=name) for name in ("settings", "inventory", "customers", "orders"))
OTHER_NEW = "void read_invoices(path) {\n    text = read(fi"


@pytest.mark.parametrize(
    ("name", "source", "start", "begins"),
    [
        ("store.py", SOURCE, NEW + "    with op", "en(path"),
        ("store.py", SOURCE, NEW + '    with open(path, encoding="utf-8") as file:\n        text = file.', "read()"),
        ("store.py", SOURCE, "assert '\N{WINKING FACE}' != read_inv", "entory"),
        ("store.cpp", OTHER, OTHER_NEW, "le"),
        ("store.sh", OTHER, OTHER_NEW, "le"),
    ],
)
def test_eglot_completes(name: str, source: str, start: str, begins: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    file = project / name
    file.write_text(source, encoding="utf-8")
    # A busy machine must not change what is suggested, as it does by the default budget of 50 ms.
    server = [*SERVER, ":initializationOptions", "(:decode (:budgetMs 10000))"]
    homes = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    ran = subprocess.run(
        ["emacs", "-q", "--batch", "-l", str(SCRIPT), str(file), start, *server],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, **homes, "LC_ALL": "C.UTF-8"},
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout.splitlines()[-1])
    assert answer["candidates"], ran.stderr
    assert answer["inserted"].startswith(begins)
    assert answer["inserted"].split("\n")[0].rstrip() in answer["documentation"]
