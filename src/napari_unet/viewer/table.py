"""Classes with voxels and millilitres, for a mask as it is now: of each volume of a series, and within a region."""

from __future__ import annotations

import csv
import io
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QGridLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_unet import files
from napari_unet.errors import UNetError
from napari_unet.measure import amounts
from napari_unet.spec import MAX_LABEL
from napari_unet.viewer import worker
from napari_unet.viewer.grids import grid_of
from napari_unet.viewer.layers import has_size, is_at_hand, values_of
from napari_unet.viewer.parts import text
from napari_unet.viewer.region import RegionChoice, region_of
from napari_unet.viewer.screen import show_slice
from napari_unet.viewer.writer import file_name
from napari_unet.volume import voxel_ml
from napari_unet.words import listed

HELPING = 100  # rows
AT_ONCE = 1_000_000  # voxels, which are counted in a few milliseconds
NAMED, SHORT = 4, 30  # classes, and letters of their names, in a note; the table has all of them
HEADINGS = ("Class", "Voxels", "ml", "Border", "t")
TAKING = (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space)


@dataclass(frozen=True)
class Row:
    """One class of one mask. ml is None where pixels have no size; step is the place of a volume in its series."""

    value: int
    name: str
    voxels: int
    ml: float | None
    at_border: bool
    step: int | None = None


def rows_of(layer: Labels, others: Any = (), region: NDArray[np.bool_] | None = None) -> list[Row]:
    """The classes of a mask, of each volume of a series; within a region (see `region_of`), where there is one."""
    return counting(layer, others, region)()


def counting(layer: Labels, others: Any = (), region: NDArray[np.bool_] | None = None) -> Callable[[], list[Row]]:
    """The same, still to be counted, in any thread: a mask may be large. What napari knows of the layer is asked for at once."""
    grid, values, name, names = grid_of(layer, others), values_of(layer), layer.name, names_of(layer)
    ml = voxel_ml(grid.affine) if has_size(layer, grid) else None

    def rows() -> list[Row]:
        """The classes of what the mask holds when it is called."""
        data = np.asarray(values)
        low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
        if low < 0 or high > MAX_LABEL:
            raise UNetError(f"layer {name!r}", f"it holds the value {low if low < 0 else high}", f"Use values from 0 to {MAX_LABEL}")
        series = data.ndim == 4
        return [
            Row(a.value, names.get(a.value, str(a.value)), a.voxels, None if ml is None else a.voxels * ml, a.at_border,
                step if series else None)
            for step, labels in enumerate(data if series else data[None])
            for a in amounts(labels if region is None else np.where(region, labels, 0), names.keys() - {0})
        ]  # fmt: skip

    return rows


def names_of(layer: Labels) -> dict[int, str]:
    """Value -> class, as the layer's features have them."""
    features = layer.features
    if not {"index", "class"} <= set(features):
        return {}
    known = zip(features["index"], map(str, features["class"]), strict=True)
    return {int(index): name for index, name in known if isinstance(index, numbers.Real) and math.isfinite(index)}


def as_csv(rows: list[Row], separator: str = ",", region: str = "") -> str:
    """The rows with a heading line: value, class, voxels, ml, touches_border.

    Those of a series begin with time_point, from 0; those within a region end with its name.
    """
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    series = any(row.step is not None for row in rows)
    writer.writerow((*["time_point"] * series, "value", "class", "voxels", "ml", "touches_border", *["region"] * bool(region)))
    for row in rows:
        ml, border = "" if row.ml is None else f"{row.ml:.6g}", "yes" if row.at_border else "no"
        writer.writerow((*[row.step] * series, row.value, row.name, row.voxels, ml, border, *[region] * bool(region)))
    return out.getvalue()


class _Table(QTableWidget):
    """A table in which some keys do what a click does."""

    def keyPressEvent(self, event: Any) -> None:
        """Take the row that the arrow keys have come to."""
        if event.key() in TAKING and self.currentRow() >= 0:
            return self.cellClicked.emit(self.currentRow(), self.currentColumn())
        return super().keyPressEvent(event)


class MeasureTab(QWidget):
    """The table, and what can be done with it; `show_layer` tells whose it is."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Labels | None = None
        self._counting = self._again = self._stale = False  # a thread counts; it has to, once more; what it counts is not wanted
        self.rows: list[Row] = []
        self._wanted: list[Callable[[], None]] = []  # what is to be done with the rows that are being counted
        self.table = _Table(0, len(HEADINGS))
        self.table.setHorizontalHeaderLabels(HEADINGS)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.moveSection(HEADINGS.index("t"), 0)
        self.table.cellClicked.connect(self._select)
        self._filled = 0  # rows of the table that say what `rows` do
        self._helping = QTimer(self, singleShot=True)
        self._helping.timeout.connect(self._help)
        self.note, self._told = text(""), ""
        self.region = RegionChoice(viewer)
        self.region.changed.connect(self._region_changed)
        self.region.draw.clicked.connect(self._draw)
        self.measure, self.copy, self.save = QPushButton("Measure"), QPushButton("Copy"), QPushButton("Save CSV…")
        self.measure.setToolTip("Count the mask as it is now, corrections included")
        self.copy.setToolTip("Copy the table, to paste into a spreadsheet")
        self.save.setToolTip("Save the table as a file of comma-separated values")
        self.measure.clicked.connect(self.count)
        self.copy.clicked.connect(self._copy)
        self.save.clicked.connect(self._save)
        grid = QGridLayout(self)
        grid.setContentsMargins(4, 4, 4, 4)
        for number, part in enumerate((self.region, self.table, self.note)):
            grid.addWidget(part, number, 0, 1, 3)
        for column, each in enumerate((self.measure, self.copy, self.save)):
            grid.addWidget(each, 3, column)
        self._fill()

    def show_layer(self, layer: Labels | None) -> None:
        """Whose table it is; it is counted when it is looked at."""
        if layer is not self._layer:
            if self._wanted:
                self.update_rows()
            self._layer, self.rows, self._stale = layer, [], self._counting
            self._fill()
            self.recount()

    def reset_choices(self) -> None:
        """The viewer's layers have changed."""
        self.region.reset_choices()

    def showEvent(self, event: Any) -> None:
        """Counted anew when it comes into view."""
        super().showEvent(event)
        self.count()

    def update_rows(self) -> None:
        """Count the mask as it is now, at once; what a thread still counts is older."""
        self._stale = self._counting
        try:
            work = self._to_count()
            self._show(self.rows if work is None else work())
        except UNetError as error:
            self._show([], str(error))

    def count(self, _: bool = False) -> None:
        """Count the mask as it is now, in a thread; where one is at it, after it."""
        self._again = self._counting
        if self._counting:
            return
        try:
            work = self._to_count()
        except UNetError as error:
            return self._show([], str(error))
        if work is None:
            return self._show(self.rows)
        self._counting, self._stale = True, False
        worker.in_thread(work, _connect={"returned": self._counted, "errored": self._uncounted})

    def _to_count(self) -> Callable[[], list[Row]] | None:
        """None where there is no mask. Raises UNetError where the region is none."""
        if self._layer is None or self._layer not in self._viewer.layers:
            return None
        region = None if self.region.shapes is None else region_of(self.region.shapes, self._layer)
        return counting(self._layer, self._viewer.layers, region)

    def _counted(self, found: list[Row] | Exception) -> None:
        self._counting = False
        if self._again:
            self.count()
        elif not self._stale:
            self._show(*(([], str(found)) if isinstance(found, Exception) else (found,)))

    def _uncounted(self, error: Exception) -> None:
        if not isinstance(error, UNetError):
            worker.show(error)
        self._counted(error)

    def _show(self, rows: list[Row], told: str = "") -> None:
        self.rows, self._told = rows, told
        self._fill()
        wanted, self._wanted = self._wanted, []
        for do in wanted if not told else ():
            do()

    def _region_changed(self) -> None:
        self.recount()

    def _draw(self) -> None:
        if self._layer is not None:
            self.region.begin(self._layer)

    def _fill(self) -> None:
        self._size(QHeaderView.ResizeMode.Interactive)  # else each cell that is set has all columns measured anew
        self.table.setRowCount(len(self.rows))
        self.table.setColumnHidden(HEADINGS.index("t"), all(row.step is None for row in self.rows))
        self._filled = 0
        self._help()
        words = self._words()
        self.note.setText(words)
        self.note.setVisible(bool(words))
        for each in (self.copy, self.save):
            each.setEnabled(bool(self.rows))
        for each in (self.measure, self.region.draw):
            each.setEnabled(self._layer is not None)

    def _help(self) -> None:
        """The next rows, between which the window is free: another program's labels may be thousands."""
        until = min(self._filled + HELPING, len(self.rows))
        for number in range(self._filled, until):
            self._fill_row(number, self.rows[number])
        self._filled = until
        if until < len(self.rows):
            return self._helping.start()
        self._size(QHeaderView.ResizeMode.ResizeToContents)

    def _size(self, mode: QHeaderView.ResizeMode) -> None:
        """How wide the columns are, but the classes', which takes what is left."""
        for column in range(1, len(HEADINGS)):
            self.table.horizontalHeader().setSectionResizeMode(column, mode)

    def _fill_row(self, number: int, row: Row) -> None:
        ml = "" if row.ml is None else f"{row.ml:,.2f}" if row.ml >= 0.1 else f"{row.ml:.2g}"
        for column, content in enumerate((row.name, f"{row.voxels:,}", ml, "⚠ touches" if row.at_border else "", str(row.step))):
            item = QTableWidgetItem(content)
            if column in (1, 2):
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.table.setItem(number, column, item)
        if self._layer is not None:
            colour = self._layer.get_color(row.value)
            if colour is not None:
                self.table.item(number, 0).setData(Qt.ItemDataRole.DecorationRole, QColor.fromRgbF(*map(float, colour)))

    def _words(self) -> str:
        """What a reader of the table has to know."""
        cut = list(dict.fromkeys(row.name for row in self.rows if row.at_border))
        names = listed([name[:SHORT] for name in cut], NAMED)
        border = f"{names}: at the image's border, so the true volume may be larger." if cut else ""
        within = f"Within {self._region}, through all slices." if self.rows and self._region else ""
        return " ".join(filter(None, (self._told, within, border)))

    @property
    def _region(self) -> str:
        """Its name; "" is the whole image."""
        return "" if self.region.shapes is None else str(self.region.shapes.name)

    def _select(self, row: int, column: int) -> None:
        """A click on a class, or its key, chooses it for painting, and shows its volume of a series."""
        if self._layer is not None:
            self._layer.selected_label = self.rows[row].value
            step = self.rows[row].step
            if step is not None:
                show_slice(self._viewer, self._layer, 0, step)

    def recount(self) -> None:
        """The mask has changed as a whole: it is counted anew where the table is looked at."""
        if self.isVisible():
            self.count()

    def _when_counted(self, do: Callable[[], None]) -> None:
        """With the rows of the mask as it is now, for which the window does not wait where it is large."""
        self._wanted.append(do)
        if self._layer is not None and is_at_hand(self._layer) and self._layer.data.size <= AT_ONCE:
            self.update_rows()
        else:
            self.count()

    def _copy(self) -> None:
        self._when_counted(self._to_clipboard)

    def _to_clipboard(self) -> None:
        QApplication.clipboard().setText(as_csv(self.rows, "\t", self._region))

    def _save(self) -> None:
        name = file_name("_".join(filter(None, (self._layer.name if self._layer is not None else "volumes", self._region))), ".csv")
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", name, "Comma-separated values (*.csv)")
        if path:
            self._when_counted(partial(self._to_file, path))

    def _to_file(self, path: str) -> None:
        try:
            files.write_bytes(path, as_csv(self.rows, region=self._region).encode())
        except UNetError as error:
            worker.show(error)
