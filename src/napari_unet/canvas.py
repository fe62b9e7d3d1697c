"""Where the slices of a mask go until it is whole: into memory, or onto the disk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from napari_unet import images, pictures, spool, zarrs
from napari_unet.components import Cleaning
from napari_unet.extents import Extent, extents_in, extents_of
from napari_unet.measure import Tally
from napari_unet.segment import Piece, Segmenter
from napari_unet.spec import Label
from napari_unet.suffixes import is_picture
from napari_unet.targets import Job
from napari_unet.volume import Reorientation, Volume


class Canvas(Protocol):
    """What a job's slices are put on.

    first : the slice to begin with, as `Segmenter.stream` takes it.
    """

    first: tuple[int, int] | None

    def add(self, piece: Piece) -> None:
        """Put a finished slice on it."""

    def finish(self) -> tuple[Extent, ...]:
        """Clean the whole mask, and measure its classes."""

    def write(self) -> None:
        """Put the job's files in place, the mask last."""

    def close(self) -> None:
        """Leave nothing behind of what was not written."""


def streamed(job: Job, cleaning: Cleaning) -> bool:
    """Whether a mask can be written while it is made: it is no picture, and nothing is left out of it in the end."""
    return not is_picture(job.mask) and cleaning == Cleaning()


def canvas_for(job: Job, image: Volume, segmenter: Segmenter, cleaning: Cleaning) -> Canvas:
    """The one for a job. Raises UNetError where nothing can be written."""
    if is_picture(job.mask):
        pictures.check_shape(job.mask, image.shape, image.source)
    return Streamed(job, image, segmenter) if streamed(job, cleaning) else Held(job, image, segmenter, cleaning)


class Held:
    """The whole mask in memory: what cleaning needs, and pictures."""

    first: tuple[int, int] | None = None

    def __init__(self, job: Job, image: Volume, segmenter: Segmenter, cleaning: Cleaning) -> None:
        self.job, self.image, self.segmenter, self.cleaning = job, image, segmenter, cleaning
        self.labels = np.zeros(image.shape, segmenter.spec.label_dtype)
        self.doubt = np.zeros(image.shape, np.float32) if job.uncertainty else None
        self.dpi: tuple[float, float] | None = None

    def add(self, piece: Piece) -> None:
        """See `Canvas`."""
        self.labels[piece.region] = piece.labels
        if self.doubt is not None:
            self.doubt[piece.region] = piece.uncertainty

    def finish(self) -> tuple[Extent, ...]:
        """See `Canvas`."""
        if is_picture(self.job.case.images[0]):
            self.dpi = pictures.resolution(self.job.case.images[0])
        self.labels = self.segmenter.clean(self.labels, 1000 * self.image.voxel_ml, self.cleaning)
        return extents_in(self.job.case.name, self.image.with_data(self.labels), self.segmenter.spec.labels, picture=self.job.picture)

    def write(self) -> None:
        """See `Canvas`."""
        if self.job.uncertainty is not None and self.doubt is not None:
            images.write(self.job.uncertainty, self.image.with_data(self.doubt), labels=False)
        mask, labels = self.image.with_data(self.labels), self.segmenter.spec.labels
        if is_picture(self.job.mask):  # in the classes' colours, and with the picture's resolution
            pictures.write(self.job.mask, mask.data, mask.source, {label.value: label.colour for label in labels}, self.dpi)
        elif zarrs.is_zarr(self.job.mask):
            zarrs.write(self.job.mask, mask, labels)
        else:
            images.write(self.job.mask, mask)

    def close(self) -> None:
        """See `Canvas`."""


class Streamed:
    """A file that is written while it is made: memory holds a layer of a zarr's chunks, or a slice, whatever the size of the whole."""

    def __init__(self, job: Job, image: Volume, segmenter: Segmenter) -> None:
        self.job, self.image, self.spec = job, image, segmenter.spec
        axis = Reorientation.between(image.affine, self.spec.orientation).axes[0]
        self.first = (axis, 0) if zarrs.is_zarr(job.mask) else None  # from one end, so that a single layer of chunks is open
        self.tally = Tally(image.shape)
        with ExitStack() as stack:  # where the second cannot be begun, the first one goes
            self.mask = stack.enter_context(closing(_draft(job.mask, image, self.spec.label_dtype, axis, self.spec.labels)))
            self.doubt = _draft(job.uncertainty, image, np.dtype(np.float32), axis, None) if job.uncertainty else None
            stack.pop_all()

    def add(self, piece: Piece) -> None:
        """See `Canvas`."""
        self.tally.add(piece.region, piece.labels)
        self.mask[piece.region] = piece.labels
        if self.doubt is not None and piece.uncertainty is not None:
            self.doubt[piece.region] = piece.uncertainty

    def finish(self) -> tuple[Extent, ...]:
        """See `Canvas`."""
        return extents_of(self.job.case.name, self.tally, self.image, self.spec.labels, picture=self.job.picture)

    def write(self) -> None:
        """See `Canvas`."""
        if self.doubt is not None:
            self.doubt.commit()
        self.mask.commit()

    def close(self) -> None:
        """See `Canvas`."""
        self.mask.close()
        if self.doubt is not None:
            self.doubt.close()


def _draft(path: Path, image: Volume, dtype: np.dtype[Any], axis: int, labels: Sequence[Label] | None) -> zarrs.Draft | spool.Draft:
    """A file of its kind, whose slices come along an axis of (i, j, k)."""
    if zarrs.is_zarr(path):
        return zarrs.Draft(path, image, dtype, labels)
    return spool.Draft(path, image, dtype, axis, labels is not None)
