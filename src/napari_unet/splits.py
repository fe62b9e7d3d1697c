"""Which cases a model learns from, and which are kept out to score it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from napari_unet.errors import UNetError
from napari_unet.schema import STRICT, encode
from napari_unet.spec import TrainConfig


@dataclass(frozen=True)
class Split:
    """Which cases train and which are kept out to score the model; every fold, so that others can be trained alike."""

    __pydantic_config__ = STRICT

    folds: tuple[tuple[str, ...], ...]
    training: tuple[str, ...]
    kept_out: tuple[str, ...]
    independent: bool

    @property
    def sha256(self) -> str:
        """A fingerprint of the split."""
        return hashlib.sha256(encode(self).encode()).hexdigest()


def split_cases(names: list[str], config: TrainConfig) -> Split:
    """Shuffle by the seed, take `config.cases` of them, cut into folds, keep one fold out.

    With fewer cases than folds each is a fold of its own. A single case is trained on and scored: not independent.
    """
    order = np.random.default_rng((config.seed, 2)).permutation(len(names))
    chosen = [names[i] for i in order][: config.cases]
    count = min(config.folds, len(chosen))
    if config.fold >= count:
        raise UNetError("--fold", f"{config.fold} of {count} folds", f"Use 0 to {count - 1}")
    folds = tuple(tuple(sorted(chosen[n::count])) for n in range(count))
    kept_out = folds[config.fold]
    training = tuple(sorted(set(chosen) - set(kept_out))) or kept_out
    return Split(folds, training, kept_out, training != kept_out)
