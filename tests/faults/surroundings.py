"""The real server as a process, in surroundings that a test makes hard for it; and a client of a few lines.

It blocks, and knows no more of LSP than these tests need. Paths are bytes: they may be no text in any encoding.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from lsp_charrnn.server.transport import Framing

SERVE = (sys.executable, "-m", "lsp_charrnn", "serve")
PATIENCE = 60.0  # seconds until what must happen is given up: far more than it takes

Json = dict[str, Any]


def uri(path: Path | str | bytes) -> str:
    return "file://" + quote_from_bytes(os.fsencode(path))


class Client:
    """Speaks to one server."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.messages: list[Json] = []  # shown to the user
        self._log = log
        self._framing = Framing()
        self._ids = 0
        self._versions: dict[str, int] = {}

    def send(self, method: str, params: Any, **more: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def ask(self, method: str, params: Any) -> Any:
        """Return the result, or raise `RuntimeError` with the error."""
        self._ids += 1
        self.send(method, params, id=self._ids)
        assert self.process.stdout is not None
        while True:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise ConnectionError(f"the server is gone; it said: {self.log}")
            answer = None
            for message in map(json.loads, self._framing.feed(data)):
                if message.get("method") == "window/showMessage":
                    self.messages.append(message["params"])
                elif "method" not in message and message["id"] == self._ids:
                    answer = message
            if answer is not None:
                if "error" in answer:
                    raise RuntimeError(answer["error"]["message"])
                return answer["result"]

    def initialize(self, root: Path | bytes, settings: Mapping[str, Any] | None = None) -> None:
        self.ask(
            "initialize",
            {
                "processId": None,
                "rootUri": None,
                "workspaceFolders": [{"uri": uri(root), "name": "project"}],
                "capabilities": {"textDocument": {"inlineCompletion": {}}},
                "initializationOptions": {"decode.budgetMs": 5000, **(settings or {})},
            },
        )
        self.send("initialized", {})

    def open(self, path: Path | bytes, text: str) -> None:
        self._versions[uri(path)] = 1
        item = {"uri": uri(path), "languageId": "python", "version": 1, "text": text}
        self.send("textDocument/didOpen", {"textDocument": item})

    def type(self, path: Path | bytes, line: int, character: int, text: str) -> None:
        place = {"line": line, "character": character}
        self._versions[uri(path)] += 1
        self.send(
            "textDocument/didChange",
            {
                "textDocument": {"uri": uri(path), "version": self._versions[uri(path)]},
                "contentChanges": [{"range": {"start": place, "end": place}, "text": text}],
            },
        )

    def ghost(self, path: Path | bytes, line: int, character: int) -> str | None:
        """Return the suggestion at a place."""
        place = {"line": line, "character": character}
        params = {"textDocument": {"uri": uri(path)}, "position": place, "context": {"triggerKind": 2}}
        items = self.ask("textDocument/inlineCompletion", params)["items"]
        return items[0]["insertText"] if items else None

    def status(self) -> Any:
        return self.ask("workspace/executeCommand", {"command": "lspCharrnn.status", "arguments": []})

    def project(self) -> Json:
        """Return what the server says of the one project, once its files are known."""
        return self.until(lambda: next((one for one in self.status()["projects"] if one["ready"]), None))

    def until(self, found: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (value := found()):
            assert time.monotonic() < end, f"it does not come true; the server said: {self.log}"
            time.sleep(0.02)
        return value

    def leave(self) -> int:
        """Say goodbye, and return the server's exit code."""
        self.ask("shutdown", None)
        self.send("exit", None)
        return self.process.wait(PATIENCE)

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")


@contextmanager
def serving(
    model: Path,
    scratch: Path,
    *,
    command: Sequence[str] = SERVE,
    before: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    limit: Callable[[], None] | None = None,
) -> Iterator[Client]:
    """Start the server, its cache in `scratch`, and kill it in the end if it still lives.

    `before` is a command that starts it, `limit` is called in its process before it begins.
    """
    log = scratch / "server.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*before, *command, "--cache", str(scratch / "cache")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, "LSP_CHARRNN_MODELS": str(model.parent), "OMP_NUM_THREADS": "1", **(environment or {})},
            preexec_fn=limit,
        )
    try:
        yield Client(process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
