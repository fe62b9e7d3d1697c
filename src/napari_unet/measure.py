"""How much there is of each class in a mask, and whether a class may go on beyond the image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Amount:
    """One class of a mask: its value, its voxels, and whether some lie in the image's outermost slices."""

    value: int
    voxels: int
    at_border: bool


def amounts(labels: NDArray[Any], values: Iterable[int] = ()) -> list[Amount]:
    """What a mask (i, j, k) holds, by ascending value: all of `values`, and whatever else is there; background (0) is left out.

    Along an axis of one voxel, as in a picture, there is no border.
    """
    counts = np.bincount(np.ravel(labels), minlength=1)
    edges = [labels.take((0, -1), axis) for axis in range(labels.ndim) if labels.shape[axis] > 1]
    outermost = {int(value) for edge in edges for value in np.unique(edge)}
    found = {int(value) for value in np.flatnonzero(counts)} | set(values)
    return [
        Amount(value, int(counts[value]) if value < len(counts) else 0, value in outermost) for value in sorted(found - {0})
    ]
