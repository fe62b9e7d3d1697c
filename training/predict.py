"""Segment images with public functions alone. `napari-unet predict` also goes on where it ended, and keeps to the memory there is.

    python training/predict.py                                      the phantoms of training/train.py that it never saw
    python training/predict.py --model RUN --images FOLDER --out MASKS
"""

import argparse
from pathlib import Path

from napari_unet import Segmenter, UNetError, find_images, write
from napari_unet.dataset import read_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/phantoms", help="weights file, a run's folder, or a shipped model's name")
    parser.add_argument("--images", default="runs/phantoms/data/imagesTs")
    parser.add_argument("--out", default="runs/phantoms/test")
    options = parser.parse_args()

    segmenter = Segmenter.load(options.model)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    for case in find_images([options.images]):
        target = Path(options.out) / f"{case.name}.nii.gz"
        write(target, segmenter.segment(read_image(case)))
        print(target)


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"predict.py: {error}") from None
