"""OpenVINO: the faster runtime on x86 processors. Imported only where it runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from itertools import chain, islice
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
from napari_unet.threads import alone, giving_way
from napari_unet.torch_runtime import check_finite, mirrorings

STREAMS = 4  # windows that run at once, at most: each has the features of all levels in memory
REPAYS = 40  # windows of one shape: a graph for that shape alone takes 7 % less for each of them, and 0.08 s to compile
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
        self._seen: tuple[tuple[int, ...] | None, int] = (None, 0)  # the newest windows' shape, and how many of it there were
        self._lock = threading.Lock()

    def _with_streams(self, streams: int, threads: int, shape: tuple[int, ...] | None) -> _Compiled:
        """The model compiled so that so many windows run at once, of this shape alone or of any, when that is first needed.

        Most uses need one way only; one that is for windows of another shape goes first, and its memory with it.
        """
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16, where a processor has it, would be another mask
            "ENABLE_CPU_PINNING": False,  # a thread must not wait for a core that another program keeps
        }  # fmt: skip
        with _compiling(), self._lock:
            if (streams, threads) in self._compiled and self._compiled[streams, threads].shape != shape:
                del self._compiled[streams, threads]
            if (streams, threads) not in self._compiled:
                make = partial(openvino.Core().compile_model, self._graph(shape), "CPU", settings)
                with giving_way() if self.background else nullcontext() as apart:  # its threads are as those that make them
                    self._compiled[streams, threads] = _Compiled(apart.submit(make).result() if apart else make(), shape)
            return self._compiled[streams, threads]

    def _graph(self, shape: tuple[int, ...] | None) -> Any:
        """The model for windows (C, z, y, x) of this shape alone, or of any."""
        if shape is None:
            return self.model
        graph = self.model.clone()
        graph.reshape([1, shape[0], *shape[2 if self.flat else 1 :]])
        return graph

    def _often(self, shape: tuple[int, ...], jobs: int) -> bool:
        """Are there so many windows of this shape, with the `jobs` that come now, that a graph of their own repays?"""
        newest, seen = self._seen
        self._seen = shape, jobs + (seen if newest == shape else 0)
        return self._seen[1] >= REPAYS

    def place(self, nbytes: int) -> torch.device:
        """See `runtime.Runtime.place`."""
        return torch.device("cpu")

    def each(self, windows: Iterable[Tensor], in_flight: int | None = None, count: int | None = None) -> Generator[Tensor]:
        """See `runtime.Runtime.each`."""
        in_flight = min(in_flight or self.in_flight, self.in_flight)
        jobs, rest = (count or 0) * len(self.flips), iter(windows)
        first = list(islice(rest, min(jobs, 1)))
        shape = tuple(first[0].shape) if first and self._often(first[0].shape, jobs) else None
        if jobs == 1:
            yield from self._averaged(self._with_streams(1, self.threads, shape), chain(first, rest), in_flight)
        else:
            streams = max(1, in_flight - 1)  # each keeps a window's features; its threads are as many as among all streams
            compiled = self._with_streams(streams, self.threads * streams // self.streams, shape)
            with alone(self.threads):
                yield from self._averaged(compiled, chain(first, rest), in_flight)

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
    """A compiled model, for windows of this shape alone or of any, and its requests that are not at work.

    Making one takes a quarter of the time of a window.
    """

    def __init__(self, model: Any, shape: tuple[int, ...] | None) -> None:
        self.model, self.shape, self._idle = model, shape, list[Any]()

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
