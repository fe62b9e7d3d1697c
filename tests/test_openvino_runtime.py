"""OpenVINO gives torch's logits: for every kind of network, however many windows are in flight, and it can be left at any time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine import model_spec, network_spec, random_network, volume
from torch import Tensor

from napari_unet import runtime
from napari_unet.errors import UNetError
from napari_unet.segment import Segmenter
from napari_unet.spec import NetworkSpec
from napari_unet.threads import limited

openvino_graph = pytest.importorskip("napari_unet.openvino_graph")
REPAYS = pytest.importorskip("napari_unet.openvino_runtime").REPAYS
CLOSE: dict[str, float] = {"atol": 1e-4, "rtol": 1e-4}  # of logits; float32 rounds in another order
KINDS: dict[str, dict[str, Any]] = {
    "instance": {}, "group": {"norm": "group"}, "batch": {"norm": "batch"}, "none": {"norm": "none", "bias": False},
    "max-pooling": {"down": "maxpool", "activation": "relu"}, "interpolated": {"up": "interpolate"}, "no skips": {"skips": False},
    "channels": {"channels": 3, "classes": 5}, "deep": {"levels": 3, "deep_supervision": True},
    "residual": {"encoder": "residual", "levels": 3, "features": (4, 8, 8), "encoder_convs": (1, 2, 1)},
}  # fmt: skip


def windows(spec: NetworkSpec, count: int, seed: int = 0) -> list[Tensor]:
    """Windows of several sizes."""
    shapes = [(8, 12, 16), (16, 8, 8), (8, 12, 16)] if spec.dims == 3 else [(1, 16, 24), (1, 8, 8), (1, 16, 24)]
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(spec.channels, *shapes[n % 3], generator=generator) for n in range(count)]


def agree(spec: NetworkSpec, count: int = 4, members: int = 1, axes: tuple[int, ...] = ()) -> None:
    """The same windows through both runtimes: in order, and the same but for rounding."""
    networks = [random_network(spec, seed) for seed in range(members)]
    given = windows(spec, count)
    found, expected = (list(runtime.start_runtime(networks, axes, name).each(given)) for name in ("openvino", "torch"))
    assert [logits.shape for logits in found] == [(members, spec.classes, *window.shape[1:]) for window in given]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_gives_the_same_logits(kind: str, dims: int) -> None:
    agree(network_spec(dims, **KINDS[kind]))


def test_unequal_strides_and_kernels_give_the_same_logits() -> None:
    agree(network_spec(kernels=((1, 3, 3), (3, 3, 5)), strides=((1, 1, 1), (1, 2, 2))))
    agree(network_spec(kernels=((1, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2)), up="interpolate", down="maxpool"))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_way_up_is_one_with_the_convolution_after_it(dims: int) -> None:
    """Where that multiplies less; elsewhere each is what it is in the network. Either way the logits are the same."""
    agree(deep := network_spec(dims, levels=3, features=(4, 8, 8)))
    assert up_kernels(deep) == [(4,) * dims] * 2
    agree(flat := network_spec(dims, strides=((1,) * dims, (1,) * dims)))
    assert up_kernels(flat) == [(1,) * dims]


def up_kernels(spec: NetworkSpec) -> list[tuple[int, ...]]:
    """The extents of the transposed convolutions' kernels."""
    graph = openvino_graph.unet([random_network(spec)], None)
    ups = [node for node in graph.get_ordered_ops() if node.get_type_name() == "ConvolutionBackpropData"]
    return [tuple(node.input_value(1).get_shape())[2:] for node in ups]


@pytest.mark.parametrize("axes", [(1,), (2, 0)])
def test_mirrored_copies_and_members_are_the_same_as_well(axes: tuple[int, ...]) -> None:
    agree(network_spec(), members=3, axes=axes)
    agree(network_spec(2), members=2, axes=(1, 2))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_however_many_windows_and_threads_there_are(count: int, threads: int) -> None:
    with limited(threads):
        agree(network_spec(), count)


@pytest.mark.parametrize("limit", [None, 1, 2, 99])
def test_windows_are_drawn_as_they_are_needed(limit: int | None) -> None:
    """No more than `in_flight` of them are ahead of what was given out; how many, does not matter to the logits."""
    spec, drawn = network_spec(), []

    def source() -> Iterator[Tensor]:
        for window in windows(spec, 20):
            drawn.append(1)
            yield window

    with limited(2):
        tested = runtime.start_runtime([random_network(spec)], (), "openvino")
    most, found = min(limit or tested.in_flight, tested.in_flight), []
    for logits in tested.each(source(), limit):
        found.append(logits)
        assert len(drawn) <= len(found) + most
    assert len(drawn) == 20 and tested.in_flight == 3
    torch.testing.assert_close(found, list(tested.each(windows(spec, 20))), atol=0, rtol=0)


def test_torch_keeps_to_one_thread_only_while_windows_are_computed() -> None:
    spec = network_spec()
    with limited(2):
        first, second = (runtime.start_runtime([random_network(spec)], (), "openvino") for _ in range(2))
        for _ in zip(first.each(windows(spec, 5)), second.each(windows(spec, 3)), strict=False):  # one ends before the other
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        left = first.each(windows(spec, 5))
        next(left)
        left.close()
        assert torch.get_num_threads() == 2


def test_requests_are_used_again() -> None:
    spec = network_spec()
    with limited(2):
        tested = runtime.start_runtime([random_network(spec)], (), "openvino")
        first = list(tested.each(windows(spec, 20)))
        again = list(tested.each(windows(spec, 20)))
    (compiled,) = tested._compiled.values()
    assert len(compiled._idle) == tested.in_flight
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert len({logits.data_ptr() for logits in first}) == 20  # nobody's result is written over


@pytest.mark.parametrize("dims", [2, 3])
def test_a_lone_window_has_the_same_logits(dims: int) -> None:
    """Known to be alone, all threads work at it; its mirrored copies are not alone."""
    spec = network_spec(dims, levels=3)
    for axes in ((), (1, 2)):
        with limited(2):
            tested = runtime.start_runtime([random_network(spec)], axes, "openvino")
            (alone,), (among,) = list(tested.each(windows(spec, 1), count=1)), list(tested.each(windows(spec, 1)))
        torch.testing.assert_close(alone, among, **CLOSE)
        assert sorted(tested._compiled) == ([(2, 2)] if axes else [(1, 2), (2, 2)])


@pytest.mark.parametrize("dims", [2, 3])
def test_many_windows_of_one_shape_have_a_graph_of_their_own_and_the_same_logits(dims: int) -> None:
    """Once they repay it; windows of another shape have the common one again."""
    spec, axes = network_spec(dims, levels=3), (1,)
    given = windows(spec, 1) * (REPAYS // 2)
    with limited(2):
        tested = runtime.start_runtime([random_network(spec)], axes, "openvino")
        found = list(tested.each(given[1:], count=len(given) - 1))
        assert tested._compiled[2, 2].shape is None  # two copies of each: not yet
        found += list(tested.each(given[:1], count=1))
        assert tested._compiled[2, 2].shape == tuple(given[0].shape)
        other = list(tested.each(windows(spec, 2)[1:], count=1))
        assert tested._compiled[2, 2].shape is None and len(found) == len(given)
        expected, another = runtime.start_runtime([random_network(spec)], axes, "torch").each(windows(spec, 2))
    for logits in found:
        torch.testing.assert_close(logits, expected, **CLOSE)
    torch.testing.assert_close(other, [another], **CLOSE)


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_it_can_be_left_at_any_time_and_used_again(taken: int) -> None:
    spec = network_spec(levels=3)
    tested = runtime.start_runtime([random_network(spec)], (2,), "openvino")
    given = [torch.randn(1, 48, 48, 48) for _ in range(5)]
    for _ in range(3):
        answers = tested.each(given)
        for _ in range(taken):
            next(answers)
        answers.close()
    small = windows(spec, 2)
    again = list(tested.each(small))
    torch.testing.assert_close(again, list(runtime.start_runtime([random_network(spec)], (2,), "torch").each(small)), **CLOSE)


def test_a_fault_of_the_source_is_the_sources_own() -> None:
    def source() -> Iterator[Tensor]:
        yield from windows(network_spec(), 2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(runtime.start_runtime([random_network(network_spec())], (), "openvino").each(source()))


def test_two_threads_share_one_model() -> None:
    """As a viewer does whose user begins another run."""
    spec = network_spec()
    tested, given = runtime.start_runtime([random_network(spec)], (0,), "openvino"), windows(spec, 6)
    expected, found = list(tested.each(given)), {}
    workers = [threading.Thread(target=lambda n=n: found.update({n: list(tested.each(given))})) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for n in range(2):
        torch.testing.assert_close(found[n], expected, **CLOSE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_no_logits(value: float) -> None:
    network = random_network(network_spec(norm="none"))
    with torch.no_grad():
        network.decoder.seg_layers[-1].weight[0] = value
    with pytest.raises(UNetError, match=r"network: its logits are not finite\. Train"):
        list(runtime.start_runtime([network], (), "openvino").each([torch.randn(1, 8, 8, 8)]))


def test_what_openvino_cannot_run_is_a_clear_error() -> None:
    tested = runtime.start_runtime([random_network(network_spec())], (), "openvino")
    with pytest.raises(UNetError, match=r"network: windows of \(8, 8, 8\) cannot be run by OpenVINO \(.+\)\. Close") as caught:
        list(tested.each([torch.randn(2, 8, 8, 8)]))
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("kind", ["2-D", "2.5-D", "3-D", "mirrored", "ensemble"])
def test_masks_are_the_same_but_for_rounding(kind: str) -> None:
    """At least 99.9 % of labels; the uncertainty within a thousandth."""
    dims, neighbours = 2 if kind.startswith("2") else 3, int(kind == "2.5-D")
    spec = model_spec(network_spec(dims, channels=2 * neighbours + 1, classes=3), neighbours=neighbours)
    if kind == "mirrored":
        spec = replace(spec, mirror_axes=(0, 2), mirror_tta=True)
    spec = replace(spec, members=3 if kind == "ensemble" else 1)
    networks = [random_network(spec.network, seed) for seed in range(spec.members)]
    image = volume()
    (one, doubt), (other, known) = (
        Segmenter(spec, *networks, uncertainty=True, runtime=name).assess(image) for name in ("openvino", "torch")
    )
    assert (one.data == other.data).mean() >= 0.999 and len(np.unique(one.data)) == 3
    assert doubt is not None and known is not None and (np.abs(doubt.data - known.data) < 1e-3).mean() >= 0.999


@pytest.mark.parametrize("dims", [2, 3])
def test_a_slice_alone_has_the_labels_that_it_has_among_others(dims: int) -> None:
    spec = model_spec(network_spec(dims, classes=3), patch=(8 if dims == 3 else 1, 24, 24), overlap=0.0)
    with limited(2):
        tested = Segmenter(spec, random_network(spec.network), runtime="openvino")
    image = volume((24, 24, 20))
    among = tested.segment(image).data
    for index in (0, 9, 19):
        (piece,) = tested.stream(image, (2, index), count=1)
        assert (piece.labels == among[piece.region]).mean() >= 0.999 and piece.region[2] == slice(index, index + 1)
    assert (1, 2) in tested.runtime._compiled


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """OpenVINO's telemetry is not loaded, opens no connection and leaves nothing in the home folder."""
    code = """
import sys
sys.addaudithook(lambda event, arguments: print("CONNECTS", arguments) if event == "socket.connect" else None)
from napari_unet import Segmenter
print(type(Segmenter.load("phantoms", "cpu", "openvino").runtime).__name__, "openvino_telemetry" in sys.modules)
"""
    outside_ci = {name: value for name, value in os.environ.items() if name not in ("CI", "GITHUB_ACTIONS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=outside_ci | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)})  # fmt: skip
    assert done.stdout.split() == ["OpenVINORuntime", "False"] and not list(tmp_path.glob("*ntel*"))
