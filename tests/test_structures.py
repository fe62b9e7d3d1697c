"""Laws of what a mask's structures are like; where they lie is tested with the facts of a case (test_checks)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet.partial import UNLABELLED
from napari_unet.structures import thickness


def sheet(voxels: int, axis: int = 0) -> np.ndarray:
    """A wide sheet across an axis, from edge to edge."""
    mask = np.zeros((24, 24, 24), np.uint8)
    np.moveaxis(mask, axis, 0)[8 : 8 + voxels] = 3
    return mask


@given(voxels=st.integers(1, 12), axis=st.integers(0, 2), spacing=st.tuples(*[st.floats(1e-4, 20)] * 3))
def test_a_sheet_is_as_thick_as_its_voxels(voxels: int, axis: int, spacing: tuple[float, float, float]) -> None:
    assert thickness(sheet(voxels, axis), 3, spacing) == pytest.approx(voxels * spacing[axis])


@given(radius=st.integers(3, 11), value=st.integers(1, 9), mm=st.floats(0.01, 10))
def test_a_ball_is_thicker_the_larger_it_is(radius: int, value: int, mm: float) -> None:
    ball = (((np.indices((25, 25, 25)) - 12) ** 2).sum(0) <= radius**2).astype(np.int16) * value
    found = thickness(ball, value, (mm, mm, mm))
    assert 0.35 * radius < found / mm < 0.6 * radius  # 2/3 of it, over the 1.5 times that faces count too many
    assert thickness(ball, value, (mm * 2,) * 3) == pytest.approx(2 * found)


def test_several_structures_are_as_thick_as_one() -> None:
    two = sheet(3) + np.roll(sheet(3), 10, axis=0)
    assert thickness(two, 3, (1, 1, 1)) == thickness(sheet(3), 3, (1, 1, 1)) == 3


def test_where_labels_or_the_image_end_there_is_no_surface() -> None:
    mask = sheet(3).astype(np.int16)
    cut = mask[9:]  # two voxels of it, one face
    assert thickness(cut, 3, (1, 1, 1)) == 4
    mask[:8] = UNLABELLED
    assert thickness(mask, 3, (1, 1, 1)) == 6
    mask[11:] = UNLABELLED
    assert thickness(mask, 3, (1, 1, 1)) == float("inf") == thickness(np.full((4, 4, 4), 3), 3, (1, 1, 1))


def test_other_classes_bound_a_class() -> None:
    mask = sheet(3)
    mask[:8], mask[11:] = 1, 2
    assert thickness(mask, 3, (1, 1, 1)) == 3 and thickness(mask, 1, (1, 1, 1)) == 16
