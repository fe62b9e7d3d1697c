"""How good masks are: Dice, surface Dice, Hausdorff distance and volumes, per case and class."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet import images, zarrs
from napari_unet.cases import list_images
from napari_unet.errors import UNetError
from napari_unet.files import write_bytes
from napari_unet.partial import UNLABELLED, labelled, mark
from napari_unet.schema import as_csv
from napari_unet.settings import ALL_LABELLED, LabelRule
from napari_unet.spec import Label
from napari_unet.suffixes import is_picture, stem
from napari_unet.targets import masks_among
from napari_unet.volume import Affine, Volume, check_same_grid
from napari_unet.words import counted, listed

SURFACE_TOLERANCE_MM = 1.0
ROUNDING = 1e-6  # mm: voxels that are 1 mm apart are so on a turned grid, too


@dataclass(frozen=True)
class Score:
    """One class of one case. Dice is None where neither mask has the class, ml of pictures, surface measures where nobody asked."""

    case: str
    label: int
    dice: float | None
    ml: float | None
    reference_ml: float | None
    surface_dice: float | None = None
    hausdorff95_mm: float | None = None


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float | None:
    """Twice the overlap over the sum of both (Dice 1945); None where both are empty."""
    both = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    return 2 * int(np.count_nonzero(prediction & reference)) / both if both else None


def score_case(
    case: str, prediction: Volume, reference: Volume, labels: Iterable[int] = (), *, surface: bool = False
) -> list[Score]:
    """A case's scores for `labels`, or for every class that occurs in either mask.

    Voxels that the reference leaves unlabelled count in neither mask, nor in the volumes; of such a case there are no
    surface measures, since the border of what is labelled would count as a surface.

    Raises UNetError where the masks do not lie on one grid.
    """
    check_same_grid(prediction, reference, "prediction", "label")
    known = labelled(reference.data)
    surface = surface and bool(known.all())
    found = prediction.data if known.all() else np.where(known, prediction.data, 0)
    flat = isinstance(reference.header, zarrs.Layout) and reference.header.flat
    picture = flat or is_picture(reference.source)
    chosen = list(labels) or sorted((set(np.unique(found)) | set(np.unique(reference.data))) - {0, UNLABELLED})
    scores = []
    for label in chosen:
        a, b = found == label, reference.data == label
        ml = (None, None) if picture else tuple(np.count_nonzero(mask) * reference.voxel_ml for mask in (a, b))
        extra = _surface(a, b, reference.affine) if surface else (None, None)
        scores.append(Score(case, int(label), dice(a, b), ml[0], ml[1], *extra))
    return scores


def _surface(a: NDArray[Any], b: NDArray[Any], affine: Affine) -> tuple[float | None, float | None]:
    """Surface Dice at 1 mm and the 95th percentile of surface distances in mm (Nikolov et al. 2018), also of a sheared grid.

    The surface is made of the voxels with a neighbour, across a face, outside the mask, as in MONAI, whose figures these are
    where axes are at right angles. Of a class that one mask lacks the surface Dice is 0, as its Dice is, and there is no distance.
    """
    if not (a.any() and b.any()):
        return 0.0 if a.any() or b.any() else None, None
    from scipy.spatial import cKDTree

    surfaces = [cKDTree(_edge(mask) @ affine[:3, :3].T) for mask in (a, b)]
    distances = [one.query(other.data)[0] for one, other in (surfaces, surfaces[::-1])]
    near = sum(int(np.count_nonzero(found <= SURFACE_TOLERANCE_MM + ROUNDING)) for found in distances)
    return near / sum(map(len, distances)), max(float(np.percentile(found, 95)) for found in distances)


def _edge(mask: NDArray[Any]) -> NDArray[np.intp]:
    """The voxels (n, 3) of a mask's surface; in a slice, of its outline."""
    from scipy import ndimage

    (box,) = ndimage.find_objects(mask.view(np.uint8))
    faces = ndimage.generate_binary_structure(mask.ndim, 1)
    for axis in [axis for axis, n in enumerate(mask.shape) if n == 1][:1]:
        faces &= np.arange(3).reshape([-1 if a == axis else 1 for a in range(mask.ndim)]) == 1
    inside = mask[box]
    surface: NDArray[np.intp] = np.argwhere(inside & ~ndimage.binary_erosion(inside, faces)) + [part.start for part in box]
    return surface


def evaluate(
    predictions: str | Path, labels: str | Path, *, surface: bool = False, rule: LabelRule = ALL_LABELLED, only_found: bool = False
) -> Iterator[list[Score]]:
    """The scores of each case: two files, or two folders paired by name. `rule` tells which voxels of labels nobody labelled.

    only_found : labels without a prediction, such as those of cases that a run has trained on, are passed over.

    Raises UNetError where a label has no prediction, where two files have one name, or a pair does not lie on one grid.
    """
    paired = pairs(predictions, labels, only_found)
    binary = _binary([path for _, *each in paired for path in each], rule)
    for name, prediction, label in paired:
        reference = mark(images.read_labels(label, rule.ignore, binary=binary), rule)
        yield score_case(name, images.read_labels(prediction, binary=binary), reference, surface=surface)


def _binary(paths: Iterable[Path], rule: LabelRule) -> bool:
    """Whether 255 stands for class 1 in those of the masks that are pictures: none has a class beside it, so it is decided for all."""
    found: set[int] = set()
    for path in filter(is_picture, paths):
        found |= (own := set(np.unique(images.read_labels(path, binary=False).data).tolist()))
        if {1, 255} <= own or not found <= {0, 1, 255, rule.ignore}:
            return False
    return True


def pairs(predictions: str | Path, labels: str | Path, only_found: bool = False) -> list[tuple[str, Path, Path]]:
    """The name, the prediction and the label of each case: two files, or two folders paired by name. Errors as `evaluate`'s.

    An uncertainty that `predict` wrote beside its mask is none of either.
    """
    references, found = _by_name(labels), _by_name(predictions)
    if _is_one(labels) and _is_one(predictions):
        found = dict.fromkeys(references, Path(predictions))
    missing = [path.name for name, path in references.items() if name not in found]
    some = len(missing) < len(references)
    if missing and not (only_found and some):
        raise UNetError(predictions, f"no prediction for {len(missing)} of {counted(len(references), 'label')}: {listed(missing, 5)}",
                        "Name predictions like their labels" + " (--only-found scores the others)" * some)  # fmt: skip
    return [(name, found[name], path) for name, path in references.items() if name in found]


def unpaired(predictions: str | Path, labels: str | Path) -> list[str]:
    """The files among the predictions that have no label, and so no score."""
    if _is_one(labels) or _is_one(predictions):
        return []
    references = _by_name(labels)
    return [path.name for name, path in _by_name(predictions).items() if name not in references]


def _is_one(source: str | Path) -> bool:
    return Path(source).is_file() or zarrs.is_zarr(Path(source))


def _by_name(source: str | Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in masks_among(list_images(source)):
        if path != found.setdefault(stem(path), path):
            raise UNetError(path, f"it has the name of {found[stem(path)].name}", "Keep one of them")
    return found


def summary(scores: list[Score]) -> dict[str, Any]:
    """Mean, spread, n and confidence interval (low, high) of Dice per class, and of the cases' means over classes ("mean")."""
    by_label = {str(label): [s.dice for s in scores if s.label == label] for label in sorted({s.label for s in scores})}
    by_label["mean"] = [value for value in by_case(scores).values() if not math.isnan(value)]
    table = {}
    for name, values in by_label.items():
        known = [v for v in values if v is not None]
        low, high = confidence(known) or (None, None)
        table[name] = {"dice": _mean(values), "spread": stdev(known) if len(known) > 1 else None, "n": len(known),
                       "low": low if low is None else max(0.0, low), "high": high if high is None else min(1.0, high)}  # fmt: skip
    return table


def by_case(scores: Iterable[Score]) -> dict[str, float]:
    """Each case's mean Dice over its classes; NaN where there was nothing to find and nothing was found."""
    found: dict[str, list[float]] = {}
    for score in scores:
        found.setdefault(score.case, []).extend([] if score.dice is None else [score.dice])
    return {case: fmean(values) if values else math.nan for case, values in found.items()}


def confidence(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of the mean over cases, by Student's t distribution; None for fewer than 2.

    The t distribution knows how little a few cases tell; a percentile bootstrap, which draws from those cases alone, gives
    an interval a third too narrow for 5 of them. It is about other cases of the same kind, not about other scanners, nor
    about what another training would give.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # the quantile; scipy.stats takes a second to import

    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def mean_dice(scores: list[Score], labels: Iterable[Label]) -> dict[str, float]:
    """The mean Dice of each class that has one, by its name, and "mean", for a card."""
    known = {str(label.value): label.name for label in labels}
    return {known.get(key, key): row["dice"] for key, row in summary(scores).items() if row["dice"] is not None}


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def write_scores(path: str | Path, scores: list[Score]) -> None:
    """One row per case and class, as CSV, atomically; an empty field where there is no value."""
    write_bytes(path, as_csv(Score, scores).encode("utf-8", "backslashreplace"))


def read_scores(path: str | Path) -> list[Score]:
    """The rows that `write_scores` wrote. Raises UNetError for anything else."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_score(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise UNetError(path, f"no scores can be read from it ({str(error)[:160]})", "Evaluate the masks again") from error


def _score(row: dict[str, str]) -> Score:
    measured = {f.name: None if row[f.name] == "" else float(row[f.name]) for f in fields(Score)[2:]}
    return Score(row["case"], int(row["label"]), **measured)
