"""Slices for a report: hung as radiologists hang them however they are stored, and where model and truth disagree most."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest
from engine import model_spec, network_spec, seen_as, volume
from hostile import ORIENTATIONS, affine_for

from napari_unet.evaluate import Score
from napari_unet.figures import Slice, overlay, overview
from napari_unet.spec import ModelSpec
from napari_unet.volume import Volume

SPEC = model_spec(network_spec(classes=3))
LETTERS = {"SAR": "APRL", "ASR": "SIRL", "RSA": "SIAP"}  # above, below, left, right


def case(shape: tuple[int, ...] = (16, 18, 20), orientation: str = "RAS") -> tuple[Volume, Volume, Volume]:
    """An image, a mask and a truth that differ most in one place."""
    image = volume(shape, orientation)
    truth = np.zeros(shape[:3], np.uint8)
    truth[4:9, 5:10, 6:12], truth[10:12, 3:5, 2:12] = 1, 2
    mask = truth.copy()
    mask[4:9, 5:10, 8], mask[4, 5:7, 7] = 0, 0
    return image, image.with_data(mask), image.with_data(truth)


@pytest.mark.parametrize("cut", LETTERS)
def test_one_case_looks_the_same_however_it_is_stored(cut: str) -> None:
    spec = model_spec(network_spec(), orientation=cut)
    parts = case()
    straight = Slice.of(*parts, spec)
    assert straight.letters == LETTERS[cut]
    for orientation in ORIENTATIONS:
        stored = Slice.of(*(seen_as(part, orientation) for part in parts), spec)
        np.testing.assert_array_equal(stored.truth, straight.truth)
        np.testing.assert_allclose(stored.picture, straight.picture, atol=1e-6)
        assert (stored.letters, stored.pixel) == (straight.letters, pytest.approx(straight.pixel))


def test_the_letters_are_true() -> None:
    """What lies in front is drawn towards the A, and what lies on the patient's right towards the R."""
    image = Volume(np.zeros((9, 9, 3), np.int16), affine_for("RAS", (1, 1, 1)))
    image.data[:, 7, :] = 50  # in front
    image.data[7, :, :] = 100  # on the right
    shown = Slice.of(image, image.with_data((image.data > 60) * np.uint8(1)), image.with_data((image.data > 200) * np.uint8(1)), SPEC)
    assert shown.letters == "APRL"
    assert shown.picture[1, 5] > shown.picture[7, 5] and shown.picture[5, 1] > shown.picture[5, 7]


def test_the_slice_of_most_disagreement() -> None:
    image, mask, truth = case()
    assert Slice.of(image, mask, truth, SPEC).name == "axial slice 12 of 20"  # k = 8, counted from above
    assert Slice.of(image, truth, truth, SPEC).truth.any(), "where they agree, the slice with most of the structures"
    empty = truth.with_data(truth.data * 0)
    assert Slice.of(image, empty, empty, SPEC).truth.shape == (18, 16)


@pytest.mark.parametrize("value, dtype", [(7, np.uint8), (-1, np.int16)])
def test_voxels_of_no_class_count_for_nothing_and_are_not_drawn(value: int, dtype: type) -> None:
    image, mask, truth = case()
    unknown = truth.data.astype(dtype)
    unknown[:, :, 0] = value
    shown = Slice.of(image, mask, truth.with_data(unknown), SPEC)
    assert shown.name == "axial slice 12 of 20"
    for part, same in ((2, True), (1, False)):  # the model finds what is unknown; then, what is known to be there is not
        unknown = np.where(truth.data == 2, value, truth.data.astype(dtype))
        absent = np.where(truth.data == part, 0, truth.data)
        seen = [overlay(Slice.of(image, mask, truth.with_data(data), SPEC), SPEC) for data in (unknown, absent)]
        assert (seen[0] == seen[1]) == same


def pixels(picture: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(picture), format="jpeg").astype(int)


def test_small_structures_are_shown_closer_and_the_frame_holds_them() -> None:
    image = volume((60, 60, 8), "RAS", (1, 1, 1))
    truth = np.zeros(image.shape, np.uint8)
    truth[40:44, 10:14, 3] = 1
    shown = Slice.of(image, image.with_data(truth * 0), image.with_data(truth), SPEC)
    left, right, bottom, top = shown.frame
    rows, columns = np.nonzero(shown.truth)
    assert right - left == bottom - top < 40
    assert left < columns.min() and right > columns.max() + 1 and top < rows.min() and bottom > rows.max() + 1
    truth[5:50, 5:50, 3] = 1
    assert Slice.of(image, image.with_data(truth), image.with_data(truth), SPEC).frame == (0, 60, 60, 0)


@pytest.mark.parametrize("place", [(0, 0), (150, 40), (299, 399)])
def test_of_a_large_slice_full_of_structures_the_worst_part_is_shown(place: tuple[int, int]) -> None:
    image = volume((300, 400, 1), "RAS", (2, 1, 1))
    truth = np.ones(image.shape, np.uint8)
    mask = truth.copy()
    mask[max(0, place[0] - 5) : place[0] + 5, max(0, place[1] - 5) : place[1] + 5] = 0
    shown = Slice.of(image, image.with_data(mask), image.with_data(truth), SPEC)
    left, right, bottom, top = shown.frame
    rows, columns = np.nonzero(shown.mask != shown.truth)
    assert left <= 2 * columns.min() and 2 * columns.max() < right and top <= rows.min() and rows.max() < bottom
    assert right - left == bottom - top < 400


def test_filled_is_the_model_and_outlined_the_truth() -> None:
    """A grey image: colour inside where only the model is, at the rim where only the truth is."""
    shape = (40, 40, 4)
    grey = Volume(np.full(shape, 100, np.int16), np.eye(4))
    grey.data[0, 0, 0], grey.data[1, 0, 0] = 0, 200
    box = np.zeros(shape, np.uint8)
    box[12:28, 12:28, 2] = 1
    none = grey.with_data(box * 0)
    for mask, truth, inside in ((grey.with_data(box), none, True), (none, grey.with_data(box), False)):
        right = np.split(pixels(overlay(Slice.of(grey, mask, truth, SPEC), SPEC)), 2, axis=1)[1]
        height, width = right.shape[:2]
        middle = right[height // 2 - 9 : height // 2 + 9, width // 2 - 9 : width // 2 + 9]
        coloured = np.ptp(right, axis=-1) > 60
        assert bool((np.ptp(middle, axis=-1) > 60).all()) == inside and coloured.any()
        assert (np.ptp(middle, axis=-1) < 30).all() != inside


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_keep_their_colours_and_volumes_show_their_first_channel(channels: int) -> None:
    shape = (12, 16, 1) if channels == 1 else (12, 16, 1, channels)
    data = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    image = Volume(data, np.eye(4))
    mask = image.with_data(np.zeros(shape[:3], np.uint8))
    for flat in (True, False):
        shown = Slice.of(image, mask, mask, pictures(channels, flat))
        assert shown.picture.shape == ((12, 16, 3) if flat and channels == 3 else (12, 16) if flat else (16, 12))
        assert (shown.letters == "") == flat and len(overlay(shown, pictures(channels, flat))) > 1000
    if channels == 3:
        np.testing.assert_allclose(Slice.of(image, mask, mask, pictures(3, True)).picture, data[:, :, 0] / 255, atol=1e-6)


def pictures(channels: int, flat: bool) -> ModelSpec:
    return model_spec(network_spec(2, channels=channels), pictures=flat, orientation="SRA" if flat else "SAR")


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 1, 20), (20, 20, 1), (2, 2, 2)])
def test_flat_volumes(shape: tuple[int, ...]) -> None:
    image = volume(shape, "LPS", (1, 1, 9))
    truth = image.with_data((image.data > image.data.mean()).astype(np.uint8))
    for cut in LETTERS:
        spec = model_spec(network_spec(), orientation=cut)
        assert len(overlay(Slice.of(image, image.with_data(truth.data * 0), truth, spec), spec)) > 1000


def test_no_empty_frame_where_nothing_was_scored() -> None:
    log = {"loss": [(1, 2.0), (2, 1.0)], "rate": [], "dice": []}

    def titles(scores: list[Score]) -> list[str]:
        return [axis.get_title() for axis in overview(SPEC, scores, [log], []).axes]

    assert titles([]) == ["Training"]
    assert titles([Score("a", 1, 0.9, 1, 1)]) == ["Training", "Dice per case"]
