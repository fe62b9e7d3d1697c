"""What a model has said in a Labels layer, so that a hand's work is told from its own and stays."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

KEY = "answer"
EVERY = -1  # instead of a step: all volumes of a series
Region = tuple[slice, ...]
MAX_UNDO = 10_000_000  # voxels; napari's history keeps three 64-bit numbers of each


@dataclass
class Step:
    """One undoable writing: where, which voxels it changed, what they were, and what the model had said before."""

    region: Region
    changed: NDArray[np.bool_]
    before: NDArray[Any]
    said: NDArray[Any]
    filled: NDArray[np.bool_]


@dataclass(frozen=True)
class Before:
    """What a layer held before a run, and what the model had said of it."""

    values: NDArray[Any]
    said: NDArray[Any]
    filled: NDArray[np.bool_]


@dataclass
class Answer:
    """A model's words in a layer, in the layer's own axes.

    Attributes
    ----------
    said : what it said last, per voxel; where the layer holds something else, a hand has been.
    filled : where it has said anything yet.
    of : (model's file, layer's id, step of a series or `EVERY`): what the answer belongs to.
    open : whether slices may still be added by looking at them; False once a whole volume was written.
    """

    said: NDArray[Any]
    filled: NDArray[np.bool_]
    of: tuple[str, str, int]
    open: bool = True
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def empty(cls, values: NDArray[Any], of: tuple[str, str, int]) -> Answer:
        """Nothing said yet; the layer's first values count as nobody's."""
        return cls(values.copy(), np.zeros(values.shape, bool), of)

    @classmethod
    def in_layer(cls, layer: Any) -> Answer | None:
        """The one that a layer carries, where it still fits."""
        answer = layer.metadata.get(KEY)
        return answer if isinstance(answer, Answer) and answer.said.shape == layer.data.shape else None

    @classmethod
    def of_layer(cls, layer: Any) -> Answer:
        """The one of a layer that is known to carry one."""
        answer: Answer = layer.metadata[KEY]
        return answer

    def write(self, layer: Labels, region: Region, labels: NDArray[Any]) -> None:
        """Put labels into a region of the layer, past its history, but never over a hand's work."""
        seen, said = np.asarray(layer.data)[region], self.said[region]
        np.copyto(seen, labels, where=seen == said, casting="unsafe")
        said[...] = labels
        self.filled[region] = True

    def write_undoable(self, layer: Labels, region: Region, labels: NDArray[Any]) -> None:
        """The same as one step of the layer's own history."""
        self.forget_undone(layer)
        seen, said = np.asarray(layer.data)[region], self.said[region]
        changed = (seen == said) & (seen != labels)
        step = Step(region, changed, seen[changed].copy(), said.copy(), self.filled[region].copy())
        said[...] = labels
        self.filled[region] = True
        self.record(layer, step, np.asarray(labels)[changed])

    def record(self, layer: Labels, step: Step, values: NDArray[Any]) -> None:
        """Change a step's voxels through the layer's history, and remember how to notice that it is undone."""
        if step.changed.any():
            starts = [part.indices(size)[0] for part, size in zip(step.region, layer.data.shape, strict=True)]
            where = tuple(axis + start for axis, start in zip(np.nonzero(step.changed), starts, strict=True))
            layer.data_setitem(where, values)
            self.steps.append(step)

    def before(self, layer: Labels) -> Before:
        """A copy of what is there."""
        return Before(np.array(layer.data), self.said.copy(), self.filled.copy())

    def recording(self, layer: Labels, before: Before) -> Generator[None, None, int]:
        """Make all that was written since `before` one step of the layer's history, plane by plane: the viewer's thread is free between.

        Returns 0, or how many voxels have changed where they are more than MAX_UNDO: these are not recorded.
        """
        changed, old = np.zeros(before.values.shape, bool), []
        planes = list(np.ndindex(changed.shape[:-2]))
        for plane in planes:
            np.not_equal(layer.data[plane], before.values[plane], out=changed[plane])
            yield
        count = int(np.count_nonzero(changed))
        if count > MAX_UNDO:
            return count
        if count:
            with layer.block_history():
                for plane in planes:
                    old.append(before.values[plane][changed[plane]])
                    _through_history(layer, plane, changed[plane], old[-1])
                    yield
            everywhere = tuple(slice(0, size) for size in changed.shape)
            self.steps.append(Step(everywhere, changed, np.concatenate(old), before.said, before.filled))
        return 0

    def forget_undone(self, layer: Labels) -> None:
        """Take back the words whose step was undone, so that they may be said again."""
        while self.steps:
            step = self.steps[-1]
            if not np.array_equal(np.asarray(layer.data)[step.region][step.changed], step.before):
                return
            self.said[step.region], self.filled[step.region] = step.said, step.filled
            self.steps.pop()

    def painted(self, layer: Labels) -> NDArray[np.bool_]:
        """Where a hand has been, in the layer's axes."""
        return np.asarray(np.asarray(layer.data) != self.said)


def _through_history(layer: Labels, plane: tuple[int, ...], changed: NDArray[np.bool_], old: NDArray[Any]) -> None:
    """Let a plane's voxels change from `old` to what they are now once more, this time where the layer can take it back."""
    seen = layer.data[plane]
    new = seen[changed]
    seen[changed] = old
    rest = np.nonzero(changed)
    layer.data_setitem((*(np.full(len(new), n) for n in plane), *rest), new, refresh=False)


def revert(layer: Labels) -> int:
    """Back to what the model said, as one step that Ctrl+Z takes back; how many voxels that changes."""
    answer = Answer.in_layer(layer)
    if answer is None:
        return 0
    answer.forget_undone(layer)
    where = np.nonzero(answer.painted(layer))
    layer.data_setitem(where, answer.said[where])
    return len(where[0])
