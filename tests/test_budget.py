"""A run keeps to its minutes, however wrong the first measurement was and however the machine's speed changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.budget import SAFETY, Budget
from napari_unet.schedule import Schedule, Stage, in_seconds

MINUTES = 600.0
PARTS = [Stage((24, 32, 24), 4, 0.35), Stage((32, 48, 32), 2, 0.55), Stage((40, 56, 40), 2, 0.1)]
TRUE = {(24, 32, 24): 0.2, (32, 48, 32): 0.25, (40, 56, 40): 0.4}


def run(measured: list[float], slowness: Callable[[float], float], case_seconds: float = 0.3) -> tuple[float, Schedule, Schedule]:
    """When a run ends on a clock that only its own work moves; its first schedule and the one it followed."""
    now = 0.0
    budget = Budget(MINUTES, [8, 8, 40], case_seconds, clock=lambda: now)
    first = schedule = in_seconds(PARTS, budget.left, measured)
    step, checks = 0, [1 / 3, 2 / 3]
    while step < schedule.steps:
        now += TRUE[schedule.at(step)[0].patch] * slowness(now)
        step += 1
        if checks and schedule.progress(step) >= checks[0]:
            checks.pop(0)
            now += 8 * 0.3
            budget.scored(8 * 0.3, len(checks) + 1)
        schedule = budget.correct(schedule, step)
    return now + 40 * 0.3, first, schedule


def test_a_true_measurement_is_left_alone() -> None:
    end, first, followed = run(list(TRUE.values()), lambda now: 1.0)
    assert followed.steps == pytest.approx(first.steps, rel=0.05)
    assert 0.9 * MINUTES < end <= MINUTES


@settings(max_examples=25)
@given(st.floats(0.1, 12.0), st.lists(st.floats(0.7, 1.4), min_size=3, max_size=3), st.floats(0.05, 5.0))
def test_a_wrong_measurement_is_mended(error: float, errors: list[float], case_seconds: float) -> None:
    measured = [cost * error * own for cost, own in zip(TRUE.values(), errors, strict=True)]
    end, _, _ = run(measured, lambda now: 1.0, case_seconds)
    assert 0.85 * MINUTES < end < 1.03 * MINUTES


@pytest.mark.parametrize("when", [60.0, 200.0, 400.0])
@pytest.mark.parametrize("speed", [0.5, 2.0, 4.0])
def test_a_machine_that_changes_its_speed(when: float, speed: float) -> None:
    end, _, _ = run(list(TRUE.values()), lambda now: speed if now > when else 1.0)
    assert 0.8 * MINUTES < end < 1.08 * MINUTES


def test_checks_that_a_long_step_has_passed_by_keep_no_time() -> None:
    budget = Budget(100.0, [8, 8, 8, 40], 1.0, clock=lambda: 0.0)
    budget.scored(8.0, left=2)
    assert budget.left == pytest.approx(SAFETY * (100 - 8 - 40))


def test_the_rate_does_not_jump_where_the_steps_are_fitted() -> None:
    schedule = in_seconds(PARTS, MINUTES, list(TRUE.values()))
    for step in (400, 1050, 1900):
        for factor in (0.3, 3.0):
            fitted = schedule.stretched(step, factor)
            assert fitted.progress(step) == pytest.approx(schedule.progress(step))
            assert fitted.rate(step, 1.0) == pytest.approx(schedule.rate(step, 1.0))
            assert all(fitted.at(n) == (fitted.at(n)[0], schedule.at(n)[1]) for n in range(0, step, 7))
            assert fitted.rate(fitted.steps - 1, 1.0) < 1e-3
