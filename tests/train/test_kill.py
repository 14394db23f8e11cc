"""A real `lsp-charrnn train`, killed by SIGKILL and resumed, ends as if nothing had happened.

`python -m benchmarks.kill_resume` does the same at twenty random moments.
"""

import random
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.kill_resume import Trainer, at_step, differences, outcome
from lsp_charrnn.train.checkpoint import load_checkpoint
from lsp_charrnn.train.loop import CHECKPOINT_FILE
from lsp_charrnn.train.run import work_dir

# Half of the third checkpoint that it writes is on the disk when it dies.
DYING = """
import os, signal
from lsp_charrnn import cli
from lsp_charrnn.train import checkpoint
save_file, written = checkpoint.save_file, []
def die(tensors, path, metadata):
    save_file(tensors, path, metadata=metadata)
    written.append(path)
    if len(written) == 3:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = die
cli.main()
"""


@pytest.fixture
def trainer(tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for number in range(8):
        (text / f"m{number}.py").write_text("".join(f"def f{number}_{i}(x):\n    return x * {i}\n" for i in range(60)))
    return Trainer(text, steps=24, hidden=64)


def test_killed_twice_and_resumed_it_is_equal_to_the_bit(trainer, tmp_path):
    trainer.end(tmp_path / "undisturbed", resume=False)
    out = tmp_path / "killed"
    checkpoint = work_dir(out) / CHECKPOINT_FILE

    assert trainer.kill(out, at_step(5), random.Random(0), resume=False)
    first = load_checkpoint(checkpoint)[1]["step"]
    assert first in (4, 8, 12)

    dying = replace(trainer, program=(sys.executable, "-c", DYING))
    assert dying.start(out, resume=True).wait() == -signal.SIGKILL
    assert load_checkpoint(checkpoint)[1]["step"] == first + 8  # the second that it wrote
    assert checkpoint.with_name(f"{CHECKPOINT_FILE}.partial").exists()

    trainer.end(out, resume=True)
    undisturbed = outcome(tmp_path / "undisturbed")
    assert differences(undisturbed, outcome(out)) == []
    assert not checkpoint.with_name(f"{CHECKPOINT_FILE}.partial").exists()
    assert [point["step"] for point in undisturbed["curve"]][-2:] == [23, 24]
    assert undisturbed["lines"] == len(undisturbed["curve"])
    changed = {**undisturbed, "checkpoint": {name: value + 1 for name, value in undisturbed["checkpoint"].items()}}
    assert differences(undisturbed, changed) == ["checkpoint"]  # it would be seen
