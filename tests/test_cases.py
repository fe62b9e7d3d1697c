"""Pairing images with labels: every layout is understood, and every doubt is one sentence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import LABELS, SHAPE, decathlon, describe, nnunet, scan, two_folders, write_pair

from napari_unet import UNetError, description, find_cases, find_images, images
from napari_unet.cases import masks_beside
from napari_unet.dataset import Case, read_image, read_label
from napari_unet.layout import mask_file

NAMES = {1: "bright", 2: "dark"}


def change(folder: Path, **fields: Any) -> None:
    """Other fields in dataset.json."""
    describe(folder, **json.loads((folder / "dataset.json").read_text()) | fields)


def entry(image: str, label: str = "labelsTr/a0.nii.gz") -> list[dict[str, str]]:
    return [{"image": image, "label": label}]


def sentence(error: pytest.ExceptionInfo[UNetError]) -> str:
    """An error's text: one line that says what and what to do."""
    text = str(error.value)
    assert "\n" not in text and error.value.where and error.value.what and error.value.remedy
    return text


def test_the_decathlons_layout(tmp_path: Path) -> None:
    found = find_cases(decathlon(tmp_path, 3))
    assert [case.name for case in found.cases] == ["a0", "a1", "a2"]
    assert found.cases[1] == Case("a1", (tmp_path / "imagesTr/a1.nii.gz",), tmp_path / "labelsTr/a1.nii.gz")
    assert (found.labels, found.channels, found.origin, found.licence) == (NAMES, ("MRI",), "Blocks", "CC0")


@pytest.mark.parametrize("described", [True, False])
def test_nnunets_raw_layout(tmp_path: Path, described: bool) -> None:
    found = find_cases(nnunet(tmp_path, 2, channels=2, described=described))
    assert [case.name for case in found.cases] == ["b0", "b1"]
    assert [path.name for path in found.cases[0].images] == ["b0_0000.nii.gz", "b0_0001.nii.gz"]
    assert (found.labels, found.channels) == ((NAMES, ("T1", "T2")) if described else ({}, ()))
    assert read_image(found.cases[0]).data.shape == (*SHAPE, 2)


@pytest.mark.parametrize("suffix", ["seg", "mask", "label", "labels", "masks", "segmentation", "gt", "SEG"])
@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_masks_named_for_their_images_are_found_in_one_folder_and_in_two(tmp_path: Path, suffix: str, ending: str) -> None:
    """As the viewer proposes to name them."""
    two, one = two_folders(tmp_path / "two", 3, ending), tmp_path / "one"
    names = sorted(path.name for path in (two / "images").iterdir())
    one.mkdir()
    for name in names:
        case = name.removesuffix(ending)
        shutil.copy(two / "images" / name, one / name)
        shutil.copy(two / "labels" / name, one / f"{case}_{suffix}{ending}")
        (two / "labels" / name).rename(two / "labels" / f"{case}_{suffix}{ending}")
    shutil.copy(one / names[0], one / f"more{ending}")  # an image without a mask
    for folder in (one, two):
        found = find_cases(folder)
        assert [(case.images[0].name, case.label and case.label.name) for case in found.cases] == [
            (name, f"{name.removesuffix(ending)}_{suffix}{ending}") for name in names
        ]
        assert [path.name for path in found.unlabelled] == ([f"more{ending}"] if folder == one else []) and not found.without_image


def touched(folder: Path, *names: str) -> Path:
    """Files of which nothing but the name is read."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found_in(folder: Path) -> dict[str, list[str]]:
    """The files of each case, its label last."""
    return {case.name: [path.relative_to(folder).as_posix() for path in (*case.images, case.label or folder)]
            for case in find_cases(folder).cases}  # fmt: skip


@pytest.mark.parametrize(
    ("images", "labels"),
    [("Images", "Labels"), ("IMAGESTR", "LabelsTr"), ("imgs", "masks"), ("img", "label"), ("Image", "Mask"), (".", "labels"),
     (".", "labels/final"), ("images", "labels/final")],
)  # fmt: skip
def test_folders_of_images_and_of_labels(tmp_path: Path, images: str, labels: str) -> None:
    """In large letters or small; MONAI Label keeps labels in labels/final, and other ones, which a model made, beside them."""
    touched(tmp_path, f"{images}/a.nii.gz", f"{labels}/a.nii.gz")
    if "final" in labels:
        touched(tmp_path, "labels/original/a.nii.gz")
    (case,) = find_cases(tmp_path).cases
    assert case == Case("a", (tmp_path / images / "a.nii.gz",), tmp_path / labels / "a.nii.gz")


def test_a_folder_of_its_own_letters_comes_first(tmp_path: Path) -> None:
    touched(tmp_path, "Images/a.png", "IMAGES/a.png", "labels/a.png")
    if len(list(tmp_path.iterdir())) == 3:  # a disk that tells large letters from small
        with pytest.raises(UNetError, match="IMAGES and Images are both in it. Keep one of them there"):
            find_cases(tmp_path)
        touched(tmp_path, "images/a.png")
        assert found_in(tmp_path) == {"a": ["images/a.png", "labels/a.png"]}


@pytest.mark.parametrize(
    ("image", "label"),
    [("img0001", "label0001"), ("image_1", "mask_1"), ("a_img", "a_masks"), ("Scan-7", "scan-7"), ("SCAN_7", "scan_7_gt"), ("1", "seg-1"),
     ("img_0000", "mask_0000")],
)  # fmt: skip
def test_names_that_differ_in_letters_or_a_word(tmp_path: Path, image: str, label: str) -> None:
    second = {name: name.translate(str.maketrans("017", "128")).replace("a_", "b_") for name in (image, label)}
    touched(tmp_path, f"images/{image}.png", f"labels/{label}.png", f"images/{second[image]}.png", f"labels/{second[label]}.png")
    assert found_in(tmp_path) == {name: [f"images/{name}.png", f"labels/{of}.png"]
                                  for name, of in ((image, label), (second[image], second[label]))}  # fmt: skip


@pytest.mark.parametrize(
    ("images", "labels", "pairs"),
    [
        (("img1", "1"), ("label1", "1"), {"1": "1"}),  # the other two: 1 may have been meant
        (("img1", "image_1"), ("label1",), {}),
        (("img1",), ("label1", "mask_1"), {}),
        (("img1", "img2"), ("label01", "label02"), {}),
        (("a1", "a2"), ("b1", "b2"), {}),
        (("image", "x"), ("label", "x"), {"x": "x"}),
        (("labelled_1",), ("led_1",), {}),
    ],
)
def test_what_is_not_one_to_one_is_not_guessed(
    tmp_path: Path, images: tuple[str, ...], labels: tuple[str, ...], pairs: dict[str, str]
) -> None:
    touched(tmp_path, *(f"images/{name}.png" for name in images), *(f"labels/{name}.png" for name in labels))
    if not pairs:
        told = f"({', '.join(f'{name}.png' for name in sorted(images))}; {', '.join(f'{name}.png' for name in sorted(labels))})"
        with pytest.raises(UNetError, match=re.escape(f"no image in images has a label of the same name in labels {told}. Name them")):
            find_cases(tmp_path)
    else:
        assert found_in(tmp_path) == {name: [f"images/{name}.png", f"labels/{of}.png"] for name, of in pairs.items()}
        assert len(find_cases(tmp_path).without_image) == len(labels) - len(pairs)


# --- a folder per case

KITS, BRATS = ("imaging", "segmentation"), ("CASE_flair", "CASE_t1", "CASE_seg")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (KITS, ()), (("CASE", "CASE_seg"), ()), (("CASE_scan", "mask"), ()), (("Image", "LABEL"), ()), (BRATS, ("flair", "t1")),
        (("CASE-t1c", "CASE-t1n", "CASE-seg"), ("t1c", "t1n")), (("t1", "t2", "gt"), ("t1", "t2")),
        (("CASE_0000", "CASE_0001", "CASE_seg"), ()), (("CASE_CT", "CASE_PET", "CASE_CT_gt"), ("CT", "PET")),
        (("sub_t1", "sub_t2", "sub_seg"), ("t1", "t2")),
    ],
)  # fmt: skip
def test_a_folder_per_case(tmp_path: Path, files: tuple[str, ...], names: tuple[str, ...]) -> None:
    """KiTS, BraTS and their like: what is no mask is a channel, in one order for all."""
    for case in ("BraTS_001", "BraTS_002"):
        touched(tmp_path, *(f"{case}/{name.replace('CASE', case)}.nii.gz" for name in files))
    touched(tmp_path, "BraTS_003/a.nii.gz", "BraTS_004/seg.nii.gz", "scripts/run.py", "LICENSE.txt")
    found = find_cases(tmp_path)
    assert found.channels == names and [path.parent.name for path in found.unlabelled] == ["BraTS_003"]
    assert found.without_image == (tmp_path / "BraTS_004/seg.nii.gz",)
    assert found_in(tmp_path) == {
        case: [f"{case}/{name.replace('CASE', case)}.nii.gz" for name in files] for case in ("BraTS_001", "BraTS_002")
    }


def test_a_folder_per_case_and_the_names_in_dataset_json(tmp_path: Path) -> None:
    for case in ("a", "b"):
        touched(tmp_path, *(f"{case}/{name.replace('CASE', case)}.nii.gz" for name in BRATS))
    describe(tmp_path, labels=LABELS, channel_names={"0": "T1", "1": "FLAIR"})
    found = find_cases(tmp_path)
    assert found.channels == ("T1", "FLAIR") and found.labels == NAMES
    assert [path.name for path in found.cases[0].images] == ["a_t1.nii.gz", "a_flair.nii.gz"]
    describe(tmp_path, labels=LABELS, channel_names={"0": "T1", "1": "T2"})
    with pytest.raises(UNetError, match="dataset.json names the channels T1, T2, the files flair, t1. Name them alike"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("a/x.png", "a/x_seg.png", "b/y.png", "b/y_seg.png", "b/y_gt.png"), "b: 2 masks (y_gt.png, y_seg.png) in the folder of a case"),
        (("a/a_t1.png", "a/a_seg.png", "b/b_t2.png", "b/b_seg.png"), "b: its images are b_t2.png, those of a a_t1.png. Give all cases the"),
        (("a/a_t1.png", "a/a_t2.png", "a/seg.png", "b/b_t1.png", "b/seg.png"), "b: its images are b_t1.png, those of a a_t1.png, a_t2.png"),
        (("a/x.png", "a/y.png", "a/x_seg.png"), "a: whether its images (x.png, y.png) are channels of one cannot be told"),
        (("a/a.png", "a/a_t1.png", "a/a_seg.png"), "a: whether its images (a.png, a_t1.png) are channels of one cannot be told"),
        (("a/t1.png", "a/t1.tif", "a/seg.png"), "t1.tif: it has the name of t1.png. Keep one of them"),
        (("a/x.png", "a/y.png", "a/x_seg.png", "a/y_seg.png"), "no folder imagesTr or images or image or imgs or img in it (a)"),
        (("a/x.png", "a/x_seg.png", "y.png"), "in it (a, y.png)"),
        (("scans/x.png", "scans/y.png", "segs/x.png", "z/z/z.png", "zz/a"), "in it (scans, segs, z and 1 more)"),
    ],
)
def test_a_folder_per_case_in_doubt(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    touched(tmp_path, *files)
    with pytest.raises(UNetError) as error:
        find_cases(tmp_path)
    assert words in sentence(error)


def test_a_mask_of_its_own_name_comes_before_one_that_is_named_for_the_image(tmp_path: Path) -> None:
    data = two_folders(tmp_path, 2)
    name = sorted((data / "labels").iterdir())[0]
    shutil.copy(name, name.with_name(name.name.replace(".nii.gz", "_seg.nii.gz")))
    found = find_cases(data)
    assert found.cases[0].label == name and [path.name for path in found.without_image] == [name.name.replace(".nii.gz", "_seg.nii.gz")]


def test_two_masks_named_for_one_image(tmp_path: Path) -> None:
    for name in ("a.png", "a_seg.png", "a_mask.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UNetError, match=r"a_seg.png: it is named for the same image as a_mask.png. Keep one of them there"):
        find_cases(tmp_path)


def test_a_folder_of_other_folders_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(UNetError, match=r"no folder imagesTr or images or .+ or img in it \(train\)\. Use imagesTr"):
        find_cases(tmp_path)


def test_masks_beside_images_are_not_segmented(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a_seg.nii.gz", "b_seg.nii.gz", "c_0000.nii.gz", "c_0001.nii.gz", "c_mask.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    assert [case.name for case in find_images([tmp_path], 2)] == ["a", "b_seg", "c"]
    assert [path.name for path in masks_beside(tmp_path)] == ["a_seg.nii.gz", "c_mask.nii.gz"]
    assert [case.name for case in find_images([tmp_path / "a_seg.nii.gz"], 1)] == ["a_seg"], "what is asked for by name is"


def test_names_of_teeth_are_numbers(tmp_path: Path) -> None:
    """nnU-Net's values are numbers, the Decathlon's names are text: that tells which is which."""
    nnunet(tmp_path, 2, channels=1)
    change(tmp_path, labels={"background": 0, "11": 1, "12": 2, "2": 3})
    assert find_cases(tmp_path).labels == {1: "11", 2: "12", 3: "2"}
    change(tmp_path, labels={"0": "background", "1": "2", "2": "1"})
    assert find_cases(tmp_path).labels == {1: "2", 2: "1"}


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["c1/imaging.nii.gz", "c2/imaging.nii.gz"], ["c1", "c2"]),
        (["c1/img/imaging.nii.gz", "c2/img/imaging.nii.gz", "scan.nii"], ["c1", "c2", "scan"]),
        (["s1/c1/i.nii.gz", "s1/c2/i.nii.gz", "s2/c1/i.nii.gz"], ["s1_c1", "s1_c2", "s2_c1"]),
        (["a.nii.gz", "x/a.nii.gz"], ["a", "x"]),
        ([["c1/t1.nii.gz", "c1/t2.nii.gz"], ["c2/t1.nii.gz", "c2/t2.nii.gz"]], ["c1", "c2"]),
        ([["c_1_t1.nii.gz", "c_1_t1ce.nii.gz"], ["c_2_t1.nii.gz", "c_2_t1ce.nii.gz"]], ["c_1", "c_2"]),
        ([["c1_0000.nii.gz", "c1_0001.nii.gz"]], ["c1"]),
        (["x/a.nii.gz", "y/A.nii.gz", "./y/b.nii.gz"], ["x", "y", "b"]),
    ],
)
def test_listed_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, images: list[Any], names: list[str]) -> None:
    """As in KiTS, and in MONAI's data lists."""
    entries = [{"image": image, "label": f"labels/{n}.nii.gz", "fold": 0} for n, image in enumerate(images)]
    describe(tmp_path, labels={str(value): name for value, name in NAMES.items()}, training=entries)
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == names
    files = [image if isinstance(image, list) else [image] for image in images]
    assert [list(case.images) for case in found.cases] == [[tmp_path / path for path in paths] for paths in files]


def test_nnunets_table_of_cases(tmp_path: Path) -> None:
    nnunet(tmp_path, 2, channels=2)
    one = {"images": ["imagesTr/b0_0000.nii.gz", "imagesTr/b0_0001.nii.gz"], "label": "labelsTr/b1.nii.gz"}
    change(tmp_path, dataset={"mine": one})
    (case,) = find_cases(tmp_path).cases
    assert case == Case("mine", tuple(tmp_path / path for path in one["images"]), tmp_path / one["label"])
    for wrong in ({"images": [], "label": "a"}, {"images": ["a"]}, {"images": "a", "label": "a"}, {"images": [1], "label": "a"}, "a"):
        change(tmp_path, dataset={"mine": wrong})
        with pytest.raises(UNetError, match="dataset.json: the case mine: "):
            find_cases(tmp_path)
    for path in ("../a.nii.gz", "/a.nii.gz"):
        change(tmp_path, dataset={"mine": {"images": [path], "label": "labelsTr/b1.nii.gz"}})
        with pytest.raises(UNetError, match="leads out of the folder"):
            find_cases(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../../../EVIL", "/EVIL", "site A/case", "a\0b", "\ud800", "ü" * 125])
def test_a_name_that_no_masks_file_can_have(tmp_path: Path, name: str) -> None:
    """It would lead out of the run's folder, or lose the run when its masks are written."""
    nnunet(tmp_path, 1, channels=1)
    change(tmp_path, dataset={name: {"images": ["imagesTr/b0_0000.nii.gz"], "label": "labelsTr/b0.nii.gz"}})
    with pytest.raises(UNetError) as error:
        find_cases(tmp_path)
    assert "has a name that no mask's file can have" in sentence(error) and error.value.where == str(tmp_path / "dataset.json")
    with pytest.raises(UNetError, match="no mask's file"):
        mask_file(tmp_path, name)


def test_names_of_masks_files(tmp_path: Path) -> None:
    for name in ("a", "Größe 脳", "a..b", "-rf", "x" * 248):
        assert mask_file(tmp_path, name) == tmp_path / "masks" / f"{name}.nii.gz"
        mask_file(tmp_path, name, "").touch()


def test_nnunets_first_version_lists_cases_without_their_channels(tmp_path: Path) -> None:
    nnunet(tmp_path, 2, channels=1)
    change(tmp_path, training=[{"image": f"./imagesTr/b{n}.nii.gz", "label": f"./labelsTr/b{n}.nii.gz"} for n in range(2)])
    assert [case.images[0].name for case in find_cases(tmp_path).cases] == ["b0_0000.nii.gz", "b1_0000.nii.gz"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".png", ".tif"])
def test_two_folders(tmp_path: Path, ending: str) -> None:
    found = find_cases(two_folders(tmp_path, 2, ending, classes=1))
    assert [case.name for case in found.cases] == ["c0", "c1"] and found.labels == {}
    image = read_image(found.cases[0])
    assert set(np.unique(read_label(found.cases[0], image).data)) == {0, 1}  # in pictures, written as 0 and 255


def test_a_fourth_axis_is_channels(tmp_path: Path) -> None:
    image, label = scan()
    write_pair(tmp_path / "images/a.nii.gz", tmp_path / "labels/a.nii.gz", image.with_data(np.stack([image.data] * 3, -1)), label)
    (case,) = find_cases(tmp_path).cases
    assert read_image(case).channels == 3


def test_what_has_no_partner_is_told(tmp_path: Path) -> None:
    two_folders(tmp_path, 3)
    (tmp_path / "images/c0.nii.gz").unlink()
    (tmp_path / "labels/c2.nii.gz").unlink()
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == ["c1"]
    assert found.without_image == (tmp_path / "labels/c0.nii.gz",)
    assert found.unlabelled == (tmp_path / "images/c2.nii.gz",)


@pytest.mark.parametrize("name", ["two words", "Größe 脳 🧠", "a.b.c", "100% $x^2$ <b>&", "x" * 240, "_0000", "a_00001", "-rf"])
def test_names_that_people_give(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path / f"images/{name}.nii.gz", tmp_path / f"labels/{name}.nii.gz", *scan())
    (case,) = find_cases(tmp_path).cases
    assert case.name == name and read_image(case).shape == SHAPE


def test_links_are_followed(tmp_path: Path) -> None:
    real = two_folders(tmp_path / "real", 1)
    (tmp_path / "linked").symlink_to(real)
    for part in ("images", "labels"):
        (tmp_path / "links" / part).mkdir(parents=True)
        (tmp_path / "links" / part / "z.nii.gz").symlink_to(real / part / "c0.nii.gz")
    assert [case.name for case in find_cases(tmp_path / "linked").cases] == ["c0"]
    (case,) = find_cases(tmp_path / "links").cases
    assert case.name == "z" and read_label(case, read_image(case)).shape == SHAPE


def test_macos_leftovers_and_hidden_files_are_no_images(tmp_path: Path) -> None:
    two_folders(tmp_path, 1)
    for name in ("._c0.nii.gz", ".DS_Store", "Thumbs.db", "notes.txt"):
        (tmp_path / "images" / name).write_bytes(b"\x00")
    assert [case.name for case in find_cases(tmp_path).cases] == ["c0"]


def test_a_headers_other_half_is_not_a_second_image(tmp_path: Path) -> None:
    for name in ("a.hdr", "a.img"):
        (tmp_path / name).touch()
    assert [case.images for case in find_images([tmp_path])] == [(tmp_path / "a.hdr",)]


def test_channels_only_where_there_is_a_first_one(tmp_path: Path) -> None:
    for name in ("scan_2019.nii.gz", "scan_2020.nii.gz", "x_0000.nii.gz", "x_0001.nii.gz", "x_0002.nii"):
        (tmp_path / name).touch()
    assert {case.name: len(case.images) for case in find_images([tmp_path])} == {"scan_2019": 1, "scan_2020": 1, "x": 2, "x_0002": 1}


def test_a_film_s_pictures_are_cases(tmp_path: Path) -> None:
    """Numbered like channels, but each with a label of its own; or for a model that reads a single channel."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for n in range(4):
        (tmp_path / f"images/film_{n:04d}.png").touch()
    for n in (0, 1, 3):
        (tmp_path / f"labels/film_{n:04d}.png").touch()
    found = find_cases(tmp_path)
    assert [(case.name, len(case.images)) for case in found.cases] == [("film_0000", 1), ("film_0001", 1), ("film_0003", 1)]
    assert [path.name for path in found.unlabelled] == ["film_0002.png"]
    assert [case.name for case in find_images([tmp_path / "images"], 1)] == [f"film_{n:04d}" for n in range(4)]
    assert [(case.name, len(case.images)) for case in find_images([tmp_path / "images"], 4)] == [("film", 4)]
    for n in (0, 2):  # one image has one name, whatever else is given
        (alone,) = find_images([tmp_path / f"images/film_{n:04d}.png"], 1)
        assert alone.name == f"film_{n:04d}"
    for n in (1, 2):
        (tmp_path / f"images/film_{n:04d}.png").unlink()
    assert [case.name for case in find_images([tmp_path / "images/film_0000.png"], 1)] == ["film_0000"]  # film_0003 is there
    (tmp_path / "images/film_0003.png").unlink()
    assert [case.name for case in find_images([tmp_path / "images/film_0000.png"], 1)] == ["film"]  # nnU-Net's name of its only one


@pytest.mark.parametrize("folders", [("images", "masks"), (".", ".")])
def test_a_film_s_masks_may_be_named_for_its_pictures(tmp_path: Path, folders: tuple[str, str]) -> None:
    for n in range(3):
        for folder, suffix in zip(folders, ("", "_mask"), strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"film_{n:04d}{suffix}.png").touch()
    found = find_cases(tmp_path)
    assert [(case.name, case.label and case.label.name) for case in found.cases] == [
        (f"film_{n:04d}", f"film_{n:04d}_mask.png") for n in range(3)
    ]
    assert not found.unlabelled and not found.without_image


def test_channels_with_a_mask_named_for_their_case_stay_channels(tmp_path: Path) -> None:
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "a_seg.nii.gz"):
        (tmp_path / name).touch()
    (case,) = find_cases(tmp_path).cases
    assert case.name == "a" and len(case.images) == 2


def test_images_by_file_and_by_folder_keep_their_order(tmp_path: Path) -> None:
    two_folders(tmp_path, 3)
    files = [tmp_path / f"images/c{n}.nii.gz" for n in (2, 0)]
    assert [case.name for case in find_images(files)] == ["c2", "c0"]
    assert [case.name for case in find_images([files[0], tmp_path / "labels/c1.nii.gz"])] == ["c2", "c1"]


def missing_channel(folder: Path) -> Path:
    nnunet(folder, 2, channels=3)
    (folder / "imagesTr/b1_0001.nii.gz").unlink()
    return folder / "imagesTr"


def equal_names(folder: Path) -> Path:
    for part in ("one", "two"):
        two_folders(folder / part, 1)
    return folder


def large_and_small(folder: Path) -> Path:
    for part, name in (("one", "Scan"), ("two", "scan")):
        (folder / part).mkdir()
        (folder / part / f"{name}.nii.gz").touch()
    return folder


def a_case_like_a_channel(folder: Path) -> Path:
    for name in ("film_0000", "film_0001", "film_0000_0000"):
        (folder / f"{name}.png").touch()
    return folder


def two_endings(folder: Path) -> Path:
    two_folders(folder, 1)
    two_folders(folder, 1, ".nii")
    return folder / "images"


def empty(folder: Path) -> Path:
    return folder


def test_no_image_is_left_out_for_its_name(tmp_path: Path) -> None:
    with pytest.raises(UNetError, match=r"film_0000: two cases have this name, .+film_0000\.png and .+film_0000_0000\.png\. Segment"):
        find_images([a_case_like_a_channel(tmp_path)], 1)


@pytest.mark.parametrize(
    ("make", "inputs", "words"),
    [
        (missing_channel, ["."], "b1: channel 0001 is missing"),
        (equal_names, ["one/images", "two/images"], "c0: two cases have this name"),
        (large_and_small, ["one", "two"], "two cases have this name"),
        (equal_names, ["one/images", "one/images/c0.nii.gz"], "c0.nii.gz: it has the name of"),
        (two_endings, ["."], "it has the name of"),
        (empty, ["."], "no image files in it"),
        (empty, ["nowhere.nii.gz"], "no such file or folder"),
        (empty, ["x" * 5000], "no such file or folder"),
        (empty, ["a\0b"], "no such file or folder"),
    ],
)
def test_images_in_doubt(tmp_path: Path, make: Callable[[Path], Path], inputs: list[str], words: str) -> None:
    folder = make(tmp_path)
    with pytest.raises(UNetError) as error:
        find_images([folder / name for name in inputs])
    assert words in sentence(error)


DESCRIPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "out of the folder": ({"training": entry("../a0.nii.gz")}, "'../a0.nii.gz' leads out of the folder"),
    "out on the way": ({"training": entry("imagesTr/../../a0.nii.gz")}, "leads out of the folder"),
    "a label out of the folder": ({"training": entry("imagesTr/a0.nii.gz", "../../x.nii.gz")}, "leads out of the folder"),
    "absolute": ({"training": entry("/etc/passwd")}, "'/etc/passwd' leads out of the folder"),
    "no name": ({"training": entry("")}, "names no file"),
    "no stem": ({"training": entry("imagesTr/.nii.gz")}, "names no file"),
    "a null byte": ({"training": entry("imagesTr/a\0.nii.gz")}, "names no file"),
    "a macOS leftover": ({"training": entry("imagesTr/._a0.nii.gz")}, "leftover of macOS"),
    "listed twice": ({"training": entry("imagesTr/a0.nii.gz") * 2}, "imagesTr/a0.nii.gz is listed twice"),
    "equal names": ({"training": entry("imagesTr/a0.nii.gz") + entry("imagesTr/A0.nii", "x/a1.nii.gz")}, "two cases have the name a0"),
    "one label for two": ({"training": entry("imagesTr/a0.nii.gz") + entry("imagesTr/a1.nii.gz")}, "a0.nii.gz is listed twice"),
    "an empty list": ({"training": []}, "its list of training cases is empty"),
    "a list of names": ({"training": ["imagesTr/a0.nii.gz"]}, "the training entry imagesTr/a0.nii.gz"),
    "no label": ({"training": [{"image": "imagesTr/a0.nii.gz"}]}, "the training entry"),
    "no channels": ({"training": [{"image": [], "label": "labelsTr/a0.nii.gz"}]}, "the training entry"),
    "a number for a channel": ({"training": [{"image": ["imagesTr/a0.nii.gz", 1], "label": "labelsTr/a0.nii.gz"}]}, "the training entry"),
    "one channel twice": ({"training": [{"image": ["imagesTr/a0.nii.gz"] * 2, "label": "labelsTr/a0.nii.gz"}]}, "listed twice"),
    "a number for a path": ({"training": [{"image": 1, "label": 2}]}, "the training entry"),
    "labels is null": ({"labels": None}, "labels or channels cannot be understood"),
    "labels is a list": ({"labels": ["a"]}, "(labels is ['a'], not names with values)"),
    "regions": ({"labels": {"background": 0, "whole": [1, 2]}}, "'whole': [1, 2]"),
    "a background to ignore": ({"labels": {"a": 1, "ignore": 0}}, "'ignore': 0"),
    "a class to ignore": ({"labels": {"background": 0, "a": 1, "ignore": 1}}, "two names for 1"),
    "a negative label": ({"labels": {"background": 0, "a": -1}}, "'a': -1"),
    "a negative key": ({"labels": {"-1": "a"}}, "'-1': 'a'"),
    "a large label": ({"labels": {"a": 70000}}, "'a': 70000"),
    "half a label": ({"labels": {"a": 1.5}}, "'a': 1.5"),
    "a true label": ({"labels": {"a": True}}, "'a': True"),
    "one label, two names": ({"labels": {"a": 1, "b": 1}}, "two names for 1"),
    "one name, two labels": ({"labels": {"1": "a", "2": "a"}}, "the class name 'a' is used twice"),
    "a mean of its own": ({"labels": {"mean": 1}}, "the class name 'mean' means the mean of all"),
    "channels are a word": ({"modality": "MRI"}, "labels or channels cannot be understood"),
    "channels are a list": ({"modality": ["MRI"]}, "(channels are ['MRI'], not numbers with names)"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_is_not_to_be_trusted(tmp_path: Path, name: str) -> None:
    fields, words = DESCRIPTIONS[name]
    change(decathlon(tmp_path, 2), **fields)
    with pytest.raises(UNetError) as error:
        find_cases(tmp_path)
    assert words in sentence(error)
    assert error.value.where == str(tmp_path / "dataset.json")


def test_a_path_longer_than_any_file_is_a_finding_of_its_case(tmp_path: Path) -> None:
    change(decathlon(tmp_path, 1), training=entry("imagesTr/" + "a" * 5000))
    (case,) = find_cases(tmp_path).cases
    with pytest.raises(UNetError, match="cannot be read"):
        read_image(case)


def text(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (text(b"[]"), "it is not a table"),
        (text(b"{"), "not valid JSON"),
        (text(b"\xff\xfe\x00"), "not valid JSON"),
        (text(b'{"labels": {}, "labels": {}}'), "the key 'labels' stands twice"),
        (text(b'{"labels": {"a": NaN}}'), "not valid JSON"),
        (text(b"[" * 100_000), "not valid JSON"),
        (text(b" " * (description.MAX_JSON + 1)), "16,777,217 bytes"),
        (Path.mkdir, "cannot be read"),
    ],
)
def test_a_description_that_cannot_be_read(tmp_path: Path, write: Callable[[Path], None], words: str) -> None:
    two_folders(tmp_path, 1)
    write(tmp_path / "dataset.json")
    with pytest.raises(UNetError) as error:
        find_cases(tmp_path)
    assert words in sentence(error)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = decathlon(tmp_path, 1) / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert find_cases(tmp_path).labels == NAMES


def without(part: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / part)


def two_labels(folder: Path) -> None:
    (folder / "labels/c0.nii").touch()


def strangers(folder: Path) -> None:
    (folder / "labels/c0.nii.gz").rename(folder / "labels/d0.nii.gz")


def no_images(folder: Path) -> None:
    (folder / "images/c0.nii.gz").unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (without("images"), "no folder imagesTr or images or image or imgs or img in it (labels)"),
        (without("labels"), "no folder labelsTr or labels or masks or label or mask in it (images)"),
        (no_images, "no image files in it"),
        (strangers, "no image in images has a label of the same name in labels"),
        (two_labels, "c0.nii.gz: it has the name of c0.nii"),
        (shutil.rmtree, "there is no such folder"),
    ],
)
def test_two_folders_in_doubt(tmp_path: Path, harm: Callable[[Path], None], words: str) -> None:
    folder = two_folders(tmp_path / "data", 1)
    harm(folder)
    with pytest.raises(UNetError) as error:
        find_cases(folder)
    assert words in sentence(error)


def test_channels_on_different_grids(tmp_path: Path) -> None:
    nnunet(tmp_path, 1)
    image, _ = scan(1, shape=(20, 24, 17))
    images.write(tmp_path / "imagesTr/b0_0001.nii.gz", image, labels=False)
    with pytest.raises(UNetError) as error:
        read_image(find_cases(tmp_path).cases[0])
    assert "b0_0001.nii.gz: its shape is (20, 24, 17)" in sentence(error)


def test_a_channel_that_is_itself_many(tmp_path: Path) -> None:
    nnunet(tmp_path, 1)
    image, _ = scan()
    images.write(tmp_path / "imagesTr/b0_0001.nii.gz", image.with_data(np.stack([image.data] * 2, -1)), labels=False)
    with pytest.raises(UNetError) as error:
        read_image(find_cases(tmp_path).cases[0])
    assert "b0_0001.nii.gz: 2 volumes in a file that is one channel of b0" in sentence(error)


def test_a_case_without_a_label() -> None:
    with pytest.raises(UNetError, match="a: it has no label"):
        read_label(Case("a", ()), scan()[0])


def test_real_data(data: Path) -> None:
    found = find_cases(data / "hippocampus")
    assert len(found.cases) == 200 and set(found.labels) == {1, 2}
    image = read_image(found.cases[0])
    assert set(np.unique(read_label(found.cases[0], image).data)) <= {0, 1, 2}
    assert len(find_cases(data / "membrane").cases) == 24
