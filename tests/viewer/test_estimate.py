"""What a run will cost is told before it runs, and is what the engine then does."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from conftest import tiny_spec
from hostile import affine_for

from napari_unet.preprocess import prepare
from napari_unet.segment import Segmenter
from napari_unet.viewer.engine import Engine
from napari_unet.viewer.estimate import cost
from napari_unet.viewer.options import Options
from napari_unet.volume import Volume
from napari_unet.windows import Tiling


@pytest.mark.parametrize(("dims", "changes"), [
    (3, {}), (3, {"overlap": 0.0}), (3, {"spacing": (2.0, 0.0, 1.0)}), (2, {}), (3, {"mirror_axes": (0, 2), "mirror_tta": True}),
])  # fmt: skip
def test_it_counts_the_voxels_that_the_network_sees(model_file, rng, dims, changes):
    spec = tiny_spec(dims=dims, **changes)
    segmenter = Segmenter.load(model_file(f"m{dims}{len(changes)}{sorted(changes)}", spec), device="cpu", runtime="torch")
    seen = []
    for network in segmenter.networks:
        network.register_forward_pre_hook(lambda _, inputs: seen.extend(window[:1].numel() for window in inputs[0]))
    volume = Volume(rng.normal(size=(19, 22, 26)).astype(np.float32), affine_for("PSR", tilt=9))
    for _ in segmenter.stream(volume):
        pass
    expected = cost(spec, volume, Options())
    assert expected.voxels == sum(seen) and expected.windows <= len(seen)
    assert 1 <= expected.first <= expected.windows


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("spacing", [(0.985, 1.015, 1.0), (4.1, 0.7, 0.31), (0.985, 0.5, 3.0)])
def test_it_counts_on_the_grid_that_is_prepared(dims, spacing, rng):
    spec = tiny_spec(dims=dims, spacing=(0.0 if dims == 2 else spacing[0], *spacing[1:]), overlap=0.0)
    volume = Volume(rng.normal(size=(88, 88, 88)).astype(np.float32), affine_for("PSR", (1, 1, 1)))
    tiling = Tiling.cover(prepare(volume, spec).size, spec.patch, spec.stride, spec.whole, spec.overlap)
    assert cost(spec, volume, Options()).windows == math.prod(map(len, tiling.starts))


def cube(side):
    """A volume of any size that takes no memory."""
    return Volume(np.broadcast_to(np.float32(0), (side, side, side)), np.eye(4))


def test_more_is_dearer():
    small, large = (cost(tiny_spec(), cube(n), Options()) for n in (32, 64))
    smooth = cost(tiny_spec(), cube(32), Options(overlap=0.75))
    assert small.memory < large.memory and small.voxels < large.voxels and small.voxels < smooth.voxels


def test_the_words():
    assert re.fullmatch(r"[\d,]+ windows, needs \d\.\d GB of [\d.]+ GB memory", cost(tiny_spec(), cube(64), Options()).words(None))
    huge = cost(tiny_spec(), cube(9000), Options())
    assert "⚠ more memory than there is" in huge.words(None) and "windows" in huge.words(None)
    assert "Takes 20 s, a slice 20 s" in cost(tiny_spec(), cube(8), Options()).words(20 / 512)


def test_an_engine_learns_its_pace_and_loads_a_model_once(model_file):
    engine, model = Engine(), model_file()
    assert engine.pace(model, Options()) is None
    engine.prime(model, Options(), tiny_spec())
    assert 0 < engine.pace(model, Options()) < 1
    assert engine.segmenter(model, Options()) is engine.segmenter(model, Options())
    first = engine.segmenter(model, Options())
    assert engine.segmenter(model, Options(mirror=True)) is not first
    model.write_bytes(model.read_bytes())  # trained anew, perhaps
    again = engine.segmenter(model, Options())
    assert again is not first and again is not engine.segmenter(model, Options(overlap=0.25))


def test_memory_is_told_for_the_runtime_that_the_model_runs_in(model_file):
    engine, model = Engine(), model_file()
    before = cost(tiny_spec(), cube(64), Options(), engine.in_flight, feature_maps=engine.feature_maps)
    assert before == cost(tiny_spec(), cube(64), Options())
    runtime = engine.segmenter(model, Options()).runtime
    assert (engine.in_flight, engine.feature_maps) == (runtime.in_flight, runtime.feature_maps)
    assert cost(tiny_spec(), cube(64), Options(), feature_maps=5).memory < before.memory
