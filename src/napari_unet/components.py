"""Connected components of masks: the largest, those too small to be real, and whether leaving out the others pays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.schema import STRICT
from napari_unet.spec import ModelSpec

NOISE = 0.002  # of a fold's mean Dice: what another seed changes
LEAST_GAIN = 0.0005  # of the mean Dice: less is not worth a rule, and would be told as no gain at all
ROUNDING = 1e-6  # relative: ten voxels of 0.1 mm3 are one mm3


@dataclass(frozen=True)
class Cleaning:
    """Which connected components (neighbours share a face) stay in a whole mask.

    keep_largest : values of classes of which only the largest one stays.
    smallest : (value, mm3) of classes of which only those of at least this volume stay.
    """

    __pydantic_config__ = STRICT

    keep_largest: tuple[int, ...] = ()
    smallest: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, spec: ModelSpec) -> Cleaning:
        """What a model asks for."""
        return cls(spec.keep_largest)

    def __str__(self) -> str:
        largest = "--keep-largest " + (",".join(map(str, self.keep_largest)) or "none")
        return largest + (" --smallest " + ",".join(f"{value}={mm3:g}" for value, mm3 in self.smallest)) * bool(self.smallest)

    def apply(self, labels: NDArray[Any], voxel_mm3: float = 1.0) -> NDArray[Any]:
        """Labels of any shape, 0 where a component was that does not stay; the very same array where all do."""
        smallest = dict(self.smallest)
        for value in sorted({*self.keep_largest, *smallest}):
            least = smallest.get(value, 0.0) / voxel_mm3 * (1 - ROUNDING)
            labels = _without_parts(labels, value, least, value in self.keep_largest)
        return labels


def keep_largest(labels: NDArray[Any], values: Iterable[int]) -> NDArray[Any]:
    """Labels of any shape, of each of `values` only its largest connected component (neighbours share a face)."""
    return Cleaning(tuple(values)).apply(labels)


def _without_parts(labels: NDArray[Any], value: int, least: float, only_largest: bool) -> NDArray[Any]:
    """Labels without those components of a class that have fewer than `least` voxels, or are not the largest."""
    from scipy import ndimage

    found = labels == value
    boxes = ndimage.find_objects(found.view(np.uint8))  # the numbers of components are four times as large as a mask
    if not boxes:
        return labels
    parts, count = ndimage.label(found[boxes[0]])
    sizes = np.zeros(count + 1, np.int64)
    for plane in parts:  # counting turns numbers into 8 bytes each
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    stays = sizes >= least
    if only_largest:
        stays &= np.arange(count + 1) == sizes[1:].argmax() + 1
    stays[0] = True  # what is not of the class
    if stays.all():
        return labels
    labels = labels.copy()
    labels[boxes[0]][~stays[parts]] = 0
    return labels


def pays(before: Mapping[str, float], after: Mapping[str, float], folds: Sequence[Sequence[str]]) -> bool:
    """Whether a class gains: its Dice per case without and with the rule, over cases that no model had seen.

    nnU-Net's question (Isensee et al. 2021), asked of each fold, too: the mean over all cases rises by `LEAST_GAIN`,
    and that of no fold falls by more than `NOISE`. A class that really has several parts loses where they are there, and is left alone.
    """
    gains = [[after[case] - before[case] for case in fold if case in before and case in after] for fold in folds]
    known = [gain for fold in gains for gain in fold]
    return bool(known) and fmean(known) >= LEAST_GAIN and all(fmean(fold) >= -NOISE for fold in gains if fold)
