"""Walks through a real window as a person takes them: by menus, keys, the mouse, and after a crash."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from itertools import cycle

import numpy as np
import pytest
from conftest import PATIENCE, PLUGIN, finished
from hostile import affine_for
from napari._qt.dialogs.preferences_dialog import PreferencesDialog
from napari.layers import Image, Labels
from napari.settings import get_plugin_settings
from qtpy.QtCore import QPoint, QRect, Qt, QThreadPool
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QMenu, QSpinBox

from napari_unet import images
from napari_unet.segment import Segmenter
from napari_unet.viewer import looking, places
from napari_unet.viewer.planes import PlaneButtons
from napari_unet.viewer.segment_widget import SegmentWidget

pytestmark = pytest.mark.gui


def choose(viewer, *path):
    """Choose from the menu bar: of each menu the entry that its pattern matches from the beginning."""
    menu = viewer.window._qt_window.menuBar()
    for pattern in path:
        entries = {action.text().replace("&", ""): action for action in menu.actions()}
        found = [action for text, action in entries.items() if re.match(pattern, text)]
        assert found, f"{pattern} is none of {list(entries)}"
        menu = found[0].menu() or found[0]
        if isinstance(menu, QMenu):
            menu.aboutToShow.emit()
    menu.trigger()


def widgets(viewer):
    return viewer.window._qt_window.findChildren(SegmentWidget)


def press(qtbot, viewer, key, modifier=Qt.KeyboardModifier.NoModifier):
    """A key, while the canvas has the focus."""
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, key, modifier)


@pytest.fixture
def bare(make_napari_viewer, qtbot):
    """A window as napari opens it, without the widget."""
    yield make_napari_viewer(show=True)
    QThreadPool.globalInstance().waitForDone(PATIENCE)
    qtbot.wait(10)


def test_three_clicks_from_nothing_to_a_mask(bare, qtbot):
    choose(bare, "File", "Open Sample", "U-Net segmentation|napari-unet", "Phantom with its mask")
    choose(bare, "Plugins", "Segment|U-Net segmentation|napari-unet")
    (widget,) = widgets(bare)
    qtbot.waitUntil(widget._start.isEnabled, timeout=PATIENCE)
    qtbot.mouseClick(widget._start, Qt.MouseButton.LeftButton)
    run = widget._run
    qtbot.waitUntil(lambda: widget._run is None, timeout=3 * PATIENCE)
    (image,) = (layer for layer in bare.layers if isinstance(layer, Image))
    mask = run.filling.layer
    assert mask in bare.layers and mask.data.shape == image.data.shape and mask.data.any()


def test_the_layers_menu_opens_the_widget(bare):
    choose(bare, "Layers", "Segment", "Segment")
    assert len(widgets(bare)) == 1


def test_the_preferences_page_reaches_the_next_widget(window, qtbot):
    viewer, widget = window()
    dialog = PreferencesDialog(parent=viewer.window._qt_window)
    titles = [dialog._list.item(n).text() for n in range(dialog._list.count())]
    page = dialog._stack.widget(titles.index("U-Net segmentation"))
    (threads,) = (box for box in page.findChildren(QSpinBox) if box.maximum() == 256)
    before = widget._advanced.options().threads
    threads.setValue(before + 1)
    try:
        assert get_plugin_settings(PLUGIN).running.threads == before + 1
        again = SegmentWidget(viewer)
        assert again._advanced.options().threads == before + 1
        again.close()
        again.deleteLater()
    finally:
        dialog.reject()
        dialog.deleteLater()
        qtbot.wait(10)
    assert get_plugin_settings(PLUGIN).running.threads == before


@pytest.mark.parametrize("edit", ["in place", "replaced", "moved"])
def test_an_image_that_is_edited_meanwhile_breaks_nothing(window, qtbot, slow_scan, model_file, edit):
    viewer, widget = window()
    viewer.open(str(slow_scan), plugin=PLUGIN)
    widget.add_model(model_file())
    widget._start.click()
    run, image = widget._run, viewer.layers["slow"]
    qtbot.waitUntil(lambda: run.filling.done >= 1, timeout=PATIENCE)
    if edit == "in place":
        image.data = np.array(image.data) if not image.data.flags.writeable else image.data
        image.data[:] = 0
        image.refresh()
    elif edit == "replaced":
        image.data = np.zeros_like(image.data)
    else:
        image.translate = np.asarray(image.translate) + 7
    finished(widget, qtbot)
    assert run.filling.done == 36 and run.filling.layer in viewer.layers and widget._start.isEnabled()
    if edit != "in place":  # the run has the voxels that it began with
        truth = Segmenter.load(model_file(), device="cpu").segment(images.read(slow_scan))
        assert np.array_equal(run.filling.grid.stored(run.filling.layer.data), truth.data)


@pytest.fixture
def by_hand(window, nifti_file, rng):
    """A window with a mask painted by hand: slice 2 and slice 6 filled, slice 8 with a hole."""
    viewer, _ = window()
    viewer.open(str(nifti_file(data=rng.integers(0, 90, (12, 12, 12)).astype(np.int16), affine=affine_for("RAS"))), plugin=PLUGIN)
    values = np.zeros((12, 12, 12), np.uint8)
    values[[2, 6, 8], 3:9, 3:9] = 1
    values[8, 5, 5] = 0
    mask = viewer.add_labels(values, name="by hand", scale=viewer.layers[0].scale, translate=viewer.layers[0].translate)
    mask.selected_label = 1
    return viewer, mask


def test_keys_correct_the_selected_class(by_hand, qtbot):
    viewer, mask = by_hand
    viewer.dims.set_current_step(0, 4)
    press(qtbot, viewer, Qt.Key.Key_I)
    assert (mask.data[3:6, 3:9, 3:9] == 1).all() and np.count_nonzero(mask.data[3:6]) == 3 * 36
    viewer.dims.set_current_step(0, 8)
    press(qtbot, viewer, Qt.Key.Key_H)
    assert mask.data[8, 5, 5] == 1
    for expected in (0, 1):  # slice 8 has its hole again, then slices 3 to 5 are empty again
        press(qtbot, viewer, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        assert mask.data[8, 5, 5] == 0 and mask.data[3:6].any() == (not expected)


def test_keys_go_to_the_next_and_the_previous_slice_with_the_class(by_hand, qtbot):
    viewer, _ = by_hand
    viewer.dims.set_current_step(0, 0)
    visited = []
    for modifier in 3 * [Qt.KeyboardModifier.NoModifier] + 2 * [Qt.KeyboardModifier.ShiftModifier]:
        press(qtbot, viewer, Qt.Key.Key_N, modifier)
        visited.append(viewer.dims.current_step[0])
    assert visited == [2, 6, 8, 6, 2]


def tab(widget, name):
    """Turn to a tab by its name; its page."""
    tabs = widget._tabs
    tabs.setCurrentIndex([tabs.tabText(n) for n in range(tabs.count())].index(name))
    return tabs.currentWidget()


def click(qtbot, page, text):
    """Click the button that begins with this text, with the mouse."""
    (found,) = (each for each in page.findChildren(QAbstractButton) if each.text().startswith(text))
    assert found.isEnabled(), text
    qtbot.mouseClick(found, Qt.MouseButton.LeftButton)


@pytest.fixture
def done(window, qtbot, nifti_file, model_file, rng):
    """A window in which a run has ended: the viewer, the widget, the mask."""
    viewer, widget = window(show=True)
    scan = nifti_file(data=rng.integers(0, 900, (14, 16, 12)).astype(np.int16), affine=affine_for("LPS"))
    viewer.open(str(scan), plugin=PLUGIN)
    widget.add_model(model_file())
    qtbot.mouseClick(widget._start, Qt.MouseButton.LeftButton)
    finished(widget, qtbot)
    return viewer, widget, widget._mask.value


def test_buttons_correct_and_bring_back(done, qtbot):
    _, widget, mask = done
    page, said = tab(widget, "Correct"), mask.data.copy()
    mask.selected_label = 2
    mask.data_setitem(tuple(axis.ravel() for axis in np.indices(said.shape)[:, 6]), 0)  # a hand cuts it in two
    cut = mask.data.copy()
    click(qtbot, page, "Largest only")
    qtbot.waitUntil(lambda: not page._at_work)
    assert np.count_nonzero(mask.data) < np.count_nonzero(cut) < np.count_nonzero(said)
    click(qtbot, page, "Undo")
    assert np.array_equal(mask.data, cut)
    click(qtbot, page, "Revert")
    assert np.array_equal(mask.data, said)


def test_the_table_is_copied_and_warns_of_the_border(done, qtbot):
    _, widget, mask = done
    page = tab(widget, "Measure")
    qtbot.waitUntil(lambda: page.table.rowCount() == 2, timeout=PATIENCE)
    click(qtbot, page, "Copy")
    heading, _, second = (line.split("\t") for line in QApplication.clipboard().text().splitlines())
    row = dict(zip(heading, second, strict=True))
    assert row["class"] == "posterior" and int(row["voxels"]) == np.count_nonzero(mask.data == 2) > 0
    at_border = mask.data[0].any() or mask.data[:, 0].any() or mask.data[:, :, 0].any()
    assert at_border and "image's border" in page.note.text()


def test_the_view_tab_turns_sides_windows_and_the_third_dimension(done, qtbot):
    viewer, widget, _ = done
    page, (image,) = tab(widget, "View"), (layer for layer in viewer.layers if isinstance(layer, Image))
    sides = viewer.scene.camera.orientation2d
    click(qtbot, page, "Neurological")
    assert viewer.scene.camera.orientation2d != sides
    click(qtbot, page, "Radiological")
    assert viewer.scene.camera.orientation2d == sides
    click(qtbot, page, "Lung")
    level, width = looking.WINDOWS["Lung"]
    assert image.contrast_limits == [level - width / 2, level + width / 2]
    click(qtbot, page, "3-D view")
    assert viewer.dims.ndisplay == 3 and not image.visible
    click(qtbot, widget, "Axial")
    assert viewer.dims.ndisplay == 2 and image.visible


def test_the_plane_on_the_screen_is_the_button_that_is_down(done, qtbot):
    viewer, widget, _ = done

    def down():
        return [button.text() for button in widget.findChildren(PlaneButtons)[0].findChildren(QAbstractButton) if button.isChecked()]

    assert down() == ["Axial"]
    for name in ("Coronal", "Sagittal", "Sagittal", "Axial"):
        click(qtbot, widget, name)
        assert down() == [name]
    viewer.dims.ndisplay = 3
    assert down() == []
    viewer.dims.ndisplay = 2
    viewer.dims.order = (1, 2, 0)
    assert down() == []
    viewer.dims.order = (2, 0, 1)
    assert down() == ["Sagittal"]
    viewer.add_image(np.zeros((2, *viewer.layers[0].data.shape)))
    assert down() == ["Sagittal"]  # of the volume on the screen


def test_the_pointer_is_told_in_millimetres(done, qtbot):
    viewer, widget, _ = done
    canvas, way = viewer.window._qt_viewer.canvas.native, cycle((0, 5, 9))

    def told():
        qtbot.mouseMove(canvas, canvas.rect().center() - QPoint(1, 1) * next(way))
        return widget._pointer.text().startswith("R ")

    qtbot.waitUntil(told, timeout=PATIENCE)
    assert re.search(r"R -?[\d.]+ +A -?[\d.]+ +S -?[\d.]+ mm +voxel \d+, \d+, \d+", widget._pointer.text())
    viewer.layers.remove(viewer.layers.selection.active)
    assert widget._pointer.text() == "", "nothing is told of a layer that is gone"


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_tab_fits_a_small_screen(done, qtbot, theme):
    viewer, widget, _ = done
    viewer.theme = theme
    viewer.window._qt_window.resize(1280, 720)
    for name in ("Segment", "Correct", "Measure", "View", "Options"):
        page = tab(widget, name)
        qtbot.wait(100)
        parts = [each for kind in (QAbstractButton, QComboBox, QSpinBox) for each in page.findChildren(kind) if each.isVisible()]
        seen = widget.viewport().rect()
        lost = [each for each in parts if not seen.contains(QRect(each.mapTo(widget.viewport(), QPoint(0, 0)), each.size()))]
        assert parts and not lost, f"{name}: {[(type(each), each.geometry()) for each in lost]}"
    assert viewer.window._qt_window.height() <= 720 and not widget.horizontalScrollBar().isVisible()


PAINT_AND_DIE = """
import sys
import numpy as np
import vispy.gloo.glir as glir
glir.GlirProgram.delete = lambda self: None  # Mesa 22.3 crashes on the frame after a program is deleted
import napari
from napari.settings import get_plugin_settings
from qtpy.QtWidgets import QApplication
from napari_unet.viewer import places
get_plugin_settings("napari-unet-monai").saving.autosave = 1
viewer = napari.Viewer()
viewer.window.add_plugin_dock_widget("napari-unet-monai", "Segment")
image, = viewer.open(sys.argv[1], plugin="napari-unet-monai")
mask = viewer.add_labels(np.zeros(image.data.shape, np.uint8), name="by hand", scale=image.scale, translate=image.translate)
mask.paint((4, 5, 6), 3)
while True:
    QApplication.processEvents()
    if list(places.folder("recovery").glob("*/*.json")):  # what is written last
        print("kept", np.count_nonzero(mask.data), flush=True)
        break
while True:
    QApplication.processEvents()
"""


def test_a_stroke_survives_a_crash(window, nifti_file, rng, tmp_path):
    """The timer keeps it, the process is killed, the next window offers it."""
    scan = nifti_file(data=rng.integers(0, 90, (12, 12, 12)).astype(np.int16), affine=affine_for("LPS", tilt=9))
    isolated = {"NAPARI_CONFIG": str(tmp_path / "settings.yaml"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    command = [sys.executable, "-c", PAINT_AND_DIE, str(scan)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **isolated})
    try:
        count = next(line.split()[1] for line in process.stdout if line.startswith("kept"))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert len(list(places.folder("recovery").glob("*/*.nii.gz"))) == 1
    viewer, widget = window()
    assert widget._keeper.offered == 1
    widget._keeper.restore.click()
    (mask,) = (layer for layer in viewer.layers if isinstance(layer, Labels))
    assert mask.name == "by hand" and mask.data[4, 5, 6] == 3 and np.count_nonzero(mask.data) == int(count) > 0
