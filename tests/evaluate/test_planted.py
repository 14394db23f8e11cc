"""How surprise is judged: precision, recall and area as counted by hand, and a whole measurement with a small model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.mistakes import KINDS, OPERATOR, SWAPPED
from lsp_charrnn.evaluate.surprise import (
    ALONE,
    BITS,
    CHANCE,
    FILE_CHARACTERS,
    MEMORIES,
    MIXTURE,
    Ranked,
    SurpriseReport,
    _whole_statements,
    measure_surprise,
)

# Of ten tokens the second, the fifth and the seventh are mistakes; the last two are of one.
SCORES = np.array([1.0, 9, 0, 8, 7, 2, 3, 0, 0, 0])
WHICH = np.array([-1, 0, -1, -1, 1, -1, 1, -1, -1, -1])


def test_the_figures_are_those_counted_by_hand() -> None:
    report = SurpriseReport("m", {MIXTURE: (Ranked(SCORES, WHICH, (SWAPPED, OPERATOR)),)}, 1.0)
    assert [report.precision(MIXTURE, k) for k in (1, 2, 3, 5)] == pytest.approx([1, 1 / 2, 2 / 3, 3 / 5])
    assert [report.recall(MIXTURE, k) for k in (1, 3)] == [0.5, 1]
    assert [report.recall(MIXTURE, 1, kind) for kind in (SWAPPED, OPERATOR)] == [1, 0]
    # That a mistake ranks before another token, over all pairs.
    others = SCORES[WHICH < 0]
    pairs = [(own > other) + 0.0 for own in SCORES[WHICH >= 0] for other in others]
    assert report.area(MIXTURE) == pytest.approx(np.mean(pairs))
    assert report.precision(CHANCE, 5) == pytest.approx(3 / 10)
    assert report.recall(CHANCE, 1) == pytest.approx((1 / 10 + 1 - (9 / 10) ** 2) / 2)
    assert report.area(CHANCE) == 0.5
    assert (report.mistakes, report.tokens) == (2, 10)


def test_a_beginning_ends_before_a_statement_at_the_margin() -> None:
    text = b"def f():\n    return 1\n\n\n" * (FILE_CHARACTERS // 20)
    cut = _whole_statements(text)
    assert 0 < len(cut) <= FILE_CHARACTERS
    assert text[len(cut) :].startswith(b"def")
    assert _whole_statements(b"    x\n" * FILE_CHARACTERS) == b""


def test_mistakes_in_files_are_ranked_in_every_way(tmp_path: Path, tiny_model: Path) -> None:
    for project in ("one", "two"):
        (tmp_path / project).mkdir()
        lines = [
            f"def f{n}(alpha, beta):\n    {'# ' + 'why ' * 60}\n    return not alpha == beta\n\n\n" for n in range(9)
        ]
        (tmp_path / project / "a.py").write_text("".join(lines))
    seen: list[tuple[int, int]] = []
    report = measure_surprise(
        [tmp_path], model=tiny_model, files=2, progress=lambda done, total: seen.append((done, total))
    )
    assert set(report.ways) == {MIXTURE, BITS, ALONE, MEMORIES}
    assert report.mistakes >= 2
    assert seen[-1][1] == 2
    data = report.to_json()
    assert set(data["ways"]) == {*report.ways, CHANCE}
    assert set(data["mistakes"]) == set(KINDS)
    assert data["ways"][MIXTURE]["area"] > 0.5
    assert report.table().row_count == len(data["ways"]) + len(KINDS)


def test_where_there_is_no_python_nothing_can_be_planted(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "a.py").write_text("def (:\n" * 20)
    with pytest.raises(CorpusError, match="planted"):
        measure_surprise([tmp_path], model=tiny_model)
