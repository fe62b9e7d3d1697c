"""Two models on one case, beside each other: image, truth, both masks, and where each of them is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from napari_unet.spec import ModelSpec, rgb
from napari_unet.volume import Reorientation, Volume

WRONG = ("#d62728", "#1f77b4", "#f0b429")  # only the second is, only the first is, both are
PANELS = 5
SHOWN = 256  # pixels of a large picture, from its middle: all of it would be too small to see a membrane in


def draw_comparison(axes: Sequence[Axes], image: Volume, truth: Volume, masks: dict[str, Volume], spec: ModelSpec) -> None:
    """Fill five axes with the slice that has most of the truth, front up and the patient's right on the left.

    masks : the two of them, by what is written over them.
    """
    turn = Reorientation.between(image.affine, "SRA" if spec.pictures else "IPL")
    stacks = [turn.apply(volume.data) for volume in (image, truth, *masks.values())]
    k = int(np.argmax((stacks[1] > 0).sum((1, 2))))
    grey, right, first, second = (_middle(stack[..., 0] if stack.ndim == 4 else stack, k) for stack in stacks)
    spacing = [image.spacing[axis] for axis in turn.axes]
    low, high = np.percentile(grey, (1, 99.5))
    for axis, title in zip(axes, ("image", "truth", *masks, "where they are wrong"), strict=True):
        axis.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=spacing[1] / spacing[2])
        axis.set_title(title, fontsize=9, parse_math=False)
        axis.set_axis_off()
    for axis, mask in zip(axes[1:4], (right, first, second), strict=True):
        for label in spec.labels:
            _shade(axis, mask == label.value, label.colour, 0.45)
    wrong = first != right, second != right
    for colour, where in zip(WRONG, (wrong[1] & ~wrong[0], wrong[0] & ~wrong[1], wrong[0] & wrong[1]), strict=True):
        _shade(axes[4], where, colour, 0.85)


def _middle(stack: NDArray[Any], k: int) -> NDArray[Any]:
    rows, columns = (slice(max(0, n // 2 - SHOWN // 2), n // 2 + SHOWN // 2) for n in stack.shape[1:])
    return stack[k, rows, columns]


def _shade(axis: Axes, where: NDArray[np.bool_], colour: str, alpha: float) -> None:
    axis.imshow(where[..., None] * np.array([*np.array(rgb(colour)) / 255, alpha]), interpolation="nearest", aspect=axis.get_aspect())
