"""The optimisers: what Muon's step is, and who moves which weights."""

from __future__ import annotations

import pytest
import torch
from engine import network_spec
from torch import Tensor

from napari_unet.network import UNet
from napari_unet.optimiser import RATIO, Muon, optimisers, orthogonalised, set_rate
from napari_unet.settings import TrainConfig


@pytest.mark.parametrize("shape", [(16, 432), (128, 64), (8, 8), (3, 100)])
def test_an_orthogonalised_matrix_keeps_its_directions_and_loses_its_sizes(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ orthogonalised([matrix])[0] @ right.T
    assert (turned.diagonal() - 1).abs().max() < 0.35
    assert (turned - turned.diagonal().diag()).abs().max() < 0.05


def test_its_size_does_not_matter() -> None:
    matrix = torch.randn(16, 48, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(*orthogonalised([matrix, 1e-4 * matrix]), atol=1e-3)


def test_matrices_do_not_depend_on_their_company() -> None:
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n, shape in enumerate([(8, 20), (20, 8), (4, 9), (8, 8)])]
    for together, matrix in zip(orthogonalised(drawn), drawn, strict=True):
        assert together.shape == matrix.shape and torch.allclose(together, orthogonalised([matrix])[0], atol=1e-5)


def test_a_step_goes_against_the_gradient_and_forgets_weights() -> None:
    kernel = torch.nn.Parameter(torch.ones(4, 3, 3, 3))
    kernel.grad = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    Muon([kernel], rate=0.1, decay=0.5).step()
    moved = kernel.detach() - (1 - 0.1 * 0.5)
    assert (moved * kernel.grad).sum() < 0
    assert moved.flatten(1).norm() == pytest.approx(0.1 * 4**0.5, rel=0.3)  # four directions of size one


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_parameter_has_one_owner(dims: int, name: str) -> None:
    network = UNet(network_spec(dims, levels=3))
    owners = optimisers(network, TrainConfig(optimiser=name))
    owned = [id(p) for owner in owners for group in owner.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in network.parameters())
    kernels = [p for owner in owners if isinstance(owner, Muon) for group in owner.param_groups for p in group["params"]]
    assert all(p.ndim == dims + 2 for p in kernels) and bool(kernels) == (name == "muon")


def test_kernels_have_a_rate_of_their_own() -> None:
    owners = optimisers(UNet(network_spec()), TrainConfig())
    set_rate(owners, 0.001)
    assert [group["lr"] for owner in owners for group in owner.param_groups] == pytest.approx([0.001, 0.001 * RATIO])


def losses(name: str, x: Tensor, steps: int) -> list[float]:
    torch.manual_seed(0)
    network, found = UNet(network_spec()), []
    owners = optimisers(network, TrainConfig(optimiser=name))
    for _ in range(steps):
        network.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x), (x[:, 0] > 0.5).long())
        loss.backward()
        for owner in owners:
            owner.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_it_learns(name: str) -> None:
    found = losses(name, torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)), 40)
    assert found[-1] < 0.7 * found[0] and max(found[20:]) < min(found[:5])
