"""What is made of somebody's text is theirs alone, from its first byte on; and only files are opened, no more of them
than they may have."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny

from lsp_charrnn import private
from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.model.files import CONFIG_FILE
from lsp_charrnn.model.installed import install, installed_model, make_place, place_of
from lsp_charrnn.private import create, is_private, is_trusted, make_directory, open_regular, read_regular
from lsp_charrnn.project import cache
from lsp_charrnn.train.card import add_evaluation
from lsp_charrnn.train.checkpoint import save_checkpoint
from lsp_charrnn.train.journal import Journal
from lsp_charrnn.train.shards import write_shard

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")


@pytest.fixture(autouse=True)
def _careless() -> Iterator[None]:
    """A user whose files everybody may change by default."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def all_private(root: Path) -> bool:
    return mode(root) == 0o700 and all(mode(path) & 0o077 == 0 for path in root.rglob("*"))


def test_directories_are_closed_whether_they_were_there_or_not(tmp_path: Path) -> None:
    make_directory(tmp_path / "new")
    assert mode(tmp_path / "new") == 0o700
    (tmp_path / "old").mkdir(mode=0o777)
    make_directory(tmp_path / "old")
    assert mode(tmp_path / "old") == 0o700
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "file")


def test_files_are_new_and_closed(tmp_path: Path) -> None:
    with create(tmp_path / "a") as file:
        assert mode(tmp_path / "a") == 0o600
        file.write(b"x")
    with pytest.raises(FileExistsError):
        create(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_only_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        read_regular(tmp_path / "file", 4)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(OSError, match=r"."):
            open_regular(path)


def test_whom_a_file_is_trusted_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    for bits, trusted, secret in (
        (0o600, True, True),
        (0o644, True, False),
        (0o620, False, False),
        (0o602, False, False),
    ):
        path.chmod(bits)
        assert (is_trusted(path.stat()), is_private(path.stat())) == (trusted, secret)
    path.chmod(0o600)
    monkeypatch.setattr(private.os, "geteuid", lambda: 54321)
    status = os.stat_result((*path.stat()[:4], 12345, *path.stat()[5:]))  # another user's, neither root's nor ours
    assert not is_trusted(status)
    assert not is_private(status)


def test_models(tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "tiny")
    assert all_private(model)
    add_evaluation(model, {"bits": {"held out": 0.5}})
    assert all_private(model)
    assert "held out" in (model / CONFIG_FILE).read_text()


def test_installed_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data"))
    root = tmp_path / "project"
    root.mkdir()
    place_of(root).mkdir(parents=True, mode=0o777)  # it was there, and open
    install(make_tiny(tmp_path / "tiny"), root)
    assert all_private(place_of(root).parent)
    make_place(root).chmod(0o777)
    with pytest.raises(Exception, match="others can change the project's model"):
        installed_model(root)


def test_what_a_training_leaves(tmp_path: Path) -> None:
    import torch

    run = tmp_path / "run"
    with Journal(run, title="a run"):
        save_checkpoint(run / "checkpoint.safetensors", {"a": torch.zeros(1)}, {})
    assert mode(run) == 0o700
    assert mode(run / "checkpoint.safetensors") == 0o600


def test_shards(tmp_path: Path) -> None:
    write_shard(tmp_path, "000", b"abc", np.array([0, 3]))
    assert {mode(path) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(("bits", "used"), [(0o600, True), (0o644, True), (0o660, False), (0o666, False)])
def test_a_cache_that_others_can_have_written_is_none(tmp_path: Path, bits: int, used: bool) -> None:
    root, folder = tmp_path / "project", tmp_path / "cache"
    root.mkdir()
    counts = Counts.of_texts([b"some text"])
    index = cache.Index({"a.py": cache.Entry(9, 1, 0, 9)}, np.frombuffer(b"some text", np.uint8), counts)
    path = cache.cache_file(root, folder)
    cache.write(path, root, index)
    assert (mode(folder), mode(path)) == (0o700, 0o600)
    path.chmod(bits)
    found = cache.read(path, root)
    assert (found is not None) == used
    if used:
        assert mode(path) == 0o600  # what others could read they can't any more
        assert found is not None
        assert found.text("a.py") == b"some text"


def test_a_cache_that_is_a_pipe_is_none(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    path = cache.cache_file(root, tmp_path)
    os.mkfifo(path, 0o600)
    assert cache.read(path, root) is None
    assert list(cache.caches(tmp_path)) == []
