"""The Segment widget: choose an image and a model, press Segment, watch the mask fill, save it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import napari
from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from napari.qt.threading import create_worker
from napari.utils.notifications import show_info
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFrame,
    QGridLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QWidget,
)

from napari_unet import weights
from napari_unet.errors import UNetError
from napari_unet.viewer import worker
from napari_unet.viewer.card import Model, ModelCard, text
from napari_unet.viewer.fit import objection, takes_one_of_a_series
from napari_unet.viewer.layers import KEY, Grid, channels_of, is_picture
from napari_unet.viewer.planes import PlaneButtons
from napari_unet.viewer.run import Run
from napari_unet.viewer.writer import save

MASK_FILES = "NIfTI (*.nii.gz *.nii);;Picture (*.png *.tif)"


def warm_up() -> None:
    """Load the engine's heavy libraries, so that the first press of Segment does not wait for them."""
    import napari_unet.segment  # noqa: F401


class SegmentWidget(QScrollArea):
    """Gathers an image layer and a model, hands them to a `Run`, and shows how far it is."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._run: Run | None = None
        self._warm = False
        self._make()
        self._arrange()
        self._connect()
        for path in weights.shipped().values():
            self.add_model(path)
        self._models.setCurrentIndex(0)
        self.reset_choices()

    # ---- what is there ------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        self._image = ComboBox(choices=lambda _: self._layers(Image), tooltip="The image layer to segment")
        self._models = QComboBox()
        self._models.setToolTip("The model; its card is shown below")
        self._models.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._models.setPlaceholderText("Open a model…")
        self._open = button("Open…", "Open a model from a .safetensors file")
        self._card, self._hint, self._state = ModelCard(), text(""), text("")
        self._start = button("Segment", "Run the model; the mask fills from the slice on the screen outwards")
        self._cancel = button("Cancel", "Stop; the slices that are finished stay")
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._mask = ComboBox(choices=lambda _: self._layers(Labels), tooltip="The mask to save")
        self._save = button("Save…", "Save the mask on its image's own grid")

    def _arrange(self) -> None:
        content = QWidget()
        grid = QGridLayout(content)
        grid.setColumnStretch(1, 1)
        rows: tuple[tuple[str | QWidget, ...], ...] = (
            ("Image", self._image.native),
            ("Plane", PlaneButtons(self._viewer)),
            ("Model", self._models, self._open),
            (self._card,),
            (self._hint,),
            (self._start, self._cancel),
            (self._bar,),
            (self._state,),
            ("Mask", self._mask.native, self._save),
        )
        for number, row in enumerate(rows):
            fill(grid, number, row)
        grid.setRowStretch(len(rows), 1)
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(content.minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width())

    def _connect(self) -> None:
        self._image.changed.connect(self._refresh)
        self._mask.changed.connect(self._refresh)
        self._models.currentIndexChanged.connect(self._show_model)
        self._open.clicked.connect(self._open_model)
        self._start.clicked.connect(self.segment)
        self._cancel.clicked.connect(self.cancel)
        self._save.clicked.connect(self._save_mask)

    # ---- what is chosen -----------------------------------------------------------------------------------------------

    def reset_choices(self, event: Any = None) -> None:
        """The layers have changed; napari calls it."""
        self._image.reset_choices()
        self._mask.reset_choices()
        if self._run and not self._run.filling.here():
            self._run.cancel()
        self._refresh()

    def add_model(self, path: Path) -> None:
        """Offer a weights file, and choose it; what cannot be read is said and not offered."""
        try:
            model = Model.read(path)
        except UNetError as error:
            return worker.show(error)
        known = [self._models.itemData(index).path for index in range(self._models.count())]
        index = known.index(path) if path in known else len(known)
        if path in known:
            self._models.setItemData(index, model)  # trained anew, perhaps
        else:
            self._models.addItem(model.spec.name, model)
        self._models.setCurrentIndex(index)
        self._show_model()

    def _layers(self, kind: type) -> list[Any]:
        return [layer for layer in self._viewer.layers if isinstance(layer, kind)]

    def _open_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model", filter="Models (*.safetensors)")
        if path:
            self.add_model(Path(path))

    @property
    def _model(self) -> Model | None:
        model: Model | None = self._models.currentData()
        return model

    def _show_model(self) -> None:
        if self._model:
            self._card.show_model(self._model)
        self._refresh()

    def _refresh(self) -> None:
        """Say what can be done, and allow that alone."""
        hint, ready = self._judge()
        self._hint.setText(hint)
        self._hint.setVisible(bool(hint))
        self._card.setVisible(self._model is not None)
        running = self._run is not None
        self._start.setEnabled(ready and not running)
        self._cancel.setEnabled(running)
        self._bar.setVisible(running)
        self._state.setVisible(bool(self._state.text()))
        self._save.setEnabled(self._mask.value is not None and not running)

    def _judge(self) -> tuple[str, bool]:
        """What stands between the person and a mask, and whether nothing does."""
        layer, model = self._image.value, self._model
        if model is None or layer is None:
            return f"Open {'a model' if model is None else 'an image'} to begin.", False
        against = objection(model.spec, layer)
        if against or not takes_one_of_a_series(model.spec, layer):
            return against, not against
        return f"Of the layer's {channels_of(layer)} volumes, the one on the screen is segmented.", True

    # ---- what is done -------------------------------------------------------------------------------------------------

    def segment(self) -> None:
        """Start the model on the layer."""
        if self._model is None:
            return
        self._run = Run(self, self._viewer, self._image.value, self._model)
        self._run.progressed.connect(self._show_progress)
        self._run.ended.connect(self._finish)
        self._mask.value = self._run.filling.layer
        self._bar.setRange(0, 0)
        self._state.setText("loading the model")
        self._card.show_volumes({})
        self._refresh()

    def cancel(self) -> None:
        """Stop a run, if there is one."""
        if self._run:
            self._run.cancel()

    def _show_progress(self, done: int, total: int) -> None:
        self._bar.setRange(0, total)
        self._bar.setValue(done)
        self._state.setText(f"slice {done} of {total}")

    def _finish(self, complete: bool) -> None:
        if self._run is None:
            return
        filling, self._run = self._run.filling, None
        if complete:
            self._state.setText(f"{filling.total} slices, done")
            self._card.show_volumes(filling.volumes())
        else:
            how_far = f"after {filling.done} of {filling.total} slices" if filling.done else "before the first slice"
            self._state.setText(f"stopped {how_far}")
        self._refresh()

    def _save_mask(self) -> None:
        layer = self._mask.value
        dialog = QFileDialog(self, "Save the mask", str(proposal(layer)), MASK_FILES)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("png" if is_picture(layer) else "nii.gz")
        if dialog.exec():
            try:
                target = save(dialog.selectedFiles()[0], layer, self._viewer.layers)
                show_info(f"{target} is saved.")
            except UNetError as error:
                worker.show(error)

    # ---- coming and going ---------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Warm up while the person chooses."""
        super().showEvent(event)
        if not self._warm:
            self._warm = True
            create_worker(warm_up, _connect={"errored": worker.show})

    def event(self, event: QEvent) -> bool:
        """napari takes a closed dock widget out of its window, but does not delete it."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.cancel()
        return bool(super().event(event))


def proposal(layer: Labels) -> Path:
    """Where a mask may be saved: over the mask it was opened as, else beside its image under its own name."""
    grid = layer.metadata.get(KEY)
    source = Path(grid.source) if isinstance(grid, Grid) and grid.kind else None
    if source and grid.kind == "labels":
        return source
    name = re.sub(r"[^\w.+-]+", "_", layer.name).strip("_") + (".png" if is_picture(layer) else ".nii.gz")
    return source.with_name(name) if source else Path(name)


def button(content: str, tip: str) -> QPushButton:
    """A button that says what it does."""
    made = QPushButton(content)
    made.setToolTip(tip)
    return made


def fill(grid: QGridLayout, number: int, row: tuple[str | QWidget, ...]) -> None:
    """One row of three columns: a heading, what it heads, a button; whatever is wider takes the next columns too."""
    spans = {1: (3,), 2: (1, 2) if isinstance(row[0], str) else (2, 1), 3: (1, 1, 1)}[len(row)]
    column = 0
    for item, span in zip(row, spans, strict=True):
        grid.addWidget(QLabel(item) if isinstance(item, str) else item, number, column, 1, span)
        column += span
