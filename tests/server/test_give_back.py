"""Freed memory goes back to the system, where the allocator can be asked to."""

from __future__ import annotations

import sys

import pytest

from lsp_charrnn.server import memory


def test_free_memory_is_given_back() -> None:
    blocks = [bytes(10_000) for _ in range(3_000)]
    kept = blocks[::100]
    del blocks
    assert isinstance(memory.give_back(), bool)
    assert len(kept) == 30


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory.give_back() is False
    assert memory.share_one_heap() is False
