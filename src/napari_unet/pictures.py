"""2-D pictures (PNG, TIFF, JPEG) <-> arrays: (row, column, 1) or (row, column, 1, channel)."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import UNetError
from napari_unet.files import check_memory, write_bytes
from napari_unet.volume import Volume

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16", "I;16L", "I;16B", "F")
_ALPHA = (1, 2)  # TIFF's extra samples: transparency, multiplied into the colours or not


def read(path: Path) -> Volume:
    """A picture as a volume of one slice; rows and columns are voxels of 1 mm, since pictures rarely know better.

    Raises UNetError for damaged files, stacks of several pages, and pictures with more than four channels.
    """
    try:
        data = _tiff(path) if path.suffix.lower() in (".tif", ".tiff") else _picture(path)
    except UNetError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise whatever damaged bytes lead them to
        raise UNetError(path, f"cannot be read as a picture ({str(error)[:200]})", "Fetch or export it again") from error
    if data.ndim not in (2, 3) or (data.ndim == 3 and data.shape[2] > 4):
        raise UNetError(path, f"a picture of shape {data.shape}", "Give one page, with at most four channels")
    if data.dtype.kind not in "uifb":
        raise UNetError(path, f"pixels of type {data.dtype}", "Save it with 8- or 16-bit integers")
    data = data.astype(np.uint8) if data.dtype == np.bool_ else data.astype(data.dtype.newbyteorder("="), copy=False)
    data = data[..., 0] if data.ndim == 3 and data.shape[2] == 1 else data
    return Volume(data[:, :, None], np.eye(4), None, str(path), shape_on_disk=data.shape)


def _picture(path: Path) -> NDArray[Any]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            check_memory(image.width * image.height * 8, path)
            image.verify()  # PNG's checksums, which loading does not look at
        with Image.open(path) as image:
            if image.mode not in _MODES:
                raise UNetError(path, f"pixels of mode {image.mode}", "Save it as grey or RGB")
            image.load()  # reads to the end: a cut file raises
            data = np.asarray(image)  # a palette's indices are the classes of a mask
            return data[..., :-1] if image.mode.endswith("A") else data  # the last is transparency


def _tiff(path: Path) -> NDArray[Any]:
    import tifffile

    size = path.stat().st_size
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        # ImageJ writes large stacks behind a single page
        pages = max(len(file.pages), math.prod(file.series[0].shape) // math.prod(page.shape))
        if pages != 1:
            raise UNetError(path, f"a TIFF of {pages} pages", "Give one page, or save the stack as NIfTI")
        check_memory(2 * math.prod(page.shape) * 8, path)
        if not all(page.databytecounts) or max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))) > size:
            raise UNetError(path, "some of its pixels are missing", "Fetch or export it again")
        if page.compression not in tifffile.TIFF.DECOMPRESSORS:  # such as LZW
            return _picture(path)
        data = np.asarray(page.asarray())
        return data[..., :-1] if page.extrasamples and page.extrasamples[-1] in _ALPHA else data


def write(path: str | Path, data: NDArray[Any], source: str) -> None:
    """Write a mask (row, column, 1) as a picture whose pixels are the class indices, atomically."""
    if data.ndim != 3 or data.shape[2] != 1:
        raise UNetError(path, f"a mask of shape {data.shape} for {source} as a picture", "Save it as .nii.gz")
    from PIL import Image

    if data.dtype not in (np.uint8, np.uint16):
        raise UNetError(path, f"pixels of type {data.dtype}", "Save it as .nii.gz")
    buffer = io.BytesIO()
    kind = "PNG" if Path(path).suffix.lower() == ".png" else "TIFF"
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        raise UNetError(path, "JPEG blurs class indices", "Use .png or .tif")
    Image.fromarray(np.ascontiguousarray(data[:, :, 0])).save(buffer, kind)
    write_bytes(path, buffer.getvalue())
