"""What the viewer's tests share: Mesa's bug kept away, files on awkward grids, and a tiny model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hostile import SHAPE, affine_for
from napari.components import ViewerModel
from npe2 import PluginManager
from qtpy.QtCore import QThreadPool

from napari_unet import weights
from napari_unet.card import Card
from napari_unet.network import parameter_shapes
from napari_unet.spec import Channel, Label, ModelSpec, NetworkSpec
from napari_unet.volume import Affine

PLUGIN = "napari-unet-monai"
PATIENCE = 20_000  # ms

os.environ.setdefault("NAPARI_STRICT_QT", "raise")  # a widget that outlives its window is a fault


@pytest.fixture(autouse=True, scope="session")
def _mesa_keeps_its_programs() -> Iterator[None]:
    """Debian 12's software GL (Mesa 22.3) crashes on the frame after a program is deleted."""
    import vispy.gloo.glir as glir

    patch = pytest.MonkeyPatch()
    patch.setattr(glir.GlirProgram, "delete", lambda self: None)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _plugins_are_found() -> None:
    """What napari does when it starts; most tests here never start it."""
    PluginManager.instance().discover()


@pytest.fixture(autouse=True)
def _nothing_is_left_at_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recent models and unsaved masks go to a folder of this test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data_home")))


def tiny_spec(channels: int = 1, dims: int = 3, **changes: Any) -> ModelSpec:
    """Two classes, two levels; large enough to be a real model, small enough to run in milliseconds."""
    network = NetworkSpec(
        dims=dims, channels=channels, classes=3, features=(4, 8), kernels=((3,) * dims,) * 2,
        strides=((1,) * dims, (2,) * dims), encoder_convs=(1, 1), decoder_convs=(1,), deep_supervision=False,
    )  # fmt: skip
    spec = ModelSpec(
        name="tiny", network=network, channels=tuple(Channel(f"T{n + 1}") for n in range(channels)),
        labels=(Label(1, "anterior", "#e6194b"), Label(2, "posterior", "#3cb44b")), orientation="SAR",
        spacing=(0.0, 0.0, 0.0), patch=(8, 8, 8) if dims == 3 else (1, 8, 8),
    )  # fmt: skip
    return replace(spec, **changes)


def finished(widget, qtbot):
    """Wait for the end of a run."""
    qtbot.waitUntil(lambda: widget._run is None, timeout=PATIENCE)


def idle(widget, qtbot):
    """Wait until no single slice is in the making."""
    qtbot.waitUntil(lambda: not widget._slices.busy, timeout=PATIENCE)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the weights file of a tiny model that nobody trained."""
    card = Card(description="A model for tests.", data="none", licence="CC0", cases_scored=7, independent=True,
                dice={"anterior": 0.91, "posterior": 0.87, "mean": 0.89})  # fmt: skip

    def make(name: str = "tiny", spec: ModelSpec | None = None) -> Path:
        spec = spec or tiny_spec()
        rng = np.random.default_rng(3)
        tensors = {name: rng.normal(0, 0.5, shape) for name, shape in parameter_shapes(spec.network).items()}
        path = tmp_path_factory.mktemp("models") / f"{name}.safetensors"
        weights.save(path, spec, card, tensors)
        return path

    return make


@pytest.fixture
def viewer_model() -> ViewerModel:
    """A viewer without a window: layers, dims, reading and saving work."""
    return ViewerModel()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


@pytest.fixture
def nifti_file(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Path]:
    """Writes a NIfTI file with nibabel, the independent other side."""

    def make(name: str = "scan.nii.gz", *, data: np.ndarray | None = None, affine: Affine | None = None,
             sform_code: int = 1, qform_code: int = 1, units: tuple[str, str] = ("mm", "sec")) -> Path:  # fmt: skip
        data = rng.integers(-1000, 2000, SHAPE).astype(np.int16) if data is None else data
        image = nibabel.Nifti1Image(data, affine_for("LAS") if affine is None else affine)
        image.set_sform(image.affine, sform_code)
        image.set_qform(image.affine, qform_code)
        image.header.set_xyzt_units(*units)
        image.header["descrip"] = b"made by a test"
        nibabel.save(image, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """A window with the widget docked in it, as a person opens it."""

    def make(**options):
        viewer = make_napari_viewer(**options)
        _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "Segment")
        return viewer, widget

    yield make
    QThreadPool.globalInstance().waitForDone(PATIENCE)
    qtbot.wait(10)  # what the threads still had to say


@pytest.fixture
def slow_scan(nifti_file, rng):
    """Large enough, for windows of eight voxels, to be interrupted."""
    return nifti_file(
        "slow.nii.gz", data=rng.integers(0, 900, (32, 36, 32)).astype(np.int16), affine=affine_for("LSP", tilt=8)
    )
