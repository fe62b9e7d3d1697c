"""What the network sees depends on the anatomy alone, not on how a file stores it; and the way back is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import torch
from engine import SPACING, model_spec, network_spec, seen_as, volume
from hostile import ORIENTATIONS, affine_for
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from napari_unet import images, preprocess
from napari_unet.dataset import Case, read_image
from napari_unet.errors import UNetError
from napari_unet.preprocess import (
    Prepared,
    classes_of,
    neighbours,
    prepare,
    prepare_labels,
    resample_axis,
    values_of,
)
from napari_unet.spec import Channel, ModelSpec
from napari_unet.volume import Volume

RESAMPLED = (2.0, 1.0, 1.25)  # mm along z, y, x
every_spacing = pytest.mark.parametrize("spacing", [(0.0, 0.0, 0.0), RESAMPLED], ids=["its own", "resampled"])


def with_channels(*channels: Channel, **changes: Any) -> ModelSpec:
    return model_spec(network_spec(channels=len(channels)), channels=channels, **changes)


def same(a: Prepared, b: Prepared) -> None:
    np.testing.assert_array_equal(a.data, b.data, strict=True)
    assert (a.shape, a.scale, a.shift) == (b.shape, b.scale, b.shift)


# one anatomy, however it is stored


@every_spacing
@pytest.mark.parametrize("tilt", [0, 9])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_order_of_voxels_does_not_matter(orientation: str, tilt: float, spacing: tuple[float, ...]) -> None:
    image, spec = volume(tilt=tilt), model_spec(spacing=spacing)
    stored = seen_as(image, orientation)
    assert stored.orientation == orientation
    same(prepare(stored, spec), prepare(image, spec))
    mask = image.with_data((image.data > 200).astype(np.uint8))
    np.testing.assert_array_equal(prepare_labels(seen_as(mask, orientation), spec), prepare_labels(mask, spec), strict=True)


@every_spacing
def test_a_file_and_the_same_voxels_from_elsewhere_are_one(spacing: tuple[float, ...], tmp_path: Path) -> None:
    image, spec = volume(orientation="LPS", tilt=5), model_spec(spacing=spacing)
    for name in ("scan.nii", "scan.nii.gz"):
        images.write(tmp_path / name, image, labels=False)
        read = prepare(images.read(tmp_path / name), spec)
        same(read, prepare(image, spec))
        for dtype in (np.int32, np.float32, np.float64, ">i2"):
            for order in "CF":
                same(read, prepare(Volume(image.data.astype(dtype, order=order), image.affine), spec))


@pytest.mark.parametrize("dataset", ["hippocampus/imagesTr/hippocampus_001.nii.gz", "ct/example_ct_sm.nii.gz", "volumes/spm152.nii.gz"])
def test_real_files_too(dataset: str, data: Path) -> None:
    image, spec = images.read(data / dataset), model_spec(spacing=(2.0, 2.0, 2.0))
    prepared = prepare(image, spec)
    same(prepared, prepare(Volume(np.array(image.data), image.affine.copy()), spec))
    same(prepared, prepare(seen_as(image, "PIR"), spec))
    assert torch.isfinite(prepared.data).all()


@every_spacing
def test_an_image_that_lies_elsewhere_is_read_in_parts(spacing: tuple[float, ...]) -> None:
    """As napari's lazy layers are: never as a whole."""
    image, spec = volume((16, 18, 20, 2), "LPS"), with_channels(Channel("a"), Channel("b"), spacing=spacing)
    largest = []

    def read(block: np.ndarray) -> np.ndarray:
        largest.append(block.size)
        return block

    lazy = dask.array.from_array(image.data, chunks=(8, 9, 10, 1)).map_blocks(read, dtype=image.data.dtype)
    prepared, expected = prepare(Volume(lazy, image.affine), spec), prepare(image, spec)
    largest.clear()
    np.testing.assert_array_equal(prepared.box(slice(0, 4), slice(0, 5), slice(0, 6)), expected.data[:, :4, :5, :6], strict=True)
    assert 0 < sum(largest) < image.data.size
    same(prepared, expected)


def test_the_volume_itself_is_left_alone() -> None:
    """Even where it is stored just as the network wants it."""
    image = volume(orientation="SAR", dtype=np.float32)
    before = image.data.copy()
    prepare(image, with_channels(Channel("CT", "clip", -100.0, 100.0, 0.0, 5.0)))
    np.testing.assert_array_equal(image.data, before)


# intensities


def test_zscore_and_clip() -> None:
    image = volume(shape=(8, 9, 10, 2), orientation="SAR")
    spec = with_channels(Channel("MR"), Channel("CT", "clip", -250.0, 400.0, 12.0, 34.0))
    found = prepare(image, spec).data.double().numpy()
    mr, ct = np.moveaxis(image.data.astype(float), -1, 0)
    np.testing.assert_allclose(found[0], (mr - mr.mean()) / mr.std(), atol=1e-5)
    np.testing.assert_allclose(found[1], (np.clip(ct, -250, 400) - 12) / 34, atol=1e-5)


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
@settings(max_examples=30)
def test_zscore_forgets_gain_and_offset(gain: float, offset: float) -> None:
    image = volume(shape=(6, 7, 8), dtype=np.float64)
    changed = image.with_data(image.data / 1000 * gain + offset * gain)
    np.testing.assert_allclose(prepare(changed, model_spec()).data, prepare(image, model_spec()).data, atol=2e-3)


def test_channels_keep_their_order(tmp_path: Path) -> None:
    """Whether they come as colours, as a fourth axis or as a file each."""
    image = volume(shape=(6, 7, 8, 3), orientation="LIP", dtype=np.uint8)
    spec = with_channels(*map(Channel, "abc"), spacing=RESAMPLED)
    whole = prepare(image, spec)
    for n in range(3):
        np.testing.assert_array_equal(whole.data[n : n + 1], prepare(image.channel(n), with_channels(Channel("a"), spacing=RESAMPLED)).data)
        images.write(tmp_path / f"case_{n:04d}.nii.gz", image.channel(n), labels=False)
    same(whole, prepare(read_image(Case("case", tuple(sorted(tmp_path.iterdir())))), spec))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_are_refused(channels: int) -> None:
    image = volume(shape=(6, 7, 8, channels))
    with pytest.raises(UNetError, match=rf"volume: {channels} channels?, the model tiny reads 3 \(a, b, c\)\. Choose"):
        prepare(image, with_channels(*map(Channel, "abc")))


UNSEEN = {
    "a NaN": (lambda d: np.where(d == d.max(), np.nan, d), r"1 voxel is NaN or infinite"),
    "infinity": (lambda d: np.where(d > 0, np.inf, d), r"voxels are NaN or infinite"),
    "constant": (lambda d: d * 0 + 7, r"every voxel of channel 0 has the value 7"),
    "complex": (lambda d: d * 1j, r"voxels of type complex128\. Give real numbers"),
    "beyond single precision": (lambda d: d * 1e300, r"nothing is left of channel 0 \(MR\), -.+e\+30\d to .+, after"),
    "below its steps": (lambda d: d / d.max() + 1e9, r"nothing is left of channel 0 \(MR\), 1e\+09 to 1e\+09, after normalisation\. Check"),
}


@pytest.mark.parametrize("case", UNSEEN)
def test_what_nothing_can_be_seen_in_is_refused(case: str) -> None:
    change, words = UNSEEN[case]
    image = volume(dtype=np.float64)
    with pytest.raises(UNetError, match=words):
        prepare(image.with_data(change(image.data)), with_channels(Channel("MR")))


def test_an_image_outside_the_clip_range_is_refused() -> None:
    """An MR image given to a model of CT would be one grey, and its mask clean and empty."""
    spec = with_channels(Channel("MR"), Channel("CT", "clip", 2000.0, 3000.0, 2500.0, 100.0))
    with pytest.raises(UNetError, match=r"nothing is left of channel 1 \(CT\), -?\d+ to \d+, after normalisation\. Check .+ modality"):
        prepare(volume(shape=(6, 7, 8, 2)), spec)


# the grid


@pytest.mark.parametrize("orientation", ["SAR", "LPS", "ARI"])
@pytest.mark.parametrize("target", [(0.0, 0.0, 0.0), RESAMPLED, (0.7, 0.7, 0.7), (6.0, 1.5, 0.25), (0.0, 3.0, 0.0)])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_a_part_is_what_it_is_in_the_whole(target: tuple[float, ...], orientation: str, seed: int) -> None:
    """To the bit: whoever reads window by window sees what training saw."""
    channels = Channel("MR"), Channel("CT", "clip", -250.0, 400.0, 12.0, 34.0)
    prepared = prepare(volume((20, 22, 9, 2), orientation), with_channels(*channels, spacing=target))
    random = np.random.default_rng(seed)
    where = [slice(*sorted(random.choice(n + 1, 2, replace=False).tolist())) for n in prepared.size]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "SMALL", 0)
        part = prepared.box(*where)
        patch.setattr(preprocess, "SMALL", 2000)  # slab by slab
        brought = prepared.on(torch.device("cpu")).box(*where)
    for found in (part, brought, prepared.box(*where)):
        np.testing.assert_array_equal(found, prepared.data[(slice(None), *where)], strict=True)


@pytest.mark.parametrize("target", [RESAMPLED, (0.7, 0.7, 0.7), (6.0, 1.5, 0.25), (0.0, 3.0, 0.0)])
def test_there_and_back_is_exact_for_what_is_linear(target: tuple[float, ...]) -> None:
    """A ramp keeps its place through both resamplings, wherever it is not continued beyond the volume's border."""
    index = np.indices((20, 22, 9)).astype(float)
    image = Volume(3 * index[0] - 2 * index[1] + 5 * index[2], affine_for("LPS", SPACING))
    own, prepared = prepare(image, model_spec()), prepare(image, model_spec(spacing=target))
    back, inside = prepared.data, np.ones((), bool)
    for axis in range(3):
        size, scale, shift = own.shape[axis], prepared.scale[axis], prepared.shift[axis]
        back = resample_axis(back, axis + 1, scale, shift, size)
        last = np.floor((size - 1) * scale + shift + 1e-9)
        good = np.ceil(scale * np.arange(size) + shift - 1e-9) <= last
        inside = inside[..., None] & good
    assert back.shape == own.data.shape and inside.mean() > 0.5
    np.testing.assert_allclose(back[0][inside], own.data[0][inside], atol=2e-5)


@pytest.mark.parametrize("target", [RESAMPLED, (0.7, 0.7, 0.7), (6.0, 1.5, 0.25), (0.0, 3.0, 0.0)])
def test_resampling_is_linear_and_continues_the_border(target: tuple[float, ...]) -> None:
    """Both ways follow one rule, so that neither displaces anything nor darkens the last slice."""
    image = volume()
    own, prepared = prepare(image, model_spec()), prepare(image, model_spec(spacing=target))
    expected = own.data
    for axis, (scale, shift) in enumerate(zip(prepared.scale, prepared.shift, strict=True)):
        expected = resample_axis(expected, axis + 1, 1 / scale, -shift / scale, prepared.data.shape[axis + 1])
    torch.testing.assert_close(prepared.data, expected, atol=1e-4, rtol=0)


@given(st.floats(0.05, 20), st.floats(-2, 2), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=200)
def test_neighbours_enclose_each_position(scale: float, shift: float, size: int, available: int) -> None:
    low, high, share = neighbours(scale, shift, size, available)
    position = np.clip(scale * np.arange(size) + shift, 0, available - 1)
    np.testing.assert_allclose(low + share, position, atol=1e-9)
    assert low.min() >= 0 and high.max() < available and (high - low == (share > 0)).all() and (share < 1).all()


def test_the_same_grid_is_not_resampled() -> None:
    logits = torch.randn(2, 5, 6)
    assert resample_axis(logits, 1, 1.0, 0.0, 5) is logits
    image = volume(orientation="SAR", spacing=(2.02, 1.0, 1.26))
    close = prepare(image, model_spec(spacing=(2.0, 1.01, 1.25)))
    same(close, prepare(image, model_spec()))
    assert prepare(image, model_spec(spacing=(2.0, 1.05, 1.25))).data.shape != close.data.shape


def test_masks_lie_on_their_images_grid() -> None:
    """Each of the network's voxels has the class of a voxel of the mask that is no more than half a voxel away."""
    index = np.indices((20, 22, 9))
    for axis, (source, target) in enumerate([(2, 2.0), (1, 1.0), (0, 1.25)]):  # (z, y, x) <- (i, j, k) of a RAS file
        values = tuple(range(1, index.shape[source + 1]))
        spec = model_spec(network_spec(classes=len(values) + 1), values, spacing=RESAMPLED)
        mask = Volume(index[source].astype(np.uint8), affine_for("RAS", SPACING))
        classes, prepared = prepare_labels(mask, spec), prepare(mask, spec)
        assert classes.shape == prepared.data.shape[1:] and classes.dtype == torch.uint8
        lines = np.moveaxis(classes.numpy(), axis, 0).reshape(classes.shape[axis], -1)
        assert (lines == lines[:, :1]).all()
        position = np.arange(len(lines)) * target / SPACING[source]
        assert (np.abs(lines[:, 0] - np.minimum(position, len(values))) <= 0.5 + 1e-4).all()


@pytest.mark.parametrize("unit", [1e-3, 1e-2, 1e2])
def test_microns_are_as_good_as_millimetres(unit: float) -> None:
    image = volume()
    tiny = Volume(image.data, image.affine @ np.diag([unit] * 3 + [1]))
    found = prepare(tiny, model_spec(spacing=tuple(unit * s for s in RESAMPLED)))
    expected = prepare(image, model_spec(spacing=RESAMPLED))
    assert found.data.shape == expected.data.shape
    torch.testing.assert_close(found.data, expected.data, atol=1e-3, rtol=0)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-6)


def test_needles() -> None:
    """0.01 x 0.01 x 500 mm: to 1 mm it is 3 x 3 x 1501 voxels; finer than that it soon exceeds any memory."""
    needles = volume(shape=(200, 200, 4), spacing=(0.01, 0.01, 500))
    assert prepare(needles, model_spec(spacing=(1.0, 1.0, 1.0))).data.shape == (1, 1501, 3, 3)
    for spacing in [(1e-5, 0.0, 0.0), (1e-4, 1e-4, 1e-4)]:
        for call in (prepare, prepare_labels):
            with pytest.raises(UNetError, match=r"volume: needs [\d,.]+ GB of memory, [\d.]+ GB are free\. Close"):
                call(needles.with_data(needles.data % 2), model_spec(spacing=spacing))


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 16, 16), (16, 1, 16), (16, 16, 1), (2, 2, 2), (3, 200, 5)])
@every_spacing
def test_odd_shapes_have_a_grid(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    image, spec = volume(shape), model_spec(spacing=spacing)
    prepared = prepare(image, spec)
    assert prepared.shape == shape[::-1] and torch.isfinite(prepared.data).all()
    mask = image.with_data((image.data > 0).astype(np.uint8))
    assert prepare_labels(mask, spec).shape == prepared.data.shape[1:]


# mask values and class indices


@pytest.mark.parametrize(("values", "dtype"), [((1, 2), np.uint8), ((7, 255), np.uint8), ((300, 2), np.uint16), ((65535,), np.uint16)])
def test_values_and_classes_are_each_others_inverse(values: tuple[int, ...], dtype: Any) -> None:
    spec = model_spec(network_spec(classes=len(values) + 1), values)
    mask = np.random.default_rng(0).choice([0, *values], (5, 6, 7)).astype(np.uint16)
    classes = classes_of(mask, spec, "mask")
    assert classes.dtype == np.uint8 and classes.max() == len(values) and spec.label_dtype == dtype
    np.testing.assert_array_equal(values_of(torch.from_numpy(classes), spec), mask.astype(dtype), strict=True)


def test_as_many_classes_as_there_may_be() -> None:
    values = tuple(range(1, 255))
    spec = model_spec(network_spec(classes=255), values)
    mask = np.arange(255, dtype=np.uint8).reshape(3, 5, 17)
    np.testing.assert_array_equal(classes_of(mask, spec, "mask"), mask)
    with pytest.raises(UNetError, match=r"mask: the mask value 255 is none of"):
        classes_of(mask + np.uint8(1), spec, "mask")


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float32, ">u2"])
def test_masks_of_any_type_that_holds_the_values(dtype: Any) -> None:
    mask = volume().with_data((volume().data > 0).astype(dtype))
    classes = prepare_labels(mask, model_spec(network_spec(classes=3)))
    assert classes.sum() == mask.data.sum() > 0


@pytest.mark.parametrize("value", [np.uint8(3), np.uint16(65535), np.int16(-2), np.int32(65537), np.int64(2**40), np.float32(0.5),
                                   np.float64("nan")])  # fmt: skip
def test_an_unknown_value_is_refused(value: Any) -> None:
    mask = volume().with_data(np.full((16, 18, 20), value))
    with pytest.raises(UNetError, match=rf"volume: the mask value {value} is none of 0 and \[1, 2\]\. Add"):
        prepare_labels(mask, model_spec(network_spec(classes=3)))


@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.0), (1.5, 0.0), (0.5, 0.25)])
def test_logits_stay_where_they_are(scale: float, shift: float) -> None:
    """As if on a card: torch's fakes compute no values, but refuse what lies on two devices."""
    with FakeTensorMode():
        there = resample_axis(torch.empty(3, 39, 39, device="cuda"), 1, scale, shift, 20)
    assert there.device.type == "cuda" and there.shape == (3, 20, 39)
