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
    counts = np.zeros(1, np.int64)
    for part in labels:  # counting turns values into 8 bytes each
        found = np.bincount(part.ravel(), minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    outermost = set().union(*touched(labels).values())
    there = {int(value) for value in np.flatnonzero(counts)} | set(values)
    return [
        Amount(value, int(counts[value]) if value < len(counts) else 0, value in outermost) for value in sorted(there - {0})
    ]


def touched(labels: NDArray[Any]) -> dict[tuple[int, int], set[int]]:
    """The values in each outermost slice of a mask (i, j, k), by (axis, 0 for the first or -1 for the last)."""
    return {(axis, end): set(np.unique(labels.take(end, axis)).tolist())
            for axis in range(labels.ndim) if labels.shape[axis] > 1 for end in (0, -1)}  # fmt: skip
