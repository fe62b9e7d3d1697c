"""Many images, one model: each is segmented, cleaned, measured and written, and what one of them lacks stops no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_unet import nifti, pictures
from napari_unet.cases import read_image
from napari_unet.components import Cleaning
from napari_unet.errors import UNetError
from napari_unet.ledger import Ledger
from napari_unet.memory import Estimate, estimate
from napari_unet.outline import outline
from napari_unet.preprocess import label_dtype
from napari_unet.segment import Segmenter
from napari_unet.targets import Job
from napari_unet.volume import Volume
from napari_unet.volumes import Extent, measure


@dataclass(frozen=True)
class Step:
    """A slice of one image, or its end.

    number : of the job, from 0; done, total : slices; share : of all jobs' work that is behind, 0 to 1.
    memory : what the image takes. At the end of a job either `extents` of the classes in the mask, which is on disk then,
    and `notes` on the image, or the `error` that it failed by.
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
) -> Iterator[Step]:
    """Segment images one by one; a step per finished slice, and one at the end of each job, whether it failed or not.

    volume : which one of 4-D images. ledger : of the folder that all masks go to; without one, nobody counts them.
    """
    sizes = [_bytes(job) for job in jobs]
    behind, whole = 0, max(1, sum(sizes))
    try:
        for number, (job, size) in enumerate(zip(jobs, sizes, strict=True)):
            try:
                for step in _segment(segmenter, job, cleaning, volume, ledger):
                    yield replace(step, number=number, share=(behind + size * step.share) / whole)
            except (UNetError, MemoryError) as fault:
                error = fault if isinstance(fault, UNetError) else UNetError(
                    job.case.images[0], "needs more memory than there is", "Close other programs, or crop the image")
                yield Step(job, number, share=(behind + size) / whole, error=error)  # fmt: skip
            behind += size
    finally:
        if ledger is not None:
            ledger.write_volumes()


def _bytes(job: Job) -> int:
    """How much work an image is, as the size of its files tells it: nothing has to be opened for that."""
    return sum(path.stat().st_size for path in job.case.images if path.exists())


def _segment(segmenter: Segmenter, job: Job, cleaning: Cleaning, chosen: int | None, ledger: Ledger | None) -> Iterator[Step]:
    """The steps of one job, their `share` its own; UNetError before reading where it takes more memory than is free."""
    spec = segmenter.spec
    memory = estimate(outline(job.case), spec, cleaning=cleaning, uncertainty=segmenter.uncertainty,
                      in_flight=segmenter.runtime.in_flight)  # fmt: skip
    memory.check(job.case.images[0])
    step = Step(job, memory=memory)
    yield step
    image = read_image(job.case)
    image = image if chosen is None else image.channel(chosen)
    labels = np.zeros(image.shape, label_dtype(spec))
    doubt = np.zeros(image.shape, np.float32) if segmenter.uncertainty else None
    for piece in segmenter.stream(image):
        labels[piece.region] = piece.labels
        if doubt is not None:
            doubt[piece.region] = piece.uncertainty
        step = replace(step, done=piece.done, total=piece.total, share=piece.done / piece.total)
        yield step
    mask = image.with_data(segmenter.clean(labels, 1000 * image.voxel_ml, cleaning))
    extents = measure(job.case.name, mask, spec.labels, picture=job.picture)

    def write() -> None:
        if job.uncertainty is not None and doubt is not None:
            nifti.write(job.uncertainty, image.with_data(doubt), labels=False)
        _write_mask(job, mask, {label.value: label.colour for label in spec.labels})

    if ledger is None:
        write()
    else:
        ledger.finish(job, extents, write)
        ledger.write_volumes(sparingly=True)
    yield replace(step, extents=extents, notes=image.notes)


def _write_mask(job: Job, mask: Volume, colours: dict[int, str]) -> None:
    """A mask of a picture has the classes' colours, and the picture's resolution."""
    if nifti.suffix(job.mask) in pictures.SUFFIXES:
        resolution = pictures.resolution(job.case.images[0]) if job.picture else None
        pictures.write(job.mask, mask.data, mask.source, colours, resolution)
    else:
        nifti.write(job.mask, mask)
