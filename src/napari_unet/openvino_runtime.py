"""OpenVINO: the faster runtime on x86 processors. Imported only where it runs.

The graph is built operation by operation (`lowering`). OpenVINO's own `convert_model` would report its use over the
network unasked, and its graph of our network is slower: it reorders around every normalisation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet.errors import UNetError, first_line
from napari_unet.lowering import Array, lower
from napari_unet.network import UNet
from napari_unet.quiet_openvino import openvino, ops
from napari_unet.torch_runtime import check_finite, mirrorings

STREAMS = 4  # windows that run at once, at most: each has the features of all levels in memory
FAILURES = (RuntimeError, MemoryError)


class OpenVINORuntime:
    """As many windows at once as there are threads, up to STREAMS, and one more that waits its turn."""

    def __init__(self, networks: Sequence[UNet], mirror_axes: tuple[int, ...]) -> None:
        self.flips = mirrorings(mirror_axes)
        self.flat = networks[0].spec.dims == 2
        threads = torch.get_num_threads()
        streams = min(threads, STREAMS)
        self.in_flight = streams + 1
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16, where a processor has it, would be another mask
            "ENABLE_CPU_PINNING": False,  # a thread must not wait for a core that another program keeps
        }  # fmt: skip
        try:
            self.compiled = openvino.Core().compile_model(_model(networks), "CPU", settings)
        except FAILURES as error:
            raise UNetError("network", f"OpenVINO cannot run it ({first_line(error)})", "Use --runtime torch") from error

    def each(self, windows: Iterable[Tensor], in_flight: int | None = None) -> Generator[Tensor]:
        """See `runtime.Runtime.each`."""
        with closing(self._answers(self._jobs(windows), min(in_flight or self.in_flight, self.in_flight))) as answers:
            while copies := list(islice(answers, len(self.flips))):
                back = [np.flip(logits, flips) for logits, flips in zip(copies, self.flips, strict=True)]
                yield check_finite(torch.from_numpy(np.mean(back, 0)))

    def _jobs(self, windows: Iterable[Tensor]) -> Iterator[NDArray[np.float32]]:
        """Each window (1, C, z, y, x) mirrored in every way."""
        for window in windows:
            for flips in self.flips:
                yield np.ascontiguousarray(np.flip(window.numpy()[None], flips))

    def _answers(self, jobs: Iterable[NDArray[np.float32]], in_flight: int) -> Generator[NDArray[np.float32]]:
        """Logits (members, K, z, y, x) of each job, in order; the next ones run meanwhile."""
        running: deque[tuple[Any, NDArray[np.float32]]] = deque()
        try:
            for job in jobs:
                if len(running) == in_flight:
                    yield self._finished(*running.popleft())
                running.append((self._started(job), job))
            while running:
                yield self._finished(*running.popleft())
        finally:
            for request, _ in running:
                request.cancel()
            for request, _ in running:
                with suppress(RuntimeError):  # says that it was cancelled
                    request.wait()

    def _started(self, job: NDArray[np.float32]) -> Any:
        with _failures(job):
            request = self.compiled.create_infer_request()
            request.start_async({0: job[:, :, 0] if self.flat else job}, share_inputs=True)
        return request

    def _finished(self, request: Any, job: NDArray[np.float32]) -> NDArray[np.float32]:
        with _failures(job):
            request.wait()
        logits: NDArray[np.float32] = request.get_output_tensor(0).data
        return logits[:, :, None] if self.flat else logits


@contextmanager
def _failures(job: NDArray[np.float32]) -> Iterator[None]:
    """What OpenVINO complains of, as a UNetError."""
    try:
        yield
    except FAILURES as error:
        raise UNetError("network", f"windows of {job.shape[2:]} cannot be run by OpenVINO ({first_line(error)})",
                        "Close other programs, or use --runtime torch") from error  # fmt: skip


def _model(networks: Sequence[UNet]) -> Any:
    """One graph of all members: (1, C, [z,] y, x), of any size, to logits (members, K, [z,] y, x)."""
    spec = networks[0].spec
    window = ops.parameter([1, spec.channels, *[-1] * spec.dims], np.float32)
    operations = _Operations(spec.dims)
    logits = [lower(network, window, operations) for network in networks]
    return openvino.Model([ops.concat(logits, 0)], [window], "unet")


class _Operations:
    """`lowering.Operations` in OpenVINO's, for values with so many spatial axes."""

    def __init__(self, dims: int) -> None:
        self.dims, self.axes = dims, ops.constant(np.arange(2, dims + 2))

    def convolution(self, x: Any, weight: Array, bias: Array | None, stride: Sequence[int], padding: Sequence[int]) -> Any:
        y = ops.convolution(x, ops.constant(weight), list(stride), list(padding), list(padding), [1] * len(stride))
        return y if bias is None else ops.add(y, self._per_channel(bias))

    def transposed_convolution(self, x: Any, weight: Array, bias: Array | None, stride: Sequence[int]) -> Any:
        y = ops.convolution_backprop_data(x, ops.constant(weight), list(stride))
        return y if bias is None else ops.add(y, self._per_channel(bias))

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

    def enlarge(self, x: Any, factors: Sequence[int]) -> Any:
        return ops.interpolate(x, ops.constant(np.array(factors, np.float32)), "linear_onnx", "scales", axes=self.axes)

    def join(self, values: Sequence[Any]) -> Any:
        return ops.concat(list(values), 1)

    def _per_channel(self, values: Array) -> Any:
        return ops.constant(values.reshape(1, -1, *[1] * self.dims))
