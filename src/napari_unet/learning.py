"""The part of training that is torch: one step, the weights' average, and the state that resuming needs."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet.errors import UNetError
from napari_unet.loss import supervise
from napari_unet.network import UNet
from napari_unet.optimiser import optimisers
from napari_unet.sampling import Sampler
from napari_unet.schedule import Schedule, Stage
from napari_unet.spec import ModelSpec, TrainConfig
from napari_unet.weights import load_tensors, save_tensors

CLIP = 1.0
FORMAT = "napari-unet resume 1"


class Learner:
    """A network being trained. `step` is deterministic in (seed, step), so that a restored run repeats an unbroken one."""

    def __init__(self, spec: ModelSpec, config: TrainConfig, device: torch.device, sampler: Sampler) -> None:
        self.spec, self.config, self.device, self.sampler = spec, config, device, sampler
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = UNet(spec.network)
        self.network = network.to(device).in_fast_layout()
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimisers = optimisers(self.network, config)
        self.done = 0  # steps
        self.whole = True  # not while a step changes the weights: nobody can go on from there

    def start_from(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Begin with these weights instead of those that the seed gives. Raises UNetError where they do not fit."""
        try:
            for module in (self.network, self.averaged):
                module.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()}, strict=True)
        except RuntimeError as error:
            raise UNetError("training", f"the weights to begin with do not fit ({str(error).splitlines()[-1].strip()[:160]})",
                            "Plan the model from the one that they are of") from error  # fmt: skip

    def step(self, step: int, schedule: Schedule) -> Tensor:
        """Learn from one batch; its loss."""
        stage, first = schedule.at(step)
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group["lr"] = group["ratio"] * schedule.rate(step, self.config.rate)
        self.whole = self.spec.network.norm != "batch"  # whose statistics change in the forward pass
        loss = self._descend(stage, step, first)
        self._follow(step, schedule.steps)
        self.done = step + 1
        self.whole = True
        return loss

    def _descend(self, stage: Stage, step: int, first: int) -> Tensor:
        try:
            return self._update(stage, step, first)
        except (RuntimeError, MemoryError) as error:
            line = (str(error).splitlines() or ["no memory"])[0]
            raise UNetError("training", f"{stage.batch} patches of {stage.patch} cannot be learnt from on {self.device} "
                            f"({line[:160]})", "Use a smaller patch (--patch) or batch (--batch)") from error  # fmt: skip

    def _update(self, stage: Stage, step: int, first: int) -> Tensor:
        images, shares = self.sampler.batch(step, first, stage.patch, stage.batch)
        images, shares = images.to(self.device), shares.to(self.device)
        if self.spec.network.dims == 2:
            images, shares = images[:, :, 0], shares[:, :, 0]
        loss = supervise(self.network.multiscale(images), shares)
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.whole = False
        for optimiser in self.optimisers:
            optimiser.step()
        return loss.detach()

    def _follow(self, step: int, steps: int) -> None:
        """The average moves towards the weights; its memory grows with the run up to the configured share of it."""
        memory = min(max(1.0, self.config.memory * steps), 1 + step / 4)
        new, old = self.network.state_dict().values(), self.averaged.state_dict().values()
        with torch.no_grad():
            torch._foreach_lerp_(list(old), list(new), 1 / memory)

    def average(self) -> dict[str, NDArray[np.float32]]:
        """The averaged weights."""
        return _arrays(self.averaged)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The weights as they are."""
        return _arrays(self.network)

    def finite(self) -> bool:
        """Are the weights numbers? What once was not stays in the average."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.averaged.state_dict().values())

    def measure(self, stages: list[Stage], seconds: float) -> list[float]:
        """Median seconds per step of each stage, measured on a copy that is thrown away."""
        twin = Learner(self.spec, self.config, self.device, self.sampler)
        costs = []
        for stage in stages:
            times: list[float] = []
            until = time.perf_counter() + seconds / len(stages)
            while len(times) < 4 or time.perf_counter() < until:
                began = time.perf_counter()
                float(twin._descend(stage, len(times), 0))
                twin._follow(len(times), 100)
                times.append(time.perf_counter() - began)
            costs.append(statistics.median(times[1:]))
        return costs

    def save(self, path: Path) -> None:
        """Everything that the next step depends on, atomically."""
        named = {f"network.{n}": a for n, a in _arrays(self.network).items()}
        named |= {f"average.{n}": a for n, a in _arrays(self.averaged).items()}
        for name, optimiser, parameter in self._owned():
            for key, value in optimiser.state.get(parameter, {}).items():
                if key != "step":
                    named[f"{key}.{name}"] = value.cpu().numpy()
        save_tensors(path, named, {"format": FORMAT, "step": str(self.done)})

    def restore(self, path: Path) -> None:
        """The state that `save` wrote. Raises UNetError where it belongs to another network."""
        tensors, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise UNetError(path, f"its format is {metadata.get('format')!r}", "Begin anew without --resume")
        try:
            for prefix, module in (("network.", self.network), ("average.", self.averaged)):
                part = {n.removeprefix(prefix): torch.tensor(a) for n, a in tensors.items() if n.startswith(prefix)}
                module.load_state_dict(part, strict=True)
            step = int(metadata["step"])
            for name, optimiser, parameter in self._owned():
                if step:
                    optimiser.state[parameter] = self._moments(tensors, name, parameter, step)
        except (KeyError, ValueError, RuntimeError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise UNetError(path, f"it does not fit this run ({first[:160]})", "Begin anew without --resume") from error
        self.done = step

    def _moments(self, tensors: dict[str, Any], name: str, parameter: Tensor, step: int) -> dict[str, Tensor]:
        muon = f"momentum.{name}" in tensors
        moments = {key: torch.tensor(tensors[f"{key}.{name}"]) for key in (("momentum",) if muon else ("exp_avg", "exp_avg_sq"))}
        placed = {key: torch.empty_like(parameter).copy_(value) for key, value in moments.items()}
        return placed if muon else placed | {"step": torch.tensor(float(step), device=parameter.device)}

    def _owned(self) -> Iterator[tuple[str, torch.optim.Optimizer, torch.nn.Parameter]]:
        """Every parameter with its name and the optimiser that moves it."""
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                yield from ((names[parameter], optimiser, parameter) for parameter in group["params"])


def _arrays(network: UNet) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in network.state_dict().items()}
