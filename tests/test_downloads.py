"""A data set is downloaded whole and checked, or is not there at all: from a real server on this machine, which may fail."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from napari_unet.downloads import HIPPOCAMPUS, Download, fetch
from napari_unet.errors import UNetError

FOLDER = HIPPOCAMPUS.folder
FILES = {f"{FOLDER}/dataset.json": b"{}", f"{FOLDER}/imagesTr/a.nii.gz": bytes(range(256)) * 3000}


def archive(*members: tarfile.TarInfo, **more: bytes) -> bytes:
    """A .tar of FILES, of files that are given by name, and of members without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in {**FILES, **more}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return out.getvalue()


def member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.fixture
def offer(serve: Callable[..., str]) -> Callable[..., Download]:
    """Serves bytes, as `serve` does; gives back what `fetch` takes."""

    def make(content: bytes, md5: str = "", **options: Any) -> Download:
        return replace(HIPPOCAMPUS, url=serve(content, **options), md5=md5 or hashlib.md5(content).hexdigest())

    return make


def refused(data: Download, into: Path) -> str:
    """The sentence, when nothing is left behind."""
    with pytest.raises(UNetError) as caught:
        list(fetch(data, into))
    assert not list(into.iterdir())
    return str(caught.value)


def test_the_address_and_the_checksum_are_monai_s() -> None:
    from monai.apps import DecathlonDataset

    assert HIPPOCAMPUS.url == DecathlonDataset.resource[FOLDER] and HIPPOCAMPUS.md5 == DecathlonDataset.md5[FOLDER]


@pytest.mark.parametrize("announced", [True, False])
def test_what_comes_is_what_was_sent(offer: Callable[..., Download], tmp_path: Path, announced: bool) -> None:
    content = archive(member(FOLDER, tarfile.DIRTYPE), **{f"{FOLDER}/imagesTr/._a.nii.gz": b"mac", "._elsewhere": b"mac"})
    data = offer(content, announced=announced)
    steps = list(fetch(data, tmp_path / "cache"))
    come = [done for done, _ in steps]
    assert come == sorted(come) and come[-1] == len(content) and {total for _, total in steps[:2]} == {announced * len(content)}
    found = {str(path.relative_to(tmp_path / "cache")): path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert found == FILES


def test_what_is_there_is_not_fetched_again(offer: Callable[..., Download], tmp_path: Path) -> None:
    data = offer(archive())
    list(fetch(data, tmp_path))
    again = fetch(replace(data, url="http://127.0.0.1:9/nobody"), tmp_path)
    with pytest.raises(StopIteration) as end:
        next(again)
    assert end.value.value == tmp_path / FOLDER


@pytest.mark.parametrize("after", [1, 5])
def test_giving_up_leaves_nothing(offer: Callable[..., Download], tmp_path: Path, after: int) -> None:
    steps = fetch(offer(archive()), tmp_path)
    for _ in range(after):
        next(steps)
    assert len(list(tmp_path.iterdir())) == 1
    steps.close()
    assert not list(tmp_path.iterdir())


def test_a_lost_connection_leaves_nothing(offer: Callable[..., Download], tmp_path: Path) -> None:
    content = archive()
    told = refused(offer(content, lost_after=300_000), tmp_path)
    assert f"the connection was lost after 300,000 of {len(content):,} bytes" in told and "try again" in told


def test_other_bytes_than_promised_are_refused(offer: Callable[..., Download], tmp_path: Path) -> None:
    assert f"not {HIPPOCAMPUS.md5}" in refused(offer(archive(), md5=HIPPOCAMPUS.md5), tmp_path)
    assert "cannot be read" in refused(offer(b"no archive" * 100), tmp_path)


def test_no_server_is_told_in_one_sentence(offer: Callable[..., Download], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    told = refused(replace(HIPPOCAMPUS, url=f"http://{nobody}/data.tar"), tmp_path)
    sentences = r"Hippocampus: cannot be downloaded from ([\d.:]+) \(.*refused\)\. Check the internet connection .* need none\."
    assert re.fullmatch(sentences, told)[1] == nobody
    assert "404" in refused(offer(b"", status=404), tmp_path)
    assert "nowhere.invalid" in refused(replace(HIPPOCAMPUS, url="https://nowhere.invalid/data.tar"), tmp_path)


@pytest.mark.parametrize("bad", [
    member(f"{FOLDER}/link", tarfile.SYMTYPE, "/etc/passwd"), member(f"{FOLDER}/hard", tarfile.LNKTYPE, f"{FOLDER}/dataset.json"),
    member(f"{FOLDER}/pipe", tarfile.FIFOTYPE), member("/absolute", tarfile.REGTYPE), member("../outside", tarfile.REGTYPE),
    member(f"{FOLDER}/../../outside", tarfile.REGTYPE), member("C:\\outside", tarfile.REGTYPE), member("../folder", tarfile.DIRTYPE),
], ids=lambda each: each.name)  # fmt: skip
def test_nothing_but_files_of_its_folder_is_unpacked(offer: Callable[..., Download], tmp_path: Path, bad: tarfile.TarInfo) -> None:
    (tmp_path / "cache").mkdir()
    assert repr(bad.name) in refused(offer(archive(bad)), tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_an_archive_of_something_else_is_told(offer: Callable[..., Download], tmp_path: Path) -> None:
    data = replace(offer(archive()), folder="Task05_Prostate")
    assert "does not hold the folder Task05_Prostate" in refused(data, tmp_path)


def test_a_folder_that_cannot_be_written_is_told(offer: Callable[..., Download], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UNetError, match="cannot be made"):
        list(fetch(offer(archive()), tmp_path / "file" / "cache"))
