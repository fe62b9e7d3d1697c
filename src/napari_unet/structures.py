"""What the structures in a mask are like: where they lie, how thick they are, whether the image's edge may cut them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_unet.partial import labelled


def centroid(inside: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The centre of what is inside (z, y, x), as a share of the extent along each axis."""
    centre = []
    for axis, size in enumerate(inside.shape):
        profile = inside.sum(axis=tuple(a for a in range(3) if a != axis))
        centre.append(float((profile * np.arange(size)).sum() / profile.sum() / max(size - 1, 1)))
    return centre[0], centre[1], centre[2]


def thickness(mask: NDArray[np.generic], value: int, spacing: Sequence[float]) -> float:
    """Twice the volume of a class over its surface, in the units of `spacing`: of a wide sheet, how thick it is.

    The surface is counted in faces of voxels of a mask (z, y, x). Where the image ends, or labels do (`partial.UNLABELLED`),
    there is none: the structure may go on. Infinite without a surface.
    """
    inside, known = mask == value, labelled(mask)
    faces = 0.0  # their area, over the volume of a voxel
    for axis, length in enumerate(spacing):
        before, after = (tuple(part if a == axis else slice(None) for a in range(3)) for part in (slice(-1), slice(1, None)))
        faces += np.count_nonzero((inside[before] != inside[after]) & known[before] & known[after]) / length
    return 2 * np.count_nonzero(inside) / faces if faces else float("inf")


def at_border(mask: NDArray[np.generic]) -> tuple[int, ...]:
    """Values on the outermost voxels, along axes of more than one slice."""
    faces = [mask.take((0, -1), axis) for axis in range(3) if mask.shape[axis] > 1]
    return tuple(sorted({int(value) for face in faces for value in np.unique(face) if value > 0}))
