"""The part of training that is torch: one step, the weights' average, and the state that resuming needs."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet import distributed, speed, threads
from napari_unet.augment import to_device
from napari_unet.cuda_graph import Replayed
from napari_unet.errors import UNetError, first_line
from napari_unet.loss import supervise
from napari_unet.network import UNet
from napari_unet.optimiser import moments_of, optimisers, set_rate
from napari_unet.orders import Order, State
from napari_unet.sampling import Sampler
from napari_unet.schedule import Schedule, Stage, stages
from napari_unet.settings import TrainConfig
from napari_unet.spec import ModelSpec
from napari_unet.weights import MAX_FILE, MAX_HEADER, load_tensors, save_tensors

CLIP = 1.0
FORMAT = "napari-unet resume 1"


class Learner:
    """A network being trained. `step` is deterministic in (seed, step), so that a restored run repeats an unbroken one.

    `note` says what could not be had, and why. Of several processes (see `distributed`) only the first one calls `step` and
    `measure`; the others `learn` and `take_over` as they are told.
    """

    def __init__(self, spec: ModelSpec, config: TrainConfig, device: torch.device, sampler: Sampler) -> None:
        self.spec, self.config, self.device, self.sampler = spec, config, device, sampler
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = UNet(spec.network)
        if spec.network.norm == "batch" and distributed.size() > 1:
            raise UNetError("network", "norm is batch: each process would go by the statistics of its own samples",
                            "Use one process")  # fmt: skip
        self.network = network.to(device)
        if device.type != "cuda":  # where cuDNN arranges itself, and this norm would turn everything back (pytorch 59168)
            self.network.in_fast_layout()
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.forward: Callable[[Tensor, Tensor], list[Tensor]] = self.network.multiscale
        self.note = ""
        if speed.repays(config, device):
            self.forward, self.note = speed.compiled(self.network, self._shapes(), device, config)
            self.network.load_state_dict(self.averaged.state_dict())  # batch norm's statistics
        self.optimisers = optimisers(self.network, config)
        recorded = device.type == "cuda" and distributed.size() == 1
        self.compute: Callable[[Tensor, Tensor, Tensor], Tensor] = Replayed(self._compute, device) if recorded else self._compute
        self.followed = [list(module.state_dict().values()) for module in (self.averaged, self.network)]  # all stay where they lie
        self.fastest = threads.Fastest() if self._chooses_threads() else None
        self._begin_at(0)
        size = sum(4 * tensor.numel() for tensor in self._state().values())
        if size > MAX_FILE - MAX_HEADER:
            raise UNetError("network", f"what resuming needs of it takes {size:,} bytes, more than a file may have ({MAX_FILE:,})",
                            "Use fewer features (--features)")  # fmt: skip

    def _chooses_threads(self) -> bool:
        """In a run by minutes; one of so many steps is to be the same whatever else the machine does, up to the last bit.

        A compiled network would be compiled anew for each number.
        """
        asked = self.config.threads is not None or self.config.steps is not None or speed.repays(self.config, self.device)
        return self.device.type == "cpu" and distributed.size() == 1 and not asked

    def _shapes(self) -> list[tuple[int, ...]]:
        """Those of the network's inputs over the run."""
        dims, channels = self.spec.network.dims, self.spec.network.channels
        return [(len(distributed.own(s.batch)), channels, *s.patch[3 - dims :]) for s in stages(self.spec, self.config)]

    def clock(self) -> float:
        """Seconds, once the device has done all that it was asked for; elsewhere nothing waits for a card."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()

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
        order = Order(step, first, stage, self.rate(step, schedule), schedule.steps, schedule.strength(self.config.augment),
                      schedule.dropout(self.config.dropout))  # fmt: skip
        distributed.tell(order)
        return self.learn(order)

    def rate(self, step: int, schedule: Schedule) -> float:
        """The learning rate of a step; a short run's is higher."""
        return schedule.rate(step, self.config.rate) * schedule.haste

    def learn(self, order: Order) -> Tensor:
        """Take a step, together with the other processes; the loss of the whole batch."""
        set_rate(self.optimisers, order.rate)
        self.whole = self.spec.network.norm != "batch"  # whose statistics change in the forward pass
        began = time.monotonic()
        loss = self._descend(order)
        if self.fastest is not None:
            self.fastest.took(time.monotonic() - began, order.stage.batch * math.prod(order.stage.patch))
        self._follow(order.step, order.steps)
        self.done = order.step + 1
        self.whole = True
        return loss

    def _descend(self, order: Order) -> Tensor:
        try:
            with torch.enable_grad():  # an interrupt inside torch may have left gradients off
                return self._update(order)
        except (RuntimeError, MemoryError) as error:
            stage = order.stage
            raise UNetError("training", f"{stage.batch} patches of {stage.patch} cannot be learnt from on {self.device} "
                            f"({first_line(error)})", "Use a smaller patch (--patch) or batch (--batch)") from error  # fmt: skip

    def _update(self, order: Order) -> Tensor:
        stage = order.stage
        own = distributed.own(stage.batch)
        images, shares = self.sampler.batch(order.step, order.first, stage.patch, stage.batch, own, order.strength)
        images, shares = images.to(self.device), shares.to(self.device)
        kept = to_device(self._kept(order, own), self.device)
        if self.spec.network.dims == 2:
            images, shares = images[:, :, 0], shares[:, :, 0]
        if isinstance(self.compute, Replayed):
            self.whole = False  # it changes the weights before it returns
        return self.compute(images, shares, kept)

    def _kept(self, order: Order, own: Sequence[int]) -> Tensor:
        """What each sample's features are multiplied by, drawn like the sample from (seed, step, its number in the batch)."""
        draws = [np.random.default_rng((self.config.seed, 1 << 41, order.step, n)).random(self.network.droppable) for n in own]
        kept = np.array(draws).reshape(len(draws), self.network.droppable) >= order.dropout
        return torch.from_numpy((kept / (1 - order.dropout)).astype(np.float32))

    def _compute(self, images: Tensor, shares: Tensor, kept: Tensor) -> Tensor:
        """The loss of a batch, and the weights moved against its gradient."""
        with speed.precision(self.config, self.device):
            logits = self.forward(images, kept)
        loss = supervise([scale.float() for scale in logits], shares, distributed.together)
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        distributed.add_up([p.grad for p in self.network.parameters() if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.whole = False
        for optimiser in self.optimisers:
            optimiser.step()
        return loss.detach()

    def _follow(self, step: int, steps: int) -> None:
        """The average moves towards the weights; its memory grows with the run up to the configured share of it."""
        memory = min(max(1.0, self.config.memory * steps), 1 + step / 4)
        with torch.no_grad():
            torch._foreach_lerp_(self.followed[0], self.followed[1], 1 / memory)

    def average(self) -> dict[str, NDArray[np.float32]]:
        """The averaged weights."""
        return _arrays(self.averaged)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The weights as they are."""
        return _arrays(self.network)

    def finite(self) -> bool:
        """Are the weights numbers? What once was not stays in the average."""
        each = [torch.isfinite(tensor).all() for tensor in self.averaged.state_dict().values()]
        return bool(torch.stack(each).all())

    def measure(self, parts: list[Stage], seconds: float) -> list[float]:
        """Median seconds per step of each stage; nothing that is learnt meanwhile is kept."""
        costs = []
        with self._trial(), self._settled(parts[0], seconds):
            for stage in parts:
                times: list[float] = []
                until = self.clock() + seconds / len(parts)
                while len(times) < 4 or self.clock() < until:
                    began = self.clock()
                    self._rehearse(stage, len(times))
                    times.append(self.clock() - began)
                costs.append(statistics.median(times[1:]))
        return costs

    def _rehearse(self, stage: Stage, step: int) -> None:
        order = Order(step, 0, stage, self.config.rate, 100, self.config.augment, self.config.dropout)
        distributed.tell(order)
        self.learn(order)

    @contextmanager
    def _settled(self, stage: Stage, seconds: float) -> Iterator[None]:
        """The number of threads is found within some seconds, and stays: stages are compared with one another."""
        fastest, until = self.fastest, self.clock() + seconds / 2
        while fastest is not None and not fastest.settled and self.clock() < until:
            self._rehearse(stage, 0)
        self.rest()
        self.fastest = None
        try:
            yield
        finally:
            self.fastest = fastest

    def rest(self) -> None:
        """What follows is no step: torch has the threads that were fastest for one."""
        if self.fastest is not None:
            self.fastest.rest()

    @contextmanager
    def _trial(self) -> Iterator[None]:
        before = {name: tensor.clone() for name, tensor in self._state().items()}
        try:
            yield
        finally:
            self._begin_at(0)
            self._fill(before)

    def _state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name."""
        found = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        found |= {f"average.{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        for name, optimiser, parameter in self._owned():
            found |= {f"{key}.{name}": optimiser.state[parameter][key] for key in moments_of(optimiser)}
        return found

    def _begin_at(self, step: int) -> None:
        """As after so many steps, where weights and moments have still to be filled in."""
        self.done = step
        self.whole = True  # not while a step changes the weights: nobody can go on from there
        for _, optimiser, parameter in self._owned():
            known = optimiser.state[parameter]  # changed in place: a recorded step knows where they lie
            known.setdefault("step", torch.zeros((), device=parameter.device)).fill_(float(step))
            for key in moments_of(optimiser):
                known.setdefault(key, torch.zeros_like(parameter)).zero_()

    def _fill(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._state().items():
            with torch.no_grad():
                tensor.copy_(tensors[name])

    def save(self, path: Path) -> None:
        """Everything that the next step depends on, atomically."""
        named = {name: tensor.float().cpu().numpy() for name, tensor in self._state().items()}
        save_tensors(path, named, {"format": FORMAT, "step": str(self.done)})

    def restore(self, path: Path) -> None:
        """The state that `save` wrote. Raises UNetError where it belongs to another network."""
        tensors, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT or not metadata.get("step", "").isdecimal():
            raise UNetError(path, f"its format is {metadata.get('format')!r}", "Begin anew without --resume")
        self._begin_at(int(metadata["step"]))
        needed = {name: tuple(tensor.shape) for name, tensor in self._state().items()}
        found = {name: array.shape for name, array in tensors.items()}
        if needed != found:
            name = next(name for name in (*needed, *found) if needed.get(name) != found.get(name))
            raise UNetError(path, f"it does not fit this run ({name} has shape {found.get(name)}, not {needed.get(name)})",
                            "Begin anew without --resume")  # fmt: skip
        self._fill({name: torch.tensor(array) for name, array in tensors.items()})

    def _owned(self) -> Iterator[tuple[str, torch.optim.Optimizer, torch.nn.Parameter]]:
        """Every parameter with its name and the optimiser that moves it."""
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                yield from ((names[parameter], optimiser, parameter) for parameter in group["params"])

    def hand_over(self) -> None:
        """Let the other processes go on from here."""
        distributed.tell(State(self.done))
        distributed.spread(list(self._state().values()))

    def take_over(self, state: State) -> None:
        """Go on from what the first process has learnt."""
        self._begin_at(state.step)
        distributed.spread(list(self._state().values()))


def _arrays(network: UNet) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in network.state_dict().items()}
