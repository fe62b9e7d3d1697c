"""A model scored on labelled cases, through the very path that users' volumes take."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from napari_unet import files, images
from napari_unet.dataset import Case, read_image, read_label
from napari_unet.evaluate import Score, score_case
from napari_unet.layout import mask_file
from napari_unet.progress import Progress
from napari_unet.segment import Segmenter
from napari_unet.volume import Volume


def segment_and_score(segmenter: Segmenter, case: Case) -> tuple[Volume, list[Score], float]:
    """A model's mask of a labelled case, the scores of all its classes, and the seconds that the mask took."""
    image = read_image(case)
    began = time.monotonic()
    mask = segmenter.segment(image)
    seconds = time.monotonic() - began
    return mask, score_case(case.name, mask, read_label(case, image), segmenter.spec.values), seconds


def score_all(
    segmenter: Segmenter, cases: Sequence[Case], at: Progress, masks: Path | None = None
) -> Generator[Progress, None, list[Score]]:
    """The scores of all cases, each told of first: `at` is how far the run is, and what else is said. Masks are kept where asked."""
    scores: list[Score] = []
    for n, case in enumerate(cases, 1):
        yield replace(at, message=f"scoring {case.name} ({n} of {len(cases)}){at.message}")
        mask, found, _ = segment_and_score(segmenter, case)
        if masks is not None:
            images.write(mask_file(files.make_folder(masks).parent, case.name, masks.name), mask)
        scores += found
    return scores
