"""A run's curves for TensorBoard, where that is installed; where it is not, or does not work, nothing happens."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class Events:
    """Event files in a folder, for a run that goes on after `step`: what an earlier part of it wrote later than that is void."""

    def __init__(self, folder: Path, step: int) -> None:
        self.writer: Any = None
        if find_spec("tensorboard") is None:
            return
        with suppress(ImportError, AttributeError, TypeError, OSError):  # an installation that is broken or too old; a full disk
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=step + 1)  # a thread of its own writes, now and then

    def add(self, step: int, **values: float) -> None:
        """Points of curves."""
        with suppress(OSError):
            for name, value in values.items() if self.writer else ():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        with suppress(OSError):
            if self.writer:
                self.writer.close()
