"""What makes a step fast on the machine at hand: half precision, compilation. What is learnt changes by rounding only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from napari_unet.errors import first_line
from napari_unet.network import UNet
from napari_unet.settings import TrainConfig

COMPILE_MINUTES = 30.0  # on an H100 compiling takes 20 s for each of three patch sizes, and a step then a twelfth less
FAILURES = (RuntimeError, ImportError, OSError, AttributeError, AssertionError)  # of a compiler, by way of torch


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
