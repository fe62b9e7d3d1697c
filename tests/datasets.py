"""Data sets made on the spot: small scans with a bright and a dark block to find, in every layout people have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import affine_for

from napari_unet import PlanChoices, TrainConfig, Volume, cases, checks, find_cases, images, pictures
from napari_unet.files import write_bytes
from napari_unet.plan import plan
from napari_unet.spec import ModelSpec
from napari_unet.suffixes import PICTURES, is_picture

SHAPE = (20, 24, 18)
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # for children: threads that wait for each other cost tiny networks more than all else
LABELS = {"background": 0, "bright": 1, "dark": 2}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """What ONE_THREAD is for children; a test module takes it by importing it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scan(seed: int = 0, shape: tuple[int, ...] = SHAPE, affine: np.ndarray | None = None) -> tuple[Volume, Volume]:
    """Noise (int16) with a bright block, label 1, and a dark one, label 2, at places of the seed's choosing."""
    random = np.random.default_rng(seed)
    image, label = random.normal(100, 10, shape), np.zeros(shape, np.uint8)
    for value, level in ((1, 180), (2, 20)):
        first = [int(random.integers(0, max(1, n // 2))) for n in shape]
        block = tuple(slice(f, f + max(1, n // 3)) for f, n in zip(first, shape, strict=True))
        image[block], label[block] = level + random.normal(0, 10, image[block].shape), value
    affine = affine_for("RAS", (1.0, 1.0, 1.0)) if affine is None else affine
    return Volume(image.astype(np.int16), affine, source=f"scan {seed}"), Volume(label, affine, source=f"label {seed}")


def write_pair(image_file: Path, label_file: Path, image: Volume, label: Volume) -> None:
    """A case on disk; a picture where the ending says so, its image as uint8 and its label as 0 and 255."""
    for file in (image_file, label_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    if is_picture(image_file):
        pictures.write(image_file, image.data.clip(0, 255).astype(np.uint8), "image")
        pictures.write(label_file, label.data * 255 if label.data.max() == 1 else label.data, "label")
    else:
        images.write(image_file, image, labels=False)
        images.write(label_file, label)


def describe(folder: Path, **description: Any) -> None:
    """Write dataset.json."""
    write_bytes(folder / "dataset.json", json.dumps(description).encode())


def decathlon(folder: Path, count: int = 4, **scans: Any) -> Path:
    """`count` cases a0, a1, ... as the Medical Segmentation Decathlon lays them out."""
    for n in range(count):
        write_pair(folder / f"imagesTr/a{n}.nii.gz", folder / f"labelsTr/a{n}.nii.gz", *scan(n, **scans))
    entries = [{"image": f"./imagesTr/a{n}.nii.gz", "label": f"./labelsTr/a{n}.nii.gz"} for n in range(count)]
    describe(folder, name="Blocks", licence="CC0", modality={"0": "MRI"}, training=entries,
             labels={str(value): name for name, value in LABELS.items()})  # fmt: skip
    return folder


def nnunet(folder: Path, count: int = 3, channels: int = 2, described: bool = True) -> Path:
    """nnU-Net's raw layout: a file per channel, names to values."""
    for n in range(count):
        for channel in range(channels):
            image, label = scan(n)
            image = image.with_data(image.data + channel)
            write_pair(folder / f"imagesTr/b{n}_{channel:04d}.nii.gz", folder / f"labelsTr/b{n}.nii.gz", image, label)
    if described:
        describe(folder, channel_names={str(c): f"T{c + 1}" for c in range(channels)}, labels=LABELS,
                 numTraining=count, file_ending=".nii.gz")  # fmt: skip
    return folder


def two_folders(folder: Path, count: int = 4, ending: str = ".nii.gz", classes: int = 2, **scans: Any) -> Path:
    """images/ and labels/ with equal names."""
    flat = {"shape": (64, 48, 1)} if ending in PICTURES else {}
    for n in range(count):
        image, label = scan(n, **flat | scans)
        label = label if classes == 2 else label.with_data((label.data == 1).astype(np.uint8))
        write_pair(folder / f"images/c{n}{ending}", folder / f"labels/c{n}{ending}", image, label)
    return folder


def planned(
    folder: Path, choices: PlanChoices | None = None, **config: Any
) -> tuple[tuple[cases.Case, ...], ModelSpec, TrainConfig]:
    """What `train` needs for a folder: its cases, a network of the smallest kind and so many steps on the processor, whose bits repeat."""
    dataset = find_cases(folder)
    facts = checks.facts_in(checks.check(dataset))
    flat = facts[0].picture
    choices = choices or PlanChoices(features=(4, 8), patch=(1, 32, 32) if flat else (12, 16, 16))
    spec, config, _ = plan(dataset, facts, choices, TrainConfig(**{"steps": 6, "checks": 1, "device": "cpu"} | config))
    return dataset.cases, spec, config
