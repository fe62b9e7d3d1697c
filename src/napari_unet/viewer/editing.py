"""Corrections of one class of a mask that a hand would take long for, each one step of the layer's own undo history."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.components import keep_largest
from napari_unet.errors import UNetError
from napari_unet.viewer.layers import change
from napari_unet.viewer.screen import slider_for, step_on_screen, to_data


def fill_holes(labels: NDArray[Any], value: int, axis: int | None = None) -> NDArray[Any]:
    """Labels in which background enclosed by `value` is `value`, too: in all dimensions, or within each slice along `axis`."""
    chosen = labels == value
    if axis is None or labels.ndim < 3:
        filled = ndimage.binary_fill_holes(chosen)
    else:
        filled = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(chosen, axis, 0)], axis)
    return np.where(filled & (labels == 0), value, labels).astype(labels.dtype)


def interpolate(labels: NDArray[Any], value: int, axis: int, index: int) -> tuple[NDArray[Any], int, int]:
    """Labels in which `value` is continued between two painted slices on either side of an empty `index`; and their numbers.

    Each slice's signed distance to the class's border is interpolated linearly; inside is where it is negative (Raya and
    Udupa 1990, doi:10.1109/42.52980). Nothing but background is changed. Where `index` itself holds the class, the gap
    that follows it is filled, else the one before. Raises UNetError where there is no gap.
    """
    painted = np.flatnonzero((labels == value).any(axis=tuple(a for a in range(labels.ndim) if a != axis)))
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


def largest(labels: NDArray[Any], value: int) -> NDArray[Any]:
    """Labels of which `value` keeps its largest component only."""
    return keep_largest(labels, [value])


def put(layer: Labels, values: NDArray[Any]) -> int:
    """Make a layer hold these values, as one step of its history; how many voxels change."""
    where = np.nonzero(np.asarray(layer.data) != values)
    if len(where[0]):
        change(layer, where, values[where])
    return len(where[0])


def hidden_axis(viewer: ViewerModel, layer: Labels) -> int | None:
    """The layer's axis that the slider moves along; None in 3-D and for pictures."""
    hidden = [axis - viewer.dims.ndim + layer.ndim for axis in viewer.dims.not_displayed]
    own = [axis for axis in hidden if axis >= layer.ndim - 3 and axis >= 0]
    return own[0] if len(own) == 1 and layer.ndim >= 3 else None


def slice_index(viewer: ViewerModel, layer: Labels, axis: int) -> int:
    """The layer's slice along an axis that the canvas shows."""
    return int(np.clip(np.rint(to_data(viewer, layer)[axis - layer.ndim]), 0, layer.data.shape[axis] - 1))


def show_slice(viewer: ViewerModel, layer: Labels, axis: int, index: int) -> None:
    """Move the slider to a layer's slice."""
    viewer.dims.set_point(viewer.dims.ndim - layer.ndim + axis, slider_for(viewer, layer, axis, index))


def slices_with(labels: NDArray[Any], value: int, axis: int) -> NDArray[np.int_]:
    """The slices along an axis in which a class is."""
    return np.flatnonzero((labels == value).any(axis=tuple(a for a in range(labels.ndim) if a != axis)))


def volume_on_screen(viewer: ViewerModel, layer: Labels) -> tuple[Any, ...]:
    """The index of the three spatial axes of a mask: all of it, or the volume of a series on the screen."""
    return (step_on_screen(viewer, layer),) if layer.ndim == 4 else ()
