"""MGH and Analyze files, whose parsing is nibabel's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet.errors import UNetError, understood
from napari_unet.packed import check_claim, opened
from napari_unet.ram import check_memory
from napari_unet.volume import Volume


def read(path: Path) -> Volume:
    """Read a file through to its end first, to its checksum where it is compressed. Raises UNetError."""
    import nibabel

    with opened(path) as file:
        while file.read(1 << 24):
            pass
    with understood(path, "an image", "Convert it to NIfTI"):
        image: Any = nibabel.load(path)
        shape = tuple(int(n) for n in image.shape)  # numpy's integers overflow
        if min(shape) < 1 or len(shape) < 2:
            raise UNetError(path, f"its shape is {shape}", "Give an image of 2 to 4 dimensions")
        count = math.prod(shape)
        check_claim(Path(image.dataobj.file_like), count * image.get_data_dtype().itemsize, shape)
        check_memory(2 * count * 8, path)
        data = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, float)
    if data.dtype.kind not in "iuf":
        raise UNetError(path, f"voxels of type {data.dtype}", "Save it with real values, of at most 64 bits")
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    data = data.reshape(data.shape + (1,) * (3 - data.ndim))
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    return Volume(data, affine, None, str(path))
