"""Files <-> Volume: reading that notices damage, writing that cannot lose a file."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy.typing import NDArray

from napari_unet import foreign, pictures, zarrs
from napari_unet import header as headers
from napari_unet.errors import UNetError
from napari_unet.files import check_memory, write_atomically
from napari_unet.packed import GZIP, check_claim, opened
from napari_unet.suffixes import BLURRED, KNOWN, PICTURES, WRITABLE, ZARRS, is_picture, suffix
from napari_unet.volume import Volume, grid_distance_mm

LABEL_INTENT = 1002
MAX_LABEL = 65535


def read(path: str | Path) -> Volume:
    """Read one image file, NIfTI, Analyze, MGH or a picture, to its last byte; the voxels of a zarr when they are asked for.

    Values are as the file means them (scaled), in its own axis order; compressed files are read through to their
    checksum. Raises UNetError for anything damaged, truncated, oversized or unreadable.
    """
    path = Path(path)
    if zarrs.is_zarr(path):
        return zarrs.read(path)
    _check_content(path)
    try:
        return _read(path, suffix(path))
    except MemoryError:
        raise UNetError(path, "needs more memory than there is", "Close other programs, or crop the image") from None


def _read(path: Path, kind: str) -> Volume:
    if kind in PICTURES:
        return pictures.read(path)
    if kind in (".nii", ".nii.gz"):
        return _read_nifti(path, path)
    if kind in (".hdr", ".img"):
        return _read_pair(path)
    if kind in (".mgh", ".mgz"):
        return foreign.read(path)
    raise UNetError(path, f"its ending is not one of {' '.join(KNOWN)}", "Convert it to NIfTI")


def in_memory(volume: Volume) -> Volume:
    """The same, all of its voxels read. Raises UNetError where they do not fit."""
    if isinstance(volume.data, np.ndarray):
        return volume
    check_memory(2 * volume.data.nbytes, volume.source)
    return replace(volume, data=np.asarray(volume.data))


def read_labels(path: str | Path, ignore: int | None = None) -> Volume:
    """Read a mask: whole numbers 0 to 65535, as uint8 or uint16. A picture with only 0 and 255 means classes 0 and 1.

    So does one that also has `ignore`, the value of unlabelled voxels, unless that is itself 255 or 1.

    Raises UNetError for fractions, negative values, NaN, more than one channel, or classes that JPEG has blurred.
    """
    volume = in_memory(read(path))
    if volume.channels > 1:
        raise UNetError(path, f"a mask with {volume.channels} channels", "Give one value per voxel")
    data = volume.data[..., 0] if volume.data.ndim == 4 else volume.data
    if suffix(path) in BLURRED and not np.isin(data, [0, data.max()]).all():
        raise UNetError(path, f"a mask with {len(np.unique(data))} values in a JPEG, which blurs class indices", "Save it as PNG or TIFF")
    return Volume(_whole_numbers(data, str(path), is_picture(path), ignore), volume.affine, volume.header,
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


def _check_content(path: Path) -> None:
    """Say in words what a file is that cannot be an image."""
    try:
        if path.is_dir():
            raise UNetError(path, "it is a folder", "Give a file")
        with open(path, "rb") as file:
            start = file.read(64)
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        why = getattr(error, "strerror", None) or error
        raise UNetError(path, f"cannot be read ({why})", "Check the path and its permissions") from error
    if not start:
        raise UNetError(path, "the file is empty", "Fetch or export it again")
    if start.startswith(b"version https://git-lfs"):
        raise UNetError(path, "it is a Git LFS pointer, not the image itself", "Run git lfs pull")
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UNetError(path, "it is a web page, not an image", "Download the file itself")
    if suffix(path) == ".nii.gz" and not start.startswith(GZIP):
        raise UNetError(path, "its name says gzip, its content does not", "Rename it to .nii, or fetch it again")
    if suffix(path) == ".nii" and start.startswith(GZIP):
        raise UNetError(path, "its content is gzip, its name does not say so", "Rename it to .nii.gz")


def _read_nifti(header_path: Path, data_path: Path) -> Volume:
    with opened(header_path) as file:
        parsed = headers.parse(file.read(headers.SIZE), str(header_path))
    if parsed.single_file != (header_path == data_path):
        raise UNetError(header_path, f"the field magic says {'voxels follow' if parsed.single_file else 'no voxels follow'}",
                        "Rename it to .nii" if parsed.single_file else "Rename it to .hdr and put its .img beside it")  # fmt: skip
    axes = _axes(parsed, str(header_path))
    check_claim(data_path, parsed.offset + parsed.nbytes, parsed.shape)
    # the values, and as much again for those who work with them, or the floats that they are scaled to
    again = parsed.nbytes if parsed.slope is None else 4 * math.prod(parsed.shape)
    check_memory(parsed.nbytes + again, data_path)
    values = _voxels(parsed, data_path)
    if parsed.colours:
        data = values.reshape(parsed.colours, *axes, order="F").transpose(1, 2, 3, 0)
    else:
        data = _scaled(values, parsed).reshape(axes, order="F")
    return Volume(data, parsed.affine, parsed.raw, str(header_path), parsed.notes, parsed.shape)


def _axes(parsed: headers.Header, where: str) -> tuple[int, ...]:
    """(i, j, k) or (i, j, k, channel): the file's shape without its further axes of length one."""
    shape = (*parsed.shape, 1)[:3] + tuple(n for n in parsed.shape[3:] if n > 1)
    if len(shape) > (3 if parsed.colours else 4):
        raise UNetError(where, f"its shape is {parsed.shape}", "Split it: three axes, and at most one of channels or time")
    return shape


def _voxels(parsed: headers.Header, path: Path) -> NDArray[Any]:
    """The stored values as a flat array; the stream is read to its end, so that gzip's checksum is reached."""
    values = np.empty(parsed.nbytes // parsed.dtype.itemsize, parsed.dtype)
    view, filled = values.view(np.uint8).data, 0
    with opened(path) as file:
        file.read(parsed.offset)
        while filled < len(view):
            count = file.readinto(view[filled : filled + (1 << 24)])  # type: ignore[attr-defined]
            if not count:
                raise UNetError(path, f"it ends after {filled:,} of {len(view):,} bytes of voxels", "Fetch it again")
            filled += count
        if file.read(1):
            raise UNetError(path, f"it goes on after the {len(view):,} bytes of voxels that dim {parsed.shape} asks for",
                            "Correct the header's dim, or export the file again")  # fmt: skip
    return values


def _scaled(values: NDArray[Any], parsed: headers.Header) -> NDArray[Any]:
    """Values as the file means them: native byte order, whole numbers where nothing but whole numbers can come out."""
    if not values.dtype.isnative:
        values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
    if parsed.slope is None:
        return values
    slope, intercept = parsed.slope, parsed.intercept
    whole = values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and slope.is_integer() and intercept.is_integer()
    scaled = np.empty(values.size, np.int32 if whole and abs(slope) * 65536 + abs(intercept) < 2**31 else np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused as such
        for start in range(0, values.size, 1 << 20):  # bit by bit, so that no copy in double precision is needed
            part = slice(start, start + (1 << 20))
            scaled[part] = values[part].astype(np.float64) * slope + intercept
    return scaled


def _half(path: Path, ending: str) -> Path:
    """One file of a pair, its ending in small letters or large."""
    for part in (path.with_suffix(ending), path.with_suffix(ending.upper())):
        if part.exists():
            return part
    raise UNetError(path, f"its other half {path.with_suffix(ending).name} is missing", "Put both files into one folder")


def header_file(path: Path) -> Path | None:
    """Where an image's NIfTI header is: in itself, or in the pair's other half; None of other files. Raises UNetError."""
    if suffix(path) in (".nii", ".nii.gz"):
        return path
    if suffix(path) not in (".hdr", ".img"):
        return None
    half = _half(path, ".hdr")
    _check_content(half)
    with opened(half) as file:
        block = file.read(headers.SIZE)
    return half if block[344:346] in (b"ni", b"n+") or block[4:6] in (b"ni", b"n+") else None


def _read_pair(path: Path) -> Volume:
    """A header and an image file, NIfTI or Analyze."""
    header_path, data_path = (_half(path, ending) for ending in (".hdr", ".img"))
    if header_file(path):
        return _read_nifti(header_path, data_path)
    volume = foreign.read(header_path)
    return Volume(volume.data, volume.affine, None, volume.source, ("Analyze files do not store an orientation",))


def header_of(volume: Volume) -> Nifti1Header | None:
    """The NIfTI header that a volume was read with; None of other files, and of a zarr, whose header is a layout."""
    return volume.header if isinstance(volume.header, Nifti1Header) else None  # Nifti2Header is one


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
    _write(path, _header_for(volume, data, labels), np.moveaxis(data, -1, 0))


def write_planes(path: str | Path, grid: Volume, dtype: np.dtype[Any], planes: Iterable[NDArray[Any]], *, labels: bool = True) -> None:
    """The same for one channel on a volume's grid that is not in memory: the (i, j) of each k, in this type."""
    _write(path, _header_for(grid, np.broadcast_to(np.zeros((), dtype), grid.shape), labels), planes)


def _write(path: str | Path, raw: Nifti1Header, planes: Iterable[NDArray[Any]]) -> None:
    """A header and its voxels, plane by plane, so that no second copy is needed; compressed where the name says so."""
    dtype = raw.get_data_dtype().newbyteorder("<")

    def fill(file: BinaryIO) -> None:
        """All of it."""
        with gzip.GzipFile("", "wb", 1, file, mtime=0) if suffix(path) == ".nii.gz" else nullcontext(file) as out:
            out.write(raw.binaryblock + bytes(4))
            for plane in planes:
                out.write(plane.astype(dtype, copy=False).tobytes(order="F"))

    write_atomically(path, fill)


def _header_for(volume: Volume, data: NDArray[Any], labels: bool) -> Nifti1Header:
    shape = _shape_to_write(volume, data)
    header = header_of(volume)
    large = max(shape) > 32767 or isinstance(header, Nifti2Header)
    kind = Nifti2Header if large else Nifti1Header
    if header is None:
        raw = kind()
    else:
        raw = kind.from_header(header, check=False) if large else kind(header.binaryblock, "<", check=False)
    sizes = raw["pixdim"][1:4].copy()
    raw.set_data_shape(shape)
    raw["pixdim"][1:4] = sizes  # those of axes that the shape lacks belong to the qform
    raw.set_data_dtype(data.dtype)
    raw["magic"] = b"n+2" if large else b"n+1"
    if large:
        raw["eol_check"] = (13, 10, 26, 10)
    raw["vox_offset"] = len(raw.binaryblock) + 4
    raw["scl_slope"], raw["scl_inter"] = 1, 0
    raw["cal_min"] = raw["cal_max"] = 0
    raw["intent_code"], raw["intent_name"] = (LABEL_INTENT if labels else 0), b""
    raw["intent_p1"] = raw["intent_p2"] = raw["intent_p3"] = 0
    if header is None or _elsewhere(raw, volume):
        raw.set_sform(volume.affine, 1)
        raw.set_qform(volume.affine, 1, strip_shears=True)
        raw.set_xyzt_units("mm")
    return raw


def _elsewhere(raw: Nifti1Header, volume: Volume) -> bool:
    """Does the volume lie elsewhere than a header says, by more than a thousandth of a voxel?"""
    told = headers.parse(raw.binaryblock + bytes(192), volume.source).affine
    return grid_distance_mm(told, volume.affine, volume.shape) > 1e-3 * min(volume.spacing)


def _shape_to_write(volume: Volume, data: NDArray[Any]) -> tuple[int, ...]:
    """The image's own shape: a 2-D file stays 2-D, a mask of a 4-D file is 3-D."""
    flat = len(volume.shape_on_disk) == 2 and data.ndim == 3
    return data.shape[:2] if flat else data.shape


def peek(path: str | Path) -> headers.Header:
    """The checked header of a NIfTI file, without its voxels."""
    path = Path(path)
    _check_content(path)
    try:
        with opened(path) as file:
            return headers.parse(file.read(headers.SIZE), str(path))
    except struct.error as error:
        raise UNetError(path, f"its header cannot be read ({error})", "Fetch or export the file again") from error
