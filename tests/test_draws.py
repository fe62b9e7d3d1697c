"""Samples are drawn one by one: each is the same, to the last bit, in whichever batch and process it is drawn."""

from __future__ import annotations

import pytest
import torch
from datasets import scan
from engine import model_spec, network_spec
from torch import Tensor

from napari_unet.sampling import Example, Sampler, place
from napari_unet.settings import MOST_AUGMENT, TrainConfig
from napari_unet.spec import ModelSpec

SPEC = model_spec(network_spec(classes=3), mirror_axes=(0, 2))
FLAT = model_spec(network_spec(2, classes=3), mirror_axes=(2,))


def sampler(spec: ModelSpec, strength: float) -> tuple[Sampler, tuple[int, ...]]:
    examples = [Example.make(*scan(n), spec) for n in range(3)]
    return Sampler(examples, spec, TrainConfig(augment=strength)), (8, 8, 8) if spec is SPEC else (1, 16, 16)


def equal(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("spec", [SPEC, FLAT])
@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_a_batch_equals_its_samples_drawn_one_by_one(spec: ModelSpec, strength: float) -> None:
    drawing, patch = sampler(spec, strength)
    for step in range(6):
        images, shares = drawing.batch(step, 4 * step, patch, 4)
        for n in reversed(range(4)):
            assert equal(drawing.batch(step, 4 * step, patch, 4, [n]), (images[n : n + 1], shares[n : n + 1]))
        assert strength == 0 or len({image.numpy().tobytes() for image in images}) == 4


@pytest.mark.parametrize("spec", [SPEC, FLAT])
@pytest.mark.parametrize("strength", [0.5, 1.0, MOST_AUGMENT])
def test_a_steps_own_strength_draws_what_it_would_if_it_were_configured(spec: ModelSpec, strength: float) -> None:
    (one, patch), (other, _) = sampler(spec, 0.7), sampler(spec, strength)
    assert equal(one.batch(3, 6, patch, 2, None, strength), other.batch(3, 6, patch, 2))
    assert not equal(one.batch(3, 6, patch, 2), other.batch(3, 6, patch, 2))


@pytest.mark.parametrize("spec", [SPEC, FLAT])
@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_what_processes_share_out_is_the_batch(spec: ModelSpec, processes: int) -> None:
    drawing, patch = sampler(spec, 1.0)
    whole = drawing.batch(2, 10, patch, 5)
    parts = [drawing.batch(2, 10, patch, 5, range(rank, 5, processes)) for rank in range(processes)]
    order = [n for rank in range(processes) for n in range(rank, 5, processes)]
    assert sorted(order) == list(range(5))
    assert equal((torch.cat([i for i, _ in parts]), torch.cat([s for _, s in parts])), (whole[0][order], whole[1][order]))


def test_a_process_without_samples_has_an_empty_batch_of_the_right_shape() -> None:
    drawing, patch = sampler(SPEC, 1.0)
    images, shares = drawing.batch(0, 0, patch, 1, [])
    assert images.shape == (0, 1, *patch) and shares.shape == (0, 3, *patch)


def test_cases_stay_where_they_are_without_a_card() -> None:
    examples = [Example.make(*scan(0), SPEC)]
    assert place(examples, torch.device("cpu")) is examples and place(examples, torch.device("mps")) is examples


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_batch_is_made_on_the_card_wherever_the_cases_are(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_unet.sampling.ON_CARD", share)
    examples = [Example.make(*scan(n), SPEC) for n in range(3)]
    config = TrainConfig(augment=1.0)
    on_card, on_cpu = (Sampler(examples, SPEC, config, torch.device(name)) for name in ("cuda", "cpu"))
    for step in range(10):
        images, shares = on_card.batch(step, 2 * step, (8, 8, 8), 2)
        _, expected = on_cpu.batch(step, 2 * step, (8, 8, 8), 2)
        assert images.device.type == shares.device.type == "cuda" and torch.isfinite(images).all()
        torch.testing.assert_close(shares.cpu(), expected, atol=1e-4, rtol=0)
