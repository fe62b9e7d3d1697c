"""Work on a CUDA card that is recorded once and then replayed (a CUDA graph).

A step of a small U-Net is a thousand short kernels, and a card is done with each before the host has asked for the next one.
Replayed, they are asked for at once.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

BEFORE = 3  # times that it runs as it is: libraries choose their kernels, optimisers make their moments


class Replayed:
    """A function of tensors on a card that always does the same to tensors of the same shapes.

    Whatever else it reads or changes has to stay where it lies: weights and moments are changed in place, rates are tensors.
    Of each set of shapes the first calls run as they are, the next one is recorded, and from then on it is replayed. What
    the function does besides computing, as in Python, happens no more.
    """

    def __init__(self, work: Callable[..., Tensor], device: torch.device) -> None:
        self.work, self.stream = work, torch.cuda.Stream(device)
        self.calls: Counter[tuple[torch.Size, ...]] = Counter()
        self.recordings: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """A copy of what the function returns."""
        shapes = tuple(tensor.shape for tensor in inputs)
        self.calls[shapes] += 1
        if self.calls[shapes] == BEFORE + 1:
            self._record(shapes, inputs)
        if shapes not in self.recordings:
            return self._aside(inputs)
        graph, places, result = self.recordings[shapes]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return result.clone()

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Run as it is, on the stream that will be recorded."""
        here = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*capturable=True.*")  # slower than need be for a step that is not recorded
            result = self.work(*inputs)
        here.wait_stream(self.stream)
        return result

    def _record(self, shapes: tuple[torch.Size, ...], inputs: tuple[Tensor, ...]) -> None:
        """Nothing is computed yet. What cannot be recorded, for want of memory perhaps, goes on as it is."""
        with suppress(RuntimeError):
            places, graph = tuple(tensor.clone() for tensor in inputs), torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):  # others may use the card
                result = self.work(*places)
            self.recordings[shapes] = graph, places, result
