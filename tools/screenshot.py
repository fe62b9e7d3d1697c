"""A picture of the real window with the Segment widget at work, for the documentation.

    xvfb-run -a -s "-screen 0 1920x1200x24" python tools/screenshot.py SCAN MODEL docs/images/segment.png

Waits until the given share of the slices is filled (--share, 0.5), and shows the plane in which that is seen.
"""

import argparse
import time
from collections.abc import Callable

import napari
from napari.layers import Layer
from qtpy.QtWidgets import QApplication, QPushButton, QWidget

from napari_unet.viewer.reader import read
from napari_unet.weights import find

SIZE = 1280, 720
PATIENCE = 600.0  # seconds


def wait(until: float, condition: Callable[[], object] = lambda: False) -> None:
    """Let the window work for so many seconds, or until something has happened."""
    end = time.monotonic() + until
    while time.monotonic() < end and not condition():
        QApplication.processEvents()
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan")
    parser.add_argument("model")
    parser.add_argument("picture")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--plane", default="Coronal", choices=["Axial", "Coronal", "Sagittal"])
    parser.add_argument("--start", default="Axial", choices=["Axial", "Coronal", "Sagittal"], help="plane that fills")
    options = parser.parse_args()

    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    _, widget = viewer.window.add_plugin_dock_widget("napari-unet-monai", "Segment")
    for layer in read(options.scan):
        viewer.add_layer(Layer.create(*layer))
    widget.add_model(find(options.model))
    press(widget, options.start)
    wait(1)
    widget.segment()
    filling = widget._run.filling
    wait(PATIENCE, lambda: filling.total and filling.done >= options.share * filling.total)
    if options.share < 1:
        press(widget, options.plane)
    wait(0.1)
    viewer.screenshot(options.picture, canvas_only=False, flash=False)
    wait(PATIENCE, lambda: widget._run is None)
    viewer.close()


def press(widget: QWidget, text: str) -> None:
    """Press the button with this text."""
    next(button for button in widget.findChildren(QPushButton) if button.text() == text).click()


if __name__ == "__main__":
    main()
