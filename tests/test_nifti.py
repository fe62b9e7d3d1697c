"""Reading gives what nibabel gives; writing gives a file that nibabel opens on the very grid of the image."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hostile import AFFINE, NEITHER, ORIENTATIONS, QFORM, VOXELS, affine_for, nifti_bytes, packed, rgb_bytes
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.nifti2 import Nifti2Header

from napari_unet import images, nifti
from napari_unet.errors import UNetError
from napari_unet.volume import Volume

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
RANGES = {"u1": (0, 255), "i1": (-128, 127), "u2": (0, 65535), "i2": (-32768, 32767)}


def values(dtype: str, shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    """Random values up to the type's ends."""
    rng = np.random.default_rng(1)
    if dtype.startswith("f"):
        return rng.normal(0, 1e4, shape).astype(dtype)
    low, high = RANGES.get(dtype, (0 if dtype[0] == "u" else -(10**6), 10**9))
    data = rng.integers(low, high, shape, endpoint=True).astype(dtype)
    data.flat[:2] = low, high
    return data


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(packed(content) if path.suffix == ".gz" else content)
    return path


class TestReading:
    @pytest.mark.parametrize("slope", [(1, 0), (2, -1024), (0.25, 3.5), (-1e-3, 0)], ids=str)
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("dtype", TYPES)
    def test_every_type_order_and_scaling(self, dtype: str, order: str, slope: tuple[float, float], tmp_path: Path) -> None:
        data = values(dtype)
        path = saved(tmp_path / "scan.nii", nifti_bytes(data, order=order, scl_slope=slope[0], scl_inter=slope[1]))
        volume, image = images.read(path), nibabel.load(path)
        assert volume.data.dtype.isnative
        if slope == (1, 0):
            assert volume.data.dtype == dtype
            np.testing.assert_array_equal(volume.data, data)
        else:  # nibabel scales in double precision; ours is single, or whole numbers
            expected = image.get_fdata()
            np.testing.assert_allclose(volume.data, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
            whole = np.dtype(dtype).itemsize <= 2 and slope[0] == 2
            assert volume.data.dtype == (np.int32 if whole else np.float32)
        np.testing.assert_array_equal(volume.affine, image.affine)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
    @pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 3), (4, 5, 1, 1, 3)], ids=str)
    @pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
    def test_every_container_and_shape(self, name: str, shape: tuple[int, ...], kind: Any, order: str, tmp_path: Path) -> None:
        path = saved(tmp_path / name, nifti_bytes(values("i2", shape), kind=kind, order=order))
        volume, image = images.read(path), nibabel.load(path)
        expected = image.get_fdata().squeeze()
        np.testing.assert_array_equal(volume.data.squeeze(), expected)
        assert volume.shape == (*shape, 1)[:3]
        assert volume.channels == (3 if shape[-1] == 3 else 1)
        np.testing.assert_array_equal(volume.affine, image.affine)
        assert nifti.peek(path).shape == shape == volume.shape_on_disk

    @pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
    def test_a_pair_by_either_name(self, kind: Any, tmp_path: Path) -> None:
        content = nifti_bytes(kind=kind, pair=True)
        paths = (saved(tmp_path / "scan.hdr", content[: -VOXELS.nbytes]), saved(tmp_path / "scan.img", content[-VOXELS.nbytes :]))
        for volume in map(images.read, paths):
            assert volume.header is not None
            np.testing.assert_array_equal(volume.data, VOXELS)
            np.testing.assert_array_equal(volume.affine, AFFINE)

    def test_a_pair_in_capitals(self, tmp_path: Path) -> None:
        content = nifti_bytes(pair=True)
        saved(tmp_path / "SCAN.HDR", content[: -VOXELS.nbytes])
        saved(tmp_path / "SCAN.IMG", content[-VOXELS.nbytes :])
        for name in ("SCAN.HDR", "SCAN.IMG"):
            np.testing.assert_array_equal(images.read(tmp_path / name).data, VOXELS)
        (tmp_path / "SCAN.IMG").unlink()
        with pytest.raises(UNetError, match="its other half SCAN.img is missing"):
            images.read(tmp_path / "SCAN.HDR")

    def test_voxels_that_begin_like_gzip(self, tmp_path: Path) -> None:
        data = VOXELS.copy()
        data.view("u2")[0, 0, 0] = 0x8B1F
        content = nifti_bytes(data, pair=True)
        saved(tmp_path / "scan.hdr", content[:348])
        np.testing.assert_array_equal(images.read(saved(tmp_path / "scan.img", content[348:])).data, data)

    @pytest.mark.parametrize("name", ["scan.mgh", "scan.mgz"])
    @pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 2)], ids=str)
    @pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
    def test_freesurfer(self, name: str, shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
        nibabel.save(MGHImage(values(dtype, shape), affine_for("LIA", tilt=12)), tmp_path / name)
        volume, image = images.read(tmp_path / name), nibabel.load(tmp_path / name)
        np.testing.assert_array_equal(volume.data, np.asanyarray(image.dataobj))
        np.testing.assert_array_equal(volume.affine, image.affine)
        assert volume.data.dtype == dtype

    def test_analyze(self, tmp_path: Path) -> None:
        nibabel.save(nibabel.AnalyzeImage(VOXELS, None), tmp_path / "old.hdr")
        volume = images.read(tmp_path / "old.img")
        np.testing.assert_array_equal(volume.data, VOXELS)
        assert volume.notes == ("Analyze files do not store an orientation",)

    @pytest.mark.parametrize("colours", [3, 4])
    def test_colours(self, colours: int, tmp_path: Path) -> None:
        path = saved(tmp_path / "scan.nii", rgb_bytes((2, 3, 4), colours))
        expected = np.asanyarray(nibabel.load(path).dataobj)
        np.testing.assert_array_equal(images.read(path).data, np.stack([expected[c] for c in "RGBA"[:colours]], -1))

    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_geometry_is_the_sform_else_the_qform(self, orientation: str, tmp_path: Path) -> None:
        affine = affine_for(orientation, tilt=25)
        both = images.read(saved(tmp_path / "both.nii", nifti_bytes(affine=affine, qoffset_x=99)))
        np.testing.assert_array_equal(both.affine, affine)
        assert "the sform is used" in both.notes[0]
        path = saved(tmp_path / "qform.nii", nifti_bytes(affine=affine, **QFORM))
        np.testing.assert_array_equal(images.read(path).affine, nibabel.load(path).affine)
        np.testing.assert_allclose(images.read(path).affine, affine, atol=1e-4)
        assert images.read(path).orientation == orientation

    def test_real_files(self, data: Path) -> None:
        for path in (data / "ct" / "example_ct_sm.nii.gz", *sorted((data / "hippocampus").rglob("hippocampus_00*.nii.gz"))):
            volume, image = images.read(path), nibabel.load(path)
            np.testing.assert_allclose(volume.data, image.get_fdata(), rtol=1e-6)
            np.testing.assert_array_equal(volume.affine, image.affine)
        labels = images.read_labels(data / "hippocampus" / "labelsTr" / "hippocampus_001.nii.gz")
        assert labels.data.dtype == np.uint8 and set(np.unique(labels.data)) == {0, 1, 2}


SOURCES = {
    "NIfTI-1": nifti_bytes(descrip=b"of ours", **{"dim_info": 57}),
    "NIfTI-2": nifti_bytes(kind=Nifti2Header, descrip=b"of ours"),
    "big-endian": nifti_bytes(order=">", descrip=b"of ours"),
    "scaled floats": nifti_bytes(VOXELS.astype("f4"), scl_slope=2, cal_max=5, intent_code=1007),
    "sform alone": nifti_bytes(qform_code=0, sform_code=4),
    "qform alone": nifti_bytes(affine=affine_for(tilt=33), **QFORM),
    "mirrored qform": nifti_bytes(affine=affine_for("RAI", tilt=33), **QFORM),
    "neither": nifti_bytes(**NEITHER),
    "forms apart": nifti_bytes(qoffset_y=40, sform_code=2, qform_code=3),
    "microns": nifti_bytes(xyzt_units=3),
    "metres and seconds": nifti_bytes(affine=np.diag([0.001, 0.002, 0.003, 1]), xyzt_units=1 + 8),
    "no units": nifti_bytes(xyzt_units=0),
    "pixdim[0] = 0": nifti_bytes(**{"pixdim[0]": 0, **QFORM}),
    "2-D": nifti_bytes(VOXELS[..., 0], **{"pixdim[3]": 7}),
    "2-D qform": nifti_bytes(VOXELS[..., 0], **{"pixdim[3]": 7, **QFORM}),
    "one slice": nifti_bytes(VOXELS[..., :1]),
    "4-D": nifti_bytes(VOXELS[..., None] * np.ones(3, np.int16)),
    "4-D of one": nifti_bytes(VOXELS[..., None]),
    "RGB": rgb_bytes(),
    "extension": nifti_bytes(between=b"\1\0\0\0" + (16).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"J. Smith"),
}
KEPT = ("pixdim", "sform_code", "qform_code", "xyzt_units", "descrip", "dim_info", "qoffset_x", "quatern_b", "srow_x", "srow_y", "srow_z")


class TestWriting:
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("source", SOURCES)
    def test_a_mask_lies_on_its_image(self, source: str, ending: str, tmp_path: Path) -> None:
        path = saved(tmp_path / "scan.nii", SOURCES[source])
        volume, image = images.read(path), nibabel.load(path)
        labels = np.random.default_rng(2).integers(0, 3, volume.shape)
        images.write(tmp_path / f"mask{ending}", volume.with_data(labels))
        mask = nibabel.load(tmp_path / f"mask{ending}")

        assert mask.shape == image.shape[:3]  # 2-D stays 2-D, 4-D becomes 3-D
        np.testing.assert_array_equal(mask.affine, image.affine)
        np.testing.assert_array_equal(np.asanyarray(mask.dataobj).reshape(volume.shape), labels)
        assert mask.get_data_dtype() == np.uint8 and type(mask.header) is type(image.header)
        for field in KEPT:
            part = slice(4) if field == "pixdim" else ...  # further axes are gone
            np.testing.assert_array_equal(mask.header[field][part], image.header[field][part])
        assert not mask.header.extensions and mask.header["intent_code"] == 1002
        assert mask.header["cal_max"] == 0
        raw = (tmp_path / f"mask{ending}").read_bytes()
        assert b"Smith" not in (gzip.decompress(raw) if ending == ".nii.gz" else raw)
        assert type(mask.header).diagnose_binaryblock(mask.header.binaryblock) == ""

        back = images.read_labels(tmp_path / f"mask{ending}")
        np.testing.assert_array_equal(back.affine, volume.affine)
        np.testing.assert_array_equal(back.data, labels)
        assert back.data.dtype == np.uint8 and path.read_bytes() == SOURCES[source]

    @pytest.mark.parametrize("tilt", [0, 17])
    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_all_orientations(self, orientation: str, tilt: int, tmp_path: Path) -> None:
        affine = affine_for(orientation, tilt=tilt)
        volume = images.read(saved(tmp_path / "scan.nii", nifti_bytes(affine=affine)))
        images.write(tmp_path / "mask.nii", volume.with_data((VOXELS > 0).view(np.uint8)))
        np.testing.assert_array_equal(nibabel.load(tmp_path / "mask.nii").affine, affine)
        images.write(tmp_path / "new.nii", Volume(VOXELS, affine), labels=False)  # nothing to go by but the affine
        image = nibabel.load(tmp_path / "new.nii")
        np.testing.assert_array_equal(image.affine, affine)
        np.testing.assert_allclose(image.get_qform(), affine, atol=1e-4)  # both forms are written
        assert image.header["sform_code"] == image.header["qform_code"] == 1 and image.header.get_xyzt_units()[0] == "mm"

    @pytest.mark.parametrize("change", [
        lambda v: Volume(v.data[2:], v.affine @ np.diag([1, 1, 1, 1]) + 2 * np.outer(v.affine[:, 0], [0, 0, 0, 1]), v.header),
        lambda v: Volume(v.data[..., :4], v.affine, v.header), lambda v: Volume(v.data[::2], v.affine * (2, 1, 1, 1), v.header),
    ], ids=["cropped", "cut short", "every other"])  # fmt: skip
    @pytest.mark.parametrize("source", ["NIfTI-1", "qform alone", "neither", "microns", "NIfTI-2"])
    def test_a_grid_of_its_own(self, source: str, change: Callable[[Volume], Volume], tmp_path: Path) -> None:
        volume = change(images.read(saved(tmp_path / "scan.nii", SOURCES[source])))
        images.write(tmp_path / "part.nii", volume, labels=False)
        np.testing.assert_allclose(images.read(tmp_path / "part.nii").affine, volume.affine, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("dtype", TYPES)
    def test_an_image_keeps_its_type_and_values(self, dtype: str, tmp_path: Path) -> None:
        volume = images.read(saved(tmp_path / "scan.nii", nifti_bytes(values(dtype), order=">")))
        images.write(tmp_path / "copy.nii.gz", volume, labels=False)
        copy = np.asanyarray(nibabel.load(tmp_path / "copy.nii.gz").dataobj)
        np.testing.assert_array_equal(copy, volume.data.astype("f4") if dtype == "f8" else volume.data)
        assert copy.dtype == ("f4" if dtype == "f8" else dtype)

    def test_over_the_file_it_was_read_from(self, tmp_path: Path) -> None:
        """Here nibabel kills the process and empties the file (its issue 492)."""
        path = saved(tmp_path / "scan.nii", nifti_bytes(np.abs(VOXELS)))
        volume = images.read(path)
        images.write(path, volume)
        np.testing.assert_array_equal(images.read(path).data, np.abs(VOXELS))

    def test_the_same_bytes_every_time(self, tmp_path: Path) -> None:
        for name in ("a.nii.gz", "b.nii.gz"):
            images.write(tmp_path / name, Volume((VOXELS > 0).view(np.uint8), AFFINE))
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()

    def test_views_are_written_as_they_are_seen(self, tmp_path: Path) -> None:
        data = np.abs(VOXELS).transpose(2, 0, 1)[::-1, :, ::2]
        images.write(tmp_path / "mask.nii", Volume(data, AFFINE))
        np.testing.assert_array_equal(nibabel.load(tmp_path / "mask.nii").get_fdata(), data)

    def test_more_voxels_in_a_row_than_nifti_1_can_count(self, tmp_path: Path) -> None:
        images.write(tmp_path / "long.nii", Volume(np.ones((40000, 1, 1), np.uint8), AFFINE))
        long = nibabel.load(tmp_path / "long.nii")
        assert long.shape == (40000, 1, 1) and isinstance(long, nibabel.Nifti2Image)
        np.testing.assert_array_equal(long.affine, AFFINE)
