"""File > Open Sample: data to try the plugin on, made on the spot."""

from __future__ import annotations

from napari_unet.spec import COLOURS, Label
from napari_unet.viewer.filling import appearance
from napari_unet.viewer.layers import LayerData, to_layer


def phantom() -> list[LayerData]:
    """A synthetic scan and its mask."""
    from napari_unet import phantoms

    image, mask = phantoms.make(seed=1)
    classes = [
        Label(value, name, colour) for (value, name), colour in zip(phantoms.LABELS.items(), COLOURS, strict=False)
    ]
    data, options, kind = to_layer(mask, "labels")
    return [to_layer(image), (data, options | appearance(classes), kind)]
