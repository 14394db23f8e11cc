"""A client in the same process: bytes in, parsed messages out. And the parameters of requests, as plain JSON."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from fake_server import FakeSession

from lsp_charrnn.config import Settings
from lsp_charrnn.server.app import Server
from lsp_charrnn.server.models import Models
from lsp_charrnn.server.transport import Framing
from lsp_charrnn.server.worker import Worker

URI = "file:///project/src/a.py"
PATIENCE = 20.0  # seconds until what must happen is given up
INLINE = "textDocument/inlineCompletion"
COMPLETION = "textDocument/completion"

Json = dict[str, Any]

INLINE_CLIENT: Json = {"textDocument": {"inlineCompletion": {}}}


class Wire:
    """What is written to this client, and ways to send what it would."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.initialized: Json = {}
        self.notified: list[Json] = []
        self.asked: list[Json] = []
        self._answers: dict[Any, asyncio.Future[Json]] = {}
        self._framing = Framing()
        self._ids = 0
        self._versions: dict[str, int] = {}

    @property
    def session(self) -> FakeSession:
        return cast(FakeSession, self.server._session)

    def write(self, data: bytes) -> None:
        for body in self._framing.feed(data):
            message = json.loads(body)
            if "method" not in message:
                self.expect(message["id"]).set_result(message)
            elif "id" in message:
                self.asked.append(message)
            else:
                self.notified.append(message)

    def close(self) -> None:
        pass

    def expect(self, number: Any) -> asyncio.Future[Json]:
        if number not in self._answers:
            self._answers[number] = asyncio.get_running_loop().create_future()
        return self._answers[number]

    def receive(self, *messages: Json | bytes) -> None:
        """Send messages that arrive together."""
        self.server.protocol.receive_all(
            [m if isinstance(m, bytes) else json.dumps({"jsonrpc": "2.0", **m}).encode() for m in messages]
        )

    def request(self, method: str, params: Any) -> Json:
        """Make a request, not sent yet."""
        self._ids += 1
        return {"id": self._ids, "method": method, "params": params}

    async def answer(self, number: Any) -> Json:
        return await asyncio.wait_for(self.expect(number), 5)

    async def ask(self, method: str, params: Any) -> Any:
        """Send a request, and return its result."""
        response = await self.ask_whole(method, params)
        assert "error" not in response, response["error"]
        return response["result"]

    async def ask_whole(self, method: str, params: Any) -> Json:
        message = self.request(method, params)
        self.receive(message)
        return await self.answer(message["id"])

    def notify(self, method: str, params: Any) -> None:
        self.receive({"method": method, "params": params})

    def open(self, text: str, *, uri: str = URI, language: str = "python") -> None:
        self._versions[uri] = 1
        self.notify(
            "textDocument/didOpen",
            {"textDocument": {"uri": uri, "languageId": language, "version": 1, "text": text}},
        )

    def changed(self, *changes: Json, uri: str = URI) -> Json:
        """Make a didChange, not sent yet."""
        self._versions[uri] = self._versions.get(uri, 0) + 1
        return {
            "method": "textDocument/didChange",
            "params": {
                "textDocument": {"uri": uri, "version": self._versions[uri]},
                "contentChanges": list(changes),
            },
        }

    async def suggestions(self, line: int, character: int, *, uri: str = URI, invoked: bool = False) -> list[Json]:
        result = await self.ask(INLINE, at(line, character, uri=uri, invoked=invoked))
        return cast(list[Json], result["items"])

    async def settled(self) -> None:
        """Return when the server has done what it can do at once."""
        for _ in range(20):
            await asyncio.sleep(0.002)


async def eventually(true: Callable[[], bool]) -> None:
    """Return when what must happen has happened."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it does not come true"
        await asyncio.sleep(0.005)


def at(line: int, character: int, *, uri: str = URI, invoked: bool = False, **context: Any) -> Json:
    return {
        "textDocument": {"uri": uri},
        "position": {"line": line, "character": character},
        "context": {"triggerKind": 1 if invoked else 2, **context},
    }


def span(line: int, start: int, end: int) -> Json:
    return {"start": {"line": line, "character": start}, "end": {"line": line, "character": end}}


def insert(line: int, character: int, text: str) -> Json:
    return {"range": span(line, character, character), "text": text}


@asynccontextmanager
async def connected(
    capabilities: Json | None = None, *, settings: Settings | None = None, ready: bool = True, **params: Any
) -> AsyncIterator[Wire]:
    """Return a client of a server around the fake engine, initialized unless `ready` is False."""
    worker = Worker()
    server = Server(worker, Models(), defaults=settings, make_session=FakeSession)  # type: ignore[arg-type]
    wire = Wire(server)
    server.protocol.set_writer(wire)
    try:
        if ready:
            wire.initialized = await wire.ask(
                "initialize",
                {
                    "processId": None,
                    "rootUri": "file:///project",
                    "capabilities": INLINE_CLIENT if capabilities is None else capabilities,
                    **params,
                },
            )
            wire.notify("initialized", {})
        yield wire
    finally:
        server.close()
        assert worker.close()
