"""What people install: the wheel, the wheel made from the source archive, and the editable checkout. No network needed."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import napari_unet

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "napari_unet"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Run in a fresh interpreter: find the manifest as napari does, import all it names, resolve each command it refers to.
VALIDATE = """
import sys
import napari_unet
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name

def walk(node):
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, (dict, list)):
            yield from walk(value)
        elif value is not None:
            yield key, value

where = sys.argv[1]
manifest = PluginManifest.from_file(where) if where.endswith("yaml") else PluginManifest.from_distribution(where)
fields = list(walk(manifest.model_dump(mode="json", include={"contributions", "on_activate", "on_deactivate"})))
for key, value in fields:
    if key in ("python_name", "on_activate", "on_deactivate"):
        assert callable(import_python_name(value)), value
commands = {command.id for command in manifest.contributions.commands}
unknown = {value for key, value in fields if key == "command"} - commands
assert not unknown, f"commands that nobody declares: {unknown}"
print(manifest.name, napari_unet.__file__)
"""


def run(*arguments: str | Path, cwd: Path, path: list[Path] | None = None) -> str:
    """Run this Python in `cwd`, with `path` before everything installed; what it printed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path or [])), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def assert_valid(where: str | Path, home: Path, cwd: Path, path: list[Path] | None = None) -> None:
    """npe2 finds and accepts the manifest, and it is the package in `home` that it led to."""
    name, file = run("-c", VALIDATE, where, cwd=cwd, path=path).split("\n")[-2].split(" ", 1)
    assert name == "napari-unet-monai"
    assert Path(file).resolve().is_relative_to(home.resolve())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel from the checkout; the source archive, unpacked; a wheel made from that."""
    direct, archive = tmp_path_factory.mktemp("direct"), tmp_path_factory.mktemp("archive")
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", direct, ROOT, cwd=direct)
    run("-m", "build", "--no-isolation", "--outdir", archive, ROOT, cwd=archive)
    with tarfile.open(next(archive.glob("*.tar.gz"))) as file:
        file.extractall(archive, filter="data")
    return {
        "wheel": next(direct.glob("*.whl")),
        "sdist": next(path for path in archive.iterdir() if path.is_dir()),
        "wheel from sdist": next(archive.glob("*.whl")),
    }


def install(wheel: Path, target: Path) -> Path:
    """Unpack a wheel as pip does."""
    pip = ("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(*pip, "--target", target, wheel, cwd=wheel.parent)
    return target


@pytest.mark.parametrize("kind", ["wheel", "wheel from sdist"])
def test_what_a_wheel_holds(built: dict[str, Path], kind: str) -> None:
    names = set(zipfile.ZipFile(built[kind]).namelist())
    files = {path for pattern in ("*.py", "*.css", "models/*") for path in PACKAGE.rglob(pattern) if path.is_file()}
    expected = {path.relative_to(PACKAGE.parent).as_posix() for path in files}
    assert expected | {"napari_unet/napari.yaml"} <= names
    assert {name.split("/")[0] for name in names} == {
        "napari_unet",
        f"napari_unet_monai-{napari_unet.__version__}.dist-info",
    }
    assert zipfile.ZipFile(built[kind]).read("napari_unet/napari.yaml") == (ROOT / "napari.yaml").read_bytes()


def test_a_wheel_tells_who_it_is(built: dict[str, Path]) -> None:
    file = zipfile.ZipFile(built["wheel"])
    info = f"napari_unet_monai-{napari_unet.__version__}.dist-info"
    metadata = message_from_string(file.read(f"{info}/METADATA").decode())
    assert metadata["Name"] == "napari-unet-monai"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert "Framework :: napari" in metadata.get_all("Classifier")
    assert f"{info}/licenses/LICENSE" in file.namelist()


@pytest.mark.parametrize("kind", ["wheel", "wheel from sdist"])
def test_an_installed_wheel_is_a_valid_plugin(built: dict[str, Path], kind: str, tmp_path: Path) -> None:
    target = install(built[kind], tmp_path / "site")
    assert_valid("napari-unet-monai", home=target, cwd=tmp_path, path=[target])


def test_an_editable_install_is_a_valid_plugin(built: dict[str, Path], tmp_path: Path) -> None:
    """In a copy of the checkout: the test leaves the checkout itself alone."""
    source = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"
    run("-c", source, tmp_path, cwd=built["sdist"])
    target = install(next(tmp_path.glob("*.whl")), tmp_path / "site")
    linked = [Path(line) for line in next(target.glob("*.pth")).read_text("utf-8").splitlines()]
    assert_valid("napari-unet-monai", home=built["sdist"], cwd=tmp_path, path=[target, *linked])


def test_the_checkout_is_a_valid_plugin(tmp_path: Path) -> None:
    assert_valid(ROOT / "napari.yaml", home=PACKAGE, cwd=tmp_path, path=[PACKAGE.parent])


def test_this_environment_has_the_plugin(tmp_path: Path) -> None:
    """Whatever way it was installed here."""
    assert_valid("napari-unet-monai", home=Path(napari_unet.__file__).parent, cwd=tmp_path)


def test_no_qt_binding_is_imposed() -> None:
    assert not [each for each in PROJECT["dependencies"] if re.match(r"(?i)pyqt|pyside|napari\[", each)]


def test_what_is_imported_is_declared() -> None:
    """Each library that the package imports stands in pyproject.toml, at least in an extra."""
    declared = [*PROJECT["dependencies"], *(row for rows in PROJECT["optional-dependencies"].values() for row in rows)]
    allowed = {canonical(re.split(r"[\[<>=!~;\s]", each)[0]) for each in declared}
    homes = importlib.metadata.packages_distributions()
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in top_level_imports(path) - sys.stdlib_module_names - {"napari_unet"}:
            distributions = {canonical(each) for each in homes.get(name, [name])}
            assert distributions & allowed, f"{path.relative_to(ROOT)} imports {name}: declare it in pyproject.toml"


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def top_level_imports(path: Path) -> set[str]:
    """The first part of every name that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names
