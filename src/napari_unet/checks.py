"""Read every case once: what is wrong with it, and what planning needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_unet import structures
from napari_unet.dataset import Case, Dataset, check_names, read_image, read_mask
from napari_unet.errors import UNetError
from napari_unet.fingerprint import Stamp, of_array, stamp
from napari_unet.intensities import of_channels
from napari_unet.partial import UNLABELLED, slices_labelled
from napari_unet.spec import MAX_CHANNELS
from napari_unet.volume import Reorientation, Volume, check_same_grid
from napari_unet.words import counted

SAMPLES = 5_000  # intensities kept per case and channel
MAX_CLASSES = 254  # a mask of classes is one byte per voxel, in which background and "unknown" also have a value
T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong ("error": training refuses) or worth knowing ("warning")."""

    level: Literal["error", "warning"]
    where: str
    what: str
    remedy: str


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """What planning needs of a case, its axes turned to run up, front, right ("SAR").

    voxels : per label value; centroids : per label, its centre as a share of the image's extent, per axis;
    foreground : (channels, up to SAMPLES) intensities inside labels; low, high : each channel's smallest and largest
    value; orientation : of the file's own axes, as in "LPS"; at_border : label values that the image's edge may cut;
    labelled : per axis, the share of slices across it that hold a label; twins : cases before it with the same voxels
    or the same mask; thickness : per label, of its structures, in mm.
    """

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    picture: bool
    voxels: dict[int, int]
    centroids: dict[int, tuple[float, float, float]]
    foreground: NDArray[np.float32]
    low: tuple[float, ...]
    sha256: str
    high: tuple[float, ...] = ()
    orientation: str = "SAR"
    voxel_ml: float = 0.0
    at_border: tuple[int, ...] = ()
    labelled: tuple[float, float, float] = (1.0, 1.0, 1.0)
    twins: tuple[str, ...] = ()
    thickness: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """One case after checking; facts are None where it cannot be used."""

    case: Case
    facts: CaseFacts | None
    findings: tuple[Finding, ...]


def check(dataset: Dataset) -> Iterator[Report]:
    """Read and check every case, one report each; the last ones may carry findings about the set as a whole."""
    for path in dataset.without_image:
        yield Report(Case(path.name, (), path), None, (Finding("error", str(path), "a label without an image", "Add the image"),))
    for path in dataset.unlabelled:
        finding = Finding("warning", str(path), "an image without a label: left out", "Add its label, or ignore this")
        yield Report(Case(path.name, (path,)), None, (finding,))
    known = _Known(len(dataset.channels))
    for case in dataset.cases:
        yield _check_case(case, dataset.labels, known)
    for value in sorted(set(dataset.labels) - known.values):
        finding = Finding("warning", str(dataset.folder), f"the label {value} ({dataset.labels[value]}) occurs in no case",
                          "Remove it from dataset.json, or add cases that have it")  # fmt: skip
        yield Report(Case(dataset.folder.name, ()), None, (finding,))
    if dataset.rule.ignore is not None and not known.unlabelled:
        finding = Finding("warning", str(dataset.folder), f"the ignore value {dataset.rule.ignore} occurs in no case",
                          "Check the value that unlabelled voxels have")  # fmt: skip
        yield Report(Case(dataset.folder.name, ()), None, (finding,))


@dataclass
class _Known:
    """What the cases before have shown."""

    channels: int  # 0 where nothing is known yet
    channels_of: str = "dataset.json names"
    picture: bool | None = None
    unlabelled: bool = False  # was any voxel?
    values: set[int] = field(default_factory=set)
    images: dict[str, tuple[str, str]] = field(default_factory=dict)  # SHA-256 of voxels -> name, SHA-256 of its mask
    masks: dict[str, str] = field(default_factory=dict)  # SHA-256 of a mask -> name


def _check_case(case: Case, labels: dict[int, str], known: _Known) -> Report:
    """Every fault of both files; one does not hide another."""
    findings: list[Finding] = []

    def attempt(part: Callable[..., T], *arguments: Any) -> T | None:
        """What a part of the check gives; None where it is a finding instead."""
        try:
            return part(*arguments)
        except UNetError as error:
            findings.append(Finding("error", error.where, error.what, error.remedy))
            return None

    before = {path: stamp(path) for path in case.files}
    attempt(check_names, case)
    image, label = attempt(read_image, case), attempt(read_mask, case)
    if image is not None:
        attempt(of_channels, image)
        attempt(_check_alike, image, case, known)
        findings += [Finding("warning", image.source, note, "Check that the image lies where it should") for note in image.notes]
    if label is not None:
        attempt(_check_values, label, labels, known)
        if label.data.max() == UNLABELLED:
            findings.append(Finding("error", label.source, "none of its voxels is labelled", "Label some, or remove the mask"))
        elif label.data.max() == 0:
            findings.append(Finding("warning", label.source, "an empty mask: every voxel is background", "Check that it is meant"))
    if image is not None and label is not None:
        attempt(check_same_grid, label, image)
        attempt(_check_differ, label, image)
    attempt(_check_unchanged, before)
    if image is None or label is None or any(finding.level == "error" for finding in findings):
        return Report(case, None, tuple(findings))
    facts = _facts(case, image, label)
    twins, found = _twins(facts, image, label, known)
    return Report(case, replace(facts, twins=twins), (*findings, *found))


def facts_in(reports: Iterable[Report]) -> list[CaseFacts]:
    """Those of the cases that can be used."""
    return [report.facts for report in reports if report.facts is not None]


def groups_of(facts: Iterable[CaseFacts]) -> dict[str, str]:
    """The group of each case: those that share their voxels or their mask, also by way of a third, have one name."""
    groups: dict[str, str] = {}
    for case in facts:
        groups[case.name] = case.name
        joined = {groups[twin] for twin in case.twins}
        groups |= {name: min(joined) for name, group in groups.items() if joined and group in {case.name, *joined}}
    return groups


def _twins(facts: CaseFacts, image: Volume, label: Volume, known: _Known) -> tuple[tuple[str, ...], list[Finding]]:
    """The cases before this one that it shares voxels with: copies, two opinions on one image, a mask that was saved twice."""
    name, mask = facts.name, of_array(label.data)
    same_image, its_mask = known.images.setdefault(facts.sha256, (name, mask))
    plain = label.data.min() == label.data.max()  # background, or tissue, as far as the image goes: that says nothing
    same_mask = name if plain else known.masks.setdefault(mask, name)
    twins = tuple({twin: None for twin in (same_image, same_mask) if twin != name})
    if same_image != name:
        other = "" if its_mask == mask else ", under another label"
        return twins, [Finding("warning", image.source, f"the same voxels as {same_image}{other}",
                               "Remove one; they stay on one side of every split")]  # fmt: skip
    if same_mask != name:
        return twins, [Finding("warning", label.source, f"the same mask as {same_mask}, whose image is another",
                               "Check that it was not saved twice")]  # fmt: skip
    return (), []


def _check_unchanged(before: dict[Path, Stamp | None]) -> None:
    for path, known in before.items():
        if known is not None and stamp(path) != known:
            raise UNetError(path, "it changed while it was read", "Wait until nobody writes to it, and check again")


def _check_differ(label: Volume, image: Volume) -> None:
    if label.data.any() and np.array_equal(label.data, image.data):
        raise UNetError(label.source, "the label is the image itself, voxel by voxel", "Give the image that was labelled")


def _check_alike(image: Volume, case: Case, known: _Known) -> None:
    """UNetError for an image unlike the ones before it."""
    picture = case.picture
    if known.picture not in (None, picture):
        raise UNetError(image.source, f"a {'picture' if picture else 'volume'} among {'volumes' if picture else 'pictures'}",
                        "Train on one kind at a time")  # fmt: skip
    if known.channels_of == "dataset.json names" and len(case.images) == image.channels < known.channels:
        raise UNetError(image.source, f"{image.channels} of the {known.channels} channels that dataset.json names",
                        f"Add {case.name}_{image.channels:04d}")  # fmt: skip
    if known.channels not in (0, image.channels):
        raise UNetError(image.source, f"{counted(image.channels, 'channel')}, not {known.channels} as {known.channels_of}",
                        "Give every case the same channels")  # fmt: skip
    if image.channels > MAX_CHANNELS:
        raise UNetError(image.source, f"{image.channels} volumes in one file, taken as its channels",
                        f"Give one volume, or at most {MAX_CHANNELS} channels")  # fmt: skip
    if known.picture is None:  # the first one
        known.channels_of = "dataset.json names" if known.channels else "the others"
    known.picture, known.channels = picture, image.channels


def _check_values(label: Volume, labels: dict[int, str], known: _Known) -> None:
    """UNetError for a mask whose values have no name, or that cannot be one of classes."""
    values = {int(v) for v in np.unique(label.data)} - {0}
    known.unlabelled |= UNLABELLED in values
    values.discard(UNLABELLED)
    known.values |= values
    if len(values) > MAX_CLASSES:
        raise UNetError(label.source, f"a mask with {len(values):,} different values", f"Use at most {MAX_CLASSES}, one per class")
    unknown = sorted(values - labels.keys()) if labels else []
    if unknown:
        remedy = f"Save 255 as {min(labels)}" if values == {255} and len(labels) == 1 else "Name it in dataset.json, or correct the mask"
        raise UNetError(label.source, f"the mask value {unknown[0]} is none of 0 and {sorted(labels)}", remedy)


def _facts(case: Case, image: Volume, label: Volume) -> CaseFacts:
    turn = Reorientation.between(image.affine, "SAR")
    turned = turn.apply(label.data)
    inside = label.data > 0
    voxels = {int(v): int(n) for v, n in zip(*np.unique(label.data, return_counts=True), strict=True) if v > 0}
    channels = np.moveaxis(image.data.reshape((*image.shape, -1)), -1, 0)
    step = max(1, -(-sum(voxels.values()) // SAMPLES))
    z, y, x = turned.shape
    spacing = [image.spacing[axis] for axis in turn.axes]
    return CaseFacts(
        name=case.name, shape=(z, y, x), spacing=(spacing[0], spacing[1], spacing[2]),
        picture=case.picture, voxels=voxels, centroids={v: structures.centroid(turned == v) for v in voxels},
        foreground=np.stack([channel[inside][::step].astype(np.float32) for channel in channels]),
        low=tuple(float(channel.min()) for channel in channels), high=tuple(float(channel.max()) for channel in channels),
        sha256=of_array(image.data), orientation=image.orientation, voxel_ml=image.voxel_ml, at_border=structures.at_border(turned),
        labelled=slices_labelled(label),
        thickness={v: structures.thickness(turned, v, spacing) for v in voxels},
    )  # fmt: skip


def lenient(reports: list[Report], needed: Container[str]) -> list[Report]:
    """The reports, in which only the `needed` cases have errors: of a run that goes on, what is wrong with others is worth knowing."""
    return [
        report if report.case.images and report.case.name in needed
        else replace(report, findings=tuple(replace(finding, level="warning") for finding in report.findings))
        for report in reports
    ]  # fmt: skip


def refuse(reports: list[Report], where: str) -> None:
    """UNetError where training cannot begin: a case with an error, or none left."""
    errors = [finding for report in reports for finding in report.findings if finding.level == "error"]
    if errors:
        more = f" (and {counted(len(errors) - 1, 'more error')})" if len(errors) > 1 else ""
        raise UNetError(errors[0].where, errors[0].what + more, errors[0].remedy)
    if not any(report.facts and report.facts.voxels for report in reports):
        raise UNetError(where, "no case has a labelled voxel", "Label at least one")

