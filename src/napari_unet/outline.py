"""What the headers of an image's files say of its size, before any voxel is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet import nifti, pictures, zarrs
from napari_unet.dataset import Case
from napari_unet.suffixes import is_picture
from napari_unet.volume import Affine, check_affine


@dataclass(frozen=True, eq=False)
class Outline:
    """An image without its voxels.

    shape : (i, j, k); channels : values per voxel; dtype : their type in memory; affine : voxel index -> RAS+ mm;
    reading : bytes that reading it takes at its peak, the voxels included; held : bytes of them that stay, where not all do.
    chunk : (i, j, k) of an image that is stored in chunks, or None.
    """

    shape: tuple[int, int, int]
    channels: int
    dtype: np.dtype[Any]
    affine: Affine
    reading: int = 0
    held: int | None = None
    chunk: tuple[int, int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels."""
        return math.prod(self.shape) * self.channels * self.dtype.itemsize


def outline(case: Case) -> Outline:
    """The outline of a case's image; several files are its channels. Raises UNetError as reading them would."""
    parts = [_outline(path) for path in case.images]
    for part, path in zip(parts, case.images, strict=True):
        check_affine(part.affine, str(path))
    if len(parts) == 1:
        return parts[0]
    dtype = np.result_type(*(part.dtype for part in parts))
    together = replace(parts[0], held=None, channels=sum(part.channels for part in parts), dtype=dtype)
    # all files are held while they are put together
    return replace(together, reading=sum(part.nbytes for part in parts) + together.nbytes)


def _outline(path: Path) -> Outline:
    if zarrs.is_zarr(path):
        return _zarr(path)
    if is_picture(path):
        return _picture(path)
    header = nifti.header_file(path)
    return _foreign(path) if header is None else _nifti(header)


def _nifti(path: Path) -> Outline:
    header = nifti.peek(path)
    i, j, k = (*header.shape, 1, 1)[:3]
    channels = math.prod(header.shape[3:]) * max(header.colours, 1)
    if header.slope is None:
        return Outline((i, j, k), channels, header.dtype, header.affine, header.nbytes)
    scaled = Outline((i, j, k), channels, np.dtype(np.float32), header.affine)
    return replace(scaled, reading=header.nbytes + scaled.nbytes)


def _picture(path: Path) -> Outline:
    rows, columns, channels, dtype = pictures.peek(path)
    pixels = Outline((rows, columns, 1), channels, dtype, np.eye(4))
    return replace(pixels, reading=2 * pixels.nbytes)  # as decoded, and as an array


def _zarr(path: Path) -> Outline:
    shape, channels, dtype, affine, held, chunk = zarrs.outline(path)
    read = Outline(shape, channels, dtype, affine, chunk=chunk)
    held = min(held, read.nbytes)
    return replace(read, reading=held, held=held)


def _foreign(path: Path) -> Outline:
    """MGH and Analyze, whose header nibabel reads without the voxels; of a damaged one, reading says what is wrong."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        stored, shape = image.get_data_dtype(), tuple(int(n) for n in image.shape)
        scaled = image.dataobj.slope != 1 or image.dataobj.inter != 0
        affine = np.asarray(image.affine, float)
    except Exception:  # noqa: BLE001 - nibabel raises whatever damaged bytes lead it to
        return Outline((1, 1, 1), 1, np.dtype(np.uint8), np.eye(4))
    i, j, k = (*shape, 1, 1)[:3]
    read = Outline((i, j, k), math.prod(shape[3:]), np.dtype(np.float64) if scaled else stored, affine)
    return replace(read, reading=2 * read.nbytes)
