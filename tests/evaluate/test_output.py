"""Files appear whole or not at all, and what cannot be written is one sentence."""

import os
from pathlib import Path

import pytest

from lsp_charrnn.errors import OutputError
from lsp_charrnn.evaluate.output import check_place, write_whole


def test_a_file_is_written_with_its_directories_and_replaced(tmp_path):
    path = tmp_path / "new" / "deep" / "a.json"
    check_place(path)
    assert not list(tmp_path.iterdir())
    for data in (b"one", b"two"):
        write_whole(path, data)
        assert path.read_bytes() == data
        check_place(path)
    assert list(path.parent.iterdir()) == [path]


def test_where_nothing_can_be_put_is_said_before_and_after(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "file" / "deep" / "a.png", tmp_path / "directory"):
        with pytest.raises(OutputError, match="name a"):
            check_place(path)
        with pytest.raises(OutputError, match="name another place"):
            write_whole(path, b"data")
    assert {each.name for each in tmp_path.iterdir()} == {"file", "directory"}
    assert not list((tmp_path / "directory").iterdir())


def test_a_file_in_this_directory_needs_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_place(Path("a.json"))
    write_whole(Path("a.json"), b"data")
    assert (tmp_path / "a.json").read_bytes() == b"data"


def test_what_was_there_stays_if_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
