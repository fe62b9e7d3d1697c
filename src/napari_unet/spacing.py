"""An image's spacing beside a model's: how much a model resamples, and where that is more than it can make sense of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_unet.spec import ModelSpec
from napari_unet.volume import Affine, Reorientation, spacing_of
from napari_unet.windows import Three

SAME_SPACING = 0.02  # relative; resampling for less blurs more than it corrects
FAR = 5.0  # times the model's spacing, or a fifth of it: what the model looks for is lost there, or was never seen so large
_ALONG = {"S": "inferior–superior", "A": "posterior–anterior", "R": "left–right",
          "i": "the file's first axis", "j": "the file's second axis", "k": "the file's third axis"}  # fmt: skip
_SAME_AXIS = str.maketrans("IPL", "SAR")


def spacing_ratios(affine: Affine, spec: ModelSpec) -> tuple[Reorientation, NDArray[np.float64]]:
    """The way from an image's axes to the model's (z, y, x), and its spacing over the model's along them: 1 where that is its own."""
    turn, spacing = Reorientation.between(affine, spec.orientation), spacing_of(affine)
    own = np.array([spacing[axis] for axis in turn.axes])
    return turn, own / np.where(np.array(spec.spacing) > 0, spec.spacing, own)


def network_grid(affine: Affine, shape: Sequence[int], spec: ModelSpec) -> tuple[Reorientation, NDArray[np.float64], Three]:
    """The way from an image of this shape to the network's (z, y, x), the network's voxels per voxel along them, and its grid's size.

    An axis whose spacing is the model's, or as good as that, keeps its voxels; all grids begin with the image's first voxel. Where a
    model resamples cubically, they begin and end with the image's edges (`resizing`).
    """
    turn, ratios = spacing_ratios(affine, spec)
    if spec.resampling == "cubic":
        own = np.array([shape[axis] for axis in turn.axes])
        whole = np.maximum(np.round(ratios * own), 1)
        return turn, whole / own, (int(whole[0]), int(whole[1]), int(whole[2]))
    ratios[np.abs(ratios - 1) < SAME_SPACING] = 1
    z, y, x = (round((shape[axis] - 1) * ratio + 1) for axis, ratio in zip(turn.axes, ratios.tolist(), strict=True))  # as MONAI's Spacing
    return turn, ratios, (z, y, x)


def spacing_warning(affine: Affine, spec: ModelSpec) -> str:
    """What a person should know where the spacings are `FAR` apart along an axis that the model resamples; "" elsewhere."""
    _, ratios = spacing_ratios(affine, spec)
    far = [
        f"{_ALONG[to.translate(_SAME_AXIS)]} {_short(ratio * wanted)} mm instead of {_short(wanted)} mm"
        for to, wanted, ratio in zip(spec.orientation, spec.spacing, ratios.tolist(), strict=True)
        if round(max(ratio, 1 / ratio), 3) >= FAR
    ]
    if not far:
        return ""
    return f"the spacing is far from the model's: {', '.join(far)}. Correct it if it is wrong, else choose another model"


def _short(millimetres: float) -> str:
    """Three digits of it."""
    return f"{float(f'{millimetres:.3g}'):g}"
