"""Window arithmetic: where windows lie, and how much each counts where they overlap."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Three = tuple[int, int, int]


def window_shape(size: tuple[int, ...], patch: tuple[int, ...], stride: tuple[int, ...], whole: float) -> Three:
    """The window (z, y, x) for a volume of this size (see `window_size`)."""
    z, y, x = (window_size(*axis, whole) for axis in zip(size, patch, stride, strict=True))
    return z, y, x


def window_size(size: int, patch: int, stride: int, whole: float) -> int:
    """The window along an axis of `size` voxels: the patch, or the whole axis where it has up to `whole` patches.

    A whole axis is padded to the next multiple of the stride and no farther: padding is nothing that the network learnt
    from. It spans two strides at least, so that normalisation has more than one value to go by at the bottleneck. Where the
    patch is one voxel, as across a 2-D network's slices, the window is.
    """
    if patch == 1:
        return 1
    return max(-(-size // stride), min(2, patch // stride)) * stride if size <= whole * patch else patch


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Evenly spread first voxels of windows that cover an axis, overlapping by at least the share `overlap`."""
    if size <= window:
        return [0]
    count = int(np.ceil((size - window) / max(1.0, window * (1 - overlap)))) + 1
    return [int(round(s)) for s in np.linspace(0, size - window, count)]


def window_shares(size: int, window: int, starts: list[int], centre: float | None = None) -> NDArray[np.float32]:
    """(windows, window): each window's share of each voxel along one axis; over all windows they add up to one.

    A Gaussian of an eighth of the window (nnU-Net) around its `centre`, the middle where that is not given, divided by the sum over
    all windows: since windows form a grid, the product over the axes is an exact partition of unity, up to the volume's very border.
    """
    centre = (window - 1) / 2 if centre is None else centre
    profile = np.exp(-0.5 * ((np.arange(window) - centre) / (window / 8)) ** 2)
    total = np.zeros(max(size, window))
    for start in starts:
        total[start : start + window] += profile
    return np.stack([profile / total[start : start + window] for start in starts]).astype(np.float32)


@dataclass(frozen=True)
class Tile:
    """One window: its first voxel, and along each axis its share of each of its voxels."""

    begin: Three
    shares: tuple[NDArray[np.float32], ...]

    def inside(self, size: tuple[int, ...]) -> tuple[range, ...]:
        """Its voxels in a volume of this size, along each axis."""
        return tuple(
            range(max(0, begin), min(n, begin + len(share)))
            for begin, share, n in zip(self.begin, self.shares, size, strict=True)
        )

    def weights(self, axis: int, size: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """How much its slices along `axis` count, and the voxels (b, c) of each of them: its share of a voxel is the product.

        Only of what lies inside a volume of this size.
        """
        parts = [
            share[part.start - begin : part.stop - begin]
            for begin, share, part in zip(self.begin, self.shares, self.inside(size), strict=True)
        ]
        along = parts.pop(axis)
        return along, np.outer(*parts)


@dataclass(frozen=True)
class Tiling:
    """Windows on a grid that cover a volume; along (z, y, x), their size, first voxels and shares (see `window_shares`).

    A volume that is smaller than its window lies in the middle of it: the window then begins before the first voxel.
    """

    window: Three
    starts: tuple[list[int], ...]
    shares: tuple[NDArray[np.float32], ...]

    @classmethod
    def cover(cls, size: Three, patch: tuple[int, ...], stride: tuple[int, ...], whole: float, overlap: float) -> Tiling:
        """The one for a volume of this size. Where no axis is seen `whole`, as in nnU-Net, voxel n/2 of n is what counts most, as there."""
        window = window_shape(size, patch, stride, whole)
        starts = [window_starts(n, w, overlap) for n, w in zip(size, window, strict=True)]
        shares = tuple(window_shares(n, w, s, None if whole else w // 2) for n, w, s in zip(size, window, starts, strict=True))
        middle = [-(max(0, w - n) // 2) for n, w in zip(size, window, strict=True)]
        return cls(window, tuple([s + first for s in own] for own, first in zip(starts, middle, strict=True)), shares)

    def tiles(self, axis: int, centre: float) -> list[Tile]:
        """All windows; rows of one start along `axis` follow one another, from `centre` outwards."""
        middle = (self.window[axis] - 1) / 2
        numbers = [range(len(starts)) for starts in self.starts]
        order = sorted(product(*numbers), key=lambda n: (abs(self.starts[axis][n[axis]] + middle - centre), n[axis], n))
        return [
            Tile((self.starts[0][z], self.starts[1][y], self.starts[2][x]), (self.shares[0][z], self.shares[1][y], self.shares[2][x]))
            for z, y, x in order
        ]
