"""Voxels in which two programs' masks of the same images differ.

    python training/agreement.py OURS THEIRS
"""

import argparse
import json

import numpy as np

from napari_unet import UNetError, images
from napari_unet.evaluate import pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", help="a mask, or a folder of them")
    parser.add_argument("theirs", help="the same, by the same names")
    options = parser.parse_args()

    counts = []
    for name, *paths in pairs(options.ours, options.theirs):
        ours, theirs = (images.read_labels(path).data for path in paths)
        if ours.shape != theirs.shape:
            raise UNetError(paths[0], f"its shape is {ours.shape}, the other's {theirs.shape}", "Give masks of the same images")
        counts.append((int(np.count_nonzero(ours != theirs)), ours.size))
        print(f"{name}: {counts[-1][0]:,} of {ours.size:,} voxels differ")
    differ, voxels = (sum(column) for column in zip(*counts, strict=True))
    print(json.dumps({"masks": len(counts), "differ": differ, "voxels": voxels}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"agreement.py: {error}") from None
