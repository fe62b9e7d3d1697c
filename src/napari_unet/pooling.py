"""Models trained apart become one file, and the scores of their folds one table: each case scored by the one that never saw it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from napari_unet import ensemble, files, images, weights
from napari_unet.card import UNFINISHED, Card
from napari_unet.components import keep_largest, pays
from napari_unet.dataset import Case, read_image, read_label
from napari_unet.errors import UNetError
from napari_unet.evaluate import Score, dice, mean_dice, read_scores, write_scores
from napari_unet.layout import FOLDS_LOG_HEAD, LOG, MASKS, MODEL, RECORD, SCORES, mask_file
from napari_unet.partial import labelled
from napari_unet.record import Record, read_record
from napari_unet.spec import ModelSpec
from napari_unet.splits import Split


@dataclass(frozen=True)
class Fold:
    """A finished run that kept a part of the cases out: its folder, its record, its scores."""

    folder: Path
    record: Record
    scores: tuple[Score, ...]

    def case(self, name: str) -> Case:
        """One of its cases, where its files were when it was trained."""
        return self.record.case(name)


def read_fold(folder: Path) -> Fold | None:
    """The run in a folder; None where there is none, where it is not finished, or kept nothing out."""
    if not all((folder / name).exists() for name in (RECORD, SCORES, MODEL)):
        return None
    return Fold(folder, read_record(folder), tuple(read_scores(folder / SCORES)))


def folds_of_one_split(folders: Sequence[Path]) -> list[Fold]:
    """The folds in these folders, where all are of one split and no case was kept out twice; else none."""
    folds = [fold for folder in folders if (fold := read_fold(folder))]
    kept_out = Counter(name for fold in folds for name in fold.record.split.kept_out)
    alike = len({fold.record.split.folds for fold in folds}) == 1 and max(kept_out.values(), default=0) == 1
    return folds if alike and len(folds) == len(folders) else []


def join(sources: Sequence[str | Path], out: str | Path, command: str = "") -> tuple[Card, list[str]]:
    """Write the ensemble of all models of `sources` (runs, their folds, files) to `out`; its card, and what was decided.

    Where the sources are folds of one split, their scores are pooled onto the card and into OUT_scores.csv, and
    the classes of which only the largest component is kept are chosen. Raises UNetError for models that differ, for too
    many, for a single one, and where the ensemble would take the place of one of them.
    """
    out = Path(out)
    paths = [path for source in sources for path in ensemble.files_of(source)]
    if len(paths) < 2:
        raise UNetError(paths[0], "it is alone: there is nothing to join it to", "Give several runs or weights files")
    twice = next((path for path in paths if [other.resolve() for other in paths].count(path.resolve()) > 1), None)
    if twice is not None:
        raise UNetError(twice, "it is given twice", "Give every model once")
    if out.resolve() in {path.resolve() for path in paths}:
        raise UNetError(out, "it is one of the models that are to be joined", "Choose another --out")
    spec, members = ensemble.load_together(paths)
    folds = folds_of_one_split([path.parent for path in paths])
    card = replace(_common([weights.read_card(path) for path in paths]), command=command, created=datetime.now(UTC).date().isoformat())
    reasons: list[str] = []
    if folds:
        spec, reasons = choose_components(spec, folds)
        reasons = [*_words_missing(folds), *reasons]
        card = scored(card, spec, folds, reasons)
    weights.check_room(spec, out)
    files.make_folder(out.parent)
    weights.save(out, spec, card, weights.merge(members))
    if folds:
        write_scores(scores_beside(out), pooled(folds))
    return card, reasons


def scores_beside(model: Path) -> Path:
    """Where `join` writes the pooled scores of a model."""
    return model.with_name(f"{model.stem}_scores.csv")


def _common(cards: Sequence[Card]) -> Card:
    """One card of several: texts that differ stand side by side, steps add up, and no score is taken over.

    That members are of runs that are not finished is taken over; `cases_trained` is of those that each saw alone.
    """

    def text(name: str) -> str:
        return "; ".join(dict.fromkeys(found for card in cards if (found := getattr(card, name))))

    unfinished = sum(card.note.startswith(UNFINISHED) for card in cards)
    note = f"Of its {len(cards)} models, {unfinished} {'is' if unfinished == 1 else 'are'} of a run that is not finished."
    return Card(description=text("description"), data=text("data"), data_licence=text("data_licence"), licence=text("licence"),
                cases_trained=max(card.cases_trained for card in cards), steps=sum(card.steps for card in cards),
                versions=cards[0].versions, scored_by="apart", note=note if unfinished else "")  # fmt: skip


def pooled(folds: Sequence[Fold]) -> list[Score]:
    """All scores, in the order of cases."""
    return sorted((score for fold in folds for score in fold.scores), key=lambda score: (score.case, score.label))


def pooled_log(folds: Sequence[Fold]) -> str:
    """The rows of all folds' logs, as far as they are there, each after the number of its fold."""
    logs = ((n, fold.folder / LOG) for n, fold in enumerate(folds))
    rows = ((n, row) for n, log in logs if log.exists() for row in log.read_text("utf-8").splitlines(keepends=True)[1:])
    return FOLDS_LOG_HEAD + "".join(f"{n},{row}" for n, row in rows)


def scored(card: Card, spec: ModelSpec, folds: Sequence[Fold], reasons: Sequence[str]) -> Card:
    """The card of an ensemble of folds: every case trained, and was scored by the member that never saw it."""
    kept_out = {name for fold in folds for name in fold.record.split.kept_out}
    everything = sorted(kept_out | {name for fold in folds for name in fold.record.split.training})
    table = mean_dice(pooled(folds), spec.labels)
    halves = any(fold.record.parts for fold in folds)
    return replace(
        card, cases_trained=len(everything), cases_scored=len(kept_out), independent=True,
        scored_by="halves" if halves else "folds", steps=sum(fold.record.schedule.steps for fold in folds),
        dice={name: round(value, 4) for name, value in table.items()}, note=" ".join(reasons),
        split_sha256=Split(folds[0].record.split.folds, tuple(everything), tuple(everything), True).sha256,
    )  # fmt: skip


def _words_missing(folds: Sequence[Fold]) -> list[str]:
    """That folds of the split are not among these, if so: what the scores are about is less than it seems."""
    split, there = folds[0].record.split.folds, {fold.record.split.kept_out for fold in folds}
    missing = [str(n) for n, names in enumerate(split) if names not in there]
    if not missing:
        return []
    which = f"{'fold' if len(missing) == 1 else 'folds'} {', '.join(missing)}"
    return [f"{len(split) - len(missing)} of {len(split)} folds: the cases of {which} were not scored."]


def choose_components(spec: ModelSpec, folds: Sequence[Fold]) -> tuple[ModelSpec, list[str]]:
    """Of which classes only the largest component is kept from now on: those that gain by it (see `components.pays`).

    It is asked of the masks that models made of cases they never saw, through the files that each run names. Since these
    are the cases that are scored, the scores are given without it. Halves of one volume are too few to ask.
    """
    if any(fold.record.parts for fold in folds):
        return spec, []
    cases = [fold.record.split.kept_out for fold in folds]
    chosen, reasons = list(spec.keep_largest), []
    cleaned = _dice_of_largest(folds)
    for label in spec.labels:
        before = {s.case: s.dice for fold in folds for s in fold.scores if s.label == label.value and s.dice is not None}
        after = before | {case: value for (case, number), value in cleaned.items() if number == label.value}
        if label.value not in chosen and pays(before, after, cases):
            chosen.append(label.value)
            means = [fmean(values.values()) for values in (before, after)]
            reasons.append(f"Of {label.name} only the largest component is kept: on the folds' masks this raises its mean Dice "
                           f"from {means[0]:.4f} to {means[1]:.4f}. It was chosen on the cases that are scored, so the scores "
                           "are without it.")  # fmt: skip
    return replace(spec, keep_largest=tuple(chosen)), reasons


def _dice_of_largest(folds: Sequence[Fold]) -> dict[tuple[str, int], float]:
    """(case, label) -> Dice of the largest component alone, where the mask has more than one."""
    found = {}
    for fold in folds:
        for name in fold.record.split.kept_out:
            mask, case = images.read_labels(mask_file(fold.folder, name)).data, fold.case(name)
            cleaned = {label.value: keep_largest(mask, [label.value]) for label in fold.record.spec.labels}
            changed = {value: kept for value, kept in cleaned.items() if (kept != mask).any()}
            truth = read_label(case, read_image(case)).data if changed else mask
            known = labelled(truth)  # as in the scores
            for value, kept in changed.items():
                score = dice((kept == value) & known, truth == value)
                if score is not None:
                    found[name, value] = score
    return found


def copy_masks(folds: Sequence[Fold], folder: Path) -> None:
    """Every case's mask into the folder's masks, each of the model that never saw it."""
    files.make_folder(folder / MASKS)
    for fold in folds:
        for name in fold.record.split.kept_out:
            files.write_bytes(mask_file(folder, name), mask_file(fold.folder, name).read_bytes())
