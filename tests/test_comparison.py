"""A comparison shows each model's own mistakes, and those of both, each in its colour, on the slice with most of the truth."""

from __future__ import annotations

import numpy as np
import pytest
from engine import model_spec, network_spec, volume
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from napari_unet.comparison import PANELS, SHOWN, WRONG, draw_comparison
from napari_unet.volume import Volume

AXIAL = 7


def masks(image: Volume) -> tuple[Volume, Volume, Volume]:
    """The truth fills more of slice 7 than of any other; each of two masks misses a voxel there, and both a third one."""
    right = np.zeros(image.shape, np.uint8)
    right[4:9, 4:9, AXIAL], right[4:6, 4:6, 3] = 1, 1
    first, second = right.copy(), right.copy()
    first[4, 4, AXIAL] = second[5, 5, AXIAL] = 0
    first[6, 6, AXIAL] = second[6, 6, AXIAL] = 0
    return image.with_data(right), image.with_data(first), image.with_data(second)


@pytest.mark.parametrize("channels", [1, 2])
def test_each_mistake_has_its_colour(channels: int) -> None:
    image = volume((16, 18, 20) if channels == 1 else (16, 18, 20, channels), "RAS")
    spec = model_spec(network_spec(channels=channels))
    right, first, second = masks(image)
    figure = Figure()
    axes = figure.subplots(1, PANELS)
    draw_comparison(axes, image, right, {"one": first, "two": second}, spec)
    assert [axis.get_title() for axis in axes] == ["image", "truth", "one", "two", "where they are wrong"]
    colours = [np.asarray(shown.get_array()) for shown in axes[-1].images[1:]]
    found = {tuple(np.round(layer[layer[..., 3] > 0][0, :3], 3)): int((layer[..., 3] > 0).sum()) for layer in colours}
    assert found == {tuple(np.round(to_rgb(colour), 3)): 1 for colour in WRONG}
    marked = [tuple(np.argwhere(layer[..., 3] > 0)[0]) for layer in colours]
    expected = [(18 - 1 - j, 16 - 1 - i) for i, j in ((5, 5), (4, 4), (6, 6))]  # front up, the patient's right on the left
    assert marked == expected
    assert [int((np.asarray(axis.images[1].get_array())[..., 3] > 0).sum()) for axis in axes[1:4]] == [25, 23, 23]


def test_a_large_picture_is_shown_from_its_middle() -> None:
    image = Volume(np.random.default_rng(0).integers(0, 255, (600, 400, 1)).astype(np.uint8), np.eye(4))
    mask = image.with_data((image.data > 99).astype(np.uint8))
    axes = Figure().subplots(1, PANELS)
    draw_comparison(axes, image, mask, {"one": mask, "two": mask}, model_spec(network_spec(2), pictures=True, orientation="SRA"))
    assert all(np.shape(axis.images[0].get_array()) == (SHOWN, SHOWN) for axis in axes)
