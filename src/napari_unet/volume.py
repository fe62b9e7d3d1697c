"""Voxels and where they are. The one place that knows axes, orientations and grids.

An affine is a (4, 4) matrix from voxel index to RAS+ mm: x grows to the patient's right, y to the front, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation
from numpy.typing import NDArray

from napari_unet.errors import UNetError

Affine = NDArray[np.float64]
GRID_TOLERANCE_MM = 0.1
FARTHEST_MM = 1e9
OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))  # the direction that runs against each


@dataclass(frozen=True)
class Reorientation:
    """A lossless change of axis order and direction: target axis t runs along source axis axes[t], backwards if flips[t]."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def between(cls, affine: Affine, orientation: str) -> Reorientation:
        """The one that lets target axis t run nearest to the direction orientation[t] ("SAR": up, front, right).

        Of "kji" and its like, target axis t is the source's own axis orientation[t], as it is stored.
        """
        if orientation.islower():
            t, u, v = ("ijk".index(letter) for letter in orientation)
            return cls((t, u, v), (False, False, False))
        source = io_orientation(affine)  # rows: nearest world axis and its sign, per voxel axis
        target = axcodes2ornt(tuple(orientation))
        axes, flips = [], []
        for world, sign in target:
            axis = int(np.flatnonzero(source[:, 0] == world)[0])
            axes.append(axis)
            flips.append(bool(source[axis, 1] != sign))
        return cls((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    def apply(self, data: NDArray[Any]) -> NDArray[Any]:
        """A view of (i, j, k, ...) with the target's axes first; further axes stay behind."""
        view = data.transpose(*self.axes, *range(3, data.ndim))
        return view[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def undo(self, data: NDArray[Any]) -> NDArray[Any]:
        """The inverse view: from the target's axes back to the source's."""
        view = data[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return view.transpose(*np.argsort(self.axes), *range(3, data.ndim))

    def shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The target's spatial shape, for a source of this one."""
        i, j, k = (shape[axis] for axis in self.axes)
        return i, j, k

    def undo_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The inverse: the source's spatial shape."""
        i, j, k = (shape[self.axes.index(axis)] for axis in range(3))
        return i, j, k

    def affine(self, affine: Affine, shape: tuple[int, ...]) -> Affine:
        """The target's affine, for a source of this affine and spatial shape."""
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1
        for target, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            to_source[axis, target] = -1 if flip else 1
            to_source[axis, 3] = shape[axis] - 1 if flip else 0
        return np.asarray(affine @ to_source)

    def region(self, axis: int, start: int, stop: int, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
        """Where the target's slices start..stop-1 along `axis` lie in a source of this spatial shape."""
        region = [slice(0, n) for n in shape[:3]]
        size = shape[self.axes[axis]]
        region[self.axes[axis]] = slice(size - stop, size - start) if self.flips[axis] else slice(start, stop)
        return region[0], region[1], region[2]

    def target_axis(self, axis: int, index: int, shape: tuple[int, ...]) -> tuple[int, int]:
        """The target's (axis, index) of slice `index` along source axis `axis`."""
        target = self.axes.index(axis)
        return target, shape[axis] - 1 - index if self.flips[target] else index


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in the file's own order and type, and where they are.

    Attributes
    ----------
    data : (i, j, k) or (i, j, k, channel); an array of numpy, or one that is read when it is asked for (`lazy`, dask).
    affine : (4, 4), voxel index -> RAS+ mm.
    header : the file's NIfTI header, kept to write units, codes and description back, or a zarr's layout; None for others.
    source : the file or layer, for messages.
    notes : what a careful reader would like to know of the file, one sentence each.
    shape_on_disk : the file's own shape where it has fewer or more axes than `data`.
    """

    data: NDArray[Any]
    affine: Affine
    header: Any = None
    source: str = "volume"
    notes: tuple[str, ...] = ()
    shape_on_disk: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.data.ndim not in (3, 4) or 0 in self.data.shape:
            raise UNetError(self.source, f"its shape is {self.data.shape}", "Give three axes, or four with channels last")
        check_affine(self.affine, self.source)

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:.3g}" for s in self.spacing)
        return f"Volume({self.source}: {self.data.shape} {self.data.dtype}, {spacing} mm, {self.orientation})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The spatial shape (i, j, k)."""
        i, j, k = self.data.shape[:3]
        return i, j, k

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.data.shape[3] if self.data.ndim == 4 else 1

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The voxel size in mm along (i, j, k)."""
        return spacing_of(self.affine)

    @property
    def orientation(self) -> str:
        """The directions the axes run nearest to, as in "RAS"."""
        return orientation_of(self.affine)

    @property
    def voxel_ml(self) -> float:
        """One voxel's volume in millilitres."""
        return voxel_ml(self.affine)

    def with_data(self, data: NDArray[Any]) -> Volume:
        """Other voxels on the same grid; a UNetError where they do not fit it."""
        if data.shape[:3] != self.shape:
            raise UNetError(self.source, f"voxels of shape {data.shape} on a grid of {self.shape}", "Keep the image's grid")
        return replace(self, data=data, notes=())

    def cropped(self, axis: int, start: int, stop: int) -> Volume:
        """The voxels start..stop-1 along one of (i, j, k), where they are. Raises UNetError where there are none."""
        if not 0 <= start < stop <= self.shape[axis]:
            raise UNetError(self.source, f"voxels {start} to {stop} of {self.shape[axis]} along axis {axis}", "Choose some that it has")
        affine = self.affine.copy()
        affine[:3, 3] += start * affine[:3, axis]
        on_disk = tuple(stop - start if a == axis else n for a, n in enumerate(self.shape_on_disk))
        region = (slice(None),) * axis + (slice(start, stop),)
        return replace(self, data=self.data[region], affine=affine, shape_on_disk=on_disk)

    def channel(self, index: int) -> Volume:
        """One channel (or time point) as a volume of its own."""
        if not 0 <= index < self.channels:
            raise UNetError(self.source, f"volume {index} of {self.channels}", f"Choose 0 to {self.channels - 1}")
        return self if self.data.ndim == 3 else replace(self, data=self.data[..., index], shape_on_disk=self.shape)


def voxel_ml(affine: Affine) -> float:
    """The volume of one voxel, a parallelepiped, in millilitres."""
    return float(abs(np.linalg.det(affine[:3, :3]))) / 1000


def check_affine(affine: Affine, source: str) -> None:
    """UNetError unless the affine is (4, 4) and invertible, with voxels between a hundredth of a nanometre and a kilometre, not too far."""
    good = affine.shape == (4, 4) and bool((np.abs(affine) < FARTHEST_MM).all()) and np.allclose(affine[3], (0, 0, 0, 1))
    if good:
        spacing = np.array(spacing_of(affine))
        # relative to its own columns, so that microscopes' nanometres are as good as millimetres
        volume = abs(np.linalg.det(affine[:3, :3])) / spacing.prod() if spacing.all() else 0.0
        good = bool(volume > 1e-4 and spacing.min() > 1e-8 and spacing.max() < 1e6)
    if not good:
        raise UNetError(
            source,
            f"its affine {np.array2string(np.asarray(affine), precision=3, separator=',').replace(chr(10), '')} "
            "does not place voxels in space",
            "Correct the orientation fields (sform, qform, pixdim), for example from the original DICOM series",
        )


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """The voxel size in mm along (i, j, k): the norms of the affine's columns."""
    i, j, k = np.linalg.norm(affine[:3, :3], axis=0)
    return float(i), float(j), float(k)


def orientation_of(affine: Affine) -> str:
    """The directions that the voxel axes run nearest to, as in "RAS"."""
    return "".join("LPI"[int(w)] if s < 0 else "RAS"[int(w)] for w, s in io_orientation(affine))


def corners_mm(affine: Affine, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The (8, 3) positions in mm of the outermost voxels' centres."""
    index = np.stack(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij"), -1).reshape(-1, 3)
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3])


def grid_distance_mm(a: Affine, b: Affine, shape: tuple[int, ...]) -> float:
    """How far apart two affines put the farthest corner of a grid, in mm."""
    return float(np.linalg.norm(corners_mm(a, shape) - corners_mm(b, shape), axis=1).max())


def tilt_degrees(affine: Affine) -> float:
    """The largest angle between a voxel axis and the world axis it runs nearest to, in degrees."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), 0, 1))).max())


def tolerance_mm(affine: Affine) -> float:
    """How far apart two grids of these voxels may lie and still be one: 0.1 mm, or half of a smaller voxel."""
    return min(GRID_TOLERANCE_MM, min(spacing_of(affine)) / 2)


def check_same_grid(volume: Volume, other: Volume, what: str = "label", than: str = "image") -> None:
    """UNetError unless two volumes lie on one grid: equal shapes, corners within 0.1 mm and half a voxel; it calls them as told."""
    if volume.shape != other.shape:
        raise UNetError(volume.source, f"its shape is {volume.shape}, the {than}'s {other.shape} ({other.source})",
                        f"Resample the {what} onto the {than}'s grid")  # fmt: skip
    distance = grid_distance_mm(volume.affine, other.affine, other.shape)
    if distance > tolerance_mm(other.affine):
        raise UNetError(volume.source, f"its affine puts a corner {distance:.3g} mm away from the {than}'s ({other.source})",
                        f"Resample the {what} onto the {than}'s grid, or copy the {than}'s affine if only the header is wrong")  # fmt: skip
