"""Many images, one model: each is segmented, cleaned, measured and written, and what one of them lacks stops no other."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from napari_unet import fingerprint
from napari_unet.canvas import Canvas, canvas_for, streamed
from napari_unet.components import Cleaning
from napari_unet.dataset import check_kind, check_names, read_image
from napari_unet.errors import UNetError
from napari_unet.extents import Extent
from napari_unet.ledger import Ledger
from napari_unet.memory import Estimate, fit
from napari_unet.outline import outline
from napari_unet.segment import Segmenter
from napari_unet.spacing import spacing_warning
from napari_unet.spec import ModelSpec
from napari_unet.targets import Job, check_lengths
from napari_unet.volume import Volume


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

    Raises UNetError where a mask cannot be put in place: the next one could not be, either. Where there is no room for one that
    is written while it is made, it fails by itself.
    """
    sizes = [_bytes(job) for job in jobs]
    behind, whole = 0, max(1, sum(sizes))
    try:
        for number, (job, size) in enumerate(zip(jobs, sizes, strict=True)):
            begun, ended = (Step(job, number, share=share / whole) for share in (behind, behind + size))
            behind += size
            try:
                check_lengths(job.files if ledger is None else ledger.files_of(job))
                found = yield from _segment(segmenter, begun, ended.share, cleaning, volume)
            except UNetError as error:
                step = replace(ended, error=_alone(error))
            except MemoryError:
                step = replace(ended, error=UNetError(job.case.images[0], "needs more memory than there is",
                                                      "Close other programs, or crop the image"))  # fmt: skip
            else:
                _write(job, found, ledger)
                step = replace(ended, extents=found.extents, notes=found.notes)
            yield step
    finally:
        if ledger is not None:
            ledger.write_volumes()


def _alone(error: UNetError) -> UNetError:
    """The same without the calls that it came through: they would hold what the image took while the others are segmented."""
    return UNetError(error.where, error.what, error.remedy)


def _bytes(job: Job) -> int:
    """How much work an image is, as the size of its files tells it: nothing has to be opened for that."""
    return sum(file.stat().st_size for image in job.case.images for file in fingerprint.files_of(image))


@dataclass(frozen=True, eq=False)
class _Found:
    """What a job has found, before it is put in place."""

    canvas: Canvas
    extents: tuple[Extent, ...]
    notes: tuple[str, ...]


def _segment(segmenter: Segmenter, step: Step, end: float, cleaning: Cleaning, chosen: int | None) -> Generator[Step, None, _Found]:
    """The steps of one job, from its first one to the share `end`; UNetError before reading where memory does not suffice."""
    job, begin = step.job, step.share
    check_names(job.case)
    check_kind(job.case, segmenter.spec)
    way = fit(outline(job.case), segmenter.spec, job.case.images[0], cleaning=cleaning, uncertainty=segmenter.uncertainty,
              in_flight=segmenter.in_flight, feature_maps=segmenter.runtime.feature_maps,
              streamed=streamed(job, cleaning))  # fmt: skip
    memory, segmenter = way.estimate, segmenter.with_windows(way.spec.patch, way.in_flight)
    yield replace(step, memory=memory)
    image = read_image(job.case, chosen, lazy=True)
    told = (*image.notes, _kind_note(job, image, segmenter.spec), spacing_warning(image.affine, segmenter.spec), way.note)
    notes = tuple(filter(None, told))
    if notes:  # before the hours that a wrong spacing may take
        yield replace(step, memory=memory, notes=notes)
    with ExitStack() as stack:
        mask = stack.enter_context(closing(canvas_for(job, image, segmenter, cleaning)))
        for piece in segmenter.stream(image, mask.first):
            mask.add(piece)
            share = begin + (end - begin) * piece.done / piece.total
            yield replace(step, done=piece.done, total=piece.total, share=share, memory=memory)
        found = _Found(mask, mask.finish(), notes)
        stack.pop_all()  # whoever puts it in place closes it
    return found


def _kind_note(job: Job, image: Volume, spec: ModelSpec) -> str:
    """What a model was hardly trained on; "" where there is nothing to say."""
    if spec.pictures and not job.picture:
        return f"the model {spec.name} was trained on pictures, and takes this volume's slices for such"
    if spec.network.dims == 3 and min(image.shape) == 1:
        return f"it has a single slice, and the model {spec.name} is a 3-D one"
    return ""


def _write(job: Job, found: _Found, ledger: Ledger | None) -> None:
    """Put a job's files in place, the mask last, and account for them."""
    with closing(found.canvas) as mask:
        if ledger is None:
            mask.write()
        else:
            ledger.finish(job, found.extents, mask.write)
            ledger.write_volumes(sparingly=True)
