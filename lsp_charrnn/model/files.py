"""Model directories: where they are found, whether they are whole, and how one is loaded for serving.

A model is a directory of config.json (what it is, and the SHA-256 of its weights), weights.safetensors (fp16,
for training and the reference), model.onnx and, for the LSTM family, step.onnx (int8, for serving) and README.md (its
card). Loading verifies first, and says in one sentence what is wrong and how to mend it. Writing one is left to
train.export.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import platformdirs

from lsp_charrnn.config import PROGRAMMING_LANGUAGES, language_id
from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.graph import GraphContents, read_graph
from lsp_charrnn.model.layout import is_same, reading_graph, stepping_graph
from lsp_charrnn.model.spec import ANCHORS, ModelSpec
from lsp_charrnn.model.step import Model
from lsp_charrnn.private import open_regular, read_regular

FORMAT: Final = 2  # 1 had no graph to step with; its weights are still read
SYMBOLS: Final = "utf8-bytes-1"
CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "weights.safetensors"
GRAPH_FILE: Final = "model.onnx"
STEP_FILE: Final = "step.onnx"
CARD_FILE: Final = "README.md"
MODELS_VARIABLE: Final = "LSP_CHARRNN_MODELS"

_MAX_CONFIG: Final = 4 << 20  # bytes; a config is a page of text
_MAX_HEADER: Final = 4 << 20  # bytes of safetensors header
_MAX_WEIGHTS: Final = 1 << 30  # bytes: a network of more is none that steps between two keys
_MAX_GRAPH_SHARE: Final = 8  # bytes of a graph for each weight, at most; and a little for names and tables
_MAX_NAME: Final = 100  # characters
_BYTES_OF_KIND: Final = {"F16": 2, "F32": 4}
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_REPAIR: Final = "copy or download the model again, or re-export it"

# Every operator that train.export writes. A graph with another one is not ours, and is not run.
_OPERATORS: Final = frozenset(
    [("", name) for name in ("Add", "Cast", "Concat", "Gather", "MatMul", "Mul", "Pad", "QuantizeLinear", "Sigmoid")]
    + [("", name) for name in ("Slice", "Split", "Squeeze", "Sub", "Tanh", "GRU", "LSTM", "RNN")]
    + [("com.microsoft", name) for name in ("DynamicQuantizeLSTM", "MatMulIntegerToFloat")]
)

# Constants of which a step looks up a row, or which are multiplied out when the model is loaded.
_LOOKED_UP: Final = frozenset({"embedding.weight", "layers.0.input_weight", "layers.0.bias"})


@dataclass(frozen=True)
class Check:
    """One thing that `verify_model` looked at, and what it found, or what is wrong and the fix."""

    name: str
    ok: bool
    message: str


@dataclass(frozen=True)
class ModelInfo:
    """A model that was found, by its config alone; `problem` says why it cannot be used, where it can't."""

    name: str
    path: Path
    languages: tuple[str, ...] = ()
    spec: ModelSpec | None = None
    problem: str = ""
    version: str = ""  # when its training ended, where that is known, and the beginning of its weights' hash


# --- finding ------------------------------------------------------------------------------------------------


def search_path() -> list[Path]:
    """Return the directories that hold models, the first to be searched first; some may not exist."""
    places = [Path(part) for part in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if part]
    places.append(Path(platformdirs.user_data_dir("lsp-charrnn", appauthor=False)) / "models")
    package = Path(__file__).resolve().parent.parent
    # In a wheel the models lie in the package; in a checkout, beside it.
    places += [package / "models", package.parent / "models"]
    return places


def looks_like_model(path: Path) -> bool:
    """Say whether `path` has a config.json, whatever is in it."""
    return (path / CONFIG_FILE).is_file()


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the directory of the model with this path or name. Raises `ModelError` where there is none."""
    given = os.fspath(name_or_path)
    if not given:
        raise ModelError("no model is named: give the path or the name of a model directory.")
    path = Path(os.path.expanduser(given))  # noqa: PTH111  pathlib's raises for a user that it does not know
    # A bare name may well be that of some directory here ("python"): only a model counts, then.
    if looks_like_model(path):
        return path
    bare = path.name == given
    for place in search_path() if bare else ():
        if looks_like_model(place / given):
            return place / given
    if path.exists():
        return path  # what is wrong with it, loading says
    if not bare:
        raise ModelError(f"{path} does not exist: give the path or the name of a model directory.")
    known = sorted({info.name for info in list_models()})
    raise ModelError(
        f"there is no model {given!r}: give the path of a model directory, or "
        + (f"one of {', '.join(known)}." if known else f"set {MODELS_VARIABLE} to where the models are.")
    )


def list_models() -> list[ModelInfo]:
    """Return every model on the search path, in its order; the first of a name that works hides those behind it."""
    found: list[ModelInfo] = []
    usable: set[str] = set()
    for place in search_path():
        try:
            entries = sorted(place.iterdir())
        except OSError:
            continue
        for entry in entries:
            if entry.name in usable or entry.name.startswith(".") or not looks_like_model(entry):
                continue
            info = describe(entry)
            found.append(info)
            if not info.problem:
                usable.add(info.name)
    return found


def model_for_language(language: str) -> Path:
    """Return the first model found that was trained for `language`, or for any if it is a programming language.

    What it knows of other languages is little, and the mixer sees that; the memories know the rest. Raises `ModelError`
    if there is none.
    """
    models = [info for info in list_models() if not info.problem]
    for info in models:
        if language_id(language) in info.languages:
            return info.path
    if models and language in PROGRAMMING_LANGUAGES:
        return models[0].path
    known = sorted({name for info in models for name in info.languages})
    have = f"the models found know {', '.join(known)}" if known else "no model was found at all"
    raise ModelError(f"there is no model for {language!r} ({have}): name a model in the setting 'model', or train one.")


def describe(path: Path) -> ModelInfo:
    """Return what the config of the model directory at `path` says, or why it cannot be used."""
    try:
        config, spec = read_config(path)
        _check_format(path, config)
    except ModelError as error:
        return ModelInfo(path.name, path, problem=str(error))
    return ModelInfo(path.name, path, tuple(config["languages"]), spec, version=_version(config))


def _version(config: Mapping[str, Any]) -> str:
    """Return what tells two models of one name apart: a date for people, a hash for certainty."""
    training = config.get("training")
    finished = training.get("finished") if isinstance(training, dict) else None
    digest = str(config["files"][WEIGHTS_FILE])[:8]
    return f"{finished} {digest}" if isinstance(finished, str) and _DATE.fullmatch(finished) else digest


# --- loading ------------------------------------------------------------------------------------------------


def load_model(path: str | os.PathLike[str], threads: int = 1) -> Model:
    """Verify the model directory at `path` and load its graph for serving, on `threads` threads.

    Raises `ModelError` for whatever is wrong with the directory.
    """
    directory = Path(path)
    config, spec = read_config(directory)
    _weights_as_promised(directory, config, spec)
    return _session(directory, config, spec, _graphs_as_promised(directory, config, spec), threads)


def load_weights(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[np.float32]], ModelSpec]:
    """Return a model's weights as float32, by the names and shapes of its spec, and the spec.

    Raises `ModelError` for whatever is wrong with them. For training and the reference; serving has no use
    for it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    directory = Path(path)
    config, spec = read_config(directory)
    data = bytearray()
    _weights_as_promised(directory, config, spec, keep=data)
    try:
        # From the bytes that were checked: the file may be another one by now.
        tensors = load(bytes(data))
    except SafetensorError as error:
        raise ModelError(f"{directory / WEIGHTS_FILE} is damaged ({error}): {_REPAIR}.") from error
    return {name: tensors[name].astype(np.float32) for name in spec.shapes()}, spec


def verify_model(path: str | os.PathLike[str]) -> list[Check]:
    """Look at all that loading needs, going on past a failure as far as that makes sense; never raises."""
    directory = Path(path)
    checks: list[Check] = []
    try:
        config, spec = read_config(directory)
    except ModelError as error:
        return [Check("config", False, str(error))]
    checks.append(Check("config", True, f"format {FORMAT}, {_summary(spec)}, for {', '.join(config['languages'])}"))
    try:
        size = _weights_as_promised(directory, config, spec)
        checks.append(Check("weights", True, f"{size:,} bytes, hash and shapes as promised"))
    except ModelError as error:
        checks.append(Check("weights", False, str(error)))
    try:
        graphs = _graphs_as_promised(directory, config, spec)
        size = sum(len(data) for data, _ in graphs.values())
        checks.append(Check("graph", True, f"{size:,} bytes, hash and operators as promised"))
    except ModelError as error:
        checks.append(Check("graph", False, str(error)))
        return checks
    try:
        model = _session(directory, config, spec, graphs, threads=1)
        symbols, state = np.zeros(1, dtype=np.int64), model.initial_state()
        for logits, _ in (model.advance(symbols[None], state), model.step(symbols, state)):
            if not np.isfinite(logits).all():
                raise ModelError(f"{directory} predicts numbers that are not finite: {_REPAIR}.")
        checks.append(Check("step", True, "one symbol read, finite logits"))
    except ModelError as error:
        checks.append(Check("step", False, str(error)))
    return checks


def read_config(path: str | os.PathLike[str]) -> tuple[dict[str, Any], ModelSpec]:
    """Return a model's config and spec. Raises `ModelError` where `path` is not a model that we can read."""
    directory = Path(path)
    if not directory.exists():
        raise ModelError(f"{directory} does not exist: give the path or the name of a model directory.")
    if not looks_like_model(directory):
        raise ModelError(f"{directory} is not a model directory (it has no {CONFIG_FILE}): give one made by `train`.")
    file = directory / CONFIG_FILE
    try:
        data = read_regular(file, _MAX_CONFIG)
    except OSError as error:
        raise _unreadable(file, error) from error
    except ValueError as error:
        raise ModelError(f"{file} is far too large for a config: {_REPAIR}.") from error
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON: {_REPAIR}.") from error
    version = config.get("format") if isinstance(config, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ModelError(f"{file} is not a model's config (it has no format number): give a directory made by `train`.")
    if version > FORMAT:
        raise ModelError(
            f"{directory} has format {version}, newer than the {FORMAT} that this version reads: upgrade lsp-charrnn."
        )
    if config.get("symbols") != SYMBOLS:
        raise ModelError(
            f"{directory} reads other symbols ({config.get('symbols')!r}) than this version's {SYMBOLS!r}: "
            "upgrade lsp-charrnn, or re-export the model."
        )
    names = config.get("languages")
    if not isinstance(names, list) or not all(map(_is_name, names)):
        raise ModelError(f"{file} has languages that are not a list of names: {_REPAIR}.")
    if not _is_name(config.get("name")):
        raise ModelError(f"{file} has no name: {_REPAIR}.")
    try:
        spec = ModelSpec.from_json(config.get("spec"))
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error
    hashes = config.get("files")
    for name in (WEIGHTS_FILE, *(_graph_files(spec) if version == FORMAT else ())):
        value = hashes.get(name) if isinstance(hashes, dict) else None
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            raise ModelError(f"{file} has no SHA-256 for {name}: {_REPAIR}.")
    return config, spec


def _is_name(value: object) -> bool:
    """Say whether a terminal and an editor can be shown this as a name."""
    return isinstance(value, str) and len(value) <= _MAX_NAME and value.isprintable()


def check_shapes(shapes: Mapping[str, Sequence[int]], spec: ModelSpec, what: str) -> None:
    """Raise `ModelError` unless `shapes` are those of `spec`; `what` is the subject of the message."""
    wanted = spec.shapes()
    for name, shape in wanted.items():
        if name not in shapes:
            raise ModelError(f"{what} have no {name}, which {_summary(spec)} needs: {_REPAIR}.")
        if tuple(shapes[name]) != shape:
            raise ModelError(
                f"{what} hold {name} as {list(shapes[name])}, but {_summary(spec)} has it as {list(shape)}: {_REPAIR}."
            )
    for name in shapes:
        if name not in wanted:
            raise ModelError(f"{what} hold {name}, which {_summary(spec)} has not: {_REPAIR}.")


def _weights_as_promised(
    directory: Path, config: Mapping[str, Any], spec: ModelSpec, keep: bytearray | None = None
) -> int:
    """Check the weights' header and hash, and return the file's size; its values are taken in by `keep` alone."""
    file = directory / WEIGHTS_FILE
    digest = hashlib.sha256()
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > _MAX_WEIGHTS:
                raise ModelError(f"{file} has {size:,} bytes, and {_MAX_WEIGHTS:,} are the most: train a smaller one.")
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(_MAX_HEADER, size - 8):
                raise ModelError(f"{file} is truncated or not safetensors: {_REPAIR}.")
            header = stream.read(length)
            promised = 8 + length + _check_header(file, header, spec)
            if size != promised:
                raise ModelError(f"{file} is {'truncated' if size < promised else 'too long'}: {_REPAIR}.")
            for block in chain((start, header), iter(lambda: stream.read(1 << 20), b"")):
                digest.update(block)
                if keep is not None:
                    keep += block
    except OSError as error:
        raise _unreadable(file, error) from error
    _check_hash(file, digest.hexdigest(), config)
    return size


def _check_header(file: Path, header: bytes, spec: ModelSpec) -> int:
    """Check names, shapes and places in a safetensors header, and return how many bytes of values follow it."""
    shapes: dict[str, tuple[int, ...]] = {}
    places: list[tuple[int, int, str]] = []
    kinds: dict[str, str] = {}
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        for name, entry in tensors.items():
            start, end = entry["data_offsets"]
            shapes[name], kinds[name] = tuple(entry["shape"]), str(entry["dtype"])
            places.append((start, end, name))
            if not all(type(number) is int for number in (start, end, *shapes[name])):
                raise ValueError("a size that is no whole number")
        places.sort()
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ModelError(f"{file} is damaged or not safetensors: {_REPAIR}.") from error
    check_shapes(shapes, spec, f"the weights in {file}")
    if not set(kinds.values()) <= _BYTES_OF_KIND.keys():
        wrong = ", ".join(sorted(set(kinds.values()) - _BYTES_OF_KIND.keys()))
        raise ModelError(f"{file} holds numbers of type {wrong[:80]}, not F16 or F32: {_REPAIR}.")
    at = 0
    for start, end, name in places:
        if start != at or end != start + prod(shapes[name]) * _BYTES_OF_KIND[kinds[name]]:
            raise ModelError(f"{file} does not hold {name} where it says: {_REPAIR}.")
        at = end
    return at


def _graph_files(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of the graphs that a model of `spec` has."""
    return (GRAPH_FILE, STEP_FILE) if spec.flat_step else (GRAPH_FILE,)


_Graphs = dict[str, tuple[bytes, GraphContents]]  # by the names of their files


def _graphs_as_promised(directory: Path, config: Mapping[str, Any], spec: ModelSpec) -> _Graphs:
    """Return each graph's bytes and what they hold, after checking hash, operators and shapes."""
    _check_format(directory, config)
    return {name: _graph_as_promised(directory / name, config, spec) for name in _graph_files(spec)}


def _check_format(directory: Path, config: Mapping[str, Any]) -> None:
    """Raise `ModelError` for a model whose weights can be read, but whose graphs can't be run."""
    if config["format"] < FORMAT:
        raise ModelError(
            f"{directory} has format {config['format']}, whose graph this version no longer runs: "
            f"write it anew from the weights with `lsp-charrnn models renew {directory}`."
        )


def _graph_as_promised(file: Path, config: Mapping[str, Any], spec: ModelSpec) -> tuple[bytes, GraphContents]:
    most = min(_MAX_WEIGHTS, _MAX_GRAPH_SHARE * sum(map(prod, spec.shapes().values())) + (4 << 20))
    try:
        data = read_regular(file, most)
    except OSError as error:
        raise _unreadable(file, error) from error
    except ValueError as error:
        raise ModelError(f"{file} is larger than the graph of {_summary(spec)} can be: {_REPAIR}.") from error
    try:
        contents = read_graph(data)
    except ValueError as error:
        raise ModelError(f"{file} is truncated or not ONNX ({error}): {_REPAIR}.") from error
    _check_hash(file, hashlib.sha256(data).hexdigest(), config)
    if contents.external:
        raise ModelError(f"{file} refers to other files for its weights, which is not allowed: re-export the model.")
    foreign = sorted(f"{domain}.{operator}".lstrip(".")[:80] for domain, operator in contents.operators - _OPERATORS)
    if foreign or contents.foreign:
        named = ", ".join(foreign[:5]) or contents.foreign
        raise ModelError(f"{file} uses {named}, which no model of ours does: re-export the model.")
    for name, shape in _graph_shapes(file.name, spec):
        if not any(constant.name == name and constant.shape == shape for constant in contents.constants):
            raise ModelError(f"{file} does not hold {name} as {_summary(spec)} has it: re-export the model.")
    if not is_same(contents, (stepping_graph if file.name == STEP_FILE else reading_graph)(spec)):
        raise ModelError(
            f"{file} is not the graph that this version writes for {_summary(spec)}: write it anew from the weights "
            f"with `lsp-charrnn models renew {file.parent}`."
        )
    return data, contents


def _graph_shapes(name: str, spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name of each matrix in the graph of this file that tells one spec from another, and its shape there."""
    anchors = ANCHORS if spec.flat_step and name == GRAPH_FILE else 0
    shapes = spec.shapes()
    symbols, width = shapes["embedding.weight"]
    yield "embedding.weight", (symbols, width + anchors)
    outputs, inputs = shapes["output.weight"]
    yield "output.weight", (inputs + inputs // spec.hidden * anchors, outputs)


def _session(
    directory: Path,
    config: dict[str, Any],
    spec: ModelSpec,
    graphs: _Graphs,
    threads: int,
) -> Model:
    data, contents = graphs[GRAPH_FILE]
    step, step_contents = graphs.get(STEP_FILE, (None, contents))
    looked_up = _LOOKED_UP if step is not None else {"embedding.weight"}
    size = sum(constant.bytes for constant in step_contents.constants if constant.name not in looked_up)
    try:
        return Model(data, spec, step_graph=step, name=config["name"], config=config, size_bytes=size, threads=threads)
    except ModelError as error:
        raise ModelError(f"{directory}: {error}") from error


def _check_hash(file: Path, found: str, config: Mapping[str, Any]) -> None:
    if found != config["files"][file.name]:
        raise ModelError(f"{file} is not the file that {CONFIG_FILE} describes (SHA-256 differs): {_REPAIR}.")


def _unreadable(file: Path, error: OSError) -> ModelError:
    if isinstance(error, FileNotFoundError):
        return ModelError(f"{file} is missing: {_REPAIR}.")
    return ModelError(f"{file} cannot be read ({error.strerror or error}): check its permissions, or {_REPAIR}.")


def _summary(spec: ModelSpec) -> str:
    return f"a {spec.layers}×{spec.hidden} {spec.cell}"
