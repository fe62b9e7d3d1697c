"""`napari-unet train`: check the data, plan, learn while a line tells of it, and report; also as one of several processes."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from napari_unet.card import Card
from napari_unet.cli.arguments import DATA, add_json, begin
from napari_unet.cli.check import read_all
from napari_unet.cli.terminal import Line, finish, gently, say, say_table
from napari_unet.errors import UNetError
from napari_unet.layout import MODEL, RECORD, folds_of
from napari_unet.options import add_settings, rule_of, settings_of, unused
from napari_unet.settings import LabelRule, PlanChoices, TrainConfig
from napari_unet.words import counted, duration

if TYPE_CHECKING:
    from napari_unet.dataset import Dataset
    from napari_unet.record import Record


def add_train(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    begin(parser, train, DATA)
    parser.add_argument("--out", required=True, help="folder for the weights, the report and the logs")
    parser.add_argument("--from", dest="base", metavar="MODEL", help="begin with this model's network and weights (fine-tuning), at "
                        "a quarter of the usual rate: a weights file, folder of a training run, or name of a shipped model")  # fmt: skip
    parser.add_argument("--recipe", help="TOML file with any of the settings below; flags win over it")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in --out, with its own settings")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    add_json(parser)
    for cls in (TrainConfig, PlanChoices, LabelRule):
        add_settings(parser, cls)


def train(arguments: argparse.Namespace) -> int:
    """A run, alone or as one of several processes."""
    if "WORLD_SIZE" not in os.environ:
        return _train_model(arguments)
    from napari_unet import distributed  # as torchrun asks for

    with distributed.joined():
        return _train_model(arguments) if distributed.is_first() else _assist(arguments)


def _assist(arguments: argparse.Namespace) -> int:
    """One of several processes, not the first: it says nothing, keeps nothing, and ends when the first one says so."""
    from napari_unet.assist import assist
    from napari_unet.cases import find_cases

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for progress in assist(find_cases(arguments.data).cases):
        if progress.phase == "training":  # torchrun hands signals to all: the first one stops after a step
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
    return 0


def _train_model(arguments: argparse.Namespace) -> int:
    from napari_unet import checks
    from napari_unet.cases import find_cases
    from napari_unet.finetune import Base, gentle
    from napari_unet.fingerprint import stamp
    from napari_unet.partial import settle
    from napari_unet.plan import plan
    from napari_unet.record import read_record

    started = psutil.Process().create_time()
    out = Path(arguments.out)
    exists = any((place / name).exists() for place in (out, *folds_of(out)) for name in (RECORD, MODEL))
    if exists and not (arguments.resume or arguments.overwrite):
        raise UNetError(out, "it holds a run already", "Use --resume, --overwrite or another folder")
    # a run goes on as it was planned, without the model that it began with
    base = Base.load(arguments.base) if arguments.base is not None and not arguments.resume else None
    record = read_record(out) if arguments.resume else None
    config, choices = settings_of(arguments, gentle() if base else None)
    _check_early(config, out)
    dataset = find_cases(arguments.data, rule_of(arguments) if record is None else record.rule)
    reports = read_all(dataset, needed=None if record is None else _cases_of(record))
    checks.refuse(reports, arguments.data)
    facts = checks.facts_in(reports)
    dataset = dataset.with_rule(settle(dataset.rule, [f.labelled for f in facts])).with_groups(checks.groups_of(facts))
    if record is None:
        spec, config, reasons = plan(dataset, facts, choices, config, base.spec if base else None)
        say("\n".join(reasons))
    else:
        say(_goes_on(arguments, record))
        spec, config, reasons = record.spec, replace(record.config, device=config.device), list(record.reasons)

    from napari_unet.crossval import learn

    card = Card(description=dataset.about, data=dataset.origin, data_licence=dataset.licence, licence=dataset.licence,
                command=arguments.command)  # fmt: skip
    run = learn(dataset.cases, spec, config, out=out, card=base.derive(card) if base else card, reasons=tuple(reasons), started=started,
                resume=arguments.resume, start=base.start(spec) if base else None)  # fmt: skip
    before = stamp(out / RECORD)
    if _follow(run):
        best = f"the best weights so far are in {out / MODEL}"
        kept = f"stopped; {best if (out / MODEL).exists() else f'its folds so far are in {out}'}; go on with --resume"
        begun = arguments.resume or stamp(out / RECORD) != before
        say(kept if begun else "stopped before the first step; nothing has changed")
        return 130
    return _after_training(arguments, out, started, dataset)


def _check_early(config: TrainConfig, out: Path) -> None:
    """UNetError for what needs no reading to be refused: a large set takes minutes."""
    from napari_unet.splits import check_fold
    from napari_unet.torch_runtime import choose_device

    check_fold(config)
    choose_device(config.device)
    if out.exists() and not out.is_dir():
        raise UNetError(out, "it is a file", "Use another --out: a run is a folder")


def _cases_of(record: Record) -> set[str]:
    """The cases of a run by their names in the data, where halves have that of their volume."""
    names = {*record.split.training, *record.split.kept_out}
    return {name.rsplit("_half", 1)[0] if name in record.parts else name for name in names}


def _goes_on(arguments: argparse.Namespace, record: Record) -> str:
    """What is said of a run that is resumed, and of flags given with it that it does not follow."""
    ignored = unused(arguments, record.spec, record.config, record.rule)
    ignored += [f"--from {arguments.base}"] * (arguments.base is not None and record.card.parent is None)
    told = f"going on with the run in {arguments.out}, as it was planned"
    return told + (f"\nnot followed: {', '.join(ignored)}; for another training take another --out" if ignored else "")


def _without_place(command: str, data: str) -> list[str]:
    """The words of the command that began a run, without where it writes and what it keeps out; of none, those of a plain one."""
    kept: list[str] = []
    try:
        words = iter(shlex.split(command) or ["napari-unet", "train", data])
    except ValueError:  # somebody else's
        words = iter(["napari-unet", "train", data])
    for word in words:
        if word in ("--out", "--folds", "--fold"):
            next(words, None)
        elif word not in ("--resume", "--overwrite", "--json") and not word.startswith(("--out=", "--folds=", "--fold=")):
            kept.append(word)
    return kept


def _follow(run: Iterable[Any]) -> bool:
    """Show a run's progress; whether it was interrupted."""
    line, stopped = Line(), False
    try:
        with gently() as asked:
            for p in run:
                fold = f"{p.fold}: " if p.fold else ""
                if p.phase == "training":
                    dice = "" if p.dice is None else f"  Dice {p.dice:.3f}"
                    pace = f"{p.speed:.1f} steps/s" if p.speed >= 1 else f"{1 / p.speed:.1f} s/step"
                    left = f"{duration(p.seconds_left)} left"
                    line.show(f"{fold}step {p.step} of {p.steps}  {left}  loss {p.loss:.3f}{dice}  rate {p.rate:.1e}  {pace}")
                elif p.message:
                    line.show(fold + p.message)
                stopped = bool(asked) and p.phase != "done"
                if stopped:
                    break
    except KeyboardInterrupt:
        stopped = True
    finally:
        run.close()  # type: ignore[attr-defined]  # saves
        line.end()
    return stopped


def _after_training(arguments: argparse.Namespace, out: Path, started: float, dataset: Dataset) -> int:
    minutes = (time.time() - started) / 60  # the weights are on disk; the report comes on top
    from napari_unet.record import read_record
    from napari_unet.report import write_report
    from napari_unet.splits import groups_in, honest_score
    from napari_unet.weights import read_card

    card = read_card(out / MODEL)
    page, picture = write_report(out)
    if card.cases_scored:
        say_table([(name, f"{value:.4f}") for name, value in card.dice.items()], (f"Dice on {card.worth}", ""))
    else:
        advice = honest_score(read_record(out).split.training, groups_in(dataset.cases)).split()
        again = [*_without_place(card.command, arguments.data), "--out", f"{out}-folds", *advice]
        say(f"nothing was scored: no case was kept out of training\nan honest score: {shlex.join(again)}")
    if card.note:
        say(card.note)
    say(f"weights  {out / MODEL}  ({counted(card.steps, 'step')}, {minutes:.1f} minutes)")
    say(f"report   {page}\npicture  {picture}")
    finish(arguments, {"model": str(out / MODEL), "report": str(page), "dice": card.dice, "steps": card.steps,
                       "cases_scored": card.cases_scored, "independent": card.independent, "scored_by": card.scored_by,
                       "minutes": round(minutes, 3)})  # fmt: skip
    return 0
