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

import numpy as np
import pytest
from fake_server import FakeSession
from lsprotocol import types
from pytest_lsp import ClientServerConfig, LanguageClient
from wire import INLINE_CLIENT, PATIENCE, Json, Wire, eventually

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.memory import Counts
from lsp_charrnn.project.cache import cache_file
from lsp_charrnn.project.files import project_files, read_text
from lsp_charrnn.project.memory import ProjectMemory
from lsp_charrnn.server import projects as projects_module
from lsp_charrnn.server.app import Server
from lsp_charrnn.server.models import Models
from lsp_charrnn.server.projects import Projects
from lsp_charrnn.server.worker import Priority, Worker

pytestmark = pytest.mark.asyncio

SERVE = (sys.executable, "-m", "lsp_charrnn", "serve")
OTHER = "def zyxwombat_frobnicator(self):\n    return self.zyxwombat_frobnicator(self)\n" * 15
HERE = "import os\n\n\ndef main(self):\n    self.zyxwo"
LARGE = (OTHER * 100)[:72_000]
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
async def running(root: Path, cache: Path, options: Json | None = None) -> AsyncIterator[LanguageClient]:
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
            initialization_options={"decode.budgetMs": 5000, **(options or {})},  # whatever else this machine does
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


async def test_switched_on_it_reaches_documents_that_are_open(root: Path, tmp_path: Path) -> None:
    async with running(root, tmp_path / "kept", {"memory.project": False}) as client:
        uri = open_in(client, root / "src/here.py", HERE)
        assert "frob" not in await ghost(client, uri, 4, 14)
        for on in (True, False, True):
            settings = {"lspCharrnn": {"memory": {"project": on}}}
            client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings))
            if on:
                await until(client, 2, len(OTHER) + len(HERE))
            else:
                assert await projects_of(client) == []
            assert ("zyxwombat_frob" in await ghost(client, uri, 4, 14)) == on


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
    projects: Projects, root: str | None, *, settings: Settings | None = None, client: Json | None = None, **more: Any
) -> AsyncIterator[Wire]:
    worker = Worker()
    server = Server(worker, Models(), defaults=settings, make_session=FakeSession, projects=projects)  # type: ignore[arg-type]
    wire = Wire(server)
    server.protocol.set_writer(wire)
    capabilities = {**INLINE_CLIENT, **(client or {})}
    try:
        await wire.ask("initialize", {"processId": None, "rootUri": root, "capabilities": capabilities, **more})
        wire.notify("initialized", {})
        yield wire
    finally:
        server.close()
        assert worker.close()


async def status(wire: Wire) -> list[Json]:
    answer = await wire.ask("workspace/executeCommand", {"command": "lspCharrnn.status", "arguments": []})
    return list(answer["projects"])


def memory_of(projects: Projects) -> ProjectMemory:
    (project,) = projects._shared.values()
    return project.memory


def leaves_out(memory: ProjectMemory, path: str) -> bool:
    """Say whether there are counts for a document that is open, and none of its own saved text among them."""
    tables = memory.tables(path)
    if not tables:
        return False
    files = [file for file in project_files(memory.root).files if file.path != path]
    others = [text for file in files if (text := read_text(memory.root, file)) is not None]
    total, wanted = Counts.sum([(table, 1) for table in tables]), Counts.of_texts(others)
    return np.array_equal(total.keys, wanted.keys) and np.array_equal(total.counts, wanted.counts)


def is_ready(projects: Projects) -> bool:
    """Say whether the one project that is open, if it is, is known."""
    return [project.memory.ready for project in projects._shared.values()] == [True]


async def idle(projects: Projects) -> None:
    """Return when the threads have done what they were asked for so far."""
    for worker in (projects.counter, projects.indexer):
        done = worker.submit(Priority.INDEXING, lambda _: None)
        await asyncio.wait_for(asyncio.wrap_future(done.future), PATIENCE)


async def test_a_project_is_read_when_its_first_document_is_opened(shared: Projects, root: Path) -> None:
    async with connected(shared, root.as_uri()) as wire:
        assert await status(wire) == []
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: is_ready(shared))
        characters = len(OTHER) + len(HERE)
        assert await status(wire) == [{"root": str(root), "ready": True, "files": 2, "characters": characters}]
        memory = memory_of(shared)
        await eventually(lambda: leaves_out(memory, "src/here.py"))
        assert memory.tables("src/other.py") == ()
        wire.notify("textDocument/didClose", {"textDocument": {"uri": (root / "src/here.py").as_uri()}})
        await eventually(lambda: memory.tables("src/here.py") == ())


async def test_a_root_that_ends_with_a_slash(shared: Projects, root: Path) -> None:
    async with connected(shared, root.as_uri() + "/") as wire:
        uri = (root / "src/here.py").as_uri()
        wire.open(HERE, uri=uri)
        await eventually(lambda: is_ready(shared))
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
    assert shared._shared == {}


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
    assert shared._shared == {}


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
        await eventually(lambda: is_ready(shared))
        await idle(shared)
        memory = memory_of(shared)
        assert await status(one) == await status(other) != []
        assert leaves_out(memory, "src/here.py")
        one.server.close()
        await idle(shared)
        assert leaves_out(memory, "src/here.py")  # the other has it open still
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
        shared.counter.submit(Priority.COMPLETION, work)
        await eventually(busy.is_set)
        wire.open(HERE, uri=uri)
        wire.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        done.set()
        await eventually(lambda: is_ready(shared))
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
        await eventually(lambda: is_ready(shared))

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


# --- settings, folders, clients ---


def configure(wire: Wire, **settings: Any) -> None:
    wire.notify("workspace/didChangeConfiguration", {"settings": {"lspCharrnn": {"memory": settings}}})


def close_document(wire: Wire, uri: str) -> None:
    wire.notify("textDocument/didClose", {"textDocument": {"uri": uri}})


async def test_the_setting_is_switched_while_documents_are_open(shared: Projects, root: Path) -> None:
    uri, other = ((root / path).as_uri() for path in MADE)
    async with connected(shared, root.as_uri(), settings=Settings(memory_project=False)) as wire:
        for one in (uri, other):
            wire.open(HERE, uri=one)
        await wire.settled()
        assert wire.session.projects == {uri: None, other: None}
        for _ in range(2):
            configure(wire, project=True)
            await eventually(lambda: is_ready(shared))
            await idle(shared)
            memory = memory_of(shared)
            for one, path in zip((uri, other), MADE, strict=True):
                assert wire.session.projects[one].memory is memory
                assert wire.session.projects[one].tables("whatever") == memory.tables(path) != ()
                assert leaves_out(memory, path)
            configure(wire, project=False)
            await eventually(lambda: shared._shared == {})
            await idle(shared)
            assert wire.session.projects == {uri: None, other: None}
            assert memory.tables("src/here.py") == ()  # given back


async def test_other_settings_leave_the_project_as_it_is(shared: Projects, root: Path) -> None:
    uri = (root / "src/here.py").as_uri()
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=uri)
        await eventually(lambda: is_ready(shared))
        before, project = memory_of(shared), wire.session.projects[uri]
        wire.notify("workspace/didChangeConfiguration", {"settings": {"lspCharrnn": {"decode": {"lanes": 4}}}})
        await eventually(lambda: wire.server.settings.decode_lanes == 4)
        assert memory_of(shared) is before
        assert wire.session.projects[uri] is project


async def test_how_much_is_counted_is_changed_while_documents_are_open(shared: Projects, root: Path) -> None:
    for number in range(3):
        put(root / f"far/off/{number}.py", LARGE)
    async with connected(shared, root.as_uri(), settings=Settings(memory_project_megabytes=0.1)) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: is_ready(shared))
        assert memory_of(shared).files == 3
        configure(wire, projectMegabytes=0.3)
        await eventually(lambda: memory_of(shared).files == 5)
        configure(wire, projectMegabytes=0.2)
        await eventually(lambda: memory_of(shared).files == 4)


async def test_where_memory_is_limited_no_more_is_counted_than_there_is_room_for(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        put(root / f"far/off/{number}.py", LARGE)
    monkeypatch.setattr(projects_module, "memory_limit", lambda: 185_000_000)
    limited = Projects(tmp_path / "caches")
    async with connected(limited, root.as_uri(), settings=Settings(memory_project_megabytes=5)) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: is_ready(limited))
        assert memory_of(limited).cap == 200_000
        assert memory_of(limited).files == 4
        assert "has room for 0.2 MB of the project" in caplog.text
    limited.close()


async def test_the_client_that_wants_most_has_its_way(shared: Projects, root: Path) -> None:
    for number in range(3):
        put(root / f"far/off/{number}.py", LARGE)
    small, large = (Settings(memory_project_megabytes=megabytes) for megabytes in (0.1, 5))
    uri = (root / "src/here.py").as_uri()
    async with connected(shared, root.as_uri(), settings=small) as one:
        one.open(HERE, uri=uri)
        await eventually(lambda: is_ready(shared))
        async with connected(shared, root.as_uri(), settings=large) as other:
            other.open(HERE, uri=uri)
            await eventually(lambda: memory_of(shared).files == 5)
            configure(one, projectMegabytes=0.2)
            await eventually(lambda: 0.2 in shared._shared[str(root)].wishes.values())
            assert memory_of(shared).cap == 5_000_000
        configure(one, projectMegabytes=0.1)
        await eventually(lambda: memory_of(shared).files == 3)


async def test_a_project_that_nobody_has_open_is_forgotten_but_for_its_cache(
    shared: Projects, root: Path, tmp_path: Path
) -> None:
    async with connected(shared, root.as_uri()) as one:
        async with connected(shared, root.as_uri()) as other:
            for wire in (one, other):
                wire.open(HERE, uri=(root / "src/here.py").as_uri())
            await eventually(lambda: is_ready(shared))
            memory = memory_of(shared)
        assert memory_of(shared) is memory
    assert shared._shared == {}
    await idle(shared)
    assert cache_file(root, tmp_path / "caches").exists()
    assert memory._open == {}


async def test_what_a_client_reported_last_of_all_is_taken_in(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects_module, "GATHERED", 3600.0)
    uri = (root / "src/here.py").as_uri()
    async with connected(shared, root.as_uri()) as one:
        one.open(HERE, uri=uri)
        await eventually(lambda: is_ready(shared))
        async with connected(shared, root.as_uri()) as other:
            other.open(HERE, uri=uri)
            put(root / "src/here.py", HERE * 2)
            other.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
            await other.settled()
        await eventually(lambda: memory_of(shared).characters == len(OTHER) + 2 * len(HERE))


@pytest.mark.parametrize("name", ["c#", "100%", "a b", "é", "what?", "%41"])
async def test_folders_with_odd_names(shared: Projects, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    put(folder / "src/here.py", HERE)
    uri = (folder / "src/here.py").as_uri()
    async with connected(shared, None, workspaceFolders=[{"uri": folder.as_uri(), "name": name}]) as wire:
        wire.open(HERE, uri=uri)
        await eventually(lambda: is_ready(shared))
        assert [one["root"] for one in await status(wire)] == [str(folder)]
        assert wire.session.documents[uri][1] == "src/here.py"
        await idle(shared)
        assert memory_of(shared)._open == {"src/here.py": 1}


async def test_folders_that_are_added_and_removed(shared: Projects, root: Path, tmp_path: Path) -> None:
    uri, elsewhere = (root / "src/here.py").as_uri(), {"uri": (tmp_path / "other").as_uri(), "name": "other"}
    put(tmp_path / "other/a.py", HERE)
    inner, outer = ({"uri": one.as_uri(), "name": one.name} for one in (root / "src", root))
    async with connected(shared, None, workspaceFolders=[elsewhere]) as wire:
        wire.open(HERE, uri=uri)
        await wire.settled()
        assert (wire.session.documents[uri][1], wire.session.projects[uri]) == ("here.py", None)

        def place() -> tuple[str, Path | None]:
            project = wire.session.projects.get(uri)
            return wire.session.documents.get(uri, ("", "", ""))[1], project and project.memory.root

        async def change(added: list[Json], removed: list[Json], path: str, top: Path | None) -> None:
            event = {"added": added, "removed": removed}
            wire.notify("workspace/didChangeWorkspaceFolders", {"event": event})
            await eventually(lambda: place() == (path, top))
            assert len(await wire.suggestions(4, 14, uri=uri)) == 0  # it is open still

        await change([outer], [], "src/here.py", root)
        await eventually(lambda: wire.session.projects[uri].memory.ready)
        await change([inner], [], "here.py", root / "src")
        await change([], [inner, outer], "here.py", None)
        await change([outer], [elsewhere], "src/here.py", root)
        await change([], [outer], "here.py", None)
        assert await status(wire) == []
    assert shared._shared == {}


async def test_without_a_folder_the_project_is_the_work_tree_around_a_document(
    shared: Projects, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for top in (root, tmp_path):
        put(top / ".git/HEAD", "ref: refs/heads/main\n")
    uri = (root / "src/here.py").as_uri()
    lone = put(tmp_path / "notes/a.py", HERE).as_uri()  # in the user's home, which is under git, too
    async with connected(shared, None) as wire:
        for one in (uri, lone, "untitled:Untitled-1", "file:///%00/a.py", "file://[", "a.py"):
            wire.open(HERE, uri=one)
        await eventually(lambda: is_ready(shared))
        assert [one["root"] for one in await status(wire)] == [str(root)]
        assert wire.session.documents[uri][1] == "src/here.py"
        assert wire.session.documents[lone][1] == "a.py"
        assert {one for one, project in wire.session.projects.items() if project} == {uri}


async def test_with_a_folder_others_work_trees_are_left_alone(shared: Projects, root: Path, tmp_path: Path) -> None:
    put(root / ".git/HEAD", "ref: refs/heads/main\n")
    (tmp_path / "mine").mkdir()
    uri = (root / "src/here.py").as_uri()
    async with connected(shared, (tmp_path / "mine").as_uri()) as wire:
        wire.open(HERE, uri=uri)  # somebody looks up a definition
        await wire.settled()
        assert wire.session.projects == {uri: None}
    assert shared._shared == {}


async def test_the_nearest_files_are_counted_from_the_beginning(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []
    refresh = ProjectMemory.refresh

    def listened(memory: ProjectMemory, *, near: Any, **more: Any) -> None:
        told.append(list(near))
        refresh(memory, near=near, **more)

    monkeypatch.setattr(ProjectMemory, "refresh", listened)
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: is_ready(shared))
    assert told == [["src/here.py"]]


# --- what the files are called ---


async def test_a_document_that_was_opened_through_a_link(shared: Projects, root: Path, tmp_path: Path) -> None:
    """Its own saved text is left out all the same, and its changes are seen."""
    (root / "link").symlink_to("src")
    (tmp_path / "way").symlink_to(root)
    async with connected(shared, (tmp_path / "way").as_uri()) as wire:
        uri = (tmp_path / "way/link/here.py").as_uri()
        wire.open(HERE, uri=uri)
        await eventually(lambda: is_ready(shared))
        await idle(shared)
        memory = memory_of(shared)
        assert wire.session.documents[uri][1] == "link/here.py"
        assert wire.session.projects[uri].tables("link/here.py") == memory.tables("src/here.py")
        assert leaves_out(memory, "src/here.py")
        put(root / "src/here.py", HERE * 2)
        event = {"uri": (root / "src/here.py").as_uri(), "type": 2}  # not by the way that leads through the link
        wire.notify("workspace/didChangeWatchedFiles", {"changes": [event]})
        await eventually(lambda: memory.characters == len(OTHER) + 2 * len(HERE))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are UTF-8")
async def test_a_name_that_is_not_utf_8(shared: Projects, root: Path) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    put(root / name, HERE)
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=root.as_uri() + "/caf%E9.py")
        await eventually(lambda: is_ready(shared))
        await idle(shared)
        assert leaves_out(memory_of(shared), name)


# --- what nobody tells of ---


async def test_what_changed_unseen_is_found_when_a_document_is_opened_or_saved(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects_module, "GATHERED", 0.01)
    monkeypatch.setattr(projects_module, "_REST", 0.0)
    uri = (root / "src/here.py").as_uri()
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=uri)
        await eventually(lambda: is_ready(shared))
        put(root / "unseen.py", HERE)
        wire.open(OTHER, uri=(root / "src/other.py").as_uri())
        wire.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
        await asyncio.sleep(0.05)
        await idle(shared)
        assert memory_of(shared).files == 2  # it has been looked through a moment ago
        monkeypatch.setattr(projects_module, "LOOKED_AGAIN", 0.0)
        wire.open(HERE, uri=(root / "src/third.py").as_uri())
        await eventually(lambda: memory_of(shared).files == 3)
        (root / "unseen.py").unlink()
        put(root / "src/other.py", OTHER * 2)
        wire.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
        await eventually(lambda: memory_of(shared).files == 2)
        assert memory_of(shared).characters == 2 * len(OTHER) + len(HERE)


async def test_how_long_it_took_is_how_seldom_it_is_done(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects_module, "LOOKED_AGAIN", 0.0)
    monkeypatch.setattr(projects_module, "_REST", 1e9)
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: is_ready(shared))
        await idle(shared)
        put(root / "unseen.py", HERE)
        wire.open(OTHER, uri=(root / "src/other.py").as_uri())
        await idle(shared)
        assert memory_of(shared).files == 2


async def test_what_git_ignores_by_now_is_left_out(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects_module, "GATHERED", 0.01)
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: is_ready(shared))
        rules = put(root / ".gitignore", "other.py\n").as_uri()
        wire.notify("textDocument/didSave", {"textDocument": {"uri": rules}})
        await eventually(lambda: memory_of(shared).characters == len(HERE) + 9)
        put(root / ".gitignore", "\n")
        wire.notify("textDocument/didSave", {"textDocument": {"uri": rules}})
        await eventually(lambda: memory_of(shared).characters == len(HERE) + len(OTHER))


async def test_files_that_are_never_read_are_not_looked_at(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects_module, "GATHERED", 0.01)
    monkeypatch.setattr(projects_module, "MOST_FILES", 5)
    read: list[str] = []

    def looked(_: ProjectMemory, paths: list[str]) -> bool:
        read.extend(paths)
        return False

    monkeypatch.setattr(ProjectMemory, "changed", looked)
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: is_ready(shared))
        names = [f"node_modules/box/{number}.js" for number in range(20)]
        names += [".git/index", ".git/objects/ab/cd", "lib/__pycache__/a.pyc", ".git/info/exclude", "a.py"]
        changes = [{"uri": (root / name).as_uri(), "type": 1} for name in names]
        wire.notify("workspace/didChangeWatchedFiles", {"changes": changes})
        await eventually(lambda: bool(read))
        assert sorted(read) == [str(root / ".git/info/exclude"), str(root / "a.py")]


async def test_after_a_swarm_the_next_one_is_awaited_longer(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects_module, "GATHERED", 0.01)
    monkeypatch.setattr(projects_module, "AFTER_SWARM", 0.02)
    monkeypatch.setattr(projects_module, "MOST_FILES", 2)
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: is_ready(shared))
        workspace = wire.server.projects
        assert workspace is not None
        for many, waits in ((3, 0.02), (3, 0.02), (1, 0.01), (1, 0.01)):
            workspace.changed((root / f"{number}.py").as_uri() for number in range(many))
            await eventually(lambda: not workspace._changed)
            assert workspace._gathered == waits


# --- reading, and what comes between ---


class Slow:
    """Lets a project's reading wait in the middle, until it is let go on or is cancelled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.times = self.cancelled = 0
        self.tells = True
        self._refresh = ProjectMemory.refresh
        monkeypatch.setattr(ProjectMemory, "refresh", lambda memory, **more: self.refresh(memory, **more))

    def refresh(
        self, memory: ProjectMemory, *, near: Any, cancelled: Callable[[], bool], progress: Callable[[str, float], None]
    ) -> None:
        self.times += 1
        self.begun.set()
        end = time.monotonic() + PATIENCE
        while not self.go_on.is_set() and not cancelled() and time.monotonic() < end:
            if self.tells:
                progress("counting", 0.5)
            time.sleep(0.001)
        self.cancelled += cancelled()
        self._refresh(memory, near=near, cancelled=cancelled, progress=progress)


async def test_what_is_opened_and_saved_does_not_begin_the_reading_anew(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever goes on working in a large project would never have it counted."""
    monkeypatch.setattr(projects_module, "GATHERED", 0.001)
    slow = Slow(monkeypatch)
    uris = [(root / path).as_uri() for path in MADE]
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=uris[1])
        await eventually(slow.begun.is_set)
        for _ in range(5):
            wire.open(OTHER, uri=uris[0])
            await eventually(lambda: "src/other.py" in memory_of(shared)._open)  # while it is being read
            wire.notify("textDocument/didSave", {"textDocument": {"uri": uris[1]}})
            await asyncio.sleep(0.01)
            close_document(wire, uris[0])
            await eventually(lambda: "src/other.py" not in memory_of(shared)._open)
        slow.go_on.set()
        await eventually(lambda: is_ready(shared))
        await idle(shared)
        assert (slow.times, slow.cancelled) == (1, 0)
        assert leaves_out(memory_of(shared), "src/here.py")


async def test_asked_for_again_while_it_is_read_it_is_read_once_more(
    shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    async with connected(shared, root.as_uri()) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(slow.begun.is_set)
        for megabytes in (1, 2, 3):
            configure(wire, projectMegabytes=megabytes)
        await eventually(lambda: memory_of(shared).cap == 3_000_000)
        slow.go_on.set()
        await eventually(lambda: slow.times == 2)
        await idle(shared)
        assert (slow.times, slow.cancelled) == (2, 0)


@pytest.mark.parametrize("told", [True, False])
async def test_a_client_that_goes_while_its_project_is_read(
    shared: Projects,
    root: Path,
    tmp_path: Path,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(projects_module, "SHOWN_AFTER", 0.0)
    slow = Slow(monkeypatch)
    slow.tells = told
    uri = (root / "src/here.py").as_uri()
    async with connected(shared, root.as_uri(), client={"window": {"workDoneProgress": True}}) as one:
        one.open(HERE, uri=uri)
        await eventually(lambda: bool(one.asked) if told else slow.begun.is_set())
        async with connected(shared, root.as_uri()) as other:
            other.open(HERE, uri=uri)
            one.server.close()
            slow.go_on.set()
            await eventually(lambda: is_ready(shared))
            await idle(shared)
            assert leaves_out(memory_of(shared), "src/here.py")
        await other.settled()
    assert (len(one.asked), progress_of(one)) == (told, [])
    assert cache_file(root, tmp_path / "caches").exists()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_the_user_stops_it(shared: Projects, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects_module, "SHOWN_AFTER", 0.0)
    monkeypatch.setattr(projects_module, "LOOKED_AGAIN", 0.0)
    monkeypatch.setattr(projects_module, "_REST", 0.0)
    slow = Slow(monkeypatch)
    async with connected(shared, root.as_uri(), client={"window": {"workDoneProgress": True}}) as wire:
        wire.open(HERE, uri=(root / "src/here.py").as_uri())
        await eventually(lambda: bool(wire.asked))
        wire.receive({"id": wire.asked[0]["id"], "result": None})
        await eventually(lambda: "begin" in progress_of(wire))
        (begin, *_) = [m["params"]["value"] for m in wire.notified if m["method"] == "$/progress"]
        assert begin["cancellable"]
        wire.notify("window/workDoneProgress/cancel", {"token": "another"})
        wire.notify("window/workDoneProgress/cancel", {"token": wire.asked[0]["params"]["token"]})
        await eventually(lambda: "end" in progress_of(wire))
        assert (slow.times, slow.cancelled) == (1, 1)
        wire.open(OTHER, uri=(root / "src/other.py").as_uri())
        await idle(shared)
        assert slow.times == 1  # the user doesn't want it
        assert not memory_of(shared).ready
        slow.go_on.set()
        for on in (False, True):  # or does again
            configure(wire, project=on)
        await eventually(lambda: is_ready(shared))


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
        await eventually(lambda: is_ready(shared))
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
        await eventually(lambda: is_ready(shared))
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
        memory = memory_of(projects)
        wire.notify("textDocument/didSave", {"textDocument": {"uri": (root / "src/here.py").as_uri()}})
    began = time.monotonic()
    projects.close()
    assert time.monotonic() - began < 1
    assert not any(worker._thread.is_alive() for worker in (projects.counter, projects.indexer))
    assert not memory.ready


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
