"""A file is what its ending says, whatever the folder is called."""

from __future__ import annotations

import pytest

from napari_unet.suffixes import is_picture, stem, suffix


@pytest.mark.parametrize(("name", "kind", "root"), [
    ("a.b.NII.GZ", ".nii.gz", "a.b"), ("a.mgz", ".mgz", "a"), (".nii", ".nii", ""), ("a.txt", "", "a.txt"), ("nii", "", "nii"),
    ("a.ome.zarr", ".ome.zarr", "a"), ("a.b.zarr", ".zarr", "a.b"), ("a.JPEG", ".jpeg", "a"),
])  # fmt: skip
def test_endings(name: str, kind: str, root: str) -> None:
    assert (suffix(f"folder.nii/{name}"), stem(f"folder.nii/{name}")) == (kind, root)


@pytest.mark.parametrize(("name", "picture"), [("a.TIF", True), ("a.jpg", True), ("a.nii", False), ("a.zarr", False), ("png", False)])
def test_pictures(name: str, picture: bool) -> None:
    assert is_picture(f"folder.png/{name}") == picture
