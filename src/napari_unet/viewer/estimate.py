"""What a run will cost, before it runs: from the model, the layer's shape, and the time that one window takes here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from napari_unet.spec import ModelSpec
from napari_unet.viewer.options import Options
from napari_unet.volume import Affine, Reorientation, spacing_of
from napari_unet.windows import window_size, window_starts

LIBRARIES = 0.4e9  # bytes: torch and MONAI themselves


@dataclass(frozen=True)
class Estimate:
    """windows, and how many of them the first slice waits for; bytes at the peak, without the image itself."""

    windows: int
    first: int
    memory: float
    voxels: int  # of all windows, as the network computes them

    def words(self, seconds_per_voxel: float | None) -> str:
        """One line for the widget."""
        free = psutil.virtual_memory().available
        needs = f"{self.memory / 1e9:.1f} of {free / 1e9:.0f} GB"
        if self.memory > free:
            needs = f"⚠ more memory than there is: {needs}"
        if seconds_per_voxel is None:
            return f"{self.windows:,} {'window' if self.windows == 1 else 'windows'}, {needs}"
        seconds = self.voxels * seconds_per_voxel
        first = seconds * self.first / self.windows
        return f"Takes {duration(seconds)}, a slice {duration(first)}; {needs}"


def estimate(spec: ModelSpec, shape: Sequence[int], affine: Affine, options: Options) -> Estimate:
    """Of a volume (i, j, k) with this affine. Memory counts what grows with the volume and one window's features."""
    turn = Reorientation.between(affine, spec.orientation)
    own = np.array([spacing_of(affine)[axis] for axis in turn.axes])
    turned = np.array([shape[axis] for axis in turn.axes])
    ratio = own / np.where(np.array(spec.spacing) > 0, spec.spacing, own)
    size = [int(n) for n in np.round((turned - 1) * ratio) + 1]  # as MONAI's Spacing
    overlap = spec.overlap if options.overlap is None else options.overlap
    window = [window_size(n, p, s) for n, p, s in zip(size, spec.patch, spec.stride, strict=True)]
    counts = [len(window_starts(n, w, overlap)) for n, w in zip(size, window, strict=True)]
    mirrored = spec.mirror_tta if options.mirror is None else options.mirror
    copies = spec.members * (2 ** len(spec.mirror_axes) if mirrored else 1)
    logits = spec.network.classes * (1 + (spec.members if options.uncertainty and spec.members > 1 else 0))
    features = 6 * spec.network.features[0] + 2 * logits  # what the finest level holds at once
    open_slices = min(size[0], 2 * window[0]) * size[1] * size[2] * logits
    whole = len(spec.channels) * 3 * math.prod(size)  # prepared, and twice while it is resampled
    memory = LIBRARIES + 4 * (whole + open_slices + features * math.prod(window)) + 4 * math.prod(turned.tolist())
    windows = math.prod(counts)
    return Estimate(windows, windows // counts[0], float(memory), windows * math.prod(window) * copies)


def duration(seconds: float) -> str:
    """For people: "< 1 s", "12 s", "3 min", "1.5 h"."""
    if seconds < 1:
        return "< 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
