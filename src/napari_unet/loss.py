"""What training minimises: cross-entropy + soft Dice over the labelled voxels, at every scale of the decoder.

Labels are shares: (B, K, ...) float, how much of a voxel each class fills. They sum to one where a voxel is labelled and
to zero where nobody labelled it; such a voxel has no influence at all. Turning and scaling leaves voxels at a border
between two classes, and between labelled and not, with a part of each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

IGNORE_INDEX = 255  # the class index of a voxel that nobody labelled
SMOOTH = 1e-5


def shares_of(classes: Tensor, count: int) -> Tensor:
    """Class indices uint8 (B, ...) -> shares float32 (B, count, ...); `IGNORE_INDEX` becomes zeros."""
    return torch.stack([classes == index for index in range(count)], 1).float()


def sums(logits: Tensor, shares: Tensor) -> Tensor:
    """All that the loss needs of a batch, as sums over its voxels, (2 K,): they can be added up over processes.

    Overlap and size of each foreground class (Milletari et al. 2016, arXiv 1606.04797), then cross-entropy and mass.
    """
    log_likelihood = functional.log_softmax(logits, 1)
    labelled = shares.sum(1, keepdim=True)
    foreground = log_likelihood[:, 1:].exp()
    over = [0, *range(2, logits.ndim)]
    overlap = (foreground * shares[:, 1:]).sum(over)
    size = (foreground * labelled + shares[:, 1:]).sum(over)
    return torch.cat([overlap, size, -(log_likelihood * shares).sum()[None], labelled.sum()[None]])


def from_sums(total: Tensor) -> Tensor:
    """Cross-entropy per labelled voxel plus one minus the mean Dice of the foreground classes; 0 where none is labelled."""
    classes = len(total) // 2 - 1
    overlap, size, entropy, mass = total[:classes], total[classes:-2], total[-2], total[-1]
    dice = (2 * overlap + SMOOTH) / (size + SMOOTH)
    return entropy / mass.clamp_min(1.0) + 1 - dice.mean()


def supervise(
    logits: list[Tensor], shares: Tensor, together: Callable[[Tensor], Tensor] = lambda total: total
) -> Tensor:
    """The loss over all scales, finest first, each half as important as the finer one (deep supervision).

    A coarse voxel has the mean shares of the fine ones in it. `together` adds the sums up over processes.
    """
    pool = functional.avg_pool2d if shares.ndim == 4 else functional.avg_pool3d
    parts = []
    for scale in logits:
        step = [a // b for a, b in zip(shares.shape[2:], scale.shape[2:], strict=True)]
        parts.append(sums(scale, shares if max(step) == 1 else pool(shares, step)))
    total = together(torch.stack(parts))
    weights = [0.5**n for n in range(len(parts))]
    losses = [weight * from_sums(part) for weight, part in zip(weights, total, strict=True)]
    return torch.stack(losses).sum() / sum(weights)
