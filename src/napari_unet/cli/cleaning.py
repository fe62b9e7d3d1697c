"""`--keep-largest` and `--smallest`: which components of a mask stay, by names or values of classes."""

from __future__ import annotations

import argparse
import difflib
from dataclasses import replace

from napari_unet.components import Cleaning
from napari_unet.errors import UNetError
from napari_unet.spec import ModelSpec


def add_cleaning(parser: argparse.ArgumentParser) -> None:
    """The flags that `cleaning_of` reads."""
    parser.add_argument("--keep-largest", metavar="CLASSES",
                        help="only the largest connected component of these classes, by name or value, as in liver,2; "
                             "all or none (default: the model's)")  # fmt: skip
    parser.add_argument("--smallest", metavar="MM3",
                        help="no connected component of a smaller volume, as in 50 for all classes, or liver=100,2=20")  # fmt: skip


def cleaning_of(arguments: argparse.Namespace, spec: ModelSpec) -> Cleaning:
    """What the flags say, and the model where they say nothing. Raises UNetError for a class that the model does not have."""
    cleaning = Cleaning.of(spec)
    if arguments.keep_largest is not None:
        cleaning = replace(cleaning, keep_largest=_classes(arguments.keep_largest, spec))
    if arguments.smallest is not None:
        cleaning = replace(cleaning, smallest=_volumes(arguments.smallest, spec))
    return cleaning


def _classes(text: str, spec: ModelSpec) -> tuple[int, ...]:
    chosen = [] if text == "none" else spec.values if text == "all" else [_value(name, spec, "--keep-largest") for name in text.split(",")]
    return tuple(sorted(set(chosen)))


def _volumes(text: str, spec: ModelSpec) -> tuple[tuple[int, float], ...]:
    """mm3 by class value, in order; what a class is given itself counts more than what all are given."""
    found: dict[int, float] = {}
    for entry in sorted(text.split(","), key=lambda entry: "=" in entry):
        name, _, number = entry.rpartition("=")
        try:
            mm3 = float(number)
        except ValueError:
            mm3 = -1.0
        if not 0 <= mm3 < float("inf"):
            raise UNetError("--smallest", f"{number!r} is no volume in mm3", "Write 50, or liver=100,spleen=20")
        found |= dict.fromkeys([_value(name, spec, "--smallest")] if name else spec.values, mm3)
    return tuple(sorted(found.items()))


def _value(name: str, spec: ModelSpec, flag: str) -> int:
    """The value of a class by its value or name; of names that differ in large and small letters only, the one that is written."""
    name = name.strip()
    by_name = {label.name: label.value for label in spec.labels} | {str(label.value): label.value for label in spec.labels}
    alike = [value for known, value in by_name.items() if known.casefold() == name.casefold()]
    if name in by_name or len(alike) == 1:
        return by_name.get(name, alike[0])
    near = difflib.get_close_matches(name.casefold(), [known.casefold() for known in by_name], n=1)
    known = ", ".join(f"{label.value} {label.name}" for label in spec.labels)
    raise UNetError(flag, f"{spec.name} has no class {name!r}", f"Did you mean {near[0]}?" if near else f"It has {known}")
