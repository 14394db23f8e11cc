"""Kept cases, sent again to the real server; kept inputs, run again through what the guided fuzzer tries."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.fuzz.cases import URI, Case, kind_of, read_case
from benchmarks.fuzz.client import StdioConnection, TcpConnection, listening
from benchmarks.fuzz.targets import TARGETS

HERE = Path(__file__).parent
CASES = sorted((HERE / "cases").glob("*.json"))
INPUTS = sorted((HERE / "corpus").glob("*/*"))


@pytest.fixture(scope="module")
def port(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    server, port = listening(tmp_path_factory.mktemp("served"), tiny_model)
    yield port
    assert server.process.poll() is None
    server.kill()
    assert server.bugs() == []


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, port: int) -> None:
    case = read_case(path)
    connection = TcpConnection(port)
    connection.initialize()
    connection.forget()
    connection.received.clear()
    connection.send(case.data)
    if case.closes:
        connection.wait_closed()
        assert connection.errors == []
        return
    connection.wait_for(name for name in case.answers if name != "null")
    found = connection.digest(URI)  # whatever came before, it goes on; and has answered what it refuses
    received = Counter(kind for kind in map(kind_of, connection.received) if not kind[0].startswith("own-"))
    assert case.wrong(received) == []
    if case.says_text:
        assert (None if found is None else (found["bytes"], found["sha256"])) == case.digest()
    connection.hang_up()
    assert connection.errors == []


@pytest.mark.parametrize("name", ["length_of_5000_digits", "no_length"])
def test_bytes_that_are_no_messages_end_a_server_over_stdio(name: str, tiny_model: Path, tmp_path: Path) -> None:
    connection = StdioConnection(directory=tmp_path, model=tiny_model)
    connection.send(read_case(HERE / "cases" / f"{name}.json").data)
    connection.wait_closed()
    assert connection.server.wait() == 1
    assert re.fullmatch(
        r"ERROR lsp_charrnn\.server\.transport: the client sends .*\.", "\n".join(connection.server.log)
    )
    connection.server.kill()


def test_a_case_is_not_passed_by_other_answers_than_it_names() -> None:
    case = Case("", b"", {"a": "result", "null": -32600}, closes=False)
    assert case.wrong(Counter([("a", "result"), ("null", -32600)])) == []
    assert case.wrong(Counter([("a", -32603)])) == [
        "a: 'result' is missing",
        "null: -32600 is missing",
        "a: -32603 is too much",
    ]


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_input(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_inputs() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)
