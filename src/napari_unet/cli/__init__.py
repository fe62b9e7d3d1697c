"""The command line: read, call, say. Only `terminal` writes to the terminal; heavy imports happen inside the commands."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from napari_unet import __version__
from napari_unet.cli.terminal import tell
from napari_unet.errors import UNetError

COMMANDS = {  # name: the room of its `add_NAME`, and what it does
    "check": ("check", "Read every file of a data set and list every fault and every case."),
    "train": ("train", "Train a model on a folder of labelled images."),
    "predict": ("predict", "Segment images."),
    "evaluate": ("evaluate", "Compare masks with labels."),
    "calibrate": ("calibrate", "Let a model compute in 8-bit integers, which is faster."),
    "convert": ("models", "Make a model of one that nnU-Net trained."),
    "join": ("models", "Make one model, an ensemble, of models trained separately."),
    "export": ("models", "Write a model for other programs."),
    "info": ("models", "Show a model's card and the walk through its U-Net."),
    "view": ("models", "Open napari with the Segment widget."),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 where it did its work, 1 where a part of it failed, 2 for a user's error, 130 if interrupted."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _check_command(argv)
        parser, chosen = _parser(argv)
        arguments, unknown = parser.parse_known_args(argv)
        _check_options(chosen, unknown)
        arguments.command = shlex.join(["napari-unet", *argv]).encode("utf-8", "backslashreplace").decode()
        _check_empty(arguments)
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except UNetError as error:
        tell(f"napari-unet: {error}")
        return 2
    except KeyboardInterrupt:
        tell("napari-unet: interrupted")
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        tell(f"napari-unet: {error.filename or 'system'}: {error.strerror or error}. Check paths and disks.")
        return 2
    except MemoryError:
        tell("napari-unet: memory: there is too little. Close other programs, or crop the images.")
        return 2


def _check_command(argv: list[str]) -> None:
    """UNetError for a command that is none, with the one that may be meant."""
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        near = get_close_matches(argv[0], COMMANDS, n=1)
        raise UNetError(argv[0], "no such command", f"Did you mean {near[0]}?" if near else f"Known: {', '.join(COMMANDS)}")


def _check_options(parser: argparse.ArgumentParser, unknown: list[str]) -> None:
    """UNetError for what a command does not take, with the option that may be meant."""
    if unknown:
        near = get_close_matches(unknown[0].partition("=")[0], parser._option_string_actions, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Use --help for what it takes"
        raise UNetError(unknown[0], f"{parser.prog} does not take it", hint)


def _check_empty(arguments: argparse.Namespace) -> None:
    """UNetError for an empty path, which would mean the folder one is in."""
    for name, value in vars(arguments).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise UNetError(name, "it is empty", "Give a path; is a variable of the shell not set?")


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _parser(argv: list[str]) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """All commands by name, and the one that is given, with its arguments: those of the others would only cost time."""
    what = "Train a U-Net on labelled scans and segment others with it."
    chosen = parser = argparse.ArgumentParser("napari-unet", description=what, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (room, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name in argv[:1]:
            getattr(import_module(f"{__name__}.{room}"), f"add_{name}")(chosen := command)
    return parser, chosen
