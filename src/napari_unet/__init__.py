"""napari-unet: train a U-Net on a few labelled scans, segment NIfTI volumes slice by slice. Heavy names come lazily."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# `train`, `plan` and `evaluate` are modules with a function of the same name: take those from the modules themselves.
_HOME = {
    "UNetError": "errors",
    "Volume": "volume",
    "read": "images",
    "write": "images",
    "ModelSpec": "spec",
    "NetworkSpec": "spec",
    "TrainConfig": "settings",
    "PlanChoices": "settings",
    "LabelRule": "settings",
    "Card": "card",
    "find_cases": "cases",
    "find_images": "cases",
    "check": "checks",
    "UNet": "network",
    "read_spec": "weights",
    "read_card": "weights",
    "Segmenter": "segment",
    "convert": "nnunet",
}
__all__ = ["__version__", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
