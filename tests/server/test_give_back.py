"""Freed memory goes back to the system, where the allocator can be asked to; and what limits it is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lsp_charrnn.server import memory
from lsp_charrnn.server.memory import memory_limit, room_for_text


def test_free_memory_is_given_back() -> None:
    blocks = [bytes(10_000) for _ in range(3_000)]
    kept = blocks[::100]
    del blocks
    assert isinstance(memory.give_back(), bool)
    assert len(kept) == 30


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory.give_back() is False
    assert memory.keep_heap_small() is False


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "314572800\n"}, 300 << 20),  # in a container
        ("0::/a.slice/b\n", {"a.slice/memory.max": "500000000\n", "a.slice/b/memory.max": "max\n"}, 500_000_000),
        ("5:memory:/docker/x\n3:cpu:/\n0::/\n", {"memory/memory.limit_in_bytes": "300000000\n"}, 300_000_000),
        ("5:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/\n", {}, None),
        ("", {"memory.max": "1\n"}, None),
        ("nonsense\n", {}, None),
    ],
)
def test_the_limit_of_control_groups(groups: str, files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        (tmp_path / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / name).write_text(text)
    assert memory_limit(tmp_path) == limit


def test_no_system_that_tells(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None


def test_room_for_a_projects_text() -> None:
    assert room_for_text(None) is None
    assert room_for_text(100 << 20) == 0
    assert 1_000_000 < (room_for_text(300 << 20) or 0) < 2_000_000
