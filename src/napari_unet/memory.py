"""How much memory a segmentation takes, from an image's header and a model's specification: neither voxels nor torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_unet import ram, words
from napari_unet.components import Cleaning
from napari_unet.outline import Outline
from napari_unet.resizing import memory_for
from napari_unet.spacing import network_grid
from napari_unet.spec import ModelSpec
from napari_unet.spool import SLAB
from napari_unet.volume import Reorientation
from napari_unet.windows import Three, window_shape

FLOAT = 4
LIBRARIES = 150e6  # what torch and oneDNN set up for their first window, and a slab of the image while it is looked over
FEATURE_MAPS = 10.0  # floats per voxel and feature of the finest level, of one window in torch, workspace included, and of two at once
SMALL = 2**24  # values, 64 MB: an image of no more is normalised at once, not a window at a time
OPEN = 1.5  # windows, along the axis in which slices are finished, whose logits wait for their neighbours


@dataclass(frozen=True)
class Estimate:
    """Bytes that each phase of a segmentation takes at its peak, the image included, beyond what the libraries take."""

    reading: int
    segmenting: int
    cleaning: int

    @property
    def needed(self) -> int:
        """Bytes at the peak of all."""
        return max(self.reading, self.segmenting, self.cleaning)

    def __str__(self) -> str:
        return f"needs {words.size(self.needed)} of {words.size(ram.free_memory())} free"


def estimate(
    image: Outline, spec: ModelSpec, *, cleaning: Cleaning | None = None, uncertainty: bool = False, in_flight: int = 1,
    feature_maps: float = FEATURE_MAPS, streamed: bool = False,
) -> Estimate:  # fmt: skip
    """What segmenting an image with a model takes; `cleaning` as the model asks for it where none is given.

    in_flight, feature_maps : windows at a time, and what one takes at work (see `Runtime`); streamed : the mask is written while
    it is made, a layer of the image's chunks, or a slab, at a time. It is made to be a little too large rather than too small.
    """
    held = image.nbytes if image.held is None else image.held
    voxels, (_, ratios, grid) = math.prod(image.shape), network_grid(image.affine, image.shape, spec)
    size = window_shape(grid, spec.patch, spec.stride, spec.whole)
    window = math.prod(size)

    whole_masks = voxels * (np.dtype(np.uint16).itemsize + FLOAT * uncertainty)
    masks = _kept(image, spec, whole_masks) if streamed else whole_masks
    open_logits = FLOAT * outputs(spec, uncertainty) * min(grid[0], math.ceil(OPEN * size[0]) + 2) * grid[1] * grid[2]
    whole = FLOAT * len(spec.channels) * math.prod(grid)
    prepared = whole if whole <= FLOAT * SMALL else 0
    if spec.resampling == "cubic" and not (ratios == 1).all():
        shape = Reorientation.between(image.affine, spec.orientation).shape(image.shape)
        prepared = memory_for(len(spec.channels), shape, grid) + image.nbytes - held  # what lies on disk is read as a whole
    prepared += 3 * voxels * any(channel.scheme == "masked" for channel in spec.channels)
    cut_out = 2 * FLOAT * len(spec.channels) * min(voxels, math.ceil(window / ratios.prod()))  # from the image, before it is resampled
    ends, features = of_window(spec, size, feature_maps)
    parts = 8 * voxels if (cleaning or Cleaning.of(spec)) != Cleaning() else 0
    return Estimate(
        reading=image.reading or image.nbytes,
        segmenting=int(held + masks + prepared + open_logits + in_flight * (cut_out + ends) + max(1, in_flight - 1) * features + LIBRARIES),
        cleaning=held + 2 * masks + parts,
    )


def outputs(spec: ModelSpec, uncertainty: bool) -> int:
    """Logits per voxel that are added up: of the whole model, and for the uncertainty of an ensemble those of each member."""
    return spec.network.classes * (1 + spec.members * (uncertainty and spec.members > 1))


def of_window(spec: ModelSpec, size: Three, feature_maps: float = FEATURE_MAPS) -> tuple[int, float]:
    """Bytes of one window: of its input and its logits, each member's and their mean; and of what the network holds at work on it."""
    floats = spec.network.channels + spec.network.classes * (spec.members + 2)
    return FLOAT * math.prod(size) * floats, FLOAT * math.prod(size) * feature_maps * spec.network.features[0]


def _kept(image: Outline, spec: ModelSpec, whole: int) -> int:
    """Bytes that are held of masks of `whole` bytes that are written while they are made: a layer of the image's chunks, which lie
    across the axis along which slices are finished, or a slab of what waits on disk."""
    if image.chunk is None:
        return min(whole, SLAB)
    axis = Reorientation.between(image.affine, spec.orientation).axes[0]
    return whole * min(image.chunk[axis], image.shape[axis]) // image.shape[axis]


@dataclass(frozen=True)
class Fit:
    """A way to segment an image in the memory that is free: the model, with the windows that fit, and how many at a time."""

    spec: ModelSpec
    in_flight: int
    estimate: Estimate
    patch: tuple[int, ...]  # the model's own

    @property
    def note(self) -> str:
        """What differs from the model's own way, and what that may change; "" where nothing is."""
        if self.spec.patch == self.patch:
            return ""
        used, own = (" x ".join(map(str, patch)) for patch in (self.spec.patch, self.patch))
        return f"windows of {used} instead of {own}, to fit into memory: labels may differ, most of all near their borders"


def fit(
    image: Outline, spec: ModelSpec, where: str | Path, *, cleaning: Cleaning | None = None, uncertainty: bool = False,
    in_flight: int = 1, feature_maps: float = FEATURE_MAPS, streamed: bool = False, free: int | None = None,
) -> Fit:  # fmt: skip
    """The first that fits of: the model's windows, fewer of them at a time, smaller ones. `free` bytes, or what is free now.

    Raises UNetError with the numbers where none does.
    """
    free = ram.free_memory() if free is None else free
    for windows, count in _ways(spec, in_flight):
        told = estimate(image, windows, cleaning=cleaning, uncertainty=uncertainty, in_flight=count, feature_maps=feature_maps,
                        streamed=streamed)  # fmt: skip
        way = Fit(windows, count, told, spec.patch)
        if told.needed <= free:
            break
    ram.check_memory(way.estimate.needed, where, free)
    return way


def _ways(spec: ModelSpec, in_flight: int) -> Iterator[tuple[ModelSpec, int]]:
    """Ways to segment that take less and less memory."""
    while in_flight > 1:
        yield spec, in_flight
        in_flight //= 2
    yield spec, 1
    while (patch := _smaller(spec.patch, spec.stride)) != spec.patch:
        spec = replace(spec, patch=patch)
        yield spec, 1


def _smaller(patch: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    """Half as many voxels along the longest axis that has more than two strides; the same patch where none has."""
    long = [axis for axis in range(3) if patch[axis] > 2 * stride[axis]]
    if not long:
        return patch
    longest = max(long, key=lambda axis: patch[axis])
    half = max(2, -(-patch[longest] // (2 * stride[longest]))) * stride[longest]
    return tuple(half if axis == longest else n for axis, n in enumerate(patch))
