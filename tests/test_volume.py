"""Laws of grids: reorienting loses nothing and moves nothing, over all 48 orientations, straight, tilted and sheared."""

from __future__ import annotations

import numpy as np
import pytest
from hostile import ORIENTATIONS, affine_for
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nibabel.affines import apply_affine
from nibabel.orientations import aff2axcodes

from napari_unet.errors import UNetError
from napari_unet.volume import (
    Affine,
    Reorientation,
    Volume,
    check_affine,
    check_same_grid,
    corners_mm,
    grid_distance_mm,
    tilt_degrees,
)

SHAPE = (3, 4, 5)
INDEX = np.stack(np.indices(SHAPE), -1)  # each voxel holds its own index
every_orientation = pytest.mark.parametrize("orientation", ORIENTATIONS)


def world(affine: Affine, shape: tuple[int, ...]) -> np.ndarray:
    """(i, j, k, 3) positions in mm, by nibabel."""
    return apply_affine(affine, np.stack(np.indices(shape), -1))


@st.composite
def affines(draw: st.DrawFn) -> Affine:
    """Any affine that a scanner or a careless tool might write: tilted, sheared, from nanometres to metres."""
    affine = np.eye(4)
    affine[:3, :3] = draw(arrays(float, (3, 3), elements=st.floats(-1, 1, width=32)))
    affine[:3, :3] *= [10.0 ** draw(st.integers(-4, 3)) for _ in range(3)]
    affine[:3, 3] = draw(arrays(float, 3, elements=st.floats(-1000, 1000, width=32)))
    return affine


def check_laws(affine: Affine, target: str) -> None:
    to = Reorientation.between(affine, target)
    there = to.apply(INDEX)
    assert np.shares_memory(there, INDEX), "a view, not a copy"
    np.testing.assert_array_equal(to.undo(there), INDEX)
    turned = to.affine(affine, SHAPE)
    # each voxel stays where it is
    scale = np.abs(affine).max()
    np.testing.assert_allclose(world(turned, there.shape[:3]), apply_affine(affine, there), atol=1e-9 * scale, rtol=1e-9)
    for axis in range(3):
        for index in range(there.shape[axis]):
            region = INDEX[to.region(axis, index, index + 1, SHAPE)]
            np.testing.assert_array_equal(region, to.undo(there.take([index], axis)))
        for index in range(SHAPE[axis]):
            found, at = to.target_axis(axis, index, SHAPE)
            assert (there.take(at, found)[..., axis] == index).all()


@every_orientation
@pytest.mark.parametrize("tilt", [0, 20])
def test_reorienting_to_three_targets(orientation: str, tilt: int) -> None:
    affine = affine_for(orientation, tilt=tilt)
    assert Volume(INDEX[..., 0], affine).orientation == orientation == "".join(aff2axcodes(affine))
    for target in ("RAS", "SAR", "IPL"):
        check_laws(affine, target)
        assert "".join(aff2axcodes(Reorientation.between(affine, target).affine(affine, SHAPE))) == target


@pytest.mark.parametrize("letters", ["kji", "ijk", "jki"])
def test_a_files_own_axes_are_those_it_is_stored_in(letters: str) -> None:
    """Wherever they point."""
    for orientation in ORIENTATIONS[::5]:
        check_laws(affine_for(orientation), letters)
        turn = Reorientation.between(affine_for(orientation), letters)
        order = ["ijk".index(letter) for letter in letters]
        np.testing.assert_array_equal(turn.apply(INDEX), INDEX.transpose(*order, 3))
        assert turn.shape(SHAPE) == tuple(SHAPE[axis] for axis in order) and turn.undo_shape(turn.shape(SHAPE)) == SHAPE


@every_orientation
def test_every_target_is_reached(orientation: str) -> None:
    check_laws(affine_for("LPS", tilt=10), orientation)


@settings(max_examples=200)
@given(affines(), st.sampled_from(ORIENTATIONS))
def test_any_affine_is_refused_or_keeps_the_laws(affine: Affine, target: str) -> None:
    try:
        check_affine(affine, "scan")
    except UNetError:
        return
    check_laws(affine, target)
    volume = Volume(INDEX[..., 0], affine)
    assert sorted("LPI".find(c) % 3 if c in "LPI" else "RAS".find(c) for c in volume.orientation) == [0, 1, 2]
    np.testing.assert_allclose(volume.spacing, np.sqrt((affine[:3, :3] ** 2).sum(0)))
    assert 0 <= tilt_degrees(affine) <= 54.8  # at the worst, an axis runs along the cube's diagonal


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 4), (0, 5), (4, 5)])
def test_a_region_of_several_slices(start: int, stop: int) -> None:
    for orientation in ORIENTATIONS:
        to = Reorientation.between(affine_for(orientation), "RAS")
        there = to.apply(np.ones((5, 5, 5, 2)).cumsum().reshape(5, 5, 5, 2))
        region = to.undo(there)[to.region(1, start, stop, (5, 5, 5))]
        np.testing.assert_array_equal(to.apply(region), there[:, start:stop])


BAD_AFFINES = {
    "NaN": np.diag([1, np.nan, 1, 1]), "Inf": np.diag([1, np.inf, 1, 1]), "zero": np.zeros((4, 4)),
    "no last row": np.diag([1, 1, 1, 0]), "3x3": np.eye(3),
    "singular": np.array([[1, 2, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "flat": np.diag([1, 1, 1e-8, 1]), "huge": np.diag([1, 1e7, 1, 1]), "far": np.eye(4) + 1e12 * np.eye(4, k=3),
    "overflow": np.diag([1e200, 1e200, 1e200, 1]),
}  # fmt: skip


@pytest.mark.parametrize("affine", BAD_AFFINES.values(), ids=BAD_AFFINES)
@pytest.mark.filterwarnings("error")
def test_affines_that_place_nothing(affine: Affine) -> None:
    with pytest.raises(UNetError, match=r"scan\.nii: its affine \[.+ does not place voxels in space\. Correct the "):
        Volume(np.zeros(SHAPE), affine, source="scan.nii")


@pytest.mark.parametrize("shape", [(3, 4), (3,), (3, 4, 0), (1, 2, 3, 4, 5)])
def test_shapes_that_are_no_volume(shape: tuple[int, ...]) -> None:
    with pytest.raises(UNetError, match=r"its shape is \(.+\)\. Give three axes"):
        Volume(np.zeros(shape), np.eye(4))


def test_other_voxels_have_to_fit() -> None:
    image = Volume(np.zeros((*SHAPE, 2)), affine_for(), source="scan", notes=("of the scan",), header=object())
    mask = image.with_data(np.ones(SHAPE, np.uint8))
    assert mask.affine is image.affine and mask.header is image.header and mask.notes == ()
    with pytest.raises(UNetError, match=r"scan: voxels of shape \(4, 3, 5\) on a grid of \(3, 4, 5\)"):
        image.with_data(np.zeros((4, 3, 5)))


def test_channels() -> None:
    image = Volume(INDEX, affine_for())
    assert image.channels == 3 and image.shape == SHAPE
    np.testing.assert_array_equal(image.channel(2).data, INDEX[..., 2])
    assert image.channel(2).channel(0).data.ndim == 3
    for index in (-1, 3):
        with pytest.raises(UNetError, match=rf"volume {index} of 3\. Choose 0 to 2"):
            image.channel(index)


def test_size_of_a_voxel() -> None:
    image = Volume(INDEX, affine_for(spacing=(0.5, 2, 10), tilt=33))
    assert image.voxel_ml == pytest.approx(0.01)
    assert image.spacing == pytest.approx((0.5, 2, 10))
    assert tilt_degrees(affine_for()) == 0
    assert tilt_degrees(np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])) == pytest.approx(36.87, abs=0.01)


@given(affines(), arrays(float, 3, elements=st.floats(-5, 5, width=32)))
@settings(max_examples=50)
def test_distance_of_grids(affine: Affine, shift: np.ndarray) -> None:
    moved = affine.copy()
    moved[:3, 3] += shift
    assert grid_distance_mm(affine, moved, SHAPE) == pytest.approx(np.linalg.norm(shift), abs=1e-9)
    assert {tuple(c) for c in corners_mm(np.eye(4), SHAPE)} == {(i, j, k) for i in (0, 2) for j in (0, 3) for k in (0, 4)}


@pytest.mark.parametrize(("spacing", "shift", "same"), [
    (1.0, 0.09, True), (1.0, 0.11, False), (5.0, 0.11, False), (1.0, 50.0, False),
    (0.001, 0.0004, True), (0.001, 0.0006, False),  # microscopes: half a voxel
])  # fmt: skip
def test_one_grid_or_two(spacing: float, shift: float, same: bool) -> None:
    image = Volume(np.zeros(SHAPE), np.diag([spacing] * 3 + [1.0]), source="scan.nii")
    label = Volume(np.zeros(SHAPE), image.affine + shift * np.eye(4, k=3), source="mask.nii")
    if same:
        return check_same_grid(label, image)
    with pytest.raises(UNetError, match=rf"mask\.nii: its affine puts a corner {shift:g} mm away from the image's \(scan\.nii\)\. R"):
        check_same_grid(label, image)


def test_shapes_of_image_and_label() -> None:
    image, label = Volume(np.zeros((*SHAPE, 2)), np.eye(4)), Volume(np.zeros((3, 5, 4)), np.eye(4), source="mask.nii")
    with pytest.raises(UNetError, match=r"mask\.nii: its shape is \(3, 5, 4\), the image's \(3, 4, 5\)"):
        check_same_grid(label, image)
    with pytest.raises(UNetError, match="puts a corner 8.94 mm away"):  # the first voxels agree, the last do not
        check_same_grid(Volume(np.zeros(SHAPE), np.diag([-1.0, 1, -1, 1]), source="mask"), image)
