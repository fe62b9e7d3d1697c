"""This slice and Live, with clicks, keys and the slider of a real window."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import PATIENCE, PLUGIN, finished, idle, tiny_spec
from held import Held
from hostile import affine_for
from napari.layers import Image, Labels
from napari.layers._layer_actions import _duplicate_layer
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt, QThreadPool

from napari_unet import images
from napari_unet.segment import Segmenter
from napari_unet.viewer import editing, screen
from napari_unet.viewer.answer import Answer
from napari_unet.viewer.grids import grid_of
from napari_unet.viewer.layers import volume_of
from napari_unet.viewer.live import AHEAD
from napari_unet.viewer.sameness import place_of
from napari_unet.viewer.screen import slice_on_screen

pytestmark = pytest.mark.gui


def opened(viewer, widget, scan, model):
    viewer.open(str(scan), plugin=PLUGIN)
    widget.add_model(model)


def mask_of(viewer):
    return next((layer for layer in viewer.layers if isinstance(layer, Labels)), None)


def this_slice(viewer, widget, qtbot, step):
    viewer.dims.set_current_step(0, step)
    widget._panel.this.click()
    idle(widget, qtbot)


def on_screen(viewer, data):
    axis = viewer.dims.order[0]
    return data.take(viewer.dims.current_step[axis], axis)


def truth_of(viewer, widget, scan, model):
    labels = Segmenter.load(model, device="cpu").segment(images.read(scan)).data
    return grid_of(viewer.layers[0]).shown(labels)


@pytest.mark.parametrize("how", ["click", "key"])
def test_this_slice_is_the_engine_s_slice_and_no_other(window, qtbot, slow_scan, model_file, how):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    viewer.dims.set_current_step(0, 9)
    if how == "click":
        widget._panel.this.click()
    else:
        qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_S)
    idle(widget, qtbot)
    data = mask_of(viewer).data
    truth = truth_of(viewer, widget, slow_scan, model_file())
    assert np.array_equal(data[9], truth[9]) and data[9].any()
    assert not np.delete(data, 9, axis=0).any()
    assert "this slice took" in widget._panel.state.text()
    mask_of(viewer).undo()
    assert not mask_of(viewer).data.any()


@pytest.mark.parametrize("plane", ["Axial", "Coronal", "Sagittal"])
def test_live_follows_the_slider_in_every_plane(window, qtbot, slow_scan, model_file, plane):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    next(b for b in widget.findChildren(type(widget._start)) if b.text() == plane).click()
    axis = viewer.dims.order[0]
    truth = truth_of(viewer, widget, slow_scan, model_file())
    widget._panel.live.click()
    for step in (3, 20, 11):
        viewer.dims.set_current_step(axis, step)
        idle(widget, qtbot)
        assert np.array_equal(on_screen(viewer, mask_of(viewer).data), truth.take(step, axis))
    widget._panel.live.click()
    viewer.dims.set_current_step(axis, 31)
    assert not widget._slices.busy and not widget._slices.live


def test_live_drops_what_is_no_longer_shown_and_asks_for_nothing_twice(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    waited = []
    widget._slices.finished.connect(waited.append)
    widget._panel.live.click()
    for step in range(35):  # a hand that drags the slider from one end to the other
        viewer.dims.set_current_step(0, step)
    qtbot.waitUntil(lambda: mask_of(viewer) is not None and Answer.in_layer(mask_of(viewer)).filled[34].all(), timeout=PATIENCE)
    idle(widget, qtbot)
    assert len(waited) < 10
    before = len(waited)
    viewer.dims.set_current_step(0, 33)  # finished beside its neighbour
    viewer.dims.set_current_step(0, 34)
    qtbot.wait(50)
    assert len(waited) == before and not widget._slices.busy


def test_live_leaves_strokes_alone(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    this_slice(viewer, widget, qtbot, 5)
    layer = mask_of(viewer)
    layer.data_setitem(tuple(np.array([n]) for n in (20, 4, 4)), 2)
    layer.data_setitem(tuple(np.array([n]) for n in (5, 4, 4)), 0)
    widget._panel.live.click()
    for step in (20, 5):
        viewer.dims.set_current_step(0, step)
        idle(widget, qtbot)
    assert layer.data[20, 4, 4] == 2 and layer.data[5, 4, 4] == 0 and Answer.in_layer(layer).filled[20].all()


def test_segment_goes_on_with_the_slices(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    widget._panel.this.click()
    idle(widget, qtbot)
    widget._start.click()
    finished(widget, qtbot)
    assert [type(layer) for layer in viewer.layers].count(Labels) == 1
    assert np.array_equal(mask_of(viewer).data, truth_of(viewer, widget, slow_scan, model_file()))
    assert mask_of(viewer).name == "slow_seg"


def test_cancel_ends_live_and_segment_does_too(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    for end in (widget._cancel, widget._start):
        widget._panel.live.setChecked(True)
        assert widget._cancel.isEnabled()
        end.click()
        assert not widget._slices.live and not widget._panel.live.isChecked()
        widget.cancel()
        idle(widget, qtbot)


def test_cancel_takes_a_window_s_time_not_a_slice_s(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    held = Held(widget, at=5)
    widget._panel.this.click()
    qtbot.waitUntil(held.reached.is_set, timeout=PATIENCE)
    widget._cancel.click()
    held.goes_on.set()
    QThreadPool.globalInstance().waitForDone(PATIENCE)
    assert held.count <= 5 + held.segmenter.in_flight
    qtbot.waitUntil(lambda: widget._slices._worker is None, timeout=PATIENCE)
    assert mask_of(viewer) is None
    this_slice(viewer, widget, qtbot, 9)
    assert np.array_equal(mask_of(viewer).data[9], truth_of(viewer, widget, slow_scan, model_file())[9])


def test_live_does_not_finish_a_slice_that_is_no_longer_shown(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    held = Held(widget, at=5)
    held.goes_on.set()
    viewer.dims.set_current_step(0, 35)
    list(held.segmenter.stream(images.read(slow_scan), slice_on_screen(viewer, viewer.layers[0], grid_of(viewer.layers[0])), AHEAD))
    alone, held.count = held.count, 0
    held.goes_on.clear()
    held.reached.clear()
    viewer.dims.set_current_step(0, 17)
    widget._panel.live.click()
    qtbot.waitUntil(held.reached.is_set, timeout=PATIENCE)
    viewer.dims.set_current_step(0, 35)
    held.goes_on.set()
    idle(widget, qtbot)
    assert mask_of(viewer).data[35].any() and held.count <= 5 + held.segmenter.in_flight + alone
    widget._panel.live.click()


def test_removing_layers_ends_live_quietly(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    widget._panel.live.click()
    viewer.layers.clear()
    idle(widget, qtbot)
    assert not viewer.layers and not widget._panel.live.isChecked()


def test_a_damaged_model_ends_live_with_one_sentence(window, qtbot, nifti_file, model_file):
    model = model_file("broken")
    content = bytearray(model.read_bytes())
    content[-3] ^= 1
    model.write_bytes(content)
    viewer, widget = window()
    opened(viewer, widget, nifti_file(), model)
    QThreadPool.globalInstance().waitForDone(PATIENCE)
    qtbot.wait(20)
    before = len(notification_manager.records)
    widget._panel.live.click()
    qtbot.waitUntil(lambda: not widget._panel.live.isChecked(), timeout=PATIENCE)
    told = [record.message for record in notification_manager.records[before:] if "checksum" in record.message]
    assert len(told) == 1 and mask_of(viewer) is None


def test_a_flat_model_says_which_plane_it_reads(window, qtbot, nifti_file, model_file):
    viewer, widget = window()
    scan = nifti_file(affine=affine_for("LPS"))
    opened(viewer, widget, scan, model_file("flat1", tiny_spec(1, 2)))
    widget._panel.this.click()
    idle(widget, qtbot)
    truth = truth_of(viewer, widget, scan, model_file("flat1", tiny_spec(1, 2)))
    assert np.array_equal(on_screen(viewer, mask_of(viewer).data), on_screen(viewer, truth))
    viewer.dims.order = (1, 0, 2)
    widget._panel.this.click()
    assert not widget._slices.busy and "another plane" in widget._panel.state.text()


def test_a_picture_is_one_slice(window, qtbot, rng, model_file):
    viewer, widget = window()
    viewer.add_image(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8), rgb=True, name="picture")
    widget.add_model(model_file("flat", tiny_spec(3, 2, pictures=True)))
    widget._panel.this.click()
    idle(widget, qtbot)
    assert mask_of(viewer).data.shape == (40, 50) and mask_of(viewer).data.any()


def test_the_keys_go_with_the_widget(window, qtbot):
    viewer, widget = window()
    viewer.add_image(np.zeros((9, 9, 9)))
    canvas = viewer.window._qt_viewer.canvas.native
    viewer.window.remove_dock_widget(widget)
    qtbot.keyClick(canvas, Qt.Key.Key_S)
    assert not widget._slices.busy and len(viewer.layers) == 1


def test_a_key_that_was_a_person_s_is_theirs_again(make_napari_viewer, qtbot):
    viewer, pressed = make_napari_viewer(), []
    canvas = viewer.window._qt_viewer.canvas.native
    viewer.bind_key("S", lambda _: pressed.append("before"))
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "Segment")
    qtbot.keyClick(canvas, Qt.Key.Key_S)
    assert pressed == []
    viewer.bind_key("N", lambda _: pressed.append("since"), overwrite=True)
    viewer.window.remove_dock_widget(widget)
    for key in (Qt.Key.Key_S, Qt.Key.Key_N, Qt.Key.Key_U):
        qtbot.keyClick(canvas, key)
    assert pressed == ["before", "since"]
    QThreadPool.globalInstance().waitForDone(PATIENCE)


def test_a_slice_wished_for_right_after_cancel_comes(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    viewer.dims.set_current_step(0, 9)
    widget._panel.this.click()
    widget.cancel()
    this_slice(viewer, widget, qtbot, 20)
    assert np.flatnonzero(mask_of(viewer).data.any((1, 2))).tolist() == [20]


def test_why_there_is_no_slice_is_told(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    viewer.dims.ndisplay = 3
    widget._panel.this.click()
    assert widget._panel.state.text() == "show slices, in 2-D, or press Segment"
    viewer.dims.ndisplay = 2
    scale, start = viewer.layers[0].scale, viewer.layers[0].translate
    viewer.add_image(np.zeros((9, 9, 9)), scale=scale, translate=start + 99 * scale)
    viewer.dims.set_point(0, start[0] + 104 * scale[0])
    widget._image.value = viewer.layers[0]
    widget._panel.this.click()
    assert widget._panel.state.text() == "the slice on the screen lies outside the image" and mask_of(viewer) is None


def test_live_says_again_what_was_undone(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    this_slice(viewer, widget, qtbot, 9)
    said = mask_of(viewer).data.copy()
    mask_of(viewer).undo()
    widget._panel.live.click()
    idle(widget, qtbot)
    assert said[9].any() and np.array_equal(mask_of(viewer).data[9], said[9])
    widget._panel.live.click()


TURNED = [
    {"rotate": (0, 20, 0)},
    {"rotate": (10, 0, 25), "scale": (2, 1, 1)},
    {"affine": [[1, 0.3, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
]


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("place", TURNED)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_a_layer_turned_out_of_its_slices_is_segmented_in_the_one_that_is_drawn(window, qtbot, rng, model_file, place, order):
    """napari draws the slice whose place along the hidden axis alone is the slider's; no voxel of another one is written."""
    viewer, widget = window()
    image = viewer.add_image(rng.random((20, 24, 28)).astype(np.float32), **place)
    widget.add_model(model_file())
    viewer.dims.order = order
    viewer.dims.set_point(order[0], float(np.mean(image.extent.world[:, order[0]])))
    axis = order[0]
    drawn = np.asarray(image._slice.image.raw)
    (index,) = (n for n in range(image.data.shape[axis]) if np.array_equal(image.data.take(n, axis), drawn))
    widget._panel.this.click()
    idle(widget, qtbot)
    mask = mask_of(viewer)
    assert np.flatnonzero(Answer.in_layer(mask).filled.any(axis=tuple(a for a in range(3) if a != axis))).tolist() == [index]
    assert np.flatnonzero(mask.data.any(axis=tuple(a for a in range(3) if a != axis))).tolist() == [index]
    assert not Answer.in_layer(mask).painted(mask).any()
    screen.show_slice(viewer, mask, axis, index + 2)
    assert np.array_equal(np.asarray(image._slice.image.raw), image.data.take(index + 2, axis))
    editing.put(mask, np.where(np.arange(20)[:, None, None] == 3, 2, mask.data).astype(np.uint8))
    mask.undo()
    assert np.flatnonzero(mask.data.any(axis=tuple(a for a in range(3) if a != axis))).tolist() == [index]
    mask.undo()
    assert not mask.data.any()


def test_a_stroke_that_is_undone_after_live_leaves_no_hole(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    this_slice(viewer, widget, qtbot, 5)
    layer = mask_of(viewer)
    layer.data_setitem(np.nonzero((np.indices(layer.data.shape)[0] == 20) & (np.indices(layer.data.shape)[1] < 9)), 2)
    widget._panel.live.click()
    viewer.dims.set_current_step(0, 20)
    idle(widget, qtbot)
    assert (layer.data[20, :9] == 2).all() and Answer.in_layer(layer).filled[20].all()
    widget._panel.live.click()
    while layer.data[20].any():
        layer.undo()
    this_slice(viewer, widget, qtbot, 20)
    assert np.array_equal(layer.data[20], truth_of(viewer, widget, slow_scan, model_file())[20])


def test_an_image_that_does_not_fit_ends_live_with_its_hint(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    widget._panel.live.click()
    idle(widget, qtbot)
    widget._image.value = viewer.add_image(np.zeros((2, 2, 3, 4, 5), np.float32), name="five")
    assert not widget._slices.live and not widget._panel.live.isChecked() and "5 axes" in widget._hint.text()


def test_live_goes_on_with_a_model_of_fewer_channels(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file("two", tiny_spec(2)))
    first = viewer.layers[0]
    viewer.add_image(first.data * 2, name="T2", scale=first.scale, translate=first.translate, metadata=first.metadata)
    widget._image.value = first
    widget._choice.channels._combos[0].value = viewer.layers["T2"]
    before = len(notification_manager.records)
    widget._panel.live.click()
    idle(widget, qtbot)
    widget.add_model(model_file("one"))
    idle(widget, qtbot)
    told = [record.message for record in notification_manager.records[before:]]
    assert widget._slices.live and not any("channel" in message for message in told)


def test_a_duplicate_kept_as_a_copy_is_not_written_into(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    this_slice(viewer, widget, qtbot, 5)
    original = mask_of(viewer)
    viewer.layers.selection = {original}
    _duplicate_layer(viewer.layers)
    copy = next(layer for layer in viewer.layers if layer.name.endswith(" copy"))
    for chosen in (original, viewer.layers[0]):  # the mask, or its image
        viewer.layers.selection = {chosen}
        this_slice(viewer, widget, qtbot, 9 if chosen is original else 12)
    assert original.data[9].any() and original.data[12].any() and not copy.data[9].any() and not copy.data[12].any()
    viewer.layers.selection = {copy}
    this_slice(viewer, widget, qtbot, 15)
    assert copy.data[15].any() and not original.data[15].any()


def test_voxels_that_were_edited_in_place_are_seen(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    image, path = viewer.layers[0], model_file()
    widget._panel.live.click()
    idle(widget, qtbot)
    image.data[...] = image.data[::-1].copy()[:, ::-1] * 3
    image.refresh()
    viewer.dims.set_current_step(0, 3)
    idle(widget, qtbot)
    truth = Segmenter.load(path, device="cpu").segment(volume_of(image)).data
    assert np.array_equal(mask_of(viewer).data[3], grid_of(image).shown(truth)[3])


def test_data_that_take_the_place_of_others_are_others():
    """An `id` is given again once an array is gone."""
    layer = Image(np.zeros((5, 6, 7)))
    places = set()
    for _ in range(20):
        layer.data = np.random.default_rng(0).random((5, 6, 7))
        places.add(place_of(layer))
    assert len(places) == 20 and place_of(layer) == place_of(layer)


@pytest.mark.parametrize("place", [{"rotate": (90, 0, 0)}, {"affine": [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}])
@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_a_layer_turned_by_a_right_angle_sends_the_slider_nowhere_wild(viewer_model, place):
    layer = viewer_model.add_labels(np.ones((8, 9, 10), np.uint8), **place)
    screen.show_slice(viewer_model, layer, 0, 3)
    low, high, _ = viewer_model.dims.range[0]
    assert low <= viewer_model.dims.point[0] <= high


def test_an_image_whose_voxels_are_replaced_gets_a_mask_of_its_own(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    this_slice(viewer, widget, qtbot, 5)
    first = mask_of(viewer)
    viewer.layers[0].data = viewer.layers[0].data[::-1] * 2
    this_slice(viewer, widget, qtbot, 9)
    assert [type(layer) for layer in viewer.layers].count(Labels) == 2 and not first.data[9].any()


@pytest.mark.parametrize("cancelled", [False, True])
def test_undo_leads_back_through_a_run_to_what_came_before_it(window, qtbot, slow_scan, model_file, cancelled):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    this_slice(viewer, widget, qtbot, 9)
    layer = mask_of(viewer)
    said = layer.data.copy()
    viewer.layers.selection.active, layer.mode = layer, "paint"
    layer.paint((20, 4, 4), 2)
    painted = layer.data.copy()
    widget._start.click()
    assert not layer.editable
    if cancelled:
        widget._cancel.click()
        assert np.array_equal(layer.data, painted)
    finished(widget, qtbot)
    assert layer.mode == "paint" and np.array_equal(layer.data, painted) == cancelled
    wanted = [said, np.zeros_like(said)] if cancelled else [painted, said, np.zeros_like(said)]
    for each in wanted:
        qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        assert np.array_equal(layer.data, each)


@pytest.mark.parametrize("plane", ["Axial", "Coronal", "Sagittal"])
def test_a_model_that_nnunet_trained_shows_slices_in_every_plane(window, qtbot, nifti_file, rng, model_file, plane):
    """Within the box of what is not 0 and beyond it, and the whole volume at last."""
    data = np.pad(rng.integers(1, 900, (20, 22, 18)).astype(np.int16), 6)
    scan = nifti_file("framed.nii.gz", data=data, affine=affine_for("LSP", (1.0, 1.2, 0.9)))
    spec = tiny_spec(orientation="kji", crop=True, resampling="cubic", windows="patch", spacing=(1.1, 1.0, 1.0), mirror_axes=(0,))
    viewer, widget = window()
    opened(viewer, widget, scan, model := model_file("converted", spec))
    next(b for b in widget.findChildren(type(widget._start)) if b.text() == plane).click()
    axis, truth = viewer.dims.order[0], truth_of(viewer, widget, scan, model)
    for step in (15, 2):
        viewer.dims.set_current_step(axis, step)
        widget._panel.this.click()
        idle(widget, qtbot)
        assert np.array_equal(on_screen(viewer, mask_of(viewer).data), truth.take(step, axis))
    widget._start.click()
    finished(widget, qtbot)
    assert np.array_equal(mask_of(viewer).data, truth) and truth.any()


def test_live_ends_with_its_image(window, qtbot, slow_scan, nifti_file, model_file):
    viewer, widget = window()
    viewer.open(str(nifti_file("other.nii.gz")), plugin=PLUGIN)
    opened(viewer, widget, slow_scan, model_file())
    widget._image.value = viewer.layers["slow"]
    widget._panel.live.setChecked(True)
    viewer.layers.remove("slow")
    assert not widget._panel.live.isChecked() and not widget._slices.live
    idle(widget, qtbot)
    assert mask_of(viewer) is None and widget._image.value is viewer.layers["other"]


def test_a_renamed_layer_stays_the_one_that_is_chosen(window, qtbot, slow_scan, nifti_file, model_file):
    viewer, widget = window()
    viewer.open(str(nifti_file("other.nii.gz")), plugin=PLUGIN)
    opened(viewer, widget, slow_scan, model_file())
    image = widget._image.value = viewer.layers["slow"]
    masks = [viewer.add_labels(np.zeros((3, 4, 5), np.uint8), name=name) for name in ("first", "second")]
    widget._panel.live.setChecked(True)
    image.name, masks[1].name = "renamed", "final"
    assert widget._image.value is image and widget._panel.live.isChecked() and widget._slices._live.image is image
    assert widget._mask.value is masks[1] and widget._correct._layer is masks[1]
    idle(widget, qtbot)
    assert {layer.name for layer in viewer.layers} == {"other", "renamed", "first", "final", "renamed_seg"}


def test_what_a_run_has_begun_stays_chosen_when_it_is_cancelled(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    viewer.add_labels(np.zeros((3, 4, 5), np.uint8), name="hand's")
    widget._start.click()
    run = widget._run
    qtbot.waitUntil(lambda: run.filling.done >= 2, timeout=PATIENCE)
    widget._cancel.click()
    qtbot.waitUntil(lambda: "slices)" in run.filling.layer.name, timeout=PATIENCE)
    assert widget._mask.value is run.filling.layer


def test_a_run_with_uncertainty_leaves_the_mask_selected(window, qtbot, slow_scan, model_file):
    viewer, widget = window()
    opened(viewer, widget, slow_scan, model_file())
    this_slice(viewer, widget, qtbot, 9)
    widget._advanced.uncertainty.setChecked(True)
    widget._start.click()
    assert isinstance(viewer.layers.selection.active, Labels)
    finished(widget, qtbot)
    assert viewer.layers.selection.active is mask_of(viewer)


def test_the_card_s_millilitres_are_of_the_image_and_go_with_what_was_said(window, qtbot, slow_scan, nifti_file, model_file):
    viewer, widget = window()
    viewer.open(str(nifti_file("other.nii.gz")), plugin=PLUGIN)
    opened(viewer, widget, slow_scan, model_file())
    slow = viewer.layers["slow"]

    def told():
        return any(label.text() for label in widget._card._volumes.values())

    def again():
        widget._image.value = slow
        widget._start.click()
        finished(widget, qtbot)
        assert told()
        return widget._mask.value

    again()
    widget._image.value = viewer.layers["other"]
    assert not told()
    viewer.layers.remove(again())
    assert not told()
    mask = again()
    mask.selected_label = 0
    mask.paint(tuple(n // 2 for n in mask.data.shape), 0)
    assert not told()
