"""How each channel's intensities are normalised, with MONAI's transforms, from what the whole of it is like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, NormalizeIntensity, ScaleIntensityRange, Transform
from numpy.typing import NDArray

from napari_unet.errors import UNetError
from napari_unet.intensities import Intensities, of_channels
from napari_unet.spec import Channel, ModelSpec
from napari_unet.volume import Volume


class NormalizeChannels(Transform):
    """Each channel by its own rule, with MONAI's intensity transforms. Input and output (C, ...) float32, of any part.

    facts : what the whole channel is like, on which all but "clip" rely. Called with a `mask` of the part, it leaves "masked" channels
    0 outside of it.
    """

    def __init__(self, channels: Sequence[Channel], facts: Sequence[Intensities]) -> None:
        self.rules = [_intensity(channel, of) for channel, of in zip(channels, facts, strict=True)]
        self.masked = [channel.scheme == "masked" for channel in channels]

    def __call__(self, image: Any, mask: NDArray[np.bool_] | None = None) -> Any:
        for index, rule in enumerate(self.rules):
            image[index] = rule(image[index])
            if mask is not None and self.masked[index]:
                image[index][torch.from_numpy(~mask)] = 0
        return image


def _intensity(channel: Channel, of: Intensities) -> Compose:
    if channel.scheme in ("zscore", "masked"):
        return Compose([NormalizeIntensity(of.mean, of.std)])
    if channel.scheme == "minmax":
        return Compose([NormalizeIntensity(of.low, of.high - of.low)])
    if channel.scheme == "none":
        return Compose([])
    low, high = channel.low, channel.high
    return Compose([ScaleIntensityRange(low, high, low, high, clip=True),
                    NormalizeIntensity(subtrahend=channel.mean, divisor=channel.std)])  # fmt: skip


def normalisation(volume: Volume, turned: NDArray[Any], mask: NDArray[np.bool_] | None, spec: ModelSpec) -> NormalizeChannels:
    """Each channel's rule for a volume whose voxels are `turned` (z, y, x, C), "masked" ones by what is inside the mask (z, y, x).

    Raises UNetError where a channel's voxels are not finite or all alike, before or after normalisation.
    """
    facts = _facts(volume, turned, mask, spec)
    normalise = NormalizeChannels(spec.channels, facts)
    _check_contrast(normalise, facts, volume.source, spec)
    return normalise


def _facts(volume: Volume, turned: NDArray[Any], mask: NDArray[np.bool_] | None, spec: ModelSpec) -> list[Intensities]:
    """What each channel is like, a "masked" one inside the mask."""
    facts = of_channels(volume, turned)
    if mask is None:
        return facts
    zeros = mask.size - int(np.count_nonzero(mask))
    masked = (channel.scheme == "masked" for channel in spec.channels)
    return [of.without_zeros(zeros, mask.size) if each else of for each, of in zip(masked, facts, strict=True)]


def _check_contrast(normalise: NormalizeChannels, facts: list[Intensities], source: str, spec: ModelSpec) -> None:
    """UNetError where normalisation leaves nothing to see, as when a clip range lies elsewhere or single precision ends."""
    bounds = normalise(torch.tensor([[of.low, of.high] for of in facts], dtype=torch.float32))
    for index, (channel, of, (low, high)) in enumerate(zip(spec.channels, facts, bounds.tolist(), strict=True)):
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UNetError(source, f"nothing is left of channel {index} ({channel.name}), {of.low:g} to {of.high:g}, "
                            "after normalisation", "Check that its modality and units are those the model reads")  # fmt: skip
