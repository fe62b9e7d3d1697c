"""How the volume is looked at: from which side, through which window, in 3-D; and where the pointer is, in the patient's mm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.typing import NDArray
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QLabel, QRadioButton, QWidget

from napari_unet.viewer.grids import KEY, Grid
from napari_unet.viewer.parts import button
from napari_unet.viewer.screen import to_data
from napari_unet.viewer.table import names_of
from napari_unet.words import shortened

# level and width in Hounsfield units, as radiologists set them
WINDOWS = {"Brain": (40, 80), "Soft tissue": (50, 400), "Lung": (-600, 1500), "Bone": (400, 1800)}
LONGEST = 28  # letters of a layer's name beside the pointer's place: a value follows
SAMPLE = 1_000_000  # values that tell how bright an image is
FEW = 5  # of a lazy image's slices, along each axis but the last two: a chunk is read whole for one value of it
TURNING = 0.4  # of the canvas is left around a volume in 3-D, so that nothing leaves it when it is turned


def show_window(layer: Image, name: str) -> None:
    """Set an image's contrast to a CT window."""
    level, width = WINDOWS[name]
    low, high = level - width / 2, level + width / 2
    layer.contrast_limits_range = min(low, layer.contrast_limits_range[0]), max(high, layer.contrast_limits_range[1])
    layer.contrast_limits = low, high


def show_range(layer: Image) -> None:
    """Set an image's contrast to all that is in it, but the outermost half per cent on either side."""
    sample = _some_values(layer.data[-1] if layer.multiscale else layer.data)
    low, high = np.percentile(sample[np.isfinite(sample)], (0.5, 99.5)) if np.isfinite(sample).any() else (0.0, 1.0)
    layer.contrast_limits = (low, high) if low < high else (low, low + 1)


def _some_values(data: Any) -> NDArray[np.float64]:
    """Values from all over an array; of what is not in memory, those of a few slices."""
    if not isinstance(data, np.ndarray):
        steps = (max(1, -(-size // FEW)) for size in data.shape[:-2])
        data = np.asarray(data[tuple(slice(step // 2, None, step) for step in steps)])
    return np.asarray(data.flat[:: max(1, data.size // SAMPLE)], np.float64)


def set_side(viewer: ViewerModel, neurological: bool) -> None:
    """Radiological: the patient's right on the screen's left, as if one stood at the feet; neurological: the other way round."""
    down, _ = viewer.scene.camera.orientation2d
    viewer.scene.camera.orientation2d = (down, "left" if neurological else "right")


def is_neurological(viewer: ViewerModel) -> bool:
    """Which of the two sides is shown."""
    return str(viewer.scene.camera.orientation2d[1]) == "left"


def where(viewer: ViewerModel, layer: Any) -> str:
    """The pointer's place in the patient (RAS, mm), the voxel of the file, and its value; "" outside and for plain layers."""
    grid = layer.metadata.get(KEY) if isinstance(layer, Image | Labels) else None
    if not isinstance(grid, Grid) or not grid.kind or layer.ndim < 3:
        return ""
    index = np.rint(to_data(viewer, layer, viewer.cursor.position)).astype(int)
    if (index < 0).any() or (index >= layer.data.shape[: layer.ndim]).any():
        return ""
    voxel = grid.voxel_of(tuple(int(n) for n in index[-3:]))
    x, y, z = grid.affine[:3, :3] @ voxel + grid.affine[:3, 3]
    value = np.asarray(layer.data[tuple(index)])
    told = names_of(layer).get(int(value), f"{value}") if isinstance(layer, Labels) and not value.ndim else f"{value}"
    return f"R {x:.1f}  A {y:.1f}  S {z:.1f} mm   voxel {voxel[0]}, {voxel[1]}, {voxel[2]}   {shortened(layer.name, LONGEST)}: {told}"


class ViewTab(QWidget):
    """Sides, CT windows, and the result in 3-D."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Image | None = None
        grid = QGridLayout(self)
        grid.setContentsMargins(4, 4, 4, 4)
        grid.addWidget(QLabel("Side"), 0, 0)
        self._sides = QButtonGroup(self)
        for column, name in enumerate(("Radiological", "Neurological"), 1):
            choice = QRadioButton(name)
            choice.setToolTip("The patient's right is on the screen's " + ("left" if column == 1 else "right"))
            choice.setChecked(is_neurological(viewer) == (column == 2))
            self._sides.addButton(choice, column)
            grid.addWidget(choice, 0, column)
        self._sides.idClicked.connect(lambda column: set_side(viewer, column == 2))
        grid.addWidget(QLabel("Window"), 1, 0)
        self._windows = []
        for number, name in enumerate((*WINDOWS, "Automatic")):
            tip = f"CT: level {WINDOWS[name][0]}, width {WINDOWS[name][1]} HU" if name in WINDOWS else "From the image's own values"
            preset = button(name, tip, partial(self._show_window, name))
            self._windows.append(preset)
            grid.addWidget(preset, 1 + number // 2, 1 + number % 2)
        tip = "Show the mask's surfaces in 3-D; the plane buttons lead back"
        self._solid = button("3-D view of the mask", tip, self.show_solid)
        grid.addWidget(self._solid, 4, 0, 1, 3)
        grid.setRowStretch(5, 1)
        self._mask: Labels | None = None
        self._hidden: list[Image] = []
        self._slices: tuple[Any, float, tuple[float, ...]] | None = None  # the camera's centre and zoom, and the sliders, before 3-D
        viewer.dims.events.ndisplay.connect(self._show_again, position="last")  # napari takes the centre of 3-D along

    def show_layers(self, image: Image | None, mask: Labels | None) -> None:
        """What the buttons act on."""
        self._image, self._mask = image, mask
        for preset in self._windows:
            preset.setEnabled(image is not None and not image.rgb)
        self._solid.setEnabled(mask is not None and mask.ndim >= 3)

    def show_solid(self) -> None:
        """Surfaces of the mask; images, which would stand before it, are hidden until slices are shown again."""
        if self._mask is not None and self._mask in self._viewer.layers:
            if self._viewer.dims.ndisplay == 2:
                camera = self._viewer.scene.camera
                self._slices = camera.center, camera.zoom, self._viewer.dims.point
            self._mask.visible = True
            self._mask.iso_gradient_mode = "smooth"  # the fast one speckles
            self._hidden += [layer for layer in self._viewer.layers if isinstance(layer, Image) and layer.visible]
            for layer in self._hidden:
                layer.visible = False
            self._viewer.dims.ndisplay = 3
            self._viewer.reset_view(margin=TURNING)

    def _show_again(self, event: Any) -> None:
        if self._viewer.dims.ndisplay == 2:
            for layer in self._hidden:
                layer.visible = True
            self._hidden.clear()
            slices, self._slices = self._slices, None
            if slices is not None and len(slices[2]) == self._viewer.dims.ndim > 2:
                axis = self._viewer.dims.not_displayed[-1]  # the others have had a slider all the time
                self._viewer.dims.set_point(axis, slices[2][axis])
                self._viewer.scene.camera.center, self._viewer.scene.camera.zoom = slices[:2]

    def _show_window(self, name: str, _: bool = False) -> None:
        if self._image is not None:
            show_window(self._image, name) if name in WINDOWS else show_range(self._image)
