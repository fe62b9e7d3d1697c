"""ONNX Runtime gives torch's logits from an exported file, which says what it wants to see."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import model_spec, network_spec, random_network, volume

from napari_unet import preprocess, schema, weights
from napari_unet.card import Card
from napari_unet.cli import main
from napari_unet.errors import UNetError
from napari_unet.spec import ModelSpec
from napari_unet.torch_runtime import build, forward

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

KINDS: dict[str, dict[str, Any]] = {
    "instance": {}, "group": {"norm": "group"}, "batch": {"norm": "batch"}, "none": {"norm": "none", "bias": False},
    "max-pooling": {"down": "maxpool", "activation": "relu"}, "interpolated": {"up": "interpolate"}, "no skips": {"skips": False},
    "channels": {"channels": 3, "classes": 5}, "deep": {"levels": 3},
    "residual": {"encoder": "residual", "levels": 3, "features": (4, 8, 8), "encoder_convs": (1, 2, 1)},
}  # fmt: skip


def exported(path: Path, spec: ModelSpec) -> Callable[..., Any]:
    """The model's random members written, exported and loaded: a function of a batch."""
    members = [random_network(spec.network, seed).state_dict() for seed in range(spec.members)]
    tensors = weights.merge([{name: tensor.numpy() for name, tensor in member.items()} for member in members])
    weights.save(path / "tiny.safetensors", spec, Card(description="a test"), tensors)
    assert main(["export", str(path / "tiny.safetensors"), "--format", "onnx", "--out", str(path / "tiny.onnx")]) == 0
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path / "tiny.onnx", options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(["logits"], {"image": batch.numpy()})[0])


def networks(path: Path, spec: ModelSpec) -> list[torch.nn.Module]:
    """The members as torch has them, from the same file."""
    _, tensors = weights.load(path / "tiny.safetensors")
    return [build(spec.network, member, torch.device("cpu")) for member in weights.divide(tensors, spec.members)]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_gives_the_same_logits(tmp_path: Path, kind: str, dims: int) -> None:
    """In batches and windows of any size."""
    spec = model_spec(network_spec(dims, **KINDS[kind]))
    run, (network,) = exported(tmp_path, spec), networks(tmp_path, spec)
    for shape in ((1, 8, 12, 16), (3, 16, 8, 8)):
        batch = torch.randn(shape[0], spec.network.channels, *shape[-dims:])
        with torch.inference_mode():
            torch.testing.assert_close(run(batch), network(batch), atol=1e-4, rtol=1e-4)


def test_unequal_strides_and_kernels_give_the_same_logits(tmp_path: Path) -> None:
    network = network_spec(kernels=((1, 3, 3), (3, 3, 5)), strides=((1, 1, 1), (1, 2, 2)), up="interpolate")
    spec = model_spec(network)
    run, (reference,) = exported(tmp_path, spec), networks(tmp_path, spec)
    batch = torch.randn(2, 1, 5, 8, 12)
    with torch.inference_mode():
        torch.testing.assert_close(run(batch), reference(batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["2-D", "2.5-D", "3-D"])
def test_what_the_network_sees_of_a_volume_gives_the_same_logits(tmp_path: Path, kind: str) -> None:
    neighbours = int(kind == "2.5-D")
    spec = model_spec(network_spec(3 if kind == "3-D" else 2, channels=2 * neighbours + 1, classes=3), neighbours=neighbours)
    run, (network,) = exported(tmp_path, spec), networks(tmp_path, spec)
    data = preprocess.prepare(volume((16, 16, 16)), spec).data
    seen = preprocess.with_neighbours(data, slice(0, data.shape[1]), spec.neighbours)
    if spec.network.dims == 3:
        expected, found = forward(network, seen[None])[0], run(seen[None])[0]
    else:
        slices = seen.transpose(0, 1).contiguous()
        expected, found = forward(network, slices[:, :, None])[:, :, 0], run(slices)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found.argmax(-spec.network.dims - 1) == expected.argmax(-spec.network.dims - 1)).float().mean() >= 0.999


def test_an_ensembles_logits_are_the_mean_of_its_members(tmp_path: Path) -> None:
    spec = replace(model_spec(), members=3)
    run, members = exported(tmp_path, spec), networks(tmp_path, spec)
    batch = torch.randn(2, 1, 8, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(run(batch), torch.stack([each(batch) for each in members]).mean(0), atol=1e-4, rtol=1e-4)


def test_a_file_says_what_it_wants_to_see(tmp_path: Path) -> None:
    spec = model_spec(network_spec(2, channels=3, classes=4), neighbours=1)
    exported(tmp_path, spec)
    model = onnx.load(tmp_path / "tiny.onnx")
    onnx.checker.check_model(model, full_check=True)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert schema.decode(ModelSpec, said["spec"], "tiny.onnx") == spec
    assert schema.decode(Card, said["card"], "tiny.onnx").description == "a test"
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (*model.graph.input, *model.graph.output)]
    assert shapes == [["batch", 3, "y", "x"], ["batch", 4, "y", "x"]] and model.producer_name == "napari-unet"


def test_the_command_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "phantoms", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"model": "phantoms.onnx", "format": "onnx"} and Path("phantoms.onnx").stat().st_size > 1_000_000
    Path("phantoms.onnx").write_bytes(b"mine")
    assert main(["export", "phantoms"]) == 2 and Path("phantoms.onnx").read_bytes() == b"mine"
    assert "phantoms.onnx: it exists already. Use --overwrite" in capsys.readouterr().err
    assert main(["export", "phantoms", "--out", "phantoms.pt"]) == 2
    assert "phantoms.pt: the ending '.pt'. Give a file that ends in .onnx." in capsys.readouterr().err
    assert main(["export", "phantoms", "--out", "a/new/one.onnx"]) == 0 and Path("a/new/one.onnx").exists()
    assert main(["export", "phantoms", "--overwrite"]) == 0 and Path("phantoms.onnx").stat().st_size > 1_000_000


def test_a_folders_name_is_not_cut_at_its_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("exp-0.5", "exp-0.6.safetensors"):
        (tmp_path / name).mkdir()
        shutil.copy(weights.find("phantoms"), tmp_path / name / "model.safetensors")
        assert main(["export", name]) == 0
    assert {path.name for path in tmp_path.glob("*.onnx")} == {"exp-0.5.onnx", "exp-0.6.onnx"}


def test_without_onnx_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_unet.onnx_export import export_onnx

    spec = model_spec()
    tensors = {name: tensor.numpy() for name, tensor in random_network(spec.network).state_dict().items()}
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UNetError, match=r'^onnx: it is not installed\. Run pip install "napari-unet-monai\[onnx\]"\.$'):
        export_onnx(tmp_path / "m.onnx", spec, Card(), [tensors])
    assert not list(tmp_path.iterdir())
