"""Make a data set of synthetic heads, in the Decathlon's layout.

    python training/prepare_phantoms.py demo/data
    python training/prepare_phantoms.py demo/data --training 24 --testing 6 --seed 0
"""

import argparse

from napari_unet import UNetError
from napari_unet.phantoms import write_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--training", type=int, default=24, help="cases with labels for training")
    parser.add_argument("--testing", type=int, default=6, help="cases that no training may see")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = write_dataset(options.folder, options.training, options.testing, options.seed)
    print(f"{options.training} + {options.testing} phantoms in {folder}")


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"prepare_phantoms.py: {error}") from None
