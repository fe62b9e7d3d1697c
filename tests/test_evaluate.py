"""Scores against sums made by hand, files paired by name, and no number where there is none."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from hostile import affine_for
from hypothesis import assume, given, settings
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats, lists, tuples
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from PIL import Image
from scipy import ndimage
from scipy.stats import sem, t

from napari_unet import images
from napari_unet.cli import main
from napari_unet.dataset import Case
from napari_unet.errors import UNetError
from napari_unet.evaluate import (
    Score,
    confidence,
    dice,
    evaluate,
    mean_dice,
    read_scores,
    score_case,
    summary,
    write_scores,
)
from napari_unet.spec import Label
from napari_unet.targets import Job, uncertainty_beside
from napari_unet.volume import Volume

SPACING = (0.5, 2.0, 3.0)  # a voxel is 3 mm^3
masks = arrays(bool, (3, 4, 2))


def mask(*boxes: tuple[int, Any], shape: tuple[int, ...] = (12, 11, 10), tilt: float = 0.0) -> Volume:
    """Boxes of values in a volume of background."""
    data = np.zeros(shape, np.uint8)
    for value, box in boxes:
        data[box] = value
    return Volume(data, affine_for("LPS", SPACING, tilt), source="mask")


SMALL, SHIFTED = np.s_[2:6, 3:7, 2:6], np.s_[3:7, 3:7, 2:6]  # 4 x 4 x 4; three quarters in common


@given(masks, masks)
@settings(max_examples=50)
def test_dice_is_twice_the_overlap_over_the_sum(a: np.ndarray, b: np.ndarray) -> None:
    pairs = list(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    both, total = sum(p and q for p, q in pairs), sum(map(sum, pairs))
    assert dice(a, b) == dice(b, a) == (None if total == 0 else 2 * both / total)


@pytest.mark.parametrize("tilt", [0, 25])
def test_a_case_by_hand(tilt: float) -> None:
    truth, found = mask((1, SMALL), (2, np.s_[9, 9, 9]), tilt=tilt), mask((1, SHIFTED), (7, np.s_[0, 0]), tilt=tilt)
    one, two, seven, nine = score_case("a", found, truth, [1, 2, 7, 9])
    assert (one.label, one.dice) == (1, 0.75) and (one.ml, one.reference_ml) == (pytest.approx(0.192), pytest.approx(0.192))
    assert two.dice == 0 and two.ml == 0 and two.reference_ml == pytest.approx(0.003), "missed"
    assert seven.dice == 0 and seven.ml == pytest.approx(0.03) and seven.reference_ml == 0, "invented"
    assert nine.dice is None and nine.ml == nine.reference_ml == 0, "in neither: not 0, and not 1"
    assert [score.label for score in score_case("a", found, truth)] == [1, 2, 7]


def test_volumes_of_microscopes_are_not_rounded_away() -> None:
    tiny = Volume(mask((1, SMALL)).data, np.diag([1e-3, 1e-3, 1e-3, 1]))
    (score,) = score_case("a", tiny, tiny)
    assert score.ml == pytest.approx(64e-12)


@pytest.mark.filterwarnings("error::FutureWarning")  # MONAI warns of its own calls, and a table is no place for that
def test_surfaces() -> None:
    shifted, same, missed, neither = (
        score_case("a", mask((1, found)), mask((1, truth)), [1], surface=True)[0]
        for found, truth in ((SHIFTED, SMALL), (SMALL, SMALL), (np.s_[:0], SMALL), (np.s_[:0], np.s_[:0]))
    )
    assert (same.surface_dice, same.hausdorff95_mm) == (1, 0)
    assert (shifted.surface_dice, shifted.hausdorff95_mm) == (1, 0.5), "half a millimetre is within the tolerance"
    assert (missed.surface_dice, missed.hausdorff95_mm) == (0, None) and missed.dice == 0
    assert (neither.surface_dice, neither.hausdorff95_mm, neither.dice) == (None, None, None)
    along_y = score_case("a", mask((1, np.s_[2:6, 4:8, 2:6])), mask((1, SMALL)), [1], surface=True)[0]
    assert 0 < along_y.surface_dice < 1 and along_y.hausdorff95_mm == 2, "two millimetres are not"
    assert score_case("a", mask((1, SHIFTED)), mask((1, SMALL)))[0].surface_dice is None, "only where asked for"


@given(arrays(bool, (5, 6, 4)), arrays(bool, (5, 6, 4)), tuples(*[floats(0.3, 4)] * 3))
@settings(max_examples=40)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI warns of its own calls
def test_surfaces_are_those_of_monai(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float]) -> None:
    assume(a.any() and b.any())
    found, truth = (Volume(one.astype(np.uint8), np.diag([*spacing, 1])) for one in (a, b))
    (score,) = score_case("a", found, truth, [1], surface=True)
    pair = [torch.from_numpy(np.stack([~one, one])[None].astype(np.float32)) for one in (a, b)]
    assert score.surface_dice == pytest.approx(float(compute_surface_dice(*pair, [1.0], spacing=spacing)), abs=1e-6)
    assert score.hausdorff95_mm == pytest.approx(float(compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)), abs=1e-4)


@pytest.mark.parametrize("apart", [(0, 0, 3), (0, 2, 1), (0, -2, 1), (4, 1, -2)])
def test_surfaces_of_a_sheared_grid_are_as_far_apart_as_their_voxels(apart: tuple[int, int, int]) -> None:
    """As of a CT with a tilted gantry, whose slices do not stand at right angles to the axis along which they lie."""
    affine = np.diag([0.8, 0.8, 2.5, 1])
    affine[1, 2] = 2.5 * np.tan(np.radians(20))
    one, other = (Volume(mask((1, tuple(np.add((5, 5, 4), off)))).data, affine) for off in ((0, 0, 0), apart))
    (score,) = score_case("a", one, other, surface=True)
    assert score.hausdorff95_mm == pytest.approx(np.linalg.norm(affine[:3, :3] @ apart))


def test_surfaces_take_no_more_than_their_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the whole grid: what is eroded is the box around a structure."""
    seen, erode = [], ndimage.binary_erosion
    monkeypatch.setattr(ndimage, "binary_erosion", lambda inside, *rest: seen.append(inside.shape) or erode(inside, *rest))
    whole = [mask((1, box), shape=(60, 50, 40)) for box in (SMALL, SHIFTED)]
    (score,) = score_case("a", *whole, surface=True)
    assert score.hausdorff95_mm == 0.5 and seen == [(4, 4, 4)] * 2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_surface_of_a_slice_is_its_outline(axis: int) -> None:
    """Discs whose outlines are three millimetres apart agree nowhere, though most of their pixels are in both."""
    rows, columns = np.ogrid[:64, :64]
    radius = np.hypot(rows - 32, columns - 32)
    small, large = (Volume(np.expand_dims(radius < r, axis).astype(np.uint8), np.eye(4)) for r in (20, 23))
    (score,) = score_case("a", small, large, surface=True)
    assert score.surface_dice < 0.05 and score.hausdorff95_mm == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("shape", [(12, 11, 1), (1, 11, 10), (1, 1, 3)])
def test_surfaces_of_flat_masks(shape: tuple[int, ...]) -> None:
    full = mask((1, np.s_[:]), shape=shape)
    half = mask((1, np.s_[..., :1] if shape[2] > 1 else np.s_[:3]), shape=shape)
    assert score_case("a", full, full, surface=True)[0].surface_dice == 1
    assert 0 < score_case("a", half, full, surface=True)[0].surface_dice < 1


@pytest.mark.parametrize(("truth", "found", "classes"), [
    ([(0, 128, 255), (0, 255, 255)], [(0, 128, 255), (0, 128, 255)], {128, 255}),  # a case of which one class was missed
    ([(0, 0, 255), (0, 128, 255)], [(0, 0, 255), (0, 128, 255)], {128, 255}),  # one that has no other
    ([(0, 255), (0, 255)], [(0, 1), (0, 255)], {1}), ([(0, 1, 255)], [(0, 0, 255)], {1, 255}),
], ids=str)  # fmt: skip
def test_what_255_means_is_decided_for_all_pictures(truth: list, found: list, classes: set[int], tmp_path: Path) -> None:
    for folder, masks in (("labels", truth), ("masks", found)):
        (tmp_path / folder).mkdir()
        for n, values in enumerate(masks):
            Image.fromarray(np.resize(values, (6, 6)).astype(np.uint8)).save(tmp_path / folder / f"{n}.png")
    scores = [score for case in evaluate(tmp_path / "masks", tmp_path / "labels") for score in case]
    assert {score.label for score in scores} == classes
    for score in scores:
        agreed = [[(np.asarray(Image.open(tmp_path / part / f"{score.case}.png")) == value) for value in
                   ((1, 255) if classes == {1} else (score.label,))] for part in ("masks", "labels")]  # fmt: skip
        assert score.dice == dice(*(np.any(part, axis=0) for part in agreed))


def test_grids_have_to_agree() -> None:
    with pytest.raises(UNetError, match=r"mask: its shape is \(12, 11, 10\), the label's \(12, 11, 9\)"):
        score_case("a", mask(), mask(shape=(12, 11, 9)))
    moved = mask()
    moved.affine[0, 3] += 0.3
    with pytest.raises(UNetError, match=r"mask: its affine puts a corner 0\.3 mm away"):
        score_case("a", moved, mask())


# files


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and labels of the cases a, b and c; b is perfect, and c empty."""
    for folder, boxes in (("masks", (SHIFTED, SMALL, np.s_[:0])), ("labels", (SMALL, SMALL, np.s_[:0]))):
        (tmp_path / folder).mkdir()
        for name, box in zip("abc", boxes, strict=True):
            images.write(tmp_path / folder / f"{name}.nii.gz", mask((1, box)))
    return tmp_path / "masks", tmp_path / "labels"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".png"])
def test_uncertainties_beside_masks_and_labels_are_neither(tmp_path: Path, suffix: str) -> None:
    """As `predict --uncertainty` names them, in both folders; alone, a file of such a name is a mask like any other."""
    shape = (12, 11, 1) if suffix == ".png" else (12, 11, 10)
    for folder in ("masks", "labels"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            job = Job(Case(name, ()), tmp_path / folder / f"{name}{suffix}", uncertainty_beside(tmp_path / folder / f"{name}{suffix}"))
            images.write(job.mask, mask((1, np.s_[2:6, 3:7]), shape=shape))
            images.write(job.uncertainty, Volume(np.full(shape, 0.25, np.float32), mask(shape=shape).affine), labels=False)
        images.write(tmp_path / folder / f"c_uncertainty{suffix}", mask((1, np.s_[2:6, 3:7]), shape=shape))
    found = list(evaluate(tmp_path / "masks", tmp_path / "labels"))
    assert [(score.case, score.dice) for scores in found for score in scores] == [("a", 1), ("b", 1), ("c_uncertainty", 1)]


def test_folders_are_paired_by_name(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    images.write(predictions / "unasked.nii.gz", mask())
    (predictions / "c.nii.gz").unlink()
    images.write(predictions / "c.nii", mask())  # the ending does not count
    found = list(evaluate(predictions, labels))
    assert [[(s.case, s.label, s.dice) for s in case] for case in found] == [[("a", 1, 0.75)], [("b", 1, 1.0)], []]


def test_two_files_are_a_pair_whatever_their_names(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    ((score,),) = evaluate(predictions / "a.nii.gz", labels / "b.nii.gz", surface=True)
    assert (score.case, score.dice, score.surface_dice) == ("b", 0.75, 1)
    ((score,),) = evaluate(predictions, labels / "a.nii.gz")
    assert (score.case, score.dice) == ("a", 0.75)


def test_two_zarrs_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    for name in ("mask.zarr", "label.zarr"):
        zarr.create_array(tmp_path / name, data=mask((1, np.s_[2:6, 3:7])).data.astype(np.uint8))
    ((score,),) = evaluate(tmp_path / "mask.zarr", tmp_path / "label.zarr")
    assert (score.case, score.dice) == ("label", 1)


def test_pictures_have_no_ml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mask.png", "label.png"):
        images.write(tmp_path / name, mask((1, np.s_[2:6, 3:7]), shape=(12, 11, 1)))
    ((score,),) = evaluate(tmp_path / "mask.png", tmp_path / "label.png")
    assert (score.dice, score.ml, score.reference_ml) == (1, None, None)
    write_scores(tmp_path / "scores.csv", [score])
    assert read_scores(tmp_path / "scores.csv") == [score]
    assert main(["evaluate", str(tmp_path / "mask.png"), str(tmp_path / "label.png")]) == 0
    assert re.search(r"label +1 +1\.0000 +n/a +n/a", capsys.readouterr().out)


def test_zarrs_without_z_have_no_ml(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    for name in ("mask.zarr", "label.zarr"):
        zarr.create_array(tmp_path / name, data=mask((1, np.s_[2:6, 3:7]), shape=(12, 11, 1)).data[..., 0].astype(np.uint8))
    ((score,),) = evaluate(tmp_path / "mask.zarr", tmp_path / "label.zarr")
    assert (score.dice, score.ml, score.reference_ml) == (1, None, None)


def test_a_label_without_a_prediction_is_named(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    (predictions / "b.nii.gz").unlink()
    for n in range(9):
        images.write(labels / f"more{n}.nii.gz", mask())
    with pytest.raises(UNetError, match=r"masks: no prediction for 10 of 12 labels: b\.nii\.gz, more0\.nii\.gz, .+gz and 5 more\. Name"):
        next(evaluate(predictions, labels))


def test_only_what_is_found_is_scored_where_that_is_asked_for(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The masks of a run beside all labels of its data: those of cases that it has trained on have none."""
    predictions, labels = folders
    for name in ("b", "c"):
        (predictions / f"{name}.nii.gz").unlink()
    assert main(["evaluate", str(predictions), str(labels)]) == 2
    told = capsys.readouterr().err
    assert "no prediction for 2 of 3 labels: b.nii.gz and c.nii.gz. Name predictions like their" in told and "(--only-found scores" in told
    assert main(["evaluate", str(predictions), str(labels), "--only-found"]) == 0
    told = capsys.readouterr().out
    assert "not scored: 2 labels without a mask" in told and re.search(r"a +1 +0\.7500", told)
    (predictions / "a.nii.gz").rename(predictions / "other.nii.gz")
    with pytest.raises(UNetError, match=r"no prediction for 3 of 3 labels: .+ Name predictions like their labels\.$"):
        next(evaluate(predictions, labels, only_found=True))


@pytest.mark.parametrize("folder", [0, 1])
def test_two_files_of_one_name_are_refused(folder: int, folders: tuple[Path, Path]) -> None:
    images.write(folders[folder] / "a.nii", mask())
    with pytest.raises(UNetError, match=r"a\.nii\.gz: it has the name of a\.nii\. Keep one of them"):
        next(evaluate(*folders))


def test_other_folders_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for pair in ((tmp_path / "empty", folders[1]), (folders[0], tmp_path / "empty"), (folders[0], tmp_path / "absent")):
        with pytest.raises(UNetError, match="no image files in it|no such file or folder"):
            next(evaluate(*pair))


# tables


SCORES = [
    Score("a", 1, 0.75, 0.192, 0.19, 1.0, 0.5), Score("a", 2, None, 0.0, 0.0), Score("b, b", 1, 0.5, 64e-12, 1e-9, 0.25, None),
    Score("b, b", 2, 0.25, 1234.5, 0.0), Score("ç", 1, 0.1, 0.0, 3.0), Score("ç", 2, None, 0.0, 0.0), Score("d", 1, None, 0, 0),
]  # fmt: skip


def test_the_summary() -> None:
    table = summary(SCORES)
    assert list(table) == ["1", "2", "mean"]
    low, high = confidence([0.75, 0.5, 0.1])
    assert table["1"] == {"dice": pytest.approx(0.45), "spread": pytest.approx(stdev([0.75, 0.5, 0.1])), "n": 3,
                          "low": max(0, low), "high": min(1, high)}  # fmt: skip
    none = {"low": None, "high": None}
    assert table["2"] == {"dice": 0.25, "spread": None, "n": 1, **none}, "what is in neither mask is no score"
    means = [0.75, 0.375, 0.1]  # of each case over its classes
    low, high = confidence(means)
    assert table["mean"] == {"dice": pytest.approx(sum(means) / 3), "spread": pytest.approx(stdev(means)), "n": 3,
                             "low": max(0, low), "high": min(1, high)}  # fmt: skip
    assert summary([]) == {"mean": {"dice": None, "spread": None, "n": 0, **none}}


@given(lists(floats(0, 1), max_size=30))
def test_an_interval_is_that_of_student(values: list[float]) -> None:
    found = confidence(values)
    assert (found is None) == (len(values) < 2)
    if found and stdev(values) > 1e-9:
        expected = t.interval(0.95, len(values) - 1, fmean(values), sem(values))
        assert found == pytest.approx(expected)


def test_an_interval_holds_the_mean_19_times_in_20() -> None:
    random = np.random.default_rng(0)
    for count in (2, 5, 20):
        intervals = [confidence(list(random.normal(0.8, 0.05, count))) for _ in range(2000)]
        share = np.mean([low < 0.8 < high for low, high in intervals])
        assert 0.93 < share < 0.97, (count, share)


LABELS = Label(1, "one", "#e6194b"), Label(2, "two", "#3cb44b")


def test_a_cards_dice_goes_by_names() -> None:
    assert mean_dice(SCORES, LABELS) == {
        "one": pytest.approx(0.45), "two": 0.25, "mean": pytest.approx((0.75 + 0.375 + 0.1) / 3)}  # fmt: skip
    assert mean_dice([Score("a", 1, None, 0, 0)], LABELS) == {}


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    """Of a thousand draws of five cases, about 95 % of the intervals hold the true mean."""
    random = np.random.default_rng(0)
    held = [low <= 0.8 <= high for low, high in (confidence(random.normal(0.8, 0.05, 5).tolist()) or (9, 9) for _ in range(1000))]
    assert 0.93 < np.mean(held) < 0.97


def test_the_interval_by_hand() -> None:
    low, high = confidence([0.7, 0.8, 0.9]) or (0, 0)
    assert (low + high) / 2 == pytest.approx(0.8) and high - low == pytest.approx(2 * 4.302653 * 0.1 / 3**0.5)
    assert confidence([0.8] * 4) == pytest.approx((0.8, 0.8))
    assert confidence([0.8]) is None and confidence([]) is None


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.csv", SCORES)
    assert read_scores(tmp_path / "scores.csv") == SCORES
    text = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert text[:2] == ["case,label,dice,ml,reference_ml,surface_dice,hausdorff95_mm", "a,1,0.75,0.192,0.19,1,0.5"]
    write_scores(tmp_path / "scores.csv", [Score("x", 1, 1 / 3, 2 / 3, 1e5 / 3)])
    (score,) = read_scores(tmp_path / "scores.csv")
    assert (score.dice, score.ml, score.reference_ml) == pytest.approx((1 / 3, 2 / 3, 1e5 / 3), rel=1e-5)


@pytest.mark.parametrize("content", ["case,dice\na,1\n", "case,label,dice,ml,reference_ml,surface_dice,hausdorff95_mm\na,x,,1,1,,\n",
                                     "case,label,dice,ml,reference_ml,surface_dice,hausdorff95_mm\na,1\n", None])  # fmt: skip
def test_what_are_no_scores_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(UNetError, match=r"scores\.csv: no scores can be read from it \(.+\)\. Evaluate"):
        read_scores(tmp_path / "scores.csv")
