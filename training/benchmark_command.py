"""The command line as a whole, from the start of the process to its end: seconds on the clock and of the processor.

    OMP_NUM_THREADS=2 python training/benchmark_command.py --model hippocampus --shape 256,256,150

`napari-unet predict` of a phantom repeated to that shape, at the model's own spacing, from one .nii.gz to another; `--help` and
`info`. Medians, as one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from napari_unet import UNetError, nifti, phantoms, weights


def timed(*arguments: object) -> tuple[float, float]:
    """Seconds on the clock and of the processor that a command took."""
    clock, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, "-m", "napari_unet", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UNetError("napari-unet " + str(arguments[0]), done.stderr.strip().splitlines()[-1], "See above")
    after = os.times()
    return time.perf_counter() - clock, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hippocampus")
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(256, 256, 150))
    parser.add_argument("--repeats", type=int, default=5, help="of --help and info; predict is run once")
    options = parser.parse_args()
    spec, found = weights.read_spec(weights.find(options.model)), {}
    with tempfile.TemporaryDirectory() as folder:
        scan, mask = Path(folder) / "scan.nii.gz", Path(folder) / "mask.nii.gz"
        nifti.write(scan, phantoms.tiled(options.shape, spec.orientation, tuple(mm or 1.0 for mm in spec.spacing)), labels=False)
        commands = {"predict": ("predict", options.model, scan, "--out", mask), "help": ("--help",), "info": ("info", options.model)}
        for name, command in commands.items():
            times = [timed(*command) for _ in range(1 if name == "predict" else options.repeats)]
            found[name] = dict(zip(("seconds", "cpu_seconds"), map(statistics.median, zip(*times, strict=True)), strict=True))
    print(json.dumps({"model": options.model, "shape": options.shape, **found}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"benchmark_command.py: {error}") from None
