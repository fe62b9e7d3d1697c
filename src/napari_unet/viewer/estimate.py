"""What a run will cost, before it runs: from the model, the layer's shape, and the time that one window takes here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_unet import memory, ram
from napari_unet.components import Cleaning
from napari_unet.outline import Outline
from napari_unet.spacing import network_grid
from napari_unet.spec import ModelSpec
from napari_unet.viewer.options import Options
from napari_unet.volume import Volume
from napari_unet.windows import window_shape, window_starts
from napari_unet.words import counted, duration, size


@dataclass(frozen=True)
class Cost:
    """Of a whole run: windows, and how many of them the first slice waits for; their voxels, as the network computes
    them; bytes at the peak, beyond the image, which is there already.
    """

    windows: int
    first: int
    voxels: int
    memory: int

    def words(self, seconds_per_voxel: float | None) -> str:
        """One line for the widget."""
        free = ram.free_memory()
        amount = f"{size(self.memory)} of {size(free)}"
        needs = f"⚠ more memory than there is: {amount}" if self.memory > free else f"needs {amount} memory"
        if seconds_per_voxel is None:
            return f"{counted(self.windows, 'window')}, {needs}"
        seconds = self.voxels * seconds_per_voxel
        first = seconds * self.first / self.windows
        return f"Takes {duration(seconds)}, a slice {duration(first)}; {needs}"


def cost(
    spec: ModelSpec, volume: Volume, options: Options, in_flight: int = 1, volumes: int = 1, feature_maps: float = memory.FEATURE_MAPS
) -> Cost:
    """What segmenting so many volumes like this one costs, one after another; in_flight, feature_maps : see `memory.estimate`."""
    _, _, grid = network_grid(volume.affine, volume.shape, spec)
    overlap = spec.overlap if options.overlap is None else options.overlap
    window = window_shape(grid, spec.patch, spec.stride, spec.whole)
    counts = [len(window_starts(n, w, overlap)) for n, w in zip(grid, window, strict=True)]
    mirrored = spec.mirror_tta if options.mirror is None else options.mirror
    copies = spec.members * (2 ** len(spec.mirror_axes) if mirrored else 1)
    windows = math.prod(counts)
    image = Outline(volume.shape, volume.channels, volume.data.dtype, volume.affine)
    told = memory.estimate(image, spec, cleaning=None if options.largest else Cleaning(), uncertainty=options.uncertainty,
                           in_flight=in_flight, feature_maps=feature_maps)  # fmt: skip
    kept = (2 * spec.label_dtype.itemsize + 1) * math.prod(volume.shape)  # of each further volume: see `Answer`
    return Cost(windows * volumes, windows // counts[0], windows * volumes * math.prod(window) * copies,
                told.needed - image.nbytes + (volumes - 1) * kept)  # fmt: skip
