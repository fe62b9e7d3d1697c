"""A calibrated model computes in 8-bit integers: nearly the same logits, masks as good, and refused where they are not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine import model_spec, network_spec, random_network

from napari_unet import Segmenter, find_cases, phantoms, runtime, weights
from napari_unet.calibrate import WATCHED, calibrate, watch
from napari_unet.calibration import Calibration, Ranges
from napari_unet.cli import main
from napari_unet.errors import UNetError
from napari_unet.images import read, read_labels, write
from napari_unet.network import UNet
from napari_unet.weights import shipped

pytest.importorskip("napari_unet.quiet_openvino")
KINDS: dict[str, dict[str, Any]] = {
    "instance": {}, "group": {"norm": "group"}, "batch": {"norm": "batch"}, "none": {"norm": "none", "bias": False},
    "max-pooling": {"down": "maxpool", "activation": "relu"}, "interpolated": {"up": "interpolate"}, "no skips": {"skips": False},
    "three levels": {"levels": 3}, "residual": {"encoder": "residual", "encoder_convs": (1, 2)},
}  # fmt: skip


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms that the shipped model never saw, with their labels."""
    folder = tmp_path_factory.mktemp("phantoms")
    for n in range(2):
        for part, volume in zip(("images", "labels"), phantoms.make(4_000_000 + n), strict=True):
            (folder / part).mkdir(exist_ok=True)
            write(folder / part / f"head{n}.nii.gz", volume, labels=part == "labels")
    return folder


@pytest.fixture(scope="module")
def calibrated(labelled: Path) -> Path:
    """The shipped phantoms model, calibrated by the command."""
    out = labelled.parent / "in a new folder" / "phantoms-int8.safetensors"
    if not out.exists():
        assert main(["calibrate", "phantoms", str(labelled), "--out", str(out)]) == 0
    return out


def seen_by(networks: Sequence[UNet], windows: Sequence[torch.Tensor]) -> Ranges:
    """The ranges that these windows give."""
    with watch(networks) as seen, torch.inference_mode():
        for window in windows:
            for network in networks:
                network(window[None] if network.spec.dims == 3 else window[None, :, 0])
    return tuple(tuple(member.values()) for member in seen)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_gives_nearly_the_same_logits(kind: str, dims: int) -> None:
    """So each convolution has its own range: with another's, logits would differ by more than they vary."""
    levels = KINDS[kind].get("levels", 2)
    spec = network_spec(dims, **{"features": tuple(8 * 2**n for n in range(levels))} | KINDS[kind])
    networks = [random_network(spec, seed) for seed in range(2)]
    windows = [torch.randn(1, *((16, 8, 16) if dims == 3 else (1, 16, 32))) for _ in range(3)]
    ranges = seen_by(networks, windows)
    assert len(ranges) == 2 and len({len(member) for member in ranges}) == 1
    exact = list(runtime.start_runtime(networks, (), "torch").each(windows))
    rounded = list(runtime.start_runtime(networks, (), "openvino", ranges).each(windows))
    error = torch.stack(exact) - torch.stack(rounded)
    assert 1e-4 < error.abs().mean() < 0.1 * torch.stack(exact).std(), "integers, but hardly another answer"


def test_the_shipped_model_in_int8(calibrated: Path) -> None:
    """The same model in its file, with what int8 needs beside it; its masks of a phantom never seen are as good."""
    plain = shipped()["phantoms"]
    spec, tensors = weights.load(calibrated)
    assert spec == weights.read_spec(plain) and weights.read_card(calibrated) == weights.read_card(plain)
    assert all(np.array_equal(tensors[name], value) for name, value in weights.load(plain)[1].items())
    found = weights.read_calibration(calibrated)
    assert found is not None and found.cases == 2 and abs(found.dice - found.dice_float32) < 0.005
    assert weights.read_calibration(plain) is None
    image, _ = phantoms.make(4_100_000)
    exact, rounded = (Segmenter.load(calibrated, "cpu", precision=name).segment(image).data for name in ("float32", "int8"))
    assert (exact != rounded).mean() < 0.005
    assert np.array_equal(exact, Segmenter.load("phantoms", "cpu", "openvino").segment(image).data), "it still is what it was"


def test_threads_and_windows_at_once_do_not_change_an_int8_mask(calibrated: Path) -> None:
    image, _ = phantoms.make(4_100_001)
    tested = Segmenter.load(calibrated, precision="int8", mirror=True)
    few = tested.with_windows(tested.spec.patch, 1)
    assert np.array_equal(tested.segment(image).data, few.segment(image).data)


def test_a_model_that_loses_is_refused_and_nothing_written(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_unet.calibrate.WORST", -1.0)  # as if only a Dice that is higher by one would do
    out = tmp_path / "a.safetensors"
    with pytest.raises(UNetError, match="in int8 Dice .* falls by more than"):
        list(calibrate("phantoms", find_cases(labelled).cases, out))
    assert not list(tmp_path.iterdir())


def test_cases_without_what_the_model_finds_prove_nothing(labelled: Path, tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    image = read(labelled / "images/head0.nii.gz")
    write(tmp_path / "data/images/a.nii.gz", image, labels=False)
    write(tmp_path / "data/labels/a.nii.gz", image.with_data(np.full(image.shape, 9, np.uint8)))
    with pytest.raises(UNetError, match="it finds nothing that is labelled in 1 case"):
        list(calibrate("phantoms", find_cases(tmp_path / "data").cases, tmp_path / "a.safetensors"))
    assert not (tmp_path / "a.safetensors").exists()


def test_it_can_be_left_at_any_step(labelled: Path, tmp_path: Path) -> None:
    for steps in (1, 2, 3):
        with closing(calibrate("phantoms", find_cases(labelled).cases, tmp_path / "a.safetensors")) as work:
            told = [next(work) for _ in range(steps)]
        assert [step.done for step in told] == list(range(steps)) and {step.total for step in told} == {4}
    assert not list(tmp_path.iterdir()) and WATCHED > 2


def test_refusals_say_what_to_do(calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(UNetError, match="not calibrated for int8.*napari-unet calibrate"):
        Segmenter.load("phantoms", precision="int8")
    with pytest.raises(UNetError, match="there is no 'int4'"):
        Segmenter.load(calibrated, precision="int4")
    with pytest.raises(UNetError, match="int8 with torch"):
        Segmenter.load(calibrated, runtime="torch", precision="int8")
    with pytest.raises(UNetError, match="no labelled case"):
        list(calibrate("phantoms", (), tmp_path / "a.safetensors"))
    network = random_network(network_spec())
    for count in (3, 99):
        with pytest.raises(UNetError, match=f"calibrated for {count} convolutions"):
            runtime.start_runtime([network], (), "openvino", (((-1.0, 1.0),) * count,))
    with pytest.raises(UNetError, match="2 members, not for 1"):
        runtime.start_runtime([network], (), "openvino", (((-1.0, 1.0),),) * 2)
    spec = model_spec()
    with pytest.raises(UNetError, match="range from 1 to 2"):
        weights.save(tmp_path / "b.safetensors", spec, weights.read_card(calibrated), {}, Calibration((((1.0, 2.0),),), 1, 1, 1))


def test_a_folders_name_is_not_cut_at_its_dot(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exp-0.5-int8.safetensors").write_bytes(b"mine")
    assert main(["calibrate", "exp-0.5", str(labelled)]) == 2
    assert "exp-0.5-int8.safetensors: it exists already" in capsys.readouterr().err


def test_the_commands(calibrated: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "phantoms", str(labelled), "--out", str(calibrated)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["info", str(calibrated)]) == 0
    assert "int8     Dice 0." in capsys.readouterr().out
    images = str(labelled / "images")
    assert main(["predict", str(calibrated), images, "--out", str(tmp_path / "masks"), "--precision", "int8"]) == 0
    assert json.loads((tmp_path / "masks/predict.json").read_text())["precision"] == "int8"
    assert main(["predict", str(calibrated), images, "--out", str(tmp_path / "masks"), "--resume"]) == 2
    assert "precision int8, not float32" in capsys.readouterr().err
    expected = Segmenter.load(calibrated, precision="int8").segment(read(labelled / "images/head0.nii.gz"))
    assert np.array_equal(read_labels(tmp_path / "masks/head0.nii.gz").data, expected.data)
