"""How well and how fast we are, beside others, on the same data, the same minutes and the same cores.

    python training/benchmark.py train DATA --minutes 8 --out runs/benchmark
    python training/benchmark.py predict --json

`train`: our `train`, MONAI's stock recipe (training/monai_recipe.py) and, where nnunetv2 is installed, one iteration of
nnU-Net (training/nnunet_iteration.py), one after the other. Scored are cases that none of them saw: the first of the five
folds that the seed draws. Then what a step of ours costs: the share of drawing and augmenting batches, and the
convolutions' operations against the most that this device reaches in the same minute. What is finished is not done again.
A table for people, then one JSON line. `predict` is benchmark_predict.py. OMP_NUM_THREADS=2 gives all of them two cores.
"""

import argparse
import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from napari_unet import TrainConfig, UNetError, find_cases
from napari_unet.cost import profile
from napari_unet.evaluate import summary
from napari_unet.experiment import draw, fold_out, grouped, read_outcome, run
from napari_unet.files import make_folder
from napari_unet.record import read_record


def rival(script: str, *arguments: object) -> dict:
    """The JSON line of a script beside this one; nothing where it says why there is none."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print((done.stderr.strip() or "?").splitlines()[-1])
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def ours(dataset, training, unseen, options: argparse.Namespace) -> dict:
    """Our run, and what a step of it costs."""
    out, config = options.out / "ours", TrainConfig(minutes=options.minutes, seed=options.seed)
    for progress in run(dataset, training, unseen, out=out, config=config):
        if progress.message:
            print(progress.message, file=sys.stderr, flush=True)
    (outcome, scores), record = read_outcome(out), read_record(out)
    cost = profile(record.spec, record.config, draw(training, min(8, len(training)), options.seed), options.seconds)
    return {**asdict(outcome), "dice": summary(scores), **asdict(cost),
            "data_share": cost.data_share, "rate": cost.rate, "peak_share": cost.peak_share}  # fmt: skip


def train(options: argparse.Namespace) -> dict:
    dataset = grouped(find_cases(options.data))
    training, unseen = fold_out(dataset, options.seed)
    options.out /= f"{options.minutes:g}-{options.seed}"
    kept = make_folder(options.out) / "monai.json"
    if not kept.exists() and "monai" in options.rivals:
        found = rival("monai_recipe.py", options.data, "--out", options.out / "monai", "--minutes", options.minutes, "--seed", options.seed)
        kept.write_text(json.dumps(found)) if found else None
    rows = {"ours": ours(dataset, training, unseen, options)} | ({"MONAI": json.loads(kept.read_text())} if kept.exists() else {})
    print(f"{'':6}  {'Dice':>6}  {'steps':>6}  {'steps/s':>7}  {'samples/s':>9}  minutes")
    for name, row in rows.items():
        seconds = 60 * row["minutes"]
        print(f"{name:6}  {row['dice']['mean']['dice'] or math.nan:6.4f}  {row['steps']:6}  {row['steps'] / seconds:7.2f}  "
              f"{row['samples'] / seconds:9.2f}  {row['minutes']:.2f}")  # fmt: skip
    mine = rows["ours"]
    most = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in mine["limits"].items())
    print(f"{mine['data_share']:.1%} of our step draws and augments its batch; the convolutions' operations come to "
          f"{mine['rate'] / 1e9:.0f} GFLOP/s, {mine['peak_share']:.0%} of the most reached here ({most})")  # fmt: skip
    if "nnunet" in options.rivals and (found := rival("nnunet_iteration.py", options.data)):
        rows["nnU-Net"] = found
        print(f"nnU-Net: {found['seconds']:.2f} s per iteration, batch {found['batch']} of {found['patch']}; 1000 epochs of 250 "
              f"take {found['seconds'] * 250_000 / 86_400:.1f} days")  # fmt: skip
    return {"minutes": options.minutes, "threads": torch.get_num_threads(), "trained": len(training), "unseen": len(unseen), **rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("train", help="against MONAI's stock recipe and nnU-Net's iteration")
    command.set_defaults(run=train)
    command.add_argument("data")
    command.add_argument("--minutes", type=float, default=8.0, help="for each")
    command.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--seconds", type=float, default=1.0, help="for each thing that is measured of our step")
    command.add_argument("--rivals", nargs="*", default=["monai", "nnunet"], choices=["monai", "nnunet"])
    commands.add_parser("predict", help="segmenting, against MONAI's and nnU-Net's sliding window", add_help=False)
    if sys.argv[1:2] == ["predict"]:
        raise SystemExit(subprocess.call([sys.executable, Path(__file__).with_name("benchmark_predict.py"), *sys.argv[2:]]))
    options = parser.parse_args()
    print(json.dumps(options.run(options)))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"benchmark.py: {error}") from None
