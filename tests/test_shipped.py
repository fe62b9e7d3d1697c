"""The models inside the package load, are small, and do what their cards say."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from napari_unet import Segmenter, phantoms, read_card, read_spec
from napari_unet.evaluate import dice
from napari_unet.images import read, read_labels
from napari_unet.settings import TrainConfig
from napari_unet.splits import split_cases
from napari_unet.weights import shipped


def test_they_are_small_and_say_what_they_are() -> None:
    assert list(shipped()) == ["phantoms", "hippocampus"]  # the first is chosen when the widget opens, beside the sample
    assert sum(path.stat().st_size for path in shipped().values()) < 6_000_000
    for path in shipped().values():
        card, spec = read_card(path), read_spec(path)
        assert card.independent and card.cases_scored >= 8 and card.command and card.dice["mean"] > 0.85
        assert card.dice.keys() == {"mean", *(label.name for label in spec.labels)}


def test_the_phantom_model_finds_what_is_in_a_phantom_never_seen() -> None:
    segmenter = Segmenter.load("phantoms", device="cpu")
    image, truth = phantoms.make(987_654)
    mask = segmenter.segment(image)
    assert (mask.affine == image.affine).all()
    assert fmean(dice(mask.data == value, truth.data == value) or 0 for value in phantoms.LABELS) > 0.9


def test_the_hippocampus_model_on_cases_kept_out_of_its_training(data: Path) -> None:
    folder = data / "hippocampus"
    names = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "imagesTr").glob("*.nii.gz"))
    split = split_cases(names, TrainConfig())  # the default, and fold 0 of 5
    assert split == split_cases(names, TrainConfig(folds=5, fold=0))
    if read_card(shipped()["hippocampus"]).split_sha256 != split.sha256:
        pytest.skip("these are not the 200 cases that the model's split was drawn from")
    segmenter, found = Segmenter.load("hippocampus", device="cpu"), []
    for name in split.kept_out[:6]:
        mask = segmenter.segment(read(folder / "imagesTr" / f"{name}.nii.gz"))
        truth = read_labels(folder / "labelsTr" / f"{name}.nii.gz")
        found += [dice(mask.data == value, truth.data == value) for value in (1, 2)]
    assert fmean(value or 0 for value in found) > 0.85
