"""Layers -> files (NIfTI, PNG, TIFF, zarr), on the grid of the image they belong to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import napari
from napari.layers import Image, Labels, Layer
from napari.utils.events import EventEmitter
from napari.utils.notifications import show_info

from napari_unet import images
from napari_unet.errors import UNetError
from napari_unet.suffixes import suffix
from napari_unet.viewer.grids import KEY, Grid, ScalarLayer, grid_of, has_all_of
from napari_unet.viewer.layers import volume_of

saved = EventEmitter(type_name="saved")  # with each Labels layer that napari's own Save has written here


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """napari's writer of one Labels layer. Raises UNetError."""
    layer = _layer_of(data, meta, "labels")
    others = _layers_beside(layer)
    target = save(path, layer, others)
    if layer in others:
        saved(value=layer)
    return [str(target)]


def write_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """napari's writer of one Image layer. Raises UNetError."""
    layer = _layer_of(data, meta, "image")
    return [str(save(path, layer, _layers_beside(layer)))]


def _layer_of(data: Any, meta: dict[str, Any], kind: str) -> Any:
    """The open layer that napari gives to be written; one like it where it is not open."""
    cls = Labels if kind == "labels" else Image
    opened = chain.from_iterable(_viewers())
    mine = (layer for layer in opened if layer.data is data and isinstance(layer, cls) and layer.name == meta.get("name"))
    return next(mine, None) or Layer.create(data, meta, kind)


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
    images.write(target, volume_of(layer, others), labels=isinstance(layer, Labels))
    return target


def with_ending(path: str | Path) -> Path:
    """The path, with `.nii.gz` where it has no known ending."""
    return Path(path) if suffix(path) else Path(f"{path}.nii.gz")


def file_name(name: str, ending: str) -> str:
    """A layer's name as a file's: without what a path or a system gives another meaning."""
    return (re.sub(r"[^\w.+-]+", "_", name).strip("_") or "mask") + ending


def _layers_beside(layer: Any) -> list[Any]:
    """The layers of the viewer that holds this one; of the current viewer where none does."""
    viewers = _viewers()
    return next((layers for layers in viewers if layer in layers), viewers[0] if viewers else [])


def _viewers() -> list[list[Any]]:
    """The layers of each viewer, the current one's first: any may be saved, as by `layer.save`, while another viewer is the current one."""
    current = napari.current_viewer()
    # there is no public way to ask for all of them
    others = [viewer for viewer in getattr(napari.Viewer, "_instances", ()) if viewer is not current]
    return [list(viewer.layers) for viewer in (current, *others) if viewer is not None]


def _check_not_a_source(target: Path, layer: ScalarLayer, others: list[Any]) -> None:
    """A layer may replace the file it was opened from, as what it was opened; no other layer may."""
    kind = "labels" if isinstance(layer, Labels) else "image"
    if layer.source.parent is None and any(is_one(target, file) and of in ("", kind) for file, of, own in _sources(layer) if own):
        return
    for other in (*others, layer):
        if any(is_one(target, file) for file, _, _ in _sources(other)):
            raise UNetError(target, f"layer {other.name!r} was opened from it, or lies on its grid", "Choose another name")


def _sources(layer: Any) -> Iterator[tuple[str, str, bool]]:
    """The files that a layer was opened from or lies on: as what they were opened, where it is known, and whether by this layer."""
    grid = layer.metadata.get(KEY)
    if isinstance(grid, Grid) and grid.kind:
        yield grid.source, grid.kind, grid.own and has_all_of(layer, grid)
    if layer.source.path:
        yield str(layer.source.path), "", True


def is_one(target: Path, file: str) -> bool:
    """Whether two names are of one file, also where a disk does not tell capitals from small letters."""
    if os.path.exists(target) and os.path.exists(file):
        return os.path.samefile(target, file)
    return os.path.realpath(target) == os.path.realpath(file)
