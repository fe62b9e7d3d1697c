"""How quick the viewer is, measured in a real window: opening, one slice, and the longest time its thread was not free.

    xvfb-run -a -s "-screen 0 1920x1200x24" python tools/viewer_figures.py SCAN MODEL [--slices 40]

Prints a table. A timer of 2 ms in the viewer's thread tells how long it was busy: the longest gap between two of its ticks
during a run of so many slices, which includes drawing (in software, where there is no GPU).
"""

import argparse
import time

from qtpy.QtCore import QTimer
from window import PATIENCE, choose, finish, open_scan, open_window, press, wait


class Stalls:
    """The gaps between a timer's ticks, in ms."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(2)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps.append(1000 * (now - self._last))
        self._last = now

    def stop(self) -> str:
        """The longest, and the 99th percentile."""
        self._timer.stop()
        gaps = sorted(self.gaps)
        return f"{gaps[-1]:.0f} ms longest, {gaps[int(0.99 * len(gaps))]:.0f} ms in 99 of 100"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan")
    parser.add_argument("model")
    parser.add_argument("--slices", type=int, default=40, help="of a run, before it is cancelled")
    options = parser.parse_args()

    viewer, widget, seconds = open_window()
    print(f"opening the widget: {seconds:.2f} s")
    image = open_scan(viewer, options.scan)
    began = time.perf_counter()
    choose(widget, options.model)
    print(f"until the model is warm: {time.perf_counter() - began:.1f} s after choosing it ({image.data.shape} voxels)")
    for plane in ("Axial", "Coronal", "Sagittal"):
        press(widget, plane)
        wait(0.5)
        widget._panel.state.setText("")
        began = time.perf_counter()
        press(widget, "This slice")
        wait(PATIENCE, lambda: "took" in widget._state.text())
        print(f"click to slice, {plane.lower()}: {time.perf_counter() - began:.2f} s")
    press(widget, "Axial")
    wait(0.5)
    idle = Stalls()
    wait(2)
    print(f"the viewer's thread, idle: {idle.stop()}")
    press(widget, "Segment")
    run = widget._run
    wait(PATIENCE, lambda: run.filling.done or widget._run is None)
    stalls = Stalls()
    wait(PATIENCE, lambda: run.filling.done >= options.slices or widget._run is None)
    print(f"the viewer's thread, during {run.filling.done} slices: {stalls.stop()}")
    ending = Stalls()
    if widget._run is not None:
        began = time.perf_counter()
        press(widget, "Cancel")
        print(f"cancel: {1000 * (time.perf_counter() - began):.0f} ms")
    finish(widget)
    wait(0.5)
    print(f"the viewer's thread, as it ends: {ending.stop()}")
    viewer.close()


if __name__ == "__main__":
    main()
