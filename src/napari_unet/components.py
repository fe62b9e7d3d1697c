"""Connected components of masks: keeping the largest, and whether that pays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOISE = 0.002  # of a fold's mean Dice: what another seed changes


def keep_largest(labels: NDArray[Any], values: Iterable[int]) -> NDArray[Any]:
    """Labels of any shape, of each of `values` only its largest connected component (neighbours share a face)."""
    from scipy import ndimage

    for value in values:
        parts, count = ndimage.label(labels == value)
        if count > 1:
            largest = np.bincount(parts.ravel())[1:].argmax() + 1
            labels = np.where((parts > 0) & (parts != largest), 0, labels).astype(labels.dtype)
    return labels


def pays(before: Mapping[str, float], after: Mapping[str, float], folds: Sequence[Sequence[str]]) -> bool:
    """Whether a class gains: its Dice per case without and with the rule, over cases that no model had seen.

    nnU-Net's question (Isensee et al. 2021), asked of each fold, too: the mean over all cases rises, and that of no fold
    falls by more than `NOISE`. A class that really has several parts loses where they are there, and is left alone.
    """
    gains = [[after[case] - before[case] for case in fold if case in before and case in after] for fold in folds]
    known = [gain for fold in gains for gain in fold]
    return bool(known) and fmean(known) > 0 and all(fmean(fold) >= -NOISE for fold in gains if fold)
