"""Public data sets, downloaded when somebody asks for one: whole and checked, or not there at all."""

from __future__ import annotations

import hashlib
import ssl
import tarfile
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from napari_unet import files
from napari_unet.errors import UNetError

CHUNK = 1 << 16  # bytes
PATIENCE = 15.0  # seconds without a byte: the connection is lost


@dataclass(frozen=True)
class Download:
    """A data set as a .tar file that holds one folder, and what a person has to know before fetching it.

    folder : the one in the archive; url, md5 : where the archive lies, and the checksum of its bytes; megabytes : roughly.
    """

    name: str
    folder: str
    url: str
    md5: str
    megabytes: int
    description: str
    authors: str
    licence: str
    licence_url: str
    source: str


# The archive's address and checksum are those of monai.apps.DecathlonDataset.
HIPPOCAMPUS = Download(
    name="Hippocampus",
    folder="Task04_Hippocampus",
    url="https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
    md5="9d24dba78a72977dbd1d2e110310f31b",
    megabytes=30,
    description="MRI scans of the left and right hippocampus, labelled: Task04 of the Medical Segmentation Decathlon",
    authors="Vanderbilt University Medical Center; A. L. Simpson, M. Antonelli, M. J. Cardoso and others (arXiv:1902.09063)",
    licence="CC-BY-SA 4.0",
    licence_url="https://creativecommons.org/licenses/by-sa/4.0/",
    source="http://medicaldecathlon.com",
)


def fetch(data: Download, into: Path) -> Generator[tuple[int, int], None, Path]:
    """Download and unpack a data set below a folder, where it is not there yet; gives back the data set's own folder.

    Yields bytes that have come, and bytes in all (0 where the server does not say). Closing it, a fault and a lost connection
    leave nothing behind. Raises UNetError where the server cannot be reached, where what comes is not what the checksum
    says, and where nothing can be written.
    """
    target = into / data.folder
    if target.is_dir():
        return target
    files.make_folder(into)
    files.sweep(into)
    partial = files.partial_beside(target)
    try:
        partial.mkdir()
        yield from _download(data, partial / "archive.tar")
        yield from _unpack(data, partial / "archive.tar", partial)
        files.put_folder(partial / data.folder, target)
    except OSError as error:
        raise UNetError(into, f"cannot be written ({error.strerror or error})", "Free some space or choose another folder") from error
    finally:
        files.remove(partial)
    return target


def _download(data: Download, path: Path) -> Generator[tuple[int, int]]:
    """The archive as a file, its checksum checked."""
    digest, done, total = hashlib.md5(usedforsecurity=False), 0, 0
    with open(path, "xb") as file, closing(_bytes(data)) as answer:
        for chunk, total in answer:
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            yield done, total
    if done < total:
        raise _unreachable(data, f"the connection was lost after {done:,} of {total:,} bytes")
    if digest.hexdigest() != data.md5:
        raise UNetError(data.url, f"the checksum (MD5) of what came is {digest.hexdigest()}, not {data.md5}",
                        "Try again; if it stays, something between you and the server changes the file")  # fmt: skip


def _bytes(data: Download) -> Generator[tuple[bytes, int]]:
    """What the server sends, as it comes, and how many bytes it announced."""
    try:
        with urlopen(data.url, timeout=PATIENCE, context=_certificates()) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read1(CHUNK):
                yield chunk, total
    except (OSError, HTTPException, ValueError) as error:
        reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        raise _unreachable(data, str(reason) or type(error).__name__) from error


def _unreachable(data: Download, reason: str) -> UNetError:
    return UNetError(data.name, f"cannot be downloaded from {urlsplit(data.url).netloc} ({reason.rstrip('.')})",
                     "Check the internet connection and try again; the phantoms need none")  # fmt: skip


def _certificates() -> ssl.SSLContext:
    """The system's, and Mozilla's for systems on which Python finds none."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _unpack(data: Download, archive: Path, into: Path) -> Generator[tuple[int, int]]:
    """The files of an archive's folder, but hidden ones, which macOS puts beside all others."""
    size = archive.stat().st_size
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                parts = _parts(data, member)
                if member.isdir() or parts[0] != data.folder or parts[-1].startswith("."):
                    continue
                path = into.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "xb") as file:
                    copyfileobj(tar.extractfile(member), file)  # type: ignore[arg-type]
                yield size, size
    except tarfile.TarError as error:
        raise UNetError(data.url, f"cannot be read as an archive ({error})", "Report it") from error
    if not (into / data.folder).is_dir():
        raise UNetError(data.url, f"the archive does not hold the folder {data.folder}", "Report it")


def _parts(data: Download, member: tarfile.TarInfo) -> tuple[str, ...]:
    """The names that lead to a member. Raises UNetError for whatever could write elsewhere: links, devices, other folders."""
    parts = PurePosixPath(member.name).parts or (".",)
    plain = member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
    if not plain or parts[0] == "/" or ".." in parts or set(member.name) & set("\\:"):
        raise UNetError(data.url, f"the archive holds {member.name!r}, which is no file of its folder", "Do not use it, and report it")
    return parts
