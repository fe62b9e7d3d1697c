"""Many images, one model: each is segmented, cleaned, measured and written, and what one of them lacks stops no other."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_unet import nifti, pictures
from napari_unet.cases import read_image
from napari_unet.components import Cleaning
from napari_unet.errors import UNetError
from napari_unet.ledger import Ledger
from napari_unet.memory import Estimate, fit
from napari_unet.outline import outline
from napari_unet.preprocess import label_dtype
from napari_unet.segment import Segmenter
from napari_unet.targets import Job
from napari_unet.volume import Volume
from napari_unet.volumes import Extent, extents_in


@dataclass(frozen=True)
class Step:
    """A slice of one image, or its end.

    number : of the job, from 0; done, total : slices; share : of all jobs' work that is behind, 0 to 1.
    memory : what the image takes. At the end of a job either `extents` of the classes in the mask, which is on disk then,
    and `notes` on it and on how it was segmented, or the `error` that it failed by.
    """

    job: Job
    number: int = 0
    done: int = 0
    total: int = 0
    share: float = 0.0
    memory: Estimate | None = None
    extents: tuple[Extent, ...] | None = None
    notes: tuple[str, ...] = ()
    error: UNetError | None = None

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.extents is not None or self.error is not None


def segment_all(
    segmenter: Segmenter, jobs: Sequence[Job], cleaning: Cleaning, *, volume: int | None = None, ledger: Ledger | None = None
) -> Generator[Step]:
    """Segment images one by one; a step per finished slice, and one at the end of each job, whether it failed or not.

    volume : which one of 4-D images. ledger : of the folder that all masks go to; without one, nobody counts them.

    Raises UNetError where a mask cannot be written: the next one could not be, either.
    """
    sizes = [_bytes(job) for job in jobs]
    behind, whole = 0, max(1, sum(sizes))
    try:
        for number, (job, size) in enumerate(zip(jobs, sizes, strict=True)):
            begun, ended = (Step(job, number, share=share / whole) for share in (behind, behind + size))
            behind += size
            try:
                found = yield from _segment(segmenter, begun, ended.share, cleaning, volume)
            except UNetError as error:
                yield replace(ended, error=error)
            except MemoryError:
                yield replace(ended, error=UNetError(job.case.images[0], "needs more memory than there is",
                                                     "Close other programs, or crop the image"))  # fmt: skip
            else:
                _write(job, found, ledger)
                yield replace(ended, extents=found.extents, notes=found.notes)
    finally:
        if ledger is not None:
            ledger.write_volumes()


def _bytes(job: Job) -> int:
    """How much work an image is, as the size of its files tells it: nothing has to be opened for that."""
    return sum(path.stat().st_size for path in job.case.images if path.exists())


@dataclass(frozen=True, eq=False)
class _Found:
    """What a job has found, before it is written."""

    mask: Volume
    uncertainty: Volume | None
    extents: tuple[Extent, ...]
    notes: tuple[str, ...]
    colours: dict[int, str]
    dpi: tuple[float, float] | None


def _segment(segmenter: Segmenter, step: Step, end: float, cleaning: Cleaning, chosen: int | None) -> Generator[Step, None, _Found]:
    """The steps of one job, from its first one to the share `end`; UNetError before reading where memory does not suffice."""
    spec, job, begin = segmenter.spec, step.job, step.share
    way = fit(outline(job.case), spec, job.case.images[0], cleaning=cleaning, uncertainty=segmenter.uncertainty,
              in_flight=segmenter.in_flight)  # fmt: skip
    memory, segmenter = way.estimate, segmenter.with_windows(way.spec.patch, way.in_flight)
    yield replace(step, memory=memory)
    image = read_image(job.case)
    image = image if chosen is None else image.channel(chosen)
    labels = np.zeros(image.shape, label_dtype(spec))
    doubt = np.zeros(image.shape, np.float32) if segmenter.uncertainty else None
    for piece in segmenter.stream(image):
        labels[piece.region] = piece.labels
        if doubt is not None:
            doubt[piece.region] = piece.uncertainty
        share = begin + (end - begin) * piece.done / piece.total
        yield replace(step, done=piece.done, total=piece.total, share=share, memory=memory)
    mask = image.with_data(segmenter.clean(labels, 1000 * image.voxel_ml, cleaning))
    return _Found(
        mask, None if doubt is None else image.with_data(doubt), extents_in(job.case.name, mask, spec.labels, picture=job.picture),
        (*image.notes, *[way.note] * bool(way.note)), {label.value: label.colour for label in spec.labels},
        pictures.resolution(job.case.images[0]) if job.picture else None,
    )  # fmt: skip


def _write(job: Job, found: _Found, ledger: Ledger | None) -> None:
    """Put a job's files in place, the mask last, and account for them."""

    def write() -> None:
        if job.uncertainty is not None and found.uncertainty is not None:
            nifti.write(job.uncertainty, found.uncertainty, labels=False)
        if nifti.suffix(job.mask) in pictures.SUFFIXES:
            pictures.write(job.mask, found.mask.data, found.mask.source, found.colours, found.dpi)
        else:
            nifti.write(job.mask, found.mask)

    if ledger is None:
        write()
    else:
        ledger.finish(job, found.extents, write)
        ledger.write_volumes(sparingly=True)
