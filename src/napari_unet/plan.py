"""From what a data set is to how it is learnt: spacing, patch, levels, normalisation, symmetry, budget; in words, too.

Follows nnU-Net's rules of planning (Isensee et al. 2021) where they suit small sets and small machines.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Literal

import numpy as np

from napari_unet import finetune, grid, splits
from napari_unet.checks import MAX_CLASSES, CaseFacts, groups_of
from napari_unet.dataset import Dataset
from napari_unet.description import not_followed
from napari_unet.errors import UNetError
from napari_unet.partial import words as words_of_rule
from napari_unet.schema import encode
from napari_unet.settings import ALL_LABELLED, PlanChoices, TrainConfig
from napari_unet.spec import COLOURS, Channel, Label, ModelSpec, NetworkSpec, axes_along
from napari_unet.words import counted, listed, shortened

UNRELATED = 8.0  # slices this many times farther apart than the plane's voxels do not help each other
CT_LOW = -500.0  # air, in Hounsfield units
VOXELS = {2: 256 * 256, 3: 48 * 64 * 48}  # of a training patch, for a laptop's processor
LEVELS = {2: 5, 3: 6}  # at most
SEPARATION = 0.08  # classes whose centres differ by this share of the extent tell one side of an axis from the other
LARGEST_FEATURES = 128


def plan(
    dataset: Dataset, facts: list[CaseFacts], choices: PlanChoices | None = None, config: TrainConfig | None = None,
    base: ModelSpec | None = None,
) -> tuple[ModelSpec, TrainConfig, list[str]]:  # fmt: skip
    """The model and the training for a set of cases, and the reasons, one sentence each.

    With `base`, the model that is fine-tuned: the plan takes over what its weights depend on, and `finetune.gentle()`
    is the config where none is given.

    Raises UNetError where a choice contradicts the data, the other choices or the base.
    """
    choices = choices or PlanChoices()
    config = config or (TrainConfig() if base is None else finetune.gentle())
    if config.cases is not None and config.cases > len(facts):
        raise UNetError("--cases", f"{config.cases} of {counted(len(facts), 'case')}", f"Use 1 to {len(facts)}")
    if base is not None:
        return _from_base(base, dataset, facts, choices, config)
    pictures = facts[0].picture
    order, words = grid.axes(facts, pictures)
    spacing = np.zeros(3) if pictures else grid.spacing(facts, order)
    size = grid.size(facts, order, spacing)
    dims, neighbours, reason = _dims(size, spacing, pictures, choices)
    spacing, coarser = _spacing(size, spacing, dims, dataset, facts, choices)
    size = grid.size(facts, order, spacing)
    patch, kernels, strides = _levels(size, spacing, dims, choices)
    labels = _labels(dataset, facts)
    channels = _channels(dataset, facts)
    features = choices.features or tuple(min(16 * 2**n, LARGEST_FEATURES if dims == 3 else 256) for n in range(len(strides)))
    network = NetworkSpec(
        dims=dims, channels=len(channels) * (2 * neighbours + 1), classes=len(labels) + 1, features=features,
        kernels=kernels, strides=strides, encoder_convs=(1,) + (2,) * (len(strides) - 1),
        decoder_convs=(1,) * (len(strides) - 1), skips=choices.skips,
    )  # fmt: skip
    mirror, mirrored = _mirror_axes(facts, order, pictures, dims)
    mirror = mirror if choices.mirror_axes is None else choices.mirror_axes
    cheap = _cheap_mirror(mirror, _seen_whole(size, patch, dims), pictures)
    spec = ModelSpec(
        name=dataset.folder.resolve().name[:200], network=network, channels=channels, labels=labels,
        orientation="".join("SAR"[a] for a in order) if not pictures else "SRA",
        spacing=tuple(float(s) for s in spacing), patch=patch, pictures=pictures, neighbours=neighbours,
        mirror_axes=mirror, mirror_tta=cheap if choices.mirror_tta is None else choices.mirror_tta,
    )  # fmt: skip
    last = [mirrored]
    last += ["Masks average what is seen in an image and in its mirror image."] * spec.mirror_tta
    last += ["No skip connections, as asked for."] * (not network.skips)
    return _complete(spec, config, size, dataset, facts, [*words, reason, *coarser], last)


def _complete(
    spec: ModelSpec, config: TrainConfig, size: np.ndarray, dataset: Dataset, facts: list[CaseFacts], first: list[str], last: list[str]
) -> tuple[ModelSpec, TrainConfig, list[str]]:
    """The plan with its budget, what it says of rule, grid, network and channels between its `first` reasons and its `last`."""
    encode(spec)  # what could not be written is refused before any work
    words = [*first, *words_of_rule(dataset.rule, [f.shape for f in facts], [f.labelled for f in facts])]
    words += [_words_spacing(spec), _words_network(spec, size), _words_channels(spec.channels), *last, *_words_rare(spec.labels, facts)]
    config, reason = _budget(config, _seen_whole(size, spec.patch, spec.network.dims))
    return spec, config, [*words, reason, splits.words([case.name for case in facts], config, groups_of(facts))]


def _seen_whole(size: np.ndarray, patch: tuple[int, ...], dims: int) -> bool:
    """Does a patch hold most of the median image?"""
    return bool(np.prod(size[3 - dims :]) <= 1.5 * np.prod(patch))


def _cheap_mirror(axes: tuple[int, ...], whole: bool, pictures: bool) -> bool:
    """Average over mirror images where that takes a moment: pictures, and volumes of one window with one such axis."""
    return bool(axes) and (pictures or (whole and len(axes) == 1))


def _from_base(
    base: ModelSpec, dataset: Dataset, facts: list[CaseFacts], choices: PlanChoices, config: TrainConfig
) -> tuple[ModelSpec, TrainConfig, list[str]]:
    """The plan for a model that learns on from `base`, of which only the classes and their symmetry are new."""
    finetune.refuse(base, len(facts[0].low), facts[0].picture, choices)
    labels = _labels(dataset, facts)
    if not dataset.labels and finetune.same_classes(base.labels, labels):
        labels = base.labels  # with their names
    order = axes_along(base.orientation)
    mirror, mirrored = _mirror_axes(facts, order, base.pictures, base.network.dims)
    if finetune.same_classes(base.labels, labels) and not set(mirror) <= set(base.mirror_axes):
        mirror = tuple(axis for axis in mirror if axis in base.mirror_axes)
        mirrored = f"Mirrored as {base.name} was: few new cases may not show that a class keeps to a side."
    spec = finetune.adopt(base, dataset.folder.resolve().name[:200], labels, mirror, choices)
    size = grid.size(facts, order, np.array(spec.spacing))
    return _complete(spec, config, size, dataset, facts, finetune.words(base, spec, dataset, config), [mirrored])


def _three(values: tuple[float, ...], name: str) -> tuple[float, ...]:
    if len(values) != 3:
        raise UNetError("plan", f"{name} is {values}", "Give three numbers, along z, y, x")
    return values


def _dims(
    size: np.ndarray, spacing: np.ndarray, pictures: bool, choices: PlanChoices
) -> tuple[Literal[2, 3], int, str]:
    """2-D or 3-D, how many slices on either side a 2-D network sees, too (2.5-D), and why."""
    if choices.dims == 3 and pictures:
        raise UNetError("--dims", "3 for pictures", "Use 2")
    if choices.neighbours and (pictures or choices.dims == 3):
        raise UNetError("--neighbours", f"{choices.neighbours} for {'pictures' if pictures else 'a 3-D network'}",
                        "Leave it out" if pictures else "Leave out one of --neighbours and --dims 3")  # fmt: skip
    if choices.neighbours:
        return 2, choices.neighbours, f"A 2.5-D network: slices with {choices.neighbours} on either side, as asked for."
    if choices.dims is not None:
        return choices.dims, 0, f"A {choices.dims}-D network, as asked for."
    if pictures:
        return 2, 0, "A 2-D network: the images are pictures."
    ratio = spacing[0] / spacing[1:].min()
    if size[0] < 12 and ratio > grid.ANISOTROPY:
        few = f"only {counted(round(size[0]), 'slice')}, {ratio:.1f} times coarser than the plane"
        if size[0] < 3 or ratio >= UNRELATED or choices.neighbours == 0:
            return 2, 0, f"A 2-D network: {few}."
        return 2, 1, f"A 2.5-D network: {few}, yet near enough to help: each is seen with the one before and the one behind."
    return 3, 0, "A 3-D network: neighbouring slices help each other."


def _spacing(
    size: np.ndarray, spacing: np.ndarray, dims: int, dataset: Dataset, facts: list[CaseFacts], choices: PlanChoices
) -> tuple[np.ndarray, list[str]]:
    """The model's spacing, 0 along the slices of a 2-D network, and why it is coarser than the images' where it is."""
    if choices.spacing is not None:
        chosen = np.array(_three(choices.spacing, "spacing"))
        if not (np.isfinite(chosen) & (chosen >= 0)).all():
            raise UNetError("plan", f"spacing is {choices.spacing}", "Give millimetres along z, y, x, or 0")
        if dims == 2 and chosen[0]:
            raise UNetError("plan", f"spacing is {choices.spacing}", "Give 0 along z: a 2-D network takes slices as they are")
        return chosen, []
    if dims == 2:
        return np.array([0, *spacing[1:]]), []
    if dataset.rule != ALL_LABELLED:  # single labelled slices might fall between coarser ones
        return spacing, []
    return grid.coarser(size, spacing, float(np.prod(choices.patch or VOXELS[3])), facts, dataset.labels)


def _levels(
    size: np.ndarray, spacing: np.ndarray, dims: int, choices: PlanChoices
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Patch, kernels and strides: an axis is halved while at least 4 voxels stay and its voxels are not the coarsest.

    A kernel is 1 along an axis until the others have become as coarse (nnU-Net's rule).
    """
    axes = [0, 1, 2] if dims == 3 else [1, 2]
    millimetres = np.where(spacing > 0, spacing, 1.0)
    if choices.patch is not None:
        patch = np.array(_three(choices.patch, "patch"), int)
    else:
        sides = np.maximum(np.ceil(size), [8 if dims == 3 else 1, 8, 8])
        sides[0] = sides[0] if dims == 3 else 1
        while np.prod(sides[axes]) > 1.01 * VOXELS[dims]:  # shrink what reaches farthest, in millimetres; equal axes stay equal
            reach = sides * millimetres
            sides[axes] = np.where(reach[axes] >= 0.98 * reach[axes].max(), 0.99 * sides[axes], sides[axes])
        patch = np.maximum(np.round(sides), 1).astype(int)
    voxel = millimetres[axes]
    remaining, kernels, strides = patch[axes].copy(), [], [(1,) * dims]
    kernels.append(tuple(3 if v <= 2 * voxel.min() else 1 for v in voxel))
    most = len(choices.features) if choices.features else LEVELS[dims]
    while len(strides) < most:
        stride = np.where((remaining >= 8) & (voxel <= 2 * voxel.min()), 2, 1)
        if stride.max() == 1:
            break
        remaining, voxel = np.ceil(remaining / stride), voxel * stride
        strides.append(tuple(int(s) for s in stride))
        kernels.append(tuple(3 if k == 3 or v <= 2 * voxel.min() else 1 for k, v in zip(kernels[-1], voxel, strict=True)))
    if len(strides) < max(2, len(choices.features or ())):
        raise UNetError("plan", f"a patch of {tuple(patch.tolist())} allows {len(strides)} levels",
                        f"Give a larger patch, or features for {'fewer' if len(strides) > 1 else 'at least 2'} levels")  # fmt: skip
    total = np.ones(3, int)
    total[axes] = np.prod(strides, axis=0)
    if choices.patch is None:
        patch = np.where(patch >= size, np.ceil(patch / total), np.maximum(np.round(patch / total), 1)).astype(int) * total
        while np.prod(patch[axes]) > VOXELS[dims]:
            farthest = axes[int(np.argmax((patch * millimetres * (patch > total))[axes]))]
            patch[farthest] -= total[farthest]
    return tuple(int(n) for n in patch), tuple(kernels), tuple(strides)


def _labels(dataset: Dataset, facts: list[CaseFacts]) -> tuple[Label, ...]:
    values = sorted(set(dataset.labels) | {v for f in facts for v in f.voxels})
    if len(values) > MAX_CLASSES:
        raise UNetError(dataset.folder, f"{len(values):,} classes", f"Use at most {MAX_CLASSES}")
    return tuple(
        Label(v, dataset.labels.get(v, f"class {v}"), COLOURS[n % len(COLOURS)]) for n, v in enumerate(values)
    )


def _channels(dataset: Dataset, facts: list[CaseFacts]) -> tuple[Channel, ...]:
    channels = []
    for index in range(len(facts[0].low)):
        name = dataset.channels[index] if index < len(dataset.channels) else f"channel {index}"
        lows = np.array([f.low[index] for f in facts])
        if name.upper() == "CT" or np.median(lows) < CT_LOW:
            values = np.concatenate([f.foreground[index] for f in facts])
            low, high = (float(q) for q in np.percentile(values, (0.5, 99.5)))
            clipped = np.clip(values, low, high)
            channels.append(Channel(name, "clip", low, max(high, low + 1), float(clipped.mean()), float(clipped.std()) or 1.0))
        else:
            channels.append(Channel(name))
    return tuple(channels)


def _mirror_axes(facts: list[CaseFacts], order: list[int], pictures: bool, dims: int) -> tuple[tuple[int, ...], str]:
    """Axes along which classes do not tell one side from the other; mirroring the others makes the task needlessly hard."""
    signed: dict[tuple[int, int], list[np.ndarray]] = {}
    where = {v: np.array([f.centroids[v] for f in facts if v in f.centroids]) for v in sorted({v for f in facts for v in f.centroids})}
    for a, b in combinations(where, 2):
        together = [np.array(f.centroids[a]) - np.array(f.centroids[b]) for f in facts if {a, b} <= f.centroids.keys()]
        signed[a, b] = together or [where[a].mean(0) - where[b].mean(0)]  # classes that no case has both of, such as left and right knees
    separation = np.max([abs(np.mean(d, axis=0)) for d in signed.values()], axis=0) if signed else np.zeros(3)
    axes = [a for a in ([0, 1, 2] if dims == 3 else [1, 2]) if separation[order[a]] < SEPARATION]
    names = [("down-up", "back-front", "left-right")[order[a]] if not pictures else ("", "rows", "columns")[a] for a in axes]
    kept = "no axis" if not axes else " and ".join(names)
    return tuple(axes), f"Mirrored along {kept}: there, no class keeps to one side of another."


def _budget(config: TrainConfig, whole: bool) -> tuple[TrainConfig, str]:
    if config.steps is not None:
        return replace(config, minutes=None), f"{counted(config.steps, 'step')}, as asked for."
    if config.minutes is not None:
        return config, f"{counted(config.minutes, 'minute')}, as asked for."
    minutes = 10.0 if whole else 30.0
    return replace(config, minutes=minutes), f"{counted(minutes, 'minute')}: a patch holds {'most' if whole else 'a part'} of an image."


def _words_spacing(spec: ModelSpec) -> str:
    if spec.pictures:
        return "Pixels are taken as they are."
    mm = " x ".join("as is" if s == 0 else f"{s:.3g}" for s in spec.spacing)
    return f"Resampled to {mm} mm along {spec.orientation} where an image differs by more than 2 %."


def _words_network(spec: ModelSpec, size: np.ndarray) -> str:
    shape = " x ".join(str(n) for n in spec.patch[3 - spec.network.dims :])
    middle = " x ".join(f"{n:.0f}" for n in size[3 - spec.network.dims :])
    return (f"Patches of {shape} voxels (the median image has {middle}); "
            f"{len(spec.network.features)} levels of {', '.join(map(str, spec.network.features))} features.")  # fmt: skip


def _words_rare(labels: tuple[Label, ...], facts: list[CaseFacts]) -> list[str]:
    """Of classes that only one case of several has, what becomes of their score."""
    having = {label.name: [f.name for f in facts if label.value in f.voxels] for label in labels}
    rare = [f"{name} ({shortened(cases[0])})" for name, cases in having.items() if len(cases) == 1 < len(facts)]
    return [f"Found in one case alone: {listed(rare, 5)}. Where such a case is kept out nothing has learnt the class: "
            "it scores 0, and the mean is lower."] * bool(rare)  # fmt: skip


def _words_channels(channels: tuple[Channel, ...]) -> str:
    parts = [
        f"{c.name}: clipped to {c.low:.4g}..{c.high:.4g} as in CT" if c.scheme == "clip" else f"{c.name}: each image to mean 0, spread 1"
        for c in channels
    ]
    return ". ".join(["; ".join(parts), *(f"C{words[1:]}" for words in not_followed(c.name for c in channels))]) + "."
