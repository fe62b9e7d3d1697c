"""`napari-unet calibrate`: a model that can compute in 8-bit integers, where its masks stay as good."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

from napari_unet.cli.arguments import DATA, MODEL, add_json, begin, name_of, new_file
from napari_unet.cli.terminal import Line, finish, say
from napari_unet.options import add_settings, rule_of
from napari_unet.settings import LabelRule

if TYPE_CHECKING:
    from napari_unet.calibrate import Result, Step


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    begin(parser, calibrate, MODEL, DATA)
    parser.add_argument("--out", help="the weights file to write (default: the model's name with -int8, here)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_settings(parser, LabelRule)
    add_json(parser)


def calibrate(arguments: argparse.Namespace) -> int:
    """The calibrated model's file, and what int8 costs and gains."""
    out = new_file(arguments.out or f"{name_of(arguments.model)}-int8.safetensors", ".safetensors", arguments.overwrite)

    from napari_unet import calibrate as work
    from napari_unet import files
    from napari_unet.cases import find_cases

    files.make_folder(out.parent)
    with closing(work.calibrate(arguments.model, find_cases(arguments.data, rule_of(arguments)).cases, out)) as steps:
        result = _followed(steps)
    found = result.calibration
    say(f"in int8  {found}; {result.faster:.1f} times as fast as OpenVINO in float32 on this machine")
    say(f"weights  {out}; use it with predict --precision int8")
    finish(arguments, {"model": str(out), "dice": found.dice, "dice_float32": found.dice_float32, "cases": found.cases,
                       "faster": round(result.faster, 2)})  # fmt: skip
    return 0


def _followed(steps: Generator[Step, None, Result]) -> Result:
    """What they lead to; the line that lives tells of them meanwhile."""
    line = Line()
    try:
        while True:
            step = next(steps)
            line.show(f"{step.done} of {step.total}: {step.message}")
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        line.end()
