"""The grid that a layer lies on: a volume's own, and how it is shown.

napari draws straight boxes, so a volume is shown reordered to (I, P, L), which gives radiological axial slices with
positive scales and nothing rotated; a tilted one is shown straightened about its centre. The truth, the volume's own
`Grid`, travels in the layer's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_unet.errors import UNetError
from napari_unet.volume import Affine, Reorientation, spacing_of

ORIENTATION = "IPL"
KEY = "nifti"
_RAS_OF_IPL = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
# layers without a file are (slice, row, column), and volumes made of pictures (row, column, slice)
_PLAIN = Reorientation(axes=(2, 0, 1), flips=(False, False, False))

Kind = Literal["image", "labels"]
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


def grid_of(layer: ScalarLayer, others: Iterable[Any] = ()) -> Grid:
    """The grid that a layer lies on, whoever opened or painted it; `own` where it was opened on it.

    Its own metadata say so, or those of another layer in the same place (napari's "New labels layer" copies the place
    and drops the metadata); else it is made of the layer's transform, whose world is taken as (I, P, L).
    Raises UNetError for layers that are no pictures, volumes, or series of volumes.
    """
    _check_axes(layer)
    own = layer.metadata.get(KEY)
    if isinstance(own, Grid) and own.layer_shape == _spatial_shape(layer):
        copied = layer.source.parent is not None or not has_all_of(layer, own)  # neither was opened from the file
        return replace(own, own=False) if own.own and copied else own
    for other in others:
        grid = other.metadata.get(KEY)
        if isinstance(grid, Grid) and grid.layer_shape == _spatial_shape(layer) == _spatial_shape(other):
            if _in_one_place(world_of(layer), world_of(other)):
                return replace(grid, own=False)
    return _plain_grid(layer)


def is_colour(layer: ScalarLayer) -> bool:
    """Whether the last axis of a layer's data holds colours."""
    return bool(getattr(layer, "rgb", False))


def matrix_of(layer: Any) -> NDArray[np.float64]:
    """From a layer's own axes to its world, in its own units: (n + 1, n + 1)."""
    matrix = np.eye(layer.ndim + 1)
    matrix[:-1, -1] = layer.data_to_world(np.zeros(layer.ndim))
    for axis, direction in enumerate(np.eye(layer.ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(direction)) - matrix[:-1, -1]
    return matrix


def world_of(layer: Any) -> Affine:
    """From a layer's last three (or two) axes to its world in mm; units other than lengths are taken as mm."""
    spatial = min(layer.ndim, 3)
    matrix = matrix_of(layer)[-spatial - 1 :, -spatial - 1 :]
    matrix[:spatial] *= np.array([units_in(unit, "mm") for unit in layer.units[-spatial:]])[:, None]
    return matrix


def units_in(unit: Any, other: Any) -> float:
    """How many of the other unit one of this unit is; 1 where they are of different kinds."""
    return float((1 * unit).to(other).magnitude) if unit.is_compatible_with(other) else 1.0


def _check_axes(layer: ScalarLayer) -> None:
    limit = 3 if is_colour(layer) else 4
    if not 2 <= layer.ndim <= limit:
        raise UNetError(
            f"layer {layer.name!r}", f"it has {layer.ndim} axes", "Give 2 to 4: rows and columns, slices, time"
        )


def _spatial_shape(layer: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in layer.data.shape[: layer.ndim][-3:])


def has_all_of(layer: ScalarLayer, grid: Grid) -> bool:
    """Whether a layer has as many volumes as its file: napari's split, merged and projected ones keep the metadata."""
    volumes = int(np.prod(grid.shape_on_disk[3:])) if len(grid.shape_on_disk) > 3 else 1
    return is_colour(layer) or not grid.shape_on_disk or (int(layer.data.shape[0]) if layer.ndim == 4 else 1) == volumes


def _in_one_place(one: Affine, two: Affine) -> bool:
    """Whether two layers lie on one another, to a thousandth of a voxel or a ten-thousandth of a mm, whichever is less."""
    voxel = float(np.linalg.norm(one[:-1, :-1], axis=0).min())
    return np.allclose(one, two, rtol=1e-5, atol=min(1e-4, 1e-3 * voxel))


def _plain_grid(layer: ScalarLayer) -> Grid:
    """The grid of a layer that no file stands behind."""
    world, (*planes, rows, columns) = world_of(layer), _spatial_shape(layer)
    if not planes:  # rows and columns, as `pictures.read` has them
        affine = np.eye(4)
        affine[:2, :2], affine[:2, 3] = world[:2, :2], world[:2, 2]
        on_disk: tuple[int, ...] = (rows, columns)
    else:
        affine, on_disk = (_RAS_OF_IPL @ world)[:, [*np.argsort(_PLAIN.axes), 3]], ()
    return Grid(
        affine, (rows, columns, planes[0] if planes else 1), _PLAIN, f"layer {layer.name!r}", shape_on_disk=on_disk
    )
