"""What the first of several processes tells the others, word by word (see `distributed`)."""

from __future__ import annotations

from dataclasses import dataclass

from napari_unet.schedule import Stage
from napari_unet.schema import STRICT
from napari_unet.settings import ALL_LABELLED, LabelRule, TrainConfig
from napari_unet.spec import ModelSpec


@dataclass(frozen=True)
class Task:
    """A model to be trained, as the first process tells it to the others."""

    __pydantic_config__ = STRICT

    spec: ModelSpec
    config: TrainConfig
    training: tuple[str, ...]
    rule: LabelRule = ALL_LABELLED


@dataclass(frozen=True)
class Order:
    """A step to be taken: `first` counts the samples before it, `steps` are the run's.

    strength : of augmentation; dropout : the share of features left out.
    """

    __pydantic_config__ = STRICT

    step: int
    first: int
    stage: Stage
    rate: float
    steps: int
    strength: float
    dropout: float


@dataclass(frozen=True)
class State:
    """The first process's weights and moments after so many steps follow, for all to go on from."""

    __pydantic_config__ = STRICT

    step: int
