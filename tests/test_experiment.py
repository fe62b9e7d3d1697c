"""Experiments: nothing that is trained on is scored, and what is finished is not done again."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from datasets import _one_thread, decathlon  # noqa: F401 - a fixture
from hypothesis import given
from hypothesis import strategies as st
from runs import followed

from napari_unet import PlanChoices, Segmenter, TrainConfig, UNetError, find_cases, images, read_spec
from napari_unet.dataset import Case, Dataset, read_image
from napari_unet.evaluate import Score, by_case, dice
from napari_unet.experiment import (
    MASKS,
    OUTCOME,
    draw,
    fill,
    fold_out,
    grouped,
    in_words,
    last_out,
    mean_and_error,
    read_outcome,
    run,
)  # fmt: skip
from napari_unet.words import counted

SMALL = PlanChoices(features=(4, 8), patch=(12, 16, 16))


def named(count: int) -> Dataset:
    """A data set of which nothing is read."""
    return Dataset(Path("data"), tuple(Case(f"a{n:03d}", ()) for n in reversed(range(count))), {}, ())


@given(st.integers(2, 60), st.integers(0, 5))
def test_a_fifth_is_kept_out_by_the_seed(count: int, seed: int) -> None:
    dataset = named(count)
    training, unseen = fold_out(dataset, seed)
    assert {*training, *unseen} == set(dataset.cases) and not {*training} & {*unseen}
    assert len(unseen) == -(-count // 5) and (training, unseen) == fold_out(dataset, seed)
    assert count < 10 or len({fold_out(dataset, s)[1] for s in range(6)}) > 1


@given(st.integers(3, 30))
def test_neighbours_stay_together(count: int) -> None:
    training, unseen = last_out(named(count), 2)
    assert {case.name for case in unseen} == {f"a{count - 2:03d}", f"a{count - 1:03d}"} and len(training) == count - 2


def test_copies_are_on_one_side(tmp_path: Path) -> None:
    data = decathlon(tmp_path, 10)
    for n in range(5):
        for part in ("imagesTr", "labelsTr"):
            shutil.copy(data / part / f"a{n}.nii.gz", data / part / f"a{n + 5}.nii.gz")
    dataset = grouped(find_cases(data))
    for seed in range(4):
        sides = [{int(case.name[1:]) % 5 for case in side} for side in fold_out(dataset, seed)]
        assert all(sides) and not sides[0] & sides[1]
    training, unseen = last_out(dataset, 2)
    with pytest.raises(UNetError, match="it is to be trained on and to be unseen, or a copy of it is"):
        list(run(dataset, training, unseen, out=tmp_path / "out"))


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_to_keep_any_out(count: int) -> None:
    for split in (lambda: fold_out(named(count)), lambda: last_out(named(count), 6)):
        with pytest.raises(UNetError, match=f"data: {counted(count, 'case')}. Give more"):
            split()


@given(st.integers(1, 30), st.integers(0, 3))
def test_a_smaller_draw_is_part_of_every_larger_one(count: int, seed: int) -> None:
    cases = named(count).cases
    draws = [set(draw(cases, n, seed)) for n in range(1, count + 1)]
    assert [len(each) for each in draws] == list(range(1, count + 1)) and all(a < b for a, b in pairwise(draws))
    for wrong in (0, count + 1):
        with pytest.raises(UNetError, match=f"--cases: {wrong} of {counted(count, 'case')}. Use 1 to {count}"):
            draw(cases, wrong, seed)


def test_a_run_scores_what_it_never_saw_and_is_not_done_twice(tmp_path: Path) -> None:
    dataset, out = find_cases(decathlon(tmp_path / "data", 4)), tmp_path / "run"
    training, unseen = last_out(dataset, 1)
    config = TrainConfig(steps=3, grow=False, device="cpu")
    with pytest.raises(UNetError, match="a3: it is to be trained on and to be unseen"):
        list(run(dataset, dataset.cases, unseen, out=out, config=config))

    followed(run(dataset, training, unseen, out=out, config=config, choices=SMALL), lambda p: p.phase == "training")
    with pytest.raises(UNetError, match="no finished run"):
        read_outcome(out)

    assert [p.step for p in run(dataset, training, unseen, out=out, config=config, choices=SMALL) if p.phase == "training"] == [1, 2, 3]
    outcome, scores = read_outcome(out)
    assert (outcome.unseen, outcome.steps, outcome.samples) == (1, 3, 6) and outcome.trained == 3 and outcome.minutes > 0
    assert {score.case for score in scores} == {"a3"} and read_spec(out / "model.safetensors").network.features == (4, 8)
    mask, again = images.read_labels(out / MASKS / "a3.nii.gz"), Segmenter.load(out, device="cpu").segment(read_image(unseen[0]))
    truth = images.read_labels(unseen[0].label or "")
    assert np.array_equal(mask.data, again.data)
    assert [s.dice for s in scores] == pytest.approx([dice(mask.data == s.label, truth.data == s.label) for s in scores], abs=1e-5)

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert not list(run(dataset, training, unseen, out=out, config=config, choices=SMALL))
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")} and (out / OUTCOME) in before


def test_of_folds_all_models_are_scored_together(tmp_path: Path) -> None:
    dataset, out = find_cases(decathlon(tmp_path / "data", 4)), tmp_path / "run"
    training, unseen = last_out(dataset, 1)
    list(run(dataset, training, unseen, out=out, config=TrainConfig(steps=2, grow=False, folds=3), choices=SMALL))
    outcome, scores = read_outcome(out)
    assert (outcome.trained, outcome.steps, outcome.samples) == (3, 6, 12) and {score.case for score in scores} == {"a3"}
    assert read_spec(out / "model.safetensors").members == 3


def test_scores_of_cases_and_what_they_are_worth() -> None:
    values = (("a", 1, 0.5), ("a", 2, 0.7), ("b", 1, None), ("c", 1, 0.9), ("c", 2, None))
    scores = [Score(case, label, value, 1.0, 1.0) for case, label, value in values]
    found = by_case(scores)
    assert found == pytest.approx({"a": 0.6, "b": float("nan"), "c": 0.9}, nan_ok=True)
    mean, error = mean_and_error(found.values())
    assert (mean, error) == pytest.approx((0.75, 0.15)) and in_words(mean, error) == "0.7500 ± 0.1500"
    assert mean_and_error([0.5]) == (0.5, None) and mean_and_error([float("nan")]) == (None, None)
    assert in_words(0.5, None, "+.2f") == "+0.50" and in_words(None) == "n/a"


def test_a_table_is_filled_in_again_and_again(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- a: table -->\n<!-- a: end -->\nmore\n<!-- b: table -->\nkept\n<!-- b: end -->\n")
    for text in ("| old |", "| new |\n"):
        fill(page, "a", text)
    assert page.read_text() == "# Title\n<!-- a: table -->\n\n| new |\n\n<!-- a: end -->\nmore\n<!-- b: table -->\nkept\n<!-- b: end -->\n"
    with pytest.raises(UNetError, match="no place for c"):
        fill(page, "c", "text")
