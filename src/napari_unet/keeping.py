"""What a run writes while it learns: its curves, its newest weights, and the state that resuming needs."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from napari_unet import files, weights
from napari_unet.card import UNFINISHED, Card
from napari_unet.errors import UNetError
from napari_unet.events import Events
from napari_unet.layout import EVENTS, LOG, LOG_HEAD, MODEL, RESUME
from napari_unet.learning import Learner
from napari_unet.record import Record

SMOOTH = 0.2  # how much of the loss that is shown is the newest


class Notes:
    """What a run writes down as it goes: its log's rows until they are saved, TensorBoard's events, the loss, smoothed."""

    def __init__(self, folder: Path, step: int) -> None:
        self.rows: list[str] = []
        self.events = Events(folder / EVENTS, step)
        self.loss, self.began = math.nan, time.monotonic()
        self.before = _logged_seconds(folder, step)  # of the run before it was stopped; the pace does not know them

    def learnt(self, step: int, loss: float, rate: float) -> None:
        """A step's loss, and its rate."""
        self.loss = loss if math.isnan(self.loss) else self.loss + SMOOTH * (loss - self.loss)
        self.rows.append(f"{step},{loss:.5f},{rate:.3e},,{self._seconds():.1f}\n")
        self.events.add(step, loss=loss, rate=rate)

    def scored(self, step: int, dice: float) -> None:
        """What a validation found."""
        self.rows.append(f"{step},,,{dice:.5f},{self._seconds():.1f}\n")
        self.events.add(step, dice=dice)

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began


def _logged_seconds(folder: Path, step: int) -> float:
    """How long a run had worked by this step, as its log has it; 0 where that does not say."""
    with suppress(OSError, ValueError):
        rows = [line.split(",") for line in (folder / LOG).read_text().splitlines()]
        return max((float(row[-1]) for row in rows if row[0].isdecimal() and int(row[0]) <= step), default=0.0)
    return 0.0


def save_newest(learner: Learner, record: Record, folder: Path, chosen: bool) -> None:
    """The newest weights, where a run ends without any, or before a validation has `chosen` better ones."""
    done = learner.done == record.schedule.steps
    if learner.done and learner.finite() and (not (chosen or done) or not (folder / MODEL).exists()):
        card = scored(record.card, {}, learner.done)
        weights.save(folder / MODEL, record.spec, card if done else replace(card, note=f"{UNFINISHED}."), learner.average())


def save_state(learner: Learner, folder: Path, log: list[str]) -> None:
    """What resuming needs, and the log; an earlier state stays where this one is half a step or not finite."""
    if not learner.whole or not learner.finite():
        return
    learner.save(folder / RESUME)
    lines = (folder / LOG).read_text().splitlines(keepends=True) if (folder / LOG).exists() else []
    steps = ((line, line.split(",")[0]) for line in lines)
    kept = [line for line, step in steps if step.isdecimal() and int(step) <= learner.done]
    files.write_bytes(folder / LOG, "".join([LOG_HEAD, *kept, *log]).encode())
    log.clear()


def best_dice(folder: Path) -> float:
    """The best that a validation has found, as the weights on disk say; -1 where there was none."""
    with suppress(UNetError):
        return weights.read_card(folder / MODEL).dice.get("mean", -1.0)
    return -1.0


def scored(card: Card, dice: dict[str, float], step: int) -> Card:
    """The card of the weights after so many steps, with their scores."""
    return replace(card, steps=step, dice={name: round(value, 4) for name, value in dice.items()})
