"""What a training step costs and what the machine could do, in the same units: where the time goes."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_unet import speed
from napari_unet.dataset import Case
from napari_unet.learning import Learner
from napari_unet.network import UNet
from napari_unet.sampling import Sampler, read_example
from napari_unet.schedule import Stage, stages
from napari_unet.settings import TrainConfig
from napari_unet.spec import ModelSpec, NetworkSpec
from napari_unet.torch_runtime import choose_device

SECONDS = 1.0  # for each thing that is measured
MATRIX = {"cpu": 1024, "cuda": 8192}  # large enough to keep the device busy
FEATURES, EDGE = 64, 32  # of the convolution that is measured


@dataclass(frozen=True)
class Cost:
    """One stage of a schedule: seconds of a whole step and of its batch alone, and the operations of its convolutions."""

    patch: tuple[int, ...]
    batch: int
    share: float  # of the run's time
    seconds: float
    data_seconds: float
    operations: int


@dataclass(frozen=True)
class Profile:
    """A run's stages, and the most operations per second that their device reached in the same minute."""

    stages: tuple[Cost, ...]
    limits: dict[str, float]

    @property
    def data_share(self) -> float:
        """The share of a step's time that drawing and augmenting its batch takes, over the run."""
        return self._mean(lambda stage: stage.data_seconds / stage.seconds)

    @property
    def rate(self) -> float:
        """Operations of convolutions per second of a step, over the run."""
        return self._mean(lambda stage: stage.operations / stage.seconds)

    @property
    def peak_share(self) -> float:
        """That rate as a share of the highest limit."""
        return self.rate / max(self.limits.values())

    def _mean(self, value: Callable[[Cost], float]) -> float:
        return sum(stage.share * value(stage) for stage in self.stages) / sum(stage.share for stage in self.stages)


def profile(spec: ModelSpec, config: TrainConfig, cases: Iterable[Case], seconds: float = SECONDS) -> Profile:
    """Measure a step of training with these cases, each thing for so many seconds."""
    examples = [read_example(case, spec)[0] for case in cases]
    device = choose_device(config.device)
    config = replace(config, threads=config.threads or torch.get_num_threads())  # as many in all that is measured
    learner = Learner(spec, config, device, Sampler(examples, spec, config, device))
    return Profile(tuple(costs(learner, seconds)), limits(device, seconds, torch.bfloat16 if speed.half(config, device) else torch.float32))


def operations(spec: NetworkSpec, patch: tuple[int, ...], batch: int) -> int:
    """Multiplications and additions of all convolutions in one step, there and back, as torch counts them; none is done."""
    with torch.device("meta"):
        network, images = UNet(spec), torch.empty(batch, spec.channels, *patch[-spec.dims :])
    with FlopCounterMode(display=False) as counter:
        torch.stack([scale.sum() for scale in network.multiscale(images)]).sum().backward()
    return int(counter.get_total_flops())


def limits(device: torch.device, seconds: float = SECONDS, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """The most operations per second of this device now, with such numbers: a product of matrices ("sgemm"), and the forward pass
    of a 3-D convolution whose shape suits it ("convolution").
    """
    size = MATRIX.get(device.type, MATRIX["cpu"])
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    convolution = torch.nn.Conv3d(FEATURES, FEATURES, 3, padding=1).to(device, dtype, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    images = torch.randn(1, FEATURES, EDGE, EDGE, EDGE, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
    work = {"sgemm": 2 * size**3, "convolution": 2 * images.numel() * FEATURES * 27}
    with torch.inference_mode():
        fastest = {
            "sgemm": min(_times(lambda: matrix @ matrix, device, seconds)),
            "convolution": min(_times(lambda: convolution(images), device, seconds)),
        }
    return {name: work[name] / fastest[name] for name in work}


def costs(learner: Learner, seconds: float = SECONDS) -> list[Cost]:
    """What each stage of a run with this learner costs on its device; the learner stays as it is."""
    parts = stages(learner.spec, learner.config)
    whole = learner.measure(parts, seconds * len(parts))
    return [
        Cost(stage.patch, stage.batch, stage.share, cost, _data_seconds(learner, stage, seconds),
             operations(learner.spec.network, stage.patch, stage.batch))
        for stage, cost in zip(parts, whole, strict=True)
    ]  # fmt: skip


def _data_seconds(learner: Learner, stage: Stage, seconds: float) -> float:
    """What drawing and augmenting a batch, and bringing it to the device, takes of a step."""
    steps = itertools.count()

    def batch() -> None:
        for part in learner.sampler.batch(next(steps), 0, stage.patch, stage.batch):
            part.to(learner.device)

    return statistics.median(_times(batch, learner.device, seconds))


def _times(work: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Seconds of each repetition, at least three, the first left out."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 4 or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return times[1:]
