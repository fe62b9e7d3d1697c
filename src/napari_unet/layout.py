"""What lies where in a run's folder."""

from __future__ import annotations

from pathlib import Path

from napari_unet.errors import UNetError

MODEL, RECORD, RESUME, LOG, SCORES, MASKS, EVENTS = (
    "model.safetensors", "run.json", "resume.safetensors", "log.csv", "scores.csv", "masks", "tensorboard",
)  # fmt: skip
FOLD = "fold_"  # and its number
REPORT = ("report.html", "report.png")
LOG_HEAD = "step,loss,rate,dice,seconds\n"
FOLDS_LOG_HEAD = f"fold,{LOG_HEAD}"  # of the log of all folds
MASK_ENDING = ".nii.gz"
LONGEST = 255 - len(MASK_ENDING)  # bytes that a mask's name may have before it: many disks take 255 in all


def check_case_name(name: str, where: str | Path) -> None:
    """UNetError for a name of a case that cannot be its mask's, or that would lead out of the folder of masks."""
    odd = name in ("", ".", "..") or Path(name).name != name or any(x in "/\0" or "\ud800" <= x <= "\udfff" for x in name)
    if odd or len(name.encode()) > LONGEST:
        raise UNetError(where, f"the case {name[:60]!r} has a name that no mask's file can have",
                        f"Name it without slashes, in at most {LONGEST} bytes")  # fmt: skip


def mask_file(folder: Path, case: str, masks: str = MASKS) -> Path:
    """Where a run keeps a case's mask. UNetError for a name that leads elsewhere, whoever wrote it: a data set, or a record."""
    check_case_name(case, folder)
    return folder / masks / f"{case}{MASK_ENDING}"


def fold_folder(folder: Path, n: int) -> Path:
    """Where the run of one fold lies in the run of all."""
    return folder / f"{FOLD}{n}"


def folds_of(folder: Path) -> list[Path]:
    """The folders of the folds that lie in a folder, in the order of their numbers."""
    named = [(path.name.removeprefix(FOLD), path) for path in folder.glob(f"{FOLD}*")]
    numbered = [(int(number), path) for number, path in named if number.isdecimal()]
    return [path for _, path in sorted(numbered)]
