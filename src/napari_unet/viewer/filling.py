"""A mask that fills, slice by slice, while a model works."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.notifications import show_info
from numpy.typing import NDArray

from napari_unet.measure import Tally
from napari_unet.spec import Label, ModelSpec
from napari_unet.viewer.answer import Answer, Before, History, put_aside
from napari_unet.viewer.grids import ScalarLayer, grid_of
from napari_unet.viewer.layers import has_size, new_image, new_labels
from napari_unet.viewer.screen import slice_on_screen, step_on_screen
from napari_unet.volume import voxel_ml
from napari_unet.words import counted

Of = tuple[str, str, int]
OF = "uncertainty of"  # in an uncertainty's metadata: the answer that it belongs to (see `Answer`)


class Filling:
    """A Labels layer in an image's place, which takes finished slices. It cannot be painted on until it is over.

    Parameters
    ----------
    viewer, image : where the layer goes, and the layer it belongs to.
    spec : the model, for its classes' values, names and colours.
    of : what the answer belongs to (see `Answer`).
    onto : a layer to go on with, in which hands' work stays; None makes a new one.
    uncertainty : fill a second layer with it.
    series : of the image's four axes, all are filled.
    name : of a new layer; "" is the image's with `_seg`.
    """

    def __init__(
        self, viewer: ViewerModel, image: ScalarLayer, spec: ModelSpec, of: Of = ("", "", 0), onto: Labels | None = None,
        uncertainty: bool = False, series: bool = False, name: str = "",
    ) -> None:  # fmt: skip
        self.viewer, self.over = viewer, False
        self.done = self.total = 0
        self.grid = grid_of(image, viewer.layers)
        self.doubt: Image | None = None
        self._tally: Tally | None = None  # of the mask, once it is whole
        self._undrawn: list[tuple[tuple[slice, ...], int]] = []  # regions and steps that were written since the last `redraw`
        if uncertainty:
            self.doubt = _doubt_layer(image, self.grid, series)
            self.doubt.metadata[OF] = of
            viewer.add_layer(self.doubt)
        self._anew = onto is None
        self._before: Before | None = None  # of a layer that was there before, from the first write on
        if onto is None:
            self.layer = empty_mask(image, self.grid, spec, of, series, name)
            viewer.add_layer(self.layer)
        else:
            self.layer = viewer.layers.selection.active = onto
        self.answer = Answer.of_layer(self.layer)
        self._mode = self.layer.mode
        self._history: History | None = put_aside(self.layer)
        self.layer.editable = False  # all of it is one step of the history, which strokes in between would break

    def here(self) -> bool:
        """Whether the layer is still in the viewer, and still of its shape."""
        return self.layer in self.viewer.layers and Answer.in_layer(self.layer) is self.answer

    def put(
        self, region: tuple[slice, ...], labels: NDArray[Any], done: int, total: int, doubt: NDArray[Any] | None = None, step: int = 0
    ) -> None:
        """Write labels at a region of the volume's own (i, j, k), of a series at a step."""
        if self.over:
            return
        shown = self.grid.shown_region(region, self.layer.ndim, step)
        self._write(shown, self.grid.shown(labels).reshape(self.answer.said[shown].shape))
        if self.doubt is not None and doubt is not None:
            self.doubt.data[shown] = self.grid.shown(doubt).reshape(self.answer.said[shown].shape)
        self.done, self.total = done, total
        self._undrawn.append((region, step))

    def in_sight(self) -> bool:
        """Whether anything that was written since the last `redraw` is on the screen. Asking costs more than writing did."""
        if not self._undrawn:
            return False
        step, screen = step_on_screen(self.viewer, self.layer), slice_on_screen(self.viewer, self.layer, self.grid)
        axis, index = screen or (0, 0)
        return any(
            at == (step if self.layer.ndim == 4 else at) and (screen is None or index in range(*region[axis].indices(index + 1)))
            for region, at in self._undrawn
        )

    def redraw(self) -> None:
        """Show what was written since; at the end in the list of layers, too."""
        self._undrawn.clear()
        for layer in (self.layer, self.doubt):
            if layer is not None and layer in self.viewer.layers:
                layer.refresh(extent=False, thumbnail=self.over, highlight=False)

    def settling(self, labels: NDArray[Any], step: int = 0) -> Iterator[None]:
        """Take a whole volume (i, j, k), of a series at a step, after the model's last touch: plane by plane, for the viewer's
        thread is free in between.
        """
        shown, series = self.grid.shown_region((slice(None),) * 3, self.layer.ndim, step), self.layer.ndim == 4
        whole = self.grid.shown(labels).reshape(self.answer.said[shown].shape)
        tally = Tally(whole.shape[series:])
        for n in range(whole.shape[series]):
            if self.over:
                return
            plane = (slice(n, n + 1), *(slice(0, size) for size in whole.shape[series + 1 :]))
            there = (shown[0], *plane) if series else plane
            self._write(there, whole[(slice(None), *plane) if series else plane])
            if not series:
                tally.add(plane, np.asarray(self.layer.data)[plane])
            yield
        self._undrawn.append(((slice(None),) * 3, step))
        self._tally = None if series else tally

    def completing(self, labels: NDArray[Any] | None = None) -> Iterator[None]:
        """All is there, with the whole volume that comes last, if any: plane by plane, too. `redraw` shows it."""
        if labels is not None:
            yield from self.settling(labels)
        if not self.over:
            yield from self._recording()
            self.answer.open = False
            self._end()

    def complete(self, labels: NDArray[Any] | None = None) -> None:
        """The same, without a pause."""
        deque(self.completing(labels), maxlen=0)

    def volumes(self) -> dict[int, float]:
        """Millilitres of each class, by its value; empty for pictures, whose pixels have no size, and for a series, which has many."""
        if not has_size(self.layer, self.grid) or self.layer.ndim == 4:
            return {}
        ml = voxel_ml(self.grid.affine)
        tally = self._tally or Tally.of(np.asarray(self.layer.data))
        return {value: count * ml for value, count in enumerate(tally.counts) if value and count}

    def stop(self) -> None:
        """Keep what is there; a mask that the run began says in its name that it is not all. `redraw` shows it."""
        if not self.over:
            if self._anew:
                self.layer.name = f"{self.layer.name} ({self.done} of {counted(self.total, 'slice') if self.total else '? slices'})"
                self.answer.open = False
            deque(self._recording(), maxlen=0)
            self._end()

    def discard(self) -> None:
        """Take away layers that nothing was written into: an empty mask would look like a finding."""
        for layer in (self.doubt, self.layer if self._anew else None):
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def _write(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        """Into the layer. What an older one held is kept only now: a run that ends before its first slice changes nothing."""
        if not self._anew and self._before is None:
            self.answer.forget_undone(self.layer)
            self._before = Before.of(self.answer, self.layer)
        if self._before is not None:
            self._before.keep(self.answer, self.layer, region)
        self.answer.write(self.layer, region, labels)

    def _end(self) -> None:
        """The layer is a hand's again: its history goes on where it was, and the brush is the one that was in use."""
        self.over = True
        if self._history is not None:
            self.answer.put_back(self.layer, self._history)
        self.layer.editable = True
        self.layer.mode = self._mode

    def _recording(self) -> Iterator[None]:
        """One step of its history, in a layer that was there before, is all that the run changed; where it is too much, say so.

        What came before is put back only afterwards: Ctrl+Z finds nothing while the layer is closed for painting. Where the run is
        no step, it is not put back at all: Undo would pass over the run, and take back what lies beneath it.
        """
        if self._before is not None:
            if too_many := (yield from self.answer.recording(self.layer, self._before)):
                self._history = None
                show_info(f"{self.layer.name}: {too_many:,} voxels have changed, too many for Undo to take them back, or what was before.")


def empty_mask(image: ScalarLayer, grid: Any, spec: ModelSpec, of: Of, series: bool = False, name: str = "") -> Labels:
    """A Labels layer for a model's answer, not yet in any viewer; of one volume, or of the image's whole series."""
    values = np.zeros(_mask_shape(image, series), spec.label_dtype)
    layer = new_labels(image, grid, values, name or f"{image.name}_seg", **appearance(spec.labels))
    Answer.begin(layer, of)
    return layer


def _mask_shape(image: ScalarLayer, series: bool) -> tuple[int, ...]:
    return tuple(image.data.shape[: image.ndim][-4 if series else -3 :])


def _doubt_layer(image: ScalarLayer, grid: Any, series: bool) -> Image:
    values = np.zeros(_mask_shape(image, series), np.float32)
    return new_image(
        image, grid, values, f"{image.name}_uncertainty", colormap="magma", contrast_limits=(0, 1), blending="additive", visible=False
    )


def answer_layer(viewer: ViewerModel, of: Of, unfinished: bool = False) -> Labels | None:
    """The layer with this model's answer for this image; `unfinished`: that was begun slice by slice.

    Of several the one that is selected, else the topmost that is no duplicate of another: a copy is kept as it is.
    """
    active = getattr(viewer.layers.selection.active, "unique_id", None)
    topmost_first = list(reversed(viewer.layers))
    for layer in sorted(topmost_first, key=lambda layer: (layer.unique_id != active, layer.source.parent is not None)):
        if isinstance(layer, Labels) and (answer := Answer.in_layer(layer)) and answer.of == of:
            if answer.open or not unfinished:
                return layer
    return None


def appearance(labels: Iterable[Label]) -> dict[str, Any]:
    """A Labels layer's options that give classes their colours, and their names in the status bar."""
    classes = list(labels)
    colours: dict[int | None, str] = {label.value: label.colour for label in classes}
    return {
        "colormap": DirectLabelColormap(color_dict={**colours, 0: "transparent", None: "white"}),
        "features": {"index": [0, *colours], "class": ["background", *(label.name for label in classes)]},
    }
