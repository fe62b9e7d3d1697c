"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable

DATA = ("data", "", "folder: Decathlon's or nnU-Net's layout, or images/ and labels/")
MODEL = ("model", "", "weights file, folder of a training run, or name of a shipped model")


def begin(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], *positional: tuple[str, str, str]) -> None:
    """What a command runs, and its positional arguments (name, how many as argparse's nargs, help)."""
    parser.set_defaults(run=run)
    for field, count, help_text in positional:
        parser.add_argument(field, nargs=count or None, help=help_text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag that `terminal.finish` obeys."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
