"""The local counters."""

from __future__ import annotations

from lsp_charrnn.server.statistics import Statistics


def test_nothing_yet() -> None:
    assert Statistics().to_json() == {
        "requests": 0,
        "shown": 0,
        "accepted": 0,
        "charactersSaved": 0,
        "latencyMs": {"p50": None, "p95": None, "p99": None},
    }


def test_counts_and_percentiles() -> None:
    statistics = Statistics()
    for milliseconds in range(1, 101):
        statistics.answered(float(milliseconds), shown=milliseconds % 2 == 0)
    first, second = statistics.register(10), statistics.register(5)
    assert first != second
    assert statistics.accept(first)
    assert not statistics.accept(first)  # once
    assert not statistics.accept("unknown")
    counted = statistics.to_json()
    assert (counted["requests"], counted["shown"]) == (100, 50)
    assert (counted["accepted"], counted["charactersSaved"]) == (1, 10)
    assert counted["latencyMs"] == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_memory_is_bounded() -> None:
    statistics = Statistics()
    oldest = statistics.register(1)
    for _ in range(10_000):
        newest = statistics.register(1)
        statistics.answered(1.0, shown=True)
    assert not statistics.accept(oldest)
    assert statistics.accept(newest)
    assert len(statistics._characters) <= 512
    assert len(statistics._latencies) <= 1_000
