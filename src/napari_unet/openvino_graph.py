"""Our U-Net as a graph of OpenVINO's, built operation by operation. Imported only where it runs.

OpenVINO's own `convert_model` would report its use over the network unasked, and its graph of our network is slower: it
reorders around every normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.calibration import Range, Ranges
from napari_unet.errors import UNetError
from napari_unet.lowering import Array, lower
from napari_unet.network import UNet
from napari_unet.quiet_openvino import openvino, ops
from napari_unet.words import counted

NARROW = 8  # channels: convolutions of fewer, the first and the last, are quick already, and the image stays exact


def unet(networks: Sequence[UNet], ranges: Ranges | None) -> Any:
    """One graph of all members: (1, C, [z,] y, x), of any size, to logits (members, K, [z,] y, x)."""
    spec = networks[0].spec
    window = ops.parameter([1, spec.channels, *[-1] * spec.dims], np.float32)
    if ranges is None:
        logits = [lower(network, window, _Merging(spec.dims)) for network in networks]
    elif len(ranges) != len(networks):
        raise UNetError("int8", f"it was calibrated for {counted(len(ranges), 'member')}, not for {len(networks)}", "Calibrate it anew")
    else:
        logits = [_lower_int8(network, own, window) for network, own in zip(networks, ranges, strict=True)]
    return openvino.Model([ops.concat(logits, 0)], [window], "unet")


class _Operations:
    """`lowering.Operations` in OpenVINO's, for values with so many spatial axes."""

    def __init__(self, dims: int) -> None:
        self.dims, self.axes = dims, ops.constant(np.arange(2, dims + 2))

    def convolution(self, x: Any, weight: Array, bias: Array | None, stride: Sequence[int], padding: Sequence[int]) -> Any:
        x, kernel = self.operands(x, weight, 0)
        y = ops.convolution(x, kernel, list(stride), list(padding), list(padding), [1] * len(stride))
        return y if bias is None else ops.add(y, self._per_channel(bias))

    def transposed_convolution(self, x: Any, weight: Array, bias: Array | None, stride: Sequence[int]) -> Any:
        x, kernel = self.operands(x, weight, 1)
        y = ops.convolution_backprop_data(x, kernel, list(stride))
        return y if bias is None else ops.add(y, self._per_channel(bias))

    def operands(self, x: Any, weight: Array, outputs: int) -> tuple[Any, Any]:
        """What a convolution multiplies; `outputs` is the weight's axis of output channels."""
        return x, ops.constant(weight)

    def instance_norm(self, x: Any, weight: Array, bias: Array, epsilon: float) -> Any:
        return self.scale(ops.mvn(x, self.axes, True, epsilon, "inside_sqrt"), weight, bias)

    def group_norm(self, x: Any, groups: int, weight: Array, bias: Array, epsilon: float) -> Any:
        return ops.group_normalization(x, ops.constant(weight), ops.constant(bias), groups, epsilon)

    def scale(self, x: Any, weight: Array, bias: Array) -> Any:
        return ops.add(ops.multiply(x, self._per_channel(weight)), self._per_channel(bias))

    def leaky_relu(self, x: Any, slope: float) -> Any:
        return ops.prelu(x, ops.constant(np.array([slope], np.float32))) if slope else ops.relu(x)

    def max_pool(self, x: Any, size: Sequence[int]) -> Any:
        none = [0] * len(size)
        return ops.max_pool(x, list(size), [1] * len(size), none, none, list(size)).output(0)

    def average_pool(self, x: Any, size: Sequence[int]) -> Any:
        none = [0] * len(size)
        return ops.avg_pool(x, list(size), none, none, list(size), True)

    def enlarge(self, x: Any, factors: Sequence[int]) -> Any:
        return ops.interpolate(x, ops.constant(np.array(factors, np.float32)), "linear_onnx", "scales", axes=self.axes)

    def join(self, values: Sequence[Any]) -> Any:
        return ops.concat(list(values), 1)

    def plus(self, x: Any, y: Any) -> Any:
        return ops.add(x, y)

    def _per_channel(self, values: Array) -> Any:
        return ops.constant(values.reshape(1, -1, *[1] * self.dims))


@dataclass(frozen=True)
class _Raised:
    """A level's features on their way up, and the skip's beside them, while it is open how they are computed."""

    below: Any
    weight: Array
    bias: Array | None
    stride: tuple[int, ...]
    beside: Any = None


class _Merging(_Operations):
    """The same, where a transposed convolution and the convolution after it are one.

    Blocks of the first do not overlap, so that both together are a transposed convolution with a larger kernel: for a level
    of f features over one of 2 f, blocks of 2x2x2 and a kernel of 3x3x3, 16 f instead of 29 f multiplications per value.
    What the second makes of the skip's features is added, and nothing need be joined.
    """

    def transposed_convolution(self, x: Any, weight: Array, bias: Array | None, stride: Sequence[int]) -> Any:
        """See `lowering.Operations`."""
        return _Raised(x, weight, bias, tuple(stride))

    def join(self, values: Sequence[Any]) -> Any:
        """See `lowering.Operations`."""
        if not isinstance(values[0], _Raised):
            return super().join(values)
        raised, skip = values
        return replace(raised, beside=skip)

    def convolution(self, x: Any, weight: Array, bias: Array | None, stride: Sequence[int], padding: Sequence[int]) -> Any:
        """See `lowering.Operations`."""
        if not isinstance(x, _Raised):
            return super().convolution(x, weight, bias, stride, padding)
        if not _repays(x, weight, stride):
            raised = super().transposed_convolution(x.below, x.weight, x.bias, x.stride)
            joined = raised if x.beside is None else super().join([raised, x.beside])
            return super().convolution(joined, weight, bias, stride, padding)
        features = x.weight.shape[1]
        y = self._merged(x, weight[:, :features], padding)
        if x.beside is not None:
            y = ops.add(super().convolution(x.beside, weight[:, features:], None, stride, padding), y)
        return y if bias is None else ops.add(y, self._per_channel(bias))

    def _merged(self, x: _Raised, weight: Array, padding: Sequence[int]) -> Any:
        """The convolution of what is raised alone."""
        below, blocks = x.below, x.weight
        if x.bias is not None:  # as of one channel more, all ones: beyond the border, where the convolution sees zeros, there is no bias
            own = np.broadcast_to(x.bias.reshape(1, -1, *[1] * self.dims), (1, *blocks.shape[1:]))
            below, blocks = ops.concat([below, self._ones(below)], 1), np.concatenate([blocks, own])
        kernel = _merged_kernel(blocks, weight)
        cut = [size - 1 - pad for size, pad in zip(weight.shape[2:], padding, strict=True)]
        return ops.convolution_backprop_data(below, ops.constant(kernel), list(x.stride), None, cut, cut)

    def _ones(self, like: Any) -> Any:
        """A channel of ones, of the same extent."""
        extent = ops.gather(ops.shape_of(like), self.axes, ops.constant(0))
        return ops.broadcast(ops.constant(np.float32(1)), ops.concat([ops.constant(np.array([1, 1])), extent], 0))


def _repays(x: _Raised, weight: Array, stride: Sequence[int]) -> bool:
    """Does one transposed convolution multiply less than it and the convolution after it?"""
    below, features = x.weight.shape[:2]
    seen = math.prod((step + size - 1) / step for step, size in zip(x.stride, weight.shape[2:], strict=True))
    return max(stride) == 1 and below * len(weight) * seen < features * (below + len(weight) * math.prod(weight.shape[2:]))


def _merged_kernel(blocks: Array, weight: Array) -> Array:
    """Of a transposed convolution (I, C, *blocks) and a convolution (O, C, *kernel) after it: (I, O, *(blocks + kernel - 1)).

    The convolution's tap t moves a block by kernel - 1 - t: a product of matrices for each of them.
    """
    (inputs, channels, *block), (outputs, _, *taps) = blocks.shape, weight.shape
    kernel = np.zeros((*(size + count - 1 for size, count in zip(block, taps, strict=True)), inputs, outputs), np.float32)
    rows = np.moveaxis(blocks, (0, 1), (-2, -1)).reshape(-1, channels)
    for tap in np.ndindex(*taps):
        where = tuple(slice(n - 1 - t, n - 1 - t + size) for t, n, size in zip(tap, taps, block, strict=True))
        kernel[where] += (rows @ weight[(..., *tap)].T).reshape(*block, inputs, outputs)
    return np.ascontiguousarray(np.moveaxis(kernel, (-2, -1), (0, 1)))


class _Int8(_Operations):
    """The same, where convolutions of many channels multiply 8-bit integers (Jacob et al. 2018, arXiv 1712.05877).

    Inputs have 255 steps over the range that they were seen in, one of them at zero. Weights have 63 on either side of
    zero: with more, processors without VNNI would overflow where they add two products in 16 bits, and masks would differ.
    """

    def __init__(self, dims: int, ranges: Sequence[Range]) -> None:
        super().__init__(dims)
        self.ranges = iter(ranges)

    def operands(self, x: Any, weight: Array, outputs: int) -> tuple[Any, Any]:
        """See `_Operations.operands`."""
        low, high = next(self.ranges)
        if min(weight.shape[:2]) < NARROW or low == high:
            return super().operands(x, weight, outputs)
        step = (high - low) / 255
        zero = round(-low / step)
        others = tuple(axis for axis in range(weight.ndim) if axis != outputs)
        limit = np.maximum(np.abs(weight).max(others, keepdims=True), np.float32(1e-12)) * np.float32(127 / 63)
        single = (1,) * weight.ndim
        return (self._rounded(x, np.full(single, -zero * step), np.full(single, (255 - zero) * step), 256),
                self._rounded(ops.constant(weight), -limit, limit, 255))  # fmt: skip

    @staticmethod
    def _rounded(x: Any, low: NDArray[Any], high: NDArray[Any], levels: int) -> Any:
        ends = [ops.constant(end.astype(np.float32)) for end in (low, high, low, high)]
        return ops.fake_quantize(x, *ends, levels)


def _lower_int8(network: UNet, ranges: Sequence[Range], window: Any) -> Any:
    """A member's logits in 8-bit integers. Raises UNetError where the ranges are another network's."""
    operations = _Int8(network.spec.dims, ranges)
    try:
        logits = lower(network, window, operations)
    except StopIteration:
        raise _other_network(ranges) from None
    if next(operations.ranges, None) is not None:
        raise _other_network(ranges)
    return logits


def _other_network(ranges: Sequence[Range]) -> UNetError:
    return UNetError("int8", f"it was calibrated for {len(ranges)} convolutions, which the network does not have", "Calibrate it anew")
