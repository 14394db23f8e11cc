"""python -m benchmarks.fuzz [--messages N] [--edits N] [--megabytes N] [--seed S] [--model DIR] [--found DIR]."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.fuzz import scenarios
from benchmarks.fuzz.client import HangError, TcpConnection
from benchmarks.fuzz.oracle import ENCODINGS, UTF16
from benchmarks.fuzz.scenarios import Trial
from benchmarks.workbench import ROOT, console, run
from lsp_charrnn.model.files import find_model

GROWTH: float = 50.0  # MB that a server may grow in a scenario, once it is warm


def main(
    messages: Annotated[int, typer.Option(help="Malformed messages.", min=0)] = 10_000,
    edits: Annotated[int, typer.Option(help="Edits, compared with the client's text.", min=0)] = 1_000_000,
    megabytes: Annotated[int, typer.Option(help="Size of the large messages.", min=1)] = 50,
    rounds: Annotated[int, typer.Option(help="Times that the large ones are sent; 0: not at all.", min=0)] = 5,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    model: Annotated[str, typer.Option(help="Name or path of a model; by default each language's own.")] = "",
    found: Annotated[Path, typer.Option(help="Where to keep what broke something.", resolve_path=True)] = ROOT
    / "build"
    / "fuzz",
    verbose: Annotated[bool, typer.Option("--verbose", help="Say what is being done.")] = False,
) -> None:
    """Throw malformed messages and random edits at the real server, over stdio and TCP.

    It must answer or close, keep the client's text, and stay as small as it was. Exit code 1 if it did not.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lsp-charrnn-fuzz-") as place:
        trial = Trial(random.Random(seed), Path(place), find_model(model) if model else None, found)
        trial.told = lambda line: (
            console.print(f"{time.monotonic() - began:6.0f} s  {line}", highlight=False, markup=False)
            if verbose or line.startswith(("PROBLEM", "HANG"))
            else None
        )
        everything(trial, messages, edits, megabytes, rounds)
    for memory in trial.memories:
        curve = [mb for _, mb in memory.curve]
        console.print(
            f"{memory.scenario}: {min(curve):.0f} to {max(curve):.0f} MB, {memory.growth:+.1f} MB after the warm-up",
            highlight=False,
        )
    console.print(summary(trial, seed, time.monotonic() - began), highlight=False)
    if trial.problems or trial.hangs or trial.growth > GROWTH:
        console.print(f"What broke something is in {found}.", highlight=False)
        sys.exit(1)


def summary(trial: Trial, seed: int, seconds: float) -> str:
    """Return all of it in one line."""
    return (
        f"seed {seed}: {trial.messages:,} malformed messages, {trial.edits:,} edits, {trial.answers:,} answers on "
        f"{trial.connections} connections; {trial.comparisons:,} texts compared; {len(trial.problems)} errors, "
        f"{len(trial.hangs)} hangs, growth {trial.growth:+.1f} MB (at most {GROWTH:.0f}); {seconds:.0f} s"
    )


def everything(trial: Trial, messages: int, edits: int, megabytes: int, rounds: int) -> None:
    """Do all of it: half of the messages and edits over stdio, half over TCP."""
    framing = messages // 20
    stdio_framing = min(framing // 5, 20)
    each = (messages - framing - stdio_framing) // 2
    rest = messages - framing - stdio_framing - each
    with trial.stdio() as connection:
        scenarios.malformed(trial, each, connection, connection.server.pid, "stdio")
    with trial.stdio() as connection:
        connection.initialize(UTF16)
        scenarios.edits(trial, edits - edits // 2, [connection], connection.server.pid, "stdio")
        scenarios.cancel_storm(trial, 1 + messages // 200, connection)
    with trial.tcp() as (server, port):
        guarded(trial, lambda: over_tcp(trial, port, server.pid, rest, edits // 2))
        guarded(trial, lambda: scenarios.headers(trial, framing, port, server))
        guarded(trial, lambda: scenarios.disconnects(trial, 10 + messages // 50, port, server))
    scenarios.headers_stdio(trial, stdio_framing)
    scenarios.disconnects_stdio(trial, 1 + messages // 2000)
    for _ in range(1 + messages // 2000):
        with trial.stdio() as connection:
            scenarios.out_of_order(trial, connection)
    with trial.stdio() as connection:
        scenarios.deaf(trial, connection, connection.server.pid, megabytes)
    with trial.tcp() as (server, port):
        deaf = TcpConnection(port)
        guarded(trial, lambda: scenarios.deaf(trial, deaf, server.pid, megabytes))
        trial.done_with(deaf)
    if rounds:
        with trial.stdio() as connection:
            connection.initialize()
            scenarios.large(trial, megabytes, rounds, connection, connection.server.pid)


def over_tcp(trial: Trial, port: int, pid: int, messages: int, edits: int) -> None:
    """Let three clients edit, each in another encoding, while others send what is malformed."""
    editors = [TcpConnection(port) for _ in ENCODINGS]
    for encoding, editor in zip(ENCODINGS, editors, strict=True):
        editor.initialize(encoding)
    parts = 4
    for part in range(parts):
        rude = TcpConnection(port)
        share = messages * (part + 1) // parts - messages * part // parts
        scenarios.malformed(trial, share, rude, pid, f"TCP {part + 1}")
        scenarios.edits(trial, edits * (part + 1) // parts - edits * part // parts, editors, pid, f"TCP {part + 1}")
        rude.hang_up()
        trial.done_with(rude)
    for editor in editors:
        editor.hang_up()
        trial.done_with(editor)


def guarded(trial: Trial, scenario: object) -> None:
    """Go on with the next scenario where one hangs."""
    try:
        scenario()  # type: ignore[operator]
    except HangError as error:
        trial.hang("TCP", error)


if __name__ == "__main__":
    run(main)
