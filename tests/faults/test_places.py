"""Projects that are hard to read: names that are no text, links in circles, pipes, clocks, a hundred thousand files."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

import pytest
from surroundings import serving

import lsp_charrnn
from lsp_charrnn.project.memory import ProjectMemory

TEXT = "".join(
    f"def {name}(value):\n    return value + {name}_of(value)\n" for name in ("early", "late", "never", "ever")
)
# Nothing that a server has of its own accord: Python turns the locale C into UTF-8 if it is let.
LOCALE_C = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
CLOCKS = {"time.time", "time.time_ns", "time.ctime", "time.localtime", "datetime.now", "datetime.utcnow", "date.today"}


def made(root: Path) -> Path:
    """Make a project of two files to read, and of much that isn't one; return one of the two."""
    folder = root / os.fsdecode(b"sub dir\n\xff")
    folder.mkdir(parents=True)
    file = folder / "new\nline.py"
    for path in (file, root / os.fsdecode(b"caf\xc3\xa9 \xfe.py")):
        path.write_text(TEXT)
    os.mkfifo(root / "pipe.py")
    os.mkfifo(folder / ".gitignore")
    (root / "circle").symlink_to(".")
    (root / "itself").symlink_to("itself")
    (folder / "up_and_down").symlink_to(folder)
    (root / "endless.py").symlink_to("/dev/zero")
    return file


def test_names_that_are_no_text_circles_and_pipes_in_the_locale_c(tiny_model: Path, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"a project\nwith \xff and \xc3\xa9")
    path = made(root)
    with serving(tiny_model, tmp_path, environment=LOCALE_C) as client:
        client.initialize(root, {"memory.document": False})
        client.open(path, "# caf\u00e9\n")
        for column, key in enumerate("qua"):
            client.type(path, 1, column, key)
        project = client.project()
        assert (project["files"], project["characters"]) == (2, 2 * len(TEXT))
        assert client.ghost(path, 1, 3) == "quartz(x)"
        assert client.leave() == 0
        assert (client.messages, client.log) == ([], "")
    # The next start has it from the cache.
    kept = list((tmp_path / "cache").iterdir())
    assert [file.suffix for file in kept] == [".counts"]


def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    root = tmp_path / "project"
    for number in range(100):
        folder = root / f"part{number}"
        folder.mkdir(parents=True)
        (folder / "m0.py").write_text(f"# part {number}\n{TEXT}")
        for other in range(1, 1000):
            os.link(folder / "m0.py", folder / f"m{other}.py")
    cap = 300_000
    memory = ProjectMemory(root, cache=tmp_path / "cache" / "x.counts", cap=cap)
    memory.refresh(near=["part50/m7.py"])
    assert cap - 1_000 < memory.characters <= cap
    assert b"# part 50\n" in (memory._state.text("part50/m500.py") or b"")  # what is near comes first
    memory.refresh(near=["part50/m7.py"])
    shutil.rmtree(root)  # pytest would keep it


@pytest.mark.parametrize("seconds", [0, 4_102_444_800])  # 1970 and 2100, when a clock was wrong
def test_files_from_another_time(tmp_path: Path, seconds: int) -> None:
    root, cache = tmp_path / "project", tmp_path / "cache" / "x.counts"
    root.mkdir()
    (root / "a.py").write_text(TEXT)
    os.utime(root / "a.py", (seconds, seconds))
    memory = ProjectMemory(root, cache=cache)
    memory.refresh()
    (root / "a.py").write_text(TEXT.upper())  # as long, and at another time
    for again in (memory, ProjectMemory(root, cache=cache)):
        again.refresh()
        assert again._state.text("a.py") == TEXT.upper().encode()


def test_the_server_never_asks_what_time_it_is() -> None:
    """A clock that is put forward or back, or stands still, cannot matter then: intervals are `monotonic`'s."""
    package = Path(lsp_charrnn.__file__).parent
    asking = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in CLOCKS:
                asking.add(path.relative_to(package).as_posix())
    # Names of versions, which grow all the same (test_installed); leftovers' age (test_project_cache); a card's date;
    # what TensorBoard writes beside a step.
    assert asking == {"model/installed.py", "project/cache.py", "train/run.py", "train/journal.py"}
