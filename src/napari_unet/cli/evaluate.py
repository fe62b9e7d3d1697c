"""`napari-unet evaluate`: masks are compared with labels."""

from __future__ import annotations

import argparse

from napari_unet.cli.arguments import add_json, begin, new_table
from napari_unet.cli.terminal import finish, number, say, say_table
from napari_unet.errors import UNetError
from napari_unet.options import add_settings, rule_of
from napari_unet.settings import LabelRule
from napari_unet.words import counted, listed


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    both = ("predictions", "", "mask, or folder of masks"), ("labels", "", "label, or folder of labels")
    begin(parser, evaluate, *both)
    parser.add_argument("--out", help="write scores as CSV")
    parser.add_argument("--overwrite", action="store_true", help="replace the CSV file if it exists")
    parser.add_argument("--surface", action="store_true",
                        help="surface Dice within 1 mm and 95th percentile of distances, too; of pictures, in pixels")  # fmt: skip
    parser.add_argument("--only-found", action="store_true", help="score only labels that have a mask, as of a run's own masks")
    add_settings(parser, LabelRule)
    add_json(parser)


def evaluate(arguments: argparse.Namespace) -> int:
    """Scores per case and class, then the means."""
    from napari_unet.description import described_beside
    from napari_unet.evaluate import evaluate, summary, unpaired, write_scores

    out = new_table(arguments.out, arguments.overwrite, "--out")
    names: dict[int, str] = {}
    rule = rule_of(arguments)
    try:
        names, rule = described_beside(arguments.labels, rule)
    except UNetError as error:  # of regions, say: masks can be compared without names
        say(f"not used: {error}")
    if rule.ignore is not None:
        say(f"not scored: voxels whose label is {rule.ignore}, which nobody labelled")
    if others := unpaired(arguments.predictions, arguments.labels):
        say(f"not scored: {listed(others, 5)}, without a label")
    if without := unpaired(arguments.labels, arguments.predictions) if arguments.only_found else []:
        say(f"not scored: {counted(len(without), 'label')} without a mask")
    cases = evaluate(arguments.predictions, arguments.labels, surface=arguments.surface, rule=rule, only_found=arguments.only_found)
    scores = [score for case in cases for score in case]
    named = {str(value): f"{value} {name}" for value, name in names.items()}
    say_table([(s.case, named.get(str(s.label), str(s.label)), number(s.dice, 4), number(s.ml, 3), number(s.reference_ml, 3),
                *((number(s.surface_dice, 4), number(s.hausdorff95_mm, 2)) if arguments.surface else ())) for s in scores],
              ("case", "class", "Dice", "ml", "truth ml", *(("surface", "HD95 mm") if arguments.surface else ())))  # fmt: skip
    table = summary(scores)
    say()
    say_table([(named.get(key, key), number(row["dice"], 4), number(row["spread"], 4), str(row["n"])) for key, row in table.items()],
              ("class", "mean Dice", "spread", "cases"))  # fmt: skip
    if out:
        write_scores(out, scores)
    finish(arguments, {"summary": table, "cases": len({s.case for s in scores})})
    return 0
