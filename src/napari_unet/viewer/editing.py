"""Corrections of one class of a mask that a hand would take long for, each one step of the layer's own undo history."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.errors import UNetError
from napari_unet.viewer.layers import change


def fill_holes(labels: NDArray[Any], value: int) -> NDArray[Any]:
    """Labels in which background enclosed by `value` is `value`, too."""
    filled = ndimage.binary_fill_holes(labels == value)
    return np.where(filled & (labels == 0), value, labels).astype(labels.dtype)


def interpolate(labels: NDArray[Any], value: int, axis: int, index: int) -> tuple[NDArray[Any], int, int]:
    """Labels in which `value` is continued between two painted slices on either side of an empty `index`; and their numbers.

    Each slice's signed distance to the class's border is interpolated linearly; inside is where it is negative (Raya and
    Udupa 1990, doi:10.1109/42.52980). Nothing but background is changed. Where `index` itself holds the class, the gap
    that follows it is filled, else the one before. Raises UNetError where there is no gap.
    """
    painted = slices_with(labels, value, axis)
    low, high = _gap(painted, index)
    if high - low < 2:
        raise UNetError(f"class {value}", "it has no two painted slices with empty ones between them, here",
                        "Paint it in two slices along this direction, and go to one between them")  # fmt: skip
    planes = np.moveaxis(labels, axis, 0).copy()
    ends = [_signed_distance(planes[number] == value) for number in (low, high)]
    for number in range(low + 1, high):
        share = (number - low) / (high - low)
        inside = (1 - share) * ends[0] + share * ends[1] < 0
        planes[number][inside & (planes[number] == 0)] = value
    return np.moveaxis(planes, 0, axis), low, high


def _gap(painted: NDArray[np.int_], index: int) -> tuple[int, int]:
    """The two painted slices around `index`, or those that enclose the nearest gap where it is painted itself."""
    before, after = painted[painted < index], painted[painted > index]
    if index in painted:
        if len(after) and after[0] > index + 1:
            return index, int(after[0])
        return (int(before[-1]), index) if len(before) else (0, 0)
    return (int(before[-1]), int(after[0])) if len(before) and len(after) else (0, 0)


def _signed_distance(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pixels to the border, which runs between pixels; negative inside."""
    outside = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    return np.asarray(outside + np.where(inside, 0.5, -0.5))


def slices_with(labels: NDArray[Any], value: int, axis: int) -> NDArray[np.int_]:
    """The slices along an axis in which a class is."""
    return np.flatnonzero((labels == value).any(axis=tuple(a for a in range(labels.ndim) if a != axis)))


def put(layer: Labels, values: NDArray[Any]) -> int:
    """Make a layer hold these values, as one step of its history; how many voxels change."""
    where = np.nonzero(np.asarray(layer.data) != values)
    if len(where[0]):
        change(layer, where, values[where])
    return len(where[0])
