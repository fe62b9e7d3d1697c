"""Window arithmetic: where windows lie, and how much each counts where they overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WHOLE = 1.5  # up to this many patches, an axis is seen whole: cheaper than two windows, and nothing to blend


def window_size(size: int, patch: int, stride: int) -> int:
    """The window along an axis of `size` voxels: the patch, or the whole axis where it is not much larger than one.

    A whole axis is padded to the next multiple of the stride and no farther: padding is nothing that the network learnt
    from. It spans two strides at least, so that normalisation has more than one value to go by at the bottleneck.
    """
    return max(-(-size // stride), min(2, patch // stride)) * stride if size <= WHOLE * patch else patch


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Evenly spread first voxels of windows that cover an axis, overlapping by at least the share `overlap`."""
    if size <= window:
        return [0]
    count = int(np.ceil((size - window) / max(1.0, window * (1 - overlap)))) + 1
    return [int(round(s)) for s in np.linspace(0, size - window, count)]


def window_shares(size: int, window: int, starts: list[int]) -> NDArray[np.float32]:
    """(windows, window): each window's share of each voxel along one axis; over all windows they add up to one.

    A Gaussian of an eighth of the window (nnU-Net), divided by the sum over all windows: since windows form a grid, the
    product over the axes is an exact partition of unity, up to the volume's very border.
    """
    profile = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / (window / 8)) ** 2)
    total = np.zeros(max(size, window))
    for start in starts:
        total[start : start + window] += profile
    return np.stack([profile / total[start : start + window] for start in starts]).astype(np.float32)
