"""Little memory, one core; and a model that is changed on the disk while it is in use."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from surroundings import serving

from lsp_charrnn.errors import NO_MEMORY

ADDRESSES = 600 << 20  # bytes that may be mapped; of these 130 MB are resident
BY_HEART = {"memory.document": False}
FEW_THREADS = """
import threading
def refused(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refused
from lsp_charrnn import cli
cli.main()
"""


def few(limit: int = ADDRESSES) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def test_with_one_core_and_little_memory_and_its_model_cut_meanwhile(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "models" / "tiny"
    shutil.copytree(tiny_model, model)
    root = tmp_path / "project"
    root.mkdir()
    (root / "other.py").write_text("def other():\n    return quarter\n" * 20)
    with serving(model, tmp_path, limit=few) as client:
        client.initialize(root, BY_HEART)
        client.open(root / "a.py", "")
        for column, key in enumerate("qua"):
            client.type(root / "a.py", 0, column, key)
            assert client.ghost(root / "a.py", 0, column + 1) == "quartz(x)"
        assert client.project()["files"] == 1
        for file in model.iterdir():
            os.truncate(file, file.stat().st_size // 2)
        client.open(root / "b.py", "q")
        assert client.ghost(root / "b.py", 0, 1) == "quartz(x)"  # what is loaded is not read again
        assert client.leave() == 0
        assert (client.messages, client.log) == ([], "")
    with serving(model, tmp_path, limit=few) as client:
        client.initialize(root, {**BY_HEART, "model": str(model)})
        client.open(root / "a.py", "q")
        assert client.ghost(root / "a.py", 0, 1) != "quartz(x)"
        said = [message["message"] for message in client.messages]
        assert any("config.json is not JSON" in one and "copy or download the model again" in one for one in said)
        assert client.leave() == 0


def test_too_little_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW_THREADS, "serve"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert " ".join(done.stderr.split()) == f"error: {NO_MEMORY}"
