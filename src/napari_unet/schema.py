"""Dataclasses <-> JSON, checked: one definition of a field gives its type, default, bounds, help and file format."""

from __future__ import annotations

import difflib
import json
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from napari_unet.errors import UNetError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
T = TypeVar("T")


@cache
def _adapter(cls: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(cls)


def encode(value: Any) -> str:
    """A dataclass as one line of JSON."""
    return _adapter(type(value)).dump_json(value).decode()


def decode(cls: type[T], text: str | bytes, where: str) -> T:
    """JSON text as a `cls`; anything unknown, missing, mistyped or out of bounds is a UNetError that names it."""
    return _validate(cls, strict_json(text, where), where)


def replace(value: T, changes: dict[str, Any], where: str) -> T:
    """A copy of a dataclass with some fields changed, checked like a file's fields."""
    present = json.loads(encode(value))
    return _validate(type(value), present | changes, where)


def _validate(cls: type[T], data: Any, where: str) -> T:
    try:
        # JSON has no tuples, hence validation in its JSON mode
        return _adapter(cls).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or cls.__name__
        if first["type"] == "unexpected_keyword_argument":
            raise unknown_key(field, [f.name for f in fields(cls)], where) from None  # type: ignore[arg-type]
        if first["type"] == "missing":
            raise UNetError(where, f"the field {field} is missing", "Add it, or make the file anew") from None
        message = first["msg"][0].lower() + first["msg"][1:]
        raise UNetError(where, f"{field} is {first['input']!r}", f"The {message.removeprefix('input ')}") from None


def unknown_key(key: str, known: list[str], where: str) -> UNetError:
    """The error for a key that nothing knows, naming the nearest one that something does."""
    near = difflib.get_close_matches(key.rsplit(".", 1)[-1], known, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Known: " + ", ".join(sorted(known))
    return UNetError(where, f"unknown key {key!r}", hint)


def strict_json(text: str | bytes, where: str) -> Any:
    """Parse JSON that a stranger may have written: no duplicate keys, no NaN or Infinity, no runaway nesting."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"the key {key[:80]!r} stands twice")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UNetError(where, f"not valid JSON ({str(error)[:200]})", "Make the file anew or fetch it again") from None


def describe(cls: type) -> dict[str, tuple[Any, FieldInfo]]:
    """Type and description of every documented field of a dataclass, for the command line and for forms."""
    found = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        for extra in get_args(hint)[1:]:
            if isinstance(extra, FieldInfo):
                found[name] = (get_args(hint)[0], extra)
    return found
