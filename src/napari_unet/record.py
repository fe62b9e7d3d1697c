"""What a run leaves in its folder, and the record that makes it repeatable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from napari_unet import __version__, files
from napari_unet.card import Card, ScoredBy
from napari_unet.dataset import Case
from napari_unet.errors import UNetError
from napari_unet.fingerprint import changed, of_files
from napari_unet.layout import EVENTS, LOG, MASKS, MODEL, RECORD, REPORT, RESUME, SCORES, folds_of, mask_file
from napari_unet.schedule import Schedule
from napari_unet.schema import STRICT, decode, encode
from napari_unet.settings import ALL_LABELLED, LabelRule, TrainConfig
from napari_unet.spec import ModelSpec
from napari_unet.splits import Split


@dataclass(frozen=True)
class Record:
    """What makes a run repeatable; RUN/run.json."""

    __pydantic_config__ = STRICT

    spec: ModelSpec
    config: TrainConfig
    split: Split
    schedule: Schedule
    card: Card
    images: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    sha256: dict[str, str] = field(default_factory=dict)  # of the voxels of cases that are trained on
    files: dict[str, str] = field(default_factory=dict)  # what tells those of the cases that are kept out from others
    rule: LabelRule = ALL_LABELLED  # by which all masks are read
    parts: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # of the cases that are a part of a volume

    def case(self, name: str) -> Case:
        """One of its cases, where its files were when it was trained. Raises UNetError where the record does not say."""
        if name not in self.images or name not in self.labels:
            raise UNetError(name, f"{RECORD} does not say where it is", "Look for it in the data set")
        images, label = tuple(map(Path, self.images[name])), Path(self.labels[name])
        return Case(name, images, label, self.rule, self.parts.get(name))


def begin(folder: Path, record: Record, save_start: Callable[[Path], None] | None = None) -> None:
    """Remove an earlier run's files, its record first and nothing else; then write the new record, last of all.

    `save_start` writes the state of step 0 where the seed does not give it, so that resuming needs no other file.
    """
    text = encode(record).encode()
    clear(folder)
    if save_start is not None:
        save_start(folder / RESUME)
    files.write_bytes(folder / RECORD, text)


def clear(folder: Path) -> None:
    """Remove a run's files, its record first, and its folds'; what is not a run's stays, also among the masks."""
    masks = list(_masks(folder))
    for name in (RECORD, RESUME, MODEL, LOG, SCORES, *REPORT):
        (folder / name).unlink(missing_ok=True)
    for path in (folder / EVENTS).glob("events.out.tfevents.*"):
        path.unlink(missing_ok=True)
    for path in masks:
        with contextlib.suppress(OSError):  # a folder of that name is none of the run's
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # what else lies in it stays
        (folder / MASKS).rmdir()
    for fold in folds_of(folder):
        clear(fold)
        with contextlib.suppress(OSError):  # what else lies in it stays
            fold.rmdir()


def _masks(folder: Path) -> Iterator[Path]:
    """Those that a run made, as its record has it; none where there is no record that can be read."""
    with contextlib.suppress(UNetError, OSError):
        for name in read_record(folder).split.kept_out:
            yield mask_file(folder, name)


def new_record(
    spec: ModelSpec, config: TrainConfig, split: Split, schedule: Schedule, card: Card, by_name: dict[str, Case],
    reasons: tuple[str, ...],
) -> Record:  # fmt: skip
    """The record of a run that begins; the card is completed with its cases and how they will be scored."""
    used = sorted({*split.training, *split.kept_out})
    parts = {name: part for name in used if (part := by_name[name].part)}
    scored_by: ScoredBy = "halves" if parts else "folds" if split.training == split.kept_out else "kept out"
    card = replace(
        card, cases_trained=len(split.training), cases_scored=len(split.kept_out), independent=split.independent,
        scored_by=scored_by if split.kept_out else "",
        split_sha256=split.sha256, steps=schedule.steps, created=datetime.now(UTC).date().isoformat(),
        versions={"napari-unet-monai": __version__} | {name: version(name) for name in ("torch", "monai")},
    )  # fmt: skip
    images = {name: tuple(str(path.resolve()) for path in by_name[name].images) for name in used}
    labels = {name: str(path.resolve()) for name in used if (path := by_name[name].label)}
    return Record(spec, config, split, schedule, card, images, labels, reasons, rule=by_name[used[0]].rule, parts=parts,
                  files={name: of_files(by_name[name].files) for name in split.kept_out})  # fmt: skip


def read_record(folder: Path) -> Record:
    """The record of the run in a folder. Raises UNetError where there is none, and for a damaged one."""
    path = folder / RECORD
    if not path.exists():
        raise UNetError(folder, f"no {RECORD} in it: there is no run to resume, nor to report",
                        "Give the folder of a training run, or begin one without --resume")  # fmt: skip
    return decode(Record, path.read_bytes(), str(path))


def check_start(record: Record, folder: Path) -> None:
    """UNetError where a run began with another model's weights, and they are not there any more."""
    if record.card.parent is not None and not (folder / RESUME).exists():
        raise UNetError(folder, f"no {RESUME} in it: the weights that it began with are lost", "Begin anew without --resume")


def check_present(record: Record, by_name: dict[str, Case], folder: Path) -> None:
    """UNetError where a case of the run is not in the data, or one that is kept out is another one now."""
    missing = [name for name in (*record.split.training, *record.split.kept_out) if name not in by_name]
    if missing:
        raise UNetError(folder, f"its case {missing[0]} is not in the data", "Resume with the data the run began with")
    other = next((name for name, known in record.files.items() if of_files(by_name[name].files) != known), None)
    if other is not None:
        raise changed(other, folder)
