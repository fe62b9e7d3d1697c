"""Random MONAI transforms that act on whole batches of tensors: each draws first, then calls a deterministic twin.

Images are (B, C, z, y, x), shares of the classes (B, K, z, y, x) (see `loss`); in 2-D, z is 1. Batched tensors are several
times cheaper than per-sample dictionaries, and run where the network runs. What happens to a sample is drawn from a seed
of its own, on the CPU, so that it is the same in whichever batch; work is done only on the samples that were drawn for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Randomizable
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_unet.spec import ModelSpec

MARGIN = 1.25  # how much larger than the patch the source is, so that turning it brings in no empty corners
ANISOTROPIC = 2.0  # a slice axis coarser than this many times the others is not turned out of its plane
KNOTS = 4  # along each axis of a patch; they are shifted, and what lies between them is bent
BEND = {2: 0.1, 3: 0.24}  # of the knots' distance: the standard deviation of their shifts at strength 1

Samples = Tensor | Sequence[Tensor]


def source_size(patch: tuple[int, ...], strength: float) -> tuple[int, ...]:
    """The size to crop for a patch: larger by the margin, by an even number of voxels; the patch itself for strength 0."""
    return tuple(n if n == 1 or not strength else n + 2 * math.ceil(n * (MARGIN - 1) / 2) for n in patch)


class Move(NamedTuple):
    """Where the voxels of a patch come from.

    matrix : (3, 3), from patch to source voxels about their centres, along (z, y, x); knots : float32 (3, KNOTS, KNOTS, KNOTS),
    how far the knots are shifted along each axis besides, as shares of their distance along it.
    """

    matrix: NDArray[np.float64]
    knots: NDArray[np.float32]

    @classmethod
    def none(cls) -> Move:
        """The patch is the middle of the source, voxel by voxel."""
        return cls(np.eye(3), np.zeros((3, KNOTS, KNOTS, KNOTS), np.float32))

    @property
    def still(self) -> bool:
        """Is nothing to be resampled?"""
        return np.array_equal(self.matrix, np.eye(3)) and not self.knots.any()


class RandMove(Randomizable):
    """Turn, scale and bend each sample with probability p, and cut the patch from the middle of the larger source."""

    def __init__(self, spec: ModelSpec, strength: float, p: float = 0.6) -> None:
        self.p, self.scale = p, 0.16 * strength
        spacing = np.array([s or 1.0 for s in spec.spacing])
        self.spacing = spacing / spacing.max()
        flat = spec.network.dims == 2 or spacing[0] > ANISOTROPIC * spacing[1:].min()
        turn_freely = spec.pictures and {1, 2} <= set(spec.mirror_axes)
        in_plane = math.pi if turn_freely and strength else 0.3 * strength
        self.angles = np.array([in_plane, 0, 0] if flat else [0.3 * strength] * 3)
        self.bend = BEND[spec.network.dims] * strength * np.array([0 if flat else 1, 1, 1])[:, None, None, None]

    def randomize(self, data: Any = None) -> None:
        """Draw a move for each of `data` samples."""
        self.moves = [self.draw() for _ in range(data)]

    def draw(self) -> Move:
        """That of one sample."""
        chosen = self.R.random() < self.p
        angles, log_scale = self.R.uniform(-1, 1, 3) * self.angles, self.R.uniform(-1, 1) * self.scale
        if not chosen:
            return Move.none()
        matrix = np.eye(3) * math.exp(log_scale)
        for (a, b), angle in zip(((1, 2), (0, 1), (0, 2)), angles, strict=True):
            turn = np.eye(3)
            turn[[a, b], [a, b]], turn[a, b], turn[b, a] = math.cos(angle), -math.sin(angle), math.sin(angle)
            matrix = matrix @ turn
        matrix = matrix * self.spacing[None] / self.spacing[:, None]  # a turn in millimetres, expressed in voxels
        return Move(matrix, (self.R.normal(size=(3, KNOTS, KNOTS, KNOTS)) * self.bend).astype(np.float32))

    def __call__(self, images: Tensor, shares: Tensor, patch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Cut patches of this size out of the sources."""
        self.randomize(len(images))
        return move_some(images, shares, self.moves, patch)


def move_some(images: Samples, shares: Samples, moves: Sequence[Move], patch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Patches from the middle of the sources, resampled only where a sample moves."""
    pairs = [(_middle(image, patch), _middle(share, patch)) for image, share in zip(images, shares, strict=True)]
    moved = [n for n, move in enumerate(moves) if not move.still]
    if moved:
        sources = [torch.stack([part[n] for n in moved]) for part in (images, shares)]
        matrices = torch.as_tensor(np.stack([moves[n].matrix for n in moved]), dtype=torch.float32)
        knots = torch.as_tensor(np.stack([moves[n].knots for n in moved]))
        for n, image, share in zip(moved, *apply_move(sources[0], sources[1], matrices, knots, patch), strict=True):
            pairs[n] = image, share
    return torch.stack([image for image, _ in pairs]), torch.stack([share for _, share in pairs])


def _middle(source: Tensor, patch: tuple[int, ...]) -> Tensor:
    first = [(s - n) // 2 for s, n in zip(source.shape[1:], patch, strict=True)]
    return source[(slice(None), *(slice(f, f + n) for f, n in zip(first, patch, strict=True)))]


def apply_move(
    images: Tensor, shares: Tensor, matrices: Tensor, knots: Tensor, patch: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Sample patches around the sources' centres; matrices (B, 3, 3) and knots (B, 3, KNOTS, KNOTS, KNOTS) as in `Move`.

    Linear for both: a voxel that two classes meet in gets a share of each, where the nearest one would move the border.
    """
    source = tuple(images.shape[2:])
    dims = [a for a in range(3) if source[a] > 1 or patch[a] > 1]
    flat = [a + 2 for a in range(3) if a not in dims]
    half = torch.tensor([source[a] / 2 for a in dims], dtype=images.dtype)  # grid_sample's range is -1 to 1
    scaled = matrices[:, dims][:, :, dims] / half[None, :, None]
    grid = _grid(to_device(scaled, images.device), [patch[a] for a in dims])
    distance = torch.tensor([(patch[a] - 1) / (KNOTS - 1) for a in dims]) / half
    shifts = knots[:, dims] * distance[:, None, None, None]
    for axis in reversed(flat):
        shifts = shifts.select(axis, 0)
    grid = grid + _bent(to_device(shifts, images.device), [patch[a] for a in dims])
    both = torch.cat([images, shares], 1)
    moved = functional.grid_sample(both.squeeze(flat), grid, "bilinear", "zeros", align_corners=False)
    for axis in flat:
        moved = moved.unsqueeze(axis)
    return moved[:, : images.shape[1]], moved[:, images.shape[1] :]


def _grid(matrices: Tensor, patch: list[int]) -> Tensor:
    """Where each voxel of a patch comes from, (B, *patch, axes) in grid_sample's order (x, y, z): a sum of one term per axis.

    The same as `affine_grid`, which multiplies a matrix by every voxel's place, in a fifth of its time.
    """
    dims = len(patch)
    total: Tensor | float = 0.0
    for axis, size in enumerate(patch):
        places = torch.arange(size, dtype=matrices.dtype, device=matrices.device) - (size - 1) / 2
        term = places[None, :, None] * matrices.flip(1)[:, None, :, axis]
        total = total + term.reshape(len(matrices), *(size if a == axis else 1 for a in range(dims)), dims)
    return total  # type: ignore[return-value]


def _bent(shifts: Tensor, patch: list[int]) -> Tensor:
    """Shifts of the knots (B, axes, KNOTS, ...) at every voxel, in the shape and order of `_grid`."""
    mode = ("linear", "bilinear", "trilinear")[len(patch) - 1]
    return functional.interpolate(shifts, patch, mode=mode, align_corners=True).flip(1).movedim(1, -1)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, for which nobody waits."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class RandMirror(Randomizable):
    """Mirror each sample along each permitted axis with probability one half."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def randomize(self, data: Any = None) -> None:
        """Draw the axes of each of `data` samples."""
        self.chosen = [self.draw() for _ in range(data)]

    def draw(self) -> list[int]:
        """The axes of one sample."""
        return [a for a in self.axes if self.R.random() < 0.5]

    def __call__(self, images: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Mirrored copies."""
        self.randomize(len(images))
        return mirror(images, self.chosen), mirror(shares, self.chosen)


def mirror(samples: Tensor, axes: list[list[int]]) -> Tensor:
    """Each of (B, C, z, y, x) mirrored along its own axes of (z, y, x)."""
    return torch.stack([sample.flip([a + 1 for a in chosen]) for sample, chosen in zip(samples, axes, strict=True)])


class Intensities(NamedTuple):
    """What happens to the intensities of some samples: factors (samples, channels), and a seed of the noise for each."""

    contrast: NDArray[np.float64]
    brightness: NDArray[np.float64]
    gamma: NDArray[np.float64]
    amount: NDArray[np.float64]
    seeds: list[int]

    @classmethod
    def join(cls, parts: Sequence[Intensities]) -> Intensities:
        """Those of several samples."""
        contrast, brightness, gamma, amount = (np.concatenate(values) for values in list(zip(*parts, strict=True))[:4])
        return cls(contrast, brightness, gamma, amount, [seed for part in parts for seed in part.seeds])


class RandIntensity(Randomizable):
    """Contrast, brightness, gamma and noise, each with its own probability, per sample and channel."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def randomize(self, data: Any = None) -> None:
        """Draw the factors for `data` = (samples, channels)."""
        self.drawn = Intensities.join([self.draw(data[1]) for _ in range(data[0])])

    def draw(self, channels: int) -> Intensities:
        """The factors of one sample."""
        s = self.strength

        def some(p: float, values: NDArray[np.float64], neutral: float) -> NDArray[np.float64]:
            return np.where(self.R.random(channels) < p, values, neutral)[None]

        return Intensities(
            some(0.5, np.exp(self.R.uniform(-0.25 * s, 0.25 * s, channels)), 1),
            some(0.5, self.R.uniform(-0.25 * s, 0.25 * s, channels), 0),
            some(0.3, np.exp(self.R.uniform(-0.35 * s, 0.35 * s, channels)), 1),
            some(0.2, self.R.uniform(0, 0.12 * s, channels), 0), [int(self.R.randint(2**31))],
        )  # fmt: skip

    def __call__(self, images: Tensor) -> Tensor:
        """Changed copies."""
        self.randomize(tuple(images.shape[:2]))
        return change_some(images, self.drawn)


def change_some(images: Tensor, drawn: Intensities) -> Tensor:
    """Changed copies; gamma is bent, and noise made, only for the samples that have any: both are dear."""
    factors = torch.as_tensor(np.stack(drawn[:4]), dtype=torch.float32)[(...,) + (None,) * 3]
    contrast, brightness, gamma, amount = to_device(factors, images.device)
    changed: Tensor = images * contrast + brightness
    for n, seed in enumerate(drawn.seeds):
        one = slice(n, n + 1)
        if (drawn.gamma[n] != 1).any() or drawn.amount[n].any():
            generator = torch.Generator(images.device).manual_seed(seed)
            noise = torch.randn(images[one].shape, generator=generator, device=images.device)
            changed[one] = apply_intensity(images[one], noise, contrast[one], brightness[one], gamma[one], amount[one])
    return changed


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
    """All of them in order, each sample's from a seed of its own, so that it is the same whoever draws it, with whichever others."""

    def __init__(self, spec: ModelSpec, strength: float) -> None:
        self.move, self.mirror = RandMove(spec, strength), RandMirror(spec.mirror_axes if strength else ())
        self.intensity = RandIntensity(strength) if strength else None
        self.channels = len(spec.channels)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Augmentation:
        """One random state for all parts."""
        super().set_random_state(seed, state)
        for part in (self.move, self.mirror, self.intensity):
            if part is not None:
                part.set_random_state(state=self.R)
        return self

    def __call__(
        self, images: Samples, shares: Samples, patch: tuple[int, ...], seeds: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sources (C, ...) and (K, ...) of each sample -> patches (B, C, *patch) and (B, K, *patch)."""
        moves, axes, drawn = [], [], []
        for seed in self.R.randint(2**31, size=len(images)) if seeds is None else seeds:
            self.set_random_state(int(seed))
            moves.append(self.move.draw())
            axes.append(self.mirror.draw())
            drawn += [self.intensity.draw(self.channels)] if self.intensity else []
        patches, labels = move_some(images, shares, moves, patch)
        if any(axes):
            patches, labels = mirror(patches, axes), mirror(labels, axes)
        if drawn:  # the slices that a 2.5-D network sees of one channel are of one image, and change alike
            slabs = patches.reshape(len(patches), self.channels, -1, *patches.shape[3:])
            patches = change_some(slabs, Intensities.join(drawn)).reshape(patches.shape)
        return patches, labels
