"""Framing, and writers whose client goes away."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_charrnn.errors import NO_MEMORY
from lsp_charrnn.server import transport
from lsp_charrnn.server.transport import (
    DescriptorWriter,
    Framing,
    FramingError,
    SocketWriter,
    WebSocketWriter,
    read_in_thread,
)


def framed(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


@given(st.lists(st.binary(max_size=40), max_size=5), st.data())
def test_however_the_bytes_arrive(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(framed, bodies))
    framing, found = Framing(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += framing.feed(stream[:size])
        stream = stream[size:]
    assert found == bodies


def test_other_headers_and_spellings() -> None:
    header = b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\ncontent-length:  2 \r\nX: y\r\n\r\n{}"
    assert Framing().feed(header * 2) == [b"{}", b"{}"]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"Content-Length: -5\r\n\r\n", b"x" * (1 << 16) + b"yyyy"]
)
def test_what_is_no_lsp(data: bytes) -> None:
    with pytest.raises(FramingError, match="sends no LSP"):
        Framing().feed(data)


@pytest.mark.parametrize("digits", ["268435457", "9" * 30, "9" * 5000])
def test_a_message_that_is_too_large(digits: str) -> None:
    with pytest.raises(FramingError, match=r"a message of \d{9,20}…? bytes") as raised:
        Framing().feed(framed(b"{}") + f"Content-Length: {digits}\r\n\r\n".encode())
    assert raised.value.before == [b"{}"]  # what came before it is not lost


def test_a_client_that_reads_late_gets_everything_in_order() -> None:
    reading, writing = os.pipe()
    writer = DescriptorWriter(writing)
    sent = [bytes([65 + index % 26]) * 10_000 for index in range(100)]  # more than a pipe holds
    for data in sent:
        writer.write(data)
    found = b""
    while len(found) < 1_000_000:
        found += os.read(reading, 1 << 16)
    assert found == b"".join(sent)
    writer.drain(10)
    writer.close()
    os.close(writing)
    os.close(reading)


def test_a_client_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_MOST_UNREAD", 1_000_000)
    reading, writing = os.pipe()
    lost: list[int] = []
    writer = DescriptorWriter(writing, lost=lambda: lost.append(1))
    for _ in range(200):
        writer.write(b"x" * 10_000)
    assert lost == [1]
    writer.write(b"nobody reads this")
    writer.drain(10)
    os.close(reading)


class Deaf:
    """A WebSocket to which nothing can be sent."""

    def __init__(self) -> None:
        self.aborted = False
        self.transport = self

    async def send(self, _: str) -> None:
        await asyncio.Event().wait()

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("kind", ["TCP", "WebSocket"])
def test_one_of_several_clients_that_never_reads_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_MOST_UNREAD", 1_000_000)

    async def over_tcp() -> bool:
        given_up = asyncio.get_running_loop().create_future()

        async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            deaf = SocketWriter(writer)
            for _ in range(2_000):
                deaf.write(b"x" * 10_000)  # what the system holds for a connection, and more
            given_up.set_result(writer.is_closing())
            deaf.write(b"nobody reads this")

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            found = await asyncio.wait_for(given_up, 60)
            writer.close()
        return bool(found)

    async def over_web_socket() -> bool:
        socket = Deaf()
        writer = WebSocketWriter(socket)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        writer.write(b"x" * 999_999)
        assert not socket.aborted
        writer.write(b"xx")
        await asyncio.sleep(0)
        writer.write(b"nobody reads this")
        return socket.aborted

    assert asyncio.run(over_tcp() if kind == "TCP" else over_web_socket())


def test_a_client_that_sends_faster_than_it_is_served_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_MOST_PENDING", 50_000)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    message = framed(b"x" * 9_000)
    received: list[bytes] = []

    async def serve() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        read_in_thread(reading, loop, received.extend, ended.set)
        sent, waits, rest = 0, 0, b""
        while waits < 20:  # the loop is busy with this, and receives nothing
            try:
                rest = (rest or message)[os.write(writing, rest or message) :]
                sent += not rest
            except BlockingIOError:
                waits += 1
                time.sleep(0.01)
        assert received == []
        assert sent * 9_000 < 300_000  # what is pending, and what the pipe holds
        os.set_blocking(writing, True)
        await asyncio.to_thread(os.write, writing, rest)
        os.close(writing)
        await asyncio.wait_for(ended.wait(), 60)
        assert received == [b"x" * 9_000] * (sent + bool(rest))

    asyncio.run(serve())
    os.close(reading)


def test_a_client_that_reads_no_more_is_no_exception() -> None:
    reading, writing = os.pipe()
    writer = DescriptorWriter(writing)
    writer.write(b"a")
    assert os.read(reading, 10) == b"a"
    os.close(reading)
    writer.write(b"b")
    writer.write(b"c")
    os.close(writing)


def test_a_message_that_finds_no_memory_is_the_end_of_the_input(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(self: Framing, data: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(Framing, "feed", refused)
    source, sink = os.pipe()
    os.write(sink, b"Content-Length: 1000000000\r\n\r\n")

    async def ended() -> None:
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        read_in_thread(source, loop, lambda _: None, told.set)
        await asyncio.wait_for(told.wait(), 10)

    asyncio.run(ended())
    assert [record.getMessage() for record in caplog.records] == [NO_MEMORY]
    for descriptor in (source, sink):
        os.close(descriptor)
