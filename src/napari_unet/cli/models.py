"""`napari-unet convert`, `join`, `export`, `info` and `view`: models are taken over from nnU-Net, put together, given to others, told
about, and used in napari."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from napari_unet import schema
from napari_unet.cli.arguments import MODEL, add_json, begin, name_of, new_file
from napari_unet.cli.terminal import finish, say, say_table
from napari_unet.spec import ModelSpec
from napari_unet.words import counted


def add_convert(parser: argparse.ArgumentParser) -> None:
    """The arguments of `convert`."""
    begin(parser, convert, ("folder", "", "nnU-Net's folder of a trained model, with plans.json, dataset.json and fold_0"))
    parser.add_argument("--out", help="the weights file to write (default: the folder's name, here)")
    parser.add_argument("--configuration", help="such as 3d_fullres or 2d (default: what the checkpoint says)")
    parser.add_argument("--folds", help='numbers, as in 0,1,4, or "all" (default: every fold there is)')
    parser.add_argument("--canonical", action="store_true",
                        help="its images were turned to RAS before nnU-Net read them, as TotalSegmentator does")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_json(parser)


def add_join(parser: argparse.ArgumentParser) -> None:
    """The arguments of `join`."""
    parts = ("models", "+", "folders of runs (such as folds of a job array), or weights files")
    begin(parser, join, parts)
    parser.add_argument("--out", required=True, help="the weights file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_json(parser)


def add_export(parser: argparse.ArgumentParser) -> None:
    """The arguments of `export`."""
    begin(parser, export, MODEL)
    parser.add_argument("--format", default="onnx", choices=["onnx"], help="of the file (default: onnx)")
    parser.add_argument("--out", help="the file to write (default: the model's name, here)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_json(parser)


def add_info(parser: argparse.ArgumentParser) -> None:
    """The arguments of `info`."""
    begin(parser, info, MODEL)
    add_json(parser)


def add_view(parser: argparse.ArgumentParser) -> None:
    """The arguments of `view`."""
    begin(parser, view, ("files", "*", "images and masks to open"))


def convert(arguments: argparse.Namespace) -> int:
    """One weights file of nnU-Net's folder."""
    out = new_file(arguments.out or f"{Path(arguments.folder).resolve().name}.safetensors", ".safetensors", arguments.overwrite)

    from napari_unet.nnunet import convert

    folds = [fold.strip() for fold in arguments.folds.split(",")] if arguments.folds else []
    spec, card = convert(arguments.folder, out, arguments.configuration or "", folds, arguments.command, arguments.canonical)
    say(card.description)
    say(f"finds    {', '.join(f'{label.value} {label.name}' for label in spec.labels)}")
    if card.dice:
        say(f"Dice     {card.dice['mean']:.4f} on {card.worth}. {card.note}")
    say(f"weights  {out} ({out.stat().st_size / 1e6:.1f} MB, {counted(spec.members, 'network')})")
    finish(arguments, {"model": str(out), "members": spec.members, "dice": card.dice, "cases_scored": card.cases_scored})
    return 0


def join(arguments: argparse.Namespace) -> int:
    """One weights file of several."""
    out = new_file(arguments.out, ".safetensors", arguments.overwrite)

    from napari_unet.pooling import join, scores_beside

    new_file(scores_beside(out), ".csv", arguments.overwrite)
    card, reasons = join(arguments.models, out, arguments.command)
    if reasons:
        say("\n".join(reasons))
    if card.cases_scored:
        say_table([(name, f"{value:.4f}") for name, value in card.dice.items()], (f"Dice on {card.worth}", ""))
    else:
        say("no score: the models are not all folds of one split, each with its scores")
    if card.note:
        say(card.note)
    say(f"weights  {out}")
    finish(arguments, {"model": str(out), "dice": card.dice, "cases_scored": card.cases_scored, "scored_by": card.scored_by})
    return 0


def export(arguments: argparse.Namespace) -> int:
    """The network in another format, with its specification."""
    from napari_unet import ensemble, files
    from napari_unet.weights import read_card

    first = ensemble.files_of(arguments.model)[0]
    out = new_file(arguments.out or f"{name_of(arguments.model)}.{arguments.format}", f".{arguments.format}", arguments.overwrite)
    files.make_folder(out.parent)

    from napari_unet.onnx_export import export_onnx

    spec, members = ensemble.load(arguments.model)
    export_onnx(out, spec, read_card(first), members)
    say(f"model  {out} ({out.stat().st_size / 1e6:.1f} MB)")
    say(f"image (batch, {counted(spec.network.channels, 'channel')}, {', '.join('zyx'[-spec.network.dims:])}), each axis a multiple of "
        f"{spec.network.total_stride}, to logits (batch, {spec.network.classes} classes, ...)")  # fmt: skip
    finish(arguments, {"model": str(out), "format": arguments.format})
    return 0


def info(arguments: argparse.Namespace) -> int:
    """What a file says of its model."""
    from napari_unet.ensemble import files_of
    from napari_unet.weights import read_calibration, read_card, read_spec

    path, *others = files_of(arguments.model)
    spec, card, calibration = read_spec(path), read_card(path), read_calibration(path)
    if others:  # folds not yet joined, which predict averages
        say(f"{len(others) + 1} models in {arguments.model}, not yet joined; the first of them, {path}:")
    scores = ", ".join(f"{name} {value:.3f}" for name, value in card.dice.items()) or "none"
    shape = spec.patch[3 - spec.network.dims :]
    rows = [
        ("model", f"{spec.name} ({path.stat().st_size / 1e6:.1f} MB)"), ("about", card.description),
        ("finds", ", ".join(f"{label.value} {label.name}" for label in spec.labels)),
        ("in", f"{', '.join(c.name for c in spec.channels)}; {_axes(spec)}, {_spacing(spec)}"
               + f"; each slice with {spec.neighbours} on either side" * bool(spec.neighbours)),
        ("Dice", f"{scores} (on {card.worth})" if card.dice or not card.cases_scored else "not scored yet"), ("note", card.note),
        ("int8", str(calibration or "")),
        ("members", f"{spec.members}, whose logits are averaged" if spec.members > 1 else ""),
        ("trained", f"{counted(card.cases_trained, 'case')}, {counted(card.steps, 'step')}, {card.created}" if card.cases_trained else ""),
        ("data", f"{card.data} ({card.data_licence or 'licence not stated'})"), ("licence", card.licence or "not stated"),
        ("from", f"{card.parent.name} (fine-tuned; its tensors' SHA-256: {card.parent.sha256[:12]}...)" if card.parent else ""),
        ("made by", card.command), ("with", ", ".join(f"{k} {v}" for k, v in card.versions.items())),
    ]  # fmt: skip
    say_table([row for row in rows if row[1]])
    residual = " with a residual encoder" * (spec.network.encoder == "residual")
    say(f"\nThe walk of a patch through the {spec.kind} U-Net{residual}:")
    walk = spec.network.walk(shape)
    say_table([(name, " x ".join(map(str, size)), str(features)) for name, size, features in walk], ("level", "shape", "features"))
    finish(arguments, {"spec": json.loads(schema.encode(spec)), "card": json.loads(schema.encode(card))})
    return 0


def _axes(spec: ModelSpec) -> str:
    """As in "axes SAR"."""
    return f"axes {spec.orientation}" + " of the file, as stored" * spec.orientation.islower()


def _spacing(spec: ModelSpec) -> str:
    """As in "spacing 1 x 1 x 1 mm"; 0 stands for an image's own."""
    if not any(spec.spacing):
        return "at the pixels that pictures have" if spec.pictures else "at each image's own spacing"
    return f"spacing {' x '.join(f'{mm:.4g}' if mm else 'its own' for mm in spec.spacing)} mm"


def view(arguments: argparse.Namespace) -> int:
    """napari, until it is closed."""
    from napari_unet.viewer.window import open_window

    open_window(arguments.files)
    return 0
