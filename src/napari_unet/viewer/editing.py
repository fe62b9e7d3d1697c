"""Corrections of one class of a mask that a hand would take long for, each one step of the layer's own undo history."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.errors import UNetError
from napari_unet.viewer.layers import change, indices


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
    low, high = gap(labels, value, axis, index)
    planes = np.moveaxis(labels, axis, 0).copy()
    ends = [_signed_distance(planes[number] == value) for number in (low, high)]
    for number in range(low + 1, high):
        share = (number - low) / (high - low)
        inside = (1 - share) * ends[0] + share * ends[1] < 0
        planes[number][inside & (planes[number] == 0)] = value
    return np.moveaxis(planes, 0, axis), low, high


def gap(labels: NDArray[Any], value: int, axis: int, index: int) -> tuple[int, int]:
    """The two slices between which `interpolate` continues a class. Raises UNetError where there are none."""
    low, high = _gap(slices_with(labels, value, axis), index)
    if high - low < 2:
        raise UNetError(f"class {value}", "it has no two painted slices with empty ones between them, here",
                        "Paint it in two slices along this direction, and go to one between them")  # fmt: skip
    return low, high


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


class Difference(NamedTuple):
    """Voxels of a mask that are to be others: where they lie in it, what they were, and what they are to be."""

    where: tuple[NDArray[np.int_], ...]
    old: NDArray[Any]
    new: NDArray[Any]


def difference(old: NDArray[Any], new: NDArray[Any], region: tuple[Any, ...] = ()) -> Difference:
    """Between two states of a region (slices, and numbers for single ones) of a mask; () is all of it."""
    inside = indices(np.asarray(old != new))
    region = (*region, *(slice(None),) * (len(inside) + sum(isinstance(part, int) for part in region) - len(region)))
    axes = iter(inside)
    where = (np.full(len(inside[0]), part) if isinstance(part, int) else next(axes) + (part.start or 0) for part in region)
    return Difference(tuple(where), old[inside], new[inside])


def apply(layer: Labels, found: Difference) -> int:
    """Make a difference, as one step of the layer's history, where nothing has come in between; how many voxels change."""
    as_they_were = np.asarray(layer.data[found.where] == found.old)
    where = tuple(axis[as_they_were] for axis in found.where)
    if len(where[0]):
        change(layer, where, found.new[as_they_were])
    return len(where[0])


def put(layer: Labels, values: NDArray[Any]) -> int:
    """Make a layer hold these values, as one step of its history; how many voxels change."""
    return apply(layer, difference(np.asarray(layer.data), values))
