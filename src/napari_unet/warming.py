"""torch and MONAI, loaded quickly, and so that a window stays free meanwhile."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path


def warm_up() -> None:
    """Load what segmenting needs, in any thread; at once where it is there."""
    with nullcontext() if "napari_unet.segment" in sys.modules else _kept():
        import napari_unet.segment  # noqa: F401


@contextmanager
def _kept() -> Iterator[None]:
    """What is loaded stays: Python does not look through it again and again for what could be let go.

    These half a million objects take a fifth of the time of loading them, and hold up all threads for a third of a second at a time.
    """
    if not gc.isenabled() or gc.get_freeze_count():  # somebody else has a say in it
        yield
        return
    gc.disable()
    try:
        _open_torch()
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # among the oldest, which are looked through when there are a quarter more of them
        gc.enable()


def _open_torch() -> None:
    """Let the system open torch's largest library: `import` would hold up all threads meanwhile, a foreign call does not.

    Not where torch is built for cards, and looks for its libraries in other places first; nor on Windows, which opens them otherwise.
    """
    torch = find_spec("torch")
    libraries = Path(torch.origin).parent / "lib" if torch and torch.origin else Path()
    if hasattr(os, "RTLD_NOW") and not any(libraries.glob("libtorch_cuda*")):
        for library in libraries.glob("libtorch_cpu.*"):
            opened = ctypes.CDLL(None).dlopen
            opened.restype, opened.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
            opened(os.fsencode(library), os.RTLD_NOW)  # where it cannot, importing torch says why
