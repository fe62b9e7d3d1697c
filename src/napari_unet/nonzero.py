"""Where an image is not 0 in some channel: the box that nnU-Net crops to, and the mask that some of its models are normalised by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.intensities import SLAB
from napari_unet.ram import check_memory

Box = tuple[slice, slice, slice]


def nonzero_box(data: NDArray[Any]) -> Box:
    """The smallest box of (z, y, x, C) outside of which all is 0; the whole of an array that is nothing but 0.

    It is looked at from both ends of z inwards, and no farther than something outside the box could still be found.
    """
    seen = [np.zeros(n, bool) for n in data.shape[:3]]
    for part, rest in _from_both_ends(data):
        found = (np.asarray(data[part]) != 0).any(-1)
        for axis, profile in enumerate(seen):
            own = part if axis == 0 else slice(None)
            profile[own] |= found.any(tuple(a for a in range(3) if a != axis))
        across = all(profile[0] and profile[-1] for profile in seen[1:])
        if across and seen[0][: rest.start].any() and seen[0][rest.stop :].any():
            break
    z, y, x = (_span(profile) for profile in seen)
    return z, y, x


def _from_both_ends(data: NDArray[Any]) -> Iterator[tuple[slice, slice]]:
    """Slabs of z, the first, the last, the second, ...; and what lies between those that have been given away."""
    step, begin, end = max(1, SLAB * len(data) // max(1, data.size)), 0, len(data)
    while begin < end:
        first = slice(begin, min(begin + step, end))
        begin = first.stop
        yield first, slice(begin, end)
        if begin < end:
            last = slice(max(begin, end - step), end)
            end = last.start
            yield last, slice(begin, end)


def _span(profile: NDArray[np.bool_]) -> slice:
    """From the first that is so to the last."""
    where = np.flatnonzero(profile)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, len(profile))


def nonzero_mask(data: NDArray[Any], source: str | Path) -> NDArray[np.bool_]:
    """Where (z, y, x, C) is not 0 in some channel, holes filled, as (z, y, x). Raises UNetError where memory does not suffice."""
    z, y, x, _ = data.shape
    check_memory(3 * z * y * x, source)  # the mask, and what filling it takes
    mask = np.zeros((z, y, x), bool)
    for part, _ in _from_both_ends(data):
        mask[part] = (np.asarray(data[part]) != 0).any(-1)
    return np.asarray(ndimage.binary_fill_holes(mask), bool)
