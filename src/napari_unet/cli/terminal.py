"""What a person sees on a terminal: text, tables, one line that lives, and signals that are heard between two steps."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

LINE_SECONDS = 10.0  # between lines where no terminal shows a living one


def say(text: str = "") -> None:
    """A line of what a command has found."""
    sys.stdout.write(f"{text}\n")


def tell(text: str, end: str = "\n") -> None:
    """A line about the work rather than of its outcome, at once."""
    sys.stderr.write(text + end)
    sys.stderr.flush()


class Line:
    """One line that lives on a terminal, or a line now and then in a log."""

    def __init__(self) -> None:
        self.tty, self.shown, self.width = sys.stderr.isatty(), -LINE_SECONDS, 0

    def show(self, text: str) -> None:
        """Replace what the line says."""
        if self.tty:
            text = text[: shutil.get_terminal_size().columns - 1]  # a line that wraps cannot be replaced
            tell("\r" + text.ljust(self.width), end="")
            self.width = len(text)
        elif time.monotonic() - self.shown > LINE_SECONDS:
            self.shown = time.monotonic()
            tell(text)

    def end(self) -> None:
        """Leave the line where it is and begin a new one."""
        if self.tty and self.width:
            tell("")
        self.width = 0


def say_table(rows: Sequence[tuple[str, ...]], heading: tuple[str, ...] = ()) -> None:
    """Cells of equal number in each row, in columns."""
    rows = [heading, *rows] if heading else rows
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))] if rows else []
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def finish(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """The outcome as one JSON object, where that is asked for."""
    if arguments.json:
        say(json.dumps(result))


def number(value: float | None, digits: int) -> str:
    """As in "0.8902", or "n/a"."""
    return "n/a" if value is None else f"{value:.{digits}f}"


@contextmanager
def gently() -> Iterator[list[int]]:
    """Signals are only noted, so that no step is left half done; the second one interrupts at once."""
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        """Remember the first signal."""
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        os.write(sys.__stderr__.fileno(), b"\nstopping after this step; once more to stop at once\n")  # type: ignore[union-attr]  # a stream may be busy

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
