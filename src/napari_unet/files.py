"""Bytes on disk: a file is either the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import secrets
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from napari_unet.errors import UNetError


def _processes() -> str:
    """What tells the processes of this machine, or container, from another's of the same name; nothing where only Linux would know."""
    told = []
    with contextlib.suppress(OSError):
        told.append(Path("/etc/machine-id").read_text("ascii", "replace").strip())
    with contextlib.suppress(OSError):
        told.append(os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(' '.join(told).encode()):08x}"


NAME = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40] or "host"
HOST = f"{NAME}-{_processes()}"
_LEFTOVER = re.compile(r".*\.(?P<host>[^.]+)\.(?P<pid>\d+)\.[0-9a-f]+\.(?P<kind>partial|aside)")


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step, on disk before in name.

    A symbolic link keeps pointing to the file; the file's mode follows the umask. Where anything fails, the old file
    stays as it was and the temporary one is removed. Raises UNetError on a full disk or a folder that cannot be written.
    """
    target = Path(os.path.realpath(path))
    partial = partial_beside(target)
    try:
        with writing(path):
            sweep(target.parent)
            with open(partial, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
            _sync_folder(target.parent)
    finally:
        remove(partial)


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """What the system complains of while a file is opened and read, as a UNetError."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        why = getattr(error, "strerror", None) or error
        raise UNetError(path, f"cannot be read ({why})", "Check the path and its permissions") from error


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """What the system complains of while a file is made, as a UNetError: nothing has its name yet."""
    try:
        yield
    except OSError as error:
        raise UNetError(path, f"cannot be written ({error.strerror or error})",
                        "Free some space or choose another folder; what was there before is unchanged") from error  # fmt: skip


def write_bytes(path: str | Path, data: bytes) -> None:
    """`write_atomically` for bytes that are already there."""
    write_atomically(path, lambda file: file.write(data))


def partial_beside(target: Path) -> Path:
    """A name for what is not finished yet; no other save has it: threads, machines on a shared disk and containers (all of
    them process 1) may meet."""
    return target.with_name(f".{target.name[:40]}.{HOST}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def put_folder(partial: Path, target: Path) -> None:
    """Give a finished folder its name, on disk before in name. One that has the name is moved aside, and removed at the end.

    It is moved into a folder, so that it keeps its name: after a kill between the two, `sweep` gives it back.
    """
    for folder, _, names in os.walk(partial):
        for name in names:
            with open(Path(folder) / name, "r+b") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(folder))
    aside = partial_beside(target).with_suffix(".aside")
    if target.exists():
        aside.mkdir()
        os.replace(target, aside / target.name)
    try:
        os.replace(partial, target)
    finally:
        _sync_folder(target.parent)
        _give_back(aside)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes of this machine, or container, left, and give back what they had moved aside (`put_folder`)."""
    for entry in folder.glob(".*"):
        match = _LEFTOVER.fullmatch(entry.name)
        if match and match["host"] == HOST and not _is_alive(int(match["pid"])):
            (remove if match["kind"] == "partial" else _give_back)(entry)


def _is_alive(process: int) -> bool:
    import psutil  # a tenth of a short command's time, which few need

    return bool(psutil.pid_exists(process))


def _give_back(aside: Path) -> None:
    """What was moved aside gets its name again, unless something new has it; then it goes. What cannot be moved stays."""
    with contextlib.suppress(OSError):
        for old in aside.iterdir():
            if not os.path.lexists(aside.parent / old.name):
                os.rename(old, aside.parent / old.name)
        remove(aside)


def _sync_folder(folder: Path) -> None:
    """Ask for the new name to be on disk too; Windows and some network disks cannot, and the file is in place anyway."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for one run; UNetError names the process that holds it already.

    The lock is the system's, which ends with its process however that ends: a file left behind is no obstacle.
    """
    path = folder / "lock"
    with _take(path) as file:
        with contextlib.suppress(OSError):  # the text only serves others' messages
            file.truncate(0)
            file.write(f"process {os.getpid()} on {NAME}")
            file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps a file that is open
                path.unlink()


def _take(path: Path) -> TextIO:
    try:
        while True:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - the caller closes it
            if not _lock_file(file.fileno()):
                with file:
                    file.seek(0)
                    raise UNetError(path.parent, f"{file.read(100) or 'another process'} is working in it",
                                    "Wait for it, or choose another folder")  # fmt: skip
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            file.close()  # its last holder has just removed it
    except OSError as error:
        raise UNetError(path.parent, f"cannot be written ({error.strerror})", "Choose another folder") from error


def _lock_file(handle: int) -> bool:
    """Take the system's lock on an open file; False where another holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, 1 << 30, os.SEEK_SET)  # a locked byte cannot be read: one far behind the text
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # some network disks know no locks
    return True


def make_folder(path: str | Path) -> Path:
    """The folder, made where it is missing; UNetError where it cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UNetError(folder, f"cannot be made ({error.strerror})", "Choose another folder") from error
    return folder
