"""The table of neurons that track something, as it lies beside a model's weights: `neurons.json`.

It is optional, and names the weights that it is of. How neurons are found is `inside.neurons`'s business; the explorer
and the server read here which ones mean something.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.files import WEIGHTS_FILE, read_config
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.private import read_regular

FILE: Final = "neurons.json"
_MAX_BYTES: Final = 16 << 20  # of that file
_PROPERTY: Final = re.compile(r"[a-z][a-z ']{0,39}")  # words, which no page and no terminal takes for anything else


@dataclass(frozen=True)
class Label:
    """What a neuron is known to track."""

    layer: int
    neuron: int
    tracks: str
    score: float  # on texts that it was not found on
    signal: str = "h"  # what shows it best


@dataclass(frozen=True)
class Tracking:
    """How well a neuron tracks a property."""

    layer: int  # from 0
    neuron: int
    signal: str  # h or c, whichever does better
    found: float  # the correlation where it was found
    held_out: float  # and on the other files


@dataclass(frozen=True)
class Tracked:
    """What was found of one property."""

    name: str
    neurons: tuple[Tracking, ...]  # best first, by what they did where they were found
    probe: float  # the probe's correlation on the other files
    shuffled_neuron: float  # the best neuron's, found and scored with the property moved
    shuffled_probe: float


@dataclass(frozen=True)
class NeuronTable:
    """The neurons of a model that track something."""

    model: str
    weights: str  # their SHA-256
    language: str
    characters: tuple[int, int]  # where they were found, and where they were scored
    files: tuple[int, int]
    left_out: int  # files that no parser took
    properties: tuple[Tracked, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON data."""
        return asdict(self)

    def labels(self, most: int = 3) -> list[Label]:
        """Return the neurons that do better than chance by far: at most so many for a property."""
        return [
            Label(one.layer, one.neuron, tracked.name, abs(one.held_out), one.signal)
            for tracked in self.properties
            for one in tracked.neurons[:most]
            if one.held_out * one.found > 0 and abs(one.held_out) > 2 * abs(tracked.shuffled_neuron) + 0.1
        ]


def kept(directory: Path) -> NeuronTable | None:
    """Return the table that lies beside a model's weights; None if there is none, or it is of other weights.

    Raises `ModelError` where it is damaged.
    """
    file = directory / FILE
    try:
        data = json.loads(read_regular(file, _MAX_BYTES))
        properties = tuple(
            Tracked(**{**one, "neurons": tuple(Tracking(**neuron) for neuron in one["neurons"])})
            for one in data["properties"]
        )
        pairs = {name: tuple(data[name]) for name in ("characters", "files")}
        table = NeuronTable(**{**data, **pairs, "properties": properties})
        config, spec = read_config(directory)
        _check(table, spec)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise ModelError(
            f"{file} is no table of neurons: remove it, or write it anew with `neurons --save`."
        ) from error
    return table if table.weights == config["files"][WEIGHTS_FILE] else None


def _check(table: NeuronTable, spec: ModelSpec) -> None:
    """Raise `ValueError` where a table says what a page must not be given: it may come with anybody's model."""
    for tracked in table.properties:
        if not (isinstance(tracked.name, str) and _PROPERTY.fullmatch(tracked.name)):
            raise ValueError("a property that is none")
        for one in tracked.neurons:
            if type(one.layer) is not int or type(one.neuron) is not int or one.signal not in ("h", "c"):
                raise ValueError("a neuron that is none")
            if not (0 <= one.layer < spec.layers and 0 <= one.neuron < spec.hidden):
                raise ValueError("a neuron that the network has not")
            if not (isinstance(one.found, (int, float)) and isinstance(one.held_out, (int, float))):
                raise ValueError("a correlation that is no number")
