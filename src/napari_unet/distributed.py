"""Several processes that train one model, as torchrun starts them. A process alone is the first of one: all of this is nothing.

The first process decides everything and alone reads and writes the run's folder: it tells the others each step, they compute
their share of its batch. The loss is made of sums over voxels (see `loss`) and gradients add up, so that the outcome is
that of one process with the whole batch, but for rounding. Gradients go as one message after the backward pass, by a plain
all-reduce: DistributedDataParallel would hide a part of that behind the backward pass, milliseconds for a few million weights,
and would ask for a wrapper around the network, for an average where we need a sum, and for samples in every process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from napari_unet.errors import UNetError, first_line
from napari_unet.schema import decode, encode

TIMEOUT = timedelta(hours=4)  # a process that ends is noticed at once; this is for one that hangs, and longer than any scoring


def size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _at_work() else 1


def is_first() -> bool:
    """Is this the process that decides, writes and prints?"""
    return (dist.get_rank() if _at_work() else int(os.environ.get("RANK", "0"))) == 0


def own(batch: int) -> range:
    """The numbers of a batch's samples that are this process's; none, where there are more processes than samples."""
    return range(dist.get_rank(), batch, size()) if _at_work() else range(batch)


def _at_work() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def joined() -> Iterator[None]:
    """Work with the processes that torchrun started, until the outermost of these ends: then the others are told so.

    Where something goes wrong in between, perhaps in the middle of a step, this process leaves without a word, and the
    others end as soon as they notice.
    """
    if _at_work() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        outermost = False
    else:
        outermost = True
        _join()
    try:
        yield
    except GeneratorExit:  # closed between two steps
        raise
    except BaseException:
        _leave()
        raise
    finally:
        if outermost and _at_work():
            tell(None)
            _leave()


def _join() -> None:
    cards, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if local < cards:
        torch.cuda.set_device(local)
    enough = cards >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")) and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if enough and cards else "gloo", timeout=TIMEOUT)


def _leave() -> None:
    if _at_work():
        dist.destroy_process_group()


def tell(word: Any) -> None:
    """Say a dataclass to the other processes, or None: that it is over. Only the first one speaks."""
    if size() == 1 or not is_first():
        return
    text = b"" if word is None else f"{type(word).__name__} {encode(word)}".encode()
    _collect(_from_first, torch.tensor([len(text)]))
    if text:
        _collect(_from_first, torch.frombuffer(bytearray(text), dtype=torch.uint8))


def told(*kinds: type) -> Any:
    """What the first process says next: one of these dataclasses, or None."""
    length = torch.zeros(1, dtype=torch.int64)
    _collect(_from_first, length)
    if not length:
        return None
    text = torch.empty(int(length), dtype=torch.uint8)
    _collect(_from_first, text)
    name, content = bytes(text.numpy()).split(b" ", 1)
    return decode(next(kind for kind in kinds if kind.__name__ == name.decode()), content, "the first process")


def _from_first(tensor: Tensor) -> None:
    dist.broadcast(tensor, 0)


def _collect(operate: Callable[[Tensor], object], tensor: Tensor) -> None:
    """One operation of all processes. UNetError, not torch's RuntimeError, where one of them has gone."""
    try:
        operate(tensor)
    except RuntimeError as error:
        raise UNetError("training", f"another of its processes has ended ({first_line(error)})",
                        "Its own message says why; go on with --resume") from error  # fmt: skip


class _Sum(torch.autograd.Function):
    """The sum over processes. All go on from it to the same loss: so its gradient is, as it is, each part's gradient."""

    @staticmethod
    def forward(context: Any, part: Tensor) -> Tensor:
        total = part.clone()
        _collect(dist.all_reduce, total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


def together(part: Tensor) -> Tensor:
    """The sum of all processes' parts, to be differentiated; the gradients that follow have to be added up."""
    return _Sum.apply(part) if size() > 1 else part


def add_up(tensors: list[Tensor]) -> None:
    """Each tensor becomes its sum over the processes."""
    if size() > 1:
        _as_one(tensors, dist.all_reduce)


def spread(tensors: list[Tensor]) -> None:
    """Each tensor becomes what it is in the first process."""
    if size() > 1:
        _as_one(tensors, _from_first)


def _as_one(tensors: list[Tensor], operate: Callable[[Tensor], object]) -> None:
    """One message for all: many small ones take longer to begin than to arrive."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    _collect(operate, flat)
    with torch.no_grad():
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))
