"""Volume <-> napari layer, without loss.

napari draws straight boxes, so a volume is shown reordered to (I, P, L), which gives radiological axial slices with
positive scales and nothing rotated; a tilted one is shown straightened about its centre. The truth, the volume's own
`Grid`, travels in the layer's metadata, and every array below is a view: what is painted is painted into the volume.
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal, TypeAlias

import dask.array
import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_unet.errors import UNetError
from napari_unet.nifti import header_of
from napari_unet.suffixes import stem
from napari_unet.volume import Affine, Reorientation, Volume, spacing_of, tilt_degrees

ORIENTATION = "IPL"
KEY = "nifti"
TILT_WORTH_A_NOTE = 1.0  # degrees
_TIME_UNITS = {8: "s", 16: "ms", 24: "us"}  # xyzt_units; a fourth axis without a unit may as well be channels
_RAS_OF_IPL = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
# layers without a file are (slice, row, column), and volumes made of pictures (row, column, slice)
_PLAIN = Reorientation(axes=(2, 0, 1), flips=(False, False, False))
_NUMBERS: dict[int, tuple[Callable[[], Any], int]] = {}  # of arrays, by their `id`
_COUNT = count()

Kind = Literal["image", "labels"]
LayerData = tuple[NDArray[Any], dict[str, Any], str]
ScalarLayer: TypeAlias = Image | Labels


@dataclass(frozen=True, eq=False)
class Grid:
    """A volume's own grid, and how a layer shows it.

    Attributes
    ----------
    affine, header, source, shape_on_disk : the volume's; `source` is the file, or the layer's name where there is none.
    shape : (i, j, k).
    reorientation : leads from (i, j, k) to the layer's last three axes.
    kind : what `source` is; "" where it is no file.
    own : whether the layer was opened from `source`; a mask that only lies on the grid was not.
    """

    affine: Affine
    shape: tuple[int, int, int]
    reorientation: Reorientation
    source: str
    kind: Kind | Literal[""] = ""
    header: Any = None
    shape_on_disk: tuple[int, ...] = ()
    own: bool = False

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """The spatial shape of a layer on this grid."""
        return tuple(self.shape[axis] for axis in self.reorientation.axes)

    def shown(self, data: NDArray[Any], colours: bool = False) -> NDArray[Any]:
        """A view of (i, j, k) or (i, j, k, channel) in the layer's order; channels lead, colours stay behind."""
        view = self.reorientation.apply(data)
        return np.moveaxis(view, 3, 0) if view.ndim == 4 and not colours else view

    def stored(self, data: NDArray[Any], colours: bool = False) -> NDArray[Any]:
        """A view of a layer's data in the volume's order, (i, j, k) or (i, j, k, channel): the inverse of `shown`."""
        spatial = data.ndim - colours
        if spatial == 2:  # a picture is one slice
            data, spatial = data[None], 3
        if spatial == 4:
            data = np.moveaxis(data, 0, 3)
        return self.reorientation.undo(data)

    def shown_region(self, region: tuple[slice, ...], ndim: int = 3, step: int = 0) -> tuple[slice, ...]:
        """Where a region of (i, j, k) lies in a mask of `ndim` axes on this grid; in one of four axes, at a step of the series."""
        where = []
        for axis, flip in zip(self.reorientation.axes, self.reorientation.flips, strict=True):
            start, stop, _ = region[axis].indices(self.shape[axis])
            where.append(slice(self.shape[axis] - stop, self.shape[axis] - start) if flip else slice(start, stop))
        return (slice(step, step + 1), *where) if ndim == 4 else tuple(where[-ndim:])

    def voxel_of(self, index: tuple[int, ...]) -> tuple[int, int, int]:
        """A voxel of the layer's last three axes -> (i, j, k)."""
        voxel = [0, 0, 0]
        for at, axis, flip in zip(index, self.reorientation.axes, self.reorientation.flips, strict=True):
            voxel[axis] = self.shape[axis] - 1 - at if flip else at
        return voxel[0], voxel[1], voxel[2]

    def placement(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`scale` and `translate` in mm along (I, P, L) that keep the volume's centre where it is."""
        affine = self.reorientation.affine(self.affine, self.shape)
        scale, middle = np.array(spacing_of(affine)), (np.array(self.layer_shape) - 1) / 2
        centre = _RAS_OF_IPL[:3, :3].T @ (affine[:3, :3] @ middle + affine[:3, 3])
        return scale, centre - scale * middle


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


def grid_of(layer: ScalarLayer, others: Iterable[Any] = ()) -> Grid:
    """The grid that a layer lies on, whoever opened or painted it; `own` where it was opened on it.

    Its own metadata say so, or those of another layer in the same place (napari's "New labels layer" copies the place
    and drops the metadata); else it is made of the layer's transform, whose world is taken as (I, P, L).
    Raises UNetError for layers that are no pictures, volumes, or series of volumes.
    """
    _check_axes(layer)
    own = layer.metadata.get(KEY)
    if isinstance(own, Grid) and own.layer_shape == _spatial_shape(layer):
        return replace(own, own=False) if own.own and layer.source.parent is not None else own  # a duplicate was opened from nothing
    for other in others:
        grid = other.metadata.get(KEY)
        if isinstance(grid, Grid) and grid.layer_shape == _spatial_shape(layer) == _spatial_shape(other):
            if np.allclose(_world(layer), _world(other), rtol=1e-5, atol=1e-4):
                return replace(grid, own=False)
    return _plain_grid(layer)


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


def is_colour(layer: ScalarLayer) -> bool:
    """Whether the last axis of a layer's data holds colours."""
    return bool(getattr(layer, "rgb", False))


def values_of(layer: Any) -> Any:
    """A layer's values, as large as they come: of a multiscale layer the finest level, where its `data` would be the coarsest."""
    return layer.data[0] if layer.multiscale else layer.data


def is_at_hand(layer: Any) -> bool:
    """Whether a layer's values lie in memory, at full size: not those of a pyramid, nor what is read when it is looked at."""
    return not layer.multiscale and isinstance(layer.data, np.ndarray)


def is_picture(layer: ScalarLayer) -> bool:
    """Whether a layer is a single 2-D picture."""
    return bool(layer.ndim == 2)


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


def place_of(layer: Any) -> str:
    """What is another where a layer's voxels lie elsewhere, are others in number, or were replaced by other data."""
    return f"{tuple(layer.data.shape)} {zlib.crc32(_world(layer).tobytes()):08x} {_number_of(values_of(layer))}"


def _number_of(data: Any) -> int:
    """One for each array, as long as it lives: an `id` is given again."""
    known = _NUMBERS.get(id(data))
    if known is None or known[0]() is not data:
        known = _NUMBERS[id(data)] = _reference(data), next(_COUNT)
    return known[1]


def _reference(data: Any) -> Callable[[], Any]:
    key = id(data)
    try:
        return weakref.ref(data, lambda _: _NUMBERS.pop(key, None))
    except TypeError:  # it knows no weak references: it is lazy, and small
        return lambda: data


def matrix_of(layer: Any) -> NDArray[np.float64]:
    """From a layer's own axes to its world, in its own units: (n + 1, n + 1)."""
    matrix = np.eye(layer.ndim + 1)
    matrix[:-1, -1] = layer.data_to_world(np.zeros(layer.ndim))
    for axis, direction in enumerate(np.eye(layer.ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(direction)) - matrix[:-1, -1]
    return matrix


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


def _shear(layer: Any) -> NDArray[np.float64]:
    """A layer's shear as a matrix; napari gives what is above the diagonal, where there is nothing below."""
    shear = np.asarray(layer.shear, float)
    if shear.ndim == 2:
        return shear
    matrix = np.eye(layer.ndim)
    matrix[np.triu_indices(layer.ndim, 1)] = shear
    return matrix


def _check_axes(layer: ScalarLayer) -> None:
    limit = 3 if is_colour(layer) else 4
    if not 2 <= layer.ndim <= limit:
        raise UNetError(
            f"layer {layer.name!r}", f"it has {layer.ndim} axes", "Give 2 to 4: rows and columns, slices, time"
        )


def _spatial_shape(layer: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in layer.data.shape[: layer.ndim][-3:])


def _world(layer: Any) -> Affine:
    """From a layer's last three (or two) axes to its world in mm, as a matrix; units other than lengths are taken as mm."""
    spatial = min(layer.ndim, 3)
    corners = np.vstack([np.zeros(layer.ndim), np.eye(layer.ndim)[-spatial:]])
    points = np.array([layer.data_to_world(corner)[-spatial:] for corner in corners])
    matrix = np.eye(spatial + 1)
    matrix[:spatial, spatial] = points[0]
    matrix[:spatial, :spatial] = (points[1:] - points[0]).T
    matrix[:spatial] *= np.array([_millimetres(unit) for unit in layer.units[-spatial:]])[:, None]
    return matrix


def _millimetres(unit: Any) -> float:
    return float((1 * unit).to("mm").magnitude) if unit.is_compatible_with("mm") else 1.0


def _plain_grid(layer: ScalarLayer) -> Grid:
    """The grid of a layer that no file stands behind."""
    world, (*planes, rows, columns) = _world(layer), _spatial_shape(layer)
    if not planes:  # rows and columns, as `pictures.read` has them
        affine = np.eye(4)
        affine[:2, :2], affine[:2, 3] = world[:2, :2], world[:2, 2]
        on_disk: tuple[int, ...] = (rows, columns)
    else:
        affine, on_disk = (_RAS_OF_IPL @ world)[:, [*np.argsort(_PLAIN.axes), 3]], ()
    return Grid(
        affine, (rows, columns, planes[0] if planes else 1), _PLAIN, f"layer {layer.name!r}", shape_on_disk=on_disk
    )
