"""The data set as a whole: what only the company of the others shows, and a table that stays readable."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import affine_for, decathlon, describe, nnunet, scan, two_folders, write_pair

from napari_unet import check, find_cases, images, pictures
from napari_unet.checks import MAX_CLASSES, CaseFacts, Finding, Report, refuse
from napari_unet.dataset import Case, Dataset
from napari_unet.errors import UNetError
from napari_unet.survey import Row, cells, survey, table, write_table

Change = Callable[[Path], object]


def surveyed(folder: Path) -> list[str]:
    """What the survey adds to the check."""
    dataset = find_cases(folder)
    reports = list(check(dataset))
    known = [finding for report in reports for finding in report.findings]
    return [f"{f.level} {Path(f.where).name}: {f.what}" for r in survey(dataset, reports) for f in r.findings if f not in known]


def case(n: int, shape: tuple[int, ...] = (20, 24, 18), spacing: tuple[float, ...] = (1, 1, 1), orientation: str = "RAS") -> Change:
    """Case c<n> on another grid."""
    affine = affine_for(orientation, spacing)
    return lambda folder: write_pair(folder / f"images/c{n}.nii.gz", folder / f"labels/c{n}.nii.gz", *scan(n, shape, affine))


def masks(*values: tuple[int, int]) -> Change:
    """Masks of other values: what 1 and 2 become, per case."""

    def write(folder: Path) -> None:
        for n, pair in enumerate(values):
            _, mask = scan(n)
            images.write(folder / f"labels/c{n}.nii.gz", mask.with_data(np.array([0, *pair], np.uint16)[mask.data]))

    return write


def series(folder: Path) -> None:
    for n in range(4):
        image, _ = scan(n)
        images.write(folder / f"images/c{n}.nii.gz", image.with_data(np.stack([image.data] * 3, -1)), labels=False)


def norms(folder: Path) -> None:
    series(folder)
    describe(folder, channel_names={"0": "T1", "1": "noNorm", "2": "rescale_to_0_1"})


def named(folder: Path) -> None:
    series(folder)
    describe(folder, channel_names={"0": "a", "1": "b", "2": "c"})


def alone(folder: Path) -> None:
    for n in range(1, 4):
        for part in ("images", "labels"):
            (folder / part / f"c{n}.nii.gz").unlink()


def slices(folder: Path) -> None:
    for n in range(4):
        case(n, (20, 24, 1), (1, 1, 5))(folder)


def many(folder: Path) -> None:
    for n in range(4):
        _, mask = scan(n)
        numbers = np.arange(mask.data.size, dtype=np.uint16).reshape(mask.shape) % 70 + 70 * n
        images.write(folder / f"labels/c{n}.nii.gz", mask.with_data(numbers))


SETS: dict[str, tuple[Change, list[str]]] = {
    "as it should be": (case(1), []),
    "odd sizes, flipped and turned": (case(1, (19, 23, 31), orientation="PIL"), []),
    "twice as coarse": (case(1, spacing=(1, 1, 2)), []),
    "coarse slices": (case(1, spacing=(1, 1, 9)), ["warning c1.nii.gz: its spacing along z is 9 mm, the median is 1 mm"]),
    "of another order": (case(1, spacing=(9, 1, 1), orientation="SAR"), [
        "warning c1.nii.gz: its spacing along z is 9 mm, the median is 1 mm"]),
    "metres for millimetres": (case(1, spacing=(0.1, 0.1, 0.1)), [
        f"warning c1.nii.gz: its spacing along {axis} is 0.1 mm, the median is 1 mm" for axis in "zyx"]),
    "a single slice": (case(1, (20, 24, 1)), ["warning c1.nii.gz: it is 1 mm long along z, the median is 18 mm"]),
    "a whole body": (case(1, (20, 24, 120)), ["warning c1.nii.gz: it is 120 mm long along z, the median is 18 mm"]),
    "one case": (alone, ["warning data: a single labelled case: no other is left to score a model on"]),
    "only slices": (slices, ["warning data: every volume is a single slice"]),
    "a series": (series, ["warning data: the volumes of a file, as in c0, are taken as channels of one image"]),
    "named channels": (named, []),
    "other norms": (norms, [
        f"warning data: channel {n} asks for {name}; it is normalised by its mean and standard deviation all the same"
        for n, name in ((1, "noNorm"), (2, "rescale_to_0_1"))]),
    "a class in one case": (masks((1, 2), (1, 2), (1, 7), (1, 2)), ["warning data: the label 7 occurs in c2 alone"]),
    "1 here, 255 there": (masks((1, 1), (255, 255), (1, 1), (255, 255)), [
        "warning data: each mask holds one value, but not all the same: 1 and 255"]),
    "more classes than a byte holds": (many, [f"error data: {4 * 70 - 1} classes in all"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_folders(tmp_path_factory.mktemp("good"), 4)


@pytest.mark.parametrize("name", SETS)
def test_what_is_unlike_the_others(good: Path, tmp_path: Path, name: str) -> None:
    change, words = SETS[name]
    folder = Path(shutil.copytree(good, tmp_path / "data"))
    change(folder)
    found = surveyed(folder)
    assert [line for line in found if " alone" not in line or name == "a class in one case"] == words


def test_an_error_of_the_whole_set_stops_training(good: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "data"))
    many(folder)
    dataset = find_cases(folder)
    reports = list(check(dataset))
    refuse(reports, "data")
    with pytest.raises(UNetError, match=f"279 classes in all. Use at most {MAX_CLASSES}"):
        refuse(survey(dataset, reports), "data")


def test_a_picture_of_one_class_among_several(tmp_path: Path) -> None:
    two_folders(tmp_path, 3, ".png")
    for n, values in enumerate(((0, 128, 255), (0, 128, 255), (0, 0, 255))):
        _, mask = scan(n, (64, 48, 1))
        pictures.write(tmp_path / f"labels/c{n}.png", np.array(values, np.uint8)[mask.data], "label")
    assert any("but in c2, which has only 0 and 255, it is read as 1" in line for line in surveyed(tmp_path))


# the table


def facts(name: str, **changes: object) -> CaseFacts:
    base = CaseFacts(name, (10, 20, 30), (3.0, 2.0, 1.0), False, {1: 500}, {1: (0.5, 0.5, 0.5)}, np.zeros((1, 1), np.float32), (0.0,), "",
                     (100.0,), "RAS", 0.006)  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def report(name: str, *findings: Finding, read: bool = True, **changes: object) -> Report:
    paths = (Path(f"{name}.nii.gz"),), Path(f"l/{name}.nii.gz")
    return Report(Case(name, *paths), facts(name, **changes) if read else None, findings)


def data(*reports: Report, **names: str) -> Dataset:
    return Dataset(Path("data"), tuple(r.case for r in reports), {1: "core"}, ())


def test_a_row_is_told_in_the_order_of_the_file() -> None:
    reports = [report("a"), report("b", orientation="PSL")]
    rows = table(data(*reports), reports)
    assert rows[0] == Row("a", "", (30, 20, 10), (1, 2, 3), "RAS", ((0, 100),), {1: pytest.approx(3)}, ())
    assert (rows[1].shape, rows[1].spacing, rows[1].orientation) == ((20, 10, 30), (2, 3, 1), "PSL")
    heading, first, _ = cells(rows, data(*reports), "ml")
    assert first == ("ok", "a", "30 x 20 x 10", "1 x 2 x 3", "RAS", "1", "0 to 100", "core 3", "") and len(heading) == len(first)


def test_the_worst_come_first() -> None:
    wrong, odd = Finding("error", "w", "x", "y"), Finding("warning", "w", "x", "y")
    reports = [report("a"), report("b", odd), report("c", voxels={1: 5000}), report("d", wrong, odd, read=False), report("e")]
    rows = table(data(*reports), reports)
    assert [(row.name, row.level) for row in rows] == [("d", "error"), ("b", "warning"), ("c", ""), ("a", ""), ("e", "")]
    assert rows[0].shape == () and cells(rows[:1], data(), "ml")[1][:3] == ("error", "d", "")


@pytest.mark.parametrize("count, words", [(2500, "core is 5 x its median"), (100, "core is 0.2 x its median"), (2400, ""), (101, "")])
def test_a_class_of_an_unusual_size_is_remarked(count: int, words: str) -> None:
    reports = [report("a"), report("b"), report("c", voxels={1: count})]
    (row,) = [row for row in table(data(*reports), reports) if row.name == "c"]
    assert ", ".join(row.remarks) == words


def test_touching_the_border_is_remarkable_where_few_do() -> None:
    reports = [report(name, at_border=(1,) if name in "ab" else ()) for name in "abcdef"]
    assert [row.remarks for row in table(data(), reports)][:2] == [("core touches the border",)] * 2
    reports = [report(name, at_border=(1,)) for name in "abc"]
    assert not any(row.remarks for row in table(data(), reports))


def test_pictures_have_neither_millimetres_nor_millilitres() -> None:
    (row,) = table(data(), [report("a", picture=True, shape=(1, 20, 25))])
    assert (row.shape, row.spacing, row.orientation, row.classes) == ((25, 20), (), "", {1: pytest.approx(100)})


def test_long_names_and_many_classes_keep_the_shape_of_the_table() -> None:
    reports = [report("x" * 100 + "脳" * 140, voxels={n: n for n in range(1, 51)}, low=(0.0,) * 4, high=(1.0,) * 4)]
    _, words = cells(table(data(), reports), data(), "ml")
    assert max(map(len, words)) < 100 and "and 44 more" in words[7] and "and 2 more" in words[6] and words[1].startswith("xxx")


def test_the_table_as_csv(tmp_path: Path) -> None:
    reports = [report("a, b", voxels={1: 10, 7: 5}), report("c", Finding("error", "w", "x", "y"), read=False)]
    write_table(tmp_path / "t.csv", table(data(), reports), data())
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text("utf-8").splitlines()))
    assert [row["case"] for row in rows] == ["c", "a, b"] and rows[0]["shape"] == rows[0]["core"] == ""
    assert rows[1] | {"core": "0.06", "class 7": "0.03", "spacing_mm": "1 2 3", "high": "100"} == rows[1]


def test_layouts_with_a_file_per_channel_are_no_series(tmp_path: Path) -> None:
    assert surveyed(nnunet(tmp_path / "n", 3, described=False)) == []
    assert surveyed(decathlon(tmp_path / "d", 3)) == []


def test_real_data(data: Path) -> None:
    dataset = find_cases(data / "membrane")
    reports = list(check(dataset))
    assert survey(dataset, reports) == reports
    assert all(row.shape == (512, 512) and 60 < row.classes[1] < 90 and not row.remarks for row in table(dataset, reports))
