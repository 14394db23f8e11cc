"""The server opens no socket, and no file but its project's, its models', its caches' and its installation's.

Here by the audit events of the interpreter, which any machine has; `make test-sandbox` does the same under strace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.sandbox import OUTSIDE, Opened, of_audit, of_strace, place_of, places, watched


@pytest.fixture
def inside(tmp_path: Path) -> dict[str, list[str]]:
    return places(tmp_path / "project", tmp_path / "home", tmp_path / "models" / "tiny")


def test_the_server_opens_nothing_outside(tiny_model: Path, tmp_path: Path) -> None:
    opened, given = watched(tmp_path.resolve(), tiny_model.resolve(), audit=True)
    assert given > 0
    assert opened.outside == []
    assert not opened.sockets
    assert opened.summary() == "sockets opened: 0, files opened outside: 0"
    seen = {name: "\n".join(files) for name, files in opened.files.items()}
    assert "inventory.py" in seen["the project"]  # it has been counted
    assert ".env" not in seen["the project"]  # it has not been looked into
    assert ".counts" in seen["caches"]
    assert "model.onnx" in seen["models"]
    assert {Path(program).name for program in opened.programs} <= {"git"}


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("open('/etc/passwd').close()", "/etc/passwd"),
        ("import os; os.close(os.open('/etc/group', os.O_RDONLY))", "/etc/group"),
        ("from pathlib import Path; Path('../../elsewhere').write_text('x')", "elsewhere"),
        ("import socket; socket.socket()", "AF_INET"),
        ("import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", "AF_INET6"),
        (
            "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('localhost', 1)",
            "socket.getaddrinfo",
        ),
        (
            "import socket, contextlib\n"
            "with contextlib.suppress(OSError): socket.socket(socket.AF_UNIX).connect('/nowhere')",
            "socket.connect",
        ),
    ],
)
def test_what_is_outside_is_seen(tiny_model: Path, tmp_path: Path, code: str, what: str) -> None:
    """The same observer, around code that does what the server must not."""
    opened, _ = watched(tmp_path.resolve() / "place", tiny_model.resolve(), audit=True, code=code)
    assert not opened.clean
    numbers = {"AF_INET": "2", "AF_INET6": "10"}
    found = [*opened.outside, *opened.sockets]
    assert any(what in name or name == numbers.get(what) for name in found), found


STRACE = """\
100 execve("/usr/bin/python3", ["python3"], 0x1 /* 9 vars */) = 0
100 openat(AT_FDCWD</work>, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3</etc/ld.so.cache>
100 openat(AT_FDCWD</work>, "missing", O_RDONLY) = -1 ENOENT (No such file or directory)
101 openat(7<{root}>, "a.py", O_RDONLY <unfinished ...>
100 open("/proc/self/status", O_RDONLY) = 4</proc/100/status>
101 <... openat resumed>)             = 8<{root}/a.py>
101 openat(AT_FDCWD</work>, "link", O_RDONLY) = 9</etc/passwd>
101 creat("/home/other/new", 0600)    = 9</home/other/new (deleted)>
101 socketpair(AF_UNIX, SOCK_STREAM, 0, [5, 6]) = 0
101 socket(AF_INET, SOCK_STREAM, IPPROTO_IP <unfinished ...>
101 socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) = 10
101 connect(10<socket:[1]>, {{sa_family=AF_INET, sin_port=htons(53)}}, 16) = -1 ENETUNREACH (Network is unreachable)
102 execve("/usr/bin/git", ["git"], 0x1 /* 9 vars */) = 0
102 execve("/bin/git", ["git"], 0x1 /* 9 vars */) = -1 ENOENT (No such file or directory)
"""


def test_what_strace_writes_is_read(tmp_path: Path, inside: dict[str, list[str]]) -> None:
    lines = STRACE.format(root=tmp_path / "project").splitlines(keepends=True)
    opened = of_strace(iter(lines), inside)
    assert opened.outside == ["/etc/passwd", "/home/other/new"]  # where a link leads, and what is gone again
    assert list(opened.files["the project"]) == [str(tmp_path / "project" / "a.py")]
    assert list(opened.files["figures of the system"]) == ["/proc/100/status"]
    assert opened.sockets.total() == 3  # the pair is none: no address leads to it
    assert list(opened.programs) == ["/usr/bin/python3", "/usr/bin/git"]
    assert opened.summary() == "sockets opened: 3, files opened outside: 2"


def test_what_the_event_loop_wakes_itself_by_is_no_socket(inside: dict[str, list[str]]) -> None:
    def of(*events: tuple[str, str]) -> Opened:
        lines: Iterator[str] = map(json.dumps, events)
        return of_audit(lines, inside)

    assert of(("socket", "1"), ("socket", "AddressFamily.AF_UNIX")).clean
    assert not of(("socket", "1"), ("network", "socket.connect")).clean
    assert not of(("socket", "2")).clean


def test_neighbours_of_what_is_inside_are_outside(tmp_path: Path, inside: dict[str, list[str]]) -> None:
    root = str(tmp_path / "project")
    assert place_of(root, inside) == "the project"
    assert place_of(f"{root}/a.py", inside) == "the project"
    for path in (f"{root}2/a.py", str(tmp_path), "/etc/passwd", "/home", "/procx", "/root/.ssh/id_rsa"):
        assert place_of(path, inside) == OUTSIDE
