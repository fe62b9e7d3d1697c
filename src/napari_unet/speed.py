"""What makes a step fast on the machine at hand: threads, half precision, compilation. What is learnt changes by rounding only."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from napari_unet.errors import UNetError, first_line
from napari_unet.network import UNet
from napari_unet.spec import TrainConfig

COMPILE_MINUTES = 30.0  # on an H100 compiling takes 20 s for each of three patch sizes, and a step then a twelfth less
FAILURES = (RuntimeError, ImportError, OSError, AttributeError, AssertionError)  # of a compiler, by way of torch
NICE = 10  # of 19: two threads of this kind leave a third one nine tenths of a core


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads of torch for the time being; None leaves them as they are."""
    if count is not None and count < 1:
        raise UNetError("--threads", f"{count} threads", "Use 1 or more")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def alone(count: int) -> Iterator[None]:
    """torch keeps to the calling thread for the time being, and then to `count` threads: while others compute, its own would spin.

    The number is a thread's own; but setting it also says what threads begin with that are new to torch, who are not meant.
    """
    _here(1, count)
    try:
        yield
    finally:
        _here(count, count)


def _here(count: int, elsewhere: int) -> None:
    torch.set_num_threads(count)
    other = threading.Thread(target=torch.set_num_threads, args=(elsewhere,))
    other.start()
    other.join()


def giving_way() -> ThreadPoolExecutor:
    """A thread that gives way to others, as do those that it starts, so that a window is drawn at once while it computes.

    On Linux, where a priority is a thread's own; elsewhere it is one like others.
    """
    return ThreadPoolExecutor(1, initializer=_give_way)


def _give_way() -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def half(config: TrainConfig, device: torch.device) -> bool:
    """Are convolutions computed in bfloat16? Where a card or a processor has units for it, unless the user says otherwise.

    Weights stay float32. A processor's units are Intel's AMX: without them (AVX-512 alone) bfloat16 takes longer than float32.
    """
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.6 cannot tell
    return device.type == "cpu" and bool(known.get("amx_bf16"))


def precision(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a network runs forward. bfloat16 has float32's range: no scaling of the loss is needed."""
    return torch.autocast(device.type, torch.bfloat16) if half(config, device) else nullcontext()


def repays(config: TrainConfig, device: torch.device) -> bool:
    """Is a network to be compiled? As the user says, or on a CUDA card where the minutes hold it several times over."""
    if config.compile is not None:
        return config.compile
    return device.type == "cuda" and config.minutes is not None and config.minutes >= COMPILE_MINUTES


def compiled(
    network: UNet, inputs: list[tuple[int, ...]], device: torch.device, config: TrainConfig
) -> tuple[Callable[[Tensor, Tensor], list[Tensor]], str]:
    """`network.multiscale` compiled for inputs of these shapes, or as it is, and then why; its gradients are lost."""
    try:
        forward = torch.compile(network.multiscale, dynamic=False)
        for shape in inputs:
            with torch.enable_grad():  # as in `Learner._descend`
                with precision(config, device):
                    logits = forward(torch.zeros(shape, device=device), torch.ones(shape[0], network.droppable, device=device))
                torch.stack([scale.float().mean() for scale in logits]).sum().backward()
    except FAILURES as error:
        return network.multiscale, f"the network cannot be compiled here, and is run as it is ({first_line(error)})"
    finally:
        network.zero_grad(set_to_none=True)
    return forward, ""
