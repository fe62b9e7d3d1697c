"""The house rules, held by reading the sources: imports go one way, the engine knows no viewer, nothing executes files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

import napari_unet

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "napari_unet"
TIERS = (
    {
        *("__init__", "errors", "files", "foreign", "header", "intensities", "lazy", "ngff", "packed", "pictures", "schema", "spec"),
        *("card", "checkpoint", "progress", "ram", "running", "settings", "suffixes", "volume", "windows", "words"),
    },
    {
        *("augment", "budget", "calibration", "cases", "cells", "checks", "components", "distributed", "downloads", "ensemble", "events"),
        *("blending", "blocks", "case_folders", "description", "extents", "fingerprint", "keeping", "naming", "orders"),
        *("finetune", "layout", "learning", "loss", "lowering", "measure", "network", "nifti", "openvino_runtime", "optimiser"),
        *("dataset", "grid", "images", "openvino_graph", "options", "partial", "splits", "threads"),
        *("phantoms", "preprocess", "quiet_openvino", "record", "cuda_graph", "runtime", "sampling", "schedule", "spacing", "speed"),
        *("nnunet", "nnunet_network", "nnunet_plans", "nonzero", "resizing", "decisions", "normalisation"),
        *("ledger", "memory", "outline", "spool", "structures", "survey", "targets", "torch_runtime", "weights", "zarrs"),
    },
    {
        *("assist", "batch", "calibrate", "canvas", "crossval", "evaluate", "onnx_export", "plan", "pooling", "scoring", "segment"),
        *("train", "warming"),
    },
    {"charts", "comparison", "cost", "experiment", "figures", "page", "report", "results"},
    {"__main__", "cli", "viewer"},
)
TIER = {room: number for number, rooms in enumerate(TIERS) for room in rooms}
VIEWER_LIBRARIES = {"napari", "qtpy", "magicgui", "superqt", "PyQt5", "PyQt6", "PySide2", "PySide6", "vispy"}
SOURCES = {path.relative_to(PACKAGE): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
TRAINING = {path.relative_to(ROOT): ast.parse(path.read_text("utf-8")) for path in sorted(ROOT.glob("training/*.py"))}


def module_name(path: Path) -> str:
    """`viewer/layers.py` -> `viewer.layers`; a package goes by its folder, the top one by `__init__`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): tree for path, tree in SOURCES.items()}


def room(module: str) -> str:
    """`viewer.layers` -> `viewer`."""
    return module.split(".")[0]


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, also inside functions: `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import; write the whole name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def own_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and module of our own that is imported, by the longest name that is a module."""
    for line, name in imports(tree):
        if name.split(".")[0] != "napari_unet":
            continue
        inside = name.split(".")[1:]
        inside = [napari_unet._HOME.get(inside[0], inside[0]), *inside[1:]] if inside else []
        names = (".".join(inside[:length]) for length in range(len(inside), 0, -1))
        yield line, next((each for each in names if each in MODULES), "__init__")


def complaints(rows: Iterator[str] | list[str]) -> None:
    """Fail with all rows at once."""
    rows = list(rows)
    assert not rows, "\n" + "\n".join(rows)


def test_every_module_has_a_tier() -> None:
    complaints(
        f"src/napari_unet/{name} has no tier: add it to TIERS in {Path(__file__).name} and to ARCHITECTURE.md"
        for name in sorted({room(module) for module in MODULES} - TIER.keys())
    )


def test_imports_go_one_way() -> None:
    complaints(
        f"{module}, line {line}: imports {other}, which is of a higher tier"
        for module, tree in MODULES.items()
        for line, other in own_imports(tree)
        if TIER.get(room(other), 0) > TIER.get(room(module), len(TIERS))
    )


def test_no_circle_of_imports() -> None:
    graph = {module: {other for _, other in own_imports(tree)} - {module} for module, tree in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_engine_knows_no_viewer() -> None:
    complaints(
        f"{module}, line {line}: the engine imports {name}"
        for module, tree in MODULES.items()
        if room(module) != "viewer"
        for line, name in imports(tree)
        if name.split(".")[0] in VIEWER_LIBRARIES
    )


def test_the_command_line_imports_the_viewer_in_a_function_only() -> None:
    trees = {module: tree for module, tree in MODULES.items() if room(module) == "cli"}
    assert trees
    for module, tree in trees.items():
        inside = {line for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for line, _ in imports(node)}
        complaints(
            f"{module}, line {line}: imports {name} at the top"
            for line, name in imports(tree)
            if name.startswith("napari_unet.viewer") and line not in inside
        )


def test_nothing_prints_but_what_the_terminal_says() -> None:
    """The engine prints nothing; the command line has one place that writes."""
    complaints(
        f"{module}, line {node.lineno}: print"
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


def test_training_decides_and_the_package_does() -> None:
    """The scripts define no class and use public names only."""
    for path, tree in TRAINING.items():
        complaints(f"{path}: class {node.name}" for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
        complaints(
            f"{path}, line {line}: {name} is private"
            for line, name in imports(tree)
            if name.startswith("napari_unet.") and any(part.startswith("_") for part in name.split("."))
        )


# ---- nothing that executes what a file says ---------------------------------------------------------------------------

BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "monai.bundle"}
BANNED_CALLS = {"eval", "exec", "os.system", "os.popen", "torch.jit.load", "torch.load"}
BANNED_NAMES = {"PersistentDataset", "extractall"}


def dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    """The full dotted name of an expression, whatever it was imported as; empty where it is not a name."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, aliases)}.{node.attr}"
    return ""


def aliases_of(tree: ast.AST) -> dict[str, str]:
    """Local name -> full name: `import torch as t`, `from torch import load`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def bad_call(call: ast.Call, name: str) -> bool:
    """Whether a call may execute what it is given."""
    keywords = {each.arg: each.value for each in call.keywords}
    false = {arg for arg, value in keywords.items() if isinstance(value, ast.Constant) and value.value is False}
    *owner, last = name.split(".")
    return (
        name in BANNED_CALLS
        or (owner[-1:] == ["yaml"] and "load" in last and not last.startswith("safe_"))
        or (last == "open" and bool(owner) and owner[-1].endswith("viewer"))
        or ("allow_pickle" in keywords and "allow_pickle" not in false)
        or ("shell" in keywords and "shell" not in false)
    )


def bans(tree: ast.AST) -> Iterator[str]:
    """Everything in a source that would let a file, or a string, execute code."""
    aliases = aliases_of(tree)
    for line, name in imports(tree):
        if any(name == banned or name.startswith(banned + ".") for banned in BANNED_MODULES):
            yield f"line {line}: imports {name}"
        if name.split(".")[-1] in BANNED_NAMES:
            yield f"line {line}: imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (
            node.attr in BANNED_NAMES or dotted(node, aliases).startswith("monai.bundle")
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and bad_call(node, dotted(node.func, aliases)):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def test_nothing_executes_what_a_file_says() -> None:
    complaints(
        f"{path}, {ban}"
        for path, tree in [*SOURCES.items(), *TRAINING.items()]
        for ban in bans(tree)
    )


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import torch as t\nt.load(path)",
        "from torch import load as get\nget(path)",
        "import torch\ntorch.jit.load(path)",
        "from torch import jit\njit.load(path)",
        "import pickle",
        "def f():\n    from pickle import loads",
        "eval(text)",
        "exec(text)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=trusted)",
        "import monai.bundle",
        "from monai import bundle",
        "import monai\nmonai.bundle.ConfigParser()",
        "from monai.data import PersistentDataset",
        "from monai import data\ndata.PersistentDataset(cases)",
        "archive.extractall(folder)",
        "viewer.open(path)",
        "self._viewer.open(path, plugin='napari-unet-monai')",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "import os\nos.system(command)",
    ],
)
def test_the_ban_catches(source: str) -> None:
    assert list(bans(ast.parse(source)))


def test_the_ban_lets_pass() -> None:
    harmless = "network.eval()\nyaml.safe_load(text)\npath.open()\nnp.load(path, allow_pickle=False)\njson.load(file)"
    assert not list(bans(ast.parse(harmless)))


# ---- what is loaded when ----------------------------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after this code."""
    report = "\nimport sys; print('\\n' + ' '.join(name for name in sys.modules if '.' not in name))"
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def test_import_is_light() -> None:
    assert not loaded_by("import napari_unet; dir(napari_unet)") & {"torch", "monai", "napari", "qtpy", "numpy"}


def test_help_is_light() -> None:
    code = "import sys; sys.argv = ['napari-unet', '--help']\nfrom napari_unet.cli import main\n"
    assert not loaded_by(code + "try: main()\nexcept SystemExit: pass") & {"torch", "monai", "napari", "qtpy"}


def test_info_is_light() -> None:
    """What a model says of itself is read without numpy, and without what looks at processes and memory."""
    code = "from napari_unet.cli import main\nassert main(['info', 'phantoms']) == 0"
    assert not loaded_by(code) & {"torch", "monai", "napari", "qtpy", "numpy", "psutil"}


def test_discovery_is_light() -> None:
    """All modules that the manifest names can be imported before torch and MONAI are needed."""
    commands = yaml.safe_load((ROOT / "napari.yaml").read_text("utf-8"))["contributions"]["commands"]
    modules = {command["python_name"].split(":")[0] for command in commands if "python_name" in command}
    assert not loaded_by("\n".join(f"import {module}" for module in sorted(modules))) & {"torch", "monai"}


# ---- the map ----------------------------------------------------------------------------------------------------------


def architecture() -> str:
    """The page's text."""
    page = ROOT / "ARCHITECTURE.md"
    if not page.exists():
        pytest.skip("ARCHITECTURE.md is missing")
    return page.read_text("utf-8")


def modules_in(rooms: str) -> list[Path]:
    """The modules of an indented list of rooms, each by its way from the package's folder."""
    folders, found = {4: Path()}, []
    for indent, name in re.findall(r"^( +)([\w/]+(?:\.py|/))", rooms, re.MULTILINE):
        place = folders[len(indent)] / name
        if name.endswith("/"):
            folders[len(indent) + 4] = place
        else:
            found.append(place)
    return found


def test_the_map_shows_the_house() -> None:
    """The room list of ARCHITECTURE.md names every module once, in its folder, and no other."""
    rooms = re.search(r"^src/napari_unet/.*\n((?:[ \t].*\n|\n)*)", architecture(), re.MULTILINE)
    assert rooms, "ARCHITECTURE.md has no room list: a line `src/napari_unet/`, the modules indented below it"
    named = Counter(modules_in(rooms[1]))
    complaints(
        [f"ARCHITECTURE.md names {path}, which is not there" for path in sorted(named.keys() - SOURCES.keys())]
        + [f"ARCHITECTURE.md does not name {path}" for path in sorted(SOURCES.keys() - named.keys())]
        + [f"ARCHITECTURE.md names {path} {count} times" for path, count in named.items() if count > 1]
    )


def test_the_map_is_read_by_folders() -> None:
    rooms = "    a.py    what b.py is not\n    cli/    the line\n        a.py\n    models/   weights\n    c.py  more\n"
    assert modules_in(rooms) == [Path("a.py"), Path("cli/a.py"), Path("c.py")]


def test_the_tiers_are_those_of_the_map() -> None:
    """The paragraph of ARCHITECTURE.md, from the lowest to the highest, without what only Python asks for."""
    paragraph = re.search(r"^## Imports go one way\n\n(.+?)\.\n", architecture(), re.MULTILINE | re.DOTALL)
    assert paragraph, "ARCHITECTURE.md has no paragraph below `## Imports go one way`"
    told = [set(re.findall(r"[\w/]+", tier)) - {"training/"} for tier in paragraph[1].split("<-")]
    held = [{name for name in tier if not name.startswith("__")} for tier in TIERS]
    complaints(
        f"tier {number}: {name} is only in {'ARCHITECTURE.md' if name in page else 'TIERS'}"
        for number, (page, tiers) in enumerate(zip(told, held, strict=True))
        for name in sorted(page ^ tiers)
    )
