"""Where the plugin keeps what it remembers: recent models, results not yet saved."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QStandardPaths

from napari_unet import files


def folder(*parts: str) -> Path:
    """A folder of the plugin's own in the person's data folder, made where it is missing. Raises UNetError."""
    home = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericDataLocation)
    return files.make_folder(Path(home, "napari-unet", *parts))
