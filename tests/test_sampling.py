"""Batches: the same for one seed and step, fair to cases and classes, and true at the volume's border."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import scan
from engine import model_spec, network_spec
from torch import Tensor

from napari_unet.loss import IGNORE_INDEX
from napari_unet.preprocess import prepare, prepare_labels
from napari_unet.sampling import Example, Sampler, crop
from napari_unet.settings import TrainConfig
from napari_unet.spec import ModelSpec

SPEC = model_spec(network_spec(classes=3), mirror_axes=(2,))
FLAT = model_spec(network_spec(2, classes=3))
PLAIN = TrainConfig(augment=0, foreground=0)


def example(label: Tensor, image: Tensor | None = None) -> Example:
    """A prepared case of this label; by default its image numbers the voxels from 1, so that none looks like padding."""
    voxels = torch.arange(1.0, label.numel() + 1).reshape(1, *label.shape) if image is None else image
    centres = tuple(np.argwhere(label.numpy() == v).astype(np.int32) for v in label.unique().tolist() if v)
    return Example(voxels, label.to(torch.uint8), centres)


def blank(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.uint8)


def batches(sampler: Sampler, count: int, patch: tuple[int, ...], size: int = 4) -> tuple[Tensor, Tensor]:
    pairs = [sampler.batch(step, step * size, patch, size) for step in range(count)]
    return torch.cat([images for images, _ in pairs]), torch.cat([shares for _, shares in pairs])


def test_a_case_is_prepared_as_for_use() -> None:
    image, label = scan(3)
    made = Example.make(image, label, SPEC)
    assert torch.equal(made.image, prepare(image, SPEC).data) and torch.equal(made.label, prepare_labels(label, SPEC))
    assert made.image.dtype == torch.float32 and made.label.dtype == torch.uint8
    for value, voxels in enumerate(made.centres, 1):
        assert (made.label[tuple(voxels.T)] == value).all()


def test_centres_are_many_but_not_all_and_from_everywhere() -> None:
    image, label = scan(0, (64, 64, 64))
    filled = label.with_data(np.ones_like(label.data))
    (centres,) = Example.make(image, filled, SPEC).centres
    assert len(centres) == 20_000 and (centres.min(0) == 0).all() and (centres.max(0) == 63).all()


@pytest.mark.parametrize("spec", [SPEC, FLAT])
def test_a_step_gives_the_same_batch_whoever_asks_and_whenever(spec: ModelSpec) -> None:
    patch = (8, 8, 8) if spec is SPEC else (1, 16, 16)
    examples = [Example.make(*scan(n), spec) for n in range(3)]
    one, two = (Sampler(examples, spec, TrainConfig(seed=4)) for _ in range(2))
    straight = [one.batch(step, 2 * step, patch, 2) for step in range(5)]
    torch.manual_seed(9)
    np.random.seed(9)
    backwards = [two.batch(step, 2 * step, patch, 2) for step in reversed(range(5))][::-1]
    for (images, shares), (other_images, other_shares) in zip(straight, backwards, strict=True):
        assert torch.equal(images, other_images) and torch.equal(shares, other_shares)
    assert len({images.numpy().tobytes() for images, _ in straight}) == 5
    other = Sampler(examples, spec, TrainConfig(seed=5)).batch(0, 0, patch, 2)
    assert not torch.equal(other[0], straight[0][0])


def test_sampling_leaves_the_cases_as_they_are() -> None:
    made = Example.make(*scan(0), SPEC)
    image, label = made.image.clone(), made.label.clone()
    for strength in (0.0, 1.0):
        batches(Sampler([made], SPEC, TrainConfig(augment=strength)), 5, made.label.shape)
    assert torch.equal(made.image, image) and torch.equal(made.label, label)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_case_is_drawn_equally_often(size: int) -> None:
    cases = [example(blank(8, 8, 8), torch.full((1, 8, 8, 8), float(n))) for n in range(5)]
    images, _ = batches(Sampler(cases, SPEC, PLAIN), 40, (8, 8, 8), size)
    drawn = images[:, 0, 0, 0, 0].int().tolist()
    for turn in range(len(drawn) // 5):
        assert sorted(drawn[5 * turn : 5 * turn + 5]) == [0, 1, 2, 3, 4]
    assert len({tuple(drawn[5 * turn : 5 * turn + 5]) for turn in range(len(drawn) // 5)}) > 3  # in a new order each time


@pytest.mark.parametrize(("spec", "shape", "patch"), [(SPEC, (32, 32, 32), (8, 8, 8)), (FLAT, (32, 40, 40), (1, 16, 16))])
def test_patches_on_request_hold_a_labelled_voxel(spec: ModelSpec, shape: tuple[int, ...], patch: tuple[int, ...]) -> None:
    label = blank(*shape)
    label[17, 20, 9] = 1
    held = {}
    for foreground in (0.0, 0.5, 1.0):
        _, shares = batches(Sampler([example(label)], spec, replace(PLAIN, foreground=foreground)), 50, patch)
        held[foreground] = (shares[:, 1:] == 1).flatten(1).any(1).float().mean().item()
    assert held[0] < 0.2 and 0.35 < held[0.5] < 0.65 and held[1] == 1


def test_small_classes_are_drawn_as_often_as_large_ones() -> None:
    label = blank(40, 40, 40)
    label[:20], label[35, 35, 35] = 1, 2
    _, shares = batches(Sampler([example(label)], SPEC, replace(PLAIN, foreground=1.0)), 100, (8, 8, 8))
    assert 0.4 < (shares[:, 2] == 1).flatten(1).any(1).float().mean() < 0.6


def test_augmented_patches_still_hold_what_they_were_centred_on() -> None:
    label = blank(60, 60, 60)
    label[28:32, 28:32, 28:32] = 1
    _, shares = batches(Sampler([example(label)], SPEC, TrainConfig(foreground=1.0)), 50, (16, 16, 16))
    assert (shares[:, 1:] > 0.5).flatten(1).any(1).float().mean() > 0.95


def test_a_batch_holds_the_shares_of_its_labels() -> None:
    """All of a voxel for its own class, where nothing was turned; zeros outside."""
    label = torch.randint(0, 3, (6, 7, 8), dtype=torch.uint8)
    (image,), (shares,) = Sampler([example(label)], SPEC, PLAIN).batch(0, 0, (8, 8, 8), 1)
    inside = image[0] != 0
    expected = torch.nn.functional.one_hot(label.flatten().long(), 3).T.float()
    assert inside.sum() == label.numel() and torch.equal(shares[:, inside], expected)
    assert shares.dtype == torch.float32 and not shares[:, ~inside].any()


@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_patches_reach_every_voxel_up_to_the_border_and_no_further(foreground: float) -> None:
    label = blank(9, 10, 11)
    label[0, 0, 0], label[-1, -1, -1] = 1, 2
    cases = [example(label)]
    images, _ = batches(Sampler(cases, SPEC, replace(PLAIN, foreground=foreground)), 200, (4, 4, 4))
    seen = set(images.flatten().int().tolist())
    assert 0 not in seen  # nothing but the volume
    assert {1, label.numel()} <= seen  # the first corner and the last
    assert foreground == 1 or len(seen) == label.numel()


@pytest.mark.parametrize("shape", [(5, 30, 30), (5, 6, 7), (1, 1, 1), (8, 8, 7)])
@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_a_volume_smaller_than_the_patch_lies_in_its_middle(shape: tuple[int, ...], foreground: float) -> None:
    label = blank(*shape)
    label[0, 0, 0] = 1
    images, shares = batches(Sampler([example(label)], SPEC, replace(PLAIN, foreground=foreground)), 5, (8, 8, 8))
    for image, share in zip(images[:, 0], shares, strict=True):
        for axis in range(3):
            inside = (image != 0).movedim(axis, 0).flatten(1).any(1)
            first, count = int(inside.int().argmax()), int(inside.sum())
            assert count == min(8, shape[axis]) and first == (8 - count) // 2
        assert torch.equal(share.sum(0), (image != 0).float())  # what lies outside is unlabelled


def test_a_crop_is_what_lies_there_and_unlabelled_elsewhere() -> None:
    made = example(torch.randint(0, 3, (6, 7, 8), dtype=torch.uint8))
    padded = torch.nn.functional.pad(made.image, [4] * 6)
    for first in np.random.default_rng(0).integers(-4, 6, (50, 3)):
        image, label = crop(made.image, made.label, first, (4, 4, 4))
        z, y, x = (slice(f + 4, f + 8) for f in first)
        assert torch.equal(image, padded[:, z, y, x])
        assert torch.equal(label, torch.nn.functional.pad(made.label, [4] * 6, value=IGNORE_INDEX)[z, y, x])


def test_a_case_without_labels_is_sampled_too() -> None:
    empty: Any = Sampler([example(blank(12, 12, 12))], SPEC, TrainConfig(foreground=1.0)).batch(0, 0, (8, 8, 8), 2)
    assert empty[0].shape == (2, 1, 8, 8, 8) and empty[1].shape == (2, 3, 8, 8, 8)
    assert not empty[1][:, 1:].any() and empty[1][:, 0, 4, 4, 4].allclose(torch.ones(2))  # all of it background


def test_cases_of_different_shapes_share_a_batch() -> None:
    cases = [example(blank(*shape)) for shape in ((4, 30, 12), (40, 9, 9), (16, 16, 16))]
    images, _ = Sampler(cases, SPEC, TrainConfig()).batch(0, 0, (16, 16, 16), 3)
    assert images.shape == (3, 1, 16, 16, 16)
    assert torch.isfinite(images).all()
