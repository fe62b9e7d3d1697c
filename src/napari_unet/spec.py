"""What a model is: frozen dataclasses without torch, which lie in its weights file as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from napari_unet.errors import UNetError
from napari_unet.schema import STRICT

if TYPE_CHECKING:
    import numpy as np

Size = Annotated[int, Field(ge=1, le=4096)]
Steps = tuple[Annotated[int, Field(ge=1, le=16)], ...]
Name = Annotated[str, Field(max_length=200)]

MAX_LABEL = 65535  # a mask is uint16 at most
MAX_CHANNELS = 64
MAX_MEMBERS = 32  # networks in one file: each is run on every window
STORED = "ijk"  # a file's own axes, for an orientation that follows no patient
# fields that say nothing where they have these values, and are not written then
LATER: dict[str, Any] = {"crop": False, "resampling": "linear", "windows": "fitted", "regions": False}
LATER_NETWORK: dict[str, Any] = {"encoder": "plain"}

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#469990")


def _without(told: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """A dataclass as JSON, without the fields that have their usual value."""
    return {name: value for name, value in told.items() if name not in usual or usual[name] != value}


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour #rrggbb."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def axes_along(orientation: str) -> list[int]:
    """Which of the patient's axes (up, front, right) each letter of an orientation such as "RAS" lies along."""
    return [axis for letter in orientation for axis, ends in enumerate(("SI", "AP", "RL")) if letter in ends]


@dataclass(frozen=True)
class NetworkSpec:
    """The shape of a U-Net (Ronneberger et al. 2015; 3-D: Cicek et al. 2016), level by level from the finest.

    `strides[i]` leads from level i-1 into level i and is all ones for the first; axes are (z, y, x), or (y, x) in 2-D.
    `skips` = False leaves the skip connections out, and the decoder convolves what comes from below alone: an
    experiment's switch (training/skip_connections.py).
    A residual `encoder` is that of nnU-Net's ResEnc presets: `encoder_convs` counts blocks of two convolutions, which no training
    here plans.
    """

    __pydantic_config__ = STRICT

    dims: Literal[2, 3]
    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
    classes: Annotated[int, Field(ge=2, le=255)]  # class indices are uint8, and 255 is none
    features: tuple[Size, ...]
    kernels: tuple[Steps, ...]
    strides: tuple[Steps, ...]
    encoder_convs: Steps
    decoder_convs: Steps
    down: Literal["conv", "maxpool"] = "conv"
    up: Literal["transposed", "interpolate"] = "transposed"
    norm: Literal["instance", "group", "batch", "none"] = "instance"
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"
    bias: bool = True
    deep_supervision: bool = True
    skips: bool = True
    encoder: Literal["plain", "residual"] = "plain"

    def __post_init__(self) -> None:
        levels = len(self.features)
        if not 2 <= levels <= 8:
            raise UNetError("network", f"features has {levels} levels", "Give 2 to 8: fewer leave nothing to join")
        lengths = {"kernels": levels, "strides": levels, "encoder_convs": levels, "decoder_convs": levels - 1}
        for name, expected in lengths.items():
            if len(getattr(self, name)) != expected:
                raise UNetError("network", f"{name} has {len(getattr(self, name))} entries for {levels} levels", f"Give {expected}")
        for axes in (*self.kernels, *self.strides):
            if len(axes) != self.dims:
                raise UNetError("network", f"{axes} has {len(axes)} axes", f"Give {self.dims} for a {self.dims}-D network")
        if set(self.strides[0]) != {1}:
            raise UNetError("network", f"strides[0] is {self.strides[0]}", "Use ones: the finest level is the input's own")
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise UNetError("network", f"kernels is {self.kernels}", "Use odd sizes, so that shapes are kept")

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As JSON: see `ModelSpec`."""
        return _without(write(self), LATER_NETWORK)

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Voxels of the finest level per voxel of the bottleneck, per axis; windows are multiples of it."""
        total = [1] * self.dims
        for stride in self.strides:
            total = [a * b for a, b in zip(total, stride, strict=True)]
        return tuple(total)

    @classmethod
    def classic(cls, channels: int = 3, classes: int = 2) -> NetworkSpec:
        """The teaching example: 128x128x3 -> three max-poolings -> 16x16x256 at the bottleneck -> 128x128."""
        return cls(
            dims=2, channels=channels, classes=classes, features=(32, 64, 128, 256), kernels=((3, 3),) * 4,
            strides=((1, 1),) + ((2, 2),) * 3, encoder_convs=(2,) * 4, decoder_convs=(2,) * 3, down="maxpool",
            norm="none", activation="relu", deep_supervision=False,
        )  # fmt: skip

    def walk(self, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...], int]]:
        """Every level that a picture of `shape` visits, as (what happens, spatial shape, features).

        Raises UNetError where `shape` is not a multiple of the total stride.
        """
        if len(shape) != self.dims or any(n % s for n, s in zip(shape, self.total_stride, strict=True)):
            raise UNetError("network", f"an input of {shape}", f"Use multiples of {self.total_stride}")
        rows = [("input", shape, self.channels)]
        for level, (features, stride) in enumerate(zip(self.features, self.strides, strict=True)):
            shape = tuple(n // s for n, s in zip(shape, stride, strict=True))
            last = level == len(self.features) - 1
            rows.append(("bottleneck" if last else f"encoder {level + 1}", shape, features))
        for level in reversed(range(len(self.features) - 1)):
            shape = tuple(n * s for n, s in zip(shape, self.strides[level + 1], strict=True))
            joined = f"joined by the skip from encoder {level + 1}" if self.skips else "from below alone"
            rows.append((f"decoder {level + 1}, {joined}", shape, self.features[level]))
        return [*rows, ("logits", shape, self.classes)]


@dataclass(frozen=True)
class Channel:
    """One input channel and how its intensities are normalised: x -> (clip(x, low, high) - mean) / std.

    zscore takes mean and std from each image and does not clip, masked from where it is not 0 (nor a hole in that), and leaves all
    else 0; clip takes all four numbers from here (CT); minmax leads from the image's lowest and highest value to 0 and 1; none is x.
    """

    __pydantic_config__ = STRICT

    name: Name
    scheme: Literal["zscore", "clip", "masked", "minmax", "none"] = "zscore"
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    std: Annotated[float, Field(gt=0)] = 1.0

    def __post_init__(self) -> None:
        if self.scheme == "clip" and not self.low < self.high:
            raise UNetError(self.name, f"it is clipped to {self.low:g}..{self.high:g}", "Give a low below the high")


@dataclass(frozen=True)
class Label:
    """One foreground class: its value in masks, its name, its colour (#rrggbb)."""

    __pydantic_config__ = STRICT

    value: Annotated[int, Field(ge=1, le=MAX_LABEL)]
    name: Name
    colour: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to rebuild the network and to feed it; it lives inside the weights file.

    The network sees axes (z, y, x) that run towards `orientation` (three letters as in "SAR"; of "ijk", the file's own axes as
    they are stored), `spacing` in mm along them (0 keeps an image's own). In 2-D every z is one slice: patch[0] is 1 and
    spacing[0] is 0. With `neighbours` = k it sees k slices on either side as channels, too (2.5-D): the first channel's slices
    z-k..z+k, then the second's, ... An ensemble has several `members`: networks of this one shape, whose logits are averaged.

    What nnU-Net does otherwise: `crop`, only the box of voxels that are not 0 in some channel is looked at; `resampling`, cubic of
    the whole normalised image, voxels' edges on one another, instead of linear; `windows`, always the patch, never a whole axis;
    `regions`, a logit for each label and none for background: a voxel is of the last label whose logit is above 0.
    """

    __pydantic_config__ = STRICT

    name: Name
    network: NetworkSpec
    channels: tuple[Channel, ...]
    labels: tuple[Label, ...]
    orientation: Annotated[str, Field(pattern=r"^([RLAPSI]{3}|[ijk]{3})$")]
    spacing: tuple[Annotated[float, Field(ge=0, le=1000)], ...]
    patch: tuple[Size, ...]
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    mirror_tta: bool = False
    keep_largest: tuple[Annotated[int, Field(ge=1, le=MAX_LABEL)], ...] = ()
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    pictures: bool = False
    neighbours: Annotated[int, Field(ge=0, le=5)] = 0
    members: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] = 1
    crop: bool = False
    resampling: Literal["linear", "cubic"] = "linear"
    windows: Literal["fitted", "patch"] = "fitted"
    regions: bool = False

    def __post_init__(self) -> None:
        values = {label.value for label in self.labels}
        checks = {
            "spacing": len(self.spacing) == 3 and all(s == 0 or s > 1e-6 for s in self.spacing),
            "patch": len(self.patch) == 3 and (self.network.dims == 3 or self.patch[0] == 1),
            "orientation": sorted(self.orientation) == list(STORED) or sorted(axes_along(self.orientation)) == [0, 1, 2],
            "neighbours": self.neighbours == 0 or (self.network.dims == 2 and not self.pictures),
            "channels": len(self.channels) * (2 * self.neighbours + 1) == self.network.channels,
            "labels": len(self.labels) == len(values) == self.network.classes - (not self.regions),
            "mirror_axes": len(set(self.mirror_axes)) == len(self.mirror_axes),
            "keep_largest": len(set(self.keep_largest)) == len(self.keep_largest) and set(self.keep_largest) <= values,
        }
        for name, good in checks.items():
            if not good:
                raise UNetError(self.name, f"{name} is {str(getattr(self, name))[:200]}", "It does not fit the network or the axes")
        if any(size % stride for size, stride in zip(self.patch, self.stride, strict=True)):
            raise UNetError(self.name, f"patch is {self.patch}", f"Use multiples of {self.stride}")
        if self.patch == self.stride:
            raise UNetError(self.name, f"patch is {self.patch}: one voxel at the bottleneck, whose norm is nothing",
                            f"Use larger multiples of {self.stride}")  # fmt: skip

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As JSON: a model without what came later is written as it always was."""
        return _without(write(self), LATER)

    @property
    def later(self) -> bool:
        """Whether it has something in it that the first versions of this program did not know."""
        fields = any(getattr(self, name) != value for name, value in LATER.items())
        fields = fields or any(getattr(self.network, name) != value for name, value in LATER_NETWORK.items())
        return fields or self.orientation.islower() or any(channel.scheme not in ("zscore", "clip") for channel in self.channels)

    @property
    def stride(self) -> tuple[int, int, int]:
        """The network's total stride along (z, y, x)."""
        z, y, x = (1, *self.network.total_stride)[-3:]
        return z, y, x

    @property
    def whole(self) -> float:
        """Up to how many patches an axis is seen whole, in one window (docs/experiments.md).

        Norms were trained on what a patch holds, and err where a window holds much more of an organ's surroundings. Pictures
        look alike wherever a patch lies.
        """
        if self.windows == "patch":
            return 0.0
        return 2.0 if self.pictures else 1.125

    @property
    def values(self) -> tuple[int, ...]:
        """Its classes' values in masks, without background."""
        return tuple(label.value for label in self.labels)

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """The type of its masks: uint8, or uint16 where a value needs it."""
        import numpy as np  # what only needs settings does without

        return np.dtype(np.uint8 if max(self.values) < 256 else np.uint16)

    @property
    def kind(self) -> str:
        """2-D, 2.5-D or 3-D."""
        return "2.5-D" if self.neighbours else f"{self.network.dims}-D"
