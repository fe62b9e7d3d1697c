"""Single slices: the one on the screen at the press of a key, or each one as it comes onto the screen."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_unet.viewer import worker
from napari_unet.viewer.answer import EVERY, Answer
from napari_unet.viewer.filling import answer_layer, empty_mask
from napari_unet.viewer.grids import Grid, grid_of
from napari_unet.viewer.layers import is_picture
from napari_unet.viewer.screen import is_on_screen, slice_on_screen, step_on_screen
from napari_unet.viewer.work import Work

if TYPE_CHECKING:
    from napari_unet.segment import Piece

AHEAD = 9  # slices that Live finishes around the one it was asked for: scrolling on then waits for nothing
Slice = tuple[int, int] | None  # (axis, index) of the volume's own (i, j, k); None is a picture

EVENTS = ("current_step", "order", "ndisplay")


class Slices(QObject):
    """Puts single slices of a model's answer into a layer that begins with the first of them.

    One slice is in the making at most, and the newest wish replaces any older one. What was painted stays; what was
    filled once is not asked for again, but by the person.

    Signals: `finished(seconds)` with each slice that was waited for, `failed()`, `became(busy)`,
    `unreachable(why)` where the model has no answer for the slice on the screen alone.
    """

    finished = Signal(float)
    failed = Signal()
    became = Signal(bool)
    unreachable = Signal(str)

    def __init__(self, parent: QObject, viewer: ViewerModel) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._work: Work | None = None
        self._live: Work | None = None
        self._wish: tuple[Work, Slice, bool] | None = None  # what, where, and whether a person asked for it
        self._at_work: tuple[Work, Slice, bool] | None = None
        self._worker: worker.GeneratorWorker | None = None
        self._asked = 0.0
        self._arrived = False

    @property
    def busy(self) -> bool:
        """Whether a slice is in the making, or will be."""
        return self._at_work is not None or self._wish is not None

    @property
    def at_work(self) -> bool:
        """Whether a worker is still there, wanted or not."""
        return self._worker is not None

    @property
    def live(self) -> bool:
        """Whether the slider is followed."""
        return self._live is not None

    def this(self, work: Work) -> None:
        """Segment the slice on the screen, as one step that can be undone."""
        where = self._on_screen(work)
        if why := self._why_not(work, where):
            self.unreachable.emit(why)
        else:
            self._ask((work, where, True))

    def follow(self, work: Work | None) -> None:
        """Segment each slice as it is shown, from now on; None ends it."""
        events = self._viewer.dims.events
        for name in EVENTS:
            getattr(events, name).disconnect(self._look)
            if work is not None:
                getattr(events, name).connect(self._look)
        self._live = work
        if work is None:
            self._wish = None
            if self._at_work is not None and not self._at_work[2]:
                self.stop()
        else:
            self._look()

    def stop(self) -> None:
        """Forget what is in the making; its worker leaves after the window under way, and is not heard any more."""
        self._wish = self._at_work = None
        if self._worker is not None:
            self._worker.quit()

    # ---- the way of a slice -------------------------------------------------------------------------------------------

    def _on_screen(self, work: Work) -> Slice:
        return slice_on_screen(self._viewer, work.image, self._grid(work))

    def _why_not(self, work: Work, where: Slice) -> str:
        """Why there is no answer for it alone; "" where there is one."""
        if where is None and not is_picture(work.image):
            return "show slices, in 2-D, or press Segment"
        if where is not None and not is_on_screen(self._viewer, work.image):
            return "the slice on the screen lies outside the image"
        return "" if work.reaches(where) else "the model reads slices of another plane: show that one, or press Segment"

    def _grid(self, work: Work) -> Grid:
        return grid_of(work.image, self._viewer.layers)

    def _look(self, event: object = None) -> None:
        """Live: what is on the screen now, unless it was filled already."""
        work = self._live
        if work is None:
            return
        if work.image not in self._viewer.layers:
            return self.follow(None)
        if work.step is not None:  # the slider may have gone on to the next volume of the series
            work = replace(work, step=step_on_screen(self._viewer, work.image))
            self._show_step(work)
        where = self._on_screen(work)
        if why := self._why_not(work, where):
            return self.unreachable.emit(why)
        layer = answer_layer(self._viewer, work.of)
        if layer is not None and self._filled(work, layer, where):
            self._wish = None
            return
        self._ask((work, where, False))

    def _show_step(self, work: Work) -> None:
        """Of a series whose volumes have masks of their own, which lie on one another: the one on the screen is shown, and chosen."""
        for layer in list(self._viewer.layers):
            answer = Answer.in_layer(layer) if isinstance(layer, Labels) else None
            if answer is not None and answer.of[:2] == work.of[:2] and not work.series and answer.of[2] != EVERY:
                chosen = not layer.visible and answer.of == work.of
                layer.visible = answer.of == work.of
                if chosen:
                    self._viewer.layers.selection.active = layer

    def _filled(self, work: Work, layer: Labels, where: Slice) -> bool:
        answer, grid = Answer.of_layer(layer), self._grid(work)
        answer.forget_undone(layer)
        region = [slice(None)] * 3
        if where is not None:
            region[where[0]] = slice(where[1], where[1] + 1)
        return bool(answer.filled[grid.shown_region(tuple(region), layer.ndim, work.step or 0)].all())

    def _ask(self, wish: tuple[Work, Slice, bool]) -> None:
        if self._at_work is not None and _same(self._at_work, wish) and not self._arrived:
            return
        self._wish, self._asked = wish, time.monotonic()
        if self._worker is not None:
            self._worker.quit()  # its slice is not shown any more
            if self._at_work is None:  # it was stopped, and has not left yet
                self.became.emit(True)
        else:
            self._begin()

    def _begin(self) -> None:
        if self._wish is None:
            return
        (work, where, person), self._wish = self._wish, None
        self._at_work, self._arrived = (work, where, person), False
        self.became.emit(True)
        self._worker = worker.start(
            work.slices, where, 1 if person else AHEAD, what=f"Segmenting a slice of {work.image.name}",
            yielded=self._put, returned=self._end, errored=self._fail, aborted=self._end, quiet=True, stoppable=True,
        )  # fmt: skip

    def _put(self, piece: Piece) -> None:
        if self._at_work is None:
            return  # it was stopped; what is wished for since comes after it
        if self._at_work[0].image not in self._viewer.layers:
            return self.stop()
        work, _, person = self._at_work
        layer = answer_layer(self._viewer, work.of)
        if layer is None:
            layer = empty_mask(work.image, self._grid(work), work.model.spec, work.of, work.series, work.name)
            self._viewer.add_layer(layer)
        answer, grid = Answer.of_layer(layer), self._grid(work)
        region = grid.shown_region(piece.region, layer.ndim, work.step or 0)
        labels = grid.shown(piece.labels).reshape(answer.said[region].shape)
        if person or (answer.touched(layer, region) and not answer.filled[region].all()):
            answer.write_undoable(layer, region, labels)  # Undo takes it back before the stroke that it lies around
        elif not answer.filled[region].all():
            answer.write(layer, region, labels)
        if not self._arrived:
            self._arrived = True
            layer.refresh(extent=False, thumbnail=False, highlight=False)
            self.finished.emit(time.monotonic() - self._asked)

    def _fail(self, error: Exception) -> None:
        worker.show(error)
        self._wish = None
        self.failed.emit()
        self._end()

    def _end(self, _: object = None) -> None:
        self._worker = self._at_work = None
        if self._wish is None:
            self.became.emit(False)
        self._begin()


def _same(one: tuple[Work, Slice, bool], two: tuple[Work, Slice, bool]) -> bool:
    """Whether the second wish is the first one over again."""
    (work, *where), (other, *there) = one, two
    return (work.of, work.step, work.options, where) == (other.of, other.step, other.options, there)
