"""Several processes train as one would: under a real torchrun, on gloo over the loopback interface."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from lsp_charrnn.config import TrainOptions
from lsp_charrnn.errors import CorpusError, SettingError
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import header
from lsp_charrnn.train import loop
from lsp_charrnn.train.batches import LaneBatches, Window
from lsp_charrnn.train.checkpoint import load_checkpoint
from lsp_charrnn.train.corpus import corpus_facts, hold_out, pack, read_corpus
from lsp_charrnn.train.journal import read_log
from lsp_charrnn.train.loop import CHECKPOINT_FILE, reading_of
from lsp_charrnn.train.ranks import ALONE, Ranks, ranks_of
from lsp_charrnn.train.run import _was_killed, run, work_dir
from lsp_charrnn.train.shards import CORPUS_FILE, FORMAT, open_corpus, shards_to_json, write_shard

ROOT = Path(__file__).parents[2]
STEPS = 24
SPEC = ModelSpec(layers=1, hidden=32)
CLOCKS = ("minutes", "minutes_left", "characters_per_second")

# Stands for `-m lsp_charrnn.train`, but rank 1 kills itself in the middle, the first time.
KILLED = """
import os, runpy, signal
from lsp_charrnn.train import loop
update = loop._Run.update
def killed(run, rate):
    if run.step == 10 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        open("killed", "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    update(run, rate)
loop._Run.update = killed
runpy.run_module("lsp_charrnn.train", run_name="__main__")
"""


def source(number, lines=60):
    return "".join(f"def f{number}_{i}(x):\n    return x * {i}\n" for i in range(lines))


def begun(program, paths, out, *, steps=STEPS, batch=4, more=()):
    """Start a training: `program` is what comes before the arguments."""
    command = [
        *(sys.executable, "-m", *program, *paths, "--out", out, "--steps", steps, "--batch", batch, "--bptt", 32),
        *("--layers", 1, "--hidden", 32, "--device", "cpu", "--checkpoint-every", 4, *more),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=out.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def started(program, paths, out, **how):
    """Run a training to its end."""
    process = begun(program, paths, out, **how)
    try:
        said, complained = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, said, complained)


def alone(paths, out, **how):
    done = started(["lsp_charrnn.train"], paths, out, **how)
    assert done.returncode == 0, done.stderr
    return done


def torchrun(*more, script=("-m", "lsp_charrnn.train")):
    # A rendezvous at a port of its own that the system chooses, on the loopback interface.
    rendezvous = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1")
    return ["torch.distributed.run", "--nproc-per-node", 2, *rendezvous, *more, *script]


def together(paths, out, *more, script=("-m", "lsp_charrnn.train"), **how):
    done = started(torchrun(*more, script=script), paths, out, **how)
    assert done.returncode == 0, done.stderr
    return done


def checkpoint(out):
    return load_checkpoint(work_dir(out) / CHECKPOINT_FILE)


def curve(out):
    return [{name: value for name, value in point.items() if name not in CLOCKS} for point in read_log(work_dir(out))]


def losses(out, name):
    return np.array([point[name] for point in read_log(work_dir(out)) if point[name] is not None])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    directory = tmp_path_factory.mktemp("text")
    for number in range(8):
        (directory / f"m{number}.py").write_text(source(number))
    return directory


@pytest.fixture(scope="module")
def two(text, tmp_path_factory):
    """What two processes make of `text`."""
    out = tmp_path_factory.mktemp("two") / "model"
    together([text], out, more=["--project-share", 1])
    return out


def test_two_processes_lose_as_one_does(text, two, tmp_path):
    """They share one process's lanes, so that only the order of sums differs."""
    one = tmp_path / "model"
    alone([text], one, more=["--project-share", 1])
    for name in ("bits", "heldout_bits", "averaged_bits"):
        assert len(losses(one, name)) > 3
        assert losses(two, name) == pytest.approx(losses(one, name), rel=1e-3)  # a tenth of what is asked
    (tensors, facts), (shared, their_facts) = checkpoint(one), checkpoint(two)
    assert facts["step"] == their_facts["step"] == STEPS
    assert torch.equal(tensors["position"], shared["position"])
    assert tensors["state"].shape == shared["state"].shape
    assert (tensors["state"] - shared["state"]).abs().mean() < 0.01 * tensors["state"].abs().mean()  # lane by lane
    assert "torchrun --nproc-per-node 2 -m lsp_charrnn.train" in (two / "config.json").read_text()


def test_a_killed_worker_costs_what_came_after_the_last_checkpoint(text, two, tmp_path):
    script, out = tmp_path / "killed.py", tmp_path / "model"
    script.write_text(KILLED)
    together([text], out, "--max-restarts", 1, script=(script,), more=["--project-share", 1])
    assert (tmp_path / "killed").exists()
    assert curve(out) == curve(two)
    (tensors, _), (undisturbed, _) = checkpoint(out), checkpoint(two)
    assert tensors.keys() == undisturbed.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], undisturbed[name])] == []
    for name in ("weights.safetensors", "model.onnx", "step.onnx"):
        assert (out / name).read_bytes() == (two / name).read_bytes()


def test_what_two_began_one_ends(text, two, tmp_path):
    """The lanes are one process's, whoever reads them: another number of processes goes on in the same place."""
    out = copied(two, tmp_path)
    said = resumed([text], out, STEPS + 8, max_project_share=1.0)
    assert "from its start" not in said
    files, _ = read_corpus([text], max_project_share=1.0)
    lanes = LaneBatches(pack(hold_out(files)[0]), lanes=4, bptt=32, seed=0)
    lanes.seek(checkpoint(two)[0]["position"].numpy())
    for _ in range(8):
        lanes.next()
    assert np.array_equal(checkpoint(out)[0]["position"].numpy(), lanes.position())


def copied(out, directory):
    for path in (out, work_dir(out)):
        shutil.copytree(path, directory / path.name)
    return directory / out.name


def resumed(paths, out, steps, **how):
    """Let this process go on with what two have begun, up to `steps`; return what it said."""
    said = io.StringIO()
    spec = {"cell": None, "layers": 1, "hidden": 32}
    options = TrainOptions(steps=steps, batch=4, bptt=32, checkpoint_every=4, device="cpu")
    console = Console(file=said, width=200)
    run(paths, out, spec_options=spec, options=options, console=console, resume=True, force=True, **how)
    assert checkpoint(out)[1]["step"] == steps
    return said.getvalue()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A built corpus of five shards, and some documents to judge by."""
    directory = tmp_path_factory.mktemp("corpus")
    (directory / "text").mkdir()
    randomly = random.Random(0)
    for number in range(60):
        lines = ["".join(randomly.choices("abcdefgh_ ", k=12)) for _ in range(100)]  # that nobody can foresee
        (directory / "text" / f"m{number}.py").write_text("\n".join(lines))
    files, report = read_corpus([directory / "text"], max_project_share=1.0)
    kept, judges, by = hold_out(files)
    documents = pack(kept)
    parts = [documents[first::5] for first in range(5)]
    shards = [shard_of(directory, f"train-{number}", part) for number, part in enumerate(parts)]
    description = {
        "format": FORMAT,
        "rules": {"suffixes": [".py"]},
        "lists": [],
        "shards": {
            "train": shards_to_json(shards),
            "held_out": shards_to_json([shard_of(directory, "held-out-0", pack(judges))]),
        },
        "corpus": corpus_facts(kept, judges, by, report, {}),
    }
    (directory / CORPUS_FILE).write_text(json.dumps(description))
    return directory


def shard_of(directory, name, documents):
    offsets = np.cumsum([0, *map(len, documents)])
    return write_shard(directory, name, b"".join(document.tobytes() for document in documents), offsets)


class BothRanksBatches:
    """What two ranks read from shards of their own, side by side, for one process."""

    def __init__(self, documents, options):
        self.parts = [loop._batches(documents, options, Ranks(rank, 2)) for rank in range(2)]
        self.epochs = 0.0

    def position(self):
        return np.concatenate([part.position() for part in self.parts])

    def next(self):
        windows = [part.next() for part in self.parts]
        return Window(
            np.concatenate([window.symbols for window in windows], axis=1),
            np.concatenate([window.targets for window in windows], axis=1),
            np.concatenate([window.fresh for window in windows]),
        )


def test_with_shards_of_their_own_they_lose_as_one_does_and_one_can_go_on(corpus, tmp_path, monkeypatch):
    """One process in its own order within 1 %; one that reads the same windows, but for the order of sums."""
    one, two = tmp_path / "one", tmp_path / "two"
    how = {"steps": 150, "batch": 4, "more": ["--checkpoint-every", 50, "--lr", 0.004]}
    alone([corpus], one, **how)
    together([corpus], two, **how)
    for name in ("bits", "heldout_bits", "averaged_bits"):
        assert losses(two, name)[-3:] == pytest.approx(losses(one, name)[-3:], rel=0.01)
    batches = BothRanksBatches(open_corpus(corpus).train, TrainOptions(batch=4, bptt=32))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_batches", lambda documents, options, ranks: batches)
        options = TrainOptions(steps=150, batch=4, bptt=32, lr=0.004, checkpoint_every=50, device="cpu")
        seen = []
        built = open_corpus(corpus)
        loop.train(SPEC, built.train, built.held_out, options, tmp_path / "same", show=seen.append)
    assert losses(two, "bits")[-1] == pytest.approx(seen[-1].bits, rel=1e-3)
    assert losses(two, "heldout_bits")[-1] == pytest.approx(seen[-1].heldout_bits, rel=1e-3)
    assert np.array_equal(checkpoint(two)[0]["position"].numpy(), batches.position())
    assert checkpoint(one)[1]["corpus"] == checkpoint(two)[1]["corpus"]
    assert "Another number of processes" in resumed([corpus], two, 152)
    assert losses(two, "heldout_bits")[-1] < 1.05 * losses(one, "heldout_bits")[-1]  # the weights went on


def test_each_rank_reads_shards_of_its_own(corpus):
    documents = open_corpus(corpus).train
    shares = [documents.share(rank, 2) for rank in range(2)]
    assert sorted(bytes(document) for share in shares for document in share) == sorted(map(bytes, documents))
    assert [share.shards for share in shares] == [3, 2]
    assert reading_of(documents, Ranks(0, 2)) == reading_of(documents, Ranks(1, 2)) == "shards of 2 ranks"
    assert reading_of(documents, Ranks(0, 6)) == reading_of(documents, ALONE) == "lanes"  # five shards


def test_each_rank_verifies_what_it_will_read(corpus, tmp_path):
    damaged = tmp_path / "corpus"
    shutil.copytree(corpus, damaged)
    with (damaged / "train-3.symbols").open("r+b") as file:
        file.write(b"\0")
    open_corpus(damaged, rank=0, size=2)
    with pytest.raises(CorpusError, match=r"train-3\.symbols is damaged"):
        open_corpus(damaged, rank=1, size=2)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_the_ranks_windows_side_by_side_are_those_of_one_process(size):
    documents = [np.frombuffer(header(f"{n}.py") + b"abc" * (3 + 5 * n), dtype=np.uint8) for n in range(7)]
    whole = LaneBatches(documents, lanes=6, bptt=16, seed=3)
    parts = [LaneBatches(documents, lanes=6, bptt=16, seed=3, own=Ranks(rank, size).lanes(6)) for rank in range(size)]
    for _ in range(20):
        window, pieces = whole.next(), [part.next() for part in parts]
        assert np.array_equal(window.symbols, np.concatenate([piece.symbols for piece in pieces], axis=1))
        assert np.array_equal(window.targets, np.concatenate([piece.targets for piece in pieces], axis=1))
        assert np.array_equal(window.fresh, np.concatenate([piece.fresh for piece in pieces]))
        assert all(np.array_equal(part.position(), whole.position()) for part in parts)


def test_what_cannot_be_is_one_sentence_from_all_of_them(text, tmp_path):
    done = started(torchrun(), [text], tmp_path / "model", batch=5)
    assert errors(done) == ["error: --batch 5 cannot be split over 2 processes: give a multiple of 2."]
    assert re.search(r"rank\s*: 0 .*\n\s*exitcode\s*: 2 ", done.stderr)  # torchrun's own is always 1
    assert not work_dir(tmp_path / "model").exists()


def test_a_run_that_diverges_is_one_sentence_too(text, tmp_path):
    done = started(torchrun(), [text], tmp_path / "model", more=["--project-share", 1, "--lr", 1e30])
    (said,) = errors(done)
    assert re.fullmatch(r"error: training diverged at step \d+: start again with a smaller --lr.", said)


def errors(done):
    assert done.returncode == 1
    return [line for line in done.stderr.splitlines() if line.startswith("error:")]


def test_ctrl_c_stops_all_of_them_behind_a_checkpoint(text, tmp_path):
    out = tmp_path / "model"
    process = begun(torchrun(), [text], out, steps=1_000_000, more=["--project-share", 1])
    try:
        while not read_log(work_dir(out)) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=120)
    finally:
        process.kill()
    assert "Not finished; the checkpoint is in" in said, complained
    assert "torchrun --nproc-per-node 2 -m lsp_charrnn.train" in said
    assert "--resume" in said
    assert checkpoint(out)[1]["step"] >= 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [
        ({}, ALONE),
        ({"RANK": "1"}, ALONE),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Ranks(1, 4)),
        (
            {
                "RANK": "5",
                "WORLD_SIZE": "8",
                "LOCAL_RANK": "1",
                "LOCAL_WORLD_SIZE": "4",
                "TORCHELASTIC_RUN_ID": "abc",
                "TORCHELASTIC_RESTART_COUNT": "2",
            },
            Ranks(5, 8, 1, 4, "abc", 2),
        ),
    ],
)
def test_who_this_is_stands_in_the_environment(environment, ranks):
    assert ranks_of(environment) == ranks


@pytest.mark.parametrize("environment", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}])
def test_an_environment_that_makes_no_sense_is_said(environment):
    with pytest.raises(SettingError, match="torchrun"):
        ranks_of(environment)


def test_the_command_to_repeat_is_that_of_all_of_them():
    assert ALONE.command(["train", "p"]) == ["lsp-charrnn", "train", "p"]
    assert Ranks(3, 8, 3, 4).command(["train", "p"])[:5] == ["torchrun", "--nnodes", "2", "--nproc-per-node", "4"]


def test_only_the_same_launch_goes_on_by_itself(two, tmp_path):
    """Not a checkpoint that some other run has left there, which `--force` or `--resume` must say what to do with."""
    path = work_dir(two) / CHECKPOINT_FILE
    launch = checkpoint(two)[1]["launch"]
    assert launch
    again = Ranks(0, 2, 0, 2, launch, restarts=1)
    assert _was_killed(path, again)
    assert not _was_killed(path, replace(again, restarts=0))
    assert not _was_killed(path, replace(again, launch="another"))
    assert not _was_killed(tmp_path / CHECKPOINT_FILE, again)
