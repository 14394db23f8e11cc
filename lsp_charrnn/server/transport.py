"""Bytes in and out: the framing of messages, and one connection each over stdio, TCP and WebSocket.

Whatever has arrived is handed on in one piece, so that a burst of keys is known to be one before the first of them
is worked on. What messages mean is left to `protocol`; who serves a connection, to `app`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from lsp_charrnn.errors import NO_MEMORY, UserError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

logger = logging.getLogger(__name__)

_READ: Final = 1 << 16
_MAX_HEADER: Final = 1 << 16  # bytes; a client that sends more speaks something else
MAX_BODY: Final = 1 << 28  # bytes; a document may be large, and memory is not without end
_MOST_PENDING: Final = 1 << 26  # bytes of messages read and not worked on yet, after which a client must wait
_MOST_UNREAD: Final = 1 << 26  # bytes that a client has not read yet, after which it is given up
_GIVEN_UP: Final = "a client does not read what the server writes: it is given up."
_PIPE: Final[int] = getattr(select, "PIPE_BUF", 512)  # bytes that fit for sure into a pipe that says it has room
_EMPTY_LINE: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"^content-length:[ \t]*(\d+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class FramingError(UserError):
    """What the client sends is not LSP: there is no way to find its next message."""

    before: Sequence[bytes] = ()  # the bodies that were complete before that


class Framing:
    """Cuts a stream of bytes into message bodies: headers with Content-Length, an empty line, the body."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None  # of the body that is awaited; None: a header is

    def feed(self, data: bytes) -> list[bytes]:
        """Take more bytes; return the bodies that are complete now. Raises `FramingError`."""
        self._buffer += data
        bodies: list[bytes] = []
        try:
            self._cut(bodies)
        except FramingError as error:
            error.before = bodies
            raise
        return bodies

    def _cut(self, bodies: list[bytes]) -> None:
        position = 0
        while True:
            if self._length is None:
                end = self._buffer.find(_EMPTY_LINE, position)
                if end < 0:
                    break
                if end - position > _MAX_HEADER:
                    raise FramingError(_NOT_LSP)
                found = _LENGTH.search(self._buffer[position:end])  # a slice: ^ stands for its start
                if found is None:
                    raise FramingError(_NOT_LSP)
                self._length = _length_of(found[1])
                position = end + len(_EMPTY_LINE)
            if len(self._buffer) - position < self._length:
                break
            bodies.append(bytes(self._buffer[position : position + self._length]))
            position += self._length
            self._length = None
        del self._buffer[:position]
        # All but the last of the empty line may be there.
        if self._length is None and len(self._buffer) - len(_EMPTY_LINE) + 1 > _MAX_HEADER:
            raise FramingError(_NOT_LSP)


def _length_of(digits: bytes) -> int:
    digits = digits.lstrip(b"0") or b"0"
    # Python reads no number of more than 4,300 digits.
    if len(digits) > len(str(MAX_BODY)) or int(digits) > MAX_BODY:
        raise FramingError(
            f"the client sends a message of {digits[:20].decode()}{'…' if len(digits) > 20 else ''} bytes, "
            f"and {MAX_BODY} are the most that is taken: leave that document out."
        )
    return int(digits)


_NOT_LSP: Final = "the client sends no LSP (a message without Content-Length): start it from an editor's LSP client."


class DescriptorWriter:
    """Writes to a file descriptor: at once while there is room, else from a thread of its own.

    So a client that does not read makes nobody wait. One that leaves `_MOST_UNREAD` bytes unread is given up: `lost` is
    called. One that is gone is noticed by its closed input, not here.
    """

    def __init__(self, sink: int, lost: Callable[[], None] = lambda: None) -> None:
        self._sink = sink
        self._lost = lost
        self._poll = select.poll() if hasattr(select, "poll") else None  # where a system has none, it is waited for
        if self._poll is not None:
            self._poll.register(sink, select.POLLOUT)
        self._gone = False
        self._condition = threading.Condition()
        self._waiting: deque[bytes] = deque()  # for the thread; none is under way when it is empty
        self._unread = 0  # bytes of these
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> None:
        """Write a message, or queue it, unless the client has gone."""
        with self._condition:
            if self._gone:
                return
            if not self._waiting:
                data = self._write_what_fits(data)
            if not data:
                return
            self._waiting.append(data)
            self._unread += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_queued, name="stdout", daemon=True)
                self._thread.start()
            self._condition.notify_all()
            given_up = self._unread > _MOST_UNREAD
        if given_up:
            logger.error(_GIVEN_UP)
            self.close()
            self._lost()

    def drain(self, timeout: float) -> None:
        """Wait until all that is queued has been written, or the client has gone."""
        with self._condition:
            self._condition.wait_for(lambda: self._gone or not self._waiting, timeout)

    def close(self) -> None:
        """Write nothing more."""
        with self._condition:
            self._gone = True
            self._waiting.clear()
            self._condition.notify_all()

    def _write_what_fits(self, data: bytes) -> bytes:
        """Write as much as the client has room for at once; return the rest."""
        rest = memoryview(data)
        try:
            while rest and (self._poll is None or self._poll.poll(0)):
                rest = rest[os.write(self._sink, rest[:_PIPE]) :]
        except OSError:
            self._give_up()
            return b""
        return bytes(rest)

    def _write_queued(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._gone or self._waiting)
                if self._gone:
                    return
                data = self._waiting[0]
            rest = memoryview(data)
            try:
                while rest and not self._gone:
                    rest = rest[os.write(self._sink, rest) :]
            except OSError:
                with self._condition:
                    self._give_up()
                return
            with self._condition:
                self._unread -= len(data)
                if self._waiting:  # else it was closed meanwhile
                    self._waiting.popleft()
                self._condition.notify_all()

    def _give_up(self) -> None:
        self._gone = True
        self._waiting.clear()
        self._condition.notify_all()
        logger.info("the client no longer reads what the server writes")


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
    a read that only the client can end. `ended` is called when the input has ended. A client that sends faster than its
    messages are received has to wait.
    """

    room = _Room(_MOST_PENDING)

    def hand_on(bodies: list[bytes], size: int) -> None:
        try:
            receive(bodies)
        finally:
            room.free(size)

    def read() -> None:
        framing = Framing()
        try:
            while data := os.read(source, _READ):
                bodies = framing.feed(data)
                if not bodies:
                    continue
                size = sum(map(len, bodies))
                room.take(size)
                loop.call_soon_threadsafe(hand_on, bodies, size)
        except FramingError as error:
            logger.error("%s", error)
            loop.call_soon_threadsafe(receive, list(error.before))
        except OSError as error:
            logger.info("the input cannot be read any more: %s", error)
        except MemoryError:
            logger.error("%s", NO_MEMORY)
        except RuntimeError:
            return  # the loop is closed: the server is ending
        except Exception as error:  # a server that reads no more must not stay
            logger.error("reading the input failed: %s", type(error).__name__)
        try:
            loop.call_soon_threadsafe(ended)
        except RuntimeError:
            return

    threading.Thread(target=read, name="stdin", daemon=True).start()


class _Room:
    """So many bytes, which one thread takes and another frees; what is larger than all of it has to be alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._condition = threading.Condition()

    def take(self, size: int) -> None:
        """Take room, and wait until there is."""
        with self._condition:
            self._condition.wait_for(lambda: self._taken == 0 or self._taken + size <= self._size)
            self._taken += size

    def free(self, size: int) -> None:
        """Give room back."""
        with self._condition:
            self._taken -= size
            self._condition.notify()


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
        receive(list(error.before))
    except OSError as error:
        logger.info("the connection was lost: %s", error)


class SocketWriter:
    """Writes to a TCP connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Queue a message, unless the client has gone. One that does not read is given up."""
        if self._writer.is_closing():
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > _MOST_UNREAD:
            logger.error(_GIVEN_UP)
            self._writer.transport.abort()

    def close(self) -> None:
        """Close the connection once all is written."""
        self._writer.close()


class WebSocketWriter:
    """Writes to a WebSocket: a text frame for each message, in order, without headers."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._unread = 0  # bytes in it
        self._task = asyncio.ensure_future(self._send())

    def write(self, data: bytes) -> None:
        """Queue a message. (pygls's own writer sends binary frames, which a browser gets as a Blob.)"""
        if self._task.done():
            return
        self._unread += len(data)
        self._queue.put_nowait(data.decode("utf-8"))
        if self._unread > _MOST_UNREAD:
            logger.error(_GIVEN_UP)
            self._task.cancel()
            self._socket.transport.abort()

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
                message = await self._queue.get()
                await self._socket.send(message)
                self._unread -= len(message)  # what is written is ASCII (pygls's JSON)
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
