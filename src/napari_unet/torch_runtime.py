"""torch: devices, one forward pass, and the runtime that is always there."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet.errors import UNetError, first_line
from napari_unet.memory import FEATURE_MAPS
from napari_unet.network import UNet
from napari_unet.spec import NetworkSpec


def choose_device(name: str = "auto") -> torch.device:
    """The device by name (cpu, cuda, cuda:1, mps); auto takes the fastest there is. UNetError where it is missing."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UNetError("device", f"{name!r} cannot be used ({first_line(error)})", "Use auto, cpu, cuda or mps") from error
    return device


def build(spec: NetworkSpec, tensors: Mapping[str, NDArray[Any]], device: torch.device) -> UNet:
    """A network for inference with these weights."""
    with torch.device("meta"):
        network = UNet(spec)
    network.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()}, strict=True, assign=True)
    return network.to(device).eval().in_fast_layout()


def forward(network: UNet, windows: Tensor, mirror_axes: tuple[int, ...] = ()) -> Tensor:
    """Logits of a batch (B, C, z, y, x), averaged over mirrored copies along any of `mirror_axes` (of z, y, x).

    A 2-D network takes windows of one slice. Raises UNetError where logits are not finite, or memory does not suffice.
    """
    subsets = mirrorings(mirror_axes)
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            batch = windows.to(device)
            logits = sum(_once(network, batch.flip(s)).flip(s) if s else _once(network, batch) for s in subsets) / len(subsets)
    except (RuntimeError, MemoryError) as error:
        raise UNetError("network", f"windows of {tuple(windows.shape[2:])} cannot be run on {device} ({first_line(error)})",
                        "Close other programs, or run it on the CPU") from error  # fmt: skip
    return check_finite(logits)  # type: ignore[arg-type]


def mirrorings(mirror_axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every set of axes of (B, C, z, y, x) to flip, the empty one first, where `mirror_axes` of z, y, x may be mirrored."""
    return [chosen for count in range(len(mirror_axes) + 1) for chosen in combinations([a + 2 for a in mirror_axes], count)]


def check_finite(logits: Tensor) -> Tensor:
    """The logits, or a UNetError."""
    # a sum is quicker to look at, and seldom infinite where none of them is
    if not (torch.isfinite(logits.sum()) or torch.isfinite(logits).all()):
        raise UNetError("network", "its logits are not finite", "Train the model anew, or run it on the CPU")
    return logits


def _once(network: UNet, batch: Tensor) -> Tensor:
    if network.spec.dims == 3:
        return network(batch)  # type: ignore[no-any-return]
    return network(batch[:, :, 0])[:, :, None]  # type: ignore[no-any-return]


class TorchRuntime:
    """torch, wherever the networks are: one window at a time."""

    in_flight, feature_maps = 1, FEATURE_MAPS

    def __init__(self, networks: Sequence[UNet], mirror_axes: tuple[int, ...]) -> None:
        self.networks, self.mirror_axes = networks, mirror_axes

    def each(self, windows: Iterable[Tensor], in_flight: int | None = None, count: int | None = None) -> Generator[Tensor]:
        """See `runtime.Runtime.each`."""
        for window in windows:
            yield torch.cat([forward(network, window[None], self.mirror_axes).cpu() for network in self.networks])
