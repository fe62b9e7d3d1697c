"""nnU-Net's networks as ours: its PlainConvUNet is our U-Net, parameter by parameter (`network`)."""

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

PLAIN = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
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


@dataclass(frozen=True)
class PlainConvUNet:
    """What the class of that name is given; classes are names, which are compared and never imported."""

    __pydantic_config__ = STRICT

    features_per_stage: tuple[Size, ...]
    kernel_sizes: tuple[Steps, ...]
    strides: tuple[Steps, ...]
    n_conv_per_stage: Counts
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
    nonlin_first: Literal[False] = False
    deep_supervision: bool = True

    def network(self, channels: int, classes: int, where: str) -> NetworkSpec:
        """The same as ours. Raises UNetError for parts that ours does not have, and for numbers that make no U-Net."""
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
        for name, (good, value) in checks.items():
            if not good:
                raise UNetError(where, f"the network's {name} is {str(value)[:120]!r}, which our U-Net has not", REMEDY)
        settings = {
            "dims": dims, "channels": channels, "classes": classes, "features": self.features_per_stage, "kernels": self.kernel_sizes,
            "strides": self.strides, "encoder_convs": _each(self.n_conv_per_stage, levels),
            "decoder_convs": _each(self.n_conv_per_stage_decoder, levels - 1)[::-1],  # nnU-Net tells the coarsest first
            "activation": _ACTIVATIONS[kind], "bias": self.conv_bias,
        }  # fmt: skip
        return schema.parse(NetworkSpec, settings, where)


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
        given = {
            "features_per_stage": [min(self.UNet_base_num_features * 2**n, self.unet_max_num_features) for n in range(levels)],
            "kernel_sizes": self.conv_kernel_sizes, "strides": self.pool_op_kernel_sizes, "n_conv_per_stage": self.n_conv_per_stage_encoder,
            "n_conv_per_stage_decoder": self.n_conv_per_stage_decoder, "conv_op": f"Conv{dims}d", "conv_bias": True,
            "norm_op": f"InstanceNorm{dims}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": "LeakyReLU",
        }  # fmt: skip
        return Architecture(f"{PLAIN.rpartition('.')[0]}.{self.UNet_class_name}", given)


def network_of(architecture: Architecture, channels: int, classes: int, where: str | Path) -> NetworkSpec:
    """nnU-Net's network as ours. Raises UNetError for another than PlainConvUNet, and for what ours has not."""
    if architecture.network_class_name != PLAIN:
        name = architecture.network_class_name.rpartition(".")[2]
        raise UNetError(where, f"its network is {name}: of nnU-Net's networks, only PlainConvUNet is read", REMEDY)
    return schema.parse(PlainConvUNet, architecture.arch_kwargs, str(where)).network(channels, classes, str(where))


def own_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors of a checkpoint by our names: nnU-Net's own, each of which it writes up to four times."""
    found = {}
    for name, value in tensors.items():
        own = name.removeprefix("module.").removeprefix("_orig_mod.").removeprefix("module.")
        if ".all_modules." not in own and not own.startswith("decoder.encoder."):
            found[own] = value
    return found
