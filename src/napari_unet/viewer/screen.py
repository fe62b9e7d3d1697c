"""Between what the viewer shows and a layer's voxels: its sliders' place, and the slice and the volume of a series on the canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray

from napari_unet.viewer.layers import Grid, ScalarLayer


def to_data(viewer: ViewerModel, layer: Any, point: Any = None) -> NDArray[np.float64]:
    """A point of the viewer's world, or where its sliders stand, in a layer's own axes.

    The world is in the smallest unit of all layers, which napari heeds where it slices but not in `world_to_data` (0.9).
    """
    at = np.asarray(viewer.dims.point if point is None else point, float)[-layer.ndim :]
    return np.asarray(layer.world_to_data(at * _in_units_of(layer, viewer)), float)


def to_world(viewer: ViewerModel, layer: Any, point: Any) -> NDArray[np.float64]:
    """The way back."""
    return np.asarray(layer.data_to_world(point), float) / _in_units_of(layer, viewer)


def _in_units_of(layer: Any, viewer: ViewerModel) -> NDArray[np.float64]:
    """How many of a layer's units one of the viewer's is, along each of the layer's axes."""
    units = getattr(viewer.dims, "units", None)  # None where layers have units of different kinds: then these are passed over
    if units is None or len(units) < layer.ndim:
        return np.ones(layer.ndim)
    return np.array([units_in(*pair) for pair in zip(units[-layer.ndim :], layer.units, strict=True)])


def units_in(unit: Any, other: Any) -> float:
    """How many of the other unit one of this unit is; 1 where they are of different kinds."""
    return float((1 * unit).to(other).magnitude) if unit.is_compatible_with(other) else 1.0


def slice_on_screen(viewer: ViewerModel, layer: ScalarLayer, grid: Grid) -> tuple[int, int] | None:
    """The (axis, index) of the volume's own slice on the canvas; None where all of it is shown, or a picture."""
    dims = viewer.dims
    hidden = [axis - dims.ndim + 3 for axis in dims.not_displayed if axis - dims.ndim >= -3]
    if dims.ndisplay != 2 or layer.ndim < 3 or len(hidden) != 1:
        return None
    axis, size = hidden[0], grid.layer_shape[hidden[0]]
    index = int(np.clip(np.rint(to_data(viewer, layer)[axis - 3]), 0, size - 1))
    source = grid.reorientation.axes[axis]
    return source, grid.reorientation.region(axis, index, index + 1, grid.shape)[source].start


def is_on_screen(viewer: ViewerModel, layer: ScalarLayer) -> bool:
    """Whether the sliders stand within a layer's extent along all of its hidden axes."""
    hidden = [axis - viewer.dims.ndim for axis in viewer.dims.not_displayed if axis - viewer.dims.ndim >= -layer.ndim]
    at, size = np.rint(to_data(viewer, layer)), layer.data.shape[: layer.ndim]
    return all(0 <= at[axis] < size[axis] for axis in hidden)


def step_on_screen(viewer: ViewerModel, layer: ScalarLayer) -> int:
    """Which volume of a 4-D layer the canvas shows."""
    if layer.ndim != 4:
        return 0
    return int(np.clip(np.rint(to_data(viewer, layer)[0]), 0, layer.data.shape[0] - 1))
