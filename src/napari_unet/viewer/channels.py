"""Several image layers as the channels of one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_unet.viewer.fit import takes_several_layers
from napari_unet.viewer.layers import channels_of
from napari_unet.viewer.model import Model
from napari_unet.viewer.parts import LayerBox, narrow


class ChannelForm(QWidget):
    """A choice of a layer for each channel but the first, which is the widget's image. Hidden where one layer is enough."""

    changed = Signal()

    def __init__(self, layers: Callable[[], list[Image]]) -> None:
        super().__init__()
        self._layers = layers
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._combos: list[LayerBox] = []
        self._names: tuple[str, ...] = ()

    def ask_for(self, model: Model | None, image: Image | None) -> None:
        """Ask for what the model needs beside the image."""
        needed = model is not None and image is not None and takes_several_layers(model.spec, image)
        names = tuple(channel.name for channel in model.spec.channels[1:]) if model is not None and needed else ()
        if names != self._names:
            self._names = names
            self._ask(names)
        self.setVisible(bool(names))

    def reset_choices(self) -> None:
        """The layers have changed."""
        for combo in self._combos:
            combo.reset_choices()

    def chosen(self) -> tuple[Image, ...]:
        """The layers, in the order of the model's channels; none where none are needed, or one is missing."""
        layers = tuple(combo.value for combo in self._combos)
        return () if None in layers else layers

    def complete(self, image: Any) -> bool:
        """Whether each channel has a layer of its own, of one channel and as many axes as the image."""
        layers = (image, *(combo.value for combo in self._combos))
        if None in layers or len({layer.unique_id for layer in layers}) <= len(self._names):
            return False
        return all(channels_of(layer) == 1 and layer.ndim == image.ndim for layer in layers)

    def _ask(self, names: tuple[str, ...]) -> None:
        while self._form.rowCount():
            self._form.removeRow(0)
        self._combos = []
        for name in names:
            combo = LayerBox(choices=lambda _: self._layers(), tooltip=f"The layer that is the model's channel {name}")
            alike = [layer for layer in self._layers() if name.lower() in layer.name.lower()]
            if alike:
                combo.value = alike[0]
            combo.changed.connect(lambda _: self.changed.emit())
            self._combos.append(combo)
            self._form.addRow(name, narrow(combo.native))
