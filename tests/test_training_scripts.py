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
from datasets import ONE_THREAD, _one_thread, decathlon  # noqa: F401 - a fixture

from napari_unet import find_cases, nifti, weights
from napari_unet.cli import main

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
        ("train.py", ["--data", "nothing", "--out", "run"]),
        ("predict.py", ["--model", "nothing", "--images", ".", "--out", "masks"]),
        ("evaluate.py", ["--masks", "nothing", "--labels", "."]),
        ("prepare_phantoms.py", ["file"]),
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


def test_trained_predicted_and_evaluated(tmp_path: Path) -> None:
    data = decathlon(tmp_path / "data", 2)
    told = json.loads(run("train.py", "--data", data, "--out", tmp_path / "run", "--steps", 2, "--seed", 3).splitlines()[-1])
    card = weights.read_card(tmp_path / "run" / MODEL)
    assert told["steps"] == card.steps == 2 and told["dice"] == card.dice and (tmp_path / "run/report.html").exists()

    run("predict.py", "--model", tmp_path / "run", "--images", data / "imagesTr", "--out", tmp_path / "masks")
    for mask in (tmp_path / "masks").iterdir():
        assert nifti.read_labels(mask).shape == nifti.read(data / "imagesTr" / mask.name).shape

    scores = run("evaluate.py", "--masks", tmp_path / "masks", "--labels", data / "labelsTr").splitlines()
    assert [line.split()[0] for line in scores[:2]] == ["a0", "a1"] and set(json.loads(scores[-1])) == {"1", "2", "mean"}

    # one loop behind all fronts: the same data, steps and seed give the same weights on the command line
    assert main(["train", str(data), "--out", str(tmp_path / "command"), "--steps", "2", "--seed", "3"]) == 0
    one, two = (weights.load(tmp_path / place / MODEL)[1] for place in ("run", "command"))
    assert all(one[key].tobytes() == two[key].tobytes() for key in one | two)
