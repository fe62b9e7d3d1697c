"""What a person may set for a training: frozen dataclasses without torch, from which flags, recipes and run.json derive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from napari_unet.schema import STRICT
from napari_unet.spec import MAX_LABEL, Size

Plane = Literal["auto", "axial", "coronal", "sagittal"]

MOST_AUGMENT = 3.0


@dataclass(frozen=True)
class PlanChoices:
    """What a person may fix before the plan decides the rest; None leaves it to the plan."""

    __pydantic_config__ = STRICT

    dims: Annotated[Literal[2, 3] | None, Field(description="slices (2) or volumes (3)")] = None
    spacing: Annotated[tuple[float, ...] | None, Field(description="mm along z, y, x; 0 keeps the image's own")] = None
    patch: Annotated[tuple[Size, ...] | None, Field(description="training patch in voxels along z, y, x")] = None
    features: Annotated[tuple[Size, ...] | None, Field(description="feature channels per level, finest first")] = None
    mirror_axes: Annotated[tuple[int, ...] | None, Field(description="axes 0 z, 1 y, 2 x that may be mirrored")] = None
    mirror_tta: Annotated[bool | None, Field(description="average masks over mirrored copies")] = None
    neighbours: Annotated[
        int | None, Field(ge=0, le=5, description="slices on either side that a 2-D network sees as channels")
    ] = None
    skips: Annotated[bool, Field(description="skip connections; without them is for experiments")] = True


@dataclass(frozen=True)
class LabelRule:
    """Which voxels of masks nobody labelled; where neither is given, all are labelled."""

    __pydantic_config__ = STRICT

    ignore: Annotated[
        int | None, Field(ge=1, le=MAX_LABEL, description="mask value of voxels that nobody labelled; nnU-Net's dataset.json may name it")
    ] = None
    labelled_slices: Annotated[
        Plane | None,
        Field(description="slices of this plane without any label are unlabelled, not background; auto finds the plane"),
    ] = None


ALL_LABELLED = LabelRule()


@dataclass(frozen=True)
class TrainConfig:
    """What a person may turn in training."""

    __pydantic_config__ = STRICT

    minutes: Annotated[
        float | None, Field(gt=0, le=100_000, description="wall time from start to weights on disk, in minutes")
    ] = None
    steps: Annotated[int | None, Field(ge=1, le=10_000_000, description="optimiser steps, instead of minutes")] = None
    cases: Annotated[int | None, Field(ge=1, description="use only this many cases, drawn by the seed")] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="seed of the split, the sampling and the weights")] = 0
    folds: Annotated[
        int | None, Field(ge=1, le=100, description="cross-validate: so many models, each scored on a part it never saw; "
                          "as many as cases: leave one out; 2 for a single case: its halves; 1: all train, none is scored")
    ] = None  # fmt: skip
    fold: Annotated[
        int | None, Field(ge=0, le=99, description="only one of these models: the part, of --folds or 5, that is kept out")
    ] = None
    device: Annotated[str, Field(description="auto, cpu, cuda or mps")] = "auto"
    threads: Annotated[
        int | None, Field(ge=1, le=1024, description="threads of torch (default: all; in a run by minutes, as many as are fastest "
                          "beside other programs)")
    ] = None  # fmt: skip
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], Field(description="of convolutions; auto: bfloat16 where cards or AMX have units")
    ] = "auto"
    compile: Annotated[
        bool | None, Field(description="compile the network first; by default on a CUDA card for 30 minutes or more")
    ] = None
    batch: Annotated[int, Field(ge=1, le=512, description="patches per step at the full patch size")] = 2
    rate: Annotated[float, Field(gt=0, le=1, description="highest learning rate; more in a run of fewer than 600 steps")] = 2e-3
    optimiser: Annotated[
        Literal["muon", "adamw"], Field(description="muon (orthogonalised momentum for kernels) or adamw for all")
    ] = "muon"
    decay: Annotated[float, Field(ge=0, le=1, description="weight decay of AdamW")] = 1e-2
    foreground: Annotated[float, Field(ge=0, le=1, description="share of patches centred on a labelled voxel")] = 0.5
    augment: Annotated[
        float, Field(ge=0, le=MOST_AUGMENT, description="strength of augmentation, 0 is none; more in a long run, or of few cases")
    ] = 0.5
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="share of the encoder's features that a step leaves out, in long runs of few cases")
    ] = 0.1
    grow: Annotated[bool, Field(description="small patches first, the full size last")] = True
    memory: Annotated[
        float, Field(gt=0, le=1, description="memory of the weights' average, as a share of the run")
    ] = 0.02
    checks: Annotated[int, Field(ge=0, le=1000, description="validations on whole cases during the run")] = 4

    @property
    def seconds(self) -> float | None:
        """Wall time from start to weights on disk, 600 where nothing is asked for; None where steps rule."""
        return None if self.steps is not None else 60 * (self.minutes or 10.0)
