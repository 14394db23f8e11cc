"""The memory of a project: exactly the counts of all its files but the one that is open, whatever has happened to them.

What is right is counted here from the files themselves, each time anew.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.project import files, memory
from lsp_charrnn.project.cache import Index
from lsp_charrnn.project.cache import write as write_it
from lsp_charrnn.project.files import project_files, read_text
from lsp_charrnn.project.memory import ProjectMemory

NOWHERE = "not/a/file.py"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests has settings of git that no test must see."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    put(root, {"a.py": text_of("alpha"), "b.py": text_of("beta"), "sub/c.py": text_of("gamma")})
    put(root, {"sub/deep/d.py": text_of("delta")})
    return root


def text_of(name: str) -> str:
    return f"def {name}(value):\n    return {name}_total + value\n"


def put(root: Path, tree: Mapping[str, str | bytes]) -> None:
    """Write files; each time they look changed, however fast the test is."""
    for path, text in tree.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.stat().st_mtime_ns if file.exists() else 0
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        if file.stat().st_mtime_ns <= before:
            os.utime(file, ns=(before + 1000, before + 1000))


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, timeout=30)


def known(root: Path, cap: int = memory.CAP) -> ProjectMemory:
    memory = ProjectMemory(root, cap=cap)
    memory.refresh()
    return memory


def summed(tables: Iterable[Counts]) -> Counts:
    return Counts.sum([(table, 1) for table in tables])


def same(one: Counts, other: Counts) -> bool:
    return np.array_equal(one.keys, other.keys) and np.array_equal(one.counts, other.counts)


def holds(memory: ProjectMemory, texts: Iterable[str | bytes], but: str = NOWHERE) -> bool:
    """Say whether what the document at `but` is given is the counts of `texts`, all of them and to the last one."""
    wanted = Counts.of_texts(text.encode() if isinstance(text, str) else text for text in texts)
    return same(summed(memory.tables(but)), wanted)


def on_disk(root: Path, but: str = NOWHERE) -> list[bytes]:
    found = [read_text(root, file) for file in project_files(root).files if file.path != but]
    return [text for text in found if text is not None]


def is_right(memory: ProjectMemory, root: Path, *opened: str) -> bool:
    """Say whether the memory is that of the files that are there, for each of the documents that are open."""
    texts = on_disk(root)
    assert (memory.files, memory.characters) == (len(texts), sum(map(len, texts)))
    return all(holds(memory, on_disk(root, path), path) for path in (NOWHERE, *opened))


# --- what it holds ---


def test_nothing_is_known_before_the_first_refresh(root: Path) -> None:
    memory = ProjectMemory(root)
    memory.follow("a.py")
    assert not memory.changed([root / "a.py"])
    assert (memory.ready, memory.files, memory.characters) == (False, 0, 0)
    assert memory.tables("a.py") == memory.tables(NOWHERE) == ()
    memory.refresh()
    assert memory.ready
    assert is_right(memory, root, "a.py")


def test_all_files_but_the_open_one(root: Path) -> None:
    memory = known(root)
    assert (memory.files, memory.characters) == (4, sum(map(len, on_disk(root))))
    assert holds(memory, map(text_of, ("alpha", "beta", "gamma", "delta")))
    assert memory.tables("sub/c.py") == ()  # known, and not followed: its own text is among them
    memory.follow("sub/c.py")
    assert holds(memory, map(text_of, ("alpha", "beta", "delta")), "sub/c.py")
    assert holds(memory, map(text_of, ("alpha", "beta", "gamma", "delta")))  # for any other
    memory.release("sub/c.py")
    assert memory.tables("sub/c.py") == ()
    assert holds(memory, map(text_of, ("alpha", "beta", "gamma", "delta")))


def test_a_document_that_two_clients_have_open(root: Path) -> None:
    memory = known(root)
    memory.follow("a.py")
    memory.follow("a.py")
    memory.release("a.py")
    assert holds(memory, on_disk(root, "a.py"), "a.py")
    memory.release("a.py")
    assert memory.tables("a.py") == ()


def test_releasing_what_was_not_followed_is_nothing(root: Path) -> None:
    memory = known(root)
    memory.release("a.py")
    memory.follow("a.py")
    assert is_right(memory, root, "a.py")


def test_an_empty_project(tmp_path: Path) -> None:
    memory = known(tmp_path / "none")
    assert (memory.ready, memory.files, memory.characters) == (True, 0, 0)
    assert holds(memory, [])
    assert not memory.changed([tmp_path / "none/a.py", tmp_path])


# --- what changes ---


def test_new_files(root: Path) -> None:
    memory = known(root)
    memory.follow("a.py")
    put(root, {"new.py": text_of("new"), "sub/more/new.py": text_of("other")})
    assert not memory.changed([root / "new.py", root / "sub/more/new.py"])
    assert memory.files == 6
    assert is_right(memory, root, "a.py")


def test_edited_files(root: Path) -> None:
    memory = known(root)
    memory.follow("a.py")
    for text in (text_of("edited"), text_of("edited") * 2, text_of("beta")):
        put(root, {"b.py": text})
        memory.changed([str(root / "b.py")])
        assert is_right(memory, root, "a.py")


def test_the_open_file_saved(root: Path) -> None:
    memory = known(root)
    memory.follow("a.py")
    put(root, {"a.py": text_of("saved")})
    memory.changed([root / "a.py"])
    assert is_right(memory, root, "a.py")
    memory.release("a.py")
    memory.follow("b.py")
    assert holds(memory, on_disk(root, "b.py"), "b.py")


def test_a_document_that_is_saved_for_the_first_time(root: Path) -> None:
    memory = known(root)
    memory.follow("new.py")
    assert is_right(memory, root, "new.py")
    put(root, {"new.py": text_of("new")})
    memory.changed([root / "new.py"])
    assert is_right(memory, root, "new.py")
    assert holds(memory, map(text_of, ("alpha", "beta", "gamma", "delta")), "new.py")


def test_deleted_files(root: Path) -> None:
    memory = known(root)
    memory.follow("a.py")
    put(root, {"new.py": text_of("new")})
    memory.changed([root / "new.py"])
    for path in ("b.py", "new.py", "a.py"):
        (root / path).unlink()
        memory.changed([root / path])
        assert is_right(memory, root, "a.py", path)
    put(root, {"b.py": text_of("back")})
    memory.changed([root / "b.py"])
    assert is_right(memory, root, "a.py")


def test_a_renamed_file(root: Path) -> None:
    memory = known(root)
    memory.follow("a.py")
    (root / "b.py").rename(root / "sub/moved.py")
    memory.changed([root / "b.py", root / "sub/moved.py"])
    assert is_right(memory, root, "a.py")
    assert memory.files == 4


def test_a_deleted_folder(root: Path) -> None:
    memory = known(root)
    memory.follow("sub/c.py")
    put(root, {"sub/new.py": text_of("new"), "submarine.py": text_of("ship")})
    memory.changed([root / "sub/new.py", root / "submarine.py"])
    shutil.rmtree(root / "sub")
    memory.changed([root / "sub"])
    assert memory.files == 3
    assert is_right(memory, root, "sub/c.py")


def test_a_folder_that_is_there_loses_nothing(root: Path) -> None:
    # `git checkout` takes it away and brings it back, and of such a swarm the folder may come last.
    memory = known(root)
    put(root, {"sub/c.py": text_of("edited")})
    memory.changed([root / "sub/c.py", root / "sub"])
    assert is_right(memory, root)


def test_a_renamed_folder_is_looked_through(root: Path) -> None:
    memory = known(root)
    (root / "sub").rename(root / "other")
    assert memory.changed([root / "sub", root / "other"])
    memory.refresh()
    assert is_right(memory, root)
    assert memory.files == 4


@pytest.mark.parametrize("path", [".git/refs", "node_modules/box", "sub/__pycache__", "../elsewhere"])
def test_folders_that_are_never_read_are_no_reason_to_look(root: Path, path: str) -> None:
    memory = known(root)
    (root / path).mkdir(parents=True)
    assert not memory.changed([root / path])
    assert is_right(memory, root)


def test_a_file_becomes_a_folder_and_back(root: Path) -> None:
    memory = known(root)
    (root / "b.py").unlink()
    put(root, {"b.py/in.py": text_of("inner")})
    memory.changed([root / "b.py", root / "b.py/in.py"])
    assert is_right(memory, root)
    shutil.rmtree(root / "b.py")
    put(root, {"b.py": text_of("again")})
    memory.changed([root / "b.py/in.py", root / "b.py"])
    assert is_right(memory, root)


def test_a_file_that_is_text_no_more(root: Path) -> None:
    memory = known(root)
    memory.follow("a.py")
    for data in (b"\x7fELF\0\0\0", b"", b"x = 1\n" * 40_000, b"caf\xe9\n"):
        put(root, {"b.py": data})
        memory.changed([root / "b.py"])
        assert is_right(memory, root, "a.py")
        memory.refresh()
        assert is_right(memory, root, "a.py")
    put(root, {"b.py": text_of("beta")})
    memory.changed([root / "b.py"])
    assert is_right(memory, root, "a.py")
    assert memory.files == 4


def test_refresh_finds_all_that_nobody_told(root: Path) -> None:
    memory = known(root)
    memory.follow("a.py")
    put(root, {"a.py": text_of("saved"), "b.py": text_of("edited"), "new.py": text_of("new")})
    (root / "sub/c.py").unlink()
    memory.refresh()
    assert is_right(memory, root, "a.py")
    (root / "new.py").unlink()
    put(root, {"sub/c.py": text_of("gamma")})
    memory.refresh()
    assert is_right(memory, root, "a.py")


def test_much_that_has_changed_is_counted_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_of, told = known(root), []
    memory_of.follow("a.py")
    monkeypatch.setattr(memory, "MOST_CHANGED", 100)
    put(root, {"b.py": text_of("edited") * 3, "sub/new.py": text_of("new")})
    (root / "sub/c.py").unlink()
    assert memory_of.changed([root / "b.py", root / "sub/new.py", root / "sub/c.py"])
    assert is_right(memory_of, root, "a.py")
    memory_of.refresh(progress=lambda what, share: told.append((what, share)))
    assert ("counting", 0.5) in told
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert is_right(memory_of, root, "a.py")
    assert not memory_of.changed([])
    _, delta = memory_of.tables(NOWHERE)
    assert len(delta) == 0


def test_a_rebuild_reads_nothing_that_is_known(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_of = known(root)
    put(root, {"new.py": text_of("new")})
    memory_of.changed([root / "new.py"])
    put(root, {"b.py": text_of("edited")})
    monkeypatch.setattr(memory, "MOST_CHANGED", 0)
    monkeypatch.setattr(memory, "_LEAST_REBUILT", 0.0)
    reads = counted_reads(monkeypatch)
    memory_of.refresh()
    assert set(reads) == {"b.py"}
    assert is_right(memory_of, root)


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that takes the path of each file that is read."""
    reads: list[str] = []

    def read(root: Path, file: files.ProjectFile) -> bytes | None:
        reads.append(file.path)
        return read_text(root, file)

    monkeypatch.setattr(memory, "read_text", read)
    return reads


def test_any_history_ends_in_the_files_that_are_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_CHANGED", 600)
    chance = random.Random(1)
    names = ["a.py", "b.py", "sub/c.py", "sub/deep/d.py", "sub/e.py", "other/f.py"]
    memory_of = known(root)
    opened: list[str] = []
    for step in range(80):
        name = chance.choice(names)
        match chance.randrange(6):
            case 0 | 1:
                put(root, {name: text_of(f"name_{step}") * chance.randrange(1, 4)})
            case 2:
                (root / name).unlink(missing_ok=True)
            case 3 if name not in opened:
                opened.append(name)
                memory_of.follow(name)
            case 4 if name in opened:
                opened.remove(name)
                memory_of.release(name)
            case 5 if "/" in name and (root / name).parent.exists():
                shutil.rmtree((root / name).parent)
                name = str(Path(name).parent)
        if memory_of.changed([root / name]) or chance.random() < 0.1:
            memory_of.refresh()
        if step % 4 == 0:
            assert is_right(memory_of, root, *opened), step
    assert is_right(memory_of, root, *opened)


# --- what is never in it ---


def test_secrets_ignored_and_binary_files_are_never_in(root: Path) -> None:
    hidden: dict[str, str | bytes] = {
        ".env": "TOKEN=hunter2\n",
        "sub/id_rsa": "PRIVATE\n",
        "made/by.py": text_of("made"),
        "picture.png": b"\x89PNG\0\0",
        "binary.py": b"\0\1\2",
        "large.py": "x = 1\n" * 40_000,
        "empty.py": "",
        "node_modules/box/index.js": "module.exports = 1\n",
        ".git/config": "[core]\n",
    }
    put(root, {**hidden, ".gitignore": "made/\n"})
    (root / "link.py").symlink_to("a.py")
    memory = known(root)
    texts = [*map(text_of, ("alpha", "beta", "gamma", "delta")), "made/\n"]
    assert holds(memory, texts)
    memory.changed([*(root / path for path in hidden), root / "link.py", root.parent, root, "/etc/hostname"])
    assert holds(memory, texts)
    assert memory.files == 5
    memory.follow(".env")
    assert holds(memory, texts, ".env")


def test_what_a_link_leads_to_is_not_read(root: Path, tmp_path: Path) -> None:
    put(tmp_path, {"outside/c.py": text_of("outside")})
    memory = known(root)
    (root / "sub/c.py").unlink()
    shutil.rmtree(root / "sub")
    (root / "sub").symlink_to(tmp_path / "outside")
    memory.changed([root / "sub/c.py", root / "sub/deep/d.py"])
    assert holds(memory, map(text_of, ("alpha", "beta")))


def test_a_file_that_git_tracks_though_ignored_stays_when_saved(root: Path) -> None:
    git(root, "init")
    put(root, {".gitignore": "b.py\nother.py\n"})
    git(root, "add", ".gitignore")
    git(root, "add", "-f", "b.py")
    memory = known(root)
    assert memory.files == 5
    put(root, {"b.py": text_of("saved"), "other.py": text_of("other")})
    memory.changed([root / "b.py", root / "other.py"])
    assert is_right(memory, root)
    assert memory.files == 5
    (root / "b.py").unlink()
    memory.changed([root / "b.py"])
    assert is_right(memory, root)
    assert memory.files == 4


def test_the_cap(root: Path) -> None:
    put(root, {"far/off/and/away/z.py": text_of("zeta") * 100})
    size = sum(len(text_of(name)) for name in ("alpha", "beta", "gamma", "delta"))
    memory = ProjectMemory(root, cap=size)
    memory.refresh(near=["a.py"])
    assert memory.characters == size
    assert holds(memory, map(text_of, ("alpha", "beta", "gamma", "delta")))
    assert known(root, cap=0).files == 0


def test_a_cap_that_is_set_anew(root: Path) -> None:
    put(root, {"far/off/and/away/z.py": text_of("zeta") * 100})
    memory = known(root, cap=300)
    assert memory.files == 4
    for cap, number in ((10_000, 5), (300, 4), (0, 0)):
        memory.cap = cap
        memory.refresh()
        assert memory.files == number


# --- rules that change ---


def test_what_is_ignored_from_now_on_is_left_out(root: Path) -> None:
    memory = known(root)
    memory.follow("a.py")
    for place, rules in ((".gitignore", "b.py\n"), ("sub/.gitignore", "deep/\n"), ("sub/.gitignore", "*.md\n")):
        put(root, {place: rules})
        assert memory.changed([root / place])
        memory.refresh()
        assert is_right(memory, root, "a.py")
    (root / "sub/.gitignore").unlink()
    assert memory.changed([root / "sub/.gitignore"])
    git(root, "init")
    put(root, {".git/info/exclude": "c.py\n"})
    assert memory.changed([root / ".git/info/exclude"])
    memory.refresh()
    assert is_right(memory, root, "a.py")
    put(root, {"sub/c.py": text_of("saved"), "sub/deep/c.py": text_of("made")})
    assert not memory.changed([root / "sub/c.py", root / "sub/deep/c.py"])  # by the rules of the new work tree
    assert is_right(memory, root, "a.py")


# --- what costs nothing again ---


def test_where_nothing_has_changed_nothing_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_of = known(root)
    memory_of.follow("a.py")
    put(root, {"b.py": text_of("edited")})
    memory_of.changed([root / "b.py"])

    def count(texts: Iterable[bytes]) -> Counts:
        raise AssertionError("nothing is to be counted")

    monkeypatch.setattr(Counts, "of_texts", staticmethod(count))
    memory_of.refresh()
    memory_of.changed([root / "b.py", root / "a.py"])


def test_open_documents_are_counted_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_of = known(root)
    memory_of.follow("a.py")
    memory_of.follow("sub/c.py")
    counted: list[bytes] = []

    def count(text: bytes) -> Counts:
        counted.append(text)
        return Counts.sum([(Counts.of_texts([text]), -1)])

    monkeypatch.setattr(memory, "_negative", count)
    put(root, {"b.py": text_of("edited")})
    memory_of.changed([root / "b.py"])
    assert is_right(memory_of, root, "a.py", "sub/c.py")
    assert counted == []
    put(root, {"a.py": text_of("saved")})
    memory_of.changed([root / "a.py"])
    assert is_right(memory_of, root, "a.py", "sub/c.py")
    assert counted == [text_of("saved").encode()]
    memory_of.release("sub/c.py")
    put(root, {"b.py": text_of("again")})
    memory_of.changed([root / "b.py"])
    assert memory_of.tables("sub/c.py") == ()


def test_a_file_that_was_saved_is_counted_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_of = known(root)
    put(root, {"b.py": text_of("edited"), "sub/c.py": text_of("other")})
    memory_of.changed([root / "b.py", root / "sub/c.py"])
    counted: list[bytes] = []
    of_texts = Counts.of_texts

    def count(texts: Iterable[bytes]) -> Counts:
        counted.extend(those := list(texts))
        return of_texts(those)

    monkeypatch.setattr(Counts, "of_texts", staticmethod(count))
    put(root, {"b.py": text_of("again")})
    memory_of.changed([root / "b.py"])
    assert sorted(counted) == sorted([text_of("again").encode(), text_of("edited").encode()])
    monkeypatch.undo()
    assert is_right(memory_of, root)


def test_what_is_kept_is_used_before_the_files_are_looked_at(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git may take seconds, and counting anew what is nearer now some more."""
    cache = tmp_path / "cache/x.counts"
    ProjectMemory(root, cache=cache).refresh()
    before = on_disk(root)
    memory_of = ProjectMemory(root, cache=cache)
    memory_of.follow("a.py")
    put(root, {"b.py": text_of("edited"), "a.py": text_of("saved")})
    monkeypatch.setattr(memory, "MOST_CHANGED", 0)
    monkeypatch.setattr(memory, "_LEAST_REBUILT", 0.0)
    seen: list[str] = []

    def look(what: str, share: float) -> None:
        assert holds(memory_of, before)
        assert holds(memory_of, [text for text in before if text != text_of("alpha").encode()], "a.py")
        seen.append(what)

    memory_of.refresh(progress=look)
    assert seen == ["listing files", "reading files", "counting"]
    assert is_right(memory_of, root, "a.py")


def test_what_has_been_written_is_used_from_the_disk(root: Path, tmp_path: Path) -> None:
    memory = ProjectMemory(root, cache=tmp_path / "cache/x.counts")
    memory.follow("a.py")
    memory.refresh()
    counts, *_ = memory.tables("a.py")
    assert not counts.keys.flags.writeable  # it is mapped
    assert is_right(memory, root, "a.py")


def test_what_another_process_has_written_meanwhile_is_not(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache/x.counts"

    def write(path: Path, root: Path, index: Index) -> None:
        write_it(path, root, replace(index, files={}))

    monkeypatch.setattr(memory, "write", write)
    memory_of = ProjectMemory(root, cache=cache)
    memory_of.refresh()
    assert cache.exists()
    assert is_right(memory_of, root)


# --- two threads ---


def test_a_document_that_is_closed_while_it_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_of = known(root)
    count = memory._negative

    def closed(text: bytes) -> Counts:
        memory_of.release("a.py")
        return count(text)

    monkeypatch.setattr(memory, "_negative", closed)
    memory_of.follow("a.py")
    assert memory_of.tables("a.py") == ()
    memory_of.follow("a.py")
    assert memory_of.tables("a.py") == ()


def test_a_file_that_is_saved_while_it_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_of = known(root)
    count = memory._negative

    def saved(text: bytes) -> Counts:
        monkeypatch.setattr(memory, "_negative", count)
        put(root, {"a.py": text_of("saved")})
        memory_of.changed([root / "a.py"])
        return count(text)

    monkeypatch.setattr(memory, "_negative", saved)
    memory_of.follow("a.py")
    assert is_right(memory_of, root, "a.py")


def test_documents_are_opened_and_closed_while_it_reads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`follow` and `release` on one thread, `changed` and `refresh` on another: no step ever shows an open document."""
    monkeypatch.setattr(memory, "MOST_CHANGED", 200)
    memory_of = known(root)
    names = ["a.py", "b.py", "sub/c.py"]
    ended = threading.Event()
    wrong: list[str] = []

    unlike = {name: f"{name.replace('/', '_').replace('.', '_')}_is_unlike_any_other" for name in names}
    marks = {name: Counts.of_texts([text.encode()]).keys[-1] for name, text in unlike.items()}

    def read() -> None:
        chance = random.Random(2)
        try:
            for step in range(150):
                name = chance.choice(names)
                put(root, {name: f"{unlike[name]}\n" * chance.randrange(1, 4)})
                if memory_of.changed([root / name]) or step % 10 == 0:
                    memory_of.refresh()
        except Exception as error:
            wrong.append(repr(error))
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    chance = random.Random(3)
    opened = dict.fromkeys(names, 0)
    while not ended.is_set():
        name = chance.choice(names)
        if opened[name] and chance.random() < 0.5:
            memory_of.release(name)
            opened[name] -= 1
        else:
            memory_of.follow(name)
            opened[name] += 1
        for path in names:
            tables = memory_of.tables(path)
            found = [int(table.counts[table.keys == marks[path]].sum()) for table in tables]
            if sum(found):
                wrong.append(path)
    reader.join()
    assert wrong == []
    memory_of.refresh()
    assert is_right(memory_of, root, *(name for name, times in opened.items() if times))
    for name, times in opened.items():
        for _ in range(times):
            memory_of.release(name)
        assert memory_of.tables(name) == ()


# --- cancelled ---


def test_cancelled_it_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_of = ProjectMemory(root)
    for many in range(5):
        memory_of.refresh(cancelled=after(many))
        assert not memory_of.ready
        assert memory_of.tables(NOWHERE) == ()
    memory_of.refresh(cancelled=after(6))
    before = on_disk(root)
    assert holds(memory_of, before)
    put(root, {"new.py": text_of("new"), "b.py": text_of("edited")})
    for many in range(5):
        memory_of.refresh(cancelled=after(many))
        assert holds(memory_of, before)
        assert (memory_of.files, memory_of.characters) == (4, sum(map(len, before)))
    memory_of.refresh()
    assert is_right(memory_of, root)
    monkeypatch.setattr(memory, "MOST_CHANGED", 0)
    before = on_disk(root)
    put(root, {"sub/c.py": text_of("edited") * 9})
    for many in range(10):
        memory_of.refresh(cancelled=after(many))
        assert holds(memory_of, before)
    memory_of.refresh()
    assert is_right(memory_of, root)


class after:  # noqa: N801 - reads as a function
    """A flag that is set when it has been looked at `many` times."""

    def __init__(self, many: int) -> None:
        self.left = many

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_cancelled_it_writes_no_cache(root: Path, tmp_path: Path) -> None:
    memory = ProjectMemory(root, cache=tmp_path / "cache/x.counts")
    memory.refresh(cancelled=lambda: True)
    assert not (tmp_path / "cache").exists()
