"""How much memory a segmentation takes, from an image's header and a model's specification: neither voxels nor torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_unet import files
from napari_unet.components import Cleaning
from napari_unet.outline import Outline
from napari_unet.spec import ModelSpec
from napari_unet.volume import Reorientation, spacing_of
from napari_unet.windows import window_size

FLOAT = 4
LIBRARIES = 100e6  # what torch and oneDNN set up for their first window, beyond what importing them takes
FEATURE_MAPS = 10  # floats per voxel of a window and feature of the finest level: both halves of the skip, workspace
COPIES = 3  # of one channel, while it is normalised
COORDINATES = 4  # floats per voxel of the network's grid, while the image is resampled to it
OPEN = 1.5  # windows, along the axis in which slices are finished, whose logits wait for their neighbours


@dataclass(frozen=True)
class Estimate:
    """Bytes that each phase of a segmentation takes at its peak, the image included, beyond what the libraries take."""

    reading: int
    preparing: int
    segmenting: int
    cleaning: int

    @property
    def needed(self) -> int:
        """Bytes at the peak of all."""
        return max(self.reading, self.preparing, self.segmenting, self.cleaning)

    def __str__(self) -> str:
        return f"needs {_size(self.needed)} of {_size(files.free_memory())} free"

    def check(self, where: str | Path) -> None:
        """UNetError with both numbers where more is needed than the machine has free."""
        files.check_memory(self.needed, where)


def estimate(image: Outline, spec: ModelSpec, *, cleaning: Cleaning | None = None, uncertainty: bool = False) -> Estimate:
    """What segmenting an image with a model takes; `cleaning` as the model asks for it where none is given.

    It is made to be a little too large rather than too small; docs/predict.md has what it was measured against.
    """
    voxels, grid = math.prod(image.shape), _network_grid(image, spec)
    channels, classes = len(spec.channels), spec.network.classes
    members = spec.members if uncertainty and spec.members > 1 else 0
    window = [window_size(n, p, s) for n, p, s in zip(grid, spec.patch, spec.stride, strict=True)]
    on_grid, outputs = math.prod(grid), classes * (1 + members)

    prepared = FLOAT * channels * on_grid
    open_slices = min(grid[0], math.ceil(OPEN * window[0]) + 2) * grid[1] * grid[2]
    in_window = spec.network.channels + 2 * outputs + FEATURE_MAPS * spec.network.features[0]
    masks = voxels * (np.dtype(np.uint16).itemsize + FLOAT * uncertainty)
    parts = 8 * voxels if (cleaning or Cleaning.of(spec)) != Cleaning() else 0
    return Estimate(
        reading=image.reading or image.nbytes,
        preparing=image.nbytes + masks + FLOAT * voxels * (channels + COPIES) + prepared + FLOAT * COORDINATES * on_grid,
        segmenting=int(image.nbytes + masks + prepared + FLOAT * (outputs * open_slices + in_window * math.prod(window)) + LIBRARIES),
        cleaning=image.nbytes + 2 * masks + parts,
    )


def _network_grid(image: Outline, spec: ModelSpec) -> tuple[int, int, int]:
    """The image's shape (z, y, x) on the network's grid."""
    turn, spacing = Reorientation.between(image.affine, spec.orientation), spacing_of(image.affine)
    sizes = []
    for axis, wanted in zip(turn.axes, spec.spacing, strict=True):
        sizes.append(math.ceil((image.shape[axis] - 1) * spacing[axis] / (wanted or spacing[axis])) + 1)
    return sizes[0], sizes[1], sizes[2]


def _size(count: float) -> str:
    """As in "1.2 GB" or "35 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
