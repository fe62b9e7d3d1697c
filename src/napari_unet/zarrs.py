"""OME-Zarr (0.4, 0.5) and plain Zarr <-> Volume, chunk by chunk; needs the package zarr.

An image is its array of full resolution. x is taken to grow to the patient's right, y to the front and z to the head, unless its
axes say otherwise: a NIfTI file of orientation RAS whose array was stored in the order z, y, x lies where it lay. Without z, it is
a picture of rows and columns. A mask is a group of its own: OME-Zarr's label image, with the classes' names and colours, or a plain
array where the image is one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_unet import ngff
from napari_unet.errors import UNetError, first_line, understood
from napari_unet.files import partial_beside, put_folder, sweep, writing
from napari_unet.lazy import Box, Chunks, Layers, LazyArray
from napari_unet.ngff import AXES, Grid
from napari_unet.spec import Label
from napari_unet.suffixes import ZARRS
from napari_unet.volume import Affine, Volume

if TYPE_CHECKING:
    import zarr

LEAST_CACHE, MOST_CACHE = 32 << 20, 1 << 30  # bytes of decoded chunks
_MARKS = ("zarr.json", ".zgroup", ".zarray")


def is_zarr(path: str | Path) -> bool:
    """Whether a path means one: by its ending, or as a group or array inside of one, which has none."""
    return str(path).lower().endswith(ZARRS) or is_there(path)


def is_there(path: str | Path) -> bool:
    """Whether a path is a group or an array of zarr, by what is in it."""
    return any(os.path.exists(Path(path) / mark) for mark in _MARKS)


@dataclass(frozen=True, eq=False)
class Layout:
    """How an image is stored, so that its mask can be stored alike; the header of its Volume.

    version : of OME-Zarr, "0.4" or "0.5", or "" where the image is a plain array. attributes : of a plain array.
    """

    path: Path
    array: zarr.Array[Any]
    grid: Grid
    version: str
    attributes: dict[str, Any]

    @property
    def flat(self) -> bool:
        """Whether it has no z: rows and columns, as of any picture."""
        return "z" not in self.grid.names

    @property
    def shape(self) -> dict[str, int]:
        """Size by axis, of all of t, c, z, y, x."""
        return dict.fromkeys(AXES, 1) | dict(zip(self.grid.names, self.array.shape, strict=True))

    @property
    def chunks(self) -> dict[str, int]:
        """The same of a chunk."""
        return dict.fromkeys(AXES, 1) | dict(zip(self.grid.names, self.array.chunks, strict=True))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values, in the machine's byte order."""
        return np.dtype(self.array.dtype.newbyteorder("="))

    @property
    def cache(self) -> int:
        """Bytes of chunks to keep decoded: two layers along z, so that slice after slice decodes each chunk once."""
        rounded = {name: -(-size // self.chunks[name]) * self.chunks[name] for name, size in self.shape.items()}
        layer = self.chunks["t"] * rounded["c"] * self.chunks["z"] * rounded["y"] * rounded["x"] * self.array.dtype.itemsize
        return min(max(2 * layer, LEAST_CACHE), MOST_CACHE)

    def box(self, where: Box) -> NDArray[Any]:
        """A box (t, c, z, y, x) of the stored values, also of axes that are not stored. Raises UNetError for damage."""
        stored = tuple(where[AXES.index(name)] for name in self.grid.names)
        try:
            values = np.asarray(self.array[stored])
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - codecs raise whatever damaged bytes lead them to
            raise UNetError(self.path, f"a chunk of it cannot be read ({first_line(error)})", "Fetch or export it again") from error
        order = sorted(range(len(stored)), key=lambda at: AXES.index(self.grid.names[at]))
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return values.transpose(order).reshape([part.stop - part.start for part in where])


def read(path: str | Path, volume: int | None = None) -> Volume:
    """An image as a volume whose voxels are read when they are asked for: (x, y, z, c), or (row, column, 1, c) without z.

    volume : which one of several time points; of a single one, which channel. Where it is not given and there is one channel, time
    points stand in the channels' place, as in a 4-D NIfTI file. Raises UNetError for what is no image, or not one to be trusted.
    """
    layout = peek(path)
    shape, grid = layout.shape, layout.grid
    several = "t" if shape["t"] > 1 else "c"
    if volume is None and several == "t" and shape["c"] > 1:
        raise UNetError(path, f"{shape['t']} time points of {shape['c']} channels", "Choose one of the time points (--volume)")
    if volume is not None and not 0 <= volume < shape[several]:
        raise UNetError(path, f"volume {volume} of {shape[several]}", f"Choose 0 to {shape[several] - 1}")
    sizes = tuple(shape[name] for name in AXES)
    chunks = Chunks(layout.box, layout.dtype, sizes, tuple(layout.chunks[name] for name in AXES), layout.cache)
    chosen = {} if volume is None else {several: slice(volume, volume + 1)}
    stored = LazyArray.of(chunks, chunks.dtype, sizes)[tuple(chosen.get(name, slice(None)) for name in AXES)]
    fourth, single = ("t", "c") if several == "t" and volume is None else ("c", "t")
    seen = stored.transpose([AXES.index(name) for name in (*grid.own, fourth, single)])[..., 0]
    affine, notes = grid.affine(str(path))
    on_disk = seen.shape[:2] if layout.flat else ()
    return Volume(cast("NDArray[Any]", seen), affine, layout, str(path), notes, on_disk)


def outline(path: str | Path) -> tuple[tuple[int, int, int], int, np.dtype[Any], Affine, int, tuple[int, int, int]]:
    """Of an image, without a voxel: shape (i, j, k), channels or time points, type, affine, bytes that are held of it, and chunk."""
    layout = peek(path)
    (i, j, k), (a, b, c) = ([sizes[name] for name in layout.grid.own] for sizes in (layout.shape, layout.chunks))
    channels = layout.shape["c"] if layout.shape["c"] > 1 else layout.shape["t"]
    return (i, j, k), channels, layout.dtype, layout.grid.affine(str(path))[0], layout.cache, (a, b, c)


def peek(path: str | Path) -> Layout:
    """How an image is stored, by its metadata alone. Raises UNetError."""
    path = Path(path)
    node = _opened(path)
    with understood(path, "zarr"):
        attributes = dict(node.attrs)
        grid = ngff.read(attributes, str(path))
        if hasattr(node, "members"):
            array = _array_of(node, grid, path)
        else:
            array, grid = node, None
    _check(array, path)
    if grid is None:
        names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
        return Layout(path, array, ngff.plain(array.ndim, names, str(path)), "", dict(array.attrs))
    if len(grid.axes) != array.ndim:
        raise UNetError(path, f"{len(grid.axes)} axes in its multiscales, {array.ndim} in its array", "Export it again")
    return Layout(path, array, grid, "0.5" if array.metadata.zarr_format == 3 else "0.4", {})


def _opened(path: Path) -> Any:
    """A group or an array of zarr."""
    try:
        import zarr
    except ImportError:
        raise UNetError(path, "reading it needs zarr, which is not installed", "pip install 'napari-unet-monai[zarr]'") from None
    if not path.is_dir():
        what = "it is a file, not a folder" if path.exists() else "there is no such folder"
        raise UNetError(path, what, "Check the path; an archive has to be unpacked")
    with understood(path, "zarr"):
        return zarr.open(path, mode="r")


def _array_of(group: Any, grid: Grid | None, path: Path) -> Any:
    """The array of full resolution; of a group without OME's metadata, its only one."""
    if grid is not None:
        if grid.path not in group:
            raise UNetError(path, f"its array {grid.path!r} is missing", "Fetch or export it again")
        found = group[grid.path]
        if hasattr(found, "members"):
            raise UNetError(path, f"its dataset {grid.path!r} is no array", "Fetch or export it again")
        return found
    arrays, groups = [name for name, _ in group.arrays()], [name for name, _ in group.groups()]
    if len(arrays) == 1:
        return group[arrays[0]]
    if arrays or groups:
        inside = " ".join(sorted((*arrays, *groups))[:5])
        raise UNetError(path, f"it is no image, but a group of others ({inside})",
                        f"Give one of them, such as {path / min(arrays or groups)}")  # fmt: skip
    raise UNetError(path, "there is no array in it", "Fetch or export it again")


def _check(array: Any, path: Path) -> None:
    """UNetError for values that are no real numbers. Of these, zarr decodes nothing with a codec that would run what the file says."""
    if array.dtype.kind not in "biuf":
        raise UNetError(path, f"voxels of type {array.dtype}", "Save it with real values, of at most 64 bits")


class Draft:
    """A zarr on the grid of an image, which is filled slice by slice beside its place, and put there by `commit`.

    labels : the classes of a mask; None for an image of another kind. Chunks are the image's, of its z, y and x; those that are
    empty are no files. A finished layer of chunks is written at once, so that memory holds the slices of an unfinished one. Raises
    UNetError where the image is no zarr, or nothing can be written.
    """

    def __init__(self, path: str | Path, image: Volume, dtype: np.dtype[Any], labels: Sequence[Label] | None) -> None:
        if not isinstance(image.header, Layout):
            raise UNetError(path, f"{image.source} is not a zarr, and no zarr says how a patient lies", "Save its mask as .nii.gz")
        self.path, self._layout = Path(os.path.realpath(path)), image.header
        if self.path.exists() and not is_there(self.path):
            raise UNetError(path, "something else has this name, which is no zarr", "Choose another --out")
        self._folder = partial_beside(self.path)
        try:
            with writing(self.path):
                sweep(self.path.parent)
                array = self._created(dtype, labels)
        except BaseException:
            self.close()
            raise
        own = self._layout.grid.own
        names = self._layout.grid.of_mask().names
        order = [own.index(name) for name in names]

        def write(region: Box, values: NDArray[Any]) -> None:
            with writing(self.path):
                stored = values.transpose(*order, *({0, 1, 2} - set(order)))
                array[tuple(region[axis] for axis in order)] = stored.reshape(stored.shape[: len(order)])

        chunks = self._layout.chunks
        self._layers = Layers(write, dtype, image.shape, (chunks[own[0]], chunks[own[1]], chunks[own[2]]))

    def _created(self, dtype: np.dtype[Any], labels: Sequence[Label] | None) -> Any:
        import zarr

        layout, grid = self._layout, self._layout.grid.of_mask()
        version = layout.array.metadata.zarr_format
        options: dict[str, Any] = {
            "shape": tuple(layout.shape[name] for name in grid.names), "chunks": tuple(layout.chunks[name] for name in grid.names),
            "dtype": dtype, "fill_value": 0,
        }  # fmt: skip
        if version == 3:
            options["dimension_names"] = grid.names
        else:
            options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
        if not layout.version:
            named: dict[str, Any] = {"_ARRAY_DIMENSIONS": list(grid.names)} if "_ARRAY_DIMENSIONS" in layout.attributes else {}
            return zarr.create_array(self._folder, zarr_format=version, attributes=named, **options)
        name = next((self.path.name.removesuffix(end) for end in ZARRS if self.path.name.endswith(end)), self.path.name)
        attributes = ngff.write(grid, name, layout.version, labels, _from(self.path, layout.path.resolve()))
        group = zarr.open_group(self._folder, mode="w", zarr_format=version, attributes=attributes)
        return group.create_array(grid.path, **options)

    def __setitem__(self, region: Box, values: NDArray[Any]) -> None:
        """Slices of the volume's own (i, j, k), or all of it; see `lazy.Layers`."""
        self._layers[region] = values

    def commit(self) -> None:
        """Put it in its place."""
        with writing(self.path):
            put_folder(self._folder, self.path)

    def close(self) -> None:
        """Leave nothing of it behind where it was not put in its place."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _from(here: Path, path: Path) -> str:
    """The way to a path from another one; on another drive of Windows, the path itself."""
    try:
        return Path(os.path.relpath(path, here)).as_posix()
    except ValueError:
        return path.as_posix()


def write(path: str | Path, volume: Volume, labels: Sequence[Label] | None) -> None:
    """A whole mask, or another image, on the grid of the zarr that it was made of; see `Draft`. Raises UNetError."""
    draft = Draft(path, volume, volume.data.dtype, labels)
    try:
        draft[tuple(slice(0, n) for n in volume.shape)] = volume.data
        draft.commit()
    finally:
        draft.close()
