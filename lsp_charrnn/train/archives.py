"""Archives of source code, read in place: what a file in one is called, how large it is, and its bytes.

An archive comes from elsewhere and may be made to do harm. Nothing is ever unpacked by names that it gives: links,
devices and names that point outside are passed over, and what is asked of memory and time is bounded before it is
given: the bytes that it unpacks to, its entries, what describes a single one, and the memory that xz wants. Which files
are worth having is left to `corpus` and `fetch`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Protocol, cast

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.private import open_regular

ARCHIVE_SUFFIXES: Final = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar", ".zip", ".whl", ".crate")
MAX_ARCHIVE_BYTES: Final = 4_000_000_000  # unpacked: past this an archive is a bomb, not a release
MAX_ARCHIVE_MEMBERS: Final = 500_000
MAX_MEMBER_BYTES: Final = 16 << 20  # of a file that is read; no source file is as large
MAX_DESCRIPTION: Final = 16 << 20  # bytes that are read to learn of one entry: long names, attributes, maps of holes
MAX_ZIP_DIRECTORY: Final = 32 << 20  # bytes; zipfile makes twenty times as much of it
MAX_XZ_MEMORY: Final = 128 << 20  # bytes; `xz -9` wants 65 MB
_MAX_DEPTH: Final = 64
_MAX_NAME: Final = 1000  # characters

# What a damaged archive or file raises when it is read; RuntimeError is zipfile's for an encrypted member.
UNREADABLE: Final = (
    *(OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError),
    *(ValueError, struct.error, MemoryError),  # of headers that hold anything
)

Member = tuple[str, int, Callable[[], bytes]]  # path inside, size, read


class _TooMuchError(Exception):
    """An archive unpacks to more than is reasonable."""


def archive_project(name: str) -> str:
    """Return the project that an archive's file name stands for: `Foo_Bar-1.2.tar.gz` is `foo-bar`."""
    stem = next((name[: -len(end)] for end in ARCHIVE_SUFFIXES if name.lower().endswith(end)), name)
    is_wheel = name.lower().endswith(".whl")
    stem = stem.split("-")[0] if is_wheel else re.sub(r"-v?\d.*$", "", stem)
    return re.sub(r"[-_.]+", "-", stem).lower()


def archive_members(path: Path) -> Iterator[Member]:
    """Yield (path inside, size, read) of each regular file; a release's top directory is taken off.

    `read` must be called before the next one is asked for. Links, devices, and names that point outside the
    archive are passed over. Raises `CorpusError` for an archive that is damaged or unpacks beyond reason.
    """
    total = 0
    is_wheel = path.name.lower().endswith(".whl")
    try:
        opened = _zip_members if zipfile.is_zipfile(path) else _tar_members
        for number, (name, size, read) in enumerate(opened(path)):
            total += size
            if total > MAX_ARCHIVE_BYTES or number >= MAX_ARCHIVE_MEMBERS:
                raise _TooMuchError
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if read is None or not _is_inside(name, parts):
                continue
            top = re.sub(r"[-_.]+", "-", parts[0]).lower()
            if len(parts) > 1 and not is_wheel and top.startswith(archive_project(path.name) + "-"):
                parts = parts[1:]
            if ":" not in parts[0]:
                yield "/".join(parts), size, read
    except _TooMuchError as error:
        raise CorpusError(f"{path} unpacks to more than an archive of source code should; leave it out.") from error
    except UNREADABLE as error:
        raise CorpusError(f"{path} is not an archive that can be read ({error}); fetch it again.") from error


def _is_inside(name: str, parts: tuple[str, ...]) -> bool:
    """Say whether a name leads to a file below the directory that an archive would be unpacked in."""
    if not parts or len(parts) > _MAX_DEPTH or len(name) > _MAX_NAME or any(map(_is_control, name)):
        return False
    return ".." not in parts and parts[0] != "/" and not parts[0].startswith("//") and ":" not in parts[0]


def _is_control(character: str) -> bool:
    return character < " " or character == "\x7f"


# --- zip ---


def _zip_members(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes] | None]]:
    """Yield all entries, those that are no files without a way to read them."""
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():

            def read(info: zipfile.ZipInfo = info) -> bytes:
                # What bzip2 and lzma want of memory the archive says.
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise zipfile.BadZipFile("it is compressed in another way than by deflate")
                if info.file_size > MAX_MEMBER_BYTES:
                    raise zipfile.BadZipFile("a file in it is too large")
                with archive.open(info) as member:
                    return member.read(info.file_size)  # never more than the directory promised

            kind = stat.S_IFMT(info.external_attr >> 16)
            is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
            yield info.filename, info.file_size, read if is_file else None


def _check_directory(path: Path) -> None:
    """Raise `_TooMuchError` for a zip with a directory that would fill the memory: zipfile takes all of it in."""
    with open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 98))  # end record, the longest comment, and the two records of zip64
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + 22 > len(tail):
        raise zipfile.BadZipFile("it has no directory")
    entries, length = struct.unpack_from("<HI", tail, at + 10)
    if length == 0xFFFFFFFF or entries == 0xFFFF:
        large = at - 20 - 56
        if large < 0 or tail[large : large + 4] != b"PK\6\6":
            raise zipfile.BadZipFile("it has no directory")
        (length,) = struct.unpack_from("<Q", tail, large + 40)
    if length > MAX_ZIP_DIRECTORY:
        raise _TooMuchError


# --- tar ---


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _tar_members(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes] | None]]:
    """Yield all entries, those that are no files without a way to read them."""
    with open_regular(path) as file, _unpacked(file) as source:
        bounded = _Bounded(source)
        with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r:") as archive:
            while True:
                bounded.left = MAX_DESCRIPTION
                info = archive.next()
                if info is None:
                    return
                # Half a million of them would fill the memory, and one global header after the other.
                archive.members = []  # type: ignore[attr-defined]
                archive.pax_headers = {}

                def read(info: tarfile.TarInfo = info) -> bytes:
                    if info.size > MAX_MEMBER_BYTES:
                        raise tarfile.ReadError("a file in it is too large")
                    bounded.left = MAX_MEMBER_BYTES + MAX_DESCRIPTION
                    return (archive.extractfile(info) or io.BytesIO()).read()

                yield info.name, max(0, info.size), read if info.isfile() else None


@contextmanager
def _unpacked(file: BinaryIO) -> Iterator[_Source]:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked
    elif magic.startswith(b"BZh"):
        with bz2.BZ2File(file) as unpacked:
            yield unpacked
    elif magic == b"\xfd7zXZ\0":
        yield _Xz(file)
    else:
        yield file


class _Xz:
    """Unpacks xz with no more memory than it may have, which `lzma.LZMAFile` cannot be told."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = self._new()
        self._ready = bytearray()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)

    def read(self, size: int, /) -> bytes:
        while len(self._ready) < size:
            piece = self._more()
            if not piece:
                break
            self._ready += piece
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def _more(self) -> bytes:
        while True:
            data = b""
            if self._decompressor.eof:  # another stream may follow, behind zeros
                data = (self._decompressor.unused_data or self._file.read(1 << 16)).lstrip(b"\0")
                if not data:
                    return b""
                self._decompressor = self._new()
            elif self._decompressor.needs_input:
                data = self._file.read(1 << 16)
                if not data:
                    raise EOFError("it ends early")
            piece = self._decompressor.decompress(data, 1 << 18)
            if piece:
                return piece


class _Bounded:
    """A file for tarfile that goes forward only, and gives no more than an archive of source code has.

    `left` is what may still be read at this point (not skipped): tarfile believes what a header says of its own length.
    """

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._at = 0
        self.left = MAX_DESCRIPTION

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        if size < 0 or size > self.left:
            raise _TooMuchError
        data = self._source.read(size)
        while 0 < len(data) < size:  # gzip may give less than it is asked for
            more = self._source.read(size - len(data))
            if not more:
                break
            data += more
        self.left -= len(data)
        self._go_on(len(data))
        return data

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET or position < self._at:
            raise tarfile.ReadError("it leads backwards")
        if position > MAX_ARCHIVE_BYTES:
            raise _TooMuchError
        while self._at < position:
            piece = self._source.read(min(position - self._at, 1 << 20))
            if not piece:
                break
            self._go_on(len(piece))
        return self._at

    def _go_on(self, size: int) -> None:
        self._at += size
        if self._at > MAX_ARCHIVE_BYTES:
            raise _TooMuchError
