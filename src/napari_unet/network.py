"""The U-Net: encoder, bottleneck, decoder, skip connections; 2-D and 3-D from one definition.

Ronneberger et al. 2015 (arXiv 1505.04597), Cicek et al. 2016 (arXiv 1606.06650); strided convolutions, instance
normalisation, leaky ReLU and deep supervision as in nnU-Net (Isensee et al. 2021). Modules are named so that the
parameters of nnU-Net's PlainConvUNet and ResidualEncoderUNet map one to one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_unet.blocks import CONV, ResidualStage, Stage
from napari_unet.spec import NetworkSpec

_TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}


class Encoder(nn.Module):
    """The way down: each level halves the shape (where its stride says so); its last level is the bottleneck.

    A residual one has a convolution before its first block, the stem.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        pooled, residual = spec.down == "maxpool", spec.encoder == "residual"
        inputs = spec.features[0] if residual else spec.channels
        self.stem = Stage(spec, spec.channels, inputs, spec.kernels[0], 1) if residual else nn.Identity()
        stages, self.pools = [], nn.ModuleList()
        for level, features in enumerate(spec.features):
            stride = spec.strides[level]
            self.pools.append(_POOL[spec.dims](stride) if pooled and max(stride) > 1 else nn.Identity())
            given = inputs, features, spec.kernels[level], spec.encoder_convs[level], 1 if pooled else stride
            stages.append(ResidualStage(spec, *given) if residual else nn.Sequential(Stage(spec, *given)))
            inputs = features
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, ...) -> every level's features, finest first: the skip connections and, last, the bottleneck."""
        x, levels = self.stem(x), []
        for pool, stage in zip(self.pools, self.stages, strict=True):
            x = stage(pool(x))
            levels.append(x)
        return levels


class Decoder(nn.Module):
    """The way up: each level doubles the shape, joins the encoder's features of that level (`skips`) and convolves."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.skips = spec.skips
        self.transpconvs, self.stages, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(spec.features) - 1)):
            below, features = spec.features[level + 1], spec.features[level]
            self.transpconvs.append(_up(spec, below, features, spec.strides[level + 1]))
            kernel, count = spec.kernels[level], spec.decoder_convs[level]
            self.stages.append(Stage(spec, 2 * features if spec.skips else features, features, kernel, count))
            self.seg_layers.append(CONV[spec.dims](features, spec.classes, 1))

    def forward(self, levels: list[Tensor], all_scales: bool) -> list[Tensor]:
        """Encoder features -> logits, finest first; only the finest unless `all_scales`."""
        x, logits = levels[-1], []
        for j, (up, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            x = stage(torch.cat((up(x), levels[-2 - j]), 1) if self.skips else up(x))
            if all_scales or j == len(self.stages) - 1:
                logits.append(self.seg_layers[j](x))
        return logits[::-1]


def _up(spec: NetworkSpec, inputs: int, outputs: int, stride: tuple[int, ...]) -> nn.Module:
    if spec.up == "transposed":
        return _TRANSPOSED[spec.dims](inputs, outputs, stride, stride, bias=spec.bias)
    mode = "bilinear" if spec.dims == 2 else "trilinear"
    return nn.Sequential(nn.Upsample(scale_factor=tuple(float(s) for s in stride), mode=mode),
                         CONV[spec.dims](inputs, outputs, 1, bias=spec.bias))  # fmt: skip


class UNet(nn.Module):
    """A U-Net built from its specification.

    Input (B, channels, [z,] y, x), each axis a multiple of `spec.total_stride`; output logits (B, classes, [z,] y, x).
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec, self.layout = spec, torch.contiguous_format
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, a=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def in_fast_layout(self) -> UNet:
        """Itself, its weights laid out channels last: convolutions, above all their gradients, are faster on a CPU."""
        self.layout = _LAYOUT[self.spec.dims]
        return self.to(memory_format=self.layout)  # type: ignore[call-overload,no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the input's own resolution."""
        return self.decoder(self.encoder(x.contiguous(memory_format=self.layout)), all_scales=False)[0]  # type: ignore[no-any-return]

    def multiscale(self, x: Tensor, kept: Tensor | None = None) -> list[Tensor]:
        """Logits of every decoder level, finest first, for deep supervision.

        kept : what the decoder's view of the encoder's features below the finest level is multiplied by, (B, `droppable`):
        dropout of whole features (Tompson et al. 2015, arXiv 1411.4280).
        """
        levels = self.encoder(x.contiguous(memory_format=self.layout))
        if kept is not None:
            factors = kept.reshape(*kept.shape, *(1,) * self.spec.dims).split(self.spec.features[1:], 1)
            levels[1:] = [level * factor.to(level.dtype) for level, factor in zip(levels[1:], factors, strict=True)]
        return self.decoder(levels, all_scales=self.spec.deep_supervision)  # type: ignore[no-any-return]

    @property
    def droppable(self) -> int:
        """How many features lie below the finest level."""
        return sum(self.spec.features[1:])


def parameter_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the network, without allocating it."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in UNet(spec).state_dict().items()}
