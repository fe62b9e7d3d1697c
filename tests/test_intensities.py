"""Statistics of a channel, counted in parts, are those of the whole."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from napari_unet import intensities as module
from napari_unet.intensities import Intensities, intensities, slabs


def of(data: np.ndarray) -> Intensities:
    values = data.astype(np.float32).astype(np.float64)
    return Intensities(data.min(), data.max(), 0, values.mean(), values.std())


@pytest.mark.parametrize("slab", [1, 7, 60, 10_000])
@pytest.mark.parametrize("offset", [0, 1e6])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_parts_make_up_the_whole(dtype: type, offset: float, slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB", slab)
    data = (np.random.default_rng(0).normal(3, 50, (9, 5, 4)) + (offset if dtype != np.int16 else 0)).astype(dtype)
    found, expected = intensities(data), of(data)
    assert (found.low, found.high) == (expected.low, expected.high)
    assert found.mean == pytest.approx(expected.mean, rel=1e-7) and found.std == pytest.approx(expected.std, rel=1e-5)


def test_what_is_no_number_is_counted() -> None:
    data = np.zeros((40, 3, 3), np.float64)
    data[[3, 20], 1, 1], data[39, 2, 2] = np.nan, -np.inf
    assert intensities(data).unusable == 3
    data = np.full((40, 3, 3), 1e300)  # a number, though none in single precision
    assert intensities(data).unusable == 0 and not np.isfinite(intensities(data).std)


def test_slabs_are_all_of_it_in_order_and_no_larger_than_asked() -> None:
    data = np.arange(3000 * 1000 * 4, dtype=np.int32).reshape(3000, 1000, 4)
    parts = list(slabs(data))
    assert len(parts) > 2 and max(part.size for part in parts) <= module.SLAB
    assert sum(len(part) for part in parts) == len(data) and all(np.shares_memory(part, data) for part in parts)
    assert [part[0, 0, 0] for part in parts] == sorted(part[0, 0, 0] for part in parts)
    assert len(list(slabs(data[:1]))) == 1


def test_memory_does_not_grow_with_the_volume() -> None:
    peaks = []
    for depth in (64, 512):
        data = np.zeros((depth, 256, 256), np.int16)
        data[0, 0, 0] = 1
        tracemalloc.start()
        intensities(data)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 1.1 * peaks[0] < 12 * module.SLAB * 2
