"""Training: a generator of Progress. Closing it stops the run; what was best is on disk, and `resume` goes on from there."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from napari_unet import distributed, files, speed, threads, weights
from napari_unet.budget import Budget
from napari_unet.card import UNFINISHED, Card
from napari_unet.dataset import Case, read_image
from napari_unet.errors import UNetError
from napari_unet.evaluate import mean_dice, summary, write_scores
from napari_unet.fingerprint import changed
from napari_unet.keeping import Notes, best_dice, save_newest, save_state, scored
from napari_unet.layout import MASKS, MODEL, RECORD, RESUME, SCORES
from napari_unet.learning import Learner
from napari_unet.orders import Task
from napari_unet.progress import Progress
from napari_unet.record import Record, begin, check_present, check_start, new_record, read_record
from napari_unet.sampling import Example, Sampler, read_example
from napari_unet.schedule import Schedule, in_seconds, in_steps, stages
from napari_unet.schema import encode
from napari_unet.scoring import score_all
from napari_unet.segment import Segmenter
from napari_unet.settings import TrainConfig
from napari_unet.spec import ModelSpec
from napari_unet.splits import arrange, several
from napari_unet.torch_runtime import build, choose_device

CHOSEN = f"{UNFINISHED}: these weights were chosen by the very cases that they are scored on."
CHECK_CASES = 8  # validated during the run; all of them at its end
SAVE_SECONDS = 30.0
LOG_STEPS = 10


def train(
    cases: tuple[Case, ...], spec: ModelSpec, config: TrainConfig, *, out: str | Path, card: Card | None = None,
    reasons: tuple[str, ...] = (), started: float | None = None, resume: bool = False,
    start: Mapping[str, NDArray[Any]] | None = None,
) -> Iterator[Progress]:  # fmt: skip
    """Train one model on labelled cases into the folder `out`; for one per fold see `crossval`.

    Parameters
    ----------
    cases, spec, config : what to learn from, what, and how (see `plan`).
    out : gets model.safetensors, log.csv, run.json, what resuming needs and, where cases are kept out, their masks and,
        last of all, scores.csv.
    card, reasons : what is known of the data beforehand, and the plan's words, to be kept with the run.
    started : `time.time()` from which `config.minutes` count; now, where None.
    resume : go on with the run in `out`, bit for bit as if it had not stopped, on the same machine with as many threads; where False, an
        earlier run in `out` is replaced once the cases have been read.
    start : the weights to begin with (see `finetune`); where None, the seed draws them. Resuming does not need them.

    Of the processes that torchrun started, the first one does this; the others `assist`.

    Raises UNetError for faulty cases, a loss that is not finite, a folder in use or one without a run to resume.
    """
    started = time.time() if started is None else started
    folder = files.make_folder(out)
    with distributed.joined(), files.lock(folder), ExitStack() as stack:
        record = read_record(folder) if resume else None
        if record is not None:
            spec, config = record.spec, replace(record.config, device=config.device)
            cases = tuple(replace(case, rule=record.rule) for case in cases)
        if several(config):
            raise UNetError(folder, f"{config.folds} models are asked for, this is one", "Give the fold that it keeps out (--fold)")
        by_name, split = arrange(cases, config)
        if record is not None:
            check_present(record, by_name, folder)
            split = record.split
        stack.enter_context(threads.limited(config.threads))
        device = choose_device(config.device)
        distributed.tell(Task(spec, config, split.training, by_name[split.training[0]].rule))
        examples, sha256 = yield from _read([by_name[name] for name in split.training], spec, folder, record)
        if speed.repays(config, device):
            yield Progress("preparing", len(examples), len(examples), message="compiling the network, which takes minutes")
        learner = Learner(spec, config, device, Sampler(examples, spec, config, device))
        if learner.note:
            yield Progress("preparing", len(examples), len(examples), message=learner.note)
        if record is None:
            if start is not None:
                learner.start_from(start)
            yield Progress("preparing", len(examples), len(examples), message="measuring the speed of a step")
            kept_out = [by_name[name] for name in split.kept_out]
            schedule, budget = _schedule(learner, kept_out, started)
            record = replace(new_record(spec, config, split, schedule, card or Card(), by_name, reasons), sha256=sha256)
            yield Progress("ready", 0, schedule.steps)
            begin(folder, record, None if start is None else learner.save)
        else:
            budget = None  # a resumed run follows what is written
            check_start(record, folder)
            if (folder / RESUME).exists():
                learner.restore(folder / RESUME)
        learner.hand_over()
        yield from _run(learner, record, by_name, folder, budget)


def _read(
    cases: list[Case], spec: ModelSpec, folder: Path, record: Record | None
) -> Generator[Progress, None, tuple[list[Example], dict[str, str]]]:
    """The cases to learn from, and their fingerprints. Raises UNetError where one is not what the record says."""
    examples, sha256 = [], {}
    for n, case in enumerate(cases):
        yield Progress("preparing", n, len(cases), message=f"reading {case.name}")
        example, sha256[case.name] = read_example(case, spec)
        examples.append(example)
        if record is not None and record.sha256.get(case.name) != sha256[case.name]:
            raise changed(case.name, folder)
    return examples, sha256


def _schedule(learner: Learner, kept_out: list[Case], started: float) -> tuple[Schedule, Budget | None]:
    """Steps as asked for, or as many as the minutes hold at the speed measured now, with the budget that keeps to them."""
    config, parts, voxels = learner.config, stages(learner.spec, learner.config), learner.sampler.voxels
    if config.seconds is None:
        return in_steps(parts, config.steps, voxels), None  # type: ignore[arg-type]  # steps rule, so they are there
    deadline = time.monotonic() + started + config.seconds - time.time()
    costs = learner.measure(parts, seconds=min(10.0, config.seconds / 30))
    began = time.time()
    if kept_out:
        network = build(learner.spec.network, learner.tensors(), learner.device)
        image = read_image(kept_out[0])
        Segmenter(learner.spec, network).segment(image)
    scorings = [min(CHECK_CASES, len(kept_out))] * config.checks + [len(kept_out)]
    budget = Budget(deadline, scorings, time.time() - began, learner.clock)
    return in_seconds(parts, budget.left, costs, voxels), budget


def _run(
    learner: Learner, record: Record, by_name: dict[str, Case], folder: Path, budget: Budget | None
) -> Iterator[Progress]:
    """The loop: learn, now and then save and validate; at the end, score the product on every kept-out case.

    Where none is kept out there is nothing to validate on, and the weights are those of the last step.
    """
    schedule, count = record.schedule, record.config.checks if record.split.kept_out else 0
    first = step = learner.done
    best = best_dice(folder) if step else -1.0
    checks = [mark for n in range(count) if (mark := (n + 1) / (count + 1)) > schedule.progress(step)]
    dice, notes, saved = None if best < 0 else best, Notes(folder, step), time.monotonic()
    try:
        while step < schedule.steps:
            value = learner.step(step, schedule)
            step = learner.done
            checking = bool(checks) and schedule.progress(step) >= checks[0] and step < schedule.steps
            if step % LOG_STEPS == 0 or checking or step in (first + 1, schedule.steps):
                notes.learnt(step, _finite(learner, value), learner.rate(step - 1, schedule))
            if checking:
                checks = [mark for mark in checks if mark > schedule.progress(step)]
                scoring = time.monotonic()
                kept_out = [by_name[name] for name in record.split.kept_out[:CHECK_CASES]]
                dice = yield from _validate(learner, kept_out, step, schedule.steps)
                if budget is not None:
                    budget.scored(time.monotonic() - scoring, len(checks) + 1)
                notes.scored(step, dice)
                if dice >= best:
                    best = dice
                    card = replace(scored(record.card, {"mean": dice}, step), cases_scored=len(kept_out), note=CHOSEN)
                    weights.save(folder / MODEL, record.spec, card, learner.average())
            fitted = schedule if budget is None else budget.correct(schedule, step)
            if checking or fitted is not schedule or time.monotonic() - saved > SAVE_SECONDS:
                save_state(learner, folder, notes.rows)
                saved = time.monotonic()
            if fitted is not schedule:  # written after the state, so that no step before it is ever repeated
                schedule, record = fitted, replace(record, schedule=fitted)
                files.write_bytes(folder / RECORD, encode(record).encode())
            passed = max(time.monotonic() - notes.began, 1e-9)
            left = _seconds_left(schedule, first, step, passed) if budget is None else max(0.0, budget.deadline - time.monotonic())
            yield Progress("training", step, schedule.steps, notes.loss, learner.rate(step - 1, schedule), dice, left,
                           speed=(step - first) / passed)  # fmt: skip
        weights.save(folder / MODEL, record.spec, scored(record.card, {}, step), learner.average())
        yield from _finish(learner, record, by_name, folder)
    finally:
        notes.events.close()
        save_newest(learner, record, folder, chosen=best >= 0)
        save_state(learner, folder, notes.rows)


def _seconds_left(schedule: Schedule, first: int, step: int, passed: float) -> float:
    """By the share of the course that the seconds since step `first` went: steps are slower on larger patches."""
    progress = schedule.progress(step)
    return passed * (1 - progress) / (progress - schedule.progress(first))


def _finite(learner: Learner, loss: Tensor) -> float:
    value = float(loss)
    if not math.isfinite(value) or not learner.finite():
        what = f"the loss is {value}" if not math.isfinite(value) else "weights are not finite"
        raise UNetError("training", f"{what} at step {learner.done}", "Use a smaller rate (--rate), or look for odd cases")
    return value


def _validate(learner: Learner, cases: list[Case], step: int, steps: int) -> Generator[Progress, None, float]:
    """Mean Dice of the averaged weights on whole cases, through the very path that users' volumes take."""
    learner.rest()
    segmenter = Segmenter(learner.spec, build(learner.spec.network, learner.average(), learner.device))
    scores = yield from score_all(segmenter, cases, Progress("validating", step, steps))
    return float(summary(scores)["mean"]["dice"] or 0.0)


def _finish(learner: Learner, record: Record, by_name: dict[str, Case], folder: Path) -> Iterator[Progress]:
    """Score the file that users will load on every kept-out case, write its masks, and put the scores on its card."""
    learner.rest()
    segmenter = Segmenter.load(folder / MODEL, device=str(learner.device))
    steps, kept_out = record.schedule.steps, [by_name[name] for name in record.split.kept_out]
    scores = yield from score_all(segmenter, kept_out, Progress("validating", steps, steps), folder / MASKS)
    dice = mean_dice(scores, record.spec.labels)
    weights.save(folder / MODEL, record.spec, scored(record.card, dice, steps), learner.average())
    if scores:
        write_scores(folder / SCORES, scores)
    yield Progress("done", steps, steps, dice=dice.get("mean"), seconds_left=0, message=f"weights in {folder / MODEL}")
