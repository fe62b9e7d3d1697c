"""OpenVINO: the faster runtime on x86 processors. Imported only where it runs.

The graph is built operation by operation (`lowering`). OpenVINO's own `convert_model` would report its use over the
network unasked, and its graph of our network is slower: it reorders around every normalisation.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet.calibration import Range, Ranges
from napari_unet.errors import UNetError, first_line
from napari_unet.lowering import Array, lower
from napari_unet.network import UNet
from napari_unet.quiet_openvino import openvino, ops
from napari_unet.speed import alone
from napari_unet.torch_runtime import check_finite, mirrorings

STREAMS = 4  # windows that run at once, at most: each has the features of all levels in memory
FEATURE_MAPS = 5.5  # see `runtime.Runtime`; 4.5 to 5 were measured
NARROW = 8  # channels: convolutions of fewer, the first and the last, are quick already, and the image stays exact
FAILURES = (RuntimeError, MemoryError)


class OpenVINORuntime:
    """As many windows at once as there are threads, up to STREAMS, and one more that waits its turn; all threads for a lone one."""

    feature_maps = FEATURE_MAPS

    def __init__(self, networks: Sequence[UNet], mirror_axes: tuple[int, ...], ranges: Ranges | None = None) -> None:
        self.flips = mirrorings(mirror_axes)
        self.flat = networks[0].spec.dims == 2
        self.threads = torch.get_num_threads()
        self.streams = min(self.threads, STREAMS)
        self.in_flight = self.streams + 1
        with _compiling():
            self.model = _model(networks, ranges)
        self._compiled: dict[tuple[int, int], _Compiled] = {}  # by streams and threads
        self._lock = threading.Lock()

    def _with_streams(self, streams: int, threads: int) -> _Compiled:
        """The model compiled so that so many windows run at once, when that is first needed: most uses need one way only."""
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16, where a processor has it, would be another mask
            "ENABLE_CPU_PINNING": False,  # a thread must not wait for a core that another program keeps
        }  # fmt: skip
        with _compiling(), self._lock:
            if (streams, threads) not in self._compiled:
                self._compiled[streams, threads] = _Compiled(openvino.Core().compile_model(self.model, "CPU", settings))
            return self._compiled[streams, threads]

    def each(self, windows: Iterable[Tensor], in_flight: int | None = None, count: int | None = None) -> Generator[Tensor]:
        """See `runtime.Runtime.each`."""
        in_flight = min(in_flight or self.in_flight, self.in_flight)
        if (count or 0) * len(self.flips) == 1:
            yield from self._averaged(self._with_streams(1, self.threads), windows, in_flight)
        else:
            streams = max(1, in_flight - 1)  # each keeps a window's features; its threads are as many as among all streams
            compiled = self._with_streams(streams, self.threads * streams // self.streams)
            with alone(self.threads):
                yield from self._averaged(compiled, windows, in_flight)

    def _averaged(self, compiled: _Compiled, windows: Iterable[Tensor], in_flight: int) -> Generator[Tensor]:
        """Logits of each window, averaged over its mirror images."""
        with closing(self._answers(compiled, self._jobs(windows), in_flight)) as answers:
            while copies := list(islice(answers, len(self.flips))):
                total = copies[0]
                for logits, flips in zip(copies[1:], self.flips[1:], strict=True):
                    total += np.flip(logits, flips)
                yield check_finite(torch.from_numpy(total / len(copies) if len(copies) > 1 else total))

    def _jobs(self, windows: Iterable[Tensor]) -> Iterator[NDArray[np.float32]]:
        """Each window (1, C, [z,] y, x) mirrored in every way."""
        for window in windows:
            for flips in self.flips:
                job = np.flip(window.numpy()[None], flips)
                yield np.ascontiguousarray(job[:, :, 0] if self.flat else job)

    def _answers(self, compiled: _Compiled, jobs: Iterable[NDArray[np.float32]], in_flight: int) -> Generator[NDArray[np.float32]]:
        """Logits (members, K, z, y, x) of each job, in order; the next ones run meanwhile."""
        running: deque[tuple[Any, NDArray[np.float32]]] = deque()
        try:
            for job in jobs:
                done = self._finished(compiled, *running.popleft()) if len(running) == in_flight else None
                with _failures(job):
                    running.append((compiled.start(job), job))
                if done is not None:
                    yield done
            while running:
                yield self._finished(compiled, *running.popleft())
        finally:
            for request, _ in running:
                request.cancel()
            for request, _ in running:
                with suppress(RuntimeError):  # says that it was cancelled
                    request.wait()

    def _finished(self, compiled: _Compiled, request: Any, job: NDArray[np.float32]) -> NDArray[np.float32]:
        with _failures(job):
            logits = compiled.finish(request)
        return logits[:, :, None] if self.flat else logits


class _Compiled:
    """A compiled model, and its requests that are not at work: making one takes a quarter of the time of a window."""

    def __init__(self, model: Any) -> None:
        self.model, self._idle = model, list[Any]()

    def start(self, job: NDArray[np.float32]) -> Any:
        """A request, at work on a window that it does not copy."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.model.create_infer_request()
        request.start_async({0: job}, share_inputs=True)
        return request

    def finish(self, request: Any) -> NDArray[np.float32]:
        """What a request has found, once it has."""
        request.wait()
        logits: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        self._idle.append(request)
        return logits


@contextmanager
def _compiling() -> Iterator[None]:
    """What OpenVINO complains of in a network, as a UNetError."""
    try:
        yield
    except FAILURES as error:
        raise UNetError("network", f"OpenVINO cannot run it ({first_line(error)})", "Use --runtime torch") from error


@contextmanager
def _failures(job: NDArray[np.float32]) -> Iterator[None]:
    """What it complains of in a window."""
    try:
        yield
    except FAILURES as error:
        raise UNetError("network", f"windows of {job.shape[2:]} cannot be run by OpenVINO ({first_line(error)})",
                        "Close other programs, or use --runtime torch") from error  # fmt: skip


def _model(networks: Sequence[UNet], ranges: Ranges | None) -> Any:
    """One graph of all members: (1, C, [z,] y, x), of any size, to logits (members, K, [z,] y, x)."""
    spec = networks[0].spec
    window = ops.parameter([1, spec.channels, *[-1] * spec.dims], np.float32)
    if ranges is None:
        logits = [lower(network, window, _Operations(spec.dims)) for network in networks]
    elif len(ranges) != len(networks):
        raise UNetError("int8", f"it was calibrated for {len(ranges)} members, not for {len(networks)}", "Calibrate it anew")
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

    def enlarge(self, x: Any, factors: Sequence[int]) -> Any:
        return ops.interpolate(x, ops.constant(np.array(factors, np.float32)), "linear_onnx", "scales", axes=self.axes)

    def join(self, values: Sequence[Any]) -> Any:
        return ops.concat(list(values), 1)

    def _per_channel(self, values: Array) -> Any:
        return ops.constant(values.reshape(1, -1, *[1] * self.dims))


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
