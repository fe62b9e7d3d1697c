"""Windows' logits put together: the sum that `Tile.weights` names, slice by slice, each as soon as it can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_unet.blending import blended
from napari_unet.windows import Three, Tile, Tiling

CPU = torch.device("cpu")
K = 2


def what_each_sees(tiles: list[Tile], size: tuple[int, ...]) -> list[Tensor]:
    """Other logits from each window, of the voxels that it sees."""
    draw = np.random.default_rng(len(tiles))
    return [torch.from_numpy(draw.normal(size=(K, *map(len, tile.inside(size)))).astype(np.float32)) for tile in tiles]


def summed(tiles: list[Tile], answers: list[Tensor], size: tuple[int, ...]) -> np.ndarray:
    """The weighted sum, whole and in double precision."""
    total = np.zeros((K, *size))
    for tile, logits in zip(tiles, answers, strict=True):
        inside = tile.inside(size)
        weights = [share[part.start - b : part.stop - b] for share, part, b in zip(tile.shares, inside, tile.begin, strict=True)]
        z, y, x = (slice(part.start, part.stop) for part in inside)
        total[:, z, y, x] += logits.numpy() * np.einsum("i,j,k->ijk", *weights)
    return total


@given(st.tuples(*[st.integers(1, 30)] * 3), st.floats(0, 0.85), st.integers(0, 2), st.floats(-3, 33), st.sets(st.integers(0, 29)))
@settings(max_examples=150)
def test_it_is_the_weighted_sum_of_all_windows(size: Three, overlap: float, axis: int, centre: float, some: set[int]) -> None:
    tiling = Tiling.cover(size, (8, 8, 12), (4, 4, 4), 1.5, overlap)
    wanted = {n for n in some if n < size[axis]} or set(range(size[axis]))
    tiles = [tile for tile in tiling.tiles(axis, centre) if wanted & set(tile.inside(size)[axis])]
    answers = what_each_sees(tiles, size)
    found = list(blended(tiles, answers, size, axis, centre, wanted, CPU))
    assert sorted(n for n, _ in found) == sorted(wanted)
    expected = summed(tiles, answers, size)
    for n, logits in found:
        np.testing.assert_allclose(logits.numpy(), expected.take(n, axis + 1), atol=2e-5)
        assert logits.untyped_storage().nbytes() == logits.nbytes, "it keeps nothing but itself in memory"


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_a_slice_is_given_before_a_window_is_drawn_that_cannot_change_it(overlap: float, axis: int) -> None:
    size = (40, 36, 32)
    tiles = Tiling.cover(size, (8, 8, 8), (4, 4, 4), 1.5, overlap).tiles(axis, 17.0)
    answers, drawn = what_each_sees(tiles, size), 0

    def drawing() -> object:
        nonlocal drawn
        for answer in answers:
            drawn += 1
            yield answer

    last = {n: max(i for i, tile in enumerate(tiles, 1) if n in tile.inside(size)[axis]) for n in range(size[axis])}
    for n, _ in blended(tiles, drawing(), size, axis, 17.0, range(size[axis]), CPU):  # type: ignore[arg-type]
        assert drawn == last[n]
