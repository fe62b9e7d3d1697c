"""Dataclasses <-> JSON, checked, and as rows of CSV: one definition of a field gives its type, default, bounds, help and file format."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import reprlib
from collections.abc import Iterable
from dataclasses import astuple, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from napari_unet.errors import UNetError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
T = TypeVar("T")


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def encode(value: Any) -> str:
    """A dataclass as one line of JSON; UNetError where it could not be read back, so that it is never written."""
    cls: Any = type(value)
    text = _adapter(cls).dump_json(value, warnings=False).decode()
    _validate(cls, json.loads(text), cls.__name__)
    return text


def decode(cls: type[T], text: str | bytes, where: str) -> T:
    """JSON text as a `cls`; anything unknown, missing, mistyped or out of bounds is a UNetError that names it."""
    return _validate(cls, strict_json(text, where), where)


def parse(cls: type[T], data: Any, where: str) -> T:
    """What JSON gave, as a `cls`, checked like a file's text."""
    return _validate(cls, data, where)


def as_csv(cls: Any, rows: Iterable[Any]) -> str:
    """A row for each of several dataclasses, below the names of their fields; an empty cell where there is no value."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([field.name for field in fields(cls)])
    for row in rows:
        table.writerow(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in astuple(row)])
    return text.getvalue()


def replace(value: T, changes: dict[str, Any], where: str) -> T:
    """A copy of a dataclass with some fields changed, checked like a file's fields."""
    present = json.loads(encode(value))
    return _validate(type(value), present | changes, where)


def _validate(cls: type[T], data: Any, where: str) -> T:
    try:
        # JSON has no tuples, hence validation in its JSON mode
        return _adapter(cls).validate_json(json.dumps(data), strict=True)  # type: ignore[arg-type,no-any-return]
    except UNetError as error:  # from a dataclass's own checks, which do not know the file
        raise UNetError(where, f"{error.where}: {error.what}", error.remedy) from None
    except (TypeError, RecursionError) as error:
        raise _no_json(error, where) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])[:200] or cls.__name__
        if first["type"] == "unexpected_keyword_argument":
            raise unknown_key(field, _known(cls, first["loc"][:-1]), where) from None
        if first["type"] == "missing":
            raise UNetError(where, f"the field {field} is missing", "Add it, or make the file anew") from None
        if first["type"] == "json_invalid":  # such as half a character, which Python's parser takes
            raise _no_json(first["msg"], where) from None
        message = first["msg"].removeprefix("Input ")
        rule = "It " + message if message != first["msg"] else "The " + message[0].lower() + message[1:]
        raise UNetError(where, f"{field} is {reprlib.repr(first['input'])}", rule) from None


def _known(cls: Any, path: tuple[int | str, ...]) -> list[str]:
    """The fields of the dataclass that lies at `path` inside `cls`."""
    for name in (part for part in path if isinstance(part, str)):
        hint = get_type_hints(cls)[name]
        cls = next((c for c in (hint, *get_args(hint)) if is_dataclass(c)), cls)
    return [field.name for field in fields(cls)]


def unknown_key(key: str, known: list[str], where: str) -> UNetError:
    """The error for a key that nothing knows, naming the nearest one that something does."""
    near = difflib.get_close_matches(key.rsplit(".", 1)[-1], known, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Known: " + ", ".join(sorted(known))
    return UNetError(where, f"unknown key {key[:200]!r}", hint)


def strict_json(text: str | bytes, where: str) -> Any:
    """Parse JSON that a stranger may have written: no duplicate keys, no NaN or Infinity, no runaway nesting."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """A table; ValueError for a name that occurs twice."""
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key[:80]!r} stands twice")
            found[key] = value
        return found

    def finite(number: str) -> float:
        """A number; ValueError for one that JSON does not know."""
        value = float(number)  # 1e999, NaN, Infinity
        if not math.isfinite(value):
            raise ValueError(f"{number[:80]} is not a finite number")
        return value

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise _no_json(error, where) from None


def _no_json(why: object, where: str) -> UNetError:
    return UNetError(where, f"not valid JSON ({str(why)[:200]})", "Make the file anew or fetch it again")


def describe(cls: type) -> dict[str, tuple[Any, FieldInfo]]:
    """Type and description of every documented field of a dataclass, for the command line."""
    found = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        for extra in get_args(hint)[1:]:
            if isinstance(extra, FieldInfo):
                found[name] = (get_args(hint)[0], extra)
    return found
