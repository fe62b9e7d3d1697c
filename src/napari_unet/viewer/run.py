"""One segmentation of a whole volume, or of all volumes of a series, from the press of the button to its last slice."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QObject, QTimer, Signal
from superqt.utils import QSignalThrottler

from napari_unet.viewer import worker
from napari_unet.viewer.filling import Filling, answer_layer
from napari_unet.viewer.screen import slice_on_screen
from napari_unet.viewer.work import Part, Work

HELPING = 0.005  # s
FRAME_2D, FRAME_3D = 100, 1500  # ms; in 3-D every redraw uploads the whole mask


class Run(QObject):
    """A model at work on a layer; the mask appears in the viewer at once and fills.

    It goes on with the layer that single slices were put into, if there is one, and leaves alone what was painted there.
    Signals: `progressed(done, total)` in slices, then once `ended(complete)`; `left()` when its worker is gone, which is later
    where it was cancelled. It is a child of the widget that started it, so that nothing of the worker's reaches a widget that is
    gone.
    """

    progressed = Signal(int, int)
    ended = Signal(bool)
    left = Signal()

    def __init__(self, parent: QObject, viewer: ViewerModel, work: Work) -> None:
        super().__init__(parent)
        self._viewer, self.work = viewer, work
        onto = answer_layer(viewer, work.of, unfinished=True)
        self.filling = Filling(viewer, work.image, work.model.spec, work.of, onto, work.options.uncertainty, work.series, work.name)
        self.volumes, self._whole = len(work.steps), 0  # how many are wanted, and how many are whole
        # whatever changes in a window with a canvas, all of it is composed anew: slices and progress share their frames
        self._frames = QSignalThrottler(QSignalThrottler.EmissionPolicy.Leading, parent=self)
        self._frames.triggered.connect(self._draw)
        self._waiting: deque[Part] = deque()
        self._settling: Iterator[None] = iter(())  # of a volume that is whole, or of the run's end
        self._said_all = self._completing = False  # though some of it may still wait
        self._helping = QTimer(self)
        self._helping.timeout.connect(self._help)
        self._last_frame = QTimer(self, singleShot=True)
        self._last_frame.timeout.connect(self._close)
        self.at_work, self._drawn = True, False  # whether its worker is; whether the last frame is
        self._started = time.monotonic()
        self._first: float | None = None  # when the first slice came: loading says nothing of the slices' pace
        self._worker = worker.start(
            work.parts, slice_on_screen(viewer, work.image, self.filling.grid), what=f"Segmenting {work.image.name}",
            yielded=self._put, returned=self._complete, errored=self._fail, aborted=self._abort, stoppable=True,
        )  # fmt: skip

    def seconds_left(self) -> float | None:
        """By the pace of the slices so far; None before there is one."""
        done, total = self.filling.done, self.filling.total
        if self._first is None or done < 2 or not total:
            return None
        return (time.monotonic() - self._first) / (done - 1) * (total - done)

    def seconds(self) -> float:
        """How long it has been at work, from the press of the button."""
        return time.monotonic() - self._started

    def cancel(self) -> None:
        """Stop; what is finished stays. The worker leaves after the window under way, and is not heard any more."""
        self._stop()
        if not self.filling.done:
            self.filling.discard()

    def _stop(self) -> None:
        if not self.filling.over:
            self._worker.quit()
            self._settle()
            while self._waiting:
                self._show(self._waiting.popleft())
                self._settle()
            self.filling.stop()
            self._end(self._completing)

    def _put(self, part: Part) -> None:
        """Slices come in bursts, with the last window that touches them: the viewer's thread takes them in small helpings."""
        if not self.filling.over:
            self._waiting.append(part)
            self._helping.start()

    def _leave(self) -> None:
        self.at_work = False
        self.left.emit()
        if self._drawn:
            self.deleteLater()

    def _abort(self) -> None:
        self._leave()
        self._stop()

    def _complete(self, _: object = None) -> None:
        self._leave()
        self._said_all = True
        if not self.filling.over:
            self._helping.start()

    def _help(self) -> None:
        until = time.monotonic() + HELPING
        while not self.filling.over and time.monotonic() < until:
            if not self.filling.here():
                return self.cancel()
            if next(self._settling, self) is not self:
                continue
            if self.filling.over:
                return self._end(complete=True)
            if self._waiting:
                self._show(self._waiting.popleft())
                continue
            if self._said_all and not self._completing:
                self._settling, self._completing = self.filling.completing(), True
                continue
            self._helping.stop()
            return

    def _show(self, part: Part) -> None:
        if not self.filling.here():
            return
        self._first = self._first or time.monotonic()
        if isinstance(part.found, np.ndarray):
            self._settling = self.filling.settling(part.found, part.step)
            self._whole += 1
        else:
            piece = part.found
            done, total = self._whole * piece.total + piece.done, self.volumes * piece.total
            self.filling.put(piece.region, piece.labels, done, total, piece.uncertainty, part.step)
        self._frames.setTimeout(FRAME_2D if self._viewer.dims.ndisplay == 2 else FRAME_3D)
        self._frames.throttle()

    def _settle(self) -> None:
        for _ in self._settling:
            pass

    def _draw(self) -> None:
        """How far it is, and the slice on the screen where it has changed."""
        self.progressed.emit(self.filling.done, self.filling.total)
        if self.filling.in_sight():
            self.filling.redraw()

    def _fail(self, error: Exception) -> None:
        self._leave()
        worker.show(error)
        self.cancel()

    def _end(self, complete: bool) -> None:
        self._helping.stop()
        self._waiting.clear()
        self._frames.cancel()
        self._last_frame.start(0)
        self.ended.emit(complete)

    def _close(self) -> None:
        """The last frame, apart from all else that the end brings; and the layers are nobody's but the viewer's."""
        self.filling.redraw()
        self._drawn = True
        if not self.at_work:
            self.deleteLater()
