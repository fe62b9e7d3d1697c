"""Pictures of a run: slices with the model's mask and the truth, and everything in one picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from napari_unet.charts import Points, running_mean, ticks
from napari_unet.evaluate import Score
from napari_unet.spec import ModelSpec, rgb
from napari_unet.volume import OPPOSITE, Reorientation, Volume

# Slices as radiologists hang them: what grows along (slices, rows, columns), by the axis along which the model cuts.
VIEWS = {"S": "IPL", "I": "IPL", "A": "AIL", "P": "AIL", "R": "RIP", "L": "RIP"}
NAMES = {"I": "axial", "A": "coronal", "R": "sagittal"}
ZOOM = 0.6  # a slice is shown whole where its structures take up more of its width or height
LARGE = 240  # voxels; of a larger one that would be shown whole a part is
EDGED = [withStroke(linewidth=1.6, foreground="black")]  # legible on any picture


@dataclass(frozen=True, eq=False)
class Slice:
    """The slice of a case in which mask and truth differ most: rows down, columns to the right.

    picture : (rows, columns), or (rows, columns, 3) in colour; pixel : its height and width, in mm or in pixels;
    letters : what lies above, below, left and right, empty for pictures.
    """

    picture: NDArray[np.float32]
    mask: NDArray[Any]
    truth: NDArray[Any]
    pixel: tuple[float, float]
    letters: str
    name: str

    @classmethod
    def of(cls, image: Volume, mask: Volume, truth: Volume, spec: ModelSpec) -> Slice:
        """Voxels whose truth is not known, having a value that is no class, do not count."""
        letters = "SRA" if spec.pictures else VIEWS.get(spec.orientation[0], "IPL")
        turn = Reorientation.between(image.affine, letters)
        picture, found, true = (turn.apply(volume.data) for volume in (image, mask, truth))
        classes = spec.values
        wrong = (found != true) & np.isin(true, [0, *classes])
        counts = (wrong if wrong.any() else np.isin(true, classes)).sum(axis=(1, 2))
        k = int(np.argmax(counts))
        height, width = (image.spacing[axis] for axis in turn.axes[1:])
        down, right = letters[1], letters[2]
        around = "" if spec.pictures else OPPOSITE[down] + down + OPPOSITE[right] + right
        name = "" if spec.pictures else f"{NAMES[letters[0]]} slice {k + 1} of {len(found)}"
        known = np.where(np.isin(true[k], classes), true[k], 0)
        return cls(_grey_or_colour(picture[k], spec.pictures), found[k], known, (height, width), around, name)

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top around the structures, a square, or all of the slice."""
        rows, columns = self.mask.shape
        whole = _square(0, columns * self.pixel[1], 0, rows * self.pixel[0])
        inside = np.argwhere((self.mask > 0) | (self.truth > 0))
        if not len(inside):
            return whole
        (top, left), (bottom, right) = inside.min(0) * self.pixel, (inside.max(0) + 1) * self.pixel
        room = max(0.3 * max(bottom - top, right - left), 12 * max(self.pixel))
        near = _square(left - room, right + room, top - room, bottom + room)
        if near[1] - near[0] < ZOOM * (whole[1] - whole[0]):
            return near
        return self._worst_part() if max(rows, columns) > LARGE and (self.mask != self.truth).any() else whole

    def _worst_part(self) -> tuple[float, float, float, float]:
        """Where most is wrong, of a slice whose structures are everywhere."""
        half = LARGE // 4
        wrong = uniform_filter((self.mask != self.truth).astype(np.float32), 2 * half, mode="constant")
        middle = np.array(np.unravel_index(int(wrong.argmax()), wrong.shape))
        middle = np.clip(middle, half, np.maximum(np.array(wrong.shape) - half, half))  # inside the slice
        (y, x), (height, width) = middle * self.pixel, half * np.array(self.pixel)
        return _square(x - width, x + width, y - height, y + height)


def _square(left: float, right: float, top: float, bottom: float) -> tuple[float, float, float, float]:
    """Rows count downwards."""
    half, x, y = max(right - left, bottom - top) / 2, (left + right) / 2, (top + bottom) / 2
    return x - half, x + half, y + half, y - half


def _grey_or_colour(picture: NDArray[Any], colours: bool) -> NDArray[np.float32]:
    """Grey values or colours, from 0 to 1: of several channels the first, unless they are a picture's colours."""
    picture = picture[..., 0] if picture.ndim == 3 and not (colours and picture.shape[2] == 3) else picture
    low, high = np.percentile(picture, (1, 99.5)) if picture.dtype != np.uint8 or picture.ndim == 2 else (0, 255)
    return np.clip((picture.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)


def draw_slice(axis: Axes, shown: Slice, spec: ModelSpec, *, masks: bool = True, whole: bool = False) -> None:
    """The slice, the model's mask filled, the truth as outlines, with directions and a scale bar."""
    rows, columns = shown.mask.shape
    height, width = shown.pixel
    extent = (0, columns * width, rows * height, 0)
    axis.imshow(shown.picture, cmap="gray", vmin=0, vmax=1, extent=extent)
    frame = shown.frame
    if masks:
        colours = ListedColormap([(0, 0, 0, 0), *[(*np.array(rgb(label.colour)) / 255, 0.4) for label in spec.labels]])
        axis.imshow(_index(shown.mask, spec.values), cmap=colours, vmin=0, vmax=len(spec.values), interpolation="nearest", extent=extent)
        x, y = (np.arange(columns + 2) - 0.5) * width, (np.arange(rows + 2) - 0.5) * height
        outlines = [(shown.truth == label.value, label.colour) for label in spec.labels]
        for inside, colour in sorted(outlines, key=lambda pair: -int(pair[0].sum())):  # the smallest on top: it may lie in another
            if inside.any():
                axis.contour(x, y, np.pad(inside, 1), [0.5], colors=[colour], linewidths=1.3)  # padded, so that it closes
    everything = _square(0, columns * width, 0, rows * height)
    left, right, bottom, top = everything if whole else frame
    if whole and frame != everything:
        axis.add_patch(Rectangle((frame[0], frame[3]), frame[1] - frame[0], frame[2] - frame[3], fill=False, ec="white", lw=0.8, alpha=0.7))
    axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor="black")
    for spine in axis.spines.values():
        spine.set_visible(False)
    _directions(axis, shown.letters)
    _scale_bar(axis, right - left, "mm" if shown.letters else "px")


def _directions(axis: Axes, letters: str) -> None:
    places = ((0.5, 0.97, "center", "top"), (0.5, 0.03, "center", "bottom"), (0.03, 0.5, "left", "center"), (0.97, 0.5, "right", "center"))
    for letter, (x, y, ha, va) in zip(letters, places, strict=False):
        axis.text(x, y, letter, transform=axis.transAxes, ha=ha, va=va, color="#ffd75e", fontsize=9,
                  path_effects=EDGED)  # fmt: skip


def _scale_bar(axis: Axes, width: float, unit: str) -> None:
    """A round length, about a quarter of the width."""
    length = ticks(0, width, 4)[1]
    share = length / width
    options: dict[str, Any] = {"transform": axis.transAxes, "color": "white", "path_effects": EDGED}
    axis.plot([0.05, 0.05 + share], [0.05, 0.05], linewidth=2, solid_capstyle="butt", **options)
    axis.text(0.05 + share / 2, 0.07, f"{length:g} {unit}", ha="center", va="bottom", fontsize=7, **options)


def _index(mask: NDArray[Any], values: Sequence[int]) -> NDArray[np.intp]:
    return np.sum([(mask == value) * (n + 1) for n, value in enumerate(values)], axis=0)  # type: ignore[no-any-return]


def overlay(shown: Slice, spec: ModelSpec) -> bytes:
    """The whole slice as it is, and its structures with both masks, side by side, as JPEG."""
    figure = Figure(figsize=(5.2, 2.58))
    plain, masked = figure.subplots(1, 2, gridspec_kw={"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0.02})
    draw_slice(plain, shown, spec, masks=False, whole=True)
    draw_slice(masked, shown, spec)
    return rendered(figure, "jpeg", pil_kwargs={"quality": 88, "subsampling": 0})


def overview(
    spec: ModelSpec, scores: list[Score], logs: Sequence[Mapping[str, Points]], slices: list[tuple[str, Slice]]
) -> Figure:
    """Curves, scores where there are any, and titled slices in one picture."""
    figure = Figure(figsize=(12, 4 + 3.4 * bool(slices)), layout="constrained")
    top, *bottom = figure.subfigures(2 if slices else 1, 1, squeeze=False)[:, 0]
    curves, *dots = top.subplots(1, 1 + bool(scores), squeeze=False)[0]
    for log in logs:
        _draw_curves(curves, log["loss"], log["dice"])
    for axis in dots:
        _draw_scores(axis, scores, spec)
    if slices:
        axes = bottom[0].subplots(1, len(slices), squeeze=False)[0]
        for axis, (title, shown) in zip(axes, slices, strict=True):
            draw_slice(axis, shown, spec)
            axis.set_aspect("equal")
            axis.set_title(title, fontsize=9, parse_math=False)
        bottom[0].suptitle("Worst and best cases, with their Dice: filled = model, outlined = truth", fontsize=10)
    return figure


def _draw_curves(axis: Axes, loss: Points, dice: Points) -> None:
    axis.set_title("Training")
    smoothed = len(loss) > 20
    if loss:
        axis.plot(*zip(*loss, strict=True), **({"color": "0.75", "linewidth": 0.8} if smoothed else {"color": "tab:blue"}))
    if smoothed:
        axis.plot(*zip(*running_mean(loss), strict=True), color="tab:blue", label="loss (smoothed)")
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    if dice:
        other = axis.twinx()
        other.plot(*zip(*dice, strict=True), "o-", color="tab:green", label="Dice, some kept-out cases")
        other.set_ylim(0, 1)
        other.set_ylabel("Dice")
        other.legend(loc="center right", fontsize=8)


def _draw_scores(axis: Axes, scores: list[Score], spec: ModelSpec) -> None:
    axis.set_title("Dice per case")
    axis.set_ylim(0, 1.02)
    random = np.random.default_rng(0)
    for n, label in enumerate(spec.labels):
        values = [s.dice for s in scores if s.label == label.value and s.dice is not None]
        if values:
            axis.plot(n + random.uniform(-0.15, 0.15, len(values)), values, "o", color=label.colour, markersize=4, alpha=0.6)
            axis.hlines(np.mean(values), n - 0.3, n + 0.3, color="black")
            axis.text(n + 0.32, float(np.mean(values)), f"{np.mean(values):.3f}", va="center", fontsize=9)
    many = len(spec.labels) > 8
    axis.set_xticks(range(len(spec.labels)), [label.name[: 12 if many else 30] for label in spec.labels], parse_math=False,
                    rotation=90 if many else 0, fontsize=7 if many else None)  # fmt: skip
    axis.set_xlim(-0.6, len(spec.labels) - 0.2)
    axis.grid(axis="y", color="0.9")


def rendered(figure: Figure, kind: str, **options: Any) -> bytes:
    """A figure as the bytes of a picture."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks some languages; the page has every name in full
        figure.savefig(buffer, format=kind, dpi=130 if kind == "jpeg" else 110, **options)
    return buffer.getvalue()
