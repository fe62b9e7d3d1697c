"""The one error a user meets."""

from __future__ import annotations

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
