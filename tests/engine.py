"""Small real parts for tests of the engine: specs, networks with random or chosen weights, volumes with something in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hostile import affine_for
from scipy.ndimage import gaussian_filter

from napari_unet.network import UNet
from napari_unet.segment import Segmenter
from napari_unet.spec import Channel, Label, ModelSpec, NetworkSpec
from napari_unet.volume import Reorientation, Volume

SPACING = (0.75, 1.5, 3.0)
torch.set_num_threads(1)  # on a busy machine the threads of a tiny network wait a hundred times longer than they compute


def network_spec(dims: int = 3, levels: int = 2, **changes: Any) -> NetworkSpec:
    """A network of a few hundred parameters."""
    defaults: dict[str, Any] = {
        "dims": dims, "channels": 1, "classes": 2, "features": tuple(4 * 2**n for n in range(levels)), "kernels": ((3,) * dims,) * levels,
        "strides": ((1,) * dims,) + ((2,) * dims,) * (levels - 1), "encoder_convs": (1,) * levels, "decoder_convs": (1,) * (levels - 1),
    }  # fmt: skip
    return NetworkSpec(**defaults | changes)


def model_spec(network: NetworkSpec | None = None, values: tuple[int, ...] = (), **changes: Any) -> ModelSpec:
    """A model of a network, with mask values 1, 2, ... or those given; it keeps each image's own spacing."""
    network = network or network_spec()
    values = values or tuple(range(1, network.classes))
    patch = (8, 8, 8) if network.dims == 3 else (1, 8, 8)
    channels = network.channels // (2 * changes.get("neighbours", 0) + 1)
    defaults: dict[str, Any] = {
        "name": "tiny", "network": network, "channels": tuple(Channel(f"channel {n}") for n in range(channels)),
        "labels": tuple(Label(value, f"class {value}", "#e6194b") for value in values), "orientation": "SAR", "spacing": (0.0, 0.0, 0.0),
        "patch": patch,
    }  # fmt: skip
    return ModelSpec(**defaults | changes)


def random_network(spec: NetworkSpec, seed: int = 0) -> UNet:
    """Random weights, every one of which matters to the outcome; no class is likelier than the others."""
    torch.manual_seed(seed)
    network = UNet(spec).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.ndim == 1:
                tensor += 0.3 * torch.rand_like(tensor) if name.endswith("var") else 0.3 * torch.randn_like(tensor)
        logits = network(torch.randn(1, spec.channels, *(4 * n for n in spec.total_stride)))
        last = network.decoder.seg_layers[-1]
        last.bias -= logits.flatten(2).mean((0, 2))
        spread = logits.flatten(2).std((0, 2))
        last.weight /= spread.reshape(-1, *(1,) * (spec.dims + 1))
        last.bias /= spread
    return network


def threshold_network(spec: NetworkSpec, threshold: float = 0.0, channel: int = 0) -> UNet:
    """A real U-Net whose weights pass one input channel on: the logits are 0 and x - threshold, voxel by voxel.

    A rectifier passes x as the difference of max(x, 0) and max(-x, 0).
    """
    assert spec.norm == "none" and spec.activation == "relu" and not spec.deep_supervision
    network = UNet(spec).eval()
    centre = tuple(k // 2 for k in spec.kernels[0])
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.zero_()
        first, last = network.encoder.stages[0][0].convs[0].conv, network.decoder.stages[-1].convs[0].conv
        for part, sign in ((0, 1.0), (1, -1.0)):
            first.weight[(part, channel, *centre)] = sign
            last.weight[(part, spec.features[0] + part, *centre)] = 1.0  # the skip lies behind what comes from below
            network.decoder.seg_layers[-1].weight[1, part] = sign
        network.decoder.seg_layers[-1].bias[1] = -threshold
    return network


def threshold_spec(dims: int = 3, channels: int = 1, classes: int = 2) -> NetworkSpec:
    """A network that `threshold_network` can fill."""
    return network_spec(dims, channels=channels, classes=classes, norm="none", activation="relu", deep_supervision=False)


def segmenter(spec: ModelSpec, seed: int = 0, **options: Any) -> Segmenter:
    """A segmenter with random weights."""
    return Segmenter(spec, random_network(spec.network, seed), **options)


def thresholder(spec: ModelSpec, threshold: float = 0.0, channel: int = 0, **options: Any) -> Segmenter:
    """A segmenter that finds what is brighter than a normalised threshold in one of the network's channels."""
    return Segmenter(spec, threshold_network(spec.network, threshold, channel), **options)


def volume(
    shape: tuple[int, ...] = (16, 18, 20), orientation: str = "RAS", spacing: tuple[float, ...] = SPACING, tilt: float = 0.0,
    seed: int = 0, dtype: Any = np.int16,
) -> Volume:  # fmt: skip
    """Smooth noise; a fourth axis holds channels."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = gaussian_filter(noise, [1.5] * 3 + [0] * (len(shape) - 3))
    scaled = smooth / np.abs(smooth).max() * (120 if np.dtype(dtype).itemsize == 1 else 1000)
    return Volume((scaled - scaled.min() * (np.dtype(dtype).kind == "u")).astype(dtype), affine_for(orientation, spacing, tilt))


def seen_as(image: Volume, orientation: str) -> Volume:
    """The same anatomy, its voxels stored in another order."""
    turn = Reorientation.between(image.affine, orientation)
    return Volume(np.ascontiguousarray(turn.apply(image.data)), turn.affine(image.affine, image.shape), source=orientation)
