"""What is known of a model and of its scores, beside what it is; it lies in the weights file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from napari_unet.schema import STRICT
from napari_unet.spec import Name
from napari_unet.words import counted

ScoredBy = Literal["", "kept out", "folds", "halves", "apart", "unknown"]

UNFINISHED = "Of a run that is not finished"  # what the note of such weights begins with


@dataclass(frozen=True)
class Parent:
    """The model that another one was fine-tuned from: its name, and the SHA-256 of its tensors (`fingerprint.of_tensors`)."""

    __pydantic_config__ = STRICT

    name: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Card:
    """What a person wants to know of a model before trusting it."""

    __pydantic_config__ = STRICT

    description: str = ""
    data: str = ""
    data_licence: str = ""
    licence: str = ""
    cases_trained: int = 0
    cases_scored: int = 0
    independent: bool = False  # was what is scored kept out of training?
    scored_by: ScoredBy = ""  # folds, halves: each by a model that never saw it; apart: joined models without a score of their own;
    # unknown: another program's, which tells none
    dice: dict[str, float] = field(default_factory=dict)  # label name, or "mean" -> mean over cases
    steps: int = 0  # of an ensemble: of all its members
    note: str = ""  # what else one has to know of the scores
    command: str = ""
    created: str = ""
    split_sha256: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    parent: Parent | None = None

    @property
    def worth(self) -> str:
        """What was scored, in words that follow "Dice on" or "Dice over"."""
        if self.parent is None or not self.cases_scored:
            return self._what_was_scored()
        return f"{self._what_was_scored()}; {self.parent.name}, which it began with, may have seen them"

    def _what_was_scored(self) -> str:
        cases = counted(self.cases_scored, "case")
        if self.scored_by == "unknown":
            return "no case that is known: the program that trained it left no scores"
        if not self.cases_scored:
            return "no case: its models were not scored together" if self.scored_by == "apart" else "no case: none was kept out of training"
        if self.scored_by == "halves":
            parts = "1 half of one volume, by a model" if self.cases_scored == 1 else "2 halves of one volume, each by a model"
            return f"{parts} that saw only the other half: other scans may be harder"
        if self.scored_by == "folds":
            return f"{cases}, each by the one model of several that never saw it"
        if self.independent:
            return f"{cases} kept out of training"
        return f"{cases} that it was trained on (not independent), so do not rely on it"
