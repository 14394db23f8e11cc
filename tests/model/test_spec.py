"""The spec: what makes a network, the shapes that follow from it, and its JSON."""

from __future__ import annotations

from typing import Any

import pytest

from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.spec import CELLS, Cell, ModelSpec


@pytest.mark.parametrize("cell", CELLS)
def test_json_round_trip(cell: Cell) -> None:
    spec = ModelSpec(cell=cell, layers=3, hidden=40, embedding=24, skip=False)
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_shapes_of_the_default() -> None:
    shapes = ModelSpec().shapes()
    assert shapes["embedding.weight"] == (256, 64)
    assert shapes["layers.0.input_weight"] == (2048, 64)
    assert shapes["layers.1.input_weight"] == (2048, 512)
    assert shapes["layers.1.recurrent_weight"] == (2048, 512)
    assert shapes["output.weight"] == (256, 1024)
    assert "layers.0.recurrent_bias" not in shapes
    assert "layers.0.peephole" not in shapes


@pytest.mark.parametrize(
    ("cell", "gates", "parts"), [("lstm", 4, 2), ("peephole", 4, 2), ("coupled", 3, 2), ("gru", 3, 1), ("rnn", 1, 1)]
)
def test_gates_and_parts(cell: Cell, gates: int, parts: int) -> None:
    spec = ModelSpec(cell=cell, hidden=8)
    assert (spec.gates, spec.parts) == (gates, parts)
    assert spec.shapes()["layers.0.bias"] == (gates * 8,)


def test_only_the_cells_that_have_them_have_extra_weights() -> None:
    assert ModelSpec(cell="gru", hidden=8).shapes()["layers.1.recurrent_bias"] == (24,)
    assert ModelSpec(cell="peephole", hidden=8).shapes()["layers.1.peephole"] == (3, 8)


@pytest.mark.parametrize("skip", [True, False])
def test_skip_widens_the_output_layer(skip: bool) -> None:
    spec = ModelSpec(layers=3, hidden=8, skip=skip)
    assert spec.shapes()["output.weight"] == (256, 24 if skip else 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "lstn"}, "unknown cell 'lstn'"),
        ({"layers": 0}, "layers is 0"),
        ({"hidden": -1}, "hidden is -1"),
        ({"hidden": 65537}, "hidden is 65537"),
        ({"embedding": 1.5}, "embedding is 1.5"),
        ({"layers": True}, "layers is True"),
    ],
)
def test_what_makes_no_network(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelSpec(**change)


@pytest.mark.parametrize("data", [None, [], {}, {"cell": "lstm"}, {**ModelSpec().to_json(), "depth": 2}])
def test_json_with_other_fields(data: object) -> None:
    with pytest.raises(ModelError, match="must have exactly the fields"):
        ModelSpec.from_json(data)


def test_json_with_a_skip_that_is_no_truth_value() -> None:
    with pytest.raises(ModelError, match="skip"):
        ModelSpec.from_json({**ModelSpec().to_json(), "skip": 1})
