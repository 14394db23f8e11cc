"""The comparison of networks: all are as large as is said, read the same, and none sees what it is to expect."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lsp_charrnn.text.symbols import header, to_symbols

ROOT = Path(__file__).parent.parent


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.networks")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A built corpus of ten small files."""
    source, out = tmp_path / "source", tmp_path / "corpus"
    source.mkdir()
    for name in "abcdefghij":
        lines = "".join(f"def {name}{i}(self):\n    return self.{name}[{i % 7}]\n\n" for i in range(40))
        (source / f"{name}.py").write_text(lines, "utf-8")
    command = [sys.executable, "-m", "lsp_charrnn", "corpus", "build", str(source), "--out", str(out), "--workers", "1"]
    done = subprocess.run([*command, "--project-share", "1"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_all_are_of_one_size(networks: ModuleType) -> None:
    for name in networks.NAMES:
        _, network = networks.sized(name, 500_000)
        assert networks.parameters_of(network) == pytest.approx(500_000, rel=networks.TOLERANCE), name


def test_each_parameter_is_stepped_by_one_optimiser(networks: ModuleType) -> None:
    for name in networks.NAMES:
        network = networks.network_of(name, 16)
        optimisers = networks.optimisers_for(network, 1e-3, torch.float32)
        stepped = [id(weight) for one in optimisers for group in one.param_groups for weight in group["params"]]
        assert sorted(stepped) == sorted(map(id, network.parameters())), name
        assert len(optimisers) > 1, name


def test_the_transformer_sees_nothing_ahead(networks: ModuleType) -> None:
    torch.manual_seed(1)
    network = networks.transformer_of(16)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    symbols = torch.randint(256, (20, 2))
    changed = symbols.clone()
    changed[12, 0] = (changed[12, 0] + 1) % 256
    with torch.no_grad():
        before, after = network(symbols), network(changed)
    assert torch.allclose(before[:12], after[:12], atol=1e-5)
    assert torch.allclose(before[:, 1], after[:, 1], atol=1e-5)
    assert not torch.allclose(before[13:, 0], after[13:, 0], atol=1e-3)


def test_windows_count_each_symbol_once(networks: ModuleType) -> None:
    text = bytes(range(32, 127)) * 20
    for length in (5, 255, 256, 511, 512, 513, 700, 1_900):
        document = to_symbols(header("a.py") + text[:length])
        counted = [expected[expected >= 0] for _, expected in networks._windows([document])]
        assert bytes(np.concatenate(counted).astype(np.uint8)) == text[:length]


def test_it_trains_and_says_what_came_of_it(corpus: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    names = ["LSTM projected to half, 2 layers, skip", "transformer, 4 layers, context 512"]
    options = ["--parameters", "30000", "--characters", "60000", "--lanes", "8", "--json", str(found)]
    options += [word for name in names for word in ("--only", name)]
    command = [sys.executable, "-m", "benchmarks.networks", str(corpus), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(found.read_text("utf-8"))
    assert [result["name"] for result in results] == names
    for result in results:
        assert 60_000 <= result["characters"] < 62_000
        assert 0 < result["bits"] < 6  # of 8: it has learned something
        assert f"{result['bits']:.3f}" in done.stdout


def test_what_is_unknown_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.networks", str(tmp_path)]
    for options, said in ((["--only", "Mamba"], "LSTM, 1 layer"), ([], str(tmp_path))):
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2
        assert said in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
