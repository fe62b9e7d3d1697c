"""Layers -> NIfTI files, on the grid of the image they belong to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import napari
from napari.layers import Image, Labels, Layer
from napari.utils.events import EventEmitter
from napari.utils.notifications import show_info

from napari_unet import nifti
from napari_unet.errors import UNetError
from napari_unet.viewer.layers import KEY, Grid, ScalarLayer, grid_of, volume_of

saved = EventEmitter(type_name="saved")  # with each Labels layer that napari's own Save has written here


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """napari's writer of one Labels layer. Raises UNetError."""
    target = save(path, Layer.create(data, meta, "labels"), _open_layers())
    for layer in _open_layers():
        if layer.data is data:
            saved(value=layer)
    return [str(target)]


def write_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """napari's writer of one Image layer. Raises UNetError."""
    return [str(save(path, Layer.create(data, meta, "image"), _open_layers()))]


def save(path: str | Path, layer: ScalarLayer, others: Iterable[Any] = ()) -> Path:
    """Write a layer on its own grid, and give back the file: `.nii.gz` is added where the path has no known ending.

    The other layers tell the grid of a mask that was painted from nothing. Raises UNetError where the path is the file
    that another layer came from, and where it cannot be written.
    """
    target = with_ending(path)
    others = list(others)
    _check_not_a_source(target, layer, others)
    if not grid_of(layer, others).kind and any(isinstance(other.metadata.get(KEY), Grid) for other in others):
        show_info(f"{target.name}: the layer lies on no opened file's grid; it was saved where the screen shows it.")
    nifti.write(target, volume_of(layer, others), labels=isinstance(layer, Labels))
    return target


def with_ending(path: str | Path) -> Path:
    """The path, with `.nii.gz` where it has no known ending."""
    return Path(path) if nifti.suffix(path) else Path(f"{path}.nii.gz")


def file_name(name: str, ending: str) -> str:
    """A layer's name as a file's: without what a path or a system gives another meaning."""
    return (re.sub(r"[^\w.+-]+", "_", name).strip("_") or "mask") + ending


def _open_layers() -> list[Any]:
    viewer = napari.current_viewer()
    return [] if viewer is None else list(viewer.layers)


def _check_not_a_source(target: Path, layer: ScalarLayer, others: list[Any]) -> None:
    """A layer may replace the file it was opened from; no other layer may."""
    place = os.path.realpath(target)
    if (_kind(layer), place) in _sources(layer):
        return
    for other in (layer, *others):
        if any(source == place for _, source in _sources(other)):
            raise UNetError(target, f"layer {other.name!r} was opened from it", "Choose another name")


def _sources(layer: Any) -> Iterator[tuple[str, str]]:
    """(kind, file) of what a layer was opened from, or lies on."""
    grid = layer.metadata.get(KEY)
    if isinstance(grid, Grid) and grid.kind:
        yield grid.kind, os.path.realpath(grid.source)
    if layer.source.path:
        yield _kind(layer), os.path.realpath(layer.source.path)


def _kind(layer: Any) -> str:
    return "labels" if isinstance(layer, Labels) else "image" if isinstance(layer, Image) else ""
