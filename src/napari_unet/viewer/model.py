"""A model as the viewer has it: a weights file, and what its header says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_unet import weights
from napari_unet.card import Card
from napari_unet.spec import ModelSpec


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
