"""2.5-D: a slice is seen with its neighbours, in training as in use, whichever way a file's slices lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import _one_thread, decathlon, scan  # noqa: F401 - a fixture
from engine import model_spec, network_spec, seen_as, segmenter, threshold_spec, thresholder, volume
from hostile import ORIENTATIONS, affine_for
from torch import Tensor

from napari_unet import UNetError, schema, torch_runtime, weights
from napari_unet.augment import Augmentation
from napari_unet.cli import main
from napari_unet.preprocess import prepare, with_neighbours
from napari_unet.sampling import Example, Sampler
from napari_unet.settings import TrainConfig
from napari_unet.spec import ModelSpec


def flat(k: int, channels: int = 1, **changes: object) -> ModelSpec:
    """A 2-D model that sees k neighbours on either side, as a threshold of one of its channels."""
    return model_spec(threshold_spec(2, channels * (2 * k + 1)), neighbours=k, **changes)


def by_hand(data: Tensor, z: int, k: int) -> Tensor:
    """(C * (2 k + 1), y, x): channel by channel, slice by slice."""
    rows = [data[c, min(max(z + d, 0), data.shape[1] - 1)] for c in range(len(data)) for d in range(-k, k + 1)]
    return torch.stack(rows)


@pytest.mark.parametrize("k", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_channel_by_channel_and_the_border_is_continued(size: int, k: int) -> None:
    data = torch.randn(2, size, 4, 5)
    for first in range(size):
        seen = with_neighbours(data, slice(first, size), k)
        assert torch.equal(seen, torch.stack([by_hand(data, z, k) for z in range(first, size)], 1))


# --- in use


@pytest.mark.parametrize("orientation", ORIENTATIONS[::3])
@pytest.mark.parametrize("towards", ["SAR", "ILP", "ASR", "LIP"])
def test_a_network_that_passes_a_neighbour_on_shifts_the_mask(towards: str, orientation: str) -> None:
    """By so many slices of the network's own order, to the last slice, however the file stores them."""
    image = volume((9, 11, 8), "RAS")
    k = 2
    for offset in (-2, 1):
        spec = flat(k, orientation=towards)
        mask = thresholder(spec, channel=k + offset).segment(seen_as(image, orientation))
        bright = seen_as(image.with_data(image.data > image.data.mean()), towards).data
        source = np.clip(np.arange(len(bright)) + offset, 0, len(bright) - 1)
        np.testing.assert_array_equal(seen_as(mask, towards).data, bright[source])


def test_the_second_channels_slices_follow_the_firsts() -> None:
    image, spec = volume((9, 11, 8, 2), "SAR"), flat(1, channels=2)
    for number in range(6):
        channel, offset = divmod(number, 3)
        mask = thresholder(spec, channel=number).segment(image).data
        bright = image.data[..., channel] > image.data[..., channel].mean()
        source = np.clip(np.arange(9) + offset - 1, 0, 8)
        np.testing.assert_array_equal(mask, bright[source])


@pytest.mark.parametrize("shape", [(9, 20, 14), (1, 16, 18), (2, 40, 8), (3, 4, 6)])
def test_what_the_network_is_given_whatever_the_order(shape: tuple[int, ...]) -> None:
    """Mirrored copies and a first slice of one's choice change nothing of it."""
    spec = model_spec(network_spec(2, channels=6, classes=3), neighbours=1, mirror_axes=(1, 2), orientation="PIL", patch=(1, 64, 64))
    image, tested = seen_as(volume((*shape, 2), "PIL"), "LSA"), segmenter(spec, mirror=True)
    data = prepare(image, spec).data
    logits = [torch_runtime.forward(tested.network, by_hand(data, z, 1)[None, :, None], (1, 2))[0, :, 0] for z in range(shape[0])]
    expected = torch.stack(logits).argmax(1).numpy()
    for first in ((1, 0), (2, shape[0] - 1), (2, 1), None):
        labels = np.zeros(image.shape, np.uint8)
        for piece in tested.stream(image, first):
            labels[piece.region] = piece.labels
        np.testing.assert_array_equal(seen_as(image.with_data(labels), "PIL").data, expected)


def test_no_neighbours_is_the_2d_of_before() -> None:
    """Bit by bit in what is seen, and in what a model file of before is read as."""
    spec = model_spec(network_spec(2, classes=3), patch=(1, 16, 16))
    assert spec.neighbours == 0 and spec.kind == "2-D"
    before = schema.encode(spec).replace(',"neighbours":0', "")
    assert "neighbours" not in before and schema.decode(ModelSpec, before, "model") == spec
    data = prepare(scan(1)[0], spec).data
    assert with_neighbours(data, slice(3, 5), 0).data_ptr() == data[:, 3:].data_ptr()  # nothing is copied
    batches = [Sampler([Example.make(*scan(1), spec)], spec, TrainConfig()).batch(n, n, spec.patch, 2)[0] for n in range(3)]
    assert all(batch.shape == (2, 1, 1, 16, 16) for batch in batches)


def test_the_channels_are_the_images_not_the_networks() -> None:
    spec = flat(1)
    with pytest.raises(UNetError, match=r"3 channels, the model tiny reads 1 \(channel 0\)"):
        thresholder(spec).segment(volume((5, 9, 8, 3)))


@pytest.mark.parametrize(
    ("network", "changes", "words"),
    [
        (network_spec(3, channels=3), {"neighbours": 1}, "neighbours is 1"),
        (network_spec(2, channels=3), {"neighbours": 1, "pictures": True}, "neighbours is 1"),
        (network_spec(2, channels=4), {"neighbours": 1}, "channels is "),
        (network_spec(2, channels=13), {"neighbours": 6}, "neighbours is 6.*less than or equal to 5"),
    ],
)
def test_what_does_not_fit_together(network: object, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UNetError, match=words):
        schema.encode(model_spec(network, **changes))  # type: ignore[arg-type]


# --- in training


def test_a_patch_is_a_slice_with_its_neighbours_and_its_own_label() -> None:
    shape, k = (6, 9, 10), 2
    number = torch.arange(1.0, 541).reshape(1, *shape)
    label = (torch.arange(6) % 3).to(torch.uint8)[:, None, None].expand(shape).contiguous()
    made = Example(torch.cat([number, -number]), label, ())
    spec = model_spec(network_spec(2, channels=10, classes=3), neighbours=k, patch=(1, 8, 8))
    sampler = Sampler([made], spec, TrainConfig(augment=0, foreground=0))
    seen = set()
    for step in range(40):
        images, shares = sampler.batch(step, step, (1, 8, 8), 1)
        assert images.shape == (1, 10, 1, 8, 8) and shares.shape == (1, 3, 1, 8, 8)
        z, y, x = np.unravel_index(int(images[0, k, 0, 0, 0]) - 1, shape)
        seen.add(int(z))
        assert torch.equal(images[0, :, 0], by_hand(made.image, int(z), k)[:, y : y + 8, x : x + 8])
        assert (shares[0, z % 3] == 1).all()
    assert seen == set(range(6))


def noiseless(augmentation: Augmentation, seed: int) -> np.ndarray:
    """(8 samples, 2 channels): which get no noise, by drawing what the next call with this seed draws."""
    assert augmentation.intensity is not None
    augmentation.set_random_state(seed)
    amounts = []
    for drawn in augmentation.R.randint(2**31, size=8):
        augmentation.set_random_state(int(drawn))
        augmentation.move.draw(), augmentation.mirror.draw()
        amounts.append(augmentation.intensity.draw(2).amount[0])
    augmentation.set_random_state(seed)
    return np.stack(amounts) == 0


def test_neighbours_are_turned_mirrored_and_lit_alike() -> None:
    """A pile of equal slices stays one, with noise left out, and channels change apart from each other."""
    spec = model_spec(network_spec(2, channels=6, classes=3), neighbours=1, mirror_axes=(1, 2), patch=(1, 16, 16))
    augmentation = Augmentation(spec, 1.0)
    slices = torch.randn(8, 2, 1, 20, 20).repeat_interleave(3, 1)
    changed = 0
    for seed in range(5):
        quiet = noiseless(augmentation, seed)
        images, _ = augmentation(slices, torch.ones(8, 3, 1, 20, 20) / 3, (1, 16, 16))
        for sample in range(8):
            for channel in range(2):
                slab = images[sample, 3 * channel : 3 * channel + 3]
                if quiet[sample, channel]:
                    assert torch.equal(slab[0], slab[1]) and torch.equal(slab[1], slab[2])
                    changed += not torch.equal(slab[0], slices[sample, 3 * channel, :, 2:18, 2:18])
                else:
                    assert not torch.equal(slab[0], slab[1])
    assert changed > 40


def test_from_a_folder_to_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Thick slices: planned as 2.5-D, trained, shown and used through the command line."""
    folder = decathlon(tmp_path / "data", 3, shape=(32, 28, 9), affine=affine_for("RAS", (1.0, 1.0, 5.0)))
    train = ["train", str(folder), "--out", str(tmp_path / "run"), "--steps", "80", "--features", "4,8", "--patch", "1,32,32"]
    assert main([*train, "--fold", "0", "--checks", "1", "--rate", "0.02"]) == 0
    assert "A 2.5-D network: only 9 slices" in capsys.readouterr().out
    spec = weights.read_spec(tmp_path / "run/model.safetensors")
    assert (spec.neighbours, spec.network.channels, len(spec.channels)) == (1, 3, 1)
    assert main(["info", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "the 2.5-D U-Net" in shown and "each slice with 1 on either side" in shown and "input" in shown
    assert main(["predict", str(tmp_path / "run"), str(folder / "imagesTr"), "--out", str(tmp_path / "masks")]) == 0
    assert weights.read_card(tmp_path / "run/model.safetensors").dice["mean"] > 0.4
