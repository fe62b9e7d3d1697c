"""What every test may ask for: the public data sets, and a display."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

HAS_DISPLAY = not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY"))
if not HAS_DISPLAY:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # without it Qt aborts the whole run at the first widget

settings.register_profile("shared", deadline=None)  # machines are shared: how long an example takes says nothing
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what opens a napari window where no window can be opened."""
    if HAS_DISPLAY and os.environ.get("QT_QPA_PLATFORM") != "offscreen":
        return
    for item in items:
        if item.get_closest_marker("gui"):
            item.add_marker(pytest.mark.skip(reason="no display: run it with xvfb-run, as `make test` does"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data sets; where there is none, the test is skipped."""
    folder = os.environ.get("NAPARI_UNET_DATA")
    if not folder:
        pytest.skip("NAPARI_UNET_DATA is not set: it names the folder of public data sets that this test reads")
    return Path(folder)
