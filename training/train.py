"""Train a model: what `napari-unet train` does, spelled out with the public functions.

    python training/train.py                                        phantoms, two minutes
    python training/train.py --data DATA --out RUN --minutes 10
    python training/train.py --data DATA --out RUN --steps 200 --seed 1
    python training/train.py --data DATA --out RUN --from MODEL     learns on from a model
"""

import argparse
import json
import time
from pathlib import Path

from napari_unet import TrainConfig, UNetError, check, find_cases, read_card
from napari_unet.card import Card
from napari_unet.checks import facts_in, groups_of, refuse
from napari_unet.crossval import learn
from napari_unet.finetune import Base, gentle
from napari_unet.phantoms import write_dataset
from napari_unet.plan import plan
from napari_unet.report import write_report


def main() -> None:
    started = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="labelled folder; phantoms are made where it is left out")
    parser.add_argument("--out", default="runs/phantoms")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--folds", type=int, help="one model per fold, each scored on the cases it never saw")
    parser.add_argument("--from", dest="base", metavar="MODEL", help="begin with this model's network and weights")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    out = Path(options.out)
    budget = {"steps": options.steps} if options.steps else {"minutes": options.minutes}

    dataset = find_cases(options.data or write_dataset(out / "data"))
    reports = list(check(dataset))
    refuse(reports, str(dataset.folder))
    facts = facts_in(reports)
    base = Base.load(options.base) if options.base else None
    config = TrainConfig(seed=options.seed, folds=options.folds, **budget)
    spec, config, reasons = plan(dataset, facts, config=gentle(config) if base else config, base=base.spec if base else None)
    print("\n".join(reasons))

    cases = dataset.with_groups(groups_of(facts)).cases  # copies stay on one side of a split
    start, card = (base.start(spec), base.derive(Card())) if base else (None, Card())
    for progress in learn(cases, spec, config, out=out, card=card, reasons=tuple(reasons), started=started, start=start):
        if progress.message or progress.step % 50 == 0:
            print(progress.fold, progress.phase, progress.step, progress.steps, progress.loss, progress.dice, progress.message, flush=True)

    page, _ = write_report(out)
    card = read_card(out / "model.safetensors")
    print(f"weights in {out / 'model.safetensors'}, report in {page}")
    print(json.dumps({"dice": card.dice, "steps": card.steps, "minutes": (time.time() - started) / 60}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"train.py: {error}") from None
