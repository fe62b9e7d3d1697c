"""Cells: the laws of V_rand, each on a picture small enough to see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from napari_unet.cells import number_cells, pixel_error, v_rand

SCRIPT = Path(__file__).parents[1] / "training/cells.py"


def rooms() -> NDArray[np.uint8]:
    """Six rooms of 30 x 30 pixels, with walls of five pixels that run up to the frame."""
    picture = np.full((65, 100), 255, np.uint8)
    picture[30:35] = picture[:, 30:35] = picture[:, 65:70] = 0
    return picture


def test_walls_that_end_at_the_frame_part_the_cells_along_it() -> None:
    numbers = number_cells(rooms())
    assert numbers.shape == rooms().shape and len(set(numbers[numbers > 0])) == 6
    assert np.mean(numbers == 0) < 0.05, "walls are thinned to a pixel"


def test_the_same_picture_scores_best() -> None:
    assert v_rand(rooms(), rooms()) == (1, 1, 1) and pixel_error(rooms(), rooms()) == 0


def test_the_width_of_walls_does_not_count() -> None:
    thin = rooms()
    thin[31:34], thin[:, 31:34], thin[:, 66:69] = 255, 255, 255
    thin[32], thin[:, 32], thin[:, 67] = 0, 0, 0
    assert v_rand(thin, rooms()).score == pytest.approx(1, abs=1e-3) and pixel_error(thin, rooms()) > 0.05


def test_a_gap_merges_and_a_wall_too_many_splits() -> None:
    gap = rooms()
    gap[10:15, 30:35] = 255
    merged = v_rand(gap, rooms())
    assert merged.split == pytest.approx(1, abs=0.01) and merged.merge == pytest.approx(6 / 8, abs=0.02), "two of six rooms are one"
    wall = rooms()
    wall[:30, 14:16] = 0
    cut = v_rand(wall, rooms())
    assert cut.merge == pytest.approx(1, abs=0.01) and cut.split == pytest.approx(5.5 / 6, abs=0.02), "one of six is two"
    for changed in (merged, cut):
        assert changed.score == pytest.approx(2 * changed.split * changed.merge / (changed.split + changed.merge))


def test_what_has_no_cells() -> None:
    nothing = np.zeros_like(rooms())
    assert v_rand(rooms(), nothing) == (0, 0, 0) and pixel_error(nothing, rooms()) == np.mean(rooms() > 0)


def test_the_script_scores_folders(tmp_path: Path) -> None:
    for folder, pictures in (("labels", (rooms(), rooms())), ("masks", (rooms(), np.full_like(rooms(), 255)))):
        (tmp_path / folder).mkdir()
        for n, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / folder / f"slice{n}.png")
    command = [sys.executable, str(SCRIPT), str(tmp_path / "masks"), str(tmp_path / "labels")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    means = json.loads(done.stdout.splitlines()[-1])
    assert means["pictures"] == 2 and means["split"] == 1
    assert means["merge"] == pytest.approx((1 + 1 / 6) / 2, abs=0.01), "all six rooms of the second are one"
    wrong = subprocess.run([*command[:-1], str(tmp_path / "none")], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and wrong.stderr.startswith("cells.py:") and "Traceback" not in wrong.stderr
