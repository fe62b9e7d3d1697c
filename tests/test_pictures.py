"""Pictures: rows, columns and class indices come back as they are; damage and lossy formats are refused."""

from __future__ import annotations

import random
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_unet import images, pictures
from napari_unet.dataset import Case
from napari_unet.errors import UNetError
from napari_unet.outline import outline
from napari_unet.volume import Volume

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (7, 5), np.uint8)
RGBA = RNG.integers(0, 255, (7, 5, 4), np.uint8)


def save(path: Path, data: np.ndarray, mode: str = "") -> Path:
    image = Image.fromarray(data)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_masks_come_back(tmp_path: Path) -> None:
    for ending in (".png", ".tif", ".TIFF"):
        for highest, dtype in ((3, np.uint8), (300, np.uint16)):
            mask = (GREY.astype(int) % 4 * highest // 3)[..., None]
            images.write(tmp_path / f"mask{ending}", Volume(mask, np.eye(4)))
            back = images.read_labels(tmp_path / f"mask{ending}")
            np.testing.assert_array_equal(back.data, mask)
            assert back.data.dtype == dtype and back.shape == (7, 5, 1) and back.channels == 1


@pytest.mark.parametrize(("values", "expected"), [((0, 255), (0, 1)), ((255,), (1,)), ((0,), (0,)), ((0, 1, 255), (0, 1, 255))], ids=str)
def test_black_and_white_are_two_classes(values: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path) -> None:
    data = np.resize(values, (4, 6)).astype(np.uint8)
    labels = images.read_labels(save(tmp_path / "mask.png", data)).data[..., 0]
    np.testing.assert_array_equal(labels, np.resize(expected, (4, 6)))


@pytest.mark.parametrize(("mode", "ending", "expected"), [
    ("1", ".png", GREY > 127), ("L", ".png", GREY), ("L", ".tif", GREY), ("LA", ".png", GREY), ("LA", ".tif", GREY),
    ("I;16", ".png", GREY), ("I;16", ".tif", GREY), ("F", ".tif", GREY), ("P", ".png", GREY), ("P", ".tif", GREY),
])  # fmt: skip
def test_grey_of_every_kind(mode: str, ending: str, expected: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(GREY)
    if mode == "P":
        image.putpalette(RNG.integers(0, 255, 768, np.uint8).tobytes())  # the indices are the classes, whatever their colours
    elif mode == "1":
        image = Image.fromarray(GREY > 127)
    image.convert(mode).save(tmp_path / f"picture{ending}")
    volume = images.read(tmp_path / f"picture{ending}", classes=True)
    np.testing.assert_array_equal(volume.data[..., 0], expected)
    assert (volume.affine == np.eye(4)).all() and volume.spacing == (1, 1, 1)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_palette_is_looked_through(colours: int, ending: str, compression: str, tmp_path: Path) -> None:
    """As an image it is what is shown, however its palette is ordered; as a mask, what is stored."""
    path = tmp_path / f"picture{ending}"
    palette = np.repeat(RNG.permutation(256).astype(np.uint8)[:, None], 3, 1) if colours == 1 else RNG.integers(0, 255, (256, 3), np.uint8)
    image = Image.fromarray(GREY)
    image.putpalette(palette.tobytes())
    image.save(path, **({"compression": compression} if ending == ".tif" else {}))
    volume, expected = images.read(path), palette[GREY] if colours == 3 else palette[GREY, 0]
    np.testing.assert_array_equal(volume.data[:, :, 0], expected)
    told = outline(Case("a", (path,)))
    assert (told.shape, told.channels) == (volume.shape, volume.channels) == ((7, 5, 1), colours)
    np.testing.assert_array_equal(images.read_labels(path).data[..., 0], GREY)


def test_few_colours_are_as_many_as_there_are(tmp_path: Path) -> None:
    """Of a palette as programs store it, which name no colour that does not occur."""
    grey = np.repeat(np.arange(4, dtype=np.uint8) * 60, 9).reshape(6, 6)
    Image.fromarray(grey).quantize(4).save(tmp_path / "few.png", bits=2)
    np.testing.assert_array_equal(images.read(tmp_path / "few.png").data[..., 0], grey)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_keep_their_classes(bits: int, tmp_path: Path) -> None:
    """Pillow would stretch the grey values of 2 and 4 bits to 255."""
    classes = RNG.integers(0, 2**bits, (6, 8), np.uint8)
    packed = np.packbits(np.unpackbits(classes[..., None], axis=-1)[..., 8 - bits :].reshape(6, -1), axis=-1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    (tmp_path / "mask.png").write_bytes(png(8, 6, bits, rows))
    np.testing.assert_array_equal(images.read_labels(tmp_path / "mask.png").data[..., 0], classes)


def png(width: int, height: int, bits: int, rows: bytes) -> bytes:
    """A grey PNG."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_channels_that_are_stored_apart(photometric: str, tmp_path: Path) -> None:
    """A plane per channel, as remote sensing writes them."""
    colours = RNG.integers(0, 255, (3, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "apart.tif", colours, photometric=photometric, planarconfig="separate")
    volume = images.read(tmp_path / "apart.tif")
    np.testing.assert_array_equal(volume.data[:, :, 0], np.moveaxis(colours, 0, -1))
    assert outline(Case("a", (tmp_path / "apart.tif",))).channels == volume.channels == 3


def test_a_mask_in_shades_of_grey_may_be_stored_in_colour(tmp_path: Path) -> None:
    shades = np.repeat((GREY % 3)[..., None], 3, -1)
    np.testing.assert_array_equal(images.read_labels(save(tmp_path / "grey.png", shades)).data[..., 0], GREY % 3)


def test_what_a_camera_says_of_its_orientation_is_told(tmp_path: Path) -> None:
    """A picture and its mask lie alike, as stored; programs that turn the one would not turn the other."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "turned.png", exif=exif)
    volume = images.read(tmp_path / "turned.png")
    np.testing.assert_array_equal(volume.data[..., 0], GREY)
    assert "EXIF orientation is 6" in volume.notes[0]


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_colours_lose_their_transparency(ending: str, tmp_path: Path) -> None:
    volume = images.read(save(tmp_path / f"picture{ending}", RGBA))
    np.testing.assert_array_equal(volume.data[:, :, 0], RGBA[..., :3])
    with pytest.raises(UNetError, match="3 channels"):
        images.read_labels(tmp_path / f"picture{ending}")


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_every_channel_of_a_microscope_counts(channels: int, tmp_path: Path) -> None:
    data = RNG.integers(0, 60000, (7, 5, channels)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "scan.tif", data, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(images.read(tmp_path / "scan.tif").data[:, :, 0], data)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_types(dtype: str, compression: str | None, tmp_path: Path) -> None:
    data = GREY.astype(dtype)
    tifffile.imwrite(tmp_path / "scan.tif", data, compression=compression, byteorder=">" if ">" in dtype else "<")
    found = images.read(tmp_path / "scan.tif").data[..., 0]
    np.testing.assert_array_equal(found, data)
    assert found.dtype == data.dtype.newbyteorder("=")


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_tiffs_of_other_programs(compression: str, tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "scan.tif", compression=compression)
    np.testing.assert_array_equal(images.read(tmp_path / "scan.tif").data[..., 0], GREY)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
def test_pixels_count_as_stored_where_a_tiff_shows_low_ones_white(compression: str | None, dtype: Any, tmp_path: Path) -> None:
    data, white_is_zero = (GREY > 100 if dtype == np.bool_ else GREY.astype(dtype)), {262: 0}
    Image.fromarray(data).save(tmp_path / "scan.tif", compression=compression, tiffinfo=white_is_zero)
    stored = data if dtype == np.uint16 else ~data  # Pillow turns others round when it writes them
    np.testing.assert_array_equal(images.read(tmp_path / "scan.tif").data[..., 0], stored)


def stack(path: Path, **how: object) -> None:
    tifffile.imwrite(path, np.zeros((3, 7, 5), np.uint8), photometric="minisblack", **how)


def holes(path: Path) -> None:
    """Pixels that a file leaves out are read as zeros by its library."""
    tifffile.imwrite(path, np.ones((64, 64), np.uint8), tile=(32, 32))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["TileByteCounts"].overwrite([0] * 4)


def deep(path: Path, channels: int) -> None:
    """16 bits per channel, which Pillow does not write."""
    head = struct.pack(">IIBBBBB", 5, 7, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in np.full((7, 5, channels), 0x1234, ">u2"))
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def deep_lzw(path: Path) -> None:
    """The same in TIFF, packed as only Pillow reads it: the bytes of twice as many pixels are as many of two bytes each."""
    Image.fromarray(RNG.integers(0, 255, (7, 10, 3), np.uint8)).save(path, compression="tiff_lzw")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(5)
        file.pages[0].tags["BitsPerSample"].overwrite((16, 16, 16))


REFUSED = {
    **{f"deep {n}.png": (lambda p, n=n: deep(p, n), "16 bits, of which only 8 could be read") for n in (2, 3, 4)},
    "deep.tif": (deep_lzw, "pixels of uint16 in LZW, of which only 8 bits could be read"),
    "cut.png": (lambda p: p.write_bytes(save(p, GREY).read_bytes()[:-20]), "cannot be read as a picture"),
    "cut.jpg": (lambda p: p.write_bytes(save(p, GREY).read_bytes()[:-60]), "cannot be read as a picture"),
    "cut.tif": (lambda p: p.write_bytes(save(p, GREY).read_bytes()[:-9]), "pixels are missing|cannot be read"),
    "holes.tif": (holes, "pixels are missing"),
    "pages.tif": (stack, "3 pages"),
    "ImageJ.tif": (lambda p: stack(p, imagej=True, truncate=True), "3 pages"),
    "complex.tif": (lambda p: tifffile.imwrite(p, GREY.astype(np.complex64)), "complex64"),
    "inks.jpg": (lambda p: save(p, RGBA[..., :3], "CMYK"), "CMYK"),
    "text.png": (lambda p: p.write_bytes(b"patient,age\n" * 9), "cannot be read as a picture"),
    "text.tif": (lambda p: p.write_bytes(b"patient,age\n" * 9), "cannot be read as a picture"),
    "page.png": (lambda p: p.write_bytes(b"<!doctype html>"), "web page"),
    "empty.png": (lambda p: p.touch(), "is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pictures_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(UNetError, match=rf"^{re.escape(str(tmp_path / name))}: .*({words}).*\. [A-Z].+\.$"):
        images.read(tmp_path / name)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_what_would_lose_bits_is_refused_from_the_header(channels: int, tmp_path: Path) -> None:
    deep(tmp_path / "a.png", channels)
    with pytest.raises(UNetError, match="a.png: colour or transparency of 16 bits"):
        pictures.peek(tmp_path / "a.png")


def test_classes_that_jpeg_has_blurred_are_no_mask(tmp_path: Path) -> None:
    """Two values became forty; a picture of one value stays what it is."""
    mask = np.zeros((40, 50), np.uint8)
    Image.fromarray(mask).save(tmp_path / "empty.jpg")
    assert not images.read_labels(tmp_path / "empty.jpg").data.any()
    mask[10:23, 11:32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.jpg")
    with pytest.raises(UNetError, match=r"a mask with \d+ values in a JPEG, which blurs class indices. Save it as PNG or TIFF"):
        images.read_labels(tmp_path / "mask.jpg")


@pytest.mark.parametrize(("name", "data", "words"), [
    ("mask.jpg", np.zeros((4, 5, 1), np.uint8), r"JPEG blurs class indices\. Use \.png or \.tif"),
    ("mask.png", np.zeros((4, 5, 2), np.uint8), r"a mask of shape \(4, 5, 2\) for scan as a picture\. Save it as \.nii\.gz"),
    ("image.png", np.zeros((4, 5, 1), np.float32), r"pixels of type float32\. Save it as \.nii\.gz"),
])  # fmt: skip
def test_what_is_not_written_as_a_picture(name: str, data: np.ndarray, words: str, tmp_path: Path) -> None:
    with pytest.raises(UNetError, match=words):
        images.write(tmp_path / name, Volume(data, np.eye(4), source="scan"), labels=name.startswith("mask"))
    assert not list(tmp_path.iterdir())


def test_no_flipped_bit_of_a_png_goes_unnoticed(tmp_path: Path) -> None:
    """Of a PNG alone: plain TIFF and JPEG have no checksums."""
    content, rng, same = save(tmp_path / "good.png", RNG.integers(0, 4, (40, 50), np.uint8)).read_bytes(), random.Random(1), 0
    good, path = images.read(tmp_path / "good.png").data, tmp_path / "flipped.png"
    for bit in rng.sample(range(8 * len(content)), 300):
        path.write_bytes(content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :])
        try:
            np.testing.assert_array_equal(images.read(path).data, good)
        except UNetError:
            continue
        same += 1
    assert same < 15


def test_real_pictures(data: Path) -> None:
    for path in sorted((data / "membrane" / "labels").iterdir())[:3]:
        labels, image = images.read_labels(path), images.read(data / "membrane" / "images" / path.name)
        assert labels.shape == image.shape == (512, 512, 1) and set(np.unique(labels.data)) == {0, 1}
        np.testing.assert_array_equal(labels.data[..., 0], np.asarray(Image.open(path)) == 255)


def test_an_indexed_mask_shows_colours_and_holds_classes(tmp_path: Path) -> None:
    mask = (GREY % 4)[..., None]
    pictures.write(tmp_path / "m.png", mask, "scan", {1: "#ff8000", 3: "#0000ff"})
    with Image.open(tmp_path / "m.png") as image:
        np.testing.assert_array_equal(np.asarray(image), mask[..., 0])
        shown = np.asarray(image.convert("RGB"))
    assert (shown[mask[..., 0] == 1] == (255, 128, 0)).all() and (shown[mask[..., 0] == 3] == (0, 0, 255)).all()
    assert not shown[np.isin(mask[..., 0], (0, 2))].any()
    np.testing.assert_array_equal(images.read_labels(tmp_path / "m.png").data, mask)


def test_what_no_palette_can_hold_stays_grey(tmp_path: Path) -> None:
    mask = np.full((3, 4, 1), 300, np.uint16)
    pictures.write(tmp_path / "m.png", mask, "scan", {300: "#ff8000"})
    np.testing.assert_array_equal(images.read_labels(tmp_path / "m.png").data, mask)


@pytest.mark.parametrize(("written", "told"), [
    ({"resolution": (100, 50), "resolutionunit": 3}, (254, 127)), ({"resolution": (300, 300), "resolutionunit": 2}, (300, 300)),
    ({"resolution": (10, 20), "imagej": True, "metadata": {"unit": "um"}}, (254000, 508000)),
    ({"resolution": (10, 10), "imagej": True, "metadata": {"unit": "furlong"}}, None), ({"resolution": (7, 7), "resolutionunit": 1}, None),
    ({"resolution": (0, 0), "resolutionunit": 2}, None), ({}, None),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_mask_has_its_images_resolution(tmp_path: Path, written: dict[str, Any], told: tuple[float, float] | None, ending: str) -> None:
    tifffile.imwrite(tmp_path / "image.tif", GREY, **written)
    found = pictures.resolution(tmp_path / "image.tif")
    assert found == (told and pytest.approx(told))
    pictures.write(tmp_path / f"mask{ending}", GREY[..., None], "image", {}, found)
    again = pictures.resolution(tmp_path / f"mask{ending}")
    assert again == (told and pytest.approx(told, rel=1e-4))


def test_the_size_of_a_picture_without_its_pixels(tmp_path: Path) -> None:
    for name, data in (("a.png", GREY), ("b.png", RGBA[..., :3]), ("c.tif", GREY.astype(np.uint16)), ("d.jpg", RGBA[..., :3])):
        path = save(tmp_path / name, data)
        rows, columns, channels, dtype = pictures.peek(path)
        assert (rows, columns, channels) == (*data.shape, 1)[:3] and dtype == images.read(path).data.dtype


def test_how_large_a_picture_may_be_is_a_matter_of_memory(tmp_path: Path) -> None:
    """Not of Pillow's limit against bombs, which is above 178 million pixels; other programs' stays as it was."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.new("1", (30_000, 6_000)).save(tmp_path / "large.png")
    assert pictures.peek(tmp_path / "large.png")[:2] == (6_000, 30_000)
    assert pictures.read(tmp_path / "large.png").shape == (6_000, 30_000, 1)
    assert limit == Image.MAX_IMAGE_PIXELS
