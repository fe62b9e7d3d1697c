"""A model's card: what a person wants to know before trusting it, from the weights file's header alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QGridLayout, QGroupBox, QLabel, QVBoxLayout, QWidget

from napari_unet import weights
from napari_unet.spec import Card, Label, ModelSpec

SWATCH = 12  # pixels


@dataclass(frozen=True)
class Model:
    """A weights file, and what its header says."""

    path: Path
    spec: ModelSpec
    card: Card
    calibrated: bool = False

    @classmethod
    def read(cls, path: Path) -> Model:
        """From the file's header alone, without torch. Raises UNetError."""
        return cls(path, weights.read_spec(path), weights.read_card(path), weights.read_calibration(path) is not None)


class ModelCard(QGroupBox):
    """Name, classes with colours and scores, what the model reads, its data and licence."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._volumes: dict[int, QLabel] = {}
        self._unit = QLabel()
        self._content = QWidget()
        QVBoxLayout(self).addWidget(self._content)

    def show_model(self, model: Model) -> None:
        """Replace what is shown."""
        spec, card = model.spec, model.card
        self.setTitle(spec.name)
        self.setToolTip(str(model.path))
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        if card.description:
            column.addWidget(text(card.description))
        column.addLayout(self._classes(spec, card))
        column.addWidget(table(facts(spec, card)))
        self.layout().replaceWidget(self._content, content)
        self._content.hide()  # it is deleted when the event loop comes round to it
        self._content.deleteLater()
        self._content = content

    def show_volumes(self, millilitres: Mapping[int, float]) -> None:
        """Each class's volume in the last mask, by its value; an empty mapping clears them."""
        self._unit.setText("ml" if millilitres else "")
        for value, label in self._volumes.items():
            label.setText(f"{millilitres.get(value, 0.0):,.2f}" if millilitres else "")

    def _classes(self, spec: ModelSpec, card: Card) -> QGridLayout:
        """Rows of colour, name, Dice, and the place for a volume."""
        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        grid.setHorizontalSpacing(10)
        self._unit = number("")
        grid.addWidget(number("Dice" if card.dice else ""), 0, 2)
        grid.addWidget(self._unit, 0, 3)
        self._volumes = {}
        for row, label in enumerate(spec.labels, 1):
            self._volumes[label.value] = number("")
            score = number(f"{card.dice[label.name]:.2f}" if label.name in card.dice else "")
            for column, widget in enumerate((swatch(label), text(label.name), score, self._volumes[label.value])):
                grid.addWidget(widget, row, column)
        return grid


def facts(spec: ModelSpec, card: Card) -> dict[str, str]:
    """The card's lines, heading -> sentence; what is not known is left out."""
    sizes = [f"{size:g}" if size else "own" for size in spec.spacing]
    spacing = "at the image's own voxel size" if set(spec.spacing) == {0} else f"at {' × '.join(sizes)} mm"
    reads = f"{', '.join(channel.name for channel in spec.channels)}; {spec.kind}"
    lines = {
        "Reads": reads if spec.pictures else f"{reads}, {spacing}",
        "Scored": _scored(card),
        "Data": "; ".join(part for part in (card.data, card.data_licence) if part),
        "Licence": card.licence,
    }
    return {name: value for name, value in lines.items() if value}


def _scored(card: Card) -> str:
    if not card.cases_scored and card.cases_trained:
        return "no: all its cases were trained on"
    if "mean" not in card.dice:
        return "not yet: no Dice is known"
    return f"mean Dice {card.dice['mean']:.2f} over {card.worth}"


def text(content: str) -> QLabel:
    """A label that wraps and can be copied; a stranger's text stays text."""
    label = QLabel(content)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def number(content: str) -> QLabel:
    """A label at the right edge of its column."""
    label = QLabel(content)
    label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return label


def table(lines: Mapping[str, str]) -> QLabel:
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
