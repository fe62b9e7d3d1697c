"""Several networks that answer as one: trained apart, kept in one file or in the folders of their folds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet import weights
from napari_unet.calibration import Calibration
from napari_unet.errors import UNetError
from napari_unet.layout import MODEL, folds_of
from napari_unet.spec import MAX_MEMBERS, ModelSpec

if TYPE_CHECKING:  # see `weights`
    import numpy as np
    from numpy.typing import NDArray

Member = dict[str, "NDArray[np.float32]"]


def files_of(model: str | Path) -> list[Path]:
    """The weights files of a model: one, or where a folder has none of its own, those of the folds in it."""
    folds = [path / MODEL for path in folds_of(Path(model)) if (path / MODEL).exists()] if Path(model).is_dir() else []
    return folds if folds and not (Path(model) / MODEL).exists() else [weights.find(model)]


def checksum(model: str | Path) -> str:
    """What tells a model from others: its file's checksum, or one over those of its folds' files."""
    each = [weights.checksum(path) for path in files_of(model)]
    return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()


def load(model: str | Path) -> tuple[ModelSpec, list[Member]]:
    """A model, and the tensors of each member: a file, a run, a shipped model's name, or the folder of folds not yet joined."""
    return load_together(files_of(model))


def load_together(paths: Sequence[Path]) -> tuple[ModelSpec, list[Member]]:
    """The members of all these files, and the one specification of all.

    Raises UNetError where specifications differ, naming the field, and where there are more members than a file may have.
    """
    loaded = [(path, *weights.load(path)) for path in paths]
    members = [member for _, spec, tensors in loaded for member in weights.divide(tensors, spec.members)]
    first, spec, _ = loaded[0]
    for path, other, _ in loaded[1:]:
        if name := _difference(spec, other):
            raise UNetError(path, f"its {name} is {_short(other, name)}, that of {first} is {_short(spec, name)}",
                            "Join models that were trained alike")  # fmt: skip
    check_count(len(members), paths[0].parent)
    return replace(spec, members=len(members)), members


def calibration(model: str | Path, precision: str = "int8") -> Calibration:
    """What the model needs in order to run in this precision. Raises UNetError where it has none."""
    if precision != "int8":
        raise UNetError("precision", f"there is no {precision!r}", "Use float32 or int8")
    path, *others = files_of(model)
    found = None if others else weights.read_calibration(path)
    if found is None:
        raise UNetError(model, "it is not calibrated for int8", "Run napari-unet calibrate with it" + " once joined" * bool(others))
    return found


def check_count(members: int, where: str | Path) -> None:
    """UNetError for more members than a file may have."""
    if members > MAX_MEMBERS:
        raise UNetError(where, f"{members} members", f"An ensemble has at most {MAX_MEMBERS}: use fewer folds")


def _difference(one: ModelSpec, two: ModelSpec) -> str:
    """The first field in which two models differ, as in "network.features"; "" where there is none."""
    for field in fields(ModelSpec):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if field.name == "network" and a != b:
            return "network." + next(f.name for f in fields(a) if getattr(a, f.name) != getattr(b, f.name))
        if field.name not in ("name", "members") and a != b:
            return field.name
    return ""


def _short(spec: ModelSpec, name: str) -> str:
    value: Any = spec
    for part in name.split("."):
        value = getattr(value, part)
    return str(value)[:120]
