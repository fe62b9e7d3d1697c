"""Pictures of touching cells: what Dice does not see, a gap in a wall, and a wall too many.

As the ISBI 2012 challenge measured it (Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142), but for the picture's frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

REACH = 4  # pixels: what a thinned wall gives back to the cells beside it, at most
FRAME = 16  # pixels: how far a picture is continued


class VRand(NamedTuple):
    """The Rand F-score and its parts: `split` is lowered by walls too many, `merge` by gaps in walls; 1 is best."""

    score: float
    split: float
    merge: float


def pixel_error(mask: NDArray[Any], label: NDArray[Any]) -> float:
    """The share of pixels that are cell (above 0) in one of them and wall in the other."""
    return float(np.mean((mask > 0) != (label > 0)))


def number_cells(mask: NDArray[Any]) -> NDArray[np.int32]:
    """Each cell's number, where walls of a mask (y, x) (0) are thinned to a pixel's width; 0 on these.

    The picture is first continued beyond its frame. Thinning takes a wall's free ends away, so that walls that end at the
    frame would no longer reach it, and all cells along the frame would be one.
    """
    from scipy.ndimage import label
    from skimage.morphology import skeletonize

    walls = skeletonize(np.pad(mask <= 0, FRAME, mode="edge"))
    inside = (slice(FRAME, -FRAME),) * 2
    return np.asarray(label(~walls[inside])[0], np.int32)


def v_rand(mask: NDArray[Any], label: NDArray[Any]) -> VRand:
    """How well the cells of a mask (y, x) are those of the label, over the label's cells, large ones counting most.

    Counted over pairs of pixels: of those in one cell of the label, how many are in one cell of the mask
    (`split`), and the other way round (`merge`). Walls of the mask are given to the cells beside them.
    """
    from skimage.segmentation import expand_labels

    counted = label > 0
    truth = number_cells(label)[counted]
    found = expand_labels(number_cells(mask), REACH)[counted]
    both = np.unique(np.stack([found, truth]), axis=1, return_counts=True)[1]
    joint, of_found, of_truth = (_pairs(n) for n in (both, np.bincount(found), np.bincount(truth)))
    if not joint:
        return VRand(0.0, 0.0, 0.0)
    return VRand(2 * joint / (of_found + of_truth), joint / of_truth, joint / of_found)


def _pairs(counts: NDArray[np.intp]) -> float:
    return float(np.square(counts.astype(np.float64)).sum())
