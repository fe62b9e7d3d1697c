"""From the request to the labels of one slice of a volume, with the libraries warm, as in a viewer.

    OMP_NUM_THREADS=2 python training/benchmark_slice.py MODEL

MODEL is a 2-D one. Each time another slice of one volume of 512x512 slices is asked for; everything that depends on the
volume is done again each time. Prints the median and the slowest as one JSON line, of each runtime there is.
"""

import argparse
import json
import statistics
import time
from importlib.util import find_spec

from napari_unet import Segmenter, UNetError, phantoms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--size", type=int, default=512, help="of a slice")
    parser.add_argument("--slices", type=int, default=100, help="of the volume")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    volume, found = phantoms.tiled((options.size, options.size, options.slices)), {}
    for runtime in ["torch"] + ["openvino"] * bool(find_spec("openvino")):
        segmenter, times = Segmenter.load(options.model, "cpu", runtime), []
        for n in range(options.repeats + 1):
            began = time.perf_counter()
            list(segmenter.stream(volume, (2, 7 * n % options.slices), count=1))
            times.append(time.perf_counter() - began)
        found[runtime] = {"seconds": statistics.median(times[1:]), "slowest": max(times[1:])}  # the first warms up
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"benchmark_slice.py: {error}") from None
