"""Partial labels: what nobody labelled has no influence at all, on facts, batches, weights or scores."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import _one_thread, decathlon, describe, nnunet, scan, two_folders, write_pair  # noqa: F401 - a fixture
from engine import model_spec, network_spec, seen_as
from hostile import affine_for
from numpy.typing import NDArray
from test_cli import SMALL, Outcome, call  # noqa: F401 - a fixture
from torch import Tensor, nn
from torch.nn import functional

from napari_unet import (
    LabelRule,
    PlanChoices,
    TrainConfig,
    UNetError,
    Volume,
    check,
    find_cases,
    pictures,
    weights,
)
from napari_unet.checks import facts_in
from napari_unet.dataset import Case, read_image, read_label, read_mask
from napari_unet.evaluate import evaluate, read_scores, score_case
from napari_unet.images import read_labels, write
from napari_unet.layout import LOG, MASKS, MODEL, RESUME, SCORES
from napari_unet.learning import Learner
from napari_unet.loss import IGNORE_INDEX
from napari_unet.partial import PLANES, UNLABELLED, mark, settle
from napari_unet.plan import plan
from napari_unet.preprocess import prepare_labels
from napari_unet.record import read_record
from napari_unet.report import write_report
from napari_unet.sampling import Example, Sampler
from napari_unet.schedule import Stage, in_steps
from napari_unet.spec import ModelSpec
from napari_unet.suffixes import is_picture
from napari_unet.train import train

SPEC = model_spec(network_spec(classes=3))
FLAT = model_spec(network_spec(2, classes=3))
PLAIN = TrainConfig(augment=0, grow=False)
Change = Callable[[NDArray[Any]], NDArray[Any]]


def sparse(value: int, step: int = 4, axis: int = 2) -> Change:
    """Of the slices across an axis that hold a label, each `step`-th stays; all others are filled with a value."""

    def change(data: NDArray[Any]) -> NDArray[Any]:
        others = tuple(a for a in range(3) if a != axis)
        kept = np.isin(np.arange(data.shape[axis]), np.flatnonzero(data.any(axis=others))[::step])
        return np.where(np.expand_dims(kept, others), data, value).astype(np.uint16)

    return change


def scrambled(first: int, second: int) -> Change:
    """The same slices as `sparse` keeps; the others are a jumble of two values."""

    def change(data: NDArray[Any]) -> NDArray[Any]:
        jumble = np.random.default_rng(0).choice([first, second], data.shape)
        return np.where(sparse(1)(data) == sparse(2)(data), data, jumble).astype(np.uint16)

    return change


def cover(value: int, axis: int = 0) -> Change:
    """The first third along an axis is filled with a value."""

    def change(data: NDArray[Any]) -> NDArray[Any]:
        covered = np.arange(data.shape[axis]) < data.shape[axis] // 3
        return np.where(np.expand_dims(covered, [a for a in range(3) if a != axis]), value, data).astype(np.uint16)

    return change


def relabel(folder: Path, *changes: Change) -> Path:
    """Other masks: `changes` in turn, one for each file."""
    files = sorted(path for place in ("labels", "labelsTr") for path in (folder / place).glob("*"))
    for n, path in enumerate(files):
        mask = read_labels(path)
        changed = mask.with_data(changes[n % len(changes)](mask.data))
        if is_picture(path):
            pictures.write(path, changed.data.astype(np.uint8), "mask")
        else:
            write(path, changed)
    return folder


def ignoring(folder: Path, value: int) -> Path:
    """nnU-Net's way of saying which value to ignore."""
    described = json.loads((folder / "dataset.json").read_text())
    describe(folder, **described | {"labels": described["labels"] | {"ignore": value}})
    return folder


# which voxels


def test_what_is_ignored_is_unlabelled() -> None:
    _, mask = scan(1)
    covered = mask.with_data(cover(9)(mask.data))
    found = mark(covered, LabelRule(ignore=9)).data
    assert np.array_equal(found == UNLABELLED, covered.data == 9) and (found == UNLABELLED).any()
    assert np.array_equal(found[found != UNLABELLED], mask.data[found != UNLABELLED])


@pytest.mark.parametrize("rule", [LabelRule(), LabelRule(ignore=9), LabelRule(labelled_slices="axial")])
def test_a_mask_that_is_labelled_everywhere_stays_the_very_same(rule: LabelRule) -> None:
    mask = scan()[1].with_data(np.ones((20, 24, 18), np.uint8))
    assert mark(mask, rule) is mask


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAR", "PIL", "ASL"])
@pytest.mark.parametrize("plane", PLANES)
def test_slices_without_a_label_are_unlabelled_however_the_file_stores_them(plane: Any, orientation: str) -> None:
    _, mask = scan(2)
    axis = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    painted = mask.with_data(sparse(0, axis=axis)(mask.data))
    empty = ~painted.data.any(axis=tuple(a for a in range(3) if a != axis), keepdims=True)
    expected = painted.with_data(np.where(empty, UNLABELLED, painted.data.astype(int)))
    for rule in (LabelRule(labelled_slices=plane), LabelRule(labelled_slices="auto")):
        found = mark(seen_as(painted, orientation), rule)
        assert np.array_equal(found.data, seen_as(expected, orientation).data)
    assert 0 in expected.data, "in a slice with a label, the rest is background"


def test_what_is_ignored_makes_no_slice_a_labelled_one() -> None:
    _, mask = scan(2)
    data = sparse(0)(mask.data)
    empty = int(np.flatnonzero(~data.any((0, 1)))[0])
    data[3, 3, empty] = 9
    data[3, 3, full := int(np.flatnonzero(data.any((0, 1)))[-1])] = 9
    found = mark(mask.with_data(data), LabelRule(9, "axial")).data
    assert (found[:, :, empty] == UNLABELLED).all()
    assert np.argwhere(found[:, :, full] == UNLABELLED).tolist() == [[3, 3]], "in a labelled one it counts all the same"


def test_values_as_large_as_a_file_may_hold() -> None:
    data = np.array([0, 40_000, 65_535, 3], np.uint16).reshape(4, 1, 1).repeat(2, 1).repeat(2, 2)
    found = mark(scan()[1].__class__(data, np.eye(4)), LabelRule(ignore=40_000)).data
    assert found[:, 0, 0].tolist() == [0, UNLABELLED, 65_535, 3]


def test_the_plane_is_found_over_all_cases() -> None:
    """The second structure is thinner than what was painted of it; alone, it would mislead."""
    shares = [(0.1, 0.6, 0.5), (0.3, 0.9, 0.1), (0.1, 0.5, 0.7)]
    assert settle(LabelRule(labelled_slices="auto"), shares) == LabelRule(labelled_slices="axial")
    assert settle(LabelRule(7, "auto"), [shares[1]]) == LabelRule(7, "sagittal")
    for rule in (LabelRule(), LabelRule(labelled_slices="coronal")):
        assert settle(rule, shares) is rule


@pytest.mark.parametrize("shape", [(20, 24, 1), (20, 1, 24), (1, 24, 20)])
def test_a_single_slice_cannot_tell(shape: tuple[int, ...]) -> None:
    _, mask = scan(0, shape)
    with pytest.raises(UNetError, match="label 0: a single slice: .* Leave out --labelled-slices; .*--ignore"):
        mark(mask, LabelRule(labelled_slices="axial"))


@pytest.mark.parametrize(
    ("stored", "ignore", "meant"),
    [
        ((0, 255), None, (0, 1)),
        ((0, 255), 9, (0, 1)),
        ((0, 128, 255), 128, (0, UNLABELLED, 1)),
        ((0, 255), 255, (0, UNLABELLED)),  # as in Cityscapes
        ((0, 1, 255), 255, (0, 1, UNLABELLED)),
        ((0, 1, 255), 1, (0, UNLABELLED, 255)),
        ((0, 2, 255), 9, (0, 2, 255)),
    ],
)
def test_pictures_of_black_white_and_grey(stored: tuple[int, ...], ignore: int | None, meant: tuple[int, ...], tmp_path: Path) -> None:
    data = np.array(stored, np.uint8).repeat(8).reshape(-1, 8, 1)
    pictures.write(tmp_path / "mask.png", data, "mask")
    mask = read_mask(Case("a", (), tmp_path / "mask.png", LabelRule(ignore=ignore)))
    assert mask.data[:, 0, 0].tolist() == list(meant)


# layouts


def test_nnunets_layout_names_the_value(tmp_path: Path) -> None:
    found = find_cases(ignoring(relabel(nnunet(tmp_path), cover(3)), 3))
    assert found.labels == {1: "bright", 2: "dark"} and found.rule == LabelRule(ignore=3)
    assert all(case.rule == found.rule for case in found.cases)
    masks = [read_label(case, read_image(case)).data for case in found.cases]
    assert set(np.unique(masks)) == {UNLABELLED, 0, 1, 2}
    assert find_cases(tmp_path, LabelRule(3, "axial")).rule == LabelRule(3, "axial")


def test_the_decathlons_layout_names_the_value(tmp_path: Path) -> None:
    decathlon(tmp_path, 1)
    described = json.loads((tmp_path / "dataset.json").read_text())
    describe(tmp_path, **described | {"labels": described["labels"] | {"7": "ignore"}})
    assert find_cases(tmp_path).rule == LabelRule(ignore=7) and 7 not in find_cases(tmp_path).labels


@pytest.mark.parametrize("make", [decathlon, nnunet, two_folders])
def test_in_every_layout_a_rule_may_be_given(make: Callable[[Path], Path], tmp_path: Path) -> None:
    dataset = find_cases(relabel(make(tmp_path), cover(9)), LabelRule(ignore=9))
    reports = list(check(dataset))
    assert not [finding for report in reports for finding in report.findings]
    assert {value for report in reports if report.facts for value in report.facts.voxels} == {1, 2}
    without = [finding.what for report in check(find_cases(tmp_path)) for finding in report.findings]
    assert bool(without) == (make is not two_folders), "there 9 would be a class like any other"


@pytest.mark.parametrize(
    ("value", "rule", "words"),
    [
        (None, LabelRule(ignore=2), "--ignore: 2 is a class in dataset.json"),
        (3, LabelRule(ignore=4), "--ignore: 4, but dataset.json names 3"),
        (0, LabelRule(), "'ignore': 0"),
        (2, LabelRule(), "two names for 2"),
        (70_000, LabelRule(), "'ignore': 70000"),
        (-1, LabelRule(), "'ignore': -1"),
    ],
)
def test_values_that_cannot_be_ignored(value: int | None, rule: LabelRule, words: str, tmp_path: Path) -> None:
    folder = nnunet(tmp_path) if value is None else ignoring(nnunet(tmp_path), value)
    with pytest.raises(UNetError, match=words):
        find_cases(folder, rule)


# checks and planning


def test_facts_and_plan_know_labelled_voxels_only(tmp_path: Path) -> None:
    """The same as of a set in which nothing more was ever painted; only the words tell."""
    told = {}
    for name, value in (("ignored", 9), ("background", 0)):
        dataset = find_cases(relabel(two_folders(tmp_path / name / "data"), cover(value)), LabelRule(ignore=9))
        facts = facts_in(check(dataset))
        told[name] = facts, plan(dataset, facts)
    (ignored, first), (background, second) = told.values()
    for one, two in zip(ignored, background, strict=True):
        assert (one.voxels, one.centroids, one.sha256, one.labelled) == (two.voxels, two.centroids, two.sha256, two.labelled)
        assert np.array_equal(one.foreground, two.foreground)
    assert first == second and "Voxels of the value 9 are unlabelled: no influence on weights or scores." in first[2]
    dense = facts_in(check(find_cases(two_folders(tmp_path / "dense"))))
    assert Counter(dense[0].voxels) > Counter(ignored[0].voxels)


def test_the_plan_says_which_slices(tmp_path: Path) -> None:
    at = affine_for("LSA", (1.0, 1.0, 1.0))
    dataset = find_cases(relabel(two_folders(tmp_path, affine=at), sparse(0, axis=1)), LabelRule(labelled_slices="auto"))
    facts = facts_in(check(dataset))
    painted = sum(int(read_labels(case.label).data.any((0, 2)).sum()) for case in dataset.cases)
    settled = dataset.with_rule(settle(dataset.rule, [f.labelled for f in facts]))
    words = plan(settled, facts)[2]
    assert settled.rule.labelled_slices == "axial"
    assert any(f"Only axial slices that hold a label count as labelled, {painted} of {4 * 24};" in word for word in words)


def test_a_case_without_any_label_is_an_error(tmp_path: Path) -> None:
    blank: Change = np.zeros_like
    relabel(two_folders(tmp_path), lambda data: blank(data) + 9, blank, sparse(0))
    found = {}
    for rule in (LabelRule(ignore=9), LabelRule(9, "axial")):
        reports = list(check(find_cases(tmp_path, rule)))
        found[rule] = [(f.level, Path(f.where).name, f.what) for report in reports for f in report.findings]
        assert all((report.facts is None) == any(f.level == "error" for f in report.findings) for report in reports)
    nothing = "none of its voxels is labelled"
    errors = [("error", "c0.nii.gz", nothing), ("error", "c3.nii.gz", nothing)]
    empty = ("warning", "c1.nii.gz", "an empty mask: every voxel is background")
    assert found[LabelRule(ignore=9)] == [errors[0], empty, errors[1]]
    assert found[LabelRule(9, "axial")] == [errors[0], ("error", "c1.nii.gz", nothing), errors[1]]


def test_a_value_that_never_occurs_is_a_warning(tmp_path: Path) -> None:
    *cases, last = check(find_cases(two_folders(tmp_path), LabelRule(ignore=99)))
    assert [finding.what for finding in last.findings] == ["the ignore value 99 occurs in no case"]
    assert not any(report.findings for report in cases)


def test_slices_of_pictures_are_an_error(tmp_path: Path) -> None:
    (report, *_) = check(find_cases(two_folders(tmp_path, ending=".png"), LabelRule(labelled_slices="auto")))
    assert ["a single slice" in finding.what for finding in report.findings] == [True]


# batches


def example(mask: Change, spec: ModelSpec = SPEC, rule: LabelRule | None = None, shape: tuple[int, ...] = (24, 26, 28)) -> Example:
    image, label = scan(3, shape)
    return Example.make(image, mark(label.with_data(mask(label.data)), rule or LabelRule(ignore=9)), spec)


@pytest.mark.parametrize("spacing", [(0.0, 0.0, 0.0), (0.7, 1.0, 1.6), (1.5, 1.0, 0.75)])
def test_resampling_invents_no_label(spacing: tuple[float, ...]) -> None:
    """Nearest: each voxel of the model's grid says what one of the mask's says that is at most half a voxel away."""
    _, label = scan(3)
    index = np.arange(label.data.size, dtype=np.int32).reshape(label.shape)
    marked = mark(label.with_data(scrambled(9, 0)(label.data)), LabelRule(ignore=9))
    spec = replace(SPEC, spacing=spacing)
    classes = prepare_labels(marked, spec).numpy()
    z, y, x = (np.arange(n) * (s or 1.0) for n, s in zip(classes.shape, spacing, strict=True))
    near = [[np.minimum(np.floor(p + shift + 1e-4), n - 1).astype(int) for shift in (0.5 - 1e-3, 0.5)]
            for p, n in zip((x, y, z), label.shape, strict=True)]  # fmt: skip
    allowed = [index[np.ix_(i, j, k)].T for i in near[0] for j in near[1] for k in near[2]]
    expected = [np.where(marked.data == UNLABELLED, IGNORE_INDEX, marked.data).ravel()[a] for a in allowed]
    assert np.any([classes == e for e in expected], axis=0).all()
    assert (classes == IGNORE_INDEX).any() and set(np.unique(classes)) <= {0, 1, 2, IGNORE_INDEX}


@pytest.mark.parametrize(("spec", "patch"), [(SPEC, (8, 8, 8)), (FLAT, (1, 8, 8))])
@pytest.mark.parametrize("foreground", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("mask", [sparse(9, 6), cover(9), scrambled(9, 0)])
def test_every_patch_holds_a_labelled_voxel(mask: Change, foreground: float, spec: ModelSpec, patch: tuple[int, ...]) -> None:
    made = example(mask, spec)
    for voxels in (*made.centres, made.labelled):
        assert voxels is not None and (made.label.numpy()[tuple(voxels.T)] != IGNORE_INDEX).all()
    assert len(made.centres) == 2
    sampler = Sampler([made], spec, replace(PLAIN, foreground=foreground))
    for step in range(60):
        _, shares = sampler.batch(step, 2 * step, patch, 2)
        assert (shares.sum((1, 2, 3, 4)) > 0).all()


def test_patches_reach_everything_that_is_labelled() -> None:
    made = example(sparse(9), shape=(9, 10, 11))
    numbers = torch.arange(1.0, made.label.numel() + 1).reshape(1, *made.label.shape)
    sampler = Sampler([replace(made, image=numbers)], SPEC, replace(PLAIN, foreground=0.0))
    drawn = [sampler.batch(step, step, (4, 4, 4), 4) for step in range(150)]
    seen = torch.cat([images[:, 0][shares.sum(1) > 0] for images, shares in drawn])
    assert set(seen.int().tolist()) == set(numbers[0][made.label != IGNORE_INDEX].int().tolist())


def test_augmented_patches_hold_a_labelled_voxel_too() -> None:
    sampler = Sampler([example(sparse(9, 20))], SPEC, TrainConfig(augment=1.0, foreground=0.0))
    held = [sampler.batch(step, 2 * step, (8, 8, 8), 2)[1].sum((1, 2, 3, 4)) > 0 for step in range(100)]
    assert torch.cat(held).float().mean() > 0.97


def test_a_case_labelled_everywhere_is_sampled_as_ever() -> None:
    dense = example(lambda data: data)
    assert dense.labelled is None and example(cover(9)).labelled is not None


def test_a_grid_that_misses_the_only_labelled_slice() -> None:
    only = sparse(9, 40)  # slice 1 of 28
    assert example(only).labelled is not None
    with pytest.raises(UNetError, match="label 3: none of its voxels is labelled at the model's spacing. Label more slices"):
        example(only, replace(SPEC, spacing=(3.0, 1.0, 1.0)))


# weights


KINDS = {
    "3-D": PlanChoices(features=(4, 8), patch=(12, 16, 16)),
    "2-D": PlanChoices(features=(4, 8), patch=(1, 16, 16), dims=2),
    "pictures": PlanChoices(features=(4, 8), patch=(1, 32, 32)),
}


def trained(folder: Path, kind: str, rule: LabelRule, *masks: Change) -> Path:
    """Plan and train for a few steps, one case kept out; the run's folder."""
    two_folders(folder / "data", 4, ".png" if kind == "pictures" else ".nii.gz")
    dataset = find_cases(relabel(folder / "data", *masks), rule)
    facts = facts_in(check(dataset))
    spec, config, _ = plan(dataset, facts, KINDS[kind], TrainConfig(steps=5, checks=1, foreground=0.4, fold=0, device="cpu"))
    list(train(dataset.cases, spec, config, out=folder / "run"))
    return folder / "run"


def weights_of(run: Path) -> dict[str, bytes]:
    return {f"{name} {key}": tensor.tobytes() for name in (MODEL, RESUME) for key, tensor in weights.load_tensors(run / name)[0].items()}


def logged(run: Path) -> list[list[str]]:
    """All columns but the seconds."""
    return [line.split(",")[:4] for line in (run / LOG).read_text().splitlines()]


@pytest.mark.parametrize("kind", ["3-D", "2-D"])
def test_what_a_mask_says_of_unlabelled_slices_has_no_influence(kind: str, tmp_path: Path) -> None:
    """Left out, ignored by this value or by that, a jumble of both: every bit of the weights is the same, and every score."""
    axial = {"labelled_slices": "axial"}
    runs = [
        trained(tmp_path / "left out", kind, LabelRule(**axial), sparse(0)),
        trained(tmp_path / "ignored", kind, LabelRule(ignore=9), sparse(9)),
        trained(tmp_path / "by another value", kind, LabelRule(ignore=200), sparse(200)),
        trained(tmp_path / "a jumble", kind, LabelRule(ignore=9, **axial), scrambled(0, 9)),
    ]
    first, *others = map(weights_of, runs)
    assert all(other == first for other in others)
    assert all(logged(run) == logged(runs[0]) for run in runs), "losses, and Dice during the run"
    scores = {(run / SCORES).read_text() for run in runs}
    assert len(scores) == 1 and scores != {"case,label,dice,ml,reference_ml,surface_dice,hausdorff95_mm\n"}
    as_background = trained(tmp_path / "background", kind, LabelRule(), sparse(0))
    assert weights_of(as_background) != first and (as_background / SCORES).read_text() not in scores
    pages = [write_report(run)[1].read_bytes() for run in runs[:2]]
    assert pages[0] == pages[1], "nor is it drawn"


def test_dense_and_sparse_pictures_together(tmp_path: Path) -> None:
    """A picture without an unlabelled pixel is labelled all over; the value that marks the others does not matter."""
    masks = [(lambda data: data, cover(value, 1)) for value in (9, 255, 77)]
    runs = [trained(tmp_path / str(n), "pictures", LabelRule(ignore=value), *each)
            for n, (value, each) in enumerate(zip((9, 255, 77), masks, strict=True))]  # fmt: skip
    assert weights_of(runs[0]) == weights_of(runs[1]) == weights_of(runs[2])
    assert weights_of(trained(tmp_path / "class", "pictures", LabelRule(), *masks[0])) != weights_of(runs[0])
    assert {label.value for label in read_record(runs[0]).spec.labels} == {1, 2}


class Watched(Sampler):
    """Remembers where the last batch is labelled."""

    labelled: Tensor

    def batch(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        images, shares = super().batch(*arguments)
        self.labelled = shares.sum(1, keepdim=True)
        return images, shares


@pytest.mark.parametrize(("spec", "patch"), [(SPEC, (8, 8, 8)), (FLAT, (1, 16, 16))])
def test_what_the_network_says_of_unlabelled_voxels_has_no_influence(spec: ModelSpec, patch: tuple[int, ...]) -> None:
    """Whatever is added to its logits there, at any scale, it learns the same to the last bit."""
    learnt = []
    for noise in (0.0, 30.0):
        sampler = Watched([example(cover(9), spec), example(sparse(9), spec)], spec, TrainConfig())
        learner = Learner(spec, TrainConfig(), torch.device("cpu"), sampler)
        disturbed = 0

        def disturb(_: nn.Module, __: Any, logits: Tensor, sampler: Watched = sampler, noise: float = noise) -> Tensor:
            nonlocal disturbed
            labelled = sampler.labelled if logits.ndim == 5 else sampler.labelled[:, :, 0]
            nobodys = functional.interpolate(labelled, logits.shape[2:], mode="area") == 0
            disturbed += int(nobodys.sum())
            return logits + noise * torch.randn_like(logits) * nobodys

        for head in learner.network.decoder.seg_layers:
            head.register_forward_hook(disturb)
        schedule = in_steps([Stage(patch, 2, 1.0)], 6)
        losses = [float(learner.step(step, schedule)) for step in range(6)]
        assert disturbed > 100
        learnt.append((losses, {name: tensor.tobytes() for name, tensor in learner.tensors().items()}))
    assert learnt[0] == learnt[1]


# scores


def test_predictions_that_differ_where_nobody_labelled_score_alike() -> None:
    random = np.random.default_rng(0)
    _, truth = scan(1)
    marked = mark(truth.with_data(cover(9)(truth.data)), LabelRule(ignore=9))
    known = marked.data != UNLABELLED
    guess = truth.with_data(random.integers(0, 4, truth.shape).astype(np.uint8))
    other = truth.with_data(np.where(known, guess.data, random.integers(0, 200, truth.shape)).astype(np.uint8))
    assert score_case("a", guess, marked) == score_case("a", other, marked)
    for score in score_case("a", guess, marked):
        a, b = guess.data[known] == score.label, truth.data[known] == score.label
        assert score.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert (score.ml, score.reference_ml) == pytest.approx((a.sum() / 1000, b.sum() / 1000))
    assert [score.label for score in score_case("a", other, marked)] == [1, 2, 3]


def test_where_a_part_is_unlabelled_there_are_no_surfaces() -> None:
    _, truth = scan(1)
    assert all(score.surface_dice == 1 for score in score_case("a", truth, truth, surface=True))
    marked = mark(truth.with_data(cover(9)(truth.data)), LabelRule(ignore=9))
    assert all((score.dice, score.surface_dice, score.hausdorff95_mm) == (1, None, None)
               for score in score_case("a", truth, marked, surface=True))  # fmt: skip


def test_a_class_that_is_only_where_nobody_labelled_has_no_score() -> None:
    mask = Volume(np.zeros((6, 6, 6), np.uint8), np.eye(4))
    guess = mask.with_data(mask.data.copy())
    guess.data[0], mask.data[0] = 1, 9
    (score,) = score_case("a", guess, mark(mask, LabelRule(ignore=9)), [1])
    assert score.dice is None and score.ml == score.reference_ml == 0


@pytest.mark.parametrize("rule", [LabelRule(ignore=9), LabelRule(labelled_slices="axial"), LabelRule(labelled_slices="auto")])
def test_a_runs_scores_are_what_evaluate_gives(rule: LabelRule, tmp_path: Path) -> None:
    run = trained(tmp_path, "3-D", rule, sparse(9 if rule.ignore else 0))
    (mask,) = (run / MASKS).iterdir()
    ((*scores,),) = evaluate(mask, tmp_path / "data/labels" / mask.name, rule=rule)
    found = {score.label: score.dice for score in scores}
    assert found == pytest.approx({s.label: s.dice for s in read_scores(run / SCORES) if s.dice is not None}, abs=1e-5)


# a mask of another kind


def test_a_changed_rule_is_changed_data(tmp_path: Path) -> None:
    """What a run recorded is what it goes on with, whatever the cases say now."""
    run = trained(tmp_path, "3-D", LabelRule(ignore=9), sparse(9))
    before = weights_of(run)
    assert read_record(run).rule == LabelRule(ignore=9)
    record = read_record(run)
    list(train(find_cases(tmp_path / "data").cases, record.spec, record.config, out=run, resume=True))
    assert weights_of(run) == before
    relabel(tmp_path / "data", lambda data: data % 2)
    with pytest.raises(UNetError, match="its case c. has changed"):
        list(train(find_cases(tmp_path / "data").cases, record.spec, record.config, out=run, resume=True))


def test_a_file_cannot_say_unlabelled_by_itself(tmp_path: Path) -> None:
    image, label = scan()
    write_pair(tmp_path / "i.nii.gz", tmp_path / "l.nii.gz", image, label)
    write(tmp_path / "l.nii.gz", label.with_data(label.data.astype(np.int16) - 1), labels=False)
    with pytest.raises(UNetError, match="a mask with the value -1"):
        read_mask(Case("a", (), tmp_path / "l.nii.gz", LabelRule(ignore=9)))


# the command line


Call = Callable[..., Outcome]


def test_nnunets_layout_through_the_command_line(call: Call, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    folder, out = ignoring(relabel(nnunet(tmp_path / "data", 4), sparse(3)), 3), tmp_path / "run"
    found = call("check", folder, "--json")
    assert found.code == 0 and (found.json()["errors"], found.json()["findings"]) == (0, [])
    assert found.json()["labels"] == {"1": "bright", "2": "dark"}
    done = call("train", folder, "--out", out, "--steps", 4, "--fold", 0, *SMALL, "--json")
    assert done.code == 0 and "Voxels of the value 3 are unlabelled" in done.out
    assert set(done.json()["dice"]) <= {"bright", "dark", "mean"}
    record = read_record(out)
    assert record.rule == LabelRule(ignore=3) and [label.value for label in record.spec.labels] == [1, 2]

    (mask,) = (out / MASKS).iterdir()
    scores = [call("evaluate", mask, folder / "labelsTr" / mask.name, "--json", *more).json() for more in ((), ("--ignore", 3))]
    assert scores[0]["summary"] == scores[1]["summary"] and "3" not in scores[0]["summary"], "dataset.json lies beside them"
    alone = shutil.copy(folder / "labelsTr" / mask.name, tmp_path / mask.name)
    assert "3" in call("evaluate", mask, alone, "--json").json()["summary"]
    assert scores[1]["summary"]["mean"]["dice"] == pytest.approx(done.json()["dice"]["mean"], abs=1e-4)
    assert call("train", folder, "--out", out, "--resume").code == 0
    ignoring(folder, 4)
    assert call("train", folder, "--out", out, "--resume").refused("--ignore: 3, but dataset.json names 4")


def test_labelled_slices_through_the_command_line(call: Call, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    folder, out = relabel(two_folders(tmp_path / "data"), sparse(0)), tmp_path / "run"
    assert call("check", folder, "--labelled-slices", "auto").code == 0
    (tmp_path / "recipe.toml").write_text('labelled_slices = "auto"\nsteps = 4\nfold = 0\n')
    done = call("train", folder, "--out", out, "--recipe", tmp_path / "recipe.toml", *SMALL, "--json")
    assert done.code == 0 and "Only axial slices that hold a label count as labelled" in done.out
    assert read_record(out).rule == LabelRule(labelled_slices="axial")
    again = call("train", folder, "--out", out, "--resume", "--json")  # without being told once more
    assert again.code == 0 and again.json()["dice"] == done.json()["dice"]
    (mask,) = (out / MASKS).iterdir()
    scored = call("evaluate", mask, folder / "labels" / mask.name, "--labelled-slices", "axial", "--json").json()
    assert scored["summary"]["mean"]["dice"] == pytest.approx(done.json()["dice"]["mean"], abs=1e-4)


@pytest.mark.parametrize("command", ["check", "train", "evaluate"])
@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--ignore", 0, "ignore is 0. It should be greater than or equal to 1"),
        ("--ignore", -1, "ignore is -1"),
        ("--ignore", 65536, "ignore is 65536. It should be less than or equal to 65535"),
        ("--ignore", 1.5, "ignore is 1.5"),
        ("--ignore", "none", "ignore is 'none'"),
        ("--ignore", 2, "2 is a class in dataset.json"),
        ("--labelled-slices", "oblique", "labelled_slices is 'oblique'. It should be 'auto', 'axial', 'coronal' or 'sagittal'"),
    ],
)
def test_rules_that_cannot_be(call: Call, tmp_path: Path, command: str, flag: str, value: object, words: str) -> None:  # noqa: F811
    folder = decathlon(tmp_path / "data", 1)
    more = {"check": (), "train": ("--out", tmp_path / "run"), "evaluate": (folder / "labelsTr",)}[command]
    found = call(command, folder / "labelsTr" if command == "evaluate" else folder, *more, f"{flag}={value}")
    assert found.refused(words) if command != "evaluate" or value != 2 else found.code == 0  # masks alone have no named classes
    assert not (tmp_path / "run").exists()
