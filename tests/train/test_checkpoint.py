"""Checkpoints come back whole, and a write that fails never costs the one before."""

import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from lsp_charrnn.errors import CorpusError, OutputError
from lsp_charrnn.train.checkpoint import (
    load_checkpoint,
    optimiser_tensors,
    restore_optimisers,
    save_checkpoint,
)

TENSORS = {
    "weights.a": torch.arange(6, dtype=torch.float32).reshape(2, 3).t(),  # not contiguous
    "position": torch.tensor([[1, 2], [3, -1]]),
    "state": torch.zeros(0, 4),
}
FACTS = {"step": 3, "best_bits": None, "minutes": 1.5, "signature": {"spec": {"cell": "lstm"}}}


@contextmanager
def a_full_disk(at):
    """Let no file grow past `at` bytes: the write itself fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_saved_comes_back(tmp_path):
    save_checkpoint(tmp_path / "c", TENSORS, FACTS)
    tensors, facts = load_checkpoint(tmp_path / "c")
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_optimiser_comes_back(tmp_path):
    def an_optimiser():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)

    def steps(layer, optimiser, count):
        for _ in range(count):
            optimiser.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimiser.step()

    layer, optimiser = an_optimiser()
    steps(layer, optimiser, 3)
    other, fresh = an_optimiser()
    save_checkpoint(tmp_path / "c", optimiser_tensors([optimiser]), FACTS)
    restore_optimisers([fresh], load_checkpoint(tmp_path / "c")[0])
    other.load_state_dict(layer.state_dict())
    steps(layer, optimiser, 2)
    steps(other, fresh, 2)
    assert torch.equal(layer.weight, other.weight)


@pytest.mark.parametrize("keep", [0, 4, 60, 200, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "c"
    save_checkpoint(path, TENSORS, FACTS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorpusError, match=r"damaged .*start without --resume"):
        load_checkpoint(path)


def test_a_missing_file_and_another_format_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="no checkpoint"):
        load_checkpoint(tmp_path / "c")
    save_file({"a": torch.zeros(1)}, str(tmp_path / "c"), metadata={"format": "something else"})
    with pytest.raises(CorpusError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "c")


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    path = tmp_path / "c"
    save_checkpoint(path, TENSORS, FACTS)
    before = path.read_bytes()
    large = {"weights.a": torch.zeros(100_000)}
    with a_full_disk(50_000), pytest.raises(OutputError, match=r"cannot write the checkpoint .*--resume"):
        save_checkpoint(path, large, FACTS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_a_directory_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(OutputError, match="choose another --out"):
        save_checkpoint(tmp_path / "gone" / "c", TENSORS, FACTS)


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "c", TENSORS, FACTS)
    before = (tmp_path / "c").read_bytes()

    def interrupted(tensors, path, metadata):
        save_file(tensors, path, metadata=metadata)
        raise KeyboardInterrupt

    monkeypatch.setattr("lsp_charrnn.train.checkpoint.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "c", {"b": torch.ones(1)}, FACTS)
    assert (tmp_path / "c").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
