"""A run's course: as long as asked for, from small patches to the plan's, and a rate that ends at zero."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from engine import model_spec, network_spec
from hypothesis import given
from hypothesis import strategies as st

from napari_unet import schema
from napari_unet.schedule import HASTE, LONG, OFTEN, SHORT, VARIETY, Schedule, Stage, in_seconds, in_steps, stages
from napari_unet.settings import MOST_AUGMENT, TrainConfig
from napari_unet.spec import ModelSpec


def spec_of(dims: int, levels: int, patch: tuple[int, ...]) -> ModelSpec:
    return model_spec(network_spec(dims, levels), patch=patch)


SPECS = [
    spec_of(3, 4, (40, 56, 40)), spec_of(3, 4, (16, 16, 16)), spec_of(3, 3, (8, 64, 128)), spec_of(2, 5, (1, 256, 256)),
    spec_of(2, 2, (1, 4, 2)), spec_of(3, 2, (2, 4, 6)),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("grow", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_patches_grow_to_the_plans_in_steps_the_network_can_take(spec: ModelSpec, grow: bool, batch: int) -> None:
    found = stages(spec, TrainConfig(grow=grow, batch=batch))
    assert found[-1].patch == spec.patch and sum(stage.share for stage in found) == pytest.approx(1)
    assert grow or found == [Stage(spec.patch, batch, 1.0)]
    for stage in found:
        assert all(n % s == 0 and s <= n for n, s in zip(stage.patch, spec.stride, strict=True))
        assert stage.patch != spec.stride and stage.batch >= 1
    for smaller, larger in pairwise(found):
        assert smaller.patch != larger.patch and all(a <= b for a, b in zip(smaller.patch, larger.patch, strict=True))


@given(steps=st.integers(1, 100_000))
def test_a_short_run_hastens(steps: int) -> None:
    """None is slower than a long run, none more than HASTE times as fast, and between them all go equally far."""
    factor, longer = (Schedule((Stage((8, 8, 8), 2, 1.0, n),)).haste for n in (steps, steps + 1))
    assert 1 <= factor <= HASTE and longer <= factor
    if 1 < factor < HASTE:
        assert factor * steps == pytest.approx(SHORT)


@given(steps=st.integers(1, 100_000))
def test_a_long_run_changes_its_cases_more(steps: int) -> None:
    """As its steps, from LONG on and up to VARIETY times as much."""
    factor, longer = (Schedule((Stage((8, 8, 8), 2, 1.0, n),)).variety for n in (steps, steps + 1))
    assert 1 <= factor <= longer <= VARIETY and (factor > 1) == (steps > LONG)
    if 1 < factor < VARIETY:
        assert factor * LONG == pytest.approx(steps)


@given(steps=st.integers(1, LONG // 2), voxels=st.integers(1, 10**6))
def test_cases_that_are_seen_often_are_changed_more(steps: int, voxels: int) -> None:
    """As the times that all their voxels are drawn, from OFTEN on and up to VARIETY times as much; as usual where nobody counts."""
    course = Schedule((Stage((8, 8, 8), 2, 0.5, steps), Stage((8, 8, 16), 1, 0.5, steps)), voxels)
    seen = steps * 2048 / voxels
    assert course.variety == pytest.approx(min(VARIETY, max(1.0, seen / OFTEN)))
    assert replace(course, voxels=0).variety == 1.0
    assert course.stretched(steps // 2, 1.0).variety == pytest.approx(course.variety)


@pytest.mark.parametrize(
    ("steps", "configured", "strength"),
    [(10, 0.7, 0.7), (2 * LONG, 0.5, 1.0), (100 * LONG, 0.5, 0.5 * VARIETY), (100 * LONG, 2.0, MOST_AUGMENT), (100 * LONG, 0.0, 0.0)],
)
def test_augmentation_is_at_most_the_strongest_that_can_be_configured(steps: int, configured: float, strength: float) -> None:
    assert Schedule((Stage((8, 8, 8), 2, 1.0, steps),)).strength(configured) == strength


@given(
    spec=st.sampled_from(SPECS),
    steps=st.integers(1, 5000),
    rate=st.floats(1e-5, 1),
    grow=st.booleans(),
    batch=st.integers(1, 9),
)
def test_a_schedule_of_steps(spec: ModelSpec, steps: int, rate: float, grow: bool, batch: int) -> None:
    schedule = in_steps(stages(spec, TrainConfig(grow=grow, batch=batch)), steps)
    assert schedule.steps == steps and all(stage.steps >= 0 for stage in schedule.stages)
    samples = 0
    for step in range(min(steps, 200)):
        stage, first = schedule.at(step)
        assert first == samples  # every sample has its own number, so that cases take turns
        samples += stage.batch
    assert schedule.at(steps - 1)[0] == [stage for stage in schedule.stages if stage.steps][-1]
    with pytest.raises(IndexError):
        schedule.at(steps)
    rates = [schedule.rate(step, rate) for step in range(steps)]
    peak = rates.index(max(rates))
    assert min(rates) > 0 and max(rates) == pytest.approx(rate)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))
    assert schedule.rate(steps, rate) == pytest.approx(0, abs=1e-9) or steps == 1
    if steps >= 100:
        assert rates[0] <= rate / 4 and rates[-1] < rate / 100 and peak <= 0.2 * steps
    assert schema.decode(Schedule, schema.encode(schedule), "run.json") == schedule


@given(
    spec=st.sampled_from(SPECS),
    seconds=st.floats(-10, 1e5),
    costs=st.lists(st.floats(1e-3, 100), min_size=3, max_size=3),
)
def test_a_schedule_of_seconds_fills_them_and_no_more(spec: ModelSpec, seconds: float, costs: list[float]) -> None:
    parts = stages(spec, TrainConfig())
    schedule = in_seconds(parts, seconds, costs[: len(parts)])
    assert schedule.steps >= 1
    spent = sum(stage.steps * cost for stage, cost in zip(schedule.stages, costs, strict=False))
    assert spent <= max(seconds, 0) * 1.001 + costs[0]
    assert spent >= seconds - sum(costs[: len(parts)])


def test_each_stage_gets_its_share_of_the_work() -> None:
    parts = stages(SPECS[0], TrainConfig())
    schedule = in_steps(parts, 1000)
    work = [stage.steps * stage.batch * math.prod(stage.patch) for stage in schedule.stages]
    for stage, voxels in zip(schedule.stages, work, strict=True):
        assert voxels / sum(work) == pytest.approx(stage.share, abs=0.02)


@pytest.mark.parametrize(
    ("steps", "runs", "cases", "dropout"),
    [(599, 1, 5, 0.0), (600, 1, 5, 0.2), (600, 2, 5, 0.0), (1200, 2, 5, 0.2), (600, 1, 20, 0.2), (600, 1, 21, 0.0), (600, 1, 0, 0.0)],
)
def test_features_are_left_out_in_long_runs_of_few_cases(steps: int, runs: int, cases: int, dropout: float) -> None:
    """Of so many cases, each as large as a patch, of which a step draws two; 0: nobody says how many there are."""
    schedule = replace(in_steps([Stage((8, 8, 8), 2, 1.0)], steps, cases * 8**3), runs=runs)
    assert schedule.dropout(0.2) == dropout
