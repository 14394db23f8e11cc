"""How many characters a second training reads on this machine's CPU: beside float32, and what the core can multiply.

    python -m benchmarks.training [--quick] [--json FILE] [--hidden N]

A step is what `train` does in one: forward and backward through the network in its own precision, clipping, AdamW. No
text is needed: symbols are drawn. What was tried beside it is in docs/experiments.md, "Training".
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file, whose folder comes first then, and in it is a `typing` that isn't the library's
    sys.path[0] += "/.."

import math
import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Final

import typer

from benchmarks.workbench import HELDOUT, HeldoutPath, JsonPath, ModelName, Quick, Row, console, finish, run, set_up
from lsp_charrnn.config import TrainOptions
from lsp_charrnn.errors import UserError
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import VOCABULARY

TARGET: Final = 4.0  # times the baseline
BASELINE: Final = 64  # lanes
LANES: Final = (16, 32, 64, 128)
ROUNDS: Final = 3  # each in turn, so that a slow spell of the machine falls on all alike
_PASSES: Final = 3  # products with each weight: forward, by the inputs, by the weights


def main(
    quick: Quick = False,
    json_path: JsonPath = None,
    hidden: Annotated[int, typer.Option(help="Units in each of the two layers.", min=1)] = ModelSpec().hidden,
    seconds: Annotated[float, typer.Option(help="For each measurement, in each round.", min=0.0)] = 8.0,
    model: ModelName = "",
    heldout: HeldoutPath = HELDOUT,
) -> None:
    """Time steps of training in 16 to 128 lanes, and in 64 lanes in float32, which is the baseline.

    The bound is what the same machine reaches in nothing but products, as large as they come in a step, in the
    precision of training.
    torch uses as many threads as OMP_NUM_THREADS says, else as there are cores.
    """
    try:
        import torch
    except ImportError:
        raise UserError("This measures training, which needs torch: pip install 'lsp-charrnn[train]'.") from None
    from lsp_charrnn.train.loop import autocast, has_bf16

    setup = set_up(quick, model, heldout)
    cpu = torch.device("cpu")
    spec = ModelSpec(hidden=hidden)
    steps: dict[str, tuple[int, Callable[[], None]]] = {
        f"float32, {BASELINE} lanes": (BASELINE, stepping(spec, BASELINE, nullcontext))
    }
    precision = "bfloat16" if has_bf16(cpu) else "float32"
    steps |= {f"{precision} as in train, {n} lanes": (n, stepping(spec, n, lambda: autocast(cpu))) for n in LANES}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    with console.status("") as status:
        for round_ in range(1 if quick else ROUNDS):
            for name, (_, step) in steps.items():
                status.update(f"round {round_ + 1}: {name}")
                step()  # sets up what later ones find
                end = time.perf_counter() + (0.0 if quick else seconds)
                while True:
                    started = time.perf_counter()
                    step()
                    taken[name].append(time.perf_counter() - started)
                    if time.perf_counter() >= end:
                        break
        products = products_a_second(TrainOptions.bptt * BASELINE, hidden, 0.05 if quick else 3.0)
    speeds = {name: lanes * TrainOptions.bptt / statistics.median(taken[name]) for name, (lanes, _) in steps.items()}
    finish(
        setup,
        "Training",
        rows_of(spec, speeds, products),
        json_path,
        measurements={
            "threads": torch.get_num_threads(),
            "hidden": hidden,
            "characters_per_second": speeds,
            "steps": {name: len(times) for name, times in taken.items()},
            "products_per_second": products,
        },
    )


def stepping(spec: ModelSpec, lanes: int, precision: Callable[[], AbstractContextManager[Any]]) -> Callable[[], None]:
    """Return a step of training in so many lanes."""
    import torch
    from torch.nn import functional

    from lsp_charrnn.train.network import CharRnn

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    network = CharRnn(spec)
    optimiser = torch.optim.AdamW(network.parameters(), lr=TrainOptions.lr)
    symbols = torch.randint(VOCABULARY, (TrainOptions.bptt, lanes))
    state = network.initial_state(lanes)

    def step() -> None:
        nonlocal state
        with precision():
            logits, after = network(symbols, state)
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), symbols.flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), TrainOptions.clip)
        optimiser.step()
        state = after.detach()

    return step


def products_a_second(rows: int, hidden: int, seconds: float) -> float:
    """Return the multiplications with additions that a second of products in training's precision makes."""
    import torch

    from lsp_charrnn.train.loop import has_bf16

    kind = torch.bfloat16 if has_bf16(torch.device("cpu")) else torch.float32
    left, right = torch.randn(rows, hidden).to(kind), torch.randn(hidden, 4 * hidden).to(kind)
    made = torch.empty(rows, 4 * hidden, dtype=kind)
    times: list[float] = []
    torch.mm(left, right, out=made)
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, right, out=made)
        times.append(time.perf_counter() - started)
    return rows * hidden * 4 * hidden / statistics.median(times)


def rows_of(spec: ModelSpec, speeds: dict[str, float], products: float) -> list[Row]:
    """Return the figures: the fastest against the baseline, and each against what products alone would allow."""
    baseline, *ours = speeds
    shapes = spec.shapes()
    # The embedding is looked up, not multiplied.
    weights = sum(math.prod(shapes[name]) for name in shapes if name.endswith("weight") and "embedding" not in name)
    bound = products / (_PASSES * weights)
    best = max(ours, key=speeds.__getitem__)
    return [
        Row(
            f"training, {spec.layers}×{spec.hidden}, characters a second against nn.LSTM in float32",
            f"{TARGET:g} ×",
            f"{speeds[best] / speeds[baseline]:.2f} ×",
            speeds[best] >= TARGET * speeds[baseline],
            f"{best}; nothing but products, at {2e-9 * products:,.0f} GFLOP/s, would be {bound:,.0f}/s: "
            f"{bound / speeds[baseline]:.2f} ×",
            f"{baseline}: {speeds[baseline]:,.0f}/s",
        ),
        *(
            Row(f"training, {name}", "", f"{speeds[name]:,.0f}/s", None, f"{speeds[name] / bound:.0%} of the bound")
            for name in ours
        ),
    ]


if __name__ == "__main__":
    run(main)
