"""One client's session, around an engine whose answers are known (see `fake_server`)."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from wire import COMPLETION, INLINE, INLINE_CLIENT, URI, Wire, at, connected, eventually, insert, span

from lsp_charrnn.config import Settings
from lsp_charrnn.errors import NO_MEMORY
from lsp_charrnn.server import app

pytestmark = pytest.mark.asyncio

INVALID_PARAMS = -32602
CANCELLED = -32800


def texts(items: list[dict[str, Any]]) -> list[str]:
    return [item["insertText"] for item in items]


def shown(wire: Wire) -> list[str]:
    return [m["params"]["message"] for m in wire.notified if m["method"] == "window/showMessage"]


async def test_automatic_gives_one_item_and_invoked_several() -> None:
    async with connected() as wire:
        wire.open("x = 1\npri")
        one = await wire.suggestions(1, 3)
        assert texts(one) == ["print(value)"]
        assert one[0]["range"] == span(1, 0, 3)
        assert one[0]["command"]["command"] == "lspCharrnn.accepted"
        several = await wire.suggestions(1, 3, invoked=True)
        assert texts(several) == ["print(value)", "prints", "printer.run(\n    now)"]


async def test_nothing_to_suggest_is_an_empty_list() -> None:
    async with connected() as wire:
        wire.open("nothing goes on from here")
        assert await wire.suggestions(0, 25) == []


async def test_typing_key_by_key() -> None:
    async with connected() as wire:
        wire.open("")
        for column, key in enumerate("print(v"):
            wire.receive(wire.changed(insert(0, column, key)))
            items = await wire.suggestions(0, column + 1)
            # Behind a bracket the fake engine knows nothing to say.
            assert texts(items) == (["print(value)"] if column < len("print") else [])


async def test_several_changes_each_relative_to_the_one_before() -> None:
    async with connected() as wire:
        wire.open("a\nb\n")
        wire.receive(wire.changed(insert(0, 0, "pr\n"), insert(0, 2, "i"), {"range": span(1, 0, 1), "text": "z"}))
        assert wire.server.documents.get(URI).text.data == b"pri\nz\nb\n"
        assert texts(await wire.suggestions(0, 3)) == ["print(value)"]
        wire.receive(wire.changed({"text": "all new\npri"}))
        assert texts(await wire.suggestions(1, 3)) == ["print(value)"]


@pytest.mark.parametrize(
    ("offered", "agreed", "column"),
    [
        (["utf-16", "utf-8"], "utf-8", 18),
        (["utf-32", "utf-16"], "utf-16", 13),
        (["utf-32"], "utf-32", 12),
        (None, "utf-16", 13),
        (["cp1252"], "utf-16", 13),
    ],
)
async def test_positions_in_every_encoding(offered: list[str] | None, agreed: str, column: int) -> None:
    capabilities: dict[str, Any] = {**INLINE_CLIENT}
    if offered is not None:
        capabilities["general"] = {"positionEncodings": offered}
    async with connected(capabilities) as wire:
        assert wire.initialized["capabilities"]["positionEncoding"] == agreed
        wire.open("# 😀 é = été_")
        items = await wire.suggestions(0, column)
        assert texts(items) == ["été_😀_fin"]
        assert items[0]["range"]["end"]["character"] == column
        assert items[0]["range"]["start"]["character"] == column - {"utf-8": 6, "utf-16": 4, "utf-32": 4}[agreed]


async def test_a_position_past_the_end_means_the_end() -> None:
    async with connected() as wire:
        wire.open("pri\nx")
        assert texts(await wire.suggestions(0, 99)) == ["print(value)"]
        wire.open("x\npri")
        assert texts(await wire.suggestions(99, 99)) == ["print(value)"]


async def test_line_ends_are_the_documents_own() -> None:
    async with connected() as wire:
        wire.open("x\r\nprinter")
        assert texts(await wire.suggestions(1, 7)) == ["printer.run(\r\n    now)"]


async def test_neovim_gets_plain_newlines_at_the_cursor() -> None:
    async with connected(clientInfo={"name": "Neovim"}) as wire:
        wire.open("x\r\nprinter")
        (item,) = await wire.suggestions(1, 7)
        assert item["insertText"] == ".run(\n    now)"
        assert item["range"]["start"] == item["range"]["end"] == {"line": 1, "character": 7}


async def test_a_document_that_is_not_open_is_an_error_of_one_sentence() -> None:
    async with connected() as wire:
        error = (await wire.ask_whole(INLINE, at(0, 0)))["error"]
        assert error["code"] == INVALID_PARAMS
        assert error["message"] == f"{URI} is not open: send textDocument/didOpen before asking about it."
        wire.receive(wire.changed(insert(0, 0, "x")))
        wire.notify("textDocument/didClose", {"textDocument": {"uri": URI}})
        wire.open("pri")
        assert texts(await wire.suggestions(0, 3)) == ["print(value)"]


async def test_closing_frees_the_document() -> None:
    async with connected() as wire:
        wire.open("pri")
        await wire.suggestions(0, 3)
        wire.notify("textDocument/didClose", {"textDocument": {"uri": URI}})
        assert wire.session.documents == {}
        assert len(wire.server.documents) == 0
        assert (await wire.ask_whole(INLINE, at(0, 3)))["error"]["code"] == INVALID_PARAMS


@pytest.mark.parametrize(
    "params",
    [
        {},
        None,
        [],
        {"textDocument": {"uri": URI}},
        {
            "textDocument": {"uri": URI},
            "position": {"line": "x", "character": 0},
            "context": {"triggerKind": 1},
        },
        {
            "textDocument": {"uri": URI},
            "position": {"line": None, "character": 0},
            "context": {"triggerKind": 1},
        },
        {
            "textDocument": {"uri": URI},
            "position": {"line": 0, "character": 0},
            "context": {"triggerKind": 7},
        },
        {"textDocument": "a", "position": 3},
    ],
)
async def test_malformed_parameters_are_refused_and_the_server_goes_on(params: Any) -> None:
    async with connected() as wire:
        wire.open("pri")
        error = (await wire.ask_whole(INLINE, params))["error"]
        assert error["code"] == INVALID_PARAMS
        assert error["message"].startswith(f"the parameters of {INLINE} are malformed")
        assert texts(await wire.suggestions(0, 3)) == ["print(value)"]
        assert shown(wire) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b'"\xff"', -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"{}", -32600),
        (b'{"jsonrpc": "1.0", "method": "x"}', -32600),
    ],
)
async def test_what_is_no_message_is_refused_and_the_server_goes_on(body: bytes, code: int) -> None:
    async with connected() as wire:
        wire.receive(body)
        assert (await wire.answer(None))["error"]["code"] == code
        wire.open("pri")
        assert texts(await wire.suggestions(0, 3)) == ["print(value)"]


async def test_requests_at_the_wrong_time_are_answered() -> None:
    async with connected(ready=False) as wire:
        assert (await wire.ask_whole(INLINE, at(0, 0)))["error"]["code"] == -32002
        wire.open("pri")  # before initialize: left out
        assert len(wire.server.documents) == 0
    async with connected() as wire:
        assert (await wire.ask_whole("initialize", {"capabilities": {}}))["error"]["code"] == -32600
        assert (await wire.ask_whole("textDocument/hover", at(0, 0)))["error"]["code"] == -32601
        assert await wire.ask("shutdown", None) is None
        assert (await wire.ask_whole(INLINE, at(0, 0)))["error"]["code"] == -32600
        wire.notify("exit", None)
        assert await wire.server.finished == 0


async def test_ending_without_shutdown_is_an_error() -> None:
    async with connected() as wire:
        wire.notify("exit", None)
        assert await wire.server.finished == 1
    async with connected() as wire:
        wire.server.disconnected()
        assert await wire.server.finished == 1
    async with connected() as wire:
        await wire.ask("shutdown", None)
        wire.server.disconnected()
        assert await wire.server.finished == 0


# --- cancelling and overtaking ------------------------------------------------------------------------------


async def test_cancel_stops_the_engine_within_a_step() -> None:
    async with connected() as wire:
        wire.open("wait")
        request = wire.request(INLINE, at(0, 4))
        wire.receive(request)
        await wire.settled()
        assert wire.session.asked == 1
        wire.notify("$/cancelRequest", {"id": request["id"]})
        assert (await wire.answer(request["id"]))["error"]["code"] == CANCELLED
        await wire.settled()
        assert wire.session.cancelled == 1


async def test_cancel_before_the_request_has_begun() -> None:
    async with connected() as wire:
        wire.open("wait")
        request = wire.request(INLINE, at(0, 4))
        wire.receive(request, {"method": "$/cancelRequest", "params": {"id": request["id"]}})
        assert (await wire.answer(request["id"]))["error"]["code"] == CANCELLED
        assert wire.session.asked == 0


async def test_an_edit_overtakes_a_request() -> None:
    async with connected() as wire:
        wire.open("wait")
        request = wire.request(INLINE, at(0, 4))
        wire.receive(request)
        await wire.settled()
        wire.receive(wire.changed({"range": span(0, 0, 4), "text": "pri"}))
        assert texts(await wire.suggestions(0, 3)) == ["print(value)"]
        assert (await wire.answer(request["id"]))["result"] == {"items": []}
        assert wire.session.cancelled == 1


async def test_a_newer_request_overtakes_an_older_one() -> None:
    async with connected() as wire:
        wire.open("wait\npri")
        request = wire.request(INLINE, at(0, 4))
        wire.receive(request)
        await wire.settled()
        assert texts(await wire.suggestions(1, 3)) == ["print(value)"]
        assert (await wire.answer(request["id"]))["result"] == {"items": []}


async def test_requests_for_other_documents_are_left_alone() -> None:
    async with connected() as wire:
        other = "file:///project/b.py"
        wire.open("wait")
        wire.open("pri", uri=other)
        waiting = wire.request(INLINE, at(0, 4))
        wire.receive(waiting)
        await wire.settled()
        behind = wire.request(INLINE, at(0, 3, uri=other))
        wire.receive(behind)
        await wire.settled()
        assert not wire.expect(behind["id"]).done()  # one model thread: it waits its turn
        wire.notify("$/cancelRequest", {"id": waiting["id"]})
        assert texts((await wire.answer(behind["id"]))["result"]["items"]) == ["print(value)"]


async def test_in_a_burst_only_the_newest_request_costs_anything() -> None:
    async with connected() as wire:
        wire.open("")
        burst = []
        for column in range(200):
            burst += [wire.changed(insert(0, column, "x")), wire.request(INLINE, at(0, column + 1))]
        burst += [wire.changed({"text": "pri"}), wire.request(INLINE, at(0, 3))]
        wire.receive(*burst)
        answers = [await wire.answer(m["id"]) for m in burst if "id" in m]
        assert [a["result"]["items"] for a in answers[:-1]] == [[]] * 200
        assert texts(answers[-1]["result"]["items"]) == ["print(value)"]
        assert wire.session.asked == 1


async def test_a_request_that_a_close_overtakes_is_no_error() -> None:
    async with connected() as wire:
        wire.open("wait")
        request = wire.request(INLINE, at(0, 4))
        wire.receive(request, {"method": "textDocument/didClose", "params": {"textDocument": {"uri": URI}}})
        assert (await wire.answer(request["id"]))["result"] == {"items": []}


async def test_shutdown_ends_what_is_under_way() -> None:
    async with connected() as wire:
        wire.open("wait")
        request = wire.request(INLINE, at(0, 4))
        wire.receive(request)
        await wire.settled()
        assert await wire.ask("shutdown", None) is None
        assert (await wire.answer(request["id"]))["error"]["code"] == CANCELLED


async def test_an_edit_is_read_ahead() -> None:
    async with connected() as wire:
        wire.open("x")
        await wire.settled()
        before = wire.session.advanced
        wire.receive(wire.changed(insert(0, 1, "y")))
        await wire.settled()
        assert wire.session.advanced == before + 1


async def test_what_waits_to_be_read_waits_until_the_answer_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "ANSWERED", 1.0)
    other = "file:///project/b.py"
    async with connected() as wire:
        wire.open("wait", uri=other)
        await wire.settled()
        waiting = wire.request(INLINE, at(0, 4, uri=other))
        wire.receive(waiting)
        await wire.settled()
        wire.open("pri")
        before = wire.session.advanced
        request = wire.request(INLINE, at(0, 3))
        wire.receive(request)
        await wire.settled()
        wire.receive({"method": "textDocument/didClose", "params": {"textDocument": {"uri": other}}})
        assert texts((await wire.answer(request["id"]))["result"]["items"]) == ["print(value)"]
        await wire.settled()
        assert wire.session.advanced == before
        await eventually(lambda: wire.session.advanced == before + 1)


async def test_what_is_being_read_is_not_gone_on_with_until_the_answer_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "ANSWERED", 1.0)
    async with connected() as wire:
        begun: list[str] = []

        def advance(uri: str, *, cancelled: Callable[[], bool]) -> None:
            begun.append(uri)
            while not cancelled():
                time.sleep(0.001)

        wire.session.advance = advance  # type: ignore[method-assign]
        wire.open("pri")
        await wire.settled()
        assert texts(await wire.suggestions(0, 3)) == ["print(value)"]
        await wire.settled()
        assert begun == [URI]
        await eventually(lambda: begun == [URI, URI])


async def test_after_a_cancelled_request_it_is_read_ahead_again() -> None:
    async with connected() as wire:
        wire.open("wait")
        await wire.settled()
        before = wire.session.advanced
        request = wire.request(INLINE, at(0, 4))
        wire.receive(request)
        await wire.settled()
        wire.notify("$/cancelRequest", {"id": request["id"]})
        assert (await wire.answer(request["id"]))["error"]["code"] == CANCELLED
        await wire.settled()
        assert wire.session.advanced == before + 1


async def test_what_is_around_the_cursor_is_read_once_the_user_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "QUIET", 0.15)
    monkeypatch.setattr(app, "ANSWERED", 0.0)
    other = "file:///project/src/b.py"
    async with connected() as wire:
        wire.open("x")
        for column in range(1, 5):
            await asyncio.sleep(0.05)
            wire.receive(wire.changed(insert(0, column, "y")))
        assert wire.session.around == []  # each key puts it off
        await asyncio.sleep(0.3)
        await wire.settled()
        assert wire.session.around == [URI]
        await wire.ask(INLINE, at(0, 2))  # a completion at a place where no key was typed
        await asyncio.sleep(0.3)
        await wire.settled()
        assert wire.session.around == [URI, URI]
        await asyncio.sleep(0.3)
        assert wire.session.around == [URI, URI]  # and that is all
        wire.open("x", uri=other)
        wire.receive({"method": "textDocument/didClose", "params": {"textDocument": {"uri": other}}})
        await asyncio.sleep(0.3)
        assert wire.session.around == [URI, URI]


@pytest.mark.parametrize("how", ["closed", "switched off", "disconnected"])
async def test_the_memory_of_documents_that_were_left_is_given_back(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    uris = [URI, "file:///project/b.py"]
    left: list[int] = []  # documents that the engine still has, whenever memory is given back
    async with connected() as wire:
        monkeypatch.setattr(app, "give_back", lambda: left.append(len(wire.session.documents)))
        for uri in uris:
            wire.open("pri", uri=uri)
        await wire.settled()
        assert left == []
        if how == "closed":
            for uri in uris:
                wire.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        elif how == "switched off":
            await wire.ask("workspace/executeCommand", {"command": "lspCharrnn.toggle"})
        else:
            wire.server.close()
        await wire.settled()
        assert left[-1:] == [0]


async def test_nothing_is_kept_of_what_has_been_handled() -> None:
    async with connected() as wire:
        wire.open("pri")
        for _ in range(5):
            wire.notify("textDocument/didSave", {"textDocument": {"uri": URI}})
            wire.notify("workspace/didChangeConfiguration", {"settings": {}})
            assert await wire.suggestions(0, 3)
        await wire.settled()
        assert wire.server.protocol._request_futures == {}


# --- the popup's selection ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"range": span(0, 4, 7), "text": "print"}, ["print(value)"]),
        ({"range": span(0, 4, 7), "text": "printer"}, ["printer.run(\n    now)"]),
        ({"range": span(0, 0, 7), "text": "x = printer"}, ["x = printer.run(\n    now)"]),
        ({"range": span(0, 7, 7), "text": "nts"}, []),
        ({"range": span(0, 7, 7), "text": "nt"}, ["nt(value)"]),
        ({"range": span(0, 4, 7), "text": "printf"}, []),
        ({"range": span(0, 4, 7), "text": "print(value)"}, []),
    ],
)
async def test_suggestions_extend_what_is_selected_in_the_popup(selection: Any, expected: list[str]) -> None:
    async with connected() as wire:
        wire.open("x = pri")
        items = (await wire.ask(INLINE, at(0, 7, selectedCompletionInfo=selection)))["items"]
        assert texts(items) == expected
        assert all(item["range"]["start"] == selection["range"]["start"] for item in items)


# --- which documents ----------------------------------------------------------------------------------------


async def test_disabled_languages_and_globs() -> None:
    options = {"disabledLanguages": ["Markdown"], "disabledGlobs": ["gen/", "*_pb2.py", "!keep_pb2.py"]}
    async with connected(initializationOptions=options) as wire:
        for uri, language, on in [
            ("file:///project/a.py", "python", True),
            ("file:///project/a.md", "markdown", False),
            ("file:///project/gen/a.py", "python", False),
            ("file:///project/src/x_pb2.py", "python", False),
            ("file:///project/src/keep_pb2.py", "python", True),
            ("untitled:Untitled-1", "python", True),
        ]:
            wire.open("pri", uri=uri, language=language)
            assert bool(await wire.suggestions(0, 3, uri=uri)) is on, uri
            assert (uri in wire.session.documents) is on


@pytest.mark.parametrize(
    "path", [".env", "src/.env.local", "server.pem", "a/ID_RSA", ".aws/credentials", "x/.netrc", "deploy.key"]
)
async def test_secret_files_are_neither_kept_nor_completed(path: str) -> None:
    async with connected() as wire:
        uri = f"file:///project/{path}"
        wire.open("pri", uri=uri)
        wire.receive(wire.changed(insert(0, 3, "n"), uri=uri))
        assert await wire.suggestions(0, 3, uri=uri) == []
        assert wire.session.documents == {}
        assert wire.server.documents.get(uri).text.data == b""


async def test_toggle_all_and_by_language() -> None:
    async with connected() as wire:
        wire.open("pri")

        async def toggle(*arguments: Any) -> Any:
            return await wire.ask("workspace/executeCommand", {"command": "lspCharrnn.toggle", "arguments": arguments})

        assert await toggle() == {"enabled": False, "language": None}
        assert await wire.suggestions(0, 3) == []
        assert wire.session.documents == {}
        wire.receive(wire.changed(insert(0, 3, "n")))
        assert (await toggle())["enabled"] is True
        assert texts(await wire.suggestions(0, 4)) == ["print(value)"]
        assert await toggle("python") == {"enabled": False, "language": "python"}
        assert await wire.suggestions(0, 4) == []
        assert (await toggle("python"))["enabled"] is True
        wrong = await wire.ask_whole(
            "workspace/executeCommand", {"command": "lspCharrnn.toggle", "arguments": [{"a": 1}]}
        )
        assert wrong["error"]["code"] == INVALID_PARAMS


async def test_the_header_is_the_path_within_the_workspace() -> None:
    folders = [{"uri": "file:///project", "name": "w"}, {"uri": "file:///project/lib%20x", "name": "l"}]
    async with connected(workspaceFolders=folders) as wire:
        for uri, path in [
            ("file:///project/src/a.py", "src/a.py"),
            ("file:///project/lib%20x/deep/b%23.py", "deep/b#.py"),
            ("file:///elsewhere/c.py", "c.py"),
            ("file:///projectshop/c.py", "c.py"),
            ("untitled:Untitled-1", "Untitled-1"),
        ]:
            wire.open("path", uri=uri)
            assert texts(await wire.suggestions(0, 4, uri=uri)) == [f"path:{path}"]


# --- settings -----------------------------------------------------------------------------------------------


async def test_wrong_settings_are_told_once_and_the_rest_holds() -> None:
    options = {"decode": {"lanes": "many", "maxChars": 80}, "lanse": 1, "disabledGlobs": ["!", "*.md"]}
    async with connected(initializationOptions=options) as wire:
        await wire.settled()
        assert wire.server.settings == Settings(decode_max_chars=80, disabled_globs=("!", "*.md"))
        assert len(shown(wire)) == 3
        assert any("'decode.lanes' must be a whole number" in message for message in shown(wire))
        assert any("unknown setting 'lanse'" in message for message in shown(wire))
        assert any("disabledGlobs" in message for message in shown(wire))
        wire.notify("workspace/didChangeConfiguration", {"settings": {"lspCharrnn": {"decode.lanes": "many"}}})
        await wire.settled()
        assert len(shown(wire)) == 3
        wire.notify("workspace/didChangeConfiguration", {"settings": {"decode.lanes": 0.5}})
        await wire.settled()
        assert len(shown(wire)) == 4
        wire.open("pri")
        assert texts(await wire.suggestions(0, 3)) == ["print(value)"]


async def test_settings_are_pushed() -> None:
    async with connected(initializationOptions={"decode": {"lanes": 4}}) as wire:
        wire.open("pri")
        for sent, lanes in [
            ({"lspCharrnn": {"decode": {"lanes": 2}}}, 2),
            ({"decode.lanes": 3}, 3),
            ({"lspCharrnn.decode.lanes": 5, "other.thing": 1}, 5),
            (None, 4),
            ({}, 4),
            ([], 4),
        ]:
            wire.notify("workspace/didChangeConfiguration", {"settings": sent})
            await wire.settled()
            assert wire.server.settings.decode_lanes == lanes
            assert wire.session.settings.decode_lanes == lanes
        wire.notify("workspace/didChangeConfiguration", {"settings": {"disabledLanguages": ["python"]}})
        await wire.settled()
        assert await wire.suggestions(0, 3) == []
        wire.notify("workspace/didChangeConfiguration", {"settings": {}})
        await wire.settled()
        assert texts(await wire.suggestions(0, 3)) == ["print(value)"]
        assert shown(wire) == []


async def test_settings_are_pulled_where_the_client_can() -> None:
    workspace = {"configuration": True, "didChangeConfiguration": {"dynamicRegistration": True}}
    async with connected({**INLINE_CLIENT, "workspace": workspace}) as wire:

        async def reply(method: str, result: Any) -> None:
            await wire.settled()
            asked = wire.asked.pop(0)
            assert asked["method"] == method
            wire.receive({"id": asked["id"], "result": result})
            await wire.settled()

        await reply("client/registerCapability", None)
        await reply("workspace/configuration", [{"decode": {"lanes": 2}, "trace": {"server": "off"}, "command": []}])
        assert wire.server.settings.decode_lanes == 2
        assert shown(wire) == []
        wire.notify("workspace/didChangeConfiguration", {"settings": None})
        await reply("workspace/configuration", [None])
        assert wire.server.settings == Settings()
        wire.notify("workspace/didChangeConfiguration", {"settings": None})
        await wire.settled()
        wire.receive({"id": wire.asked.pop()["id"], "error": {"code": -32603, "message": "no"}})
        wire.open("pri")
        assert texts(await wire.suggestions(0, 3)) == ["print(value)"]


async def test_a_model_that_cannot_be_had_is_told_once_and_is_no_error() -> None:
    async with connected() as wire:
        wire.open("pri", language="unmodelled")
        assert await wire.suggestions(0, 3) == []
        assert await wire.suggestions(0, 3) == []
        assert shown(wire) == ["lsp-charrnn: there is no model: train one."]


# --- the popup list -----------------------------------------------------------------------------------------

POPUP_CLIENT = {
    "textDocument": {
        "completion": {
            "completionItem": {
                "documentationFormat": ["markdown", "plaintext"],
                "insertTextModeSupport": {"valueSet": [1, 2]},
            }
        }
    }
}


async def test_clients_without_ghost_text_get_a_list() -> None:
    async with connected(POPUP_CLIENT) as wire:
        offered = wire.initialized["capabilities"]
        assert "." in offered["completionProvider"]["triggerCharacters"]
        wire.open("x = pri")
        result = await wire.ask(COMPLETION, {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 7}})
        assert result["isIncomplete"] is True
        first, _, third = result["items"]
        assert first["label"] == "print(value)"
        assert first["textEdit"] == {"range": span(0, 4, 7), "newText": "print(value)"}
        assert first["filterText"] == "print(value)"
        assert third["label"] == "printer.run("
        assert third["documentation"] == {
            "kind": "markdown",
            "value": "```python\nprinter.run(\n    now)\n```",
        }
        assert third["textEdit"]["newText"] == "printer.run(\n    now)"
        assert third["insertTextMode"] == 1
        assert [item["sortText"] for item in result["items"]] == ["00", "01", "02"]
        assert not any(item.get("preselect") for item in result["items"])


async def test_clients_with_ghost_text_get_no_list() -> None:
    async with connected({"textDocument": {**POPUP_CLIENT["textDocument"], "inlineCompletion": {}}}) as wire:
        assert "completionProvider" not in wire.initialized["capabilities"]
        wire.open("pri")
        position = {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 3}}
        assert await wire.ask(COMPLETION, position) is None


# --- commands -----------------------------------------------------------------------------------------------


async def test_accepting_is_counted_once() -> None:
    async with connected() as wire:
        wire.open("pri")
        (item,) = await wire.suggestions(0, 3)
        for _ in range(2):
            assert await wire.ask("workspace/executeCommand", item["command"]) is None
        for arguments in ([], ["no such id"], [5]):
            command = {"command": "lspCharrnn.accepted", "arguments": arguments}
            assert await wire.ask("workspace/executeCommand", command) is None
        status = await wire.ask("workspace/executeCommand", {"command": "lspCharrnn.status"})
        counted = status["statistics"]
        assert (counted["requests"], counted["shown"], counted["accepted"]) == (1, 1, 1)
        assert counted["charactersSaved"] == len("nt(value)")
        assert counted["latencyMs"]["p50"] > 0


async def test_status_says_what_is_off_and_why() -> None:
    async with connected(initializationOptions={"disabledGlobs": ["*.py"]}) as wire:
        wire.open("pri")
        wire.open("pri", uri="file:///project/.env")

        async def status(*arguments: str) -> Any:
            return await wire.ask("workspace/executeCommand", {"command": "lspCharrnn.status", "arguments": arguments})

        assert (await status())["state"] == "idle"
        assert "disabledGlobs" in (await status(URI))["off"]
        assert "refined" not in await status(URI)
        assert "keys or passwords" in (await status("file:///project/.env"))["off"]
        json.dumps(await status())


async def test_status_says_how_far_the_reading_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "QUIET", 3600)  # the user goes on typing
    async with connected() as wire:

        async def reading() -> tuple[Any, Any, Any]:
            found = await wire.ask("workspace/executeCommand", {"command": "lspCharrnn.status", "arguments": [URI]})
            return found["off"], found["refined"], found["settled"]

        wire.open("pri")
        await wire.settled()
        assert await reading() == (None, True, False)
        monkeypatch.setattr(app, "QUIET", 0.01)  # and rests
        wire.open("pri")
        while await reading() != (None, True, True):
            await asyncio.sleep(0.01)


async def test_an_unknown_command_is_refused() -> None:
    async with connected() as wire:
        answer = await wire.ask_whole("workspace/executeCommand", {"command": "rm -rf"})
        assert answer["error"]["code"] == INVALID_PARAMS


# --- bugs ---------------------------------------------------------------------------------------------------


async def test_a_bug_is_answered_and_logged_without_the_users_text(caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as wire:
        wire.open("pri")
        await wire.settled()

        def broken(*_: Any, **__: Any) -> None:
            raise ValueError("the user's secret text")

        wire.session.complete = broken  # type: ignore[assignment, method-assign]
        with caplog.at_level(logging.INFO, logger="lsp_charrnn"):
            answer = await wire.ask_whole(INLINE, at(0, 3))
        assert answer["error"]["code"] == -32603
        assert "secret" not in answer["error"]["message"]
        assert "ValueError" in caplog.text
        assert "secret" not in "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("lsp_charrnn"))
        await asyncio.sleep(0)


# --- little memory ------------------------------------------------------------------------------------------


async def test_a_change_that_finds_no_memory_ends_the_session_for_the_text_is_not_the_clients_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected() as wire:
        wire.open("pri")

        def refused(*_: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(wire.server.documents, "change", refused)
        wire.receive(wire.changed(insert(0, 3, "n")))
        assert await wire.server.finished == 1
        assert [m["params"]["message"] for m in wire.notified if m["method"] == "window/showMessage"] == [
            f"lsp-charrnn: {NO_MEMORY}"
        ]


async def test_a_message_that_finds_no_memory_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as wire:

        def refused(*_: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(wire.server.protocol, "structure_message", refused)
        wire.open("pri")
        assert await wire.server.finished == 1


async def test_a_suggestion_that_finds_no_memory_costs_no_more_than_itself() -> None:
    async with connected() as wire:
        wire.open("pri")
        await wire.settled()
        complete = wire.session.complete

        def refused(*_: Any, **__: Any) -> None:
            raise MemoryError

        wire.session.complete = refused  # type: ignore[assignment, method-assign]
        answer = await wire.ask_whole(INLINE, at(0, 3))
        assert answer["error"]["message"].endswith(NO_MEMORY)
        wire.session.complete = complete  # type: ignore[method-assign]
        assert await wire.suggestions(0, 3)
