"""Fine-tuning: a model that begins with another one's network and weights, and learns from there on new data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_unet import weights
from napari_unet.card import Card, Parent
from napari_unet.dataset import Dataset
from napari_unet.errors import UNetError
from napari_unet.fingerprint import of_tensors
from napari_unet.settings import PlanChoices, TrainConfig
from napari_unet.spec import Label, ModelSpec
from napari_unet.words import counted

RATE = 0.25  # of the usual one: what is known already is to be kept
HEAD = "decoder.seg_layers."  # the last layer, one for each scale; its tensors have a row per class
OPEN = ("patch", "mirror_axes", "mirror_tta")  # what a person may choose for a network that is there already
JOIN = " + "  # between the licences of a model's ancestors


@dataclass(frozen=True, eq=False)
class Base:
    """The model that is learnt on from: its spec, its card, and its tensors as float32; of an ensemble, those of its first member."""

    spec: ModelSpec
    card: Card
    tensors: Mapping[str, NDArray[np.float32]]

    @classmethod
    def load(cls, model: str | Path) -> Base:
        """Read a weights file (a path, a run's folder or the name of a shipped model). Raises UNetError."""
        path = weights.find(model)
        spec, tensors = weights.load(path)
        return cls(spec, weights.read_card(path), weights.divide(tensors, spec.members)[0])

    def start(self, spec: ModelSpec) -> dict[str, NDArray[np.float32]]:
        """What the network of `spec`, planned from this one, begins with.

        The last layer's rows follow the classes that both know (see `known`); the rows of new ones are zeros, so that
        the first steps fit them to features which they leave as they are (arXiv 2202.10054).
        """
        rows = known(self.spec.labels, spec.labels)
        return {name: _rows(value, rows) if name.startswith(HEAD) else value.copy() for name, value in self.tensors.items()}

    def derive(self, card: Card) -> Card:
        """The card of a model that is made of this one and new data: it says so, and what both ask of whoever uses it."""
        origin = f"{card.data or 'not stated'}; before that, for {self.spec.name}: {self.card.data or 'not stated'}"
        return replace(
            card, data=origin, parent=Parent(self.spec.name, of_tensors(self.tensors)),
            licence=_joined(self.card.licence, card.licence), data_licence=_joined(self.card.data_licence, card.data_licence),
        )  # fmt: skip


def _rows(value: NDArray[np.float32], rows: list[int | None]) -> NDArray[np.float32]:
    return np.stack([np.zeros_like(value[0]) if row is None else value[row] for row in rows])


def _joined(old: str, new: str) -> str:
    """Both licences, each once; what is not stated is said where the other is."""
    if not old and not new:
        return ""
    return JOIN.join(dict.fromkeys([*(old or "not stated").split(JOIN), *(new or "not stated").split(JOIN)]))


def known(old: tuple[Label, ...], new: tuple[Label, ...]) -> list[int | None]:
    """For each class index of a new model, background first, that of the old model's same class, or None.

    Classes are the same where all names are, in large letters or small, also on exchanged values; otherwise where all values
    are; otherwise where their names are. Background is the same where any other class is.
    """
    names = {label.name.casefold(): n for n, label in enumerate(old, 1)}
    if same_values(old, new) and sorted(names) != sorted(label.name.casefold() for label in new):
        index = {label.value: n for n, label in enumerate(old, 1)}
        return [0, *(index[label.value] for label in new)]
    rows = [names.get(label.name.casefold()) for label in new]
    return [0 if any(rows) else None, *rows]


def same_classes(old: tuple[Label, ...], new: tuple[Label, ...]) -> bool:
    """Do two models find the same structures, whatever values stand for them?"""
    return sorted(row or 0 for row in known(old, new)) == list(range(len(old) + 1))


def same_values(old: tuple[Label, ...], new: tuple[Label, ...]) -> bool:
    """Do two models find the same mask values?"""
    return {label.value for label in old} == {label.value for label in new}


def gentle(config: TrainConfig | None = None) -> TrainConfig:
    """The settings from which fine-tuning starts where nobody chooses others: a lower rate."""
    config = config or TrainConfig()
    return replace(config, rate=config.rate * RATE)


def refuse(base: ModelSpec, channels: int, pictures: bool, choices: PlanChoices) -> None:
    """UNetError where the data, or what a person chose, contradicts the model that is learnt on from."""
    if base.later:
        raise UNetError(base.name, "it looks at images as nnU-Net does, which training here does not",
                        "Train without --from, or from another model")  # fmt: skip
    without = "or train without --from"
    if base.pictures != pictures:
        kinds = ("volumes", "pictures")
        raise UNetError(base.name, f"it reads {kinds[base.pictures]}, the data are {kinds[pictures]}", f"Choose another model, {without}")
    if len(base.channels) != channels:
        names = ", ".join(channel.name for channel in base.channels)
        raise UNetError(base.name, f"it reads {counted(len(base.channels), 'channel')} ({names}), the data has {channels}",
                        f"Give its channels, {without}")  # fmt: skip
    for field in fields(PlanChoices):
        chosen = getattr(choices, field.name)
        is_now = getattr(base, field.name, getattr(base.network, field.name, None))
        if field.name not in OPEN and chosen not in (field.default, is_now):
            raise UNetError(f"--{field.name.replace('_', '-')}", f"{chosen} for {base.name}, whose {field.name} is {is_now}",
                            f"Leave it out, {without}")  # fmt: skip
    if choices.patch is not None and (len(choices.patch) != 3 or any(n % s for n, s in zip(choices.patch, base.stride, strict=True))):
        raise UNetError("--patch", f"{choices.patch} for {base.name}, whose stride is {base.stride}", "Use multiples of it")


def adopt(base: ModelSpec, name: str, labels: tuple[Label, ...], mirror_axes: tuple[int, ...], choices: PlanChoices) -> ModelSpec:
    """The new model: the old one's network, normalisation, spacing, orientation and patch, with the new data's classes."""
    mirror_axes = mirror_axes if choices.mirror_axes is None else choices.mirror_axes
    pairs = zip(labels, known(base.labels, labels)[1:], strict=True) if same_classes(base.labels, labels) else ()
    largest = tuple(label.value for label, row in pairs if row and base.labels[row - 1].value in base.keep_largest)
    return replace(
        base, name=name, labels=labels, members=1, keep_largest=largest, mirror_axes=mirror_axes,
        network=replace(base.network, classes=len(labels) + 1), patch=choices.patch or base.patch,
        mirror_tta=(base.mirror_tta and mirror_axes == base.mirror_axes) if choices.mirror_tta is None else choices.mirror_tta,
    )  # fmt: skip


def words(base: ModelSpec, spec: ModelSpec, dataset: Dataset, config: TrainConfig) -> list[str]:
    """What is taken over and what is not, in sentences."""
    there, given = [channel.name for channel in base.channels], list(dataset.channels)
    other = bool(given) and [name.casefold() for name in given] != [name.casefold() for name in there]
    found = [
        f"Fine-tuned from {base.name}: its {base.kind} network, normalisation, spacing, orientation and patch are kept.",
        f"It is an ensemble of {base.members}: what is learnt on from is the first of them." if base.members > 1 else "",
        f"Look twice: {base.name} reads {', '.join(there)}; the data has {', '.join(given)}." if other else "",
        _words_classes(base.labels, spec.labels, named=bool(dataset.labels)),
        "The rate is a quarter of the usual: what the weights know is to be kept." if config.rate == gentle().rate else "",
        f"A score is independent only where {base.name} was not trained on the cases kept out, either.",
    ]
    return [sentence for sentence in found if sentence]


def _words_classes(old: tuple[Label, ...], new: tuple[Label, ...], named: bool) -> str:
    before, after = (", ".join(label.name for label in labels) for labels in (old, new))
    kept = [label.name for label, row in zip(new, known(old, new)[1:], strict=True) if row is not None]
    if not same_classes(old, new):
        keeps = f" What it knew of {', '.join(kept)} is kept." if kept else ""
        return f"The last layer is new: the model knew {before}; the data has {after}.{keeps}"
    if not named:
        return f"The data does not name its classes: they are taken for the model's {after}."
    pairs = [(old[row - 1], label) for label, row in zip(new, known(old, new)[1:], strict=True) if row]
    if any(was.name.casefold() != label.name.casefold() for was, label in pairs):
        renamed = ", ".join(f"{label.value} {was.name} -> {label.name}" for was, label in pairs)
        return f"Look twice: the values are the model's, the names are not ({renamed}): taken for the same classes."
    if moved := ", ".join(f"{label.name} {was.value} -> {label.value}" for was, label in pairs if was.value != label.value):
        return f"The classes are the model's by their names, their values are others ({moved}): each is taken for that of its name."
    return f"The classes are the model's: {after}."
