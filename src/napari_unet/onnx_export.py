"""A model as ONNX, for programs without Python: the network, and in the metadata what it wants to see.

Operators of opset 21: https://onnx.ai/onnx/operators. Nothing is traced: the graph is built operation by operation (`lowering`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet import __version__
from napari_unet.card import Card
from napari_unet.errors import UNetError
from napari_unet.files import write_atomically
from napari_unet.lowering import Array, lower
from napari_unet.schema import encode
from napari_unet.spec import ModelSpec
from napari_unet.torch_runtime import build

OPSET, IR = 21, 10  # the first opset whose GroupNormalization is torch's, and the format it came with
LARGEST = (2 << 30) - (1 << 20)  # a protobuf message ends at 2 GB


def export_onnx(path: str | Path, spec: ModelSpec, card: Card, members: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Write a model's network atomically: `image` (batch, C, [z,] y, x) to `logits` (batch, K, [z,] y, x), float32.

    Batch and spatial axes may have any size (the latter multiples of the total stride); an ensemble's logits are
    averaged. What comes before and after (orientation, spacing, normalisation, windows, mirroring) is the caller's: the
    metadata holds `spec` and `card` as JSON. Raises UNetError where onnx is missing or the file would be too large.
    """
    try:
        import onnx
    except ImportError as error:
        raise UNetError("onnx", "it is not installed", 'Run pip install "napari-unet-monai[onnx]"') from error
    graph = _Graph(spec.network.dims)
    logits = [lower(build(spec.network, member, torch.device("cpu")), "image", graph) for member in members]
    graph.add("Mean", logits, name="logits")
    if graph.size > LARGEST:
        raise UNetError(path, f"{graph.size:,} bytes of weights", f"At most {LARGEST:,} fit into an ONNX file: export single folds")
    space = ["z", "y", "x"][-spec.network.dims :]
    image, answer = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", channels, *space])
        for name, channels in (("image", spec.network.channels), ("logits", spec.network.classes))
    )
    made = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "unet", [image], [answer], graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="napari-unet", producer_version=__version__,
    )  # fmt: skip
    onnx.helper.set_model_props(made, {"spec": encode(spec), "card": encode(card)})
    onnx.checker.check_model(made, full_check=True)
    content = made.SerializeToString()
    write_atomically(path, lambda file: file.write(content))


class _Graph:
    """`lowering.Operations` as ONNX's nodes; a value, with so many spatial axes, is its name."""

    def __init__(self, dims: int) -> None:
        self.dims = dims
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.size = 0
        self.numbers = count()

    def add(self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        """One more node; the name of its output."""
        from onnx import helper

        name = name or f"{kind}_{next(self.numbers)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """One more constant; its name."""
        from onnx import numpy_helper

        name = f"constant_{next(self.numbers)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        self.size += values.nbytes
        return name

    def convolution(self, x: str, weight: Array, bias: Array | None, stride: Sequence[int], padding: Sequence[int]) -> str:
        return self.add("Conv", self._given(x, weight, bias), strides=stride, pads=[*padding, *padding])

    def transposed_convolution(self, x: str, weight: Array, bias: Array | None, stride: Sequence[int]) -> str:
        return self.add("ConvTranspose", self._given(x, weight, bias), strides=stride)

    def instance_norm(self, x: str, weight: Array, bias: Array, epsilon: float) -> str:
        return self.add("InstanceNormalization", self._given(x, weight, bias), epsilon=epsilon)

    def group_norm(self, x: str, groups: int, weight: Array, bias: Array, epsilon: float) -> str:
        return self.add("GroupNormalization", self._given(x, weight, bias), epsilon=epsilon, num_groups=groups)

    def scale(self, x: str, weight: Array, bias: Array) -> str:
        shape = (1, -1, *[1] * self.dims)
        scaled = self.add("Mul", [x, self.constant(weight.reshape(shape))])
        return self.add("Add", [scaled, self.constant(bias.reshape(shape))])

    def leaky_relu(self, x: str, slope: float) -> str:
        return self.add("LeakyRelu", [x], alpha=slope) if slope else self.add("Relu", [x])

    def max_pool(self, x: str, size: Sequence[int]) -> str:
        return self.add("MaxPool", [x], kernel_shape=size, strides=size)

    def average_pool(self, x: str, size: Sequence[int]) -> str:
        return self.add("AveragePool", [x], kernel_shape=size, strides=size)

    def enlarge(self, x: str, factors: Sequence[int]) -> str:
        scales = self.constant(np.array([1, 1, *factors], np.float32))
        return self.add("Resize", [x, "", scales], mode="linear", coordinate_transformation_mode="half_pixel")

    def join(self, values: Sequence[str]) -> str:
        return self.add("Concat", values, axis=1)

    def plus(self, x: str, y: str) -> str:
        return self.add("Add", [x, y])

    def _given(self, x: str, *arrays: Array | None) -> list[str]:
        return [x, *(self.constant(values) for values in arrays if values is not None)]
