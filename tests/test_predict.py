"""`napari-unet predict` over files: killed and resumed, in parts at once, past bad files, and what it says of the masks."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from datasets import ONE_THREAD, _one_thread, decathlon, scan, two_folders  # noqa: F401 - a fixture
from engine import model_spec, network_spec, random_network, threshold_network, threshold_spec
from hostile import affine_for
from PIL import Image
from scipy import ndimage
from test_cli import BOOKS, Outcome, call, process  # noqa: F401 - a fixture
from test_memory import honest_giant

from napari_unet import pictures, weights
from napari_unet.batch import segment_all
from napari_unet.card import Card
from napari_unet.cases import find_images
from napari_unet.cli import main
from napari_unet.components import Cleaning
from napari_unet.images import read_labels, write
from napari_unet.network import UNet
from napari_unet.segment import Segmenter
from napari_unet.spec import Label, ModelSpec
from napari_unet.targets import jobs_for
from napari_unet.volume import Volume

Call = Callable[..., Outcome]
NAMES = (Label(1, "liver", "#e6194b"), Label(2, "spleen", "#3cb44b"))


def saved(path: Path, spec: ModelSpec, network: UNet) -> Path:
    weights.save(path, spec, Card(), {name: value.numpy() for name, value in network.state_dict().items()})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-D model of two classes with random weights, which are as good as others to tell masks apart."""
    spec = model_spec(network_spec(3, classes=3), name="abdomen", labels=NAMES, orientation="SAR")
    return saved(tmp_path_factory.mktemp("model") / "m.safetensors", spec, random_network(spec.network, 1))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decathlon(tmp_path_factory.mktemp("images"), 6) / "imagesTr"


@pytest.fixture(scope="module")
def expected(model: Path, images: Path) -> dict[str, bytes]:
    """Name and bytes of what a run leaves that nothing disturbed."""
    assert main(["predict", str(model), str(images), "--out", str(model.parent / "masks")]) == 0
    return contents(model.parent / "masks")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "volumes.csv", newline="") as file:
        return list(csv.DictReader(file))


# --- resuming, parts, bad files


KILLED = """
import os, signal, sys
left = int(sys.argv.pop(1))
def count(event, arguments):
    global left
    if event == "os.rename" and str(arguments[1]).endswith(".nii.gz"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
from napari_unet.cli import main
main()
"""


@pytest.mark.parametrize("mask", [3])
def test_killed_in_the_middle_and_resumed_gives_the_same_bytes(
    call: Call, model: Path, images: Path, tmp_path: Path, expected: dict[str, bytes], mask: int  # noqa: F811
) -> None:
    """A process kills itself when all of a mask is written and only its name is missing."""
    ask, masks = ("predict", model, images, "--out", tmp_path / "masks", "--resume"), tmp_path / "masks"
    assert subprocess.run([sys.executable, "-c", KILLED, str(mask), *map(str, ask)], check=False).returncode == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
    assert len(finished) == mask - 1 and len(list(masks.glob(".*.partial"))) == 1
    assert all(path.read_bytes() == expected[path.name] for path in finished)
    found = call(*ask, "--json")
    assert found.code == 0 and found.json()["finished_before"] == len(finished) and len(found.json()["masks"]) == 6 - len(finished)
    assert contents(masks) == expected and all(path.stat().st_mtime_ns == written for path, written in finished.items())
    again = call(*ask, "--json")
    assert again.code == 0 and again.json()["finished_before"] == 6 and again.json()["masks"] == [] and contents(masks) == expected


def test_two_parts_at_once_are_the_whole(model: Path, images: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    parts = [process("predict", model, images, "--out", tmp_path / "masks", "--part", f"{n}/2", "--json") for n in (1, 2)]
    told = [part.communicate() for part in parts]
    assert [part.returncode for part in parts] == [0, 0], told
    assert contents(tmp_path / "masks") == expected
    assert {row["case"] for row in rows(tmp_path / "masks")} == {f"a{n}" for n in range(6)}


def test_more_parts_than_images(call: Call, model: Path, images: Path, tmp_path: Path) -> None:  # noqa: F811
    found = call("predict", model, images / "a0.nii.gz", images / "a1.nii.gz", "--out", tmp_path / "masks", "--part", "3/3")
    assert found.code == 0 and "0 masks in" in found.out
    assert call("predict", model, images, "--out", tmp_path / "masks", "--part", "3/2").refused("--part", "'3/2'", "1/8")


def test_a_bad_file_in_the_middle_stops_no_other_and_is_mended_by_resuming(
    call: Call, model: Path, images: Path, tmp_path: Path, expected: dict[str, bytes]  # noqa: F811
) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "images"))
    (folder / "a1.nii.gz").write_bytes((folder / "a1.nii.gz").read_bytes()[:-50])
    (folder / "a4.nii.gz").unlink()
    honest_giant(folder / "a4.nii")
    ask = ("predict", model, folder, "--out", tmp_path / "masks", "--json")
    found = call(*ask)
    assert found.code == 1 and [failure["case"] for failure in found.json()["failed"]] == ["a1", "a4"]
    table = found.out[found.out.index("failed  because") :].splitlines()
    assert re.match(r"a1 .*a1\.nii\.gz: the compressed data is damaged", table[1])
    assert re.match(r"a4 .*a4\.nii: needs \d+\.\d GB of memory, \d+\.\d GB are free", table[2])
    assert {row["case"] for row in rows(tmp_path / "masks")} == {"a0", "a2", "a3", "a5"}
    (folder / "a4.nii").unlink()
    for name in ("a1.nii.gz", "a4.nii.gz"):
        shutil.copy(images / name, folder / name)
    mended = call(*ask, "--resume")
    assert mended.code == 0 and mended.json()["finished_before"] == 4 and len(mended.json()["masks"]) == 2
    assert contents(tmp_path / "masks") == expected


LITTLE = """
import resource, sys, psutil
from napari_unet.cli import main
model, tiny, *others, out = sys.argv[1:]
main(["predict", model, tiny, "--out", f"{out}/first.nii.gz", "--runtime", "torch"])  # loads all that has to be there
most = psutil.Process().memory_info().vms + (400 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
sys.exit(main(["predict", model, *others, tiny, "--out", f"{out}/masks", "--runtime", "torch"]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is kept by Linux alone")
def test_an_image_that_takes_too_much_stops_no_other(model: Path, tmp_path: Path) -> None:
    """A limit that nobody foresees: windows' logits of so many rows and columns are refused by torch, outside of the network."""
    tiny = scan(0, (25, 25, 8))[0]
    for name, image in (("tiny", tiny), ("big", Volume(np.tile(tiny.data, (100, 100, 1)), tiny.affine))):
        write(tmp_path / f"{name}.nii", image, labels=False)
    ask = [sys.executable, "-c", LITTLE, model, tmp_path / "tiny.nii", tmp_path / "big.nii", tmp_path]
    found = subprocess.run(ask, capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD)
    assert found.returncode == 1 and "Traceback" not in found.stderr, found.stderr
    assert re.search(r"big\.nii: it cannot be segmented \(.+\)\. Close other programs, or crop the image\.", found.stderr)
    assert (tmp_path / "masks/tiny.nii.gz").read_bytes() == (tmp_path / "first.nii.gz").read_bytes()
    assert not (tmp_path / "masks/big.nii.gz").exists()


@pytest.mark.parametrize("length", [240, 251])  # the uncertainty's name is too long, or each
def test_an_image_whose_mask_would_have_too_long_a_name_stops_no_other(
    call: Call, model: Path, images: Path, tmp_path: Path, length: int  # noqa: F811
) -> None:
    (tmp_path / "in").mkdir()
    long = "ä" + (length - 2) * "x"
    for name in (long, "b"):
        try:
            nibabel.save(nibabel.load(images / "a0.nii.gz"), tmp_path / f"in/{name}.nii")
        except OSError:
            pytest.skip("this disk has no such names")
    for flags in ((), ("--resume",)):
        found = call("predict", model, tmp_path / "in", "--out", tmp_path / "out", "--uncertainty", "--json", *flags)
        assert found.code == 1 and len(found.json()["failed"]) == 1, found.err
        assert "bytes is too long for this disk. Give the image a shorter name." in found.json()["failed"][0]["error"]
        assert (tmp_path / "out/b.nii.gz").exists() and {row["case"] for row in rows(tmp_path / "out")} == {"b"}


@pytest.mark.parametrize(("flags", "words"), [
    (("--device", "quantum"), "'quantum' cannot be used"), (("--threads", "0"), "0 threads"), (("--precision", "int8"), "not calibrated"),
])  # fmt: skip
def test_where_nothing_can_be_begun_nothing_changes(
    call: Call, model: Path, images: Path, tmp_path: Path, expected: dict[str, bytes], flags: tuple[str, str], words: str  # noqa: F811
) -> None:
    masks = Path(shutil.copytree(model.parent / "masks", tmp_path / "masks"))
    assert call("predict", model, images, "--out", masks, "--overwrite", "--mirror", *flags).refused(words)
    assert contents(masks) == expected
    for out in ("new", "new/m.nii.gz"):
        assert call("predict", model, images / "a0.nii.gz", "--out", tmp_path / out, *flags).refused(words)
        assert [path.name for path in tmp_path.iterdir()] == ["masks"]


def test_an_older_uncertainty_goes_with_its_mask_and_nobody_else_s(
    call: Call, model: Path, images: Path, tmp_path: Path, expected: dict[str, bytes]  # noqa: F811
) -> None:
    masks, one = tmp_path / "masks", images / "a0.nii.gz"
    assert call("predict", model, one, images / "a1.nii.gz", "--out", masks, "--uncertainty").code == 0
    (masks / "a2_uncertainty.nii.gz").write_bytes(b"mine")
    assert call("predict", model, one, images / "a2.nii.gz", "--out", masks, "--overwrite").code == 0
    assert {path.name for path in masks.glob("*_uncertainty*")} == {"a1_uncertainty.nii.gz", "a2_uncertainty.nii.gz"}
    assert (masks / "a2_uncertainty.nii.gz").read_bytes() == b"mine"
    for name in ("a0.nii.gz", ".predict/a0.json"):
        assert (masks / name).read_bytes() == expected[name]
    (masks / "a0_uncertainty.nii.gz").write_bytes(b"mine")
    assert call("predict", model, one, "--out", masks, "--overwrite").code == 0
    assert (masks / "a0_uncertainty.nii.gz").read_bytes() == b"mine"


def test_masks_do_not_go_among_the_images(call: Call, model: Path, images: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "in"
    folder.mkdir()
    nibabel.save(nibabel.load(images / "a0.nii.gz"), folder / "a.nii")
    (tmp_path / "link").symlink_to(folder)
    for out in (folder, tmp_path / "link"):
        assert call("predict", model, folder, "--out", out).refused("its masks would lie among the images", "another --out")
    assert [path.name for path in folder.iterdir()] == ["a.nii"]
    assert call("predict", model, folder, "--out", folder / "masks").code == 0


def test_several_slices_are_no_picture_before_they_are_segmented(model: Path, images: Path, tmp_path: Path) -> None:
    (job,) = jobs_for(find_images([images / "a0.nii.gz"]), tmp_path / "m.png")
    steps = list(segment_all(Segmenter.load(model), [job], Cleaning()))
    assert str(steps[-1].error).startswith(f"{job.mask}: a mask of shape (20, 24, 18)") and not any(step.done for step in steps)
    assert steps[-1].error.__traceback__ is None  # which would hold what the image took, until all are done


def test_what_cannot_be_written_stops_all(call: Call, model: Path, images: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "masks/a2.nii.gz").mkdir(parents=True)
    found = call("predict", model, images, "--out", tmp_path / "masks", "--overwrite")
    assert found.refused("a2.nii.gz: cannot be written", "what was there before is unchanged")
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {"a0.nii.gz", "a1.nii.gz", "a2.nii.gz", *BOOKS}
    assert {row["case"] for row in rows(tmp_path / "masks")} == {"a0", "a1"}


def test_another_model_or_other_options_do_not_mix(
    call: Call, model: Path, images: Path, tmp_path: Path, expected: dict[str, bytes]  # noqa: F811
) -> None:
    masks = Path(shutil.copytree(model.parent / "masks", tmp_path / "masks"))
    spec = weights.read_spec(model)
    other = saved(tmp_path / "other.safetensors", spec, random_network(spec.network, 2))
    ask = ("predict", model, images, "--out", masks, "--resume")
    assert call("predict", other, images, "--out", masks, "--resume").refused("predict.json", "by the model abdomen (", "another --out")
    assert call(*ask, "--mirror").refused("predict.json", "made with mirror False, not True")
    assert call(*ask, "--uncertainty").refused("made with uncertainty False, not True")
    assert call(*ask, "--smallest", "3").refused("--smallest 1=3,2=3")
    assert call("predict", model, images / "a0.nii.gz", "--out", tmp_path / "m.nii.gz", "--resume").refused("nothing can be resumed")
    assert contents(masks) == expected
    assert call("predict", other, images, "--out", masks, "--overwrite").code == 0
    assert all(contents(masks)[name] != data for name, data in expected.items() if name.endswith(".nii.gz"))


def test_the_time_that_is_left_is_told(model: Path, images: Path, tmp_path: Path) -> None:
    """A terminal's line lives, so that a real one is needed."""
    pty = pytest.importorskip("pty", reason="no terminal")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "napari_unet", "predict", str(model), str(images), "--out", str(tmp_path / "masks")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=os.environ | ONE_THREAD)
    os.close(theirs)
    told = b""
    try:
        while part := os.read(ours, 4096):
            told += part
    except OSError:  # the other end is closed
        pass
    assert child.wait() == 0
    shown = [line.strip() for line in told.decode().split("\r") if line.strip()]
    assert re.fullmatch(r"1 of 6: a0, needs \d+\.\d GB of \d+\.\d GB free|1 of 6: a0, needs \d+ MB of \d+\.\d GB free", shown[0])
    assert any(re.fullmatch(r"4 of 6: a3, slice 9 of 18, (< 1|\d+) s left", line) for line in shown), shown


# --- volumes


def test_the_table_is_what_the_masks_hold(model: Path, images: Path, expected: dict[str, bytes]) -> None:
    table = rows(model.parent / "masks")
    assert [(row["case"], row["name"]) for row in table] == [(f"a{n}", name) for n in range(6) for name in ("liver", "spleen")]
    for row in table:
        mask = read_labels(model.parent / "masks" / f"{row['case']}.nii.gz")
        found = mask.data == int(row["label"])
        assert int(row["voxels"]) == found.sum() and float(row["ml"]) == pytest.approx(found.sum() / 1000, rel=1e-5)
        inside = found.copy()
        inside[1:-1, 1:-1, 1:-1] = False
        assert bool(row["border"]) == inside.any()


def test_a_single_mask_is_told_of_on_the_spot(call: Call, model: Path, images: Path, tmp_path: Path) -> None:  # noqa: F811
    found = call("predict", model, images / "a0.nii.gz", "--out", tmp_path / "m.nii.gz", "--json")
    assert found.code == 0 and [path.name for path in tmp_path.iterdir()] == ["m.nii.gz"]
    mask = read_labels(tmp_path / "m.nii.gz")
    assert [(row["name"], row["voxels"]) for row in found.json()["volumes"]] == [
        (label.name, int((mask.data == label.value).sum())) for label in NAMES]  # fmt: skip
    assert re.search(r"^class +voxels +ml +touches\n1 liver +[\d,]+ +\d+\.\d{3}", found.out, re.MULTILINE)


def test_a_folder_of_masks_is_evaluated_as_it_is(call: Call, model: Path, images: Path, expected: dict[str, bytes]) -> None:  # noqa: F811
    found = call("evaluate", model.parent / "masks", images.parent / "labelsTr", "--json")
    assert found.code == 0 and found.json()["cases"] == 6


# --- cleaning


@pytest.fixture(scope="module")
def speckled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that finds what is bright, and a scan with bright specks of 0.5 mm3 voxels."""
    folder = tmp_path_factory.mktemp("speckled")
    spec = model_spec(threshold_spec(), name="bright", labels=(NAMES[0],), orientation="SAR")
    data = np.full((16, 18, 20), 100, np.int16)
    for n, size in enumerate((1, 2, 3, 4)):
        data[2 : 2 + size, 3 * n + 2 : 3 * n + 4, 2:4] = 900  # 4 size voxels each
    write(folder / "a.nii.gz", scan(0, data.shape, np.diag([1, 1, 0.5, 1.0]))[0].with_data(data), labels=False)
    return saved(folder / "m.safetensors", spec, threshold_network(spec.network, 1.0)), folder / "a.nii.gz"


@pytest.mark.parametrize(("flags", "sizes"), [
    ((), [4, 8, 12, 16]), (("--smallest", "4"), [8, 12, 16]), (("--smallest", "liver=6.1"), [16]), (("--smallest", "1=6"), [12, 16]),
    (("--keep-largest", "all"), [16]), (("--keep-largest", "Liver"), [16]), (("--keep-largest", "1", "--smallest", "9"), []),
    (("--keep-largest", "none"), [4, 8, 12, 16]),
])  # fmt: skip
def test_small_parts_go_by_their_volume(
    call: Call, speckled: tuple[Path, Path], tmp_path: Path, flags: tuple[str, ...], sizes: list[int]  # noqa: F811
) -> None:
    assert call("predict", *speckled, "--out", tmp_path / "m.nii.gz", *flags).code == 0
    parts, count = ndimage.label(read_labels(tmp_path / "m.nii.gz").data)
    assert sorted(np.bincount(parts.ravel())[1:].tolist() if count else []) == sizes


@pytest.mark.parametrize(("flag", "value", "words"), [
    ("--keep-largest", "livre", "no class 'livre'. Did you mean liver?"), ("--smallest", "7=3", "no class '7'"),
    ("--smallest", "liver", "'liver' is no volume in mm3"), ("--smallest", "-1", "'-1' is no volume"), ("--smallest", "nan", "'nan'"),
    ("--keep-largest", "kidney", "It has 1 liver"),
])  # fmt: skip
def test_what_cannot_be_cleaned(
    call: Call, speckled: tuple[Path, Path], tmp_path: Path, flag: str, value: str, words: str  # noqa: F811
) -> None:
    assert call("predict", *speckled, "--out", tmp_path / "m.nii.gz", f"{flag}={value}").refused(flag, words)
    assert not list(tmp_path.iterdir())


def test_a_class_is_meant_as_it_is_written(call: Call, images: Path, tmp_path: Path) -> None:  # noqa: F811
    spec = model_spec(network_spec(3, classes=3), labels=(Label(1, "A", "#e6194b"), Label(2, "a", "#3cb44b")), orientation="SAR")
    model = saved(tmp_path / "m.safetensors", spec, random_network(spec.network, 1))
    for name, values in (("A", "[1]"), ("a", "[2]"), ("a,A", "[1,2]")):
        out = tmp_path / name
        assert call("predict", model, images / "a0.nii.gz", "--out", out, "--keep-largest", name).code == 0
        assert f'"keep_largest":{values}' in (out / "predict.json").read_text().replace(" ", "").replace("\n", "")


# --- pictures


def test_pictures_become_indexed_pictures_in_the_models_colours(call: Call, tmp_path: Path) -> None:  # noqa: F811
    folder = two_folders(tmp_path / "data", 3, ".png") / "images"
    Image.open(folder / "c1.png").save(folder / "c1.png", dpi=(2540, 5080))
    Image.open(folder / "c2.png").save(folder / "c2.tif", resolution=100, resolution_unit=3)
    (folder / "c2.png").unlink()
    spec = model_spec(network_spec(2, classes=3), labels=NAMES, pictures=True, patch=(1, 16, 16), orientation="SRA")
    model = saved(tmp_path / "m.safetensors", spec, random_network(spec.network, 3))
    found = call("predict", model, folder, "--out", tmp_path / "masks", "--json")
    assert found.code == 0 and {path.name for path in (tmp_path / "masks").iterdir()} == {"c0.png", "c1.png", "c2.png", *BOOKS}
    for path, dpi in (("c0", None), ("c1", (2540, 5080)), ("c2", (254, 254))):
        with Image.open(tmp_path / f"masks/{path}.png") as mask:
            values = np.asarray(mask)
            assert mask.mode == "P" and mask.getpalette()[:9] == [0, 0, 0, 0xE6, 0x19, 0x4B, 0x3C, 0xB4, 0x4B]  # type: ignore[index]
            assert mask.info.get("dpi") == (dpi and pytest.approx(dpi))
        np.testing.assert_array_equal(read_labels(tmp_path / f"masks/{path}.png").data[..., 0], values)
        counted = {row["label"]: row["voxels"] for row in rows(tmp_path / "masks") if row["case"] == path}
        assert counted == {str(value): str((values == value).sum()) for value in (1, 2)}
    assert all(row["ml"] == "" for row in rows(tmp_path / "masks"))


# --- what a person should know of an image


def test_a_spacing_far_from_the_model_s_is_a_note_and_no_fault(call: Call, tmp_path: Path) -> None:  # noqa: F811
    spec = model_spec(network_spec(3, classes=3), name="abdomen", labels=NAMES, orientation="SAR", spacing=(1.0, 1.0, 1.0))
    resampling = saved(tmp_path / "m.safetensors", spec, random_network(spec.network, 1))
    images = []
    for name, size in (("near", 1.5), ("far", 6.0)):
        image, _ = scan(0, shape=(8, 9, 4), affine=affine_for("RAS", (1.0, 1.0, size)))
        images.append(tmp_path / f"{name}.nii.gz")
        write(images[-1], image, labels=False)
    found = call("predict", resampling, *images, "--out", tmp_path / "masks")
    assert found.code == 0 and (tmp_path / "masks" / "far.nii.gz").exists()
    notes = [line for line in found.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "far.nii.gz: the spacing is far from the model's: inferior–superior 6 mm instead of 1 mm" in notes[0]
    steps = segment_all(Segmenter.load(resampling, "cpu"), jobs_for(find_images(images, 1), tmp_path / "again"), Cleaning())
    first = next(step for step in steps if step.notes)
    steps.close()
    assert first.job.case.name == "far" and not first.over and first.done == 0, "before the time that it takes"


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="their names are Unicode")
def test_a_name_that_is_no_unicode_stops_no_other(tmp_path: Path, model: Path, images: Path, call: Call) -> None:  # noqa: F811
    folder = tmp_path / "in"
    folder.mkdir()
    source = min(path for path in images.iterdir() if path.name.endswith(".nii.gz"))
    shutil.copy(source, os.fsencode(folder) + b"/a\xff.nii.gz")
    shutil.copy(source, folder / "b.nii.gz")
    found = call("predict", model, folder, "--out", tmp_path / "out")
    assert found.code == 1 and "its path is not valid Unicode. Rename it" in found.out + found.err and "Traceback" not in found.err
    assert (tmp_path / "out/b.nii.gz").exists()


def test_a_picture_is_no_volume(tmp_path: Path, model: Path, call: Call) -> None:  # noqa: F811
    pictures.write(tmp_path / "a.png", np.ones((20, 20, 1), np.uint8), "a", {}, None)
    assert call("predict", model, tmp_path / "a.png", "--out", tmp_path / "out").refused("a.png", "it is a picture", "reads volumes")


def test_a_single_slice_for_a_3d_model_is_told(tmp_path: Path, model: Path, images: Path, call: Call) -> None:  # noqa: F811
    source = min(path for path in images.iterdir() if path.name.endswith(".nii.gz"))
    nibabel.save(nibabel.load(source).slicer[:, :, 4:5], tmp_path / "a.nii.gz")
    found = call("predict", model, tmp_path / "a.nii.gz", "--out", tmp_path / "out")
    assert found.code == 0 and "it has a single slice, and the model" in found.out + found.err


def test_an_empty_path_is_refused(tmp_path: Path, model: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    assert call("predict", model, "", "--out", tmp_path / "out").refused("inputs: it is empty", "shell")
    assert call("predict", model, tmp_path, "--out", "").refused("out: it is empty")
