"""The one error a user meets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UNetError(Exception):
    """What is wrong, where it is, and what to do about it.

    The command line prints it and leaves with exit code 2; the viewer shows the same sentence as a notification.
    It is not a RuntimeError, because napari's generator workers swallow those.

    Parameters
    ----------
    where : the file, layer or option at fault.
    what : the field and the value found there, and why it cannot be used.
    remedy : what the reader can do next.
    """

    def __init__(self, where: str | Path, what: str, remedy: str) -> None:
        self.where, self.what, self.remedy = str(where), what.rstrip("."), remedy.rstrip(".")
        super().__init__(f"{self.where}: {self.what}. {self.remedy}{'' if self.remedy.endswith('?') else '.'}")


def first_line(error: Exception) -> str:
    """What another library complains of, in short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


@contextmanager
def understood(path: str | Path, kind: str, remedy: str = "Fetch or export it again") -> Iterator[None]:
    """Whatever another library makes of a damaged file, as one UNetError: it cannot be read as this kind."""
    try:
        yield
    except (UNetError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a decoder raises whatever damaged bytes lead it to
        raise UNetError(path, f"cannot be read as {kind} ({first_line(error)})", remedy) from error


@contextmanager
def within(path: str | Path) -> Iterator[None]:
    """What is wrong with something that a file describes, told as a fault of that file."""
    try:
        yield
    except UNetError as error:
        raise UNetError(path, f"{error.where}: {error.what}", error.remedy) from None
