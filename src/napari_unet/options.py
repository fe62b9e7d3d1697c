"""Settings on the command line: a flag per field of the dataclasses, and recipes in TOML; defaults < recipe < flags."""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import fields
from typing import Any, get_args, get_origin

from napari_unet import schema
from napari_unet.errors import UNetError
from napari_unet.settings import LabelRule, PlanChoices, TrainConfig
from napari_unet.spec import ModelSpec


def add_settings(parser: argparse.ArgumentParser, cls: type) -> None:
    """A flag per documented field of a dataclass."""
    defaults = {f.name: f.default for f in fields(cls)}
    for name, (kind, info) in schema.describe(cls).items():
        default = defaults[name]
        text = f"{info.description}" + ("" if default is None else f" (default: {default})")
        flag = "--" + name.replace("_", "-")
        if bool in (kind, *get_args(kind)):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            several = any(get_origin(part) is tuple for part in (kind, *get_args(kind)))
            parser.add_argument(flag, type=_values if several else _value, metavar=name[0].upper(), help=text)


def _value(text: str) -> Any:
    """`3`, `0.5`, `40,56,40` or a word, as JSON has it; bounds are checked with the field."""
    try:
        values = json.loads(f"[{text}]")
    except ValueError:
        return text
    return values if "," in text else values[0] if values else []


def _values(text: str) -> Any:
    """`1` is a list of one where a list is asked for."""
    value = _value(text)
    return value if isinstance(value, list) else [value]


def settings_of(arguments: argparse.Namespace, defaults: TrainConfig | None = None) -> tuple[TrainConfig, PlanChoices]:
    """Defaults < recipe < flags; minutes and steps push each other out."""
    config, choices = defaults or TrainConfig(), PlanChoices()
    for source, where in _sources(arguments):
        named = [{f.name: source[f.name] for f in fields(cls) if f.name in source} for cls in (TrainConfig, PlanChoices)]
        if {"steps", "minutes"} <= named[0].keys():
            raise UNetError(where, "both steps and minutes are given", "Give one of them")
        if {"steps", "minutes"} & named[0].keys():
            named[0] = {"steps": None, "minutes": None} | named[0]
        config, choices = schema.replace(config, named[0], where), schema.replace(choices, named[1], where)
    return config, choices


def unused(arguments: argparse.Namespace, spec: ModelSpec, config: TrainConfig, rule: LabelRule) -> list[str]:
    """The flags that ask for something else than a run which goes on as it was planned; its device alone is chosen anew."""
    given = {name for source, _ in _sources(arguments) for name in source} - {"device"}
    followed = vars(spec.network) | vars(spec) | vars(config) | vars(rule)
    found = []
    for settings in (*settings_of(arguments), rule_of(arguments)):
        for name, value in vars(settings).items():
            settled = name == "labelled_slices" and value == "auto"  # as one of the planes
            if name in given and value != followed[name] and not settled:
                own = "none" if followed[name] is None else followed[name]
                found.append(f"--{name.replace('_', '-')} (of this run: {own})")
    return found


def rule_of(arguments: argparse.Namespace) -> LabelRule:
    """Which voxels of masks are labelled: a recipe's settings, where the command has one, < flags."""
    rule = LabelRule()
    for source, where in _sources(arguments):
        rule = schema.replace(rule, {f.name: source[f.name] for f in fields(LabelRule) if f.name in source}, where)
    return rule


def _sources(arguments: argparse.Namespace) -> list[tuple[dict[str, Any], str]]:
    """Settings and where they were given, the weaker ones first."""
    recipe = getattr(arguments, "recipe", None)
    flags = {name: value for name, value in vars(arguments).items() if value is not None}
    return [(_recipe(recipe), str(recipe)), (flags, "command line")]


def _recipe(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            recipe = tomllib.load(file)
    except OSError as error:
        raise UNetError(path, f"cannot be read ({error.strerror})", "Check the path") from error
    except ValueError as error:
        raise UNetError(path, f"not valid TOML ({error})", "Write lines such as: minutes = 10") from error
    known = [f.name for cls in (TrainConfig, PlanChoices, LabelRule) for f in fields(cls)]
    for key in recipe:
        if key not in known:
            raise schema.unknown_key(key, known, path)
    return recipe
