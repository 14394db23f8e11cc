"""What the int8 graphs of a model look like: every node and every constant that `train.export` writes for a spec.

A graph of permitted operators can still ask for an array of any size: the product of two long vectors, a thing joined
to itself thirty times. So a graph is run only if it is this one, to the node; only the numbers in it are a model's own.
It is said here a second time, for serving must not need the onnx package; a test holds that both say the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from lsp_charrnn.model.graph import BYTES_OF_TYPE, INT64, Constant, GraphContents, Node
from lsp_charrnn.model.spec import ANCHORS, ModelSpec
from lsp_charrnn.text.symbols import VOCABULARY

_FLOAT, _UINT8, _INT8 = 1, 2, 3  # onnx.TensorProto.DataType
_CONTRIB: Final = "com.microsoft"
_END: Final = (1 << 63) - 1
_ONNX_BLOCKS: Final = {"lstm": 4, "peephole": 4, "coupled": 4, "gru": 3, "rnn": 1}  # of gates, as ONNX has them


def reading_graph(spec: ModelSpec) -> GraphContents:
    """Return what the graph that reads text looks like, for a model of `spec`."""
    return _Reading(spec).contents()


def stepping_graph(spec: ModelSpec) -> GraphContents:
    """Return what the graph that steps lanes looks like, for a model of `spec`."""
    return _Stepping(spec).contents()


def is_same(found: GraphContents, wanted: GraphContents) -> bool:
    """Say whether both have the same nodes in the same order, and the same constants, whatever the numbers in them."""
    if found.nodes != wanted.nodes or len(found.constants) != len(wanted.constants):
        return False
    constants = {constant.name: constant for constant in found.constants}
    return constants == {constant.name: constant for constant in wanted.constants}


class _Layout:
    """Collects the nodes and constants of one graph."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._nodes: list[Node] = []
        self._constants: dict[str, Constant] = {}

    def contents(self) -> GraphContents:
        return GraphContents(tuple(self._nodes), tuple(self._constants.values()), external=False, foreign="")

    def _constant(self, name: str, kind: int, *shape: int) -> str:
        self._constants[name] = Constant(name, kind, shape, BYTES_OF_TYPE[kind] * math.prod(shape))
        return name

    def _integers(self, name: str, *values: int) -> str:
        self._constants[name] = Constant(name, INT64, (len(values),), 8 * len(values), values)
        return name

    def _int8(self, name: str, *shape: int, scales: int) -> tuple[str, str, str]:
        """Add an int8 matrix; return its name, and those of its scale and zero point."""
        scale = self._constant(f"{name}.scale", _FLOAT, scales)
        zero_point = self._constant(f"{name}.zero_point", _INT8, scales)
        return self._constant(name, _INT8, *shape), scale, zero_point

    def _rounded(self, values: str, name: str) -> str:
        scale, zero = self._constant("hidden_scale", _FLOAT, 1), self._constant("hidden_zero_point", _UINT8, 1)
        return self._node("QuantizeLinear", [values, scale, zero], [f"{name}.rounded"])

    def _product(self, values: str, name: str, inputs: int, outputs: int, bias: str, output: str, scales: int) -> str:
        stored, scale, zero_point = self._int8(name, inputs, outputs, scales=scales)
        given = [values, stored, "hidden_scale", scale, "hidden_zero_point", zero_point]
        return self._node("MatMulIntegerToFloat", [*given, bias] if bias else given, [output], domain=_CONTRIB)

    def _node(
        self,
        operator: str,
        inputs: list[str],
        outputs: list[str],
        attributes: Mapping[str, int] | None = None,
        domain: str = "",
    ) -> str:
        numbers = tuple(sorted((attributes or {}).items()))
        self._nodes.append(Node(operator, tuple(inputs), tuple(outputs), domain, numbers))
        return outputs[0]


class _Reading(_Layout):
    def contents(self) -> GraphContents:
        spec = self._spec
        anchors = ANCHORS if spec.flat_step else 0
        hidden = spec.hidden + anchors
        arrays = spec.layers * spec.parts
        before = [f"state.{at}" for at in range(arrays)]
        after = [f"new_state.{at}" for at in range(arrays)]
        state, new_state = "state", "new_state"
        if anchors:
            widths = self._integers("anchor_padding", 0, 0, 0, 0, 0, anchors)
            self._node("Pad", ["state", widths, self._constant("one", _FLOAT, 1)], ["padded_state"])
            factors = self._constant("anchor_state", _FLOAT, arrays, 1, hidden)
            state, new_state = self._node("Mul", ["padded_state", factors], ["anchored_state"]), "anchored_new_state"
        if arrays == 1:
            before, after = [state], [new_state]
        else:
            self._node("Split", [state], before, {"axis": 0})
        self._integers("direction_axis", 1)
        width = spec.embedding + anchors
        self._node("Gather", [self._constant("embedding.weight", _FLOAT, VOCABULARY, width), "symbols"], ["embedding"])
        values, outputs = "embedding", []
        for layer in range(spec.layers):
            at = layer * spec.parts
            self._layer(layer, values, width, hidden, before[at : at + spec.parts], after[at : at + spec.parts])
            values, width = f"layers.{layer}.output", hidden
            outputs.append(values)
        if not (spec.skip and len(outputs) > 1):
            outputs = [values]
        self._integers("time_axis", 0)
        self._integers("end", _END)
        wanted = [self._node("Slice", [name, "first", "end", "time_axis"], [f"{name}.wanted"]) for name in outputs]
        values = wanted[0] if len(wanted) == 1 else self._node("Concat", wanted, ["features"], {"axis": 2})
        bias = self._constant("output.bias", _FLOAT, VOCABULARY)
        rounded = self._rounded(values, "features")
        self._product(rounded, "output.weight", len(outputs) * hidden, VOCABULARY, bias, "logits", VOCABULARY)
        if arrays > 1:
            self._node("Concat", after, [new_state], {"axis": 0})
        if anchors:
            bounds = [self._integers("zero", 0), self._integers("hidden", spec.hidden), self._integers("unit_axis", 2)]
            self._node("Slice", [new_state, *bounds], ["new_state"])
        return super().contents()

    def _layer(self, layer: int, values: str, width: int, hidden: int, before: list[str], after: list[str]) -> None:
        cell, key = self._spec.cell, f"layers.{layer}"
        blocks = _ONNX_BLOCKS[cell]
        rows = blocks * hidden
        outputs = [f"{key}.raw_output", *after]
        attributes = {"hidden_size": hidden}
        if cell == "coupled":
            attributes["input_forget"] = 1
        if cell == "gru":
            attributes["linear_before_reset"] = 1
        bias = self._constant(f"{key}.bias", _FLOAT, 1, 2 * rows)
        if self._spec.flat_step:
            peephole = self._constant(f"{key}.peephole", _FLOAT, 1, 3 * hidden) if cell == "peephole" else ""
            inputs, *of_inputs = self._int8(f"{key}.input_weight", 1, width, rows, scales=1)
            recurrent, *of_recurrent = self._int8(f"{key}.recurrent_weight", 1, hidden, rows, scales=1)
            given = [values, inputs, recurrent, bias, "", *before, peephole, *of_inputs, *of_recurrent]
            self._node("DynamicQuantizeLSTM", given, outputs, attributes, _CONTRIB)
        else:
            inputs = self._matrix(f"{key}.input_weight", rows, width)
            recurrent = self._matrix(f"{key}.recurrent_weight", rows, hidden)
            operator = {"gru": "GRU", "rnn": "RNN"}[cell]
            self._node(operator, [values, inputs, recurrent, bias, "", *before], outputs, attributes)
        self._node("Squeeze", [outputs[0], "direction_axis"], [f"{key}.output"])

    def _matrix(self, name: str, rows: int, columns: int) -> str:
        stored = self._constant(name, _INT8, 1, rows, columns)
        self._node("Cast", [stored], [f"{name}.unscaled"], {"to": _FLOAT})
        scale = self._constant(f"{name}.scale", _FLOAT, 1, rows, 1)
        return self._node("Mul", [f"{name}.unscaled", scale], [f"{name}.float"])


class _Stepping(_Layout):
    def contents(self) -> GraphContents:
        spec = self._spec
        rows = spec.gates * spec.hidden
        rounded: list[str] = []
        for layer in range(spec.layers):
            key = f"layers.{layer}"
            hidden, cell = (f"state.{layer * spec.parts + part}" for part in range(2))
            before = self._rounded(hidden, f"{key}.hidden")
            if layer == 0:
                name = f"{key}.recurrent_weight"
                product = self._product(before, name, spec.hidden, rows, "", f"{key}.product", 1)
                table = [
                    self._constant("embedding.weight", _FLOAT, VOCABULARY, spec.embedding),
                    self._constant("layers.0.input_weight", _FLOAT, spec.embedding, rows),
                ]
                self._node("MatMul", table, ["table"])
                self._node("Add", ["table", self._constant("layers.0.bias", _FLOAT, rows)], ["biased_table"])
                self._node("Gather", ["biased_table", "symbols"], ["layers.0.inputs"])
                sums = self._node("Add", [product, "layers.0.inputs"], [f"{key}.sums"])
            else:
                both = self._node("Concat", [rounded[-1], before], [f"{key}.inputs"], {"axis": 1})
                bias = self._constant(f"{key}.bias", _FLOAT, rows)
                sums = self._product(both, f"{key}.weight", 2 * spec.hidden, rows, bias, f"{key}.sums", 1)
            rounded.append(self._rounded(self._gates(layer, sums, cell), f"{key}.new_hidden"))
        features = rounded[-1]
        if spec.skip and spec.layers > 1:
            features = self._node("Concat", rounded, ["features"], {"axis": 1})
        bias = self._constant("output.bias", _FLOAT, VOCABULARY)
        self._product(features, "output.weight", spec.output_inputs, VOCABULARY, bias, "logits", VOCABULARY)
        return super().contents()

    def _gates(self, layer: int, sums: str, cell: str) -> str:
        kind, key = self._spec.cell, f"layers.{layer}"
        names = ("i", "g", "o") if kind == "coupled" else ("i", "f", "g", "o")
        self._node("Split", [sums], [f"{key}.{name}.sum" for name in names], {"axis": 1})
        new_hidden, new_cell = (f"new_state.{layer * 2 + part}" for part in range(2))
        i, g = self._gate(key, "i", cell), self._gate(key, "g", cell)
        if kind == "coupled":
            missing = self._node("Sub", [g, cell], [f"{key}.missing"])
            kept, added = cell, self._node("Mul", [i, missing], [f"{key}.added"])
        else:
            kept = self._node("Mul", [self._gate(key, "f", cell), cell], [f"{key}.kept"])
            added = self._node("Mul", [i, g], [f"{key}.added"])
        self._node("Add", [kept, added], [new_cell])
        squashed = self._node("Tanh", [new_cell], [f"{key}.squashed"])
        return self._node("Mul", [self._gate(key, "o", new_cell), squashed], [new_hidden])

    def _gate(self, key: str, name: str, cell: str) -> str:
        value = f"{key}.{name}.sum"
        if self._spec.cell == "peephole" and name != "g":
            weight = self._constant(f"{key}.{name}.peephole", _FLOAT, self._spec.hidden)
            seen = self._node("Mul", [cell, weight], [f"{key}.{name}.seen"])
            value = self._node("Add", [value, seen], [f"{key}.{name}.with_cell"])
        return self._node("Tanh" if name == "g" else "Sigmoid", [value], [f"{key}.{name}"])
