"""A model's card: what a person wants to know before trusting it, from the weights file's header alone."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QFrame, QGridLayout, QGroupBox, QLabel, QLayout, QScrollArea, QVBoxLayout, QWidget

from napari_unet.card import Card
from napari_unet.spec import ModelSpec
from napari_unet.viewer.model import Model
from napari_unet.viewer.parts import lines_of, number, swatch, text

TITLE, PAGE = 240, 180  # pixels


class _Page(QScrollArea):
    """As tall as what it holds, where there is room for that: a card of many classes must not push the buttons off the screen."""

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def sizeHint(self) -> QSize:
        """What is wanted at least; a layout that has more room gives more."""
        return QSize(super().sizeHint().width(), min(PAGE, self.maximumHeight()))

    def fit(self) -> None:
        """Never taller than what it holds, whose text wraps."""
        frame = self.height() - self.viewport().height()  # a theme may draw one
        bar = self.verticalScrollBar().sizeHint().width()  # a bar that is there goes when the text fits beside it
        self.setMaximumHeight(self.widget().heightForWidth(self.width() - frame - bar) + frame)
        self.updateGeometry()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Another width, another height."""
        super().resizeEvent(event)
        if self.widget() is not None:
            self.fit()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """What it holds asks for another height, as when a theme's font comes to it."""
        if event.type() == QEvent.Type.LayoutRequest and watched is self.widget():
            self.fit()
        return bool(super().eventFilter(watched, event))


class ModelCard(QGroupBox):
    """Name, classes with colours and scores, what the model reads, its data and licence."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._volumes: dict[int, QLabel] = {}
        self._mask: Labels | None = None  # whose they are
        self._unit = QLabel()
        self._page = _Page()
        column = QVBoxLayout(self)
        column.addWidget(self._page)
        column.setSizeConstraint(QLayout.SizeConstraint.SetMinAndMaxSize)

    def show_model(self, model: Model) -> None:
        """Replace what is shown."""
        spec, card = model.spec, model.card
        self.setTitle(self.fontMetrics().elidedText(spec.name, Qt.TextElideMode.ElideRight, TITLE))
        self.setToolTip(str(model.path))
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        if card.description:
            column.addWidget(text(card.description))
        column.addLayout(self._classes(spec, card))
        column.addWidget(lines_of(facts(spec, card)))
        self._page.setWidget(content)
        self._page.fit()

    def show_volumes(self, millilitres: Mapping[int, float], mask: Labels | None = None) -> None:
        """Each class's volume in a mask, by its value, as long as it stays what the model said; an empty mapping clears them."""
        if self._mask is not None:
            self._mask.events.labels_update.disconnect(self._outdated)
        self._mask = mask
        if mask is not None:
            mask.events.labels_update.connect(self._outdated)
        self._unit.setText("ml" if millilitres else "")
        for value, label in self._volumes.items():
            label.setText(f"{millilitres.get(value, 0.0):,.2f}" if millilitres else "")

    def keep_to(self, layers: Container[Any]) -> None:
        """The volumes of a mask that is gone go, too."""
        if self._mask is not None and self._mask not in layers:
            self.show_volumes({})

    def _outdated(self, event: Any) -> None:
        self.show_volumes({})

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
        return card.worth
    if "mean" not in card.dice:
        return "not yet: no Dice is known"
    return f"mean Dice {card.dice['mean']:.2f} over {card.worth}"
