"""Windows cover every voxel evenly, overlap as asked, and their shares of a voxel add up to one."""

from __future__ import annotations

import math

import numpy as np
from engine import model_spec, network_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.windows import Tiling, window_shape, window_shares, window_size, window_starts

sizes, windows, overlaps = st.integers(1, 300), st.integers(1, 96), st.floats(0, 0.9)


@given(sizes, windows, overlaps)
@settings(max_examples=400)
def test_windows_cover_an_axis_evenly(size: int, window: int, overlap: float) -> None:
    starts = window_starts(size, window, overlap)
    assert starts == sorted(set(starts)) and starts[0] == 0 and starts[-1] == max(0, size - window)
    steps = np.diff(starts)
    assert not len(steps) or steps.max() - steps.min() <= 2, "evenly, up to rounding at either end"
    widest = max(1, window * (1 - overlap))
    assert (steps <= math.ceil(widest)).all(), "no gap, and no less overlap than asked for"
    assert len(steps) < 2 or size - window > widest * (len(steps) - 1) - 1e-9, "and with one window fewer there would be"


@given(sizes, windows, overlaps)
@settings(max_examples=400)
def test_shares_are_a_partition_of_unity(size: int, window: int, overlap: float) -> None:
    starts = window_starts(size, window, overlap)
    shares = window_shares(size, window, starts)
    assert shares.shape == (len(starts), window) and shares.dtype == np.float32 and (shares > 0).all()
    total = np.zeros(max(size, window))
    for start, share in zip(starts, shares, strict=True):
        total[start : start + window] += share
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_shares_fall_towards_a_windows_edge() -> None:
    middle = window_shares(300, 64, window_starts(300, 64, 0.5))[3]
    assert (np.diff(middle[:24]) > 0).all() and (np.diff(middle[-24:]) < 0).all() and middle[[0, -1]].max() < 0.01


@given(sizes, st.integers(1, 12), st.integers(1, 8), st.floats(1, 3))
@settings(max_examples=400)
def test_a_window_is_the_patch_or_the_whole_axis(size: int, stride: int, times: int, whole: float) -> None:
    patch = stride * times
    window = window_size(size, patch, stride, whole)
    if size > whole * patch or patch == 1:  # a 2-D network sees one slice at a time, though there are two
        assert window == patch
    else:
        assert len(window_starts(size, window, 0.5)) == 1 and window % stride == 0, "nothing to blend"
        assert window < size + stride or window == 2 * stride <= patch, "no more padding than it takes"
        assert window >= min(2 * stride, patch), "two values to normalise by, where the patch has two"


def test_a_window_is_hardly_larger_than_the_patch_but_for_pictures() -> None:
    """Norms were trained on the patch's share of the image; pictures look alike wherever a patch lies."""
    scans, pictures = (model_spec(network_spec(2), pictures=pictures).whole for pictures in (False, True))
    assert window_shape((30, 288, 289), (16, 256, 256), (16, 16, 16), scans) == (16, 288, 256)
    assert window_shape((2, 64, 64), (1, 64, 64), (1, 16, 16), scans) == (1, 64, 64), "one slice, however few there are"
    assert window_shape((1, 512, 513), (1, 256, 256), (1, 16, 16), pictures) == (1, 512, 256)
    assert window_shape((2, 64, 64), (1, 64, 64), (1, 16, 16), pictures) == (1, 64, 64), "a network of pictures sees one at a time"


extents = st.tuples(*[st.integers(1, 40)] * 3)


@given(extents, overlaps, st.integers(0, 2), st.floats(-5, 45))
@settings(max_examples=100)
def test_tiles_share_out_every_voxel_from_the_centre_outwards(size: tuple[int, int, int], overlap: float, axis: int, centre: float) -> None:
    tiling = Tiling.cover(size, (8, 8, 16), (4, 4, 8), 1.5, overlap)
    total, rows = np.zeros(size), []
    for tile in tiling.tiles(axis, centre):
        inside = tile.inside(size)
        assert all(len(share) == width for share, width in zip(tile.shares, tiling.window, strict=True))
        weights = [share[part.start - b : part.stop - b] for share, part, b in zip(tile.shares, inside, tile.begin, strict=True)]
        z, y, x = (slice(part.start, part.stop) for part in inside)
        total[z, y, x] += np.einsum("i,j,k->ijk", *weights)
        before = [part.start - b for part, b in zip(inside, tile.begin, strict=True)]
        after = [b + w - part.stop for part, b, w in zip(inside, tile.begin, tiling.window, strict=True)]
        assert all(0 <= after[a] - before[a] <= 1 for a in range(3)), "what is beyond the volume is shared by both sides"
        rows.append(abs(tile.begin[axis] + (tiling.window[axis] - 1) / 2 - centre))
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert rows == sorted(rows)
