"""Runs of training: followed until a moment of one's choice, interrupted anywhere, and compared to the last bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from napari_unet import weights
from napari_unet.layout import MODEL, RESUME, SCORES
from napari_unet.progress import Progress
from napari_unet.train import train

Plan = tuple[Any, Any, Any]
Until = Callable[[Progress], bool]


def followed(going: Any, until: Until = lambda p: False) -> list[Progress]:
    """What a run tells until a Progress of one's choice, which is the last one, or to the end."""
    seen = []
    for progress in going:
        seen.append(progress)
        if until(progress):
            going.close()
    return seen


def run(plan: Plan, out: Path, until: Until = lambda p: False, **options: Any) -> list[Progress]:
    """Train one model until a Progress of one's choice, or to the end."""
    return followed(train(*plan, out=out, **options), until)


def assert_equal_runs(one: Path, two: Path) -> None:
    """Equal to the last bit: the model, and all that a next step would depend on."""
    for name in (MODEL, RESUME):
        a, b = (weights.load_tensors(out / name)[0] for out in (one, two))
        assert a.keys() == b.keys()
        assert not [key for key in a if a[key].tobytes() != b[key].tobytes()]
    cards = [weights.read_card(out / MODEL) for out in (one, two)]
    assert cards[0] == cards[1]
    assert (one / SCORES).read_bytes() == (two / SCORES).read_bytes()


class Signal:
    """KeyboardInterrupt before the nth line that runs of a file, as a signal may come."""

    def __init__(self, files: tuple[str, ...], line: int = 0) -> None:
        self.files, self.line, self.count = files, line, Counter[str]()

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        return self.watch if frame.f_code.co_filename.endswith(self.files) else None

    def watch(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            name = next(name for name in self.files if frame.f_code.co_filename.endswith(name))
            self.count[name] += 1
            if self.count[name] == self.line:
                raise KeyboardInterrupt
        return self.watch


def struck(plan: Plan, out: Path, update: int, **options: Any) -> None:
    """Interrupted in the narrowest place: the optimiser has moved the weights, and nobody knows of that step yet."""
    updates = count(1)

    def strike(*_: object) -> None:
        if next(updates) == update:
            raise KeyboardInterrupt

    hook = register_optimizer_step_post_hook(strike)
    with suppress(KeyboardInterrupt):
        run(plan, out, **options)
    hook.remove()
