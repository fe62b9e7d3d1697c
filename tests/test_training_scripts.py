"""The scripts in training/: short, made of public names, and they do what they say, in processes of their own."""

from __future__ import annotations

import ast
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import ONE_THREAD, _one_thread, decathlon, two_folders  # noqa: F401 - a fixture
from matplotlib.image import imread

from napari_unet import convert, find_cases, images, weights
from napari_unet.cli import main
from napari_unet.experiment import fold_out
from napari_unet.fingerprint import of_tensors

TRAINING = Path(__file__).parents[1] / "training"
SCRIPTS, RECIPES = sorted(TRAINING.glob("*.py")), sorted(TRAINING.glob("recipes/*.toml"))
MODEL = "model.safetensors"


def run(name: str, *arguments: object) -> str:
    """What a script prints, in a process of its own."""
    command = [sys.executable, next(path for path in SCRIPTS if path.name == name), *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD)
    assert done.returncode == 0, done.stderr
    return done.stdout


def left(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """With what a script leaves; in this process, which has imported everything."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(next(path for path in SCRIPTS if path.name == name)), run_name="__main__")
    return error.value.code


def told(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """The lines that a script prints, the last one JSON; in this process."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    capsys.readouterr()
    runpy.run_path(str(TRAINING / name), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    json.loads(lines[-1], parse_constant=pytest.fail)
    return lines


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_read_in_a_minute(script: Path) -> None:
    text = script.read_text("utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 100 and ast.get_docstring(tree)
    assert not [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.attr] if isinstance(node, ast.Attribute) else []
        assert not [name for name in names if name.split(".")[-1].startswith("_") and name != "__doc__"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_how_it_is_called(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert left(script.name, monkeypatch, "--help") == 0
    assert f"training/{script.name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("agreement.py", ["nothing", "."]),
        ("train.py", ["--data", "nothing", "--out", "run"]),
        ("predict.py", ["--model", "nothing", "--images", ".", "--out", "masks"]),
        ("evaluate.py", ["--masks", "nothing", "--labels", "."]),
        ("prepare_phantoms.py", ["file"]),
        ("benchmark.py", ["train", "nothing"]),
        ("benchmark_command.py", ["--model", "nothing"]),
        ("benchmark_memory.py", ["nothing"]),
        ("benchmark_model.py", ["file/model.safetensors"]),
        ("benchmark_slice.py", ["nothing"]),
        ("benchmark_windows.py", ["--model", "nothing"]),
        ("learning_curve.py", ["nothing"]),
        ("monai_recipe.py", ["nothing", "--out", "run"]),
        ("nnunet_iteration.py", ["nothing"]),
        ("nnunet_model.py", ["nothing", "out"]),
        ("skip_connections.py", ["--membrane", "nothing"]),
        ("skip_connections.py", []),
    ],
)
def test_a_fault_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str]) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    text = left(name, monkeypatch, *arguments)
    assert isinstance(text, str) and text.startswith(f"{name}: ") and "\n" not in text


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds_settings_that_exist(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nothing", "--out", "nowhere", "--recipe", str(recipe)]) == 2
    assert capsys.readouterr().err.startswith("napari-unet: nothing: ")  # the recipe was read before, and found good


def test_phantoms_prepared(tmp_path: Path) -> None:
    assert "2 + 1 phantoms" in run("prepare_phantoms.py", tmp_path, "--training", 2, "--testing", 1, "--seed", 4)
    assert [case.name for case in find_cases(tmp_path).cases] == ["phantom_4000", "phantom_4001"]


def test_trained_predicted_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = decathlon(tmp_path / "data", 2)
    with monkeypatch.context() as without_a_card:  # whose bits do not repeat
        without_a_card.setenv("CUDA_VISIBLE_DEVICES", "")
        first = json.loads(run("train.py", "--data", data, "--out", tmp_path / "run", "--steps", 2, "--seed", 3).splitlines()[-1])
    card = weights.read_card(tmp_path / "run" / MODEL)
    assert first["steps"] == card.steps == 2 and first["dice"] == card.dice and (tmp_path / "run/report.html").exists()

    told("train.py", monkeypatch, capsys, "--data", data, "--out", tmp_path / "on", "--steps", 2, "--from", tmp_path / "run")
    parent, (spec, tensors) = weights.read_card(tmp_path / "on" / MODEL).parent, weights.load(tmp_path / "run" / MODEL)
    assert parent is not None and (parent.name, parent.sha256) == (spec.name, of_tensors(tensors))

    run("predict.py", "--model", tmp_path / "run", "--images", data / "imagesTr", "--out", tmp_path / "masks")
    for mask in (tmp_path / "masks").iterdir():
        assert images.read_labels(mask).shape == images.read(data / "imagesTr" / mask.name).shape

    scores = told("evaluate.py", monkeypatch, capsys, "--masks", tmp_path / "masks", "--labels", data / "labelsTr")
    assert [line.split()[0] for line in scores[:2]] == ["a0", "a1"] and set(json.loads(scores[-1])) == {"1", "2", "mean"}

    # one loop behind all fronts: the same data, steps and seed give the same weights on the command line
    assert main(["train", str(data), "--out", str(tmp_path / "command"), "--steps", "2", "--seed", "3", "--device", "cpu"]) == 0
    one, two = (weights.load(tmp_path / place / MODEL)[1] for place in ("run", "command"))
    assert all(one[key].tobytes() == two[key].tobytes() for key in one | two)


def test_skip_connections_measured_drawn_and_written_into_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    membrane, hippocampus = two_folders(tmp_path / "membrane", 8, ".png", classes=1), decathlon(tmp_path / "hippocampus", 6)
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- skip_connections: table -->\n<!-- skip_connections: end -->\nafter\n")
    arguments = ("--membrane", membrane, "--hippocampus", hippocampus, "--steps", 1, "--out", tmp_path / "runs", "--page", page)
    lines = told("skip_connections.py", monkeypatch, capsys, *arguments)
    found = json.loads(lines[-1])
    assert list(found) == ["membrane", "hippocampus"] and [found[name]["unseen"] for name in found] == [6, 2]
    for name, row in found.items():
        specs = [weights.read_spec(tmp_path / f"runs/{name}-{arm}-1-0" / MODEL) for arm in ("with", "without")]
        assert [spec.network.skips for spec in specs] == [True, False] and row["with"]["parameters"] > row["without"]["parameters"]
        assert row["gain"][0] == pytest.approx(row["with"]["dice"] - row["without"]["dice"]) and 0 <= row["with"]["wrong"] <= 1
        assert row["with"]["steps"] == row["without"]["steps"] == 1
    unseen = {path.name.split(".")[0] for path in (tmp_path / "runs/membrane-with-1-0/unseen").iterdir()}
    assert unseen == {f"c{n}" for n in range(2, 8)}, "the last six"
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and all(line in text for line in lines[:-2])
    picture = imread(page.parent / "images/skip_connections.png")
    assert picture.shape[1] > picture.shape[0] and picture[..., :3].std() > 0.1

    assert told("skip_connections.py", monkeypatch, capsys, *arguments) == lines, "nothing is trained anew"


def test_a_model_as_nnunet_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told("nnunet_model.py", monkeypatch, capsys, "hippocampus", tmp_path)
    spec, ours = weights.load(weights.find("hippocampus"))
    planned = json.loads((tmp_path / "plans.json").read_text())["configurations"]["3d_fullres"]
    assert planned["patch_size"] == list(spec.patch) and planned["spacing"] == list(spec.spacing)
    checkpoint = torch.load(tmp_path / "fold_0" / "checkpoint_final.pth", weights_only=True)
    theirs = checkpoint["network_weights"]
    assert all((theirs[name].numpy() == tensor).all() for name, tensor in ours.items())
    assert all((theirs[f"decoder.{name}"].numpy() == tensor).all() for name, tensor in ours.items() if name.startswith("encoder."))
    back, _ = convert(tmp_path, tmp_path / "back.safetensors")
    assert (back.network, back.patch, back.mirror_axes) == (spec.network, spec.patch, spec.mirror_axes)
    assert all((weights.load(tmp_path / "back.safetensors")[1][name] == tensor).all() for name, tensor in ours.items())


def test_voxels_in_which_masks_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = two_folders(tmp_path / "data", 2)
    (tmp_path / "others").mkdir()
    for path in sorted((data / "labels").iterdir()):
        mask = images.read(path)
        values = mask.data.copy()
        values[0, 0, :3] += 1
        images.write(tmp_path / "others" / path.name, mask.with_data(values))
    lines = told("agreement.py", monkeypatch, capsys, tmp_path / "others", data / "labels")
    found = json.loads(lines[-1])
    assert found == {"masks": 2, "differ": 6, "voxels": 2 * values.size} and all(": 3 of " in line for line in lines[:-1])


def test_a_learning_curve_of_nested_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = decathlon(tmp_path / "data", 5), tmp_path / "curve"
    lines = told("learning_curve.py", monkeypatch, capsys, data, "--cases", "1,3", "--minutes", "0.001", "--out", out)
    found = json.loads(lines[-1])
    assert [(row["cases"], row["unseen"]) for row in found] == [(1, 1), (3, 1)] and all(0 <= row["dice"] <= 1 for row in found)
    assert (out / "curve.csv").read_text().splitlines()[0] == ",".join(found[0]) and (out / "curve.png").exists()
    records = [json.loads((out / f"{n}-cases-0.001-minutes-0/run.json").read_bytes()) for n in (1, 3)]
    one, three = (set(record["split"]["training"]) | set(record["split"]["kept_out"]) for record in records)
    unseen = {case.name for case in fold_out(find_cases(data))[1]}
    assert len(one) == 1 and len(three) == 3 and one < three and not three & unseen

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert told("learning_curve.py", monkeypatch, capsys, data, "--cases", "1,3", "--minutes", "0.001", "--out", out) == lines
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert "4 cases" in str(left("learning_curve.py", monkeypatch, data, "--cases", "5", "--out", out))

    lines = told("learning_curve.py", monkeypatch, capsys, data, "--cases", "1,2", "--minutes", "0.001", "--folds", "1,2", "--out", out)
    assert lines[0].split(" | ")[1:] == ["0.001 min", "0.001 min, 2 folds |"] and lines[2].endswith("|  |")  # a single case has no folds
    (row,) = (row for row in json.loads(lines[-1]) if row["training"].endswith("folds"))
    assert (row["cases"], row["trained"], row["unseen"]) == (2, 2, 1)


def test_monais_recipe_trains_on_the_same_cases_and_writes_masks_on_the_images_grids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = decathlon(tmp_path / "data", 4)
    found = json.loads(told("monai_recipe.py", monkeypatch, capsys, data, "--out", tmp_path, "--minutes", "0.001")[-1])
    assert (found["trained"], found["steps"], found["samples"]) == (3, 1, 8) and found["dice"]["mean"]["n"] == 1
    (case,) = fold_out(find_cases(data))[1]
    mask, image = images.read_labels(tmp_path / f"masks/{case.name}.nii.gz"), images.read(case.images[0])
    assert mask.shape == image.shape and (mask.affine == image.affine).all()


def test_a_benchmark_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--minutes", "0.001", "--seconds", "0.01", "--out", tmp_path / "runs", "--rivals")
    lines = told("benchmark.py", monkeypatch, capsys, "train", decathlon(tmp_path / "data", 4), *arguments)
    found = json.loads(lines[-1])
    ours = found["ours"]
    assert (found["trained"], found["unseen"]) == (3, 1) and "MONAI" not in found and lines[1].startswith("ours")
    assert 0 < ours["peak_share"] < 1 and ours["data_share"] > 0 and ours["steps"] >= 1 and "GFLOP/s" in lines[2]


def test_everyone_gives_the_same_labels_from_the_same_windows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--model", "phantoms", "--shape", "64,64,64", "--repeats", "1", "--no-mirror")
    lines = told("benchmark_windows.py", monkeypatch, capsys, *arguments)
    found = json.loads(lines[-1])
    assert found["foreground"] > 0.01 and found["runs"].keys() >= {"MONAI", "ours, torch"} and len(lines) == len(found["runs"]) + 2
    assert all(row["seconds"] > 0 and row["equal"] >= 0.999 for row in found["runs"].values())


def test_a_benchmark_of_one_slice_and_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, picture = tmp_path / MODEL, tmp_path / "memory.png"
    told("benchmark_model.py", monkeypatch, capsys, model, "--features", "4,8", "--patch", "32")
    assert weights.read_spec(model).network.features == (4, 8)
    found = json.loads(told("benchmark_slice.py", monkeypatch, capsys, model, "--size", "40", "--slices", "9", "--repeats", "2")[-1])
    assert "torch" in found and all(0 < row["seconds"] <= row["slowest"] for row in found.values())
    arguments = (model, "--size", "64", "--slices", "40", "--picture", picture)
    found = json.loads(told("benchmark_memory.py", monkeypatch, capsys, *arguments)[-1])
    assert found["slices"] == 40 and found["seconds"] > 0 and 0 <= found["peak_mb"] < 1500
    assert imread(picture).shape[1] > imread(picture).shape[0]


@pytest.mark.slow
def test_a_benchmark_of_segmenting_as_a_whole(tmp_path: Path) -> None:
    lines = run("benchmark.py", "predict", "--quick", "--repeats", 1, "--json", "--picture", tmp_path / "memory.png").splitlines()
    found = json.loads(lines[-1])
    assert list(found) == ["no-mirror", "mirror", "slice", "memory 200", "memory 1000", "command"] and all(found.values())
    assert any(line.startswith("ours") and "against MONAI" in line for line in lines) and (tmp_path / "memory.png").exists()
    assert found["command"].keys() >= {"predict", "help", "info"}


@pytest.mark.slow
def test_a_benchmark_against_others(tmp_path: Path) -> None:
    arguments = ("--minutes", "0.001", "--seconds", "0.01", "--out", tmp_path / "runs")
    lines = run("benchmark.py", "train", decathlon(tmp_path / "data", 4), *arguments).splitlines()
    found = json.loads(lines[-1])
    assert found["ours"]["dice"].keys() == found["MONAI"]["dice"].keys() and any(line.startswith("MONAI") for line in lines)
    assert "nnU-Net" in found or any("skipped, because nnunetv2 is not installed" in line for line in lines)
