"""Find and pair images with their labels, in the layouts people have."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from napari_unet import zarrs
from napari_unet.case_folders import folder_per_case
from napari_unet.dataset import Case, Dataset
from napari_unet.description import LABEL_FOLDERS, described_in
from napari_unet.errors import UNetError
from napari_unet.naming import CHANNEL, ending, entries, image_files, image_of, key_of, some, split
from napari_unet.settings import ALL_LABELLED, LabelRule
from napari_unet.suffixes import KNOWN, stem

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a drive has one letter
_IMAGE_FOLDERS = ("imagesTr", "images", "image", "imgs", "img")
_FINAL = "final"  # MONAI Label's folder, in labels, of those that a person made


def list_images(path: str | Path) -> list[Path]:
    """The image files of a folder by name, or the file itself. Raises UNetError where there are none."""
    if _ADDRESS.match(str(path)):
        raise UNetError(path, "it is an address, not a path", "Copy what is there to this machine first")
    path = Path(path)
    if os.path.isfile(path) or (os.path.isdir(path) and zarrs.is_zarr(path)):
        return [path]
    if not os.path.isdir(path):
        raise UNetError(path, "there is no such file or folder", "Check the path")
    found = image_files(path)
    if not found:
        raise UNetError(path, "no image files in it", f"Put files with one of these endings there: {' '.join(KNOWN)}")
    return found


def find_images(inputs: Iterable[str | Path], channels: int | None = None) -> list[Case]:
    """Cases to segment: files and folders; `case_0000`, `case_0001`, ... are the channels of `case`.

    For a model that reads one channel they are cases of their own, such as a film's pictures; a lone `case_0000` is `case`, as
    nnU-Net names it. What lies beside a file decides, not what else is given, so that one image always has one name.
    Of a folder, the masks that lie beside their images (see `masks_beside`) are none.

    Raises UNetError for missing channels and for two cases of one name, whose masks would overwrite each other.
    """
    inputs = [path for source in inputs for path in _without_masks(source)]
    series = cache(_series)  # a folder is looked through once

    def several(case: str, files: list[Path]) -> bool:
        return channels == 1 and f"{case}{ending(files[0])}" in series(files[0].parent)

    return _cases(inputs, several)


def masks_beside(source: str | Path) -> list[Path]:
    """The files of a folder that are named for another image in it, as the viewer proposes: `scan_seg.nii.gz` beside `scan.nii.gz`."""
    if not os.path.isdir(source) or zarrs.is_zarr(Path(source)):
        return []
    paths = list_images(source)
    names = {name for path in paths for name in (stem(path), split(path)[0])}
    keys = {key_of(name) for name in names if image_of(name) is None}
    found = [(path, image_of(stem(path))) for path in paths]
    return [path for path, image in found if image is not None and (image in names or image.casefold() in keys)]


def _without_masks(source: str | Path) -> list[str | Path]:
    masks = masks_beside(source)
    return [path for path in list_images(source) if path not in masks] if masks else [source]


def _series(folder: Path) -> frozenset[str]:
    """The images of a folder, as in `film.png`, of which it holds several by number, as in `film_0000.png` and `film_0002.png`."""
    counts: Counter[str] = Counter()
    with suppress(OSError):  # a folder that may not be listed
        for path in map(Path, os.listdir(folder)):
            if match := CHANNEL.fullmatch(stem(path)):
                counts[f"{match['case']}{ending(path)}"] += 1
    return frozenset(name for name, count in counts.items() if count > 1)


def _cases(inputs: Iterable[str | Path], apart: Callable[[str, list[Path]], bool]) -> list[Case]:
    """The same; `apart` tells of which case the files are no channels, but cases of their own."""
    groups: list[tuple[Path, dict[int, Path]]] = []
    for group, known in _grouped(inputs).items():
        one = apart(group.name, list(known.values()))
        groups += [(group.with_name(stem(path)), {0: path}) for path in known.values()] if one else [(group, known)]
    counts = Counter(group.name.casefold() for group, _ in groups)  # which many a disk takes for one name
    for group, _ in groups:
        if counts[group.name.casefold()] > 1:
            twins = [str(min(known.values())) for g, known in groups if g.name.casefold() == group.name.casefold()]
            raise UNetError(group.name, f"two cases have this name, {' and '.join(twins)}", "Segment them one by one")
    return [Case(group.name, _in_order(group, known)) for group, known in groups]


def _grouped(inputs: Iterable[str | Path]) -> dict[Path, dict[int, Path]]:
    """The files of each case by channel."""
    groups: dict[Path, dict[int, Path]] = {}
    for path in (file for source in inputs for file in list_images(source)):
        case, channel = split(path)
        known = groups.setdefault(path.parent / case, {})
        if channel in known:
            raise UNetError(path, f"it has the name of {known[channel].name}", "Rename one of them")
        known[channel] = path
    return groups


def _in_order(case: Path, channels: dict[int, Path]) -> tuple[Path, ...]:
    missing = [n for n in range(max(channels) + 1) if n not in channels]
    if missing:
        raise UNetError(case, f"channel {missing[0]:04d} is missing", f"Add {case.name}_{missing[0]:04d}")
    return tuple(channels[n] for n in sorted(channels))


def find_cases(folder: str | Path, rule: LabelRule = ALL_LABELLED) -> Dataset:
    """The labelled cases of a folder: as the Decathlon or nnU-Net lay them out, in two folders, in one, or in one per case.

    In one folder masks are named for their images, as in `scan.nii.gz` and `scan_seg.nii.gz`, which may be so in two folders, too.
    Names may also differ in large and small letters, or in a word, as in `img0001` and `label0001`, where no other image and no other
    mask could be meant. In a case's own folder, what is no mask is a channel (see `folder_per_case`).

    Masks will be read by `rule`, and by the value that dataset.json names "ignore".

    Raises UNetError where none of them is found, its dataset.json is not to be trusted, or contradicts the rule.
    Nothing is read but names.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        what = "it is a file" if os.path.isfile(folder) else "there is no such folder"
        raise UNetError(folder, what, "Give the folder that holds images and labels")
    described, rule = described_in(folder, rule)
    if described.cases:
        return described.with_rule(rule)
    if not _sides(folder) and (dataset := folder_per_case(folder, described)):
        return dataset.with_rule(rule)
    images, masks = _images_and_masks(folder)
    known = _by_name(masks)
    named = set(map(key_of, known))

    def labelled_each(case: str, files: list[Path]) -> bool:
        return key_of(case) not in named and any(key_of(stem(path)) in named for path in files)

    found = {case.name: case for case in _cases(images, labelled_each)}
    known = _by_key(_by_image(known, found), found)
    cases = tuple(Case(name, found[name].images, known[name]) for name in found if name in known)
    if not cases:
        sides = f"no image in {images[0].parent.name} has a label of the same name in {masks[0].parent.name}"
        raise UNetError(folder, f"{sides} ({some(images)}; {some(masks)})", "Name them alike, or labels as in scan_seg.nii.gz")
    return replace(
        described, cases=cases,
        unlabelled=tuple(path for name in found if name not in known for path in found[name].images),
        without_image=tuple(path for name, path in known.items() if name not in found),
    ).with_rule(rule)  # fmt: skip


def _sides(folder: Path) -> list[Path]:
    """The folders of images and of labels that are there."""
    return [path for names in (_IMAGE_FOLDERS, LABEL_FOLDERS) if (path := _subfolder(folder, names))]


def _images_and_masks(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of two folders of images and of labels, or of one in which masks are named for the images beside them.

    Where there is no folder of images, those beside the folder of labels are them, as MONAI Label has it.
    """
    images, labels = (_subfolder(folder, names) for names in (_IMAGE_FOLDERS, LABEL_FOLDERS))
    masks = masks_beside(folder) if images is None and image_files(folder) else []
    if masks and labels is None:
        return [path for path in list_images(folder) if path not in masks], masks
    if labels is not None and (labels / _FINAL).is_dir() and not image_files(labels):
        labels = labels / _FINAL
    if images is None and labels is not None and image_files(folder) and not masks:
        images = folder
    for found, names in ((images, _IMAGE_FOLDERS), (labels, LABEL_FOLDERS)):
        if found is None:
            raise UNetError(folder, f"no folder {' or '.join(names)} in it ({some(entries(folder))})",
                            "Use imagesTr and labelsTr (Decathlon, nnU-Net), images and labels, or a folder per case")  # fmt: skip
    return list_images(images or folder), list_images(labels or folder)


def _by_image(masks: dict[str, Path], images: Container[str]) -> dict[str, Path]:
    """The masks by the image that each belongs to. UNetError where two are named for one."""
    found: dict[str, Path] = {}
    for name, path in masks.items():
        twin = found.setdefault(_named_for(name, images, masks), path)
        if twin != path:
            raise UNetError(path, f"it is named for the same image as {twin.name}", "Keep one of them there")
    return found


def _named_for(mask: str, images: Container[str], masks: Container[str]) -> str:
    """The image that a mask belongs to: that of its name, or the one that it is named for, where that has no mask of its own name."""
    image = image_of(mask)
    return image if image is not None and mask not in images and image in images and image not in masks else mask


def _by_key(masks: dict[str, Path], images: Collection[str]) -> dict[str, Path]:
    """The same; a mask of no image has that one whose name is alike in all that tells a case, where both are the only ones."""
    alike = Counter(map(key_of, masks))
    seen = Counter(map(key_of, images))
    only = {key: name for name in images if seen[key := key_of(name)] == 1 == alike[key]}
    return {name if name in images else only.get(key_of(name), name): path for name, path in masks.items()}


def _by_name(paths: list[Path]) -> dict[str, Path]:
    known: dict[str, Path] = {}
    for path in paths:
        twin = known.setdefault(stem(path), path)
        if twin != path:
            raise UNetError(path, f"it has the name of {twin.name}", "Rename one of them")
    return known


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these folders that is there, in large letters or small; UNetError where two differ in nothing else."""
    there = entries(folder)
    for name in names:
        alike = [path for path in there if path.name.casefold() == name.casefold() and path.is_dir()]
        if len(alike) > 1 and folder / name not in alike:
            raise UNetError(folder, f"{alike[0].name} and {alike[1].name} are both in it", "Keep one of them there")
        if alike:
            return folder / name if folder / name in alike else alike[0]
    return None
