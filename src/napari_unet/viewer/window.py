"""napari's window, opened from the command line."""

from __future__ import annotations

from collections.abc import Iterable

import napari
from napari.layers import Layer

from napari_unet.errors import UNetError, first_line
from napari_unet.viewer.reader import read


def open_window(files: Iterable[str]) -> None:
    """napari with these files and the Segment widget, until it is closed. Raises UNetError before it opens."""
    try:
        import qtpy.QtWidgets  # noqa: F401 - napari's window is made of it, and napari does not bring it
    except ImportError as error:
        raise UNetError("napari", f"there is no Qt for its window ({first_line(error)})", "pip install 'napari-unet-monai[all]'") from None
    layers = [Layer.create(*layer) for path in files for layer in read(path)]
    viewer = napari.Viewer()
    for layer in layers:
        viewer.add_layer(layer)
    viewer.window.add_plugin_dock_widget("napari-unet-monai", "Segment")
    napari.run()
