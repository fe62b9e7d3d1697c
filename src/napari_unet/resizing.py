"""Resampling as nnU-Net does it: cubic splines over a whole image, voxels' edges on one another, coarse slices kept apart.

After `resample_data_or_seg` of nnU-Net 2 (Isensee et al. 2021), whose arithmetic is that of skimage.transform.resize.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.windows import Three

ANISOTROPIC = 3.0  # a spacing over the smallest one, from which on slices are not interpolated between
EDGE = 24  # voxels that splines are continued by, on both sides together


def coarse_axis(now: Sequence[float], then: Sequence[float]) -> int | None:
    """The axis along which the nearest slice is taken, from one spacing to another: the coarse one of anisotropic voxels, if it is one."""
    for spacing in (now, then):
        if max(spacing) / min(spacing) > ANISOTROPIC:
            coarse = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return coarse[0] if len(coarse) == 1 else None
    return None


def nearest(size: int, available: int) -> NDArray[np.int64]:
    """For each of `size` voxels along an axis, the nearest of `available` ones that take up the same length."""
    position = np.clip(available / size * (np.arange(size) + 0.5) - 0.5, 0, available - 1)
    return np.asarray(np.floor(position + 0.5), np.int64)


def resized(image: NDArray[np.float32], size: Three, coarse: int | None) -> NDArray[np.float32]:
    """An image (C, z, y, x) at another size, each channel within its own range; slices along `coarse` are resized one by one."""
    found = np.empty((len(image), *size), np.float32)
    for channel, values in zip(found, image, strict=True):
        if coarse is None:
            channel[...] = _cubic(values, size)
        else:
            plane = [n for axis, n in enumerate(size) if axis != coarse]
            slices = np.stack([_cubic(each, plane) for each in np.moveaxis(values, coarse, 0)])
            channel[...] = np.moveaxis(slices[nearest(size[coarse], len(slices))], 0, coarse)
    return found


def _cubic(values: NDArray[np.float32], size: Sequence[int]) -> NDArray[np.float64]:
    factors = [new / old for new, old in zip(size, values.shape, strict=True)]
    found = ndimage.zoom(values.astype(np.float64), factors, order=3, mode="nearest", grid_mode=True)
    return np.asarray(np.clip(found, values.min(), values.max()))


def memory_for(channels: int, shape: Sequence[int], size: Sequence[int]) -> int:
    """Bytes that `resized` takes, the image and its answer included."""
    old, new = math.prod(shape), math.prod(size)
    return 4 * channels * (old + new) + 8 * (old + 2 * math.prod(n + EDGE for n in shape) + 2 * new)
