"""Training from the editor: what is started and shown, how it ends and is stopped, and once with all that is real."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from wire import INLINE, INLINE_CLIENT, PATIENCE, Json, Wire, at, eventually

from lsp_charrnn.config import Settings
from lsp_charrnn.engine.session import Session
from lsp_charrnn.model.installed import installed_model, is_unfinished, place_of
from lsp_charrnn.server import training as training_module
from lsp_charrnn.server.app import Server
from lsp_charrnn.server.models import Models
from lsp_charrnn.server.training import Trainings
from lsp_charrnn.server.worker import Worker

pytestmark = pytest.mark.asyncio

FAKE = Path(__file__).with_name("fake_training.py")
INVALID_PARAMS = -32602
TRAIN, CANCEL, STATUS = "lspCharrnn.train", "lspCharrnn.cancelTraining", "lspCharrnn.status"


@pytest.fixture(autouse=True)
def data(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without data of their own, whose model for Python is `tiny`; children see the same."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name, **_: str(tmp_path / "data" / name))
    monkeypatch.setenv("LSP_CHARRNN_MODELS", str(tiny_model.parent))
    return tmp_path / "data"


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let trainings take a course that is known."""
    monkeypatch.setattr(training_module, "PROGRAM", (sys.executable, str(FAKE)))
    return lambda name: monkeypatch.setenv("FAKE_TRAINING", name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    return root


@asynccontextmanager
async def serving(
    *roots: Path, trainings: Trainings | None = None, progress: bool = True, **settings: Any
) -> AsyncIterator[Wire]:
    worker = Worker()
    defaults = Settings(memory_document=False, memory_project=False, decode_budget_ms=5000)
    server = Server(worker, Models(), defaults=defaults, make_session=Session, trainings=trainings)
    wire = Wire(server)
    server.protocol.set_writer(wire)
    folders = [{"uri": root.as_uri(), "name": root.name} for root in roots]
    try:
        capabilities = {**INLINE_CLIENT, "window": {"workDoneProgress": progress}}
        params = {"processId": None, "capabilities": capabilities, "workspaceFolders": folders}
        await wire.ask("initialize", {**params, "initializationOptions": settings})
        wire.notify("initialized", {})
        yield wire
    finally:
        server.close()
        assert worker.close()


def begin(wire: Wire, command: str = TRAIN, *arguments: Any) -> asyncio.Future[Json]:
    """Send a command; its answer comes with the future."""
    message = wire.request("workspace/executeCommand", {"command": command, "arguments": list(arguments)})
    wire.receive(message)
    return wire.expect(message["id"])


async def end_of(answer: asyncio.Future[Json]) -> Json:
    response = await asyncio.wait_for(answer, 3 * PATIENCE)
    assert "error" not in response, response
    return dict(response["result"])


async def agree(wire: Wire) -> str:
    """Let the client agree to show progress; return its token."""
    await eventually(lambda: bool(wire.asked))
    asked = wire.asked.pop()
    assert asked["method"] == "window/workDoneProgress/create"
    wire.receive({"id": asked["id"], "result": None})
    return str(asked["params"]["token"])


def shown(wire: Wire) -> list[tuple[int, str]]:
    messages = [m["params"] for m in wire.notified if m["method"] == "window/showMessage"]
    return [(message["type"], message["message"]) for message in messages]


def progress_of(wire: Wire) -> list[Json]:
    return [m["params"]["value"] for m in wire.notified if m["method"] == "$/progress"]


async def under_way(wire: Wire) -> None:
    await eventually(lambda: any(one["phase"] == "training" for one in wire.server.trainings.to_json()))


async def test_a_training_is_shown_told_and_returned(root: Path, course: Callable[[str], None]) -> None:
    course("better")
    async with serving(root) as wire:
        answer = begin(wire, TRAIN, {"minutes": 3, "suffixes": [".py", ".pyi"]})
        await agree(wire)
        result = await end_of(answer)
        report = result.pop("report")
        assert result == {
            "root": str(root),
            "installed": True,
            "cancelled": False,
            "problem": None,
            "sentence": "12.0 % fewer bits on 3 files",
        }
        options = ["--base", "auto", "--install", "--json", "--force", "--minutes", "3"]
        assert report["arguments"] == ["train", str(root), *options, "--suffix", ".py", "--suffix", ".pyi"]
        assert report["cwd"] == str(place_of(root))
        assert int(report["threads"]) == max(1, len(os.sched_getaffinity(0)) - 1)
        assert report["nice"] >= min(19, os.nice(0) + 1)
        assert shown(wire) == [(3, "lsp-charrnn: trained on shop: 12.0 % fewer bits on 3 files; installed.")]
        assert wire.server.trainings.to_json() == wire.server.own_trainings == []


async def test_its_progress_goes_up_and_can_be_cancelled(root: Path, course: Callable[[str], None]) -> None:
    course("long")
    async with serving(root) as wire:
        answer = begin(wire)
        token = await agree(wire)
        await eventually(lambda: any(one.get("message") == "30 s left" for one in progress_of(wire)))
        status = await wire.ask("workspace/executeCommand", {"command": STATUS})
        assert status["trainings"] == [{"root": str(root), "phase": "training", "share": 0.6}]
        wire.notify("window/workDoneProgress/cancel", {"token": token})
        result = await end_of(answer)
        assert (result["cancelled"], result["installed"], result["problem"]) == (True, False, None)
        first, *reports, last = progress_of(wire)
        assert (first["kind"], first["title"], first["cancellable"]) == ("begin", "Training on shop", True)
        assert last["kind"] == "end"
        assert {report["percentage"] for report in reports} <= {0, 48, 57}
        assert not wire.server.work_done_progress.tokens
        (message,) = shown(wire)
        assert message == (3, "lsp-charrnn: the training on shop was stopped; the next one goes on from there.")


async def test_what_was_stopped_is_gone_on_with_unless_it_is_to_be_fresh(
    root: Path, course: Callable[[str], None]
) -> None:
    checkpoint = place_of(root) / "tuned.training" / "checkpoint.safetensors"
    course("better")
    async with serving(root, progress=False) as wire:
        for arguments, resumed in (([{"fresh": True}], False), ([], True), ([None], True)):
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.touch()
            report = (await end_of(begin(wire, TRAIN, *arguments)))["report"]
            assert ("--resume" in report["arguments"]) == resumed
            assert "--force" in report["arguments"]
        checkpoint.unlink()
        assert "--resume" not in (await end_of(begin(wire)))["report"]["arguments"]
        assert progress_of(wire) == []


@pytest.mark.parametrize("how", ["command", "command with root", "request", "shutdown", "gone"])
async def test_every_way_to_stop_it_leaves_a_checkpoint(root: Path, course: Callable[[str], None], how: str) -> None:
    course("long")
    async with serving(root) as wire:
        answer = begin(wire)
        await under_way(wire)
        (training,) = wire.server.own_trainings
        if how == "request":
            wire.notify("$/cancelRequest", {"id": wire._ids})
        elif how == "shutdown":
            await wire.ask("shutdown", None)
        elif how == "gone":
            wire.server.close()
        else:
            arguments = [{"root": root.as_uri()}] if how == "command with root" else []
            assert await end_of(begin(wire, CANCEL, *arguments)) == {"cancelled": [str(root)]}
            await end_of(answer)
        await eventually(lambda: training.process.poll() is not None)
        assert training.process.returncode == 130  # it has been asked once, and not twice
        assert is_unfinished(root)
        await eventually(lambda: not wire.server.trainings.to_json() and not wire.server.own_trainings)


async def test_one_that_cannot_hear_yet_is_ended_and_one_that_will_not_is_killed(
    root: Path, course: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_module, "GRACE", 0.1)
    async with serving(root) as wire:
        for name, ended_by in (("asleep", signal.SIGTERM), ("deaf", signal.SIGKILL)):
            course(name)
            answer = begin(wire)
            await eventually(lambda: bool(wire.server.own_trainings))
            (training,) = wire.server.own_trainings
            if name == "asleep":
                await eventually((place_of(root) / "asleep").exists)
            else:
                await under_way(wire)
            assert (await end_of(begin(wire, CANCEL)))["cancelled"] == [str(root)]
            assert (await end_of(answer))["cancelled"] is True
            assert training.process.returncode == -ended_by
        assert shown(wire)[-1][1].endswith("was stopped; nothing is left of it.")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("worse", "the new model is no better: train longer."),
        ("no torch", "this needs the package 'torch', which is not installed: pip it."),
        ("crash", "it failed (exit code 1): the same with `lsp-charrnn train` in a terminal shows where."),
    ],
)
async def test_what_went_wrong_is_one_sentence_each_time(
    root: Path, course: Callable[[str], None], name: str, problem: str
) -> None:
    course(name)
    async with serving(root, progress=False) as wire:
        for times in (1, 2):
            result = await end_of(begin(wire))
            assert (result["installed"], result["cancelled"], result["problem"]) == (False, False, problem)
            assert shown(wire) == [(2, f"lsp-charrnn: trained on shop: {problem}")] * times
        assert (result["report"] is not None) == (name == "worse")


async def test_a_project_is_trained_on_once_at_a_time_whoever_asks(
    root: Path, course: Callable[[str], None], tmp_path: Path
) -> None:
    course("long")
    (tmp_path / "link").symlink_to(root)
    other = tmp_path / "other"
    other.mkdir()
    trainings = Trainings()
    async with serving(root, trainings=trainings) as one, serving(tmp_path / "link", trainings=trainings) as two:
        first = begin(one)
        await under_way(one)
        for wire in (one, two):
            refused = await wire.ask_whole("workspace/executeCommand", {"command": TRAIN})
            assert refused["error"]["code"] == INVALID_PARAMS
            assert "is being trained on already: wait for the end of that" in refused["error"]["message"]
        second = begin(two, TRAIN, {"root": other.as_uri()})
        await eventually(lambda: len(trainings.to_json()) == 2)
        assert await end_of(begin(two, CANCEL)) == {"cancelled": [str(other)]}  # each client stops its own
        assert (await end_of(second))["cancelled"] is True
        assert not first.done()
        assert await end_of(begin(two, CANCEL, {"root": root.as_uri()})) == {"cancelled": [str(root)]}
        assert (await end_of(first))["cancelled"] is True
        course("better")
        assert (await end_of(begin(two)))["installed"] is True


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (TRAIN, [{"root": 5}], "cannot use 'root'"),
        (TRAIN, [{"minutes": 0}], "cannot use 'minutes'"),
        (TRAIN, [{"minutes": True}], "cannot use 'minutes'"),
        (TRAIN, [{"suffixes": ["py"]}], "cannot use 'suffixes'"),
        (TRAIN, [{"fresh": 1}], "cannot use 'fresh'"),
        (TRAIN, [{"minuets": 5}], "cannot use 'minuets'"),
        (TRAIN, ["file:///a"], "takes an object"),
        (TRAIN, [{}, {}], "takes an object"),
        (TRAIN, [{"root": "file:///no/such/place"}], "no folder on this machine"),
        (TRAIN, [{"root": "untitled:a"}], "no folder on this machine"),
        (TRAIN, [], "2 projects are open"),
        (CANCEL, ["x"], 'takes an object of "root"'),
        (CANCEL, [{"root": "file:///no/such/place"}], "no folder on this machine"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    root: Path, tmp_path: Path, course: Callable[[str], None], command: str, arguments: list[Any], says: str
) -> None:
    async with serving(root, tmp_path) as wire:
        answer = await wire.ask_whole("workspace/executeCommand", {"command": command, "arguments": arguments})
        assert answer["error"]["code"] == INVALID_PARAMS
        assert says in answer["error"]["message"]
        assert wire.server.trainings.to_json() == []


async def test_without_a_folder_it_is_the_work_tree_of_what_is_open(root: Path, course: Callable[[str], None]) -> None:
    course("better")
    async with serving(progress=False) as wire:
        refused = await wire.ask_whole("workspace/executeCommand", {"command": TRAIN})
        assert "no project is open" in refused["error"]["message"]
        (root / ".git").mkdir()
        (root / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
        wire.open("x", uri=(root / "a.py").as_uri())
        assert (await end_of(begin(wire)))["root"] == str(root)


async def test_it_starts_from_the_model_that_is_set(
    root: Path, course: Callable[[str], None], tiny_model: Path, tmp_path: Path
) -> None:
    course("better")
    (tmp_path / "mine").symlink_to(tiny_model)
    async with serving(root, progress=False, model=str(tmp_path / "mine")) as wire:
        assert str(tmp_path / "mine") in (await end_of(begin(wire)))["report"]["arguments"]
    async with serving(root, progress=False, model="no such model") as wire:
        refused = await wire.ask_whole("workspace/executeCommand", {"command": TRAIN})
        assert "no such model" in refused["error"]["message"]


async def test_all_of_it_for_real(root: Path) -> None:
    """Stopped, gone on with, installed, and used by the documents that are open."""
    for number in range(12):
        (root / f"m{number}.py").write_text(f"v{number} = {number}\n")  # too short to be typed again
    uri = (root / "new.py").as_uri()
    async with serving(root) as wire:
        wire.open("q", uri=uri)
        assert (await wire.ask(INLINE, at(0, 1, uri=uri)))["items"][0]["insertText"] == "quartz(x)"
        answer = begin(wire, TRAIN, {"minutes": 30})
        await agree(wire)
        end = time.monotonic() + 3 * PATIENCE
        while not is_unfinished(root) or not any("left" in p.get("message", "") for p in progress_of(wire)):
            assert time.monotonic() < end, (progress_of(wire), shown(wire))
            assert not answer.done(), answer.result()
            await asyncio.sleep(0.05)
        await end_of(begin(wire, CANCEL))
        assert (await end_of(answer))["cancelled"] is True
        assert is_unfinished(root)
        assert installed_model(root) is None
        result = await end_of(begin(wire, TRAIN, {"minutes": 0.01}))  # more than that is behind it
        assert result["installed"] is True, result
        assert "fewer bits on" in result["sentence"]
        assert shown(wire)[-1][1] == f"lsp-charrnn: trained on shop: {result['sentence']}; installed."
        assert installed_model(root) is not None
        assert not is_unfinished(root)

        async def in_use() -> list[str]:
            status = await wire.ask("workspace/executeCommand", {"command": STATUS})
            return [model["name"] for model in status["models"]]

        while await in_use() != ["shop"]:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
