"""Memory that segmenting takes over its input, for a volume of so many 512x512 slices; over time, as a picture.

    python training/benchmark_memory.py MODEL --slices 1000 --picture docs/images/memory.png

The resident memory of this process is looked at a hundred times a second while MODEL segments a volume of noise, as `predict` does,
into a mask that is written as .nii.gz (`--held`: the whole mask in memory first). Counted is what it rises above the moment before,
when libraries, network and volume are there. Prints one JSON line.
"""

import argparse
import json
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil

from napari_unet import Segmenter, UNetError
from napari_unet.canvas import Canvas, Held, canvas_for
from napari_unet.components import Cleaning
from napari_unet.dataset import Case
from napari_unet.targets import Job
from napari_unet.volume import Volume


def noise(shape: tuple[int, int, int]) -> Volume:
    """A volume as large as itself, even while it is made."""
    random, data = np.random.default_rng(0), np.empty(shape, np.int16, order="F")
    for n in range(shape[2]):
        data[..., n] = random.integers(0, 1000, shape[:2])
    return Volume(data, np.eye(4), source="noise")


def segment(segmenter: Segmenter, volume: Volume, mask: Canvas) -> None:
    """A volume onto a canvas, and that onto the disk."""
    with closing(mask):
        for piece in segmenter.stream(volume, mask.first):
            mask.add(piece)
        mask.finish()
        mask.write()


def watched(segmenter: Segmenter, volume: Volume, held: bool) -> list[tuple[float, int]]:
    """Seconds, and bytes over those at the start, all the while that a volume is segmented."""
    process, done, curve = psutil.Process(), threading.Event(), []
    before, began = process.memory_info().rss, time.monotonic()

    def watch() -> None:
        while not done.wait(0.01):
            curve.append((time.monotonic() - began, process.memory_info().rss - before))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(Case("noise", (Path(volume.source),)), Path(folder) / "mask.nii.gz")
            segment(segmenter, volume, (Held if held else canvas_for)(job, volume, segmenter, Cleaning()))
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
    parser.add_argument("--held", action="store_true", help="keep the whole mask in memory, as cleaning it would")
    options = parser.parse_args()
    curve = watched(Segmenter.load(options.model), noise((options.size, options.size, options.slices)), options.held)
    if options.picture:
        draw(curve, options.slices, options.picture)
    peak, seconds = max(over for _, over in curve), curve[-1][0]
    print(json.dumps({"slices": options.slices, "peak_mb": peak / 1e6, "seconds": seconds}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"benchmark_memory.py: {error}") from None
