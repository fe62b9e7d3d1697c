"""Several processes train as one: two real ones, started by torchrun, that talk over gloo."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from datasets import ONE_THREAD, _one_thread, decathlon, planned  # noqa: F401 - a fixture
from runs import Plan, assert_equal_runs, run

from napari_unet import distributed, schema, weights
from napari_unet.layout import LOG, MODEL, RECORD, RESUME
from napari_unet.orders import Order, State
from napari_unet.record import read_record
from napari_unet.schedule import Stage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
STEPS = 9
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

TOGETHER = """
import pickle, sys, torch
from dataclasses import replace
from pathlib import Path
from napari_unet import UNetError, distributed
from napari_unet.assist import assist
from napari_unet.learning import Learner
from napari_unet.sampling import Sampler
from napari_unet.train import train
plan, out = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
with distributed.joined():
    spec = replace(plan[1], network=replace(plan[1].network, norm="batch"))
    try:
        Learner(spec, plan[2], torch.device("cpu"), Sampler([], spec, plan[2]))
    except UNetError as error:
        (out / f"refused by the {'first' if distributed.is_first() else 'other'}").write_text(str(error))
    if not distributed.is_first():
        steps = [p.step for p in assist(plan[0]) if p.phase == "training"]
        (out / "steps of the other").write_text(repr(steps))
    else:
        list(train(*plan, out=out / "together"))
        for n, progress in enumerate(going := train(*plan, out=out / "stopped")):
            if (progress.phase, progress.step) == ("training", 5):
                going.close()
        list(train(*plan, out=out / "stopped", resume=True))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decathlon(tmp_path_factory.mktemp("data"), 3)


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    # a batch that two processes cannot share evenly, in a precision that the order of additions hardly matters in
    return planned(folder, steps=STEPS, batch=3, fold=0, precision="float32")


@pytest.fixture(scope="module")
def two(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes in `together`, and one that was stopped and resumed in `stopped`."""
    out = tmp_path_factory.mktemp("two")
    (out / "plan").write_bytes(pickle.dumps(plan))
    (out / "script.py").write_text(TOGETHER)
    command = [*TORCHRUN, str(out / "script.py"), str(out / "plan"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ | ONE_THREAD, check=False)
    assert done.returncode == 0, done.stderr
    return out


def losses(out: Path) -> list[tuple[str, float]]:
    rows = [line.split(",") for line in (out / LOG).read_text().splitlines()[1:]]
    return [(row[0], float(row[1])) for row in rows if row[1]]


def test_two_processes_learn_what_one_does(plan: Plan, two: Path, tmp_path: Path) -> None:
    run(plan, tmp_path)
    one, other = losses(tmp_path), losses(two / "together")
    assert [step for step, _ in one] == [step for step, _ in other] and len(one) > 2
    assert [loss for _, loss in one] == pytest.approx([loss for _, loss in other], abs=2e-4)
    assert one[0][1] == pytest.approx(other[0][1], abs=1.1e-5)  # of the first step, to the last digit that is written
    alone, shared = (weights.load_tensors(out / RESUME)[0] for out in (tmp_path, two / "together"))
    assert alone.keys() == shared.keys()
    for name in alone:  # a bias before a norm has no influence and no gradient but noise
        if not name.endswith("conv.bias") and name.startswith("network."):
            np.testing.assert_allclose(shared[name], alone[name], atol=2e-3, err_msg=name)
            close = np.isclose(shared[name], alone[name], rtol=1e-3, atol=1e-5)
            assert close.mean() > 0.95, name


def test_stopped_and_resumed_it_ends_as_an_unbroken_run_of_as_many_processes(two: Path) -> None:
    assert_equal_runs(two / "together", two / "stopped")
    assert (two / "steps of the other").read_text() == repr([*range(1, STEPS + 1), *range(1, STEPS + 1)])


def torchrun(folder: Path, out: Path, at_work: Callable[[psutil.Process], None]) -> tuple[int, str]:
    """Train in two processes; what becomes of it when something happens to torchrun's process once they learn."""
    command = [*TORCHRUN, "-m", "napari_unet", "train", str(folder), "--out", str(out), "--steps", "100000",
               "--features", "4,8", "--patch", "12,16,16", "--checks", "0", "--batch", "1", "--device", "cpu"]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | ONE_THREAD)
    for _ in range(6000):
        if (out / RECORD).exists() or child.poll() is not None:
            break
        time.sleep(0.02)
    time.sleep(2)  # the other process has its first step behind it, too
    at_work(psutil.Process(child.pid))
    text, _ = child.communicate(timeout=60)
    return child.returncode, text


def assert_can_go_on(out: Path) -> None:
    assert weights.load(out / MODEL) and not (out / "lock").exists()
    assert 0 < int(weights.load_tensors(out / RESUME)[1]["step"]) < read_record(out).schedule.steps


def test_terminated_all_of_them_stop_and_what_was_learnt_is_kept(folder: Path, tmp_path: Path) -> None:
    code, text = torchrun(folder, tmp_path / "run", lambda parent: parent.send_signal(signal.SIGTERM))
    assert code != 0 and text.count("stopped; the best weights so far are in") == 1, text
    assert text.count("100,000 steps, as asked for") == 1  # one of them speaks
    assert_can_go_on(tmp_path / "run")


@pytest.mark.slow
def test_when_one_is_killed_the_other_ends_and_keeps_what_was_learnt(folder: Path, tmp_path: Path) -> None:
    def kill_the_second(parent: psutil.Process) -> None:
        (second,) = (child for child in parent.children() if child.environ().get("RANK") == "1")
        second.kill()

    code, text = torchrun(folder, tmp_path / "run", kill_the_second)
    assert code != 0 and ("another of its processes has ended" in text or "stopped; the best weights" in text), text
    assert_can_go_on(tmp_path / "run")


def test_alone_it_is_all_nothing() -> None:
    part = torch.ones(3, requires_grad=True)
    with distributed.joined():
        assert distributed.is_first() and distributed.size() == 1 and distributed.own(3) == range(3)
        assert distributed.together(part) is part
        distributed.tell(State(3))
        distributed.add_up([part])
        distributed.spread([part])
    assert part.tolist() == [1, 1, 1]


@pytest.mark.parametrize("word", [State(7), Order(3, 6, Stage((8, 8, 8), 2, 0.5, 10), 1e-3, 20, 0.5, 0.1)])
def test_words_survive_the_way(word: Any) -> None:
    assert schema.decode(type(word), schema.encode(word), "told") == word


def test_batch_norm_is_refused_in_company(two: Path) -> None:
    for number in ("first", "other"):
        assert (two / f"refused by the {number}").read_text().startswith("network: norm is batch")
