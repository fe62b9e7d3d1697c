"""How large each class of a mask is, and whether the image ends before it does: the rows of volumes.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_unet.measure import Tally
from napari_unet.schema import STRICT
from napari_unet.spec import Label
from napari_unet.volume import OPPOSITE, Volume

_DIRECTIONS = {"L": "left", "R": "right", "P": "posterior", "A": "anterior", "I": "inferior", "S": "superior"}
_PICTURE_SIDES = (("top", "bottom"), ("left", "right"))


@dataclass(frozen=True)
class Extent:
    """One class of one case.

    ml : None for pictures, whose pixels have no size.
    border : the sides of the image that the class touches, as in "inferior superior"; "" where it lies inside. A structure
        that the image cuts off is larger than its ml.
    """

    __pydantic_config__ = STRICT

    case: str
    label: int
    name: str
    voxels: int
    ml: float | None
    border: str


def extents_in(case: str, mask: Volume, labels: Sequence[Label], *, picture: bool = False) -> tuple[Extent, ...]:
    """The extent of each of a model's classes in a mask, also of those that it does not have.

    Along an axis of a single voxel there is no side to touch. See `measure.amounts` for masks that no model made.
    """
    return extents_of(case, Tally.of(mask.data), mask, labels, picture=picture)


def extents_of(case: str, tally: Tally, grid: Volume, labels: Sequence[Label], *, picture: bool = False) -> tuple[Extent, ...]:
    """The same of a mask on the grid of a volume, which was counted while it was made."""
    sides = _PICTURE_SIDES if picture else [(_DIRECTIONS[OPPOSITE[to]], _DIRECTIONS[to]) for to in grid.orientation]
    touching = {sides[axis][end]: values for (axis, end), values in tally.touched.items()}
    return tuple(
        Extent(case, label.value, label.name, tally.voxels(label.value), None if picture else tally.voxels(label.value) * grid.voxel_ml,
               " ".join(side for side, values in touching.items() if label.value in values))
        for label in labels
    )  # fmt: skip
