"""Segmenting: each voxel once, the asked slice first, no seams, the mask where the anatomy is, and never a false empty one."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine import (
    SPACING,
    model_spec,
    network_spec,
    random_network,
    seen_as,
    segmenter,
    threshold_spec,
    thresholder,
    volume,
)
from hostile import ORIENTATIONS, affine_for
from PIL import Image

from napari_unet import images, preprocess, ram, torch_runtime, weights
from napari_unet.card import Card
from napari_unet.errors import UNetError
from napari_unet.memory import of_window
from napari_unet.preprocess import prepare
from napari_unet.segment import Segmenter, _cut, most_likely, uncertainty_of
from napari_unet.spec import Channel
from napari_unet.suffixes import suffix
from napari_unet.torch_runtime import TorchRuntime
from napari_unet.volume import Volume, check_same_grid
from napari_unet.windows import Tiling

RESAMPLED = (2.0, 1.0, 1.25)
THREE_D = network_spec(classes=3)
TWO_D = network_spec(dims=2, classes=3)
MODELS = {
    "3-D": model_spec(THREE_D, overlap=0.25),
    "3-D resampled": model_spec(THREE_D, spacing=RESAMPLED),
    "3-D upsampled": model_spec(THREE_D, spacing=(1.1, 0.9, 0.6), patch=(8, 16, 16)),
    "3-D coarse": model_spec(THREE_D, spacing=(4.5, 2.0, 2.0), orientation="RPI"),
    "2-D": model_spec(TWO_D, spacing=(0.0, 1.0, 1.0)),
    "2-D coronal": model_spec(TWO_D, orientation="ASR"),
    "overlapping": model_spec(THREE_D, overlap=0.7),
    "mirrored": model_spec(THREE_D, mirror_axes=(0, 2), mirror_tta=True),
}
every_model = pytest.mark.parametrize("model", MODELS)


def logits_of(model: Segmenter, image: Volume, axis: int = 0, centre: float = 0.0) -> torch.Tensor:
    """(K, z, y, x) on the network's grid, put together from slices along `axis`."""
    slices = dict(model._network_slices(prepare(image, model.spec), axis, centre))
    assert sorted(slices) == list(range(len(slices)))
    return torch.stack([slices[n] for n in range(len(slices))], axis + 1)


@cache
def image_and_mask(model: str, tilt: float, shape: tuple[int, ...]) -> tuple[Volume, Volume]:
    image = volume(shape, "LPS", tilt=tilt)
    return image, segmenter(MODELS[model]).segment(image)


# the stream


@every_model
@pytest.mark.parametrize("first", [None, (0, 0), (0, 15), (1, 9), (2, 19), (2, 7)], ids=str)
def test_each_voxel_once_and_the_asked_slice_first(first: tuple[int, int] | None, model: str) -> None:
    image, mask = image_and_mask(model, 7, (16, 18, 20))
    tested = segmenter(MODELS[model])
    count, labels = np.zeros(image.shape, int), np.zeros(image.shape, np.uint8)
    pieces = list(tested.stream(image, first))
    for n, piece in enumerate(pieces, 1):
        assert piece.labels.shape == labels[piece.region].shape and piece.labels.dtype == labels.dtype
        assert (piece.done, piece.total) == (n, len(pieces))
        labels[piece.region] = piece.labels
        count[piece.region] += 1
    assert (count == 1).all()
    assert (labels == mask.data).mean() >= 0.9999 and len(np.unique(labels)) == 3
    (axis,) = {a for piece in pieces for a in range(3) if piece.region[a] != slice(0, image.shape[a])}
    if first is not None and (MODELS[model].network.dims == 3 or axis == first[0]):
        assert axis == first[0] and pieces[0].region[axis] == slice(first[1], first[1] + 1)
    else:
        assert pieces[0].region[axis].start in (image.shape[axis] // 2 - 1, image.shape[axis] // 2), "the middle"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
@pytest.mark.parametrize("count", [None, 1])
@every_model
def test_a_card_gives_the_processors_labels(model: str, count: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The volume is brought to the card as a whole, in several slabs, or, for few slices, window by window."""
    monkeypatch.setattr(preprocess, "SMALL", 2000)
    image, spec = volume((16, 18, 20), "LPS", tilt=7), MODELS[model]
    there = Segmenter(spec, *(copy.deepcopy(net).cuda() for net in segmenter(spec).networks), uncertainty=True)
    for one, other in zip(there.stream(image, (0, 7), count), segmenter(spec, uncertainty=True).stream(image, (0, 7), count), strict=True):
        assert one.region == other.region and (one.labels == other.labels).mean() >= 0.99  # of a slice with few voxels
        np.testing.assert_allclose(one.uncertainty, other.uncertainty, atol=0.02)


@pytest.mark.parametrize("index", [0, 11, 25, 37, 59])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.85])
@pytest.mark.parametrize("spacing", [0.0, 1.0, 2.0, 6.7])
def test_the_asked_slice_is_first_wherever_it_lies(spacing: float, overlap: float, index: int) -> None:
    image = volume((60, 8, 8), spacing=(3.0, 1.0, 1.0))
    tested = segmenter(model_spec(spacing=(0.0, 0.0, spacing)), overlap=overlap)
    order = [piece.region[0].start for piece in tested.stream(image, (0, index))]
    assert order[0] == index and sorted(order) == list(range(60))


@every_model
@pytest.mark.parametrize("count", [1, 4, 99])
def test_some_slices_are_those_of_the_whole(model: str, count: int) -> None:
    """To the bit, the nearest ones, for which fewer windows are run; what was prepared before serves as well."""
    image, tested, seen = volume((16, 18, 20), "LPS", tilt=7), segmenter(MODELS[model]), []
    tested.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    whole = list(tested.stream(image, (2, 15)))
    axis = 2 if whole[0].region[2] == slice(15, 16) else 1  # a coronal model sees slices along its own
    expected = {piece.region[axis].start: piece.labels for piece in whole}
    all_windows = len(seen)
    seen.clear()
    pieces = list(tested.stream(image, (2, 15), count, prepare(image, tested.spec)))
    nearest = sorted(abs(number - pieces[0].region[axis].start) for number in expected)[:count]
    assert sorted(abs(piece.region[axis].start - pieces[0].region[axis].start) for piece in pieces) == nearest
    for done, piece in enumerate(pieces, 1):
        np.testing.assert_array_equal(piece.labels, expected[piece.region[axis].start])
        assert (piece.done, piece.total) == (done, len(pieces))
    assert len(seen) == all_windows if count == 99 else len(seen) < all_windows


def test_a_slice_outside_is_the_nearest_one() -> None:
    image = volume()
    for index, nearest in ((-1, 0), (99, 17)):
        assert next(segmenter(MODELS["3-D"]).stream(image, (1, index))).region[1] == slice(nearest, nearest + 1)


def test_only_slices_that_may_still_change_are_kept() -> None:
    """In a tall volume, whatever slice is asked for, at most two fronts of windows are open at any time."""
    image, tested = volume((9, 9, 150)), segmenter(model_spec(THREE_D, spacing=(2.0, 0.0, 0.0)))
    window, most = 8, 0
    for piece in tested.stream(image, (2, 60)):
        if piece.done % 12 == 0:
            alive = sum(type(o) is torch.Tensor and o.shape in ((3, 9, 9), (3, 10, 10)) for o in gc.get_objects())
            most = max(most, alive)  # slices, and what they were cut from: windows are 10 wide
    assert prepare(image, tested.spec).data.shape[1] > 200 and 0 < most < 3 * window


def test_a_stream_can_be_left() -> None:
    """And what was begun has no part in the next one."""
    tested, image = segmenter(MODELS["3-D"]), volume()
    expected, threads = tested.segment(image).data, threading.active_count()
    for count in (1, 5):
        stream = tested.stream(image)
        for _ in range(count):
            next(stream)
        stream.close()
        assert threading.active_count() == threads
        np.testing.assert_array_equal(tested.segment(image).data, expected)


def counting(tested: Segmenter, run: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the number of windows be heard that are put to work at once."""
    if isinstance(tested.runtime, TorchRuntime):
        tested.network.register_forward_pre_hook(lambda _, batches: run(len(batches[0])))
    else:
        compiled = pytest.importorskip("napari_unet.openvino_runtime")._Compiled
        start = compiled.start
        monkeypatch.setattr(compiled, "start", lambda self, job: (run(1), start(self, job))[1])


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
@pytest.mark.parametrize("after", [1, 7, 20, 40])
def test_a_stream_that_is_stopped_ends_in_the_midst_of_a_slice(after: int, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no more windows than those that are at work; a row has 49, of which no slice is finished before the last."""
    if runtime == "openvino":
        pytest.importorskip("napari_unet.quiet_openvino")
    tested, image = segmenter(model_spec(THREE_D, overlap=0.5), runtime=runtime), volume((32, 32, 32))
    expected, stop, count = tested.segment(image).data, threading.Event(), 0

    def run(windows: int) -> None:
        nonlocal count
        count += windows
        if count >= after:
            stop.set()

    counting(tested, run, monkeypatch)
    assert list(tested.stream(image, (2, 1), stopped=stop.is_set)) == [] and after <= count <= after + tested.in_flight
    monkeypatch.undo()
    np.testing.assert_array_equal(tested.segment(image).data, expected)


def test_what_was_finished_before_it_was_stopped_is_that_of_the_whole() -> None:
    tested, image, stop = segmenter(MODELS["3-D"]), volume((24, 24, 24)), threading.Event()
    whole, found = list(tested.stream(image)), []
    for piece in tested.stream(image, stopped=stop.is_set):
        found.append(piece)
        if len(found) == 3:
            stop.set()
    assert 3 <= len(found) < len(whole)
    for one, other in zip(found, whole, strict=False):
        assert one.region == other.region
        np.testing.assert_array_equal(one.labels, other.labels)


def test_the_volume_is_left_alone() -> None:
    image = volume(orientation="SAR", dtype=np.float32)
    before = image.data.copy()
    mask = segmenter(MODELS["3-D"]).segment(image)
    np.testing.assert_array_equal(image.data, before)
    assert mask.affine is image.affine and mask.header is image.header and mask.data.dtype == np.uint8


# windows


@pytest.mark.parametrize("model", [name for name, spec in MODELS.items() if spec.network.dims == 3])
def test_logits_do_not_depend_on_the_axis_of_slices(model: str) -> None:
    image, tested = volume(), segmenter(MODELS[model])
    reference = logits_of(tested, image)
    assert reference.abs().max() > 0.1
    for axis, centre in ((0, 11.3), (1, 4.0), (2, 0.0), (2, 99.0)):
        torch.testing.assert_close(logits_of(tested, image, axis, centre), reference, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(16, 18, 20), (3, 4, 5), (17, 23, 19), (1, 9, 30), (40, 1, 1), (8, 8, 8), (12, 13, 12), (9, 2, 33)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_windows_leave_no_seams_and_no_dark_border(overlap: float, shape: tuple[int, ...]) -> None:
    """A network that passes a ramp on gives that ramp, to the last voxel, however its windows lie."""
    index = np.indices(shape).astype(float)
    image = Volume(3 * index[0] - 2 * index[1] + 5 * index[2], affine_for("LSP"))
    for dims in (2, 3):
        tested = thresholder(model_spec(threshold_spec(dims)), 0.25, overlap=overlap)
        expected = prepare(image, tested.spec).data[0] - 0.25
        for axis in range(3) if dims == 3 else (0,):
            logits = logits_of(tested, image, axis)
            torch.testing.assert_close(logits[1], expected, atol=1e-5, rtol=1e-5)
            assert logits[0].abs().max() == 0


def test_what_is_smaller_than_a_window_lies_in_its_middle() -> None:
    prepared = prepare(volume((3, 8, 5, 2), "SAR"), model_spec(network_spec(channels=2)))
    tiling = Tiling.cover(prepared.size, (8, 8, 8), (4, 4, 4), 1.5, 0.5)
    (tile,) = tiling.tiles(0, 0.0)
    assert tile.begin == (-2, 0, -1) and tiling.window == (8, 8, 8)
    window = _cut(prepared, tile.begin, tiling.window, 0)
    assert window.shape == (2, 8, 8, 8) and torch.equal(window[:, 2:5, :, 1:6], prepared.data)
    window[:, 2:5, :, 1:6] = 0
    assert not window.any()


def test_mirroring_is_as_the_model_says_unless_asked() -> None:
    image, spec = volume((8, 8, 8), "SAR"), MODELS["mirrored"]
    data = prepare(image, spec).data[None]
    for mirror, axes in ((None, (0, 2)), (True, (0, 2)), (False, ())):
        tested = segmenter(spec, mirror=mirror)
        torch.testing.assert_close(logits_of(tested, image), torch_runtime.forward(tested.network, data, axes)[0], atol=1e-5, rtol=1e-5)
    turned = segmenter(spec).segment(Volume(image.data[::-1, :, ::-1], image.affine)).data
    np.testing.assert_array_equal(turned[::-1, :, ::-1], segmenter(spec).segment(image).data)


def test_fewer_windows_at_a_time_change_nothing_and_smaller_ones_little() -> None:
    image, spec = volume((40, 44, 48)), model_spec(THREE_D, patch=(32, 32, 32))
    tested = segmenter(spec)
    mask = tested.segment(image).data
    few = tested.with_windows(spec.patch, 1)
    assert few.runtime is tested.runtime and np.array_equal(few.segment(image).data, mask)
    small = tested.with_windows((16, 16, 32), 1)
    assert tested.spec is spec and small.spec.patch == (16, 16, 32)
    assert 0.5 < (small.segment(image).data == mask).mean() < 1


# ensembles, and how sure they are


def ensemble(count: int, model: str = "3-D resampled", **options: Any) -> Segmenter:
    """Random members, each with a mind of its own."""
    spec = replace(MODELS[model], members=count)
    return Segmenter(spec, *(random_network(spec.network, seed) for seed in range(count)), **options)


@pytest.mark.parametrize("model", ["3-D resampled", "2-D", "mirrored"])
def test_an_ensembles_logits_are_the_mean_of_its_members(model: str) -> None:
    image = volume()
    each = torch.stack([logits_of(segmenter(MODELS[model], seed), image) for seed in range(3)])
    torch.testing.assert_close(logits_of(ensemble(3, model), image), each.mean(0), atol=2e-5, rtol=1e-5)
    assert each.std(0).max() > 0.1


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("model", ["3-D resampled", "2-D", "3-D coarse"])
def test_labels_are_the_same_with_and_without_uncertainty(model: str, count: int) -> None:
    image = volume(orientation="LSP", tilt=9)
    tested = ensemble(count, model, uncertainty=True)
    mask, doubt = tested.assess(image)
    plain, none = ensemble(count, model).assess(image)
    assert none is None and np.array_equal(mask.data, plain.data)
    check_same_grid(doubt, image)
    assert doubt.data.dtype == np.float32 and doubt.data.min() >= 0 and doubt.data.max() <= 1 and doubt.data.std() > 0.01
    seen = np.full(image.shape, np.nan, np.float32)
    for piece in tested.stream(image, (1, 3)):
        assert np.isnan(seen[piece.region]).all()
        seen[piece.region] = piece.uncertainty
    np.testing.assert_allclose(seen, doubt.data, atol=0.34 if count > 1 else 1e-4)  # a tie may fall to either side
    assert (seen == doubt.data).mean() > 0.999 or count == 1
    assert all(piece.uncertainty is None for piece in ensemble(count, model).stream(image))


@pytest.mark.parametrize("model", ["3-D resampled", "2-D"])
def test_uncertainty_is_the_share_of_members_of_another_opinion(model: str) -> None:
    image = volume()
    mask, doubt = ensemble(4, model, uncertainty=True).assess(image)
    each = [segmenter(MODELS[model], seed).segment(image).data for seed in range(4)]
    expected = np.mean([own != mask.data for own in each], axis=0)
    assert (doubt.data == expected).mean() > 0.999 and set(np.unique(doubt.data)) <= {0, 0.25, 0.5, 0.75, 1}
    agreed = (np.stack(each) == each[0]).all(0)
    assert 0 < agreed.mean() < 1 and doubt.data[agreed & (mask.data == each[0])].max() == 0


def test_members_that_agree_are_sure() -> None:
    spec = replace(MODELS["3-D"], members=3)
    _, doubt = Segmenter(spec, *[random_network(spec.network)] * 3, uncertainty=True).assess(volume())
    assert not doubt.data.any()


def test_a_single_models_uncertainty_is_its_entropy() -> None:
    image, spec = volume((9, 20, 13), "RAS"), model_spec(threshold_spec(3))
    tested = thresholder(spec, uncertainty=True)
    share = 1 / (1 + np.exp(-prepare(image, spec).data[0].numpy().astype(float)))  # its logits are 0 and x
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share)) / np.log(2)
    turned = prepare(image, spec).turn.apply(tested.assess(image)[1].data)
    np.testing.assert_allclose(turned, entropy, atol=1e-5)
    certain = torch.tensor([[1e4, 0.0], [0.0, 0.0]])[:, :, None]
    assert uncertainty_of(certain, certain[:0].reshape(0, 2, 2, 1)).flatten().tolist() == [0, 1]


def test_the_most_likely_class_is_the_first_of_equals() -> None:
    logits = torch.randint(0, 3, (7, 40, 50), generator=torch.Generator().manual_seed(0)).float()
    assert (most_likely(logits, 0).numpy() == logits.numpy().argmax(0)).all()
    members = torch.stack([logits, logits.flip(0)])
    assert (most_likely(members, 1).numpy() == members.numpy().argmax(1)).all()


def test_networks_and_members_are_as_many() -> None:
    network = random_network(THREE_D)
    for networks, members in (((network,), 2), ((network, network), 1), ((), 1)):
        with pytest.raises(UNetError, match=f"tiny: {len(networks)} networks? for {members} members?"):
            Segmenter(replace(MODELS["3-D"], members=members), *networks)


# the mask lies where the anatomy is


@pytest.mark.parametrize("tilt", [0, 11])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_mask_moves_with_the_anatomy(orientation: str, tilt: float) -> None:
    for model in ("3-D resampled", "2-D"):
        image, expected = image_and_mask(model, tilt, (11, 14, 9))
        stored = seen_as(image, orientation)
        mask = segmenter(MODELS[model]).segment(stored)
        assert mask.shape == stored.shape
        check_same_grid(mask, stored)
        np.testing.assert_array_equal(mask.data, seen_as(expected, orientation).data, strict=True)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_the_mask_is_of_the_very_voxels(orientation: str) -> None:
    """On the image's own spacing, what is brighter than its mean is found exactly, tilted or not."""
    for tilt, dims in ((0, 2), (0, 3), (14, 3)):
        image = volume((9, 20, 13), orientation, tilt=tilt)
        mask = thresholder(model_spec(threshold_spec(dims))).segment(image)
        np.testing.assert_array_equal(mask.data, image.data > image.data.mean())


@pytest.mark.parametrize("spacing", [RESAMPLED, (0.7, 0.8, 0.4), (7.0, 3.0, 2.0)], ids=str)
@pytest.mark.parametrize("orientation", ["LPI", "SRA"])
def test_a_resampled_mask_is_not_displaced(orientation: str, spacing: tuple[float, ...]) -> None:
    """A ball stays where it is, to a tenth of a voxel and a few per cent of its volume."""
    ball = volume((40, 40, 24), orientation, (1.0, 1.0, 2.0))
    index = np.moveaxis(np.indices(ball.shape), 0, -1)
    world = index @ ball.affine[:3, :3].T
    distance = np.linalg.norm(world - world[18, 22, 11], axis=-1)
    image = ball.with_data(-distance)
    mask = thresholder(model_spec(threshold_spec(), spacing=spacing, patch=(24, 24, 24)), 1.0).segment(image).data > 0
    expected = -distance > -distance.mean() + distance.std()
    np.testing.assert_allclose(world[mask].mean(0), world[expected].mean(0), atol=0.1)
    assert mask.sum() == pytest.approx(expected.sum(), rel=0.06)


# what volumes there are


@pytest.mark.parametrize("shape", [(1, 16, 18), (16, 1, 18), (16, 18, 1), (1, 1, 2), (3, 4, 5), (17, 19, 23), (40, 9, 9), (7, 8, 13)])
@every_model
def test_odd_shapes(model: str, shape: tuple[int, ...]) -> None:
    image = volume(shape)
    mask = segmenter(MODELS[model]).segment(image)
    assert mask.shape == shape and mask.data.dtype == np.uint8
    check_same_grid(mask, image)


def test_a_2d_model_sees_a_volume_slice_by_slice() -> None:
    spec = model_spec(TWO_D, patch=(1, 32, 32), orientation="SPR")
    tested, image = segmenter(spec), volume((32, 32, 5), "RPS")
    slices = prepare(image, spec).data
    with torch.inference_mode():
        expected = torch.stack([tested.network(slices[None, :, z])[0].argmax(0) for z in range(5)])
    np.testing.assert_array_equal(tested.segment(image).data, expected.numpy().transpose(2, 1, 0))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures(mode: str, tmp_path: Path) -> None:
    """Rows and columns stay rows and columns, from PNG to PNG."""
    pixels = volume((30, 41, 1, 3)[: 3 if mode == "L" else 4], dtype=np.uint8).data[:, :, 0]
    Image.fromarray(pixels, mode).save(tmp_path / "a.png")
    image, channels = images.read(tmp_path / "a.png"), len(mode)
    spec = model_spec(threshold_spec(2, channels), pictures=True, orientation="SRA")
    images.write(tmp_path / "mask.png", thresholder(spec).segment(image))
    red = pixels.reshape(30, 41, channels)[..., 0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), red > red.mean())


@pytest.mark.parametrize("name", ["hippocampus/imagesTr/hippocampus_001.nii.gz", "membrane/images/00.png"])
def test_real_images(name: str, data: Path, tmp_path: Path) -> None:
    image = images.read(data / name)
    flat = name.endswith("png")
    spec = model_spec(threshold_spec(2 if flat else 3), patch=(1, 256, 256) if flat else (32, 32, 32), orientation="SRA")
    path = tmp_path / f"mask{suffix(data / name)}"
    images.write(path, thresholder(spec).segment(image))
    mask = images.read_labels(path)
    check_same_grid(mask, image)
    assert ((mask.data > 0) == (image.data > image.data.mean(dtype=float))).mean() > 0.9999


def test_values_other_than_1_to_n() -> None:
    tested = segmenter(model_spec(THREE_D, (2, 300)))
    image = volume()
    mask, plain = tested.segment(image).data, segmenter(model_spec(THREE_D)).segment(image).data
    assert mask.dtype == np.uint16 and set(np.unique(mask)) == {0, 2, 300}
    np.testing.assert_array_equal(mask, np.array([0, 2, 300])[plain])
    assert all(piece.labels.dtype == np.uint16 for piece in tested.stream(image))


def test_the_channels_have_to_fit() -> None:
    for channels, shape in ((1, (8, 9, 10, 2)), (2, (8, 9, 10))):
        tested = segmenter(model_spec(network_spec(channels=channels)))
        with pytest.raises(UNetError, match=rf"volume: {3 - channels} channels?, the model tiny reads {channels} \(channel 0"):
            tested.segment(volume(shape))


# cleaning


def test_the_largest_component_is_kept_of_the_classes_that_ask_for_it() -> None:
    labels = np.zeros((6, 7, 8), np.uint16)
    labels[:2, :2, :2] = 300  # 8 voxels
    labels[4:, 4:, 4:] = 300  # 24
    labels[2, 2, 2] = 300  # touches the first with a corner only
    labels[0, 5], labels[5, 0, 0] = 2, 2  # 8 and 1
    expected = labels.copy()
    expected[:3, :3, :3] = 0
    for keep, result in (((300,), expected), ((), labels), ((2,), np.where(labels == 2, 0, labels))):
        cleaned = segmenter(model_spec(THREE_D, (2, 300), keep_largest=keep)).clean(labels)
        if keep == (2,):
            result[0, 5] = 2
        np.testing.assert_array_equal(cleaned, result, strict=True)
    assert not segmenter(model_spec(THREE_D, keep_largest=(1, 2))).clean(np.zeros((3, 3, 3), np.uint8)).any()


def test_segment_is_the_stream_and_then_clean() -> None:
    image, spec = volume(), model_spec(THREE_D, keep_largest=(1,))
    raw = segmenter(MODELS["3-D"], overlap=spec.overlap).segment(image).data
    cleaned = segmenter(spec).segment(image).data
    np.testing.assert_array_equal(cleaned, segmenter(spec).clean(raw))
    assert (cleaned != raw).any()


# never a false empty mask


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["encoder.stages.0.0.convs.0.conv.weight", "decoder.seg_layers.0.bias"])
def test_broken_weights_give_no_mask(name: str, value: float) -> None:
    tested = segmenter(MODELS["3-D"])
    with torch.no_grad():
        tested.network.state_dict()[name].flatten()[0] = value
    with pytest.raises(UNetError, match=r"network: its logits are not finite"):
        next(tested.stream(volume()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_broken_voxel_gives_no_mask(value: float) -> None:
    image = volume(dtype=np.float32)
    image.data[3, 4, 5] = value
    with pytest.raises(UNetError, match=r"1 voxel is NaN or infinite"):
        segmenter(MODELS["3-D"]).segment(image)


def test_an_image_of_another_modality_gives_no_mask() -> None:
    spec = model_spec(channels=(Channel("CT", "clip", 3000.0, 4000.0, 3500.0, 100.0),))
    with pytest.raises(UNetError, match=r"nothing is left of channel 0 \(CT\)"):
        segmenter(spec).segment(volume())


@pytest.mark.parametrize("overlap", [-0.1, 0.95, 1.0, float("nan")])
def test_windows_with_gaps_are_refused(overlap: float) -> None:
    with pytest.raises(UNetError, match=r"^overlap: windows that overlap by .+\. Use 0 to 0\.9\.$"):
        segmenter(MODELS["3-D"], overlap=overlap)


def test_a_window_that_does_not_fit_into_memory_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the measure by which `memory.fit` looks for windows that do."""
    model, image = segmenter(MODELS["3-D"]), volume()
    needed = int(sum(of_window(model.spec, (8, 8, 8), model.runtime.feature_maps)))
    monkeypatch.setattr(ram, "free_memory", lambda: needed)
    assert next(model.stream(image)).done == 1
    monkeypatch.setattr(ram, "free_memory", lambda: needed - 1)
    with pytest.raises(UNetError, match=r"^tiny: needs \d+ MB of memory"):
        next(model.stream(image))


# from a file


@every_model
def test_a_loaded_model_is_the_saved_one(model: str, tmp_path: Path) -> None:
    spec, image = MODELS[model], volume()
    network = random_network(spec.network).half().float()
    tensors: dict[str, Any] = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    weights.save(tmp_path / "model.safetensors", spec, Card(), tensors)
    loaded = Segmenter.load(tmp_path, device="cpu")
    assert loaded.spec == spec
    assert (loaded.segment(image).data == Segmenter(spec, network).segment(image).data).mean() >= 0.9999
    assert Segmenter.load(tmp_path / "model.safetensors", overlap=0.125, mirror=False).mirror_axes == ()


def test_the_spacing_of_these_tests_is_anisotropic() -> None:
    """Else none of them would notice axes that are mixed up."""
    assert len(set(SPACING)) == len(set(RESAMPLED)) == 3
