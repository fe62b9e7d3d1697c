"""NIfTI's headers and voxels <-> Volume: reading that notices damage, writing that cannot lose a file."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy.typing import NDArray

from napari_unet import foreign
from napari_unet import header as headers
from napari_unet.errors import UNetError
from napari_unet.files import write_atomically
from napari_unet.packed import check_claim, check_content, opened
from napari_unet.ram import check_memory
from napari_unet.suffixes import suffix
from napari_unet.volume import Volume, grid_distance_mm

LABEL_INTENT = 1002


def read(path: Path) -> Volume:
    """Read a NIfTI file, or a pair of a header and an image file, NIfTI or Analyze, by either name. Raises UNetError."""
    if suffix(path) in (".nii", ".nii.gz"):
        return _read(path, path)
    header_path, data_path = (_half(path, ending) for ending in (".hdr", ".img"))
    if header_file(path):
        return _read(header_path, data_path)
    volume = foreign.read(header_path)
    return Volume(volume.data, volume.affine, None, volume.source, ("Analyze files do not store an orientation",))


def _read(header_path: Path, data_path: Path) -> Volume:
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
    check_content(half)
    with opened(half) as file:
        block = file.read(headers.SIZE)
    return half if block[344:346] in (b"ni", b"n+") or block[4:6] in (b"ni", b"n+") else None


def header_of(volume: Volume) -> Nifti1Header | None:
    """The NIfTI header that a volume was read with; None of other files, and of a zarr, whose header is a layout."""
    return volume.header if isinstance(volume.header, Nifti1Header) else None  # Nifti2Header is one


def write(path: str | Path, volume: Volume, *, labels: bool = True) -> None:
    """Write a volume whose voxels are of a type that NIfTI has as `.nii` or `.nii.gz`, atomically; see `images.write`."""
    _write(path, _header_for(volume, volume.data, labels), np.moveaxis(volume.data, -1, 0))


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
    check_content(path)
    try:
        with opened(path) as file:
            return headers.parse(file.read(headers.SIZE), str(path))
    except struct.error as error:
        raise UNetError(path, f"its header cannot be read ({error})", "Fetch or export the file again") from error
