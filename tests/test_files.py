"""No save destroys a file: killed, out of space, in parallel; and one run at a time holds a folder."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from napari_unet import files
from napari_unet.errors import UNetError

posix = pytest.mark.skipif(os.name == "nt", reason="signals, limits and umask are POSIX's")
SIZE = 1 << 20
DEAD = 2**22 + 1  # above the largest number that Linux gives to a process

# It saves the same path over and over; "<" and ">" tell when a save is really in flight.
SAVER = f"""
import signal, sys
from napari_unet import files
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a suite started in the background would have it ignore
def write(file):
    sys.stdout.write("<"); sys.stdout.flush()
    for _ in range(16):
        file.write(bytes([n]) * {SIZE // 16})
for n in range(1, 256):
    files.write_atomically(sys.argv[1], write)
    sys.stdout.write(">"); sys.stdout.flush()
"""


def child(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdin=pipe, stdout=pipe, stderr=pipe)


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


@posix
@pytest.mark.parametrize(("kill", "wanted"), [("SIGKILL", 30), ("SIGTERM", 3), ("SIGINT", 3)])
def test_killed_in_mid_save(kill: str, wanted: int, tmp_path: Path) -> None:
    """Until enough saves were really in flight when the signal came: a whole file, old or new, is there each time."""
    path, rng, in_flight = tmp_path / "mask.nii", random.Random(kill), 0
    for _ in range(4 * wanted):
        path.write_bytes(bytes(SIZE))
        process = child(SAVER, path)
        assert process.stdout is not None
        process.stdout.read(1)  # the first save has begun
        time.sleep(rng.uniform(0, 0.01))
        process.send_signal(signal.Signals[kill])
        told, _ = process.communicate()
        in_flight += (b"<" + told).endswith(b"<")
        left = path.read_bytes()
        assert len(left) == SIZE and len(set(left)) == 1, "half a file"
        if in_flight == wanted:
            break
    assert in_flight == wanted
    files.write_bytes(path, b"next")
    assert [p.name for p in tmp_path.iterdir()] == ["mask.nii"], "the next save sweeps what the dead left behind"


@posix
@pytest.mark.parametrize("limit", [0, 1, 4096, SIZE - 1])
@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "over an old file"])
def test_a_full_disk(limit: int, old: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "mask.nii"
    if old:
        path.write_bytes(old)
    code = f"""
import resource, sys
from napari_unet import files
from napari_unet.errors import UNetError
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    files.write_bytes(sys.argv[1], bytes({SIZE}))
except UNetError as error:
    print(error)
"""
    said, trouble = child(code, path).communicate()
    assert said.decode().strip() == (
        f"{path}: cannot be written (File too large). Free some space or choose another folder; what was there before is unchanged."
    ), trouble
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([old] if old else [])


@pytest.mark.parametrize("path", ["absent/mask.nii", "file/mask.nii", "folder", "x" * 300], ids=["absent", "in a file", "a folder", "long"])
def test_what_cannot_be_written(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UNetError, match=r"cannot be written \([A-Z].+\)\. Free some space or choose another folder"):
        files.write_bytes(tmp_path / path, b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("trouble", [UNetError("a", "b", "c"), KeyboardInterrupt(), MemoryError(), ValueError()], ids=repr)
def test_whatever_goes_wrong_the_old_file_stays(trouble: BaseException, tmp_path: Path) -> None:
    def write(file: object) -> None:
        raise trouble

    (tmp_path / "mask.nii").write_bytes(b"old")
    with pytest.raises(type(trouble)):
        files.write_atomically(tmp_path / "mask.nii", write)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@posix
@pytest.mark.parametrize("name", ["mask.nii", " ", "-", "..nii", "a b\n.nii", "é☃" * 50, "x" * 240, "é" * 120], ids=ascii)
def test_names(name: str, tmp_path: Path) -> None:
    files.write_bytes(tmp_path / name, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {name: b"new"}


@posix
def test_links_stay_links_and_the_umask_decides(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("link 2")
    (tmp_path / "link 2").symlink_to("real/mask.nii")
    for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        files.write_bytes(tmp_path / "link", f"{mode:o}".encode())
        os.umask(before)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "link 2").is_symlink()
        assert (tmp_path / "real" / "mask.nii").read_bytes() == f"{mode:o}".encode()
        assert (tmp_path / "real" / "mask.nii").stat().st_mode & 0o777 == mode


def test_another_machine_of_the_same_name_is_another(tmp_path: Path) -> None:
    """Its processes are unknown here, and alive."""
    assert re.fullmatch(rf"{files.NAME}-[0-9a-f]{{8}}", files.HOST)
    twin = tmp_path / f".mask.nii.{files.NAME}-00000000.{DEAD}.0a1b2c3d.partial"
    twin.touch()
    files.sweep(tmp_path)
    assert twin.exists()


def test_what_is_swept(tmp_path: Path) -> None:
    """Leftovers of this machine's dead; not those of the living, of other machines, of other programs."""
    dead = [f".mask.nii.{files.HOST}.{DEAD}.{token}.partial" for token in ("0a1b2c3d", "4e5f6a7b")]
    others = [
        f".mask.nii.{files.HOST}.{os.getpid()}.0a1b2c3d.aside", f".mask.nii.elsewhere.{DEAD}.0a1b2c3d.aside",
        f".mask.nii.{files.HOST}.{os.getpid()}.0a1b2c3d.partial", f".mask.nii.elsewhere.{DEAD}.0a1b2c3d.partial",
        ".partial", ".x.partial", f"mask.nii.{files.HOST}.{DEAD}.0a1b2c3d.partial.nii", "scan.nii",
    ]  # fmt: skip
    for name in (*dead, *others):
        (tmp_path / name).touch()
    files.write_bytes(tmp_path / "new", b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "new"])


# It puts a new folder in the place of an old one, and kills itself at its n-th change of a name.
PUTTER = """
import os, pathlib, signal, sys
from napari_unet import files
target, left = pathlib.Path(sys.argv[1]), int(sys.argv[2])
def count(event, arguments):
    global left
    if event in ("os.rename", "shutil.rmtree"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
partial = files.partial_beside(target)
partial.mkdir()
(partial / "data").write_text("new")
files.put_folder(partial, target)
"""


@posix
@pytest.mark.parametrize(("change", "there", "kept"), [(1, True, "old"), (2, False, "old"), (3, True, "new"), (4, True, "new")])
def test_killed_while_a_folder_is_put_in_anothers_place(change: int, there: bool, kept: str, tmp_path: Path) -> None:
    """Before each of its steps and after the last: the next save gives back what was moved aside, and removes the rest."""
    target = tmp_path / ("m" * 60 + ".zarr")
    target.mkdir()
    (target / "data").write_text("old")
    assert child(PUTTER, target, change).wait() == (-signal.SIGKILL if change < 4 else 0)
    assert target.exists() == there and (len(list(tmp_path.iterdir())) > 1) == (change < 4)
    files.write_bytes(tmp_path / "next", b"next")
    assert {p.name for p in tmp_path.iterdir()} == {"next", target.name}
    assert (target / "data").read_text() == kept


def test_what_cannot_be_put_in_place_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "data").write_text("old")
    with pytest.raises(FileNotFoundError):
        files.put_folder(tmp_path / "absent", tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"] and (tmp_path / "m" / "data").read_text() == "old"


@posix  # elsewhere an open file cannot be replaced: an error, and the old file stays
def test_threads_that_write_one_path(tmp_path: Path) -> None:
    path, troubles = tmp_path / "mask.nii", []

    def save(n: int) -> None:
        try:
            for _ in range(20):
                files.write_atomically(path, lambda file: [file.write(bytes([n]) * 999) for _ in range(50)])
        except UNetError as error:
            troubles.append(error)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 999 * 50 and len(set(content)) == 1
    assert not troubles and [p.name for p in tmp_path.iterdir()] == ["mask.nii"]


HOLDER = """
import sys, pathlib
from napari_unet import files
from napari_unet.errors import UNetError
print("ready", flush=True)
sys.stdin.readline()
try:
    with files.lock(pathlib.Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except UNetError as error:
    print(error)
"""


class TestLock:
    def test_the_second_run_is_told_who_holds_it(self, tmp_path: Path) -> None:
        first = child(HOLDER, tmp_path)
        go(first)
        assert first.stdout is not None and [first.stdout.readline() for _ in range(2)] == [b"ready\n", b"held\n"]
        told = rf"^{re.escape(str(tmp_path))}: process {first.pid} on \S+ is working in it\. Wait for it, or choose another folder\.$"
        with pytest.raises(UNetError, match=told), files.lock(tmp_path):
            pass
        first.kill()  # it cannot tidy up
        first.communicate()
        with files.lock(tmp_path):
            assert str(os.getpid()) in (tmp_path / "lock").read_text()
        assert os.name == "nt" or not list(tmp_path.iterdir())

    def test_one_process_holds_it_once(self, tmp_path: Path) -> None:
        with files.lock(tmp_path), pytest.raises(UNetError, match=f"process {os.getpid()} "), files.lock(tmp_path):
            pass
        with pytest.raises(KeyError), files.lock(tmp_path):
            raise KeyError
        with files.lock(tmp_path):
            pass

    @pytest.mark.parametrize(
        "text", ["", f"process {DEAD}", f"process {os.getpid()} on {files.NAME}", "\0" * 9], ids=["empty", "dead", "own", "zeros"]
    )
    def test_a_file_left_behind_is_no_obstacle(self, text: str, tmp_path: Path) -> None:
        """Not even if its number is used again: every run in a container is process 1."""
        (tmp_path / "lock").write_text(text)
        with files.lock(tmp_path):
            assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {files.NAME}"

    @posix
    def test_of_many_at_once_one_gets_it(self, tmp_path: Path) -> None:
        for _ in range(3):
            (tmp_path / "lock").write_text("left behind")
            crowd = [child(HOLDER, tmp_path) for _ in range(5)]
            for process in crowd:
                assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            for process in crowd:
                go(process)
            end = time.monotonic() + 20
            while sum(process.poll() is None for process in crowd) > 1 and time.monotonic() < end:
                time.sleep(0.01)
            assert sum(process.poll() is None for process in crowd) == 1, "the others were turned away"
            told = sorted(process.communicate()[0].strip().rpartition(b". ")[2] for process in crowd)
            assert told == [b"Wait for it, or choose another folder."] * 4 + [b"held"]

    def test_never_two_at_once(self, tmp_path: Path) -> None:
        """Taken and given back as fast as can be: who opened the file that another removes must not count as a holder."""
        holders: list[int] = []
        held, doubles = [], []

        def come_and_go() -> None:
            for n in range(150):
                with contextlib.suppress(UNetError), files.lock(tmp_path):
                    holders.append(n)
                    time.sleep(0.001)
                    doubles.append(len(holders) > 1)
                    held.append(n)
                    holders.pop()

        threads = [threading.Thread(target=come_and_go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not any(doubles) and len(held) > 10

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UNetError, match=r"cannot be written \(.+\)\. Choose another folder"), files.lock(tmp_path / "absent"):
            pass


def test_folders(tmp_path: Path) -> None:
    assert files.make_folder(tmp_path / "a" / "b").is_dir() and files.make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UNetError, match=r"cannot be made \(.+\)\. Choose another folder"):
        files.make_folder(tmp_path / "file" / "b")
