"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from napari_unet.errors import UNetError
from napari_unet.suffixes import suffix

DATA = ("data", "", "folder: Decathlon's or nnU-Net's layout, images/ and labels/, or a folder per case")
MODEL = ("model", "", "weights file, folder of a training run, or name of a shipped model")


def begin(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], *positional: tuple[str, str, str]) -> None:
    """What a command runs, and its positional arguments (name, how many as argparse's nargs, help)."""
    parser.set_defaults(run=run)
    for field, count, help_text in positional:
        parser.add_argument(field, nargs=count or None, help=help_text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag that `terminal.finish` obeys."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def name_of(model: str) -> str:
    """A model's name, for the default name of what is made of it: the ending that weights files have is no part of it."""
    return Path(model).name.removesuffix(".safetensors") or "model"


def new_file(path: str | Path, ending: str, overwrite: bool) -> Path:
    """Where a file with this ending goes. Raises UNetError for another ending, and for what exists already."""
    out = Path(path)
    if out.suffix != ending:
        raise UNetError(out, f"the ending {out.suffix!r}", f"Give a file that ends in {ending}")
    _check_new(out, overwrite, "--out")
    return out


def _check_new(path: Path, overwrite: bool, flag: str) -> None:
    if path.exists() and not overwrite:
        raise UNetError(path, "it exists already", f"Use --overwrite, or another {flag}")


def new_table(path: str | None, overwrite: bool, flag: str) -> Path | None:
    """Where a table goes, if it is asked for by `flag`; its folder is there from now on.

    Raises UNetError for an image, for what exists already, and for a folder.
    """
    from napari_unet import files

    if not path:
        return None
    out = Path(path)
    if suffix(out):
        raise UNetError(out, "it is an image by its name", f"Use another {flag}, such as table.csv")
    _check_new(out, overwrite, flag)
    if out.is_dir():
        raise UNetError(out, "it is a folder", f"Use another {flag}, such as {out / 'table.csv'}")
    files.make_folder(out.parent)
    return out
