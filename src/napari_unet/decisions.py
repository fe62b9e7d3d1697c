"""Logits -> which class a voxel is of, and how sure that is."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def most_likely(logits: Tensor, classes: int) -> Tensor:
    """The class of the largest logit along the axis of classes; the first of equals. torch's `argmax` takes ten times as long."""
    return logits.max(classes).indices


def last_region(logits: Tensor, regions: int) -> Tensor:
    """Which of the logits along the axis of regions is the last one above 0, from 1 on; 0 where none is."""
    numbers = torch.arange(1, logits.shape[regions] + 1, device=logits.device)
    return ((logits > 0).movedim(regions, -1) * numbers).amax(-1)


def uncertainty_of(logits: Tensor, members: Tensor, regions: bool = False) -> Tensor:
    """Of logits (K, ...) and those of each member (M, K, ...): how unsure they are, float32 (...), 0 to 1.

    Of regions, which overlap, the mean of each one's entropy.
    """
    if len(members):
        decided = last_region if regions else most_likely
        return (decided(members, 1) != decided(logits, 0)).float().mean(0)
    if regions:
        inside = torch.sigmoid(torch.stack([logits, -logits]))
        return -torch.xlogy(inside, inside).sum(0).mean(0) / math.log(2)
    shares = torch.softmax(logits, 0)
    entropy = -torch.xlogy(shares, shares).sum(0) / math.log(len(logits))
    return entropy.clamp(0, 1)
