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
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from napari.layers import Labels

from napari_unet import files, images
from napari_unet.errors import UNetError
from napari_unet.spec import MAX_LABEL, Label
from napari_unet.viewer import places
from napari_unet.viewer.answer import Answer
from napari_unet.viewer.filling import appearance
from napari_unet.viewer.grids import KEY, Kind, grid_of
from napari_unet.viewer.layers import to_layer, transforms, values_of, volume_of
from napari_unet.viewer.reader import mask_in
from napari_unet.viewer.table import names_of
from napari_unet.volume import Reorientation

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


class Session:
    """This session's unsaved masks, by layer."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock = threading.Lock()  # between a worker that writes and the end of the session
        self._held = contextlib.ExitStack()
        self._known: dict[str, int] = {}  # layer's id -> what was in it when it was last safe
        self._painted: set[str] = set()  # those in which a hand has been
        self._turns, self._written = count(1), dict[str, int]()  # a worker that is late does not write over what came after it

    def is_safe(self, layer: Labels) -> None:
        """What the layer holds now is on disk, or nobody's work: the mask was opened, saved, or is empty."""
        key = str(layer.unique_id)
        self._known[key] = _SAFE[key] = fingerprint(values_of(layer))
        self._written[key] = next(self._turns)
        self._painted.discard(key)
        if self._folder is not None:
            _remove(self._file(layer))

    def keep(self, layer: Labels, others: list[Any]) -> Callable[[], None] | None:
        """What has to be done, in any thread, to keep a mask where it has changed; None of an empty one. Raises UNetError."""
        key, now = str(layer.unique_id), fingerprint(layer.data)
        if self._known.get(key, 0) == now:
            return None
        values = np.array(layer.data)  # at once: the hand that paints does not wait, nor does it change what is written
        grid, volume = grid_of(layer, others), volume_of(layer, others)
        answer = Answer.in_layer(layer)
        said = None if answer is None else answer.said.copy()
        about = {"name": layer.name, "source": grid.source, "kind": grid.kind, "own": grid.own, "classes": classes_of(layer),
                 "shape": values.shape, "axes": grid.reorientation.axes, "flips": grid.reorientation.flips,
                 "place": _place(layer)}  # fmt: skip
        path, turn = self._file(layer), next(self._turns)

        def write() -> None:
            """Put the mask and what is known of it into the folder."""
            painted = said is None or not np.array_equal(values, said)
            with self._lock:
                if self._known.get(key, 0) == now or self._written.get(key, 0) > turn:
                    return
                if painted:
                    self._painted.add(key)
                if self._folder is not None or key in self._painted:  # a session that has ended meanwhile takes a hand's work only
                    files.make_folder(path.parent)
                    classes = values.min() >= 0 and values.max() <= MAX_LABEL  # else another program's numbers, as they are
                    images.write(path, volume.with_data(grid.stored(values)), labels=bool(classes))
                    files.write_bytes(_about(path), json.dumps(about).encode())
                    if self._written.get(key, 0) > turn:  # it was saved meanwhile
                        _remove(path)
                    else:
                        self._known[key], self._written[key] = now, turn

        return write

    def close(self) -> None:
        """The session ends as it should: what a model can say again goes, what a hand has done is left behind."""
        with self._lock:
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
