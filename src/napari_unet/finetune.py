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

    Classes are the same where all values are; otherwise where their names are, in large letters or small. Background is
    the same where any other class is.
    """
    if same_values(old, new):
        index = {label.value: n for n, label in enumerate(old, 1)}
        return [0, *(index[label.value] for label in new)]
    names = {label.name.casefold(): n for n, label in enumerate(old, 1)}
    rows = [names.get(label.name.casefold()) for label in new]
    return [0 if any(rows) else None, *rows]


def same_values(old: tuple[Label, ...], new: tuple[Label, ...]) -> bool:
    """Do two models find the same mask values?"""
    return {label.value for label in old} == {label.value for label in new}


def gentle(config: TrainConfig | None = None) -> TrainConfig:
    """The settings from which fine-tuning starts where nobody chooses others: a lower rate."""
    config = config or TrainConfig()
    return replace(config, rate=config.rate * RATE)


def refuse(base: ModelSpec, channels: int, pictures: bool, choices: PlanChoices) -> None:
    """UNetError where the data, or what a person chose, contradicts the model that is learnt on from."""
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
    return replace(
        base, name=name, labels=labels, members=1,
        network=replace(base.network, classes=len(labels) + 1), patch=choices.patch or base.patch,
        keep_largest=base.keep_largest if same_values(base.labels, labels) else (), mirror_axes=mirror_axes,
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
    if not same_values(old, new):
        keeps = f" What it knew of {', '.join(kept)} is kept." if kept else ""
        return f"The last layer is new: the model knew {before}; the data has {after}.{keeps}"
    if not named:
        return f"The data does not name its classes: they are taken for the model's {after}."
    names = {label.value: label.name for label in old}
    if all(label.name.casefold() == names[label.value].casefold() for label in new):
        return f"The classes are the model's: {after}."
    pairs = ", ".join(f"{label.value} {names[label.value]} -> {label.name}" for label in new)
    return f"Look twice: the values are the model's, the names are not ({pairs}): taken for the same classes."
