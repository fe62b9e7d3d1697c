"""The pictures of docs/viewer.md and of the README, made anew from the real window.

    xvfb-run -a -s "-screen 0 1920x1200x24" python tools/screenshots.py DATA docs/images      (`make screenshots` does)

DATA is a folder with hippocampus/ (Medical Segmentation Decathlon, Task04) and volumes/spm152.nii.gz (ICBM 152 average).
Prints what the saved masks of the walk are worth: voxels that differ after reading them back, and whether affines are equal.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import napari
import nibabel
import numpy as np
from napari._qt.dialogs.qt_notification import NapariQtNotification
from PIL import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QFileDialog
from window import PATIENCE, choose, finish, open_scan, open_window, press, wait

from napari_unet.downloads import HIPPOCAMPUS
from napari_unet.viewer.download import DownloadDialog
from napari_unet.viewer.segment_widget import SegmentWidget
from napari_unet.viewer.work import Part

FRAME = 800, 450


@contextmanager
def window() -> Iterator[tuple[napari.Viewer, SegmentWidget]]:
    """A fresh window with the widget."""
    viewer, widget, _ = open_window()
    yield viewer, widget
    viewer.close()
    QApplication.processEvents()


def picture_of(viewer: napari.Viewer) -> Image.Image:
    """The whole window, without napari's hints at its foot, which are cut off on so small a one."""
    viewer.help = ""
    return Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)[..., :3])


def shoot(viewer: napari.Viewer, path: Path) -> None:
    """The window once it is at rest, without notes."""
    for note in viewer.window._qt_window.findChildren(NapariQtNotification):
        note.close()
    wait(0.4)
    picture_of(viewer).save(path)


def tab(widget: SegmentWidget, name: str) -> None:
    """Turn to a tab."""
    tabs = widget._tabs
    tabs.setCurrentIndex([tabs.tabText(n) for n in range(tabs.count())].index(name))
    wait(0.3)


def phantom(out: Path) -> None:
    """Three clicks: the sample, the widget, one slice; then what a hand and the model have done together."""
    with window() as (viewer, widget):
        viewer.open_sample("napari-unet-monai", "phantom")
        viewer.layers.pop()  # the truth
        choose(widget, "phantoms")
        press(widget, "This slice")
        wait(PATIENCE, lambda: "took" in widget._panel.state.text())
        shoot(viewer, out / "viewer-slice.png")


def hippocampus(data: Path, out: Path) -> None:
    """Half-way, the film of it, the table, the corrections, the light theme and 3-D."""
    with window() as (viewer, widget):
        open_scan(viewer, data / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz")
        choose(widget, "hippocampus")
        widget._advanced.uncertainty.setChecked(True)
        wait(1)
        film: list[Image.Image] = []
        viewer.dims.set_current_step(0, 14)  # half of the slices, outwards from here, are half of the structure
        press(widget, "Segment")
        run, filling = widget._run, widget._run.filling
        press(widget, "Coronal")  # across the slices that fill

        def picture(part: Part) -> None:
            """One frame per slice, however quickly they come."""
            piece = part.found
            if isinstance(piece, np.ndarray):
                return
            run._help()
            filling.redraw()
            widget._panel.progressed(piece.done, piece.total, run.seconds_left())
            film.append(picture_of(viewer))
            if piece.done == piece.total // 2:
                film[-1].save(out / "viewer-half-way.png")

        run._worker.yielded.connect(picture)
        wait(PATIENCE, lambda: widget._run is None)
        wait(0.3)
        film.append(picture_of(viewer))
        frames = [frame.resize(FRAME, Image.Resampling.LANCZOS) for frame in film]
        times = [120] * (len(frames) - 1) + [2500]
        frames[0].save(out / "filling.webp", save_all=True, append_images=frames[1:], duration=times, loop=0, quality=70, method=6)
        tab(widget, "Measure")
        shoot(viewer, out / "viewer-measure.png")
        press(widget, "Axial")
        region(viewer, widget, out)
        press(widget, "Coronal")
        viewer.layers["hippocampus_001_uncertainty"].visible = True
        tab(widget, "Correct")
        press(widget, "Check next")
        shoot(viewer, out / "viewer-correct.png")
        viewer.layers["hippocampus_001_uncertainty"].visible = False
        tab(widget, "View")
        press(widget, "3-D view")
        viewer.scene.camera.angles = (10, 40, 120)
        wait(1)
        shoot(viewer, out / "viewer-3d.png")
        press(widget, "Axial")
        tab(widget, "Options")
        viewer.theme = "light"
        shoot(viewer, out / "viewer-light.png")


def planes(data: Path, out: Path) -> None:
    """A whole head in three planes: the window with the plane selector, three times."""
    with window() as (viewer, widget):
        open_scan(viewer, data / "volumes" / "spm152.nii.gz")
        parts = []
        for name in ("Axial", "Coronal", "Sagittal"):
            press(widget, name)
            wait(0.5)
            viewer.reset_view()
            wait(0.5)
            parts.append(picture_of(viewer))
        narrow, low = 960, 960 * parts[0].height // parts[0].width
        whole = Image.new("RGB", (narrow, 3 * low))
        for number, part in enumerate(parts):
            whole.paste(part.resize((narrow, low), Image.Resampling.LANCZOS), (0, number * low))
        whole.save(out / "viewer-planes.png")


def series(data: Path, out: Path) -> None:
    """All volumes of a 4-D image: a hippocampus that wanders by a voxel from one time to the next."""
    scan = nibabel.load(data / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz")
    moments = np.stack([np.roll(np.asarray(scan.dataobj), step, 0) for step in range(4)], -1)
    with tempfile.TemporaryDirectory() as folder, window() as (viewer, widget):
        path = Path(folder, "moving.nii.gz")
        nibabel.save(nibabel.Nifti1Image(moments, scan.affine), path)
        open_scan(viewer, path)
        choose(widget, "hippocampus")
        widget._choice.volumes.setCurrentIndex(1)
        press(widget, "Segment")
        wait(PATIENCE, lambda: widget._panel.state.text().startswith("volume 3"))
        picture_of(viewer).save(out / "viewer-series.png")  # at once: it goes on
        finish(widget)
        download(viewer, out)


def region(viewer: napari.Viewer, widget: SegmentWidget, out: Path) -> None:
    """The table within a rectangle."""
    press(widget, "Draw")
    viewer.layers["region"].add([np.array([(17, 8, 4), (17, 8, 26), (17, 27, 26), (17, 27, 4)], float)], shape_type="rectangle")
    viewer.dims.set_current_step(0, 17)
    wait(1)
    shoot(viewer, out / "viewer-region.png")
    viewer.layers.remove("region")
    viewer.layers.selection.active = widget._mask.value


def download(viewer: napari.Viewer, out: Path) -> None:
    """What is asked before anything is fetched."""
    dialog = DownloadDialog(HIPPOCAMPUS, Path("/home/you/.cache/napari-unet"), viewer.window._qt_window)
    dialog.show()
    wait(0.4)
    dialog.grab().save(str(out / "viewer-download.png"))
    dialog.close()


def oblique(out: Path) -> None:
    """A mask painted by hand over a tilted volume, saved by the button and read back: both, one over the other."""
    angle = np.radians(24)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([-0.9, 0.9, 2.5]), (40, -30, 12)
    rng = np.random.default_rng(5)
    data = (200 * np.exp(-np.linalg.norm(np.indices((64, 72, 24)).T - (12, 36, 32), axis=-1).T / 14)).astype(np.int16)
    with tempfile.TemporaryDirectory() as folder, window() as (viewer, widget):
        scan, mask = Path(folder, "tilted.nii.gz"), Path(folder, "by_hand.nii.gz")  # as it is proposed
        nibabel.save(nibabel.Nifti1Image(data + rng.integers(0, 9, data.shape, dtype=np.int16), affine), scan)
        image = open_scan(viewer, scan)
        labels = viewer.add_labels(
            np.zeros(image.data.shape, np.uint8), name="by hand", scale=image.scale, translate=image.translate,
            units=image.units, axis_labels=image.axis_labels,
        )  # fmt: skip
        labels.brush_size, labels.selected_label = 14, 3
        middle = tuple(n // 2 for n in image.data.shape)
        viewer.dims.set_current_step(0, middle[0])
        labels.paint(middle, 3)
        QTimer.singleShot(500, accept)
        press(widget, "Save…")
        (again,) = (each for each in viewer.open(str(mask), plugin="napari-unet-monai"))
        labels.visible = False
        shoot(viewer, out / "viewer-oblique.png")
        same = (nibabel.load(mask).affine == nibabel.load(scan).affine).all()
        print(f"oblique, painted by hand: {np.count_nonzero(again.data != labels.data)} voxels differ of "
              f"{np.count_nonzero(labels.data)} painted, affine equal: {bool(same)}")  # fmt: skip


def accept() -> None:
    """What a person does in the dialog that asks where to save."""
    dialog = next(each for each in QApplication.topLevelWidgets() if isinstance(each, QFileDialog) and each.isVisible())
    dialog.accept()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    phantom(options.out)
    oblique(options.out)
    planes(options.data, options.out)
    hippocampus(options.data, options.out)
    series(options.data, options.out)


if __name__ == "__main__":
    main()
