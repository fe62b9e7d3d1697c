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
from runs import followed

from napari_unet import PlanChoices, UNetError, images, schema
from napari_unet.card import Parent
from napari_unet.crossval import learn
from napari_unet.evaluate import Score, confidence, read_scores, write_scores
from napari_unet.figures import overview
from napari_unet.layout import LOG, LOG_HEAD, MASKS, RECORD, SCORES, fold_folder, folds_of
from napari_unet.page import page
from napari_unet.record import read_record
from napari_unet.report import write_report
from napari_unet.results import Results
from napari_unet.spec import COLOURS, Label
from napari_unet.train import train


class Page(HTMLParser):
    """What a browser would show, and what it would fetch; every element has to be closed where it was opened."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.places: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [] if tag in self.EMPTY else [tag]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.places += [value or "" for name, value in attrs if name == "id"]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data + "\n"

    @property
    def pictures(self) -> list[str]:
        return [link for link in self.links if link.startswith("data:image/jpeg;base64,")]

    @property
    def sentence(self) -> str:
        """All words in one line."""
        return " ".join(self.words.split())


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
    text, picture = write_report(run)
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 300
        assert np.asarray(image.convert("L")).std() > 5
    return examined(text.read_text("utf-8"))


def examined(text: str) -> Page:
    """A page that stands alone."""
    assert text.startswith("<!doctype html>") and "url(" not in text and "@import" not in text and "http" not in text
    found = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(found.tags)
    assert {link[1:] for link in found.links if link not in found.pictures} <= set(found.places), "all others lead to places of the page"
    return found


def change(run: Path, **fields: object) -> None:
    """Other fields in run.json."""
    record = read_record(run)
    (run / RECORD).write_text(schema.encode(replace(record, **fields)))


def test_one_page_and_a_picture(run: Path) -> None:
    shown = reported(run)
    record = read_record(run)
    assert len(shown.pictures) == len(shown.places) == len(record.split.kept_out) == 3
    assert "over 3 cases kept out of training." in shown.sentence and "not independent" not in shown.words
    assert "Segments bright and dark in volumes with a mean Dice of" in shown.sentence and "95 % interval" in shown.sentence
    assert all(reason in shown.words for reason in record.reasons)
    assert all(name in shown.words for name in (*record.split.kept_out, "bright", "dark", "mean", "torch", "monai", "Not a medical device"))


def test_every_case_worst_first(copied: Path) -> None:
    values = {"worst": 0.1, "best": 0.9, "middle": 0.5, "nothing to find": None}
    record = read_record(copied)
    (name, *_) = record.split.kept_out
    write_scores(copied / SCORES, [Score(case, label, dice, 1.25, 0.5) for case, dice in values.items() for label in (1, 2)])
    change(copied, images=dict.fromkeys(values, record.images[name]), labels=dict.fromkeys(values, record.labels[name]))
    for case in values:
        shutil.copy(copied / MASKS / f"{name}.nii.gz", copied / MASKS / f"{case}.nii.gz")
    words = reported(copied).words.split("\n")
    places = [words.index(case) for case in ("worst", "middle", "best", "nothing to find")]
    assert places == sorted(places)
    assert words[places[0] + 1] == "0.100" and "1.25 (0.5)" in words and words[places[3] + 1] == "n/a"


@pytest.mark.parametrize("count", [1, 3])
def test_a_run_that_keeps_nothing_out_claims_no_score(tmp_path: Path, count: int) -> None:
    words = reported(finished(decathlon(tmp_path, count))).words
    assert "how well is not known" in words and "--folds" in words and "none was kept out" in words


@pytest.mark.parametrize("count", [1, 3])
def test_a_cross_validated_run(tmp_path: Path, count: int) -> None:
    folder = decathlon(tmp_path, count)
    list(learn(*planned(folder, steps=2, folds=2), out=folder / "run"))
    words = reported(folder / "run").words
    assert ("over 3 cases, each scored by a model that had not seen it" in words) == (count == 3)
    assert ("over the halves of one volume, each scored by a model that saw only the other half" in words) == (count == 1)
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
        shown = reported(folder / "run")
    assert "script" not in shown.tags and shown.words.count(name) >= 3
    assert case in shown.words and f"Because {name}." in shown.words


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
    followed(train(*planned(folder, steps=30, fold=0), out=folder / "run"), lambda p: p.phase == "training")
    shown = reported(folder / "run")
    assert "how well is not known" in shown.sentence and "stopped before it was scored" in shown.sentence and not shown.pictures


def test_many_steps_are_smoothed(copied: Path) -> None:
    rows = [f"{10 * n},{2 - n / 100 + 0.3 * (-1) ** n:.3f},1e-3,,{n}" for n in range(1, 100)] + ["500,,,0.75,600"]
    (copied / LOG).write_text("\n".join(["step,loss,rate,dice,seconds", *rows]) + "\n")
    reported(copied)
    results = Results.read(copied)
    training = next(a for a in overview(results.record.spec, (), results.logs[:1], []).axes if a.get_title() == "Training")
    noisy, mean = (np.abs(np.diff(line.get_ydata())).max() for line in training.get_lines())
    assert noisy > 0.5 and mean < 0.2


def test_no_number_is_invented(copied: Path) -> None:
    write_scores(copied / SCORES, [Score("a0", 1, None, 0, 0)])
    words = reported(copied).words
    assert "nan" not in words and "n/a" in words


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda run: (run / RECORD).write_text("{"), "not valid JSON"),
        (lambda run: (run / RECORD).unlink(), "no run.json in it"),
        (lambda run: (run / SCORES).write_text("case,dice\n1\n"), "no scores can be read"),
    ],
)
def test_a_run_that_cannot_be_understood(copied: Path, harm: object, words: str) -> None:
    harm(copied)  # type: ignore[operator]
    with pytest.raises(UNetError, match=words):
        write_report(copied)


def test_a_case_whose_files_are_gone_is_named_and_hides_no_other(copied: Path) -> None:
    first, *others = sorted((copied / MASKS).iterdir())
    first.unlink()
    shown = reported(copied)
    assert len(shown.pictures) == len(others) and len(shown.places) == len(others) + 1
    assert f"Not shown: {first}: cannot be read (No such file or directory)" in shown.sentence


# situations: what a run may have been


def situation(run: Path, scores: list[Score] | None, **changes: object) -> Page:
    """The page of other scores and another record."""
    record = read_record(run)
    split = {name: changes.pop(name) for name in ("training", "kept_out", "independent") if name in changes}
    change(run, split=replace(record.split, **split), **changes)
    (run / SCORES).unlink(missing_ok=True)
    if scores is not None:
        write_scores(run / SCORES, scores)
    results = Results.read(run)
    return examined(page(results, {case: results.slice_of(case) for case, _ in results.shown}))


def some(count: int, labels: tuple[int, ...] = (1, 2), dice: float = 0.8) -> list[Score]:
    """Scores that grow from case to case, of cases whose files nobody knows."""
    return [Score(f"case {n}", label, dice + 0.001 * n, 1, 1) for n in range(count) for label in labels]


def test_trained_on_all_cases_and_not_scored(copied: Path) -> None:
    found = situation(copied, None, training=("a", "b", "c"), kept_out=())
    assert "how well is not known" in found.sentence and "trained on all cases" in found.sentence and "n/a" in found.words
    assert "Scores per class" not in found.words and not found.pictures


def test_a_half_is_no_unseen_case(tmp_path: Path) -> None:
    """Of one volume, a half trains and the other is scored: what the card says, and the page, too."""
    data = decathlon(tmp_path / "data", 1, shape=(40, 24, 20))
    list(learn(*planned(data, steps=1, folds=2, fold=0), out=tmp_path / "run"))
    shown = reported(tmp_path / "run")
    assert "over a half of one volume, scored by a model that saw only the other half" in shown.sentence
    assert "The half was scored by a model that saw only the other one" in shown.sentence and "never saw" not in shown.sentence


def test_a_model_that_began_with_another_says_what_that_one_may_have_seen(copied: Path) -> None:
    record = read_record(copied)
    change(copied, card=replace(record.card, parent=Parent("base <1>", "0" * 64)))
    shown = reported(copied)
    assert "whether base <1>, which it began with, had seen them is not known here" in shown.sentence


def test_scored_by_folds(copied: Path) -> None:
    names = tuple(f"case {n}" for n in range(5))
    for n in range(5):
        (copied / f"fold_{n}").mkdir()
        shutil.copy(copied / LOG, copied / f"fold_{n}" / LOG)
    (copied / LOG).write_text("step,loss,rate,dice,seconds\n")
    found = situation(copied, some(5), training=names, kept_out=names, independent=False)
    assert "each scored by a model that had not seen it" in found.sentence and "rather too narrow" in found.sentence
    assert "5 lines: one per fold" in found.sentence and "not independent" not in found.sentence


def test_folds_are_in_the_order_of_their_numbers(copied: Path) -> None:
    """The eleventh is the last, not the third."""
    for n in (*range(10, -1, -1), "none"):
        (copied / f"fold_{n}").mkdir()
        (copied / f"fold_{n}" / LOG).write_text(f"{LOG_HEAD}{0 if n == 'none' else n + 1},0.5,0.001,,1.0\n")
    (copied / LOG).write_text(LOG_HEAD)
    assert folds_of(copied) == [fold_folder(copied, n) for n in range(11)] == [copied / f"fold_{n}" for n in range(11)]
    assert [log["loss"][0][0] for log in Results.read(copied).logs] == list(range(1, 12))


def test_one_case_kept_out_gives_no_interval(copied: Path) -> None:
    found = situation(copied, some(1))
    assert "with a mean Dice of 0.800 over 1 case kept out of training." in found.sentence
    assert "From a single case nothing follows" in found.sentence and "95 % interval 0" not in found.sentence


@pytest.mark.parametrize("count, words", [(3, "a first impression"), (40, "other scanners")])
def test_the_interval_is_told_and_explained(copied: Path, count: int, words: str) -> None:
    means = [0.8 + 0.001 * n for n in range(count)]
    low, high = confidence(means) or (0, 0)
    found = situation(copied, some(count))
    assert f"mean Dice of {np.mean(means):.3f} (95 % interval {low:.3f}–{high:.3f} ) over {count} cases" in found.sentence
    assert words in found.sentence and (count < 30 or "a first impression" not in found.sentence)


def test_many_cases_show_the_worst_and_the_best(copied: Path) -> None:
    found = situation(copied, some(30))
    assert "The 6 worst and the 2 best in pictures" in found.sentence and len(found.places) == 8 and "5 more" in found.sentence
    places = [found.sentence.rindex(f"case {n} Dice") for n in (0, 5, 28, 29)]
    assert places == sorted(places)
    assert "case 6 Dice" not in found.sentence


def test_a_class_in_no_case_is_not_available(copied: Path) -> None:
    found = situation(copied, [*some(4, (1,)), *(Score(f"case {n}", 2, None, 0, 0) for n in range(4))])
    cells = found.words.split("\n")
    assert cells[cells.index("dark", cells.index("max")) + 1 :][:6] == ["n/a"] * 5 + ["0"]


def test_fifty_classes_stay_readable(copied: Path) -> None:
    record = read_record(copied)
    labels = tuple(Label(n, f"structure {n}", COLOURS[n % 10]) for n in range(1, 51))
    spec = replace(record.spec, labels=labels, network=replace(record.spec.network, classes=51))
    found = situation(copied, some(12, tuple(range(1, 51))), spec=spec)
    assert "structure 1, structure 2, structure 3, structure 4, structure 5 and 45 more" in found.sentence
    assert all(f"structure {n}" in found.words.split("\n") for n in range(1, 51)) and "lowest classes" in found.words
    assert found.tags.count("th") < 200
    reported(copied)


def test_what_the_page_tells_of_the_run(copied: Path) -> None:
    record = read_record(copied)
    card = replace(record.card, command="napari-unet train 'a b' --out <c> --steps 2", data="Blocks & more", data_licence="CC0")
    found = situation(copied, some(3), card=replace(card, description="What it is"))
    assert card.command in found.sentence and "pre" in found.tags
    assert all(words in found.sentence for words in ("Blocks & more", "CC0", "What it is", "bottleneck", f"seed {record.config.seed}"))
    assert all(name in found.sentence for name in record.split.kept_out)


def test_from_another_place(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The data folder was given as a relative path, and somebody has changed the folder since."""
    folder = decathlon(tmp_path / "data", 3)
    monkeypatch.chdir(tmp_path)
    list(train(*planned(Path("data"), steps=1, fold=0), out=Path("run")))
    monkeypatch.chdir(folder)
    reported(tmp_path / "run")
    assert images.read_labels(next((tmp_path / "run" / MASKS).iterdir())).shape == (20, 24, 18)
