"""`napari-unet view` opens the real window, on the real screen, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from napari_unet import images, phantoms

SCRIPT = """
import json, sys
import napari
from napari.qt import get_qapp
from qtpy.QtCore import QTimer
from napari_unet.cli import main

seen = 0

def look():
    global seen
    viewer = napari.current_viewer()
    seen += viewer is not None and bool(viewer.window.dock_widgets)
    if seen < 3:  # it has been on the screen for a moment
        return
    timer.stop()
    layers = {layer.name: [type(layer).__name__, layer.data.shape] for layer in viewer.layers}
    print(json.dumps([layers, list(viewer.window.dock_widgets)]))
    napari.Viewer.close_all()

app, timer = get_qapp(), QTimer(interval=200)
timer.timeout.connect(look)
timer.start()
sys.exit(main(["view", *sys.argv[1:]]))
"""


def view(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT, *map(str, files)], capture_output=True, check=False, text=True, timeout=120)


def test_a_scan_and_its_mask_open_beside_the_widget(tmp_path: Path) -> None:
    image, label = phantoms.make(0)
    images.write(tmp_path / "scan.nii.gz", image, labels=False)
    images.write(tmp_path / "scan_seg.nii.gz", label)
    seen = view(tmp_path / "scan.nii.gz", tmp_path / "scan_seg.nii.gz")
    assert seen.returncode == 0, seen.stderr
    layers, docks = json.loads(seen.stdout.splitlines()[-1])  # after what napari says of the tilted scan
    shape = list(image.shape[::-1])
    assert sorted(layers.values()) == [["Image", shape], ["Labels", shape]] and any("Segment" in name for name in docks)


def test_what_cannot_be_read_is_told_before_a_window_opens(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"not a scan")
    seen = view(tmp_path / "scan.nii.gz")
    assert seen.returncode == 2 and "scan.nii.gz" in seen.stderr and "Traceback" not in seen.stderr
