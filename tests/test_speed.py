"""Threads, half precision, compilation: faster where the machine can, the same learning everywhere, and said where it cannot."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import _one_thread, decathlon, planned, two_folders  # noqa: F401 - a fixture
from engine import network_spec
from runs import Plan, assert_equal_runs, run

from napari_unet import speed
from napari_unet.cuda_graph import BEFORE, Replayed
from napari_unet.learning import Learner
from napari_unet.network import UNet
from napari_unet.orders import Order
from napari_unet.sampling import Example, Sampler, read_example
from napari_unet.schedule import LONG, Schedule, Stage, in_steps, stages
from napari_unet.settings import TrainConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module", params=["3-D", "2-D"])
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("data")
    return planned(decathlon(folder, 2) if request.param == "3-D" else two_folders(folder, 2, ".png"), steps=4, checks=0, fold=0)


def learner(plan: Plan, device: torch.device = CPU, **changes: Any) -> tuple[Learner, Schedule]:
    cases, spec, config = plan
    config = replace(config, **changes)
    examples: list[Example] = [read_example(case, spec)[0] for case in cases]
    made = Learner(spec, config, device, Sampler(examples, spec, config, device))
    return made, in_steps(stages(spec, config), 60)


def state(made: Learner) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in made._state().items()}


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_half_precision_learns_and_stays_finite(plan: Plan) -> None:
    half, schedule = learner(plan, precision="bfloat16", device=CPU)
    full, _ = learner(plan, precision="float32")
    losses = [[float(each.step(step, schedule)) for step in range(40)] for each in (half, full)]
    assert all(map(math.isfinite, losses[0])) and half.finite() and full.finite()
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.02) and losses[0] != losses[1]  # the same, but for rounding
    assert sum(losses[0][-10:]) < 0.85 * sum(losses[0][:10])
    assert all(parameter.dtype == torch.float32 for parameter in half.network.parameters())


def test_half_precision_stopped_and_resumed(plan: Plan, tmp_path: Path) -> None:
    cases, spec, config = plan
    half = (cases, spec, replace(config, precision="bfloat16"))
    run(half, tmp_path / "unbroken")
    run(half, tmp_path / "stopped", lambda p: (p.phase, p.step) == ("training", 2))
    run(half, tmp_path / "stopped", resume=True)
    assert_equal_runs(tmp_path / "unbroken", tmp_path / "stopped")


def test_without_a_card_nothing_is_compiled_and_the_precision_is_as_asked_for() -> None:
    assert not speed.half(TrainConfig(precision="float32"), CPU) and speed.half(TrainConfig(precision="bfloat16"), CPU)
    assert not speed.repays(TrainConfig(minutes=1000.0), CPU) and speed.repays(TrainConfig(compile=True), CPU)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux says there what its processor can do")
def test_auto_is_half_precision_where_the_processor_has_units_for_it() -> None:
    assert speed.half(TrainConfig(), CPU) == ("amx_bf16" in Path("/proc/cpuinfo").read_text().split())


@pytest.mark.parametrize(
    ("config", "compiled"),
    [
        ({"minutes": 2.0}, False), ({"minutes": 60.0}, True), ({"minutes": 60.0, "compile": False}, False),
        ({"minutes": 2.0, "compile": True}, True), ({"steps": 10}, False),
    ],
)  # fmt: skip
def test_compiling_has_to_repay(config: dict[str, Any], compiled: bool) -> None:
    assert speed.repays(TrainConfig(**config), CUDA) == compiled


def test_measuring_leaves_nothing_behind(plan: Plan) -> None:
    made, schedule = learner(plan)
    before = state(made)
    costs = made.measure(stages(plan[1], plan[2]), seconds=0.1)
    assert all(cost > 0 for cost in costs) and made.done == 0 and equal(before, state(made))
    other, _ = learner(plan)
    for step in range(3):
        assert float(made.step(step, schedule)) == float(other.step(step, schedule))
    assert equal(state(made), state(other)) and not equal(before, state(made))


def test_what_is_saved_is_restored(plan: Plan, tmp_path: Path) -> None:
    cases, spec, config = plan
    shallow = cases, replace(spec, network=replace(spec.network, deep_supervision=False)), config  # some weights are not used
    made, schedule = learner(shallow)
    for step in range(3):
        made.step(step, schedule)
    made.save(tmp_path / "state")
    other, _ = learner(shallow, seed=7)
    other.restore(tmp_path / "state")
    assert other.done == 3 and equal(state(made), state(other))


def test_a_run_with_threads_of_its_own(plan: Plan, tmp_path: Path) -> None:
    cases, spec, config = plan
    before, seen = torch.get_num_threads(), set()

    def look(progress: Any) -> bool:
        seen.add((progress.phase, torch.get_num_threads()))
        return False

    run((cases, spec, replace(config, threads=2)), tmp_path, look)
    assert ("training", 2) in seen and ("training", 1) not in seen and torch.get_num_threads() == before


def test_what_is_left_out_is_a_sample_s_own(plan: Plan) -> None:
    """Drawn from the step and the sample's number: the same when resumed, and for whichever process draws it."""
    made, schedule = learner(plan)
    stage, _ = schedule.at(0)
    order = Order(5, 10, stage, 1e-3, 1000, 0.5, 0.25)
    whole = made._kept(order, range(4))
    assert sorted(whole.unique().tolist()) == pytest.approx([0, 4 / 3]) and whole.shape == (4, made.network.droppable)
    assert torch.equal(torch.cat([made._kept(order, [n]) for n in range(4)]), whole) and len(made._kept(order, [])) == 0
    assert not torch.equal(whole[0], whole[1]) and not torch.equal(made._kept(replace(order, step=6), range(4)), whole)
    assert made._kept(replace(order, dropout=0.0), range(4)).unique().tolist() == [1.0]


@pytest.mark.slow
def test_what_cannot_be_compiled_is_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network = UNet(network_spec())
    monkeypatch.setenv("CXX", "there-is-no-such-compiler")
    monkeypatch.setenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "there-is-no-such-compiler"))
    forward, why = speed.compiled(network, [(1, 1, 8, 8, 8)], CPU, TrainConfig())
    assert "cannot be compiled here, and is run as it is" in why
    assert forward(torch.zeros(1, 1, 8, 8, 8), torch.ones(1, network.droppable))[0].shape == (1, 2, 8, 8, 8)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled_it_learns_the_same(plan: Plan) -> None:
    with torch.no_grad():  # as an interrupt may have left it
        fast, schedule = learner(plan, compile=True)
    plain, _ = learner(plan)
    assert fast.note == "" and fast.forward != fast.network.multiscale
    assert equal(state(fast), state(plain))  # compiling has changed nothing
    for step in range(10):
        assert float(fast.step(step, schedule)) == pytest.approx(float(plain.step(step, schedule)), rel=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
def test_on_a_card_no_step_waits_for_the_host(plan: Plan) -> None:
    made, schedule = learner(plan, CUDA)
    for step in range(BEFORE + 1):
        made.step(step, schedule)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(BEFORE + 1, BEFORE + 6):
            made.step(step, schedule)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert made.finite()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_recorded_step_learns_what_one_by_one_does(plan: Plan, precision: str) -> None:
    recorded, schedule = learner(plan, CUDA, precision=precision)
    plain, _ = learner(plan, CUDA, precision=precision)
    plain.compute = plain._compute
    for made in (recorded, plain):  # a trial that is forgotten may have recorded steps already
        made.measure(stages(plan[1], plan[2]), seconds=0.1)
    found = [[float(made.step(step, schedule)) for step in range(schedule.steps)] for made in (recorded, plain)]
    assert found[0][:3] == pytest.approx(found[1][:3], rel=1e-3 if precision == "float32" else 0.02)
    assert found[0] == pytest.approx(found[1], rel=0.1)  # cuDNN's sums are in no fixed order, and differences grow
    assert isinstance(recorded.compute, Replayed) and recorded.compute.recordings


@pytest.mark.parametrize(("steps", "strength"), [(10, 0.4), (3 * LONG, 1.2)])
def test_a_step_changes_its_samples_as_much_as_the_runs_length_asks(plan: Plan, steps: int, strength: float) -> None:
    (made, _), seen = learner(plan, augment=0.4), []
    draw = made.sampler.batch
    made.sampler.batch = lambda *asked: seen.append(asked[-1]) or draw(*asked)  # type: ignore[method-assign,func-returns-value]
    made.step(0, in_steps(stages(plan[1], plan[2]), steps))
    assert seen == pytest.approx([strength])


def test_shapes_are_those_that_the_network_will_see(plan: Plan) -> None:
    made, schedule = learner(plan)
    seen = set()
    forward = made.forward

    def watched(images: torch.Tensor, kept: torch.Tensor) -> list[torch.Tensor]:
        seen.add(tuple(images.shape))
        return forward(images, kept)

    made.forward = watched
    first: dict[Stage, int] = {}
    for step in range(schedule.steps):
        first.setdefault(schedule.at(step)[0], step)
    for step in first.values():
        made.step(step, schedule)
    assert seen == set(made._shapes())
