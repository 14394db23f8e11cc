"""What the server opens while it works: which files, which sockets, which programs; what lies outside is told.

python -m benchmarks.sandbox [--audit] [--json FILE] [--model DIR]

A project is opened, typed into, completed, saved, looked through for surprise, counted and written to the cache, all by
the real server with a home of its own. By default that happens in a network namespace without interfaces, under strace,
which sees what libraries in C do, too (Linux, and root or unprivileged user namespaces). With --audit the interpreter's
own audit events are counted instead: that needs nothing, and sees what Python code does. Exit code 1 if anything was
outside.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Optional

import typer
from rich.console import Console
from rich.table import Table

import lsp_charrnn
from lsp_charrnn.errors import UserError
from lsp_charrnn.model.files import search_path
from lsp_charrnn.server.transport import Framing

console = Console(highlight=False)

OUTSIDE: Final = "outside"
_FILES: Final = {
    "inventory.py": "class Inventory:\n    def __init__(self, shelf):\n        self.shelf = shelf\n\n" * 30,
    "use.py": "from inventory import Inventory\n\n\ndef main():\n    inventory = Inventory(3)\n    inv",
    "README.md": "# A project\n",
    ".gitignore": "build/\n",
    ".env": "PASSWORD=never-read\n",
}
_SECONDS: Final = 300.0  # until a server that says nothing is given up

# Installed before the server is imported. A file that is given by a number has been opened already.
_AUDIT: Final = """
import json, os, runpy, sys
log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def hook(event, arguments):
    if event == "open" and not isinstance(arguments[0], int) and arguments[0] is not None:
        found = ["open", os.path.realpath(os.fsdecode(arguments[0]))]
    elif event == "socket.__new__":
        found = ["socket", str(arguments[1])]
    elif event.startswith("socket."):
        found = ["network", event]
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        found = ["run", os.fsdecode(arguments[0])]
    else:
        return
    os.write(log, json.dumps(found).encode() + b"\\n")
sys.addaudithook(hook)
if sys.argv[1:2] == ["-c"]:
    exec(sys.argv[2])
else:
    runpy.run_module("lsp_charrnn", run_name="__main__", alter_sys=True)
"""
# A file's real path stands behind the descriptor that opening it gave (strace -y).
_OPENED: Final = re.compile(r"\b(?:open|openat|openat2|creat)\b.*= \d+<(.*)>$")
_SOCKET: Final = re.compile(r"^\d+ +socket\((\w+)")
_NETWORK: Final = re.compile(r"^\d+ +((?:(?:connect|bind|listen)\(|(?:sendto|sendmsg)\(.*sa_family).*)")
_RUN: Final = re.compile(r'^\d+ +execve\("([^"]*)".* = 0$')


@dataclass
class Opened:
    """What a process opened. Files by where they are, sockets by what kind they are."""

    files: dict[str, Counter[str]] = field(default_factory=dict)
    sockets: Counter[str] = field(default_factory=Counter)
    programs: Counter[str] = field(default_factory=Counter)

    def file(self, path: str, places: Mapping[str, Sequence[str]]) -> None:
        """Count a file that was opened."""
        self.files.setdefault(place_of(path, places), Counter())[path] += 1

    @property
    def outside(self) -> list[str]:
        """The files outside."""
        return sorted(self.files.get(OUTSIDE, {}))

    @property
    def clean(self) -> bool:
        """Whether nothing was outside."""
        return not self.outside and not self.sockets

    def summary(self) -> str:
        """Return the figures in one line."""
        return f"sockets opened: {self.sockets.total()}, files opened outside: {len(self.outside)}"


def places(root: Path, home: Path, models: Path) -> dict[str, list[str]]:
    """Return what counts as what: directories, and single files, the first that fits."""
    paths = sysconfig.get_paths()
    package = Path(lsp_charrnn.__file__).parent
    # Not the prefix itself: that of a system's own Python is /usr.
    parts = ("bin", "lib", "lib64", "Scripts", "Lib", "pyvenv.cfg")
    python = [str(Path(prefix, part)) for prefix in (sys.prefix, sys.base_prefix) for part in parts]
    python += [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found: dict[str, list[str | Path]] = {
        "the project": [root],
        "models": [models, home / "data" / "lsp-charrnn", *search_path()],
        "caches": [home / "cache" / "lsp-charrnn"],  # not all: a library could keep what it likes beside it
        "the server and Python": [package, *python],
        "git's own": ["/etc/gitconfig", "/usr/libexec/git-core", "/usr/share/git-core", home / ".gitconfig"],
        "system libraries": [
            *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store"),
            *("/usr/share/locale", "/usr/share/zoneinfo", "/etc/localtime"),
            *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
            *("/etc/locale.alias", "/etc/ssl/openssl.cnf", "/etc/os-release"),  # of the C library, OpenSSL, the system
        ],
        "figures of the system": ["/proc", "/sys"],
        "devices": ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"],
    }
    known = {
        name: sorted({at for one in entries for at in (str(Path(one).absolute()), os.path.realpath(one))})
        for name, entries in found.items()
    }
    # To find modules Python lists these directories; what is in them is another thing.
    known["the server and Python"] += [f"={os.path.realpath(path)}" for path in sys.path if path]
    return known


def place_of(path: str, places: Mapping[str, Sequence[str]]) -> str:
    """Return the name of the place that a path lies in; `OUTSIDE` if in none."""
    if not path.startswith("/"):  # pipe:[1], anon_inode:[eventpoll]
        return "pipes and the like"
    for name, entries in places.items():
        if f"={path}" in entries or any(path == entry or path.startswith(entry.rstrip("/") + "/") for entry in entries):
            return name
    return OUTSIDE


def of_strace(lines: Iterator[str], places: Mapping[str, Sequence[str]]) -> Opened:
    """Return what a log of strace says."""
    opened = Opened()
    for line in lines:
        line = line.rstrip("\n")
        if found := _OPENED.search(line):
            opened.file(found[1].removesuffix(" (deleted)"), places)
        elif found := _SOCKET.search(line):
            opened.sockets[found[1]] += 1
        elif found := _NETWORK.search(line):
            opened.sockets[found[1][:120]] += 1
        elif found := _RUN.search(line):
            opened.programs[found[1]] += 1
    return opened


def of_audit(lines: Iterator[str], places: Mapping[str, Sequence[str]]) -> Opened:
    """Return what a log of audit events says.

    The event loop wakes itself by a pair of sockets that no address leads to, of the family AF_UNIX; what would give
    one an address, or take it to one, is an event of its own.
    """
    opened = Opened()
    for line in lines:
        event, what = json.loads(line)
        if event == "open":
            opened.file(what, places)
        elif event == "run":
            opened.programs[what] += 1
        elif event == "network" or what not in ("1", "AddressFamily.AF_UNIX"):
            opened.sockets[what] += 1
    return opened


class _Client:
    """The least of an LSP client: requests one after the other."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._framing = Framing()
        self._waiting: list[bytes] = []
        self._number = 0
        self.notified: list[str] = []

    def send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def notify(self, method: str, params: Any) -> None:
        self.send({"method": method, "params": params})

    def ask(self, method: str, params: Any = None) -> Any:
        self._number += 1
        self.send({"id": self._number, "method": method, "params": params})
        while True:
            message = self._next()
            if "method" in message:
                self.notified.append(message["method"])
                if "id" in message:  # settings, progress, registrations
                    asks = message["method"] == "workspace/configuration"
                    self.send({"id": message["id"], "result": [None] if asks else None})
            elif message.get("id") == self._number:
                if "error" in message:
                    raise UserError(f"the server answered {method} with {message['error']['message']}")
                return message["result"]

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while not self._waiting:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise UserError(f"the server has ended with code {self._process.wait()}: run it by hand to see why.")
            self._waiting = self._framing.feed(data)
        return dict(json.loads(self._waiting.pop(0)))


def drive(process: subprocess.Popen[bytes], root: Path) -> int:
    """Use every part of the server on the project at `root`, and end it; return how many suggestions it gave."""
    client = _Client(process)
    client.ask(
        "initialize",
        {
            "processId": None,
            "rootUri": None,
            "workspaceFolders": [{"uri": root.as_uri(), "name": "project"}],
            "capabilities": {
                "textDocument": {"inlineCompletion": {}},
                "workspace": {"configuration": True, "didChangeWatchedFiles": {"dynamicRegistration": True}},
                "window": {"workDoneProgress": True},
            },
            "initializationOptions": {"decode": {"budgetMs": 10_000}, "diagnostics": {"surprise": True}},
        },
    )
    client.notify("initialized", {})
    uri = (root / "use.py").as_uri()
    text = _FILES["use.py"]
    document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
    client.notify("textDocument/didOpen", {"textDocument": document})
    secret = {**document, "uri": (root / ".env").as_uri(), "text": _FILES[".env"]}
    client.notify("textDocument/didOpen", {"textDocument": secret})
    line, column = text.count("\n"), len(text.rpartition("\n")[2])
    given = 0
    for key in "entory.shelf\n    print(inv":
        here = {"line": line, "character": column}
        changes = [{"range": {"start": here, "end": here}, "text": key}]
        document["version"] = int(str(document["version"])) + 1
        client.notify(
            "textDocument/didChange",
            {"textDocument": {"uri": uri, "version": document["version"]}, "contentChanges": changes},
        )
        line, column = (line + 1, 0) if key == "\n" else (line, column + 1)
        asked = {"textDocument": {"uri": uri}, "position": {"line": line, "character": column}}
        found = client.ask("textDocument/inlineCompletion", {**asked, "context": {"triggerKind": 2}})
        given += len(found["items"])
    client.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
    client.notify("workspace/didChangeWatchedFiles", {"changes": [{"uri": (root / "new.py").as_uri(), "type": 1}]})
    whole = {"start": {"line": 0, "character": 0}, "end": {"line": 2, "character": 0}}
    client.ask("lspCharrnn/inside", {"textDocument": {"uri": uri}, "range": whole})
    for _ in range(
        600
    ):  # until the project is counted and all is read: a second or two on a machine with nothing else to do
        status = client.ask("workspace/executeCommand", {"command": "lspCharrnn.status", "arguments": [uri]})
        if status.get("settled") and any(root.parent.rglob("*.counts")):
            break
        time.sleep(0.1)
    client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
    client.ask("shutdown")
    client.notify("exit", None)
    process.wait(_SECONDS)
    return given


def watched(directory: Path, model: Path, *, audit: bool, code: str | None = None) -> tuple[Opened, int]:
    """Run the server (or instead, for a test, some Python `code`) in `directory`; return what it opened, and how many
    suggestions it gave.

    Raises `UserError` where this machine can't watch it.
    """
    root, home, log = directory / "project", directory / "home", directory / "log"
    for place in (root, home / "data", home / "cache", home / "config"):
        place.mkdir(parents=True)
    for name, text in _FILES.items():
        (root / name).write_text(text, "utf-8")
    if shutil.which("git"):
        subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "GIT_"))}
    environment |= {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "LSP_CHARRNN_MODELS": str(model.parent),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    arguments = ["-c", code] if code is not None else ["serve"]
    if audit:
        command = [sys.executable, "-c", _AUDIT, str(log), *arguments]
    else:
        python = [sys.executable, *(arguments if code is not None else ["-m", "lsp_charrnn", *arguments])]
        calls = "trace=open,openat,openat2,creat,socket,connect,bind,listen,sendto,sendmsg,execve"
        command = [*_alone(), "strace", "-f", "-qq", "-y", "--seccomp-bpf", "-e", calls, "-s", "4096"]
        command += ["-e", "signal=none", "-o", str(log), *python]
    given = 0
    if code is not None:
        subprocess.run(command, env=environment, cwd=root, check=True, timeout=_SECONDS)
    else:
        with subprocess.Popen(
            command, env=environment, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            try:
                given = drive(process, root)
            finally:
                process.kill()
    read, known = of_audit if audit else of_strace, places(root, home, model)
    with log.open(encoding="utf-8", errors="surrogateescape") as lines:
        opened = read(iter(lines), known)
    for path in home.rglob("*"):  # whoever has made it: the audit sees no library in C
        if path.is_file():
            opened.file(str(path), known)
    return opened, given


def _alone() -> list[str]:
    """Return the command that starts another one without any network interface. Raises `UserError` without one."""
    for needed in ("strace", "unshare"):
        if shutil.which(needed) is None:
            raise UserError(
                f"{needed} is not on this machine: install it (Debian: strace, util-linux), or use --audit."
            )
    for options in (["--net"], ["--map-root-user", "--net"]):
        if subprocess.run(["unshare", *options, "true"], capture_output=True, check=False).returncode == 0:
            return ["unshare", *options]
    raise UserError("this machine gives no network namespace to this user: run as root, or use --audit.")


def table(opened: Opened) -> Table:
    """Return what was counted as what."""
    shown = Table(title="Opened by the server")
    for name, justify in (("place", "left"), ("files", "right"), ("such as", "left")):
        shown.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for name, files in sorted(opened.files.items(), key=lambda item: -len(item[1])):
        examples = opened.outside if name == OUTSIDE else [path for path, _ in files.most_common(2)]
        shown.add_row(f"[red]{name}[/]" if name == OUTSIDE else name, str(len(files)), "\n".join(examples))
    for what, counted in (("socket", opened.sockets), ("program that was run", opened.programs)):
        for name, number in counted.items():
            shown.add_row(what, str(number), name)
    return shown


def main(
    audit: Annotated[
        bool, typer.Option("--audit", help="Count the interpreter's audit events, without strace.")
    ] = False,
    model: Annotated[str, typer.Option(help="Name or directory of a model.")] = "python",
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Write all paths there."),
    ] = None,
) -> None:
    """Show what the server opens."""
    from lsp_charrnn.model.files import find_model

    try:
        with tempfile.TemporaryDirectory(prefix="lsp-charrnn-sandbox-") as directory:
            opened, given = watched(Path(directory).resolve(), find_model(model).resolve(), audit=audit)
    except UserError as error:
        console.print(f"[bold red]error:[/] {error}", markup=True)
        raise typer.Exit(2) from None
    if report is not None:
        report.write_text(json.dumps({"files": opened.files, "sockets": opened.sockets, "programs": opened.programs}))
    console.print(table(opened))
    how = "audit events" if audit else "strace, in a network namespace without interfaces"
    console.print(f"{given} suggestions given, watched by {how}")
    console.print(f"[bold]{opened.summary()}[/]")
    raise typer.Exit(0 if opened.clean and given else 1)


if __name__ == "__main__":
    typer.run(main)
