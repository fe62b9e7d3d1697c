"""On which grid a data set is learnt: the order of its axes, the spacing, and the size of its images there."""

from __future__ import annotations

import numpy as np

from napari_unet.checks import CaseFacts

ANISOTROPY = 3.0  # a slice axis this many times coarser is planned for on its own
SEEN = 0.125  # of an image: the share that a patch should hold
THICK = 0.75  # of the thinnest class's thickness: how coarse voxels may become for that
STEP = 1.01  # by which spacings are tried
WORTHWHILE = 1.2  # resampling for less blurs more than it shows


def axes(facts: list[CaseFacts], pictures: bool) -> tuple[list[int], list[str]]:
    """The order of the axes ("SAR") in which the coarsest comes first: slices are cut where the scanner cut them."""
    median = np.median([f.spacing for f in facts], axis=0)
    coarsest = int(median.argmax()) if median.max() > 1.5 * np.delete(median, median.argmax()).max() else 0
    order = [coarsest, *(a for a in range(3) if a != coarsest)]
    name = ("axial", "coronal", "sagittal")[coarsest]
    return ([0, 2, 1], []) if pictures else (order, [f"Slices are {name}."])


def spacing(facts: list[CaseFacts], order: list[int]) -> np.ndarray:
    """The median; on a slice axis much coarser than the others, the tenth percentile keeps what detail there is."""
    spacings = np.array([f.spacing for f in facts], float)[:, order]
    median = np.median(spacings, axis=0)
    if median[0] > ANISOTROPY * median[1:].min():
        median[0] = max(np.percentile(spacings[:, 0], 10), median[1:].max())
    return np.asarray(median)


def size(facts: list[CaseFacts], order: list[int], spacing: np.ndarray) -> np.ndarray:
    """The median image on the model's grid, in voxels; 0 mm keeps an axis as it is."""
    shapes, spacings = (np.array([getattr(f, name) for f in facts], float)[:, order] for name in ("shape", "spacing"))
    kept = spacing <= 0
    return np.asarray(np.median(shapes * np.where(kept, 1, spacings / np.where(kept, 1, spacing)), axis=0))


def coarser(
    size: np.ndarray, spacing: np.ndarray, held: float, facts: list[CaseFacts], names: dict[int, str]
) -> tuple[np.ndarray, list[str]]:
    """The spacing at which a patch of so many voxels (`held`) holds SEEN of an image, or as much as the thinnest class allows; and why.

    size : of the median image at `spacing`, which stays where nothing is known of how thick classes are.

    Where a patch sees too little, classes that differ by their place cannot be told apart. The finest axes grow until all are
    alike, as for nnU-Net's low resolution (Isensee et al. 2021).
    """
    medians = {value: float(np.median([f.thickness[value] for f in facts if value in f.thickness]))
               for value in sorted({value for f in facts for value in f.thickness})}  # fmt: skip
    thin = {value: millimetres for value, millimetres in medians.items() if np.isfinite(millimetres)}
    if not thin:
        return spacing, []
    thinnest = min(thin, key=lambda value: thin[value])

    def share(finest: float) -> float:
        return held / float(np.prod(size * spacing / np.maximum(spacing, finest)))

    finest = own = float(spacing.min())
    while share(finest) < SEEN and finest * STEP <= THICK * thin[thinnest]:
        finest *= STEP
    if finest < WORTHWHILE * own:
        return spacing, []
    return np.maximum(spacing, finest), [
        f"Coarser than the images, so that a patch holds {share(finest):.1%} of one and not {share(own):.1%}; "
        f"the thinnest class ({names.get(thinnest, f'class {thinnest}')}) is {thin[thinnest]:.2g} mm thick."
    ]
