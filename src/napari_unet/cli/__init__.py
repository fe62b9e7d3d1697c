"""The command line: read, call, say. Only `terminal` writes to the terminal; heavy imports happen inside the commands."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import sys
from typing import Any

from napari_unet import __version__
from napari_unet.cli.check import add_check
from napari_unet.cli.evaluate import add_evaluate
from napari_unet.cli.models import add_export, add_info, add_join, add_view
from napari_unet.cli.predict import add_predict
from napari_unet.cli.terminal import tell
from napari_unet.cli.train import add_train
from napari_unet.errors import UNetError


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 where it did its work, 1 where a part of it failed, 2 for a user's error, 130 if interrupted."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    arguments.command = shlex.join(["napari-unet", *argv])
    signal.signal(signal.SIGTERM, _interrupt)
    try:
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


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("napari-unet", description="Train a U-Net on labelled scans and segment others with it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_check, add_train, add_predict, add_evaluate, add_join, add_export, add_info, add_view):
        add(commands)
    return parser
