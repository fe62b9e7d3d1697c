"""A model learns to compute in 8-bit integers: its convolutions' inputs are watched on a few volumes, and its masks compared.

Post-training quantisation as in Jacob et al. 2018, arXiv 1712.05877; the weights in the file stay what they are.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from napari_unet import weights
from napari_unet.calibration import Calibration, Range
from napari_unet.dataset import Case, check_kind, read_image
from napari_unet.errors import UNetError
from napari_unet.evaluate import Score, mean_dice
from napari_unet.network import UNet
from napari_unet.runtime import choose_runtime
from napari_unet.scoring import segment_and_score
from napari_unet.segment import Segmenter
from napari_unet.spec import ModelSpec
from napari_unet.torch_runtime import build
from napari_unet.words import counted

WATCHED, SCORED = 8, 20  # cases, at most, spread over all that there are
WORST = 0.005  # of Dice: what int8 may cost
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Step:
    """How far the work is."""

    done: int
    total: int
    message: str


@dataclass(frozen=True)
class Result:
    """What a model's int8 is worth, and how many times as fast as float32 it was on this machine."""

    calibration: Calibration
    faster: float


def calibrate(model: str | Path, cases: Sequence[Case], out: str | Path) -> Generator[Step, None, Result]:
    """Write the model with its `Calibration` to `out`, once Dice on labelled cases, such as those it was trained on, is as good.

    Closing the generator leaves nothing behind. Raises UNetError where OpenVINO is missing, without cases, where the model finds
    nothing in them, so that there is no Dice to compare, or where Dice falls by more than WORST.
    """
    place, _ = choose_runtime("cpu", "openvino")
    if not cases:
        raise UNetError(model, "no labelled case to calibrate it on", "Give a folder with images and labels")
    file = weights.find(model)
    spec, tensors = weights.load(file)
    networks = [build(spec.network, member, place) for member in weights.divide(tensors, spec.members)]
    watched, scored = _spread(cases, WATCHED), _spread(cases, SCORED)
    total = len(watched) + len(scored)
    for case in (*watched, *scored):
        check_kind(case, spec)
    with watch(networks) as seen:
        for n, case in enumerate(watched):
            yield Step(n, total, f"watching {case.name}")
            Segmenter(spec, *networks).segment(read_image(case))
    ranges = tuple(tuple(member.values()) for member in seen)
    both = [Segmenter(spec, *networks, runtime="openvino", ranges=each) for each in (None, ranges)]
    scores: list[list[Score]] = [[], []]
    seconds = [0.0, 0.0]
    for n, case in enumerate(scored, len(watched)):
        yield Step(n, total, f"scoring {case.name}")
        for which, segmenter in enumerate(both):
            _, found, took = segment_and_score(segmenter, case)
            scores[which] += found
            seconds[which] += took
    before, after = (_mean(each, spec) for each in scores)
    if not before:
        raise UNetError(model, f"it finds nothing that is labelled in {counted(len(scored), 'case')}",
                        "Give cases of what it was trained for")  # fmt: skip
    calibration = Calibration(ranges, len(scored), after, before)
    if after < before - WORST:
        raise UNetError(model, f"in int8 {calibration}: it falls by more than {WORST}", "Use it as it is, in float32")
    weights.save(out, spec, weights.read_card(file), tensors, calibration)
    return Result(calibration, seconds[0] / max(seconds[1], 1e-9))


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """At most so many, evenly from first to last."""
    return [cases[n * len(cases) // count] for n in range(count)] if len(cases) > count else list(cases)


@contextmanager
def watch(networks: Sequence[UNet]) -> Iterator[list[dict[nn.Module, Range]]]:
    """The range of each convolution's inputs, in the order in which they run: of all that each network sees meanwhile."""
    ranges: list[dict[nn.Module, Range]] = [{} for _ in networks]

    def widen(found: dict[nn.Module, Range], module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        low, high = found.get(module, (0.0, 0.0))
        found[module] = min(low, float(inputs[0].min())), max(high, float(inputs[0].max()))

    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, found=found: widen(found, module, inputs))
        for network, found in zip(networks, ranges, strict=True)
        for module in network.modules()
        if isinstance(module, CONVOLUTIONS)
    ]
    try:
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()


def _mean(scores: list[Score], spec: ModelSpec) -> float:
    return mean_dice(scores, spec.labels).get("mean", 0.0)
