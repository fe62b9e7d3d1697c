"""Masks of touching cells against labels: pixel error and V_rand, which sees gaps in walls and walls too many.

    python training/cells.py MASKS LABELS
"""

import argparse
import json
from statistics import fmean

from napari_unet import UNetError, images
from napari_unet.cells import pixel_error, v_rand
from napari_unet.evaluate import pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", help="a picture, or a folder of them: 0 is wall, all else cell")
    parser.add_argument("labels", help="the same, by the same names")
    options = parser.parse_args()

    rows = []
    print("picture     pixel error  V_rand   split   merge")
    for name, mask, label in pairs(options.masks, options.labels):
        found, truth = (images.read_labels(path).data[..., 0].T for path in (mask, label))
        rows.append((pixel_error(found, truth), *v_rand(found, truth)))
        print(f"{name:10}  {rows[-1][0]:11.4f}  " + "  ".join(f"{value:6.4f}" for value in rows[-1][1:]))
    means = dict(zip(("pixel_error", "v_rand", "split", "merge"), map(fmean, zip(*rows, strict=True)), strict=True))
    print(f"{'mean':10}  {means['pixel_error']:11.4f}  {means['v_rand']:6.4f}  {means['split']:6.4f}  {means['merge']:6.4f}")
    print(json.dumps({"pictures": len(rows), **means}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"cells.py: {error}") from None
