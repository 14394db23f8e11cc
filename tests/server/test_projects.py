"""Projects in the server: which documents have one, what is taken in of changed files, and what the client is shown.

First the real server as a process, with the shipped model; then one in this process, around the fake engine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeSession
from lsprotocol import types
from pytest_lsp import ClientServerConfig, LanguageClient
from wire import INLINE_CLIENT, Json, Wire

from lsp_charrnn.config import Settings
from lsp_charrnn.project.cache import cache_file
from lsp_charrnn.project.memory import ProjectMemory
from lsp_charrnn.server import projects as projects_module
from lsp_charrnn.server.app import Server
from lsp_charrnn.server.models import Models
from lsp_charrnn.server.projects import Projects
from lsp_charrnn.server.worker import Priority, Worker

pytestmark = pytest.mark.asyncio

PATIENCE = 20.0  # seconds until what must happen is given up
SERVE = (sys.executable, "-m", "lsp_charrnn", "serve")
OTHER = "def zyxwombat_frobnicator(self):\n    return self.zyxwombat_frobnicator(self)\n" * 15
HERE = "import os\n\n\ndef main(self):\n    self.zyxwo"
MADE = {"src/other.py": OTHER, "src/here.py": HERE}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    for path, text in MADE.items():
        put(root / path, text)
    return root


def put(file: Path, text: str) -> Path:
    """Write a file; each time it looks changed, however fast the test is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    if file.stat().st_mtime_ns <= before:
        os.utime(file, ns=(before + 1000, before + 1000))
    return file


# --- the real server ---


@asynccontextmanager
async def running(root: Path, cache: Path) -> AsyncIterator[LanguageClient]:
    config = ClientServerConfig(
        server_command=[*SERVE, "--cache", str(cache)], server_env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    client = await config.start()
    assert isinstance(client, LanguageClient)
    inline = types.TextDocumentClientCapabilities(inline_completion=types.InlineCompletionClientCapabilities())
    await client.initialize_session(
        types.InitializeParams(
            capabilities=types.ClientCapabilities(text_document=inline),
            root_uri=root.as_uri(),
            initialization_options={"decode.budgetMs": 5000},  # whatever else this machine does
        )
    )
    try:
        yield client
    finally:
        began = time.monotonic()
        await client.shutdown_session()
        assert client._server is not None
        assert client._server.returncode == 0
        assert time.monotonic() - began < 5
        await client.stop()  # type: ignore[no-untyped-call]


async def projects_of(client: LanguageClient) -> list[Json]:
    status: Any = await client.workspace_execute_command_async(types.ExecuteCommandParams("lspCharrnn.status"))
    return list(status["projects"])


async def until(client: LanguageClient, files: int, characters: int) -> None:
    """Return when the server's one project has so many files and characters."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = await projects_of(client)
        if [(one["ready"], one["files"], one["characters"]) for one in found] == [(True, files, characters)]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(found)


def open_in(client: LanguageClient, file: Path, text: str) -> str:
    item = types.TextDocumentItem(file.as_uri(), "python", 1, text)
    client.text_document_did_open(types.DidOpenTextDocumentParams(item))
    return item.uri


async def ghost(client: LanguageClient, uri: str, line: int, character: int) -> str:
    answer = await client.text_document_inline_completion_async(
        types.InlineCompletionParams(
            types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
            types.TextDocumentIdentifier(uri),
            types.Position(line, character),
        )
    )
    assert isinstance(answer, types.InlineCompletionList)
    return str(answer.items[0].insert_text) if answer.items else ""


async def test_names_of_other_files_are_suggested_as_long_as_these_are_there(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "kept"
    async with running(root, cache) as client:
        uri = open_in(client, root / "src/here.py", HERE)
        await until(client, 2, len(OTHER) + len(HERE))
        assert "zyxwombat_frob" in await ghost(client, uri, 4, 14)
        (kept,) = cache.iterdir()
        # Saved, and so taken in; the file that is open counts, too, but not for itself.
        put(root / "src/here.py", HERE + "\n")
        client.text_document_did_save(types.DidSaveTextDocumentParams(types.TextDocumentIdentifier(uri)))
        await until(client, 2, len(OTHER) + len(HERE) + 1)
        put(root / "src/new.py", OTHER * 2)
        client.workspace_did_create_files(types.CreateFilesParams([types.FileCreate((root / "src/new.py").as_uri())]))
        await until(client, 3, 3 * len(OTHER) + len(HERE) + 1)
        (root / "src/new.py").rename(root / "new.py")
        moved = types.FileRename((root / "src/new.py").as_uri(), (root / "new.py").as_uri())
        client.workspace_did_rename_files(types.RenameFilesParams([moved]))
        put(root / "late.py", "late = 1\n")
        event = types.FileEvent((root / "late.py").as_uri(), types.FileChangeType.Created)
        client.workspace_did_change_watched_files(types.DidChangeWatchedFilesParams([event]))
        await until(client, 4, 3 * len(OTHER) + len(HERE) + 1 + 9)
        (root / "src/other.py").unlink()
        gone = types.FileDelete((root / "src/other.py").as_uri())
        client.workspace_did_delete_files(types.DeleteFilesParams([gone]))
        (root / "new.py").unlink()
        event = types.FileEvent((root / "new.py").as_uri(), types.FileChangeType.Deleted)
        client.workspace_did_change_watched_files(types.DidChangeWatchedFilesParams([event]))
        await until(client, 2, len(HERE) + 1 + 9)
        client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(2, uri),
                [types.TextDocumentContentChangeWholeDocument("import sys\n" + HERE)],
            )
        )
        assert "frob" not in await ghost(client, uri, 5, 14)
    assert list(cache.iterdir()) == [kept]


# --- in this process ---


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Projects]:
    """What clients of one process share."""
    projects = Projects(tmp_path / "caches")
    yield projects
    projects.close()
    assert not any(worker._thread.is_alive() for worker in (projects.counter, projects.indexer))


@asynccontextmanager
async def connected(
    projects: Projects, root: str, *, settings: Settings | None = None, client: Json | None = None
) -> AsyncIterator[Wire]:
    worker = Worker()
    server = Server(worker, Models(), defaults=settings, make_session=FakeSession, projects=projects)  # type: ignore[arg-type]
    wire = Wire(server)
    server.protocol.set_writer(wire)
    capabilities = {**INLINE_CLIENT, **(client or {})}
    try:
        await wire.ask("initialize", {"processId": None, "rootUri": root, "capabilities": capabilities})
        wire.notify("initialized", {})
        yield wire
    finally:
        server.close()
        assert worker.close()


async def status(wire: Wire) -> list[Json]:
    answer = await wire.ask("workspace/executeCommand", {"command": "lspCharrnn.status", "arguments": []})
    return list(answer["projects"])


async def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it does not come true"
        await asyncio.sleep(0.005)


def memory_of(projects: Projects) -> ProjectMemory:
    (memory,) = projects._memories.values()
    return memory


async def idle(projects: Projects) -> None:
    """Return when the thread that reads projects has done what it was asked for so far."""
    done = projects.indexer.submit(Priority.INDEXING, lambda _: None)
    await asyncio.wait_for(asyncio.wrap_future(done.future), PATIENCE)


async def test_a_project_is_read_when_its_first_document_is_opened(shared: Projects, root: Path) -> None:
    async with connected(shared, root.as_uri()) as wire:
        assert await status(wire) == []
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: memory_of(shared).ready)
        characters = len(OTHER) + len(HERE)
        assert await status(wire) == [{"root": str(root), "ready": True, "files": 2, "characters": characters}]
        memory = memory_of(shared)
        await eventually(lambda: len(memory.tables("src/here.py")) == 2)
        assert memory.tables("src/other.py") == ()
        wire.notify("textDocument/didClose", {"textDocument": {"uri": (root / "src/here.py").as_uri()}})
        await eventually(lambda: memory.tables("src/here.py") == ())


async def test_a_root_that_ends_with_a_slash(shared: Projects, root: Path) -> None:
    async with connected(shared, root.as_uri() + "/") as wire:
        uri = (root / "src/here.py").as_uri()
        wire.open(HERE, uri=uri)
        await eventually(lambda: memory_of(shared).ready)
        assert [one["root"] for one in await status(wire)] == [str(root)]
        put(root / "src/here.py", HERE * 2)
        wire.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
        await eventually(lambda: memory_of(shared).characters == len(OTHER) + 2 * len(HERE))


async def test_the_setting_is_off(shared: Projects, root: Path) -> None:
    async with connected(shared, root.as_uri(), settings=Settings(memory_project=False)) as wire:
        uri = (root / "src/here.py").as_uri()
        wire.open("pri", uri=uri)
        wire.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
        assert len(await wire.suggestions(0, 3, uri=uri)) == 1
        assert await status(wire) == []
    assert shared._memories == {}


@pytest.mark.parametrize("uri", ["file:///elsewhere/a.py", "untitled:Untitled-1", "git:/elsewhere/a.py?ref=HEAD"])
async def test_documents_outside_every_root(shared: Projects, root: Path, uri: str) -> None:
    async with connected(shared, root.as_uri()) as wire:
        wire.open("pri", uri=uri)
        assert len(await wire.suggestions(0, 3, uri=uri)) == 1
        wire.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
        event = {"uri": "no uri", "type": 1}
        wire.notify("workspace/didChangeWatchedFiles", {"changes": [event, {"uri": root.as_uri(), "type": 2}]})
        assert await status(wire) == []
        wire.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
    assert shared._memories == {}


async def test_a_root_that_is_not_there(shared: Projects, tmp_path: Path) -> None:
    async with connected(shared, (tmp_path / "none").as_uri()) as wire:
        uri = (tmp_path / "none/a.py").as_uri()
        wire.open("pri", uri=uri)
        assert len(await wire.suggestions(0, 3, uri=uri)) == 1
        assert await status(wire) == []


async def test_two_clients_share_one_memory(shared: Projects, root: Path) -> None:
    uri = (root / "src/here.py").as_uri()
    async with connected(shared, root.as_uri()) as one, connected(shared, root.as_uri()) as other:
        for wire in (one, other):
            wire.open(HERE, uri=uri)
        await eventually(lambda: memory_of(shared).ready)
        await idle(shared)
        memory = memory_of(shared)
        assert await status(one) == await status(other) != []
        assert len(memory.tables("src/here.py")) == 2
        one.server.close()
        await idle(shared)
        assert len(memory.tables("src/here.py")) == 2  # the other has it open still
        put(root / "src/here.py", HERE * 2)
        other.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
        await eventually(lambda: memory.characters == len(OTHER) + 2 * len(HERE))
    await idle(shared)
    assert memory.tables("src/here.py") == ()


async def test_opened_and_closed_while_the_thread_is_busy(shared: Projects, root: Path) -> None:
    """Of what waits the newest goes first: a document must not be released before it was followed."""
    uri = (root / "src/here.py").as_uri()
    busy, done = threading.Event(), threading.Event()

    def work(_: object) -> None:
        busy.set()
        done.wait(PATIENCE)

    async with connected(shared, root.as_uri()) as wire:
        shared.indexer.submit(Priority.COMPLETION, work)
        await eventually(busy.is_set)
        wire.open(HERE, uri=uri)
        wire.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        done.set()
        await eventually(lambda: memory_of(shared).ready)
        await idle(shared)
        assert memory_of(shared)._open == {}
        assert memory_of(shared).tables("src/here.py") == ()


async def test_a_swarm_of_changed_files_is_looked_through_at_once(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects_module, "MOST_FILES", 5)
    monkeypatch.setattr(projects_module, "GATHERED", 0.05)
    read: list[int] = []
    changed = ProjectMemory.changed

    def counted(memory: ProjectMemory, paths: Any) -> bool:
        read.append(len(paths))
        return changed(memory, paths)

    monkeypatch.setattr(ProjectMemory, "changed", counted)
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: memory_of(shared).ready)

        def made(numbers: range) -> Json:
            files = [put(root / f"made_{number}.py", "made = 1\n").as_uri() for number in numbers]
            return {"method": "workspace/didCreateFiles", "params": {"files": [{"uri": uri} for uri in files]}}

        wire.receive(made(range(3)), made(range(3)))  # each file once
        await eventually(lambda: memory_of(shared).files == 5)
        assert read == [3]
        wire.receive(*(made(range(number, number + 1)) for number in range(3, 20)))
        await eventually(lambda: memory_of(shared).files == 22)
        assert read == [3]


async def test_a_folder_that_is_renamed_and_one_that_is_deleted(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects_module, "GATHERED", 0.05)
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=(root / "main.py").as_uri())
        await eventually(lambda: memory_of(shared).files == 2)
        put(root / "src/new.py", OTHER)
        put(root / "main.py", HERE)
        (root / "src").rename(root / "lib")
        moved = {"oldUri": (root / "src").as_uri(), "newUri": (root / "lib").as_uri()}
        wire.notify("workspace/didRenameFiles", {"files": [moved]})
        await eventually(lambda: memory_of(shared).files == 4)
        assert memory_of(shared).characters == 2 * len(OTHER) + 2 * len(HERE)
        for file in (root / "lib").iterdir():
            file.unlink()
        (root / "lib").rmdir()
        wire.notify("workspace/didDeleteFiles", {"files": [{"uri": (root / "lib").as_uri()}]})
        await eventually(lambda: memory_of(shared).files == 1)


# --- what is shown ---


def progress_of(wire: Wire) -> list[str]:
    return [m["params"]["value"]["kind"] for m in wire.notified if m["method"] == "$/progress"]


async def test_progress_is_shown(shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects_module, "SHOWN_AFTER", 0.0)
    async with connected(shared, root.as_uri(), client={"window": {"workDoneProgress": True}}) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: bool(wire.asked))
        (asked,) = wire.asked
        assert asked["method"] == "window/workDoneProgress/create"
        await eventually(lambda: memory_of(shared).ready)
        assert progress_of(wire) == []  # not before the client has agreed
        wire.receive({"id": asked["id"], "result": None})
        await eventually(lambda: "end" in progress_of(wire))
        assert progress_of(wire) == ["begin", "end"]
        shown = [m["params"] for m in wire.notified if m["method"] == "$/progress"]
        assert {one["token"] for one in shown} == {asked["params"]["token"]}
        assert shown[0]["value"]["title"] == "Reading the project shop"
        assert shown[-1]["value"]["message"] == "2 files"
        assert not wire.server.work_done_progress.tokens


@pytest.mark.parametrize("how", ["refused", "never answered", "not able", "kept"])
async def test_no_progress_is_shown(
    shared: Projects,
    root: Path,
    tmp_path: Path,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(projects_module, "SHOWN_AFTER", 60.0 if how == "kept" else 0.0)
    if how == "kept":  # nothing has to be counted
        ProjectMemory(root, cache=cache_file(root, tmp_path / "caches")).refresh()
    client = {} if how == "not able" else {"window": {"workDoneProgress": True}}
    async with connected(shared, root.as_uri(), client=client) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: memory_of(shared).ready)
        await idle(shared)
        if how == "refused":
            await eventually(lambda: bool(wire.asked))
            wire.receive({"id": wire.asked[0]["id"], "error": {"code": -32601, "message": "no"}})
        await wire.settled()
        assert len(wire.asked) == (how in ("refused", "never answered"))
        assert progress_of(wire) == []
        assert (await status(wire))[0]["ready"]
    await wire.settled()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


# --- the end ---


async def test_the_end_is_prompt_in_the_middle_of_reading(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = threading.Event()

    def endless(memory: ProjectMemory, *, cancelled: Callable[[], bool], **_: Any) -> None:
        reading.set()
        while not cancelled():
            time.sleep(0.001)

    monkeypatch.setattr(ProjectMemory, "refresh", endless)
    projects = Projects(tmp_path / "caches")
    async with connected(projects, root.as_uri()) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(reading.is_set)
        wire.notify("textDocument/didSave", {"textDocument": {"uri": (root / "src/here.py").as_uri()}})
    began = time.monotonic()
    projects.close()
    assert time.monotonic() - began < 1
    assert not any(worker._thread.is_alive() for worker in (projects.counter, projects.indexer))
    assert not memory_of(projects).ready


async def test_a_bug_in_reading_is_logged_and_the_server_lives(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(ProjectMemory, "refresh", broken)
    async with connected(shared, root.as_uri()) as wire:
        uri = (root / "src/here.py").as_uri()
        wire.open("pri", uri=uri)
        await eventually(lambda: "counting" in caplog.text)
        assert len(await wire.suggestions(0, 3, uri=uri)) == 1
        assert not (await status(wire))[0]["ready"]
