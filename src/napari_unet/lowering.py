"""The U-Net in another library's operations: its modules, in the order in which its own `forward` calls them.

`network.UNet` stays the one definition: torch.fx follows it, and a dozen operations say what each module is elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from napari_unet.blocks import ConvNormAct, InstanceNorm
from napari_unet.errors import UNetError
from napari_unet.network import UNet

Array = NDArray[np.float32]
V = TypeVar("V")


class Operations(Protocol[V]):
    """What a library has to offer; values are (B, C, [z,] y, x), and arrays over channels (C,) are numpy's."""

    def convolution(self, x: V, weight: Array, bias: Array | None, stride: Sequence[int], padding: Sequence[int]) -> V:
        """With a weight (outputs, inputs, ...)."""

    def transposed_convolution(self, x: V, weight: Array, bias: Array | None, stride: Sequence[int]) -> V:
        """With a weight (inputs, outputs, ...), and without padding."""

    def instance_norm(self, x: V, weight: Array, bias: Array, epsilon: float) -> V:
        """Each channel of each sample to mean 0 and variance 1, then times `weight`, plus `bias`."""

    def group_norm(self, x: V, groups: int, weight: Array, bias: Array, epsilon: float) -> V:
        """The same over groups of channels."""

    def scale(self, x: V, weight: Array, bias: Array) -> V:
        """Times `weight`, plus `bias`."""

    def leaky_relu(self, x: V, slope: float) -> V:
        """What is below zero times `slope`."""

    def max_pool(self, x: V, size: Sequence[int]) -> V:
        """The largest of each block of `size`."""

    def average_pool(self, x: V, size: Sequence[int]) -> V:
        """The mean of each block of `size`."""

    def enlarge(self, x: V, factors: Sequence[int]) -> V:
        """Linear interpolation between the centres of voxels."""

    def join(self, values: Sequence[V]) -> V:
        """Channels one after the other."""

    def plus(self, x: V, y: V) -> V:
        """The sum of two of one shape."""


class _Tracer(fx.Tracer):
    """Follows `forward`; torch's own modules and our norm are not looked into."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, InstanceNorm) or super().is_leaf_module(module, name)


def lower(network: UNet, x: V, operations: Operations[V]) -> V:
    """The logits of `x` in a library's operations."""
    forgotten = _forgotten_biases(network)
    values: dict[Any, Any] = {}
    for node in _Tracer().trace(network).nodes:
        if node.op == "placeholder":
            values[node] = x
        elif node.op == "call_module":
            module = network.get_submodule(node.target)
            values[node] = _module(module, values[node.args[0]], operations, forget_bias=module in forgotten)
        elif node.op == "call_function" and node.target.__name__ == "cat":
            values[node] = operations.join([values[each] for each in node.args[0]])
        elif node.op == "call_function" and node.target.__name__ == "add":
            values[node] = operations.plus(*(values[each] for each in node.args))
        elif node.op == "call_method" and node.target == "contiguous":  # a layout is torch's own business
            values[node] = values[node.args[0]]
        elif node.op == "output":
            return values[node.args[0]]  # type: ignore[no-any-return]
        else:
            raise UNetError("network", f"{node.op} {node.target} cannot be lowered", "Run it with torch")
    raise AssertionError("a graph ends with its output")


def _forgotten_biases(network: UNet) -> set[nn.Module]:
    """The convolutions whose bias an instance norm takes away again, so that it need not be added."""
    return {each.conv for each in network.modules() if isinstance(each, ConvNormAct) and isinstance(each.norm, InstanceNorm)}


def _module(module: nn.Module, x: V, operations: Operations[V], forget_bias: bool) -> V:
    match module:
        case nn.ConvTranspose2d() | nn.ConvTranspose3d():
            return operations.transposed_convolution(x, _array(module.weight), _bias(module), module.stride)
        case nn.Conv2d() | nn.Conv3d():
            bias = None if forget_bias else _bias(module)
            return operations.convolution(x, _array(module.weight), bias, module.stride, module.padding)  # type: ignore[arg-type]  # numbers
        case InstanceNorm():
            return operations.instance_norm(x, _array(module.weight), _array(module.bias), module.epsilon)
        case nn.GroupNorm():
            return operations.group_norm(x, module.num_groups, _array(module.weight), _array(module.bias), module.eps)
        case nn.BatchNorm2d() | nn.BatchNorm3d():
            weight = _array(module.weight) / np.sqrt(_array(module.running_var) + np.float32(module.eps))
            return operations.scale(x, weight, _array(module.bias) - _array(module.running_mean) * weight)
        case nn.LeakyReLU():
            return operations.leaky_relu(x, module.negative_slope)
        case nn.ReLU():
            return operations.leaky_relu(x, 0.0)
        case nn.MaxPool2d() | nn.MaxPool3d():
            return operations.max_pool(x, module.kernel_size)  # type: ignore[arg-type]  # one per axis
        case nn.AvgPool2d() | nn.AvgPool3d():
            return operations.average_pool(x, module.kernel_size)  # type: ignore[arg-type]  # the same
        case nn.Upsample():
            return operations.enlarge(x, [int(factor) for factor in module.scale_factor])  # type: ignore[union-attr]  # the same
        case nn.Identity():
            return x
    raise UNetError("network", f"{type(module).__name__} cannot be lowered", "Run it with torch")


def _array(tensor: Any) -> Array:
    array: Array = tensor.detach().float().cpu().contiguous().numpy()
    return array


def _bias(module: nn.Module) -> Array | None:
    return None if module.bias is None else _array(module.bias)
