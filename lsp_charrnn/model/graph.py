"""What an ONNX file holds, read from its bytes before ONNX Runtime sees it, without the onnx package.

Serving must not need onnx, yet a graph from elsewhere may ask ONNX Runtime to open other files (external
data), or to run operators that we never write (loops, file access, a plugin's domain). So the few protobuf
fields that say so are read here: operators, and the constants with their shapes. Values are not decoded and
the graph is not checked for sense: loading it does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_GRAPHS = (6, 11)  # a subgraph and a list of them: the bodies of loops and branches
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 13, 14
_BYTES_OF_TYPE = {
    1: 4,
    2: 1,
    3: 1,
    6: 4,
    7: 8,
    10: 2,
    11: 8,
}  # onnx.TensorProto.DataType: float, uint8, int8, ...


@dataclass(frozen=True)
class Constant:
    """A tensor stored in the graph."""

    name: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class GraphContents:
    """What a graph is made of."""

    operators: frozenset[tuple[str, str]]  # (domain, operator)
    constants: tuple[Constant, ...]
    external: bool  # some constant's values lie in another file
    nested: bool  # holds subgraphs or functions


def read_graph(data: bytes) -> GraphContents:
    """Return what the ONNX model in `data` is made of. Raises `ValueError` where it is not one, or is cut
    short."""
    operators: set[tuple[str, str]] = set()
    constants: list[Constant] = []
    external = nested = False
    graphs = 0
    view = memoryview(data)
    for field, value in _fields(view):
        if field == _MODEL_FUNCTIONS:
            nested = True
        if field != _MODEL_GRAPH:
            continue
        graphs += 1
        for part, content in _fields(_message(value)):
            if part == _GRAPH_NODE:
                domain, operator, has_body = _node(_message(content))
                operators.add((domain, operator))
                nested = nested or has_body
            elif part == _GRAPH_INITIALIZER:
                constant, elsewhere = _tensor(_message(content))
                constants.append(constant)
                external = external or elsewhere
            elif part == _GRAPH_SPARSE_INITIALIZER:
                nested = True
    if graphs != 1:
        raise ValueError("no graph in it")
    return GraphContents(frozenset(operators), tuple(constants), external, nested)


def _node(data: memoryview) -> tuple[str, str, bool]:
    domain = operator = ""
    has_body = False
    for field, value in _fields(data):
        if field == _NODE_OPERATOR:
            operator = _text(value)
        elif field == _NODE_DOMAIN:
            domain = _text(value)
        elif field == _NODE_ATTRIBUTE:
            # A tensor in an attribute could be external too; our graphs keep all of theirs as constants.
            has_body = has_body or any(part in (*_ATTRIBUTE_GRAPHS, 5, 10) for part, _ in _fields(_message(value)))
    return domain, operator, has_body


def _tensor(data: memoryview) -> tuple[Constant, bool]:
    shape: list[int] = []
    name, element, elsewhere = "", 0, False
    for field, value in _fields(data):
        if field == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else list(_packed(value))
        elif field == _TENSOR_TYPE and isinstance(value, int):
            element = _BYTES_OF_TYPE.get(value, 0)
        elif field == _TENSOR_NAME:
            name = _text(value)
        elif field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0):
            elsewhere = True
    size = element
    for extent in shape:
        size *= extent
    return Constant(name, tuple(shape), size), elsewhere


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
