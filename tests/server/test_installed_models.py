"""A project's own model in a running server: taken up when it is installed, given up when it is removed.

The real engine around models that know one word each, so it is known who has suggested what.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny
from wire import INLINE_CLIENT, PATIENCE, Wire, insert

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.session import Session
from lsp_charrnn.model.installed import POINTER_FILE, install, place_of, uninstall
from lsp_charrnn.server import app
from lsp_charrnn.server.app import Server
from lsp_charrnn.server.models import Models
from lsp_charrnn.server.worker import Priority, Worker

pytestmark = pytest.mark.asyncio

BY_HEART = Settings(memory_document=False, memory_project=False, decode_budget_ms=5000)
SHIPPED, OWN, NEWER = "quartz(x)", "qwerty(s)", "qhvjk(ab)"


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without data, for whom `tiny` is the model for Python; nobody waits until it is looked."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data"))
    monkeypatch.setenv("LSP_CHARRNN_MODELS", str(tiny_model.parent))
    monkeypatch.setattr(app, "LOOKED_AGAIN", 0.0)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("own") / "own", OWN + "\n")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("own") / "newer", NEWER + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    return root


@asynccontextmanager
async def serving(root: Path | None, models: Models | None = None, **settings: Any) -> AsyncIterator[Wire]:
    worker = Worker()
    server = Server(worker, models or Models(), defaults=BY_HEART, make_session=Session)
    wire = Wire(server)
    server.protocol.set_writer(wire)
    try:
        params = {"processId": None, "rootUri": root and root.as_uri(), "capabilities": INLINE_CLIENT}
        await wire.ask("initialize", {**params, "initializationOptions": settings})
        wire.notify("initialized", {})
        yield wire
    finally:
        server.close()
        assert worker.close()


async def ghost(wire: Wire, uri: str, character: int = 1) -> str | None:
    items = await wire.suggestions(0, character, uri=uri)
    return items[0]["insertText"] if items else None


async def becomes(wire: Wire, uri: str, expected: str) -> None:
    """Return when what is suggested is `expected`, without a key being typed."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while (found := await ghost(wire, uri)) != expected:
        assert asyncio.get_running_loop().time() < end, f"still {found}"
        await asyncio.sleep(0.05)  # a rest, too


async def looked(wire: Wire) -> None:
    """Look whether the project has another model, and return when that is done."""
    wire.server.look_for_models(now=True)
    await asyncio.wrap_future(wire.server._worker.submit(Priority.INDEXING, lambda _: None).future)


def save(wire: Wire, uri: str) -> None:
    wire.notify("textDocument/didSave", {"textDocument": {"uri": uri}})


def shown(wire: Wire) -> list[str]:
    return [m["params"]["message"] for m in wire.notified if m["method"] == "window/showMessage"]


async def test_a_model_is_taken_up_replaced_and_given_up_while_documents_are_open(
    root: Path, own: Path, newer: Path
) -> None:
    uri = (root / "a.py").as_uri()
    models = Models()
    async with serving(root, models) as wire:
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == SHIPPED
        for model, word in ((own, OWN), (newer, NEWER)):
            install(model, root)
            save(wire, uri)
            await becomes(wire, uri, word)
            status = await wire.ask("workspace/executeCommand", {"command": "lspCharrnn.status"})
            assert status["models"] == [
                {"language": "python", "name": model.name, "bytes": status["models"][0]["bytes"]}
            ]
        assert len(models._loaded) == 2  # what nobody asks for any more is given back
        uninstall(root)
        save(wire, uri)
        await becomes(wire, uri, SHIPPED)
        assert len(models._loaded) == 1
        assert shown(wire) == []


async def test_what_the_model_before_has_suggested_is_not_gone_on_with(root: Path, own: Path) -> None:
    uri = (root / "a.py").as_uri()
    async with serving(root) as wire:
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == SHIPPED
        install(own, root)
        await looked(wire)
        wire.receive(wire.changed(insert(0, 1, "w"), uri=uri))  # along the new one's word, at once
        assert await ghost(wire, uri, 2) == OWN
        uninstall(root)
        await looked(wire)
        wire.receive(wire.changed(insert(0, 2, "e"), uri=uri))
        assert await ghost(wire, uri, 3) != OWN


async def test_opening_and_resting_look_for_it_too(
    root: Path, own: Path, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "QUIET", 0.01)
    uri, other = (root / "a.py").as_uri(), (root / "b.py").as_uri()
    async with serving(root) as wire:
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == SHIPPED
        install(own, root)
        await becomes(wire, uri, OWN)  # each answer is followed by a rest
        monkeypatch.setattr(app, "QUIET", 60.0)
        await asyncio.sleep(0.05)
        install(newer, root)
        wire.open("q", uri=other)
        await becomes(wire, other, NEWER)
        await becomes(wire, uri, NEWER)


async def test_it_is_not_looked_for_all_the_time(root: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "LOOKED_AGAIN", 3600.0)
    uri = (root / "a.py").as_uri()
    async with serving(root) as wire:
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == SHIPPED
        save(wire, uri)  # the first time it is looked
        await wire.settled()
        install(own, root)
        save(wire, uri)
        await wire.settled()
        assert await ghost(wire, uri) == SHIPPED
        wire.server.look_for_models(now=True)
        await becomes(wire, uri, OWN)


async def test_it_is_for_its_project_and_language_alone(root: Path, own: Path, tmp_path: Path) -> None:
    install(own, root)
    (tmp_path / "other").mkdir()
    uri = (root / "a.py").as_uri()
    async with serving(root) as wire:
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == OWN
        for outside in ((tmp_path / "other" / "a.py").as_uri(), "untitled:Untitled-1"):
            wire.open("q", uri=outside)
            assert await ghost(wire, outside) == SHIPPED
        wire.open("q", uri=(root / "a.rb").as_uri(), language="ruby")  # which no other model knows, either
        assert await ghost(wire, (root / "a.rb").as_uri()) == SHIPPED
    async with serving(root, model="tiny") as wire:  # who names one wants that one
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == SHIPPED
    async with serving(tmp_path) as wire:  # the project is the folder that the client has open
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == SHIPPED


async def test_without_a_folder_the_project_is_the_work_tree(root: Path, own: Path) -> None:
    (root / ".git" / "objects").mkdir(parents=True)
    (root / ".git" / "refs").mkdir()
    (root / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    install(own, root)
    (root / "src").mkdir()
    uri = (root / "src" / "a.py").as_uri()
    async with serving(None) as wire:
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == OWN


@pytest.mark.parametrize("damage", ["model.onnx", "config.json", "pointer", "gone"])
async def test_a_damaged_one_is_told_once_and_the_shipped_one_is_used(root: Path, own: Path, damage: str) -> None:
    path = install(own, root)
    if damage == "pointer":
        (place_of(root) / POINTER_FILE).write_bytes(b"?")
    elif damage == "gone":
        path.rename(path.with_name("elsewhere"))
    else:
        (path / damage).write_bytes(b"?")
    uri = (root / "a.py").as_uri()
    async with serving(root) as wire:
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == SHIPPED
        save(wire, uri)
        await wire.settled()
        assert await ghost(wire, uri) == SHIPPED
        (sentence,) = shown(wire)
        assert sentence.startswith(f"lsp-charrnn: the model trained for {root}: ")
        assert sentence.endswith("Until then the one for python is used.")
        install(own, root)
        save(wire, uri)
        await becomes(wire, uri, OWN)


async def test_one_that_is_replaced_while_it_is_loaded_is_no_damage(
    root: Path, own: Path, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(own, root)
    load, loads = Models._load, []

    def late(models: Models, path: Path) -> Any:
        if path.parent.name != "models" and not loads:
            loads.append(path)
            install(newer, root)
        return load(models, path)

    monkeypatch.setattr(Models, "_load", late)
    uri = (root / "a.py").as_uri()
    async with serving(root) as wire:
        wire.open("q", uri=uri)
        assert await ghost(wire, uri) == NEWER
        assert len(loads) == 1
        assert shown(wire) == []
