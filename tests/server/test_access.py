"""Who may connect: over TCP and WebSocket nobody is answered before the token was shown."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeSession

from lsp_charrnn.errors import SettingError
from lsp_charrnn.server import access as rules
from lsp_charrnn.server import app
from lsp_charrnn.server.access import EVERYBODY, SHORTEST, VARIABLE, Access, access, is_loopback, token_file
from lsp_charrnn.server.app import ListenError, Server, serve_tcp, serve_ws
from lsp_charrnn.server.models import Models
from lsp_charrnn.server.transport import Framing
from lsp_charrnn.server.worker import Worker

TOKEN = "open-sesame-0123456789"
Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data"))
    monkeypatch.delenv(VARIABLE, raising=False)


@asynccontextmanager
async def serving(kind: str, who: Access, capfd: pytest.CaptureFixture[str]) -> AsyncIterator[int]:
    """Serve in this process around the fake engine; return the port."""
    worker = Worker()
    servers: list[Server] = []

    def new_server() -> Server:
        servers.append(Server(worker, Models(), make_session=FakeSession))  # type: ignore[arg-type]
        return servers[-1]

    serve = app._serve_tcp if kind == "tcp" else app._serve_ws
    task = asyncio.ensure_future(serve(new_server, "127.0.0.1", 0, who))
    try:
        said = ""
        while "\n" not in said:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.01)
            said += capfd.readouterr().err
        yield int(said.split(",")[0].rpartition(":")[2])
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for server in servers:
            server.close()
        assert worker.close()


def framed(message: Json) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def initialize(options: object = None) -> Json:
    params: Json = {"processId": None, "rootUri": None, "capabilities": {}, "initializationOptions": options}
    return {"id": 1, "method": "initialize", "params": params}


async def said_to(port: int, data: bytes, *, last: bool = True) -> list[Json]:
    """Return the server's answers to some bytes: until it hangs up, or with `last` False, its first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    framing = Framing()
    answers: list[Json] = []
    try:
        writer.write(data)
        while received := await asyncio.wait_for(reader.read(1 << 16), 20):
            answers += map(json.loads, framing.feed(received))
            if answers and not last:
                break
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    return answers


RIGHT = [
    {"token": TOKEN},
    {"lspCharrnn": {"token": TOKEN}},
    {"lspCharrnn.token": TOKEN},
    {"token": TOKEN, "decode": {"maxChars": 80}},
]
WRONG = [
    None,
    {},
    [],
    TOKEN,
    {"token": None},
    {"token": ""},
    {"token": TOKEN[:-1]},
    {"token": TOKEN + "0"},
    {"token": [TOKEN]},
    {"token": "\ud800"},
    {"lspCharrnn": TOKEN},
]


@pytest.mark.asyncio
async def test_tcp_answers_who_shows_the_token_and_nobody_else(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving("tcp", Access(TOKEN), capfd) as port:
        for options in RIGHT:
            (answer,) = await said_to(port, framed(initialize(options)), last=False)
            assert "capabilities" in answer["result"]
        for options in WRONG:
            (answer,) = await said_to(port, framed(initialize(options)))
            assert answer["id"] == 1
            assert answer["error"]["code"] == -32803
            assert "the token is missing or wrong" in answer["error"]["message"]
            assert TOKEN not in json.dumps(answer)


@pytest.mark.asyncio
async def test_nothing_comes_before_the_token(capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever else is sent first: one refusal, and the end; what comes with it is not looked at."""
    opened = {"textDocument": {"uri": "file:///a.py", "languageId": "python", "version": 1, "text": "x"}}
    first: list[Json] = [
        {"id": 1, "method": "shutdown"},
        {"method": "textDocument/didOpen", "params": opened},
        {"id": 1, "method": "workspace/executeCommand", "params": {"command": "lspCharrnn.train", "token": TOKEN}},
        {"id": {"x": 1}, "method": "initialize", "params": [TOKEN]},
        {"id": 1, "result": {"token": TOKEN}},
    ]
    async with serving("tcp", Access(TOKEN), capfd) as port:
        for message in first:
            (answer,) = await said_to(port, framed(message) + framed(initialize({"token": TOKEN})))
            assert "the token is missing" in answer["error"]["message"]
        for body in (b"[" * 100_000, b"\xff", b"null", b"[]"):
            (answer,) = await said_to(port, b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            assert "the token is missing" in answer["error"]["message"]


@pytest.mark.asyncio
async def test_messages_that_come_with_the_first_are_answered(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving("tcp", Access(TOKEN), capfd) as port:
        burst = framed(initialize({"token": TOKEN})) + framed({"id": 2, "method": "shutdown"})
        answers = await said_to(port, burst + framed({"method": "exit"}))
        assert [answer["id"] for answer in answers] == [1, 2]


@pytest.mark.asyncio
async def test_little_is_read_without_a_token_and_not_for_long(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving("tcp", Access(TOKEN), capfd) as port:
        large = b"Content-Length: 999999999\r\n\r\n" + bytes(rules.FIRST_MESSAGE + (1 << 16))
        assert await said_to(port, large) == []
        assert await said_to(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == []
        monkeypatch.setattr(rules, "PATIENCE", 0.05)
        assert await said_to(port, b"Content-Length: 5\r\n\r\n") == []
        assert await said_to(port, b"") == []


@pytest.mark.asyncio
async def test_without_a_token_everybody_is_answered(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving("tcp", EVERYBODY, capfd) as port:
        (answer,) = await said_to(port, framed(initialize()), last=False)
        assert "capabilities" in answer["result"]
        too_early = framed({"id": 1, "method": "shutdown"})  # by the protocol's own rules, and the connection stays
        answers = await said_to(port, too_early + framed(initialize()) + framed({"method": "exit"}))
        assert ["error" in answer for answer in answers] == [True, False]
        assert answers[0]["error"]["code"] == -32002


@pytest.mark.asyncio
async def test_a_web_socket_opens_to_who_shows_the_token(capfd: pytest.CaptureFixture[str]) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    async with serving("ws", Access(TOKEN), capfd) as port:
        address = f"ws://127.0.0.1:{port}"

        async def answer_to(address: str, **options: Any) -> Json:
            async with connect(address, **options) as client:
                await client.send(json.dumps({"jsonrpc": "2.0", **initialize()}))
                return dict(json.loads(await client.recv()))

        bearer = {"Authorization": f"Bearer {TOKEN}"}
        ours = "http://localhost:3000"
        assert "result" in await answer_to(address, additional_headers=bearer)
        assert "result" in await answer_to(f"{address}/?token={TOKEN}")
        assert "result" in await answer_to(f"{address}/lsp?a=b&token={TOKEN}", origin=ours)
        # Only the handshake counts: the token is not looked for in messages.
        for wrong in ("", "/?token=", "/?token=x", f"/{TOKEN}", f"/?token={TOKEN}x", "/?token=%ff"):
            with pytest.raises(InvalidStatus, match="401"):
                await answer_to(address + wrong)
        for headers in (
            {"Authorization": TOKEN},
            {"Authorization": "Bearer "},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer \u00e9"},
        ):
            with pytest.raises(InvalidStatus, match="401"):
                await answer_to(address, additional_headers=headers)
        for origin in (
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example:1",
        ):
            with pytest.raises(InvalidStatus, match="403"):
                await answer_to(address, additional_headers=bearer, origin=origin)
            with pytest.raises(InvalidStatus, match="401"):
                await answer_to(address, origin=origin)


@pytest.mark.asyncio
async def test_without_a_token_a_web_socket_still_asks_where_a_page_comes_from(
    capfd: pytest.CaptureFixture[str],
) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    async with serving("ws", EVERYBODY, capfd) as port:
        async with connect(f"ws://127.0.0.1:{port}"):
            pass
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"ws://127.0.0.1:{port}", origin="https://evil.example")  # type: ignore[arg-type]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
@pytest.mark.asyncio
async def test_a_token_that_is_made_is_the_users_alone(capfd: pytest.CaptureFixture[str]) -> None:
    who = access(None, none=False)
    other = access(None, none=False)
    assert who.token is not None
    assert len(who.token) >= 43  # 256 bits
    assert who.token != other.token
    before = os.umask(0)
    try:
        async with serving("tcp", who, capfd) as port:
            path = token_file(port)
            assert path.read_text() == who.token + "\n"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert (await said_to(port, framed(initialize({"token": who.token})), last=False))[0]["result"]
        assert not path.exists()
    finally:
        os.umask(before)


def test_a_token_file_replaces_what_a_killed_server_left(tmp_path: Path) -> None:
    path = token_file(2087)
    path.parent.mkdir(parents=True, mode=0o755)
    (tmp_path / "elsewhere").write_text("untouched")
    path.symlink_to(tmp_path / "elsewhere")
    with Access(TOKEN, made=True).kept(2087) as found:
        assert found == path
        assert not path.is_symlink()
        if os.name == "posix":
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700  # it was there, and open to others
    assert (tmp_path / "elsewhere").read_text() == "untouched"


def test_where_a_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    monkeypatch.setenv(VARIABLE, "of-the-environment")
    assert access(file, none=False) == Access(TOKEN)  # an option goes before the environment
    assert VARIABLE not in os.environ  # and what the server starts never sees it
    monkeypatch.setenv(VARIABLE, "of-the-environment")
    assert access(None, none=False) == Access("of-the-environment")
    assert access(None, none=True) == EVERYBODY
    with pytest.raises(SettingError, match="exclude each other"):
        access(file, none=True)


@pytest.mark.parametrize("token", ["", "short", "x" * (SHORTEST - 1), "x" * 2000, "with spaces in between", "é" * 20])
def test_tokens_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    with pytest.raises(SettingError, match="holds no token"):
        access(file, none=False)
    if token:
        monkeypatch.setenv(VARIABLE, token)
        with pytest.raises(SettingError, match=f"{VARIABLE} holds no token"):
            access(None, none=False)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_token_file_that_others_read_or_change(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(mode)
    with pytest.raises(SettingError, match="chmod 600"):
        access(file, none=False)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, lambda path: os.mkfifo(path, 0o600)])
def test_a_token_file_that_is_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "token")
    with pytest.raises(SettingError, match="cannot be read"):
        access(tmp_path / "token", none=False)


def test_what_other_machines_reach_wants_a_token() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "")))
    for serve in (serve_tcp, serve_ws):
        with pytest.raises(ListenError, match="reached from other machines: leave out --no-token"):
            serve("0.0.0.0", 0, access=EVERYBODY)


def test_comparing_takes_all_kinds_of_things() -> None:
    allows: Callable[[object], bool] = partial(Access.allows, Access(TOKEN))
    assert allows(TOKEN)
    assert not any(map(allows, (None, 1, b"x", TOKEN.encode(), [TOKEN], {TOKEN: TOKEN}, "", "é", "\ud800")))
