"""The command line: read, call, print. The only engine module that prints; heavy imports happen inside the commands."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from napari_unet import __version__, schema
from napari_unet.errors import UNetError
from napari_unet.options import add_settings, rule_of, settings_of
from napari_unet.spec import Card, LabelRule, PlanChoices, TrainConfig

WRITABLE = (".nii", ".nii.gz", ".png", ".tif", ".tiff")
ROWS = 12  # of cases that `check` shows without --all
LINE_SECONDS = 10.0  # between lines where no terminal shows a living one


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 where it did its work, 1 where a part of it failed, 2 for a user's error, 130 if interrupted."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    arguments.command = shlex.join(["napari-unet", *argv])
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except UNetError as error:
        print(f"napari-unet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("napari-unet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"napari-unet: {error.filename or 'system'}: {error.strerror or error}. Check paths and disks.", file=sys.stderr)
        return 2
    except MemoryError:
        print("napari-unet: memory: there is too little. Close other programs, or crop the images.", file=sys.stderr)
        return 2


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("napari-unet", description="Train a U-Net on labelled scans and segment others with it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, *positional: tuple[str, str, str]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        for field, count, help_text in positional:
            sub.add_argument(field, nargs=count or None, help=help_text)
        return sub

    data = ("data", "", "folder: Decathlon's or nnU-Net's layout, or images/ and labels/")
    model = ("model", "", "weights file, folder of a training run, or name of a shipped model")
    sub = command("check", _check, "Read every file of a data set and list every fault and every case.", data)
    add_settings(sub, LabelRule)
    sub.add_argument("--all", action="store_true", help=f"show every case and finding, not the worst {ROWS} cases")
    sub.add_argument("--csv", metavar="FILE", help="write the table of cases as CSV")
    sub.add_argument("--overwrite", action="store_true", help="replace the CSV file if it exists")
    sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")

    sub = command("train", _train, "Train a model on a folder of labelled images.", data)
    sub.add_argument("--out", required=True, help="folder for the weights, the report and the logs")
    sub.add_argument("--from", dest="base", metavar="MODEL", help="begin with this model's network and weights (fine-tuning), at a "
                     "quarter of the usual rate: a weights file, folder of a training run, or name of a shipped model")  # fmt: skip
    sub.add_argument("--recipe", help="TOML file with any of the settings below; flags win over it")
    existing = sub.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in --out, with its own settings")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    for cls in (TrainConfig, PlanChoices, LabelRule):
        add_settings(sub, cls)

    sub = command("predict", _predict, "Segment images.", model, ("inputs", "+", "files or folders; case_0000, case_0001 are channels"))
    sub.add_argument("--out", required=True, help="a file for one image, a folder for several")
    sub.add_argument("--overwrite", action="store_true", help="replace masks that exist")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    sub.add_argument("--volume", type=int, help="which volume of 4-D images to segment, from 0")
    sub.add_argument("--uncertainty", action="store_true",
                     help="write NAME_uncertainty.nii.gz, too: 0 sure to 1 not, by the members' disagreement or the entropy of one")
    sub.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="average over mirrored copies (default: the model's)")
    sub.add_argument("--threads", type=int, help="threads of torch; 1 is fastest for small networks on a busy machine")
    sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")

    sub = command("evaluate", _evaluate, "Compare masks with labels.", ("predictions", "", "mask, or folder of masks"),
                  ("labels", "", "label, or folder of labels"))  # fmt: skip
    sub.add_argument("--out", help="write scores as CSV")
    sub.add_argument("--overwrite", action="store_true", help="replace the CSV file if it exists")
    sub.add_argument("--surface", action="store_true", help="surface Dice and Hausdorff distance, too")
    add_settings(sub, LabelRule)
    sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")

    sub = command("join", _join, "Make one model, an ensemble, of models trained separately.",
                  ("models", "+", "folders of runs (such as folds of a job array), or weights files"))  # fmt: skip
    sub.add_argument("--out", required=True, help="the weights file to write")
    sub.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")

    sub = command("info", _info, "Show a model's card and the walk through its U-Net.", model)
    sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    command("view", _view, "Open napari with the Segment widget.", ("files", "*", "images and masks to open"))
    return parser


class Line:
    """One line that lives on a terminal, or a line now and then in a log."""

    def __init__(self) -> None:
        self.tty, self.shown, self.width = sys.stderr.isatty(), -LINE_SECONDS, 0

    def show(self, text: str) -> None:
        """Replace what the line says."""
        if self.tty:
            text = text[: shutil.get_terminal_size().columns - 1]  # a line that wraps cannot be replaced
            print("\r" + text.ljust(self.width), end="", file=sys.stderr, flush=True)
            self.width = len(text)
        elif time.monotonic() - self.shown > LINE_SECONDS:
            self.shown = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line where it is and begin a new one."""
        if self.tty and self.width:
            print(file=sys.stderr)
        self.width = 0


def _read_all(dataset: Any, everything: bool = False) -> list[Any]:
    """Check every case, and print what was found as a table: errors first, what many files have in common in one row."""
    from napari_unet.checks import check
    from napari_unet.survey import shortened, survey

    line, reports = Line(), []
    for n, report in enumerate(check(dataset), 1):
        line.show(f"checking {n} of {len(dataset.cases)}: {shortened(report.case.name)}")
        reports.append(report)
    line.end()
    reports = survey(dataset, reports)
    groups: dict[tuple[str, ...], list[str]] = {}
    for f in sorted((f for report in reports for f in report.findings), key=lambda f: f.level):
        where = shortened(os.path.relpath(f.where, dataset.folder) if Path(f.where).exists() else Path(f.where).name)
        groups.setdefault((f.level, f"{f.what}. {f.remedy}.", where if everything else ""), []).append(where)
    _table([(level, files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more", text)
            for (level, text, _), files in groups.items()])  # fmt: skip
    return reports


def _table(rows: Sequence[tuple[str, ...]], heading: tuple[str, ...] = ()) -> None:
    rows = [heading, *rows] if heading else rows
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))] if rows else []
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _finish(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps(result))


def _check(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from napari_unet import nifti
    from napari_unet.cases import find_cases
    from napari_unet.survey import cells, table, write_table

    out = Path(arguments.csv) if arguments.csv else None
    if out and (nifti.suffix(out) or (out.exists() and not arguments.overwrite)):
        raise UNetError(out, "it is an image" if nifti.suffix(out) else "it exists already", "Use --overwrite, or another --csv")
    dataset = find_cases(arguments.data, rule_of(arguments))
    reports = _read_all(dataset, arguments.all)
    rows = table(dataset, reports)
    unit = "%" if any(report.facts and report.facts.picture for report in reports) else "ml"
    shown = rows if arguments.all else rows[:ROWS]
    print()
    _table(cells(shown, dataset, unit))
    if len(shown) < len(rows):
        odd = sum(bool(row.level) for row in rows[ROWS:])
        print(f"... and {len(rows) - ROWS} more {f'of which {odd} have findings' if odd else 'without findings'} (--all shows them)")
    findings = [f for report in reports for f in report.findings]
    errors = sum(f.level == "error" for f in findings)
    print(f"\n{len(dataset.cases)} cases, {errors} errors, {len(findings) - errors} warnings")
    if out:
        write_table(out, rows, dataset)
    listed = [{"level": f.level, "where": f.where, "what": f.what, "remedy": f.remedy} for f in findings]
    _finish(arguments, {"cases": len(dataset.cases), "errors": errors, "warnings": len(findings) - errors, "findings": listed,
                        "table": [asdict(row) for row in rows], "labels": dataset.labels})  # fmt: skip
    return 2 if errors else 0


def _train(arguments: argparse.Namespace) -> int:
    if "WORLD_SIZE" not in os.environ:
        return _train_model(arguments)
    from napari_unet import distributed  # as torchrun asks for

    with distributed.joined():
        return _train_model(arguments) if distributed.is_first() else _assist(arguments)


def _assist(arguments: argparse.Namespace) -> int:
    """One of several processes, not the first: it prints nothing, keeps nothing, and ends when the first one says so."""
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
    from napari_unet.partial import settle
    from napari_unet.plan import plan
    from napari_unet.record import folds_of, read_record

    started = psutil.Process().create_time()
    out = Path(arguments.out)
    exists = any((place / name).exists() for place in (out, *folds_of(out)) for name in ("run.json", "model.safetensors"))
    if exists and not (arguments.resume or arguments.overwrite):
        raise UNetError(out, "it holds a run already", "Use --resume, --overwrite or another folder")
    # a run goes on as it was planned, without the model that it began with
    base = Base.load(arguments.base) if arguments.base is not None and not arguments.resume else None
    config, choices = settings_of(arguments, gentle() if base else None)
    choices = PlanChoices() if arguments.resume else choices
    dataset = find_cases(arguments.data, read_record(out).rule if arguments.resume else rule_of(arguments))
    reports = _read_all(dataset)
    checks.refuse(reports, arguments.data)
    facts = [report.facts for report in reports if report.facts is not None]
    dataset = dataset.with_rule(settle(dataset.rule, [f.labelled for f in facts]))
    spec, config, reasons = plan(dataset, facts, choices, config, base.spec if base else None)
    print(f"going on with the run in {out}, as it was planned" if arguments.resume else "\n".join(reasons))

    from napari_unet.crossval import learn

    card = Card(description=dataset.about, data=dataset.origin, data_licence=dataset.licence, licence=dataset.licence,
                command=arguments.command)  # fmt: skip
    run = learn(dataset.cases, spec, config, out=out, card=base.derive(card) if base else card, reasons=tuple(reasons), started=started,
                resume=arguments.resume, start=base.start(spec) if base else None)  # fmt: skip
    begun, stopped = _follow(run)
    if stopped:
        best = f"the best weights so far are in {out / 'model.safetensors'}"
        kept = f"stopped; {best if (out / 'model.safetensors').exists() else f'its folds so far are in {out}'}; go on with --resume"
        print(kept if begun or arguments.resume else "stopped before the first step; nothing has changed")
        return 130
    return _after_training(arguments, out, started)


def _follow(run: Iterable[Any]) -> tuple[bool, bool]:
    """Show a run's progress; whether it has learnt, and whether it was interrupted."""
    line, begun, stopped = Line(), False, False
    try:
        with _gently() as asked:
            for p in run:
                begun = begun or p.phase == "training"
                fold = f"{p.fold}: " if p.fold else ""
                if p.phase == "training":
                    dice = "" if p.dice is None else f"  Dice {p.dice:.3f}"
                    pace = f"{p.speed:.1f} steps/s" if p.speed >= 1 else f"{1 / p.speed:.1f} s/step"
                    left = f"{_duration(p.seconds_left)} left"
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
    return begun, stopped


@contextmanager
def _gently() -> Iterator[list[int]]:
    """Signals are only noted, so that no step is left half done; the second one interrupts at once."""
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        os.write(sys.__stderr__.fileno(), b"\nstopping after this step; once more to stop at once\n")  # type: ignore[union-attr]  # print is busy

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _after_training(arguments: argparse.Namespace, out: Path, started: float) -> int:
    minutes = (time.time() - started) / 60  # the weights are on disk; the report comes on top
    from napari_unet.report import write_report
    from napari_unet.splits import FOLDS
    from napari_unet.weights import read_card

    card = read_card(out / "model.safetensors")
    page, picture = write_report(out)
    if card.cases_scored:
        _table([(name, f"{value:.4f}") for name, value in card.dice.items()], (f"Dice on {card.worth}", ""))
    else:
        again = ["napari-unet", "train", arguments.data, "--out", f"{out}-folds", "--folds", str(min(FOLDS, max(2, card.cases_trained)))]
        print(f"nothing was scored: no case was kept out of training\nan honest score: {shlex.join(again)}")
    print(f"{card.note}\n" if card.note else "", end="")
    print(f"weights  {out / 'model.safetensors'}  ({card.steps} steps, {minutes:.1f} minutes)")
    print(f"report   {page}\npicture  {picture}")
    _finish(arguments, {"model": str(out / "model.safetensors"), "report": str(page), "dice": card.dice, "steps": card.steps,
                        "cases_scored": card.cases_scored, "independent": card.independent, "scored_by": card.scored_by,
                        "minutes": round(minutes, 3)})  # fmt: skip
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from napari_unet.cases import find_images
    from napari_unet.ensemble import files_of

    files_of(arguments.model)  # refused before the long imports
    cases = find_images(arguments.inputs)
    targets = _targets(cases, Path(arguments.out), arguments.overwrite, arguments.uncertainty)

    from napari_unet.segment import Segmenter
    from napari_unet.speed import threads

    failed, done, line = [], [], Line()
    with threads(arguments.threads):
        segmenter = Segmenter.load(arguments.model, device=arguments.device, mirror=arguments.mirror, uncertainty=arguments.uncertainty)
        for n, (case, target) in enumerate(zip(cases, targets, strict=True), 1):
            try:
                _segment(segmenter, case, target, arguments.volume, f"{n} of {len(cases)}: {case.name}", line)
                done.append(str(target))
            except UNetError as error:
                if len(cases) == 1:
                    raise
                failed.append({"case": case.name, "error": str(error)})
    line.end()
    for failure in failed:
        print(f"napari-unet: {failure['error']}", file=sys.stderr)
    print(f"{len(done)} masks in {arguments.out}" + (f", {len(failed)} cases failed" if failed else ""))
    _finish(arguments, {"masks": done, "failed": failed})
    return 0 if not failed else 1 if done else 2


def _uncertainty_beside(mask: Path) -> Path:
    from napari_unet import nifti

    return mask.with_name(f"{nifti.stem(mask)}_uncertainty.nii.gz")


def _targets(cases: list[Any], out: Path, overwrite: bool, uncertainty: bool) -> list[Path]:
    """Where each mask goes; refused before any work where it would replace something, and always over an input."""
    from napari_unet import files, nifti, pictures

    single = nifti.suffix(out) != "" and not out.is_dir()
    if single and len(cases) > 1:
        raise UNetError(out, f"one file for {len(cases)} images", "Give a folder")
    if single and nifti.suffix(out) not in WRITABLE:
        raise UNetError(out, f"no mask can be written as {nifti.suffix(out)}", f"Use one of {' '.join(WRITABLE)}")
    endings = [".png" if nifti.suffix(case.images[0]) in pictures.SUFFIXES else ".nii.gz" for case in cases]
    targets = [out] if single else [out / f"{case.name}{ending}" for case, ending in zip(cases, endings, strict=True)]
    inputs = {path.resolve() for case in cases for path in case.images}
    beside = [_uncertainty_beside(target) for target in targets] if uncertainty else []
    if twins := set(targets) & set(beside):
        raise UNetError(min(twins), "it would be a mask and an uncertainty", "Rename the image, or segment it on its own")
    for target in (*targets, *beside):
        if target.resolve() in inputs:
            raise UNetError(target, "the mask would replace its own image", "Choose another --out")
        if target.exists() and not overwrite:
            raise UNetError(target, "it exists already", "Use --overwrite, or another --out")
    files.make_folder(out.parent if single else out)
    return targets


def _segment(segmenter: Any, case: Any, target: Path, chosen: int | None, text: str, line: Line) -> None:
    import numpy as np

    from napari_unet import nifti
    from napari_unet.cases import read_image
    from napari_unet.preprocess import label_dtype

    volume = read_image(case)
    volume = volume if chosen is None else volume.channel(chosen)
    labels = np.zeros(volume.shape, label_dtype(segmenter.spec))
    doubt = np.zeros(volume.shape, np.float32) if segmenter.uncertainty else None
    for piece in segmenter.stream(volume):
        labels[piece.region] = piece.labels
        if doubt is not None:
            doubt[piece.region] = piece.uncertainty
        line.show(f"{text}, slice {piece.done} of {piece.total}")
    for note in volume.notes:
        print(f"note: {volume.source}: {note}", file=sys.stderr)
    if doubt is not None:
        nifti.write(_uncertainty_beside(target), volume.with_data(doubt), labels=False)
    nifti.write(target, volume.with_data(segmenter.clean(labels)))


def _evaluate(arguments: argparse.Namespace) -> int:
    from napari_unet import nifti
    from napari_unet.evaluate import evaluate, summary, write_scores

    out = Path(arguments.out) if arguments.out else None
    if out and (nifti.suffix(out) or (out.exists() and not arguments.overwrite)):
        raise UNetError(out, "it is an image" if nifti.suffix(out) else "it exists already", "Use --overwrite, or another --out")
    cases = evaluate(arguments.predictions, arguments.labels, surface=arguments.surface, rule=rule_of(arguments))
    scores = [score for case in cases for score in case]
    _table([(s.case, str(s.label), _number(s.dice, 4), f"{s.ml:.3f}", f"{s.reference_ml:.3f}",
             *((_number(s.surface_dice, 4), _number(s.hausdorff95_mm, 2)) if arguments.surface else ())) for s in scores],
           ("case", "class", "Dice", "ml", "truth ml", *(("surface", "HD95 mm") if arguments.surface else ())))  # fmt: skip
    table = summary(scores)
    print()
    _table([(key, _number(row["dice"], 4), _number(row["spread"], 4), str(row["n"])) for key, row in table.items()],
           ("class", "mean Dice", "spread", "cases"))  # fmt: skip
    if out:
        write_scores(out, scores)
    _finish(arguments, {"summary": table, "cases": len({s.case for s in scores})})
    return 0


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _join(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    if out.suffix != ".safetensors":
        raise UNetError(out, f"the ending {out.suffix!r}", "Give a file that ends in .safetensors")

    from napari_unet.pooling import join, scores_beside

    for path in (out, scores_beside(out)):
        if path.exists() and not arguments.overwrite:
            raise UNetError(path, "it exists already", "Use --overwrite, or another --out")
    card, reasons = join(arguments.models, out, arguments.command)
    print("\n".join(reasons) + "\n" if reasons else "", end="")
    if card.cases_scored:
        _table([(name, f"{value:.4f}") for name, value in card.dice.items()], (f"Dice on {card.worth}", ""))
    else:
        print("no score: the models are not all folds of one split, each with its scores")
    print(f"weights  {out}")
    _finish(arguments, {"model": str(out), "dice": card.dice, "cases_scored": card.cases_scored, "scored_by": card.scored_by})
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from napari_unet.weights import find, read_card, read_spec

    path = find(arguments.model)
    spec, card = read_spec(path), read_card(path)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in card.dice.items()) or "none"
    shape = spec.patch[3 - spec.network.dims :]
    rows = [
        ("model", f"{spec.name} ({path.stat().st_size / 1e6:.1f} MB)"), ("about", card.description),
        ("finds", ", ".join(f"{label.value} {label.name}" for label in spec.labels)),
        ("in", f"{', '.join(c.name for c in spec.channels)}; axes {spec.orientation}, spacing {spec.spacing} mm"
               + f"; each slice with {spec.neighbours} on either side" * bool(spec.neighbours)),
        ("Dice", f"{scores} (on {card.worth})"), ("note", card.note),
        ("members", f"{spec.members}, whose logits are averaged" if spec.members > 1 else ""),
        ("trained", f"{card.cases_trained} cases, {card.steps} steps, {card.created}"),
        ("data", f"{card.data} ({card.data_licence or 'licence not stated'})"), ("licence", card.licence or "not stated"),
        ("from", f"{card.parent.name} (fine-tuned; its tensors' SHA-256: {card.parent.sha256[:12]}...)" if card.parent else ""),
        ("made by", card.command), ("with", ", ".join(f"{k} {v}" for k, v in card.versions.items())),
    ]  # fmt: skip
    _table([row for row in rows if row[1]])
    print(f"\nThe walk of a patch through the {spec.kind} U-Net:")
    walk = spec.network.walk(shape)
    _table([(name, " x ".join(map(str, size)), str(features)) for name, size, features in walk], ("level", "shape", "features"))
    _finish(arguments, {"spec": json.loads(schema.encode(spec)), "card": json.loads(schema.encode(card))})
    return 0


def _view(arguments: argparse.Namespace) -> int:
    import napari
    from napari.layers import Layer

    from napari_unet.viewer.reader import read

    layers = [Layer.create(*layer) for path in arguments.files for layer in read(path)]
    viewer = napari.Viewer()
    for layer in layers:
        viewer.add_layer(layer)
    viewer.window.add_plugin_dock_widget("napari-unet-monai", "Segment")
    napari.run()
    return 0
