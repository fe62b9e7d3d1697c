"""Cleaning: of each class exactly the components stay that are large enough, and what is given is not changed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.components import Cleaning, keep_largest


def noise(seed: int, shape: tuple[int, ...] = (9, 10, 11)) -> np.ndarray:
    """Specks and lumps of three classes."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 0.6)
    return np.digitize(smooth, np.quantile(smooth, [0.6, 0.75, 0.9])).astype(np.uint8)


def sizes(labels: np.ndarray, value: int) -> list[int]:
    parts, count = ndimage.label(labels == value)
    return sorted(np.bincount(parts.ravel())[1:].tolist()) if count else []


@given(st.integers(0, 1000), st.integers(0, 3000), st.sampled_from(["0.125", "0.3", "1", "2.5"]))
def test_what_is_smaller_goes_and_all_else_stays(seed: int, hundredths: int, voxel: str) -> None:
    """As decimals have it, in which 3 voxels of 0.3 mm3 are 0.9 mm3."""
    labels = noise(seed)
    before = labels.copy()
    least = {1: Fraction(hundredths, 100), 2: Fraction(0), 3: Fraction(hundredths, 50)}
    cleaned = Cleaning(smallest=((1, float(least[1])), (3, float(least[3])))).apply(labels, float(voxel))
    np.testing.assert_array_equal(labels, before)
    assert cleaned.dtype == labels.dtype and set(np.unique(cleaned[cleaned != labels])) <= {0}
    for value, mm3 in least.items():
        assert sizes(cleaned, value) == [size for size in sizes(labels, value) if size * Fraction(voxel) >= mm3]


@given(st.integers(0, 1000))
def test_the_largest_stays_only_where_it_is_large_enough(seed: int) -> None:
    labels = noise(seed)
    largest = sizes(labels, 1)[-1]
    alone = keep_largest(labels, [1])
    assert sizes(alone, 1) == [largest]
    assert set(labels[alone != labels]) <= {1} and not alone[alone != labels].any(), "it takes away only"
    assert sizes(Cleaning((1,), ((1, largest),)).apply(labels), 1) == [largest]
    assert sizes(Cleaning((1,), ((1, largest + 1.0),)).apply(labels), 1) == []


def test_ten_voxels_of_a_tenth_are_one_cubic_millimetre() -> None:
    labels = np.zeros((10, 1, 1), np.uint8)
    labels[:] = 1
    assert Cleaning(smallest=((1, 1.0),)).apply(labels, 0.1).all()
    assert not Cleaning(smallest=((1, 1.01),)).apply(labels, 0.1).any()


@pytest.mark.parametrize("cleaning", [Cleaning(), Cleaning((1, 7)), Cleaning(smallest=((1, 3.0), (9, 1.0)))])
def test_nothing_to_do_costs_no_copy(cleaning: Cleaning) -> None:
    labels = np.zeros((4, 5), np.uint16)
    labels[1:3, 1:3] = 1
    assert cleaning.apply(labels) is labels
