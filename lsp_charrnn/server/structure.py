"""How a client's JSON becomes LSP's types, where lsprotocol would make something else of it, or nothing.

- A text is a string: `null` and numbers are refused (cattrs would write "None" and "5" into the document).
- Any whole number is a position: what lies before the text or behind it is moved to its ends, as clients mean it that
  replace "all" up to line 4,294,967,295. (lsprotocol refuses what is no `uinteger`, and so the whole change, after
  which the text would be another one than the client's.)
- What nothing here uses, and clients send wrongly, is not looked at: `rangeLength`, a version that is null.
- The first mistake ends the reading. (cattrs would collect them, each with its traceback: gigabytes, for a long list.)
"""

from __future__ import annotations

import functools
from typing import Any, Final, Union

from cattrs import ClassValidationError, Converter, transform_error
from lsprotocol import converters, types

_LAST: Final = 2**31 - 1  # the largest `uinteger`


@functools.cache
def converter() -> Converter:
    """Return the converter of all clients: made once, for it generates code for each type."""
    return _with_hooks(Converter(detailed_validation=False))


@functools.cache
def _telling() -> Converter:
    return _with_hooks(Converter())


def mistakes(data: Any, cls: Any) -> str:
    """Return what is wrong with JSON data that is no `cls`, in words; "" if that can't be told."""
    try:
        _telling().structure(data, cls)
    except ClassValidationError as error:
        return "; ".join(transform_error(error)).replace("$.params.", "")
    except Exception:  # whatever it was, there is an answer without it
        return ""
    return ""


def _with_hooks(made: Converter) -> Converter:
    converters.get_converter(made)

    made.register_structure_hook(str, _text)
    made.register_structure_hook(types.Position, position)
    # As the attributes of LSP's types name it: with its forward references resolved.
    made.register_structure_hook(
        Union[types.TextDocumentContentChangePartial, types.TextDocumentContentChangeWholeDocument],  # noqa: UP007
        content_change,
    )
    made.register_structure_hook(types.VersionedTextDocumentIdentifier, _versioned)
    made.register_structure_hook(types.TextDocumentItem, _item)
    return made


def _text(data: Any, _: Any = None) -> str:
    if not isinstance(data, str):
        raise TypeError(f"{type(data).__name__} instead of a string")
    return data


def content_change(data: Any, _: Any = None) -> types.TextDocumentContentChangeEvent:
    """Return a change of a text. Raises if it isn't one."""
    text, span = _text(data["text"]), data.get("range")
    if span is None:
        return types.TextDocumentContentChangeWholeDocument(text)
    return types.TextDocumentContentChangePartial(types.Range(position(span["start"]), position(span["end"])), text)


def position(data: Any, _: Any = None) -> types.Position:
    """Return a position; one outside of any text is moved to its start or end. Raises if it isn't one."""
    line, character = (_whole(data[name]) for name in ("line", "character"))
    return types.Position(0, 0) if line < 0 else types.Position(min(line, _LAST), min(max(character, 0), _LAST))


def _whole(data: Any) -> int:
    if isinstance(data, float) and data.is_integer():
        return int(data)
    if isinstance(data, bool) or not isinstance(data, int):
        raise TypeError(f"{type(data).__name__} instead of a whole number")
    return data


def _versioned(data: Any, _: Any) -> types.VersionedTextDocumentIdentifier:
    return types.VersionedTextDocumentIdentifier(_version(data.get("version")), _text(data["uri"]))


def _item(data: Any, _: Any) -> types.TextDocumentItem:
    language = _text(data["languageId"])
    return types.TextDocumentItem(_text(data["uri"]), language, _version(data.get("version")), _text(data["text"]))


def _version(data: Any) -> int:
    """Return a version: 0 for what is none (older clients may send null), or would be no `integer`."""
    return data if isinstance(data, int) and not isinstance(data, bool) and abs(data) <= _LAST else 0
