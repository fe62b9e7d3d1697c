"""The Segment widget in a real window, with a real model, real files and real threads."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import PATIENCE, PLUGIN, finished, tiny_spec
from dialogs import accept_the_file
from held import Held
from hostile import affine_for
from napari.layers import Image, Labels, Layer
from napari.settings import get_plugin_settings
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, QRect, Qt, QThreadPool
from qtpy.QtWidgets import QFileDialog, QLabel, QScrollArea

from napari_unet import images
from napari_unet.card import Card
from napari_unet.segment import Segmenter
from napari_unet.spec import Label
from napari_unet.viewer import grids, layers
from napari_unet.viewer.card import ModelCard, facts
from napari_unet.viewer.engine import Engine
from napari_unet.viewer.estimate import cost
from napari_unet.viewer.model import Model
from napari_unet.viewer.options import Options
from napari_unet.viewer.saving import proposal
from napari_unet.viewer.segment_widget import PAUSE, SegmentWidget
from napari_unet.viewer.work import Work
from napari_unet.volume import Volume


def started(viewer, widget, qtbot, scan, model, after=0):
    viewer.open(str(scan), plugin=PLUGIN)
    widget.add_model(model)
    assert widget._start.isEnabled(), widget._hint.text()
    widget._start.click()
    run = widget._run
    qtbot.waitUntil(lambda: run.filling.done >= after, timeout=PATIENCE)
    return run


def names(widget):
    return [widget._choice.models.itemText(index) for index in range(widget._choice.models.count())]


def messages(since):
    return [record.message for record in notification_manager.records[since:]]


@pytest.mark.gui
class TestInAWindow:
    def test_a_mask_fills_slice_by_slice_and_ends_as_the_engine_has_it(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window(show=True)
        run = started(viewer, widget, qtbot, slow_scan, model_file(), after=1)
        shown = run.filling.layer.data
        filled = [index for index, plane in enumerate(shown) if plane.any()]
        assert filled and len(filled) < len(shown)
        assert min(abs(index - viewer.dims.current_step[0]) for index in filled) <= 1
        assert "slice" in widget._panel.state.text() and not widget._start.isEnabled()
        finished(widget, qtbot)
        truth = Segmenter.load(model_file(), device="cpu").segment(images.read(slow_scan))
        saved = slow_scan.with_name("result.nii.gz")
        run.filling.layer.save(str(saved), plugin=PLUGIN)
        assert np.array_equal(nibabel.load(saved).dataobj, truth.data)
        assert (nibabel.load(saved).affine == nibabel.load(slow_scan).affine).all()
        assert widget._panel.state.text() == "36 slices, done" and widget._card._volumes[2].text()

    def test_cancel_keeps_what_is_there(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window()
        run = started(viewer, widget, qtbot, slow_scan, model_file(), after=2)
        widget._cancel.click()
        assert widget._run is None and widget._start.isEnabled()
        qtbot.waitUntil(lambda: widget._panel.state.text().startswith("stopped after"), timeout=PATIENCE)
        kept = run.filling.layer.data.copy()
        QThreadPool.globalInstance().waitForDone(PATIENCE)
        qtbot.wait(50)
        assert kept.any() and np.array_equal(run.filling.layer.data, kept)
        assert f"({run.filling.done} of 36 slices)" in run.filling.layer.name

    @pytest.mark.parametrize("how", ["cancelled", "closed", "napari quits"])
    def test_it_ends_in_the_midst_of_a_slice(self, window, qtbot, slow_scan, model_file, how):
        viewer, widget = window()
        viewer.open(str(slow_scan), plugin=PLUGIN)
        widget.add_model(model_file())
        held = Held(widget, at=5)
        widget._start.click()
        run = widget._run
        qtbot.waitUntil(held.reached.is_set, timeout=PATIENCE)
        {"cancelled": widget._cancel.click, "closed": viewer.close, "napari quits": run._worker.quit}[how]()
        held.goes_on.set()
        QThreadPool.globalInstance().waitForDone(PATIENCE)
        assert held.count <= 5 + held.segmenter.in_flight
        qtbot.waitUntil(lambda: run.filling.over, timeout=PATIENCE)
        assert run.filling.done == 0

    @pytest.mark.parametrize("what", ["run", "slice", "slice and another"])
    def test_it_says_that_it_is_cancelling_until_the_model_rests(self, window, qtbot, slow_scan, model_file, what):
        viewer, widget = window()
        viewer.open(str(slow_scan), plugin=PLUGIN)
        widget.add_model(model_file())
        held = Held(widget, at=5)
        (widget._start if what == "run" else widget._panel.this).click()
        qtbot.waitUntil(held.reached.is_set, timeout=PATIENCE)
        widget._cancel.click()
        qtbot.wait(50)
        assert widget._panel.state.text() == "cancelling…" and not widget._cancel.isEnabled() and widget._start.isEnabled()
        if what == "slice and another":
            widget._panel.this.click()
        held.goes_on.set()
        expected = {"run": "stopped before the first slice", "slice": "stopped"}.get(what, "this slice took")
        qtbot.waitUntil(lambda: widget._panel.state.text().startswith(expected), timeout=PATIENCE)
        qtbot.waitUntil(lambda: not widget._slices.busy, timeout=PATIENCE)
        assert not widget._cancel.isEnabled()

    def test_the_lists_have_names_for_who_does_not_see_them(self, window, qtbot, slow_scan):
        viewer, widget = window(show=True)
        viewer.open(str(slow_scan), plugin=PLUGIN)

        headings = {label.buddy(): label.text() for label in widget.findChildren(QLabel)}
        lists = {
            "Image": widget._image.native, "Model": widget._choice.models, "Mask": widget._mask.native, "Class": widget._correct.classes,
            "Within": widget._measure.region.layers, "Volumes": widget._choice.volumes,
        }  # fmt: skip
        for name, part in lists.items():
            assert headings[part] == part.accessibleName() == name

    def test_cancel_before_the_first_slice_leaves_no_empty_mask(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window()
        started(viewer, widget, qtbot, slow_scan, model_file())
        widget.cancel()
        assert [type(layer) for layer in viewer.layers] == [Image]
        qtbot.waitUntil(lambda: widget._panel.state.text() == "stopped before the first slice", timeout=PATIENCE)

    def test_the_next_run_is_not_disturbed_by_a_cancelled_one(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window()
        started(viewer, widget, qtbot, slow_scan, model_file(), after=1)
        widget.cancel()
        widget._start.click()
        second = widget._run
        finished(widget, qtbot)
        truth = Segmenter.load(model_file(), device="cpu").segment(images.read(slow_scan))
        assert np.array_equal(second.filling.grid.stored(second.filling.layer.data), truth.data)

    def test_removing_the_mask_stops_the_run(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window()
        run = started(viewer, widget, qtbot, slow_scan, model_file(), after=1)
        viewer.layers.remove(run.filling.layer)
        assert widget._run is None and run.filling.over

    def test_removing_the_image_does_not(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window()
        run = started(viewer, widget, qtbot, slow_scan, model_file(), after=1)
        viewer.layers.remove("slow")
        finished(widget, qtbot)
        assert run.filling.done == 36 and not widget._start.isEnabled()

    def test_layers_that_are_removed_after_a_run_are_gone(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window()
        run = started(viewer, widget, qtbot, slow_scan, model_file(), after=1)
        finished(widget, qtbot)
        layers = [weakref.ref(run.filling.layer), weakref.ref(viewer.layers["slow"])]
        del run
        viewer.layers.clear()

        def gone() -> bool:
            gc.collect()
            return not any(layer() for layer in layers)

        qtbot.waitUntil(gone)

    def test_closing_the_viewer_stops_the_run(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window()
        run = started(viewer, widget, qtbot, slow_scan, model_file(), after=1)
        viewer.close()
        QThreadPool.globalInstance().waitForDone(PATIENCE)
        assert run.filling.over and run.filling.done < 36

    def test_napari_may_stop_the_run(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window()
        run = started(viewer, widget, qtbot, slow_scan, model_file(), after=1)
        run._worker.quit()  # as it does when its window is closed
        finished(widget, qtbot)
        assert run.filling.over and run.filling.done < 36 and widget._start.isEnabled()

    def test_closing_the_widget_stops_the_run(self, window, qtbot, slow_scan, model_file):
        viewer, widget = window()
        run = started(viewer, widget, qtbot, slow_scan, model_file(), after=1)
        viewer.window.remove_dock_widget(widget)
        assert run.filling.over and run.filling.here()
        viewer.dims.set_current_step(0, 3)  # the viewer goes on without it
        viewer.dims.order = (1, 0, 2)
        qtbot.wait(50)

    def test_a_damaged_model_is_told_and_leaves_no_mask(self, window, qtbot, nifti_file, model_file):
        model = model_file("damaged")
        content = bytearray(model.read_bytes())
        content[-3] ^= 1
        model.write_bytes(content)
        viewer, widget = window()
        before = len(notification_manager.records)
        started(viewer, widget, qtbot, nifti_file(), model)
        finished(widget, qtbot)
        assert any("checksum" in message for message in messages(before))
        assert [type(layer) for layer in viewer.layers] == [Image]

    def test_an_image_that_says_nothing_is_told_and_leaves_no_mask(self, window, qtbot, nifti_file, model_file):
        viewer, widget = window()
        before = len(notification_manager.records)
        started(viewer, widget, qtbot, nifti_file(data=np.full((9, 9, 9), 4, np.int16)), model_file())
        finished(widget, qtbot)
        assert any("has the value 4" in message for message in messages(before))
        assert [type(layer) for layer in viewer.layers] == [Image]

    def test_the_save_button_proposes_a_name_and_saves(self, window, qtbot, nifti_file, model_file):
        viewer, widget = window()
        scan = nifti_file(affine=affine_for("PSR", tilt=10))
        started(viewer, widget, qtbot, scan, model_file())
        finished(widget, qtbot)
        proposed = accept_the_file()
        widget._save.click()
        assert proposed == [str(scan.with_name("scan_seg.nii.gz"))]
        assert (nibabel.load(proposed[0]).affine == nibabel.load(scan).affine).all()

    def test_a_picture_and_a_series_are_segmented_too(self, window, qtbot, nifti_file, model_file, rng):
        viewer, widget = window()
        flat = model_file("flat", tiny_spec(3, 2, pictures=True))
        viewer.add_image(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8), rgb=True, name="picture")
        widget.add_model(flat)
        widget._start.click()
        finished(widget, qtbot)
        assert viewer.layers["picture_seg"].data.shape == (40, 50) and viewer.layers["picture_seg"].data.any()
        viewer.layers.clear()
        series = nifti_file("series.nii", data=rng.random((9, 8, 7, 4)).astype(np.float32))
        viewer.open(str(series), plugin=PLUGIN)
        viewer.dims.set_current_step(0, 2)
        widget.add_model(model_file())
        assert "Of the layer's 4 volumes" in widget._hint.text()
        widget._start.click()
        mask = widget._run.filling
        finished(widget, qtbot)
        truth = Segmenter.load(model_file(), device="cpu").segment(images.read(series).channel(2))
        assert np.array_equal(mask.grid.stored(mask.layer.data), truth.data)

    def test_it_fits_a_small_screen(self, window, qtbot, nifti_file, model_file):
        viewer, widget = window(show=True)
        viewer.window._qt_window.resize(1280, 720)
        widget.add_model(model_file())
        qtbot.wait(50)
        assert viewer.window._qt_window.height() <= 720 and widget.width() < 360
        assert not widget.horizontalScrollBar().isVisible()


    def test_long_names_and_many_classes_leave_the_buttons_on_a_small_screen(self, window, qtbot, model_file):
        viewer, widget = window(show=True)
        viewer.window._qt_window.resize(1280, 720)
        for name in ("T1", "T2", "T3"):
            viewer.add_image(np.zeros((5, 6, 7)), name=f"patient_0012_session_03_run_2_reconstruction_{name}")
        network = replace(tiny_spec(3).network, classes=31)
        labels = tuple(Label(n, f"organ_{n}_of_the_left_side_of_the_body", "#3cb44b") for n in range(1, 31))
        widget.add_model(model_file("many", tiny_spec(3, name="many " * 20, network=network, labels=labels)))
        assert widget._start.isEnabled(), widget._hint.text()
        widget._pointer.setText("R -112.3  A 104.5  S -33.1 mm   voxel 112, 113, 114   " + viewer.layers[0].name)
        essential = [widget._start, widget._panel.this, widget._panel.live, widget._cancel, widget._choice.open, widget._save]

        def out_of_sight():
            places = {part.text(): QRect(part.mapTo(widget.viewport(), QPoint(0, 0)), part.size()) for part in essential}
            return [text for text, place in places.items() if not widget.viewport().rect().contains(place)]

        qtbot.waitUntil(lambda: widget.isVisible() and not out_of_sight(), timeout=PATIENCE)
        qtbot.wait(100)
        assert not out_of_sight() and viewer.window._qt_window.height() <= 720

    def test_a_short_card_is_seen_whole(self, window, qtbot, model_file):
        _, widget = window(show=True)
        widget.add_model(model_file())
        page = widget._card.findChild(QScrollArea)
        qtbot.waitUntil(lambda: widget.isVisible() and page.widget().height() <= page.viewport().height(), timeout=PATIENCE)
        qtbot.wait(100)
        assert not page.verticalScrollBar().isVisible() and page.height() <= page.maximumHeight() < 400


@pytest.fixture
def widget(qtbot, viewer_model):
    widget = SegmentWidget(viewer_model)
    qtbot.addWidget(widget)
    for event in ("inserted", "removed", "renamed"):  # as napari does for a docked widget
        getattr(viewer_model.layers.events, event).connect(widget.reset_choices)
    return widget


class TestWithoutAWindow:
    def test_it_says_what_is_missing(self, widget, viewer_model, model_file):
        widget._choice.models.setCurrentIndex(-1)
        assert widget._hint.text() == "Open a model to begin." and not widget._start.isEnabled()
        widget.add_model(model_file())
        assert widget._hint.text() == "Open an image to begin." and not widget._start.isEnabled()
        viewer_model.add_image(np.zeros((5, 6, 7)))
        assert widget._hint.text() == "" and widget._start.isEnabled()

    def test_it_says_why_a_layer_does_not_fit(self, widget, viewer_model, model_file):
        widget.add_model(model_file())
        viewer_model.add_image(np.zeros((40, 50)))
        assert "single picture" in widget._hint.text() and not widget._start.isEnabled()

    def test_a_file_that_is_no_model_is_told(self, widget, tmp_path):
        before = len(notification_manager.records)
        (tmp_path / "x.safetensors").write_bytes(b"no model")
        widget.add_model(tmp_path / "x.safetensors")
        assert "not a weights file" in messages(before)[0] and "x" not in names(widget)

    def test_a_model_that_is_opened_twice_is_offered_once(self, widget, model_file):
        path, before = model_file(), widget._choice.models.count()
        for again in (path, Path(str(path))):
            widget.add_model(again)
        assert widget._choice.models.count() == before + 1

    def test_renamed_layers_are_offered_by_their_new_name(self, widget, viewer_model):
        layer = viewer_model.add_image(np.zeros((5, 6, 7)), name="before")
        layer.name = "after"
        assert widget._image.current_choice == "after" and widget._image.value is layer

    def test_the_choice_stays_when_layers_come_and_go(self, widget, viewer_model):
        first, second = (viewer_model.add_image(np.zeros((5, 6, 7))) for _ in range(2))
        widget._image.value = second
        third = viewer_model.add_image(np.zeros((5, 6, 7)))
        viewer_model.layers.remove(first)
        assert widget._image.value is second
        viewer_model.layers.remove(second)
        assert widget._image.value is third

    def test_proposals(self, tmp_path):
        volume = Volume(np.zeros((3, 4, 5), np.uint8), np.eye(4), source=str(tmp_path / "a b.nii"))
        data, options, _ = layers.to_layer(volume, "labels")
        assert proposal(Labels(data, **options)) == tmp_path / "a b.nii"
        image = Image(*layers.to_layer(volume)[:1], **layers.to_layer(volume)[1])
        mask = layers.new_labels(image, grids.grid_of(image), data, "a b_seg (1 of 9 slices)")
        assert proposal(mask) == tmp_path / "a_b_seg_1_of_9_slices.nii.gz"
        assert proposal(Labels(np.zeros((4, 4), np.uint8), name="cells")) == Path("cells.png")
        plain = Labels(np.zeros(image.data.shape, np.uint8), name="by hand", scale=image.scale, translate=image.translate)
        assert proposal(plain, [image]) == tmp_path / "by_hand.nii.gz" and proposal(plain) == Path("by_hand.nii.gz")
        opened = Labels(data, **options)
        assert proposal(plain, [opened]) == tmp_path / "by_hand.nii.gz", "never over the mask that lies there already"
        assert proposal(Labels(np.zeros((2,) * 5, np.uint8), name="five")) == Path("five")


class TestTheCard:
    def test_a_stranger_s_text_is_text(self, qtbot):
        card = ModelCard()
        qtbot.addWidget(card)
        evil = "<img src='file:///etc/hostname'>"
        card.show_model(Model(Path(evil), tiny_spec(name=evil), Card(description=evil, data=evil, licence=evil)))
        for label in card.findChildren(QLabel):
            assert label.textFormat() == Qt.TextFormat.PlainText or "<img" not in label.text()

    def test_a_score_is_given_with_its_cases(self):
        scored = Card(dice={"mean": 0.875}, cases_scored=40, independent=True)
        assert facts(tiny_spec(), scored)["Scored"] == "mean Dice 0.88 over 40 cases kept out of training"
        trained = Card(dice={"mean": 0.9}, cases_scored=1)
        assert "do not rely" in facts(tiny_spec(), trained)["Scored"]
        assert facts(tiny_spec(), Card())["Scored"] == "not yet: no Dice is known"
        assert facts(tiny_spec(), Card(cases_trained=3))["Scored"] == "no case: none was kept out of training"
        apart = Card(cases_trained=5, scored_by="apart")
        assert facts(tiny_spec(), apart)["Scored"] == "no case: its models were not scored together"
        folds = replace(scored, scored_by="folds")
        assert facts(tiny_spec(), folds)["Scored"] == "mean Dice 0.88 over 40 cases, each by the one model of several that never saw it"


WATCH = """
import pathlib, sys, threading, time
class Watch:
    def find_spec(self, name, *_):
        if name in ("torch", "monai"):
            print(name, threading.current_thread() is threading.main_thread(), flush=True)
sys.meta_path.insert(0, Watch())
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication
from qtpy.QtCore import QThreadPool
app = QApplication([])
from napari_unet.viewer.engine import Engine
from napari_unet.viewer.options import Options
from napari_unet.viewer.segment_widget import SegmentWidget
viewer = ViewerModel()
widget = SegmentWidget(viewer)
widget.add_model(pathlib.Path({model!r}))
assert "torch" not in sys.modules
widget.show()
end = time.monotonic() + 60
while "torch" not in sys.modules and time.monotonic() < end:
    app.processEvents()
QThreadPool.globalInstance().waitForDone()
print("warm", "torch" in sys.modules and "monai" in sys.modules)
"""


def test_the_engine_is_warmed_up_and_never_in_the_viewer_s_thread(model_file):
    code = WATCH.format(model=str(model_file()))
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    lines = done.stdout.splitlines()
    assert lines and lines[-1] == "warm True", done.stderr
    assert lines[:-1] and not any(line.endswith("True") for line in lines[:-1])


class TestLayersAsChannels:
    def test_each_channel_needs_a_layer_of_its_own(self, widget, viewer_model, model_file):
        widget.add_model(model_file("two", tiny_spec(2)))
        viewer_model.add_image(np.zeros((5, 6, 7)), name="scan T1")
        assert "has 1 channel" in widget._hint.text()
        viewer_model.add_image(np.zeros((5, 6, 7)), name="scan T2")
        widget._image.value = viewer_model.layers[0]
        widget._choice.channels._combos[0].value = viewer_model.layers[0]
        assert "Choose a layer for each channel: T1, T2" in widget._hint.text() and not widget._start.isEnabled()
        widget._choice.channels._combos[0].value = viewer_model.layers[1]
        assert widget._hint.text() == "" and widget._start.isEnabled()
        for other in (viewer_model.add_image(np.zeros((2, 5, 6, 7))), viewer_model.add_image(np.zeros((5, 6, 7, 3)), rgb=True)):
            widget._choice.channels._combos[0].value = other
            assert "Each has a single channel" in widget._hint.text() and not widget._start.isEnabled()
            viewer_model.layers.remove(other)
        widget.add_model(model_file())
        assert widget._choice.channels._combos == [] and widget._start.isEnabled()

    def test_two_pictures_are_no_volume(self, widget, viewer_model, model_file):
        widget.add_model(model_file("two", tiny_spec(2)))
        for name in ("T1", "T2"):
            viewer_model.add_image(np.zeros((5, 6)), name=name)
        assert "single picture; the model reads volumes" in widget._hint.text() and not widget._start.isEnabled()

    @pytest.mark.gui
    def test_the_mask_is_that_of_the_stack(self, window, qtbot, nifti_file, model_file, rng):
        viewer, widget = window()
        model = model_file("two", tiny_spec(2))
        scans = [nifti_file(f"{name}.nii.gz", affine=affine_for("PLI", tilt=5)) for name in ("a", "b")]
        widget.add_model(model)
        for scan in scans:
            viewer.open(str(scan), plugin=PLUGIN)
        widget._image.value = viewer.layers["a"]
        widget._choice.channels._combos[0].value = viewer.layers["b"]
        widget._start.click()
        mask = widget._run.filling
        finished(widget, qtbot)
        volumes = [images.read(scan) for scan in scans]
        both = volumes[0].with_data(np.stack([volume.data for volume in volumes], -1))
        truth = Segmenter.load(model, device="cpu").segment(both)
        assert np.array_equal(mask.grid.stored(mask.layer.data), truth.data) and truth.data.any()

    @pytest.mark.gui
    def test_layers_on_other_grids_are_told(self, window, qtbot, nifti_file, model_file):
        viewer, widget = window()
        widget.add_model(model_file("two", tiny_spec(2)))
        for name, tilt in (("a", 0), ("b", 30)):
            viewer.open(str(nifti_file(f"{name}.nii.gz", affine=affine_for("PLI", tilt=tilt))), plugin=PLUGIN)
        widget._image.value = viewer.layers["a"]
        widget._choice.channels._combos[0].value = viewer.layers["b"]
        before = len(notification_manager.records)
        widget._start.click()
        finished(widget, qtbot)
        assert any("away from the first channel's" in message for message in messages(before))
        assert [type(layer) for layer in viewer.layers] == [Image, Image]


class TestOptions:
    def test_the_form_says_what_is_done(self, widget):
        form = widget._advanced
        assert form.options() == Options()
        form.overlap.setCurrentText("0.25 (fast)")
        form.mirror.setCurrentText("on")
        form.threads.setValue(1)
        form.largest.setChecked(False)
        form.uncertainty.setChecked(True)
        form.windows.setCurrentText("one at a time")
        assert form.options() == Options("auto", "auto", 1, True, 0.25, True, False, at_once=1)

    def test_the_preferences_come_first(self, qtbot, viewer_model, monkeypatch):
        monkeypatch.setattr(get_plugin_settings(PLUGIN).running, "threads", 1)
        monkeypatch.setattr(get_plugin_settings(PLUGIN).running, "device", "cpu")
        widget = SegmentWidget(viewer_model)
        qtbot.addWidget(widget)
        assert widget._advanced.options() == Options(device="cpu", threads=1)

    def test_the_folder_for_masks(self, monkeypatch, tmp_path):
        monkeypatch.setattr(get_plugin_settings(PLUGIN).saving, "folder", str(tmp_path))
        assert proposal(Labels(np.zeros((3, 4, 5), np.uint8), name="m")) == tmp_path / "m.nii.gz"

    def test_what_the_model_says_of_largest_parts_can_be_switched_off(self, viewer_model, nifti_file, model_file):
        model = Model.read(model_file("largest", tiny_spec(keep_largest=(1, 2))))
        image = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(nifti_file()))))
        sums = []
        for keep in (True, False):
            work = Work.on_screen(Engine(), model, Options(device="cpu", largest=keep), viewer_model, image)
            steps = work.whole(None)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    sums.append(np.count_nonzero(end.value))
                    break
        assert sums[0] < sums[1]

    def test_one_window_at_a_time_takes_less_and_says_the_same(self, viewer_model, nifti_file, model_file, rng):
        model = Model.read(model_file())
        scan = nifti_file(data=rng.normal(size=(24, 24, 24)).astype(np.float32))
        image, found = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(scan)))), []
        for at_once in (None, 1):
            work = Work.on_screen(Engine(), model, Options(device="cpu", at_once=at_once), viewer_model, image)
            labels = np.zeros(image.data.shape, np.uint8)
            for piece in work.whole(None):
                labels[piece.region] = piece.labels
            engine = work.engine
            found.append((engine.in_flight, cost(model.spec, work.outline(), work.options, engine.in_flight).memory, labels))
        (several, more, one), (alone, less, other) = found
        assert alone == 1 <= several and (less < more) == (several > 1)
        assert np.mean(one == other) > 0.999 and one.any()  # logits differ by rounding

    @pytest.mark.gui
    def test_uncertainty_fills_beside_the_mask_and_leads_to_the_slice_to_check(self, window, qtbot, nifti_file, model_file):
        viewer, widget = window()
        scan = nifti_file(affine=affine_for("RPI"))
        viewer.open(str(scan), plugin=PLUGIN)
        widget.add_model(model_file())
        widget._advanced.uncertainty.setChecked(True)
        widget._start.click()
        finished(widget, qtbot)
        doubt = viewer.layers["scan_uncertainty"]
        _, truth = Segmenter.load(model_file(), device="cpu", uncertainty=True).assess(images.read(scan))
        assert np.allclose(grids.grid_of(doubt).stored(doubt.data), truth.data) and doubt.data.max() > 0
        worst = int(doubt.data.sum(axis=(1, 2)).argmax())
        viewer.dims.set_current_step(0, 0 if worst else 1)
        qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_U)
        assert viewer.dims.current_step[0] == worst

    @pytest.mark.gui
    def test_a_model_that_is_chosen_during_a_run_gets_none_of_its_volumes(self, window, qtbot, nifti_file, model_file):
        viewer, widget = window()
        viewer.open(str(nifti_file()), plugin=PLUGIN)
        for name in ("one", "two"):
            widget.add_model(model_file(name, tiny_spec(name=name)))
        widget._start.click()
        widget._choice.models.setCurrentIndex(names(widget).index("one"))
        finished(widget, qtbot)
        assert widget._card._volumes and not any(label.text() for label in widget._card._volumes.values())

    @pytest.mark.gui
    def test_int8_is_offered_for_a_calibrated_model_alone(self, window, qtbot, nifti_file, rng):
        pytest.importorskip("napari_unet.quiet_openvino")
        viewer, widget = window()
        scan = nifti_file(data=rng.normal(size=(24, 32, 24)).astype(np.float32))
        viewer.open(str(scan), plugin=PLUGIN)
        precision = widget._advanced.precision
        assert widget._model.spec.name == "phantoms" and not precision.isEnabled()
        widget._choice.models.setCurrentText("hippocampus")
        assert precision.isEnabled() and precision.currentText() == "float32"
        precision.setCurrentText("int8")
        widget._start.click()
        finished(widget, qtbot)
        image, exact = images.read(scan), Segmenter.load("hippocampus", device="cpu")
        truth = Segmenter.load("hippocampus", precision="int8").segment(image).data
        mask = viewer.layers["scan_seg"]
        assert np.array_equal(grids.grid_of(mask).stored(mask.data), truth) and (truth != exact.segment(image).data).any()
        widget._choice.models.setCurrentText("phantoms")
        assert not precision.isEnabled() and widget._advanced.options().precision == "float32"


def test_a_model_that_was_opened_is_offered_next_time(qtbot, viewer_model, model_file, monkeypatch):
    path = model_file("mine")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path), ""))
    first = SegmentWidget(viewer_model)
    qtbot.addWidget(first)
    first._choice.open.click()
    second = SegmentWidget(viewer_model)
    qtbot.addWidget(second)
    assert path in [second._choice.models.itemData(n).path for n in range(second._choice.models.count())]
    path.unlink()
    third = SegmentWidget(viewer_model)
    qtbot.addWidget(third)
    assert path not in [third._choice.models.itemData(n).path for n in range(third._choice.models.count())]


class TestSpacing:
    def test_a_spacing_far_from_the_model_s_is_told_and_forbids_nothing(self, widget, viewer_model, nifti_file, model_file):
        widget.add_model(model_file("thin", tiny_spec(spacing=(0.2, 1.5, 0.8))))
        viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(nifti_file(affine=affine_for("RAS"))))))
        assert "inferior–superior 3 mm instead of 0.2 mm" in widget._hint.text()
        assert widget._hint.text().startswith("⚠ The spacing is far") and widget._hint.isVisibleTo(widget) and widget._start.isEnabled()
        widget.add_model(model_file("alike", tiny_spec(spacing=(3.0, 1.5, 0.8))))
        assert widget._hint.text() == ""

    def test_a_layer_without_a_file_is_judged_by_its_scale(self, widget, viewer_model, model_file):
        widget.add_model(model_file("fine", tiny_spec(spacing=(0.01, 0.01, 0.01))))
        viewer_model.add_image(np.zeros((5, 6, 7)), scale=(10, 10, 10), units="um")
        assert widget._hint.text() == ""
        viewer_model.layers.clear()
        viewer_model.add_image(np.zeros((5, 6, 7)))
        assert "left–right 1 mm instead of 0.01 mm" in widget._hint.text()


def test_a_spin_box_that_is_turned_on_loads_the_model_once(window, qtbot, nifti_file, model_file, monkeypatch):
    viewer, widget = window(show=True)
    viewer.open(str(nifti_file()), plugin=PLUGIN)
    widget.add_model(model_file())
    qtbot.waitUntil(lambda: widget._engine.place != "", timeout=PATIENCE)
    qtbot.wait(2 * PAUSE)
    QThreadPool.globalInstance().waitForDone()
    primed = []
    monkeypatch.setattr(Engine, "prime", lambda self, path, options, spec: primed.append(options.threads))
    for count in (1, 0, 1, 0, 1):
        widget._advanced.threads.setValue(count)
    qtbot.waitUntil(lambda: bool(primed), timeout=PATIENCE)
    qtbot.wait(2 * PAUSE)
    assert primed == [1]
