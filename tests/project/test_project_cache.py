"""What is kept of a project on disk: the same again, or nothing; never half of it, and for nobody else's eyes."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.errors import OutputError
from lsp_charrnn.project import cache, memory
from lsp_charrnn.project.cache import Entry, Index, cache_file, caches, clear, read, write
from lsp_charrnn.project.files import ProjectFile, read_text
from lsp_charrnn.project.memory import ProjectMemory

TEXTS = {
    "a.py": b"def alpha(value):\n    return value\n",
    "sub/b.py": "été = 'ñ'\n".encode(),
    "sub/\udcff.py": b"odd = 1\n",  # a name that is not UTF-8, as `os.fsdecode` has it
    "c.py": b"gamma = alpha(gamma)\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "caches"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for path, text in TEXTS.items():
        if path.isascii():
            put(root, path, text)
    return root


def put(root: Path, path: str, text: bytes) -> None:
    """Write a file; each time it looks changed, however fast the test is."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_bytes(text)
    if file.stat().st_mtime_ns <= before:
        os.utime(file, ns=(before + 1000, before + 1000))


def index(texts: dict[str, bytes] = TEXTS) -> Index:
    entries, start = {}, 0
    for number, (path, text) in enumerate(texts.items()):
        entries[path] = Entry(len(text) + number, 10**18 + number, start, start + len(text))
        start += len(text)
    joined = np.frombuffer(b"".join(texts.values()), dtype=np.uint8)
    return Index(entries, joined, Counts.of_texts(texts.values()))


def same(one: Counts, other: Counts) -> bool:
    return np.array_equal(one.keys, other.keys) and np.array_equal(one.counts, other.counts)


def is_right(memory: ProjectMemory, texts: dict[str, bytes]) -> bool:
    tables = [(table, 1) for table in memory.tables("not/a/file.py")]
    return memory.files == len(texts) and same(Counts.sum(tables), Counts.of_texts(texts.values()))


# --- there and back ---


def test_what_was_written_is_read(folder: Path, root: Path) -> None:
    path = cache_file(root, folder)
    written = index()
    write(path, root, written)
    found = read(path, root)
    assert found is not None
    assert found.files == written.files
    assert {name: found.text(name) for name in TEXTS} == TEXTS
    assert found.text("none.py") is None
    assert same(found.counts, written.counts)
    assert (found.counts.keys.dtype, found.counts.counts.dtype) == (np.dtype("u8"), np.dtype("i4"))


def test_an_empty_project(folder: Path, root: Path) -> None:
    path = cache_file(root, folder)
    write(path, root, index({}))
    found = read(path, root)
    assert found is not None
    assert (dict(found.files), len(found.texts), len(found.counts)) == ({}, 0, 0)


def test_each_place_has_its_own_file_whichever_way_leads_there(folder: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert cache_file(tmp_path / "link", folder) == cache_file(root, folder)
    assert cache_file(root / "sub", folder) != cache_file(root, folder)
    write(cache_file(root, folder), root, index())
    assert read(cache_file(root, folder), tmp_path / "link") is not None


def test_the_next_start_reads_only_what_has_changed(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache_file(root, folder)
    texts = {name: text for name, text in TEXTS.items() if name.isascii()}
    ProjectMemory(root, cache=path).refresh()
    reads: list[str] = []

    def counted(root: Path, file: ProjectFile) -> bytes | None:
        reads.append(file.path)
        return read_text(root, file)

    monkeypatch.setattr(memory, "read_text", counted)
    second = ProjectMemory(root, cache=path)
    second.follow("a.py")
    second.refresh()
    assert reads == []
    assert is_right(second, texts)
    others = [text for name, text in texts.items() if name != "a.py"]
    assert same(Counts.sum([(table, 1) for table in second.tables("a.py")]), Counts.of_texts(others))

    put(root, "c.py", b"changed = 1\n")
    put(root, "new.py", b"new = 1\n")
    (root / "a.py").unlink()
    third = ProjectMemory(root, cache=path)
    third.refresh()
    assert sorted(reads) == ["c.py", "new.py"]
    assert is_right(third, {"sub/b.py": TEXTS["sub/b.py"], "c.py": b"changed = 1\n", "new.py": b"new = 1\n"})


def test_cancelled_at_the_start_the_cache_is_taken_later(folder: Path, root: Path) -> None:
    path = cache_file(root, folder)
    texts = {name: text for name, text in TEXTS.items() if name.isascii()}
    ProjectMemory(root, cache=path).refresh()
    second = ProjectMemory(root, cache=path)
    second.refresh(cancelled=lambda: True)
    assert not second.ready
    second.refresh()
    assert is_right(second, texts)


# --- what is no use ---


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: object, values: bytes) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + values


def facts(change: Callable[[dict[str, str]], object]) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        header, values = header_of(data)
        change(header["__metadata__"])
        return with_header(header, values)

    return damage


def tensor(name: str, **changes: object) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        header, values = header_of(data)
        header[name].update(changes)
        return with_header(header, values)

    return damage


def whole(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        header, values = header_of(data)
        change(header)
        return with_header(header, values)

    return damage


def entry(*numbers: object) -> Callable[[bytes], bytes]:
    return facts(lambda known: known.update(files=json.dumps({"a.py": numbers})))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "a few bytes": lambda data: data[:5],
    "no header": lambda data: data[:8],
    "half a header": lambda data: data[:100],
    "half the values": lambda data: data[: len(data) // 2],
    "one byte less": lambda data: data[:-1],
    "garbage": lambda data: bytes(range(256)) * 8,
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"import os\n" * 50,
    "an endless header": lambda data: b"\xff" * 8 + data[8:],
    "deep": lambda data: (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "header: a list": lambda data: with_header([1], b""),
    "header: empty": lambda data: with_header({}, b""),
    "header: latin": lambda data: (4).to_bytes(8, "little") + b'"\xe9"\n',
    "no facts": whole(lambda header: header.pop("__metadata__")),
    "facts: a list": whole(lambda header: header.update(__metadata__=[])),
    "facts: a number": whole(lambda header: header.update(__metadata__=1)),
    "no counts": whole(lambda header: header.pop("counts")),
    "counts: a number": whole(lambda header: header.update(counts=7)),
    "another version": facts(lambda known: known.update(version="0")),
    "a version to come": facts(lambda known: known.update(version="99")),
    "other orders": facts(lambda known: known.update(orders="1 2 3")),
    "another root": facts(lambda known: known.update(root="/elsewhere")),
    "no files": facts(lambda known: known.pop("files")),
    "files: no JSON": facts(lambda known: known.update(files="{")),
    "files: a list": facts(lambda known: known.update(files="[1]")),
    "files: deep": facts(lambda known: known.update(files="[" * 200_000)),
    "a file: too few numbers": entry(1, 2, 3),
    "a file: too many": entry(1, 2, 3, 4, 5),
    "a file: words": entry("one", "two", 0, 1),
    "a file: endless": entry(float("inf"), 0, 0, 1),
    "a file: beyond the text": entry(1, 2, 0, 10**9),
    "a file: before the text": entry(1, 2, -5, 1),
    "a file: backwards": entry(1, 2, 9, 3),
    "beyond the end": tensor("keys", data_offsets=[0, 10**9]),
    "before the beginning": tensor("keys", data_offsets=[-8, 8]),
    "backwards": tensor("keys", data_offsets=[16, 8]),
    "no whole numbers": tensor("keys", data_offsets=[0.5, 8.5]),
    "three offsets": tensor("keys", data_offsets=[0, 8, 16]),
    "offsets: words": tensor("keys", data_offsets=["a", "b"]),
    "not a multiple": tensor("keys", data_offsets=[0, 9]),
    "fewer keys than counts": tensor("keys", data_offsets=[0, 8]),
    "another type": tensor("counts", dtype="F32"),
    "no type": tensor("texts", dtype=None),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_is_no_cache_and_is_made_anew(
    folder: Path, root: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = cache_file(root, folder)
    texts = {name: text for name, text in TEXTS.items() if name.isascii()}
    ProjectMemory(root, cache=path).refresh()
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    assert read(path, root) is None
    list(caches(folder))  # it may be listed or not
    again = ProjectMemory(root, cache=path)
    again.refresh()
    assert is_right(again, texts)
    assert read(path, root) is not None


def test_no_cache_is_none(folder: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(cache_file(root, folder), root) is None
    assert not caplog.records  # as at every first start


def test_a_folder_in_its_place(folder: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = cache_file(root, folder)
    (path / "in").mkdir(parents=True)
    assert read(path, root) is None
    ProjectMemory(root, cache=path).refresh()
    assert any("cannot write" in record.getMessage() for record in caplog.records)
    assert [file.name for file in folder.iterdir()] == [path.name]


# --- writing ---


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_only_the_user_may_read_it(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[int] = []
    save = safetensors.numpy.save_file

    def watched(tensors: Any, filename: Path, metadata: Any) -> None:
        save(tensors, filename, metadata)
        during.append(stat.S_IMODE(filename.stat().st_mode))

    monkeypatch.setattr(safetensors.numpy, "save_file", watched)
    path = cache_file(root, folder)
    before = os.umask(0)
    try:
        write(path, root, index())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.chmod(0o777)
        write(path, root, index())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert during == [0o600, 0o600]  # nor while it is being written


def test_what_fails_half_way_leaves_what_was_there(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache_file(root, folder)

    def fail(tensors: Any, filename: Path, metadata: Any) -> None:
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", fail)
        with pytest.raises(OutputError, match="No space left"):
            write(path, root, index())
        assert list(folder.iterdir()) == []
    write(path, root, index())
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", fail)
        with pytest.raises(OutputError):
            write(path, root, index({}))
    assert list(folder.iterdir()) == [path]
    found = read(path, root)
    assert found is not None
    assert len(found.files) == len(TEXTS)


def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    memory_of = ProjectMemory(root, cache=tmp_path / "file" / "x.counts")
    with caplog.at_level(logging.WARNING):
        memory_of.refresh()
    assert is_right(memory_of, {name: text for name, text in TEXTS.items() if name.isascii()})
    assert [record.levelname for record in caplog.records if "cannot write" in record.getMessage()] == ["WARNING"]


def test_what_was_used_longest_ago_is_forgotten(folder: Path, tmp_path: Path) -> None:
    roots = [tmp_path / f"project-{number}" for number in range(cache.KEPT + 3)]
    small = index({"a.py": b"a = 1\n"})
    for number, root in enumerate(roots[: cache.KEPT]):
        write(cache_file(root, folder), root, small)
        os.utime(cache_file(root, folder), (1000 + number, 1000 + number))
    left = folder / f"{'0' * 32}.counts.dead.partial"  # of a process that was killed
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    assert read(cache_file(roots[0], folder), roots[0]) is not None  # used: it is the newest now
    for root in roots[cache.KEPT :]:
        write(cache_file(root, folder), root, small)
    kept = {root for root in roots if cache_file(root, folder).exists()}
    assert kept == set(roots) - set(roots[1:4])
    assert len(list(folder.iterdir())) == cache.KEPT


# --- listing and clearing ---


def test_listing_and_clearing(folder: Path, root: Path, tmp_path: Path) -> None:
    assert list(caches(folder)) == []
    assert clear(directory=folder) == 0
    other = tmp_path / "other"
    for one in (root, other):
        write(cache_file(one, folder), one, index())
    (folder / "broken.counts").write_bytes(b"broken")
    (folder / "x.counts.1.partial").write_bytes(b"half")
    (folder / "notes.txt").write_text("not ours")
    assert {(path, place) for path, place, _ in caches(folder)} == {
        (cache_file(one, folder), str(one)) for one in (root, other)
    }
    assert all(size == path.stat().st_size for path, _, size in caches(folder))
    assert clear(root, folder) == 1
    assert clear(root, folder) == 0
    assert [place for _, place, _ in caches(folder)] == [str(other)]
    assert clear(directory=folder) == 3
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]


def test_what_is_mapped_stays_when_it_is_cleared_or_replaced(folder: Path, root: Path) -> None:
    path = cache_file(root, folder)
    write(path, root, index())
    found = read(path, root)
    assert found is not None
    write(path, root, replace(index({}), files={}))
    clear(root, folder)
    assert {name: found.text(name) for name in TEXTS} == TEXTS
