"""MONAI's stock recipe, as in its spleen tutorial, with a budget: what `training/benchmark.py train` compares with.

    python training/monai_recipe.py DATA --out RUN --minutes 8

Trains on all cases but the first of the five folds that the seed draws, until the minutes are over (reading and caching
included), then segments that fold; writes masks and prints one JSON line. For volumes of one channel, labels 0, 1, ..., K.
"""

import argparse
import json
import time
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
from monai import transforms as mt
from monai.data import CacheDataset, DataLoader
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.utils import set_determinism

from napari_unet import UNetError, find_cases, read, write
from napari_unet.dataset import Case, read_label
from napari_unet.evaluate import Score, score_case, summary
from napari_unet.experiment import fold_out, grouped
from napari_unet.files import make_folder

BOTH = ["image", "label"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def files(case: Case) -> dict[str, str]:
    return {"image": str(case.images[0]), "label": str(case.label)}


def reading(spacing: tuple[float, ...]) -> list[mt.Transform]:
    """What training and inference share; the cache keeps what comes out."""
    return [mt.LoadImaged(BOTH), mt.EnsureChannelFirstd(BOTH), mt.Orientationd(BOTH, "RAS", labels=None),
            mt.Spacingd(BOTH, spacing, mode=("bilinear", "nearest")), mt.NormalizeIntensityd("image", nonzero=True)]  # fmt: skip


def drawing(patch: list[int]) -> list[mt.Transform]:
    flips = [mt.RandFlipd(BOTH, prob=0.1, spatial_axis=axis) for axis in range(3)]
    crop = mt.RandCropByPosNegLabeld(BOTH, "label", patch, pos=1, neg=1, num_samples=4)
    return [mt.SpatialPadd(BOTH, patch), crop, *flips, mt.RandShiftIntensityd("image", 0.1, prob=0.5)]


def train(network: torch.nn.Module, batches: DataLoader, deadline: float) -> tuple[int, int]:
    """Learn until the deadline; steps and samples."""
    loss, optimiser = DiceLoss(to_onehot_y=True, softmax=True), torch.optim.Adam(network.parameters(), 1e-3)
    steps = samples = 0
    for batch in chain.from_iterable(repeat(batches)):
        if steps and time.time() > deadline:
            return steps, samples
        optimiser.zero_grad()
        loss(network(batch["image"].to(DEVICE)), batch["label"].to(DEVICE)).backward()
        optimiser.step()
        steps, samples = steps + 1, samples + len(batch["image"])


def segment(network: torch.nn.Module, case: Case, transforms: mt.Compose, patch: list[int], out: Path) -> list[Score]:
    """A mask on the image's own grid, written and scored as ours are."""
    image, sample = read(case.images[0]), transforms(files(case))
    with torch.inference_mode():
        sample["pred"] = sliding_window_inference(sample["image"][None].to(DEVICE), patch, 4, network)[0].cpu()
    logits = mt.Invertd("pred", transforms, orig_keys="image", nearest_interp=False)(sample)["pred"]
    mask = image.with_data(np.asarray(logits.argmax(0)).astype(np.uint8))
    write(out / f"{case.name}.nii.gz", mask)
    return score_case(case.name, mask, read_label(case, image), range(1, len(logits)))


def main() -> None:
    started = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    training, unseen = fold_out(grouped(find_cases(options.data)), options.seed)
    set_determinism(options.seed)
    images = [read(case.images[0]) for case in training]
    labels = max(int(read_label(case, image).data.max()) for case, image in zip(training, images, strict=True))
    shared = reading(tuple(np.median([image.spacing for image in images], axis=0)))
    patch = [min(max(16, int(n) // 16 * 16), 96) for n in np.median([image.shape for image in images], axis=0)]  # at most the tutorial's
    cached = CacheDataset([files(case) for case in training], mt.Compose([*shared, *drawing(patch)]), progress=False)
    network = UNet(3, 1, labels + 1, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2, norm="batch").to(DEVICE)
    steps, samples = train(network, DataLoader(cached, batch_size=2, shuffle=True), started + 60 * options.minutes)
    minutes, network, masks = (time.time() - started) / 60, network.eval(), make_folder(Path(options.out) / "masks")
    found = summary([score for case in unseen for score in segment(network, case, mt.Compose(shared), patch, masks)])
    print(json.dumps({"steps": steps, "samples": samples, "minutes": minutes, "trained": len(training), "dice": found}))


if __name__ == "__main__":
    try:
        main()
    except UNetError as error:
        raise SystemExit(f"monai_recipe.py: {error}") from None
