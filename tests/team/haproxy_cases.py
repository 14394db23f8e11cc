"""A server for a team, in miniature: HAProxy before four servers, three typists, one server killed under them.

`make test-team` runs it, for it needs HAProxy. Every connection has a process to itself (`maxconn 1`), and one is to
spare. A typist whose connection is lost connects again, opens the document as it stands in the editor, and types on:
the editor owns the text, so nothing is lost, and what is suggested shows that the new server has every character.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_WORD

from lsp_charrnn.server.transport import Framing

ROOT = Path(__file__).resolve().parent.parent.parent
HAPROXY = Path(os.environ.get("HAPROXY", ROOT / "build" / "team" / "haproxy"))
BACKENDS, TYPISTS, LINES = 4, 3, 6
PATIENCE = 60.0  # seconds until what must happen is given up
TOKEN = "a-token-of-this-test-alone"

CONFIGURATION = """
defaults
  mode tcp
  timeout connect 2s
  timeout queue 30s
  timeout client 1h
  timeout server 1h
  option redispatch
  retries 3

listen completion
  bind 127.0.0.1:{port}
  balance leastconn
  option tcp-check
  default-server check inter 200ms fall 1 rise 1 maxconn 1 on-marked-down shutdown-sessions
{servers}
"""


class DisconnectedError(Exception):
    """The connection was lost: the editor connects again."""


class Typist:
    """An editor with one document, which it alone owns. It reconnects as editors do: open what is open, and go on."""

    def __init__(self, name: str, port: int, model: Path) -> None:
        self.uri, self.port, self.model = f"file:///team/{name}.py", port, model
        self.text, self.version = "", 0
        self.connections = 0
        self._ids = 0
        self._framing = Framing()
        self._bodies: list[bytes] = []
        self._writer: asyncio.StreamWriter | None = None

    async def type(self, characters: str) -> list[str]:
        """Type; return what was suggested after each character."""
        return [await self.key(character) for character in characters]

    async def key(self, character: str) -> str:
        """Put in one character, and return the suggestion; after a lost connection, from the next server."""
        before, self.text = self._end(), self.text + character
        self.version += 1
        change = {"range": {"start": before, "end": before}, "text": character}
        try:
            if self._writer is None:
                raise DisconnectedError
            await self._send(
                "textDocument/didChange",
                {"textDocument": {"uri": self.uri, "version": self.version}, "contentChanges": [change]},
            )
            return await self._suggestion()
        except (DisconnectedError, OSError):
            await self._connect()
            return await self._suggestion()

    async def close(self) -> None:
        """Leave."""
        if self._writer is not None:
            self._writer.close()

    async def _suggestion(self) -> str:
        params = {"textDocument": {"uri": self.uri}, "position": self._end(), "context": {"triggerKind": 2}}
        answer = await self._ask("textDocument/inlineCompletion", params)
        items = answer["items"] if isinstance(answer, dict) else answer or []
        return str(items[0]["insertText"]) if items else ""

    async def _connect(self) -> None:
        for _ in range(int(PATIENCE / 0.2)):
            try:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
                self._framing, self._bodies = Framing(), []
                options = {
                    "model": str(self.model),
                    "token": TOKEN,
                    "decode": {"budgetMs": 10_000},
                    "memory": {"document": False, "project": False},  # what is suggested is the model's alone
                }
                await self._ask(
                    "initialize",
                    {
                        "processId": None,
                        "rootUri": None,
                        "capabilities": {
                            "general": {"positionEncodings": ["utf-16"]},
                            "textDocument": {"inlineCompletion": {}},
                        },
                        "initializationOptions": options,
                    },
                )
                await self._send("initialized", {})
                item = {"uri": self.uri, "languageId": "python", "version": self.version, "text": self.text}
                await self._send("textDocument/didOpen", {"textDocument": item})
            except (DisconnectedError, OSError):
                await asyncio.sleep(0.2)
            else:
                self.connections += 1
                return
        pytest.fail("no server took the connection")

    async def _ask(self, method: str, params: Any) -> Any:
        self._ids += 1
        await self._send(method, params, self._ids)
        while True:
            message = json.loads(await self._next())
            if message.get("id") == self._ids and "method" not in message:
                assert "error" not in message, message
                return message["result"]
            if "id" in message and "method" in message:
                await self._write({"id": message["id"], "result": None})

    async def _send(self, method: str, params: Any, number: int | None = None) -> None:
        await self._write({"method": method, "params": params, **({} if number is None else {"id": number})})

    async def _write(self, message: dict[str, Any]) -> None:
        assert self._writer is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await self._writer.drain()

    async def _next(self) -> bytes:
        while not self._bodies:
            try:
                data = await asyncio.wait_for(self._reader.read(1 << 16), PATIENCE)
            except asyncio.TimeoutError:  # an OSError since Python 3.11
                pytest.fail(f"the server of {self.uri} is silent")
            if not data:
                raise DisconnectedError
            self._bodies += self._framing.feed(data)
        return self._bodies.pop(0)

    def _end(self) -> dict[str, int]:
        return {"line": self.text.count("\n"), "character": len(self.text.rpartition("\n")[2])}


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def listening(port: int) -> None:
    for _ in range(int(PATIENCE / 0.1)):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    pytest.fail(f"nothing listens on port {port}")


@asynccontextmanager
async def team(directory: Path) -> AsyncIterator[tuple[int, dict[int, asyncio.subprocess.Process]]]:
    """Start four servers and HAProxy before them; give its port, and the servers by theirs."""
    port, *ports = free_ports(1 + BACKENDS)
    servers: dict[int, asyncio.subprocess.Process] = {}
    balancer = None
    try:
        for own in ports:
            command = [sys.executable, "-m", "lsp_charrnn", "serve", "--tcp", f"127.0.0.1:{own}"]
            servers[own] = await asyncio.create_subprocess_exec(
                *command, "--cache", str(directory / f"cache-{own}"), env={**os.environ, "LSP_CHARRNN_TOKEN": TOKEN}
            )
        for own in ports:
            await listening(own)
        lines = "\n".join(f"  server s{own} 127.0.0.1:{own}" for own in ports)
        file = directory / "haproxy.cfg"
        file.write_text(CONFIGURATION.format(port=port, servers=lines), "utf-8")
        balancer = await asyncio.create_subprocess_exec(str(HAPROXY), "-db", "-f", str(file))
        await listening(port)
        yield port, servers
    finally:
        for process in [*servers.values(), *([balancer] if balancer is not None else [])]:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()


def connections() -> set[tuple[str, str]]:
    """Return the established connections of this machine, by their two ends in hexadecimal."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {(row[1], row[2]) for row in rows if row[3] == "01"}


async def in_use(ports: Iterable[int]) -> list[int]:
    """Return the servers' ports that have a client: a connection that stays, as one of HAProxy's checks does not."""
    first = connections()
    await asyncio.sleep(0.5)
    ends = {end.rpartition(":")[2] for end, _ in first & connections()}
    return [port for port in ports if f"{port:04X}" in ends]


@pytest.mark.asyncio
async def test_one_server_is_killed_under_three_typists(tiny_model: Path, tmp_path: Path) -> None:
    assert HAPROXY.exists(), "run `make test-team`, or name a HAProxy in HAPROXY"
    async with team(tmp_path) as (port, servers):
        typists = [Typist(f"file{number}", port, tiny_model) for number in range(TYPISTS)]
        for line in range(LINES):
            head = f"v{line} = "  # a line is not suggested again below itself
            await asyncio.gather(*(typist.type(head) for typist in typists))
            if line == LINES // 2:  # in the midst of a word
                halves = [await typist.type(TINY_WORD[:3]) for typist in typists]
                used = await in_use(servers)
                assert len(used) == TYPISTS, "a process for each connection, and one to spare"
                victim = used[0]
                servers[victim].send_signal(signal.SIGKILL)
                await servers[victim].wait()
                rests = await asyncio.gather(*(typist.type(TINY_WORD[3:]) for typist in typists))
                shown = [half + rest for half, rest in zip(halves, rests, strict=True)]
            else:
                shown = await asyncio.gather(*(typist.type(TINY_WORD) for typist in typists))
            for suggestions in shown:
                # Within the word, the rest of it: a character too few or too many, and the model would be lost.
                assert suggestions[:6] == ["quartz(x)"] * 6, (line, suggestions)
        assert [typist.text for typist in typists] == [
            "".join(f"v{line} = {TINY_WORD}" for line in range(LINES))
        ] * TYPISTS
        assert sorted(typist.connections for typist in typists) == [1] * (TYPISTS - 1) + [2]
        assert sum(server.returncode is not None for server in servers.values()) == 1
        for typist in typists:
            await typist.close()
