"""The buttons that set a model to work, what that will cost, and how far it is."""

from __future__ import annotations

from qtpy.QtWidgets import QGridLayout, QProgressBar, QWidget

from napari_unet.errors import UNetError
from napari_unet.viewer.estimate import Cost, cost
from napari_unet.viewer.parts import button, text
from napari_unet.viewer.work import Work
from napari_unet.words import counted, duration

CANCELLING = "cancelling…"


class RunPanel(QWidget):
    """This slice, Live, Segment, Cancel; a line of cost; progress."""

    def __init__(self) -> None:
        super().__init__()
        self.this = button("This slice  S", "Segment the slice on the screen; Ctrl+Z takes it back")
        self.live = button("Live", "Segment each slice as the slider comes to it, in any plane")
        self.live.setCheckable(True)
        self.start = button("Segment", "Run the model; the mask fills from the slice on the screen outwards")
        self.cancel = button("Cancel", "Stop; the slices that are finished stay")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.cost, self.state = text(""), text("")
        self._then = ""  # what is said when nothing is computed any more
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.this, 0, 0)
        grid.addWidget(self.live, 0, 1)
        grid.addWidget(self.start, 1, 0)
        grid.addWidget(self.cancel, 1, 1)
        for row, part in enumerate((self.cost, self.bar, self.state), 2):
            grid.addWidget(part, row, 0, 1, 2)
        grid.setColumnStretch(0, 3)
        grid.setColumnStretch(1, 2)

    def allow(self, *, ready: bool, running: bool, slice_running: bool) -> None:
        """What can be pressed now."""
        self.start.setEnabled(ready and not running)
        self.this.setEnabled(ready and not running)
        self.live.setEnabled(ready and not running)
        self.cancel.setEnabled(running or slice_running)
        self.bar.setVisible(running)
        self.cost.setVisible(bool(self.cost.text()) and not running)
        self.state.setVisible(bool(self.state.text()))

    def show_cost(self, work: Work | None) -> None:
        """What a whole volume will cost."""
        found = None if work is None else _cost(work)
        self.cost.setText("" if work is None or found is None else found.words(work.engine.pace(work.model.path, work.options)))
        self.cost.setVisible(bool(self.cost.text()) and not self.bar.isVisible())

    def voxels(self, work: Work) -> int:
        """What the network computes in a run, in voxels of its windows."""
        found = _cost(work)
        return found.voxels if found else 0

    # ---- how far it is ------------------------------------------------------------------------------------------------

    def started(self) -> None:
        """A run has begun."""
        self.bar.setRange(0, 0)
        self._say("loading the model")

    def progressed(self, done: int, total: int, seconds_left: float | None, volumes: int = 1) -> None:
        """So many slices are there, of all volumes together."""
        self.bar.setUpdatesEnabled(False)  # else it paints itself at once, and the canvas with it
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        self.bar.setUpdatesEnabled(True)
        left = "" if seconds_left is None or done == total else f", {duration(seconds_left)} left"
        behind = max(done - 1, 0) * volumes // total  # whole volumes
        place = "" if volumes == 1 else f"volume {behind + 1} of {volumes}, "
        self._say(f"{place}slice {done - behind * total // volumes} of {total // volumes}{left}")

    def ended(self, complete: bool, done: int, total: int, volumes: int = 1, at_work: bool = False) -> None:
        """A run is over, where it is not still at work on its last window."""
        if complete:
            return self._say(f"{counted(total, 'slice')}, done" if volumes == 1 else f"{volumes} volumes, {counted(total, 'slice')}, done")
        words = f"stopped after {done} of {counted(total, 'slice')}" if done else "stopped before the first slice"
        self.cancelling(words) if at_work else self._say(words)

    def cancelling(self, then: str) -> None:
        """What was cancelled is not over until the model is through with its window."""
        self._then = then
        self.cancel.setEnabled(False)
        self._say(CANCELLING)

    def left(self, again: bool = False) -> None:
        """Now it is: said unless something else was said since, or the model is at work again."""
        if self.state.text() == CANCELLING:
            self._say("" if again else self._then)

    def slice_finished(self, seconds: float) -> None:
        """A single slice is there."""
        self._say(f"this slice took {seconds:.1f} s")

    def slice_unreachable(self, why: str) -> None:
        """There is no answer for the slice on the screen alone."""
        self._say(why)

    def slice_failed(self) -> None:
        """It is told elsewhere why; what was said of an earlier one is no longer true."""
        self._say("")

    def _say(self, words: str) -> None:
        self.state.setText(words)
        self.state.setVisible(bool(words))


def _cost(work: Work) -> Cost | None:
    try:
        engine = work.engine
        return cost(work.model.spec, work.outline(), work.options, engine.in_flight, len(work.steps), engine.feature_maps)
    except UNetError:
        return None
