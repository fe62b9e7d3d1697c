"""The loss: a plain reference's numbers, and no influence of what nobody labelled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from napari_unet.loss import IGNORE_INDEX, SMOOTH, from_sums, shares_of, sums, supervise

CLASSES = 3
SHAPES = {"2-D": (2, 8, 12), "3-D": (2, 4, 8, 6)}  # batch, then space
both = pytest.mark.parametrize("dims", SHAPES)


def drawn(dims: str, unlabelled: float = 0.4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits (B, K, ...), double, and class indices uint8 (B, ...), a part of them unlabelled."""
    generator = torch.Generator().manual_seed(seed)
    batch, *space = SHAPES[dims]
    logits = 3 * torch.randn(batch, CLASSES, *space, generator=generator, dtype=torch.float64)
    classes = torch.randint(0, CLASSES, (batch, *space), generator=generator, dtype=torch.uint8)
    classes[torch.rand(classes.shape, generator=generator) < unlabelled] = IGNORE_INDEX
    return logits.requires_grad_(), classes


def loss_of(logits: Tensor, classes: Tensor) -> Tensor:
    return from_sums(sums(logits, shares_of(classes, CLASSES)))


def reference(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy by torch, and Dice of the labelled voxels class by class, over the whole batch."""
    entropy = functional.cross_entropy(logits, classes.long(), ignore_index=IGNORE_INDEX)
    known = classes != IGNORE_INDEX
    probabilities = logits.softmax(1).movedim(1, -1)[known]
    scores = []
    for value in range(1, CLASSES):
        truth = (classes[known] == value).double()
        overlap, size = (probabilities[:, value] * truth).sum(), (probabilities[:, value] + truth).sum()
        scores.append((2 * overlap + SMOOTH) / (size + SMOOTH))
    return entropy + 1 - torch.stack(scores).mean()


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, logits)
    return found


@both
@pytest.mark.parametrize("unlabelled", [0.0, 0.4, 0.95])
def test_a_plain_reference_gives_the_same(dims: str, unlabelled: float) -> None:
    logits, classes = drawn(dims, unlabelled)
    loss, expected = loss_of(logits, classes), reference(logits, classes)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, logits), gradient(expected, logits))


@both
def test_shares_say_how_much_of_a_voxel_is_of_each_class(dims: str) -> None:
    _, classes = drawn(dims)
    shares = shares_of(classes, CLASSES)
    assert shares.dtype == torch.float32 and shares.shape == (len(classes), CLASSES, *classes.shape[1:])
    assert torch.equal(shares.sum(1), (classes != IGNORE_INDEX).float())
    for value in range(CLASSES):
        assert torch.equal(shares[:, value] == 1, classes == value)


@both
def test_unlabelled_voxels_have_no_influence_at_all(dims: str) -> None:
    """Not a small one: gradients there are zero, and whatever the network says there changes no bit elsewhere."""
    logits, classes = drawn(dims)
    unlabelled = (classes == IGNORE_INDEX)[:, None].expand_as(logits)
    loss = loss_of(logits, classes)
    slope = gradient(loss, logits)
    assert unlabelled.any() and not slope[unlabelled].any() and slope[~unlabelled].all()
    for noise in (100 * torch.randn_like(logits), torch.full_like(logits, 1e4)):
        other = torch.where(unlabelled, noise, logits.detach()).requires_grad_()
        changed = loss_of(other, classes)
        assert torch.equal(changed, loss)
        assert torch.equal(gradient(changed, other), slope)


@both
def test_a_batch_without_any_label_teaches_nothing(dims: str) -> None:
    logits, classes = drawn(dims)
    loss = loss_of(logits, torch.full_like(classes, IGNORE_INDEX))
    assert loss == 0 and not gradient(loss, logits).any()


@both
def test_halves_added_up_are_the_whole_batch(dims: str) -> None:
    """Over two processes, too: the loss is of the sums, not a mean of losses."""
    logits, classes = drawn(dims)
    classes[0, :2] = IGNORE_INDEX  # so that the halves do not weigh the same
    parts = [sums(logits[n : n + 1], shares_of(classes[n : n + 1], CLASSES)) for n in range(2)]
    together, whole = from_sums(parts[0] + parts[1]), loss_of(logits, classes)
    torch.testing.assert_close(together, whole)
    torch.testing.assert_close(gradient(together, logits), gradient(whole, logits))
    assert not torch.isclose(whole, (from_sums(parts[0]) + from_sums(parts[1])) / 2)


def coarse(dims: str, step: tuple[int, ...], seed: int = 1) -> Tensor:
    """Logits of a decoder level that is coarser by these steps."""
    batch, *space = SHAPES[dims]
    shape = [n // s for n, s in zip(space, step, strict=True)]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CLASSES, *shape, generator=generator, dtype=torch.float64).requires_grad_()


@both
def test_all_scales_count_each_half_as_much_as_the_finer_one(dims: str) -> None:
    logits, classes = drawn(dims)
    steps = [(2, 2), (4, 4)] if dims == "2-D" else [(1, 2, 2), (2, 4, 2)]
    scales = [logits, *(coarse(dims, step) for step in steps)]
    shares = shares_of(classes, CLASSES).double()
    pool: Callable[..., Tensor] = functional.avg_pool2d if dims == "2-D" else functional.avg_pool3d
    losses = [from_sums(sums(scale, pool(shares, step))) for scale, step in zip(scales, [1, *steps], strict=True)]
    expected = (losses[0] + losses[1] / 2 + losses[2] / 4) / 1.75
    torch.testing.assert_close(supervise(scales, shares), expected)
    torch.testing.assert_close(supervise(scales[:1], shares), losses[0])


@both
def test_a_coarse_voxel_weighs_what_is_labelled_of_it(dims: str) -> None:
    """Of a coarse voxel of which a quarter is labelled, as class 1, a quarter counts, as class 1; of one without, nothing."""
    step = (2, 2) if dims == "2-D" else (1, 2, 2)
    _, classes = drawn(dims)
    classes[:] = IGNORE_INDEX
    classes[0, ..., 0, 0] = 1
    scale = coarse(dims, step)
    fine = torch.zeros(len(classes), CLASSES, *classes.shape[1:], dtype=torch.float64)
    loss = supervise([fine, scale], shares_of(classes, CLASSES).double())
    slope = gradient(loss, scale)
    seen = torch.zeros_like(slope, dtype=torch.bool)
    seen[0, ..., 0, 0] = True
    assert slope[seen].all() and not slope[~seen].any()
    total = sums(scale, functional.interpolate(shares_of(classes, CLASSES).double(), scale.shape[2:], mode="area"))
    assert total[-1] == 0.25 * scale[0, 0, ..., 0, 0].numel()


@both
def test_what_adds_up_over_processes_sees_every_scale(dims: str) -> None:
    logits, classes = drawn(dims)
    scales = [logits, coarse(dims, (2, 2) if dims == "2-D" else (2, 2, 2))]
    shares = shares_of(classes, CLASSES).double()
    twice = supervise(scales, shares, lambda total: 2 * total)  # two processes with the same batch
    torch.testing.assert_close(twice, supervise(scales, shares), rtol=1e-4, atol=0)
    seen: list[Tensor] = []
    supervise(scales, shares, lambda total: seen.append(total) or total)  # type: ignore[func-returns-value]
    assert [tuple(total.shape) for total in seen] == [(2, 2 * CLASSES)]


@both
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("kind", ["all", "some", "one voxel", "none", "one class"])
def test_gradients_are_finite(dims: str, size: float, kind: str) -> None:
    logits, classes = drawn(dims, 0.0 if kind == "all" else 0.5)
    if kind == "one class":
        classes[:] = 2
    elif kind in ("one voxel", "none"):
        classes.fill_(IGNORE_INDEX)
        classes.view(-1)[0] = 1 if kind == "one voxel" else IGNORE_INDEX
    single = (size * logits.detach()).float().requires_grad_()
    scales = [single, (size * coarse(dims, (2, 2) if dims == "2-D" else (2, 2, 2)).detach()).float().requires_grad_()]
    loss = supervise(scales, shares_of(classes, CLASSES))
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(scale.grad).all() for scale in scales)
