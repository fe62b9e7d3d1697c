"""Augmentation: image and shares move together, by exactly what was drawn, and nothing moves where nothing was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine import model_spec, network_spec
from scipy.ndimage import map_coordinates
from torch import Tensor

from napari_unet.augment import (
    BEND,
    KNOTS,
    Augmentation,
    Move,
    RandIntensity,
    RandMirror,
    RandMove,
    apply_intensity,
    apply_move,
    mirror,
    move_some,
    source_size,
)
from napari_unet.spec import ModelSpec

CLASSES = 6
SOURCE, PATCH = (14, 18, 22), (10, 12, 16)
FLAT_SOURCE, FLAT_PATCH = (1, 24, 20), (1, 16, 12)
SPECS: dict[str, ModelSpec] = {
    "3-D": model_spec(spacing=(1.0, 0.8, 0.9), mirror_axes=(0, 1, 2)),
    "3-D of thick slices": model_spec(spacing=(5.0, 0.5, 0.5), mirror_axes=(2,)),
    "3-D, each its own spacing": model_spec(),
    "2-D": model_spec(network_spec(2), mirror_axes=(2,)),
    "pictures": model_spec(network_spec(2), pictures=True, mirror_axes=(1, 2)),
}


def numbered(shape: tuple[int, ...], batch: int = 3) -> tuple[Tensor, Tensor]:
    """Images whose channels say where each voxel is, and that it is one; classes unlike their neighbours', a part unlabelled."""
    places = np.stack([*np.indices(shape), np.ones(shape)]).astype(np.float32)
    classes = sum(factor * index for factor, index in zip((1, 3, 2), np.indices(shape), strict=True)) % (CLASSES + 1)
    shares = np.stack([classes == value for value in range(CLASSES)]).astype(np.float32)
    return tuple(torch.from_numpy(each).expand(batch, *each.shape).clone() for each in (places, shares))


def assert_together(images: Tensor, shares: Tensor, original: Tensor) -> int:
    """All shares are what lies, between voxels linearly, where the image says it is; how many voxels were compared."""
    compared = 0
    for image, found in zip(images.double().numpy(), shares.double().numpy(), strict=True):
        inside = np.abs(image[3] - 1) < 1e-4  # interpolated from voxels of the source alone
        expected = [map_coordinates(share, image[:3, inside], order=1, mode="nearest") for share in original.double().numpy()]
        np.testing.assert_allclose(found[:, inside], expected, atol=2e-4)
        assert (found >= 0).all() and (found.sum(0) <= image[3] + 1e-4).all()  # nobody labelled what lies outside
        compared += int(inside.sum())
    return compared


def no_knots(batch: int = 1) -> Tensor:
    return torch.zeros(batch, 3, KNOTS, KNOTS, KNOTS)


def shapes(spec: ModelSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (FLAT_SOURCE, FLAT_PATCH) if spec.network.dims == 2 else (SOURCE, PATCH)


@pytest.mark.parametrize("patch", [(8, 8, 8), (1, 32, 40), (40, 56, 40), (2, 6, 10)])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 3.0])
def test_the_source_surrounds_the_patch_evenly(patch: tuple[int, ...], strength: float) -> None:
    source = source_size(patch, strength)
    assert all(s >= n and (s - n) % 2 == 0 for s, n in zip(source, patch, strict=True))
    assert (source == patch) == (strength == 0)
    assert source[0] == 1 or patch[0] > 1


@pytest.mark.parametrize(("source", "patch"), [(SOURCE, PATCH), (FLAT_SOURCE, FLAT_PATCH), (PATCH, PATCH)])
def test_the_identity_cuts_out_the_middle(source: tuple[int, ...], patch: tuple[int, ...]) -> None:
    images, shares = numbered(source)
    cut, cut_shares = apply_move(images, shares, torch.eye(3).expand(3, 3, 3), no_knots(3), patch)
    middle = tuple(slice((s - n) // 2, (s + n) // 2) for s, n in zip(source, patch, strict=True))
    for found, whole in ((cut, images), (cut_shares, shares)):
        torch.testing.assert_close(found, whole[(slice(None), slice(None), *middle)], rtol=0, atol=1e-4)


def test_what_does_not_move_is_not_resampled() -> None:
    images, shares = numbered(SOURCE)
    cut, cut_shares = move_some(images, shares, [Move.none()] * 3, PATCH)
    middle = tuple(slice((s - n) // 2, (s + n) // 2) for s, n in zip(SOURCE, PATCH, strict=True))
    assert torch.equal(cut, images[(..., *middle)]) and torch.equal(cut_shares, shares[(..., *middle)])


@pytest.mark.parametrize(("source", "patch"), [(SOURCE, PATCH), (FLAT_SOURCE, FLAT_PATCH)])
def test_knots_that_are_shifted_alike_shift_the_patch(source: tuple[int, ...], patch: tuple[int, ...]) -> None:
    images, shares = numbered(source, 1)
    knots = no_knots() + torch.tensor([0.3, -0.2, 0.25]).reshape(1, 3, 1, 1, 1)
    moved, moved_shares = apply_move(images, shares, torch.eye(3)[None], knots, patch)
    still, _ = apply_move(images, shares, torch.eye(3)[None], no_knots(), patch)
    by = [share * (n - 1) / (KNOTS - 1) for share, n in zip((0.3, -0.2, 0.25), patch, strict=True)]
    inside = moved[0, 3] > 1 - 1e-4
    for axis in range(3):
        torch.testing.assert_close((moved - still)[0, axis][inside], torch.full((int(inside.sum()),), by[axis]), rtol=0, atol=1e-3)
    assert assert_together(moved, moved_shares, shares[0]) > 0.8 * moved[0, 0].numel()


def test_a_knot_moves_what_lies_about_it_and_no_more() -> None:
    images, shares = numbered((22, 22, 22), 1)
    patch = (16, 16, 16)  # knots on voxels 0, 5, 10, 15
    knots = no_knots()
    knots[0, 2, 1, 2, 1] = 0.5
    moved, _ = apply_move(images, shares, torch.eye(3)[None], knots, patch)
    shift = (moved - apply_move(images, shares, torch.eye(3)[None], no_knots(), patch)[0])[0]
    assert shift[:2].abs().max() < 1e-4 and shift[2, 5, 10, 5] == pytest.approx(2.5, abs=1e-4) == shift[2].max()
    assert shift[2, 5, 10, 7] == pytest.approx(1.5, abs=1e-4)
    far = shift[2].clone()
    far[1:10, 6:15, 1:10] = 0
    assert far.abs().max() < 1e-4


def test_a_matrix_leads_from_patch_to_source() -> None:
    images, shares = numbered((9, 9, 9), 1)
    matrix = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 2]])[None]
    turned, turned_shares = apply_move(images, shares, matrix, no_knots(), (3, 3, 3))
    for z, y, x in np.ndindex(3, 3, 3):
        expected = matrix[0].numpy() @ np.array([z - 1, y - 1, x - 1]) + 4
        np.testing.assert_allclose(turned[0, :3, z, y, x], expected, atol=1e-4)
    assert assert_together(turned, turned_shares, shares[0]) == 27


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
def test_image_and_shares_move_together(name: str, strength: float) -> None:
    spec = SPECS[name]
    source, patch = shapes(spec)
    images, shares = numbered(source, 24)
    before = images.clone(), shares.clone()
    augmentation = Augmentation(spec, strength).set_random_state(5)
    moved, moved_shares = augmentation.mirror(*augmentation.move(images, shares, patch))
    assert moved.shape == (24, 4, *patch) and moved_shares.shape == (24, CLASSES, *patch)
    assert assert_together(moved, moved_shares, shares[0]) > 0.3 * moved[:, 0].numel()
    assert len({moved[n].numpy().tobytes() for n in range(24)}) > 8  # they did move
    _, whole = augmentation(images, shares, patch)
    assert whole.dtype == torch.float32 and whole.shape == moved_shares.shape
    assert torch.equal(images, before[0]) and torch.equal(shares, before[1])  # the sources are kept for the next step


def test_a_voxel_that_two_classes_meet_in_gets_a_share_of_each() -> None:
    """Half a voxel on: 1, 0, unlabelled, 2 become the means of neighbours, and only what is unlabelled loses mass."""
    shares = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]).reshape(1, 3, 1, 1, 4).expand(1, 3, 1, 3, 4)
    _, moved = apply_move(torch.zeros(1, 1, 1, 3, 4), shares, torch.eye(3)[None], no_knots(), (1, 1, 3))
    torch.testing.assert_close(moved[0, :, 0, 0], torch.tensor([[0.5, 0.5, 0], [0.5, 0, 0], [0, 0, 0.5]]))
    torch.testing.assert_close(moved.sum(1).flatten(), torch.tensor([1, 0.5, 0.5]))


@pytest.mark.parametrize("name", SPECS)
def test_turns_and_scales_are_true_in_millimetres(name: str) -> None:
    spec = SPECS[name]
    rand = RandMove(spec, 1.0)
    rand.set_random_state(0)
    rand.randomize(60)
    spacing = np.array([s or 1.0 for s in spec.spacing])
    flat = spec.network.dims == 2 or spacing[0] > 2 * spacing[1:].min()
    moving = [move for move in rand.moves if not move.still]
    assert 10 < len(moving) < 55
    bent = np.std([move.knots for move in moving], axis=(0, 2, 3, 4))
    expected = BEND[spec.network.dims]
    np.testing.assert_allclose(bent, [0 if flat else expected, expected, expected], rtol=0.1)
    for matrix in (move.matrix for move in moving):
        true = np.diag(spacing) @ matrix @ np.diag(1 / spacing)
        scale = np.cbrt(np.linalg.det(true))
        np.testing.assert_allclose(true.T @ true, scale**2 * np.eye(3), atol=1e-9)  # no shear, no mirror
        if flat:  # slices stay slices
            np.testing.assert_allclose(true[0], (scale, 0, 0), atol=1e-9)


def test_only_pictures_without_an_up_are_turned_about() -> None:
    angles = {}
    for name in ("pictures", "2-D"):
        rand = RandMove(SPECS[name], 1.0)
        rand.set_random_state(1)
        rand.randomize(200)
        matrices = np.stack([move.matrix for move in rand.moves])
        angles[name] = np.abs(np.degrees(np.arctan2(matrices[:, 2, 1], matrices[:, 1, 1]))).max()
    assert angles["2-D"] < 45 < 150 < angles["pictures"]


@pytest.mark.parametrize("axes", [[], [0], [1], [2], [0, 2], [0, 1, 2]])
def test_mirrored_twice_is_as_before(axes: list[int]) -> None:
    images, shares = numbered(SOURCE, 1)
    once = mirror(images, [axes]), mirror(shares, [axes])
    assert assert_together(*once, shares[0]) == images[0, 0].numel()
    assert torch.equal(mirror(once[0], [axes]), images) and torch.equal(mirror(once[1], [axes]), shares)
    assert axes == [] or not torch.equal(once[0], images)


def test_each_sample_is_mirrored_along_its_own_axes() -> None:
    images, _ = numbered(SOURCE, 3)
    together = mirror(images, [[0], [], [1, 2]])
    for n, axes in enumerate(([0], [], [1, 2])):
        assert torch.equal(together[n], mirror(images[n : n + 1], [axes])[0])


def test_mirrored_along_permitted_axes_only_half_of_the_time() -> None:
    images, shares = numbered((4, 4, 4), 400)
    part = RandMirror((0, 2))
    part.set_random_state(3)
    moved, moved_shares = part(images, shares)
    assert assert_together(moved, moved_shares, shares[0]) == images[:, 0].numel()
    flipped = [(moved[:, axis, 0, 0, 0] > 0).float().mean().item() for axis in range(3)]
    assert flipped[1] == 0 and 0.4 < flipped[0] < 0.6 and 0.4 < flipped[2] < 0.6


def neutral(**changes: float) -> dict[str, Tensor]:
    factors = {"contrast": 1.0, "brightness": 0.0, "gamma": 1.0, "amount": 0.0} | changes
    return {name: torch.full((2, 1, 1, 1, 1), value) for name, value in factors.items()}


def test_neutral_factors_change_no_bit() -> None:
    images = torch.randn(2, 1, *PATCH)
    assert torch.equal(apply_intensity(images, torch.randn_like(images), **neutral()), images)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 2.0])
def test_gamma_bends_within_the_images_own_range(gamma: float) -> None:
    images = torch.randn(2, 1, *PATCH) * 3
    bent = apply_intensity(images, torch.zeros_like(images), **neutral(gamma=gamma))
    for before, after in zip(images.flatten(1), bent.flatten(1), strict=True):
        torch.testing.assert_close(after.aminmax(), before.aminmax(), rtol=0, atol=1e-4)
        assert (after[before.argsort()].diff() > -1e-5).all()
        assert (after < before + 1e-4).all() if gamma > 1 else (after > before - 1e-4).all()
    assert not torch.equal(bent, images)


def test_a_constant_patch_stays_finite() -> None:
    part = RandIntensity(3.0)
    part.set_random_state(0)
    assert all(torch.isfinite(part(torch.zeros(8, 2, 4, 4, 4))).all() for _ in range(20))


def everything(spec: ModelSpec, seed: int, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    source, patch = shapes(spec)
    images, shares = numbered(source, 6)
    return Augmentation(spec, strength).set_random_state(seed)(images, shares, patch)


@pytest.mark.parametrize("name", SPECS)
def test_drawn_from_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first: Any = everything(SPECS[name], 11)
    torch.manual_seed(2)
    np.random.seed(2)
    state = torch.random.get_rng_state()
    second, other = everything(SPECS[name], 11), everything(SPECS[name], 12)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.random.get_rng_state(), state)  # and it draws from nobody else's


@pytest.mark.parametrize("name", SPECS)
def test_no_strength_no_change(name: str) -> None:
    _, patch = shapes(SPECS[name])
    images, shares = numbered(patch, 4)
    same, same_shares = Augmentation(SPECS[name], 0.0).set_random_state(0)(images, shares, patch)
    assert torch.equal(same, images) and torch.equal(same_shares, shares)
