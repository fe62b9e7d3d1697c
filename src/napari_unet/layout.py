"""What lies where in a run's folder."""

from __future__ import annotations

from pathlib import Path

MODEL, RECORD, RESUME, LOG, SCORES, MASKS, EVENTS = (
    "model.safetensors", "run.json", "resume.safetensors", "log.csv", "scores.csv", "masks", "tensorboard",
)  # fmt: skip
FOLD = "fold_"  # and its number
REPORT = ("report.html", "report.png")
LOG_HEAD = "step,loss,rate,dice,seconds\n"
FOLDS_LOG_HEAD = f"fold,{LOG_HEAD}"  # of the log of all folds


def fold_folder(folder: Path, n: int) -> Path:
    """Where the run of one fold lies in the run of all."""
    return folder / f"{FOLD}{n}"


def folds_of(folder: Path) -> list[Path]:
    """The folders of the folds that lie in a folder, in the order of their numbers."""
    named = [(path.name.removeprefix(FOLD), path) for path in folder.glob(f"{FOLD}*")]
    numbered = [(int(number), path) for number, path in named if number.isdecimal()]
    return [path for _, path in sorted(numbered)]
