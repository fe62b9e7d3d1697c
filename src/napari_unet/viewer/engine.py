"""The model in use, loaded once and kept: the next slice does not wait for the file again."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_unet import memory
from napari_unet.fingerprint import stamp
from napari_unet.spec import ModelSpec
from napari_unet.viewer.estimate import cost
from napari_unet.viewer.options import Options
from napari_unet.volume import Volume
from napari_unet.warming import warm_up

if TYPE_CHECKING:
    from napari_unet.segment import Segmenter


class Engine:
    """Loads models in the thread that asks, one at a time, and keeps the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: object = None
        self._segmenter: Segmenter | None = None
        self._paces: dict[tuple[Path, Options], float] = {}

    def segmenter(self, model: Path, options: Options) -> Segmenter:
        """The model, from memory where neither its file nor the options have changed. Raises UNetError."""
        warm_up()
        import torch

        from napari_unet.segment import Segmenter

        # OpenMP counts per thread, and each piece of work may come in another one
        torch.set_num_threads(options.threads or _all_threads())
        with self._lock:
            key = (model, stamp(model), options)  # loading tells where it is missing
            if self._segmenter is None or key != self._key:
                self._segmenter = None  # never two of them in memory
                loaded = Segmenter.load(
                    model, options.device, options.runtime, mirror=options.mirror, overlap=options.overlap,
                    uncertainty=options.uncertainty, precision=options.precision, background=True,
                )  # fmt: skip
                self._segmenter = loaded.with_windows(loaded.spec.patch, options.at_once or loaded.in_flight)
                self._key = key
            return self._segmenter

    def prime(self, model: Path, options: Options, spec: ModelSpec) -> None:
        """Load the model and run it on noise, one window of it and some, where its pace here is not known yet. Raises UNetError."""
        segmenter = self.segmenter(model, options)
        if self.pace(model, options) is not None:
            return
        z, y, x = spec.patch
        noise = np.random.default_rng(0).normal(size=(x, y, 2 * z, len(spec.channels))).astype(np.float32)
        affine = np.diag((*(size or 1.0 for size in spec.spacing[::-1]), 1.0))
        one, some = (Volume(data, affine, shape_on_disk=data.shape) for data in (noise[:, :, :z], noise))
        for volume in (one, some, some):  # a lone window may be run in another way; what is new allocates
            began = time.perf_counter()
            for _ in segmenter.stream(volume):
                pass
        self.learn(model, options, (time.perf_counter() - began) / cost(spec, some, options).voxels)

    @property
    def place(self) -> str:
        """Where the loaded model runs, and by what; "" before one is loaded."""
        if self._segmenter is None:
            return ""
        device = next(self._segmenter.network.parameters()).device
        return f"{str(device).upper()}, {type(self._segmenter.runtime).__name__.removesuffix('Runtime')}"

    @property
    def in_flight(self) -> int:
        """How many windows the loaded model has in memory at once."""
        return 1 if self._segmenter is None else self._segmenter.in_flight

    @property
    def feature_maps(self) -> float:
        """What one of them takes at work (see `Runtime`)."""
        return memory.FEATURE_MAPS if self._segmenter is None else self._segmenter.runtime.feature_maps

    def learn(self, model: Path, options: Options, seconds_per_voxel: float) -> None:
        """What a voxel of a window took."""
        self._paces[model, options] = seconds_per_voxel

    def pace(self, model: Path, options: Options) -> float | None:
        """Seconds per voxel of a window, as far as it is known."""
        return self._paces.get((model, options))


def _all_threads() -> int:
    """As many as torch takes by itself: OMP_NUM_THREADS, or the cores that this process may use."""
    import os

    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
