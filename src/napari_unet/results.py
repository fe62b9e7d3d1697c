"""What a run's folder tells: its record, scores, logs, and the slices worth showing."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_unet import images
from napari_unet.charts import Points
from napari_unet.dataset import read_image, read_label
from napari_unet.errors import UNetError
from napari_unet.evaluate import Score, by_case, read_scores
from napari_unet.figures import Slice
from napari_unet.layout import LOG, LOG_HEAD, SCORES, folds_of, mask_file
from napari_unet.record import Record, read_record

WORST, BEST = 6, 2  # cases that are shown
Scored = Literal["not", "kept out", "by folds", "halves", "on itself"]
Log = dict[str, Points]  # (step, value) pairs of loss, rate and dice


@dataclass(frozen=True)
class Results:
    """A run, finished, stopped, or joined from folds. logs : its own, and those of folds; scored : how the scores came about."""

    folder: Path
    record: Record
    scores: list[Score]
    logs: list[Log]
    scored: Scored

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Raises UNetError where the record or the scores cannot be read."""
        record = read_record(folder)
        scores = read_scores(folder / SCORES) if (folder / SCORES).exists() else []
        parts = [log for fold in folds_of(folder) if (log := fold / LOG).exists()]
        logs = [log for log in map(_read_log, (folder / LOG, *parts)) if log["loss"]]
        return cls(folder, record, scores, logs, _scored(record, scores, bool(parts)))

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Cases and their mean Dice, worst first; at the end those, with NaN, in which nothing was to be found, nor was."""
        return sorted(by_case(self.scores).items(), key=lambda pair: (math.isnan(pair[1]), pair[1]))

    @property
    def means(self) -> list[float]:
        """The cases' mean Dice, where they have one, worst first."""
        return [dice for _, dice in self.ranked if not math.isnan(dice)]

    @property
    def shown(self) -> list[tuple[str, float]]:
        """The worst cases and the best, or all of them where they are few."""
        ranked = self.ranked[: len(self.means)]
        return ranked if len(ranked) <= WORST + BEST else [*ranked[:WORST], *ranked[-BEST:]]

    def slice_of(self, case: str) -> Slice | UNetError:
        """The slice to show of a case, or why there is none: a report is worth having without a file that was moved."""
        try:
            files = self.record.case(case)
            image = read_image(files)
            mask = images.read_labels(mask_file(self.folder, case))
            return Slice.of(image, mask, read_label(files, image), self.record.spec)
        except UNetError as error:
            return error


def _scored(record: Record, scores: list[Score], folds: bool) -> Scored:
    if not scores:
        return "not"
    if record.card.scored_by == "halves":
        return "halves"
    if not {s.case for s in scores} & set(record.split.training):
        return "kept out"
    return "by folds" if folds or record.split.independent else "on itself"


def _read_log(path: Path) -> Log:
    """The log of one training; empty where there is none, or where it is that of all folds, which have their own."""
    text = path.read_text("utf-8") if path.exists() else ""
    rows = list(csv.DictReader(text.splitlines())) if text.startswith(LOG_HEAD) else []
    return {name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in ("loss", "rate", "dice")}
