"""Which cases a model learns from, and which are kept out to score it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_unet.dataset import Case, read_image
from napari_unet.errors import UNetError
from napari_unet.layout import check_case_name
from napari_unet.schema import STRICT, encode
from napari_unet.settings import TrainConfig

SCORED_FROM = 25  # cases: fewer all train, unless a score is asked for
FOLDS = 5
MOST_KEPT_OUT = 40  # enough for a score; the others had better train
GAP, LEAST_GAP, LEAST_HALF = 1 / 8, 4, 8  # between halves: a share of the axis, voxels; and of a half, voxels


@dataclass(frozen=True)
class Split:
    """Which cases train and which are kept out to score the model; every fold, so that others can be trained alike.

    Of several models, each with a fold kept out, all cases train and all are scored.
    """

    __pydantic_config__ = STRICT

    folds: tuple[tuple[str, ...], ...]
    training: tuple[str, ...]
    kept_out: tuple[str, ...]
    independent: bool

    @property
    def sha256(self) -> str:
        """A fingerprint of the split."""
        return hashlib.sha256(encode(self).encode()).hexdigest()


def several(config: TrainConfig) -> bool:
    """Whether a model per fold is asked for, and not one."""
    return (config.folds or 1) > 1 and config.fold is None


def split_cases(names: Sequence[str], config: TrainConfig, groups: Mapping[str, str] | None = None) -> Split:
    """Shuffle by the seed, take `config.cases` of them, cut into folds, and keep out what the settings say.

    Cases that `groups` gives one group are in one fold: no copy of a case that trains is scored.

    `fold` keeps that one of `folds` (5) out; with fewer cases than folds each is a fold of its own. `folds` alone is a
    model per fold; one fold is all cases, none kept out. With neither, one part in five, at most 40 cases, is kept out of
    25 cases or more, and none of fewer: in a small set every case counts, and a schedule that ends at zero needs no validation.
    """
    chosen = _drawn(names, config)
    everything = tuple(sorted(chosen))
    if _all_train(len(chosen), config):
        return Split((), everything, (), False)
    units = _units(chosen, groups)
    if config.folds is None and config.fold is None:
        count = min(max(FOLDS, -(-len(chosen) // MOST_KEPT_OUT)), len(units))
    else:
        count = min(config.folds or FOLDS, len(units))
    if count < 2:
        what = "a single case" if len(chosen) == 1 else f"{len(chosen)} cases that share their voxels"
        raise UNetError("--folds", f"{what} cannot be kept out and trained on",
                        f"Use {honest_score(chosen, groups)}, which cuts one into halves")  # fmt: skip
    fold = config.fold or 0
    if fold >= count:
        raise UNetError("--fold", f"{fold} of {count} folds", f"Use 0 to {count - 1}")
    folds = _dealt(units, count)
    if several(config):
        return Split(folds, everything, everything, True)
    return Split(folds, tuple(name for name in everything if name not in folds[fold]), folds[fold], True)


def _dealt(units: list[list[str]], count: int) -> tuple[tuple[str, ...], ...]:
    """So many folds, each unit in the one that has the fewest cases; of folds alike a single case takes the first, a group the last."""
    folds: list[list[str]] = [[] for _ in range(count)]
    for unit in sorted(units, key=len, reverse=True):
        smallest = min(range(count), key=lambda n: (len(folds[n]), n if len(unit) == 1 else -n))
        folds[smallest] += unit
    return tuple(tuple(sorted(fold)) for fold in folds)


def check_fold(config: TrainConfig) -> None:
    """UNetError for a part that is not among those asked for."""
    count = config.folds or FOLDS
    if config.fold is not None and config.fold >= count > 1:
        raise UNetError("--fold", f"{config.fold} of {count} folds", f"Use 0 to {count - 1}")


def _all_train(count: int, config: TrainConfig) -> bool:
    """Whether none of so many cases is kept out. Raises UNetError for a part of one part."""
    if config.folds == 1 and config.fold is not None:
        raise UNetError("--fold", f"{config.fold} of 1 part, which is all cases", "Use at least --folds 2, or leave --fold out")
    return config.folds == 1 or (config.folds is None and config.fold is None and count < SCORED_FROM)


def _drawn(names: Sequence[str], config: TrainConfig) -> list[str]:
    order = np.random.default_rng((config.seed, 2)).permutation(len(names))
    return [names[i] for i in order][: config.cases]


def _units(names: Sequence[str], groups: Mapping[str, str] | None) -> list[list[str]]:
    """The names that have to stay together, in the order of the first of each."""
    together: dict[str, list[str]] = {}
    for name in names:
        together.setdefault((groups or {}).get(name, name), []).append(name)
    return list(together.values())


def groups_in(cases: Iterable[Case]) -> dict[str, str]:
    """The group of each case by its name; a case on its own is one."""
    return {case.name: case.group or case.name for case in cases}


def honest_score(names: Sequence[str], groups: Mapping[str, str] | None = None) -> str:
    """The flags with which all these cases are scored by models that never saw them, as in "--folds 5"."""
    units = len(_units(names, groups))
    return f"--folds {min(FOLDS, units)}" if units > 1 else "--folds 2" + " --cases 1" * (len(names) > 1)


def arrange(cases: tuple[Case, ...], config: TrainConfig) -> tuple[dict[str, Case], Split]:
    """The cases by name, and their split; a single case that is to be split is two cases, its halves.

    Raises UNetError for a fold that is not there, for a single case that is too thin to be halved, and for a name that the mask of a
    case that is kept out cannot have, before any work.
    """
    by_name = {case.name: case for case in cases}
    chosen = _drawn(sorted(by_name), config)
    if len(chosen) == 1 and not _all_train(1, config):
        if (config.folds or FOLDS) != 2:
            raise UNetError("--folds", f"{config.folds or FOLDS} parts of a single case", "Use --folds 2, which cuts it into halves")
        by_name = {half.name: half for half in halves(by_name[chosen[0]])}
        config = replace(config, cases=None)
    split = split_cases(sorted(by_name), config, groups_in(cases))
    for name in split.kept_out:
        check_case_name(name, by_name[name].label or name)
    return by_name, split


def halves(case: Case) -> tuple[Case, Case]:
    """Two cases of one volume: cut across its longest axis (in mm) with enough voxels, an eighth of it between them in neither.

    Neighbouring voxels are nearly copies: structures go on across a cut, and noise and blur reach over it. Without a gap
    the scored half would begin with what the model has all but seen, and its score would be flattered. An eighth is far
    beyond any blur, and leaves seven parts in eight to learn from. Raises UNetError for a volume that is too thin.
    """
    image = read_image(case)
    for axis in sorted(range(3), key=lambda a: -image.shape[a] * image.spacing[a]):
        size = image.shape[axis]
        half = (size - max(LEAST_GAP, round(GAP * size))) // 2
        if half >= LEAST_HALF:
            places = ((axis, 0, half), (axis, size - half, size))
            first, second = (replace(case, name=f"{case.name}_half{n}", part=part) for n, part in enumerate(places, 1))
            return first, second
    raise UNetError(image.source, f"its shape is {image.shape}: too thin to be cut into halves",
                    f"Give a volume of at least {2 * LEAST_HALF + LEAST_GAP} voxels along some axis, or more cases")  # fmt: skip


def words(names: Sequence[str], config: TrainConfig, groups: Mapping[str, str] | None = None) -> str:
    """What becomes of the cases, in a sentence or two."""
    names = sorted(names)
    chosen = _drawn(names, config)
    count = len(chosen)
    if _all_train(count, config):
        every = f"All {count} cases train" if count > 1 else "The one case trains"
        why = "as asked for" if config.folds == 1 else "in a small set every case counts"
        advice = honest_score(chosen, groups)
        return f"{every} and none is kept out, so nothing is scored: {why}. For an honest score: {advice}."
    alike = sum(len(unit) for unit in _units(chosen, groups) if len(unit) > 1)
    twins = f" The {alike} cases that share voxels or masks with others stay with them on one side." if alike else ""
    if config.folds is None and config.fold is None:
        kept_out = len(split_cases(names, config, groups).kept_out)
        return f"{kept_out} of {count} cases are kept out of training, to score the model.{twins}"
    if count == 1:
        both = "Two models, each trained on one half of the volume and scored on the other; together they are the product."
        return both if several(config) else "One half of the volume trains, the other is kept out, to score the model."
    folds = len(split_cases(names, replace(config, fold=0), groups).folds)
    parts = f"{folds} parts" + ", as many as there are" * (folds < (config.folds or 0))
    if several(config):
        return (f"One model for each of {parts}, scored on the part that it never saw: every case is scored once, and the "
                f"models together are the product.{twins}")  # fmt: skip
    return f"Part {config.fold} of {parts} is kept out of training, to score the model.{twins}"
