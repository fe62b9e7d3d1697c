"""A model that stops at one of its windows until it may go on, and counts them: the real one, heard from within."""

from __future__ import annotations

import threading
from typing import Any

from conftest import PATIENCE
from qtpy.QtCore import QThreadPool


class Held:
    """The widget's model, held at its window number `at`; torch takes two at a time."""

    def __init__(self, widget: Any, at: int) -> None:
        self.count, self.at = 0, at
        self.reached, self.goes_on = threading.Event(), threading.Event()
        widget._advanced.device.setCurrentText("cpu")
        widget._advanced.runtime.setCurrentText("torch")
        QThreadPool.globalInstance().waitForDone(PATIENCE)  # it may be loaded and timed
        self.segmenter = widget._engine.segmenter(widget._model.path, widget._advanced.options())
        self.segmenter.network.register_forward_pre_hook(self._run)

    def _run(self, network: Any, batches: Any) -> None:
        self.count += len(batches[0])
        if self.count >= self.at:
            self.reached.set()
            self.goes_on.wait(PATIENCE / 1000)
