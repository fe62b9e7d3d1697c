"""Affines that a careless viewer gets wrong: all 48 orientations, anisotropic, straight and tilted."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from napari_unet.volume import Affine

ORIENTATIONS = ["".join(letters) for pairs in permutations(("RL", "AP", "SI")) for letters in product(*pairs)]
SHAPE, SPACING = (5, 6, 7), (0.8, 1.5, 3.0)


def affine_for(orientation: str, spacing: tuple[float, ...] = SPACING, tilt: float = 0.0) -> Affine:
    """Voxel axes that run towards `orientation`, turned by `tilt` degrees about an axis that is none of the world's."""
    matrix = np.zeros((3, 3))
    for axis, letter in enumerate(orientation):
        world = next(w for w, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        matrix[world, axis] = spacing[axis] * (1 if letter in "RAS" else -1)
    direction = np.array([1.0, 2.0, -0.5]) / np.linalg.norm([1.0, 2.0, -0.5])
    cross = np.cross(np.eye(3), direction)
    angle = np.radians(tilt)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ matrix, (-12.5, 34.25, 7.75)
    return affine
