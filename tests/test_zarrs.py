"""Zarrs: the voxels and the place that the file means, masks beside it in its own layout, never half of one, never over the image."""

from __future__ import annotations

import gc
import json
import ntpath
import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import nibabel
import numpy as np
import pytest
from datasets import ONE_THREAD, _one_thread, scan  # noqa: F401 - a fixture
from engine import model_spec, network_spec, random_network
from test_cli import BOOKS, Outcome, call  # noqa: F401 - a fixture
from test_predict import contents, rows, saved

from napari_unet import Segmenter, intensities, read, write, zarrs
from napari_unet.batch import segment_all
from napari_unet.cases import find_images, list_images
from napari_unet.components import Cleaning
from napari_unet.dataset import Case, read_image
from napari_unet.errors import UNetError
from napari_unet.images import read_labels
from napari_unet.lazy import LazyArray
from napari_unet.outline import outline
from napari_unet.spec import Label
from napari_unet.targets import jobs_for
from napari_unet.volume import Volume
from napari_unet.zarrs import Draft

zarr = pytest.importorskip("zarr")

Call = Callable[..., Outcome]
NAMES = (Label(1, "liver", "#e6194b"), Label(2, "spleen", "#3cb44b"))
CHUNK = {"t": 1, "c": 1, "z": 5, "y": 8, "x": 16}
UNITS = {"t": {"type": "time", "unit": "second"}, "c": {"type": "channel"}} | {
    name: {"type": "space", "unit": "millimeter"} for name in "zyx"}  # fmt: skip


def axis(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, **UNITS[name], **changes}


def multiscales(axes: list[dict[str, Any]], *steps: dict[str, Any]) -> dict[str, Any]:
    datasets = [{"path": path, "coordinateTransformations": list(steps)} for path in ("full", "half")]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}


def stored(path: Path, data: np.ndarray, layout: str = "0.4", axes: str = "", told: dict[str, Any] | None = None, **options: Any) -> Path:
    """A zarr as others write it, by zarr alone: OME-Zarr 0.4 or 0.5, or an array of format 2 or 3."""
    axes = axes or "tczyx"[-data.ndim :]
    version = 2 if layout in ("0.4", "2") else 3
    options = {"chunks": tuple(CHUNK[name] for name in axes), "zarr_format": version} | options
    if layout in ("2", "3"):
        zarr.create_array(path, data=data, **options)
        return path
    steps = [{"type": "scale", "scale": [1.0] * data.ndim}]
    told = multiscales([axis(name) for name in axes], *steps) if told is None else told
    options.pop("zarr_format")
    group = zarr.open_group(path, mode="w", zarr_format=version, attributes=told if version == 2 else {"ome": {"version": "0.5", **told}})
    group.create_array("full", data=data, **options)
    group.create_array("half", data=data[..., ::2, ::2], **options)
    return path


def voxels(*shape: int) -> np.ndarray:
    """(z, y, x) in which a random network finds every class."""
    return np.ascontiguousarray(scan(3, shape[::-1])[0].data.T)


# --- reading


@pytest.mark.parametrize("layout", ["0.4", "0.5", "2", "3"])
@pytest.mark.parametrize("axes", ["zyx", "czyx", "tczyx", "tzyx"])
def test_voxels_lie_along_x_y_z(tmp_path: Path, layout: str, axes: str) -> None:
    sizes = {"t": 1, "c": 3, "z": 12, "y": 20, "x": 34}
    data = np.random.default_rng(0).integers(0, 999, [sizes[name] for name in axes]).astype(">i2")
    named = {"dimension_names": tuple(axes)} if layout == "3" else {}
    path = stored(tmp_path / "a.zarr", data, layout, axes, attributes={"_ARRAY_DIMENSIONS": list(axes)}, **named)
    image = read(path)
    assert isinstance(image.data, LazyArray) and image.data.dtype == np.int16 and image.source == str(path)
    assert image.shape == (34, 20, 12) and image.channels == sizes["c"] ** ("c" in axes)
    values = data.reshape(-1, 12, 20, 34)
    np.testing.assert_array_equal(np.asarray(image.data), values.transpose(3, 2, 1, 0))
    told = outline(Case("a", (path,)))
    assert (told.shape, told.channels, told.dtype, told.nbytes) == (image.shape, image.channels, image.data.dtype, image.data.nbytes)
    assert told.chunk == (16, 8, 5) and told.held == told.nbytes
    np.testing.assert_array_equal(told.affine, image.affine)


def test_a_nifti_file_and_a_zarr_of_its_array_are_one_image(tmp_path: Path) -> None:
    affine = np.diag([0.5, 0.75, 2.0, 1.0])
    affine[:3, 3] = -10, 20, 30
    image = scan(1)[0]
    write(tmp_path / "a.nii.gz", Volume(image.data, affine), labels=False)
    loaded = nibabel.load(tmp_path / "a.nii.gz")
    steps = {"type": "scale", "scale": [2.0, 0.75, 0.5]}, {"type": "translation", "translation": [30.0, 20.0, -10.0]}
    stored(tmp_path / "a.zarr", np.asarray(loaded.dataobj).transpose(2, 1, 0), told=multiscales([axis(n) for n in "zyx"], *steps))
    here, there = read(tmp_path / "a.nii.gz"), read(tmp_path / "a.zarr")
    np.testing.assert_allclose(there.affine, here.affine, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(there.data)[..., 0], here.data)
    assert there.orientation == "RAS" and len(there.notes) == 1 and "does not say how a patient lies" in there.notes[0]


def test_units_and_steps_are_put_together(tmp_path: Path) -> None:
    """A scale of all resolutions comes after the dataset's own, and moves what that translates."""
    axes = [axis("z", unit="micrometer"), axis("y", unit="nanometer"), axis("x", unit="centimeter")]
    told = multiscales(axes, {"type": "scale", "scale": [2, 500, 0.1]}, {"type": "translation", "translation": [10, 100, 1]})
    told["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [3, 2, 1]}]
    affine = read(stored(tmp_path / "a.zarr", voxels(5, 6, 7), told=told)).affine
    np.testing.assert_allclose(affine, [[1, 0, 0, 10], [0, 1e-3, 0, 2e-4], [0, 0, 6e-3, 3e-2], [0, 0, 0, 1]])


@pytest.mark.parametrize("angstroms", [0.5, 1.35, 10.0])
def test_molecules_are_as_good_as_bodies(angstroms: float, tmp_path: Path) -> None:
    told = multiscales([axis(name, unit="angstrom") for name in "zyx"], {"type": "scale", "scale": [angstroms] * 3})
    image = read(stored(tmp_path / "a.zarr", voxels(5, 6, 7), told=told))
    assert image.spacing == pytest.approx([angstroms * 1e-7] * 3, rel=1e-6)


def test_an_orientation_that_is_told_is_kept(tmp_path: Path) -> None:
    """RFC 4: z downwards, y to the back, x to the left."""
    ways = {"z": "superior-to-inferior", "y": "anterior-to-posterior", "x": "right-to-left"}
    axes = [axis(name, orientation={"type": "anatomical", "value": way}) for name, way in ways.items()]
    steps = {"type": "scale", "scale": [3, 2, 1]}, {"type": "translation", "translation": [30, 20, 10]}
    image = read(stored(tmp_path / "a.zarr", voxels(5, 6, 7), told=multiscales(axes, *steps)))
    np.testing.assert_array_equal(image.affine, [[-1, 0, 0, -10], [0, -2, 0, -20], [0, 0, -3, -30], [0, 0, 0, 1]])
    assert image.orientation == "LPI" and image.notes == ()


def test_zarrs_may_be_the_channels_of_one_image(tmp_path: Path) -> None:
    data = voxels(2, 5, 6, 7)
    paths = tuple(stored(tmp_path / f"a_000{n}.zarr", data[n], axes="zyx") for n in range(2))
    image = read_image(Case("a", paths))
    assert image.shape == (7, 6, 5) and image.channels == 2
    np.testing.assert_array_equal(image.data, data.transpose(3, 2, 1, 0))


def test_time_points(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 99, (3, 2, 5, 6, 7)).astype(np.uint8)
    stored(tmp_path / "tc.zarr", data)
    stored(tmp_path / "t.zarr", data[:, 0], axes="tzyx")
    with pytest.raises(UNetError, match=r"tc\.zarr: 3 time points of 2 channels\. Choose one of the time points \(--volume\)"):
        read(tmp_path / "tc.zarr")
    second = read_image(Case("a", (tmp_path / "tc.zarr",)), 1)
    np.testing.assert_array_equal(second.data, data[1].transpose(3, 2, 1, 0))
    assert read(tmp_path / "t.zarr").channels == 3
    np.testing.assert_array_equal(read_image(Case("a", (tmp_path / "t.zarr",)), 2).data[..., 0], data[2, 0].transpose(2, 1, 0))
    with pytest.raises(UNetError, match="volume 3 of 3. Choose 0 to 2"):
        read_image(Case("a", (tmp_path / "t.zarr",)), 3)


def test_without_z_it_is_a_picture(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 99, (2, 6, 7)).astype(np.uint8)
    image = read(stored(tmp_path / "a.zarr", data, axes="cyx"))
    assert image.shape == (6, 7, 1) and image.shape_on_disk == (6, 7) and image.notes == ()
    np.testing.assert_array_equal(np.asarray(image.data)[:, :, 0], data.transpose(1, 2, 0))


# --- segmenting


@pytest.mark.parametrize("flags", [(), ("--keep-largest", "all")])
def test_without_z_it_is_measured_as_a_picture(
    call: Call, model: Path, tmp_path: Path, flags: tuple[str, ...]  # noqa: F811
) -> None:
    spec = model_spec(network_spec(2, classes=3), labels=NAMES, pictures=True, patch=(1, 16, 16), orientation="SRA")
    flat = saved(tmp_path / "m.safetensors", spec, random_network(spec.network, 3))
    image = stored(tmp_path / "a.zarr", scan(0, (64, 48, 1))[0].data[..., 0])
    assert call("predict", flat, image, "--out", tmp_path / "masks", *flags).code == 0
    table = rows(tmp_path / "masks")
    assert len(table) == 2 and all(row["ml"] == "" and int(row["voxels"]) for row in table)
    assert {side for row in table for side in row["border"].split()} <= {"top", "bottom", "left", "right"}
    assert any("top" in row["border"] or "bottom" in row["border"] for row in table) or flags
    assert call("predict", model, image, "--out", tmp_path / "no").refused("a.zarr", "it is a picture", "reads volumes")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = model_spec(network_spec(3, classes=3), name="abdomen", labels=NAMES, orientation="SAR", spacing=(1.25, 1.0, 1.0))
    return saved(tmp_path_factory.mktemp("model") / "m.safetensors", spec, random_network(spec.network, 1))


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-D model that takes its slices across another axis than the one that chunks are stacked along."""
    spec = model_spec(network_spec(2, classes=3), name="flat", labels=NAMES, orientation="RSA")
    return saved(tmp_path_factory.mktemp("model") / "m.safetensors", spec, random_network(spec.network, 2))


def truth(model: Path, data: np.ndarray, **options: Any) -> np.ndarray:
    """The mask (z, y, x) of what is in memory."""
    return Segmenter.load(model, **options).segment(Volume(np.ascontiguousarray(data.T), np.eye(4))).data.T


@pytest.mark.parametrize("which", ["model", "flat"])
@pytest.mark.parametrize("layout", ["0.4", "0.5", "2", "3"])
def test_the_mask_is_that_of_the_array_in_its_own_layout(
    call: Call, request: pytest.FixtureRequest, tmp_path: Path, layout: str, which: str  # noqa: F811
) -> None:
    data, weights = voxels(12, 20, 34), request.getfixturevalue(which)
    image = stored(tmp_path / "in/a.ome.zarr", data, layout)
    before = contents(image)
    found = call("predict", weights, image, "--out", tmp_path / "masks/m.ome.zarr", "--json")
    assert found.code == 0 and [path.name for path in (tmp_path / "masks").iterdir()] == ["m.ome.zarr"] and contents(image) == before
    opened = zarr.open(tmp_path / "masks/m.ome.zarr", mode="r")
    mask = opened if layout in ("2", "3") else opened["0"]
    expected = truth(weights, data)
    assert mask.dtype == np.uint8 and mask.chunks == (5, 8, 16) and mask.metadata.zarr_format == (2 if layout in ("2", "0.4") else 3)
    np.testing.assert_array_equal(mask[:], expected)
    assert [row["voxels"] for row in found.json()["volumes"]] == [int((expected == n).sum()) for n in (1, 2)]
    np.testing.assert_array_equal(read_labels(tmp_path / "masks/m.ome.zarr").data.T, expected)


def test_it_is_a_label_image_that_others_understand(call: Call, model: Path, tmp_path: Path) -> None:  # noqa: F811
    data = np.stack([voxels(12, 20, 34)[None]] * 2)
    steps = {"type": "scale", "scale": [60, 1, 2e3, 900, 1100]}, {"type": "translation", "translation": [0, 0, 7, 8, 9]}
    axes = [axis(name, **({"unit": "micrometer"} if name in "zyx" else {})) for name in "tczyx"]
    for layout in ("0.4", "0.5"):
        image = stored(tmp_path / f"in/a{layout}.zarr", data, layout, told=multiscales(axes, *steps))
        assert call("predict", model, image, "--volume", "1", "--out", tmp_path / f"m{layout}.zarr").code == 0
        assert zarr.open_group(tmp_path / f"m{layout}.zarr", mode="r")["0"][:].any()
        told = dict(zarr.open_group(tmp_path / f"m{layout}.zarr", mode="r").attrs)
        if layout == "0.5":
            assert told["ome"].pop("version") == "0.5"
            told = told["ome"]
        else:
            assert told["multiscales"][0].pop("version") == told["image-label"].pop("version") == "0.4"
            assert list((tmp_path / "m0.4.zarr/0").glob("[0-9]/[0-9]/[0-9]"))  # nested chunks, as 0.4 wants them
        assert told["multiscales"] == [{"name": f"m{layout}", "axes": axes[2:], "datasets": [
            {"path": "0", "coordinateTransformations": [
                {"type": "scale", "scale": [2e3, 900.0, 1100.0]}, {"type": "translation", "translation": [7.0, 8.0, 9.0]}]}]}]  # fmt: skip
        assert told["image-label"] == {
            "colors": [{"label-value": 1, "rgba": [0xE6, 0x19, 0x4B, 255]}, {"label-value": 2, "rgba": [0x3C, 0xB4, 0x4B, 255]}],
            "properties": [{"label-value": 1, "name": "liver"}, {"label-value": 2, "name": "spleen"}],
            "source": {"image": f"../in/a{layout}.zarr"},
        }  # fmt: skip
        np.testing.assert_array_equal(read(tmp_path / f"m{layout}.zarr").affine, read_image(Case("a", (image,)), 0).affine)


def test_a_folder_of_them(call: Call, model: Path, tmp_path: Path) -> None:  # noqa: F811
    for n in range(3):
        stored(tmp_path / f"in/a{n}.zarr", voxels(12, 20 + n, 34), "0.5")
    write(tmp_path / "in/b.nii.gz", scan(0)[0], labels=False)
    (tmp_path / "in/a1.zarr/full/zarr.json").unlink()
    found = call("predict", model, tmp_path / "in", "--out", tmp_path / "masks", "--uncertainty", "--json")
    assert found.code == 1 and [failure["case"] for failure in found.json()["failed"]] == ["a1"] and "'full' is missing" in found.err
    made = {"b.nii.gz", "b_uncertainty.nii.gz", *(f"a{n}{end}.zarr" for n in (0, 2) for end in ("", "_uncertainty"))}
    assert {path.name for path in (tmp_path / "masks").iterdir()} == made | set(BOOKS)
    doubt = zarr.open_group(tmp_path / "masks/a2_uncertainty.zarr", mode="r")
    assert "image-label" not in doubt.attrs["ome"] and doubt["0"].dtype == np.float32 and 0 < doubt["0"][:].max() <= 1
    assert {row["case"] for row in rows(tmp_path / "masks")} == {"a0", "a2", "b"}
    before = contents(tmp_path / "masks")
    again = call("predict", model, tmp_path / "in", "--out", tmp_path / "masks", "--uncertainty", "--resume", "--json")
    assert again.code == 1 and again.json()["finished_before"] == 3 and contents(tmp_path / "masks") == before


def test_the_share_of_the_work_follows_what_is_in_an_images_folder(model: Path, tmp_path: Path) -> None:
    """A folder's own size on disk says nothing."""
    for name, slices in (("a", 4), ("b", 36)):
        stored(tmp_path / f"in/{name}.zarr", np.random.default_rng(0).integers(0, 30_000, (slices, 16, 16), np.int16))
    jobs = jobs_for(find_images([tmp_path / "in"]), tmp_path / "out")
    ends = [step.share for step in segment_all(Segmenter.load(model), jobs, Cleaning()) if step.over]
    assert ends == [pytest.approx(0.1, abs=0.05), 1]


def test_cleaned_masks_and_other_files(call: Call, model: Path, tmp_path: Path) -> None:  # noqa: F811
    image = stored(tmp_path / "a.zarr", voxels(12, 20, 34))
    assert call("predict", model, image, "--out", tmp_path / "m.zarr", "--keep-largest", "all").code == 0
    assert call("predict", model, image, "--out", tmp_path / "m.nii.gz", "--keep-largest", "all").code == 0
    assert call("predict", model, image, "--out", tmp_path / "m.nii").code == 0
    mask, cleaned, whole = (read_labels(tmp_path / name) for name in ("m.zarr", "m.nii.gz", "m.nii"))
    np.testing.assert_array_equal(mask.data, cleaned.data)
    np.testing.assert_allclose(cleaned.affine, mask.affine, atol=1e-6)
    assert (cleaned.data > 0).sum() < (whole.data > 0).sum()
    write(tmp_path / "python.zarr", Segmenter.load(model).segment(read(image)))
    np.testing.assert_array_equal(read_labels(tmp_path / "python.zarr").data, whole.data)


KILLED = """
import os, signal, sys
def count(event, arguments):
    if event == "os.rename" and str(arguments[0]).endswith(".partial") and str(arguments[1]).endswith(".zarr"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
from napari_unet.cli import main
main()
"""


def test_killed_before_the_last_moment_leaves_no_mask(call: Call, model: Path, tmp_path: Path) -> None:  # noqa: F811
    ask = ["predict", str(model), str(stored(tmp_path / "a.zarr", voxels(12, 20, 34))), "--out", str(tmp_path / "masks"), "--resume"]
    child = subprocess.run([sys.executable, "-c", KILLED, *ask], check=False, env=os.environ | ONE_THREAD)
    left = [path for path in (tmp_path / "masks").iterdir() if path.name not in BOOKS]
    assert child.returncode == -signal.SIGKILL and len(left) == 1 and left[0].suffix == ".partial" and left[0].is_dir()
    assert call(*ask).code == 0
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {"a.zarr", *BOOKS}
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "masks/a.zarr", mode="r")["0"][:], truth(model, voxels(12, 20, 34)))


def test_killed_while_an_old_mask_is_replaced_loses_neither(call: Call, model: Path, tmp_path: Path) -> None:  # noqa: F811
    """The old one is moved aside at that moment; whatever is written into the folder next gives it back."""
    path, mask = stored(tmp_path / "a.zarr", voxels(12, 20, 34)), tmp_path / "masks/m.zarr"
    old = contents(stored(mask, np.ones((12, 20, 34), np.uint8)))
    ask = ["predict", str(model), str(path), "--out", str(mask), "--overwrite"]
    child = subprocess.run([sys.executable, "-c", KILLED, *ask], check=False, env=os.environ | ONE_THREAD)
    assert child.returncode == -signal.SIGKILL and not mask.exists()
    write(tmp_path / "masks/other.nii", scan(0)[1])
    assert {path.name for path in mask.parent.iterdir()} == {"m.zarr", "other.nii"} and contents(mask) == old
    assert call(*ask).code == 0 and {path.name for path in mask.parent.iterdir()} == {"m.zarr", "other.nii"}
    np.testing.assert_array_equal(zarr.open_group(mask, mode="r")["0"][:], truth(model, voxels(12, 20, 34)))


def test_what_exists_is_replaced_only_when_asked_and_the_image_never(call: Call, model: Path, tmp_path: Path) -> None:  # noqa: F811
    image = stored(tmp_path / "plate.zarr/A/a.zarr", voxels(12, 20, 34))
    before = contents(tmp_path)
    for out, words in ((image, "replace its own image"), (tmp_path / "plate.zarr", "replace the folder of the image"),
                       (image / "labels/m.zarr", "written into the image"), (image / "labels", "written into the image")):  # fmt: skip
        assert call("predict", model, image, "--out", out, "--overwrite").refused(words, "another --out")
    write(tmp_path / "b.nii.gz", scan(0)[0], labels=False)
    assert call("predict", model, tmp_path / "b.nii.gz", "--out", tmp_path / "m.zarr").refused("is not a zarr", ".nii.gz")
    (tmp_path / "b.nii.gz").unlink()
    assert contents(tmp_path) == before
    ask = ("predict", model, image, "--out", tmp_path / "m.zarr")
    assert call(*ask).code == 0
    made = contents(tmp_path / "m.zarr")
    (tmp_path / "m.zarr/mine.txt").write_text("mine")
    assert call(*ask).refused("m.zarr", "exists already")
    assert (tmp_path / "m.zarr/mine.txt").exists()
    assert call(*ask, "--overwrite").code == 0 and contents(tmp_path / "m.zarr") == made
    (tmp_path / "m.zarr/.zgroup").unlink()
    assert call(*ask, "--overwrite").refused("m.zarr", "is no zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"plate.zarr", "m.zarr"}


def test_a_draft_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    image = read(stored(tmp_path / "a.zarr", voxels(12, 20, 34)))
    draft = Draft(tmp_path / "m.zarr", image, np.dtype(np.uint8), NAMES)
    draft[slice(0, 34), slice(0, 20), slice(0, 5)] = np.ones((34, 20, 5), np.uint8)
    assert len(list(tmp_path.iterdir())) == 2
    draft.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.fixture
def no_cycles_wait() -> Iterator[None]:
    """What is in cycles is collected soon, however large the process is that other tests have left; else it would count as held."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50, 1, 1)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("no_cycles_wait")
def test_memory_does_not_grow_with_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the slices take no more at the peak: neither of the image nor of the mask, cache of chunks and layers included."""
    monkeypatch.setattr(zarrs, "LEAST_CACHE", 1 << 16)
    monkeypatch.setattr(intensities, "SLAB", 1 << 15)
    spec = model_spec(network_spec(2, classes=3), labels=NAMES, orientation="SAR", patch=(1, 64, 64))
    segmenter, peaks = Segmenter(spec, random_network(spec.network)), []
    for n, slices in enumerate((20, 20, 80)):  # the first one pays for what is only paid for once
        stored(tmp_path / f"a{n}.zarr", np.tile(voxels(20, 64, 64), (slices // 20, 1, 1)))
        (job,) = jobs_for(find_images([tmp_path / f"a{n}.zarr"]), tmp_path / f"m{n}.zarr")
        tracemalloc.start()
        try:
            assert not [step for step in segment_all(segmenter, [job], Cleaning()) if step.error]
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    print(f"{peaks[1] / 1e3:.0f} and {peaks[2] / 1e3:.0f} kB")
    assert peaks[2] < peaks[1] + 64 * 64 * 20  # a byte per voxel of a quarter of the mask


# --- what is refused


def hostile() -> dict[str, tuple[Callable[[Path], object], str]]:
    """Name -> what is done to a good image, and the words that refuse it."""

    def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
        def change(path: Path) -> None:
            text = (path / name).read_text()
            assert old in text
            (path / name).write_text(text.replace(old, new))

        return change

    def fill(data: np.ndarray) -> Callable[[Path], object]:
        return lambda path: stored(path, data)

    def cut(path: Path) -> None:
        chunk = next(p for p in sorted((path / "full").rglob("*")) if p.is_file() and not p.name.startswith("."))
        chunk.write_bytes(chunk.read_bytes()[:-20])

    def emptied(path: Path) -> None:
        shutil.rmtree(path)
        zarr.open_group(path, mode="w", zarr_format=2)

    def filed(path: Path) -> None:
        shutil.rmtree(path)
        path.write_bytes(b"PK")

    noise = voxels(12, 20, 34)
    return {
        "no attributes": (lambda path: (path / ".zattrs").unlink(), r"group of others \(full half\)\. Give one of them, such as .*full"),
        "broken attributes": (lambda path: (path / ".zattrs").write_text("{"), "cannot be read as zarr"),
        "no datasets": (edit(".zattrs", '"datasets"', '"data"'), "multiscales cannot be understood .*'datasets'"),
        "no array": (lambda path: shutil.rmtree(path / "full"), "its array 'full' is missing"),
        "a group for an array": (lambda path: [shutil.rmtree(path / "full"), zarr.open_group(path / "full", zarr_format=2)], "is no array"),
        "a path out of it": (edit(".zattrs", '"path": "full"', '"path": "../../etc"'), "cannot be read as zarr|is missing"),
        "an empty group": (emptied, "there is no array in it"),
        "a file": (filed, "a file, not a folder"),
        "another unit": (edit(".zattrs", '"millimeter"', '"parsec"'), "the unit 'parsec' of its axis x"),
        "two axes of a name": (edit(".zattrs", '"name": "y"', '"name": "x"'), "multiscales cannot be understood"),
        "too few axes": (edit(".zattrs", '"scale": [', '"scale": [2.0,'), "multiscales cannot be understood"),
        "a scale of zero": (fill_told({"type": "scale", "scale": [0, 1, 1]}), "does not place voxels in space"),
        "a scale of words": (fill_told({"type": "scale", "scale": ["a", 1, 1]}), "multiscales cannot be understood"),
        "another transformation": (fill_told({"type": "affine", "affine": [[1]]}), "multiscales cannot be understood .*affine"),
        "a codec that is missing": (edit("full/.zarray", '"blosc"', '"nonesuch"'), "cannot be read as zarr .*nonesuch"),
        "broken metadata": (edit("full/.zarray", '"shape"', '"form"'), "its dataset 'full' is no array|cannot be read as zarr"),
        "a damaged chunk": (cut, "a chunk of it cannot be read"),
        "words": (fill(np.full((5, 6, 7), "a", "U4")), "voxels of type <U4"),
        "complex numbers": (fill(noise.astype(np.complex64)), "voxels of type complex64"),
        "not a number": (fill(np.where(noise > 170, np.nan, noise).astype(np.float32)), "voxels are NaN or infinite"),
        "nothing to see": (fill(np.zeros_like(noise)), "every voxel of channel 0 has the value 0"),
        "a channel too many": (fill(np.stack([noise, noise])), "2 channels, the model abdomen reads 1"),
    }  # fmt: skip


def fill_told(step: dict[str, Any]) -> Callable[[Path], object]:
    return lambda path: stored(path, voxels(12, 20, 34), told=multiscales([axis(name) for name in "zyx"], step))


@pytest.mark.parametrize("fault", hostile())
def test_one_sentence_refuses_it(call: Call, model: Path, tmp_path: Path, fault: str) -> None:  # noqa: F811
    damage, words = hostile()[fault]
    path = stored(tmp_path / "a.zarr", voxels(12, 20, 34))
    damage(path)
    found = call("predict", model, path, "--out", tmp_path / "m.zarr")
    assert found.refused() and re.search(words, found.err.splitlines()[-1]), found.err
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_what_a_codec_would_run_is_not_run(call: Call, model: Path, tmp_path: Path, place: str) -> None:  # noqa: F811
    path, trap = stored(tmp_path / "a.zarr", voxels(12, 20, 34)), tmp_path / "run"
    told = json.loads((path / "full/.zarray").read_text())
    codec = {"id": "pickle", "protocol": 5}
    (path / "full/.zarray").write_text(json.dumps(told | {"compressor": None, place: [codec] if place == "filters" else codec}))
    for chunk in (p for p in (path / "full").rglob("*") if p.is_file() and not p.name.startswith(".")):
        chunk.write_bytes(f"cposix\nmkdir\n(V{trap}\ntR.".encode())
    assert call("predict", model, path, "--out", tmp_path / "m.zarr").refused("cannot be read as zarr", "pickle")
    assert not trap.exists()


def test_without_zarr_a_sentence_says_what_to_install(model: Path, tmp_path: Path) -> None:
    path = stored(tmp_path / "a.zarr", voxels(12, 20, 34))
    code = "import sys; sys.modules['zarr'] = None; from napari_unet.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "predict", model, path, "--out", tmp_path / "m.zarr"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD)
    assert found.returncode == 2 and "reading it needs zarr" in found.stderr and "napari-unet-monai[zarr]" in found.stderr


@pytest.mark.parametrize("address", ["https://example.org/a.zarr", "s3://bucket/a.ome.zarr", "http://example.org/a.nii.gz"])
def test_addresses_are_refused(address: str) -> None:
    for path in (address, Path(address)):
        with pytest.raises(UNetError, match=r"it is an address, not a path\. Copy what is there to this machine first"):
            list_images(path)


def test_a_group_or_array_inside_of_one_is_an_image(call: Call, model: Path, tmp_path: Path) -> None:  # noqa: F811
    path = stored(tmp_path / "plate.zarr/A/1", voxels(12, 20, 34))
    assert call("predict", model, path, "--out", tmp_path / "masks").code == 0
    assert (tmp_path / "masks/1.zarr/.zgroup").exists()
    assert read(path / "full").shape == (34, 20, 12)


def test_what_cannot_be_begun_leaves_nothing(tmp_path: Path) -> None:
    """Neither the mask, where its uncertainty cannot be begun, nor what was made of a zarr before it failed."""
    spec = model_spec(network_spec(2, classes=3), labels=NAMES, orientation="SAR", patch=(1, 64, 64))
    stored(tmp_path / "a.zarr", voxels(12, 20, 34))
    (tmp_path / "m_uncertainty.zarr").mkdir()
    (job,) = jobs_for(find_images([tmp_path / "a.zarr"]), tmp_path / "m.zarr", uncertainty=True)
    segmenter = Segmenter(spec, random_network(spec.network), uncertainty=True)
    *_, step = segment_all(segmenter, [job], Cleaning())
    assert "something else has this name" in str(step.error)
    with pytest.raises(TypeError):
        Draft(tmp_path / "m.zarr", read(tmp_path / "a.zarr"), "no type", NAMES)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "m_uncertainty.zarr"]


def test_on_another_drive_the_image_is_named_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarrs.os.path, "relpath", ntpath.relpath)
    assert zarrs._from(PureWindowsPath("C:/masks/m.zarr"), PureWindowsPath("D:/scans/a.zarr")) == "D:/scans/a.zarr"  # type: ignore[arg-type]
