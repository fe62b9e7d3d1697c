"""Random MONAI transforms that act on whole batches of tensors: each draws first, then calls a deterministic twin.

Images are (B, C, z, y, x), shares of the classes (B, K, z, y, x) (see `loss`); in 2-D, z is 1. Batched tensors are several
times cheaper than per-sample dictionaries, and run where the network runs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_unet.spec import ModelSpec

MARGIN = 1.25  # how much larger than the patch the source is, so that turning it brings in no empty corners
ANISOTROPIC = 2.0  # a slice axis coarser than this many times the others is not turned out of its plane


def source_size(patch: tuple[int, ...], strength: float) -> tuple[int, ...]:
    """The size to crop for a patch: larger by the margin, by an even number of voxels; the patch itself for strength 0."""
    return tuple(n if n == 1 or not strength else n + 2 * math.ceil(n * (MARGIN - 1) / 2) for n in patch)


class RandAffine(Randomizable):
    """Turn and scale each sample with probability p, and cut the patch from the middle of the larger source."""

    def __init__(self, spec: ModelSpec, strength: float, p: float = 0.6) -> None:
        self.p, self.scale = p, 0.16 * strength
        spacing = np.array([s or 1.0 for s in spec.spacing])
        self.spacing = spacing / spacing.max()
        flat = spec.network.dims == 2 or spacing[0] > ANISOTROPIC * spacing[1:].min()
        turn_freely = spec.pictures and {1, 2} <= set(spec.mirror_axes)
        in_plane = math.pi if turn_freely and strength else 0.3 * strength
        self.angles = np.array([in_plane, 0, 0] if flat else [0.3 * strength] * 3)

    def randomize(self, data: Any = None) -> None:
        """Draw a matrix (z, y, x) for each of `data` samples."""
        self.matrices = np.stack([self._draw() for _ in range(data)])

    def _draw(self) -> NDArray[np.float64]:
        chosen = self.R.random() < self.p
        angles, log_scale = self.R.uniform(-1, 1, 3) * self.angles, self.R.uniform(-1, 1) * self.scale
        if not chosen:
            return np.eye(3)
        matrix = np.eye(3) * math.exp(log_scale)
        for (a, b), angle in zip(((1, 2), (0, 1), (0, 2)), angles, strict=True):
            turn = np.eye(3)
            turn[[a, b], [a, b]], turn[a, b], turn[b, a] = math.cos(angle), -math.sin(angle), math.sin(angle)
            matrix = matrix @ turn
        return np.asarray(matrix * self.spacing[None] / self.spacing[:, None])  # a turn in millimetres, expressed in voxels

    def __call__(self, images: Tensor, shares: Tensor, patch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Cut patches of this size out of the sources."""
        self.randomize(len(images))
        return apply_affine(images, shares, torch.as_tensor(self.matrices, dtype=images.dtype), patch)


def apply_affine(images: Tensor, shares: Tensor, matrices: Tensor, patch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Sample patches around the sources' centres; matrices (B, 3, 3) lead from patch to source voxels, in (z, y, x).

    Linear for both: a voxel that two classes meet in gets a share of each, where the nearest one would move the border.
    """
    source = tuple(images.shape[2:])
    dims = [a for a in range(3) if source[a] > 1 or patch[a] > 1]
    if source == patch and torch.equal(matrices, torch.eye(3).expand_as(matrices)):
        return images, shares
    size = torch.tensor([source[a] for a in dims], dtype=images.dtype)
    extent = torch.tensor([patch[a] for a in dims], dtype=images.dtype)
    theta = matrices[:, dims][:, :, dims] * extent[None, None] / size[None, :, None]  # grid_sample's range is -1 to 1
    theta = torch.nn.functional.pad(theta.flip(1).flip(2), (0, 1)).to(images.device)  # and its order (x, y, z)
    both = torch.cat([images, shares], 1)
    flat = [a + 2 for a in range(3) if a not in dims]
    grid = functional.affine_grid(theta, [len(both), 1, *[patch[a] for a in dims]], align_corners=False)
    turned = functional.grid_sample(both.squeeze(flat), grid, "bilinear", "zeros", align_corners=False)
    for axis in flat:
        turned = turned.unsqueeze(axis)
    return turned[:, : images.shape[1]], turned[:, images.shape[1] :]


class RandMirror(Randomizable):
    """Mirror each sample along each permitted axis with probability one half."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def randomize(self, data: Any = None) -> None:
        """Draw the axes of each of `data` samples."""
        self.chosen = [[a for a in self.axes if self.R.random() < 0.5] for _ in range(data)]

    def __call__(self, images: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Mirrored copies."""
        self.randomize(len(images))
        return mirror(images, self.chosen), mirror(shares, self.chosen)


def mirror(samples: Tensor, axes: list[list[int]]) -> Tensor:
    """Each of (B, C, z, y, x) mirrored along its own axes of (z, y, x)."""
    return torch.stack([sample.flip([a + 1 for a in chosen]) for sample, chosen in zip(samples, axes, strict=True)])


class RandIntensity(Randomizable):
    """Contrast, brightness, gamma and noise, each with its own probability, per sample and channel."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def randomize(self, data: Any = None) -> None:
        """Draw the factors for `data` = (samples, channels)."""
        s = self.strength

        def some(p: float, values: np.ndarray, neutral: float) -> Tensor:
            return torch.as_tensor(np.where(self.R.random(data) < p, values, neutral), dtype=torch.float32)

        self.contrast = some(0.5, np.exp(self.R.uniform(-0.25 * s, 0.25 * s, data)), 1)
        self.brightness = some(0.5, self.R.uniform(-0.25 * s, 0.25 * s, data), 0)
        self.gamma = some(0.3, np.exp(self.R.uniform(-0.35 * s, 0.35 * s, data)), 1)
        self.noise = some(0.2, self.R.uniform(0, 0.12 * s, data), 0)
        self.seed = int(self.R.randint(2**31))

    def __call__(self, images: Tensor) -> Tensor:
        """Changed copies."""
        self.randomize(tuple(images.shape[:2]))
        generator = torch.Generator(images.device).manual_seed(self.seed)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        factors = [f.to(images.device)[(...,) + (None,) * 3] for f in (self.contrast, self.brightness, self.gamma, self.noise)]
        return apply_intensity(images, noise, *factors)


def apply_intensity(
    images: Tensor, noise: Tensor, contrast: Tensor, brightness: Tensor, gamma: Tensor, amount: Tensor
) -> Tensor:
    """Gamma within each image's own range, then contrast and brightness, then noise; factors are (B, C, 1, 1, 1)."""
    low, high = images.amin((2, 3, 4), keepdim=True), images.amax((2, 3, 4), keepdim=True)
    span = (high - low).clamp_min(1e-6)
    bent = ((images - low) / span).pow(gamma) * span + low
    bent = torch.where(gamma == 1, images, bent)
    return bent * contrast + brightness + noise * amount


class Augmentation(Randomizable):
    """All of them in order, drawn from one seed, so that step n gives the same batch whoever runs it, whenever."""

    def __init__(self, spec: ModelSpec, strength: float) -> None:
        self.affine, self.mirror = RandAffine(spec, strength), RandMirror(spec.mirror_axes if strength else ())
        self.intensity = RandIntensity(strength) if strength else None
        self.channels = len(spec.channels)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Augmentation:
        """One random state for all parts."""
        super().set_random_state(seed, state)
        for part in (self.affine, self.mirror, self.intensity):
            if part is not None:
                part.set_random_state(state=self.R)
        return self

    def __call__(self, images: Tensor, shares: Tensor, patch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Sources (B, C, ...) and (B, K, ...) -> patches of this size."""
        images, shares = self.affine(images, shares, patch)
        if self.mirror.axes:
            images, shares = self.mirror(images, shares)
        if self.intensity:  # the slices that a 2.5-D network sees of one channel are of one image, and change alike
            slabs = images.reshape(len(images), self.channels, -1, *images.shape[3:])
            images = self.intensity(slabs).reshape(images.shape)
        return images, shares
