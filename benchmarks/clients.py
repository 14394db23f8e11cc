"""The figures of the clients, out of the trials in the real editors: printed as a table, and put into docs/editors.md.

python -m benchmarks.clients [--record]

The times are what `make test-editors-nvim` and `make test-editors-vscode` have left in build/editors/figures: nothing
is timed here. The lines of code are counted here.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.workbench import ROOT, console, run, write_between
from lsp_charrnn import doctor
from lsp_charrnn.errors import UserError

BEGIN: Final = "<!-- clients: written by benchmarks/clients.py -->"
END: Final = "<!-- end of clients -->"
FIGURES: Final = ROOT / "build" / "editors" / "figures"
PAGE: Final = ROOT / "docs" / "editors.md"
VSCODE, NEOVIM = ROOT / "editors" / "vscode" / "src", ROOT / "editors" / "nvim"
NO_CODE: Final = {".ts": re.compile(r"\s*(//|/?\*|$)"), ".lua": re.compile(r"\s*(--|$)")}  # comments and blank lines
EDITORS: Final = (  # what is timed, the name of its figures, and the milliseconds that the median may reach
    ("Neovim 0.12", "neovim-0.12", 30),
    ("Neovim 0.12, the plugin's own ghost text", "neovim-0.12-own-ghost-text", None),
    ("Neovim 0.10, the same", "neovim-0.10", None),
    ("VS Code in Chromium", "vscode", 60),
)


def main(
    record: Annotated[bool, typer.Option("--record", help="Write the table into the page, too.")] = False,
    figures: Annotated[Path, typer.Option(help="Where the trials have left their figures.")] = FIGURES,
    page: Annotated[Path, typer.Option(help="The page to write them into.")] = PAGE,
) -> None:
    """Print the figures of the clients as a table in Markdown."""
    lines = table(figures)
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    if record:
        write_between(page, BEGIN, END, lines)


def table(directory: Path) -> list[str]:
    """Return the lines of the table. Raises `UserError` where a trial hasn't left its figures."""
    lines = ["| figure | aim | reached | |", "|---|---|---|---|"]
    loads: list[float] = []
    timed = ("keys", "debounce_ms", "median_ms", "p95_ms", "load")
    for editor, name, aim in EDITORS:
        found = _read(directory / f"{name}.json", *timed)
        loads.append(found["load"])
        debounce, median, p95 = found["debounce_ms"], found["median_ms"], found["p95_ms"]
        figure = f"{editor}: key → ghost text, median of {found['keys']} keys, less {debounce} ms of debounce"
        with_it = f"{median:.0f} ms with it, p95 {p95:.0f}"
        lines.append(_row(figure, aim, median - debounce, "ms", with_it))
    extension = _read(directory / "vscode.json", "kilobytes", "activation_ms")
    lines.append(_row("`lsp-charrnn.vsix`", 500, extension["kilobytes"], "kB"))
    lines.append(_row("activation of the extension in VS Code", 200, extension["activation_ms"], "ms"))
    for client, place in (("VS Code", VSCODE), ("Neovim", NEOVIM)):
        counted = lines_of_code(place)
        where = ", ".join(f"{name} {count}" for name, count in sorted(counted.items(), key=lambda one: -one[1]))
        lines.append(_row(f"lines of code in the client for {client}", 600, sum(counted.values()), "", where))
    here = doctor.examine(seconds=0.01)
    machine = f"{here.cpu}, {here.cores} core(s), {here.system}"
    before = f"{min(loads):.1f} to {max(loads):.1f} processes wanted a core before a key was timed"
    return [*lines, "", f"Measured on: {machine}; {before}."]


def lines_of_code(place: Path) -> dict[str, int]:
    """Return by file how many lines of code are below `place`, blank ones and comments apart."""
    return {
        path.relative_to(place).as_posix(): sum(_code(path))
        for path in sorted(place.rglob("*"))
        if path.suffix in NO_CODE
    }


def _code(path: Path) -> Iterator[bool]:
    for line in path.read_text("utf-8").splitlines():
        yield not NO_CODE[path.suffix].match(line)


def _row(figure: str, aim: int | None, reached: float, unit: str, note: str = "") -> str:
    mark = "" if aim is None else "✓" if reached <= aim else "not reached"
    told = f"**{reached:.0f}{' ' * bool(unit)}{unit}**" + (f" ({note})" if note else "")
    return f"| {figure} | {'' if aim is None else f'{aim} {unit}'.rstrip()} | {told} | {mark} |"


def _read(file: Path, *names: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{file} is missing or damaged: run `make test-editors-nvim test-editors-vscode`.") from None
    if not set(names) <= set(found):
        raise UserError(f"{file} lacks some of its figures: run all of `make test-editors-nvim test-editors-vscode`.")
    return found


if __name__ == "__main__":
    run(main)
