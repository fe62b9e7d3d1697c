"""Reader, writer and samples, found by napari as a user's would be."""

from __future__ import annotations

import re
import subprocess
import sys

import napari
import nibabel
import numpy as np
import pytest
from hostile import SHAPE, affine_for
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.layers._layer_actions import _convert_to_labels, _duplicate_layer
from napari.utils.notifications import notification_manager
from npe2 import PluginManager

from napari_unet import images
from napari_unet.errors import UNetError
from napari_unet.viewer import grids, layers, reader, writer
from napari_unet.viewer.saving import proposal
from napari_unet.volume import tilt_degrees

PLUGIN = "napari-unet-monai"


@pytest.fixture
def viewer():
    return ViewerModel()


def opened(viewer, path):
    return viewer.open(str(path), plugin=PLUGIN)[0]


NO_QT = """
import sys
class NoQt:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("PyQt5", "PyQt6", "PySide2", "PySide6"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoQt())
from napari_unet.cli import main
sys.exit(main(["view"]))
"""


def test_without_qt_the_remedy_is_named():
    ended = subprocess.run([sys.executable, "-c", NO_QT], check=False, capture_output=True, text=True)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert re.search(r"there is no Qt for its window \(.+\)\. pip install 'napari-unet-monai\[all\]'", ended.stderr)


class TestReader:
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ", "a.hdr", "a.img", "a.mgh", "a.mgz"])
    def test_takes_medical_volumes(self, name):
        assert reader.get_reader(f"/nowhere/{name}") is not None

    @pytest.mark.parametrize("path", ["a.png", "a.gz", "a.nii.bak", "", "/", ["a.nii", "b.nii"], None, 3])
    def test_leaves_everything_else_alone(self, path):
        assert reader.get_reader(path) is None

    def test_opens_in_the_viewer(self, viewer, nifti_file):
        path = nifti_file()
        layer = opened(viewer, path)
        assert isinstance(layer, Image) and layer.name == "scan"
        assert np.array_equal(layers.volume_of(layer).data, images.read(path).data)

    def test_damage_is_told_in_the_engine_s_words(self, viewer, nifti_file):
        path = nifti_file()
        path.write_bytes(path.read_bytes()[:-6])
        with pytest.raises(UNetError, match=r"scan\.nii\.gz: the compressed data is damaged"):
            opened(viewer, path)
        assert not viewer.layers

    def test_a_tilt_is_announced(self, viewer, nifti_file):
        before = len(notification_manager.records)
        opened(viewer, nifti_file("tilted.nii", affine=affine_for("RAS", tilt=12)))
        messages = [record.message for record in notification_manager.records[before:]]
        assert any(message.startswith("tilted.nii: tilted by") for message in messages)

    @pytest.mark.parametrize("axes", ["zyx", "tzyx"])
    def test_a_zarr_opens_from_the_command_line(self, viewer, rng, tmp_path, axes):
        zarr = pytest.importorskip("zarr")
        data = rng.integers(0, 99, (2, 4, 5, 6)[-len(axes) :]).astype(np.int16)
        zarr.create_array(tmp_path / "scan.zarr", data=data, dimension_names=tuple(axes))
        (layer,) = (viewer.add_layer(Layer.create(*each)) for each in reader.read(str(tmp_path / "scan.zarr")))
        assert isinstance(layer, Image) and layer.ndim == len(axes)
        values = np.asarray(images.read(tmp_path / "scan.zarr").data).squeeze()
        assert np.array_equal(np.asarray(layers.volume_of(layer).data).squeeze(), values)

    def test_pairs_and_mgh_open_too(self, viewer, rng, tmp_path):
        data = rng.integers(0, 99, SHAPE, dtype=np.uint8)
        nibabel.save(nibabel.Nifti1Pair(data, affine_for("LIP")), tmp_path / "pair.hdr")
        nibabel.save(nibabel.MGHImage(data, affine_for("LIP")), tmp_path / "brain.mgz")
        for name in ("pair.hdr", "pair.img", "brain.mgz"):
            volume = layers.volume_of(opened(viewer, tmp_path / name))
            assert np.array_equal(volume.data, data) and np.allclose(volume.affine, affine_for("LIP"), atol=1e-4)


class TestWhatIsAMask:
    def kind(self, viewer, nifti_file, name, data):
        return type(opened(viewer, nifti_file(name, data=data)))

    @pytest.mark.parametrize(
        "name", ["seg.nii", "BraTS_001_seg.nii.gz", "x-mask.nii", "sub-1_dseg.nii", "aparc+aseg.nii", "T1.labels.nii"]
    )
    def test_few_whole_numbers_in_a_file_named_so(self, viewer, nifti_file, rng, name):
        assert self.kind(viewer, nifti_file, name, rng.integers(0, 4, SHAPE).astype(np.int16)) is Labels
        assert self.kind(viewer, nifti_file, name, rng.integers(0, 4, SHAPE).astype(np.float32)) is Labels

    @pytest.mark.parametrize("name", ["scan.nii", "T1_masked.nii", "unlabelled.nii", "segment_of_scan.nii", "gtx.nii"])
    def test_no_other_name(self, viewer, nifti_file, rng, name):
        assert self.kind(viewer, nifti_file, name, rng.integers(0, 4, SHAPE).astype(np.int16)) is Image

    def test_the_folder_may_say_it(self, viewer, nifti_file, rng, tmp_path):
        path = nifti_file("case_01.nii.gz", data=rng.integers(0, 3, SHAPE, dtype=np.uint8))
        (tmp_path / "labelsTr").mkdir()
        assert isinstance(opened(viewer, path.rename(tmp_path / "labelsTr" / path.name)), Labels)

    def test_a_scan_by_that_name_is_still_a_scan(self, viewer, nifti_file, rng):
        for data in (
            rng.integers(0, 2000, (12, 13, 14)).astype(np.int16),  # many values
            rng.random(SHAPE).astype(np.float32),  # probabilities
            rng.integers(-3, 3, SHAPE).astype(np.int16),  # negative
            np.full(SHAPE, np.nan, np.float32),
        ):
            assert self.kind(viewer, nifti_file, "mask.nii", data) is Image

    def test_the_header_may_declare_it(self, viewer, nifti_file, rng):
        path = nifti_file("scan.nii", data=rng.integers(0, 3, SHAPE, dtype=np.uint8))
        image = nibabel.load(path)
        image.header.set_intent("label")
        nibabel.save(image, path)
        assert isinstance(opened(viewer, path), Labels)

    def test_big_endian_masks_are_drawn_in_the_machine_s_order(self, viewer, nifti_file, rng):
        layer = opened(viewer, nifti_file("mask.nii", data=rng.integers(0, 900, SHAPE).astype(">i2") % 300 // 2))
        assert layer.data.dtype == np.uint8


class TestWriter:
    def test_napari_finds_it_for_compound_endings(self):
        writer = PluginManager.instance().get_writer("mask.nii.gz", ["labels"], PLUGIN)[0]
        assert writer is not None and writer.command == f"{PLUGIN}.write_labels"

    def test_a_mask_comes_back_as_it_was(self, viewer, nifti_file, rng, tmp_path):
        image = opened(viewer, nifti_file(affine=affine_for("LSA", tilt=21), sform_code=2, qform_code=3))
        painted = rng.integers(0, 3, image.data.shape, dtype=np.uint8)
        mask = viewer.add_labels(painted, scale=image.scale, translate=image.translate, units=image.units,
                                 metadata=image.metadata, name="painted")  # fmt: skip
        saved = mask.save(str(tmp_path / "painted_seg.nii.gz"), plugin=PLUGIN)
        assert saved == [str(tmp_path / "painted_seg.nii.gz")]
        again = opened(viewer, saved[0])
        assert isinstance(again, Labels) and np.array_equal(again.data, painted)
        header = nibabel.load(saved[0]).header
        assert (header["sform_code"], header["qform_code"], header["intent_code"]) == (2, 3, 1002)
        assert (nibabel.load(saved[0]).affine == nibabel.load(grids.grid_of(image).source).affine).all()

    def test_an_image_comes_back_as_it_was(self, viewer, nifti_file, tmp_path):
        path = nifti_file(affine=affine_for("PIR", tilt=8))
        opened(viewer, path).save(str(tmp_path / "copy.nii"), plugin=PLUGIN)
        old, new = nibabel.load(path), nibabel.load(tmp_path / "copy.nii")
        assert np.array_equal(old.dataobj, new.dataobj) and (old.affine == new.affine).all()

    def test_header_extensions_stay_behind(self, viewer, nifti_file, tmp_path):
        path = nifti_file("private.nii")
        image = nibabel.load(path)
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe, born 1970"))
        nibabel.save(image, path)
        layer = opened(viewer, path)
        mask = viewer.add_layer(
            layers.new_labels(layer, grids.grid_of(layer), np.zeros(layer.data.shape, np.uint8), "m")
        )
        writer.save(tmp_path / "mask.nii", mask, viewer.layers)
        assert b"Jane" in path.read_bytes() and b"Jane" not in (tmp_path / "mask.nii").read_bytes()

    def test_a_missing_ending_is_added(self, tmp_path):
        assert writer.save(tmp_path / "mask", Labels(np.zeros((3, 4, 5), np.uint8))) == tmp_path / "mask.nii.gz"

    @pytest.mark.parametrize("how", ["result", "painted", "converted"])
    def test_a_mask_never_goes_over_its_image(self, viewer, nifti_file, how):
        path = nifti_file()
        image = opened(viewer, path)
        before = path.read_bytes()
        empty = np.zeros(image.data.shape, np.uint8)
        mask = {
            "result": lambda: layers.new_labels(image, grids.grid_of(image), empty, "m"),
            "painted": lambda: Labels(empty, scale=image.scale, translate=image.translate),
            "converted": lambda: Labels(empty, metadata=image.metadata),
        }[how]()
        viewer.add_layer(mask)
        link = path.with_name("link.nii.gz")
        link.symlink_to(path)
        for target in (path, link):
            with pytest.raises(UNetError, match="was opened from it"):
                writer.save(target, mask, viewer.layers)
        assert path.read_bytes() == before

    def test_what_only_lies_on_a_grid_never_goes_over_its_file(self, viewer, nifti_file, rng):
        """An uncertainty over its image; an answer for a layer that has no file over the mask that lies there; a mask's duplicate."""
        scan, path = nifti_file(), nifti_file("seg.nii.gz", data=rng.integers(0, 3, SHAPE, dtype=np.uint8))
        truth, image = opened(viewer, path), opened(viewer, scan)
        doubt = layers.new_image(image, grids.grid_of(image), np.zeros(image.data.shape, np.float32), "scan_uncertainty")
        filtered = Image(image.data * 2, scale=image.scale, translate=image.translate, units=image.units)
        answer = layers.new_labels(filtered, grids.grid_of(filtered, [truth]), np.zeros(truth.data.shape, np.uint8), "filtered_seg")
        viewer.layers.selection = {truth}
        _duplicate_layer(viewer.layers)
        copy = next(layer for layer in viewer.layers if layer.name == f"{truth.name} copy")
        for target, layer in ((scan, doubt), (path, answer), (path, copy)):
            viewer.add_layer(layer) if layer is not copy else None
            before = target.read_bytes()
            with pytest.raises(UNetError, match="was opened from it, or lies on its grid"):
                writer.save(target, layer, viewer.layers)
            assert target.read_bytes() == before
        assert proposal(answer, viewer.layers) == path.with_name("filtered_seg.nii.gz")
        assert proposal(copy, viewer.layers) == path.with_name("seg_copy.nii.gz") and proposal(truth, viewer.layers) == path

    @pytest.mark.parametrize("name", ["aseg.mgz", "seg.hdr"])
    def test_a_mask_of_a_format_that_is_only_read_is_proposed_as_nifti(self, viewer, tmp_path, name, rng):
        kind = nibabel.MGHImage if name.endswith("mgz") else nibabel.Nifti1Pair
        nibabel.save(kind(rng.integers(0, 3, SHAPE).astype(np.int16), np.eye(4)), tmp_path / name)
        mask = Layer.create(*layers.to_layer(images.read(tmp_path / name), "labels"))
        assert proposal(mask) == tmp_path / f"{name[:-4]}.nii.gz"

    def test_a_mask_may_replace_the_file_it_was_opened_from(self, viewer, nifti_file, rng):
        path = nifti_file("seg.nii.gz", data=rng.integers(0, 3, SHAPE, dtype=np.uint8))
        mask = opened(viewer, path)
        mask.data[0, 0, 0] = 7
        writer.save(path, mask, viewer.layers)
        assert 7 in nibabel.load(path).get_fdata()

    def test_pictures_get_picture_masks(self, tmp_path, rng):
        mask = Labels(rng.integers(0, 3, (40, 50), dtype=np.uint8))
        writer.save(tmp_path / "mask.png", mask)
        assert np.array_equal(images.read_labels(tmp_path / "mask.png").data[..., 0], mask.data)

    def test_a_mask_of_its_own_place_is_said_to_be_so(self, viewer, nifti_file, tmp_path):
        opened(viewer, nifti_file())
        before = len(notification_manager.records)
        writer.save(tmp_path / "m.nii", viewer.add_labels(np.zeros((3, 3, 3), np.uint8)), viewer.layers)
        assert "no opened file's grid" in notification_manager.records[before:][-1].message


@pytest.mark.gui
def test_a_mask_is_saved_on_its_own_viewer_s_grid_while_another_is_current(make_napari_viewer, nifti_file, tmp_path):
    mine, path = make_napari_viewer(), nifti_file(affine=affine_for("LSA", tilt=9))
    image = opened(mine, path)
    plain = mine.add_labels(np.zeros(image.data.shape, np.uint8), scale=image.scale, translate=image.translate, units=image.units)
    plain.data[1] = 1
    other = make_napari_viewer()
    assert napari.current_viewer() is other and plain not in other.layers
    heard = []
    writer.saved.connect(lambda event: heard.append(event.value))
    plain.save(str(tmp_path / "mask.nii.gz"), plugin=PLUGIN)
    assert np.array_equal(images.read(tmp_path / "mask.nii.gz").affine, images.read(path).affine) and heard == [plain]
    with pytest.raises(UNetError, match="lies on its grid"):
        plain.save(str(path), plugin=PLUGIN)


def test_the_sample_opens(viewer):
    image, mask = viewer.open_sample(PLUGIN, "phantom")
    assert isinstance(image, Image) and isinstance(mask, Labels)
    assert grids.grid_of(image).affine.tolist() == grids.grid_of(mask).affine.tolist()
    assert set(np.unique(mask.data)) == {0, 1, 2, 3}
    assert Layer.create(*image.as_layer_data_tuple()).metadata == image.metadata


def test_the_tilted_ct_is_shown_straight_and_kept_tilted(viewer):
    image, mask = viewer.open_sample(PLUGIN, "phantom_ct")
    assert tilt_degrees(grids.grid_of(image).affine) > 10
    assert grids.grid_of(image).affine.tolist() == grids.grid_of(mask).affine.tolist()
    assert image.data.min() == -1000 and image.data.max() > 600 and set(np.unique(mask.data)) == {0, 1, 2, 3}


def test_the_picture_is_in_colour(viewer):
    image, mask = viewer.open_sample(PLUGIN, "phantom_picture")
    assert image.rgb and image.data.shape[:2] == mask.data.shape and set(np.unique(mask.data)) == {0, 1, 2, 3}


class TestFolders:
    def test_its_volumes_open_as_layers(self, viewer, nifti_file, tmp_path):
        for name in ("b.nii.gz", "a.nii"):
            nifti_file(name)
        (tmp_path / "readme.txt").write_text("no volume")
        (tmp_path / "deeper").mkdir()
        assert [layer.name for layer in viewer.open(str(tmp_path), plugin=PLUGIN)] == ["a", "b"]

    def test_a_damaged_one_is_told_and_the_others_open(self, viewer, nifti_file, tmp_path):
        nifti_file("good.nii.gz")
        damaged = nifti_file("bad.nii.gz")
        damaged.write_bytes(damaged.read_bytes()[:-6])
        before = len(notification_manager.records)
        assert [layer.name for layer in viewer.open(str(tmp_path), plugin=PLUGIN)] == ["good"]
        assert any("bad.nii.gz: the compressed data" in record.message for record in notification_manager.records[before:])
        (tmp_path / "good.nii.gz").unlink()
        with pytest.raises(UNetError, match="compressed data"):
            viewer.open(str(tmp_path), plugin=PLUGIN)

    def test_a_folder_without_volumes_is_left_to_others(self, tmp_path):
        assert reader.get_reader(str(tmp_path)) is None


def test_an_opened_image_that_is_converted_is_proposed_beside_its_file(viewer, nifti_file):
    path = nifti_file("case7.nii.gz", data=np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    opened(viewer, path)
    _convert_to_labels(viewer.layers)
    (mask,) = viewer.layers
    assert isinstance(mask, Labels) and proposal(mask, viewer.layers) == path.with_name("case7_seg.nii.gz")
    writer.save(proposal(mask, viewer.layers), mask, list(viewer.layers))
    assert proposal(viewer.add_labels(np.zeros((3, 3, 3), np.uint8), name="a"), viewer.layers).name == "a.nii.gz"
