"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

DATA = ("data", "", "folder: Decathlon's or nnU-Net's layout, or images/ and labels/")
MODEL = ("model", "", "weights file, folder of a training run, or name of a shipped model")


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str, *positional: tuple[str, str, str]
) -> argparse.ArgumentParser:
    """A command that `run` carries out, with positional arguments (name, how many as argparse's nargs, help)."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    for field, count, help_text in positional:
        parser.add_argument(field, nargs=count or None, help=help_text)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag that `terminal.finish` obeys."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
