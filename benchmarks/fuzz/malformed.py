"""Messages that are wrong: valid ones with something changed in them, bytes that are no message, headers that are none.

What is wrong is drawn; what must come of it is told beside it: an answer, to whoever asked, or a closed connection.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.fuzz.client import framed
from benchmarks.fuzz.edits import HUGE, NEGATIVE

Json = dict[str, Any]

DEEP: Final = 100_000
STRINGS: Final = (
    *("", " ", "x", "\0", "\ud800", "\n", "é", "😀", "a" * 5000, "null", "-1", "None", "[]", "%", "..", "2.0"),
    *(
        "file://[",
        "file://[::1",
        "file:///a%00b.py",
        "file:///%ff%fe.py",
        "untitled:Untitled-1",
        "C:\\x\\y.py",
        "file:",
    ),
    *(
        "file:",
        "http://example.invalid/x.py",
        "file:///" + "d/" * 3000 + "x.py",
        "textDocument/didOpen",
        "utf-16",
        "python",
    ),
)
NUMBERS: Final = (0, 1, 2, -0.0, 0.5, 1e308, -1e308, 1e-320, *HUGE, *NEGATIVE, 10**400)
VALUES: Final[tuple[Any, ...]] = (None, True, False, [], {}, [[]], [None], {"": None}, {"a": {}}, [1, "a", None])
METHODS: Final = (
    *("foo", "", "$/", "$/unknown", "textDocument/", "textDocument/hover", "textDocument/formatting", "rpc.discover"),
    *("workspace/applyEdit", "window/showMessage", "client/registerCapability", "completionItem/resolve", "a" * 3000),
    *("__init__", "lsp_exit", "lspCharrnn/unknown", "\ud83d", "textDocument/didOpen\n", "TEXTDOCUMENT/DIDOPEN"),
)
# Never drawn as they are: they would end the session, or start a training.
_ENDING: Final = frozenset({"exit", "shutdown"})


@dataclass(frozen=True)
class Bad:
    """Bytes to send, and what must come of them."""

    kind: str
    data: bytes
    ids: tuple[Any, ...] = ()  # that must be answered
    closes: bool = False  # the server cannot go on


def valid_messages(uri: str) -> list[Json]:
    """Return a message of each kind that the server takes, about the document `uri`."""
    document = {"uri": uri}
    at = {"textDocument": document, "position": {"line": 0, "character": 3}}
    span = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 2}}
    item = {"uri": uri, "languageId": "python", "version": 1, "text": "import os\n"}
    changes = [{"range": span, "text": "é"}, {"text": "import sys\n"}]
    versioned = {"uri": uri, "version": 2}
    notifications: list[tuple[str, Any]] = [
        ("textDocument/didOpen", {"textDocument": item}),
        ("textDocument/didChange", {"textDocument": versioned, "contentChanges": changes}),
        ("textDocument/didChange", {"textDocument": versioned, "contentChanges": changes[:1]}),
        ("textDocument/didClose", {"textDocument": document}),
        ("textDocument/didSave", {"textDocument": document}),
        ("textDocument/willSave", {"textDocument": document, "reason": 1}),
        ("$/cancelRequest", {"id": "own-1"}),
        ("$/setTrace", {"value": "off"}),
        ("$/progress", {"token": 1, "value": {"kind": "end"}}),
        ("window/workDoneProgress/cancel", {"token": "t"}),
        ("initialized", {}),
        ("workspace/didChangeConfiguration", {"settings": {"lspCharrnn": {"decode": {"lanes": 4}}}}),
        ("workspace/didChangeWatchedFiles", {"changes": [{"uri": uri, "type": 2}]}),
        ("workspace/didCreateFiles", {"files": [{"uri": uri}]}),
        ("workspace/didDeleteFiles", {"files": [{"uri": uri}]}),
        ("workspace/didRenameFiles", {"files": [{"oldUri": uri, "newUri": uri + "x"}]}),
        ("notebookDocument/didOpen", {"notebookDocument": _notebook(uri), "cellTextDocuments": [item]}),
        ("notebookDocument/didClose", {"notebookDocument": document, "cellTextDocuments": [document]}),
    ]
    requests: list[tuple[str, Any]] = [
        ("textDocument/inlineCompletion", {**at, "context": {"triggerKind": 2}}),
        (
            "textDocument/inlineCompletion",
            {**at, "context": {"triggerKind": 1, "selectedCompletionInfo": {"range": span, "text": "im"}}},
        ),
        ("textDocument/completion", {**at, "context": {"triggerKind": 1}}),
        ("lspCharrnn/inside", {"textDocument": document, "range": span, "layer": 0, "neuron": 0, "signal": "h"}),
        ("lspCharrnn/digest", {"textDocument": document}),
        ("workspace/executeCommand", {"command": "lspCharrnn.status", "arguments": [uri]}),
        ("workspace/executeCommand", {"command": "lspCharrnn.accepted", "arguments": ["1"]}),
        ("workspace/executeCommand", {"command": "lspCharrnn.toggle", "arguments": ["rust"]}),
        ("workspace/executeCommand", {"command": "lspCharrnn.cancelTraining", "arguments": []}),
        ("workspace/executeCommand", {"command": "lspCharrnn.train", "arguments": ["refused"]}),
        ("textDocument/hover", at),
        ("initialize", {"processId": None, "rootUri": None, "capabilities": {}}),
    ]
    return [
        *({"jsonrpc": "2.0", "method": method, "params": params} for method, params in notifications),
        *({"jsonrpc": "2.0", "id": 0, "method": method, "params": params} for method, params in requests),
        {"jsonrpc": "2.0", "id": 0, "result": None},
        {"jsonrpc": "2.0", "id": 0, "error": {"code": -1, "message": "no"}},
    ]


def _notebook(uri: str) -> Json:
    return {"uri": uri + ".ipynb", "notebookType": "jupyter", "version": 1, "cells": [{"kind": 2, "document": uri}]}


class Malformed:
    """Draws what is wrong; `uris` are documents whose text may become anything."""

    def __init__(self, randomly: random.Random, uris: Sequence[str], prefix: str = "bad") -> None:
        self._randomly = randomly
        self._uris = uris
        self._prefix = prefix
        self._ids = 0
        self._kinds: tuple[tuple[float, Callable[[], Bad]], ...] = (
            (0.45, self._changed),
            (0.12, self._unknown),
            (0.10, self._out_of_order),
            (0.12, self._broken_json),
            (0.06, self._no_message),
            (0.15, self._garbled),
        )

    def message(self) -> Bad:
        """Return bytes that are framed as a message, and wrong otherwise: the server must go on."""
        kinds, weights = [kind for _, kind in self._kinds], [weight for weight, _ in self._kinds]
        return self._randomly.choices(kinds, weights)[0]()

    def framing(self) -> Bad:
        """Return bytes in which no message can be found: the server must close the connection, and only that."""
        pick = self._randomly.choice
        body = b'{"jsonrpc":"2.0","method":"foo"}'
        junk = self._randomly.randbytes(self._randomly.randint(1, 300)).replace(b"\r\n\r\n", b"")
        return Bad(
            "header",
            pick(
                (
                    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    b"\r\n\r\n",
                    b"Content-Length: -1\r\n\r\n" + body,
                    b"Content-Length: \r\n\r\n" + body,
                    b"Content-Length: 0x20\r\n\r\n" + body,
                    b"Content-Length: 3.5\r\n\r\n" + body,
                    b"Content-Length: 1e3\r\n\r\n" + body,
                    b"Content-Length: 10, 10\r\n\r\n" + body,
                    b"Content-Length = 10\r\n\r\n" + body,
                    b"Content-Length: " + b"9" * pick((12, 20, 100, 4301, 50_000)) + b"\r\n\r\n" + body,
                    "Content-Length: ３２\r\n\r\n".encode() + body,
                    "Content-Length: ³\r\n\r\n".encode() + body,
                    b"Content-Type: application/json\r\n\r\n" + body,
                    b"Content-Length\r\n\r\n" + body,
                    body + b"\r\n\r\n",
                    b"X" * 200_000,
                    b"Content-Length: 10\n\n" + b"x" * 200_000,
                    b"Content-Length: " + b" " * 150_000 + b"x\r\n\r\n",
                    b"\0" * 70_000 + b"\r\n\r\n",
                    junk + b"\r\n\r\n",
                )
            ),
            closes=True,
        )

    def _id(self) -> str:
        self._ids += 1
        return f"{self._prefix}-{self._ids}"

    def _valid(self) -> Json:
        message = copy.deepcopy(self._randomly.choice(valid_messages(self._randomly.choice(self._uris))))
        if "id" in message:
            message["id"] = self._id()
        return message

    def _changed(self) -> Bad:
        """A valid message with one value, or a few, put in place of others, or taken away."""
        message = self._valid()
        if self._randomly.random() < 0.1:  # a notification that wants an answer, a request that wants none
            if "id" in message:
                del message["id"]
            else:
                message["id"] = self._id()
        for _ in range(self._randomly.choice((1, 1, 1, 2, 5))):
            self._change(message)
        return self._bad("changed", message)

    def _change(self, message: Json) -> None:
        places = list(_places(message))
        if not places:
            return
        # Not the envelope each time: it is refused before anything else is looked at.
        inner = [place for place in places if place[0] is not message]
        holder, key = self._randomly.choice(inner if inner and self._randomly.random() < 0.85 else places)
        chance = self._randomly.random()
        if chance < 0.15:
            del holder[key]
        elif chance < 0.2:
            holder[key] = [holder[key]] * self._randomly.choice((1, 2, 300))
        elif chance < 0.25 and isinstance(holder, dict):
            holder[self._randomly.choice(STRINGS)] = self._value()
        else:
            holder[key] = self._value()

    def _value(self) -> Any:
        chance = self._randomly.random()
        if chance < 0.35:
            return self._randomly.choice(STRINGS)
        return copy.deepcopy(self._randomly.choice(NUMBERS if chance < 0.65 else VALUES))

    def _unknown(self) -> Bad:
        method = self._randomly.choice(METHODS)
        message = {"jsonrpc": "2.0", "method": method, "params": self._value()}
        if self._randomly.random() < 0.7:
            message["id"] = self._id()
        return self._bad("unknown", message)

    def _out_of_order(self) -> Bad:
        """Something well-formed at the wrong time, twice, or about nothing."""
        uri = self._randomly.choice((*self._uris, "file:///nowhere/closed.py", "file:///nowhere/é.py"))
        message = copy.deepcopy(self._randomly.choice(valid_messages(uri)))
        if "id" not in message:
            return Bad("out of order", framed(_json(message)) * self._randomly.choice((1, 2, 5)))
        message["id"] = self._id()
        return self._bad("out of order", message)

    def _broken_json(self) -> Bad:
        body = _json(self._valid())
        deep = self._randomly.choice((500, 900, 2000, DEEP))
        choices: tuple[Callable[[], bytes], ...] = (
            lambda: body[: self._randomly.randrange(len(body))],
            lambda: body + b"}",
            lambda: body + body,
            lambda: body.replace(b'"', b"'"),
            lambda: body.replace(b"{", b"{,", 1),
            lambda: b"[" * deep,
            lambda: b"[" * deep + b"]" * deep,
            lambda: b'{"a":' * deep + b"1" + b"}" * deep,
            lambda: body[:-1] + b',"extra":' + b'{"a":' * deep + b"1" + b"}" * deep + b"}",
            lambda: b'{"jsonrpc":"2.0","method":"foo","params":' + b"[" * deep + b"]" * deep + b"}",
            lambda: b'{"jsonrpc":"2.0","method":"foo","params":' + b'{"a":' * deep + b"1" + b"}" * deep + b"}",
            lambda: body[:-1] + b',"n":' + b"1" * 5000 + b"}",
            lambda: body[:-1] + b',"n":NaN,"m":-Infinity}',
            lambda: body[:-1] + b',"n":1e999}',
            lambda: b'{"jsonrpc":"2.0","id":NaN,"method":"foo"}',
            lambda: b'{"jsonrpc":"2.0","id":1e999,"method":"lspCharrnn/digest"}',
            lambda: body.replace(b'"2.0"', b'"2.0","jsonrpc":"2.0"'),
            lambda: b"\xef\xbb\xbf" + body,
            lambda: body.decode().encode("utf-16"),
            lambda: body.decode().encode("utf-32-be"),
            lambda: body[:-1] + b',"x":"\xff\xfe"}',
            lambda: body[:-1] + b',"x":"\xed\xa0\x80"}',
            lambda: body[:-1] + b',"x":"\n\t\0"}',
            lambda: b"",
            lambda: b" \r\n\t ",
            lambda: b"\0",
            lambda: b"null",
        )
        return Bad("json", framed(self._randomly.choice(choices)()))

    def _no_message(self) -> Bad:
        value = self._randomly.choice(
            (
                [],
                [self._valid(), self._valid()],
                "a",
                5,
                None,
                True,
                {},
                {"jsonrpc": "2.0"},
                {"jsonrpc": "1.0", "method": "foo"},
                {"jsonrpc": 2.0, "id": self._id(), "method": "foo"},
                {"jsonrpc": "2.0", "id": {}, "method": "foo"},
                {"jsonrpc": "2.0", "id": [1], "method": "textDocument/hover"},
                {"jsonrpc": "2.0", "id": None, "method": "textDocument/hover"},
                {"jsonrpc": "2.0", "id": True, "method": "lspCharrnn/digest"},
                {"jsonrpc": "2.0", "id": 1.5, "method": "lspCharrnn/digest"},
                {"jsonrpc": "2.0", "method": ["foo"], "id": self._id()},
                {"jsonrpc": "2.0", "method": {"a": 1}, "id": self._id()},
                {"jsonrpc": "2.0", "method": 5, "params": 7},
                {"jsonrpc": "2.0", "id": {}, "result": 1},
                {"jsonrpc": "2.0", "id": [], "error": {}},
                {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "x"}},
                {"jsonrpc": "2.0", "result": 1},
                {"jsonrpc": "2.0", "id": self._id(), "result": {"a": [1]}, "error": 5},
            )
        )
        return Bad("no message", framed(json.dumps(value).encode("ascii")))

    def _garbled(self) -> Bad:
        """The bytes of a valid body with some changed, in a header that fits."""
        body = bytearray(_json(self._valid()))
        for _ in range(self._randomly.choice((1, 1, 2, 3, 10))):
            at = self._randomly.randrange(len(body))
            chance = self._randomly.random()
            if chance < 0.4:
                body[at] = self._randomly.randrange(256)
            elif chance < 0.7:
                body[at:at] = self._randomly.choice((b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u", b"\xc3"))
            else:
                del body[at : at + self._randomly.randint(1, 5)]
        if any(f'"{method}"'.encode() in body for method in _ENDING):
            return self._garbled()
        return Bad("garbled", framed(bytes(body)))

    def _bad(self, kind: str, message: Json) -> Bad:
        """Return a message with what must come of it: a request is answered, whatever is wrong with it."""
        if str(message.get("method")) in _ENDING or _trains(message):
            return self.message()
        asked = message.get("id")
        is_request = isinstance(message.get("method"), str) and isinstance(asked, (str, int))
        is_request = is_request and not isinstance(asked, bool) and message.get("jsonrpc") == "2.0"
        return Bad(kind, framed(_json(message)), (asked,) if is_request else ())


def _trains(message: Json) -> bool:
    """Say whether a message might start a training: without arguments, or with those that it takes."""
    params = message.get("params")
    if not isinstance(params, dict) or params.get("command") != "lspCharrnn.train":
        return False
    arguments = params.get("arguments")
    return not (isinstance(arguments, list) and arguments and isinstance(arguments[0], (str, int)))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return (holder, key) of everything in a JSON value."""
    keys: Any = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


def _json(message: Json) -> bytes:
    return json.dumps(message).encode("ascii")
