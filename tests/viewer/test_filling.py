"""A mask fills while the real engine works: in place, in order, and never past its end. No window is needed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import tiny_spec
from hostile import ORIENTATIONS, affine_for
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_unet import images
from napari_unet.segment import Segmenter
from napari_unet.spec import Label
from napari_unet.viewer import layers, screen
from napari_unet.viewer.filling import Filling
from napari_unet.viewer.fit import objection, takes_one_of_a_series


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture(scope="module")
def segmenter(model_file):
    return Segmenter.load(model_file(), device="cpu")


def image_from(viewer, path):
    return viewer.add_layer(Layer.create(*layers.to_layer(images.read(path))))


def test_the_layer_holds_what_the_engine_says_of_the_file(viewer, nifti_file, segmenter):
    for orientation in ORIENTATIONS[::7]:
        path = nifti_file(affine=affine_for(orientation, tilt=6))
        filling = Filling(viewer, image_from(viewer, path), segmenter.spec)
        for piece in segmenter.stream(images.read(path)):
            filling.put(piece.region, piece.labels, piece.done, piece.total)
        truth = segmenter.segment(images.read(path))
        assert np.array_equal(layers.volume_of(filling.layer).data, truth.data) and truth.data.any()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_the_slice_on_the_screen_comes_first_and_its_neighbours_next(viewer, nifti_file, segmenter, order):
    image = image_from(viewer, nifti_file(affine=affine_for("PLI", tilt=6)))
    viewer.dims.order = order
    viewer.dims.set_current_step(order[0], 3)
    filling = Filling(viewer, image, segmenter.spec)
    first = screen.slice_on_screen(viewer, image, filling.grid)
    seen = []
    for piece in segmenter.stream(layers.volume_of(image), first):
        before = filling.layer.data.copy()
        filling.put(piece.region, piece.labels, piece.done, piece.total)
        touched = np.unique(np.nonzero(filling.layer.data != before)[order[0]])
        assert filling.in_sight() == (piece.done == 1)
        filling.redraw()
        seen += touched.tolist()
    assert seen[0] == 3 and {abs(n - 3) for n in seen[1:3]} == {1}


def test_it_wears_the_model_s_colours_and_names(viewer, nifti_file, segmenter):
    filling = Filling(viewer, image_from(viewer, nifti_file()), segmenter.spec)
    assert np.allclose(filling.layer.get_color(2)[:3], np.array([0x3C, 0xB4, 0x4B]) / 255, atol=0.01)
    assert filling.layer.get_color(9)[3] == 1  # what a hand adds is seen as well
    filling.layer.data[...] = 2
    filling.redraw()
    status = filling.layer.get_status(viewer.dims.point, view_direction=(1, 0, 0), dims_displayed=[1, 2], world=True)
    assert "posterior" in status["coordinates"]


def test_large_values_get_a_large_enough_type(viewer, nifti_file):
    spec = tiny_spec(labels=(Label(1, "a", "#e6194b"), Label(2035, "b", "#3cb44b")))
    assert Filling(viewer, image_from(viewer, nifti_file()), spec).layer.data.dtype == np.uint16


def test_stopping_keeps_what_is_there_and_says_so(viewer, nifti_file, segmenter):
    image = image_from(viewer, nifti_file())
    filling = Filling(viewer, image, segmenter.spec)
    assert not filling.layer.editable
    pieces = list(segmenter.stream(layers.volume_of(image)))
    for piece in pieces[:2]:
        filling.put(piece.region, piece.labels, piece.done, piece.total)
    kept = filling.layer.data.copy()
    filling.stop()
    filling.redraw()
    for piece in pieces[2:]:
        filling.put(piece.region, piece.labels, piece.done, piece.total)
        assert not filling.in_sight()
    filling.complete(np.zeros(filling.grid.shape, np.uint8))
    assert kept.any() and np.array_equal(filling.layer.data, kept)
    assert filling.layer.name == f"scan_seg (2 of {len(pieces)} slices)" and filling.layer.editable


def test_undo_does_not_reach_behind_the_result(viewer, nifti_file, segmenter):
    image = image_from(viewer, nifti_file())
    filling = Filling(viewer, image, segmenter.spec)
    filling.complete(segmenter.segment(layers.volume_of(image)).data)
    result = filling.layer.data.copy()
    filling.layer.undo()
    assert np.array_equal(filling.layer.data, result)
    filling.layer.data_setitem((np.array([0]), np.array([0]), np.array([0])), 1)
    filling.layer.undo()
    assert np.array_equal(filling.layer.data, result)


def test_an_edited_mask_is_never_written_again(viewer, nifti_file, segmenter):
    image = image_from(viewer, nifti_file())
    first = Filling(viewer, image, segmenter.spec)
    first.complete(np.zeros(first.grid.shape, np.uint8))
    first.layer.data[...] = 1
    second = Filling(viewer, image, segmenter.spec)
    second.complete(np.full(second.grid.shape, 2, np.uint8))
    assert (first.layer.data == 1).all() and (second.layer.data == 2).all()
    assert first.layer.name != second.layer.name


def test_volumes_are_millilitres(viewer, nifti_file, segmenter):
    filling = Filling(viewer, image_from(viewer, nifti_file()), segmenter.spec)
    filling.put((slice(0, 1), slice(0, 2), slice(0, 5)), np.ones((1, 2, 5)), 1, 1)
    assert filling.volumes() == {1: pytest.approx(10 * 0.75 * 1.5 * 3 / 1000)}
    picture = viewer.add_layer(Image(np.zeros((40, 50))))
    assert Filling(viewer, picture, segmenter.spec).volumes() == {}


class TestFit:
    VOLUME, SERIES = Image(np.zeros((5, 6, 7))), Image(np.zeros((4, 5, 6, 7)))
    PICTURE, COLOURS = Image(np.zeros((40, 50))), Image(np.zeros((40, 50, 3)), rgb=True)

    @pytest.mark.parametrize(("dims", "channels", "layer"), [
        (3, 1, VOLUME), (3, 1, SERIES), (3, 4, SERIES), (2, 1, VOLUME), (2, 1, PICTURE), (2, 3, COLOURS),
    ])  # fmt: skip
    def test_fits(self, dims, channels, layer):
        assert objection(tiny_spec(channels, dims), layer) == ""

    @pytest.mark.parametrize(("dims", "channels", "layer", "why"), [
        (3, 1, PICTURE, "single picture"), (3, 4, VOLUME, r"has 1 channel; the model reads 4 \(T1, T2, T3, T4\)"),
        (3, 3, SERIES, "has 4 channels"), (2, 1, COLOURS, "has 3 colours"), (2, 3, PICTURE, "has 1 channel"),
        (2, 1, Image(np.zeros((2, 2, 2, 2, 2))), r"has 5 axes; at most 4 can be read \("),
        (3, 3, Image(np.zeros((2, 2, 2, 2, 3)), rgb=True), "has 4 axes beside its colours; at most 3 can be read"),
    ])  # fmt: skip
    def test_does_not_fit(self, dims, channels, layer, why):
        import re

        assert re.search(why, objection(tiny_spec(channels, dims), layer))

    def test_one_of_a_series(self):
        assert takes_one_of_a_series(tiny_spec(1), self.SERIES)
        assert not takes_one_of_a_series(tiny_spec(4), self.SERIES)
        assert not takes_one_of_a_series(tiny_spec(1), self.VOLUME)
