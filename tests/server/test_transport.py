"""Framing, and writers whose client goes away."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_charrnn.server.transport import DescriptorWriter, Framing, FramingError


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
