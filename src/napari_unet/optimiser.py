"""How weights follow gradients: orthogonalised momentum (Muon) for the convolutions' kernels, AdamW for all else.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon). A kernel
moves by the same amount in all directions that its gradient spans, rather than mostly along the few strongest ones:
fewer steps for the same Dice, which is what counts where a step takes long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from napari_unet.spec import TrainConfig

BETAS = (0.9, 0.99)
MOMENTUM = 0.9  # its authors have 0.95, which takes longer to get going: docs/experiments.md
RATIO = 10.0  # a kernel's rate, as multiples of AdamW's: its step has unit size, not unit size per weight
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: steep at zero, near one after five steps
STEPS = 5
OUTER = ("encoder.stages.0.0.convs.0.", "decoder.seg_layers.")  # what reads images and writes logits is left to AdamW


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix with all singular values about one (0.7 to 1.2), by Newton-Schulz iteration; (m, n) -> (m, n).

    Each iteration multiplies by a polynomial of the matrix times its transpose. These are multiplied with one another and
    only then with the matrix, because a kernel has many more columns than rows.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    square = x @ x.T
    one = whole = torch.eye(len(square), dtype=x.dtype, device=x.device)
    for _ in range(STEPS):
        factor = torch.addmm(a * one + b * square, square, square, alpha=c)
        whole, square = factor @ whole, factor @ square @ factor
    found: Tensor = whole @ x
    return found.T if tall else found


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised per kernel, with decoupled weight decay. A kernel (a, b, ...) counts as a matrix (a, b...)."""

    def __init__(self, kernels: Iterable[nn.Parameter], rate: float, decay: float) -> None:
        super().__init__(kernels, {"lr": rate, "weight_decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Follow the gradients once."""
        for group in self.param_groups:
            for kernel in group["params"]:
                state: dict[str, Any] = self.state[kernel]
                momentum = state.setdefault("momentum", torch.zeros_like(kernel))
                momentum.lerp_(kernel.grad, 1 - MOMENTUM)
                ahead = kernel.grad.lerp(momentum, MOMENTUM).flatten(1)  # Nesterov's
                move = orthogonalised(ahead) * math.sqrt(max(1.0, ahead.shape[0] / ahead.shape[1]))
                kernel.mul_(1 - group["lr"] * group["weight_decay"]).add_(move.reshape(kernel.shape), alpha=-group["lr"])


def moments_of(optimiser: torch.optim.Optimizer) -> tuple[str, ...]:
    """The names of what it remembers of each parameter, beside the number of steps."""
    return ("momentum",) if isinstance(optimiser, Muon) else ("exp_avg", "exp_avg_sq")


def optimisers(network: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """What moves the weights of a U-Net: one optimiser each for kernels and for the rest, or AdamW for all."""
    kernels = [p for name, p in network.named_parameters() if p.ndim > 2 and not name.startswith(OUTER)]
    kernels = kernels if config.optimiser == "muon" else []
    chosen = {id(kernel) for kernel in kernels}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    fused = rest[0].device.type in ("cpu", "cuda")
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, config.rate, BETAS, weight_decay=config.decay, fused=fused)]
    if kernels:
        found.append(Muon(kernels, RATIO * config.rate, config.decay))
    return found


def set_rate(found: list[torch.optim.Optimizer], rate: float) -> None:
    """AdamW's rate at this step, and what it means for the others."""
    for optimiser in found:
        for group in optimiser.param_groups:
            group["lr"] = RATIO * rate if isinstance(optimiser, Muon) else rate
