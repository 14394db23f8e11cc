"""What is done to the server, and what must be true of it meanwhile: it answers, has the client's text, stays small.

Each scenario takes a `Trial`, which holds what is drawn from and what came of it. A fault of the server is noted, and
the next connection tried.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.fuzz.client import (
    COMPLETION,
    DIGEST,
    STATUS,
    Connection,
    HangError,
    Process,
    StdioConnection,
    TcpConnection,
    encoded,
    framed,
    listening,
)
from benchmarks.fuzz.edits import Editing, some_text
from benchmarks.fuzz.malformed import Malformed
from benchmarks.fuzz.oracle import ENCODINGS, ClientText

Json = dict[str, Any]

MEGABYTE: Final = 1_000_000
WARM_UP: Final = 0.25  # of a scenario: growth counts from there on
SAMPLES: Final = 60  # of the memory, in a scenario
COMPARED_EVERY: Final = 2_000  # edits
VICTIMS: Final = ("file:///fuzz/victim.py", "file:///fuzz/other%20victim.rs", "untitled:Untitled-1")
CODE: Final = "import os\n\n\nclass Thing:\n    def __init__(self, value):\n        self.value = value\n\n" * 4


@dataclass
class Memory:
    """The resident memory of one server over one scenario, in MB."""

    scenario: str
    curve: list[tuple[float, float]] = field(default_factory=list)  # (share of the scenario that is done, MB)

    @property
    def growth(self) -> float:
        """From the median of what came soon after the warm-up to the median of the end."""
        after = [mb for share, mb in self.curve if share >= WARM_UP]
        if len(after) < 2:
            return 0.0
        part = max(1, len(after) // 5)
        return sorted(after[-part:])[part // 2] - sorted(after[:part])[part // 2]


@dataclass
class Trial:
    """What is drawn from, and what came of it."""

    randomly: random.Random
    directory: Path
    model: Path | None = None
    found: Path | None = None  # where what broke something is kept
    messages: int = 0  # malformed ones sent
    edits: int = 0
    comparisons: int = 0  # of texts
    answers: int = 0
    connections: int = 0
    problems: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    told: Callable[[str], None] = lambda _: None

    @property
    def growth(self) -> float:
        """The most that a server grew in a scenario, in MB."""
        return max((memory.growth for memory in self.memories), default=0.0)

    def problem(self, sentence: str) -> None:
        """Note what must not be."""
        if sentence not in self.problems:
            self.problems.append(sentence)
            self.told(f"PROBLEM {sentence}")

    def hang(self, scenario: str, error: HangError, sent: bytes = b"") -> None:
        """Note that the server did not answer, or not close; keep what it had been sent."""
        self.hangs.append(f"{scenario}: {error}")
        self.told(f"HANG {scenario}: {error}")
        self.keep(f"hang-{len(self.hangs)}.bin", sent)

    def keep(self, name: str, data: bytes) -> None:
        """Keep what broke something, to look at it."""
        if self.found is not None and data:
            self.found.mkdir(parents=True, exist_ok=True)
            (self.found / name).write_bytes(data)

    def done_with(self, connection: Connection) -> None:
        """Count what a connection has seen."""
        self.connections += 1
        self.answers += connection.answered
        for error in connection.errors:
            self.problem(error)

    @contextmanager
    def stdio(self, command: Sequence[str] = ()) -> Iterator[StdioConnection]:
        """Start a server over stdio (another one by `command`), and see that it ends when its client goes."""
        connection = StdioConnection(directory=self.directory, model=self.model, command=command)
        try:
            yield connection
            connection.hang_up()
            connection.wait_closed()
            connection.server.wait()
        except HangError as error:
            self.hang("stdio", error)
        finally:
            connection.server.kill()
            self.done_with(connection)
            self.look_at_log(connection.server)

    @contextmanager
    def tcp(self) -> Iterator[tuple[Process, int]]:
        """Start a server on a port, and see that it is there until the end."""
        server, port = listening(self.directory, self.model)
        try:
            yield server, port
            if server.process.poll() is not None:
                self.problem(f"the TCP server ended by itself, with code {server.process.returncode}")
        finally:
            server.kill()
            self.look_at_log(server)

    def look_at_log(self, server: Process) -> None:
        """Note what the log tells of bugs."""
        bugs = server.bugs()
        for line in bugs:
            self.problem(f"log: {line}")
        if bugs:
            self.keep(f"log-{len(self.problems)}.txt", "\n".join(server.log).encode("utf-8"))


class Watch:
    """Samples a server's memory while a scenario of `total` steps goes on."""

    def __init__(self, trial: Trial, scenario: str, pid: int, total: int) -> None:
        self._memory = Memory(scenario)
        self._pid, self._total, self._next = pid, max(1, total), 0.0
        self._trial = trial
        trial.memories.append(self._memory)

    def at(self, step: int) -> None:
        """Take note that so much is done."""
        share = step / self._total
        if share >= self._next:
            self._next = share + 1 / SAMPLES
            self._memory.curve.append((share, resident_mb(self._pid)))
            self._trial.told(
                f"{self._memory.scenario}: {step:,} of {self._total:,}, {self._memory.curve[-1][1]:.0f} MB"
            )


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in MB, 0 where the system does not tell it."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024 / MEGABYTE
    except OSError:
        pass
    return 0.0


class Texts:
    """The documents of one client, that are edited rightly and compared."""

    def __init__(self, trial: Trial, connection: Connection, name: str, sizes: Sequence[int]) -> None:
        self.trial, self.connection = trial, connection
        self.all = [
            Editing(
                (trial.directory / f"{name}_{number}.py").as_uri(), ClientText(CODE, connection.encoding), most=size
            )
            for number, size in enumerate(sizes)
        ]
        self._since: dict[str, tuple[str, list[Json]]] = {}  # text and changes since they were compared last
        for one in self.all:
            connection.post(one.opening())
            self._since[one.uri] = one.text.text, []

    def edit(self, one: Editing, count: int) -> None:
        """Send so many random changes in one notification."""
        changes = one.changes(self.trial.randomly, count)
        self._since[one.uri][1].extend(changes)
        self.connection.post(one.message(changes))
        self.trial.edits += count

    def edited(self, count: int) -> Json:
        """Return the notification of so many changes of any document, not sent yet."""
        one = self.trial.randomly.choice(self.all)
        changes = one.changes(self.trial.randomly, count)
        self._since[one.uri][1].extend(changes)
        self.trial.edits += count
        return one.message(changes)

    def compare(self, one: Editing) -> None:
        """Ask for the server's text of a document, and hold it against the client's."""
        found = self.connection.digest(one.uri)
        size, digest = one.text.digest()
        self.trial.comparisons += 1
        before, changes = self._since[one.uri]
        self._since[one.uri] = one.text.text, []
        if found is not None and (found["bytes"], found["sha256"], found["version"]) == (size, digest, one.version):
            return
        what = "is not known" if found is None else f"has {found['bytes']} bytes, version {found['version']}"
        self.trial.problem(f"the server's text of {one.uri} {what}; the client's has {size}, version {one.version}")
        case = {"encoding": one.text.encoding, "text": before, "changes": changes}
        self.trial.keep(f"text-{len(self.trial.problems)}.json", json.dumps(case, indent=1).encode("ascii"))
        self.connection.post(one.message(one.whole(one.text.text)))

    def compare_all(self) -> None:
        """Compare every document."""
        for one in self.all:
            self.compare(one)

    def complete(self, one: Editing) -> Json:
        """Return a request for ghost text anywhere, not sent yet."""
        randomly = self.trial.randomly
        return self.connection.request(
            COMPLETION,
            {
                "textDocument": {"uri": one.uri},
                "position": one.place(randomly),
                "context": {"triggerKind": randomly.choice((1, 2))},
            },
        )


# --- the scenarios ------------------------------------------------------------------------------------------


def malformed(trial: Trial, count: int, connection: Connection, pid: int, name: str) -> None:
    """Send so many malformed messages among right ones, in pieces of any size; all that asks must be answered."""
    randomly = trial.randomly
    connection.initialize(randomly.choice(ENCODINGS), root=_project(trial))
    texts = Texts(trial, connection, f"kept_{name}", (300, 20_000))
    draw = Malformed(randomly, VICTIMS, name)
    watch = Watch(trial, f"malformed, {name}", pid, count)
    sent = 0
    while sent < count:
        batch = [draw.message() for _ in range(min(count - sent, randomly.randint(1, 20)))]
        pieces = [one.data for one in batch]
        place = 0
        for _ in range(randomly.randint(0, 2)):
            place = randomly.randint(place, len(pieces))
            pieces.insert(place, encoded(texts.edited(randomly.randint(1, 5))))
            place += 1
        data = b"".join(pieces)
        asked = texts.complete(randomly.choice(texts.all))
        try:
            for piece in _parted(randomly, data):
                connection.send(piece)
            connection.post(asked)
            connection.wait_for([*(one for bad in batch for one in bad.ids), asked["id"]])
        except HangError as error:
            trial.hang(f"malformed, {name}", error, data)
            return
        connection.forget()
        sent += len(batch)
        trial.messages += len(batch)
        watch.at(sent)
        if randomly.random() < 0.1:
            texts.compare_all()
            _recovers(trial, connection, randomly.choice(VICTIMS))
    texts.compare_all()


def headers(trial: Trial, count: int, port: int, server: Process) -> None:
    """Send bytes that are no messages, each on a connection of its own, which must be closed, and only that one."""
    randomly = trial.randomly
    draw = Malformed(randomly, VICTIMS)
    steady = TcpConnection(port)
    steady.initialize(root=_project(trial))
    texts = Texts(trial, steady, "steady", (1_000,))
    watch = Watch(trial, "headers", server.pid, count)
    for number in range(count):
        connection = TcpConnection(port)
        bad = draw.framing()
        try:
            if randomly.random() < 0.5:
                connection.initialize()
                connection.post(Editing(VICTIMS[0], ClientText(CODE), 0).opening())
            for piece in _parted(randomly, bad.data):
                connection.send(piece)
            connection.wait_closed()
        except HangError as error:
            trial.hang("headers", error, bad.data)
        connection.hang_up()
        trial.done_with(connection)
        trial.messages += 1
        watch.at(number + 1)
        if number % 50 == 0:
            texts.edit(texts.all[0], 3)
            texts.compare_all()
    texts.compare_all()
    steady.hang_up()
    trial.done_with(steady)


def headers_stdio(trial: Trial, count: int) -> None:
    """The same over stdio, where the server must end, with exit code 1."""
    draw = Malformed(trial.randomly, VICTIMS)
    for number in range(count):
        bad = draw.framing()
        trial.told(f"headers over stdio: {number + 1} of {count}")
        with trial.stdio() as connection:
            connection.initialize()
            connection.send(bad.data)
            trial.messages += 1
            try:
                connection.wait_closed()
                code = connection.server.wait()
                if code != 1:
                    trial.problem(f"after {bad.data[:60]!r} the server ended with {code}, not 1")
            except HangError as error:
                trial.hang("headers over stdio", error, bad.data)


def edits(trial: Trial, count: int, connections: Sequence[Connection], pid: int, name: str) -> None:
    """Send so many edits, many to a message, by all the connections in turn; ask now and then, and compare."""
    randomly = trial.randomly
    clients = [
        Texts(trial, connection, f"edited_{name}_{number}", (200, 3_000, 40_000, 200_000))
        for number, connection in enumerate(connections)
    ]
    # The same document in another's hands, with another text.
    for client in clients[1:]:
        client.all[0].uri = clients[0].all[0].uri
        client._since[client.all[0].uri] = client.all[0].text.text, []
        client.connection.post(client.all[0].opening())
    watch = Watch(trial, f"edits, {name}", pid, count)
    done, compared = 0, 0
    while done < count:
        client = randomly.choice(clients)
        one = randomly.choices(client.all, (3, 6, 2, 1))[0]
        size = min(count - done, randomly.choice((1, 1, 2, 5, 20, 100, 400, 1000)))
        client.edit(one, size)
        done += size
        try:
            if randomly.random() < 0.1:
                asked = client.complete(one)
                client.connection.post(asked)
                client.connection.wait_for([asked["id"]])
            if done - compared >= COMPARED_EVERY or done >= count:
                compared = done
                for one_client in clients:
                    one_client.compare_all()
                    one_client.connection.forget()
        except HangError as error:
            trial.hang(f"edits, {name}", error)
            return
        watch.at(done)


def cancel_storm(trial: Trial, rounds: int, connection: Connection) -> None:
    """Ask, edit and cancel all at once: what was asked, what was not, twice, and before it was asked."""
    randomly = trial.randomly
    texts = Texts(trial, connection, "storm", (2_000,))
    one = texts.all[0]
    for _ in range(rounds):
        asked: list[Json] = []
        messages: list[Json] = []
        for _ in range(randomly.randint(20, 200)):
            chance = randomly.random()
            if chance < 0.4:
                asked.append(texts.complete(one))
                if randomly.random() < 0.1:
                    messages.append(_cancel(asked[-1]["id"]))
                messages.append(asked[-1])
            elif chance < 0.9:
                wanted = randomly.choice(asked)["id"] if asked else "never asked"
                messages.append(_cancel(randomly.choice((wanted, wanted, "nobody", 0, -1, 10**30))))
            else:
                messages.append(texts.edited(1))
        try:
            connection.send(b"".join(map(encoded, messages)))
            connection.wait_for([request["id"] for request in asked])
            texts.compare_all()
        except HangError as error:
            trial.hang("cancel storm", error, b"".join(map(encoded, messages)))
            return
        connection.forget()


def large(trial: Trial, megabytes: int, rounds: int, connection: Connection, pid: int) -> None:
    """Send messages of that many megabytes, of every kind, again and again."""
    size = megabytes * MEGABYTE
    line = "    value = function(argument, 12345)\n"
    code = line * (size // len(line))
    uri = "file:///fuzz/large.py"
    text = ClientText(code, connection.encoding)
    size_of, digest = text.digest()
    one = Editing(uri, ClientText("", connection.encoding), 0)
    kinds: list[tuple[str, Callable[[], bytes]]] = [
        ("an unknown request", lambda: _raw("foo", b'"' + b"x" * size + b'"', "large-1")),
        ("an unknown notification of objects", lambda: _raw("foo", _objects(size))),
        ("an unknown request of nested objects", lambda: _raw("foo", _nested(size), "large-3")),
        ("a response of objects", lambda: _response(_objects(size))),
        ("brackets", lambda: framed(b"[" * size)),
        ("a method's name", lambda: _raw("m" * size, b"{}", "large-2")),
        ("malformed changes", lambda: _malformed_changes(uri, size)),
        ("an id", lambda: _raw("foo", b"1", "i" * size)),
        ("a digit string", lambda: framed(b"1" * size)),
        ("spaces", lambda: framed(b" " * size)),
    ]
    watch = Watch(trial, f"{megabytes} MB messages", pid, rounds)
    for number in range(rounds):
        try:
            connection.post(one.opening())
            connection.post(one.message([{"text": code}]))
            found = connection.digest(uri)
            trial.comparisons += 1
            if found is None or (found["bytes"], found["sha256"]) != (size_of, digest):
                trial.problem(f"a text of {megabytes} MB is another one in the server")
            end = {"line": 10**6, "character": 0}
            connection.post(one.message([{"range": {"start": end, "end": end}, "text": "val"}]))
            connection.ask(COMPLETION, {"textDocument": {"uri": uri}, "position": end, "context": {"triggerKind": 1}})
            connection.post({"method": "textDocument/didClose", "params": {"textDocument": {"uri": uri}}})
            for what, make in kinds:
                began = time.monotonic()
                connection.send(make())
                connection.ask(DIGEST, {"textDocument": {"uri": uri}})
                trial.told(f"{what} of {megabytes} MB: answered after {time.monotonic() - began:.1f} s")
                trial.messages += 1
                connection.forget()
        except HangError as error:
            trial.hang(f"{megabytes} MB messages", error)
            return
        _settled(pid)
        watch.at(number + 1)


def disconnects(trial: Trial, count: int, port: int, server: Process) -> None:
    """Connect, say something, or half of it, and go without a word; the server must let go of all of it."""
    randomly = trial.randomly
    watch = Watch(trial, "disconnects", server.pid, count)
    before = server.descriptors()
    for number in range(count):
        connection = TcpConnection(port)
        try:
            if randomly.random() < 0.8:
                connection.initialize(root=_project(trial))
                one = Editing(VICTIMS[0], ClientText(CODE), 1_000)
                connection.post(one.opening())
                place = {"line": 2, "character": 0}
                asked = connection.request(
                    COMPLETION,
                    {"textDocument": {"uri": one.uri}, "position": place, "context": {"triggerKind": 1}},
                )
                connection.post(*(one.message(one.changes(randomly, 3)) for _ in range(5)), asked)
            message = encoded(Editing(VICTIMS[1], ClientText(CODE * randomly.choice((1, 500))), 0).opening())
            connection.send(message[: randomly.randrange(len(message))])
        except HangError as error:
            trial.hang("disconnects", error)
        if randomly.random() < 0.5:
            connection.reset()
        else:
            connection.hang_up()
        trial.done_with(connection)
        watch.at(number + 1)
    end = time.monotonic() + 20
    while server.descriptors() > before and time.monotonic() < end:
        time.sleep(0.1)
    if server.descriptors() > before:
        trial.problem(f"{server.descriptors() - before} connections of {count} are still open after their clients went")
    try:
        last = TcpConnection(port)
        last.initialize()
        texts = Texts(trial, last, "after", (1_000,))
        texts.edit(texts.all[0], 50)
        texts.compare_all()
        last.hang_up()
        trial.done_with(last)
    except HangError as error:
        trial.hang("after disconnects", error)


def disconnects_stdio(trial: Trial, count: int) -> None:
    """The same over stdio: a client that goes takes its server with it, with exit code 1."""
    for _ in range(count):
        with trial.stdio() as connection:
            connection.initialize()
            message = encoded(Editing(VICTIMS[1], ClientText(CODE * 100), 0).opening())
            connection.send(message + message[: trial.randomly.randrange(len(message))])
            connection.hang_up()
            if (code := connection.server.wait()) != 1:
                trial.problem(f"a client went in the middle of a message, and the server ended with {code}, not 1")


def out_of_order(trial: Trial, connection: Connection) -> None:
    """Send everything before `initialize`, that twice, and everything after `shutdown`; then `exit`."""
    draw = Malformed(trial.randomly, VICTIMS, "early")
    try:
        for stage in range(3):
            batch = [draw.message() for _ in range(50)]
            if stage == 1:
                for _ in range(2):  # the first may come too late already: among what was sent may be another
                    connection.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
                if connection.ask("shutdown", None).get("error") is not None:
                    trial.problem("shutdown was refused")
            connection.send(b"".join(bad.data for bad in batch))
            connection.wait_for([one for bad in batch for one in bad.ids])
            connection.ask(DIGEST, None)  # refused at any time, and after all that came before
            trial.messages += len(batch)
            connection.forget()
        connection.post({"method": "exit"})
        connection.wait_closed()
    except HangError as error:
        trial.hang("out of order", error)


def deaf(trial: Trial, connection: Connection, pid: int, megabytes: int) -> None:
    """Ask and ask and read nothing: the server must not pile up answers without bound, and go on, or hang up."""
    connection.initialize()
    uri = VICTIMS[0]
    connection.post(Editing(uri, ClientText(CODE), 0).opening())
    before, most = resident_mb(pid), 0.0
    connection.pause_reading(True)
    block = b"".join(encoded(connection.request(*_status(uri))) for _ in range(500))
    end = time.monotonic() + 20
    sent = 0
    while sent < megabytes * MEGABYTE and time.monotonic() < end and not connection.closed:
        try:
            if not connection.send(block, 1.0):
                break
        except HangError:  # it does not read on while it cannot write: as it should be
            break
        sent += len(block)
        most = max(most, resident_mb(pid) - before)
    trial.told(f"a client that does not read: {sent / MEGABYTE:.0f} MB of questions, {most:+.0f} MB")
    if most > MOST_PILED_UP:
        trial.problem(f"for a client that does not read, the server grew by {most:.0f} MB")
    connection.pause_reading(False)
    connection.hang_up()


MOST_PILED_UP: Final = 300.0  # MB


# --- small things -------------------------------------------------------------------------------------------


def _project(trial: Trial) -> Path:
    folder = trial.directory / "project"
    folder.mkdir(exist_ok=True)
    return folder


def _parted(randomly: random.Random, data: bytes) -> Iterator[bytes]:
    """Yield data in pieces as they may arrive: mostly in one."""
    if randomly.random() < 0.7:
        yield data
        return
    while data:
        size = randomly.choice((1, 3, 20, 500, 5_000, 70_000))
        yield data[:size]
        data = data[size:]


def _recovers(trial: Trial, connection: Connection, uri: str) -> None:
    """See that a document to which anything was done is right again once it is opened anew."""
    one = Editing(uri, ClientText(some_text(trial.randomly, 50), connection.encoding), 500)
    connection.post(one.opening(), one.message(one.changes(trial.randomly, 3)))
    trial.edits += 3
    found, expected = connection.digest(uri), one.text.digest()
    trial.comparisons += 1
    if found is None or (found["bytes"], found["sha256"]) != expected:
        trial.problem(f"{uri} was opened anew and edited, and the server has another text")


def _settled(pid: int) -> None:
    """Wait until a server's memory stays as it is, a few seconds at most."""
    last = resident_mb(pid)
    for _ in range(20):
        time.sleep(0.25)
        now = resident_mb(pid)
        if abs(now - last) < 1:
            return
        last = now


def _cancel(number: Any) -> Json:
    return {"method": "$/cancelRequest", "params": {"id": number}}


def _status(uri: str) -> tuple[str, Json]:
    return "workspace/executeCommand", {"command": STATUS, "arguments": [uri]}


def _raw(method: str, params: bytes, number: str | None = None) -> bytes:
    call = {"jsonrpc": "2.0", "method": method} | ({} if number is None else {"id": number})
    return framed(json.dumps(call).encode()[:-1] + b',"params":' + params + b"}")


def _objects(size: int) -> bytes:
    return b'{"a":[' + b"{}," * (size // 3) + b"1]}"


def _nested(size: int) -> bytes:
    return b'{"a":' * (size // 6) + b"1" + b"}" * (size // 6)


def _response(result: bytes) -> bytes:
    return framed(b'{"jsonrpc":"2.0","id":"nobody","result":' + result + b"}")


def _malformed_changes(uri: str, size: int) -> bytes:
    changes = b"[" + b'{"range":5},' * (size // 12) + b'{"text":5}]'
    document = json.dumps({"uri": uri, "version": 1}).encode()
    return _raw("textDocument/didChange", b'{"textDocument":' + document + b',"contentChanges":' + changes + b"}")
