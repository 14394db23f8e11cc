"""The fuzzing itself, in a few seconds; and that it notices a server which is not as it must be."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fuzz.__main__ import GROWTH, summary
from benchmarks.fuzz.client import HangError, StdioConnection
from benchmarks.fuzz.malformed import Malformed, valid_messages
from benchmarks.fuzz.scenarios import Memory, Texts, Trial, malformed

ROOT = Path(__file__).parents[2]


def test_the_server_survives_it(tiny_model: Path, tmp_path: Path) -> None:
    sizes = ["--messages", "120", "--edits", "4000", "--megabytes", "1", "--rounds", "1", "--seed", "7"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", *sizes, "--model", str(tiny_model), "--found", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = " ".join(done.stdout.split())
    found = re.search(r"seed 7: (\d+) malformed messages, ([\d,]+) edits, .* 0 errors, 0 hangs", last)
    assert found is not None, done.stdout
    assert int(found[1]) >= 120
    assert int(found[2].replace(",", "")) >= 4000
    assert list(tmp_path.iterdir()) == []


# A server that answers whatever is asked, and changes no text.
STUBBORN = """
import hashlib, json, sys
texts = {}
while True:
    length = int(sys.stdin.buffer.readline().split(b":")[1])
    sys.stdin.buffer.readline()
    message = json.loads(sys.stdin.buffer.read(length))
    params = message.get("params")
    if message["method"] == "textDocument/didOpen":
        texts[params["textDocument"]["uri"]] = params["textDocument"]["text"].encode()
    if "id" not in message:
        continue
    result = {"capabilities": {"positionEncoding": "utf-16"}}
    if message["method"] == "lspCharrnn/digest":
        data = texts[params["textDocument"]["uri"]]
        result = {"version": 2, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
    sys.stdout.buffer.write(b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def stubborn(tmp_path: Path) -> StdioConnection:
    return StdioConnection(directory=tmp_path, command=(sys.executable, "-c", STUBBORN))


def test_another_text_is_noticed_and_what_led_to_it_is_kept(stubborn: StdioConnection, tmp_path: Path) -> None:
    trial = Trial(random.Random(1), tmp_path, found=tmp_path / "found")
    stubborn.initialize()
    texts = Texts(trial, stubborn, "a", (100,))
    texts.edit(texts.all[0], 5)
    texts.compare_all()
    assert len(trial.problems) == 1
    assert "the server's text of" in trial.problems[0]
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["text-1.json"]
    stubborn.server.kill()


def test_a_server_that_does_not_answer_is_a_hang(stubborn: StdioConnection, tmp_path: Path) -> None:
    trial = Trial(random.Random(1), tmp_path)
    malformed(trial, 40, stubborn, stubborn.server.pid, "stubborn")  # it ends by the first that is no JSON
    assert len(trial.hangs) == 1
    with pytest.raises(HangError, match="unanswered after 0 s"):
        StdioConnection(directory=tmp_path, command=("sleep", "60")).ask("foo", {}, patience=0.1)


def test_growth_is_from_after_the_warm_up_to_the_end() -> None:
    memory = Memory("a", [(0.0, 10), (0.2, 90), (0.3, 100), (0.6, 104), (0.9, 110), (1.0, 130)])
    assert memory.growth == 30
    trial = Trial(random.Random(0), Path(), memories=[memory, Memory("b", [(0.0, 1)])])
    assert f"growth +30.0 MB (at most {GROWTH:.0f})" in summary(trial, 0, 1.0)


def test_a_log_that_tells_of_a_bug_is_noticed(tmp_path: Path) -> None:
    trial = Trial(random.Random(1), tmp_path)
    failing = "import sys; sys.stdin.read(); print('2026-01-01 10:00:00,1 ERROR x: y failed: z', file=sys.stderr)"
    with trial.stdio(command=(sys.executable, "-c", failing)):
        pass
    assert trial.problems == ["log: ERROR x: y failed: z"]


def test_what_is_drawn_asks_for_what_it_names() -> None:
    drawn = Malformed(random.Random(3), ["file:///a.py"])
    messages = [drawn.message() for _ in range(2000)]
    assert {bad.kind for bad in messages} == {"changed", "unknown", "out of order", "json", "no message", "garbled"}
    asked: list[Any] = [name for bad in messages for name in bad.ids]
    assert len(asked) > 500
    assert not any(bad.closes for bad in messages)
    assert all(drawn.framing().closes for _ in range(50))
    assert {message.get("method") for message in valid_messages("file:///a.py")} >= {"textDocument/didChange", None}
