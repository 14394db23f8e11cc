"""How long it takes, and how much, from a wheel to the first completion, where nothing of ours has been installed.

python -m benchmarks.install WHEEL [--with venv|pipx|uvx] [--python PYTHON] [--json FILE] [--record]

Each way gets an empty home, so that no cache of pip's, pipx's or uv's helps; the packages come from wherever these are
told to fetch from. Then an editor's part is played, over stdio: a file is opened, and a completion asked for.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.workbench import ROOT, JsonPath, Row, console, figures_table, machine_line, run, write_between
from lsp_charrnn import doctor
from lsp_charrnn.errors import UserError
from lsp_charrnn.evaluate.client import ServerSuggester
from lsp_charrnn.evaluate.output import write_whole
from lsp_charrnn.evaluate.replay import Window

PAGE: Final = ROOT / "docs" / "figures.md"
BEGIN: Final = "<!-- install: written by benchmarks/install.py --record -->"
END: Final = "<!-- end of install -->"
SECONDS: Final = 60.0
MEGABYTES: Final = 150.0
BEGUN: Final = "import sys\n\n\ndef main():\n    print(sys.argv)\n\n\nif __name__ == "
TYPED: Final = '"__main__":'

_KEPT: Final = re.compile(
    r"PIP_.*|UV_.*|SSL_.*|LANG|LC_.*|.*_PROXY|.*_proxy"
)  # where packages come from, and the locale
_NOT_PACKAGES: Final = re.compile(r"(pip|setuptools|pkg_resources|_distutils_hack)([-.].*)?|__pycache__|distutils-.*")


@dataclass(frozen=True)
class Installed:
    """One way to install, and what came of it."""

    way: str
    seconds: float  # from before the first command to the first completion
    installing: float  # of these, until the server was started
    megabytes: float  # of all packages with ours, as they lie there; not pip's own
    text: str  # the completion


def in_venv(wheel: Path, home: Path, python: str, env: dict[str, str]) -> list[str]:
    """Install by pip into a fresh environment; return the command that serves."""
    _do([python, "-m", "venv", str(home / "venv")], env)
    _do([str(home / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel)], env)
    return [str(home / "venv" / "bin" / "lsp-charrnn"), "serve"]


def by_pipx(wheel: Path, home: Path, python: str, env: dict[str, str]) -> list[str]:
    """Install by pipx; return the command that serves."""
    _do([_beside("pipx"), "install", "--quiet", "--python", python, str(wheel)], env)
    return [env["PIPX_BIN_DIR"] + "/lsp-charrnn", "serve"]


def by_uvx(wheel: Path, home: Path, python: str, env: dict[str, str]) -> list[str]:
    """Let uv install into its cache, by running something; return the command that serves from there."""
    program = [_beside("uvx"), "--quiet", "--python", python, "--from", str(wheel), "lsp-charrnn"]
    _do([*program, "--version"], env)
    return [*program, "serve"]


WAYS: Final[dict[str, Callable[[Path, Path, str, dict[str, str]], list[str]]]] = {
    "venv": in_venv,
    "pipx": by_pipx,
    "uvx": by_uvx,
}


def main(
    wheel: Annotated[Path, typer.Argument(metavar="WHEEL", help="The wheel: `make dist` builds it.")],
    ways: Annotated[list[str] | None, typer.Option("--with", help="venv, pipx or uvx; default: all.")] = None,
    python: Annotated[str, typer.Option(help="The Python to install into.")] = sys.executable,
    json_path: JsonPath = None,
    record: Annotated[bool, typer.Option(help="Write the figures into docs/figures.md.")] = False,
) -> None:
    """Install the wheel alone in clean environments, and complete from there."""
    if not wheel.is_file():
        raise UserError(f"there is no wheel {wheel}: run `make dist`.")
    if unknown := sorted(set(ways or ()) - set(WAYS)):
        raise UserError(f"there is no way {unknown[0]!r} to install: choose of {', '.join(WAYS)}.")
    machine = doctor.examine("")
    done = []
    for way in ways or WAYS:
        done.append(install(way, wheel.resolve(), python))
        console.print(f"{way}: {done[-1].seconds:.1f} s, first completion {done[-1].text!r}", markup=False)
    here = {
        "cpu": machine.cpu,
        "features": list(machine.features),
        "cores": machine.cores,
        "system": machine.system,
        "load_before": round(machine.load, 2),
        "versions": machine.versions | {"python": _version_of(python)},
    }
    rows = [row for one in done for row in rows_of(one)]
    size = wheel.stat().st_size / 1e6
    rows.append(Row("the wheel itself", "", f"{size:.1f} MB", None, "with the models"))
    console.print(figures_table(rows, here, "From the wheel to the first completion"))
    if record:
        lines = ["| | aim | reached | | |", "|---|---|---|---|---|"]
        for row in rows:
            mark = {True: "✓", False: "not reached", None: ""}[row.enough]
            lines.append(f"| {row.figure} | {row.target} | **{row.reached}** | {mark} | {row.note} |")
        write_between(PAGE, BEGIN, END, [*lines, "", f"Measured on: {machine_line(here)}."])
        console.print(f"written to {PAGE}", highlight=False)
    if json_path is not None:
        data = {"machine": here, "figures": [row.to_json() for row in rows], "ways": [vars(one) for one in done]}
        write_whole(json_path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def install(way: str, wheel: Path, python: str) -> Installed:
    """Install by `way` into an empty home, complete once, and remove all of it. Raises `UserError`."""
    with tempfile.TemporaryDirectory(prefix="lsp-charrnn-install-") as directory:
        home = Path(directory)
        env = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
        env |= {"HOME": str(home), "PATH": os.defpath, "PIPX_HOME": f"{home}/pipx", "PIPX_BIN_DIR": f"{home}/bin"}
        began = time.perf_counter()
        command = WAYS[way](wheel, home, python, env)
        started = time.perf_counter()
        text = asyncio.run(complete(["env", "--ignore-environment", *(f"{k}={v}" for k, v in env.items()), *command]))
        ended = time.perf_counter()
        return Installed(way, ended - began, started - began, packages_mb(home), text)


async def complete(command: Sequence[str]) -> str:
    """Start the server, type what follows `BEGUN` until there is ghost text, and return it. Raises `UserError`.

    There is at the first key, but where a machine is so busy that nothing is ready in time.
    """
    async with ServerSuggester.started(command=command, projects=["new"]) as server:
        whole = BEGUN + TYPED
        await server.open(Window("new", "main.py", "python", whole, len(BEGUN), len(whole)), BEGUN, "")
        for key in TYPED:
            if text := await server.suggest(key):
                return text
    raise UserError("The server has been installed and answers, but suggests nothing where everybody would.")


def packages_mb(home: Path) -> float:
    """Return the MB of what has been installed below `home`, as files, each once, without pip and caches."""
    seen: dict[tuple[int, int], int] = {}
    for site in home.rglob("site-packages"):
        for entry in site.iterdir():
            if _NOT_PACKAGES.fullmatch(entry.name):
                continue
            for path in [entry, *entry.rglob("*")]:
                if path.is_file() and path.suffix != ".pyc":
                    status = path.stat()
                    seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values()) / 1e6


def rows_of(one: Installed) -> list[Row]:
    """Return the two figures of one way."""
    took = f"{one.installing:.1f} s of it until the server was started"
    reached = f"{one.seconds:.1f} s"
    return [
        Row(f"{one.way}: install to first completion", f"{SECONDS:.0f} s", reached, one.seconds <= SECONDS, took),
        Row(
            f"{one.way}: packages, as they lie on disk",
            f"{MEGABYTES:.0f} MB",
            f"{one.megabytes:.0f} MB",
            one.megabytes <= MEGABYTES,
            "ours and what it needs, without pip and compiled bytecode",
        ),
    ]


def _beside(program: str) -> str:
    """Return the path of a program that is installed beside this Python, or on PATH. Raises `UserError`."""
    here = Path(sys.executable).with_name(program)
    found = str(here) if here.is_file() else shutil.which(program)
    if found is None:
        raise UserError(f"{program} is not installed: run `make test-dist`, or pip install it.")
    return found


def _do(command: Sequence[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, cwd=env["HOME"], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise UserError(f"{' '.join(command[:4])} … failed with exit code {done.returncode}: {last}")


def _version_of(python: str) -> Any:
    asked = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    run(main)
