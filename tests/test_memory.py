"""What a segmentation takes is told from headers: without voxels, without torch, and about as much as it really takes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from engine import model_spec, network_spec, volume
from hostile import affine_for
from PIL import Image

from napari_unet import images, weights
from napari_unet.card import Card
from napari_unet.components import Cleaning
from napari_unet.dataset import Case, read_image
from napari_unet.errors import UNetError
from napari_unet.memory import estimate, fit
from napari_unet.network import parameter_shapes
from napari_unet.outline import Outline, outline
from napari_unet.spec import ModelSpec
from napari_unet.spool import SLAB
from napari_unet.torch_runtime import PAIR
from napari_unet.volume import Volume


def written(path: Path, dtype: str = "i2", shape: tuple[int, ...] = (6, 7, 8), slope: float = 1) -> Path:
    """A file of any kind, with a slope where it is to be scaled."""
    data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    if path.suffix in (".png", ".jpg"):
        Image.fromarray(data).save(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, data)
    else:
        kind = nibabel.MGHImage if path.suffix in (".mgz", ".mgh") else nibabel.Nifti1Pair if path.suffix == ".img" else nibabel.Nifti1Image
        image = kind(data, affine_for("LPS", (1.0, 2.0, 3.0)))
        if slope != 1:
            image.header.set_slope_inter(slope, 2)
        nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("name", "dtype", "shape", "slope"), [
    ("a.nii.gz", "i2", (6, 7, 8), 1), ("a.nii", "f4", (6, 7, 8, 3), 1), ("a.nii.gz", "u1", (6, 7, 8), 0.5), ("a.nii", "i2", (6, 7), 1),
    ("a.nii", "i2", (6, 7, 8, 1, 2), 1), ("a.img", "i2", (6, 7, 8), 1), ("a.mgz", "f4", (6, 7, 8), 1), ("a.mgz", "u1", (6, 7, 8, 2), 1),
    ("a.png", "u1", (6, 7), 1), ("a.png", "u1", (6, 7, 3), 1), ("a.jpg", "u1", (6, 7, 3), 1), ("a.tif", "u2", (6, 7), 1),
    ("a.tif", "f4", (6, 7), 1), ("a.png", "u2", (6, 7), 1),
])  # fmt: skip
def test_the_outline_is_that_of_the_image(tmp_path: Path, name: str, dtype: str, shape: tuple[int, ...], slope: float) -> None:
    case = Case("a", (written(tmp_path / name, dtype, shape, slope),))
    told, image = outline(case), read_image(case)
    assert (told.shape, told.channels, told.nbytes) == (image.shape, image.channels, image.data.nbytes)
    assert told.dtype.kind == image.data.dtype.kind and told.reading >= told.nbytes
    np.testing.assert_allclose(told.affine, image.affine, atol=1e-5)


@pytest.mark.parametrize("unit", [1, 2, 3])
def test_a_pair_is_outlined_with_its_units(tmp_path: Path, unit: int) -> None:
    """Metres, millimetres, micrometres: nibabel passes over them."""
    image = nibabel.Nifti1Pair(np.zeros((6, 7, 8), np.int16), affine_for("LPS", (1.0, 2.0, 3.0)))
    image.header["xyzt_units"] = unit
    nibabel.save(image, tmp_path / "a.img")
    for name in ("a.img", "a.hdr"):
        case = Case("a", (tmp_path / name,))
        np.testing.assert_allclose(outline(case).affine, read_image(case).affine, rtol=1e-6)
        assert outline(case).shape == (6, 7, 8) and outline(case).dtype == np.int16


def test_channel_files_are_one_image(tmp_path: Path) -> None:
    case = Case("a", tuple(written(tmp_path / f"a_000{n}.nii.gz", dtype) for n, dtype in enumerate(("i2", "f4"))))
    told, image = outline(case), read_image(case)
    assert (told.channels, told.nbytes, told.dtype) == (image.channels, image.data.nbytes, image.data.dtype)
    assert told.reading > 1.5 * told.nbytes


@pytest.mark.parametrize("header", [None, b"", b"x" * 100])
def test_of_a_pair_whose_header_is_damaged_nobody_invents_a_size(tmp_path: Path, header: bytes | None) -> None:
    written(tmp_path / "a.img")
    (tmp_path / "a.hdr").unlink() if header is None else (tmp_path / "a.hdr").write_bytes(header)
    case = Case("a", (tmp_path / "a.img",))
    with pytest.raises(UNetError, match=r"a\.(hdr|img): "):
        outline(case), read_image(case)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz", "a.png", "a.tif"])
def test_of_a_damaged_file_nobody_invents_a_size(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b nothing")
    case = Case("a", (tmp_path / name,))
    with pytest.raises(UNetError, match=name):
        outline(case), read_image(case)


def test_a_grid_that_is_none_is_refused_from_the_header(tmp_path: Path) -> None:
    affine = affine_for("LPS", (1.0, 2.0, 3.0))
    affine[:, 1] = 0
    nibabel.save(nibabel.MGHImage(np.zeros((4, 5, 6), np.float32), affine), tmp_path / "a.mgz")
    with pytest.raises(UNetError, match=r"a\.mgz: its affine \[.+\] does not place voxels in space"):
        outline(Case("a", (tmp_path / "a.mgz",)))


def honest_giant(path: Path) -> Path:
    """A file that claims 4 TB and has them, all holes."""
    head = nibabel.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.eye(4)).header
    head.set_data_shape((16384, 16384, 8192))
    head["vox_offset"], head["magic"] = 352, b"n+1"
    with open(path, "wb") as file:
        file.write(head.binaryblock + bytes(4))
        file.truncate(352 + 2 * 16384 * 16384 * 8192)
    return path


def test_a_giant_is_refused_with_numbers_before_a_voxel_is_read(tmp_path: Path) -> None:
    try:
        path = honest_giant(tmp_path / "giant.nii")
    except OSError:
        pytest.skip("this disk has no files of 4 TB, holes or not")
    begun = time.monotonic()
    with pytest.raises(UNetError, match=r"giant\.nii: needs \d{5}\.\d GB of memory, \d+\.\d GB are free\. Close other"):
        fit(outline(Case("giant", (path,))), model_spec(), path)
    assert time.monotonic() - begun < 5


def test_neither_torch_nor_monai_is_needed() -> None:
    code = ("import sys, napari_unet.memory, napari_unet.outline, napari_unet.ledger, napari_unet.targets\n"
            "print({'torch', 'monai', 'napari'} & set(sys.modules))")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def image_of(shape: tuple[int, int, int], dtype: str = "i2", spacing: tuple[float, ...] = (1, 1, 1)) -> Outline:
    return Outline(shape, 1, np.dtype(dtype), affine_for("LSP", spacing))


def test_more_of_anything_takes_more() -> None:
    spec, image = model_spec(network_spec(features=(8, 16)), patch=(32, 32, 32)), image_of((100, 110, 120))
    plain = estimate(image, spec).needed
    fine = replace(spec, spacing=(0.5, 0.5, 0.5))
    large = replace(spec, network=network_spec(features=(64, 128)))
    assert all(more > plain for more in (
        estimate(image_of((200, 110, 120)), spec).needed, estimate(image_of((100, 110, 120), "f8"), spec).needed,
        estimate(image, fine).needed, estimate(image, large).segmenting + plain - estimate(image, spec).segmenting,
        estimate(image, spec, uncertainty=True).needed,
    ))  # fmt: skip
    assert estimate(image, spec, in_flight=8).segmenting > estimate(image, spec).segmenting
    ensemble = replace(spec, members=5)
    assert estimate(image, ensemble, uncertainty=True).segmenting > estimate(image, ensemble).segmenting
    assert estimate(image, spec, cleaning=Cleaning((1,))).cleaning > estimate(image, spec).cleaning


@pytest.mark.parametrize("dims", [2, 3])
def test_what_does_not_fit_is_done_in_fewer_then_in_smaller_windows(dims: int) -> None:
    """From plenty of memory down to none, each way takes less than the one before, and the last is a refusal."""
    spec = model_spec(network_spec(dims, features=(32, 64)), patch=(1 if dims == 2 else 48, 64, 96))
    image = image_of((200, 220, 240))
    free, ways = 1 << 40, []
    while True:
        try:
            found = fit(image, spec, "scan", in_flight=4, free=free)
        except UNetError as error:
            refused = str(error)
            break
        assert found.estimate.needed <= free and bool(found.note) == (found.spec.patch != spec.patch)
        assert replace(found.spec, patch=spec.patch) == spec
        ways.append((found.in_flight, found.spec.patch))
        free = found.estimate.needed - 1
    assert [count for count, patch in ways if patch == spec.patch] == [4, 2, 1]
    smaller = [patch for count, patch in ways if patch != spec.patch]
    assert smaller and all(count == 1 for count, patch in ways if patch != spec.patch)
    assert all(n % s == 0 and (n >= 2 * s or n == 1) for patch in smaller for n, s in zip(patch, spec.stride, strict=True))
    assert re.fullmatch(r"scan: needs \d+\.\d GB of memory, \d+\.\d GB are free\. Close .+", refused)


def test_no_window_is_made_smaller_where_the_image_itself_does_not_fit() -> None:
    image = image_of((512, 512, 1000))
    with pytest.raises(UNetError, match=r"^scan: needs 1\.\d GB of memory, 0\.1 GB are free\."):
        fit(image, model_spec(), "scan", free=100_000_000)


def test_more_slices_of_a_zarr_take_no_more() -> None:
    """Where its mask is written while it is made; a mask that is cleaned, or goes elsewhere, is there as a whole."""
    spec = model_spec(network_spec(2, features=(8, 16)), patch=(1, 512, 512))
    few, many = (Outline((512, 512, n), 1, np.dtype("i2"), np.eye(4), 1 << 25, 1 << 25, (64, 64, 64)) for n in (200, 1000))
    assert estimate(few, spec, streamed=True).needed == estimate(many, spec, streamed=True).needed
    assert estimate(few, spec).needed < estimate(many, spec).needed
    assert estimate(many, spec, streamed=True).needed < estimate(many, spec).needed


@pytest.mark.parametrize(("uncertainty", "width"), [(False, 2), (True, 2 + 4)])
def test_of_a_nifti_that_is_written_while_it_is_made_a_slab_is_held(uncertainty: bool, width: int) -> None:
    """Of so many bytes, however wide its voxels are."""
    spec, image = model_spec(patch=(8, 32, 32)), image_of((500, 500, 400))
    whole, streamed = (estimate(image, spec, uncertainty=uncertainty, streamed=streamed).segmenting for streamed in (False, True))
    assert whole - streamed == width * 500 * 500 * 400 - SLAB


def test_the_axes_are_the_models_however_voxels_are_stored() -> None:
    spec = model_spec(network_spec(features=(8, 16)), spacing=(4.0, 1.0, 2.0), patch=(32, 32, 32))
    needed = {estimate(Outline(shape, 1, np.dtype("i2"), affine_for(orientation, spacing)), spec)
              for orientation, shape, spacing in (("SAR", (40, 50, 60), (3, 2, 1)), ("RAS", (60, 50, 40), (1, 2, 3)),
                                                  ("PIL", (50, 40, 60), (2, 3, 1)))}  # fmt: skip
    assert len(needed) == 1


MEASURE = """
import sys, threading, time, psutil
import torch
from napari_unet import Segmenter, read
torch.set_num_threads(int(sys.argv[4]))
segmenter, process, stop = Segmenter.load(sys.argv[1], device="cpu", runtime=sys.argv[3]), psutil.Process(), []
before = highest = process.memory_info().rss
def watch():
    global highest
    while not stop:
        highest = max(highest, process.memory_info().rss)
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
segmenter.segment(read(sys.argv[2]))
stop.append(True)
thread.join()
print(highest - before)
"""


def measured(model: Path, scan: Path, runtime: str, threads: int) -> int:
    """Bytes that segmenting a scan took at its peak."""
    command = [sys.executable, "-c", MEASURE, model, scan, runtime, str(threads)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def saved(path: Path, spec: ModelSpec) -> Path:
    """A model with weights of zero."""
    weights.save(path, spec, Card(), {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(spec.network).items()})
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process holds is counted in other ways elsewhere")
@pytest.mark.parametrize(("shape", "spec"), [
    ((256, 256, 96), model_spec(network_spec(2, features=(4, 8)), patch=(1, 128, 128), spacing=(0, 1.25, 1.25), overlap=0.0)),
    ((128, 128, 64), model_spec(network_spec(3, features=(16, 32)), patch=(48, 48, 48), spacing=(1.0, 1.0, 1.0), overlap=0.0)),
], ids=["many slices", "a wide network"])  # fmt: skip
def test_it_is_about_what_is_taken(tmp_path: Path, shape: tuple[int, ...], spec: ModelSpec) -> None:
    model, scan = saved(tmp_path / "m.safetensors", spec), tmp_path / "a.nii"
    images.write(scan, Volume(volume((32, 32, 32)).data.repeat(8, 0).repeat(8, 1).repeat(8, 2)[tuple(map(slice, shape))],
                             affine_for("RAS", (1, 1, 1))), labels=False)  # fmt: skip
    told = estimate(outline(Case("a", (scan,))), spec, in_flight=PAIR).needed
    taken = measured(model, scan, "torch", 1)
    print(f"told {told / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB")
    assert taken <= told <= 3.5 * taken, f"told {told / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process holds is counted in other ways elsewhere")
@pytest.mark.parametrize(("shape", "spec"), [
    ((512, 512, 3), model_spec(network_spec(2, features=(16, 32)), patch=(1, 256, 256), overlap=0.0)),
    ((128, 128, 64), model_spec(network_spec(3, features=(16, 32)), patch=(48, 48, 48), overlap=0.0)),
], ids=["2-D", "3-D"])  # fmt: skip
def test_openvino_takes_about_as_much_as_is_told(tmp_path: Path, shape: tuple[int, ...], spec: ModelSpec) -> None:
    """Two windows at work, one that waits."""
    openvino_runtime = pytest.importorskip("napari_unet.openvino_runtime")
    model, scan = saved(tmp_path / "m.safetensors", spec), tmp_path / "a.nii"
    images.write(scan, Volume(np.tile(volume((64, 64, 64)).data, (8, 8, 1))[tuple(map(slice, shape))], np.eye(4)), labels=False)
    told = estimate(outline(Case("a", (scan,))), spec, in_flight=3, feature_maps=openvino_runtime.FEATURE_MAPS).needed
    taken = measured(model, scan, "openvino", 2)
    print(f"told {told / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB")
    assert taken <= 1.1 * told and told <= 2.5 * taken, f"told {told / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB"
