"""Framing, and writers whose client goes away."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_charrnn.errors import NO_MEMORY
from lsp_charrnn.server.transport import DescriptorWriter, Framing, FramingError, read_in_thread


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
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"Content-Length: -5\r\n\r\n", b"x" * (1 << 16) + b"y"]
)
def test_what_is_no_lsp(data: bytes) -> None:
    with pytest.raises(FramingError, match="sends no LSP"):
        Framing().feed(data)


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
