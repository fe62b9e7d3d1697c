"""Volume -> what the network sees, and its logits back onto the volume's own grid: one definition for training and use.

The network's axes are (z, y, x), running towards `spec.orientation`. Between the volume's turned axes and the network's
lies one scale and shift per axis, so that both ways are exact and can be taken slab by slab.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, NormalizeIntensity, ScaleIntensityRange, Spacing, Transform
from numpy.typing import NDArray
from torch import Tensor

from napari_unet.checks import check_image
from napari_unet.errors import UNetError
from napari_unet.files import check_memory
from napari_unet.loss import UNLABELLED
from napari_unet.partial import labelled
from napari_unet.spec import Channel, ModelSpec
from napari_unet.volume import Reorientation, Volume

SAME_SPACING = 0.02  # relative; resampling for less blurs more than it corrects


@dataclass(frozen=True)
class Prepared:
    """A volume as the network sees it, and the way back.

    data : float32 (C, z, y, x); turn : the volume's axes to (z, y, x); shape : the volume's own, turned;
    scale, shift : network index = scale * turned index + shift, per axis.
    """

    data: Tensor
    turn: Reorientation
    shape: tuple[int, int, int]
    scale: tuple[float, float, float]
    shift: tuple[float, float, float]


class NormalizeChannels(Transform):
    """Each channel by its own rule, with MONAI's intensity transforms. Input and output (C, ...) float32."""

    def __init__(self, channels: tuple[Channel, ...]) -> None:
        self.rules = [_intensity(channel) for channel in channels]

    def __call__(self, image: Any) -> Any:
        for index, rule in enumerate(self.rules):
            image[index] = rule(image[index])
        return image


def _intensity(channel: Channel) -> Compose:
    if channel.scheme == "zscore":
        return Compose([NormalizeIntensity()])
    low, high = channel.low, channel.high
    return Compose([ScaleIntensityRange(low, high, low, high, clip=True),
                    NormalizeIntensity(subtrahend=channel.mean, divisor=channel.std)])  # fmt: skip


def prepare(volume: Volume, spec: ModelSpec) -> Prepared:
    """Turn, normalise and resample a volume for a model.

    Raises UNetError for the wrong number of channels, for voxels that are not finite or all alike, before or after
    normalisation (each would become a clean empty mask), and where the resampled volume does not fit into memory.
    """
    check_fits(volume, spec)
    check_image(volume)
    turn, turned, ratio = _turn(volume, spec)
    channels_first = np.moveaxis(turned.reshape((*turned.shape[:3], -1)), -1, 0)
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        image = torch.from_numpy(np.array(channels_first, np.float32, order="C"))
    image = NormalizeChannels(spec.channels)(image)
    _check_contrast(image, volume, spec)
    image = _spacing("bilinear")(_in_model_voxels(image, ratio))
    step = np.diag(np.asarray(image.affine))[:3]
    shift = -np.asarray(image.affine)[:3, 3] / step
    z, y, x = turned.shape[:3]
    scale = ratio / step
    return Prepared(image.as_tensor().contiguous(), turn, (z, y, x), tuple(scale.tolist()), tuple(shift.tolist()))


def _check_contrast(image: Tensor, volume: Volume, spec: ModelSpec) -> None:
    """UNetError where normalisation left nothing to see, as when a clip range lies elsewhere or single precision ends."""
    for index, channel in enumerate(spec.channels):
        if not (torch.isfinite(image[index]).all() and image[index].min() < image[index].max()):
            data = volume.data[..., index] if volume.data.ndim == 4 else volume.data
            raise UNetError(volume.source, f"nothing is left of channel {index} ({channel.name}), {data.min():g} to {data.max():g}, "
                            "after normalisation", "Check that its modality and units are those the model reads")  # fmt: skip


def with_neighbours(data: Tensor, slices: slice, k: int) -> Tensor:
    """Some slices of (C, z, y, x), each with the k on either side of it as channels: (C * (2 k + 1), slices, y, x).

    The first channel's z-k..z+k come first, then the second's. Beyond the volume its outermost slice is repeated.
    """
    if not k:
        return data[:, slices]
    offsets = torch.arange(-k, k + 1)[:, None] + torch.arange(slices.start, slices.stop)
    return data[:, offsets.clamp(0, data.shape[1] - 1)].flatten(0, 1)


def prepare_labels(labels: Volume, spec: ModelSpec) -> Tensor:
    """A mask as class indices on the grid that `prepare` gives its image: uint8 (z, y, x), UNLABELLED where nobody labelled."""
    _, turned, ratio = _turn(labels, spec)
    classes = classes_of(turned, spec, labels.source)[None]
    nearest = _spacing("nearest")(_in_model_voxels(torch.from_numpy(classes.astype(np.float32)), ratio))
    return nearest.as_tensor()[0].to(torch.uint8).contiguous()  # type: ignore[no-any-return]


def classes_of(values: NDArray[Any], spec: ModelSpec, source: str) -> NDArray[np.uint8]:
    """Mask values -> class indices (0 is background; `loss.UNLABELLED`, what the mask says nobody labelled).

    Raises UNetError for a value that the model does not know.
    """
    table = np.full(65536, UNLABELLED, np.uint8)
    table[[0, *(label.value for label in spec.labels)]] = np.arange(len(spec.labels) + 1)
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.uint16, copy=False)
    classes: NDArray[np.uint8] = table[whole]
    meant = labelled(values)
    classes[~meant] = UNLABELLED
    unknown = ((classes == UNLABELLED) | (whole != values)) & meant
    if unknown.any():
        known = [label.value for label in spec.labels]
        raise UNetError(source, f"the mask value {values[unknown].flat[0]} is none of 0 and {known}",
                        "Add it to the labels or correct it")  # fmt: skip
    return classes


def values_of(classes: Tensor, spec: ModelSpec) -> NDArray[Any]:
    """Class indices -> mask values, as uint8, or uint16 where a value needs it."""
    values = np.array([0, *(label.value for label in spec.labels)])
    return np.asarray(values.astype(label_dtype(spec))[classes.cpu().numpy()])


def label_dtype(spec: ModelSpec) -> np.dtype[Any]:
    """The type of the model's masks."""
    return np.dtype(np.uint8 if max(label.value for label in spec.labels) < 256 else np.uint16)


def check_fits(volume: Volume, spec: ModelSpec) -> None:
    """UNetError where a volume does not have the model's channels."""
    if volume.channels != len(spec.channels):
        names = ", ".join(channel.name for channel in spec.channels)
        raise UNetError(volume.source, f"{volume.channels} channels, the model {spec.name} reads {len(spec.channels)} ({names})",
                        "Choose one of its volumes (--volume), or give the model's channels")  # fmt: skip


def _turn(volume: Volume, spec: ModelSpec) -> tuple[Reorientation, NDArray[Any], NDArray[np.float64]]:
    """The way to the network's axes, the turned voxels, and the network's voxels per voxel along (z, y, x)."""
    turn = Reorientation.between(volume.affine, spec.orientation)
    spacing = np.array([volume.spacing[axis] for axis in turn.axes])
    target = np.where(np.array(spec.spacing) > 0, spec.spacing, spacing)
    ratio = spacing / target
    ratio[np.abs(ratio - 1) < SAME_SPACING] = 1
    turned = turn.apply(volume.data)
    size = np.ceil((np.array(turned.shape[:3]) - 1) * ratio) + 1
    check_memory(int(4 * (len(spec.channels) + spec.network.classes) * size.prod()), volume.source)
    return turn, turned, ratio


def _in_model_voxels(image: Tensor, ratio: NDArray[np.float64]) -> MetaTensor:
    """With an affine in units of the network's voxels: `Spacing` compares absolute millimetres, too coarse for microns."""
    return MetaTensor(image, affine=torch.as_tensor(np.diag((*ratio, 1.0))))


def _spacing(mode: str) -> Spacing:
    return Spacing((1.0, 1.0, 1.0), mode=mode, padding_mode="border", dtype=np.float32)


def resample_axis(logits: Tensor, axis: int, scale: float, shift: float, size: int) -> Tensor:
    """Linear interpolation along one axis at positions scale * i + shift, i < size; the border is continued."""
    if scale == 1 and shift == 0 and logits.shape[axis] == size:
        return logits
    low, high, weight = neighbours(scale, shift, size, logits.shape[axis])
    index = torch.as_tensor(low, device=logits.device), torch.as_tensor(high, device=logits.device)
    shape = [1] * logits.ndim
    shape[axis] = size
    share = torch.as_tensor(weight, dtype=logits.dtype, device=logits.device).reshape(shape)
    return torch.lerp(logits.index_select(axis, index[0]), logits.index_select(axis, index[1]), share)


def neighbours(
    scale: float, shift: float, size: int, available: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For positions scale * i + shift, i < size: the two of `available` samples around each, and the upper one's share.

    Both are one where a position is a sample's own, so that no other has to be waited for.
    """
    position = np.clip(scale * np.arange(size) + shift, 0, available - 1)
    low = np.floor(position)
    return low.astype(np.int64), np.ceil(position).astype(np.int64), position - low
