"""The memory that is free, which nothing may claim more of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from napari_unet.errors import UNetError
from napari_unet.words import size


def check_memory(needed: int, where: str | Path, free: int | None = None) -> None:
    """UNetError where `needed` bytes are more than are free, on this machine where it is not told."""
    free = free_memory() if free is None else free
    if needed > free:
        raise UNetError(where, f"needs {size(needed)} of memory, {size(free)} are free",
                        "Close other programs, crop the image, or use a machine with more memory")  # fmt: skip


def free_memory() -> int:
    """Bytes that can be had without swapping: the machine's, or what is left to a container or a cluster's job (cgroup v2)."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_to_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _left_to_groups(own: Path, root: Path) -> Iterator[int]:
    """What is left of the limit of each control group that this process is in, from its own outwards."""
    try:
        name = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):  # another system, or an older kind of groups
        return
    group = root / name.strip("/")
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError, StopIteration):  # no limit ("max"), or none of our business
            limit, used = (int((folder / f"memory.{field}").read_text()) for field in ("max", "current"))
            stat = (folder / "memory.stat").read_text().split()
            cache = int(stat[stat.index("inactive_file") + 1])  # given back as soon as anyone needs it
            yield max(0, limit - used + cache)
        if folder == root:
            return
