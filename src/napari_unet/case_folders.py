"""Cases that have a folder each: the mask in it by its name, all else in it as channels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from napari_unet.dataset import Case, Dataset
from napari_unet.errors import UNetError
from napari_unet.naming import entries, image_files, image_of, is_mask, some
from napari_unet.suffixes import stem

_LIST_THEM = 'List the cases in dataset.json: "training": [{"image": [...], "label": ...}]'


def folder_per_case(folder: Path, described: Dataset) -> Dataset | None:
    """Cases that have a folder each, as in `case_1/imaging.nii.gz` and `case_1/segmentation.nii.gz`; None where no folder is one.

    All that is no mask are channels, by what tells their names apart, such as `t1`: the same ones in each folder, in one order.
    Raises UNetError where that is in doubt.
    """
    inside = {path: image_files(path) for path in entries(folder) if path.is_dir()} if not image_files(folder) else {}
    masks = {path: [file for file in files if is_mask(file)] for path, files in inside.items()}
    labelled = {path: masks[path][0] for path, files in inside.items() if masks[path] and len(files) > len(masks[path])}
    if not any(len(masks[path]) == 1 for path in labelled):
        return None
    if several := next((path for path, found in masks.items() if len(found) > 1), None):
        raise UNetError(several, f"{len(masks[several])} masks ({some(masks[several])}) in the folder of a case", _LIST_THEM)
    channels = {path: _channels(path, inside[path], mask) for path, mask in labelled.items()}
    names = _order_of(channels, described.channels)
    named = () if len(names) == 1 or all(name.isdecimal() for name in names) else tuple(names)
    return replace(
        described, channels=described.channels or named,
        cases=tuple(Case(path.name, tuple(channels[path][name] for name in names), mask) for path, mask in labelled.items()),
        unlabelled=tuple(file for path, files in inside.items() if not masks[path] for file in files),
        without_image=tuple(found[0] for path, found in masks.items() if found and path not in labelled),
    )  # fmt: skip


def _channels(folder: Path, files: list[Path], mask: Path) -> dict[str, Path]:
    """The images of a case's folder, by what their names have behind that of the folder, or of the mask; else by all of it."""
    found: dict[str, Path] = {}
    for path in (path for path in files if path != mask):
        name = stem(path)
        begins = [re.escape(begin) for begin in (folder.name, image_of(stem(mask))) if begin]
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
        raise UNetError(other, f"its images are {some(list(cases[other].values()))}, those of {first.name} {some(list(known.values()))}",
                        f"Give all cases the same channels. {_LIST_THEM}")  # fmt: skip
    if len(names) > 1 and ("" in names or (len(cases) == 1 and any(stem(path) == name for name, path in known.items()))):
        raise UNetError(first, f"whether its images ({some(list(known.values()))}) are channels of one cannot be told", _LIST_THEM)
    if len(names) > 1 and described and not all(name.isdecimal() for name in names):
        by_name = {name.casefold(): name for name in names}
        if sorted(by_name) != sorted(name.casefold() for name in described):
            raise UNetError(first, f"dataset.json names the channels {', '.join(described)}, the files {', '.join(names)}",
                            "Name them alike")  # fmt: skip
        return [by_name[name.casefold()] for name in described]
    return names
