"""Teaching a small network a toy task, in torch: whole documents of two lines, drawn anew for every step.

What came of it is judged by `findings`, on the weights that are handed back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from lsp_charrnn.config import LAB_STEPS
from lsp_charrnn.inside.toys import Symbols, Text, Toy, padded, write
from lsp_charrnn.model.spec import Cell, ModelSpec
from lsp_charrnn.train.batches import IGNORED
from lsp_charrnn.train.network import CharRnn, Weights

_EMBEDDING: Final = 8  # a task has six characters at most
_CLIP: Final = 1.0  # of the gradient's norm


@dataclass(frozen=True)
class LabOptions:
    """How the toy tasks are learned."""

    steps: int = LAB_STEPS
    batch: int = 32  # documents a step
    lr: float = 0.01  # falls to zero along a cosine
    seed: int = 0


def spec_of(toy: Toy, cell: Cell = "lstm") -> ModelSpec:
    """Return the network that learns a task: one layer, and as many neurons as the task says."""
    return ModelSpec(cell=cell, layers=1, hidden=toy.hidden, embedding=_EMBEDDING, skip=False)


def learn(
    toy: Toy,
    spec: ModelSpec,
    options: LabOptions,
    show: Callable[[int, float], None] = lambda step, bits: None,
) -> Weights:
    """Train a network of shape `spec` on a task and return its weights; `show` is told step and bits per character.

    It learns to predict every character of the lines, as any language model. Part of that cannot be known: how many
    a's there will be. The same seed gives the same network, on the same machine.
    """
    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed)
    network = CharRnn(spec)
    _expect_only_the_tasks_characters(network, toy, random)
    optimiser = torch.optim.Adam(network.parameters(), lr=options.lr)
    for step in range(options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.lr * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        texts = [write(toy, random, int(random.choice(toy.trained)), before=1) for _ in range(options.batch)]
        symbols, targets = torch.from_numpy(padded(texts)), torch.from_numpy(targets_of(texts))
        logits, _ = network(symbols, network.initial_state(options.batch))
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimiser.step()
        show(step + 1, loss.item() / math.log(2))
    return network.to_weights()


def _expect_only_the_tasks_characters(network: CharRnn, toy: Toy, random: np.random.Generator) -> None:
    """Begin with the output's bias at the logarithm of how frequent each character is.

    There are 256 symbols, and a task has six at most. To rule out the others is the first that gradients want, and what
    they do for it to so few neurons, all at once, leaves them saturated: then nothing more is learned for long.
    """
    targets = targets_of([write(toy, random, size, before=1) for size in toy.trained for _ in range(10)])
    counts = np.bincount(targets[targets != IGNORED], minlength=len(network.output.bias))
    with torch.no_grad():
        network.output.bias.copy_(torch.from_numpy(np.log(np.maximum(counts, 0.01) / counts.sum())))


def targets_of(texts: list[Text]) -> Symbols:
    """Return what follows each symbol, [time, lanes]. The header, and what is behind the end, don't count."""
    symbols = padded(texts)
    targets = np.full_like(symbols, IGNORED)
    for lane, text in enumerate(texts):
        targets[text.text - 1 : len(text.symbols) - 1, lane] = symbols[text.text : len(text.symbols), lane]
    return targets
