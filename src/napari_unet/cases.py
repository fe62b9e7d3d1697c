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
from napari_unet.dataset import Case, Dataset
from napari_unet.description import LABEL_FOLDERS, described_in
from napari_unet.errors import UNetError
from napari_unet.settings import ALL_LABELLED, LabelRule
from napari_unet.suffixes import KNOWN, stem, suffix
from napari_unet.words import shortened

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a drive has one letter
_MASK_WORDS = "seg|segmentation|mask|masks|label|labels|gt"
_WORDS = f"{_MASK_WORDS}|image|images|img|imgs"
_MASK = re.compile(rf"(?P<image>.+)[-_]({_MASK_WORDS})", re.IGNORECASE)
_MASK_ALONE = re.compile(_MASK_WORDS, re.IGNORECASE)  # in a folder of its case
_SAYS_WHAT = re.compile(rf"^({_WORDS})[-_. ]?(?=\d)|^({_WORDS})[-_. ]|[-_. ]({_WORDS})$")  # a name, in small letters
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_IMAGE_FOLDERS = ("imagesTr", "images", "image", "imgs", "img")
_LIST_THEM = 'List the cases in dataset.json: "training": [{"image": [...], "label": ...}]'
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
    found = _image_files(path)
    if not found:
        raise UNetError(path, "no image files in it", f"Put files with one of these endings there: {' '.join(KNOWN)}")
    return found


def _image_files(folder: Path) -> list[Path]:
    """Those of a folder, by name; none where it has none."""
    return [path for path in _entries(folder) if suffix(path) not in ("", ".img")]


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, but for what is hidden."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UNetError(folder, f"cannot be read ({error.strerror})", "Check its permissions") from error


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
        return channels == 1 and f"{case}{_ending(files[0])}" in series(files[0].parent)

    return _cases(inputs, several)


def masks_beside(source: str | Path) -> list[Path]:
    """The files of a folder that are named for another image in it, as the viewer proposes: `scan_seg.nii.gz` beside `scan.nii.gz`."""
    if not os.path.isdir(source) or zarrs.is_zarr(Path(source)):
        return []
    paths = list_images(source)
    names = {name for path in paths for name in (stem(path), _split(path)[0])}
    keys = {_key(name) for name in names if _image_of(name) is None}
    found = [(path, _image_of(stem(path))) for path in paths]
    return [path for path, image in found if image is not None and (image in names or image.casefold() in keys)]


def _image_of(mask: str) -> str | None:
    """The name of the image that a mask is named for; None where its name does not say that it is a mask."""
    match = _MASK.fullmatch(mask)
    return match["image"] if match else None


def _key(name: str) -> str:
    """What of a name tells the case: in small letters, without a word for image or mask, as in `img0001`, `mask_7` and `a_img`."""
    return _SAYS_WHAT.sub("", name.casefold())


def _without_masks(source: str | Path) -> list[str | Path]:
    masks = masks_beside(source)
    return [path for path in list_images(source) if path not in masks] if masks else [source]


def _series(folder: Path) -> frozenset[str]:
    """The images of a folder, as in `film.png`, of which it holds several by number, as in `film_0000.png` and `film_0002.png`."""
    counts: Counter[str] = Counter()
    with suppress(OSError):  # a folder that may not be listed
        for path in map(Path, os.listdir(folder)):
            if match := _CHANNEL.fullmatch(stem(path)):
                counts[f"{match['case']}{_ending(path)}"] += 1
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
        case, channel = _split(path)
        known = groups.setdefault(path.parent / case, {})
        if channel in known:
            raise UNetError(path, f"it has the name of {known[channel].name}", "Rename one of them")
        known[channel] = path
    return groups


def _split(path: Path) -> tuple[str, int]:
    """Case and channel of a file; only where a channel 0 exists is `_0001` one."""
    match = _CHANNEL.fullmatch(stem(path))
    if match:
        if (path.parent / f"{match['case']}_0000{_ending(path)}").exists():
            return match["case"], int(match["channel"])
    return stem(path), 0


def _ending(path: Path) -> str:
    """What follows a file's stem, in its own letters."""
    return path.name[len(stem(path)) :]


def _in_order(case: Path, channels: dict[int, Path]) -> tuple[Path, ...]:
    missing = [n for n in range(max(channels) + 1) if n not in channels]
    if missing:
        raise UNetError(case, f"channel {missing[0]:04d} is missing", f"Add {case.name}_{missing[0]:04d}")
    return tuple(channels[n] for n in sorted(channels))


def find_cases(folder: str | Path, rule: LabelRule = ALL_LABELLED) -> Dataset:
    """The labelled cases of a folder: as the Decathlon or nnU-Net lay them out, in two folders, in one, or in one per case.

    In one folder masks are named for their images, as in `scan.nii.gz` and `scan_seg.nii.gz`, which may be so in two folders, too.
    Names may also differ in large and small letters, or in a word, as in `img0001` and `label0001`, where no other image and no other
    mask could be meant. In a case's own folder, what is no mask is a channel (see `_folder_per_case`).

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
    if not _sides(folder) and (dataset := _folder_per_case(folder, described)):
        return dataset.with_rule(rule)
    images, masks = _images_and_masks(folder)
    known = _by_name(masks)
    named = set(map(_key, known))

    def labelled_each(case: str, files: list[Path]) -> bool:
        return _key(case) not in named and any(_key(stem(path)) in named for path in files)

    found = {case.name: case for case in _cases(images, labelled_each)}
    known = _by_key(_by_image(known, found), found)
    cases = tuple(Case(name, found[name].images, known[name]) for name in found if name in known)
    if not cases:
        sides = f"no image in {images[0].parent.name} has a label of the same name in {masks[0].parent.name}"
        raise UNetError(folder, f"{sides} ({_some(images)}; {_some(masks)})", "Name them alike, or labels as in scan_seg.nii.gz")
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
    masks = masks_beside(folder) if images is None and _image_files(folder) else []
    if masks and labels is None:
        return [path for path in list_images(folder) if path not in masks], masks
    if labels is not None and (labels / _FINAL).is_dir() and not _image_files(labels):
        labels = labels / _FINAL
    if images is None and labels is not None and _image_files(folder) and not masks:
        images = folder
    for found, names in ((images, _IMAGE_FOLDERS), (labels, LABEL_FOLDERS)):
        if found is None:
            raise UNetError(folder, f"no folder {' or '.join(names)} in it ({_some(_entries(folder))})",
                            "Use imagesTr and labelsTr (Decathlon, nnU-Net), images and labels, or a folder per case")  # fmt: skip
    return list_images(images or folder), list_images(labels or folder)


def _some(paths: list[Path]) -> str:
    """The first names of several."""
    more = f" and {len(paths) - 3} more" * (len(paths) > 3)
    return f"{', '.join(shortened(path.name) for path in paths[:3])}{more}" if paths else "it is empty"


def _folder_per_case(folder: Path, described: Dataset) -> Dataset | None:
    """Cases that have a folder each, as in `case_1/imaging.nii.gz` and `case_1/segmentation.nii.gz`; None where no folder is one.

    All that is no mask are channels, by what tells their names apart, such as `t1`: the same ones in each folder, in one order.
    Raises UNetError where that is in doubt.
    """
    inside = {path: _image_files(path) for path in _entries(folder) if path.is_dir()} if not _image_files(folder) else {}
    masks = {path: [file for file in files if _is_mask(file)] for path, files in inside.items()}
    labelled = {path: masks[path][0] for path, files in inside.items() if masks[path] and len(files) > len(masks[path])}
    if not any(len(masks[path]) == 1 for path in labelled):
        return None
    if several := next((path for path, found in masks.items() if len(found) > 1), None):
        raise UNetError(several, f"{len(masks[several])} masks ({_some(masks[several])}) in the folder of a case", _LIST_THEM)
    channels = {path: _channels(path, inside[path], mask) for path, mask in labelled.items()}
    names = _order_of(channels, described.channels)
    named = () if len(names) == 1 or all(name.isdecimal() for name in names) else tuple(names)
    return replace(
        described, channels=described.channels or named,
        cases=tuple(Case(path.name, tuple(channels[path][name] for name in names), mask) for path, mask in labelled.items()),
        unlabelled=tuple(file for path, files in inside.items() if not masks[path] for file in files),
        without_image=tuple(found[0] for path, found in masks.items() if found and path not in labelled),
    )  # fmt: skip


def _is_mask(path: Path) -> bool:
    """Whether a file in a case's own folder is called one."""
    return bool(_MASK.fullmatch(stem(path)) or _MASK_ALONE.fullmatch(stem(path)))


def _channels(folder: Path, files: list[Path], mask: Path) -> dict[str, Path]:
    """The images of a case's folder, by what their names have behind that of the folder, or of the mask; else by all of it."""
    found: dict[str, Path] = {}
    for path in (path for path in files if path != mask):
        name = stem(path)
        begins = [re.escape(begin) for begin in (folder.name, _image_of(stem(mask))) if begin]
        behind = re.match(rf"({'|'.join(begins)})([-_. ]+|$)", name)
        twin = found.setdefault(name[behind.end() :] if behind else name, path)
        if twin != path:
            raise UNetError(path, f"it has the name of {twin.name}", "Keep one of them")
    return found


def _order_of(cases: dict[Path, dict[str, Path]], described: tuple[str, ...]) -> list[str]:
    """The names of the channels, which all cases share, in the order of dataset.json, or of the alphabet."""
    first, known = next(iter(cases.items()))
    names = sorted(known)
    if other := next((path for path, channels in cases.items() if channels.keys() != known.keys()), None):
        raise UNetError(other, f"its images are {_some(list(cases[other].values()))}, those of {first.name} {_some(list(known.values()))}",
                        f"Give all cases the same channels. {_LIST_THEM}")  # fmt: skip
    if len(names) > 1 and ("" in names or (len(cases) == 1 and any(stem(path) == name for name, path in known.items()))):
        raise UNetError(first, f"whether its images ({_some(list(known.values()))}) are channels of one cannot be told", _LIST_THEM)
    if len(names) > 1 and described and not all(name.isdecimal() for name in names):
        by_name = {name.casefold(): name for name in names}
        if sorted(by_name) != sorted(name.casefold() for name in described):
            raise UNetError(first, f"dataset.json names the channels {', '.join(described)}, the files {', '.join(names)}",
                            "Name them alike")  # fmt: skip
        return [by_name[name.casefold()] for name in described]
    return names


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
    image = _image_of(mask)
    return image if image is not None and mask not in images and image in images and image not in masks else mask


def _by_key(masks: dict[str, Path], images: Collection[str]) -> dict[str, Path]:
    """The same; a mask of no image has that one whose name is alike in all that tells a case, where both are the only ones."""
    alike = Counter(map(_key, masks))
    seen = Counter(map(_key, images))
    only = {key: name for name in images if seen[key := _key(name)] == 1 == alike[key]}
    return {name if name in images else only.get(_key(name), name): path for name, path in masks.items()}


def _by_name(paths: list[Path]) -> dict[str, Path]:
    known: dict[str, Path] = {}
    for path in paths:
        twin = known.setdefault(stem(path), path)
        if twin != path:
            raise UNetError(path, f"it has the name of {twin.name}", "Rename one of them")
    return known


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these folders that is there, in large letters or small; UNetError where two differ in nothing else."""
    there = _entries(folder)
    for name in names:
        alike = [path for path in there if path.name.casefold() == name.casefold() and path.is_dir()]
        if len(alike) > 1 and folder / name not in alike:
            raise UNetError(folder, f"{alike[0].name} and {alike[1].name} are both in it", "Keep one of them there")
        if alike:
            return folder / name if folder / name in alike else alike[0]
    return None
