"""Put what `make speed` measured into docs/figures.md: the figures that were asked for, each beside its baseline.

python -m benchmarks.record DIRECTORY
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.workbench import ROOT, console, machine_line, run, write_between
from lsp_charrnn.errors import UserError

PARTS: Final = ("typing", "project", "open", "edit_anywhere", "step", "memory_growth")  # as the page tells them
BEGIN: Final = "<!-- speed: written by benchmarks/record.py -->"
END: Final = "<!-- end of speed -->"
PAGE: Final = ROOT / "docs" / "figures.md"
FIGURES: Final = ROOT / "benchmarks" / "speed.json"


def main(
    directory: Annotated[Path, typer.Argument(help="Where the JSON files of the six benchmarks are.")],
    page: Annotated[Path, typer.Option(help="The page to write them into.")] = PAGE,
) -> None:
    """Write the figures between the marks in docs/figures.md, and all that was printed into benchmarks/speed.json."""
    record(directory, page, FIGURES if page == PAGE else page.with_suffix(".json"))
    console.print(f"written to {page}", highlight=False)


def record(directory: Path, page: Path, figures: Path) -> None:
    """Raises `UserError` unless all six have been run in full, on one machine."""
    parts = {name: _read(directory / f"{name}.json") for name in PARTS}
    # Not by cores: one of them may have been held to one core, while another had the other.
    if len({part["machine"]["cpu"] for part in parts.values()}) > 1:
        raise UserError(f"{directory} holds figures of several machines: run all six benchmarks on one.")
    lines = ["| | aim | reached | | baseline |", "|---|---|---|---|---|"]
    for part in parts.values():
        for row in part["figures"]:
            if row["target"]:
                mark = {True: "✓", False: "not reached", None: "?"}[row["enough"]]
                baseline = row.get("baseline", "")
                lines.append(f"| {row['figure']} | {row['target']} | **{row['reached']}** | {mark} | {baseline} |")
    loads = [part["machine"]["load_before"] for part in parts.values()]
    here = parts[PARTS[0]]["machine"] | {"load_before": f"{min(loads)} to {max(loads)}"}
    lines += ["", f"Measured on: {machine_line(here)}."]
    write_between(page, BEGIN, END, lines)
    kept = {name: {key: part[key] for key in ("machine", "model", "figures")} for name, part in parts.items()}
    figures.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _read(file: Path) -> dict[str, Any]:
    try:
        part: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{file} is missing or damaged: run `make speed`.") from None
    if part["quick"]:
        raise UserError(f"{file} holds quick samples, which are no figures to publish: run `make speed`.")
    return part


if __name__ == "__main__":
    run(main)
