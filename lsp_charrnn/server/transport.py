"""Bytes in and out: the framing of messages, and one connection each over stdio, TCP and WebSocket.

Whatever has arrived is handed on in one piece, so that a burst of keys is known to be one before the first of them
is worked on. What messages mean is left to `protocol`; who serves a connection, to `app`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lsp_charrnn.errors import UserError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

logger = logging.getLogger(__name__)

_READ: Final = 1 << 16
_MAX_HEADER: Final = 1 << 16  # bytes; a client that sends more speaks something else
_LENGTH: Final = re.compile(rb"^content-length:[ \t]*(\d+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class FramingError(UserError):
    """What the client sends is not LSP: there is no way to find its next message."""


class Framing:
    """Cuts a stream of bytes into message bodies: headers with Content-Length, an empty line, the body."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None  # of the body that is awaited; None: a header is

    def feed(self, data: bytes) -> list[bytes]:
        """Take more bytes; return the bodies that are complete now. Raises `FramingError`."""
        self._buffer += data
        bodies = []
        position = 0
        while True:
            if self._length is None:
                end = self._buffer.find(b"\r\n\r\n", position)
                if end < 0:
                    break
                found = _LENGTH.search(self._buffer[position:end])  # a slice: ^ stands for its start
                if found is None:
                    raise FramingError(_NOT_LSP)
                self._length = int(found[1])
                position = end + 4
            if len(self._buffer) - position < self._length:
                break
            bodies.append(bytes(self._buffer[position : position + self._length]))
            position += self._length
            self._length = None
        del self._buffer[:position]
        if self._length is None and len(self._buffer) > _MAX_HEADER:
            raise FramingError(_NOT_LSP)
        return bodies


_NOT_LSP: Final = "the client sends no LSP (a message without Content-Length): start it from an editor's LSP client."


class DescriptorWriter:
    """Writes to a file descriptor, at once; a client that is gone is noticed by its closed input, not here."""

    def __init__(self, sink: int) -> None:
        self._sink = sink
        self._gone = False

    def write(self, data: bytes) -> None:
        """Write a message, unless the client has gone."""
        rest = memoryview(data)
        try:
            while rest and not self._gone:
                rest = rest[os.write(self._sink, rest) :]
        except OSError:
            self._gone = True
            logger.info("the client no longer reads what the server writes")

    def close(self) -> None:
        """Write nothing more."""
        self._gone = True


def take_stdio() -> tuple[int, int]:
    """Return the descriptors to read from and to write to, and put others in their place.

    A library's `print` must not end up between two messages, and a subprocess must not read the client's.
    """
    source = os.dup(sys.stdin.fileno())
    sink = os.dup(sys.stdout.fileno())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, sys.stdin.fileno())
    os.close(null)
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return source, sink


def read_in_thread(
    source: int,
    loop: asyncio.AbstractEventLoop,
    receive: Callable[[list[bytes]], None],
    ended: Callable[[], None],
) -> None:
    """Start a thread that reads messages from a descriptor and hands them to `receive` on the event loop.

    A thread, because no event loop reads every kind of standard input on every platform. It is a daemon: it sleeps in
    a read that only the client can end. `ended` is called when the input has ended.
    """

    def read() -> None:
        framing = Framing()
        try:
            while data := os.read(source, _READ):
                bodies = framing.feed(data)
                if bodies:
                    loop.call_soon_threadsafe(receive, bodies)
        except FramingError as error:
            logger.error("%s", error)
        except OSError as error:
            logger.info("the input cannot be read any more: %s", error)
        except RuntimeError:
            return  # the loop is closed: the server is ending
        try:
            loop.call_soon_threadsafe(ended)
        except RuntimeError:
            return

    threading.Thread(target=read, name="stdin", daemon=True).start()


async def read_stream(
    reader: asyncio.StreamReader, receive: Callable[[list[bytes]], None], framing: Framing | None = None
) -> None:
    """Hand the messages of a TCP connection to `receive` until it ends; `framing` may have some of it already."""
    framing = Framing() if framing is None else framing
    try:
        while data := await reader.read(_READ):
            bodies = framing.feed(data)
            if bodies:
                receive(bodies)
    except FramingError as error:
        logger.error("%s", error)
    except OSError as error:
        logger.info("the connection was lost: %s", error)


class SocketWriter:
    """Writes to a TCP connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Queue a message, unless the client has gone."""
        if not self._writer.is_closing():
            self._writer.write(data)

    def close(self) -> None:
        """Close the connection once all is written."""
        self._writer.close()


class WebSocketWriter:
    """Writes to a WebSocket: a text frame for each message, in order, without headers."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._send())

    def write(self, data: bytes) -> None:
        """Queue a message. (pygls's own writer sends binary frames, which a browser gets as a Blob.)"""
        self._queue.put_nowait(data.decode("utf-8"))

    def close(self) -> None:
        """Write nothing more."""
        self._task.cancel()

    async def drain(self) -> None:
        """Wait until all that is queued has been sent, or the client has gone."""
        waiting = asyncio.ensure_future(self._queue.join())
        await asyncio.wait((waiting, self._task), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def _send(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                await self._socket.send(await self._queue.get())
                self._queue.task_done()
        except ConnectionClosed:
            logger.debug("the connection was closed while a message was being sent")


async def read_web_socket(socket: ServerConnection, receive: Callable[[list[bytes]], None]) -> None:
    """Hand the messages of a WebSocket to `receive` until it ends."""
    from websockets.exceptions import ConnectionClosed

    try:
        while True:
            receive([await socket.recv(decode=False)])
    except ConnectionClosed:
        logger.debug("the connection was closed")
