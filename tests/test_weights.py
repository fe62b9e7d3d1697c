"""What is saved is loaded: the tensors within half precision, the spec and the card exactly, the same bytes every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from engine import model_spec, network_spec, random_network
from safetensors import safe_open

from napari_unet import ensemble, weights
from napari_unet.card import Card
from napari_unet.errors import UNetError
from napari_unet.spec import ModelSpec

SPEC = model_spec(network_spec(classes=3), values=(2, 300), name="Hippocampus ☃")
CARD = Card(description='"quoted"\n', dice={"mean": 0.875}, cases_scored=5, independent=True)


def tensors_of(spec: ModelSpec = SPEC, seed: int = 0) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in random_network(spec.network, seed).state_dict().items()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    weights.save(tmp_path / "model.safetensors", SPEC, CARD, tensors_of())
    return tmp_path / "model.safetensors"


def test_the_round_trip(saved: Path) -> None:
    spec, tensors = weights.load(saved)
    assert spec == SPEC == weights.read_spec(saved) and weights.read_card(saved) == CARD
    original = tensors_of()
    assert tensors.keys() == original.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == np.float32 and tensor.flags.writeable
        np.testing.assert_array_equal(tensor, original[name].astype(np.float16).astype(np.float32))
        np.testing.assert_allclose(tensor, original[name], rtol=2**-11, atol=2**-25)
    assert saved.stat().st_size < 2 * sum(t.size for t in tensors.values()) + 8000, "two bytes per parameter"


def test_a_second_round_trip_changes_nothing(saved: Path, tmp_path: Path) -> None:
    weights.save(tmp_path / "again.safetensors", *weights_and_card(saved))
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def weights_and_card(path: Path) -> tuple[ModelSpec, Card, dict[str, np.ndarray]]:
    spec, tensors = weights.load(path)
    return spec, weights.read_card(path), tensors


def test_an_ensemble_is_one_file(tmp_path: Path) -> None:
    spec, members = replace(SPEC, members=3), [tensors_of(seed=seed) for seed in range(3)]
    path = tmp_path / "model.safetensors"
    weights.save(path, spec, CARD, weights.merge(members))
    found, tensors = weights.load(path)
    assert found == spec == weights.read_spec(path) and weights.load_tensors(path)[1]["format"] == "napari-unet 2"
    for one, two in zip(weights.divide(tensors, 3), members, strict=True):
        assert one.keys() == two.keys()
        for name, tensor in two.items():
            np.testing.assert_array_equal(one[name], tensor.astype(np.float16).astype(np.float32))
    assert weights.divide(weights.merge(members[:1]), 1) == members[:1] and weights.merge(members[:1]) == members[0]


def test_what_no_file_can_hold_is_said_before_it_is_trained() -> None:
    weights.check_room(SPEC, "--folds")
    network = network_spec(levels=8, features=(4,) * 8, encoder_convs=(16,) * 8, decoder_convs=(16,) * 7)
    large = model_spec(network_spec(features=(4096, 4096)))
    for spec in (replace(model_spec(network, patch=(256, 256, 256)), members=8), replace(large, members=2)):
        with pytest.raises(UNetError, match=r"^--folds: \d members need [\d,]+ tensors and [\d,]+ bytes\. At most 4,000 and"):
            weights.check_room(spec, "--folds")


def test_saving_is_deterministic(saved: Path, tmp_path: Path) -> None:
    """In this process and in others, whose hashes of names differ, whatever the order of the tensors."""
    backwards = dict(reversed(tensors_of().items()))
    weights.save(tmp_path / "again.safetensors", SPEC, CARD, backwards)
    code = (
        "import sys; from napari_unet.weights import load_tensors, save_tensors;"
        "tensors, metadata = load_tensors(sys.argv[1]); metadata.pop('sha256');"
        "save_tensors(sys.argv[2], tensors, dict(sorted(metadata.items())))"
    )
    other = tmp_path / "other.safetensors"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, saved, other], check=True, env=environment)
    assert saved.read_bytes() == (tmp_path / "again.safetensors").read_bytes() == other.read_bytes()


def test_what_half_precision_cannot_hold_stays_single(tmp_path: Path) -> None:
    tensors = tensors_of()
    large = tensors["encoder.stages.0.0.convs.0.conv.weight"]
    large[0, 0, 0, 0, :2] = 1e5, np.pi
    weights.save(tmp_path / "model.safetensors", SPEC, CARD, tensors)
    _, loaded = weights.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded["encoder.stages.0.0.convs.0.conv.weight"], large)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    assert [name for name, kind in kinds.items() if kind != "F16"] == ["encoder.stages.0.0.convs.0.conv.weight"]


def test_the_file_is_what_the_safetensors_library_reads(saved: Path) -> None:
    theirs, (_, ours) = safetensors.numpy.load_file(saved), weights.load(saved)
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(tensor, ours[name].astype(np.float16), strict=True)
    with safe_open(saved, "np") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"format", "spec", "card", "sha256"} and metadata["format"] == "napari-unet 1"
    assert json.loads(metadata["spec"])["name"] == "Hippocampus ☃"
    assert int.from_bytes(saved.read_bytes()[:8], "little") % 8 == 0, "tensors begin at a multiple of 8 bytes"


def test_mixed_types_and_odd_shapes_survive(tmp_path: Path) -> None:
    """As a checkpoint has them: any float32 or float16, empty, scalar, not contiguous."""
    tensors = {
        "half": np.float16([1, 2, 3]), "single": np.float32([[np.pi]]), "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32), "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    }  # fmt: skip
    weights.save_tensors(tmp_path / "a", tensors, {"step": "12", "note": "ü"})
    loaded, metadata = weights.load_tensors(tmp_path / "a")
    assert metadata["step"] == "12" and metadata["note"] == "ü" and loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor, strict=True)


def test_a_header_is_read_without_torch(saved: Path) -> None:
    code = (
        "import sys; from napari_unet.weights import find, read_card, read_spec; path = find(sys.argv[1]);"
        "print(read_spec(path).name, read_card(path).dice['mean']);"
        "print(sorted({'torch', 'monai', 'napari', 'scipy', 'safetensors'} & sys.modules.keys()))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code, saved], check=True, capture_output=True, encoding="utf-8", env=environment)
    assert done.stdout.splitlines() == ["Hippocampus ☃ 0.875", "[]"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_could_not_be_loaded_do_not_replace_those_that_can(value: float, saved: Path) -> None:
    before, tensors = saved.read_bytes(), tensors_of()
    tensors["encoder.stages.1.0.convs.0.norm.bias"][3] = value
    with pytest.raises(UNetError, match=r"model\.safetensors: the tensor encoder.+norm\.bias holds NaN or infinite values\. The training"):
        weights.save(saved, SPEC, CARD, tensors)
    assert saved.read_bytes() == before and [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        ({"a": np.zeros(3)}, {}, r"'a' is described as .*float64"),
        ({"a": np.zeros(3, np.int32)}, {}, r"'a' is described as .*int32"),
        ({"a/b": np.zeros(3, np.float32)}, {}, r"'a/b' is described"),
        ({"a" * 129: np.zeros(3, np.float32)}, {}, r"'a{80}' is described"),
        ({f"t{n}": np.zeros(1, np.float32) for n in range(4001)}, {}, r"4,001 tensors, more than 4,000"),
        ({}, {"card": "x" * (1 << 20)}, r"header of 1,048,\d+\. At most"),
    ],
    ids=["float64", "integers", "a path", "a long name", "too many", "a long card"],
)
def test_nothing_is_written_that_would_be_refused(tensors: dict, metadata: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(UNetError, match=words):
        weights.save_tensors(tmp_path / "a", tensors, metadata)
    assert not list(tmp_path.iterdir())


def test_models_are_found_by_path_folder_and_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.find(saved) == weights.find(str(saved)) == weights.find(saved.parent) == saved
    for name, path in weights.shipped().items():
        assert weights.find(name) == path and weights.read_spec(path)
    (saved.parent / "models").mkdir()
    shipped = saved.rename(saved.parent / "models" / "brain.safetensors")
    monkeypatch.setattr(weights, "__file__", str(saved.parent / "weights.py"))
    assert weights.shipped() == {"brain": shipped} and weights.find("brain") == shipped
    with pytest.raises(UNetError, match=r"^brains: there is no such weights file\. Give .+, or the folder.+, or brain\.$"):
        weights.find("brains")


@pytest.mark.parametrize(
    ("files", "model", "words"),
    [
        (["plans.json", "fold_0/checkpoint_final.pth"], ".", "it is a trained model of nnU-Net: models of that program are not read"),
        (["plans.json", "fold_0/checkpoint_final.pth"], "fold_0", "it is a trained model of nnU-Net"),
        (["configs/metadata.json", "models/model.pt"], ".", "it is a bundle of MONAI: models of that program are not read"),
    ],
)
def test_models_of_other_programs_are_recognised(tmp_path: Path, files: list[str], model: str, words: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    for find in (weights.find, ensemble.files_of, ensemble.load):
        with pytest.raises(UNetError, match=f"{words}.*Train here on the same data: napari-unet train DATA"):
            find(tmp_path / model)


@pytest.mark.parametrize("name", ["", ".", "x" * 300, "a\0b", "nowhere/model.safetensors"])
def test_what_cannot_be_found_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UNetError, match=r"there is no such weights file\. Give a \.safetensors file"):
        weights.find(name)
