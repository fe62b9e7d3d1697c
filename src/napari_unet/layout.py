"""What lies where in a run's folder."""

from __future__ import annotations

from pathlib import Path

MODEL, RECORD, RESUME, LOG, SCORES, MASKS, EVENTS = (
    "model.safetensors", "run.json", "resume.safetensors", "log.csv", "scores.csv", "masks", "tensorboard",
)  # fmt: skip
REPORT = ("report.html", "report.png")
LOG_HEAD = "step,loss,rate,dice,seconds\n"
FOLDS_LOG_HEAD = f"fold,{LOG_HEAD}"  # of the log of all folds


def folds_of(folder: Path) -> list[Path]:
    """The folders of the folds that lie in a folder, in order."""
    numbered = [(int(path.name[5:]), path) for path in folder.glob("fold_*") if path.name[5:].isdecimal()]
    return [path for _, path in sorted(numbered)]
