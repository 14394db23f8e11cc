"""What is killed and started again has lost nothing: the server while somebody types, and the writer of its index.

`python -m benchmarks.kills` does it at fifty random moments. Of trainings: `tests/train/test_kill.py`.
"""

import asyncio
import random
import sys
from pathlib import Path

import pytest
from conftest import TINY_WORD

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks import kills


@pytest.fixture
def text(tmp_path):
    directory = tmp_path / "text"
    directory.mkdir()
    for name in ("one", "two"):
        lines = "".join(f"    value_{name} = {TINY_WORD}" for _ in range(80))
        (directory / f"{name}.py").write_text(f"def {name}():\n{lines}")
    return directory


def test_the_server_is_killed_while_somebody_types(text, tiny_model, tmp_path):
    outcomes = []
    asyncio.run(kills.kill_server(1, tiny_model, text, tmp_path / "place", random.Random(1), outcomes.append))
    assert [outcome.lost for outcome in outcomes] == [()]


def test_the_writer_of_the_index_is_killed(text, tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "LITTLE", 3_000)
    outcomes = []
    kills.kill_index(2, text, tmp_path, random.Random(0), outcomes.append)
    assert [outcome.lost for outcome in outcomes] == [(), ()]
    assert {outcome.moment.split(",")[0] for outcome in outcomes} == {"while it is written", "at any time"}
