"""The text in the server against the client's: random edits, and a client that opens, edits, garbles and closes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import lsp_charrnn.text.document as document_module
from benchmarks.fuzz.edits import Editing
from benchmarks.fuzz.oracle import ENCODINGS, ClientText, index_of, units_of
from lsp_charrnn.config import Settings
from lsp_charrnn.server.app import Server
from lsp_charrnn.server.documents import apply_changes
from lsp_charrnn.server.models import Models
from lsp_charrnn.server.structure import content_change
from lsp_charrnn.server.transport import Framing
from lsp_charrnn.server.worker import Worker
from lsp_charrnn.text.document import Document
from lsp_charrnn.text.positions import PositionEncoding

Json = dict[str, Any]


@pytest.mark.parametrize("chunk", [16, document_module.CHUNK])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_thousand_edits_give_the_clients_text(encoding: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_module, "CHUNK", chunk)
    randomly = random.Random(f"{encoding} {chunk}")
    one = Editing("file:///a.py", ClientText("import os\n" * 20, encoding), most=400)
    text = Document.from_text(one.text.text)
    for _ in range(100):
        changes = list(map(content_change, json.loads(json.dumps(one.changes(randomly, 10)))))
        before = text
        text, edits = apply_changes(before, changes, PositionEncoding(encoding))
        assert text.data.decode() == one.text.text
        assert before.apply(edits).data == text.data
    assert text.line_count == one.text.line_count


def test_worked_example_of_the_clients_text() -> None:
    text = ClientText("x\r\né😀y\n")
    assert (text.line_count, text.line(1)) == (3, "é😀y")
    assert (units_of("é😀y", "utf-8"), units_of("é😀y", "utf-16"), units_of("é😀y", "utf-32")) == (7, 4, 3)
    assert [index_of("é😀y", character, "utf-16") for character in range(6)] == [0, 1, 1, 2, 3, 3]
    text.change([{"range": _span(0, 1, 1, 0), "text": "\r"}])  # between the \r and the \n: before the \r
    assert text.text == "x\ré😀y\n"
    text.change([{"range": _span(1, 0, 1, 0), "text": "\n"}])
    assert (text.text, text.line_count) == ("x\r\né😀y\n", 3)
    text.change([{"range": _span(1, 2, 1, 9), "text": "\ud83d"}])  # within the emoji: before it
    assert text.text == "x\r\né?\n"
    assert text.digest() == (7, hashlib.sha256("x\r\né?\n".encode()).hexdigest())
    assert text.offset({"line": 1, "character": 1}) == 5


def _span(line: int, character: int, last_line: int, last_character: int) -> Json:
    ends = ((line, character), (last_line, last_character))
    start, end = ({"line": at, "character": index} for at, index in ends)
    return {"start": start, "end": end}


class CheckedSession:
    """Stands where the engine does, and sees that the edits it is told lead to the text it is given."""

    def __init__(self, models: Any, settings: Settings) -> None:
        self.texts: dict[str, Document] = {}

    def open(self, uri: str, document: Document, **_: Any) -> None:
        self.texts[uri] = document

    def edit(self, uri: str, document: Document, edits: Any) -> None:
        assert self.texts[uri].apply(edits).data == document.data
        self.texts[uri] = document

    def close(self, uri: str) -> None:
        self.texts.pop(uri, None)

    def advance(self, uri: str, *, cancelled: Any) -> None:
        pass

    read_around = advance


URIS = st.sampled_from(["file:///p/a.py", "file:///p/b.py", "untitled:1", "file://["])
MALFORMED = st.sampled_from(
    [
        {"text": None},
        {"text": 5},
        {"range": 5, "text": "x"},
        {"range": {"start": {"line": 0, "character": 0}}, "text": "x"},
        {"range": {"start": {"line": "0", "character": 0}, "end": {"line": 0, "character": 0}}, "text": "x"},
        {"range": {"start": {"line": 0.5, "character": 0}, "end": {"line": 0, "character": 0}}, "text": "x"},
        {},
        None,
        [],
    ]
)


class Client(RuleBasedStateMachine):
    """A client of the server around no engine; `known` is its text of each document that the server must know."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.answers: dict[Any, Json] = {}
        self.framing = Framing()
        self.worker = Worker()
        self.documents: dict[str, Editing] = {}
        self.lost: set[str] = set()
        self.randomly = random.Random(0)
        self.encoding = "utf-16"
        self.server = self.loop.run_until_complete(self._start())
        self.asked = 0

    async def _start(self) -> Server:
        server = Server(self.worker, Models(), make_session=CheckedSession)  # type: ignore[arg-type]
        server.protocol.set_writer(self)  # type: ignore[arg-type]
        return server

    def write(self, data: bytes) -> None:
        for body in self.framing.feed(data):
            message = json.loads(body)
            if "method" not in message:
                self.answers[message["id"]] = message

    def close(self) -> None:
        pass

    def teardown(self) -> None:
        async def stop() -> None:
            self.server.close()
            await asyncio.sleep(0)

        self.loop.run_until_complete(stop())
        assert self.worker.close()
        self.loop.close()

    def send(self, *messages: Json) -> None:
        async def receive() -> None:
            self.server.protocol.receive_all([json.dumps({"jsonrpc": "2.0", **one}).encode() for one in messages])
            for _ in range(3):
                await asyncio.sleep(0)

        self.loop.run_until_complete(receive())

    @rule(encoding=st.sampled_from(ENCODINGS))
    def begin(self, encoding: str) -> None:
        params = {"processId": None, "rootUri": None, "capabilities": {"general": {"positionEncodings": [encoding]}}}
        first = not self.server.protocol._initialized
        self.send({"id": "begin", "method": "initialize", "params": params}, {"method": "initialized", "params": {}})
        assert ("result" in self.answers.pop("begin")) is first
        if first:
            self.encoding = encoding

    @rule(uri=URIS, seed=st.integers(0, 999))
    def open(self, uri: str, seed: int) -> None:
        self.randomly.seed(seed)
        one = Editing(uri, ClientText("é\r\n😀 = 1\n", self.encoding), most=60)
        one.changes(self.randomly, seed % 4)
        self.send(one.opening())
        if self.server.protocol._initialized:
            self.documents[uri] = one
            self.lost.discard(uri)

    @rule(uri=URIS, seed=st.integers(0, 999), count=st.integers(0, 5))
    def edit(self, uri: str, seed: int, count: int) -> None:
        self.randomly.seed(seed)
        one = self.documents.get(uri) or Editing(uri, ClientText("", self.encoding), most=60)
        changes = one.changes(self.randomly, count)
        self.send(one.message(changes))
        if any("range" not in change for change in changes):
            self.lost.discard(uri)

    @rule(uri=URIS, text=st.text("ab\r\né😀", max_size=6))
    def replace(self, uri: str, text: str) -> None:
        one = self.documents.get(uri) or Editing(uri, ClientText("", self.encoding), most=60)
        self.send(one.message(one.whole(text)))
        self.lost.discard(uri)

    @rule(uri=URIS, change=MALFORMED)
    def garble(self, uri: str, change: Any) -> None:
        self.send({**Editing(uri, ClientText(""), most=0).message([change])})
        if uri in self.documents:
            self.lost.add(uri)

    @rule(uri=URIS)
    def forget(self, uri: str) -> None:
        self.send({"method": "textDocument/didClose", "params": {"textDocument": {"uri": uri}}})
        self.documents.pop(uri, None)
        self.lost.discard(uri)

    @invariant()
    def the_text_is_the_clients_or_not_known(self) -> None:
        if not self.server.protocol._initialized:
            return
        for uri in ("file:///p/a.py", "file:///p/b.py", "untitled:1", "file://["):
            self.asked += 1
            self.send({"id": self.asked, "method": "lspCharrnn/digest", "params": {"textDocument": {"uri": uri}}})
            found = self.answers.pop(self.asked)["result"]
            one = self.documents.get(uri)
            if one is None or uri in self.lost:
                assert found is None
            else:
                assert (found["bytes"], found["sha256"]) == one.text.digest()


def test_whatever_a_client_does_its_text_is_known_or_said_not_to_be() -> None:
    few = settings(max_examples=25, stateful_step_count=20, deadline=None)
    run_state_machine_as_test(Client, settings=few)  # type: ignore[no-untyped-call]
