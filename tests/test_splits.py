"""Splits: every case has one place, the seed alone decides which, and a part that is scored is apart from what is learnt."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import decathlon, scan, two_folders, write_pair
from hostile import affine_for
from hypothesis import given, settings
from hypothesis.strategies import integers

from napari_unet import UNetError, find_cases
from napari_unet.checks import check, facts_in, groups_of
from napari_unet.dataset import read_image, read_label
from napari_unet.plan import plan
from napari_unet.settings import TrainConfig
from napari_unet.splits import (
    FOLDS,
    GAP,
    LEAST_GAP,
    LEAST_HALF,
    MOST_KEPT_OUT,
    SCORED_FROM,
    arrange,
    halves,
    split_cases,
    words,
)


def names_of(count: int) -> list[str]:
    return [f"case {n:04d}" for n in range(count)]


@given(integers(2, 90), integers(2, 100), integers(0, 2**31 - 1))
@settings(max_examples=60)
def test_folds_are_a_partition_into_equal_parts(count: int, folds: int, seed: int) -> None:
    names = names_of(count)
    parts = min(folds, count)
    splits = [split_cases(names, TrainConfig(folds=folds, fold=fold, seed=seed)) for fold in range(parts)]
    assert sorted(name for split in splits for name in split.kept_out) == names
    assert len(splits[0].folds) == parts and max(map(len, splits[0].folds)) - min(map(len, splits[0].folds)) <= 1
    for fold, split in enumerate(splits):
        assert split.folds == splits[0].folds and split.kept_out == split.folds[fold] and split.independent
        assert split.training and not set(split.training) & set(split.kept_out)
        assert sorted(split.training + split.kept_out) == names
    together = split_cases(names, TrainConfig(folds=folds, seed=seed))
    assert together.folds == splits[0].folds and together.training == together.kept_out == tuple(names)
    with pytest.raises(UNetError, match=f"--fold: {parts} of {parts} folds. Use 0 to {parts - 1}"):
        split_cases(names, TrainConfig(folds=min(100, parts) if parts > 1 else 2, fold=parts, seed=seed))


def test_as_many_folds_as_cases_leave_one_out() -> None:
    for folds in (7, 50):
        assert sorted(map(len, split_cases(names_of(7), TrainConfig(folds=folds)).folds)) == [1] * 7


@pytest.mark.parametrize("count", [SCORED_FROM, 40, 77, 199, 200])
@pytest.mark.parametrize("seed", [0, 7])
def test_by_default_a_fifth_of_many_is_kept_out_the_first_of_five_folds(count: int, seed: int) -> None:
    names = names_of(count)
    order = np.random.default_rng((seed, 2)).permutation(count)  # what runs before this choice were given
    split = split_cases(names, TrainConfig(seed=seed))
    assert split.kept_out == tuple(sorted(names[n] for n in order[::FOLDS]))
    assert split == split_cases(names, TrainConfig(seed=seed, folds=5, fold=0)) == split_cases(names, TrainConfig(seed=seed, fold=0))


@pytest.mark.parametrize("count", [201, 400, 1001])
def test_by_default_no_more_are_kept_out_than_a_score_needs(count: int) -> None:
    split = split_cases(names_of(count), TrainConfig())
    assert MOST_KEPT_OUT / 2 < len(split.kept_out) <= MOST_KEPT_OUT and split.kept_out in split.folds
    assert sorted(split.training + split.kept_out) == names_of(count)


@pytest.mark.parametrize("count", [1, 2, SCORED_FROM - 1])
def test_by_default_all_of_few_train(count: int) -> None:
    split = split_cases(names_of(count), TrainConfig())
    assert split.training == tuple(names_of(count)) and split.kept_out == () and not split.independent


def test_some_of_the_cases() -> None:
    names = names_of(50)
    split = split_cases(names, TrainConfig(cases=10, fold=0))
    assert len(split.training + split.kept_out) == 10 and set(split.training + split.kept_out) < set(names)
    assert split != split_cases(names, TrainConfig(cases=10, fold=0, seed=1))
    assert split_cases(names, TrainConfig(cases=10)).kept_out == (), "so few that none is kept out"
    with pytest.raises(UNetError, match="--fold: 3 of 3 folds. Use 0 to 2"):
        split_cases(names[:3], TrainConfig(fold=3))


@given(integers(2, 60), integers(2, 8), integers(0, 1000), integers(1, 5))
@settings(max_examples=60)
def test_copies_are_never_on_both_sides(count: int, folds: int, seed: int, size: int) -> None:
    """Whatever the seed, cases of one group train together or are scored together, and every case still has its fold."""
    names = names_of(count)
    groups = {name: names[n // size * size] for n, name in enumerate(names)}
    if count <= size:
        with pytest.raises(UNetError, match="--folds: .* share their voxels cannot be kept out and trained on"):
            split_cases(names, TrainConfig(folds=folds, fold=0), groups)
        return
    for fold in range(min(folds, -(-count // size))):
        split = split_cases(names, TrainConfig(folds=folds, fold=fold, seed=seed), groups)
        assert sorted(split.training + split.kept_out) == names and split.training and split.kept_out
        assert not {groups[name] for name in split.training} & {groups[name] for name in split.kept_out}
    if size == 1:
        assert split == split_cases(names, TrainConfig(folds=folds, fold=fold, seed=seed)), "nothing changes without copies"


@pytest.mark.parametrize("seed", range(6))
def test_a_large_group_is_a_fold_and_never_the_first(seed: int) -> None:
    """As many train as can: of 60 cases of which 40 are copies, not the few that are none."""
    names = names_of(60)
    groups = {name: names[0] if n < 40 else name for n, name in enumerate(names)}
    split = split_cases(names, TrainConfig(seed=seed), groups)
    assert sorted(map(len, split.folds)) == [5, 5, 5, 5, 40] and len(split.training) == 55


@pytest.mark.parametrize(
    ("count", "flags"), [(1, "--folds 2"), (2, "--folds 2"), (4, "--folds 2 --cases 1"), (9, "--folds 3"), (60, "--folds 5")]
)
def test_the_advice_for_an_honest_score_can_be_followed(count: int, flags: str) -> None:
    """Of groups of four; two cases are no group."""
    names = names_of(count)
    groups = {name: names[n // 4 * 4] if count > 2 else name for n, name in enumerate(names)}
    text = words(names, TrainConfig(folds=1), groups)
    assert text.endswith(f"For an honest score: {flags}.")
    if count == 4:
        with pytest.raises(UNetError, match="Use --folds 2 --cases 1, which cuts one into halves"):
            split_cases(names, TrainConfig(folds=4), groups)


def test_copies_are_grouped_and_the_plan_says_so(tmp_path: Path) -> None:
    """A copy of an image, and another image under the same mask, go with the first; the check says what will be done."""
    data = decathlon(tmp_path / "data", 6)
    images, labels = sorted((data / "imagesTr").iterdir()), sorted((data / "labelsTr").iterdir())
    shutil.copy(images[0], images[1])
    shutil.copy(labels[1], labels[2])
    dataset = find_cases(data)
    reports = list(check(dataset))
    facts = facts_in(reports)
    groups = groups_of(facts)
    first = dataset.cases[0].name
    assert [name for name, group in groups.items() if group == first] == [case.name for case in dataset.cases[:3]]
    for fold in range(4):
        config = TrainConfig(folds=4, fold=fold)
        _, split = arrange(dataset.with_groups(groups).cases, config)
        side = {name in split.training for name in groups if groups[name] == first}
        assert len(side) == 1
        assert "The 3 cases that share voxels or masks with others stay with them on one side." in plan(dataset, facts, None, config)[2][-1]


@pytest.mark.parametrize("count", [1, 2, 6, 24, 25, 60, 400])
@pytest.mark.parametrize("config", [TrainConfig(), TrainConfig(fold=1), TrainConfig(folds=3), TrainConfig(folds=2), TrainConfig(cases=4)])
def test_the_plan_says_what_becomes_of_the_cases(count: int, config: TrainConfig) -> None:
    text = words(names_of(count), config)
    if config.fold is None and config.folds is None:
        split = split_cases(names_of(count), config)
        said = f"{len(split.kept_out)} of {count} cases are kept out" if split.kept_out else "nothing is scored"
        assert said in text and ("--folds" in text) == (not split.kept_out)
    else:
        assert "scored" in text or "score" in text


def test_the_plan_says_what_becomes_of_one_volume() -> None:
    both, one = (words(["a"], TrainConfig(folds=2, fold=fold)) for fold in (None, 1))
    assert both == "Two models, each trained on one half of the volume and scored on the other; together they are the product."
    assert one == "One half of the volume trains, the other is kept out, to score the model."


# --- one volume


@pytest.mark.parametrize("shape, spacing, axis", [((20, 24, 18), (1, 1, 1), 1), ((20, 24, 20), (1, 1, 2), 2), ((64, 30, 6), (1, 1, 30), 0)])
@pytest.mark.parametrize("tilt", [0, 20])
def test_halves_lie_apart_where_they_were(
    tmp_path: Path, shape: tuple[int, ...], spacing: tuple[float, ...], axis: int, tilt: float
) -> None:
    """The longest axis in mm with enough voxels is cut; every voxel of a half is the volume's voxel at that place."""
    write_pair(tmp_path / "images/a.nii.gz", tmp_path / "labels/a.nii.gz", *scan(0, shape, affine_for("LSP", spacing, tilt)))
    (case,) = find_cases(tmp_path).cases
    whole = read_image(case)
    truth, parts = read_label(case, whole), halves(case)
    assert [part.name for part in parts] == ["a_half1", "a_half2"] and {part.part[0] for part in parts} == {axis}
    (_, zero, end), (_, start, size) = (part.part for part in parts)
    assert zero == 0 and size == shape[axis] and end == size - start >= LEAST_HALF
    assert start - end >= max(LEAST_GAP, GAP * size - 1)
    for part in parts:
        image = read_image(part)
        label = read_label(part, image)
        assert label.shape == image.shape and image.shape[axis] == end
        region = tuple(slice(*part.part[1:]) if a == axis else slice(None) for a in range(3))
        assert np.array_equal(image.data, whole.data[region]) and np.array_equal(label.data, truth.data[region])
        index = np.array([2, 3, 1])
        there = index + np.eye(3, dtype=int)[axis] * part.part[1]
        np.testing.assert_allclose(image.affine @ [*index, 1], whole.affine @ [*there, 1], atol=1e-4)


def test_halves_of_a_picture(tmp_path: Path) -> None:
    (case,) = find_cases(two_folders(tmp_path, 1, ".png")).cases
    for part in halves(case):
        image = read_image(part)
        assert image.shape == (28, 48, 1) and image.shape_on_disk == (28, 48)


def test_a_volume_too_thin_for_halves(tmp_path: Path) -> None:
    case, other = find_cases(decathlon(tmp_path, 2, shape=(19, 19, 19))).cases
    with pytest.raises(UNetError, match=r"its shape is \(19, 19, 19\): too thin to be cut into halves. Give a volume of at least 20"):
        halves(case)
    with pytest.raises(UNetError, match="too thin"):
        arrange((case,), TrainConfig(folds=2))
    assert len(arrange((case, other), TrainConfig(folds=2))[1].folds) == 2, "two cases are not cut"


def test_a_single_case_is_cut_in_two_and_no_more(tmp_path: Path) -> None:
    cases = find_cases(decathlon(tmp_path, 3)).cases
    for config in (TrainConfig(folds=2), TrainConfig(folds=2, cases=1)):
        by_name, split = arrange(cases[:1] if config.cases is None else cases, config)
        assert sorted(by_name) == sorted(sum(split.folds, ())) and len(split.folds) == 2 and all(c.part for c in by_name.values())
    for config in (TrainConfig(fold=0), TrainConfig(folds=5), TrainConfig(folds=3, fold=1)):
        with pytest.raises(UNetError, match="parts of a single case. Use --folds 2, which cuts it into halves"):
            arrange(cases[:1], config)
    by_name, split = arrange(cases[:1], TrainConfig())
    assert split.training == ("a0",) and by_name["a0"].part is None


@pytest.mark.parametrize("count", [1, 3, 30, 300])
def test_one_part_is_all_cases(count: int) -> None:
    names = [f"case {n}" for n in range(count)]
    split = split_cases(names, TrainConfig(folds=1))
    assert split.training == tuple(sorted(names)) and not (split.kept_out or split.folds or split.independent)
    with pytest.raises(UNetError, match="0 of 1 part"):
        split_cases(names, TrainConfig(folds=1, fold=0))
