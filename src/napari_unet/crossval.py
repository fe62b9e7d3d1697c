"""Cross-validation: a model per fold, each scored on the cases it never saw; together they are the product."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_unet import ensemble, files, weights
from napari_unet.card import Card
from napari_unet.dataset import Case
from napari_unet.errors import UNetError
from napari_unet.evaluate import write_scores
from napari_unet.fingerprint import changed
from napari_unet.layout import LOG, MODEL, RECORD, RESUME, SCORES, fold_folder
from napari_unet.pooling import Fold, choose_components, copy_masks, pooled, pooled_log, read_fold, scored
from napari_unet.progress import Progress
from napari_unet.record import Record, begin, check_present, check_start, clear, new_record, read_record
from napari_unet.schedule import Schedule
from napari_unet.schema import encode
from napari_unet.settings import TrainConfig
from napari_unet.spec import ModelSpec
from napari_unet.splits import Split, arrange, several
from napari_unet.train import train

START = "napari-unet start 1"
LEAST_MINUTES = 1e-3  # of a fold; what is over time is one step


def learn(
    cases: tuple[Case, ...], spec: ModelSpec, config: TrainConfig, *, out: str | Path, resume: bool = False, **options: Any
) -> Iterator[Progress]:
    """Train what the settings ask for, or what the run in `out` was begun with: one model, or one per fold.

    Parameters and errors are those of `train`.
    """
    work = cross_validate if several(read_record(Path(out)).config if resume else config) else train
    return work(cases, spec, config, out=out, resume=resume, **options)


def cross_validate(
    cases: tuple[Case, ...], spec: ModelSpec, config: TrainConfig, *, out: str | Path, card: Card | None = None,
    reasons: tuple[str, ...] = (), started: float | None = None, resume: bool = False,
    start: Mapping[str, NDArray[Any]] | None = None,
) -> Iterator[Progress]:  # fmt: skip
    """Train a model per fold into RUN/fold_0, RUN/fold_1, ..., each an ordinary run, and join them to RUN/model.safetensors.

    Every case is scored once, by the model that never saw it: RUN/masks and, last of all, RUN/scores.csv. RUN/log.csv has the
    rows of all folds' logs. `config.minutes` are for all of it: each fold gets an equal share of what is left, so that the
    last one makes good for the others. With `config.steps` each fold gets that many. Closing it keeps finished folds and the
    state of the one at work; `resume` goes on from there, and a fold that was stopped ends bit for bit as if it had not been.

    Parameters and errors are those of `train`; also UNetError for more folds than an ensemble has members.
    """
    started = time.time() if started is None else started
    folder = files.make_folder(out)
    with files.lock(folder):
        record = read_record(folder) if resume else None
        if record is not None:
            spec, config = record.spec, replace(record.config, device=config.device)
            cases = tuple(replace(case, rule=record.rule) for case in cases)
        by_name, split = arrange(cases, config)
        if record is not None:
            check_present(record, by_name, folder)
            card, reasons = record.card, record.reasons
            if not all((fold_folder(folder, n) / RECORD).exists() for n in range(len(record.split.folds))):
                _check_split(split, record, folder)
                start = _start(record, folder)
            split = record.split
        count = len(split.folds)
        ensemble.check_count(count, "--folds")
        weights.check_room(replace(spec, members=count), "--folds")
        done = sum(_finished(folder, n) for n in range(count)) if record is not None else 0
        if record is not None and config.seconds is not None:  # those between a stop and now do not count
            started = time.time() - config.seconds * done / count
        work = partial(train, cases, spec, card=card, reasons=reasons, start=start)
        for n in range(count):
            if record is not None and _finished(folder, n):
                continue
            with closing(_fold(work, config, folder, n, count, started, resume)) as fold:
                for progress in fold:
                    yield progress
                    if record is None and progress.phase == "ready":
                        record = new_record(spec, config, split, Schedule(()), card or Card(), by_name, reasons)
                        begin(folder, record, None if start is None else partial(_keep_start, start))
        yield from _finish(folder, count)


def _keep_start(start: Mapping[str, NDArray[Any]], path: Path) -> None:
    """The weights that every fold begins with, for those that a resumed run has still to begin."""
    weights.save_tensors(path, start, {"format": START})


def _start(record: Record, folder: Path) -> dict[str, NDArray[Any]] | None:
    """What `_keep_start` wrote; None where the seed draws the weights. Raises UNetError where they are lost."""
    if record.card.parent is None:
        return None
    check_start(record, folder)
    return weights.load_tensors(folder / RESUME)[0]


def _check_split(split: Split, record: Record, folder: Path) -> None:
    """UNetError where folds that have still to begin would be drawn from other cases than those before them."""
    if split != record.split:
        added = sorted({name for fold in split.folds for name in fold} - {name for fold in record.split.folds for name in fold})
        raise UNetError(folder, f"its folds were drawn from other cases{f', without {added[0]}' if added else ''}",
                        "Resume with the data the run began with, or begin anew")  # fmt: skip


def _finished(folder: Path, n: int) -> bool:
    return (fold_folder(folder, n) / SCORES).exists()  # written last


def _fold(
    work: Callable[..., Iterator[Progress]], config: TrainConfig, folder: Path, n: int, count: int, started: float, resume: bool
) -> Generator[Progress]:
    """One fold's run, which is `work` with settings of its own, its progress told as a part of the whole."""
    now, place = time.time(), fold_folder(folder, n)
    deadline = None if config.seconds is None else started + config.seconds
    minutes = None if deadline is None else max(LEAST_MINUTES, (deadline - now) / 60 / (count - n))
    run = work(replace(config, fold=n, minutes=minutes), out=place, started=now, resume=resume and (place / RECORD).exists())
    checked = False
    with closing(run):  # type: ignore[type-var]  # it is a generator: closing it saves
        for progress in run:
            if progress.phase == "training" and not checked:
                checked = _check_unchanged(folder, n)
            left = progress.seconds_left
            if left is not None:
                left = left + (count - n - 1) * (time.time() - now + left) if deadline is None else deadline - time.time()
            phase = "validating" if progress.phase == "done" else progress.phase
            yield replace(progress, phase=phase, seconds_left=left and max(0.0, left), fold=f"fold {n + 1} of {count}")


def _check_unchanged(folder: Path, n: int) -> bool:
    """True; UNetError where a case that trains in fold n is another than it was in the folds before, and no trace of it."""
    known: dict[str, str] = {}
    for m in range(n + 1):
        for name, digest in read_record(fold_folder(folder, m)).sha256.items():
            if known.setdefault(name, digest) != digest:
                clear(fold_folder(folder, n))
                raise changed(name, folder)
    return True


def _finish(folder: Path, count: int) -> Iterator[Progress]:
    """Join the folds, pool their scores, and write what an ordinary run leaves."""
    record = read_record(folder)
    folds: list[Fold] = [fold for n in range(count) if (fold := read_fold(fold_folder(folder, n)))]
    schedules = [fold.record.schedule for fold in folds]
    stages = tuple(stage for each in schedules for stage in each.stages)
    schedule = Schedule(stages, sum(each.voxels for each in schedules), len(schedules))
    steps = schedule.steps
    yield Progress("validating", steps, steps, message="joining the folds")
    spec, members = ensemble.load_together([fold.folder / MODEL for fold in folds])
    spec, chosen = choose_components(spec, folds)
    card = scored(record.card, spec, folds, chosen)
    copy_masks(folds, folder)
    files.write_bytes(folder / LOG, pooled_log(folds).encode())
    weights.save(folder / MODEL, spec, card, weights.merge(members))
    record = replace(record, schedule=schedule, card=card, reasons=tuple(dict.fromkeys((*record.reasons, *chosen))))
    files.write_bytes(folder / RECORD, encode(record).encode())
    write_scores(folder / SCORES, pooled(folds))
    yield Progress("done", steps, steps, dice=card.dice.get("mean"), seconds_left=0, message=f"weights in {folder / MODEL}")
