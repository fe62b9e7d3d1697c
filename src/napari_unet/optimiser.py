"""How weights follow gradients: orthogonalised momentum (Muon) for the convolutions' kernels, AdamW for all else.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon). A kernel
moves by the same amount in all directions that its gradient spans, rather than mostly along the few strongest ones:
fewer steps for the same Dice, which is what counts where a step takes long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from napari_unet.settings import TrainConfig

BETAS = (0.9, 0.99)
MOMENTUM = 0.9  # its authors have 0.95, which takes longer to get going: docs/experiments.md
RATIO = 10.0  # a kernel's rate, as multiples of AdamW's: its step has unit size, not unit size per weight
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: steep at zero, near one after five steps
STEPS = 5
OUTER = ("encoder.stages.0.0.convs.0.", "decoder.seg_layers.")  # what reads images and writes logits is left to AdamW


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The nearest matrices with all singular values about one (0.7 to 1.2), by Newton-Schulz iteration; each keeps its shape.

    Each iteration multiplies by a polynomial of the matrix times its transpose. These are multiplied with one another and
    only then with the matrix, because a kernel has many more columns than rows; those of one size, all at once.
    """
    wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    wide = [matrix / (norm + 1e-7) for matrix, norm in zip(wide, torch._foreach_norm(wide), strict=True)]
    found = list(wide)
    for rows in sorted({len(matrix) for matrix in wide}):
        chosen = [n for n, matrix in enumerate(wide) if len(matrix) == rows]
        for n, factor in zip(chosen, _factors(torch.stack([wide[n] @ wide[n].T for n in chosen])), strict=True):
            found[n] = factor @ wide[n]
    return [turned.T if turned.shape != matrix.shape else turned for turned, matrix in zip(found, matrices, strict=True)]


def _factors(square: Tensor) -> Tensor:
    """What orthogonalises matrices, from their products with their transposes (B, m, m)."""
    a, b, c = QUINTIC
    one = whole = torch.eye(square.shape[-1], dtype=square.dtype, device=square.device).expand_as(square)
    for _ in range(STEPS):
        factor = torch.baddbmm(a * one + b * square, square, square, alpha=c)
        whole, square = factor @ whole, factor @ square @ factor
    return whole


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised per kernel, with decoupled weight decay. A kernel (a, b, ...) counts as a matrix (a, b...)."""

    def __init__(self, kernels: Iterable[nn.Parameter], rate: float | Tensor, decay: float) -> None:
        super().__init__(kernels, {"lr": rate, "weight_decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Follow the gradients once."""
        for group in self.param_groups:
            kernels, grads = group["params"], [kernel.grad for kernel in group["params"]]
            momenta = [self.state[kernel].setdefault("momentum", torch.zeros_like(kernel)) for kernel in kernels]
            torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
            ahead = [each.flatten(1) for each in torch._foreach_lerp(grads, momenta, MOMENTUM)]  # Nesterov's
            moves = [move.reshape(kernel.shape) for move, kernel in zip(orthogonalised(ahead), kernels, strict=True)]
            torch._foreach_mul_(moves, [math.sqrt(max(1.0, each.shape[0] / each.shape[1])) for each in ahead])
            torch._foreach_mul_(moves, group["lr"])
            torch._foreach_mul_(kernels, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_sub_(kernels, moves)


def moments_of(optimiser: torch.optim.Optimizer) -> tuple[str, ...]:
    """The names of what it remembers of each parameter, beside the number of steps."""
    return ("momentum",) if isinstance(optimiser, Muon) else ("exp_avg", "exp_avg_sq")


def optimisers(network: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """What moves the weights of a U-Net: one optimiser each for kernels and for the rest, or AdamW for all."""
    kernels = [p for name, p in network.named_parameters() if p.ndim > 2 and not name.startswith(OUTER)]
    kernels = kernels if config.optimiser == "muon" else []
    chosen = {id(kernel) for kernel in kernels}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    device = rest[0].device
    rates: list[float] | list[Tensor] = [config.rate, RATIO * config.rate]
    if device.type == "cuda":  # a recorded step reads them anew (see `cuda_graph`)
        rates = [torch.tensor(rate, device=device) for rate in rates]
    adamw = torch.optim.AdamW(rest, rates[0], BETAS, weight_decay=config.decay, fused=device.type in ("cpu", "cuda"),
                              capturable=device.type == "cuda")  # fmt: skip
    found: list[torch.optim.Optimizer] = [adamw]
    if kernels:
        found.append(Muon(kernels, rates[1], config.decay))
    return found


def set_rate(found: list[torch.optim.Optimizer], rate: float) -> None:
    """AdamW's rate at this step, and what it means for the others."""
    for optimiser in found:
        for group in optimiser.param_groups:
            own = RATIO * rate if isinstance(optimiser, Muon) else rate
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(own)
            else:
                group["lr"] = own
