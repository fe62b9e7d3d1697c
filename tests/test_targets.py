"""Targets: parts are all jobs, each once; what cannot be written, or would replace an image, is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet.dataset import Case
from napari_unet.errors import UNetError
from napari_unet.targets import jobs_for, part_of


def cases(count: int) -> list[Case]:
    return [Case(f"c{n:03d}", (Path(f"in/c{n:03d}.nii.gz"),)) for n in range(count)]


@given(st.integers(0, 40), st.integers(1, 12))
def test_parts_are_all_jobs_each_once_and_even(count: int, parts: int) -> None:
    jobs = jobs_for(cases(count), Path("out"))
    split = [part_of(jobs, f"{n}/{parts}") for n in range(1, parts + 1)]
    assert sorted((job for part in split for job in part), key=jobs.index) == jobs
    assert max(map(len, split)) - min(map(len, split)) <= 1


@pytest.mark.parametrize("part", ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/2", "1.5/2", " 1/2"])
def test_what_is_no_part(part: str) -> None:
    with pytest.raises(UNetError, match=r"--part: .* is no part\. Write 1/8 to 8/8"):
        part_of(jobs_for(cases(3), Path("out")), part)


def test_masks_have_their_images_names() -> None:
    mixed = [*cases(1), Case("photo", (Path("in/photo.jpg"),))]
    assert [job.mask for job in jobs_for(mixed, Path("out"))] == [Path("out/c000.nii.gz"), Path("out/photo.png")]
    (job,) = jobs_for(cases(1), Path("out/m.nii"), uncertainty=True)
    assert job.files == (Path("out/m.nii"), Path("out/m_uncertainty.nii.gz"))
