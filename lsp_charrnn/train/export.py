"""From trained weights to a model directory: the ONNX graph (float32 or int8), fp16 weights, config and card.

Two graphs, for what is best for many symbols is not best for one (docs/experiments.md):

- The graph that reads has the inputs `symbols` int64 [time, lanes], `first` int64 [1] and `state` float32
  [layers * parts, lanes, hidden], and the outputs `logits` float32 [time - first, lanes, 256], those after the symbols
  from `first` on, and `new_state`, shaped like `state`. In int8 it is, for the LSTM family, ONNX Runtime's
  `DynamicQuantizeLSTM` with one scale per matrix, and a product with one per symbol.
- The graph that steps, of int8 models of the LSTM family, has the inputs `symbols` int64 [lanes] and, for each layer
  and part, `state.N` float32 [lanes, hidden], and the outputs `logits` float32 [lanes, 256] and `new_state.N`. The
  gates are written out; the first layer's input product is a table of 256 rows; each further layer is one product.

In both, what goes into an int8 product is rounded on a fixed grid, so that no lane and no symbol changes what another
one gives, to the bit.

There is no int8 operator for gru and rnn: their matrices are stored as int8 and made float32 again when the model is
loaded, and the graph that reads steps too. Training is left to others; torch is not needed here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save as to_safetensors

from lsp_charrnn.errors import ModelError, OutputError
from lsp_charrnn.model.files import (
    CARD_FILE,
    CONFIG_FILE,
    FORMAT,
    GRAPH_FILE,
    STEP_FILE,
    SYMBOLS,
    WEIGHTS_FILE,
    check_shapes,
    load_weights,
    looks_like_model,
    read_config,
)
from lsp_charrnn.model.spec import ANCHORS, ModelSpec
from lsp_charrnn.private import create
from lsp_charrnn.text.symbols import VOCABULARY

Weights = Mapping[str, npt.NDArray[np.floating[Any]]]
_Array = npt.NDArray[Any]
_Scale = npt.NDArray[np.float32]

_LEFT: Final = re.compile(r"[0-9a-f]{8}\.(new|old)")  # how the directories end that `_write_directory` renames

_OPSET: Final = 17
_IR_VERSION: Final = 8  # read by every ONNX Runtime since 1.12
_CONTRIB: Final = "com.microsoft"  # the domain of ONNX Runtime's own operators
_INT64_MAX: Final = (1 << 63) - 1

_ANCHOR_CELL: Final = 20.0  # tanh of it is 1, to the last bit
_SATURATED: Final = 100.0  # the sigmoid of it is 1, that of its negative 0, to the last bit

# Gate blocks in ONNX's order, by their place in ours; None is a gate that the cell has not.
_ONNX_GATES: Final[dict[str, tuple[int | None, ...]]] = {
    "lstm": (0, 3, 1, 2),  # ours i f g o; ONNX i o f c
    "peephole": (0, 3, 1, 2),
    "coupled": (0, 2, None, 1),  # ours i g o; ONNX computes f = 1 - i by input_forget
    "gru": (1, 0, 2),  # ours r z n; ONNX z r h
    "rnn": (0,),
}


def build_onnx(weights: Weights, spec: ModelSpec, *, quantise: bool) -> bytes:
    """Return the graph that reads, as a serialised ONNX model, with int8 matrices where `quantise` says so.

    `weights` go by the names and shapes of `ModelSpec.shapes`. Raises `ModelError` where they don't fit the
    spec or hold a value that is not finite.
    """
    return _ReadGraph(_checked(weights, spec), spec, quantise).serialise()


def build_step_onnx(weights: Weights, spec: ModelSpec) -> bytes | None:
    """Return the int8 graph that steps, as a serialised ONNX model, or None for a cell that has none.

    Raises `ModelError` as `build_onnx` does.
    """
    weights = _checked(weights, spec)
    return _StepGraph(weights, spec).serialise() if spec.flat_step else None


def export_model(
    weights: Weights,
    spec: ModelSpec,
    out_dir: str | os.PathLike[str],
    *,
    name: str,
    languages: Sequence[str],
    training: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    card: str | None,
    force: bool = False,
) -> Path:
    """Write a model directory and return its path; the whole of it appears there, or nothing does.

    `training` and `evaluation` are facts for config.json (JSON data), `card` is the text of README.md, which None
    leaves alone. With `force` a model that is there already is replaced, and what else its directory holds is kept.
    Raises `OutputError` where `out_dir` exists (with `force`, where it is not a model) or cannot be written, and
    `ModelError` as `build_onnx` does.
    """
    out = Path(out_dir).expanduser().resolve()
    refuse_existing(out, force)
    weights = _checked(weights, spec)
    with np.errstate(over="ignore"):  # told below, by name
        half = {key: np.ascontiguousarray(weights[key].astype(np.float16)) for key in spec.shapes()}
    for key, array in half.items():
        if not np.isfinite(array).all():
            raise ModelError(f"weight {key} is too large for fp16: train again with a smaller learning rate.")
    files = {WEIGHTS_FILE: to_safetensors(half), GRAPH_FILE: build_onnx(weights, spec, quantise=True)}
    step_graph = build_step_onnx(weights, spec)
    if step_graph is not None:
        files[STEP_FILE] = step_graph
    config = {
        "format": FORMAT,
        "name": name,
        "languages": list(languages),
        "symbols": SYMBOLS,
        "spec": spec.to_json(),
        "training": dict(training),
        "evaluation": dict(evaluation),
        "files": {key: hashlib.sha256(data).hexdigest() for key, data in files.items()},
    }
    if card is not None:
        files[CARD_FILE] = card.encode("utf-8")
    files[CONFIG_FILE] = (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    try:
        _write_directory(out, files)
    except OSError as error:
        raise OutputError(
            f"cannot write {out} ({error.strerror or error}): free the space or choose another directory."
        ) from error
    return out


def renew_model(path: str | os.PathLike[str]) -> Path:
    """Write the graphs of the model directory at `path` anew from its weights, all else as it is; return its path.

    For a model of an older format. Raises `ModelError` where its weights can't be read, `OutputError` where nothing can
    be written.
    """
    directory = Path(path).expanduser().resolve()
    config, spec = read_config(directory)
    weights, _ = load_weights(directory)
    return export_model(
        weights,
        spec,
        directory,
        name=config["name"],
        languages=config["languages"],
        training=config.get("training", {}),
        evaluation=config.get("evaluation", {}),
        card=None,
        force=True,
    )


# --- the graph ----------------------------------------------------------------------------------------------


class _Graph:
    """Collects the nodes and constants of one graph."""

    def __init__(self, weights: Weights, spec: ModelSpec) -> None:
        self._weights = {key: np.asarray(value, dtype=np.float32) for key, value in weights.items()}
        self._spec = spec
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def _model(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> bytes:
        graph = helper.make_graph(self._nodes, "charrnn", inputs, outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="lsp-charrnn")
        return bytes(model.SerializeToString(deterministic=True))

    def _int8(self, name: str, matrix: _Array, scale: _Scale) -> tuple[str, tuple[str, str]]:
        """Add a matrix as int8; return its name, and the names of its scale and zero point."""
        stored = _to_int8(matrix, scale)
        zero = np.zeros(scale.shape, dtype=np.int8)
        scales = self._constant(f"{name}.scale", scale), self._constant(f"{name}.zero_point", zero)
        return self._constant(name, stored), scales

    def _rounded(self, values: str, name: str) -> str:
        """Add hidden states, which lie between -1 and 1, as uint8: 255 steps of 1 / 127."""
        scale = self._constant("hidden_scale", np.array(1 / 127, dtype=np.float32))
        zero = self._constant("hidden_zero_point", np.array(128, dtype=np.uint8))
        return self._node("QuantizeLinear", [values, scale, zero], [f"{name}.rounded"])

    def _product(self, values: str, name: str, matrix: _Array, scale: _Scale, bias: str, output: str) -> str:
        """Add the product of `_rounded` values and a matrix [inputs, outputs], plus a bias; float32 [..., outputs]."""
        stored, (scales, zero_points) = self._int8(name, matrix, scale)
        inputs = [values, stored, "hidden_scale", scales, "hidden_zero_point", zero_points, bias]
        return self._node("MatMulIntegerToFloat", inputs if bias else inputs[:-1], [output], domain=_CONTRIB)

    def _constant(self, name: str, value: _Array) -> str:
        """Add a constant, unless one of its name is there."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _node(
        self, operator: str, inputs: Sequence[str], outputs: list[str], *, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node, and return the name of its first output."""
        self._nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))
        return outputs[0]


class _ReadGraph(_Graph):
    """Many symbols in many lanes; in float32, or with int8 matrices.

    ONNX Runtime rounds what goes into an int8 product on a grid that holds the smallest and the largest number in it:
    those of all symbols and lanes that share a call. So that this grid never moves, int8 graphs have two units more
    in each layer, which always give 1 and -1, the limits of a hidden state, and two embedding dimensions more, which
    are always the limits of all embeddings. No weight reads them. State and logits don't show them.
    """

    def __init__(self, weights: Weights, spec: ModelSpec, quantise: bool) -> None:
        super().__init__(weights, spec)
        self._quantise = quantise
        self._anchored = quantise and spec.parts == 2
        self._hidden = spec.hidden + (ANCHORS if self._anchored else 0)

    def serialise(self) -> bytes:
        spec = self._spec
        arrays = spec.layers * spec.parts
        before = [f"state.{index}" for index in range(arrays)]  # [1, lanes, hidden] each
        after = [f"new_state.{index}" for index in range(arrays)]
        state, new_state = "state", "new_state"
        if self._anchored:
            state, new_state = self._with_anchors(), "anchored_new_state"
        if arrays == 1:
            before, after = [state], [new_state]
        else:
            self._node("Split", [state], before, axis=0)
        self._constant("direction_axis", np.array([1], dtype=np.int64))
        table = self._weights["embedding.weight"]
        if self._anchored:
            limits = np.broadcast_to([table.max(initial=0), table.min(initial=0)], (len(table), ANCHORS))
            table = np.concatenate([table, limits.astype(np.float32)], axis=1)
        embedding = self._constant("embedding.weight", table)
        self._node("Gather", [embedding, "symbols"], ["embedding"])
        values, outputs = "embedding", []  # [time, lanes, inputs]
        for layer in range(spec.layers):
            at = layer * spec.parts
            self._layer(layer, values, before[at : at + spec.parts], after[at : at + spec.parts])
            values = f"layers.{layer}.output"
            outputs.append(values)
        if not (spec.skip and len(outputs) > 1):
            outputs = [values]
        time, end = self._constant("time_axis", _integers(0)), self._constant("end", _integers(_INT64_MAX))
        wanted = [self._node("Slice", [name, "first", end, time], [f"{name}.wanted"]) for name in outputs]
        values = wanted[0] if len(wanted) == 1 else self._node("Concat", wanted, ["features"], axis=2)
        self._output(values)
        if arrays > 1:
            self._node("Concat", after, [new_state], axis=0)
        if self._anchored:
            bounds = self._constant("zero", _integers(0)), self._constant("hidden", _integers(spec.hidden))
            self._node("Slice", [new_state, *bounds, self._constant("unit_axis", _integers(2))], ["new_state"])

        state_shape: list[str | int | None] = [arrays, "lanes", spec.hidden]
        return self._model(
            [
                helper.make_tensor_value_info("symbols", TensorProto.INT64, ["time", "lanes"]),
                helper.make_tensor_value_info("first", TensorProto.INT64, [1]),
                helper.make_tensor_value_info("state", TensorProto.FLOAT, state_shape),
            ],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["wanted", "lanes", VOCABULARY]),
                helper.make_tensor_value_info("new_state", TensorProto.FLOAT, state_shape),
            ],
        )

    def _with_anchors(self) -> str:
        """Add the anchors' state to `state`: hidden 1 and -1, cell such that it stays so."""
        spec = self._spec
        widths = self._constant("anchor_padding", _integers(0, 0, 0, 0, 0, ANCHORS))
        padded = self._node(
            "Pad", ["state", widths, self._constant("one", np.array(1, dtype=np.float32))], ["padded_state"]
        )
        factors = np.ones((spec.layers, spec.parts, 1, self._hidden), dtype=np.float32)
        factors[:, 0, :, spec.hidden :] = [1, -1]
        factors[:, 1, :, spec.hidden :] = [_ANCHOR_CELL, -_ANCHOR_CELL]
        state = self._constant("anchor_state", factors.reshape(-1, 1, self._hidden))
        return self._node("Mul", [padded, state], ["anchored_state"])

    def _layer(self, layer: int, values: str, before: list[str], after: list[str]) -> None:
        spec, cell = self._spec, self._spec.cell
        key = f"layers.{layer}"
        input_weight = self._gates(f"{key}.input_weight")  # [gates * hidden, inputs]
        recurrent_weight = self._gates(f"{key}.recurrent_weight")  # [gates * hidden, hidden]
        bias = self._gates(f"{key}.bias")
        recurrent_bias = self._gates(f"{key}.recurrent_bias") if cell == "gru" else np.zeros_like(bias)
        raw = f"{key}.raw_output"  # [time, 1, lanes, hidden]
        peephole = ""
        if cell == "peephole":
            rows = np.zeros((3, self._hidden), dtype=np.float32)
            rows[:, : spec.hidden] = self._weights[f"{key}.peephole"][[0, 2, 1]]  # ours i f o; ONNX i o f
            peephole = self._constant(f"{key}.peephole", rows.reshape(1, -1))
        attributes: dict[str, Any] = {"hidden_size": self._hidden}
        if cell == "coupled":
            attributes["input_forget"] = 1
        if cell == "gru":
            attributes["linear_before_reset"] = 1  # the reset gate acts after the product, as in torch and cuDNN

        if self._anchored:
            input_scale, recurrent_scale = _one_scale(input_weight), _one_scale(recurrent_weight)
            input_weight, recurrent_weight = self._anchor(input_weight), self._anchor(recurrent_weight)
            bias = self._anchor_bias(bias)
            biases = self._constant(f"{key}.bias", np.concatenate([bias, np.zeros_like(bias)])[None])
            inputs, input_scales = self._int8(f"{key}.input_weight", input_weight.T[None], input_scale)
            recurrent, recurrent_scales = self._int8(
                f"{key}.recurrent_weight", recurrent_weight.T[None], recurrent_scale
            )
            self._node(
                "DynamicQuantizeLSTM",
                [values, inputs, recurrent, biases, "", *before, peephole, *input_scales, *recurrent_scales],
                [raw, *after],
                domain=_CONTRIB,
                **attributes,
            )
        else:
            operator = {"gru": "GRU", "rnn": "RNN"}.get(cell, "LSTM")
            biases = self._constant(f"{key}.bias", np.concatenate([bias, recurrent_bias])[None])
            inputs = self._matrix(f"{key}.input_weight", input_weight[None])
            recurrent = self._matrix(f"{key}.recurrent_weight", recurrent_weight[None])
            arguments = [values, inputs, recurrent, biases, "", *before]
            self._node(operator, [*arguments, peephole] if peephole else arguments, [raw, *after], **attributes)
        self._node("Squeeze", [raw, "direction_axis"], [f"{key}.output"])

    def _anchor(self, matrix: _Array) -> _Array:
        """Return [gates * hidden, inputs] with rows for the anchors in each gate and columns for those below: zeros."""
        blocks = matrix.reshape(4, self._spec.hidden, -1)
        padded = np.pad(blocks, ((0, 0), (0, ANCHORS), (0, ANCHORS)))
        return padded.reshape(4 * self._hidden, -1)

    def _anchor_bias(self, bias: _Array) -> _Array:
        """Return [gates * hidden] with that of the anchors: nothing comes in, all is kept, and all goes out."""
        padded = np.pad(bias.reshape(4, -1), ((0, 0), (0, ANCHORS)))
        padded[:, -ANCHORS:] = np.array([-_SATURATED, _SATURATED, _SATURATED, 0])[:, None]  # ONNX's order: i o f c
        return padded.reshape(-1)

    def _output(self, values: str) -> None:
        weight = self._weights["output.weight"].T  # [output_inputs, 256]
        bias = self._constant("output.bias", self._weights["output.bias"])
        if self._quantise:
            scale = _scale_of_each(weight, axis=0)
            if self._anchored:
                blocks = weight.reshape(-1, self._spec.hidden, VOCABULARY)  # one for each layer that it reads
                weight = np.pad(blocks, ((0, 0), (0, ANCHORS), (0, 0))).reshape(-1, VOCABULARY)
            self._product(self._rounded(values, "features"), "output.weight", weight, scale, bias, "logits")
        else:
            self._node("MatMul", [values, self._constant("output.weight", weight)], ["product"])
            self._node("Add", ["product", bias], ["logits"])

    def _gates(self, name: str) -> _Array:
        """Return a weight with its gate blocks in ONNX's order; a gate that the cell has not is zeros."""
        blocks = np.split(self._weights[name], self._spec.gates)
        order = _ONNX_GATES[self._spec.cell]
        return np.concatenate([np.zeros_like(blocks[0]) if at is None else blocks[at] for at in order])

    def _matrix(self, name: str, matrix: _Array) -> str:
        """Add a float32 matrix; in an int8 graph, as int8 that ONNX Runtime makes float32 at load."""
        if not self._quantise:
            return self._constant(name, matrix)
        scale = _scale_of_each(matrix, axis=-1)[..., None]  # [1, gates * hidden, 1]
        stored = _to_int8(matrix, scale)
        # Cast and Mul rather than DequantizeLinear, which ONNX Runtime would do again at every step.
        self._node("Cast", [self._constant(name, stored)], [f"{name}.unscaled"], to=TensorProto.FLOAT)
        self._node("Mul", [f"{name}.unscaled", self._constant(f"{name}.scale", scale)], [f"{name}.float"])
        return f"{name}.float"


class _StepGraph(_Graph):
    """One symbol in each lane, with int8 matrices, for the LSTM family: its gates written out."""

    def serialise(self) -> bytes:
        spec = self._spec
        arrays = spec.layers * spec.parts
        rounded: list[str] = []  # new hidden states, uint8 [lanes, hidden]
        for layer in range(spec.layers):
            key = f"layers.{layer}"
            hidden, cell = (f"state.{layer * spec.parts + part}" for part in range(2))
            before = self._rounded(hidden, f"{key}.hidden")
            recurrent = self._weights[f"{key}.recurrent_weight"]
            if layer == 0:
                scale = _one_scale(recurrent)
                name = f"{key}.recurrent_weight"
                product = self._product(before, name, recurrent.T, scale, "", f"{key}.product")
                sums = self._node("Add", [product, self._table()], [f"{key}.sums"])
            else:
                both = self._node("Concat", [rounded[-1], before], [f"{key}.inputs"], axis=1)
                matrix = np.concatenate([self._weights[f"{key}.input_weight"], recurrent], axis=1)
                bias = self._constant(f"{key}.bias", self._weights[f"{key}.bias"])
                sums = self._product(both, f"{key}.weight", matrix.T, _one_scale(matrix), bias, f"{key}.sums")
            new_hidden = self._gates(layer, sums, cell)
            rounded.append(self._rounded(new_hidden, f"{key}.new_hidden"))
        features = rounded[-1]
        if spec.skip and spec.layers > 1:
            features = self._node("Concat", rounded, ["features"], axis=1)
        matrix = self._weights["output.weight"].T  # [output_inputs, 256]
        bias = self._constant("output.bias", self._weights["output.bias"])
        self._product(features, "output.weight", matrix, _scale_of_each(matrix, axis=0), bias, "logits")

        shape: list[str | int | None] = ["lanes", spec.hidden]
        return self._model(
            [helper.make_tensor_value_info("symbols", TensorProto.INT64, ["lanes"])]
            + [helper.make_tensor_value_info(f"state.{at}", TensorProto.FLOAT, shape) for at in range(arrays)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["lanes", VOCABULARY])]
            + [helper.make_tensor_value_info(f"new_state.{at}", TensorProto.FLOAT, shape) for at in range(arrays)],
        )

    def _table(self) -> str:
        """Add what the first layer makes of each symbol, a look-up [256, gates * hidden]; return that of `symbols`.

        ONNX Runtime multiplies it out when the model is loaded: in the file it would be four times as large.
        """
        matrix = self._constant("layers.0.input_weight", self._weights["layers.0.input_weight"].T)
        self._node("MatMul", [self._constant("embedding.weight", self._weights["embedding.weight"]), matrix], ["table"])
        bias = self._constant("layers.0.bias", self._weights["layers.0.bias"])
        self._node("Add", ["table", bias], ["biased_table"])
        return self._node("Gather", ["biased_table", "symbols"], ["layers.0.inputs"])

    def _gates(self, layer: int, sums: str, cell: str) -> str:
        """Add the gates of a layer from their `sums` [lanes, gates * hidden]; return the new hidden state."""
        kind, key = self._spec.cell, f"layers.{layer}"
        names = ("i", "g", "o") if kind == "coupled" else ("i", "f", "g", "o")
        self._node("Split", [sums], [f"{key}.{name}.sum" for name in names], axis=1)
        new_hidden, new_cell = (f"new_state.{layer * 2 + part}" for part in range(2))

        def gate(name: str, cell: str) -> str:
            value, operator = f"{key}.{name}.sum", "Tanh" if name == "g" else "Sigmoid"
            if kind == "peephole" and name != "g":
                row = self._weights[f"{key}.peephole"]["ifo".index(name)]
                seen = self._node("Mul", [cell, self._constant(f"{key}.{name}.peephole", row)], [f"{key}.{name}.seen"])
                value = self._node("Add", [value, seen], [f"{key}.{name}.with_cell"])
            return self._node(operator, [value], [f"{key}.{name}"])

        i, g = gate("i", cell), gate("g", cell)
        if kind == "coupled":  # c' = c + i * (g - c), which is (1 - i) * c + i * g
            missing = self._node("Sub", [g, cell], [f"{key}.missing"])
            kept, added = cell, self._node("Mul", [i, missing], [f"{key}.added"])
        else:
            kept = self._node("Mul", [gate("f", cell), cell], [f"{key}.kept"])
            added = self._node("Mul", [i, g], [f"{key}.added"])
        self._node("Add", [kept, added], [new_cell])
        squashed = self._node("Tanh", [new_cell], [f"{key}.squashed"])
        return self._node("Mul", [gate("o", new_cell), squashed], [new_hidden])


def _integers(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _to_int8(matrix: _Array, scale: _Scale) -> npt.NDArray[np.int8]:
    """Return the matrix in steps of `scale`: matrix ≈ result * scale. What lies beyond 127 steps is cut off."""
    return np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8)


def _one_scale(matrix: _Array) -> _Scale:
    """Return the scale that loses least (in squares) of the whole matrix, [1].

    A few weights far larger than the others would make the steps coarse for all, so up to a fifth of the range may be
    cut off. Cutting more still loses less in squares, but more in bits: the large weights are there for a reason.
    """
    largest = _scale_of_each(matrix.reshape(-1), axis=0)
    scales = [np.float32(share) * largest[None] for share in (1.0, 0.95, 0.9, 0.85, 0.8)]
    losses = [float(np.square(_to_int8(matrix, scale) * scale - matrix).sum()) for scale in scales]
    return scales[losses.index(min(losses))]


def _scale_of_each(matrix: _Array, axis: int) -> _Scale:
    """Return the scale that just holds the largest weight along `axis`; that of zeros is 1."""
    largest = np.abs(matrix).max(axis=axis)
    scale: _Scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return scale


def _checked(weights: Weights, spec: ModelSpec) -> Weights:
    """Return `weights` if they are what `spec` says, or raise `ModelError`."""
    check_shapes({key: tuple(value.shape) for key, value in weights.items()}, spec, "the weights")
    for key, value in weights.items():
        if not np.isfinite(value).all():
            raise ModelError(
                f"weight {key} is not finite (training diverged): train again with a smaller learning rate."
            )
    return weights


# --- the directory ------------------------------------------------------------------------------------------


def refuse_existing(out: Path, force: bool) -> None:
    """Raise `OutputError` where a model must not be written to `out`; asked before training, not only after it."""
    if not out.exists():
        return
    if not force:
        raise OutputError(f"{out} exists already: choose another output directory, or give --force to replace it.")
    if not out.is_dir():
        raise OutputError(f"{out} is not a directory: choose another output directory.")
    # A slip of the hand must not turn somebody's source tree into a model.
    if any(out.iterdir()) and not looks_like_model(out):
        raise OutputError(f"{out} holds something that is not a model: choose another output directory.")


def _write_directory(out: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` as the directory `out`, in place of one that is there, by renaming a finished one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    new, old = out.parent / f".{out.name}.{mark}.new", out.parent / f".{out.name}.{mark}.old"
    _tidy_up(out)
    try:
        new.mkdir(mode=0o700)  # a model can repeat what it has read
        for name, data in files.items():
            with create(new / name) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync_directory(new)
        if out.exists():
            out.rename(old)
            try:
                new.rename(out)
            except OSError:
                old.rename(out)
                raise
            for entry in old.iterdir():
                if entry.name not in files:
                    entry.rename(out / entry.name)
            shutil.rmtree(old)
        else:
            new.rename(out)
        _sync_directory(out.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _tidy_up(out: Path) -> None:
    """Remove what a killed process has left half written; what it had set aside, and had not put back, comes back."""
    for left in out.parent.iterdir():
        mark = left.name.removeprefix(f".{out.name}.")
        if left.name == mark or not _LEFT.fullmatch(mark):
            continue
        if mark.endswith("old"):
            if not out.exists():
                left.rename(out)
                continue
            for entry in left.iterdir():
                if not (out / entry.name).exists():
                    entry.rename(out / entry.name)
        shutil.rmtree(left)


def _sync_directory(path: Path) -> None:
    """Make the names in a directory durable, where the system can (Windows cannot open one)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
