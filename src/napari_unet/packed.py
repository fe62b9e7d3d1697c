"""A file's bytes, inflated where they are gzip; damage is noticed, and no claim of a header is believed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from napari_unet.errors import UNetError
from napari_unet.files import reading
from napari_unet.suffixes import suffix

GZIP = b"\x1f\x8b"
RATIO = 1032  # deflate cannot shrink by more


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, inflated where it is gzip; damage met on the way is a UNetError."""
    try:
        with open(path, "rb") as plain:
            yield gzip.GzipFile(fileobj=plain) if is_packed(plain, path) else plain  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UNetError(path, f"the compressed data is damaged ({error})", "Fetch or export the file again") from error
    except OSError as error:
        raise UNetError(path, f"cannot be read ({error.strerror or error})", "Check the file and its disk") from error


def is_packed(file: BinaryIO, path: Path) -> bool:
    """Is it gzip? The voxels of an .img may begin with any bytes, even with gzip's."""
    start = file.read(2)
    file.seek(0)
    return start == GZIP and path.suffix.lower() != ".img"


def check_claim(path: Path, claimed: int, shape: tuple[int, ...]) -> None:
    """Refuse a header's claim that the file cannot hold, before allocating anything."""
    with reading(path), open(path, "rb") as file:
        packed, size = is_packed(file, path), path.stat().st_size
    if claimed > (size * RATIO if packed else size):
        raise UNetError(path, f"its header claims {claimed:,} bytes (dim {shape}), "
                        f"the file has {size:,}{' compressed ones' if packed else ''}", "Fetch or export the file again")  # fmt: skip


def check_content(path: Path) -> None:
    """Say in words what a file is that cannot be an image."""
    with reading(path):
        if path.is_dir():
            raise UNetError(path, "it is a folder", "Give a file")
        with open(path, "rb") as file:
            start = file.read(64)
    if not start:
        raise UNetError(path, "the file is empty", "Fetch or export it again")
    if start.startswith(b"version https://git-lfs"):
        raise UNetError(path, "it is a Git LFS pointer, not the image itself", "Run git lfs pull")
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UNetError(path, "it is a web page, not an image", "Download the file itself")
    if suffix(path) == ".nii.gz" and not start.startswith(GZIP):
        raise UNetError(path, "its name says gzip, its content does not", "Rename it to .nii, or fetch it again")
    if suffix(path) == ".nii" and start.startswith(GZIP):
        raise UNetError(path, "its content is gzip, its name does not say so", "Rename it to .nii.gz")
