"""The shape of a network: the one description that reference, training, export and serving share.

Weights go by these names and shapes everywhere (H hidden, E embedding, G gates; gate order as in torch):

    embedding.weight               [256, E]
    layers.{l}.input_weight        [G*H, E or H]
    layers.{l}.recurrent_weight    [G*H, H]
    layers.{l}.bias                [G*H]
    layers.{l}.recurrent_bias      [G*H]    gru only (its candidate's recurrent bias sits inside the reset gate)
    layers.{l}.peephole            [3, H]   peephole only: i, f, o
    output.weight                  [256, O] O = layers*H with skip, else H
    output.bias                    [256]

Gate order: lstm and peephole i, f, g, o; coupled i, g, o (f = 1 - i); gru r, z, n; rnn its one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from lsp_charrnn.errors import ModelError
from lsp_charrnn.text.symbols import VOCABULARY

Cell = Literal["lstm", "peephole", "coupled", "gru", "rnn"]
CELLS: Final[tuple[Cell, ...]] = get_args(Cell)

# An int8 graph that reads has so many units and embedding dimensions more (train.export says what for).
ANCHORS: Final = 2

_GATES: Final[dict[Cell, int]] = {"lstm": 4, "peephole": 4, "coupled": 3, "gru": 3, "rnn": 1}


@dataclass(frozen=True)
class ModelSpec:
    """Cell and sizes of a network. Raises `ModelError` where they make none."""

    cell: Cell = "lstm"
    layers: int = 2
    hidden: int = 512
    embedding: int = 64  # a byte carries at most 8 bits: a wide embedding only costs multiplications
    skip: bool = True  # the output layer reads every layer, not the last alone (Graves 2013, §2)

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ModelError(f"unknown cell {self.cell!r}: choose one of {', '.join(CELLS)}.")
        for name in ("layers", "hidden", "embedding"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65536:
                raise ModelError(f"{name} is {value!r}: it must be a whole number from 1 to 65536.")

    @property
    def gates(self) -> int:
        """Number of gate blocks in the weights of one layer."""
        return _GATES[self.cell]

    @property
    def parts(self) -> int:
        """Arrays in a layer's state: hidden and cell for the LSTM family, hidden alone for gru and rnn."""
        return 2 if self.cell in ("lstm", "peephole", "coupled") else 1

    @property
    def output_inputs(self) -> int:
        """Width of what the output layer reads."""
        return self.hidden * (self.layers if self.skip else 1)

    @property
    def flat_step(self) -> bool:
        """Whether an int8 model of this cell has a graph of its own to step with."""
        return self.parts == 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every weight, in file order."""
        rows = self.gates * self.hidden
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (VOCABULARY, self.embedding)}
        for layer in range(self.layers):
            inputs = self.embedding if layer == 0 else self.hidden
            shapes[f"layers.{layer}.input_weight"] = (rows, inputs)
            shapes[f"layers.{layer}.recurrent_weight"] = (rows, self.hidden)
            shapes[f"layers.{layer}.bias"] = (rows,)
            if self.cell == "gru":
                shapes[f"layers.{layer}.recurrent_bias"] = (rows,)
            if self.cell == "peephole":
                shapes[f"layers.{layer}.peephole"] = (3, self.hidden)
        shapes["output.weight"] = (VOCABULARY, self.output_inputs)
        shapes["output.bias"] = (VOCABULARY,)
        return shapes

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> ModelSpec:
        """Read the fields back. Raises `ModelError` for anything missing or unknown."""
        names = set(cls.__dataclass_fields__)
        if not isinstance(data, dict) or set(data) != names:
            raise ModelError(f"the model's spec must have exactly the fields {', '.join(sorted(names))}: re-export it.")
        if not isinstance(data["skip"], bool):
            raise ModelError("the model's spec has a skip that is not true or false: re-export it.")
        return cls(**data)
