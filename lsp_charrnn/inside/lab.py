"""The lab: a toy task is learned, looked into, and left as a model directory with examples, a picture and a page.

What is left is an ordinary model, and its examples an ordinary text: the page is the explorer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table

from lsp_charrnn.evaluate.output import write_whole
from lsp_charrnn.evaluate.picture import save
from lsp_charrnn.inside import explore
from lsp_charrnn.inside.findings import Finding, judge
from lsp_charrnn.inside.learning import LabOptions, learn, spec_of
from lsp_charrnn.inside.picture import draw
from lsp_charrnn.inside.toys import TOYS, Toy, write
from lsp_charrnn.model.neurons import Label
from lsp_charrnn.model.spec import CELLS, Cell, ModelSpec
from lsp_charrnn.text.symbols import header
from lsp_charrnn.train.export import export_model, refuse_existing
from lsp_charrnn.train.network import Weights

EXAMPLES_FILE: Final = "examples.txt"
PICTURE_FILE: Final = "traces.png"
PAGE_FILE: Final = "page.html"
_EXAMPLES: Final = 20  # lines
_NEURONS_SHOWN: Final = 6

Show = Callable[[str], None]  # told in a few words where it stands


@dataclass(frozen=True)
class Outcome:
    """What a task leaves: what has been found, and the model directory, with its examples, its picture and its page."""

    finding: Finding
    model: Path

    @property
    def examples(self) -> Path:
        """A text of the task's lines, to look at the model with."""
        return self.model / EXAMPLES_FILE

    @property
    def picture(self) -> Path:
        """The traces of the neurons that follow best."""
        return self.model / PICTURE_FILE

    @property
    def page(self) -> Path:
        """The examples through the network's eyes."""
        return self.model / PAGE_FILE

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {**self.finding.to_json(), "model": str(self.model)}


def run(toy: Toy, out: Path, options: LabOptions, *, force: bool, show: Show = lambda words: None) -> Outcome:
    """Let a network learn a task, and leave what comes of it in `out`.

    Raises `OutputError` where `out` exists and is no model, or is one without `force`, or cannot be written.
    """
    refuse_existing(out, force)
    spec = spec_of(toy)
    weights = _learned(toy, spec, options, show)
    show(f"{toy.name}: looking into it")
    finding = judge(toy, weights, spec, seed=options.seed)
    model = export_model(
        weights,
        spec,
        out,
        name=toy.name,
        languages=["plaintext"],
        training={"task": toy.name, "options": asdict(options)},
        evaluation={"toy": finding.to_json()},
        card=_card(toy, finding, options),
        force=force,
    )
    outcome = Outcome(finding, model)
    write_whole(outcome.examples, examples(toy, options.seed))
    save(draw(toy, weights, spec, finding), outcome.picture)
    write_whole(outcome.page, _page(toy, weights, spec, finding, outcome.examples.read_bytes()).encode("utf-8"))
    return outcome


def _page(toy: Toy, weights: Weights, spec: ModelSpec, finding: Finding, text: bytes) -> str:
    memory = "c" if spec.parts == 2 else "h"  # what their correlation is of
    return explore.page(
        weights,
        spec,
        [explore.Text(EXAMPLES_FILE, text, header(EXAMPLES_FILE))],
        model=toy.name,
        labels=[
            Label(0, neuron.number, neuron.follows, abs(neuron.correlation), memory)
            for neuron in finding.neurons[:_NEURONS_SHOWN]
        ],
        labelled="What they follow, and how well (correlation, on lines of the sizes that were learned)",
    )


def examples(toy: Toy, seed: int) -> bytes:
    """Return a text of the task's lines, of the sizes that are learned from."""
    random = np.random.default_rng((seed, 2))
    text = write(toy, random, toy.trained[-1], before=_EXAMPLES - 1)
    return text.symbols[text.text :]


def compare(
    toys: Iterable[Toy] = TOYS.values(),
    cells: Iterable[Cell] = CELLS,
    *,
    options: LabOptions,
    show: Show = lambda words: None,
) -> list[Finding]:
    """Let each of the cells learn each task, with the same sizes, steps and lines, and look at all of them."""
    findings = []
    for toy in toys:
        for cell in cells:
            spec = spec_of(toy, cell)
            findings.append(judge(toy, _learned(toy, spec, options, show), spec, seed=options.seed))
    return findings


def _learned(toy: Toy, spec: ModelSpec, options: LabOptions, show: Show) -> Weights:
    """Return the weights as a model directory keeps them, in half precision: what is judged is what is there."""

    def told(step: int, bits: float) -> None:
        if step % 50 == 0:
            show(f"{toy.name}, {spec.cell}: step {step} of {options.steps}, {bits:.3f} bits per character")

    weights = learn(toy, spec, options, told)
    return {name: weight.astype(np.float16).astype(np.float32) for name, weight in weights.items()}


def _card(toy: Toy, finding: Finding, options: LabOptions) -> str:
    return (
        f"# {toy.name}\n\n"
        f"{finding.hidden} {finding.cell} neurons that have learned a toy task, `{toy.about}`, from lines of "
        f"{_span(toy.trained)} {toy.size}. They are there to be looked into, and complete nothing else.\n\n"
        f"Made by `lsp-charrnn lab {toy.name} --steps {options.steps} --seed {options.seed}`. "
        f"Of the lines of these sizes {_percent(finding.in_range)} are ended rightly. `{EXAMPLES_FILE}` is a text to "
        f"look at them with, `{PICTURE_FILE}` shows the best of them, `{PAGE_FILE}` all of them.\n"
    )


# --- for people ----------------------------------------------------------------------------------------------


def summary(findings: Iterable[Finding]) -> Table:
    """Return a table of how well tasks have been learned, a row each."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("task", "network"):
        table.add_column(heading)
    for heading in ("learned from", "right there", "all right up to", "right beyond"):
        table.add_column(heading, justify="right")
    for finding in findings:
        toy = TOYS[finding.task]
        beyond = [finding.right[size] for size in toy.beyond]
        table.add_row(
            finding.task,
            f"{finding.cell} 1×{finding.hidden}",
            f"{_span(toy.trained)} {toy.size}",
            _percent(finding.in_range),
            str(finding.exact_to) if finding.exact_to else "–",
            f"{_percent(sum(beyond) / len(beyond))} of {_span(toy.beyond)}",
        )
    return table


def neurons(finding: Finding) -> Table:
    """Return a table of the neurons that follow best what the task wants kept in mind."""
    table = Table(box=None, header_style="bold", pad_edge=False, title=f"\n{finding.task}", title_justify="left")
    table.add_column("neuron", justify="right")
    table.add_column("follows")
    table.add_column("correlation", justify="right")
    table.add_column("right without it", justify="right")
    for neuron in finding.neurons[:_NEURONS_SHOWN]:
        table.add_row(f"#{neuron.number}", neuron.follows, f"{neuron.correlation:+.3f}", _percent(neuron.without))
    return table


def gates(finding: Finding) -> Table:
    """Return a table of the best neuron's gates, after each of the task's characters."""
    neuron = finding.neurons[0]
    names = list(next(iter(neuron.gates.values())))
    table = Table(box=None, header_style="bold", pad_edge=False, title=f"\ngates of #{neuron.number}")
    table.title_justify = "left"
    table.add_column("at")
    for name in names:
        table.add_column(name, justify="right")
    for character, means in neuron.gates.items():
        table.add_row("end of line" if character == "\n" else character, *(f"{means[name]:+.2f}" for name in names))
    return table


def _span(sizes: range) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"


def _percent(share: float) -> str:
    """Return a share for people; what is not quite all never reads as 100 %."""
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{min(99.9, max(0.1, 100 * share)):.1f} %"
