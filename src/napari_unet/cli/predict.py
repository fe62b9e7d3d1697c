"""`napari-unet predict`: masks of images, each on its image's own grid."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet.cli.arguments import MODEL, add_json, begin
from napari_unet.cli.cleaning import add_cleaning, cleaning_of
from napari_unet.cli.terminal import Line, finish, number, say, say_table, tell
from napari_unet.errors import UNetError
from napari_unet.running import DEVICES, PRECISIONS, RUNTIMES
from napari_unet.words import counted, duration, listed

if TYPE_CHECKING:
    from napari_unet.batch import Step
    from napari_unet.components import Cleaning
    from napari_unet.ledger import Ledger
    from napari_unet.spec import ModelSpec
    from napari_unet.targets import Job

LEAST_SHARE, LEAST_SECONDS = 0.01, 30.0  # of the work: one of them has to be behind before it tells how long the rest takes


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    images = ("inputs", "+", "files or folders; case_0000, case_0001 are channels")
    begin(parser, predict, MODEL, images)
    parser.add_argument("--out", required=True, help="a file for one image, a folder for several")
    parser.add_argument("--overwrite", action="store_true", help="replace masks that exist")
    parser.add_argument("--resume", action="store_true", help="go on where a run ended: what this model has finished in --out is kept")
    parser.add_argument("--part", metavar="N/M", help="only the Nth of M parts of all images, as in 2/8; parts may run at once")
    parser.add_argument("--device", default="auto", help=f"auto, {', '.join(DEVICES[:-1])} or {DEVICES[-1]} (default: auto)")
    parser.add_argument("--runtime", default="auto", choices=["auto", *RUNTIMES],
                        help="what runs the network; auto: OpenVINO on x86 CPUs, where it is installed")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS,
                        help="int8 is faster; for models that napari-unet calibrate wrote (default: float32)")
    parser.add_argument("--volume", type=int, help="which volume of 4-D images to segment, from 0")
    parser.add_argument("--uncertainty", action="store_true",
                        help="write NAME_uncertainty.nii.gz, too: 0 sure to 1 not, by the members' disagreement or the entropy of one")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="average over mirrored copies (default: the model's)")
    add_cleaning(parser)
    parser.add_argument("--threads", type=int, help="threads that compute; 1 is fastest for small networks on a busy machine")
    add_json(parser)


def predict(arguments: argparse.Namespace) -> int:
    """A mask for each image; 1 where some could not be segmented, 2 where none could."""
    from napari_unet import targets
    from napari_unet.cases import find_images, masks_beside
    from napari_unet.ensemble import files_of
    from napari_unet.weights import read_spec

    spec, out = read_spec(files_of(arguments.model)[0]), Path(arguments.out)  # what can be refused is, before long imports
    cleaning = cleaning_of(arguments, spec)
    every = targets.jobs_for(find_images(arguments.inputs, len(spec.channels)), out, arguments.uncertainty)
    targets.check_apart(arguments.inputs, out)
    if masks := [path.name for source in arguments.inputs for path in masks_beside(source)]:
        tell(f"note: left out, as masks of images beside them: {listed(masks, 5)}")
    jobs = targets.part_of(every, arguments.part) if arguments.part else every
    ledger = None if targets.is_file(out) else _ledger(arguments, spec, cleaning)
    to_do = _begin_file(arguments, jobs) if ledger is None else ledger.to_do(jobs, resume=arguments.resume, overwrite=arguments.overwrite)
    ended = _run(arguments, to_do, cleaning, ledger)
    if len(every) == 1 and ended and ended[0].error:
        raise ended[0].error
    return _report(arguments, ended, len(jobs) - len(to_do))


def _begin_file(arguments: argparse.Namespace, jobs: list[Job]) -> list[Job]:
    """The jobs of a single file, which may be written."""
    from napari_unet import targets

    if arguments.resume:
        raise UNetError(arguments.out, "nothing can be resumed in a single file", "Give a folder, or leave out --resume")
    if not arguments.overwrite:
        targets.check_free(jobs)
    return jobs


def _take(arguments: argparse.Namespace, ledger: Ledger | None) -> None:
    """Make the place of the masks: nothing on the disk has changed before."""
    from napari_unet import files

    if ledger is None:
        files.make_folder(Path(arguments.out).parent)
    else:
        ledger.take(overwrite=arguments.overwrite)


def _ledger(arguments: argparse.Namespace, spec: ModelSpec, cleaning: Cleaning) -> Ledger:
    """The books of a folder of masks."""
    from napari_unet.ensemble import checksum
    from napari_unet.ledger import Ledger, Method

    mirror = spec.mirror_tta if arguments.mirror is None else arguments.mirror
    method = Method(spec.name, checksum(arguments.model), mirror, arguments.volume, arguments.uncertainty, cleaning, arguments.precision)
    return Ledger(Path(arguments.out), method)


def _run(arguments: argparse.Namespace, jobs: list[Job], cleaning: Cleaning, ledger: Ledger | None) -> list[Step]:
    """The last step of each job; the line that lives tells of all, and a fault is told as soon as it is met."""
    if not jobs:
        _take(arguments, ledger)
        if ledger is not None:
            ledger.write_volumes()
        return []

    from napari_unet.warming import warm_up

    warm_up()
    from napari_unet.batch import segment_all
    from napari_unet.segment import Segmenter
    from napari_unet.threads import limited

    ended, noted, line = [], set(), Line()
    with limited(arguments.threads):
        segmenter = Segmenter.load(arguments.model, arguments.device, arguments.runtime, mirror=arguments.mirror,
                                   uncertainty=arguments.uncertainty, precision=arguments.precision)  # fmt: skip
        _take(arguments, ledger)
        begun = time.monotonic()
        with closing(segment_all(segmenter, jobs, cleaning, volume=arguments.volume, ledger=ledger)) as steps:
            for step in steps:
                line.show(_progress(step, len(jobs), time.monotonic() - begun))
                if step.notes and step.number not in noted:
                    noted.add(step.number)
                    _note(step, line)
                if step.over:
                    ended.append(step)
                    _tell(step, line, alone=len(jobs) == 1)
    line.end()
    return ended


def _note(step: Step, line: Line) -> None:
    """What a careful reader should know of an image, as soon as it is known."""
    line.end()
    for note in step.notes:
        tell(f"note: {step.job.case.images[0]}: {note}")


def _tell(step: Step, line: Line, alone: bool) -> None:
    """Why an image failed; of a single one the command ends with that."""
    if step.error and not alone:
        line.end()
        tell(f"napari-unet: {step.error}")


def _progress(step: Step, count: int, seconds: float) -> str:
    """As in "3 of 40: liver_12, slice 20 of 96, 12 min 05 s left"."""
    text = f"{step.number + 1} of {count}: {step.job.case.name}"
    if not step.done:
        return text + (f", {step.memory}" if step.memory else "")
    known = step.share > LEAST_SHARE or (step.share and seconds > LEAST_SECONDS)
    left = f", {duration(seconds * (1 / step.share - 1))} left" if known else ""
    return f"{text}, slice {step.done} of {step.total}{left}"


def _report(arguments: argparse.Namespace, ended: list[Step], before: int) -> int:
    """What came of it, in words and as exit code."""
    done, failed = [step for step in ended if not step.error], [step for step in ended if step.error]
    extents = [extent for step in done for extent in step.extents or ()]
    if failed:
        say_table([(step.job.case.name, str(step.error)) for step in failed], ("failed", "because"))
    if len(done) == 1:
        say_table([(f"{e.label} {e.name}", f"{e.voxels:,}", number(e.ml, 3), e.border) for e in extents],
                  ("class", "voxels", "ml", "touches"))  # fmt: skip
    elif cut := Counter(extent.name for extent in extents if extent.border):
        say("cut off by the image's border: " + ", ".join(f"{name} in {n} of {len(done)}" for name, n in cut.items()))
    say(f"{counted(len(done), 'mask')} in {arguments.out}" + (f", {before} finished before" if before else "")
        + (f", {counted(len(failed), 'case')} failed" if failed else ""))  # fmt: skip
    finish(arguments, {"masks": [str(step.job.mask) for step in done], "finished_before": before,
                       "volumes": [asdict(extent) for extent in extents],
                       "failed": [{"case": step.job.case.name, "error": str(step.error)} for step in failed]})  # fmt: skip
    return 0 if not failed else 1 if done or before else 2
