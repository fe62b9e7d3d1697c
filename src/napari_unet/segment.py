"""A volume in, labels out: a stream of finished slices, from the one on the screen outwards."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet import ensemble, preprocess
from napari_unet.blending import blended
from napari_unet.calibration import Ranges
from napari_unet.components import Cleaning
from napari_unet.decisions import last_region, most_likely, uncertainty_of
from napari_unet.errors import UNetError, first_line
from napari_unet.memory import of_window, outputs
from napari_unet.network import UNet
from napari_unet.preprocess import Prepared
from napari_unet.ram import check_memory
from napari_unet.runtime import choose_runtime, start_runtime
from napari_unet.spec import ModelSpec
from napari_unet.torch_runtime import build
from napari_unet.volume import Volume
from napari_unet.windows import Three, Tile, Tiling
from napari_unet.words import counted

T = TypeVar("T")
Stopped: TypeAlias = Callable[[], bool]


class _Stop(Exception):
    """Nobody wants the rest."""


@dataclass(frozen=True)
class Piece:
    """One finished slice: where it lies in the volume's own (i, j, k), its label values, and how far the work is.

    uncertainty : float32, 0 to 1, of the labels' shape, where it was asked for (see `Segmenter`).
    """

    region: tuple[slice, slice, slice]
    labels: NDArray[Any]
    done: int
    total: int
    uncertainty: NDArray[np.float32] | None = None


class Segmenter:
    """A model, ready to segment volumes.

    Parameters
    ----------
    spec, networks : the model, and each of its members; `Segmenter.load` reads both from a weights file.
    mirror : average over mirrored copies; None follows the model.
    overlap : share of a window that the next one sees again; None follows the model.
    uncertainty : give it beside the labels, which are the same with and without. Of an ensemble, the share of members
        whose own most likely class is another than the ensemble's (deep ensembles: Lakshminarayanan et al. 2017, arXiv
        1612.01474); of a single network, the entropy of its softmax over that of all classes being alike.
    runtime : what runs the networks, see `runtime.start_runtime`: torch, for networks that are here already; `load` chooses.
    background : let other threads go first where a processor computes, so that a viewer's window is drawn without delay.
    ranges : of the convolutions' inputs (see `Calibration`): run in 8-bit integers within them.
    """

    def __init__(
        self, spec: ModelSpec, *networks: UNet, mirror: bool | None = None, overlap: float | None = None,
        uncertainty: bool = False, runtime: str = "torch", ranges: Ranges | None = None, background: bool = False,
    ) -> None:  # fmt: skip
        if len(networks) != spec.members:
            raise UNetError(spec.name, f"{counted(len(networks), 'network')} for {counted(spec.members, 'member')}", "Give one for each")
        self.spec, self.networks, self.uncertainty = spec, networks, uncertainty
        mirrored = spec.mirror_tta if mirror is None else mirror
        self.mirror_axes = spec.mirror_axes if mirrored else ()
        self.overlap = spec.overlap if overlap is None else overlap
        if not 0 <= self.overlap <= 0.9:
            raise UNetError("overlap", f"windows that overlap by {self.overlap}", "Use 0 to 0.9")
        self.runtime = start_runtime(networks, self.mirror_axes, runtime, ranges, background)
        self.in_flight = self.runtime.in_flight

    @classmethod
    def load(
        cls, model: str | Path, device: str = "auto", runtime: str = "auto", precision: str = "float32", **options: Any
    ) -> Segmenter:
        """Read a weights file (a path, a run's folder or the name of a shipped model), or the folds in a folder, as one.

        precision : float32, or int8 for a model that was calibrated for it. Raises UNetError.
        """
        spec, members = ensemble.load(model)
        if precision != "float32":
            options["ranges"] = ensemble.calibration(model, precision).ranges
            runtime = "openvino" if runtime == "auto" else runtime
        place, chosen = choose_runtime(device, runtime)
        networks = (build(spec.network, tensors, place) for tensors in members)
        return cls(spec, *networks, runtime=chosen, **options)

    def with_windows(self, patch: tuple[int, ...], in_flight: int) -> Segmenter:
        """The same with windows for another patch, and no more than so many at a time (see `memory.fit`)."""
        other = copy.copy(self)
        other.spec, other.in_flight = replace(self.spec, patch=patch), min(in_flight, self.in_flight)
        return other

    @property
    def network(self) -> UNet:
        """The network; of an ensemble, its first member's."""
        return self.networks[0]

    def segment(self, volume: Volume) -> Volume:
        """The mask on the volume's own grid: the stream, put together and cleaned."""
        return self.assess(volume)[0]

    def assess(self, volume: Volume) -> tuple[Volume, Volume | None]:
        """The mask, and the uncertainty (float32) where the segmenter was asked for it, both on the volume's own grid."""
        with _failures(volume):
            labels = np.zeros(volume.shape, self.spec.label_dtype)
            doubt = np.zeros(volume.shape, np.float32) if self.uncertainty else None
            for piece in self.stream(volume):
                labels[piece.region] = piece.labels
                if doubt is not None:
                    doubt[piece.region] = piece.uncertainty
            return volume.with_data(self.clean(labels)), None if doubt is None else volume.with_data(doubt)

    def stream(
        self, volume: Volume, first: tuple[int, int] | None = None, count: int | None = None, prepared: Prepared | None = None,
        stopped: Stopped | None = None,
    ) -> Iterator[Piece]:  # fmt: skip
        """Finished slices, `first` = (axis, index) of the volume's own (i, j, k) first, the others outwards from it.

        Slices run along that axis; a 2-D model's always along its own. Each voxel is yielded once. Memory holds,
        beside the volume, the logits of the slices that windows can still change. Raises UNetError for a volume that
        the model cannot read, and where memory does not suffice.

        count : only so many slices, the nearest to the first, and no window for others; prepared : what `preprocess.prepare` made of
        this volume, for whoever asks for one slice of it after another; stopped : asked at each window, of which a slice may take
        many. Once it is so, the stream ends with no more than those at work.
        """
        with _failures(volume), suppress(_Stop):
            yield from self._pieces(volume, prepared or preprocess.prepare(volume, self.spec), first, count, stopped)

    def _pieces(
        self, volume: Volume, prepared: Prepared, first: tuple[int, int] | None, count: int | None, stopped: Stopped | None
    ) -> Iterator[Piece]:
        shape = prepared.turn.shape(volume.shape)
        axis, index = 0, prepared.begin[0] + prepared.shape[0] // 2
        if first is not None:
            nearest = min(max(first[1], 0), volume.shape[first[0]] - 1)
            target, position = prepared.turn.target_axis(first[0], nearest, volume.shape)
            if self.spec.network.dims == 3 or target == 0:
                axis, index = target, position
        total = len(range(shape[axis])[:count])
        for done, (position, classes, doubt) in enumerate(self._framed(prepared, shape, axis, index, count, stopped), 1):
            values = np.expand_dims(preprocess.values_of(classes, self.spec), axis)
            region = prepared.turn.region(axis, position, position + 1, volume.shape)
            unsure = None if doubt is None else prepared.turn.undo(np.expand_dims(doubt.cpu().numpy(), axis))
            yield Piece(region, prepared.turn.undo(values), done, total, unsure)

    def clean(self, labels: NDArray[Any], voxel_mm3: float = 1.0, cleaning: Cleaning | None = None) -> NDArray[Any]:
        """The whole mask (i, j, k) without the components that `cleaning`, or else the model, takes out of it.

        voxel_mm3 : of one voxel; what is measured in mm3 needs it, what models ask for does not.
        """
        return (cleaning or Cleaning.of(self.spec)).apply(labels, voxel_mm3)

    def _framed(
        self, prepared: Prepared, shape: Three, axis: int, index: int, count: int | None, stopped: Stopped | None
    ) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """`_slices` of a whole volume of this shape, turned, in which the model looks at a box: beyond it is background, for certain."""
        begin, size = prepared.begin[axis], prepared.shape[axis]
        seen = sorted(range(shape[axis]), key=lambda p: abs(p - index))[:count]
        beyond = [position for position in seen if not begin <= position < begin + size]
        nearest = min(max(index, begin), begin + size - 1)
        before = [position for position in beyond if abs(position - index) + abs(position - nearest) == abs(index - nearest)]
        plane = [n for a, n in enumerate(shape) if a != axis]
        empty = torch.zeros(*plane, dtype=torch.uint8), torch.zeros(*plane) if self.uncertainty else None
        yield from ((position, *empty) for position in before)
        if len(seen) > len(beyond):
            ends = [(b, n - b - m) for a, (b, n, m) in enumerate(zip(prepared.begin, shape, prepared.shape, strict=True)) if a != axis]
            widths = [width for pair in reversed(ends) for width in pair]
            for position, classes, doubt in self._slices(prepared, axis, nearest - begin, len(seen) - len(beyond), stopped):
                yield begin + position, _padded(classes, widths), None if doubt is None else _padded(doubt, widths)
        yield from ((position, *empty) for position in beyond if position not in before)

    def _slices(
        self, prepared: Prepared, axis: int, index: int, count: int | None, stopped: Stopped | None
    ) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """(position, class indices uint8, uncertainty) of the volume's turned slices along `axis`, or `count` of them: `index` first.

        What is finished before `index` is held back: class indices are small, and the eye waits for that one.
        """
        size = prepared.shape[axis]
        low, high, share = prepared.back(axis)
        needed_by: dict[int, list[int]] = {}
        for position in sorted(range(size), key=lambda p: abs(p - index))[:count]:
            for number in {int(low[position]), int(high[position])}:
                needed_by.setdefault(number, []).append(position)
        finished: dict[int, Tensor] = {}
        done, held = np.zeros(size, bool), []
        for number, logits in self._network_slices(prepared, axis, float(low[index] + share[index]), needed_by, stopped):
            finished[number] = logits
            for position in needed_by.get(number, []):
                if low[position] in finished and high[position] in finished:
                    plane = torch.lerp(finished[low[position]], finished[high[position]], float(share[position]))
                    held.append((position, *self._finished(plane, prepared, axis)))
                    done[position] = True
            for n in (number - 1, number, number + 1):
                if n in finished and done[needed_by.get(n, [])].all():
                    del finished[n]
            if done[index]:
                yield from sorted(held, key=lambda item: abs(item[0] - index))
                held.clear()

    def _network_slices(
        self, prepared: Prepared, axis: int, centre: float, wanted: Container[int] | None = None, stopped: Stopped | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """(number, logits (K, b, c)) of each slice of the network's grid along `axis`, as soon as no window can change it.

        For the uncertainty, the logits of each member follow those of the ensemble. Rows of windows go from `centre` outwards;
        those that see none of the `wanted` slices, where these are given, are left out.
        """
        tiling = Tiling.cover(prepared.size, self.spec.patch, self.spec.stride, self.spec.whole, self.overlap)
        check_memory(int(sum(of_window(self.spec, tiling.window, self.runtime.feature_maps))), self.spec.name)
        wanted = range(prepared.size[axis]) if wanted is None else wanted
        tiles = [tile for tile in tiling.tiles(axis, centre) if any(n in wanted for n in tile.inside(prepared.size)[axis])]
        place = self._place(prepared, axis, tiling)
        if place.type != "cpu" and len(tiles) * math.prod(tiling.window) >= math.prod(prepared.size):
            prepared = prepared.on(place)
        windows = (_cut(prepared, tile.begin, tiling.window, self.spec.neighbours) for tile in _until(stopped, tiles))
        with closing(self.runtime.each(windows, self.in_flight, len(tiles))) as answers:
            each = zip(_until(stopped, tiles), answers, strict=True)  # the last ones are drawn long before they are answered
            inside = (self._inside(members, tile, prepared.size) for tile, members in each)
            yield from blended(tiles, inside, prepared.size, axis, centre, wanted, place)

    def _place(self, prepared: Prepared, axis: int, tiling: Tiling) -> torch.device:
        """Where the volume and the logits of two rows of windows across it lie: where they are computed, if that has the memory."""
        plane = math.prod(prepared.size) // prepared.size[axis]
        return self.runtime.place(4 * (outputs(self.spec, self.uncertainty) * plane * 2 * tiling.window[axis] + prepared.values))

    def _finished(self, plane: Tensor, prepared: Prepared, axis: int) -> tuple[Tensor, Tensor | None]:
        """Logits (K, b, c) of the network's plane across `axis` -> class indices uint8 and uncertainty on the volume's own."""
        for dim, a in enumerate((a for a in range(3) if a != axis), 1):
            plane = prepared.restored(plane, dim, a)
        classes = self.spec.network.classes
        logits, members = plane[:classes], plane[classes:].unflatten(0, (-1, classes))
        decided = last_region if self.spec.regions else most_likely
        doubt = uncertainty_of(logits, members, self.spec.regions) if self.uncertainty else None
        return decided(logits, 0).to(torch.uint8), doubt

    def _logits(self, members: Tensor) -> Tensor:
        """Of each member's logits (M, K, z, y, x) their mean; for the uncertainty, each member's own follow."""
        if len(members) == 1:
            return members[0]
        mean = members.mean(0)
        return torch.cat([mean, *members]) if self.uncertainty else mean

    def _inside(self, members: Tensor, tile: Tile, size: tuple[int, ...]) -> Tensor:
        """What a window says of the voxels that it sees of a volume of this size, from its members' logits."""
        logits = self._logits(members)
        for a, (begin, part) in enumerate(zip(tile.begin, tile.inside(size), strict=True), 1):
            logits = logits.narrow(a, part.start - begin, len(part))
        return logits


def _until(stopped: Stopped | None, things: Iterable[T]) -> Iterator[T]:
    """The same, as long as it is not so. Raises _Stop then: whoever draws them lets go of what is at work."""
    for each in things:
        if stopped is not None and stopped():
            raise _Stop
        yield each


@contextmanager
def _failures(volume: Volume) -> Iterator[None]:
    """What torch and numpy complain of, which is nearly always the memory, as a UNetError about the volume."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # MONAI only names the transform
        raise UNetError(volume.source, f"it cannot be segmented ({first_line(cause)})",
                        "Close other programs, or crop the image") from error  # fmt: skip


def _cut(prepared: Prepared, begin: tuple[int, ...], size: tuple[int, ...], k: int) -> Tensor:
    """A window (C, *size) from voxel `begin` on; what lies outside the volume is 0, the mean."""
    inside = [slice(max(0, b), min(n, b + w)) for b, w, n in zip(begin, size, prepared.size, strict=True)]
    seen = preprocess.window(prepared, inside, k)
    beyond = [(part.start - b, b + w - part.stop) for part, b, w in zip(inside, begin, size, strict=True)]
    widths = [width for pair in reversed(beyond) for width in pair]
    return _padded(seen, widths)


def _padded(values: Tensor, widths: list[int]) -> Tensor:
    """Zeros before and after, the last axis first."""
    return torch.nn.functional.pad(values, widths) if any(widths) else values
