"""What a folder of masks knows: how they are made, which are finished, how large their classes are.

Several processes may fill one folder at once, also over a network disk that knows no locks: each case has a file of its own,
and volumes.csv is made from all of these.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

from napari_unet import __version__, files, zarrs
from napari_unet.components import Cleaning
from napari_unet.errors import UNetError
from napari_unet.extents import Extent
from napari_unet.fingerprint import of_content, of_files
from napari_unet.schema import STRICT, as_csv, decode, encode
from napari_unet.targets import Job, check_free, uncertainty_beside

METHOD, VOLUMES, CASES = "predict.json", "volumes.csv", ".predict"


@dataclass(frozen=True)
class Method:
    """What decides over a folder's masks; FOLDER/predict.json.

    sha256 : of the model's weights file (`weights.checksum`); volume : which one of 4-D images; version : of this program,
    which is told and not compared.
    """

    __pydantic_config__ = STRICT

    model: str
    sha256: str
    mirror: bool
    volume: int | None
    uncertainty: bool
    cleaning: Cleaning
    precision: str = "float32"
    version: str = __version__

    @property
    def key(self) -> str:
        """What two methods have in common that make the same masks."""
        return hashlib.sha256(encode(replace(self, model="", version="")).encode()).hexdigest()


@dataclass(frozen=True)
class Finished:
    """A case whose mask is written, or is about to be: FOLDER/.predict/CASE.json, which is there before the mask.

    method : its key; replaces : SHA-256 of an older mask of that name, "" where there is none or none any more.
    image : what tells the image's files from others (see `fingerprint`); "" where an earlier version finished it.
    uncertainty : whether one was written beside the mask; an earlier version did not tell.
    """

    __pydantic_config__ = STRICT

    method: str
    mask: str
    replaces: str
    extents: tuple[Extent, ...]
    image: str = ""
    uncertainty: bool = False


class Ledger:
    """The books of a folder of masks.

    A mask is put in place in one step, after its entry. So a mask without an entry is somebody else's, an entry without its
    mask was interrupted, and whenever a process is killed, going on loses nothing and replaces nothing unasked.
    """

    def __init__(self, folder: Path, method: Method) -> None:
        self.folder, self.method = folder, method
        self._due = 0.0
        self._read: dict[tuple[str, int], Finished] = {}

    def begin(self, jobs: Sequence[Job], *, resume: bool, overwrite: bool) -> list[Job]:
        """The jobs that are still to do; the folder is theirs from now on. See `to_do` and `take`."""
        to_do = self.to_do(jobs, resume=resume, overwrite=overwrite)
        self.take(overwrite=overwrite)
        return to_do

    def to_do(self, jobs: Sequence[Job], *, resume: bool, overwrite: bool) -> list[Job]:
        """The jobs that are still to do; nothing is written.

        Raises UNetError where something would be replaced and `overwrite` is not set: a mask that this method did not make,
        or of another image, or, without `resume`, any; and where the folder holds masks of another method.
        """
        remedy = "Use --overwrite, or another --out"
        table = (self.folder / VOLUMES).exists()  # asked first: other parts may begin now, and write it after the method
        to_do = [job for job in jobs if not self.finished(job) or (overwrite and self._of_another(job))] if resume else list(jobs)
        if not overwrite:
            known = self._check_method(remedy)
            if resume:
                self._check_images(job for job in jobs if self.finished(job))
                check_free([job for job in to_do if not self._entry(job)], f"It is not of the run that is resumed. {remedy}")
            else:
                check_free(to_do, f"{remedy}, or --resume to go on with what is there")
            if table and not known:
                raise UNetError(self.folder / VOLUMES, "it exists already", remedy)
        return to_do

    def take(self, *, overwrite: bool) -> None:
        """Make the folder this method's, once its model is ready. UNetError where another one has begun there meanwhile."""
        if not overwrite:
            self._check_method("Choose another --out")
        files.make_folder(self.folder / CASES)
        files.write_bytes(self.folder / METHOD, encode(self.method).encode())

    def _check_method(self, remedy: str) -> Method | None:
        """The method that the folder has, if any. UNetError where it holds masks of another one than this."""
        path = self.folder / METHOD
        known = decode(Method, path.read_bytes(), str(path)) if path.exists() else None
        if known and known.key != self.method.key and any((self.folder / CASES).glob("*.json")):
            raise UNetError(path, _difference(known, self.method), remedy)
        return known

    def _check_images(self, jobs: Iterable[Job]) -> None:
        """UNetError where a finished mask is of other files than those that now have the image's name."""
        for job in jobs:
            if self._of_another(job):
                raise UNetError(job.mask, f"it was made of another image than {job.case.images[0]} is now",
                                "Use --overwrite to make all masks anew, or another --out")  # fmt: skip

    def _of_another(self, job: Job) -> bool:
        """Whether a finished mask is of other files than those that now have the image's name."""
        entry = self._entry(job)
        return entry is not None and entry.image not in ("", of_files(job.case.images))

    def finished(self, job: Job) -> bool:
        """Whether a job's mask is there, and made by this method, even where somebody has corrected it since."""
        entry = self._entry(job)
        return entry is not None and self._in_place(entry)

    def finish(self, job: Job, extents: tuple[Extent, ...], write: Callable[[], object]) -> None:
        """Let `write` put the job's files in place, the mask last, so that they count as finished from then on.

        An uncertainty that this program wrote beside an older mask goes where none comes in its place.
        """
        replaced, doubt = of_content(job.mask) if _is_there(job.mask) else "", job.uncertainty is not None
        stale = not doubt and self._wrote_uncertainty(job)
        entry = Finished(self.method.key, job.mask.name, replaced, extents, of_files(job.case.images), doubt or stale)
        files.write_bytes(self._path(job), encode(entry).encode())
        write()
        if stale:
            files.remove(uncertainty_beside(job.mask))
        if replaced or stale:
            files.write_bytes(self._path(job), encode(replace(entry, replaces="", uncertainty=doubt)).encode())

    def files_of(self, job: Job) -> tuple[Path, ...]:
        """All that is written of a job, its entry included."""
        return (*job.files, self._path(job))

    def write_volumes(self, *, sparingly: bool = False) -> None:
        """Bring volumes.csv up to date with all finished cases, whichever process finished them.

        Each process looks again after it wrote: whoever writes last has seen every case that was finished by then.
        sparingly : not yet, where it would take more than a few hundredths of the time, as with very many cases.
        """
        begun, written = time.monotonic(), ""
        if sparingly and begun < self._due:
            return
        while (text := as_csv(Extent, self._extents())) != written:
            files.write_bytes(self.folder / VOLUMES, text.encode())
            written = text
        self._due = time.monotonic() + 30 * (time.monotonic() - begun)

    def _extents(self) -> Iterable[Extent]:
        for path in sorted((self.folder / CASES).glob("*.json")):
            with suppress(FileNotFoundError):  # another process may begin anew
                entry = self._entry_of(path)
                if entry.method == self.method.key and self._in_place(entry):
                    yield from entry.extents

    def _wrote_uncertainty(self, job: Job) -> bool:
        """Whether this program wrote one beside the mask, by whichever method."""
        with suppress(FileNotFoundError, UNetError):  # a damaged entry, which is replaced, tells nothing
            entry = self._entry_of(self._path(job))
            return entry.uncertainty and entry.mask == job.mask.name
        return False

    def _entry(self, job: Job) -> Finished | None:
        """A job's entry, where it has one by this method."""
        try:
            entry = self._entry_of(self._path(job))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                raise
            return None
        return entry if (entry.method, entry.mask) == (self.method.key, job.mask.name) else None

    def _entry_of(self, path: Path) -> Finished:
        version = (path.name, path.stat().st_mtime_ns)
        if version not in self._read:
            self._read[version] = decode(Finished, path.read_bytes(), str(path))
        return self._read[version]

    def _in_place(self, entry: Finished) -> bool:
        mask = self.folder / entry.mask
        return _is_there(mask) and (not entry.replaces or of_content(mask) != entry.replaces)

    def _path(self, job: Job) -> Path:
        return self.folder / CASES / f"{job.case.name}.json"


def _difference(known: Method, wanted: Method) -> str:
    """In what two methods differ, in words."""
    if known.sha256 != wanted.sha256:
        return f"its masks are by the model {known.model} ({known.sha256[:12]}), not by {wanted.model} ({wanted.sha256[:12]})"
    name = next(f.name for f in fields(Method) if getattr(known, f.name) != getattr(wanted, f.name) and f.name != "model")
    return f"its masks were made with {name} {getattr(known, name)}, not {getattr(wanted, name)}"


def _is_there(mask: Path) -> bool:
    """Whether a mask exists: a file, or a zarr; any other folder of that name is none."""
    return mask.is_file() or zarrs.is_there(mask)
