"""A run's course: which patch at which step, and how fast it learns; it ends with a rate of zero."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from napari_unet.schema import STRICT
from napari_unet.settings import MOST_AUGMENT, TrainConfig
from napari_unet.spec import ModelSpec

WARM_UP = 0.05  # of the course
SHORT, HASTE = 600, 5.0  # steps: in a run of fewer, weights go faster by as much, to get as far; and at most so many times
LONG, OFTEN = 2000, 60  # steps, and times that a run sees each case: in a run of more, cases are changed more
VARIETY = 3.0  # at most so many times
GROWTH = ((0.6, 2.0, 0.35), (0.8, 1.0, 0.55), (1.0, 1.0, 0.10))  # patch, batch (both relative), share of the time


@dataclass(frozen=True)
class Stage:
    """So many steps with patches of one size."""

    __pydantic_config__ = STRICT

    patch: tuple[int, ...]
    batch: int
    share: float  # of the budget in time
    steps: int = 0


@dataclass(frozen=True)
class Schedule:
    """The stages of a run, written down with it, so that it can be resumed and repeated.

    The rate follows the share of the course that is behind, in time rather than in steps: so the steps that are still to
    come can be fitted to a clock without a jump.
    """

    __pydantic_config__ = STRICT

    stages: tuple[Stage, ...]
    voxels: int = 0  # of all cases that train, on the model's grid; 0 where nobody says
    runs: int = 1  # that these stages are of: folds, one after the other

    @property
    def steps(self) -> int:
        """All steps."""
        return sum(stage.steps for stage in self.stages)

    @property
    def haste(self) -> float:
        """How many times faster than usual the weights go, because there are few steps."""
        return min(HASTE, max(1.0, SHORT * self.runs / max(1, self.steps)))

    @property
    def variety(self) -> float:
        """How many times more than usual the cases are changed, because there are many steps, or few cases for them."""
        return min(VARIETY, max(1.0, self.steps / self.runs / LONG, self.seen / OFTEN))

    @property
    def seen(self) -> float:
        """How many times each case is seen."""
        drawn = sum(math.prod(stage.patch) * stage.batch * stage.steps for stage in self.stages)
        return drawn / self.voxels if self.voxels else 0.0

    def strength(self, configured: float) -> float:
        """That of augmentation: in a long run more than configured, up to the strongest that can be configured."""
        return min(MOST_AUGMENT, configured * self.variety)

    def dropout(self, configured: float) -> float:
        """The share of features that a step leaves out: none in a short run, nor where there are many cases."""
        return configured if self.steps >= SHORT * self.runs and self.seen >= OFTEN else 0.0

    def at(self, step: int) -> tuple[Stage, int]:
        """The stage of a step, and the number of samples drawn before it."""
        samples = 0
        for stage in self.stages:
            if step < stage.steps:
                return stage, samples + step * stage.batch
            step, samples = step - stage.steps, samples + stage.steps * stage.batch
        raise IndexError(step)

    def progress(self, step: int) -> float:
        """The share of the course, 0 to 1, that lies behind after so many steps."""
        total = sum(stage.share for stage in self.stages if stage.steps)
        behind = 0.0
        for stage in self.stages:
            part = min(step, stage.steps)
            behind += stage.share * part / stage.steps if stage.steps else 0.0
            step -= part
        return behind / total if step == 0 and behind < total else 1.0

    def rate(self, step: int, highest: float) -> float:
        """The learning rate: a short linear warm-up, then half a cosine that reaches zero after the last step."""
        before, after = self.progress(step), self.progress(step + 1)
        if before < WARM_UP:
            return highest * min(1.0, after / WARM_UP)
        return highest * 0.5 * (1 + math.cos(math.pi * (before - WARM_UP) / (1 - WARM_UP)))

    def stretched(self, step: int, factor: float) -> Schedule:
        """The same course, with `factor` times the steps that are still to come after `step`; those behind stay."""
        parts: list[Stage] = []
        for stage in self.stages:
            behind = min(step, stage.steps)
            step -= behind
            left = stage.steps - behind
            if behind:
                parts.append(replace(stage, steps=behind, share=stage.share * behind / stage.steps))
            if left:
                parts.append(replace(stage, steps=max(1, round(left * factor)), share=stage.share * left / stage.steps))
        return replace(self, stages=tuple(parts))


def stages(spec: ModelSpec, config: TrainConfig) -> list[Stage]:
    """Small patches first, the full size last: equal Dice in half the time (arXiv 2407.07853, 2510.23241)."""
    found: list[Stage] = []
    for relative, batch, share in GROWTH if config.grow else ((1.0, 1.0, 1.0),):
        patch = tuple(
            n if n == 1 else max(round(n * relative / s) * s, min(n, 2 * s))
            for n, s in zip(spec.patch, spec.stride, strict=True)
        )
        if found and found[-1].patch == patch:
            found[-1] = Stage(patch, found[-1].batch, found[-1].share + share)
        else:
            found.append(Stage(patch, max(1, round(config.batch * batch)), share))
    return found


def in_steps(parts: list[Stage], steps: int, voxels: int = 0) -> Schedule:
    """A schedule of exactly so many steps, shared out as if each stage's step cost its voxels; for cases of so many in all."""
    weights = [stage.share / (math.prod(stage.patch) * stage.batch) for stage in parts]
    ends = [round(steps * sum(weights[: n + 1]) / sum(weights)) for n in range(len(parts))]
    counts = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    return Schedule(tuple(Stage(s.patch, s.batch, s.share, n) for s, n in zip(parts, counts, strict=True)), voxels)


def in_seconds(parts: list[Stage], seconds: float, seconds_per_step: list[float], voxels: int = 0) -> Schedule:
    """The schedule that fills so many seconds at these measured speeds, with at least one step; for cases of so many voxels."""
    counts = [int(max(0.0, seconds) * stage.share / cost) for stage, cost in zip(parts, seconds_per_step, strict=True)]
    counts[0] = max(1, counts[0])
    return Schedule(tuple(Stage(s.patch, s.batch, s.share, n) for s, n in zip(parts, counts, strict=True)), voxels)
