"""What the U-Net is made of: convolutions with their norm and activation, in stages that are plain or residual.

Residual blocks are those of He et al. 2016 (arXiv 1512.03385), whose shortcut averages before it projects (He et al. 2019,
arXiv 1812.01187), as in the encoders of nnU-Net's ResEnc presets (Isensee et al. 2024, arXiv 2404.09556). Parameters have
nnU-Net's names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from napari_unet.spec import NetworkSpec

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_AVERAGE: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class InstanceNorm(nn.Module):
    """Instance normalisation (Ulyanov et al. 2016) as groups of one channel: unlike torch's own it keeps the layout."""

    epsilon = 1e-5

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, ...) -> the same, each channel of each sample to mean 0, spread 1, then scaled and shifted."""
        if torch.is_grad_enabled() and x.device.type == "cpu" and len(x) and x[0, 0].numel() > 1:
            # a batch of one: its gradient takes a quarter of the time of that of groups, a twentieth in bfloat16
            each = (nn.functional.batch_norm(one, None, None, self.weight, self.bias, True, 0.0, self.epsilon) for one in x.split(1))
            return torch.cat(list(each))
        return nn.functional.group_norm(x, len(self.weight), self.weight, self.bias, self.epsilon)


def _norm(spec: NetworkSpec, features: int) -> nn.Module:
    if spec.norm == "instance":
        return InstanceNorm(features)
    if spec.norm == "batch":
        norm = _BATCH[spec.dims](features)
        norm.num_batches_tracked = None  # type: ignore[assignment]  # a count that only a momentum of None needs, and that loading would add
        norm.register_load_state_dict_pre_hook(_forget_count)
        return norm
    if spec.norm == "group":
        groups = next(g for g in (8, 4, 2, 1) if features % g == 0)
        return nn.GroupNorm(groups, features)
    return nn.Identity()


def _forget_count(norm: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state.pop(prefix + "num_batches_tracked", None)


def _activation(spec: NetworkSpec) -> nn.Module:
    return nn.LeakyReLU(0.01, inplace=True) if spec.activation == "leaky_relu" else nn.ReLU(inplace=True)


class ConvNormAct(nn.Module):
    """Convolution, normalisation, activation (where it is `active`); the shape is kept, or divided by the stride."""

    def __init__(
        self, spec: NetworkSpec, inputs: int, outputs: int, kernel: tuple[int, ...], stride: Any = 1, *,
        bias: bool = True, active: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        padding = tuple((k - 1) // 2 for k in kernel)
        self.conv = CONV[spec.dims](inputs, outputs, kernel, stride, padding, bias=spec.bias and bias)
        self.norm = _norm(spec, outputs)
        self.act = _activation(spec) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, ...) -> (B, outputs, ...)."""
        return self.act(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A level's convolutions; the first one may stride."""

    def __init__(
        self, spec: NetworkSpec, inputs: int, outputs: int, kernel: tuple[int, ...], count: int, stride: Any = 1
    ) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvNormAct(spec, inputs, outputs, kernel, stride),
            *(ConvNormAct(spec, outputs, outputs, kernel) for _ in range(count - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, ...) -> (B, outputs, ...)."""
        return self.convs(x)  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two convolutions, to whose outcome the input is added before the last activation; the first one may stride.

    On its way around them the input is averaged over the stride, and projected where the number of features changes.
    """

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, kernel: tuple[int, ...], stride: Any = 1) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(spec, inputs, outputs, kernel, stride)
        self.conv2 = ConvNormAct(spec, outputs, outputs, kernel, active=False)
        steps = [] if stride == 1 or max(stride) == 1 else [_AVERAGE[spec.dims](stride)]
        if inputs != outputs:
            steps.append(ConvNormAct(spec, inputs, outputs, (1,) * spec.dims, bias=False, active=False))
        self.skip = nn.Sequential(*steps)
        self.act = _activation(spec)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, ...) -> (B, outputs, ...)."""
        return self.act(self.conv2(self.conv1(x)) + self.skip(x))  # type: ignore[no-any-return]


class ResidualStage(nn.Module):
    """A level's residual blocks; the first one may stride."""

    def __init__(
        self, spec: NetworkSpec, inputs: int, outputs: int, kernel: tuple[int, ...], count: int, stride: Any = 1
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ResidualBlock(spec, inputs, outputs, kernel, stride),
            *(ResidualBlock(spec, outputs, outputs, kernel) for _ in range(count - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, ...) -> (B, outputs, ...)."""
        return self.blocks(x)  # type: ignore[no-any-return]
