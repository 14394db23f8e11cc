"""Who may connect: the token that a client over TCP or WebSocket shows before anything else is listened to.

Every user of a machine can connect to its ports, and so can web pages. Over TCP the token stands in the
`initializationOptions` of the first message; over WebSocket in the handshake, in `Authorization: Bearer TOKEN` or the
address's `?token=TOKEN`, for a browser can set no headers. Until it was shown there is no server for the client, little
is read, and not for long. Standard input and output belong to whoever started the process, and need none.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import platformdirs
from lsprotocol.types import LSPErrorCodes

from lsp_charrnn.errors import SettingError
from lsp_charrnn.private import create, is_private, make_directory, open_regular
from lsp_charrnn.server.settings import SECTION
from lsp_charrnn.server.transport import Framing, FramingError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

VARIABLE: Final = "LSP_CHARRNN_TOKEN"
SHORTEST: Final = 16  # characters of a token that is given
LONGEST: Final = 1024
FIRST_MESSAGE: Final = 1 << 18  # bytes that are read of a client that has shown no token
PATIENCE: Final = 10.0  # seconds for which such a client is listened to

_REFUSAL: Final = (
    "the token is missing or wrong: give the one that `lsp-charrnn serve` named when it started as "
    "initializationOptions.token."
)


@dataclass(frozen=True)
class Access:
    """What a client must show: `token`, or nothing where it is None. `made`: nobody knows it yet but this process."""

    token: str | None
    made: bool = False

    def allows(self, shown: object) -> bool:
        """Say whether what a client shows is the token; the time that takes says nothing of it."""
        if self.token is None:
            return True
        given = shown if isinstance(shown, str) else ""
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.token.encode("utf-8"))

    @contextmanager
    def kept(self, port: int) -> Iterator[Path | None]:
        """Keep a token that was made in a file that the user alone can read, while the server runs; say where it is.

        Raises `SettingError` where it cannot be written.
        """
        if self.token is None or not self.made:
            yield None
            return
        path = token_file(port)
        try:
            make_directory(path.parent)
            path.unlink(missing_ok=True)  # of a server that was killed: only one can have the port
            with create(path) as file:
                file.write(self.token.encode("utf-8") + b"\n")
        except OSError as error:
            raise SettingError(
                f"cannot write the token to {path} ({error.strerror or error}): give one with --token-file."
            ) from error
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink()


EVERYBODY: Final = Access(None)


def token_file(port: int) -> Path:
    """Return where a server on this port keeps the token that it has made."""
    return Path(platformdirs.user_data_dir("lsp-charrnn", appauthor=False)) / "tokens" / str(port)


def access(file: Path | None, *, none: bool) -> Access:
    """Return what clients must show: the token in `file`, else that of the environment, else one that is made now.

    The environment's is taken out of it: what this process starts has no use for it. Raises `SettingError`.
    """
    given = os.environ.pop(VARIABLE, "")
    if none:
        if file is not None:
            raise SettingError("--token-file and --no-token exclude each other: give one of them.")
        return EVERYBODY
    if file is not None:
        return Access(_read(file))
    if given:
        return Access(_checked(given, VARIABLE))
    return Access(secrets.token_urlsafe(32), made=True)


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach `host`; a name that nobody knows is reported by who listens there."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return True
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


async def first_messages(reader: asyncio.StreamReader, framing: Framing, who: Access) -> list[bytes] | bytes:
    """Return the first messages of a TCP client that may connect; else the answer that it gets before it is cut off.

    Where nothing is to be shown none are waited for, and the protocol answers whatever comes.

    Raises `FramingError` where it sends no LSP, or too much before its token; `asyncio.TimeoutError`, `OSError`.
    """
    if who.token is None:
        return []
    bodies = await asyncio.wait_for(_first(reader, framing), PATIENCE)
    if not bodies:
        return b""
    message: Any = None
    with suppress(ValueError, RecursionError):
        message = json.loads(bodies[0])
    if not isinstance(message, dict):
        message = {}
    if message.get("method") == "initialize" and who.allows(_token_in(message.get("params"))):
        return bodies
    number = message.get("id")
    return json.dumps(
        {
            "jsonrpc": "2.0",
            "id": number if isinstance(number, (int, str)) else None,
            "error": {"code": int(LSPErrorCodes.RequestFailed), "message": _REFUSAL},
        }
    ).encode()


def checks_handshake(who: Access) -> Any:
    """Return what `websockets` is to ask of each handshake: None lets it go on, a response ends it."""

    def check(connection: ServerConnection, request: Request) -> Response | None:
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            shown = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
        if who.allows(shown.strip()):
            return None
        return connection.respond(
            HTTPStatus.UNAUTHORIZED,
            "The token is missing or wrong: give it as `Authorization: Bearer TOKEN`, or `?token=TOKEN`.\n",
        )

    return check


async def _first(reader: asyncio.StreamReader, framing: Framing) -> list[bytes]:
    size = 0
    while data := await reader.read(1 << 14):
        size += len(data)
        if bodies := framing.feed(data):
            return bodies
        if size > FIRST_MESSAGE:
            raise FramingError("a client sent much before its token: it was cut off.")
    return []


def _token_in(params: object) -> object:
    """Return what stands where settings may stand: by itself, or under the section's name."""
    options = params.get("initializationOptions") if isinstance(params, Mapping) else None
    if not isinstance(options, Mapping):
        return None
    section = options.get(SECTION)
    inner = section.get("token") if isinstance(section, Mapping) else None
    return inner or options.get(f"{SECTION}.token") or options.get("token")


def _read(file: Path) -> str:
    try:
        with open_regular(file) as opened:
            private = is_private(os.fstat(opened.fileno()))
            data = opened.read(LONGEST + 2)
    except OSError as error:
        raise SettingError(
            f"the token in {file} cannot be read ({error.strerror or error}): write one there, for instance by "
            f"`(umask 077; openssl rand -hex 32 > {file})`."
        ) from error
    if not private:
        raise SettingError(f"others can read or change {file}: make it yours alone by `chmod 600 {file}`.")
    try:
        return _checked(data.decode("utf-8").strip(), str(file))
    except UnicodeDecodeError as error:
        raise SettingError(f"{file} holds no token: write {SHORTEST} letters and digits or more.") from error


def _checked(token: str, where: str) -> str:
    if not SHORTEST <= len(token) <= LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingError(
            f"{where} holds no token: write {SHORTEST} to {LONGEST} letters and digits, not to be guessed."
        )
    return token
