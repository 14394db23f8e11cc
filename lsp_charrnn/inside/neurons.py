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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.heldout import heldout_files, rank_of, take_in_turn
from lsp_charrnn.evaluate.output import write_whole
from lsp_charrnn.inside.activations import Weights, read_all
from lsp_charrnn.inside.syntax import PROPERTIES, UnparsedError, properties_of
from lsp_charrnn.model.files import WEIGHTS_FILE, find_model, load_weights, model_for_language, read_config
from lsp_charrnn.model.neurons import FILE, NeuronTable, Tracked, Tracking
from lsp_charrnn.model.reference import SIGNALS
from lsp_charrnn.model.spec import ModelSpec
from lsp_charrnn.text.symbols import header
from lsp_charrnn.train.corpus import SourceFile

NAMED: Final = 5  # neurons for each property
CHARACTERS: Final = 100_000  # read in all
FILE_CHARACTERS: Final = 4_000  # of one file: many different ones say more
_RIDGE: Final = 1e-2  # of the probe, in variances
_LEAST: Final = 1e-9

Numbers = npt.NDArray[np.float64]


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
    directory = find_model(model) if model else model_for_language(files[0].language)
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
        ", ".join(sorted({file.language for file, _ in chosen})),
        (sums[0].count, sums[1].count),
        (len(halves[0]), len(halves[1])),
        left_out,
        tuple(_tracked(spec, sums, shuffled)),
    )
    if keep:
        write_whole(directory / FILE, (json.dumps(table.to_json(), indent=1) + "\n").encode("utf-8"))
    return table


def shown(table: NeuronTable) -> Table:
    """Return it for people, a row for each property and neuron."""
    found, scored = table.characters
    rows = Table(
        title=f"What neurons track, model {table.model}",
        caption=f"found on {found:,} characters of {table.files[0]} files, scored on {scored:,} of {table.files[1]} "
        f"others, in {table.language}; {table.left_out} files their language's parser can't read. "
        "Correlations on the latter; shuffled: the best that chance finds",
        box=box.SIMPLE_HEAD,
    )
    rows.add_column("property")
    headings = "layer", "neuron", "signal", "held out", "where found", "probe of all", "shuffled", "its probe"
    for heading in headings:
        rows.add_column(heading, justify="right")
    for tracked in table.properties:
        beside = f"{tracked.probe:.2f}", f"{tracked.shuffled_neuron:+.2f}", f"{tracked.shuffled_probe:+.2f}"
        for rank, one in enumerate(tracked.neurons):
            own = str(one.layer + 1), str(one.neuron), one.signal, f"{one.held_out:+.2f}", f"{one.found:+.2f}"
            rows.add_row("" if rank else tracked.name, *own, *(("",) * 3 if rank else beside))
        rows.add_section()
    return rows


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
