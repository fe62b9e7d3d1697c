"""What a step costs: operations counted by hand, shares that are shares."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from datasets import _one_thread, decathlon, planned  # noqa: F401 - a fixture
from engine import network_spec

from napari_unet.cost import Cost, Profile, operations, profile
from napari_unet.schedule import stages
from napari_unet.spec import NetworkSpec


def by_hand(spec: NetworkSpec, shape: tuple[int, ...]) -> int:
    """Forward, the weights' and the inputs' gradient of each convolution; the first needs no gradient of its input."""
    forward = first = 0
    inputs = spec.channels

    def convolve(inputs: int, outputs: int, kernel: tuple[int, ...], voxels: int) -> int:
        return 2 * inputs * outputs * math.prod(kernel) * voxels

    walk = spec.walk(shape)
    levels = len(spec.features)
    for level, (_, size, features) in enumerate(walk[1 : levels + 1]):
        for _ in range(spec.encoder_convs[level]):
            work = convolve(inputs, features, spec.kernels[level], math.prod(size))
            first = first or work
            forward, inputs = forward + work, features
    for _, size, features in walk[levels + 1 : -1]:
        level = spec.features.index(features)
        forward += convolve(inputs, features, (1,), math.prod(size))  # transposed: each fine voxel sees one coarse one
        joined = 2 * features if spec.skips else features
        for n in range(spec.decoder_convs[level]):
            forward += convolve(joined if n == 0 else features, features, spec.kernels[level], math.prod(size))
        if spec.deep_supervision or level == 0:
            forward += convolve(features, spec.classes, (1,), math.prod(size))
        inputs = features
    return 3 * forward - first


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("spec", [NetworkSpec.classic(), network_spec(3, 3), network_spec(2, 3, encoder_convs=(1, 2, 2))],
                         ids=["classic", "3-D", "2-D"])  # fmt: skip
def test_operations_as_counted_by_hand(spec: NetworkSpec, skips: bool) -> None:
    spec = NetworkSpec(**vars(spec) | {"skips": skips})
    shape = tuple(4 * stride for stride in spec.total_stride)
    assert operations(spec, (1, *shape)[-3:], 1) == by_hand(spec, shape)
    assert operations(spec, shape, 3) == 3 * by_hand(spec, shape)


def test_a_profile_of_real_steps(tmp_path: Path) -> None:
    cases, spec, config = planned(decathlon(tmp_path, 2))
    found = profile(spec, config, cases, seconds=0.01)
    assert [(s.patch, s.batch, s.share) for s in found.stages] == [(s.patch, s.batch, s.share) for s in stages(spec, config)]
    assert all(0 < stage.data_seconds < 10 * stage.seconds for stage in found.stages)
    assert set(found.limits) == {"sgemm", "convolution"} and min(found.limits.values()) > 1e7
    assert 0 < found.peak_share < 1 and found.rate > 0


def test_shares_are_means_over_the_runs_time() -> None:
    found = Profile((Cost((8,), 1, 0.3, 1.0, 0.1, 100), Cost((8,), 1, 0.6, 2.0, 0.8, 400)), {"sgemm": 250.0, "convolution": 500.0})
    assert found.data_share == pytest.approx((0.3 * 0.1 + 0.6 * 0.4) / 0.9)
    assert found.rate == pytest.approx((0.3 * 100 + 0.6 * 200) / 0.9) and found.peak_share == pytest.approx(found.rate / 500)
