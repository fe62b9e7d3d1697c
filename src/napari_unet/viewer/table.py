"""Classes with voxels and millilitres, for a mask as it is now."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtCore import Qt
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
from napari_unet.viewer import worker
from napari_unet.viewer.card import text
from napari_unet.viewer.layers import grid_of, step_on_screen

HEADINGS = ("Class", "Voxels", "ml", "Border")


@dataclass(frozen=True)
class Row:
    """One class of one mask. ml is None where pixels have no size."""

    value: int
    name: str
    voxels: int
    ml: float | None
    at_border: bool


def rows_of(layer: Labels, others: Any = (), step: int = 0) -> list[Row]:
    """The classes of a mask; of a series, at one step."""
    grid, data = grid_of(layer, others), np.asarray(layer.data)
    labels = data[step] if data.ndim == 4 else data
    names = names_of(layer)
    ml = abs(np.linalg.det(grid.affine[:3, :3])) / 1000 if layer.ndim > 2 else None
    return [
        Row(a.value, names.get(a.value, str(a.value)), a.voxels, None if ml is None else a.voxels * ml, a.at_border)
        for a in amounts(labels, names.keys() - {0})
    ]


def names_of(layer: Labels) -> dict[int, str]:
    """Value -> class, as the layer's features have them."""
    features = layer.features
    if not {"index", "class"} <= set(features):
        return {}
    return dict(zip((int(index) for index in features["index"]), map(str, features["class"]), strict=True))


def as_csv(rows: list[Row], separator: str = ",") -> str:
    """The rows with a heading line: value, class, voxels, ml, touches_border."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(("value", "class", "voxels", "ml", "touches_border"))
    for row in rows:
        ml = "" if row.ml is None else f"{row.ml:.4f}"
        writer.writerow((row.value, row.name, row.voxels, ml, "yes" if row.at_border else "no"))
    return out.getvalue()


class MeasureTab(QWidget):
    """The table, and what can be done with it; `show_layer` tells whose it is."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Labels | None = None
        self.rows: list[Row] = []
        self.table = QTableWidget(0, len(HEADINGS))
        self.table.setHorizontalHeaderLabels(HEADINGS)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.cellClicked.connect(self._select)
        self.note = text("")
        self.measure, self.copy, self.save = QPushButton("Measure"), QPushButton("Copy"), QPushButton("Save CSV…")
        self.measure.setToolTip("Count the mask as it is now, corrections included")
        self.copy.setToolTip("Copy the table, to paste into a spreadsheet")
        self.save.setToolTip("Save the table as a file of comma-separated values")
        self.measure.clicked.connect(self.update_rows)
        self.copy.clicked.connect(self._copy)
        self.save.clicked.connect(self._save)
        grid = QGridLayout(self)
        grid.setContentsMargins(4, 4, 4, 4)
        grid.addWidget(self.table, 0, 0, 1, 3)
        grid.addWidget(self.note, 1, 0, 1, 3)
        for column, button in enumerate((self.measure, self.copy, self.save)):
            grid.addWidget(button, 2, column)
        self._fill()

    def show_layer(self, layer: Labels | None) -> None:
        """Whose table it is; it is counted when it is looked at."""
        if layer is not self._layer:
            self._layer, self.rows = layer, []
            self._fill()
            if self.isVisible():
                self.update_rows()

    def showEvent(self, event: Any) -> None:
        """Counted anew when it comes into view."""
        super().showEvent(event)
        self.update_rows()

    def update_rows(self) -> None:
        """Count the mask as it is now."""
        if self._layer is not None and self._layer in self._viewer.layers:
            try:
                self.rows = rows_of(self._layer, self._viewer.layers, step_on_screen(self._viewer, self._layer))
            except UNetError as error:
                worker.show(error)
        self._fill()

    def _fill(self) -> None:
        self.table.setRowCount(len(self.rows))
        for number, row in enumerate(self.rows):
            ml = "" if row.ml is None else f"{row.ml:,.2f}"
            for column, content in enumerate((row.name, f"{row.voxels:,}", ml, "⚠ touches" if row.at_border else "")):
                item = QTableWidgetItem(content)
                if column in (1, 2):
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(number, column, item)
            if self._layer is not None:
                colour = self._layer.get_color(row.value)
                if colour is not None:
                    self.table.item(number, 0).setData(Qt.ItemDataRole.DecorationRole, QColor.fromRgbF(*map(float, colour)))
        cut = [row.name for row in self.rows if row.at_border]
        words = f"{', '.join(cut)}: at the image's border, so the true volume may be larger." if cut else ""
        self.note.setText(words)
        self.note.setVisible(bool(words))
        for button in (self.copy, self.save):
            button.setEnabled(bool(self.rows))
        self.measure.setEnabled(self._layer is not None)

    def _select(self, row: int, column: int) -> None:
        """A click on a class chooses it for painting."""
        if self._layer is not None:
            self._layer.selected_label = self.rows[row].value

    def _copy(self) -> None:
        QApplication.clipboard().setText(as_csv(self.rows, "\t"))

    def _save(self) -> None:
        name = f"{self._layer.name if self._layer is not None else 'volumes'}.csv"
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", name, "Comma-separated values (*.csv)")
        if path:
            try:
                files.write_bytes(path, as_csv(self.rows).encode())
            except UNetError as error:
                worker.show(error)
