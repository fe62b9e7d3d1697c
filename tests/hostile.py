"""A known-good NIfTI file, and the corpus: the same file with one thing wrong, or merely odd.

As a script it reads a whole folder with little memory and tells as JSON what became of each file.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import axcodes2ornt
from scipy.spatial.transform import Rotation

from napari_unet import images
from napari_unet.errors import UNetError

ORIENTATIONS = ["".join(letters) for pairs in permutations(("RL", "AP", "SI")) for letters in product(*pairs)]
SHAPE = (5, 6, 7)
VOXELS = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
LIMIT_MB = 160  # what the child may allocate; every claim of the corpus is larger


def affine_for(orientation: str = "LPS", spacing: tuple[float, ...] = (0.75, 1.5, 3.0), tilt: float = 0.0) -> np.ndarray:
    """Voxel axes that run nearest to `orientation`, turned by `tilt` degrees about a slanting axis."""
    ornt = axcodes2ornt(tuple(orientation))
    matrix = np.zeros((3, 3))
    matrix[ornt[:, 0].astype(int), range(3)] = ornt[:, 1] * spacing
    turn = Rotation.from_rotvec(np.radians(tilt) * np.array([1, 2, -0.5]) / np.linalg.norm([1, 2, -0.5]))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn.as_matrix() @ matrix, (-12.5, 34.25, 7.75)
    return affine.astype(np.float32).astype(float)  # as a header holds it


AFFINE = affine_for()


def nifti_bytes(data: np.ndarray = VOXELS, affine: np.ndarray = AFFINE, *, kind: type[Nifti1Header] = Nifti1Header,
                order: str = "<", pair: bool = False, between: bytes = bytes(4), **fields: Any) -> bytes:  # fmt: skip
    """A NIfTI file, both forms coded; then header fields are overwritten, such as **{"dim[0]": 8}."""
    header = kind(endianness=order)
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    header["magic"] = (b"ni" if pair else b"n+") + (b"2" if kind is Nifti2Header else b"1")
    header["vox_offset"] = 0 if pair else len(header.binaryblock) + len(between)
    header["scl_slope"], header["scl_inter"] = 1, 0
    for name, value in fields.items():
        name, index = re.fullmatch(r"(\w+)(?:\[(\d)\])?", name).groups()
        header[name][int(index) if index else ...] = value
    voxels = data.astype(data.dtype.newbyteorder(order)).tobytes(order="F")
    return header.binaryblock + (b"" if pair else between) + voxels


def packed(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used, and words of the one sentence that says why."""

    name: str
    content: bytes
    says: tuple[str, ...]
    other: tuple[str, bytes] | None = None  # a second file, where it takes two


@dataclass(frozen=True)
class Odd:
    """A file that is unusual and good: what it holds, and a word of the note that a careful reader gets."""

    name: str
    content: bytes
    data: np.ndarray = field(default_factory=lambda: VOXELS)
    affine: np.ndarray = field(default_factory=lambda: AFFINE)
    note: str = ""


GOOD = nifti_bytes()
GOOD_GZ = packed(GOOD)
GOOD_2 = nifti_bytes(kind=Nifti2Header)
PAIR = nifti_bytes(pair=True)
QFORM = {"sform_code": 0}
NEITHER = {"sform_code": 0, "qform_code": 0}
NAN, INF = float("nan"), float("inf")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def container_faults() -> list[Fault]:
    claim = nifti_bytes(**{"dim[1]": 32767, "dim[2]": 32767, "dim[3]": 32767})
    claim_20_gb = nifti_bytes(**{"dim[1]": 2154, "dim[2]": 2154, "dim[3]": 2154})
    claim_2 = nifti_bytes(kind=Nifti2Header, **{f"dim[{axis}]": 2**40 for axis in (1, 2, 3)})
    damaged = ("compressed data is damaged",)
    return [
        Fault("half.nii.gz", GOOD_GZ[: len(GOOD_GZ) // 2], damaged),
        Fault("minus 4 bytes.nii.gz", GOOD_GZ[:-4], damaged),
        Fault("minus 8 bytes.nii.gz", GOOD_GZ[:-8], damaged),
        Fault("checksum.nii.gz", flipped(GOOD_GZ, 8 * len(GOOD_GZ) - 60), damaged),
        Fault("one bit.nii.gz", flipped(GOOD_GZ, 4 * len(GOOD_GZ)), damaged),
        Fault("garbage after.nii.gz", GOOD_GZ + b"garbage", damaged),
        Fault("hidden tail.nii.gz", packed(GOOD + bytes(1 << 20)), ("it goes on after the 420 bytes", "(5, 6, 7)")),
        Fault("hidden member.nii.gz", GOOD_GZ + packed(b"x"), ("it goes on after",)),
        Fault("half.nii", GOOD[: len(GOOD) // 2], ("claims 772 bytes", "has 386")),
        Fault("hidden tail.nii", GOOD + b"x", ("it goes on after",)),
        Fault("200 bytes.nii", GOOD[:200], ("ends after 200 bytes", "348")),
        Fault("400 bytes of NIfTI-2.nii", GOOD_2[:400], ("ends after 400 bytes", "540")),
        Fault("empty.nii.gz", b"", ("is empty",)),
        Fault("gzip of nothing.nii.gz", packed(b""), ("ends after 0 bytes",)),
        Fault("gzip.nii", GOOD_GZ, ("content is gzip", "Rename it to .nii.gz")),
        Fault("plain.nii.gz", GOOD, ("name says gzip", "Rename it to .nii")),
        Fault("page.nii.gz", b"\n<!DOCTYPE html><title>404</title>", ("web page",)),
        Fault("page.nii", b"<html>Sign in</html>", ("web page",)),
        Fault("pointer.nii.gz", LFS, ("Git LFS pointer", "git lfs pull")),
        Fault("text.nii", b"patient,age\n" * 99, ("sizeof_hdr",)),
        Fault("bare.nii", bytes(1000), ("sizeof_hdr is 0",)),
        Fault("scan.dcm", GOOD, ("its ending is not one of", ".nii.gz")),
        Fault("32767 cubed.nii.gz", packed(claim + bytes(8000)), ("70,3", "(32767, 32767, 32767)", "compressed")),
        Fault("20 GB.nii.gz", gzip.compress(claim_20_gb + np.random.default_rng(0).bytes(20 << 20), 0), ("memory",)),
        Fault("2 to the 120.nii", claim_2, ("(1099511627776, ", "the file has")),
        Fault("alone.hdr", PAIR[:348], ("alone.img is missing",)),
        Fault("alone too.img", PAIR[348:], ("alone too.hdr is missing",)),
        Fault("short.hdr", PAIR[:348], ("short.img", "claims 420 bytes", "the file has 419"), ("short.img", PAIR[348:-1])),
        Fault("empty half.hdr", PAIR[:348], ("empty half.img", "the file has 0"), ("empty half.img", b"")),
        Fault("single.hdr", GOOD[:348], ("magic", "voxels follow", ".nii"), ("single.img", GOOD[352:])),
        Fault("pair.nii", PAIR, ("magic", "no voxels follow", ".hdr")),
        Fault("x" * (9 if os.name == "nt" else 236) + ".nii", GOOD[:99], ("ends after 99 bytes",)),
        Fault("ünï cödé ☃.nii", GOOD[:99], ("ends after 99 bytes",)),
        Fault("surface.mgz", packed(struct.pack(">7i", 1, 9999, 9999, 9999, 1, 3, 0) + bytes(9000)), ("claims 3,998,800,119,996",)),
        Fault("noise.mgz", packed(b"\0\0\0\1" + bytes(400)), ("cannot be read as an image",)),
        Fault("half.mgz", packed(bytes(999))[:20], damaged),
    ]  # fmt: skip


def header_faults() -> list[Fault]:
    """The field's name and its value have to stand in the message."""
    single: list[tuple[dict[str, Any], str]] = [
        *(({"dim[0]": n}, "") for n in (0, 8, -1, 1)),
        *(({"dim[1]": n}, "") for n in (0, -5)),
        ({"dim[3]": 0}, ""),
        ({"dim[3]": 6}, "it goes on after the 360 bytes"),
        *(({"datatype": code}, "") for code in (0, 1, 3, 32, 1536, 1792, 2048, 9999)),
        *(({"bitpix": bits}, "") for bits in (0, 8, 32, -16)),
        *(({"vox_offset": n}, "") for n in (0, NAN, -500, 1e9, 351.5, INF, 348)),
        *(({"scl_slope": n}, "") for n in (INF, -INF, 1e38, 1e-40)),
        *(({"scl_inter": n}, "") for n in (NAN, INF, -1e38)),
        *(({"srow_x": n}, "sform") for n in (NAN, INF, 0, 1e38, 1e-20)),
        ({"srow_z[3]": NAN}, "sform"),
        ({"srow_z[3]": 1e30}, "sform"),
        *(({"pixdim[2]": n}, "") for n in (NAN, INF, -1.5)),
        *(({"pixdim[2]": n, **QFORM}, "") for n in (NAN, INF, -1.5, 0)),
        *(({"pixdim[2]": n, **NEITHER}, "") for n in (NAN, INF, -1.5, 0)),
        ({"pixdim[2]": 1e-9, **QFORM}, "qform"),
        ({"quatern_b": 2, **QFORM}, ""),
        ({"quatern_b": NAN, **QFORM}, ""),
        ({"quatern_d": -INF, **QFORM}, ""),
        ({"qoffset_y": NAN, **QFORM}, ""),
        ({"qoffset_y": 1e30, **QFORM}, "qform"),
        ({"magic": b"n+7"}, "field magic is b'n+7'"),
        ({"magic": b""}, "field magic is b''"),
        ({"sizeof_hdr": 349}, ""),
    ]
    faults = []
    for changes, word in single:
        name, value = next(iter(changes.items()))
        title = f"{name}={value}".replace("b'", "").replace("'", "") + {0: "", 1: " of the qform", 2: " alone"}[len(changes) - 1]
        shown = (f"{value:.4g}",) if not isinstance(value, bytes) else ()
        says = (word,) if word else (f"field{'s' * (value == 2)} {name[:7] if value == 2 else name}", *shown)
        faults.append(Fault(f"{title}.nii", nifti_bytes(**changes), says))
    return faults


def shape_faults() -> list[Fault]:
    return [
        Fault("singular sform.nii", nifti_bytes(srow_x=(0, -1.5, 0, 0)), ("sform", "does not place voxels in space")),
        Fault("complex.nii", nifti_bytes(VOXELS.astype(np.complex64)), ("datatype is 32", "complex")),
        Fault("5-D.nii", nifti_bytes(np.zeros((3, 3, 3, 2, 2), np.uint8)), ("(3, 3, 3, 2, 2)",)),
        Fault("1-D.nii", nifti_bytes(np.zeros(9, np.uint8)), ("dim[0] is 1", "9 voxels")),
        Fault("RGB in time.nii", rgb_bytes(shape=(2, 3, 4, 5)), ("(2, 3, 4, 5)",)),
    ]


def label_faults() -> list[Fault]:
    """Masks: their names begin with "label", for the child to read them as such."""
    def mask(value: float, dtype: Any, **fields: Any) -> bytes:
        data = np.zeros((3, 4, 5), dtype)
        data[1, 2, 3] = value
        return nifti_bytes(data, **fields)

    return [
        Fault("label a half.nii", mask(0.5, np.float32), ("the value 0.5", "whole numbers")),
        Fault("label -1.nii", mask(-1, np.int16), ("the value -1", "0 to 65535")),
        Fault("label NaN.nii", mask(NAN, np.float32), ("NaN",)),
        Fault("label inf.nii", mask(INF, np.float64), ("NaN or infinite",)),
        Fault("label 65536.nii", mask(65536, np.int32), ("the value 65536",)),
        Fault("label 2^40.nii", mask(2**40, np.int64), ("the value 1099511627776",)),
        Fault("label scaled.nii", mask(1, np.uint8, scl_slope=0.5), ("the value 0.5",)),
        Fault("label 4-D.nii", nifti_bytes(np.zeros((3, 4, 5, 2), np.uint8)), ("2 channels",)),
        Fault("label RGB.nii", rgb_bytes(shape=(2, 3, 4)), ("3 channels",)),
    ]  # fmt: skip


def rgb_bytes(shape: tuple[int, ...] = (2, 3, 4), colours: int = 3) -> bytes:
    """A NIfTI of one value per colour, numbered on from 0 in the file's order."""
    data = np.zeros(shape, [(c, "u1") for c in "RGBA"[:colours]])
    return nifti_bytes(data)[:352] + bytes(np.arange(data.size * colours, dtype=np.uint8))


def odd_files() -> list[Odd]:
    noted = "sform and qform"
    base = np.array([[-0.75, 0, 0, 1.5], [0, 1.5, 0, -3.75], [0, 0, 3, -9], [0, 0, 0, 1]])
    moved = affine_for()
    moved[0, 3] += 20
    slanted = affine_for(tilt=40)
    slanted[:3, 0] += 0.3 * slanted[:3, 1]
    with_nan = VOXELS.astype(np.float32)
    with_nan[1, 2, 3], with_nan[0, 0, 0] = NAN, INF
    flat, metres = affine_for(spacing=(0.01, 0.01, 500)), affine_for(spacing=(0.0005, 0.001, 0.002))
    metres[:3, 3] /= 1000
    extension = struct.pack("<4bii", 1, 0, 0, 0, 16, 6) + b"comment\0"
    return [
        Odd("good.nii", GOOD),
        Odd("good.nii.gz", GOOD_GZ),
        Odd("NIfTI-2.nii", GOOD_2),
        Odd("big-endian.nii", nifti_bytes(order=">")),
        Odd("big-endian NIfTI-2.nii.gz", packed(nifti_bytes(order=">", kind=Nifti2Header))),
        Odd("two members.nii.gz", packed(GOOD[:500]) + packed(GOOD[500:])),
        Odd("padded with zeros.nii.gz", GOOD_GZ + bytes(512)),
        Odd("SHOUTED.NII", GOOD),
        Odd("extension.nii", nifti_bytes(between=extension)),
        Odd("extension of -5 bytes.nii", nifti_bytes(between=extension.replace(b"\x10", b"\xfb"))),
        Odd("extension of 1 GB.nii", nifti_bytes(between=extension[:4] + struct.pack("<ii", 1 << 30, 6) + b"comment\0")),
        Odd("vox_offset=1024.nii", nifti_bytes(between=b"\xff" * 676)),
        Odd("slope 0.nii", nifti_bytes(scl_slope=0, scl_inter=NAN)),
        Odd("slope NaN.nii", nifti_bytes(scl_slope=NAN, scl_inter=5)),
        Odd("slope 2.nii", nifti_bytes(scl_slope=2, scl_inter=-1024), VOXELS * 2 - 1024),
        Odd("pixdim[0]=0.nii", nifti_bytes(**{"pixdim[0]": 0, **QFORM})),
        Odd("pixdim[0]=-1.nii", nifti_bytes(**{"pixdim[0]": -1, **QFORM}), affine=AFFINE * (1, 1, -1, 1)),
        Odd("pixdim[3]=0 of one slice.nii", nifti_bytes(VOXELS[..., :1], affine_for(spacing=(1, 2, 1)), **{"pixdim[3]": 0, **QFORM}),
            VOXELS[..., :1], affine_for(spacing=(1, 2, 1))),
        Odd("pixdim=0 with an sform.nii", nifti_bytes(**{"pixdim[1]": 0}), note=noted),
        Odd("quaternion with an sform.nii", nifti_bytes(quatern_c=NAN), note="the qform cannot be read"),
        Odd("forms apart.nii", nifti_bytes(qoffset_x=7.5), note="sform and qform are 20 mm apart"),
        Odd("sform_code=77.nii", nifti_bytes(sform_code=77), note="sform_code is 77"),
        Odd("sform_code=-1.nii", nifti_bytes(sform_code=-1), note="sform_code is -1"),
        Odd("units 5.nii", nifti_bytes(xyzt_units=5), note="xyzt_units is 5"),
        Odd("neither form.nii", nifti_bytes(**NEITHER), affine=base, note="orientation is not"),
        Odd("metres.nii", nifti_bytes(affine=metres, xyzt_units=1), affine=np.diag([1e3, 1e3, 1e3, 1]) @ metres),
        Odd("microns.nii", nifti_bytes(qoffset_x=7.5, xyzt_units=3), affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE,
            note="sform and qform are 0.02 mm apart"),
        Odd("sheared and oblique.nii", nifti_bytes(affine=slanted), affine=slanted.astype(np.float32), note=noted),
        Odd("2-D.nii", nifti_bytes(VOXELS[..., 0]), VOXELS[..., :1]),
        Odd("one slice.nii", nifti_bytes(VOXELS[..., :1]), VOXELS[..., :1]),
        Odd("one voxel.nii", nifti_bytes(VOXELS[:1, :1, :1]), VOXELS[:1, :1, :1]),
        Odd("4-D of one.nii", nifti_bytes(VOXELS[..., None]), VOXELS),
        Odd("4-D.nii", nifti_bytes(VOXELS.reshape(5, 6, 1, 7)), VOXELS.reshape(5, 6, 1, 7)),
        Odd("vectors.nii", nifti_bytes(VOXELS.reshape(5, 3, 2, 1, 7)), VOXELS.reshape(5, 3, 2, 7)),
        Odd("RGB.nii", rgb_bytes(), np.arange(72, dtype=np.uint8).reshape(3, 2, 3, 4, order="F").transpose(1, 2, 3, 0)),
        Odd("needles.nii", nifti_bytes(affine=flat), affine=flat),
        Odd("NaN voxels.nii", nifti_bytes(with_nan), with_nan),
        Odd("all NaN.nii", nifti_bytes(np.full((2, 3, 4), NAN)), np.full((2, 3, 4), NAN)),
        Odd("zeros.nii", nifti_bytes(VOXELS * 0), VOXELS * 0),
        Odd("label whole floats.nii", nifti_bytes(np.abs(VOXELS).astype(np.float64)), np.abs(VOXELS).astype(np.uint16)),
        Odd("label 255.nii", nifti_bytes((VOXELS > 0) * np.int64(255)), (VOXELS > 0) * np.uint8(255)),
        Odd("label empty.nii", nifti_bytes(VOXELS * 0), (VOXELS * 0).astype(np.uint8)),
    ]  # fmt: skip


def read(path: Path) -> Any:
    return images.read_labels(path) if path.name.startswith("label") else images.read(path)


def outcome(path: Path) -> dict[str, Any]:
    """What a user gets: the error's sentence ("" for none), or the class of something that is not for users."""
    start, error, crash = time.perf_counter(), "", ""
    try:
        read(path)
    except UNetError as caught:
        error = str(caught)
    except BaseException as caught:  # noqa: BLE001 - whatever it is, it is a finding
        crash = repr(caught)
    return {"error": error, "crash": crash, "seconds": time.perf_counter() - start}


def read_with_little_memory(folder: Path, limit_mb: int = LIMIT_MB) -> dict[str, dict[str, Any]]:
    """`outcome` of every file of a folder, in a child process that cannot allocate more than `limit_mb`."""
    done = subprocess.run([sys.executable, __file__, folder, str(limit_mb)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


if __name__ == "__main__":
    import resource  # POSIX alone has it

    outcome(Path(__file__).with_suffix(".nii"))  # all imports are done and counted before the limit
    limit = psutil.Process().memory_info().vms + (int(sys.argv[2]) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    paths = sorted(Path(sys.argv[1]).iterdir())
    print(json.dumps({path.name: outcome(path) for path in paths}))
