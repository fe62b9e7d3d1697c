"""No more memory is claimed than the machine, or a job's limit, has left."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from napari_unet import ram
from napari_unet.errors import UNetError


def test_what_is_not_there_is_refused() -> None:
    ram.check_memory(1, "scan")
    with pytest.raises(UNetError, match=r"scan: needs \d+\.\d GB of memory, .+ are free\. Close other programs"):
        ram.check_memory(psutil.virtual_memory().total * 2, "scan")
    with pytest.raises(UNetError, match=r"scan: needs 35 MB of memory, 2 MB are free\."):
        ram.check_memory(35_000_000, "scan", free=2_000_000)


def test_what_is_left_of_a_jobs_limit_is_all_there_is(tmp_path: Path) -> None:
    """The layout of cgroup v2: the outer group has no limit of its own, the middle one is the tighter."""
    (tmp_path / "own").write_text("3:cpuset:/\n0::/outer/job/step\n")
    for name, limit, used, cache in (("outer", "max", 900, 0), ("outer/job", "1000", 700, 100), ("outer/job/step", "5000", 600, 0)):
        (tmp_path / name).mkdir()
        for field, text in (("max", limit), ("current", used), ("stat", f"anon 5\ninactive_file {cache}\n")):
            (tmp_path / name / f"memory.{field}").write_text(f"{text}")
    assert list(ram._left_to_groups(tmp_path / "own", tmp_path)) == [4400, 400]
    assert list(ram._left_to_groups(tmp_path / "absent", tmp_path)) == []
    assert 0 < ram.free_memory() < 1 << 50
