"""A NIfTI file that is written slice by slice is the one that is written at once, in memory that does not grow with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import _one_thread  # noqa: F401 - a fixture
from engine import model_spec, network_spec, random_network, volume
from test_cli import Outcome, call  # noqa: F401 - a fixture

from napari_unet import Segmenter, images, intensities, preprocess, spool, weights
from napari_unet.batch import segment_all
from napari_unet.card import Card
from napari_unet.cases import find_images
from napari_unet.components import Cleaning
from napari_unet.spec import ModelSpec
from napari_unet.spool import Draft
from napari_unet.targets import jobs_for, uncertainty_beside
from napari_unet.volume import Volume

KINDS: dict[str, tuple[Any, float]] = {
    "uint8": (np.uint8, 200), "uint16": (np.uint16, 999), "small": (np.uint16, 9), "float": (np.float32, 1)
}  # fmt: skip


def slices(values: np.ndarray, axis: int) -> list[tuple[tuple[slice, ...], np.ndarray]]:
    """All of an array in slices along an axis, from the middle outwards, and where they belong."""
    regions = [tuple(slice(n, n + 1) if a == axis else slice(0, size) for a, size in enumerate(values.shape))
               for n in sorted(range(values.shape[axis]), key=lambda n: abs(n - values.shape[axis] // 2))]  # fmt: skip
    return [(region, values[region]) for region in regions]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_file_that_is_written_at_once(
    kind: str, axis: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SLAB", 700)  # several slabs, the last of which is not whole
    dtype, high = KINDS[kind]
    image = volume((7, 9, 11), "LIP", tilt=12)
    values = (np.random.default_rng(axis).random(image.shape) * high).astype(dtype)
    draft = Draft(tmp_path / f"drafted{suffix}", image, np.dtype(dtype), axis, kind != "float")
    for region, part in slices(values, axis):
        draft[region] = part
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")], "it has its name when it is whole"
    draft.commit()
    draft.close()
    images.write(tmp_path / f"at_once{suffix}", image.with_data(values), labels=kind != "float")
    assert {path.name for path in tmp_path.iterdir()} == {f"drafted{suffix}", f"at_once{suffix}"}
    assert (tmp_path / f"drafted{suffix}").read_bytes() == (tmp_path / f"at_once{suffix}").read_bytes()


def saved(path: Path, spec: ModelSpec) -> Path:
    weights.save(path, spec, Card(), {name: value.numpy() for name, value in random_network(spec.network).state_dict().items()})
    return path


@pytest.mark.parametrize("orientation", ["RAS", "ASR", "PIL"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_mask_is_the_same_whether_it_is_held_or_not(
    call: Callable[..., Outcome], dims: int, orientation: str, tmp_path: Path  # noqa: F811
) -> None:
    """The slices run along each of the file's axes; what is held is a mask that is cleaned, here of nothing."""
    spec = model_spec(network_spec(dims, classes=3))
    model = saved(tmp_path / "m.safetensors", spec)
    images.write(tmp_path / "a.nii.gz", volume((16, 18, 20), orientation), labels=False)
    for name, flags in (("streamed", ()), ("held", ("--smallest", "0.0001"))):
        ask = ("predict", model, tmp_path / "a.nii.gz", "--out", tmp_path / name / "m.nii.gz", "--uncertainty", *flags)
        assert call(*ask).code == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("streamed", "held"))
    assert one == two and one.keys() == {"m.nii.gz", "m_uncertainty.nii.gz"}
    assert len(np.unique(images.read_labels(tmp_path / "held/m.nii.gz").data)) == 3


@pytest.mark.parametrize("dims", [2, 3])
def test_memory_over_the_image_does_not_grow_with_the_mask(dims: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the slices, with an uncertainty of four bytes for each voxel."""
    monkeypatch.setattr(spool, "SLAB", 1 << 14)
    monkeypatch.setattr(intensities, "SLAB", 1 << 15)
    monkeypatch.setattr(preprocess, "SMALL", 1 << 15)
    spec = replace(model_spec(network_spec(dims)), patch=(1, 64, 64) if dims == 2 else (8, 32, 32), overlap=0.0)
    segmenter, peaks = Segmenter(spec, random_network(spec.network), uncertainty=True), []
    for count in (40, 160):
        image = Volume(np.tile(volume((64, 64, 40)).data, (1, 1, count // 40)), np.eye(4))
        images.write(tmp_path / f"a{count}.nii", image, labels=False)
        (job,) = jobs_for(find_images([tmp_path / f"a{count}.nii"]), tmp_path / f"m{count}.nii.gz", uncertainty=True)
        tracemalloc.start()
        try:
            assert not [step for step in segment_all(segmenter, [job], Cleaning()) if step.error]
            peaks.append(tracemalloc.get_traced_memory()[1] - image.data.nbytes)
        finally:
            tracemalloc.stop()
        assert uncertainty_beside(job.mask).exists()
    print(f"{peaks[0] / 1e3:.0f} and {peaks[1] / 1e3:.0f} kB")
    assert peaks[1] < peaks[0] + 64 * 64 * 40  # a byte per voxel of a quarter of the mask


def test_what_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    spec = model_spec(network_spec(2))
    images.write(tmp_path / "a.nii", volume(), labels=False)
    (job,) = jobs_for(find_images([tmp_path / "a.nii"]), tmp_path / "m.nii.gz")
    steps = segment_all(Segmenter(spec, random_network(spec.network)), [job], Cleaning())
    while next(steps).done < 3:
        pass
    steps.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii"]


@pytest.mark.skipif(os.name == "nt", reason="limits are POSIX's")
def test_a_full_disk_is_met_before_the_first_slice(tmp_path: Path) -> None:
    code = """
import resource, sys
from napari_unet.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 18 * 20 - 1, 1 << 30))
sys.exit(main(sys.argv[1:]))
"""
    images.write(tmp_path / "a.nii", volume((16, 18, 20)), labels=False)
    model = saved(tmp_path / "m.safetensors", model_spec(network_spec(2)))
    ask = ["predict", str(model), str(tmp_path / "a.nii"), "--out", str(tmp_path / "m.nii.gz")]
    found = subprocess.run([sys.executable, "-c", code, *ask], capture_output=True, text=True, check=False)
    assert found.returncode == 2 and "slice 1 " not in found.stderr
    assert "m.nii.gz: cannot be written (File too large). Free some space" in found.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii", "m.safetensors"}
