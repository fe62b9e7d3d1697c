"""Synthetic scans: repeatable, all classes in each, told apart by shape, on grids as awkward as real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_unet import check, find_cases, images
from napari_unet.phantoms import LABELS, SHAPE, SPACING, make, tiled, write_dataset
from napari_unet.volume import Reorientation, tilt_degrees

SEEDS = range(12)


@pytest.fixture(scope="module")
def phantoms() -> list[tuple]:
    return [make(seed) for seed in SEEDS]


def test_the_seed_decides(phantoms: list[tuple]) -> None:
    for mine, again in zip(phantoms[3], make(3), strict=True):
        assert np.array_equal(mine.data, again.data) and np.array_equal(mine.affine, again.affine)
    assert len({image.data.tobytes() for image, _ in phantoms}) == len(SEEDS)


def test_each_has_every_class_on_its_images_grid(phantoms: list[tuple]) -> None:
    for image, mask in phantoms:
        assert set(np.unique(mask.data)) == {0, *LABELS}
        assert all((mask.data == value).sum() > 100 for value in LABELS)
        assert image.shape == mask.shape == SHAPE and np.array_equal(image.affine, mask.affine)
        assert (image.data.dtype, mask.data.dtype) == (np.int16, np.uint8)
        assert image.spacing == pytest.approx(SPACING)


def test_grids_are_tilted_and_turned(phantoms: list[tuple]) -> None:
    assert len({image.orientation for image, _ in phantoms}) == 3
    assert max(tilt_degrees(image.affine) for image, _ in phantoms) > 5


def test_intensity_alone_does_not_tell_core_from_rod(phantoms: list[tuple]) -> None:
    overlap = []
    for image, mask in phantoms:
        core, rod = (image.data[mask.data == value].astype(float) for value in (1, 3))
        overlap.append(abs(np.median(core) - np.median(rod)) / core.std())
    assert np.median(overlap) < 1.5


def test_core_and_rod_lie_on_opposite_sides(phantoms: list[tuple]) -> None:
    sides = []
    for image, mask in phantoms:
        places = [image.affine[:3] @ [*np.argwhere(mask.data == value).mean(0), 1] for value in (1, 3)]
        middle = image.affine[:3] @ [*(np.array(SHAPE) - 1) / 2, 1]
        sides.append([np.sign(place[0] - middle[0]) for place in places])
    assert all(core == -rod for core, rod in sides) and {core for core, _ in sides} == {-1, 1}


def test_written_as_a_decathlon_whose_test_cases_training_cannot_see(tmp_path: Path) -> None:
    dataset = find_cases(write_dataset(tmp_path / "data", training=3, testing=2, seed=1))
    reports = list(check(dataset))
    assert len(reports) == 3 and not any(report.findings for report in reports)
    assert dataset.labels == LABELS and dataset.licence == "CC0"
    hidden = sorted(path.name for path in (tmp_path / "data/imagesTs").iterdir())
    assert hidden == sorted(path.name for path in (tmp_path / "data/labelsTs").iterdir()) and len(hidden) == 2
    assert not {case.images[0].name for case in dataset.cases} & set(hidden)
    image, mask = make(1003)
    assert np.array_equal(images.read(tmp_path / "data/imagesTs/phantom_1003.nii.gz").data, image.data)
    assert np.array_equal(images.read_labels(tmp_path / "data/labelsTs/phantom_1003.nii.gz").data, mask.data)


@pytest.mark.parametrize("orientation", ["RAS", "SAR", "ILP"])
def test_a_phantom_of_any_size_lies_as_it_was_asked_for(orientation: str) -> None:
    image = tiled((70, 20, 90), orientation, (2.0, 1.0, 0.5))
    turn = Reorientation.between(image.affine, orientation)
    assert image.shape == (70, 20, 90) and turn.axes == (0, 1, 2) and image.spacing == pytest.approx((2.0, 1.0, 0.5))
    assert np.array_equal(turn.apply(image.data), image.data) and np.array_equal(image.data[60:], image.data[:10])
