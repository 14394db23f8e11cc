"""What nobody has said of a run is chosen here: the network's size, batch, learning rate, checkpoints, patience, time.

From three things: how much text there is, how much of it can be read (in the steps that are given, or in the minutes at
the speed that this machine reaches in a few steps of its own), and whether a trained model is gone on from. Where the
steps are given nothing is timed, so that the same command makes the same model everywhere. What was measured to choose
by is in docs/experiments.md, "Training". The choice goes into the checkpoint, and a resumed run keeps it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch.nn import functional

from lsp_charrnn.config import DEFAULT_MINUTES, TrainOptions
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import VOCABULARY
from lsp_charrnn.train.loop import autocast, precision
from lsp_charrnn.train.network import CharRnn
from lsp_charrnn.train.optimiser import optimisers_of

OPEN_OPTIONS: Final = ("optimiser", "batch", "lr", "checkpoint_every", "patience")  # and, of the network, "hidden"

_HIDDEN: Final = (512, 384, 256, 128)  # no more unless asked for: every key in the editor would pay for it
_READ_PER_PARAMETER: Final = 8.0  # characters, for a size to be worth its time
_PARAMETERS_PER_CHARACTER: Final = 2.0  # of the text, at most: more would learn it by heart
_USEFUL_EPOCHS: Final = 4.0  # what is read more often teaches less and less (Muennighoff et al. 2023)
_TUNING_LR: Final = 2e-3
_SMALLEST_BATCH: Final = 16
_FEW_UPDATES: Final = 4000  # in fewer a smaller batch gains more than its lower speed costs
_CHECKPOINTS: Final = 40  # in a run, at most
_JUDGING_SHARE: Final = 0.1  # of the time, at most
_JUDGING: Final = 0.8  # of a character's training, to judge one by the weights and by their average
_LONGEST_GAP: Final = 10.0  # minutes between two checkpoints: what a crash may cost
_PATIENT_SHARE: Final = 0.25  # of the checkpoints
_DEFAULT_EPOCHS: Final = 20.0  # that a run of unsaid length makes at most; from trained weights, the useful ones

Speed = Callable[[ModelSpec, TrainOptions], float]  # characters a second


@dataclass(frozen=True)
class Plan:
    """A run's network and options, complete, and one sentence that says what was chosen and why."""

    spec: ModelSpec
    options: TrainOptions
    sentence: str  # empty: nothing was left to choose


def make_plan(
    spec: ModelSpec,
    options: TrainOptions,
    free: Collection[str],
    *,
    characters: int,
    judged: int,
    tuning: bool,
    speed: Speed,
) -> Plan:
    """Choose what `free` names (of "hidden" and `OPEN_OPTIONS`) for a corpus of `characters`; the rest stays.

    `judged` held-out characters are read at each checkpoint; `tuning` says that trained weights are the start, whose
    size is theirs. `speed` is asked only where the length is given in minutes.
    """
    if tuning:
        free = [name for name in free if name != "hidden"]
    if not free:
        return Plan(spec, options, "")
    timed = options.minutes is not None or options.steps is None
    minutes = options.minutes if options.minutes is not None else DEFAULT_MINUTES
    reached = 0.0  # characters a second, by the network tried last

    def readable(tried: ModelSpec) -> float:
        nonlocal reached
        read = math.inf if options.steps is None else options.steps * options.batch * options.bptt
        if timed:
            reached = speed(tried, options)
            read = min(read, 60 * minutes * reached)
        return read

    chosen: dict[str, Any] = {}
    if "optimiser" in free:  # what has been learned stands in few directions, and Muon steps in all
        chosen["optimiser"] = "adamw" if tuning else TrainOptions.optimiser
        options = replace(options, optimiser=chosen["optimiser"])
    if "hidden" in free:
        spec, read = _sized(spec, characters, readable)
        chosen["hidden"] = spec.hidden
    else:
        read = readable(spec)
    enough = (_USEFUL_EPOCHS if tuning else _DEFAULT_EPOCHS) * characters
    if options.steps is None and read > enough and (tuning or options.minutes is None):
        shorter = min(minutes, max(1.0, math.floor(10 * minutes * enough / read) / 10))
        minutes, read = shorter, read * shorter / minutes
    if timed:
        options = replace(options, minutes=minutes)

    batch = options.batch
    if "batch" in free and options.steps is None:  # so many steps would read less with a smaller one
        while batch > _SMALLEST_BATCH and read / (batch * options.bptt) < _FEW_UPDATES:
            batch //= 2
        chosen["batch"] = batch
    if "lr" in free:
        chosen["lr"] = _TUNING_LR if tuning else TrainOptions.lr
    a_step = batch * options.bptt
    if "checkpoint_every" in free:
        every = max(read / _CHECKPOINTS, judged * _JUDGING / _JUDGING_SHARE)
        if timed:
            every = min(every, 60 * _LONGEST_GAP * reached)
        chosen["checkpoint_every"] = max(1, round(every / a_step))
    if "patience" in free:
        checkpoints = read / a_step / chosen.get("checkpoint_every", options.checkpoint_every)
        repeats = judged > 0 and read > _USEFUL_EPOCHS * characters
        chosen["patience"] = max(3, round(_PATIENT_SHARE * checkpoints)) if repeats else 0

    options = replace(options, **{name: chosen[name] for name in OPEN_OPTIONS if name in chosen})
    length = f"{options.steps:,} steps" if options.steps is not None else f"{minutes:g} min"
    at = f" at {reached:,.0f} characters a second" if timed else ""
    shown = _shown(spec, chosen)
    told = f"Chosen for {length}{at} and {_megabytes(characters)} of text: {shown}; each has a flag of its own."
    return Plan(spec, options, told if shown else "")


def kept_plan(
    facts: Mapping[str, Any], spec_options: Mapping[str, Any], options: TrainOptions, free: Collection[str]
) -> Plan:
    """Return what a checkpoint's run was, but for what is said anew: all that is not in `free`, and the length."""
    spec = ModelSpec.from_json({**facts["signature"]["network"], **spec_options})
    names = [name for name in OPEN_OPTIONS if name in free]
    if options.minutes is None and options.steps is None:
        names += ["minutes", "steps"]
    kept = {name: facts["options"][name] for name in names}
    return Plan(spec, replace(options, **kept), "")


def _sized(spec: ModelSpec, characters: int, readable: Callable[[ModelSpec], float]) -> tuple[ModelSpec, float]:
    """Return the largest network that there is time and text enough for (else the smallest), and what it can read."""
    read = 0.0
    for hidden in _HIDDEN:
        spec = replace(spec, hidden=hidden)
        read = readable(spec)
        parameters = sum(math.prod(shape) for shape in spec.shapes().values())
        if read >= _READ_PER_PARAMETER * parameters and parameters <= _PARAMETERS_PER_CHARACTER * characters:
            break
    return spec, read


def measured_speed(spec: ModelSpec, options: TrainOptions, device: torch.device) -> float:
    """Return the characters a second that training reaches here, from a few short steps on noise."""
    network = CharRnn(spec).to(device)
    optimisers = optimisers_of(network, options, precision(device))
    time_steps = max(1, min(32, options.bptt))
    symbols = torch.randint(VOCABULARY, (time_steps, options.batch), device=device)
    state = network.initial_state(options.batch)
    reading, stepping = [], []  # seconds: however much is read, a step takes the same
    for _ in range(4):  # the first sets up what later ones find
        started = time.perf_counter()
        with autocast(device):
            logits, _ = network(symbols, state)
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), symbols.flatten())
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        _wait(device)
        read = time.perf_counter()
        for optimiser in optimisers:
            optimiser.step()
        _wait(device)
        reading.append(read - started)
        stepping.append(time.perf_counter() - read)
    seconds = min(reading[1:]) * options.bptt / time_steps + min(stepping[1:])
    return options.bptt * options.batch / seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _megabytes(characters: int) -> str:
    return f"{characters / 1e6:.2g} MB" if characters < 10e6 else f"{characters / 1e6:,.0f} MB"


def _shown(spec: ModelSpec, chosen: Mapping[str, Any]) -> str:
    layers = f"{spec.layers} layers of" if spec.layers > 1 else "a layer of"
    sayings = {
        "hidden": f"{layers} {spec.hidden}",
        "optimiser": {"muon": "Muon", "adamw": "AdamW"}.get(chosen.get("optimiser", "")),
        "batch": f"batch {chosen.get('batch')}",
        "lr": f"learning rate {chosen.get('lr', 0):g}",
        "checkpoint_every": f"a checkpoint every {chosen.get('checkpoint_every')} steps",
        "patience": f"the end after {chosen.get('patience')} checkpoints without a gain",
    }
    return ", ".join(said for name, said in sayings.items() if said and chosen.get(name))
