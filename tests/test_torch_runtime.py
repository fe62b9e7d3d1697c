"""torch's runtime: windows in batches give what each gives alone, and in the background they let others go first."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

import pytest
import torch
from engine import network_spec, random_network
from torch import Tensor

from napari_unet import runtime, threads
from napari_unet.torch_runtime import TorchRuntime, computes_volumes, forward

CLOSE = {"atol": 1e-4, "rtol": 1e-4}  # of logits; float32 rounds in another order


def windows(count: int, sizes: int = 1) -> list[Tensor]:
    """Windows, in turns of so many sizes."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 8, 8, 8 * (1 + n % sizes), generator=generator) for n in range(count)]


@pytest.mark.parametrize("axes", [(), (2,), (0, 1, 2)])
@pytest.mark.parametrize(("count", "sizes", "in_flight"), [(0, 1, None), (1, 1, None), (5, 1, None), (5, 2, None), (4, 1, 1), (3, 1, 99)])
def test_a_window_of_a_batch_is_what_it_is_alone(count: int, sizes: int, in_flight: int | None, axes: tuple[int, ...]) -> None:
    networks, given = [random_network(network_spec(), seed) for seed in range(2)], windows(count, sizes)
    found = list(TorchRuntime(networks, axes).each(given, in_flight))
    assert len(found) == count
    for window, members in zip(given, found, strict=True):
        alone = torch.cat([forward(network, window[None], axes) for network in networks])
        torch.testing.assert_close(members, alone, **CLOSE)


def test_mirrored_copies_are_averaged() -> None:
    """One by one, as the definition has it."""
    network, (window,) = random_network(network_spec()), windows(1)
    with torch.inference_mode():
        copies = [network(window[None].flip(flips)).flip(flips) for flips in ((2, 4), (2,), (4,), ())]
    torch.testing.assert_close(forward(network, window[None], (0, 2)), sum(copies) / 4, **CLOSE)


def test_windows_are_drawn_as_they_are_needed() -> None:
    drawn: list[int] = []
    each = TorchRuntime([random_network(network_spec())], ()).each((drawn.append(0), window)[1] for window in windows(9))
    for n in range(1, 10):
        next(each)
        assert n <= len(drawn) <= n + 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_in_the_background_others_go_first(name: str) -> None:
    """The threads that compute, not those that were there before; the logits are the same."""
    if name == "openvino":
        pytest.importorskip("napari_unet.quiet_openvino")
    networks, given = [random_network(network_spec())], windows(5)
    before = niceness()
    tested = runtime.start_runtime(networks, (), name, background=True)
    found, after = list(tested.each(given)), niceness()
    assert {task: after[task] for task in before.keys() & after.keys()} == {task: before[task] for task in before.keys() & after.keys()}
    assert max(threads.NICE, before[threading.get_native_id()]) in {after[task] for task in after.keys() - before.keys()}
    torch.testing.assert_close(found, list(runtime.start_runtime(networks, (), name).each(given)), **CLOSE)


def niceness() -> dict[int, int]:
    """Of each thread of this process that is still there when it is asked for."""
    found = {}
    for task in map(int, os.listdir("/proc/self/task")):
        with suppress(ProcessLookupError):
            found[task] = os.getpriority(os.PRIO_PROCESS, task)
    return found


def test_what_a_3d_network_needs_is_tried() -> None:
    """Apple's cards come with or without it, as torch's release has it; of what is here, a processor has it and vulkan has not."""
    assert computes_volumes(torch.device("cpu"))
    assert not computes_volumes(torch.device("vulkan"))
