"""Archives that are made to do harm: none gets out of its place, and none takes more than it may."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.train import archives, fetch
from lsp_charrnn.train.archives import archive_members
from lsp_charrnn.train.corpus import MANIFEST, read_corpus
from lsp_charrnn.train.shards import CORPUS_FILE, FORMAT, open_corpus

CODE = b"print('here')\n"
MB = 1 << 20


def tar_of(path: Path, *entries: tuple[str | tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in entries:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def names_in(path: Path) -> list[str]:
    return [name for name, _, _ in archive_members(path)]


OUTSIDE = [
    *("../up.py", "/etc/root.py", "a/../../up.py", "..\\up.py", "C:/drive.py", "C:drive.py", "//host/share.py"),
    *("bell\a.py", "end\n.py", "d/" * 65 + "deep.py", "x" * 1001),
    *("one-1/../../up.py", "one-1/C:drive.py"),
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_outside_are_passed_over(tmp_path: Path, name: str) -> None:
    assert names_in(tar_of(tmp_path / "one-1.tar", (name, CODE), ("one-1/in.py", CODE))) == ["in.py"]
    with zipfile.ZipFile(tmp_path / "one-1.zip", "w") as archive:
        archive.writestr(name, CODE)
        archive.writestr("one-1/in.py", CODE)
    assert names_in(tmp_path / "one-1.zip") == ["in.py"]


@given(st.lists(st.sampled_from(["..", ".", "", "/", "\\", "a", "C:", "~", "\0", "a.py", "\n", "one-1"]), max_size=8))
@example(["one-1", "/", "one-1", "..", "..", "a.py"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_its_names_fetching_writes_into_its_directory_alone(tmp_path: Path, parts: list[str]) -> None:
    place = Path(subprocess.check_output(["mktemp", "-d", "-p", tmp_path], text=True).strip())
    with zipfile.ZipFile(place / "one-1.zip", "w") as archive:
        archive.writestr("/".join(parts).replace("\0", "\1") or "x", CODE)
    fetch._extract(place / "one-1.zip", place / "tree", "sdist")
    assert sorted(path.name for path in place.iterdir()) == ["one-1.zip", "tree"]


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    entries = [(special(f"special{number}.py", kind, "/etc/passwd"), b"") for number, kind in enumerate(kinds)]
    path = tar_of(tmp_path / "a-1.tar", *entries, ("special0.py/below.py", CODE), ("in.py", CODE))
    fetch._extract(path, tmp_path / "tree", "sdist")
    assert sorted(found.name for found in (tmp_path / "tree").rglob("*")) == ["below.py", "in.py", "special0.py"]
    assert not any(found.is_symlink() for found in (tmp_path / "tree").rglob("*"))
    with zipfile.ZipFile(tmp_path / "a-1.zip", "w") as archive:
        link = zipfile.ZipInfo("link.py")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("in.py", CODE)
    assert names_in(tmp_path / "a-1.zip") == ["in.py"]


def gzipped(path: Path, *pieces: bytes) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for piece in pieces:
            file.write(piece)
    return path


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_bomb_is_refused_by_what_it_says_of_itself(tmp_path: Path) -> None:
    path = gzipped(tmp_path / "a-1.tar.gz", header("a.py", 1 << 40), CODE)
    with pytest.raises(CorpusError, match="leave it out"):
        names_in(path)


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.tar", bytes), ("a.tar.gz", gzip.compress), ("a.tar.bz2", bz2.compress), ("a.tar.xz", lzma.compress)],
)
def test_a_bomb_is_refused_by_what_it_unpacks_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pack: Callable[[bytes], bytes]
) -> None:
    """Of a kind of entry that tarfile skips, so that no size is told."""
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", MB)
    (tmp_path / name).write_bytes(pack(header("a", 3 * MB, b"Z") + bytes(3 * MB) + header("b.py", 0) + bytes(1024)))
    with pytest.raises(CorpusError, match="leave it out"):
        names_in(tmp_path / name)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_description_that_would_fill_the_memory_is_not_read(tmp_path: Path, kind: bytes) -> None:
    size = archives.MAX_DESCRIPTION + 512
    path = gzipped(tmp_path / "a-1.tar.gz", header("long", size, kind), bytes(size), header("a.py", 0))
    with pytest.raises(CorpusError, match="leave it out"):
        names_in(path)


def test_a_map_of_holes_that_never_ends_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_DESCRIPTION", MB)
    info = tarfile.TarInfo("sparse.py")
    info.size = 4 * MB
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse.py"}
    body = b"999999999\n" + b"0\n" * (2 * MB)
    path = gzipped(tmp_path / "a-1.tar.gz", info.tobuf(tarfile.PAX_FORMAT), body, bytes(1024))
    with pytest.raises(CorpusError, match="a-1"):
        names_in(path)


def test_a_file_of_holes_is_never_filled(tmp_path: Path) -> None:
    """Its size is that of the holes: it is too large, and reading it all the same fails."""
    info = tarfile.TarInfo("sparse.py")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "sparse.py",
        "GNU.sparse.realsize": str(1 << 31),
    }
    body = b"1\n0\n0\n".ljust(512, b"\0")
    info.size = len(body)
    path = gzipped(tmp_path / "a-1.tar.gz", info.tobuf(tarfile.PAX_FORMAT), body, bytes(1024))
    ((name, size, read),) = list(archive_members(path))
    assert (name, size) == ("sparse.py", 1 << 31)
    with pytest.raises((tarfile.ReadError, ValueError)):
        read()


def test_too_many_entries_are_refused_whatever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ARCHIVE_MEMBERS", 100)
    path = tar_of(tmp_path / "a-1.tar", *((special(f"d{number}", tarfile.DIRTYPE), b"") for number in range(101)))
    with pytest.raises(CorpusError, match="leave it out"):
        names_in(path)


def test_a_zip_with_a_directory_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a-1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.py", CODE)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, len(data) - 22 + 12, 1 << 31)
    path.write_bytes(data)
    with pytest.raises(CorpusError, match="leave it out"):
        names_in(path)


def test_a_zip_that_promises_little_gives_little(tmp_path: Path) -> None:
    """The size in its directory is 10 bytes, what is packed is a megabyte."""
    path = tmp_path / "a-1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", bytes(MB))
    data = path.read_bytes().replace(struct.pack("<I", MB), struct.pack("<I", 10))
    path.write_bytes(data)
    ((_, size, read),) = list(archive_members(path))
    assert size == 10
    try:
        assert len(read()) <= 10
    except archives.UNREADABLE:
        return  # a Python that compares both sizes


def test_a_zip_packed_by_what_takes_memory_at_will_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a-1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.py", CODE * 30)
    with pytest.raises(CorpusError, match="1 unreadable"):
        read_corpus([path])


def test_xz_that_wants_more_memory_than_it_may_have_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "preset": 0}]
    packer = lzma.LZMACompressor(filters=[{**filters[0], "dict_size": 1 << 20}])
    data = bytearray(packer.compress(header("a.py", 0) + bytes(1024)) + packer.flush())
    # The size of the dictionary stands in the header of the first block, and a sum behind it.
    at = data.index(b"\x21\x01", 12) + 2
    data[at] = 36  # 1 GB
    size = (data[12] + 1) * 4
    struct.pack_into("<I", data, 12 + size - 4, zlib.crc32(bytes(data[12 : 12 + size - 4])))
    (tmp_path / "a-1.tar.xz").write_bytes(data)
    with pytest.raises(CorpusError, match="not an archive that can be read"):
        names_in(tmp_path / "a-1.tar.xz")


def test_all_packings_are_read(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(700_000)
    for mode, end in (("w", ""), ("w:gz", ".gz"), ("w:bz2", ".bz2"), ("w:xz", ".xz")):
        path = tar_of(tmp_path / f"a-1.tar{end}", ("a-1/big.py", data), ("a-1/in.py", CODE), mode=mode)
        assert [(name, read()) for name, _, read in archive_members(path)] == [("big.py", data), ("in.py", CODE)]
    two = tmp_path / "two-1.tar.xz"
    whole = tar_of(tmp_path / "b.tar", ("two-1/in.py", CODE)).read_bytes()
    two.write_bytes(lzma.compress(whole[:600]) + bytes(8) + lzma.compress(whole[600:]))
    assert [(name, read()) for name, _, read in archive_members(two)] == [("in.py", CODE)]


@given(st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_never_more_than_a_corpus_error(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"]))
    path = tmp_path / f"a-1.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.py", CODE * 9)
            archive.writestr("b.py", CODE)
    else:
        tar_of(path, ("a.py", CODE * 9), ("b" * 200 + ".py", CODE), mode=f"w:{kind[4:]}")
    noisy = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        noisy[data.draw(st.integers(0, len(noisy) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(noisy[: data.draw(st.integers(1, len(noisy)))])
    try:
        for _, size, read in archive_members(path):
            if size <= MB:
                try:
                    assert len(read()) <= MB
                except archives.UNREADABLE:
                    continue
    except CorpusError:
        pass


def test_a_package_that_unpacks_beyond_reason_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the disk is full: by a dpkg-deb that never ends."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dpkg-deb").write_text("#!/bin/sh\nexec cat /dev/zero\n")
    (tmp_path / "bin" / "dpkg-deb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(fetch, "MAX_ARCHIVE_BYTES", 3 * MB)
    package = tmp_path / "a.deb"
    package.write_bytes(b"")
    with pytest.raises(CorpusError, match="unpacks to more than"):
        fetch._installed_files(package)
    assert (tmp_path / "a.tar").stat().st_size <= 3 * MB


@pytest.mark.parametrize("name", ["..", "../other", "/etc", "a/b", "", ".hidden", "a\0b"])
def test_a_manifest_names_no_directory_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.py").write_bytes(CODE)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / MANIFEST).write_text(json.dumps({"projects": [name]}))
    with pytest.raises(CorpusError, match="is damaged"):
        read_corpus([tmp_path / "corpus"])


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", 7])
def test_a_built_corpus_names_no_shard_elsewhere(tmp_path: Path, name: object) -> None:
    (tmp_path / "corpus").mkdir()
    shard = {"name": name, "documents": 1, "symbols": 3, "sha256": "0" * 64, "offsets_sha256": "0" * 64}
    shards = {"train": [shard], "held_out": []}
    data = {"format": FORMAT, "rules": {"suffixes": [".py"]}, "lists": {}, "shards": shards, "corpus": {}}
    (tmp_path / "corpus" / CORPUS_FILE).write_text(json.dumps(data))
    with pytest.raises(CorpusError, match=r"corpus\.json is damaged"):
        open_corpus(tmp_path / "corpus")
