"""Volume -> what the network sees, and its logits back onto the volume's own grid: one definition for training and use.

The network's axes are (z, y, x), running towards `spec.orientation`. Between the volume's turned axes and the network's
lies one scale and shift per axis, so that both ways are exact and can be taken slab by slab.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing
from numpy.typing import NDArray
from torch import Tensor

from napari_unet.errors import UNetError
from napari_unet.loss import IGNORE_INDEX
from napari_unet.memory import SMALL
from napari_unet.nonzero import nonzero_box, nonzero_mask
from napari_unet.normalisation import NormalizeChannels, normalisation
from napari_unet.partial import labelled
from napari_unet.ram import check_memory
from napari_unet.resizing import coarse_axis, memory_for, nearest, resized
from napari_unet.spacing import network_grid
from napari_unet.spec import ModelSpec
from napari_unet.volume import Reorientation, Volume
from napari_unet.windows import Three
from napari_unet.words import counted

Scale = tuple[float, float, float]
Neighbours = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
FINER = 8.0  # times the volume's own voxels: a grid of more has to fit into memory, or nobody would see its end


@dataclass(frozen=True)
class Prepared:
    """A volume as the network sees it, cut out where it is needed, and the way back.

    turned : the volume's own voxels, a view (z, y, x, C), or the box of them that is looked at; normalise : each channel's rule;
    size : the network's grid; turn : the volume's axes to (z, y, x); shape : that of `turned`;
    scale, shift : network index = scale * turned index + shift, per axis; source : the file or layer, for messages;
    begin : the box's first voxel in the whole volume, turned; mask : where "masked" channels are not 0;
    coarse : an axis along which the nearest of the network's slices is taken; whole : `data`, where it was made already, as on a
    card (see `on`).
    """

    turned: NDArray[Any]
    normalise: NormalizeChannels
    size: tuple[int, int, int]
    turn: Reorientation
    shape: tuple[int, int, int]
    scale: Scale
    shift: Scale
    source: str
    begin: Three = (0, 0, 0)
    mask: NDArray[np.bool_] | None = None
    coarse: int | None = None
    whole: Tensor | None = None

    @property
    def values(self) -> int:
        """How many there are in `data`."""
        return int(self.turned.shape[3]) * math.prod(self.size)

    @cached_property
    def data(self) -> Tensor:
        """All of it: float32 (C, z, y, x). Raises UNetError where that does not fit into memory."""
        if self.whole is not None:
            return self.whole
        check_memory(4 * self.values, self.source)
        return self._cut(*(slice(0, n) for n in self.size))

    def on(self, device: torch.device) -> Prepared:
        """The same with `data` on a device, brought there slab by slab: of windows that overlap, each voxel once."""
        if self.whole is not None:
            return replace(self, whole=self.whole.to(device))
        z, y, x = self.size
        whole = torch.empty(self.turned.shape[3], z, y, x, device=device)
        step = max(1, SMALL * z // self.values)
        for begin in range(0, z, step):
            part = slice(begin, min(begin + step, z))
            whole[:, part] = self._cut(part, slice(0, y), slice(0, x))
        return replace(self, whole=whole)

    def box(self, *where: slice) -> Tensor:
        """A part of `data`, to the bit: float32 (C, *where), of slices along (z, y, x) inside the grid."""
        if self.whole is not None:
            return self.whole[(slice(None), *where)]
        if isinstance(self.turned, np.ndarray) and self.values <= SMALL:
            return self.data[(slice(None), *where)]
        return self._cut(*where)

    def _cut(self, *where: slice) -> Tensor:
        found, read = [], []
        for axis, part in enumerate(where):
            scale, shift = 1 / self.scale[axis], -self.shift[axis] / self.scale[axis]
            low, high, share = neighbours(scale, shift, part.stop - part.start, self.shape[axis], part.start)
            read.append(slice(int(low.min()), int(high.max()) + 1))
            found.append((low - read[-1].start, high - read[-1].start, share))
        image = self.normalised(*read)
        for axis, (low, high, share) in enumerate(found, 1):
            image = _between(image, axis, low, high, share)
        return image.contiguous()

    def normalised(self, *where: slice) -> Tensor:
        """A part of the volume's own voxels, each channel by its rule: float32 (C, *where)."""
        with np.errstate(over="ignore"):  # what overflows is infinite, and was refused as such
            voxels = np.array(np.moveaxis(self.turned[where], -1, 0), np.float32, order="C")
        return self.normalise(torch.from_numpy(voxels), None if self.mask is None else self.mask[where])  # type: ignore[no-any-return]

    def back(self, axis: int) -> Neighbours:
        """For each of the volume's own slices along an axis, the network's slices around it (see `neighbours`)."""
        if axis != self.coarse:
            return neighbours(self.scale[axis], self.shift[axis], self.shape[axis], self.size[axis])
        own = nearest(self.shape[axis], self.size[axis])
        return own, own, np.zeros(len(own))

    def restored(self, logits: Tensor, dim: int, axis: int) -> Tensor:
        """Logits whose dimension `dim` runs along an axis of the network's grid, on the volume's own."""
        return _between(logits, dim, *self.back(axis))


def prepare(volume: Volume, spec: ModelSpec) -> Prepared:
    """How a volume is turned, normalised and resampled for a model; its voxels are read once, for their statistics.

    Of a model that crops (`nonzero`), the statistics are those of the box. One that resamples cubically has all of the image
    resampled here, unless it has the model's grid already.

    Raises UNetError for the wrong number of channels, for voxels that are not finite or all alike, before or after
    normalisation (each would become a clean empty mask), and for a grid that is so much finer than the volume's that it
    does not fit into memory.
    """
    check_fits(volume, spec)
    turn = Reorientation.between(volume.affine, spec.orientation)
    turned = turn.apply(volume.data)
    turned = turned if turned.ndim == 4 else turned[..., np.newaxis]
    mask = nonzero_mask(turned, volume.source) if any(channel.scheme == "masked" for channel in spec.channels) else None
    where = nonzero_box(turned if mask is None else mask[..., np.newaxis]) if spec.crop else (slice(None),) * 3
    turned, mask = turned[where], mask if mask is None else mask[where]
    z, y, x = turned.shape[:3]
    ratio, size = _grid(volume, turn.undo_shape((z, y, x)), spec)
    whole = spec.resampling == "cubic" and size != (z, y, x)
    if whole:
        check_memory(memory_for(turned.shape[3], (z, y, x), size), volume.source)
        turned = np.asarray(turned)  # what lies elsewhere is read once, not for its statistics first
    normalise = normalisation(volume, turned, mask, spec)
    begin = (where[0].start or 0, where[1].start or 0, where[2].start or 0)
    found = Prepared(turned, normalise, size, turn, (z, y, x), ratio, (0.0, 0.0, 0.0), volume.source, begin, mask)
    return _resized(found, volume, spec) if whole else found


def _resized(prepared: Prepared, volume: Volume, spec: ModelSpec) -> Prepared:
    """The same with all of the image resampled cubically (`resizing`)."""
    own = [volume.spacing[axis] for axis in prepared.turn.axes]
    wanted = [mm or its for mm, its in zip(spec.spacing, own, strict=True)]
    image = prepared.normalised(*(slice(0, n) for n in prepared.shape)).numpy()
    whole = torch.from_numpy(resized(image, prepared.size, coarse_axis(own, wanted)))
    z, y, x = (scale / 2 - 0.5 for scale in prepared.scale)
    return replace(prepared, shift=(z, y, x), coarse=coarse_axis(wanted, own), whole=whole)


def window(prepared: Prepared, where: Sequence[slice], k: int) -> Tensor:
    """A part of what the network sees, `with_neighbours`: float32 (C, *where), where slices lie inside the grid."""
    z, y, x = where
    near = slice(max(0, z.start - k), min(prepared.size[0], z.stop + k))
    return with_neighbours(prepared.box(near, y, x), slice(z.start - near.start, z.stop - near.start), k)


def with_neighbours(data: Tensor, slices: slice, k: int) -> Tensor:
    """Some slices of (C, z, y, x), each with the k on either side of it as channels: (C * (2 k + 1), slices, y, x).

    The first channel's z-k..z+k come first, then the second's. Beyond the volume its outermost slice is repeated.
    """
    if not k:
        return data[:, slices]
    offsets = torch.arange(-k, k + 1)[:, None] + torch.arange(slices.start, slices.stop)
    return data[:, offsets.clamp(0, data.shape[1] - 1)].flatten(0, 1)


def prepare_labels(labels: Volume, spec: ModelSpec) -> Tensor:
    """A mask as class indices on the grid that `prepare` gives its image: uint8 (z, y, x), IGNORE_INDEX where nobody labelled."""
    turned = Reorientation.between(labels.affine, spec.orientation).apply(labels.data)
    ratio, _ = _grid(labels, labels.shape, spec)
    classes = classes_of(turned, spec, labels.source)[None]
    # its affine is in units of the network's voxels: `Spacing` compares absolute millimetres, too coarse for microns
    image = MetaTensor(torch.from_numpy(classes.astype(np.float32)), affine=torch.as_tensor(np.diag((*ratio, 1.0))))
    nearest = Spacing((1.0, 1.0, 1.0), mode="nearest", padding_mode="border", dtype=np.float32)(image)
    return nearest.as_tensor()[0].to(torch.uint8).contiguous()  # type: ignore[no-any-return]


def classes_of(values: NDArray[Any], spec: ModelSpec, source: str) -> NDArray[np.uint8]:
    """Mask values -> class indices (0 is background; `loss.IGNORE_INDEX`, what the mask says nobody labelled).

    Raises UNetError for a value that the model does not know.
    """
    table = np.full(65536, IGNORE_INDEX, np.uint8)
    table[[0, *spec.values]] = np.arange(len(spec.labels) + 1)
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.uint16, copy=False)
    classes: NDArray[np.uint8] = table[whole]
    meant = labelled(values)
    classes[~meant] = IGNORE_INDEX
    unknown = ((classes == IGNORE_INDEX) | (whole != values)) & meant
    if unknown.any():
        raise UNetError(source, f"the mask value {values[unknown].flat[0]} is none of 0 and {list(spec.values)}",
                        "Add it to the labels or correct it")  # fmt: skip
    return classes


def values_of(classes: Tensor, spec: ModelSpec) -> NDArray[Any]:
    """Class indices -> mask values, as uint8, or uint16 where a value needs it."""
    return np.asarray(np.array([0, *spec.values], spec.label_dtype)[classes.cpu().numpy()])


def check_fits(volume: Volume, spec: ModelSpec) -> None:
    """UNetError where a volume does not have the model's channels."""
    if volume.channels != len(spec.channels):
        names = ", ".join(channel.name for channel in spec.channels)
        raise UNetError(volume.source, f"{counted(volume.channels, 'channel')}, the model {spec.name} reads {len(spec.channels)} ({names})",
                        "Choose one of its volumes (--volume), or give the model's channels")  # fmt: skip


def _grid(volume: Volume, shape: Three, spec: ModelSpec) -> tuple[Scale, Three]:
    """For a box of this shape (i, j, k) of a volume, the network's voxels per voxel along (z, y, x), and its grid's size."""
    _, (z, y, x), size = network_grid(volume.affine, shape, spec)
    if math.prod(size) > FINER * math.prod(shape):
        check_memory(4 * (len(spec.channels) + spec.network.classes) * math.prod(size), volume.source)
    return (float(z), float(y), float(x)), size


def resample_axis(logits: Tensor, axis: int, scale: float, shift: float, size: int) -> Tensor:
    """Linear interpolation along one axis at positions scale * i + shift, i < size; the border is continued."""
    if scale == 1 and shift == 0 and logits.shape[axis] == size:
        return logits
    return _between(logits, axis, *neighbours(scale, shift, size, logits.shape[axis]))


def _between(
    values: Tensor, axis: int, low: NDArray[np.int64], high: NDArray[np.int64], share: NDArray[np.float64]
) -> Tensor:
    """Linear interpolation between the samples `low` and `high` along an axis; the same for a part as for all, to the bit."""
    if not share.any():
        return values if np.array_equal(low, np.arange(values.shape[axis])) else values.index_select(axis, _on(values.device, low))
    index = [_on(values.device, numbers) for numbers in (low, high)]
    shape = [-1 if a == axis else 1 for a in range(values.ndim)]
    weight = torch.as_tensor(share, dtype=values.dtype, device=values.device).reshape(shape)
    below, above = (values.index_select(axis, numbers) for numbers in index)
    return (above - below).mul_(weight).add_(below)  # in steps that round alike, whichever loop of torch takes a voxel


def _on(device: torch.device, numbers: NDArray[np.int64]) -> Tensor:
    return torch.as_tensor(numbers, device=device)


def neighbours(scale: float, shift: float, size: int, available: int, first: int = 0) -> Neighbours:
    """For positions scale * i + shift, first <= i < first + size: the two of `available` samples around each, and the
    upper one's share.

    Both are one where a position is a sample's own, so that no other has to be waited for.
    """
    position = np.clip(scale * np.arange(first, first + size) + shift, 0, available - 1)
    low = np.floor(position)
    return low.astype(np.int64), np.ceil(position).astype(np.int64), position - low
