"""What tells a thing from others: the voxels of a case, the ends of its files, a model's tensors, when a file was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import UNetError
from napari_unet.suffixes import suffix
from napari_unet.volume import Volume

EDGE = 1 << 20  # bytes of a file's beginning and end
DESCRIPTIONS = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
Stamp = tuple[int, int, int]  # inode, bytes, nanoseconds


def of_voxels(image: Volume, label: Volume) -> str:
    """Of a case's voxels, which of them are labelled, and where they are."""
    digest = hashlib.sha256(image.affine.tobytes())
    for volume in (image, label):
        digest.update(np.ascontiguousarray(volume.data))
    return digest.hexdigest()


def of_array(data: NDArray[Any]) -> str:
    """Of an array's values alone, wherever they lie."""
    digest = hashlib.sha256(str((data.shape, data.dtype)).encode())
    digest.update(np.ascontiguousarray(data))
    return digest.hexdigest()


def of_tensors(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Of named tensors as float32, whatever file holds them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} ".encode())
        digest.update(np.ascontiguousarray(tensors[name], "<f4"))
    return digest.hexdigest()


def of_content(path: Path) -> str:
    """Of all bytes of a file, or of all files of a folder and their names."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    whole = hashlib.sha256()
    for part in sorted(part for part in path.rglob("*") if part.is_file()):
        whole.update(f"{part.relative_to(path).as_posix()} {of_content(part)}\n".encode())
    return whole.hexdigest()


def of_files(images: Iterable[Path]) -> str:
    """The size, the beginning and the end, where gzip has its checksum, of each file of a case, as one SHA-256.

    Of a zarr, the names and sizes of its files, its descriptions, and its first chunk; of a pair, both files.
    """
    whole = hashlib.sha256()
    for image in images:
        parts = files_of(image)
        if image.is_dir():
            whole.update("".join(f"{part.relative_to(image).as_posix()} {part.stat().st_size}\n" for part in parts).encode())
            chunks = [part for part in parts if part.name not in DESCRIPTIONS]
            parts = [*(part for part in parts if part.name in DESCRIPTIONS), *chunks[:1]]
        for part in parts:
            whole.update(_ends(part))
    return whole.hexdigest()


def files_of(image: Path) -> list[Path]:
    """What there is of an image on disk: its file, both files of a pair, all files of a zarr."""
    if image.is_dir():
        return sorted(part for part in image.rglob("*") if part.is_file())
    return [file for file in (image, *_other_half(image)) if file.exists()]


def _ends(path: Path) -> bytes:
    """A file's beginning and end, which overlap where it is short, and its size."""
    with open(path, "rb") as file:
        begin, size = file.read(EDGE), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - EDGE))
        return begin + file.read() + f" {size}\n".encode()


def _other_half(image: Path) -> Iterator[Path]:
    """The voxels of a header that has none, or their header."""
    others = {".hdr": (".img", ".IMG"), ".img": (".hdr", ".HDR")}.get(suffix(image), ())
    yield from map(image.with_suffix, others)


def stamp(path: str | Path) -> Stamp | None:
    """What is another one once a file is written anew, or another takes its place; None where there is none."""
    try:
        known = os.stat(path)
    except (OSError, ValueError):  # a name that no file can have
        return None
    return known.st_ino, known.st_size, known.st_mtime_ns


def changed(name: str, folder: Path) -> UNetError:
    """What is raised where a case is not what a run began with."""
    return UNetError(folder, f"its case {name} has changed", "Resume with the data the run began with, or begin anew")
