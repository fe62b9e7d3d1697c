"""How many threads compute: as asked for, the calling one alone, or as many as are fastest beside other programs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from datasets import decathlon, planned

from napari_unet import UNetError, speed, threads
from napari_unet.learning import Learner
from napari_unet.sampling import Sampler, read_example
from napari_unet.schedule import stages

VOXELS = 1000.0


class Machine:
    """A machine on which a step with so many threads, begun at such a time, takes so many seconds."""

    def __init__(self, most: int, seconds: Callable[[int, float], float]) -> None:
        self.now, self.seconds, self.work, self.used = 0.0, seconds, VOXELS, [most]
        with threads.limited(most):
            self.fastest = threads.Fastest(lambda: self.now, self.used.append)

    def run(self, seconds: float) -> dict[int, float]:
        """How many seconds steps of each number of threads took meanwhile."""
        spent: dict[int, float] = {}
        until = self.now + seconds
        while self.now < until:
            count = self.used[-1]
            took = self.seconds(count, self.now)
            self.now += took
            spent[count] = spent.get(count, 0.0) + took
            self.fastest.took(took, self.work)
        return spent


def test_a_quiet_machine_computes_with_all_threads() -> None:
    spent = Machine(4, lambda count, now: 0.4 / count).run(600)
    assert spent[4] > 0.95 * sum(spent.values())


@pytest.mark.parametrize("most", [2, 3, 8, 64])
def test_threads_that_wait_for_one_another_are_left_out(most: int) -> None:
    machine = Machine(most, lambda count, now: 0.2 if count == 1 else 5.0)
    spent = machine.run(1200)
    assert spent[1] > 0.9 * sum(spent.values())


def test_the_best_number_between_one_and_all_is_found() -> None:
    machine = Machine(8, lambda count, now: 0.8 / count if count <= 6 else 3.0)  # two cores are busy
    spent = machine.run(600)
    assert spent[6] > 0.9 * sum(spent.values())


def test_load_that_comes_and_goes_is_followed() -> None:
    """Busy from 100 s to 400 s."""
    machine = Machine(2, lambda count, now: 0.2 / count if not 100 < now < 400 or count == 1 else 4.0)
    assert machine.run(100)[2] > 90
    machine.run(60)
    spent = machine.run(240)
    assert spent[1] > 0.9 * sum(spent.values())
    machine.run(120)
    spent = machine.run(300)
    assert spent[2] > 0.9 * sum(spent.values())


def test_larger_patches_are_no_slower_threads() -> None:
    """Seconds count per voxel: a step of eight times the voxels takes eight times as long, and nothing has become slow."""
    machine = Machine(2, lambda count, now: 0.1 / count)
    machine.run(30)
    machine.seconds, machine.work = lambda count, now: 0.8 / count, 8 * VOXELS
    assert machine.run(15)[2] > 14


def test_a_single_thread_has_no_choice() -> None:
    machine = Machine(1, lambda count, now: 0.1)
    machine.run(100)
    assert set(machine.used) == {1}


def test_a_trial_ends_where_other_work_begins() -> None:
    machine = Machine(4, lambda count, now: 0.4 / count)
    machine.run(60)
    machine.fastest.due = machine.now
    machine.fastest.took(0.1, VOXELS)
    machine.fastest.took(0.1, VOXELS)
    assert machine.used[-1] < 4 and not machine.fastest.settled
    machine.fastest.rest()
    assert machine.used[-1] == 4


def test_stages_are_measured_with_one_number_of_threads(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else those that are measured while it is looked for would get too few steps for good."""
    cases, spec, config = planned(decathlon(tmp_path_factory.mktemp("data"), 2), checks=0, fold=0, steps=None)
    sampler = Sampler([read_example(cases[0], spec)[0]], spec, config, torch.device("cpu"))
    with threads.limited(3):
        made, seen = Learner(spec, config, torch.device("cpu"), sampler), []
        learn = made.learn
        monkeypatch.setattr(made, "learn", lambda order: (seen.append((order.stage, torch.get_num_threads())), learn(order))[1])
        parts = stages(spec, config)
        made.measure(parts, 0.6)
    assert len({count for stage, count in seen if stage != parts[0]}) == 1 and len(parts) > 1


def test_only_a_run_by_minutes_that_was_told_nothing_chooses(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for in steps is the same again, up to the last bit: another number of threads rounds otherwise."""
    folder = decathlon(tmp_path_factory.mktemp("data"), 2)
    monkeypatch.setattr(speed, "compiled", lambda network, *_: (network.multiscale, ""))
    for steps, count, compiled, chooses in (
        (None, None, None, True), (4, None, None, False), (None, 2, None, False), (None, None, True, False),
    ):  # fmt: skip
        cases, spec, config = planned(folder, checks=0, fold=0, steps=steps, threads=count, compile=compiled)
        made = Learner(spec, config, torch.device("cpu"), Sampler([read_example(cases[0], spec)[0]], spec, config, torch.device("cpu")))
        assert (made.fastest is not None) == chooses


def test_threads_for_the_time_being() -> None:
    before = torch.get_num_threads()
    with threads.limited(3):
        assert torch.get_num_threads() == 3
        with threads.limited(None):
            assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    with pytest.raises(UNetError, match="--threads: 0 threads. Use 1 or more"), threads.limited(0):
        pass


def test_alone_is_the_calling_thread_and_no_other() -> None:
    def new_threads() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    with threads.limited(3):
        with threads.alone(3):
            assert (torch.get_num_threads(), new_threads()) == (1, 3)
        with pytest.raises(ZeroDivisionError), threads.alone(3):
            raise ZeroDivisionError
        assert (torch.get_num_threads(), new_threads()) == (3, 3)
    assert (torch.get_num_threads(), new_threads()) == (before, before)
