"""Corrections change their class alone, and each is one Undo step."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from napari.layers import Image, Labels
from pages import Paged, counted_by_linux

from napari_unet.components import keep_largest
from napari_unet.errors import UNetError
from napari_unet.viewer import editing
from napari_unet.viewer.answer import Answer
from napari_unet.viewer.correct import CorrectTab
from napari_unet.viewer.filling import OF

MASKS = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=7), elements=st.integers(0, 2))


def disk(shape, centre, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


@given(MASKS)
def test_filling_holes_adds_to_its_class_where_nothing_was(masks):
    for labels in (masks, masks[0]):
        filled = editing.fill_holes(labels, 1)
        changed = filled != labels
        assert (labels[changed] == 0).all() and (filled[changed] == 1).all()
        assert np.array_equal(editing.fill_holes(filled, 1), filled)


def test_a_ring_is_filled_in_its_slice():
    labels = np.zeros((3, 20, 20), np.uint8)
    labels[1] = disk((20, 20), (10, 10), 7) & ~disk((20, 20), (10, 10), 4)
    assert np.array_equal(editing.fill_holes(labels[1], 1), disk((20, 20), (10, 10), 7))
    assert np.array_equal(editing.fill_holes(labels, 1), labels)  # open above and below


class TestInterpolation:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_between_two_disks_lies_a_cone(self, axis):
        planes = np.zeros((11, 40, 40), np.uint8)
        planes[0], planes[10] = disk((40, 40), (20, 20), 12), disk((40, 40), (20, 20), 4)
        filled, low, high = editing.interpolate(np.moveaxis(planes, 0, axis), 1, axis, 5)
        areas = np.moveaxis(filled, axis, 0).reshape(11, -1).sum(1)
        assert (low, high) == (0, 10)
        radii = np.sqrt(areas / np.pi)
        assert np.abs(radii - np.linspace(radii[0], radii[-1], 11)).max() < 0.5 and (np.diff(radii) < 0).all()

    def test_a_disk_moves_along(self):
        planes = np.zeros((5, 30, 30), np.uint8)
        planes[0], planes[4] = disk((30, 30), (15, 12), 6), disk((30, 30), (15, 18), 6)
        filled, *_ = editing.interpolate(planes, 1, 0, 2)
        assert abs(np.argwhere(filled[2])[:, 1].mean() - 15) < 0.3

    def test_other_classes_and_the_painted_slices_stay(self, rng):
        planes = rng.integers(0, 2, (6, 12, 12)).astype(np.uint8) * 2
        planes[0, 3:9, 3:9] = planes[5, 3:9, 3:9] = 1
        filled, *_ = editing.interpolate(planes, 1, 0, 3)
        changed = filled != planes
        assert changed[1:5].any() and not changed[[0, 5]].any() and (planes[changed] == 0).all()

    @pytest.mark.parametrize(("painted", "index", "gap"), [
        ([2, 6], 4, (2, 6)), ([2, 6], 2, (2, 6)), ([2, 6], 6, (2, 6)), ([0, 2, 6, 9], 7, (6, 9)), ([0, 1, 5], 0, None),
        ([3], 3, None), ([3, 4], 3, None), ([3, 6], 8, None), ([], 4, None),
    ])  # fmt: skip
    def test_which_gap(self, painted, index, gap):
        labels = np.zeros((10, 6, 6), np.uint8)
        labels[painted, 2:4, 2:4] = 1
        if gap is None:
            with pytest.raises(UNetError, match="no two painted slices"):
                editing.interpolate(labels, 1, 0, index)
        else:
            assert editing.interpolate(labels, 1, 0, index)[1:] == gap


@pytest.fixture
def tab(qtbot, viewer_model):
    """The tab with a mask of two classes: a ring in slices 2 and 8, a far speck, another class in slice 5."""
    labels = np.zeros((12, 30, 30), np.uint8)
    for n in (2, 8):
        labels[n] = disk((30, 30), (14, 14), 9) & ~disk((30, 30), (14, 14), 4)
    labels[11, 28, 28], labels[5, 0, 0] = 1, 2
    viewer_model.add_image(np.zeros(labels.shape))
    layer = viewer_model.add_labels(labels, name="m", features={"index": [0, 1, 2], "class": ["background", "ring", "dot"]})
    tab = CorrectTab(viewer_model)
    qtbot.addWidget(tab)
    tab.show_layer(layer)
    return tab


class TestTheTab:
    @pytest.mark.parametrize("button", ["interpolate", "holes", "largest"])
    def test_each_button_is_one_undo_step(self, tab, viewer_model, qtbot, button):
        layer = viewer_model.layers["m"]
        viewer_model.dims.set_current_step(0, 2)
        before = layer.data.copy()
        tab.button(button).click()
        qtbot.waitUntil(lambda: bool((layer.data != before).any()))
        after = layer.data.copy()
        assert np.array_equal(after == 2, before == 2)
        tab.button("undo").click()
        assert np.array_equal(layer.data, before)
        assert "ring" in tab.state.text()

    @pytest.mark.parametrize("button", ["holes", "largest"])
    def test_a_whole_class_is_looked_through_apart_from_the_window_and_what_a_hand_does_meanwhile_stays(
        self, tab, viewer_model, qtbot, button
    ):
        layer = viewer_model.layers["m"]
        viewer_model.dims.ndisplay = 3
        layer.data[4:9, 2:9, 2:9] = 1
        layer.data[5:8, 4:7, 4:7] = 0  # a hole
        before = layer.data.copy()
        expected = editing.fill_holes(before, 1) if button == "holes" else keep_largest(before, [1])
        tab.button(button).click()
        assert np.array_equal(layer.data, before) and not tab.button(button).isEnabled(), "the window does not wait for it"
        at = tuple(np.array([n]) for n in ((6, 5, 5) if button == "holes" else (11, 28, 28)))
        layer.data_setitem(at, 2)
        tab.fill_holes()  # one at a time
        qtbot.waitUntil(tab.button(button).isEnabled)
        expected[at] = 2
        assert np.array_equal(layer.data, expected) and "whole class" in tab.state.text()
        for _ in range(2):
            layer.undo()
        assert np.array_equal(layer.data, before)

    def test_what_is_no_longer_there_is_not_corrected(self, tab, viewer_model, qtbot):
        layer = viewer_model.layers["m"]
        tab.button("largest").click()
        viewer_model.layers.remove(layer)
        qtbot.waitUntil(lambda: not tab._at_work)
        assert layer.data[11, 28, 28] == 1 and tab.state.text() == ""

    @counted_by_linux
    @pytest.mark.parametrize("button", ["holes", "interpolate"])
    def test_one_slice_is_corrected_without_a_look_at_the_others(self, qtbot, viewer_model, tmp_path, button):
        """To find the slices between which a class is interpolated, each is looked at once."""
        paged = Paged(tmp_path / "large", (64, 256, 256))
        paged.plain[30, 50:90, 50:90] = paged.plain[34, 50:90, 50:90] = 1
        paged.plain[30, 60:70, 60:70] = 0
        layer = viewer_model.add_labels(paged.plain)
        tab = CorrectTab(viewer_model)
        qtbot.addWidget(tab)
        tab.show_layer(layer)
        viewer_model.dims.set_current_step(0, 30)
        paged.forget()
        tab.button(button).click()
        assert paged.read() < (0.1 if button == "holes" else 1.1)
        assert layer.data[30].sum() == (1600 if button == "holes" else 1500) and bool(layer.data[32].any()) == (button == "interpolate")

    def test_the_class_is_the_brush_s(self, tab, viewer_model):
        layer = viewer_model.layers["m"]
        assert [tab.classes.itemText(n) for n in range(2)] == ["ring", "dot"] and tab.classes.currentText() == "ring"
        layer.selected_label = 2
        assert tab.classes.currentText() == "dot"
        tab.classes.setCurrentIndex(0)
        tab.classes.activated.emit(0)
        assert layer.selected_label == 1

    def test_to_the_slices_with_the_class_and_back(self, tab, viewer_model):
        viewer_model.dims.set_current_step(0, 0)
        seen = []
        for name in ("next", "next", "next", "next", "before", "before", "before"):
            tab.button(name).click()
            seen.append(viewer_model.dims.current_step[0])
        assert seen == [2, 8, 11, 11, 8, 2, 2] and "No earlier slice" in tab.state.text()

    def test_in_another_plane_too(self, tab, viewer_model):
        viewer_model.dims.order = (1, 0, 2)
        viewer_model.dims.set_current_step(1, 23)
        tab.button("next").click()
        assert viewer_model.dims.current_step[1] == 28

    def test_the_most_uncertain_slice_first_and_none_twice(self, tab, viewer_model):
        doubt = np.zeros((12, 30, 30), np.float32)
        doubt[3], doubt[9], doubt[6] = 0.5, 0.9, 0.2
        assert not tab.button("check").isEnabled()
        viewer_model.add_layer(Image(doubt, name="m_uncertainty"))
        tab.refresh()
        viewer_model.dims.set_current_step(0, 0)
        seen = []
        for _ in range(3):
            tab.button("check").click()
            seen.append(viewer_model.dims.current_step[0])
        assert seen == [9, 3, 6]
        tab.button("check").click()
        assert viewer_model.dims.current_step[0] == 6 and "looked at" in tab.state.text()

    def test_an_answer_s_own_uncertainty_leads_and_no_other_one(self, tab, viewer_model):
        layer, of = viewer_model.layers["m"], ("model", "image", 0)
        Answer.begin(layer, of)
        for name, owner, worst in (("m_uncertainty", of, 9), ("n_uncertainty", ("model", "another", 0), 3)):
            doubt = np.zeros((12, 30, 30), np.float32)
            doubt[worst] = 0.5
            viewer_model.add_layer(Image(doubt, name=name, metadata={OF: owner}))
        tab.refresh()
        viewer_model.dims.set_current_step(0, 0)
        tab.button("check").click()
        assert viewer_model.dims.current_step[0] == 9
        viewer_model.layers.remove("m_uncertainty")
        tab.refresh()
        assert not tab.button("check").isEnabled()

    def test_a_slice_that_the_slider_rests_on_was_looked_at_not_one_that_it_passes(self, tab, viewer_model, qtbot):
        doubt = np.zeros((12, 30, 30), np.float32)
        doubt[3], doubt[9], doubt[6] = 0.5, 0.9, 0.2
        viewer_model.add_layer(Image(doubt, name="m_uncertainty"))
        tab.refresh()
        for step in (9, 3):
            viewer_model.dims.set_current_step(0, step)
        qtbot.waitUntil(lambda: not tab._checked.resting.isActive())
        viewer_model.dims.set_current_step(0, 0)
        seen = []
        for _ in range(2):
            tab.button("check").click()
            seen.append(viewer_model.dims.current_step[0])
        assert seen == [9, 6]

    def test_a_mask_that_a_run_fills_is_left_alone(self, tab, viewer_model):
        layer = viewer_model.layers["m"]
        layer.editable = False
        tab.refresh()
        assert not tab.button("holes").isEnabled()
        before = layer.data.copy()
        tab.fill_holes()  # the key
        assert np.array_equal(layer.data, before)

    def test_a_series_is_corrected_where_it_is_looked_at(self, qtbot, viewer_model):
        labels = np.zeros((3, 7, 8, 8), np.uint8)
        labels[:, [1, 5], 2:5, 2:5] = 1
        layer = viewer_model.add_layer(Labels(labels))
        tab = CorrectTab(viewer_model)
        qtbot.addWidget(tab)
        tab.show_layer(layer)
        viewer_model.dims.set_current_step((0, 1), (1, 3))
        tab.button("interpolate").click()
        assert layer.data[1, 3].any() and not layer.data[0, 3].any() and not layer.data[2, 3].any()


@counted_by_linux
@pytest.mark.gui
class TestAMaskThatIsLarge:
    """It is looked through for the classes of a mask that names none, in the tab that shows them, and for nothing else."""

    SHAPE = (64, 256, 256)

    @pytest.fixture
    def paged(self, tmp_path):
        paged = Paged(tmp_path / "large", self.SHAPE)
        paged.plain[3, 5, 5], paged.plain[60, 7, 7] = 4, 2
        return paged

    def add(self, viewer, widget, data, **options):
        """In front of a tab that shows its classes."""
        viewer.add_labels(np.zeros(self.SHAPE, np.uint8))  # what napari does with the first layer is its own
        widget._tabs.setCurrentWidget(widget._correct)
        return viewer.add_labels(data, name="large", **options)

    def test_one_that_names_its_classes_is_not_read(self, window, paged):
        viewer, widget = window(show=True)
        paged.forget()
        self.add(viewer, widget, paged.plain, features={"index": [0, 4], "class": ["background", "liver"]})
        assert widget._correct.classes.findText("liver") >= 0 and paged.read() < 0.2

    def test_one_in_a_file_that_is_mapped_is_neither_read_nor_kept(self, window, qtbot, paged):
        viewer, widget = window(show=True)
        paged.forget()
        layer = self.add(viewer, widget, paged.mapped)
        widget._keeper.keep()
        qtbot.wait(50)
        assert layer.data is paged.mapped and paged.read() < 0.2
        layer.selected_label = 4
        viewer.dims.set_current_step(0, 3)
        layer.data_setitem(tuple(np.array([n]) for n in ((3, 3, 3, 3), (4, 5, 6, 5), (5, 6, 5, 4))), 4)
        layer.data_setitem(tuple(np.array([n]) for n in (3, 5, 5)), 0)
        widget._correct.button("holes").click()
        assert layer.data[3, 5, 5] == 4 and paged.read() < 0.2, "it can be corrected all the same"

    def test_one_without_names_is_read_where_its_classes_are_looked_at(self, window, qtbot, paged):
        viewer, widget = window(show=True)
        viewer.add_labels(np.zeros(self.SHAPE, np.uint8))
        paged.forget()
        viewer.add_labels(paged.plain, name="large")
        assert widget._mask.value.name == "large" and paged.read() < 0.2
        widget._tabs.setCurrentWidget(widget._correct)
        classes = widget._correct.classes
        qtbot.waitUntil(lambda: [classes.itemText(n) for n in range(classes.count())] == ["class 1", "class 2", "class 4"])
        assert classes.currentText() == "class 1"

    def test_a_mask_of_more_axes_than_a_series_is_left_alone(self, qtbot, viewer_model):
        labels = np.zeros((2, 2, 9, 8, 8), np.uint8)
        labels[:, :, [2, 6], 2:5, 2:5] = 1
        layer = viewer_model.add_layer(Labels(labels.copy()))
        tab = CorrectTab(viewer_model)
        qtbot.addWidget(tab)
        tab.show_layer(layer)
        layer.selected_label = 1
        viewer_model.dims.set_current_step(2, 4)
        assert not any(tab.button(name).isEnabled() for name in ("interpolate", "holes", "largest", "next", "before"))
        for key in (tab.interpolate, tab.fill_holes, tab.keep_largest, tab.following):
            key()
        assert np.array_equal(layer.data, labels) and viewer_model.dims.current_step[2] == 4

    def test_nothing_changes_where_the_mask_is_not_on_the_screen(self, tab, viewer_model):
        layer = viewer_model.layers["m"]
        layer.data[-1, 5:12, 5:12], layer.data[-1, 8, 8] = 1, 0
        before = layer.data.copy()
        viewer_model.add_image(np.zeros((60, 30, 30)))
        viewer_model.dims.set_current_step(0, 45)
        for key in (tab.fill_holes, tab.interpolate):
            key()
            assert "outside the mask" in tab.state.text()
        assert np.array_equal(layer.data, before)

    def test_a_picture_has_no_slices_to_go_to(self, qtbot, viewer_model):
        layer = viewer_model.add_layer(Labels(np.zeros((8, 8), np.uint8)))
        tab = CorrectTab(viewer_model)
        qtbot.addWidget(tab)
        tab.show_layer(layer)
        assert [tab.button(name).isEnabled() for name in ("interpolate", "next", "before", "holes")] == [False] * 3 + [True]
        tab.interpolate()
        assert tab.state.text() == "A picture has no other slices."

    def test_the_keys_read_no_mask_that_lies_elsewhere(self, qtbot, viewer_model):
        read = []

        def block(block_info=None):
            read.append(block_info)
            return np.ones((1, 8, 8), np.uint8)

        lazy = dask.array.map_blocks(block, chunks=((1,) * 9, (8,), (8,)), dtype=np.uint8, meta=np.zeros((0, 0, 0), np.uint8))
        layer = viewer_model.add_layer(Labels(lazy))
        tab = CorrectTab(viewer_model)
        qtbot.addWidget(tab)
        tab.show_layer(layer)
        read.clear()
        for key in (tab.following, tab.previous):
            key()
        assert not read

    def test_an_uncertainty_that_was_renamed_is_still_the_mask_s(self, tab, viewer_model):
        layer, of = viewer_model.layers["m"], ("model", "image", 0)
        Answer.begin(layer, of)
        doubt = viewer_model.add_layer(Image(np.full((12, 30, 30), 0.5, np.float32), name="m_uncertainty", metadata={OF: of}))
        doubt.name = "how sure"
        tab.refresh()
        assert tab.button("check").isEnabled()
