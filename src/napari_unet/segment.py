"""A volume in, labels out: a stream of finished slices, from the one on the screen outwards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet import ensemble, preprocess, runtime
from napari_unet.components import keep_largest
from napari_unet.errors import UNetError
from napari_unet.files import check_memory
from napari_unet.network import UNet
from napari_unet.preprocess import Prepared
from napari_unet.spec import ModelSpec
from napari_unet.volume import Volume
from napari_unet.windows import window_shares, window_size, window_starts


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
    """

    def __init__(
        self, spec: ModelSpec, *networks: UNet, mirror: bool | None = None, overlap: float | None = None,
        uncertainty: bool = False,
    ) -> None:  # fmt: skip
        if len(networks) != spec.members:
            raise UNetError(spec.name, f"{len(networks)} networks for {spec.members} members", "Give one for each")
        self.spec, self.networks, self.uncertainty = spec, networks, uncertainty
        mirrored = spec.mirror_tta if mirror is None else mirror
        self.mirror_axes = spec.mirror_axes if mirrored else ()
        self.overlap = spec.overlap if overlap is None else overlap
        if not 0 <= self.overlap <= 0.9:
            raise UNetError("overlap", f"windows that overlap by {self.overlap}", "Use 0 to 0.9")

    @classmethod
    def load(cls, model: str | Path, device: str = "auto", **options: Any) -> Segmenter:
        """Read a weights file (a path, a run's folder or the name of a shipped model), or the folds in a folder, as one.

        Raises UNetError.
        """
        spec, members = ensemble.load(model)
        place = runtime.choose_device(device)
        return cls(spec, *(runtime.build(spec.network, tensors, place) for tensors in members), **options)

    @property
    def network(self) -> UNet:
        """The network; of an ensemble, its first member's."""
        return self.networks[0]

    def segment(self, volume: Volume) -> Volume:
        """The mask on the volume's own grid: the stream, put together and cleaned."""
        return self.assess(volume)[0]

    def assess(self, volume: Volume) -> tuple[Volume, Volume | None]:
        """The mask, and the uncertainty (float32) where the segmenter was asked for it, both on the volume's own grid."""
        labels = np.zeros(volume.shape, preprocess.label_dtype(self.spec))
        doubt = np.zeros(volume.shape, np.float32) if self.uncertainty else None
        for piece in self.stream(volume):
            labels[piece.region] = piece.labels
            if doubt is not None:
                doubt[piece.region] = piece.uncertainty
        return volume.with_data(self.clean(labels)), None if doubt is None else volume.with_data(doubt)

    def stream(self, volume: Volume, first: tuple[int, int] | None = None) -> Iterator[Piece]:
        """Finished slices, `first` = (axis, index) of the volume's own (i, j, k) first, the others outwards from it.

        Slices run along that axis; a 2-D model's always along its own. Each voxel is yielded once. Memory holds the
        prepared volume and the logits of the slices that windows can still change. Raises UNetError for a volume that
        the model cannot read.
        """
        prepared = preprocess.prepare(volume, self.spec)
        axis, index = 0, prepared.shape[0] // 2
        if first is not None:
            nearest = min(max(first[1], 0), volume.shape[first[0]] - 1)
            target, position = prepared.turn.target_axis(first[0], nearest, volume.shape)
            if self.spec.network.dims == 3 or target == 0:
                axis, index = target, position
        total = prepared.shape[axis]
        for done, (position, classes, doubt) in enumerate(self._slices(prepared, axis, index), 1):
            values = np.expand_dims(preprocess.values_of(classes, self.spec), axis)
            region = prepared.turn.region(axis, position, position + 1, volume.shape)
            unsure = None if doubt is None else prepared.turn.undo(np.expand_dims(doubt.numpy(), axis))
            yield Piece(region, prepared.turn.undo(values), done, total, unsure)

    def clean(self, labels: NDArray[Any]) -> NDArray[Any]:
        """What the model asks for on the whole mask (i, j, k): the largest connected component of some classes."""
        return keep_largest(labels, self.spec.keep_largest)

    def _slices(self, prepared: Prepared, axis: int, index: int) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """(position, class indices uint8, uncertainty) of each of the volume's turned slices along `axis`: `index` first.

        What is finished before `index` is held back: class indices are small, and the eye waits for that one.
        """
        size, available = prepared.shape[axis], prepared.size[axis]
        low, high, share = preprocess.neighbours(prepared.scale[axis], prepared.shift[axis], size, available)
        needed_by: dict[int, list[int]] = {}
        for position in sorted(range(size), key=lambda p: abs(p - index)):
            for number in {int(low[position]), int(high[position])}:
                needed_by.setdefault(number, []).append(position)
        finished: dict[int, Tensor] = {}
        done, held = np.zeros(size, bool), []
        for number, logits in self._network_slices(prepared, axis, float(low[index] + share[index])):
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

    def _network_slices(self, prepared: Prepared, axis: int, centre: float) -> Iterator[tuple[int, Tensor]]:
        """(number, logits (K, b, c)) of each slice of the network's grid along `axis`, as soon as no window can change it.

        For the uncertainty, the logits of each member follow those of the ensemble.

        Windows lie on a grid; a row is all windows with one start along `axis`. Rows go from `centre` outwards.
        """
        size = prepared.size
        window = [window_size(n, p, s) for n, p, s in zip(size, self.spec.patch, self.spec.stride, strict=True)]
        # of one window: input, logits, and what the finest level of the decoder holds at once
        outputs = self.spec.network.classes * (1 + len(self.networks))
        features = self.spec.network.channels + outputs + 4 * self.spec.network.features[0]
        check_memory(4 * features * math.prod(window), self.spec.name)
        starts = [window_starts(n, w, self.overlap) for n, w in zip(size, window, strict=True)]
        shares = [window_shares(n, w, s) for n, w, s in zip(size, window, starts, strict=True)]
        offset = [max(0, w - n) // 2 for w, n in zip(window, size, strict=True)]
        plane = [max(w, n) for a, (w, n) in enumerate(zip(window, size, strict=True)) if a != axis]
        rows = sorted(range(len(starts[axis])), key=lambda r: abs(starts[axis][r] + (window[axis] - 1) / 2 - centre))
        pending = np.zeros(max(window[axis], size[axis]), int)
        for start in starts[axis]:
            pending[start : start + window[axis]] += 1
        open_slices: dict[int, Tensor] = {}
        across = [a for a in range(3) if a != axis]
        for row in rows:
            begin, end = starts[axis][row], starts[axis][row] + window[axis]
            for first in range(len(starts[across[0]])):
                for second in range(len(starts[across[1]])):
                    chosen = {axis: row, across[0]: first, across[1]: second}
                    begins = [starts[a][chosen[a]] - offset[a] for a in range(3)]
                    logits = self._logits(_cut(prepared, begins, window, self.spec.neighbours)[None])
                    self._add(logits, starts, shares, chosen, axis, open_slices, plane)
            pending[begin:end] -= 1
            inside = [n for n in range(begin, end) if not pending[n] and 0 <= n - offset[axis] < size[axis]]
            for n in sorted(inside, key=lambda n: abs(n - offset[axis] - centre)):
                b, c = (slice(offset[a], offset[a] + size[a]) for a in across)
                yield n - offset[axis], open_slices.pop(n)[:, b, c]

    def _finished(self, plane: Tensor, prepared: Prepared, axis: int) -> tuple[Tensor, Tensor | None]:
        """Logits (K, b, c) of the network's plane across `axis` -> class indices uint8 and uncertainty on the volume's own."""
        for dim, a in enumerate((a for a in range(3) if a != axis), 1):
            plane = preprocess.resample_axis(plane, dim, prepared.scale[a], prepared.shift[a], prepared.shape[a])
        classes = self.spec.network.classes
        logits, members = plane[:classes], plane[classes:].unflatten(0, (-1, classes))
        return logits.argmax(0).to(torch.uint8), uncertainty_of(logits, members) if self.uncertainty else None

    def _logits(self, window: Tensor) -> Tensor:
        """(K, z, y, x) of a window, averaged over the members; for the uncertainty, each member's own follow."""
        each = [runtime.forward(network, window, self.mirror_axes)[0].cpu() for network in self.networks]
        if len(each) == 1:
            return each[0]
        mean = torch.stack(each).mean(0)
        return torch.cat([mean, *each]) if self.uncertainty else mean

    def _add(
        self, logits: Tensor, starts: list[list[int]], shares: list[NDArray[np.float32]], chosen: dict[int, int],
        axis: int, open_slices: dict[int, Tensor], plane: list[int],
    ) -> None:  # fmt: skip
        """Add a window's share to every slice along `axis` that it touches."""
        begin = [starts[a][chosen[a]] for a in range(3)]
        for a in range(3):
            shape = [-1 if a == other else 1 for other in range(3)]
            logits = logits * torch.from_numpy(shares[a][chosen[a]]).reshape(1, *shape)
        b, c = (slice(begin[a], begin[a] + logits.shape[a + 1]) for a in range(3) if a != axis)
        for n, part in enumerate(logits.unbind(axis + 1), begin[axis]):
            if n not in open_slices:
                open_slices[n] = torch.zeros(len(part), *plane)
            open_slices[n][:, b, c] += part


def uncertainty_of(logits: Tensor, members: Tensor) -> Tensor:
    """Of logits (K, ...) and those of each member (M, K, ...): how unsure they are, float32 (...), 0 to 1."""
    if len(members):
        return (members.argmax(1) != logits.argmax(0)).float().mean(0)
    shares = torch.softmax(logits, 0)
    entropy = -torch.xlogy(shares, shares).sum(0) / math.log(len(logits))
    return entropy.clamp(0, 1)


def _cut(prepared: Prepared, begin: list[int], size: list[int], k: int) -> Tensor:
    """A window (C, *size) from voxel `begin` on; what lies outside the volume is 0, the mean.

    A volume that is smaller than the window lies in its middle.
    """
    inside = [slice(max(0, b), min(n, b + w)) for b, w, n in zip(begin, size, prepared.size, strict=True)]
    seen = preprocess.window(prepared, inside, k)
    beyond = [(part.start - b, b + w - part.stop) for part, b, w in zip(inside, begin, size, strict=True)]
    widths = [width for pair in reversed(beyond) for width in pair]
    return torch.nn.functional.pad(seen, widths) if any(widths) else seen
