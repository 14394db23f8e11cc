"""The minimal char-RNN: its gradients against torch's and against numbers, and that it learns."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lsp_charrnn import cli
from lsp_charrnn.errors import CorpusError
from lsp_charrnn.inside import minimal
from lsp_charrnn.inside.minimal import Reader

ROOT = Path(__file__).parent.parent.parent
ALPHABET, HIDDEN, TIME = 13, 17, 25


@pytest.fixture
def case():
    """Weights large enough that no derivative is next to nothing, a text, and a state that isn't zero."""
    random = np.random.default_rng(4)
    weights = {
        name: weight + 0.3 * random.standard_normal(weight.shape)
        for name, weight in minimal.initial_weights(ALPHABET, HIDDEN, random).items()
    }
    text = random.integers(0, ALPHABET, TIME + 1)
    return weights, text[:-1], text[1:], np.tanh(random.standard_normal(HIDDEN))


def test_gradients_are_those_of_torch(case):
    weights, symbols, targets, hidden = case
    network = torch.nn.RNN(ALPHABET, HIDDEN, bias=True).double()
    output = torch.nn.Linear(HIDDEN, ALPHABET).double()
    theirs = {
        "input_weight": network.weight_ih_l0,
        "recurrent_weight": network.weight_hh_l0,
        "bias": network.bias_ih_l0,
        "output_weight": output.weight,
        "output_bias": output.bias,
    }
    with torch.no_grad():
        network.bias_hh_l0.zero_()  # torch has a second one
        for name, parameter in theirs.items():
            parameter.copy_(torch.from_numpy(weights[name]))
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(symbols), ALPHABET).double()
    states, last = network(one_hot, torch.from_numpy(hidden)[None])
    expected = torch.nn.functional.cross_entropy(output(states), torch.from_numpy(targets), reduction="sum")
    expected.backward()

    loss, gradients, after = minimal.loss_and_gradients(weights, symbols, targets, hidden)
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    np.testing.assert_allclose(after, last[0].detach().numpy(), atol=1e-6, rtol=0)
    assert set(gradients) == set(theirs)
    for name, parameter in theirs.items():
        assert np.abs(gradients[name]).max() > 0.1, name  # else there would be nothing to compare
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), atol=1e-6, rtol=0, err_msg=name)


def test_gradients_are_those_of_numbers(case):
    weights, *rest = case
    errors = minimal.gradient_errors(weights, *rest, np.random.default_rng(5))
    assert set(errors) == set(weights)
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize("wrong", ["recurrent_weight", "output_bias"])
def test_the_check_by_numbers_sees_a_mistake(case, monkeypatch, wrong):
    weights, *rest = case
    right = minimal.loss_and_gradients

    def mistaken(*arguments):
        loss, gradients, after = right(*arguments)
        return loss, {**gradients, wrong: 1.01 * gradients[wrong]}, after

    monkeypatch.setattr(minimal, "loss_and_gradients", mistaken)
    errors = minimal.gradient_errors(weights, *rest, np.random.default_rng(5))
    assert {name for name, error in errors.items() if error > 1e-3} == {wrong}


def test_one_long_text_is_the_same_in_pieces(case):
    weights, symbols, _, hidden = case
    states, expected = minimal.forward(weights, symbols, hidden)
    first, expected_first = minimal.forward(weights, symbols[:9], hidden)
    then, expected_then = minimal.forward(weights, symbols[9:], first[-1])
    np.testing.assert_array_equal(np.concatenate([first, then[1:]]), states)
    np.testing.assert_array_equal(np.concatenate([expected_first, expected_then]), expected)


def test_clipping_cuts_what_is_too_large_alone():
    clipped = minimal.clip({"bias": np.array([-70.0, -5.0, 0.0, 4.9, 7.0])})
    np.testing.assert_array_equal(clipped["bias"], [-5.0, -5.0, 0.0, 4.9, 5.0])


def test_adagrad_is_torchs():
    random = np.random.default_rng(6)
    weights, squares = {"bias": random.standard_normal(4)}, {"bias": np.zeros(4)}
    parameter = torch.nn.Parameter(torch.from_numpy(weights["bias"].copy()))
    theirs = torch.optim.Adagrad([parameter], lr=0.1, eps=1e-10)
    for _ in range(5):
        gradient = random.standard_normal(4)
        minimal.adagrad(weights, {"bias": gradient}, squares, 0.1)
        parameter.grad = torch.from_numpy(gradient)
        theirs.step()
    np.testing.assert_allclose(weights["bias"], parameter.detach().numpy(), atol=1e-6)


def test_it_learns_a_text_by_heart_and_writes_it():
    text = "the quick brown fox jumps over a lazy dog. " * 20
    reader = Reader(text, hidden=40, seed=1)
    before = reader.bits_per_char
    for _ in range(1500):
        reader.step()
    assert reader.bits_per_char < 0.4 * before
    assert "quick brown fox" in reader.sample(200)
    assert max(reader.check().values()) < 1e-4


def test_the_same_seed_writes_the_same():
    def written(seed):
        reader = Reader("to be or not to be, that is the question. " * 3, hidden=8, seed=seed)
        for _ in range(10):
            reader.step()
        return reader.sample(50)

    assert written(3) == written(3) != written(4)


def test_a_text_of_one_step_is_enough_and_one_that_is_shorter_is_not():
    reader = Reader("x" * 26, hidden=3)
    for _ in range(3):
        reader.step()
    assert reader.sample(4) == "xxxx"
    with pytest.raises(CorpusError, match="25 characters"):
        Reader("x" * 25)


def test_the_command_shows_loss_and_samples(tmp_path):
    file = tmp_path / "verse.txt"
    file.write_text("all work and no play\x1b[31m ünd so weiter\n" * 9, encoding="utf-8")
    done = CliRunner().invoke(cli.app, ["lab", "minimal", str(file), "--steps", "100", "--hidden", "9"])
    assert done.exit_code == 0, done.output
    assert "--- step 100: " in done.output
    assert "100 steps: " in done.output
    assert "\x1b" not in done.output


def test_the_command_holds_the_gradients_against_numbers(tmp_path):
    file = tmp_path / "verse.txt"
    file.write_text("all work and no play makes dull\n" * 9, encoding="utf-8")
    done = CliRunner().invoke(cli.app, ["lab", "minimal", str(file), "--hidden", "9", "--check"])
    assert done.exit_code == 0, done.output
    errors = [float(error) for error in re.findall(r"differ by (\S+)", done.output)]
    assert len(errors) == 5
    assert max(errors) < 1e-5


def test_ctrl_c_ends_the_command_cleanly(tmp_path):
    file = tmp_path / "verse.txt"
    file.write_text("all work and no play makes dull\n" * 9, encoding="utf-8")
    command = [sys.executable, "-m", "lsp_charrnn", "lab", "minimal", str(file), "--hidden", "9"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("--- step"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.rstrip().endswith("bits per character")
    assert "Traceback" not in err


def test_the_page_quotes_the_module_and_leaves_nothing_of_it_out():
    source = (ROOT / "lsp_charrnn/inside/minimal.py").read_text("utf-8")
    page = (ROOT / "docs/minimal.md").read_text("utf-8")
    quoted = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in quoted:
        assert block in source, f"docs/minimal.md quotes what lsp_charrnn/inside/minimal.py has not:\n{block}"
    everything = "".join(quoted)
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for part in node.body if isinstance(node, ast.ClassDef) else [node]:
                text = ast.get_source_segment(source, part)
                assert text is not None
                assert text in everything, f"docs/minimal.md does not show {node.name}: quote it."
