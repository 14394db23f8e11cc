"""How long one step of the model takes, and how fast it reads: beside the physical bounds, torch and numpy.

    python -m benchmarks.step [--quick] [--json FILE] [--model NAME] [--heldout DIRECTORY]

The only benchmark without the server: what the engine's time is made of. Everything runs on one thread.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.workbench import (
    HELDOUT,
    HeldoutPath,
    JsonPath,
    ModelName,
    Quick,
    Row,
    Setup,
    Times,
    console,
    finish,
    run,
    set_up,
)
from lsp_charrnn.doctor import LANES
from lsp_charrnn.model import reference
from lsp_charrnn.model.files import load_weights
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import VOCABULARY, to_symbols

TARGETS: Final = {1: 1.3, 8: 1.6}  # times the weight-streaming bound
PREFILL_TARGET: Final = 12.0  # times the characters of one lane stepped one at a time
READ_LANES: Final = (1, 16)
READ_TIME: Final = 512  # characters in each lane, read at once
WARMING: Final = 3


@dataclass(frozen=True)
class Work:
    """Something to be timed: `run` reads `characters` in all its lanes together."""

    name: str
    characters: int
    run: Callable[[], object]


def main(
    quick: Quick = False, json_path: JsonPath = None, model: ModelName = "", heldout: HeldoutPath = HELDOUT
) -> None:
    """Time the model's step in 1, 8 and 16 lanes, and reading ahead in 1 and 16.

    The bounds: the time in which one core reads the model's weights from its cache, and that in which it multiplies
    them once a lane. The baselines: torch's nn.LSTM and the numpy reference, both float32 and of the same size. All are
    timed in turn, several rounds, so that a slow spell of the machine falls on all alike. One thread.
    """
    setup = set_up(quick, model, heldout, seconds=0.2 if quick else 2.0)
    works = works_of(setup)
    torch_works, absent = torch_works_of(setup.model.spec)
    if absent:
        console.print(absent, style="yellow", highlight=False)
    times = measure([*works, *torch_works], seconds=0.05 if quick else 0.5, rounds=2 if quick else 10)
    finish(setup, "One step", rows_of(setup, times), json_path, measurements=to_json(setup, times))


def in_lanes(lanes: int) -> str:
    """Return "1 lane" or "8 lanes"."""
    return f"{lanes} lane{'s' * (lanes > 1)}"


def works_of(setup: Setup) -> list[Work]:
    """Return what the model does, and the numpy reference."""
    model, spec = setup.model, setup.model.spec
    text = to_symbols(setup.heldout.of_size(max(READ_LANES) * READ_TIME))  # as long as all lanes of the widest read

    def stepping(lanes: int) -> Work:
        state = model.initial_state(lanes)
        rows = text[: lanes * (len(text) // lanes)].reshape(-1, lanes)
        at = 0

        def step() -> None:
            nonlocal state, at
            _, state = model.step(rows[at % len(rows)], state)
            at += 1

        return Work(f"step, {in_lanes(lanes)}", lanes, step)

    def reading(read: Callable[..., object], lanes: int) -> Work:
        block = np.ascontiguousarray(text[: lanes * READ_TIME].reshape(lanes, -1).T)  # [time, lanes]
        state = model.initial_state(lanes)
        return Work(f"{read.__name__}, {in_lanes(lanes)}", block.size, lambda: read(block, state))

    works = [stepping(lanes) for lanes in LANES]
    works += [reading(read, lanes) for read in (model.read, model.advance) for lanes in READ_LANES]
    weights, _ = load_weights(setup.directory)

    def by_numpy(lanes: int) -> Work:
        state = np.zeros((spec.layers, spec.parts, lanes, spec.hidden), dtype=np.float32)
        return Work(f"numpy, {in_lanes(lanes)}", lanes, lambda: reference.step(weights, spec, text[:lanes], state))

    return works + [by_numpy(lanes) for lanes in TARGETS]


def torch_works_of(spec: ModelSpec) -> tuple[list[Work], str]:
    """Return torch's step of the same size in float32, or why there is none.

    It is an LSTM of so many layers, so wide, whatever our cell is: torch has no other that is as fast.
    """
    try:
        import torch
    except ImportError:
        return [], "torch is not installed (the extra `train` has it): its nn.LSTM is left out."
    torch.set_num_threads(1)
    embedding = torch.nn.Embedding(VOCABULARY, spec.embedding)
    network = torch.nn.LSTM(spec.embedding, spec.hidden, spec.layers)
    output = torch.nn.Linear(spec.output_inputs, VOCABULARY)

    def stepping(lanes: int) -> Work:
        symbols = torch.full((1, lanes), ord("e"))
        state = tuple(torch.zeros(spec.layers, lanes, spec.hidden) for _ in range(2))

        def step() -> None:
            with torch.inference_mode():
                _, (hidden, _) = network(embedding(symbols), state)  # [layers, lanes, hidden]
                output(torch.cat(tuple(hidden), dim=-1) if spec.skip else hidden[-1])

        return Work(f"torch, {in_lanes(lanes)}", lanes, step)

    return [stepping(lanes) for lanes in TARGETS], ""


def measure(works: list[Work], *, seconds: float, rounds: int) -> dict[str, tuple[Work, Times]]:
    """Return how long each took: `rounds` rounds of `seconds` seconds each."""
    taken: dict[str, list[float]] = {work.name: [] for work in works}
    with console.status("") as status:
        for round_ in range(rounds):
            for work in works:
                status.update(f"round {round_ + 1} of {rounds}: {work.name}")
                for _ in range(WARMING):
                    work.run()
                end = time.perf_counter() + seconds
                while (started := time.perf_counter()) < end:
                    work.run()
                    taken[work.name].append(time.perf_counter() - started)
    return {work.name: (work, Times(taken[work.name])) for work in works}


def rows_of(setup: Setup, times: dict[str, tuple[Work, Times]]) -> list[Row]:
    """Return the figures."""
    found = setup.examined
    bound = found.bound_microseconds
    rows = []
    for lanes in LANES:
        _, step = times[f"step, {in_lanes(lanes)}"]
        target = TARGETS.get(lanes)
        ratio = 1e3 * step.p(50) / bound
        beside = [
            f"{name} {1e3 * times[f'{name}, {in_lanes(lanes)}'][1].p(50):,.0f} µs"
            for name in ("torch", "numpy")
            if f"{name}, {in_lanes(lanes)}" in times
        ]
        rows.append(
            Row(
                f"one step, {in_lanes(lanes)}, against the weight-streaming bound",
                f"{target} ×" if target else "",
                f"{ratio:.2f} ×",
                ratio <= target if target else None,
                f"{' / '.join(f'{1e3 * step.p(p):,.0f}' for p in (50, 95, 99))} µs (p50 / p95 / p99), "
                f"{len(step):,} steps; {1e3 * step.p(50) / found.bound(lanes):.2f} × the larger bound: to read "
                f"{found.size_bytes / 1e6:.2f} MB of weights at {found.bandwidth:.1f} GB/s takes {bound:.0f} µs, to "
                f"multiply them {lanes} time{'s' * (lanes > 1)} {lanes * found.product_microseconds:.0f} µs",
                ", ".join(beside),
            )
        )
    stepped = per_second(times, "step, 1 lane")
    speeds = {name: per_second(times, name) for name in times if name.startswith(("read", "advance"))}
    for name, speed in speeds.items():
        widest = speed == max(speeds.values())
        rows.append(
            Row(
                f"prefill, Model.{name}",
                f"{PREFILL_TARGET:g} ×" if widest else "",
                f"{speed / stepped:.1f} ×",
                speed >= PREFILL_TARGET * stepped if widest else None,
                f"{speed:,.0f} characters/s, {READ_TIME} in each lane at once: {times[name][1]}",
                f"stepped: {stepped:,.0f}/s",
            )
        )
    return rows


def per_second(times: dict[str, tuple[Work, Times]], name: str) -> float:
    """Return the characters a second at the median."""
    work, taken = times[name]
    return work.characters / (taken.p(50) / 1e3)


def to_json(setup: Setup, times: dict[str, tuple[Work, Times]]) -> dict[str, object]:
    """Return all that was measured as JSON data; of the single times only the percentiles, for they are many."""
    return {
        "bound_microseconds": setup.examined.bound_microseconds,
        "product_microseconds": setup.examined.product_microseconds,
        "weight_bytes": setup.examined.size_bytes,
        "gigabytes_per_second": setup.examined.bandwidths,
        "threads": setup.model.threads,
        "times_ms": {
            name: {"characters": work.characters, **taken.percentiles()} for name, (work, taken) in times.items()
        },
    }


if __name__ == "__main__":
    run(main)
