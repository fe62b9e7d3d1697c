"""The command line as a whole, from the start of the process to its end: seconds on the clock and of the processor.

    OMP_NUM_THREADS=2 python training/benchmark_command.py --model hippocampus --shape 256,256,150

`napari-unet predict` of a phantom repeated to that shape, at the model's own spacing, from one .nii.gz to another; where
nnunetv2 is installed, nnU-Net's command with the same weights (see nnunet_model.py), in turns; `--help` and `info`. Medians,
as one JSON line.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from napari_unet import UNetError, images, phantoms, weights
from napari_unet.files import make_folder

OURS = (sys.executable, "-m", "napari_unet")
SCAN = "scan_0000.nii.gz"
THEIRS = shutil.which("nnUNetv2_predict_from_modelfolder", path=str(Path(sys.executable).parent))


def timed(*command: object) -> tuple[float, float]:
    """Seconds on the clock and of the processor that a command took."""
    clock, before = time.perf_counter(), os.times()
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UNetError(" ".join(map(str, command)), done.stderr.strip().splitlines()[-1], "See above")
    after = os.times()
    return time.perf_counter() - clock, after.children_user + after.children_system - before.children_user - before.children_system


def prepare(model: str, shape: tuple[int, int, int], folder: Path) -> None:
    """A scan and, where nnU-Net is installed, the model as it keeps its own."""
    spec = weights.read_spec(weights.find(model))
    spacing = {letter: mm or 1.0 for letter, mm in zip(spec.orientation, spec.spacing, strict=True)}
    (folder / "scans").mkdir()
    images.write(folder / "scans" / SCAN, phantoms.tiled(shape, "RAS", tuple(spacing[letter] for letter in "RAS")), labels=False)
    if THEIRS:
        timed(sys.executable, Path(__file__).with_name("nnunet_model.py"), model, folder / "model")


def predictions(model: str, folder: Path, out: Path) -> dict[str, tuple[object, ...]]:
    """The commands that segment the scan, each into a folder of its name."""
    scans = folder / "scans"
    found: dict[str, tuple[object, ...]] = {"predict": (*OURS, "predict", model, scans / SCAN, "--out", out / "predict" / "scan.nii.gz")}
    if THEIRS:
        found["nnU-Net"] = (THEIRS, "-i", scans, "-o", out / "nnU-Net", "-m", folder / "model", "-f", "0", "-device", "cpu",
                            "-npp", "1", "-nps", "1")  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hippocampus")
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(256, 256, 150))
    parser.add_argument("--repeats", type=int, default=5, help="of --help and info")
    parser.add_argument("--predictions", type=int, default=1, help="by each command")
    options = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {}
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(options.model, options.shape, folder)
        for n in range(options.predictions):
            out = make_folder(folder / str(n))
            for who, command in predictions(options.model, folder, out).items():
                times.setdefault(who, []).append(timed(*command))
        masks = [images.read_labels(out / who / "scan.nii.gz").data for who in times]
        found |= {"equal": float(np.mean(masks[0] == masks[1]))} if THEIRS else {}
    for who, arguments in {"help": ("--help",), "info": ("info", options.model)}.items():
        times[who] = [timed(*OURS, *arguments) for _ in range(options.repeats)]
    for who, each in times.items():
        found[who] = dict(zip(("seconds", "cpu_seconds"), map(statistics.median, zip(*each, strict=True)), strict=True))
    print(json.dumps({"model": options.model, "shape": options.shape, **found}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"benchmark_command.py: {error}") from None
