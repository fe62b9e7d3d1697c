"""Checking a data set: every fault of every file in one pass, and nothing that training would stumble over later."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from datasets import affine_for, decathlon, describe, nnunet, scan, two_folders, write_pair
from hostile import nifti_bytes, packed

from napari_unet import UNetError, check, find_cases, images
from napari_unet.checks import MAX_CLASSES, SAMPLES, Report, refuse
from napari_unet.spec import MAX_CHANNELS
from napari_unet.survey import table, write_table

Fault = Callable[[Path], object]


def checked(folder: Path) -> list[Report]:
    return list(check(find_cases(folder)))


def found(reports: list[Report], level: str) -> list[str]:
    return [f"{Path(f.where).name}: {f.what}" for report in reports for f in report.findings if f.level == level]


def image(change: Callable[[np.ndarray], np.ndarray], part: str = "imagesTr", **scans: object) -> Fault:
    """Case a1 of a Decathlon data set, with other voxels."""

    def write(folder: Path) -> None:
        volume = scan(1, **scans)[part == "labelsTr"]
        data = change(volume.data.copy())
        images.write(folder / part / "a1.nii.gz", volume.with_data(data) if data.shape[:3] == volume.shape else
                    type(volume)(data, volume.affine), labels=False)  # fmt: skip

    return write


def label(change: Callable[[np.ndarray], np.ndarray], **scans: object) -> Fault:
    return image(change, "labelsTr", **scans)


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """One voxel of another value."""

    def change(data: np.ndarray) -> np.ndarray:
        data = data.astype(float if isinstance(value, float) else np.int32)
        data[3, 3, 3] = value
        return data

    return change


def same(data: np.ndarray) -> np.ndarray:
    return data


def cut(part: str) -> Fault:
    """The file as an interrupted download leaves it."""

    def write(folder: Path) -> None:
        path = folder / part / "a1.nii.gz"
        path.write_bytes(path.read_bytes()[:-100])

    return write


def gone(part: str) -> Fault:
    return lambda folder: (folder / part / "a1.nii.gz").unlink()


def linked(part: str, target: str) -> Fault:
    """A link in the place of the file."""

    def write(folder: Path) -> None:
        path = folder / part / "a1.nii.gz"
        path.unlink()
        path.symlink_to(target)

    return write


def raw(data: np.ndarray) -> Fault:
    """An image that we would not write."""
    return lambda folder: (folder / "imagesTr/a1.nii.gz").write_bytes(packed(nifti_bytes(data)))


def its_own_label(folder: Path) -> None:
    shutil.copy(folder / "labelsTr/a1.nii.gz", folder / "imagesTr")


ERRORS: dict[str, tuple[Fault, str]] = {
    "image cut": (cut("imagesTr"), "the compressed data is damaged"),
    "label cut": (cut("labelsTr"), "the compressed data is damaged"),
    "no image": (gone("imagesTr"), "cannot be read (No such file or directory)"),
    "no label": (gone("labelsTr"), "cannot be read (No such file or directory)"),
    "NaN": (image(put(np.nan)), "1 voxel is NaN or infinite"),
    "infinite": (image(put(-np.inf)), "1 voxel is NaN or infinite"),
    "constant": (image(np.zeros_like), "every voxel of channel 0 has the value 0"),
    "more channels": (image(lambda data: np.stack([data, data], -1)), "2 channels, not 1 as dataset.json names"),
    "label of another shape": (label(lambda data: data[:-1]), "its shape is (19, 24, 18)"),
    "label elsewhere": (label(same, affine=affine_for("RAS", (1, 1, 1.5))), "puts a corner 8.5 mm away"),
    "label mirrored": (label(same, affine=affine_for("LAS", (1, 1, 1))), "puts a corner 38 mm away"),
    "unknown value": (label(put(7)), "the mask value 7 is none of 0 and [1, 2]"),
    "half a voxel": (label(put(0.5)), "a mask with the value 0.5"),
    "negative value": (label(put(-1)), "a mask with the value -1"),
    "too large a value": (label(put(70_000)), "a mask with the value 70000"),
    "NaN in the label": (label(put(np.nan)), "a mask with NaN or infinite values"),
    "label with channels": (label(lambda data: np.stack([data, data], -1)), "a mask with 2 channels"),
    "0 and 255": (label(lambda data: (data > 0) * np.uint8(255)), "the mask value 255 is none of 0 and [1, 2]"),
    "complex": (raw(np.ones((20, 24, 18), np.complex64)), "the field datatype is 32 (complex numbers)"),
    "5-D": (raw(np.ones((20, 24, 18, 2, 2), np.uint8)), "its shape is (20, 24, 18, 2, 2)"),
    "a link to nothing": (linked("imagesTr", "nowhere.nii.gz"), "cannot be read (No such file or directory)"),
    "a link to itself": (linked("labelsTr", "a1.nii.gz"), "cannot be read (Too many levels of symbolic links)"),
    "a mask in the place of the image": (its_own_label, "the label is the image itself, voxel by voxel"),
    "an image for a label": (lambda f: shutil.copy(f / "imagesTr/a1.nii.gz", f / "labelsTr"), "a mask with the value -"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decathlon(tmp_path_factory.mktemp("good"), 3)


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "data"))


def test_nothing_is_wrong_with_good_cases(good: Path) -> None:
    reports = checked(good)
    assert [report.case.name for report in reports] == ["a0", "a1", "a2"]
    assert not any(report.findings for report in reports)
    refuse(reports, str(good))


@pytest.mark.parametrize("name", ERRORS)
def test_a_fault_in_the_middle_is_told_and_does_not_stop_the_check(folder: Path, name: str) -> None:
    harm, words = ERRORS[name]
    harm(folder)
    reports = checked(folder)
    errors = found(reports, "error")
    assert len(errors) == 1 and words in errors[0] and errors[0].startswith("a1.nii.gz: ")
    assert [report.facts is None for report in reports] == [False, True, False]
    with pytest.raises(UNetError, match="a1.nii.gz"):
        refuse(reports, str(folder))


def test_every_fault_of_every_file_in_one_pass(folder: Path) -> None:
    image(put(np.nan), shape=(20, 24, 17))(folder)
    label(put(7))(folder)
    for part in ("imagesTr", "labelsTr"):
        path = folder / part / "a2.nii.gz"
        path.write_bytes(path.read_bytes()[:-100])
    reports = checked(folder)
    errors = found(reports, "error")
    assert [words.split(":")[0] for words in errors] == ["a1.nii.gz"] * 3 + ["a2.nii.gz"] * 2
    assert all(any(words in e for e in errors) for words in ("NaN", "mask value 7", "its shape", "damaged"))
    with pytest.raises(UNetError, match="and 4 more errors"):
        refuse(reports, str(folder))


def test_a_class_in_a_broken_case_is_not_called_missing(folder: Path) -> None:
    for name in ("a0", "a2"):
        _, mask = scan(int(name[1]))
        images.write(folder / f"labelsTr/{name}.nii.gz", mask.with_data((mask.data == 1).astype(np.uint8)))
    image(put(np.nan))(folder)
    assert found(checked(folder), "warning") == []


def test_what_is_odd_but_allowed_is_a_warning(folder: Path) -> None:
    _, mask = scan(0)
    images.write(folder / "labelsTr/a0.nii.gz", mask.with_data(mask.data * 0))
    for n in (1, 2):
        shutil.copy(folder / "imagesTr/a1.nii.gz", folder / "imagesTr/a2.nii.gz")
        _, mask = scan(n)
        images.write(folder / f"labelsTr/a{n}.nii.gz", mask.with_data((mask.data == 1).astype(np.uint8)))
    reports = checked(folder)
    assert found(reports, "error") == []
    assert found(reports, "warning") == [
        "a0.nii.gz: an empty mask: every voxel is background",
        "a2.nii.gz: the same voxels as a1, under another label",
        "data: the label 2 (dark) occurs in no case",
    ]
    refuse(reports, str(folder))


def test_the_same_case_twice_and_the_same_mask_twice(folder: Path) -> None:
    for part in ("imagesTr", "labelsTr"):
        shutil.copy(folder / part / "a0.nii.gz", folder / part / "a1.nii.gz")
    shutil.copy(folder / "labelsTr/a0.nii.gz", folder / "labelsTr/a2.nii.gz")
    reports = checked(folder)
    assert found(reports, "warning") == ["a1.nii.gz: the same voxels as a0", "a2.nii.gz: the same mask as a0, whose image is another"]
    assert found(reports, "error") == []


def test_empty_masks_are_not_copies_of_one_another(folder: Path) -> None:
    label(np.zeros_like)(folder)
    shutil.copy(folder / "labelsTr/a1.nii.gz", folder / "labelsTr/a0.nii.gz")
    assert found(checked(folder), "warning") == [f"a{n}.nii.gz: an empty mask: every voxel is background" for n in range(2)]


def test_masks_of_nothing_but_tissue_are_not_copies_of_one_another(folder: Path) -> None:
    label(np.ones_like)(folder)
    shutil.copy(folder / "labelsTr/a1.nii.gz", folder / "labelsTr/a0.nii.gz")
    assert found(checked(folder), "warning") == []


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_a_file_that_changes_while_it_is_read(folder: Path, part: str) -> None:
    """Somebody saves it anew between the reading of a case's first and second file."""
    path = folder / part / "a1.nii.gz"

    def saved_anew(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_name == "of_channels" and frame.f_locals["image"].source.endswith("a1.nii.gz"):
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)

    before = sys.gettrace()
    sys.settrace(saved_anew)  # type: ignore[arg-type]
    try:
        reports = checked(folder)
    finally:
        sys.settrace(before)
    assert found(reports, "error") == ["a1.nii.gz: it changed while it was read"]
    assert checked(folder)[1].facts is not None


def test_a_series_is_not_an_image_of_many_channels(tmp_path: Path) -> None:
    image, mask = scan()
    series = image.with_data(np.stack([image.data] * (MAX_CHANNELS + 1), -1))
    write_pair(tmp_path / "images/a.nii.gz", tmp_path / "labels/a.nii.gz", series, mask)
    assert found(checked(tmp_path), "error") == ["a.nii.gz: 65 volumes in one file, taken as its channels"]


def test_255_for_the_only_class(tmp_path: Path) -> None:
    two_folders(tmp_path, 2, classes=1)
    describe(tmp_path, labels={"background": 0, "thing": 1})
    _, mask = scan(1)
    images.write(tmp_path / "labels/c1.nii.gz", mask.with_data((mask.data == 1) * np.uint8(255)))
    (finding,) = [finding for report in checked(tmp_path) for finding in report.findings]
    assert (finding.what, finding.remedy) == ("the mask value 255 is none of 0 and [1]", "Save 255 as 1")


def test_what_has_no_partner(tmp_path: Path) -> None:
    two_folders(tmp_path, 3)
    (tmp_path / "images/c0.nii.gz").unlink()
    (tmp_path / "labels/c2.nii.gz").unlink()
    reports = checked(tmp_path)
    assert found(reports, "error") == ["c0.nii.gz: a label without an image"]
    assert found(reports, "warning") == ["c2.nii.gz: an image without a label: left out"]


def test_all_masks_empty(tmp_path: Path) -> None:
    image, mask = scan()
    write_pair(tmp_path / "images/a.nii.gz", tmp_path / "labels/a.nii.gz", image, mask.with_data(mask.data * 0))
    with pytest.raises(UNetError, match="no case has a labelled voxel"):
        refuse(checked(tmp_path), str(tmp_path))


def test_a_channel_too_few(tmp_path: Path) -> None:
    nnunet(tmp_path, 3, channels=2, described=False)
    (tmp_path / "imagesTr/b1_0001.nii.gz").unlink()
    assert found(checked(tmp_path), "error") == ["b1_0000.nii.gz: 1 channel, not 2 as the others"]


def test_fewer_channels_than_dataset_json_says(tmp_path: Path) -> None:
    nnunet(tmp_path, 2, channels=2)
    for n in range(2):
        (tmp_path / f"imagesTr/b{n}_0001.nii.gz").unlink()
    assert found(checked(tmp_path), "error") == [f"b{n}_0000.nii.gz: 1 of the 2 channels that dataset.json names" for n in range(2)]


def test_an_image_in_the_place_of_a_mask(tmp_path: Path) -> None:
    image, mask = scan()
    numbers = np.arange(mask.data.size, dtype=np.uint16).reshape(mask.shape)
    write_pair(tmp_path / "images/a.nii.gz", tmp_path / "labels/a.nii.gz", image, mask.with_data(numbers))
    assert found(checked(tmp_path), "error") == ["a.nii.gz: a mask with 8,639 different values"]
    images.write(tmp_path / "labels/a.nii.gz", mask.with_data((numbers % (MAX_CLASSES + 1)).astype(np.uint8)))
    (report,) = checked(tmp_path)
    assert report.facts is not None and len(report.facts.voxels) == MAX_CLASSES


def test_pictures_and_volumes_do_not_mix(tmp_path: Path) -> None:
    two_folders(tmp_path, 2)
    write_pair(tmp_path / "images/p.png", tmp_path / "labels/p.png", *scan(7, (64, 48, 1)))
    assert found(checked(tmp_path), "error") == ["p.png: a picture among volumes"]


@pytest.mark.skipif(os.name == "nt", reason="Windows' names are Unicode")
def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.nii.gz")
    try:
        write_pair(tmp_path / "images" / name, tmp_path / "labels" / name, *scan())
    except OSError:
        pytest.skip("this file system has only Unicode names")
    (report,) = checked(tmp_path)
    assert "its path is not valid Unicode" in report.findings[0].what
    report.findings[0].where.encode()
    dataset = find_cases(tmp_path)
    write_table(tmp_path / "t.csv", table(dataset, [report]), dataset)
    assert "error" in (tmp_path / "t.csv").read_text("utf-8")


def test_the_facts_are_true(tmp_path: Path) -> None:
    data = np.zeros((20, 30, 40), np.int16)
    data[:] = np.arange(40)
    mask = np.zeros(data.shape, np.uint8)
    mask[:, :, 30:], mask[2:4, 5:7, 0] = 1, 3
    at = affine_for("LPS", (0.5, 0.75, 2.0))
    image, _ = scan(0, data.shape, at)
    write_pair(tmp_path / "images/a.nii.gz", tmp_path / "labels/a.nii.gz", image.with_data(data), image.with_data(mask))
    (report,) = checked(tmp_path)
    facts = report.facts
    assert facts is not None
    assert (facts.shape, facts.spacing) == ((40, 30, 20), (2.0, 0.75, 0.5))  # up, front, right
    assert facts.voxels == {1: 6000, 3: 4}
    assert facts.centroids[1] == pytest.approx((34.5 / 39, 0.5, 0.5))
    assert facts.centroids[3] == pytest.approx((0, 1 - 5.5 / 29, 1 - 2.5 / 19))  # P and L run the other way
    assert facts.low == (0,) and facts.high == (39,) and not facts.picture
    assert facts.orientation == "LPS" and facts.voxel_ml == pytest.approx(0.75e-3) and facts.at_border == (1, 3)
    assert facts.thickness == {1: pytest.approx(2 * 10 * 2.0), 3: pytest.approx(2 * 4 / (4 / 2.0 + 4 / 0.75 + 4 / 0.5))}
    assert facts.foreground.shape[0] == 1 and 0.4 * SAMPLES < facts.foreground.shape[1] <= SAMPLES
    assert set(np.unique(facts.foreground)) == {0.0, *range(30, 40)}


def test_real_data(data: Path) -> None:
    dataset = find_cases(data / "membrane")
    reports = list(check(dataset))
    assert len(reports) == 24 and not any(report.findings for report in reports)
    assert all(report.facts and report.facts.picture and set(report.facts.voxels) == {1} for report in reports)
