"""A real `lsp-charrnn train`, killed by SIGKILL and resumed, ends as if nothing had happened; and on a full disk.

`python -m benchmarks.kill_resume` does the same at twenty random moments.
"""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.kill_resume import Trainer, at_step, differences, in_checkpoint, kill_and_resume, outcome


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    text = tmp_path_factory.mktemp("text")
    for number in range(8):
        (text / f"m{number}.py").write_text("".join(f"def f{number}_{i}(x):\n    return x * {i}\n" for i in range(60)))
    return Trainer(text, steps=24, hidden=64)


def test_killed_twice_and_resumed_it_is_equal_to_the_bit(trainer, tmp_path):
    trainer.end(tmp_path / "undisturbed", resume=False)
    moments = [at_step(6), in_checkpoint(12)]
    resumed = kill_and_resume(trainer, tmp_path / "killed", moments, random.Random(0))
    assert len(resumed) == 2
    assert 4 <= resumed[0] <= resumed[1] < 24
    undisturbed = outcome(tmp_path / "undisturbed")
    assert differences(undisturbed, outcome(tmp_path / "killed")) == []
    assert [point["step"] for point in undisturbed["curve"]][-2:] == [23, 24]
    assert undisturbed["lines"] == len(undisturbed["curve"])
    changed = {**undisturbed, "checkpoint": {name: value + 1 for name, value in undisturbed["checkpoint"].items()}}
    assert differences(undisturbed, changed) == ["checkpoint"]  # it would be seen
