"""The figures of replayed typing, and the whole of it through the real server."""

import asyncio
import json
import math

import pytest

from lsp_charrnn.evaluate.replay import Replay, Window
from lsp_charrnn.evaluate.typing import TypingReport, TypingRow, type_windows
from lsp_charrnn.evaluate.words import DocumentWords

WINDOW = Window("shop", "cart.py", "python", "total = 1\ntotal\n", 10, 15)


def a_replay(without, with_, *, shown=0, distinct=0, taken=0):
    return Replay(WINDOW, without, with_, shown, distinct, taken, tuple(n / 1000 for n in range(1, with_ + 1)))


def test_the_figures_are_sums_over_the_windows():
    row = TypingRow("x", "all", (a_replay(100, 50, shown=30, distinct=8, taken=3), a_replay(300, 150, distinct=4)))
    assert (row.keys_without, row.keys_with) == (400, 200)
    assert row.saved == 0.5
    assert row.saved_error == 0.0  # both windows saved the same share
    assert row.acceptance == 3 / 12
    assert row.shown == 30 / 200
    assert row.latency_ms(50) == pytest.approx(50.5, abs=1)


def test_the_error_says_how_much_windows_differ():
    # Ratio 1/2; the residuals are 10 - 50 and 90 - 50; sqrt(2 * (40² + 40²)) / 200.
    row = TypingRow("x", "all", (a_replay(100, 10), a_replay(100, 90)))
    assert row.saved_error == pytest.approx(80 / 200)
    assert math.isnan(TypingRow("x", "all", (a_replay(100, 10),)).saved_error)


def test_the_report_names_what_was_typed():
    rows = asyncio.run(type_windows([WINDOW, WINDOW], DocumentWords(), accepts=("all",)))
    # "t" is typed, "otal" is taken: 2 keys for 5.
    assert [(replay.keys_without, replay.keys_with) for replay in rows[0].replays] == [(5, 2), (5, 2)]
    report = TypingReport("tiny", "end", (WINDOW, WINDOW), tuple(rows))
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["model"] == "tiny"
    assert data["windows"][0] == {"project": "shop", "path": "cart.py", "line": 2, "characters": 5}
    assert data["rows"][0]["saved"] == pytest.approx(0.6)
    assert report.row("document's words", "all") is rows[0]
    assert report.table().row_count == 1
    with pytest.raises(KeyError):
        report.row("document's words", "words")


def test_a_row_without_suggestions_is_still_json():
    row = TypingRow("x", "all", (a_replay(10, 10),))
    assert json.loads(json.dumps(row.to_json(), allow_nan=False))["acceptance"] is None
