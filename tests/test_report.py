"""The report: one page that stands alone, names every case, the worst first, and says what its scores are worth."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from datasets import _one_thread, decathlon, nnunet, planned, scan, two_folders, write_pair  # noqa: F401 - a fixture
from hostile import affine_for
from PIL import Image

from napari_unet import PlanChoices, UNetError, nifti, schema
from napari_unet.crossval import learn
from napari_unet.evaluate import Score, read_scores, write_scores
from napari_unet.record import LOG, MASKS, RECORD, SCORES, Record
from napari_unet.report import write_report
from napari_unet.train import train


class Page(HTMLParser):
    """What a browser would show, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data + "\n"


def finished(folder: Path, choices: PlanChoices | None = None, **config: object) -> Path:
    """A run of two steps."""
    list(train(*planned(folder, choices, **{"steps": 2} | config), out=folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(decathlon(tmp_path_factory.mktemp("data"), 6), folds=2, fold=0)


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def reported(run: Path) -> Page:
    page, picture = write_report(run)
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 300
        assert np.asarray(image.convert("L")).std() > 5
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    return Page(text)


def change(run: Path, **fields: object) -> None:
    """Other fields in run.json."""
    record = schema.decode(Record, (run / RECORD).read_bytes(), "run")
    (run / RECORD).write_text(schema.encode(replace(record, **fields)))


def test_one_page_and_a_picture(run: Path) -> None:
    page = reported(run)
    (image,) = page.links
    assert image.startswith("data:image/png;base64,") and not {"script", "link", "iframe"} & set(page.tags)
    record = schema.decode(Record, (run / RECORD).read_bytes(), "run")
    assert "scored on 3 cases kept out of training" in page.words and "not independent" not in page.words
    assert all(reason in page.words for reason in record.reasons)
    assert all(name in page.words for name in (*record.split.kept_out, "bright", "dark", "mean", "torch", "monai", "Not a medical device"))


def test_every_case_worst_first(copied: Path) -> None:
    values = {"worst": 0.1, "best": 0.9, "middle": 0.5, "nothing to find": None}
    record = schema.decode(Record, (copied / RECORD).read_bytes(), "run")
    (name, *_) = record.split.kept_out
    write_scores(copied / SCORES, [Score(case, label, dice, 1.25, 0.5) for case, dice in values.items() for label in (1, 2)])
    change(copied, images=dict.fromkeys(values, record.images[name]), labels=dict.fromkeys(values, record.labels[name]))
    for case in values:
        shutil.copy(copied / MASKS / f"{name}.nii.gz", copied / MASKS / f"{case}.nii.gz")
    words = reported(copied).words.split("\n")
    places = [words.index(case) for case in ("worst", "middle", "best", "nothing to find")]
    assert places == sorted(places)
    assert words[places[0] + 1] == "0.100" and "1.25 (0.50)" in words and words[places[3] + 1] == "n/a"


@pytest.mark.parametrize("count", [1, 3])
def test_a_run_that_keeps_nothing_out_claims_no_score(tmp_path: Path, count: int) -> None:
    words = reported(finished(decathlon(tmp_path, count))).words
    assert "not scored: no case was kept out of training" in words and "--folds" in words
    assert "scored on" not in words and "None." in words


@pytest.mark.parametrize("count", [1, 3])
def test_a_cross_validated_run(tmp_path: Path, count: int) -> None:
    folder = decathlon(tmp_path, count)
    list(learn(*planned(folder, steps=2, folds=2), out=folder / "run"))
    words = reported(folder / "run").words
    assert ("scored on 3 cases, each by the one model of several that never saw it" in words) == (count == 3)
    assert ("scored on 2 halves of one volume" in words) == (count == 1)
    names = {score.case for score in read_scores(folder / "run" / SCORES)}
    assert len(names) == max(count, 2) and all(name in words for name in names)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a&b\"'", "$\\frac$ $x^2$", "脳 🧠", "n" * 200, "50 % _ \\ #"])
def test_names_are_shown_as_they_are(tmp_path: Path, name: str) -> None:
    case = name.replace("/", "|")
    folder = tmp_path / case[:100]
    for n, stem in enumerate((case, f"{case}2")):
        write_pair(folder / f"images/{stem}.nii.gz", folder / f"labels/{stem}.nii.gz", *scan(n))
    cases, spec, config = planned(folder)
    spec = replace(spec, labels=tuple(replace(label, name=name) for label in spec.labels))
    list(train(cases, spec, replace(config, steps=1, fold=0), out=folder / "run", reasons=(f"Because {name}.",)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = reported(folder / "run")
    assert "script" not in page.tags and page.words.count(name) >= 3
    assert case in page.words and f"Because {name}." in page.words


@pytest.mark.parametrize("kind", ["pictures", "colours", "channels", "thick slices", "a coronal slice", "a sagittal slice"])
def test_every_kind_of_image_can_be_shown(tmp_path: Path, kind: str) -> None:
    choices = PlanChoices(features=(4, 8), patch=(1, 16, 16), dims=2)
    if kind in ("pictures", "colours"):
        folder = two_folders(tmp_path, 2, ".png")
        if kind == "colours":
            for path in (folder / "images").iterdir():
                Image.open(path).convert("RGB").save(path)
    elif kind == "channels":
        folder, choices = nnunet(tmp_path, 2), None
    else:
        shape = {"thick slices": (20, 24, 6), "a coronal slice": (20, 1, 22), "a sagittal slice": (1, 24, 22)}[kind]
        spacing = tuple(9.0 if n < 10 else 1.0 for n in shape)
        folder = two_folders(tmp_path, 2, shape=shape, affine=affine_for("LAS", spacing))
    run = finished(folder, choices, fold=0)
    (case,) = (path.name.removesuffix(".nii.gz") for path in (run / MASKS).iterdir())
    assert case in reported(run).words


def test_a_run_that_was_stopped_is_reported_too(tmp_path: Path) -> None:
    folder = decathlon(tmp_path, 3)
    going = train(*planned(folder, steps=30), out=folder / "run")
    while next(going).phase != "training":
        pass
    going.close()
    assert "None." in reported(folder / "run").words


def test_many_steps_are_smoothed(copied: Path) -> None:
    rows = [f"{10 * n},{2 - n / 100},1e-3,,{n}" for n in range(1, 100)] + ["500,,,0.75,600"]
    (copied / LOG).write_text("\n".join(["step,loss,rate,dice,seconds", *rows]) + "\n")
    reported(copied)


def test_no_number_is_invented(copied: Path) -> None:
    write_scores(copied / SCORES, [Score("a0", 1, None, 0, 0)])
    words = reported(copied).words
    assert "nan" not in words and "n/a" in words


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda run: (run / RECORD).write_text("{"), "not valid JSON"),
        (lambda run: (run / RECORD).unlink(), "no run.json in it"),
        (lambda run: shutil.rmtree(run / MASKS), "cannot be read"),
    ],
)
def test_a_run_with_a_part_missing(copied: Path, harm: object, words: str) -> None:
    harm(copied)  # type: ignore[operator]
    with pytest.raises(UNetError, match=words):
        write_report(copied)


def test_from_another_place(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The data folder was given as a relative path, and somebody has changed the folder since."""
    folder = decathlon(tmp_path / "data", 3)
    monkeypatch.chdir(tmp_path)
    list(train(*planned(Path("data"), steps=1, fold=0), out=Path("run")))
    monkeypatch.chdir(folder)
    reported(tmp_path / "run")
    assert nifti.read_labels(next((tmp_path / "run" / MASKS).iterdir())).shape == (20, 24, 18)
