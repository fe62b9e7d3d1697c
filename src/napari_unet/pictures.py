"""2-D pictures (PNG, TIFF, JPEG) <-> arrays: (row, column, 1) or (row, column, 1, channel)."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import UNetError, understood
from napari_unet.files import write_bytes
from napari_unet.ram import check_memory
from napari_unet.suffixes import BLURRED
from napari_unet.volume import Volume

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16", "I;16L", "I;16B", "F")
_PER_INCH = {"inch": 1.0, "cm": 2.54, "mm": 25.4, "micron": 25400.0, "um": 25400.0, "\\u00B5m": 25400.0, "µm": 25400.0,
             "nm": 25.4e6}  # fmt: skip
MAX_RESOLUTION = (2**32 - 1) * 0.0254  # PNG counts pixels per metre in 32 bits
_ORIENTATION = 0x0112  # EXIF's
_ALPHA = (1, 2)  # TIFF's extra samples: transparency, multiplied into the colours or not


def read(path: Path, classes: bool = False) -> Volume:
    """A picture as a volume of one slice; rows and columns are voxels of 1 mm, since pictures rarely know better.

    Where it has a palette, voxels are what is shown, grey or in colour; with `classes`, they are what is stored, as a mask's are.
    Neither is turned, whatever EXIF says of the camera.
    Raises UNetError for damaged files, stacks of several pages, pictures with more than four channels, and those of which only
    8 of 16 bits could be read.
    """
    with understood(path, "a picture"):
        data = _tiff(path, classes) if _is_tiff(path) else _picture(path, classes)
        turned = _turned(path)
    if data.ndim not in (2, 3) or (data.ndim == 3 and data.shape[2] > 4):
        raise UNetError(path, f"a picture of shape {data.shape}", "Give one page, with at most four channels")
    if data.dtype.kind not in "uifb":
        raise UNetError(path, f"pixels of type {data.dtype}", "Save it with 8- or 16-bit integers")
    data = data.astype(np.uint8) if data.dtype == np.bool_ else data.astype(data.dtype.newbyteorder("="), copy=False)
    data = data[..., 0] if data.ndim == 3 and data.shape[2] == 1 else data
    note = f"Its EXIF orientation is {turned}: programs that follow it show it turned, its voxels and their mask lie as stored"
    return Volume(data[:, :, None], np.eye(4), None, str(path), (note,) if turned != 1 else (), shape_on_disk=data.shape)


def peek(path: Path) -> tuple[int, int, int, np.dtype[Any]]:
    """Rows, columns, channels and type of a picture, from its header alone. Raises UNetError where that is damaged."""
    with understood(path, "a picture"):
        if _is_tiff(path):
            import tifffile

            with tifffile.TiffFile(path) as file:
                page: Any = file.pages[0]
                channels = 1 if page.colormap is None or _is_grey(page.colormap.T) else 3
                return page.imagelength, page.imagewidth, page.samplesperpixel * channels, np.dtype(page.dtype)
        with _opened(path) as image:
            _check_bits(path, image)
            wide = np.dtype(np.uint8 if image.mode[0] not in "IF" else np.uint16 if ";16" in image.mode else np.int32)
            channels = 3 if image.palette and not _is_grey(_entries(image.palette.getdata()[1])) else 1
            return image.height, image.width, len(image.getbands()) * channels, wide


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A picture of Pillow's, its pixels not yet decoded; how large one may be is our own affair."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = None
        image = Image.open(path)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _turned(path: Path) -> int:
    """EXIF's orientation: 1 where it is as stored."""
    if _is_tiff(path):
        return 1  # tifffile reads what is stored, too, and few programs turn a TIFF
    with _opened(path) as image:
        return int(image.getexif().get(_ORIENTATION, 1) or 1)


def _picture(path: Path, classes: bool) -> NDArray[Any]:
    with _opened(path) as image:
        _check_bits(path, image)
        check_memory(image.width * image.height * 8, path)
        image.verify()  # PNG's checksums, which loading does not look at
    with _opened(path) as image:
        if image.mode not in _MODES:
            raise UNetError(path, f"pixels of mode {image.mode}", "Save it as grey or RGB")
        image.load()  # reads to the end: a cut file raises
        data = np.asarray(image)
        data = data[..., :-1] if image.mode.endswith("A") else data  # the last is transparency
        if image.mode[0] == "P":
            indices = data.reshape(data.shape[:2])
            return indices if classes else _shown(indices, _entries(bytes(image.getpalette("RGB"))))
        return data // _stretch(path) if classes and image.mode == "L" else data


def _stretch(path: Path) -> int:
    """What Pillow multiplies a PNG's grey values of 2 or 4 bits by, so that the highest of them becomes 255."""
    with open(path, "rb") as file:
        head = file.read(26)
    return {2: 85, 4: 17}.get(head[24], 1) if head.startswith(b"\x89PNG") and head[25] == 0 else 1


def _entries(palette: bytes) -> NDArray[np.uint8]:
    """A palette's colours (n, 3)."""
    return np.frombuffer(palette, np.uint8).reshape(-1, 3)


def _is_grey(palette: NDArray[Any]) -> bool:
    return bool((palette == palette[:, :1]).all())


def _shown(indices: NDArray[Any], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colours of a picture (row, column[, 3]), which are grey where all of its palette is."""
    whole = np.zeros((max(len(palette), int(indices.max()) + 1), 3), np.uint8)  # what is not named is black
    whole[: len(palette)] = palette
    return np.asarray(whole[indices, 0] if _is_grey(palette) else whole[indices])


def _check_bits(path: Path, image: Any) -> None:
    """UNetError for a PNG of 16 bits in several channels, of which Pillow would read the upper 8."""
    with open(path, "rb") as file:
        head = file.read(25)
    if image.format == "PNG" and head[24] == 16 and not image.mode.startswith("I"):
        raise UNetError(path, "colour or transparency of 16 bits, of which only 8 could be read", "Save it as TIFF")


def _tiff(path: Path, classes: bool) -> NDArray[Any]:
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
            data = _picture(path, classes)
            if page.dtype is not None and data.dtype.itemsize < page.dtype.itemsize:  # colours of 16 bits, which Pillow cuts
                raise UNetError(path, f"pixels of {page.dtype} in {page.compression.name}, of which only 8 bits could be read",
                                "Save it without compression")  # fmt: skip
            turned = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and data.dtype.itemsize == 1
            return ~data if turned else data  # Pillow shows such pixels the other way round; what is stored counts
        data = np.asarray(page.asarray())
        if data.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            data = np.moveaxis(data, 0, -1)
        if page.colormap is not None and not classes:
            colours = page.colormap.T
            return _shown(data, (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8))
        return data[..., :-1] if page.extrasamples and page.extrasamples[-1] in _ALPHA else data


def resolution(path: Path) -> tuple[float, float] | None:
    """Pixels per inch along columns and rows, as files mostly tell it; None where one does not."""
    with understood(path, "a picture"):
        if _is_tiff(path):
            found = _tiff_resolution(path)
        else:
            with _opened(path) as image:
                found = image.info.get("dpi")
    good = found is not None and all(0 < float(value) < MAX_RESOLUTION for value in found)
    return (float(found[0]), float(found[1])) if good else None  # type: ignore[index]


def _tiff_resolution(path: Path) -> tuple[float, float] | None:
    """Of the tags, whose unit is an inch or a centimetre, or one that ImageJ names in its own place."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        tags = [page.tags.get(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
        if tags[0] is None or tags[1] is None:
            return None
        unit = (file.imagej_metadata or {}).get("unit") or {1: "", 3: "cm"}.get(int(tags[2].value) if tags[2] else 2, "inch")
        if unit not in _PER_INCH or not (tags[0].value[1] and tags[1].value[1]):
            return None
        x, y = (tag.value[0] / tag.value[1] * _PER_INCH[unit] for tag in tags[:2])
        return x, y


def write(
    path: str | Path, data: NDArray[Any], source: str, colours: Mapping[int, str] | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """Write a mask (row, column, 1) as a picture whose pixels are the class indices, atomically.

    colours : #rrggbb of mask values; a PNG of at most 256 values is indexed by such a palette, in which what is not named
        is black. dpi : what `resolution` says of the image.
    """
    check_shape(path, data.shape, source)
    from PIL import Image

    if data.dtype not in (np.uint8, np.uint16):
        raise UNetError(path, f"pixels of type {data.dtype}", "Save it as .nii.gz")
    buffer = io.BytesIO()
    kind = "PNG" if Path(path).suffix.lower() == ".png" else "TIFF"
    if Path(path).suffix.lower() in BLURRED:
        raise UNetError(path, "JPEG blurs class indices", "Use .png or .tif")
    picture = Image.fromarray(np.ascontiguousarray(data[:, :, 0]))
    if colours and kind == "PNG" and data.dtype == np.uint8:
        picture.putpalette(_palette(colours))
    picture.save(buffer, kind, **({"dpi": dpi} if dpi else {}))
    write_bytes(path, buffer.getvalue())


def check_shape(path: str | Path, shape: tuple[int, ...], source: str) -> None:
    """UNetError for a mask that no picture can hold: one of several slices."""
    if len(shape) != 3 or shape[2] != 1:
        raise UNetError(path, f"a mask of shape {shape} for {source} as a picture", "Save it as .nii.gz")


def _palette(colours: Mapping[int, str]) -> bytes:
    """Red, green and blue of all 256 values."""
    palette = np.zeros((256, 3), np.uint8)
    for value, colour in colours.items():
        palette[value] = list(bytes.fromhex(colour[1:]))
    return palette.tobytes()
