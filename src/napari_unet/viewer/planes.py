"""Axial, coronal and sagittal slices, upright; napari's own button to roll the axes shows a coronal one lying down."""

from __future__ import annotations

from functools import partial

from napari.components import ViewerModel
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_unet.viewer.parts import button

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


def plane_on_screen(viewer: ViewerModel) -> str:
    """The plane whose slices are shown, as `show_plane` shows them; "" in 3-D, for a picture, and for any other order of axes."""
    lead = viewer.dims.ndim - 3
    if lead < 0 or viewer.dims.ndisplay != 2:
        return ""
    order = tuple(axis - lead for axis in viewer.dims.order[lead:])
    return next((name for name, axes in PLANES.items() if axes == order), "")


class PlaneButtons(QWidget):
    """One button per plane; that of the plane on the screen is down. A picture has no planes to choose."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        tip = "Show {} slices; the model starts at the one on the screen"
        self._buttons = {name: button(name, tip.format(name.lower()), partial(self._show, name)) for name in PLANES}
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for each in self._buttons.values():
            each.setCheckable(True)
            layout.addWidget(each)
        for change in ("order", "ndisplay", "ndim"):
            getattr(viewer.dims.events, change).connect(self._tell)
        self._tell()

    def _show(self, name: str, _: bool = False) -> None:
        show_plane(self._viewer, name)
        self._tell()  # the click has turned the button over, whether or not the plane is another

    def _tell(self, event: object = None) -> None:
        shown = plane_on_screen(self._viewer)
        for name, each in self._buttons.items():
            each.setChecked(name == shown)
            each.setEnabled(self._viewer.dims.ndim > 2)
