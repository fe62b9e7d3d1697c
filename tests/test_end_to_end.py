"""The whole way: what training sees is what a user's file gives, and a model finds structures in scans it never saw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from datasets import _one_thread, scan  # noqa: F401 - a fixture
from engine import model_spec, network_spec, random_network
from hostile import affine_for
from torch import Tensor, nn

from napari_unet import PlanChoices, Segmenter, TrainConfig, Volume, check, find_cases, images
from napari_unet.checks import facts_in, refuse
from napari_unet.cli import main
from napari_unet.evaluate import evaluate, summary
from napari_unet.learning import Learner
from napari_unet.phantoms import LABELS, write_dataset
from napari_unet.plan import plan
from napari_unet.preprocess import prepare, with_neighbours
from napari_unet.sampling import Example, Sampler
from napari_unet.schedule import Stage, in_steps
from napari_unet.spec import Channel, ModelSpec
from napari_unet.train import train

CHANNELS = {"zscore": Channel("x"), "clip": Channel("x", "clip", 10, 170, 95, 31)}
SPECS: dict[str, ModelSpec] = {
    "as it is": model_spec(network_spec(classes=3), patch=(18, 24, 20)),
    "turned": model_spec(network_spec(classes=3), orientation="LPI", patch=(20, 24, 18)),
    "resampled": model_spec(network_spec(classes=3), spacing=(1.5, 1.0, 0.75), patch=(12, 24, 26)),
    "slices": model_spec(network_spec(2, classes=3), patch=(1, 24, 20)),
    "slices and their neighbours": model_spec(network_spec(2, channels=5, classes=3), patch=(1, 24, 20), neighbours=2),
    "pictures": model_spec(network_spec(2, classes=3), orientation="SRA", patch=(1, 32, 48), pictures=True),
}
CONFIG = TrainConfig(augment=0, grow=False, batch=1)


def file_of(name: str, folder: Path) -> Path:
    """An image file for a spec of SPECS: tilted, its axes stored another way round, or a picture."""
    if name == "pictures":
        path = folder / "image.png"
        images.write(path, scan(4, (32, 48, 1))[0].with_data(scan(4, (32, 48, 1))[0].data.astype(np.uint8)))
    else:
        path = folder / "image.nii.gz"
        images.write(path, scan(4, (20, 18, 24), affine_for("LSP", (1.0, 1.0, 1.0), tilt=7))[0], labels=False)
    return path


def from_file(path: Path) -> Volume:
    return images.read(path)


def from_layer(path: Path) -> Volume:
    """Through napari, as a user's file goes."""
    layers = pytest.importorskip("napari_unet.viewer.layers")
    from napari.layers import Layer

    return layers.volume_of(Layer.create(*layers.to_layer(images.read(path))))


def seen_by(network: nn.Module, work: Callable[[], object]) -> list[Tensor]:
    """Every batch that enters a network's encoder, as (C, ...) samples."""
    seen: list[Tensor] = []
    hook = network.encoder.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0].detach().clone()))
    work()
    hook.remove()
    return seen


@pytest.mark.parametrize("way", [from_file, from_layer])
@pytest.mark.parametrize("scheme", CHANNELS)
@pytest.mark.parametrize("name", SPECS)
def test_training_sees_to_the_bit_what_segmenting_sees(name: str, scheme: str, way: Callable[[Path], Volume], tmp_path: Path) -> None:
    spec = replace(SPECS[name], channels=(CHANNELS[scheme],))
    image = images.read(file_of(name, tmp_path))
    prepared = prepare(image, spec).data
    assert prepared.shape[2:] == spec.patch[1:] and (spec.network.dims == 2 or prepared.shape[1] == spec.patch[0])

    mask = image.with_data((image.data > 140).astype(np.uint8))
    sampler = Sampler([Example.make(image, mask, spec)], spec, CONFIG)
    learner = Learner(spec, CONFIG, torch.device("cpu"), sampler)
    schedule = in_steps([Stage(spec.patch, 4, 1.0)], 30 if spec.network.dims == 2 else 1)
    trained = seen_by(learner.network, lambda: [learner.step(n, schedule) for n in range(schedule.steps)])

    segmenter = Segmenter(spec, random_network(spec.network), mirror=False)
    used = seen_by(segmenter.network, lambda: segmenter.segment(way(tmp_path / file_of(name, tmp_path).name)))

    slices = with_neighbours(prepared, slice(0, prepared.shape[1]), spec.neighbours)
    expected = slices.unbind(1) if spec.network.dims == 2 else [prepared]
    assert as_bytes(trained) == as_bytes(used) == as_bytes(expected)


def as_bytes(samples: Iterable[Tensor]) -> set[bytes]:
    return {sample.numpy().tobytes() for sample in samples}


@pytest.mark.parametrize("shape", [(19, 24, 18), (20, 23, 17), (19, 23, 17)])
def test_a_volume_a_voxel_smaller_than_the_patch_lies_alike_in_both(shape: tuple[int, ...]) -> None:
    spec = model_spec(network_spec(classes=3), orientation="RAS", patch=(20, 24, 18))
    image, mask = scan(1, shape)
    sampler = Sampler([Example.make(image, mask, spec)], spec, CONFIG)
    batch, _ = sampler.batch(0, 0, spec.patch, 1)
    segmenter = Segmenter(spec, random_network(spec.network))
    (window,) = seen_by(segmenter.network, lambda: segmenter.segment(image))
    assert torch.equal(window, batch[0])


def test_phantoms_never_seen_are_segmented(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", training=6, testing=2)
    dataset = find_cases(folder)
    reports = list(check(dataset))
    refuse(reports, str(folder))
    facts = facts_in(reports)
    choices = PlanChoices(spacing=(2, 2, 2), patch=(32, 32, 32), features=(8, 16, 32))
    spec, config, _ = plan(dataset, facts, choices, TrainConfig(steps=120, checks=1, grow=False, augment=0.3))
    seen = list(train(dataset.cases, spec, config, out=tmp_path / "run"))
    assert seen[-1].phase == "done"

    found = main(["predict", str(tmp_path / "run"), str(folder / "imagesTs"), "--out", str(tmp_path / "masks"), "--json"])
    scores = [score for case in evaluate(tmp_path / "masks", folder / "labelsTs") for score in case]
    table = summary(scores)
    assert found == 0 and table["mean"]["n"] == 2
    assert table["mean"]["dice"] > 0.6 and all(table[str(value)]["dice"] > 0.4 for value in LABELS)


def test_the_hippocampus_in_thirty_steps(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "hippocampus"
    names = sorted(path.name for path in (data / "hippocampus/imagesTr").glob("*.nii.gz"))[:14]
    for place, chosen in (("images", names[:12]), ("labels", names[:12]), ("new", names[12:])):
        (folder / place).mkdir(parents=True)
        for name in chosen:
            shutil.copy(data / "hippocampus" / ("labelsTr" if place == "labels" else "imagesTr") / name, folder / place)

    def call(*arguments: object) -> Any:
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    assert call("check", folder)["errors"] == 0
    told = call("train", folder, "--out", tmp_path / "run", "--steps", 30, "--features", "8,16,32,64", "--checks", 1, "--fold", 0)
    assert told["steps"] == 30 and told["cases_scored"] == 3 and told["dice"]["mean"] > 0.2
    assert len(call("predict", tmp_path / "run", folder / "new", "--out", tmp_path / "masks")["masks"]) == 2
    for name in names[12:]:
        image, mask = (nibabel.load(place / name) for place in (folder / "new", tmp_path / "masks"))
        assert mask.shape == image.shape and np.array_equal(mask.affine, image.affine)
        assert set(np.unique(mask.dataobj)) <= {0, 1, 2} and np.asarray(mask.dataobj).any()
