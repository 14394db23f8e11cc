"""The examples run, against the real server and the shipped model: what `make try` shows can't rot."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_try_it_shows_ghost_text_and_what_to_do_next() -> None:
    before = (EXAMPLES / "inventory.py").read_bytes()
    done = subprocess.run(
        [sys.executable, EXAMPLES / "try_it.py"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Server started" in done.stdout
    keys = re.findall(r"^ *(?:Tab|\S) +\d+\.\d ", done.stdout, re.MULTILINE)
    assert len(keys) > 20, "one line a key"
    assert re.search(r"^Tab ", done.stdout, re.MULTILINE), "something must be right often enough to be taken"
    assert re.search(r"\d+% saved", done.stdout)
    for step in ("editors/nvim", "editors/vscode", "complete FILE:LINE", "pip install -e '.[train]'", "train PATH"):
        assert step in done.stdout
    assert (EXAMPLES / "inventory.py").read_bytes() == before, "typing in an editor's buffer changes no file"
