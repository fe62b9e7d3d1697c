"""OpenVINO: the faster runtime on x86 processors. Imported only where it runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet.calibration import Ranges
from napari_unet.errors import UNetError, first_line
from napari_unet.network import UNet
from napari_unet.openvino_graph import unet
from napari_unet.quiet_openvino import openvino
from napari_unet.speed import alone, giving_way
from napari_unet.torch_runtime import check_finite, mirrorings

STREAMS = 4  # windows that run at once, at most: each has the features of all levels in memory
FEATURE_MAPS = 5.5  # see `runtime.Runtime`; 4.5 to 5 were measured
FAILURES = (RuntimeError, MemoryError)


class OpenVINORuntime:
    """As many windows at once as there are threads, up to STREAMS, and one more that waits its turn; all threads for a lone one."""

    feature_maps = FEATURE_MAPS

    def __init__(
        self, networks: Sequence[UNet], mirror_axes: tuple[int, ...], ranges: Ranges | None = None, background: bool = False
    ) -> None:
        self.flips = mirrorings(mirror_axes)
        self.flat = networks[0].spec.dims == 2
        self.background = background
        self.threads = torch.get_num_threads()
        self.streams = min(self.threads, STREAMS)
        self.in_flight = self.streams + 1
        with _compiling():
            self.model = unet(networks, ranges)
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
                make = partial(openvino.Core().compile_model, self.model, "CPU", settings)
                with giving_way() if self.background else nullcontext() as apart:  # its threads are as those that make them
                    self._compiled[streams, threads] = _Compiled(apart.submit(make).result() if apart else make())
            return self._compiled[streams, threads]

    def place(self, nbytes: int) -> torch.device:
        """See `runtime.Runtime.place`."""
        return torch.device("cpu")

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
