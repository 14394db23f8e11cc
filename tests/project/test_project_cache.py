"""What is kept of a project on disk: the same again, or nothing; never half of it, and for nobody else's eyes."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lsp_charrnn.engine import contexts
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


def whole(change: Callable[[dict[str, Any]], object], *, summed: bool = True) -> Callable[[bytes], bytes]:
    """Change the header; `summed`: and make its sum right, so that it is not by that that the damage is noticed."""

    def damage(data: bytes) -> bytes:
        header, values = header_of(data)
        change(header)
        return with_header(header if not summed else with_sum(header, values), values)

    return damage


def with_sum(header: dict[str, Any], values: bytes) -> dict[str, Any]:
    known = header.get("__metadata__")
    if isinstance(known, dict) and "files" in known:
        found = zlib.crc32(known["files"].encode())
        for name in ("keys", "counts", "texts"):
            try:
                start, end = header[name]["data_offsets"]
                found = zlib.crc32(values[start:end], found)
            except (KeyError, TypeError, ValueError):
                break
        known["sum"] = str(found)
    return header


def facts(change: Callable[[dict[str, str]], object], *, summed: bool = True) -> Callable[[bytes], bytes]:
    return whole(lambda header: change(header["__metadata__"]), summed=summed)


def tensor(name: str, **changes: object) -> Callable[[bytes], bytes]:
    return whole(lambda header: header[name].update(changes))


def values(name: str, change: Callable[[Any], object], *, summed: bool = True) -> Callable[[bytes], bytes]:
    """Change the values of an array."""

    def damage(data: bytes) -> bytes:
        header, raw = header_of(data)
        start, end = header[name]["data_offsets"]
        array = np.frombuffer(raw[start:end], dtype={"keys": "<u8", "counts": "<i4", "texts": "u1"}[name]).copy()
        change(array)
        raw = raw[:start] + array.tobytes() + raw[end:]
        return with_header(with_sum(header, raw) if summed else header, raw)

    return damage


def swap(array: Any) -> None:
    array[[5, 6]] = array[[6, 5]]


def put_at(place: int, value: int) -> Callable[[Any], object]:
    return lambda array: array.__setitem__(place, value)


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
    "other contexts": facts(lambda known: known.update(contexts="1 2 3")),
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
    "no sum": facts(lambda known: known.pop("sum"), summed=False),
    "another sum": facts(lambda known: known.update(sum="1"), summed=False),
    "sum: a word": facts(lambda known: known.update(sum="one"), summed=False),
    "a file's size": facts(lambda known: known.update(files=known["files"].replace("[35,", "[36,", 1)), summed=False),
    "a key": values("keys", lambda keys: keys.__ixor__(np.uint64(1 << 20)), summed=False),
    "a count": values("counts", put_at(-1, 2), summed=False),
    "a byte of text": values("texts", put_at(3, 7), summed=False),
    "a hole": values("keys", lambda keys: keys[4:9].fill(0), summed=False),
    "keys out of order": values("keys", swap),
    "equal keys": values("keys", lambda keys: put_at(8, keys[7])(keys)),
    "a count of 0": values("counts", put_at(2, 0)),
    "a count below 0": values("counts", put_at(-1, -3)),
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


def test_counts_by_other_contexts_are_no_use(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache_file(root, folder)
    write(path, root, index())
    monkeypatch.setattr(contexts, "_STIR", np.uint64(0x1234567890ABCDEF))
    cache._contexts.cache_clear()
    try:
        assert read(path, root) is None
    finally:
        monkeypatch.undo()
        cache._contexts.cache_clear()
    assert read(path, root) is not None


# --- writing ---


def test_it_is_safetensors(folder: Path, root: Path) -> None:
    path = cache_file(root, folder)
    written = index()
    write(path, root, written)
    found = load_file(path)
    assert same(Counts(found["keys"], found["counts"]), written.counts)
    assert np.array_equal(found["texts"], written.texts)


def test_keys_are_compared_across_the_pieces_that_are_checked(
    folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache_file(root, folder)
    write(path, root, index())
    monkeypatch.setattr(cache, "_PIECE", 32)
    assert read(path, root) is not None
    path.write_bytes(values("keys", lambda keys: put_at(8, keys[7])(keys))(path.read_bytes()))
    assert read(path, root) is None


class Watched(dict[str, Any]):
    """Arrays that tell of each one that is asked for: in the middle of writing."""

    def __init__(self, arrays: Any, tell: Callable[[], object]) -> None:
        super().__init__(arrays)
        self.tell = tell

    def values(self) -> Any:
        for array in super().values():
            self.tell()
            yield array


def while_writing(monkeypatch: pytest.MonkeyPatch, tell: Callable[[], object]) -> None:
    put_there = cache._put
    monkeypatch.setattr(cache, "_put", lambda path, header, arrays: put_there(path, header, Watched(arrays, tell)))


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_only_the_user_may_read_it(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[int] = []
    path = cache_file(root, folder)
    while_writing(
        monkeypatch,
        lambda: during.extend(stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir() if one != path),
    )
    before = os.umask(0)
    try:
        write(path, root, index())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.chmod(0o777)
        write(path, root, index())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert during == [0o600] * 6  # nor while it is being written
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777  # the user has named it, and so it is the user's


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_nobody_else_may_look_into_the_default_folder(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = cache.cache_directory()
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    write(cache_file(root), root, index())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix", reason="files have owners")
def test_what_another_user_wrote_is_no_cache(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(cache_file(root, folder), root, index())
    assert read(cache_file(root, folder), root) is not None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert read(cache_file(root, folder), root) is None


def test_what_fails_half_way_leaves_what_was_there(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache_file(root, folder)
    seen: list[list[Path]] = []

    def fail() -> None:
        seen.append([one for one in folder.iterdir() if one != path])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        while_writing(patch, fail)
        with pytest.raises(OutputError, match="No space left"):
            write(path, root, index())
        assert list(folder.iterdir()) == []
    write(path, root, index())
    with monkeypatch.context() as patch:
        while_writing(patch, fail)
        with pytest.raises(OutputError):
            write(path, root, index({}))
    assert list(folder.iterdir()) == [path]
    assert [len(one) for one in seen] == [1, 1]  # there was half a file each time
    found = read(path, root)
    assert found is not None
    assert len(found.files) == len(TEXTS)


def as_on_windows(monkeypatch: pytest.MonkeyPatch, mapped: set[Path]) -> None:
    """Let files that are mapped be neither replaced nor removed."""
    replace_it, unlink = Path.replace, Path.unlink

    def replaced(self: Path, target: Path) -> Path:
        if target in mapped:
            raise PermissionError(13, "Access is denied", str(target))
        return replace_it(self, target)

    def unlinked(self: Path, missing_ok: bool = False) -> None:
        if self in mapped:
            raise PermissionError(13, "Access is denied", str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", unlinked)


def test_what_is_mapped_and_cannot_be_replaced(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache_file(root, folder)
    write(path, root, index())
    os.utime(path, (1000, 1000))
    mapped = {path}
    as_on_windows(monkeypatch, mapped)

    def kept() -> list[str]:
        found = read(path, root)
        assert found is not None
        return list(found.files)

    write(path, root, index({"new.py": b"new = 1\n"}))
    assert kept() == ["new.py"]
    (second,) = set(folder.iterdir()) - {path}
    os.utime(second, (2000, 2000))
    mapped.add(second)
    write(path, root, index({"newer.py": b"newer = 1\n"}))
    assert kept() == ["newer.py"]
    with pytest.raises(OutputError, match="End the editors that use it"):
        clear(root, folder)
    write(path, root, index({"last.py": b"last = 1\n"}))
    assert len(list(folder.iterdir())) == 3  # those that are mapped, and one
    mapped.clear()
    write(path, root, index({"end.py": b"end = 1\n"}))
    assert list(folder.iterdir()) == [path]
    assert kept() == ["end.py"]


def test_a_folder_where_nothing_can_be_replaced(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Access is denied", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="Access is denied"):
        write(cache_file(root, folder), root, index())
    assert list(folder.iterdir()) == []


def test_of_two_versions_the_newest_that_is_whole_is_read(folder: Path, root: Path) -> None:
    path = cache_file(root, folder)
    write(path, root, index())
    os.utime(path, (1000, 1000))
    other = path.with_name(f"{path.stem}.abc.counts")
    other.write_bytes(path.read_bytes()[:-1])
    found = read(path, root)
    assert found is not None
    assert len(found.files) == len(TEXTS)
    assert clear(root, folder) == 1
    assert list(folder.iterdir()) == []


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


def test_what_killed_writers_have_left_goes_and_counts_as_no_project(folder: Path, tmp_path: Path) -> None:
    roots = [tmp_path / f"project-{number}" for number in range(cache.KEPT)]
    now = time.time()
    for number, root in enumerate(roots):
        write(cache_file(root, folder), root, index({"a.py": b"a = 1\n"}))
        left = folder / f"{cache_file(root, folder).name}.{number:08x}.partial"
        left.write_bytes(b"half")
        # Put forward and put back, clocks leave both; the last one is being written at this moment.
        os.utime(left, (now + [-1, 1][number % 2] * 2 * cache.LEFT,) * 2 if number < len(roots) - 1 else None)
    write(cache_file(roots[0], folder), roots[0], index({"a.py": b"a = 2\n"}))
    assert all(cache_file(root, folder).exists() for root in roots)
    assert [path.name.split(".")[2] for path in folder.glob("*.partial")] == [f"{len(roots) - 1:08x}"]


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
    (folder / f"{cache_file(root, folder).name}.2.partial").write_bytes(b"half")
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
