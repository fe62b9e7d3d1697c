"""The table of volumes: what it says is what is in the mask, in the file's own millimetres."""

from __future__ import annotations

import csv
import time

import numpy as np
import pytest
from hostile import affine_for
from napari.layers import Layer
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog, QHeaderView

from napari_unet import images
from napari_unet.spec import Label
from napari_unet.viewer import grids, layers
from napari_unet.viewer.filling import appearance
from napari_unet.viewer.reader import read
from napari_unet.viewer.table import AT_ONCE, MeasureTab, names_of, rows_of
from napari_unet.viewer.writer import file_name

CLASSES = appearance([Label(1, "inner", "#e6194b"), Label(2, "cut", "#3cb44b"), Label(7, "absent", "#4363d8")])


@pytest.fixture
def mask(viewer_model, nifti_file):
    """On a tilted, anisotropic grid: 12 voxels within, 6 at the border, and a class that is not there."""
    image = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(nifti_file(affine=affine_for("PSR", tilt=12))))))
    grid = grids.grid_of(image)
    values = np.zeros(image.data.shape, np.uint8)
    within = values[1:-1, 1:-1, 1:-1]
    within[:2, :2, :3] = 1
    values[0, :3, :2] = 2
    return viewer_model.add_layer(layers.new_labels(image, grid, values, "m", **CLASSES))


@pytest.fixture
def tab(qtbot, viewer_model, mask):
    tab = MeasureTab(viewer_model)
    qtbot.addWidget(tab)
    tab.show_layer(mask)
    tab.update_rows()
    return tab


def test_voxels_and_millilitres(mask):
    ml = abs(np.linalg.det(affine_for("PSR", tilt=12)[:3, :3])) / 1000
    rows = {row.name: row for row in rows_of(mask)}
    assert [rows[name].voxels for name in ("inner", "cut", "absent")] == [12, 6, 0]
    assert rows["inner"].ml == pytest.approx(12 * ml) and not rows["inner"].at_border and rows["cut"].at_border


def test_it_follows_corrections(tab, mask, qtbot):
    mask.data_setitem((np.array([1]), np.array([1]), np.array([1])), 0)
    tab.measure.click()
    assert tab.table.item(0, 1).text() == "12", "the window does not wait for it"
    qtbot.waitUntil(lambda: tab.table.item(0, 1).text() == "11")
    assert tab.table.item(0, 0).text() == "inner" and tab.table.item(0, 1).text() == "11"
    assert "cut: at the image's border" in tab.note.text()


def test_another_mask_s_count_is_not_shown(tab, viewer_model, qtbot):
    tab.measure.click()
    tab.show_layer(viewer_model.add_labels(np.ones((3, 4, 5), np.uint8)))
    qtbot.waitUntil(lambda: not tab._counting)
    assert tab.rows == []
    tab.measure.click()
    tab.measure.click()  # while it is counted: once more
    qtbot.waitUntil(lambda: not tab._counting)
    assert [row.voxels for row in tab.rows] == [60]


def test_what_cannot_be_counted_is_told(tab, viewer_model, qtbot):
    tab.show_layer(viewer_model.add_labels(np.full((3, 4, 5), 70_000), name="far"))
    tab.measure.click()
    qtbot.waitUntil(lambda: "'far': it holds the value 70000" in tab.note.text())
    assert tab.rows == []


def test_the_clipboard_gets_a_table(tab):
    tab.copy.click()
    lines = [line.split("\t") for line in QApplication.clipboard().text().splitlines()]
    assert lines[0] == ["value", "class", "voxels", "ml", "touches_border"]
    assert [line[2] for line in lines[1:]] == ["12", "6", "0"] and lines[2][4] == "yes"


def test_it_is_saved_as_csv(tab, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "volumes.csv"), ""))
    tab.save.click()
    with open(tmp_path / "volumes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["value"], row["class"], row["voxels"]) for row in rows] == [("1", "inner", "12"), ("2", "cut", "6"), ("7", "absent", "0")]


def test_a_picture_has_pixels_and_no_millilitres(viewer_model):
    layer = viewer_model.add_labels(np.eye(6, dtype=np.uint8))
    (row,) = rows_of(layer)
    assert row.voxels == 6 and row.ml is None


@pytest.mark.parametrize(("shape", "units", "ml"), [
    ((4, 5, 6), ("pixel",) * 3, None), ((2, 4, 5, 6), ("s", "pixel", "pixel", "pixel"), None), ((4, 5, 6), ("pixel", "um", "um"), None),
    ((4, 5, 6), ("cm",) * 3, 120.0), ((2, 4, 5, 6), ("s", "mm", "mm", "mm"), 0.12), ((5, 6), ("mm", "mm"), None),
])  # fmt: skip
def test_a_layer_without_a_file_has_millilitres_where_its_units_are_lengths(viewer_model, qtbot, shape, units, ml):
    tab = MeasureTab(viewer_model)
    qtbot.addWidget(tab)
    tab.show_layer(viewer_model.add_labels(np.ones(shape, np.uint8), units=units))
    tab.update_rows()
    tab.copy.click()
    copied = [line.split("\t") for line in QApplication.clipboard().text().splitlines()]
    assert all(row.ml == (ml and pytest.approx(ml)) for row in tab.rows) and tab.table.item(0, 2).text() == (f"{ml:,.2f}" if ml else "")
    assert {line[copied[0].index("ml")] for line in copied[1:]} == {f"{ml:g}" if ml else ""}


def test_a_picture_s_file_gives_no_millilitres(viewer_model, tmp_path):
    """As `napari-unet view` opens it: a slice, in the millimetres that every volume has."""
    Image.fromarray(np.eye(6, dtype=np.uint8)).save(tmp_path / "cells_seg.png")
    (row,) = rows_of(viewer_model.add_layer(Layer.create(*read(str(tmp_path / "cells_seg.png"))[0])))
    assert row.voxels == 6 and row.ml is None


def test_a_click_takes_the_class_into_the_brush(tab, mask):
    tab.table.cellClicked.emit(1, 0)
    assert mask.selected_label == 2


@pytest.mark.parametrize("key", [Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space])
def test_a_key_on_a_row_does_what_a_click_does(tab, mask, qtbot, key):
    tab.table.setCurrentCell(0, 0)
    qtbot.keyClick(tab.table, Qt.Key.Key_Down)
    assert mask.selected_label == 1, "who only passes by chooses nothing"
    qtbot.keyClick(tab.table, key)
    assert mask.selected_label == 2


class TestASeries:
    @pytest.fixture
    def beats(self, viewer_model, nifti_file, rng):
        path = nifti_file("beats.nii", data=rng.random((6, 5, 4, 3)).astype(np.float32), affine=affine_for("LSP", tilt=7))
        image = viewer_model.add_layer(Layer.create(*layers.to_layer(images.read(path))))
        values = np.zeros(image.data.shape, np.uint8)
        for step in range(3):
            values[step, 1, 1, : step + 1] = 1
        return viewer_model.add_layer(layers.new_labels(image, grids.grid_of(image), values, "beats_seg", **CLASSES))

    def test_each_volume_has_its_rows(self, qtbot, viewer_model, beats):
        tab = MeasureTab(viewer_model)
        qtbot.addWidget(tab)
        tab.show_layer(beats)
        tab.update_rows()
        ml = abs(np.linalg.det(affine_for("LSP", tilt=7)[:3, :3])) / 1000
        inner = [row for row in tab.rows if row.name == "inner"]
        assert [(row.step, row.voxels) for row in inner] == [(0, 1), (1, 2), (2, 3)] and inner[2].ml == pytest.approx(3 * ml)
        tab.copy.click()
        lines = [line.split("\t") for line in QApplication.clipboard().text().splitlines()]
        assert lines[0][:3] == ["time_point", "value", "class"] and [line[0] for line in lines[1:]] == list("000111222")
        header = tab.table.horizontalHeader()
        assert header.visualIndex(4) == 0 and not tab.table.isColumnHidden(4) and tab.table.item(3, 4).text() == "1"

    def test_a_click_shows_the_volume(self, qtbot, viewer_model, beats):
        tab = MeasureTab(viewer_model)
        qtbot.addWidget(tab)
        tab.show_layer(beats)
        tab.update_rows()
        tab.table.cellClicked.emit(7, 1)
        assert viewer_model.dims.current_step[0] == 2 and beats.selected_label == 2
        tab.table.setCurrentCell(3, 1)
        qtbot.keyClick(tab.table, Qt.Key.Key_Return)
        assert viewer_model.dims.current_step[0] == 1 and beats.selected_label == 1


def test_a_single_volume_has_no_column_of_time(tab):
    assert tab.table.isColumnHidden(4)


def test_what_is_copied_is_what_the_mask_holds_now(tab, mask):
    mask.data_setitem((np.array([1]), np.array([1]), np.array([1])), 0)
    tab.copy.click()
    assert ["1", "inner", "11"] in [line.split("\t")[:3] for line in QApplication.clipboard().text().splitlines()]


def test_values_that_are_no_classes_are_told(tab, mask, viewer_model):
    for value in (-3, 300_000_000):
        odd = viewer_model.add_labels(np.full((4, 5, 6), value, np.int32), name="odd")
        tab.show_layer(odd)
        tab.update_rows()
        assert f"it holds the value {value}. Use values from 0 to 65535." in tab.note.text() and not tab.copy.isEnabled()


def test_a_class_without_a_value_has_no_name(mask):
    mask.features = {"index": [1.0, float("nan"), 2.0], "class": ["inner", "nobody", "cut"]}
    assert names_of(mask) == {1: "inner", 2: "cut"}


def test_many_classes_at_the_border_do_not_fill_the_tab(tab, viewer_model):
    values = np.arange(1, 61, dtype=np.uint8).reshape(3, 4, 5)
    tab.show_layer(viewer_model.add_labels(values, **appearance([Label(n, f"a structure {n}", "#e6194b") for n in range(1, 61)])))
    tab.update_rows()
    assert "a structure 4 and 5" in tab.note.text() and len(tab.note.text()) < 200


@pytest.mark.parametrize(("name", "expected"), [("???", "mask.nii.gz"), ("left/right: tumour?", "left_right_tumour.nii.gz")])
def test_a_layer_s_name_as_a_file_s(name, expected):
    assert file_name(name, ".nii.gz") == expected


def test_a_multiscale_mask_is_counted_at_its_finest_level(viewer_model):
    fine = np.zeros((8, 8, 8), np.uint8)
    fine[2:6, 2:6, 2:6] = 3
    layer = viewer_model.add_labels([fine, fine[::2, ::2, ::2]], multiscale=True, units=("mm",) * 3)
    (row,) = rows_of(layer)
    assert (row.value, row.voxels) == (3, 64) and row.ml == pytest.approx(0.064)


def test_thousands_of_labels_leave_the_window_free(tab, viewer_model, qtbot):
    """Another plugin's cells, say: 500 rows took 17 s, in which the window stood still."""
    tab.show_layer(viewer_model.add_labels(np.arange(3000, dtype=np.uint16).reshape(15, 10, 20), name="cells"))
    tab.show()
    qtbot.waitUntil(lambda: not tab._counting)
    began = time.perf_counter()
    tab.update_rows()
    assert time.perf_counter() - began < 1 and tab.table.rowCount() == len(tab.rows) == 2999
    qtbot.waitUntil(lambda: tab.table.item(2998, 0) is not None)
    assert [tab.table.item(row, 0).text() for row in (0, 1500, 2998)] == ["1", "1501", "2999"]
    qtbot.waitUntil(lambda: tab.table.horizontalHeader().sectionResizeMode(1) == QHeaderView.ResizeMode.ResizeToContents)


class TestALargeMask:
    """The window stood still for as long as it takes to count it."""

    @pytest.fixture
    def large(self, viewer_model):
        values = np.zeros((3, AT_ONCE), np.uint8).reshape(30, 100, -1)
        values[1, 1, :7] = 1
        return viewer_model.add_labels(values, name="large")

    @pytest.fixture
    def tab(self, tab, large):
        tab.show_layer(large)
        tab.update_rows()
        large.data[1, 1, 0] = 2
        return tab

    def copied(self):
        return [line.split("\t")[:3] for line in QApplication.clipboard().text().splitlines()[1:]]

    @pytest.mark.parametrize("busy", [False, True])
    def test_it_is_counted_in_a_thread_and_then_copied(self, tab, large, qtbot, busy):
        QApplication.clipboard().setText("before")
        if busy:
            tab.measure.click()
        large.data[1, 1, 1] = 2
        tab.copy.click()
        assert QApplication.clipboard().text() == "before", "the window does not wait for it"
        qtbot.waitUntil(lambda: not tab._counting)
        assert self.copied() == [["1", "1", "5"], ["2", "2", "2"]] and [row.voxels for row in tab.rows] == [5, 2]

    def test_it_is_saved_after_it_is_counted(self, tab, tmp_path, monkeypatch, qtbot):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "volumes.csv"), ""))
        tab.save.click()
        assert not (tmp_path / "volumes.csv").exists()
        qtbot.waitUntil((tmp_path / "volumes.csv").exists)
        with open(tmp_path / "volumes.csv", newline="") as file:
            assert [(row["value"], row["voxels"]) for row in csv.DictReader(file)] == [("1", "6"), ("2", "1")]

    def test_another_mask_is_not_copied_in_its_place(self, tab, mask, qtbot):
        QApplication.clipboard().setText("before")
        tab.copy.click()
        tab.show_layer(mask)
        assert self.copied() == [["1", "1", "6"], ["2", "2", "1"]]
        qtbot.waitUntil(lambda: not tab._counting)
        tab.update_rows()
        assert self.copied()[0] == ["1", "1", "6"]

    def test_what_cannot_be_counted_is_told_and_not_copied(self, tab, large, qtbot):
        QApplication.clipboard().setText("before")
        large.data = np.full(large.data.shape, -1, np.int8)
        tab.copy.click()
        qtbot.waitUntil(lambda: not tab._counting)
        assert "it holds the value -1" in tab.note.text() and QApplication.clipboard().text() == "before"
