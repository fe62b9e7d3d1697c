"""nnU-Net's networks as ours: its PlainConvUNet and ResidualEncoderUNet are our U-Net, parameter by parameter (`network`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field

from napari_unet import schema
from napari_unet.errors import UNetError
from napari_unet.schema import STRICT
from napari_unet.spec import Name, NetworkSpec, Size, Steps

_CLASSES = "dynamic_network_architectures.architectures.unet."
REMEDY = "Train here on the same data: napari-unet train DATA reads nnU-Net's layout"
OPEN = ConfigDict(extra="ignore", allow_inf_nan=False)  # of what plans tell, most is about training
Counts = Annotated[int, Field(ge=1, le=16)] | Steps
T = TypeVar("T")
_ACTIVATIONS: dict[str, Literal["leaky_relu", "relu"]] = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}


@dataclass(frozen=True)
class Architecture:
    """A network in plans since nnU-Net 2.3: its class, by name, and what that is given."""

    __pydantic_config__ = OPEN

    network_class_name: Name
    arch_kwargs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What both networks' classes are given; classes are names, which are compared and never imported."""

    __pydantic_config__ = STRICT

    features_per_stage: tuple[Size, ...]
    kernel_sizes: tuple[Steps, ...]
    strides: tuple[Steps, ...]
    n_conv_per_stage_decoder: Counts
    n_stages: int = 0
    conv_op: Name = ""
    conv_bias: bool = False
    norm_op: Name | None = None
    norm_op_kwargs: dict[str, Any] | None = None
    dropout_op: None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: Name | None = None
    nonlin_kwargs: dict[str, Any] | None = None
    deep_supervision: bool = True

    def network(self, channels: int, classes: int, where: str) -> NetworkSpec:
        """The same as ours. Raises UNetError for parts that ours does not have, and for numbers that make no U-Net."""
        encoder, counts = self._encoder(where)
        dims, levels = len(self.strides[0]) if self.strides else 0, len(self.features_per_stage)
        kind, norm = (self.nonlin or "").removeprefix("torch.nn.").rpartition(".")[2], self.norm_op_kwargs or {}
        checks = {
            "conv_op": (self.conv_op.rpartition(".")[2] == f"Conv{dims}d", self.conv_op),
            "norm_op": ((self.norm_op or "").rpartition(".")[2] == f"InstanceNorm{dims}d", self.norm_op),
            "norm_op_kwargs": (norm.get("affine") is True and norm.get("eps", 1e-5) == 1e-5, norm),
            "nonlin": (kind in _ACTIVATIONS, self.nonlin),
            "nonlin_kwargs": ((self.nonlin_kwargs or {}).get("negative_slope", 0.01) == 0.01, self.nonlin_kwargs),
            "n_stages": (self.n_stages in (0, levels), self.n_stages),
        }
        _check(checks, where)
        settings = {
            "dims": dims, "channels": channels, "classes": classes, "features": self.features_per_stage, "kernels": self.kernel_sizes,
            "strides": self.strides, "encoder": encoder, "encoder_convs": _each(counts, levels),
            "decoder_convs": _each(self.n_conv_per_stage_decoder, levels - 1)[::-1],  # nnU-Net tells the coarsest first
            "activation": _ACTIVATIONS[kind], "bias": self.conv_bias,
        }  # fmt: skip
        return schema.parse(NetworkSpec, settings, where)

    def _encoder(self, where: str) -> tuple[str, Counts]:
        """Its kind, and how many convolutions or blocks each level has."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PlainConvUNet(_Given):
    """What the class of that name is given."""

    n_conv_per_stage: Counts
    nonlin_first: Literal[False] = False

    def _encoder(self, where: str) -> tuple[str, Counts]:
        return "plain", self.n_conv_per_stage


@dataclass(frozen=True, kw_only=True)
class ResidualEncoderUNet(_Given):
    """The same of the ResEnc presets' class; where that is told of stochastic depth, it is of training alone."""

    n_blocks_per_stage: Counts
    block: Name = "BasicBlockD"
    bottleneck_channels: Any = None
    stem_channels: int | None = None
    squeeze_excitation: Any = False
    squeeze_excitation_reduction_ratio: Any = None
    stochastic_depth_p: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def _encoder(self, where: str) -> tuple[str, Counts]:
        checks = {
            "block": (self.block.rpartition(".")[2] == "BasicBlockD", self.block),
            "bottleneck_channels": (self.bottleneck_channels is None, self.bottleneck_channels),
            "stem_channels": (self.stem_channels in (None, *self.features_per_stage[:1]), self.stem_channels),
            "squeeze_excitation": (self.squeeze_excitation is False, self.squeeze_excitation),
        }
        _check(checks, where)
        return "residual", self.n_blocks_per_stage


NETWORKS: dict[str, type[PlainConvUNet | ResidualEncoderUNet]] = {
    _CLASSES + known.__name__: known for known in (PlainConvUNet, ResidualEncoderUNet)
}


def _check(checks: Mapping[str, tuple[bool, Any]], where: str) -> None:
    """UNetError for the first of a network's parts that is not as ours, with what it is."""
    for name, (good, value) in checks.items():
        if not good:
            raise UNetError(where, f"the network's {name} is {str(value)[:120]!r}, which our U-Net has not", REMEDY)


def _each(counts: int | Sequence[int], levels: int) -> Sequence[int]:
    return [counts] * levels if isinstance(counts, int) else counts


@dataclass(frozen=True)
class OldNetwork:
    """A network in plans before nnU-Net 2.3, as fields of the configuration itself."""

    __pydantic_config__ = OPEN

    UNet_class_name: Name
    UNet_base_num_features: Size
    unet_max_num_features: Size
    conv_kernel_sizes: tuple[Steps, ...]
    pool_op_kernel_sizes: tuple[Steps, ...]
    n_conv_per_stage_encoder: Counts
    n_conv_per_stage_decoder: Counts

    def architecture(self) -> Architecture:
        """The same as it is written today."""
        levels = len(self.pool_op_kernel_sizes)
        dims = len(self.pool_op_kernel_sizes[0]) if levels else 0
        blocks = "n_blocks_per_stage" if self.UNet_class_name == ResidualEncoderUNet.__name__ else "n_conv_per_stage"
        given = {
            "features_per_stage": [min(self.UNet_base_num_features * 2**n, self.unet_max_num_features) for n in range(levels)],
            "kernel_sizes": self.conv_kernel_sizes, "strides": self.pool_op_kernel_sizes, blocks: self.n_conv_per_stage_encoder,
            "n_conv_per_stage_decoder": self.n_conv_per_stage_decoder, "conv_op": f"Conv{dims}d", "conv_bias": True,
            "norm_op": f"InstanceNorm{dims}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": "LeakyReLU",
        }  # fmt: skip
        return Architecture(_CLASSES + self.UNet_class_name, given)


def network_of(architecture: Architecture, channels: int, classes: int, where: str | Path) -> NetworkSpec:
    """nnU-Net's network as ours. Raises UNetError for another than those of `NETWORKS`, and for what ours has not."""
    known = NETWORKS.get(architecture.network_class_name)
    if known is None:
        name = architecture.network_class_name.rpartition(".")[2]
        raise UNetError(where, f"its network is {name}: of nnU-Net's, only PlainConvUNet and ResidualEncoderUNet are read", REMEDY)
    return schema.parse(known, architecture.arch_kwargs, str(where)).network(channels, classes, str(where))


def own_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors of a checkpoint by our names: nnU-Net's own, each of which it writes up to four times."""
    found = {}
    for name, value in tensors.items():
        own = name.removeprefix("module.").removeprefix("_orig_mod.").removeprefix("module.")
        if ".all_modules." not in own and not own.startswith("decoder.encoder."):
            found[own] = value
    return found
