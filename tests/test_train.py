"""Training: what it leaves behind, what it never looks at, and that an interrupted run ends as an unbroken one."""

from __future__ import annotations

import csv
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from datasets import ONE_THREAD, _one_thread, planned, scan, two_folders  # noqa: F401 - a fixture
from runs import Plan, Signal, assert_equal_runs, run, struck
from torch.optim.optimizer import register_optimizer_step_post_hook

from napari_unet import UNetError, learning, weights
from napari_unet.evaluate import read_scores
from napari_unet.images import read, write
from napari_unet.layout import EVENTS, LOG, MASKS, MODEL, RECORD, RESUME, SCORES
from napari_unet.record import clear, read_record
from napari_unet.sampling import Sampler
from napari_unet.schedule import HASTE, Stage
from napari_unet.train import train

STEPS = 9


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return planned(folder, steps=STEPS, checks=2, fold=0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(two_folders(tmp_path_factory.mktemp("pictures"), 3, ".png"), steps=STEPS, checks=2, fold=0)


@pytest.fixture(scope="module")
def unbroken(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    run(plan, out)
    return out


def test_a_run_says_what_it_does(plan: Plan, tmp_path: Path) -> None:
    seen = run(plan, tmp_path)
    assert list(dict.fromkeys(p.phase for p in seen)) == ["preparing", "ready", "training", "validating", "done"]
    assert [p.step for p in seen if p.phase == "training"] == list(range(1, STEPS + 1))
    assert all(p.steps == STEPS for p in seen if p.phase != "preparing")
    assert seen[-1].dice is not None and seen[-1].seconds_left == 0 and "weights in" in seen[-1].message
    assert all(p.loss > 0 and p.rate >= 0 and p.seconds_left >= 0 for p in seen if p.phase == "training")


def test_what_a_run_leaves_behind(unbroken: Path, plan: Plan) -> None:
    cases, spec, config = plan
    record, card = read_record(unbroken), weights.read_card(unbroken / MODEL)
    assert {path.name for path in unbroken.iterdir()} - {EVENTS} == {MODEL, RESUME, RECORD, LOG, SCORES, MASKS}
    assert (record.spec, record.config, record.schedule.steps) == (spec, config, STEPS) and weights.read_spec(unbroken / MODEL) == spec
    assert set(record.split.training) | set(record.split.kept_out) == {case.name for case in cases}
    assert not set(record.split.training) & set(record.split.kept_out)
    assert set(record.sha256) == set(record.split.training)
    assert (card.steps, card.cases_trained, card.cases_scored, card.independent) == (STEPS, 3, 1, True)
    assert card.split_sha256 == record.split.sha256 and set(card.dice) == {"bright", "dark", "mean"}
    scores = read_scores(unbroken / SCORES)
    assert {score.case for score in scores} == set(record.split.kept_out) == {p.name[:2] for p in (unbroken / MASKS).iterdir()}
    assert card.dice["mean"] == pytest.approx(np.mean([score.dice for score in scores]), abs=1e-4)
    with open(unbroken / LOG, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == sorted(int(row["step"]) for row in rows)
    assert int(rows[-1]["step"]) == STEPS and any(row["dice"] for row in rows)
    for paths in (*record.images.values(), (*record.labels.values(),)):
        assert all(Path(path).is_absolute() and Path(path).exists() for path in paths)


@pytest.mark.parametrize("kind", ["plan", "pictures"])
def test_it_learns(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    cases, spec, config = request.getfixturevalue(kind)
    seen = run((cases, spec, replace(config, steps=80, checks=9)), tmp_path)
    losses = [p.loss for p in seen if p.phase == "training"]
    assert np.mean(losses[-20:]) < 0.75 * losses[0]
    checked = [p.dice for p in seen if p.phase == "training" and p.dice is not None]
    validations = list(dict.fromkeys(checked))
    assert checked[-1] > checked[0] and len(validations) > 1 and min(validations[1:]) > 0.5 and seen[-1].dice > 0.7


def test_a_short_run_goes_faster(plan: Plan, tmp_path: Path) -> None:
    """And the rate that is shown and logged is the one that weights are moved at."""
    cases, spec, config = plan
    used: list[float] = []

    def note(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        if isinstance(optimiser, torch.optim.AdamW):
            used.append(optimiser.param_groups[0]["lr"])

    hook = register_optimizer_step_post_hook(note)
    try:
        seen = run((cases, spec, replace(config, steps=60, device="cpu")), tmp_path)  # a card replays steps without a word
    finally:
        hook.remove()
    assert used == [p.rate for p in seen if p.phase == "training"] and max(used) == pytest.approx(HASTE * config.rate)
    logged = {line.split(",")[0]: line.split(",")[2] for line in (tmp_path / LOG).read_text().splitlines()[1:]}
    assert logged["60"] == f"{used[59]:.3e}" and logged["10"] == f"{used[9]:.3e}"


def test_cases_kept_out_teach_it_nothing(plan: Plan, unbroken: Path, folder: Path, tmp_path: Path) -> None:
    (name,) = read_record(unbroken).split.kept_out
    shutil.copytree(folder, tmp_path / "data")
    image, label = scan(77)
    write(tmp_path / f"data/imagesTr/{name}.nii.gz", image.with_data(image.data[::-1] * 3), labels=False)
    write(tmp_path / f"data/labelsTr/{name}.nii.gz", label)
    cases, _, _ = planned(tmp_path / "data")
    run((cases, *plan[1:]), tmp_path / "run")
    one, two = (weights.load(out / MODEL)[1] for out in (unbroken, tmp_path / "run"))
    assert all(np.array_equal(one[key], two[key]) for key in one)
    assert read_scores(unbroken / SCORES) != read_scores(tmp_path / "run" / SCORES)


@pytest.mark.parametrize("count", [2, 3])
def test_few_cases(plan: Plan, tmp_path: Path, count: int) -> None:
    cases, spec, config = plan
    run((cases[:count], spec, replace(config, steps=2)), tmp_path)
    card, split = weights.read_card(tmp_path / MODEL), read_record(tmp_path).split
    assert (card.cases_trained, card.cases_scored, card.independent, card.scored_by) == (count - 1, 1, True, "kept out")
    assert split.independent == card.independent


# --- nothing kept out: what a small set does unless told otherwise


@pytest.fixture(scope="module")
def on_all(plan: Plan) -> Plan:
    cases, spec, config = plan
    return cases, spec, replace(config, fold=None)


@pytest.mark.parametrize("count", [1, 4])
def test_a_small_set_trains_on_all_and_scores_nothing(on_all: Plan, tmp_path: Path, count: int) -> None:
    cases, spec, config = on_all
    seen = run((cases[:count], spec, config), tmp_path)
    assert [p.phase for p in seen if p.phase not in ("preparing", "ready", "training")] == ["done"] and seen[-1].dice is None
    assert {path.name for path in tmp_path.iterdir()} - {EVENTS} == {MODEL, RESUME, RECORD, LOG}
    card, split = weights.read_card(tmp_path / MODEL), read_record(tmp_path).split
    assert (card.cases_trained, card.cases_scored, card.independent, card.scored_by, card.dice) == (count, 0, False, "", {})
    assert split.training == tuple(sorted(case.name for case in cases[:count])) and split.kept_out == ()


def test_without_a_case_kept_out_interrupted_twice(on_all: Plan, tmp_path: Path) -> None:
    run(on_all, tmp_path / "unbroken")
    out, steps = tmp_path / "stopped", []
    for step in (2, 5):
        run(on_all, out, lambda p, step=step: (p.phase, p.step) == ("training", step), resume=step > 2)
        steps.append(weights.read_card(out / MODEL).steps)
    assert steps == [2, 5], "with nothing to choose by, the newest weights are there"
    run(on_all, out, resume=True)
    for name in (MODEL, RESUME):
        assert (out / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_minutes_are_kept_without_a_case_kept_out(on_all: Plan, tmp_path: Path) -> None:
    cases, spec, config = on_all
    began = time.time()
    seen = run((cases, spec, replace(config, steps=None, minutes=0.1)), tmp_path, started=began)
    assert 2 < time.time() - began < 10 and seen[-1].phase == "done"
    rates = [p.rate for p in seen if p.phase == "training"]
    assert rates[-1] < 0.1 * max(rates)


def test_one_run_is_one_model(on_all: Plan, tmp_path: Path) -> None:
    cases, spec, config = on_all
    with pytest.raises(UNetError, match="2 models are asked for, this is one"):
        run((cases, spec, replace(config, folds=2)), tmp_path)


# --- interruption


@pytest.mark.parametrize("kind", ["plan", "pictures"])
def test_stopped_anywhere_and_resumed_it_ends_as_an_unbroken_run(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    steps: Plan = request.getfixturevalue(kind)
    run(steps, tmp_path / "unbroken")
    for step in (1, 4, STEPS):
        out = tmp_path / f"stopped at {step}"
        seen = run(steps, out, lambda p, step=step: (p.phase, p.step) == ("training", step))
        assert weights.load(out / MODEL)[0] == steps[1]  # what was best is on disk, ready for use
        assert seen[-1].step == step and not (out / SCORES).exists()
        resumed = run(steps, out, resume=True)
        assert [p.step for p in resumed if p.phase == "training"] == list(range(step + 1, STEPS + 1))
        assert_equal_runs(tmp_path / "unbroken", out)


def test_a_stopped_run_says_what_its_score_is_worth(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are the best on a part of what is kept out, and that part chose them."""
    monkeypatch.setattr(sys.modules["napari_unet.train"], "CHECK_CASES", 1)
    steps = planned(folder, steps=STEPS, checks=2, folds=2, fold=0)
    run(steps, tmp_path, lambda p: p.phase == "training" and p.dice is not None)
    card = weights.read_card(tmp_path / MODEL)
    assert card.cases_scored == 1 and card.dice and card.note.startswith("Of a run that is not finished")
    run(steps, tmp_path, resume=True)
    card = weights.read_card(tmp_path / MODEL)
    assert card.cases_scored == 2 and card.dice and card.note == ""


def test_weights_that_nothing_chose_say_so_too(on_all: Plan, tmp_path: Path) -> None:
    run(on_all, tmp_path, lambda p: p.phase == "training" and p.step == 2)
    assert weights.read_card(tmp_path / MODEL).note == "Of a run that is not finished."
    run(on_all, tmp_path, resume=True)
    assert weights.read_card(tmp_path / MODEL).note == ""


def test_what_could_not_be_resumed_is_not_begun(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MAX_FILE", 1 << 20)
    with pytest.raises(UNetError, match=r"what resuming needs of it takes [\d,]+ bytes, more than a file may have .+fewer features"):
        run(plan, tmp_path)
    assert not (tmp_path / RECORD).exists()


def test_stopped_again_and_again(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    run(plan, tmp_path, lambda p: p.phase == "training")
    while True:
        seen = run(plan, tmp_path, lambda p: p.phase == "training", resume=True)
        if seen[-1].phase == "done":
            break
    assert_equal_runs(unbroken, tmp_path)


@pytest.mark.parametrize("scoring", [1, 2, 3])
def test_stopped_while_scoring(plan: Plan, unbroken: Path, tmp_path: Path, scoring: int) -> None:
    left = iter(range(scoring))
    run(plan, tmp_path, lambda p: p.phase == "validating" and next(left) == scoring - 1)
    weights.load(tmp_path / MODEL)
    run(plan, tmp_path, resume=True)
    assert_equal_runs(unbroken, tmp_path)


def test_stopped_before_the_first_step_nothing_is_there(plan: Plan, tmp_path: Path) -> None:
    run(plan, tmp_path, lambda p: p.phase == "preparing")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UNetError, match="there is no run to resume"):
        run(plan, tmp_path, resume=True)


def test_a_finished_run_resumed_stays_as_it_is(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    assert "training" not in {p.phase for p in run(plan, out, resume=True)}
    assert_equal_runs(unbroken, out)


# the code that changes or saves a run
CRITICAL = (
    "napari_unet/learning.py", "napari_unet/train.py", "napari_unet/keeping.py", "napari_unet/record.py",
    "napari_unet/files.py", "napari_unet/weights.py", "torch/optim/adam.py",
)  # fmt: skip


def interrupted(plan: Plan, out: Path, signal: Signal, resume: bool = False) -> None:
    """Run until the signal, or to the end."""
    going = train(*plan, out=out, resume=resume)
    before = sys.gettrace()
    sys.settrace(signal)
    try:
        with suppress(KeyboardInterrupt):
            list(going)
    finally:
        sys.settrace(before)


@pytest.fixture(scope="module")
def lines(plan: Plan, unbroken: Path, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How many lines of each file a whole run has; counting changes nothing."""
    out, signal = tmp_path_factory.mktemp("counted"), Signal(CRITICAL)
    interrupted(plan, out, signal)
    assert_equal_runs(unbroken, out)
    return signal.count


def survive(plan: Plan, unbroken: Path, lines: Counter[str], out: Path, seed: int) -> None:
    """A signal, another after resuming, a third: what is on disk can always be used, and ends as an unbroken run."""
    moments = random.Random(seed)
    for _ in range(3):
        file = moments.choice(CRITICAL)
        interrupted(plan, out, Signal((file,), moments.randrange(1, lines[file])), resume=(out / RECORD).exists())
        for name in (MODEL, RESUME):
            if (out / name).exists():
                weights.load_tensors(out / name)
    run(plan, out, resume=(out / RECORD).exists())
    assert_equal_runs(unbroken, out)


@pytest.mark.parametrize("seed", range(6))
def test_a_signal_at_any_line(plan: Plan, unbroken: Path, lines: Counter[str], tmp_path: Path, seed: int) -> None:
    survive(plan, unbroken, lines, tmp_path, seed)


def test_gradients_that_an_interrupt_left_off_are_no_obstacle(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        run(plan, tmp_path)
    assert_equal_runs(unbroken, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_a_signal_at_any_line_of_many(plan: Plan, unbroken: Path, lines: Counter[str], tmp_path: Path, seed: int) -> None:
    survive(plan, unbroken, lines, tmp_path, seed)


@pytest.mark.parametrize("update", [11, 12])  # two optimisers: after the first of the sixth step, and after both
def test_a_signal_between_the_weights_and_their_count(plan: Plan, unbroken: Path, tmp_path: Path, update: int) -> None:
    struck(plan, tmp_path, update)
    assert int(weights.load_tensors(tmp_path / RESUME)[1]["step"]) < 6
    run(plan, tmp_path, resume=True)
    assert_equal_runs(unbroken, tmp_path)


def test_a_run_never_goes_on_from_an_earlier_runs_state(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    cases, spec, config = plan
    run((cases, spec, replace(config, seed=1)), tmp_path)
    struck(plan, tmp_path, update=1)
    assert not (tmp_path / RESUME).exists() and not (tmp_path / MODEL).exists()
    run(plan, tmp_path, resume=True)
    assert_equal_runs(unbroken, tmp_path)


KILLS = """
import json, os, pickle, random, signal, sys, time
from pathlib import Path
import torch
from napari_unet import train, weights
plan, out, kills, seconds = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
torch.set_num_threads(1)  # no threads, so that a fork is whole
began = time.time()
list(train.train(*plan, out=out / "unbroken"))
train.SAVE_SECONDS = 0.0  # so that many a kill meets a save
told = {"kills": 0, "in a save": 0, "steps": []}
out /= "killed"
def learn():
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        for progress in train.train(*plan, out=out, resume=(out / train.RECORD).exists()):
            os.write(writing, b".")
        os._exit(0)
    os.close(writing)
    return pid, reading
while told["kills"] < kills:
    pid, reading = learn()
    os.read(reading, 1)
    time.sleep(random.Random(told["kills"]).uniform(0, seconds))
    os.kill(pid, signal.SIGKILL)
    os.close(reading)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
    told["kills"] += 1
    told["in a save"] += any(out.glob(".*.partial"))
    for name in (train.MODEL, train.RESUME):
        if (out / name).exists():
            metadata = weights.load_tensors(out / name)[1]
    told["steps"].append(int(metadata["step"]) if (out / train.RESUME).exists() else 0)
pid, reading = learn()
while os.read(reading, 1):
    pass
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print(json.dumps(told))
"""


def killed(plan: Plan, out: Path, steps: int, kills: int, seconds: float) -> dict[str, Any]:
    """Train in processes that are killed at random moments and begun anew; what became of them."""
    cases, spec, config = plan
    (out / "plan").write_bytes(pickle.dumps((cases, spec, replace(config, steps=steps))))
    command = [sys.executable, "-c", KILLS, str(out / "plan"), str(out), str(kills), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=os.environ | ONE_THREAD, check=False)
    assert done.returncode == 0, done.stderr
    assert_equal_runs(out / "unbroken", out / "killed")
    assert not list((out / "killed").glob(".*.partial"))  # what was left by the killed is swept by the next
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork, and no SIGKILL")
def test_killed_at_random_moments_and_resumed_it_ends_as_an_unbroken_run(plan: Plan, tmp_path: Path) -> None:
    told = killed(plan, tmp_path, steps=60, kills=6, seconds=0.5)
    assert told["kills"] >= 2 and told["steps"] == sorted(told["steps"]) and told["steps"][-1] > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork, and no SIGKILL")
def test_killed_many_times(plan: Plan, tmp_path: Path) -> None:
    told = killed(plan, tmp_path, steps=1500, kills=200, seconds=0.4)
    print(f"\n{told['kills']} kills survived, {told['in a save']} of them in a save")
    assert told["kills"] >= 40 and told["in a save"] >= 1


# --- one folder, one run


def test_two_runs_do_not_share_a_folder(plan: Plan, tmp_path: Path) -> None:
    first = train(*plan, out=tmp_path)
    next(first)
    for resume in (False, True):
        with pytest.raises(UNetError, match="is working in it. Wait for it, or choose another folder"):
            next(train(*plan, out=tmp_path, resume=resume))
    first.close()
    run(plan, tmp_path)


def test_a_new_run_takes_the_place_of_an_old_one_only_once_it_can(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (out / "report.html").write_text("of the old run")
    (out / "mine.txt").write_text("not a run's")
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    cases, spec, config = plan
    broken = tuple(replace(case, label=None) for case in cases)
    with pytest.raises(UNetError, match="it has no label"):
        run((broken, spec, config), out)
    run(plan, out, lambda p: p.phase == "preparing")
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    other = (cases, spec, replace(config, seed=1, steps=3))
    run(other, out, lambda p: p.phase == "training")
    assert weights.read_card(out / MODEL).steps == 1 and read_record(out).config.seed == 1
    assert not (out / "report.html").exists() and not (out / SCORES).exists() and (out / "mine.txt").exists()
    run(other, tmp_path / "alone")
    run(other, out, resume=True)
    assert_equal_runs(tmp_path / "alone", out)


def test_a_new_run_takes_away_the_masks_of_the_one_that_it_replaces(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    """And no other: what a person keeps among them stays."""
    cases, spec, config = plan
    other = (cases, spec, replace(config, fold=1, steps=3, checks=0))
    for mine in ((), ("a0_corrected.nii.gz", "notes.txt")):
        out = Path(shutil.copytree(unbroken, tmp_path / f"run {len(mine)}"))
        for name in mine:
            (out / MASKS / name).write_text("mine")
        old = {path.name for path in (out / MASKS).iterdir()} - set(mine)
        run(other, out, lambda p: p.phase == "training")
        assert {path.name for path in (out / MASKS).glob("*")} == set(mine) and (out / MASKS).exists() == bool(mine)
        run(other, out, resume=True)
        new = {f"{name}.nii.gz" for name in read_record(out).split.kept_out}
        assert {path.name for path in (out / MASKS).iterdir()} == {*mine, *new} and new.isdisjoint(old)


def test_what_a_record_calls_a_case_is_no_file_to_remove(unbroken: Path, tmp_path: Path) -> None:
    out, name = Path(shutil.copytree(unbroken, tmp_path / "run")), read_record(unbroken).split.kept_out[0]
    (tmp_path / f"{name}.nii.gz").write_text("somebody's")
    (out / RECORD).write_text((out / RECORD).read_text("utf-8").replace(f'"{name}"', f'"../../{name}"'), "utf-8")
    clear(out)
    assert (tmp_path / f"{name}.nii.gz").exists() and not (out / RECORD).exists()


def change_voxel(folder: Path, part: str, name: str) -> None:
    path = folder / part / f"{name}.nii.gz"
    volume = read(path)
    volume.data[5, 5, 5] = 1 - volume.data[5, 5, 5] % 2
    write(path, volume, labels=part == "labelsTr")


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_resumed_with_changed_data(plan: Plan, folder: Path, unbroken: Path, tmp_path: Path, part: str) -> None:
    out, data = (Path(shutil.copytree(source, tmp_path / source.name)) for source in (unbroken, folder))
    name = read_record(out).split.training[1]
    change_voxel(data, part, name)
    cases, _, _ = planned(data)
    with pytest.raises(UNetError, match=f"its case {name} has changed. Resume with the data the run began with"):
        run((cases, *plan[1:]), out, resume=True)
    assert_equal_runs(unbroken, out)


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_resumed_with_other_cases_kept_out(plan: Plan, folder: Path, unbroken: Path, tmp_path: Path, part: str) -> None:
    """Its score would be of other cases than those that chose its weights, and the report would show others still."""
    out, data = (Path(shutil.copytree(source, tmp_path / source.name)) for source in (unbroken, folder))
    name = read_record(out).split.kept_out[0]
    cases, _, _ = planned(data)
    run((cases, *plan[1:]), out, resume=True)  # they may lie elsewhere
    change_voxel(data, part, name)
    with pytest.raises(UNetError, match=f"its case {name} has changed. Resume with the data the run began with"):
        run((cases, *plan[1:]), out, resume=True)
    assert_equal_runs(unbroken, out)


def test_resumed_without_one_of_its_cases(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    with pytest.raises(UNetError, match="its case a[0-3] is not in the data"):
        run((plan[0][:2], *plan[1:]), out, resume=True)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (RECORD, b"{}", "the field spec is missing"),
        (RECORD, b"\x00", "not valid JSON"),
        (RESUME, b"\x00" * 100, "not a weights file"),
        (RESUME, MODEL, "its format is 'napari-unet 1'"),
    ],
)
def test_resumed_from_a_damaged_run(plan: Plan, unbroken: Path, tmp_path: Path, name: str, content: bytes | str, words: str) -> None:
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (out / name).write_bytes((out / content).read_bytes() if isinstance(content, str) else content)
    with pytest.raises(UNetError, match=words):
        run(plan, out, resume=True)
    assert weights.load(out / MODEL)


def test_resumed_with_another_networks_state(plan: Plan, unbroken: Path, pictures: Plan, tmp_path: Path) -> None:
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    run(pictures, tmp_path / "other", lambda p: p.phase == "training")
    shutil.copy(tmp_path / "other" / RESUME, out / RESUME)
    with pytest.raises(UNetError, match="it does not fit this run.*Begin anew without --resume"):
        run(plan, out, resume=True)


def test_the_seconds_of_a_resumed_run_go_on(plan: Plan, tmp_path: Path) -> None:
    """In its log; its pace is that since it was resumed."""
    run(plan, tmp_path, lambda p: p.phase == "training" and p.step == 4)
    head, *rows = (tmp_path / LOG).read_text().splitlines()
    waited = [",".join([*row.split(",")[:-1], str(3600 + n)]) for n, row in enumerate(rows)]  # as if it had worked for an hour
    (tmp_path / LOG).write_text("\n".join([head, *waited]) + "\n")
    seen = run(plan, tmp_path, resume=True)
    seconds = [float(row["seconds"]) for row in csv.DictReader((tmp_path / LOG).read_text().splitlines())]
    assert len(seconds) > len(waited) and seconds == sorted(seconds) and 3600 <= seconds[-1] < 3900
    assert max(p.speed or 0.0 for p in seen) > 0.1


def test_resumed_without_its_log(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    run(plan, tmp_path, lambda p: p.phase == "training")
    (tmp_path / LOG).unlink()
    run(plan, tmp_path, resume=True)
    assert_equal_runs(unbroken, tmp_path)


def test_a_label_that_moved_after_the_check(plan: Plan, folder: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(folder, tmp_path / "data"))
    cases, _, _ = planned(data)
    _, label = scan(0)
    write(data / "labelsTr/a0.nii.gz", label.with_data(label.data * 5))
    with pytest.raises(UNetError, match="a0.nii.gz: the mask value"):
        run((cases, *plan[1:]), tmp_path / "run")


# --- faults of the machine and of numbers


def explosive(plan: Plan, folder: Path, out: Path) -> Plan:
    """The same cases, two of which hold a voxel that no network survives: finite, but not its square."""
    data = Path(shutil.copytree(folder, out / "data"))
    for n in (1, 2):
        image, _ = scan(n)
        huge = image.data.astype(np.float32)
        huge[10, 12, 9] = 1e35
        write(data / f"imagesTr/a{n}.nii.gz", image.with_data(huge), labels=False)
    cases, _, _ = planned(data)
    _, spec, config = plan
    channel = replace(spec.channels[0], scheme="clip", low=-1e6, high=1e36, mean=100, std=10)
    spec = replace(spec, channels=(channel,), network=replace(spec.network, norm="group"))
    config = replace(config, steps=12, batch=1, augment=0, grow=False, device="cpu")  # cards' sums survive it
    return cases, spec, config


@pytest.mark.parametrize("checks", [0, 11])
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_best(
    plan: Plan, folder: Path, tmp_path: Path, checks: int
) -> None:
    cases, spec, config = explosive(plan, folder, tmp_path)
    config, kept = replace(config, checks=checks), 0
    for seed in range(6):
        out = tmp_path / f"run{seed}"
        with pytest.raises(UNetError, match="not finite|the loss is (nan|inf)"):
            run((cases, spec, replace(config, seed=seed)), out)
        assert (out / MODEL).exists() == (out / RESUME).exists()
        if (out / MODEL).exists():  # there was a step before the fatal one
            kept += 1
            weights.load(out / MODEL)  # finite, or it would refuse
            with pytest.raises(UNetError, match="not finite|the loss is (nan|inf)"):
                run((cases, spec, config), out, resume=True)
    assert kept or not checks


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of that kind")
@pytest.mark.parametrize("resume", [True, False])
def test_a_full_disk_destroys_nothing(plan: Plan, unbroken: Path, tmp_path: Path, resume: bool) -> None:
    import resource

    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(UNetError, match="cannot be written .File too large.. Free some space"):
            run(plan, out, resume=resume)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(out.glob(".*.partial"))
    if resume:
        assert_equal_runs(unbroken, out)
        run(plan, out, resume=True)
        assert_equal_runs(unbroken, out)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_patches_that_do_not_fit_into_memory(plan: Plan, tmp_path: Path) -> None:
    import resource

    cases, spec, config = plan
    spec = replace(spec, patch=(160, 160, 160), network=replace(spec.network, features=(64, 64)))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (400 << 20), limits[1]))
    try:
        with pytest.raises(UNetError, match="patches of .* cannot be learnt from .*Use a smaller patch"):
            run((cases, spec, replace(config, grow=False)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert not (tmp_path / MODEL).exists()


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_a_file_that_vanishes_during_training(plan: Plan, folder: Path, unbroken: Path, tmp_path: Path, part: str) -> None:
    data = Path(shutil.copytree(folder, tmp_path / "data"))
    (name,) = read_record(unbroken).split.kept_out
    path, out, cases = data / part / f"{name}.nii.gz", tmp_path / "run", planned(data)[0]
    going = train(cases, *plan[1:], out=out)
    while next(going).phase != "training":
        pass
    path.rename(tmp_path / "away")
    with pytest.raises(UNetError, match=f"{name}.nii.gz: cannot be read"):
        list(going)
    assert weights.load(out / MODEL)
    (tmp_path / "away").rename(path)
    run((cases, *plan[1:]), out, resume=True)
    assert_equal_runs(unbroken, out)


def test_a_mask_that_would_be_written_elsewhere_is_refused_before_any_work(plan: Plan, tmp_path: Path) -> None:
    cases, *rest = plan
    elsewhere = tuple(replace(case, name=f"../../{case.name}") for case in cases)
    with pytest.raises(UNetError, match="has a name that no mask's file can have"):
        run((elsewhere, *rest), tmp_path / "a/b/run")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "run"]


def test_a_folder_that_is_a_file(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UNetError, match="cannot be made"):
        run(plan, tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_an_unknown_device(plan: Plan, tmp_path: Path) -> None:
    cases, spec, config = plan
    with pytest.raises(UNetError, match="'warp' cannot be used"):
        run((cases, spec, replace(config, device="warp")), tmp_path)


def test_minutes_are_kept(plan: Plan, tmp_path: Path) -> None:
    cases, spec, config = plan
    config = replace(config, steps=None, minutes=0.05, checks=0)
    began = time.time()
    seen = run((cases, spec, config), tmp_path, started=began)
    assert 0.8 < time.time() - began < 6 and seen[-1].phase == "done"
    rates = [p.rate for p in seen if p.phase == "training"]
    assert rates[-1] < 0.1 * max(rates)  # it ends at zero because the time does


def test_minutes_resumed_follow_the_course_that_was_written(plan: Plan, tmp_path: Path) -> None:
    cases, spec, config = plan
    timed = (cases, spec, replace(config, steps=None, minutes=0.03))
    run(timed, tmp_path / "one", lambda p: (p.phase, p.step) == ("training", 7))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    steps = read_record(tmp_path / "one").schedule.steps
    run(timed, tmp_path / "one", resume=True)
    run(timed, tmp_path / "two", lambda p: (p.phase, p.step) == ("training", 11), resume=True)
    assert run(timed, tmp_path / "two", resume=True)[-1].step == steps
    assert_equal_runs(tmp_path / "one", tmp_path / "two")


def test_time_that_is_over_before_it_began_is_one_step(plan: Plan, tmp_path: Path) -> None:
    cases, spec, config = plan
    seen = run((cases, spec, replace(config, steps=None, minutes=0.01)), tmp_path, started=0.0)
    assert seen[-1].phase == "done" and seen[-1].steps == 1


def test_patches_and_batches_are_the_schedules(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, batch = [], Sampler.batch

    def watched(self: Sampler, *arguments: Any) -> Any:
        images, shares = batch(self, *arguments)
        shapes.append(tuple(images.shape))
        assert shares.dtype == torch.float32 and shares.shape == (len(images), 3, *images.shape[2:])
        return images, shares

    monkeypatch.setattr(Sampler, "batch", watched)
    cases, spec, config = plan
    run((cases, spec, replace(config, steps=40)), tmp_path)
    stages: list[Stage] = [stage for stage in read_record(tmp_path).schedule.stages for _ in range(stage.steps)]
    assert shapes == [(stage.batch, 1, *stage.patch) for stage in stages]
    assert stages[-1].patch == plan[1].patch
