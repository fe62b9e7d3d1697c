"""Masks not yet saved are kept on disk, and offered again after a crash.

Each session has a folder of its own, which it holds by a lock of the system: a folder that nobody holds is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_unet import files, images
from napari_unet.errors import UNetError
from napari_unet.spec import MAX_LABEL, Label
from napari_unet.viewer import places
from napari_unet.viewer.answer import Answer
from napari_unet.viewer.filling import appearance
from napari_unet.viewer.grids import KEY, Grid, Kind, grid_of
from napari_unet.viewer.layers import to_layer, transforms, values_of, volume_of
from napari_unet.viewer.reader import mask_in
from napari_unet.viewer.table import names_of
from napari_unet.volume import Reorientation, Volume

LOOKS = 3  # at a mask that changes while it is copied; then what there is is kept, and looked at again next time
TORN = -1  # instead of a fingerprint: to be kept again, whatever the mask holds by then
ROW = 4096  # words, summed at a time
_WEIGHTS = np.random.default_rng(0).integers(2**63, size=ROW, dtype=np.uint64) * 2 + 1  # odd: no change of a single word is without effect
_SAFE: dict[str, int] = {}  # layer's id -> what was in it when it was last saved or opened, by whichever session


@dataclass(frozen=True)
class Found:
    """A mask that an earlier session left behind: its file, its layer's name, its image's file, and its classes.

    own : whether it was opened from that file; shape, turn, place : its layer's, turn from (i, j, k); unknown where shape is None.
    """

    path: Path
    name: str = "recovered"
    source: str = ""
    kind: Kind | Literal[""] = ""
    classes: tuple[tuple[int, str, str], ...] = ()  # value, name, colour
    own: bool = False
    shape: tuple[int, ...] | None = None
    turn: Reorientation | None = None
    place: dict[str, Any] = field(default_factory=dict)

    @property
    def layer_id(self) -> str:
        """Of the layer that it was."""
        return self.path.name.removesuffix(".nii.gz")

    def layer(self) -> Labels:
        """The mask as a layer where it lay, as if it had never been away; straightened where that is unknown. Raises UNetError."""
        volume = images.read(self.path)
        values = mask_in(volume)
        if values is None and volume.data.dtype.kind in "iu":  # too many, or negative ones, for a mask by this plugin
            values = volume.data
        if values is None:
            raise UNetError(self.path, "it holds no mask", "Look at it in another program")
        known = appearance([Label(*each) for each in self.classes]) if self.classes else {}
        data, options, _ = to_layer(volume.with_data(values), "labels")
        grid = replace(options["metadata"][KEY], source=self.source, kind=self.kind, own=self.own)
        if self.shape is not None and self.turn is not None:
            grid = replace(grid, reorientation=self.turn)
            data = grid.shown(values).reshape(self.shape)
        metadata = {KEY: grid} if grid.kind else {}
        return Labels(data, **options | self.place | {"name": self.name, "metadata": metadata} | known)


@dataclass(frozen=True, eq=False)
class _Told:
    """A mask as a layer tells of it, in the viewer's thread: all but its voxels, which are the layer's own and may change.

    said : what a model has said in it; turn : its place among what is kept.
    """

    key: str
    data: NDArray[Any]
    said: NDArray[Any] | None
    grid: Grid
    volume: Volume
    about: dict[str, Any]
    turn: int

    @classmethod
    def of(cls, layer: Labels, others: list[Any], turn: int) -> _Told:
        grid, answer = grid_of(layer, others), Answer.in_layer(layer)
        about = {"name": layer.name, "source": grid.source, "kind": grid.kind, "own": grid.own, "classes": classes_of(layer),
                 "shape": layer.data.shape, "axes": grid.reorientation.axes, "flips": grid.reorientation.flips,
                 "place": _place(layer)}  # fmt: skip
        said = None if answer is None else answer.said
        return cls(str(layer.unique_id), layer.data, said, grid, volume_of(layer, others), about, turn)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A copy of a mask's voxels: `now` tells their content; painted : not all of it is a model's; whole : of a single moment."""

    now: int
    values: NDArray[Any]
    painted: bool
    whole: bool = True


def _look(told: _Told, known: int) -> _Seen | None:
    """A mask as it is now; None where that is known."""
    now = fingerprint(told.data)
    if now == known:
        return None
    values = np.array(told.data)
    return _Seen(now, values, told.said is None or not np.array_equal(values, told.said))


def _look_in_peace(told: _Told, known: int) -> _Seen | None:
    """The same while a hand may paint: whole where nothing has changed meanwhile, else once more, but not for ever."""
    for _ in range(LOOKS):
        seen = _look(told, known)
        if seen is None or fingerprint(told.data) == seen.now:
            return seen
    return None if seen is None else replace(seen, whole=False)


class Session:
    """This session's unsaved masks, by layer."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock = threading.RLock()  # between a worker that writes and the end of the session
        self._ended = False
        self._held = contextlib.ExitStack()
        self._known: dict[str, int] = {}  # layer's id -> what was in it when it was last safe
        self._painted: dict[str, bool] = {}  # those in which a hand has been, and whether that is certain
        self._turns, self._written = count(1), dict[str, int]()  # a worker that is late does not write over what came after it

    def is_safe(self, layer: Labels) -> None:
        """What the layer holds now is on disk, or nobody's work: the mask was opened, saved, or is empty."""
        key = str(layer.unique_id)
        self._known[key] = _SAFE[key] = fingerprint(values_of(layer))
        self._written[key] = next(self._turns)
        self._painted.pop(key, None)
        if self._folder is not None:
            _remove(self._file(layer))

    def keep(self, layer: Labels, others: list[Any]) -> Callable[[], None] | None:
        """What has to be done, in any thread, to keep a mask as it is now where it has changed; None of an empty one. Raises UNetError."""
        told = _Told.of(layer, others, next(self._turns))
        seen = _look(told, self._known.get(told.key, 0))
        return None if seen is None else partial(self._write, self._file(layer), told, seen)

    def keep_later(self, layer: Labels, others: list[Any]) -> Callable[[], None]:
        """The same where a thread looks at the mask, too: the viewer's, in which a hand may paint meanwhile, does not wait for it."""
        told = _Told.of(layer, others, next(self._turns))

        def look_and_write() -> None:
            """Nothing of a session that has ended meanwhile: what there was, it has kept itself."""
            if (seen := _look_in_peace(told, self._known.get(told.key, 0))) is not None:
                with self._lock:
                    if not self._ended:
                        self._write(self._file(layer), told, seen)

        return look_and_write

    def _write(self, path: Path, told: _Told, seen: _Seen) -> None:
        """Put a mask and what is known of it into the folder."""
        with self._lock:
            if self._known.get(told.key, 0) == seen.now or self._written.get(told.key, 0) > told.turn:
                return
            self._tell_hands(told.key, seen)
            if self._folder is not None or told.key in self._painted:  # a session that has ended meanwhile takes a hand's work only
                files.make_folder(path.parent)
                classes = seen.values.min() >= 0 and seen.values.max() <= MAX_LABEL  # else another program's numbers, as they are
                images.write(path, told.volume.with_data(told.grid.stored(seen.values)), labels=bool(classes))
                files.write_bytes(_about(path), json.dumps(told.about).encode())
                if self._written.get(told.key, 0) > told.turn:  # it was saved meanwhile
                    _remove(path)
                else:
                    self._known[told.key], self._written[told.key] = seen.now if seen.whole else TORN, told.turn

    def _tell_hands(self, key: str, seen: _Seen) -> None:
        """Whether a hand has been in it; where it was torn, what a model says meanwhile may look like a hand's work."""
        if seen.painted:
            self._painted[key] = seen.whole or self._painted.get(key, False)
        elif seen.whole and not self._painted.get(key, True):
            del self._painted[key]

    def close(self) -> None:
        """The session ends as it should: what a model can say again goes, what a hand has done is left behind."""
        with self._lock:
            self._ended = True
            if self._folder is None:
                return
            for path in self._folder.glob("*.*"):
                if path.name.split(".")[0] not in self._painted:
                    path.unlink(missing_ok=True)
            self._held.close()
            if not self._painted:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def keeps(self, layer: str) -> bool:
        """Whether a file of the layer of this id lies in its folder."""
        return self._folder is not None and (self._folder / f"{layer}.nii.gz").exists()

    def owns(self, folder: Path) -> bool:
        """Whether a folder is this session's; where a disk knows no locks, only the session itself can tell."""
        return folder == self._folder

    def _file(self, layer: Labels) -> Path:
        if self._folder is None:
            with self._lock:
                if self._folder is None:
                    folder = places.folder("recovery", f"{os.getpid()}-{os.urandom(3).hex()}")
                    self._held.enter_context(files.lock(folder))
                    self._folder = folder
        return self._folder / f"{layer.unique_id}.nii.gz"


def is_saved(layer: Labels) -> bool:
    """Whether what a layer holds was saved, or opened, since the viewer's process began."""
    key = str(layer.unique_id)
    return key in _SAFE and _SAFE[key] == fingerprint(layer.data)


def left_behind(besides: Session | None = None) -> list[Found]:
    """The masks that earlier sessions left behind, the latest first; none of the session that asks."""
    folders = (folder for folder in _orphans() if besides is None or not besides.owns(folder))
    paths = [path for folder in folders for path in folder.glob("*.nii.gz")]
    return [_found(path) for path in sorted(paths, key=lambda path: -path.stat().st_mtime)]


def forget(found: Found) -> None:
    """Remove a mask that is in safety or not wanted, and its session's folder with the last one."""
    _remove(found.path)
    if not any(found.path.parent.glob("*.nii.gz")):
        shutil.rmtree(found.path.parent, ignore_errors=True)


def _remove(mask: Path) -> None:
    for path in (mask, _about(mask)):
        path.unlink(missing_ok=True)


def _about(mask: Path) -> Path:
    """Where it is said what a mask is."""
    return mask.with_suffix("").with_suffix(".json")


def fingerprint(values: Any) -> int:
    """What tells one content of a layer from another; 0 of an empty one.

    All of it is looked at, for it may be changed in place; as it lies in memory, so that a turned one is not copied, and not by a CRC
    alone, which takes longer than a copy: the viewer waits.
    """
    data = np.asarray(values)
    order = sorted(range(data.ndim), key=lambda axis: -abs(data.strides[axis]))
    turned = data[tuple(slice(None, None, -1 if step < 0 else 1) for step in data.strides)].transpose(order)
    lies = np.ascontiguousarray(turned).view(np.uint8).ravel()
    rest = lies.size % (8 * ROW)
    sums = lies[: lies.size - rest].view(np.uint64).reshape(-1, ROW) @ _WEIGHTS
    if not sums.any() and not lies.any():
        return 0
    how = repr((data.dtype.str, data.shape, order, [step < 0 for step in data.strides])).encode()
    return zlib.crc32(how, zlib.crc32(lies[lies.size - rest :], zlib.crc32(sums))) | 1 << 32


def classes_of(layer: Labels) -> list[tuple[int, str, str]]:
    """Value, name and colour (#rrggbb) of the classes that a layer names."""
    colours = ((value, name, layer.get_color(value)) for value, name in names_of(layer).items() if value)
    return [
        (value, name, "#" + "".join(f"{round(255 * float(part)):02x}" for part in colour[:3]))
        for value, name, colour in colours
        if colour is not None
    ]


def _orphans() -> Iterator[Path]:
    """Session folders that no living process holds."""
    for folder in places.folder("recovery").iterdir():
        if folder.is_dir():
            try:
                with files.lock(folder):
                    pass
            except UNetError:
                continue
            yield folder


def _found(path: Path) -> Found:
    """A file, and what is known of it; a description that was cut off costs the name, not the mask."""
    try:
        about = json.loads(_about(path).read_text("utf-8"))
        classes = tuple((int(value), str(name), str(colour)) for value, name, colour in about["classes"])
        known = Found(path, str(about["name"]), str(about["source"]), about["kind"], classes)
        if "place" not in about:  # an earlier version's
            return known
        turn = Reorientation(tuple(about["axes"]), tuple(about["flips"]))
        return replace(known, own=about["own"] is True, shape=tuple(about["shape"]), turn=turn, place=dict(about["place"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Found(path)


def _place(layer: Labels) -> dict[str, Any]:
    """A layer's place as JSON has it."""
    known = transforms(layer, layer.ndim)
    words = {name: [str(each) for each in known.pop(name)] for name in ("units", "axis_labels")}
    return {name: np.asarray(value).tolist() for name, value in known.items()} | words
