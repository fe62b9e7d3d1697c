"""Small widgets that several parts of the window are made of: labels, buttons, lists, rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel, QPushButton, QWidget

from napari_unet.spec import Label

SWATCH = 12  # pixels


def text(content: str) -> QLabel:
    """A label that wraps and can be copied; a stranger's text stays text."""
    label = QLabel(content)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setMinimumWidth(1)  # else a layer's long name makes the whole widget wider than its place
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def heading(words: str, part: str | QWidget) -> QLabel:
    """A label, which a screen reader reads as the name of what it heads."""
    made = QLabel(words)
    if isinstance(part, QWidget):
        made.setBuddy(part)
        part.setAccessibleName(words)  # Qt asks for the one or the other, as the system has it
    return made


def number(content: str) -> QLabel:
    """A label at the right edge of its column."""
    label = QLabel(content)
    label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return label


def lines_of(lines: Mapping[str, str]) -> QLabel:
    """Headings and sentences in one label: Qt's layouts cut wrapped labels that stand side by side."""
    rows = (
        f"<tr><td style='padding-right: 8px'>{name}</td><td>{escape(value)}</td></tr>" for name, value in lines.items()
    )
    label = text(f"<table cellspacing='0' cellpadding='1'>{''.join(rows)}</table>")
    label.setTextFormat(Qt.TextFormat.RichText)
    return label


def swatch(label: Label) -> QLabel:
    """A class's colour."""
    pixmap = QPixmap(SWATCH, SWATCH)
    pixmap.fill(QColor(label.colour))
    square = QLabel()
    square.setPixmap(pixmap)
    square.setToolTip(f"value {label.value} in the mask")
    return square


def button(content: str, tip: str, action: Callable[[], object] | None = None) -> QPushButton:
    """A button that says what it does, and does it when it is clicked."""
    made = QPushButton(content)
    made.setToolTip(tip)
    if action is not None:
        made.clicked.connect(action)
    return made


def combo_box(names: Iterable[str], tip: str) -> QComboBox:
    """A list to choose one of these from."""
    made = QComboBox()
    made.addItems(list(names))
    made.setToolTip(tip)
    return made


class LayerBox(ComboBox):
    """A list of layers. What is chosen stays chosen, whatever it is called by now: magicgui goes by names alone."""

    def reset_choices(self, *_: Any) -> None:
        """The layers have changed; where the chosen one is gone, the first is chosen."""
        chosen = self.value
        with self.changed.blocked():
            super().reset_choices(*_)
            if any(layer is chosen for layer in self.choices):
                self.value = chosen
        if self.value is not chosen:
            self.changed.emit(self.value)


def narrow(combo: QComboBox) -> QComboBox:
    """A list that is as wide as its place, however long the names of layers and classes are."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return combo


def add_row(grid: QGridLayout, at: int, row: tuple[str | QWidget, ...]) -> None:
    """One row of three columns: a heading, what it heads, a button; whatever is wider takes the next columns too."""
    spans = {1: (3,), 2: (1, 2) if isinstance(row[0], str) else (2, 1), 3: (1, 1, 1)}[len(row)]
    column = 0
    for item, span in zip(row, spans, strict=True):
        grid.addWidget(heading(item, row[1]) if isinstance(item, str) else item, at, column, 1, span)
        column += span
