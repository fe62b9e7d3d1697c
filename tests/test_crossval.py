"""Cross-validation: every case scored once by the model that never saw it, and a stopped one ends as an unbroken one."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import _one_thread, decathlon, planned, scan  # noqa: F401 - a fixture
from runs import Plan, Until, followed
from scipy.ndimage import binary_dilation

from napari_unet import Segmenter, UNetError, crossval, find_cases, images, schema, weights
from napari_unet.card import Card
from napari_unet.components import LEAST_GAIN, NOISE, keep_largest, pays
from napari_unet.crossval import learn
from napari_unet.dataset import read_image, read_label
from napari_unet.evaluate import read_scores, score_case, summary, write_scores
from napari_unet.finetune import Base
from napari_unet.layout import EVENTS, LOG, MASKS, MODEL, RECORD, RESUME, SCORES
from napari_unet.pooling import (
    _dice_of_largest,
    choose_components,
    folds_of_one_split,
    join,
    pooled,
    read_fold,
    scores_beside,
)
from napari_unet.progress import Progress
from napari_unet.record import read_record
from napari_unet.results import Results
from napari_unet.sampling import Sampler
from napari_unet.settings import LabelRule, TrainConfig
from napari_unet.spec import Channel
from napari_unet.splits import halves, split_cases
from napari_unet.train import train

STEPS = 4


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return planned(folder, steps=STEPS, checks=1, folds=2)


def run(plan: Plan, out: Path, until: Until = lambda p: False, **options: Any) -> list[Progress]:
    """Learn until a Progress of one's choice, or to the end."""
    return followed(learn(*plan, out=out, **options), until)


def with_(plan: Plan, **config: Any) -> Plan:
    return *plan[:2], replace(plan[2], **config)


@pytest.fixture(scope="module")
def unbroken(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    run(plan, out)
    return out


def files_in(out: Path) -> dict[str, bytes]:
    """What a run is worth: all but the clock's readings, and the paths of one's own folder."""
    names = [path for path in out.rglob("*") if path.is_file() and path.name not in (LOG, RECORD) and path.parent.name != EVENTS]
    return {str(path.relative_to(out)): path.read_bytes() for path in names}


def test_it_leaves_an_ensemble_and_ordinary_runs(plan: Plan, unbroken: Path) -> None:
    assert {path.name for path in unbroken.iterdir()} == {MODEL, RECORD, LOG, SCORES, MASKS, "fold_0", "fold_1"}
    spec, tensors = weights.load(unbroken / MODEL)
    assert spec == replace(plan[1], members=2, keep_largest=spec.keep_largest)
    members = [weights.load(unbroken / f"fold_{n}" / MODEL)[1] for n in range(2)]
    assert tensors.keys() == {f"{n}.{name}" for n in range(2) for name in members[0]}
    assert all(np.array_equal(tensors[f"{n}.{name}"], value) for n in range(2) for name, value in members[n].items())
    for n in range(2):
        fold = unbroken / f"fold_{n}"
        assert {path.name for path in fold.iterdir()} - {EVENTS} == {MODEL, RECORD, LOG, SCORES, MASKS, RESUME}
        assert read_record(fold).split == split_cases([case.name for case in plan[0]], TrainConfig(folds=2, fold=n))
        assert weights.read_card(fold / MODEL).cases_scored == 2


def test_its_record_says_of_each_fold_how_it_learnt(unbroken: Path) -> None:
    whole, *folds = (read_record(place).schedule for place in (unbroken, unbroken / "fold_0", unbroken / "fold_1"))
    assert whole.steps == sum(fold.steps for fold in folds) and whole.runs == 2
    assert {(fold.haste, round(fold.strength(0.5), 6)) for fold in folds} == {(whole.haste, round(whole.strength(0.5), 6))}
    longer = [replace(each, stages=tuple(replace(s, steps=1500 * s.steps) for s in each.stages)) for each in (folds[0], whole)]
    assert longer[0].haste == longer[1].haste and longer[0].variety == pytest.approx(longer[1].variety)


def test_its_log_is_that_of_all_folds(unbroken: Path) -> None:
    with open(unbroken / LOG, newline="") as file:
        rows = list(csv.DictReader(file))
    for n in range(2):
        with open(unbroken / f"fold_{n}" / LOG, newline="") as file:
            assert [row | {"fold": str(n)} for row in csv.DictReader(file)] == [row for row in rows if row["fold"] == str(n)]
    assert {(row["fold"], row["step"]) for row in rows} >= {("0", str(STEPS)), ("1", str(STEPS))}
    curves = Results.read(unbroken).logs  # of the report: one of each fold, and none of both
    assert len(curves) == 2 and [curve["loss"][-1][0] for curve in curves] == [STEPS, STEPS]


def test_every_case_is_scored_once_by_the_model_that_never_saw_it(plan: Plan, unbroken: Path) -> None:
    names, scores = [case.name for case in plan[0]], read_scores(unbroken / SCORES)
    assert [(s.case, s.label) for s in scores] == [(name, label) for name in names for label in (1, 2)]
    for n in range(2):
        fold = unbroken / f"fold_{n}"
        split, own = read_record(fold).split, read_scores(fold / SCORES)
        assert not set(split.training) & {s.case for s in own}
        assert [s for s in scores if s.case in split.kept_out] == own
        for name in split.kept_out:
            mask = f"{MASKS}/{name}.nii.gz"
            assert (unbroken / mask).read_bytes() == (fold / mask).read_bytes()
            case = next(case for case in plan[0] if case.name == name)
            found = Segmenter.load(fold, device="cpu").segment(read_image(case))
            assert np.array_equal(found.data, images.read_labels(unbroken / mask).data)
    card = weights.read_card(unbroken / MODEL)
    assert (card.cases_trained, card.cases_scored, card.independent, card.scored_by) == (4, 4, True, "folds")
    assert card.steps == read_record(unbroken).schedule.steps == 2 * STEPS
    assert card.dice["mean"] == pytest.approx(summary(scores)["mean"]["dice"], abs=1e-4)


def test_it_says_which_fold_is_at_work(plan: Plan, tmp_path: Path) -> None:
    seen = run(plan, tmp_path)
    assert [p.phase for p in seen].count("done") == 1 and seen[-1].phase == "done" and seen[-1].dice is not None
    steps = [(p.fold, p.step) for p in seen if p.phase == "training"]
    assert steps == [(f"fold {n} of 2", step) for n in (1, 2) for step in range(1, STEPS + 1)]
    assert all(p.seconds_left >= 0 for p in seen if p.phase == "training")


STOPS: dict[str, Until] = {
    "first fold": lambda p: (p.phase, p.step, p.fold) == ("training", 2, "fold 1 of 2"),
    "scoring the first": lambda p: (p.phase, p.step, p.fold) == ("validating", STEPS, "fold 1 of 2"),
    "reading for the second": lambda p: (p.phase, p.fold) == ("preparing", "fold 2 of 2"),
    "second fold": lambda p: (p.phase, p.step, p.fold) == ("training", 3, "fold 2 of 2"),
    "joining": lambda p: "joining" in p.message,
    "done": lambda p: p.phase == "done",
}


@pytest.mark.parametrize("stop", STOPS)
def test_stopped_anywhere_and_resumed_it_ends_as_an_unbroken_one(plan: Plan, unbroken: Path, tmp_path: Path, stop: str) -> None:
    out = tmp_path / "run"
    run(plan, out, STOPS[stop])
    before = files_in(out)
    if stop == "second fold":  # what is there is usable: the finished fold, and the best of the other
        assert len(Segmenter.load(out, device="cpu").networks) == 2
    resumed = run(with_(plan, folds=None, seed=5), out, resume=True)  # goes on with its own settings
    repeated = {p.fold for p in resumed if p.phase == "training"}
    assert repeated <= {"fold 1 of 2", "fold 2 of 2"} - ({"fold 1 of 2"} if f"fold_0/{SCORES}" in before else set())
    assert files_in(out) == files_in(unbroken)
    assert read_record(out).card == read_record(unbroken).card and read_record(out).schedule == read_record(unbroken).schedule


@pytest.mark.parametrize("stop", ["before the first step", "second fold", "reading for the second"])
def test_one_that_began_with_a_model_goes_on_with_it(plan: Plan, unbroken: Path, tmp_path: Path, stop: str) -> None:
    """Every fold begins with these weights, also one that has still to begin when the model's file is gone."""
    base = Base.load(unbroken / "fold_0")
    options: dict[str, Any] = {"start": base.start(plan[1]), "card": base.derive(Card())}
    run(plan, tmp_path / "whole", **options)
    run(plan, tmp_path / "stopped", STOPS.get(stop, lambda p: p.phase == "training"), **options)
    run(plan, tmp_path / "stopped", resume=True)
    one, two = (weights.load(tmp_path / place / MODEL)[1] for place in ("whole", "stopped"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert all(read_record(tmp_path / f"stopped/fold_{n}").card.parent is not None for n in (0, 1))
    assert read_record(tmp_path / "whole").card == read_record(tmp_path / "stopped").card


def test_the_model_that_it_began_with_is_not_replaced_by_another(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    base = Base.load(unbroken / "fold_0")
    run(plan, tmp_path, STOPS["reading for the second"], start=base.start(plan[1]), card=base.derive(Card()))
    (tmp_path / RESUME).unlink()
    with pytest.raises(UNetError, match="the weights that it began with are lost. Begin anew"):
        run(plan, tmp_path, resume=True)


def test_a_case_that_comes_between_folds(plan: Plan, folder: Path, tmp_path: Path) -> None:
    """Folds drawn anew would score some cases twice and others never."""
    run(plan, tmp_path / "run", STOPS["reading for the second"])
    more = decathlon(tmp_path / "data", 5)
    with pytest.raises(UNetError, match="its folds were drawn from other cases, without a4. Resume with the data the run began with"):
        run((find_cases(more).cases, *plan[1:]), tmp_path / "run", resume=True)
    assert run(plan, tmp_path / "run", resume=True)[-1].phase == "done"


def test_an_earlier_runs_folds_are_never_taken_for_its_own(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    run(plan, out, lambda p: p.phase == "preparing")
    run(plan, out, lambda p: p.phase == "ready")
    assert files_in(out) == files_in(unbroken), "stopped before the first step, nothing has changed"
    other = with_(plan, rate=1e-2)
    run(other, out, lambda p: p.phase == "training")
    assert not (out / MODEL).exists() and not (out / "fold_1" / SCORES).exists()
    run(other, out, resume=True)
    run(other, tmp_path / "alone")
    assert files_in(out) == files_in(tmp_path / "alone") != files_in(unbroken)


def test_data_that_change_between_folds(plan: Plan, folder: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(folder, tmp_path / "data"))
    cases, *rest = planned(data)[0], *plan[1:]
    three = with_((cases, *rest), folds=4)
    run(three, tmp_path / "run", lambda p: (p.phase, p.fold) == ("preparing", "fold 2 of 4"))
    (name,) = set(read_record(tmp_path / "run/fold_0").split.training[:1])
    image = images.read(data / f"imagesTr/{name}.nii.gz")
    images.write(data / f"imagesTr/{name}.nii.gz", image.with_data(image.data + 1), labels=False)
    before = files_in(tmp_path / "run")
    with pytest.raises(UNetError, match="its case a. has changed. Resume with the data the run began with"):
        run(three, tmp_path / "run", resume=True)
    images.write(data / f"imagesTr/{name}.nii.gz", image, labels=False)
    assert before.items() <= files_in(tmp_path / "run").items()
    assert run(three, tmp_path / "run", resume=True)[-1].phase == "done"


def test_leave_one_out(plan: Plan, tmp_path: Path) -> None:
    run(with_((plan[0][:3], *plan[1:]), folds=50, steps=1), tmp_path)
    assert weights.read_spec(tmp_path / MODEL).members == 3
    for n in range(3):
        split = read_record(tmp_path / f"fold_{n}").split
        assert (len(split.training), len(split.kept_out)) == (2, 1)


def test_more_folds_than_a_file_has_members(plan: Plan, folder: Path, tmp_path: Path) -> None:
    cases = tuple(replace(plan[0][0], name=f"c{n}") for n in range(33))
    with pytest.raises(UNetError, match="--folds: 33 members. An ensemble has at most 32: use fewer folds"):
        run(with_((cases, *plan[1:]), folds=99), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_minutes_are_for_all_folds_together(plan: Plan, tmp_path: Path) -> None:
    began = time.time()
    run(with_(plan, steps=None, minutes=0.1, checks=0), tmp_path, started=began)
    assert 1.5 < time.time() - began < 12
    shares = [read_record(tmp_path / f"fold_{n}").config.minutes for n in range(2)]
    assert shares[0] == pytest.approx(0.05, rel=0.2) and 0 < shares[1] <= 0.1
    assert read_record(tmp_path / "fold_0").schedule.steps > 1


def test_minutes_that_nobody_asked_for_are_shared_and_counted_as_others(
    plan: Plan, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten for two folds; of a run that goes on with its second one, five are left."""
    shares: list[float] = []

    def no_training(cases: Any, spec: Any, config: TrainConfig, **options: Any) -> Iterator[Progress]:
        shares.append(config.minutes or 0)
        yield Progress("done", 1, 1)

    monkeypatch.setattr(crossval, "train", no_training)
    run(with_(plan, steps=None), tmp_path / "new", lambda p: True)
    out = Path(shutil.copytree(unbroken, tmp_path / "old"))
    (out / "fold_1" / SCORES).unlink()
    record = read_record(out)
    (out / RECORD).write_text(schema.encode(replace(record, config=replace(record.config, steps=None))))
    run(plan, out, lambda p: True, resume=True)
    assert shares == pytest.approx([5, 5], rel=0.01)


@pytest.mark.parametrize(("config", "seconds"), [({}, 600), ({"minutes": 0.5}, 30), ({"steps": 9, "minutes": 1}, None)])
def test_either_time_or_steps_rule(config: dict[str, Any], seconds: float | None) -> None:
    assert TrainConfig(**config).seconds == seconds


def test_time_that_is_over_before_it_began_is_one_step_per_fold(plan: Plan, tmp_path: Path) -> None:
    seen = run(with_(plan, steps=None, minutes=0.1, checks=0), tmp_path, started=0.0)
    assert seen[-1].phase == "done" and seen[-1].steps == 2


# --- what reaches the network


def numbered(folder: Path, count: int) -> Plan:
    """Cases in which every voxel has a value of its own, and a plan that leaves the values as they are."""
    decathlon(folder, count)
    for n in range(count):
        image, _ = scan(n)
        values = (np.arange(image.data.size) + n * image.data.size).reshape(image.shape).astype(np.int32)
        images.write(folder / f"imagesTr/a{n}.nii.gz", image.with_data(values), labels=False)
    cases, spec, config = planned(folder, steps=1, checks=0)
    return cases, replace(spec, channels=(Channel("number", "clip", 0, 65536, 0, 1),)), config


@pytest.mark.parametrize(("count", "settings"), [(4, {"folds": 2}), (5, {"folds": 5, "fold": 3}), (1, {"folds": 2}), (3, {"folds": 3})])
def test_no_voxel_that_is_kept_out_reaches_the_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, settings: dict[str, int]
) -> None:
    plan, reached, begin = with_(numbered(tmp_path / "data", count), **settings), [], Sampler.__init__

    def watched(self: Sampler, examples: Any, *rest: Any) -> None:
        reached.append({int(v) for example in examples for v in np.unique(example.image.round())})
        begin(self, examples, *rest)

    monkeypatch.setattr(Sampler, "__init__", watched)
    run(plan, tmp_path / "run")
    runs = sorted((tmp_path / "run").glob("fold_*")) or [tmp_path / "run"]
    assert len(runs) == len(reached)
    for fold, seen in zip(runs, reached, strict=True):
        record = read_fold(fold)
        kept_out, training = (
            {int(v) for name in names for v in np.unique(read_image(record.case(name)).data)}
            for names in (record.record.split.kept_out, record.record.split.training)
        )
        assert seen == training and kept_out and not seen & kept_out
        if count == 1:  # nor does what lies between the halves reach either
            assert len(seen | kept_out) < np.prod((20, 24, 18)) - 20 * 18 * 3


def test_one_volume_is_scored_by_halves(folder: Path, tmp_path: Path) -> None:
    plan = with_(planned(folder, steps=2), folds=2, cases=1)
    run(plan, tmp_path)
    card, scores = weights.read_card(tmp_path / MODEL), read_scores(tmp_path / SCORES)
    assert (card.scored_by, card.cases_trained, card.cases_scored) == ("halves", 2, 2)
    (name,) = {score.case[:2] for score in scores}
    (whole,) = (case for case in plan[0] if case.name == name)
    for part in halves(whole):
        image, mask = read_image(part), images.read_labels(tmp_path / MASKS / f"{part.name}.nii.gz")
        again = score_case(part.name, mask, read_label(part, image), [1, 2])  # raises unless they lie on one grid
        assert [s.dice for s in again] == pytest.approx([s.dice for s in scores if s.case == part.name], abs=1e-5)
    before = files_in(tmp_path)
    assert run(plan, tmp_path, resume=True)[-1].phase == "done" and files_in(tmp_path) == before


# --- joining what was trained apart


def test_folds_of_a_job_array_joined_are_a_cross_validation(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    places = [tmp_path / f"run/fold_{n}" for n in range(2)]
    for n, place in enumerate(places):
        list(train(*with_(plan, fold=n), out=place))
    out = tmp_path / "new/joined.safetensors"
    card, _ = join(places, out)
    one, two = (weights.load_tensors(path)[0] for path in (out, unbroken / MODEL))
    assert one.keys() == two.keys() and all(one[key].tobytes() == two[key].tobytes() for key in one)
    truth = weights.read_card(unbroken / MODEL)
    assert card == weights.read_card(out) and weights.read_spec(out) == weights.read_spec(unbroken / MODEL)
    for name in ("dice", "cases_trained", "cases_scored", "independent", "scored_by", "steps", "split_sha256", "note"):
        assert getattr(card, name) == getattr(truth, name), name
    assert scores_beside(out).read_bytes() == (unbroken / SCORES).read_bytes()
    apart, joined = (Segmenter.load(model, device="cpu") for model in (tmp_path / "run", out))  # in a folder; in a file
    assert len(apart.networks) == len(joined.networks) == 2
    image = read_image(plan[0][0])
    assert np.array_equal(joined.clean(apart.segment(image).data), joined.segment(image).data)


def test_folds_that_are_missing_are_told(plan: Plan, tmp_path: Path) -> None:
    places = [tmp_path / f"fold_{n}" for n in (0, 2)]
    for n, place in zip((0, 2), places, strict=True):
        list(train(*with_(plan, folds=3, fold=n, steps=1, checks=0), out=place))
    card, reasons = join(places, tmp_path / "joined.safetensors")
    told = "2 of 3 folds: the cases of fold 1 were not scored."
    assert reasons[0] == told and card.note.startswith(told)
    assert card.cases_scored < len(plan[0]) == card.cases_trained


def test_what_are_no_folds_of_one_split_has_no_score(unbroken: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(unbroken / "fold_0", tmp_path / "twin"))
    card, _ = join([unbroken / "fold_0", twin], tmp_path / "a.safetensors")
    assert (card.cases_scored, card.dice, card.independent, card.scored_by) == (0, {}, False, "apart")
    assert card.worth == "no case: its models were not scored together" and card.note == ""
    files = [Path(shutil.copy(unbroken / f"fold_{n}" / MODEL, tmp_path / f"{n}.safetensors")) for n in range(2)]
    assert join(files, tmp_path / "b.safetensors")[0].cases_scored == 0
    assert weights.read_spec(tmp_path / "b.safetensors").members == 2 and not scores_beside(tmp_path / "b.safetensors").exists()
    join([tmp_path / "b.safetensors", *files[:1]], tmp_path / "c.safetensors")
    assert weights.read_spec(tmp_path / "c.safetensors").members == 3, "an ensemble and a model are an ensemble"


def test_a_model_of_a_run_that_is_not_finished_is_told_when_joined(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    followed(train(*with_(plan, fold=0), out=tmp_path / "stopped"), lambda p: (p.phase, p.step) == ("training", 2))
    card, _ = join([tmp_path / "stopped", unbroken / "fold_1"], tmp_path / "joined.safetensors")
    assert card.note == "Of its 2 models, 1 is of a run that is not finished." and not card.dice


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"features": (4, 16)}, r"its network.features is \(4, 16\), that of .+ is \(4, 8\)"), ({"patch": (12, 16, 24)}, "its patch is"),
     ({"spacing": (2.0, 2.0, 2.0)}, "its spacing is"), ({"mirror_axes": ()}, "its mirror_axes is")],
)  # fmt: skip
def test_models_that_differ_are_not_joined(plan: Plan, unbroken: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    cases, spec, config = plan
    network = {"network": replace(spec.network, **changes)} if "features" in changes else changes
    if changes == {"mirror_axes": spec.mirror_axes}:
        network = {"mirror_axes": (0,)}
    list(train(cases, replace(spec, **network), replace(config, steps=1, fold=1), out=tmp_path / "other"))
    with pytest.raises(UNetError, match=words):
        join([unbroken / "fold_0", tmp_path / "other"], tmp_path / "joined.safetensors")
    assert not (tmp_path / "joined.safetensors").exists()


def test_what_cannot_be_joined(unbroken: Path, tmp_path: Path) -> None:
    one, two = (unbroken / f"fold_{n}" for n in range(2))
    for sources, out, words in (
        ([one], tmp_path / "a", "it is alone"),
        ([one, two, one / MODEL], tmp_path / "a", "it is given twice"),
        ([one, two], one / MODEL, "it is one of the models that are to be joined"),
        ([one, tmp_path], tmp_path / "a", "there is no such weights file"),
        ([Path(shutil.copy(one / MODEL, tmp_path / f"{n}.safetensors")) for n in range(33)], tmp_path / "a", "33 members"),
    ):
        before = (one / MODEL).read_bytes()
        with pytest.raises(UNetError, match=words):
            join(sources, out)
        assert not (tmp_path / "a").exists() and (one / MODEL).read_bytes() == before


def test_a_record_from_somebody_else_leads_to_no_file_outside_its_run(unbroken: Path, tmp_path: Path) -> None:
    folds = [Path(shutil.copytree(unbroken / f"fold_{n}", tmp_path / f"fold_{n}")) for n in range(2)]
    name = read_record(folds[0]).split.kept_out[0]
    (folds[0] / MASKS / f"{name}.nii.gz").rename(tmp_path / f"{name}.nii.gz")
    for fold in folds:
        (fold / RECORD).write_text((fold / RECORD).read_text("utf-8").replace(f'"{name}"', f'"../../{name}"'), "utf-8")
    with pytest.raises(UNetError, match="has a name that no mask's file can have"):
        join(folds, tmp_path / "joined.safetensors")


# --- the largest component


@pytest.mark.parametrize(
    ("gains", "expected"),
    [([[0.1, 0.0], [0.0]], True), ([[0.0, 0.0], [0.0]], False), ([[0.1, 0.1], [-2 * NOISE]], False), ([[0.1, -0.01], [-NOISE / 2]], True),
     ([[-0.1, 0.0], [0.01]], False), ([[LEAST_GAIN / 2], [LEAST_GAIN]], False), ([[2 * LEAST_GAIN, 0.0], [1.5 * LEAST_GAIN]], True),
     ([[], []], False), ([[], [0.2]], True)],
)  # fmt: skip
def test_a_rule_that_pays_helps_on_average_and_harms_no_fold(gains: list[list[float]], expected: bool) -> None:
    folds = [[f"{n}.{m}" for m in range(len(fold))] for n, fold in enumerate(gains)]
    before = {name: 0.5 for fold in folds for name in fold}
    after = {f"{n}.{m}": 0.5 + gain for n, fold in enumerate(gains) for m, gain in enumerate(fold)}
    assert pays(before, after, folds) == expected


def test_the_largest_component_is_kept_where_the_folds_say_so(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    """Masks of bright with a speck far away, of dark in two true halves; the score on the card is the one without the rule."""
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    for fold in (out / "fold_0", out / "fold_1"):
        scores = []
        for name in read_record(fold).split.kept_out:
            case = read_fold(fold).case(name)
            truth = read_label(case, read_image(case))
            wrong = truth.data * (truth.data == 1)
            wrong[-1, -1, -1] = 1
            wrong[0, :, 0][truth.data[0, :, 0] == 0] = 2
            wrong[-1, :4, 0] = 2
            images.write(fold / MASKS / f"{name}.nii.gz", truth.with_data(wrong))
            scores += score_case(name, truth.with_data(wrong), truth, [1, 2])
        write_scores(fold / SCORES, scores)
    folds = folds_of_one_split([out / "fold_0", out / "fold_1"])
    before = summary(pooled(folds))["1"]["dice"]
    spec, reasons = choose_components(plan[1], folds)
    assert 1 in spec.keep_largest and before < 1
    assert "bright" in reasons[0] and "largest component" in reasons[0] and "so the scores are without it" in reasons[0]
    card, _ = join([out / "fold_0", out / "fold_1"], tmp_path / "joined.safetensors")
    assert card.dice["bright"] == pytest.approx(before, abs=1e-4) and reasons[0] in card.note
    assert weights.read_spec(tmp_path / "joined.safetensors").keep_largest == spec.keep_largest


def test_the_largest_component_is_judged_where_it_is_labelled(plan: Plan, unbroken: Path, tmp_path: Path) -> None:
    """As the scores are: what a model says where nobody labelled is neither right nor wrong."""
    fold = Path(shutil.copytree(unbroken / "fold_0", tmp_path / "fold"))
    record = read_record(fold)
    for name in record.split.kept_out:
        label = images.read_labels(record.labels[name])
        block = label.data == 1
        wide = binary_dilation(block, iterations=2)
        images.write(tmp_path / f"{name}.nii.gz", label.with_data(np.where(block, 1, 2 * wide)))  # 2 is around it
        mask = wide.astype(np.uint8)
        mask[tuple(-int(block[0, 0, 0]) for _ in range(3))] = 1  # a speck in a corner
        images.write(fold / MASKS / f"{name}.nii.gz", label.with_data(mask))
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in record.split.kept_out}
    (fold / RECORD).write_text(schema.encode(replace(record, rule=LabelRule(ignore=2), labels=record.labels | paths)))
    found = _dice_of_largest([read_fold(fold)])
    assert found == {(name, 1): 1.0 for name in record.split.kept_out}


def test_a_class_of_two_parts_is_left_alone(plan: Plan, folder: Path, tmp_path: Path) -> None:
    """Both blocks are one class, and found as they are: keeping one would lose the other."""
    data = Path(shutil.copytree(folder, tmp_path / "data"))
    for path in (data / "labelsTr").iterdir():
        label = images.read_labels(path)
        images.write(path, label.with_data((label.data > 0).astype(np.uint8)))
    plan = (find_cases(data).cases, plan[1], replace(plan[2], steps=1))
    run(plan, tmp_path / "run")
    parted: list[str] = []
    for fold in (tmp_path / "run/fold_0", tmp_path / "run/fold_1"):
        for name in read_record(fold).split.kept_out:
            shutil.copy(data / f"labelsTr/{name}.nii.gz", fold / MASKS / f"{name}.nii.gz")
        truths = [(name, images.read_labels(data / f"labelsTr/{name}.nii.gz")) for name in read_record(fold).split.kept_out]
        parted += [name for name, truth in truths if (keep_largest(truth.data, [1]) != truth.data).any()]
        write_scores(fold / SCORES, [score for name, truth in truths for score in score_case(name, truth, truth, [1, 2])])
    assert parted
    assert choose_components(plan[1], folds_of_one_split([tmp_path / f"run/fold_{n}" for n in range(2)]))[0].keep_largest == ()
