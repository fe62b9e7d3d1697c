"""torch: devices, one forward pass, and the runtime that is always there."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import combinations, groupby, islice
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_unet.errors import UNetError, first_line
from napari_unet.memory import FEATURE_MAPS
from napari_unet.network import UNet
from napari_unet.spec import NetworkSpec
from napari_unet.threads import giving_way

T = TypeVar("T")
PAIR = 2  # windows: of a batch of one, torch computes small convolutions by itself, not by oneDNN, and takes nearly twice as long
MOST = 16  # windows of a batch on a card, where launching a kernel takes longer than a window does


def choose_device(name: str = "auto") -> torch.device:
    """The device by name (cpu, cuda, cuda:1, mps); auto takes the fastest there is. UNetError where it is missing."""
    if name == "auto":
        mps = torch.backends.mps.is_available() and computes_volumes(torch.device("mps"))
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = "torch knows no such device" if "Expected one of" in str(error) else first_line(error)
        raise UNetError("device", f"{name!r} cannot be used ({why})", "Use auto, cpu, cuda or mps") from error
    return device


def computes_volumes(device: torch.device) -> bool:
    """Whether torch has all of a 3-D U-Net and its training on a device; on Apple's cards it had not before 2.8 (pytorch 154615)."""
    try:
        x = torch.ones(1, 1, 2, 2, 2, device=device, requires_grad=True)
        larger = functional.conv_transpose3d(functional.conv3d(x, x.detach()[..., :1, :1, :1]), x.detach(), stride=2)
        functional.avg_pool3d(larger, 2).sum().backward()
    except (RuntimeError, AssertionError):  # and NotImplementedError, which is one
        return False
    return True


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
            logits = torch.zeros((), device=device)
            for some in _chunks(subsets, PAIR if len(batch) == 1 and device.type == "cpu" else 1):
                copies = _once(network, torch.cat([batch.flip(flips) for flips in some])).chunk(len(some))
                logits = logits + sum(copy.flip(flips) for copy, flips in zip(copies, some, strict=True))
            logits /= len(subsets)
    except (RuntimeError, MemoryError) as error:
        raise UNetError("network", f"windows of {tuple(windows.shape[2:])} cannot be run on {device} ({first_line(error)})",
                        "Close other programs, or run it on the CPU") from error  # fmt: skip
    return check_finite(logits)


def _chunks(values: Iterable[T], size: int) -> Generator[list[T]]:
    """So many at a time; what is left comes last."""
    values = iter(values)
    while some := list(islice(values, size)):
        yield some


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
    """torch, wherever the networks are: windows in batches, of two on a processor, on a card of as many as its memory holds."""

    def __init__(self, networks: Sequence[UNet], mirror_axes: tuple[int, ...], background: bool = False) -> None:
        self.networks, self.mirror_axes = networks, mirror_axes
        self.device = next(networks[0].parameters()).device
        self._thread = giving_way() if background and self.device.type == "cpu" else None
        self.in_flight = {"cpu": PAIR, "cuda": MOST}.get(self.device.type, 1)
        self.feature_maps = 0.0 if self.device.type == "cuda" else FEATURE_MAPS  # a card has a memory of its own

    def place(self, nbytes: int) -> torch.device:
        """See `runtime.Runtime.place`."""
        roomy = self.device.type == "cuda" and nbytes <= self._free() / 4
        return self.device if roomy else torch.device("cpu")

    def each(self, windows: Iterable[Tensor], in_flight: int | None = None, count: int | None = None) -> Generator[Tensor]:
        """See `runtime.Runtime.each`."""
        in_flight = min(in_flight or self.in_flight, self.in_flight)
        for shape, alike in groupby(windows, lambda window: window.shape):
            for some in _chunks(alike, self._at_once(shape, in_flight)):
                yield from self._members(torch.stack(some))

    def _members(self, batch: Tensor) -> Tensor:
        """Each member's logits of each window (B, M, K, z, y, x)."""

        def run() -> Tensor:
            return torch.stack([forward(network, batch, self.mirror_axes) for network in self.networks], 1)

        return run() if self._thread is None else self._thread.submit(run).result()

    def _at_once(self, shape: Sequence[int], in_flight: int) -> int:
        """How many windows of this shape (C, z, y, x) fit into half of what is free on a card."""
        if self.device.type != "cuda":
            return in_flight
        one = 4 * math.prod(shape[1:]) * FEATURE_MAPS * self.networks[0].spec.features[0]
        return max(1, min(in_flight, int(self._free() / 2 / one)))

    def _free(self) -> int:
        """Bytes of the card that nobody has."""
        return int(torch.cuda.mem_get_info(self.device)[0])
