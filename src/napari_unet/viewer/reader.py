"""Images and masks -> layers: NIfTI, Analyze and MGH by File > Open; PNG, TIFF and zarr, too, by `napari-unet view`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.utils.notifications import show_info, show_warning
from numpy.typing import NDArray

from napari_unet import images, nifti
from napari_unet.errors import UNetError
from napari_unet.lazy import LazyArray
from napari_unet.ram import check_memory
from napari_unet.spec import MAX_LABEL
from napari_unet.suffixes import MEDICAL, stem, suffix
from napari_unet.viewer.layers import LayerData, notes_on, to_layer
from napari_unet.volume import Volume

# more values than any atlas of a brain has, fewer than any scan
MAX_CLASSES = 250
MOST_OF_A_FOLDER = 20  # layers; more than anybody looks at together
_SAYS_MASK = re.compile(
    r"(^|[^a-z])(d?seg|aseg|aparc|segmentations?|labels?|labels(tr|ts|val)|masks?|parc(ellation)?|gt|ground_?truth)([^a-z]|$)"
)


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """The reader for a file that ends like a medical volume, or a folder that holds some; None for everything else."""
    if not isinstance(path, str | Path):
        return None
    if os.path.isdir(path):
        return read_folder if volumes_in(path) else None
    return read if suffix(path) in MEDICAL else None


def volumes_in(folder: str | Path) -> list[Path]:
    """The medical volumes that lie in a folder itself, by name; a pair counts once, by its header."""
    try:
        paths = sorted(path for path in Path(folder).iterdir() if suffix(path) in MEDICAL and path.is_file())
    except OSError:
        return []
    return [path for path in paths if not (path.suffix == ".img" and path.with_suffix(".hdr") in paths)]


def read_folder(path: str) -> list[LayerData]:
    """The volumes of a folder as layers; what cannot be read is told, and the others open. Raises UNetError where none can."""
    paths, layers, faults = volumes_in(path), [], []
    for each in paths[:MOST_OF_A_FOLDER]:
        try:
            layers += read(str(each))
        except UNetError as error:
            faults.append(error)
    if not layers:
        raise faults[0] if faults else UNetError(path, "it holds no medical volumes", "Choose another folder")
    if len(paths) > MOST_OF_A_FOLDER:
        show_warning(f"{path}: the first {MOST_OF_A_FOLDER} of {len(paths)} volumes are opened.")
    for fault in faults:
        show_warning(str(fault))
    return layers


def read(path: str) -> list[LayerData]:
    """One file as one layer; what a careful reader should know of it is shown. Raises UNetError."""
    volume = _loaded(images.read(path, classes=_named_like_a_mask(Path(path))))
    notes = notes_on(volume)
    if notes:
        show = show_warning if volume.notes else show_info
        show(f"{Path(path).name}: {'; '.join(notes)}.")
    labels = mask_in(volume)
    return [to_layer(volume) if labels is None else to_layer(volume.with_data(labels), "labels")]


def _loaded(volume: Volume) -> Volume:
    """A zarr's voxels in memory, a single channel without an axis of its own, as of any other file. UNetError where there is no room."""
    if not isinstance(volume.data, LazyArray):
        return volume
    check_memory(volume.data.nbytes, volume.source)
    values = np.asarray(volume.data)
    return replace(volume, data=values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values)


def mask_in(volume: Volume) -> NDArray[Any] | None:
    """A file's voxels as classes, uint8 or uint16, where it is a mask; None where it is an image.

    NIfTI can say so itself (intent 1002). Else the name or the folder has to say it *and* the values have to be few
    whole numbers: a scan named "masked" and a map of probabilities named "mask" are images.
    """
    header = nifti.header_of(volume)
    declared = header is not None and int(header["intent_code"]) == nifti.LABEL_INTENT
    if not declared and not _named_like_a_mask(Path(volume.source)):
        return None
    if volume.data.ndim == 4 and len(volume.shape_on_disk) < 4:  # colours
        return None
    values = _whole_numbers(volume.data)
    if values is None or (not declared and np.count_nonzero(np.bincount(values.ravel())) > MAX_CLASSES):
        return None
    return values


def _named_like_a_mask(path: Path) -> bool:
    return any(_SAYS_MASK.search(part.lower()) for part in (stem(path), path.parent.name))


def _whole_numbers(data: NDArray[Any]) -> NDArray[Any] | None:
    """The same values as uint8 or uint16, where that loses nothing."""
    low, high = data.min(), data.max()
    if not 0 <= low <= high <= MAX_LABEL:  # NaN neither
        return None
    values = data.astype(np.uint8 if high < 256 else np.uint16, copy=False)
    return values if np.array_equal(values, data) else None
