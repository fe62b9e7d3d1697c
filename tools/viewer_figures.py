"""How quick the viewer is, measured in a real window: opening, one slice, and the longest time its thread was not free.

    xvfb-run -a -s "-screen 0 1920x1200x24" python tools/viewer_figures.py SCAN MODEL [--slices 40] [--runs 5]

A timer of 2 ms in the viewer's thread tells how long it was not free: the longest gap between two of its ticks, in each of
several runs of so many slices. A gap is made of what the thread computes, which is told beside it, and of waiting: for a
processor, where others want it too, and for the window to be drawn, which happens in other threads where there is no GPU.
What drawing alone costs, one frame without any run tells.
"""

import argparse
import os
import time
from statistics import median

import napari
from qtpy.QtCore import QTimer
from window import PATIENCE, choose, finish, open_scan, open_window, press, wait

from napari_unet.viewer.segment_widget import SegmentWidget


class Stalls:
    """The gaps between a timer's ticks, in ms, and what the thread computed in each of them."""

    def __init__(self) -> None:
        self.gaps: list[tuple[float, float]] = []
        self._last = self._now()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(2)

    @staticmethod
    def _now() -> tuple[float, float]:
        return 1000 * time.perf_counter(), 1000 * time.thread_time()

    def _tick(self) -> None:
        now = self._now()
        self.gaps.append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now

    def stop(self) -> tuple[float, float]:
        """The longest gap, and the most that was computed within one."""
        self._timer.stop()
        self._tick()
        return max(gap for gap, _ in self.gaps), max(computed for _, computed in self.gaps)


def say(what: str, stalls: list[tuple[float, float]]) -> None:
    """One line of the table."""
    gaps, computed = zip(*stalls, strict=True)
    found = f"longest gap {median(gaps):.0f} ms ({max(gaps):.0f} at most)"
    print(f"{what}: {found}; computed in one {median(computed):.0f} ms ({max(computed):.0f} at most)")


def one_frame(viewer: napari.Viewer) -> tuple[float, float]:
    """The gap that drawing the window once makes, while nothing else is done."""
    wait(0.15)
    stalls = Stalls()
    viewer.window._qt_viewer.canvas.native.update()
    wait(0.25)
    return stalls.stop()


def one_slice(viewer: napari.Viewer, widget: SegmentWidget, step: int) -> float | None:
    """Seconds from the click to the labels of a slice, so many after the middle one; None where a 2-D model reads another plane."""
    axis = viewer.dims.not_displayed[-1]
    viewer.dims.set_current_step(axis, int(viewer.dims.nsteps[axis]) // 2 + step)
    wait(0.5)
    widget._panel.state.setText("")
    began = time.perf_counter()
    press(widget, "This slice")
    wait(PATIENCE, widget._panel.state.text)
    return time.perf_counter() - began if "took" in widget._panel.state.text() else None


def one_run(viewer: napari.Viewer, widget: SegmentWidget, slices: int) -> tuple[tuple[float, float], tuple[float, float], float | None]:
    """Stalls while so many slices come, and as the run ends; the ms that Cancel took, where there was something to cancel."""
    press(widget, "Segment")
    run = widget._run
    wait(0.3)  # adding the layer is napari's work
    stalls = Stalls()
    wait(PATIENCE, lambda: run.filling.done >= slices or widget._run is None)
    during, ending, cancel = stalls.stop(), Stalls(), None
    if widget._run is not None:
        began = time.perf_counter()
        press(widget, "Cancel")
        cancel = 1000 * (time.perf_counter() - began)
    finish(widget)
    wait(0.5)
    ended = ending.stop()
    viewer.layers.remove(run.filling.layer)
    return during, ended, cancel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan")
    parser.add_argument("model")
    parser.add_argument("--slices", type=int, default=40, help="of a run, before it is cancelled")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()

    viewer, widget, seconds = open_window()
    print(f"opening the widget: {seconds:.2f} s")
    image = open_scan(viewer, options.scan)
    began, warming = time.perf_counter(), Stalls()
    choose(widget, options.model)
    print(f"until the model is warm: {time.perf_counter() - began:.1f} s after choosing it ({image.data.shape} voxels)")
    say("meanwhile", [warming.stop()])
    for plane in ("Axial", "Coronal", "Sagittal"):
        press(widget, plane)
        taken = [one_slice(viewer, widget, step) for step in (0, 1, 2, 3)]
        if taken[0] is not None:
            print(f"click to slice, {plane.lower()}: {taken[0]:.2f} s; its neighbours", *(f"{seconds:.2f}" for seconds in taken[1:]))
    press(widget, "Axial")
    wait(0.5)
    idle = Stalls()
    wait(2)
    say("the viewer's thread, idle", [idle.stop()])
    say("one frame", [one_frame(viewer) for _ in range(10)])
    runs = [one_run(viewer, widget, options.slices) for _ in range(options.runs)]
    say(f"during {options.slices} slices, {len(runs)} runs", [during for during, _, _ in runs])
    say("as a run ends", [ending for _, ending, _ in runs])
    cancels = [cancel for *_, cancel in runs if cancel is not None]
    if cancels:
        print(f"cancel: {median(cancels):.0f} ms ({max(cancels):.0f} at most)")
    print(f"load of the last minute: {os.getloadavg()[0]:.1f}")
    viewer.close()


if __name__ == "__main__":
    main()
