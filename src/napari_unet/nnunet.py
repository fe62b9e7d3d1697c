"""A trained-model folder of nnU-Net 2 -> one of our weights files, which answers as nnU-Net does (docs/nnunet.md)."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet import __version__, ensemble, files, weights
from napari_unet.card import Card, ScoredBy
from napari_unet.checkpoint import Checkpoint, Stored, opened
from napari_unet.errors import UNetError, understood
from napari_unet.network import parameter_shapes
from napari_unet.nnunet_network import own_names
from napari_unet.nnunet_plans import MAX_JSON, Dataset, Plans, model_spec, read_json
from napari_unet.spec import ModelSpec, NetworkSpec
from napari_unet.words import listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
FOLD = "fold_"
REMEDY = "Give the folder that holds plans.json, dataset.json and fold_0, as nnU-Net writes it"


@dataclass(frozen=True)
class Trained:
    """What a checkpoint says of its model, and its weights."""

    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    weights: dict[str, Stored]


def convert(
    folder: str | Path, out: str | Path, configuration: str = "", folds: Sequence[str] = (), command: str = "", canonical: bool = False
) -> tuple[ModelSpec, Card]:
    """Write a trained-model folder of nnU-Net 2 as one weights file, an ensemble of its folds; what it is, and its card.

    configuration : such as 3d_fullres; what the checkpoint says where it is not given. folds : their numbers, or "all" for the model of
    all cases; every numbered one by default. canonical : its images were turned to RAS before nnU-Net read them, as TotalSegmentator
    does: others are turned so, too. Raises UNetError naming what is missing, damaged, or not read: nothing is written then.
    """
    folder, out = Path(folder), Path(out)
    folder = folder.parent if folder.name.startswith(FOLD) else folder
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).exists():
            raise UNetError(folder, f"it holds no {name}", REMEDY)
    plans, dataset = read_json(folder / "plans.json", Plans), read_json(folder / "dataset.json", Dataset)
    plans = plans.turning() if canonical else plans
    paths = [_checkpoint(folder / f"{FOLD}{fold}") for fold in (folds or _folds(folder))]
    ensemble.check_count(len(paths), folder)
    spec, members, trainers = None, [], []
    for path in paths:
        with opened(path) as checkpoint:
            trained = _trained(checkpoint, path)
            own = model_spec(plans, dataset, configuration or trained.configuration, trained.mirror_axes, folder / "plans.json")
            spec = spec or own  # as in nnU-Net, where the first fold's axes are mirrored
            members.append(_tensors(checkpoint, trained, spec.network, path))
            trainers.append(trained.trainer)
    assert spec is not None
    spec = replace(spec, members=len(members))
    card = _card(folder, paths, spec, dataset, trainers[0], plans, command)
    weights.check_room(spec, out)
    files.make_folder(out.parent)
    weights.save(out, spec, card, weights.merge(members))
    return spec, card


def _folds(folder: Path) -> list[str]:
    """Those that have a checkpoint: the numbered ones, or where there is none the one of all cases."""
    names = [path.name.removeprefix(FOLD) for path in folder.glob(f"{FOLD}*") if any((path / name).exists() for name in CHECKPOINTS)]
    found = sorted((name for name in names if name.isdecimal()), key=int) or [name for name in names if name == "all"]
    if not found:
        raise UNetError(folder, "there is no fold with a checkpoint in it", REMEDY)
    return found


def _checkpoint(fold: Path) -> Path:
    for name in CHECKPOINTS:
        if (fold / name).exists():
            return fold / name
    raise UNetError(fold, f"it holds no {' or '.join(CHECKPOINTS)}", "Give --folds that were trained")


def _trained(checkpoint: Checkpoint, path: Path) -> Trained:
    """What a checkpoint says, checked as far as it is used."""
    content: Any = checkpoint.content if isinstance(checkpoint.content, dict) else {}
    tensors, axes, started = (content.get(key) for key in ("network_weights", "inference_allowed_mirroring_axes", "init_args"))
    trainer, configuration = content.get("trainer_name", ""), started.get("configuration", "") if isinstance(started, dict) else ""
    checks = {
        "network_weights": isinstance(tensors, dict) and all(isinstance(name, str) for name in tensors),
        "inference_allowed_mirroring_axes": axes is None
        or (isinstance(axes, tuple | list) and all(type(axis) is int and 0 <= axis <= 2 for axis in axes)),
        "trainer_name": isinstance(trainer, str) and len(trainer) <= 200,
        "init_args": isinstance(configuration, str),
    }
    for name, good in checks.items():
        if not good:
            raise UNetError(path, f"its {name} is {_shown(content.get(name))}", "Give a checkpoint that nnU-Net 2 saved")
    return Trained(trainer, configuration, tuple(axes or ()), own_names(tensors))


def _shown(value: Any) -> str:
    """Something of whatever a file holds, however large or deep it is."""
    try:
        return reprlib.repr(value)[:80]
    except RecursionError:
        return f"a {type(value).__name__}"


def _tensors(checkpoint: Checkpoint, trained: Trained, network: NetworkSpec, path: Path) -> dict[str, NDArray[np.float32]]:
    """The network's tensors. Raises UNetError where they do not fill it exactly."""
    found = {name: value.shape if isinstance(value, Stored) else None for name, value in trained.weights.items()}
    expected = parameter_shapes(network)
    if found != expected:
        name = next(n for n in (*expected, *found) if expected.get(n) != found.get(n))
        raise UNetError(path, f"the tensor {name[:80]} has shape {found.get(name)}, the network of the plans needs {expected.get(name)}",
                        f"Give the plans that it was trained with; another trainer's network ({trained.trainer}) is not read")  # fmt: skip
    return {name: checkpoint.tensor(trained.weights[name]) for name in expected}


def _card(folder: Path, paths: list[Path], spec: ModelSpec, dataset: Dataset, trainer: str, plans: Plans, command: str) -> Card:
    """What nnU-Net tells of the model, and its scores of what each fold kept out, where it has any."""
    folds = [path.parent.name.removeprefix(FOLD) for path in paths]
    told = f"nnU-Net: {trainer}, {plans.plans_name}, {spec.name}, {'folds' if len(folds) > 1 else 'fold'} {listed(folds, 32)}"
    scored = {path: _scores(path.parent / "validation" / "summary.json", spec) for path in paths}
    cases = [case for each in scored.values() for case in each]
    whole = all(scored.values())
    dice = {label.name: _mean([case[n] for case in cases]) for n, label in enumerate(spec.labels)} if whole else {}
    by: ScoredBy = "folds" if len(paths) > 1 else "kept out"
    dice = {name: value for name, value in dice.items() if not math.isnan(value)}
    return Card(
        description=f"Converted from {told} ({', '.join(sorted({path.name for path in paths}))})", data=plans.dataset_name,
        cases_scored=len(cases) if dice else 0, independent=bool(dice), scored_by=by if dice else "unknown",
        dice=dice | {"mean": _mean(list(dice.values()))} if dice else {}, note="Scored in nnU-Net's cross-validation." if dice else "",
        command=command, created=datetime.now(UTC).date().isoformat(), versions={"napari-unet-monai": __version__},
    )  # fmt: skip


def _scores(path: Path, spec: ModelSpec) -> list[list[float]]:
    """Dice of each class, case by case, in nnU-Net's summary of a fold; nothing where there is none. NaN: it was not there."""
    if not path.exists():
        return []
    with understood(path, "nnU-Net's scores", "Remove it, or fetch the model again"), files.reading(path):
        with open(path, "rb") as file:
            cases = json.loads(file.read(MAX_JSON))["metric_per_case"]
        return [[float(case["metrics"][str(value)]["Dice"]) for value in spec.values] for case in cases]


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
