"""Images are resampled as nnU-Net resamples them."""

from __future__ import annotations

import nnunet_folder as nnunet
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from napari_unet.resizing import coarse_axis, memory_for, nearest, resized

SPACINGS = [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0), (1.0, 5.0, 1.5), (0.5, 0.5, 3.0), (4.0, 4.0, 1.0), (3.0, 1.0, 1.0), (1.2, 0.3, 0.9)]


@pytest.mark.parametrize("now", SPACINGS)
@pytest.mark.parametrize("then", SPACINGS)
def test_images_become_what_nnunet_makes_of_them(now: tuple[float, ...], then: tuple[float, ...]) -> None:
    """Its own arithmetic, which is scikit-image's."""
    image = np.random.default_rng(0).normal(size=(2, 9, 11, 7)).astype(np.float32)
    size = tuple(max(1, round(n * a / b)) for n, a, b in zip(image.shape[1:], now, then, strict=True))
    coarse = coarse_axis(now, then)
    assert coarse == nnunet.separate(now, then)
    found = resized(image, size, coarse)
    np.testing.assert_allclose(found, nnunet.resample(image, size, now, then, 3), atol=1e-5)
    assert found.dtype == np.float32 and found.shape == (2, *size)
    for channel, own in zip(found, image, strict=True):
        assert own.min() <= channel.min() and channel.max() <= own.max()


@pytest.mark.parametrize("available", [1, 2, 5, 8, 30])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 31])
def test_the_nearest_slices_are_scipys(size: int, available: int) -> None:
    where = available / size * (np.arange(size) + 0.5) - 0.5
    expected = map_coordinates(np.arange(available, dtype=float), [where], order=0, mode="nearest")
    np.testing.assert_array_equal(nearest(size, available), expected)


def test_it_takes_the_memory_that_it_tells() -> None:
    import tracemalloc

    image = np.zeros((1, 60, 70, 50), np.float32)
    tracemalloc.start()
    resized(image, (80, 100, 70), None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.3 < (peak + image.nbytes) / memory_for(1, image.shape[1:], (80, 100, 70)) <= 1
