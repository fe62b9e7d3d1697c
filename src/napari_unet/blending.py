"""Windows' logits become a volume's: added up slice by slice, each given away as soon as no window can change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from itertools import chain, groupby

import torch
from torch import Tensor

from napari_unet.windows import Three, Tile


def blended(
    tiles: list[Tile], answers: Iterable[Tensor], size: Three, axis: int, centre: float, wanted: Container[int], place: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """(number, logits (K, b, c) in `place`) of each `wanted` slice of a volume of this size (z, y, x) along `axis`, once it is finished.

    tiles, answers : windows, those of one start along `axis` one after the other, and what each says of the voxels that it sees of
    the volume: logits (K, z, y, x). Of slices that are finished together, the nearest to `centre` comes first.
    Memory holds one row of windows and the slices that another row can still change.
    """
    plane = [n for a, n in enumerate(size) if a != axis]
    rows = [list(row) for _, row in groupby(tiles, key=lambda tile: tile.begin[axis])]
    seen = [[n for n in row[0].inside(size)[axis] if n in wanted] for row in rows]
    pending = Counter(n for numbers in seen for n in numbers)
    waiting: dict[int, Tensor] = {}
    said = (logits.to(place) for logits in answers)
    for row, numbers in zip(rows, seen, strict=True):
        first = next(said)
        slab = _begun(waiting, numbers, len(first), plane, place)
        for tile, logits in zip(row, chain([first], said)):  # noqa: B905 - what is said goes on to the next row
            _add(slab, logits, tile, size, axis, numbers[0])
        pending.subtract(numbers)
        planes = {n: slab[:, n - numbers[0]] for n in numbers}
        waiting |= {n: planes.pop(n).clone() for n in numbers if pending[n]}
        for n in sorted(planes, key=lambda n: abs(n - centre)):
            yield n, planes.pop(n).clone()  # a view would keep its whole row


def _begun(waiting: dict[int, Tensor], numbers: list[int], outputs: int, plane: list[int], place: torch.device) -> Tensor:
    """What a row adds to (K, slices, b, c): from the first to the last of its slices, those of other rows taken from what waits."""
    slab = torch.zeros(outputs, numbers[-1] + 1 - numbers[0], *plane, device=place)
    for n in numbers:
        if n in waiting:
            slab[:, n - numbers[0]] = waiting.pop(n)
    return slab


def _add(slab: Tensor, logits: Tensor, tile: Tile, size: Three, axis: int, first: int) -> None:
    """A window's logits, weighted, to a row's slab that begins with slice `first`: two operations, since a card is asked for each apart."""
    slices, b, c = (slice(part.start, part.stop) for part in _across(tile, size, axis))
    along, across = (torch.from_numpy(weights).to(slab.device) for weights in tile.weights(axis, size))
    own = slice(first - slices.start, first - slices.start + slab.shape[1])
    slab[:, :, b, c].addcmul_(logits.movedim(axis + 1, 1)[:, own], along[own, None, None] * across)


def _across(tile: Tile, size: Three, axis: int) -> tuple[range, ...]:
    """The voxels that a window sees of a volume, those along `axis` first."""
    inside = list(tile.inside(size))
    return (inside.pop(axis), *inside)
