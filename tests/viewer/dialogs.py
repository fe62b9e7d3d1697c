"""Dialogs hold up whoever opens them: what a person would do in one is arranged beforehand, for when it is there."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QFileDialog

PATIENCE, EVERY = 60.0, 50  # seconds, milliseconds


def when_shown(kind: type, act: Callable[[Any], None]) -> None:
    """`act` on the dialog of that kind as soon as it is visible; one that is never shown is no dialog to wait for."""
    until = monotonic() + PATIENCE

    def look() -> None:
        for dialog in QApplication.topLevelWidgets():
            if isinstance(dialog, kind) and dialog.isVisible():
                return act(dialog)
        if monotonic() < until:
            QTimer.singleShot(EVERY, look)

    QTimer.singleShot(EVERY, look)


def accept_the_file(path: object = None) -> list[str]:
    """Accept the next file dialog's proposal, or `path`; the names that it ended with, once it has."""
    names: list[str] = []

    def accept(dialog: QFileDialog) -> None:
        if path is not None:
            dialog.selectFile(str(path))
        names.extend(dialog.selectedFiles())
        dialog.accept()

    when_shown(QFileDialog, accept)
    return names
