"""A real napari window with the Segment widget, driven as a person drives it; for the scripts beside this file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import napari
from napari.layers import Layer
from qtpy.QtWidgets import QApplication, QPushButton, QWidget

from napari_unet.viewer.reader import read
from napari_unet.viewer.segment_widget import SegmentWidget
from napari_unet.weights import find

SIZE = 1280, 720
PATIENCE = 600.0  # seconds


def keep_programs() -> None:
    """Debian 12's software GL (Mesa 22.3) crashes on the frame after a program is deleted."""
    import vispy.gloo.glir as glir

    glir.GlirProgram.delete = lambda self: None


def wait(until: float, condition: Callable[[], object] = lambda: False) -> None:
    """Let the window work for so many seconds, or until something has happened."""
    end = time.monotonic() + until
    while time.monotonic() < end and not condition():
        QApplication.processEvents()
        time.sleep(0.002)


def press(widget: QWidget, text: str) -> None:
    """Press the button that begins with this text."""
    next(button for button in widget.findChildren(QPushButton) if button.text().startswith(text)).click()


def open_window() -> tuple[napari.Viewer, SegmentWidget, float]:
    """A viewer, the docked widget, and the seconds that docking it took."""
    keep_programs()
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    wait(1)
    began = time.perf_counter()
    _, widget = viewer.window.add_plugin_dock_widget("napari-unet-monai", "Segment")
    return viewer, widget, time.perf_counter() - began


def open_scan(viewer: napari.Viewer, path: str | Path) -> Layer:
    """A file as its layer."""
    (layer,) = (viewer.add_layer(Layer.create(*each)) for each in read(str(path)))
    return layer


def choose(widget: SegmentWidget, model: str | Path) -> None:
    """Choose a model and wait until it is loaded and timed."""
    widget.add_model(find(model))
    wait(PATIENCE, lambda: widget._panel.cost.text().startswith("Takes"))


def finish(widget: SegmentWidget) -> None:
    """Wait for a run's end."""
    wait(PATIENCE, lambda: widget._run is None)
