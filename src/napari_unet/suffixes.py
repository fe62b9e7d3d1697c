"""The endings of image files: which there are, and what a file is by its own."""

from __future__ import annotations

from pathlib import Path

MEDICAL = (".nii", ".nii.gz", ".hdr", ".img", ".mgh", ".mgz")
BLURRED = (".jpg", ".jpeg")
PICTURES = (".png", ".tif", ".tiff", *BLURRED)
ZARRS = (".ome.zarr", ".zarr")
KNOWN = (*MEDICAL, *PICTURES, *ZARRS)
WRITABLE = (".nii", ".nii.gz", ".png", ".tif", ".tiff")  # masks of any image; one of a zarr can be a zarr, too


def suffix(path: str | Path) -> str:
    """The file's ending as one of the known ones ("" where it is none): `.nii.gz` is one ending."""
    name = Path(path).name.lower()
    return next((s for s in KNOWN if name.endswith(s)), "")


def stem(path: str | Path) -> str:
    """The file's name without its known ending."""
    name = Path(path).name
    return name[: len(name) - len(suffix(path))]


def is_picture(path: str | Path) -> bool:
    """Whether a file is a picture (PNG, TIFF, JPEG), by its ending."""
    return suffix(path) in PICTURES
