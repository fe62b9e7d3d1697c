"""What is not the usual, in a real window: a folder that is dropped, microns, values above 255, a model of one plane."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import PATIENCE, PLUGIN, finished, idle, tiny_spec
from dialogs import accept_the_file, when_shown
from hostile import SHAPE, affine_for
from napari._qt.dialogs.qt_reader_dialog import QtReaderDialog
from napari.layers import Image, Labels
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog, QLineEdit, QMessageBox, QRadioButton

from napari_unet import images
from napari_unet.segment import Segmenter
from napari_unet.spec import Label
from napari_unet.viewer import places
from napari_unet.viewer.grids import grid_of

pytestmark = pytest.mark.gui


def segment(widget, qtbot):
    widget._start.click()
    layer = widget._run.filling.layer
    finished(widget, qtbot)
    return layer


def saved(widget, path=None):
    """Press Save; the dialog's proposal, or another name."""
    names = accept_the_file(path)
    widget._save.click()
    return images.read(names[0])


def test_a_folder_that_is_dropped_opens_as_layers(window, nifti_file):
    """napari asks which reader is to take it, since its own takes folders of pictures."""
    viewer, _ = window(show=True)

    def choose(dialog):
        next(button for button in dialog.findChildren(QRadioButton) if "U-Net" in button.text()).click()
        dialog.btn_box.button(QDialogButtonBox.StandardButton.Ok).click()

    when_shown(QtReaderDialog, choose)
    scans = [nifti_file("a.nii.gz"), nifti_file("b.nii", affine=affine_for("LPS", tilt=8))]
    nifti_file("b_seg.nii.gz", data=np.ones(SHAPE, np.uint8), affine=affine_for("LPS", tilt=8))
    (scans[0].parent / "notes.txt").write_text("not an image")
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(scans[0].parent))])
    way = Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    for event in (QDragEnterEvent(QPoint(9, 9), *way), QDropEvent(QPointF(9, 9), *way)):
        QApplication.sendEvent(viewer.window._qt_viewer, event)
    assert {layer.name: type(layer) for layer in viewer.layers} == {"a": Image, "b": Image, "b_seg": Labels}


def test_microns_are_saved_as_millimetres(window, qtbot, rng, model_file, tmp_path):
    viewer, widget = window(show=True)
    viewer.add_image(rng.normal(size=(12, 10, 8)), scale=(500, 250, 250), units=("um",) * 3, name="tissue")
    widget.add_model(model_file())
    mask = segment(widget, qtbot)
    found = saved(widget, tmp_path / "tissue_seg.nii.gz")
    assert mask.data.any() and np.allclose(sorted(np.linalg.norm(found.affine[:3, :3], axis=0)), [0.25, 0.25, 0.5])
    assert np.array_equal(np.sort(found.data, axis=None), np.sort(mask.data, axis=None))


def test_values_above_255_are_kept_and_told_by_name(window, qtbot, nifti_file, model_file):
    viewer, widget = window(show=True)
    far = tiny_spec(labels=(Label(300, "anterior", "#e6194b"), Label(65000, "posterior", "#3cb44b")))
    scan, model = nifti_file(), model_file("far", far)
    viewer.open(str(scan), plugin=PLUGIN)
    widget.add_model(model)
    mask = segment(widget, qtbot)
    found = saved(widget)
    truth = Segmenter.load(model, device="cpu").segment(images.read(scan))
    assert found.data.max() == 65000 and np.array_equal(found.data, truth.data)
    assert np.allclose(mask.get_color(65000)[:3], np.array([0x3C, 0xB4, 0x4B]) / 255, atol=0.01)
    position = tuple(index[0] for index in np.nonzero(mask.data == 65000))
    assert "posterior" in mask.get_status(mask.data_to_world(position), world=True)["value"]


def test_live_with_a_model_of_one_plane(window, qtbot, nifti_file, model_file):
    """It follows the slider in that plane; in another one it says so, and paints nothing."""
    viewer, widget = window(show=True)
    scan, model = nifti_file(affine=affine_for("LPS")), model_file("flat1", tiny_spec(1, 2))
    viewer.open(str(scan), plugin=PLUGIN)
    widget.add_model(model)
    widget._panel.live.click()
    axis = viewer.dims.order[0]
    for step in (1, 4):
        viewer.dims.set_current_step(axis, step)
        idle(widget, qtbot)
    (mask,) = (layer for layer in viewer.layers if isinstance(layer, Labels))
    truth = grid_of(viewer.layers[0]).shown(Segmenter.load(model, device="cpu").segment(images.read(scan)).data)
    for step in (1, 4):
        assert np.array_equal(mask.data.take(step, axis), truth.take(step, axis)) and mask.data.take(step, axis).any()
    before = mask.data.copy()
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 2)
    idle(widget, qtbot)
    assert np.array_equal(mask.data, before) and "another plane" in widget._panel.state.text()


@pytest.mark.parametrize("answer", ["Yes", "No"])
def test_a_name_with_a_dot_replaces_nothing_unasked(window, qtbot, tmp_path, answer):
    """Qt adds no ending to it, and so does not ask; saving adds one."""
    viewer, widget = window()
    viewer.add_labels(np.ones((4, 5, 6), np.uint8))
    there = tmp_path / "patient.1.nii.gz"
    there.write_bytes(b"mine")

    def say(box):
        assert "patient.1.nii.gz already exists. Replace it?" in box.text()
        box.button(getattr(QMessageBox.StandardButton, answer)).click()

    def accept(dialog):
        dialog.setDirectory(str(tmp_path))
        dialog.findChild(QLineEdit, "fileNameEdit").setText("patient.1")
        when_shown(QMessageBox, say)
        dialog.accept()

    when_shown(QFileDialog, accept)
    widget._save.click()
    assert (there.read_bytes() == b"mine") == (answer == "No")


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_a_mask_of_a_turned_and_sheared_layer_lies_where_the_image_does(window, qtbot, model_file):
    viewer, widget = window()
    widget.add_model(model_file())
    turned = {"scale": (2, 1, 1), "rotate": (10, 20, 30), "shear": (0.1, 0.2, 0.05), "translate": (3, 4, 5)}
    image = viewer.add_image(np.random.default_rng(0).random((9, 10, 11)).astype(np.float32), **turned)
    widget._image.value = image
    mask = segment(widget, qtbot)
    for voxel in ((0, 0, 0), (8, 3, 10), (2, 9, 5)):
        assert np.allclose(mask.data_to_world(voxel), image.data_to_world(voxel))


def test_labels_of_five_axes_can_be_added(window):
    viewer, widget = window()
    layer = viewer.add_labels(np.zeros((2, 2, 3, 4, 5), np.uint8))
    assert layer in viewer.layers and widget._mask.value is layer


def test_corrections_go_to_the_layer_that_is_painted_on(window, qtbot, nifti_file, model_file):
    viewer, widget = window()
    viewer.open(str(nifti_file()), plugin=PLUGIN)
    widget.add_model(model_file())
    mask = segment(widget, qtbot)
    own = viewer.add_labels(np.zeros(mask.data.shape, np.uint8), name="by hand")
    assert widget._mask.value is own
    own.selected_label = 3
    assert widget._correct.classes.currentText() == "class 3"
    viewer.layers.selection.active = mask
    assert widget._mask.value is mask
    viewer.layers.selection.active = viewer.layers[0]  # an image: nothing else to correct
    assert widget._mask.value is mask


def test_an_image_that_was_moved_has_a_mask_of_its_own(window, qtbot, nifti_file, model_file):
    viewer, widget = window()
    viewer.open(str(nifti_file()), plugin=PLUGIN)
    widget.add_model(model_file())
    widget._panel.this.click()
    idle(widget, qtbot)
    first = widget._mask.value
    viewer.layers[0].translate = viewer.layers[0].translate + 5
    mask = segment(widget, qtbot)
    assert mask is not first and np.allclose(mask.translate, viewer.layers[0].translate)


def test_the_side_is_the_one_that_is_shown(window, qtbot):
    viewer, widget = window()
    button = next(each for each in widget.findChildren(QRadioButton) if each.text() == "Neurological")
    button.click()
    viewer.window.remove_dock_widget("all")
    _, again = viewer.window.add_plugin_dock_widget(PLUGIN, "Segment")
    assert next(each for each in again.findChildren(QRadioButton) if each.text() == "Neurological").isChecked()


def test_strokes_are_kept_before_a_run_and_the_table_is_counted_after_it(window, qtbot, slow_scan, model_file):
    viewer, widget = window(show=True)
    viewer.open(str(slow_scan), plugin=PLUGIN)
    widget.add_model(model_file())
    widget._panel.this.click()
    idle(widget, qtbot)
    layer = widget._mask.value
    layer.data_setitem((np.array([1]), np.array([2]), np.array([3])), 2)
    widget._tabs.setCurrentWidget(widget._measure)
    widget._start.click()
    qtbot.waitUntil(lambda: any(places.folder("recovery").glob(f"*/{layer.unique_id}.nii.gz")), timeout=PATIENCE)
    finished(widget, qtbot)
    qtbot.waitUntil(lambda: not widget._measure._counting)
    assert {row.value: row.voxels for row in widget._measure.rows} == {v: int((layer.data == v).sum()) for v in (1, 2)}
