"""How a model runs in the viewer: the person's preferences, and what was changed under Advanced."""

from __future__ import annotations

from dataclasses import dataclass

from napari.settings import get_plugin_settings

PLUGIN = "napari-unet-monai"


@dataclass(frozen=True)
class Options:
    """How a model runs; None follows the model.

    threads : of the processor, 0 for all; largest : keep what the model says of largest components; at_once : windows in
        memory, None for as many as the runtime takes.
    """

    device: str = "auto"
    runtime: str = "auto"
    threads: int = 0
    mirror: bool | None = None
    overlap: float | None = None
    uncertainty: bool = False
    largest: bool = True
    precision: str = "float32"
    at_once: int | None = None

    @classmethod
    def preferred(cls) -> Options:
        """The person's preferences (Preferences > napari-unet-monai)."""
        running = get_plugin_settings(PLUGIN).running
        return cls(device=str(running.device), runtime=str(running.runtime), threads=int(running.threads))
