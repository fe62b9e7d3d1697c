"""Seconds that one iteration of nnU-Net takes on this machine: its own plan, network, loss and optimiser.

    python training/nnunet_iteration.py DATA

Needs `pip install nnunetv2`, and says so where it is missing. Plans for and preprocesses DATA in a temporary folder, as
nnU-Net does, and times its trainer's step on random voxels; an epoch of nnU-Net is 250 such iterations. Augmentation,
which nnU-Net leaves to other processes, is not counted. Prints one JSON line.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from napari_unet import UNetError, find_cases
from napari_unet.dataset import read_image, read_label
from napari_unet.suffixes import suffix

DATASET = 900


def link(data: str, root: str) -> None:
    """The data set in nnU-Net's raw layout, in folders that its own variables name."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(Path(root) / name)
    dataset = find_cases(data)
    folder = Path(root) / "raw" / f"Dataset{DATASET}_benchmark"
    ending = suffix(dataset.cases[0].images[0])
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    highest = 1
    for case in dataset.cases:
        for channel, path in enumerate(case.images):
            (folder / "imagesTr" / f"{case.name}_{channel:04d}{ending}").symlink_to(path.resolve())
        (folder / "labelsTr" / f"{case.name}{ending}").symlink_to(case.label.resolve())
        highest = max(highest, int(read_label(case, read_image(case)).data.max()))
    names = dataset.channels or tuple(f"channel {n}" for n in range(len(dataset.cases[0].images)))
    labels = {"background": 0} | {f"class {value}": value for value in range(1, highest + 1)}
    described = {"channel_names": {str(n): name for n, name in enumerate(names)}, "labels": labels,
                 "numTraining": len(dataset.cases), "file_ending": ending}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(described))


def timed(iterations: int, configuration: str) -> dict[str, object]:
    """nnU-Net plans, preprocesses and steps."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.run.run_training import get_trainer_from_args

    extract_fingerprints([DATASET], num_processes=1, show_progress_bar=False)
    plan_experiments([DATASET])
    preprocess([DATASET], configurations=[configuration], num_processes=[1], show_progress_bar=False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = get_trainer_from_args(str(DATASET), configuration, 0, device=device)
    trainer.initialize()
    plan, classes = trainer.configuration_manager, trainer.label_manager.num_segmentation_heads
    images = torch.randn(plan.batch_size, trainer.num_input_channels, *plan.patch_size)
    with torch.no_grad():
        scales = [scale.shape[2:] for scale in trainer.network(images[:1].to(device))]
    target = [torch.randint(classes, (plan.batch_size, 1, *shape)) for shape in scales]
    times = []
    for _ in range(iterations + 1):
        began = time.perf_counter()
        trainer.train_step({"data": images, "target": target})  # waits for its loss
        times.append(time.perf_counter() - began)
    return {"seconds": statistics.median(times[1:]), "patch": list(plan.patch_size), "batch": plan.batch_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--configuration", default="3d_fullres")
    options = parser.parse_args()
    if importlib.util.find_spec("nnunetv2") is None:
        raise SystemExit("nnunet_iteration.py: skipped, because nnunetv2 is not installed: pip install nnunetv2")
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(sys.stderr):
        link(options.data, root)
        found = timed(options.iterations, options.configuration)
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"nnunet_iteration.py: {error}") from None
