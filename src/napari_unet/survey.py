"""A data set as a whole: what shows only beside the other cases, and every case in one row of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet.checks import MAX_CLASSES, CaseFacts, Finding, Report, facts_in
from napari_unet.dataset import Case, Dataset
from napari_unet.description import not_followed
from napari_unet.files import write_bytes
from napari_unet.spec import axes_along
from napari_unet.words import listed, shortened

OUTLIER = 5.0  # times the median, or its fraction


@dataclass(frozen=True)
class Row:
    """A case in the table, in the order of its file's axes; what could not be read is empty.

    classes : per label value that occurs, its volume in ml, or per cent of a picture; remarks : what is unusual in it.
    """

    name: str
    level: Literal["error", "warning", ""]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    intensity: tuple[tuple[float, float], ...]  # smallest and largest value per channel
    classes: dict[int, float]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Usual:
    """What the cases are like: medians over those that can be used."""

    spacing: NDArray[np.float64]
    extent: NDArray[np.float64]
    classes: dict[int, float]
    at_border: dict[int, float]  # share of the cases with the class

    @classmethod
    def of(cls, facts: list[CaseFacts]) -> _Usual:
        """Of these cases; of none, tables without rows."""
        spacing = np.array([f.spacing for f in facts]).reshape(-1, 3)
        extent = np.array([f.shape for f in facts]).reshape(-1, 3) * spacing
        values = sorted({value for f in facts for value in f.voxels})
        sizes = {v: [_sizes(f)[v] for f in facts if v in f.voxels] for v in values}
        border = {v: float(np.mean([v in f.at_border for f in facts if v in f.voxels])) for v in values}
        return cls(np.median(spacing, axis=0) if facts else spacing, np.median(extent, axis=0) if facts else extent,
                   {v: float(np.median(size)) for v, size in sizes.items()}, border)  # fmt: skip


def survey(dataset: Dataset, reports: list[Report]) -> list[Report]:
    """The reports of `checks.check`, with what shows only beside the other cases; the last ones are about the whole set."""
    facts = facts_in(reports)
    usual = _Usual.of(facts)
    seen = [replace(r, findings=(*r.findings, *_unlike(r.case, r.facts, usual))) if r.facts else r for r in reports]
    whole = Case(dataset.folder.name, ())
    return [*seen, *(Report(whole, None, (finding,)) for finding in _of_the_set(dataset, reports, facts))]


def _unlike(case: Case, facts: CaseFacts, usual: _Usual) -> Iterator[Finding]:
    """How far a case is from the others."""
    unit = "pixels" if facts.picture else "mm"
    for axis, name in enumerate("zyx"):
        spacing, extent = facts.spacing[axis], facts.shape[axis] * facts.spacing[axis]
        if _far(spacing, usual.spacing[axis]):
            what = f"its spacing along {name} is {spacing:.3g} mm, the median is {usual.spacing[axis]:.3g} mm"
            yield Finding("warning", str(case.images[0]), what, "Check its header, or leave it out")
        elif _far(extent, usual.extent[axis]):
            what = f"it is {extent:.3g} {unit} long along {name}, the median is {usual.extent[axis]:.3g} {unit}"
            yield Finding("warning", str(case.images[0]), what, "Check that it shows what the others show")


def _far(value: float, median: float) -> bool:
    return not 1 / OUTLIER < value / median < OUTLIER


def _of_the_set(dataset: Dataset, reports: list[Report], facts: list[CaseFacts]) -> Iterator[Finding]:
    """What no single case can show."""
    where = str(dataset.folder)
    if len(dataset.cases) == 1:
        yield Finding("warning", where, "a single labelled case: no other is left to score a model on", "Label a second one")
    if facts and all(min(f.shape) == 1 and not f.picture for f in facts):
        yield Finding("warning", where, "every volume is a single slice", "Train with --dims 2, or give them as pictures")
    stack = next((r for r in reports if r.facts and not r.facts.picture and len(r.case.images) == 1 and len(r.facts.low) > 1), None)
    if stack is not None and not dataset.channels:
        yield Finding("warning", where, f"the volumes of a file, as in {stack.case.name}, are taken as channels of one image",
                      "Split them if they are points in time, or name the channels in dataset.json")  # fmt: skip
    for words in not_followed(dataset.channels):
        yield Finding("warning", where, words, "Name it CT where its values are Hounsfield units; otherwise leave it")
    yield from _of_the_masks(dataset, facts)


def _of_the_masks(dataset: Dataset, facts: list[CaseFacts]) -> Iterator[Finding]:
    """Values that do not go together, or cannot be learnt."""
    where, masks = str(dataset.folder), {f.name: set(f.voxels) for f in facts}
    values = sorted(set().union(*masks.values()))
    classes = len({*values, *dataset.labels})
    if classes > MAX_CLASSES:
        yield Finding("error", where, f"{classes:,} classes in all", f"Use at most {MAX_CLASSES}")
    for value in values if len(facts) > 1 else []:
        having = [name for name, found in masks.items() if value in found]
        if len(having) == 1:
            named = f" ({dataset.labels[value]})" if value in dataset.labels else ""
            yield Finding("warning", where, f"the label {value}{named} occurs in {having[0]} alone",
                          "Label it in others: from one case it cannot be both learnt and scored")  # fmt: skip
    if len(values) > 1 and not dataset.labels and all(len(found) < 2 for found in masks.values()):
        yield Finding("warning", where, f"each mask holds one value, but not all the same: {listed([str(v) for v in values], 5)}",
                      "Use one value if they mean one class, or name them in dataset.json")  # fmt: skip
    elif any(f.picture for f in facts) and 255 in values and {1} in masks.values():
        name = next(name for name, found in masks.items() if found == {1})
        yield Finding("warning", where, f"255 is one class of several, but in {name}, which has only 0 and 255, it is read as 1",
                      "Number the classes from 1 on")  # fmt: skip


def _sizes(facts: CaseFacts) -> dict[int, float]:
    """Each class's volume in ml, or per cent of a picture."""
    unit = 100 / np.prod(facts.shape) if facts.picture else facts.voxel_ml
    return {value: float(count * unit) for value, count in facts.voxels.items()}


def table(dataset: Dataset, reports: list[Report]) -> list[Row]:
    """One row per case, the worst first: errors, then warnings, then the remarkable ones; else in their order."""
    usual = _Usual.of(facts_in(reports))
    rows = [_row(report, dataset, usual) for report in reports if report.case.images and report.case.label]
    return sorted(rows, key=lambda row: (("error", "warning", "").index(row.level), not row.remarks))


def _row(report: Report, dataset: Dataset, usual: _Usual) -> Row:
    levels = {finding.level for finding in report.findings}
    level: Literal["error", "warning", ""] = "error" if "error" in levels else "warning" if levels else ""
    facts = report.facts
    if facts is None:
        return Row(report.case.name, level, (), (), "", (), {}, ())
    axes = axes_along(facts.orientation)
    shape, spacing = tuple(facts.shape[a] for a in axes), tuple(facts.spacing[a] for a in axes)
    seen = tuple(zip(facts.low, facts.high, strict=True)), _sizes(facts), tuple(_remarks(facts, dataset, usual))
    if facts.picture:
        return Row(report.case.name, level, shape[:2], (), "", *seen)
    return Row(report.case.name, level, shape, spacing, facts.orientation, *seen)


def _remarks(facts: CaseFacts, dataset: Dataset, usual: _Usual) -> list[str]:
    """Classes of an unusual size, and those that an image's edge cuts where it cuts few others'."""
    remarks = []
    for value, size in _sizes(facts).items():
        name = dataset.labels.get(value, f"class {value}")
        if _far(size, usual.classes[value]):
            remarks.append(f"{name} is {size / usual.classes[value]:.2g} x its median")
        if value in facts.at_border and usual.at_border[value] < 0.5:
            remarks.append(f"{name} touches the border")
    return remarks


def cells(rows: list[Row], dataset: Dataset, unit: str) -> list[tuple[str, ...]]:
    """Rows in words, for a terminal, the heading first; `unit` of the classes' sizes."""
    heading = ("", "case", "shape", "spacing, mm", "axes", "channels", "intensities", f"classes, {unit}", "remarks")
    return [heading, *(_words(row, dataset) for row in rows)]


def _words(row: Row, dataset: Dataset) -> tuple[str, ...]:
    classes = [f"{dataset.labels.get(value, value)} {size:.3g}" for value, size in row.classes.items()]
    spread = [f"{low:.4g} to {high:.4g}" for low, high in row.intensity]
    shape, spacing = " x ".join(map(str, row.shape)), " x ".join(f"{s:.3g}" for s in row.spacing)
    return (row.level or "ok", shortened(row.name), shape, spacing, row.orientation, str(len(row.intensity) or ""),
            listed(spread, 2), listed(classes, 6), listed(row.remarks, 3))  # fmt: skip


def write_table(path: str | Path, rows: list[Row], dataset: Dataset) -> None:
    """Every case, one column per class, as CSV, atomically."""
    values = sorted({value for row in rows for value in row.classes} | set(dataset.labels))
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["case", "level", "shape", "spacing_mm", "axes", "channels", "low", "high",
                  *(dataset.labels.get(value, f"class {value}") for value in values), "remarks"])  # fmt: skip
    for row in rows:
        lows, highs = (" ".join(f"{pair[n]:g}" for pair in row.intensity) for n in (0, 1))
        out.writerow([row.name, row.level, " ".join(map(str, row.shape)), " ".join(f"{s:.6g}" for s in row.spacing), row.orientation,
                      len(row.intensity) or "", lows, highs, *(f"{row.classes[v]:.6g}" if v in row.classes else "" for v in values),
                      "; ".join(row.remarks)])  # fmt: skip
    write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))
