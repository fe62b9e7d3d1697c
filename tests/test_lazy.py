"""Lazy arrays are numpy's, read in parts: whatever is turned, cut and asked for, and in whatever order slices come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet.lazy import Chunks, Layers, LazyArray

SHAPE, CHUNKS = (2, 7, 9, 5), (1, 3, 4, 5)
DATA = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def counted(chunks: tuple[int, ...] = CHUNKS, capacity: int = 1 << 30) -> tuple[Chunks, list[tuple[slice, ...]]]:
    """DATA in chunks, and every box of it that is decoded."""
    decoded: list[tuple[slice, ...]] = []

    def decode(box: tuple[slice, ...]) -> np.ndarray:
        decoded.append(box)
        return DATA[box]

    return Chunks(decode, DATA.dtype, SHAPE, chunks, capacity), decoded


@st.composite
def views(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What can be done to an array, one thing after another."""
    steps: list[tuple[str, Any]] = []
    seen = DATA
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            steps.append(("turn", draw(st.permutations(range(seen.ndim)))))
        else:
            keys: list[Any] = []
            for size in seen.shape:
                whole = st.slices(size) if size else st.just(slice(None))
                keys.append(draw(whole | st.integers(-size, size - 1) if size and seen.ndim > 1 else whole))
            if len(keys) > 1 and draw(st.booleans()):
                keys[draw(st.integers(0, len(keys) - 1))] = Ellipsis
            steps.append(("cut", tuple(keys)))
        seen = seen.transpose(steps[-1][1]) if steps[-1][0] == "turn" else seen[steps[-1][1]]
        if not seen.ndim:
            break
    return steps


@given(views())
def test_a_view_is_what_numpy_sees(steps: list[tuple[str, Any]]) -> None:
    expected: Any = DATA
    lazy = LazyArray.of(counted()[0], DATA.dtype, SHAPE)
    for kind, what in steps:
        expected = expected.transpose(what) if kind == "turn" else expected[what]
        lazy = lazy.transpose(what) if kind == "turn" else lazy[what]
    assert (lazy.shape, lazy.ndim, lazy.size, lazy.nbytes) == (expected.shape, expected.ndim, expected.size, expected.nbytes)
    np.testing.assert_array_equal(np.asarray(lazy), expected, strict=True)
    np.testing.assert_array_equal(np.array(lazy, np.float32), expected.astype(np.float32), strict=True)


def test_only_what_is_asked_for_is_decoded() -> None:
    chunks, decoded = counted()
    lazy = LazyArray.of(chunks, DATA.dtype, SHAPE).transpose(3, 2, 1, 0)[::-1, :, ::-1]
    assert lazy.shape == (5, 9, 7, 2) and len(lazy) == 5 and not decoded
    np.testing.assert_array_equal(np.asarray(lazy[0, 8, 0]), DATA[:, 6, 8, 4])
    assert len(decoded) == 2 and all(box[1:3] == (slice(6, 7), slice(8, 9)) for box in decoded)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(lazy, copy=False)


@pytest.mark.parametrize("order", [1, -1])
def test_slice_after_slice_decodes_each_chunk_once(order: int) -> None:
    """With room for one layer of chunks."""
    layer = 2 * 3 * 12 * 5 * DATA.itemsize
    chunks, decoded = counted(capacity=layer)
    lazy = LazyArray.of(chunks, DATA.dtype, SHAPE)
    for z in range(7)[::order]:
        np.testing.assert_array_equal(np.asarray(lazy[:, z : z + 1]), DATA[:, z : z + 1])
    assert len(decoded) == len(set(map(str, decoded))) == 2 * 3 * 3


@given(st.integers(0, 400), st.lists(st.integers(0, 6), max_size=12))
def test_what_stays_decoded_is_bounded(capacity: int, slices: list[int]) -> None:
    chunks, _ = counted(capacity=capacity)
    for z in slices:
        chunks((slice(0, 2), slice(z, z + 1), slice(0, 9), slice(0, 5)))
        held = [chunk.nbytes for chunk in chunks._kept.values()]
        assert chunks._held == sum(held) and (sum(held) <= capacity or len(held) == 1)


@given(st.permutations(range(9)), st.integers(1, 10))
def test_slices_in_any_order_are_the_array(order: list[int], height: int) -> None:
    written = np.full(SHAPE, -1, np.int16)
    heights: list[int] = []

    def write(box: tuple[slice, ...], values: np.ndarray) -> None:
        assert (written[box] == -1).all()
        written[box] = values
        heights.append(values.shape[2])

    layers = Layers(write, DATA.dtype, SHAPE, (1, 1, height, 1))
    for n in order:
        layers[slice(0, 2), slice(0, 7), slice(n, n + 1), slice(0, 5)] = DATA[:, :, n : n + 1]
        assert order != sorted(order) or len(layers._open) <= 1
    np.testing.assert_array_equal(written, DATA)
    assert len(heights) == -(-9 // height) and max(heights) == min(height, 9)


def test_all_at_once() -> None:
    written = np.zeros_like(DATA)
    Layers(written.__setitem__, DATA.dtype, SHAPE, CHUNKS)[tuple(slice(0, n) for n in SHAPE)] = DATA
    np.testing.assert_array_equal(written, DATA)
