"""What a person has drawn into a Shapes layer, as a part of a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Shapes
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QWidget
from skimage.draw import polygon
from superqt.utils import QSignalThrottler

from napari_unet.errors import UNetError
from napari_unet.viewer.grids import units_in
from napari_unet.viewer.parts import button, heading

AREAS = ("rectangle", "ellipse", "polygon")  # lines and paths enclose nothing
CORNERS = 180  # of the polygon that stands for an ellipse
FLAT = 0.5  # voxels: a shape that rises by less lies in a slice
WHOLE = "the whole image"
SETTLING = 150  # ms from a stroke to a new count


def region_of(shapes: Shapes, mask: Labels) -> NDArray[np.bool_]:
    """The voxels of a mask (its last three axes, or two) whose centres lie in one of a layer's shapes.

    A shape reaches through all slices of the plane that it was drawn in, and all steps of a series. Raises UNetError where
    no shape encloses anything, and where one lies in no slice.
    """
    shape = mask.data.shape[-3:]
    inside = np.zeros(shape, bool)
    outlines = [_outline(kind, corners) for kind, corners in zip(shapes.shape_type, shapes.data, strict=True) if kind in AREAS]
    if not outlines:
        raise UNetError(f"layer {shapes.name!r}", "it has no area", "Draw a rectangle, an ellipse or a polygon in it")
    for outline in outlines:
        points = np.array([_in_mask(shapes, mask, point) for point in outline])
        axis = _hidden_axis(points, shapes.name) if len(shape) == 3 else None
        plane = [a for a in range(len(shape)) if a != axis]
        area = np.zeros([shape[a] for a in plane], bool)
        area[polygon(*points[:, plane].T, area.shape)] = True
        inside |= area if axis is None else np.expand_dims(area, axis)
    return inside


def _outline(kind: str, corners: NDArray[Any]) -> NDArray[np.float64]:
    """A shape as a polygon, in its layer's coordinates; an ellipse is given by the corners of the rectangle around it."""
    if kind != "ellipse":
        return np.asarray(corners, float)
    centre, along, across = corners.mean(0), (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)[:, None]
    return np.asarray(centre + np.cos(angle) * along + np.sin(angle) * across)


def _in_mask(shapes: Shapes, mask: Labels, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """A point of a Shapes layer in the mask's last three axes, or two; axes that it does not have stand at 0."""
    world, common = np.zeros(max(mask.ndim, shapes.ndim)), min(mask.ndim, shapes.ndim)
    world[-shapes.ndim :] = shapes.data_to_world(point)
    world[-common:] *= [units_in(*pair) for pair in zip(shapes.units[-common:], mask.units[-common:], strict=True)]
    return np.asarray(mask.world_to_data(world)[-min(mask.ndim, 3) :])


def _hidden_axis(points: NDArray[np.float64], name: str) -> int:
    """The axis across which a shape is flat."""
    rise = np.ptp(points, axis=0)
    axis = int(rise.argmin())
    if rise[axis] > FLAT:
        raise UNetError(f"layer {name!r}", "one of its shapes lies in no slice of the mask", "Draw it while slices are shown (2-D)")
    return axis


class RegionChoice(QWidget):
    """The whole image, or what is drawn into one of the viewer's Shapes layers. `changed()` when it is another region."""

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._shapes: Shapes | None = None
        self.layers = QComboBox()
        self.layers.setToolTip("What is measured: everything, or what lies in a Shapes layer's shapes, through all slices of their plane")
        self.draw = button("Draw…", "Draw a rectangle on the image, and measure within; more shapes add to the region")
        self._settled = QSignalThrottler(QSignalThrottler.EmissionPolicy.Trailing, parent=self)
        self._settled.setTimeout(SETTLING)
        self._settled.triggered.connect(self.changed)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(heading("Within", self.layers))
        row.addWidget(self.layers, 1)
        row.addWidget(self.draw)
        self.reset_choices()
        self.layers.currentIndexChanged.connect(self._choose)

    @property
    def shapes(self) -> Shapes | None:
        """The chosen layer; None is the whole image."""
        return self._shapes

    def reset_choices(self) -> None:
        """The layers have changed; where the chosen one is gone, the whole image is measured again."""
        there = [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]
        self.layers.blockSignals(True)
        self.layers.clear()
        self.layers.addItem(WHOLE, None)
        for layer in there:
            self.layers.addItem(layer.name, layer)
        self.layers.setCurrentIndex(there.index(self._shapes) + 1 if self._shapes in there else 0)
        self.layers.blockSignals(False)
        if self._shapes not in (None, *there):
            self._choose()

    def begin(self, mask: Labels) -> None:
        """A new Shapes layer in a mask's place, ready to be drawn into, is the region."""
        place = {name: getattr(mask, name) for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels", "affine", "ndim")}
        shapes = Shapes(name="region", edge_width=0.5, edge_color="yellow", face_color="transparent", **place)
        self._viewer.dims.ndisplay = 2
        self._viewer.add_layer(shapes)
        shapes.mode = "add_rectangle"
        self.reset_choices()
        self.layers.setCurrentIndex(self.layers.findText(shapes.name))

    def _choose(self, _: int = 0) -> None:
        if self._shapes is not None:
            self._shapes.events.data.disconnect(self._drawn)
        self._shapes = self.layers.currentData()
        if self._shapes is not None:
            self._shapes.events.data.connect(self._drawn)
        self.changed.emit()

    def _drawn(self, event: Any = None) -> None:
        self._settled.throttle()
