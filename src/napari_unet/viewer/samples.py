"""File > Open Sample: data to try the plugin on, made on the spot, or downloaded on request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from napari.utils.notifications import show_info
from platformdirs import user_cache_path

from napari_unet import images
from napari_unet.downloads import HIPPOCAMPUS
from napari_unet.errors import UNetError
from napari_unet.spec import COLOURS, Label
from napari_unet.suffixes import stem
from napari_unet.viewer.download import ask_for
from napari_unet.viewer.filling import appearance
from napari_unet.viewer.layers import LayerData, to_layer
from napari_unet.volume import Volume

TILT = 20  # degrees
AIR, BONE = -1000, 700  # Hounsfield units
# no channel of an image: napari takes an empty list of layers for a fault of the sample's
NOTHING: list[LayerData] = [(np.zeros((0, 1, 1)), {"channel_axis": 0}, "image")]


def phantom() -> list[LayerData]:
    """A synthetic scan and its mask."""
    from napari_unet import phantoms

    return _layers(*phantoms.make(seed=1))


def oblique_ct() -> list[LayerData]:
    """Another one in a tilted gantry, with thick slices and in Hounsfield units, and its mask."""
    from napari_unet import phantoms

    image, mask = phantoms.make(seed=2)
    low, high = np.percentile(image.data, (1, 99.9))
    units = np.clip((image.data - low) / (high - low), 0, 1.2) * (BONE - AIR) + AIR
    angle = np.radians(TILT)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    ct = replace(image, data=units.astype(np.int16), affine=turn @ image.affine, source="phantom_ct")
    return _layers(ct, replace(mask, affine=turn @ mask.affine, source="phantom_ct mask"))


def picture() -> list[LayerData]:
    """A slice of a synthetic scan as a colour picture, and its mask."""
    from napari_unet import phantoms

    image, mask = phantoms.make(seed=1)
    middle = image.shape[2] // 2
    grey, labels = image.data[:, :, middle].T.astype(float), mask.data[:, :, middle].T
    grey = np.clip((grey - grey.min()) / (np.percentile(grey, 99.8) - grey.min()), 0, 1)
    stain = np.stack([grey, grey**2, 1 - grey], -1)
    options = {"name": "phantom_picture mask", **appearance(_classes())}
    return [((255 * stain).astype(np.uint8), {"name": "phantom_picture", "rgb": True}, "image"), (labels.copy(), options, "labels")]


def hippocampus(url: str = HIPPOCAMPUS.url, md5: str = HIPPOCAMPUS.md5) -> list[LayerData]:
    """A scan of the Decathlon's hippocampus and its mask; the data set is downloaded first, if the person agrees."""
    folder = ask_for(replace(HIPPOCAMPUS, url=url, md5=md5), user_cache_path("napari-unet", appauthor=False))
    if folder is None:
        return NOTHING
    scans = sorted(folder.glob("imagesTr/*.nii.gz"))
    if not scans:
        raise UNetError(folder, "it holds no scans", "Remove it, and open the sample again")
    show_info(f"{folder} holds {len(scans)} labelled scans.")
    # by name alone, so that masks are not proposed to be saved into the data set
    image = replace(images.read(scans[0]), source=stem(scans[0]))
    mask = replace(images.read_labels(folder / "labelsTr" / scans[0].name), source=f"{image.source} mask")
    return _layers(image, mask, [Label(1, "Anterior", COLOURS[0]), Label(2, "Posterior", COLOURS[1])])


def _layers(image: Volume, mask: Volume, classes: list[Label] | None = None) -> list[LayerData]:
    data, options, kind = to_layer(mask, "labels")
    return [to_layer(image), (data, options | appearance(classes or _classes()), kind)]


def _classes() -> list[Label]:
    from napari_unet import phantoms

    return [Label(value, name, colour) for (value, name), colour in zip(phantoms.LABELS.items(), COLOURS, strict=False)]
