"""Synthetic scans that need no download: a head with a core in a shell, a curved rod, and distractors that look like both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_unet import files, images
from napari_unet.volume import Volume

LABELS = {1: "core", 2: "shell", 3: "rod"}
SHAPE, SPACING = (60, 64, 38), (1.0, 1.0, 1.6)
HEAD, CORE, SHELL, ROD = 100.0, 150.0, 70.0, 150.0  # rod and core are told apart by their shape alone


def make(seed: int) -> tuple[Volume, Volume]:
    """An image (int16) and its mask (uint8; 0 background, 1 core, 2 shell, 3 rod) on one tilted, anisotropic grid."""
    random = np.random.default_rng((seed, 77))
    affine = _affine(random)
    position = _positions(affine)
    labels = np.zeros(SHAPE, np.uint8)
    intensity = np.where(_ellipsoid(position, np.zeros(3), np.array([27.0, 29.0, 27.0])) < 1, HEAD, 0.0)

    centre = np.array([random.choice([-9.0, 9.0]), random.uniform(-4, 8), random.uniform(-5, 5)])
    radii = random.uniform(5.5, 8.0, 3)
    distance = _ellipsoid(position, centre, radii)
    for value, level, chosen in ((2, SHELL, distance < 1.45**2), (1, CORE, distance < 1)):
        labels[chosen], intensity[chosen] = value, level
    rod = _rod(position, centre, random)
    labels[rod & (labels == 0)] = 3
    intensity[labels == 3] = ROD
    for _ in range(4):  # bright specks that are neither
        speck = _ellipsoid(position, random.uniform(-17, 17, 3), random.uniform(1.5, 2.5, 3)) < 1
        intensity[speck & (labels == 0)] = CORE

    image = gaussian_filter(intensity, [0.6 / s for s in SPACING])
    image *= 1 + 0.15 * gaussian_filter(random.standard_normal(SHAPE), 12) * 12**1.5
    image = (image + random.normal(0, 9, SHAPE)) * random.uniform(0.5, 4) + random.uniform(-20, 200)
    name = f"phantom_{seed:03d}"
    return Volume(image.astype(np.int16), affine, source=name), Volume(labels, affine, source=f"{name} mask")


def tiled(shape: tuple[int, int, int], orientation: str = "RAS", spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Volume:
    """A phantom repeated to a shape, its axes running towards `orientation`: a scan of any size, for measuring."""
    image = np.pad(make(0)[0].data, [(0, n) for n in shape], "wrap")[tuple(slice(n) for n in shape)].copy("F")  # as from a file
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, letter in enumerate(orientation):
        affine["RLAPSI".index(letter) // 2, axis] = spacing[axis] if letter in "RAS" else -spacing[axis]
    return Volume(image, affine, source=f"phantom of {shape}")


def _affine(random: np.random.Generator) -> NDArray[np.float64]:
    """Tilted by up to 12 degrees, its axes in one of the scanners' usual directions."""
    angle, axis = np.radians(random.uniform(-12, 12)), int(random.integers(3))
    turn = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn[a, a], turn[b, b], turn[a, b], turn[b, a] = np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)
    flips = np.diag([(1.0, 1.0, 1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, 1.0)][int(random.integers(3))])
    affine = np.eye(4)
    affine[:3, :3] = turn @ flips @ np.diag(SPACING)
    affine[:3, 3] = random.uniform(-20, 20, 3) - affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
    return affine


def _positions(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each voxel's place in mm from the grid's centre, (i, j, k, 3), in patient axes."""
    index = np.moveaxis(np.indices(SHAPE), 0, -1) - (np.array(SHAPE) - 1) / 2
    return np.asarray(index @ affine[:3, :3].T)


def _ellipsoid(position: NDArray[np.float64], centre: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distance from a centre, in radii: below 1 is inside."""
    return np.asarray((((position - centre) / radii) ** 2).sum(-1))


def _rod(position: NDArray[np.float64], centre: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.bool_]:
    """A bent tube on the other side of the head."""
    along = np.linspace(-1, 1, 25)
    bend = random.uniform(3, 8)
    path = np.stack([-centre[0] + bend * (along**2 - 0.4), 14 * along, random.uniform(-6, 6) + 5 * along], -1)
    radius = random.uniform(2.6, 3.6)
    return np.asarray(np.min([_ellipsoid(position, point, np.full(3, radius)) for point in path], axis=0) < 1)


def write_dataset(folder: str | Path, training: int = 24, testing: int = 6, seed: int = 0) -> Path:
    """Phantoms in the Decathlon's layout: imagesTr, labelsTr, and imagesTs, labelsTs that no training may see."""
    folder = files.make_folder(folder)
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        files.make_folder(folder / part)
    entries = []
    for n in range(training + testing):
        image, labels = make(1000 * seed + n)
        end = "Tr" if n < training else "Ts"
        images.write(folder / f"images{end}" / f"{image.source}.nii.gz", image, labels=False)
        images.write(folder / f"labels{end}" / f"{image.source}.nii.gz", labels)
        if end == "Tr":
            entries.append({part: f"./{part}sTr/{image.source}.nii.gz" for part in ("image", "label")})
    description = {
        "name": "Phantoms", "description": "synthetic heads", "licence": "CC0", "modality": {"0": "synthetic"},
        "labels": {"0": "background"} | {str(value): name for value, name in LABELS.items()}, "training": entries,
    }  # fmt: skip
    files.write_bytes(folder / "dataset.json", json.dumps(description, indent=1).encode())
    return folder
