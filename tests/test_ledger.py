"""The books of a folder: whenever a process is killed, and however many work at once, no mask and no row is lost or mixed up."""

from __future__ import annotations

import csv
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from napari_unet.components import Cleaning
from napari_unet.dataset import Case
from napari_unet.errors import UNetError
from napari_unet.extents import Extent
from napari_unet.files import write_bytes
from napari_unet.ledger import CASES, METHOD, VOLUMES, Ledger, Method
from napari_unet.targets import Job

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
METHODS = [Method("liver", digit * 64, False, None, False, Cleaning((1,))) for digit in "ab"]
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.scandir", "os.listdir"}


def jobs(folder: Path, count: int = 4) -> list[Job]:
    return [Job(Case(name, (Path(f"in/{name}.nii.gz"),)), folder / f"{name}.nii.gz", folder / f"{name}_uncertainty.nii.gz")
            for name in (f"c{n}" for n in range(count))]  # fmt: skip


def work(folder: Path, method: Method = METHODS[0], *, resume: bool = True, overwrite: bool = False, part: slice = slice(None)) -> None:
    """What a process does, the masks being a few bytes that tell the model."""
    ledger = Ledger(folder, method)
    for job in ledger.begin(jobs(folder)[part], resume=resume, overwrite=overwrite):
        size = int(job.case.name[1:])

        def write(job: Job = job) -> None:
            for path in reversed(job.files):
                write_bytes(path, content(path, method))

        ledger.finish(job, (Extent(job.case.name, 1, "liver", size, size / 1000, ""),), write)
        ledger.write_volumes()
    ledger.write_volumes()


def content(path: Path, method: Method) -> bytes:
    return f"{path.name} by {method.sha256}".encode()


def complete(folder: Path, method: Method = METHODS[0], count: int = 4) -> bool:
    """All masks and rows are there, by one model, and nothing else."""
    masks = [path for job in jobs(folder, count) for path in job.files]
    assert {path.name for path in folder.iterdir()} == {METHOD, VOLUMES, CASES, *(path.name for path in masks)}
    assert all(path.read_bytes() == content(path, method) for path in masks)
    return [row["case"] for row in csv.DictReader((folder / VOLUMES).open())] == [f"c{n}" for n in range(count)]


def forked(run: Callable[[], object]) -> int:
    """The number of a child that does it: it ends with 0, or 1 after an error."""
    if child := os.fork():
        return child
    try:
        run()
        os._exit(0)
    finally:
        os._exit(1)


def killed(run: Callable[[], object], after: int) -> bool:
    """Whether a child was killed at its file operation of that number, rather than done before."""

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal after
        after -= event in FILE_EVENTS
        if event in FILE_EVENTS and after < 0:  # killing is an event, too
            os.kill(os.getpid(), signal.SIGKILL)

    def watched() -> None:
        sys.addaudithook(count)
        run()

    status = os.waitpid(forked(watched), 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


@FORK
def test_killed_at_any_file_operation_and_resumed(tmp_path: Path) -> None:
    moments = 0
    while killed(lambda: work(tmp_path / str(moments)), moments):  # noqa: B023 - run at once
        folder = tmp_path / str(moments)
        before = {path: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")}
        work(folder)
        assert complete(folder)
        # at most the case in hand is done again
        assert sum(path.stat().st_mtime_ns != written for path, written in before.items()) <= 1
        moments += 1
    assert moments > 60 and complete(tmp_path / str(moments))


@FORK
def test_killed_while_it_replaces_another_models_masks(tmp_path: Path) -> None:
    (old, new), two, moments = METHODS, slice(2), 0
    while True:
        folder = tmp_path / str(moments)
        work(folder, old, part=two)
        if not killed(lambda: work(folder, new, resume=False, overwrite=True, part=two), moments):  # noqa: B023 - run at once
            break
        assert all(job.mask.read_bytes() in (content(job.mask, old), content(job.mask, new)) for job in jobs(folder, 2))
        work(folder, new, overwrite=True, part=two)
        assert complete(folder, new, 2)
        moments += 1
    assert moments > 30 and complete(folder, new, 2)


@FORK
@pytest.mark.parametrize("seed", range(5))
def test_four_processes_at_once_lose_no_row(tmp_path: Path, seed: int) -> None:
    def run(number: int) -> None:
        time.sleep(random.Random(10 * seed + number).uniform(0, 0.03))
        work(tmp_path / "out", part=slice(number, None, 4))

    children = [forked(lambda n=n: run(n)) for n in range(4)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert complete(tmp_path / "out")


def test_what_is_finished_is_left_alone(tmp_path: Path) -> None:
    work(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nii.gz")}
    (tmp_path / VOLUMES).unlink()
    write_bytes(tmp_path / "c1.nii.gz", b"corrected by hand")
    before[tmp_path / "c1.nii.gz"] = (tmp_path / "c1.nii.gz").stat().st_mtime_ns
    work(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nii.gz")} and (tmp_path / VOLUMES).exists()


@pytest.mark.parametrize(("change", "words"), [
    ({"sha256": "b" * 64}, "its masks are by the model liver (aaaaaaaaaaaa), not by other (bbbbbbbbbbbb)"),
    ({"mirror": True}, "made with mirror False, not True"), ({"volume": 2}, "made with volume None, not 2"),
    ({"uncertainty": True}, "made with uncertainty False, not True"),
    ({"cleaning": Cleaning((), ((1, 2.5),))}, "made with cleaning --keep-largest 1, not --keep-largest none --smallest 1=2.5"),
])  # fmt: skip
@pytest.mark.parametrize("resume", [False, True])
def test_another_method_is_refused_and_nothing_touched(tmp_path: Path, change: dict[str, object], words: str, resume: bool) -> None:
    work(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UNetError) as refused:
        work(tmp_path, replace(METHODS[0], **{"model": "other"} | change), resume=resume)
    assert METHOD in str(refused.value) and words in str(refused.value) and "--overwrite" in str(refused.value)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_newer_version_goes_on(tmp_path: Path) -> None:
    work(tmp_path, part=slice(2))
    work(tmp_path, replace(METHODS[0], version="9.9"))
    assert complete(tmp_path)


@pytest.mark.parametrize("name", ["c3.nii.gz", "c3_uncertainty.nii.gz"])
def test_somebody_elses_file_is_never_replaced_unasked(tmp_path: Path, name: str) -> None:
    work(tmp_path, part=slice(2))
    write_bytes(tmp_path / name, b"mine")
    with pytest.raises(UNetError, match=rf"{name}: it exists already\. It is not of the run that is resumed"):
        work(tmp_path)
    with pytest.raises(UNetError, match="or --resume to go on"):
        work(tmp_path, resume=False)
    assert (tmp_path / name).read_bytes() == b"mine" and not (tmp_path / "c2.nii.gz").exists()
    work(tmp_path, overwrite=True)
    assert complete(tmp_path)


def test_somebody_elses_table_is_never_replaced_unasked(tmp_path: Path) -> None:
    write_bytes(tmp_path / VOLUMES, b"mine")
    with pytest.raises(UNetError, match=r"volumes\.csv: it exists already"):
        work(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [VOLUMES]


def test_a_mask_that_was_deleted_is_made_again_and_has_no_row_before(tmp_path: Path) -> None:
    work(tmp_path)
    (tmp_path / "c2.nii.gz").unlink()
    ledger = Ledger(tmp_path, METHODS[0])
    ledger.write_volumes()
    assert "c2" not in (tmp_path / VOLUMES).read_text()
    assert [job.case.name for job in ledger.begin(jobs(tmp_path), resume=True, overwrite=False)] == ["c2"]
    work(tmp_path)
    assert complete(tmp_path)


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    work(tmp_path)
    (tmp_path / CASES / "c1.json").write_text("{")
    with pytest.raises(UNetError, match=r"c1\.json: not valid JSON"):
        work(tmp_path)


def test_another_image_of_the_name_is_not_finished(tmp_path: Path) -> None:
    """The next patient's scan may have the last one's name; a mask is not passed off as its own, nor replaced unasked."""
    folder, image = tmp_path / "masks", tmp_path / "scan.nii.gz"
    image.write_bytes(b"one patient" * 1000)
    job = Job(Case("scan", (image,)), folder / "scan.nii.gz")
    ledger = Ledger(folder, METHODS[0])
    (begun,) = ledger.begin([job], resume=True, overwrite=False)
    ledger.finish(begun, (), lambda: write_bytes(job.mask, b"mask"))
    os.utime(image, (1, 1))  # copied, say
    assert Ledger(folder, METHODS[0]).begin([job], resume=True, overwrite=False) == []
    image.write_bytes(b"two patient" * 1000)
    with pytest.raises(UNetError, match="scan.nii.gz: it was made of another image than .+scan.nii.gz is now. Use --overwrite to make all"):
        Ledger(folder, METHODS[0]).begin([job], resume=True, overwrite=False)
    assert job.mask.read_bytes() == b"mask" and Ledger(folder, METHODS[0]).begin([job], resume=False, overwrite=True) == [job]
    (again,) = Ledger(folder, METHODS[0]).begin([job], resume=True, overwrite=True)  # as the sentence says
    assert again is job


@pytest.mark.parametrize(("named", "other"), [(".hdr", ".img"), (".img", ".hdr"), (".img", ".HDR")])
def test_the_other_half_of_a_pair_is_another_image_too(tmp_path: Path, named: str, other: str) -> None:
    folder, image = tmp_path / "masks", tmp_path / f"scan{named}"
    image.write_bytes(b"one half")
    image.with_suffix(other).write_bytes(b"one patient")
    job, ledger = Job(Case("scan", (image,)), folder / "scan.nii.gz"), Ledger(folder, METHODS[0])
    (begun,) = ledger.begin([job], resume=True, overwrite=False)
    ledger.finish(begun, (), lambda: write_bytes(job.mask, b"mask"))
    image.with_suffix(other).write_bytes(b"two patient")
    with pytest.raises(UNetError, match="it was made of another image"):
        ledger.begin([job], resume=True, overwrite=False)


def test_a_method_that_made_nothing_binds_nobody(tmp_path: Path) -> None:
    """As when the first try told that --volume was missing."""
    Ledger(tmp_path / "masks", METHODS[0]).begin(jobs(tmp_path / "masks"), resume=False, overwrite=False)
    assert len(Ledger(tmp_path / "masks", METHODS[1]).begin(jobs(tmp_path / "masks"), resume=False, overwrite=False)) == 4


@pytest.mark.parametrize("part", ["0/.zarray", ".zattrs", "0/0.0.0"])
def test_a_zarr_of_as_many_bytes_is_another_image(tmp_path: Path, part: str) -> None:
    """Of another scale, say, or of another patient."""
    folder, image = tmp_path / "masks", tmp_path / "scan.zarr"
    for name in ("0/.zarray", ".zattrs", "0/0.0.0"):
        (image / name).parent.mkdir(parents=True, exist_ok=True)
        (image / name).write_bytes(b"1.0")
    job, ledger = Job(Case("scan", (image,)), folder / "scan.nii.gz"), Ledger(folder, METHODS[0])
    (begun,) = ledger.begin([job], resume=True, overwrite=False)
    ledger.finish(begun, (), lambda: write_bytes(job.mask, b"mask"))
    assert ledger.begin([job], resume=True, overwrite=False) == []
    (image / part).write_bytes(b"2.0")
    with pytest.raises(UNetError, match="it was made of another image"):
        ledger.begin([job], resume=True, overwrite=False)
