"""Any image file <-> Volume: its ending decides who reads and writes it, and the voxels of a mask are whole numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet import foreign, nifti, pictures, zarrs
from napari_unet.errors import UNetError
from napari_unet.packed import check_content
from napari_unet.ram import check_memory
from napari_unet.spec import MAX_LABEL
from napari_unet.suffixes import BLURRED, KNOWN, PICTURES, WRITABLE, ZARRS, is_picture, suffix
from napari_unet.volume import Volume


def read(path: str | Path, *, classes: bool = False) -> Volume:
    """Read one image file, NIfTI, Analyze, MGH or a picture, to its last byte; the voxels of a zarr when they are asked for.

    classes : of a picture with a palette, what is stored, as in a mask, instead of what is shown.

    Values are as the file means them (scaled), in its own axis order; compressed files are read through to their
    checksum. Raises UNetError for anything damaged, truncated, oversized or unreadable.
    """
    path = Path(path)
    if zarrs.is_zarr(path):
        return zarrs.read(path)
    check_content(path)
    try:
        return _read(path, suffix(path), classes)
    except MemoryError:
        raise UNetError(path, "needs more memory than there is", "Close other programs, or crop the image") from None


def _read(path: Path, kind: str, classes: bool) -> Volume:
    if kind in PICTURES:
        return pictures.read(path, classes)
    if kind in (".nii", ".nii.gz", ".hdr", ".img"):
        return nifti.read(path)
    if kind in (".mgh", ".mgz"):
        return foreign.read(path)
    raise UNetError(path, f"its ending is not one of {' '.join(KNOWN)}", "Convert it to NIfTI")


def in_memory(volume: Volume) -> Volume:
    """The same, all of its voxels read. Raises UNetError where they do not fit."""
    if isinstance(volume.data, np.ndarray):
        return volume
    check_memory(2 * volume.data.nbytes, volume.source)
    return replace(volume, data=np.asarray(volume.data))


def read_labels(path: str | Path, ignore: int | None = None, *, binary: bool = True) -> Volume:
    """Read a mask: whole numbers 0 to 65535, as uint8 or uint16. A picture with only 0 and 255 means classes 0 and 1.

    So does one that also has `ignore`, the value of unlabelled voxels, unless that is itself 255 or 1; none does unless `binary`.
    A picture in shades of grey, each the same in all colours, is a mask, too.

    Raises UNetError for fractions, negative values, NaN, more than one channel, or classes that JPEG has blurred.
    """
    volume = in_memory(read(path, classes=True))
    if volume.channels > 1 and not (is_picture(path) and (volume.data == volume.data[..., :1]).all()):
        raise UNetError(path, f"a mask with {volume.channels} channels", "Give one value per voxel")
    data = volume.data[..., 0] if volume.data.ndim == 4 else volume.data
    if suffix(path) in BLURRED and not np.isin(data, [0, data.max()]).all():
        raise UNetError(path, f"a mask with {len(np.unique(data))} values in a JPEG, which blurs class indices", "Save it as PNG or TIFF")
    return Volume(_whole_numbers(data, str(path), binary and is_picture(path), ignore), volume.affine, volume.header,
                  volume.source, volume.notes, volume.shape_on_disk)  # fmt: skip


def _whole_numbers(data: NDArray[Any], where: str, picture: bool, ignore: int | None = None) -> NDArray[Any]:
    if data.dtype.kind not in "biuf":
        raise UNetError(where, f"a mask of type {data.dtype}", "Save the mask with whole numbers")
    if data.dtype.kind == "f":
        if not np.isfinite(data).all():
            raise UNetError(where, "a mask with NaN or infinite values", "Save the mask with whole numbers")
        if (data != np.rint(data)).any():
            odd = data[data != np.rint(data)].flat[0]
            raise UNetError(where, f"a mask with the value {odd}", "Save the mask with whole numbers, one per class")
    low, high = int(data.min()), int(data.max())
    if low < 0 or high > MAX_LABEL:
        raise UNetError(where, f"a mask with the value {low if low < 0 else high}", f"Use 0 to {MAX_LABEL}")
    whole = data.astype(np.uint8 if high < 256 else np.uint16, copy=False)
    if picture and high >= 255 and ignore not in (1, 255) and np.isin(whole, [0, 255, ignore or 0]).all():
        return np.where(whole == 255, 1, whole).astype(whole.dtype)
    return whole


def write(path: str | Path, volume: Volume, *, labels: bool = True) -> None:
    """Write a volume as NIfTI (`.nii`, `.nii.gz`), a mask as a picture, or what was made of a zarr as one, atomically.

    The image's header gives shape, affine, codes, units and description; its extensions are dropped, since they can
    carry patient data. Masks are stored as uint8, or uint16 from 256 classes on; other images as float32 or their own
    integer type. Raises UNetError for masks that are not whole numbers and where the file cannot be written.
    """
    kind = suffix(path)
    if kind not in (*WRITABLE, *BLURRED, *ZARRS):
        raise UNetError(path, f"the ending {Path(path).suffix!r}", "Use .nii or .nii.gz, or .png or .tif for 2-D masks")
    volume = in_memory(volume)
    data = _whole_numbers(volume.data, volume.source, False) if labels else volume.data
    if data.dtype.kind not in "biuf":
        raise UNetError(volume.source, f"voxels of type {data.dtype}", "Give real values, such as the magnitude")
    if data.dtype.kind not in "iu":
        data = data.astype(np.uint8 if data.dtype == np.bool_ else np.float32, copy=False)
    if kind in PICTURES:
        return pictures.write(path, data, volume.source)
    if kind in ZARRS:
        return zarrs.write(path, volume.with_data(data), () if labels else None)
    nifti.write(path, volume.with_data(data), labels=labels)
