"""Muon steps along orthogonal matrices, one for each gate; AdamW has all that is no matrix of a gate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lsp_charrnn.config import TrainOptions
from lsp_charrnn.model.spec import CELLS, ModelSpec
from lsp_charrnn.train.network import CharRnn
from lsp_charrnn.train.optimiser import MUON_SCALE, Muon, optimisers_of, orthogonalised, set_rate

OPTIONS = TrainOptions(lr=0.01)


def muon(parameter: torch.Tensor, gates: int = 1, **options: float) -> Muon:
    return Muon([parameter], gates=gates, dtype=torch.float32, **{"lr": 0.1, "weight_decay": 0.0, **options})


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 16, 8), (1, 8, 16)])
def test_singular_vectors_stay_and_singular_values_become_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    seen = u.mT @ orthogonalised(matrices) @ vh.mT  # in its singular vectors
    values = torch.diagonal(seen, dim1=1, dim2=2)
    assert torch.allclose(seen, torch.diag_embed(values), atol=1e-4)
    assert bool(((values > 0.5) & (values < 1.3)).all())


def test_nothing_stays_nothing() -> None:
    assert not orthogonalised(torch.zeros(2, 4, 4)).any()


def test_a_single_matrix_is_stepped_as_torch_does() -> None:
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(32, 8))
    theirs = torch.nn.Parameter(ours.detach().clone())
    mine = Muon([ours], lr=0.1, weight_decay=0.1, gates=1, dtype=torch.bfloat16)
    other = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, momentum=0.95)
    for _ in range(5):
        gradient = torch.randn(32, 8)
        ours.grad, theirs.grad = gradient, gradient.clone()
        mine.step()
        other.step()
    assert torch.allclose(ours, theirs, atol=0.02)  # five steps of 0.2, products in bfloat16
    assert (ours - theirs).abs().mean() < 2e-3


def test_each_gate_is_a_matrix_of_its_own() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(4, 8, 6)
    after = []
    for factor in (1.0, 1000.0):
        parameter = torch.nn.Parameter(torch.zeros(32, 6))
        scaled = gradient.clone()
        scaled[2] *= factor
        parameter.grad = scaled.view(32, 6)
        muon(parameter, gates=4).step()
        after.append(parameter.detach().clone())
    assert torch.allclose(*after, atol=1e-5)
    assert after[0].abs().max() > 0.01


def test_weights_decay_and_what_has_no_gradient_stays() -> None:
    parameter, still = torch.nn.Parameter(torch.ones(4, 4)), torch.nn.Parameter(torch.ones(4, 4))
    optimiser = Muon([parameter, still], lr=0.1, weight_decay=0.5, gates=1, dtype=torch.float32)
    parameter.grad = torch.zeros(4, 4)
    optimiser.step()
    assert torch.allclose(parameter, torch.full((4, 4), 0.95))
    assert torch.equal(still, torch.ones(4, 4))


@pytest.mark.parametrize("cell", CELLS)
def test_every_parameter_has_one_optimiser(cell: str) -> None:
    network = CharRnn(ModelSpec(cell=cell, layers=2, hidden=16, embedding=8))
    others, ours = optimisers_of(network, OPTIONS, torch.float32)
    assert isinstance(ours, Muon)
    theirs = [p for group in ours.param_groups for p in group["params"]]
    assert sorted(tuple(p.shape) for p in theirs) == sorted(
        [(network.spec.gates * 16, inputs) for inputs in (8, 16, 16, 16)]
    )
    all_ = [id(p) for optimiser in (others, ours) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(all_) == sorted(id(p) for p in network.parameters())
    # As large a step for each: none is left where it was.
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = [p.detach().clone() for p in network.parameters()]
    others.step()
    ours.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


def test_adamw_alone_and_its_rate_beside_muons() -> None:
    network = CharRnn(ModelSpec(layers=1, hidden=16, embedding=8))
    (alone,) = optimisers_of(network, replace(OPTIONS, optimiser="adamw"), torch.float32)
    assert isinstance(alone, torch.optim.AdamW)
    both = optimisers_of(network, OPTIONS, torch.float32)
    set_rate(both, 0.25)
    assert [group["lr"] for optimiser in both for group in optimiser.param_groups] == [0.25, 0.25 * MUON_SCALE]
