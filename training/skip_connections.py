"""What the skip connections are worth: one U-Net with and without them, on the same data, with the same minutes and seed.

    python training/skip_connections.py --membrane FOLDER --hippocampus FOLDER --minutes 10 --page docs/unet.md

Either data set may be left out. Scored are cases that neither run saw: of the membranes (ISBI 2012) the last six slices,
which are neighbours; of the hippocampi (Decathlon, Task04) the first of five folds. --page gets the table between its
marks, and the picture in images/skip_connections.png beside it; without --page the picture goes into --out. It shows the
case whose difference is the median one. A finished run is not done again.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from napari_unet import PlanChoices, TrainConfig, UNetError, Volume, evaluate, experiment, find_cases, images, read_spec
from napari_unet.comparison import PANELS, WRONG, draw_comparison
from napari_unet.dataset import Case, read_image
from napari_unet.experiment import MASKS, fill, in_words, mean_and_error, read_outcome
from napari_unet.files import make_folder
from napari_unet.network import parameter_shapes

SLICES = 6  # unseen
ARMS = {"with": True, "without": False}
WHOSE = ("wrong without skip connections only", "wrong with them only", "wrong in both")


def mask_of(case: Case, out: Path) -> Volume:
    return images.read_labels(out / MASKS / f"{case.name}.nii.gz")


def compare(unseen: tuple[Case, ...], runs: dict[str, Path]) -> dict:
    """Each arm's numbers, the gain over the unseen cases with its standard error, and the case whose gain is the median."""
    found, dice = {}, {}
    for arm, out in runs.items():
        outcome, scores = read_outcome(out)
        dice[arm] = evaluate.by_case(scores)
        wrong = float(np.mean([np.mean(mask_of(case, out).data != images.read_labels(case.label).data) for case in unseen]))
        parameters = sum(map(math.prod, parameter_shapes(read_spec(out / "model.safetensors").network).values()))
        found[arm] = {"parameters": parameters, "steps": outcome.steps, "wrong": wrong, "dice": mean_and_error(dice[arm].values())[0]}
    gain = {case: by for case in dice["with"] if not math.isnan(by := dice["with"][case] - dice["without"][case])}
    return {**found, "gain": mean_and_error(gain.values()), "unseen": len(gain), "shown": sorted(gain, key=gain.get)[len(gain) // 2]}


def table(found: dict[str, dict]) -> str:
    lines = ["| data | skip connections | parameters | steps | wrong voxels | mean Dice |", "|---|---|---|---|---|---|"]
    for name, row in found.items():
        for arm, mine in ((arm, row[arm]) for arm in ARMS):
            numbers = f"{mine['parameters']:,} | {mine['steps']:,} | {mine['wrong']:.2%} | {in_words(mine['dice'])}"
            lines.append(f"| {name} | {arm} | {numbers} |")
        lines.append(f"| | gain, over {row['unseen']} unseen cases | | | | {in_words(*row['gain'], form='+.4f')} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--membrane", help="folder")
    parser.add_argument("--hippocampus", help="folder")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each of the runs")
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/skip_connections"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    config = TrainConfig(minutes=None if options.steps else options.minutes, steps=options.steps, seed=options.seed)
    folders = {"membrane": options.membrane, "hippocampus": options.hippocampus}
    chosen = {name: experiment.grouped(find_cases(folder)) for name, folder in folders.items() if folder}
    if not chosen:
        raise UNetError("--membrane, --hippocampus", "neither is given", "Give the folder of at least one")
    figure = Figure(figsize=(2.4 * PANELS, 2.6 * len(chosen)), layout="constrained")
    axes, found = figure.subplots(len(chosen), PANELS, squeeze=False), {}
    for row, (name, dataset) in zip(axes, chosen.items(), strict=True):
        training, unseen = experiment.last_out(dataset, SLICES) if name == "membrane" else experiment.fold_out(dataset, options.seed)
        runs = {arm: options.out / f"{name}-{arm}-{options.steps or options.minutes:g}-{options.seed}" for arm in ARMS}
        for arm, out in runs.items():
            for progress in experiment.run(dataset, training, unseen, out=out, config=config, choices=PlanChoices(skips=ARMS[arm])):
                if progress.message:
                    print(f"{out.name}: {progress.message}", file=sys.stderr, flush=True)
        found[name] = compare(unseen, runs)
        case = next(case for case in unseen if case.name == found[name]["shown"])
        masks = {f"{arm} skip connections": mask_of(case, out) for arm, out in runs.items()}
        draw_comparison(row, read_image(case), images.read_labels(case.label), masks, read_spec(runs["with"] / "model.safetensors"))
    figure.legend([Patch(color=colour) for colour in WRONG], WHOSE, loc="outside lower right", ncols=3, fontsize=8, frameon=False)
    picture = make_folder(options.page.parent / "images" if options.page else options.out) / "skip_connections.png"
    figure.savefig(picture, dpi=110)
    if options.page:
        fill(options.page, "skip_connections", table(found))
    print(table(found), f"picture in {picture}", json.dumps(found), sep="\n")


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"skip_connections.py: {error}") from None
