"""Compare masks with labels: what `napari-unet evaluate` does, spelled out with the public functions.

    python training/evaluate.py                                     the masks of training/predict.py
    python training/evaluate.py --masks MASKS --labels LABELS
"""

import argparse
import json

from napari_unet import UNetError
from napari_unet.evaluate import evaluate, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", default="runs/phantoms/test")
    parser.add_argument("--labels", default="runs/phantoms/data/labelsTs")
    options = parser.parse_args()

    scores = []
    for case in evaluate(options.masks, options.labels):
        print(case[0].case, *(f"{score.label}: {score.dice:.4f}" for score in case if score.dice is not None))
        scores += case
    print(json.dumps(summary(scores)))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"evaluate.py: {error}") from None
