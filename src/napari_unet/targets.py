"""Where the mask of each image goes, and what may never be replaced."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_unet import zarrs
from napari_unet.dataset import Case
from napari_unet.errors import UNetError
from napari_unet.suffixes import WRITABLE, ZARRS, stem, suffix

MASKS = (*WRITABLE, *ZARRS)


@dataclass(frozen=True)
class Job:
    """An image to segment, and the files that come of it."""

    case: Case
    mask: Path
    uncertainty: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written."""
        return (self.mask,) if self.uncertainty is None else (self.mask, self.uncertainty)

    @property
    def chunked(self) -> bool:
        """Whether the image is a zarr."""
        return zarrs.is_zarr(self.case.images[0])

    @property
    def picture(self) -> bool:
        """Whether the image is one, whose pixels have no size and no direction in a body."""
        return self.case.picture


def is_file(out: Path) -> bool:
    """Whether an output means a file, or a zarr, rather than a folder of them."""
    return suffix(out) in ZARRS or (suffix(out) != "" and not out.is_dir())


def jobs_for(cases: Sequence[Case], out: Path, uncertainty: bool = False) -> list[Job]:
    """A job for each case: `out` is a folder, or a file for a single one. Nothing is looked at but names.

    Raises UNetError where the output cannot be one, where two files would have one name, or one replace an image.
    """
    if is_file(out) and len(cases) > 1:
        raise UNetError(out, f"one file for {len(cases)} images", "Give a folder")
    if is_file(out) and suffix(out) not in MASKS:
        raise UNetError(out, f"no mask can be written as {suffix(out)}", f"Use one of {' '.join(MASKS)}")
    jobs = [_job(case, out, uncertainty) for case in cases]
    if twins := {job.mask for job in jobs} & {job.uncertainty for job in jobs}:
        raise UNetError(min(filter(None, twins)), "it would be a mask and an uncertainty", "Rename the image, or segment it on its own")
    images = {path.resolve() for case in cases for path in case.images}
    inside = {folder: path for path in images for folder in path.parents}
    for path in (path for job in jobs for path in job.files):
        if path.resolve() in images:
            raise UNetError(path, "the mask would replace its own image", "Choose another --out")
        if within := images & set(path.resolve().parents):  # a zarr is a folder
            raise UNetError(path, f"the mask would be written into the image {min(within)}", "Choose another --out")
        if path.resolve() in inside:
            raise UNetError(path, f"the mask would replace the folder of the image {inside[path.resolve()]}", "Choose another --out")
    return jobs


def check_apart(inputs: Iterable[str | Path], out: Path) -> None:
    """UNetError where an output is a folder of images: the next run would take the masks for images, too."""
    if out.resolve() in [Path(source).resolve() for source in inputs]:
        raise UNetError(out, "its masks would lie among the images", "Choose another --out")


def uncertainty_beside(mask: Path) -> Path:
    """Where the uncertainty of a mask is written."""
    ending = suffix(mask) if zarrs.is_zarr(mask) else ".nii.gz"
    return mask.with_name(f"{stem(mask)}_uncertainty{ending}")


def masks_among(paths: Iterable[Path]) -> list[Path]:
    """Those of a folder's images that are no uncertainty of another one of them."""
    paths = list(paths)
    doubts = set(map(uncertainty_beside, paths))
    return [path for path in paths if path not in doubts]


def _job(case: Case, out: Path, uncertainty: bool) -> Job:
    job = Job(case, out)
    mask = out if is_file(out) else out / f"{case.name}{_ending(job)}"
    if zarrs.is_zarr(mask) and not job.chunked:
        raise UNetError(mask, f"{case.images[0]} is not a zarr, and no zarr says how a patient lies", "Save its mask as .nii.gz")
    return Job(case, mask, uncertainty_beside(mask) if uncertainty else None)


def _ending(job: Job) -> str:
    """Of the mask's name, as the image's kind has it."""
    if job.chunked:
        return suffix(job.case.images[0]) or ZARRS[-1]
    return ".png" if job.picture else ".nii.gz"


def part_of(jobs: Sequence[Job], part: str) -> list[Job]:
    """The jobs of one part, as in "2/8": every eighth, from the second on. All parts together are all jobs, each once.

    Raises UNetError for anything but two whole numbers, the first at most the second.
    """
    number, _, count = part.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UNetError("--part", f"{part!r} is no part", "Write 1/8 to 8/8 for eight parts")
    return list(jobs[int(number) - 1 :: int(count)])


def check_lengths(paths: Iterable[Path]) -> None:
    """UNetError for a name that is too long for the disk: many take 255 bytes."""
    for path in paths:
        try:
            os.lstat(path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise UNetError(path, f"a name of {len(os.fsencode(path.name))} bytes is too long for this disk",
                                "Give the image a shorter name") from None  # fmt: skip


def check_free(jobs: Iterable[Job], remedy: str = "Use --overwrite, or another --out") -> None:
    """UNetError for a file that exists already."""
    for path in (path for job in jobs for path in job.files):
        if os.path.exists(path):  # which no name is too long for
            raise UNetError(path, "it exists already", remedy)
