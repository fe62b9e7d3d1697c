"""How a model may be run, by name, for whoever offers the choice: without torch, which knows what is there.

Of devices and runtimes `auto` takes the fastest that there is.
"""

from __future__ import annotations

DEVICES = ("cpu", "cuda", "mps")  # of several cards one may be named, too, as in cuda:1
RUNTIMES = ("torch", "openvino")
PRECISIONS = ("float32", "int8")
