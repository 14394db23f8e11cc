"""The real server as a process, over stdio, TCP and WebSocket: the shipped command with a real model.

`tiny_model` knows one word, so what it must suggest is known. What needs an engine that waits, or a client that
breaks the protocol, is tested in `test_app`, in one process.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pytest_lsp import ClientServerConfig, LanguageClient
from wire import INLINE, at

from lsp_charrnn.server.transport import Framing

pytestmark = pytest.mark.asyncio(loop_scope="module")

URI = "file:///project/a.py"
# The tiny model knows one word by heart; what the documents of these tests have held is not to change that.
BY_HEART = {"memory.document": False, "decode.budgetMs": 5000}  # whatever else this machine does
PATIENCE = 60  # seconds until a server on a port is given up
SERVE = (sys.executable, "-m", "lsp_charrnn", "serve")


def environment(model: Path) -> dict[str, str]:
    return {**os.environ, "LSP_CHARRNN_MODELS": str(model.parent), "OMP_NUM_THREADS": "1"}


@asynccontextmanager
async def running(
    model: Path,
    *,
    command: Sequence[str] = SERVE,
    encodings: Sequence[types.PositionEncodingKind] = (types.PositionEncodingKind.Utf16,),
    options: Any = None,
    configuration: Any = None,
) -> AsyncIterator[LanguageClient]:
    """Start the server, initialize it, and end it as the protocol wants."""
    config = ClientServerConfig(server_command=list(command), server_env=environment(model))
    client = await config.start()
    assert isinstance(client, LanguageClient)
    client.set_configuration({"lspCharrnn": configuration})
    await client.initialize_session(
        types.InitializeParams(
            capabilities=types.ClientCapabilities(
                general=types.GeneralClientCapabilities(position_encodings=encodings),
                text_document=types.TextDocumentClientCapabilities(
                    inline_completion=types.InlineCompletionClientCapabilities()
                ),
                workspace=types.WorkspaceClientCapabilities(configuration=True),
            ),
            root_uri="file:///project",
            initialization_options=BY_HEART if options is None else options,
        )
    )
    try:
        yield client
    finally:
        await client.shutdown_session()
        assert client._server is not None
        assert client._server.returncode == 0
        await client.stop()  # type: ignore[no-untyped-call]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(tiny_model: Path) -> AsyncIterator[LanguageClient]:
    async with running(tiny_model) as client:
        yield client


class Editor:
    """A document in the client, and what a user does to it."""

    def __init__(self, client: LanguageClient, text: str, *, uri: str = URI, language: str = "python") -> None:
        self.client = client
        self.uri = uri
        self.version = 1
        client.text_document_did_open(
            types.DidOpenTextDocumentParams(types.TextDocumentItem(uri, language, self.version, text))
        )

    def change(self, *changes: types.TextDocumentContentChangeEvent) -> None:
        self.version += 1
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(types.VersionedTextDocumentIdentifier(self.version, self.uri), changes)
        )

    def insert(self, line: int, character: int, text: str) -> None:
        place = types.Position(line, character)
        self.change(types.TextDocumentContentChangePartial(types.Range(place, place), text))

    def ask(self, line: int, character: int, *, invoked: bool = False) -> asyncio.Future[Any]:
        """Send a request at once; its answer comes with the future."""
        kind = types.InlineCompletionTriggerKind
        return asyncio.wrap_future(
            self.client.text_document_inline_completion(
                types.InlineCompletionParams(
                    types.InlineCompletionContext(kind.Invoked if invoked else kind.Automatic),
                    types.TextDocumentIdentifier(self.uri),
                    types.Position(line, character),
                )
            )
        )

    async def suggested(self, line: int, character: int, *, invoked: bool = False) -> list[types.InlineCompletionItem]:
        answer = await self.ask(line, character, invoked=invoked)
        assert isinstance(answer, types.InlineCompletionList)
        return list(answer.items)

    async def ghost(self, line: int, character: int) -> str | None:
        items = await self.suggested(line, character)
        assert len(items) <= 1
        return str(items[0].insert_text) if items else None

    def close(self) -> None:
        self.client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(self.uri)))


async def test_typing_a_word_key_by_key(client: LanguageClient) -> None:
    editor = Editor(client, "import os\n")
    for column, key in enumerate("quartz("):
        editor.insert(1, column, key)
        (item,) = await editor.suggested(1, column + 1)
        # Along the word the item stays the same one, but for its range's end.
        assert item.insert_text == ("quartz(x)" if key != "(" else "x)")
        assert item.range is not None
        assert item.range.end == types.Position(1, column + 1)
        assert item.range.start == types.Position(1, 0 if key != "(" else column + 1)
    editor.close()


async def test_several_changes_in_one_notification(client: LanguageClient) -> None:
    editor = Editor(client, "a\nb\n")

    def change(line: int, start: int, end: int, text: str) -> types.TextDocumentContentChangePartial:
        return types.TextDocumentContentChangePartial(
            types.Range(types.Position(line, start), types.Position(line, end)), text
        )

    editor.change(change(1, 0, 1, "c = \n"), change(1, 4, 4, "q"), change(0, 0, 1, "z"), change(1, 5, 5, "ua"))
    assert await editor.ghost(1, 7) == "quartz(x)"
    editor.close()


async def test_backspace_and_undo(client: LanguageClient) -> None:
    editor = Editor(client, "quar")
    assert await editor.ghost(0, 4) == "quartz(x)"
    editor.change(types.TextDocumentContentChangePartial(types.Range(types.Position(0, 2), types.Position(0, 4)), ""))
    assert await editor.ghost(0, 2) == "quartz(x)"
    editor.change(types.TextDocumentContentChangeWholeDocument("x = qua"))
    assert await editor.ghost(0, 7) == "quartz(x)"
    editor.close()


async def test_a_document_that_is_not_open_and_one_that_was_closed(client: LanguageClient) -> None:
    editor = Editor(client, "q", uri="file:///project/closed.py")
    assert await editor.ghost(0, 1) == "quartz(x)"
    editor.close()
    with pytest.raises(JsonRpcException, match=r"closed\.py is not open") as caught:
        await editor.ghost(0, 1)
    assert caught.value.code == -32602


async def test_a_position_past_the_end(client: LanguageClient) -> None:
    editor = Editor(client, "x\nqua")
    assert await editor.ghost(1, 500) == "quartz(x)"
    assert await editor.ghost(70, 3) == "quartz(x)"
    editor.close()


async def test_crlf(client: LanguageClient) -> None:
    editor = Editor(client, "a = 1\r\nq\r\n")
    (item,) = await editor.suggested(1, 1)
    assert item.insert_text == "quartz(x)"
    assert item.range == types.Range(types.Position(1, 0), types.Position(1, 1))
    editor.close()


async def test_accepting_is_counted(client: LanguageClient) -> None:
    async def statistics() -> Any:
        status: Any = await client.workspace_execute_command_async(types.ExecuteCommandParams("lspCharrnn.status"))
        assert status["state"] == "ready"
        assert [model["name"] for model in status["models"]] == ["tiny"]
        return status["statistics"]

    editor = Editor(client, "q")
    (item,) = await editor.suggested(0, 1)
    assert item.command is not None
    before = await statistics()
    await client.workspace_execute_command_async(
        types.ExecuteCommandParams(item.command.command, item.command.arguments)
    )
    after = await statistics()
    assert after["accepted"] == before["accepted"] + 1
    assert after["charactersSaved"] == before["charactersSaved"] + len("uartz(x)")
    editor.close()


async def test_a_burst_of_keys_is_answered_and_the_last_answer_is_right(client: LanguageClient) -> None:
    editor = Editor(client, "")
    word = "quartz" * 30
    requests = []
    for column, key in enumerate(word):
        editor.insert(0, column, key)
        requests.append(editor.ask(0, column + 1))
    editor.insert(0, len(word), " q")
    assert await editor.ghost(0, len(word) + 2) == "quartz(x)"
    for column, answer in enumerate(await asyncio.gather(*requests)):
        # Either it was overtaken, or it is for the text that it was asked for.
        assert all(item.insert_text.startswith(word[: column + 1]) for item in answer.items)
    editor.close()


LINE = "    value = function(argument, 12345)\n"
MINIFIED = "var a=function(b,c){return b?c[b]:null};" * 25_000


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        pytest.param(LINE * 280_000, 140_000, 0, id="10 MB"),
        pytest.param("x" * 1_000_000, 0, 500_000, id="one line of 1 MB"),
        pytest.param("é😀" * 170_000, 0, 300_000, id="one line of 1 MB, not ASCII"),
        pytest.param("y = 1\n" * 100_000, 99_999, 5, id="100,000 lines"),
        pytest.param(MINIFIED, 0, len(MINIFIED) // 2, id="minified JavaScript"),
        pytest.param("\n" * 300_000, 150_000, 0, id="empty lines"),
        pytest.param("\r\n\u2028\f" * 100_000, 50_000, 1, id="odd line ends"),
    ],
)
async def test_large_and_odd_files(client: LanguageClient, text: str, line: int, column: int) -> None:
    """What is typed in the middle is completed, and what is deleted again, and at either end."""
    editor = Editor(client, text)
    editor.insert(line, column, " qu")
    assert await editor.ghost(line, column + 3) == "quartz(x)"
    for length in range(1, 4):
        editor.insert(line, column + 2 + length, "art"[length - 1])
        assert await editor.ghost(line, column + 3 + length) == "quartz(x)"
    editor.insert(0, 0, "q")
    assert await editor.ghost(0, 1) == "quartz(x)"
    editor.change(types.TextDocumentContentChangeWholeDocument(text + "\nq"))  # all at once, and nearly the same
    last = len(re.split("\r\n|\n", text))
    assert await editor.ghost(last, 1) == "quartz(x)"
    editor.close()


async def test_a_replacement_in_a_thousand_places_and_its_undo(client: LanguageClient) -> None:
    lines = 2_000
    editor = Editor(client, LINE * lines + "q")

    def everywhere(end: int, new: str) -> list[types.TextDocumentContentChangeEvent]:
        return [
            types.TextDocumentContentChangePartial(types.Range(types.Position(line, 4), types.Position(line, end)), new)
            for line in reversed(range(0, lines, 2))
        ]

    editor.change(*everywhere(9, "result"))
    assert await editor.ghost(lines, 1) == "quartz(x)"
    editor.change(*everywhere(10, "value"))
    editor.insert(lines - 1, 4, "qu")
    assert await editor.ghost(lines - 1, 6) == "quartz(x)"
    editor.close()


async def test_fifty_open_documents(client: LanguageClient) -> None:
    editors = [Editor(client, LINE * 1000, uri=f"file:///project/{number}.py") for number in range(50)]
    for editor in editors:
        editor.insert(500, 0, "q")
    answers = await asyncio.gather(*(editor.ghost(500, 1) for editor in editors))
    assert answers == ["quartz(x)"] * 50
    for editor in editors:
        editor.close()


async def test_cancelling_while_others_wait(client: LanguageClient) -> None:
    editor = Editor(client, "q")
    params = client.protocol._converter.structure(at(0, 1, uri=URI), types.InlineCompletionParams)
    requests = [client.protocol.send_request(INLINE, params, msg_id=f"cancel-{n}") for n in range(20)]
    for n in range(20):
        client.cancel_request(types.CancelParams(f"cancel-{n}"))
    for request in requests:
        # A cancel may come too late, or the newer request may have come before it.
        error = await asyncio.to_thread(request.exception, 5)
        assert error is None or (isinstance(error, JsonRpcException) and error.code == -32800)
    assert await editor.ghost(0, 1) == "quartz(x)"
    editor.close()


async def type_behind_an_emoji(client: LanguageClient, column: int) -> None:
    editor = Editor(client, "")
    editor.insert(0, 0, "é = '😀'")
    editor.insert(0, column, "q")
    (item,) = await editor.suggested(0, column + 1)
    assert item.insert_text == "quartz(x)"
    assert item.range == types.Range(types.Position(0, column), types.Position(0, column + 1))
    editor.close()


async def test_a_line_with_an_emoji_in_utf_16(client: LanguageClient) -> None:
    await type_behind_an_emoji(client, 8)


@pytest.mark.parametrize(("encoding", "column"), [("utf-8", 11), ("utf-32", 7)])
async def test_a_line_with_an_emoji_in(tiny_model: Path, encoding: str, column: int) -> None:
    async with running(tiny_model, encodings=[types.PositionEncodingKind(encoding)]) as client:
        await type_behind_an_emoji(client, column)


async def test_wrong_settings_and_a_wrong_model_are_told_and_the_server_lives(tiny_model: Path) -> None:
    options = {"decode": {"lanes": "many"}, "model": "nonesuch"}
    pulled = {"disabledLanguages": ["markdown"], "disabledGlobs": ["gen/"], "lanse": 3}
    async with running(tiny_model, options=options, configuration=pulled) as client:
        editor = Editor(client, "q")
        assert await editor.ghost(0, 1) == "quartz(x)"
        told = "\n".join(message.message for message in client.messages)
        for expected in (
            "'decode.lanes' must be a whole number",
            "unknown setting 'lanse'",
            "no model 'nonesuch'",
        ):
            assert told.count(expected) == 1, told
        assert await Editor(client, "q", uri="file:///project/a.md", language="markdown").ghost(0, 1) is None
        assert await Editor(client, "q", uri="file:///project/gen/a.py").ghost(0, 1) is None
        assert await Editor(client, "q", uri="file:///project/.env").ghost(0, 1) is None


async def test_a_client_that_can_do_nothing_gets_utf_16_and_a_list(tiny_model: Path) -> None:
    config = ClientServerConfig(server_command=list(SERVE), server_env=environment(tiny_model))
    client = await config.start()
    assert isinstance(client, LanguageClient)
    result = await client.initialize_session(
        types.InitializeParams(capabilities=types.ClientCapabilities(), initialization_options=BY_HEART)
    )
    offered = result.capabilities
    assert offered.inline_completion_provider == types.InlineCompletionOptions()
    assert offered.completion_provider is not None
    assert offered.position_encoding == types.PositionEncodingKind.Utf16
    sync = offered.text_document_sync
    assert isinstance(sync, types.TextDocumentSyncOptions)
    assert (sync.open_close, sync.change) == (True, types.TextDocumentSyncKind.Incremental)
    assert result.server_info is not None
    assert result.server_info.name == "lsp-charrnn"
    editor = Editor(client, "x = qua")
    answer = await client.text_document_completion_async(
        types.CompletionParams(types.TextDocumentIdentifier(editor.uri), types.Position(0, 7))
    )
    assert isinstance(answer, types.CompletionList)
    assert answer.is_incomplete
    first = answer.items[0]
    assert (first.label, first.filter_text, first.documentation) == ("quartz(x)",) * 3
    assert isinstance(first.text_edit, types.TextEdit)
    assert first.text_edit.range == types.Range(types.Position(0, 4), types.Position(0, 7))
    await client.shutdown_session()
    await client.stop()  # type: ignore[no-untyped-call]


async def test_the_server_imports_no_torch(tiny_model: Path, tmp_path: Path) -> None:
    log = tmp_path / "imports"
    importing = 'exec "$0" -X importtime -m lsp_charrnn serve 2> "$1"'
    async with running(tiny_model, command=["sh", "-c", importing, sys.executable, str(log)]) as client:
        assert await Editor(client, "q").ghost(0, 1) == "quartz(x)"
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", log.read_text(), re.MULTILINE))
    assert {"onnxruntime", "lsp_charrnn.engine.session"} <= imported
    assert not imported & {"torch", "onnx", "lsp_charrnn.train", "lsp_charrnn.evaluate"}


# --- ends ---------------------------------------------------------------------------------------------------


def message(method: str, params: Any = None, number: int | None = None) -> bytes:
    body = {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})}
    data = json.dumps(body | ({} if number is None else {"id": number})).encode()
    return b"Content-Length: %d\r\n\r\n" % len(data) + data


def first_message(options: Any) -> bytes:
    params = {"processId": None, "rootUri": None, "capabilities": {}, "initializationOptions": options}
    return message("initialize", params, 1)


INITIALIZE = first_message(BY_HEART)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", 1),
        (INITIALIZE + message("initialized", {}), 1),
        (INITIALIZE + message("shutdown", number=2) + message("exit"), 0),
    ],
    ids=["nothing", "no shutdown", "shutdown and exit"],
)
async def test_the_exit_code_when_the_input_ends(tiny_model: Path, sent: bytes, code: int) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        SERVE,
        input=sent,
        capture_output=True,
        timeout=20,
        env=environment(tiny_model),
        check=False,
    )
    assert done.returncode == code
    assert done.stderr == b""
    if sent:
        assert b'"capabilities"' in done.stdout


async def test_a_client_that_speaks_something_else(tiny_model: Path) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        SERVE,
        input=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"the client sends no LSP" in done.stderr


# --- TCP and WebSocket --------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(model: Path, data: Path, *arguments: str) -> AsyncIterator[tuple[int, str]]:
    """Start the server on a port of its choice, with its data in `data`; return the port, and the token it made."""
    # What a shell starts with `&` ignores Ctrl-C, and so do its children; what is caught here is not ignored there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = await asyncio.create_subprocess_exec(
            *SERVE,
            *arguments,
            stderr=asyncio.subprocess.PIPE,
            env={**environment(model), "XDG_DATA_HOME": str(data)},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), PATIENCE)).decode()
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+), token in (.+)\n", line)
        assert found is not None, line
        yield int(found[1]), Path(found[2]).read_text().strip()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            rest = await asyncio.wait_for(process.stderr.read(), PATIENCE)
        except asyncio.TimeoutError:
            process.kill()
            raise
        assert (await process.wait(), rest) == (0, b"")


OPEN = {"textDocument": {"uri": URI, "languageId": "python", "version": 1, "text": "q"}}


async def test_tcp_serves_several_clients_each_with_its_own_documents(tiny_model: Path, tmp_path: Path) -> None:
    async with listening(tiny_model, tmp_path, "--tcp", "127.0.0.1:0") as (port, token):
        # The port is taken now: a second server says so in one sentence.
        second = await asyncio.to_thread(
            subprocess.run,
            [*SERVE, "--tcp", f"127.0.0.1:{port}"],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert second.returncode == 2
        assert f"port {port} of 127.0.0.1 is in use" in " ".join(second.stderr.decode().split())

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Framing]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first_message({**BY_HEART, "token": token}))
            framing = Framing()
            assert "capabilities" in (await receive(reader, framing))["result"]
            writer.write(message("initialized", {}))
            return reader, writer, framing

        async def receive(reader: asyncio.StreamReader, framing: Framing) -> Any:
            while True:
                for body in framing.feed(await asyncio.wait_for(reader.read(1 << 16), PATIENCE)):
                    return json.loads(body)

        first, other = await connect(), await connect()
        first[1].write(message("textDocument/didOpen", OPEN))
        first[1].write(message(INLINE, at(0, 1, uri=URI), 2))
        assert (await receive(first[0], first[2]))["result"]["items"][0]["insertText"] == "quartz(x)"
        other[1].write(message(INLINE, at(0, 1, uri=URI), 2))
        assert (await receive(other[0], other[2]))["error"]["code"] == -32602
        first[1].write(message("shutdown", number=3) + message("exit"))
        assert (await receive(first[0], first[2]))["result"] is None
        assert await asyncio.wait_for(first[0].read(), PATIENCE) == b""  # hung up
        first[1].close()
        other[1].write(message("textDocument/didOpen", OPEN))
        other[1].write(message(INLINE, at(0, 1, uri=URI), 4))
        assert (await receive(other[0], other[2]))["result"]["items"][0]["insertText"] == "quartz(x)"
        other[1].close()  # without a word


async def test_web_sockets_and_no_foreign_web_pages(tiny_model: Path, tmp_path: Path) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    def text(method: str, params: Any = None, number: int | None = None) -> str:
        return Framing().feed(message(method, params, number))[0].decode()

    async with listening(tiny_model, tmp_path, "--ws", "127.0.0.1:0") as (port, token):
        address = f"ws://127.0.0.1:{port}/?token={token}"
        with pytest.raises(InvalidStatus, match="403"):
            await connect(address, origin="https://elsewhere.example")  # type: ignore[arg-type]
        async with connect(address, origin="http://localhost:3000") as client:  # type: ignore[arg-type]
            await client.send(Framing().feed(INITIALIZE)[0].decode())
            answer = await client.recv()
            assert isinstance(answer, str)  # a text frame
            assert "capabilities" in json.loads(answer)["result"]
            await client.send(text("initialized", {}))
            large = {"textDocument": {**OPEN["textDocument"], "text": "x = 1\n" * 400_000 + "q"}}
            await client.send(text("textDocument/didOpen", large))
            await client.send(text(INLINE, at(400_000, 1, uri=URI), 2))
            assert json.loads(await client.recv())["result"]["items"][0]["insertText"] == "quartz(x)"
            await client.send(text("shutdown", number=3))
            assert json.loads(await client.recv())["result"] is None
            await client.send(text("exit"))
            await asyncio.wait_for(client.wait_closed(), PATIENCE)


async def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await asyncio.to_thread(
            subprocess.run,
            [*SERVE, "--ws", f"127.0.0.1:{port}"],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 2
    assert "is in use" in " ".join(done.stderr.decode().split())
