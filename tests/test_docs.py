"""What the pages in docs/ say of shapes is what the code says; nothing they show is missing."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from datasets import decathlon

from napari_unet import NetworkSpec

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WALK = [(name.split(",")[0], shape, features) for name, shape, features in NetworkSpec.classic().walk((128, 128))]
FILLED_LATER = {"skip_connections", "learning_curve"}  # by scripts in training/, between marks


def rows(page: str) -> list[list[str]]:
    """The cells of every table row of a page."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    return [row for row in found if not set("".join(row)) <= set("-: ")]


def test_the_page_of_the_unet_says_what_the_walk_says() -> None:
    page = (DOCS / "unet.md").read_text("utf-8")
    steps = [row for row in rows(page) if row[0] in {name for name, _, _ in WALK}]
    assert [(row[0], tuple(int(n) for n in row[2].split("×")), int(row[3])) for row in steps] == WALK


def test_the_words_of_the_page_say_so_too() -> None:
    page = " ".join((DOCS / "unet.md").read_text("utf-8").split())
    spec, (_, bottom, most) = NetworkSpec.classic(), next(row for row in WALK if row[0] == "bottleneck")
    assert f"{', '.join(map(str, spec.features[:-1]))} and, at the bottleneck, {most} on a grid of {bottom[0]} × {bottom[1]}" in page
    assert f"stands for {spec.total_stride[0]} × {spec.total_stride[1]} pixels" in page
    assert spec.down == "maxpool" and len(spec.features) - 1 == 3 and "Three max-poolings" in page
    assert f"({2 * spec.features[0]} = {spec.features[0]} + {spec.features[0]} features at decoder 1)" in page


def test_the_drawing_is_the_one_that_its_script_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["draw_unet.py", str(tmp_path / "unet.svg")])
    runpy.run_path(str(ROOT / "tools/draw_unet.py"), run_name="__main__")
    drawn = (tmp_path / "unet.svg").read_text("utf-8")
    assert drawn == (DOCS / "images/unet.svg").read_text("utf-8"), "run: python tools/draw_unet.py docs/images/unet.svg"
    words = [element.text or "" for element in ElementTree.fromstring(drawn).iter() if element.tag.endswith("text")]
    assert {name for name, _, _ in WALK if name != "input"} <= {word.split(":")[0] for word in words}
    for name, shape, features in WALK[1:-1]:
        assert str(features) in words, name
        assert any(f"{shape[0]} × {shape[1]}" in word for word in words), name


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    waiting = {f"images/{name}.png" for name in FILLED_LATER if "Not run yet." in text}
    assert not [link for link in links if not (page.parent / link).exists() and link not in waiting]


@pytest.mark.parametrize("name", sorted(FILLED_LATER))
def test_a_page_has_the_marks_that_its_script_fills(name: str) -> None:
    (page,) = [page for page in DOCS.glob("*.md") if f"<!-- {name}: table -->\n" in page.read_text("utf-8")]
    text = page.read_text("utf-8")
    assert text.count(f"<!-- {name}: ") == 2 and text.index(f"<!-- {name}: table -->") < text.index(f"<!-- {name}: end -->")
    assert f"training/{name}.py" in text and f"--page docs/{page.name}" in text


def test_the_page_of_python_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so few steps instead of minutes, of a model that reads what there is."""
    monkeypatch.chdir(tmp_path)
    data = decathlon(tmp_path / "data", 3)
    for part, name in (("imagesTr", "scan"), ("labelsTr", "label")):
        shutil.copy(data / part / "a0.nii.gz", f"{name}.nii.gz")
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text("utf-8"), re.DOTALL)
    code = re.sub(r"minutes=\d+", "steps=3", "\n".join(blocks))
    assert len(blocks) == 3 and "minutes" not in code
    exec(compile(code, "python.md", "exec"), {"__name__": "page"})  # noqa: S102 - it is ours
    assert {"run", "tuned", "mask.nii.gz"} <= {path.name for path in tmp_path.iterdir()}
