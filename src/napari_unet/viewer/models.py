"""The list of models: the shipped ones, those opened lately, and what the person opens now."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from qtpy.QtWidgets import QComboBox

from napari_unet import files, weights
from napari_unet.errors import UNetError
from napari_unet.viewer import places, worker
from napari_unet.viewer.model import Model
from napari_unet.viewer.parts import narrow

RECENT = 5


class ModelList(QComboBox):
    """A model per line; its data is a `Model`, read from the header of the file alone."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("The model; its card is shown below")
        narrow(self)
        self.setPlaceholderText("Open a model…")
        for path in [*weights.shipped().values(), *recent()]:
            with contextlib.suppress(UNetError):  # a recent one may have been damaged since; who opens it is told
                self._offer(Model.read(path))
        self.setCurrentIndex(0)

    @property
    def model(self) -> Model | None:
        """The chosen one."""
        chosen: Model | None = self.currentData()
        return chosen

    def add(self, path: Path) -> bool:
        """Offer a weights file, and choose it; what cannot be read is said and not offered."""
        try:
            model = Model.read(path)
        except UNetError as error:
            worker.show(error)
            return False
        self.setCurrentIndex(self._offer(model))
        return True

    def _offer(self, model: Model) -> int:
        known = [self.itemData(index).path for index in range(self.count())]
        if model.path in known:
            self.setItemData(known.index(model.path), model)  # trained anew, perhaps
            return known.index(model.path)
        self.addItem(model.spec.name, model)
        return len(known)


def recent() -> list[Path]:
    """The models opened lately that are still there, the latest first."""
    try:
        names = json.loads((places.folder() / "recent-models.json").read_text("utf-8"))
        return [Path(name) for name in names if isinstance(name, str) and os.path.isfile(name)]
    except (OSError, ValueError, TypeError, UNetError):
        return []


def remember(path: Path) -> None:
    """Put a model at the head of the recent ones. That it cannot be kept is no reason to disturb anybody."""
    names = [str(path), *(str(other) for other in recent() if other != path)][:RECENT]
    with contextlib.suppress(UNetError):
        files.write_bytes(places.folder() / "recent-models.json", json.dumps(names).encode())
