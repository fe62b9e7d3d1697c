"""A NIfTI header, checked field by field before anything is allocated.

Fields: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h. Parsing is nibabel's; trusting is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from napari_unet.errors import UNetError
from napari_unet.volume import Affine, check_affine, grid_distance_mm, tolerance_mm

SIZE = 540  # the larger of the two headers
MAX_OFFSET = 64 << 20
_DAMAGED = "Fetch or export the file again"
_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_MM = {1: 1000.0, 3: 0.001}  # metres, microns; all else is taken as mm
_COLOURS = {128: 3, 2304: 4}
_REFUSED = {1: "bits", 32: "complex numbers", 1792: "complex numbers", 2048: "complex numbers", 1536: "128-bit floats"}


@dataclass(frozen=True)
class Header:
    """What a checked header says.

    shape : the file's own, 2 to 7 axes; colours : values per voxel of an RGB(A) file, else 0; dtype : of one value, in
    the file's byte order; offset : bytes before the first voxel; slope, intercept : None where values are stored as
    they are; affine : RAS+ mm; raw : nibabel's header, little-endian.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    colours: int
    offset: int
    slope: float | None
    intercept: float
    affine: Affine
    single_file: bool
    raw: Nifti1Header
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels."""
        return math.prod(self.shape) * self.dtype.itemsize * max(self.colours, 1)


def parse(block: bytes, where: str) -> Header:
    """A checked header from a file's first bytes. Raises UNetError naming the field, its value and the remedy."""
    raw, order = _structure(block, where)
    shape = _shape(raw, where)
    dtype, colours = _dtype(raw, order, where)
    single = bytes(raw["magic"].item())[:2] == b"n+"
    slope, intercept = _scaling(raw, where)
    affine, notes = _affine(raw, shape, where)
    return Header(shape, dtype, colours, _offset(raw, single, where), slope, intercept, affine, single,
                  raw if raw.endianness == "<" else raw.as_byteswapped("<"), notes)  # fmt: skip


def _structure(block: bytes, where: str) -> tuple[Nifti1Header, str]:
    need = 540 if block[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else 348
    if len(block) < need:
        raise UNetError(where, f"it ends after {len(block)} bytes, before a NIfTI header ({need}) is complete", _DAMAGED)
    for order, name in (("<", "little"), (">", "big")):
        size = int.from_bytes(block[:4], name)  # type: ignore[arg-type]
        if size == 348:
            raw = Nifti1Header(block[:348], endianness=order, check=False)
            magics = (b"n+1", b"ni1")
        elif size == 540:
            raw = Nifti2Header(block[:540], endianness=order, check=False)
            magics = (b"n+2", b"ni2")
        else:
            continue
        magic = bytes(raw["magic"].item())[:3]
        if magic not in magics:
            raise UNetError(where, f"the field magic is {magic!r}, not that of NIfTI", "Convert the file to NIfTI")
        return raw, order
    raise UNetError(where, f"the field sizeof_hdr is {int.from_bytes(block[:4], 'little')}, not 348 or 540: no NIfTI file",
                    "Convert the file to NIfTI")  # fmt: skip


def _shape(raw: Nifti1Header, where: str) -> tuple[int, ...]:
    dim = [int(n) for n in raw["dim"]]
    if not 1 <= dim[0] <= 7:
        raise UNetError(where, f"the field dim[0] is {dim[0]}, not 1 to 7", _DAMAGED)
    for axis in range(1, dim[0] + 1):
        if dim[axis] < 1:
            raise UNetError(where, f"the field dim[{axis}] is {dim[axis]}, not at least 1", _DAMAGED)
    shape = dim[1 : dim[0] + 1]
    if len(shape) < 2:
        raise UNetError(where, f"the field dim[0] is 1: a line of {shape[0]} voxels", "Give an image of 2 to 4 dimensions")
    return tuple(shape)


def _dtype(raw: Nifti1Header, order: str, where: str) -> tuple[np.dtype[Any], int]:
    code, bits = int(raw["datatype"]), int(raw["bitpix"])
    if code in _REFUSED:
        raise UNetError(where, f"the field datatype is {code} ({_REFUSED[code]})",
                        "Save it with real values (the magnitude of complex ones) of at most 64 bits")  # fmt: skip
    if code not in _DTYPES and code not in _COLOURS:
        raise UNetError(where, f"the field datatype is {code}, which NIfTI does not define", _DAMAGED)
    colours = _COLOURS.get(code, 0)
    dtype = np.dtype(order + _DTYPES.get(code, "u1"))
    if bits != dtype.itemsize * 8 * max(colours, 1):
        raise UNetError(where, f"the field bitpix is {bits}, which does not belong to datatype {code}", _DAMAGED)
    return dtype, colours


def _offset(raw: Nifti1Header, single: bool, where: str) -> int:
    value, least = float(raw["vox_offset"]), (len(raw.binaryblock) + 4) * single
    if not least <= value <= MAX_OFFSET or value != int(value):  # NaN is not between anything
        raise UNetError(where, f"the field vox_offset is {value:g}, not {least} to {MAX_OFFSET}", _DAMAGED)
    return int(value)


def _scaling(raw: Nifti1Header, where: str) -> tuple[float | None, float]:
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or math.isnan(slope):  # the standard's and nibabel's way to say "none"
        return None, 0.0
    if not 1e-30 <= abs(slope) <= 1e30:
        raise UNetError(where, f"the field scl_slope is {slope:g}", "Correct it; 0 means that values are not scaled")
    if not math.isfinite(intercept) or abs(intercept) > 1e30:
        raise UNetError(where, f"the field scl_inter is {intercept:g}", "Correct it; 0 means that values are not shifted")
    return (None, 0.0) if (slope, intercept) == (1, 0) else (slope, intercept)


def _affine(raw: Nifti1Header, shape: tuple[int, ...], where: str) -> tuple[Affine, tuple[str, ...]]:
    """The sform if it is coded, else the qform, else spacing alone, in mm; notes on what a careful reader should know."""
    notes = []
    units = int(raw["xyzt_units"]) & 7
    if units > 3:
        notes.append(f"the field xyzt_units is {units}, which NIfTI does not define; taken as mm")
    mm = np.array([[_MM.get(units, 1.0)]] * 3 + [[1.0]])
    sform_code, qform_code = int(raw["sform_code"]), int(raw["qform_code"])
    for name, code in (("sform_code", sform_code), ("qform_code", qform_code)):
        if not 0 <= code <= 5:
            notes.append(f"the field {name} is {code}, which NIfTI does not define")
    if sform_code > 0:
        _pixdim(raw, shape, where, zero_is_fine=True)
        affine = mm * np.asarray(raw.get_sform(), float)
        check_affine(affine, f"{where}, sform")
        notes += _compare_forms(mm * _qform(raw), affine, shape) if qform_code > 0 else []
        return affine, tuple(notes)
    _pixdim(raw, shape, where, zero_is_fine=False)
    if qform_code > 0:
        affine = mm * _qform(raw, where)
        check_affine(affine, f"{where}, qform")
        return affine, tuple(notes)
    notes.append("neither sform nor qform is coded: spacing is known, orientation is not (taken as left, front, up)")
    affine = mm * np.asarray(raw.get_base_affine(), float)
    check_affine(affine, where)
    return affine, tuple(notes)


def _pixdim(raw: Nifti1Header, shape: tuple[int, ...], where: str, zero_is_fine: bool) -> None:
    """Check the voxel sizes; what the standard lets a file leave out gets the value that it then has."""
    pixdim = raw["pixdim"]
    pixdim[0] = -1 if pixdim[0] < 0 else 1  # qfac: 0 means 1
    for axis, size in enumerate((*shape, 1)[:3], 1):
        value = float(pixdim[axis])
        if axis > len(shape) or (size == 1 and value == 0):
            pixdim[axis] = value if 1e-6 < value < 1e6 else 1  # one slice has a thickness, but need not tell it
        elif not math.isfinite(value) or value < 0 or (value == 0 and not zero_is_fine):
            raise UNetError(where, f"the field pixdim[{axis}] is {value:g}, not a voxel size", "Correct it")


def _qform(raw: Nifti1Header, where: str = "") -> Affine:
    """The qform as a matrix; where it is none, a UNetError, or NaN for a caller who gives no `where`."""
    for field in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        if where and not math.isfinite(raw[field]):
            raise UNetError(where, f"the field {field} is {float(raw[field]):g}", "Correct the qform, or set an sform")
    try:
        with np.errstate(all="ignore"):
            return np.asarray(raw.get_qform(), float)
    except ValueError:
        if not where:
            return np.full((4, 4), np.nan)
        quaternion = [float(raw[f"quatern_{axis}"]) for axis in "bcd"]
        raise UNetError(where, f"the fields quatern_b, c, d are {quaternion}, not a rotation",
                        "Correct the qform, or set an sform") from None  # fmt: skip


def _compare_forms(qform: Affine, sform: Affine, shape: tuple[int, ...]) -> list[str]:
    with np.errstate(over="ignore", invalid="ignore"):
        apart = grid_distance_mm(sform, qform, (*shape, 1)[:3])
    if not math.isfinite(apart):
        return ["the qform cannot be read; the sform is used"]
    return [f"sform and qform are {apart:.3g} mm apart; the sform is used"] if apart > tolerance_mm(sform) else []
