"""File > Open Sample: data to try the plugin on, made on the spot."""

from __future__ import annotations

from napari_unet.viewer.layers import LayerData, to_layer


def phantom() -> list[LayerData]:
    """A synthetic scan and its mask."""
    from napari_unet import phantoms

    image, labels = phantoms.make(seed=1)
    return [to_layer(image), to_layer(labels, "labels")]
