"""What `make bench` compares and records. How much is saved, is not tested here."""

from __future__ import annotations

import importlib
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lsp_charrnn.evaluate.bits import FileBits
from lsp_charrnn.evaluate.memory import ALONE, DOCUMENT, PROJECT, MemoryBits
from lsp_charrnn.evaluate.replay import Accept, Replay, Window
from lsp_charrnn.evaluate.typing import COMPARED, TypingReport, TypingRow

ROOT = Path(__file__).parent.parent
WINDOW = Window("shop", "cart.py", "python", "total = 1\ntotal\n", 10, 15)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the benchmark, whatever pytest was started by."""
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.bench")


def typing_report() -> TypingReport:
    """Two windows of 100 keys; each suggester saves some points more than the one before, next words one more."""
    rows = []
    accepts: tuple[Accept, ...] = ("all", "words")
    for place, suggester in enumerate(COMPARED):
        for accept in accepts[: 1 if place == 0 else 2]:
            kept = 80 - 10 * place - (accept == "words")
            replays = [Replay(WINDOW, 100, kept + off, 30, 10, 4, (0.002, 0.004)) for off in (-2, 2)]
            rows.append(TypingRow(suggester, accept, tuple(replays)))
    return TypingReport("tiny", "end", (WINDOW, WINDOW), tuple(rows))


def memory_bits() -> MemoryBits:
    costs = {ALONE: 1.5, DOCUMENT: 1.0, PROJECT: 0.75, "PPMd-16, primed": 1.25, "xz -9e, primed": 1.75}
    return MemoryBits(
        "tiny", {way: (FileBits("shop", "cart.py", 100, 100 * cost),) for way, cost in costs.items()}, 1.0
    )


def test_all_is_compared_in_one_table(bench: ModuleType) -> None:
    compared = bench.comparison(typing_report(), memory_bits())
    assert [cells[0] for cells in compared[1:]] == [*COMPARED.values(), "PPMd-16, primed", "xz -9e, primed"]
    assert {len(cells) for cells in compared} == {6}
    assert compared[1][1:] == ("20.0 ± 2.0 %", "20.0 ± 2.0 %", "40 %", "3.0 / 4.0 ms", "")
    assert compared[5][1:] == ("60.0 ± 2.0 %", "61.0 ± 2.0 %", "40 %", "3.0 / 4.0 ms", "0.750")
    assert [cells[-1] for cells in compared[3:]] == ["1.500", "1.000", "0.750", "1.250", "1.750"]
    assert bench.comparison_table(compared).row_count == 7


def test_the_page_gets_figures_and_comparison(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    page = tmp_path / "README.md"
    page.write_text(f"before\n{bench.FIGURES_BEGIN}\nold\n{bench.FIGURES_END}\nafter\n", "utf-8")
    details = tmp_path / "docs" / "figures.md"
    details.parent.mkdir()
    details.write_text(f"before\n{bench.DETAILS_BEGIN}\nold\n{bench.DETAILS_END}\nafter\n", "utf-8")
    row = bench.latency_row({"keys": 600, "p50": 4.04, "p95": 20.0, "p99": 28.36})
    bench.write_pages([row], bench.comparison(typing_report(), memory_bits()), "a machine")
    text = page.read_text("utf-8")
    assert text.startswith(f"before\n{bench.FIGURES_BEGIN}\n| figure | aim | reached | |\n")
    assert text.endswith(f"Measured on: a machine.\n{bench.FIGURES_END}\nafter\n")
    assert "old" not in text
    assert "| 15 / 40 / – ms | **4.0 / 20.0 / 28.4 ms** | ✓ |" in text
    text = details.read_text("utf-8")
    assert text.startswith(f"before\n{bench.DETAILS_BEGIN}\n- ")
    assert text.endswith(f"Measured on: a machine.\n{bench.DETAILS_END}\nafter\n")
    assert "old" not in text
    assert "\n|---|---|---|---|---|---|\n| words of the document | 20.0 ± 2.0 % |" in text
    assert "\n| LSTM + document + project | 60.0 ± 2.0 % | 61.0 ± 2.0 % | 40 % | 3.0 / 4.0 ms | 0.750 |\n" in text


def test_the_picture_is_a_small_png(tmp_path: Path) -> None:
    path = tmp_path / "images" / "keystrokes.png"
    typing_report().picture(path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (960, 456)
    assert len(data) < 60_000
    assert list(path.parent.iterdir()) == [path]


def test_rough_figures_are_not_recorded() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", "--quick", "--record"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.count("\n") == 1
    assert "leave out one of them" in done.stdout
    assert not done.stderr
