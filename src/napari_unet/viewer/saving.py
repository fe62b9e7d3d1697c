"""Saving masks: where one is proposed to go, and what keeps those that nobody has saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from napari.layers import Labels
from napari.settings import get_plugin_settings
from napari.utils.notifications import show_info
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QHBoxLayout, QMainWindow, QMessageBox, QPushButton, QWidget

from napari_unet.errors import UNetError, first_line
from napari_unet.suffixes import WRITABLE, stem, suffix
from napari_unet.viewer import recovery, worker, writer
from napari_unet.viewer.grids import KEY, Grid, grid_of
from napari_unet.viewer.layers import is_in_memory, is_picture
from napari_unet.viewer.options import PLUGIN
from napari_unet.viewer.parts import text
from napari_unet.viewer.writer import file_name, is_one, save, with_ending
from napari_unet.words import counted

BEAT = 1000  # ms, in which a change of the preferences takes effect
MASK_FILES = "NIfTI (*.nii.gz *.nii);;Picture (*.png *.tif)"


def proposal(layer: Labels, others: Iterable[Any] = ()) -> Path:
    """Where a mask may be saved: over the mask it was opened as, else beside its image under its own name.

    others : the layers that tell whose image it was painted over. The preferences may name another folder than the image's.
    """
    try:
        grid = grid_of(layer, others)
    except UNetError:  # of five axes, say: saving tells
        return Path(layer.name)
    source = Path(grid.source) if grid.kind else None
    if source and grid.kind == "labels" and grid.own:
        if suffix(source) in (*WRITABLE, ""):
            return source
        return source.with_name(f"{stem(source)}{'.png' if is_picture(layer) else '.nii.gz'}")
    ending, folder = ".png" if is_picture(layer) else ".nii.gz", str(get_plugin_settings(PLUGIN).saving.folder)
    beside = Path(folder) if folder else source.parent if source else Path()
    proposed = beside / file_name(layer.name, ending)
    return beside / file_name(f"{layer.name}_seg", ending) if source and is_one(proposed, str(source)) else proposed


def ask_and_save(parent: QWidget, layer: Labels, others: list[Any]) -> Path | None:
    """Ask where to, with a proposal, and save; None where the person thought better of it or it failed, which is told."""
    dialog = QFileDialog(parent, "Save the mask", str(proposal(layer, others)), MASK_FILES)
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setDefaultSuffix("png" if is_picture(layer) else "nii.gz")
    if not dialog.exec():
        return None
    chosen = dialog.selectedFiles()[0]
    if not _may_replace(parent, chosen, with_ending(chosen)):
        return None
    try:
        target = save(chosen, layer, others)
    except UNetError as error:
        worker.show(error)
        return None
    show_info(f"{target} is saved.")
    return target


def _may_replace(parent: QWidget, chosen: str, target: Path) -> bool:
    """Ask before a file is replaced that the dialog did not ask about: to a name with a dot it adds no ending, as saving does."""
    if target == Path(chosen) or not target.exists():
        return True
    yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
    return QMessageBox.question(parent, "Save the mask", f"{target.name} already exists. Replace it?", yes | no, no) == yes


def _raise(error: Exception) -> None:
    raise error


def _not_kept(names: list[str], error: Exception) -> UNetError:
    """What stood in the way, and of which layers: a file that it tells of, the image's say, is not what is lost."""
    layers = ", ".join(map(repr, names))
    where = f"layer {layers} is not kept" if len(names) == 1 else f"layers {layers} are not kept"
    if isinstance(error, UNetError):
        return UNetError(where, f"{error.where}: {error.what}", error.remedy)
    return UNetError(where, first_line(error), "Save what is in it")


class Keeper(QWidget):
    """Keeps unsaved masks on disk while people work, and offers those of a session that crashed. One line, mostly hidden."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer, self._session = viewer, recovery.Session()
        self._writing = self._again = False
        self._seen: set[str] = set()
        self._told: set[str] = set()  # layers that could not be kept
        self._left: dict[str, recovery.Found] = {}  # layer's id -> its file in an earlier session's folder
        self._closed = False
        self._parted: list[Any] = []  # layers that were taken away a moment ago
        self._offer = text("")
        self.restore, self.discard = QPushButton("Restore"), QPushButton("Discard…")
        self.restore.setToolTip("Open them as layers")
        self.discard.setToolTip("Delete them for good")
        self.restore.clicked.connect(self._restore)
        self.discard.clicked.connect(self._discard)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._offer, 1)
        row.addWidget(self.restore)
        row.addWidget(self.discard)
        self._found = self._look()
        self._show()
        self._kept = time.monotonic()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._beat)
        self._timer.start(BEAT)
        self.destroyed.connect(self._session.close)
        QApplication.instance().aboutToQuit.connect(self._quit)
        QTimer.singleShot(0, self._watch)  # once it is docked
        viewer.layers.events.inserted.connect(self._meet)
        viewer.layers.events.removed.connect(self._part)
        writer.saved.connect(self._saved_elsewhere)
        for layer in viewer.layers:
            self._meet_layer(layer)

    @property
    def offered(self) -> int:
        """How many masks of an earlier session are offered."""
        return len(self._found)

    def saved(self, layer: Labels) -> None:
        """The person has saved it."""
        if is_in_memory(layer):  # no other is kept
            self._session.is_safe(layer)
        if found := self._left.pop(str(layer.unique_id), None):
            recovery.forget(found)

    def _saved_elsewhere(self, event: Any) -> None:
        if event.value in self._viewer.layers:
            self.saved(event.value)

    def keep(self, at_once: bool = False) -> None:
        """Write what has changed, in a worker; where one is at it, after it. `at_once`: here, before this comes back."""
        if self._closed:
            return
        if at_once:
            return self._write_now()
        self._kept = time.monotonic()
        if self._writing:
            self._again = True
            return
        if jobs := list(self._jobs(self._session.keep_later)):
            self._writing = True
            worker.in_thread(self._write, jobs, _connect={"errored": worker.show, "finished": self._written})

    @property
    def _seconds(self) -> int:
        """Between two times, as the preferences have it now; 0 keeps none."""
        return int(get_plugin_settings(PLUGIN).saving.autosave)

    def _beat(self) -> None:
        if 0 < self._seconds <= time.monotonic() - self._kept:
            self.keep()

    def close_session(self) -> None:
        """The widget goes: a hand's unsaved work is kept and offered next time; what a model can say again is not."""
        self._timer.stop()
        self._closed, self._again = True, False
        self._write_now()
        self._session.close()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """The window is asked to close: what is unsaved goes to disk while there is something to write, and no thread has to outlive it."""
        if event is not None and event.type() == QEvent.Type.Close:
            self.keep(at_once=True)
        return bool(super().eventFilter(watched, event))

    def _watch(self) -> None:
        """Hear of the window's end before it begins, for it takes the layers away; who is hidden by then is told of nothing else."""
        window = self.parentWidget()
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        if window is not None:
            window.installEventFilter(self)

    def _quit(self) -> None:
        """The program ends, with its window or without having closed it."""
        self.keep(at_once=True)
        self._session.close()

    def _part(self, event: Any) -> None:
        """`viewer.close()`, and Quit, empty the viewer before the window is closed: layers that part are known for a moment longer."""
        parted = self._parted  # alone, for they may part after the window has gone
        parted.append(event.value)
        QTimer.singleShot(0, parted.clear)

    def _write_now(self) -> None:
        try:
            self._write(self._jobs(self._session.keep))
        except UNetError as error:
            worker.show(error)

    def _write(self, jobs: Iterable[tuple[str, str, Callable[[], None]]]) -> None:
        """Each mask in turn: what cannot be written stops no other, and is told once. Raises UNetError for the first, and others alike."""
        first, names = None, list[str]()
        for layer, name, job in jobs:
            try:
                job()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other masks are to be kept
                if layer not in self._told and str(error) == str(first or error):
                    first = first or error
                    names.append(name)
                    self._told.add(layer)
        if first is not None:
            raise _not_kept(names, first) from first

    def _jobs(self, keeping: Callable[..., Callable[[], None] | None]) -> Iterator[tuple[str, str, Callable[[], None]]]:
        """What there is to be done of each mask, by the session's way of keeping it; nothing where the preferences say so."""
        for layer in self._masks() if self._seconds else ():
            try:
                job = keeping(layer, [*self._viewer.layers, *self._parted])
            except Exception as error:  # noqa: BLE001 - the folder cannot be written, say; and as above
                job = partial(_raise, error)
            if job is not None:
                yield str(layer.unique_id), layer.name, job

    def _masks(self) -> list[Labels]:
        """Those that a hand can paint in, and that lie in memory alone: a file that is mapped is on disk already."""
        masks = [layer for layer in (*self._viewer.layers, *self._parted) if isinstance(layer, Labels) and is_in_memory(layer)]
        return [layer for layer in masks if layer.editable and 2 <= layer.ndim <= 4]

    def _written(self) -> None:
        again, self._writing, self._again = self._again, False, False
        self._settle()
        if again:
            self.keep()

    def _meet(self, event: Any) -> None:
        self._parted.clear()  # the viewer lives on
        self._meet_layer(event.value)

    def _meet_layer(self, layer: Any) -> None:
        """A mask that comes from a file is safe; one that comes from anywhere else is not."""
        if isinstance(layer, Labels) and is_in_memory(layer) and layer.unique_id not in self._seen:
            self._seen.add(layer.unique_id)
            grid = layer.metadata.get(KEY)
            opened = layer.source.path or layer.source.sample or (isinstance(grid, Grid) and grid.own)
            touched = layer._undo_history or layer.source.parent is not None  # painted since it was opened, or another's duplicate
            if (opened and not touched) or recovery.is_saved(layer):
                self._session.is_safe(layer)

    def _look(self) -> list[recovery.Found]:
        """What is to be offered; not the masks of this very viewer, whose widget was closed and opened again."""
        try:
            found = recovery.left_behind(self._session)
        except (UNetError, OSError):  # the folder cannot be read: nothing to offer
            return []
        here = {str(layer.unique_id) for layer in self._viewer.layers}
        self._left = {each.layer_id: each for each in found if each.layer_id in here}
        return [each for each in found if each.layer_id not in here]

    def _settle(self) -> None:
        """A file in an earlier session's folder goes once its mask is in this one's keeping."""
        for layer in [layer for layer in self._left if self._session.keeps(layer)]:
            recovery.forget(self._left.pop(layer))

    def _show(self) -> None:
        count = len(self._found)
        self._offer.setText(counted(count, "unsaved mask"))
        self._offer.setToolTip("Left behind by an earlier session: " + ", ".join(found.name for found in self._found))
        self.setVisible(count > 0)

    def _restore(self) -> None:
        restored = []
        for found in self._found:
            try:
                layer = found.layer()
            except UNetError as error:
                worker.show(error)
                continue
            self._seen.add(layer.unique_id)  # it is still unsaved
            self._viewer.add_layer(layer)
            restored.append(found)
            self._left[str(layer.unique_id)] = found
        self._write_now()
        self._settle()
        self._found = [found for found in self._found if found not in restored]
        self._show()

    def _discard(self) -> None:
        """After a question: it lies beside Restore, and nothing brings them back."""
        yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
        question = f"Delete {self._offer.text()} for good? {', '.join(found.name for found in self._found)}"
        if QMessageBox.question(self, "Unsaved masks", question, yes | no, no) != yes:
            return
        for found in self._found:
            recovery.forget(found)
        self._found = []
        self._show()
