"""A mask that fills, slice by slice, while a model works."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_unet.spec import Label, ModelSpec
from napari_unet.viewer.layers import ScalarLayer, grid_of, new_labels, slice_on_screen


class Filling:
    """A new Labels layer in an image's place, which takes finished slices. It cannot be painted on until it is over.

    Parameters
    ----------
    viewer, image : where the layer goes, and the layer it belongs to.
    spec : the model, for its classes' values, names and colours.
    """

    def __init__(self, viewer: ViewerModel, image: ScalarLayer, spec: ModelSpec) -> None:
        self.viewer, self.over = viewer, False
        self.done = self.total = 0
        self.grid = grid_of(image, viewer.layers)
        values = np.zeros(image.data.shape[: image.ndim][-3:], label_dtype(spec))
        self._voxels = self.grid.stored(values)  # a view in the volume's own order
        self.layer = new_labels(image, self.grid, values, f"{image.name}_seg", **appearance(spec.labels))
        viewer.add_layer(self.layer)
        self.layer.editable = False  # what is painted now would be overwritten

    def here(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer in self.viewer.layers

    def put(self, region: tuple[slice, ...], labels: NDArray[Any], done: int, total: int) -> bool:
        """Write labels at a region of the volume's own (i, j, k); whether that can be seen at the moment."""
        if self.over:
            return False
        self._voxels[region] = labels
        self.done, self.total = done, total
        screen = slice_on_screen(self.viewer, self.layer, self.grid)
        return screen is None or region[screen[0]].start <= screen[1] < region[screen[0]].stop

    def redraw(self) -> None:
        """Show what was written since."""
        self.layer.refresh(extent=False, thumbnail=False, highlight=False)

    def complete(self, labels: NDArray[Any]) -> None:
        """The whole mask (i, j, k), after the model's last touch."""
        if not self.over:
            self._voxels[...] = labels
            self._end()

    def volumes(self) -> dict[int, float]:
        """Millilitres of each class, by its value; empty for pictures, whose pixels have no size."""
        if self.grid.header is None and not self.grid.kind:
            return {}
        ml = abs(np.linalg.det(self.grid.affine[:3, :3])) / 1000
        counts = np.bincount(np.asarray(self.layer.data).ravel())
        return {value: count * ml for value, count in enumerate(counts) if value and count}

    def stop(self) -> None:
        """Keep what is there, under a name that says that it is not all."""
        if not self.over:
            self.layer.name = f"{self.layer.name} ({self.done} of {self.total or '?'} slices)"
            self._end()

    def _end(self) -> None:
        self.over = True
        self.layer.editable = True  # starts an undo history that knows nothing of the slices written past it
        self.layer.refresh()


def label_dtype(spec: ModelSpec) -> np.dtype[Any]:
    """The type of the model's masks; napari's own default, uint8, ends at 255."""
    return np.dtype(np.uint8 if max(label.value for label in spec.labels) < 256 else np.uint16)


def appearance(labels: Iterable[Label]) -> dict[str, Any]:
    """A Labels layer's options that give classes their colours, and their names in the status bar."""
    classes = list(labels)
    colours: dict[int | None, str] = {label.value: label.colour for label in classes}
    return {
        "colormap": DirectLabelColormap(color_dict={**colours, 0: "transparent", None: "white"}),
        "features": {"index": [0, *colours], "class": ["background", *(label.name for label in classes)]},
    }
