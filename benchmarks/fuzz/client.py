"""The real server as a process, and connections to it that send any bytes at all and wait for nothing but time.

No library that speaks LSP: it would refuse to send what is to be sent. What comes back is read by a thread, so that a
server never waits for this client; unless that is what is tried.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

PATIENCE: Final = 120.0  # seconds for anything: far more than it takes on a busy machine
DIGEST: Final = "lspCharrnn/digest"
STATUS: Final = "lspCharrnn.status"
COMPLETION: Final = "textDocument/inlineCompletion"
INTERNAL_ERROR: Final = -32603

_BUG: Final = re.compile(r" failed: |Traceback|Error: |Exception in ")  # in a line of the server's log


class HangError(Exception):
    """The server did not do in time what it must."""


def framed(body: bytes) -> bytes:
    """Return the message `body` with its header."""
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def encoded(message: Json) -> bytes:
    """Return a message as it goes over the wire."""
    return framed(json.dumps({"jsonrpc": "2.0", **message}).encode("ascii"))


class Connection(ABC):
    """One client: what it has sent is up to its caller; what came back is kept by id."""

    def __init__(self) -> None:
        self.answers: dict[Any, Json] = {}
        self.answered = 0  # in all
        self.received: deque[Json] = deque(maxlen=10_000)  # the last answers of all, also those whose id is null
        self.errors: list[str] = []  # internal errors, and what is no LSP
        self.shown: list[str] = []
        self.encoding = "utf-16"
        self._ids = 0
        self._changed = threading.Condition()
        self._closed = False
        self._paused = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    # What the two kinds do otherwise.
    @abstractmethod
    def _take(self) -> bytes:
        """Wait for bytes; return none at the end."""

    @abstractmethod
    def send(self, data: bytes, patience: float = PATIENCE) -> bool:
        """Send bytes; return False if the server has closed the connection. Raises `HangError`."""

    @abstractmethod
    def hang_up(self) -> None:
        """Close the connection, whatever has been sent, and what has not."""

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection."""
        return self._closed

    def pause_reading(self, pause: bool) -> None:
        """Read no more of what the server writes, or go on."""
        if pause:
            self._paused.set()
        else:
            self._paused.clear()

    def post(self, *messages: Json) -> bool:
        """Send messages together."""
        return self.send(b"".join(map(encoded, messages)))

    def request(self, method: str, params: Any) -> Json:
        """Return a request with an id of its own, not sent yet."""
        self._ids += 1
        return {"id": f"own-{self._ids}", "method": method, "params": params}

    def ask(self, method: str, params: Any, patience: float = PATIENCE) -> Json:
        """Send a request and return the whole answer. Raises `HangError`, also if the connection is closed."""
        request = self.request(method, params)
        self.post(request)
        self.wait_for([request["id"]], patience)
        return self.answers.pop(request["id"])

    def wait_for(self, ids: Iterable[Any], patience: float = PATIENCE) -> None:
        """Wait until all of these have been answered. Raises `HangError`."""
        wanted = list(ids)
        end = time.monotonic() + patience
        with self._changed:
            while not all(one in self.answers for one in wanted):
                missing = [one for one in wanted if one not in self.answers]
                if self._closed:
                    raise HangError(f"the server closed the connection with {len(missing)} requests unanswered")
                if not self._changed.wait(end - time.monotonic()) and time.monotonic() >= end:
                    raise HangError(f"{len(missing)} requests unanswered after {patience:.0f} s, as {missing[0]!r:.80}")

    def wait_closed(self, patience: float = PATIENCE) -> None:
        """Wait until the server has closed the connection. Raises `HangError`."""
        self._reader.join(patience)
        if self._reader.is_alive():
            raise HangError(f"the server did not close the connection within {patience:.0f} s")

    def initialize(self, encoding: str = "utf-16", root: Path | None = None, **options: Any) -> Json:
        """Begin as a client must; return what the server can do."""
        folder = None if root is None else [{"uri": root.as_uri(), "name": root.name}]
        answer = self.ask(
            "initialize",
            {
                "processId": None,
                "rootUri": None,
                "workspaceFolders": folder,
                "capabilities": {
                    "general": {"positionEncodings": [encoding]},
                    "textDocument": {"inlineCompletion": {}},
                },
                "initializationOptions": options,
            },
        )
        self.post({"method": "initialized", "params": {}})
        found: Json = answer["result"]["capabilities"]
        self.encoding = found["positionEncoding"]
        return found

    def digest(self, uri: str) -> Json | None:
        """Return bytes and SHA-256 of the server's text of a document, None if it is not open there."""
        answer = self.ask(DIGEST, {"textDocument": {"uri": uri}})
        if "error" in answer:
            self.errors.append(f"no digest of {uri}: {answer['error']['message']}")
            return None
        found: Json | None = answer["result"]
        return found

    def _read(self) -> None:
        buffer = bytearray()
        with suppress(OSError, ValueError):
            while data := self._take():
                while self._paused.is_set():
                    time.sleep(0.01)
                buffer += data
                while (message := _next(buffer)) is not None:
                    self._keep(message)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _keep(self, body: bytes) -> None:
        try:
            message = json.loads(body, parse_constant=_no_json)
        except ValueError:
            self.errors.append(f"an answer is not JSON: {body[:200]!r}")
            return
        if "method" in message:
            if "id" in message:
                self.send(encoded({"id": message["id"], "result": None}))
            elif message["method"] == "window/showMessage":
                self.shown.append(message["params"]["message"])
            return
        error = message.get("error")
        if error is not None and error["code"] == INTERNAL_ERROR:
            self.errors.append(f"answered with an internal error: {error['message']:.300}")
        with self._changed:
            self.answered += 1
            self.received.append(message)
            if message["id"] is not None and not isinstance(message["id"], (str, int)):
                self.errors.append(f"answered to the id {message['id']!r:.80}, which is none")
            elif message["id"] is not None:
                self.answers[message["id"]] = message
            self._changed.notify_all()

    def forget(self) -> None:
        """Forget the answers so far."""
        with self._changed:
            self.answers.clear()


def _next(buffer: bytearray) -> bytes | None:
    """Cut the first whole message off."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = int(buffer[:end].split(b"\r\n")[0].split(b":")[1])
    if len(buffer) < end + 4 + length:
        return None
    body = bytes(buffer[end + 4 : end + 4 + length])
    del buffer[: end + 4 + length]
    return body


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


class Process:
    """A server, its log and its memory."""

    def __init__(self, command: Sequence[str], *, directory: Path, model: Path | None, stdio: bool) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(directory)}
        if model is not None:
            environment["LSP_CHARRNN_MODELS"] = str(model.parent)
        pipe = subprocess.PIPE if stdio else subprocess.DEVNULL
        self.process = subprocess.Popen(
            list(command),
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=directory,
        )
        self.log: Counter[str] = Counter()  # lines, without their time
        self.first_line = ""
        self._began = threading.Event()
        self._logging = threading.Thread(target=self._read_log, daemon=True)
        self._logging.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def bugs(self) -> list[str]:
        """Return the lines of the log that tell of a bug, each once."""
        return [line for line in self.log if _BUG.search(line)]

    def descriptors(self) -> int:
        """Return how many files the server has open; 0 where the system does not tell."""
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208
        except OSError:
            return 0

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for the end and return the exit code. Raises `HangError`."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise HangError(f"the server did not end within {patience:.0f} s") from None
        self._logging.join(patience)
        return code

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._logging.join(PATIENCE)

    def wait_first_line(self) -> str:
        """Wait for the first line of the log, and return it. Raises `HangError`."""
        if not self._began.wait(PATIENCE):
            raise HangError("the server did not say that it listens")
        return self.first_line

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for raw in stream:
                line = raw.decode("utf-8", errors="replace").rstrip()
                self.first_line = self.first_line or line
                self._began.set()
                line = re.sub(r"^[-\d]+ [:,\d]+ ", "", line)[:400]
                if line in self.log or len(self.log) < 10_000:
                    self.log[line] += 1
        self._began.set()


class StdioConnection(Connection):
    """A server of its own, over its standard input and output."""

    def __init__(self, *, directory: Path, model: Path | None = None, command: Sequence[str] = ()) -> None:
        super().__init__()
        self.server = Process(command or _serve(directory), directory=directory, model=model, stdio=True)
        assert self.server.process.stdin is not None
        assert self.server.process.stdout is not None
        self._in = self.server.process.stdin.fileno()
        self._out = self.server.process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._sending = threading.Lock()
        self._reader.start()

    def _take(self) -> bytes:
        return os.read(self._out, 1 << 16)

    def send(self, data: bytes, patience: float = PATIENCE) -> bool:
        """Send bytes; return False if the server has closed the connection. Raises `HangError`."""
        rest = memoryview(data)
        with self._sending, selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_WRITE)
            while rest:
                if not selector.select(patience):
                    raise HangError(f"the server did not read for {patience:.0f} s")
                try:
                    rest = rest[os.write(self._in, rest) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    return False
        return True

    def hang_up(self) -> None:
        """Close the server's input."""
        assert self.server.process.stdin is not None
        with suppress(OSError):
            self.server.process.stdin.close()


class TcpConnection(Connection):
    """One of several clients of a server that listens on a port."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.settimeout(None)
        self._sending = threading.Lock()
        self._reader.start()

    def _take(self) -> bytes:
        return self._socket.recv(1 << 16)

    def send(self, data: bytes, patience: float = PATIENCE) -> bool:
        """Send bytes; return False if the server has closed the connection. Raises `HangError`."""
        rest = memoryview(data)
        with self._sending, selectors.DefaultSelector() as selector:
            try:
                selector.register(self._socket, selectors.EVENT_WRITE)
                while rest:
                    if not selector.select(patience):
                        raise HangError(f"the server did not read for {patience:.0f} s")
                    with suppress(BlockingIOError):
                        rest = rest[self._socket.send(rest, socket.MSG_DONTWAIT) :]
            except (OSError, ValueError):  # closed, by the server or here
                return False
        return True

    def hang_up(self, how: int = socket.SHUT_RDWR) -> None:
        """Close the connection."""
        with suppress(OSError):
            self._socket.shutdown(how)
        self._reader.join(PATIENCE)
        self._socket.close()

    def reset(self) -> None:
        """Close with a reset instead of an end, as when a process dies with bytes unread."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up(socket.SHUT_RD)


def listening(directory: Path, model: Path | None = None) -> tuple[Process, int]:
    """Start a server on a TCP port of its choice; return both. Raises `HangError`."""
    # Without a token, which would let nothing malformed through to the protocol.
    command = (*_serve(directory), "--tcp", "127.0.0.1:0", "--no-token")
    server = Process(command, directory=directory, model=model, stdio=False)
    found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)", server.wait_first_line())
    if found is None:
        server.kill()
        raise HangError(f"the server does not listen: {server.first_line}")
    return server, int(found[1])


def _serve(directory: Path) -> Sequence[str]:
    return sys.executable, "-m", "lsp_charrnn", "serve", "--cache", str(directory / "cache")
