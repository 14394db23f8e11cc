"""The client that types: what it sends, what it makes of items, and what it says of a server that fails."""

import asyncio
import sys
from pathlib import Path

import pytest
from lsprotocol import types as lsp

from lsp_charrnn.errors import ModelError, UserError
from lsp_charrnn.evaluate.client import ServerSuggester
from lsp_charrnn.evaluate.replay import Window, replay
from lsp_charrnn.evaluate.typing import measure_typing
from lsp_charrnn.train.corpus import SourceFile

ORACLE = Path(__file__).with_name("oracle_server.py")


# What is typed, from where, what the oracle takes for the truth, and the keys without it and with it.
CASES = {
    # a, then three at a time: "bc\n" and the indentation, "def", "ghi", and j.
    "taken.py": ("abc\n  defghij", 0, "abc\n  defghij", 11, 5),
    # One key, then three at a time: 1 + 18 / 3.
    "astral.py": ("s = '😀ñ😀ñ'\nx = '😀'\n", 0, "s = '😀ñ😀ñ'\nx = '😀'\n", 19, 7),
    # What stands before the window is in the document.
    "window.py": ("import os\nabcdefg", 10, "import os\nabcdefg", 7, 3),
    # "bXd" is wrong, and so is all that follows it.
    "wrong.py": ("abcdef", 0, "abXdef", 6, 6),
}


def type_with_oracle(directory, cases):
    """Type the cases through one oracle, and return what happened by name."""
    for name, (_, _, truth, _, _) in cases.items():
        (directory / name).write_text(truth, "utf-8")

    async def run():
        command = (sys.executable, str(ORACLE), str(directory))
        async with ServerSuggester.started(projects=["shop"], command=command) as server:
            return {
                name: await replay(Window("shop", f"src/{name}", "python", text, start, len(text)), server)
                for name, (text, start, _, _, _) in cases.items()
            }

    return asyncio.run(run())


def test_what_the_oracle_knows_is_saved_to_the_key(tmp_path):
    results = type_with_oracle(tmp_path, CASES)
    keys = {name: (result.keys_without, result.keys_with) for name, result in results.items()}
    assert keys == {name: case[3:] for name, case in CASES.items()}
    taken = results["taken.py"]
    assert (taken.shown, taken.distinct, taken.taken) == (4, 4, 3)  # the last one, j, would save no key


def test_a_server_that_dies_is_one_sentence_with_its_last_words(tmp_path):
    with pytest.raises(UserError, match="exit code 3; it said: the end"):
        type_with_oracle(tmp_path, {"a.py": ("DIE now", 0, "", 7, 7)})


def test_an_error_that_the_server_shows_is_not_taken_for_silence(tmp_path):
    with pytest.raises(UserError, match="no such model"):
        type_with_oracle(tmp_path, {"a.py": ("FAIL now", 0, "", 8, 8)})


def test_a_server_that_is_not_there_is_one_sentence():
    async def run():
        async with ServerSuggester.started(command=("/no/such/server",)):
            pass

    with pytest.raises(UserError, match="Cannot start the server"):
        asyncio.run(run())


@pytest.fixture
def project(tmp_path):
    source = tmp_path / "shop" / "cart.py"
    source.parent.mkdir()
    source.write_text("".join(f"    total_{i} = price[{i}] + 1\n" for i in range(40)), "utf-8")
    return source.parent


def test_the_real_server_answers_every_key(project, tiny_model):
    report = asyncio.run(measure_typing([project], model=tiny_model, files=1, keys=60))
    assert len(report.windows) == 1
    assert [(row.suggester, row.accept) for row in report.rows] == [
        ("lsp-charrnn", "all"),
        ("lsp-charrnn", "words"),
        ("document's words", "all"),
    ]
    for row in report.rows:
        assert row.keys_without >= 60
        assert 0 < row.keys_with <= row.keys_without
        assert len(row.replays[0].latencies) == row.keys_with
    assert report.row("document's words", "all").saved > 0.1


def test_a_model_that_is_not_there_is_refused_before_anything_starts(project, tmp_path):
    with pytest.raises(ModelError):
        asyncio.run(measure_typing([project], model=tmp_path / "nothing", files=1, keys=60))


OTHER = b"def zyxwombat_frobnicator(self):\n    return self.zyxwombat_frobnicator(self)\n" * 15
HERE = "import os\n\n\ndef main(self):\n    self.zyxwo"


def server_of_three_projects():
    """Return a server that will be started with files in its folders; `here.py` is what is typed in."""
    places = (("shop", "src/other.py", OTHER), ("shop", "src/here.py", HERE.encode()))
    files = [SourceFile(*place, "python") for place in (*places, ("bank", "src/here.py", HERE.encode()))]
    settings = {"decode.budgetMs": 5000}  # whatever else this machine does
    return ServerSuggester.started(projects=["shop", "bank", "empty"], files=files, settings=settings)


async def status_of(server):
    return await server.answer(
        server._client.workspace_execute_command_async(lsp.ExecuteCommandParams("lspCharrnn.status"))
    )


def test_the_files_of_a_project_are_what_the_server_knows():
    async def run():
        said = {}
        async with server_of_three_projects() as server:
            folders = dict(server._folders)
            assert (folders["shop"] / "src/other.py").read_bytes() == OTHER
            await server.projects_known()
            status = await status_of(server)
            assert status["documents"] == 0
            found = {Path(one["root"]).name: (one["ready"], one["files"]) for one in status["projects"]}
            assert found == {"shop": (True, 2), "bank": (True, 1), "empty": (True, 0)}
            caches = folders["shop"].parent / ".cache"
            assert len(list(caches.iterdir())) == 3  # not in the user's own
            for project in ("shop", "bank"):
                await server.open(Window(project, "src/here.py", "python", HERE, 0, 1), HERE[:-1], "")
                said[project] = await server.suggest("o")
                await server.close()
        assert not folders["shop"].parent.exists()
        return said

    said = asyncio.run(run())
    assert said["shop"].startswith("mbat_frob")
    assert "frob" not in said["bank"]  # a project's names are its own


def test_a_server_that_is_to_count_no_project_is_not_waited_for(tiny_model):
    async def run():
        settings = {"memory.project": False}
        async with ServerSuggester.started(model=tiny_model, projects=["shop"], settings=settings) as server:
            await server.projects_known(patience=0)
            assert (await status_of(server))["projects"] == []

    asyncio.run(run())


def test_a_server_that_does_not_count_in_time_is_one_sentence(tiny_model):
    async def run():
        async with ServerSuggester.started(model=tiny_model, projects=["shop"]) as server:
            await server.projects_known(patience=0)

    with pytest.raises(UserError, match="did not count the project shop within 0 s"):
        asyncio.run(run())
