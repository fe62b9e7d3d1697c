"""Arrays whose values are read when they are asked for, chunk by chunk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class LazyArray:
    """A stored array as numpy would show it: turned, cut and mirrored before anything is read; `np.asarray` reads what is seen.

    dask does this, too, but takes milliseconds for each chunk that a slice touches, which is more than a 2-D network needs for it.

    read : values of a box of the stored array; axes : the stored axis of each own one; parts : along each stored axis, what is seen
    of it, in the order in which it is seen.
    """

    read: Callable[[Box], NDArray[Any]]
    dtype: np.dtype[Any]
    axes: tuple[int, ...]
    parts: tuple[range, ...]

    @classmethod
    def of(cls, read: Callable[[Box], NDArray[Any]], dtype: np.dtype[Any], shape: Sequence[int]) -> LazyArray:
        """A stored array as it is."""
        return cls(read, dtype, tuple(range(len(shape))), tuple(map(range, shape)))

    @property
    def shape(self) -> tuple[int, ...]:
        """As of any array; so are the others."""
        return tuple(len(self.parts[axis]) for axis in self.axes)

    @property
    def ndim(self) -> int:
        """Its axes."""
        return len(self.axes)

    @property
    def size(self) -> int:
        """Its values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Their bytes, once read."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def transpose(self, *axes: Any) -> LazyArray:
        """As `numpy.ndarray.transpose`, with all axes given."""
        order = axes[0] if isinstance(axes[0], Sequence) else axes
        return replace(self, axes=tuple(self.axes[axis] for axis in order))

    def __getitem__(self, key: Any) -> LazyArray:
        """By numbers, slices and `...`."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            where = keys.index(Ellipsis)
            keys[where : where + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        parts, axes = list(self.parts), []
        for axis, chosen in zip(self.axes, [*keys, *[slice(None)] * (self.ndim - len(keys))], strict=True):
            if isinstance(chosen, slice):
                parts[axis] = parts[axis][chosen]
                axes.append(axis)
            else:
                number = parts[axis][chosen]
                parts[axis] = range(number, number + 1)
        return replace(self, axes=tuple(axes), parts=tuple(parts))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("what is not read yet cannot be had without a copy")
        if not self.size:
            return np.empty(self.shape, dtype or self.dtype)
        box = tuple(slice(min(part[0], part[-1]), max(part[0], part[-1]) + 1) for part in self.parts)
        values = self.read(box)[tuple(slice(None, None, part.step) for part in self.parts)]
        fixed = [axis for axis in range(len(self.parts)) if axis not in self.axes]
        return values.transpose(*self.axes, *fixed).reshape(self.shape).astype(dtype or self.dtype, copy=False)


class Chunks:
    """Boxes of a chunked array; the chunks that were used last stay decoded, `capacity` bytes of them.

    decode : a whole box of the array, its chunks lying inside it or outside.
    """

    def __init__(
        self, decode: Callable[[Box], NDArray[Any]], dtype: np.dtype[Any], shape: tuple[int, ...], chunks: tuple[int, ...], capacity: int
    ) -> None:  # fmt: skip
        self.decode, self.dtype, self.shape, self.chunks, self.capacity = decode, dtype, shape, chunks, capacity
        self._kept: OrderedDict[tuple[int, ...], NDArray[Any]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def __call__(self, box: Box) -> NDArray[Any]:
        """Its values, in an array of their own."""
        values = np.empty([part.stop - part.start for part in box], self.dtype)
        touched = [range(part.start // chunk, -(-part.stop // chunk)) for part, chunk in zip(box, self.chunks, strict=True)]
        for number in product(*touched):
            first = [n * chunk for n, chunk in zip(number, self.chunks, strict=True)]
            decoded = self._chunk(number)
            both = [range(max(part.start, f), min(part.stop, f + n)) for part, f, n in zip(box, first, decoded.shape, strict=True)]
            to = tuple(slice(r.start - part.start, r.stop - part.start) for r, part in zip(both, box, strict=True))
            values[to] = decoded[tuple(slice(r.start - f, r.stop - f) for r, f in zip(both, first, strict=True))]
        return values

    def _chunk(self, number: tuple[int, ...]) -> NDArray[Any]:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            bounds = zip(number, self.chunks, self.shape, strict=True)
            chunk = self.decode(tuple(slice(n * c, min((n + 1) * c, size)) for n, c, size in bounds))
            while self._kept and self._held + chunk.nbytes > self.capacity:
                self._held -= self._kept.popitem(last=False)[1].nbytes
            self._kept[number] = chunk
            self._held += chunk.nbytes
            return chunk


class Layers:
    """Takes the slices of an array in the order they come, and hands them on in layers that are a chunk high.

    write : of a box and its values. Open layers are in memory: one, where slices come from one end.
    """

    def __init__(self, write: Callable[[Box, NDArray[Any]], None], dtype: np.dtype[Any], shape: tuple[int, ...], chunks: tuple[int, ...]
    ) -> None:  # fmt: skip
        self.write, self.dtype, self.shape, self.chunks = write, dtype, shape, chunks
        self._open: dict[int, tuple[NDArray[Any], list[int]]] = {}

    def __setitem__(self, region: Box, values: NDArray[Any]) -> None:
        """Slices of one chunk's height at most along one axis, the same one every time; all of the array along the others."""
        partly = (a for a, (part, size) in enumerate(zip(region, self.shape, strict=True)) if part.stop - part.start < size)
        axis = next(partly, None)
        if axis is None:
            return self.write(region, values)
        number, height = region[axis].start // self.chunks[axis], self.chunks[axis]
        first, stop = number * height, min((number + 1) * height, self.shape[axis])
        inside = tuple(slice(first, stop) if a == axis else slice(0, size) for a, size in enumerate(self.shape))
        if number not in self._open:
            self._open[number] = np.empty([part.stop - part.start for part in inside], self.dtype), [stop - first]
        layer, missing = self._open[number]
        layer[(slice(None),) * axis + (slice(region[axis].start - first, region[axis].stop - first),)] = values
        missing[0] -= region[axis].stop - region[axis].start
        if not missing[0]:
            del self._open[number]
            self.write(inside, layer)
