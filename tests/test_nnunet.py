"""Models that nnU-Net trained are converted, and answer as they do in nnU-Net."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask.array
import nnunet_folder as nnunet
import numpy as np
import pytest
import torch
from engine import model_spec, network_spec, volume
from hostile import ORIENTATIONS, affine_for
from PIL import Image
from scipy.ndimage import gaussian_filter

from napari_unet import Segmenter, UNetError, convert, ensemble, images, memory, weights
from napari_unet.cli import main
from napari_unet.finetune import refuse
from napari_unet.outline import Outline
from napari_unet.preprocess import prepare
from napari_unet.schema import decode, encode
from napari_unet.settings import PlanChoices
from napari_unet.spacing import spacing_warning
from napari_unet.spec import Channel, ModelSpec
from napari_unet.volume import Reorientation, Volume
from napari_unet.windows import Tiling

CASES = [f"hippocampus_{n}" for n in ("001", "075", "146", "210", "274", "337")]


def scan(shape: tuple[int, int, int], channels: int = 1, margin: int = 0, affine: np.ndarray | None = None) -> Volume:
    """Smooth noise (i, j, k, c), 0 in a margin, in a hole, and in a notch at the box's corner."""
    random = np.random.default_rng(sum(shape) + channels)
    data = np.stack([gaussian_filter(random.normal(size=shape), 1.2) * 700 + 120 for _ in range(channels)], -1)
    inside = np.zeros(shape, bool)
    inside[tuple(slice(margin, n - 2 * margin) for n in shape)] = True
    if margin:
        inside[tuple(slice(n // 2 - 1, n // 2 + 1) for n in shape)] = False
        inside[tuple(slice(0, margin + 2) for _ in shape)] = False
    data = np.where(inside[..., None], data, 0).astype(np.float32)
    return Volume(data if channels > 1 else data[..., 0], np.eye(4) if affine is None else affine)


def as_itk(image: Volume) -> np.ndarray:
    """(c, k, j, i)."""
    return np.transpose(image.data if image.data.ndim == 4 else image.data[..., None])


def spaced(*spacing: float) -> np.ndarray:
    return affine_for("LAS", spacing)


# ---- nnU-Net's own answers --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["3d_fullres", "2d", "3d_resampled"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of a model that nnU-Net trained, with what it answers, and our file of it."""
    folder = Path(os.environ.get("NAPARI_UNET_DATA", "/nowhere")).parent / "interop/nnunet" / request.param
    if not folder.is_dir():
        pytest.skip("nnU-Net's own models and answers are not beside the public data sets (NAPARI_UNET_DATA)")
    out = tmp_path_factory.mktemp("real") / "model.safetensors"
    convert(folder / "model", out)
    return folder, out


@pytest.mark.parametrize("mirror", [True, False])
def test_real_models_answer_as_in_nnunet(real: tuple[Path, Path], data: Path, mirror: bool) -> None:
    """nnU-Net adds logits up in half precision, so that single voxels between two classes may be the other one's."""
    folder, file = real
    segmenter = Segmenter.load(file, mirror=mirror)
    for case in CASES if not mirror or segmenter.spec.network.dims == 2 else CASES[:2]:
        found = segmenter.segment(images.read(data / "hippocampus/imagesTr" / f"{case}.nii.gz")).data
        expected = images.read(folder / ("expected" if mirror else "expected_notta") / f"{case}.nii.gz").data
        assert np.count_nonzero(found != expected) <= 2e-4 * found.size
        for value in (1, 2):
            both = np.count_nonzero((found == value) & (expected == value))
            assert 2 * both >= 0.999 * (np.count_nonzero(found == value) + np.count_nonzero(expected == value))


# ---- what nnU-Net does, step by step ----------------------------------------------------------------------------------

Z, CT, MINMAX, NONE, RGB = (
    f"{name}Normalization" for name in ("ZScore", "CT", "RescaleTo01", "No", "RGBTo01")
)  # fmt: skip
WAYS: dict[str, tuple[dict[str, Any], Volume]] = {
    "as it is": ({}, scan((20, 18, 13))),
    "smaller than the patch": ({"patch": (16, 32, 24)}, scan((20, 18, 13), margin=2)),
    "cropped, masked, coarse slices in both": (
        {"spacing": (3.0, 1.0, 1.0), "schemes": (Z, CT), "masks": (True, False)}, scan((26, 24, 12), 2, 2, spaced(0.8, 0.9, 4.0)),
    ),
    "turned, coarse slices": ({"spacing": (2.5, 0.8, 1.0), "transpose": (2, 0, 1)}, scan((10, 24, 21), 1, 1, spaced(4.0, 0.8, 0.9))),
    "coarse in the model alone": ({"spacing": (4.0, 1.0, 1.0), "masks": (True,)}, scan((22, 20, 24), 1, 2, spaced(1.1, 1.2, 1.3))),
    "coarse in the image alone": ({"schemes": (MINMAX, NONE), "masks": (False, False)}, scan((22, 30, 8), 2, 0, spaced(1.1, 0.7, 4.0))),
    "two coarse axes": ({}, scan((12, 11, 30), 1, 1, spaced(2.2, 2.2, 0.6))),
    "before nnU-Net 2.3": ({"old": True}, scan((20, 18, 13), 1, 0, spaced(1.2, 1.0, 1.1))),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_step_is_nnunets(tmp_path: Path, way: str, dims: int) -> None:
    """In 3-D with two folds, in 2-D mirrored."""
    settings, image = WAYS[way]
    settings = {k: v[3 - dims :] if k in ("patch", "spacing") else v for k, v in settings.items()}
    spec = nnunet.network(dims, image.channels)
    if settings.pop("old", False):
        settings |= nnunet.old_architecture(spec) | {"architecture": None}
    told = nnunet.plans(spec, **{"patch": (8, 16, 16)[3 - dims :], "spacing": (1.0, 1.0, 1.0)[3 - dims :]} | settings)
    nets, mirror = nnunet.nets(spec, 4 - dims), (0, 1) if dims == 2 else None
    convert(nnunet.write(tmp_path / "model", told, nets, mirror), tmp_path / "m.safetensors")
    found = Segmenter.load(tmp_path / "m.safetensors", runtime="torch").segment(image)
    expected = nnunet.answer(told, nets, as_itk(image), image.spacing[::-1], mirror or ())
    assert len(np.unique(expected)) == 3, "a mask of one class shows nothing"
    assert np.count_nonzero(np.transpose(found.data) != expected) <= 1e-3 * expected.size
    assert found.shape == image.shape and np.array_equal(found.affine, image.affine)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_residual_encoders_answer_as_nnunets_do(tmp_path: Path, dims: int, old: bool) -> None:
    """Of two folds, mirrored in 2-D; beside what their tensors say without our network."""
    spec, image, mirror = nnunet.residual(dims), scan((20, 18, 13), 1, 2, spaced(1.2, 1.0, 1.1)), (0, 1) if dims == 2 else None
    if old:  # plans before nnU-Net 2.3 told features by a rule
        spec = replace(spec, features=(4, 8, 8, 8))
    changes = nnunet.old_architecture(spec) | {"architecture": None, "unet_max_num_features": 8} if old else {}
    told, nets = nnunet.plans(spec, (8, 16, 16)[3 - dims :], (1.0,) * dims, **changes), nnunet.nets(spec, 2)
    found, _ = convert(nnunet.write(tmp_path / "model", told, nets, mirror), tmp_path / "m.safetensors")
    assert found.network == spec and found.later and weights.load_tensors(tmp_path / "m.safetensors")[1]["format"] == "napari-unet 3"
    by_hand = [nnunet.ByHand(spec, net.state_dict()) for net in nets]
    expected = nnunet.answer(told, by_hand, as_itk(image), image.spacing[::-1], mirror or ())
    assert len(np.unique(expected)) == 3, "a mask of one class shows nothing"
    for runtime in ("torch", *(("openvino",) if find_spec("openvino") else ())):
        mask = Segmenter.load(tmp_path / "m.safetensors", runtime=runtime, device="cpu").segment(image)
        assert np.count_nonzero(np.transpose(mask.data) != expected) <= 1e-3 * expected.size


def test_info_shows_a_residual_encoders_walk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = nnunet.residual()
    convert(nnunet.write(tmp_path / "model", nnunet.plans(spec), nnunet.nets(spec)), tmp_path / "m.safetensors")
    assert main(["info", str(tmp_path / "m.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "through the 3-D U-Net with a residual encoder:" in shown
    walk = [" ".join(line.split()) for line in shown.splitlines()]
    for level in ("input 8 x 16 x 16 1", "encoder 1 8 x 16 x 16 4", "encoder 2 8 x 16 x 16 6", "encoder 3 8 x 8 x 8 8",
                  "bottleneck 4 x 4 x 4 8", "logits 8 x 16 x 16 3"):  # fmt: skip
        assert level in walk
    with pytest.raises(UNetError, match="which training here does not"):
        refuse(model_spec(network_spec(encoder="residual")), 1, False, PlanChoices())


def test_regions_are_decided_in_their_order(tmp_path: Path) -> None:
    spec, image = nnunet.network(classes=3), scan((20, 18, 13), 1, 2)
    told, nets, labels = nnunet.plans(spec), nnunet.nets(spec, 2), {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rest": 3}
    nnunet.write(tmp_path / "model", told, nets, labels=labels, regions_class_order=[2, 1, 3])
    convert(tmp_path / "model", tmp_path / "m.safetensors")
    segmenter = Segmenter.load(tmp_path / "m.safetensors", runtime="torch", uncertainty=True)
    assert [(label.value, label.name) for label in segmenter.spec.labels] == [(2, "whole"), (1, "core"), (3, "rest")]
    found, doubt = segmenter.assess(image)
    expected = nnunet.answer(told, nets, as_itk(image), image.spacing[::-1], regions=(2, 1, 3))
    assert np.count_nonzero(np.transpose(found.data) != expected) <= 1e-3 * expected.size and len(np.unique(expected)) == 4
    assert set(np.unique(doubt.data)) == {0, 0.5, 1}
    alone = Segmenter(replace(segmenter.spec, members=1), segmenter.network, uncertainty=True).assess(image)[1]
    assert alone.data.min() >= 0 and 0.5 < alone.data.max() <= 1


def test_pictures_are_read_as_nnunet_reads_them(tmp_path: Path) -> None:
    """In colour, at their own pixels; rows and columns as they are stored."""
    colours = np.random.default_rng(1).integers(1, 256, (40, 27, 3)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    spec = nnunet.network(2, 3)
    told = nnunet.plans(spec, (16, 16), (1.0, 1.0), ["RGBTo01Normalization", "ZScoreNormalization", "NoNormalization"])
    told["image_reader_writer"], nets = "NaturalImage2DIO", nnunet.nets(spec)
    convert(nnunet.write(tmp_path / "model", told, nets, (0, 1)), tmp_path / "m.safetensors")
    segmenter = Segmenter.load(tmp_path / "m.safetensors", runtime="torch")
    found = segmenter.segment(images.read(tmp_path / "a.png")).data
    expected = nnunet.answer(told, nets, np.moveaxis(colours, -1, 0)[:, None], (999, 1, 1), (0, 1))
    assert segmenter.spec.pictures and np.count_nonzero(found[..., 0] != expected[0]) <= 2 and len(np.unique(expected)) == 3


@pytest.mark.parametrize("spacing", [1.0, 1.2])
def test_what_lies_elsewhere_is_read_no_more_often_than_needed(tiny: Path, spacing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statistics need all of it once, and resampling takes the same look; its box, where it is nowhere 0, two slices."""
    monkeypatch.setattr("napari_unet.nonzero.SLAB", 24 * 26)
    convert(tiny, tiny / "m.safetensors")
    image, read = scan((24, 26, 20), affine=spaced(spacing, spacing, spacing)), []
    lazy = dask.array.from_array(image.data, chunks=(24, 26, 1)).map_blocks(lambda block: read.append(block.size) or block, dtype="f4")
    spec = weights.read_spec(tiny / "m.safetensors")
    found, expected = prepare(Volume(lazy, image.affine), spec), prepare(image, spec)
    assert sum(read) <= image.data.size * (1 + 2 / 20) + 2  # dask tries its function on a voxel
    np.testing.assert_array_equal(found.data, expected.data)


# ---- laws -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with two folds."""
    spec = nnunet.network()
    return nnunet.write(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", nnunet.plans(spec), nnunet.nets(spec, 2), (0, 2))


@pytest.mark.parametrize("count", [None, 1, 3, 8])
@pytest.mark.parametrize("first", [(0, 0), (2, 3), (1, 25), (0, 9), None])
def test_each_voxel_comes_once_around_the_box_too(tiny: Path, first: tuple[int, int] | None, count: int | None) -> None:
    convert(tiny, tiny / "m.safetensors", folds=["0"])
    segmenter = Segmenter.load(tiny / "m.safetensors", runtime="torch", mirror=False, uncertainty=True)
    image = scan((24, 26, 20), 1, 4)
    whole, doubt = segmenter.assess(image)
    seen, pieces = np.zeros(image.shape, int), list(segmenter.stream(image, first, count))
    for piece in pieces:
        seen[piece.region] += 1
        np.testing.assert_array_equal(piece.labels, whole.data[piece.region])
        np.testing.assert_allclose(piece.uncertainty, doubt.data[piece.region], atol=1e-5)
    assert [piece.done for piece in pieces] == list(range(1, len(pieces) + 1)) and {piece.total for piece in pieces} == {len(pieces)}
    assert seen.max() == 1 and (seen.all() if count is None else len(pieces) == min(count, image.shape[(first or (2,))[0]]))
    if first is not None:
        axis, index = first
        assert pieces[0].region[axis] == slice(index, index + 1)
        assert {piece.region[axis].start for piece in pieces} == set(sorted(range(image.shape[axis]), key=lambda n: abs(n - index))[:count])
    outside = as_itk(image)[0].T == 0
    outside[4:-8, 4:-8, 4:-8] = False
    assert not whole.data[outside].any() and not doubt.data[outside].any()


def test_a_stopped_stream_ends(tiny: Path) -> None:
    convert(tiny, tiny / "m.safetensors")
    segmenter = Segmenter.load(tiny / "m.safetensors", runtime="torch")
    pieces = list(segmenter.stream(scan((24, 26, 20), 1, 4), (2, 0), stopped=lambda: True))
    assert len(pieces) <= 4 and not any(piece.labels.any() for piece in pieces), "beyond the box there is nothing to compute"


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_the_files_own_axes_are_what_it_sees(tiny: Path, orientation: str) -> None:
    """As in nnU-Net the labels of an array are the same, wherever its axes point."""
    convert(tiny, tiny / "m.safetensors")
    segmenter, image = Segmenter.load(tiny / "m.safetensors", runtime="torch", mirror=False), scan((18, 20, 12))
    turned = replace(image, affine=affine_for(orientation, (1.0, 1.0, 1.0)))
    np.testing.assert_array_equal(segmenter.segment(turned).data, segmenter.segment(image).data)


def test_a_spacing_far_from_the_models_is_told_by_the_files_axes(tiny: Path) -> None:
    spec, _ = convert(tiny, tiny / "m.safetensors")
    assert "the file's second axis 6 mm instead of 1 mm" in spacing_warning(spaced(1.0, 6.0, 1.0), spec)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::9])
def test_images_that_were_turned_before_are_turned_here_too(tiny: Path, orientation: str) -> None:
    """The mask lies where it lies for the same image in RAS."""
    spec, _ = convert(tiny, tiny / "m.safetensors", canonical=True)
    assert spec.orientation == "SAR"
    segmenter, image = Segmenter.load(tiny / "m.safetensors", runtime="torch", mirror=False), scan((18, 20, 12))
    turn = Reorientation.between(image.affine, orientation)
    turned = replace(image, data=turn.apply(image.data), affine=turn.affine(image.affine, image.shape))
    np.testing.assert_array_equal(turn.undo(segmenter.segment(turned).data), segmenter.segment(image).data)


def test_an_image_of_nothing_is_refused(tiny: Path) -> None:
    convert(tiny, tiny / "m.safetensors")
    with pytest.raises(UNetError, match="every voxel of channel 0 has the value 0"):
        Segmenter.load(tiny / "m.safetensors").segment(Volume(np.zeros((9, 9, 9)), np.eye(4)))


def test_windows_are_the_patch_and_count_most_where_nnunets_do(tiny: Path) -> None:
    spec, _ = convert(tiny, tiny / "m.safetensors")
    tiling = Tiling.cover((110, 17, 16), (64, 16, 16), (2, 4, 4), spec.whole, 0.5)
    assert tiling.window == (64, 16, 16) and tiling.starts == ([0, 23, 46], [0, 1], [0])
    point = np.zeros(64)
    point[32] = 1
    profile = gaussian_filter(point, 8, mode="constant")
    sums = sum(np.pad(profile, (start, 46 - start)) for start in (0, 23, 46))
    np.testing.assert_allclose(tiling.shares[0], [profile / sums[s : s + 64] for s in (0, 23, 46)], atol=1e-6)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_what_is_done_with_any_model_is_done_with_this_one(tiny: Path, tmp_path: Path, runtime: str) -> None:
    spec, card = convert(tiny, tmp_path / "m.safetensors")
    assert spec.members == 2 and "folds 0 and 1" in card.description and card.scored_by == "unknown" and not card.dice
    image = scan((22, 20, 18), 1, 2, spaced(1.0, 1.2, 0.9))
    segmenter = Segmenter.load(tmp_path / "m.safetensors", runtime=runtime, device="cpu")
    mask, _ = segmenter.assess(image)
    images.write(tmp_path / "image.nii.gz", image, labels=False)
    assert main(["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "image.nii.gz"), "--out", str(tmp_path / "out"),
                 "--runtime", runtime, "--device", "cpu"]) == 0  # fmt: skip
    np.testing.assert_array_equal(images.read(tmp_path / "out/image.nii.gz").data, mask.data)
    assert memory.estimate(Outline(image.shape, 1, image.data.dtype, image.affine), spec).segmenting > 4 * image.data.size


def test_weights_are_those_of_the_checkpoint(tiny: Path) -> None:
    convert(tiny, tiny / "m.safetensors")
    _, members = ensemble.load(tiny / "m.safetensors")
    for found, net in zip(members, nnunet.nets(nnunet.network(), 2), strict=True):
        for name, tensor in net.state_dict().items():
            np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)
    assert weights.load_tensors(tiny / "m.safetensors")[1]["format"] == "napari-unet 3"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_wrapped_networks(tmp_path: Path, prefix: str) -> None:
    spec = nnunet.network()
    convert(nnunet.write(tmp_path, nnunet.plans(spec), nnunet.nets(spec), None, prefix), tmp_path / "m.safetensors")


def test_axes_folds_and_scores_are_taken_over(tiny: Path, tmp_path: Path) -> None:
    for n, dice in enumerate(((0.5, float("nan")), (0.75, 0.25))):
        (tiny / f"fold_{n}/validation").mkdir()
        cases = [{"metrics": {str(v): {"Dice": d} for v, d in enumerate(dice, 1)}}]
        (tiny / f"fold_{n}/validation/summary.json").write_text(json.dumps({"metric_per_case": cases}))
    spec, card = convert(tiny, tmp_path / "both.safetensors")
    assert spec.mirror_axes == (0, 2) and spec.mirror_tta and spec.orientation == "kji" and spec.crop
    assert card.dice == {"class 1": 0.625, "class 2": 0.25, "mean": 0.4375} and card.cases_scored == 2
    assert card.worth == "2 cases, each by the one model of several that never saw it" and "nnU-Net" in card.note
    spec, card = convert(tiny / "fold_1", tmp_path / "one.safetensors", folds=["1"])
    assert spec.members == 1 and card.dice["mean"] == 0.5 and card.worth == "1 case kept out of training"
    (tiny / "fold_0/checkpoint_final.pth").rename(tiny / "fold_0/checkpoint_best.pth")
    assert "checkpoint_best.pth" in convert(tiny, tmp_path / "best.safetensors")[1].description


def test_the_command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / tiny.name)
    with pytest.raises(UNetError, match=r"a trained model of nnU-Net.+Convert it: napari-unet convert "):
        weights.find(tiny)
    assert main(["convert", str(tiny), "--folds", "0,1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["members"] == 2 and Path(told["model"]).name == f"{tiny.name}.safetensors"
    assert main(["convert", str(tiny)]) == 2 and "it exists already" in capsys.readouterr().err
    assert main(["convert", str(tiny), "--overwrite", "--configuration", "3d_fullres"]) == 0
    assert main(["info", told["model"]]) == 0
    shown = capsys.readouterr().out
    assert "axes kji of the file, as stored" in shown and "0 cases" not in shown and "left no scores" in shown


def test_models_without_what_came_later_are_written_as_ever() -> None:
    spec = model_spec()
    assert not spec.later and not {"crop", "resampling", "windows", "regions"} & json.loads(encode(spec)).keys()
    assert "encoder" not in json.loads(encode(spec))["network"]
    for change in ({"crop": True}, {"resampling": "cubic"}, {"windows": "patch"}, {"orientation": "kji"},
                   {"channels": (Channel("a", "masked"),)}, {"network": network_spec(encoder="residual")}):  # fmt: skip
        other = replace(spec, **change)
        assert other.later and decode(ModelSpec, encode(other), "m") == other
    for path in weights.shipped().values():
        assert not weights.read_spec(path).later


def test_it_is_not_learnt_on_from() -> None:
    with pytest.raises(UNetError, match="as nnU-Net does, which training here does not"):
        refuse(model_spec(crop=True), 1, False, PlanChoices())


def test_an_image_that_is_resampled_as_a_whole_has_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_unet.ram.free_memory", lambda: 20_000)
    with pytest.raises(UNetError, match="of memory, 0 MB are free"):
        prepare(volume((9, 8, 7)), model_spec(resampling="cubic", spacing=(1.0, 1.0, 1.0)))


# ---- what is refused --------------------------------------------------------------------------------------------------


def changed(told: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Plans whose only configuration has other fields."""
    ((name, configuration),) = told["configurations"].items()
    return told | {"configurations": {name: configuration | changes}}


def built(told: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Plans whose network is given something else."""
    (configuration,) = told["configurations"].values()
    given = configuration["architecture"] | {"arch_kwargs": configuration["architecture"]["arch_kwargs"] | changes}
    return changed(told, architecture=given)


def resenc(told: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Plans whose network is a residual one, given something else."""
    return built(changed(told, architecture=nnunet.architecture(nnunet.residual())), **changes)


OTHER = {"network_class_name": "dynamic_network_architectures.architectures.unet.ResidualUNet", "arch_kwargs": {}}
BLOCKS = "dynamic_network_architectures.building_blocks.residual"
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "residual decoder": (lambda told: changed(told, architecture=OTHER), "its network is ResidualUNet: of nnU-Net's, only"),
    "bottlenecks": (lambda told: resenc(told, block=f"{BLOCKS}.BottleneckD"), f"the network's block is '{BLOCKS}.BottleneckD'"),
    "their features": (lambda told: resenc(told, bottleneck_channels=[4] * 4), r"the network's bottleneck_channels is '\[4, 4"),
    "another stem": (lambda told: resenc(told, stem_channels=7), "the network's stem_channels is '7'"),
    "squeeze and excitation": (lambda told: resenc(told, squeeze_excitation=True), "the network's squeeze_excitation is 'True'"),
    "a residual one's norm": (lambda told: resenc(told, norm_op="torch.nn.BatchNorm3d"), "norm_op is 'torch.nn.BatchNorm3d'"),
    "a residual one's dropout": (lambda told: resenc(told, dropout_op="torch.nn.Dropout3d"), "dropout_op is 'torch.nn.Dropout3d'"),
    "blocks of nothing": (lambda told: resenc(told, n_blocks_per_stage=None), "n_blocks_per_stage"),
    "convolutions for blocks": (lambda told: resenc(told, n_conv_per_stage=2), "unknown key 'n_conv_per_stage'"),
    "a plain network's weights": (resenc, "the tensor encoder.stem.+ has shape None, the network of the plans needs"),
    "a class to import": (lambda told: changed(told, architecture=OTHER | {"network_class_name": "os.system"}), "its network is system"),
    "cascade": (lambda told: changed(told, previous_stage="3d_lowres"), "the second stage of a cascade, after 3d_lowres"),
    "preprocessor": (lambda told: changed(told, preprocessor_name="Mine"), "preprocessor_name is Mine"),
    "normalization": (lambda told: changed(told, normalization_schemes=["MyNormalization"]), "is MyNormalization, known are"),
    "resampling": (lambda told: changed(told, resampling_fn_data="resample_torch_fornnunet"), "resampling_fn_data is resample_torch"),
    "its order": (lambda told: changed(told, resampling_fn_data_kwargs={"order": 1}), "resampling_fn_data_kwargs is {'order': 1}"),
    "label manager": (lambda told: told | {"label_manager": "Mine"}, "label_manager is Mine"),
    "reader": (lambda told: told | {"image_reader_writer": "Tiff3DIO"}, "image_reader_writer is Tiff3DIO"),
    "pictures in 3-D": (lambda told: changed(told, spacing=[1, 2, 1]) | {"image_reader_writer": "NaturalImage2DIO"}, "of pictures"),
    "clipped to nothing": (
        lambda told: changed(told, normalization_schemes=["CTNormalization"])
        | {"foreground_intensity_properties_per_channel": {"0": nnunet.FACTS | {"percentile_99_5": -50.0}}}, "it is clipped to -40..-50",
    ),
    "transpose": (lambda told: told | {"transpose_forward": [0, 0, 2]}, r"transpose_forward is \[0, 0, 2\]"),
    "norm": (lambda told: built(told, norm_op="torch.nn.modules.batchnorm.BatchNorm3d"), "norm_op is 'torch.nn.modules.batchnorm"),
    "dropout": (lambda told: built(told, dropout_op="torch.nn.Dropout3d"), "dropout_op is 'torch.nn.Dropout3d'"),
    "activation": (lambda told: built(told, nonlin="torch.nn.GELU"), "nonlin is 'torch.nn.GELU'"),
    "a part that is unknown": (lambda told: built(told, squeeze=True), "unknown key 'squeeze'"),
    "no levels": (lambda told: built(told, strides=[]), "the network's conv_op is"),
    "features": (lambda told: built(told, features_per_stage=[1e9, 1, 1]), "features_per_stage.0 is 1000000000.0"),
    "patch": (lambda told: changed(told, patch_size=[7, 16, 16]), r"plans.json: Dataset001_Tiny 3d_fullres: patch is \(7, 16, 16\)"),
    "a flat patch": (lambda told: changed(told, patch_size=[16, 16]), r"patch_size is \(16, 16\)"),
    "spacing": (lambda told: changed(told, spacing=[0, 1, 1]), r"spacing.0 is 0"),
    "no configuration": (lambda told: told | {"configurations": {}}, "there is no configuration '3d_fullres'"),
    "a circle": (lambda told: changed(told, inherits_from="3d_fullres"), "inherits from itself"),
    "a list": (lambda told: [told], "Plans is"),
    "no JSON": (lambda told: "plans", "Plans is 'plans'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_nnunet_plans_otherwise_is_refused_by_name(tiny: Path, name: str) -> None:
    change, words = REFUSED[name]
    (tiny / "plans.json").write_text(json.dumps(change(nnunet.plans(nnunet.network()))))
    with pytest.raises(UNetError, match=words):
        convert(tiny, tiny / "m.safetensors")
    assert not (tiny / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"labels": {"background": 0, "a": [1, 2], "b": 2, "c": 3}}, "regions_class_order None"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2, "c": 3}, "regions_class_order": [1, 2, 2]}, r"regions_class_order \(1, 2, 2\)"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2, "c": 3}, "regions_class_order": [1, 2, 0]}, r"regions_class_order \(1, 2, 0\)"),
        ({"labels": {"background": 0, "a": 1, "b": 3}}, "labels is"),
        ({"labels": {"background": 0, "a": True, "b": 2}}, "labels.a"),
        ({"labels": {"background": 0, "a": 1}}, r"seg_layers.+ has shape \(3, .+needs \(2, "),
        ({"channel_names": {"0": "a", "1": "b"}}, "1 normalization_schemes and 1 use_mask_for_norm for 2 channels"),
    ],
)
def test_labels_and_channels_that_do_not_fit(tiny: Path, dataset: dict[str, Any], words: str) -> None:
    spec = nnunet.network()
    nnunet.write(tiny, nnunet.plans(spec), nnunet.nets(spec), **dataset)
    with pytest.raises(UNetError, match=words):
        convert(tiny, tiny / "m.safetensors")


def test_an_unlabelled_value_is_no_class(tiny: Path) -> None:
    spec = nnunet.network()
    labels = {"background": 0, "b": 2, "a": [1], "ignore": 3}
    nnunet.write(tiny, nnunet.plans(spec), nnunet.nets(spec), labels=labels)
    assert [label.name for label in convert(tiny, tiny / "m.safetensors")[0].labels] == ["a", "b"]


@pytest.mark.parametrize(
    ("folds", "words"), [(["7"], "fold_7: it holds no checkpoint_final.pth"), (["../x"], "it holds no"), (["0"] * 40, "40 members")]
)
def test_folds_that_are_not_there(tiny: Path, folds: list[str], words: str) -> None:
    with pytest.raises(UNetError, match=words):
        convert(tiny, tiny / "m.safetensors", folds=folds)


def test_a_checkpoint_that_is_deeper_than_python_follows(tiny: Path) -> None:
    """Such as nothing writes, but a file may hold."""
    levels = 50_000
    pickled = b"\x80\x02}X\x0f\x00\x00\x00network_weights}sX\x0c\x00\x00\x00trainer_name" + b"]" * levels + b"a" * (levels - 1) + b"s."
    with zipfile.ZipFile(tiny / "fold_0/checkpoint_final.pth", "w") as file:
        file.writestr("a/data.pkl", pickled)
    with pytest.raises(UNetError, match=r"its trainer_name is \[\[\["):
        convert(tiny, tiny / "m.safetensors")


def test_axes_that_a_slice_has_not(tmp_path: Path) -> None:
    spec = nnunet.network(2)
    nnunet.write(tmp_path, nnunet.plans(spec, (16, 16), (1.0, 1.0)), nnunet.nets(spec), (0, 2))
    with pytest.raises(UNetError, match=r"mirrors axes \(0, 2\) of a 2-D patch"):
        convert(tmp_path, tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network_weights": None}, "its network_weights is None"),
        ({"network_weights": {"a": torch.zeros(3)}}, "the tensor encoder.+ has shape None, the network of the plans needs"),
        ({"inference_allowed_mirroring_axes": (0, 7)}, r"inference_allowed_mirroring_axes is \(0, 7\)"),
        ({"trainer_name": 3}, "its trainer_name is 3"),
    ],
)
def test_checkpoints_that_are_none(tiny: Path, change: dict[str, Any], words: str) -> None:
    saved = nnunet.checkpoint(nnunet.nets(nnunet.network())[0], None) | change
    torch.save(saved, tiny / "fold_1/checkpoint_final.pth")
    with pytest.raises(UNetError, match=words):
        convert(tiny, tiny / "m.safetensors")
    assert not (tiny / "m.safetensors").exists()


def test_weights_that_are_no_numbers(tiny: Path) -> None:
    net = nnunet.nets(nnunet.network())[0]
    net.decoder.seg_layers[-1].bias.data[0] = float("nan")
    torch.save(nnunet.checkpoint(net, None), tiny / "fold_0/checkpoint_final.pth")
    with pytest.raises(UNetError, match="holds NaN or infinite values"):
        convert(tiny, tiny / "m.safetensors")
    assert not (tiny / "m.safetensors").exists()


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_files_that_are_missing_or_cut(tiny: Path, name: str) -> None:
    text = (tiny / name).read_text()
    (tiny / name).write_text(text[:-5])
    with pytest.raises(UNetError, match=f"{name}: not valid JSON"):
        convert(tiny, tiny / "m.safetensors")
    (tiny / name).unlink()
    with pytest.raises(UNetError, match=f"it holds no {name}. Give the folder that holds plans.json"):
        convert(tiny, tiny / "m.safetensors")
