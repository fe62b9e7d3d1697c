"""What a person sees of a run while it goes on: a line that lives, and curves for TensorBoard where that is installed."""

from __future__ import annotations

import csv
import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from datasets import _one_thread, decathlon, planned  # noqa: F401 - a fixture
from runs import Plan, assert_equal_runs, run

from napari_unet.cli import train as command
from napari_unet.events import Events
from napari_unet.layout import EVENTS, LOG
from napari_unet.progress import Progress
from napari_unet.record import read_record
from napari_unet.train import train

STEPS = 24


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(decathlon(tmp_path_factory.mktemp("data"), 3), steps=STEPS, checks=1, fold=0)


def logged(out: Path, column: str) -> list[tuple[int, float]]:
    with open(out / LOG, newline="") as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file) if row[column]]


def curves(out: Path) -> dict[str, list[tuple[int, float]]]:
    """As TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(out / EVENTS)).Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_progress_is_that_of_the_log_but_smooth(plan: Plan, tmp_path: Path) -> None:
    seen = [p for p in run(plan, tmp_path) if p.phase == "training"]
    assert all(p.speed > 0 for p in seen)
    raw = dict(logged(tmp_path, "loss"))
    assert {1, 10, 20, STEPS} <= raw.keys()
    assert seen[0].loss == pytest.approx(raw[1], abs=1e-5)
    shown = [p.loss for p in seen]
    jumps = [abs(b - a) for a, b in pairwise(shown)]
    marks = list(raw.values())
    assert 0 < max(jumps) < max(abs(value - marks[0]) for value in marks)
    assert min(marks) - 1e-5 <= min(shown) <= max(shown) <= max(marks) + 1e-5  # the log is rounded


def test_the_time_left_knows_that_steps_on_larger_patches_are_slower(plan: Plan, tmp_path: Path) -> None:
    left = {p.step: p.seconds_left for p in run(plan, tmp_path) if p.phase == "training"}
    schedule = read_record(tmp_path).schedule
    assert len({stage.patch for stage in schedule.stages if stage.steps}) > 1
    for step, seconds in logged(tmp_path, "seconds"):
        behind = schedule.progress(step)
        assert left[step] is not None and left[step] >= (seconds - 0.05) * (1 - behind) / behind


def test_the_time_left_is_that_of_the_minutes_asked_for(plan: Plan, tmp_path: Path) -> None:
    cases, spec, config = plan
    started, config = time.time(), replace(config, steps=None, minutes=0.1)
    going = train(cases, spec, config, out=tmp_path, started=started)
    seen = [(time.time(), p.seconds_left) for p in going if p.phase == "training"]
    assert len(seen) > 1
    for now, left in seen:
        assert left == pytest.approx(max(0.0, started + 6 - now), abs=0.5)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("columns", [30, 60, 200])
def test_the_line_lives_on_one_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.openpty()
    monkeypatch.setenv("COLUMNS", str(columns))
    with open(writing, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        steps = [Progress("training", n, 12_000, 0.41234, 1.9e-3, 0.87, 2000.0, speed=n / 7) for n in (1, 11_000)]
        closing = (p for p in steps)
        assert not command._follow(closing)
    shown = b""
    with suppress(OSError):  # the end
        while part := os.read(reading, 4096):
            shown += part
    os.close(reading)
    lines = shown.decode().replace("\r\n", "").split("\r")
    assert lines[0] == "" and len(lines) == 3 and all(len(line) < columns for line in lines)
    whole = "step 11000 of 12000  33 min 20 s left  loss 0.412  Dice 0.870  rate 1.9e-03  1571.4 steps/s"
    assert whole.startswith(lines[2].rstrip()) and (columns < 200 or lines[2].rstrip() == whole)
    assert columns < 200 or "7.0 s/step" in lines[1]


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="it is installed")
def test_without_tensorboard_nothing_happens(plan: Plan, tmp_path: Path) -> None:
    run(plan, tmp_path)
    assert not (tmp_path / EVENTS).exists()


def test_tensorboard_shows_the_log(plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(plan, tmp_path)
    shown = curves(tmp_path)
    assert shown.keys() == {"loss", "rate", "dice"}
    for name, points in shown.items():
        expected = logged(tmp_path, name)
        assert [step for step, _ in points] == [step for step, _ in expected]
        assert [value for _, value in points] == pytest.approx([value for _, value in expected], rel=1e-3, abs=1e-5)


def test_tensorboard_and_resuming(plan: Plan, tmp_path: Path) -> None:
    """A resumed run is bit-identical, and its curves have every step once."""
    pytest.importorskip("tensorboard")
    run(plan, tmp_path / "unbroken")
    run(plan, tmp_path / "stopped", lambda p: (p.phase, p.step) == ("training", 15))
    events = Events(tmp_path / "stopped" / EVENTS, 15)  # a process that was killed later, its state not saved
    events.add(20, loss=math.pi)
    events.close()
    run(plan, tmp_path / "stopped", resume=True)
    assert_equal_runs(tmp_path / "unbroken", tmp_path / "stopped")
    steps = [step for step, value in curves(tmp_path / "stopped")["loss"] if value != pytest.approx(math.pi)]
    assert {1, 10, 20, STEPS} <= set(steps) and len(steps) == len(set(steps))
    assert len(steps) == len(curves(tmp_path / "stopped")["loss"])  # what was void is not shown
    run(plan, tmp_path / "stopped")
    assert curves(tmp_path / "stopped") == curves(tmp_path / "unbroken")  # a new run begins anew


def test_a_broken_tensorboard_is_no_error(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken/tensorboard").mkdir(parents=True)
    (tmp_path / "broken/tensorboard/__init__.py").write_text("raise ImportError('a part is missing')")
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard" or name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))
    made: Any = Events(tmp_path / EVENTS, 0)
    made.add(1, loss=1.0)
    made.close()
    assert made.writer is None and not (tmp_path / EVENTS).exists()
