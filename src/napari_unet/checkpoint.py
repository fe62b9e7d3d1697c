"""A PyTorch checkpoint, read as data: nothing that it asks for is imported or called, and of its tensors only those wanted are read.

A file of `torch.save` is a ZIP of one pickle and of each storage's bytes. The pickle is a program for a stack machine; here it may
build tables, lists and numbers, and name a few types of torch and numpy, which stay names. All else is refused. torch's own reader
of such files has let code run, also with `weights_only`, up to 2.9 (CVE-2026-24747), and would read the optimiser's state, too.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import UNetError, understood
from napari_unet.files import reading

MAX_PICKLE = 64 << 20
_TYPES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "BFloat16Storage": "<u2"}
_INERT = {  # what a trainer's settings and curves are made of
    "_codecs encode", "builtins set", "__builtin__ set", "numpy dtype", "numpy.core.multiarray scalar", "numpy._core.multiarray scalar",
    "numpy.dtypes Float32DType", "numpy.dtypes Float64DType", "torch device", "torch Size",
    *(f"torch {kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")), "torch.storage UntypedStorage",
}  # fmt: skip
_REMEDY = "Fetch it again, or give a checkpoint that its program saved"


class Name(NamedTuple):
    """A type or function that the file asks for, as "module name"."""

    name: str


class Called(NamedTuple):
    """What one of them would have made."""

    name: str
    arguments: Any


@dataclass(frozen=True)
class Stored:
    """A tensor that lies in the file: its storage's name and type, its first value in it, shape and strides in values."""

    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Checkpoint:
    """An open checkpoint: `content` is what was saved, with `Stored` in place of tensors. Raises UNetError for what is none."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path = archive, path
        self._entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if any(entry.compress_type or entry.file_size != entry.compress_size for entry in self._entries.values()):
            raise UNetError(path, "parts of it are compressed, which torch never does", _REMEDY)
        if self._read("byteorder", 16, b"little") != b"little":
            raise UNetError(path, "its bytes are in the order of another kind of machine", "Save it again on a common one")
        self.content = _unpickled(self._read("data.pkl", MAX_PICKLE), path)

    def tensor(self, stored: Stored) -> NDArray[np.float32]:
        """A tensor's values as float32, in a memory of their own."""
        entry, width = self._entries.get(f"data/{stored.key}"), int(stored.dtype[2])
        last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.strides, strict=True))
        count = last + 1 - stored.offset
        if entry is None or 0 in stored.shape or width * (last + 1) > entry.file_size or math.prod(stored.shape) > count:
            raise UNetError(self._path, f"a tensor of shape {stored.shape} lies beyond its bytes", _REMEDY)
        flat = np.frombuffer(self._read(f"data/{stored.key}", entry.file_size), stored.dtype, count, width * stored.offset)
        values = np.lib.stride_tricks.as_strided(flat, stored.shape, [width * step for step in stored.strides], writeable=False)
        if stored.dtype == _TYPES["BFloat16Storage"]:  # the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
            return np.array(values, np.float32, order="C")

    def _read(self, name: str, most: int, default: bytes | None = None) -> bytes:
        entry = self._entries.get(name)
        if entry is None and default is not None:
            return default
        if entry is None or entry.file_size > most:
            raise UNetError(self._path, f"its part {name} is missing or too large", _REMEDY)
        with understood(self._path, "a checkpoint of torch", _REMEDY):
            return self._archive.read(entry)


@contextmanager
def opened(path: Path) -> Iterator[Checkpoint]:
    """A checkpoint, as long as it is open."""
    with reading(path), open(path, "rb") as file:
        with understood(path, "a checkpoint of torch", _REMEDY):
            archive = zipfile.ZipFile(file)
        with archive:
            yield Checkpoint(archive, path)


def _unpickled(program: bytes, path: Path) -> Any:
    with understood(path, "a checkpoint of torch", _REMEDY):
        machine = _Machine(path)
        for operation, argument, _ in pickletools.genops(program):
            machine.step(operation.name, argument)
        return machine.stack.pop()


class _Machine:
    """The pickle's stack and memory; https://github.com/python/cpython/blob/main/Lib/pickletools.py tells what each step means."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one operation. Raises UNetError for those that data has no need of."""
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _MADE:
            self.stack.append(_MADE[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memory[len(self.memory) if argument is None else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memory[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self.stack.append(tuple(self._last(int(name[-1]))))
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name not in ("PROTO", "FRAME", "STOP"):
            if name not in _OPERATIONS:
                raise UNetError(self.path, f"its pickle holds {name}, which is more than data", _REMEDY)
            _OPERATIONS[name](self, argument)

    def _last(self, count: int) -> list[Any]:
        """Take so many off the stack."""
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def drop(self) -> None:
        """Leave out what is on top."""
        self.stack.pop()

    def marked(self) -> list[Any]:
        """Take off all above the last mark."""
        begin = self.marks.pop()
        taken = self.stack[begin:]
        del self.stack[begin:]
        return taken

    def extend(self, items: list[Any]) -> None:
        """Into the table or list on top, which anything else stays as it is."""
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def find(self, name: str) -> None:
        """What a type or function is to us: a name, if it is one of those that are known to be harmless."""
        known = name in _INERT or name in _CALLS or (name.startswith("torch ") and name[6:] in _TYPES)
        if not known and not (name.startswith("torch ") and name[6:] in ("float32", "float16", "bfloat16", "float64", "int64")):
            raise UNetError(self.path, f"it asks for {name.replace(' ', '.')[:80]}, which a model has no need of",
                            "Do not trust this file; fetch the model from its authors")  # fmt: skip
        self.stack.append(Name(name))

    def call(self) -> None:
        """What a function would have made of its arguments."""
        function, arguments = self._last(2)
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise UNetError(self.path, "its pickle calls what is no function", _REMEDY)
        self.stack.append(_CALLS[function.name](*arguments) if function.name in _CALLS else Called(function.name, arguments))


def _tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> Any:
    """Of torch's `_rebuild_tensor_v2`: a tensor of floats, whose values are read later, or nothing of interest."""
    _, kind, key, *_ = storage
    dtype = _TYPES.get(kind.name.removeprefix("torch "))
    numbers = (offset, *shape, *strides)
    if not all(type(n) is int and 0 <= n < 2**40 for n in numbers) or len(shape) != len(strides) or len(shape) > 8:
        raise ValueError("a tensor that is none")
    return Stored(str(key), dtype, offset, tuple(shape), tuple(strides)) if dtype else Called("tensor", None)


_PUSHED = {
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_MADE: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_TUPLE": tuple, "NONE": lambda: None, "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}  # fmt: skip
_CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": lambda *_: {}, "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
}  # fmt: skip
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.marked())),
    "SETITEMS": lambda machine, _: machine.extend(machine.marked()),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.marked()),
    "SETITEM": lambda machine, _: machine.extend(machine._last(2)),
    "APPEND": lambda machine, _: machine.extend(machine._last(1)),
    "BUILD": lambda machine, _: machine.drop(),  # an object's attributes, which data has none of
    "BINPERSID": lambda machine, _: None,  # of a storage: its kind, type, name, device and length
    "GLOBAL": lambda machine, name: machine.find(name),
    "STACK_GLOBAL": lambda machine, _: machine.find(" ".join(map(str, machine._last(2)))),
    "REDUCE": lambda machine, _: machine.call(),
}
