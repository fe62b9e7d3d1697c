"""The corpus: damaged and deceptive files give one clear error and cost neither memory nor files; odd ones are read right."""

from __future__ import annotations

import gc
import os
import random
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import psutil
import pytest
from hostile import Fault, Odd
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from napari_unet import header, images, nifti
from napari_unet.errors import UNetError
from napari_unet.volume import Volume

FAULTS = [
    *hostile.container_faults(), *hostile.header_faults(), *hostile.shape_faults(), *hostile.label_faults()
]  # fmt: skip
ODD = hostile.odd_files()
posix = pytest.mark.skipif(os.name == "nt", reason="Windows counts handles, not files")
little_memory = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is kept by Linux alone")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for case in (*FAULTS, *ODD):
        for name, content in ((case.name, case.content), *filter(None, [getattr(case, "other", None)])):
            (folder / name).write_bytes(content)
    (folder / "folder.nii").mkdir()
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, dict[str, Any]]:
    """What a child process with little memory makes of the corpus; the corpus itself has to stay as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    found = hostile.read_with_little_memory(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    return found


@little_memory
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name[:50])
def test_a_fault_is_one_clear_error(fault: Fault, folder: Path, outcomes: dict[str, dict[str, Any]]) -> None:
    found = outcomes[fault.name]
    assert found["crash"] == ""
    # where it is: what is wrong. What to do about it.
    assert re.fullmatch(r".+: \S.+[^.]\. [A-Z].+[^.]\.", found["error"])
    assert found["error"].startswith(str(folder / fault.name.rpartition(".")[0])), "names the file, or its other half"
    for words in fault.says:
        assert words in found["error"]
    assert found["seconds"] < 2


@little_memory
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_an_odd_file_is_read_right(odd: Odd, folder: Path, outcomes: dict[str, dict[str, Any]]) -> None:
    assert outcomes[odd.name]["error"] == outcomes[odd.name]["crash"] == ""
    volume = hostile.read(folder / odd.name)
    np.testing.assert_array_equal(volume.data, odd.data, strict=volume.data.dtype != np.int32)  # scaled: wider
    np.testing.assert_allclose(volume.affine, odd.affine, rtol=1e-6, atol=1e-9 if "met" in odd.name else 1e-5)
    assert odd.note in " ".join(volume.notes) and bool(odd.note) == bool(volume.notes)


@little_memory
def test_the_child_has_little_memory(folder: Path, outcomes: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """The control: an honest file of 256 MB, deflated to 261 KB, is read where there is the memory, else refused.

    It is no different from a large mask in which nothing was found, so it has to be read; what it must not do is to
    take more than the voxels that its header announces.
    """
    bomb = tmp_path / "bomb.nii.gz"
    header = hostile.nifti_bytes(np.zeros((1, 1, 1), np.uint8), **{"dim[1]": 1024, "dim[2]": 512, "dim[3]": 512})[:352]
    bomb.write_bytes(hostile.packed(header) + 16 * hostile.packed(bytes(16 << 20)))
    assert bomb.stat().st_size < 300_000
    little = hostile.read_with_little_memory(tmp_path)[bomb.name]
    assert "needs more memory than there is" in little["error"] and little["seconds"] < 1
    enough = hostile.read_with_little_memory(tmp_path, 256 + 96)[bomb.name]
    assert enough["error"] == enough["crash"] == ""


@posix
def test_nothing_is_left_open(folder: Path) -> None:
    process = psutil.Process()
    before = process.num_fds()
    for case in (*FAULTS, *ODD):
        hostile.outcome(folder / case.name)
    gc.collect()
    assert process.num_fds() <= before


@pytest.mark.parametrize("name", ["folder.nii", "absent.nii.gz", "folder.nii/below.nii", "x" * 300 + ".nii", "a\0.nii"], ids=ascii)
def test_what_is_no_file(name: str, folder: Path) -> None:
    with pytest.raises(UNetError, match=r"it is a folder\. Give|cannot be read \(.+\)\. Check"):
        images.read(folder / name)


@little_memory
@pytest.mark.parametrize("fault", [f for f in hostile.header_faults() if "it goes on" not in f.says[0]], ids=lambda f: f.name)
def test_peeking_says_the_same_as_reading(fault: Fault, folder: Path, outcomes: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(UNetError) as caught:
        nifti.peek(folder / fault.name)
    assert str(caught.value) == outcomes[fault.name]["error"]


@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_of_a_compressed_file_goes_unnoticed(seed: int, tmp_path: Path) -> None:
    """nibabel reads three of four such files with wrong voxels or geometry."""
    rng = random.Random(seed)
    noise = np.random.default_rng(seed).integers(0, 4, (12, 13, 14)).astype((np.uint8, np.int16, np.float32)[seed])
    content = hostile.packed(hostile.nifti_bytes(noise, hostile.affine_for(tilt=seed * 10)))
    good, same = nifti_read(tmp_path, content), 0
    for bit in rng.sample(range(8 * len(content)), 200):
        try:
            volume = nifti_read(tmp_path, hostile.flipped(content, bit))
        except UNetError:
            continue
        assert volume.data.tobytes() == good.data.tobytes() and (volume.affine == good.affine).all()
        same += 1  # gzip's header has a time, for example, which has no say in the content
    assert same < 10


def nifti_read(folder: Path, content: bytes) -> Volume:
    (folder / "scan.nii.gz").write_bytes(content)
    return images.read(folder / "scan.nii.gz")


VALUES = {
    "f": (np.nan, np.inf, -np.inf, 0, -1, 1e38, 1e-38, 1e-45, 2, 0.5, 1e300),
    "i": (0, 1, -1, 2, 7, 8, 100, 127, 255, 32767, -32768, 2**31 - 1, 2**40),
}


def damaged_header(rng: random.Random) -> bytes:
    """A good header of either kind in either byte order, up to three of whose fields hold something extreme."""
    kind, order = rng.choice([Nifti1Header, Nifti2Header]), rng.choice("<>")
    block = bytearray(hostile.nifti_bytes(np.zeros(rng.choice([(3, 4, 5), (4, 5), (3, 4, 5, 2)]), np.int16), kind=kind, order=order,
                                          sform_code=rng.choice([0, 1]), qform_code=rng.choice([0, 1])))  # fmt: skip
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice([name for name in kind.template_dtype.names if name not in ("sizeof_hdr", "magic")])
        dtype, offset = kind.template_dtype.fields[name][:2]
        values = VALUES.get(dtype.base.kind.replace("u", "i"), (0,))
        with np.errstate(all="ignore"):
            value = np.array(rng.choice(values)).astype(dtype.base.newbyteorder(order)).tobytes()
        place = offset + rng.randrange(dtype.itemsize // dtype.base.itemsize) * dtype.base.itemsize
        block[place : place + len(value)] = value
    return bytes(block)


def test_thousands_of_damaged_headers() -> None:
    """Each gives a UNetError, or a geometry that survives being written back, to the bit and without a warning."""
    rng, refused = random.Random(20261123), 0
    warnings.simplefilter("error")
    for _ in range(1500):
        block = damaged_header(rng)
        try:
            parsed = header.parse(block, "scan.nii")
        except UNetError:
            refused += 1
            continue
        volume = Volume(np.broadcast_to(np.uint8(0), (*parsed.shape, 1)[:3]), parsed.affine, parsed.raw, shape_on_disk=parsed.shape)
        assert set("RLAPSI") > set(volume.orientation)
        written = nifti._header_for(volume, volume.data, labels=True)
        assert (header.parse(written.binaryblock + bytes(192), "mask.nii").affine == parsed.affine).all()
    assert 150 < refused < 1350
