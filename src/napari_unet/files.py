"""Bytes on disk: a file is either the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

from napari_unet.errors import UNetError

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.partial")


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step, on disk before in name.

    A symbolic link keeps pointing to the file; the file's mode follows the umask. Where anything fails, the old file
    stays as it was and the temporary one is removed. Raises UNetError on a full disk or a folder that cannot be written.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.name[:120]}.{os.getpid()}.partial")
    try:
        sweep(target.parent)
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise UNetError(path, f"cannot be written ({error.strerror or error})",
                        "Free some space or choose another folder; what was there before is unchanged") from error  # fmt: skip
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """`write_atomically` for bytes that are already there."""
    write_atomically(path, lambda file: file.write(data))


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left behind."""
    for entry in folder.glob(".*.partial"):
        match = _LEFTOVER.fullmatch(entry.name)
        if match and not psutil.pid_exists(int(match["pid"])):
            with contextlib.suppress(OSError):
                entry.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for one run; UNetError names the process that holds it already."""
    path = folder / "lock"
    for _ in range(2):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            break
        except FileExistsError:
            holder = _holder(path)
            if holder is not None:
                raise UNetError(folder, f"process {holder} is working in it (see {path.name})",
                                "Wait for it, or choose another folder") from None  # fmt: skip
            path.unlink(missing_ok=True)  # its process is gone
        except OSError as error:
            raise UNetError(folder, f"cannot be written ({error.strerror})", "Choose another folder") from error
    else:
        raise UNetError(folder, "another process took it just now", "Choose another folder")
    try:
        process = psutil.Process()
        os.write(handle, f"{process.pid} {process.create_time()}".encode())
        os.close(handle)
        yield
    finally:
        path.unlink(missing_ok=True)


def _holder(path: Path) -> int | None:
    """The living process that wrote a lock file; numbers are used again, so its start time has to agree."""
    try:
        pid, started = path.read_text().split()
        return int(pid) if abs(psutil.Process(int(pid)).create_time() - float(started)) < 2 else None
    except (OSError, ValueError, psutil.Error):
        return None


def make_folder(path: str | Path) -> Path:
    """The folder, made where it is missing; UNetError where it cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UNetError(folder, f"cannot be made ({error.strerror})", "Choose another folder") from error
    return folder


def check_memory(needed: int, where: str | Path) -> None:
    """UNetError where `needed` bytes are more than the machine has free."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise UNetError(where, f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free",
                        "Close other programs, crop the image, or use a machine with more memory")  # fmt: skip
