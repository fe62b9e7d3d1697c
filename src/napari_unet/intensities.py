"""What a channel's voxels are like as a whole: counted slab by slab, whatever its size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLAB = 1 << 22  # voxels at a time


@dataclass(frozen=True)
class Intensities:
    """Of the voxels in single precision: the lowest, the highest, the mean and the standard deviation."""

    low: float
    high: float
    mean: float
    std: float


def slabs(data: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array in parts of its first axis, of some `SLAB` voxels at most."""
    step = max(1, SLAB * len(data) // max(1, data.size))
    for start in range(0, len(data), step):
        yield data[start : start + step]


def intensities(data: NDArray[Any]) -> Intensities:
    """Those of an array (z, y, x); parts are put together after Chan, Golub and LeVeque (1983), with nothing cancelled out."""
    count, mean, squares, low, high = 0, 0.0, 0.0, math.inf, -math.inf
    for part in slabs(data):
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused as such
            values = np.array(part, np.float32, order="C")
            own = float(values.mean(dtype=np.float64))
            apart = float(np.square(values - own, dtype=np.float64).sum())
        total = count + values.size
        squares += apart + (own - mean) ** 2 * count * values.size / total
        mean += (own - mean) * values.size / total
        count, low, high = total, min(low, float(values.min())), max(high, float(values.max()))
    return Intensities(low, high, mean, math.sqrt(squares / count))
