"""Neurons that mean something, found and not picked: how well each tracks what a reader of code keeps in mind.

For each property (`syntax`) every neuron's hidden state and cell are correlated with it on one half of some files. The
best are named, and scored on the other half: what is reported is what they do on files that they were not found on.
Beside them stand a linear probe of all hidden states (what the layers know together: Alain & Bengio 2016) and the same
search with the property moved by half a file, which tells nothing: what it finds is chance. The score is Pearson's
correlation throughout, so that all can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table

from lsp_charrnn.errors import CorpusError, ModelError
from lsp_charrnn.evaluate.heldout import heldout_files, rank_of, take_in_turn
from lsp_charrnn.evaluate.output import write_whole
from lsp_charrnn.inside.activations import Weights, read_all
from lsp_charrnn.inside.explore import Label
from lsp_charrnn.inside.syntax import PROPERTIES, UnparsedError, properties_of
from lsp_charrnn.model.files import WEIGHTS_FILE, find_model, load_weights, model_for_language, read_config
from lsp_charrnn.model.reference import SIGNALS
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.private import read_regular
from lsp_charrnn.text.symbols import header
from lsp_charrnn.train.corpus import SourceFile

FILE: Final = "neurons.json"  # beside a model's weights
_MAX_BYTES: Final = 16 << 20  # of that file
NAMED: Final = 5  # neurons for each property
CHARACTERS: Final = 100_000  # read in all
FILE_CHARACTERS: Final = 4_000  # of one file: many different ones say more
_RIDGE: Final = 1e-2  # of the probe, in variances
_LEAST: Final = 1e-9

Numbers = npt.NDArray[np.float64]


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

    def table(self) -> Table:
        """Return a row for each property and neuron."""
        found, scored = self.characters
        table = Table(
            title=f"What neurons track, model {self.model}",
            caption=f"found on {found:,} characters of {self.files[0]} files, scored on {scored:,} of {self.files[1]} "
            f"others; {self.left_out} files are not {self.language} to its parser. "
            "Correlations on the latter; shuffled: the best that chance finds",
            box=box.SIMPLE_HEAD,
        )
        table.add_column("property")
        for heading in (
            "layer",
            "neuron",
            "signal",
            "held out",
            "where found",
            "probe of all",
            "shuffled",
            "its probe",
        ):
            table.add_column(heading, justify="right")
        for tracked in self.properties:
            beside = f"{tracked.probe:.2f}", f"{tracked.shuffled_neuron:+.2f}", f"{tracked.shuffled_probe:+.2f}"
            for rank, one in enumerate(tracked.neurons):
                own = str(one.layer + 1), str(one.neuron), one.signal, f"{one.held_out:+.2f}", f"{one.found:+.2f}"
                table.add_row("" if rank else tracked.name, *own, *(("",) * 3 if rank else beside))
            table.add_section()
        return table


@dataclass(eq=False)
class _Sums:
    """What correlations and the probe are made of: sums over places. They are added up, so no text must be kept."""

    count: int
    x: Numbers  # [signals]
    xx: Numbers  # [hidden, hidden], of the hidden states alone
    x2: Numbers  # [signals]
    y: Numbers  # [properties]
    y2: Numbers
    xy: Numbers  # [signals, properties]

    @classmethod
    def none(cls, signals: int, hidden: int, properties: int) -> _Sums:
        """Return the sums over nothing."""
        return cls(
            0,
            np.zeros(signals),
            np.zeros((hidden, hidden)),
            np.zeros(signals),
            np.zeros(properties),
            np.zeros(properties),
            np.zeros((signals, properties)),
        )

    def add(self, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> None:
        """Add places: of all signals, the hidden states first  # [places, signals], and of the properties."""
        hidden = x[:, : len(self.xx)]
        self.count += len(x)
        self.x += x.sum(axis=0, dtype=np.float64)
        self.x2 += (x.astype(np.float64) ** 2).sum(axis=0)
        self.xx += hidden.T @ hidden
        self.y += y.sum(axis=0, dtype=np.float64)
        self.y2 += (y.astype(np.float64) ** 2).sum(axis=0)
        self.xy += x.T @ y

    def correlations(self) -> Numbers:
        """Return Pearson's correlation of each signal with each property; 0 where one never changes.

        # [signals, properties]
        """
        together = self.xy - np.outer(self.x, self.y) / self.count
        own = (self.x2 - self.x**2 / self.count).clip(min=0)
        others = (self.y2 - self.y**2 / self.count).clip(min=0)
        size = np.sqrt(np.outer(own, others))
        return np.asarray(np.where(size > _LEAST * self.count, together / np.maximum(size, _LEAST), 0.0))

    def probe(self) -> Numbers:
        """Return the weights of the hidden states that predict each property best  # [hidden, properties]."""
        hidden = len(self.xx)
        centred = self.xx - np.outer(self.x[:hidden], self.x[:hidden]) / self.count
        together = self.xy[:hidden] - np.outer(self.x[:hidden], self.y) / self.count
        ridge = _RIDGE * max(_LEAST, float(np.trace(centred)) / hidden)
        return np.asarray(np.linalg.solve(centred + ridge * np.eye(hidden), together))

    def probed(self, weights: Numbers) -> Numbers:
        """Return the correlation of what such weights predict with each property  # [properties]."""
        hidden = len(self.xx)
        centred = self.xx - np.outer(self.x[:hidden], self.x[:hidden]) / self.count
        together = self.xy[:hidden] - np.outer(self.x[:hidden], self.y) / self.count
        own = np.einsum("hp,hk,kp->p", weights, centred, weights).clip(min=0)
        others = (self.y2 - self.y**2 / self.count).clip(min=0)
        size = np.sqrt(own * others)
        shared = (weights * together).sum(axis=0)
        return np.asarray(np.where(size > _LEAST * self.count, shared / np.maximum(size, _LEAST), 0.0))


def find_neurons(
    paths: Sequence[Path | str],
    *,
    model: str | Path = "",
    suffixes: Sequence[str] = (".py",),
    characters: int = CHARACTERS,
    keep: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> NeuronTable:
    """Search the neurons of a model that track something, on the source files under `paths`.

    With `keep` the table is written beside the model's weights, where the explorer finds it. Raises `CorpusError` where
    there are fewer than two files, `ModelError` where there is no such model, `OutputError` where it can't be kept.
    """
    files = heldout_files(paths, suffixes=suffixes).files
    language = files[0].language
    directory = find_model(model) if model else model_for_language(language)
    weights, spec = load_weights(directory)
    config, _ = read_config(directory)
    chosen: list[tuple[SourceFile, dict[str, npt.NDArray[np.float32]]]] = []
    left, left_out = characters, 0
    for file in take_in_turn(files):
        if left <= 0:
            break
        try:
            found = properties_of(file.text, file.language)
        except UnparsedError:
            left_out += 1
            continue
        chosen.append((file, found))
        left -= min(len(file.text), FILE_CHARACTERS)
    if len(chosen) < 2:
        raise CorpusError("There must be two files at least, one to find neurons on and one to score them on.")
    chosen.sort(key=lambda one: rank_of(one[0]))
    halves = chosen[::2], chosen[1::2]
    total, done = sum(min(len(file.text), FILE_CHARACTERS) for file, _ in chosen), 0
    sums, shuffled = [], []
    for half in halves:
        real, moved = (_none(spec) for _ in range(2))
        for file, found in half:
            x = _signals(weights, spec, file)
            y = np.stack([found[name][: len(x)] for name in PROPERTIES], axis=1)
            real.add(x, y)
            moved.add(x, np.roll(y, len(y) // 2, axis=0))
            done += len(x)
            if progress is not None:
                progress(done, total)
        sums.append(real)
        shuffled.append(moved)
    table = NeuronTable(
        config["name"],
        config["files"][WEIGHTS_FILE],
        language,
        (sums[0].count, sums[1].count),
        (len(halves[0]), len(halves[1])),
        left_out,
        tuple(_tracked(spec, sums, shuffled)),
    )
    if keep:
        write_whole(directory / FILE, (json.dumps(table.to_json(), indent=1) + "\n").encode("utf-8"))
    return table


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
        if tracked.name not in PROPERTIES:
            raise ValueError("a property that is none")
        for one in tracked.neurons:
            if type(one.layer) is not int or type(one.neuron) is not int or one.signal not in ("h", "c"):
                raise ValueError("a neuron that is none")
            if not (0 <= one.layer < spec.layers and 0 <= one.neuron < spec.hidden):
                raise ValueError("a neuron that the network has not")
            if not (isinstance(one.found, (int, float)) and isinstance(one.held_out, (int, float))):
                raise ValueError("a correlation that is no number")


def _none(spec: ModelSpec) -> _Sums:
    return _Sums.none(spec.layers * spec.parts * spec.hidden, spec.layers * spec.hidden, len(PROPERTIES))


def _signals(weights: Weights, spec: ModelSpec, file: SourceFile) -> npt.NDArray[np.float32]:
    """Return hidden states, then cells, along a file's beginning  # [places, parts * layers * hidden]."""
    text = file.text[:FILE_CHARACTERS]
    states = read_all(weights, spec, header(file.path), text).signals[: spec.parts]
    return np.ascontiguousarray(states.transpose(2, 0, 1, 3)).reshape(len(text), -1)


def _tracked(spec: ModelSpec, sums: Sequence[_Sums], shuffled: Sequence[_Sums]) -> Iterator[Tracked]:
    found, scored = (one.correlations() for one in sums)  # [signals, properties]
    by_chance, chance = (one.correlations() for one in shuffled)
    probes = sums[1].probed(sums[0].probe())
    chance_probes = shuffled[1].probed(shuffled[0].probe())
    neurons = spec.layers * spec.hidden
    for number, name in enumerate(PROPERTIES):
        best = np.abs(found[:, number]).reshape(spec.parts, neurons)
        signal = best.argmax(axis=0)  # of each neuron
        order = np.argsort(-best.max(axis=0), kind="stable")[:NAMED]
        named = []
        for neuron in order:
            row = int(signal[neuron]) * neurons + int(neuron)
            layer, index = divmod(int(neuron), spec.hidden)
            which = SIGNALS[spec.cell][signal[neuron]]
            named.append(Tracking(layer, index, which, float(found[row, number]), float(scored[row, number])))
        lucky = np.abs(by_chance[:, number]).argmax()
        yield Tracked(
            name, tuple(named), float(probes[number]), float(chance[lucky, number]), float(chance_probes[number])
        )
