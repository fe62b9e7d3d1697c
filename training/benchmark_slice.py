"""From the request to the labels of one slice of a volume, with the libraries warm, as in a viewer.

    OMP_NUM_THREADS=2 python training/benchmark_slice.py MODEL

MODEL is a 2-D one. Each time another slice of one volume of 512x512 slices is asked for; everything that depends on the
volume is done again each time. With OpenVINO, too, where the slice is the first of all and the next ones are begun meanwhile
("among others"). In turns; prints the median and the slowest of each way as one JSON line.
"""

import argparse
import json
import statistics
import time
from contextlib import closing
from importlib.util import find_spec

from napari_unet import Segmenter, UNetError, phantoms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--size", type=int, default=512, help="of a slice")
    parser.add_argument("--slices", type=int, default=100, help="of the volume")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    volume = phantoms.tiled((options.size, options.size, options.slices))
    ways: dict[str, tuple[Segmenter, int | None]] = {"torch": (Segmenter.load(options.model, "cpu", "torch"), 1)}
    if find_spec("openvino"):
        segmenter = Segmenter.load(options.model, "cpu", "openvino")
        ways |= {"openvino": (segmenter, 1), "openvino, among others": (segmenter, None)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(options.repeats + 1):
        for name, (segmenter, count) in ways.items():
            began = time.perf_counter()
            with closing(segmenter.stream(volume, (2, 7 * n % options.slices), count)) as pieces:
                next(pieces)
                times[name].append(time.perf_counter() - began)
    print(json.dumps({name: {"seconds": statistics.median(each[1:]), "slowest": max(each[1:])} for name, each in times.items()}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"benchmark_slice.py: {error}") from None
