"""How many labelled cases, how many minutes: Dice on cases never seen, against both.

    python training/learning_curve.py DATA --cases 1,3,10,30,100 --minutes 1,5 --folds 1,5 --page docs/learning_curve.md

The first of the five folds that the seed draws is kept out of everything and scored. Of the other cases so many are drawn; a smaller
draw is part of every larger one. Each point is a whole run, planned from its own cases, of one model, or of a model per fold that share
the minutes; it is not done again once it has finished. Writes curve.csv and curve.png; --page gets the table between its marks, and the
picture in images/learning_curve.png beside it. One JSON line at the end.
"""

import argparse
import csv
import json
import sys
from itertools import product
from pathlib import Path

from matplotlib.figure import Figure

from napari_unet import TrainConfig, UNetError, evaluate, find_cases
from napari_unet.experiment import draw, fill, fold_out, grouped, in_words, mean_and_error, read_outcome, run
from napari_unet.files import make_folder


def numbers(text: str) -> list[float]:
    return sorted({float(part) for part in text.split(",")})


def table(rows: list[dict]) -> str:
    """Cases down, minutes and folds across."""
    columns = dict.fromkeys(row["training"] for row in rows)
    lines = ["| training cases | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for cases in sorted({row["cases"] for row in rows}):
        found = {row["training"]: in_words(row["dice"], row["error"]) for row in rows if row["cases"] == cases}
        lines.append(f"| {cases} | " + " | ".join(found.get(each, "") for each in columns) + " |")
    return "\n".join(lines)


def picture(rows: list[dict], title: str) -> Figure:
    """A line per column of the table, with two standard errors."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for training in dict.fromkeys(row["training"] for row in rows):
        line = [row for row in rows if row["training"] == training and row["dice"] is not None]
        error = [2 * (row["error"] or 0) for row in line]
        axis.errorbar([row["cases"] for row in line], [row["dice"] for row in line], error, marker="o", markersize=4,
                      capsize=3, label=training)  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(sorted({row["cases"] for row in rows}), [str(n) for n in sorted({row["cases"] for row in rows})])
    axis.minorticks_off()
    axis.set_xlabel("labelled cases trained on")
    axis.set_ylabel("mean Dice on unseen cases")
    axis.set_title(title, fontsize=10, parse_math=False)
    axis.grid(color="0.92")
    axis.legend(title="training", frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--cases", type=numbers, default=[1, 3, 10, 30, 100], metavar="1,3,10,30,100")
    parser.add_argument("--minutes", type=numbers, default=[1, 2, 5], metavar="1,2,5")
    parser.add_argument("--folds", type=numbers, default=[1], metavar="1,5", help="models of a point; 1: one of all cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/learning_curve"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    dataset = grouped(find_cases(options.data))
    others, unseen = fold_out(dataset, options.seed)
    draws = {int(count): draw(others, int(count), options.seed) for count in options.cases}
    rows = []
    for minutes, folds, count in product(options.minutes, map(int, options.folds), draws):
        if folds > count == 1:
            continue  # a single case has halves, not folds
        out = options.out / f"{count}-cases-{minutes:g}-minutes-{options.seed}{f'-{folds}-folds' * (folds > 1)}"
        for progress in run(dataset, draws[count], unseen, out=out, config=TrainConfig(minutes=minutes, seed=options.seed, folds=folds)):
            if progress.message:
                print(f"{out.name}: {progress.message}", file=sys.stderr, flush=True)
        outcome, scores = read_outcome(out)
        dice, error = mean_and_error(evaluate.by_case(scores).values())
        training = f"{minutes:g} min{f', {folds} folds' * (folds > 1)}"
        rows.append({"cases": count, "training": training, "dice": dice, "error": error, "unseen": outcome.unseen,
                     "trained": outcome.trained, "steps": outcome.steps, "seed": options.seed})  # fmt: skip
        with open(options.out / "curve.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    place = make_folder(options.page.parent / "images") / "learning_curve.png" if options.page else options.out / "curve.png"
    picture(rows, f"{dataset.folder.resolve().name}: {len(unseen)} unseen cases, ± 2 standard errors").savefig(place, dpi=110)
    if options.page:
        fill(options.page, "learning_curve", table(rows))
    print(table(rows), f"picture in {place}", json.dumps(rows), sep="\n")


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"learning_curve.py: {error}") from None
