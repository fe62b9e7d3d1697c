"""The Segment widget: choose an image and a model, press Segment, watch the mask fill, correct it, save it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from napari.layers import Labels
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QFrame, QGridLayout, QScrollArea, QTabWidget, QWidget

from napari_unet.viewer import looking, worker
from napari_unet.viewer.advanced import AdvancedForm
from napari_unet.viewer.card import ModelCard
from napari_unet.viewer.choice import Choice
from napari_unet.viewer.correct import CorrectTab
from napari_unet.viewer.engine import Engine
from napari_unet.viewer.live import Slices
from napari_unet.viewer.model import Model
from napari_unet.viewer.panel import RunPanel
from napari_unet.viewer.parts import LayerBox, add_row, button, narrow, text
from napari_unet.viewer.run import Run
from napari_unet.viewer.saving import Keeper, ask_and_save
from napari_unet.viewer.table import MeasureTab
from napari_unet.viewer.work import Work
from napari_unet.warming import warm_up

PAUSE = 300  # ms in which an option has not changed, before the model is loaded for it
DRAWN = 500  # ms, after which the widget is drawn: to draw for the first time, and to open torch, wait for each other


class SegmentWidget(QScrollArea):
    """Gathers an image layer and a model, hands them to a `Run` or to `Slices`, and shows how far it is."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._engine = Engine()
        self._run: Run | None = None
        self._slices = Slices(self, napari_viewer)
        self._warm = False
        self._make()
        self._arrange()
        self._connect()
        self._show_model()
        self.reset_choices()

    # ---- what is there ------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        self._choice = Choice(self._viewer)
        self._image = self._choice.image
        self._card, self._hint = ModelCard(), text("")
        self._panel, self._advanced = RunPanel(), AdvancedForm()
        self._start, self._cancel = self._panel.start, self._panel.cancel
        self._mask = LayerBox(choices=lambda _: self._masks(), tooltip="The mask to correct, measure and save")
        self._save = button("Save…", "Save the mask on its image's own grid")
        self._keeper = Keeper(self._viewer)
        self._priming = QTimer(self, singleShot=True, interval=PAUSE)
        self._priming.timeout.connect(self._prime)
        self._warming = QTimer(self, singleShot=True, interval=DRAWN)
        self._warming.timeout.connect(self._warm_up)
        self._correct, self._measure = CorrectTab(self._viewer), MeasureTab(self._viewer)
        self._view = looking.ViewTab(self._viewer)
        self._pointer = text("")
        self._pointer.setMinimumHeight(2 * self.fontMetrics().lineSpacing())  # nothing moves when the second line comes
        self._pointer.setToolTip("Where the pointer is: the patient's right, anterior, superior in mm; the file's voxel; its value")

    def _arrange(self) -> None:
        page = QWidget()
        column = QGridLayout(page)
        column.setContentsMargins(0, 4, 0, 0)
        for number, part in enumerate((self._card, self._hint, self._panel)):
            column.addWidget(part, number, 0)
        column.setRowStretch(0, 99)  # the card grows as far as it is tall
        column.setRowStretch(3, 1)
        self._tabs = QTabWidget()
        tabs = {"Segment": page, "Correct": self._correct, "Measure": self._measure, "View": self._view, "Options": self._advanced}
        for name, part in tabs.items():
            self._tabs.addTab(part, name)
        content = QWidget()
        grid = QGridLayout(content)
        grid.setContentsMargins(6, 4, 6, 4)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        rows: tuple[tuple[str | QWidget, ...], ...] = (
            (self._keeper,),
            (self._choice,),
            (self._tabs,),
            ("Mask", narrow(self._mask.native), self._save),
            (self._pointer,),
        )
        for number, row in enumerate(rows):
            add_row(grid, number, row)
        grid.setRowStretch(2, 1)
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(content.minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width())

    def _connect(self) -> None:
        self._choice.changed.connect(self._options_changed)
        self._choice.model_changed.connect(self._show_model)
        self._image.changed.connect(lambda _: self._card.show_volumes({}))
        self._mask.changed.connect(self._refresh)
        self._start.clicked.connect(self.segment)
        self._cancel.clicked.connect(self.cancel)
        self._panel.this.clicked.connect(self.this_slice)
        self._panel.live.toggled.connect(self.follow)
        self._advanced.changed.connect(self._options_changed)
        self._slices.finished.connect(self._panel.slice_finished)
        self._slices.failed.connect(lambda: self._panel.live.setChecked(False))
        self._slices.failed.connect(self._panel.slice_failed)
        self._slices.unreachable.connect(self._panel.slice_unreachable)
        self._slices.became.connect(self._slice_at_work)
        self._save.clicked.connect(self._save_mask)
        self._bound = {key: self._bind(key, action) for key, action in self._keys().items()}
        self._viewer.mouse_move_callbacks.append(self._point)
        self._viewer.layers.selection.events.active.connect(self._follow_selection)

    def _bind(self, key: str, action: Callable[[], None]) -> tuple[Any, Any]:
        """What a key does from now on, and what it did before."""

        def act(_: Any) -> None:
            action()

        return act, self._viewer.bind_key(key, act, overwrite=True)

    def _keys(self) -> dict[str, Callable[[], None]]:
        return {"S": self.this_slice, **self._correct.keys()}

    # ---- what is chosen -----------------------------------------------------------------------------------------------

    def reset_choices(self, event: Any = None) -> None:
        """The layers have changed; napari calls it."""
        if self._image.value is not None and self._image.value not in self._viewer.layers:
            self._panel.live.setChecked(False)  # nobody asked for another image
        self._choice.reset_choices()
        with self._mask.changed.blocked():  # what follows refreshes, too
            self._mask.reset_choices()
        self._measure.reset_choices()
        if self._run and not self._run.filling.here():
            self._run.cancel()
        self._card.keep_to(self._viewer.layers)
        self._refresh()

    def add_model(self, path: Path) -> None:
        """Offer a weights file, and choose it; what cannot be read is said and not offered."""
        self._choice.add_model(path)

    @property
    def _model(self) -> Model | None:
        return self._choice.model

    def _show_model(self) -> None:
        if self._model:
            self._card.show_model(self._model)
            self._advanced.suit(self._model.calibrated)
        self._options_changed()

    def _options_changed(self) -> None:
        """Live goes on with the new choice, where it fits; the old one's answers stay where they are."""
        self._refresh()
        if self._slices.live:
            self.follow(True)
        if self._warm:
            self._priming.start()

    def _refresh(self) -> None:
        """Say what can be done, and allow that alone."""
        hint, ready = self._choice.judge()
        self._hint.setText(hint)
        self._hint.setVisible(bool(hint))
        self._card.setVisible(self._model is not None)
        running = self._run is not None
        self._panel.allow(ready=ready, running=running, slice_running=self._slices.busy)
        if not ready:
            self._panel.live.setChecked(False)
        self._panel.show_cost(self._work() if ready else None)
        mask = self._mask.value
        self._save.setEnabled(mask is not None and not running)
        self._correct.show_layer(mask)
        self._measure.show_layer(mask)
        self._view.show_layers(self._image.value, mask)

    def _masks(self) -> list[Labels]:
        return [layer for layer in self._viewer.layers if isinstance(layer, Labels)]

    def _work(self) -> Work | None:
        """What is chosen, ready to be done."""
        if self._model is None or self._image.value is None:
            return None
        options, more = self._advanced.options(), self._choice.channels.chosen()
        return Work.on_screen(self._engine, self._model, options, self._viewer, self._image.value, more, self._choice.series)

    # ---- what is done -------------------------------------------------------------------------------------------------

    def segment(self) -> None:
        """Start the model on the layer."""
        work = self._work()
        if work is None or self._run is not None:
            return
        self._panel.live.setChecked(False)
        self._slices.stop()
        self._keeper.keep()  # a run's own layer is kept only once it is over
        self._run = Run(self, self._viewer, work)
        self._run.progressed.connect(self._show_progress)
        self._run.ended.connect(self._finish)
        self._run.left.connect(self._panel.left)
        self._mask.value = self._run.filling.layer
        self._panel.started()
        self._card.show_volumes({})
        self._refresh()

    def cancel(self) -> None:
        """Stop whatever the model is doing."""
        if self._slices.at_work:
            self._panel.cancelling("stopped")
        self._panel.live.setChecked(False)
        self._slices.stop()
        if self._run:
            self._run.cancel()

    def this_slice(self) -> None:
        """Segment the slice on the screen."""
        work = self._work()
        if work is not None and self._panel.this.isEnabled():
            self._slices.this(work)

    def follow(self, live: bool) -> None:
        """Segment each slice as it is shown, or stop doing so."""
        self._slices.follow(self._work() if live else None)

    def _show_progress(self, done: int, total: int) -> None:
        if self._run is not None:
            self._panel.progressed(done, total, self._run.seconds_left(), self._run.volumes)

    def _slice_at_work(self, busy: bool) -> None:
        self._panel.allow(ready=self._choice.judge()[1], running=self._run is not None, slice_running=busy)
        self._panel.left(again=busy)

    def _finish(self, complete: bool) -> None:
        if self._run is None:
            return
        run, self._run = self._run, None
        filling, work, seconds = run.filling, run.work, run.seconds()
        if complete:
            if self._model == work.model and self._image.value is work.image:  # others may have been chosen meanwhile
                self._card.show_volumes(filling.volumes(), filling.layer)
            self._engine.learn(work.model.path, work.options, seconds / max(1, self._panel.voxels(work)))
        self._panel.ended(complete, filling.done, filling.total, run.volumes, run.at_work)
        self._refresh()
        self._measure.recount()
        QTimer.singleShot(0, self._keeper.keep)  # after the mask's last frame

    def _follow_selection(self, event: Any) -> None:
        """What is painted on is corrected, measured and saved, too; what was pointed at may be gone."""
        self._pointer.setText("")
        if isinstance(event.value, Labels) and event.value in self._mask.choices:
            self._mask.value = event.value

    def _save_mask(self) -> None:
        layer = self._mask.value
        if layer is not None and ask_and_save(self, layer, list(self._viewer.layers)) is not None:
            self._keeper.saved(layer)

    def _point(self, viewer: Any, event: Any) -> None:
        layer = viewer.layers.selection.active
        self._pointer.setText(looking.where(viewer, layer) if layer is not None else "")

    # ---- coming and going ---------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Warm up while the person chooses."""
        super().showEvent(event)
        if not self._warm:
            self._warm = True
            self._warming.start()

    def _warm_up(self) -> None:
        worker.in_thread(warm_up, _connect={"returned": self._prime, "errored": worker.show})

    def _prime(self, _: object = None) -> None:
        """Load the chosen model and time a window of it, so that the first slice comes at once and the cost is known."""
        if self._model is not None:
            path, options, spec = self._model.path, self._advanced.options(), self._model.spec
            # methods, not lambdas: Qt forgets them with the widget
            worker.in_thread(self._engine.prime, path, options, spec, _connect={"returned": self._primed, "errored": self._unprimed})

    def _primed(self, _: object) -> None:
        self._advanced.place.setText(self._engine.place)
        self._refresh()

    def _unprimed(self, _: Exception) -> None:
        """What is wrong with the model is told to who presses a button."""

    def event(self, event: QEvent) -> bool:
        """napari takes a closed dock widget out of its window, but does not delete it: it does so itself, after a run's last frame."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.cancel()
            self._leave()
            QTimer.singleShot(0, self.deleteLater)
        return bool(super().event(event))

    def _leave(self) -> None:
        """Give the viewer's keys and pointer back, and keep what a hand has done."""
        for key, (ours, before) in self._bound.items():
            now = self._viewer.bind_key(key, before, overwrite=True)
            if now is not ours:  # a person's since
                self._viewer.bind_key(key, now, overwrite=True)
        if self._point in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._point)
        self._viewer.layers.selection.events.active.disconnect(self._follow_selection)
        self._card.show_volumes({})
        self._warming.stop()
        self._priming.stop()
        self._keeper.close_session()

    def hideEvent(self, event: QHideEvent) -> None:
        """What is unsaved goes to disk; where the window went with it, at once: a thread would be begun too late, or outlive it."""
        super().hideEvent(event)
        self._keeper.keep(at_once=not self.window().isVisible())
