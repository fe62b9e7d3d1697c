"""Memory that segmenting takes over its input, for a volume of so many 512x512 slices; over time, as a picture.

    python training/benchmark_memory.py MODEL --slices 1000 --picture docs/images/memory.png

The resident memory of this process is looked at a hundred times a second while MODEL streams a volume of noise. Counted is
what it rises above the moment before, when libraries, network and volume are there. Labels are not kept: that is the
caller's business. Prints one JSON line.
"""

import argparse
import json
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from napari_unet import Segmenter, UNetError
from napari_unet.volume import Volume


def noise(shape: tuple[int, int, int]) -> Volume:
    """A volume as large as itself, even while it is made."""
    random, data = np.random.default_rng(0), np.empty(shape, np.int16, order="F")
    for n in range(shape[2]):
        data[..., n] = random.integers(0, 1000, shape[:2])
    return Volume(data, np.eye(4), source="noise")


def watched(segmenter: Segmenter, volume: Volume) -> list[tuple[float, int]]:
    """Seconds, and bytes over those at the start, all the while that a volume is segmented."""
    process, done, curve = psutil.Process(), threading.Event(), []
    before, began = process.memory_info().rss, time.monotonic()

    def watch() -> None:
        while not done.wait(0.01):
            curve.append((time.monotonic() - began, process.memory_info().rss - before))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in segmenter.stream(volume):
            pass
    finally:
        done.set()
        watcher.join()
    return curve


def draw(curve: list[tuple[float, int]], slices: int, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([seconds for seconds, _ in curve], [over / 1e6 for _, over in curve], lw=1)
    axes.set(xlabel=f"seconds, {slices} slices of 512x512", ylabel="MB over the input", xlim=0, ylim=0)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, default=512, help="of a slice")
    parser.add_argument("--picture", type=Path, help="where to draw memory over time")
    options = parser.parse_args()
    curve = watched(Segmenter.load(options.model), noise((options.size, options.size, options.slices)))
    if options.picture:
        draw(curve, options.slices, options.picture)
    peak, seconds = max(over for _, over in curve), curve[-1][0]
    print(json.dumps({"slices": options.slices, "peak_mb": peak / 1e6, "seconds": seconds}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"benchmark_memory.py: {error}") from None
