"""How far a run is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """How far a run is; until it is "ready" an earlier one in its folder is untouched. `loss` is smoothed over the last
    marks, `dice` the newest validation's, `speed` in steps per second, `seconds_left` an estimate, `message` a sentence to show.

    fold : which of several models it is about, as in "fold 1 of 5"; "" where there is one.
    """

    phase: Literal["preparing", "ready", "training", "validating", "done"]
    step: int
    steps: int
    loss: float | None = None
    rate: float | None = None
    dice: float | None = None
    seconds_left: float | None = None
    message: str = ""
    fold: str = ""
    speed: float | None = None
