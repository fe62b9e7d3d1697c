"""Extents: every voxel is counted once, in the units of the grid, and a side is named after the body, not after the file."""

from __future__ import annotations

import csv
import io
from itertools import permutations, product

import numpy as np
import pytest
from engine import seen_as
from hostile import affine_for

from napari_unet.extents import Extent, extents_in
from napari_unet.schema import as_csv
from napari_unet.spec import Label
from napari_unet.volume import Volume

LABELS = (Label(1, "liver", "#e6194b"), Label(300, "spleen, left", "#3cb44b"), Label(2, "none", "#4363d8"))
ORIENTATIONS = ["".join(axes[n] for n in order) for axes in product("RL", "AP", "SI") for order in permutations(range(3))]


def scan() -> Volume:
    """A liver that is cut off below and on the right, and a spleen inside."""
    data = np.zeros((7, 8, 9), np.uint16)
    data[4:, 2:5, :3], data[2:4, 3:6, 5:8] = 1, 300
    return Volume(data, affine_for("RAS", (0.5, 1.5, 2.0), tilt=12))


def test_every_voxel_counts_once() -> None:
    liver, spleen, nothing = extents_in("a", scan(), LABELS)
    assert (liver.voxels, spleen.voxels, nothing.voxels) == (27, 18, 0)
    assert (liver.ml, spleen.ml, nothing.ml) == pytest.approx((27 * 1.5 / 1000, 18 * 1.5 / 1000, 0))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_sides_are_the_bodys_however_voxels_are_stored(orientation: str) -> None:
    liver, spleen, nothing = extents_in("a", seen_as(scan(), orientation), LABELS)
    assert set(liver.border.split()) == {"right", "inferior"}
    assert spleen.border == nothing.border == "" and liver.voxels == 27


def test_a_single_slice_has_no_side_above_and_below() -> None:
    data = np.zeros((5, 6, 1), np.uint8)
    data[1:3, 1:3] = 1
    assert extents_in("a", Volume(data, np.eye(4)), LABELS)[0].border == ""
    data[1, 0] = 1
    assert extents_in("a", Volume(data, np.eye(4)), LABELS)[0].border == "posterior"


def test_a_pictures_pixels_have_no_size_and_its_sides_no_body() -> None:
    data = np.zeros((5, 6, 1), np.uint8)
    data[4, 2:] = 1
    (found, *_) = extents_in("a", Volume(data, np.eye(4)), LABELS, picture=True)
    assert (found.voxels, found.ml, found.border) == (4, None, "bottom right")


def test_the_table_is_read_back_by_any_reader_of_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(Extent, extents_in("a, b", scan(), LABELS)))))
    assert list(rows[0]) == ["case", "label", "name", "voxels", "ml", "border"]
    assert [(row["case"], row["label"], row["name"], row["ml"]) for row in rows] == [
        ("a, b", "1", "liver", "0.0405"), ("a, b", "300", "spleen, left", "0.027"), ("a, b", "2", "none", "0")]  # fmt: skip
