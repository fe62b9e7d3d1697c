"""One segmentation, from the press of the button to its last slice."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.settings import get_plugin_settings
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalThrottler

from napari_unet.viewer import worker
from napari_unet.viewer.card import Model
from napari_unet.viewer.filling import Filling, label_dtype
from napari_unet.viewer.fit import takes_one_of_a_series
from napari_unet.viewer.layers import ScalarLayer, slice_on_screen, step_on_screen, volume_of
from napari_unet.volume import Volume

if TYPE_CHECKING:
    from napari_unet.segment import Piece

REDRAW_2D, REDRAW_3D = 100, 1500  # ms; in 3-D every redraw uploads the whole mask


class Run(QObject):
    """A model at work on a layer; the mask appears in the viewer at once and fills.

    Signals: `progressed(done, total)` in slices, then once `ended(complete)`. It is a child of the widget that started
    it, so that nothing of the worker's reaches a widget that is gone.
    """

    progressed = Signal(int, int)
    ended = Signal(bool)

    def __init__(self, parent: QObject, viewer: ViewerModel, image: ScalarLayer, model: Model) -> None:
        super().__init__(parent)
        self._viewer, spec = viewer, model.spec
        self.filling = Filling(viewer, image, spec)
        self._redraw = QSignalThrottler(parent=self)
        self._redraw.triggered.connect(self.filling.redraw)
        others = [layer for layer in viewer.layers if layer is not image]
        step = step_on_screen(viewer, image) if takes_one_of_a_series(spec, image) else None

        def read() -> Volume:
            volume = volume_of(image, others, spec.pictures)
            return volume if step is None else volume.channel(step)

        self._worker = worker.start(
            segmenting, model.path, chosen_device(), read, slice_on_screen(viewer, image, self.filling.grid), label_dtype(spec),
            what=f"Segmenting {image.name}", yielded=self._put, returned=self._complete, errored=self._fail,
            aborted=self._stop,
        )  # fmt: skip

    def cancel(self) -> None:
        """Stop; what is finished stays. The worker leaves after the step under way, and is not heard any more."""
        self._stop()
        if not self.filling.done and self.filling.here():
            self._viewer.layers.remove(self.filling.layer)  # an empty mask would look like a finding

    def _stop(self) -> None:
        if not self.filling.over:
            self._worker.quit()
            self.filling.stop()
            self._end(complete=False)

    def _put(self, piece: Piece) -> None:
        if self.filling.over:
            return
        if not self.filling.here():
            return self.cancel()
        if self.filling.put(piece.region, piece.labels, piece.done, piece.total):
            self._redraw.setTimeout(REDRAW_2D if self._viewer.dims.ndisplay == 2 else REDRAW_3D)
            self._redraw.throttle()
        self.progressed.emit(piece.done, piece.total)

    def _complete(self, labels: NDArray[Any]) -> None:
        if not self.filling.over:
            self.filling.complete(labels)
            self._end(complete=True)

    def _fail(self, error: Exception) -> None:
        worker.show(error)
        self.cancel()

    def _end(self, complete: bool) -> None:
        self._redraw.cancel()
        self.ended.emit(complete)


def chosen_device() -> str:
    """The person's preference (Preferences > napari-unet-monai)."""
    return str(get_plugin_settings("napari-unet-monai").running.device)


def segmenting(
    model: Path, device: str, read: Callable[[], Volume], first: tuple[int, int] | None, dtype: np.dtype[Any]
) -> Generator[Piece, None, NDArray[Any]]:
    """The work itself, for a worker thread: yields finished slices, returns the whole mask (i, j, k) when it is clean."""
    from napari_unet.segment import Segmenter

    segmenter, volume = Segmenter.load(model, device=device), read()
    labels = np.zeros(volume.shape, dtype)
    for piece in segmenter.stream(volume, first):
        labels[piece.region] = piece.labels
        yield piece
    return segmenter.clean(labels)
