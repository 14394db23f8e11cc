"""Surprise as diagnostics, and the request that shows what neurons do: the real engine, around a small model."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_tiny, tiny_weights
from wire import INLINE_CLIENT, URI, Wire, eventually, insert, span

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.mixer import probabilities
from lsp_charrnn.engine.session import Session
from lsp_charrnn.model import reference
from lsp_charrnn.model.files import WEIGHTS_FILE, read_config
from lsp_charrnn.model.neurons import FILE, NeuronTable, Tracked, Tracking
from lsp_charrnn.server import app
from lsp_charrnn.server.app import Server
from lsp_charrnn.server.models import Models
from lsp_charrnn.server.worker import Worker
from lsp_charrnn.text.symbols import header, to_symbols
from lsp_charrnn.train.export import export_model

pytestmark = pytest.mark.asyncio

INSIDE = "lspCharrnn/inside"
TEXT = "quartz(x)\n" * 30 + "ü = quartz(y)\n"


@pytest.fixture(autouse=True)
def _model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSP_CHARRNN_MODELS", str(tiny_model.parent))
    monkeypatch.setattr(app, "QUIET", 0.02)


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Wire]:
    worker = Worker()
    server = Server(worker, Models(), defaults=Settings(decode_budget_ms=10_000), make_session=Session)
    wire = Wire(server)
    server.protocol.set_writer(wire)
    try:
        params = {"processId": None, "rootUri": "file:///project", "capabilities": INLINE_CLIENT}
        await wire.ask("initialize", {**params, "initializationOptions": {"model": "tiny", **settings}})
        wire.notify("initialized", {})
        yield wire
    finally:
        server.close()
        assert worker.close()


def published(wire: Wire) -> list[list[dict[str, Any]]]:
    return [m["params"]["diagnostics"] for m in wire.notified if m["method"] == "textDocument/publishDiagnostics"]


async def test_nothing_is_published_unless_it_is_wanted() -> None:
    async with serving() as wire:
        wire.open(TEXT)
        await wire.settled()
        await asyncio.sleep(0.3)
        assert published(wire) == []


async def test_what_is_unlikely_becomes_a_hint_and_goes_with_the_slip() -> None:
    async with serving(**{"diagnostics.surprise": True}) as wire:
        wire.open(TEXT)
        await eventually(lambda: bool(published(wire)))
        (found,) = [one for one in published(wire)[-1] if one["range"] == span(30, 11, 12)]
        assert (found["severity"], found["source"], found["code"]) == (4, "lsp-charrnn", "surprise")
        assert "expected: x" in found["message"]
        wire.receive(wire.changed({"range": span(30, 0, 13), "text": "quartz(x)"}))
        await eventually(lambda: all(one["range"]["start"]["line"] != 30 for one in published(wire)[-1]))


async def test_diagnostics_go_when_they_are_switched_off_and_when_the_document_is_closed() -> None:
    async with serving(**{"diagnostics.surprise": True}) as wire:
        wire.open(TEXT)
        await eventually(lambda: bool(published(wire)))
        wire.notify("workspace/didChangeConfiguration", {"settings": {"diagnostics.surprise": False}})
        await eventually(lambda: published(wire)[-1] == [])
        wire.notify("workspace/didChangeConfiguration", {"settings": {"diagnostics.surprise": True}})
        wire.receive(wire.changed(insert(0, 0, "\n")))
        await eventually(lambda: published(wire)[-1] != [])
        wire.notify("textDocument/didClose", {"textDocument": {"uri": URI}})
        await eventually(lambda: published(wire)[-1] == [])


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


async def test_inside_shows_the_streams_own_states_and_the_references_gates() -> None:
    async with serving() as wire:
        wire.open("quartz(x)\r\nü = quartz\r\n")
        wanted = {"textDocument": {"uri": URI}, "range": span(1, 0, 4), "neuron": 2}
        found = await wire.ask(INSIDE, {**wanted, "signal": "c", "all": True})
        by_gate = await wire.ask(INSIDE, {**wanted, "signal": "f", "all": True})
        assert found["range"] == span(1, 0, 4)
        assert found["labels"] == []
        text = "ü = ".encode()
        assert base64.b64decode(found["symbols"]) == text
        guesses = np.frombuffer(base64.b64decode(found["guesses"]), dtype=np.uint8).reshape(-1, 5)
        bits, chances = floats(found["bits"]), floats(found["chances"]).reshape(-1, 5)
        assert (len(bits), len(guesses), len(chances)) == (len(text), len(text) + 1, len(text) + 1)
        weights, spec = tiny_weights()
        state = np.zeros((1, 2, 1, spec.hidden), dtype=np.float32)
        for symbol in to_symbols(header("src/a.py") + b"quartz(x)\n"):
            logits, state = reference.step(weights, spec, symbol[None], state)
        traces = {name: floats(values) for name, values in found["neuron"]["traces"].items()}
        assert list(traces) == ["h", "c", "i", "f", "o", "g"]
        for place, symbol in enumerate(to_symbols(text)):
            odds = probabilities(logits)[0]
            assert bits[place] == pytest.approx(-np.log2(odds[symbol]), abs=0.1)  # it is served in int8
            assert chances[place] == pytest.approx(odds[guesses[place]], abs=0.05)
            assert odds[guesses[place, 0]] == pytest.approx(odds.max(), abs=0.05)
            logits, state, gates = reference.step_with_gates(weights, spec, symbol[None], state)
            for name, value in zip(traces, reference.signals(spec, state, gates)[:, 0, 0, 2], strict=True):
                assert traces[name][place] == pytest.approx(float(value), abs=0.05)
            for answer, expected in ((found, state[0, 1, 0]), (by_gate, gates[0]["f"][0])):
                shades = answer["all"]
                rows = np.frombuffer(zlib.decompress(base64.b64decode(shades["activations"])), dtype=np.int8)
                values = rows.reshape(spec.hidden, -1)[:, place] / 63 * shades["scale"]
                np.testing.assert_allclose(values, expected, atol=0.05)
        assert chances[-1] == pytest.approx(probabilities(logits)[0][guesses[-1]], abs=0.05)


async def test_inside_says_what_is_expected_of_an_empty_document() -> None:
    async with serving() as wire:
        wire.open("")
        found = await wire.ask(
            INSIDE, {"textDocument": {"uri": URI}, "range": span(0, 0, 0), "signal": "f", "all": True}
        )
        assert found["symbols"] == found["bits"] == found["neuron"]["traces"]["f"] == ""
        assert len(base64.b64decode(found["guesses"])) == 5


async def test_inside_names_the_neurons_that_mean_something(tiny_model: Path) -> None:
    config, _ = read_config(tiny_model)
    one = Tracking(0, 7, "c", -0.9, -0.8)
    tracked = Tracked("bracket depth", (one,), 0.9, 0.1, 0.1)
    table = NeuronTable("tiny", config["files"][WEIGHTS_FILE], "python", (1, 1), (1, 1), 0, (tracked,))
    (tiny_model / FILE).write_text(json.dumps(table.to_json()))
    try:
        async with serving() as wire:
            wire.open(TEXT)
            found = await wire.ask(INSIDE, {"textDocument": {"uri": URI}, "range": span(0, 0, 4)})
            assert found["labels"] == [
                {"layer": 0, "neuron": 7, "tracks": "bracket depth", "score": 0.8, "signal": "c"}
            ]
            assert "all" not in found
    finally:
        (tiny_model / FILE).unlink()


async def test_an_edit_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def endless(*_: Any, cancelled: Callable[[], bool]) -> None:
        begun.set()
        while not cancelled():
            time.sleep(0.001)

    monkeypatch.setattr(Session, "inside", endless)
    async with serving() as wire:
        wire.open(TEXT)
        seeing = wire.request(INSIDE, {"textDocument": {"uri": URI}, "range": span(0, 0, 4)})
        wire.receive(seeing)
        await eventually(begun.is_set)
        wire.receive(wire.changed(insert(0, 0, "q")))
        assert (await wire.answer(seeing["id"]))["result"] is None


async def test_inside_refuses_what_is_not_there() -> None:
    async with serving() as wire:
        wire.open(TEXT)
        wanted = {"textDocument": {"uri": URI}, "range": span(0, 0, 4)}
        for change, said in (({"neuron": 99}, "32 neurons"), ({"signal": "q"}, "h, c, i"), ({"range": 3}, "range")):
            response = await wire.ask_whole(INSIDE, {**wanted, **change})
            assert said in response["error"]["message"]
        response = await wire.ask_whole(INSIDE, {**wanted, "textDocument": {"uri": "file:///none.py"}})
        assert "not open" in response["error"]["message"]


async def test_a_completion_goes_before_it() -> None:
    async with serving() as wire:
        wire.open(TEXT * 8 + "q")
        params = {"textDocument": {"uri": URI}, "range": span(0, 0, 0) | {"end": {"line": 60, "character": 0}}}
        seeing = wire.request(INSIDE, params)
        wire.receive(seeing)
        assert await wire.suggestions(8 * 31, 1)
        assert not wire.expect(seeing["id"]).done()
        answer = await wire.answer(seeing["id"])
        assert answer["result"]["symbols"]


async def test_a_model_that_was_replaced_on_the_disk_is_not_taken_for_the_one_in_use(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny(tmp_path / "models" / "tiny")
    monkeypatch.setenv("LSP_CHARRNN_MODELS", str(model.parent))
    params = {"textDocument": {"uri": URI}, "range": span(0, 0, 1)}
    async with serving() as wire:
        wire.open("q")
        before = await wire.suggestions(0, 1)
        assert before
        weights, spec = tiny_weights("zebra(x)\n")
        arguments = {"name": "tiny", "languages": ["python"], "training": {}, "evaluation": {}, "card": ""}
        export_model(weights, spec, model, **arguments, force=True)
        answer = await wire.ask_whole(INSIDE, params)
        assert "is another model since it was loaded: restart the server" in answer["error"]["message"]
        assert [item["insertText"] for item in await wire.suggestions(0, 1)] == [
            item["insertText"] for item in before
        ]  # by the one that was loaded
