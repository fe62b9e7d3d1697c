"""A data set's dataset.json, as the Decathlon and nnU-Net write it: names of classes and channels, cases, origin; trusted in nothing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeGuard

from napari_unet.dataset import Case, Dataset
from napari_unet.errors import UNetError
from napari_unet.files import reading
from napari_unet.layout import check_case_name
from napari_unet.schema import strict_json
from napari_unet.settings import ALL_LABELLED, LabelRule
from napari_unet.spec import MAX_LABEL
from napari_unet.suffixes import stem, suffix

NAME = "dataset.json"
LABEL_FOLDERS = ("labelsTr", "labels", "masks", "label", "mask")  # in whatever letters
MAX_JSON = 16 << 20
IGNORE = "ignore"  # nnU-Net's name for the value of voxels that nobody labelled
OTHER_NORMS = ("nonorm", "rescale_to_0_1", "rgb_to_0_1")  # which nnU-Net takes from channels' names, as it does "CT"


def described_in(folder: Path, rule: LabelRule) -> tuple[Dataset, LabelRule]:
    """What a folder's dataset.json says of its data, with the cases that it lists, if it does; and the rule, with its value to ignore.

    Raises UNetError where it is not to be trusted, or contradicts the rule.
    """
    description = _description(folder / NAME)
    labels, channels = _names(description, folder / NAME)
    rule = _merged(rule, labels)
    return replace(_described(folder, description), cases=_cases(folder, description), labels=labels, channels=channels), rule


def _cases(folder: Path, description: dict[str, Any]) -> tuple[Case, ...]:
    listed, mapped = description.get("training"), description.get("dataset")
    if isinstance(listed, list) and not _lists_channels(folder, listed):
        return _listed(folder, listed)
    return _mapped(folder, mapped) if isinstance(mapped, dict) else ()


def not_followed(channels: Iterable[str]) -> list[str]:
    """The normalisations that channels' names ask nnU-Net for and that are not done here, in words."""
    return [f"channel {n} asks for {name}; it is normalised by its mean and standard deviation all the same"
            for n, name in enumerate(channels) if name.casefold() in OTHER_NORMS]  # fmt: skip


def described_beside(labels: str | Path, rule: LabelRule = ALL_LABELLED) -> tuple[dict[int, str], LabelRule]:
    """The classes' names and the rule with the value to ignore, as the dataset.json beside a folder of labels has them, if there is one.

    What the rule ignores already counts more. Raises UNetError for a dataset.json that is not to be trusted.
    """
    folder = Path(labels) if os.path.isdir(labels) else Path(labels).parent
    path = folder.parent / NAME
    if folder.name.casefold() not in map(str.casefold, (*LABEL_FOLDERS, "labelsTs")) or not path.exists():
        return {}, rule
    names, _ = _names(_description(path), path)
    return names, rule if rule.ignore is not None else _merged(rule, names)


def _merged(rule: LabelRule, labels: dict[int, str]) -> LabelRule:
    """The rule with the value that `labels` call "ignore", which is taken out of them: it is no class."""
    value = next((value for value, name in labels.items() if name == IGNORE), rule.ignore)
    if rule.ignore not in (None, value):
        raise UNetError("--ignore", f"{rule.ignore}, but dataset.json names {value}", "Leave it out, or correct dataset.json")
    if value is not None and labels.pop(value, IGNORE) != IGNORE:
        raise UNetError("--ignore", f"{value} is a class in dataset.json", "Give the value of voxels that nobody labelled")
    return replace(rule, ignore=value)


def _description(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    if path.stat().st_size > MAX_JSON:
        raise UNetError(path, f"{path.stat().st_size:,} bytes", "A description has a few kilobytes")
    with reading(path):
        text = path.read_bytes()
    found = strict_json(text, str(path))
    if not isinstance(found, dict):
        raise UNetError(path, "it is not a table", "Follow the Decathlon's or nnU-Net's layout")
    return found


def _names(description: dict[str, Any], path: Path) -> tuple[dict[int, str], tuple[str, ...]]:
    """Label and channel names; the Decathlon maps values to names, nnU-Net names to values."""
    try:
        labels: dict[int, str] = {}
        named = description.get("labels", {})
        if not isinstance(named, dict):
            raise ValueError(f"labels is {str(named)[:100]}, not names with values")
        by_name = all(type(value) is int for value in named.values())  # nnU-Net's, whose names may be numbers: teeth, vertebrae
        for key, value in named.items():
            by_value = not by_name and str(key).lstrip("-").isdigit()
            number, name = (str(key), str(value)) if by_value else (str(value), str(key))
            if not re.fullmatch(r"\d{1,5}", number) or not (name == IGNORE) <= int(number) <= MAX_LABEL:
                raise ValueError(f"{key!r}: {value!r}"[:120])
            if labels.setdefault(int(number), name[:200]) != name[:200]:
                raise ValueError(f"two names for {number}")
        twice = next((name for name, count in Counter(labels.values()).items() if count > 1 or name == "mean"), None)
        if twice is not None:
            raise ValueError(f"the class name {twice!r}" + (" is used twice" if twice != "mean" else " means the mean of all"))
        table = description.get("channel_names") or description.get("modality") or {}
        if not isinstance(table, dict):
            raise ValueError(f"channels are {str(table)[:100]}, not numbers with names")
        channels = tuple(str(table[key])[:200] for key in sorted(table, key=int))
    except (TypeError, ValueError) as error:
        raise UNetError(path, f"labels or channels cannot be understood ({error})",
                        'Write "labels": {"background": 0, "name": 1, "ignore": 2}, the last where voxels are unlabelled; '
                        "regions of several values are not supported") from None  # fmt: skip
    labels.pop(0, None)
    return labels, channels


def _described(folder: Path, description: dict[str, Any]) -> Dataset:
    """A data set without its cases: what it shows, where it comes from, and its licence."""
    origin = ", ".join(str(description[key]) for key in ("name", "reference") if description.get(key))
    licence = description.get("licence") or description.get("license") or ""
    about = str(description.get("description") or "")
    return Dataset(folder, (), {}, (), about=about[:500], origin=origin[:500], licence=str(licence)[:200])


def _lists_channels(folder: Path, entries: list[Any]) -> bool:
    """nnU-Net's first version lists `case.nii.gz` where the folder holds `case_0000.nii.gz`."""
    first = entries[0].get("image") if entries and isinstance(entries[0], dict) else None
    if not isinstance(first, str):
        return False
    path = folder / first
    return not os.path.exists(path) and os.path.exists(path.parent / f"{stem(path)}_0000{suffix(path)}")


def _listed(folder: Path, entries: list[Any]) -> tuple[Case, ...]:
    """The pairs that the Decathlon's dataset.json lists, or MONAI's, in which an image may be a list of channels; paths stay inside."""
    found: list[tuple[tuple[Path, ...], Path]] = []
    for entry in entries:
        image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        images = [image] if isinstance(image, str) else image
        if not _are_paths(images) or not isinstance(label, str):
            raise UNetError(folder / NAME, f"the training entry {str(entry)[:120]}",
                            'Write {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}, '
                            "or a list of its channels' files for the image")  # fmt: skip
        found.append((tuple(_inside(folder, path) for path in images), _inside(folder, label)))
    if not found:
        raise UNetError(folder / NAME, "its list of training cases is empty", "List every case once")
    paths = [path for images, label in found for path in (*images, label)]
    if twice := next((path for path, count in Counter(paths).items() if count > 1), None):
        raise UNetError(folder / NAME, f"{twice.relative_to(folder)} is listed twice", "List every case once")
    names = _told_apart([[image.relative_to(folder) for image in images] for images, _ in found])
    if alike := next((name for name, count in Counter(map(str.casefold, names)).items() if count > 1), None):
        raise UNetError(folder / NAME, f"two cases have the name {alike}", "Give their files, or the folders of each, names of their own")
    return tuple(Case(name, images, label) for name, (images, label) in zip(names, found, strict=True))


def _are_paths(images: Any) -> TypeGuard[list[str]]:
    return isinstance(images, list) and bool(images) and all(isinstance(path, str) for path in images)


def _told_apart(cases: list[list[Path]]) -> list[str]:
    """The cases' names: those of their files, or where these are alike, as in `case_7/imaging.nii.gz`, of the folders that differ."""
    names = [_name_of([stem(image) for image in images]) for images in cases]
    counts = Counter(map(str.casefold, names))
    alike = [n for n, name in enumerate(names) if counts[name.casefold()] > 1]
    folders = [cases[n][0].parts[-2::-1] for n in alike]  # the nearest first
    levels = [[parts[level] for parts in folders] for level in range(min(map(len, folders), default=0))]
    for several in [*levels, ["_".join(reversed(parts)) or names[n] for n, parts in zip(alike, folders, strict=True)]]:
        if len(set(map(str.casefold, several))) == len(alike):
            for n, name in zip(alike, several, strict=True):
                names[n] = name
            break
    return names


def _name_of(channels: list[str]) -> str:
    """What the names of a case's channels begin with, as in `a_t1` and `a_t2`; the first one where they have nothing in common."""
    words = zip(*(re.split("[-_. ]", name) for name in channels), strict=False)
    shared = sum(len(each[0]) + 1 for each in takewhile(lambda each: len(set(each)) == 1, words)) - 1
    return channels[0][: max(0, shared)] or channels[0]


def _mapped(folder: Path, entries: dict[str, Any]) -> tuple[Case, ...]:
    """The cases of nnU-Net's `dataset` table: name -> channels' files and label; paths stay inside the folder."""
    cases = []
    for name, entry in entries.items():
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if not _are_paths(images) or not isinstance(label, str):
            raise UNetError(folder / NAME, f"the case {name[:60]}: {str(entry)[:120]}",
                            'Write "name": {"images": ["./imagesTr/a_0000.nii.gz"], "label": "./labelsTr/a.nii.gz"}')  # fmt: skip
        check_case_name(name, folder / NAME)
        cases.append(Case(name, tuple(_inside(folder, path) for path in images), _inside(folder, label)))
    if not cases:
        raise UNetError(folder / NAME, "its table of cases is empty", "List every case")
    return tuple(cases)


def _inside(folder: Path, entry: str) -> Path:
    path = folder / entry
    if "\0" in entry or not stem(entry).strip("."):
        raise UNetError(folder / NAME, f"the path {entry!r} names no file", "Use paths inside the folder")
    if Path(entry).is_absolute() or ".." in Path(entry).parts:
        raise UNetError(folder / NAME, f"the path {entry!r} leads out of the folder", "Use paths inside it")
    if not os.path.exists(path) and path.name.startswith("._"):
        raise UNetError(folder / NAME, f"the path {entry!r} is a leftover of macOS", "Remove the entry")
    return path
