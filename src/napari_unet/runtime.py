"""What runs a model's networks: windows in, logits out, in order."""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from napari_unet.calibration import Ranges
from napari_unet.errors import UNetError, first_line
from napari_unet.network import UNet
from napari_unet.running import RUNTIMES
from napari_unet.torch_runtime import TorchRuntime, choose_device


class Runtime(Protocol):
    """A model's networks, ready to run."""

    in_flight: int  # windows in memory at once, at most
    feature_maps: float  # floats of the main memory per voxel and feature of the finest level; one window less than in flight takes them

    def place(self, nbytes: int) -> torch.device:
        """Where logits are to be added up that take so many bytes: where they are computed, if that has the memory."""

    def each(self, windows: Iterable[Tensor], in_flight: int | None = None, count: int | None = None) -> Generator[Tensor]:
        """Logits (members, K, z, y, x), float32 where they are computed, of each window (C, z, y, x), in order; mirrored copies averaged.

        Windows are drawn as they are needed, at most `in_flight` of them at a time where it is given. `count` tells how many there
        are, all of one shape, where that is known: a lone one, or many, may be run in a quicker way. Closing the generator leaves
        nothing running. Raises UNetError where logits are not finite, or memory does not suffice.
        """


def choose_runtime(device: str = "auto", runtime: str = "auto") -> tuple[torch.device, str]:
    """The device by name, and the runtime that is fastest there unless one is asked for.

    Raises UNetError where one of them is missing, or where they do not go together.
    """
    if runtime not in ("auto", *RUNTIMES):
        raise UNetError("runtime", f"there is no {runtime!r}", f"Use auto, {' or '.join(RUNTIMES)}")
    place = choose_device("cpu" if (device, runtime) == ("auto", "openvino") else device)
    if runtime == "openvino" and place.type != "cpu":
        raise UNetError("runtime", f"OpenVINO runs on the CPU, not on {place}", "Use --device cpu or --runtime torch")
    if runtime == "openvino" and (fault := _openvino_missing()):
        raise UNetError("runtime", f"OpenVINO cannot be imported ({fault})",
                        'Run pip install "napari-unet-monai[openvino]", or use --runtime torch')  # fmt: skip
    faster = place.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64") and not _openvino_missing()
    return place, ("openvino" if faster else "torch") if runtime == "auto" else runtime


def _openvino_missing() -> str:
    """Why OpenVINO cannot be imported; "" where it can."""
    try:
        import napari_unet.quiet_openvino  # noqa: F401 - is it there?
    except ImportError as error:
        return first_line(error)
    return ""


def start_runtime(
    networks: Sequence[UNet], mirror_axes: tuple[int, ...], runtime: str = "torch", ranges: Ranges | None = None,
    background: bool = False,
) -> Runtime:  # fmt: skip
    """Networks made ready by the runtime of that name, which then follows torch's number of threads. Raises UNetError.

    With `ranges` (see `Calibration`) they run in 8-bit integers, which only OpenVINO can; in the `background`, on a processor, they
    give way to other threads (see `threads.giving_way`).
    """
    if runtime == "openvino":
        from napari_unet.openvino_runtime import OpenVINORuntime

        return OpenVINORuntime(networks, mirror_axes, ranges, background)
    if ranges is not None:
        raise UNetError("precision", f"int8 with {runtime}", "Use --runtime openvino, or leave out --precision int8")
    return TorchRuntime(networks, mirror_axes, background)
