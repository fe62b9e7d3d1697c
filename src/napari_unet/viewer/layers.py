"""Volume <-> napari layer, without loss; every array below is a view: what is painted is painted into the volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import dask.array
import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_unet.nifti import header_of
from napari_unet.suffixes import is_picture as is_picture_file
from napari_unet.suffixes import stem
from napari_unet.viewer.grids import KEY, ORIENTATION, Grid, Kind, ScalarLayer, grid_of, is_colour, matrix_of
from napari_unet.volume import Reorientation, Volume, spacing_of, tilt_degrees
from napari_unet.zarrs import Layout

TILT_WORTH_A_NOTE = 1.0  # degrees
_TIME_UNITS = {8: "s", 16: "ms", 24: "us"}  # xyzt_units; a fourth axis without a unit may as well be channels

LayerData = tuple[NDArray[Any], dict[str, Any], str]


def to_layer(volume: Volume, kind: Kind = "image") -> LayerData:
    """A volume as napari layer data: a view of its voxels, and all that is needed to find the way back."""
    grid = Grid(volume.affine, volume.shape, Reorientation.between(volume.affine, ORIENTATION), volume.source, kind,
                volume.header, volume.shape_on_disk, own=True)  # fmt: skip
    # a colour is not an axis of the file; channels and time are
    colours = volume.data.ndim == 4 and len(volume.shape_on_disk) in (2, 3)
    data = grid.shown(volume.data, colours)
    scale, translate = grid.placement()
    lead, header = data.ndim - colours - 3, header_of(volume)
    options: dict[str, Any] = {
        "name": stem(volume.source),
        "scale": (*_step(header)[:lead], *scale),
        "translate": (*(0.0,) * lead, *translate),
        "units": (*_step_unit(header)[:lead], "mm", "mm", "mm"),
        "axis_labels": (*"t"[:lead], *ORIENTATION),
        "metadata": {KEY: grid},
    }
    if kind == "image":
        options["rgb"] = colours
    return data, options, kind


def _step(header: Any) -> tuple[float]:
    """The time between two volumes of a 4-D file; 1 where the header has none."""
    step = 0.0 if header is None else float(header["pixdim"][4])
    return (step if np.isfinite(step) and step > 0 else 1.0,)


def _step_unit(header: Any) -> tuple[str]:
    return (_TIME_UNITS.get(0 if header is None else int(header["xyzt_units"]) & 56, "pixel"),)


def notes_on(volume: Volume) -> list[str]:
    """What a careful reader would like to know of a volume on the screen, one sentence each."""
    tilt = tilt_degrees(volume.affine)
    if tilt <= TILT_WORTH_A_NOTE:
        return list(volume.notes)
    return [*volume.notes, f"tilted by {tilt:.0f}°: shown straightened, while masks are saved on its own tilted grid"]


def volume_of(layer: ScalarLayer, others: Iterable[Any] = (), pictures: bool = False, lazy: bool = False) -> Volume:
    """A layer's voxels on their own grid, as `images.read` gives them for the layer's file.

    With `pictures`, a stack without a file is one of pictures: rows, columns and slices have no directions in a body. With `lazy`,
    voxels that are not in memory (dask's, zarr's, HDF5's) are not read.
    """
    grid = grid_of(layer, others)
    if pictures and not grid.kind:
        grid = replace(grid, affine=np.diag((*spacing_of(grid.affine), 1.0)))
    data = values_of(layer)
    if lazy and not isinstance(data, np.ndarray):
        data = dask.array.asarray(data)
    else:
        data = np.asarray(data)
    colours = is_colour(layer)
    if colours and not grid.header and data.shape[-1] == 4:
        data = data[..., :3]  # the fourth is transparency
    return Volume(grid.stored(data, colours), grid.affine, grid.header, grid.source, shape_on_disk=grid.shape_on_disk)


def values_of(layer: Any) -> Any:
    """A layer's values, as large as they come: of a multiscale layer the finest level, where its `data` would be the coarsest."""
    return layer.data[0] if layer.multiscale else layer.data


def is_at_hand(layer: Any) -> bool:
    """Whether a layer's values lie in memory, at full size: not those of a pyramid, nor what is read when it is looked at."""
    return not layer.multiscale and isinstance(layer.data, np.ndarray)


def is_in_memory(layer: Any) -> bool:
    """The same, but those of a file that is mapped: what may be looked through, or copied, without being asked for."""
    return is_at_hand(layer) and not isinstance(layer.data, np.memmap)


def is_picture(layer: ScalarLayer) -> bool:
    """Whether a layer is a single 2-D picture."""
    return bool(layer.ndim == 2)


def has_size(layer: ScalarLayer, grid: Grid) -> bool:
    """Whether a layer's voxels have one in mm: its grid's file says so, which a picture's does not, or else its units are lengths."""
    if grid.kind:
        picture = is_picture_file(grid.source) or (isinstance(grid.header, Layout) and grid.header.flat)
        return bool(layer.ndim > 2 and not picture)
    return bool(layer.ndim > 2 and all(unit.is_compatible_with("mm") for unit in layer.units[-3:]))


def channels_of(layer: ScalarLayer) -> int:
    """The channels, colours or time points of a layer."""
    if is_colour(layer):
        return 3
    return int(layer.data.shape[0]) if layer.ndim == 4 else 1


def new_labels(layer: ScalarLayer, grid: Grid, values: NDArray[Any], name: str, **options: Any) -> Labels:
    """A mask in a layer's place and on its grid; `values` has the layer's spatial shape, or that of its whole series."""
    return Labels(values, name=name, **_place(layer, grid, values.ndim), **options)


def new_image(layer: ScalarLayer, grid: Grid, values: NDArray[Any], name: str, **options: Any) -> Image:
    """The same for values that are no classes."""
    return Image(values, name=name, **_place(layer, grid, values.ndim), **options)


def _place(layer: ScalarLayer, grid: Grid, ndim: int) -> dict[str, Any]:
    return transforms(layer, ndim) | {"metadata": {KEY: replace(grid, own=False)}}


def transforms(layer: Any, ndim: int) -> dict[str, Any]:
    """Where a layer's last axes lie, as options of another one that has as many."""
    return {
        "scale": layer.scale[-ndim:],
        "translate": layer.translate[-ndim:],
        "rotate": layer.rotate[-ndim:, -ndim:],
        "shear": _shear(layer)[-ndim:, -ndim:],
        "units": layer.units[-ndim:],
        "axis_labels": layer.axis_labels[-ndim:],
        "affine": layer.affine.affine_matrix[-ndim - 1 :, -ndim - 1 :],
    }


def change(layer: Labels, where: tuple[NDArray[Any], ...], values: NDArray[Any], refresh: bool = True) -> None:
    """Give some voxels other values, as a step of the layer's own history.

    napari's `data_setitem` takes the slice on the screen of a layer that is turned for another one, and writes into both.
    """
    linear = matrix_of(layer)[:-1, :-1]
    if np.allclose(linear, np.diag(np.diag(linear)), atol=1e-9 * np.abs(linear).max()):
        return layer.data_setitem(where, values, refresh=refresh)
    differs = layer.data[where] != values
    where, values = tuple(axis[differs] for axis in where), values[differs]
    if len(values):
        layer._save_history((where, layer.data[where], values))
        layer.data[where] = values
        if refresh:
            layer.refresh()


def indices(changed: NDArray[np.bool_]) -> tuple[NDArray[np.int_], ...]:
    """numpy's `nonzero`, in a tenth of the time where little has changed: no further planes are looked through voxel by voxel."""
    planes = np.flatnonzero(changed.reshape(len(changed), -1).any(axis=1)) if changed.ndim > 1 else np.zeros(0)
    if not len(planes):
        return np.nonzero(changed)
    first, *others = np.nonzero(changed[planes[0] : planes[-1] + 1])
    return first + planes[0], *others


def _shear(layer: Any) -> NDArray[np.float64]:
    """A layer's shear as a matrix; napari gives what is above the diagonal, where there is nothing below."""
    shear = np.asarray(layer.shear, float)
    if shear.ndim == 2:
        return shear
    matrix = np.eye(layer.ndim)
    matrix[np.triu_indices(layer.ndim, 1)] = shear
    return matrix
