"""The command line: exit codes, files where they were asked for, one sentence for every fault, and never a traceback."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pytest
from datasets import (  # noqa: F401 - a fixture
    ONE_THREAD,
    _one_thread,
    decathlon,
    describe,
    nnunet,
    planned,
    scan,
    two_folders,
    write_pair,
)
from engine import model_spec, network_spec
from hostile import affine_for
from PIL import Image
from runs import Signal, followed
from test_cases import DESCRIPTIONS
from test_checks import ERRORS

from napari_unet import weights
from napari_unet.card import Card
from napari_unet.cli import main
from napari_unet.images import read, read_labels, write
from napari_unet.network import parameter_shapes
from napari_unet.record import read_record
from napari_unet.train import train

SMALL = ("--features", "4,8", "--patch", "12,16,16", "--checks", "1")
RUN_FILES = {"model.safetensors", "resume.safetensors", "run.json", "log.csv", "scores.csv", "masks", "report.html", "report.png"}
BOOKS = {"predict.json", "volumes.csv", ".predict"}  # beside the masks in a folder


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])

    def refused(self, *words: str) -> bool:
        """A user's error: exit code 2, and one sentence that holds these words."""
        last = self.err.splitlines()[-1]
        assert self.code == 2 and last.startswith("napari-unet: ") and last.endswith((".", "?")), self
        assert "Traceback" not in self.err and all(word in last for word in words), last
        return True


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Outcome]]:
    """Run a command in this process, as the console script does."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse's own
            code = int(error.code or 0)
        return Outcome(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, handler)


def process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "napari_unet", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            **{"env": os.environ | ONE_THREAD} | options)  # fmt: skip


@pytest.fixture(scope="module")
def data3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decathlon(tmp_path_factory.mktemp("cli") / "data", 4)


@pytest.fixture(scope="module")
def run3d(data3d: Path) -> Path:
    assert main(["train", str(data3d), "--out", str(data3d.parent / "run"), "--steps", "3", "--fold", "0", *SMALL]) == 0
    return data3d.parent / "run"


@pytest.fixture(scope="module")
def run2d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = two_folders(tmp_path_factory.mktemp("pictures") / "data", 3, ".png")
    assert main(["train", str(folder), "--out", str(folder.parent / "run"), "--steps", "3", "--patch", "1,32,32"]) == 0
    return folder.parent / "run"


# --- cheap commands


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["info", "MODEL"], ["check", "DATA"], ["--version"]])
def test_cheap_commands_stay_cheap(run3d: Path, data3d: Path, arguments: list[str]) -> None:
    arguments = [{"MODEL": str(run3d), "DATA": str(data3d)}.get(argument, argument) for argument in arguments]
    code = f"""
import sys, time
from napari_unet.cli import main
try: main({arguments!r})
except SystemExit: pass
loaded = [name for name in ("torch", "monai", "napari", "matplotlib", "qtpy") if name in sys.modules]
print(loaded, time.process_time(), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *_, loaded, seconds = done.stdout.splitlines()
    assert loaded == "[]" and float(seconds) < 4


def test_help_names_every_setting_with_its_default(call: Callable[..., Outcome]) -> None:
    text = " ".join(call("train", "--help").out.split())
    assert all(flag in text for flag in ("--minutes", "--steps", "--seed", "--folds", "--fold", "--mirror-axes", "--no-grow", "--recipe"))
    assert "(default: 0.5)" in text and "(default: None)" not in text


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train"], ["train", "DATA"], ["predict", "MODEL"], ["check", "a", "b"],
                                       ["train", "a", "--out", "b", "--resume", "--overwrite"]])  # fmt: skip
def test_wrong_usage(call: Callable[..., Outcome], arguments: list[str]) -> None:
    assert call(*arguments).code == 2


@pytest.mark.parametrize(("arguments", "words"), [
    (["trian", "DATA"], "trian: no such command. Did you mean train?"), (["fly"], "fly: no such command. Known: check, train, "),
    (["train", "DATA", "--out", "x", "--stepz", "3"], "--stepz: napari-unet train does not take it. Did you mean --steps?"),
    (["train", "DATA", "--out", "x", "--step", "3"], "--step: napari-unet train does not take it. Did you mean --steps?"),
    (["info", "MODEL", "more"], "more: napari-unet info does not take it. Use --help for what it takes"),
    (["train", "DATA", "--out", "x", "--fold", "7"], "--fold: 7 of 5 folds. Use 0 to 4"),
    (["train", "DATA", "--out", "MODEL/run.json"], "it is a file. Use another --out: a run is a folder"),
    (["train", "DATA", "--out", "x", "--device", "gpu"], "device"), (["check", "MODEL/run.json"], "it is a file. Give the folder"),
])  # fmt: skip
def test_what_is_misspelt_or_cannot_be_is_told_in_a_sentence_before_anything_is_read(
    call: Callable[..., Outcome], run3d: Path, data3d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = call(*(word.replace("DATA", str(data3d)).replace("MODEL", str(run3d)) for word in arguments))
    assert found.code == 2 and words in found.err and found.err.count("\n") == 1 and not found.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["labelsTr", "labels", "masks", "Label"])
def test_scores_know_the_names_and_the_ignore_value_that_lie_beside_labels(
    call: Callable[..., Outcome], folder: str, tmp_path: Path
) -> None:
    """nnU-Net's dataset.json names it; a prediction without a label is told."""
    data = nnunet(tmp_path / "data", 2)
    labels = (data / "labelsTr").rename(data / folder)
    description = json.loads((data / "dataset.json").read_text())
    description["labels"] = {"background": 0, "bright": 1, "ignore": 2}
    (data / "dataset.json").write_text(json.dumps(description))
    masks = Path(shutil.copytree(labels, tmp_path / "masks"))
    for path in sorted(masks.iterdir()):
        mask = read_labels(path)
        write(path, mask.with_data(np.where(mask.data == 2, 1, mask.data).astype(np.uint8)))
    shutil.copy(path, masks / "third.nii.gz")
    found = call("evaluate", masks, labels, "--json")
    assert found.code == 0 and found.json()["summary"]["mean"]["dice"] == 1.0
    assert "1 bright" in found.out and "not scored: third.nii.gz, without a label" in found.out
    assert "not scored: voxels whose label is 2, which nobody labelled" in found.out


def test_scores_do_without_a_description_that_cannot_be_used(call: Callable[..., Outcome], tmp_path: Path) -> None:
    """Regions of several values, say."""
    data = nnunet(tmp_path / "data", 1)
    (data / "dataset.json").write_text('{"labels": {"background": 0, "whole": [1, 2]}}')
    found = call("evaluate", data / "labelsTr", data / "labelsTr", "--json")
    assert found.code == 0 and found.json()["summary"]["mean"]["dice"] == 1.0 and "not used: " in found.out


def test_the_honest_command_of_a_run_that_no_command_began(call: Callable[..., Outcome], tmp_path: Path) -> None:
    data, out = decathlon(tmp_path / "data", 6), tmp_path / "run"
    cases, spec, config = planned(data, steps=2, checks=0, folds=1)
    followed(train(cases, spec, config, out=out), lambda p: p.phase == "training")
    found = call("train", data, "--out", out, "--resume")
    assert f"an honest score: napari-unet train {data} --out {out}-folds --folds 5" in found.out.splitlines()


def test_a_run_goes_on_beside_a_broken_file_that_is_none_of_its_own(call: Callable[..., Outcome], tmp_path: Path) -> None:
    data, out = two_folders(tmp_path / "data", 4), tmp_path / "run"
    work = train(*planned(data, steps=2, checks=0, fold=0), out=out)
    next(progress for progress in work if progress.phase == "training")
    work.close()
    stopped = Path(shutil.copytree(out, tmp_path / "stopped"))
    image, label = scan(9)
    two_channels = image.with_data(np.stack([image.data] * 2, -1))
    write_pair(data / "images/b9.nii.gz", data / "labels/b9.nii.gz", two_channels, label)  # before the run's own by name
    (data / "images/d9.nii.gz").write_bytes(b"")
    (data / "labels/d9.nii.gz").write_bytes(b"")
    (data / "labels/e9.nii.gz").write_bytes(b"")
    found = call("train", data, "--out", out, "--resume")
    assert found.code == 0 and weights.read_card(out / "model.safetensors").steps == 2
    lines = [" ".join(line.split()) for line in found.out.splitlines()]
    assert "warning images/b9.nii.gz 2 channels, not 1 as the others. Give every case the same channels." in lines
    assert not any(line.startswith("error") for line in lines) and sum("the file is empty" in line for line in lines) == 1
    assert call("train", data, "--out", tmp_path / "new", "--steps", 1).code == 2
    (data / "images/c3.nii.gz").write_bytes(b"")
    assert call("train", data, "--out", stopped, "--resume").refused("c3.nii.gz: the file is empty")


def test_a_volume_s_halves_go_on_beside_a_broken_file(call: Callable[..., Outcome], tmp_path: Path) -> None:
    data, out = two_folders(tmp_path / "data", 1), tmp_path / "run"
    assert call("train", data, "--out", out, "--steps", 1, "--fold", 0, "--folds", 2, *SMALL).code == 0
    (data / "labels/b0.nii.gz").write_bytes(b"")
    assert call("train", data, "--out", out, "--resume").code == 0
    (data / "labels/c0.nii.gz").write_bytes(b"")
    assert call("train", data, "--out", out, "--resume").refused("c0.nii.gz: the file is empty")


def test_info_shows_the_card_and_the_walk(call: Callable[..., Outcome], run3d: Path) -> None:
    found = call("info", run3d, "--json")
    assert found.code == 0 and "bottleneck" in found.out and "12 x 16 x 16" in found.out and "CC0" in found.out
    assert found.json()["card"]["steps"] == 3 and found.json()["spec"]["patch"] == [12, 16, 16]
    assert found.json()["card"]["command"].startswith("napari-unet train ")
    assert call("info", run3d / "model.safetensors").code == 0


@pytest.mark.parametrize(("spacing", "pictures", "words"), [
    ((0, 0, 0), True, "at the pixels that pictures have"), ((0, 0, 0), False, "at each image's own spacing"),
    ((0, 1.25, 1.25), False, "spacing its own x 1.25 x 1.25 mm"), ((3, 1, 1), False, "spacing 3 x 1 x 1 mm"),
], ids=str)  # fmt: skip
def test_info_tells_the_spacing_in_words(
    call: Callable[..., Outcome], spacing: tuple[float, ...], pictures: bool, words: str, tmp_path: Path
) -> None:
    spec = model_spec(network_spec(2), spacing=spacing, pictures=pictures)
    network = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(spec.network).items()}
    weights.save(tmp_path / "m.safetensors", spec, Card(), network)
    assert f"axes SAR, {words}\n" in call("info", tmp_path / "m.safetensors").out


def test_info_of_folds_that_are_not_yet_joined(call: Callable[..., Outcome], run3d: Path, tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"fold_{n}").mkdir()
        shutil.copy(run3d / "model.safetensors", tmp_path / f"fold_{n}")
    found = call("info", tmp_path)
    assert found.code == 0 and "2 models in" in found.out and "not yet joined" in found.out and "fold_0" in found.out


def test_check_tells_what_is_there(call: Callable[..., Outcome], data3d: Path) -> None:
    found = call("check", data3d, "--json")
    counts = {"cases": 4, "errors": 0, "warnings": 0, "findings": [], "labels": {"1": "bright", "2": "dark"}}
    assert found.code == 0 and found.json() | counts == found.json()
    assert {row["name"] for row in found.json()["table"]} == {"a0", "a1", "a2", "a3"}
    assert found.json()["table"][0]["shape"] == [20, 24, 18] and "20 x 24 x 18" in found.out
    assert "4 cases, 0 errors, 0 warnings" in found.out


def test_check_of_many_cases_stays_readable(call: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = decathlon(tmp_path / "data", 30, shape=(6, 6, 6), affine=affine_for("RAS", (1, 1, 1)))
    for n in range(20, 30):
        write(folder / f"labelsTr/a{n}.nii.gz", read(folder / "imagesTr/a0.nii.gz").with_data(np.zeros((6, 6, 6), np.uint8)))
    (folder / "imagesTr/a7.nii.gz").write_bytes(b"")
    found = call("check", folder, "--csv", tmp_path / "t.csv", "--json")
    lines = [" ".join(line.split()) for line in found.out.splitlines()[:-1]]
    rows = [line for line in lines if line.startswith(("ok a", "warning a", "error a"))]
    assert found.code == 2 and len(rows) == 12 and rows[0] == "error a7" and rows[1].startswith("warning a20 6 x 6 x 6")
    assert lines[0] == "error imagesTr/a7.nii.gz the file is empty. Fetch or export it again."
    assert sum("an empty mask" in line for line in lines) == 1 and any("labelsTr/a20.nii.gz and 9 more" in line for line in lines)
    assert "... and 18 more without findings (--all shows them)" in lines
    assert len(found.json()["findings"]) == found.json()["errors"] + found.json()["warnings"] and len(found.json()["table"]) == 30
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 31
    assert call("check", folder, "--csv", tmp_path / "t.csv").refused("t.csv", "it exists already")
    assert call("check", folder, "--csv", folder / "imagesTr/a1.nii.gz", "--overwrite").refused("an image", "another --csv")
    full = call("check", folder, "--all", "--csv", tmp_path / "t.csv", "--overwrite").out
    assert full.count("an empty mask") == 10 and "more" not in full


def test_check_of_long_names_keeps_its_table(call: Callable[..., Outcome], tmp_path: Path) -> None:
    name = "ü" * 100 + "脳" * 13  # 240 bytes with the ending
    for part in ("one", name):
        write_pair(tmp_path / f"images/{part}.nii.gz", tmp_path / f"labels/{part}.nii.gz", *scan(len(part)))
    found = call("check", tmp_path, "--json")
    assert found.code == 0 and {row["name"] for row in found.json()["table"]} == {"one", name}
    assert max(map(len, found.out.splitlines()[:-1])) < 160


# --- wrong data sets


@pytest.mark.parametrize("name", ERRORS)
def test_a_data_set_with_a_fault(call: Callable[..., Outcome], data3d: Path, tmp_path: Path, name: str) -> None:
    harm, words = ERRORS[name]
    folder = Path(shutil.copytree(data3d, tmp_path / "data"))
    harm(folder)
    found = call("check", folder, "--json")
    assert found.code == 2 and words in found.out and found.json()["errors"] == 1 and found.json()["cases"] == 4
    assert call("train", folder, "--out", tmp_path / "run", "--steps", 2).refused("a1.nii.gz", words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_data_set_with_a_wrong_description(call: Callable[..., Outcome], data3d: Path, tmp_path: Path, name: str) -> None:
    fields, words = DESCRIPTIONS[name]
    folder = Path(shutil.copytree(data3d, tmp_path / "data"))
    describe(folder, **json.loads((folder / "dataset.json").read_text()) | fields)
    for command in (["check", folder], ["train", folder, "--out", tmp_path / "run"]):
        assert call(*command).refused("dataset.json", words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "nowhere", "file"])
@pytest.mark.parametrize("command", ["check", "train", "predict", "evaluate", "info"])
def test_paths_that_lead_nowhere(call: Callable[..., Outcome], run3d: Path, tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / "file").write_text("hello")
    path = str(tmp_path / name) if name else ""
    rest = {"train": ["--out", tmp_path / "run"], "evaluate": [path]}.get(command, [])
    arguments = ["predict", run3d, path, "--out", tmp_path / "m"] if command == "predict" else [command, path, *rest]
    assert call(*arguments).refused()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("out", ["x" * 5000, "file", "file/below"])
@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_place_that_cannot_be(call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path, out: str, command: str) -> None:
    (tmp_path / "file").write_text("hello")
    what = [data3d, "--steps", 1] if command == "train" else [run3d, data3d / "imagesTr"]
    assert call(command, *what, "--out", tmp_path / out).refused()
    assert (tmp_path / "file").read_text() == "hello"


def test_names_a_terminal_cannot_show(tmp_path: Path) -> None:
    for name in ("Größe 脳", os.fsdecode(b"\xff\xfe")):
        try:
            write_pair(tmp_path / f"images/{name}.nii.gz", tmp_path / f"labels/{name}.nii.gz", *scan())
        except OSError:  # a file system of Unicode names only
            continue
    (tmp_path / "images/Größe 脳.nii.gz").write_bytes(b"")
    child = process("check", tmp_path, "--json", env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    out, err = child.communicate()
    assert child.returncode == 2 and "Traceback" not in err and json.loads(out.splitlines()[-1])["errors"] >= 1


def test_a_reader_that_has_seen_enough(run3d: Path) -> None:
    child = process("info", run3d, env=os.environ | {"PYTHONUNBUFFERED": ""})
    assert child.stdout and child.stderr
    child.stdout.close()
    assert child.stderr.read() == "" and child.wait() == 0


# --- train


def test_train_leaves_a_run(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    found = call("train", data3d, "--out", tmp_path / "run", "--steps", 2, "--fold", 0, *SMALL, "--json")
    assert found.code == 0 and {path.name for path in (tmp_path / "run").iterdir()} - {"tensorboard"} == RUN_FILES
    told = found.json()
    assert told["steps"] == 2 and told["cases_scored"] == 1 and told["independent"] is True and told["minutes"] > 0
    assert set(told["dice"]) == {"bright", "dark", "mean"} and Path(told["model"]).exists() and Path(told["report"]).exists()
    assert "Dice on 1 case kept out of training" in found.out and "2 steps, as asked for" in found.out
    assert "Part 0 of 4 parts is kept out of training" in found.out


@pytest.mark.parametrize("count", [1, 4])
def test_a_small_set_trains_on_all_and_says_that_nothing_is_scored(call: Callable[..., Outcome], tmp_path: Path, count: int) -> None:
    data, out = decathlon(tmp_path / "data", count), tmp_path / "run"
    found = call("train", data, "--out", out, "--steps", 1, *SMALL, "--json")
    assert found.code == 0 and {path.name for path in out.iterdir()} - {"tensorboard"} == RUN_FILES - {"scores.csv", "masks"}
    told = found.json()
    assert (told["cases_scored"], told["independent"], told["dice"]) == (0, False, {})
    folds = f"--folds {max(2, count)}"
    assert "none is kept out, so nothing is scored" in found.out and f"For an honest score: {folds}." in found.out
    again = f"napari-unet train {data} --steps 1 {' '.join(map(str, SMALL))} --out {out}-folds {folds}"
    assert f"an honest score: {again}" in found.out.splitlines(), "all that was asked for, but what it is about"
    assert call(*shlex.split(again)[1:]).code == 0 and (tmp_path / "run-folds/scores.csv").exists()
    assert "how well is not known" in (out / "report.html").read_text("utf-8")
    assert "none (on no case: none was kept out of training)" in call("info", out).out


def test_cross_validated(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = call("train", data3d, "--out", out, "--steps", 2, "--folds", 2, *SMALL, "--json")
    assert found.code == 0 and {path.name for path in out.iterdir()} == RUN_FILES - {"resume.safetensors"} | {"fold_0", "fold_1"}
    told = found.json()
    assert (told["cases_scored"], told["independent"], told["scored_by"], told["steps"]) == (4, True, "folds", 4)
    assert "Dice on 4 cases, each by the one model of several that never saw it" in found.out
    assert "2, whose logits are averaged" in call("info", out).out
    again = ("train", data3d, "--out", out, "--steps", 1, *SMALL)
    assert call(*again).refused("it holds a run already")
    assert call(*again, "--resume", "--json").json()["dice"] == told["dice"]
    (out / "run.json").unlink()
    (out / "model.safetensors").unlink()
    assert call(*again).refused("it holds a run already"), "its folds are worth as much"


def test_one_volume_by_halves(call: Callable[..., Outcome], tmp_path: Path) -> None:
    data = decathlon(tmp_path / "data", 1)
    found = call("train", data, "--out", tmp_path / "run", "--steps", 1, "--folds", 2, *SMALL)
    assert found.code == 0 and "Dice on 2 halves of one volume, each by a model that saw only the other half" in found.out
    assert call("train", data, "--out", tmp_path / "a", "--steps", 1, "--folds", 3, *SMALL).refused("--folds 2", "halves")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
def test_ctrl_c_between_folds_and_resume_goes_on(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = interrupt(data3d, out, signal.SIGINT, 300, "--folds", 2)
    assert told.code == 130 and "stopping after this step" in told.err and "Traceback" not in told.err, told
    assert told.out.splitlines()[-1] == f"stopped; its folds so far are in {out}; go on with --resume"
    assert weights.load(out / "fold_0/model.safetensors") and not (out / "model.safetensors").exists()
    found = call("train", data3d, "--out", out, *SMALL, "--resume", "--json")
    assert found.code == 0 and found.json()["steps"] == 600 and found.json()["cases_scored"] == 4


def test_join(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    """What the jobs of an array leave."""
    folds = [tmp_path / f"fold_{n}" for n in range(2)]
    for n, out in enumerate(folds):
        assert call("train", data3d, "--out", out, "--steps", 1, "--folds", 2, "--fold", n, *SMALL).code == 0
    model = tmp_path / "new/joined.safetensors"
    found = call("join", *folds, "--out", model, "--json")
    assert found.code == 0 and found.json()["cases_scored"] == 4 and "Dice on 4 cases, each by" in found.out
    assert weights.read_card(model).command.startswith("napari-unet join ") and (tmp_path / "new/joined_scores.csv").exists()
    assert call("join", *folds, "--out", model).refused("joined.safetensors: it exists already", "--overwrite")
    assert call("join", *folds, "--out", model, "--overwrite").code == 0
    assert call("join", *folds, "--out", tmp_path / "m.pt").refused("the ending '.pt'")
    assert call("join", folds[0], "--out", tmp_path / "m.safetensors").refused("it is alone")
    assert call("predict", tmp_path, data3d / "imagesTr/a0.nii.gz", "--out", tmp_path / "apart.nii.gz").code == 0
    assert call("predict", model, data3d / "imagesTr/a0.nii.gz", "--out", tmp_path / "joined.nii.gz").code == 0


def test_a_run_is_not_overwritten_unasked(call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run3d, tmp_path / "run"))
    again = ("train", data3d, "--out", out, "--steps", 1, *SMALL)
    assert call(*again).refused("it holds a run already", "--overwrite")
    (out / "run.json").unlink()
    assert call(*again).refused("it holds a run already")
    assert (out / "model.safetensors").read_bytes() == (run3d / "model.safetensors").read_bytes()
    assert call(*again, "--overwrite").code == 0
    assert weights.read_card(out / "model.safetensors").steps == 1


def test_overwriting_leaves_no_folds_that_predict_would_take(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    ask = ("train", data3d, "--out", tmp_path / "run", "--steps", 1, *SMALL)
    assert call(*ask, "--folds", 2).code == 0
    mine = tmp_path / "run/fold_1/notes.txt"
    mine.write_text("mine")
    assert call(*ask, "--overwrite").code == 0
    assert not list((tmp_path / "run").glob("fold_*/model.safetensors")) and mine.exists()
    assert weights.read_spec(tmp_path / "run/model.safetensors").members == 1


def test_overwriting_waits_for_a_run_that_is_at_work(call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run3d, tmp_path / "run"))
    at_work = train(*planned(data3d, steps=3), out=out, resume=True)
    next(at_work)
    for flag in ("--overwrite", "--resume"):
        assert call("train", data3d, "--out", out, *SMALL, "--steps", 1, flag).refused("is working in it")
    at_work.close()
    assert {path.name for path in out.iterdir()} - {"tensorboard"} == RUN_FILES


@pytest.mark.parametrize(
    ("recipe", "flags", "expected"),
    [
        ("steps = 2\nseed = 5\nrate = 0.01", ["--seed", "7"], {"steps": 2, "seed": 7, "rate": 0.01, "minutes": None}),
        ("minutes = 60", ["--steps", "1"], {"steps": 1, "minutes": None}),
        ("steps = 100000", ["--minutes", "0.001"], {"steps": None, "minutes": 0.001}),
        ("steps = 1\ngrow = false\nfeatures = [4, 8, 16]", ["--features", "4,8", "--grow"], {"grow": True}),
        ("steps = 1\nmirror_axes = [0]", ["--mirror-axes", "2"], {}),
        ("steps = 1", ["--mirror-axes", ""], {}),
    ],
)
def test_a_recipe_yields_to_flags(
    call: Callable[..., Outcome], data3d: Path, tmp_path: Path, recipe: str, flags: list[str], expected: dict[str, Any]
) -> None:
    (tmp_path / "r.toml").write_text(recipe)
    found = call("train", data3d, "--out", tmp_path / "run", "--recipe", tmp_path / "r.toml", "--features", "4,8",
                 "--patch", "12,16,16", *flags)  # fmt: skip
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert found.code == 0 and {name: record["config"][name] for name in expected} == expected
    assert record["spec"]["network"]["features"] == [4, 8]
    if "--mirror-axes" in flags:
        assert record["spec"]["mirror_axes"] == ([2] if "2" in flags else [])


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (b"minuts = 3", "unknown key 'minuts'. Did you mean minutes?"),
        (b"xyzzy = 3", "unknown key 'xyzzy'. Known: "),
        (b"[train]\nsteps = 3", "unknown key 'train'"),
        (b"steps = 0", "steps is 0"),
        (b"steps = 1.5", "steps is 1.5"),
        (b"steps = true", "steps is True"),
        (b"rate = nan", "rate is nan"),
        (b"grow = 1", "grow is 1"),
        (b"seed = 1979-05-27", "not JSON"),
        (b"dims = 4", "dims"),
        (b"patch = [8, 0, 8]", "patch.1 is 0"),
        (b"steps = 3\nminutes = 1", "both steps and minutes are given"),
        (b"steps = ", "not valid TOML"),
        (b"\xff", "not valid TOML"),
        (None, "cannot be read"),
    ],
)
def test_a_recipe_with_a_fault(call: Callable[..., Outcome], data3d: Path, tmp_path: Path, recipe: bytes | None, words: str) -> None:
    path = tmp_path / "r.toml"
    path.mkdir() if recipe is None else path.write_bytes(recipe)
    assert call("train", data3d, "--out", tmp_path / "run", "--recipe", path).refused(str(path), words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--steps", "0"], "steps is 0"),
        (["--steps", "many"], "steps is 'many'"),
        (["--steps", "5,6"], "steps is [5, 6]"),
        (["--minutes", "-1"], "minutes is -1"),
        (["--minutes", "nan"], "minutes is 'nan'"),
        (["--minutes", "NaN"], "minutes is nan"),
        (["--minutes", "Infinity"], "minutes is inf"),
        (["--steps", "3", "--minutes", "3"], "both steps and minutes"),
        (["--rate", "2"], "rate is 2"),
        (["--seed", "-1"], "seed is -1"),
        (["--seed", "99999999999"], "seed is 99999999999"),
        (["--augment", "4"], "augment is 4"),
        (["--folds", "0"], "folds is 0"),
        (["--fold", "4", "--steps", "1"], "--fold: 4 of 4 folds. Use 0 to 3"),
        (["--batch", "0"], "batch is 0"),
        (["--device", "warp", "--steps", "1"], "'warp' cannot be used"),
        (["--device", "0", "--steps", "1"], "device is 0"),
        (["--dims", "4"], "dims"),
        (["--patch", "8,8"], "patch is (8, 8). Give three numbers"),
        (["--patch", "30,30,30"], "Use multiples of"),
        (["--patch", "8,8,5000"], "patch.2 is 5000"),
        (["--features", "big"], "features"),
        (["--features", "8"], "at least 2 levels"),
        (["--mirror-axes", "3"], "mirror_axes"),
        (["--spacing", "0,0,-1"], "spacing"),
        (["--cases", "0"], "cases is 0"),
    ],
)
def test_flags_out_of_bounds(call: Callable[..., Outcome], data3d: Path, tmp_path: Path, flags: list[str], words: str) -> None:
    assert call("train", data3d, "--out", tmp_path / "run", *flags).refused(words)
    assert not (tmp_path / "run/run.json").exists()


# --- interruption


def interrupt(data3d: Path, out: Path, number: int, steps: int, *flags: object) -> Outcome:
    """Train in a process of its own, and send it a signal once it is at work."""
    child = process("train", data3d, "--out", out, "--steps", steps, *SMALL, *flags)
    for _ in range(3000):
        if (out / "run.json").exists() or child.poll() is not None:
            break
        time.sleep(0.02)
    time.sleep(0.5)
    child.send_signal(number)
    text, err = child.communicate(timeout=60)
    return Outcome(child.returncode, text, err)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
def test_ctrl_c_keeps_the_best_and_resume_goes_on(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = interrupt(data3d, out, signal.SIGINT, steps=300)
    assert told.code == 130 and "Traceback" not in told.err and "stopping after this step" in told.err
    last = told.out.splitlines()[-1]
    assert last == f"stopped; the best weights so far are in {out / 'model.safetensors'}; go on with --resume"
    assert weights.load(out / "model.safetensors") and not (out / "report.html").exists() and not (out / "lock").exists()
    done = int(weights.load_tensors(out / "resume.safetensors")[1]["step"])
    assert 0 < done < 300
    found = call("train", data3d, "--out", out, "--steps", 300, *SMALL, "--resume", "--json")
    assert found.code == 0 and found.json()["steps"] == 300 and (out / "report.html").exists()
    assert f"going on with the run in {out}" in found.out and "not followed" not in found.out


def test_a_resumed_run_says_which_settings_it_does_not_follow(
    call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path
) -> None:
    out, config = Path(shutil.copytree(run3d, tmp_path / "run")), read_record(run3d).config
    found = call("train", data3d, "--out", out, "--resume", "--steps", config.steps + 7, "--seed", config.seed, "--device", "cpu")
    assert found.code == 0 and f"not followed: --steps (of this run: {config.steps}); for another training" in found.out
    spec = read_record(run3d).spec
    planned_otherwise = ("--patch", "4,8,8", "--features", ",".join(map(str, spec.network.features)), "--ignore", 9, "--from", "phantoms")
    told = call("train", data3d, "--out", out, "--resume", *planned_otherwise).out
    assert f"not followed: --patch (of this run: {spec.patch}), --ignore (of this run: none), --from phantoms; for" in told
    assert read_record(out) == read_record(run3d)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
def test_terminated_it_stops_in_order(data3d: Path, tmp_path: Path) -> None:
    told = interrupt(data3d, tmp_path / "run", signal.SIGTERM, steps=100_000)
    assert told.code == 130 and weights.load(tmp_path / "run/model.safetensors")


@contextmanager
def struck(file: str, line: int) -> Iterator[None]:
    """Ctrl-C before so many lines of a file have run."""
    before = sys.gettrace()
    sys.settrace(Signal((file,), line))
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("folds", [(), ("--folds", 2)])
def test_interrupted_before_the_first_step(
    call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path, exists: bool, folds: tuple[object, ...]
) -> None:
    out = Path(shutil.copytree(run3d, tmp_path / "run")) if exists else tmp_path / "run"
    with struck("napari_unet/learning.py", 1):
        found = call("train", data3d, "--out", out, "--steps", 1, *SMALL, *folds, "--overwrite")
    assert found.code == 130 and found.out.splitlines()[-1] == "stopped before the first step; nothing has changed"
    if exists:
        assert (out / "model.safetensors").read_bytes() == (run3d / "model.safetensors").read_bytes()


def test_interrupted_before_a_command_is_known(call: Callable[..., Outcome], data3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its room is imported."""
    for room in [name for name in sys.modules if name.startswith("napari_unet.cli.check")]:
        monkeypatch.delitem(sys.modules, room)
    with struck("napari_unet/cli/check.py", 2):
        found = call("check", data3d)
    assert found.code == 130 and found.err.splitlines()[-1] == "napari-unet: interrupted"


def test_interrupted_while_reading(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    with struck("napari_unet/checks.py", 50):
        found = call("check", data3d)
    assert found.code == 130 and found.err.splitlines()[-1] == "napari-unet: interrupted"


# --- predict


def test_predict_into_a_folder_keeps_every_grid(call: Callable[..., Outcome], run3d: Path, tmp_path: Path) -> None:
    grids = {"straight": affine_for("RAS", (1, 1, 1)), "tilted": affine_for("LPS", (0.9, 1.1, 2.5), tilt=17),
             "turned": affine_for("SLA", (1.3, 0.7, 1))}  # fmt: skip
    for n, (name, affine) in enumerate(grids.items()):
        write(tmp_path / f"{name}.nii.gz", scan(n, (17, 21, 13 + n), affine)[0], labels=False)
    found = call("predict", run3d, tmp_path, "--out", tmp_path / "masks", "--json")
    assert found.code == 0 and len(found.json()["masks"]) == 3 and found.json()["failed"] == []
    for name in grids:
        image, mask = (nibabel.load(folder / f"{name}.nii.gz") for folder in (tmp_path, tmp_path / "masks"))
        assert mask.shape == image.shape and np.array_equal(mask.affine, image.affine)
        for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "quatern_b", "srow_x"):
            assert np.array_equal(mask.header[field], image.header[field])
        assert mask.get_data_dtype() == np.uint8 and set(np.unique(mask.dataobj)) <= {0, 1, 2}


def test_predict_to_a_file(call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path) -> None:
    image = data3d / "imagesTr/a0.nii.gz"
    assert call("predict", run3d / "model.safetensors", image, "--out", tmp_path / "new/m.nii").code == 0
    assert call("predict", run3d, image, "--out", tmp_path / "folder").code == 0
    mask = read_labels(tmp_path / "new/m.nii")
    assert np.array_equal(mask.data, read_labels(tmp_path / "folder/a0.nii.gz").data)


def test_a_mask_is_the_same_whatever_runs_the_network(
    call: Callable[..., Outcome], run3d: Path, data3d: Path, tmp_path: Path
) -> None:
    image = data3d / "imagesTr/a0.nii.gz"
    for runtime, threads in (("torch", 1), ("auto", 2)):
        assert call("predict", run3d, image, "--out", tmp_path / f"{runtime}.nii.gz", "--runtime", runtime, "--threads", threads).code == 0
    one, other = (read_labels(tmp_path / f"{name}.nii.gz").data for name in ("torch", "auto"))
    assert (one == other).mean() >= 0.999
    assert call("predict", run3d, image, "--out", tmp_path / "m.nii.gz", "--runtime", "fast").code == 2
    assert not (tmp_path / "m.nii.gz").exists()


def test_uncertainty_beside_the_masks(call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path) -> None:
    affine = affine_for("LSP", (1, 1.2, 1.5), tilt=11)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.nii.gz", scan(5, (17, 21, 13), affine)[0], labels=False)
    ask = ("predict", run3d, tmp_path / "in", "--out")
    assert call(*ask, tmp_path / "plain").code == 0 and call(*ask, tmp_path / "masks", "--uncertainty").code == 0
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {"a.nii.gz", "a_uncertainty.nii.gz", *BOOKS}
    assert (tmp_path / "masks/a.nii.gz").read_bytes() == (tmp_path / "plain/a.nii.gz").read_bytes()
    image, doubt = nibabel.load(tmp_path / "in/a.nii.gz"), nibabel.load(tmp_path / "masks/a_uncertainty.nii.gz")
    assert doubt.get_data_dtype() == np.float32 and np.array_equal(doubt.affine, image.affine) and doubt.shape == image.shape
    values = np.asarray(doubt.dataobj)
    assert 0 <= values.min() < values.max() <= 1
    (tmp_path / "masks/a.nii.gz").unlink()
    assert call(*ask, tmp_path / "masks", "--uncertainty").refused("a_uncertainty.nii.gz: it exists already")
    shutil.copy(tmp_path / "in/a.nii.gz", tmp_path / "in/a_uncertainty.nii.gz")
    assert call(*ask, tmp_path / "new", "--uncertainty").refused("a_uncertainty.nii.gz: it would be a mask and an uncertainty")


def test_one_bad_file_among_good_ones(call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data3d / "imagesTr", tmp_path / "images"))
    (folder / "a1.nii.gz").write_bytes((folder / "a1.nii.gz").read_bytes()[:-50])
    write(folder / "a2.nii.gz", read(folder / "a2.nii.gz").with_data(np.zeros((20, 24, 18, 2), np.int16)), labels=False)
    found = call("predict", run3d, folder, "--out", tmp_path / "masks", "--json")
    assert found.code == 1 and {path.name for path in (tmp_path / "masks").iterdir()} == {"a0.nii.gz", "a3.nii.gz", *BOOKS}
    assert [failure["case"] for failure in found.json()["failed"]] == ["a1", "a2"]
    errors = [line for line in found.err.splitlines() if line.startswith("napari-unet: ")]
    assert len(errors) == 2 and "damaged" in errors[0] and "2 channels" in errors[1]
    assert call("predict", run3d, folder / "a1.nii.gz", folder / "a2.nii.gz", "--out", tmp_path / "none").code == 2
    assert call("predict", run3d, folder / "a1.nii.gz", "--out", tmp_path / "x.nii.gz").refused("a1.nii.gz", "damaged")


def test_what_exists_is_not_replaced_unasked(call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "a3.nii.gz").write_text("mine")
    again = ("predict", run3d, data3d / "imagesTr", "--out", masks)
    assert call(*again).refused("a3.nii.gz: it exists already", "--overwrite")
    assert [path.name for path in masks.iterdir()] == ["a3.nii.gz"] and (masks / "a3.nii.gz").read_text() == "mine"
    assert call(*again, "--overwrite").code == 0 and read_labels(masks / "a3.nii.gz")


def test_never_over_an_input(call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data3d / "imagesTr", tmp_path / "images"))
    (tmp_path / "link").symlink_to(folder)
    for out in (folder, tmp_path / "link", folder / "../images"):
        assert call("predict", run3d, folder, "--out", out, "--overwrite").refused("would replace its own image")
    assert call("predict", run3d, folder / "a0.nii.gz", "--out", folder / "a1.nii.gz").refused("it exists already")
    for path in folder.iterdir():
        assert path.read_bytes() == (data3d / "imagesTr" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("out", "count", "words"),
    [("m.nii.gz", 2, "one file for 2 images. Give a folder"), ("m.jpg", 1, "no mask can be written as .jpg"),
     ("m.mgz", 1, "no mask can be written as .mgz"), ("m.png", 1, "Save it as .nii.gz")],
)  # fmt: skip
def test_a_file_that_cannot_hold_the_mask(
    call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path, out: str, count: int, words: str
) -> None:
    images = [data3d / f"imagesTr/a{n}.nii.gz" for n in range(count)]
    assert call("predict", run3d, *images, "--out", tmp_path / out).refused(out, words)
    assert list(tmp_path.iterdir()) == []


def test_pictures_become_pictures_of_class_indices(call: Callable[..., Outcome], run2d: Path, tmp_path: Path) -> None:
    folder = run2d.parent / "data/images"
    assert call("predict", run2d, folder, "--out", tmp_path / "masks").code == 0
    for path in folder.iterdir():
        image, mask = (np.asarray(Image.open(place / path.name)) for place in (folder, tmp_path / "masks"))
        assert mask.shape == image.shape and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1, 2}
    assert call("predict", run2d, folder / "c0.png", "--out", tmp_path / "m.tif").code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "m.tif")), np.asarray(Image.open(tmp_path / "masks/c0.png")))


def test_one_volume_of_several(call: Callable[..., Outcome], run3d: Path, tmp_path: Path) -> None:
    volumes = [scan(n)[0] for n in range(3)]
    series = volumes[0].with_data(np.stack([volume.data for volume in volumes], -1))
    write(tmp_path / "series.nii.gz", series, labels=False)
    write(tmp_path / "one.nii.gz", volumes[1], labels=False)
    ask = ("predict", run3d, tmp_path / "series.nii.gz", "--out")
    assert call(*ask, tmp_path / "m.nii.gz").refused("3 channels", "--volume")
    assert call(*ask, tmp_path / "m.nii.gz", "--volume", 3).refused("volume 3 of 3", "Choose 0 to 2")
    assert call(*ask, tmp_path / "m.nii.gz", "--volume", 1).code == 0
    assert call("predict", run3d, tmp_path / "one.nii.gz", "--out", tmp_path / "n.nii.gz").code == 0
    masks = [read_labels(tmp_path / f"{name}.nii.gz") for name in "mn"]
    assert masks[0].shape_on_disk == (20, 24, 18) and np.array_equal(masks[0].data, masks[1].data)


def test_channels_in_files_of_their_own(call: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "data", 2, channels=2)
    assert call("train", folder, "--out", tmp_path / "run", "--steps", 1, *SMALL).code == 0
    assert call("predict", tmp_path / "run", folder / "imagesTr", "--out", tmp_path / "masks").code == 0
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {"b0.nii.gz", "b1.nii.gz", *BOOKS}


def test_a_name_as_long_as_names_can_be(call: Callable[..., Outcome], run3d: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{'脳' * 20}{'x' * 180}.nii.gz"
    write(path, scan()[0], labels=False)
    assert call("predict", run3d, path, "--out", tmp_path / "masks").code == 0
    assert (tmp_path / "masks" / path.name).exists()


@pytest.mark.parametrize("harm", [lambda data: data[:-4], lambda data: b"", lambda data: b"\x80\x04K\x01." + data])
def test_a_model_that_is_none(call: Callable[..., Outcome], data3d: Path, run3d: Path, tmp_path: Path, harm: Any) -> None:
    (tmp_path / "m.safetensors").write_bytes(harm((run3d / "model.safetensors").read_bytes()))
    for command in (["info", tmp_path / "m.safetensors"],
                    ["predict", tmp_path / "m.safetensors", data3d / "imagesTr", "--out", tmp_path / "masks"]):  # fmt: skip
        assert call(*command).refused("m.safetensors")


# --- evaluate


def test_evaluate(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    labels, masks = data3d / "labelsTr", Path(shutil.copytree(data3d / "labelsTr", tmp_path / "masks"))
    found = call("evaluate", masks, labels, "--surface", "--out", tmp_path / "s.csv", "--json")
    assert found.code == 0 and found.json()["summary"]["mean"]["dice"] == 1 and found.json()["cases"] == 4
    assert "HD95" in found.out and (tmp_path / "s.csv").read_text().count("\n") == 9
    (masks / "a2.nii.gz").unlink()
    assert call("evaluate", masks, labels).refused("no prediction for 1 of 4 labels: a2.nii.gz")


def test_scores_replace_nothing_unasked(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    labels = Path(shutil.copytree(data3d / "labelsTr", tmp_path / "labels"))
    ask = ("evaluate", data3d / "labelsTr", labels, "--out")
    assert call(*ask, labels / "a0.nii.gz", "--overwrite").refused("it is an image", "another --out, such as table.csv")
    assert (labels / "a0.nii.gz").read_bytes() == (data3d / "labelsTr/a0.nii.gz").read_bytes()
    (tmp_path / "s.csv").write_text("mine")
    assert call(*ask, tmp_path / "s.csv").refused("it exists already")
    assert (tmp_path / "s.csv").read_text() == "mine"
    assert call(*ask, tmp_path / "s.csv", "--overwrite").code == 0 and (tmp_path / "s.csv").read_text() != "mine"


def test_where_scores_go_is_there_before_they_are_made(call: Callable[..., Outcome], data3d: Path, tmp_path: Path) -> None:
    ask = ("evaluate", data3d / "labelsTr", data3d / "labelsTr", "--out")
    assert call(*ask, tmp_path / "a/new/s.csv").code == 0 and (tmp_path / "a/new/s.csv").read_text().count("\n") == 9
    (tmp_path / "file").touch()
    for out, words in ((tmp_path / "file/s.csv", "cannot be made"), (tmp_path / "a", "it is a folder")):
        found = call(*ask, out, "--overwrite")
        assert found.refused(words) and found.out == ""
