"""What of an array is read, as the system counts it: the pages of a file that have come into this process."""

from __future__ import annotations

import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest

counted_by_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell the pages of one file")


class Paged:
    """An array of zeros, as a file that is mapped and as a plain one over the same memory."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path = path
        self.mapped = np.memmap(path, np.uint8, "w+", shape=shape)
        self.plain = np.frombuffer(self.mapped._mmap, np.uint8).reshape(shape)

    def forget(self) -> None:
        """None of it has been read from now on."""
        self.mapped._mmap.madvise(mmap.MADV_DONTNEED)

    def read(self) -> float:
        """The share that was read since."""
        entry = re.search(rf"{re.escape(str(self._path))}\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
        assert entry is not None
        return 1024 * int(entry[1]) / self.plain.nbytes
