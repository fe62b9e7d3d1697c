"""Masks of which only a part is labelled: which voxels nobody labelled, so that they have no influence at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import UNetError
from napari_unet.settings import LabelRule, Plane
from napari_unet.volume import Reorientation, Volume

UNLABELLED = -1  # in a mask that was read: a voxel that nobody labelled. No file may hold it
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")  # slices across the axes up, front, right ("SAR")


def mark(mask: Volume, rule: LabelRule) -> Volume:
    """A mask with UNLABELLED wherever nobody labelled, as the rule has it; the very mask where all of it is labelled.

    Raises UNetError where slices are to tell what is labelled, and the mask is a single one.
    """
    unlabelled = np.zeros(mask.shape, bool) if rule.ignore is None else mask.data == rule.ignore
    if rule.labelled_slices is not None:
        if min(mask.shape) == 1:
            raise UNetError(mask.source, "a single slice: whether its background is labelled cannot be told from slices",
                            "Leave out --labelled-slices; give what is unlabelled a value of its own (--ignore)")  # fmt: skip
        unlabelled |= _outside_slices((mask.data > 0) & ~unlabelled, mask.affine, rule.labelled_slices)
    if not unlabelled.any():
        return mask
    signed = np.int16 if mask.data.max() < 2**15 else np.int32
    return replace(mask, data=np.where(unlabelled, signed(UNLABELLED), mask.data.astype(signed)))


def _outside_slices(inside: NDArray[np.bool_], affine: NDArray[np.float64], plane: Plane) -> NDArray[np.bool_]:
    """Which voxels lie in slices of this plane that hold no label."""
    turn, profiles = Reorientation.between(affine, "SAR"), _profiles(inside, affine)
    across = _fewest([_shares(profiles)]) if plane == "auto" else PLANES.index(plane)
    shape = [-1 if axis == across else 1 for axis in range(3)]
    return np.broadcast_to(turn.undo(~profiles[across].reshape(shape)), inside.shape)


def _profiles(inside: NDArray[np.bool_], affine: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Which slices across each axis of "SAR" hold a label."""
    turned = Reorientation.between(affine, "SAR").apply(inside)
    return [np.asarray(turned.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]


def _shares(profiles: list[NDArray[np.bool_]]) -> tuple[float, float, float]:
    up, front, right = (float(profile.mean()) for profile in profiles)
    return up, front, right


def slices_labelled(mask: Volume) -> tuple[float, float, float]:
    """The share of slices across the axes up, front, right that hold a label."""
    return _shares(_profiles(mask.data > 0, mask.affine))


def _fewest(shares: Sequence[tuple[float, float, float]]) -> int:
    return int(np.mean(shares, axis=0).argmin())


def settle(rule: LabelRule, shares: Sequence[tuple[float, float, float]]) -> LabelRule:
    """The rule with a plane in place of "auto": the one in which, over all cases, the smallest share of slices has a label.

    A single mask can mislead: a small structure may fill fewer columns than somebody painted slices.
    """
    return replace(rule, labelled_slices=PLANES[_fewest(shares)]) if rule.labelled_slices == "auto" else rule


def words(rule: LabelRule, shapes: Sequence[tuple[int, ...]], shares: Sequence[tuple[float, float, float]]) -> list[str]:
    """What the rule means, one sentence each, for cases of these shapes (up, front, right)."""
    said = [] if rule.ignore is None else [f"Voxels of the value {rule.ignore} are unlabelled: no influence on weights or scores."]
    if rule.labelled_slices == "auto":
        said.append("Only slices that hold a label count as labelled, across each mask's own axis.")
    elif rule.labelled_slices:
        axis = PLANES.index(rule.labelled_slices)
        count = sum(round(shape[axis] * share[axis]) for shape, share in zip(shapes, shares, strict=True))
        said.append(f"Only {rule.labelled_slices} slices that hold a label count as labelled, "
                    f"{count} of {sum(shape[axis] for shape in shapes)}; the others have no influence on weights or scores.")  # fmt: skip
    return said


def labelled(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a mask that was read is labelled."""
    return np.asarray(mask != UNLABELLED)
