"""A NIfTI file that is written while it is made: its slices wait on disk, in any order, until all of them are there.

Compression goes from one end to the other, but slices come from the middle outwards, and run along any axis.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet import nifti
from napari_unet.files import writing
from napari_unet.lazy import Box
from napari_unet.volume import Volume

SLAB = 32 << 20  # bytes that are read back at once


class Draft:
    """A mask, or another image of one channel, on the grid of an image; `commit` puts the file in its place, as `images.write` does.

    axis : of (i, j, k), along which slices come; labels : whether it is a mask. The slices wait in a file of the system's beside the
    target, which has no name: nobody meets it, and it is gone with the process. Raises UNetError where there is no room for it.
    """

    def __init__(self, path: Path, image: Volume, dtype: np.dtype[Any], axis: int, labels: bool) -> None:
        self.path, self.image, self.dtype, self.labels = path, image, dtype, labels
        i, j, k = image.shape
        self.order = {0: (0, 2, 1), 1: (1, 2, 0), 2: (2, 1, 0)}[axis]  # of its axes in the waiting file, the slowest first
        self.shape = tuple(image.shape[a] for a in self.order)
        self.highest = 0
        with writing(path):
            self.file = tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path)))  # noqa: SIM115 - `close` is for that
            if hasattr(os, "posix_fallocate"):  # a full disk is met now, rather than after hours
                os.posix_fallocate(self.file.fileno(), 0, i * j * k * dtype.itemsize)

    def __setitem__(self, region: Box, values: NDArray[Any]) -> None:
        """Whole slices of the volume's own (i, j, k)."""
        with writing(self.path):
            self.file.seek(self._place(region[self.order[0]].start, 0))
            self.file.write(np.ascontiguousarray(values.transpose(self.order), self.dtype))
        if self.labels:
            self.highest = max(self.highest, int(values.max()))

    def commit(self) -> None:
        """Compress what waits, plane by plane, and put it in its place."""
        dtype = np.min_scalar_type(self.highest) if self.labels else self.dtype
        nifti.write_planes(self.path, self.image, dtype, self._planes(), labels=self.labels)

    def close(self) -> None:
        """Leave nothing behind of what waits."""
        self.file.close()

    def _planes(self) -> Iterator[NDArray[Any]]:
        """(i, j) of each k."""
        slices, rows, columns = self.shape
        if self.order[0] == 2:
            for k in range(slices):
                yield self._box(range(k, k + 1), range(rows))[0].T
            return
        height = max(1, SLAB // (slices * columns * self.dtype.itemsize))
        for begin in range(0, rows, height):
            slab = self._box(range(slices), range(begin, min(begin + height, rows)))
            for n in range(slab.shape[1]):
                yield slab[:, n] if self.order[0] == 0 else slab[:, n].T

    def _box(self, slices: range, rows: range) -> NDArray[Any]:
        """Some rows of some slices, as they wait: (slice, row, column)."""
        box = np.empty((len(slices), len(rows), self.shape[2]), self.dtype)
        for values, number in zip(box, slices, strict=True):
            self.file.seek(self._place(number, rows[0]))
            self.file.readinto(values)
        return box

    def _place(self, number: int, row: int) -> int:
        """Where a slice's row begins, in bytes."""
        _, rows, columns = self.shape
        return (number * rows + row) * columns * self.dtype.itemsize
