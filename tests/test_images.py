"""Masks hold whole numbers, whatever the file; what cannot be written is told, and leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hostile import AFFINE, VOXELS
from PIL import Image

from napari_unet import images
from napari_unet.errors import UNetError
from napari_unet.volume import Volume


@pytest.mark.parametrize(("highest", "dtype", "stored"), [(1, bool, "u1"), (255, "i8", "u1"), (256, "u4", "u2"),
                                                           (65535, "f8", "u2"), (2, "f2", "u1")])  # fmt: skip
def test_integer_types_of_masks(highest: int, dtype: Any, stored: str, tmp_path: Path) -> None:
    data = np.zeros((2, 3, 4), dtype)
    data[1, 1, 1] = highest
    images.write(tmp_path / "mask.nii", Volume(data, AFFINE))
    mask = nibabel.load(tmp_path / "mask.nii")
    assert mask.get_data_dtype() == stored and np.asanyarray(mask.dataobj)[1, 1, 1] == highest


@pytest.mark.parametrize("value", [0.5, -1, 65536, np.nan, np.inf, 1j])
def test_what_is_no_mask(value: complex, tmp_path: Path) -> None:
    data = np.zeros((2, 3, 4)) + value
    with pytest.raises(UNetError, match=r"^tumour: a mask (with|of type) .+\. (Save the mask with whole|Use 0 to 65535)"):
        images.write(tmp_path / "mask.nii", Volume(data, AFFINE, source="tumour"))
    assert not list(tmp_path.iterdir())


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UNetError, match=r"k-space: voxels of type complex64\. Give real values"):
        images.write(tmp_path / "image.nii", Volume(VOXELS.astype("c8"), AFFINE, source="k-space"), labels=False)


@pytest.mark.parametrize("name", ["mask.mgz", "mask.txt", "mask", "mask.nii.bz2", "mask.hdr"])
def test_endings_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(UNetError, match=r"the ending .+\. Use \.nii or \.nii\.gz"):
        images.write(tmp_path / name, Volume(VOXELS.view(np.uint16), AFFINE))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_mask_as_a_picture(ending: str, tmp_path: Path) -> None:
    data = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    images.write(tmp_path / f"mask{ending}", Volume(data, np.eye(4)))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"mask{ending}")), data[..., 0])
