"""The picture of a toy task: a strip of all neurons over a line, and the traces of those that follow best."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsp_charrnn.inside.findings import Finding, Traces, traces
from lsp_charrnn.inside.toys import Toy, padded, write
from lsp_charrnn.model.reference import Array, Weights
from lsp_charrnn.model.spec import ModelSpec

_TRACED: Final = 2  # neurons
_COLOURS: Final = "RdBu"  # from -1 to 1, as in the essay; to be told apart by the colour-blind, too
# Okabe & Ito's, for the same reason.
_LINES: Final = {
    "cell": "#000000",
    "hidden": "#0072B2",
    "i": "#009E73",
    "f": "#D55E00",
    "o": "#CC79A7",
    "g": "#999999",
    "r": "#D55E00",
    "z": "#009E73",
    "n": "#999999",
}


def draw(toy: Toy, weights: Weights, spec: ModelSpec, finding: Finding) -> Figure:
    """Return the picture of a network that has learned a task, reading one line of the largest size it learned from."""
    text = write(toy, np.random.default_rng(0), toy.trained[-1], before=1)
    seen = traces(weights, spec, padded([text]))
    span = slice(text.line, len(text.symbols))
    labels = [chr(byte) if byte > 32 else "↵" for byte in text.symbols[span]]
    figure = Figure(figsize=(max(7.0, 0.32 * len(labels)), 2.6 + 2.2 * _TRACED), dpi=120, layout="constrained")
    strip, *plots = figure.subplots(1 + _TRACED, 1, sharex=True)
    if spec.parts == 2:  # as the cell is on its way out, so that all have one scale
        _draw_strip(strip, np.tanh(seen.memory[span, 0].T), "tanh of\ncells")
    else:
        _draw_strip(strip, seen.memory[span, 0].T, "hidden\nstates")
    strip.set_title(
        f"{toy.name}: {finding.hidden} {finding.cell} neurons while they read a line", loc="left", fontsize=11
    )
    drawn: list[Artist] = []
    for axes, neuron in zip(plots, finding.neurons, strict=False):
        drawn = _draw_traces(axes, seen, span, neuron.number, spec)
        axes.set_title(
            f"#{neuron.number} follows “{neuron.follows}”, correlation {neuron.correlation:+.2f}",
            loc="left",
            fontsize=9,
        )
    figure.legend(handles=drawn, fontsize=8, ncols=len(drawn), loc="outside lower center", frameon=False)
    plots[-1].set_xticks(range(len(labels)), labels, family="monospace")
    return figure


def _draw_strip(axes: Axes, values: Array, what: str) -> None:
    """Draw `values` [hidden, time], from -1 to 1, as a strip for each neuron."""
    image = axes.imshow(values, cmap=_COLOURS, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_ylabel(what, fontsize=8)
    axes.set_yticks(range(len(values)), [f"#{number}" for number in range(len(values))], fontsize=6)
    axes.figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01)


def _draw_traces(axes: Axes, seen: Traces, span: slice, number: int, spec: ModelSpec) -> list[Artist]:
    """Draw the cell of a neuron on one scale, and what it lets out and its gates on another; return what to explain."""
    lines = {"hidden": seen.states[span, 0, 0, number]}
    if spec.parts == 2:
        lines["cell"] = seen.states[span, 1, 0, number]
    lines |= {name: values[span, 0, number] for name, values in seen.gates.items()}
    gates = axes.twinx()
    gates.set_ylim(-1.05, 1.05)
    for name, values in lines.items():
        on = axes if name == "cell" else gates
        thick = name in ("cell", "hidden")
        on.plot(values, color=_LINES[name], linewidth=2 if thick else 1, linestyle="-" if thick else "--", label=name)
    axes.set_ylabel("cell", fontsize=8)
    gates.set_ylabel("hidden, gates", fontsize=8)
    return [handle for part in (axes, gates) for handle in part.get_legend_handles_labels()[0]]
