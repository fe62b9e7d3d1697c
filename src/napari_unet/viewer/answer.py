"""What a model has said in a Labels layer, so that a hand's work is told from its own and stays."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_unet.viewer.layers import change, indices

KEY = "answer"
EVERY = -1  # instead of a step: all volumes of a series
Region = tuple[slice, ...]
History = tuple[deque[list[Any]], deque[list[Any]]]  # napari's undo and redo
MAX_UNDO = 10_000_000  # voxels; napari's history keeps three 64-bit numbers of each


@dataclass(eq=False)
class Step:
    """One undoable writing: where, and what the model had said there before; whether it was undone.

    atom : what napari's history holds of it, in whichever of its two queues; in_stroke : it has not got there yet, but is a
    part of a brush stroke that was not over.
    """

    region: Region
    said: NDArray[Any]
    filled: NDArray[np.bool_]
    hand: NDArray[np.bool_]
    atom: Any = None
    in_stroke: bool = False
    undone: bool = False


@dataclass(frozen=True)
class Before:
    """What a layer held before a run, and what the model had said of it: copied region by region, as the run comes to each.

    To copy all of a large mask at once would hold the viewer's thread up.
    """

    values: NDArray[Any]
    said: NDArray[Any]
    filled: NDArray[np.bool_]
    hand: NDArray[np.bool_]
    kept: NDArray[np.bool_]

    @classmethod
    def of(cls, answer: Answer, layer: Labels) -> Before:
        """Nothing yet."""
        now = (layer.data, answer.said, answer.filled, answer.hand)
        return cls(*(np.empty(layer.data.shape, each.dtype) for each in now), np.zeros(layer.data.shape, bool))

    def keep(self, answer: Answer, layer: Labels, region: Any) -> None:
        """A region as it is now, but for what was kept of it already."""
        new = ~self.kept[region]
        pairs = ((self.values, layer.data), (self.said, answer.said), (self.filled, answer.filled), (self.hand, answer.hand))
        for kept, now in pairs:
            np.copyto(kept[region], now[region], where=new)
        self.kept[region] = True


@dataclass(eq=False)
class Answer:
    """A model's words in a layer, in the layer's own axes.

    Attributes
    ----------
    said : what it said last, per voxel; where the layer holds something else, a hand has been.
    hand : where a hand had been when the model said something: it stays the hand's though the two agree by now.
    filled : where it has said anything yet.
    of : (model's file, image layers, step of a series or `EVERY`): what the answer belongs to.
    layer : the id of the layer that carries it.
    open : whether slices may still be added by looking at them; False once a whole volume was written.
    """

    said: NDArray[Any]
    filled: NDArray[np.bool_]
    hand: NDArray[np.bool_]
    of: tuple[str, str, int]
    layer: str
    open: bool = True
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def begin(cls, layer: Labels, of: tuple[str, str, int]) -> Answer:
        """Nothing said yet; the layer's first values count as nobody's."""
        nothing = np.zeros(layer.data.shape, bool)
        return cls(np.array(layer.data), nothing, nothing.copy(), of, str(layer.unique_id))._carried_by(layer)

    @classmethod
    def in_layer(cls, layer: Any) -> Answer | None:
        """The one that a layer carries, where it still fits; a duplicate of a layer gets one of its own."""
        answer = layer.metadata.get(KEY)
        if not isinstance(answer, Answer) or answer.said.shape != layer.data.shape:
            return None
        if answer.layer != str(layer.unique_id):
            copies = (array.copy() for array in (answer.said, answer.filled, answer.hand))
            answer = cls(*copies, answer.of, str(layer.unique_id), answer.open)._carried_by(layer)
        return answer

    @classmethod
    def of_layer(cls, layer: Any) -> Answer:
        """The one of a layer that is known to carry one."""
        answer: Answer = layer.metadata[KEY]
        return answer

    def _carried_by(self, layer: Labels) -> Answer:
        layer.metadata[KEY] = self
        for name in ("set_data", "reload"):  # which tell of every undo and redo, too
            getattr(layer.events, name).connect(self._changed)
        return self

    def _changed(self, event: Any) -> None:
        self._look(event.source)

    def _look(self, layer: Labels) -> None:
        """Which steps are undone at the moment. Once napari has forgotten a step, it stays as it was."""
        for step in self.steps:
            if _holds(layer._redo_history, step.atom):
                step.undone, step.in_stroke = True, False
            elif _holds(layer._undo_history, step.atom):
                step.undone = step.in_stroke = False
            elif step.in_stroke and not _holds([layer._staged_history], step.atom):  # the stroke was called off
                step.undone = True

    def write(self, layer: Labels, region: Region, labels: NDArray[Any]) -> None:
        """Put labels into a region of the layer, past its history, but never over a hand's work."""
        self.forget_undone(layer)
        seen, said = np.asarray(layer.data)[region], self.said[region]
        np.copyto(seen, labels, where=~self._by_hand(layer, region), casting="unsafe")
        said[...] = labels
        self.filled[region] = True

    def write_undoable(self, layer: Labels, region: Region, labels: NDArray[Any]) -> None:
        """The same as one step of the layer's own history."""
        self.forget_undone(layer)
        seen, said = np.asarray(layer.data)[region], self.said[region]
        before = self.hand[region].copy()
        changed = ~self._by_hand(layer, region) & (seen != labels)
        step = Step(region, said.copy(), self.filled[region].copy(), before)
        said[...] = labels
        self.filled[region] = True
        self.record(layer, step, changed, np.asarray(labels)[changed])

    def touched(self, layer: Labels, region: Region) -> bool:
        """Whether a hand has been in a region."""
        return bool(self.hand[region].any() or (np.asarray(layer.data)[region] != self.said[region]).any())

    def _by_hand(self, layer: Labels, region: Region) -> NDArray[np.bool_]:
        hand = self.hand[region]
        hand |= np.asarray(layer.data)[region] != self.said[region]
        return hand

    def record(self, layer: Labels, step: Step, changed: NDArray[np.bool_], values: NDArray[Any]) -> None:
        """Change some voxels of a step's region through the layer's history, and remember how to notice that it is undone."""
        if changed.any():
            starts = [part.indices(size)[0] for part, size in zip(step.region, layer.data.shape, strict=True)]
            where = tuple(axis + start for axis, start in zip(indices(changed), starts, strict=True))
            change(layer, where, values)
            self._remember(layer, step)

    def _remember(self, layer: Labels, step: Step) -> None:
        step.in_stroke = layer._block_history
        step.atom = (layer._staged_history if step.in_stroke else layer._undo_history[-1])[-1]
        self.steps.append(step)

    def recording(self, layer: Labels, before: Before) -> Generator[None, None, int]:
        """Make all that was written since `before` one step of the layer's history, plane by plane: the viewer's thread is free between.

        Returns 0, or how many voxels have changed where they are more than MAX_UNDO: these are not recorded.
        """
        changed = np.zeros(before.values.shape, bool)
        planes = list(np.ndindex(changed.shape[:-2]))
        for plane in planes:
            before.keep(self, layer, plane)
            np.not_equal(layer.data[plane], before.values[plane], out=changed[plane])
            yield
        count = int(np.count_nonzero(changed))
        if count > MAX_UNDO:
            return count
        if count:
            with layer.block_history():
                for plane in planes:
                    _through_history(layer, plane, changed[plane], before.values[plane][changed[plane]])
                    yield
            everywhere = tuple(slice(0, size) for size in changed.shape)
            self._remember(layer, Step(everywhere, before.said, before.filled, before.hand))
        return 0

    def forget_undone(self, layer: Labels) -> None:
        """Take back the words whose step was undone, so that they may be said again."""
        self._look(layer)
        while self.steps and self.steps[-1].undone:
            step = self.steps.pop()
            self.said[step.region], self.filled[step.region], self.hand[step.region] = step.said, step.filled, step.hand

    def put_back(self, layer: Labels, history: History) -> None:
        """What was put aside of a layer's history, before what has come since: of both the newest, up to MAX_UNDO voxels.

        Nothing is forgotten where nothing has come since.
        """
        since = list(layer._undo_history)
        if not since:
            layer._undo_history, layer._redo_history = history
            return
        room, older = MAX_UNDO - sum(map(_voxels, since)), deque[list[Any]]()
        for item in reversed(history[0]):
            room -= _voxels(item)
            if room < 0:
                break
            older.appendleft(item)
        layer._undo_history = deque([*older, *since], maxlen=layer._history_limit)
        self.steps = [step for step in self.steps if step.undone or _holds(layer._undo_history, step.atom)]

    def painted(self, layer: Labels) -> NDArray[np.bool_]:
        """Where a hand has been, in the layer's axes."""
        return np.asarray(np.asarray(layer.data) != self.said)


def put_aside(layer: Labels) -> History:
    """A layer's undo and redo, which to close it for painting empties. A stroke that is not over counts as far as it has come."""
    layer._commit_stroke()
    return layer._undo_history, layer._redo_history


def _voxels(item: list[Any]) -> int:
    """How many an item of napari's history changes; the old values come last but one in both of its kinds of atoms."""
    return sum(int(np.size(atom[-2])) for atom in item)


def _holds(queue: Iterable[list[Any]], atom: Any) -> bool:
    """Whether one of napari's queues holds a step's atom: undo and redo make new lists of the same ones."""
    return any(each is atom for item in queue for each in item)


def _through_history(layer: Labels, plane: tuple[int, ...], changed: NDArray[np.bool_], old: NDArray[Any]) -> None:
    """Let a plane's voxels change from `old` to what they are now once more, this time where the layer can take it back."""
    seen = layer.data[plane]
    new = seen[changed]
    seen[changed] = old
    rest = np.nonzero(changed)
    change(layer, (*(np.full(len(new), n) for n in plane), *rest), new, refresh=False)


def revert(layer: Labels) -> int:
    """Back to what the model said, as one step that Ctrl+Z takes back; how many voxels that changes."""
    answer = Answer.in_layer(layer)
    if answer is None:
        return 0
    answer.forget_undone(layer)
    where = indices(answer.painted(layer))
    change(layer, where, answer.said[where])
    answer.hand[...] = False
    return len(where[0])
