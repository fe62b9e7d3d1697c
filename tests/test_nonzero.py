"""The box and the mask of what is not 0 in an image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes

from napari_unet import UNetError, nonzero
from napari_unet.nonzero import nonzero_box, nonzero_mask


class Read:
    """An array that notes which of its slices are read."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.shape, self.size, self.slices = data, data.shape, data.size, []

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, part: slice) -> np.ndarray:
        self.slices += range(len(self.data))[part]
        return self.data[part]


@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([0.0, 0.01, 0.2, 1.0]))
def test_the_box_and_the_mask(seed: int, slab: int, share: float) -> None:
    random = np.random.default_rng(seed)
    shape = (*random.integers(1, 9, 3), random.integers(1, 3))
    data = (random.random(shape) < share).astype(np.int16) * -3
    any_channel = (data != 0).any(-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nonzero, "SLAB", slab * data[0].size)
        box, mask = nonzero_box(data), nonzero_mask(data, "image")
    where = np.where(any_channel)
    expected = [slice(w.min(), w.max() + 1) for w in where] if any_channel.any() else [slice(0, n) for n in shape[:3]]
    assert list(box) == expected
    np.testing.assert_array_equal(mask, binary_fill_holes(any_channel))


def test_no_more_is_read_than_has_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image that is nowhere 0 the first and the last slice; of one with a margin each slice once."""
    full = Read(np.ones((40, 5, 6, 1)))
    monkeypatch.setattr(nonzero, "SLAB", 30)
    assert nonzero_box(full) == (slice(0, 40), slice(0, 5), slice(0, 6)) and sorted(full.slices) == [0, 39]
    framed = Read(np.pad(np.ones((20, 3, 3, 1)), ((10, 10), (1, 1), (2, 1), (0, 0))))
    assert nonzero_box(framed) == (slice(10, 30), slice(1, 4), slice(2, 5)) and len(framed.slices) == len(set(framed.slices))


def test_a_mask_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_unet.ram.free_memory", lambda: 100)
    with pytest.raises(UNetError, match="of memory"):
        nonzero_mask(np.ones((9, 9, 9, 1)), "image")
