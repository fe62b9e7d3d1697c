"""How much there is of each class in a mask, and whether a class may go on beyond the image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Amount:
    """One class of a mask: its value, its voxels, and whether some lie in the image's outermost slices."""

    value: int
    voxels: int
    at_border: bool


def amounts(labels: NDArray[Any], values: Iterable[int] = ()) -> list[Amount]:
    """What a mask (i, j, k) holds, by ascending value: all of `values`, and whatever else is there; background (0) is left out.

    Along an axis of one voxel, as in a picture, there is no border.
    """
    tally = Tally.of(labels)
    outermost = set().union(*tally.touched.values())
    there = {int(value) for value in np.flatnonzero(tally.counts)} | set(values)
    return [Amount(value, tally.voxels(value), value in outermost) for value in sorted(there - {0})]


class Tally:
    """What a mask of this shape (i, j, k) holds, counted part by part, in any order.

    counts : voxels by value; touched : the values in each outermost slice, by (axis, 0 for the first or -1 for the last).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.counts = shape, np.zeros(1, np.int64)
        self.touched: dict[tuple[int, int], set[int]] = {(axis, end): set() for axis, n in enumerate(shape) if n > 1 for end in (0, -1)}

    @classmethod
    def of(cls, labels: NDArray[Any]) -> Tally:
        """A whole mask's."""
        tally = cls(labels.shape)
        whole = tuple(slice(0, n) for n in labels.shape[1:])
        for n in range(len(labels)):  # what is compared takes memory of its own
            tally.add((slice(n, n + 1), *whole), labels[n : n + 1])
        return tally

    def add(self, region: tuple[slice, ...], values: NDArray[Any]) -> None:
        """A part of the mask, and where it lies."""
        flat = values.ravel()
        begins = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))  # of runs of one value, which masks have few of
        runs = np.diff(np.append(begins, flat.size))
        found = np.bincount(flat[begins].astype(np.int64), runs, len(self.counts)).astype(np.int64)
        found[: len(self.counts)] += self.counts
        self.counts = found
        for (axis, end), seen in self.touched.items():
            if region[axis].stop == self.shape[axis] if end else region[axis].start == 0:
                seen.update(np.unique(values.take(end, axis)).tolist())

    def voxels(self, value: int) -> int:
        """Of a value."""
        return int(self.counts[value]) if value < len(self.counts) else 0
