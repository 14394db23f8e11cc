"""What pygls does otherwise than this server needs: its message loop's edges and its built-in document handling.

- A message is answered whatever is wrong with it: malformed JSON or parameters, a request before `initialize` or
  after `shutdown`. (pygls leaves some of them without an answer, and shows the user a popup instead.)
- A text is kept once, by `documents`, and not in pygls's workspace as well.
- A request sees the document as it was when the request came, though its handler starts later.
- utf-8 positions wherever the client offers them.
- Commands can be cancelled, and are under way when `shutdown` comes.
- Errors that are the user's become LSP errors of one sentence; the rest are bugs, and logged without the user's text.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from cattrs import Converter
from lsprotocol import types
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInternalError,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcMethodNotFound,
    JsonRpcParseError,
    JsonRpcServerNotInitialized,
)
from pygls.protocol import JsonRPCNotification, JsonRPCRequestMessage, LanguageServerProtocol, lsp_method

from lsp_charrnn.errors import NO_MEMORY, UserError
from lsp_charrnn.server.documents import is_uri
from lsp_charrnn.server.structure import mistakes

if TYPE_CHECKING:
    from lsp_charrnn.server.app import Server
    from lsp_charrnn.server.documents import OpenDocument

logger = logging.getLogger(__name__)

# The document that the request under way is about, as it was when the request came; None: it wasn't open.
arrived_with: Final[ContextVar[OpenDocument | None]] = ContextVar("arrived_with", default=None)

_PREFERENCE: Final = (
    types.PositionEncodingKind.Utf8,  # what the text is kept in: no conversion
    types.PositionEncodingKind.Utf16,
    types.PositionEncodingKind.Utf32,
)

# pygls keeps notebooks' texts; nobody here reads them.
_NOT_OFFERED: Final = (
    types.NOTEBOOK_DOCUMENT_DID_OPEN,
    types.NOTEBOOK_DOCUMENT_DID_CHANGE,
    types.NOTEBOOK_DOCUMENT_DID_CLOSE,
)
_TELLING_TEXT: Final = (types.TEXT_DOCUMENT_DID_OPEN, types.TEXT_DOCUMENT_DID_CHANGE)  # one that is lost is missed
_EXPLAINED: Final = 1 << 16  # bytes of a message whose mistakes are told one by one
_LONGEST: Final = 500  # characters of what a client sent that are sent back to it


class Protocol(LanguageServerProtocol):
    """One connection's protocol. Everything in it runs on the event loop."""

    _server: Server
    _initialized = False

    def __init__(self, server: Server, converter: Converter) -> None:
        super().__init__(server, converter)
        for method in _NOT_OFFERED:
            self.fm.builtin_features.pop(method, None)

    def receive_all(self, bodies: list[bytes]) -> None:
        """Take the messages that have arrived together; their requests are worked on when all have been taken."""
        for body in bodies:
            try:
                self._receive(body)
            except MemoryError:
                self._server.out_of_memory()
                return
            except Exception as error:
                log_bug("a message", error)

    def _receive(self, body: bytes) -> None:
        try:
            data = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            self._refuse(None, JsonRpcParseError("a message is not JSON in UTF-8."))
            return
        request = data.get("id") if isinstance(data, dict) else None
        if not _is_id(request):
            request = None
        if not isinstance(data, dict) or data.get("jsonrpc") != "2.0":
            self._refuse(request, JsonRpcInvalidRequest('a message must be an object with "jsonrpc": "2.0".'))
            return
        try:
            if "method" in data:
                self._receive_call(data, request, len(body))
            else:
                self._receive_response(data, request)
        except MemoryError:
            raise
        except Exception as error:
            log_bug("a message", error)
            if "method" in data and request is not None:
                self._refuse(
                    request, JsonRpcInternalError("it failed: this is a bug of the server, its log says where.")
                )

    def _receive_call(self, data: dict[str, Any], request: str | int | None, size: int) -> None:
        """Take a request, or a notification."""
        method = data["method"]
        refusal = self._refusal(method, data, request)
        if refusal is not None:
            if "id" in data:
                self._refuse(request, refusal)
            else:
                logger.info("a notification was left out: %s", refusal.message)
            return
        uri = _document_uri(data)
        try:
            message = self._structured(data, size)
        except JsonRpcException as error:
            if request is not None:
                self._refuse(request, error)
                return
            logger.warning("a malformed %s was left out", method)
            logger.debug("%s", error.message)
            if uri is not None and method in _TELLING_TEXT:
                self._server.lose_track(uri)
            return
        token = arrived_with.set(self._server.documents.find(uri) if uri is not None else None)
        try:
            self.handle_message(message)
        finally:
            arrived_with.reset(token)

    def _receive_response(self, data: dict[str, Any], request: str | int | None) -> None:
        """Take the answer to a request of ours; others are left out, before anything is made of them."""
        if request is None or request not in self._result_types:
            logger.info("a response to no request was left out")
            return
        try:
            message = self.structure_message(data)
        except JsonRpcException as error:
            waiting = self._request_futures.pop(request, None)
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
            return
        finally:
            self._result_types.pop(request, None)
        self.handle_message(message)

    def _refusal(self, method: object, data: dict[str, Any], request: str | int | None) -> JsonRpcException | None:
        """Return why a call is not to be looked at any closer, if so."""
        if "id" in data and request is None:
            return JsonRpcInvalidRequest("the id of a request must be a string or a whole number.")
        if not isinstance(method, str):
            return JsonRpcInvalidRequest("the method of a message must be a string.")
        untimely = self._untimely(method)
        if untimely is not None:
            return untimely
        known = method in self.fm.builtin_features or method in self.fm.features or method == types.CANCEL_REQUEST
        if not known:
            return JsonRpcMethodNotFound(f"{method[:_LONGEST]} is unknown to this server.")
        if request is None or method == types.EXIT:
            return None
        if method in types.METHOD_TO_TYPES and types.METHOD_TO_TYPES[method][1] is None:
            return JsonRpcInvalidRequest(f"{method} is a notification: send it without an id.")
        if request in self._request_futures:
            return JsonRpcInvalidRequest("the id of a request must be another one than those under way.")
        return None

    def _structured(self, data: dict[str, Any], size: int) -> Any:
        method = data["method"]
        if method not in types.METHOD_TO_TYPES:  # ours: its parameters are JSON as it came
            params = data.get("params")
            if "id" in data:
                return JsonRPCRequestMessage(data["id"], method, data["jsonrpc"], params)
            return JsonRPCNotification(method, data["jsonrpc"], params)
        try:
            return self.structure_message(data)
        except JsonRpcException as error:
            found = mistakes(data, self.get_message_type(method)) if size <= _EXPLAINED else ""
            what = f"the parameters of {method} are malformed{f': {found}' if found else ''}"
            raise JsonRpcInvalidParams(f"{what[:_LONGEST]}.") from error

    def _untimely(self, method: str) -> JsonRpcException | None:
        if self._shutdown and method != types.EXIT:
            return JsonRpcInvalidRequest(f"{method[:_LONGEST]} came after shutdown: start the server anew.")
        if not self._initialized and method not in (types.INITIALIZE, types.EXIT):
            return JsonRpcServerNotInitialized(f"{method[:_LONGEST]} came before initialize: send that first.")
        if self._initialized and method == types.INITIALIZE:
            return JsonRpcInvalidRequest("initialize came a second time: start the server anew.")
        return None

    def _refuse(self, request: Any, error: JsonRpcException) -> None:
        # Not by `_send_response`, which leaves out an id that is null.
        answer = {"code": error.code, "message": error.message}
        self._send_data({"jsonrpc": "2.0", "id": request, "error": answer})

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> Generator[Any, Any, types.InitializeResult]:
        """Agree on positions, then on the rest as pygls does. All at once: a client may have sent more already."""
        general = params.capabilities.general
        if general is not None and general.position_encodings:
            # pygls takes the first of the client's that it knows.
            general.position_encodings = sorted(general.position_encodings, key=_preference)
        params.root_uri = params.root_uri if params.root_uri is None or is_uri(params.root_uri) else None
        params.workspace_folders = [folder for folder in params.workspace_folders or () if is_uri(folder.uri)] or None
        result = yield from super().lsp_initialize(params)
        self._server.set_up(params, result.capabilities)
        self._initialized = True
        return result

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Keep the text in our own store, instead of pygls's."""
        self._noted("didOpen", self._server.did_open, params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Change the text in our own store, at once, so that what follows in the same burst sees it."""
        self._noted("didChange", self._server.did_change, params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Forget the text."""
        self._noted("didClose", self._server.did_close, params)

    @lsp_method(types.SHUTDOWN)
    def lsp_shutdown(self, *_: Any) -> None:  # type: ignore[override]  # nothing to wait for, so no generator
        """Cancel what is under way, as pygls does, which stumbles over commands: they leave the list at once."""
        own = self.msg_id
        for request, future in list(self._request_futures.items()):
            if request != own:
                future.cancel()
        self._shutdown = True

    @lsp_method(types.EXIT)
    def lsp_exit(self, *_: Any) -> None:  # type: ignore[override]  # nothing to wait for, so no generator
        """End this connection; the process belongs to `app`."""
        self._server.finish(0 if self._shutdown else 1)

    @lsp_method(types.WINDOW_WORK_DONE_PROGRESS_CANCEL)
    def lsp_work_done_progress_cancel(self, params: types.WorkDoneProgressCancelParams) -> None:
        """Cancel what a progress shows; a token that is none shows nothing."""
        shown = self.progress.tokens.get(params.token) if _is_id(params.token) else None
        if shown is not None:
            shown.cancel()

    def _execute_handler(self, msg_id: Any, *arguments: Any, **named: Any) -> None:
        """Run a handler as pygls does, which would keep a notification's task, with all that it knew, for ever."""
        super()._execute_handler(msg_id, *arguments, **named)
        future = self._request_futures.get(msg_id)
        if future is not None:
            future.add_done_callback(lambda done: self._forget(msg_id, done))

    def _forget(self, msg_id: Any, done: object) -> None:
        if self._request_futures.get(msg_id) is done:  # a request's has been taken out already
            del self._request_futures[msg_id]

    def _handle_cancel_notification(self, msg_id: Any) -> None:
        if _is_id(msg_id):  # which nobody has looked at yet
            super()._handle_cancel_notification(msg_id)

    def get_message_type(self, method: str) -> type[Any] | None:  # type: ignore[override]
        """Look up a message's type, without pygls's cache, which keeps the protocols of clients that have gone."""
        return types.METHOD_TO_TYPES[method][0] if method in types.METHOD_TO_TYPES else None

    def get_result_type(self, method: str) -> type[Any] | None:  # type: ignore[override]
        """Look up a result's type, likewise."""
        return types.METHOD_TO_TYPES[method][1] if method in types.METHOD_TO_TYPES else None

    @property
    def shut_down(self) -> bool:
        """Whether the client has asked for `shutdown`."""
        return self._shutdown

    def when_cancelled(self, call: Callable[[], None]) -> None:
        """Let `call` be called if the client cancels the request under way, a command, of which pygls tells nobody."""
        request = self.msg_id
        future = None if request is None else self._request_futures.get(request)
        if future is not None:
            future.add_done_callback(lambda done: call() if done.cancelled() else None)

    def abandon(self) -> None:
        """Cancel every request under way, the client's and ours: nobody waits any more."""
        for future in list(self._request_futures.values()):
            future.cancel()

    def _noted(self, what: str, handle: Callable[[Any], None], params: Any) -> None:
        try:
            handle(params)
        except UserError as error:
            logger.warning("%s: %s", what, error)
        except MemoryError:
            self._server.out_of_memory()
        except Exception as error:
            log_bug(what, error)
            if what != "didClose":
                self._server.lose_track(params.text_document.uri)


def answering(what: str, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return the coroutine function `handle` with its errors made into LSP errors."""

    async def answer(*arguments: Any) -> Any:
        try:
            return await handle(*arguments)
        except (asyncio.CancelledError, JsonRpcException):
            raise
        except UserError as error:
            raise JsonRpcInvalidParams(str(error)) from None
        except MemoryError:
            raise JsonRpcInternalError(f"{what}: {NO_MEMORY}") from None
        except Exception as error:
            log_bug(what, error)
            raise JsonRpcInternalError(f"{what} failed: this is a bug of the server, its log says where.") from None

    # pygls asks whether the first parameter's type is a server, and on Python 3.10 `Any` is no class to ask about.
    answer.__annotations__.clear()
    return answer


def log_bug(what: str, error: BaseException) -> None:
    """Log where an unforeseen exception came from; its message, which may hold the user's text, at debug only."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames))
    logger.error("%s failed: %s in %s", what, type(error).__name__, where)
    logger.debug("%s", error, exc_info=error)


def _preference(encoding: types.PositionEncodingKind | str) -> int:
    return _PREFERENCE.index(types.PositionEncodingKind(encoding)) if encoding in _PREFERENCE else len(_PREFERENCE)


def _is_id(value: object) -> bool:
    """Say whether a value can name a request, or a progress."""
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # which Python reads all the same


def _document_uri(data: Mapping[str, Any]) -> str | None:
    params = data.get("params")
    document = params.get("textDocument") if isinstance(params, dict) else None
    uri = document.get("uri") if isinstance(document, dict) else None
    return uri if isinstance(uri, str) else None
