"""What is asked of a model: an image layer, a model, and how to run it; and the generators that do it in a worker."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray

from napari_unet.viewer.answer import EVERY
from napari_unet.viewer.engine import Engine
from napari_unet.viewer.fit import takes_one_of_a_series
from napari_unet.viewer.grids import ScalarLayer, grid_of
from napari_unet.viewer.layers import channels_of, is_at_hand, is_picture, values_of, volume_of
from napari_unet.viewer.model import Model
from napari_unet.viewer.options import Options
from napari_unet.viewer.sameness import place_of, sum_of
from napari_unet.viewer.screen import step_on_screen
from napari_unet.volume import Reorientation, Volume, check_same_grid

if TYPE_CHECKING:
    from napari_unet.preprocess import Prepared
    from napari_unet.segment import Piece, Segmenter



def never() -> bool:
    """Whether whoever asked wants no more."""
    return False


@dataclass
class Kept:
    """What was made of an image for one slice, for the next one: the segmenter and the voxels that it holds for."""

    of: tuple[Any, ...]
    step: int | None
    affine: NDArray[np.float64]
    sums: list[tuple[float, int]]  # of the layers' values
    volume: Volume
    prepared: Prepared


@dataclass(frozen=True, eq=False)
class Part:
    """Something of the volume at a step of a series: a finished slice, or at the volume's end its whole mask (i, j, k), clean."""

    step: int
    found: Piece | NDArray[Any]


@dataclass(frozen=True)
class Work:
    """One image for one model.

    more : the layers of the model's other channels, where they do not lie in the image's own layer.
    step : which volume of a series; None where the layer is taken whole.
    series : all volumes of it are wanted in one mask, that one first.
    others : the layers that tell the grid of one that was painted from nothing.
    kept : of the last of its slices.
    """

    engine: Engine
    model: Model
    options: Options
    image: ScalarLayer
    others: tuple[Any, ...]
    step: int | None
    more: tuple[ScalarLayer, ...] = ()
    series: bool = False
    kept: list[Kept] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def on_screen(
        cls, engine: Engine, model: Model, options: Options, viewer: ViewerModel, image: ScalarLayer,
        more: tuple[ScalarLayer, ...] = (), series: bool = False,
    ) -> Work:  # fmt: skip
        """What the widget shows; of a series, the volume that the canvas shows, or with `series` that one and all others."""
        others = tuple(layer for layer in viewer.layers if layer is not image)
        step = step_on_screen(viewer, image) if takes_one_of_a_series(model.spec, image) else None
        return cls(engine, model, options, image, others, step, more, series and step is not None)

    @property
    def of(self) -> tuple[str, str, int]:
        """What its answer belongs to (see `Answer`)."""
        layers = " ".join(f"{layer.unique_id} {place_of(layer)}" for layer in (self.image, *self.more))
        return str(self.model.path), layers, EVERY if self.series else self.step or 0

    @property
    def name(self) -> str:
        """That of its mask."""
        return f"{self.image.name}_seg" if self.step is None or self.series else f"{self.image.name}_t{self.step}_seg"

    @property
    def steps(self) -> list[int | None]:
        """The volumes that are wanted: from the one on the screen outwards."""
        here = self.step
        if not self.series or here is None:
            return [here]
        return sorted(range(channels_of(self.image)), key=lambda step: abs(step - here))

    def read(self) -> Volume:
        """All channels. Raises UNetError where they do not lie on one grid."""
        first = self.outline()
        first = first.with_data(np.asarray(first.data))
        if not self.more:
            return first
        channels = [first, *(volume_of(layer, self.others, self.model.spec.pictures) for layer in self.more)]
        for channel in channels[1:]:
            check_same_grid(channel, first, "channel", "first channel")
        return first.with_data(np.stack([channel.data for channel in channels], -1))

    def outline(self) -> Volume:
        """The image alone: a view, so that nothing is copied or read in the viewer's thread."""
        volume = volume_of(self.image, self.others, self.model.spec.pictures, lazy=True)
        return volume if self.step is None else volume.channel(self.step)

    def reaches(self, where: tuple[int, int] | None) -> bool:
        """Whether the model can answer for the slice (axis, index) alone; a 2-D one sees slices along one axis only.

        None is a picture, or all of a volume in 3-D.
        """
        if where is None:
            return is_picture(self.image)
        spec = self.model.spec
        return spec.network.dims == 3 or Reorientation.between(self.outline().affine, spec.orientation).axes[0] == where[0]

    def whole(self, first: tuple[int, int] | None, stopped: Callable[[], bool] = never) -> Generator[Piece, None, NDArray[Any]]:
        """For a worker: yields finished slices, `first` first, and returns the whole mask (i, j, k) when it is clean.

        Where it is `stopped`, in the midst of a slice, too, it returns what there is.
        """
        segmenter, volume = self.engine.segmenter(self.model.path, self.options), self.read()
        labels = np.zeros(volume.shape, self.model.spec.label_dtype)
        with closing(segmenter.stream(volume, first, stopped=stopped)) as pieces:
            for piece in pieces:
                labels[piece.region] = piece.labels
                yield piece
        return segmenter.clean(labels) if self.options.largest and not stopped() else labels

    def parts(self, first: tuple[int, int] | None, stopped: Callable[[], bool] = never) -> Generator[Part, None, None]:
        """For a worker: the same for each volume, whose whole mask follows its slices."""
        for step in self.steps:
            with closing(replace(self, step=step).whole(first, stopped)) as pieces:
                while True:
                    try:
                        yield Part(step or 0, next(pieces))
                    except StopIteration as end:
                        if stopped():
                            return
                        yield Part(step or 0, end.value)
                        break

    def slices(
        self, first: tuple[int, int] | None, count: int, stopped: Callable[[], bool] = never
    ) -> Generator[Piece, None, None]:
        """For a worker: the slice `first`, then its neighbours outwards, `count` in all."""
        segmenter = self.engine.segmenter(self.model.path, self.options)
        volume, prepared = self._prepared(segmenter)
        with closing(segmenter.stream(volume, first, count, prepared, stopped)) as pieces:
            yield from pieces

    def _prepared(self, segmenter: Segmenter) -> tuple[Volume, Prepared]:
        """The image as the model sees it, which takes a look at all of its voxels: made anew where any of it is another."""
        from napari_unet.preprocess import prepare

        layers = (self.image, *self.more)
        of, affine = (segmenter, *(layer.data for layer in layers)), grid_of(self.image, self.others).affine
        sums = [sum_of(values_of(layer), self.step) for layer in layers if is_at_hand(layer)]  # other values may be written in place
        known = self.kept[0] if self.kept and (self.kept[0].step, self.kept[0].sums) == (self.step, sums) else None
        if known is None or any(a is not b for a, b in zip(known.of, of, strict=True)) or not np.array_equal(known.affine, affine):
            volume = self.read()
            self.kept[:] = [Kept(of, self.step, affine, sums, volume, prepare(volume, segmenter.spec))]
        return self.kept[0].volume, self.kept[0].prepared
