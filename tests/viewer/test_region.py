"""A table within a region: what is counted is what lies in the shapes, whatever the plane; drawn with the mouse of a real window."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from conftest import PLUGIN
from hostile import affine_for
from napari.layers import Layer, Shapes
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication, QFileDialog, QPushButton

from napari_unet import images
from napari_unet.errors import UNetError
from napari_unet.viewer import grids, layers
from napari_unet.viewer.region import region_of
from napari_unet.viewer.table import MeasureTab, rows_of

SHAPE = (12, 14, 10)  # of the file


@pytest.fixture
def mask(viewer_model, nifti_file, rng):
    """Two classes all over a tilted, anisotropic volume."""
    path = nifti_file(data=rng.integers(0, 99, SHAPE).astype(np.int16), affine=affine_for("PSR", tilt=12))
    image = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(path))))
    values = rng.integers(0, 3, image.data.shape).astype(np.uint8)
    return viewer_model.add_layer(layers.new_labels(image, grids.grid_of(image), values, "m"))


def drawn(mask, *shapes, **options):
    """A Shapes layer in the mask's place; shapes are (kind, corners in voxels)."""
    place = {name: getattr(mask, name) for name in ("scale", "translate", "units", "affine")}
    layer = Shapes(ndim=mask.ndim, name="region", **place | options)
    for kind, corners in shapes:
        layer.add([np.array(corners, float)], shape_type=kind)
    return layer


def rectangle(axis, index, low, high):
    """Around the voxels low..high-1 of the other two axes, in a slice."""
    (a, b), (c, d) = np.array(low) - 0.5, np.array(high) - 0.5
    return "rectangle", [np.insert(corner, axis, index) for corner in ((a, b), (a, d), (c, d), (c, b))]


@pytest.mark.parametrize("axis", range(3))
def test_a_rectangle_reaches_through_all_slices_of_its_plane(mask, axis):
    region = region_of(drawn(mask, rectangle(axis, 3, (2, 1), (6, 5))), mask)
    truth = np.zeros(mask.data.shape, bool)
    np.moveaxis(truth, axis, 0)[:, 2:6, 1:5] = True
    assert np.array_equal(region, truth)
    counted = {row.value: row.voxels for row in rows_of(mask, region=region)}
    assert counted == {value: np.count_nonzero(mask.data[truth] == value) for value in (1, 2)}


def test_several_shapes_are_one_region_and_lines_are_none(mask):
    both = (rectangle(0, 3, (2, 1), (6, 5)), rectangle(2, 0, (0, 0), (3, 2)))
    region = region_of(drawn(mask, *both, ("line", [(0, 0, 0), (0, 5, 5)])), mask)
    assert np.array_equal(region, region_of(drawn(mask, both[0]), mask) | region_of(drawn(mask, both[1]), mask))
    with pytest.raises(UNetError, match=r"'region': it has no area\. Draw a rectangle"):
        region_of(drawn(mask, ("path", [(0, 0, 0), (0, 5, 5), (0, 5, 0)])), mask)


def test_an_ellipse_and_a_polygon(mask):
    _, corners = rectangle(0, 0, (2, 1), (9, 8))
    rows, columns = np.mgrid[: mask.data.shape[1], : mask.data.shape[2]]
    disc = ((rows - 5) / 3.5) ** 2 + ((columns - 4) / 3.5) ** 2
    found = region_of(drawn(mask, ("ellipse", corners)), mask)
    assert found[0][disc < 0.98].all() and not found[0][disc > 1.02].any() and (found == found[0]).all()
    triangle = region_of(drawn(mask, ("polygon", [(1, -0.5, -0.5), (1, 7.6, -0.5), (1, -0.5, 7.6)])), mask)
    assert np.array_equal(triangle[4], rows + columns <= 7)


def test_a_shape_that_lies_in_no_slice_is_told(mask):
    with pytest.raises(UNetError, match="lies in no slice"):
        region_of(drawn(mask, ("polygon", [(0, 0, 0), (5, 5, 0), (2, 3, 6)])), mask)


def test_a_layer_of_other_units_and_fewer_axes_counts_where_it_is_seen(mask):
    own = region_of(drawn(mask, rectangle(0, 0, (2, 1), (6, 5))), mask)
    flat = Shapes(ndim=2, scale=mask.scale[1:], translate=mask.translate[1:])
    flat.add([np.array([(1.5, 0.5), (1.5, 4.5), (5.5, 4.5), (5.5, 0.5)])], shape_type="rectangle")
    assert np.array_equal(region_of(flat, mask), own)
    world = np.array([mask.data_to_world(corner) for corner in rectangle(0, 0, (2, 1), (6, 5))[1]])
    plain = Shapes(ndim=3)
    plain.add([world], shape_type="rectangle")
    assert np.array_equal(region_of(plain, mask), own)


def test_a_region_in_micrometres(mask):
    own = region_of(drawn(mask, rectangle(0, 3, (2, 1), (6, 5))), mask)
    place = {"scale": np.array(mask.scale) * 1000, "translate": np.array(mask.translate) * 1000, "units": ("um",) * 3}
    assert own.any() and np.array_equal(region_of(drawn(mask, rectangle(0, 3, (2, 1), (6, 5)), **place), mask), own)


def test_of_a_series_and_of_a_picture(viewer_model):
    series = viewer_model.add_labels(np.ones((3, 4, 5, 6), np.uint8))
    shapes = Shapes(ndim=4)
    shapes.add([np.array([(1, 2, 0.5, 0.5), (1, 2, 0.5, 3.5), (1, 2, 2.5, 3.5), (1, 2, 2.5, 0.5)])], shape_type="rectangle")
    assert [row.voxels for row in rows_of(series, region=region_of(shapes, series))] == [4 * 2 * 3] * 3
    picture = viewer_model.add_labels(np.ones((8, 9), np.uint8))
    flat = Shapes([np.array([(0.5, 0.5), (0.5, 3.5), (2.5, 3.5), (2.5, 0.5)])], shape_type="rectangle")
    assert [row.voxels for row in rows_of(picture, region=region_of(flat, picture))] == [6]


def counted(tab, qtbot):
    qtbot.waitUntil(lambda: not tab._counting)


class TestTheTable:
    @pytest.fixture
    def tab(self, qtbot, viewer_model, mask):
        tab = MeasureTab(viewer_model)
        qtbot.addWidget(tab)
        tab.show_layer(mask)
        tab.show()
        counted(tab, qtbot)
        return tab

    def test_it_follows_the_choice_and_so_do_clipboard_and_file(self, tab, viewer_model, mask, tmp_path, monkeypatch, qtbot):
        shapes = viewer_model.add_layer(drawn(mask, rectangle(0, 3, (2, 1), (6, 5))))
        tab.reset_choices()
        whole = [row.voxels for row in tab.rows]
        tab.region.layers.setCurrentText("region")
        counted(tab, qtbot)
        within = [str(row.voxels) for row in rows_of(mask, region=region_of(shapes, mask))]
        assert [row.voxels for row in tab.rows] != whole and [tab.table.item(n, 1).text() for n in range(2)] == within
        assert tab.note.text().startswith("Within region, through all slices.")
        tab.copy.click()
        lines = [line.split("\t") for line in QApplication.clipboard().text().splitlines()]
        assert [line[2] for line in lines[1:]] == within and [line[-1] for line in lines] == ["region", "region", "region"]
        proposed = []
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a: (proposed.append(a[2]), (str(tmp_path / "r.csv"), ""))[1])
        tab.save.click()
        with open(tmp_path / "r.csv", newline="") as file:
            assert [(row["voxels"], row["region"]) for row in csv.DictReader(file)] == [(count, "region") for count in within]
        assert proposed == ["m_region.csv"]
        viewer_model.layers.remove(shapes)
        tab.reset_choices()
        counted(tab, qtbot)
        assert [row.voxels for row in tab.rows] == whole and "Within" not in tab.note.text()

    def test_what_cannot_be_a_region_is_told_in_its_place(self, tab, viewer_model, mask):
        viewer_model.add_layer(drawn(mask))
        tab.reset_choices()
        tab.region.layers.setCurrentText("region")
        assert "it has no area" in tab.note.text() and tab.table.rowCount() == 0 and not tab.copy.isEnabled()


@pytest.mark.gui
def test_a_rectangle_is_drawn_with_the_mouse_and_measured(window, qtbot, nifti_file):
    viewer, widget = window(show=True)
    data = np.ones((20, 20, 20), np.uint8)
    viewer.open(str(nifti_file("cube_seg.nii.gz", data=data, affine=np.eye(4))), plugin=PLUGIN)
    tabs = widget._tabs
    tabs.setCurrentIndex([tabs.tabText(n) for n in range(tabs.count())].index("Measure"))
    measure = widget._measure
    counted(measure, qtbot)
    assert measure.rows[0].voxels == 8000
    next(each for each in measure.findChildren(QPushButton) if each.text() == "Draw…").click()
    assert measure.region.layers.currentText() == "region" and "Draw a rectangle" in measure.note.text()
    qtbot.wait(300)
    canvas = viewer.window._qt_viewer.canvas.native
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle - QPoint(60, 60))
    for step in range(-50, 61, 10):
        qtbot.mouseMove(canvas, middle + QPoint(step, step))
        qtbot.wait(20)
    qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(60, 60))
    (region,) = (layer for layer in viewer.layers if isinstance(layer, Shapes))
    qtbot.waitUntil(lambda: bool(measure.rows) and 0 < measure.rows[0].voxels < 8000)
    drawn_now = np.count_nonzero(region_of(region, viewer.layers["cube_seg"]))
    qtbot.waitUntil(lambda: measure.rows[0].voxels == drawn_now)
    assert measure.rows[0].voxels % 20 == 0  # through all 20 slices
