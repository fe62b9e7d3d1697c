"""Read every case once: what is wrong with it, and what planning needs to know of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet import nifti, pictures
from napari_unet.cases import Case, Dataset, read_image
from napari_unet.errors import UNetError
from napari_unet.volume import Reorientation, Volume, check_same_grid

SAMPLES = 5_000  # intensities kept per case and channel


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
    foreground : (channels, up to SAMPLES) intensities inside labels; low : each channel's smallest value.
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
    seen: dict[str, str] = {}
    channels = len(dataset.channels)
    found: set[int] = set()
    for case in dataset.cases:
        report = _check_case(case, dataset.labels, channels, seen)
        if report.facts is not None:
            channels = channels or len(report.facts.low)
            found |= report.facts.voxels.keys()
        yield report
    for value in sorted(set(dataset.labels) - found):
        finding = Finding("warning", str(dataset.folder), f"the label {value} ({dataset.labels[value]}) occurs in no case",
                          "Remove it from dataset.json, or add cases that have it")  # fmt: skip
        yield Report(Case(dataset.folder.name, ()), None, (finding,))


def _check_case(case: Case, labels: dict[int, str], channels: int, seen: dict[str, str]) -> Report:
    findings: list[Finding] = []
    try:
        image = read_image(case)
        check_image(image)
        label = nifti.read_labels(case.label) if case.label else None
        if label is None:
            raise UNetError(case.name, "it has no label", "Add it")
        check_same_grid(label, image)
        facts = _facts(case, image, label)
    except UNetError as error:
        return Report(case, None, (Finding("error", error.where, error.what, error.remedy),))
    findings += [Finding("warning", image.source, note, "Check that the image lies where it should") for note in image.notes]
    if channels and image.channels != channels:
        findings.append(Finding("error", image.source, f"{image.channels} channels, not {channels} as the others",
                                "Give every case the same channels"))  # fmt: skip
    unknown = sorted(set(facts.voxels) - set(labels)) if labels else []
    if unknown:
        findings.append(Finding("error", label.source, f"the mask value {unknown[0]} is none of 0 and {sorted(labels)}",
                                "Name it in dataset.json, or correct the mask"))  # fmt: skip
    if not facts.voxels:
        findings.append(Finding("warning", label.source, "an empty mask: every voxel is background", "Check that it is meant"))
    if facts.sha256 in seen:
        findings.append(Finding("warning", image.source, f"the same voxels as {seen[facts.sha256]}",
                                "Remove one: a case must not be trained on and scored"))  # fmt: skip
    seen.setdefault(facts.sha256, case.name)
    broken = any(finding.level == "error" for finding in findings)
    return Report(case, None if broken else facts, tuple(findings))


def check_image(image: Volume) -> None:
    """UNetError for voxels that are not finite or all alike: either would become a clean empty mask."""
    for index in range(image.channels):
        data: NDArray[Any] = image.data[..., index] if image.data.ndim == 4 else image.data
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            count = int((~np.isfinite(data)).sum())
            raise UNetError(image.source, f"{count:,} voxels are NaN or infinite", "Replace them, for example by 0, and save it again")
        if data.min() == data.max():
            raise UNetError(image.source, f"every voxel of channel {index} has the value {data.flat[0]:g}: nothing can be seen in it",
                            "Check that the right file was exported")  # fmt: skip


def _facts(case: Case, image: Volume, label: Volume) -> CaseFacts:
    turn = Reorientation.between(image.affine, "SAR")
    turned = turn.apply(label.data)
    inside = label.data > 0
    values = [int(v) for v in np.unique(label.data) if v]
    channels = np.moveaxis(image.data.reshape((*image.shape, -1)), -1, 0)
    step = max(1, int(np.count_nonzero(inside)) // SAMPLES)
    z, y, x = turned.shape
    spacing = [image.spacing[axis] for axis in turn.axes]
    return CaseFacts(
        name=case.name, shape=(z, y, x), spacing=(spacing[0], spacing[1], spacing[2]),
        picture=nifti.suffix(case.images[0]) in pictures.SUFFIXES,
        voxels={v: int(np.count_nonzero(label.data == v)) for v in values},
        centroids={v: _centroid(turned == v) for v in values},
        foreground=np.stack([channel[inside][::step].astype(np.float32) for channel in channels]),
        low=tuple(float(channel.min()) for channel in channels),
        sha256=hashlib.sha256(np.ascontiguousarray(image.data)).hexdigest(),
    )  # fmt: skip


def _centroid(mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    centre = []
    for axis, size in enumerate(mask.shape):
        profile = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        centre.append(float((profile * np.arange(size)).sum() / profile.sum() / max(size - 1, 1)))
    return centre[0], centre[1], centre[2]


def refuse(reports: list[Report], where: str) -> None:
    """UNetError where training cannot begin: a case with an error, or none left."""
    errors = [finding for report in reports for finding in report.findings if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        raise UNetError(errors[0].where, errors[0].what + more, errors[0].remedy)
    if not any(report.facts and report.facts.voxels for report in reports):
        raise UNetError(where, "no case has a labelled voxel", "Label at least one")

