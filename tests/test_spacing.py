"""A spacing far from the model's is told, with its numbers, whichever way the voxels are stored; one that is not resampled never."""

from __future__ import annotations

import numpy as np
import pytest
from engine import model_spec, network_spec
from hostile import affine_for

from napari_unet.memory import estimate
from napari_unet.outline import Outline
from napari_unet.preprocess import prepare, prepare_labels
from napari_unet.spacing import network_grid, spacing_ratios, spacing_warning
from napari_unet.volume import Volume

MODEL = model_spec(spacing=(3.0, 1.0, 0.5))  # towards S, A, R


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAR", "PIL"])
def test_each_axis_is_told_by_its_name_and_numbers(orientation: str) -> None:
    """Whatever order the file has: right 2.5 mm, front 0.2 mm, up 3 mm."""
    mm = {"R": 2.5, "A": 0.2, "S": 3.0}
    spacing = tuple(mm[letter.translate(str.maketrans("LPI", "RAS"))] for letter in orientation)
    told = spacing_warning(affine_for(orientation, spacing, 0), MODEL)
    assert "posterior–anterior 0.2 mm instead of 1 mm" in told
    assert "left–right 2.5 mm instead of 0.5 mm" in told
    assert "superior" not in told and "choose another model" in told


@pytest.mark.parametrize(("factor", "far"), [(4.9, False), (5.0, True), (5.1, True), (1 / 4.9, False), (1 / 5, True), (1000, True)])
@pytest.mark.parametrize("axis", range(3))
def test_five_times_is_far_either_way(axis: int, factor: float, far: bool) -> None:
    spacing = [0.5, 1.0, 3.0]
    spacing[axis] *= factor
    affine = np.float64(np.float32(affine_for("RAS", tuple(spacing), 20)))  # as a header holds it
    assert bool(spacing_warning(affine, MODEL)) == far


def test_an_axis_that_is_not_resampled_is_never_far() -> None:
    own = model_spec(spacing=(0.0, 1.0, 1.0))
    assert spacing_warning(affine_for("RAS", (1.0, 1.0, 50.0), 0), own) == ""
    assert spacing_warning(affine_for("RAS", (1.0, 1.0, 50.0), 0), model_spec(network_spec(2))) == ""


def test_the_ratios_are_those_of_the_network_s_grid() -> None:
    affine = affine_for("PIL", (2.0, 4.0, 0.7), 12)
    turn, ratios = spacing_ratios(affine, MODEL)
    image = Volume(np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32), affine)
    seen = prepare(image, MODEL)
    assert turn == seen.turn and np.allclose(ratios, seen.scale)


SPACINGS = {"1.5 % apart": (3.045, 0.985, 0.5), "anisotropic": (12.3, 0.7, 0.31), "half a voxel more": (3.0, 1.0, 0.75),
            "nearly as far as it may be": (3.059, 1.019, 0.4901), "a little too far": (3.061, 1.021, 0.4899)}  # fmt: skip


@pytest.mark.parametrize("orientation", ["SAR", "PIL"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
def test_what_is_told_of_the_grid_is_what_is_prepared(spacing: tuple[float, ...], dims: int, orientation: str) -> None:
    """Of images, and of masks, whose grid is MONAI's; each axis is long enough for a hundredth to be a voxel."""
    spec = model_spec(network_spec(dims), spacing=(3.0 if dims == 3 else 0.0, 1.0, 0.5))
    along = dict(zip("SAR", spacing, strict=True))
    letters = orientation.translate(str.maketrans("LPI", "RAS"))
    affine = affine_for(orientation, tuple(along[letter] for letter in letters), 7)
    shape = tuple({"S": 72, "A": 110, "R": 90}[letter] for letter in letters)
    image = Volume((np.random.default_rng(0).random(shape) > 0.5).astype(np.uint8), affine)
    turn, ratios, size = network_grid(affine, shape, spec)
    seen = prepare(image, spec)
    assert (turn, tuple(ratios.tolist()), size) == (seen.turn, seen.scale, seen.size)
    assert size == tuple(prepare_labels(image, spec).shape)


def test_a_spacing_as_good_as_the_models_costs_no_more_memory() -> None:
    spec, shape = model_spec(spacing=(3.0, 1.0, 0.5), patch=(16, 16, 16)), (90, 400, 500)
    own, near = (Outline(shape, 1, np.dtype("i2"), affine_for("SAR", spacing)) for spacing in ((3.0, 1.0, 0.5), SPACINGS["1.5 % apart"]))
    assert estimate(near, spec) == estimate(own, spec)
