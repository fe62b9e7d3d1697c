"""A killed session's masks are offered again; a session that ends well leaves a hand's work alone. Real processes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import dask.array
import napari
import nibabel
import numpy as np
import pytest
from conftest import PATIENCE, tiny_spec
from dialogs import when_shown
from hostile import SHAPE, affine_for
from napari.components import ViewerModel
from napari.layers import Layer
from napari.settings import get_plugin_settings
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QMessageBox

from napari_unet import UNetError, images
from napari_unet.spec import Label
from napari_unet.viewer import grids, layers, places, recovery
from napari_unet.viewer.answer import Answer
from napari_unet.viewer.correct import CorrectTab
from napari_unet.viewer.filling import appearance, empty_mask
from napari_unet.viewer.options import PLUGIN
from napari_unet.viewer.saving import Keeper, proposal
from napari_unet.viewer.table import names_of
from napari_unet.viewer.writer import save

PAINT_AND_DIE = """
import sys, time
import numpy as np
from napari.layers import Layer
from napari.settings import get_plugin_settings
from napari.utils.notifications import notification_manager
from napari_unet import images
from napari_unet.spec import Label
from napari_unet.viewer import grids, layers, recovery
from napari_unet.viewer.filling import appearance
image = Layer.create(*layers.to_layer(images.read(sys.argv[1])))
values = np.zeros(image.data.shape, np.uint8)
values[1, 2, :3] = 2
mask = layers.new_labels(image, grids.grid_of(image), values, "by hand", **appearance([Label(2, "tumour", "#aa11cc")]))
session = recovery.Session()
session.keep(mask, [image])()
print("kept", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def remains(tmp_path_factory):
    """The scan and the data folder of a session that was killed after it had kept a mask."""
    scan, home = tmp_path_factory.mktemp("scan") / "scan.nii.gz", tmp_path_factory.mktemp("killed")
    nibabel.save(nibabel.Nifti1Image(np.arange(210, dtype=np.int16).reshape(SHAPE), affine_for("ASL", tilt=14)), scan)
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "XDG_DATA_HOME": str(home)}
    process = subprocess.Popen([sys.executable, "-c", PAINT_AND_DIE, str(scan)], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "kept\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(home))
        assert recovery.left_behind() == []  # it still lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    return scan, home


@pytest.fixture
def killed(remains):
    """The same in this test's own data folder; the scan."""
    scan, home = remains
    shutil.copytree(home, os.environ["XDG_DATA_HOME"], dirs_exist_ok=True)
    return scan


def keeper(qtbot, viewer):
    made = Keeper(viewer)
    qtbot.addWidget(made)
    return made


def test_a_killed_session_s_mask_comes_back_as_it_was(killed, qtbot, viewer_model):
    made = keeper(qtbot, viewer_model)
    assert made.offered == 1
    made.restore.click()
    (mask,) = viewer_model.layers
    assert mask.name == "by hand" and mask.data[1, 2, :3].tolist() == [2, 2, 2] and mask.data.sum() == 6
    assert names_of(mask)[2] == "tumour" and np.allclose(mask.get_color(2)[:3], np.array([0xAA, 0x11, 0xCC]) / 255, atol=0.01)
    assert (grids.grid_of(mask).affine == images.read(killed).affine).all()
    assert proposal(mask) == killed.with_name("by_hand.nii.gz")  # beside its image, as before
    assert made.offered == 0 and len(list(places.folder("recovery").glob("*/*.nii.gz"))) == 1  # in this session's keeping


def discard(made, answer):
    """Press Discard and answer what it asks; the question."""
    asked = []

    def say(box):
        asked.append(box.text())
        box.button(getattr(QMessageBox.StandardButton, answer)).click() if answer else box.reject()

    when_shown(QMessageBox, say)
    made.discard.click()
    return asked


def test_discard_is_for_good(killed, qtbot, viewer_model):
    made = keeper(qtbot, viewer_model)
    assert discard(made, "Yes") == ["Delete 1 unsaved mask for good? by hand"]
    assert recovery.left_behind() == [] and not viewer_model.layers and made.offered == 0


@pytest.mark.parametrize("answer", ["No", ""])
def test_discard_asks_first(killed, qtbot, viewer_model, answer):
    """It lies beside Restore."""
    made = keeper(qtbot, viewer_model)
    assert len(discard(made, answer)) == 1
    assert made.offered == 1 and len(recovery.left_behind()) == 1
    made.restore.click()
    assert viewer_model.layers["by hand"].data.sum() == 6


def test_a_description_that_was_cut_off_costs_the_name_alone(killed, qtbot, viewer_model):
    (about,) = places.folder("recovery").glob("*/*.json")
    about.write_text(about.read_text()[:20])
    made = keeper(qtbot, viewer_model)
    made.restore.click()
    assert viewer_model.layers[0].name == "recovered" and viewer_model.layers[0].data.sum() == 6


class TestASession:
    @pytest.fixture
    def mask(self, viewer_model, nifti_file):
        image = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(nifti_file()))))
        layer = viewer_model.add_layer(empty_mask(image, grids.grid_of(image), tiny_spec(), ("", "", 0)))
        Answer.in_layer(layer).write(layer, (slice(None),) * 3, np.ones(layer.data.shape, np.uint8))
        return layer

    def kept(self):
        return list(places.folder("recovery").glob("*/*.nii.gz"))

    def test_a_model_s_mask_is_kept_while_the_session_lives(self, qtbot, viewer_model, mask):
        made = keeper(qtbot, viewer_model)
        made.keep()
        qtbot.waitUntil(lambda: len(self.kept()) == 1)
        assert recovery.left_behind() == []
        made.close_session()
        assert self.kept() == [] and recovery.left_behind() == []  # a model can say it again

    def test_a_hand_s_work_outlives_the_session(self, qtbot, viewer_model, mask):
        made = keeper(qtbot, viewer_model)
        mask.data_setitem((np.array([1]), np.array([1]), np.array([1])), 2)
        made.close_session()
        assert [found.name for found in recovery.left_behind()] == ["scan_seg"]

    @pytest.mark.parametrize("painted", [False, True])
    def test_what_is_still_to_be_written_when_it_ends(self, viewer_model, mask, painted):
        if painted:
            mask.data_setitem((np.array([1]), np.array([1]), np.array([1])), 2)
        session = recovery.Session()
        late = session.keep(mask, list(viewer_model.layers))
        session.close()
        late()
        assert len(recovery.left_behind()) == painted

    @pytest.mark.parametrize("saved", [False, True])
    def test_who_is_late_writes_over_nothing_newer(self, viewer_model, mask, saved):
        session, others = recovery.Session(), list(viewer_model.layers)
        mask.data_setitem((np.array([1]), np.array([1]), np.array([1])), 2)
        late = session.keep(mask, others)
        mask.data_setitem((np.array([1]), np.array([1]), np.array([1])), 3)
        if saved:
            session.is_safe(mask)
        else:
            session.keep(mask, others)()
        late()
        assert [images.read(path).data.max() for path in self.kept()] == ([] if saved else [3])
        session.close()

    def test_what_was_saved_is_not_offered(self, qtbot, viewer_model, mask):
        made = keeper(qtbot, viewer_model)
        mask.data_setitem((np.array([1]), np.array([1]), np.array([1])), 2)
        made.keep()
        qtbot.waitUntil(lambda: len(self.kept()) == 1)
        made.saved(mask)
        made.close_session()
        assert recovery.left_behind() == []

    def test_what_was_opened_or_is_empty_is_nobody_s_work(self, qtbot, viewer_model, nifti_file):
        path = nifti_file("seg.nii.gz", data=np.ones((4, 5, 6), np.uint8))
        made = keeper(qtbot, viewer_model)
        viewer_model.open(str(path), plugin="napari-unet-monai")
        viewer_model.add_labels(np.zeros((4, 5, 6), np.uint8))
        made.keep()
        made.close_session()
        assert self.kept() == []

    def test_what_changes_while_it_is_written_is_written_next(self, qtbot, viewer_model, mask):
        made = keeper(qtbot, viewer_model)
        made.keep()
        mask.data_setitem((np.array([1]), np.array([1]), np.array([1])), 2)
        assert made._writing
        made.keep()
        qtbot.waitUntil(lambda: not made._writing)
        assert images.read(self.kept()[0]).data.max() == 2

    def test_nothing_is_kept_after_the_end(self, qtbot, viewer_model, mask):
        made = keeper(qtbot, viewer_model)
        made.keep()
        made.keep()  # while the first is at work: once more, after it
        made.close_session()
        qtbot.waitUntil(lambda: not made._writing)
        assert self.kept() == [] and recovery.left_behind() == []

    @pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files stands for a full disk")
    def test_what_could_not_be_written_is_tried_again(self, viewer_model, mask):
        import resource

        session, limits = recovery.Session(), resource.getrlimit(resource.RLIMIT_FSIZE)
        late = session.keep(mask, list(viewer_model.layers))
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
        try:
            with pytest.raises(UNetError):
                late()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert self.kept() == []
        session.keep(mask, list(viewer_model.layers))()
        assert len(self.kept()) == 1
        session.close()

    def test_it_is_written_again_only_when_it_has_changed(self, qtbot, viewer_model, mask):
        made = keeper(qtbot, viewer_model)
        made.keep()
        qtbot.waitUntil(lambda: len(self.kept()) == 1 and not made._writing)
        before = self.kept()[0].stat().st_mtime_ns
        made.keep()
        qtbot.waitUntil(lambda: not made._writing)
        assert self.kept()[0].stat().st_mtime_ns == before


def test_two_viewers_do_not_take_each_other_s_masks(qtbot, viewer_model):
    other = ViewerModel()
    mine, yours = keeper(qtbot, viewer_model), keeper(qtbot, other)
    for viewer, one in ((viewer_model, mine), (other, yours)):
        viewer.add_labels(np.ones((4, 5, 6), np.uint8))
        one._write_now()
    assert recovery.left_behind() == []
    mine.close_session()
    assert len(recovery.left_behind()) == 1


def test_a_mask_of_a_series_comes_back_and_what_cannot_stays(qtbot, viewer_model, nifti_file, rng):
    path = nifti_file("series.nii.gz", data=rng.integers(0, 9, (5, 6, 7, 3)).astype(np.int16), affine=affine_for("LSP"))
    image = Layer.create(*layers.to_layer(images.read(path)))
    mask = layers.new_labels(image, grids.grid_of(image), np.zeros(image.data.shape, np.uint8), "beats")
    mask.data[1, 2, 3] = 4
    ended = recovery.Session()
    ended.keep(mask, [image])()
    ended.close()
    (folder,) = places.folder("recovery").iterdir()
    (folder / "damaged.nii.gz").write_bytes(b"\x1f\x8b no mask")
    made = keeper(qtbot, viewer_model)
    assert made.offered == 2
    made.restore.click()
    (again,) = viewer_model.layers
    assert np.array_equal(again.data, mask.data) and again.name == "beats" and tuple(again.scale) == tuple(image.scale)
    assert made.offered == 1 and (folder / "damaged.nii.gz").exists()


def another_dies(scan):
    """A further session is killed after it has kept a mask."""
    process = subprocess.Popen([sys.executable, "-c", PAINT_AND_DIE, str(scan)], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})  # fmt: skip
    assert process.stdout.readline() == "kept\n"
    process.kill()
    process.wait()


@pytest.mark.parametrize("press", ["restore", "discard"])
def test_what_was_not_offered_is_not_removed(killed, qtbot, viewer_model, press):
    made = keeper(qtbot, viewer_model)
    another_dies(killed)
    made.restore.click() if press == "restore" else discard(made, "Yes")
    (found,) = recovery.left_behind()
    assert found.layer().data.sum() == 6


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks in another way")
def test_where_a_disk_knows_no_locks_its_own_masks_are_not_offered(killed, qtbot, viewer_model, monkeypatch):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOLCK, "no locks")))
    made = keeper(qtbot, viewer_model)
    made.restore.click()
    (mask,) = viewer_model.layers
    assert [path.stem for path in places.folder("recovery").glob("*/*.nii.gz")] == [f"{mask.unique_id}.nii"]
    assert made._look() == []


def test_saved_while_it_is_being_kept(qtbot, viewer_model, monkeypatch):
    layer = viewer_model.add_labels(np.ones((4, 5, 6), np.uint8))
    session = recovery.Session()
    late, write = session.keep(layer, []), images.write

    def saved_meanwhile(path, volume, **how):
        write(path, volume)
        session.is_safe(layer)
        write(path, volume)  # the end of what was under way

    with monkeypatch.context() as patch:
        patch.setattr(recovery.images, "write", saved_meanwhile)
        late()
    assert not list(places.folder("recovery").glob("*/*.nii.gz"))
    layer.data[0, 0, 0] = 2
    session.keep(layer, [])()
    assert len(list(places.folder("recovery").glob("*/*.nii.gz"))) == 1
    session.close()


def test_one_mask_that_cannot_be_kept_stops_no_other_and_is_told_once_by_its_name(qtbot, viewer_model, nifti_file):
    """The image whose grid it lies on has nothing to do with it."""
    image = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(nifti_file()))))
    made = keeper(qtbot, viewer_model)
    viewer_model.add_layer(layers.new_labels(image, grids.grid_of(image), np.ones(image.data.shape, np.uint8), "odd"))
    viewer_model.add_labels(np.ones((4, 5, 6), np.uint8), name="by hand")
    made._write_now()
    folder = next(places.folder("recovery").glob("*/*.nii.gz")).parent
    odd = folder / f"{viewer_model.layers['odd'].unique_id}.nii.gz"
    odd.unlink()
    odd.mkdir()  # nothing can be put in its place
    for layer in (viewer_model.layers["odd"], viewer_model.layers["by hand"]):
        layer.data[0, 0, 0] = 2
    before = len(notification_manager.records)
    for _ in range(2):
        made._write_now()
    (told,) = (record.message for record in notification_manager.records[before:])
    assert told.startswith("layer 'odd' is not kept: ")
    odd.rmdir()
    made.close_session()
    by_hand = next(found for found in recovery.left_behind() if found.name == "by hand")
    assert by_hand.layer().data.max() == 2


@pytest.mark.parametrize(("dtype", "value"), [(np.int32, 70_000), (np.int32, -1), (np.int64, 2**40), (np.uint32, 2**32 - 1)])
@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6), (3, 4, 5, 6)])
def test_another_program_s_numbers_are_kept_as_they_are(qtbot, viewer_model, dtype, value, shape):
    """Of cells, of which there may be more than 65,535, say; this plugin's own masks have no such classes."""
    layer = viewer_model.add_labels(np.zeros(shape, dtype), name="cells")
    layer.data[..., 1:3] = value
    layer.data[..., 0] = 1
    before = len(notification_manager.records)
    keeper(qtbot, viewer_model).close_session()
    assert len(notification_manager.records) == before
    (found,) = recovery.left_behind()
    back = found.layer()
    assert back.data.dtype == dtype and np.array_equal(back.data, layer.data)


def test_what_napari_s_own_save_has_written_is_not_offered(qtbot, viewer_model, tmp_path, monkeypatch):
    made = keeper(qtbot, viewer_model)
    layer = viewer_model.add_labels(np.ones((4, 5, 6), np.uint8))
    made._write_now()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer_model)
    viewer_model.layers.save(str(tmp_path / "mask.nii.gz"), plugin="napari-unet-monai")
    assert (tmp_path / "mask.nii.gz").exists() and not list(places.folder("recovery").glob("*/*.nii.gz"))
    layer.data[0, 0, 0] = 2
    made._write_now()
    assert len(list(places.folder("recovery").glob("*/*.nii.gz"))) == 1


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
def test_a_picture_s_mask_comes_back_in_its_place(qtbot, viewer_model, scale):
    picture = viewer_model.add_image(np.zeros((8, 5, 3), np.uint8), rgb=True, scale=scale, translate=(3, 4), name="slide")
    values = np.arange(40, dtype=np.uint8).reshape(8, 5)
    layer = viewer_model.add_layer(layers.new_labels(picture, grids.grid_of(picture), values, "cells"))
    first = keeper(qtbot, viewer_model)
    paths = proposal(layer)
    first.close_session()
    viewer_model.layers.remove(layer)
    again = keeper(qtbot, viewer_model)
    again.restore.click()
    back = viewer_model.layers[-1]
    assert back.ndim == 2 and (back.data == values).all() and viewer_model.dims.ndim == 2
    for corner in ((0, 0), (7, 4)):
        assert np.allclose(back.data_to_world(corner), layer.data_to_world(corner))
    assert proposal(back) == paths and paths.suffix == ".png"


PLACES = [
    ((6, 7), {"scale": (0.5, 0.6), "units": ("um", "um")}),
    ((5, 6, 7), {"rotate": (10, 20, 30), "scale": (2, 1, 1), "shear": (0.1, 0.2, 0.05), "translate": (3, 4, 5)}),
    ((3, 5, 6, 7), {"scale": (2.5, 1, 1, 1), "translate": (10, 0, 0, 0), "units": ("s", "mm", "mm", "mm")}),
    ((1, 5, 6, 7), {}),
]


@pytest.mark.parametrize(("shape", "place"), PLACES)
def test_a_mask_without_a_file_comes_back_where_it_lay(viewer_model, shape, place):
    """Its units, its time steps and how it was turned are those of the layer, which no file tells."""
    session = recovery.Session()
    layer = viewer_model.add_labels(np.zeros(shape, np.uint8), **place)
    layer.data[..., 1:3, 2:4] = 3
    session.keep(layer, [layer])()
    session.close()
    (found,) = recovery.left_behind()
    back = found.layer()
    assert back.data.shape == shape and np.array_equal(back.data, layer.data)
    assert back.units == layer.units and np.allclose(back.extent.world, layer.extent.world)
    for corner in (np.zeros(len(shape)), np.array(shape) - 1.0):
        assert np.allclose(back.data_to_world(corner), layer.data_to_world(corner))
    assert np.allclose(layers.volume_of(back).affine, layers.volume_of(layer).affine)


def test_a_description_by_an_earlier_version_keeps_what_it_says(viewer_model):
    session = recovery.Session()
    layer = viewer_model.add_labels(np.ones((4, 5, 6), np.uint8), name="old")
    session.keep(layer, [layer])()
    session.close()
    (found,) = recovery.left_behind()
    about = recovery._about(found.path)
    known = json.loads(about.read_text())
    about.write_text(json.dumps({key: known[key] for key in ("name", "source", "kind", "classes")} | {"picture": False}))
    (found,) = recovery.left_behind()
    assert found.name == "old" and found.layer().data.sum() == 120


def test_a_mask_painted_over_another_is_not_taken_for_it_after_a_crash(viewer_model, nifti_file):
    """It lay on that mask's grid; it was not opened from that file, and is neither proposed nor allowed to replace it."""
    path = nifti_file("truth_seg.nii.gz", data=np.ones((6, 7, 5), np.uint8))
    truth = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(path), "labels")))
    rater = viewer_model.add_labels(np.zeros_like(truth.data), scale=truth.scale, translate=truth.translate, name="rater2")
    rater.data[:] = 2
    session = recovery.Session()
    for layer in (truth, rater):
        session.keep(layer, [truth, rater])()
    session.close()
    back, truth_back = sorted((found.layer() for found in recovery.left_behind()), key=lambda layer: layer.name)
    assert proposal(back) == path.with_name("rater2.nii.gz") and proposal(truth_back) == path
    with pytest.raises(UNetError, match="lies on its grid"):
        save(path, back, [])
    save(path, truth_back, [])


def test_a_late_look_at_an_opened_mask_makes_it_nobody_s_work(viewer_model, nifti_file):
    session = recovery.Session()
    layer = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(nifti_file(data=np.ones((6, 7, 5), np.uint8))), "labels")))
    late = session.keep(layer, [layer])
    session.is_safe(layer)
    assert session.keep(layer, [layer]) is None
    session.close()
    late()
    assert recovery.left_behind() == []


def test_a_folder_that_could_not_be_held_is_not_used(viewer_model, monkeypatch):
    """Else another session would take it for one that is left behind, and might discard what is in it."""
    session, lock, tried = recovery.Session(), recovery.files.lock, []

    def full(folder):
        tried.append(folder)
        if len(tried) == 1:
            raise UNetError(folder, "the disk is full", "Make room")
        return lock(folder)

    layer = viewer_model.add_labels(np.ones((4, 5, 6), np.uint8))
    with monkeypatch.context() as patch:
        patch.setattr(recovery.files, "lock", full)
        with pytest.raises(UNetError):
            session.keep(layer, [layer])
        session.keep(layer, [layer])()
    assert recovery.left_behind() == [] and len(set(tried)) == 2


def test_a_widget_that_is_closed_and_opened_again_does_not_offer_what_is_open(qtbot, viewer_model):
    layer = viewer_model.add_labels(np.ones((4, 5, 6), np.uint8), name="by hand")
    keeper(qtbot, viewer_model).close_session()
    again = keeper(qtbot, viewer_model)
    assert again.offered == 0 and len(list(places.folder("recovery").glob("*/*.nii.gz"))) == 1, "still in keeping"
    again.keep()
    qtbot.waitUntil(lambda: not again._writing)
    again.close_session()
    (one,) = recovery.left_behind()  # and not once per time that the widget was opened
    assert one.layer_id == str(layer.unique_id)


def test_what_was_saved_before_the_widget_was_closed_is_not_offered(qtbot, viewer_model):
    layer = viewer_model.add_labels(np.ones((4, 5, 6), np.uint8), name="by hand")
    first = keeper(qtbot, viewer_model)
    first._write_now()
    first.saved(layer)
    first.close_session()
    second = keeper(qtbot, viewer_model)
    second.close_session()
    assert recovery.left_behind() == []


def test_the_preference_that_keeps_none(qtbot, viewer_model, monkeypatch):
    monkeypatch.setattr(get_plugin_settings(PLUGIN).saving, "autosave", 0)
    viewer_model.add_labels(np.ones((4, 5, 6), np.uint8))
    made = keeper(qtbot, viewer_model)
    made.keep()
    made.close_session()
    assert not list(places.folder("recovery").glob("*/*")) and not made._writing


def test_the_preference_takes_effect_while_the_widget_is_open(qtbot, viewer_model, monkeypatch):
    preferences = get_plugin_settings(PLUGIN).saving
    monkeypatch.setattr(preferences, "autosave", 0)
    layer = viewer_model.add_labels(np.ones((4, 5, 6), np.uint8))
    made = keeper(qtbot, viewer_model)
    preferences.autosave = 1
    qtbot.waitUntil(lambda: len(list(places.folder("recovery").glob("*/*.nii.gz"))) == 1, timeout=PATIENCE)
    qtbot.waitUntil(lambda: not made._writing)
    preferences.autosave = 0
    written = [path.read_bytes() for path in places.folder("recovery").glob("*/*.nii.gz")]
    layer.data[0] = 2
    made.keep()
    made.close_session()
    assert not made._writing and written == [path.read_bytes() for path in places.folder("recovery").glob("*/*.nii.gz")]


def test_a_mask_that_cannot_be_kept_stays_where_it_was_until_it_is_saved(killed, qtbot, viewer_model, monkeypatch):
    """The disk is full: a second crash must not lose what the first one left."""
    made = keeper(qtbot, viewer_model)
    with monkeypatch.context() as patch:
        patch.setattr(recovery.images, "write", Mock(side_effect=UNetError("disk", "it is full", "Make room")))
        made.restore.click()
    (mask,) = viewer_model.layers
    assert made.offered == 0 and len(recovery.left_behind(made._session)) == 1
    made.saved(mask)
    assert recovery.left_behind(made._session) == []


def test_nothing_is_kept_once_the_widget_is_closed(qtbot, viewer_model):
    made = keeper(qtbot, viewer_model)
    made.close_session()
    viewer_model.add_labels(np.ones((4, 5, 6), np.uint8))
    made.keep()  # as at the end of a run that outlives the widget
    assert not made._writing and not list(places.folder("recovery").glob("*/*"))


def test_a_folder_that_cannot_be_written_is_told_once(qtbot, viewer_model, monkeypatch):
    made = keeper(qtbot, viewer_model)
    for _ in range(3):
        viewer_model.add_labels(np.ones((4, 5, 6), np.uint8))
    monkeypatch.setattr(places.files, "make_folder", Mock(side_effect=UNetError("recovery", "it cannot be written", "Choose another home")))
    before = len(notification_manager.records)
    for _ in range(2):
        made._write_now()
    (told,) = (record.message for record in notification_manager.records[before:])
    assert told == "layers 'Labels', 'Labels [1]', 'Labels [2]' are not kept: recovery: it cannot be written. Choose another home."


def test_an_opened_mask_that_was_corrected_before_the_widget_came_is_a_hand_s(qtbot, viewer_model, nifti_file):
    path = nifti_file("seg.nii", data=np.ones((4, 5, 6), np.uint8))
    _, painted = (viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(path), "labels"))) for _ in range(2))
    painted.data_setitem(tuple(np.array([0]) for _ in range(3)), 2)
    keeper(qtbot, viewer_model).close_session()
    assert [found.layer_id for found in recovery.left_behind()] == [str(painted.unique_id)]


@pytest.mark.parametrize("multiscale", [False, True])
def test_a_mask_that_is_read_as_it_is_looked_at_is_not_read_to_be_kept(qtbot, viewer_model, multiscale):
    """Of gigabytes, say; no brush paints in it."""
    read = []

    def block(values):
        read.append(values.shape)
        return values

    lazy = dask.array.ones((40, 50, 60), np.uint8, chunks=(1, 50, 60)).map_blocks(block, meta=np.zeros((0, 0, 0), np.uint8))
    made = keeper(qtbot, viewer_model)
    correct = CorrectTab(viewer_model)
    qtbot.addWidget(correct)
    layer = viewer_model.add_labels([lazy, lazy[:, ::2, ::2]] if multiscale else lazy, multiscale=multiscale)
    shown = len(read)
    correct.show_layer(layer)
    made._write_now()
    assert len(read) == shown < 40 and not correct.button("holes").isEnabled()


def test_a_thousand_named_classes_are_told_at_once(viewer_model):
    """Their names were asked for once for each: 1.8 s in the window's thread, every minute."""
    named = [Label(n, f"structure {n}", f"#{n:06x}") for n in range(1, 1001)]
    layer = viewer_model.add_labels(np.zeros((4, 5, 6), np.uint16), **appearance(named))
    began = time.perf_counter()
    assert recovery.classes_of(layer) == [(label.value, label.name, label.colour) for label in named]
    assert time.perf_counter() - began < 0.3


class TestAHandThatPaintsMeanwhile:
    """A large mask is looked at and copied in a thread, while the viewer's goes on."""

    @pytest.fixture
    def mask(self, viewer_model):
        layer = viewer_model.add_labels(np.zeros((4, 5, 6), np.uint8), name="by hand")
        layer.data[1] = 1
        return layer

    @pytest.fixture
    def meanwhile(self, monkeypatch):
        """Does the next of some things whenever a mask has been looked at."""
        todo, look = [], recovery.fingerprint

        def looked_at(values):
            seen = look(values)
            if todo:
                todo.pop(0)()
            return seen

        monkeypatch.setattr(recovery, "fingerprint", looked_at)
        return todo

    def kept(self):
        return [images.read(path).data for path in places.folder("recovery").glob("*/*.nii.gz")]

    def stroke(self, layer, value):
        return lambda: layer.data.__setitem__((2, 3, slice(2, 5)), value)

    def test_the_viewer_s_thread_does_not_look(self, qtbot, viewer_model, mask, meanwhile):
        """Once a minute it stood still for as long as it takes to look through a mask and to copy it."""
        made, lookers = keeper(qtbot, viewer_model), []
        meanwhile[:] = [lambda: lookers.append(threading.current_thread())] * 3
        made.keep()
        qtbot.waitUntil(lambda: not made._writing)
        assert len(self.kept()) == 1 and lookers and threading.main_thread() not in lookers
        made.close_session()
        assert threading.main_thread() in lookers, "at the end it is looked at here: no thread has to outlive the window"

    def test_a_copy_that_a_stroke_has_torn_is_made_again(self, mask, meanwhile):
        session = recovery.Session()
        meanwhile[:] = [self.stroke(mask, 7)]
        session.keep_later(mask, [])()
        assert [int((values == 7).sum()) for values in self.kept()] == [3]
        assert session.keep(mask, []) is None, "it is safe"
        session.close()

    def test_under_a_hand_that_does_not_rest_what_there_is_is_kept_and_kept_again(self, mask, meanwhile):
        session = recovery.Session()
        meanwhile[:] = [self.stroke(mask, value) for value in range(2, 30)]
        session.keep_later(mask, [])()
        assert len(self.kept()) == 1, "rather than nothing"
        meanwhile.clear()
        session.keep_later(mask, [])()
        assert (self.kept()[0] == mask.data.max()).sum() == 3
        session.close()

    def test_what_is_undone_after_a_torn_copy_is_kept_again(self, mask, meanwhile):
        """The mask is what it was when it was last safe; its file is not."""
        session = recovery.Session()
        session.keep_later(mask, [])()
        meanwhile[:] = [self.stroke(mask, value) for value in (2, 3, 2, 3, 2, 3)]
        session.keep_later(mask, [])()
        self.stroke(mask, 0)()
        session.keep_later(mask, [])()
        assert self.kept()[0].max() == 1
        session.close()

    @pytest.mark.parametrize("again", [False, True])
    def test_what_a_model_says_meanwhile_is_not_a_hand_s(self, mask, meanwhile, again):
        """A hand's work is left behind where there may be some, and a model's is not once that is certain."""
        session, answer = recovery.Session(), Answer.begin(mask, ("", "", 0))

        def says(value):
            return lambda: answer.write(mask, (slice(2, 3),), np.full((1, 5, 6), value, np.uint8))

        def half_said():
            mask.data[3], answer.said[3, 0] = 5, 4  # as between the two halves of `write`

        meanwhile[:] = [half_said, *(says(value) for value in range(2, 30))]
        session.keep_later(mask, [])()
        meanwhile.clear()
        assert len(self.kept()) == 1
        answer.said[...] = mask.data
        if again:
            session.keep_later(mask, [])()
        session.close()
        assert len(recovery.left_behind()) == (not again)

    def test_a_stroke_that_was_seen_while_a_run_began_is_left_behind(self, mask, meanwhile):
        """However it ends: the run's own layer is not looked at again before it is over."""
        session, answer = recovery.Session(), Answer.begin(mask, ("", "", 0))
        self.stroke(mask, 9)()
        meanwhile[:] = [lambda n=n: answer.write(mask, (slice(0, 1),), np.full((1, 5, 6), n, np.uint8)) for n in range(30)]
        session.keep_later(mask, [])()
        session.close()
        (found,) = recovery.left_behind()
        assert (found.layer().data == 9).sum() == 3

    def test_a_session_that_has_ended_begins_no_folder(self, mask):
        session = recovery.Session()
        late = session.keep_later(mask, [])
        session.close()
        late()
        assert not list(places.folder("recovery").iterdir())
