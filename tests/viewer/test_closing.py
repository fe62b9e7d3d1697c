"""However a viewer ends, what a hand has painted is offered to the next one, and the process ends well. Real windows, real processes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet.viewer import recovery
from napari_unet.viewer.saving import Keeper

START = """
import napari
import numpy as np
import vispy.gloo.glir as glir
from napari.qt import get_qapp
from qtpy.QtCore import QTimer

glir.GlirProgram.delete = lambda self: None  # Debian 12's software GL (Mesa 22.3) crashes on the frame after a program is deleted

def opened(name):
    viewer = napari.Viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-unet-monai", "Segment")
    return viewer, widget, viewer.add_labels(np.zeros((20, 64, 64), np.uint8), name=name)

def paint(mask, z=10):
    mask.selected_label = 3
    mask.paint((z, 30, 30), 3)

def later(*steps):
    # one after the other, however slow the machine is
    if steps:
        QTimer.singleShot(500, lambda: (steps[0](), later(*steps[1:])))

viewer, widget, mask = opened("by hand")
"""

ENDS = {
    "its window is closed": """
later(lambda: paint(mask, 3), widget._keeper.keep, lambda: paint(mask), viewer.window._qt_window.close)
napari.run()
""",
    "Quit, with a second one": """
second, _, another = opened("in the other")
later(lambda: (paint(mask, 3), paint(another, 3)), lambda: (paint(mask), paint(another)),
      lambda: viewer.window._qt_window.close(quit_app=True))
napari.run()
""",
    "a script closes it, while the widget is hidden": """
later(widget.parentWidget().hide, lambda: (paint(mask, 3), paint(mask)), viewer.close)
napari.run()
""",
    "the event loop ends first": """
later(lambda: (paint(mask, 3), paint(mask)), get_qapp().exit)
napari.run()
viewer.close()  # a window that is left to the interpreter's end can crash in Qt, after all of Python
""",
    "there never was an event loop": """
get_qapp().processEvents()  # the widget has begun to load libraries, in a thread
paint(mask, 3)
paint(mask)
viewer.close()
""",
}


@pytest.mark.gui
@pytest.mark.parametrize("way", ENDS)
def test_a_stroke_just_before_the_end_is_offered(way):
    """The next autosave would have come within a minute."""
    run = subprocess.run([sys.executable, "-c", START + ENDS[way]], capture_output=True, check=False, text=True, timeout=240)
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
    found = recovery.left_behind()
    assert {each.name for each in found} == {"by hand", *(["in the other"] if "second" in way else [])}
    for each in found:
        values = each.layer().data
        assert values[10, 30, 30] == values[3, 30, 30] == 3 and set(np.unique(values)) == {0, 3}


def test_a_mask_that_was_deleted_is_not_kept_at_the_end(qtbot):
    """Unlike one that goes because all of the viewer does."""
    viewer = ViewerModel()
    keeper = Keeper(viewer)
    qtbot.addWidget(keeper)
    deleted, cleared = (viewer.add_labels(np.ones((4, 5, 6), np.uint8), name=name) for name in ("deleted", "cleared"))
    viewer.layers.remove(deleted)
    qtbot.wait(20)
    viewer.layers.clear()
    keeper.keep(at_once=True)
    keeper.close_session()
    assert [found.layer_id for found in recovery.left_behind()] == [str(cleared.unique_id)]


def test_layers_may_part_after_the_widget_has_gone(qtbot):
    """With its window, say; the viewer lives on in whatever refers to it."""
    viewer = ViewerModel()
    keeper, gone = Keeper(viewer), []
    viewer.add_labels(np.ones((4, 5, 6), np.uint8))
    keeper.destroyed.connect(lambda: gone.append(True))
    keeper.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))
    viewer.layers.clear()
    qtbot.wait(20)
    assert keeper._parted == []
