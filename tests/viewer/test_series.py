"""All volumes of a 4-D image into one mask: in a real window, with a real model, clicks and keys."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from conftest import PATIENCE, PLUGIN, finished, idle, tiny_spec
from dialogs import accept_the_file
from hostile import affine_for
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, QThreadPool

from napari_unet import images
from napari_unet.segment import Segmenter
from napari_unet.viewer.estimate import cost
from napari_unet.viewer.layers import volume_of
from napari_unet.viewer.options import Options
from napari_unet.viewer.panel import RunPanel
from napari_unet.volume import Volume

STEPS = 4


@pytest.fixture
def beating(nifti_file, rng):
    """A 4-D file on an awkward grid: 2.5 s between volumes."""

    def make(shape=(9, 8, 7, STEPS)):
        path = nifti_file("beating.nii.gz", data=rng.integers(0, 900, shape).astype(np.int16), affine=affine_for("PSR", tilt=9))
        image = nibabel.load(path)
        image.header["pixdim"][4] = 2.5
        nibabel.save(image, path)
        return path

    return make


@pytest.fixture
def at_work(window, qtbot):
    """A window that shows the third volume of a file, with all of them wanted."""

    def make(path, model):
        viewer, widget = window(show=True)
        viewer.open(str(path), plugin=PLUGIN)
        viewer.dims.set_current_step(0, 2)
        widget.add_model(model)
        assert widget._choice.volumes.isVisible() and "the one on the screen is segmented" in widget._hint.text()
        qtbot.keyClick(widget._choice.volumes, Qt.Key.Key_Down)
        assert widget._choice.volumes.currentText() == f"all {STEPS}, into one mask" and widget._hint.text() == ""
        return viewer, widget

    return make


def truth(path, model):
    volume, segmenter = images.read(path), Segmenter.load(model, device="cpu")
    return np.stack([segmenter.segment(volume.channel(step)).data for step in range(volume.channels)], -1)


def masks(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


@pytest.mark.gui
class TestInAWindow:
    def test_every_volume_is_what_the_engine_says_and_is_saved_on_the_image_s_grid(self, at_work, qtbot, beating, model_file):
        path, model = beating(), model_file("largest", tiny_spec(keep_largest=(1, 2)))
        viewer, widget = at_work(path, model)
        widget._start.click()
        finished(widget, qtbot)
        (mask,) = masks(viewer)
        assert mask.data.shape == viewer.layers["beating"].data.shape and tuple(mask.scale) == tuple(viewer.layers["beating"].scale)
        assert widget._panel.state.text() == f"{STEPS} volumes, {STEPS * 8} slices, done"

        accept_the_file()
        widget._save.click()
        saved, image = nibabel.load(path.with_name("beating_seg.nii.gz")), nibabel.load(path)
        assert np.array_equal(saved.dataobj, truth(path, model)) and np.asarray(saved.dataobj).any(axis=(0, 1, 2)).all()
        assert (saved.affine == image.affine).all() and saved.get_data_dtype() == np.uint8
        assert saved.header.get_zooms() == image.header.get_zooms() and saved.header.get_xyzt_units() == ("mm", "sec")
        (again,) = viewer.open(str(path.with_name("beating_seg.nii.gz")), plugin=PLUGIN)
        assert isinstance(again, Labels) and np.array_equal(again.data, mask.data)

    def test_cancel_keeps_the_volumes_that_are_there_the_one_on_the_screen_first(self, at_work, qtbot, beating, model_file):
        path, model = beating((32, 36, 32, STEPS)), model_file()
        viewer, widget = at_work(path, model)
        widget._start.click()
        run = widget._run
        qtbot.waitUntil(lambda: widget._panel.state.text().startswith("volume 2 of 4, slice "), timeout=PATIENCE)
        widget._cancel.click()
        (mask,) = masks(viewer)
        kept = mask.data.copy()
        assert np.array_equal(run.filling.grid.stored(kept)[..., 2], truth(path, model)[..., 2])
        assert not kept[0].any() and f"({run.filling.done} of {4 * 36} slices)" in mask.name
        QThreadPool.globalInstance().waitForDone(PATIENCE)
        qtbot.wait(50)
        assert np.array_equal(mask.data, kept) and widget._start.isEnabled()

    def test_single_slices_begin_the_mask_that_a_run_goes_on_with(self, at_work, qtbot, beating, model_file):
        path, model = beating(), model_file()
        viewer, widget = at_work(path, model)
        whole = viewer.layers["beating"]
        widget._panel.this.click()
        idle(widget, qtbot)
        (mask,) = masks(viewer)
        assert mask.data.shape == whole.data.shape and mask.data[2].any() and not np.delete(mask.data, 2, 0).any()
        widget._panel.live.click()
        viewer.dims.set_current_step(0, 1)
        qtbot.waitUntil(lambda: bool(mask.data[1].any()), timeout=PATIENCE)
        widget._panel.live.click()
        idle(widget, qtbot)
        mask.data_setitem((np.array([3]), np.array([0]), np.array([0]), np.array([0])), 9)
        widget._start.click()
        finished(widget, qtbot)
        assert masks(viewer) == [mask] and mask.data[3, 0, 0, 0] == 9
        assert np.count_nonzero(volume_of(mask).data != truth(path, model)) == 1
        mask.undo()
        assert not mask.data[0].any() and mask.data[3, 0, 0, 0] == 9

    def test_removing_the_mask_stops_the_run(self, at_work, qtbot, beating, model_file):
        viewer, widget = at_work(beating((32, 36, 32, STEPS)), model_file())
        widget._start.click()
        run = widget._run
        qtbot.waitUntil(lambda: run.filling.done >= 1, timeout=PATIENCE)
        viewer.layers.remove(masks(viewer)[0])
        assert widget._run is None and [type(layer) for layer in viewer.layers] == [Image]

    def test_uncertainty_is_one_of_the_series_too(self, at_work, qtbot, beating, model_file):
        path = beating()
        viewer, widget = at_work(path, model_file())
        widget._advanced.uncertainty.setChecked(True)
        widget._start.click()
        finished(widget, qtbot)
        doubt = viewer.layers["beating_uncertainty"].data
        assert doubt.shape == viewer.layers["beating"].data.shape and doubt.any(axis=(1, 2, 3)).all()
        worst = int(doubt[2].sum(axis=(1, 2)).argmax())
        viewer.dims.set_current_step(1, 0 if worst else 1)
        widget._correct.button("check").click()
        assert viewer.dims.current_step[:2] == (2, worst)

    def test_a_layer_of_one_volume_is_asked_nothing(self, window, nifti_file, model_file):
        viewer, widget = window(show=True)
        viewer.open(str(nifti_file()), plugin=PLUGIN)
        widget.add_model(model_file())
        assert not widget._choice.volumes.isVisible() and widget._hint.text() == ""


def test_so_many_volumes_cost_so_much():
    volume = Volume(np.broadcast_to(np.float32(0), (30, 30, 30)), np.eye(4))
    one, five = (cost(tiny_spec(), volume, Options(), volumes=count) for count in (1, 5))
    assert five.voxels == 5 * one.voxels and five.memory > one.memory
    assert five.words(1.0).split(";")[0].split(", ")[1] == one.words(1.0).split(";")[0].split(", ")[1]  # of a slice


def test_the_words_of_a_series(qtbot):
    panel = RunPanel()
    qtbot.addWidget(panel)
    told = []
    for done in (1, 35, 36, 140):
        panel.progressed(done, 140, 9.0 if done < 140 else None, 4)
        told.append(panel.state.text())
    assert told == ["volume 1 of 4, slice 1 of 35, 9 s left", "volume 1 of 4, slice 35 of 35, 9 s left",
                    "volume 2 of 4, slice 1 of 35, 9 s left", "volume 4 of 4, slice 35 of 35"]  # fmt: skip

    def test_live_shows_the_mask_of_the_volume_on_the_screen_and_no_other(self, window, qtbot, beating, model_file):
        viewer, widget = window(show=True)
        viewer.open(str(beating()), plugin=PLUGIN)
        widget.add_model(model_file())
        widget._panel.live.setChecked(True)
        for step in (0, 1, 2, 0):
            viewer.dims.set_current_step(0, step)
            idle(widget, qtbot)
            qtbot.waitUntil(lambda step=step: f"beating_t{step}_seg" in viewer.layers, timeout=PATIENCE)
            shown = [layer.name for layer in masks(viewer) if layer.visible]
            assert shown == [f"beating_t{step}_seg"] == [widget._mask.value.name]
