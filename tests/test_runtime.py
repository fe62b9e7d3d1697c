"""One forward pass: the same network from a file's tensors, mirrored copies averaged, and no silent NaN."""

from __future__ import annotations

import platform
import re
import sys
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from engine import network_spec, random_network

from napari_unet.errors import UNetError
from napari_unet.running import DEVICES, RUNTIMES
from napari_unet.runtime import choose_runtime
from napari_unet.schema import describe
from napari_unet.settings import TrainConfig
from napari_unet.torch_runtime import build, choose_device, forward

CPU = torch.device("cpu")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["instance", "group", "batch", "none"])
def test_a_network_is_rebuilt_from_its_tensors(norm: str, dims: int) -> None:
    spec = network_spec(dims, channels=2, norm=norm)
    network = random_network(spec)
    tensors = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    rebuilt = build(spec, tensors, CPU)
    x = torch.randn(2, 2, *(8,) * dims)
    with torch.inference_mode():
        torch.testing.assert_close(rebuilt(x), network(x), atol=1e-5, rtol=1e-5)
    assert not rebuilt.training
    for value in tensors.values():
        value[:] = 0
    assert any(p.abs().max() > 0 for p in rebuilt.parameters()), "the network has memory of its own"


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2), (2, 0)])
def test_mirroring_is_the_mean_over_mirrored_runs(axes: tuple[int, ...]) -> None:
    network, x = random_network(network_spec(classes=3)), torch.randn(2, 1, 8, 12, 16)
    subsets = list(chain.from_iterable(combinations([a + 2 for a in axes], n) for n in range(len(axes) + 1)))
    assert len(subsets) == 2 ** len(axes)
    with torch.inference_mode():
        runs = [torch.flip(network(torch.flip(x, flips)), flips) for flips in subsets]
    torch.testing.assert_close(forward(network, x, axes), torch.stack(runs).mean(0), atol=1e-5, rtol=1e-5)


def test_a_2d_network_takes_a_slice() -> None:
    network, x = random_network(network_spec(dims=2, classes=3)), torch.randn(3, 1, 1, 8, 12)
    with torch.inference_mode():
        expected = network(x[:, :, 0])
    torch.testing.assert_close(forward(network, x)[:, :, 0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_logits_that_are_not_finite_are_no_logits(value: float) -> None:
    network = random_network(network_spec(norm="none"))
    with torch.no_grad():
        network.decoder.seg_layers[-1].weight[0] = value
    with pytest.raises(UNetError, match=r"network: its logits are not finite\. Train"):
        forward(network, torch.randn(1, 1, 8, 8, 8))


def test_what_torch_cannot_run_is_a_clear_error() -> None:
    """A RuntimeError, as torch raises it when memory ends, would be swallowed by napari's workers."""
    network = random_network(network_spec())
    with pytest.raises(UNetError, match=r"network: windows of \(8, 8, 8\) cannot be run on cpu \(.+\)\. Close") as caught:
        forward(network, torch.randn(1, 2, 8, 8, 8))
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("place", ["cpu", "auto"])
def test_a_runtime_chosen_by_name(place: str) -> None:
    assert choose_runtime(place, "torch") == (choose_device(place), "torch")
    assert choose_runtime(place)[1] in RUNTIMES


def test_the_preferences_and_training_offer_what_there_is() -> None:
    manifest = yaml.safe_load((Path(__file__).parents[1] / "napari.yaml").read_text("utf-8"))
    offered = manifest["contributions"]["configurations"]["running"]["properties"]
    assert offered["device"]["enum"] == ["auto", *DEVICES] and offered["runtime"]["enum"] == ["auto", *RUNTIMES]
    assert set(re.findall(r"\w+", describe(TrainConfig)["device"][1].description)) == {"auto", "or", *DEVICES}


def test_a_runtime_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "napari_unet.quiet_openvino", raising=False)  # and was never asked for
    assert choose_runtime("cpu") == (CPU, "torch")
    with pytest.raises(UNetError, match=r'^runtime: OpenVINO cannot be imported .+ Run pip install "napari-unet-monai\[openvino\]", or'):
        choose_runtime("auto", "openvino")
    with pytest.raises(UNetError, match=r"^runtime: there is no 'onnx'\. Use auto, torch or openvino\.$"):
        choose_runtime("cpu", "onnx")


def test_openvino_runs_on_the_cpu_only() -> None:
    with pytest.raises(UNetError, match=r"^runtime: OpenVINO runs on the CPU, not on meta\. Use --device cpu or --runtime torch\.$"):
        choose_runtime("meta", "openvino")
    pytest.importorskip("napari_unet.quiet_openvino")
    assert choose_runtime("auto", "openvino") == (CPU, "openvino")
    assert (choose_runtime("cpu")[1] == "openvino") == (platform.machine().lower() in ("x86_64", "amd64"))


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device().type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "mps:7", "xpu", "vulkan", "cpu cuda"])
def test_a_missing_device_is_named(name: Any) -> None:
    with pytest.raises(UNetError, match=rf"^device: '{name}' cannot be used \(.+\)\. Use auto, cpu, cuda or mps\.$") as caught:
        choose_device(name)
    assert "Expected one of" not in str(caught.value), "torch's list of all that it ever knew helps nobody"
