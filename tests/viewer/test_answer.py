"""What a hand has painted stays, whatever a model says afterwards; an undone answer may be said again. No window needed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import tiny_spec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers._layer_actions import _duplicate_layer
from napari.utils.notifications import notification_manager

from napari_unet.viewer.answer import Answer, revert
from napari_unet.viewer.filling import Filling, answer_layer, empty_mask
from napari_unet.viewer.grids import grid_of

OF = ("model", "layer", 0)
SHAPE = (4, 5, 6)


def mask(shape=SHAPE):
    image = Image(np.zeros(shape))
    layer = empty_mask(image, grid_of(image), tiny_spec(), OF)
    return layer, Answer.in_layer(layer)


def paint(layer, index, value):
    layer.data_setitem(tuple(np.array([n]) for n in index), value)


STROKES = st.tuples(st.just("paint"), st.tuples(*(st.integers(0, n - 1) for n in SHAPE)), st.integers(0, 2))
WORDS = st.tuples(st.sampled_from(["say", "say undoably"]), st.integers(0, SHAPE[0] - 1), st.integers(0, 9))


@settings(max_examples=60)
@given(st.lists(STROKES | WORDS, max_size=12))
@example([("paint", (0, 0, 1), 1), ("paint", (0, 0, 1), 0), ("say", 0, 0)])  # taken back by hand: nobody's
def test_no_stroke_is_ever_lost(acts):
    layer, answer = mask()
    painted, kept = {}, set()
    for kind, where, what in acts:
        if kind == "paint":
            if layer.data[where] != what:  # a stroke that changes nothing is none
                painted[where] = what
            elif where in painted and what == answer.said[where] and where not in kept:
                del painted[where]  # back to what the model says: nobody's
            paint(layer, where, what)
            continue
        labels = np.random.default_rng(what).integers(0, 3, (1, *SHAPE[1:])).astype(np.uint8)
        region = (slice(where, where + 1), slice(None), slice(None))
        painted = {at: value for at, value in painted.items() if at in kept or value != answer.said[at]}
        kept |= {at for at in painted if at[0] == where}  # a hand's for good, though the model may come to agree
        (answer.write if kind == "say" else answer.write_undoable)(layer, region, labels)
    for where, value in painted.items():
        assert layer.data[where] == value


def test_one_undo_takes_a_slice_back_and_it_may_be_said_again():
    layer, answer = mask()
    region, labels = (slice(2, 3), slice(None), slice(None)), np.full((1, 5, 6), 2, np.uint8)
    paint(layer, (2, 0, 0), 1)
    answer.write_undoable(layer, region, labels)
    assert layer.data[2, 0, 0] == 1 and (layer.data[2] == 2).sum() == 29
    layer.undo()
    assert layer.data[2, 0, 0] == 1 and layer.data.sum() == 1
    layer.undo()
    assert not layer.data.any()
    answer.write_undoable(layer, region, labels)
    assert (layer.data[2] == 2).all()


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("end", ["release and undo", "call off"])
def test_a_slice_that_comes_during_a_stroke_goes_with_it_and_may_be_said_again(earlier, end):
    """The button is down while the answer arrives: napari keeps both as one step, or takes both back at once."""
    layer, answer = mask()
    region, labels = (slice(2, 3), slice(None), slice(None)), np.full((1, 5, 6), 2, np.uint8)
    if earlier:
        answer.write_undoable(layer, (slice(0, 1), slice(None), slice(None)), labels)
    layer._begin_stroke()
    paint(layer, (3, 0, 0), 1)
    answer.write_undoable(layer, region, labels)
    paint(layer, (3, 0, 1), 1)
    if end == "call off":
        layer._abort_stroke()
    else:
        layer._commit_stroke()
        assert (layer.data[2] == 2).all() and layer.data[3].sum() == 2
        layer.undo()
    assert not layer.data[2:].any()
    answer.write_undoable(layer, region, labels)
    assert (layer.data[2] == 2).all() and bool(layer.data[0].any()) == earlier
    layer.undo()
    assert not layer.data[2:].any()


def test_a_slice_that_a_hand_has_emptied_was_not_undone():
    layer, answer = mask()
    region, labels = (slice(2, 3), slice(None), slice(None)), np.full((1, 5, 6), 2, np.uint8)
    answer.write_undoable(layer, region, labels)
    layer.data_setitem(np.nonzero(layer.data), 0)
    answer.write(layer, region, labels)
    assert not layer.data.any() and revert(layer) == 30 and (layer.data[2] == 2).all()


def test_what_was_undone_is_said_again_around_a_stroke():
    """The stroke makes napari forget that there was anything to redo."""
    layer, answer = mask()
    region, labels = (slice(2, 3), slice(None), slice(None)), np.full((1, 5, 6), 2, np.uint8)
    answer.write_undoable(layer, region, labels)
    layer.undo()
    paint(layer, (2, 1, 1), 1)
    answer.write(layer, region, labels)
    assert layer.data[2, 1, 1] == 1 and (layer.data[2] == 2).sum() == 29


@pytest.mark.parametrize("visible", [True, False])
def test_what_was_redone_is_the_model_s_again(visible):
    layer, answer = mask()
    region, labels = (slice(2, 3), slice(None), slice(None)), np.full((1, 5, 6), 2, np.uint8)
    answer.write_undoable(layer, region, labels)
    layer.visible = visible
    layer.undo()
    layer.redo()
    answer.write(layer, region, labels - 1)
    assert (layer.data[2] == 1).all()


def test_a_duplicate_has_an_answer_of_its_own():
    layer, answer = mask()
    region, labels = (slice(2, 3), slice(None), slice(None)), np.full((1, 5, 6), 2, np.uint8)
    answer.write(layer, region, labels)
    viewer = ViewerModel()
    viewer.add_layer(layer)
    _duplicate_layer(viewer.layers)
    copy = viewer.layers[-1]
    theirs = Answer.in_layer(copy)
    theirs.write(copy, (slice(0, 1), slice(None), slice(None)), labels)
    assert answer is Answer.in_layer(layer) is not theirs is Answer.in_layer(copy)
    assert answer.filled.sum() == 30 and theirs.filled.sum() == 60 and layer.data.sum() == 60 and copy.data.sum() == 120


def test_what_was_erased_stays_erased():
    layer, answer = mask()
    region, labels = (slice(0, 4), slice(None), slice(None)), np.ones(SHAPE, np.uint8)
    answer.write(layer, region, labels)
    paint(layer, (1, 1, 1), 0)
    answer.write(layer, region, labels)
    assert layer.data[1, 1, 1] == 0 and layer.data.sum() == layer.data.size - 1
    answer.write(layer, region, 0 * labels)  # the model agrees, with other options say, and then does not any more
    answer.write(layer, region, labels)
    assert layer.data[1, 1, 1] == 0 and layer.data.sum() == layer.data.size - 1
    revert(layer)
    answer.write(layer, region, 2 * labels)
    assert (layer.data == 2).all()  # given back to the model


def test_revert_is_one_step():
    layer, answer = mask()
    answer.write(layer, (slice(None),) * 3, np.ones(SHAPE, np.uint8))
    for n in range(3):
        paint(layer, (n, 0, 0), 2)
    corrected = layer.data.copy()
    assert revert(layer) == 3 and (layer.data == 1).all()
    layer.undo()
    assert np.array_equal(layer.data, corrected)


class TestAWholeVolumeAfterSlices:
    @pytest.fixture
    def begun(self):
        viewer = ViewerModel()
        image = viewer.add_image(np.zeros(SHAPE))
        layer = viewer.add_layer(empty_mask(image, grid_of(image), tiny_spec(), OF))
        answer = Answer.in_layer(layer)
        answer.write(layer, (slice(0, 1), slice(None), slice(None)), np.ones((1, 5, 6), np.uint8))
        paint(layer, (0, 0, 0), 2)
        paint(layer, (3, 3, 3), 2)
        return viewer, image, layer

    def run(self, begun):
        viewer, image, _ = begun
        filling = Filling(viewer, image, tiny_spec(), OF, answer_layer(viewer, OF, unfinished=True))
        filling.complete(filling.grid.stored(np.ones(SHAPE, np.uint8)))
        return filling

    def test_it_goes_on_in_the_same_layer_around_what_was_painted(self, begun):
        filling = self.run(begun)
        assert filling.layer is begun[2] and filling.layer.editable
        assert filling.layer.data[0, 0, 0] == filling.layer.data[3, 3, 3] == 2
        assert (filling.layer.data == 1).sum() == filling.layer.data.size - 2

    def test_one_undo_brings_back_what_was_there(self, begun):
        before = begun[2].data.copy()
        filling = self.run(begun)
        after = filling.layer.data.copy()
        filling.layer.undo()
        assert np.array_equal(filling.layer.data, before)
        filling.layer.redo()
        assert np.array_equal(filling.layer.data, after)

    def test_the_step_is_made_plane_by_plane_and_is_one_all_the_same(self, begun):
        viewer, image, layer = begun
        filling = Filling(viewer, image, tiny_spec(), OF, answer_layer(viewer, OF, unfinished=True))
        before = layer.data.copy()
        turns = sum(1 for _ in filling.completing(filling.grid.stored(np.ones(SHAPE, np.uint8))))
        assert turns == 3 * SHAPE[0]  # written, compared, recorded
        layer.undo()
        assert np.array_equal(layer.data, before)

    def test_stopped_half_way_it_is_one_step_too(self, begun):
        viewer, image, layer = begun
        filling = Filling(viewer, image, tiny_spec(), OF, answer_layer(viewer, OF, unfinished=True))
        before = layer.data.copy()
        filling.put((slice(None), slice(None), slice(1, 2)), filling.grid.stored(np.ones(SHAPE, np.uint8))[:, :, 1:2], 1, 4)
        filling.stop()
        assert (layer.data != before).any() and layer.editable
        layer.undo()
        assert np.array_equal(layer.data, before)

    def test_undo_goes_on_behind_it_and_the_brush_comes_back(self, begun):
        layer, answer = begun[2], Answer.in_layer(begun[2])
        states = [layer.data.copy()]
        answer.write_undoable(layer, (slice(2, 3), slice(None), slice(None)), np.full((1, 5, 6), 2, np.uint8))
        states.append(layer.data.copy())
        layer.mode = "paint"
        layer.paint((1, 3, 3), 2)
        states.append(layer.data.copy())
        self.run(begun)
        states.append(layer.data.copy())
        assert layer.mode == "paint"
        for back in (states[-2::-1], states[-2::-1]):
            for state in back:
                layer.undo()
                assert np.array_equal(layer.data, state)
            for state in states[1:]:
                layer.redo()
                assert np.array_equal(layer.data, state)
        for _ in states[1:]:
            layer.undo()
        answer.write(layer, (slice(2, 3), slice(None), slice(None)), np.ones((1, 5, 6), np.uint8))
        assert (layer.data[2] == 1).all(), "what was undone is nobody's: the run's words and the slice's are taken back"

    def test_a_run_that_is_stopped_before_its_first_slice_changes_nothing(self, begun):
        viewer, image, layer = begun
        answer, region, labels = Answer.in_layer(layer), (slice(2, 3), slice(None), slice(None)), np.full((1, 5, 6), 2, np.uint8)
        layer.mode = "erase"
        before = layer.data.copy()
        answer.write_undoable(layer, region, labels)
        after = layer.data.copy()
        layer.undo()
        for _ in range(2):
            filling = Filling(viewer, image, tiny_spec(), OF, answer_layer(viewer, OF, unfinished=True))
            layer.undo()  # Ctrl+Z while it may not be painted on
            filling.stop()
            assert np.array_equal(layer.data, before) and layer.mode == "erase" and layer.editable
        layer.redo()
        assert np.array_equal(layer.data, after) and not answer.painted(layer)[2].any(), "still the model's"
        for _ in range(3):
            layer.undo()
        assert not (layer.data == 2).any()

    def test_a_stroke_that_is_not_over_when_it_begins_can_be_undone(self, begun):
        layer = begun[2]
        layer._begin_stroke()
        paint(layer, (3, 0, 0), 2)
        self.run(begun)
        for _ in range(2):
            layer.undo()
        assert layer.data[3, 0, 0] == 0 and layer.data[3, 3, 3] == 2

    def test_what_is_kept_of_the_history_has_a_bound(self, begun, monkeypatch):
        viewer, image, layer = begun
        monkeypatch.setattr("napari_unet.viewer.answer.MAX_UNDO", 130)
        for n in range(4):  # each changes a slice or more
            filling = Filling(viewer, image, tiny_spec(), OF, answer_layer(viewer, OF, unfinished=True))
            filling.put((slice(None), slice(None), slice(0, 4)), filling.grid.stored(np.full(SHAPE, 1 + n % 2, np.uint8)), 4, 4)
            filling.stop()
            held = sum(len(atom[-2]) for item in layer._undo_history for atom in item)
            assert 0 < held <= 130 and len(layer._undo_history) == len(Answer.in_layer(layer).steps) + 2 * (n < 1)

    def test_more_than_undo_can_hold_is_told(self, begun, monkeypatch):
        monkeypatch.setattr("napari_unet.viewer.answer.MAX_UNDO", 3)
        filling = self.run(begun)
        assert "too many for Undo" in notification_manager.records[-1].message
        assert (filling.layer.data == 1).sum() == filling.layer.data.size - 2
        after = filling.layer.data.copy()
        filling.layer.undo()
        assert np.array_equal(filling.layer.data, after), "Undo does not pass over it"

    def test_the_next_run_has_its_own_layer(self, begun):
        first = self.run(begun)
        assert answer_layer(begun[0], OF, unfinished=True) is None and answer_layer(begun[0], OF) is first.layer
