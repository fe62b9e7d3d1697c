"""Axial, coronal and sagittal slices, upright; napari's own button to roll the axes shows a coronal one lying down."""

from __future__ import annotations

from functools import partial

from napari.components import ViewerModel
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

PLANES = {
    "Axial": (0, 1, 2),
    "Coronal": (1, 0, 2),
    "Sagittal": (2, 0, 1),
}  # of (I, P, L): hidden, downwards, to the right


def show_plane(viewer: ViewerModel, name: str) -> None:
    """Show slices of a plane; without three axes there is nothing to choose."""
    lead = viewer.dims.ndim - 3
    if lead >= 0:
        viewer.dims.ndisplay = 2
        viewer.dims.order = (*range(lead), *(lead + axis for axis in PLANES[name]))


class PlaneButtons(QWidget):
    """One button per plane."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name in PLANES:
            button = QPushButton(name)
            button.setToolTip(f"Show {name.lower()} slices; the model starts at the one on the screen")
            button.clicked.connect(partial(show_plane, viewer, name))
            layout.addWidget(button)
