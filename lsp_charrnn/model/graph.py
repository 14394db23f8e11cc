"""What an ONNX file holds, read from its bytes before ONNX Runtime sees it, without the onnx package.

Serving must not need onnx, yet a graph from elsewhere may ask ONNX Runtime to open other files (external data), to run
operators that we never write (loops, file access, a plugin's domain), or to make arrays that fill the memory. So the
few protobuf fields that our graphs have are read here: nodes, and the constants with their shapes. Whatever else stands
in a file is `foreign`, and a constant must have as many bytes as its shape says. What a graph must look like is
`layout`'s to say; values are decoded of constants that say how long something is, and of no others.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# Field numbers of onnx.proto.
_MODEL_GRAPH: Final = 7
_MODEL_FIELDS: Final = frozenset({1, 2, 7, 8})  # version, who wrote it, graph, versions of the operators
_MODEL_FUNCTIONS: Final = 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_GRAPH_FIELDS: Final = frozenset({1, 2, 5, 11, 12})  # nodes, name, constants, inputs, outputs
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_NODE_FIELDS: Final = frozenset({1, 2, 4, 5, 7})
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER = 1, 3
_ATTRIBUTE_FIELDS: Final = frozenset(
    {1, 3, 20}
)  # name, whole number, type: no tensors, no bodies of loops and branches
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_DATA = 1, 2, 8, 9
_TENSOR_FIELDS: Final = frozenset({1, 2, 8, 9})
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
INT64: Final = 7
# onnx.TensorProto.DataType: float, uint8, int8, int32, int64, double
BYTES_OF_TYPE: Final = {1: 4, 2: 1, 3: 1, 6: 4, INT64: 8, 11: 8}
_FEW: Final = 64  # bytes: what says how long something is, is no longer


@dataclass(frozen=True)
class Constant:
    """A tensor stored in the graph."""

    name: str
    kind: int  # onnx.TensorProto.DataType
    shape: tuple[int, ...]
    bytes: int
    values: tuple[int, ...] = ()  # of a few whole numbers


@dataclass(frozen=True)
class Node:
    """One step of the graph. Attributes are whole numbers, by name, in the order of their names."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    domain: str = ""
    attributes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class GraphContents:
    """What a graph is made of."""

    nodes: tuple[Node, ...]
    constants: tuple[Constant, ...]
    external: bool  # some constant's values lie in another file
    foreign: str  # what it holds that no graph of ours does, such as subgraphs; empty: nothing

    @property
    def operators(self) -> frozenset[tuple[str, str]]:
        """The operators that it uses.  # (domain, operator)"""
        return frozenset((node.domain, node.operator) for node in self.nodes)


def read_graph(data: bytes) -> GraphContents:
    """Return what the ONNX model in `data` is made of. Raises `ValueError` where it is not one, is cut short, or has
    a constant whose bytes are not those of its shape."""
    nodes: list[Node] = []
    constants: list[Constant] = []
    external, foreign = False, ""
    graphs = 0
    view = memoryview(data)
    for field, value in _fields(view):
        if field not in _MODEL_FIELDS:
            foreign = foreign or ("functions" if field == _MODEL_FUNCTIONS else f"field {field} of a model")
        if field != _MODEL_GRAPH:
            continue
        graphs += 1
        for part, content in _fields(_message(value)):
            if part == _GRAPH_NODE:
                node, strange = _node(_message(content))
                nodes.append(node)
                foreign = foreign or strange
            elif part == _GRAPH_INITIALIZER:
                constant, elsewhere = _tensor(_message(content))
                constants.append(constant)
                external = external or elsewhere
            elif part not in _GRAPH_FIELDS:
                sparse = part == _GRAPH_SPARSE_INITIALIZER
                foreign = foreign or ("sparse constants" if sparse else f"field {part} of a graph")
    if graphs != 1:
        raise ValueError("no graph in it")
    return GraphContents(tuple(nodes), tuple(constants), external, foreign)


def _node(data: memoryview) -> tuple[Node, str]:
    """Return a node, and what is foreign in it."""
    domain = operator = foreign = ""
    inputs, outputs, attributes = [], [], []
    for field, value in _fields(data):
        if field == _NODE_INPUT:
            inputs.append(_text(value))
        elif field == _NODE_OUTPUT:
            outputs.append(_text(value))
        elif field == _NODE_OPERATOR:
            operator = _text(value)
        elif field == _NODE_DOMAIN:
            domain = _text(value)
        elif field == _NODE_ATTRIBUTE:
            name, number = "", 0
            for part, content in _fields(_message(value)):
                if part == _ATTRIBUTE_NAME:
                    name = _text(content)
                elif part == _ATTRIBUTE_INTEGER and isinstance(content, int):
                    number = content
                elif part not in _ATTRIBUTE_FIELDS:
                    # A tensor in an attribute could be external too; ours are constants of the graph.
                    foreign = foreign or "subgraphs or other attributes than numbers"
            attributes.append((name, number))
        elif field not in _NODE_FIELDS:
            foreign = foreign or f"field {field} of a node"
    return Node(operator, tuple(inputs), tuple(outputs), domain, tuple(sorted(attributes))), foreign


def _tensor(data: memoryview) -> tuple[Constant, bool]:
    shape: list[int] = []
    name, kind, elsewhere = "", 0, False
    values: memoryview = data[:0]
    other = False
    for field, value in _fields(data):
        if field == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else list(_packed(value))
        elif field == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif field == _TENSOR_NAME:
            name = _text(value)
        elif field == _TENSOR_DATA:
            values = _message(value)
        elif field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0):
            elsewhere = True
        elif field not in _TENSOR_FIELDS:
            other = True
    size = BYTES_OF_TYPE.get(kind, 0) * math.prod(shape)
    if not elsewhere and (other or size != len(values) or kind not in BYTES_OF_TYPE):
        raise ValueError(f"the constant {name[:80]!r} has not the bytes that its type and shape ask for")
    few = kind == INT64 and 0 < len(values) <= _FEW
    numbers = tuple(struct.unpack(f"<{len(values) // 8}q", values)) if few else ()
    return Constant(name, kind, tuple(shape), size, numbers), elsewhere


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a protobuf message: numbers as int, everything else as bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            number, at = _varint(data, at)
            yield field, number
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} is not in use")
        if at + length > len(data):
            raise ValueError("it ends early")
        yield field, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("it ends early")
        if shift > 63:
            raise ValueError("a number is too long")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message should")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8")  # UnicodeDecodeError is a ValueError
