"""Between what the viewer shows and a layer's voxels: its sliders' place, and the slice and the volume of a series on the canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray

from napari_unet.viewer.grids import Grid, ScalarLayer, matrix_of, units_in

CERTAIN = 1e6  # condition; of a layer that is turned by a right angle the slider shows one slice wherever it stands


def to_data(viewer: ViewerModel, layer: Any, point: Any = None) -> NDArray[np.float64]:
    """A point of the viewer's world, or the slices that its sliders show, in a layer's own axes.

    The world is in the smallest unit of all layers, which napari heeds where it slices but not in `world_to_data` (0.9). Of a
    layer that is turned out of its slices, napari draws those whose place along the hidden axes alone is the sliders'.
    """
    at = np.asarray(viewer.dims.point if point is None else point, float)[-layer.ndim :] * _in_units_of(layer, viewer)
    data = np.asarray(layer.world_to_data(at), float)
    if point is None:
        hidden = _hidden(viewer, layer)
        if hidden:  # by napari's own arithmetic: half-way between two slices, the last bit decides which of them is drawn
            data[hidden] = layer._data_to_world.inverse.set_slice(hidden)(at[hidden])
    return data


def _slider_for(viewer: ViewerModel, layer: Any, axis: int, index: int) -> float:
    """Where the slider along a layer's axis shows that slice of it."""
    hidden, inverse, data = _hidden(viewer, layer), np.linalg.inv(matrix_of(layer)), to_data(viewer, layer)
    data[axis] = index
    at, alone = np.asarray(layer.data_to_world(data), float), inverse[np.ix_(hidden, hidden)]
    if axis in hidden and np.linalg.cond(alone) < CERTAIN:
        at[hidden] = np.linalg.solve(alone, data[hidden] - inverse[hidden, -1])
    return float((at / _in_units_of(layer, viewer))[axis])


def _hidden(viewer: ViewerModel, layer: Any) -> list[int]:
    """The layer's axes that sliders move along."""
    axes = (axis - viewer.dims.ndim + layer.ndim for axis in viewer.dims.not_displayed)
    return [axis for axis in axes if axis >= 0]


def _in_units_of(layer: Any, viewer: ViewerModel) -> NDArray[np.float64]:
    """How many of a layer's units one of the viewer's is, along each of the layer's axes."""
    units = getattr(viewer.dims, "units", None)  # None where layers have units of different kinds: then these are passed over
    if units is None or len(units) < layer.ndim:
        return np.ones(layer.ndim)
    return np.array([units_in(*pair) for pair in zip(units[-layer.ndim :], layer.units, strict=True)])


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
    at, size = np.rint(to_data(viewer, layer)), layer.data.shape[: layer.ndim]
    return all(0 <= at[axis] < size[axis] for axis in _hidden(viewer, layer))


def step_on_screen(viewer: ViewerModel, layer: ScalarLayer) -> int:
    """Which volume of a 4-D layer the canvas shows."""
    if layer.ndim != 4:
        return 0
    return int(np.clip(np.rint(to_data(viewer, layer)[0]), 0, layer.data.shape[0] - 1))


def volume_on_screen(viewer: ViewerModel, layer: ScalarLayer) -> tuple[Any, ...]:
    """The index of a mask's three spatial axes: all of it, or the volume of a series on the screen."""
    return (step_on_screen(viewer, layer),) if layer.ndim == 4 else ()


def hidden_axis(viewer: ViewerModel, layer: ScalarLayer) -> int | None:
    """The layer's axis that the slider moves along; None in 3-D and for pictures."""
    own = [axis for axis in _hidden(viewer, layer) if axis >= layer.ndim - 3]
    return own[0] if len(own) == 1 and layer.ndim >= 3 else None


def slice_index(viewer: ViewerModel, layer: ScalarLayer, axis: int) -> int:
    """The layer's slice along an axis that the canvas shows."""
    return int(np.clip(np.rint(to_data(viewer, layer)[axis - layer.ndim]), 0, layer.data.shape[axis] - 1))


def show_slice(viewer: ViewerModel, layer: ScalarLayer, axis: int, index: int) -> None:
    """Move the slider to a layer's slice."""
    viewer.dims.set_point(viewer.dims.ndim - layer.ndim + axis, _slider_for(viewer, layer, axis, index))
