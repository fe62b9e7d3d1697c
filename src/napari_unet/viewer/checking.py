"""Which slices of a mask a person has looked at, and which one is to be checked next: the most uncertain of the others."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, QTimer

from napari_unet.viewer import screen
from napari_unet.viewer.answer import Answer
from napari_unet.viewer.filling import OF
from napari_unet.viewer.grids import grid_of

A_LOOK = 1000  # ms on the screen, from which on a slice was looked at


class OnScreen(NamedTuple):
    """Slices of a mask that has an uncertainty: along which axis, in which volume of a series, and which were looked at."""

    doubt: Image
    axis: int
    part: tuple[Any, ...]
    seen: set[int]


class Checked(QObject):
    """What was looked at of the masks of a viewer, along each axis and in each volume of a series; `layer` is the one that is checked."""

    def __init__(self, parent: QObject, viewer: ViewerModel) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.layer: Labels | None = None
        self._seen: dict[tuple[Any, ...], set[int]] = {}  # (uncertainty, axis, step of a series) -> slices
        self.resting = QTimer(self, singleShot=True, interval=A_LOOK)
        self.resting.timeout.connect(self._look)
        for change in ("current_step", "order", "ndisplay"):
            getattr(viewer.dims.events, change).connect(self._moved)

    def next(self) -> tuple[int | None, int] | None:
        """Show the slice with the most uncertainty of those not looked at in this direction: its number, and how many more there are.

        The number is None where all were looked at. None where the screen shows no slices of a mask with uncertainty.
        """
        if self.layer is None or (now := self._on_screen()) is None:
            return None
        self._look()
        scores = np.asarray(now.doubt.data)[now.part].sum(axis=tuple(a for a in range(3) if a != now.axis - len(now.part)))
        left = [int(n) for n in np.argsort(-scores, kind="stable") if n not in now.seen and scores[n] > 0]
        if not left:
            return None, 0
        now.seen.add(left[0])
        screen.show_slice(self._viewer, self.layer, now.axis, left[0])
        return left[0], len(left) - 1

    def doubt(self) -> Image | None:
        """The uncertainty that lies on the mask's grid, if there is some; of an answer, its own."""
        layer = self.layer
        if layer is None or layer not in self._viewer.layers or layer.ndim not in (3, 4):
            return None
        grid, answer = grid_of(layer, self._viewer.layers), Answer.in_layer(layer)
        for other in reversed(self._viewer.layers):
            if answer is not None and other.metadata.get(OF, answer.of) != answer.of:
                continue
            named = OF in other.metadata or "_uncertainty" in other.name
            if isinstance(other, Image) and named and other.data.shape == layer.data.shape:
                if grid_of(other, self._viewer.layers).affine.tolist() == grid.affine.tolist():
                    return other
        return None

    def _moved(self, event: object = None) -> None:
        self.resting.start()

    def _look(self) -> None:
        """The slice on the screen was looked at."""
        if self.layer is not None and (now := self._on_screen()) is not None:
            now.seen.add(screen.slice_index(self._viewer, self.layer, now.axis))

    def _on_screen(self) -> OnScreen | None:
        """What is there, where it is slices of a mask with its uncertainty."""
        doubt = self.doubt()
        axis = None if self.layer is None else screen.hidden_axis(self._viewer, self.layer)
        if self.layer is None or doubt is None or axis is None:
            return None
        part = screen.volume_on_screen(self._viewer, self.layer)
        return OnScreen(doubt, axis, part, self._seen.setdefault((doubt.unique_id, axis, *part), set()))
