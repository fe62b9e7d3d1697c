"""An experiment: train on some cases, score others that nothing has seen; what is finished is not done again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet import files
from napari_unet.checks import check, facts_in, groups_of, refuse
from napari_unet.crossval import learn
from napari_unet.dataset import Case, Dataset
from napari_unet.errors import UNetError
from napari_unet.evaluate import Score, read_scores, write_scores
from napari_unet.plan import plan
from napari_unet.progress import Progress
from napari_unet.record import read_record
from napari_unet.schema import STRICT, decode, encode
from napari_unet.scoring import score_all
from napari_unet.segment import Segmenter
from napari_unet.settings import PlanChoices, TrainConfig
from napari_unet.splits import groups_in, several, split_cases
from napari_unet.words import counted

OUTCOME, SCORES, MASKS = "outcome.json", "unseen.csv", "unseen"
EVERY_CASE: dict[str, Any] = {"checks": 0, "folds": 1, "fold": None}  # settings with which `train` keeps none of its cases out


@dataclass(frozen=True)
class Outcome:
    """What a finished run came to; RUN/outcome.json. `trained` cases were learnt from, `unseen` ones scored."""

    __pydantic_config__ = STRICT

    trained: int
    unseen: int
    steps: int
    samples: int
    minutes: float


def grouped(dataset: Dataset) -> Dataset:
    """The same, in which cases that share their voxels or their mask are a group, for `fold_out`; reads all of them."""
    return dataset.with_groups(groups_of(facts_in(check(dataset))))


def fold_out(dataset: Dataset, seed: int = 0) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Training and unseen cases: the first of the five folds that the seed draws is kept out of everything; a group is on one side."""
    names = sorted(case.name for case in dataset.cases)
    folds = split_cases(names, TrainConfig(seed=seed, folds=5), groups_in(dataset.cases)).folds if len(names) > 1 else ((),)
    return _apart(dataset, set(folds[0]))


def last_out(dataset: Dataset, count: int) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Training and unseen cases: the last `count` by name, for neighbouring slices, of which a random few show too little."""
    return _apart(dataset, set(sorted(case.name for case in dataset.cases)[-count:]))


def _apart(dataset: Dataset, unseen: set[str]) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    parts = [tuple(case for case in dataset.cases if (case.name in unseen) is kept) for kept in (False, True)]
    if not all(parts):
        raise UNetError(dataset.folder, counted(len(dataset.cases), "case"), "Give more: some to train on, others to score")
    return parts[0], parts[1]


def draw(cases: tuple[Case, ...], count: int, seed: int = 0) -> tuple[Case, ...]:
    """So many of the cases, by the seed; a smaller draw is part of every larger one. UNetError where there are fewer."""
    if not 1 <= count <= len(cases):
        raise UNetError("--cases", f"{count} of {counted(len(cases), 'case')}", f"Use 1 to {len(cases)}")
    return tuple(cases[n] for n in np.random.default_rng((seed, 3)).permutation(len(cases))[:count])


def run(
    dataset: Dataset, training: tuple[Case, ...], unseen: tuple[Case, ...], *, out: str | Path,
    config: TrainConfig | None = None, choices: PlanChoices | None = None,
) -> Iterator[Progress]:  # fmt: skip
    """Plan for and train on `training`, then segment and score `unseen`; nothing where `out` holds an outcome already.

    One model learns from all of `training`, or, where `config` has folds, one for each, and all together are scored. An interrupted
    run begins anew, so that its minutes are what they say. `out` holds what `train` writes, and the masks and scores of the
    unseen cases. Raises UNetError as `check`, `plan` and `learn` do, and for a case on both sides, or a copy.
    """
    mine, theirs = ({name for case in side for name in (case.name, case.group) if name} for side in (training, unseen))
    both = mine & theirs
    if both:
        raise UNetError(min(both), "it is to be trained on and to be unseen, or a copy of it is", "Keep both on one side")
    folder = files.make_folder(out)
    if (folder / OUTCOME).exists():
        return
    started, chosen, reports = time.time(), replace(dataset, cases=training), []
    for n, report in enumerate(check(chosen)):
        reports.append(report)
        yield Progress("preparing", n, len(training))
    refuse(reports, str(dataset.folder))
    facts = facts_in(reports)
    config = config or TrainConfig()
    spec, config, reasons = plan(chosen, facts, choices, config if several(config) else replace(config, **EVERY_CASE))
    yield from learn(chosen.with_groups(groups_of(facts)).cases, spec, config, out=folder, reasons=tuple(reasons), started=started)
    minutes = (time.time() - started) / 60
    record = read_record(folder)
    steps, stages = record.schedule.steps, record.schedule.stages
    at = Progress("validating", steps, steps, message=", which is unseen")
    scores = yield from score_all(Segmenter.load(folder, config.device), unseen, at, folder / MASKS)
    write_scores(folder / SCORES, scores)
    outcome = Outcome(len(record.split.training), len(unseen), steps, sum(s.steps * s.batch for s in stages), minutes)
    files.write_bytes(folder / OUTCOME, encode(outcome).encode())


def read_outcome(out: str | Path) -> tuple[Outcome, list[Score]]:
    """What `run` left in `out`. Raises UNetError where it has not finished there."""
    path = Path(out) / OUTCOME
    if not path.exists():
        raise UNetError(out, "no finished run in it", "Run the experiment first")
    return decode(Outcome, path.read_bytes(), str(path)), read_scores(Path(out) / SCORES)


def mean_and_error(values: Iterable[float]) -> tuple[float | None, float | None]:
    """Mean and standard error of what is not NaN; None where there are too few."""
    known = np.array([value for value in values if not np.isnan(value)])
    error = float(known.std(ddof=1) / len(known) ** 0.5) if len(known) > 1 else None
    return float(known.mean()) if len(known) else None, error


def in_words(mean: float | None, error: float | None = None, form: str = ".4f") -> str:
    """`0.8912 ± 0.0021`, as far as it is known."""
    return "n/a" if mean is None else f"{mean:{form}}" + ("" if error is None else f" ± {error:.4f}")


def fill(page: str | Path, name: str, text: str) -> None:
    """Put text between the marks `<!-- NAME: table -->` and `<!-- NAME: end -->` of a page. UNetError without them."""
    page = Path(page)
    before, begin, rest = page.read_text("utf-8").partition(f"<!-- {name}: table -->\n")
    _, end, after = rest.partition(f"<!-- {name}: end -->")
    if not end:
        raise UNetError(page, f"it has no place for {name}", f"Write <!-- {name}: table --> and <!-- {name}: end --> on two lines")
    files.write_bytes(page, f"{before}{begin}\n{text.strip()}\n\n{end}{after}".encode())
