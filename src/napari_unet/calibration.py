"""What a network has to know of its own values to compute in 8-bit integers; it lies in the model's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from napari_unet.errors import UNetError
from napari_unet.schema import STRICT
from napari_unet.spec import MAX_MEMBERS
from napari_unet.words import counted

Range = tuple[float, float]
Ranges = tuple[tuple[Range, ...], ...]  # of each member, of each of its convolutions
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Calibration:
    """Of each member the lowest and highest input of each convolution, in the order in which they run; and what that is worth.

    dice, dice_float32 : the mean over `cases`, which the model may have been trained on: what counts is that they are alike.
    """

    __pydantic_config__ = STRICT

    ranges: Annotated[Ranges, Field(min_length=1, max_length=MAX_MEMBERS)]
    cases: Annotated[int, Field(ge=1)]
    dice: Share
    dice_float32: Share

    def __post_init__(self) -> None:
        for low, high in (pair for member in self.ranges for pair in member):
            if not low <= 0 <= high:
                raise UNetError("int8", f"a convolution's inputs range from {low:g} to {high:g}", "Calibrate the model anew")

    def __str__(self) -> str:
        return f"Dice {self.dice:.4f} instead of {self.dice_float32:.4f} on {counted(self.cases, 'case')}"
