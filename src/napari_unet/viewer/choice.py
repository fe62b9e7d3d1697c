"""What is to be done: an image, its further channels, the plane, the model; and whether they go together."""

from __future__ import annotations

from pathlib import Path

from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QGridLayout, QWidget

from napari_unet.viewer.channels import ChannelForm
from napari_unet.viewer.fit import objection, takes_one_of_a_series, takes_several_layers, warning
from napari_unet.viewer.layers import channels_of
from napari_unet.viewer.model import Model
from napari_unet.viewer.models import ModelList, remember
from napari_unet.viewer.parts import LayerBox, button, combo_box, heading, narrow
from napari_unet.viewer.planes import PlaneButtons


class Choice(QWidget):
    """The rows at the top. `changed()` when something else is chosen, `model_changed()` with another model."""

    changed = Signal()
    model_changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self.image = LayerBox(choices=lambda _: self.images(), tooltip="The image layer to segment")
        self.models, self.channels = ModelList(), ChannelForm(self.images)
        self.volumes = combo_box(("the one on the screen", "all"), "Which of the layer's volumes are segmented")
        self._volumes_heading = heading("Volumes", self.volumes)
        self.open = button("Open…", "Open a model from a .safetensors file")
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        for row, (name, part, span) in enumerate((
            ("Image", narrow(self.image.native), 2), ("Plane", PlaneButtons(viewer), 2), ("Model", self.models, 1),
        )):  # fmt: skip
            grid.addWidget(heading(name, part), row, 0)
            grid.addWidget(part, row, 1, 1, span)
        grid.addWidget(self.open, 2, 2)
        grid.addWidget(self.channels, 3, 0, 1, 3)
        grid.addWidget(self._volumes_heading, 4, 0)
        grid.addWidget(self.volumes, 4, 1, 1, 2)
        self.image.changed.connect(lambda _: self.changed.emit())
        self.channels.changed.connect(self.changed)
        self.volumes.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.models.currentIndexChanged.connect(lambda _: self.model_changed.emit())
        self.open.clicked.connect(self._open_model)

    @property
    def model(self) -> Model | None:
        """The chosen model."""
        return self.models.model

    @property
    def series(self) -> bool:
        """Whether all volumes of a series are wanted."""
        return self.volumes.currentIndex() == 1

    def images(self) -> list[Image]:
        """What can be chosen."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def reset_choices(self) -> None:
        """The layers have changed."""
        self.image.reset_choices()
        self.channels.reset_choices()

    def add_model(self, path: Path) -> bool:
        """Offer a weights file, and choose it; what cannot be read is said and not offered."""
        added = self.models.add(path)
        if added:
            self.model_changed.emit()  # perhaps the same file with another content
        return added

    def judge(self) -> tuple[str, bool]:
        """What stands between the person and a mask, and whether nothing does."""
        layer, model = self.image.value, self.model
        self.channels.ask_for(model, layer)
        one_of_several = model is not None and layer is not None and takes_one_of_a_series(model.spec, layer)
        for part in (self._volumes_heading, self.volumes):
            part.setVisible(one_of_several)
        if model is None or layer is None:
            return f"Open {'a model' if model is None else 'an image'} to begin.", False
        if takes_several_layers(model.spec, layer) and len(self.images()) > 1:
            if not self.channels.complete(layer):
                names = ", ".join(channel.name for channel in model.spec.channels)
                return f"Choose a layer for each channel: {names}. Each has a single channel, and as many axes as the image.", False
        elif against := objection(model.spec, layer):
            return against, False
        told = [warning(model.spec, layer, self._viewer.layers)]
        if one_of_several:
            self.volumes.setItemText(1, f"all {channels_of(layer)}, into one mask")
            if not self.series:
                told.append(f"Of the layer's {channels_of(layer)} volumes, the one on the screen is segmented.")
        return "\n".join(filter(None, told)), True

    def _open_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model", filter="Models (*.safetensors)")
        if path and self.add_model(Path(path)):
            remember(Path(path))
