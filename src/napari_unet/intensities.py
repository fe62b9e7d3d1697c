"""What a channel's voxels are like as a whole: counted slab by slab, whatever its size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import UNetError
from napari_unet.volume import Volume
from napari_unet.words import counted

SLAB = 1 << 22  # voxels at a time


@dataclass(frozen=True)
class Intensities:
    """The lowest and highest value, how many are NaN or infinite, and mean and standard deviation in single precision."""

    low: float
    high: float
    unusable: int
    mean: float
    std: float

    def without_zeros(self, zeros: int, count: int) -> Intensities:
        """Mean and deviation of what is left where so many of `count` voxels, all of them 0, are left out."""
        rest = max(1, count - zeros)
        mean = self.mean * count / rest
        squares = self.std**2 * count - mean**2 * rest * zeros / count
        return replace(self, mean=mean, std=math.sqrt(max(0.0, squares) / rest))


def slabs(data: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array in parts of its first axis, of some `SLAB` voxels at most."""
    step = max(1, SLAB * len(data) // max(1, data.size))
    for start in range(0, len(data), step):
        yield data[start : start + step]


def intensities(data: NDArray[Any]) -> Intensities:
    """Those of an array (z, y, x); parts are put together after Chan, Golub and LeVeque (1983), with nothing cancelled out."""
    count, unusable, mean, squares, low, high = 0, 0, 0.0, 0.0, math.inf, -math.inf
    for part in slabs(data):
        own = np.asarray(part)
        unusable += int((~np.isfinite(own)).sum()) if own.dtype.kind == "f" else 0
        low, high = min(low, float(own.min())), max(high, float(own.max()))
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused as such
            values = np.array(own, np.float32, order="C")
            centre = float(values.mean(dtype=np.float64))
            apart = float(np.square(values - centre, dtype=np.float64).sum())
        total = count + values.size
        squares += apart + (centre - mean) ** 2 * count * values.size / total
        mean += (centre - mean) * values.size / total
        count = total
    return Intensities(low, high, unusable, mean, math.sqrt(squares / count) if math.isfinite(squares) else math.nan)


def of_channels(image: Volume, turned: NDArray[Any] | None = None) -> list[Intensities]:
    """Those of each channel of an image; in the order of `turned` (z, y, x[, C]), where it is given.

    Raises UNetError for voxels that are no real numbers, not finite or all alike: each would become a clean empty mask.
    """
    if image.data.dtype.kind not in "biuf":
        raise UNetError(image.source, f"voxels of type {image.data.dtype}", "Give real numbers, such as the magnitude")
    data = image.data.swapaxes(0, 2) if turned is None else turned  # files lie in memory that way
    channels = [data[..., index] for index in range(image.channels)] if data.ndim == 4 else [data]
    found = [intensities(channel) for channel in channels]
    if count := sum(of.unusable for of in found):
        raise UNetError(image.source, f"{counted(count, 'voxel')} {'is' if count == 1 else 'are'} NaN or infinite",
                        "Replace them, for example by 0, and save it again")  # fmt: skip
    for index, of in enumerate(found):
        if of.low == of.high:
            raise UNetError(image.source, f"every voxel of channel {index} has the value {of.low:g}: nothing can be seen in it",
                            "Check that the right file was exported")  # fmt: skip
    return found
