"""Keeps a run to its minutes: the steps that are still to come are fitted to the time that is left, at a few marks."""

from __future__ import annotations

import time
from collections.abc import Callable

from napari_unet.schedule import Schedule

MARKS = (0.01, 0.02, *(n / 25 for n in range(1, 25)))  # of the course
SAFETY = 0.98  # of the time that is left: machines slow down more often than they speed up
TOLERANCE = 0.03
LEAST, MOST = 0.2, 50.0  # a correction's factor


class Budget:
    """A deadline, and what it has to hold: the steps, and scoring on whole cases in between and at the end.

    Machines are shared, throttle and wake up; one measurement at the beginning is not to be trusted for an hour.

    Parameters
    ----------
    deadline : `time.monotonic()` when the weights have to be on disk.
    scorings : how many cases each scoring still to come takes, the last one at the end of the run.
    case_seconds : what scoring one case takes.
    clock : seconds, as `time.monotonic`.
    """

    def __init__(
        self, deadline: float, scorings: list[int], case_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self.deadline, self.scorings, self.case_seconds = deadline, list(scorings), case_seconds
        self.marks = list(MARKS)
        self.since, self.behind = clock(), 0.0

    @property
    def left(self) -> float:
        """Seconds for steps from now on."""
        return SAFETY * (self.deadline - self.clock() - sum(self.scorings) * self.case_seconds)

    def scored(self, seconds: float, left: int) -> None:
        """A scoring took so long, which was not learning; so many are left, since one long step may have passed several by."""
        self.case_seconds = seconds / max(1, self.scorings[0])
        self.scorings = self.scorings[-left:]
        self.since += seconds

    def correct(self, schedule: Schedule, step: int) -> Schedule:
        """The schedule, at a mark fitted to the speed since the last one; the same object where it fits already."""
        progress = schedule.progress(step)
        if not self.marks or progress < self.marks[0] or progress >= 1:
            return schedule
        while self.marks and self.marks[0] <= progress:
            self.marks.pop(0)
        now = self.clock()
        needed = (now - self.since) / (progress - self.behind) * (1 - progress)
        self.since, self.behind = now, progress
        factor = min(max(self.left / max(needed, 1e-9), LEAST), MOST)
        return schedule if abs(factor - 1) < TOLERANCE else schedule.stretched(step, factor)
