"""What is slow to load: in a process of its own, since it is loaded but once."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    """What a new Python says."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_other_threads_go_on_while_it_is_loaded() -> None:
    """A window's thread, which wants to do something every two milliseconds, is held up by no search for what could be let go."""
    said = run(
        "import gc, threading, time\n"
        "searches = []\n"
        "gc.callbacks.append(lambda phase, about: searches.append(about['generation']))\n"
        "from napari_unet.warming import warm_up\n"
        "at_work = threading.Thread(target=warm_up)\n"
        "at_work.start()\n"
        "ticks = 0\n"
        "while at_work.is_alive():\n"
        "    time.sleep(0.002); ticks += 1\n"
        "import sys\n"
        "print('torch' in sys.modules, 'monai' in sys.modules, ticks > 100, searches.count(2), gc.isenabled())"
    )
    assert said == "True True True 0 True"


def test_what_others_have_said_of_the_search_is_left_alone() -> None:
    assert run("import gc; gc.disable()\nfrom napari_unet.warming import warm_up\nwarm_up(); print(gc.isenabled())") == "False"
    said = run("import gc; gc.freeze()\nfrom napari_unet.warming import warm_up\n"
               "warm_up(); print(gc.get_freeze_count() > 0, gc.isenabled())")  # fmt: skip
    assert said == "True True"


def test_a_model_is_read_without_torch_s_compiler() -> None:
    """Which takes more than a second to load, and is of no use there."""
    said = run("import sys\nfrom napari_unet.segment import Segmenter\nSegmenter.load('hippocampus', runtime='torch')\n"
               "print('torch._dynamo' in sys.modules, 'sympy' in sys.modules)")  # fmt: skip
    assert said == "False False"
