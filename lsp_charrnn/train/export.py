"""From trained weights to a model directory: the ONNX graph (float32 or int8), fp16 weights, config and card.

The graph has the inputs `symbols` int64 [time, lanes] and `state` float32 [layers * parts, lanes, hidden],
and the outputs `logits` float32 [time, lanes, 256] and `new_state`, shaped like `state`. One tensor carries
the whole state, for each further input and output costs Python more than the split inside the graph does
(docs/experiments.md).

int8 means, for the LSTM family, ONNX Runtime's `DynamicQuantizeLSTM` with one scale per matrix, which is fastest, and
`DynamicQuantizeMatMul` with one per symbol, which is as fast and more exact. There is no such operator for gru and rnn:
their matrices are stored as int8 and made float32 again when the model is loaded. Training is left to others; torch is
not needed here.
"""

from __future__ import annotations

import hashlib
import json
import os
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
    SYMBOLS,
    WEIGHTS_FILE,
    check_shapes,
    looks_like_model,
)
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import VOCABULARY

Weights = Mapping[str, npt.NDArray[np.floating[Any]]]
_Array = npt.NDArray[Any]
_Scale = npt.NDArray[np.float32]

_OPSET: Final = 17
_IR_VERSION: Final = 8  # read by every ONNX Runtime since 1.12
_CONTRIB: Final = "com.microsoft"  # the domain of ONNX Runtime's own operators

# Gate blocks in ONNX's order, by their place in ours; None is a gate that the cell has not.
_ONNX_GATES: Final[dict[str, tuple[int | None, ...]]] = {
    "lstm": (0, 3, 1, 2),  # ours i f g o; ONNX i o f c
    "peephole": (0, 3, 1, 2),
    "coupled": (0, 2, None, 1),  # ours i g o; ONNX computes f = 1 - i by input_forget
    "gru": (1, 0, 2),  # ours r z n; ONNX z r h
    "rnn": (0,),
}


def build_onnx(weights: Weights, spec: ModelSpec, *, quantise: bool) -> bytes:
    """Return the network as a serialised ONNX model, with int8 matrices where `quantise` says so.

    `weights` go by the names and shapes of `ModelSpec.shapes`. Raises `ModelError` where they don't fit the
    spec or hold a value that is not finite.
    """
    return _Graph(_checked(weights, spec), spec, quantise).serialise()


def export_model(
    weights: Weights,
    spec: ModelSpec,
    out_dir: str | os.PathLike[str],
    *,
    name: str,
    languages: Sequence[str],
    training: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    card: str,
    force: bool = False,
) -> Path:
    """Write a model directory and return its path; the whole of it appears there, or nothing does.

    `training` and `evaluation` are facts for config.json (JSON data), `card` is the text of README.md. With
    `force` a model that is there already is replaced, and what else its directory holds is kept. Raises
    `OutputError` where `out_dir` exists (with `force`, where it is not a model) or cannot be written, and
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
    files[CARD_FILE] = card.encode("utf-8")
    files[CONFIG_FILE] = (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    try:
        _write_directory(out, files)
    except OSError as error:
        raise OutputError(
            f"cannot write {out} ({error.strerror or error}): free the space or choose another directory."
        ) from error
    return out


# --- the graph ----------------------------------------------------------------------------------------------


class _Graph:
    """Collects the nodes and constants of one network."""

    def __init__(self, weights: Weights, spec: ModelSpec, quantise: bool) -> None:
        self._weights = {key: np.asarray(value, dtype=np.float32) for key, value in weights.items()}
        self._spec = spec
        self._quantise = quantise
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def serialise(self) -> bytes:
        spec = self._spec
        arrays = spec.layers * spec.parts
        before = [f"state.{index}" for index in range(arrays)]  # [1, lanes, hidden] each
        after = [f"new_state.{index}" for index in range(arrays)]
        if arrays == 1:
            before, after = ["state"], ["new_state"]
        else:
            self._node("Split", ["state"], before, axis=0)
        self._constant("direction_axis", np.array([1], dtype=np.int64))
        embedding = self._constant("embedding.weight", self._weights["embedding.weight"])
        self._node("Gather", [embedding, "symbols"], ["embedding"])
        values, outputs = "embedding", []  # [time, lanes, inputs]
        for layer in range(spec.layers):
            at = layer * spec.parts
            self._layer(layer, values, before[at : at + spec.parts], after[at : at + spec.parts])
            values = f"layers.{layer}.output"
            outputs.append(values)
        if spec.skip and len(outputs) > 1:
            self._node("Concat", outputs, ["features"], axis=2)
            values = "features"
        self._output(values)
        if arrays > 1:
            self._node("Concat", after, ["new_state"], axis=0)

        state_shape: list[str | int | None] = [arrays, "lanes", spec.hidden]
        graph = helper.make_graph(
            self._nodes,
            "charrnn",
            [
                helper.make_tensor_value_info("symbols", TensorProto.INT64, ["time", "lanes"]),
                helper.make_tensor_value_info("state", TensorProto.FLOAT, state_shape),
            ],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["time", "lanes", VOCABULARY]),
                helper.make_tensor_value_info("new_state", TensorProto.FLOAT, state_shape),
            ],
            self._constants,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="lsp-charrnn")
        return bytes(model.SerializeToString(deterministic=True))

    def _layer(self, layer: int, values: str, before: list[str], after: list[str]) -> None:
        spec, cell = self._spec, self._spec.cell
        key = f"layers.{layer}"
        input_weight = self._gates(f"{key}.input_weight")  # [gates * hidden, inputs]
        recurrent_weight = self._gates(f"{key}.recurrent_weight")  # [gates * hidden, hidden]
        bias = self._gates(f"{key}.bias")
        recurrent_bias = self._gates(f"{key}.recurrent_bias") if cell == "gru" else np.zeros_like(bias)
        biases = self._constant(f"{key}.bias", np.concatenate([bias, recurrent_bias])[None])
        raw = f"{key}.raw_output"  # [time, 1, lanes, hidden]
        peephole = ""
        if cell == "peephole":
            rows = self._weights[f"{key}.peephole"][[0, 2, 1]]  # ours i f o; ONNX i o f
            peephole = self._constant(f"{key}.peephole", rows.reshape(1, -1))
        attributes: dict[str, Any] = {"hidden_size": spec.hidden}
        if cell == "coupled":
            attributes["input_forget"] = 1
        if cell == "gru":
            attributes["linear_before_reset"] = 1  # the reset gate acts after the product, as in torch and cuDNN

        if self._quantise and spec.parts == 2:
            inputs, input_scale = self._int8(f"{key}.input_weight", input_weight.T[None], _one_scale(input_weight))
            recurrent, recurrent_scale = self._int8(
                f"{key}.recurrent_weight", recurrent_weight.T[None], _one_scale(recurrent_weight)
            )
            self._node(
                "DynamicQuantizeLSTM",
                [values, inputs, recurrent, biases, "", *before, peephole, *input_scale, *recurrent_scale],
                [raw, *after],
                domain=_CONTRIB,
                **attributes,
            )
        else:
            operator = {"gru": "GRU", "rnn": "RNN"}.get(cell, "LSTM")
            inputs = self._matrix(f"{key}.input_weight", input_weight[None])
            recurrent = self._matrix(f"{key}.recurrent_weight", recurrent_weight[None])
            arguments = [values, inputs, recurrent, biases, "", *before]
            self._node(operator, [*arguments, peephole] if peephole else arguments, [raw, *after], **attributes)
        self._node("Squeeze", [raw, "direction_axis"], [f"{key}.output"])

    def _output(self, values: str) -> None:
        weight = self._weights["output.weight"].T  # [output_inputs, 256]
        bias = self._constant("output.bias", self._weights["output.bias"])
        if self._quantise:
            matrix, scale = self._int8("output.weight", weight, _scale_of_each(weight, axis=0))
            self._node("DynamicQuantizeMatMul", [values, matrix, *scale, bias], ["logits"], domain=_CONTRIB)
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

    def _int8(self, name: str, matrix: _Array, scale: _Scale) -> tuple[str, tuple[str, str]]:
        """Add a matrix as int8; return its name, and the names of its scale and zero point."""
        stored = _to_int8(matrix, scale)
        zero = np.zeros(scale.shape, dtype=np.int8)
        scales = self._constant(f"{name}.scale", scale), self._constant(f"{name}.zero_point", zero)
        return self._constant(name, stored), scales

    def _constant(self, name: str, value: _Array) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _node(
        self, operator: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any
    ) -> None:
        self._nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))


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
    try:
        new.mkdir()
        for name, data in files.items():
            with (new / name).open("wb") as file:
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
