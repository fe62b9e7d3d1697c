"""Does a layer fit a model? Asked from its shape alone, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from napari_unet.spacing import spacing_warning
from napari_unet.spec import ModelSpec
from napari_unet.viewer.grids import ScalarLayer, grid_of, is_colour
from napari_unet.viewer.layers import channels_of, is_picture
from napari_unet.words import counted


def takes_one_of_a_series(spec: ModelSpec, layer: ScalarLayer) -> bool:
    """Whether the model reads one volume of the layer's several."""
    return len(spec.channels) == 1 and channels_of(layer) > 1 and not is_colour(layer)


def takes_several_layers(spec: ModelSpec, layer: ScalarLayer) -> bool:
    """Whether the model's channels may come from layers of one channel each, of which this is the first."""
    fits = layer.ndim == 3 or (layer.ndim == 2 and spec.network.dims == 2)
    return len(spec.channels) > 1 and fits and not is_colour(layer)


def objection(spec: ModelSpec, layer: ScalarLayer) -> str:
    """Why the model cannot read the layer, in a sentence; "" where it can."""
    if is_colour(layer) and layer.ndim > 3:
        return f"The layer has {layer.ndim} axes beside its colours; at most 3 can be read."
    if layer.ndim > 4:
        return f"The layer has {layer.ndim} axes; at most 4 can be read (three of space, one of time or channels)."
    if spec.network.dims == 3 and is_picture(layer):
        return "The layer is a single picture; the model reads volumes (3-D)."
    found, needed = channels_of(layer), len(spec.channels)
    if found == needed or takes_one_of_a_series(spec, layer):
        return ""
    names = ", ".join(channel.name for channel in spec.channels)
    has = f"{found} colours" if is_colour(layer) else counted(found, "channel")
    return f"The layer has {has}; the model reads {needed} ({names}), in one layer of {counted(needed, 'channel')}."


def warning(spec: ModelSpec, layer: ScalarLayer, others: Iterable[Any] = ()) -> str:
    """What speaks against a mask of a layer that the model can read, in a sentence; "" where nothing does."""
    told = spacing_warning(grid_of(layer, others).affine, spec)
    return f"⚠ {told[0].upper()}{told[1:]}." if told else ""
