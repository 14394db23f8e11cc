"""Neurons that mean something are found where there are some, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lsp_charrnn.errors import CorpusError, ModelError
from lsp_charrnn.inside import neurons, syntax
from lsp_charrnn.inside.neurons import find_neurons
from lsp_charrnn.model import neurons as kept_neurons
from lsp_charrnn.model.files import WEIGHTS_FILE
from lsp_charrnn.model.neurons import FILE, NeuronTable, kept
from lsp_charrnn.model.spec import ModelSpec

SPEC = ModelSpec(cell="lstm", layers=1, hidden=8, embedding=8)
COUNTER, OPEN_COMMENT = 3, 5


def counting_weights() -> dict[str, np.ndarray]:
    """Return weights of which one neuron counts brackets in its cell, and one is high from a # to the line's end."""
    weights = {name: np.zeros(shape, dtype=np.float32) for name, shape in SPEC.shapes().items()}
    i, f, g, o = (slice(gate * 8, gate * 8 + 8) for gate in range(4))
    for symbol, unit in (("(", 0), (")", 1), ("#", 2), ("\n", 3)):
        weights["embedding.weight"][ord(symbol), unit] = 1
    bias, inputs = weights["layers.0.bias"], weights["layers.0.input_weight"]
    bias[i] = bias[o] = 8
    bias[f] = 12
    inputs[g][COUNTER, :2] = 0.5, -0.5  # a slice is a view
    inputs[g][OPEN_COMMENT, 2] = 5
    inputs[f][OPEN_COMMENT, 3] = -24
    inputs[g][OPEN_COMMENT, 3] = 0
    # All others are noise of the character that was read last.
    others = [unit for unit in range(8) if unit not in (COUNTER, OPEN_COMMENT)]
    weights["embedding.weight"][:, 4:] = np.random.default_rng(0).normal(size=(256, 4))
    inputs[g][others, 4:] = 1
    bias[f][others] = -8
    return weights


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NeuronTable:
    config = {"name": "counting", "files": {WEIGHTS_FILE: "0" * 64}}
    monkeypatch.setattr(neurons, "find_model", lambda _: tmp_path)
    monkeypatch.setattr(neurons, "load_weights", lambda _: (counting_weights(), SPEC))
    monkeypatch.setattr(neurons, "read_config", lambda _: (config, SPEC))
    monkeypatch.setattr(kept_neurons, "read_config", lambda _: (config, SPEC))
    for number in range(6):
        lines = [f"f{n}(g(x{n + number}), (h()))  # {'why ' * (n % 4)}\n" for n in range(12)]
        (tmp_path / f"m{number}.py").write_text("".join(lines))
    (tmp_path / "broken.py").write_text("def (:\n" * 5)
    return find_neurons([tmp_path], model="counting", keep=True)


def test_the_neurons_that_were_built_are_found(table: NeuronTable) -> None:
    found = {tracked.name: tracked for tracked in table.properties}
    brackets, comment = found[syntax.BRACKETS], found[syntax.COMMENT]
    assert (brackets.neurons[0].neuron, brackets.neurons[0].signal) == (COUNTER, "c")
    assert comment.neurons[0].neuron == OPEN_COMMENT
    assert min(abs(brackets.neurons[0].held_out), abs(comment.neurons[0].held_out)) > 0.95
    assert min(brackets.probe, comment.probe) > 0.9
    assert abs(brackets.shuffled_neuron) < 0.5
    assert found[syntax.PARAMETERS].neurons[0].held_out == 0  # there are none in these files
    assert table.left_out == 1
    assert sum(table.files) == 6


def test_the_table_is_kept_for_the_explorer(table: NeuronTable, tmp_path: Path) -> None:
    assert kept(tmp_path) == table
    labels = table.labels()
    assert {(label.neuron, label.tracks) for label in labels} >= {
        (COUNTER, syntax.BRACKETS),
        (OPEN_COMMENT, syntax.COMMENT),
    }
    data = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**data, "weights": "1" * 64}))
    assert kept(tmp_path) is None  # of other weights
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(ModelError, match="neurons --save"):
        kept(tmp_path)
    (tmp_path / FILE).unlink()
    assert kept(tmp_path) is None


def test_one_file_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neurons, "find_model", lambda _: tmp_path)
    monkeypatch.setattr(neurons, "load_weights", lambda _: (counting_weights(), SPEC))
    monkeypatch.setattr(neurons, "read_config", lambda _: ({}, SPEC))
    (tmp_path / "one.py").write_text("x = 1\ny = [x]\nz = (x, y)\nprint(x, y, z)\n")
    with pytest.raises(CorpusError, match="two files"):
        find_neurons([tmp_path], model="m")
