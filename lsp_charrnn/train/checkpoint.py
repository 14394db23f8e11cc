"""Training checkpoints: everything that a run needs to go on, in one safetensors file, written atomically.

Weights and their average, optimiser moments, position in the data, state of the lanes, random state, and the run's
settings; the learning rate is a function of step and minutes, and needs no state. No pickle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lsp_charrnn.errors import CorpusError, OutputError

FORMAT = "lsp-charrnn-checkpoint-4"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON data `facts` to `path`; a write that fails leaves the file before in place.

    Raises `OutputError` where it can't be written.
    """
    temporary = path.with_name(path.name + ".partial")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, str(temporary), metadata={"format": FORMAT, "facts": json.dumps(facts)})
        temporary.chmod(0o600)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"cannot write the checkpoint {path} ({error}): free some space, then go on with --resume."
            if path.exists()
            else f"cannot write the checkpoint {path} ({error}): free some space, or choose another --out."
        ) from error
    finally:
        with suppress(OSError):  # it is not there; or the disk has become read-only, which is told already
            temporary.unlink()


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote. Raises `CorpusError` where there is none, or it is damaged."""
    if not path.is_file():
        raise CorpusError(f"there is no checkpoint {path} to resume from: start without --resume.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CorpusError(f"{path} is not a checkpoint of this version: start without --resume.")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["facts"])  # noqa: SIM118
    except SafetensorError as error:
        raise CorpusError(f"the checkpoint {path} is damaged ({error}): start without --resume.") from error


def optimiser_tensors(optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Return the optimisers' moments as flat names and tensors."""
    return {
        f"optimiser.{number}.{index}.{name}": value
        for number, optimiser in enumerate(optimisers)
        for index, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }


def restore_optimisers(optimisers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` returned."""
    states = [optimiser.state_dict() for optimiser in optimisers]
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, index, field = name.split(".", 3)
            states[int(number)]["state"].setdefault(int(index), {})[field] = value
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict(state)


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """Return the state of torch's random numbers, on the CPU and on `device`."""
    tensors = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def restore_random(device: torch.device, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `random_tensors` returned; a device that the checkpoint knows nothing of keeps its own."""
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
