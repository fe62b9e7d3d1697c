"""Prepared cases in memory -> batches, the same for one seed and step whoever asks and whenever.

Each sample is drawn from (seed, step, its number in the batch): so several processes can share a batch out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet.augment import Augmentation, source_size, to_device
from napari_unet.dataset import Case, read_image, read_label
from napari_unet.errors import UNetError
from napari_unet.fingerprint import of_voxels
from napari_unet.loss import IGNORE_INDEX, shares_of
from napari_unet.preprocess import prepare, prepare_labels, with_neighbours
from napari_unet.settings import TrainConfig
from napari_unet.spec import ModelSpec
from napari_unet.volume import Volume

MAX_VOXELS = 20_000  # per class and case: enough to draw centres from
ON_CARD = 0.5  # of a card's free memory that the cases may take
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Example:
    """A case as the network sees it: image float32 (C, z, y, x), label uint8 (z, y, x), where each class lies.

    labelled : where anything is labelled, of a case that is not labelled everywhere.
    """

    image: Tensor
    label: Tensor
    centres: tuple[NDArray[np.int32], ...]
    labelled: NDArray[np.int32] | None = None

    @classmethod
    def make(cls, image: Volume, label: Volume, spec: ModelSpec) -> Example:
        """Prepare a case, once; centres are lists of (z, y, x) per class that occurs.

        Raises UNetError where nothing is labelled, as when the model's coarser grid misses the only labelled slice.
        """
        data, classes = prepare(image, spec).data, prepare_labels(label, spec)
        centres = [_places(classes.numpy() == value) for value in range(1, spec.network.classes)]
        known = classes.numpy() != IGNORE_INDEX
        if not known.any():
            raise UNetError(label.source, "none of its voxels is labelled at the model's spacing",
                            "Label more slices, or give a finer --spacing")  # fmt: skip
        return cls(data, classes, tuple(c for c in centres if len(c)), None if known.all() else _places(known))


def read_example(case: Case, spec: ModelSpec) -> tuple[Example, str]:
    """A case to learn from, and its fingerprint."""
    image = read_image(case)
    label = read_label(case, image)
    return Example.make(image, label, spec), of_voxels(image, label)


def _places(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(z, y, x) of at most MAX_VOXELS voxels of a mask, evenly from all of it."""
    voxels = np.flatnonzero(mask)
    keep = np.linspace(0, len(voxels) - 1, min(len(voxels), MAX_VOXELS)).astype(int)
    return np.stack(np.unravel_index(voxels[keep], mask.shape), -1).astype(np.int32)


def place(examples: list[Example], device: torch.device) -> list[Example]:
    """The cases on the card where they take no more than a half of its free memory; otherwise where they are."""
    needed = sum(example.image.nbytes + example.label.nbytes for example in examples)
    if device.type != "cuda" or needed > ON_CARD * torch.cuda.mem_get_info(device)[0]:
        return examples
    return [replace(each, image=each.image.to(device), label=each.label.to(device)) for each in examples]


class Sampler:
    """Draws augmented batches: every case equally often, a share of the patches centred on a voxel of some class.

    The others lie anywhere; in a case that is not labelled everywhere, around a voxel that is. On a CUDA card crops are
    cut out of cases that lie there (see `place`) or sent to it, and augmented there.
    """

    def __init__(
        self, examples: list[Example], spec: ModelSpec, config: TrainConfig, device: torch.device = CPU
    ) -> None:
        self.device = device if device.type == "cuda" else CPU
        self.examples, self.config, self.network = place(examples, self.device), config, spec.network
        self.neighbours = spec.neighbours
        self.augmentation = cache(lambda strength: Augmentation(spec, strength))

    @property
    def voxels(self) -> int:
        """Of all cases, on the model's grid."""
        return sum(example.label.numel() for example in self.examples)

    def batch(
        self, step: int, first: int, patch: tuple[int, ...], size: int, own: Sequence[int] | None = None, strength: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images (B, C, *patch) and shares (B, K, *patch) of one step; `first` counts the samples drawn before it.

        C counts the network's channels: in 2.5-D a slice's neighbours, too.
        own : the numbers of those of the batch's `size` samples to draw, perhaps none; all of them, where None.
        strength : of their augmentation; None is the configured one. It is zero where, and only where, that is.
        """
        sources, seeds = [], []
        for n in range(size) if own is None else own:
            random = np.random.default_rng((self.config.seed, step, n))
            sources.append(self._crop(self._example(first + n), patch, random))
            seeds.append(int(random.integers(2**31)))
        if not sources:
            network = self.network
            nothing = [torch.zeros((0, count, *patch), device=self.device) for count in (network.channels, network.classes)]
            return nothing[0], nothing[1]
        images = [self._sent(image) for image, _ in sources]
        shares = [shares_of(self._sent(label)[None], self.network.classes)[0] for _, label in sources]
        return self.augmentation(self.config.augment if strength is None else strength)(images, shares, patch, seeds)

    def _sent(self, crop: Tensor) -> Tensor:
        return crop if crop.device.type == self.device.type else to_device(crop.contiguous(), self.device)

    def _example(self, sample: int) -> Example:
        """Cases in a new order each time round."""
        turn, position = divmod(sample, len(self.examples))
        order = np.random.default_rng((self.config.seed, 1 << 40, turn)).permutation(len(self.examples))
        return self.examples[int(order[position])]

    def _crop(self, example: Example, patch: tuple[int, ...], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        shape, size = np.array(example.label.shape), np.array(patch)
        if example.centres and random.random() < self.config.foreground:
            voxels = example.centres[random.integers(len(example.centres))]
            centre = voxels[random.integers(len(voxels))] + random.integers(-(size // 4), size // 4 + 1)
        elif example.labelled is not None:
            centre = example.labelled[random.integers(len(example.labelled))]
        else:
            centre = random.integers(0, shape)
        source = source_size(patch, self.config.augment)
        margin = (np.array(source) - size) // 2
        return crop(example.image, example.label, _first_voxel(centre, shape, size) - margin, source, self.neighbours)


def _first_voxel(centre: NDArray[np.int64], shape: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep the patch inside the volume where it fits, and the volume in the patch's middle, as `segment` pads, where not."""
    inside = np.clip(centre - size // 2, 0, np.maximum(shape - size, 0))
    return np.where(shape >= size, inside, -((size - shape) // 2))


def crop(
    image: Tensor, label: Tensor, first: NDArray[np.int64], size: tuple[int, ...], neighbours: int = 0
) -> tuple[Tensor, Tensor]:
    """Cut (C, *size) and (*size) from voxel `first` on; what lies outside the volume is 0, the mean, and unlabelled."""
    shape = label.shape
    low = [max(0, int(f)) for f in first]
    high = [min(n, int(f) + s) for n, f, s in zip(shape, first, size, strict=True)]
    z, y, x = inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    seen = with_neighbours(image[:, :, y, x], z, neighbours)
    if all(b - a == s for a, b, s in zip(low, high, size, strict=True)):
        return seen, label[inside]
    into = tuple(slice(a - int(f), b - int(f)) for a, b, f in zip(low, high, first, strict=True))
    out_image, out_label = image.new_zeros(len(seen), *size), label.new_full(size, IGNORE_INDEX)
    out_image[(slice(None), *into)], out_label[into] = seen, label[inside]
    return out_image, out_label
