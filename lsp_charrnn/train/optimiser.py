"""Muon for the layers' matrices, AdamW for all else: the embedding, the output, biases and peepholes.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") steps by an orthogonal matrix: the
momentum's singular vectors with all singular values near one, so that rare directions are learned as fast as frequent
ones. Here each gate has a matrix of its own, as it has in the equations of the cell: how large one gate's gradient is
says nothing of another's. What that is worth is in docs/experiments.md, "Training".

torch has a Muon, too; it takes whole parameters, and always computes in bfloat16, which processors without it emulate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from lsp_charrnn.config import TrainOptions
from lsp_charrnn.train.network import CharRnn

MUON_SCALE: Final = 10.0  # times AdamW's learning rate
MOMENTUM: Final = 0.95
_BETAS: Final = (0.9, 0.99)
_ITERATIONS: Final = 5
_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)  # Jordan's: the steepest at zero that stay within 0.7 to 1.2


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised momentum of matrices, [gates * hidden, inputs] each.

    `gates` says of how many matrices, one above the other, each parameter is made; `dtype` is that of the products.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float, gates: int, dtype: torch.dtype
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._gates, self._dtype = gates, dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step against the gradients."""
        assert closure is None  # none of ours has one
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                ahead = parameter.grad.lerp(momentum, MOMENTUM)  # Nesterov's
                matrices = ahead.view(self._gates, -1, parameter.shape[1]).to(self._dtype)
                step = orthogonalised(matrices).to(parameter.dtype).reshape(parameter.shape)
                # As long a step for each output, however many inputs it has. (torch takes no number past the largest.)
                rate = group["lr"] * max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5
                rate = min(rate, torch.finfo(parameter.dtype).max)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-rate)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return matrices  # [n, rows, columns] with their singular vectors, and singular values near one.

    Newton and Schulz's iteration with Jordan's polynomial of fifth degree. Nothing stays nothing.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def optimisers_of(network: CharRnn, options: TrainOptions, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Return what trains `network`: together they have all of its parameters. `dtype` is that of Muon's products.

    Each group's "scale" is its learning rate, as a multiple of `options.lr`.
    """
    # Peepholes are no matrix: three rows of numbers for single units.
    rows = network.spec.gates * network.spec.hidden
    matrices = [weight for weight in network.layers.parameters() if weight.ndim == 2 and weight.shape[0] == rows]
    by_gates = {network.spec.gates: matrices} if matrices and options.optimiser != "adamw" else {}
    return muon_beside_adamw(network.parameters(), by_gates, options, dtype)


def muon_beside_adamw(
    parameters: Iterable[Tensor], by_gates: Mapping[int, Sequence[Tensor]], options: TrainOptions, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """Return AdamW for `parameters` less the matrices in `by_gates`, and a Muon for those of each number of gates."""
    settings: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay}
    theirs = {id(matrix) for matrices in by_gates.values() for matrix in matrices}
    others = [parameter for parameter in parameters if id(parameter) not in theirs]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=_BETAS, **settings)]
    optimisers += [Muon(matrices, gates=gates, dtype=dtype, **settings) for gates, matrices in by_gates.items()]
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["scale"] = MUON_SCALE if isinstance(optimiser, Muon) else 1.0
    return optimisers


def set_rate(optimisers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Let the next step have this learning rate: AdamW's, and Muon's in proportion."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group["scale"]
