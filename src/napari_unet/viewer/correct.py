"""Correcting a mask: what takes a hand long is one button, and one Ctrl+Z takes it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtWidgets import QComboBox, QGridLayout, QPushButton, QWidget

from napari_unet.components import keep_largest
from napari_unet.errors import UNetError
from napari_unet.viewer import editing, screen, worker
from napari_unet.viewer.answer import Answer, revert
from napari_unet.viewer.checking import Checked
from napari_unet.viewer.layers import is_at_hand, is_in_memory, values_of
from napari_unet.viewer.parts import button, heading, narrow, text
from napari_unet.viewer.table import names_of
from napari_unet.words import counted

LISTED = 100  # classes, of a mask that names none
# labels, value, axis, index -> the region that changes, what it becomes, and where that is in words
Correction: TypeAlias = Callable[..., tuple[tuple[Any, ...], NDArray[Any], str]]


class Asked(NamedTuple):
    """A correction of a class of a mask, or of the volume `part` of a series, with the slice on the screen."""

    layer: Labels
    data: NDArray[Any]
    verb: str
    work: Correction
    value: int
    part: tuple[Any, ...]
    axis: int | None
    index: int

    def find(self, copied: bool) -> tuple[Asked, editing.Difference, str]:
        """For any thread: what changes, and where. What is looked through as a whole is copied: a hand may go on with it."""
        labels = np.array(self.data[self.part]) if copied else np.asarray(self.data)[self.part]
        region, new, where = self.work(labels, self.value, self.axis, self.index)
        return self, editing.difference(labels[region], new, (*self.part, *region)), where


class CorrectTab(QWidget):
    """Buttons for the selected class of a mask; `show_layer` tells which mask."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Labels | None = None
        self._at_work = self._unlisted = False
        self._checked = Checked(self, viewer)
        self.classes = narrow(QComboBox())
        self.classes.setToolTip("The class that is painted and corrected")
        self.classes.activated.connect(self._choose)
        self.state = text("")
        self._buttons = {
            "interpolate": button("Interpolate  I", "Continue the class between two painted slices", self.interpolate),
            "holes": button("Fill holes  H", "Fill what the class encloses in the slice on the screen", self.fill_holes),
            "largest": button("Largest only", "Keep the class's largest connected part", self.keep_largest),
            "before": button("◀ Class", "The previous slice with this class (Shift+N)", self.previous),
            "next": button("Class ▶", "The next slice with this class (N)", self.following),
            "check": button("Check next  U", "The most uncertain slice that was not looked at", self.check_next),
            "undo": button("Undo", "Take the last step back (Ctrl+Z)", self.undo),
            "revert": button("Revert", "Back to the model's mask; Undo brings your corrections back", self.revert),
        }
        grid = QGridLayout(self)
        grid.setContentsMargins(4, 4, 4, 4)
        grid.addWidget(heading("Class", self.classes), 0, 0)
        grid.addWidget(self.classes, 0, 1)
        for number, pair in enumerate((("interpolate", "holes"), ("largest", "check"), ("before", "next"), ("undo", "revert")), 1):
            for column, name in enumerate(pair):
                grid.addWidget(self._buttons[name], number, column)
        grid.addWidget(self.state, 5, 0, 1, 2)
        grid.addWidget(text("Paint with napari's brush (P), erase (E), fill (F). A run never changes what you painted."), 6, 0, 1, 2)
        grid.setRowStretch(7, 1)
        self.show_layer(None)

    def keys(self) -> dict[str, Callable[[], None]]:
        """What the viewer's keys do here."""
        return {
            "I": self.interpolate, "H": self.fill_holes, "U": self.check_next, "N": self.following, "Shift-N": self.previous,
        }  # fmt: skip

    def button(self, name: str) -> QPushButton:
        """One of the buttons."""
        return self._buttons[name]

    def show_layer(self, layer: Labels | None) -> None:
        """The mask that is corrected from now on."""
        if layer is not None and layer is self._layer:
            return self.refresh()  # its classes are listed already
        if self._layer is not None:
            self._layer.events.selected_label.disconnect(self._show_class)
            self._layer.events.features.disconnect(self._list_classes)
        self._layer = self._checked.layer = layer
        if layer is not None:
            layer.events.selected_label.connect(self._show_class)
            layer.events.features.connect(self._list_classes)
        self._list_classes()
        self.refresh()

    def refresh(self) -> None:
        """Allow what can be done."""
        layer = self._layer
        for name, each in self._buttons.items():
            busy = self._at_work and name in ("interpolate", "holes", "largest")
            flat = layer is not None and layer.ndim < 3 and name in ("interpolate", "before", "next")
            each.setEnabled(layer is not None and _can_be_corrected(layer) and not busy and not flat)
            if name == "revert" and layer is not None:
                each.setEnabled(layer.editable and Answer.in_layer(layer) is not None)
            if name == "check":
                each.setEnabled(self._checked.doubt() is not None)

    # ---- what the buttons do ------------------------------------------------------------------------------------------

    def interpolate(self) -> None:
        """Between two painted slices, in the direction of the slider."""

        def work(labels: NDArray[Any], value: int, axis: int, index: int) -> tuple[tuple[Any, ...], NDArray[Any], str]:
            low, high = editing.gap(labels, value, axis, index)
            part = (*(slice(None),) * axis, slice(low, high + 1))
            return part, editing.interpolate(labels[part], value, axis, index - low)[0], f"slices {low + 1} to {high - 1}"

        self._edit("Interpolated", work, needs_slices=True)

    def fill_holes(self) -> None:
        """In the slice on the screen; in 3-D, all of them."""

        def work(labels: NDArray[Any], value: int, axis: int | None, index: int) -> tuple[tuple[Any, ...], NDArray[Any], str]:
            here = () if axis is None else ((slice(None),) * axis + (index,))
            return here, editing.fill_holes(labels[here], value), "whole class" if axis is None else f"slice {index}"

        self._edit("Filled", work)

    def keep_largest(self) -> None:
        """Of the whole class."""
        self._edit("Removed the smaller parts", lambda labels, value, *_: ((), keep_largest(labels, [value]), "whole class"), whole=True)

    def undo(self) -> None:
        """napari's own history."""
        if self._layer is not None:
            self._layer.undo()

    def revert(self) -> None:
        """Take back all corrections, as one step."""
        if self._layer is not None and self._layer.editable:
            self.state.setText(f"Reverted: {counted(revert(self._layer), 'voxel')}.")

    def following(self) -> None:
        """The next slice with the class."""
        self._go(1)

    def previous(self) -> None:
        """The previous slice with the class."""
        self._go(-1)

    def check_next(self) -> None:
        """The slice with the most uncertainty, of those not looked at in this direction."""
        if (found := self._checked.next()) is not None:
            index, more = found
            seen_all = "You have looked at every slice that has uncertainty."
            self.state.setText(seen_all if index is None else f"Slice {index}; {more} more with uncertainty.")

    # ---- how ----------------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        if self._layer is not None and self.classes.currentData():
            self._layer.selected_label = self.classes.currentData()

    def _list_classes(self, event: object = None) -> None:
        """Those that the mask names; where it names none, those that it holds, as soon as somebody looks."""
        self.classes.clear()
        self._unlisted = False
        if (layer := self._layer) is not None:
            names = names_of(layer)
            for value, name in names.items():
                if value:
                    self.classes.addItem(name, value)
            self._show_class()
            self._unlisted = not names and is_in_memory(layer)
            if self.isVisible():
                self._look_for_classes()

    def showEvent(self, event: Any) -> None:
        """Somebody looks."""
        super().showEvent(event)
        self._look_for_classes()

    def _look_for_classes(self) -> None:
        if self._unlisted and self._layer is not None:
            self._unlisted = False
            worker.in_thread(_classes_in, self._layer.data, _connect={"returned": self._add_classes, "errored": worker.show})

    def _add_classes(self, found: tuple[NDArray[Any], set[int]]) -> None:
        if self._layer is not None and self._layer.data is found[0] and not names_of(self._layer):
            listed = {self.classes.itemData(n) for n in range(self.classes.count())}
            self.classes.clear()
            for value in sorted(listed | found[1]):
                self.classes.addItem(f"class {value}", value)
            self._show_class()

    def _show_class(self, event: object = None) -> None:
        """The class that is painted; one that is new is listed from now on."""
        if self._layer is not None:
            value = int(self._layer.selected_label)
            if value and self.classes.findData(value) < 0:
                self.classes.addItem(f"class {value}", value)
            self.classes.setCurrentIndex(self.classes.findData(value))

    def _edit(self, verb: str, work: Correction, needs_slices: bool = False, whole: bool = False) -> None:
        """Let `work` change a mask, or the volume of a series on the screen; what looks through all of it does so in a thread."""
        layer = self._layer
        if layer is None or layer not in self._viewer.layers or not _can_be_corrected(layer) or self._at_work:
            return
        value, axis = int(layer.selected_label), screen.hidden_axis(self._viewer, layer)
        if needs_slices and axis is None:
            why = "A picture has no other slices." if layer.ndim < 3 else "Show slices (2-D) to interpolate between them."
            return self.state.setText(why)
        if axis is not None and not screen.is_on_screen(self._viewer, layer):
            return self.state.setText("The slice on the screen lies outside the mask.")
        index = 0 if axis is None else screen.slice_index(self._viewer, layer, axis)
        part = screen.volume_on_screen(self._viewer, layer)
        asked = Asked(layer, layer.data, verb, work, value, part, None if axis is None else axis - len(part), index)
        if whole or axis is None:
            self._at_work = True
            self.refresh()
            self.state.setText("Looking through the mask…")
            worker.in_thread(asked.find, True, _connect={"returned": self._corrected, "errored": self._not_corrected})
            return
        try:
            self._apply(*asked.find(copied=False))
        except UNetError as error:
            worker.show(error)

    def _apply(self, asked: Asked, found: editing.Difference, where: str) -> None:
        """What a hand has done meanwhile stays; where the mask is another by now, or a run fills it, nothing is done."""
        layer, value = asked.layer, asked.value
        if layer not in self._viewer.layers or not layer.editable or layer.data is not asked.data:
            return self.state.setText("")
        changed = editing.apply(layer, found)
        self.state.setText(f"{asked.verb}: {names_of(layer).get(value, f'class {value}')}, {where}, {counted(changed, 'voxel')}.")

    def _corrected(self, found: tuple[Asked, editing.Difference, str]) -> None:
        self._at_work = False
        self._apply(*found)
        self.refresh()

    def _not_corrected(self, error: Exception) -> None:
        self._at_work = False
        worker.show(error)
        self.state.setText("")
        self.refresh()

    def _go(self, step: int) -> None:
        layer = self._layer
        axis = None if layer is None else screen.hidden_axis(self._viewer, layer)
        if layer is None or axis is None or layer not in self._viewer.layers or not _can_be_corrected(layer):
            return
        part = screen.volume_on_screen(self._viewer, layer)
        here = screen.slice_index(self._viewer, layer, axis)
        slices = editing.slices_with(np.asarray(values_of(layer))[part], int(layer.selected_label), axis - len(part))
        ahead = slices[slices > here] if step > 0 else slices[slices < here][::-1]
        if len(ahead):
            screen.show_slice(self._viewer, layer, axis, int(ahead[0]))
            self.state.setText("")
        else:
            self.state.setText(f"No {'further' if step > 0 else 'earlier'} slice holds this class.")


def _can_be_corrected(layer: Labels) -> bool:
    """Not while a run fills it, nor where its values lie elsewhere; of more axes than a series has, nothing tells what is on the screen."""
    return bool(layer.editable) and is_at_hand(layer) and layer.ndim <= 4


def _classes_in(values: NDArray[Any]) -> tuple[NDArray[Any], set[int]]:
    """A mask, and which values it holds but 0, as many as are listed."""
    found: set[int] = set()
    for plane in values:
        found.update(np.unique(plane).tolist())
        if len(found) > LISTED:
            break
    return values, set(sorted(found - {0})[:LISTED])
